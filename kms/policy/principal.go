package policy

import (
	"slices"
	"strings"
)

// principals are a compiled Principal or NotPrincipal element. The zero value, of an identity policy's statements, names nobody.
type principals struct {
	not      bool
	any      bool      // "*"
	direct   []string  // ARNs of users, roles, sessions and federated users
	accounts []account // accounts as a whole
}

// An account is the principal that stands for an account: its root's ARN, or its bare number, which is of every partition.
type account struct {
	partition, number string
}

// A caller is a Caller, taken apart once for all statements.
type caller struct {
	arn, role         string
	partition, number string
	root              bool
}

func newCaller(who *Caller) caller {
	c := caller{arn: who.ARN, role: who.Role, number: who.Account}
	if a, ok := splitARN(who.ARN); ok {
		c.partition = a[1]
		c.root = a[2] == "iam" && a[4] == who.Account && a[5] == "root"
	}
	return c
}

// A naming says how an element names a caller.
type naming uint8

const (
	unnamed   naming = 0
	directly  naming = 1 << 0 // itself, or everybody
	asAccount naming = 1 << 1 // its account
)

// names says how p names c. The account's principal names each of the account only as such, but the root user also directly: there
// is no other way to name it.
func (p *principals) names(c *caller) naming {
	if p.not {
		if p.excepts(c) {
			return unnamed
		}
		return directly
	}
	var n naming
	if p.any || p.lists(c) {
		n = directly
	}
	if p.hasAccount(c) {
		n |= asAccount
		if c.root {
			n |= directly
		}
	}
	return n
}

// excepts reports whether a NotPrincipal element, which only a Deny can have, leaves c out. The account's principal stands for the root user alone: the
// IAM User Guide, "NotPrincipal with Deny", wants user and account both listed, and whoever of the account is not listed stays denied.
func (p *principals) excepts(c *caller) bool {
	return p.any || p.lists(c) || p.hasAccount(c) && c.root
}

// lists reports whether p has the ARN of the caller or, for a session, of its role. None of those in p is empty.
func (p *principals) lists(c *caller) bool {
	for _, arn := range p.direct {
		if arn == c.arn || arn == c.role {
			return true
		}
	}
	return false
}

func (p *principals) hasAccount(c *caller) bool {
	for _, a := range p.accounts {
		if a.number == c.number && (a.partition == "" || a.partition == c.partition) {
			return true
		}
	}
	return false
}

// newPrincipals compiles an element, or refuses it. The forms are those of the IAM User Guide, "AWS JSON policy elements: Principal"; groups are
// not principals, and a part of an ARN cannot be a wildcard.
func newPrincipals(raw *rawPrincipal, not bool) (principals, error) {
	p := principals{not: not}
	for _, s := range raw.aws {
		switch a, ok := splitARN(s); {
		case s == "*":
			p.any = true
		case isAccount(s):
			p.accounts = append(p.accounts, account{number: s})
		case !ok || a[0] != "arn" || !isPartition(a[1]) || a[3] != "" || !isAccount(a[4]):
			return p, faultf(textInvalidPrincipal)
		case a[2] == "iam" && a[5] == "root":
			p.accounts = append(p.accounts, account{a[1], a[4]})
		case a[2] == "iam" && isEntity(a[5]) || a[2] == "sts" && isSession(a[5]):
			p.direct = append(p.direct, s)
		default:
			return p, faultf(textInvalidPrincipal)
		}
	}
	return p, nil
}

// isAccount reports whether s is an account number: 12 digits.
func isAccount(s string) bool {
	return len(s) == 12 && strings.Trim(s, "0123456789") == ""
}

// isPartition reports whether s can be a partition: aws, aws-cn, or what a deployment calls its own.
func isPartition(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-')
	})
}

// isEntity reports whether s is user/<path><name> or role/<path><name>. A path is any visible ASCII text between slashes (IAM API Reference,
// CreateUser), but for the wildcards.
func isEntity(s string) bool {
	kind, rest, _ := strings.Cut(s, "/")
	if kind != "user" && kind != "role" {
		return false
	}
	path, name := "", rest
	if i := strings.LastIndexByte(rest, '/'); i >= 0 {
		path, name = rest[:i], rest[i+1:]
	}
	return isName(name) && !strings.ContainsFunc(path, func(r rune) bool {
		return r < 0x21 || r > 0x7E || r == '*' || r == '?'
	})
}

// isSession reports whether s is assumed-role/<role>/<session> or federated-user/<name>.
func isSession(s string) bool {
	parts := strings.Split(s, "/")
	switch parts[0] {
	case "assumed-role":
		return len(parts) == 3 && isName(parts[1]) && isName(parts[2])
	case "federated-user":
		return len(parts) == 2 && isName(parts[1])
	}
	return false
}

// isName reports whether s is of the characters that names in IAM are made of.
func isName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("_+=,.@-", r))
	})
}

// addPrincipals adds the AWS principals of an element to the document's.
func (d *Document) addPrincipals(raw *rawPrincipal) {
	for _, s := range raw.aws {
		if s != "*" && !slices.Contains(d.principals, s) {
			d.principals = append(d.principals, s)
		}
	}
}
