package kms

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
)

// A KeyID identifies a KMS key: a UUID, or "mrk-" and 32 hexadecimal digits for a multi-Region key. The zero KeyID is none.
// Values compare with ==.
type KeyID struct {
	kind  keyKind
	bytes [16]byte
}

// A keyKind says which of the two forms a KeyID has. Its values are part of the ciphertext format.
type keyKind byte

const (
	kindUUID        keyKind = 0
	kindMultiRegion keyKind = 1
)

const multiRegionPrefix = "mrk-"

// newKeyID returns a random KeyID: a version 4 UUID (RFC 9562, section 5.4), or 16 random bytes for a multi-Region key.
func newKeyID(multiRegion bool) KeyID {
	var id KeyID
	rand.Read(id.bytes[:]) // never fails (crypto/rand)
	if multiRegion {
		id.kind = kindMultiRegion
		return id
	}
	id.bytes[6] = id.bytes[6]&0x0f | 0x40
	id.bytes[8] = id.bytes[8]&0x3f | 0x80
	return id
}

// ParseKeyID reads what String writes and nothing else: lower-case hexadecimal digits in the one place where each belongs.
func ParseKeyID(s string) (KeyID, error) {
	var id KeyID
	digits := s
	if rest, ok := strings.CutPrefix(s, multiRegionPrefix); ok {
		id.kind, digits = kindMultiRegion, rest
	} else if len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-' {
		digits = s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	} else {
		return KeyID{}, fmt.Errorf("key id is neither a UUID nor mrk- and 32 hexadecimal digits")
	}
	if len(digits) != 32 || strings.ToLower(digits) != digits {
		return KeyID{}, fmt.Errorf("key id needs 32 lower-case hexadecimal digits")
	}
	if _, err := hex.Decode(id.bytes[:], []byte(digits)); err != nil {
		return KeyID{}, fmt.Errorf("key id: %w", err)
	}
	return id, nil
}

// String returns the id as clients write it.
func (id KeyID) String() string {
	h := hex.EncodeToString(id.bytes[:])
	if id.kind == kindMultiRegion {
		return multiRegionPrefix + h
	}
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// MultiRegion reports whether id has the form of a multi-Region key's id.
func (id KeyID) MultiRegion() bool { return id.kind == kindMultiRegion }

// IsZero reports whether id is none.
func (id KeyID) IsZero() bool { return id == KeyID{} }

// newUUID returns a random version 4 UUID.
func newUUID() string { return newKeyID(false).String() }

// newGrantID returns a random grant id: 64 hexadecimal digits.
func newGrantID() string {
	var b [32]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
