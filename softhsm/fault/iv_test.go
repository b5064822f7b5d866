package fault_test

import (
	"bytes"
	"testing"

	p11 "github.com/miekg/pkcs11"
)

func gcmMechanism(params *p11.GCMParams) []*p11.Mechanism {
	return []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_GCM, params)}
}

// seal encrypts in one part, and returns the IV that the parameters have afterwards.
func (c *client) seal(t *testing.T, s p11.SessionHandle, k p11.ObjectHandle, iv []byte) (ciphertext, used []byte) {
	t.Helper()
	params := p11.NewGCMParams(iv, aad, 128)
	defer params.Free()
	if err := c.EncryptInit(s, gcmMechanism(params), k); err != nil {
		t.Fatal(err)
	}
	b, err := c.Encrypt(s, plaintext)
	if err != nil {
		t.Fatal(err)
	}
	return b, params.IV()
}

// made sees that a ciphertext opens under an IV that the device made.
func (c *client) made(t *testing.T, s p11.SessionHandle, k p11.ObjectHandle, iv, ciphertext []byte) {
	t.Helper()
	if len(iv) != 12 || bytes.Equal(iv, make([]byte, 12)) || string(iv) == "twelve bytes" {
		t.Errorf("the IV is %x, want one that the device made", iv)
	}
	if len(ciphertext) != len(plaintext)+16 {
		t.Errorf("%d bytes from %d", len(ciphertext), len(plaintext))
	}
	if got, err := c.opens(s, k, iv, ciphertext); err != nil || !bytes.Equal(got, plaintext) {
		t.Errorf("decrypted to %q, %v", got, err)
	}
}

// refused sees that encryption does not begin with these IVs.
func (c *client) refused(t *testing.T, s p11.SessionHandle, k p11.ObjectHandle, ivs ...[]byte) {
	t.Helper()
	for _, iv := range ivs {
		params := p11.NewGCMParams(iv, aad, 128)
		wants(t, "C_EncryptInit", c.EncryptInit(s, gcmMechanism(params), k), p11.CKR_MECHANISM_PARAM_INVALID)
		params.Free()
	}
}

func TestIVZeroed(t *testing.T) {
	c := newClient(t)
	s := c.login(t)
	k := c.key(t, s, "k", true)
	zeros := make([]byte, 12)
	for _, line := range []string{"iv zeroed", "iv zeroed by C_EncryptInit", "iv zeroed by C_Encrypt"} {
		c.set(t, line)
		c.refused(t, s, k, []byte("twelve bytes"), nil, make([]byte, 16))
		b, iv := c.seal(t, s, k, zeros)
		c.made(t, s, k, iv, b)
		again, other := c.seal(t, s, k, zeros)
		c.made(t, s, k, other, again)
		if bytes.Equal(iv, other) {
			t.Errorf("%s: the same IV twice", line)
		}
	}
	// When it is written.
	for line, late := range map[string]bool{"iv zeroed": false, "iv zeroed by C_Encrypt": true} {
		c.set(t, line)
		params := p11.NewGCMParams(zeros, aad, 128)
		if err := c.EncryptInit(s, gcmMechanism(params), k); err != nil {
			t.Fatal(err)
		}
		if got := bytes.Equal(params.IV(), zeros); got != late {
			t.Errorf("%s: after C_EncryptInit it is still zero: %v", line, got)
		}
		b, err := c.EncryptUpdate(s, plaintext)
		if err != nil {
			t.Fatal(err)
		}
		last, err := c.EncryptFinal(s)
		if err != nil {
			t.Fatal(err)
		}
		c.made(t, s, k, params.IV(), append(b, last...))
		params.Free()
	}
}

func TestIVReturned(t *testing.T) {
	c := newClient(t)
	s := c.login(t)
	k := c.key(t, s, "k", true)
	for _, line := range []string{"iv returned", "iv returned by C_Encrypt"} {
		c.set(t, line)
		c.refused(t, s, k, nil, make([]byte, 16))
		for _, given := range [][]byte{[]byte("twelve bytes"), make([]byte, 12)} {
			b, iv := c.seal(t, s, k, given)
			c.made(t, s, k, iv, b)
		}
		c.direct(t, "returned") // with a NULL pIv
	}
}

func TestIVAppended(t *testing.T) {
	c := newClient(t)
	s := c.login(t)
	k := c.key(t, s, "k", true)
	c.set(t, "iv appended")
	c.refused(t, s, k, []byte("twelve bytes"), make([]byte, 12))
	split := func(b []byte) (ciphertext, iv []byte) { return b[:len(b)-12], b[len(b)-12:] }

	b, _ := c.seal(t, s, k, nil) // after a question for the length
	ciphertext, iv := split(b)
	c.made(t, s, k, iv, ciphertext)

	params := p11.NewGCMParams(nil, aad, 128)
	defer params.Free()
	if err := c.EncryptInit(s, gcmMechanism(params), k); err != nil {
		t.Fatal(err)
	}
	b, err := c.EncryptUpdate(s, plaintext)
	if err != nil {
		t.Fatal(err)
	}
	last, err := c.EncryptFinal(s)
	if err != nil {
		t.Fatal(err)
	}
	ciphertext, iv = split(append(b, last...))
	c.made(t, s, k, iv, ciphertext)

	c.direct(t, "appended") // with too little room

	// The caller's IVs work again.
	c.set(t)
	b, iv = c.seal(t, s, k, []byte("twelve bytes"))
	if got, err := c.opens(s, k, iv, b); err != nil || !bytes.Equal(got, plaintext) || string(iv) != "twelve bytes" {
		t.Errorf("decrypted to %q, %v", got, err)
	}
}

// TestOtherMechanisms: who makes the IV matters to AES-GCM alone.
func TestOtherMechanisms(t *testing.T) {
	c := newClient(t)
	s := c.login(t)
	k := c.key(t, s, "k", true)
	for _, line := range []string{"iv zeroed", "iv appended", "iv returned"} {
		c.set(t, line)
		m := []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_CBC_PAD, []byte("sixteen bytes iv"))}
		if err := c.EncryptInit(s, m, k); err != nil {
			t.Fatal(err)
		}
		b, err := c.Encrypt(s, plaintext)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.DecryptInit(s, m, k); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Decrypt(s, b); err != nil || !bytes.Equal(got, plaintext) {
			t.Errorf("%s: decrypted to %q, %v", line, got, err)
		}
	}
}
