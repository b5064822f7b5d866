package audit

import (
	"sync"
	"testing"
	"time"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// patient makes a log wait for long for those who are coming.
func patient(t *testing.T, d disk) *Log {
	t.Helper()
	l := open(t, Options{Dir: t.TempDir(), Signer: newSigner(t), disk: d, gather: time.Minute})
	l.mu.Lock()
	l.gathering.write = time.Minute
	l.mu.Unlock()
	return l
}

// expected is a record that was announced so long ago.
func expected(l *Log, ago time.Duration) *Record {
	l.Expect()
	r := typical()
	r.Expected = time.Now().Add(-ago)
	return r
}

// TestGather has records that were announced share a write, for which the first of them waits.
func TestGather(t *testing.T) {
	l := patient(t, osDisk{})
	before := l.Stats().Syncs
	var records []*Record
	for range 5 {
		records = append(records, expected(l, 0))
	}
	var wg sync.WaitGroup
	for _, r := range records {
		wg.Go(func() { must(t, l.Append(t.Context(), r)) })
	}
	wg.Wait()
	if n := l.Stats().Syncs - before; n != 1 {
		t.Errorf("%d writes, want one for five records that were coming", n)
	}
	// Nobody is coming any more.
	must(t, l.Append(t.Context(), expected(l, 0)))
	must(t, l.Append(t.Context(), typical()))
	if n := l.Stats().Syncs - before; n != 3 {
		t.Errorf("%d writes, want three", n)
	}
}

// TestGatherEnds has nobody wait for what does not come, or comes late.
func TestGatherEnds(t *testing.T) {
	t.Run("does not come", func(t *testing.T) {
		l := open(t, Options{Dir: t.TempDir(), Signer: newSigner(t), gather: 20 * time.Millisecond})
		l.mu.Lock()
		l.gathering.write = time.Minute
		l.mu.Unlock()
		l.Expect()
		l.Expect()
		begun := time.Now()
		must(t, l.Append(t.Context(), expected(l, 0)))
		if took := time.Since(begun); took < 20*time.Millisecond {
			t.Errorf("it took %v, less than the wait", took)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.gathering.coming != 0 {
			t.Error("those who are late are waited for again")
		}
	})
	t.Run("is slow", func(t *testing.T) {
		l := patient(t, osDisk{})
		l.mu.Lock()
		l.gathering.write = time.Microsecond
		l.mu.Unlock()
		l.Expect()
		must(t, l.Append(t.Context(), expected(l, time.Second))) // or the test ends
	})
	for name, end := range map[string]func(l *Log) error{"rotate": (*Log).Rotate, "close": (*Log).Close} {
		t.Run(name, func(t *testing.T) {
			l := patient(t, osDisk{})
			l.Expect()
			r := expected(l, 0)
			done := make(chan error)
			go func() { done <- l.Append(t.Context(), r) }()
			for l.mu.Lock(); len(l.queue) == 0; l.mu.Lock() {
				l.mu.Unlock()
				time.Sleep(time.Millisecond)
			}
			l.mu.Unlock()
			must(t, end(l))
			must(t, <-done)
		})
	}
}
