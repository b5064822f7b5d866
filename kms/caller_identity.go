package kms

import "context"

// A CallerIdentity is who a caller is, as STS tells (AWS STS API Reference, GetCallerIdentity).
type CallerIdentity struct {
	Account string
	ARN     string
	UserID  string
}

// GetCallerIdentity tells a caller who it is. No permission is needed, and no policy can deny it.
func (s *Service) GetCallerIdentity(ctx context.Context, who Caller) (*CallerIdentity, error) {
	id, err := s.identity(ctx, who)
	if err != nil {
		return nil, err
	}
	userID := id.id
	if who.Role != "" {
		userID += ":" + sessionName(who.Principal)
	}
	return &CallerIdentity{Account: who.Account, ARN: who.Principal, UserID: userID}, nil
}
