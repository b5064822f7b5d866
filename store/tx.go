package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"strongroom/kms"
)

// How long a transaction waits for the lock of another process: in one go inside SQLite, where the context is not heard,
// and in all. Transactions take milliseconds; who holds the lock for longer has stopped.
const busyTimeout = 100 * time.Millisecond

var patience = 10 * time.Second // a variable for the sake of a test

// View implements [kms.Store].
func (d *DB) View(ctx context.Context, f func(kms.Tx) error) error {
	return transact(ctx, d.readers, beginView, func(t *tx) error { return f(t) })
}

// Update implements [kms.Store].
func (d *DB) Update(ctx context.Context, f func(kms.Tx) error) error {
	if err := transact(ctx, d.writer, beginUpdate, func(t *tx) error { return f(t) }); err != nil {
		return err
	}
	return d.confirm()
}

// confirm returns an error if the file system of a store that this process has claimed takes no changes any more. Linux's ext4 answers a sync with success, for a
// moment, while it gives up a journal that it cannot write or a file system that it finds damaged; it has refused changes since before that. So a commit is believed
// only where a change is taken after it, here one to the lock's file that changes nothing.
func (d *DB) confirm() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lock == nil {
		return nil
	}
	if err := d.lock.Truncate(int64(len(pidText()))); err != nil {
		return fmt.Errorf("store: commit: it may not be on disk, because the file system takes no more changes: %w (look in the system's log)", err)
	}
	return nil
}

var selectGeneration = define("read table generation", `SELECT value FROM generation WHERE one = 1`)

// Generation implements [kms.Store].
func (d *DB) Generation(ctx context.Context) (int64, error) {
	conn, err := d.readers.Conn(ctx)
	if err != nil {
		return 0, fmt.Errorf("store: connect: %w", explain(err))
	}
	defer conn.Close()
	var g int64
	if err := conn.QueryRowContext(unwatched(ctx), selectGeneration.sql).Scan(&g); err != nil {
		return 0, selectGeneration.failed(nil, err) // having no row is a fault too
	}
	return g, nil
}

// transact calls f in a transaction of the pool, again and again while the locks of others are in the way.
func transact(ctx context.Context, pool *sql.DB, begin string, f func(*tx) error) error {
	for start := time.Now(); ; {
		err := transactOnce(ctx, pool, begin, f)
		if err == nil || !retryable(err) || time.Since(start) > patience {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("store: wait for a lock: %w, after: %w", ctx.Err(), err)
		case <-time.After(time.Millisecond + rand.N(10*time.Millisecond)):
		}
	}
}

func transactOnce(ctx context.Context, pool *sql.DB, begin string, f func(*tx) error) error {
	conn, err := pool.Conn(ctx)
	if err != nil {
		return fmt.Errorf("store: connect: %w", explain(err))
	}
	t := &tx{ctx: ctx, conn: conn, writes: begin == beginUpdate}
	// Whatever happens from here, a panic in f included: what was not committed is undone.
	defer func() {
		t.conn = nil
		giveBack(conn)
	}()
	if _, err := conn.ExecContext(unwatched(ctx), begin); err != nil {
		return fmt.Errorf("store: begin a transaction: %w", explain(err))
	}
	if err := f(t); err != nil {
		return err
	}
	if t.spent != nil {
		return t.spent
	}
	if !t.wrote {
		return nil // what is to be committed is nothing
	}
	if t.changed {
		if err := t.publish(); err != nil {
			return err
		}
	}
	// From here the context is not asked: to stop half-way would save nothing, and leave unsaid whether it happened.
	if _, err := conn.ExecContext(context.WithoutCancel(ctx), "COMMIT"); err != nil {
		return fmt.Errorf("store: commit: %w", explain(err))
	}
	return nil
}

var bumpGeneration = define("update table generation", `UPDATE generation SET value = value + 1 WHERE one = 1`)

var errNoGeneration = errors.New("store: table generation has lost its row; restore a backup")

// A tx is a [kms.Tx]. It is valid while the function that it was made for runs.
type tx struct {
	ctx     context.Context
	conn    *sql.Conn // nil when the transaction has ended
	writes  bool
	wrote   bool // some row was changed
	changed bool // by a statement that is not quiet

	// What was changed. Where something was, and nobody has said since what it was, unnoted is true.
	notes   map[kms.Change]bool
	unnoted bool

	// spent is the first error of the database. After it nothing more is done: SQLite may have undone the transaction by
	// itself, and what came next would be committed alone; PostgreSQL refuses to go on anyway.
	spent error
}

var _ kms.Tx = (*tx)(nil)

// A statement is one that is prepared once for each connection, by the driver.
type statement struct {
	does  string // with its table, for errors
	sql   string
	quiet bool // what it changes is no change to the generation
}

// statements are all that were defined, so that a test can look at the plan of each.
var statements []statement

// define returns a statement. Its parameters are $1, $2, … in the order in which they first appear, which is how SQLite
// numbers them and PostgreSQL reads them.
func define(does, sql string) statement {
	s := statement{does: does, sql: sql}
	statements = append(statements, s)
	return s
}

// defineQuiet returns a statement that changes what nobody remembers.
func defineQuiet(does, sql string) statement {
	s := define(does, sql)
	s.quiet = true
	return s
}

// failed returns what became of s as an error. about is what the statement asked about, or nil.
func (s statement) failed(about any, err error) error {
	err = explain(err)
	if about == nil {
		return fmt.Errorf("store: %s: %w", s.does, err)
	}
	return fmt.Errorf("store: %s (%v): %w", s.does, about, err)
}

var (
	errEnded    = errors.New("store: transaction used after its end")
	errReadOnly = errors.New("store: write in a transaction that only reads")
)

// usable returns an error if nothing can be done in t any more.
func (t *tx) usable() error {
	if t.conn == nil {
		return errEnded
	}
	if t.spent == nil && t.ctx.Err() != nil {
		t.spent = fmt.Errorf("store: %w", t.ctx.Err())
	}
	return t.spent
}

// fail spends t and returns the error.
func (t *tx) fail(s statement, about any, err error) error {
	t.spent = s.failed(about, err)
	return t.spent
}

// writable returns an error if s cannot write in t. What reads first and may then have nothing to write asks at its beginning, so that in
// a View it says that it cannot write, whatever is there.
func (t *tx) writable(s statement) error {
	if err := t.usable(); err != nil {
		return err
	}
	if !t.writes {
		return fmt.Errorf("%w: %s", errReadOnly, s.does)
	}
	return nil
}

// exec runs a statement that writes and returns how many rows it changed.
func (t *tx) exec(s statement, about any, args ...any) (int64, error) {
	if err := t.writable(s); err != nil {
		return 0, err
	}
	result, err := t.conn.ExecContext(unwatched(t.ctx), s.sql, args...)
	if err != nil {
		switch {
		case danglingReference(err):
			err = fmt.Errorf("%w: what it refers to: %w", kms.ErrNotStored, err)
		case duplicate(err):
			err = fmt.Errorf("%w: %w", kms.ErrConflict, err)
		}
		return 0, t.fail(s, about, err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return 0, t.fail(s, about, err)
	}
	if n > 0 {
		t.wrote = true
		t.changed = t.changed || !s.quiet
		t.unnoted = t.unnoted || !s.quiet
	}
	return n, nil
}

// insert runs an INSERT … ON CONFLICT DO NOTHING of one row, and returns ErrConflict if a row is there.
func (t *tx) insert(s statement, about any, args ...any) error {
	n, err := t.exec(s, about, args...)
	if err == nil && n == 0 {
		err = conflict(s, about)
	}
	return err
}

// change runs an UPDATE or a DELETE of one row, and returns ErrNotStored if it is not there.
func (t *tx) change(s statement, about any, args ...any) error {
	n, err := t.exec(s, about, args...)
	if err == nil && n == 0 {
		err = notStored(s, about)
	}
	return err
}

// row reads the one row that s answers with into dest, and returns ErrNotStored if there is none.
func (t *tx) row(s statement, about any, dest []any, args ...any) error {
	if err := t.usable(); err != nil {
		return err
	}
	err := t.conn.QueryRowContext(unwatched(t.ctx), s.sql, args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return notStored(s, about)
	}
	if err != nil {
		return t.fail(s, about, err)
	}
	return nil
}

// rows reads each row that s answers with into dest and calls each.
func (t *tx) rows(s statement, about any, dest []any, each func(), args ...any) error {
	if err := t.usable(); err != nil {
		return err
	}
	rows, err := t.conn.QueryContext(unwatched(t.ctx), s.sql, args...)
	if err != nil {
		return t.fail(s, about, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return t.fail(s, about, err)
		}
		each()
	}
	if err := rows.Err(); err != nil {
		return t.fail(s, about, err)
	}
	return nil
}

// list returns what s answers with, at most limit values: that is its last parameter, after args. columns says where in a value each
// column of a row goes.
func list[T any](t *tx, s statement, about any, limit int, columns func(*T) []any, args ...any) ([]T, error) {
	if limit <= 0 { // to SQLite, a negative limit is none
		return nil, t.usable()
	}
	var all []T
	var v T
	if err := t.rows(s, about, columns(&v), func() { all = append(all, v) }, append(args, limit)...); err != nil {
		return nil, err
	}
	return all, nil
}

func conflict(s statement, about any) error { return outcome(s, about, kms.ErrConflict) }

func notStored(s statement, about any) error { return outcome(s, about, kms.ErrNotStored) }

// outcome says that s was done and found things to be as err says. The transaction can go on.
func outcome(s statement, about any, err error) error {
	if about == nil {
		return fmt.Errorf("store: %s: %w", s.does, err)
	}
	return fmt.Errorf("store: %s (%v): %w", s.does, about, err)
}
