package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// A migration is one step of the schema. Once released its file never changes.
type migration struct {
	name string // 0001_first.sql
	sql  string
	hash [sha256.Size]byte
}

// migrations are all that this program knows, in order: the one at index i has the number i+1.
var migrations = readMigrations(migrationFiles)

// readMigrations panics if the files are not numbered 0001, 0002, …: they are part of the program.
func readMigrations(files fs.FS) []migration {
	names, err := fs.Glob(files, "migrations/*.sql") // sorted
	if err != nil {
		panic(err)
	}
	var all []migration
	for i, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			panic(err)
		}
		name = strings.TrimPrefix(name, "migrations/")
		number, _, _ := strings.Cut(name, "_")
		if n, err := strconv.Atoi(number); err != nil || n != i+1 || len(number) != 4 {
			panic(fmt.Sprintf("store: migration %s is number %d", name, i+1))
		}
		all = append(all, migration{name, string(text), sha256.Sum256(text)})
	}
	return all
}

// Migrate brings the schema of the store at url up to this program's. Each step is one transaction, so it can be interrupted and
// repeated. It refuses while a server has claimed the store.
func Migrate(ctx context.Context, url string) error {
	d, err := open(ctx, url)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Claim(ctx); err != nil {
		return err
	}
	return d.migrate(ctx)
}

// createMigrations makes the table that says which migrations a store has. It is older than the first of them.
const createMigrations = `
	CREATE TABLE migration (
		number  BIGINT NOT NULL PRIMARY KEY,
		sha256  BYTEA  NOT NULL,
		applied BIGINT NOT NULL
	)`

var (
	selectMigrations = define("read table migration", `
		SELECT number, sha256 FROM migration ORDER BY number`)
	insertMigration = define("insert into table migration", `
		INSERT INTO migration (number, sha256, applied) VALUES ($1, $2, $3)`)
)

// migrate applies what is not yet applied.
func (d *DB) migrate(ctx context.Context) error {
	for done := false; !done; {
		err := transact(ctx, d.writer, beginUpdate, func(t *tx) error {
			have, err := t.applied()
			if err != nil {
				return err
			}
			if done = have == len(migrations); done {
				return nil
			}
			m := migrations[have]
			if _, err := t.exec(statement{does: "apply migration", sql: m.sql}, m.name); err != nil {
				return err
			}
			_, err = t.exec(insertMigration, m.name, have+1, m.hash[:], time.Now().UnixMilli())
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// checkSchema returns an error unless the schema of the store is this program's.
func (d *DB) checkSchema(ctx context.Context) error {
	return transact(ctx, d.readers, beginView, func(t *tx) error {
		have, err := t.applied()
		if err != nil {
			return err
		}
		if have < len(migrations) {
			return fmt.Errorf("store: %s has schema %d and this program needs %d; run strongroom migrate", d.path, have, len(migrations))
		}
		return nil
	})
}

// applied returns how many migrations the store has, and an error if one of them is not ours.
func (t *tx) applied() (int, error) {
	have, number, hash := 0, 0, []byte(nil)
	var wrong error
	err := t.rows(selectMigrations, nil, []any{&number, &hash}, func() {
		have++
		switch {
		case wrong != nil:
		case number != have:
			wrong = fmt.Errorf("store: damaged: table migration has number %d in place of %d", number, have)
		case number > len(migrations):
			wrong = fmt.Errorf("store: schema %d was made by a newer strongroom; this one knows %d", number, len(migrations))
		case !bytes.Equal(hash, migrations[have-1].hash[:]):
			wrong = fmt.Errorf("store: the store's migration %d is not this program's %s", number, migrations[have-1].name)
		}
	})
	if err != nil {
		return 0, err
	}
	return have, wrong
}
