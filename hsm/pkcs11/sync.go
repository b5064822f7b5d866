package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"strongroom/hsm"
)

// A disk makes what a token of files has written durable. SoftHSM's calls no fsync, so that a key it has made can vanish with
// the power.
type disk struct {
	dir  string    // nothing to do if empty
	done time.Time // everything written before is on the disk
	dog  *watchdog // nil if there is none
}

// sync writes all that has changed in the directory since the last time to the disk, files before the directories that name them.
// One goroutine at a time calls it, after the module has returned.
func (d *disk) sync() error {
	if d.dir == "" {
		return nil
	}
	defer d.dog.in("fsync", slow)()
	// The clock of a file system may be coarse, and a little behind.
	since, begun := d.done.Add(-5*time.Second), time.Now()
	if err := syncTree(d.dir, since); err != nil {
		return fmt.Errorf("%w: writing the token to the disk: %v", hsm.ErrUnavailable, err)
	}
	d.done = begun
	return nil
}

// lock keeps other processes that ask for it out of the directory until it is unlocked, or this process ends.
func (d disk) lock(ctx context.Context) (unlock func(), err error) {
	if d.dir == "" {
		return func() {}, nil
	}
	f, err := os.Open(d.dir)
	if err != nil {
		return nil, fmt.Errorf("%w: the directory of the token: %v", hsm.ErrUnavailable, err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("%w: locking the directory of the token: %v", hsm.ErrUnavailable, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("%w: another process is opening the token: %w", hsm.ErrUnavailable, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func syncTree(dir string, since time.Time) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		switch {
		case e.IsDir():
			err = syncTree(name, since)
		case e.Type().IsRegular():
			var info fs.FileInfo
			if info, err = e.Info(); err == nil && info.ModTime().After(since) {
				err = fsync(name)
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // destroyed since
			return err
		}
	}
	return fsync(dir)
}

func fsync(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// tokenFile is SoftHSM's file of what a token is, and tokenCopy ends the name of the copy of it that is kept beside the directory of the token.
const (
	tokenFile = "token.object"
	tokenCopy = ".strongroom-copy"
)

// SoftHSM 2.6.1 rewrites the token's own object at each login, to note that the PIN was right: ftruncate to nothing, then one write, and no fsync. A
// process that is killed between the two leaves an empty file, and with it goes the key of all keys; what a power loss leaves may be zeros. So a copy is
// kept of what has been seen to open, and put in the place of what was cut off. What the file says of the PIN and of that key changes only when the PIN is
// changed.

// restoreTokens puts copies in the place of what was cut off, of all tokens in a directory of SoftHSM's. The caller has locked it.
func restoreTokens(dir string) error {
	return eachToken(dir, func(original, copied string) error {
		now, err := os.ReadFile(original)
		if err != nil {
			return err
		}
		whole, err := os.ReadFile(copied)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		cut := len(now) < len(whole) && string(now) == string(whole[:len(now)]) || strings.Trim(string(now), "\x00") == ""
		if !cut || len(whole) == 0 {
			return nil
		}
		return replace(original, whole)
	})
}

// keepTokens copies what was cut off the next time, of all tokens in a directory of SoftHSM's, one of which has just been seen to open. The caller has
// locked it.
func keepTokens(dir string) error {
	return eachToken(dir, func(original, copied string) error {
		now, err := os.ReadFile(original)
		if err != nil {
			return err
		}
		if whole, err := os.ReadFile(copied); err == nil && string(whole) == string(now) || len(now) == 0 {
			return nil
		}
		return replace(copied, now)
	})
}

// eachToken calls f with the file of each token in a directory of SoftHSM's, and where its copy is to be.
func eachToken(dir string, f func(original, copied string) error) error {
	if dir == "" {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("the directory of the token: %w", err)
	}
	for _, e := range entries {
		original := filepath.Join(dir, e.Name(), tokenFile)
		if _, err := os.Stat(original); err != nil {
			continue // not a token of SoftHSM
		}
		if err := f(original, filepath.Join(dir, "."+e.Name()+tokenCopy)); err != nil {
			return fmt.Errorf("the file of a token, and the copy of it: %w", err)
		}
	}
	return nil
}

// replace writes a file so that it is there with all its content, or as it was.
func replace(name string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return fsync(filepath.Dir(name))
}
