package kms

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"time"

	"strongroom/hsm"
)

// CreateKeyRequest is the input of CreateKey.
type CreateKeyRequest struct {
	Policy                         string `json:"Policy" aws:"min=1,max=131072,pattern=policy"`
	Description                    string `json:"Description" aws:"max=8192"`
	KeyUsage                       string `json:"KeyUsage" aws:"enum=SIGN_VERIFY|ENCRYPT_DECRYPT|GENERATE_VERIFY_MAC|KEY_AGREEMENT"`
	CustomerMasterKeySpec          string `json:"CustomerMasterKeySpec" aws:"enum=RSA_2048|RSA_3072|RSA_4096|ECC_NIST_P256|ECC_NIST_P384|ECC_NIST_P521|ECC_SECG_P256K1|SYMMETRIC_DEFAULT|HMAC_224|HMAC_256|HMAC_384|HMAC_512|SM2"`
	KeySpec                        string `json:"KeySpec" aws:"enum=RSA_2048|RSA_3072|RSA_4096|ECC_NIST_P256|ECC_NIST_P384|ECC_NIST_P521|ECC_SECG_P256K1|SYMMETRIC_DEFAULT|HMAC_224|HMAC_256|HMAC_384|HMAC_512|SM2|ML_DSA_44|ML_DSA_65|ML_DSA_87|ECC_NIST_EDWARDS25519"`
	Origin                         string `json:"Origin" aws:"enum=AWS_KMS|EXTERNAL|AWS_CLOUDHSM|EXTERNAL_KEY_STORE"`
	CustomKeyStoreID               string `json:"CustomKeyStoreId" aws:"min=1,max=64"`
	BypassPolicyLockoutSafetyCheck bool   `json:"BypassPolicyLockoutSafetyCheck"`
	Tags                           []Tag  `json:"Tags"`
	MultiRegion                    bool   `json:"MultiRegion"`
	XksKeyID                       string `json:"XksKeyId" aws:"min=1,max=128"`
}

// CreateKeyResponse is the output of CreateKey.
type CreateKeyResponse struct {
	KeyMetadata KeyMetadata `json:"KeyMetadata"`
}

// CreateKey makes a symmetric encryption key, whose material is made in the device and stays there.
func (s *Service) CreateKey(ctx context.Context, who Caller, req *CreateKeyRequest) (*CreateKeyResponse, error) {
	if err := checkKeyKind(req); err != nil {
		return nil, err
	}
	tags, err := tagMap(req.Tags)
	if err != nil {
		return nil, err
	}
	id := newKeyID(req.MultiRegion)
	if err := s.permitCreation(ctx, who, req, id, tags); err != nil {
		return nil, err
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	key := &Key{
		ID:          id,
		Account:     who.Account,
		State:       StateCreating,
		Description: req.Description,
		Created:     now,
		Policy:      req.Policy,
		Tags:        tags,
		Materials:   []Material{{ID: newMaterialID(), Created: now}},
	}
	if key.Policy == "" {
		key.Policy = defaultPolicy(s.partition, who.Account)
	} else {
		d, err := s.keyPolicy(ctx, key.Policy)
		if err != nil {
			return nil, err
		}
		if !req.BypassPolicyLockoutSafetyCheck {
			if err := s.checkLockout(ctx, who, key, d); err != nil {
				return nil, err
			}
		}
	}
	who.trail.resource(key.Account, s.keyARN(key.Account, key.ID))
	if err := s.createKey(ctx, key); err != nil {
		return nil, err
	}
	resp := &CreateKeyResponse{KeyMetadata: s.metadata(key)}
	who.trail.answer(recordMetadata(&resp.KeyMetadata))
	return resp, nil
}

// permitCreation decides whether who may create such a key, and tag it: identity policies do.
func (s *Service) permitCreation(ctx context.Context, who Caller, req *CreateKeyRequest, id KeyID, tags map[string]string) error {
	a := access{action: "kms:CreateKey", conditions: append(tagConditions(tags),
		condition{"kms:keyspec", []string{symmetricDefault}},
		condition{"kms:customermasterkeyspec", []string{symmetricDefault}},
		condition{"kms:keyusage", []string{"ENCRYPT_DECRYPT"}},
		condition{"kms:customermasterkeyusage", []string{"ENCRYPT_DECRYPT"}},
		condition{"kms:keyorigin", []string{"AWS_KMS"}},
		condition{"kms:multiregion", []string{strconv.FormatBool(req.MultiRegion)}},
		condition{"kms:bypasspolicylockoutsafetycheck", []string{strconv.FormatBool(req.BypassPolicyLockoutSafetyCheck)}},
	)}
	if req.MultiRegion {
		a.conditions = append(a.conditions, condition{"kms:multiregionkeytype", []string{"PRIMARY"}})
	}
	if err := s.permit(ctx, who, a, "*"); err != nil {
		return err
	}
	if len(tags) == 0 {
		return nil
	}
	// As for TagResource on a key that is there: who may not tag keys may not do it by making them either.
	a.action = "kms:TagResource"
	return s.permit(ctx, who, a, s.keyARN(who.Account, id))
}

// Defaults says what the request means where it says nothing.
func (r *CreateKeyRequest) Defaults() {
	if r.CustomerMasterKeySpec == "" {
		setDefault(&r.KeySpec, symmetricDefault)
	}
	if r.KeySpec == symmetricDefault || r.CustomerMasterKeySpec == symmetricDefault {
		setDefault(&r.KeyUsage, "ENCRYPT_DECRYPT")
	}
	setDefault(&r.Origin, "AWS_KMS")
}

// recordMetadata returns what the audit record shows of a new key: what the answer did, under the names of CloudTrail.
func recordMetadata(m *KeyMetadata) any {
	return map[string]any{"keyMetadata": map[string]any{
		"aWSAccountId": m.AWSAccountID, "arn": m.Arn, "creationDate": m.CreationDate.UTC().Format(recordDate), "currentKeyMaterialId": m.CurrentKeyMaterialID,
		"customerMasterKeySpec": m.CustomerMasterKeySpec, "description": m.Description, "enabled": m.Enabled, "encryptionAlgorithms": m.EncryptionAlgorithms,
		"keyId": m.KeyID, "keyManager": m.KeyManager, "keySpec": m.KeySpec, "keyState": m.KeyState, "keyUsage": m.KeyUsage,
		"multiRegion": m.MultiRegion, "origin": m.Origin,
	}}
}

// createKey stores the key, makes its material in the device, and enables it, in this order, so that at every moment what is in the
// device is known to the store: whatever interrupts it leaves a row that says Creating, to be undone here or by Recover.
func (s *Service) createKey(ctx context.Context, key *Key) error {
	m := key.current()
	if err := s.update(ctx, func(tx Tx) error { return tx.InsertKey(key) }); err != nil {
		s.undoCreation(ctx, key.ID) // it may have happened all the same
		return fmt.Errorf("store key %s as Creating: %w", key.ID, err)
	}
	ref, err := s.device.Generate(ctx, m.ID, materialLabel(key.ID, 0))
	if err != nil {
		s.undoCreation(ctx, key.ID)
		return deviceError(err)
	}
	m.Ref = ref
	key.State = StateEnabled
	err = s.update(ctx, func(tx Tx) error {
		if err := tx.SetMaterialRef(m.ID, ref); err != nil {
			return err
		}
		return tx.SetState(key.ID, StateCreating, StateEnabled, time.Time{})
	})
	if err != nil {
		s.undoCreation(ctx, key.ID)
		return fmt.Errorf("enable key %s: %w", key.ID, err)
	}
	return nil
}

// newMaterialID returns the name that a material will have in the token.
func newMaterialID() hsm.ID {
	var id hsm.ID
	rand.Read(id[:]) // never fails (crypto/rand)
	return id
}

// materialLabel is what a person sees in the token: the n-th material, from 0, of a key.
func materialLabel(id KeyID, n int) string { return fmt.Sprintf("strongroom/%s/%d", id, n) }

// keyUsages says what each key spec can be used for; the first usage is listed first in no sense but the table's.
var keyUsages = map[string]string{
	"SYMMETRIC_DEFAULT":     "ENCRYPT_DECRYPT",
	"RSA_2048":              "ENCRYPT_DECRYPT SIGN_VERIFY",
	"RSA_3072":              "ENCRYPT_DECRYPT SIGN_VERIFY",
	"RSA_4096":              "ENCRYPT_DECRYPT SIGN_VERIFY",
	"ECC_NIST_P256":         "SIGN_VERIFY KEY_AGREEMENT",
	"ECC_NIST_P384":         "SIGN_VERIFY KEY_AGREEMENT",
	"ECC_NIST_P521":         "SIGN_VERIFY KEY_AGREEMENT",
	"ECC_SECG_P256K1":       "SIGN_VERIFY",
	"ECC_NIST_EDWARDS25519": "SIGN_VERIFY",
	"ML_DSA_44":             "SIGN_VERIFY",
	"ML_DSA_65":             "SIGN_VERIFY",
	"ML_DSA_87":             "SIGN_VERIFY",
	"HMAC_224":              "GENERATE_VERIFY_MAC",
	"HMAC_256":              "GENERATE_VERIFY_MAC",
	"HMAC_384":              "GENERATE_VERIFY_MAC",
	"HMAC_512":              "GENERATE_VERIFY_MAC",
	"SM2":                   "ENCRYPT_DECRYPT SIGN_VERIFY KEY_AGREEMENT",
}

// checkKeyKind refuses what AWS refuses about spec, usage and origin, and then every kind of key but the one made here.
func checkKeyKind(req *CreateKeyRequest) error {
	spec := req.KeySpec
	switch {
	case req.KeySpec != "" && req.CustomerMasterKeySpec != "":
		return errorf(Validation, "You cannot specify KeySpec and CustomerMasterKeySpec in the same request. CustomerMasterKeySpec is deprecated.")
	case spec == "":
		spec = req.CustomerMasterKeySpec
	}
	if spec == "" {
		spec = symmetricDefault
	}
	usage := req.KeyUsage
	if usage == "" {
		if spec != symmetricDefault {
			return errorf(Validation, "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.")
		}
		usage = "ENCRYPT_DECRYPT"
	}
	// No usage is a part of another one's name.
	if !strings.Contains(keyUsages[spec], usage) {
		return errorf(Validation, "KeyUsage %s is not compatible with KeySpec %s", usage, spec)
	}
	switch {
	case req.CustomKeyStoreID != "" || req.XksKeyID != "" || req.Origin == "AWS_CLOUDHSM" || req.Origin == "EXTERNAL_KEY_STORE":
		return errNoKeyStores
	case req.Origin == "EXTERNAL":
		return errorf(Unsupported, "Origin EXTERNAL is not supported in this Region")
	case spec != symmetricDefault:
		return errorf(Unsupported, "KeySpec %s is not supported in this Region", spec)
	}
	return nil
}

// defaultPolicy is the key policy of a key that was created without one, as AWS KMS writes it: the account decides, through its identity
// policies (AWS KMS Developer Guide, "Default key policy").
func defaultPolicy(partition, account string) string {
	return `{
  "Version" : "2012-10-17",
  "Id" : "key-default-1",
  "Statement" : [ {
    "Sid" : "Enable IAM User Permissions",
    "Effect" : "Allow",
    "Principal" : {
      "AWS" : "` + RootARN(partition, account) + `"
    },
    "Action" : "kms:*",
    "Resource" : "*"
  } ]
}`
}
