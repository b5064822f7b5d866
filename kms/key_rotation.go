package kms

import (
	"context"
	"slices"
	"strconv"
	"time"
)

const (
	usualRotation = 365 // days (AWS KMS API Reference, EnableKeyRotation)

	// maxOnDemand is how many rotations on demand a key can have (AWS KMS API Reference, RotateKeyOnDemand).
	maxOnDemand = 25

	// automaticSoon is how long before an automatic rotation none on demand begins (AWS KMS API Reference, ConflictException).
	automaticSoon = 20 * time.Minute
)

// EnableKeyRotationRequest is the input of EnableKeyRotation.
type EnableKeyRotationRequest struct {
	KeyID                string `json:"KeyId" aws:"required,min=1,max=2048"`
	RotationPeriodInDays *int32 `json:"RotationPeriodInDays" aws:"min=90,max=2560"`
}

// EnableKeyRotation has a key rotated by itself from now on, for the first time when the period is over. If it was already, the new period begins now.
func (s *Service) EnableKeyRotation(ctx context.Context, who Caller, req *EnableKeyRotationRequest) (*Empty, error) {
	days := usualRotation
	if req.RotationPeriodInDays != nil {
		days = int(*req.RotationPeriodInDays)
	}
	a := manage("kms:EnableKeyRotation", req.KeyID, onlyEnabled)
	a.conditions = []condition{{"kms:rotationperiodindays", []string{strconv.Itoa(days)}}}
	return &Empty{}, s.setRotation(ctx, who, a, rotationEvery(days, time.Now()))
}

// DisableKeyRotationRequest is the input of DisableKeyRotation.
type DisableKeyRotationRequest struct {
	KeyID string `json:"KeyId" aws:"required,min=1,max=2048"`
}

// DisableKeyRotation ends what EnableKeyRotation began. A rotation that is pending is finished nevertheless.
func (s *Service) DisableKeyRotation(ctx context.Context, who Caller, req *DisableKeyRotationRequest) (*Empty, error) {
	a := manage("kms:DisableKeyRotation", req.KeyID, onlyEnabled)
	return &Empty{}, s.setRotation(ctx, who, a, Rotation{})
}

// setRotation passes the gate and changes when the key is rotated.
func (s *Service) setRotation(ctx context.Context, who Caller, a access, r Rotation) error {
	_, err := s.change(ctx, who, a, func(tx Tx, now *Key) error { return tx.SetRotation(now.ID, r) })
	return err
}

// GetKeyRotationStatusRequest is the input of GetKeyRotationStatus.
type GetKeyRotationStatusRequest struct {
	KeyID string `json:"KeyId" aws:"required,min=1,max=2048"`
}

// GetKeyRotationStatusResponse is the output of GetKeyRotationStatus.
type GetKeyRotationStatusResponse struct {
	KeyRotationEnabled        bool   `json:"KeyRotationEnabled"`
	KeyID                     string `json:"KeyId"`
	RotationPeriodInDays      int    `json:"RotationPeriodInDays,omitzero"`
	NextRotationDate          *Time  `json:"NextRotationDate,omitempty"`
	OnDemandRotationStartDate *Time  `json:"OnDemandRotationStartDate,omitempty"`
}

// GetKeyRotationStatus tells whether and when a key is rotated. A key that is pending deletion is not; if it is saved, it is as before.
func (s *Service) GetKeyRotationStatus(ctx context.Context, who Caller, req *GetKeyRotationStatusRequest) (*GetKeyRotationStatusResponse, error) {
	key, err := s.open(ctx, who, manage("kms:GetKeyRotationStatus", req.KeyID, anyState))
	if err != nil {
		return nil, err
	}
	resp := &GetKeyRotationStatusResponse{KeyID: key.ARN}
	if r := key.Rotation; r.Days > 0 && key.State != StatePendingDeletion {
		resp.KeyRotationEnabled = true
		resp.RotationPeriodInDays = r.Days
		resp.NextRotationDate = &Time{r.Next}
	}
	if m := key.pending(); m != nil && m.Reason == RotationOnDemand {
		resp.OnDemandRotationStartDate = &Time{m.Created}
	}
	return resp, nil
}

// RotateKeyOnDemandRequest is the input of RotateKeyOnDemand.
type RotateKeyOnDemandRequest struct {
	KeyID string `json:"KeyId" aws:"required,min=1,max=2048"`
}

// RotateKeyOnDemandResponse is the output of RotateKeyOnDemand.
type RotateKeyOnDemandResponse struct {
	KeyID string `json:"KeyId"`
}

// RotateKeyOnDemand has a key rotated now, once, and does not move its automatic rotations. As in AWS KMS the answer says that the rotation has begun;
// unless the device is away, it is also finished. GetKeyRotationStatus tells.
func (s *Service) RotateKeyOnDemand(ctx context.Context, who Caller, req *RotateKeyOnDemandRequest) (*RotateKeyOnDemandResponse, error) {
	var pending *Key
	key, err := s.change(ctx, who, manage("kms:RotateKeyOnDemand", req.KeyID, onlyEnabled), func(tx Tx, key *Key) error {
		now := time.Now()
		if err := s.checkOnDemand(key, now); err != nil {
			return err
		}
		pending = key
		return beginRotation(tx, key, RotationOnDemand, now)
	})
	if err != nil {
		return nil, err
	}
	if err := s.finishRotation(ctx, pending); err != nil {
		s.log.Warn("the rotation of a key has begun and could not be finished yet; it is tried again until it is", "key", key.ID, "err", err)
	}
	who.trail.answer(map[string]string{"keyId": key.ARN})
	return &RotateKeyOnDemandResponse{KeyID: key.ARN}, nil
}

// checkOnDemand refuses a rotation on demand that would get in the way of another one, or be one too many.
func (s *Service) checkOnDemand(key *Key, now time.Time) error {
	pending := key.pending()
	switch {
	case pending != nil && pending.Reason == RotationOnDemand:
		return errorf(Conflict, "An on-demand rotation of this key is currently in progress.")
	case pending != nil || key.Rotation.Days > 0 && !key.Rotation.Next.After(now.Add(automaticSoon)):
		return errorf(Conflict, "An automatic rotation of this key is currently in progress or scheduled to begin within the next 20 minutes.")
	}
	n := 0
	for _, m := range key.Materials {
		if m.Reason == RotationOnDemand {
			n++
		}
	}
	if n >= maxOnDemand {
		return errorf(LimitExceeded, "The on-demand rotations limit has been reached for the given keyId. "+
			"No more on-demand rotations can be performed for this key: %s", s.keyARN(key.Account, key.ID))
	}
	return nil
}

// ListKeyRotationsRequest is the input of ListKeyRotations.
type ListKeyRotationsRequest struct {
	KeyID              string `json:"KeyId" aws:"required,min=1,max=2048"`
	IncludeKeyMaterial string `json:"IncludeKeyMaterial" aws:"enum=ALL_KEY_MATERIAL|ROTATIONS_ONLY"`
	Limit              *int32 `json:"Limit" aws:"min=1,max=1000"`
	Marker             string `json:"Marker" aws:"min=1,max=1024,pattern=marker"`
}

// ListKeyRotationsResponse is the output of ListKeyRotations.
type ListKeyRotationsResponse struct {
	Rotations  []RotationsListEntry `json:"Rotations"`
	NextMarker string               `json:"NextMarker,omitempty"`
	Truncated  bool                 `json:"Truncated"`
}

// RotationsListEntry tells of a key material and the rotation that it was made for [API, RotationsListEntry]. The first material was made for none, and
// the date and the type of a rotation are told when it is finished.
type RotationsListEntry struct {
	KeyID            string       `json:"KeyId"`
	KeyMaterialID    string       `json:"KeyMaterialId"`
	KeyMaterialState string       `json:"KeyMaterialState"`
	RotationDate     *Time        `json:"RotationDate,omitempty"`
	RotationType     RotationType `json:"RotationType,omitempty"`
}

// ListKeyRotations lists the rotations of a key that are finished, or all its key materials, oldest first.
func (s *Service) ListKeyRotations(ctx context.Context, who Caller, req *ListKeyRotationsRequest) (*ListKeyRotationsResponse, error) {
	const list = "ListKeyRotations"
	after, err := parseMarker(list, req.Marker)
	if err != nil {
		return nil, err
	}
	key, err := s.open(ctx, who, manage("kms:ListKeyRotations", req.KeyID, anyState))
	if err != nil {
		return nil, err
	}
	all := []RotationsListEntry{}
	for i := range key.Materials {
		m := &key.Materials[i]
		if req.IncludeKeyMaterial != "ALL_KEY_MATERIAL" && (i == 0 || m == key.pending()) {
			continue
		}
		e := RotationsListEntry{KeyID: key.ARN, KeyMaterialID: key.materialID(m), KeyMaterialState: "NON_CURRENT"}
		switch m {
		case key.current():
			e.KeyMaterialState = "CURRENT"
		case key.pending():
			e.KeyMaterialState = "PENDING_ROTATION"
		}
		if i > 0 && m != key.pending() {
			e.RotationDate, e.RotationType = &Time{m.Created}, m.Reason
		}
		all = append(all, e)
	}
	if after != "" {
		i := slices.IndexFunc(all, func(e RotationsListEntry) bool { return e.KeyMaterialID == after })
		if i < 0 {
			return nil, errorf(InvalidMarker, "Could not deserialize marker '%s'", req.Marker)
		}
		all = all[i+1:]
	}
	resp := &ListKeyRotationsResponse{Rotations: all}
	if limit := pageSize(req.Limit, 100, 1000); len(all) > limit {
		resp.Rotations = all[:limit]
		resp.Truncated = true
		resp.NextMarker = newMarker(list, all[limit-1].KeyMaterialID)
	}
	return resp, nil
}
