package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A journal is where a line is durable first: the file "journal" in the log's directory, beside the files of the log.
//
// To make durable what was appended to a file takes two writes to the disk, one of the line and one of the file's new length, and on most file
// systems a commit of their own journal, for which the file waits with all others. To overwrite a place in a file whose blocks were written before
// takes one. So a line goes into the log's file, where every reader sees it at once, and into the journal, which alone is waited for. When the
// journal is full, when a checkpoint was written, and before another file is begun, the log's file is waited for, and the journal begins anew.
//
// What is in the journal is
//
//	strongroom audit journal v1 <UUID of the chain> <number of the file> <its length> <sequence>:<hash> <SHA-256 of the line to here, hexadecimal>
//
// with the length that the file had, and the head of the chain, when all of it was durable, and then, for each write, lines that follow that head
// and after them the head that they make:
//
//	<sequence>:<hash>
//
// So that all of a write is known to be there, although the disk may have written some of its blocks and not others, over what was in the journal
// before. It ends where what follows is something else. [Log.replay] reads it when the machine stopped.
type journal struct {
	f    journalFile
	path string
	info fs.FileInfo // of f, to tell whether it is still the one at its path

	begin place  // of the first of lines, if there are any
	lines []byte // that the log's file may not have on disk; a copy of what is in f
	at    int64  // where the next go in f
	last  int    // bytes of the last write to f
	bad   bool   // nothing is written to f any more
	buf   []byte
}

// A place is where a line is or comes in a log.
type place struct {
	log    [16]byte
	number int   // of the file
	offset int64 // in it
	head   Head  // the line before
}

const (
	journalName  = "journal"
	journalLabel = "strongroom audit journal v1 "

	// journalSize is the length of the journal. Mostly a checkpoint comes before it is full.
	journalSize = 2 << 20

	journalPause = time.Minute // after none could be made

	placeMax = 512 // bytes of the journal's first line, at most
	headMax  = 128 // and of one with a head
)

// openJournal opens the journal, or makes one, to be written from its beginning.
func openJournal(d disk, dir string) (*journal, error) {
	path := filepath.Join(dir, journalName)
	f, err := d.journal(path, journalSize)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &journal{f: f, path: path, info: info}, nil
}

// fits reports whether there is room for more lines.
func (j *journal) fits(lines []byte) bool {
	return !j.bad && j.at+int64(len(lines))+placeMax+headMax <= journalSize
}

// put makes lines durable, which are written at p in the log and make the head h. If it fails, whether they are is not known.
func (j *journal) put(p place, lines []byte, h Head) error {
	b := j.buf[:0]
	if j.at == 0 {
		j.begin = p
		b = p.append(b)
	}
	b = append(b, lines...)
	b = append(h.append(b), '\n')
	if cap(b) <= keepBuffer {
		j.buf = b
	}
	_, err := j.f.WriteAt(b, j.at)
	if err == nil {
		err = j.f.Sync()
	}
	if err != nil {
		j.bad = true // a sync that succeeds later means nothing
		return err
	}
	j.at, j.last = j.at+int64(len(b)), len(b)
	j.lines = append(j.lines, lines...)
	return nil
}

// empty forgets the lines: they are on disk in the log's file. The next ones are written over them. That there are none need not be on disk: to put
// back what is there changes nothing.
func (j *journal) empty() {
	if j.at > 0 && !j.bad {
		if _, err := j.f.WriteAt(make([]byte, placeMax), 0); err != nil {
			j.bad = true
		}
	}
	j.lines, j.at = j.lines[:0], 0
}

// inPlace returns an error if the journal is not what is at its path, or not as long as it was.
func (j *journal) inPlace(d disk) error {
	info, err := d.stat(j.path)
	if err == nil && (!os.SameFile(info, j.info) || info.Size() != journalSize) {
		err = &fs.PathError{Op: "stat", Path: j.path, Err: errors.New("it was moved away or changed")}
	}
	return err
}

// undo takes the last n bytes of lines back, which were put last and were refused after all. It does not wait until they are gone from the disk.
func (j *journal) undo(n int) {
	j.lines = j.lines[:len(j.lines)-n]
	j.at -= int64(j.last)
	if _, err := j.f.WriteAt(make([]byte, j.last), j.at); err != nil {
		j.bad = true
	}
}

// remove removes the journal, which is not needed any more.
func (j *journal) remove() error { return errors.Join(j.f.Close(), os.Remove(j.path)) }

// append writes the first line of a journal.
func (p place) append(b []byte) []byte {
	b = append(b, journalLabel...)
	b = appendUUID(b, p.log)
	b = fmt.Appendf(b, " %d %d ", p.number, p.offset)
	b = append(p.head.append(b), ' ')
	sum := sha256.Sum256(b)
	b = hex.AppendEncode(b, sum[:])
	return append(b, '\n')
}

// parsePlace takes what append writes and nothing else.
func parsePlace(line []byte) (p place, ok bool) {
	text, ok := strings.CutPrefix(string(line), journalLabel)
	parts := strings.Split(text, " ")
	if !ok || len(parts) != 5 {
		return p, false
	}
	if p.log, ok = parseUUID([]byte(parts[0])); !ok {
		return p, false
	}
	var err, err2 error
	p.number, err = strconv.Atoi(parts[1])
	p.offset, err2 = strconv.ParseInt(parts[2], 10, 64)
	if errors.Join(err, err2) != nil || p.number < 1 || p.offset < 0 {
		return p, false
	}
	sequence, hash, _ := strings.Cut(parts[3], ":")
	if p.head.Sequence, err = strconv.ParseUint(sequence, 10, 64); err != nil || !parseHex(p.head.Hash[:], []byte(hash)) {
		return p, false
	}
	return p, bytes.Equal(p.append(nil), append(line, '\n'))
}

// readJournal returns the lines that are in a journal, and what they follow. There are none if there is no journal, or if it was never begun.
func readJournal(path string) (p place, lines []byte, err error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil, nil
	} else if err != nil {
		return p, nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > 2*journalSize {
		return p, nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("it is not a journal of the audit log")}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return p, nil, err
	}
	first, b, _ := bytes.Cut(b, []byte("\n"))
	p, ok := parsePlace(first)
	if !ok {
		return p, nil, nil
	}
	for h := p.head; ; {
		n, next := chained(b, p.log, h)
		rest, ok := bytes.CutPrefix(b[n:], append(next.append(nil), '\n'))
		if n == 0 || !ok {
			return p, lines, nil
		}
		lines = append(lines, b[:n]...)
		b, h = rest, next
	}
}

// chained returns how many bytes of b are whole lines of a chain that follow h, and the head that they make.
func chained(b []byte, log [16]byte, h Head) (n int, _ Head) {
	for {
		end := bytes.IndexByte(b[n:], '\n')
		if end < 0 {
			return n, h
		}
		line := b[n : n+end]
		t, ok := parseTrailer(line)
		if !ok || t.log != log || t.sequence != h.Sequence+1 || t.previous != h.Hash {
			return n, h
		}
		h = Head{t.sequence, sha256.Sum256(line)}
		n += end + 1
	}
}
