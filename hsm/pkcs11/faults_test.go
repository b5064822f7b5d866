package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// want sees that err is of the kind, of no other, and says what is expected.
func want(t *testing.T, err, kind error, text string) {
	t.Helper()
	for _, k := range []error{hsm.ErrUnavailable, hsm.ErrNoKey, hsm.ErrRejected} {
		if errors.Is(err, k) != (k == kind) {
			t.Errorf("error %q: is %q = %v", err, k, errors.Is(err, k))
		}
	}
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("error %q does not say %q", err, text)
	}
}

func TestHandleNamesAnotherKey(t *testing.T) {
	t.Run("after a reconnect", func(t *testing.T) {
		f := newFake()
		token := f.open(t, Config{Sessions: 4})
		one, ref := made(t, token)
		two, other := made(t, token)
		before := sealed(t, token, ref)

		f.swap(one, two)
		f.loseSessions()
		after := sealed(t, token, ref)

		f.swap(one, two)
		f.loseSessions()
		opens(t, token, ref, before)
		opens(t, token, ref, after) // or else it was sealed under the other
		if _, err := token.Open(t.Context(), other, nil, after, aad); !errors.Is(err, hsm.ErrRejected) {
			t.Errorf("the other key: %v", err)
		}
	})
	t.Run("silently", func(t *testing.T) {
		f := newFake()
		token := f.open(t, Config{})
		one, ref := made(t, token)
		two, _ := made(t, token)
		b := sealed(t, token, ref)
		f.swap(one, two)
		opens(t, token, ref, b)
		_, err := token.Open(t.Context(), ref, nil, corrupt(b), aad)
		want(t, err, hsm.ErrRejected, "")
	})
	t.Run("for good", func(t *testing.T) {
		f := newFake()
		token := f.open(t, Config{})
		one, ref := made(t, token)
		b := sealed(t, token, ref)
		f.mu.Lock()
		h := f.handles(one)[0]
		f.mu.Unlock()
		f.plant(one, func(map[uint][]byte) {})
		f.mu.Lock()
		delete(f.objects, h)
		f.mu.Unlock()
		_, err := token.Open(t.Context(), ref, nil, b, aad)
		want(t, err, hsm.ErrNoKey, "another key is in the place of "+one.String())
		_, err = token.Seal(t.Context(), ref, nil, b, aad)
		want(t, err, hsm.ErrNoKey, "another key is in the place of "+one.String())
		if n := f.count("C_CloseSession"); n > 1 { // that which used the old handle
			t.Errorf("%d sessions were thrown away", n)
		}
	})
}

// Handles are exchanged by a reconnect that no call has noticed when a session is opened, or that a session seems to survive, since the token
// has given its number to a new one.
func TestReconnectUnnoticed(t *testing.T) {
	for _, reuse := range []bool{false, true} {
		for n := range 6 { // sessions that have to be opened anew
			f := newFake()
			f.reuse = reuse
			token := f.open(t, Config{Sessions: 5})
			one, ref := made(t, token)
			two, _ := made(t, token)
			failures := n
			f.failing(func(function string, _ p11.SessionHandle) uint {
				if function == "C_Encrypt" && failures > 0 {
					failures--
					return p11.CKR_DEVICE_MEMORY
				}
				return 0
			})
			for failures > 0 {
				token.Seal(t.Context(), ref, nil, []byte("plaintext"), aad)
			}
			f.failing(nil)
			f.swap(one, two)
			f.loseSessions()
			var all [][]byte
			for range 20 {
				all = append(all, sealed(t, token, ref))
			}
			f.swap(one, two)
			f.loseSessions()
			for _, b := range all {
				opens(t, token, ref, b) // or else it was sealed under the other
			}
		}
	}
}

func TestStaleHandle(t *testing.T) {
	f := newFake()
	token := f.open(t, Config{})
	_, ref := made(t, token)
	b := sealed(t, token, ref)

	f.renumber(1000)
	found := f.count("C_FindObjects")
	opens(t, token, ref, b)
	opens(t, token, ref, b)
	sealed(t, token, ref)
	if n := f.count("C_FindObjects") - found; n != 1 {
		t.Errorf("%d finds for a stale handle, want 1", n)
	}
	if err := token.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSessionsLost(t *testing.T) {
	const n = 4
	f := newFake()
	token := f.open(t, Config{Sessions: n})
	id, ref := made(t, token)
	b := sealed(t, token, ref)
	for range 3 {
		f.loseSessions()
		var wg sync.WaitGroup
		for range 4 * n {
			wg.Go(func() {
				opens(t, token, ref, b)
				sealed(t, token, ref)
			})
		}
		wg.Wait()
		f.loseSessions()
		if _, err := token.Generate(t.Context(), anID(), label); err != nil {
			t.Error(err)
		}
		f.loseSessions()
		if _, err := token.Objects(t.Context()); err != nil {
			t.Error(err)
		}
	}
	f.loseSessions()
	if err := token.Destroy(t.Context(), id); err != nil {
		t.Error(err)
	}
	if got := f.sessionCount(); got > n+1 {
		t.Errorf("%d sessions are open, want %d at most", got, n+1)
	}
}

// While the token gives no session, all fails; afterwards the pool is whole.
func TestSessionsNotToBeHad(t *testing.T) {
	const n = 4
	f := newFake()
	token := f.open(t, Config{Sessions: n})
	_, ref := made(t, token)
	b := sealed(t, token, ref)

	f.loseSessions()
	f.failing(always("C_OpenSession", p11.CKR_SESSION_COUNT))
	for range 3 * n {
		_, err := token.Open(t.Context(), ref, nil, b, aad)
		want(t, err, hsm.ErrUnavailable, "CKR_SESSION_COUNT (0xB1): the token gives no more sessions")
	}
	f.failing(nil)
	opens(t, token, ref, b)
	if got := len(token.data.idle); got != n {
		t.Errorf("%d places in the pool, want %d", got, n)
	}
	busy(t, f, token, ref, n)
}

// busy sees that n operations, and no more, are in the module at a time.
func busy(t *testing.T, f *fake, token *Token, ref hsm.Ref, n int) {
	t.Helper()
	enter, leave := make(chan bool), make(chan bool)
	f.failing(func(function string, _ p11.SessionHandle) uint {
		if function == "C_Encrypt" {
			enter <- true
			<-leave
		}
		return 0
	})
	defer f.failing(nil)
	var wg sync.WaitGroup
	for range 3 * n {
		wg.Go(func() { sealed(t, token, ref) })
	}
	for range n {
		<-enter
	}
	select {
	case <-enter:
		t.Errorf("more than %d operations are in the module", n)
	case <-time.After(50 * time.Millisecond):
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := token.Seal(ctx, ref, nil, []byte("plaintext"), aad)
	want(t, err, hsm.ErrUnavailable, "no session became free")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting ended with %v", err)
	}
	for i := range 3 * n {
		leave <- true
		if i < 2*n {
			<-enter
		}
	}
	wg.Wait()
}

func TestPoolBound(t *testing.T) {
	f := newFake()
	token := f.open(t, Config{Sessions: 3})
	_, ref := made(t, token)
	busy(t, f, token, ref, 3)
}

func TestSessionLimit(t *testing.T) {
	for _, c := range []struct{ want, limit, got int }{
		{0, 0, defaultSessions}, {3, 0, 3}, {3, 100, 3}, {0, 8, 7}, {100, 10, 9},
	} {
		f := newFake()
		f.limit = uint(c.limit)
		token := f.open(t, Config{Sessions: c.want})
		if got := cap(token.data.idle); got != c.got {
			t.Errorf("%d sessions wanted, %d to be had: got %d, want %d", c.want, c.limit, got, c.got)
		}
	}
}

// Sealing and opening wait for no administrator.
func TestDataDoesNotWait(t *testing.T) {
	f := newFake()
	token := f.open(t, Config{})
	_, ref := made(t, token)
	b := sealed(t, token, ref)

	enter, leave := make(chan bool), make(chan bool)
	f.failing(func(function string, _ p11.SessionHandle) uint {
		if function == "C_GenerateKey" {
			enter <- true
			<-leave
		}
		return 0
	})
	done := make(chan error)
	go func() {
		_, err := token.Generate(context.Background(), anID(), label)
		done <- err
	}()
	<-enter
	opens(t, token, ref, b)
	_, err := token.Open(t.Context(), ref, nil, corrupt(b), aad)
	want(t, err, hsm.ErrRejected, "")
	if err := token.Check(t.Context()); err != nil {
		t.Error(err)
	}
	leave <- true
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestBadCiphertext(t *testing.T) {
	for _, code := range []uint{0x5, 0x6, 0x7, 0x20, 0x21, 0x40, 0x41, 0x42, 0xC0, 0x80000042} {
		for _, stuck := range []bool{false, true} {
			t.Run(fmt.Sprintf("%#x, stuck=%v", code, stuck), func(t *testing.T) {
				f := newFake()
				f.badTag, f.stuckOnBad = code, stuck
				token := f.open(t, Config{Sessions: 2})
				_, ref := made(t, token)
				b := sealed(t, token, ref)
				opened := f.count("C_OpenSession")
				for range 10 {
					_, err := token.Open(t.Context(), ref, nil, corrupt(b), aad)
					want(t, err, hsm.ErrRejected, "C_Decrypt")
					opens(t, token, ref, b)
				}
				if n := f.count("C_OpenSession") - opened; n != 0 && !stuck {
					t.Errorf("10 bad ciphertexts cost %d sessions", n)
				}
				var wg sync.WaitGroup
				for range 8 {
					wg.Go(func() {
						for range 20 {
							_, err := token.Open(t.Context(), ref, nil, corrupt(b), aad)
							want(t, err, hsm.ErrRejected, "C_Decrypt")
						}
					})
				}
				wg.Wait()
				if n := f.sessionCount(); n > 3 {
					t.Errorf("%d sessions are open, want 3 at most", n)
				}
			})
		}
	}
}

func TestDecryptFaults(t *testing.T) {
	for _, c := range []struct {
		name  string
		times int64 // that C_Decrypt fails with CKR_GENERAL_ERROR
		ok    bool
	}{
		{"once", 1, true},
		{"with the check value", 2, true},
		{"and on the next session", 3, true},
		{"and with the canary", 4, true},
		{"and with the canary found anew", 5, false},
		{"always", 1 << 60, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake()
			token := f.open(t, Config{})
			_, ref := made(t, token)
			b := sealed(t, token, ref)
			var n atomic.Int64
			f.failing(func(function string, _ p11.SessionHandle) uint {
				if function == "C_Decrypt" && n.Add(1) <= c.times {
					return p11.CKR_GENERAL_ERROR
				}
				return 0
			})
			got, err := token.Open(t.Context(), ref, nil, b, aad)
			if c.ok && (err != nil || string(got) != "plaintext") {
				t.Errorf("Open: %v", err)
			}
			if !c.ok {
				want(t, err, hsm.ErrUnavailable, "decrypting with the canary key: hsm unavailable: C_Decrypt: CKR_GENERAL_ERROR (0x5)")
			}
			if c.times > 100 {
				want(t, token.Check(t.Context()), hsm.ErrUnavailable, "canary")
			}
			f.failing(nil)
			opens(t, token, ref, b)
		})
	}
}

// A device that says that it is broken is believed, whatever else works.
func TestDeviceFaultIsNotARejection(t *testing.T) {
	for _, code := range []uint{p11.CKR_DEVICE_ERROR, p11.CKR_DEVICE_MEMORY, p11.CKR_HOST_MEMORY, p11.CKR_DEVICE_REMOVED, p11.CKR_CRYPTOKI_NOT_INITIALIZED} {
		f := newFake()
		token := f.open(t, Config{})
		_, ref := made(t, token)
		b := sealed(t, token, ref)
		f.failing(always("C_Decrypt", code))
		_, err := token.Open(t.Context(), ref, nil, b, aad)
		want(t, err, hsm.ErrUnavailable, codeName(code))
		_, err = token.Open(t.Context(), ref, nil, corrupt(b), aad)
		want(t, err, hsm.ErrUnavailable, codeName(code))
		f.failing(always("C_Encrypt", code))
		_, err = token.Seal(t.Context(), ref, nil, []byte("plaintext"), aad)
		want(t, err, hsm.ErrUnavailable, codeName(code))
		f.failing(nil)
		opens(t, token, ref, b)
	}
}

// After a hopeless error nothing is tried a second time: the call may have hung for minutes.
func TestHopeless(t *testing.T) {
	f := newFake()
	token := f.open(t, Config{})
	_, ref := made(t, token)
	f.failing(always("C_Encrypt", p11.CKR_CRYPTOKI_NOT_INITIALIZED))
	before := f.count("C_Encrypt")
	_, err := token.Seal(t.Context(), ref, nil, []byte("plaintext"), aad)
	want(t, err, hsm.ErrUnavailable, "has shut itself down")
	if n := f.count("C_Encrypt") - before; n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
}

func TestLoginLost(t *testing.T) {
	f := newFake()
	token := f.open(t, Config{})
	id, ref := made(t, token)
	b := sealed(t, token, ref)

	f.loseSessions()
	f.mu.Lock()
	f.loggedIn = false
	f.mu.Unlock()
	_, err := token.Open(t.Context(), ref, nil, b, aad)
	want(t, err, hsm.ErrUnavailable, "CKR_USER_NOT_LOGGED_IN (0x101)")
	want(t, token.Destroy(t.Context(), id), hsm.ErrUnavailable, "not logged in any more")
	_, err = token.Generate(t.Context(), id, label)
	want(t, err, hsm.ErrUnavailable, "not logged in any more")
	_, err = token.Objects(t.Context())
	want(t, err, hsm.ErrUnavailable, "not logged in any more")
	if f.count("C_Login") != 1 {
		t.Error("it logged in again")
	}
}

// A find that misses the canary is not believed.
func TestEmptyFind(t *testing.T) {
	f := newFake()
	token := f.open(t, Config{})
	id, ref := made(t, token)
	b := sealed(t, token, ref)
	f.mu.Lock()
	objects := f.objects
	f.objects = map[p11.ObjectHandle]*fakeObject{}
	f.mu.Unlock()

	_, err := token.Open(t.Context(), ref, nil, b, aad)
	want(t, err, hsm.ErrUnavailable, "canary")
	want(t, token.Destroy(t.Context(), id), hsm.ErrUnavailable, "neither the key nor the canary")
	_, err = token.Generate(t.Context(), anID(), label)
	want(t, err, hsm.ErrUnavailable, "neither the key nor the canary")
	_, err = token.Objects(t.Context())
	want(t, err, hsm.ErrUnavailable, "neither the key nor the canary")
	want(t, token.Check(t.Context()), hsm.ErrUnavailable, "canary")
	if n := f.count("C_GenerateKey"); n != 2 {
		t.Errorf("%d keys were made, want the canary and one", n)
	}

	f.mu.Lock()
	f.objects = objects
	f.mu.Unlock()
	opens(t, token, ref, b)
}

func TestDuplicates(t *testing.T) {
	f := newFake()
	token := f.open(t, Config{})
	id, ref := made(t, token)
	b := sealed(t, token, ref)
	f.plant(id, func(map[uint][]byte) {})

	_, err := token.Generate(t.Context(), id, label)
	want(t, err, hsm.ErrNoKey, "the token has 2 objects with the id "+id.String())
	again := f.open(t, Config{}) // knows no handle
	opens(t, again, ref, b)      // the check value says which of the two it is
	f.mu.Lock()
	for _, h := range f.handles(id) {
		f.objects[h].aead = f.objects[again.keys.get(id).handle].aead
	}
	f.mu.Unlock()
	_, err = f.open(t, Config{}).Open(t.Context(), ref, nil, b, aad)
	want(t, err, hsm.ErrNoKey, "the token has 2 objects")
	if err := again.Destroy(t.Context(), id); err != nil {
		t.Error(err)
	}
	if n := f.has(id); n != 0 {
		t.Errorf("%d of the two are left", n)
	}
	_, err = token.Open(t.Context(), ref, nil, b, aad)
	want(t, err, hsm.ErrNoKey, id.String())
}

// Two processes may make the same key at the same time. Then there are two, neither is used, and Destroy removes both.
func TestGenerateRace(t *testing.T) {
	f := newFake()
	token := f.open(t, Config{})
	id := anID()
	var raced atomic.Bool
	f.failing(func(function string, _ p11.SessionHandle) uint {
		if function == "C_GenerateKey" && raced.CompareAndSwap(false, true) {
			f.generate(keyTemplate(id, label))
		}
		return 0
	})
	_, err := token.Generate(t.Context(), id, label)
	want(t, err, hsm.ErrNoKey, "2 objects")
	if err := token.Destroy(t.Context(), id); err != nil || f.has(id) != 0 {
		t.Errorf("Destroy left %d: %v", f.has(id), err)
	}
}

// halveKeys makes the AES keys called id as SoftHSM leaves them when it is killed.
func (f *fake) halveKeys(id hsm.ID) {
	for _, h := range f.of(p11.CKO_SECRET_KEY, id) {
		f.mu.Lock()
		o := f.objects[h]
		o.aead, o.attributes[p11.CKA_LOCAL] = nil, []byte{0}
		f.mu.Unlock()
	}
}

// What an interrupted Generate leaves is destroyed by the next, and what works stays.
func TestKeyHalfMade(t *testing.T) {
	for _, c := range []struct {
		name          string
		halves, whole int
		kept          bool // the key that was made first
	}{
		{"whole", 0, 1, true},
		{"half", 1, 0, false},
		{"two halves", 2, 0, false},
		{"a half beside a whole one", 1, 1, true},
	} {
		for i := range 4 {
			copies, stuck := i&1 != 0, i&2 != 0
			f := newFake()
			f.stuckOnBad = stuck
			id, ref := made(t, f.open(t, Config{}))
			before := sealed(t, f.open(t, Config{}), ref)
			h := f.of(p11.CKO_SECRET_KEY, id)[0]
			whole := f.objects[h]
			if c.whole == 0 {
				delete(f.objects, h)
			}
			for range c.halves {
				a := maps.Clone(whole.attributes)
				a[p11.CKA_LOCAL] = []byte{0}
				f.last++
				f.objects[p11.ObjectHandle(f.last)] = &fakeObject{attributes: a}
			}

			token := f.open(t, Config{SessionCopies: copies})
			if objects, err := token.Objects(t.Context()); err != nil || len(objects) != 1 {
				t.Errorf("%s: Objects: %v, %v", c.name, objects, err)
			}
			again, err := token.Generate(t.Context(), id, label)
			if err != nil {
				t.Errorf("%s, copies=%v, stuck=%v: %v", c.name, copies, stuck, err)
				continue
			}
			opens(t, token, again, sealed(t, token, again))
			if _, err := token.Open(t.Context(), again, nil, before, aad); (err == nil) != c.kept {
				t.Errorf("%s: the key was kept = %v: %v", c.name, !c.kept, err)
			}
			if n := len(f.of(p11.CKO_SECRET_KEY, id)); n != 1 {
				t.Errorf("%s: %d objects are left", c.name, n)
			}
			if err := token.Destroy(t.Context(), id); err != nil || f.has(id) != 0 {
				t.Errorf("%s: Destroy left %d: %v", c.name, f.has(id), err)
			}
		}
	}
}

// Nothing is destroyed while it is in doubt that the token is well. When it is, the key is made.
func TestKeyHalfMadeTokenIll(t *testing.T) {
	for _, c := range []struct {
		name string
		fail func(f *fake, function string) uint
		text string
	}{
		{"nothing can be encrypted", only("C_Encrypt", p11.CKR_MECHANISM_INVALID), "CKR_MECHANISM_INVALID"},
		{"nothing can be decrypted", only("C_Decrypt", p11.CKR_GENERAL_ERROR), "canary"},
		{"the device is broken", only("C_Encrypt", p11.CKR_DEVICE_ERROR), "CKR_DEVICE_ERROR"},
		{"there is no other session", only("C_OpenSession", p11.CKR_SESSION_COUNT), "CKR_SESSION_COUNT"},
		{"nothing can be destroyed", only("C_DestroyObject", p11.CKR_DEVICE_ERROR), "CKR_DEVICE_ERROR"},
		{"the login is lost", func(f *fake, function string) uint {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.loggedIn = f.loggedIn && function != "C_OpenSession"
			return 0
		}, "not logged in any more"},
		{"the handles change", func(f *fake, function string) uint {
			if function == "C_OpenSession" {
				f.renumber(1000)
			}
			return 0
		}, "CKR_OBJECT_HANDLE_INVALID"},
	} {
		f := newFake()
		token := f.open(t, Config{})
		id, _ := made(t, token)
		f.halveKeys(id)
		f.failing(func(function string, _ p11.SessionHandle) uint { return c.fail(f, function) })
		_, err := token.Generate(t.Context(), id, label)
		want(t, err, hsm.ErrUnavailable, c.text)
		if f.has(id) != 1 || f.count("C_GenerateKey") != 2 {
			t.Errorf("%s: %d objects are left, and %d keys were made", c.name, f.has(id), f.count("C_GenerateKey"))
		}

		f.failing(nil)
		f.loggedIn = true
		ref, err := token.Generate(t.Context(), id, label)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		opens(t, token, ref, sealed(t, token, ref))
	}
}

func only(function string, code uint) func(*fake, string) uint {
	return func(_ *fake, f string) uint { return always(function, code)(f, 0) }
}

// Nor are keys destroyed that do not work, but need not be half made.
func TestKeyThatDoesNotWork(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(f *fake, token *Token, key map[uint][]byte)
		text   string
	}{
		{"the token has made it", func(_ *fake, _ *Token, key map[uint][]byte) { key[p11.CKA_LOCAL] = []byte{1} }, "CKR_MECHANISM_INVALID"},
		{"the token does not say", func(_ *fake, _ *Token, key map[uint][]byte) { delete(key, p11.CKA_LOCAL) }, "CKR_MECHANISM_INVALID"},
		{"it is forbidden", func(f *fake, _ *Token, _ map[uint][]byte) { f.noValue = p11.CKR_KEY_FUNCTION_NOT_PERMITTED }, "CKR_KEY_FUNCTION_NOT_PERMITTED"},
		{"there is no canary", func(f *fake, _ *Token, _ map[uint][]byte) { f.remove(p11.CKO_SECRET_KEY, canaryID) }, "neither the key nor the canary"},
		{"there are two canaries", func(f *fake, _ *Token, _ map[uint][]byte) { f.plant(canaryID, func(map[uint][]byte) {}) }, "2 canary keys"},
		{"it is another canary", func(_ *fake, token *Token, _ map[uint][]byte) { token.canary.check[hsm.IVSize] ^= 1 }, "decrypting with the canary key"},
	} {
		f := newFake()
		token := f.open(t, Config{})
		id, _ := made(t, token)
		f.halveKeys(id)
		c.change(f, token, f.objects[f.of(p11.CKO_SECRET_KEY, id)[0]].attributes)
		for range 2 {
			_, err := token.Generate(t.Context(), id, label)
			want(t, err, hsm.ErrUnavailable, c.text)
		}
		if f.has(id) != 1 || f.count("C_DestroyObject") != 0 {
			t.Errorf("%s: the key was destroyed", c.name)
		}
	}

	// A key that was brought from elsewhere, and fails in passing.
	for _, function := range []string{"C_Encrypt", "C_Decrypt"} {
		f := newFake()
		token := f.open(t, Config{})
		id, ref := made(t, token)
		b := sealed(t, token, ref)
		f.objects[f.of(p11.CKO_SECRET_KEY, id)[0]].attributes[p11.CKA_LOCAL] = []byte{0}
		var n atomic.Int64
		f.failing(func(got string, _ p11.SessionHandle) uint {
			if got == function && n.Add(1) == 1 {
				return p11.CKR_GENERAL_ERROR
			}
			return 0
		})
		again, err := token.Generate(t.Context(), id, label)
		if err != nil {
			t.Errorf("%s: %v", function, err)
			continue
		}
		opens(t, token, again, b)
	}
}

func TestForeignObject(t *testing.T) {
	f := newFake()
	token := f.open(t, Config{})
	id, _ := made(t, token)
	other := anID()
	f.plant(id, func(a map[uint][]byte) {
		a[p11.CKA_ID], a[p11.CKA_LABEL] = other[:], []byte("payroll")
	})
	want(t, token.Destroy(t.Context(), other), hsm.ErrNoKey, `labelled "payroll", which strongroom has not made`)
	_, err := token.Generate(t.Context(), other, label)
	want(t, err, hsm.ErrNoKey, `labelled "payroll"`)
	objects, err := token.Objects(t.Context())
	if err != nil || len(objects) != 1 || objects[0] != (hsm.Object{ID: id, Label: label}) {
		t.Errorf("Objects: %v, %v", objects, err)
	}
	if f.has(other) != 1 {
		t.Error("the foreign object is gone")
	}
}

func TestPromisesNotKept(t *testing.T) {
	for attribute, value := range map[uint]byte{
		p11.CKA_SENSITIVE:         0,
		p11.CKA_EXTRACTABLE:       1,
		p11.CKA_ALWAYS_SENSITIVE:  0,
		p11.CKA_NEVER_EXTRACTABLE: 0,
		p11.CKA_PRIVATE:           0,
		p11.CKA_WRAP:              1,
	} {
		name := attributeName(attribute)
		f := newFake()
		token := f.open(t, Config{})
		f.forced[attribute] = []byte{value}
		id := anID()
		_, err := token.Generate(t.Context(), id, label)
		want(t, err, hsm.ErrUnavailable, "the token does not keep what a key must be: "+name)
		if f.has(id) != 0 {
			t.Errorf("%s: the key was left there", name)
		}

		// One that was there before may have sealed something, and is not destroyed.
		f.generate(keyTemplate(id, label))
		_, err = token.Generate(t.Context(), id, label)
		want(t, err, hsm.ErrNoKey, name)
		if f.has(id) != 1 {
			t.Errorf("%s: a key that was there before was destroyed", name)
		}
	}
}

func TestShorterTemplates(t *testing.T) {
	for _, unknown := range [][]uint{{p11.CKA_ALLOWED_MECHANISMS}, {p11.CKA_MODIFIABLE}, {p11.CKA_MODIFIABLE, p11.CKA_ALLOWED_MECHANISMS}} {
		f := newFake()
		f.unknown = unknown
		token := f.open(t, Config{})
		made(t, token)
	}
	f := newFake()
	token := f.open(t, Config{})
	f.unknown = []uint{p11.CKA_EXTRACTABLE}
	_, err := token.Generate(t.Context(), anID(), label)
	want(t, err, hsm.ErrUnavailable, "C_GenerateKey: CKR_ATTRIBUTE_TYPE_INVALID (0x12): the token refuses a key with the attributes")
}

func TestGenerateRefusesNames(t *testing.T) {
	token := newFake().open(t, Config{})
	for _, c := range []struct {
		id    hsm.ID
		label string
	}{{anID(), "mine"}, {anID(), ""}, {anID(), canaryLabel}, {canaryID, label}, {hsm.ID{}, label}} {
		if _, err := token.Generate(t.Context(), c.id, c.label); err == nil {
			t.Errorf("a key %v labelled %q was made", c.id, c.label)
		}
	}
	if err := token.Destroy(t.Context(), canaryID); err == nil {
		t.Error("the canary was destroyed")
	}
	_, err := token.Seal(t.Context(), token.canary.bytes(), nil, []byte("plaintext"), aad)
	want(t, err, hsm.ErrNoKey, "canary")
}

// Close waits for a call that does not end, but not for ever, and does not pull the module away under it.
func TestCloseWithCallInside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		token := f.open(t, Config{})
		_, ref := made(t, token)
		leave := make(chan bool)
		f.failing(func(function string, _ p11.SessionHandle) uint {
			if function == "C_Encrypt" {
				<-leave
			}
			return 0
		})
		done := make(chan bool)
		go func() {
			token.Seal(context.Background(), ref, nil, []byte("plaintext"), aad)
			close(done)
		}()
		synctest.Wait()
		begun := time.Now()
		want(t, token.Close(), hsm.ErrUnavailable, "does not end")
		if took := time.Since(begun); took != closeTimeout {
			t.Errorf("Close took %v, want %v", took, closeTimeout)
		}
		want(t, token.Close(), hsm.ErrUnavailable, "does not end")
		close(leave)
		<-done
		_, err := token.Seal(t.Context(), ref, nil, []byte("plaintext"), aad)
		want(t, err, hsm.ErrUnavailable, "the token was closed")
		want(t, token.Check(t.Context()), hsm.ErrUnavailable, "the token was closed")
	})
}

func TestRandomFaultShowsInCheck(t *testing.T) {
	f := newFake()
	token := f.open(t, Config{})
	f.failing(always("C_GenerateRandom", p11.CKR_SESSION_HANDLE_INVALID))
	want(t, token.Random(t.Context(), make([]byte, 16)), hsm.ErrUnavailable, "C_GenerateRandom: CKR_SESSION_HANDLE_INVALID (0xB3)")
	want(t, token.Check(t.Context()), hsm.ErrUnavailable, "C_GenerateRandom")
}

// A fault that passes, wherever it strikes, is not seen by the caller.
func TestPassingFault(t *testing.T) {
	for _, function := range []string{"C_Encrypt", "C_Decrypt", "C_FindObjects"} {
		f := newFake()
		token := f.open(t, Config{})
		id, ref := made(t, token)
		token.keys.forget(id, token.keys.get(id))
		var once atomic.Bool
		f.failing(func(got string, _ p11.SessionHandle) uint {
			if got == function && once.CompareAndSwap(false, true) {
				return p11.CKR_DEVICE_ERROR
			}
			return 0
		})
		opens(t, token, ref, sealed(t, token, ref))
		if !once.Load() {
			t.Errorf("%s was not called", function)
		}
	}
}

// A key is not said to be missing because the device fails when it is looked for.
func TestFaultIsNotAMissingKey(t *testing.T) {
	f := newFake()
	token := f.open(t, Config{})
	id, ref := made(t, token)
	b := sealed(t, token, ref)
	token.keys.forget(id, token.keys.get(id))
	f.failing(always("C_Decrypt", p11.CKR_GENERAL_ERROR))
	_, err := token.Open(t.Context(), ref, nil, b, aad)
	want(t, err, hsm.ErrUnavailable, "canary")
	_, err = token.Seal(t.Context(), ref, nil, b, aad)
	want(t, err, hsm.ErrUnavailable, "canary")

	// Nor because its handle is refused when it was found and proved a moment ago.
	f.failing(always("C_Encrypt", p11.CKR_OBJECT_HANDLE_INVALID))
	_, err = token.Seal(t.Context(), ref, nil, b, aad)
	want(t, err, hsm.ErrUnavailable, "C_Encrypt: CKR_OBJECT_HANDLE_INVALID (0x82)")

	f.failing(nil)
	opens(t, token, ref, b)
}

func TestWrongLengths(t *testing.T) {
	f := newFake()
	token := f.open(t, Config{})
	_, ref := made(t, token)
	b := sealed(t, token, ref)
	f.short = 1
	_, err := token.Seal(t.Context(), ref, nil, []byte("plaintext"), aad)
	want(t, err, hsm.ErrUnavailable, "C_Encrypt: it wrote 24 bytes, which cannot be right")
	_, err = token.Open(t.Context(), ref, nil, b, aad)
	want(t, err, hsm.ErrUnavailable, "C_Decrypt: it wrote 8 bytes, which cannot be right")
	_, err = token.Generate(t.Context(), anID(), label)
	want(t, err, hsm.ErrUnavailable, "C_Encrypt: it wrote")
}

// Opening looks at everything once; then no key needs a search of its own.
func TestOneLookForAllKeys(t *testing.T) {
	f := newFake()
	first := f.open(t, Config{})
	var refs []hsm.Ref
	for range 20 {
		_, ref := made(t, first)
		refs = append(refs, ref)
	}
	token := f.open(t, Config{})
	found := f.count("C_FindObjects")
	for _, ref := range refs {
		opens(t, token, ref, sealed(t, token, ref))
	}
	if n := f.count("C_FindObjects") - found; n != 0 {
		t.Errorf("%d searches for %d keys, want none", n, len(refs))
	}
}
