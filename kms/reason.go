package kms

import (
	"fmt"
	"strings"

	"strongroom/kms/policy"
)

// reason says why policies decided as they did, in a line for the operator: what decided, and which statements would have but for a condition. more is asked
// for what it knows besides, unless a Deny decided.
func (s *Service) reason(q policy.Question, p policy.Policies, more func() string) string {
	d, steps := policy.Explain(q, p)
	parts := []string{describeDecision(d)}
	for _, step := range steps {
		if step.Missed == policy.MissedCondition && len(parts) < maxReasons {
			parts = append(parts, describeStep(step))
		}
	}
	if more != nil && !d.Explicit {
		parts = append(parts, more())
	}
	return clip(strings.Join(parts, "; "), maxReason)
}

// Bounds of a line of the log. Who is denied has a say in what is in it.
const (
	maxReasons = 8    // statements
	maxTests   = 4    // of a statement
	maxReason  = 4096 // bytes
)

// clip returns at most about n bytes of s.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// quoted returns the beginning of s in quotes.
func quoted(s string, n int) string { return fmt.Sprintf("%q", clip(s, n)) }

var reasons = map[policy.Reason]string{
	policy.NoKeyPolicyAllows:       "no statement of the key policy allows it",
	policy.NoIdentityPolicyAllows:  "no identity policy of the caller allows it",
	policy.DeniedByKeyPolicy:       "denied by the key policy",
	policy.DeniedByIdentityPolicy:  "denied by an identity policy of the caller",
	policy.AllowedByKeyPolicy:      "allowed by the key policy",
	policy.AllowedByIdentityPolicy: "allowed by an identity policy of the caller",
	policy.AllowedByBoth:           "allowed by the key policy, and by an identity policy of the caller in its own account",
}

// describeDecision says what was decided and by what.
func describeDecision(d policy.Decision) string {
	text, ok := reasons[d.Reason]
	if !ok {
		text = d.Reason.String()
	}
	if d.Document == "" {
		return text
	}
	return fmt.Sprintf("%s: statement %q of %s", text, d.Statement, d.Document)
}

// describeStep says what became of one statement.
func describeStep(step policy.Step) string {
	at := fmt.Sprintf("statement %q of %s (%s)", step.Statement, step.Document, step.Effect)
	switch {
	case step.Applied && step.AsAccount && step.Effect == "Allow":
		return at + " leaves it to identity policies"
	case step.Applied:
		return at + " applies"
	case step.Missed != policy.MissedCondition:
		return fmt.Sprintf("%s does not apply: %s", at, step.Missed)
	}
	var tests []string
	for i, f := range step.Failed {
		if i == maxTests {
			tests = append(tests, "…")
			break
		}
		has := "does not have it"
		if f.Actual != nil {
			has = "has " + showValues(f.Actual)
		}
		tests = append(tests, fmt.Sprintf("%s %s wants %s, the request %s", f.Operator, f.Key, showValues(f.Wanted), has))
	}
	return at + " does not apply: " + strings.Join(tests, ", and ")
}

// showValues writes values so that they cannot be taken for anything else; of very many or very long ones, the beginning.
func showValues(values []string) string {
	const most, longest = 8, 200
	var parts []string
	for _, v := range values[:min(len(values), most)] {
		parts = append(parts, quoted(v, longest))
	}
	if len(values) > most {
		parts = append(parts, "…")
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return "[" + strings.Join(parts, ", ") + "]"
}
