package policy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A policyCase is one question and the answer that AWS's documentation gives it; the name says by which rule.
type policyCase struct {
	Name     string
	Key      json.RawMessage
	Identity []json.RawMessage
	Caller   Caller
	Action   string
	Resource string
	Owner    string
	Context  facts // condition keys in any case
	Want     string
	By       string // the statement that decides, if the case is about that
}

func loadCases(t testing.TB) []policyCase {
	t.Helper()
	files, err := filepath.Glob("testdata/cases-*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	var all []policyCase
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var cases []policyCase
		dec := json.NewDecoder(strings.NewReader(string(b)))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&cases); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, cases...)
	}
	return all
}

// round parses the documents of a case.
func (c *policyCase) round(t testing.TB) round {
	t.Helper()
	parse := func(kind Kind, text string) *Document {
		d, err := Parse(kind, text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		return d
	}
	var r round
	if c.Key != nil {
		r.key = &written{"key policy", string(c.Key)}
		r.policies.Key = parse(KeyPolicy, r.key.text)
	}
	for i, text := range c.Identity {
		name := string(rune('a' + i))
		r.identity = append(r.identity, written{name, string(text)})
		r.policies.Identity = append(r.policies.Identity, Named{name, parse(IdentityPolicy, string(text))})
	}
	return r
}

func (c *policyCase) question() (Question, facts) {
	f := make(facts)
	for k, v := range c.Context {
		f[strings.ToLower(k)] = v
	}
	return Question{Caller: c.Caller, Action: c.Action, Resource: c.Resource, Owner: c.Owner, Context: f}, f
}

func TestCases(t *testing.T) {
	names := make(map[string]bool)
	for _, c := range loadCases(t) {
		if names[c.Name] {
			t.Errorf("two cases are called %q", c.Name)
		}
		names[c.Name] = true
		t.Run(c.Name, func(t *testing.T) {
			r := c.round(t)
			q, f := c.question()
			got := r.compare(t, q, f)
			if got.Reason.String() != c.Want || got.Allowed != strings.HasPrefix(c.Want, "Allowed") || got.Explicit != strings.HasPrefix(c.Want, "Denied") {
				t.Errorf("got %+v, want %s", got, c.Want)
			}
			if c.By != "" && got.Statement != c.By {
				t.Errorf("decided by %q, want %q", got.Statement, c.By)
			}
		})
	}
	t.Logf("%d cases", len(names))
}
