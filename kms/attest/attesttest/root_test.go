package attesttest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom/kms/attest"
	"strongroom/kms/attest/attesttest"
)

// raceDetector is set under -race.
var raceDetector bool

// present is when documents are made.
var present = time.Date(2026, 5, 4, 3, 2, 1, 987654321, time.UTC)

func newRoot(t *testing.T, seed string) *attesttest.Root {
	t.Helper()
	o := attesttest.RootOptions{Since: present.Add(-time.Hour)}
	if seed != "" {
		o.Seed = []byte(seed)
	}
	r, err := attesttest.NewRoot(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func certificate(t *testing.T, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRootOptions(t *testing.T) {
	before := time.Now().Add(-time.Hour).Truncate(time.Second)
	r, err := attesttest.NewRoot(attesttest.RootOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := certificate(t, r.DER)
	if c.NotBefore.Before(before) || c.NotBefore.After(time.Now().Add(-time.Hour)) || !c.NotAfter.Equal(c.NotBefore.AddDate(30, 0, 0)) {
		t.Errorf("it holds from %v to %v", c.NotBefore, c.NotAfter)
	}
	if !slices.Equal(c.Subject.OrganizationalUnit, []string{attest.TestRootUnit}) || c.Subject.CommonName == "" {
		t.Errorf("it is %v", c.Subject)
	}
	if !r.Key.PublicKey.Equal(c.PublicKey) || r.Key.Curve != elliptic.P384() || len(r.DER) > 1024 {
		t.Error("the certificate is not that of a key of P-384, or too large for a document")
	}
	if err := c.CheckSignatureFrom(c); err != nil {
		t.Error(err)
	}
	own, err := attesttest.NewRoot(attesttest.RootOptions{Name: "our attester", Unmarked: true, Since: present})
	if err != nil {
		t.Fatal(err)
	}
	c = certificate(t, own.DER)
	if c.Subject.CommonName != "our attester" || c.Subject.OrganizationalUnit != nil || !c.NotBefore.Equal(present.Truncate(time.Second)) {
		t.Errorf("it is %v, from %v", c.Subject, c.NotBefore)
	}
}

// With a seed everything comes out the same each time, whatever was made in between; without, nothing does.
func TestSeeds(t *testing.T) {
	s := attesttest.Statement{Time: present}
	later := attesttest.Statement{Time: present.Add(time.Hour), ModuleID: "i-1"}
	cases := attesttest.Cases()
	slices.Reverse(cases)
	a, b := newRoot(t, "a"), newRoot(t, "a")
	if !bytes.Equal(a.DER, b.DER) {
		t.Error("two roots of one seed differ")
	}
	for _, s := range []attesttest.Statement{s, later, s} {
		one, err := a.Document(s)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cases[:5] {
			if _, err := b.DocumentOf(c, s); err != nil {
				t.Fatal(err)
			}
		}
		two, err := b.Document(s)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(one, two) {
			t.Error("two documents of one seed differ")
		}
	}
	if bytes.Equal(a.DER, newRoot(t, "b").DER) || bytes.Equal(newRoot(t, "").DER, newRoot(t, "").DER) {
		t.Error("two roots without a seed in common are the same")
	}
	r := newRoot(t, "")
	one, err := r.Document(s)
	if err != nil {
		t.Fatal(err)
	}
	if two, err := r.Document(s); err != nil || bytes.Equal(one, two) {
		t.Errorf("two documents without a seed are the same: %v", err)
	}
}

func TestRootPEM(t *testing.T) {
	r := newRoot(t, "a")
	c, key := r.PEM()
	again, err := attesttest.ParseRoot(c, key)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.DER, r.DER) || !again.Key.Equal(r.Key) {
		t.Error("it is another root")
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := x509.MarshalPKCS8PrivateKey(p256)
	if err != nil {
		t.Fatal(err)
	}
	_, stranger := newRoot(t, "b").PEM()
	for _, bad := range []struct {
		name   string
		c, key []byte
		want   string
	}{
		{"another root's key", c, stranger, "not that of the key"},
		{"a key of P-256", c, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: other}), "P-384"},
		{"the wrong way round", key, c, "not PEM of a CERTIFICATE"},
		{"no certificate", nil, key, "not PEM of a CERTIFICATE"},
		{"no key", c, nil, "not PEM of a PRIVATE KEY"},
		{"a key that is none", c, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), "asn1"},
		{"a certificate that is none", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), key, "x509"},
	} {
		if _, err := attesttest.ParseRoot(bad.c, bad.key); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: %v, want %q", bad.name, err, bad.want)
		}
	}
}

func TestStatements(t *testing.T) {
	r := newRoot(t, "a")
	for _, bad := range []attesttest.Statement{{}, {Time: present, Kind: "vtpm"}, {Time: present, ModuleID: "\xff"}} {
		if _, err := r.Document(bad); err == nil {
			t.Errorf("%+v has a document", bad)
		}
	}
	for _, k := range attest.Kinds {
		raw, err := r.Document(attesttest.Statement{Kind: k, Time: present})
		if err != nil {
			t.Fatal(err)
		}
		d, err := attest.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		want := attesttest.PCRs(k)
		if d.Kind != k || len(d.PCRs) != len(want) || d.Debug() || !d.Time.Equal(present.Truncate(time.Millisecond)) {
			t.Errorf("a document of %s is one of %s with %d registers, of %v", k, d.Kind, len(d.PCRs), d.Time)
		}
		for i, value := range want {
			if !bytes.Equal(d.PCRs[i], value) || (i <= 4) == bytes.Equal(value, make([]byte, 48)) {
				t.Errorf("PCR%d of %s is %x", i, k, d.PCRs[i])
			}
		}
		if d.PublicKey != nil || d.UserData != nil || d.Nonce != nil {
			t.Errorf("a document of %s has values that were not given", k)
		}
	}
	s := attesttest.Statement{
		ModuleID: "i-1", Time: present, PCRs: map[int][]byte{31: bytes.Repeat([]byte{7}, 48)},
		PublicKey: []byte("key"), UserData: []byte("data"), Nonce: []byte{},
	}
	raw, err := r.Document(s)
	if err != nil {
		t.Fatal(err)
	}
	d, err := attest.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if d.ModuleID != "i-1" || len(d.PCRs) != 1 || d.PCRs[31][0] != 7 || string(d.PublicKey) != "key" || string(d.UserData) != "data" || d.Nonce == nil {
		t.Errorf("it says %+v", d)
	}
}

// A case has a document whatever it is to say, though it may then be refused for another reason.
func TestEveryCaseHasDocuments(t *testing.T) {
	r := newRoot(t, "a")
	for _, s := range []attesttest.Statement{
		{Time: present},
		{Time: present, Definite: true, Kind: attest.NitroTPM, ModuleID: "i-1", PCRs: map[int][]byte{}, PublicKey: []byte{}, Nonce: make([]byte, 1024)},
	} {
		for i, c := range attesttest.Cases() {
			if raceDetector && i%7 > 0 {
				continue // signatures take ten times as long
			}
			if _, err := r.DocumentOf(c, s); err != nil {
				t.Errorf("%s: %v", c.Name, err)
			}
		}
	}
}
