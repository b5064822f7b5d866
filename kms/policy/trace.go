package policy

// A Step is what one statement contributed to a decision, for an operator who asks why.
type Step struct {
	Document  string // "key policy", or the name of the identity policy
	Statement string // Sid, or "#2"
	Effect    string // Allow or Deny
	Applied   bool   // all elements matched
	AsAccount bool   // it names the caller as one of its account only: if it allows, it delegates
	Missed    Element
	Failed    []FailedTest // all that failed, if the Condition is what was missed
}

// An Element is the first element of a statement that did not match.
type Element uint8

const (
	MissedNothing Element = iota
	MissedPrincipal
	MissedAction
	MissedResource
	MissedCondition
)

var elementNames = [...]string{"", "principal", "action", "resource", "condition"}

// String returns the name of the element, in lower case.
func (e Element) String() string {
	if int(e) < len(elementNames) {
		return elementNames[e]
	}
	return "Element(?)"
}

// A FailedTest is a test of a Condition that the request did not pass.
type FailedTest struct {
	Operator string   // as written, with its prefix and suffix
	Key      string   // as written
	Wanted   []string // the values of the policy, as written: a policy variable is not replaced
	Actual   []string // the values of the request; nil if the key is absent
}

// Explain decides as Decide does, by the same code, and returns what every statement contributed: first those of the key policy, then those of
// the identity policies, in their order.
func Explain(q Question, p Policies) (Decision, []Step) {
	var tr trace
	d := decide(&q, &p, &tr)
	return d, tr.steps
}

// A trace collects the steps.
type trace struct {
	steps []Step
}

// shown returns a copy of the first values, as many as a person would read: a request may have thousands, and a document as many tests that fail.
func shown(values []string) []string {
	return append([]string(nil), values[:min(len(values), 10)]...)
}

// add asks the tests that are left, notes the step, and returns what ask.applies does.
func (tr *trace) add(s *statement, ctx Context, document string, n naming, missed Element) naming {
	step := Step{Document: document, Statement: s.name, Effect: "Allow", Missed: missed}
	if s.deny {
		step.Effect = "Deny"
	}
	if missed == MissedNothing {
		for i := range s.tests {
			t := &s.tests[i]
			if t.holds(ctx, s.deny) {
				continue
			}
			step.Missed = MissedCondition
			step.Failed = append(step.Failed, FailedTest{
				Operator: t.raw.operator,
				Key:      t.raw.key,
				Wanted:   shown(t.raw.values),
				Actual:   shown(lookup(ctx, t.key)),
			})
		}
	}
	step.Applied = step.Missed == MissedNothing
	if !step.Applied {
		n = unnamed
	}
	step.AsAccount = n == asAccount
	tr.steps = append(tr.steps, step)
	return n
}
