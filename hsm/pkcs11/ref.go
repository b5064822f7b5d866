package pkcs11

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"fmt"

	"strongroom/hsm"
)

// A Ref, version 1, is 77 bytes:
//
//	 0    1   version = 1
//	 1   16   CKA_ID of the key
//	17   12   check value: IV
//	29   32   check value: checkMessage under the key, with checkLabel ‖ CKA_ID as associated data
//	61   16   check value: tag
//
// The check value proves that a handle is the key that was meant: nobody can make one without having used that very key. It
// is proved before the first use of a handle, because on some devices a handle names another key after a reconnect, and
// because two keys can have one CKA_ID.
const (
	refVersion = 1
	refSize    = 1 + 16 + checkSize
	checkSize  = hsm.IVSize + len(checkMessage) + hsm.TagSize

	checkMessage = "strongroom: this key is the one."
	checkLabel   = "strongroom check value v1"
)

// A check is a check value.
type check [checkSize]byte

func (c *check) iv() *[hsm.IVSize]byte { return (*[hsm.IVSize]byte)(c[:]) }
func (c *check) ciphertext() []byte    { return c[hsm.IVSize:] }

// checkAAD is the associated data of the check value of the key called id. Label and id have fixed lengths.
func checkAAD(id hsm.ID) []byte { return append([]byte(checkLabel), id[:]...) }

// A Ref of a signer, version 2, is 82 bytes:
//
//	 0    1   version = 2
//	 1   16   CKA_ID of the private key, and of its public key
//	17   65   public key: uncompressed point (SEC 1 v2, section 2.3.3)
//
// The public key proves that a handle is the private key that was meant: a signature that verifies under it was made by that one. It is here
// whole, and not as a digest, so that it never has to be asked of the token again, where anybody who may write to the token can put another
// in the place of the object of the public key. Whoever can change a Ref can only name another signer of the same token, or none.
const (
	signerVersion = 2
	signerSize    = 1 + 16 + pointSize
	pointSize     = 65
)

// A point is the public key of a signer, as an uncompressed point on P-256.
type point [pointSize]byte

// key returns the public key, if the point is on the curve.
func (p *point) key() (*ecdsa.PublicKey, error) {
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), p[:])
}

// valid reports whether the point is on the curve.
func (p *point) valid() bool {
	_, err := p.key()
	return err == nil
}

// A ref is a Ref taken apart.
type ref struct {
	id hsm.ID
	proof
}

// A proof shows which key a handle names: by its check value, or, of a signer, by its public key. The other is zero.
type proof struct {
	check check
	point point
}

// signer reports whether the key is one that signs. An uncompressed point begins with 4.
func (p *proof) signer() bool { return p.point[0] != 0 }

func parseRef(b hsm.Ref) (ref, error) {
	if len(b) == signerSize && b[0] == signerVersion {
		return ref{}, fmt.Errorf("%w: this is a reference to a signer, which neither seals nor opens", hsm.ErrNoKey)
	}
	if len(b) != refSize || b[0] != refVersion {
		return ref{}, fmt.Errorf("%w: this is not a reference to a PKCS#11 key", hsm.ErrNoKey)
	}
	return ref{id: hsm.ID(b[1:17]), proof: proof{check: check(b[17:])}}, nil
}

// parseSigner takes the Ref of a signer apart.
func parseSigner(b hsm.Ref) (ref, error) {
	if len(b) == refSize && b[0] == refVersion {
		return ref{}, fmt.Errorf("%w: this is a reference to an AES key, which does not sign", hsm.ErrNoKey)
	}
	if len(b) != signerSize || b[0] != signerVersion {
		return ref{}, fmt.Errorf("%w: this is not a reference to a PKCS#11 signer", hsm.ErrNoKey)
	}
	r := ref{id: hsm.ID(b[1:17]), proof: proof{point: point(b[17:])}}
	if !r.point.valid() {
		return ref{}, fmt.Errorf("%w: the reference to a signer holds no point on P-256", hsm.ErrNoKey)
	}
	if r.id == canaryID {
		return ref{}, fmt.Errorf("%w: the canary key serves nothing else", hsm.ErrNoKey)
	}
	return r, nil
}

func (r ref) bytes() hsm.Ref {
	if r.signer() {
		b := append(make(hsm.Ref, 0, signerSize), signerVersion)
		b = append(b, r.id[:]...)
		return append(b, r.point[:]...)
	}
	b := append(make(hsm.Ref, 0, refSize), refVersion)
	b = append(b, r.id[:]...)
	return append(b, r.check[:]...)
}
