package attest_test

import (
	"runtime"
	"testing"
	"time"

	"strongroom/kms/attest"
	"strongroom/kms/attest/attesttest"
)

// allocated returns how many bytes one call allocates: the least of several, since others may allocate meanwhile.
func allocated(f func()) uint64 {
	least := ^uint64(0)
	var before, after runtime.MemStats
	for range 3 {
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return least
}

// Anybody who may send requests can send documents. One that is refused before its chain is looked at costs next to nothing, whatever is in it.
func TestRefusalIsCheap(t *testing.T) {
	v := newVerifier(t)
	raw := document(t, statement())
	whole := fastest(func() { accept(t, newVerifier(t), raw, account, present) })
	var slowest time.Duration
	var largest uint64
	var slow, large string
	for _, c := range attesttest.Cases() {
		if c.Reason == 0 || c.Reason > attest.Untrusted {
			continue
		}
		raw := documentOf(c)
		f := func() { v.Verify(raw, account, present) }
		if took := fastest(f); took > slowest {
			slowest, slow = took, c.Name
		}
		if bytes := allocated(f); bytes > largest {
			largest, large = bytes, c.Name
		}
	}
	t.Logf("at most %v (%s) and %d bytes (%s); a whole verification takes %v", slowest, slow, largest, large, whole)
	// It is half a millisecond where a verification takes four. The race detector makes reading many times slower, and arithmetic not.
	most := whole / 4
	if raceDetector {
		most = 2 * whole
	}
	if slowest > most {
		t.Errorf("%s: refused in %v, where a whole verification takes %v", slow, slowest, whole)
	}
	if largest > 1<<20 {
		t.Errorf("%s: refused with %d bytes", large, largest)
	}
}

// Nor can certificates be arranged so that they cost many times what real ones do. The longest chain has nine signatures to verify.
func TestBadChainCostsNoMore(t *testing.T) {
	raw := document(t, statement())
	whole := fastest(func() { accept(t, newVerifier(t), raw, account, present) })
	var slowest time.Duration
	var slow string
	for _, c := range attesttest.Cases() {
		if c.Reason != attest.BadChain {
			continue
		}
		raw := documentOf(c)
		v := newVerifier(t)
		if took := fastest(func() { v.Verify(raw, account, present) }); took > slowest {
			slowest, slow = took, c.Name
		}
	}
	t.Logf("at most %v (%s); a whole verification takes %v", slowest, slow, whole)
	if slowest > 4*whole {
		t.Errorf("%s: refused in %v, where a whole verification takes %v", slow, slowest, whole)
	}
}

// An error is for a line of a log. It does not bring along what was sent.
func TestErrorsAreShort(t *testing.T) {
	v := newVerifier(t)
	for _, c := range attesttest.Cases() {
		for _, f := range v.Examine(documentOf(c), account, present).Faults {
			if n := len(f.Error()); n > 400 {
				t.Errorf("%s: an error of %d bytes: %.100s…", c.Name, n, f)
			}
		}
	}
}
