package awsapi

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"strings"
	"sync"

	"strongroom/kms"
)

// A signingKey is what a secret access key becomes for one day, Region and service. It is the secret as far as this server is concerned, for
// that day.
type signingKey [sha256.Size]byte

// signingKeys remembers signing keys, because a new one costs a call to the HSM. It keeps two generations of at most limit
// keys: when the young one is full it becomes the old one, and what was not used since the last time is wiped. It is safe for concurrent use.
//
// Two requests at once with a key that is not remembered both go to the HSM. That happens once a day and key.
type signingKeys struct {
	limit int

	mu    sync.Mutex // held for a look into a map, never during a call to the HSM
	young map[signingKeyID]*rememberedKey
	old   map[signingKeyID]*rememberedKey
}

type signingKeyID struct{ id, date, region, service string }

// A rememberedKey belongs to one access key as it was when the HSM opened its secret. The HSM vouches for all of it: whose it is and how long a
// session lasts are bound to the sealed secret. So if any of that changes, here is nothing to go by, and the HSM is asked again.
type rememberedKey struct {
	of  kms.Credential // what same compares
	key signingKey
}

// same reports whether k is remembered of c as it is now.
func (k *rememberedKey) same(c *kms.Credential) bool {
	return bytes.Equal(k.of.Sealed, c.Sealed) && k.of.Account == c.Account && k.of.Principal == c.Principal &&
		k.of.Session == c.Session && bytes.Equal(k.of.Token, c.Token) && k.of.Expires.Equal(c.Expires)
}

func newSigningKeys(limit int) *signingKeys {
	return &signingKeys{limit: limit, young: make(map[signingKeyID]*rememberedKey)}
}

// key returns the signing key of c for the scope of a, which the caller has checked, so that what is remembered is bounded by the keys and days
// there are and not by what callers make up.
func (s *signingKeys) key(ctx context.Context, keys Credentials, c *kms.Credential, a authorization) (signingKey, error) {
	id := signingKeyID{a.id, a.date, a.region, a.service}
	if key, ok := s.find(id, c); ok {
		return key, nil
	}
	secret, err := keys.Secret(ctx, c)
	if err != nil {
		return signingKey{}, err
	}
	key := deriveKey(secret, a)
	clear(secret)
	s.remember(id, c, key)
	return key, nil
}

// deriveKey returns the signing key ("Create a signed AWS API request", step 4). It is the same for all requests of a day.
func deriveKey(secret []byte, a authorization) signingKey {
	k := append([]byte("AWS4"), secret...)
	for _, text := range []string{a.date, a.region, a.service, a.terminator} {
		h := hmac.New(sha256.New, k)
		h.Write([]byte(text))
		clear(k)
		k = h.Sum(nil)
	}
	key := signingKey(k)
	clear(k)
	return key
}

func (s *signingKeys) find(id signingKeyID, c *kms.Credential) (signingKey, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.young[id]
	if k == nil {
		if k = s.old[id]; k == nil {
			return signingKey{}, false
		}
		delete(s.old, id)
		s.put(id, k)
	}
	if !k.same(c) {
		return signingKey{}, false
	}
	return k.key, true
}

func (s *signingKeys) remember(id signingKeyID, c *kms.Credential, key signingKey) {
	// The id is a part of a header, which would stay in memory with it.
	id = signingKeyID{strings.Clone(id.id), strings.Clone(id.date), strings.Clone(id.region), strings.Clone(id.service)}
	of := kms.Credential{Account: c.Account, Principal: c.Principal, Sealed: bytes.Clone(c.Sealed),
		Session: c.Session, Expires: c.Expires, Token: bytes.Clone(c.Token)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if before := s.young[id]; before != nil {
		clear(before.key[:])
	}
	s.put(id, &rememberedKey{of, key})
}

// put puts k into the young generation. The caller holds the lock.
func (s *signingKeys) put(id signingKeyID, k *rememberedKey) {
	if len(s.young) >= s.limit && s.young[id] == nil {
		for _, k := range s.old {
			clear(k.key[:])
		}
		s.old, s.young = s.young, make(map[signingKeyID]*rememberedKey)
	}
	s.young[id] = k
}
