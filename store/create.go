package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// testingOnlyStep is called between the steps of Create.
var testingOnlyStep = func(string) {}

// Create makes the store that url names. Its error wraps [fs.ErrExist] if there is a file of that name, which is left as it is.
//
// The store appears under its name when it is complete and on disk, so an interrupted Create leaves nothing that Open would
// take, and can be repeated.
func Create(ctx context.Context, url string) (err error) {
	path, err := parseURL(url)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	path = filepath.Join(dir, filepath.Base(path))
	if err := absent(path); err != nil {
		return err
	}

	// Two at once would use one temporary name. The lock is the server's, which has no use for it before there is a store.
	held, err := lock(ctx, path)
	if err != nil {
		return err
	}
	defer unlock(held)

	temp := path + ".new"
	if err := remove(temp); err != nil { // of an interrupted Create
		return err
	}
	// SQLite gives the files that it makes beside this one the same mode.
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	f.Close()
	defer func() { err = errors.Join(err, remove(temp)) }()
	testingOnlyStep("made")
	if err := fill(ctx, temp); err != nil {
		return err
	}
	testingOnlyStep("filled")
	if err := syncFile(temp); err != nil {
		return err
	}
	// A link, and not a rename, because a rename would replace a store that somebody else made in the meantime. If this is
	// where it ends, the temporary name is left over: it does no harm, and nothing here ever opens it.
	if err := os.Link(temp, path); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	testingOnlyStep("linked")
	return syncFile(dir)
}

// absent returns an error if there is anything at path, or anything beside it that SQLite would take for a part of it: a log
// that was left behind by another store would be played into the new one.
func absent(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("store: %s: %w", path, fs.ErrExist)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("store: %w", err)
	}
	for _, suffix := range sideFiles {
		if _, err := os.Lstat(path + suffix); err == nil {
			return fmt.Errorf("store: %s%s is left of another store; move it away", path, suffix)
		}
	}
	return nil
}

// sideFiles are what SQLite appends to the name of a file for the names of its others.
var sideFiles = []string{"-wal", "-shm", "-journal"}

// remove removes the file of SQLite at path, if there is one, and those beside it.
func remove(path string) error {
	for _, suffix := range append(sideFiles, "") {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("store: %w", err)
		}
	}
	return nil
}

// fill makes a store of the empty file at path.
func fill(ctx context.Context, path string) (err error) {
	d := &DB{path: path, readers: openReaders(path), writer: openNew(path)}
	defer func() { err = errors.Join(err, d.Close()) }()
	if _, err := d.writer.ExecContext(ctx, createMigrations); err != nil {
		return fmt.Errorf("store: create table migration: %w", explain(err))
	}
	return d.migrate(ctx)
}

// syncFile waits until the file or directory at path is on disk.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("store: sync %s: %w", path, err)
	}
	return nil
}
