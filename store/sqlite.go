package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"runtime"
	"strconv"

	"github.com/mattn/go-sqlite3"
)

// applicationID marks a file of SQLite as a store of this program (SQLite, "Database File Format", section 1.3.17).
const applicationID = 0x5374726d

// How the two kinds of transaction begin. A writer takes the write lock at once: one that began as a reader and wrote later
// could find that another has written since, and would have to begin again.
const (
	beginView   = "BEGIN"
	beginUpdate = "BEGIN IMMEDIATE"
)

// pragmas are the settings of each connection, with the reasons for them.
var pragmas = []string{
	// References between tables are kept. SQLite does so only if asked.
	"foreign_keys = ON",
	// Nothing that somebody wrote into the schema of the file may call functions with side effects.
	"trusted_schema = OFF",
	// Damage is noticed when a page is read, before it is written on.
	"cell_size_check = ON",
	// Each commit waits for the disk. The build's default for a write-ahead log, NORMAL, would lose the last commits with the power.
	"synchronous = FULL",
	// On macOS fsync alone does not reach the disk; elsewhere these two say nothing new.
	"fullfsync = ON",
	"checkpoint_fullfsync = ON",
	// After every 1000 pages (4 MB) the log is moved into the file by the commit that filled it: a pause of milliseconds, seldom.
	"wal_autocheckpoint = 1000",
	// A log that grew while some reader was slow is cut back when it is reused.
	"journal_size_limit = 67108864",
}

// statementCache is how many prepared statements each connection keeps: all of this package's fit.
const statementCache = 128

// An sqliteConnector opens connections to one file. It does not make the file.
type sqliteConnector struct {
	dsn    string
	driver *sqlite3.SQLiteDriver
}

func (c *sqliteConnector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }
func (c *sqliteConnector) Driver() driver.Driver                        { return c.driver }

// newConnector returns a connector to the file at path, which must be absolute. steps are taken with each new connection.
func newConnector(path string, steps ...func(*sqlite3.SQLiteConn) error) *sqliteConnector {
	file := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{
		"mode": {"rw"}, // not rwc: a file that is not there stays so
		// SQLite's own wait for a lock ignores the context, so it is short; transact waits longer.
		"_busy_timeout":    {strconv.Itoa(int(busyTimeout.Milliseconds()))},
		"_stmt_cache_size": {strconv.Itoa(statementCache)},
	}.Encode()}
	return &sqliteConnector{file.String(), &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
		for _, step := range steps {
			if err := step(c); err != nil {
				return err
			}
		}
		return nil
	}}}
}

// openWriter returns the pool of one connection that writes.
func openWriter(path string) *sql.DB {
	db := sql.OpenDB(newConnector(path, checkApplication, configure, setWAL))
	db.SetMaxOpenConns(1)
	return db
}

// openNew returns such a pool for an empty file, which it marks as a store.
func openNew(path string) *sql.DB {
	db := sql.OpenDB(newConnector(path, setApplication, configure, setWAL))
	db.SetMaxOpenConns(1)
	return db
}

// openReaders returns the pool of connections that read. They use a processor and wait for little, so there is no use in
// many more of them than there are processors.
func openReaders(path string) *sql.DB {
	db := sql.OpenDB(newConnector(path, checkApplication, configure, setQueryOnly))
	n := max(4, runtime.GOMAXPROCS(0))
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db
}

// checkApplication returns an error unless the file is a store. It asks SQLite and does not look at the file's bytes: to open and
// close the file a second time would drop the locks that this process has on it (SQLite, "How To Corrupt An SQLite Database
// File", section 2.2).
func checkApplication(c *sqlite3.SQLiteConn) error {
	switch v, err := pragma(c, "application_id"); {
	case err != nil:
		return err
	case v != int64(applicationID):
		return errors.New("this is not a strongroom store; strongroom init makes one, under a name that is free")
	}
	return nil
}

func setApplication(c *sqlite3.SQLiteConn) error {
	_, err := c.Exec(fmt.Sprintf("PRAGMA application_id = %d", applicationID), nil)
	return err
}

// configure applies the pragmas.
func configure(c *sqlite3.SQLiteConn) error {
	for _, p := range pragmas {
		if _, err := c.Exec("PRAGMA "+p, nil); err != nil {
			return fmt.Errorf("PRAGMA %s: %w", p, err)
		}
	}
	return nil
}

// setQueryOnly makes SQLite refuse to write, whatever this package asks of it.
func setQueryOnly(c *sqlite3.SQLiteConn) error {
	_, err := c.Exec("PRAGMA query_only = ON", nil)
	return err
}

// setWAL makes sure that the file has a write-ahead log, so that readers and the writer do not wait for one another. The
// file remembers.
func setWAL(c *sqlite3.SQLiteConn) error {
	switch v, err := pragma(c, "journal_mode = WAL"); {
	case err != nil:
		return err
	case v != "wal":
		return fmt.Errorf("SQLite keeps no write-ahead log here (journal mode %v); is this a network file system?", v)
	}
	return nil
}

// pragma returns the one value that a PRAGMA answers with.
func pragma(c *sqlite3.SQLiteConn, p string) (driver.Value, error) {
	rows, err := c.Query("PRAGMA "+p, nil)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	v := make([]driver.Value, 1)
	if err := rows.Next(v); err == io.EOF {
		return nil, fmt.Errorf("PRAGMA %s answered nothing", p)
	} else if err != nil {
		return nil, err
	}
	return v[0], nil
}

// unwatched returns ctx for one statement, without its end. Each statement of this package is a look into an index or a
// change of a few rows: it takes microseconds, less than the goroutines and locks with which the driver would be ready to
// interrupt it. So the context is asked between statements, and ends the waits.
func unwatched(ctx context.Context) context.Context { return context.WithoutCancel(ctx) }

// giveBack returns conn to its pool with no transaction open on it. A connection that cannot be brought to that is closed
// instead.
func giveBack(conn *sql.Conn) {
	conn.Raw(func(c any) error {
		s := c.(*sqlite3.SQLiteConn)
		// After some errors SQLite has undone the transaction by itself (SQLite, "Transactions", section 3.1).
		if s.AutoCommit() {
			return nil
		}
		if _, err := s.Exec("ROLLBACK", nil); err != nil {
			return driver.ErrBadConn
		}
		return nil
	})
	conn.Close()
}

// sqliteCode returns the primary result code in err, or zero.
func sqliteCode(err error) sqlite3.ErrNo {
	var e sqlite3.Error
	errors.As(err, &e)
	return e.Code
}

// damaged reports whether err means that the file is not, or not any more, one of SQLite's.
func damaged(err error) bool {
	code := sqliteCode(err)
	return code == sqlite3.ErrCorrupt || code == sqlite3.ErrNotADB
}

// retryable reports whether err means that another held a lock, and nothing was done.
func retryable(err error) bool {
	code := sqliteCode(err)
	return code == sqlite3.ErrBusy || code == sqlite3.ErrProtocol
}

// danglingReference reports whether err means that a row names another one that is not there.
func danglingReference(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && e.ExtendedCode == sqlite3.ErrConstraintForeignKey
}

// duplicate reports whether err means that a row like it is there.
func duplicate(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) &&
		(e.ExtendedCode == sqlite3.ErrConstraintUnique || e.ExtendedCode == sqlite3.ErrConstraintPrimaryKey)
}

// remedies say what an operator can do about the errors of SQLite that are not the program's fault.
var remedies = map[sqlite3.ErrNo]string{
	sqlite3.ErrBusy:     "another process holds the store's lock for long; look for a command or a backup that hangs",
	sqlite3.ErrCantOpen: permissions,
	sqlite3.ErrCorrupt:  "the store is damaged; stop strongroom, keep a copy of what is there, and restore a backup: strongroom restore",
	sqlite3.ErrFull:     "no space is left for the store; free some on its file system",
	sqlite3.ErrIoErr:    "the disk failed; look in the system's log",
	sqlite3.ErrNotADB: "it is no strongroom store, or its beginning is damaged; strongroom restore puts a backup in its place, and " +
		"strongroom init makes one, under a name that is free",
	sqlite3.ErrPerm:     permissions,
	sqlite3.ErrReadonly: permissions,
}

const permissions = "see that the store, the files beside it that end in -wal and -shm, and their directory can be written by " +
	"the user that strongroom runs as"

// explain adds to err what an operator can do about it.
func explain(err error) error {
	if remedy, ok := remedies[sqliteCode(err)]; ok {
		return fmt.Errorf("%w (%s)", err, remedy)
	}
	return err
}
