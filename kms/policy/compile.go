package policy

import (
	"strconv"
	"strings"
)

// compile gives the parts of a document their meaning, or says which has none.
func compile(kind Kind, raw *rawDocument) (*Document, error) {
	d := &Document{kind: kind, statements: make([]statement, len(raw.statements))}
	variables := raw.version == "2012-10-17" // older documents, and those without a version, have none
	sids := make(map[string]bool)
	costly := 0
	for i := range raw.statements {
		r := &raw.statements[i]
		s := &d.statements[i]
		s.name = r.sid
		if s.name == "" {
			s.name = "#" + strconv.Itoa(i+1)
		}
		if kind == IdentityPolicy && r.sid != "" {
			if !isSid(r.sid) {
				return nil, faultf("%s.Sid: must be letters and digits, not %q", r.place, r.sid)
			}
			if sids[r.sid] {
				return nil, faultf("%s.Sid: another statement has the Sid %q", r.place, r.sid)
			}
			sids[r.sid] = true
		}
		if costly += r.costly(); costly > maxCostly {
			return nil, faultf("%s: more than %d patterns of the document have a ? between two *", r.place, maxCostly)
		}
		if err := s.compile(kind, r, variables); err != nil {
			return nil, err
		}
		for _, p := range []*rawPrincipal{r.principal, r.notPrincipal} {
			if p != nil {
				d.addPrincipals(p)
			}
		}
	}
	return d, nil
}

// maxCostly is how many costly patterns a document may have. Each may take as long as the length of a value times its own, and a decision asks all of them.
const maxCostly = 100

// costly counts the patterns of a statement that have a "?" between two stars: all others are found in one pass over the value, whatever their length.
func (r *rawStatement) costly() int {
	n := 0
	count := func(patterns []string) {
		for _, p := range patterns {
			first, last := strings.IndexByte(p, '*'), strings.LastIndexByte(p, '*')
			if first >= 0 && strings.IndexByte(p[first:last], '?') >= 0 {
				n++
			}
		}
	}
	for _, patterns := range [][]string{r.action, r.notAction, r.resource, r.notResource} {
		count(patterns)
	}
	for _, t := range r.condition {
		count(t.values)
	}
	return n
}

// isSid reports whether s is a Sid as IAM has them. Those of key policies are any text.
func isSid(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9')
	})
}

func (s *statement) compile(kind Kind, r *rawStatement, variables bool) (err error) {
	switch r.effect {
	case "Allow":
	case "Deny":
		s.deny = true
	case "":
		return faultf("%s.Effect: is required", r.place)
	default:
		return faultf("%s.Effect: must be Allow or Deny, not %q", r.place, r.effect)
	}

	switch {
	case kind == IdentityPolicy && (r.principal != nil || r.notPrincipal != nil):
		return faultf("%s: an identity policy has no Principal: its statements are about whom it is attached to", r.place)
	case kind == IdentityPolicy:
	case r.principal != nil && r.notPrincipal == nil:
		s.who, err = newPrincipals(r.principal, false)
	case r.notPrincipal != nil && r.principal == nil:
		s.who, err = newPrincipals(r.notPrincipal, true)
		if err == nil && r.effect == "Allow" {
			// "Using it with Allow is not supported" (IAM User Guide, "NotPrincipal"): it would let in everybody else.
			err = faultf("%s: NotPrincipal is for Deny, and cannot be used with Allow", r.place)
		}
	default:
		err = faultf(textInvalidPrincipal)
	}
	if err != nil {
		return err
	}

	// AWS KMS takes a key policy's statement without Action or Resource, and it never applies.
	switch {
	case r.action != nil && r.notAction != nil:
		return faultf("%s: has both Action and NotAction", r.place)
	case r.resource != nil && r.notResource != nil:
		return faultf("%s: has both Resource and NotResource", r.place)
	case kind == IdentityPolicy && r.action == nil && r.notAction == nil:
		return faultf("%s: Action or NotAction is required", r.place)
	case kind == IdentityPolicy && r.resource == nil && r.notResource == nil:
		return faultf("%s: Resource or NotResource is required", r.place)
	}
	if s.actions, err = newActions(r); err != nil {
		return err
	}
	if s.resources, err = newResources(r, variables); err != nil {
		return err
	}
	for _, raw := range r.condition {
		t, err := newTest(r, raw, kind, variables)
		if err != nil {
			return err
		}
		s.tests = append(s.tests, t)
	}
	return nil
}

// actions are a compiled Action or NotAction element. The zero value, of a statement that has neither, matches no action.
type actions struct {
	not   bool
	globs []glob
}

func newActions(r *rawStatement) (actions, error) {
	a := actions{not: r.notAction != nil}
	place, list := r.place+".Action", r.action
	if a.not {
		place, list = r.place+".NotAction", r.notAction
	}
	for _, text := range list {
		service, name, ok := strings.Cut(text, ":")
		if text != "*" && (!ok || service == "" || name == "") {
			return a, faultf("%s: an action is written <service>:<name>, or *, not %q", place, text)
		}
		if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return a, faultf("%s: %q has a character that no action has", place, text)
		}
		ts, err := dialect{wildcards: true}.tokenize(place, text)
		if err != nil {
			return a, err
		}
		a.globs = append(a.globs, newGlob(ts, true))
	}
	return a, nil
}

func (a *actions) match(action string) bool {
	for i := range a.globs {
		if a.globs[i].match(action) {
			return !a.not
		}
	}
	return a.not
}

// resources are a compiled Resource or NotResource element. The zero value matches no resource.
type resources struct {
	not      bool
	any      bool       // "*"
	texts    []string   // ARNs without wildcards
	globs    []*arnGlob // with
	patterns [][]token  // with variables
}

func newResources(r *rawStatement, variables bool) (resources, error) {
	m := resources{not: r.notResource != nil}
	place, list := r.place+".Resource", r.resource
	if m.not {
		place, list = r.place+".NotResource", r.notResource
	}
	for _, text := range list {
		if text == "*" {
			m.any = true
			continue
		}
		ts, err := dialect{wildcards: true, variables: variables}.tokenize(place, text)
		if err != nil {
			return m, err
		}
		if !beginsARN(ts) && (hasVariable(ts) || !spansParts(ts)) {
			return m, faultf("%s: must be * or an ARN of six parts, with policy variables in the last alone, not %q", place, text)
		}
		switch {
		case hasVariable(ts):
			m.patterns = append(m.patterns, ts)
		case hasWildcard(ts):
			g, _ := newARNGlob(ts)
			m.globs = append(m.globs, g)
		default:
			m.texts = append(m.texts, join(ts))
		}
	}
	return m, nil
}

// beginsARN reports whether ts have the five colons of an ARN before any variable: "You can't use a variable to replace parts of the ARN before
// the fifth colon" (IAM User Guide, "Where you can use policy variables").
func beginsARN(ts []token) bool {
	colons := 0
	for _, t := range ts {
		if t.kind == variable {
			break
		}
		colons += strings.Count(t.text, ":")
	}
	return colons >= 5
}

func hasWildcard(ts []token) bool {
	for _, t := range ts {
		if t.kind == star || t.kind == one {
			return true
		}
	}
	return false
}

// match reports whether the element matches the resource s, which is a if that is not nil: the "*" of operations without a resource is no ARN
// and is matched by "*" alone.
//
// A pattern whose variable has no value matches nothing. In a NotResource element that would make the statement apply to everything, so there the
// reading that refuses is taken: a Deny applies, and an Allow does not.
func (m *resources) match(s string, a *arn, ctx Context, deny bool) bool {
	listed, known := m.lists(s, a, ctx)
	if m.not && !listed && !known {
		return deny
	}
	return listed != m.not
}

// lists reports whether the list has the resource, and whether all patterns in it that were looked at could be read.
func (m *resources) lists(s string, a *arn, ctx Context) (listed, known bool) {
	if m.any {
		return true, true
	}
	known = true
	for _, text := range m.texts {
		if text == s {
			return true, true
		}
	}
	if a == nil {
		return false, true
	}
	for _, g := range m.globs {
		if g.match(a) {
			return true, true
		}
	}
	for _, p := range m.patterns {
		ts, ok := expand(p, ctx)
		if !ok {
			known = false
			continue
		}
		if g, ok := newARNGlob(ts); ok && g.match(a) {
			return true, true
		}
	}
	return false, known
}
