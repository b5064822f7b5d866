package attesttest

import (
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"time"
)

// signerCases are those whose signer may not sign documents, or not with its key. The signature is right where the key is one of P-384.
func signerCases() []Case {
	return []Case{
		{Name: "signer-p224", About: "a signer with a key of P-224", plan: signerKey(fixed.key("p224", elliptic.P224()).Public())},
		{Name: "signer-p256", About: "a signer with a key of P-256", plan: signerKey(fixed.key("p256", elliptic.P256()).Public())},
		{Name: "signer-p521", About: "a signer with a key of P-521", plan: signerKey(fixed.key("p521", elliptic.P521()).Public())},
		{Name: "signer-rsa", About: "a signer with an RSA key", plan: signerKey(&rsa.PublicKey{N: fixed.modulus("signer", 2048), E: 65537})},
		{Name: "signer-ed25519", About: "a signer with an Ed25519 key", plan: signerKey(ed25519.NewKeyFromSeed(fixed.bytes("ed25519", 32)).Public())},
		{Name: "signer-secp256k1", About: "a signer with a key of a curve that is not known", plan: changed(linkSigner, func(t *tbs) {
			t.PublicKey = publicKey(asn1.ObjectIdentifier{1, 3, 132, 0, 10}, append([]byte{4}, make([]byte, 64)...))
		})},
		{Name: "signer-curve-parameters", About: "a signer whose curve is given by its parameters", plan: changed(linkSigner, func(t *tbs) {
			t.PublicKey = publicKey(struct {
				Version int
				Prime   *big.Int
			}{1, elliptic.P384().Params().P}, append([]byte{4}, make([]byte, 96)...))
		})},
		{Name: "signer-off-curve", About: "a signer whose key is not on the curve", plan: changed(linkSigner, func(t *tbs) {
			t.PublicKey = publicKey(curveP384, append(append([]byte{4}, make([]byte, 95)...), 1))
		})},
		{Name: "signer-infinity", About: "a signer whose key is the point at infinity", plan: changed(linkSigner, func(t *tbs) {
			t.PublicKey = publicKey(curveP384, []byte{0})
		})},
		{Name: "signer-compressed", About: "a signer whose key is a compressed point", plan: func(p *plan) {
			key := p.links[linkSigner].key
			p.links[linkSigner].change = func(t *tbs) {
				raw, err := key.PublicKey.Bytes()
				if err != nil {
					panic(err)
				}
				t.PublicKey = publicKey(curveP384, append([]byte{2 | raw[96]&1}, raw[1:49]...))
			}
		}},
		{Name: "signer-sha256", About: "a signer's certificate that is signed with SHA-256", plan: template(linkSigner, func(c *x509.Certificate) {
			c.SignatureAlgorithm = x509.ECDSAWithSHA256
		})},
		{Name: "signer-sha512", About: "a signer's certificate that is signed with SHA-512", plan: template(linkSigner, func(c *x509.Certificate) {
			c.SignatureAlgorithm = x509.ECDSAWithSHA512
		})},
		{Name: "signer-ca", About: "a signer that is a CA", plan: func(p *plan) {
			// The instance allows it, so that it is the signer that is at fault.
			noPathLength(p.links[linkInstance].template)
			signer := p.links[linkSigner].template
			signer.IsCA = true
			signer.KeyUsage |= x509.KeyUsageCertSign
		}},
		{Name: "signer-ca-bit", About: "a signer that is a CA, and may not sign certificates", plan: func(p *plan) {
			noPathLength(p.links[linkInstance].template)
			p.links[linkSigner].template.IsCA = true
		}},
		{Name: "signer-path-length", About: "a signer with a path length that is not a CA", plan: changed(linkSigner, with(extBasicConstraints, "\x30\x03\x02\x01\x01"))},
		{Name: "signer-path-length-zero", About: "a signer with a path length of 0 that is not a CA", plan: changed(linkSigner, with(extBasicConstraints, "\x30\x03\x02\x01\x00"))},
		{Name: "signer-no-digital-signature", About: "a signer without digitalSignature", plan: template(linkSigner, func(c *x509.Certificate) {
			c.KeyUsage = x509.KeyUsageContentCommitment
		})},
		{Name: "signer-no-key-usage", About: "a signer without a key usage", plan: template(linkSigner, func(c *x509.Certificate) { c.KeyUsage = 0 })},
		{Name: "signer-critical", About: "a signer with a critical extension that is not known", plan: template(linkSigner, criticalUnknown)},
		{Name: "signer-v1", About: "a signer with a certificate of version 1", plan: changed(linkSigner, versionOne)},
		{Name: "signer-other-key", About: "a signer with the instance's name as issuer, signed by another key", plan: func(p *plan) {
			p.links[linkSigner].signer = p.random.key("nobody", elliptic.P384())
		}},
		{Name: "signer-self-signed", About: "a signer that vouches for itself, with the instance's name as issuer", plan: func(p *plan) {
			p.links[linkSigner].signer = p.links[linkSigner].key
		}},
		{Name: "signer-skips", About: "a signer with the instance's name as issuer, signed by the zone", plan: func(p *plan) {
			p.links[linkSigner].signer = p.links[linkZone].key
		}},
		{Name: "signer-other-issuer", About: "a signer with another issuer, signed by the instance", plan: changed(linkSigner, func(t *tbs) { t.Issuer = t.Subject })},
		{Name: "signer-is-instance", About: "a document signed by the instance, as its signer", plan: signedBy(linkInstance)},
		{Name: "signer-is-region", About: "a document signed by the region, as its signer, which has digitalSignature", plan: signedBy(linkRegion)},
		{Name: "signer-is-root", About: "a document signed by the root, as its signer", plan: func(p *plan) {
			p.links = []*link{p.links[linkRoot], p.links[linkRoot]}
		}},
	}
}

// signerKey gives the signer's certificate another key than the one that signs.
func signerKey(key any) func(*plan) {
	return func(p *plan) { p.links[linkSigner].public = key }
}

// signedBy ends the chain early.
func signedBy(link int) func(*plan) {
	return func(p *plan) { p.links = p.links[:link+1] }
}

var curveP384 = asn1.ObjectIdentifier{1, 3, 132, 0, 34}

// publicKey returns a SubjectPublicKeyInfo of an elliptic curve (RFC 5480, section 2).
func publicKey(parameters any, point []byte) (raw asn1.RawValue) {
	mustUnmarshal(mustMarshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		Point     asn1.BitString
	}{
		pkix.AlgorithmIdentifier{
			Algorithm:  asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1},
			Parameters: asn1.RawValue{FullBytes: mustMarshal(parameters)},
		},
		asn1.BitString{Bytes: point, BitLength: 8 * len(point)},
	}), &raw)
	return raw
}

// validityCases are those with a certificate that does not hold at the time of the document.
func validityCases() []Case {
	cases := []Case{
		{Name: "not-yet-signer", About: "a signer that holds from two minutes after the document on", plan: func(p *plan) {
			p.links[linkSigner].template.NotBefore = p.time.Add(2 * time.Minute)
		}},
		{Name: "not-yet-zone", About: "a zone that holds from the next day on", plan: func(p *plan) {
			p.links[linkZone].template.NotBefore = p.time.Add(24 * time.Hour)
		}},
		{Name: "never-signer", About: "a signer that ends before it begins", plan: func(p *plan) {
			signer := p.links[linkSigner].template
			signer.NotBefore, signer.NotAfter = p.time.Add(time.Hour), p.time.Add(-time.Hour)
		}},
	}
	for link, name := range []string{linkRegion: "region", linkZone: "zone", linkInstance: "instance", linkSigner: "signer"} {
		if name == "" {
			continue
		}
		cases = append(cases, Case{Name: "expired-" + name, About: "the " + name + "'s certificate has ended", plan: func(p *plan) {
			p.links[link].template.NotAfter = p.time.Add(-time.Second)
		}})
	}
	return cases
}

// damageCases are those with a certificate that is none.
func damageCases() []Case {
	var cases []Case
	for _, at := range []struct {
		name string
		der  func(*plan) *[]byte
	}{
		{"signer", func(p *plan) *[]byte { return &p.certificate }},
		{"zone", func(p *plan) *[]byte { return &p.bundle[linkZone] }},
	} {
		for _, c := range []struct {
			name, about string
			f           func([]byte) []byte
		}{
			{"garbage", "is garbage", instead([]byte("\xff\xfe\xfd\xfc garbage"))},
			{"one-byte", "is one byte", instead([]byte{0x30})},
			{"largest", "is 1024 zeros", instead(make([]byte, 1024))},
			{"claims", "claims 2^31 bytes", instead([]byte("\x30\x84\x7f\xff\xff\xff\x30"))},
			{"deep", "is sequences in sequences", instead(slices.Repeat([]byte("\x30\x80"), 500))},
			{"trailing-byte", "has a byte after it", suffix("\x00")},
			{"cut", "is cut short", func(b []byte) []byte { return b[:len(b)-1] }},
			{"indefinite", "has an indefinite length", func(b []byte) []byte { return append(append([]byte{0x30, 0x80}, b[4:]...), 0, 0) }},
			{"pem", "is in PEM", func(b []byte) []byte { return encodePEM(pemCertificate, b)[:1000] }},
			{"bad-signature", "has a signature that is not right", func(b []byte) []byte { return flip(b, -1) }},
			{"altered", "was altered", func(b []byte) []byte { return flip(b, 24) }}, // in its serial number
		} {
			cases = append(cases, Case{Name: at.name + "-" + c.name, About: "the " + at.name + "'s certificate " + c.about, bundle: func(p *plan) {
				der := at.der(p)
				*der = c.f(slices.Clone(*der))
			}})
		}
	}
	return append(cases,
		Case{Name: "zone-bad-name", About: "an alternative name in the zone's certificate that cannot be read", plan: changed(linkZone, with(extSubjectAltName, "\x30\x03\x82\x05x"))},
		Case{Name: "zone-extension-twice", About: "the zone's certificate has an extension twice", plan: changed(linkZone, func(t *tbs) {
			t.Extensions = append(t.Extensions, t.Extensions[0])
		})},
		Case{Name: "zone-negative-serial", About: "the zone's certificate has a negative serial number", plan: changed(linkZone, func(t *tbs) { t.Serial = big.NewInt(-1) })},
		Case{Name: "zone-algorithms-differ", About: "the zone's certificate is signed with another algorithm than it says inside", plan: changed(linkZone, func(t *tbs) {
			t.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}
		})})
}

// flip inverts a bit of one byte, counted from the end if i is negative.
func flip(b []byte, i int) []byte {
	b = slices.Clone(b)
	if i < 0 {
		i += len(b)
	}
	b[i] ^= 1
	return b
}
