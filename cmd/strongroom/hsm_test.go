package main

import (
	"strings"
	"testing"

	"github.com/BurntSushi/toml"

	"strongroom/hsm/pkcs11"
)

func TestConfigBlock(t *testing.T) {
	r := &pkcs11.Report{Fit: pkcs11.Fit{Module: "/m.so", Label: `a "label" = [x]`, Serial: "42", Sessions: 8, IV: pkcs11.IVAppended, SessionCopies: true}}
	read := func() (got struct{ HSM HSMConfig }) {
		t.Helper()
		block := configBlock(r, pkcs11.Config{SyncDir: "/tokens"})
		meta, err := toml.Decode(block, &got)
		if err != nil || len(meta.Undecoded()) > 0 {
			t.Fatalf("%s: %v, %v", block, err, meta.Undecoded())
		}
		return got
	}
	want := HSMConfig{Module: "/m.so", TokenLabel: `a "label" = [x]`, Sessions: 8, IV: "device-appended", SessionCopies: true, SyncDir: "/tokens"}
	if got := read(); got.HSM != want {
		t.Errorf("got  %+v\nwant %+v", got.HSM, want)
	}
	r.Fit.Label = "" // others have it too
	r.Fit.IV, r.Fit.SessionCopies = pkcs11.IVHost, false
	r.Sessions = pkcs11.SessionFigures{Opened: 14, Refused: "C_OpenSession: CKR_SESSION_COUNT (0xB1)"}
	want = HSMConfig{Module: "/m.so", TokenSerial: "42", Sessions: 8, Workers: 1, SyncDir: "/tokens"}
	if got := read(); got.HSM != want {
		t.Errorf("got  %+v\nwant %+v", got.HSM, want)
	}
}

func TestCheckText(t *testing.T) {
	r := &pkcs11.Report{
		Token: pkcs11.Info{Label: "a\x1b[2Jb", Serial: "42", Model: "M", Manufacturer: "V"},
		Findings: []pkcs11.Finding{
			{Name: "one", Verdict: pkcs11.OK, Detail: "fine"},
			{Name: "two", Verdict: pkcs11.Missing, Needed: true, Detail: "not there", Remedy: "buy another"},
		},
		Load: []pkcs11.LoadFigures{
			{Bytes: 32, Sessions: 1, PerSecond: 1234.5, P50US: 800, P99US: 12_345}, {Bytes: 32, Sessions: 2, PerSecond: 2000, P50US: 900, P99US: 1000},
			{Bytes: 2400, Sessions: 1, PerSecond: 999, P50US: 1000, P99US: 1100},
		},
		Fit: pkcs11.Fit{Lacking: []string{"two"}},
	}
	text := checkText(r, "[hsm]\n")
	for _, want := range []string{
		"ok       one  fine\n", "missing  two  not there\n              → buy another\n",
		"at a time  32 bytes", "\n1          1234/s  800 µs  12.3 ms  999/s  1000 µs  1100 µs\n", "\n2          2000/s  900 µs  1000 µs\n",
		"\nNOT USABLE: two\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "[hsm]") || strings.Contains(text, "\x1b") {
		t.Errorf("there is a configuration, or a control character, in\n%s", text)
	}
}

func TestDescribedObjects(t *testing.T) {
	const key = "1b5c0e5e-7a53-4bd8-9a2b-5d8c5a0f2f0e"
	objects := describedObjects([]pkcs11.Object{
		{Label: "strongroom/" + key + "/0", ID: "01", Use: "key", Class: "CKO_SECRET_KEY"},
		{Label: "strongroom/" + key + "/0", ID: "01", Use: "key", Class: "CKO_SECRET_KEY"},
		{Label: "strongroom/canary", ID: "02", Use: "canary", Class: "CKO_SECRET_KEY"},
		{Label: "strongroom/check/x", ID: "03", Use: "check", Class: "CKO_SECRET_KEY"},
		{Label: "strongroom/hand-made", ID: "04", Use: "key", Class: "CKO_SECRET_KEY"},
		{Label: "strongroom/system/audit", ID: "05", Use: "key", Class: "CKO_PRIVATE_KEY"},
		{Label: "strongroom/system/audit", ID: "05", Use: "key", Class: "CKO_PUBLIC_KEY"},
	})
	no := false
	objects[0].Known = &no
	text := inventoryText([]pkcs11.TokenState{{Info: pkcs11.Info{Label: "vault"}, PIN: "locked", Sessions: 3, MaxSessions: 16, Lacks: []string{"AES-GCM"}}}, objects, true)
	for _, want := range []string{
		"locked  3 of 16   AES-GCM\n", "01      2 × secret key           key " + key + ", NOT IN THE STORE\n", "the canary, by which",
		"left by a check that was killed", "04      secret key               not known\n", "05      private key, public key  a key of the deployment's own\n", "\n7 objects\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if text := inventoryText(nil, nil, false); text != "The module shows no initialised token.\n" {
		t.Errorf("got %q", text)
	}
}
