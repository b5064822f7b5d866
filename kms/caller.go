package kms

import (
	"net/netip"
	"time"
)

// A Caller is who makes a request, as proved by the request's signature, and where the request came from.
type Caller struct {
	Account   string     // 12 digits
	Principal string     // ARN: of a root, a user, or a session of a role, arn:aws:sts::111122223333:assumed-role/admin/alice
	Role      string     // ARN of the role, for a session; otherwise empty
	Issued    time.Time  // when the session began; zero if it is none
	AccessKey string     // access key id that signed the request
	Source    netip.Addr // address of the client; invalid for a Unix socket
	RequestID string     // UUID, returned to the client in x-amzn-RequestId
	UserAgent string     // as sent
	Secure    bool       // the request came over TLS
	TLS       string     // version of TLS, "TLSv1.3"; empty without

	// trail gathers what the audit record says. It is nil in a call that is no request, as in tests of one operation.
	trail *trail
}

// Caller returns who a request is from that c signed. Where it came from is for the wire to add.
func (c *Credential) Caller() Caller {
	who := Caller{Account: c.Account, Principal: c.Principal, AccessKey: c.ID}
	if c.Session != "" {
		arn, err := ParsePrincipalARN(c.Principal)
		if err == nil {
			arn.Session = c.Session
			who.Principal, who.Role, who.Issued = arn.String(), c.Principal, c.Created
		}
	}
	return who
}

// owner returns the ARN whose policies and tags count for who.
func (who Caller) owner() string {
	if who.Role != "" {
		return who.Role
	}
	return who.Principal
}
