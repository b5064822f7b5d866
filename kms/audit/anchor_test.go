package audit

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A shelf is where a test keeps the anchor.
type shelf struct {
	mu sync.Mutex
	a  *Anchor
	n  int
}

func (s *shelf) put(a Anchor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.a, s.n = &a, s.n+1
}

func (s *shelf) get() *Anchor {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.a
}

func TestAnchor(t *testing.T) {
	dir, s, kept := t.TempDir(), newSigner(t), new(shelf)
	log := new(syncBuffer)
	l := open(t, Options{Dir: dir, Signer: s, Anchor: kept.put, Log: log.logger(), CheckpointRecords: 5})
	wait(t, func() bool { return kept.get() != nil })
	if a := kept.get(); a.Head.Sequence != 1 || a.File != 1 || a.Log != verify(t, dir, s).Log {
		t.Errorf("begun: %+v", a)
	}
	if !strings.Contains(log.String(), "level=INFO msg=\"audit log begun\"") {
		t.Errorf("%s", log)
	}
	appendN(t, l, 5)
	wait(t, func() bool { return kept.get().Head.Sequence >= 6 })
	if err := l.Rotate(); err != nil {
		t.Fatal(err)
	}
	wait(t, func() bool { return kept.get().File == 2 })
	appendN(t, l, 1)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r := verify(t, dir, s)
	if a := kept.get(); a.Head != r.Head || a.Log != r.Log || a.File != 2 {
		t.Errorf("closed: %+v, %+v", a, r)
	}

	// It is the log that is known, so it goes on. An anchor that is older than the log is as good.
	for _, known := range []*Anchor{kept.get(), {Log: r.Log, Head: Head{6, lineHash(t, dir, 6)}, File: 1}} {
		l = open(t, Options{Dir: dir, Signer: s, Anchor: kept.put, Known: known})
		appendN(t, l, 1)
		l.Close()
		if again := verify(t, dir, s); again.Log != r.Log {
			t.Errorf("%+v", again)
		}
	}
	if strings.Contains(log.String(), "ERROR") {
		t.Errorf("%s", log)
	}
}

// lineHash returns the hash of a line of the chain.
func lineHash(t *testing.T, dir string, sequence uint64) [32]byte {
	t.Helper()
	files, _ := Files(dir)
	r := newReader(files)
	defer r.close()
	for {
		line, err := r.next()
		if err != nil {
			t.Fatal(err)
		}
		if tr, _ := parseTrailer(line); tr.sequence == sequence {
			return sha256.Sum256(line)
		}
	}
}

// Appends do not wait for the anchor, Close does, but not for ever.
func TestAnchorHangs(t *testing.T) {
	dir, s, hang := t.TempDir(), newSigner(t), make(chan struct{})
	l := open(t, Options{Dir: dir, Signer: s, Anchor: func(Anchor) { <-hang }, CheckpointRecords: 2, closeWait: 50 * time.Millisecond})
	for range 5 {
		appendN(t, l, 2)
		if err := l.Rotate(); err != nil {
			t.Error(err)
		}
	}
	start := time.Now()
	if err := l.Close(); err == nil || !strings.Contains(err.Error(), "anchor") {
		t.Errorf("Close: %v", err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("Close took %v", took)
	}
	close(hang)
	if r := verify(t, dir, s); !r.Closed {
		t.Errorf("%+v", r)
	}
}

// replacedBy returns what AuditLogReplaced says in a file, whose second line it must be.
func replacedBy(t *testing.T, path string) replacedDetails {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	var v struct {
		EventName, EventType string
		ServiceEventDetails  replacedDetails
	}
	if len(lines) < 3 || !strings.Contains(lines[0], `"AuditLogCreated"`) {
		t.Fatalf("%s", b)
	}
	if err := json.Unmarshal([]byte(lines[1]), &v); err != nil || v.EventName != "AuditLogReplaced" || v.EventType != ServiceEvent {
		t.Fatalf("%s, %v", lines[1], err)
	}
	return v.ServiceEventDetails
}

// A log that is not the one that is known is left as it is, and a new one is begun after it.
func TestReplaced(t *testing.T) {
	s := newSigner(t)
	rewrite := func(path string, f func(lines []string) []string) error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		lines := strings.SplitAfter(string(b), "\n")
		return os.WriteFile(path, []byte(strings.Join(f(lines[:len(lines)-1]), "")), 0o600)
	}
	for name, c := range map[string]struct {
		spoil  func(dir, path string) error // path is of the second of two files
		reason string
		found  uint64 // foundSequence
		verify Kind
	}{
		"as it was": {func(_, path string) error { return nil }, "", 0, 0},
		"empty directory": {func(dir, path string) error {
			return errors.Join(os.Remove(filepath.Join(dir, fileName(1))), os.Remove(path))
		}, "not one line", 0, 0},
		"no directory": {func(dir, path string) error { return os.RemoveAll(dir) }, "not one line", 0, 0},
		"newest file":  {func(_, path string) error { return os.Remove(path) }, "its end is missing", 4, OtherLog},
		"last line":    {func(_, path string) error { return rewrite(path, func(l []string) []string { return l[:len(l)-1] }) }, "its end is missing", 7, OtherLog},
		"torn": {func(_, path string) error {
			return rewrite(path, func(l []string) []string { l[len(l)-1] = l[len(l)-1][:50]; return l })
		}, "its end is missing", 7, Malformed},
		"last line retyped": {func(_, path string) error {
			return rewrite(path, func(l []string) []string { // as whoever has no key can
				at, _ := parseTrailer([]byte(strings.TrimSuffix(l[len(l)-1], "\n")))
				body, _ := small().append(nil)
				line, _ := appendLine(nil, body, at.log, Head{at.sequence - 1, at.previous})
				l[len(l)-1] = string(line)
				return l
			})
		}, "its line 8 is not the one that was there", 8, OtherLog},
		"alien line": {func(_, path string) error { addTo(t, path, "{}\n"); return nil }, "its last line is not a record", 0, Malformed},
		"alien line, and a next file": {func(dir, path string) error {
			addTo(t, path, "{}\n")
			addTo(t, filepath.Join(dir, fileName(3)), "")
			return nil
		}, "its last line is not a record", 0, Malformed},
		"another log": {func(dir, path string) error {
			other, first := written(t, s)
			return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700), os.Rename(first, filepath.Join(dir, fileName(1))), os.RemoveAll(other))
		}, "it is another log", 5, OtherLog},
	} {
		t.Run(name, func(t *testing.T) {
			dir, kept := filepath.Join(t.TempDir(), "audit"), new(shelf)
			l := open(t, Options{Dir: dir, Signer: s, Anchor: kept.put})
			appendN(t, l, 3)
			if err := l.Rotate(); err != nil {
				t.Fatal(err)
			}
			appendN(t, l, 3)
			l.Close()
			known := kept.get()
			path := filepath.Join(dir, fileName(2))
			if err := c.spoil(dir, path); err != nil {
				t.Fatal(err)
			}
			before := map[string]string{}
			files, _ := Files(dir)
			for _, f := range files {
				b, _ := os.ReadFile(f)
				before[f] = string(b)
			}

			log := new(syncBuffer)
			l = open(t, Options{Dir: dir, Signer: s, Anchor: kept.put, Known: known, Log: log.logger()})
			appendN(t, l, 1)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if c.reason == "" {
				if r := verify(t, dir, s); r.Log != known.Log || strings.Contains(log.String(), "ERROR") {
					t.Errorf("%+v, %s", r, log)
				}
				return
			}
			files, _ = Files(dir)
			newest := files[len(files)-1]
			if fileNumber(newest) <= known.File || len(files) != len(before)+1 {
				t.Errorf("%v", files)
			}
			for f, text := range before {
				if b, err := os.ReadFile(f); err != nil || string(b) != text {
					t.Errorf("%s was changed: %v", f, err)
				}
			}
			d := replacedBy(t, newest)
			if d.ExpectedLog != known.Log || d.ExpectedSequence != known.Head.Sequence || d.ExpectedHash != fmt.Sprintf("%x", known.Head.Hash) ||
				!strings.Contains(d.Reason, c.reason) || d.FoundSequence != c.found || (d.FoundLog == "") != (c.found == 0) {
				t.Errorf("%+v", d)
			}
			if out := log.String(); strings.Count(out, "level=ERROR") != 1 || !strings.Contains(out, known.Head.String()) || !strings.Contains(out, "Nothing was deleted") {
				t.Errorf("%s", out)
			}
			r, err := Verify(&s.key.PublicKey, files, VerifyOptions{})
			if err != nil || (r.Finding == nil) != (c.verify == 0) {
				t.Fatalf("%+v, %v", r, err)
			}
			if f := r.Finding; f != nil && (f.Kind != c.verify || !strings.Contains(f.Detail, "new log, "+kept.get().Log+", was begun") ||
				f.Kind == OtherLog && (f.File != newest || f.Line != 1 || !strings.Contains(f.Detail, "AuditLogReplaced in the next line"))) {
				t.Errorf("%v", f)
			}
			if r, err := Verify(&s.key.PublicKey, []string{newest}, VerifyOptions{Head: &kept.get().Head}); err != nil || r.Finding != nil || !r.Closed {
				t.Errorf("%+v, %v", r, err)
			}

			// And that is the log that is known now.
			l = open(t, Options{Dir: dir, Signer: s, Known: kept.get(), Log: log.logger()})
			appendN(t, l, 1)
			l.Close()
			if again, _ := Files(dir); len(again) != len(files) || strings.Count(log.String(), "level=ERROR") != 1 {
				t.Errorf("%v, %s", again, log)
			}
		})
	}
}

// A new chain whose first lines cannot be written leaves no file behind, since it will be tried again and again.
func TestReplacedFails(t *testing.T) {
	s, d := newSigner(t), newFaultyDisk()
	dir, _ := written(t, s)
	d.set(failing(errors.New("full"), "write"))
	if _, err := Open(Options{Dir: dir, Signer: s, Log: quiet, disk: d, Known: &Anchor{Log: "x", File: 7}}); err == nil {
		t.Error("no error")
	}
	if files, _ := Files(dir); len(files) != 1 {
		t.Errorf("%v", files)
	}
	if _, err := Open(Options{Dir: dir, Signer: s, Log: quiet, Known: &Anchor{Log: "x", File: maxNumber}}); err == nil {
		t.Error("no error, with no number left")
	}
}

// A log that went on in the next file after something else's line in its own can be opened as soon as that file has a record.
func TestOpenAfterAlienLine(t *testing.T) {
	dir, s := t.TempDir(), newSigner(t)
	l := open(t, Options{Dir: dir, Signer: s})
	appendN(t, l, 2)
	addTo(t, filepath.Join(dir, fileName(1)), "{}\n")
	if err := l.Rotate(); err != nil {
		t.Fatal(err)
	}
	if n := l.now().head.Sequence; n != 4 { // AuditLogResumed is the only one in the second file
		t.Fatal(n)
	}
	l.stop()
	<-l.ended
	l.lock.Close() // as if it was killed
	l = open(t, Options{Dir: dir, Signer: s})
	appendN(t, l, 1)
	l.Close()
	r, err := Verify(&s.key.PublicKey, []string{filepath.Join(dir, fileName(2))}, VerifyOptions{})
	if err != nil || r.Finding != nil || r.First.Sequence != 4 || !r.Closed {
		t.Errorf("%+v, %v", r, err)
	}
}

// A chain is not continued with another key, also where public-key.pem does not say so.
func TestAnotherKeyUntold(t *testing.T) {
	for name, sealed := range map[string]bool{"by its checkpoint": true, "by its first line": false} {
		t.Run(name, func(t *testing.T) {
			dir, s, other := t.TempDir(), newSigner(t), newSigner(t)
			l := open(t, Options{Dir: dir, Signer: s})
			appendN(t, l, 2)
			if sealed {
				l.Close()
			} else {
				l.stop()
				<-l.ended
				l.lock.Close()
			}
			old := verify(t, dir, s)
			if err := os.Remove(filepath.Join(dir, publicKeyFile)); err != nil {
				t.Fatal(err)
			}
			l = open(t, Options{Dir: dir, Signer: other})
			appendN(t, l, 1)
			l.Close()
			second := filepath.Join(dir, fileName(2))
			if d := replacedBy(t, second); d.FoundLog != old.Log || d.FoundSequence != old.Head.Sequence || !strings.Contains(d.Reason, "key") || d.ExpectedLog != "" {
				t.Errorf("%+v", d)
			}
			for signer, path := range map[*testSigner]string{s: filepath.Join(dir, fileName(1)), other: second} {
				if r, err := Verify(&signer.key.PublicKey, []string{path}, VerifyOptions{}); err != nil || r.Finding != nil || r.First.Sequence != 1 {
					t.Errorf("%+v, %v", r, err)
				}
			}
			l = open(t, Options{Dir: dir, Signer: other}) // and goes on
			l.Close()
			if files, _ := Files(dir); len(files) != 2 {
				t.Errorf("%v", files)
			}
		})
	}
}
