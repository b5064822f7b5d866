// Package store keeps a [kms.Store] in an SQL database. Today that is SQLite, in one file; the statements and the schema
// are written so that PostgreSQL takes them unchanged, and what knows SQLite is in sqlite.go alone.
//
// A store is made once, by [Create], and after that only opened: no other function makes a file of the store's name, so a
// mistyped path is an error and never a new, empty store. Several processes may have one store open at the same time; one
// of them may take it as its server with [DB.Claim].
//
// The package knows nothing of what the keys are for, and holds no secret: what is secret was sealed before it came here.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"

	"strongroom/kms"
)

// A DB is an open store. It is safe for concurrent use, but for Close.
type DB struct {
	path    string  // of the file, without symbolic links
	writer  *sql.DB // one connection: writers wait for one another here, where a context can end the wait
	readers *sql.DB // as many as can be busy

	mu     sync.Mutex
	lock   *os.File // held from Claim to Close; nil otherwise
	checks []context.CancelFunc

	checking sync.WaitGroup        // checks that are running
	damage   atomic.Pointer[error] // what one of them found
	unsound  atomic.Int32          // those that have not ended, or have not found all to be well
}

var _ kms.Store = (*DB)(nil)

// Open opens the store at url, which is sqlite: and a path, or a path. The store must be there, be a store of this program and
// have the schema of this program; otherwise nothing is changed and the error says which command helps.
func Open(ctx context.Context, url string) (*DB, error) {
	d, err := open(ctx, url)
	if err != nil {
		return nil, err
	}
	if err := d.checkSchema(ctx); err != nil {
		d.Close()
		if sqliteCode(err) != 0 {
			err = fmt.Errorf("store: open %s: %w", d.path, err)
		}
		return nil, err
	}
	return d, nil
}

// open opens the store at url, whatever its schema.
func open(ctx context.Context, url string) (*DB, error) {
	path, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("store: there is no store at %s; strongroom init makes one: %w", path, fs.ErrNotExist)
	case err != nil:
		return nil, fmt.Errorf("store: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("store: %s is not a file", path)
	}
	// Two names of one file must lead to one lock, as they lead to one write-ahead log.
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}

	d := &DB{path: path, writer: openWriter(path), readers: openReaders(path)}
	if err := d.writer.PingContext(ctx); err != nil {
		d.Close()
		return nil, fmt.Errorf("store: open %s: %w", path, explain(err))
	}
	return d, nil
}

// Close gives back what Open took, and the claim. It must be called when no View, Update or Generation runs any more.
func (d *DB) Close() error {
	d.endChecks()
	// The last connection to be closed moves the write-ahead log into the file; only the writer may do that, so it is last.
	err := errors.Join(d.readers.Close(), d.writer.Close())
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lock != nil {
		err = errors.Join(err, unlock(d.lock))
		d.lock = nil
	}
	if err != nil {
		return fmt.Errorf("store: close %s: %w", d.path, err)
	}
	return nil
}

// Claim takes the store for this process as its one server, until Close or the end of the process. If another process has
// claimed it, the error names that process. A claim does not keep anybody from opening the store: commands of the
// administrator work beside the server.
func (d *DB) Claim(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lock != nil {
		return nil
	}
	f, err := lock(ctx, d.path)
	if err != nil {
		return err
	}
	d.lock = f
	return nil
}

// scheme is how a URL begins (RFC 3986, section 3.1).
var scheme = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*):`)

// parseURL returns the path in url. A url without a scheme is a path.
func parseURL(url string) (path string, err error) {
	path = url
	if m := scheme.FindStringSubmatch(url); m != nil {
		if m[1] != "sqlite" {
			return "", fmt.Errorf("store: unknown kind of store %q; write sqlite:/path/to/file", m[1])
		}
		path = url[len(m[0]):]
		// In sqlite://host/path the host would silently become a directory.
		if strings.HasPrefix(path, "//") && !strings.HasPrefix(path, "///") {
			return "", fmt.Errorf("store: %s names a host; write sqlite:/path/to/file", url)
		}
	}
	if path == "" {
		return "", fmt.Errorf("store: %q names no file; write sqlite:/path/to/file", url)
	}
	return filepath.Clean(path), nil
}
