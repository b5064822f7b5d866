package kms

import "net/netip"

// A Caller is who makes a request, as proved by the request's signature, and where the request came from.
type Caller struct {
	Account   string     // 12 digits
	Principal string     // ARN of the principal, for example arn:aws:iam::111122223333:root
	AccessKey string     // access key id that signed the request
	Source    netip.Addr // address of the client; invalid for a Unix socket
	RequestID string     // UUID, returned to the client in x-amzn-RequestId
	UserAgent string     // as sent
	Secure    bool       // the request came over TLS
}
