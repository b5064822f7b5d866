package kms

import "context"

// GetKeyLastUsageRequest is the input of GetKeyLastUsage.
type GetKeyLastUsageRequest struct {
	KeyID string `json:"KeyId" aws:"required,min=1,max=2048"`
}

// GetKeyLastUsageResponse is the output of GetKeyLastUsage.
type GetKeyLastUsageResponse struct {
	KeyID             string           `json:"KeyId"`
	KeyLastUsage      KeyLastUsageData `json:"KeyLastUsage"`
	TrackingStartDate Time             `json:"TrackingStartDate"`
	KeyCreationDate   Time             `json:"KeyCreationDate"`
}

// KeyLastUsageData tells of the last successful use of a key. It is empty for a key that was not used since uses are kept [API, KeyLastUsageData].
type KeyLastUsageData struct {
	Operation         string `json:"Operation,omitempty"`
	Timestamp         *Time  `json:"Timestamp,omitempty"`
	CloudTrailEventID string `json:"CloudTrailEventId,omitempty"`
	KmsRequestID      string `json:"KmsRequestId,omitempty"`
}

// GetKeyLastUsage tells when a key was last used, and since when that is known. A use by another node is known after it has written it to the store.
func (s *Service) GetKeyLastUsage(ctx context.Context, who Caller, req *GetKeyLastUsageRequest) (*GetKeyLastUsageResponse, error) {
	key, err := s.open(ctx, who, manage("kms:GetKeyLastUsage", req.KeyID, anyState))
	if err != nil {
		return nil, err
	}
	resp := &GetKeyLastUsageResponse{KeyID: key.ARN, TrackingStartDate: Time{s.usedSince}, KeyCreationDate: Time{key.Created}}
	if key.Created.After(s.usedSince) {
		resp.TrackingStartDate = resp.KeyCreationDate
	}
	use, used := s.usage.last(key.ID)
	var stored *KeyUse
	err = s.store.View(ctx, func(tx Tx) (err error) {
		stored, err = tx.KeyUse(key.ID)
		return err
	})
	switch {
	case err == nil && !(used && use.Time.After(stored.Time)):
		use, used = *stored, true
	case err != nil && !isNotStored(err):
		return nil, err
	}
	if used {
		resp.KeyLastUsage = KeyLastUsageData{
			Operation:         use.Operation,
			Timestamp:         &Time{use.Time},
			CloudTrailEventID: use.EventID,
			KmsRequestID:      use.RequestID,
		}
	}
	return resp, nil
}
