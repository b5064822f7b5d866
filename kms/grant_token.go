package kms

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
)

// A grant token names a grant. AWS needs it until a new grant is known everywhere; here it is looked up where a node may not have heard of the grant yet,
// and it is a way to name the grant to RetireGrant. It gives no right by itself, so it need not be secret or authenticated. It is the unpadded base64url
// encoding of
//
//	 0      1   version = 1
//	 1      1   key id kind: 0 = UUID, 1 = mrk-
//	 2     16   key id
//	18     32   grant id
//	50      8   random, so that each CreateGrant gives another token
//	58      8   SHA-256("strongroom grant token v1" ‖ bytes 0 to 57), the first 8 bytes
//
// The last part tells a mistyped token from one whose grant is gone.
type grantToken struct {
	key   KeyID
	grant string
}

const (
	grantTokenVersion = 1
	grantTokenSize    = 66
)

// newGrantToken returns a new token for a grant.
func newGrantToken(g *Grant) string {
	b := make([]byte, 0, grantTokenSize)
	b = append(b, grantTokenVersion, byte(g.Key.kind))
	b = append(b, g.Key.bytes[:]...)
	b, _ = hex.AppendDecode(b, []byte(g.ID)) // it was made by newGrantID
	b = append(b, make([]byte, 8)...)
	rand.Read(b[len(b)-8:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(append(b, grantTokenSum(b)...))
}

func grantTokenSum(b []byte) []byte {
	h := sha256.New()
	h.Write([]byte("strongroom grant token v1"))
	h.Write(b)
	return h.Sum(nil)[:8]
}

// parseGrantToken reads what newGrantToken wrote and nothing else.
func parseGrantToken(s string) (t grantToken, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || base64.RawURLEncoding.EncodeToString(b) != s || len(b) != grantTokenSize || b[0] != grantTokenVersion || b[1] > byte(kindMultiRegion) ||
		!bytes.Equal(b[58:], grantTokenSum(b[:58])) {
		return t, errorf(InvalidGrantToken, "")
	}
	t.key.kind = keyKind(b[1])
	copy(t.key.bytes[:], b[2:18])
	t.grant = hex.EncodeToString(b[18:50])
	return t, nil
}

// checkGrantTokens refuses tokens that this service cannot have given out.
func checkGrantTokens(tokens []string) error {
	for _, t := range tokens {
		if _, err := parseGrantToken(t); err != nil {
			return err
		}
	}
	return nil
}
