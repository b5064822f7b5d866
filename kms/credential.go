package kms

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"fmt"

	"strongroom/hsm"
)

// An AccessKey is what a client signs requests with. Its secret is in clear only here: at its creation, and nowhere later.
type AccessKey struct {
	ID     string
	Secret string
}

// NewAccessKey returns a random access key in the form of AWS's: "AKIA" and 16 characters, and a secret of 40.
func NewAccessKey() AccessKey {
	var id [10]byte
	var secret [30]byte
	rand.Read(id[:])     // never fails (crypto/rand)
	rand.Read(secret[:]) // 240 bits
	return AccessKey{
		ID:     "AKIA" + base32.StdEncoding.EncodeToString(id[:]),
		Secret: base64.StdEncoding.EncodeToString(secret[:]),
	}
}

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

// sealSecret seals a secret under the deployment's key for secrets.
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

// secretAAD is the associated data of an access key's secret:
//
//	"strongroom access key v1" ‖ length (2) ‖ access key id ‖ length (2) ‖ account ‖ length (2) ‖ principal
//
// so that a secret cannot be moved to another access key or principal by somebody who can write to the store. The parts together
// are at most 20 + 12 + 128 bytes.
func secretAAD(c *Credential) []byte {
	b := []byte("strongroom access key v1")
	for _, field := range []string{c.ID, c.Account, c.Principal} {
		b = append(b, byte(len(field)>>8), byte(len(field)))
		b = append(b, field...)
	}
	return b
}
