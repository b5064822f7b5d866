package attest_test

import (
	"regexp"
	"testing"

	"strongroom/kms/attest"
	"strongroom/kms/attest/attesttest"
)

func TestCases(t *testing.T) {
	v := newVerifier(t)
	for _, c := range attesttest.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			raw := documentOf(c)
			a, err := v.Verify(raw, account, present)
			if got := reason(err); got != c.Reason {
				t.Errorf("%s: %s (%v), want %s", c.About, verdict(got), err, verdict(c.Reason))
			}
			if (a == nil) != (err != nil) {
				t.Errorf("an attestation %v and the error %v", a, err)
			}
			r := v.Examine(raw, account, present)
			var first attest.Reason
			if len(r.Faults) > 0 {
				first = r.Faults[0].Reason
			}
			if first != c.Reason {
				t.Errorf("%s: Examine says %s, want %s", c.About, verdict(first), verdict(c.Reason))
			}
			// The bytes of a root are everybody's: only what it vouches for leads to it.
			if vouched := first == 0 || first == attest.Debug || first == attest.BadKey; vouched && r.Root() != "test" ||
				(first == attest.Untrusted || first == attest.BadChain || first == attest.BadSignature) && r.Root() != "" {
				t.Errorf("%s: it leads to %q", c.About, r.Root())
			}
			for i, f := range r.Faults {
				if i > 0 && f.Reason <= r.Faults[i-1].Reason {
					t.Errorf("the faults %v are not in the order of their reasons", r.Faults)
				}
			}
			t.Logf("%5d bytes: %v", len(raw), err)
		})
	}
}

func TestCaseNames(t *testing.T) {
	seen := make(map[string]bool)
	kebab := regexp.MustCompile(`^[a-z0-9^]+(-[a-z0-9^]+)*$`)
	for _, c := range attesttest.Cases() {
		if seen[c.Name] {
			t.Errorf("there are two cases %q", c.Name)
		}
		if !kebab.MatchString(c.Name) {
			t.Errorf("case %q is not in lower case with hyphens", c.Name)
		}
		if c.About == "" {
			t.Errorf("case %q does not say what it is", c.Name)
		}
		seen[c.Name] = true
	}
	t.Logf("%d cases", len(seen))
}
