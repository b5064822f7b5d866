package kms

import (
	"context"
	"slices"
	"strings"

	"strongroom/kms/policy"
)

// RevokeGrantRequest is the input of RevokeGrant.
type RevokeGrantRequest struct {
	KeyID   string `json:"KeyId" aws:"required,min=1,max=2048"`
	GrantID string `json:"GrantId" aws:"required,min=1,max=128"`
	DryRun  bool   `json:"DryRun"`
}

// RevokeGrant takes a grant back, whatever state the key is in. Those may that policies allow it.
func (s *Service) RevokeGrant(ctx context.Context, who Caller, req *RevokeGrantRequest) (*Empty, error) {
	if err := checkGrantID(req.GrantID); err != nil {
		return nil, err
	}
	a := manage("kms:RevokeGrant", req.KeyID, anyState)
	a.conditions = []condition{notForAWSResource}
	key, err := s.open(ctx, who, a)
	if err != nil {
		return nil, err
	}
	if _, err := s.grant(ctx, key.ID, req.GrantID); err != nil {
		if isNotStored(err) {
			err = noGrant(req.GrantID)
		}
		return nil, err
	}
	return s.deleteGrant(ctx, key.ID, req.GrantID, req.DryRun)
}

// RetireGrantRequest is the input of RetireGrant.
type RetireGrantRequest struct {
	GrantToken string `json:"GrantToken" aws:"min=1,max=8192,sensitive"`
	KeyID      string `json:"KeyId" aws:"min=1,max=2048"`
	GrantID    string `json:"GrantId" aws:"min=1,max=128"`
	DryRun     bool   `json:"DryRun"`
}

// RetireGrant ends a grant that has done its work, whatever state the key is in. The grant itself says who may, and a key policy has no say in it: see
// [Service.mayRetire]. Nobody learns from a refusal whether a key of another account has a grant.
func (s *Service) RetireGrant(ctx context.Context, who Caller, req *RetireGrantRequest) (*Empty, error) {
	who.Parameters(nil) // as in CloudTrail: the record has the grant's id instead
	a := manage("kms:RetireGrant", req.KeyID, anyState)
	key, id, err := s.namedGrant(ctx, who, &a, req)
	if err != nil {
		return nil, err
	}
	arn := s.keyARN(key.Account, key.ID)
	who.trail.resource(key.Account, arn)

	// The key is known to conditions, such as those on its tags, but its policy decides nothing.
	q, p, f, err := s.question(ctx, who, &a, key, arn)
	if err != nil {
		return nil, err
	}
	d := policy.Decide(q, p)
	if f.err != nil {
		return nil, f.err
	}
	g, err := s.grant(ctx, key.ID, id)
	if err != nil && !isNotStored(err) {
		return nil, err
	}
	if g != nil && !d.Explicit && s.mayRetire(who, &a, g, d.IdentityAllows) {
		return s.deleteGrant(ctx, key.ID, id, req.DryRun)
	}
	reason := s.reason(q, p, func() string { return retireReason(g) })
	switch {
	case key.Account != who.Account:
		return nil, s.denyForeign(who, a.action, reason)
	case g == nil && d.IdentityAllows:
		return nil, noGrant(id)
	case d.Explicit || !d.IdentityAllows:
		return nil, s.denyIdentity(who, a.action, "resource: "+arn, d, reason)
	}
	return nil, denied(reason, "User: %s is not authorized to perform: %s on resource: %s because no resource-based policy allows the %s action",
		who.Principal, a.action, arn, a.action)
}

// namedGrant returns the key and the id of the grant that a request names, of which only the key is known to exist.
func (s *Service) namedGrant(ctx context.Context, who Caller, a *access, req *RetireGrantRequest) (*Key, string, error) {
	switch {
	case req.GrantToken != "" && req.KeyID == "" && req.GrantID == "":
		t, err := parseGrantToken(req.GrantToken)
		if err != nil {
			return nil, "", err
		}
		who.trail.add("grantId", t.grant)
		key, err := s.key(ctx, t.key)
		if isNotStored(err) {
			// Whose it was is not known any more, so the answer is that for a key of another account.
			err = s.denyForeign(who, a.action, "there is no key "+t.key.String())
		}
		return key, t.grant, err
	case req.GrantToken == "" && req.KeyID != "" && req.GrantID != "":
		if err := checkGrantID(req.GrantID); err != nil {
			return nil, "", err
		}
		who.trail.add("grantId", req.GrantID)
		key, err := s.resolve(ctx, who, a)
		return key, req.GrantID, err
	}
	return nil, "", errorf(Validation, "Please specify either a grant token or both a key ID and a grant ID.")
}

// mayRetire reports whether who may retire g (AWS KMS Developer Guide, "Retiring and revoking grants"): as its retiring principal, as its grantee if it is for
// that, or for the account in which it was made. Where that is an account, identityAllows says whether who is the root or one of those principals to whom
// identity policies give kms:RetireGrant. By themselves these policies give nobody anything.
func (s *Service) mayRetire(who Caller, a *access, g *Grant, identityAllows bool) bool {
	names := s.grantees(who, identityAllows)
	return slices.Contains(names, g.Retiring) ||
		slices.Contains(names, g.Grantee) && a.isFor(g, grantOperation("RetireGrant")) ||
		slices.Contains(names, RootARN(s.partition, g.Issuer))
}

// retireReason says who may retire a grant, for the operator.
func retireReason(g *Grant) string {
	if g == nil {
		return "there is no such grant"
	}
	who := []string{"account " + g.Issuer}
	if g.Retiring != "" {
		who = append(who, g.Retiring)
	}
	if g.Operations.has(grantOperation("RetireGrant")) {
		who = append(who, g.Grantee)
	}
	return "the grant is to be retired by " + strings.Join(who, " or ")
}

// grant returns a grant on a key, as it is in the store now.
func (s *Service) grant(ctx context.Context, key KeyID, id string) (*Grant, error) {
	var g *Grant
	err := s.store.View(ctx, func(tx Tx) (err error) {
		g, err = tx.Grant(key, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	return g, nil
}

// deleteGrant drops a grant that was there, or in a dry run says that it would.
func (s *Service) deleteGrant(ctx context.Context, key KeyID, id string, dryRun bool) (*Empty, error) {
	if dryRun {
		return nil, errDryRun
	}
	err := s.update(ctx, func(tx Tx) error { return tx.DeleteGrant(key, id) })
	if isNotStored(err) {
		s.apply(KeyChanged(key)) // another request was quicker
		err = noGrant(id)
	}
	if err != nil {
		return nil, err
	}
	return &Empty{}, nil
}

func noGrant(id string) error { return errorf(NotFound, "Grant ID %s not found", id) }

// checkGrantID refuses what newGrantID cannot have made.
func checkGrantID(id string) error {
	if len(id) != 64 || strings.Trim(id, "0123456789abcdef") != "" {
		return errorf(InvalidGrantID, "Invalid grantId '%s'", id)
	}
	return nil
}
