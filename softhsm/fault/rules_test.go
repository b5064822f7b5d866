package fault_test

import (
	"testing"

	p11 "github.com/miekg/pkcs11"
)

func TestForwards(t *testing.T) {
	c := newClient(t)
	s := c.login(t)
	iv := []byte("twelve bytes")
	k := c.key(t, s, "k", true)
	b, err := c.gcm(s, k, iv)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.opens(s, k, iv, b); err != nil || string(got) != string(plaintext) {
		t.Errorf("decrypted to %q, %v", got, err)
	}
	c.set(t, "# nothing")
	c.set(t, "on C_GenerateRandom return CKR_DEVICE_ERROR")
	_, err = c.GenerateRandom(s, 1)
	wants(t, "C_GenerateRandom", err, p11.CKR_DEVICE_ERROR)
	c.set(t, "generation 1")
	_, err = c.GenerateRandom(s, 1)
	wants(t, "C_GenerateRandom", err, p11.CKR_SESSION_HANDLE_INVALID)
	c.set(t, "on C_GenerateRand return CKR_DEVICE_ERROR")
	_, err = c.GenerateRandom(s, 1)
	wants(t, "C_GenerateRandom", err, p11.CKR_GENERAL_ERROR)
}
