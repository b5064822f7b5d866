package kms

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strongroom/hsm"
)

// A softKey is a device that holds one key that the test knows: golden ciphertexts need one. It draws no IVs but the one it was given.
type softKey struct {
	hsm.Device // nil: nothing else is called
	aead       cipher.AEAD
	iv         []byte
}

func newSoftKey(t testing.TB, key, iv []byte) *softKey {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return &softKey{aead: aead, iv: iv}
}

func (d *softKey) Seal(_ context.Context, _ hsm.Ref, dst, plaintext, aad []byte) ([]byte, error) {
	return d.aead.Seal(append(dst, d.iv...), d.iv, plaintext, aad), nil
}

func (d *softKey) Open(_ context.Context, _ hsm.Ref, dst, sealed, aad []byte) ([]byte, error) {
	p, err := d.aead.Open(dst, sealed[:hsm.IVSize], sealed[hsm.IVSize:], aad)
	if err != nil {
		return nil, hsm.ErrRejected
	}
	return p, nil
}

// A golden is a ciphertext that a released version wrote, with all that is needed to open it. The files are never changed, only added to.
type golden struct {
	Comment           string
	AESKey            string // hexadecimal, as all that follow but the context
	KeyID             string // as clients write it
	MaterialID        string
	EncryptionContext map[string]string
	Plaintext         string
	Ciphertext        string
}

func TestGoldenCiphertexts(t *testing.T) {
	files, err := filepath.Glob("testdata/ciphertext-v*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var all []golden
		if err := json.Unmarshal(b, &all); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, g := range all {
			t.Run(filepath.Base(name)+"/"+g.Comment, func(t *testing.T) { testGolden(t, g) })
		}
	}
}

func testGolden(t *testing.T, g golden) {
	blob, plaintext := unhex(t, g.Ciphertext), unhex(t, g.Plaintext)
	k := goldenKey(t, g, blob[headerSize:headerSize+hsm.IVSize])

	h, sealed, err := parseCiphertext(blob)
	if err != nil {
		t.Fatal(err)
	}
	got, err := k.unseal(t.Context(), h, sealed, g.EncryptionContext)
	if err != nil || !bytes.Equal(got, plaintext) {
		t.Fatalf("unseal = %x, %v; want %x", got, err, plaintext)
	}
	again, err := k.seal(t.Context(), plaintext, g.EncryptionContext)
	if err != nil || !bytes.Equal(again, blob) {
		t.Errorf("seal = %x, %v; want %x", again, err, blob)
	}

	// The format, written down a second time without any of the code under test.
	ctx := sha256.New()
	for _, name := range sortedNames(g.EncryptionContext) {
		for _, s := range []string{name, g.EncryptionContext[name]} {
			n := len(s)
			ctx.Write([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
			ctx.Write([]byte(s))
		}
	}
	aad := append([]byte("strongroom ciphertext v1"), blob[:35]...)
	aad = ctx.Sum(aad)
	block, _ := aes.NewCipher(unhex(t, g.AESKey))
	gcm, _ := cipher.NewGCM(block)
	p, err := gcm.Open(nil, blob[35:47], blob[47:], aad)
	if err != nil || !bytes.Equal(p, plaintext) {
		t.Errorf("the format as documented does not open the golden ciphertext: %v", err)
	}
}

func sortedNames(m map[string]string) []string {
	var names []string
	for name := range maps.Keys(m) {
		i := 0
		for i < len(names) && names[i] < name {
			i++
		}
		names = append(names[:i], append([]string{name}, names[i:]...)...)
	}
	return names
}

func goldenKey(t testing.TB, g golden, iv []byte) *openKey {
	t.Helper()
	id, err := ParseKeyID(g.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	key := &Key{ID: id, Materials: []Material{{ID: hsm.ID(unhex(t, g.MaterialID)), Ref: hsm.Ref("ref")}}}
	s := &Service{device: newSoftKey(t, unhex(t, g.AESKey), iv), budget: newBudget(nil, nil, 0, nil)}
	s.budget.block(id, key.Materials[0].ID).left.Store(1 << 40) // reserved
	return &openKey{Key: key, service: s}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func testKey(t testing.TB) *openKey {
	return goldenKey(t, golden{
		AESKey:     strings.Repeat("11", 32),
		KeyID:      "1234abcd-12ab-34cd-56ef-1234567890ab",
		MaterialID: strings.Repeat("22", 16),
	}, make([]byte, hsm.IVSize))
}

func TestAssociatedDataIsUnambiguous(t *testing.T) {
	contexts := []map[string]string{
		nil,
		{"": ""},
		{"a": "bc"},
		{"ab": "c"},
		{"abc": ""},
		{"": "abc"},
		{"a": "b", "c": ""},
		{"a": "b", "": "c"},
		{"a": "b", "c": "d"},
		{"a": "d", "c": "b"},
		{"A": "bc"},
		{"a": "\x00\x00\x00\x01b"},
		{"é": "x"},
		{"e\u0301": "x"},
	}
	for i, x := range contexts {
		for j, y := range contexts {
			same := bytes.Equal(associatedData(header{}, x), associatedData(header{}, y))
			if same != (i == j) {
				t.Errorf("contexts %q and %q: same encoding = %v", x, y, same)
			}
		}
	}
	if !bytes.Equal(associatedData(header{}, nil), associatedData(header{}, map[string]string{})) {
		t.Error("no context and an empty one encode differently")
	}
	if n := len(associatedData(header{}, contexts[3])); n != 91 {
		t.Errorf("associated data has %d bytes, want 91", n)
	}
}

func TestEveryChangeToACiphertextIsRefused(t *testing.T) {
	k := testKey(t)
	ctx := map[string]string{"a": "b"}
	blob, err := k.seal(t.Context(), []byte("attack at dawn"), ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(blob) != headerSize+hsm.Overhead+14 {
		t.Errorf("ciphertext of 14 bytes has %d bytes", len(blob))
	}
	open := func(b []byte) error {
		h, sealed, err := parseCiphertext(b)
		if err != nil {
			return err
		}
		_, err = k.unseal(t.Context(), h, sealed, ctx)
		return err
	}
	if err := open(blob); err != nil {
		t.Fatal(err)
	}
	refused := func(what string, b []byte) {
		t.Helper()
		var e *Error
		if err := open(b); !errors.As(err, &e) || e.Code != InvalidCiphertext || e.Detail != "" {
			t.Errorf("%s: %v, want InvalidCiphertext without a word", what, err)
		}
	}
	for i := range blob {
		for bit := range 8 {
			b := bytes.Clone(blob)
			b[i] ^= 1 << bit
			refused("a flipped bit", b)
		}
	}
	for n := range blob {
		refused("cut at the end", blob[:n])
		refused("cut at the start", blob[n+1:])
	}
	refused("lengthened", append(bytes.Clone(blob), 0))
	refused("twice", append(bytes.Clone(blob), blob...))
	refused("too long", append(bytes.Clone(blob), make([]byte, 8192)...))
}

// FuzzCiphertext: whatever parses is what its parts write again, and it never opens unless it is the one that was sealed.
func FuzzCiphertext(f *testing.F) {
	k := testKey(f)
	blob, err := k.seal(f.Context(), []byte("secret"), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(blob)
	f.Add(blob[:len(blob)-1])
	f.Add([]byte{})
	f.Add([]byte{1, 1, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, sealed, err := parseCiphertext(b)
		if err != nil {
			if !errors.Is(err, InvalidCiphertext) {
				t.Errorf("%v is not InvalidCiphertext", err)
			}
			return
		}
		if got := append(h.append(nil), sealed...); !bytes.Equal(got, b) {
			t.Errorf("%x is written again as %x", b, got)
		}
		if _, err := k.unseal(t.Context(), h, sealed, nil); err == nil && !bytes.Equal(b, blob) {
			t.Errorf("%x opens", b)
		}
	})
}

// FuzzContext: two contexts that differ encode differently. The fuzzer's input is cut into names and values at its zero bytes.
func FuzzContext(f *testing.F) {
	f.Add("a\x00bc", "ab\x00c")
	f.Add("", "\x00")
	f.Add("a\x00b\x00c\x00d", "a\x00d\x00c\x00b")
	parse := func(s string) map[string]string {
		m := map[string]string{}
		parts := strings.Split(s, "\x00")
		for i := 0; i+1 < len(parts); i += 2 {
			m[parts[i]] = parts[i+1]
		}
		return m
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		x, y := parse(a), parse(b)
		same := bytes.Equal(associatedData(header{}, x), associatedData(header{}, y))
		if same != maps.Equal(x, y) {
			t.Errorf("contexts %q and %q: same encoding = %v", x, y, same)
		}
	})
}

func BenchmarkAssociatedData(b *testing.B) {
	ctx := map[string]string{"tenant": "alice", "purpose": "benchmark"}
	b.ReportAllocs()
	for b.Loop() {
		associatedData(header{}, ctx)
	}
}
