package kms

import "context"

// EncryptRequest is the input of Encrypt.
type EncryptRequest struct {
	KeyID               string            `json:"KeyId" aws:"required,min=1,max=2048"`
	Plaintext           []byte            `json:"Plaintext" aws:"required,min=1,max=4096,sensitive"`
	EncryptionContext   map[string]string `json:"EncryptionContext"`
	GrantTokens         []string          `json:"GrantTokens" aws:"max=10,item.min=1,item.max=8192,sensitive"`
	EncryptionAlgorithm string            `json:"EncryptionAlgorithm" aws:"enum=SYMMETRIC_DEFAULT|RSAES_OAEP_SHA_1|RSAES_OAEP_SHA_256|SM2PKE"`
	DryRun              bool              `json:"DryRun"`
}

// Wipe forgets the plaintext.
func (r *EncryptRequest) Wipe() { clear(r.Plaintext) }

// Defaults says what the request means where it says nothing.
func (r *EncryptRequest) Defaults() { setDefault(&r.EncryptionAlgorithm, symmetricDefault) }

// setDefault sets a member that the request left out.
func setDefault(member *string, value string) {
	if *member == "" {
		*member = value
	}
}

// EncryptResponse is the output of Encrypt.
type EncryptResponse struct {
	CiphertextBlob      []byte `json:"CiphertextBlob"`
	KeyID               string `json:"KeyId"`
	EncryptionAlgorithm string `json:"EncryptionAlgorithm"`
}

// Encrypt encrypts up to 4096 bytes under a key.
func (s *Service) Encrypt(ctx context.Context, who Caller, req *EncryptRequest) (*EncryptResponse, error) {
	a := use("kms:Encrypt", req.KeyID, req.EncryptionContext, req.GrantTokens, req.DryRun)
	a.algorithm = req.EncryptionAlgorithm
	key, err := s.open(ctx, who, a)
	if err != nil {
		return nil, err
	}
	blob, err := key.seal(ctx, req.Plaintext, req.EncryptionContext)
	if err != nil {
		return nil, err
	}
	return &EncryptResponse{CiphertextBlob: blob, KeyID: key.ARN, EncryptionAlgorithm: symmetricDefault}, nil
}
