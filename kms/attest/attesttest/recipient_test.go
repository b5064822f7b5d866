package attesttest_test

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strongroom/kms/attest"
	"strongroom/kms/attest/attesttest"
)

func newRecipient(t *testing.T) *attesttest.Recipient {
	t.Helper()
	who, err := attesttest.NewRecipient(2048)
	if err != nil {
		t.Fatal(err)
	}
	return who
}

// sealed returns an envelope for a recipient.
func sealed(t *testing.T, who *attesttest.Recipient, plaintext []byte) []byte {
	t.Helper()
	r := newRoot(t, "a")
	raw, err := r.Document(attesttest.Statement{Time: present, PublicKey: who.PublicKey()})
	if err != nil {
		t.Fatal(err)
	}
	v, err := attest.New(attest.Options{Anchors: []attest.Anchor{r.Anchor("test")}, AllowTestRoots: true})
	if err != nil {
		t.Fatal(err)
	}
	a, err := v.Verify(raw, "111122223333", present)
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := a.Seal(plaintext)
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

func TestRecipientPEM(t *testing.T) {
	who := newRecipient(t)
	again, err := attesttest.ParseRecipient(who.PEM())
	if err != nil || !again.Key.Equal(who.Key) || !bytes.Equal(again.PublicKey(), who.PublicKey()) {
		t.Errorf("it is another recipient: %v", err)
	}
	c, key := newRoot(t, "a").PEM()
	for name, bad := range map[string][]byte{"a certificate": c, "a key of P-384": key, "nothing": nil, "a key that is none": []byte("-----BEGIN PRIVATE KEY-----\neA==\n-----END PRIVATE KEY-----\n")} {
		if _, err := attesttest.ParseRecipient(bad); err == nil {
			t.Errorf("%s is a recipient", name)
		}
	}
}

// replace puts something in the place of the only occurrence of something else.
func replace(t *testing.T, b []byte, from, to string) []byte {
	t.Helper()
	if n := bytes.Count(b, []byte(from)); n != 1 {
		t.Fatalf("%x is there %d times", from, n)
	}
	return bytes.Replace(b, []byte(from), []byte(to), 1)
}

// In any other form, one that AWS's decoder for enclaves cannot read or one that KMS does not write, an envelope is not opened.
func TestOpenIsStrict(t *testing.T) {
	who := newRecipient(t)
	plaintext := bytes.Repeat([]byte("p"), 1200)
	raw := sealed(t, who, plaintext)
	e, err := attesttest.ParseEnvelope(raw)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := who.Open(raw); err != nil || !bytes.Equal(got, plaintext) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	const oidData = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01"
	// The content's strings, in what is around them.
	first, last := string(e.Content[:1000]), string(e.Content[1000:])
	content := "\xa0\x80\x04\x82\x03\xe8" + first + "\x04\x81\xd8" + last + "\x00\x00"
	primitive := replace(t, raw, content, "\x80\x82\x04\xc0"+string(e.Content))
	if got, err := who.Open(primitive); err != nil || !bytes.Equal(got, plaintext) {
		t.Errorf("with primitive content: %d bytes, %v", len(got), err)
	}
	set := raw[bytes.IndexByte(raw, 0x31):][: 4+0x16b : 4+0x16b]
	for name, bad := range map[string][]byte{
		"empty":                    nil,
		"a byte after":             append(slices.Clone(raw), 0),
		"twice":                    append(slices.Clone(raw), raw...),
		"DER inside":               replace(t, raw, content, "\xa0\x82\x04\xc7\x04\x82\x03\xe8"+first+"\x04\x81\xd8"+last),
		"content not constructed":  replace(t, raw, content, "\x80\x80\x04\x82\x03\xe8"+first+"\x04\x81\xd8"+last+"\x00\x00"),
		"content longer form":      replace(t, raw, "\x04\x81\xd8"+last, "\x04\x82\x00\xd8"+last),
		"set indefinite":           replace(t, raw, string(set), "\x31\x80"+string(set[4:])+"\x00\x00"),
		"algorithm indefinite":     replace(t, raw, "\x30\x1d\x06\x09\x60", "\x30\x80\x06\x09\x60"),
		"other content type":       replace(t, raw, oidData, strings.Replace(oidData, "\x07\x01", "\x07\x02", 1)),
		"AES-128":                  replace(t, raw, "\x04\x01\x2a\x04\x10", "\x04\x01\x02\x04\x10"),
		"MGF1 with SHA-384":        replace(t, raw, "\x01\x01\x08\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01", "\x01\x01\x08\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02"),
		"version 0":                replace(t, raw, "\x30\x80\x02\x01\x02\x31", "\x30\x80\x02\x01\x00\x31"),
		"recipient's version 0":    replace(t, raw, "\x02\x01\x02\x80\x20", "\x02\x01\x00\x80\x20"),
		"another recipient":        replace(t, raw, "\x80\x20"+string(e.Recipient[:]), "\x80\x20"+strings.Repeat("x", sha256.Size)),
		"another key":              replace(t, raw, string(e.Key), strings.Repeat("x", 256)),
		"half a block":             replace(t, raw, "\x04\x81\xd8"+last, "\x04\x81\xcf"+last[:207]),
		"no content":               replace(t, raw, content, "\xa0\x80\x00\x00"),
		"a chunk that is too long": replace(t, raw, "\x04\x82\x03\xe8"+first, "\x04\x82\x13\xe8"+first),
		"EncryptedContentInfo definite": replace(t, replace(t, raw, "\x30\x80"+oidData, "\x30\x82\x04\xf5"+oidData),
			content+"\x00\x00", content),
	} {
		got, err := who.Open(bad)
		if err == nil {
			t.Errorf("%s: opened as %d bytes", name, len(got))
		}
		t.Logf("%s: %v", name, err)
	}
	for n := range raw {
		if got, err := who.Open(raw[:n]); err == nil {
			t.Errorf("the first %d bytes of %d are opened as %d", n, len(raw), len(got))
		}
	}
}

// The envelopes of AWS KMS are read, and are for somebody else.
func TestOpenRealEnvelopes(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "testdata", "envelopes", "*.ber"))
	if err != nil || len(files) != 3 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	who := newRecipient(t)
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := attesttest.ParseEnvelope(raw); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if _, err := who.Open(raw); err == nil || !strings.Contains(err.Error(), "another recipient") {
			t.Errorf("%s: %v", file, err)
		}
	}
}
