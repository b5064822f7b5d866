package pkcs11_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"strongroom/hsm"
	"strongroom/hsm/pkcs11"

	p11 "github.com/miekg/pkcs11"
)

// What only a real token can show. What a real one cannot be made to do is in faults_test.go.

func TestAttributes(t *testing.T) {
	c := newToken(t, t.TempDir())
	c.SessionCopies = false
	token := open(t, c)
	id := anID()
	if _, err := token.Generate(t.Context(), id, label); err != nil {
		t.Fatal(err)
	}
	for _, want := range []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY),
		p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_AES),
		p11.NewAttribute(p11.CKA_VALUE_LEN, 32),
		p11.NewAttribute(p11.CKA_ID, id[:]),
		p11.NewAttribute(p11.CKA_LABEL, label),
		p11.NewAttribute(p11.CKA_TOKEN, true),
		p11.NewAttribute(p11.CKA_PRIVATE, true),
		p11.NewAttribute(p11.CKA_SENSITIVE, true),
		p11.NewAttribute(p11.CKA_ALWAYS_SENSITIVE, true),
		p11.NewAttribute(p11.CKA_EXTRACTABLE, false),
		p11.NewAttribute(p11.CKA_NEVER_EXTRACTABLE, true),
		p11.NewAttribute(p11.CKA_MODIFIABLE, false),
		p11.NewAttribute(p11.CKA_LOCAL, true),
		p11.NewAttribute(p11.CKA_ENCRYPT, true),
		p11.NewAttribute(p11.CKA_DECRYPT, true),
		p11.NewAttribute(p11.CKA_WRAP, false),
		p11.NewAttribute(p11.CKA_UNWRAP, false),
		p11.NewAttribute(p11.CKA_DERIVE, false),
		p11.NewAttribute(p11.CKA_SIGN, false),
		p11.NewAttribute(p11.CKA_VERIFY, false),
		p11.NewAttribute(p11.CKA_ALLOWED_MECHANISMS, p11.NewAttribute(0, p11.CKM_AES_GCM).Value),
	} {
		got, err := token.Attributes(t.Context(), id, want.Type)
		if err != nil {
			t.Errorf("attribute %#x: %v", want.Type, err)
		} else if !bytes.Equal(got[0].Value, want.Value) {
			t.Errorf("attribute %#x: got %x, want %x", want.Type, got[0].Value, want.Value)
		}
	}
	if value, err := token.Attributes(t.Context(), id, p11.CKA_VALUE); err == nil {
		t.Errorf("the token gave the key away: %d bytes", len(value[0].Value))
	}
}

func TestWrongPIN(t *testing.T) {
	c := newToken(t, t.TempDir())
	right := c.PIN
	asked := 0
	given := []byte("wrong-31337")
	c.PIN = func() ([]byte, error) {
		asked++
		return given, nil
	}
	_, err := pkcs11.Open(t.Context(), c)
	if !errors.Is(err, pkcs11.ErrPIN) || !errors.Is(err, hsm.ErrUnavailable) {
		t.Fatalf("got the error %v, want %v", err, pkcs11.ErrPIN)
	}
	e, ok := errors.AsType[*pkcs11.Error](err)
	if !ok || e.Function != "C_Login" || e.Code != p11.CKR_PIN_INCORRECT {
		t.Errorf("got the error %#v", e)
	}
	for _, text := range []string{"C_Login: CKR_PIN_INCORRECT (0xA0)", `the token "strongroom" (serial number `, "will not be tried again", "wrong PINs are being counted"} {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q does not say %q", err, text)
		}
	}
	if strings.Contains(err.Error(), "31337") {
		t.Errorf("error %q has the PIN in it", err)
	}
	if asked != 1 || !bytes.Equal(given, make([]byte, len(given))) {
		t.Errorf("the PIN was asked for %d times, and is now %q", asked, given)
	}
	c.PIN = func() ([]byte, error) { return nil, errors.New("no terminal") }
	if _, err := pkcs11.Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), "reading the PIN: no terminal") {
		t.Errorf("got the error %v", err)
	}
	c.PIN = right
	open(t, c) // which also shows that a failed Open lets go of the process
}

func TestPINIsNotPrinted(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pin")
	for content, want := range map[string]string{"31337": "31337", "31337\n": "31337", "31337\r\n": "31337", " 31337 \n": " 31337 "} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		c := pkcs11.Config{PIN: pkcs11.PINFile(name)}
		if pin, err := c.PIN(); err != nil || string(pin) != want {
			t.Errorf("%q: got the PIN %q, want %q (%v)", content, pin, want, err)
		}
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
			if s := fmt.Sprintf(format, c); strings.Contains(s, "31337") || strings.Contains(s, hex.EncodeToString([]byte("31337"))) {
				t.Errorf("%s prints the PIN: %s", format, s)
			}
		}
	}
	os.WriteFile(name, []byte("\n"), 0o600)
	if _, err := pkcs11.PINFile(name)(); err == nil {
		t.Error("an empty PIN was accepted")
	}
}

func TestConfig(t *testing.T) {
	good := newToken(t, t.TempDir())
	for _, c := range []struct {
		change func(*pkcs11.Config)
		text   string
	}{
		{func(c *pkcs11.Config) { c.Module = "" }, "no PKCS#11 module"},
		{func(c *pkcs11.Config) { c.Module = "/nowhere/lib.so" }, "cannot load the PKCS#11 module /nowhere/lib.so: /nowhere/lib.so: cannot open"},
		{func(c *pkcs11.Config) { c.Module = os.Args[0] }, "cannot load the PKCS#11 module"},
		{func(c *pkcs11.Config) { c.Label = "" }, "exactly one of label and serial number"},
		{func(c *pkcs11.Config) { c.Serial = "1" }, "exactly one of label and serial number"},
		{func(c *pkcs11.Config) { c.PIN = nil }, "no PIN"},
		{func(c *pkcs11.Config) { c.Sessions = -1 }, "-1 sessions are too few"},
		{func(c *pkcs11.Config) { c.Label = "weakroom" }, `no token labelled "weakroom" in ` + good.Module + `, which has "strongroom" (serial number `},
		{func(c *pkcs11.Config) { c.Label, c.Serial = "", "123" }, `no token with serial number "123"`},
	} {
		bad := good
		c.change(&bad)
		if _, err := pkcs11.Open(t.Context(), bad); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("got the error %v, want %q", err, c.text)
		}
	}
	token := open(t, good)
	if i := token.Info(); i.Label != "strongroom" || i.Manufacturer != "SoftHSM project" || i.Serial == "" || i.Module != good.Module {
		t.Errorf("Info: %+v", i)
	}
	token.Close()
	good.Label, good.Serial = "", token.Info().Serial
	open(t, good)
}

func TestSameLabelTwice(t *testing.T) {
	dir := t.TempDir()
	c := newToken(t, dir)
	first, err := pkcs11.Tokens(c)
	if err != nil || len(first) != 1 {
		t.Fatalf("Tokens: %v, %v", first, err)
	}
	addToken(t, c.Module, "strongroom")
	both, err := pkcs11.Tokens(c)
	if err != nil || len(both) != 2 {
		t.Fatalf("Tokens: %v, %v", both, err)
	}
	_, err = pkcs11.Open(t.Context(), c)
	if err == nil || !strings.Contains(err.Error(), `2 tokens labelled "strongroom"`) || !strings.Contains(err.Error(), "choose by serial number") {
		t.Fatalf("got the error %v", err)
	}
	for _, i := range both {
		if !strings.Contains(err.Error(), i.Serial) {
			t.Errorf("error %q does not name %v", err, i)
		}
	}
	c.Label, c.Serial = "", first[0].Serial
	open(t, c)
}

// addToken initialises another token in SoftHSM's current directory.
func addToken(t *testing.T, module, label string) {
	t.Helper()
	raw := p11.New(module)
	defer raw.Destroy()
	if err := raw.Initialize(); err != nil {
		t.Fatal(err)
	}
	defer raw.Finalize()
	slots, err := raw.GetSlotList(true)
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.InitToken(slots[len(slots)-1], "1234", label); err != nil {
		t.Fatal(err)
	}
}

func TestTwoOpens(t *testing.T) {
	c := newToken(t, t.TempDir())
	token := open(t, c)
	for _, f := range []func(context.Context, pkcs11.Config) (*pkcs11.Token, error){pkcs11.Open, pkcs11.Init} {
		if _, err := f(t.Context(), c); err == nil || !strings.Contains(err.Error(), "is open in this process already") {
			t.Errorf("got the error %v", err)
		}
	}
	if err := token.Check(t.Context()); err != nil {
		t.Errorf("the first suffered: %v", err)
	}
	for range 2 {
		if err := token.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := token.Check(t.Context()); !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("Check after Close: %v", err)
	}
	open(t, c)
}

func TestKeysSurvive(t *testing.T) {
	c := newToken(t, t.TempDir())
	token := open(t, c)
	id := anID()
	ref, err := token.Generate(t.Context(), id, label)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := token.Seal(t.Context(), ref, nil, []byte("plaintext"), aad)
	if err != nil {
		t.Fatal(err)
	}
	token.Close()

	token = open(t, c)
	if got, err := token.Open(t.Context(), ref, nil, sealed, aad); err != nil || string(got) != "plaintext" {
		t.Errorf("Open: %q, %v", got, err)
	}
	if objects, err := token.Objects(t.Context()); err != nil || len(objects) != 1 || objects[0] != (hsm.Object{ID: id, Label: label}) {
		t.Errorf("Objects: %v, %v", objects, err)
	}
}

func TestSignerAttributes(t *testing.T) {
	for _, copies := range []bool{false, true} {
		t.Run(fmt.Sprint("copies ", copies), func(t *testing.T) {
			c := newToken(t, t.TempDir())
			c.SessionCopies = copies
			token := open(t, c)
			id := anID()
			if _, err := token.GenerateSigner(t.Context(), id, label); err != nil {
				t.Fatal(err)
			}
			for class, attributes := range map[uint][]*p11.Attribute{
				p11.CKO_PRIVATE_KEY: {
					p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_EC),
					p11.NewAttribute(p11.CKA_LABEL, label),
					p11.NewAttribute(p11.CKA_PRIVATE, true),
					p11.NewAttribute(p11.CKA_SENSITIVE, true),
					p11.NewAttribute(p11.CKA_ALWAYS_SENSITIVE, true),
					p11.NewAttribute(p11.CKA_EXTRACTABLE, false),
					p11.NewAttribute(p11.CKA_NEVER_EXTRACTABLE, true),
					p11.NewAttribute(p11.CKA_MODIFIABLE, copies),
					p11.NewAttribute(p11.CKA_LOCAL, true),
					p11.NewAttribute(p11.CKA_SIGN, true),
					p11.NewAttribute(p11.CKA_DECRYPT, false),
					p11.NewAttribute(p11.CKA_UNWRAP, false),
					p11.NewAttribute(p11.CKA_DERIVE, false),
					p11.NewAttribute(p11.CKA_ALLOWED_MECHANISMS, p11.NewAttribute(0, p11.CKM_ECDSA).Value),
				},
				p11.CKO_PUBLIC_KEY: {
					p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_EC),
					p11.NewAttribute(p11.CKA_LABEL, label),
					p11.NewAttribute(p11.CKA_PRIVATE, false),
					p11.NewAttribute(p11.CKA_VERIFY, true),
					p11.NewAttribute(p11.CKA_ENCRYPT, false),
					p11.NewAttribute(p11.CKA_WRAP, false),
				},
			} {
				for _, want := range attributes {
					got, err := token.AttributesOf(t.Context(), class, id, want.Type)
					if err != nil {
						t.Errorf("class %d, attribute %#x: %v", class, want.Type, err)
					} else if !bytes.Equal(got[0].Value, want.Value) {
						t.Errorf("class %d, attribute %#x: got %x, want %x", class, want.Type, got[0].Value, want.Value)
					}
				}
			}
			if value, err := token.AttributesOf(t.Context(), p11.CKO_PRIVATE_KEY, id, p11.CKA_VALUE); err == nil {
				t.Errorf("the token gave the private key away: %d bytes", len(value[0].Value))
			}
		})
	}
}

func TestSignersSurvive(t *testing.T) {
	c := newToken(t, t.TempDir())
	token := open(t, c)
	id := anID()
	ref, err := token.GenerateSigner(t.Context(), id, label)
	if err != nil {
		t.Fatal(err)
	}
	public, err := token.PublicKey(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	token.Close()

	token = open(t, c)
	if _, err := token.Sign(t.Context(), ref, [32]byte{1}); err != nil { // which verifies it
		t.Errorf("Sign: %v", err)
	}
	if got, err := token.PublicKey(t.Context(), ref); err != nil || !bytes.Equal(got, public) {
		t.Errorf("PublicKey: got %x and the error %v, want %x", got, err, public)
	}
	if objects, err := token.Objects(t.Context()); err != nil || len(objects) != 1 || objects[0] != (hsm.Object{ID: id, Label: label}) {
		t.Errorf("Objects: %v, %v", objects, err)
	}
}

// Of a pair, either object may be missing. The private key stays if it is there, and is the same one.
func TestSignerRepaired(t *testing.T) {
	for _, class := range []uint{p11.CKO_PUBLIC_KEY, p11.CKO_PRIVATE_KEY} {
		c := newToken(t, t.TempDir())
		token := open(t, c)
		id := anID()
		ref, err := token.GenerateSigner(t.Context(), id, label)
		if err != nil {
			t.Fatal(err)
		}
		if err := token.Remove(t.Context(), class, id); err != nil {
			t.Fatal(err)
		}
		if objects, err := token.Objects(t.Context()); err != nil || len(objects) != 1 {
			t.Errorf("Objects: %v, %v", objects, err)
		}
		again, err := token.GenerateSigner(t.Context(), id, label)
		if err != nil {
			t.Fatal(err)
		}
		if same := bytes.Equal(again, ref); same != (class == p11.CKO_PUBLIC_KEY) {
			t.Errorf("without the object of class %d: the same key = %v", class, same)
		}
		point, err := token.AttributesOf(t.Context(), p11.CKO_PUBLIC_KEY, id, p11.CKA_EC_POINT)
		if err != nil || !bytes.HasSuffix(point[0].Value, again[17:]) {
			t.Errorf("the public key object is not that of the Ref: %v, %v", point, err)
		}
		token.Close()
		token = open(t, c)
		if _, err := token.Sign(t.Context(), again, [32]byte{1}); err != nil {
			t.Errorf("Sign: %v", err)
		}
		if err := token.Destroy(t.Context(), id); err != nil {
			t.Error(err)
		}
		if objects, err := token.Objects(t.Context()); err != nil || len(objects) != 0 {
			t.Errorf("Objects after Destroy: %v, %v", objects, err)
		}
		token.Close()
	}
}

// A process that is killed while it makes a signer leaves what the next one repairs.
func TestSignerKilled(t *testing.T) {
	dir := t.TempDir()
	c := newToken(t, dir)
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	for round := range rounds {
		id := killed(t, dir, "signers")
		token, err := pkcs11.Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("round %d: the private key said %s, the public one %s", round, token.State(t.Context(), p11.CKO_PRIVATE_KEY, id), token.State(t.Context(), p11.CKO_PUBLIC_KEY, id))
		ref, err := token.GenerateSigner(t.Context(), id, label)
		if err != nil {
			t.Errorf("round %d: %v", round, err)
		} else if _, err := token.Sign(t.Context(), ref, [32]byte{1}); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		objects, err := token.Objects(t.Context())
		for _, o := range objects { // a token with much in it spends its time with searching
			err = errors.Join(err, token.Destroy(t.Context(), o.ID))
		}
		if err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		token.Close()
	}
}

// So does one that is killed while it makes an AES key. Of the moments in which it can be, few leave half a key: TestKeyWithoutValue has one always.
func TestKeyKilled(t *testing.T) {
	dir := t.TempDir()
	c := newToken(t, dir)
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	states := map[string]int{}
	for round := range rounds {
		id := killed(t, dir, "keys")
		token, err := pkcs11.Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		state := token.State(t.Context(), p11.CKO_SECRET_KEY, id)
		states[state]++
		ref, err := token.Generate(t.Context(), id, label)
		if err != nil {
			t.Errorf("round %d: there was %s: %v", round, state, err)
		} else if sealed, err := token.Seal(t.Context(), ref, nil, []byte("plaintext"), aad); err != nil {
			t.Errorf("round %d: %v", round, err)
		} else if _, err := token.Open(t.Context(), ref, nil, sealed, aad); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		objects, err := token.Objects(t.Context())
		for _, o := range objects {
			err = errors.Join(err, token.Destroy(t.Context(), o.ID))
		}
		if err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		token.Close()
	}
	t.Logf("of the keys there was: %v", states)
}

// An object without a value, as SoftHSM leaves it, never was a key.
func TestKeyWithoutValue(t *testing.T) {
	for _, copies := range []bool{false, true} {
		dir := t.TempDir()
		c := newToken(t, dir)
		c.SessionCopies = copies
		token := open(t, c)
		other, err := token.Generate(t.Context(), anID(), label)
		if err != nil {
			t.Fatal(err)
		}
		before := objectFiles(t, dir)
		id := anID()
		ref, err := token.Generate(t.Context(), id, label)
		if err != nil {
			t.Fatal(err)
		}
		token.Close()
		for _, name := range objectFiles(t, dir) {
			if !slices.Contains(before, name) {
				halve(t, name)
			}
		}

		token = open(t, c)
		if state := token.State(t.Context(), p11.CKO_SECRET_KEY, id); state != "half" {
			t.Errorf("there is %s of the key, want half", state)
		}
		again, err := token.Generate(t.Context(), id, label)
		if err != nil {
			t.Fatal(err)
		}
		token.Close()

		token = open(t, c)
		if state := token.State(t.Context(), p11.CKO_SECRET_KEY, id); state != "whole" {
			t.Errorf("there is %s of the key, want whole", state)
		}
		for _, r := range []hsm.Ref{again, other} {
			if _, err := token.Seal(t.Context(), r, nil, []byte("plaintext"), aad); err != nil {
				t.Errorf("Seal: %v", err)
			}
		}
		if _, err := token.Seal(t.Context(), ref, nil, []byte("plaintext"), aad); !errors.Is(err, hsm.ErrNoKey) {
			t.Errorf("Seal with a key that is no more: got the error %v, want %v", err, hsm.ErrNoKey)
		}
		token.Close()
	}
}

func objectFiles(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "tokens", "*", "*.object"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// halve takes from the file of a key what SoftHSM writes there in its second step. A file has attributes, each with its type, its kind, and for
// a CK_BBOOL one byte, or for bytes their length and themselves; numbers are of 8 bytes, the first being the highest.
func halve(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	begin := func(attribute, kind uint64) []byte {
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, attribute), kind)
	}
	const boolean, text = 1, 3
	local := bytes.Index(b, begin(p11.CKA_LOCAL, boolean))
	value := bytes.Index(b, begin(p11.CKA_VALUE, text))
	if local < 0 || value < 0 {
		t.Fatalf("%s is not like a key of SoftHSM: %x", name, b)
	}
	b[local+16] = 0
	length := b[value+16 : value+24]
	rest := b[value+24+int(binary.BigEndian.Uint64(length)):]
	clear(length)
	if err := os.WriteFile(name, append(b[:value+24], rest...), 0o600); err != nil {
		t.Fatal(err)
	}
}

// SoftHSM finds nothing while its directory is away, and says so without an error. No key is believed to be gone. (Copies in the module's memory
// still work then.)
func TestTokenDirectoryAway(t *testing.T) {
	dir := t.TempDir()
	c := newToken(t, dir)
	c.SessionCopies = false
	token := open(t, c)
	id := anID()
	ref, err := token.Generate(t.Context(), id, label)
	if err != nil {
		t.Fatal(err)
	}
	signerID := anID()
	signer, err := token.GenerateSigner(t.Context(), signerID, label)
	if err != nil {
		t.Fatal(err)
	}
	tokens := filepath.Join(dir, "tokens")
	if err := os.Rename(tokens, tokens+".away"); err != nil {
		t.Fatal(err)
	}
	_, err = token.Seal(t.Context(), ref, nil, []byte("plaintext"), aad)
	_, signErr := token.Sign(t.Context(), signer, [32]byte{1})
	_, againErr := token.GenerateSigner(t.Context(), signerID, label)
	for what, err := range map[string]error{
		"Seal":    err,
		"Check":   token.Check(t.Context()),
		"Destroy": token.Destroy(t.Context(), id),

		"Sign":              signErr,
		"GenerateSigner":    againErr,
		"Destroy, a signer": token.Destroy(t.Context(), signerID),
	} {
		if !errors.Is(err, hsm.ErrUnavailable) {
			t.Errorf("%s: got the error %v, want %v", what, err, hsm.ErrUnavailable)
		}
	}
	if err := os.Rename(tokens+".away", tokens); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkSeal(b *testing.B) {
	bench(b, func(token *pkcs11.Token, ref hsm.Ref, plaintext, _ []byte) func() {
		dst := make([]byte, 0, len(plaintext)+hsm.Overhead)
		return func() {
			if _, err := token.Seal(b.Context(), ref, dst, plaintext, aad); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	bench(b, func(token *pkcs11.Token, ref hsm.Ref, plaintext, sealed []byte) func() {
		dst := make([]byte, 0, len(plaintext))
		return func() {
			if _, err := token.Open(b.Context(), ref, dst, sealed, aad); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkRejected is what a bad ciphertext costs.
func BenchmarkRejected(b *testing.B) {
	bench(b, func(token *pkcs11.Token, ref hsm.Ref, plaintext, sealed []byte) func() {
		bad := bytes.Clone(sealed)
		bad[0] ^= 1
		return func() {
			if _, err := token.Open(b.Context(), ref, nil, bad, aad); !errors.Is(err, hsm.ErrRejected) {
				b.Error(err)
			}
		}
	})
}

// BenchmarkSign is a signature with its verification.
func BenchmarkSign(b *testing.B) {
	for _, copies := range []bool{false, true} {
		b.Run(fmt.Sprint("copies=", copies), func(b *testing.B) {
			c := newToken(b, b.TempDir())
			c.SessionCopies = copies
			token := open(b, c)
			ref, err := token.GenerateSigner(b.Context(), anID(), label)
			if err != nil {
				b.Fatal(err)
			}
			sign := func(b *testing.B) {
				if _, err := token.Sign(b.Context(), ref, [32]byte{1}); err != nil {
					b.Error(err)
				}
			}
			b.Run("c=1", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					sign(b)
				}
			})
			b.Run("c=8", func(b *testing.B) {
				b.ReportAllocs()
				b.SetParallelism(max(1, 8/runtime.GOMAXPROCS(0)))
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						sign(b)
					}
				})
			})
		})
	}
}

func bench(b *testing.B, prepare func(token *pkcs11.Token, ref hsm.Ref, plaintext, sealed []byte) func()) {
	token := open(b, newToken(b, b.TempDir()))
	ref, err := token.Generate(b.Context(), anID(), label)
	if err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{32, 2400} {
		plaintext := make([]byte, n)
		sealed, err := token.Seal(b.Context(), ref, nil, plaintext, aad)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("size=%d/c=1", n), func(b *testing.B) {
			b.ReportAllocs()
			f := prepare(token, ref, plaintext, sealed)
			for b.Loop() {
				f()
			}
		})
		b.Run(fmt.Sprintf("size=%d/c=8", n), func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(max(1, 8/runtime.GOMAXPROCS(0)))
			b.RunParallel(func(pb *testing.PB) {
				f := prepare(token, ref, plaintext, sealed)
				for pb.Next() {
					f()
				}
			})
		})
	}
}
