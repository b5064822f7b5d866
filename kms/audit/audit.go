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
//	                      AuditLogRecovered: a crash left a line, or some, that were not all written; they were cut off
//	                      AuditLogResumed: the log could not be written for a while
//	                      AuditLogReplaced: the second line of a chain that was begun because the log before was not as it should have been
//	                      and what the service itself does to keys
//	StrongroomAdminEvent  what an administrator did, past the protocol
//	StrongroomCheckpoint  a signature; checkpoint.go draws it
//
// Beside the files there is, while the log is open and after the machine stopped, the file journal: the last lines once more, on disk before the
// files are (journal.go). The next Open puts them where they belong. Until then, and only after a power failure or a crash of the whole system, the
// files alone may lack lines that were written after the last checkpoint, although they were acknowledged.
//
// # What this proves
//
// A checkpoint signs the hash of a line and thereby every line up to it: to change, drop, insert or exchange one of those takes the private
// key, which is in the HSM. Lines after the last signed one are chained but not signed: who can write the files can replace them by others
// that fit, and nothing in the files tells. Not even a chance error in the very last line is seen, unless that line is a checkpoint: every byte
// of a checkpoint is implied by what it signs and by its place in the chain. So a log that was closed in order is sealed to its last byte.
//
// Who can write the files can also cut lines off the end, signed or not, take files away, or put another log in their place: what is there then is
// right in itself. So the log hands out an [Anchor] after each checkpoint and when it is closed, and the server keeps it in its store. If at the
// next start the files are not that log, do not reach that line or have another in its place, the server begins a new chain with a record of
// what was expected and what was found, and leaves the files as they are. That finds what was done by somebody who can write the files but not
// the store, and it finds it at a start, not before. It does not find lines that were cut off or retyped after the last anchor, which after a
// crash are as many as there can be between two checkpoints; nor anything, if the store's anchor was set back as well. Open looks at that one
// line and at the log's end: whether the lines before are those that the line's hash stands for is for [Verify] to say.
//
// Who trusts neither the files nor the store notes a [Head] from time to time somewhere else, and requires it from Verify.
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

	// Expected is not written. It says that [Log.Expect] was called for this record, at its Time.
	Expected bool
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
