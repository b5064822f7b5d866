package audit

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// written makes a log of three records and returns its directory and its only file.
func written(t *testing.T, s *testSigner) (dir, path string) {
	dir = t.TempDir()
	l := open(t, Options{Dir: dir, Signer: s})
	appendN(t, l, 3)
	l.Close()
	return dir, filepath.Join(dir, "audit-00000001.jsonl")
}

func addTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// A crash leaves any part of what was last written. All of the lines that are whole stay, the rest is cut off, and a record says so.
func TestTornLine(t *testing.T) {
	s := newSigner(t)
	dir, path := written(t, s)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	line := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	for n := line - 200; n <= len(whole); n += 13 {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		l := open(t, Options{Dir: dir, Signer: s})
		appendN(t, l, 1)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		verify(t, dir, s)
		want := 1
		if n == line || n == len(whole) {
			want = 0
		}
		if got := count(t, dir, "AuditLogRecovered"); got != want {
			t.Errorf("cut at %d of %d: %d records of it", n, len(whole), got)
		}
	}
	for _, torn := range []string{"x", "\x00", strings.Repeat("\x00", 100_000), strings.Repeat("x", maxLine)} {
		addTo(t, path, torn)
		l := open(t, Options{Dir: dir, Signer: s})
		l.Close()
		verify(t, dir, s)
	}
}

// The newest file can have no line yet, if the crash came between the two.
func TestEmptyFiles(t *testing.T) {
	s := newSigner(t)
	for name, c := range map[string]struct{ second, third string }{
		"empty":      {"", ""},
		"torn":       {"", `{"eventVers`},
		"only one":   {"-", ""},
		"only torn":  {"-", "x"},
		"torn alone": {"-", "x"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, path := written(t, s)
			before := verify(t, dir, s)
			if c.second != "-" {
				addTo(t, filepath.Join(dir, "audit-00000002.jsonl"), c.second)
			}
			addTo(t, filepath.Join(dir, "audit-00000007.jsonl"), c.third)
			if name == "torn alone" {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
			l := open(t, Options{Dir: dir, Signer: s})
			appendN(t, l, 2)
			l.Close()
			r := verify(t, dir, s)
			if (r.Log == before.Log) == (name == "torn alone") || r.First.Sequence != 1 {
				t.Errorf("%+v", r)
			}
			if n := count(t, dir, "AuditLogRecovered"); (n == 1) != (c.third != "") {
				t.Errorf("%d records of a line that was cut off", n)
			}
			if n := count(t, dir, "AuditLogCreated"); n != 1 {
				t.Errorf("%d chains were begun", n)
			}
		})
	}
}

// What a crash does not do is not repaired.
func TestOpenRefuses(t *testing.T) {
	s := newSigner(t)
	for name, spoil := range map[string]func(lines []string) []string{
		"not JSON":        func(l []string) []string { return append(l, "x\n") },
		"a blank line":    func(l []string) []string { return append(l, "\n") },
		"line twice":      func(l []string) []string { return append(l, l[len(l)-1]) },
		"line changed":    func(l []string) []string { l[len(l)-2] = strings.Replace(l[len(l)-2], "Alice", "alice", 1); return l },
		"line dropped":    func(l []string) []string { return append(l[:len(l)-2], l[len(l)-1]) },
		"no JSON in line": func(l []string) []string { l[len(l)-1] = "," + l[len(l)-1]; return l },
		"no newline":      func(l []string) []string { return []string{strings.Repeat("x", 4<<20)} },
		"long line":       func(l []string) []string { return []string{strings.Repeat("x", 4<<20) + "\n"} },
		"long line but 1": func(l []string) []string { return []string{strings.Repeat("x", 4<<20) + "\n", l[len(l)-1]} },
	} {
		dir, path := written(t, s)
		b, _ := os.ReadFile(path)
		lines := strings.SplitAfter(string(b), "\n")
		text := strings.Join(spoil(lines[:len(lines)-1]), "")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(Options{Dir: dir, Signer: s, Log: quiet})
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "strongroom audit verify") {
			t.Errorf("%s: %v", name, err)
		}
		if after, _ := os.ReadFile(path); string(after) != text {
			t.Errorf("%s: the file was changed", name)
		}
	}

	dir, path := written(t, s)
	other, otherPath := written(t, s)
	if err := os.Rename(otherPath, filepath.Join(dir, "audit-00000002.jsonl")); err != nil {
		t.Fatal(err, other)
	}
	b, _ := os.ReadFile(path)
	first, _, _ := strings.Cut(string(b), "\n")
	if err := os.WriteFile(filepath.Join(dir, "audit-00000002.jsonl"), []byte(first+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: dir, Signer: s, Log: quiet}); err == nil {
		t.Error("a first line that does not continue the file before")
	}

	for _, o := range []Options{{}, {Dir: dir}, {Dir: dir, Signer: s}, {Dir: filepath.Join(dir, "no", "parent"), Signer: s, Log: quiet}} {
		if _, err := Open(o); err == nil {
			t.Errorf("%+v", o)
		}
	}
}

// Files that were moved to where they are kept are not missed.
func TestOpenAlone(t *testing.T) {
	s := newSigner(t)
	dir, path := written(t, s)
	l := open(t, Options{Dir: dir, Signer: s})
	if err := l.Rotate(); err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 1)
	l.Close()
	if err := os.Rename(path, filepath.Join(t.TempDir(), "kept")); err != nil {
		t.Fatal(err)
	}
	l = open(t, Options{Dir: dir, Signer: s})
	appendN(t, l, 1)
	l.Close()
	if r := verify(t, dir, s); r.First.Sequence != 6 || r.Lines != 4 {
		t.Errorf("%+v", r)
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"audit-00000010.jsonl", "audit-00000009.jsonl", "audit-9.jsonl", "audit-00000000.jsonl", "audit-+0000001.jsonl",
		"audit-00000001.jsonl.gz", "lock", "audit-000000001.jsonl"} {
		addTo(t, filepath.Join(dir, name), "")
	}
	files, err := Files(dir)
	if want := fmt.Sprint([]string{filepath.Join(dir, "audit-00000009.jsonl"), filepath.Join(dir, "audit-00000010.jsonl")}); err != nil || fmt.Sprint(files) != want {
		t.Errorf("%v, %v", files, err)
	}
	if _, err := Files(filepath.Join(dir, "absent")); err == nil {
		t.Error("no error")
	}
}
