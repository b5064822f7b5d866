package attest

import "fmt"

// A Reason is why a document is refused: one of a closed set, in the order in which documents are looked at.
type Reason uint8

const (
	_            Reason = iota
	Malformed           // it cannot be parsed
	Stale               // it is too old
	Early               // it is from the future
	Untrusted           // its root is not trusted here
	BadChain            // its certificates do not lead from the root to its signer, now
	BadSignature        // it is not signed with the key of its certificate
	Debug               // it comes from an enclave in debug mode
	BadKey              // it has no key that can be sealed to
	reasonEnd
)

var reasonNames = [reasonEnd]string{
	Malformed:    "malformed",
	Stale:        "too old",
	Early:        "from the future",
	Untrusted:    "root not trusted",
	BadChain:     "certificate chain not valid",
	BadSignature: "signature not valid",
	Debug:        "debug mode",
	BadKey:       "recipient key not usable",
}

// Reasons returns every Reason there is, so that a test can ask whether each has words for clients.
func Reasons() []Reason {
	var all []Reason
	for r := Reason(1); r < reasonEnd; r++ {
		all = append(all, r)
	}
	return all
}

// String returns the reason in a few words.
func (r Reason) String() string {
	if r == 0 || r >= reasonEnd {
		return fmt.Sprintf("attest.Reason(%d)", uint8(r))
	}
	return reasonNames[r]
}

// A Fault is why a document is refused. Err is for operators; it quotes nothing of the document but numbers, times, and the errors of X.509.
type Fault struct {
	Reason Reason
	Err    error
}

// Error returns all that is known.
func (f *Fault) Error() string { return f.Reason.String() + ": " + f.Err.Error() }

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Err }
