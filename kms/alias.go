package kms

import (
	"context"
	"errors"
	"strings"
	"time"
)

const (
	aliasPrefix    = "alias/"
	reservedPrefix = "alias/aws/" // aliases of keys that AWS services manage; there are none here
	maxAliases     = 50           // for one key (AWS KMS Developer Guide, "Resource quotas")
)

// checkAliasName refuses a name that the model allows and the service does not.
func checkAliasName(name string) error {
	switch {
	case !strings.HasPrefix(name, aliasPrefix):
		return errorf(Validation, `Alias must start with the prefix "alias/". Please see https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html`)
	case strings.HasPrefix(name, reservedPrefix):
		return errorf(NotAuthorized, "")
	case name == aliasPrefix:
		return errorf(InvalidAliasName, "")
	case strings.Contains(name, ":"):
		return errorf(Validation, "%s contains invalid characters for an alias", name)
	}
	return nil
}

// checkAliasTarget refuses an alias where a key must be named.
func checkAliasTarget(keyID string) error {
	if strings.HasPrefix(keyID, aliasPrefix) {
		return errorf(Validation, "Aliases must refer to keys. Not aliases")
	}
	if a, ok := parseARN(keyID); ok && strings.HasPrefix(a.resource, aliasPrefix) {
		return errorf(Validation, "Aliases must refer to keys. Not aliases")
	}
	return nil
}

// CreateAliasRequest is the input of CreateAlias.
type CreateAliasRequest struct {
	AliasName   string `json:"AliasName" aws:"required,min=1,max=256,pattern=alias"`
	TargetKeyID string `json:"TargetKeyId" aws:"required,min=1,max=2048"`
}

// CreateAlias gives a key of the caller's account a name.
func (s *Service) CreateAlias(ctx context.Context, who Caller, req *CreateAliasRequest) (*Empty, error) {
	if err := checkAliasName(req.AliasName); err != nil {
		return nil, err
	}
	if err := checkAliasTarget(req.TargetKeyID); err != nil {
		return nil, err
	}
	if err := s.permitAlias(ctx, who, "kms:CreateAlias", req.AliasName); err != nil {
		return nil, err
	}
	a := manage("kms:CreateAlias", req.TargetKeyID, notPending)
	a.forms = aliasForms
	key, err := s.open(ctx, who, a)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	err = s.update(ctx, func(tx Tx) error {
		n, err := tx.CountAliases(key.ID)
		if err != nil {
			return err
		}
		if n >= maxAliases {
			return errorf(LimitExceeded, "The key %s already has %d aliases.", key.ARN, n)
		}
		return tx.InsertAlias(&Alias{Account: who.Account, Name: req.AliasName, Key: key.ID, Created: now, Updated: now})
	})
	if errors.Is(err, ErrConflict) {
		return nil, errorf(AlreadyExists, "An alias with the name %s already exists", s.aliasARN(who.Account, req.AliasName))
	}
	return &Empty{}, err
}

// UpdateAliasRequest is the input of UpdateAlias.
type UpdateAliasRequest struct {
	AliasName   string `json:"AliasName" aws:"required,min=1,max=256,pattern=alias"`
	TargetKeyID string `json:"TargetKeyId" aws:"required,min=1,max=2048"`
}

// UpdateAlias moves an alias to another key of the same account. The key it is taken from may be pending deletion, the one that it is given to may not.
func (s *Service) UpdateAlias(ctx context.Context, who Caller, req *UpdateAliasRequest) (*Empty, error) {
	if err := checkAliasName(req.AliasName); err != nil {
		return nil, err
	}
	if err := checkAliasTarget(req.TargetKeyID); err != nil {
		return nil, err
	}
	if err := s.permitAlias(ctx, who, "kms:UpdateAlias", req.AliasName); err != nil {
		return nil, err
	}
	for {
		from, err := s.openAlias(ctx, who, "kms:UpdateAlias", req.AliasName)
		if err != nil {
			return nil, err
		}
		a := manage("kms:UpdateAlias", req.TargetKeyID, notPending)
		a.forms = aliasForms
		to, err := s.open(ctx, who, a)
		if err != nil {
			return nil, err
		}
		err = s.update(ctx, func(tx Tx) error {
			if n, err := tx.CountAliases(to.ID); err != nil {
				return err
			} else if n >= maxAliases && to.ID != from.ID {
				return errorf(LimitExceeded, "The key %s already has %d aliases.", to.ARN, n)
			}
			return tx.MoveAlias(who.Account, req.AliasName, from.ID, to.ID, time.Now())
		})
		if !errors.Is(err, ErrConflict) && !isNotStored(err) {
			return &Empty{}, err
		}
		// Somebody else moved or deleted it meanwhile: begin again with what is there now.
		s.apply(AliasChanged(who.Account, req.AliasName), KeyChanged(from.ID), KeyChanged(to.ID))
	}
}

// DeleteAliasRequest is the input of DeleteAlias.
type DeleteAliasRequest struct {
	AliasName string `json:"AliasName" aws:"required,min=1,max=256,pattern=alias"`
}

// DeleteAlias takes a name from a key, in whatever state the key is.
func (s *Service) DeleteAlias(ctx context.Context, who Caller, req *DeleteAliasRequest) (*Empty, error) {
	if err := checkAliasName(req.AliasName); err != nil {
		return nil, err
	}
	if err := s.permitAlias(ctx, who, "kms:DeleteAlias", req.AliasName); err != nil {
		return nil, err
	}
	for {
		key, err := s.openAlias(ctx, who, "kms:DeleteAlias", req.AliasName)
		if err != nil {
			return nil, err
		}
		err = s.update(ctx, func(tx Tx) error { return tx.DeleteAlias(who.Account, req.AliasName, key.ID) })
		if !errors.Is(err, ErrConflict) && !isNotStored(err) {
			return &Empty{}, err
		}
		// Likewise.
		s.apply(AliasChanged(who.Account, req.AliasName), KeyChanged(key.ID))
	}
}

// openAlias passes the gate for the key that an alias of the caller's account points at.
func (s *Service) openAlias(ctx context.Context, who Caller, action, name string) (*openKey, error) {
	a := manage(action, name, anyState)
	a.forms = keyForms{alias: true}
	return s.open(ctx, who, a)
}

// permitAlias decides whether who may do something to an alias of its account: identity policies do, and for its key the key's policy too. The record
// shows both.
func (s *Service) permitAlias(ctx context.Context, who Caller, action, name string) error {
	arn := s.aliasARN(who.Account, name)
	who.trail.resource(who.Account, arn)
	return s.permit(ctx, who, access{action: action}, arn)
}

// ListAliasesRequest is the input of ListAliases.
type ListAliasesRequest struct {
	KeyID  string `json:"KeyId" aws:"min=1,max=2048"`
	Limit  *int32 `json:"Limit" aws:"min=1,max=1000"`
	Marker string `json:"Marker" aws:"min=1,max=1024,pattern=marker"`
}

// ListAliasesResponse is the output of ListAliases.
type ListAliasesResponse struct {
	Aliases    []AliasListEntry `json:"Aliases"`
	NextMarker string           `json:"NextMarker,omitempty"`
	Truncated  bool             `json:"Truncated"`
}

// AliasListEntry tells of an alias in a list.
type AliasListEntry struct {
	AliasName       string `json:"AliasName"`
	AliasArn        string `json:"AliasArn"`
	TargetKeyID     string `json:"TargetKeyId"`
	CreationDate    Time   `json:"CreationDate"`
	LastUpdatedDate Time   `json:"LastUpdatedDate"`
}

// ListAliases lists the aliases of the caller's account, or of one key, in the order of their names.
func (s *Service) ListAliases(ctx context.Context, who Caller, req *ListAliasesRequest) (*ListAliasesResponse, error) {
	after, err := parseMarker("ListAliases", req.Marker)
	if err != nil {
		return nil, err
	}
	if err := s.permit(ctx, who, access{action: "kms:ListAliases"}, "*"); err != nil {
		return nil, err
	}
	var of KeyID
	if req.KeyID != "" {
		// Who may list all aliases may list those of one key: the key's policy is not asked.
		a := manage("kms:ListAliases", req.KeyID, anyState)
		key, err := s.resolve(ctx, who, &a)
		if err != nil {
			return nil, err
		}
		if key.Account != who.Account {
			return nil, s.denyForeign(who, a.action, "the key is another account's")
		}
		of = key.ID
	}
	limit := pageSize(req.Limit, 50, 100)
	var aliases []Alias
	err = s.store.View(ctx, func(tx Tx) (err error) {
		aliases, err = tx.Aliases(who.Account, of, after, limit+1)
		return err
	})
	if err != nil {
		return nil, err
	}
	resp := &ListAliasesResponse{Aliases: []AliasListEntry{}}
	if len(aliases) > limit {
		aliases = aliases[:limit]
		resp.Truncated = true
		resp.NextMarker = newMarker("ListAliases", aliases[limit-1].Name)
	}
	for _, a := range aliases {
		resp.Aliases = append(resp.Aliases, AliasListEntry{
			AliasName:       a.Name,
			AliasArn:        s.aliasARN(a.Account, a.Name),
			TargetKeyID:     a.Key.String(),
			CreationDate:    Time{a.Created},
			LastUpdatedDate: Time{a.Updated},
		})
	}
	return resp, nil
}
