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

// patient makes a log that waits for so long for those who are coming, and does nothing by itself meanwhile.
func patient(t *testing.T, most time.Duration) *Log {
	t.Helper()
	l := open(t, Options{Dir: t.TempDir(), Signer: newSigner(t), gather: most, statEvery: time.Hour, CheckpointEvery: time.Hour})
	l.mu.Lock()
	l.gathering.write = time.Hour
	l.mu.Unlock()
	return l
}

// announced is a record that is announced now.
func announced(l *Log) *Record {
	l.Expect()
	r := typical()
	r.Time, r.Expected = time.Now(), true
	return r
}

// TestGather has records that were announced share a write, for which the first of them waits.
func TestGather(t *testing.T) {
	l := patient(t, time.Hour)
	before := l.Stats().Syncs
	var records []*Record
	for range 5 {
		records = append(records, announced(l))
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
	must(t, l.Append(t.Context(), announced(l)))
	must(t, l.Append(t.Context(), typical()))
	if n := l.Stats().Syncs - before; n != 3 {
		t.Errorf("%d writes, want three", n)
	}
}

// TestGatherLate has nobody wait for longer than is allowed, nor for the same twice.
func TestGatherLate(t *testing.T) {
	const most = 20 * time.Millisecond
	l := patient(t, most)
	l.Expect()
	l.Expect()
	r := announced(l)
	begun := time.Now()
	must(t, l.Append(t.Context(), r))
	if took := time.Since(begun); took < most {
		t.Errorf("it took %v, less than the wait", took)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gathering.coming != 0 {
		t.Error("those who are late are waited for again")
	}
}

// TestGatherUrgent has what the operator wants wait for nobody.
func TestGatherUrgent(t *testing.T) {
	for name, end := range map[string]func(l *Log) error{"rotate": (*Log).Rotate, "close": (*Log).Close} {
		t.Run(name, func(t *testing.T) {
			l := patient(t, time.Hour)
			l.Expect()
			r := announced(l)
			done := make(chan error)
			go func() { done <- l.Append(t.Context(), r) }()
			for queued := 0; queued == 0; {
				time.Sleep(time.Millisecond)
				l.mu.Lock()
				queued = len(l.queue)
				l.mu.Unlock()
			}
			must(t, end(l))
			must(t, <-done)
		})
	}
}

func TestPatience(t *testing.T) {
	const most = 2 * time.Millisecond
	for _, c := range []struct {
		g    gathering
		want time.Duration
	}{
		{gathering{coming: 1}, 0}, // nothing is known of the disk
		{gathering{coming: 7, takes: time.Millisecond, write: 100 * time.Microsecond}, gatherWrites * 100 * time.Microsecond},
		{gathering{coming: 7, takes: time.Millisecond, write: time.Second}, most},
		{gathering{coming: 15, takes: 16 * time.Millisecond, write: 100 * time.Microsecond}, 0}, // the device is slow
		{gathering{coming: 1, takes: time.Millisecond, write: 100 * time.Microsecond}, 0},
	} {
		if got := c.g.patience(most); got != c.want {
			t.Errorf("%+v: %v, want %v", c.g, got, c.want)
		}
	}
	var g gathering
	now := time.Now()
	g.coming = 2
	for range 1000 {
		g.came(now.Add(-time.Hour), now)
	}
	if g.coming != 0 || g.takes > gatherFar || g.takes < gatherFar*9/10 {
		t.Errorf("after many who were late: %+v", g)
	}
	g.came(time.Time{}, now)
	if g.coming != 0 {
		t.Error("a record that was not announced counts as one that was")
	}
}
