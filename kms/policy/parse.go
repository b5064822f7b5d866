package policy

import (
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// A rawDocument is a document as written: the JSON is right and the members are where they belong, but nothing has a meaning yet. It has to
// be read to its end before it can be compiled, because Version, which may come last, decides what "${" means.
type rawDocument struct {
	version    string
	statements []rawStatement
}

type rawStatement struct {
	place                   string // "Statement[2]"
	sid, effect             string
	principal, notPrincipal *rawPrincipal
	action, notAction       []string // nil if absent
	resource, notResource   []string
	condition               []rawTest
}

// A rawPrincipal is the value of a Principal or NotPrincipal element.
type rawPrincipal struct {
	aws   []string // "*" alone for the short form
	other bool     // names services, identity providers or canonical users, none of which ever calls
}

// A rawTest is one key of one operator of a Condition.
type rawTest struct {
	operator, key string
	values        []string // a number as its text, a boolean as "true" or "false"
}

// read takes the JSON apart. The grammar is that of the IAM User Guide, "Grammar of the IAM JSON policy language": four levels deep, each
// read by a function of its own, so that no document can make the reader descend further.
func read(text string) (*rawDocument, error) {
	r := reader{jsontext.NewDecoder(strings.NewReader(text))}
	d := new(rawDocument)
	seen := false
	err := r.object("The policy", func(name string) (err error) {
		switch name {
		case "Version":
			d.version, err = r.text("Version")
			if err == nil && d.version != "2008-10-17" && d.version != "2012-10-17" {
				return faultf("Version: must be 2012-10-17 or 2008-10-17, not %q", d.version)
			}
		case "Id":
			_, err = r.text("Id")
		case "Statement":
			seen = true
			err = r.statements(d)
		default:
			return faultf("unknown member %q", name)
		}
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case !seen || len(d.statements) == 0:
		return nil, faultf("Statement: at least one is required")
	}
	if _, err := r.json.ReadToken(); err != io.EOF {
		return nil, faultf(textInvalidJSON)
	}
	return d, nil
}

// A reader reads the tokens of a document. jsontext refuses a name that occurs twice in an object and UTF-8 that is not valid: two readers of
// such a text may see two policies.
type reader struct {
	json *jsontext.Decoder
}

// syntax is what the author hears about an error of the JSON itself.
func syntax(place string, err error) error {
	var at *jsontext.SyntacticError
	if errors.Is(err, jsontext.ErrDuplicateName) && errors.As(err, &at) {
		return faultf("%s: duplicate member %q", place, at.JSONPointer.LastToken())
	}
	return faultf(textInvalidJSON)
}

// object reads an object and calls member for each of its members, which must read the value.
func (r reader) object(place string, member func(name string) error) error {
	t, err := r.json.ReadToken()
	switch {
	case err != nil:
		return syntax(place, err)
	case t.Kind() != jsontext.KindBeginObject:
		return faultf("%s: must be an object", place)
	}
	for {
		t, err := r.json.ReadToken()
		if err != nil {
			return syntax(place, err)
		}
		if t.Kind() == jsontext.KindEndObject {
			return nil
		}
		if err := member(t.String()); err != nil {
			return err
		}
	}
}

// list reads an array, or a single value that stands for an array of one, and calls element before each value, which it must read.
func (r reader) list(place string, element func(i int) error) error {
	if r.json.PeekKind() != jsontext.KindBeginArray {
		return element(0)
	}
	if _, err := r.json.ReadToken(); err != nil {
		return syntax(place, err)
	}
	for i := 0; ; i++ {
		switch r.json.PeekKind() {
		case jsontext.KindEndArray:
			_, err := r.json.ReadToken()
			if err != nil {
				return syntax(place, err)
			}
			if i == 0 {
				return faultf("%s: the list is empty", place)
			}
			return nil
		case jsontext.KindBeginArray:
			return faultf("%s: a list in a list", place)
		}
		if err := element(i); err != nil {
			return err
		}
	}
}

// text reads a string.
func (r reader) text(place string) (string, error) {
	t, err := r.json.ReadToken()
	switch {
	case err != nil:
		return "", syntax(place, err)
	case t.Kind() != jsontext.KindString:
		return "", faultf("%s: must be a string", place)
	}
	return t.String(), nil
}

// texts reads a string or a list of strings.
func (r reader) texts(place string) ([]string, error) {
	var all []string
	err := r.list(place, func(int) error {
		s, err := r.text(place)
		all = append(all, s)
		return err
	})
	return all, err
}

// values reads what a condition key is compared with: a string, a number, a boolean, or a list of these.
func (r reader) values(place string) ([]string, error) {
	var all []string
	err := r.list(place, func(int) error {
		t, err := r.json.ReadToken()
		if err != nil {
			return syntax(place, err)
		}
		switch t.Kind() {
		case jsontext.KindString, jsontext.KindNumber, jsontext.KindTrue, jsontext.KindFalse:
			all = append(all, t.String())
			return nil
		}
		return faultf("%s: a value must be a string, a number or a boolean", place)
	})
	return all, err
}

func (r reader) statements(d *rawDocument) error {
	return r.list("Statement", func(i int) error {
		s := rawStatement{place: "Statement[" + strconv.Itoa(i) + "]"}
		err := r.statement(&s)
		d.statements = append(d.statements, s)
		return err
	})
}

func (r reader) statement(s *rawStatement) error {
	return r.object(s.place, func(name string) (err error) {
		place := s.place + "." + name
		switch name {
		case "Sid":
			s.sid, err = r.text(place)
		case "Effect":
			s.effect, err = r.text(place)
		case "Principal":
			s.principal, err = r.principal(place)
		case "NotPrincipal":
			s.notPrincipal, err = r.principal(place)
		case "Action":
			s.action, err = r.texts(place)
		case "NotAction":
			s.notAction, err = r.texts(place)
		case "Resource":
			s.resource, err = r.texts(place)
		case "NotResource":
			s.notResource, err = r.texts(place)
		case "Condition":
			s.condition, err = r.condition(place)
		default:
			return faultf("%s: unknown member %q", s.place, name)
		}
		return err
	})
}

// principal reads "*" or an object of lists. An empty object or list names nobody and is refused with the rest of what is invalid.
func (r reader) principal(place string) (*rawPrincipal, error) {
	if r.json.PeekKind() == jsontext.KindString {
		s, err := r.text(place)
		if err == nil && s != "*" {
			err = faultf(textInvalidPrincipal)
		}
		return &rawPrincipal{aws: []string{s}}, err
	}
	p := new(rawPrincipal)
	err := r.object(place, func(name string) error {
		switch name {
		case "AWS", "Service", "Federated", "CanonicalUser":
		default:
			return faultf("%s: unknown member %q", place, name)
		}
		all, err := r.texts(place + "." + name)
		if name == "AWS" {
			p.aws = all
		} else {
			p.other = true
		}
		return err
	})
	if err == nil && len(p.aws) == 0 && !p.other {
		err = faultf(textInvalidPrincipal)
	}
	return p, err
}

// condition reads a Condition. An empty one, and an operator without keys, change nothing: IAM Access Analyzer has a suggestion for them
// ("Empty object condition"), not an error.
func (r reader) condition(place string) ([]rawTest, error) {
	var all []rawTest
	err := r.object(place, func(operator string) error {
		under := place + "." + operator
		return r.object(under, func(key string) error {
			values, err := r.values(under + "." + key)
			all = append(all, rawTest{operator, key, values})
			return err
		})
	})
	return all, err
}
