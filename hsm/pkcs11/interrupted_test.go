package pkcs11

import (
	"maps"
	"testing"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// A key that the token did not finish is made anew. Anything that may be something else stays.
func TestInterrupted(t *testing.T) {
	for _, kind := range []struct {
		name     string
		class    uint
		generate func(*Token, *testing.T) (hsm.ID, hsm.Ref)
		again    func(*Token, *testing.T, hsm.ID) error
	}{
		{"key", p11.CKO_SECRET_KEY,
			func(token *Token, t *testing.T) (hsm.ID, hsm.Ref) { return made(t, token) },
			func(token *Token, t *testing.T, id hsm.ID) error {
				_, err := token.Generate(t.Context(), id, label)
				return err
			}},
		{"signer", p11.CKO_PRIVATE_KEY,
			func(token *Token, t *testing.T) (hsm.ID, hsm.Ref) { return madeSigner(t, token) },
			func(token *Token, t *testing.T, id hsm.ID) error {
				_, err := token.GenerateSigner(t.Context(), id, label)
				return err
			}},
	} {
		for _, c := range []struct {
			name   string
			change func(token *Token, key, canary map[uint][]byte)
			anew   bool
		}{
			{"without either promise", func(_ *Token, key, _ map[uint][]byte) {}, true},
			{"without the second", func(_ *Token, key, _ map[uint][]byte) { key[p11.CKA_ALWAYS_SENSITIVE] = []byte{1} }, true},
			{"made by the token, as it says", func(_ *Token, key, _ map[uint][]byte) { key[p11.CKA_LOCAL] = []byte{1} }, false},
			{"not sensitive", func(_ *Token, key, _ map[uint][]byte) { key[p11.CKA_SENSITIVE] = []byte{0} }, false},
			{"extractable", func(_ *Token, key, _ map[uint][]byte) { key[p11.CKA_EXTRACTABLE] = []byte{1} }, false},
			{"the token says less than asked", func(_ *Token, key, _ map[uint][]byte) { delete(key, p11.CKA_LOCAL) }, false},
			{"the canary has no promises either", func(_ *Token, key, canary map[uint][]byte) { canary[p11.CKA_NEVER_EXTRACTABLE] = []byte{0} }, false},
		} {
			t.Run(kind.name+" "+c.name, func(t *testing.T) {
				f := newFake()
				f.open(t, Config{})
				token := f.open(t, Config{}) // one that has not used the key
				id, _ := kind.generate(token, t)
				h, canary := f.of(kind.class, id)[0], f.of(p11.CKO_SECRET_KEY, canaryID)[0]
				f.mu.Lock()
				key := f.objects[h].attributes
				maps.Copy(key, map[uint][]byte{p11.CKA_LOCAL: {0}, p11.CKA_ALWAYS_SENSITIVE: {0}, p11.CKA_NEVER_EXTRACTABLE: {0}})
				c.change(token, key, f.objects[canary].attributes)
				f.mu.Unlock()
				if err := kind.again(token, t, id); err == nil {
					t.Error("a key that was used here, and lost its promises, was made anew")
				}
				token.keys.forget(id, token.keys.get(id))
				err := kind.again(token, t, id)
				f.mu.Lock()
				_, there := f.objects[h]
				f.mu.Unlock()
				if c.anew {
					if err != nil || there {
						t.Errorf("it was not made anew: %v", err)
					}
					return
				}
				if !there {
					t.Error("it was destroyed")
				}
				want(t, err, hsm.ErrNoKey, "the token does not keep what a key must be")
			})
		}
	}
}

// GENERAL_ERROR may be about an attribute that can be left away, or a fault in passing, or a fault after a key was made.
func TestGeneralErrorOfNiceties(t *testing.T) {
	for _, c := range []struct {
		name  string
		fails int // so many times
		calls int // in all
		kind  error
	}{
		{"once", 1, 2, nil},
		{"with the one attribute", 2, 3, nil},
		{"with any", 4, 5, nil},
		{"always", 99, 5, hsm.ErrUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake()
			token := f.open(t, Config{})
			n, before := 0, f.count("C_GenerateKey")
			f.failing(func(function string, _ p11.SessionHandle) uint {
				if function == "C_GenerateKey" {
					if n++; n <= c.fails {
						return p11.CKR_GENERAL_ERROR
					}
				}
				return 0
			})
			id := anID()
			_, err := token.Generate(t.Context(), id, label)
			if c.kind == nil && err != nil {
				t.Error(err)
			}
			if c.kind != nil {
				want(t, err, c.kind, "C_GenerateKey: CKR_GENERAL_ERROR")
			}
			if got := f.count("C_GenerateKey") - before; got != c.calls {
				t.Errorf("%d calls, want %d", got, c.calls)
			}
		})
	}
}
