// Package keyspec makes data key pairs: the asymmetric keys that a server generates, hands out once and forgets.
//
// There are nine kinds, named as AWS KMS names them (API Reference, GenerateDataKeyPair, KeyPairSpec). Everything known
// about a kind is its row in one table, so that adding one is adding a row. A [Pair] is two DER structures: a
// SubjectPublicKeyInfo (RFC 5280, Section 4.1.2.7) and a PKCS #8 private key of version 0 (RFC 5958, Section 2). [Prove]
// reads such a pair back, strictly, and uses it.
//
// The arithmetic is not ours. RSA, the NIST curves and Ed25519 come from the standard library (crypto/rsa, crypto/ecdh and
// crypto/ecdsa, crypto/ed25519), SM2 from github.com/emmansun/gmsm, secp256k1 from github.com/decred/dcrd. Randomness is
// crypto/rand. Nothing is claimed about FIPS 140: whether the first three run in a validated module is a matter of how the
// program was built and started, and the other two never do.
//
// All of it is meant to run in time that does not depend on the secret, with one exception: for secp256k1 the library
// offers only ScalarBaseMultNonConst, so how long it takes to make or to prove such a pair says something about its private key to
// somebody who can time that one call.
//
// The package knows nothing of HSMs, policies or HTTP. All of its functions are safe for concurrent use.
package keyspec

import (
	"crypto"
	"crypto/ecdh"
	"crypto/elliptic"
	"encoding/asn1"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// A Spec is a kind of data key pair. The zero Spec is none: it has no row in the table, no name, and makes no pair. Outside
// this package the only ways to any other are the constants, [Parse] and [Spec.UnmarshalText].
type Spec uint8

// The kinds of pair, in the order of AWS's model.
const (
	_ Spec = iota
	RSA2048
	RSA3072
	RSA4096
	P256
	P384
	P521
	Secp256k1
	SM2
	Ed25519
)

// A row is all there is to know about a Spec.
type row struct {
	name      string // AWS's
	algorithm []byte // AlgorithmIdentifier, the same in both halves of a pair
	keys      family // how the halves are made, and proved
}

// A family of specs shares how keys are made and how they are written inside the two envelopes that all specs have in
// common: public is the content of the BIT STRING of a SubjectPublicKeyInfo, private that of the OCTET STRING of a PKCS #8
// key.
type family interface {
	// generate makes a pair. The caller wipes private.
	generate() (public, private []byte, err error)

	// room returns how many bytes private may have, at most.
	room() int

	// prove returns nil if the two are strictly encoded, belong together and work. It keeps neither.
	prove(public, private []byte) error
}

var table = [...]row{
	RSA2048:   {"RSA_2048", rsaEncryption, rsaKeys{bits: 2048}},
	RSA3072:   {"RSA_3072", rsaEncryption, rsaKeys{bits: 3072}},
	RSA4096:   {"RSA_4096", rsaEncryption, rsaKeys{bits: 4096}},
	P256:      {"ECC_NIST_P256", namedCurve(1, 2, 840, 10045, 3, 1, 7), ecKeys{32, nist{ecdh.P256(), elliptic.P256(), crypto.SHA256}}},
	P384:      {"ECC_NIST_P384", namedCurve(1, 3, 132, 0, 34), ecKeys{48, nist{ecdh.P384(), elliptic.P384(), crypto.SHA384}}},
	P521:      {"ECC_NIST_P521", namedCurve(1, 3, 132, 0, 35), ecKeys{66, nist{ecdh.P521(), elliptic.P521(), crypto.SHA512}}},
	Secp256k1: {"ECC_SECG_P256K1", namedCurve(1, 3, 132, 0, 10), ecKeys{32, secg{}}},
	SM2:       {"SM2", namedCurve(1, 2, 156, 10197, 1, 301), ecKeys{32, shangmi{}}},
	Ed25519:   {"ECC_NIST_EDWARDS25519", algorithm(asn1.ObjectIdentifier{1, 3, 101, 112}), ed25519Keys{}},
}

// rsaEncryption has parameters, and they are NULL (RFC 3279, Section 2.3.1).
var rsaEncryption = algorithm(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, 0x05, 0x00)

// namedCurve returns the AlgorithmIdentifier of id-ecPublicKey with a curve that is given by name, the only form that RFC
// 5480, Section 2.1.1 allows. SM2 uses it as well, with the curve's OID from GM/T 0006-2012.
func namedCurve(curve ...int) []byte {
	params := cryptobyte.NewBuilder(nil)
	params.AddASN1ObjectIdentifier(curve)
	return algorithm(asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, params.BytesOrPanic()...)
}

// algorithm returns an AlgorithmIdentifier (RFC 5280, Section 4.1.1.2). Ed25519 has no parameters (RFC 8410, Section 3).
func algorithm(oid asn1.ObjectIdentifier, params ...byte) []byte {
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddBytes(params)
	})
	return b.BytesOrPanic()
}

// row returns what is known about s, or an error if s is none.
func (s Spec) row() (*row, error) {
	if s == 0 || int(s) >= len(table) {
		return nil, fmt.Errorf("%v is not a data key pair spec", s)
	}
	return &table[s], nil
}

// All returns every Spec in the order of AWS's model.
func All() []Spec {
	var all []Spec
	for s := range table {
		if s != 0 {
			all = append(all, Spec(s))
		}
	}
	return all
}

// Values returns the names of all specs in the order of AWS's model, whatever s is. A decoder that meets another name asks
// its target for them, to say what would have been right.
func (Spec) Values() []string {
	var names []string
	for _, s := range All() {
		names = append(names, table[s].name)
	}
	return names
}

// SearchesPrimes reports whether making a pair of s is a search for primes: tens of milliseconds to seconds of a processor, where any
// other pair takes less than one.
func (s Spec) SearchesPrimes() bool {
	r, err := s.row()
	if err != nil {
		return false
	}
	_, ok := r.keys.(rsaKeys)
	return ok
}

// Parse returns the Spec that AWS calls name.
func Parse(name string) (Spec, error) {
	for _, s := range All() {
		if table[s].name == name {
			return s, nil
		}
	}
	return 0, fmt.Errorf("%q is not a data key pair spec", name)
}

// String returns AWS's name for s, which [Parse] reads.
func (s Spec) String() string {
	if s == 0 || int(s) >= len(table) {
		return fmt.Sprintf("keyspec.Spec(%d)", uint8(s))
	}
	return table[s].name
}

// MarshalText returns AWS's name for s. A Spec that is none has no text: that is an error.
func (s Spec) MarshalText() ([]byte, error) {
	r, err := s.row()
	if err != nil {
		return nil, err
	}
	return []byte(r.name), nil
}

// UnmarshalText sets s to the Spec that AWS calls text. An unknown name is an error and leaves s as it was.
func (s *Spec) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}
