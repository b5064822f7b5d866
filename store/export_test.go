package store

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"testing"
	"time"
)

// What the tests in package store_test need of the inside.

const (
	BusyTimeout    = busyTimeout
	StatementCache = statementCache
	ChangesKept    = changesKept
)

// OnStep has f called between the steps of Create.
func OnStep(f func(string)) { testingOnlyStep = f }

// BePatient sets how long a transaction waits for another process, until the test ends.
func BePatient(t *testing.T, d time.Duration) {
	old := patience
	t.Cleanup(func() { patience = old })
	patience = d
}

// UseMigrations makes those in files the program's until the test ends.
func UseMigrations(t *testing.T, files fs.FS) {
	old := migrations
	t.Cleanup(func() { migrations = old })
	migrations = readMigrations(files)
}

// Files returns the program's own migrations.
func Files() fs.FS { return migrationFiles }

// Statements returns every statement and what it does.
func Statements() map[string]string {
	all := make(map[string]string)
	for _, s := range statements {
		all[s.sql] = s.does
	}
	return all
}

// SQL runs statements on the writer's connection, outside of any transaction.
func (d *DB) SQL(t testing.TB, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := d.writer.ExecContext(context.Background(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// Rows returns what a query answers with on the writer's connection, each row printed.
func (d *DB) Rows(t testing.TB, query string, args ...any) []string {
	t.Helper()
	return rowsOf(t, d.writer, query, args...)
}

// ReaderRows returns what a query answers with on a reader's connection, each row printed.
func (d *DB) ReaderRows(t testing.TB, query string, args ...any) []string {
	t.Helper()
	return rowsOf(t, d.readers, query, args...)
}

func rowsOf(t testing.TB, db *sql.DB, query string, args ...any) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for rows.Next() {
		values, dest := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			dest[i] = &values[i]
		}
		if err := rows.Scan(dest...); err != nil {
			t.Fatal(err)
		}
		line := ""
		for i, v := range values {
			if i > 0 {
				line += " "
			}
			line += fmt.Sprint(v)
		}
		all = append(all, line)
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return all
}

// OnReplaceStep has f called between the steps of Install.
func OnReplaceStep(f func(string)) { testingOnlyReplaceStep = f }

// LoseLock closes the lock's file under d, so that nothing can be changed there any more.
func (d *DB) LoseLock() { d.lock.Close() }
