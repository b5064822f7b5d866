package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"strongroom/kms/attest"
	"strongroom/kms/attest/attesttest"
)

const realDocuments = "../../kms/attest/testdata/real"

// rsaDocument is the real document that can be sealed to, and when it was made.
const (
	rsaDocument     = "enclave-2021-03-24-rsa2048.bin"
	rsaDocumentTime = "2021-03-24T16:10:41.734Z"
	rsaDocumentPCR0 = "672cd3c91b7ac756037d260051169c70b1de59c7a3a9a8253322c98763697891c722fec043cbf72a824ae5d5ac41fc41"
)

// readReal returns a real document.
func readReal(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(realDocuments, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// inspected runs inspect with --json and returns what it printed.
func inspected(t *testing.T, code int, args ...string) (documentJSON, said) {
	t.Helper()
	s := command(t, append([]string{"attest", "inspect", "--json"}, args...)...).want(t, code)
	var j documentJSON
	if err := json.Unmarshal([]byte(s.stdout), &j); err != nil {
		t.Fatalf("%v: %s", err, s.stdout)
	}
	if strings.Count(s.stdout, "\n") != 1 {
		t.Errorf("JSON is not on one line: %q", s.stdout)
	}
	return j, s
}

// writeTemp makes a file in a directory of its own.
func writeTemp(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestInspectRealDocuments(t *testing.T) {
	const noKey, oldNow = "recipient key not usable", "too old, certificate chain not valid"
	for file, own := range map[string]string{ // the reasons at the document's own time
		rsaDocument:                             "",
		"enclave-2023-09-21-nokey.bin":          noKey,
		"enclave-2024-09-07-max-fields.bin":     noKey,
		"enclave-2026-01-03-indefinite-map.bin": noKey,
		"nitrotpm-2026-02-01.bin":               noKey,
	} {
		path := filepath.Join(realDocuments, file)
		code := exitFailed
		if own == "" {
			code = exitOK
		}
		j, _ := inspected(t, code, path, "--at", "document")
		if got := strings.Join(j.ReasonCodes, ", "); got != own {
			t.Errorf("%s at its own time: %q, want %q", file, got, own)
		}
		if !j.Verified || j.RecipientKeyOK != (own == "") || j.Root != "aws" || !j.At.Equal(*j.Time) || len(j.Certificates) != 5 || j.VerifiedFrom == nil {
			t.Errorf("%s at its own time: %+v", file, j)
		}
		j, _ = inspected(t, exitFailed, path)
		want := oldNow
		if own != "" {
			want += ", " + own
		}
		if got := strings.Join(j.ReasonCodes, ", "); got != want || j.Verified || j.Accepted || j.VerifiedFrom == nil {
			t.Errorf("%s now: %q, want %q: %+v", file, got, want, j)
		}
		for i, reason := range j.Reasons {
			if !strings.HasPrefix(reason, j.ReasonCodes[i]+": ") {
				t.Errorf("%s: reason %q does not begin with %q", file, reason, j.ReasonCodes[i])
			}
		}
	}
}

func TestInspectPrints(t *testing.T) {
	path := filepath.Join(realDocuments, rsaDocument)
	out := command(t, "attest", "inspect", path, "--at", rsaDocumentTime).want(t, exitOK).stdout
	for _, line := range []string{
		"accepted",
		"Kind          enclave",
		"Module        i-0a6d65e7122308898-enc017846bcd2f820da",
		"Made          2021-03-24 16:10:41 UTC, 0s old",
		"PCR0          " + rsaDocumentPCR0 + "  image",
		"              and 11 that are zero",
		"Certificates  2019-10-28 13:28:05 to 2049-10-28 14:28:05 UTC  valid          CN=aws.nitro-enclaves,OU=AWS,O=Amazon,C=US",
		"Public key    RSA, 2048 bits, SHA-256 c0f1d3811434f0fec61a1f527d01d0abefa465bf566d3e4850bb52286bd83e63",
		"User data     none",
		"Accepted      from 2021-03-24 16:09:41 UTC to 2021-03-24 16:15:41 UTC",
		`    "kms:RecipientAttestation:ImageSha384": "` + rsaDocumentPCR0 + `",`,
	} {
		if !slices.Contains(strings.Split(out, "\n"), line) {
			t.Errorf("the line %q is not there:\n%s", line, out)
		}
	}
	out = command(t, "attest", "inspect", path, "--at", "2021-03-24T19:06:23Z").want(t, exitFailed).stdout
	for _, text := range []string{"refused\nBecause       too old: ", "\n              certificate chain not valid: ", "2h55m41s old", "UTC  expired  "} {
		if !strings.Contains(out, text) {
			t.Errorf("%q is not there:\n%s", text, out)
		}
	}
	out = command(t, "attest", "inspect", filepath.Join(realDocuments, "enclave-2023-09-21-nokey.bin"), "--at", "document").want(t, exitFailed).stdout
	for _, text := range []string{"refused\nBecause       recipient key not usable: there is none\n", `User data     13 bytes: "Hello World!\n"`, "Accepted      never; verified from "} {
		if !strings.Contains(out, text) {
			t.Errorf("%q is not there:\n%s", text, out)
		}
	}
}

// A document is taken in every form that programs print it in.
func TestInspectForms(t *testing.T) {
	raw := readReal(t, rsaDocument)
	for form, text := range map[string]string{
		"raw":    string(raw),
		"base64": base64.StdEncoding.EncodeToString(raw) + "\n",
		"hex":    hex.EncodeToString(raw),
		// In lines, as openssl and xxd break them.
		"base64 ": strings.Join(slices.Collect(chunks(base64.StdEncoding.EncodeToString(raw), 64)), "\r\n"),
		"hex ":    " " + strings.ToUpper(strings.Join(slices.Collect(chunks(hex.EncodeToString(raw), 60)), "\n")),
	} {
		s := typed(t, text, "attest", "inspect", "-", "--json", "--at", "document").want(t, exitOK)
		if want := `"encoding":"` + strings.TrimSpace(form) + `","size":4693,`; !strings.Contains(s.stdout, want) {
			t.Errorf("%s: %s lacks %s", form, s.stdout, want)
		}
	}
}

func chunks(s string, size int) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for i := 0; i < len(s); i += size {
			if !yield(s[i:min(i+size, len(s))]) {
				return
			}
		}
	}
}

func TestInspectWhatIsNoDocument(t *testing.T) {
	real := readReal(t, rsaDocument)
	for name, b := range map[string][]byte{
		"empty":     nil,
		"text":      []byte("not a document\x1b[2J"),
		"cut":       real[:len(real)-1],
		"hex cut":   []byte(hex.EncodeToString(real))[1:],
		"JSON":      []byte(`{"a":"b"}`),
		"too large": slices.Concat(real, make([]byte, attest.MaxSize)),
	} {
		path := writeTemp(t, "doc", b)
		j, _ := inspected(t, exitFailed, path, "--at", "document")
		if j.Verified || j.RecipientKeyOK || j.Accepted || len(j.Reasons) != 1 || !strings.HasPrefix(j.Reasons[0], "malformed: ") || j.ReasonCodes[0] != "malformed" {
			t.Errorf("%s: %+v", name, j)
		}
		s := command(t, "attest", "inspect", path).want(t, exitFailed)
		if !strings.HasPrefix(s.stdout, "refused\nBecause  malformed: ") || s.stderr != "" {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// Whoever has a root of their own can have a document say anything; none of it may reach a terminal as it is.
func TestInspectEscapes(t *testing.T) {
	const nasty = "i-0\x1b[2J\u202e\u009b31m\x7f\"\n\\\U000e0041"
	root, err := attesttest.NewRoot(attesttest.RootOptions{Name: nasty})
	if err != nil {
		t.Fatal(err)
	}
	document, err := root.Document(attesttest.Statement{ModuleID: nasty, UserData: []byte(nasty), Nonce: []byte("\x9b\xff"), Time: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	certificate, _ := root.PEM()
	path, anchor := writeTemp(t, "doc", document), writeTemp(t, "my root.pem", certificate)
	for _, args := range [][]string{{}, {"--anchor", anchor}} {
		j, s := inspected(t, exitFailed, append(args, path)...)
		if j.ModuleID != nasty || string(j.UserData) != nasty || j.Verified != (len(args) > 0) {
			t.Errorf("%q: %+v", args, j)
		}
		text := command(t, append([]string{"attest", "inspect", path}, args...)...).want(t, exitFailed)
		for _, out := range []string{s.stdout, s.stderr, text.stdout, text.stderr} {
			for _, r := range out {
				if !unicode.IsPrint(r) && r != '\n' {
					t.Errorf("%q: %U is in the output: %q", args, r, out)
				}
			}
		}
		if !strings.Contains(text.stdout, `Module      `+"  "+`"i-0\x1b[2J\u202e\u009b31m\x7f\"\n\\\U000e0041"`) {
			t.Errorf("%q: %s", args, text.stdout)
		}
		if pinned := strings.Contains(text.stdout, "ImageSha384"); pinned != (len(args) > 0) {
			t.Errorf("%q: a condition is printed: %v\n%s", args, pinned, text.stdout)
		}
	}
	if j, _ := inspected(t, exitFailed, "--anchor", anchor, path); j.Root != "my-root" || j.Condition["StringEquals"]["strongroom:RecipientAttestation:Root"] != "my-root" {
		t.Errorf("the anchor of %s is called %q", anchor, j.Root)
	}
}

func TestInspectByConfiguration(t *testing.T) {
	root, err := attesttest.NewRoot(attesttest.RootOptions{Unmarked: true})
	if err != nil {
		t.Fatal(err)
	}
	recipient, err := attesttest.NewRecipient(2048)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	statement := attesttest.Statement{Time: now, PublicKey: recipient.PublicKey(), PCRs: attesttest.PCRs(attest.Enclave)}
	document, err := root.Document(statement)
	if err != nil {
		t.Fatal(err)
	}
	for index := range 3 {
		clear(statement.PCRs[index])
	}
	debug, err := root.Document(statement)
	if err != nil {
		t.Fatal(err)
	}
	certificate, _ := root.PEM()
	text := fmt.Sprintf(`
store = "sqlite:/nowhere/strongroom.db"
[hsm]
module = %q
token_label = "t"
[attestation]
max_age_seconds = 60
[[attestation.anchors]]
name = "lab"
certificate = %q
accounts = ["111122223333"]
`, writeTemp(t, "module.so", nil), writeTemp(t, "root.pem", certificate))
	config := writeTemp(t, "strongroom.toml", []byte(text))
	allowing := writeTemp(t, "strongroom.toml", []byte(strings.Replace(text, "max_age", "allow_debug_enclaves = true\nmax_age", 1)))
	path, debugPath := writeTemp(t, "doc", document), writeTemp(t, "debug", debug)

	j, _ := inspected(t, exitOK, "--config", config, path)
	if j.Root != "lab" || fmt.Sprint(j.RootAccounts) != "[111122223333]" || j.AcceptedUntil.Sub(*j.Time) != time.Minute {
		t.Errorf("%+v", j)
	}
	if out := command(t, "attest", "inspect", "--config", config, path).want(t, exitOK).stdout; !strings.Contains(out, "lab, for requests of 111122223333\n") {
		t.Errorf("whom the root is for is not said:\n%s", out)
	}
	inspected(t, exitOK, "--config", config, path, "--account", "111122223333")
	if j, _ := inspected(t, exitFailed, "--config", config, path, "--account", "444455556666"); fmt.Sprint(j.ReasonCodes) != "[root not trusted]" || j.Root != "" {
		t.Errorf("%+v", j)
	}
	if j, _ := inspected(t, exitFailed, "--config", config, path, "--at", now.Add(61*time.Second).Format(time.RFC3339Nano)); fmt.Sprint(j.ReasonCodes) != "[too old]" {
		t.Errorf("%+v", j)
	}
	j, s := inspected(t, exitFailed, "--config", config, debugPath)
	if fmt.Sprint(j.ReasonCodes) != "[debug mode]" || !j.Verified || !j.Debug || j.Condition != nil || j.Statements != nil {
		t.Errorf("%+v", j)
	}
	s.want(t, exitFailed, "warning: this enclave runs in debug mode")
	inspected(t, exitOK, "--config", allowing, debugPath)
	t.Setenv(configVariable, config)
	inspected(t, exitOK, path)
	inspected(t, exitFailed, "--anchor", writeTemp(t, "aws.pem", certificate), path, "--at", "1999-01-01")
	inspected(t, exitOK, "--anchor", writeTemp(t, "aws.pem", certificate), path) // said now, against what was set once
}

func TestInspectMisused(t *testing.T) {
	t.Setenv(configVariable, "")
	path, key := writeTemp(t, "doc", readReal(t, rsaDocument)), writeTemp(t, "key.pem", []byte(asPEM("PUBLIC KEY", "x")))
	for args, want := range map[string]string{
		"":                                   "FILE is missing",
		"nowhere":                            "read nowhere: no such file or directory",
		"/":                                  "read /: is a directory",
		path + " " + path:                    "one argument too many",
		path + " --at yesterday":             "--at \"yesterday\": is neither a time",
		path + " --account 12":               "--account 12: an account is 12 digits",
		path + " --anchor nowhere":           "--anchor: read nowhere: no such file",
		path + " --anchor /dev/zero":         "--anchor: read /dev/zero: it is longer than 65536 bytes",
		"/dev/zero":                          "/dev/zero is longer than",
		path + " --anchor " + key:            "holds no certificate in PEM",
		path + " --anchor " + key + " --dir": "flag needs an argument",
		path + " --anchor x --dir y":         "either it, or --config or --dir",
		path + " --config nowhere":           "no such file",
		path + " --dir nowhere":              "there is no rig",
		path + " --trust":                    "flag provided but not defined",
	} {
		command(t, append([]string{"attest", "inspect"}, strings.Fields(args)...)...).want(t, exitMisuse, want).wantOut(t, "")
	}
}

// What inspect says first of an odd document is why a server refuses it. Package attest is tested with every case; here,
// one in four is enough.
func TestInspectCases(t *testing.T) {
	root, err := attesttest.NewRoot(attesttest.RootOptions{})
	if err != nil {
		t.Fatal(err)
	}
	recipient, err := attesttest.NewRecipient(2048)
	if err != nil {
		t.Fatal(err)
	}
	trust := attest.Options{Anchors: []attest.Anchor{root.Anchor("test")}, AllowTestRoots: true}
	for i, odd := range attesttest.Cases() {
		if i%4 != 0 {
			continue
		}
		now := time.Now()
		raw, err := root.DocumentOf(odd, attesttest.Statement{Time: now, PublicKey: recipient.PublicKey()})
		if err != nil {
			t.Fatal(err)
		}
		j, err := inspect(raw, trust, "", now)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case odd.Reason == 0 && !j.Accepted:
			t.Errorf("%s: refused: %q", odd.Name, j.Reasons)
		case odd.Reason != 0 && (len(j.Reasons) == 0 || j.ReasonCodes[0] != odd.Reason.String()):
			t.Errorf("%s: %q, want %s", odd.Name, j.Reasons, odd.Reason)
		}
		switch odd.Reason {
		case attest.Malformed, attest.Untrusted, attest.BadSignature:
			if j.Root != "" || j.Condition != nil || j.Statements != nil {
				t.Errorf("%s: nobody vouches for it, and it is said to lead to %q and pinned by %v", odd.Name, j.Root, j.Condition)
			}
		}
		if b, err := printableJSON(j); err != nil || !json.Valid(b) || j.text() == "" {
			t.Errorf("%s: cannot be shown: %v", odd.Name, err)
		}
	}
}

func TestAgeText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                        "0s old",
		1500 * time.Microsecond:  "2ms old",
		61 * time.Second:         "1m1s old",
		-61 * time.Second:        "1m1s in the future",
		47 * time.Hour:           "47h0m0s old",
		48 * time.Hour:           "2 days old",
		time.Duration(-1 << 63):  "more than a century in the future",
		time.Duration(1<<63 - 1): "more than a century old",
	} {
		if got := ageText(d); got != want {
			t.Errorf("%d: %q, want %q", d, got, want)
		}
	}
}
