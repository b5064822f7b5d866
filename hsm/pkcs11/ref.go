package pkcs11

import (
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

// A ref is a Ref taken apart.
type ref struct {
	id    hsm.ID
	check check
}

func parseRef(b hsm.Ref) (ref, error) {
	if len(b) != refSize || b[0] != refVersion {
		return ref{}, fmt.Errorf("%w: this is not a reference to a PKCS#11 key", hsm.ErrNoKey)
	}
	return ref{id: hsm.ID(b[1:17]), check: check(b[17:])}, nil
}

func (r ref) bytes() hsm.Ref {
	b := append(make(hsm.Ref, 0, refSize), refVersion)
	b = append(b, r.id[:]...)
	return append(b, r.check[:]...)
}
