package attest

import (
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// strict decodes CBOR (RFC 8949). It refuses what has two readings (names that occur twice, bytes that follow, text that is not UTF-8) and what
// costs without use (depth, long arrays and maps, tags). Lengths that the input claims are checked against the input before anything is
// allocated.
//
// Maps of indefinite length are taken, as real documents have them. What the library cannot be made to refuse, the types below refuse: a string in
// chunks, an array of integers for a byte string, a float for an integer, and null or undefined for anything.
//
// The limits are the library's least, but for maps, which have to hold 32 registers.
var strict = func() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthAllowed,
		TagsMd:            cbor.TagsForbidden,
		UTF8:              cbor.UTF8RejectInvalid,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		MaxNestedLevels:   4,
		MaxArrayElements:  16,
		MaxMapPairs:       32,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return m
}()

// unmarshalMap decodes a map whose keys are text. The library's error for one that occurs twice quotes it, and it can be long.
func unmarshalMap(b []byte, into *map[text]item) error {
	err := strict.Unmarshal(b, into)
	if twice, ok := errors.AsType[*cbor.DupMapKeyError](err); ok {
		return fmt.Errorf("entry %d has a name that occurs twice", twice.Index)
	}
	return err
}

// The major types of CBOR (RFC 8949, section 3.1) that documents consist of.
const (
	majorUnsigned = 0
	majorOctets   = 2
	majorText     = 3
)

// cborNull is the item null.
const cborNull = "\xf6"

// requireMajor refuses an item that is not of a major type, or that is in chunks. The item is well-formed, so it has a first byte.
func requireMajor(item []byte, major byte, name string) error {
	const indefinite = 31
	switch {
	case item[0]>>5 != major:
		return fmt.Errorf("is not %s", name)
	case item[0]&0x1f == indefinite:
		return fmt.Errorf("is %s in chunks", name)
	}
	return nil
}

// A text is a text string of definite length.
type text string

// UnmarshalCBOR implements cbor.Unmarshaler.
func (t *text) UnmarshalCBOR(item []byte) error {
	if err := requireMajor(item, majorText, "a text string"); err != nil {
		return err
	}
	return strict.Unmarshal(item, (*string)(t))
}

// An octets is a byte string of definite length.
type octets []byte

// UnmarshalCBOR implements cbor.Unmarshaler.
func (o *octets) UnmarshalCBOR(item []byte) error {
	if err := requireMajor(item, majorOctets, "a byte string"); err != nil {
		return err
	}
	return strict.Unmarshal(item, (*[]byte)(o))
}

// An unsigned is an unsigned integer.
type unsigned uint64

// UnmarshalCBOR implements cbor.Unmarshaler.
func (u *unsigned) UnmarshalCBOR(item []byte) error {
	if err := requireMajor(item, majorUnsigned, "an unsigned integer"); err != nil {
		return err
	}
	return strict.Unmarshal(item, (*uint64)(u))
}

// An item is any item, not yet decoded.
type item = cbor.RawMessage

// A sign1 is a COSE_Sign1 message (RFC 9052, section 4.2).
type sign1 struct {
	_           struct{} `cbor:",toarray"`
	Protected   octets
	Unprotected item
	Payload     octets
	Signature   octets
}

// The first bytes of a message. The array is always of definite length.
const (
	sign1Tag   = 0xd2 // tag 18
	sign1Array = 0x84 // four elements
)

// protectedES384 is the one protected header of real documents: {alg: ES384}, in the one encoding that they have (RFC 9053, table 1).
const protectedES384 = "\xa1\x01\x38\x22"

// parseSign1 reads a message, tagged or not.
func parseSign1(raw []byte) (*sign1, error) {
	if len(raw) > 0 && raw[0] == sign1Tag {
		raw = raw[1:]
	}
	if len(raw) == 0 || raw[0] != sign1Array {
		return nil, errors.New("is not an array of four")
	}
	m := new(sign1)
	if err := strict.Unmarshal(raw, m); err != nil {
		return nil, err
	}
	switch {
	case string(m.Protected) != protectedES384:
		return nil, errors.New("protected header: is not ES384 alone")
	case string(m.Unprotected) != "\xa0" && string(m.Unprotected) != "\xbf\xff":
		return nil, errors.New("unprotected header: is not empty")
	case len(m.Payload) == 0 || len(m.Payload) > maxPayload:
		return nil, fmt.Errorf("payload: %d bytes are not from 1 to %d", len(m.Payload), maxPayload)
	case len(m.Signature) != signatureSize:
		return nil, fmt.Errorf("signature: %d bytes are not %d", len(m.Signature), signatureSize)
	}
	return m, nil
}
