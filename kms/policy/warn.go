package policy

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// digestKeys begins the names, in lower case, of the condition keys whose values are SHA-384 digests of attestation documents, in lower-case hex.
const digestKeys = "kms:recipientattestation:"

// Warnings returns what is right in the document as such, but cannot be meant: conditions on attestation documents that let nobody in, or
// everybody but those who differ in all they ask for. Each is a sentence for the author.
func (d *Document) Warnings() []string {
	var all []string
	for i := range d.statements {
		s := &d.statements[i]
		differ := 0
		for _, t := range s.tests {
			if !strings.HasPrefix(t.key, digestKeys) || t.null != nil {
				continue
			}
			if t.negated && !t.ifExists {
				differ++
			}
			for _, value := range t.raw.values {
				if why := notDigest(t.raw.operator, value); why != "" {
					all = append(all, faultf("statement %s: %s %s: %q %s", s.name, t.raw.operator, t.raw.key, value, why).Error())
				}
			}
		}
		if s.deny && differ > 1 {
			all = append(all, fmt.Sprintf("statement %s denies only what differs in all %d registers that it names: one statement for each would deny what differs in any", s.name, differ))
		}
	}
	return all
}

// notDigest says why an operator cannot match a value with a digest, or "". Patterns and variables are left alone.
func notDigest(operator, value string) string {
	if !strings.Contains(operator, "Equals") || strings.Contains(value, "${") {
		return ""
	}
	if b, err := hex.DecodeString(value); err != nil || len(b) != 48 {
		return "is not the 96 hexadecimal digits of a SHA-384 digest, and matches none"
	}
	if !strings.Contains(operator, "IgnoreCase") && value != strings.ToLower(value) {
		return "has capital letters, which digests have not: an operator with IgnoreCase would match them"
	}
	return ""
}
