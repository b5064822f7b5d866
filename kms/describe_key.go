package kms

import "context"

// KeyMetadata is all that a client is told of a key [API, KeyMetadata].
type KeyMetadata struct {
	AWSAccountID             string                    `json:"AWSAccountId"`
	KeyID                    string                    `json:"KeyId"`
	Arn                      string                    `json:"Arn"`
	CreationDate             Time                      `json:"CreationDate"`
	Enabled                  bool                      `json:"Enabled"`
	Description              string                    `json:"Description"`
	KeyUsage                 string                    `json:"KeyUsage"`
	KeyState                 KeyState                  `json:"KeyState"`
	DeletionDate             *Time                     `json:"DeletionDate,omitempty"`
	Origin                   string                    `json:"Origin"`
	KeyManager               string                    `json:"KeyManager"`
	CustomerMasterKeySpec    string                    `json:"CustomerMasterKeySpec"`
	KeySpec                  string                    `json:"KeySpec"`
	EncryptionAlgorithms     []string                  `json:"EncryptionAlgorithms"`
	MultiRegion              bool                      `json:"MultiRegion"`
	MultiRegionConfiguration *MultiRegionConfiguration `json:"MultiRegionConfiguration,omitempty"`
	CurrentKeyMaterialID     string                    `json:"CurrentKeyMaterialId"`
}

// MultiRegionConfiguration says where the related keys of a multi-Region key are. A key here is always the primary and has no replicas.
type MultiRegionConfiguration struct {
	MultiRegionKeyType string           `json:"MultiRegionKeyType"`
	PrimaryKey         MultiRegionKey   `json:"PrimaryKey"`
	ReplicaKeys        []MultiRegionKey `json:"ReplicaKeys"`
}

// MultiRegionKey names one of several related keys.
type MultiRegionKey struct {
	Arn    string `json:"Arn"`
	Region string `json:"Region"`
}

// metadata returns what a client is told of key.
func (s *Service) metadata(key *Key) KeyMetadata {
	m := KeyMetadata{
		AWSAccountID:          key.Account,
		KeyID:                 key.ID.String(),
		Arn:                   s.keyARN(key.Account, key.ID),
		CreationDate:          Time{key.Created},
		Enabled:               key.State == StateEnabled,
		Description:           key.Description,
		KeyUsage:              "ENCRYPT_DECRYPT",
		KeyState:              key.State,
		Origin:                "AWS_KMS",
		KeyManager:            "CUSTOMER",
		CustomerMasterKeySpec: symmetricDefault,
		KeySpec:               symmetricDefault,
		EncryptionAlgorithms:  []string{symmetricDefault},
		MultiRegion:           key.ID.MultiRegion(),
		CurrentKeyMaterialID:  key.materialID(key.current()),
	}
	if key.State == StatePendingDeletion {
		m.DeletionDate = &Time{key.DeletionDate}
	}
	if key.ID.MultiRegion() {
		m.MultiRegionConfiguration = &MultiRegionConfiguration{
			MultiRegionKeyType: "PRIMARY",
			PrimaryKey:         MultiRegionKey{Arn: m.Arn, Region: s.region},
			ReplicaKeys:        []MultiRegionKey{},
		}
	}
	return m
}

// DescribeKeyRequest is the input of DescribeKey.
type DescribeKeyRequest struct {
	KeyID       string   `json:"KeyId" aws:"required,min=1,max=2048"`
	GrantTokens []string `json:"GrantTokens" aws:"max=10,item.min=1,item.max=8192,sensitive"`
}

// DescribeKeyResponse is the output of DescribeKey.
type DescribeKeyResponse struct {
	KeyMetadata KeyMetadata `json:"KeyMetadata"`
}

// DescribeKey tells of a key in any state.
func (s *Service) DescribeKey(ctx context.Context, who Caller, req *DescribeKeyRequest) (*DescribeKeyResponse, error) {
	a := manage("kms:DescribeKey", req.KeyID, anyState)
	a.forms, a.grantTokens = describeForms, req.GrantTokens
	key, err := s.open(ctx, who, a)
	if err != nil {
		return nil, err
	}
	return &DescribeKeyResponse{KeyMetadata: s.metadata(key.Key)}, nil
}
