package kms

import "context"

// GenerateDataKeyRequest is the input of GenerateDataKey.
type GenerateDataKeyRequest struct {
	KeyID             string            `json:"KeyId" aws:"required,min=1,max=2048"`
	EncryptionContext map[string]string `json:"EncryptionContext"`
	NumberOfBytes     *int32            `json:"NumberOfBytes" aws:"min=1,max=1024"`
	KeySpec           string            `json:"KeySpec" aws:"enum=AES_256|AES_128"`
	GrantTokens       []string          `json:"GrantTokens" aws:"max=10,item.min=1,item.max=8192,sensitive"`
	Recipient         *Recipient        `json:"Recipient"`
	DryRun            bool              `json:"DryRun"`
}

// GenerateDataKeyResponse is the output of GenerateDataKey.
type GenerateDataKeyResponse struct {
	CiphertextBlob         []byte `json:"CiphertextBlob"`
	Plaintext              []byte `json:"Plaintext,omitempty"`
	KeyID                  string `json:"KeyId"`
	CiphertextForRecipient []byte `json:"CiphertextForRecipient,omitempty"`
	KeyMaterialID          string `json:"KeyMaterialId,omitempty"`
}

// Wipe forgets the plaintext.
func (r *GenerateDataKeyResponse) Wipe() { clear(r.Plaintext) }

// GenerateDataKey returns a new random key from the device's generator, in clear or sealed to a recipient, and encrypted under the KMS key.
func (s *Service) GenerateDataKey(ctx context.Context, who Caller, req *GenerateDataKeyRequest) (*GenerateDataKeyResponse, error) {
	return s.dataKey(ctx, who, "kms:GenerateDataKey", req)
}

// GenerateDataKeyWithoutPlaintextRequest is the input of GenerateDataKeyWithoutPlaintext.
type GenerateDataKeyWithoutPlaintextRequest struct {
	KeyID             string            `json:"KeyId" aws:"required,min=1,max=2048"`
	EncryptionContext map[string]string `json:"EncryptionContext"`
	KeySpec           string            `json:"KeySpec" aws:"enum=AES_256|AES_128"`
	NumberOfBytes     *int32            `json:"NumberOfBytes" aws:"min=1,max=1024"`
	GrantTokens       []string          `json:"GrantTokens" aws:"max=10,item.min=1,item.max=8192,sensitive"`
	DryRun            bool              `json:"DryRun"`
}

// GenerateDataKeyWithoutPlaintextResponse is the output of GenerateDataKeyWithoutPlaintext.
type GenerateDataKeyWithoutPlaintextResponse struct {
	CiphertextBlob []byte `json:"CiphertextBlob"`
	KeyID          string `json:"KeyId"`
	KeyMaterialID  string `json:"KeyMaterialId"`
}

// GenerateDataKeyWithoutPlaintext is GenerateDataKey for a key that is needed only later.
func (s *Service) GenerateDataKeyWithoutPlaintext(ctx context.Context, who Caller, req *GenerateDataKeyWithoutPlaintextRequest) (*GenerateDataKeyWithoutPlaintextResponse, error) {
	resp, err := s.dataKey(ctx, who, "kms:GenerateDataKeyWithoutPlaintext", &GenerateDataKeyRequest{
		KeyID:             req.KeyID,
		EncryptionContext: req.EncryptionContext,
		NumberOfBytes:     req.NumberOfBytes,
		KeySpec:           req.KeySpec,
		GrantTokens:       req.GrantTokens,
		DryRun:            req.DryRun,
	})
	if err != nil {
		return nil, err
	}
	resp.Wipe()
	return &GenerateDataKeyWithoutPlaintextResponse{
		CiphertextBlob: resp.CiphertextBlob,
		KeyID:          resp.KeyID,
		KeyMaterialID:  resp.KeyMaterialID,
	}, nil
}

// dataKey is both operations; they differ in the permission they need and in what of the result they show.
func (s *Service) dataKey(ctx context.Context, who Caller, action string, req *GenerateDataKeyRequest) (*GenerateDataKeyResponse, error) {
	attestation, err := s.attested(who, req.Recipient)
	if err != nil {
		return nil, err
	}
	a := use(action, req.KeyID, req.EncryptionContext, req.GrantTokens, req.DryRun)
	a.attestation = attestation
	a.check = func(*Key) error {
		if (req.NumberOfBytes == nil) == (req.KeySpec == "") {
			return errorf(Validation, "Please specify either number of bytes or key spec.")
		}
		return nil
	}
	key, err := s.open(ctx, who, a)
	if err != nil {
		return nil, err
	}
	size := 32 // AES_256
	switch {
	case req.NumberOfBytes != nil:
		size = int(*req.NumberOfBytes)
	case req.KeySpec == "AES_128":
		size = 16
	}
	plaintext := make([]byte, size)
	if err := s.device.Random(ctx, plaintext); err != nil {
		return nil, deviceError(err)
	}
	blob, err := key.seal(ctx, plaintext, req.EncryptionContext)
	if err != nil {
		clear(plaintext)
		return nil, err
	}
	resp := &GenerateDataKeyResponse{CiphertextBlob: blob, KeyID: key.ARN}
	if resp.Plaintext, resp.CiphertextForRecipient, err = deliver(attestation, plaintext); err != nil {
		return nil, err
	}
	if attestation == nil { // [API] omits it from attested answers
		resp.KeyMaterialID = key.materialID(key.current())
	}
	return resp, nil
}
