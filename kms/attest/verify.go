package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/veraison/go-cose"
)

var errDebug = errors.New("PCR0, PCR1 and PCR2 are zero")

// checkAge compares the time of a document with the present. A clock that is wrong is found here first, so the error has both times.
func (v *Verifier) checkAge(d *Document, now time.Time) (Reason, error) {
	switch age := now.Sub(d.Time); {
	case age > v.maxAge:
		return Stale, fmt.Errorf("it was made at %s and is older than %v", d.Time.Format(time.RFC3339), v.maxAge)
	case age < -v.maxAhead:
		return Early, fmt.Errorf("it was made at %s, more than %v ahead of this clock", d.Time.Format(time.RFC3339), v.maxAhead)
	}
	return 0, nil
}

// findAnchor returns the anchor that the first certificate of a document's bundle is. The copy in the document only names it.
func (v *Verifier) findAnchor(d *Document, account string) (*anchor, error) {
	err := errors.New("the first certificate of its bundle is none of the anchors")
	for _, a := range v.anchors {
		switch {
		case string(a.DER) != string(d.CABundle[0]):
		case !a.trustedWith(d.Kind):
			err = fmt.Errorf("anchor %q is not trusted with %s documents", a.Name, d.Kind)
		case !a.trustedFor(account):
			err = fmt.Errorf("anchor %q is not trusted for account %s", a.Name, account)
		default:
			return a, nil
		}
	}
	return nil, err
}

// verifyChain returns the key of the certificate that signs r.Document, if the bundle's certificates vouch for it at the given time. If more than
// the first fault is wanted, it returns the key also where nobody vouches for it, provided that it is one of the only curve in use.
func (v *Verifier) verifyChain(r *Report, at time.Time) (*ecdsa.PublicKey, error) {
	d := r.Document
	var (
		c   *chain
		err error
	)
	if r.anchor != nil {
		if c, err = v.chains.verify(r.anchor, d, at); err == nil {
			r.Since, r.Until = c.since, c.until
			return c.signer, nil
		}
	}
	if r.first {
		return nil, err
	}
	if leaf, perr := x509.ParseCertificate(d.Certificate); perr == nil && checkAlgorithms(leaf) == nil {
		return leaf.PublicKey.(*ecdsa.PublicKey), err
	}
	return nil, err
}

// verifySignature checks the signature of d: ECDSA with P-384 and SHA-384 over the Sig_structure of RFC 9052, section 4.4, which holds the payload as
// it came. There is a second valid signature for each, with n-s for s, so that neither signatures nor documents identify anything.
func (d *Document) verifySignature(signer *ecdsa.PublicKey) error {
	verifier, err := cose.NewVerifier(cose.AlgorithmES384, signer)
	if err != nil {
		return err
	}
	m := cose.Sign1Message{
		Headers:   cose.Headers{Protected: cose.ProtectedHeader{cose.HeaderLabelAlgorithm: cose.AlgorithmES384}},
		Payload:   d.payload,
		Signature: d.signature,
	}
	return m.Verify(nil, verifier)
}

// maxExponent is the largest exponent that crypto/rsa encrypts with.
const maxExponent = 1<<31 - 1

// parseKey returns the key that an answer is sealed to: RSA of 2048 to 4096 bits and an exponent from 65537, as an X.509 SubjectPublicKeyInfo in DER
// (RFC 5280, section 4.1.2.7). AWS says no more than that it has to be RSA.
func parseKey(der []byte) (*rsa.PublicKey, error) {
	if len(der) == 0 {
		return nil, errors.New("there is none")
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, errors.New("it is not a SubjectPublicKeyInfo in DER")
	}
	key, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("it is not an RSA key")
	}
	// crypto/x509 takes more than the one encoding of a key in DER, and the envelope names the key by the hash of its encoding.
	if canonical, err := x509.MarshalPKIXPublicKey(key); err != nil || !bytes.Equal(der, canonical) {
		return nil, errors.New("it is not a SubjectPublicKeyInfo in DER")
	}
	switch bits := key.N.BitLen(); {
	case bits < 2048 || bits > 4096 || bits%8 != 0 || key.N.Bit(0) == 0:
		return nil, fmt.Errorf("its modulus must be odd, from 2048 to 4096 bits and a multiple of 8; it has %d", bits)
	case key.E < 65537 || key.E%2 == 0 || key.E > maxExponent:
		return nil, fmt.Errorf("its exponent must be odd, from 65537 to %d; it is %d", maxExponent, key.E)
	}
	return key, nil
}
