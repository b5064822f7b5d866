package kms

import (
	"crypto/sha256"
	"fmt"

	"strongroom/kms/policy"
)

// DefaultMemory is how many bytes a [Service] takes, more or less, for what it remembers of the store: enough for some 30,000 keys in use, or as many principals
// and grants.
const DefaultMemory = 64 << 20

// remembered is what a [Service] remembers between requests. All of it was read from the store and is believed only as long as [Service.trusted] says; but documents
// are what they are, whatever the store says.
type remembered struct {
	keys        *cache[KeyID, *Key]
	aliases     *cache[aliasKey, *Alias]
	aliasNames  *cache[KeyID, []string]
	credentials *cache[string, *Credential]
	identities  *cache[string, *identity]
	grants      *cache[grantKey, *heldGrants]
	found       *cache[foundKey, []Grant]
	documents   *cache[policyHash, *policy.Document]
}

// A policyHash is the SHA-256 of the text of a policy.
type policyHash [sha256.Size]byte

func newRemembered(limit int64) (remembered, *memory) {
	m := &memory{limit: limit}
	return remembered{
		keys:       newCache(m, func(_ KeyID, k *Key) int { return k.size() }),
		aliases:    newCache(m, func(k aliasKey, _ *Alias) int { return 200 + 2*len(k.name) }),
		aliasNames: newCache(m, func(_ KeyID, names []string) int { return textSize(names...) }),
		credentials: newCache(m, func(_ string, c *Credential) int {
			return 350 + textSize(c.ID, c.Principal, c.Session) + len(c.Sealed) + len(c.Token)
		}),
		identities: newCache(m, func(arn string, id *identity) int { return 200 + len(arn) + id.size() }),
		grants:     newCache(m, func(k grantKey, h *heldGrants) int { return 100 + len(k.grantee) + grantsSize(h.grants) }),
		found:      newCache(m, func(k foundKey, grants []Grant) int { return 150 + len(k.grantee) + grantsSize(grants) }),
		documents:  newCache(m, func(_ policyHash, d *policy.Document) int { return d.Size() }),
	}, m
}

// forget drops all that is remembered from the store.
func (r *remembered) forget() {
	r.keys.forgetAll()
	r.aliases.forgetAll()
	r.aliasNames.forgetAll()
	r.credentials.forgetAll()
	r.identities.forgetAll()
	r.grants.forgetAll()
	r.found.forgetAll()
}

// Caches returns how much is remembered of what.
func (s *Service) Caches() map[string]CacheStats {
	return map[string]CacheStats{
		"keys": s.keys.stats(), "aliases": s.aliases.stats(), "alias_names": s.aliasNames.stats(), "credentials": s.credentials.stats(),
		"identities": s.identities.stats(), "grants": s.grants.stats(), "grants_found": s.found.stats(), "policies": s.documents.stats(),
	}
}

// CacheLimit returns how many bytes all of that may take.
func (s *Service) CacheLimit() int64 { return s.memory.limit }

// document returns the policy of a key, read, and an error if it cannot be. Most keys have a policy that others have too: it is read once, and kept once.
func (s *Service) document(key *Key) (*policy.Document, error) {
	// It was read from the store together with the key, so that there is no more to trust than the key.
	if d, ok := s.documents.look(key.policyHash); ok && d != nil {
		return d, nil
	}
	d, err := s.documents.get(key.policyHash, true, func() (*policy.Document, error) {
		// It was checked when it was written. Nobody may use a key whose policy cannot be read.
		d, err := policy.Parse(policy.KeyPolicy, key.Policy)
		if err != nil {
			s.log.Error("the policy of a key cannot be read; nobody may use the key", "key", key.ID, "err", err)
		}
		return d, nil
	})
	if err == nil && d == nil {
		err = fmt.Errorf("the policy of key %s cannot be read", key.ID)
	}
	return d, err
}

// textSize returns what strings take.
func textSize(texts ...string) int {
	n := 0
	for _, s := range texts {
		n += 16 + len(s)
	}
	return n
}

// size returns what a key takes in memory, more or less, without its document.
func (k *Key) size() int {
	n := 350 + textSize(k.Account, k.Description, k.Policy)
	for name, value := range k.Tags {
		n += 32 + textSize(name, value)
	}
	for i := range k.Materials {
		n += 120 + len(k.Materials[i].Ref)
	}
	return n
}

func (id *identity) size() int {
	n := 0
	for name, value := range id.tags {
		n += 32 + textSize(name, value)
	}
	for i := range id.texts {
		n += 64 + textSize(id.texts[i].Name, id.texts[i].Text) + id.policies[i].Document.Size()
	}
	return n
}

func grantsSize(grants []Grant) int {
	n := 0
	for i := range grants {
		g := &grants[i]
		n += 250 + textSize(g.ID, g.Name, g.Grantee, g.Retiring, g.Issuer, g.Constraint.SourceArn)
		for name, value := range g.Constraint.context() {
			n += 50 + textSize(name, value)
		}
	}
	return n
}
