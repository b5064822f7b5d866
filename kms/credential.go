package kms

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"time"

	"strongroom/hsm"
)

// An AccessKey is what a client signs requests with. Its secret is in clear only here: at its creation, and nowhere later.
type AccessKey struct {
	ID     string
	Secret string
}

// NewAccessKey returns a random access key in the form of AWS's: "AKIA" and 16 characters, and a secret of 40.
func NewAccessKey() AccessKey { return newAccessKey("AKIA") }

func newAccessKey(prefix string) AccessKey {
	var secret [30]byte
	rand.Read(secret[:]) // 240 bits; never fails (crypto/rand)
	defer clear(secret[:])
	return AccessKey{ID: newIAMID(prefix), Secret: base64.StdEncoding.EncodeToString(secret[:])}
}

// newIAMID returns a random identifier in the form of AWS's: four letters that say of what, and 16 characters.
func newIAMID(prefix string) string {
	var id [10]byte
	rand.Read(id[:]) // never fails (crypto/rand)
	return prefix + base32.StdEncoding.EncodeToString(id[:])
}

// A SessionKey is an access key that is good for a while, together with its session token.
type SessionKey struct {
	AccessKey
	Token   string
	Expires time.Time
}

// String names the session's access key without its secrets.
func (k SessionKey) String() string { return k.ID }

// GoString does likewise for %#v.
func (k SessionKey) GoString() string { return fmt.Sprintf("kms.SessionKey{ID: %q}", k.ID) }

// TokenMatches reports whether token is the session token of c, in a time that does not depend on it.
func (c *Credential) TokenMatches(token string) bool {
	sum := sha256.Sum256([]byte(token))
	return c.Session != "" && len(c.Token) == len(sum) && subtle.ConstantTimeCompare(sum[:], c.Token) == 1
}

// sweepCredentials drops sessions that expired so long ago that nobody need be told that they did.
func (s *Service) sweepCredentials(ctx context.Context, now time.Time) {
	for ctx.Err() == nil {
		n := 0
		err := s.store.Update(ctx, func(tx Tx) (err error) {
			n, err = tx.DeleteExpired(now.Add(-expiredKept), sweepBatch)
			return err
		})
		if err != nil {
			s.log.Error("could not drop expired sessions", "err", err)
		}
		if err != nil || n < sweepBatch {
			return
		}
	}
}

// expiredKept is how long an expired session is told that it expired. After that its access key is unknown.
const expiredKept = 24 * time.Hour

// String names the access key without its secret.
func (k AccessKey) String() string { return k.ID }

// GoString does likewise for %#v.
func (k AccessKey) GoString() string { return fmt.Sprintf("kms.AccessKey{ID: %q}", k.ID) }

// Credential returns the access key called id, from memory where that can be trusted. It returns an error that is NotFound if there is none.
// The Credential is shared and must not be changed.
func (s *Service) Credential(ctx context.Context, id string) (*Credential, error) {
	c, err := s.credentials.get(id, s.trusted(), func() (*Credential, error) {
		var c *Credential
		err := s.store.View(ctx, func(tx Tx) (err error) {
			c, err = tx.Credential(id)
			return err
		})
		return c, err
	})
	if err == nil {
		return c, nil
	}
	if isNotStored(err) {
		return nil, errorf(NotFound, "")
	}
	return nil, err
}

// Secret opens the secret of an access key in the device. The caller wipes it.
func (s *Service) Secret(ctx context.Context, c *Credential) ([]byte, error) {
	secret, err := s.device.Open(ctx, s.sealer.Ref, nil, c.Sealed, secretAAD(c))
	if err != nil {
		// Here a rejected ciphertext is no client's doing: the store was tampered with, or belongs to another token.
		return nil, &Error{Code: KeyUnavailable, Err: fmt.Errorf("open the secret of access key %s: %w", c.ID, err)}
	}
	return secret, nil
}

// sealSecret seals a secret under the deployment's key for secrets. That key has no budget of encryptions, as the materials of KMS keys have: it encrypts
// once for each access key or session that is made, and once whenever a token is opened (CheckToken), each of which is a command or a start of the
// server and takes tens of milliseconds at least. 2^32 of them, at a hundred a second, would take more than a year without a pause.
func sealSecret(ctx context.Context, d hsm.Device, sealer SystemKey, c *Credential, secret string) error {
	plaintext := []byte(secret)
	defer clear(plaintext)
	sealed, err := d.Seal(ctx, sealer.Ref, nil, plaintext, secretAAD(c))
	if err != nil {
		return fmt.Errorf("seal the secret of access key %s: %w", c.ID, err)
	}
	c.Sealed = sealed
	return nil
}

// secretAAD is the associated data of an access key's secret, so that it cannot be moved to another access key or principal, and a session cannot be made
// to last longer, by somebody who can write to the store:
//
//	"strongroom access key v1" ‖ length (2) ‖ access key id ‖ length (2) ‖ account ‖ length (2) ‖ principal
//
// and for a session
//
//	"strongroom session v1" ‖ SHA-256(the fields above and: length (2) ‖ name of the session ‖ length (2) ‖ token hash ‖
//	    its beginning and its end, Unix milliseconds (8 each))
func secretAAD(c *Credential) []byte {
	field := func(b []byte, s string) []byte {
		b = append(b, byte(len(s)>>8), byte(len(s)))
		return append(b, s...)
	}
	b := []byte("strongroom access key v1")
	if c.Session != "" {
		b = nil
	}
	for _, s := range []string{c.ID, c.Account, c.Principal} {
		b = field(b, s)
	}
	if c.Session == "" {
		return b
	}
	b = field(b, c.Session)
	b = field(b, string(c.Token))
	b = binary.BigEndian.AppendUint64(b, uint64(c.Created.UnixMilli()))
	b = binary.BigEndian.AppendUint64(b, uint64(c.Expires.UnixMilli()))
	sum := sha256.Sum256(b)
	return append([]byte("strongroom session v1"), sum[:]...)
}
