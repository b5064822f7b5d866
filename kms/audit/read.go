package audit

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// inOrder returns the files in the order of their first lines: those of each chain together, and the chains by the names of their first files.
// If there is one whose first line does not say where in a chain it is, all are taken by name. Files without a line are passed over.
func inOrder(files []string) ([]string, error) {
	type first struct {
		path string
		at   trailer
	}
	var firsts []first
	known := true
	for _, path := range files {
		line, err := firstLine(path)
		if err != nil {
			return nil, err
		}
		if len(line) == 0 {
			continue
		}
		t, ok := parseTrailer(bytes.TrimSuffix(line, []byte("\n")))
		known = known && ok
		firsts = append(firsts, first{path, t})
	}
	slices.SortFunc(firsts, func(a, b first) int {
		return cmp.Or(cmp.Compare(filepath.Base(a.path), filepath.Base(b.path)), cmp.Compare(a.path, b.path))
	})
	if known {
		chains := map[[16]byte]int{}
		for _, f := range firsts {
			if _, ok := chains[f.at.log]; !ok {
				chains[f.at.log] = len(chains)
			}
		}
		slices.SortStableFunc(firsts, func(a, b first) int {
			return cmp.Or(cmp.Compare(chains[a.at.log], chains[b.at.log]), cmp.Compare(a.at.sequence, b.at.sequence))
		})
	}
	files = files[:0:0]
	for _, f := range firsts {
		files = append(files, f.path)
	}
	return files, nil
}

// firstLine returns the first line of a file with its newline, or as much of it as there is, to the length that a line can have.
func firstLine(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	defer f.Close()
	b := make([]byte, 0, 4096)
	for {
		n, err := f.Read(b[len(b):cap(b)])
		if end := bytes.IndexByte(b[len(b):len(b)+n], '\n'); end >= 0 {
			return b[:len(b)+end+1], nil
		}
		b = b[:len(b)+n]
		if err == io.EOF || len(b) > maxLine {
			return b, nil
		}
		if err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}
		b = slices.Grow(b, len(b))
	}
}

// A reader reads the lines of files, one after the other.
type reader struct {
	files  []string
	opened int
	f      *os.File
	b      *bufio.Reader

	file string // of the line that next returned, or where it failed
	line int

	text bytes.Reader
	json jsontext.Decoder
}

func newReader(files []string) *reader {
	// A line that fits the buffer can be used in its place.
	return &reader{files: files, b: bufio.NewReaderSize(nil, maxLine+1)}
}

func (r *reader) close() {
	if r.f != nil {
		r.f.Close()
		r.f = nil
	}
}

// next returns a line without its newline, valid until the next call, or io.EOF after the last one. Where the lines end otherwise, the error
// is a [Finding].
func (r *reader) next() ([]byte, error) {
	for {
		if r.f == nil {
			if r.opened == len(r.files) {
				return nil, io.EOF
			}
			f, err := os.Open(r.files[r.opened])
			if err != nil {
				return nil, fmt.Errorf("audit: %w", err)
			}
			r.opened++
			r.f, r.file, r.line = f, f.Name(), 0
			r.b.Reset(f)
		}
		r.line++
		line, err := r.b.ReadSlice('\n')
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case err == bufio.ErrBufferFull:
			return nil, &Finding{Malformed, r.file, r.line, fmt.Sprintf("it is longer than %d bytes", maxLine)}
		case err != io.EOF:
			return nil, fmt.Errorf("audit: %w", err)
		case len(line) > 0 && r.opened == len(r.files):
			return nil, &Finding{Torn, r.file, r.line, fmt.Sprintf("the last line is not finished; a crash leaves that, "+
				"and the next start of the server cuts off its %d bytes and records it", len(line))}
		case len(line) > 0:
			return nil, &Finding{Malformed, r.file, r.line, "it is not finished, and another file follows"}
		}
		r.close()
	}
}

// members are the members of a line that say what kind of line it is.
type members struct {
	time, name, eventType string
	checkpoint            bool
}

// members reads through a line, which must be one JSON object, valid UTF-8 in which no object has two members of one name: two readers of it
// must not see two things.
func (r *reader) members(line []byte) (m members, err error) {
	r.text.Reset(line)
	d := &r.json
	d.Reset(&r.text)
	if t, err := d.ReadToken(); err != nil {
		return m, err
	} else if t.Kind() != '{' {
		return m, errors.New("it is of another kind")
	}
	for d.PeekKind() == '"' {
		name, err := d.ReadValue()
		if err != nil {
			return m, err
		}
		if bytes.IndexByte(name, '\\') >= 0 {
			return m, errors.New("the name of a member is escaped")
		}
		var into *string
		switch string(name) {
		case `"eventTime"`:
			into = &m.time
		case `"eventName"`:
			into = &m.name
		case `"eventType"`:
			into = &m.eventType
		case `"checkpoint"`:
			m.checkpoint = true
		}
		if into == nil || d.PeekKind() != '"' {
			if err := d.SkipValue(); err != nil {
				return m, err
			}
			continue
		}
		t, err := d.ReadToken()
		if err != nil {
			return m, err
		}
		*into = t.String()
	}
	if _, err := d.ReadToken(); err != nil { // the closing brace
		return m, err
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return m, errors.New("something follows it")
	}
	return m, nil
}
