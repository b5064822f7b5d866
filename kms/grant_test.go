package kms

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestGrantOperations(t *testing.T) {
	var all GrantOperations
	for i, name := range grantOperations {
		o := grantOperation(name)
		if o != 1<<i {
			t.Errorf("%s is %b, and bits are stored", name, o)
		}
		all |= o
	}
	if got := all.names(); !slices.Equal(got, grantOperations) {
		t.Errorf("all operations are %v", got)
	}
	if grantOperation("ListGrants") != 0 || grantOperation("") != 0 || len(GrantOperations(0).names()) != 0 {
		t.Error("a set of an operation that no grant can be for is not empty")
	}
	two := grantOperation("Encrypt") | grantOperation("Decrypt")
	if !two.has(grantOperation("Encrypt")) || !two.has(two) || grantOperation("Encrypt").has(two) || two.has(0) {
		t.Error("has does not mean a subset that is not empty")
	}
	if got := symmetricOperations.names(); len(got) != 11 || slices.Contains(got, "Sign") || slices.Contains(got, "GetPublicKey") {
		t.Errorf("a grant on a symmetric key can be for %v", got)
	}
}

func TestGrantConstraint(t *testing.T) {
	type m = map[string]string
	equals := func(c m) GrantConstraint { return GrantConstraint{Equals: c} }
	subset := func(c m) GrantConstraint { return GrantConstraint{Subset: c} }
	for _, test := range []struct {
		name       string
		constraint GrantConstraint
		allowed    []m
		refused    []m
	}{
		{"none", GrantConstraint{}, []m{nil, {}, {"a": "1"}}, nil},
		{"equals", equals(m{"a": "1", "b": "2"}), []m{{"a": "1", "b": "2"}}, []m{nil, {"a": "1"}, {"a": "1", "b": "3"}, {"a": "1", "b": "2", "c": "3"}}},
		{"equals nothing", equals(m{}), []m{nil, {}}, []m{{"a": "1"}, {"": ""}}},
		{"subset", subset(m{"a": "1", "b": "2"}), []m{{"a": "1", "b": "2"}, {"a": "1", "b": "2", "c": "3"}}, []m{nil, {"a": "1"}, {"a": "1", "b": "3"}, {"a": "1", "c": "2"}}},
		{"subset nothing", subset(m{}), []m{nil, {}, {"a": "1"}}, nil},
		{"names in any case, values not", equals(m{"Tenant": "Alice"}), []m{{"tenant": "Alice"}, {"TENANT": "Alice"}}, []m{{"tenant": "alice"}, {"tenänt": "Alice"}}},
		{"subset in any case", subset(m{"TENANT": "x"}), []m{{"tenant": "x", "a": "b"}}, []m{{"tenant": "X"}}},
		{"other alphabets", subset(m{"КЛЮЧ": "Ж"}), []m{{"ключ": "Ж"}}, []m{{"ключ": "ж"}}},
		{"names that differ only in case", equals(m{"a": "1", "A": "2"}), []m{{"a": "2", "A": "1"}}, []m{{"a": "1"}, {"a": "2"}, {"a": "1", "A": "1"}}},
		{"the same pair in two cases", equals(m{"a": "1", "A": "1"}), []m{{"a": "1", "A": "1"}}, []m{{"a": "1"}}},
		{"no pair runs into the next", equals(m{"a": "bc"}), []m{{"a": "bc"}}, []m{{"ab": "c"}, {"abc": ""}, {"": "abc"}}},
		{"empty name and value", subset(m{"": ""}), []m{{"": ""}, {"": "", "a": "1"}}, []m{nil, {"": "x"}}},
		{"source ARN", GrantConstraint{SourceArn: "arn:aws:s3:::bucket"}, nil, []m{nil, {}, {"a": "1"}}},
		{"source ARN and more", GrantConstraint{Subset: m{"a": "1"}, SourceArn: "arn:aws:s3:::bucket"}, nil, []m{nil, {"a": "1"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := &Grant{Constraint: test.constraint}
			for _, context := range test.allowed {
				if !test.constraint.allows(foldedPairs(context)) {
					t.Errorf("%v is not allowed", context)
				}
				if !slices.Contains(grantMatches(foldedPairs(context)), g.Match()) {
					t.Errorf("the grant is not found for %v", context)
				}
			}
			for _, context := range test.refused {
				if test.constraint.allows(foldedPairs(context)) {
					t.Errorf("%v is allowed", context)
				}
			}
		})
	}
}

func TestGrantConstraintWithin(t *testing.T) {
	type m = map[string]string
	none, source := GrantConstraint{}, GrantConstraint{SourceArn: "arn:aws:s3:::bucket"}
	equals := func(c m) GrantConstraint { return GrantConstraint{Equals: c} }
	subset := func(c m) GrantConstraint { return GrantConstraint{Subset: c} }
	for _, test := range []struct {
		inner, outer GrantConstraint
		want         bool
	}{
		{none, none, true},
		{equals(m{"a": "1"}), none, true},
		{subset(m{"a": "1"}), none, true},
		{source, none, true},
		{none, source, false},
		{source, source, false},
		{none, equals(m{"a": "1"}), false},
		{none, equals(m{}), false},
		{none, subset(m{"a": "1"}), false},
		{none, subset(m{}), true}, // which is none
		{equals(m{"A": "1"}), equals(m{"a": "1"}), true},
		{equals(m{"a": "1", "b": "2"}), equals(m{"a": "1"}), false},
		{equals(m{"a": "x"}), equals(m{"a": "X"}), false},
		{subset(m{"a": "1"}), equals(m{"a": "1"}), false}, // an exact one cannot be loosened
		{subset(m{}), equals(m{}), false},
		{equals(m{"a": "1"}), subset(m{"a": "1"}), true},
		{equals(m{"a": "1", "b": "2"}), subset(m{"a": "1"}), true},
		{equals(m{"b": "2"}), subset(m{"a": "1"}), false},
		{subset(m{"a": "1", "b": "2"}), subset(m{"A": "1"}), true},
		{subset(m{"a": "1"}), subset(m{"a": "1", "b": "2"}), false},
		{source, subset(m{"a": "1"}), false},
	} {
		if got := test.inner.within(test.outer); got != test.want {
			t.Errorf("%+v within %+v: %v", test.inner, test.outer, got)
		}
	}
}

// randomContext returns few pairs of few names and values, so that contexts often have much in common; sometimes none, and sometimes nil.
func randomContext(r *rand.Rand) map[string]string {
	n := r.IntN(5) - 1
	if n < 0 {
		return nil
	}
	names := []string{"", "a", "A", "b", "B", "ab", "tenant", "Tenant", "TENANT", "ключ", "КЛЮЧ", "\u212a", "k", "K"}
	values := []string{"", "1", "2", "bb", "cc", "long value", "Long value"}
	context := make(map[string]string)
	for range n {
		context[names[r.IntN(len(names))]] = values[r.IntN(len(values))]
	}
	return context
}

func randomConstraint(r *rand.Rand) (c GrantConstraint) {
	switch r.IntN(4) {
	case 0, 1:
		c.Subset = randomContext(r)
	case 2:
		c.Equals = randomContext(r)
	}
	if r.IntN(20) == 0 {
		c.SourceArn = "arn:aws:s3:::bucket"
	}
	return c
}

// recased returns a context with some of its names in another letter case, where two do not become one.
func recased(r *rand.Rand, context map[string]string) map[string]string {
	if context == nil {
		return nil
	}
	changed := make(map[string]string)
	for name, value := range context {
		lower, upper := strings.ToLower(name), strings.ToUpper(name)
		if r.IntN(2) == 0 && strings.ToLower(upper) == lower {
			name = upper
		}
		changed[name] = value
	}
	if len(changed) < len(context) {
		return context
	}
	return changed
}

// What is found for a context are all the grants that allow it, and maybe more.
func TestGrantsAreFound(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	allowed, passed := 0, 0
	for range 200_000 {
		g, context := &Grant{Constraint: randomConstraint(r)}, randomContext(r)
		// What is unrelated seldom fits: begin with the constraint's own pairs half of the time.
		if r.IntN(2) == 0 && context != nil {
			maps.Copy(context, g.Constraint.context())
		}
		allows := g.Constraint.allows(foldedPairs(context))
		if allows {
			allowed++
			if !slices.Contains(grantMatches(foldedPairs(context)), g.Match()) {
				t.Fatalf("seed %d: %+v allows %q and is not found", seed, g.Constraint, context)
			}
		}
		other := recased(r, context)
		if g.Constraint.allows(foldedPairs(other)) != allows || !slices.Equal(sortedMatches(other), sortedMatches(context)) {
			t.Fatalf("seed %d: %+v tells %q from %q", seed, g.Constraint, context, other)
		}
		outer := randomConstraint(r)
		if g.Constraint.within(outer) && allows {
			passed++
			if !outer.allows(foldedPairs(context)) {
				t.Fatalf("seed %d: %+v allows %q and is within %+v, which does not", seed, g.Constraint, context, outer)
			}
		}
	}
	if allowed < 1000 || passed < 1000 {
		t.Errorf("only %d constraints allowed their context, of which %d were within another", allowed, passed)
	}
}

func sortedMatches(context map[string]string) []string {
	var all []string
	for _, m := range grantMatches(foldedPairs(context)) {
		all = append(all, string(m[:]))
	}
	slices.Sort(all)
	return all
}

func TestGrantMatch(t *testing.T) {
	match := func(c GrantConstraint) GrantMatch { return (&Grant{Constraint: c}).Match() }
	pairs := map[string]string{"a": "1", "b": "22"}
	if match(GrantConstraint{}) != (GrantMatch{}) || match(GrantConstraint{SourceArn: "arn:aws:s3:::bucket"}) != (GrantMatch{}) {
		t.Error("a grant without an encryption context is not found by zeros")
	}
	if match(GrantConstraint{Equals: pairs}) == match(GrantConstraint{Subset: pairs}) {
		t.Error("both kinds are found by the same")
	}
	// Of a subset, the pair with the longest value is likely the one that tells the most.
	if match(GrantConstraint{Subset: pairs}) != match(GrantConstraint{Subset: map[string]string{"B": "22"}}) {
		t.Error("a subset is not found by its longest value")
	}
	// A context of n pairs has at most n+2.
	if n := len(grantMatches(foldedPairs(pairs))); n != 4 {
		t.Errorf("%d matches for 2 pairs", n)
	}
	if n := len(grantMatches(foldedPairs(map[string]string{"a": "1", "A": "1"}))); n != 3 {
		t.Errorf("%d matches for one pair twice", n)
	}
}

func TestGrantToken(t *testing.T) {
	for _, multiRegion := range []bool{false, true} {
		g := &Grant{ID: newGrantID(), Key: newKeyID(multiRegion)}
		token := newGrantToken(g)
		if token == newGrantToken(g) {
			t.Error("two tokens of a grant are the same")
		}
		got, err := parseGrantToken(token)
		if err != nil || got.key != g.Key || got.grant != g.ID {
			t.Errorf("%s came back as %+v, %v", token, got, err)
		}
		if err := checkGrantID(got.grant); err != nil {
			t.Error(err)
		}
		for i := range len(token) {
			for _, c := range []byte{'A', '_', '=', '\n', '+'} {
				if b := []byte(token); b[i] != c {
					b[i] = c
					if _, err := parseGrantToken(string(b)); !errors.Is(err, InvalidGrantToken) {
						t.Fatalf("%q instead of %q: %v", b, token, err)
					}
				}
			}
		}
		for _, s := range []string{"", "x", token[1:], token[:len(token)-1], token + "A", token + "\n", token + "=", strings.ToLower(token)} {
			if err := checkGrantTokens([]string{token, s}); !errors.Is(err, InvalidGrantToken) {
				t.Errorf("%q: %v", s, err)
			}
		}
	}
	if err := checkGrantTokens(nil); err != nil {
		t.Error(err)
	}
}

// FuzzGrantToken: whatever is read as a token says which grant of which key it names, and is the one way to write its bytes.
func FuzzGrantToken(f *testing.F) {
	for _, multiRegion := range []bool{false, true} {
		f.Add(newGrantToken(&Grant{ID: newGrantID(), Key: newKeyID(multiRegion)}))
	}
	f.Add("")
	f.Add("AQAAAAAA")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseGrantToken(s)
		if err != nil {
			if got != (grantToken{}) || !errors.Is(err, InvalidGrantToken) {
				t.Errorf("refused as %v, with %+v", err, got)
			}
			return
		}
		if len(s) != 88 || checkGrantID(got.grant) != nil {
			t.Errorf("%q names %+v", s, got)
		}
		again, err := parseGrantToken(newGrantToken(&Grant{ID: got.grant, Key: got.key}))
		if err != nil || again != got {
			t.Errorf("%+v came back as %+v, %v", got, again, err)
		}
		if text := got.key.String(); got.key.kind == kindUUID && len(text) != 36 || got.key.kind == kindMultiRegion && !strings.HasPrefix(text, multiRegionPrefix) {
			t.Errorf("key %s", text)
		}
	})
}

func TestGrantID(t *testing.T) {
	if err := checkGrantID(newGrantID()); err != nil {
		t.Error(err)
	}
	for _, id := range []string{"", "abc", strings.Repeat("g", 64), strings.Repeat("A", 64), strings.Repeat("0", 63), strings.Repeat("0", 65), strings.Repeat("0", 63) + " "} {
		if err := checkGrantID(id); !errors.Is(err, InvalidGrantID) {
			t.Errorf("%q: %v", id, err)
		}
	}
}
