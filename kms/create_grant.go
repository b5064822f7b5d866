package kms

import (
	"context"
	"errors"
	"maps"
	"time"
	"unicode/utf8"
)

// CreateGrantRequest is the input of CreateGrant.
type CreateGrantRequest struct {
	KeyID             string            `json:"KeyId" aws:"required,min=1,max=2048"`
	GranteePrincipal  string            `json:"GranteePrincipal" aws:"required,min=1,max=256,pattern=principal"`
	RetiringPrincipal string            `json:"RetiringPrincipal" aws:"min=1,max=256,pattern=principal"`
	Operations        []string          `json:"Operations" aws:"required,item.enum=Decrypt|Encrypt|GenerateDataKey|GenerateDataKeyWithoutPlaintext|ReEncryptFrom|ReEncryptTo|Sign|Verify|GetPublicKey|CreateGrant|RetireGrant|DescribeKey|GenerateDataKeyPair|GenerateDataKeyPairWithoutPlaintext|GenerateMac|VerifyMac|DeriveSharedSecret"`
	Constraints       *GrantConstraints `json:"Constraints"`
	GrantTokens       []string          `json:"GrantTokens" aws:"max=10,item.min=1,item.max=8192,sensitive"`
	Name              string            `json:"Name" aws:"min=1,max=256,pattern=name"`
	DryRun            bool              `json:"DryRun"`
}

// CreateGrantResponse is the output of CreateGrant.
type CreateGrantResponse struct {
	GrantToken string `json:"GrantToken"`
	GrantID    string `json:"GrantId"`
}

// GrantConstraints is a GrantConstraint on the wire. A map that is there and empty is not one that is not there.
type GrantConstraints struct {
	EncryptionContextSubset map[string]string `json:"EncryptionContextSubset,omitzero"`
	EncryptionContextEquals map[string]string `json:"EncryptionContextEquals,omitzero"`
	SourceArn               string            `json:"SourceArn,omitzero" aws:"min=20,max=512"`
}

const (
	maxGrants          = 50_000 // on one key (AWS KMS Developer Guide, "Resource quotas")
	maxConstraintPairs = 8      // and of how many characters each name and value: AWS KMS Developer Guide, "Using grant constraints"
	maxConstraintText  = 384
)

// What a grant on a symmetric encryption key, as all keys here are, can be for; and of it what has an encryption context (AWS KMS Developer Guide, "Grant
// operations").
var (
	contextOperations = grantOperation("Decrypt") | grantOperation("Encrypt") | grantOperation("GenerateDataKey") |
		grantOperation("GenerateDataKeyWithoutPlaintext") | grantOperation("GenerateDataKeyPair") | grantOperation("GenerateDataKeyPairWithoutPlaintext") |
		grantOperation("ReEncryptFrom") | grantOperation("ReEncryptTo")
	symmetricOperations = contextOperations | grantOperation("CreateGrant") | grantOperation("DescribeKey") | grantOperation("RetireGrant")
)

// CreateGrant lets a principal use a key. With the name and everything else the same as in a grant that is there, it makes none and gives another token of
// that one.
//
// Who may call it by means of a grant alone can pass on no more than that grant allows. Who may by a policy can pass on what it may not do itself
// (AWS KMS Developer Guide, "Granting CreateGrant permission").
func (s *Service) CreateGrant(ctx context.Context, who Caller, req *CreateGrantRequest) (*CreateGrantResponse, error) {
	// What is wrong with the grant itself is said after the key was found and the right to make grants on it.
	operations, fault := parseGrantOperations(req.Operations)
	constraint := GrantConstraint{}
	if fault == nil {
		constraint, fault = parseGrantConstraints(req.Constraints, operations)
	}
	if fault != nil {
		constraint = GrantConstraint{}
	}
	var parent *Grant // by means of which it is made, if policies do not allow it
	a := manage("kms:CreateGrant", req.KeyID, onlyEnabled)
	a.grantTokens = req.GrantTokens
	a.context, a.conditions = constraint.context(), createGrantConditions(req, operations, constraint)
	a.viaGrant = func(g *Grant) bool {
		if !g.Operations.has(operations) || !constraint.within(g.Constraint) {
			return false
		}
		parent = g
		return true
	}
	a.check = func(key *Key) error {
		if fault != nil {
			return fault
		}
		if others := operations &^ symmetricOperations; others != 0 {
			return errorf(Validation, "%s key usage is ENCRYPT_DECRYPT which is not valid for %s.", s.keyARN(key.Account, key.ID), others.names()[0])
		}
		return s.checkGrantPrincipals(ctx, req)
	}
	for {
		parent = nil
		key, err := s.open(ctx, who, a)
		if err != nil {
			return nil, err
		}
		g := &Grant{
			ID:         newGrantID(),
			Key:        key.ID,
			Name:       req.Name,
			Grantee:    req.GranteePrincipal,
			Retiring:   req.RetiringPrincipal,
			Issuer:     who.Account,
			Operations: operations,
			Constraint: constraint,
			Created:    time.Now().UTC().Truncate(time.Millisecond),
		}
		if req.DryRun {
			err := s.store.View(ctx, func(tx Tx) error {
				_, err := findSame(tx, g, key.ARN)
				return err
			})
			if err != nil {
				return nil, err
			}
			return nil, errDryRun
		}
		var made *Grant
		err = s.update(ctx, func(tx Tx) (err error) {
			if err := key.unchanged(tx, parent); err != nil {
				return err
			}
			if made, err = findSame(tx, g, key.ARN); made != nil || err != nil {
				return err
			}
			made = g
			return tx.InsertGrant(g)
		})
		if err == nil {
			who.trail.answer(map[string]string{"grantId": made.ID, "keyId": key.ARN})
			return &CreateGrantResponse{GrantToken: newGrantToken(made), GrantID: made.ID}, nil
		}
		if !errors.Is(err, ErrConflict) && !isNotStored(err) {
			return nil, err
		}
		key.outdated()
	}
}

// parseGrantOperations reads the operations of a request, which the wire knows to be ones that grants can be for.
func parseGrantOperations(names []string) (GrantOperations, error) {
	var o GrantOperations
	for _, name := range names {
		o |= grantOperation(name)
	}
	switch o {
	case 0:
		return 0, errorf(Validation, "Grants must contain at least one operation.")
	case grantOperation("CreateGrant"):
		return 0, errorf(Validation, "Grants must not contain only the CreateGrant operation.")
	}
	return o, nil
}

// parseGrantConstraints reads the constraints of a request for a grant for the operations. No pairs in EncryptionContextSubset, which is no constraint, are
// none, so that a policy that wants a constraint is not content with it. No pairs in EncryptionContextEquals are one: requests with an
// encryption context are outside it.
func parseGrantConstraints(c *GrantConstraints, operations GrantOperations) (GrantConstraint, error) {
	var g GrantConstraint
	if c == nil {
		return g, nil
	}
	g.Equals, g.SourceArn = c.EncryptionContextEquals, c.SourceArn
	if len(c.EncryptionContextSubset) > 0 {
		g.Subset = c.EncryptionContextSubset
	}
	if g.Equals == nil && g.Subset == nil {
		return g, nil
	}
	if g.Equals != nil && g.Subset != nil {
		return g, errorf(Validation, "Grant constraints must not contain both EncryptionContextEquals and EncryptionContextSubset.")
	}
	if operations&contextOperations == 0 {
		return g, errorf(Validation, "Grants with encryption context constraints must contain an operation that supports an encryption context.")
	}
	pairs := g.context()
	if len(pairs) > maxConstraintPairs {
		return g, errorf(Validation, "Grant constraints must not contain more than %d encryption context pairs.", maxConstraintPairs)
	}
	for name, value := range pairs {
		if utf8.RuneCountInString(name) > maxConstraintText || utf8.RuneCountInString(value) > maxConstraintText {
			return g, errorf(Validation, "Encryption context keys and values in grant constraints must not be longer than %d characters.", maxConstraintText)
		}
	}
	return g, nil
}

// createGrantConditions returns what conditions in policies can ask about a grant that is to be made, besides the pairs of its constraint.
func createGrantConditions(req *CreateGrantRequest, operations GrantOperations, c GrantConstraint) []condition {
	conditions := []condition{
		notForAWSResource,
		{"kms:grantoperations", operations.names()},
		{"kms:granteeprincipal", []string{req.GranteePrincipal}},
	}
	if req.RetiringPrincipal != "" {
		conditions = append(conditions, condition{"kms:retiringprincipal", []string{req.RetiringPrincipal}})
	}
	switch {
	case c.Equals != nil:
		conditions = append(conditions, condition{"kms:grantconstrainttype", []string{"EncryptionContextEquals"}})
	case c.Subset != nil:
		conditions = append(conditions, condition{"kms:grantconstrainttype", []string{"EncryptionContextSubset"}})
	}
	return conditions
}

// notForAWSResource says that no AWS service asks on somebody's behalf: there is none here.
var notForAWSResource = condition{"kms:grantisforawsresource", []string{"false"}}

// checkGrantPrincipals refuses a grantee or a retiring principal that does not exist. Only who may make a grant on the key is told so.
func (s *Service) checkGrantPrincipals(ctx context.Context, req *CreateGrantRequest) error {
	names := []string{req.GranteePrincipal}
	if req.RetiringPrincipal != "" {
		names = append(names, req.RetiringPrincipal)
	}
	for _, name := range names {
		arn, err := ParsePrincipalARN(name)
		if err != nil {
			return noPrincipal(name)
		}
		if ok, err := s.principalExists(ctx, arn); err != nil {
			return err
		} else if !ok {
			return noPrincipal(name)
		}
	}
	return nil
}

// noPrincipal refuses an ARN that is nobody's.
func noPrincipal(arn string) error {
	return errorf(InvalidArn, "ARN does not refer to a valid principal: %s", arn)
}

// unchanged returns ErrConflict or ErrNotStored unless the key, the caller and its policies are as the gate saw them, and the grant that let the caller pass, if
// one did, still there. So whoever takes the right to make grants or policies away can then look through those on the key, and none comes after them.
func (k *openKey) unchanged(tx Tx, parent *Grant) error {
	if err := k.caller.unchanged(tx); err != nil {
		return err
	}
	now, err := tx.Key(k.ID)
	if err != nil {
		return err
	}
	if now.State != k.State || now.Policy != k.Policy {
		return ErrConflict
	}
	if parent != nil {
		_, err = tx.Grant(k.ID, parent.ID)
	}
	return err
}

// findSame returns the grant that is g but for its id and date, if g has a name and there is one; otherwise nil if the key can have one more grant.
func findSame(tx Tx, g *Grant, arn string) (*Grant, error) {
	if g.Name != "" {
		named, err := tx.NamedGrants(g)
		if err != nil {
			return nil, err
		}
		for i := range named {
			if named[i].same(g) {
				return &named[i], nil
			}
		}
	}
	n, err := tx.CountGrants(g.Key)
	if err != nil {
		return nil, err
	}
	if n >= maxGrants {
		return nil, errorf(LimitExceeded, "The key %s already has %d grants.", arn, n)
	}
	return nil, nil
}

// same reports whether g and h are alike in all that a request says.
func (g *Grant) same(h *Grant) bool {
	c, d := g.Constraint, h.Constraint
	return g.Key == h.Key && g.Name == h.Name && g.Grantee == h.Grantee && g.Retiring == h.Retiring && g.Issuer == h.Issuer &&
		g.Operations == h.Operations && c.SourceArn == d.SourceArn &&
		(c.Equals == nil) == (d.Equals == nil) && maps.Equal(c.Equals, d.Equals) &&
		(c.Subset == nil) == (d.Subset == nil) && maps.Equal(c.Subset, d.Subset)
}
