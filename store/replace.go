package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mattn/go-sqlite3"
)

// A Replacement is a copy of a store that is about to become the store of a name, in place of the one that is there or where none is. It holds the
// server's claim on that name, and nothing of what is there is changed before Install. Close it.
type Replacement struct {
	path string // of the store
	temp string // of the copy
	lock *os.File
}

// testingOnlyReplaceStep is called between the steps of Install.
var testingOnlyReplaceStep = func(string) {}

// Replace begins to replace the store at url, and refuses while a server has claimed it. The directory must be there; the store need not be.
func Replace(ctx context.Context, url string) (*Replacement, error) {
	path, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil { // one lock for all names, as in open
		path = real
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("store: %w", err)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	path = filepath.Join(dir, filepath.Base(path))
	held, err := lock(ctx, path)
	if err != nil {
		return nil, err
	}
	r := &Replacement{path, path + ".restore", held}
	if err := r.tidy(); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// tidy removes the copy of a replacement that was interrupted. What it left in the middle of the exchange may be either store, and is kept.
func (r *Replacement) tidy() error {
	if err := remove(r.temp); err != nil {
		return err
	}
	info, err := os.Lstat(r.installing())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	kept, err := r.keepAs(info.ModTime())
	if err != nil {
		return err
	}
	if err := os.Rename(r.installing(), kept); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// Path is where the copy is kept until Install: beside the store, on its file system.
func (r *Replacement) Path() string { return r.temp }

// Exists reports whether there is a store to be replaced.
func (r *Replacement) Exists() (bool, error) {
	switch _, err := os.Lstat(r.path); {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	default:
		return false, fmt.Errorf("store: %w", err)
	}
}

// Write writes the copy, mode 0600, of the owner of the store that it replaces, or else of the directory.
func (r *Replacement) Write(from io.Reader) error { return writeCopy(r.temp, r.path, from) }

func writeCopy(path, like string, from io.Reader) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer f.Close()
	if os.Geteuid() == 0 { // the server may be another user
		info, err := os.Stat(like)
		if errors.Is(err, fs.ErrNotExist) {
			info, err = os.Stat(filepath.Dir(like))
		}
		if err == nil {
			owner := info.Sys().(*syscall.Stat_t)
			err = f.Chown(int(owner.Uid), int(owner.Gid))
		}
		if err != nil {
			return fmt.Errorf("store: %w", err)
		}
	}
	if _, err := io.Copy(f, from); err != nil {
		return fmt.Errorf("store: write %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("store: sync %s: %w", path, err)
	}
	return nil
}

// OpenCopy opens a copy that Inspect has found whole, and brings its schema up to this program's. Schemas of newer programs are refused.
func OpenCopy(ctx context.Context, path string) (*DB, error) {
	d, err := open(ctx, path)
	if err != nil {
		return nil, err
	}
	if err := d.migrate(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Install makes the copy, which must be closed, the store. One that was there stays beside it under a name with the time, which Install returns,
// empty if there was none. An error after the exchange says so, and where the old one is. At every moment, and whatever interrupts it, the old store or the new one is whole under the store's name; only where the
// old one was not closed and cannot be, as when it is damaged, there may be none for a moment, and the old one is under its other name. It refuses while
// any process has the old store open.
func (r *Replacement) Install(ctx context.Context, now time.Time) (kept string, err error) {
	if info, err := os.Lstat(r.temp + "-wal"); err == nil && info.Size() > 0 {
		return "", fmt.Errorf("store: %s is still open", r.temp)
	}
	if err := removeSide(r.temp); err != nil {
		return "", err
	}
	if err := syncFile(r.temp); err != nil {
		return "", err
	}
	there, err := r.Exists()
	if err != nil {
		return "", err
	}
	if there {
		kept, err = r.swap(ctx, now)
	} else {
		err = r.place()
	}
	if err != nil {
		return "", err
	}
	testingOnlyReplaceStep("installed")
	if err := syncFile(filepath.Dir(r.path)); err != nil {
		return kept, fmt.Errorf("store: the copy is installed, and the old store is %s, but after a power loss it may be as before: %w", cmp.Or(kept, "none"), err)
	}
	return kept, nil
}

// keepAs returns a name that is free, also with what SQLite would append, for a store that was replaced.
func (r *Replacement) keepAs(now time.Time) (string, error) {
	name := r.path + ".replaced-" + now.UTC().Format("20060102T150405Z")
	kept := name
	for n := 2; ; n++ {
		taken, err := filepath.Glob(globQuote.Replace(kept) + "*")
		if err != nil || len(taken) == 0 {
			return kept, err
		}
		kept = fmt.Sprintf("%s.%d", name, n)
	}
}

var globQuote = strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`)

// place puts the copy where no store is.
func (r *Replacement) place() error {
	// A swap that was interrupted, see there, leaves the second name of a log that is kept under its first.
	for _, suffix := range sideFiles {
		info, err := os.Lstat(r.path + suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err == nil && (suffix == "-shm" || info.Size() == 0 || info.Sys().(*syscall.Stat_t).Nlink > 1) {
			err = os.Remove(r.path + suffix)
		}
		if err != nil {
			return fmt.Errorf("store: %w", err)
		}
	}
	if err := absent(r.path); err != nil {
		return err
	}
	// A link, and not a rename, which would replace what somebody else made in the meantime. Close removes the other name.
	if err := os.Link(r.temp, r.path); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// swap puts the copy in the place of the store.
func (r *Replacement) swap(ctx context.Context, now time.Time) (kept string, err error) {
	// A store that is well is one file when it is closed like this. One that is not is left as it is.
	if err := settle(ctx, r.path); retryable(err) {
		return "", fmt.Errorf("store: %s is open in another process; wait for the command that uses it, and try again: %w", r.path, err)
	}
	testingOnlyReplaceStep("settled")
	old, err := os.OpenFile(r.path, os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("store: %w", err)
	}
	defer old.Close()
	if err := excludeSQLite(old); err != nil {
		return "", err
	}
	if kept, err = r.keepAs(now); err != nil {
		return "", err
	}
	if _, err := os.Lstat(r.path + "-journal"); err == nil {
		return "", fmt.Errorf("store: %s-journal is not of this program; move the store and what is beside it away, and restore again", r.path)
	}
	if info, err := os.Lstat(r.path + "-wal"); err == nil && info.Size() > 0 {
		return kept, r.moveAway(kept)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("store: %w", err)
	}
	if err := removeSide(r.path); err != nil {
		return "", err
	}
	// The names of two files change places, at once. What is then called installing is the old store.
	if err := os.Rename(r.temp, r.installing()); err != nil {
		return "", fmt.Errorf("store: %w", err)
	}
	testingOnlyReplaceStep("installing")
	if err := unix.Renameat2(unix.AT_FDCWD, r.installing(), unix.AT_FDCWD, r.path, unix.RENAME_EXCHANGE); err != nil {
		return "", errors.Join(fmt.Errorf("store: exchange %s and %s: %w; where the file system cannot do that, move the old store away and restore again",
			r.installing(), r.path, err), os.Rename(r.installing(), r.temp))
	}
	testingOnlyReplaceStep("exchanged")
	if err := os.Rename(r.installing(), kept); err != nil {
		return "", fmt.Errorf("store: the copy is installed, and the old store is %s: %w", r.installing(), err)
	}
	return kept, nil
}

func (r *Replacement) installing() string { return r.path + ".installing" }

// moveAway puts the copy in the place of a store that was not closed and cannot be. A log that SQLite found beside a store that it is not of would be
// played into it, and a store without its log has lost its last changes. So there is no store under the name for a moment.
func (r *Replacement) moveAway(kept string) error {
	for _, step := range []func() error{
		func() error { return os.Link(r.path+"-wal", kept+"-wal") },
		func() error { return os.Rename(r.path, kept) },
		func() error { return syncFile(filepath.Dir(r.path)) },
		func() error { testingOnlyReplaceStep("away"); return removeSide(r.path) },
		func() error { return syncFile(filepath.Dir(r.path)) },
		func() error { return os.Rename(r.temp, r.path) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("store: move %s to %s, where the old store is if there is none under the first name: %w", r.path, kept, err)
		}
	}
	return nil
}

// removeSide removes what SQLite made beside the file at path.
func removeSide(path string) error {
	for _, suffix := range sideFiles {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("store: %w", err)
		}
	}
	return nil
}

// settle has SQLite move the log of the store at path into its file and do without one, which it does only for who is alone with the store. It is a store
// of SQLite's all the same: the next to open it gives it a log again. A store that is damaged is left as it is, byte by byte.
func settle(ctx context.Context, path string) (err error) {
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: "mode=ro"} // who can only read does not move the log either
	db := sql.OpenDB(&sqliteConnector{dsn.String(), new(sqlite3.SQLiteDriver)})
	found, err := texts(ctx, db, "PRAGMA quick_check(1)")
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	if len(found) != 1 || found[0] != "ok" {
		return sqlite3.Error{Code: sqlite3.ErrCorrupt}
	}
	c, err := newConnector(path).Connect(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	conn := c.(*sqlite3.SQLiteConn)
	if _, err := conn.Exec("PRAGMA synchronous = FULL", nil); err != nil {
		return err
	}
	mode, err := pragma(conn, "journal_mode = DELETE")
	if err != nil {
		return err
	}
	if mode != "delete" {
		return sqlite3.Error{Code: sqlite3.ErrBusy}
	}
	return nil
}

// excludeSQLite takes the locks that SQLite has on a file that it has open, all at once, until f is closed (SQLite, "File Locking And Concurrency In
// SQLite Version 3", section 3.0; the bytes are PENDING_BYTE and those after it in os.h). They are of the file and not of this process, so that they go
// by nothing else that the process does.
func excludeSQLite(f *os.File) error {
	const pendingByte, bytes = 0x40000000, 512
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: pendingByte, Len: bytes}
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("store: %s is open in another process; wait for the command that uses it, and try again", f.Name())
	}
	if err != nil {
		return fmt.Errorf("store: lock %s: %w", f.Name(), err)
	}
	return nil
}

// Close gives the claim back, and removes a copy that was not installed.
func (r *Replacement) Close() error {
	return errors.Join(remove(r.temp), unlock(r.lock))
}
