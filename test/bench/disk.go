package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

const (
	recordSize = 900     // about that of a record of the audit log
	diskSize   = 1 << 20 // of a file that is overwritten
)

// A disk is a file in which records are made durable, in one of two ways: at its end, so that the file's new length has to be written too; or over
// others in blocks that were written before, which is the least that a disk can be asked for.
type disk struct {
	file    *os.File
	inPlace bool
	at      int64
}

var record = append(bytes.Repeat([]byte("x"), recordSize-1), '\n')

func openDisk(name string, inPlace bool) (*disk, error) {
	f, err := os.Create(name)
	if err == nil && inPlace {
		_, err = f.Write(make([]byte, diskSize))
		err = errors.Join(err, f.Sync())
	}
	return &disk{file: f, inPlace: inPlace}, err
}

// write writes text and waits until it is on the disk.
func (d *disk) write(text []byte) error {
	if d.inPlace && d.at+int64(len(text)) > diskSize {
		d.at = 0
	}
	if _, err := d.file.WriteAt(text, d.at); err != nil {
		return err
	}
	d.at += int64(len(text))
	return syscall.Fdatasync(int(d.file.Fd()))
}

// again writes records, one after the other.
func (d *disk) again(n int) (slice, error) {
	return load(context.Background(), 1, n, 0, func(int) error { return d.write(record) })
}

// measureDisk measures the disk alone, which all else has under it.
func (b *bench) measureDisk() error {
	appended, err := openDisk(filepath.Join(b.dir, "appended"), false)
	if err != nil {
		return err
	}
	defer appended.file.Close()
	overwritten, err := openDisk(filepath.Join(b.dir, "overwritten"), true)
	if err != nil {
		return err
	}
	defer overwritten.file.Close()
	var as, bs []slice
	for range rounds {
		a, err := overwritten.again(200)
		if err != nil {
			return err
		}
		b, err := appended.again(200)
		if err != nil {
			return err
		}
		as, bs = append(as, a), append(bs, b)
	}
	b.add(compare("disk alone, durable write in place", 1, as, "append", bs, nil))
	return nil
}
