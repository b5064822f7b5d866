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
// Maps and arrays of indefinite length are taken, since real documents have such maps. What the library cannot be made to refuse is refused below: by
// checkItems, wherever it stands, a string in chunks, a float, undefined and other simple values, and too many items in all; by the types, an array of integers
// for a byte string, and null for anything.
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
	if err == nil {
		err = checkItems(b)
	}
	return err
}

// The major types of CBOR (RFC 8949, section 3.1) that documents consist of.
const (
	majorUnsigned = iota
	majorNegative
	majorOctets
	majorText
	majorArray
	majorMap
	majorTag
	majorSimple
)

// indefinite is the additional information of what is in chunks, or has as many items as come before a break (RFC 8949, section 3.2).
const indefinite = 31

// maxItems is how many items there may be at either layer of a document, in all that is nested. Real payloads have fewer than a hundred.
const maxItems = 512

// checkItems refuses what documents do not consist of, in one item and all that is in it. It is for what strict.Unmarshal has taken, which has made sure
// that all of it is well-formed and not deep.
func checkItems(item []byte) error {
	left := maxItems
	_, err := skipItem(item, &left)
	return err
}

// skipItem is checkItems for the first item of b. It returns what follows.
func skipItem(b []byte, left *int) (rest []byte, err error) {
	if *left--; *left < 0 {
		return nil, errors.New("it has too many items")
	}
	major, info := b[0]>>5, b[0]&0x1f
	b = b[1:]
	n := uint64(info) // the argument, or it is in the next 1, 2, 4 or 8 bytes
	if 24 <= info && info < indefinite {
		size := 1 << (info - 24)
		n = 0
		for _, c := range b[:size] {
			n = n<<8 | uint64(c)
		}
		b = b[size:]
	}
	switch major {
	case majorUnsigned, majorNegative:
		return b, nil
	case majorOctets, majorText:
		if info == indefinite {
			return nil, errors.New("a string is in chunks")
		}
		return b[n:], nil
	case majorArray, majorMap:
		if major == majorMap {
			n *= 2
		}
		for i := uint64(0); info == indefinite || i < n; i++ {
			if info == indefinite && b[0] == 0xff {
				return b[1:], nil
			}
			if b, err = skipItem(b, left); err != nil {
				return nil, err
			}
		}
		return b, nil
	case majorSimple:
		if 20 <= info && info <= 22 { // false, true, null
			return b, nil
		}
	}
	return nil, errors.New("it has a tag, a float, or a simple value other than true, false and null")
}

// cborNull is the item null.
const cborNull = "\xf6"

// requireMajor refuses an item that is not of a major type. The item is well-formed, so it has a first byte.
func requireMajor(item []byte, major byte, name string) error {
	if item[0]>>5 != major {
		return fmt.Errorf("is not %s", name)
	}
	return nil
}

// A text is a text string.
type text string

// UnmarshalCBOR implements cbor.Unmarshaler.
func (t *text) UnmarshalCBOR(item []byte) error {
	if err := requireMajor(item, majorText, "a text string"); err != nil {
		return err
	}
	return strict.Unmarshal(item, (*string)(t))
}

// An octets is a byte string.
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
	if err := checkItems(raw); err != nil {
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
