package fault_test

import (
	"fmt"
	"slices"
	"testing"

	p11 "github.com/miekg/pkcs11"
)

func TestRestart(t *testing.T) {
	c := newClient(t)
	s1, s2 := c.login(t), c.open(t)
	k := c.key(t, s1, "k", true)
	c.key(t, s2, "of the session", false)

	c.set(t, "generation 1")
	for _, s := range []p11.SessionHandle{s1, s2} {
		_, err := c.GetSessionInfo(s)
		wants(t, "a session from before", err, p11.CKR_SESSION_HANDLE_INVALID)
	}
	s := c.open(t)
	if s == s1 || s == s2 {
		t.Errorf("the number %d is used twice", s)
	}
	info, err := c.GetSessionInfo(s)
	if err != nil || info.State != p11.CKS_RW_PUBLIC_SESSION {
		t.Errorf("state %d, %v: want nobody logged in", info.State, err)
	}
	wants(t, "C_Login", c.Login(s, p11.CKU_USER, c.pin), p11.CKR_OK)
	if got := c.find(t, s, "k"); len(got) != 1 {
		t.Errorf("found %v, want one key", got)
	}
	if got := c.find(t, s, "of the session"); len(got) != 0 {
		t.Errorf("the key of a session that is gone is there: %v", got)
	}
	_, _ = k, s

	c.set(t, "generation 1", "# again")
	_, err = c.GetSessionInfo(s)
	wants(t, "a session under the same number", err, p11.CKR_OK)
	c.set(t, "# no generation")
	_, err = c.GetSessionInfo(s)
	wants(t, "a session without a number", err, p11.CKR_OK)
	c.set(t, "generation 0")
	_, err = c.GetSessionInfo(s)
	wants(t, "a session from before", err, p11.CKR_SESSION_HANDLE_INVALID)
}

func TestSessionsReuse(t *testing.T) {
	c := newClient(t)
	c.open(t)
	for generation := 1; generation <= 2; generation++ {
		c.set(t, fmt.Sprint("generation ", generation), "sessions reuse")
		_, err := c.GetSessionInfo(1)
		wants(t, "a session from before", err, p11.CKR_SESSION_HANDLE_INVALID)
		if s := c.open(t); s != 1 {
			t.Errorf("the first session is %d, want 1", s)
		}
	}
}

func TestSlotsShift(t *testing.T) {
	c := newClient(t)
	s := c.login(t)
	if info, err := c.GetSessionInfo(s); err != nil || info.SlotID != c.slot {
		t.Errorf("a session of slot %d says %d, %v", c.slot, info.SlotID, err)
	}
	before := c.slot
	c.set(t, "generation 3", "slots shift")
	_, err := c.GetTokenInfo(before)
	wants(t, "C_GetTokenInfo of the old slot", err, p11.CKR_SLOT_ID_INVALID)
	_, err = c.OpenSession(before, p11.CKF_SERIAL_SESSION)
	wants(t, "C_OpenSession in the old slot", err, p11.CKR_SLOT_ID_INVALID)
	if c.slot = c.token(t); c.slot != before+3 {
		t.Errorf("the slot is %d, want %d", c.slot, before+3)
	}
	s = c.login(t)
	if info, err := c.GetSessionInfo(s); err != nil || info.SlotID != c.slot {
		t.Errorf("a session of slot %d says %d, %v", c.slot, info.SlotID, err)
	}
	if m, err := c.GetMechanismList(c.slot); err != nil || len(m) == 0 {
		t.Errorf("mechanisms %v, %v", m, err)
	}
	wants(t, "C_CloseAllSessions", c.CloseAllSessions(c.slot), p11.CKR_OK)
	_, err = c.GetSessionInfo(s)
	wants(t, "a closed session", err, p11.CKR_SESSION_HANDLE_INVALID)
}

func TestHandlesShift(t *testing.T) {
	c := newClient(t)
	s := c.login(t)
	old := c.key(t, s, "k", true)
	iv := []byte("twelve bytes")
	b, err := c.gcm(s, old, iv)
	if err != nil {
		t.Fatal(err)
	}
	c.set(t, "generation 1", "handles shift")
	_, err = c.GetSessionInfo(s)
	wants(t, "a session from before", err, p11.CKR_SESSION_HANDLE_INVALID)
	s = c.login(t)
	_, err = c.gcm(s, old, iv)
	wants(t, "the old handle", err, p11.CKR_OBJECT_HANDLE_INVALID)
	k := c.find(t, s, "k")
	if len(k) != 1 || k[0] < 1<<20 {
		t.Fatalf("found %v, want one that is 2^20 at least", k)
	}
	if got, err := c.opens(s, k[0], iv, b); err != nil || string(got) != string(plaintext) {
		t.Errorf("decrypted to %q, %v", got, err)
	}
	if got := c.label(t, s, k[0]); got != "k" {
		t.Errorf("label %q", got)
	}
	wants(t, "C_DestroyObject", c.DestroyObject(s, k[0]), p11.CKR_OK)
}

// TestHandlesSwap: an old handle names another key, and works.
func TestHandlesSwap(t *testing.T) {
	for _, n := range []int{2, 3} {
		t.Run(fmt.Sprint(n, " keys"), func(t *testing.T) { testSwap(t, n) })
	}
}

func testSwap(t *testing.T, n int) {
	c := newClient(t)
	s := c.login(t)
	iv := []byte("twelve bytes")
	labels := []string{"one", "two", "three"}[:n]
	handles := make(map[string]p11.ObjectHandle)
	sealed := make(map[string][]byte)
	for _, l := range labels {
		handles[l] = c.key(t, s, l, true)
		b, err := c.gcm(s, handles[l], iv)
		if err != nil {
			t.Fatal(err)
		}
		sealed[l] = b
	}
	ofSession := c.key(t, s, "of the session", false)

	for generation := 1; generation <= 3; generation++ {
		c.set(t, fmt.Sprint("generation ", generation), "handles swap")
		_, err := c.GetSessionInfo(s)
		wants(t, "a session from before", err, p11.CKR_SESSION_HANDLE_INVALID)
		s = c.login(t)

		// Nothing was looked for yet: the old handles name others at once.
		for _, l := range labels {
			if got := c.label(t, s, handles[l]); got == l || !slices.Contains(labels, got) {
				t.Errorf("generation %d: the handle of %q names %q", generation, l, got)
			}
			if b, err := c.gcm(s, handles[l], iv); err != nil || string(b) == string(sealed[l]) {
				t.Errorf("generation %d: encryption under the old handle of %q: the same, or %v", generation, l, err)
			}
		}
		_, err = c.gcm(s, ofSession, iv)
		wants(t, "the handle of an object of a session", err, p11.CKR_OBJECT_HANDLE_INVALID)

		for _, l := range labels {
			found := c.find(t, s, l)
			if len(found) != 1 || found[0] == handles[l] {
				t.Fatalf("generation %d: found %v for %q, which was %d", generation, found, l, handles[l])
			}
			handles[l] = found[0]
			if got, err := c.opens(s, found[0], iv, sealed[l]); err != nil || string(got) != string(plaintext) {
				t.Errorf("generation %d: %q decrypts to %q, %v", generation, l, got, err)
			}
		}
		ofSession = c.key(t, s, "of the session", false)
		for _, h := range handles {
			if h == ofSession {
				t.Errorf("two objects have the handle %d", h)
			}
		}
		if b, err := c.gcm(s, ofSession, iv); err != nil || len(b) == 0 {
			t.Errorf("a new object: %v", err)
		}
		if c, err := c.CopyObject(s, handles["one"], []*p11.Attribute{p11.NewAttribute(p11.CKA_TOKEN, false)}); err != nil {
			t.Errorf("C_CopyObject: %v", err)
		} else if slices.Contains([]p11.ObjectHandle{handles["one"], ofSession}, c) {
			t.Errorf("two objects have the handle %d", c)
		}
	}
	// Destroyed is destroyed, and only that one.
	wants(t, "C_DestroyObject", c.DestroyObject(s, handles["one"]), p11.CKR_OK)
	_, err := c.gcm(s, handles["one"], iv)
	wants(t, "a destroyed key", err, p11.CKR_OBJECT_HANDLE_INVALID)
	if got, err := c.opens(s, handles["two"], iv, sealed["two"]); err != nil || string(got) != string(plaintext) {
		t.Errorf("\"two\" decrypts to %q, %v", got, err)
	}
	// A logout and a login give new handles in SoftHSM, and none to the application.
	wants(t, "C_Logout", c.Logout(s), p11.CKR_OK)
	wants(t, "C_Login", c.Login(s, p11.CKU_USER, c.pin), p11.CKR_OK)
	if got, err := c.opens(s, handles["two"], iv, sealed["two"]); err != nil || string(got) != string(plaintext) {
		t.Errorf("\"two\" decrypts to %q, %v", got, err)
	}
}

// TestPairsSwap: a private key is not exchanged with a public one.
func TestPairsSwap(t *testing.T) {
	c := newClient(t)
	s := c.login(t)
	pub, priv, err := c.GenerateKeyPair(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_EC_KEY_PAIR_GEN, nil)},
		[]*p11.Attribute{p11.NewAttribute(p11.CKA_EC_PARAMS, []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}), p11.NewAttribute(p11.CKA_TOKEN, true)},
		[]*p11.Attribute{p11.NewAttribute(p11.CKA_TOKEN, true), p11.NewAttribute(p11.CKA_PRIVATE, true)})
	if err != nil {
		t.Fatal(err)
	}
	c.set(t, "generation 1", "handles swap")
	c.GetSlotList(true)
	s = c.login(t)
	for h, class := range map[p11.ObjectHandle]byte{pub: p11.CKO_PUBLIC_KEY, priv: p11.CKO_PRIVATE_KEY} {
		a, err := c.GetAttributeValue(s, h, []*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, nil)})
		if err != nil || a[0].Value[0] != class {
			t.Errorf("%v, %v: want class %d", a, err, class)
		}
	}
}

func TestAway(t *testing.T) {
	c := newClient(t)
	s := c.login(t)
	c.set(t, "away CKR_DEVICE_REMOVED", "on all return CKR_OK")
	_, err := c.GetSlotList(true)
	wants(t, "C_GetSlotList", err, p11.CKR_DEVICE_REMOVED)
	_, err = c.GenerateRandom(s, 1)
	wants(t, "C_GenerateRandom", err, p11.CKR_DEVICE_REMOVED)
	wants(t, "C_Initialize", c.Initialize(), p11.CKR_OK) // the rule's word; the module would say that it already is
	c.set(t, "away 0x32 from C_Initialize")
	wants(t, "C_Initialize", c.Initialize(), p11.CKR_DEVICE_REMOVED)
	wants(t, "C_Finalize", c.Finalize(), p11.CKR_DEVICE_REMOVED)
	c.set(t)
	_, err = c.GenerateRandom(s, 1)
	wants(t, "C_GenerateRandom when it is back", err, p11.CKR_OK)
	c.set(t, "away CKR_DEVICE_ERROR", "generation 1")
	_, err = c.GenerateRandom(s, 1)
	wants(t, "C_GenerateRandom", err, p11.CKR_DEVICE_ERROR)
	c.set(t, "generation 1")
	_, err = c.GenerateRandom(s, 1)
	wants(t, "C_GenerateRandom after a restart", err, p11.CKR_SESSION_HANDLE_INVALID)
}

// TestInitializeAgain: what happens between C_Finalize and C_Initialize is no restart, and no session lives through it.
func TestInitializeAgain(t *testing.T) {
	c := newClient(t)
	s := c.login(t)
	wants(t, "C_Finalize", c.Finalize(), p11.CKR_OK)
	_, err := c.GenerateRandom(s, 1)
	wants(t, "C_GenerateRandom", err, p11.CKR_CRYPTOKI_NOT_INITIALIZED)
	c.set(t, "generation 5", "slots shift")
	wants(t, "C_Initialize", c.Initialize(), p11.CKR_OK)
	_, err = c.GenerateRandom(s, 1)
	wants(t, "C_GenerateRandom", err, p11.CKR_SESSION_HANDLE_INVALID)
	c.slot += 5
	c.login(t)
}

// TestSwapAcrossInitialize: a device restarts while the program has the library closed, and keeps its handles.
func TestSwapAcrossInitialize(t *testing.T) {
	c := newClient(t)
	c.set(t, "handles swap")
	wants(t, "C_Finalize", c.Finalize(), p11.CKR_OK)
	for generation := range 3 {
		c.set(t, fmt.Sprint("generation ", generation), "handles swap")
		wants(t, "C_Initialize", c.Initialize(), p11.CKR_OK)
		s := c.login(t)
		if generation == 0 {
			c.key(t, s, "one", true)
			c.key(t, s, "two", true)
		}
		one, two := c.find(t, s, "one"), c.find(t, s, "two")
		if len(one) != 1 || len(two) != 1 {
			t.Fatalf("found %v and %v", one, two)
		}
		wants(t, "C_Finalize", c.Finalize(), p11.CKR_OK)
		for range 2 { // the same generation, then the next
			wants(t, "C_Initialize", c.Initialize(), p11.CKR_OK)
			s = c.login(t)
			if got := c.label(t, s, one[0]) + " " + c.label(t, s, two[0]); got != "one two" {
				t.Errorf("generation %d: the handles name %s", generation, got)
			}
			wants(t, "C_Finalize", c.Finalize(), p11.CKR_OK)
			c.set(t, fmt.Sprint("generation ", generation+1), "handles swap")
			one, two = two, one
		}
	}
}

func TestStuck(t *testing.T) {
	c := newClient(t)
	s := c.login(t)
	lines := []string{"generation 1", "stuck CKR_CRYPTOKI_NOT_INITIALIZED"}
	c.set(t, lines...)
	for _, more := range []string{"# the same", "generation 1"} {
		_, err := c.GenerateRandom(s, 1)
		wants(t, "C_GenerateRandom", err, p11.CKR_CRYPTOKI_NOT_INITIALIZED)
		_, err = c.GetSlotList(true)
		wants(t, "C_GetSlotList", err, p11.CKR_CRYPTOKI_NOT_INITIALIZED)
		wants(t, "C_Initialize", c.Initialize(), p11.CKR_CRYPTOKI_ALREADY_INITIALIZED)
		if more == "# the same" {
			c.set(t, append(lines, more)...)
		} else {
			c.set(t, more)
		}
	}
	_, err := c.GetSlotList(true)
	wants(t, "C_GetSlotList without the line", err, p11.CKR_CRYPTOKI_NOT_INITIALIZED)
	wants(t, "C_Finalize", c.Finalize(), p11.CKR_OK)
	c.set(t, lines...)
	wants(t, "C_Initialize", c.Initialize(), p11.CKR_OK)
	c.login(t)
}
