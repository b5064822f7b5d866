package attest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"strings"
	"testing"
	"time"

	"strongroom/kms/attest"
	"strongroom/kms/attest/attesttest"
)

// The root of AWS is the one that it published, and that every real document begins with.
func TestAWSRoot(t *testing.T) {
	a := attest.AWSRoot()
	sum := sha256.Sum256(a.DER)
	if got, want := hex.EncodeToString(sum[:]), "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"; got != want {
		t.Errorf("its SHA-256 is %s, want %s", got, want)
	}
	if a.Name != "aws" || a.Kinds != nil || a.Accounts != nil {
		t.Errorf("it is %q, for kinds %v and accounts %v", a.Name, a.Kinds, a.Accounts)
	}
	forEachReal(t, func(t *testing.T, d *realDocument) {
		if parsed, err := attest.Parse(d.raw); err != nil || !bytes.Equal(parsed.CABundle[0], a.DER) {
			t.Errorf("it does not begin with this root: %v", err)
		}
	})
}

// madeRoot returns the certificate of a root, changed.
func madeRoot(t *testing.T, curve elliptic.Curve, f func(*x509.Certificate)) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "root"},
		NotBefore:             present.Add(-time.Hour),
		NotAfter:              present.Add(time.Hour),
		BasicConstraintsValid: true,
		IsCA:                  true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	if f != nil {
		f(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestAnchors(t *testing.T) {
	good := madeRoot(t, elliptic.P384(), nil)
	for _, c := range []struct {
		name string
		a    attest.Anchor
		want string // in the error; empty: none
	}{
		{"plain", attest.Anchor{Name: "own", DER: good}, ""},
		{"longest name", attest.Anchor{Name: strings.Repeat("x", 64), DER: good}, ""},
		{"name of all characters", attest.Anchor{Name: "Az09._-", DER: good}, ""},
		{"kinds", attest.Anchor{Name: "own", DER: good, Kinds: attest.Kinds}, ""},
		{"not valid yet", attest.Anchor{Name: "own", DER: madeRoot(t, elliptic.P384(), func(c *x509.Certificate) { c.NotBefore = present.Add(time.Minute) })}, ""},
		{"no name", attest.Anchor{DER: good}, "a name is"},
		{"long name", attest.Anchor{Name: strings.Repeat("x", 65), DER: good}, "a name is"},
		{"name with space", attest.Anchor{Name: "my root", DER: good}, "a name is"},
		{"name with newline", attest.Anchor{Name: "own\n", DER: good}, "a name is"},
		{"name not ASCII", attest.Anchor{Name: "wurzel-ä", DER: good}, "a name is"},
		{"kind in capitals", attest.Anchor{Name: "own", DER: good, Kinds: []attest.Kind{"Enclave"}}, `no kind "Enclave"`},
		{"no certificate", attest.Anchor{Name: "own"}, "x509"},
		{"garbage", attest.Anchor{Name: "own", DER: []byte("garbage")}, "x509"},
		{"trailing byte", attest.Anchor{Name: "own", DER: append(good[:len(good):len(good)], 0)}, "x509"},
		{"too large", attest.Anchor{Name: "own", DER: madeRoot(t, elliptic.P384(), func(c *x509.Certificate) {
			c.DNSNames = []string{strings.Repeat("x", 1000)}
		})}, "more than documents can hold"},
		{"P-256", attest.Anchor{Name: "own", DER: madeRoot(t, elliptic.P256(), nil)}, "P-384"},
		{"P-521", attest.Anchor{Name: "own", DER: madeRoot(t, elliptic.P521(), nil)}, "P-384"},
		{"SHA-256", attest.Anchor{Name: "own", DER: madeRoot(t, elliptic.P384(), func(c *x509.Certificate) {
			c.SignatureAlgorithm = x509.ECDSAWithSHA256
		})}, "SHA-384"},
		{"no CA", attest.Anchor{Name: "own", DER: madeRoot(t, elliptic.P384(), func(c *x509.Certificate) { c.IsCA = false })}, "may not sign certificates"},
		{"no constraints", attest.Anchor{Name: "own", DER: madeRoot(t, elliptic.P384(), func(c *x509.Certificate) {
			c.BasicConstraintsValid, c.IsCA = false, false
		})}, "may not sign certificates"},
		{"no certSign", attest.Anchor{Name: "own", DER: madeRoot(t, elliptic.P384(), func(c *x509.Certificate) {
			c.KeyUsage = x509.KeyUsageDigitalSignature
		})}, "may not sign certificates"},
		{"no key usage", attest.Anchor{Name: "own", DER: madeRoot(t, elliptic.P384(), func(c *x509.Certificate) { c.KeyUsage = 0 })}, "may not sign certificates"},
	} {
		_, err := attest.New(attest.Options{Anchors: []attest.Anchor{c.a}})
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestNameOfAWS: policies ask for anchors by name, those for the hardware of AWS by its.
func TestNameOfAWS(t *testing.T) {
	for name, ok := range map[string]bool{"aws": false, "AWS": false, "Aws": false, "aws2": true} {
		if _, err := attest.New(attest.Options{Anchors: []attest.Anchor{root().Anchor(name)}, AllowTestRoots: true}); (err == nil) != ok {
			t.Errorf("another root called %s: %v", name, err)
		}
	}
	own, folded := attest.AWSRoot(), root().Anchor("own")
	own.Name, folded.Name = "OWN", "own"
	if _, err := attest.New(attest.Options{Anchors: []attest.Anchor{own, folded}, AllowTestRoots: true}); err == nil {
		t.Error("two names differ in letter case alone")
	}
}

func TestAnchorNamesDiffer(t *testing.T) {
	aws := attest.AWSRoot()
	_, err := attest.New(attest.Options{Anchors: []attest.Anchor{aws, root().Anchor("test"), aws}, AllowTestRoots: true})
	if err == nil || !strings.Contains(err.Error(), "another one has this name") {
		t.Errorf("two anchors of one name: %v", err)
	}
}

// A root of this package's tests is known as such, unless it was made to look like an operator's own.
func TestTestRoots(t *testing.T) {
	_, err := attest.New(attest.Options{Anchors: []attest.Anchor{attest.AWSRoot(), root().Anchor("test")}})
	if err == nil || !strings.Contains(err.Error(), `anchor "test"`) || !strings.Contains(err.Error(), "test rig") {
		t.Errorf("the root of a test rig: %v", err)
	}
	own, err := attesttest.NewRoot(attesttest.RootOptions{Unmarked: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := attest.New(attest.Options{Anchors: []attest.Anchor{own.Anchor("own")}}); err != nil {
		t.Errorf("the root of an operator: %v", err)
	}
}

func TestAnchorLimits(t *testing.T) {
	const other = "444455556666"
	s := statement()
	enclave := document(t, s)
	s.Kind = attest.NitroTPM
	tpm := document(t, s)
	for _, c := range []struct {
		name       string
		kinds      []attest.Kind
		accounts   []string
		enclave    bool // whether an enclave's document is believed
		tpm        bool
		here       bool // whether it counts for the account
		elsewhere  bool // and for the other one
		fromOthers bool // whether the other account's is believed
	}{
		{"none", nil, nil, true, true, true, true, true},
		{"enclaves", []attest.Kind{attest.Enclave}, nil, true, false, true, true, true},
		{"NitroTPMs", []attest.Kind{attest.NitroTPM}, nil, false, true, true, true, false},
		{"no kind", []attest.Kind{}, nil, false, false, false, false, false},
		{"account", nil, []string{account}, true, true, true, false, false},
		{"other account", nil, []string{other}, false, false, false, false, true},
		{"both accounts", nil, []string{other, account}, true, true, true, true, true},
		{"no account", nil, []string{}, false, false, false, false, false},
	} {
		a := root().Anchor("test")
		a.Kinds, a.Accounts = c.kinds, c.accounts
		v := newVerifierWith(t, attest.Options{Anchors: []attest.Anchor{a}})
		for _, d := range []struct {
			raw     []byte
			account string
			want    bool
		}{{enclave, account, c.enclave}, {tpm, account, c.tpm}, {enclave, other, c.fromOthers}} {
			got, err := v.Verify(d.raw, d.account, present)
			if (err == nil) != d.want || err != nil && reason(err) != attest.Untrusted {
				t.Errorf("%s: %v, want believed = %v", c.name, err, d.want)
			}
			if err == nil && d.account == account && (got.Counts(account) != c.here || got.Counts(other) != c.elsewhere) {
				t.Errorf("%s: it counts here %v and elsewhere %v, want %v and %v", c.name, got.Counts(account), got.Counts(other), c.here, c.elsewhere)
			}
		}
	}
}
