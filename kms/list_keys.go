package kms

import "context"

// ListKeysRequest is the input of ListKeys.
type ListKeysRequest struct {
	Limit  *int32 `json:"Limit" aws:"min=1,max=1000"`
	Marker string `json:"Marker" aws:"min=1,max=1024,pattern=marker"`
}

// ListKeysResponse is the output of ListKeys.
type ListKeysResponse struct {
	Keys       []KeyListEntry `json:"Keys"`
	NextMarker string         `json:"NextMarker,omitempty"`
	Truncated  bool           `json:"Truncated"`
}

// KeyListEntry names a key in a list.
type KeyListEntry struct {
	KeyID  string `json:"KeyId"`
	KeyArn string `json:"KeyArn"`
}

// ListKeys lists the keys of the caller's account, in any state, in the order of their ids.
func (s *Service) ListKeys(ctx context.Context, who Caller, req *ListKeysRequest) (*ListKeysResponse, error) {
	if err := s.permit(ctx, who, access{action: "kms:ListKeys"}, "*"); err != nil {
		return nil, err
	}
	var after KeyID
	position, err := parseMarker("ListKeys", req.Marker)
	if err != nil {
		return nil, err
	}
	if position != "" {
		if after, err = ParseKeyID(position); err != nil {
			return nil, errorf(InvalidMarker, "Could not deserialize marker '%s'", req.Marker)
		}
	}
	limit := pageSize(req.Limit, 100, 1000)
	var ids []KeyID
	err = s.store.View(ctx, func(tx Tx) (err error) {
		ids, err = tx.Keys(who.Account, after, limit+1)
		return err
	})
	if err != nil {
		return nil, err
	}
	resp := &ListKeysResponse{Keys: []KeyListEntry{}}
	if len(ids) > limit {
		ids = ids[:limit]
		resp.Truncated = true
		resp.NextMarker = newMarker("ListKeys", ids[limit-1].String())
	}
	for _, id := range ids {
		resp.Keys = append(resp.Keys, KeyListEntry{KeyID: id.String(), KeyArn: s.keyARN(who.Account, id)})
	}
	return resp, nil
}
