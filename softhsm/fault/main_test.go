package fault_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"strongroom/hsm/pkcs11"
	"strongroom/softhsm"
	"strongroom/softhsm/fault"

	p11 "github.com/miekg/pkcs11"
)

// What is built once: the module, and testdata/direct.c. SoftHSM's own path is found before anybody is led to ours.
var module, direct, real string

func TestMain(m *testing.M) {
	if what := os.Getenv("STRONGROOM_FAULT_CHILD"); what != "" {
		if err := child(what, os.Args[1:]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "fault")
	if err == nil {
		defer os.RemoveAll(dir)
		module, err = fault.Build(dir)
	}
	if err == nil {
		direct = filepath.Join(dir, "direct")
		c := exec.Command("gcc", "-Wall", "-Wextra", "-Werror", "-O2", "-Imodule", "-o", direct, "testdata/direct.c", "-ldl")
		c.Stderr = os.Stderr
		err = c.Run()
	}
	if err == nil {
		real, err = softhsm.Module()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// A client is an application with a PKCS #11 module: SoftHSM behind ours.
type client struct {
	*p11.Ctx
	script fault.Script
	dir    string
	pin    string
	slot   uint
}

// rig makes a token in a new directory, and leads this process to it by way of the fault module.
func rig(t testing.TB) (fault.Rig, pkcs11.Config) {
	t.Helper()
	dir := t.TempDir()
	r := fault.Rig{Module: module, Real: real, Script: fault.Script(dir + "/script")}
	r.Install(t.Setenv)
	t.Setenv("SOFTHSM2_CONF", "") // so that it is restored
	c, err := softhsm.New(t.Context(), dir+"/token")
	if err != nil {
		t.Fatal(err)
	}
	return r, c
}

// newClient is a client with a token and no script yet, initialised.
func newClient(t testing.TB) *client {
	t.Helper()
	r, config := rig(t)
	pin, err := config.PIN()
	if err != nil {
		t.Fatal(err)
	}
	c := &client{Ctx: p11.New(r.Module), script: r.Script, dir: t.TempDir(), pin: string(pin)}
	if c.Ctx == nil {
		t.Fatal("the fault module cannot be loaded")
	}
	if err := c.Initialize(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.Remove(string(r.Script))
		c.set(t)
		if err := c.Finalize(); err != nil && !errors.Is(err, p11.Error(p11.CKR_CRYPTOKI_NOT_INITIALIZED)) {
			t.Error(err)
		}
		c.Destroy()
	})
	c.slot = c.token(t)
	return c
}

// token finds the slot of the token.
func (c *client) token(t testing.TB) uint {
	t.Helper()
	slots, err := c.GetSlotList(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, slot := range slots {
		info, err := c.GetTokenInfo(slot)
		if err != nil {
			t.Fatal(err)
		}
		if info.Label == softhsm.Label {
			return slot
		}
	}
	t.Fatalf("the token is in none of the slots %v", slots)
	return 0
}

func (c *client) set(t testing.TB, lines ...string) {
	t.Helper()
	if err := c.script.Set(lines...); err != nil {
		t.Fatal(err)
	}
}

func (c *client) open(t testing.TB) p11.SessionHandle {
	t.Helper()
	s, err := c.OpenSession(c.slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// login opens a session and logs in.
func (c *client) login(t testing.TB) p11.SessionHandle {
	t.Helper()
	s := c.open(t)
	if err := c.Login(s, p11.CKU_USER, c.pin); err != nil {
		t.Fatal(err)
	}
	return s
}

// key makes an AES key in the token, or of the session.
func (c *client) key(t testing.TB, s p11.SessionHandle, label string, token bool) p11.ObjectHandle {
	t.Helper()
	k, err := c.tryKey(s, label, token)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (c *client) tryKey(s p11.SessionHandle, label string, token bool) (p11.ObjectHandle, error) {
	return c.GenerateKey(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_GEN, nil)}, []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY),
		p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_AES),
		p11.NewAttribute(p11.CKA_VALUE_LEN, 32),
		p11.NewAttribute(p11.CKA_TOKEN, token),
		p11.NewAttribute(p11.CKA_PRIVATE, true),
		p11.NewAttribute(p11.CKA_SENSITIVE, true),
		p11.NewAttribute(p11.CKA_ENCRYPT, true),
		p11.NewAttribute(p11.CKA_DECRYPT, true),
		p11.NewAttribute(p11.CKA_LABEL, label),
		p11.NewAttribute(p11.CKA_ID, label),
	})
}

// find finds the objects with a label, or all.
func (c *client) find(t testing.TB, s p11.SessionHandle, label string) []p11.ObjectHandle {
	t.Helper()
	var template []*p11.Attribute
	if label != "" {
		template = append(template, p11.NewAttribute(p11.CKA_LABEL, label))
	}
	if err := c.FindObjectsInit(s, template); err != nil {
		t.Fatal(err)
	}
	found, _, err := c.FindObjects(s, 100)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.FindObjectsFinal(s); err != nil {
		t.Fatal(err)
	}
	return found
}

func (c *client) label(t testing.TB, s p11.SessionHandle, o p11.ObjectHandle) string {
	t.Helper()
	a, err := c.GetAttributeValue(s, o, []*p11.Attribute{p11.NewAttribute(p11.CKA_LABEL, nil)})
	if err != nil {
		t.Fatal(err)
	}
	return string(a[0].Value)
}

var (
	aad       = []byte("associated data")
	plaintext = []byte("plaintext of some length")
)

// gcm encrypts with an IV of the caller's, in one part.
func (c *client) gcm(s p11.SessionHandle, k p11.ObjectHandle, iv []byte) ([]byte, error) {
	params := p11.NewGCMParams(iv, aad, 128)
	defer params.Free()
	if err := c.EncryptInit(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_GCM, params)}, k); err != nil {
		return nil, err
	}
	return c.Encrypt(s, plaintext)
}

// opens decrypts what gcm made.
func (c *client) opens(s p11.SessionHandle, k p11.ObjectHandle, iv, ciphertext []byte) ([]byte, error) {
	params := p11.NewGCMParams(iv, aad, 128)
	defer params.Free()
	if err := c.DecryptInit(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_GCM, params)}, k); err != nil {
		return nil, err
	}
	return c.Decrypt(s, ciphertext)
}

// wants sees that err is this return value.
func wants(t testing.TB, what string, err error, code p11.Error) {
	t.Helper()
	if code == p11.CKR_OK && err == nil {
		return
	}
	if !errors.Is(err, code) {
		t.Errorf("%s: %v, want %v", what, err, code)
	}
}

// direct runs a command of testdata/direct.c, in a process of its own on the same token.
func (c *client) direct(t testing.TB, command string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), direct, command, module, c.pin).CombinedOutput()
	if err != nil {
		t.Errorf("direct %s: %v: %s", command, err, out)
	}
	return string(out)
}
