package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom/kms"
	"strongroom/store"
)

// testBackup returns a backup of a file that is no store, with its manifest.
func testBackup(t *testing.T, size int) (backup, content []byte, m *manifest) {
	t.Helper()
	content = make([]byte, size)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range content {
		content[i] = byte(random.Uint32())
	}
	path := filepath.Join(t.TempDir(), "copy")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	m = describe(&store.Copy{Schema: 2, Deployment: kms.Deployment{ID: "d", Region: "local-1"}, Rows: map[string]int64{"kms_key": 3}}, time.Now())
	var b bytes.Buffer
	sum, err := writeBackup(&b, m, path)
	if err != nil {
		t.Fatal(err)
	}
	if sum != sha256.Sum256(b.Bytes()) {
		t.Error("the sum is not that of the file")
	}
	return b.Bytes(), content, m
}

func readAll(b []byte) (m *manifest, content []byte, err error) {
	m, _, err = readBackup(bytes.NewReader(b), func(_ *manifest, r io.Reader) (err error) {
		content, err = io.ReadAll(r)
		return err
	})
	return m, content, err
}

// What is read is what was written, or an error: whichever bit was flipped, and wherever it was cut.
func TestBackupFile(t *testing.T) {
	backup, content, m := testBackup(t, 3000)
	want, _ := json.Marshal(m)
	unchanged := func(m *manifest, got []byte) bool {
		text, err := json.Marshal(m)
		return err == nil && bytes.Equal(text, want) && bytes.Equal(got, content)
	}
	if m, got, err := readAll(backup); err != nil || !unchanged(m, got) {
		t.Fatalf("%v, %v", m, err)
	}
	unnoticed := 0
	for i := range backup {
		bad := bytes.Clone(backup)
		bad[i] ^= 1 << (i % 8)
		if m, got, err := readAll(bad); err == nil {
			unnoticed++ // between the files, where nothing is
			if !unchanged(m, got) {
				t.Fatalf("byte %d was changed, and something else was read", i)
			}
		}
	}
	if unnoticed > 3*512+1024+512 {
		t.Errorf("%d of %d changes went unnoticed", unnoticed, len(backup))
	}
	for n := range len(backup) {
		if m, got, err := readAll(backup[:n]); err == nil && !unchanged(m, got) {
			t.Fatalf("cut after %d bytes, and something else was read", n)
		} else if err == nil && n < len(backup)-1024-512 {
			t.Errorf("cut after %d bytes of %d, and nobody noticed", n, len(backup))
		} else if err != nil && (strings.Contains(err.Error(), "EOF") || strings.Contains(err.Error(), "archive/tar")) {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
	}
	for _, other := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte{0}, 10240), bytes.Repeat([]byte("SQLite format 3\x00"), 1000)} {
		if _, _, err := readAll(other); err == nil {
			t.Errorf("%.20q was read", other)
		}
	}
}

// A backup of a later format is refused by its name.
func TestBackupFormat(t *testing.T) {
	backup, _, _ := testBackup(t, 10)
	later := bytes.Replace(backup, []byte("strongroom backup v1"), []byte("strongroom backup v2"), 1)
	if _, _, err := readAll(later); err == nil || !strings.Contains(err.Error(), "backup v2") {
		t.Errorf("got %v", err)
	}
}
