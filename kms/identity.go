package kms

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"strongroom/kms/policy"
)

// An identity is what is known of a caller besides its name.
type identity struct {
	arn      PrincipalARN // of the root, user or role
	id       string       // unique: "AIDA…", "AROA…", or the account for its root
	tags     map[string]string
	policies []policy.Named
	texts    []NamedPolicy // of policies
}

// identity returns what is known of who, from memory where that can be trusted. A principal that is not there any more is refused, whatever policies
// still name it.
func (s *Service) identity(ctx context.Context, who Caller) (*identity, error) {
	owner := who.owner()
	return s.identities.get(owner, s.trusted(), func() (*identity, error) {
		arn, err := ParsePrincipalARN(owner)
		if err != nil {
			return nil, err
		}
		if arn.IsRoot() {
			return &identity{arn: arn, id: arn.Account}, nil
		}
		var p *Principal
		err = s.store.View(ctx, func(tx Tx) (err error) {
			p, err = tx.Principal(arn.Account, arn.Kind, arn.Name)
			return err
		})
		if isNotStored(err) {
			return nil, &Error{Code: AccessDenied, Detail: fmt.Sprintf("User: %s is not authorized to perform this operation", who.Principal),
				Err: fmt.Errorf("there is no %s any more", owner)}
		}
		if err != nil {
			return nil, err
		}
		id := &identity{arn: arn, id: p.ID, tags: p.Tags, texts: p.Policies}
		for _, n := range p.Policies {
			d, err := policy.Parse(policy.IdentityPolicy, n.Text)
			if err != nil {
				// It was checked when it was written. Without it a Deny might be missing, so nothing is decided.
				return nil, fmt.Errorf("policy %s of %s cannot be read: %w", n.Name, owner, err)
			}
			id.policies = append(id.policies, policy.Named{Name: n.Name, Document: d})
		}
		return id, nil
	})
}

// unchanged returns ErrConflict or ErrNotStored unless the principal is, in the transaction, what id says: the same one, with the same tags and policies.
func (id *identity) unchanged(tx Tx) error {
	if id.arn.IsRoot() {
		return nil
	}
	now, err := tx.Principal(id.arn.Account, id.arn.Kind, id.arn.Name)
	if err != nil {
		return err
	}
	if now.ID != id.id || !maps.Equal(now.Tags, id.tags) || !slices.Equal(now.Policies, id.texts) {
		return ErrConflict
	}
	return nil
}
