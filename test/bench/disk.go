package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"syscall"
)

// recordSize is about that of a record of the audit log.
const recordSize = 900

// A disk is a file to which records are appended and synced, one after the other: what a record costs at least that is on the disk before its request is answered.
type disk struct {
	file   *os.File
	record []byte
}

func (b *bench) openDisk(name string) (*disk, error) {
	f, err := os.Create(filepath.Join(b.dir, name))
	return &disk{f, append(bytes.Repeat([]byte("x"), recordSize-1), '\n')}, err
}

func (d *disk) append(n int) (slice, error) {
	return load(context.Background(), 1, n, 0, func(int) error {
		if _, err := d.file.Write(d.record); err != nil {
			return err
		}
		return syscall.Fdatasync(int(d.file.Fd()))
	})
}

// measureDisk measures the disk alone, which all else has under it.
func (b *bench) measureDisk() error {
	d, err := b.openDisk("disk")
	if err != nil {
		return err
	}
	defer d.file.Close()
	var parts []slice
	for range rounds {
		part, err := d.append(200)
		if err != nil {
			return err
		}
		parts = append(parts, part)
	}
	b.add(compare("append and fdatasync, without a server", 1, parts, "", nil, nil))
	return nil
}
