package policy

import (
	"fmt"
	"strings"
)

// The names of the condition keys of attestation documents begin with these, in lower case. Those of the first are SHA-384 digests in lower-case hex. Each has
// one value, or none if the request has no document.
const (
	digestKeys = "kms:recipientattestation:"
	anchorKeys = "strongroom:recipientattestation:"
)

// Warnings returns what is right in the document as such, but cannot be meant: conditions on attestation documents that match none, and those that
// let in who has none or another. Each is a sentence for the author.
func (d *Document) Warnings() []string {
	var all []string
	for i := range d.statements {
		s := &d.statements[i]
		differ := 0
		for j := range s.tests {
			t := &s.tests[j]
			digest := strings.HasPrefix(t.key, digestKeys)
			if !digest && !strings.HasPrefix(t.key, anchorKeys) || t.null != nil {
				continue
			}
			warn := func(format string, args ...any) {
				all = append(all, faultf("statement %s: %s %s: %s", s.name, t.raw.operator, t.raw.key, fmt.Sprintf(format, args...)).Error())
			}
			absent := t.holds(nil, s.deny)
			switch {
			case !s.deny && absent:
				warn("holds without a document too, and so this Allow lets in who has none")
			case s.deny && t.negated && !absent:
				warn("does not hold without a document, and so this Deny lets in who has none")
			case s.deny && t.negated:
				differ++
			}
			for _, value := range t.raw.values {
				if why := notDigest(t.raw.operator, value); digest && why != "" {
					warn("%q %s", value, why)
				}
			}
		}
		if differ > 1 {
			all = append(all, faultf("statement %s denies only what differs in all %d things that it asks of a document: one statement for each would deny what differs in any", s.name, differ).Error())
		}
	}
	return all
}

// notDigest says why an operator cannot match a value with a digest, or "". Variables are left alone.
func notDigest(operator, value string) string {
	if !strings.Contains(operator, "String") || strings.Contains(value, "${") {
		return ""
	}
	const digits = 2 * 48
	fixed, least, most := value, len(value), len(value)
	if strings.Contains(operator, "Like") {
		fixed = strings.NewReplacer("*", "", "?", "").Replace(value)
		least = len(value) - strings.Count(value, "*")
		if most = least; least < len(value) {
			most = digits
		}
	}
	isHex := !strings.ContainsFunc(fixed, func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF", r) })
	if !isHex || least > digits || most < digits {
		return "is not the 96 hexadecimal digits of a SHA-384 digest, and matches none"
	}
	if !strings.Contains(operator, "IgnoreCase") && fixed != strings.ToLower(fixed) {
		return "has capital letters, which digests have not: an operator with IgnoreCase would match them"
	}
	return ""
}
