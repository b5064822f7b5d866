package awsapi

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// A rule is what the model of AWS KMS says about one member beyond its type. Each request type carries its rules in a struct tag, next to the
// member's name:
//
//	KeyID string   `json:"KeyId" aws:"required,min=1,max=2048"`
//	Keys  []string `json:"TagKeys" aws:"required,item.min=1,item.max=128"`
//
//	required      the member must be there and not null
//	min=N, max=N  characters of a string, bytes of a blob (before base64), elements of a list or map, value of an integer
//	enum=A|B|C    a string must be one of these; types with UnmarshalText and Values bring their own set
//	pattern=NAME  a string must match, as a whole, the row NAME of patterns
//	sensitive     the value is never repeated in a message
//	item.RULE     RULE for each element of a list, or each value of a map
type rule struct {
	required  bool
	sensitive bool
	min, max  bound
	enum      []string
	pattern   *pattern
	item      *rule
}

// A bound is a limit that may be absent.
type bound struct {
	set bool
	n   int64
}

// A pattern is a regular expression as the model of AWS KMS prints it, which is Java's dialect, and the same in Go's.
type pattern struct {
	printed string
	re      *regexp.Regexp
}

// match reports whether s as a whole matches: Java's Matcher.matches, not find.
func (p *pattern) match(s string) bool { return p.re.MatchString(s) }

func compilePattern(printed, re string) *pattern {
	return &pattern{printed: printed, re: regexp.MustCompile(`\A(?:` + re + `)\z`)}
}

// patterns are the regular expressions of the model (KMS API 2014-11-01), under the name of what they describe.
var patterns = map[string]*pattern{
	"alias":      compilePattern(`^[a-zA-Z0-9:/_-]+$`, `[a-zA-Z0-9:/_-]+`),
	"marker":     compilePattern(`[\u0020-\u00FF]*`, `[\x{20}-\x{FF}]*`),
	"name":       compilePattern(`^[a-zA-Z0-9:/_-]+$`, `[a-zA-Z0-9:/_-]+`), // of a grant
	"policy":     compilePattern(`[\u0009\u000A\u000D\u0020-\u00FF]+`, `[\x{09}\x{0A}\x{0D}\x{20}-\x{FF}]+`),
	"policyname": compilePattern(`[\w]+`, `\w+`),
	"principal":  compilePattern(`^[\w+=,.@:/-]+$`, `[\w+=,.@:/-]+`),
}

// parseRule reads the tag of one member. A tag is written by us, so its errors are ours and end in a panic when the plan is compiled.
func parseRule(tag string) (rule, error) {
	var r rule
	if tag == "" {
		return r, nil
	}
	seen := make(map[string]bool)
	for _, part := range strings.Split(tag, ",") {
		name, value, hasValue := strings.Cut(part, "=")
		if seen[name] {
			return r, fmt.Errorf("%q twice", name)
		}
		seen[name] = true
		at := &r
		bare, ofItem := strings.CutPrefix(name, "item.")
		if ofItem {
			if r.item == nil {
				r.item = new(rule)
			}
			at = r.item
		}
		if err := at.set(bare, value, hasValue); err != nil {
			return r, fmt.Errorf("%q: %w", part, err)
		}
		if ofItem && (at.required || at.sensitive) {
			return r, fmt.Errorf("%q: an element can be neither", part)
		}
	}
	return r, nil
}

// set reads one part of a tag into r.
func (r *rule) set(name, value string, hasValue bool) error {
	if flag := name == "required" || name == "sensitive"; flag == hasValue {
		return fmt.Errorf("wrong form")
	}
	switch name {
	case "required":
		r.required = true
	case "sensitive":
		r.sensitive = true
	case "min", "max":
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil {
			return err
		}
		if name == "min" {
			r.min = bound{true, n}
		} else {
			r.max = bound{true, n}
		}
	case "enum":
		r.enum = strings.Split(value, "|")
		for _, v := range r.enum {
			if v == "" {
				return fmt.Errorf("an empty value")
			}
		}
	case "pattern":
		r.pattern = patterns[value]
		if r.pattern == nil {
			return fmt.Errorf("no such pattern")
		}
	default:
		return fmt.Errorf("no such rule")
	}
	return nil
}

// fits reports why the rule cannot be for a member of kind k.
func (r *rule) fits(k kind) error {
	text := k == kindString
	switch {
	case (r.min.set || r.max.set) && (k == kindBool || k == kindTime || k == kindStruct || k == kindEnum):
		return fmt.Errorf("min and max mean nothing for it")
	case r.min.set && r.max.set && r.min.n > r.max.n:
		return fmt.Errorf("min is more than max")
	case r.enum != nil && !text:
		return fmt.Errorf("enum is for strings")
	case r.pattern != nil && !text:
		return fmt.Errorf("pattern is for strings")
	case r.item != nil && k != kindList && k != kindMap:
		return fmt.Errorf("item is for lists and maps")
	}
	return nil
}
