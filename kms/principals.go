package kms

import (
	"context"

	"strongroom/kms/policy"
)

// principalExists reports whether there is an account, a user or a role of this ARN, or the role of a session.
func (s *Service) principalExists(ctx context.Context, arn PrincipalARN) (bool, error) {
	if arn.Partition != s.partition {
		return false, nil
	}
	err := s.store.View(ctx, func(tx Tx) error {
		if arn.IsRoot() {
			_, err := tx.Account(arn.Account)
			return err
		}
		_, err := tx.Principal(arn.Account, arn.Kind, arn.Name)
		return err
	})
	if isNotStored(err) {
		return false, nil
	}
	return err == nil, err
}

// keyPolicy reads a key policy that somebody wants to put on a key of an account, and refuses one that is malformed, too long, or names who does not exist.
func (s *Service) keyPolicy(ctx context.Context, text string) (*policy.Document, error) {
	if len(text) > policy.MaxSize {
		return nil, errorf(LimitExceeded, "The key policy is larger than %d bytes.", policy.MaxSize)
	}
	d, err := policy.Parse(policy.KeyPolicy, text)
	if err != nil {
		return nil, errorf(MalformedPolicy, "%v", err)
	}
	for _, name := range d.Principals() {
		if IsAccount(name) {
			name = RootARN(s.partition, name)
		}
		arn, err := ParsePrincipalARN(name)
		if err != nil {
			return nil, errInvalidPrincipals
		}
		if ok, err := s.principalExists(ctx, arn); err != nil {
			return nil, err
		} else if !ok {
			return nil, errInvalidPrincipals
		}
	}
	return d, nil
}

var errInvalidPrincipals = errorf(MalformedPolicy, "Policy contains a statement with one or more invalid principals.")

// checkLockout refuses a key policy under which the caller could not change it again. A statement for the caller's account is enough: its identity policies may
// be changed by others.
func (s *Service) checkLockout(ctx context.Context, who Caller, key *Key, d *policy.Document) error {
	a := manage("kms:PutKeyPolicy", key.ID.String(), anyState)
	q, p, f, err := s.question(ctx, who, &a, key, s.keyARN(key.Account, key.ID))
	if err != nil {
		return err
	}
	p.Key = d
	p.Identity = nil // whether they would allow it is not the key policy's doing
	decision := policy.Decide(q, p)
	if f.err != nil {
		return f.err
	}
	if decision.Allowed || decision.KeyDelegates && !decision.Explicit {
		return nil
	}
	return errorf(MalformedPolicy, "The new key policy will not allow you to update the key policy in the future.")
}
