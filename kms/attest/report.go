package attest

import (
	"crypto/rsa"
	"time"
)

// A Report says what a document is and all that is wrong with it.
type Report struct {
	Document *Document      // nil if it cannot be parsed
	Faults   []*Fault       // in the order of their reasons; none if the document is accepted
	Key      *rsa.PublicKey // nil if it cannot be sealed to

	// Since and Until are when all certificates hold. They are zero if the chain was not verified.
	Since, Until time.Time

	anchor           *anchor
	first            bool
	maxAge, maxAhead time.Duration
}

// fault notes what is wrong, if anything is, and reports whether to look no further.
func (r *Report) fault(reason Reason, err error) (end bool) {
	if err == nil {
		return false
	}
	r.Faults = append(r.Faults, &Fault{reason, err})
	return r.first
}

// Accepted reports whether the document is accepted.
func (r *Report) Accepted() bool { return len(r.Faults) == 0 }

// Verified reports whether the document is genuine, and of the time that it was asked for: its form, age, root, certificates and signature are right.
func (r *Report) Verified() bool {
	for _, f := range r.Faults {
		if f.Reason != Debug && f.Reason != BadKey {
			return false
		}
	}
	return true
}

// Root returns the name of the anchor that the document leads to, or "" if it leads to none: the certificate in it says nothing, since everybody has
// that of AWS.
func (r *Report) Root() string {
	for _, f := range r.Faults {
		if f.Reason == BadChain || f.Reason == BadSignature {
			return ""
		}
	}
	if r.anchor == nil {
		return ""
	}
	return r.anchor.Name
}

// Window returns from when until when the document is young enough while its certificates hold, and whether there is such a time.
func (r *Report) Window() (from, until time.Time, ok bool) {
	if r.Until.IsZero() {
		return time.Time{}, time.Time{}, false
	}
	made := r.Document.Time
	from, until = made.Add(-r.maxAhead), made.Add(r.maxAge)
	if r.Since.After(made) {
		from = r.Since
	}
	if r.Until.Before(until) {
		until = r.Until
	}
	return from, until, !from.After(until)
}
