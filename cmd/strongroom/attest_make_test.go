package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom/kms/attest"
	"strongroom/kms/attest/attesttest"
)

// newFakeRig makes as much of a rig as attest needs, and goes to an empty directory.
func newFakeRig(t *testing.T) string {
	t.Helper()
	d := &devRig{dir: t.TempDir()}
	if err := os.Mkdir(d.tokenDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.storeFile(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.makeAttestationRoot(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	return d.dir
}

func TestAttestMake(t *testing.T) {
	rig := newFakeRig(t)
	made := func(args ...string) said {
		t.Helper()
		return command(t, append([]string{"attest", "make", "--dev", rig, "--key", "k"}, args...)...)
	}
	made("--out", "doc").want(t, exitOK, "made the recipient's key, k").wantOut(t, "")
	wantFiles(t, "doc", "k")
	for _, name := range []string{"doc", "k"} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	j, _ := inspected(t, exitOK, "--dir", rig, "doc")
	if j.Root != "dev" || j.Kind != attest.Enclave || j.PublicKey.Bits != 2048 || j.Debug {
		t.Errorf("%+v", j)
	}
	if j, _ := inspected(t, exitFailed, "doc"); fmt.Sprint(j.ReasonCodes) != "[root not trusted]" {
		t.Errorf("without the rig: %q", j.Reasons)
	}
	inspected(t, exitOK, "--anchor", filepath.Join(rig, "attestation", "root.pem"), "doc")

	// The key is used again, and nothing is overwritten.
	made("--out", "doc").want(t, exitFailed, "write doc: it exists already")
	register := strings.Repeat("0123456789ABCDEF", 6)
	if s := made("--out", "tpm", "--kind", "nitrotpm", "--pcr", "7="+register, "--pcr", "23="+register, "--module-id", "m", "--user-data", "hello", "--nonce", "@k",
		"--at", time.Now().Add(-4*time.Minute).Format(time.RFC3339)).want(t, exitOK); s.stderr != "" {
		t.Errorf("said %q", s.stderr)
	}
	key, err := os.ReadFile("k")
	if err != nil {
		t.Fatal(err)
	}
	want := j.PublicKey.SHA256
	j, _ = inspected(t, exitFailed, "--dir", rig, "tpm")
	if !slices.Contains(j.ReasonCodes, "malformed") {
		t.Errorf("a nonce of %d bytes was taken", len(key))
	}
	if err := os.WriteFile("nonce", []byte("123"), 0o600); err != nil {
		t.Fatal(err)
	}
	made("--out", "tpm2", "--kind", "nitrotpm", "--pcr", "7="+register, "--pcr", "23="+register, "--module-id", "m", "--user-data", "hello", "--nonce", "@nonce",
		"--at", "4m").want(t, exitOK)
	j, _ = inspected(t, exitOK, "--dir", rig, "tpm2")
	if j.Kind != attest.NitroTPM || j.PCRs["7"] != strings.ToLower(register) || j.PCRs["23"] != strings.ToLower(register) || j.ModuleID != "m" ||
		string(j.UserData) != "hello" || string(j.Nonce) != "123" || j.PublicKey.SHA256 != want || time.Since(*j.Time).Round(time.Minute) != 4*time.Minute {
		t.Errorf("%+v", j)
	}

	// On stdout, as it is and as text.
	if s := made().want(t, exitOK); s.stdout[0] != 0x84 {
		t.Errorf("began %q", s.stdout[:4])
	}
	made("--json", "--out", "j").want(t, exitOK).wantOut(t, `{"Files":["j"]}`+"\n")
	if s := made("--json").want(t, exitOK); !strings.HasPrefix(s.stdout, `{"Document":"hE`) {
		t.Errorf("printed %s", s.stdout)
	}
	text := made("--base64", "--debug", "--pcr", "3="+register).want(t, exitOK).stdout
	if _, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(text, "\n")); err != nil {
		t.Error(err)
	}
	s := typed(t, text, "attest", "inspect", "--json", "--dir", rig, "-").want(t, exitFailed, "warning: this enclave runs in debug mode")
	if !strings.Contains(s.stdout, `"reason_codes":["debug mode"]`) {
		t.Errorf("%s", s.stdout)
	}
	s = typed(t, command(t, "attest", "make", "--dev", rig, "--no-key").want(t, exitOK).stdout, "attest", "inspect", "--json", "--dir", rig, "-").want(t, exitFailed)
	if !strings.Contains(s.stdout, `"verified":true,"recipient_key_ok":false,"reasons":["recipient key not usable: there is none"]`) {
		t.Errorf("%s", s.stdout)
	}
}

func TestAttestMakeCases(t *testing.T) {
	rig := newFakeRig(t)
	list := command(t, "attest", "make", "--list-cases").want(t, exitOK).stdout
	if !strings.HasPrefix(list, "CASE ") {
		t.Errorf("listed\n%s", list)
	}
	for _, odd := range attesttest.Cases() {
		expected := "accepted"
		if odd.Reason != 0 {
			expected = odd.Reason.String()
		}
		at := strings.Index(list, "\n"+odd.Name+" ")
		if at < 0 || !strings.HasPrefix(strings.TrimLeft(list[at+1+len(odd.Name):], " "), expected) {
			t.Errorf("%s, %s is not listed", odd.Name, expected)
		}
	}
	if all := attesttest.Cases(); len(all) > 0 {
		odd := all[slices.IndexFunc(all, func(c attesttest.Case) bool { return c.Reason == attest.BadSignature })]
		command(t, "attest", "make", "--dev", rig, "--key", "k", "--case", odd.Name, "--out", "doc").want(t, exitOK)
		if j, _ := inspected(t, exitFailed, "--dir", rig, "doc"); j.ReasonCodes[0] != "signature not valid" {
			t.Errorf("%s: %q", odd.Name, j.Reasons)
		}
	}
}

func TestAttestMakeMisused(t *testing.T) {
	rig := newFakeRig(t)
	if err := os.WriteFile("notkey", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "attest", "make", "--dev", rig, "--key", "k", "--out", "doc").want(t, exitOK)
	zero, one := strings.Repeat("00", 48), strings.Repeat("01", 48)
	for args, want := range map[string]string{
		"":                                                   "--dev DIR is required",
		"--dev nowhere --key k":                              "there is no root for attestation documents in ",
		"--dev RIG":                                          "--key is missing",
		"--dev RIG --key k x":                                `"x" is one argument too many`,
		"--dev RIG --key k --kind tdx":                       "--kind tdx: must be enclave or nitrotpm",
		"--dev RIG --key k2 --bits 1024":                     "--bits 1024: must be 2048, 3072 or 4096",
		"--dev RIG --key k --bits 4096":                      "--bits 4096: the key in k has 2048",
		"--dev RIG --key k --pcr 0":                          "PCR0 must have 96 hex digits",
		"--dev RIG --key k --pcr 00=" + one:                  "is not N=HEX, with N from 0 to 31",
		"--dev RIG --key k --pcr 32=" + one:                  "is not N=HEX, with N from 0 to 31",
		"--dev RIG --key k --pcr 1=0x" + one:                 "PCR1 must have 96 hex digits",
		"--dev RIG --key k --pcr 1=" + one[2:]:               "PCR1 must have 96 hex digits",
		"--dev RIG --key k --pcr 1=ONE --pcr 1=ONE":          "PCR1 is given twice",
		"--dev RIG --key k --debug --pcr 1=ONE":              "PCR1 is zero in debug mode",
		"--dev RIG --key k --debug --kind nitrotpm":          "only enclaves have a debug mode",
		"--dev RIG --key k --kind nitrotpm --pcr 24=" + zero: "a NitroTPM has no PCR24",
		"--dev RIG --key k --at soon":                        "--at \"soon\": is neither a time",
		"--dev RIG --key k --nonce @nowhere":                 "--nonce: read nowhere: no such file",
		"--dev RIG --key k --no-key":                         "--key and --no-key cannot both be",
		"--dev RIG --key /dev/zero":                          "read /dev/zero: it is longer than 65536 bytes",
		"--dev RIG --key k --nonce @/dev/zero":               "--nonce: read /dev/zero: it is longer than",
		"--dev RIG --key k --case nobody":                    `there is none called "nobody"`,
	} {
		args = strings.NewReplacer("RIG", rig, "ONE", one).Replace(args)
		command(t, append([]string{"attest", "make"}, strings.Fields(args)...)...).want(t, exitMisuse, want).wantOut(t, "")
	}
	command(t, "attest", "make", "--dev", rig, "--key", "notkey").want(t, exitMisuse, "the key notkey: ").wantOut(t, "")
	runWith(t, strings.NewReader(""), newTerminal(""), "attest", "make", "--dev", rig, "--key", "k3").want(t, exitMisuse, "the document is binary, and stdout is a terminal", "hint: --out FILE or --base64")
	wantFiles(t, "doc", "k", "notkey")

	// A rig of before there were such roots.
	if err := os.RemoveAll(filepath.Join(rig, "attestation")); err != nil {
		t.Fatal(err)
	}
	command(t, "attest", "make", "--dev", rig, "--key", "k").want(t, exitMisuse, "there is no root for attestation documents in "+rig, "hint: strongroom dev --dir ")
	inspected(t, exitFailed, "--dir", rig, "doc")
}

// sealedTo returns an envelope with the plaintext for the key of a document.
func sealedTo(t *testing.T, rig, document, plaintext string) []byte {
	t.Helper()
	trust, err := (&devRig{dir: rig}).attestation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v, err := attest.New(trust)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	a, err := v.Verify(raw, "111122223333", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := a.Seal([]byte(plaintext))
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

func TestAttestOpen(t *testing.T) {
	rig := newFakeRig(t)
	command(t, "attest", "make", "--dev", rig, "--key", "k", "--bits", "3072", "--out", "doc").want(t, exitOK)
	command(t, "attest", "make", "--dev", rig, "--key", "other", "--out", "doc2").want(t, exitOK)
	envelope := sealedTo(t, rig, "doc", "hunter2")
	if err := os.WriteFile("e", envelope, 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "attest", "open", "--key", "k", "e").want(t, exitOK).wantOut(t, "hunter2")
	typed(t, string(envelope), "attest", "open", "--key", "k").want(t, exitOK).wantOut(t, "hunter2")
	typed(t, base64.StdEncoding.EncodeToString(envelope)+"\n", "attest", "open", "--key", "k", "-").want(t, exitOK).wantOut(t, "hunter2")
	command(t, "attest", "open", "--key", "k", "e", "--json").want(t, exitOK).wantOut(t, `{"Plaintext":"`+b64("hunter2")+`"}`+"\n")
	command(t, "attest", "open", "--key", "k", "e", "--out", "p", "--json").want(t, exitOK).wantOut(t, `{"Files":["p"]}`+"\n")
	wantFile(t, "p", "hunter2")
	command(t, "attest", "open", "--key", "k", "e", "--out", "p").want(t, exitFailed, "write p: it exists already").wantOut(t, "")

	// A terminal gets text, and no binary.
	shown := runWith(t, strings.NewReader(""), newTerminal(""), "attest", "open", "--key", "k", "e").want(t, exitOK).wantOut(t, "hunter2")
	if shown.stderr != "\n" {
		t.Errorf("said %q", shown.stderr)
	}
	if err := os.WriteFile("b", sealedTo(t, rig, "doc", "\x00\x1b"), 0o600); err != nil {
		t.Fatal(err)
	}
	runWith(t, strings.NewReader(""), newTerminal(""), "attest", "open", "--key", "k", "b").want(t, exitFailed, "the plaintext is binary, and stdout is a terminal").wantOut(t, "")

	for name, b := range map[string][]byte{"empty": nil, "cut": envelope[:len(envelope)-3], "text": []byte("text"), "longer": append(bytes.Clone(envelope), 0)} {
		if err := os.WriteFile("bad", b, 0o600); err != nil {
			t.Fatal(err)
		}
		if s := command(t, "attest", "open", "--key", "k", "bad").want(t, exitFailed, "open the envelope: "); s.stdout != "" {
			t.Errorf("%s: %q", name, s.stdout)
		}
	}
	command(t, "attest", "open", "--key", "other", "e").want(t, exitFailed, "it is for another recipient", "hint: it must be sealed to the key in other").wantOut(t, "")
	for args, want := range map[string]string{
		"":                  "--key is missing",
		"--key nowhere e":   "the key: read nowhere: no such file",
		"--key /dev/zero e": "the key: read /dev/zero: it is longer than 65536 bytes",
		"--key doc e":       "the key doc: ",
		"--key k nowhere":   "read nowhere: no such file",
		"--key k e e":       "one argument too many",
		"--key k e --recip": "flag provided but not defined",
	} {
		command(t, append([]string{"attest", "open"}, strings.Fields(args)...)...).want(t, exitMisuse, want).wantOut(t, "")
	}
}
