package policy

import "strings"

// A token is a part of a pattern.
type token struct {
	kind       tokenKind
	text       string // of a literal; of a variable, its default
	key        string // of a variable, in lower case
	hasDefault bool
}

type tokenKind uint8

const (
	literal  tokenKind = iota
	star               // any characters
	one                // one character
	variable           // what the request says
)

// A dialect says which characters of a text have a meaning.
type dialect struct {
	wildcards bool // "*" and "?"
	variables bool // "${": since version 2012-10-17
}

// tokenize takes a pattern apart. After "${" come the name of a condition key and perhaps a default:
//
//	${aws:username}
//	${aws:PrincipalTag/team, 'company-wide'}
//
// or one of the characters "*", "?" and "$", which then have no meaning. The IAM User Guide, "IAM policy elements: Variables and tags", has no
// way to write a quote in a default, so there is none here.
func (d dialect) tokenize(place, s string) ([]token, error) {
	var ts []token
	for s != "" {
		switch {
		case d.wildcards && s[0] == '*':
			ts = append(ts, token{kind: star})
			s = s[1:]
		case d.wildcards && s[0] == '?':
			ts = append(ts, token{kind: one})
			s = s[1:]
		case d.variables && strings.HasPrefix(s, "${"):
			t, rest, err := variableToken(place, s)
			if err != nil {
				return nil, err
			}
			ts = append(ts, t)
			s = rest
		default:
			n := 1
			for n < len(s) && !(d.wildcards && (s[n] == '*' || s[n] == '?')) && !(d.variables && s[n] == '$') {
				n++
			}
			ts = append(ts, token{text: s[:n]})
			s = s[n:]
		}
	}
	return ts, nil
}

// variableToken reads the variable that s begins with and returns what is after it.
func variableToken(place, s string) (t token, rest string, err error) {
	body := s[len("${"):]
	for _, c := range []string{"*", "?", "$"} {
		if rest, ok := strings.CutPrefix(body, c+"}"); ok {
			return token{text: c}, rest, nil
		}
	}
	end := strings.IndexAny(body, ",}")
	if end < 0 {
		return token{}, "", faultf("%s: a policy variable without its }: %q", place, s)
	}
	key := strings.Trim(body[:end], " ")
	t.kind = variable
	if t.key, err = knownKey(place, key); err != nil {
		return token{}, "", err
	}
	if body[end] == '}' {
		return t, body[end+1:], nil
	}
	rest = strings.TrimLeft(body[end+1:], " ")
	rest, ok := strings.CutPrefix(rest, "'")
	if ok {
		t.text, rest, ok = strings.Cut(rest, "'")
	}
	if ok {
		rest, ok = strings.CutPrefix(strings.TrimLeft(rest, " "), "}")
	}
	if !ok {
		return token{}, "", faultf("%s: the default of a policy variable is written ${key, 'default'}: %q", place, s)
	}
	t.hasDefault = true
	return t, rest, nil
}

// hasVariable reports whether ts need a request to be compared.
func hasVariable(ts []token) bool {
	for _, t := range ts {
		if t.kind == variable {
			return true
		}
	}
	return false
}

// expand replaces the variables of ts by literal text, in which "*" is a star. It reports false if the request has no value for one that has no
// default, or more than one value: then the pattern matches nothing.
func expand(ts []token, ctx Context) ([]token, bool) {
	out := make([]token, len(ts))
	for i, t := range ts {
		if t.kind == variable {
			values := lookup(ctx, t.key)
			switch {
			case len(values) == 1:
				t = token{text: values[0]}
			case len(values) == 0 && t.hasDefault:
				t = token{text: t.text}
			default:
				return nil, false
			}
		}
		out[i] = t
	}
	return out, true
}

// join returns the text of tokens that are all literal.
func join(ts []token) string {
	if len(ts) == 1 {
		return ts[0].text
	}
	var b strings.Builder
	for _, t := range ts {
		b.WriteString(t.text)
	}
	return b.String()
}
