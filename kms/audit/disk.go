package audit

import (
	"errors"
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
	// journal opens a file of a size, to write over what is in it, or makes one. Its name and its blocks are durable when journal returns.
	journal(path string, size int64) (journalFile, error)
	stat(path string) (fs.FileInfo, error)
	// change makes a change of an empty file that changes nothing. It fails where the file system takes no changes.
	change(f *os.File) error
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

// A journalFile is that of a [journal]. What WriteAt wrote is durable when a Sync after it has returned nil.
type journalFile interface {
	io.WriterAt
	io.Closer
	Sync() error
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

func (osDisk) journal(path string, size int64) (journalFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		f.Close()
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("it is not a regular file")}
	}
	if err == nil && info.Size() != size {
		if err = f.Truncate(0); err == nil {
			// Blocks that are only reserved would be marked as written one by one later, each of which is a change to wait for.
			_, err = f.Write(make([]byte, size))
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = syncParent(path)
	}
	if err != nil {
		f.Close()
		if info != nil && info.Size() != size {
			os.Remove(path) // rather than take room on a disk that is full
		}
		return nil, err
	}
	return osFile{f}, nil
}

func (osDisk) change(f *os.File) error { return f.Truncate(0) }

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
