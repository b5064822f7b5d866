package audit

import "fmt"

// A Finding is the first line of a log that is not as it was written.
type Finding struct {
	Kind   Kind
	File   string // empty if no file has a line
	Line   int    // in the file, from 1; 0 if there is no line to name
	Detail string
}

// Error returns the finding in one line, as "file:line: kind: detail" with what there is of these.
func (f *Finding) Error() string {
	if f.File == "" {
		return fmt.Sprintf("%s: %s", f.Kind, f.Detail)
	}
	if f.Line == 0 {
		return fmt.Sprintf("%s: %s: %s", f.File, f.Kind, f.Detail)
	}
	return fmt.Sprintf("%s:%d: %s: %s", f.File, f.Line, f.Kind, f.Detail)
}

// found returns a finding at the line that is being read.
func found(k Kind, format string, args ...any) *Finding {
	return &Finding{Kind: k, Detail: fmt.Sprintf(format, args...)}
}

// A Kind says what is wrong. Only Torn is what a crash or a server that is just writing leaves; all others are damage or the work of somebody.
type Kind uint8

const (
	_             Kind = iota
	Torn               // the last line of the last file has no end. Somebody could have cut it, too: see [VerifyOptions]
	Malformed          // not one JSON object with a place in a chain
	Changed            // its hash is not what was noted of it
	Missing            // lines before it, perhaps a whole file, are not there
	OutOfOrder         // it was inserted, repeated or moved
	OtherLog           // of another chain: perhaps a new log was begun there
	OtherKey           // the chain is signed by another key than the one given
	BadSignature       // of a checkpoint
	BadCheckpoint      // one that signs something else than what is in the log, or that is not written as they are
	Cut                // lines that were noted earlier are not there any more, or there are none at all
)

var kinds = [...]string{
	Torn: "torn", Malformed: "malformed", Changed: "changed", Missing: "missing", OutOfOrder: "out of order", OtherLog: "other log",
	OtherKey: "other key", BadSignature: "bad signature", BadCheckpoint: "bad checkpoint", Cut: "cut",
}

func (k Kind) String() string {
	if k == 0 || int(k) >= len(kinds) {
		return fmt.Sprintf("Kind(%d)", uint8(k))
	}
	return kinds[k]
}
