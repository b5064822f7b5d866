// Package audit is the record of what was asked of the service and what it did: one line of JSON for each request, in the shape of an
// AWS CloudTrail record, chained by hashes and sealed by signatures. A record is on disk before the answer that it describes leaves. Whoever
// has the files and the public key can verify them, without the service and without trust in the machine that wrote them.
//
// # Format
//
// A log is a directory of files audit-00000001.jsonl, audit-00000002.jsonl, … that are only ever appended to. Every line is one JSON object
// that begins with "eventVersion" and ends with
//
//	"strongroom":{"log":"<UUID>","sequence":<n>,"previous":"<64 hexadecimal digits>"}}
//
// A chain is all lines of one UUID. The sequence counts them from 1, over all files. The previous of a line is the SHA-256 of the whole line
// before it, without its newline; that of the first line is 64 zeros. The first line of a file continues the chain of the file before, so that
// files can be verified together, or alone from some line on. Lines of requests are of the eventType "AwsApiCall". Others are
//
//	AwsServiceEvent       AuditLogCreated: the first line of a chain, with the fingerprint of the public key
//	                      AuditLogRecovered: a crash left an unfinished line, which was cut off
//	                      AuditLogResumed: the log could not be written for a while
//	                      and what the service itself does to keys
//	StrongroomAdminEvent  what an administrator did, past the protocol
//	StrongroomCheckpoint  a signature; checkpoint.go draws it
//
// # What this proves
//
// A checkpoint signs the hash of a line and thereby every line up to it: to change, drop, insert or exchange one of those takes the private
// key, which is in the HSM. Lines after the last signed one are chained but not signed: who can write the files can replace them by others
// that fit, and nothing in the files tells. Not even a chance error in the very last line is seen, unless that line is a checkpoint: every byte
// of a checkpoint is implied by what it signs and by its place in the chain. So a log that was closed in order is sealed to its last byte.
//
// Who can write the files can also cut lines off the end, signed or not: the rest is a log as it was at some earlier time. To find that, note a
// [Head] from time to time somewhere else, and require it from [Verify].
//
// The times are those of the server's clock. Nothing here proves them.
package audit

import "time"

// A Record is one request, or one act of the server or of its administrator, in the shape of a CloudTrail record. Strings may be whatever the
// client sent: what is not UTF-8 in them is written as U+FFFD.
//
// The fields of type []byte are JSON, one value each; to pass anything else is an error of Append.
type Record struct {
	Time      time.Time // written in UTC, to the second
	Identity  Identity
	Source    string // "kms.amazonaws.com", "sts.amazonaws.com"
	Name      string // the operation
	Region    string
	SourceIP  string
	UserAgent string

	ErrorCode, ErrorMessage string // of a request that was refused or failed

	RequestParameters   []byte // null if nil
	ResponseElements    []byte // null if nil
	AdditionalEventData []byte

	RequestID string
	EventID   string // a random UUID if empty
	ReadOnly  bool
	Resources []Resource
	EventType string // APICall, ServiceEvent or AdminEvent
	Recipient string // the account
	TLS       string // the version of TLS, "TLSv1.3"

	ServiceEventDetails []byte
}

// What Record.EventType can be.
const (
	APICall      = "AwsApiCall"
	ServiceEvent = "AwsServiceEvent"
	AdminEvent   = "StrongroomAdminEvent"

	checkpointEvent = "StrongroomCheckpoint"
)

// An Identity is who asked. Empty members are not written.
type Identity struct {
	Type        string // "IAMUser", "AssumedRole", "Root", "AWSService", …
	PrincipalID string
	ARN         string
	AccountID   string
	AccessKeyID string
	UserName    string
	InvokedBy   string
	Session     *Session
}

// A Session is the role session of an identity, and who it is a session of.
type Session struct {
	IssuerType        string
	IssuerPrincipalID string
	IssuerARN         string
	IssuerAccountID   string
	IssuerUserName    string
	Created           time.Time
}

// A Resource is a key (or an alias, which CloudTrail gives the same type) that a request was about.
type Resource struct {
	ARN       string
	AccountID string
	Type      string // "AWS::KMS::Key" if empty
}
