package kms

import (
	"crypto/sha256"
	"slices"
	"strings"
	"time"
)

// A Grant lets one principal use one key for some operations, under constraints. It allows and never denies (AWS KMS Developer Guide,
// "Grants in AWS KMS").
type Grant struct {
	ID         string // 64 hexadecimal digits
	Key        KeyID
	Name       string // empty for none
	Grantee    string // ARN of a root, a user, a role or a session of a role
	Retiring   string // ARN of who may retire it besides the account; empty for nobody
	Issuer     string // account in which the grant was made: that of who made it
	Operations GrantOperations
	Constraint GrantConstraint
	Created    time.Time
}

// A GrantConstraint limits a grant to requests whose encryption context is this one, or has at least these pairs. Names are compared without regard to
// letter case, values exactly [API, GrantConstraints]. At most one of the maps is not nil.
type GrantConstraint struct {
	Equals map[string]string
	Subset map[string]string

	// SourceArn is kept and shown. What it is compared with is not documented, so a grant that has one allows nothing.
	SourceArn string
}

// GrantOperations is a set of operations that a grant can be for.
type GrantOperations uint32

// grantOperations are those operations, in the order of the model. The bit of each is stored: add at the end.
var grantOperations = []string{
	"Decrypt", "Encrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "ReEncryptFrom", "ReEncryptTo", "Sign", "Verify",
	"GetPublicKey", "CreateGrant", "RetireGrant", "DescribeKey", "GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext",
	"GenerateMac", "VerifyMac", "DeriveSharedSecret",
}

// grantOperation returns the set of one operation, or none if no grant can be for it.
func grantOperation(name string) GrantOperations {
	i := slices.Index(grantOperations, name)
	if i < 0 {
		return 0
	}
	return 1 << i
}

// has reports whether all of other is in o.
func (o GrantOperations) has(other GrantOperations) bool { return other != 0 && o&other == other }

// names returns the operations in the order of the model.
func (o GrantOperations) names() []string {
	names := []string{}
	for i, name := range grantOperations {
		if o&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// A GrantMatch is what grants are found by, besides key and grantee, so that a request looks at the few that can be for its encryption context and not at
// all of fifty thousand:
//
//	0 ‖ 15 zeros                                 no constraint
//	1 ‖ SHA-256(all pairs, sorted)[:15]          EncryptionContextEquals
//	2 ‖ SHA-256(the pair with the longest value)[:15]  EncryptionContextSubset
//
// where a pair is its name in lower case and its value, each preceded by its length.
type GrantMatch [16]byte

// AnyMatch stands for every match, where grants are asked for. No grant is found by it alone.
var AnyMatch = GrantMatch{0xff}

// Match returns what g is found by.
func (g *Grant) Match() GrantMatch {
	switch c := g.Constraint; {
	case c.Equals != nil:
		return equalsMatch(c.Equals)
	case c.Subset != nil:
		pairs := foldedPairs(c.Subset)
		if len(pairs) == 0 {
			return GrantMatch{} // a subset of every context
		}
		return pairMatch(slices.MaxFunc(pairs, func(a, b pair) int {
			if len(a.value) != len(b.value) {
				return len(a.value) - len(b.value)
			}
			return b.compare(a) // so that it is always the same one
		}))
	}
	return GrantMatch{}
}

// grantMatches returns what the grants that can be for an encryption context are found by.
func grantMatches(context []pair) []GrantMatch {
	matches := []GrantMatch{{}, hashMatch(1, context...)}
	for i, p := range context {
		if i == 0 || p != context[i-1] {
			matches = append(matches, pairMatch(p))
		}
	}
	return matches
}

// allows reports whether a request with this encryption context is within the constraint.
func (c GrantConstraint) allows(context []pair) bool {
	switch {
	case c.SourceArn != "":
		return false
	case c.Equals != nil:
		return len(c.Equals) == len(context) && slices.Equal(foldedPairs(c.Equals), context)
	}
	for name, value := range c.Subset {
		if _, ok := slices.BinarySearchFunc(context, pair{strings.ToLower(name), value}, pair.compare); !ok {
			return false
		}
	}
	return true
}

// within reports whether every request that c allows, outer allows too: what a grant that was made by means of another one must be.
func (c GrantConstraint) within(outer GrantConstraint) bool {
	switch {
	case outer.SourceArn != "":
		return false // it allows nothing
	case outer.Equals != nil:
		return c.Equals != nil && slices.Equal(foldedPairs(outer.Equals), foldedPairs(c.Equals))
	case outer.Subset != nil && c.Equals != nil:
		return isSubset(foldedPairs(outer.Subset), foldedPairs(c.Equals))
	case outer.Subset != nil:
		return isSubset(foldedPairs(outer.Subset), foldedPairs(c.Subset))
	}
	return true
}

// context returns the pairs that c asks for, exactly or at least.
func (c GrantConstraint) context() map[string]string {
	if c.Equals != nil {
		return c.Equals
	}
	return c.Subset
}

// none reports whether there is no constraint.
func (c GrantConstraint) none() bool { return c.Equals == nil && c.Subset == nil && c.SourceArn == "" }

// A pair is one of an encryption context, with its name in lower case.
type pair struct{ name, value string }

func (p pair) compare(q pair) int {
	if c := strings.Compare(p.name, q.name); c != 0 {
		return c
	}
	return strings.Compare(p.value, q.value)
}

// foldedPairs returns the pairs of a context in ascending order. Names that differ only in case are each there.
func foldedPairs(context map[string]string) []pair {
	pairs := make([]pair, 0, len(context))
	for name, value := range context {
		pairs = append(pairs, pair{strings.ToLower(name), value})
	}
	slices.SortFunc(pairs, pair.compare)
	return pairs
}

// isSubset reports whether every pair of inner is in outer.
func isSubset(inner, outer []pair) bool {
	for _, p := range inner {
		if _, ok := slices.BinarySearchFunc(outer, p, pair.compare); !ok {
			return false
		}
	}
	return true
}

func equalsMatch(context map[string]string) GrantMatch {
	return hashMatch(1, foldedPairs(context)...)
}

func pairMatch(p pair) GrantMatch { return hashMatch(2, p) }

func hashMatch(kind byte, pairs ...pair) GrantMatch {
	var short [512]byte
	text := short[:0]
	for _, p := range pairs {
		text = appendField(text, p.name)
		text = appendField(text, p.value)
	}
	m := GrantMatch{kind}
	sum := sha256.Sum256(text)
	copy(m[1:], sum[:])
	return m
}

// sortedPairs returns the pairs of a context in ascending order of their names, as written.
func sortedPairs(context map[string]string) []pair {
	pairs := make([]pair, 0, len(context))
	for name, value := range context {
		pairs = append(pairs, pair{name, value})
	}
	slices.SortFunc(pairs, pair.compare)
	return pairs
}
