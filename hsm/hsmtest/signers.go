package hsmtest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"testing"

	"strongroom/hsm"
)

// signer makes a signer that is destroyed when the test is over.
func (d device) signer(t *testing.T) (hsm.ID, hsm.Ref) {
	t.Helper()
	id := newID()
	ref, err := d.GenerateSigner(patient(t), id, Label)
	if err != nil {
		t.Fatalf("GenerateSigner: %v", err)
	}
	if len(ref) == 0 || len(ref) > 256 {
		t.Fatalf("GenerateSigner returned a Ref of %d bytes, want 1 to 256", len(ref))
	}
	t.Cleanup(func() {
		if err := d.Destroy(context.Background(), id); err != nil {
			t.Errorf("Destroy: %v", err)
		}
	})
	return id, ref
}

// public returns the public key of a signer, and sees that it is the one encoding of a key on P-256.
func (d device) public(t *testing.T, ref hsm.Ref) *ecdsa.PublicKey {
	t.Helper()
	der, err := d.PublicKey(patient(t), ref)
	if err != nil {
		t.Fatalf("PublicKey: %v", err)
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatalf("PublicKey returned %x: %v", der, err)
	}
	public, ok := parsed.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		t.Fatalf("PublicKey returned a %T, not on P-256", parsed)
	}
	if again, err := x509.MarshalPKIXPublicKey(public); err != nil || !bytes.Equal(again, der) {
		t.Fatalf("PublicKey returned %x, which is not how the key is encoded", der)
	}
	return public
}

// signs sees that a signer signs as public says.
func (d device) signs(t *testing.T, ref hsm.Ref, public *ecdsa.PublicKey) {
	t.Helper()
	digest := [32]byte(random(32))
	signature, err := d.Sign(patient(t), ref, digest)
	if err != nil {
		t.Fatalf("Sign: %v", err)
	}
	verifies(t, public, digest, signature)
}

func verifies(t *testing.T, public *ecdsa.PublicKey, digest [32]byte, signature []byte) {
	t.Helper()
	if !ecdsa.VerifyASN1(public, digest[:], signature) {
		t.Errorf("the signature %x of %x does not verify", signature, digest)
	}
	var rs struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(signature, &rs)
	if err != nil || len(rest) != 0 {
		t.Errorf("Sign returned %x, which is no Ecdsa-Sig-Value: %v", signature, err)
		return
	}
	if again, err := asn1.Marshal(rs); err != nil || !bytes.Equal(again, signature) {
		t.Errorf("Sign returned %x, which is not DER", signature)
	}
}

func testSign(t *testing.T, d device) {
	_, ref := d.signer(t)
	public := d.public(t, ref)
	_, otherRef := d.signer(t)
	other := d.public(t, otherRef)
	if public.Equal(other) {
		t.Error("two signers have one public key")
	}

	// Enough for the r and the s of a signature to begin with every kind of byte, as DER has to be told of some.
	digests := [][32]byte{{}, {31: 1}, [32]byte(bytes.Repeat([]byte{0xff}, 32))}
	for range 100 {
		digests = append(digests, [32]byte(random(32)))
	}
	nonces := map[string]bool{}
	for _, digest := range digests {
		for range 2 {
			signature, err := d.Sign(patient(t), ref, digest)
			if err != nil {
				t.Fatal(err)
			}
			verifies(t, public, digest, signature)
			if ecdsa.VerifyASN1(other, digest[:], signature) {
				t.Error("the signature verifies under another key")
			}
			var rs struct{ R, S *big.Int }
			if _, err := asn1.Unmarshal(signature, &rs); err != nil {
				t.Fatal(err)
			}
			if nonces[rs.R.String()] {
				t.Fatal("two signatures have one r, from which the private key can be computed")
			}
			nonces[rs.R.String()] = true
		}
	}
	d.signs(t, otherRef, other)
}

func testSignerAgain(t *testing.T, d device) {
	id, first := d.signer(t)
	public := d.public(t, first)
	for range 2 {
		again, err := d.GenerateSigner(patient(t), id, Label)
		if err != nil {
			t.Fatal(err)
		}
		if !d.public(t, again).Equal(public) {
			t.Error("GenerateSigner again has made another key")
		}
		d.signs(t, again, public)
		d.signs(t, first, public)
	}
}

func testSignerDestroy(t *testing.T, d device) {
	id, ref := d.signer(t)
	public := d.public(t, ref)
	_, other := d.signer(t)
	ctx := patient(t)
	gone := func(when string) {
		t.Helper()
		_, err := d.Sign(ctx, ref, [32]byte{1})
		fails(t, "Sign with a signer "+when, err, hsm.ErrNoKey)
		_, err = d.PublicKey(ctx, ref)
		fails(t, "PublicKey of a signer "+when, err, hsm.ErrNoKey)
	}
	for range 3 {
		if err := d.Destroy(ctx, id); err != nil {
			t.Fatal(err)
		}
		gone("that is destroyed")
	}
	d.signs(t, other, d.public(t, other))

	// A signer may be made again, but it is another one.
	again, err := d.GenerateSigner(ctx, id, Label)
	if err != nil {
		t.Fatal(err)
	}
	gone("that is destroyed and whose id has a new one")
	if d.public(t, again).Equal(public) {
		t.Error("the new signer has the key of the one that was destroyed")
	}
	d.signs(t, again, d.public(t, again))
}

// testSignerRefs sees that a Ref is good for what it was made for, whatever becomes of it.
func testSignerRefs(t *testing.T, d device) {
	id, ref := d.signer(t)
	_, other := d.signer(t)
	keyID, key := d.key(t)
	public := d.public(t, ref)
	plaintext, aad := random(32), []byte("aad")
	sealed := d.seal(t, key, plaintext, aad)
	ctx := patient(t)

	refused := func(what string, r hsm.Ref) {
		t.Helper()
		_, err := d.Sign(ctx, r, [32]byte{1})
		fails(t, "Sign with "+what, err, hsm.ErrNoKey)
		_, err = d.PublicKey(ctx, r)
		fails(t, "PublicKey of "+what, err, hsm.ErrNoKey)
	}
	refused("no Ref", nil)
	refused("a short Ref", ref[:len(ref)-1])
	refused("a long Ref", append(bytes.Clone(ref), 0))
	refused("a Ref of zeros", make(hsm.Ref, len(ref)))
	refused("a Ref of random bytes", random(len(ref)))
	refused("the Ref of an AES key", key)
	for i := range ref {
		altered := bytes.Clone(ref)
		altered[i] ^= 1 << (i % 8)
		refused(fmt.Sprintf("a Ref with byte %d changed", i), altered)
	}
	for _, cut := range []int{8, len(ref) / 4, len(ref) / 2, len(ref) - 12} {
		refused(fmt.Sprintf("a Ref put together from two at byte %d", cut), append(bytes.Clone(ref[:len(ref)-cut]), other[len(ref)-cut:]...))
	}
	// Where a Ref has its id, if it has: that of the other kind of key in its place.
	if r := bytes.ReplaceAll(ref, id[:], keyID[:]); !bytes.Equal(r, ref) {
		refused("a Ref with the id of an AES key", r)
	}
	if r := bytes.ReplaceAll(key, keyID[:], id[:]); !bytes.Equal(r, key) {
		_, err := d.Seal(ctx, r, nil, plaintext, aad)
		fails(t, "Seal with the id of a signer", err, hsm.ErrNoKey)
	}

	_, err := d.Seal(ctx, ref, nil, plaintext, aad)
	fails(t, "Seal with the Ref of a signer", err, hsm.ErrNoKey)
	_, err = d.Open(ctx, ref, nil, sealed, aad)
	fails(t, "Open with the Ref of a signer", err, hsm.ErrNoKey)

	// Nor is an id good for both.
	_, err = d.GenerateSigner(ctx, keyID, Label)
	fails(t, "GenerateSigner with the id of an AES key", err, hsm.ErrNoKey)
	_, err = d.Generate(ctx, id, Label)
	fails(t, "Generate with the id of a signer", err, hsm.ErrNoKey)

	d.signs(t, ref, public)
	d.signs(t, other, d.public(t, other))
	d.opens(t, key, sealed, aad, plaintext)
}

func testSignerObjects(t *testing.T, d device) {
	ctx := patient(t)
	id, _ := d.signer(t)
	keyID, _ := d.key(t)
	count := func() map[hsm.ID]int {
		t.Helper()
		objects, err := d.Objects(ctx)
		if err != nil {
			t.Fatal(err)
		}
		n := map[hsm.ID]int{}
		for _, o := range objects {
			if n[o.ID]++; (o.ID == id || o.ID == keyID) && o.Label != Label {
				t.Errorf("Objects has the label %q for a key made with %q", o.Label, Label)
			}
		}
		return n
	}
	if n := count(); n[id] != 1 || n[keyID] != 1 {
		t.Errorf("Objects has a signer %d times and an AES key %d times", n[id], n[keyID])
	}
	if err := d.Destroy(ctx, id); err != nil {
		t.Fatal(err)
	}
	if n := count(); n[id] != 0 || n[keyID] != 1 {
		t.Errorf("Objects has a destroyed signer %d times and an AES key %d times", n[id], n[keyID])
	}
}

func testSignerCancelled(t *testing.T, d device) {
	_, ref := d.signer(t)
	public := d.public(t, ref)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()

	unmade := newID()
	_, err := d.GenerateSigner(ctx, unmade, Label)
	fails(t, "GenerateSigner", err, context.Canceled)
	_, err = d.Sign(ctx, ref, [32]byte{1})
	fails(t, "Sign", err, context.Canceled)
	_, err = d.PublicKey(ctx, ref)
	fails(t, "PublicKey", err, context.Canceled)

	d.signs(t, ref, public)
	if err := d.Destroy(patient(t), unmade); err != nil {
		t.Error(err)
	}
}

// testSignerConcurrent signs with shared signers while others are made and destroyed, and while AES keys are in use.
func testSignerConcurrent(t *testing.T, d device) {
	_, lasting := d.signer(t)
	lastingPublic := d.public(t, lasting)
	_, key := d.key(t)
	plaintext, aad := random(32), []byte("aad")
	sealed := d.seal(t, key, plaintext, aad)

	type entry struct {
		ref    hsm.Ref
		public *ecdsa.PublicKey
	}
	var mu sync.Mutex
	var shared []entry

	const goroutines, rounds = 8, 3
	inParallel(goroutines, func(int) {
		for range rounds {
			ctx := patient(t)
			id := newID()
			ref, err := d.GenerateSigner(ctx, id, Label)
			if err != nil {
				t.Errorf("GenerateSigner: %v", err)
				return
			}
			der, err := d.PublicKey(ctx, ref)
			if err != nil {
				t.Errorf("PublicKey: %v", err)
				return
			}
			parsed, err := x509.ParsePKIXPublicKey(der)
			if err != nil {
				t.Errorf("PublicKey: %v", err)
				return
			}
			mu.Lock()
			shared = append(shared, entry{ref, parsed.(*ecdsa.PublicKey)})
			others := append([]entry{{lasting, lastingPublic}}, shared...)
			mu.Unlock()

			for i, e := range others {
				digest := [32]byte(random(32))
				signature, err := d.Sign(ctx, e.ref, digest)
				if err == nil {
					verifies(t, e.public, digest, signature)
				}
				// The others' signers are there, or have been destroyed meanwhile. One that nobody destroys is there always.
				if err != nil && (i == 0 || !errors.Is(err, hsm.ErrNoKey)) {
					t.Errorf("Sign: %v", err)
				}
				if got, err := d.Open(ctx, key, nil, sealed, aad); err != nil || !bytes.Equal(got, plaintext) {
					t.Errorf("Open: %v", err)
				}
			}
			if again, err := d.GenerateSigner(ctx, id, Label); err != nil || !bytes.Equal(again, ref) {
				// Refs of one key may differ, but then their public keys must not.
				if der2, err2 := d.PublicKey(ctx, again); err != nil || err2 != nil || !bytes.Equal(der, der2) {
					t.Errorf("GenerateSigner again: %v, %v", err, err2)
				}
			}
			if _, err := d.Objects(ctx); err != nil {
				t.Errorf("Objects: %v", err)
			}
			if err := d.Destroy(ctx, id); err != nil {
				t.Errorf("Destroy: %v", err)
			}
			if _, err := d.Sign(ctx, ref, [32]byte{1}); !errors.Is(err, hsm.ErrNoKey) {
				t.Errorf("Sign with a destroyed signer: %v", err)
			}
		}
	})
}
