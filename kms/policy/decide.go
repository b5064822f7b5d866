package policy

// A Caller is who asks.
type Caller struct {
	ARN     string // of a user, an account's root, or a session: arn:aws:sts::111122223333:assumed-role/admin/session1
	Role    string // of a session: its role, arn:aws:iam::111122223333:role/admin. Otherwise empty
	Account string // 12 digits
}

// A Question is whether a caller may do something.
type Question struct {
	Caller   Caller
	Action   string  // "kms:Decrypt"
	Resource string  // ARN of a key or an alias; "*" for an operation without a resource
	Owner    string  // account of the resource
	Context  Context // may be nil
}

// Policies are the documents that a question is decided by.
type Policies struct {
	Key      *Document // nil where the resource is no key: then identity policies decide alone
	Identity []Named   // the caller's. A root user has none
}

// A Named is an identity policy and what it is called.
type Named struct {
	Name     string
	Document *Document
}

// A Decision is the answer. Without a grant it is the last word if it allows, and if it is explicit.
type Decision struct {
	Allowed   bool
	Explicit  bool   // denied by a Deny statement: no grant can help
	Reason    Reason // why
	Document  string // "key policy", or the name of the identity policy that decided; empty if none did
	Statement string // Sid of the statement, or its position, "#2", if it has none

	// What each side said. Both are false if the denial is explicit.
	KeyDelegates   bool // the key policy allows it to the account of the caller as a whole, and so lets its identity policies decide
	IdentityAllows bool // an identity policy allows it, or the caller is an account's root
}

// keyPolicyName is what a Decision and a Step call the key policy.
const keyPolicyName = "key policy"

// A Reason is why a question was decided as it was.
type Reason uint8

const (
	NoKeyPolicyAllows       Reason = iota // no statement of the key policy allows it to the caller or to the caller's account
	NoIdentityPolicyAllows                // the key policy leaves it to, or across accounts also needs, identity policies, and none allows it
	DeniedByKeyPolicy                     // explicitly
	DeniedByIdentityPolicy                // explicitly
	AllowedByKeyPolicy                    // which names the caller, its role, or everybody
	AllowedByIdentityPolicy               // and the key policy delegates to the account, or there is none
	AllowedByBoth                         // the caller is of another account than the key
)

var reasonNames = [...]string{
	NoKeyPolicyAllows:       "NoKeyPolicyAllows",
	NoIdentityPolicyAllows:  "NoIdentityPolicyAllows",
	DeniedByKeyPolicy:       "DeniedByKeyPolicy",
	DeniedByIdentityPolicy:  "DeniedByIdentityPolicy",
	AllowedByKeyPolicy:      "AllowedByKeyPolicy",
	AllowedByIdentityPolicy: "AllowedByIdentityPolicy",
	AllowedByBoth:           "AllowedByBoth",
}

func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return "Reason(?)"
}

// Decide answers q. It is the documented algorithm (AWS KMS Developer Guide, "Determining access to AWS KMS keys"; IAM User Guide, "Policy
// evaluation logic" and "Cross-account policy evaluation logic"), without what does not exist here: service and resource control
// policies, permissions boundaries, session policies and endpoint policies.
//
//  1. A Deny statement that applies decides, wherever it is.
//  2. In the account of the key, its policy allows by itself whom it names. Whom it names only as part of the account also needs an identity
//     policy that allows. Without either, what identity policies allow is void.
//  3. From another account, key policy and identity policies must both allow.
//
// Statements of one effect are asked in their order, and the first that applies is the one reported. No order changes the outcome.
func Decide(q Question, p Policies) Decision {
	return decide(&q, &p, nil)
}

func decide(q *Question, p *Policies, tr *trace) Decision {
	a := ask{question: q, caller: newCaller(&q.Caller), trace: tr}
	if resource, ok := splitARN(q.Resource); ok {
		a.resource = &resource
	}

	var key, identity verdict
	if p.Key != nil {
		key = a.scan(p.Key, keyPolicyName, true)
	}
	// A root user may do everything on its own side: there is nothing that could be attached to it.
	identity.direct = a.caller.root
	for _, n := range p.Identity {
		if n.Document == nil {
			continue
		}
		if key.denied && tr == nil {
			break
		}
		identity.merge(a.scan(n.Document, n.Name, false))
	}

	if key.denied {
		return Decision{Explicit: true, Reason: DeniedByKeyPolicy, Document: keyPolicyName, Statement: key.statement}
	}
	if identity.denied {
		return Decision{Explicit: true, Reason: DeniedByIdentityPolicy, Document: identity.document, Statement: identity.statement}
	}
	d := Decision{KeyDelegates: key.delegates, IdentityAllows: identity.direct}
	sameAccount := q.Caller.Account == q.Owner
	by := &identity
	switch {
	case p.Key != nil && !key.direct && !key.delegates:
		d.Reason = NoKeyPolicyAllows
		return d
	case p.Key != nil && sameAccount && key.direct:
		d.Reason = AllowedByKeyPolicy
		by = &key
	case !identity.direct:
		d.Reason = NoIdentityPolicyAllows
		return d
	case p.Key != nil && !sameAccount:
		d.Reason = AllowedByBoth
		by = &key
	default:
		d.Reason = AllowedByIdentityPolicy
	}
	d.Allowed = true
	d.Document, d.Statement = by.document, by.statement
	return d
}

// An ask is a question while it is being decided.
type ask struct {
	question *Question
	caller   caller
	resource *arn // nil if the resource is none
	trace    *trace
}

// A verdict is what a document, or all identity policies together, say.
type verdict struct {
	denied    bool // and the rest counts no more
	direct    bool // allowed to the caller itself; of an identity policy: allowed
	delegates bool // allowed to the caller's account
	document  string
	statement string // the first that denied; else the first that allowed directly, else the first that delegated
}

// merge adds what another identity policy says. The first to deny is the one reported, else the first to allow.
func (v *verdict) merge(w verdict) {
	switch {
	case v.denied:
	case w.denied:
		*v = w
	case w.direct && v.statement == "":
		*v = w
	}
}

// scan asks every statement of a document that can still change the verdict; with a trace, every one.
func (a *ask) scan(d *Document, name string, isKey bool) verdict {
	v := verdict{document: name}
	// A document that is not of the kind its place wants allows nothing to whom it does not name.
	named := isKey || d.kind == KeyPolicy
	for i := range d.statements {
		s := &d.statements[i]
		if a.trace == nil {
			if v.denied {
				break
			}
			if !s.deny && v.direct && (v.delegates || !isKey) {
				continue
			}
		}
		n := a.applies(s, name, named)
		switch {
		case n == unnamed || v.denied:
		case s.deny:
			v.denied = true
			v.statement = s.name
		case n&directly != 0 && !v.direct:
			v.direct = true
			v.statement = s.name
		case !v.direct && !v.delegates:
			v.statement = s.name
		}
		if !s.deny && n&asAccount != 0 {
			v.delegates = true
		}
	}
	return v
}

// applies reports whether all elements of s match, and how it names the caller: if it is not one that names anybody, directly. What is compared
// fastest is compared first.
func (a *ask) applies(s *statement, document string, named bool) naming {
	n := directly
	if named {
		n = s.who.names(&a.caller)
	}
	q := a.question
	missed := MissedNothing
	switch {
	case n == unnamed:
		missed = MissedPrincipal
	case !s.actions.match(q.Action):
		missed = MissedAction
	case !s.resources.match(q.Resource, a.resource, q.Context, s.deny):
		missed = MissedResource
	}
	if a.trace != nil {
		return a.trace.add(s, q.Context, document, n, missed)
	}
	if missed != MissedNothing {
		return unnamed
	}
	for i := range s.tests {
		if !s.tests[i].holds(q.Context, s.deny) {
			return unnamed
		}
	}
	return n
}
