package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/mattn/go-sqlite3"

	"strongroom/kms"
)

// A backup is made in portions, so that it can be interrupted and leaves the disk to others in between. Each portion is on disk before the next
// begins: what a file system has yet to write of a large file can hold up the fsync of a small one, which is what every request waits for.
const (
	backupPages = 256 // 1 MiB
	backupPause = 2 * time.Millisecond
)

// Backup makes a copy of the store at path, where nothing may be, mode 0600: the store as it was at one moment, while others read and write
// it. When Backup returns nil the copy is on disk, and was read back and found whole. A copy that failed is removed; one that was interrupted by the
// end of the process is left, and is no store that [Inspect] takes.
//
// Nobody waits for it. Meanwhile the write-ahead log cannot be moved into the file, and grows by what is written.
func (d *DB) Backup(ctx context.Context, path string) (*Copy, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	defer f.Close()
	c, err := d.backup(ctx, f, path)
	if err != nil {
		return nil, errors.Join(err, remove(path))
	}
	return c, nil
}

func (d *DB) backup(ctx context.Context, f *os.File, path string) (*Copy, error) {
	if err := d.copyPages(ctx, f, path); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, fmt.Errorf("store: sync %s: %w", path, err)
	}
	return Inspect(ctx, path)
}

// copyPages copies the store to the empty file at path, which f is.
func (d *DB) copyPages(ctx context.Context, f *os.File, path string) error {
	from, err := d.readers.Conn(ctx)
	if err != nil {
		return fmt.Errorf("store: connect: %w", explain(err))
	}
	defer giveBack(from)
	// All portions are of the state that this transaction sees. Without it, each change by another process would begin the copy anew.
	if _, err := from.ExecContext(unwatched(ctx), beginView); err != nil {
		return fmt.Errorf("store: begin a transaction: %w", explain(err))
	}
	var g int64
	if err := from.QueryRowContext(unwatched(ctx), selectGeneration.sql).Scan(&g); err != nil {
		return selectGeneration.failed(nil, err)
	}
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: "mode=rw"}
	to, err := new(sqlite3.SQLiteDriver).Open(dsn.String())
	if err != nil {
		return fmt.Errorf("store: copy to %s: %w", path, err)
	}
	defer to.Close()
	err = from.Raw(func(c any) error {
		return copyAll(ctx, to.(*sqlite3.SQLiteConn), c.(*sqlite3.SQLiteConn), f)
	})
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("store: copy %s to %s: %w", d.path, path, explainCopy(err))
	}
	return err
}

// explainCopy is explain where it may be the copy's disk that failed.
func explainCopy(err error) error {
	if code := sqliteCode(err); code == sqlite3.ErrFull || code == sqlite3.ErrIoErr {
		return fmt.Errorf("%w (look at the space and the health of the file system that the copy is written to)", err)
	}
	return explain(err)
}

func copyAll(ctx context.Context, to, from *sqlite3.SQLiteConn, f *os.File) (err error) {
	// If anything fails the copy is thrown away: it needs no journal. It is synced here, portion by portion.
	for _, p := range []string{"journal_mode = OFF", "synchronous = OFF"} {
		if _, err := to.Exec("PRAGMA "+p, nil); err != nil {
			return fmt.Errorf("PRAGMA %s: %w", p, err)
		}
	}
	b, err := to.Backup("main", from, "main")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Finish()) }()
	for moved, left := time.Now(), -1; ; {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("store: backup: %w", err)
		}
		done, err := b.Step(backupPages)
		if err != nil || done {
			return err
		}
		// The driver does not tell a portion that was copied from one that met a lock.
		if now := b.Remaining(); now != left {
			moved, left = time.Now(), now
		} else if time.Since(moved) > patience {
			return errors.New("the copy does not come further: something else has the file locked")
		}
		if err := f.Sync(); err != nil {
			return err
		}
		time.Sleep(backupPause)
	}
}

// A Copy is what the file of a store holds that nobody works on, such as a backup.
type Copy struct {
	Schema     int            // the number of its last migration
	Deployment kms.Deployment // without UsageSince
	Rows       map[string]int64
	Anchor     *kms.AuditAnchor // nil if nothing of the audit log was signed by then
}

// Inspect reads the file of a store through, without changing anything and without making files beside it, and returns what it holds, or why
// it is not a whole store. Nobody may write to the file meanwhile, and there may be no log of its last changes beside it.
func Inspect(ctx context.Context, path string) (*Copy, error) {
	for _, suffix := range sideFiles {
		if info, err := os.Lstat(path + suffix); err == nil && info.Size() > 0 {
			return nil, fmt.Errorf("store: %s%s: this store was not closed; its last changes are in that file", path, suffix)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("store: %w", err)
		}
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: "mode=ro&immutable=1"}
	db := sql.OpenDB(&sqliteConnector{dsn.String(), &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
		return errors.Join(checkApplication(c), configure(c))
	}}})
	defer db.Close()
	db.SetMaxOpenConns(1)
	c, err := inspect(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("store: %s: %w", path, explain(err))
	}
	return c, nil
}

func inspect(ctx context.Context, db *sql.DB) (*Copy, error) {
	if err := checkPages(ctx, db); err != nil {
		return nil, err
	}
	c := &Copy{Rows: make(map[string]int64)}
	if err := db.QueryRowContext(ctx, `SELECT coalesce(max(number), 0) FROM migration`).Scan(&c.Schema); err != nil {
		return nil, fmt.Errorf("read table migration: %w", err)
	}
	tables, err := texts(ctx, db, `SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`)
	if err != nil {
		return nil, err
	}
	for _, t := range tables {
		var n int64
		if err := db.QueryRowContext(ctx, `SELECT count(*) FROM "`+t+`"`).Scan(&n); err != nil {
			return nil, fmt.Errorf("count table %s: %w", t, err)
		}
		c.Rows[t] = n
	}
	d := &c.Deployment
	err = db.QueryRowContext(ctx, `SELECT id, created, aws_partition, aws_region, token_serial FROM deployment WHERE one = 1`).Scan(
		&d.ID, timeColumn{&d.Created}, &d.Partition, &d.Region, &d.TokenSerial)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, errors.New("it holds no deployment")
	} else if err != nil {
		return nil, fmt.Errorf("read table deployment: %w", err)
	}
	if c.Rows["audit_anchor"] == 1 {
		a := new(kms.AuditAnchor)
		var hash []byte
		if err := db.QueryRowContext(ctx, selectAuditAnchor.sql).Scan(&a.Log, &a.Sequence, &hash, &a.File); err != nil {
			return nil, fmt.Errorf("read table audit_anchor: %w", err)
		}
		copy(a.Hash[:], hash)
		c.Anchor = a
	}
	return c, nil
}

// QuickCheck returns an error if the pages of the store are not as SQLite wrote them, but for indexes that do not fit their tables: it reads
// the whole file once, a quarter of a second for 100,000 keys in memory.
func (d *DB) QuickCheck(ctx context.Context) error {
	found, err := texts(ctx, d.readers, "PRAGMA quick_check(1)")
	if err == nil && (len(found) != 1 || found[0] != "ok") {
		err = fmt.Errorf("%w: %s", sqlite3.Error{Code: sqlite3.ErrCorrupt}, found)
	}
	if err != nil {
		return fmt.Errorf("store: %s: %w", d.path, explain(err))
	}
	return nil
}

// checkPages returns an error if the file's pages are not as SQLite wrote them, or a row names another one that is not there.
func checkPages(ctx context.Context, db *sql.DB) error {
	found, err := texts(ctx, db, "PRAGMA integrity_check(1)")
	if err != nil {
		return err
	}
	if len(found) != 1 || found[0] != "ok" {
		return fmt.Errorf("%w: %s", sqlite3.Error{Code: sqlite3.ErrCorrupt}, found)
	}
	if found, err = texts(ctx, db, `SELECT "table" FROM pragma_foreign_key_check LIMIT 1`); err != nil {
		return err
	}
	if len(found) != 0 {
		return fmt.Errorf("%w: a row of table %s names another one that is not there", sqlite3.Error{Code: sqlite3.ErrCorrupt}, found[0])
	}
	return nil
}

// texts returns the one column that a query answers with.
func texts(ctx context.Context, db *sql.DB, query string) ([]string, error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, rows.Err()
}
