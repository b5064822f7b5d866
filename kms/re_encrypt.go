package kms

import "context"

// ReEncryptRequest is the input of ReEncrypt.
type ReEncryptRequest struct {
	CiphertextBlob                 []byte            `json:"CiphertextBlob" aws:"min=1,max=6144"`
	SourceEncryptionContext        map[string]string `json:"SourceEncryptionContext"`
	SourceKeyID                    string            `json:"SourceKeyId" aws:"min=1,max=2048"`
	DestinationKeyID               string            `json:"DestinationKeyId" aws:"required,min=1,max=2048"`
	DestinationEncryptionContext   map[string]string `json:"DestinationEncryptionContext"`
	SourceEncryptionAlgorithm      string            `json:"SourceEncryptionAlgorithm" aws:"enum=SYMMETRIC_DEFAULT|RSAES_OAEP_SHA_1|RSAES_OAEP_SHA_256|SM2PKE"`
	DestinationEncryptionAlgorithm string            `json:"DestinationEncryptionAlgorithm" aws:"enum=SYMMETRIC_DEFAULT|RSAES_OAEP_SHA_1|RSAES_OAEP_SHA_256|SM2PKE"`
	GrantTokens                    []string          `json:"GrantTokens" aws:"max=10,item.min=1,item.max=8192"`
	DryRun                         bool              `json:"DryRun"`
	DryRunModifiers                []string          `json:"DryRunModifiers" aws:"item.enum=IGNORE_CIPHERTEXT"`
}

// ReEncryptResponse is the output of ReEncrypt.
type ReEncryptResponse struct {
	CiphertextBlob                 []byte `json:"CiphertextBlob"`
	SourceKeyID                    string `json:"SourceKeyId"`
	KeyID                          string `json:"KeyId"`
	SourceEncryptionAlgorithm      string `json:"SourceEncryptionAlgorithm"`
	DestinationEncryptionAlgorithm string `json:"DestinationEncryptionAlgorithm"`
	SourceKeyMaterialID            string `json:"SourceKeyMaterialId"`
	DestinationKeyMaterialID       string `json:"DestinationKeyMaterialId"`
}

// ReEncrypt decrypts a ciphertext and encrypts the plaintext again, under another key or another encryption context, without showing it to the
// caller. All that concerns the source is checked before the destination.
func (s *Service) ReEncrypt(ctx context.Context, who Caller, req *ReEncryptRequest) (*ReEncryptResponse, error) {
	from, h, sealed, err := s.openSource(ctx, who, access{
		action:      "kms:ReEncryptFrom",
		keyID:       req.SourceKeyID,
		forms:       cryptoForms,
		grantTokens: req.GrantTokens,
		states:      onlyEnabled,
		algorithm:   req.SourceEncryptionAlgorithm,
	}, source{
		blob: req.CiphertextBlob, blobName: "ciphertextBlob", keyName: "SourceKeyId",
		dryRun: req.DryRun, modifiers: req.DryRunModifiers,
	})
	if err != nil {
		return nil, err
	}
	to, err := s.open(ctx, who, access{
		action:      "kms:ReEncryptTo",
		keyID:       req.DestinationKeyID,
		forms:       cryptoForms,
		grantTokens: req.GrantTokens,
		states:      onlyEnabled,
		dryRun:      req.DryRun,
		algorithm:   req.DestinationEncryptionAlgorithm,
	})
	if err != nil {
		return nil, err
	}
	plaintext, err := from.unseal(ctx, h, sealed, req.SourceEncryptionContext)
	if err != nil {
		return nil, err
	}
	defer clear(plaintext)
	blob, err := to.seal(ctx, plaintext, req.DestinationEncryptionContext)
	if err != nil {
		return nil, err
	}
	return &ReEncryptResponse{
		CiphertextBlob:                 blob,
		SourceKeyID:                    from.ARN,
		KeyID:                          to.ARN,
		SourceEncryptionAlgorithm:      symmetricDefault,
		DestinationEncryptionAlgorithm: symmetricDefault,
		SourceKeyMaterialID:            from.materialID(from.material(h.material)),
		DestinationKeyMaterialID:       to.materialID(to.current()),
	}, nil
}
