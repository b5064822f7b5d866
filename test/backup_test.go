package test

import (
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
)

// sofar returns what is in the ledger now.
func (l *ledger) sofar() *ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &ledger{keys: maps.Clone(l.keys), sealed: slices.Clone(l.sealed), requests: maps.Clone(l.requests)}
}

// backup makes a backup of a rig.
func backup(t *testing.T, dir, out string) {
	t.Helper()
	if text, err := exec.Command(program, "backup", "--dir", dir, "--out", out).CombinedOutput(); err != nil {
		t.Fatalf("strongroom backup: %v\n%s", err, text)
	}
}

// restore restores one, with more flags.
func restore(t *testing.T, dir, from string, flags ...string) string {
	t.Helper()
	text, err := exec.Command(program, append([]string{"restore", "--dir", dir, "--from", from, "--replace"}, flags...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("strongroom restore: %v\n%s", err, text)
	}
	return string(text)
}

// TestBackupUnderLoad: each backup that was made while clients made and used keys has every key that was answered before it began, and with it opens every
// ciphertext of theirs; also those of keys that were answered after it, once they are adopted.
func TestBackupUnderLoad(t *testing.T) {
	dir, backups := t.TempDir(), t.TempDir()
	l := &ledger{keys: make(map[string]bool), requests: make(map[string]bool)}
	s := start(t, dir)
	clients := make(chan error)
	const n = 3
	for i := range n {
		go func() {
			clients <- l.keep(within(t), s.client(func(o *kms.Options) { o.RetryMaxAttempts = 1 }), uint64(i))
		}()
	}
	var before []*ledger
	var files []string
	for range 3 {
		time.Sleep(300 * time.Millisecond) // for something to be there
		before = append(before, l.sofar())
		files = append(files, filepath.Join(backups, "b"+string(rune('0'+len(files)))+".tar"))
		backup(t, dir, files[len(files)-1])
	}
	time.Sleep(300 * time.Millisecond) // and for something that no backup has
	s.kill(t)
	for range n {
		if err := <-clients; err != nil {
			t.Error(err)
		}
	}
	if len(before[0].keys) == 0 || len(l.keys) <= len(before[2].keys) {
		t.Fatalf("the clients did too little: %d keys before the first backup, %d before the last, %d in all", len(before[0].keys), len(before[2].keys), len(l.keys))
	}
	// The oldest last: its store replaces those of the others.
	for i := len(files) - 1; i >= 0; i-- {
		restore(t, dir, files[i], "--force")
		s := start(t, dir)
		before[i].check(t, s.client())
		s.stop(t)
	}
	restore(t, dir, files[0], "--adopt", "111122223333")
	s = start(t, dir)
	// Also those whose answers were lost.
	for p := kms.NewListKeysPaginator(s.client(), &kms.ListKeysInput{}); p.HasMorePages(); {
		page, err := p.NextPage(within(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range page.Keys {
			if _, err := s.client().EnableKey(within(t), &kms.EnableKeyInput{KeyId: k.KeyId}); err != nil {
				t.Errorf("key %s: %v", *k.KeyId, err)
			}
		}
	}
	keys := l.check(t, s.client())
	s.stop(t)
	l.checkAudit(t, dir)
	checkObjects(t, dir, keys)
	kept, err := filepath.Glob(filepath.Join(dir, "strongroom.db.replaced-*"))
	if err != nil || len(kept) != 4 {
		t.Errorf("of the stores that were replaced these are kept: %v, %v", kept, err)
	}
	t.Logf("%d keys, %d ciphertexts", len(l.keys), len(l.sealed))
}

// killed runs the program and kills it after a while. It reports whether it had ended before.
func killed(t *testing.T, after time.Duration, args ...string) (ended bool) {
	t.Helper()
	cmd := exec.Command(program, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(after) // the moment is the point
	cmd.Process.Kill()
	return cmd.Wait() == nil
}

// TestBackupKilled: a backup that is killed at any moment is not there, or is whole; a restore, and the rig is the old or the new one, whole, and can be
// restored again.
func TestBackupKilled(t *testing.T) {
	dir, backups := t.TempDir(), t.TempDir()
	s := start(t, dir)
	_, alias := newAlias(t, s.client())
	blob, _, err := producers["Encrypt"](within(t), s.client(), alias, nil)
	if err != nil {
		t.Fatal(err)
	}
	first := filepath.Join(backups, "first.tar")
	began := time.Now()
	backup(t, dir, first)
	whole := time.Since(began)
	made := 0
	for i := range 20 {
		out := filepath.Join(backups, "b.tar")
		killed(t, rand.N(whole*3/2), "backup", "--dir", dir, "--out", out)
		if _, err := os.Stat(out); err != nil {
			continue
		}
		made++
		if text, err := exec.Command(program, "restore", "--check", "--dir", dir, "--from", out).CombinedOutput(); err != nil {
			t.Errorf("round %d: %v\n%s", i, err, text)
		}
		os.Remove(out)
	}
	s.stop(t)

	began = time.Now()
	restore(t, dir, first)
	whole = time.Since(began)
	done := 0
	for i := range 20 {
		if killed(t, rand.N(whole*3/2), "restore", "--dir", dir, "--from", first, "--replace") {
			done++
		}
		if i%4 > 0 { // several in a row
			continue
		}
		s := start(t, dir)
		if _, err := decrypt(within(t), s.client(), blob, nil); err != nil {
			t.Errorf("round %d: %v", i, err)
		}
		s.stop(t)
	}
	s = start(t, dir)
	if _, err := decrypt(within(t), s.client(), blob, nil); err != nil {
		t.Error(err)
	}
	s.stop(t)
	verifyAudit(t, dir)
	restore(t, dir, first)
	left, err := filepath.Glob(filepath.Join(dir, "strongroom.db*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range left {
		if strings.Contains(name, ".restore") || strings.Contains(name, ".installing") {
			t.Errorf("%s is left", name)
		}
	}
	t.Logf("of 20 each, %d backups and %d restores were done before they were killed", made, done)
}
