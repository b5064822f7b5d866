package attest_test

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"strongroom/kms/attest"
)

// raceDetector is set under -race, where signatures take ten times as long.
var raceDetector bool

// stride returns from how many positions one is taken: all of them, unless the run is to be short.
func stride(t *testing.T, full int) int {
	if testing.Short() || raceDetector {
		return full * 29
	}
	return full
}

// Each byte of a document counts: with another it is refused, and before anything is done with its key. The chain is known beforehand, so that a
// document can only be refused because of what it is.
func TestRealAltered(t *testing.T) {
	documents := realDocuments(t)
	v := onlyAWS(t)
	for _, d := range documents {
		v.Verify(d.raw, account, d.made)
	}
	if v.Known() != len(documents) {
		t.Fatalf("%d chains are known, want %d", v.Known(), len(documents))
	}
	for i, d := range documents {
		every := stride(t, 1)
		if i > 0 {
			every = stride(t, 61) // their forms differ little from that of the first
		}
		alter(t, v, d, 0x01, every)
		alter(t, v, d, 0x80, stride(t, 17))
	}
	if v.Known() != len(documents) {
		t.Errorf("%d chains are known afterwards, want %d: one of an altered document is", v.Known(), len(documents))
	}
}

// The same without a known chain.
func TestRealAlteredFirst(t *testing.T) {
	for _, d := range realDocuments(t) {
		v := onlyAWS(t)
		alter(t, v, d, 0x01, stride(t, 97))
		// What was altered elsewhere than in its certificates leaves its chain behind, and no other.
		if v.Known() > 1 {
			t.Errorf("%s: %d chains are known", d.File, v.Known())
		}
	}
}

// alter inverts bits of one byte after another, and requires that each such document is refused.
func alter(t *testing.T, v *attest.Verifier, d *realDocument, bits byte, every int) {
	t.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			raw := slices.Clone(d.raw)
			for {
				i := int(next.Add(int64(every))) - every
				if i >= len(raw) {
					return
				}
				raw[i] ^= bits
				a, err := v.Verify(raw, account, d.made)
				if got := reason(err); a != nil || got == 0 || got >= attest.Debug {
					t.Errorf("%s with byte %d of %d altered by %#02x: %v", d.File, i, len(raw), bits, err)
				}
				raw[i] ^= bits
			}
		})
	}
	wg.Wait()
}

// Nor can it be shorter or longer.
func TestRealCut(t *testing.T) {
	for _, d := range realDocuments(t) {
		for i := 0; i < len(d.raw); i += stride(t, 7) {
			if _, err := attest.Parse(d.raw[:i]); reason(err) != attest.Malformed {
				t.Fatalf("%s, the first %d bytes: %v", d.File, i, err)
			}
		}
		for _, more := range []byte{0x00, 0x40, 0xf6, 0xff} {
			if _, err := attest.Parse(append(slices.Clone(d.raw), more)); reason(err) != attest.Malformed {
				t.Fatalf("%s and a byte %#02x: %v", d.File, more, err)
			}
		}
	}
}
