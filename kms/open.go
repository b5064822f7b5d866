package kms

import (
	"context"
	"time"

	"strongroom/kms/attest"
)

// An access is what a request wants from a key, or from the account if it names no key: everything that the gate decides by.
type access struct {
	action      string // "kms:Decrypt"
	keyID       string // as the request wrote it
	forms       keyForms
	grantTokens []string
	states      stateRule
	dryRun      bool
	algorithm   string // encryption algorithm the request names; empty for the default

	// What conditions in policies and constraints in grants look at, besides the key and the caller.
	cryptographic bool // uses the key's material, with an encryption context
	context       map[string]string
	conditions    []condition

	attestation *attest.Attestation // verified; nil without a Recipient

	// viaGrant reports whether a grant that is for the action is for this request of it. It may be nil.
	viaGrant func(*Grant) bool

	// check looks at what only the operation knows, once the caller is known to be allowed. It may be nil.
	check func(*Key) error

	// fromCiphertext says that the key was named by a ciphertext and not by the caller.
	fromCiphertext bool

	alias  string    // that the request named the key by, set by resolve
	now    time.Time // of the decision, set by at
	folded []pair    // context, set by pairs

	identity *identity // of the caller, set when it was asked what policies say
}

// pairs returns the encryption context in the form that grants are compared in.
func (a *access) pairs() []pair {
	if a.folded == nil {
		a.folded = foldedPairs(a.context)
	}
	return a.folded
}

// use returns an access of a cryptographic operation, with what all of them have in common.
func use(action, keyID string, encryptionContext map[string]string, grantTokens []string, dryRun bool) access {
	return access{
		action: action, keyID: keyID, forms: cryptoForms, grantTokens: grantTokens, states: onlyEnabled, dryRun: dryRun,
		cryptographic: true, context: encryptionContext,
	}
}

// manage returns an access of an operation on a key itself.
func manage(action, keyID string, states stateRule) access {
	return access{action: action, keyID: keyID, forms: manageForms, states: states}
}

// A stateRule says in which states a key may be in for an operation: a row of the table "Key states of AWS KMS keys" in the Developer
// Guide, as far as keys here have states.
type stateRule uint8

const (
	anyState    stateRule = iota // reading, and what takes rights away
	notPending                   // changing a key
	onlyEnabled                  // using a key
	onlyPending                  // taking a deletion back
)

// An openKey is a key that its caller may use, now, for one action. Only [Service.open] makes one, so holding one is proof that the
// key was found and that policy, usage and state allowed the action.
type openKey struct {
	*Key
	ARN     string
	service *Service
	caller  *identity // as it was when the gate let it pass
}

// outdated forgets what the gate saw, which turned out not to be so any more: the key, the grants on it, and the caller.
func (k *openKey) outdated() {
	k.service.apply(KeyChanged(k.ID))
	if k.caller != nil {
		k.service.identities.forget(k.caller.arn.String())
	}
}

// symmetricDefault is the one key spec, and the one encryption algorithm, of the keys here: AES-256-GCM.
const symmetricDefault = "SYMMETRIC_DEFAULT"

// open is the gate: the only way from a request to a key. It finds the key, decides whether who may do what a says, checks the operation's own
// conditions, the state of the key and the algorithm, in that order, and, for a dry run, stops there with DryRunSucceeded.
func (s *Service) open(ctx context.Context, who Caller, a access) (*openKey, error) {
	if err := checkGrantTokens(a.grantTokens); err != nil {
		return nil, err
	}
	key, err := s.resolve(ctx, who, &a)
	if err != nil {
		return nil, err
	}
	return s.openResolved(ctx, who, a, key)
}

// openResolved is the part of open that follows once the key is found.
func (s *Service) openResolved(ctx context.Context, who Caller, a access, key *Key) (*openKey, error) {
	arn := s.keyARN(key.Account, key.ID)
	who.trail.resource(key.Account, arn)
	if err := s.authorize(ctx, who, &a, key); err != nil {
		return nil, err
	}
	k := &openKey{Key: key, ARN: arn, service: s, caller: a.identity}
	if a.check != nil {
		if err := a.check(key); err != nil {
			return nil, err
		}
	}
	if err := k.permits(a.states); err != nil {
		return nil, err
	}
	if a.algorithm != "" && a.algorithm != symmetricDefault {
		return nil, errorf(InvalidKeyUsage, "Algorithm %s is incompatible with key spec %s.", a.algorithm, symmetricDefault)
	}
	if a.dryRun {
		return nil, errDryRun
	}
	if a.cryptographic {
		who.trail.used(key.ID)
	}
	return k, nil
}

var errDryRun = errorf(DryRunSucceeded, "The request would have succeeded, but the DryRun option is set.")

// permits checks the state of the key against a rule.
func (k *openKey) permits(rule stateRule) error {
	pending := k.State == StatePendingDeletion
	switch rule {
	case notPending, onlyEnabled:
		if pending {
			return errorf(InvalidState, "%s is pending deletion.", k.ARN)
		}
		if rule == onlyEnabled && k.State == StateDisabled {
			return errorf(Disabled, "%s is disabled.", k.ARN)
		}
	case onlyPending:
		if !pending {
			return errorf(InvalidState, "%s is not pending deletion.", k.ARN)
		}
	}
	return nil
}
