package worker

import (
	"context"
	"errors"

	"strongroom/hsm"
	"strongroom/hsm/pkcs11"
)

// An error crosses the socket as
//
//	what it is   number, the place in kinds; len(kinds) for an error about the call itself
//	broken       number, 1 if the worker has found that its token does not work any more
//	function, code, detail of the *pkcs11.Error in it; code and strings are 0 and empty if there is none
//	text
var kinds = []error{hsm.ErrUnavailable, hsm.ErrNoKey, hsm.ErrRejected, context.Canceled, context.DeadlineExceeded}

// putError appends an error to a frame.
func putError(f *frame, err error, broken bool) {
	which := len(kinds)
	for i, k := range kinds {
		if errors.Is(err, k) {
			which = i
			break
		}
	}
	f.number(uint64(which))
	f.number(boolean(broken))
	e, ok := errors.AsType[*pkcs11.Error](err)
	if !ok {
		e = &pkcs11.Error{}
	}
	f.string(e.Function)
	f.number(uint64(e.Code))
	f.string(e.Detail)
	f.string(err.Error())
}

func boolean(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// takeError reads what putError wrote.
func takeError(f *fields) (err error, broken bool) {
	which, flag := f.number(), f.number()
	function, code, detail, text := f.string(), f.number(), f.string(), f.string()
	if f.err != nil || which > uint64(len(kinds)) {
		return unavailable("the worker's answer cannot be read"), true
	}
	var kind error
	if which < uint64(len(kinds)) {
		kind = kinds[which]
	}
	if function != "" {
		kind = &pkcs11.Error{Function: function, Code: uint(code), Kind: kind, Detail: detail}
	}
	return &remoteError{text, kind}, flag == 1
}

// A remoteError is an error of a worker.
type remoteError struct {
	text string
	kind error // one of kinds, or a *pkcs11.Error that wraps one of them, or nil
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.kind }
