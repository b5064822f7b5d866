package policy

import (
	"encoding/base64"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// An operator compares a value of the request with the values of a policy. A negated one is the other's opposite, whatever the values: it holds
// for those that cannot be read, too.
type operator struct {
	compile func(place string, values []string, d dialect) (matcher, error)
	negated bool
}

// A matcher is the values of a policy, compiled for one operator. It reports whether any of them matches a value of the request.
type matcher interface {
	match(value string, ctx Context) bool
}

// The operators, of the IAM User Guide, "IAM JSON policy elements: Condition operators". Their names are matched exactly: unlike condition keys,
// they are nowhere said to come in other cases. Null is not here, as it compares no values.
var operators = map[string]operator{
	"StringEquals":              {compileEqual, false},
	"StringNotEquals":           {compileEqual, true},
	"StringEqualsIgnoreCase":    {compileEqualFold, false},
	"StringNotEqualsIgnoreCase": {compileEqualFold, true},
	"StringLike":                {compileLike, false},
	"StringNotLike":             {compileLike, true},
	"NumericEquals":             {numeric(func(c int) bool { return c == 0 }), false},
	"NumericNotEquals":          {numeric(func(c int) bool { return c == 0 }), true},
	"NumericLessThan":           {numeric(func(c int) bool { return c < 0 }), false},
	"NumericLessThanEquals":     {numeric(func(c int) bool { return c <= 0 }), false},
	"NumericGreaterThan":        {numeric(func(c int) bool { return c > 0 }), false},
	"NumericGreaterThanEquals":  {numeric(func(c int) bool { return c >= 0 }), false},
	"DateEquals":                {date(func(c int) bool { return c == 0 }), false},
	"DateNotEquals":             {date(func(c int) bool { return c == 0 }), true},
	"DateLessThan":              {date(func(c int) bool { return c < 0 }), false},
	"DateLessThanEquals":        {date(func(c int) bool { return c <= 0 }), false},
	"DateGreaterThan":           {date(func(c int) bool { return c > 0 }), false},
	"DateGreaterThanEquals":     {date(func(c int) bool { return c >= 0 }), false},
	"Bool":                      {compileBool, false},
	"BinaryEquals":              {compileBinary, false},
	"IpAddress":                 {compileAddresses, false},
	"NotIpAddress":              {compileAddresses, true},
	"ArnEquals":                 {compileARNs, false},
	"ArnLike":                   {compileARNs, false},
	"ArnNotEquals":              {compileARNs, true},
	"ArnNotLike":                {compileARNs, true},
}

// Strings, compared whole.

type equal struct {
	texts    []string
	patterns [][]token // those with variables
	fold     bool      // as Unicode folds letters
}

func compileEqual(place string, values []string, d dialect) (matcher, error) {
	return compileStrings(place, values, d, false)
}

func compileEqualFold(place string, values []string, d dialect) (matcher, error) {
	return compileStrings(place, values, d, true)
}

func compileStrings(place string, values []string, d dialect, fold bool) (matcher, error) {
	m := &equal{fold: fold}
	d.wildcards = false
	for _, v := range values {
		ts, err := d.tokenize(place, v)
		switch {
		case err != nil:
			return nil, err
		case hasVariable(ts):
			m.patterns = append(m.patterns, ts)
		default:
			m.texts = append(m.texts, join(ts))
		}
	}
	return m, nil
}

func (m *equal) match(value string, ctx Context) bool {
	for _, text := range m.texts {
		if text == value || m.fold && strings.EqualFold(text, value) {
			return true
		}
	}
	for _, p := range m.patterns {
		if ts, ok := expand(p, ctx); ok {
			text := join(ts)
			if text == value || m.fold && strings.EqualFold(text, value) {
				return true
			}
		}
	}
	return false
}

// Strings, compared with patterns.

type like struct {
	globs    []glob
	patterns [][]token
}

func compileLike(place string, values []string, d dialect) (matcher, error) {
	m := new(like)
	d.wildcards = true
	for _, v := range values {
		ts, err := d.tokenize(place, v)
		switch {
		case err != nil:
			return nil, err
		case hasVariable(ts):
			m.patterns = append(m.patterns, ts)
		default:
			m.globs = append(m.globs, newGlob(ts, false))
		}
	}
	return m, nil
}

func (m *like) match(value string, ctx Context) bool {
	for i := range m.globs {
		if m.globs[i].match(value) {
			return true
		}
	}
	for _, p := range m.patterns {
		if ts, ok := expand(p, ctx); ok {
			g := newGlob(ts, false)
			if g.match(value) {
				return true
			}
		}
	}
	return false
}

// ARNs, compared part by part. ArnEquals and ArnLike are the same.

type arns struct {
	globs    []*arnGlob
	patterns [][]token
}

func compileARNs(place string, values []string, d dialect) (matcher, error) {
	m := new(arns)
	d.wildcards = true
	for _, v := range values {
		ts, err := d.tokenize(place, v)
		if err != nil {
			return nil, err
		}
		// A variable may stand for a whole ARN, so where the parts end is known only then.
		if hasVariable(ts) {
			m.patterns = append(m.patterns, ts)
			continue
		}
		g, ok := newARNGlob(ts)
		if !ok {
			return nil, faultf("%s: not an ARN of six parts: %q", place, v)
		}
		m.globs = append(m.globs, g)
	}
	return m, nil
}

func (m *arns) match(value string, ctx Context) bool {
	a, ok := splitARN(value)
	if !ok {
		return false
	}
	for _, g := range m.globs {
		if g.match(&a) {
			return true
		}
	}
	for _, p := range m.patterns {
		if ts, ok := expand(p, ctx); ok {
			if g, ok := newARNGlob(ts); ok && g.match(&a) {
				return true
			}
		}
	}
	return false
}

// Numbers.

type numbers struct {
	values []decimal
	holds  func(int) bool
}

// numeric makes an operator of how a value of the request compares with one of the policy: below (-1), equal (0) or above (1).
func numeric(holds func(int) bool) func(string, []string, dialect) (matcher, error) {
	return func(place string, values []string, _ dialect) (matcher, error) {
		m := &numbers{holds: holds}
		for _, v := range values {
			n, ok := parseDecimal(v)
			if !ok {
				return nil, faultf("%s: must be a number such as 90 or 0.5, not %q", place, v)
			}
			m.values = append(m.values, n)
		}
		return m, nil
	}
}

func (m *numbers) match(value string, _ Context) bool {
	n, ok := parseDecimal(value)
	return ok && slices.ContainsFunc(m.values, func(v decimal) bool { return m.holds(n.compare(v)) })
}

// Dates.

type dates struct {
	values []time.Time
	holds  func(int) bool
}

func date(holds func(int) bool) func(string, []string, dialect) (matcher, error) {
	return func(place string, values []string, _ dialect) (matcher, error) {
		m := &dates{holds: holds}
		for _, v := range values {
			t, ok := parseDate(v)
			if !ok {
				return nil, faultf("%s: not a date such as 2026-05-01T10:30:00Z, nor seconds since 1970: %q", place, v)
			}
			m.values = append(m.values, t)
		}
		return m, nil
	}
}

func (m *dates) match(value string, _ Context) bool {
	t, ok := parseDate(value)
	return ok && slices.ContainsFunc(m.values, func(v time.Time) bool { return m.holds(t.Compare(v)) })
}

// Booleans.

type bools struct {
	yes, no bool // true, false are among the values
}

func compileBool(place string, values []string, _ dialect) (matcher, error) {
	return newBools(place, values)
}

func newBools(place string, values []string) (*bools, error) {
	m := new(bools)
	for _, v := range values {
		b, ok := parseBool(v)
		if !ok {
			return nil, faultf("%s: must be true or false, not %q", place, v)
		}
		m.yes = m.yes || b
		m.no = m.no || !b
	}
	return m, nil
}

func (m *bools) match(value string, _ Context) bool {
	b, ok := parseBool(value)
	return ok && m.has(b)
}

func (m *bools) has(b bool) bool {
	return b && m.yes || !b && m.no
}

// Bytes: those of the request as they are, those of the policy in base64.

type binaries []string

func compileBinary(place string, values []string, _ dialect) (matcher, error) {
	var m binaries
	for _, v := range values {
		b, err := base64.StdEncoding.Strict().DecodeString(v)
		if err != nil || strings.ContainsAny(v, "\r\n") {
			return nil, faultf("%s: not base64: %q", place, v)
		}
		m = append(m, string(b))
	}
	return m, nil
}

func (m binaries) match(value string, _ Context) bool {
	return slices.Contains(m, value)
}

// Addresses.

type addresses []netip.Prefix

func compileAddresses(place string, values []string, _ dialect) (matcher, error) {
	var m addresses
	for _, v := range values {
		p, ok := parsePrefix(v)
		if !ok {
			return nil, faultf("%s: not an IP address or a CIDR range: %q", place, v)
		}
		m = append(m, p)
	}
	return m, nil
}

func (m addresses) match(value string, _ Context) bool {
	a, ok := parseAddr(value)
	return ok && slices.ContainsFunc(m, func(p netip.Prefix) bool { return p.Contains(a) })
}
