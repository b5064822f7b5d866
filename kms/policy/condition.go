package policy

import "strings"

// Context is what is known of a request. Values returns the values of a condition key, whose name is given as strings.ToLower writes it
// ("kms:encryptioncontext:department"), and false if the request has none. An empty list is the same as none.
//
// Values are text: a number in decimal digits, a boolean as true or false, a date in one of the forms that a policy may have, bytes for
// BinaryEquals as they are.
type Context interface {
	Values(key string) ([]string, bool)
}

// lookup returns the values of a key, none if it is absent.
func lookup(ctx Context, key string) []string {
	if ctx == nil {
		return nil
	}
	values, ok := ctx.Values(key)
	if !ok {
		return nil
	}
	return values
}

// A test is one key of one operator of a Condition.
type test struct {
	key      string // in lower case
	set      quantifier
	negated  bool
	ifExists bool
	null     *bools  // of the operator Null; the rest is then empty
	values   matcher // of every other

	raw rawTest // for explanations
}

// A quantifier says which of a key's values in the request an operator must hold for.
type quantifier uint8

const (
	single       quantifier = iota // there should be one
	forAllValues                   // each
	forAnyValue                    // one at least
)

// newTest compiles a test, or says what is wrong with it.
func newTest(s *rawStatement, raw rawTest, kind Kind, variables bool) (test, error) {
	place := s.place + ".Condition"
	t := test{raw: raw}

	name := raw.operator
	if rest, ok := strings.CutPrefix(name, "ForAllValues:"); ok {
		name, t.set = rest, forAllValues
	} else if rest, ok := strings.CutPrefix(name, "ForAnyValue:"); ok {
		name, t.set = rest, forAnyValue
	}
	name, t.ifExists = strings.CutSuffix(name, "IfExists")
	op, ok := operators[name]
	null := raw.operator == "Null"
	if !ok && !null {
		return t, faultf("%s: unknown operator %s", place, raw.operator)
	}

	place += "." + raw.operator
	var err error
	if t.key, err = knownKey(place, raw.key); err != nil {
		return t, err
	}
	if kind == KeyPolicy && t.key == "kms:resourcealiases" {
		return t, faultf("%s: %s is a condition key for identity policies alone", place, raw.key)
	}
	if t.set == forAllValues && kind == KeyPolicy && s.effect == "Allow" && isContextOrTag(t.key) {
		return t, faultf(textForAllValues)
	}

	place += "." + raw.key
	if null {
		t.null, err = newBools(place, raw.values)
		return t, err
	}
	t.negated = op.negated
	t.values, err = op.compile(place, raw.values, dialect{variables: variables})
	return t, err
}

// holds reports whether the request passes the test (IAM User Guide, "Condition operators" and "Set operators for multivalued context keys").
//
// A key that has several values although no set operator is there is a case that the Guide leaves open. It is decided against the request:
// all of the values must pass in a statement that allows, one is enough in a statement that denies.
func (t *test) holds(ctx Context, deny bool) bool {
	values := lookup(ctx, t.key)
	if t.null != nil {
		return t.null.has(len(values) == 0)
	}
	if len(values) == 0 {
		return t.ifExists || t.set == forAllValues || t.set == single && t.negated
	}
	all := t.set == forAllValues || t.set == single && !deny
	for _, v := range values {
		if passes := t.values.match(v, ctx) != t.negated; passes != all {
			return passes
		}
	}
	return all
}
