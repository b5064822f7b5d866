package pkcs11

import (
	"errors"
	"testing"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// With SessionCopies a key is used through its copy, which is made once.
func TestCopies(t *testing.T) {
	f := newFake()
	token := f.open(t, Config{SessionCopies: true})
	id, ref := made(t, token)
	b := sealed(t, token, ref)
	for range 10 {
		opens(t, token, ref, b)
	}
	if n := f.count("C_CopyObject"); n != 1 {
		t.Errorf("%d copies were made", n)
	}
	if !f.isCopy(token.keys.get(id).handle) {
		t.Error("the key is not used through its copy")
	}

	// Whatever becomes of the copies, the key works, through another one.
	f.loseSessions()
	opens(t, token, ref, b)
	f.renumber(1000)
	opens(t, token, ref, b)
	two, other := made(t, token)
	f.swapCopies(id, two)
	opens(t, token, ref, b)

	// A copy would outlive its key.
	if err := token.Destroy(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if n := f.copies(id); n != 0 {
		t.Errorf("%d copies are left", n)
	}
	if _, err := token.Open(t.Context(), ref, nil, b, aad); !errors.Is(err, hsm.ErrNoKey) {
		t.Errorf("after its destruction: %v", err)
	}
	opens(t, token, other, sealed(t, token, other))
}

// Destroying a key must not destroy what its copy's handle has come to name.
func TestDestroyLooksAtTheCopy(t *testing.T) {
	f := newFake()
	token := f.open(t, Config{SessionCopies: true})
	id, _ := made(t, token)
	two, other := made(t, token)
	b := sealed(t, token, other)
	f.swapCopies(id, two)
	if err := token.Destroy(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if n := f.copies(two); n != 1 {
		t.Errorf("%d copies of the other key are left", n)
	}
	if n := f.has(two); n != 2 {
		t.Errorf("the other key has %d objects, want itself and its copy", n)
	}
	opens(t, token, other, b)
}

// A token that does not copy is used without.
func TestCopyRefused(t *testing.T) {
	for _, code := range []uint{p11.CKR_FUNCTION_NOT_SUPPORTED, p11.CKR_ATTRIBUTE_READ_ONLY, p11.CKR_DEVICE_MEMORY, p11.CKR_SESSION_HANDLE_INVALID} {
		f := newFake()
		token := f.open(t, Config{SessionCopies: true})
		f.failing(func(function string, _ p11.SessionHandle) uint {
			if function == "C_CopyObject" {
				return code
			}
			return 0
		})
		id, ref := made(t, token)
		opens(t, token, ref, sealed(t, token, ref))
		if f.isCopy(token.keys.get(id).handle) {
			t.Errorf("%#x: the key is not used as it is", code)
		}
		if err := token.Destroy(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

// copies returns how many copies of the key there are.
func (f *fake) copies(id hsm.ID) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range f.handles(id) {
		if f.objects[h].session != 0 {
			n++
		}
	}
	return n
}

func (f *fake) isCopy(h p11.ObjectHandle) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.objects[h].session != 0
}

// swapCopies exchanges the handles of the copies of two keys.
func (f *fake) swapCopies(a, b hsm.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	one := func(id hsm.ID) p11.ObjectHandle {
		for _, h := range f.handles(id) {
			if f.objects[h].session != 0 {
				return h
			}
		}
		panic("there is no copy")
	}
	ha, hb := one(a), one(b)
	f.objects[ha], f.objects[hb] = f.objects[hb], f.objects[ha]
}
