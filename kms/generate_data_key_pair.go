package kms

import (
	"context"
	"fmt"
	"sync"
	"time"

	"strongroom/keyspec"
)

// GenerateDataKeyPairRequest is the input of GenerateDataKeyPair.
type GenerateDataKeyPairRequest struct {
	EncryptionContext map[string]string `json:"EncryptionContext"`
	KeyID             string            `json:"KeyId" aws:"required,min=1,max=2048"`
	KeyPairSpec       keyspec.Spec      `json:"KeyPairSpec" aws:"required"`
	GrantTokens       []string          `json:"GrantTokens" aws:"max=10,item.min=1,item.max=8192,sensitive"`
	Recipient         *Recipient        `json:"Recipient"`
	DryRun            bool              `json:"DryRun"`
}

// GenerateDataKeyPairResponse is the output of GenerateDataKeyPair. PublicKey is a SubjectPublicKeyInfo (RFC 5280), PrivateKeyPlaintext
// a PKCS #8 PrivateKeyInfo (RFC 5958), both in DER.
type GenerateDataKeyPairResponse struct {
	PrivateKeyCiphertextBlob []byte       `json:"PrivateKeyCiphertextBlob"`
	PrivateKeyPlaintext      []byte       `json:"PrivateKeyPlaintext,omitempty"`
	PublicKey                []byte       `json:"PublicKey"`
	KeyID                    string       `json:"KeyId"`
	KeyPairSpec              keyspec.Spec `json:"KeyPairSpec"`
	CiphertextForRecipient   []byte       `json:"CiphertextForRecipient,omitempty"`
	KeyMaterialID            string       `json:"KeyMaterialId,omitempty"`
}

// Wipe forgets the private key.
func (r *GenerateDataKeyPairResponse) Wipe() { clear(r.PrivateKeyPlaintext) }

// GenerateDataKeyPair makes a key pair on the host and returns its public key, its private key in clear or sealed to a recipient, and its private key sealed by the KMS key inside the
// device, bound to the encryption context. Nothing of the pair is kept; Decrypt gives the private key back.
func (s *Service) GenerateDataKeyPair(ctx context.Context, who Caller, req *GenerateDataKeyPairRequest) (*GenerateDataKeyPairResponse, error) {
	return s.dataKeyPair(ctx, who, "kms:GenerateDataKeyPair", req)
}

// GenerateDataKeyPairWithoutPlaintextRequest is the input of GenerateDataKeyPairWithoutPlaintext.
type GenerateDataKeyPairWithoutPlaintextRequest struct {
	EncryptionContext map[string]string `json:"EncryptionContext"`
	KeyID             string            `json:"KeyId" aws:"required,min=1,max=2048"`
	KeyPairSpec       keyspec.Spec      `json:"KeyPairSpec" aws:"required"`
	GrantTokens       []string          `json:"GrantTokens" aws:"max=10,item.min=1,item.max=8192,sensitive"`
	DryRun            bool              `json:"DryRun"`
}

// GenerateDataKeyPairWithoutPlaintextResponse is the output of GenerateDataKeyPairWithoutPlaintext.
type GenerateDataKeyPairWithoutPlaintextResponse struct {
	PrivateKeyCiphertextBlob []byte       `json:"PrivateKeyCiphertextBlob"`
	PublicKey                []byte       `json:"PublicKey"`
	KeyID                    string       `json:"KeyId"`
	KeyPairSpec              keyspec.Spec `json:"KeyPairSpec"`
	KeyMaterialID            string       `json:"KeyMaterialId"`
}

// GenerateDataKeyPairWithoutPlaintext is GenerateDataKeyPair for a private key that is needed only later.
func (s *Service) GenerateDataKeyPairWithoutPlaintext(ctx context.Context, who Caller, req *GenerateDataKeyPairWithoutPlaintextRequest) (*GenerateDataKeyPairWithoutPlaintextResponse, error) {
	resp, err := s.dataKeyPair(ctx, who, "kms:GenerateDataKeyPairWithoutPlaintext", &GenerateDataKeyPairRequest{
		EncryptionContext: req.EncryptionContext,
		KeyID:             req.KeyID,
		KeyPairSpec:       req.KeyPairSpec,
		GrantTokens:       req.GrantTokens,
		DryRun:            req.DryRun,
	})
	if err != nil {
		return nil, err
	}
	resp.Wipe()
	return &GenerateDataKeyPairWithoutPlaintextResponse{
		PrivateKeyCiphertextBlob: resp.PrivateKeyCiphertextBlob,
		PublicKey:                resp.PublicKey,
		KeyID:                    resp.KeyID,
		KeyPairSpec:              resp.KeyPairSpec,
		KeyMaterialID:            resp.KeyMaterialID,
	}, nil
}

// dataKeyPair is both operations; they differ in the permission they need and in what of the result they show.
func (s *Service) dataKeyPair(ctx context.Context, who Caller, action string, req *GenerateDataKeyPairRequest) (*GenerateDataKeyPairResponse, error) {
	if err := s.throttle(who, classOfPair(req.KeyPairSpec)); err != nil {
		return nil, err
	}
	attestation, err := s.attested(who, req.Recipient)
	if err != nil {
		return nil, err
	}
	a := use(action, req.KeyID, req.EncryptionContext, req.GrantTokens, req.DryRun)
	a.conditions = []condition{{"kms:datakeypairspec", []string{req.KeyPairSpec.String()}}}
	a.attestation = attestation
	a.check = func(*Key) error {
		if req.KeyPairSpec == keyspec.SM2 && !s.sm2 {
			return errNoSM2
		}
		return nil
	}
	key, err := s.open(ctx, who, a)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	pair, err := s.makePair(ctx, who, req.KeyPairSpec)
	if err != nil {
		return nil, err
	}
	// Who lost the right to the key while the primes were searched for does not get them under it.
	if time.Since(began) > trustSpan {
		if key, err = s.open(ctx, who, a); err != nil {
			pair.Wipe()
			return nil, err
		}
	}
	blob, err := key.seal(ctx, pair.Private, req.EncryptionContext)
	if err != nil {
		pair.Wipe()
		return nil, err
	}
	plaintext, sealed, err := deliver(attestation, pair.Private)
	if err != nil {
		return nil, err
	}
	return &GenerateDataKeyPairResponse{
		PrivateKeyCiphertextBlob: blob,
		PrivateKeyPlaintext:      plaintext,
		CiphertextForRecipient:   sealed,
		PublicKey:                pair.Public,
		KeyID:                    key.ARN,
		KeyPairSpec:              req.KeyPairSpec,
		KeyMaterialID:            key.materialID(key.current()),
	}, nil
}

var errNoSM2 = errorf(Unsupported, "KeySpec SM2 is not supported in this Region")

// makePair makes a pair, or has one made. A search for primes here waits for its turn and, once begun, cannot be interrupted, so a caller who went
// away is noticed before it.
func (s *Service) makePair(ctx context.Context, who Caller, spec keyspec.Spec) (*keyspec.Pair, error) {
	if spec.SearchesPrimes() {
		leave, err := s.searches.enter(who.owner())
		if err != nil {
			return nil, err
		}
		defer leave()
	}
	if s.pairs != nil {
		pair, err := s.pairs.Get(ctx, who.owner(), spec)
		if err != nil {
			return nil, fmt.Errorf("get a %s pair: %w", spec, err)
		}
		return pair, nil
	}
	if spec.SearchesPrimes() {
		select {
		case s.primes <- struct{}{}:
			defer func() { <-s.primes }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	pair, err := spec.Generate()
	if err != nil {
		return nil, fmt.Errorf("generate a %s pair: %w", spec, err)
	}
	return pair, nil
}

// maxSearches is how many searches for primes one principal may have running and waiting. More would only make others wait for it.
const maxSearches = 64

// searches counts searches for primes by principal. It is safe for concurrent use.
type searches struct {
	mu sync.Mutex // held for a look into a map
	of map[string]int
}

// enter counts one more search of a principal, until leave is called.
func (s *searches) enter(principal string) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of[principal] >= maxSearches {
		return nil, errThrottled
	}
	if s.of == nil {
		s.of = make(map[string]int)
	}
	s.of[principal]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.of[principal]--; s.of[principal] == 0 {
			delete(s.of, principal)
		}
	}, nil
}
