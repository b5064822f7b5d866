package kms

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"strongroom/kms/policy"
)

// An ExplainRequest asks whether a request would be allowed, and why.
type ExplainRequest struct {
	Principal  string              // ARN of a root, a user, a role or a session
	Action     string              // "kms:Decrypt"
	Key        string              // key id, key ARN, alias or alias ARN; empty for an action that is about no key
	Context    map[string]string   // encryption context
	Conditions map[string][]string // values of further condition keys, by their names in any letter case
	Source     netip.Addr
	Secure     bool
	Time       time.Time // zero for now
}

// An Explanation is the answer: what was decided and by what, and everything else that was looked at.
type Explanation struct {
	Allowed  bool     `json:"allowed"`
	Decision string   `json:"decision"`        // in one sentence
	Grant    string   `json:"grant,omitempty"` // id of the grant that allowed it
	KeyARN   string   `json:"keyArn,omitempty"`
	State    string   `json:"keyState,omitempty"` // which also has a say in what can be done
	Steps    []string `json:"statements"`         // each statement that was looked at, and what became of it
	Grants   string   `json:"grants,omitempty"`   // why no grant allowed it
	Answer   string   `json:"answer,omitempty"`   // what the client would be told, where it is denied
}

// Explain decides a request that nobody made, from the store as it is now, exactly as the gate decides one that somebody made.
func Explain(ctx context.Context, store Store, req *ExplainRequest) (*Explanation, error) {
	s, err := newService(ctx, Options{Store: store, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	who, err := s.supposedCaller(req)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(actions, func(a string) bool { return strings.EqualFold(a, req.Action) })
	if i < 0 {
		return nil, fmt.Errorf("%w: %s", ErrNoAction, req.Action)
	}
	a := access{action: actions[i], keyID: req.Key, forms: describeForms, now: req.Time, context: req.Context}
	for _, name := range slices.Sorted(maps.Keys(req.Conditions)) {
		a.conditions = append(a.conditions, condition{strings.ToLower(name), req.Conditions[name]})
	}
	a.cryptographic = grantOperation(strings.TrimPrefix(a.action, "kms:"))&withContext != 0
	if a.action == "kms:CreateGrant" {
		a.viaGrant = supposedGrant(&a)
	}
	if req.Key == "" {
		return s.explainKeyless(ctx, who, &a)
	}
	key, err := s.resolve(ctx, who, &a)
	if err != nil {
		return nil, err
	}
	return s.explainKey(ctx, who, &a, key)
}

// actions are those that policies decide on. RetireGrant is none: the grant decides.
var actions = []string{
	"kms:CancelKeyDeletion", "kms:CreateAlias", "kms:CreateGrant", "kms:CreateKey", "kms:Decrypt", "kms:DeleteAlias", "kms:DescribeKey", "kms:DisableKey",
	"kms:DisableKeyRotation", "kms:EnableKey", "kms:EnableKeyRotation", "kms:Encrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyPair",
	"kms:GenerateDataKeyPairWithoutPlaintext", "kms:GenerateDataKeyWithoutPlaintext", "kms:GenerateRandom", "kms:GetKeyLastUsage", "kms:GetKeyPolicy",
	"kms:GetKeyRotationStatus", "kms:ListAliases", "kms:ListGrants", "kms:ListKeyPolicies", "kms:ListKeyRotations", "kms:ListKeys", "kms:ListResourceTags",
	"kms:ListRetirableGrants", "kms:PutKeyPolicy", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:RevokeGrant", "kms:RotateKeyOnDemand",
	"kms:ScheduleKeyDeletion", "kms:TagResource", "kms:UntagResource", "kms:UpdateAlias", "kms:UpdateKeyDescription",
}

// ErrNoAction means that what was asked about is no action that policies decide on.
var ErrNoAction = errors.New("there is no such action")

// supposedGrant returns what a grant must be for, to let the grant that is asked about be made: by the values of kms:GrantOperations and
// kms:GrantConstraintType, and by the encryption context for its pairs.
func supposedGrant(a *access) func(*Grant) bool {
	var operations GrantOperations
	var constraint GrantConstraint
	for _, c := range a.conditions {
		switch c.key {
		case "kms:grantoperations":
			for _, name := range c.values {
				operations |= grantOperation(name)
			}
		case "kms:grantconstrainttype":
			if slices.Contains(c.values, "EncryptionContextEquals") {
				constraint.Equals = a.context
			} else {
				constraint.Subset = a.context
			}
		}
	}
	return func(g *Grant) bool { return g.Operations.has(operations) && constraint.within(g.Constraint) }
}

// withContext are the operations that a grant can be for and that have an encryption context.
var withContext = grantOperation("Decrypt") | grantOperation("Encrypt") | grantOperation("GenerateDataKey") | grantOperation("GenerateDataKeyWithoutPlaintext") |
	grantOperation("GenerateDataKeyPair") | grantOperation("GenerateDataKeyPairWithoutPlaintext") | grantOperation("ReEncryptFrom") | grantOperation("ReEncryptTo")

// supposedCaller returns the caller that a request of the principal would have.
func (s *Service) supposedCaller(req *ExplainRequest) (Caller, error) {
	arn, err := ParsePrincipalARN(req.Principal)
	if err != nil {
		return Caller{}, err
	}
	if arn.Partition != s.partition {
		return Caller{}, fmt.Errorf("%s: this deployment's partition is %q", req.Principal, s.partition)
	}
	if arn.Kind == Role && arn.Session == "" {
		arn.Session = "explain" // a role acts only in a session
	}
	who := Caller{Account: arn.Account, Principal: arn.String(), Source: req.Source, Secure: req.Secure}
	if arn.Session != "" {
		who.Role, who.Issued = arn.Owner().String(), time.Now()
	}
	return who, nil
}

func (s *Service) explainKeyless(ctx context.Context, who Caller, a *access) (*Explanation, error) {
	q, p, f, err := s.question(ctx, who, a, nil, "*")
	if err != nil {
		return nil, err
	}
	d, steps := policy.Explain(q, p)
	if f.err != nil {
		return nil, f.err
	}
	e := &Explanation{Allowed: d.Allowed, Decision: describeDecision(d), Steps: describeSteps(steps)}
	if !d.Allowed {
		e.Answer = clientText(s.denyIdentity(who, a.action, "resource: *", d, ""))
	}
	return e, nil
}

func (s *Service) explainKey(ctx context.Context, who Caller, a *access, key *Key) (*Explanation, error) {
	v, err := s.judge(ctx, who, a, key)
	if err != nil {
		return nil, err
	}
	_, steps := policy.Explain(v.question, v.policies)
	e := &Explanation{
		Allowed:  v.allowed,
		Decision: describeDecision(v.decision),
		KeyARN:   s.keyARN(key.Account, key.ID),
		State:    string(key.State),
		Steps:    describeSteps(steps),
	}
	switch {
	case v.grant != nil:
		e.Grant = v.grant.ID
		e.Decision = fmt.Sprintf("allowed by grant %s to %s; by policies alone: %s", v.grant.ID, v.grant.Grantee, e.Decision)
	case v.foreign != "":
		e.Decision = v.foreign
	case !v.allowed && !v.decision.Explicit:
		e.Grants = s.grantReason(ctx, who, a, key)
	}
	if !v.allowed {
		e.Answer = clientText(s.deny(ctx, who, a, key, v))
	}
	return e, nil
}

func describeSteps(steps []policy.Step) []string {
	all := []string{}
	for _, step := range steps {
		all = append(all, describeStep(step))
	}
	return all
}

// clientText returns what a client would be told.
func clientText(err error) string {
	if e, ok := err.(*Error); ok {
		return e.Detail
	}
	return err.Error()
}
