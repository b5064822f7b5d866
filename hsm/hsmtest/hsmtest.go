// Package hsmtest is what every [hsm.Device] must do, as one suite, and a device that fails on request.
//
// A package that implements a device runs the suite in its own tests:
//
//	func TestDevice(t *testing.T) {
//		hsmtest.Test(t, func(t *testing.T) hsm.Device { … })
//	}
package hsmtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	"strongroom/hsm"
)

// Test runs the suite. open is called once, and closes what it opened with t.Cleanup. The device may hold other keys;
// the suite destroys its own.
func Test(t *testing.T, open func(t *testing.T) hsm.Device) {
	d := device{open(t)}
	for _, c := range []struct {
		name string
		run  func(*testing.T, device)
	}{
		{"Check", testCheck},
		{"RoundTrip", testRoundTrip},
		{"Append", testAppend},
		{"Lengths", testLengths},
		{"Altered", testAltered},
		{"AnotherKey", testAnotherKey},
		{"IVs", testIVs},
		{"GenerateAgain", testGenerateAgain},
		{"Destroy", testDestroy},
		{"Refs", testRefs},
		{"Random", testRandom},
		{"Objects", testObjects},
		{"Cancelled", testCancelled},
		{"Rejections", testRejections},
		{"Concurrent", testConcurrent},
		{"Sign", testSign},
		{"SignerAgain", testSignerAgain},
		{"SignerDestroy", testSignerDestroy},
		{"SignerRefs", testSignerRefs},
		{"SignerObjects", testSignerObjects},
		{"SignerCancelled", testSignerCancelled},
		{"SignerConcurrent", testSignerConcurrent},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, d) })
	}
}

// Label is the label of keys that the suite makes.
const Label = "strongroom/hsmtest/1"

// patience bounds the wait for any one call. It is there to turn a hanging device into a failure.
const patience = 30 * time.Second

type device struct{ hsm.Device }

func newID() (id hsm.ID) {
	rand.Read(id[:])
	return id
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// key makes a key that is destroyed when the test is over.
func (d device) key(t *testing.T) (hsm.ID, hsm.Ref) {
	t.Helper()
	id := newID()
	ref, err := d.Generate(patient(t), id, Label)
	if err != nil {
		t.Fatalf("Generate: %v", err)
	}
	if len(ref) == 0 || len(ref) > 256 {
		t.Fatalf("Generate returned a Ref of %d bytes, want 1 to 256", len(ref))
	}
	t.Cleanup(func() {
		if err := d.Destroy(context.Background(), id); err != nil {
			t.Errorf("Destroy: %v", err)
		}
	})
	return id, ref
}

func (d device) seal(t *testing.T, ref hsm.Ref, plaintext, aad []byte) []byte {
	t.Helper()
	sealed, err := d.Seal(patient(t), ref, nil, plaintext, aad)
	if err != nil {
		t.Fatalf("Seal of %d bytes: %v", len(plaintext), err)
	}
	return sealed
}

// opens sees that sealed opens to want.
func (d device) opens(t *testing.T, ref hsm.Ref, sealed, aad, want []byte) {
	t.Helper()
	got, err := d.Open(patient(t), ref, nil, sealed, aad)
	if err != nil {
		t.Fatalf("Open of %d bytes: %v", len(sealed), err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("Open of %d bytes returned something else than was sealed", len(sealed))
	}
}

// rejects sees that sealed is rejected, and nothing of it leaks.
func (d device) rejects(t *testing.T, ref hsm.Ref, sealed, aad []byte, what string) {
	t.Helper()
	room := make([]byte, 0, len(sealed)+1)
	got, err := d.Open(patient(t), ref, room, sealed, aad)
	if !errors.Is(err, hsm.ErrRejected) || len(got) != 0 {
		t.Errorf("%s: Open returned %d bytes and the error %v, want none and %v", what, len(got), err, hsm.ErrRejected)
	}
	if !bytes.Equal(room[:cap(room)], make([]byte, cap(room))) {
		t.Errorf("%s: a rejected Open wrote to its output", what)
	}
	sorted(t, err)
}

// fails sees that err is want.
func fails(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got the error %v, want %v", what, err, want)
	}
	sorted(t, err)
}

// sorted sees that err wraps one at most of the three errors of package hsm.
func sorted(t *testing.T, err error) {
	t.Helper()
	if n := len(kinds(err)); n > 1 {
		t.Errorf("error %v is %d of the three kinds at once", err, n)
	}
}

func kinds(err error) (k []error) {
	for _, kind := range []error{hsm.ErrUnavailable, hsm.ErrNoKey, hsm.ErrRejected} {
		if errors.Is(err, kind) {
			k = append(k, kind)
		}
	}
	return k
}

func testCheck(t *testing.T, d device) {
	for range 3 {
		if err := d.Check(patient(t)); err != nil {
			t.Fatal(err)
		}
	}
}

func testRoundTrip(t *testing.T, d device) {
	_, ref := d.key(t)
	for _, n := range []int{1, 32, 138, 2400, hsm.MaxPlaintext} {
		for _, m := range []int{1, 91, hsm.MaxAAD} {
			plaintext, aad := random(n), random(m)
			sealed := d.seal(t, ref, plaintext, aad)
			if len(sealed) != n+hsm.Overhead {
				t.Errorf("%d bytes sealed are %d, want %d", n, len(sealed), n+hsm.Overhead)
			}
			if n > 16 && bytes.Contains(sealed, plaintext[:16]) {
				t.Errorf("%d bytes sealed hold their plaintext", n)
			}
			d.opens(t, ref, sealed, aad, plaintext)
		}
	}
}

func testAppend(t *testing.T, d device) {
	_, ref := d.key(t)
	ctx := patient(t)
	plaintext, aad := random(100), []byte("aad")
	before := []byte("before")

	for _, room := range []int{0, 7, 100, 200} {
		dst := append(make([]byte, 0, len(before)+room), before...)
		sealed, err := d.Seal(ctx, ref, dst, plaintext, aad)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(sealed, before) || len(sealed) != len(before)+len(plaintext)+hsm.Overhead {
			t.Fatalf("Seal did not append to a slice with room for %d bytes", room)
		}
		if inPlace := &sealed[0] == &dst[0]; inPlace != (room >= len(plaintext)+hsm.Overhead) {
			t.Errorf("Seal with room for %d bytes: result in place = %v", room, inPlace)
		}
		sealed = sealed[len(before):]

		dst = append(make([]byte, 0, len(before)+room), before...)
		opened, err := d.Open(ctx, ref, dst, sealed, aad)
		if err != nil {
			t.Fatal(err)
		}
		if string(opened) != string(before)+string(plaintext) {
			t.Fatalf("Open did not append to a slice with room for %d bytes", room)
		}
		if inPlace := &opened[0] == &dst[0]; inPlace != (room >= len(plaintext)) {
			t.Errorf("Open with room for %d bytes: result in place = %v", room, inPlace)
		}
		if inPlace := room >= len(plaintext); inPlace {
			rest := dst[:cap(dst)][len(before)+len(plaintext):]
			if !bytes.Equal(rest, make([]byte, len(rest))) {
				t.Errorf("Open wrote beyond its result")
			}
		}
	}
}

func testLengths(t *testing.T, d device) {
	_, ref := d.key(t)
	ctx := patient(t)
	for _, c := range []struct{ plaintext, aad int }{
		{0, 1}, {hsm.MaxPlaintext + 1, 1}, {1, 0}, {1, hsm.MaxAAD + 1},
	} {
		if _, err := d.Seal(ctx, ref, nil, random(c.plaintext), random(c.aad)); err == nil || len(kinds(err)) != 0 {
			t.Errorf("Seal of %d bytes with %d of associated data: got the error %v, want one about the call", c.plaintext, c.aad, err)
		}
	}
	aad := []byte("aad")
	for _, n := range []int{0, 1, hsm.IVSize, hsm.Overhead - 1, hsm.Overhead, hsm.MaxPlaintext + hsm.Overhead + 1, 1 << 20} {
		d.rejects(t, ref, random(n), aad, fmt.Sprintf("%d bytes", n))
	}
	sealed := d.seal(t, ref, random(32), aad)
	d.rejects(t, ref, sealed, nil, "no associated data")
	d.rejects(t, ref, sealed, random(hsm.MaxAAD+1), "much associated data")
	if err := d.Check(ctx); err != nil {
		t.Errorf("after that: %v", err)
	}
}

func testAltered(t *testing.T, d device) {
	_, ref := d.key(t)
	plaintext, aad := random(19), random(21)
	sealed := d.seal(t, ref, plaintext, aad)

	for i := range sealed {
		for _, flip := range []byte{1 << (i % 8), 0x80, 0xff} {
			altered := bytes.Clone(sealed)
			altered[i] ^= flip
			d.rejects(t, ref, altered, aad, fmt.Sprintf("byte %d of sealed changed by %#x", i, flip))
		}
	}
	for i := range aad {
		for bit := range 8 {
			altered := bytes.Clone(aad)
			altered[i] ^= 1 << bit
			d.rejects(t, ref, sealed, altered, fmt.Sprintf("bit %d of byte %d of the associated data changed", bit, i))
		}
	}
	for n := range sealed {
		d.rejects(t, ref, sealed[:n], aad, fmt.Sprintf("cut to %d bytes", n))
		d.rejects(t, ref, sealed[n+1:], aad, fmt.Sprintf("first %d bytes cut off", n+1))
	}
	d.rejects(t, ref, append(bytes.Clone(sealed), 0), aad, "a byte added")
	d.rejects(t, ref, append([]byte{0}, sealed...), aad, "a byte put before")
	d.rejects(t, ref, sealed, aad[:20], "shorter associated data")
	d.rejects(t, ref, sealed, append(bytes.Clone(aad), 0), "longer associated data")
	d.opens(t, ref, sealed, aad, plaintext)
}

func testAnotherKey(t *testing.T, d device) {
	_, one := d.key(t)
	_, two := d.key(t)
	plaintext, aad := random(32), []byte("aad")
	sealed := d.seal(t, one, plaintext, aad)
	d.rejects(t, two, sealed, aad, "another key")
	d.opens(t, one, sealed, aad, plaintext)
}

func testIVs(t *testing.T, d device) {
	_, ref := d.key(t)
	seen := map[[hsm.IVSize]byte]bool{}
	var ones [hsm.IVSize * 8]int
	const calls = 4000
	for range calls {
		iv := [hsm.IVSize]byte(d.seal(t, ref, []byte("x"), []byte("aad")))
		if seen[iv] {
			t.Fatalf("the IV %x came twice in %d calls", iv, len(seen))
		}
		seen[iv] = true
		for i := range ones {
			ones[i] += int(iv[i/8] >> (i % 8) & 1)
		}
	}
	// A bit of a random IV is set in half of the calls; 300 off is more than nine standard deviations.
	for i, n := range ones {
		if n < calls/2-300 || n > calls/2+300 {
			t.Errorf("bit %d of the IV was set in %d of %d calls: the IV is not random", i, n, calls)
		}
	}
}

func testGenerateAgain(t *testing.T, d device) {
	id, first := d.key(t)
	plaintext, aad := random(32), []byte("aad")
	sealed := d.seal(t, first, plaintext, aad)

	again, err := d.Generate(patient(t), id, Label)
	if err != nil {
		t.Fatal(err)
	}
	d.opens(t, again, sealed, aad, plaintext)
	d.opens(t, first, d.seal(t, again, plaintext, aad), aad, plaintext)
}
