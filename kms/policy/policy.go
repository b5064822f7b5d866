// Package policy is the AWS policy language and the decision that follows from it: what a key policy and the caller's identity policies say
// about one action on one resource.
//
// It follows the AWS IAM User Guide, "IAM JSON policy element reference" and "Policy evaluation logic", and for key policies the AWS KMS
// Developer Guide, "Key policies in AWS KMS". Where these leave a choice, the code takes the one that refuses, and says so in a comment.
//
// A document is read once, by [Parse], which compiles all of it and refuses whatever would never match by mistake: an unknown operator, an
// unknown condition key, a number that is none. [Decide] then compares strings. The package knows nothing of keys, grants or requests:
// facts of a request come through [Context], and whether a principal exists is for the caller to check.
package policy

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Kind is what a document is attached to.
type Kind uint8

const (
	KeyPolicy      Kind = iota // attached to a key: every statement names principals
	IdentityPolicy             // attached to a user or a role: no statement does
)

// MaxSize is the number of bytes of the largest document: the AWS KMS API Reference, PutKeyPolicy, limits key policies to it, and IAM's
// own limits are lower.
const MaxSize = 32768

// An Error says what is wrong with a document, to whoever wrote it.
type Error struct {
	Text string // names the place, unless AWS has a text of its own
}

func (e *Error) Error() string { return e.Text }

// The texts that AWS uses.
const (
	textInvalidJSON      = "This policy contains invalid Json"
	textInvalidPrincipal = "Policy contains a statement with one or more invalid principals."
	textForAllValues     = "OverlyPermissiveCondition: Using the ForAllValues set operator with a single-valued condition key matches " +
		"requests without the specified [encryption context or tag] or with an unspecified [encryption context or tag]. To fix, remove ForAllValues."
)

// maxFault is the length that a fault's text is cut to: names and values of the document, which are in it, can be long.
const maxFault = 512

// faultf makes an Error of one line. What the document says is in it as it was written, but for characters that would disturb a terminal or a log.
func faultf(format string, args ...any) error {
	text := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, fmt.Sprintf(format, args...))
	if len(text) > maxFault {
		text = strings.ToValidUTF8(text[:maxFault], "") + "..."
	}
	return &Error{text}
}

// A Document is a compiled policy. It never changes, and any number of goroutines may use it at once.
type Document struct {
	kind       Kind
	statements []statement
	principals []string
}

// Principals returns the AWS principals that the document names in Principal and NotPrincipal elements, as written and without "*", each
// once. Those of other kinds (services, identity providers) are not among them.
func (d *Document) Principals() []string {
	return append([]string(nil), d.principals...)
}

// A statement applies to a request if all of its elements match: then its effect counts.
type statement struct {
	name      string // Sid, or "#2" for the second without one
	deny      bool
	who       principals
	actions   actions
	resources resources
	tests     []test // all must hold
}

// Parse reads and compiles a document. Every fault is an *Error.
func Parse(kind Kind, text string) (*Document, error) {
	if len(text) > MaxSize {
		return nil, faultf("The policy is longer than %d bytes", MaxSize)
	}
	raw, err := read(text)
	if err != nil {
		return nil, err
	}
	return compile(kind, raw)
}
