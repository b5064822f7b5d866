package awsapi

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func (s *testServer) get(t *testing.T, path string) (int, string) {
	t.Helper()
	resp, err := s.Client().Get(s.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if !uuid.MatchString(resp.Header.Get("x-amzn-RequestId")) {
		t.Errorf("%s: no request id", path)
	}
	return resp.StatusCode, string(body)
}

func (s *testServer) setReady(f func(context.Context) error) { s.ready.Store(&f) }

func TestHealth(t *testing.T) {
	s := newTestServer(t, false)
	s.setReady(func(context.Context) error { return errors.New("slot 7: CKR_DEVICE_REMOVED") })
	if status, body := s.get(t, "/healthz"); status != 200 || body != "ok\n" {
		t.Errorf("got %d %s", status, body)
	}
	if status, body := s.get(t, "/readyz"); status != 503 || body != "unavailable\n" {
		t.Errorf("got %d %s", status, body)
	}
	s.setReady(func(context.Context) error { panic("oh no") })
	time.Sleep(readyFresh)
	if status, body := s.get(t, "/readyz"); status != 503 || body != "unavailable\n" {
		t.Errorf("got %d %s", status, body)
	}
	s.setReady(func(context.Context) error { return nil })
	time.Sleep(readyFresh)
	if status, body := s.get(t, "/readyz"); status != 200 || body != "ready\n" {
		t.Errorf("got %d %s", status, body)
	}
	resp, err := s.Client().Head(s.URL + "/readyz")
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("got %v, %v", resp, err)
	}
}

// TestReadyIsAskedOnce: a crowd costs the HSM as much as one caller.
func TestReadyIsAskedOnce(t *testing.T) {
	s := newTestServer(t, false)
	var asked atomic.Int64
	s.setReady(func(context.Context) error {
		asked.Add(1)
		time.Sleep(50 * time.Millisecond)
		return nil
	})
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if status, _ := s.get(t, "/readyz"); status != 200 {
				t.Errorf("got %d", status)
			}
		})
	}
	all.Wait()
	if got := asked.Load(); got != 1 {
		t.Errorf("asked %d times", got)
	}
}

// TestReadyHangs: a check that does not heed its context holds up nobody for long, and there is never a second one.
func TestReadyHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		end := make(chan struct{})
		r := &readiness{log: slog.New(slog.DiscardHandler), check: func(context.Context) error {
			asked.Add(1)
			<-end
			return nil
		}}
		start := time.Now()
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if err := r.get(t.Context()); err != errReadyTimeout {
					t.Errorf("got %v", err)
				}
			})
		}
		all.Wait()
		if took := time.Since(start); took != readyTimeout || asked.Load() != 1 {
			t.Errorf("took %v, asked %d times", took, asked.Load())
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.get(gone); err != context.Canceled {
			t.Errorf("got %v", err)
		}
		close(end)
		synctest.Wait()
		if err := r.get(t.Context()); err != nil || asked.Load() != 1 {
			t.Errorf("got %v, asked %d times", err, asked.Load())
		}
		time.Sleep(readyFresh)
		if err := r.get(t.Context()); err != nil || asked.Load() != 2 {
			t.Errorf("got %v, asked %d times", err, asked.Load())
		}
	})
}
