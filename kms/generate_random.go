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
	Plaintext              []byte `json:"Plaintext,omitempty"`
	CiphertextForRecipient []byte `json:"CiphertextForRecipient,omitempty"`
}

// Wipe forgets the bytes.
func (r *GenerateRandomResponse) Wipe() { clear(r.Plaintext) }

// GenerateRandom returns bytes of the device's random number generator, in clear or sealed to a recipient. No key is involved: identity policies decide.
func (s *Service) GenerateRandom(ctx context.Context, who Caller, req *GenerateRandomRequest) (*GenerateRandomResponse, error) {
	attestation, err := s.attested(who, req.Recipient)
	if err != nil {
		return nil, err
	}
	if req.CustomKeyStoreID != "" {
		return nil, errNoKeyStores
	}
	if req.NumberOfBytes == nil {
		return nil, errorf(Validation, "NumberOfBytes is required.")
	}
	if err := s.permit(ctx, who, access{action: "kms:GenerateRandom", attestation: attestation}, "*"); err != nil {
		return nil, err
	}
	p := make([]byte, *req.NumberOfBytes)
	if err := s.device.Random(ctx, p); err != nil {
		return nil, deviceError(err)
	}
	resp := new(GenerateRandomResponse)
	if resp.Plaintext, resp.CiphertextForRecipient, err = deliver(attestation, p); err != nil {
		return nil, err
	}
	return resp, nil
}

// errNoKeyStores refuses what needs a custom key store. This server is a key store already and manages no others.
var errNoKeyStores = errorf(Unsupported, "Custom key stores are not supported.")
