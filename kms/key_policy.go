package kms

import (
	"context"
	"errors"
	"strconv"

	"strongroom/kms/policy"
)

// onlyPolicy is the name of the one policy that a key has.
const onlyPolicy = "default"

// checkPolicyName refuses any other name. An empty one means that one.
func checkPolicyName(name string) error {
	if name != "" && name != onlyPolicy {
		return errorf(NotFound, "No such policy exists")
	}
	return nil
}

// PutKeyPolicyRequest is the input of PutKeyPolicy.
type PutKeyPolicyRequest struct {
	KeyID                          string `json:"KeyId" aws:"required,min=1,max=2048"`
	PolicyName                     string `json:"PolicyName" aws:"min=1,max=128,pattern=policyname"`
	Policy                         string `json:"Policy" aws:"required,min=1,max=131072,pattern=policy"`
	BypassPolicyLockoutSafetyCheck bool   `json:"BypassPolicyLockoutSafetyCheck"`
}

// Defaults says what the request means where it says nothing.
func (r *PutKeyPolicyRequest) Defaults() { setDefault(&r.PolicyName, onlyPolicy) }

// PutKeyPolicy replaces the policy of a key, in whatever state the key is.
func (s *Service) PutKeyPolicy(ctx context.Context, who Caller, req *PutKeyPolicyRequest) (*Empty, error) {
	a := manage("kms:PutKeyPolicy", req.KeyID, anyState)
	a.conditions = []condition{{"kms:bypasspolicylockoutsafetycheck", []string{strconv.FormatBool(req.BypassPolicyLockoutSafetyCheck)}}}
	key, err := s.open(ctx, who, a)
	if err != nil {
		return nil, err
	}
	if err := checkPolicyName(req.PolicyName); err != nil {
		return nil, err
	}
	d, err := s.keyPolicy(ctx, req.Policy)
	if err != nil {
		return nil, err
	}
	if !req.BypassPolicyLockoutSafetyCheck {
		if err := s.checkLockout(ctx, who, key.Key, d); err != nil {
			return nil, err
		}
	}
	err = s.update(ctx, func(tx Tx) error {
		// Whoever lost the right meanwhile must not get it back by this.
		if err := key.unchanged(tx, nil); err != nil {
			return err
		}
		return tx.SetPolicy(key.ID, req.Policy)
	})
	if errors.Is(err, ErrConflict) || isNotStored(err) {
		key.outdated()
		return s.PutKeyPolicy(ctx, who, req) // with what is there now
	}
	return &Empty{}, err
}

// GetKeyPolicyRequest is the input of GetKeyPolicy.
type GetKeyPolicyRequest struct {
	KeyID      string `json:"KeyId" aws:"required,min=1,max=2048"`
	PolicyName string `json:"PolicyName" aws:"min=1,max=128,pattern=policyname"`
}

// GetKeyPolicyResponse is the output of GetKeyPolicy.
type GetKeyPolicyResponse struct {
	Policy     string `json:"Policy"`
	PolicyName string `json:"PolicyName"`
}

// GetKeyPolicy returns the policy of a key, in the form that AWS KMS gives it.
func (s *Service) GetKeyPolicy(ctx context.Context, who Caller, req *GetKeyPolicyRequest) (*GetKeyPolicyResponse, error) {
	key, err := s.open(ctx, who, manage("kms:GetKeyPolicy", req.KeyID, anyState))
	if err != nil {
		return nil, err
	}
	if err := checkPolicyName(req.PolicyName); err != nil {
		return nil, err
	}
	return &GetKeyPolicyResponse{Policy: policy.Format(key.Policy, s.partition), PolicyName: onlyPolicy}, nil
}

// ListKeyPoliciesRequest is the input of ListKeyPolicies.
type ListKeyPoliciesRequest struct {
	KeyID  string `json:"KeyId" aws:"required,min=1,max=2048"`
	Limit  *int32 `json:"Limit" aws:"min=1,max=1000"`
	Marker string `json:"Marker" aws:"min=1,max=1024,pattern=marker"`
}

// ListKeyPoliciesResponse is the output of ListKeyPolicies.
type ListKeyPoliciesResponse struct {
	PolicyNames []string `json:"PolicyNames"`
	Truncated   bool     `json:"Truncated"`
}

// ListKeyPolicies lists the names of a key's policies, of which there is one.
func (s *Service) ListKeyPolicies(ctx context.Context, who Caller, req *ListKeyPoliciesRequest) (*ListKeyPoliciesResponse, error) {
	if _, err := s.open(ctx, who, manage("kms:ListKeyPolicies", req.KeyID, anyState)); err != nil {
		return nil, err
	}
	// No page of this list has a next one, so no marker is one of ours.
	if req.Marker != "" {
		return nil, errorf(InvalidMarker, "Could not deserialize marker '%s'", req.Marker)
	}
	return &ListKeyPoliciesResponse{PolicyNames: []string{onlyPolicy}}, nil
}
