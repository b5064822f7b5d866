package attesttest_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"slices"
	"testing"
	"time"

	"strongroom/kms/attest"
	"strongroom/kms/attest/attesttest"
)

// The chain is like those of real documents (2021 to 2026), but for the names.
func TestChain(t *testing.T) {
	r := newRoot(t, "")
	raw, err := r.Document(attesttest.Statement{Time: present})
	if err != nil {
		t.Fatal(err)
	}
	d, err := attest.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.CABundle) != 4 || !bytes.Equal(d.CABundle[0], r.DER) {
		t.Fatalf("%d certificates, the first of which may not be the root", len(d.CABundle))
	}
	const signs = x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	const day = 24 * time.Hour
	var above *x509.Certificate
	for i, want := range []struct {
		ca         bool
		pathLength int
		usage      x509.KeyUsage
		lives      time.Duration
		crl        bool
	}{
		{true, -1, signs, 0, false},
		{true, 2, signs, 20*day + time.Hour, true},
		{true, 1, signs, 5*day + 22*time.Hour, true},
		{true, 0, x509.KeyUsageCertSign, day, false},
		{false, -1, x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment, 3*time.Hour + 3*time.Second, false},
	} {
		c := certificate(t, append(d.CABundle, d.Certificate)[i])
		if c.IsCA != want.ca || c.MaxPathLen != want.pathLength || c.KeyUsage != want.usage || len(c.CRLDistributionPoints) > 0 != want.crl {
			t.Errorf("certificate %d: CA %v, path length %d, usage %b, CRLs %v", i, c.IsCA, c.MaxPathLen, c.KeyUsage, c.CRLDistributionPoints)
		}
		if i > 0 && c.NotAfter.Sub(c.NotBefore) != want.lives || c.NotBefore.After(present) || c.NotAfter.Before(present) {
			t.Errorf("certificate %d holds from %v to %v", i, c.NotBefore, c.NotAfter)
		}
		if c.SignatureAlgorithm != x509.ECDSAWithSHA384 || c.PublicKey.(*ecdsa.PublicKey).Curve != elliptic.P384() {
			t.Errorf("certificate %d is signed with %v", i, c.SignatureAlgorithm)
		}
		for _, e := range c.Extensions {
			named := e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 15}) || e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 19})
			if e.Critical != named {
				t.Errorf("certificate %d: extension %v is critical: %v", i, e.Id, e.Critical)
			}
		}
		if above != nil {
			if err := c.CheckSignatureFrom(above); err != nil {
				t.Errorf("certificate %d: %v", i, err)
			}
		}
		above = c
	}
	// The signature, without any of what verifies it elsewhere: the bytes before the last 98 are the payload, after 10.
	payload := raw[10 : len(raw)-98]
	h := sha512.New384()
	h.Write([]byte("\x84\x6aSignature1\x44\xa1\x01\x38\x22\x40"))
	h.Write(raw[7:10])
	h.Write(payload)
	s := raw[len(raw)-96:]
	if !ecdsa.Verify(above.PublicKey.(*ecdsa.PublicKey), h.Sum(nil), new(big.Int).SetBytes(s[:48]), new(big.Int).SetBytes(s[48:])) {
		t.Error("the signature is not right")
	}
}

// Without randomness a signature is that of RFC 6979, on which what a seed promises depends (section A.2.6, P-384 with SHA-384).
func TestSignaturesAreDeterministic(t *testing.T) {
	number := func(hex string) []byte {
		n, _ := new(big.Int).SetString(hex, 16)
		return n.FillBytes(make([]byte, 48))
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P384(), number("6B9D3DAD2E1B8C1C05B19875B6659F4DE23C3B667BF297BA9AA47740787137D896D5724E4C70A825F872C9EA60D2EDF5"))
	if err != nil {
		t.Fatal(err)
	}
	digest := sha512.Sum384([]byte("sample"))
	der, err := key.Sign(nil, digest[:], crypto.SHA384)
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Concat(
		[]byte{0x30, 0x66, 0x02, 0x31, 0},
		number("94EDBB92A5ECB8AAD4736E56C691916B3F88140666CE9FA73D64C4EA95AD133C81A648152E44ACF96E36DD1E80FABE46"),
		[]byte{0x02, 0x31, 0},
		number("99EF4AEB15F178CEA1FE40DB2603138F130E740A19624526203B6351D0A3A94FA329C145786E679E7B82C71A38628AC8"))
	if !bytes.Equal(der, want) {
		t.Errorf("the signature is %x, want %x", der, want)
	}
}
