package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// lock takes the lock that belongs to the store at path: flock(2) on a file beside it, which holds the pid of the owner. The lock
// ends with unlock or with the process, whichever is first. Child processes do not inherit it: Go opens files with O_CLOEXEC.
// The file stays for ever, because to remove a lock's file is to let two processes each hold a lock of that name.
func lock(ctx context.Context, path string) (*os.File, error) {
	name := path + ".lock"
	// Root may come here, into a directory of somebody who would have it write to another file, or give that away.
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Sys().(*syscall.Stat_t).Nlink != 1 {
		f.Close()
		return nil, fmt.Errorf("store: %s is not a file of its own; remove it", name)
	}
	if err := takeLock(ctx, f, path); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func takeLock(ctx context.Context, f *os.File, path string) error {
	// Between the moment when an owner has the lock and that when it has written its pid, the file names nobody, or a process
	// that crashed before. So look again for a little while.
	const tries = 20
	for n := 1; ; n++ {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("store: lock %s: %w", f.Name(), err)
		}
		pid := readPID(f)
		if pid > 0 && syscall.Kill(pid, 0) != syscall.ESRCH {
			return fmt.Errorf("store: %s is in use by another strongroom, process %d", path, pid)
		}
		if n == tries {
			// The owner may be in another container, where our numbers mean nothing.
			return fmt.Errorf("store: %s is in use by another strongroom (%s names process %d, which is not on this system)",
				path, f.Name(), pid)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("store: lock %s: %w", f.Name(), ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	if err := writePID(f, path); err != nil {
		return fmt.Errorf("store: lock %s: %w", f.Name(), err)
	}
	return nil
}

func writePID(f *os.File, path string) error {
	// A command that root runs must not leave a file that the server cannot open. SQLite does the same with its files.
	if os.Geteuid() == 0 {
		info, err := os.Stat(path)
		if err != nil { // there is no store yet
			info, err = os.Stat(filepath.Dir(path))
		}
		if err == nil {
			owner := info.Sys().(*syscall.Stat_t)
			if err := f.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
				return err
			}
		}
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(pidText()), 0)
	return err
}

// pidText is what the lock's file holds while this process has the lock.
func pidText() string { return strconv.Itoa(os.Getpid()) + "\n" }

func readPID(f *os.File) int {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 32))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	if err != nil {
		return 0
	}
	return pid
}

// unlock gives up a lock that lock returned.
func unlock(f *os.File) error {
	return errors.Join(f.Truncate(0), f.Close())
}
