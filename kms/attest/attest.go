// Package attest reads the attestation documents of AWS Nitro Enclaves and NitroTPM, decides whether to believe them, and seals answers for the
// keys in them: the Recipient and the CiphertextForRecipient of the AWS KMS API.
//
// A document says, under a signature that leads to the vendor of the hardware, which code runs somewhere and which RSA key that code holds. It is
// believed if all of this is so, and looked at in this order:
//
//  1. it has the one form that documents have, read strictly;
//  2. it is at most five minutes old, and not from the future;
//  3. the first certificate of its bundle is, byte for byte, one that the operator trusts for this kind of document and this account;
//  4. from there, each certificate of the bundle vouches for the next, and the last for the one that signs, at the present time;
//  5. the signature is right;
//  6. it does not come from an enclave in debug mode, which anybody may look into;
//  7. its key is one that can be sealed to.
//
// Nothing keeps a document from being sent twice within its five minutes. That gains nobody anything: the answer can be read only with the key
// that the document names.
//
// The package knows nothing of keys, requests and policies, and has no clock: who calls says when.
package attest

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// How old a document may be, and how far ahead its clock. AWS KMS has the same age; what it has for the future is not known.
const (
	MaxAge   = 5 * time.Minute
	MaxAhead = time.Minute
)

// Options are what a [Verifier] goes by.
type Options struct {
	// Anchors are the roots that are trusted. Without any, every document is refused. Where several have one certificate, the first that is trusted with the
	// kind of a document, and for the account that sent it, is the one that it leads to.
	Anchors []Anchor

	// AllowTestRoots accepts anchors that the package attesttest has made. Their keys are in no better a place than a file, so they are for rigs.
	AllowTestRoots bool

	// AllowDebug accepts documents of enclaves in debug mode. They vouch for no code.
	AllowDebug bool

	// MaxAge is how old a document may be: more than 0, and at most MaxAge, which zero means.
	MaxAge time.Duration

	// MaxAhead is how far in the future a document may have been made, by a clock that is ahead of this one. Zero means MaxAhead, and less than zero
	// not at all.
	MaxAhead time.Duration

	// Chains is how many verified chains are remembered, at about 1 kB each. Zero means 4096.
	Chains int
}

// A Verifier decides whether documents are believed. It is safe for concurrent use.
type Verifier struct {
	anchors    []*anchor
	allowDebug bool
	maxAge     time.Duration
	maxAhead   time.Duration
	chains     *chains
}

// New returns a Verifier. The error says which option cannot be gone by.
func New(o Options) (*Verifier, error) {
	if o.MaxAge == 0 {
		o.MaxAge = MaxAge
	}
	if o.MaxAge < 0 || o.MaxAge > MaxAge {
		return nil, fmt.Errorf("an age of %v is not more than 0 and at most %v", o.MaxAge, MaxAge)
	}
	if o.MaxAhead == 0 {
		o.MaxAhead = MaxAhead
	}
	if o.Chains == 0 {
		o.Chains = 4096
	}
	v := &Verifier{allowDebug: o.AllowDebug, maxAge: o.MaxAge, maxAhead: max(o.MaxAhead, 0), chains: newChains(o.Chains)}
	aws := AWSRoot()
	for _, given := range o.Anchors {
		a, err := newAnchor(given)
		switch {
		case err != nil:
		case slices.ContainsFunc(v.anchors, func(b *anchor) bool { return strings.EqualFold(a.Name, b.Name) }):
			err = errors.New("another one has this name, or one that differs in letter case alone")
		case strings.EqualFold(a.Name, aws.Name) && !bytes.Equal(a.DER, aws.DER):
			// Policies that were written for AWS's hardware ask for this name.
			err = errors.New("it is not the root of AWS, whose name it has")
		case slices.Contains(a.certificate.Subject.OrganizationalUnit, TestRootUnit) && !o.AllowTestRoots:
			err = errors.New("it is the root of a test rig, which vouches for nothing")
		}
		if err != nil {
			return nil, fmt.Errorf("anchor %q: %w", given.Name, err)
		}
		v.anchors = append(v.anchors, a)
	}
	return v, nil
}

// An Attestation is a document that was verified.
type Attestation struct {
	*Document
	Root string // name of the anchor that it leads to

	anchor *anchor
	key    *rsa.PublicKey
}

// Counts reports whether the document says anything to an account: whether its anchor is trusted for it.
func (a *Attestation) Counts(account string) bool { return a.anchor.trustedFor(account) }

// Seal returns the plaintext in an envelope that only the holder of the document's key can open. The plaintext stays as it is.
func (a *Attestation) Seal(plaintext []byte) ([]byte, error) {
	return seal(a.key, sha256.Sum256(a.PublicKey), plaintext)
}

// Verify decides whether a document that came from an account at the given time is believed. The error is the first [Fault] that is found, and
// nothing after it is looked at.
func (v *Verifier) Verify(raw []byte, account string, now time.Time) (*Attestation, error) {
	r := v.examine(raw, account, now, true)
	if len(r.Faults) > 0 {
		return nil, r.Faults[0]
	}
	return &Attestation{Document: r.Document, Root: r.anchor.Name, anchor: r.anchor, key: r.Key}, nil
}

// Examine says all that is to say of a document. What Verify says is its first fault.
func (v *Verifier) Examine(raw []byte, account string, now time.Time) *Report {
	return v.examine(raw, account, now, false)
}

// examine is the one order of the checks. If first is set, it ends with the first fault.
func (v *Verifier) examine(raw []byte, account string, now time.Time, first bool) *Report {
	r := &Report{first: first, maxAge: v.maxAge, maxAhead: v.maxAhead}
	d, err := parse(raw)
	if err != nil {
		r.fault(Malformed, err)
		return r
	}
	r.Document = d
	if r.fault(v.checkAge(d, now)) {
		return r
	}
	r.anchor, err = v.findAnchor(d, account)
	if r.fault(Untrusted, err) {
		return r
	}
	// A certificate is often made seconds before its document, by a clock that may be ahead of this one.
	at := now
	if d.Time.After(at) {
		at = d.Time
	}
	signer, err := v.verifyChain(r, at)
	if r.fault(BadChain, err) {
		return r
	}
	if signer != nil && r.fault(BadSignature, d.verifySignature(signer)) {
		return r
	}
	if d.Debug() && !v.allowDebug && r.fault(Debug, errDebug) {
		return r
	}
	r.Key, err = parseKey(d.PublicKey)
	r.fault(BadKey, err)
	return r
}
