package audit

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A sample is a closed log of three files, with checkpoints among its lines and one at its end.
type sample struct {
	signer *testSigner
	files  []string // names
	lines  [][]string
}

func newSample(tb testing.TB) *sample {
	tb.Helper()
	dir := tb.TempDir()
	s := &sample{signer: newSigner(tb)}
	l, err := Open(Options{Dir: dir, Signer: s.signer, Log: quiet, CheckpointRecords: 3})
	if err != nil {
		tb.Fatal(err)
	}
	for i := range 3 {
		for range 3 {
			if err := l.Append(tb.Context(), small()); err != nil {
				tb.Fatal(err)
			}
		}
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			files, _ := Files(dir)
			r, err := Verify(&s.signer.key.PublicKey, files, VerifyOptions{})
			if err != nil || r.Finding != nil || time.Now().After(end) {
				tb.Fatal(r, err)
			}
			if r.Checkpoints == uint64(i+1) {
				break
			}
		}
		if i < 2 {
			if err := l.Rotate(); err != nil {
				tb.Fatal(err)
			}
		}
	}
	if err := l.Close(); err != nil {
		tb.Fatal(err)
	}
	files, _ := Files(dir)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			tb.Fatal(err)
		}
		s.files = append(s.files, filepath.Base(f))
		s.lines = append(s.lines, strings.SplitAfter(strings.TrimSuffix(string(b), "\n"), "\n"))
		last := s.lines[len(s.lines)-1]
		last[len(last)-1] += "\n"
	}
	return s
}

// small is a record that is short.
func small() *Record {
	return &Record{Time: time.Unix(1e9, 0), Source: "kms", Name: "Encrypt", EventID: "1", EventType: APICall, RequestParameters: []byte(`{"a":[1.5,true]}`)}
}

// copy returns the lines to change them.
func (s *sample) copy() [][]string {
	var c [][]string
	for _, f := range s.lines {
		c = append(c, slices.Clone(f))
	}
	return c
}

// verify writes lines to files and verifies them. A file that is nil is not written.
func (s *sample) verify(tb testing.TB, dir string, lines [][]string, o VerifyOptions) *Report {
	tb.Helper()
	var files []string
	for i, f := range lines {
		if f == nil {
			continue
		}
		path := filepath.Join(dir, s.files[i])
		if err := os.WriteFile(path, []byte(strings.Join(f, "")), 0o600); err != nil {
			tb.Fatal(err)
		}
		files = append(files, path)
	}
	r, err := Verify(&s.signer.key.PublicKey, files, o)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// at reports whether a finding is at a line, given by file and index.
func (s *sample) at(f *Finding, file, line int) bool {
	return f != nil && filepath.Base(f.File) == s.files[file] && f.Line == line+1
}

// each calls f for every line: its file and index, and those of the line after it, if there is one.
func (s *sample) each(f func(file, line, nextFile, nextLine int, last bool)) {
	for i, lines := range s.lines {
		for j := range lines {
			switch {
			case j+1 < len(lines):
				f(i, j, i, j+1, false)
			case i+1 < len(s.lines):
				f(i, j, i+1, 0, false)
			default:
				f(i, j, 0, 0, true)
			}
		}
	}
}

func TestVerifySample(t *testing.T) {
	s := newSample(t)
	r := s.verify(t, t.TempDir(), s.lines, VerifyOptions{})
	if r.Finding != nil || !r.Closed || r.Unsealed != 0 || r.Checkpoints != 4 || r.Records != 10 || r.Lines != 14 || r.Files != 3 ||
		r.First.Sequence != 1 || r.Last.Sequence != 14 || r.Sealed.Sequence != 13 || r.Head.Sequence != 14 {
		t.Errorf("%+v", r)
	}
	for i, lines := range s.lines {
		only := make([][]string, 3)
		only[i] = lines
		if r := s.verify(t, t.TempDir(), only, VerifyOptions{}); r.Finding != nil || r.Closed != (i == 2) {
			t.Errorf("file %d alone: %+v", i, r)
		}
	}
}

// Any byte that is changed is found, in the closed log to the last one, and at the line where it is.
func TestFlipEveryByte(t *testing.T) {
	s, dir := newSample(t), t.TempDir()
	s.verify(t, dir, s.lines, VerifyOptions{})
	var files []string
	for _, name := range s.files {
		files = append(files, filepath.Join(dir, name))
	}
	s.each(func(file, line, nextFile, nextLine int, last bool) {
		text := s.lines[file][line]
		before := strings.Join(s.lines[file][:line], "")
		after := strings.Join(s.lines[file][line+1:], "")
		defer os.WriteFile(files[file], []byte(before+text+after), 0o600)
		for i := range text {
			for _, x := range []byte{0x01, 0x20} {
				b := []byte(text)
				b[i] ^= x
				if letter := b[i]|0x20 >= 'a' && b[i]|0x20 <= 'z'; letter != (x == 0x20) { // only the case of a letter
					continue
				}
				if err := os.WriteFile(files[file], []byte(before+string(b)+after), 0o600); err != nil {
					t.Fatal(err)
				}
				r, err := Verify(&s.signer.key.PublicKey, files, VerifyOptions{})
				if err != nil {
					t.Fatal(err)
				}
				switch f := r.Finding; {
				case f == nil:
					t.Errorf("%d:%d byte %d: %q for %q is not found", file, line, i, b[i], text[i])
				case s.at(f, file, line):
				case line == 0 && f != nil && i > strings.LastIndex(text, `"log"`):
					// The first line of a file says where the file belongs, and the first of all of what chain it is.
				default:
					t.Errorf("%d:%d byte %d: %q for %q is found elsewhere: %v", file, line, i, b[i], text[i], f)
				}
			}
		}
	})
}

func TestTamper(t *testing.T) {
	s, dir := newSample(t), t.TempDir()
	other := newSample(t)
	is := func(what string, r *Report, kinds []Kind, file, line int) {
		t.Helper()
		if r.Finding == nil || !slices.Contains(kinds, r.Finding.Kind) || !s.at(r.Finding, file, line) {
			t.Errorf("%s: got %v, want %v at %d:%d", what, r.Finding, kinds, file, line+1)
		}
	}
	s.each(func(file, line, nextFile, nextLine int, last bool) {
		at := fmt.Sprintf("%d:%d ", file, line)
		first := file == 0 && line == 0
		head := VerifyOptions{Head: &Head{14, sha256.Sum256([]byte(strings.TrimSuffix(s.lines[2][len(s.lines[2])-1], "\n")))}}
		text := s.lines[file][line]

		lines := s.copy() // drop
		lines[file] = slices.Delete(lines[file], line, line+1)
		switch r := s.verify(t, dir, lines, head); {
		case last && (r.Finding == nil || r.Finding.Kind != Cut):
			t.Errorf("%s drop: %v", at, r.Finding)
		case last:
		case first:
			if r.Finding != nil || r.First.Sequence != 2 { // these are files from line 2 on
				t.Errorf("%s drop: %+v", at, r)
			}
		case nextFile == file:
			is(at+"drop", r, []Kind{Missing}, file, line)
		default:
			is(at+"drop", r, []Kind{Missing}, nextFile, 0)
		}

		lines = s.copy() // duplicate
		lines[file] = slices.Insert(lines[file], line+1, text)
		is(at+"duplicate", s.verify(t, dir, lines, VerifyOptions{}), []Kind{OutOfOrder}, file, line+1)

		if line+1 < len(s.lines[file]) { // swap
			lines = s.copy()
			lines[file][line], lines[file][line+1] = lines[file][line+1], lines[file][line]
			r := s.verify(t, dir, lines, VerifyOptions{})
			if first {
				is(at+"swap", r, []Kind{OutOfOrder}, 0, 1)
			} else if line > 0 {
				is(at+"swap", r, []Kind{Missing}, file, line)
			} else if r.Finding == nil {
				t.Errorf("%s swap", at)
			}
		}

		for name, garbage := range map[string]string{"blank": "\n", "text": "x\n", "object": "{}\n", "CRLF": "\r\n"} { // insert
			lines = s.copy()
			lines[file] = slices.Insert(lines[file], line, garbage)
			is(at+"insert "+name, s.verify(t, dir, lines, VerifyOptions{}), []Kind{Malformed}, file, line)
		}
		lines = s.copy()
		lines[file] = slices.Insert(lines[file], line, other.lines[1][1])
		if r := s.verify(t, dir, lines, VerifyOptions{}); !first && line > 0 {
			is(at+"insert foreign", r, []Kind{OtherLog}, file, line)
		} else if r.Finding == nil {
			t.Errorf("%s insert foreign", at)
		}
		lines = s.copy() // a forged record that fits the chain in front of it
		previous, _ := parseTrailer([]byte(strings.TrimSuffix(text, "\n")))
		body, _ := small().append(nil)
		forged, _ := appendLine(nil, append(body, `,"x":1`...), previous.log, Head{previous.sequence - 1, previous.previous})
		lines[file] = slices.Insert(lines[file], line, string(forged))
		if r := s.verify(t, dir, lines, VerifyOptions{}); first {
			is(at+"insert forged", r, []Kind{Malformed}, 0, 0)
		} else {
			is(at+"insert forged", r, []Kind{OutOfOrder}, file, line+1)
		}
		lines[file] = slices.Delete(lines[file], line+1, line+2) // and in its place
		if r := s.verify(t, dir, lines, head); last && (r.Finding == nil || r.Finding.Kind != Changed) {
			t.Errorf("%s exchange: %v", at, r.Finding)
		} else if !first && !last {
			is(at+"exchange", r, []Kind{Changed}, file, line)
		}

		for _, n := range []int{1, 2, len(text) / 2, len(text) - 1} { // truncate the line
			lines = s.copy()
			lines[file][line] = text[:n]
			r := s.verify(t, dir, lines, VerifyOptions{})
			if last {
				is(at+"truncate", r, []Kind{Torn}, file, line)
				if r.Lines != 13 || r.Closed {
					t.Errorf("%s truncate: %+v", at, r)
				}
				if r := s.verify(t, dir, lines, head); r.Finding == nil || r.Finding.Kind != Cut {
					t.Errorf("%s truncate: %v", at, r.Finding)
				}
			} else {
				is(at+"truncate", r, []Kind{Malformed}, file, line)
			}
			lines[file][line] = text[:n] + "\n"
			if n < len(text)-1 {
				is(at+"cut short", s.verify(t, dir, lines, VerifyOptions{}), []Kind{Malformed}, file, line)
			}
		}
		lines = s.copy()
		lines[file][line] = strings.TrimSuffix(text, "\n") + "\r\n"
		is(at+"CRLF", s.verify(t, dir, lines, VerifyOptions{}), []Kind{Malformed}, file, line)
		lines[file][line] = `{"eventVersion":"1",` + text[1:]
		is(at+"two of one name", s.verify(t, dir, lines, VerifyOptions{}), []Kind{Malformed}, file, line)

		lines = s.copy() // cut the tail after this line
		lines[file] = lines[file][:line+1]
		for i := file + 1; i < len(lines); i++ {
			lines[i] = nil
		}
		r := s.verify(t, dir, lines, VerifyOptions{})
		if r.Finding != nil || r.Closed != last {
			t.Errorf("%s cut: %+v", at, r)
		}
		if r := s.verify(t, dir, lines, head); !last && (r.Finding == nil || r.Finding.Kind != Cut) {
			t.Errorf("%s cut: %v", at, r.Finding)
		}

		noted := &Head{previous.sequence, sha256.Sum256([]byte(strings.TrimSuffix(text, "\n")))} // a head that was noted here
		if r := s.verify(t, dir, s.lines, VerifyOptions{Head: noted}); r.Finding != nil {
			t.Errorf("%s noted head: %v", at, r.Finding)
		}
		noted.Hash[3]++
		is(at+"other head", s.verify(t, dir, s.lines, VerifyOptions{Head: noted}), []Kind{Changed}, file, line)
	})

	for i := range s.files { // drop a file
		lines := s.copy()
		lines[i] = nil
		if r := s.verify(t, dir, lines, VerifyOptions{}); i == 1 {
			is("drop file 1", r, []Kind{Missing}, 2, 0)
		} else if r.Finding != nil || r.Closed != (i == 0) {
			t.Errorf("drop file %d: %+v", i, r)
		}
	}
	empty := s.copy() // as a crash right after a rotation leaves it
	empty[2] = []string{}
	if r := s.verify(t, dir, empty, VerifyOptions{}); r.Finding != nil {
		t.Errorf("an empty file: %v", r.Finding)
	}

	if _, err := Verify(&s.signer.key.PublicKey, []string{filepath.Join(dir, "absent")}, VerifyOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an absent file: %v", err)
	}
	s.signer = other.signer
	is("another key", s.verify(t, dir, s.lines, VerifyOptions{}), []Kind{OtherKey}, 0, 0)
	// A signature comes when it is made, and so not always after the same line.
	signed := slices.IndexFunc(s.lines[1], func(line string) bool { return strings.Contains(line, "StrongroomCheckpoint") })
	is("another key, not from the beginning", s.verify(t, dir, [][]string{nil, s.lines[1]}, VerifyOptions{}), []Kind{BadSignature}, 1, signed)
}

// chain builds a log line by line, as whoever has the files could, and whoever has the key.
type chain struct {
	signer *testSigner
	head   Head
	heads  []Head
	lines  []string
}

func newChain(t *testing.T) *chain {
	c := &chain{signer: newSigner(t)}
	fingerprint := sha256.Sum256(c.signer.PublicKey())
	r := small()
	r.EventType, r.Name, r.ServiceEventDetails = ServiceEvent, "AuditLogCreated", fmt.Appendf(nil, `{"publicKeySha256":"%x"}`, fingerprint)
	c.record(t, r)
	return c
}

func (c *chain) record(t *testing.T, r *Record) {
	body, err := r.append(nil)
	if err != nil {
		t.Fatal(err)
	}
	c.add(body)
}

func (c *chain) add(body []byte) {
	line, h := appendLine(nil, body, testLog, c.head)
	c.head, c.heads, c.lines = h, append(c.heads, h), append(c.lines, string(line))
}

func (c *chain) seal(t *testing.T, cp checkpoint) {
	digest := cp.digest(testLog)
	cp.signature, _ = c.signer.Sign(context.Background(), digest)
	body, err := cp.append(nil)
	if err != nil {
		t.Fatal(err)
	}
	c.add(body)
}

func (c *chain) verify(t *testing.T) *Report {
	s := &sample{signer: c.signer, files: []string{"log"}}
	return s.verify(t, t.TempDir(), [][]string{c.lines}, VerifyOptions{})
}

func TestVerifyCheckpoints(t *testing.T) {
	now := time.Unix(1e9, 0)
	t.Run("signed another line", func(t *testing.T) {
		c := newChain(t)
		c.seal(t, checkpoint{head: Head{1, [32]byte{1}}, time: now})
		if f := c.verify(t).Finding; f == nil || f.Kind != BadCheckpoint || f.Line != 2 {
			t.Error(f)
		}
	})
	t.Run("rewritten chain", func(t *testing.T) { // with the checkpoint of the old one
		c := newChain(t)
		c.record(t, small())
		old := checkpoint{head: c.head, time: now}
		digest := old.digest(testLog)
		old.signature, _ = c.signer.Sign(t.Context(), digest)
		d := &chain{signer: c.signer}
		d.add([]byte(strings.Split(c.lines[0], `,"strongroom"`)[0]))
		r := small()
		r.Name = "Decrypt"
		d.record(t, r)
		body, _ := old.append(nil)
		d.add(body)
		if f := d.verify(t).Finding; f == nil || f.Kind != BadCheckpoint || f.Line != 3 {
			t.Error(f)
		}
	})
	t.Run("exchanged signature", func(t *testing.T) {
		c := newChain(t)
		c.seal(t, checkpoint{head: c.head, time: now})
		c.record(t, small())
		body := strings.Split(c.lines[1], `,"strongroom"`)[0]
		cp := checkpoint{head: c.head, time: now}
		digest := sha256.Sum256([]byte("something else"))
		cp.signature, _ = ecdsa.SignASN1(rand.Reader, c.signer.key, digest[:])
		c.add([]byte(body)) // a checkpoint twice is no harm
		if f := c.verify(t).Finding; f != nil {
			t.Error(f)
		}
		b, _ := cp.append(nil)
		c.add(b)
		if f := c.verify(t).Finding; f == nil || f.Kind != BadSignature || f.Line != 5 {
			t.Error(f)
		}
	})
	t.Run("of the future", func(t *testing.T) {
		c := newChain(t)
		c.seal(t, checkpoint{head: Head{2, [32]byte{}}, time: now})
		if f := c.verify(t).Finding; f == nil || f.Kind != BadCheckpoint || f.Line != 2 {
			t.Error(f)
		}
	})
	t.Run("not as it is written", func(t *testing.T) {
		c := newChain(t)
		cp := checkpoint{head: c.head, time: now}
		digest := cp.digest(testLog)
		cp.signature, _ = c.signer.Sign(t.Context(), digest)
		body, _ := cp.append(nil)
		for _, b := range []string{
			strings.Replace(string(body), `"records":0`, `"records": 0`, 1),
			strings.Replace(string(body), `"records":0`, `"records":0,"closed":false`, 1),
			strings.Replace(string(body), checkpointEvent, "AwsApiCall", 1),
			strings.Replace(string(body), "StrongroomCheck", `Strongroom\u0043heck`, 1),
			strings.Replace(string(body), "AWS Internal", `Alice`, 1),
			string(body) + `,"checkpoin":1`,
		} {
			d := *c
			d.add([]byte(b))
			if f := d.verify(t).Finding; f == nil || f.Kind != BadCheckpoint || f.Line != 2 {
				t.Errorf("%s: %v", b, f)
			}
		}
	})
	t.Run("unsealed", func(t *testing.T) {
		c := newChain(t)
		h := c.head
		c.record(t, small())
		c.record(t, small())
		c.seal(t, checkpoint{head: h, time: now, closed: true}) // which it is not: lines follow the one it names
		c.record(t, small())
		if r := c.verify(t); r.Finding != nil || r.Unsealed != 3 || r.Sealed.Sequence != 1 || r.Closed {
			t.Errorf("%+v", r)
		}
		c.lines = c.lines[:4]
		if r := c.verify(t); r.Finding != nil || r.Unsealed != 2 || r.Closed {
			t.Errorf("%+v", r)
		}
	})
	t.Run("first line", func(t *testing.T) {
		c := &chain{signer: newSigner(t)}
		c.record(t, small())
		if f := c.verify(t).Finding; f == nil || f.Kind != Malformed {
			t.Error(f)
		}
		c = &chain{signer: newSigner(t), head: Head{0, [32]byte{1}}}
		c.record(t, small())
		if f := c.verify(t).Finding; f == nil || f.Kind != Changed {
			t.Error(f)
		}
	})
}

// The past is remembered as far back as a checkpoint can name, and no further.
func TestPast(t *testing.T) {
	var p past
	hash := func(n uint64) [32]byte { return [32]byte{byte(n), byte(n >> 8), byte(n >> 16)} }
	const first, last = 100, 100 + 2*sealDistance + 17
	for n := uint64(first); n <= last; n++ {
		p.add(Head{n, hash(n)}, n*2)
	}
	for _, n := range []uint64{last, last - 1, last - sealDistance + 5, last - sealDistance} {
		if h, ok := p.hash(n); !ok || h != hash(n) {
			t.Errorf("%d: %v %v", n, h[:3], ok)
		}
		if r, ok := p.records(n); !ok || r != n*2 {
			t.Errorf("%d: %v %v", n, r, ok)
		}
	}
	for _, n := range []uint64{0, first, last - sealDistance - 1, last + 1, 1<<64 - 1} {
		if _, ok := p.hash(n); ok {
			t.Errorf("%d is remembered", n)
		}
	}
}

// goldenLog returns a closed log of a released version, which verifies for ever, and its key.
func goldenLog(tb testing.TB) (files []string, key *ecdsa.PublicKey) {
	tb.Helper()
	dir := filepath.Join("testdata", "log")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		s := newSample(tb)
		s.verify(tb, dir, s.lines, VerifyOptions{})
		text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: s.signer.PublicKey()})
		if err := os.WriteFile(filepath.Join(dir, publicKeyFile), text, 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	files, err := Files(dir)
	if err != nil {
		tb.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, publicKeyFile))
	if err != nil {
		tb.Fatal(err)
	}
	if key, err = ParsePublicKey(text); err != nil {
		tb.Fatal(err)
	}
	return files, key
}

func TestGoldenLog(t *testing.T) {
	files, key := goldenLog(t)
	r, err := Verify(key, files, VerifyOptions{})
	if err != nil || r.Finding != nil || !r.Closed || r.Lines != 14 || r.Records != 10 {
		t.Errorf("%+v, %v", r, err)
	}
}

// FuzzVerify: no bytes make Verify panic, and none but the log itself verify as the log.
func FuzzVerify(f *testing.F) {
	files, key := goldenLog(f)
	var log []byte
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		log = append(log, b...)
	}
	lines := bytes.SplitAfter(log, []byte("\n"))
	head := &Head{14, sha256.Sum256(bytes.TrimSuffix(lines[13], []byte("\n")))}
	path := filepath.Join(f.TempDir(), "log")
	verify := func(t testing.TB, b []byte) *Report {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Verify(key, []string{path}, VerifyOptions{Head: head})
		if err != nil {
			t.Fatal(err)
		}
		for range Find([]string{path}, Filter{Key: "a"}) {
		}
		return r
	}
	if r := verify(f, log); r.Finding != nil {
		f.Fatal(r.Finding)
	}
	// The input is a change of the log: from where to where, and what to put there. Or it is all there is.
	f.Add(uint(0), uint(0), []byte("x"), false)
	f.Add(uint(100), uint(101), []byte("\n"), false)
	f.Add(uint(1e6), uint(1e6), []byte(`{"eventVersion":"1"}`+"\n"), false)
	f.Add(uint(0), uint(1e6), []byte("{}\n"), false)
	for _, line := range lines {
		f.Add(uint(1e6), uint(1e6), line, false)
		f.Add(uint(0), uint(0), line, true)
	}
	f.Fuzz(func(t *testing.T, from, to uint, put []byte, alone bool) {
		b := put
		if !alone {
			from = min(from, uint(len(log)))
			to = min(max(from, to), uint(len(log)))
			b = slices.Concat(log[:from], put, log[to:])
		}
		// What is left of the log without its first lines is right, too.
		if r := verify(t, b); r.Finding == nil && !bytes.HasSuffix(log, b) {
			t.Errorf("verifies: %q", b)
		}
	})
}

// A head that is required is looked for in whatever is there.
func TestHeadOfNothing(t *testing.T) {
	s := newSample(t)
	last := s.lines[2][len(s.lines[2])-1]
	head := VerifyOptions{Head: &Head{14, sha256.Sum256([]byte(strings.TrimSuffix(last, "\n")))}}
	for _, n := range []int{1, 100, len(s.lines[0][0]) - 1} {
		torn := [][]string{{s.lines[0][0][:n]}}
		if r := s.verify(t, t.TempDir(), torn, head); r.Finding == nil || r.Finding.Kind != Cut || !strings.Contains(r.Finding.Detail, "line 14 ") {
			t.Errorf("%d bytes: %v", n, r.Finding)
		}
		if r := s.verify(t, t.TempDir(), torn, VerifyOptions{}); r.Finding == nil || r.Finding.Kind != Torn {
			t.Errorf("%d bytes, no head: %v", n, r.Finding)
		}
	}
	for _, o := range []VerifyOptions{head, {}} {
		r := s.verify(t, t.TempDir(), [][]string{{}}, o)
		if r.Finding == nil || r.Finding.Kind != Cut || !strings.HasPrefix(r.Finding.Error(), "cut: there is not one ") {
			t.Errorf("%v", r.Finding)
		}
	}
}

func TestParseHead(t *testing.T) {
	zeros := strings.Repeat("0", 64)
	for in, ok := range map[string]bool{
		"1:" + zeros:                    true,
		"18446744073709551615:" + zeros: true,
		"0:" + zeros:                    false,
		"18446744073709551616:" + zeros: false,
		"-1:" + zeros:                   false,
		"1:" + zeros[1:]:                false,
		"1:" + zeros + "00":             false,
		"1:" + zeros[:63] + "g":         false,
		"1" + zeros:                     false,
		"":                              false,
	} {
		if h, err := ParseHead(in); (err == nil) != ok || ok && h.String() != in {
			t.Errorf("%q: %v, %v", in, h, err)
		}
	}
	h := Head{258, sha256.Sum256(nil)}
	if got, err := ParseHead(h.String()); err != nil || got != h {
		t.Errorf("%v, %v", got, err)
	}
}
