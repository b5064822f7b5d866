package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// replay puts the lines of the journal at the end of the file that they were written to, as far as they are not there: the machine stopped before
// that file was on disk. What the file has instead of them, parts of lines or zeros, is cut off and returned, to be recorded. Where the file has
// other whole lines, or is not there, no crash did that: the journal is kept as evidence under another name, and Open is left to say what is wrong
// with the file.
func (l *Log) replay(files []string) (*cutDetails, error) {
	journal := filepath.Join(l.o.Dir, journalName)
	p, lines, err := readJournal(journal)
	if err != nil || len(lines) == 0 {
		return nil, err
	}
	path, offset := filepath.Join(l.o.Dir, fileName(p.number)), p.offset
	text, why, err := p.following(path)
	if err != nil {
		return nil, err
	}
	there := common(text, lines)
	if there < len(lines) && why == "" {
		var after string
		if after, why, err = next(path, files); err != nil {
			return nil, err
		}
		if after != "" && len(text) == 0 {
			// They were being written to the next file, because this one had failed.
			path, offset, why = after, 0, ""
			if text, err = os.ReadFile(path); err != nil {
				return nil, err
			}
			there = common(text, lines)
		}
	}
	if there == len(lines) {
		// This was the process alone, or what is not there was not acknowledged. But if the process ended because a sync had failed, then what the
		// kernel holds to be written may not be.
		return nil, rewrite(path, offset, lines)
	}
	if why == "" {
		whole, head := chained(text[:there], p.log, p.head)
		if n, _ := chained(beforeZero(text[whole:]), p.log, head); n == 0 {
			return l.restore(path, offset+int64(there), text[there:], lines[there:])
		}
		why = filepath.Base(path) + " has other lines in their place"
	}
	kept := journal + "." + time.Now().UTC().Format("20060102T150405.000000000Z")
	if err := os.Rename(journal, kept); err != nil {
		return nil, err
	}
	l.o.Log.Error("audit log's journal has lines that are in none of its files. It is kept as evidence", "journal", kept, "bytes", len(lines), "reason", why)
	return nil, nil
}

// next returns the file after a file that has something, or none, and why nothing can be put at the end of the file before.
func next(path string, files []string) (after, why string, err error) {
	for _, f := range files[slices.Index(files, path)+1:] {
		info, err := os.Stat(f)
		switch {
		case err != nil:
			return "", "", err
		case info.Size() == 0:
		case after != "":
			return "", why, nil
		default:
			after, why = f, fmt.Sprintf("%s was begun after %s", filepath.Base(f), filepath.Base(path))
		}
	}
	return after, why, nil
}

// rewrite writes what is in a file at an offset once more, and waits until it is on disk.
func rewrite(path string, offset int64, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, offset)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// following returns what a file has from p on, or why p is not a place in it.
func (p place) following(path string) (text []byte, why string, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, filepath.Base(path) + " is not in its place", nil
	} else if err != nil {
		return nil, "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, "", err
	}
	if !info.Mode().IsRegular() || info.Size() < p.offset {
		return nil, filepath.Base(path) + " is shorter than it was", nil
	}
	if p.offset > 0 {
		before := make([]byte, min(p.offset, int64(maxLine)+2))
		if _, err := f.ReadAt(before, p.offset-int64(len(before))); err != nil {
			return nil, "", err
		}
		line := before[:len(before)-1]
		line = line[bytes.LastIndexByte(line, '\n')+1:]
		if before[len(before)-1] != '\n' || sha256.Sum256(line) != p.head.Hash {
			return nil, filepath.Base(path) + " has another line before them", nil
		}
	}
	text, err = io.ReadAll(io.NewSectionReader(f, p.offset, min(info.Size()-p.offset, sightLimit)))
	return text, "", err
}

// common returns how many bytes a and b begin with in common.
func common(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// restore writes lines to a file, instead of what it has from an offset on.
func (l *Log) restore(path string, offset int64, instead, lines []byte) (*cutDetails, error) {
	f, err := l.disk.open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() != offset+int64(len(instead)) {
		return nil, fmt.Errorf("%s has %d bytes, which is more than a crash leaves", path, info.Size())
	}
	if err := f.Truncate(offset); err != nil {
		return nil, err
	}
	if _, err := f.Write(lines); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	l.o.Log.Warn("audit log's last lines were not in its file when the machine stopped, and were put back from the journal",
		"file", path, "bytes", len(lines), "cut", len(instead))
	if len(instead) == 0 {
		return nil, nil
	}
	sum := sha256.Sum256(instead)
	return &cutDetails{filepath.Base(path), int64(len(instead)), hex.EncodeToString(sum[:])}, nil
}
