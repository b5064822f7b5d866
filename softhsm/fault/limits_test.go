package fault_test

import (
	"slices"
	"testing"

	p11 "github.com/miekg/pkcs11"
)

func (c *client) tryOpen() (p11.SessionHandle, error) {
	return c.OpenSession(c.slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
}

func TestSessions(t *testing.T) {
	for line, code := range map[string]p11.Error{
		"sessions 3":                                      p11.CKR_SESSION_COUNT,
		"sessions 3 CKR_ARGUMENTS_BAD":                    p11.CKR_ARGUMENTS_BAD,
		"sessions 3 across processes":                     p11.CKR_SESSION_COUNT,
		"sessions 3 CKR_ARGUMENTS_BAD across processes":   p11.CKR_ARGUMENTS_BAD,
		"generation 0\nsessions reuse\nsessions 0x3 0x31": p11.CKR_DEVICE_MEMORY,
	} {
		t.Run(line, func(t *testing.T) {
			c := newClient(t)
			c.set(t, line)
			s1, s2 := c.open(t), c.open(t)
			c.open(t)
			_, err := c.tryOpen()
			wants(t, "a fourth session", err, code)
			if err := c.CloseSession(s1); err != nil {
				t.Fatal(err)
			}
			s4 := c.open(t)
			_, err = c.tryOpen()
			wants(t, "a fourth session", err, code)
			wants(t, "C_CloseSession", c.CloseSession(s1), p11.CKR_SESSION_HANDLE_INVALID)
			_, err = c.OpenSession(99, p11.CKF_SERIAL_SESSION)
			wants(t, "a session in no slot, with no room", err, code)
			for _, s := range []p11.SessionHandle{s2, s4} {
				if err := c.CloseSession(s); err != nil {
					t.Fatal(err)
				}
			}
			for range 5 {
				_, err = c.OpenSession(99, p11.CKF_SERIAL_SESSION)
				wants(t, "a session in no slot", err, p11.CKR_SLOT_ID_INVALID) // takes no room
			}
			c.open(t)
			c.open(t)
			if err := c.CloseAllSessions(c.slot); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				c.open(t)
			}
			_, err = c.tryOpen()
			wants(t, "a fourth session", err, code)
		})
	}
}

func TestMaxSessionCount(t *testing.T) {
	c := newClient(t)
	c.set(t, "ulMaxSessionCount 5")
	info, err := c.GetTokenInfo(c.slot)
	if err != nil || info.MaxSessionCount != 5 || info.MaxRwSessionCount != 5 {
		t.Errorf("%d and %d, %v: want 5", info.MaxSessionCount, info.MaxRwSessionCount, err)
	}
}

func TestData(t *testing.T) {
	c := newClient(t)
	s := c.login(t)
	k := c.key(t, s, "k", true)
	iv := []byte("twelve bytes")
	b, err := c.gcm(s, k, iv)
	if err != nil {
		t.Fatal(err)
	}
	try := func(line string, encrypt, decrypt p11.Error) {
		t.Helper()
		c.set(t, line)
		s := c.open(t) // an operation that failed may still be active in another
		defer c.CloseSession(s)
		_, err := c.gcm(s, k, iv)
		wants(t, line+": encryption", err, encrypt)
		s2 := c.open(t)
		defer c.CloseSession(s2)
		_, err = c.opens(s2, k, iv, b)
		wants(t, line+": decryption", err, decrypt)
	}
	n := len(plaintext)
	try("aad 15", p11.CKR_OK, p11.CKR_OK) // len(aad)
	try("aad 14", p11.CKR_MECHANISM_PARAM_INVALID, p11.CKR_MECHANISM_PARAM_INVALID)
	try("aad 0", p11.CKR_MECHANISM_PARAM_INVALID, p11.CKR_MECHANISM_PARAM_INVALID)
	try("data 40", p11.CKR_OK, p11.CKR_OK)
	try("data 39", p11.CKR_OK, p11.CKR_ENCRYPTED_DATA_LEN_RANGE)
	try("data 23", p11.CKR_DATA_LEN_RANGE, p11.CKR_ENCRYPTED_DATA_LEN_RANGE)
	if n != 24 || len(aad) != 15 || len(b) != 40 {
		t.Errorf("lengths %d, %d, %d", n, len(aad), len(b))
	}
}

func TestObjects(t *testing.T) {
	c := newClient(t)
	s := c.login(t)
	c.key(t, s, "one", true)
	c.key(t, s, "of the session", false)
	c.set(t, "objects 2")
	two := c.key(t, s, "two", true)
	_, err := c.tryKey(s, "three", true)
	wants(t, "a third key", err, p11.CKR_DEVICE_MEMORY)
	c.key(t, s, "of the session", false)
	_, err = c.CopyObject(s, two, []*p11.Attribute{p11.NewAttribute(p11.CKA_TOKEN, true)})
	wants(t, "a copy", err, p11.CKR_DEVICE_MEMORY)
	_, err = c.CopyObject(s, two, []*p11.Attribute{p11.NewAttribute(p11.CKA_TOKEN, false)})
	wants(t, "a copy for the session", err, p11.CKR_OK)
	_, err = c.CreateObject(s, []*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, p11.CKO_DATA), p11.NewAttribute(p11.CKA_TOKEN, true)})
	wants(t, "a data object", err, p11.CKR_DEVICE_MEMORY)
	if err := c.DestroyObject(s, two); err != nil {
		t.Fatal(err)
	}
	pair := func() error {
		_, _, err := c.GenerateKeyPair(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_EC_KEY_PAIR_GEN, nil)},
			[]*p11.Attribute{p11.NewAttribute(p11.CKA_EC_PARAMS, []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}), p11.NewAttribute(p11.CKA_TOKEN, true)},
			[]*p11.Attribute{p11.NewAttribute(p11.CKA_TOKEN, true)})
		return err
	}
	wants(t, "a pair where one has room", pair(), p11.CKR_DEVICE_MEMORY)
	c.set(t, "objects 3")
	wants(t, "a pair", pair(), p11.CKR_OK)
}

func TestMechanisms(t *testing.T) {
	c := newClient(t)
	s := c.login(t)
	k := c.key(t, s, "k", true)
	listed := func() (all []uint) {
		t.Helper()
		list, err := c.GetMechanismList(c.slot)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range list {
			all = append(all, m.Mechanism)
		}
		return all
	}
	before := listed()
	c.set(t, "mechanisms without CKM_AES_GCM 0x1040")
	after := listed()
	if len(after) != len(before)-2 || slices.Contains(after, p11.CKM_AES_GCM) || slices.Contains(after, p11.CKM_EC_KEY_PAIR_GEN) || !slices.Contains(after, p11.CKM_AES_CBC) {
		t.Errorf("%d mechanisms, then %d: %x", len(before), len(after), after)
	}
	_, err := c.GetMechanismInfo(c.slot, gcmAlone())
	wants(t, "C_GetMechanismInfo", err, p11.CKR_MECHANISM_INVALID)
	_, err = c.gcm(s, k, []byte("twelve bytes"))
	wants(t, "C_EncryptInit", err, p11.CKR_MECHANISM_INVALID)
	_, _, err = c.GenerateKeyPair(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_EC_KEY_PAIR_GEN, nil)}, nil, nil)
	wants(t, "C_GenerateKeyPair", err, p11.CKR_MECHANISM_INVALID)
	_, err = c.GetMechanismInfo(c.slot, sha256Alone())
	wants(t, "C_GetMechanismInfo of another", err, p11.CKR_OK)
}

func TestBadTag(t *testing.T) {
	c := newClient(t)
	s := c.login(t)
	k := c.key(t, s, "k", true)
	iv := []byte("twelve bytes")
	b, err := c.gcm(s, k, iv)
	if err != nil {
		t.Fatal(err)
	}
	c.set(t, "bad-tag CKR_FUNCTION_FAILED")
	if got, err := c.opens(s, k, iv, b); err != nil || string(got) != string(plaintext) {
		t.Errorf("decrypted to %q, %v", got, err)
	}
	b[0] ^= 1
	_, err = c.opens(s, k, iv, b)
	wants(t, "a bad tag", err, p11.CKR_FUNCTION_FAILED)
	_, err = c.Decrypt(c.open(t), b)
	wants(t, "no operation", err, p11.CKR_OPERATION_NOT_INITIALIZED)
	_, err = c.Decrypt(9999, b)
	wants(t, "no session", err, p11.CKR_SESSION_HANDLE_INVALID)
}
