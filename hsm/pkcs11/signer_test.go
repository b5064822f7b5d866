package pkcs11

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"errors"
	"maps"
	"math/big"
	"slices"
	"sync/atomic"
	"testing"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// madeSigner makes a signer.
func madeSigner(t *testing.T, token *Token) (hsm.ID, hsm.Ref) {
	t.Helper()
	id := anID()
	ref, err := token.GenerateSigner(t.Context(), id, label)
	if err != nil {
		t.Fatal(err)
	}
	return id, ref
}

// signs sees that ref signs. Sign itself verifies, but here it is verified by another hand.
func signs(t *testing.T, token *Token, ref hsm.Ref) {
	t.Helper()
	digest := [32]byte{1, 2, 3}
	der, err := token.Sign(t.Context(), ref, digest)
	if err != nil {
		t.Errorf("Sign: %v", err)
		return
	}
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), ref[17:])
	if err != nil || !ecdsa.VerifyASN1(public, digest[:], der) {
		t.Errorf("the signature %x does not verify: %v", der, err)
	}
}

// of returns the handles of the objects of a class called id that belong to the token.
func (f *fake) of(class uint, id hsm.ID) (found []p11.ObjectHandle) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range f.handles(id) {
		if o := f.objects[h]; o.session == 0 && string(o.attributes[p11.CKA_CLASS]) == string(ulong(class)) {
			found = append(found, h)
		}
	}
	return found
}

// remove removes them.
func (f *fake) remove(class uint, id hsm.ID) {
	for _, h := range f.of(class, id) {
		f.mu.Lock()
		delete(f.objects, h)
		f.mu.Unlock()
	}
}

// halve makes them as SoftHSM leaves them when it is killed.
func (f *fake) halve(class uint, id hsm.ID) {
	for _, h := range f.of(class, id) {
		f.mu.Lock()
		o := f.objects[h]
		o.signer = nil
		o.attributes[p11.CKA_EC_PARAMS], o.attributes[p11.CKA_EC_POINT] = nil, nil
		f.mu.Unlock()
	}
}

// swapSigners exchanges the handles of the private keys of two signers.
func (f *fake) swapSigners(a, b hsm.ID) {
	ha, hb := f.of(p11.CKO_PRIVATE_KEY, a)[0], f.of(p11.CKO_PRIVATE_KEY, b)[0]
	f.mu.Lock()
	defer f.mu.Unlock()
	f.objects[ha], f.objects[hb] = f.objects[hb], f.objects[ha]
}

func TestSignerHandleNamesAnotherKey(t *testing.T) {
	t.Run("silently", func(t *testing.T) {
		f := newFake()
		token := f.open(t, Config{})
		one, ref := madeSigner(t, token)
		two, other := madeSigner(t, token)
		f.swapSigners(one, two)
		signs(t, token, ref)
		signs(t, token, other)
	})
	t.Run("after a reconnect", func(t *testing.T) {
		f := newFake()
		token := f.open(t, Config{})
		one, ref := madeSigner(t, token)
		two, other := madeSigner(t, token)
		f.swapSigners(one, two)
		f.loseSessions()
		signs(t, token, ref)
		signs(t, token, other)
		f.renumber(1000)
		signs(t, token, ref)
		signs(t, token, other)
	})
	t.Run("for good", func(t *testing.T) {
		f := newFake()
		token := f.open(t, Config{})
		id, ref := madeSigner(t, token)
		h := f.of(p11.CKO_PRIVATE_KEY, id)[0]
		f.mu.Lock()
		f.objects[h].signer, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		f.mu.Unlock()
		_, err := token.Sign(t.Context(), ref, [32]byte{1})
		want(t, err, hsm.ErrNoKey, "another key is in the place of "+id.String())
		_, err = token.PublicKey(t.Context(), ref)
		want(t, err, hsm.ErrNoKey, "another key is in the place of "+id.String())
		_, err = token.GenerateSigner(t.Context(), id, label)
		want(t, err, hsm.ErrNoKey, "the signature is not that of "+id.String())
		if len(f.of(p11.CKO_PRIVATE_KEY, id)) != 1 {
			t.Error("a private key that was there before was destroyed")
		}
	})
}

// A signature that does not verify is not returned, and says nothing about the key if the key can still be proved.
func TestBadSignatures(t *testing.T) {
	f := newFake()
	token := f.open(t, Config{})
	_, ref := madeSigner(t, token)

	f.forge = true
	der, err := token.Sign(t.Context(), ref, [32]byte{1})
	want(t, err, hsm.ErrNoKey, "the signature is not that of")
	if der != nil {
		t.Error("a signature was returned that does not verify")
	}
	unmade := anID()
	_, err = token.GenerateSigner(t.Context(), unmade, label)
	want(t, err, hsm.ErrUnavailable, "the signature is not that of")
	if f.has(unmade) != 0 {
		t.Error("a pair that does not sign was left there")
	}
	f.forge = false
	signs(t, token, ref)

	f.short = 1
	_, err = token.Sign(t.Context(), ref, [32]byte{1})
	want(t, err, hsm.ErrUnavailable, "C_Sign: it wrote 63 bytes, which cannot be right")
	f.short = 0
	signs(t, token, ref)

	// The device signs what it is asked when the key is proved, and not otherwise.
	var n atomic.Int64
	f.failing(func(function string, _ p11.SessionHandle) uint {
		if function == "C_Sign" {
			f.mu.Lock()
			f.forge = n.Add(1)%2 == 1
			f.mu.Unlock()
		}
		return 0
	})
	_, err = token.Sign(t.Context(), ref, [32]byte{1})
	want(t, err, hsm.ErrUnavailable, "using a key that was found and proved a moment ago")
}

func TestSignFaults(t *testing.T) {
	for _, c := range []struct {
		code uint
		once bool // a fault that happens once is not seen
	}{
		{p11.CKR_DEVICE_ERROR, true}, {p11.CKR_GENERAL_ERROR, true}, {p11.CKR_SESSION_HANDLE_INVALID, true},
		{p11.CKR_OBJECT_HANDLE_INVALID, true}, {p11.CKR_KEY_HANDLE_INVALID, true}, {p11.CKR_OPERATION_ACTIVE, true},
		{p11.CKR_CRYPTOKI_NOT_INITIALIZED, false}, {p11.CKR_USER_NOT_LOGGED_IN, false}, {p11.CKR_DEVICE_REMOVED, false},
	} {
		f := newFake()
		token := f.open(t, Config{Sessions: 2})
		id, ref := madeSigner(t, token)
		var n atomic.Int64
		f.failing(func(function string, _ p11.SessionHandle) uint {
			if function == "C_Sign" && n.Add(1) == 1 {
				return c.code
			}
			return 0
		})
		if c.once {
			signs(t, token, ref)
		} else {
			_, err := token.Sign(t.Context(), ref, [32]byte{1})
			want(t, err, hsm.ErrUnavailable, codeName(c.code))
			if n.Load() != 1 {
				t.Errorf("%s: %d calls, want 1", codeName(c.code), n.Load())
			}
		}
		if f.sessionCount() > 3 {
			t.Errorf("%s: %d sessions are open, want 3 at most", codeName(c.code), f.sessionCount())
		}

		// For good it is a fault of the device; but if only this handle is refused, while the canary's works, it is one of the key.
		kind := hsm.ErrUnavailable
		if stale(fault("C_Sign", p11.Error(c.code))) {
			kind = hsm.ErrNoKey
		}
		f.failing(always("C_Sign", c.code))
		_, err := token.Sign(t.Context(), ref, [32]byte{1})
		want(t, err, kind, codeName(c.code))
		_, err = token.GenerateSigner(t.Context(), anID(), label)
		want(t, err, hsm.ErrUnavailable, codeName(c.code))
		f.failing(nil)
		signs(t, token, ref)
		if again, err := token.GenerateSigner(t.Context(), id, label); err != nil || !equal(again, ref) {
			t.Errorf("%s: GenerateSigner: %v", codeName(c.code), err)
		}
	}
}

// What an interrupted GenerateSigner leaves is repaired by the next.
func TestSignerHalfMade(t *testing.T) {
	const private, public = p11.CKO_PRIVATE_KEY, p11.CKO_PUBLIC_KEY
	for _, c := range []struct {
		name  string
		leave func(*fake, hsm.ID)
		same  bool // the private key stays
	}{
		{"whole", func(*fake, hsm.ID) {}, true},
		{"no private key", func(f *fake, id hsm.ID) { f.remove(private, id) }, false},
		{"no public key", func(f *fake, id hsm.ID) { f.remove(public, id) }, true},
		{"half a private key", func(f *fake, id hsm.ID) { f.halve(private, id) }, false},
		{"half a public key", func(f *fake, id hsm.ID) { f.halve(public, id) }, true},
		{"half a public key alone", func(f *fake, id hsm.ID) { f.remove(private, id); f.halve(public, id) }, false},
		{"halves", func(f *fake, id hsm.ID) { f.halve(private, id); f.halve(public, id) }, false},
	} {
		for _, copies := range []bool{false, true} {
			f := newFake()
			first := f.open(t, Config{})
			id, ref := madeSigner(t, first)
			c.leave(f, id)

			token := f.open(t, Config{SessionCopies: copies})
			objects, err := token.Objects(t.Context())
			if err != nil || len(objects) != 1 {
				t.Errorf("%s: Objects: %v, %v", c.name, objects, err)
			}
			again, err := token.GenerateSigner(t.Context(), id, label)
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			if equal(again, ref) != c.same {
				t.Errorf("%s: the same key = %v", c.name, !c.same)
			}
			signs(t, token, again)
			if n, m := len(f.of(private, id)), len(f.of(public, id)); n != 1 || m != 1 {
				t.Errorf("%s: %d private keys and %d public ones", c.name, n, m)
			}
			f.mu.Lock()
			for _, h := range f.handles(id) {
				if b, ok := f.objects[h].attributes[p11.CKA_EC_POINT]; ok && !equal(b, wrapPoint(point(again[17:]))) {
					t.Errorf("%s: the public key is not that of the Ref", c.name)
				}
			}
			f.mu.Unlock()
			if err := token.Destroy(t.Context(), id); err != nil || f.has(id) != 0 {
				t.Errorf("%s: Destroy left %d: %v", c.name, f.has(id), err)
			}
		}
	}
}

// A private key that is not seen because the login or the storage is lost is not missing: nothing is destroyed, and nothing made.
func TestSignerHidden(t *testing.T) {
	f := newFake()
	token := f.open(t, Config{})
	id, ref := madeSigner(t, token)
	f.mu.Lock()
	all := maps.Clone(f.objects)
	maps.DeleteFunc(f.objects, func(_ p11.ObjectHandle, o *fakeObject) bool { // as seen without a login
		return o.attributes[p11.CKA_PRIVATE][0] != 0
	})
	f.mu.Unlock()

	_, err := token.GenerateSigner(t.Context(), id, label)
	want(t, err, hsm.ErrUnavailable, "neither the key nor the canary")
	want(t, token.Destroy(t.Context(), anID()), hsm.ErrUnavailable, "neither the key nor the canary")
	_, err = token.Sign(t.Context(), ref, [32]byte{1})
	want(t, err, hsm.ErrUnavailable, "canary")
	if f.has(id) != 1 || f.count("C_GenerateKeyPair") != 1 {
		t.Errorf("%d objects are left, and %d pairs were made", f.has(id), f.count("C_GenerateKeyPair"))
	}
	f.mu.Lock()
	f.objects = all
	f.mu.Unlock()
	signs(t, token, ref)

	f.loseSessions()
	f.mu.Lock()
	f.loggedIn = false
	f.mu.Unlock()
	_, err = token.GenerateSigner(t.Context(), id, label)
	want(t, err, hsm.ErrUnavailable, "not logged in any more")
	_, err = token.Sign(t.Context(), ref, [32]byte{1})
	want(t, err, hsm.ErrUnavailable, "CKR_USER_NOT_LOGGED_IN (0x101)")
	_, err = token.PublicKey(t.Context(), ref)
	want(t, err, hsm.ErrUnavailable, "CKR_USER_NOT_LOGGED_IN (0x101)")
}

func TestSignerDuplicates(t *testing.T) {
	f := newFake()
	token := f.open(t, Config{})
	id := anID()
	var raced atomic.Bool
	f.failing(func(function string, _ p11.SessionHandle) uint {
		if function == "C_GenerateKeyPair" && raced.CompareAndSwap(false, true) {
			f.generatePair(publicTemplate(id, label), signerTemplate(id, label))
		}
		return 0
	})
	for range 2 {
		_, err := token.GenerateSigner(t.Context(), id, label)
		want(t, err, hsm.ErrNoKey, "the token has 2 objects with the id "+id.String())
	}
	objects, err := token.Objects(t.Context())
	if err != nil || len(objects) != 1 {
		t.Errorf("Objects: %v, %v", objects, err)
	}
	if err := token.Destroy(t.Context(), id); err != nil || f.has(id) != 0 {
		t.Errorf("Destroy left %d: %v", f.has(id), err)
	}
}

func TestSignerPromisesNotKept(t *testing.T) {
	for attribute, value := range map[uint]byte{
		p11.CKA_SENSITIVE:         0,
		p11.CKA_EXTRACTABLE:       1,
		p11.CKA_ALWAYS_SENSITIVE:  0,
		p11.CKA_NEVER_EXTRACTABLE: 0,
		p11.CKA_PRIVATE:           0,
		p11.CKA_SIGN:              0,
		p11.CKA_DERIVE:            1,
		p11.CKA_DECRYPT:           1,
	} {
		name := attributeName(attribute)
		f := newFake()
		token := f.open(t, Config{})
		f.forced[attribute] = []byte{value}
		id := anID()
		_, err := token.GenerateSigner(t.Context(), id, label)
		want(t, err, hsm.ErrUnavailable, "the token does not keep what a key must be: "+name)
		if f.has(id) != 0 {
			t.Errorf("%s: %d objects were left there", name, f.has(id))
		}

		// One that was there before may have signed something, and is not destroyed.
		f.generatePair(publicTemplate(id, label), signerTemplate(id, label))
		_, err = token.GenerateSigner(t.Context(), id, label)
		want(t, err, hsm.ErrNoKey, name)
		if f.has(id) != 2 {
			t.Errorf("%s: of a pair that was there before %d are left", name, f.has(id))
		}
	}
}

func TestSignerTemplates(t *testing.T) {
	for _, unknown := range [][]uint{{p11.CKA_ALLOWED_MECHANISMS}, {p11.CKA_MODIFIABLE, p11.CKA_ALLOWED_MECHANISMS}} {
		f := newFake()
		token := f.open(t, Config{})
		f.unknown = unknown
		_, ref := madeSigner(t, token)
		signs(t, token, ref)
	}
	f := newFake()
	f.rawPoint = true
	token := f.open(t, Config{})
	_, ref := madeSigner(t, token)
	signs(t, token, ref)

	f.failing(always("C_GenerateKeyPair", p11.CKR_MECHANISM_INVALID))
	_, err := token.GenerateSigner(t.Context(), anID(), label)
	want(t, err, hsm.ErrUnavailable, "C_GenerateKeyPair: CKR_MECHANISM_INVALID (0x70): the token does not make key pairs for ECDSA on P-256")
}

func TestSignerNames(t *testing.T) {
	f := newFake()
	token := f.open(t, Config{})
	for _, c := range []struct {
		id    hsm.ID
		label string
	}{{anID(), "mine"}, {anID(), ""}, {anID(), canaryLabel}, {canaryID, label}, {hsm.ID{}, label}} {
		if _, err := token.GenerateSigner(t.Context(), c.id, c.label); err == nil {
			t.Errorf("a signer %v labelled %q was made", c.id, c.label)
		}
	}
	id, ref := madeSigner(t, token)
	canary := slices.Clone(ref)
	copy(canary[1:], canaryID[:])
	_, err := token.Sign(t.Context(), canary, [32]byte{1})
	want(t, err, hsm.ErrNoKey, "canary")
	_, err = token.Sign(t.Context(), token.canary.bytes(), [32]byte{1})
	want(t, err, hsm.ErrNoKey, "a reference to an AES key, which does not sign")
	_, err = token.Seal(t.Context(), ref, nil, []byte("plaintext"), aad)
	want(t, err, hsm.ErrNoKey, "a reference to a signer, which neither seals nor opens")

	// Objects of somebody else's: one in the place of a private key stops everything, one of another class is none of ours.
	h := f.of(p11.CKO_PUBLIC_KEY, id)[0]
	f.mu.Lock()
	a := maps.Clone(f.objects[h].attributes)
	a[p11.CKA_CLASS], a[p11.CKA_LABEL] = ulong(p11.CKO_CERTIFICATE), []byte("audit")
	f.objects[9999] = &fakeObject{attributes: a}
	f.mu.Unlock()
	if again, err := token.GenerateSigner(t.Context(), id, label); err != nil || !equal(again, ref) {
		t.Errorf("with a certificate: %v", err)
	}
	f.mu.Lock()
	f.objects[h].attributes[p11.CKA_LABEL] = []byte("payroll")
	f.mu.Unlock()
	_, err = token.GenerateSigner(t.Context(), id, label)
	want(t, err, hsm.ErrNoKey, `labelled "payroll", which strongroom has not made`)
	want(t, token.Destroy(t.Context(), id), hsm.ErrNoKey, `labelled "payroll", which strongroom has not made`)
	if f.has(id) != 3 {
		t.Errorf("of 3 objects %d are left", f.has(id))
	}
}

// A copy of a private key does not outlive it.
func TestSignerCopies(t *testing.T) {
	f := newFake()
	token := f.open(t, Config{SessionCopies: true})
	id, ref := madeSigner(t, token)
	for range 3 {
		signs(t, token, ref)
	}
	if n := f.count("C_CopyObject"); n != 1 || !f.isCopy(token.keys.get(id).handle) {
		t.Errorf("%d copies were made, and the signer is used through one = %v", n, f.isCopy(token.keys.get(id).handle))
	}
	f.loseSessions()
	signs(t, token, ref)
	if err := token.Destroy(t.Context(), id); err != nil || f.has(id) != 0 {
		t.Errorf("Destroy left %d: %v", f.has(id), err)
	}
	_, err := token.Sign(t.Context(), ref, [32]byte{1})
	want(t, err, hsm.ErrNoKey, id.String())
}

// If Destroy is interrupted, what is left does not sign, is listed, and goes the next time.
func TestSignerDestroyInterrupted(t *testing.T) {
	f := newFake()
	token := f.open(t, Config{})
	id, ref := madeSigner(t, token)
	var n atomic.Int64
	f.failing(func(function string, _ p11.SessionHandle) uint {
		if function == "C_DestroyObject" && n.Add(1) > 1 {
			return p11.CKR_DEVICE_ERROR
		}
		return 0
	})
	want(t, token.Destroy(t.Context(), id), hsm.ErrUnavailable, "C_DestroyObject: CKR_DEVICE_ERROR")
	if len(f.of(p11.CKO_PRIVATE_KEY, id)) != 0 || len(f.of(p11.CKO_PUBLIC_KEY, id)) != 1 {
		t.Error("it was not the private key that went first")
	}
	f.failing(nil)
	_, err := token.Sign(t.Context(), ref, [32]byte{1})
	want(t, err, hsm.ErrNoKey, id.String())
	if objects, err := token.Objects(t.Context()); err != nil || len(objects) != 1 {
		t.Errorf("Objects: %v, %v", objects, err)
	}
	if err := token.Destroy(t.Context(), id); err != nil || f.has(id) != 0 {
		t.Errorf("Destroy left %d: %v", f.has(id), err)
	}
}

// The device is asked for a proof once, and for nothing more by PublicKey.
func TestPublicKeyAsksOnce(t *testing.T) {
	f := newFake()
	_, ref := madeSigner(t, f.open(t, Config{}))
	token := f.open(t, Config{}) // has not proved it
	signed, found := f.count("C_Sign"), f.count("C_FindObjects")
	for range 5 {
		if _, err := token.PublicKey(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
	}
	if s, n := f.count("C_Sign")-signed, f.count("C_FindObjects")-found; s != 1 || n != 0 {
		t.Errorf("%d signatures and %d searches, want 1 and none", s, n)
	}
}

// Signing waits for no administrator, but within its context for a session.
func TestSignDoesNotWait(t *testing.T) {
	f := newFake()
	token := f.open(t, Config{Sessions: 1})
	_, ref := madeSigner(t, token)
	enter, leave := make(chan bool), make(chan bool)
	block := func(function string) {
		f.failing(func(got string, _ p11.SessionHandle) uint {
			if got == function {
				enter <- true
				<-leave
			}
			return 0
		})
	}
	done := make(chan error)
	block("C_GenerateKeyPair")
	go func() {
		_, err := token.GenerateSigner(context.Background(), anID(), label)
		done <- err
	}()
	<-enter
	f.failing(nil)
	signs(t, token, ref)
	leave <- true
	if err := <-done; err != nil {
		t.Error(err)
	}

	block("C_Sign")
	go func() {
		_, err := token.Sign(context.Background(), ref, [32]byte{1})
		done <- err
	}()
	<-enter
	ctx, cancel := context.WithTimeout(t.Context(), 1)
	defer cancel()
	_, err := token.Sign(ctx, ref, [32]byte{1})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting ended with %v", err)
	}
	leave <- true
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestCandidates(t *testing.T) {
	for i := range 200 {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		var digest [32]byte
		rand.Read(digest[:])
		if i == 0 {
			digest = [32]byte(bytes32(0xff)) // beyond the order of the curve
		}
		der, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		var sig signature
		if _, err := asn1.Unmarshal(der, &sig); err != nil {
			t.Fatal(err)
		}
		found, right := candidates(sig, digest), 0
		for _, p := range found {
			public, err := p.key()
			if err != nil || !ecdsa.VerifyASN1(public, digest[:], der) {
				t.Errorf("a candidate that does not verify: %x, %v", p, err)
			} else if public.Equal(&key.PublicKey) {
				right++
			}
		}
		if len(found) != 2 || right != 1 {
			t.Errorf("%d candidates, of which %d are right", len(found), right)
		}
	}
	n := elliptic.P256().Params().N
	one := big.NewInt(1)
	for _, sig := range []signature{
		{new(big.Int), one}, {one, new(big.Int)}, {n, one}, {one, n},
		{big.NewInt(-1), one}, {one, big.NewInt(-1)}, {new(big.Int).Lsh(one, 300), one},
	} {
		if found := candidates(sig, [32]byte{1}); len(found) != 0 {
			t.Errorf("%v: candidates %x", sig, found)
		}
	}
}

func bytes32(b byte) []byte { return slices.Repeat([]byte{b}, 32) }

// The Refs of either kind are what they are for ever.
func TestRefBytes(t *testing.T) {
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), append(make([]byte, 31), 1))
	if err != nil {
		t.Fatal(err)
	}
	g, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	id := bytes32(7)[:16]
	aes := hsm.Ref(slices.Concat([]byte{1}, id, bytes32(1), bytes32(2)[:28]))
	signer := hsm.Ref(slices.Concat([]byte{2}, id, g))
	if r, err := parseRef(aes); err != nil || r.signer() || !equal(r.bytes(), aes) || len(aes) != 77 {
		t.Errorf("%x: %v", aes, err)
	}
	if r, err := parseSigner(signer); err != nil || !r.signer() || !equal(r.bytes(), signer) || len(signer) != 82 {
		t.Errorf("%x: %v", signer, err)
	}
	for i := 17; i < len(signer); i++ { // a changed coordinate is not on the curve
		bad := slices.Clone(signer)
		bad[i] ^= 1
		_, err := parseSigner(bad)
		want(t, err, hsm.ErrNoKey, "no point on P-256")
	}
}

func equal[S ~[]byte, T ~[]byte](a S, b T) bool { return string(a) == string(b) }

// What is taken for a Ref is written again as it was, and is never of both kinds.
func FuzzRef(f *testing.F) {
	f.Add(append([]byte{1}, make([]byte, 76)...))
	f.Add(append([]byte{2}, make([]byte, 81)...))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	g, err := key.PublicKey.Bytes()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(slices.Concat([]byte{2}, make([]byte, 16), g))
	f.Fuzz(func(t *testing.T, b []byte) {
		aes, aesErr := parseRef(b)
		signer, signerErr := parseSigner(b)
		if aesErr == nil && !equal(aes.bytes(), b) || signerErr == nil && !equal(signer.bytes(), b) {
			t.Errorf("%x is written as %x or %x", b, aes.bytes(), signer.bytes())
		}
		if aesErr == nil && signerErr == nil {
			t.Errorf("%x is of both kinds", b)
		}
	})
}
