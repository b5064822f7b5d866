package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"strongroom/hsm"
	"strongroom/kms"
)

// What an examination of a store asks, beside what [kms.Tx] has. The PRAGMAs are SQLite's, and none of the statements is on a request's way: they may look
// at whole tables.

// A Problem is something in a store that the database itself finds wrong.
type Problem struct {
	Table  string // where known
	Detail string
}

func (p Problem) String() string {
	if p.Table == "" {
		return p.Detail
	}
	return "table " + p.Table + ": " + p.Detail
}

// maxProblems is how many problems Verify returns at most, of each kind: a store with so many is restored, not repaired.
const maxProblems = 100

// Verify has the database read all of itself: each page, each index against its table, each constraint, and each reference from one row to another
// (SQLite, "PRAGMA integrity_check" and "PRAGMA foreign_key_check"). It takes as long as it takes to read the file, and holds nobody back. The error is about the
// means: damage that keeps the database from being read is a Problem.
func (d *DB) Verify(ctx context.Context) ([]Problem, error) {
	conn, err := d.readers.Conn(ctx)
	if err != nil {
		return damage(nil, fmt.Errorf("store: connect: %w", explain(err)))
	}
	defer conn.Close()
	var all []Problem
	err = eachRow(ctx, conn, fmt.Sprintf("PRAGMA integrity_check(%d)", maxProblems), func(scan func(...any) error) error {
		var text string
		if err := scan(&text); err != nil {
			return err
		}
		if text != "ok" {
			all = append(all, Problem{Detail: strings.TrimPrefix(text, "*** in database main ***\n")})
		}
		return nil
	})
	if err != nil {
		return damage(all, fmt.Errorf("store: integrity check: %w", explain(err)))
	}
	n := 0
	err = eachRow(ctx, conn, "PRAGMA foreign_key_check", func(scan func(...any) error) error {
		var table, parent string
		var row sql.NullInt64
		var reference int
		if err := scan(&table, &row, &parent, &reference); err != nil {
			return err
		}
		if n++; n <= maxProblems {
			all = append(all, Problem{table, fmt.Sprintf("row %d names one of table %s that is not there", row.Int64, parent)})
		}
		return nil
	})
	if err != nil {
		return damage(all, fmt.Errorf("store: check of references: %w", explain(err)))
	}
	return all, nil
}

// damage returns err as a problem if it says that the file is damaged.
func damage(found []Problem, err error) ([]Problem, error) {
	if damaged(err) {
		return append(found, Problem{Detail: strings.TrimPrefix(err.Error(), "store: ")}), nil
	}
	return found, err
}

// eachRow calls f for each row that a query answers with. Unlike a [statement] it ends with ctx in the middle of a row.
func eachRow(ctx context.Context, conn *sql.Conn, query string, f func(scan func(...any) error) error) error {
	rows, err := conn.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// newest is the latest moment that the store knows to have been now: none of what is due later is among it.
const newest = `SELECT max(t) FROM (
	SELECT max(created) AS t FROM deployment UNION ALL SELECT max(created) FROM account UNION ALL SELECT max(created) FROM credential
	UNION ALL SELECT max(last_used) FROM credential UNION ALL SELECT max(created) FROM kms_key UNION ALL SELECT max(created) FROM material
	UNION ALL SELECT max(updated) FROM alias UNION ALL SELECT max(destroyed) FROM tombstone UNION ALL SELECT max(applied) FROM migration
	UNION ALL SELECT max(created) FROM principal UNION ALL SELECT max(deleted) FROM principal UNION ALL SELECT max(created) FROM kms_grant
	UNION ALL SELECT max(used) FROM key_use)`

// Newest returns the latest time at which something is noted to have happened, zero if nothing is. If that is after now, some clock was or is wrong.
func (d *DB) Newest(ctx context.Context) (time.Time, error) {
	var at sql.NullInt64
	if err := d.readers.QueryRowContext(ctx, newest).Scan(&at); err != nil {
		return time.Time{}, fmt.Errorf("store: find the newest time: %w", explain(err))
	}
	if !at.Valid {
		return time.Time{}, nil
	}
	return time.UnixMilli(at.Int64).UTC(), nil
}

var selectTombstone = define("read table tombstone", `
	SELECT t.key_id, t.destroyed FROM tombstone_material m JOIN tombstone t ON t.key_id = m.key_id WHERE m.id = $1`)

func (t *tx) Tombstone(material hsm.ID) (kms.KeyID, time.Time, error) {
	var key kms.KeyID
	var destroyed time.Time
	err := t.row(selectTombstone, material, []any{keyIDColumn{&key}, timeColumn{&destroyed}}, material[:])
	return key, destroyed, err
}

// Schema returns the number of the schema of the store at url, and that of this program's. It changes nothing, and opens what [Open] refuses because of its schema.
func Schema(ctx context.Context, url string) (have, known int, err error) {
	d, err := open(ctx, url)
	if err != nil {
		return 0, len(migrations), err
	}
	defer d.Close()
	err = transact(ctx, d.readers, beginView, func(t *tx) (err error) {
		have, err = t.applied()
		return err
	})
	return have, len(migrations), err
}

// Server returns the process that has claimed the store at url, ok only if one has. Its pid is 0 if it is not known here, as of a process in another
// container.
func Server(url string) (pid int, ok bool, err error) {
	path, err := parseURL(url)
	if err != nil {
		return 0, false, err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	f, err := os.Open(path + ".lock")
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("store: %w", err)
	}
	defer f.Close()
	// The lock is the only proof. It is asked for as one of many and given back at once; a server that starts at this very moment looks again. See takeLock.
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if err == nil {
		return 0, false, nil
	}
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return 0, false, fmt.Errorf("store: lock %s: %w", f.Name(), err)
	}
	pid = readPID(f)
	if pid > 0 && syscall.Kill(pid, 0) == syscall.ESRCH {
		pid = 0
	}
	return pid, true, nil
}
