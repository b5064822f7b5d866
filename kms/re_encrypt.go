package kms

import (
	"context"
	"slices"
	"strconv"
)

// ReEncryptRequest is the input of ReEncrypt.
type ReEncryptRequest struct {
	CiphertextBlob                 []byte            `json:"CiphertextBlob" aws:"min=1,max=6144"`
	SourceEncryptionContext        map[string]string `json:"SourceEncryptionContext"`
	SourceKeyID                    string            `json:"SourceKeyId" aws:"min=1,max=2048"`
	DestinationKeyID               string            `json:"DestinationKeyId" aws:"required,min=1,max=2048"`
	DestinationEncryptionContext   map[string]string `json:"DestinationEncryptionContext"`
	SourceEncryptionAlgorithm      string            `json:"SourceEncryptionAlgorithm" aws:"enum=SYMMETRIC_DEFAULT|RSAES_OAEP_SHA_1|RSAES_OAEP_SHA_256|SM2PKE"`
	DestinationEncryptionAlgorithm string            `json:"DestinationEncryptionAlgorithm" aws:"enum=SYMMETRIC_DEFAULT|RSAES_OAEP_SHA_1|RSAES_OAEP_SHA_256|SM2PKE"`
	GrantTokens                    []string          `json:"GrantTokens" aws:"max=10,item.min=1,item.max=8192,sensitive"`
	DryRun                         bool              `json:"DryRun"`
	DryRunModifiers                []string          `json:"DryRunModifiers" aws:"item.enum=IGNORE_CIPHERTEXT"`
}

// Defaults says what the request means where it says nothing.
func (r *ReEncryptRequest) Defaults() {
	setDefault(&r.SourceEncryptionAlgorithm, symmetricDefault)
	setDefault(&r.DestinationEncryptionAlgorithm, symmetricDefault)
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
	// A dry run ends at the last gate, and so not at the first.
	a := use("kms:ReEncryptFrom", req.SourceKeyID, req.SourceEncryptionContext, req.GrantTokens, false)
	a.algorithm = req.SourceEncryptionAlgorithm
	b := use("kms:ReEncryptTo", req.DestinationKeyID, req.DestinationEncryptionContext, req.GrantTokens, req.DryRun)
	b.algorithm = req.DestinationEncryptionAlgorithm
	// The destination is found first, because conditions on either key ask whether they are one, but refused in its turn.
	// One that is not there is not the source.
	const same = "kms:reencryptonsamekey"
	b.conditions = []condition{{same, []string{"false"}}}
	destination, missing := s.resolve(ctx, who, &b)
	read := req.CiphertextBlob
	if slices.Contains(req.DryRunModifiers, ignoreCiphertext) {
		read = nil
	}
	a.conditions = []condition{{same, []string{strconv.FormatBool(missing == nil && s.isSource(ctx, who, a, read, destination))}}}
	b.conditions = a.conditions

	from, h, sealed, err := s.openSource(ctx, who, a, source{
		blob: req.CiphertextBlob, blobName: "ciphertextBlob", keyName: "SourceKeyId",
		dryRun: req.DryRun, modifiers: req.DryRunModifiers,
	})
	if err != nil {
		return nil, err
	}
	if missing != nil {
		return nil, missing
	}
	to, err := s.openResolved(ctx, who, b, destination)
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

// isSource reports whether a ReEncrypt is from a key to itself: from the key that the ciphertext names, or without a ciphertext from the one that the request does.
func (s *Service) isSource(ctx context.Context, who Caller, from access, blob []byte, destination *Key) bool {
	if h, _, err := parseCiphertext(blob); err == nil {
		return h.key == destination.ID
	}
	source, err := s.resolve(ctx, who, &from)
	return err == nil && source.ID == destination.ID
}
