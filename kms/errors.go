package kms

import "fmt"

// A Code is one of the refusals that a client of AWS KMS can meet. It is an error by itself, so that
// errors.Is(err, kms.NotFound) asks what kind of refusal err is. The package awsapi knows the name and the HTTP status that each
// has on the wire; nothing here does.
type Code uint8

// The zero Code is none: an error that carries no Code is our own fault and is told to nobody but the log.
const (
	_ Code = iota
	AccessDenied
	AlreadyExists
	Conflict
	Disabled
	DryRunSucceeded
	IncorrectKey
	Internal
	InvalidAliasName
	InvalidArn
	InvalidCiphertext
	InvalidGrantID
	InvalidGrantToken
	InvalidKeyUsage
	InvalidMarker
	InvalidState
	KeyUnavailable
	LimitExceeded
	MalformedPolicy
	NotAuthorized
	NotFound
	InvalidTag
	Throttled
	Unsupported
	Validation
	codeEnd
)

var codeNames = [codeEnd]string{
	AccessDenied:      "access denied",
	AlreadyExists:     "already exists",
	Conflict:          "conflict",
	Disabled:          "key disabled",
	DryRunSucceeded:   "dry run succeeded",
	IncorrectKey:      "incorrect key",
	Internal:          "internal error",
	InvalidAliasName:  "invalid alias name",
	InvalidArn:        "invalid ARN",
	InvalidCiphertext: "invalid ciphertext",
	InvalidGrantID:    "invalid grant id",
	InvalidGrantToken: "invalid grant token",
	InvalidKeyUsage:   "invalid key usage",
	InvalidMarker:     "invalid marker",
	InvalidState:      "invalid key state",
	KeyUnavailable:    "key unavailable",
	LimitExceeded:     "limit exceeded",
	MalformedPolicy:   "malformed policy document",
	NotAuthorized:     "not authorized",
	NotFound:          "not found",
	InvalidTag:        "invalid tag",
	Throttled:         "throttled",
	Unsupported:       "unsupported operation",
	Validation:        "invalid request",
}

// Codes returns every Code there is, so that a test can ask whether each has a form on the wire.
func Codes() []Code {
	var all []Code
	for c := Code(1); c < codeEnd; c++ {
		all = append(all, c)
	}
	return all
}

// Error returns the kind of refusal in a few words, for a log.
func (c Code) Error() string {
	if c == 0 || c >= codeEnd {
		return fmt.Sprintf("kms.Code(%d)", uint8(c))
	}
	return codeNames[c]
}

// An Error is a refusal with what is known about it. Detail is written for the client in AWS's words, and may be empty where AWS
// says nothing; it holds no secret and nothing of how this server is built. Err is the cause, for the log alone.
type Error struct {
	Code   Code
	Detail string
	Err    error
}

// Error returns all that is known, for a log.
func (e *Error) Error() string {
	s := e.Code.Error()
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause and the Code, so that errors.Is finds either.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Code}
	}
	return []error{e.Code, e.Err}
}

// errorf returns an [Error] whose Detail is for the client.
func errorf(code Code, format string, args ...any) error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}
