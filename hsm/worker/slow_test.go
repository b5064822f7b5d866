package worker_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"strongroom/hsm"
	"strongroom/hsm/pkcs11"
)

// TestSlowToken: on a token whose calls take their time, workers get as much done as a bare loop that has as many sessions. What would keep sessions idle
// while callers wait, be it a lock held across a call, a worker that has too few callers, or calls that are not needed, shows here.
func TestSlowToken(t *testing.T) {
	c, rig := newFaulty(t)
	c.Token.Sessions = 16
	set(t, rig, "on data delay 5")
	d, _ := open(t, c)
	waitReady(t, d, 2)
	bare, err := pkcs11.Open(t.Context(), c.Token)
	if err != nil {
		t.Fatal(err)
	}
	defer bare.Close()
	_, ref := made(t, d)

	// As many callers as sessions find each one a session, and more keep all sessions busy. The best of some rounds is what the workers can do when the
	// machine lets them.
	for _, callers := range []int{16, 32} {
		best := 0.0
		for range 4 {
			ours, theirs := sealed(t, d, ref, callers), sealed(t, bare, ref, 16)
			t.Logf("%d callers: %d seals, and %d in a bare loop", callers, ours, theirs)
			best = max(best, float64(ours)/float64(theirs))
		}
		if best < 0.9 {
			t.Errorf("%d callers get %.2f of what a bare loop does", callers, best)
		}
	}
}

// sealed returns how many seals callers get of a device in a while.
func sealed(t *testing.T, d hsm.Device, ref hsm.Ref, callers int) int64 {
	t.Helper()
	const while = 500 * time.Millisecond
	var done atomic.Int64
	var wg sync.WaitGroup
	end := time.Now().Add(while)
	for range callers {
		wg.Go(func() {
			for time.Now().Before(end) {
				if _, err := d.Seal(t.Context(), ref, nil, make([]byte, 32), aad); err != nil {
					t.Error(err)
					return
				}
				if time.Now().Before(end) {
					done.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return done.Load()
}
