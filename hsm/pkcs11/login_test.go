package pkcs11

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

func TestLogin(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags uint
		code  uint // of C_Login, if it does not succeed
		calls int  // of C_Login
		isPIN bool
		text  string
	}{
		{"locked before", p11.CKF_USER_PIN_LOCKED, 0, 0, true, `CKR_PIN_LOCKED (0xA4): the token "fake" (serial number 42) has locked its user PIN`},
		{"last chance", p11.CKF_USER_PIN_FINAL_TRY, 0, 0, true, `would lock its user PIN after one more wrong one, so strongroom does not try`},
		{"wrong", 0, p11.CKR_PIN_INCORRECT, 1, true, `CKR_PIN_INCORRECT (0xA0): the token "fake" (serial number 42) refused the PIN, which will not be tried again: correct the PIN`},
		{"wrong before", p11.CKF_USER_PIN_COUNT_LOW, p11.CKR_PIN_INCORRECT, 1, true, "; wrong PINs are being counted"},
		{"locked now", 0, p11.CKR_PIN_LOCKED, 1, true, "CKR_PIN_LOCKED (0xA4)"},
		{"expired", 0, p11.CKR_PIN_EXPIRED, 1, true, "CKR_PIN_EXPIRED (0xA3)"},
		{"somebody else's", 0, p11.CKR_USER_ALREADY_LOGGED_IN, 1, false, "so that the PIN was not checked"},
		{"broken", 0, p11.CKR_DEVICE_ERROR, 1, false, "C_Login: CKR_DEVICE_ERROR (0x30)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake()
			f.flags |= c.flags
			if c.code != 0 {
				f.failing(always("C_Login", c.code))
			}
			pin := []byte("1234")
			_, err := newToken(t.Context(), f, Config{PIN: func() ([]byte, error) { return pin, nil }}, true)
			want(t, err, hsm.ErrUnavailable, c.text)
			if errors.Is(err, ErrPIN) != c.isPIN {
				t.Errorf("error %q: is ErrPIN = %v", err, !c.isPIN)
			}
			if got := f.count("C_Login"); got != c.calls {
				t.Errorf("%d logins, want %d", got, c.calls)
			}
			if c.calls > 0 && string(pin) != "\x00\x00\x00\x00" {
				t.Errorf("the PIN is still in memory")
			}
			if strings.Contains(err.Error(), "1234") {
				t.Errorf("the PIN is in the error %q", err)
			}
		})
	}
	t.Run("no PIN set", func(t *testing.T) {
		f := newFake()
		f.flags &^= p11.CKF_USER_PIN_INITIALIZED
		_, err := newToken(t.Context(), f, Config{}, true)
		want(t, err, hsm.ErrUnavailable, "has no user PIN yet")
	})
}

func TestMissingMechanism(t *testing.T) {
	all := newFake().mechanism
	for _, c := range []struct {
		mechanism uint
		name      string
	}{
		{p11.CKM_AES_GCM, "AES-GCM (CKM_AES_GCM)"},
		{p11.CKM_AES_KEY_GEN, "AES key generation (CKM_AES_KEY_GEN)"},
		{p11.CKM_EC_KEY_PAIR_GEN, "EC key pair generation (CKM_EC_KEY_PAIR_GEN)"},
		{p11.CKM_ECDSA, "ECDSA (CKM_ECDSA)"},
	} {
		f := newFake()
		f.mechanism = slices.DeleteFunc(slices.Clone(all), func(m uint) bool { return m == c.mechanism })
		_, err := newToken(t.Context(), f, Config{}, true)
		want(t, err, hsm.ErrUnavailable, `the token "fake" (serial number 42) (nobody none) does not offer `+c.name+", without which it cannot be used")
		if f.count("C_Login") != 0 {
			t.Error("the PIN was used on a token that is no good")
		}
	}
	f := newFake()
	f.mechanism = nil
	_, err := newToken(t.Context(), f, Config{}, true)
	want(t, err, hsm.ErrUnavailable, "does not offer AES-GCM (CKM_AES_GCM), AES key generation (CKM_AES_KEY_GEN), EC key pair generation (CKM_EC_KEY_PAIR_GEN), ECDSA (CKM_ECDSA)")
}

// A token may list what it does not do. Then the canary fails, or the first signer, and says which mechanism it was about.
func TestMechanismInNameOnly(t *testing.T) {
	pin := Config{PIN: func() ([]byte, error) { return []byte("1234"), nil }}
	for _, function := range []string{"C_Encrypt", "C_Decrypt"} {
		f := newFake()
		f.failing(always(function, p11.CKR_MECHANISM_INVALID))
		_, err := newToken(t.Context(), f, pin, true)
		want(t, err, hsm.ErrUnavailable, function+": CKR_MECHANISM_INVALID (0x70): the token does not do AES-GCM")
	}
	f := newFake()
	token := f.open(t, pin)
	f.failing(always("C_GenerateKeyPair", p11.CKR_MECHANISM_INVALID))
	_, err := token.GenerateSigner(t.Context(), anID(), label)
	want(t, err, hsm.ErrUnavailable, "C_GenerateKeyPair: CKR_MECHANISM_INVALID (0x70): the token does not make key pairs for ECDSA on P-256")
	want(t, fault("C_SignInit", p11.Error(p11.CKR_MECHANISM_INVALID)), hsm.ErrUnavailable, "the token does not do ECDSA of a digest")
}

func TestCanaries(t *testing.T) {
	pin := Config{PIN: func() ([]byte, error) { return []byte("1234"), nil }}
	f := newFake()
	_, err := newToken(t.Context(), f, pin, false)
	want(t, err, hsm.ErrUnavailable, "run: strongroom init")
	if len(f.objects) != 0 {
		t.Error("opening made something")
	}
	for range 2 {
		f.open(t, pin)
	}
	if len(f.objects) != 1 {
		t.Errorf("the token has %d objects, want the canary", len(f.objects))
	}
	if _, err = newToken(t.Context(), f, pin, false); err != nil {
		t.Error(err)
	}
	f.plant(canaryID, func(map[uint][]byte) {})
	_, err = newToken(t.Context(), f, pin, false)
	want(t, err, hsm.ErrUnavailable, "destroy all but one")
}

func TestErrorText(t *testing.T) {
	for _, c := range []struct {
		function string
		code     uint
		kind     error
		text     string
	}{
		{"C_Encrypt", 0x30, hsm.ErrUnavailable, "hsm unavailable: C_Encrypt: CKR_DEVICE_ERROR (0x30): the HSM or its client software reports a fault; look into their logs"},
		{"C_EncryptInit", 0x82, hsm.ErrNoKey, "hsm holds no such key: C_EncryptInit: CKR_OBJECT_HANDLE_INVALID (0x82): the token has forgotten the handle of the key"},
		{"C_DecryptInit", 0x60, hsm.ErrNoKey, "hsm holds no such key: C_DecryptInit: CKR_KEY_HANDLE_INVALID (0x60): the token has forgotten the handle of the key"},
		{"C_EncryptInit", 0x70, hsm.ErrUnavailable, "hsm unavailable: C_EncryptInit: CKR_MECHANISM_INVALID (0x70): the token does not do AES-GCM with an IV of 12 bytes that is given to it, or its policy (FIPS mode) forbids it"},
		{"C_OpenSession", 0x7, hsm.ErrUnavailable, "hsm unavailable: C_OpenSession: CKR_ARGUMENTS_BAD (0x7): the token gives no more sessions; configure fewer, or stop other users of the token"},
		{"C_Initialize", 0x7, hsm.ErrUnavailable, "hsm unavailable: C_Initialize: CKR_ARGUMENTS_BAD (0x7): the PKCS#11 module does not start: see its own configuration, and hsm.init_args, which few modules want and others refuse"},
		{"C_Initialize", 0x191, hsm.ErrUnavailable, "hsm unavailable: C_Initialize: CKR_CRYPTOKI_ALREADY_INITIALIZED (0x191): something else in this process uses the PKCS#11 module already"},
		{"C_Encrypt", 0x7, hsm.ErrUnavailable, "hsm unavailable: C_Encrypt: CKR_ARGUMENTS_BAD (0x7)"},
		{"C_Decrypt", 0x42, hsm.ErrUnavailable, "hsm unavailable: C_Decrypt: CKR_AEAD_DECRYPT_FAILED (0x42)"},
		{"C_Encrypt", 0x80000001, hsm.ErrUnavailable, "hsm unavailable: C_Encrypt: an error of this vendor's own (0x80000001)"},
		{"C_Encrypt", 0x7777, hsm.ErrUnavailable, "hsm unavailable: C_Encrypt: an error unknown to PKCS #11 v2.40 (0x7777)"},
	} {
		err := fault(c.function, p11.Error(c.code))
		if got := err.Error(); got != c.text {
			t.Errorf("got  %s\nwant %s", got, c.text)
		}
		want(t, err, c.kind, "")
	}
	if fault("C_Encrypt", nil) != nil {
		t.Error("success is an error")
	}
	want(t, fault("C_GenerateRandom", errors.New("resource pool timed out")), hsm.ErrUnavailable, "C_GenerateRandom: resource pool timed out")
}
