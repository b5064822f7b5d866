package kms

import (
	"context"

	"strongroom/hsm"
)

// An access is what a request wants from a key: everything that the gate decides by.
type access struct {
	action      string // "kms:Decrypt"
	keyID       string // as the request wrote it
	forms       keyForms
	grantTokens []string
	states      stateRule
	dryRun      bool
	algorithm   string // encryption algorithm the request names; empty for the default

	// check looks at what only the operation knows, once the caller is known to be allowed. It may be nil.
	check func(*Key) error
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
	ARN    string
	device hsm.Device
}

// symmetricDefault is the one key spec, and the one encryption algorithm, of the keys here: AES-256-GCM.
const symmetricDefault = "SYMMETRIC_DEFAULT"

// open is the gate: the only way from a request to a key. It finds the key, decides whether who may do what a says, checks the operation's own
// conditions, the state of the key and the algorithm, in that order, and, for a dry run, stops there with DryRunSucceeded.
func (s *Service) open(ctx context.Context, who Caller, a access) (*openKey, error) {
	key, err := s.resolve(ctx, who, a.action, a.keyID, a.forms)
	if err != nil {
		return nil, err
	}
	return s.openResolved(who, a, key)
}

// openResolved is the part of open that follows once the key is found.
func (s *Service) openResolved(who Caller, a access, key *Key) (*openKey, error) {
	if err := s.authorize(who, a, key); err != nil {
		return nil, err
	}
	k := &openKey{Key: key, ARN: s.keyARN(key.Account, key.ID), device: s.device}
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
	return k, nil
}

var errDryRun = errorf(DryRunSucceeded, "The request would have succeeded, but the DryRun option is set.")

// authorize decides whether who may do a to the key. The only principals there are so far are account roots, which may do
// everything to the keys of their own account and nothing to others.
func (s *Service) authorize(who Caller, a access, key *Key) error {
	if key.Account != who.Account || who.Principal != RootARN(s.partition, who.Account) {
		return s.denyForeign(who, a.action)
	}
	// A grant token names a grant. There are none, so a token is nothing that this service made. To say so earlier would tell a stranger that
	// there is such a key.
	if len(a.grantTokens) > 0 {
		return errorf(InvalidGrantToken, "")
	}
	return nil
}

// denyForeign refuses access to a key of another account in words that do not say whether there is such a key.
func (s *Service) denyForeign(who Caller, action string) error {
	return errorf(AccessDenied, "User: %s is not authorized to perform: %s on this resource because the resource does not exist in this Region, "+
		"no resource-based policies allow access, or a resource-based policy explicitly denies access", who.Principal, action)
}

// denyCiphertext refuses a Decrypt whose key was taken from the ciphertext, likewise.
func (s *Service) denyCiphertext(who Caller, action string) error {
	return errorf(AccessDenied, "User: %s is not authorized to perform: %s on the resource associated with this ciphertext because the resource does not exist in this Region, "+
		"no resource-based policies allow access, or a resource-based policy explicitly denies access", who.Principal, action)
}

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
