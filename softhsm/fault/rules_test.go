package fault_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"
)

func TestForwards(t *testing.T) {
	c := newClient(t)
	s := c.login(t)
	iv := []byte("twelve bytes")
	k := c.key(t, s, "k", true)
	for _, lines := range [][]string{nil, {""}, {"# nothing", "", "  \t# nothing"}, {"seed 1"}} {
		if lines != nil {
			c.set(t, lines...)
		}
		b, err := c.gcm(s, k, iv)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.opens(s, k, iv, b); err != nil || !bytes.Equal(got, plaintext) {
			t.Errorf("%q: decrypted to %q, %v", lines, got, err)
		}
	}
	if err := c.DigestInit(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_SHA256, nil)}); err != nil {
		t.Fatal(err)
	}
	if d, err := c.Digest(s, []byte("abc")); err != nil || fmt.Sprintf("%x", d[:4]) != "ba7816bf" {
		t.Errorf("digest %x, %v", d, err)
	}
	if i, err := c.GetInfo(); err != nil || !strings.Contains(i.ManufacturerID, "SoftHSM") {
		t.Errorf("%+v, %v", i, err)
	}
}

// pattern makes n calls of C_GenerateRandom; a 1 is one that failed.
func (c *client) pattern(t *testing.T, s p11.SessionHandle, n int) string {
	t.Helper()
	var b strings.Builder
	for range n {
		_, err := c.GenerateRandom(s, 1)
		switch {
		case err == nil:
			b.WriteByte('0')
		case err == p11.Error(p11.CKR_DEVICE_ERROR):
			b.WriteByte('1')
		default:
			t.Fatal(err)
		}
	}
	return b.String()
}

func TestWhen(t *testing.T) {
	c := newClient(t)
	s := c.login(t)
	for _, test := range []struct{ when, want string }{
		{"", "1111111111"},
		{"instead", "1111111111"},
		{"after", "1111111111"},
		{"once", "1000000000"},
		{"times 2", "1100000000"},
		{"first 3", "1110000000"},
		{"skip 4", "0000111111"},
		{"every 3", "0010010010"},
		{"one-in 1", "1111111111"},
		{"skip 2 every 3", "0000100100"},
		{"every 3 skip 2", "0000100100"},
		{"skip 2 first 3", "0011100000"},
		{"skip 1 every 2 times 2", "0010100000"},
		{"every 2 first 5", "0101000000"},
		{"skip 0x3 once", "0001000000"},
		{"once across processes", "1000000000"},
		{"every 4 times 2 across processes after", "0001000100"},
	} {
		c.set(t, "on C_GenerateRandom return CKR_DEVICE_ERROR "+test.when)
		if got := c.pattern(t, s, len(test.want)); got != test.want {
			t.Errorf("%q: %s, want %s", test.when, got, test.want)
		}
	}
}

func TestChance(t *testing.T) {
	c := newClient(t)
	s := c.login(t)
	pattern := func(lines ...string) string {
		c.set(t, lines...)
		return c.pattern(t, s, 2000)
	}
	const rule = "on C_GenerateRandom return CKR_DEVICE_ERROR one-in 4"
	one, other := pattern(rule), pattern(rule)
	if one == other {
		t.Error("without a seed, the same calls fail twice")
	}
	if n := strings.Count(one, "1"); n < 350 || n > 650 { // 500, and 7.7 standard deviations
		t.Errorf("%d of 2000 failed, want about 500", n)
	}
	seeded := pattern("seed 1", rule)
	if seeded != pattern(rule, "seed 1") {
		t.Error("with a seed, other calls fail")
	}
	if seeded == pattern("seed 2", rule) {
		t.Error("with another seed, the same calls fail")
	}
}

func TestFunctions(t *testing.T) {
	c := newClient(t)
	s := c.login(t)
	calls := map[string]func() error{
		"C_GenerateRandom":    func() error { _, err := c.GenerateRandom(s, 1); return err },
		"C_GetSessionInfo":    func() error { _, err := c.GetSessionInfo(s); return err },
		"C_FindObjectsInit":   func() error { return c.FindObjectsInit(s, nil) },
		"C_FindObjectsFinal":  func() error { return c.FindObjectsFinal(s) },
		"C_GetSlotList":       func() error { _, err := c.GetSlotList(true); return err },
		"C_GetInfo":           func() error { _, err := c.GetInfo(); return err },
		"C_GetMechanismInfo":  func() error { _, err := c.GetMechanismInfo(c.slot, gcmAlone()); return err },
		"C_DigestInit":        func() error { return c.DigestInit(s, sha256Alone()) },
		"C_GenerateKey":       func() error { _, err := c.tryKey(s, "k", false); return err },
		"C_CloseSession":      func() error { return c.CloseSession(s) },
		"C_GetOperationState": func() error { _, err := c.GetOperationState(s); return err },
		"C_Initialize":        func() error { return c.Initialize() },
	}
	for who, want := range map[string]string{
		"C_GenerateRandom":             "C_GenerateRandom",
		"C_GenerateRandom,C_GetInfo":   "C_GenerateRandom C_GetInfo",
		"C_Generate*":                  "C_GenerateRandom C_GenerateKey",
		"C_FindObjects*":               "C_FindObjectsInit C_FindObjectsFinal",
		"data":                         "C_GenerateRandom C_DigestInit",
		"objects":                      "C_FindObjectsInit C_FindObjectsFinal C_GenerateKey",
		"sessions":                     "C_GetSessionInfo C_CloseSession C_GetOperationState",
		"sessions,-C_CloseSession":     "C_GetSessionInfo C_GetOperationState",
		"all,-data,-objects,-sessions": "C_GetSlotList C_GetInfo C_GetMechanismInfo C_Initialize",
		"all":                          "C_GenerateRandom C_GetSessionInfo C_FindObjectsInit C_FindObjectsFinal C_GetSlotList C_GetInfo C_GetMechanismInfo C_DigestInit C_GenerateKey C_CloseSession C_GetOperationState C_Initialize",
		"*":                            "C_GenerateRandom C_GetSessionInfo C_FindObjectsInit C_FindObjectsFinal C_GetSlotList C_GetInfo C_GetMechanismInfo C_DigestInit C_GenerateKey C_CloseSession C_GetOperationState C_Initialize",
	} {
		// The other calls are answered too, so that none takes effect.
		c.set(t, "on "+who+" return CKR_DEVICE_ERROR", "on all return CKR_DEVICE_MEMORY")
		for name, call := range calls {
			code := p11.Error(p11.CKR_DEVICE_MEMORY)
			for _, w := range strings.Fields(want) {
				if w == name {
					code = p11.CKR_DEVICE_ERROR
				}
			}
			wants(t, who+": "+name, call(), code)
		}
	}
}

func gcmAlone() []*p11.Mechanism    { return []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_GCM, nil)} }
func sha256Alone() []*p11.Mechanism { return []*p11.Mechanism{p11.NewMechanism(p11.CKM_SHA256, nil)} }

// TestAfter: whether the call took effect.
func TestAfter(t *testing.T) {
	c := newClient(t)
	s := c.login(t)
	c.set(t, "on C_GenerateKey return CKR_DEVICE_ERROR")
	_, err := c.tryKey(s, "instead", true)
	wants(t, "C_GenerateKey", err, p11.CKR_DEVICE_ERROR)
	c.set(t, "on C_GenerateKey return CKR_DEVICE_ERROR after")
	_, err = c.tryKey(s, "after", true)
	wants(t, "C_GenerateKey", err, p11.CKR_DEVICE_ERROR)
	for label, n := range map[string]int{"instead": 0, "after": 1} {
		if found := c.find(t, s, label); len(found) != n {
			t.Errorf("%s: %d keys, want %d", label, len(found), n)
		}
	}
}

// TestOrder: the first rule that answers wins, delays add up, and the rules below do not count the call.
func TestOrder(t *testing.T) {
	c := newClient(t)
	s := c.login(t)
	c.set(t,
		"on C_GenerateRandom delay 30",
		"on data delay 20 after",
		"on C_GenerateRandom return CKR_DEVICE_ERROR first 2",
		"on C_GenerateRandom return CKR_DEVICE_MEMORY once",
		"on C_GenerateRandom delay 1000 first 2 skip 1")
	var codes []error
	for range 3 {
		begin := time.Now()
		_, err := c.GenerateRandom(s, 1)
		if took := time.Since(begin); took < 50*time.Millisecond || took > 900*time.Millisecond {
			t.Errorf("a call took %v, want 50 ms", took)
		}
		codes = append(codes, err)
	}
	wants(t, "the first call", codes[0], p11.CKR_DEVICE_ERROR)
	wants(t, "the second call", codes[1], p11.CKR_DEVICE_ERROR)
	wants(t, "the third call", codes[2], p11.CKR_DEVICE_MEMORY)
	begin := time.Now()
	_, err := c.GenerateRandom(s, 1) // the first that the last rule sees
	wants(t, "the fourth call", err, p11.CKR_OK)
	if took := time.Since(begin); took > 900*time.Millisecond {
		t.Errorf("a call took %v, want 50 ms", took)
	}
	if _, err = c.GenerateRandom(s, 1); time.Since(begin) < time.Second || err != nil {
		t.Errorf("the fifth call was not delayed by a second, or %v", err)
	}
}

// TestDropSession: the session of the call is gone, and no other.
func TestDropSession(t *testing.T) {
	c := newClient(t)
	keep := c.login(t)
	for _, test := range []struct {
		what  string
		code  p11.Error
		found int
	}{
		{"drop-session", p11.CKR_SESSION_HANDLE_INVALID, 0},
		{"drop-session CKR_DEVICE_ERROR", p11.CKR_DEVICE_ERROR, 0},
		{"drop-session CKR_DEVICE_ERROR after once", p11.CKR_DEVICE_ERROR, 1},
	} {
		c.set(t, "on C_GetSlotList,C_GenerateKey "+test.what)
		if _, err := c.GetSlotList(true); err != nil { // it is about no session
			t.Errorf("%s: C_GetSlotList: %v", test.what, err)
		}
		s := c.open(t)
		_, err := c.tryKey(s, test.what, true)
		wants(t, test.what, err, test.code)
		_, err = c.GenerateRandom(s, 1)
		wants(t, test.what+": again", err, p11.CKR_SESSION_HANDLE_INVALID)
		if found := c.find(t, keep, test.what); len(found) != test.found {
			t.Errorf("%s: %d keys were made, want %d", test.what, len(found), test.found)
		}
	}
}

func TestIdle(t *testing.T) {
	c := newClient(t)
	s, idle := c.login(t), c.open(t)
	c.set(t, "idle 300")
	for begin := time.Now(); time.Since(begin) < 500*time.Millisecond; time.Sleep(10 * time.Millisecond) {
		_, err := c.GenerateRandom(s, 1)
		wants(t, "a session that is in use", err, p11.CKR_OK)
	}
	for range 2 {
		_, err := c.GenerateRandom(idle, 1)
		wants(t, "an idle session", err, p11.CKR_SESSION_HANDLE_INVALID)
	}
}
