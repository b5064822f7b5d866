package kms

import (
	"context"
	"fmt"

	"strongroom/kms/policy"
)

// crossAccount are the actions that a principal of another account can be allowed. All others fail, whatever a policy says
// (AWS KMS Developer Guide, "Allowing users in other accounts to use a KMS key").
var crossAccount = map[string]bool{
	"kms:CreateGrant": true, "kms:Decrypt": true, "kms:DescribeKey": true, "kms:Encrypt": true, "kms:GenerateDataKey": true,
	"kms:GenerateDataKeyPair": true, "kms:GenerateDataKeyPairWithoutPlaintext": true, "kms:GenerateDataKeyWithoutPlaintext": true,
	"kms:GetKeyRotationStatus": true, "kms:ListGrants": true, "kms:ReEncryptFrom": true, "kms:ReEncryptTo": true, "kms:RetireGrant": true,
	"kms:RevokeGrant": true,
}

// authorize decides whether who may do a to the key: by the key policy, the caller's identity policies and the grants on the key. A refusal has AWS's
// words for the client, and for the operator which statement or condition it was.
func (s *Service) authorize(ctx context.Context, who Caller, a *access, key *Key) error {
	v, err := s.judge(ctx, who, a, key)
	if err != nil {
		return err
	}
	if v.allowed {
		who.trail.grant(v.grant)
		return nil
	}
	return s.deny(ctx, who, a, key, v)
}

// permit decides whether who may do a to a resource that is no key: an alias, or the account itself ("*"). Identity policies alone decide.
func (s *Service) permit(ctx context.Context, who Caller, a access, resource string) error {
	q, p, f, err := s.question(ctx, who, &a, nil, resource)
	if err != nil {
		return err
	}
	d := policy.Decide(q, p)
	if f.err != nil {
		return f.err
	}
	if d.Allowed {
		return nil
	}
	return s.denyIdentity(who, a.action, "resource: "+resource, d, s.reason(q, p, nil)+attestationReason(a.attestation, who.Account))
}

// A verdict is what was decided, and by what.
type verdict struct {
	allowed  bool
	decision policy.Decision
	grant    *Grant // that allowed it, if policies did not
	foreign  string // why the action cannot be allowed to another account; empty otherwise

	question policy.Question
	policies policy.Policies
}

// judge decides and says nothing about it.
func (s *Service) judge(ctx context.Context, who Caller, a *access, key *Key) (verdict, error) {
	document, err := s.document(key)
	if err != nil {
		return verdict{}, err
	}
	q, p, f, err := s.question(ctx, who, a, key, s.keyARN(key.Account, key.ID))
	if err != nil {
		return verdict{}, err
	}
	p.Key = document
	v := verdict{decision: policy.Decide(q, p), question: q, policies: p}
	if f.err != nil {
		return verdict{}, f.err
	}
	if key.Account != who.Account && !crossAccount[a.action] {
		v.foreign = a.action + " cannot be allowed to principals of other accounts"
		return v, nil
	}
	v.allowed = v.decision.Allowed
	if v.allowed || v.decision.Explicit {
		return v, nil
	}
	if v.grant, err = s.findGrant(ctx, who, a, key, v.decision.IdentityAllows); err != nil {
		return verdict{}, err
	}
	v.allowed = v.grant != nil
	return v, nil
}

// question puts what is known of a request into the form that policies are asked in, but for the policy of the key.
func (s *Service) question(ctx context.Context, who Caller, a *access, key *Key, resource string) (policy.Question, policy.Policies, *facts, error) {
	id, err := s.identity(ctx, who)
	if err != nil {
		return policy.Question{}, policy.Policies{}, nil, err
	}
	a.identity = id
	f := &facts{service: s, ctx: ctx, who: &who, identity: id, access: a, key: key}
	q := policy.Question{
		Caller:   policy.Caller{ARN: who.Principal, Role: who.Role, Account: who.Account},
		Action:   a.action,
		Resource: resource,
		Owner:    who.Account,
		Context:  f,
	}
	p := policy.Policies{Identity: id.policies}
	if key != nil {
		q.Owner = key.Account
	}
	return q, p, f, nil
}

// deny refuses an access to a key. What AWS says depends on what the caller may know: nobody learns from it whether a key of another account exists.
func (s *Service) deny(ctx context.Context, who Caller, a *access, key *Key, v verdict) error {
	reason := v.foreign
	if reason == "" {
		reason = s.reason(v.question, v.policies, func() string { return s.grantReason(ctx, who, a, key) })
	}
	reason += attestationReason(a.attestation, key.Account)
	// A caller of another account is told of its own side only where the key's side has let it in, and it has a ciphertext to show.
	side := v.decision.Reason
	if v.foreign != "" || key.Account != who.Account && (side != policy.NoIdentityPolicyAllows || !a.fromCiphertext) {
		side = policy.NoKeyPolicyAllows
	}
	object := "resource: " + s.keyARN(key.Account, key.ID)
	if a.fromCiphertext {
		object = "the resource associated with this ciphertext"
	}
	switch {
	case side == policy.NoKeyPolicyAllows && a.fromCiphertext:
		return s.denyCiphertext(who, a.action, reason)
	case side == policy.NoKeyPolicyAllows && key.Account != who.Account:
		return s.denyForeign(who, a.action, reason)
	case side == policy.NoKeyPolicyAllows:
		return denied(reason, "User: %s is not authorized to perform: %s on %s because no resource-based policy allows the %s action", who.Principal, a.action, object, a.action)
	case side == policy.DeniedByKeyPolicy:
		return denied(reason, "User: %s is not authorized to perform: %s on %s with an explicit deny in a resource-based policy", who.Principal, a.action, object)
	}
	return s.denyIdentity(who, a.action, object, v.decision, reason)
}

// denyIdentity refuses what an identity policy denied or did not allow.
func (s *Service) denyIdentity(who Caller, action, object string, d policy.Decision, reason string) error {
	if d.Explicit {
		return denied(reason, "User: %s is not authorized to perform: %s on %s with an explicit deny in an identity-based policy", who.Principal, action, object)
	}
	return denied(reason, "User: %s is not authorized to perform: %s on %s because no identity-based policy allows the %s action", who.Principal, action, object, action)
}

// denyForeign refuses access to a key of another account in words that do not say whether there is such a key.
func (s *Service) denyForeign(who Caller, action, reason string) error {
	return denied(reason, "User: %s is not authorized to perform: %s on this resource because the resource does not exist in this Region, "+
		"no resource-based policies allow access, or a resource-based policy explicitly denies access", who.Principal, action)
}

// denyCiphertext refuses a request whose key was taken from the ciphertext, likewise.
func (s *Service) denyCiphertext(who Caller, action, reason string) error {
	return denied(reason, "User: %s is not authorized to perform: %s on the resource associated with this ciphertext because the resource does not exist in this Region, "+
		"no resource-based policies allow access, or a resource-based policy explicitly denies access", who.Principal, action)
}

// A denial is why access was denied, for the operator's log.
type denial string

func (d denial) Error() string { return string(d) }

// denied returns a refusal whose text is the client's and whose reason is the operator's.
func denied(reason, format string, args ...any) error {
	return &Error{Code: AccessDenied, Detail: fmt.Sprintf(format, args...), Err: denial(reason)}
}
