package pkcs11_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"strongroom/hsm"
	"strongroom/hsm/hsmtest"
	"strongroom/hsm/pkcs11"

	p11 "github.com/miekg/pkcs11"
)

// NSS's softokn is the second implementation: it wants an argument in C_Initialize, so that crypto11 cannot open it; it does not take
// CKA_ALLOWED_MECHANISMS; and its errors and limits are others than SoftHSM's.

func TestNSSDevice(t *testing.T) {
	for _, copies := range []bool{false, true} {
		t.Run(fmt.Sprint("copies ", copies), func(t *testing.T) {
			hsmtest.Test(t, func(t *testing.T) hsm.Device {
				c := newTokenOf(t, "nss", t.TempDir())
				c.SessionCopies = copies
				return open(t, c)
			})
		})
	}
}

func TestNSSTwoProcesses(t *testing.T) {
	dir := t.TempDir()
	token := open(t, newTokenOf(t, "nss", dir))
	inAnotherProcess(t, dir, func() {
		if err := churn(t.Context(), token, 100); err != nil {
			t.Error(err)
		}
	})
}

// A key that one process makes is there for another at once, and gone when it is destroyed.
func TestShared(t *testing.T) {
	for kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			c := newTokenOf(t, kind, dir)
			c.SessionCopies = false // a copy outlives its key where another process destroys that
			token := open(t, c)
			other := exec.Command(os.Args[0])
			other.Env = append(os.Environ(), "STRONGROOM_TEST_TOKEN="+dir, "STRONGROOM_TEST_MAKE=share")
			other.Stderr = os.Stderr
			in, err := other.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := other.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := other.Start(); err != nil {
				t.Fatal(err)
			}
			var ref, signer hsm.Ref
			var sealed []byte
			if _, err := fmt.Fscanf(out, "%x %x %x\n", &ref, &signer, &sealed); err != nil {
				t.Error(err)
			}
			if got, err := token.Open(t.Context(), ref, nil, sealed, aad); err != nil || string(got) != "plaintext" {
				t.Errorf("Open of what another process sealed: %q, %v", got, err)
			}
			if _, err := token.Sign(t.Context(), signer, [32]byte{1}); err != nil {
				t.Errorf("Sign with another process's signer: %v", err)
			}
			in.Write([]byte("\n"))
			if err := other.Wait(); err != nil {
				t.Fatal(err)
			}
			if _, err := token.Open(t.Context(), ref, nil, sealed, aad); !errors.Is(err, hsm.ErrNoKey) {
				t.Errorf("Open under a key that another process destroyed: %v", err)
			}
			if _, err := token.Sign(t.Context(), signer, [32]byte{1}); !errors.Is(err, hsm.ErrNoKey) {
				t.Errorf("Sign with a signer that another process destroyed: %v", err)
			}
		})
	}
}

// A process that is killed while it makes something leaves nothing that is in the way.
func TestNSSKilled(t *testing.T) {
	dir := t.TempDir()
	token := open(t, newTokenOf(t, "nss", dir))
	for what, generate := range map[string]func(context.Context, hsm.ID, string) (hsm.Ref, error){
		"keys": token.Generate, "signers": token.GenerateSigner,
	} {
		for range 5 {
			id := killed(t, dir, what)
			if _, err := generate(t.Context(), id, label); err != nil {
				t.Errorf("one of the %s of a process that was killed: %v", what, err)
			}
		}
	}
}

func TestNSSAttributes(t *testing.T) {
	token := open(t, newTokenOf(t, "nss", t.TempDir()))
	id := anID()
	if _, err := token.Generate(t.Context(), id, label); err != nil {
		t.Fatal(err)
	}
	for _, want := range []*p11.Attribute{
		p11.NewAttribute(p11.CKA_SENSITIVE, true),
		p11.NewAttribute(p11.CKA_ALWAYS_SENSITIVE, true),
		p11.NewAttribute(p11.CKA_EXTRACTABLE, false),
		p11.NewAttribute(p11.CKA_NEVER_EXTRACTABLE, true),
		p11.NewAttribute(p11.CKA_MODIFIABLE, false),
		p11.NewAttribute(p11.CKA_WRAP, false),
		p11.NewAttribute(p11.CKA_UNWRAP, false),
	} {
		got, err := token.Attributes(t.Context(), id, want.Type)
		if err != nil || string(got[0].Value) != string(want.Value) {
			t.Errorf("attribute %#x: %v, %v", want.Type, got, err)
		}
	}
	if _, err := token.Attributes(t.Context(), id, p11.CKA_VALUE); err == nil {
		t.Error("the token gave the key away")
	}
}

func TestNSSRefusals(t *testing.T) {
	good := newTokenOf(t, "nss", t.TempDir())
	for _, c := range []struct {
		change func(*pkcs11.Config)
		text   string
	}{
		{func(c *pkcs11.Config) { c.InitArgs = "" }, "C_Initialize: CKR_ARGUMENTS_BAD (0x7): the PKCS#11 module does not start"},
		{func(c *pkcs11.Config) { c.InitArgs += "\x00" }, "zero byte"},
		{func(c *pkcs11.Config) { c.InitArgs = strings.Replace(c.InitArgs, "sql:", "sql:/nowhere", 1) }, "(0xCE534351): the PKCS#11 module does not start"},
		{func(c *pkcs11.Config) { c.Label = "weakroom" }, `no token labelled "weakroom" in ` + good.Module + `, which has "NSS Generic Crypto Services"`},
		{func(c *pkcs11.Config) { c.Label, c.Serial = "", "0000000000000000" }, `2 tokens with serial number "0000000000000000"`},
		{func(c *pkcs11.Config) { c.PIN = func() ([]byte, error) { return []byte("wrong"), nil } }, "C_Login: CKR_PIN_INCORRECT (0xA0)"},
	} {
		bad := good
		c.change(&bad)
		if _, err := pkcs11.Open(t.Context(), bad); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("got the error %v, want %q", err, c.text)
		}
	}
	token := open(t, good)
	if err := token.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := pkcs11.Tokens(good); err == nil || !strings.Contains(err.Error(), "CKR_CRYPTOKI_ALREADY_INITIALIZED") {
		t.Errorf("Tokens while a token is open: %v", err)
	}
	token.Close()
	if all, err := pkcs11.Tokens(good); err != nil || len(all) != 2 {
		t.Errorf("Tokens: %v, %v", all, err)
	}
}
