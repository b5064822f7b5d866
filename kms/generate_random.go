package kms

import "context"

// GenerateRandomRequest is the input of GenerateRandom.
type GenerateRandomRequest struct {
	NumberOfBytes    *int32     `json:"NumberOfBytes" aws:"min=1,max=1024"`
	CustomKeyStoreID string     `json:"CustomKeyStoreId" aws:"min=1,max=64"`
	Recipient        *Recipient `json:"Recipient"`
}

// GenerateRandomResponse is the output of GenerateRandom.
type GenerateRandomResponse struct {
	Plaintext []byte `json:"Plaintext,omitempty"`
}

// Wipe forgets the bytes.
func (r *GenerateRandomResponse) Wipe() { clear(r.Plaintext) }

// GenerateRandom returns bytes of the device's random number generator. No key is involved: identity policies decide.
func (s *Service) GenerateRandom(ctx context.Context, who Caller, req *GenerateRandomRequest) (*GenerateRandomResponse, error) {
	if req.CustomKeyStoreID != "" {
		return nil, errNoKeyStores
	}
	if req.NumberOfBytes == nil {
		return nil, errorf(Validation, "NumberOfBytes is required.")
	}
	if err := refuseRecipient(req.Recipient); err != nil {
		return nil, err
	}
	if err := s.permit(ctx, who, access{action: "kms:GenerateRandom"}, "*"); err != nil {
		return nil, err
	}
	p := make([]byte, *req.NumberOfBytes)
	if err := s.device.Random(ctx, p); err != nil {
		return nil, deviceError(err)
	}
	return &GenerateRandomResponse{Plaintext: p}, nil
}

// errNoKeyStores refuses what needs a custom key store. This server is a key store already and manages no others.
var errNoKeyStores = errorf(Unsupported, "Custom key stores are not supported.")
