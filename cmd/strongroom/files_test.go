package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestWriteNew(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := writeNew(newFile{path: "a", content: []byte("A")}, newFile{path: "b", content: []byte("B")}); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, "a", "b")
	wantFile(t, "a", "A")

	// All or nothing: c is taken away again, and a is as it was.
	err := writeNew(newFile{path: "c", content: []byte("C")}, newFile{path: "a", content: []byte("new")})
	if err == nil || !strings.Contains(err.Error(), "write a: it exists already") {
		t.Errorf("got %v", err)
	}
	wantFiles(t, "a", "b")
	wantFile(t, "a", "A")

	err = writeNew(newFile{path: "c", content: []byte("C")}, newFile{path: "none/d"})
	if err == nil || err.Error() != "write none/d: no such file or directory" {
		t.Errorf("got %v", err)
	}
	wantFiles(t, "a", "b")
}

func TestCheckNew(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Symlink("nowhere", "link"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"new":    "",
		"file":   "write file: it exists already",
		"link":   "write link: it exists already", // also where it points at nothing
		"none/x": "write none/x: directory none: no such file or directory",
		"file/x": "write file/x: not a directory",
	} {
		err := checkNew(path)
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%s: got %v, want %s", path, err, want)
		}
	}
}

// wantFiles fails the test unless the current directory has just these, each readable by its owner alone.
func wantFiles(t *testing.T, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
		if info, err := e.Info(); err != nil || info.Mode() != fs.FileMode(0o600) {
			t.Errorf("%s has mode %v (%v)", e.Name(), info.Mode(), err)
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("there are files %q, want %q", got, want)
	}
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	if b, err := os.ReadFile(path); err != nil || string(b) != want {
		t.Errorf("%s holds %q (%v), want %q", filepath.Base(path), b, err, want)
	}
}
