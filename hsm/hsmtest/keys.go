package hsmtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"strongroom/hsm"
)

func testDestroy(t *testing.T, d device) {
	id, ref := d.key(t)
	_, other := d.key(t)
	plaintext, aad := random(32), []byte("aad")
	sealed := d.seal(t, ref, plaintext, aad)
	ctx := patient(t)

	for range 3 {
		if err := d.Destroy(ctx, id); err != nil {
			t.Fatal(err)
		}
		_, err := d.Seal(ctx, ref, nil, plaintext, aad)
		fails(t, "Seal under a destroyed key", err, hsm.ErrNoKey)
		_, err = d.Open(ctx, ref, nil, sealed, aad)
		fails(t, "Open under a destroyed key", err, hsm.ErrNoKey)
	}
	if err := d.Destroy(ctx, newID()); err != nil {
		t.Errorf("Destroy of a key that never was: %v", err)
	}
	d.opens(t, other, d.seal(t, other, plaintext, aad), aad, plaintext)

	// A key may be made again, but it is another key.
	again, err := d.Generate(ctx, id, Label)
	if err != nil {
		t.Fatal(err)
	}
	d.rejects(t, again, sealed, aad, "a new key with the id of a destroyed one")
	_, err = d.Open(ctx, ref, nil, sealed, aad)
	fails(t, "Open under a destroyed key whose id has a new one", err, hsm.ErrNoKey)
	d.opens(t, again, d.seal(t, again, plaintext, aad), aad, plaintext)
}

func testRefs(t *testing.T, d device) {
	_, ref := d.key(t)
	_, other := d.key(t)
	plaintext, aad := random(32), []byte("aad")
	sealed := d.seal(t, ref, plaintext, aad)
	ctx := patient(t)

	refused := func(what string, r hsm.Ref) {
		t.Helper()
		_, err := d.Seal(ctx, r, nil, plaintext, aad)
		fails(t, "Seal under "+what, err, hsm.ErrNoKey)
		_, err = d.Open(ctx, r, nil, sealed, aad)
		fails(t, "Open under "+what, err, hsm.ErrNoKey)
	}
	refused("no Ref", nil)
	refused("a short Ref", ref[:len(ref)-1])
	refused("a long Ref", append(bytes.Clone(ref), 0))
	refused("a Ref of zeros", make(hsm.Ref, len(ref)))
	refused("a Ref of random bytes", random(len(ref)))
	for i := range ref {
		altered := bytes.Clone(ref)
		altered[i] ^= 1 << (i % 8)
		refused(fmt.Sprintf("a Ref with byte %d changed", i), altered)
	}
	for _, cut := range []int{8, len(ref) / 4, len(ref) / 2} { // one byte of two Refs is the same now and then
		refused(fmt.Sprintf("a Ref put together from two at byte %d", cut), append(bytes.Clone(ref[:len(ref)-cut]), other[len(ref)-cut:]...))
	}
	d.opens(t, ref, sealed, aad, plaintext)
}

func testRandom(t *testing.T, d device) {
	ctx := patient(t)
	seen := map[string]bool{}
	for _, n := range []int{0, 1, 16, 32, 32, 1024, 5000} {
		p := make([]byte, n)
		if err := d.Random(ctx, p); err != nil {
			t.Fatal(err)
		}
		if n < 16 {
			continue
		}
		for i := 0; i+16 <= n; i += 16 {
			block := string(p[i : i+16])
			if seen[block] || bytes.Count([]byte(block), []byte{0}) > 12 {
				t.Fatalf("16 random bytes came twice, or were not filled: %x", block)
			}
			seen[block] = true
		}
	}
}

func testObjects(t *testing.T, d device) {
	ctx := patient(t)
	const n = 5
	want := map[hsm.ID]string{}
	for range n {
		id, _ := d.key(t)
		want[id] = Label
	}
	objects, err := d.Objects(ctx)
	if err != nil {
		t.Fatal(err)
	}
	found := map[hsm.ID]string{}
	for _, o := range objects {
		if _, ok := found[o.ID]; ok {
			t.Errorf("Objects has %v twice", o.ID)
		}
		found[o.ID] = o.Label
	}
	for id, label := range want {
		if found[id] != label {
			t.Errorf("Objects has the label %q for a key made with %q", found[id], label)
		}
		if err := d.Destroy(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	objects, err = d.Objects(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if want[o.ID] != "" {
			t.Errorf("Objects has the destroyed key %v", o.ID)
		}
	}
}

func testCancelled(t *testing.T, d device) {
	id, ref := d.key(t)
	plaintext, aad := random(32), []byte("aad")
	sealed := d.seal(t, ref, plaintext, aad)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()

	unmade := newID()
	_, err := d.Generate(ctx, unmade, Label)
	fails(t, "Generate", err, context.Canceled)
	fails(t, "Destroy", d.Destroy(ctx, id), context.Canceled)
	_, err = d.Seal(ctx, ref, nil, plaintext, aad)
	fails(t, "Seal", err, context.Canceled)
	_, err = d.Open(ctx, ref, nil, sealed, aad)
	fails(t, "Open", err, context.Canceled)
	fails(t, "Random", d.Random(ctx, make([]byte, 16)), context.Canceled)
	fails(t, "Check", d.Check(ctx), context.Canceled)
	_, err = d.Objects(ctx)
	fails(t, "Objects", err, context.Canceled)

	d.opens(t, ref, sealed, aad, plaintext)
	if err := d.Destroy(patient(t), unmade); err != nil {
		t.Error(err)
	}
}

// testRejections sees that bad ciphertexts, of which a client can send as many as it likes, cost the device nothing that stays.
func testRejections(t *testing.T, d device) {
	_, ref := d.key(t)
	plaintext, aad := random(2400), []byte("aad")
	sealed := d.seal(t, ref, plaintext, aad)
	bad := bytes.Clone(sealed)
	bad[len(bad)-1] ^= 1

	// The quickest of some rounds says how fast the device is, whatever else the machine does.
	speed := func() time.Duration {
		best := time.Hour
		for range 10 {
			begun := time.Now()
			for range 20 {
				d.opens(t, ref, sealed, aad, plaintext)
			}
			best = min(best, time.Since(begun))
		}
		return best
	}
	before := speed()
	inParallel(16, func(int) {
		for range 1000/16 + 1 {
			d.rejects(t, ref, bad, aad, "a bad tag")
		}
	})
	if after := speed(); after > 3*before+10*time.Millisecond {
		t.Errorf("20 calls took %v before, and %v after a thousand rejected ones", before, after)
	}
	inParallel(64, func(int) {
		for range 5 {
			if got, err := d.Open(patient(t), ref, nil, sealed, aad); err != nil || !bytes.Equal(got, plaintext) {
				t.Errorf("Open after a thousand rejected ones: %v", err)
			}
		}
	})
}

// testConcurrent does everything at once. Each goroutine has a key that the others use too, and destroys it at the end of a round.
func testConcurrent(t *testing.T, d device) {
	_, lasting := d.key(t)
	aad := []byte("aad")
	lastingText := random(138)
	lastingSealed := d.seal(t, lasting, lastingText, aad)

	type entry struct {
		ref       hsm.Ref
		sealed    []byte
		plaintext []byte
	}
	var mu sync.Mutex
	shared := map[hsm.ID]entry{}

	const goroutines, rounds = 16, 4
	inParallel(goroutines, func(g int) {
		for round := range rounds {
			ctx := patient(t)
			id := newID()
			ref, err := d.Generate(ctx, id, Label)
			if err != nil {
				t.Errorf("Generate: %v", err)
				return
			}
			plaintext := random(1 + (g*rounds+round)*30)
			sealed, err := d.Seal(ctx, ref, nil, plaintext, aad)
			if err != nil {
				t.Errorf("Seal: %v", err)
				return
			}
			mu.Lock()
			shared[id] = entry{ref, sealed, plaintext}
			others := make([]entry, 0, len(shared))
			for _, e := range shared {
				others = append(others, e)
			}
			mu.Unlock()

			for _, e := range others {
				// The others' keys are there, or have been destroyed meanwhile.
				got, err := d.Open(ctx, e.ref, nil, e.sealed, aad)
				if err == nil && !bytes.Equal(got, e.plaintext) {
					t.Error("Open returned something else than was sealed")
				}
				if err != nil && !errors.Is(err, hsm.ErrNoKey) {
					t.Errorf("Open: %v", err)
				}
				if _, err := d.Seal(ctx, e.ref, nil, e.plaintext, aad); err != nil && !errors.Is(err, hsm.ErrNoKey) {
					t.Errorf("Seal: %v", err)
				}
				// One that nobody destroys is there always.
				if got, err := d.Open(ctx, lasting, nil, lastingSealed, aad); err != nil || !bytes.Equal(got, lastingText) {
					t.Errorf("Open: %v", err)
				}
				if _, err := d.Open(ctx, lasting, nil, lastingSealed, []byte("daa")); !errors.Is(err, hsm.ErrRejected) {
					t.Errorf("Open with the wrong associated data: %v", err)
				}
			}
			if err := d.Random(ctx, make([]byte, 32)); err != nil {
				t.Errorf("Random: %v", err)
			}
			if err := d.Check(ctx); err != nil {
				t.Errorf("Check: %v", err)
			}
			if _, err := d.Objects(ctx); err != nil {
				t.Errorf("Objects: %v", err)
			}
			if got, err := d.Open(ctx, ref, nil, sealed, aad); err != nil || !bytes.Equal(got, plaintext) {
				t.Errorf("Open: %v", err)
			}
			if err := d.Destroy(ctx, id); err != nil {
				t.Errorf("Destroy: %v", err)
			}
			if _, err := d.Seal(ctx, ref, nil, plaintext, aad); !errors.Is(err, hsm.ErrNoKey) {
				t.Errorf("Seal under a destroyed key: %v", err)
			}
		}
	})
}

// inParallel runs f with the numbers below n at once, and waits for all.
func inParallel(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}
