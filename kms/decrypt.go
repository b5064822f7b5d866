package kms

import (
	"context"
	"slices"
)

// ignoreCiphertext is the DryRunModifier that tests the permission alone.
const ignoreCiphertext = "IGNORE_CIPHERTEXT"

// DecryptRequest is the input of Decrypt.
type DecryptRequest struct {
	CiphertextBlob      []byte            `json:"CiphertextBlob" aws:"min=1,max=6144"`
	EncryptionContext   map[string]string `json:"EncryptionContext"`
	GrantTokens         []string          `json:"GrantTokens" aws:"max=10,item.min=1,item.max=8192,sensitive"`
	KeyID               string            `json:"KeyId" aws:"min=1,max=2048"`
	EncryptionAlgorithm string            `json:"EncryptionAlgorithm" aws:"enum=SYMMETRIC_DEFAULT|RSAES_OAEP_SHA_1|RSAES_OAEP_SHA_256|SM2PKE"`
	Recipient           *Recipient        `json:"Recipient"`
	DryRun              bool              `json:"DryRun"`
	DryRunModifiers     []string          `json:"DryRunModifiers" aws:"item.enum=IGNORE_CIPHERTEXT"`
}

// Defaults says what the request means where it says nothing.
func (r *DecryptRequest) Defaults() { setDefault(&r.EncryptionAlgorithm, symmetricDefault) }

// DecryptResponse is the output of Decrypt.
type DecryptResponse struct {
	KeyID                  string `json:"KeyId"`
	Plaintext              []byte `json:"Plaintext,omitempty"`
	EncryptionAlgorithm    string `json:"EncryptionAlgorithm"`
	CiphertextForRecipient []byte `json:"CiphertextForRecipient,omitempty"`
	KeyMaterialID          string `json:"KeyMaterialId,omitempty"`
}

// Wipe forgets the plaintext.
func (r *DecryptResponse) Wipe() { clear(r.Plaintext) }

// Decrypt returns the plaintext of a ciphertext made by any operation here, given the same encryption context, or seals it to a recipient. The key is the one named in the
// ciphertext; a KeyId in the request must name the same one.
func (s *Service) Decrypt(ctx context.Context, who Caller, req *DecryptRequest) (*DecryptResponse, error) {
	attestation, err := s.attested(who, req.Recipient)
	if err != nil {
		return nil, err
	}
	a := use("kms:Decrypt", req.KeyID, req.EncryptionContext, req.GrantTokens, req.DryRun)
	a.algorithm = req.EncryptionAlgorithm
	a.attestation = attestation
	key, h, sealed, err := s.openSource(ctx, who, a, source{
		blob: req.CiphertextBlob, blobName: "ciphertextBlob", keyName: "KeyId",
		dryRun: req.DryRun, modifiers: req.DryRunModifiers,
	})
	if err != nil {
		return nil, err
	}
	plaintext, err := key.unseal(ctx, h, sealed, req.EncryptionContext)
	if err != nil {
		return nil, err
	}
	resp := &DecryptResponse{KeyID: key.ARN, EncryptionAlgorithm: symmetricDefault}
	if resp.Plaintext, resp.CiphertextForRecipient, err = deliver(attestation, plaintext); err != nil {
		return nil, err
	}
	if attestation == nil { // [API] omits it from attested answers
		resp.KeyMaterialID = key.materialID(key.material(h.material))
	}
	return resp, nil
}

// A source is the ciphertext that Decrypt and ReEncrypt begin with, and the request members that say how to take it.
type source struct {
	blob      []byte
	blobName  string // member names, for refusals
	keyName   string
	dryRun    bool
	modifiers []string
}

// openSource checks a source in the order that AWS KMS does and passes the gate for its key, for which a is the access. With IGNORE_CIPHERTEXT,
// which needs a dry run, there is nothing to unseal: the caller's last gate ends the dry run.
func (s *Service) openSource(ctx context.Context, who Caller, a access, src source) (*openKey, header, []byte, error) {
	fail := func(err error) (*openKey, header, []byte, error) { return nil, header{}, nil, err }
	ignore := slices.Contains(src.modifiers, ignoreCiphertext)
	if ignore && !src.dryRun {
		return fail(errorf(Validation, "DryRunModifiers can only be specified when DryRun is true."))
	}
	// The ciphertext of an asymmetric key carries no key id. No key here is asymmetric, so with such an algorithm the gate refuses.
	if ignore || a.algorithm != "" && a.algorithm != symmetricDefault {
		if a.keyID == "" {
			return fail(errorf(Validation, "%s must not be null", src.keyName))
		}
		key, err := s.open(ctx, who, a)
		return key, header{}, nil, err
	}
	if len(src.blob) == 0 {
		return fail(errorf(Validation, "1 validation error detected: Value null at '%s' failed to satisfy constraint: Member must not be null", src.blobName))
	}
	h, sealed, err := parseCiphertext(src.blob)
	if err != nil {
		return fail(err)
	}
	key, err := s.openCiphertext(ctx, who, a, h)
	return key, h, sealed, err
}
