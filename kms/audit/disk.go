package audit

import (
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// A disk is what the log asks of a file system. There is one, and those of the tests, which fail when told to.
type disk interface {
	// create makes a file that must not exist, to append to. Its name is durable when create returns.
	create(path string) (file, error)
	// open opens a file that exists, to append to.
	open(path string) (file, error)
	stat(path string) (fs.FileInfo, error)
}

// A file is one of the log's. Write appends; what it wrote is durable when a Sync after it has returned nil.
type file interface {
	io.Writer
	io.ReaderAt
	io.Closer
	Sync() error
	Truncate(size int64) error
	Stat() (fs.FileInfo, error)
}

type osDisk struct{}

func (osDisk) create(path string) (file, error) {
	f, err := openFile(path, os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, err
	}
	if err := syncParent(path); err != nil {
		f.Close()
		os.Remove(path) // if this fails too, the empty file is passed over
		return nil, err
	}
	return f, nil
}

func (osDisk) open(path string) (file, error) { return openFile(path, 0) }

func (osDisk) stat(path string) (fs.FileInfo, error) { return os.Lstat(path) }

func openFile(path string, flag int) (file, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|unix.O_NOFOLLOW|flag, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

type osFile struct{ *os.File }

// Sync is fdatasync(2): it leaves out the times, but not the size, of the file.
func (f osFile) Sync() error {
	for {
		switch err := unix.Fdatasync(int(f.Fd())); err {
		case nil:
			return nil
		case unix.EINTR: // before anything was tried
		default:
			return &fs.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
	}
}
