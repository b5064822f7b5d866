package pkcs11

import (
	"errors"
	"testing"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// holdings returns what a survey shows, by id.
func holdings(t *testing.T, token *Token) map[hsm.ID]hsm.Holding {
	t.Helper()
	list, err := token.Survey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[hsm.ID]hsm.Holding)
	for _, h := range list {
		if _, twice := all[h.ID]; twice {
			t.Errorf("%v is listed twice", h.ID)
		}
		all[h.ID] = h
	}
	return all
}

func TestSurvey(t *testing.T) {
	f := newFake()
	token := f.open(t, Config{})
	id, _ := made(t, token)
	signer := anID()
	if _, err := token.GenerateSigner(t.Context(), signer, "strongroom/test/2"); err != nil {
		t.Fatal(err)
	}
	got := holdings(t, token)
	if len(got) != 3 || !got[canaryID].Canary || got[canaryID].Keys != 1 {
		t.Errorf("the token holds %v", got)
	}
	if h := got[id]; h.Keys != 1 || h.Private+h.Public != 0 || h.Canary || h.Label != "strongroom/test/1" {
		t.Errorf("a key is %+v", h)
	}
	if h := got[signer]; h.Keys != 0 || h.Private != 1 || h.Public != 1 {
		t.Errorf("a signer is %+v", h)
	}
	f.plant(id, func(map[uint][]byte) {})
	if h := holdings(t, token)[id]; h.Keys != 2 {
		t.Errorf("two keys of one id are %+v", h)
	}
}

func TestProve(t *testing.T) {
	for _, copies := range []bool{false, true} {
		f := newFake()
		token := f.open(t, Config{SessionCopies: copies})
		id, ref := made(t, token)
		other, otherRef := made(t, token)
		signer := anID()
		signerRef, err := token.GenerateSigner(t.Context(), signer, "strongroom/test/2")
		if err != nil {
			t.Fatal(err)
		}
		proves := func(what string, id hsm.ID, ref hsm.Ref, want error) {
			t.Helper()
			if err := token.Prove(t.Context(), id, ref); !errors.Is(err, want) || want == nil && err != nil {
				t.Errorf("%s: got %v, want %v", what, err, want)
			}
		}
		before := f.count("C_Encrypt")
		proves("a key", id, ref, nil)
		proves("a key again", id, ref, nil)
		proves("a signer", signer, signerRef, nil)
		if n := f.count("C_Encrypt") - before; n != 0 {
			t.Errorf("%d encryptions for proofs", n)
		}
		proves("the reference of another key", id, otherRef, hsm.ErrNoKey)
		proves("no reference", id, hsm.Ref("none"), hsm.ErrNoKey)

		f.swap(id, other)
		proves("a key whose handle is another one now", id, ref, nil)
		f.exchange(id, other)
		proves("a key in whose place another is", id, ref, hsm.ErrNoKey)
		f.exchange(id, other)
		proves("a key that is back", id, ref, nil)

		f.failing(always("C_Decrypt", p11.CKR_DEVICE_ERROR))
		proves("a key of a device that is broken", id, ref, hsm.ErrUnavailable)
		f.failing(nil)
		proves("a key of a device that is well again", id, ref, nil)

		f.mu.Lock()
		for _, h := range f.handles(other) {
			delete(f.objects, h)
		}
		f.mu.Unlock()
		proves("a key that is gone", other, otherRef, hsm.ErrNoKey)
	}
}

// exchange puts each of two keys in the place of the other, where copies of them stay what they are.
func (f *fake) exchange(a, b hsm.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	one := func(id hsm.ID) *fakeObject {
		for _, h := range f.handles(id) {
			if f.objects[h].attributes[p11.CKA_TOKEN][0] != 0 {
				return f.objects[h]
			}
		}
		return nil
	}
	x, y := one(a), one(b)
	x.aead, y.aead = y.aead, x.aead
}

func TestPromises(t *testing.T) {
	f := newFake()
	token := f.open(t, Config{})
	id, ref := made(t, token)
	lacks, err := token.Promises(t.Context(), ref)
	if err != nil || lacks != "" {
		t.Errorf("a key as it is made lacks %q, %v", lacks, err)
	}
	for _, h := range f.handles(id) {
		f.objects[h].attributes[p11.CKA_EXTRACTABLE] = []byte{1}
		f.objects[h].attributes[p11.CKA_NEVER_EXTRACTABLE] = []byte{0}
	}
	lacks, err = token.Promises(t.Context(), ref)
	if err != nil || lacks != "CKA_EXTRACTABLE, CKA_NEVER_EXTRACTABLE" {
		t.Errorf("a key that may leave the token lacks %q, %v", lacks, err)
	}
}
