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

// Refer gives the Ref of a key that is there, and makes and destroys nothing, however little there is of the key.
func TestRefer(t *testing.T) {
	f := newFake()
	f.open(t, Config{})
	attribute := func(types ...uint) func(id hsm.ID) {
		return func(id hsm.ID) {
			f.mu.Lock()
			defer f.mu.Unlock()
			for _, a := range types {
				f.objects[f.handles(id)[0]].attributes[a] = []byte{0}
			}
		}
	}
	for _, c := range []struct {
		name   string
		change func(id hsm.ID)
		kind   error
		text   string
	}{
		{"a key", func(hsm.ID) {}, nil, ""},
		{"half a key", func(id hsm.ID) { f.halveKeys(id) }, hsm.ErrNoKey, "while the canary key does"},
		{"an interrupted key", attribute(p11.CKA_LOCAL, p11.CKA_ALWAYS_SENSITIVE, p11.CKA_NEVER_EXTRACTABLE), hsm.ErrNoKey, "does not keep what a key must be"},
		{"two keys", func(id hsm.ID) { f.plant(id, func(map[uint][]byte) {}) }, hsm.ErrNoKey, "2 objects"},
		{"a broken device", func(hsm.ID) { f.failing(always("C_Encrypt", p11.CKR_DEVICE_ERROR)) }, hsm.ErrUnavailable, "CKR_DEVICE_ERROR"},
		{"a device that forbids", func(hsm.ID) { f.failing(always("C_Encrypt", p11.CKR_MECHANISM_INVALID)) }, hsm.ErrUnavailable, "CKR_MECHANISM_INVALID"},
	} {
		t.Run(c.name, func(t *testing.T) {
			token := f.open(t, Config{}) // one that has not used the key
			id, old := made(t, token)
			token.keys.forget(id, token.keys.get(id))
			box := sealed(t, token, old)
			token.keys.forget(id, token.keys.get(id))
			c.change(id)
			count := func() (int, int, int) { return f.count("C_GenerateKey"), f.count("C_DestroyObject"), len(f.objects) }
			made, destroyed, objects := count()
			ref, err := token.Refer(t.Context(), id)
			if m, d, o := count(); m != made || d != destroyed || o != objects {
				t.Errorf("%d keys were made and %d objects destroyed, and there are %d more", m-made, d-destroyed, o-objects)
			}
			f.failing(nil)
			if c.kind != nil {
				want(t, err, c.kind, c.text)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, err := token.Open(t.Context(), ref, nil, box, aad); err != nil || string(got) != "plaintext" {
				t.Errorf("it opens %q, %v", got, err)
			}
		})
	}
	token := f.open(t, Config{})
	signer, _ := madeSigner(t, token)
	for id, text := range map[hsm.ID]string{signer: "is a signer's", anID(): "holds no such key", canaryID: "the canary"} {
		_, err := token.Refer(t.Context(), id)
		want(t, err, hsm.ErrNoKey, text)
	}
}
