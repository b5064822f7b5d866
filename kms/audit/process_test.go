package audit

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// In a process of its own, the test binary appends until it is killed, and prints the id of every record when it is acknowledged.
func TestMain(m *testing.M) {
	if dir := os.Getenv("AUDIT_TEST_APPEND"); dir != "" {
		if err := appendForEver(dir, os.Getenv("AUDIT_TEST_KEY"), os.Getenv("AUDIT_TEST_RUN")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func appendForEver(dir, key, run string) error {
	der, err := hex.DecodeString(key)
	if err != nil {
		return err
	}
	private, err := x509.ParseECPrivateKey(der)
	if err != nil {
		return err
	}
	known, err := readAnchor(dir)
	if err != nil {
		return err
	}
	l, err := Open(Options{
		Dir: dir, Signer: &testSigner{key: private}, Log: quiet, Known: known,
		Anchor: func(a Anchor) {
			text, err := json.Marshal(a)
			if err == nil {
				err = os.WriteFile(anchorFile(dir)+".new", text, 0o600)
			}
			if err == nil {
				err = os.Rename(anchorFile(dir)+".new", anchorFile(dir))
			}
			if err != nil {
				panic(err)
			}
		},
		CheckpointRecords: 20, CheckpointEvery: 5 * time.Millisecond, MaxSize: 100_000,
	})
	if err != nil {
		return err
	}
	for i := range 8 {
		go func() {
			for j := 0; ; j++ {
				r := typical()
				r.RequestID = fmt.Sprintf("%s-%d-%d", run, i, j)
				if l.Append(context.Background(), r) == nil {
					os.Stdout.WriteString(r.RequestID + "\n") // one write(2) each
				}
			}
		}()
	}
	for range time.Tick(3 * time.Millisecond) {
		if err := l.Rotate(); err != nil {
			return err
		}
	}
	return nil
}

func anchorFile(dir string) string { return filepath.Join(dir, "anchor") }

// readAnchor returns the last anchor of a log, or nil.
func readAnchor(dir string) (*Anchor, error) {
	text, err := os.ReadFile(anchorFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	a := new(Anchor)
	return a, json.Unmarshal(text, a)
}

// A server that is killed, again and again, loses nothing that it acknowledged and never leaves a chain that does not verify,
// or that is not the one of its last anchor.
func TestKill(t *testing.T) {
	runs := 40
	if testing.Short() {
		runs = 5
	}
	dir, s := t.TempDir(), newSigner(t)
	der, err := x509.MarshalECPrivateKey(s.key)
	if err != nil {
		t.Fatal(err)
	}
	var acknowledged sync.Map
	torn, n := 0, 0
	for run := range runs {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "AUDIT_TEST_APPEND="+dir, "AUDIT_TEST_KEY="+hex.EncodeToString(der), fmt.Sprint("AUDIT_TEST_RUN=", run))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(50*time.Millisecond+rand.N(60*time.Millisecond), func() { cmd.Process.Kill() })
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			acknowledged.Store(lines.Text(), true)
			n++
		}
		err = cmd.Wait()
		timer.Stop()
		if err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatal(err)
		}

		files, err := Files(dir)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Verify(&s.key.PublicKey, files, VerifyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if r.Finding != nil && r.Finding.Kind == Torn {
			torn++
		} else if r.Finding != nil {
			t.Fatal(r.Finding)
		}
		if rand.N(3) == 0 { // as if the machine had stopped in the middle of a write
			addTo(t, files[len(files)-1], `{"eventVersion":`)
		}
	}
	known, err := readAnchor(dir)
	if err != nil || known == nil {
		t.Fatal(known, err)
	}
	open(t, Options{Dir: dir, Signer: s, Known: known}).Close()
	r := verify(t, dir, s)
	if r.Log != known.Log || count(t, dir, replacedEvent) != 0 {
		t.Errorf("%+v, but the anchor is %+v", r, known)
	}
	t.Logf("%d acknowledged, %d records and %d checkpoints in %d files, %d torn by the kill", n, r.Records, r.Checkpoints, r.Files, torn)
	if n == 0 || r.Checkpoints < 2 {
		t.Error("the test tested nothing")
	}

	checkThere(t, dir, &acknowledged)
}
