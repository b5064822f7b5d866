package kms

import "context"

// ListGrantsRequest is the input of ListGrants.
type ListGrantsRequest struct {
	Limit            *int32 `json:"Limit" aws:"min=1,max=1000"`
	Marker           string `json:"Marker" aws:"min=1,max=1024,pattern=marker"`
	KeyID            string `json:"KeyId" aws:"required,min=1,max=2048"`
	GrantID          string `json:"GrantId" aws:"min=1,max=128"`
	GranteePrincipal string `json:"GranteePrincipal" aws:"min=1,max=256,pattern=principal"`
}

// ListGrantsResponse is the output of ListGrants and of ListRetirableGrants.
type ListGrantsResponse struct {
	Grants     []GrantListEntry `json:"Grants"`
	NextMarker string           `json:"NextMarker,omitempty"`
	Truncated  bool             `json:"Truncated"`
}

// GrantListEntry tells of a grant in a list.
type GrantListEntry struct {
	KeyID             string            `json:"KeyId"` // ARN
	GrantID           string            `json:"GrantId"`
	Name              string            `json:"Name"` // empty for none
	CreationDate      Time              `json:"CreationDate"`
	GranteePrincipal  string            `json:"GranteePrincipal"`
	RetiringPrincipal string            `json:"RetiringPrincipal,omitempty"`
	IssuingAccount    string            `json:"IssuingAccount"` // ARN of its root
	Operations        []string          `json:"Operations"`
	Constraints       *GrantConstraints `json:"Constraints,omitzero"`
}

// ListGrants lists the grants on a key, in the order of their ids: all, those to one principal, or one.
func (s *Service) ListGrants(ctx context.Context, who Caller, req *ListGrantsRequest) (*ListGrantsResponse, error) {
	after, err := parseMarker("ListGrants", req.Marker)
	if err != nil {
		return nil, err
	}
	if req.GrantID != "" {
		if err := checkGrantID(req.GrantID); err != nil {
			return nil, err
		}
	}
	a := manage("kms:ListGrants", req.KeyID, anyState)
	a.conditions = []condition{notForAWSResource}
	key, err := s.open(ctx, who, a)
	if err != nil {
		return nil, err
	}
	limit := pageSize(req.Limit, 50, 100)
	var grants []Grant
	err = s.store.View(ctx, func(tx Tx) (err error) {
		if req.GrantID == "" {
			grants, err = tx.Grants(key.ID, req.GranteePrincipal, after, limit+1)
			return err
		}
		grants = nil
		g, err := tx.Grant(key.ID, req.GrantID)
		switch {
		case isNotStored(err):
			return nil
		case err != nil:
			return err
		case req.GranteePrincipal == "" || g.Grantee == req.GranteePrincipal:
			grants = []Grant{*g}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	resp, grants := pageOfGrants("ListGrants", grants, limit)
	for i := range grants {
		resp.Grants = append(resp.Grants, s.grantEntry(&grants[i], key.ARN))
	}
	return resp, nil
}

// ListRetirableGrantsRequest is the input of ListRetirableGrants.
type ListRetirableGrantsRequest struct {
	Limit             *int32 `json:"Limit" aws:"min=1,max=1000"`
	Marker            string `json:"Marker" aws:"min=1,max=1024,pattern=marker"`
	RetiringPrincipal string `json:"RetiringPrincipal" aws:"required,min=1,max=256,pattern=principal"`
}

// ListRetirableGrants lists the grants, on keys of any account, that name a principal of the caller's account as the one who may retire them, in the order of
// their ids. A principal that is gone may be named too: its grants are what somebody has to clear away.
func (s *Service) ListRetirableGrants(ctx context.Context, who Caller, req *ListRetirableGrantsRequest) (*ListGrantsResponse, error) {
	after, err := parseMarker("ListRetirableGrants", req.Marker)
	if err != nil {
		return nil, err
	}
	a := access{action: "kms:ListRetirableGrants"}
	if err := s.permit(ctx, who, a, "*"); err != nil {
		return nil, err
	}
	retiring, err := ParsePrincipalARN(req.RetiringPrincipal)
	if err != nil || retiring.Partition != s.partition {
		return nil, noPrincipal(req.RetiringPrincipal)
	}
	if retiring.Account != who.Account {
		return nil, s.denyForeign(who, a.action, "the retiring principal is another account's")
	}
	limit := pageSize(req.Limit, 50, 100)
	var grants []Grant
	err = s.store.View(ctx, func(tx Tx) (err error) {
		grants, err = tx.RetirableGrants(req.RetiringPrincipal, after, limit+1)
		return err
	})
	if err != nil {
		return nil, err
	}
	resp, grants := pageOfGrants("ListRetirableGrants", grants, limit)
	for i := range grants {
		key, err := s.key(ctx, grants[i].Key)
		if isNotStored(err) {
			continue // the key is being destroyed, and its grants with it
		}
		if err != nil {
			return nil, err
		}
		resp.Grants = append(resp.Grants, s.grantEntry(&grants[i], s.keyARN(key.Account, key.ID)))
	}
	return resp, nil
}

// pageOfGrants returns an answer without entries, and the grants that belong into it: of one more than fits, what fits.
func pageOfGrants(list string, grants []Grant, limit int) (*ListGrantsResponse, []Grant) {
	resp := &ListGrantsResponse{Grants: []GrantListEntry{}}
	if len(grants) > limit {
		grants = grants[:limit]
		resp.Truncated = true
		resp.NextMarker = newMarker(list, grants[limit-1].ID)
	}
	return resp, grants
}

// grantEntry returns what lists show of a grant on the key called arn.
func (s *Service) grantEntry(g *Grant, arn string) GrantListEntry {
	e := GrantListEntry{
		KeyID:             arn,
		GrantID:           g.ID,
		Name:              g.Name,
		CreationDate:      Time{g.Created},
		GranteePrincipal:  g.Grantee,
		RetiringPrincipal: g.Retiring,
		IssuingAccount:    RootARN(s.partition, g.Issuer),
		Operations:        g.Operations.names(),
	}
	if c := g.Constraint; !c.none() {
		e.Constraints = &GrantConstraints{EncryptionContextSubset: c.Subset, EncryptionContextEquals: c.Equals, SourceArn: c.SourceArn}
	}
	return e
}
