package worker_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"strongroom/hsm"
	"strongroom/hsm/hsmtest"
	"strongroom/hsm/pkcs11"
	"strongroom/hsm/worker"
	"strongroom/softhsm"
)

// The workers of these tests are this test binary.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == worker.Argument {
		os.Exit(worker.Main())
	}
	os.Exit(m.Run())
}

const label = "strongroom/test/1"

var aad = []byte("aad")

// newToken makes a token in a directory.
func newToken(t testing.TB) pkcs11.Config {
	t.Helper()
	c, err := softhsm.New(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	token, err := pkcs11.Init(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	return c
}

// logged is where the operator's log of a test goes.
type logged struct {
	t  testing.TB
	mu sync.Mutex
	b  strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

func open(t testing.TB, c worker.Config) (*worker.Device, *logged) {
	t.Helper()
	log := &logged{t: t}
	c.Log = slog.New(slog.NewTextHandler(log, nil))
	d, err := worker.Open(t.Context(), c)
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the log:\n%s", log)
		}
	})
	return d, log
}

func anID() (id hsm.ID) {
	rand.Read(id[:])
	return id
}

func made(t testing.TB, d hsm.Device) (hsm.ID, hsm.Ref) {
	t.Helper()
	id := anID()
	ref, err := d.Generate(t.Context(), id, label)
	if err != nil {
		t.Fatal(err)
	}
	return id, ref
}

func roundTrip(ctx context.Context, d hsm.Device, ref hsm.Ref) error {
	sealed, err := d.Seal(ctx, ref, nil, []byte("plaintext"), aad)
	if err != nil {
		return fmt.Errorf("Seal: %w", err)
	}
	got, err := d.Open(ctx, ref, nil, sealed, aad)
	if err != nil {
		return fmt.Errorf("Open: %w", err)
	}
	if string(got) != "plaintext" {
		return errors.New("it opened to something else")
	}
	return nil
}

func TestDevice(t *testing.T) {
	hsmtest.Test(t, func(t *testing.T) hsm.Device {
		d, _ := open(t, worker.Config{Token: newToken(t)})
		return d
	})
}

// waitReady waits until n workers have the token open.
func waitReady(t testing.TB, d *worker.Device, n int) {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); d.Stats().Ready != n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%d workers are ready, want %d", d.Stats().Ready, n)
		}
	}
}
