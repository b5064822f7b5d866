package kms

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// A PrincipalKind says what a principal of an account is, in the word of its ARN.
type PrincipalKind string

const (
	User PrincipalKind = "user"
	Role PrincipalKind = "role"
)

// Title returns the kind as it is written inside the names of operations and of JSON members: "User" or "Role".
func (k PrincipalKind) Title() string {
	if k == Role {
		return "Role"
	}
	return "User"
}

// A Principal is a user or a role of an account: somebody to whom identity policies are attached and access keys belong. The root of an account is
// none: it is the account itself, and has no policies.
type Principal struct {
	Account  string
	Kind     PrincipalKind
	Name     string
	ID       string // "AIDA…" or "AROA…"; never given again
	Created  time.Time
	Tags     map[string]string
	Policies []NamedPolicy // ascending by name
}

// A NamedPolicy is an identity policy: a document attached to one principal.
type NamedPolicy struct {
	Name string
	Text string // JSON
}

// principalName is what IAM allows in the name of a user, a role, a policy and a session of a role.
var principalName = regexp.MustCompile(`^[\w+=,.@-]{1,64}$`)

// A PrincipalARN is a parsed ARN of somebody who can make requests:
//
//	arn:<partition>:iam::<account>:root
//	arn:<partition>:iam::<account>:user/<name>
//	arn:<partition>:iam::<account>:role/<name>
//	arn:<partition>:sts::<account>:assumed-role/<role>/<session>
type PrincipalARN struct {
	Partition string
	Account   string
	Kind      PrincipalKind // empty for the root
	Name      string        // empty for the root
	Session   string        // of a role; otherwise empty
}

// ParsePrincipalARN reads what String writes and nothing else.
func ParsePrincipalARN(s string) (PrincipalARN, error) {
	parts := strings.SplitN(s, ":", 6)
	bad := func() (PrincipalARN, error) {
		return PrincipalARN{}, fmt.Errorf("%q is not the ARN of a root, a user, a role or a session of a role", s)
	}
	if len(parts) != 6 || parts[0] != "arn" || parts[1] == "" || parts[3] != "" || !IsAccount(parts[4]) {
		return bad()
	}
	p := PrincipalARN{Partition: parts[1], Account: parts[4]}
	names := strings.Split(parts[5], "/")
	switch {
	case parts[2] == "iam" && parts[5] == "root":
		return p, nil
	case parts[2] == "iam" && len(names) == 2 && (names[0] == string(User) || names[0] == string(Role)):
		p.Kind, p.Name = PrincipalKind(names[0]), names[1]
	case parts[2] == "sts" && len(names) == 3 && names[0] == "assumed-role":
		p.Kind, p.Name, p.Session = Role, names[1], names[2]
		if !principalName.MatchString(p.Session) {
			return bad()
		}
	default:
		return bad()
	}
	if !principalName.MatchString(p.Name) {
		return bad()
	}
	return p, nil
}

// String returns the ARN.
func (p PrincipalARN) String() string {
	switch {
	case p.Kind == "":
		return "arn:" + p.Partition + ":iam::" + p.Account + ":root"
	case p.Session != "":
		return "arn:" + p.Partition + ":sts::" + p.Account + ":assumed-role/" + p.Name + "/" + p.Session
	}
	return "arn:" + p.Partition + ":iam::" + p.Account + ":" + string(p.Kind) + "/" + p.Name
}

// IsRoot reports whether p is the account itself.
func (p PrincipalARN) IsRoot() bool { return p.Kind == "" }

// Owner returns p without its session: whose access key it is, and whose policies count.
func (p PrincipalARN) Owner() PrincipalARN {
	p.Session = ""
	return p
}

// RootARN returns the ARN of an account's root, the principal that Init makes.
func RootARN(partition, account string) string {
	return PrincipalARN{Partition: partition, Account: account}.String()
}
