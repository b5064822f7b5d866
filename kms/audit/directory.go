package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// makeDir makes the directory if its parent exists.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		err = syncParent(dir)
	} else if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}

// syncParent waits until the directory that path is in is on disk, and with it the name.
func syncParent(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// lockDir takes the lock of a log: flock(2) on a file in its directory, which ends with unlock or with the process. The file stays for ever,
// because to remove a lock's file is to let two processes each hold a lock of that name.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		if err == syscall.EWOULDBLOCK {
			return nil, fmt.Errorf("audit: %s is in use by another strongroom, which holds %s", dir, f.Name())
		}
		return nil, fmt.Errorf("audit: lock %s: %w", f.Name(), err)
	}
	return f, nil
}

func unlock(f *os.File) error { return f.Close() }
