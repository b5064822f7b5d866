package kms

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	"strongroom/hsm"
)

// A KeyState is what a KMS key can do now (AWS KMS Developer Guide, "Key states of AWS KMS keys").
type KeyState string

// The states that a key of this server can be in. Creating and Destroying are ours: a row that is being made or unmade
// together with its objects in the token. To a client such a key does not exist.
const (
	StateCreating        KeyState = "Creating"
	StateEnabled         KeyState = "Enabled"
	StateDisabled        KeyState = "Disabled"
	StatePendingDeletion KeyState = "PendingDeletion"
	StateDestroying      KeyState = "Destroying"
)

// visible reports whether a key in state s exists as far as a client can tell.
func (s KeyState) visible() bool { return s != StateCreating && s != StateDestroying }

// A Key is a KMS key as the store keeps it. A Key that was read is shared between requests and never changed.
type Key struct {
	ID           KeyID
	Account      string
	State        KeyState
	Description  string
	Created      time.Time
	DeletionDate time.Time // in state PendingDeletion (and Destroying); otherwise zero
	Policy       string    // key policy, JSON, as last written
	Tags         map[string]string
	Materials    []Material // oldest first; the last one encrypts, every one decrypts
}

// A Material is one AES-256 key in the token. A KMS key has one for each rotation, and one to begin with.
type Material struct {
	ID      hsm.ID
	Ref     hsm.Ref // nil while the key is Creating
	Created time.Time
}

// current returns the material that encrypts.
func (k *Key) current() *Material { return &k.Materials[len(k.Materials)-1] }

// material returns the material called id, or nil.
func (k *Key) material(id hsm.ID) *Material {
	for i := range k.Materials {
		if k.Materials[i].ID == id {
			return &k.Materials[i]
		}
	}
	return nil
}

// materialID returns what the protocol calls KeyMaterialId: 64 hexadecimal digits that are the same for the same material
// in the same key, and say nothing of its bytes. They are
//
//	SHA-256("strongroom key material id v1" ‖ key id kind (1) ‖ key id (16) ‖ material id (16))
func (k *Key) materialID(m *Material) string {
	h := sha256.New()
	h.Write([]byte("strongroom key material id v1"))
	h.Write([]byte{byte(k.ID.kind)})
	h.Write(k.ID.bytes[:])
	h.Write(m.ID[:])
	return hex.EncodeToString(h.Sum(nil))
}

// An Alias is a name for a key that can be moved to another key. It belongs to an account.
type Alias struct {
	Account string
	Name    string // with its prefix "alias/"
	Key     KeyID
	Created time.Time
	Updated time.Time
}

// A Credential is an access key: what a client signs with, and which principal it then is.
type Credential struct {
	ID        string // access key id
	Account   string
	Principal string // ARN
	Active    bool
	Created   time.Time
	Sealed    []byte // the secret access key, sealed by the HSM; Service.Secret opens it
}

// A SystemKey is a material that serves the server itself and no KMS key.
type SystemKey struct {
	Name string
	ID   hsm.ID
	Ref  hsm.Ref
}

// A Deployment says what a store belongs to. A store has exactly one, written by Init.
type Deployment struct {
	ID           string // UUID
	Created      time.Time
	Partition    string
	Region       string
	TokenSerial  string
	SecretSealer SystemKey // seals the secrets of access keys and nothing else
}
