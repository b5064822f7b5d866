package fault_test

import (
	"maps"
	"testing"

	"strongroom/softhsm/fault"

	p11 "github.com/miekg/pkcs11"
)

const pinFlags = p11.CKF_USER_PIN_COUNT_LOW | p11.CKF_USER_PIN_FINAL_TRY | p11.CKF_USER_PIN_LOCKED

func TestPINTries(t *testing.T) {
	c := newClient(t)
	s := c.open(t)
	try := func(pin string, code p11.Error, flags uint, wrong, attempts, refused int) {
		t.Helper()
		wants(t, "C_Login", c.Login(s, p11.CKU_USER, pin), code)
		if code == p11.CKR_OK {
			if err := c.Logout(s); err != nil {
				t.Fatal(err)
			}
		}
		info, err := c.GetTokenInfo(c.slot)
		if err != nil || info.Flags&pinFlags != flags {
			t.Errorf("flags %x, %v: want %x", info.Flags&pinFlags, err, flags)
		}
		got, err := fault.Counts(c.script.PINs())
		if want := map[string]int{"wrong": wrong, "attempts": attempts, "refused": refused}; err != nil || !maps.Equal(got, want) {
			t.Errorf("counted %v, %v: want %v", got, err, want)
		}
	}
	const low, final, locked = p11.CKF_USER_PIN_COUNT_LOW, p11.CKF_USER_PIN_FINAL_TRY, p11.CKF_USER_PIN_LOCKED
	c.set(t, "pin-tries 3")
	try(c.pin, p11.CKR_OK, 0, 0, 1, 0)
	try("wrong one", p11.CKR_PIN_INCORRECT, low, 1, 2, 0)
	try(c.pin, p11.CKR_OK, 0, 0, 3, 0)
	try("wrong one", p11.CKR_PIN_INCORRECT, low, 1, 4, 0)
	try("wrong one", p11.CKR_PIN_INCORRECT, low|final, 2, 5, 0)
	c.set(t, "pin-tries 3", "# another version")
	try("wrong one", p11.CKR_PIN_INCORRECT, low|locked, 3, 6, 0)
	try("wrong one", p11.CKR_PIN_LOCKED, low|locked, 3, 6, 1)
	try(c.pin, p11.CKR_PIN_LOCKED, low|locked, 3, 6, 2)
	wants(t, "C_SetPIN", c.SetPIN(s, c.pin, "another"), p11.CKR_PIN_LOCKED)

	// The token itself never locked.
	c.set(t)
	wants(t, "C_Login", c.Login(s, p11.CKU_USER, c.pin), p11.CKR_OK)
}

// TestSetPIN: a wrong old PIN is an attempt, too; and the officer unlocks.
func TestSetPIN(t *testing.T) {
	c := newClient(t)
	const officer = "the officer's"
	if err := c.CloseAllSessions(c.slot); err != nil {
		t.Fatal(err)
	}
	// softhsm.New keeps no PIN of the officer, so here is another token.
	slots, err := c.GetSlotList(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, slot := range slots {
		if slot != c.slot {
			c.slot = slot
		}
	}
	if err := c.InitToken(c.slot, officer, "another"); err != nil {
		t.Fatal(err)
	}
	init := func() {
		t.Helper()
		s := c.open(t)
		defer c.CloseSession(s)
		if err := c.Login(s, p11.CKU_SO, officer); err != nil {
			t.Fatal(err)
		}
		if err := c.InitPIN(s, "right one"); err != nil {
			t.Fatal(err)
		}
	}
	init()
	c.set(t, "pin-tries 1")
	s := c.open(t)
	wants(t, "C_SetPIN", c.SetPIN(s, "wrong one", "new one"), p11.CKR_PIN_INCORRECT)
	wants(t, "C_Login", c.Login(s, p11.CKU_USER, "right one"), p11.CKR_PIN_LOCKED)
	c.CloseSession(s)
	init()
	s = c.open(t)
	wants(t, "C_Login", c.Login(s, p11.CKU_USER, "right one"), p11.CKR_OK)
}
