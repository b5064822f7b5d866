package kms

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// grantsKept is how many grants of one key to one grantee are remembered together. Where there are more, the store is asked for those that can be for
// the request's encryption context.
const grantsKept = 64

// grantsPage is how many are read at once where all are to be looked at.
const grantsPage = 1000

// heldGrants are the grants of one key to one grantee, if they are few; otherwise many is true and there are none.
type heldGrants struct {
	grants []Grant
	many   bool
}

type grantKey struct {
	key     keyRead
	grantee string
}

// A keyRead is a key as it was read once.
type keyRead struct {
	id   KeyID
	read uint64
}

// findGrant returns a grant that allows who to do a with the key, or nil. A grant to an account is for its root, and for those of its principals
// whose identity policies allow the action, which is what identityAllows says of who.
func (s *Service) findGrant(ctx context.Context, who Caller, a *access, key *Key, identityAllows bool) (*Grant, error) {
	operation := grantOperation(strings.TrimPrefix(a.action, "kms:"))
	if operation == 0 {
		return nil, nil
	}
	for _, grantee := range s.grantees(who, identityAllows) {
		g, err := s.findGrantTo(ctx, grantee, a, key, operation)
		if g != nil || err != nil {
			return g, err
		}
	}
	// A token names a grant that may be so new that this process has not heard of it.
	for _, text := range a.grantTokens {
		t, err := parseGrantToken(text)
		if err != nil || t.key != key.ID {
			continue // of another key: it does no harm
		}
		var g *Grant
		err = s.store.View(ctx, func(tx Tx) (err error) {
			g, err = tx.Grant(t.key, t.grant)
			return err
		})
		if err != nil && !isNotStored(err) {
			return nil, err
		}
		if err == nil && slices.Contains(s.grantees(who, identityAllows), g.Grantee) && a.isFor(g, operation) {
			return g, nil
		}
	}
	return nil, nil
}

// grantees returns the principals whose grants are also who's.
func (s *Service) grantees(who Caller, identityAllows bool) []string {
	names := []string{who.Principal}
	if who.Role != "" {
		names = append(names, who.Role)
	}
	if root := RootARN(s.partition, who.Account); identityAllows && root != who.Principal {
		names = append(names, root)
	}
	return names
}

// isFor reports whether g allows a.
func (a *access) isFor(g *Grant, operation GrantOperations) bool {
	if !g.Operations.has(operation) {
		return false
	}
	if a.cryptographic && !g.Constraint.allows(a.pairs()) {
		return false
	}
	// Without an encryption context a constraint does not count, but for one that allows nothing.
	if g.Constraint.SourceArn != "" {
		return false
	}
	return a.viaGrant == nil || a.viaGrant(g)
}

func (s *Service) findGrantTo(ctx context.Context, grantee string, a *access, key *Key, operation GrantOperations) (*Grant, error) {
	held, err := s.grants.get(grantKey{keyRead{key.ID, key.read}, grantee}, s.trusted(), func() (*heldGrants, error) {
		held := new(heldGrants)
		err := s.store.View(ctx, func(tx Tx) (err error) {
			held.grants, err = tx.Grants(key.ID, grantee, "", grantsKept+1)
			return err
		})
		if len(held.grants) > grantsKept {
			held.grants, held.many = nil, true
		}
		return held, err
	})
	if err != nil {
		return nil, err
	}
	if !held.many {
		return a.firstFor(held.grants, operation), nil
	}
	// Each pair is a question to the store; of very many, it is cheaper to look at all grants.
	more := len(a.context) > maxMatches
	for _, match := range a.matches() {
		some, err := s.matchingGrants(ctx, foundKey{keyRead{key.ID, key.read}, grantee, match, operation})
		if err != nil {
			return nil, err
		}
		if g := a.firstFor(some, operation); g != nil {
			return g, nil
		}
		more = more || len(some) == matchingKept
	}
	if !more {
		return nil, nil
	}
	// Very many grants are found by one pair that they have in common. Then there is nothing for it but to look at all.
	for after := ""; ; {
		var some []Grant
		err := s.store.View(ctx, func(tx Tx) (err error) {
			some, err = tx.Grants(key.ID, grantee, after, grantsPage)
			return err
		})
		if err != nil || len(some) == 0 {
			return nil, err
		}
		if g := a.firstFor(some, operation); g != nil {
			return g, nil
		}
		after = some[len(some)-1].ID
	}
}

// maxMatches is how many pairs of an encryption context grants are asked for by.
const maxMatches = 64

// matches returns what the grants that can be for a are found by. Where no encryption context is used, that is anything.
func (a *access) matches() []GrantMatch {
	switch {
	case !a.cryptographic:
		return []GrantMatch{AnyMatch}
	case len(a.context) > maxMatches:
		return nil
	}
	return grantMatches(a.pairs())
}

// foundKey is what some grants of one key to one grantee are asked for by.
type foundKey struct {
	key       keyRead
	grantee   string
	match     GrantMatch
	operation GrantOperations
}

// matchingKept is how many grants of one match are remembered, and looked at first.
const matchingKept = 32

// matchingGrants returns up to matchingKept grants that k describes, from memory where that can be trusted: the same encryption contexts come again and again.
func (s *Service) matchingGrants(ctx context.Context, k foundKey) ([]Grant, error) {
	return s.found.get(k, s.trusted(), func() (some []Grant, err error) {
		err = s.store.View(ctx, func(tx Tx) (err error) {
			some, err = tx.FindGrants(k.key.id, k.grantee, k.match, k.operation, matchingKept)
			return err
		})
		return some, err
	})
}

// firstFor returns the first of the grants that allows a.
func (a *access) firstFor(grants []Grant, operation GrantOperations) *Grant {
	for i := range grants {
		if a.isFor(&grants[i], operation) {
			return &grants[i]
		}
	}
	return nil
}

// grantReason says why no grant allowed a, for the operator.
func (s *Service) grantReason(ctx context.Context, who Caller, a *access, key *Key) string {
	operation := strings.TrimPrefix(a.action, "kms:")
	if grantOperation(operation) == 0 {
		return "no grant can be for " + operation
	}
	const shown = 5
	var parts []string
	for _, grantee := range s.grantees(who, true) {
		var some []Grant
		err := s.store.View(ctx, func(tx Tx) (err error) {
			some, err = tx.Grants(key.ID, grantee, "", shown)
			return err
		})
		if err != nil {
			return "grants could not be read"
		}
		for _, g := range some {
			parts = append(parts, fmt.Sprintf("grant %.8s… to %s: %s", g.ID, g.Grantee, a.whyNot(&g, operation)))
		}
	}
	if len(parts) == 0 {
		return "no grant on the key is the caller's"
	}
	return strings.Join(parts[:min(len(parts), shown)], "; ")
}

// whyNot says why a grant does not allow a.
func (a *access) whyNot(g *Grant, operation string) string {
	switch {
	case !g.Operations.has(grantOperation(operation)):
		return "is for " + strings.Join(g.Operations.names(), ", ")
	case g.Constraint.SourceArn != "":
		return "has a constraint SourceArn, which nothing here fulfils"
	case a.cryptographic && g.Constraint.Equals != nil && !g.Constraint.allows(a.pairs()):
		return fmt.Sprintf("needs the encryption context %s, the request has %s", showContext(g.Constraint.Equals), showContext(a.context))
	case a.cryptographic && !g.Constraint.allows(a.pairs()):
		return fmt.Sprintf("needs an encryption context with %s, the request has %s", showContext(g.Constraint.Subset), showContext(a.context))
	case a.viaGrant != nil && !a.viaGrant(g):
		return "does not cover the grant that was to be made"
	}
	return "is to an account, and no identity policy allows the action"
}

// showContext writes an encryption context in a fixed order; of a large one, the beginning.
func showContext(context map[string]string) string {
	const most, longest = 8, 64
	var b strings.Builder
	for i, p := range sortedPairs(context) {
		if i > 0 {
			b.WriteString(", ")
		}
		if i == most {
			b.WriteString("…")
			break
		}
		fmt.Fprintf(&b, "%s=%s", quoted(p.name, longest), quoted(p.value, longest))
	}
	return "{" + b.String() + "}"
}
