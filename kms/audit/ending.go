package audit

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"

	"github.com/go-json-experiment/json/jsontext"
)

// An ending is what the end of a file says.
type ending struct {
	lines  int // 0, 1, or 2 for more
	log    [16]byte
	head   Head  // of the last line
	before Head  // of the line before
	sealed bool  // the last line is a checkpoint that names the line before: nothing is unsigned
	offset int64 // after the last line
	torn   int64 // bytes after it
}

// readEnd reads the last lines of a file. It reads back only as far as it must. Where there is a zero, which no line has, the kernel had not yet
// written what comes there when the machine stopped: from that line on it is one torn end, even if later lines are whole.
func readEnd(path string) (e ending, err error) {
	f, err := os.Open(path)
	if err != nil {
		return e, fmt.Errorf("audit: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return e, fmt.Errorf("audit: %w", err)
	}
	if !info.Mode().IsRegular() {
		return e, refuse(path, "it is not a regular file")
	}
	size := info.Size()
	// The torn line, the last, the one before, and the newline before that are enough.
	enough := int64(3*(maxLine+1) + 1)
	var tail []byte
	for n := int64(64 << 10); ; n *= 4 {
		n = min(n, size, enough)
		tail = make([]byte, n)
		if _, err := f.ReadAt(tail, size-n); err != nil && err != io.EOF {
			return e, fmt.Errorf("audit: %w", err)
		}
		if n == size || n == enough || bytes.Count(beforeZero(tail), []byte("\n")) >= 3 {
			break
		}
	}
	whole := int64(len(tail)) == size
	end := bytes.LastIndexByte(beforeZero(tail), '\n') + 1
	e.torn = int64(len(tail) - end)
	e.offset = size - e.torn
	tail = tail[:end]
	if len(tail) == 0 {
		if !whole {
			return e, refuse(path, "it has no line in its last 3 MiB")
		}
		return e, nil
	}

	line, rest, first := lastLine(tail)
	if first && !whole {
		return e, refuse(path, "its last line is too long")
	}
	t, ok := parseTrailer(line)
	if !ok || !jsontext.Value(line).IsValid() {
		return e, refuse(path, "its last line is not a record")
	}
	e.lines, e.log = 1, t.log
	e.head = Head{t.sequence, sha256.Sum256(line)}
	e.before = Head{t.sequence - 1, t.previous}
	if c, ok := parseCheckpoint(line, t); ok {
		e.sealed = c.head == e.before
	}
	if first {
		return e, nil
	}
	e.lines = 2
	line, _, first = lastLine(rest)
	if first && !whole {
		return e, refuse(path, "its last line but one is too long")
	}
	if t, ok := parseTrailer(line); !ok || t.log != e.log || (Head{t.sequence, sha256.Sum256(line)}) != e.before {
		return e, refuse(path, "its last line does not continue the one before")
	}
	return e, nil
}

// beforeZero returns what is before the first zero in b.
func beforeZero(b []byte) []byte {
	if zero := bytes.IndexByte(b, 0); zero >= 0 {
		return b[:zero]
	}
	return b
}

// lastLine splits the last line off some that all end in a newline. The first of them may not be whole.
func lastLine(lines []byte) (line, rest []byte, first bool) {
	lines = lines[:len(lines)-1]
	n := bytes.LastIndexByte(lines, '\n') + 1
	return lines[n:], lines[:n], n == 0
}
