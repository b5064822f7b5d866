package keyspec

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	sm2dh "github.com/emmansun/gmsm/ecdh"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"strongroom/keyspec/secret"
)

// ecKeys are keys on a curve in short Weierstrass form. They are all encoded alike, whoever does the arithmetic.
//
// The public key is the uncompressed point, 04 ‖ x ‖ y (SEC 1, Version 2.0, Section 2.3.3; RFC 5480, Section 2.2), which every
// reader has to understand.
type ecKeys struct {
	size  int // of a scalar and of a coordinate, in bytes
	curve curve
}

// A curve makes and uses scalars d and uncompressed points, both in bytes of fixed length.
type curve interface {
	// generate makes a random scalar and its point. The caller wipes d.
	generate() (d, point []byte, err error)

	// point returns the point of d. It is an error if d is not a private key of the curve: zero, or too large.
	point(d []byte) ([]byte, error)

	// prove uses d, then point, each for its half of what the pair is for. It returns nil if the two fit.
	prove(d, point []byte) error
}

func (k ecKeys) generate() (public, private []byte, err error) {
	var d, point []byte
	secret.Do(func() { d, point, err = k.curve.generate() })
	if err != nil {
		return nil, nil, err
	}
	defer clear(d)
	private, err = k.encodePrivate(d, point)
	return point, private, err
}

// publicKeyTag is the tag of the field publicKey in ECPrivateKey.
var publicKeyTag = asn1.Tag(1).ContextSpecific().Constructed()

// encodePrivate returns
//
//	ECPrivateKey ::= SEQUENCE {
//	  version        INTEGER { ecPrivkeyVer1(1) } (ecPrivkeyVer1),
//	  privateKey     OCTET STRING,
//	  parameters [0] ECParameters {{ NamedCurve }} OPTIONAL,
//	  publicKey  [1] BIT STRING OPTIONAL
//	}
//
// as in RFC 5915, Section 3, with the public key and without the parameters. The RFC wants those as well, but inside PKCS #8
// they would repeat the AlgorithmIdentifier, and neither OpenSSL nor crypto/x509 writes them.
func (k ecKeys) encodePrivate(d, point []byte) ([]byte, error) {
	return der(k.room(), func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1Uint64(1)
			b.AddASN1OctetString(d)
			b.AddASN1(publicKeyTag, func(b *cryptobyte.Builder) {
				b.AddASN1BitString(point)
			})
		})
	})
}

// room: the scalar, the point and its form, and the headers of all.
func (k ecKeys) room() int { return k.size + 1 + 2*k.size + 32 }

// nist is a curve of NIST SP 800-186, Section 3.2.1. Keys are made by crypto/ecdh rather than crypto/ecdsa because it gives
// them as bytes, not as big integers, and leaves fewer copies; how they are drawn is the same. Signatures are crypto/ecdsa's.
type nist struct {
	ecdh  ecdh.Curve
	ecdsa elliptic.Curve
	hash  crypto.Hash // as in AWS's signing algorithm for the curve
}

func (c nist) generate() (d, point []byte, err error) {
	key, err := c.ecdh.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	return key.Bytes(), key.PublicKey().Bytes(), nil
}

func (c nist) point(d []byte) ([]byte, error) {
	key, err := c.ecdh.NewPrivateKey(d)
	if err != nil {
		return nil, err
	}
	return key.PublicKey().Bytes(), nil
}

// shangmi is the curve sm2p256v1 of GB/T 32918.5-2017. A private key is at most n-2, one less than elsewhere, because signing
// divides by 1+d (GB/T 32918.2-2016, Section 6.1); gmsm sees to it.
type shangmi struct{}

func (shangmi) generate() (d, point []byte, err error) {
	key, err := sm2dh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	return key.Bytes(), key.PublicKey().Bytes(), nil
}

func (shangmi) point(d []byte) ([]byte, error) {
	key, err := sm2dh.P256().NewPrivateKey(d)
	if err != nil {
		return nil, err
	}
	return key.PublicKey().Bytes(), nil
}

// secg is the curve secp256k1 of SEC 2, Version 2.0, Section 2.4.1. crypto/x509 refuses it and the library that has it knows no
// DER, which is why the encodings of all curves are written here.
type secg struct{}

func (secg) generate() (d, point []byte, err error) {
	key, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		return nil, nil, err
	}
	defer key.Zero()
	return key.Serialize(), key.PubKey().SerializeUncompressed(), nil
}

func (c secg) point(d []byte) ([]byte, error) {
	key, err := c.scalar(d)
	if err != nil {
		return nil, err
	}
	defer key.Zero()
	return key.PubKey().SerializeUncompressed(), nil
}

// scalar returns d as a private key. The library would reduce a d that is too large, and take zero.
func (secg) scalar(d []byte) (*secp256k1.PrivateKey, error) {
	key := new(secp256k1.PrivateKey)
	if len(d) != secp256k1.PrivKeyBytesLen {
		return nil, errors.New("invalid private key size")
	}
	if overflow := key.Key.SetByteSlice(d); overflow || key.Key.IsZero() {
		key.Zero()
		return nil, errors.New("invalid private key")
	}
	return key, nil
}

// ed25519Keys are keys of Ed25519 (RFC 8032, Section 5.1), encoded as in RFC 8410: the public key is its 32 bytes, the private
// key is the seed in an OCTET STRING of its own (CurvePrivateKey, Section 7). The public key is not repeated in the private
// key, for that would be version 1, which not every reader knows.
type ed25519Keys struct{}

func (k ed25519Keys) generate() (public, private []byte, err error) {
	// RFC 8032, Section 5.1.5: the private key is 32 octets of cryptographically secure random data. Read never fails.
	seed := make([]byte, ed25519.SeedSize)
	defer clear(seed)
	rand.Read(seed)
	var key ed25519.PrivateKey
	secret.Do(func() { key = ed25519.NewKeyFromSeed(seed) })
	defer clear(key)
	private, err = der(k.room(), func(b *cryptobyte.Builder) { b.AddASN1OctetString(seed) })
	return []byte(key.Public().(ed25519.PublicKey)), private, err
}

func (ed25519Keys) room() int { return ed25519.SeedSize + 2 }
