package awsapi

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"

	"strongroom/kms"
)

// records is the audit record as the wire keeps it: one for each request whose signature is good. [kms.Service] has it.
type records interface {
	// Begin returns who with what Record needs, also together with an error: then no work may be done for the request.
	Begin(who kms.Caller, operation string) (kms.Caller, error)

	// Record returns nil once the record is durable. Only then may anything of the answer leave.
	Record(ctx context.Context, who kms.Caller, code, message string) error
}

// call answers r in x: it finds the operation, checks who asks, runs the operation, and records what came of it. It is the only way to an operation,
// and returns nothing of what one did, be it an answer or a refusal, before that is on record. A request that is refused earlier is nobody's, and is
// not recorded.
func (h *handler) call(r *http.Request, x *exchange, p *protocol) error {
	var o operation
	err := caught(func() error {
		name, found, err := p.find(r, x.in)
		if err != nil {
			return err
		}
		o, x.operation = found, name
		c, err := h.verifier.verify(r, x.in, p.scope)
		if err != nil {
			return err
		}
		x.who = caller(c, r, x.id)
		return nil
	})
	if err != nil {
		return err
	}

	err = caught(func() (err error) {
		if x.who, err = h.records.Begin(x.who, x.operation); err != nil {
			return err
		}
		return o.run(r.Context(), h.service, x)
	})
	var code, message string
	if err != nil {
		var f form
		f, message = translate(err)
		code = p.form(f).name
	}
	unrecorded := caught(func() error { return h.records.Record(r.Context(), x.who, code, message) })
	if unrecorded == nil {
		return err
	}
	x.clearOut()
	if err != nil {
		// Not wrapped: what the client is told is not for it to decide any more.
		unrecorded = fmt.Errorf("%w (of a request that failed: %v)", unrecorded, err)
	}
	return &refusal{form: forms[kms.Internal], err: unrecorded}
}

// caught calls f. A panic in it is an error, which ends this request and nothing else.
func caught(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return f()
}
