package kms

import (
	"context"
	"errors"
	"strconv"
	"time"
)

// Empty is the output of an operation that has none.
type Empty struct{}

// EnableKeyRequest is the input of EnableKey.
type EnableKeyRequest struct {
	KeyID string `json:"KeyId" aws:"required,min=1,max=2048"`
}

// EnableKey lets a disabled key be used again. For an enabled key it changes nothing.
func (s *Service) EnableKey(ctx context.Context, who Caller, req *EnableKeyRequest) (*Empty, error) {
	_, err := s.changeState(ctx, who, manage("kms:EnableKey", req.KeyID, notPending), StateEnabled, time.Time{})
	return &Empty{}, err
}

// DisableKeyRequest is the input of DisableKey.
type DisableKeyRequest struct {
	KeyID string `json:"KeyId" aws:"required,min=1,max=2048"`
}

// DisableKey keeps a key from being used. For a disabled key it changes nothing.
func (s *Service) DisableKey(ctx context.Context, who Caller, req *DisableKeyRequest) (*Empty, error) {
	_, err := s.changeState(ctx, who, manage("kms:DisableKey", req.KeyID, notPending), StateDisabled, time.Time{})
	return &Empty{}, err
}

// ScheduleKeyDeletionRequest is the input of ScheduleKeyDeletion.
type ScheduleKeyDeletionRequest struct {
	KeyID               string `json:"KeyId" aws:"required,min=1,max=2048"`
	PendingWindowInDays *int32 `json:"PendingWindowInDays" aws:"min=7,max=30"`
}

// ScheduleKeyDeletionResponse is the output of ScheduleKeyDeletion.
type ScheduleKeyDeletionResponse struct {
	KeyID               string   `json:"KeyId"`
	DeletionDate        Time     `json:"DeletionDate"`
	KeyState            KeyState `json:"KeyState"`
	PendingWindowInDays int32    `json:"PendingWindowInDays"`
}

// ScheduleKeyDeletion makes a key unusable now and has it destroyed, with its material in the device, at the end of the window.
// Until then CancelKeyDeletion saves it.
func (s *Service) ScheduleKeyDeletion(ctx context.Context, who Caller, req *ScheduleKeyDeletionRequest) (*ScheduleKeyDeletionResponse, error) {
	days := int32(30)
	if req.PendingWindowInDays != nil {
		days = *req.PendingWindowInDays
	}
	date := time.Now().UTC().Truncate(time.Millisecond).AddDate(0, 0, int(days))
	a := manage("kms:ScheduleKeyDeletion", req.KeyID, notPending)
	a.conditions = []condition{{"kms:schedulekeydeletionpendingwindowindays", []string{strconv.Itoa(int(days))}}}
	key, err := s.changeState(ctx, who, a, StatePendingDeletion, date)
	if err != nil {
		return nil, err
	}
	resp := &ScheduleKeyDeletionResponse{
		KeyID:               key.ARN,
		DeletionDate:        Time{date},
		KeyState:            StatePendingDeletion,
		PendingWindowInDays: days,
	}
	who.trail.answer(map[string]any{"keyId": resp.KeyID, "keyState": resp.KeyState, "pendingWindowInDays": days,
		"deletionDate": date.Format(recordDate)})
	return resp, nil
}

// CancelKeyDeletionRequest is the input of CancelKeyDeletion.
type CancelKeyDeletionRequest struct {
	KeyID string `json:"KeyId" aws:"required,min=1,max=2048"`
}

// CancelKeyDeletionResponse is the output of CancelKeyDeletion.
type CancelKeyDeletionResponse struct {
	KeyID string `json:"KeyId"`
}

// CancelKeyDeletion saves a key that is pending deletion. It is disabled then.
func (s *Service) CancelKeyDeletion(ctx context.Context, who Caller, req *CancelKeyDeletionRequest) (*CancelKeyDeletionResponse, error) {
	key, err := s.changeState(ctx, who, manage("kms:CancelKeyDeletion", req.KeyID, onlyPending), StateDisabled, time.Time{})
	if err != nil {
		return nil, err
	}
	who.trail.answer(map[string]string{"keyId": key.ARN})
	return &CancelKeyDeletionResponse{KeyID: key.ARN}, nil
}

// recordDate is how CloudTrail writes dates inside a record.
const recordDate = "Jan _2, 2006 15:04:05 PM"

// changeState passes the gate and moves the key to another state. The change names the state that the gate saw; where another request was
// quicker, it passes the gate again.
func (s *Service) changeState(ctx context.Context, who Caller, a access, to KeyState, deletion time.Time) (*openKey, error) {
	for {
		key, err := s.open(ctx, who, a)
		if err != nil {
			return nil, err
		}
		if key.State == to {
			return key, nil
		}
		err = s.update(ctx, func(tx Tx) error {
			return tx.SetState(key.ID, key.State, to, deletion)
		})
		switch {
		case err == nil:
			return key, nil
		case !errors.Is(err, ErrConflict) && !isNotStored(err):
			return nil, err
		}
		key.outdated()
	}
}

// change passes the gate and changes the key, by f, which is given the key as it is in the transaction: in the state that the gate saw. Where another
// request was quicker to change the state, it passes the gate again.
func (s *Service) change(ctx context.Context, who Caller, a access, f func(tx Tx, now *Key) error) (*openKey, error) {
	for {
		key, err := s.open(ctx, who, a)
		if err != nil {
			return nil, err
		}
		err = s.update(ctx, func(tx Tx) error {
			now, err := tx.Key(key.ID)
			if err == nil && now.State != key.State {
				err = ErrConflict
			}
			if err != nil {
				return err
			}
			return f(tx, now)
		})
		if !errors.Is(err, ErrConflict) && !isNotStored(err) {
			return key, err
		}
		key.outdated()
	}
}

// UpdateKeyDescriptionRequest is the input of UpdateKeyDescription.
type UpdateKeyDescriptionRequest struct {
	KeyID       string `json:"KeyId" aws:"required,min=1,max=2048"`
	Description string `json:"Description" aws:"required,max=8192"`
}

// UpdateKeyDescription replaces a key's description.
func (s *Service) UpdateKeyDescription(ctx context.Context, who Caller, req *UpdateKeyDescriptionRequest) (*Empty, error) {
	_, err := s.change(ctx, who, manage("kms:UpdateKeyDescription", req.KeyID, notPending), func(tx Tx, now *Key) error {
		return tx.SetDescription(now.ID, req.Description)
	})
	return &Empty{}, err
}
