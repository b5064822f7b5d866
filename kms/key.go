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
	Rotation     Rotation
	Materials    []Material // oldest first; the last one that has a Ref encrypts, every one that has decrypts

	// What readKey sets. policyHash is of Policy. read is another number each time that a key is read: what is remembered of the grants on a key is remembered for
	// it as it was read, so that nobody finds it any more when the key is forgotten.
	policyHash policyHash
	read       uint64
}

// A Rotation says when a key gets new material by itself. The zero Rotation is never.
type Rotation struct {
	Days int       // the period; 0 for never
	Next time.Time // when it is due; zero for never
}

// A Material is one AES-256 key in the token. A KMS key has one for each rotation, and one to begin with.
type Material struct {
	ID      hsm.ID
	Ref     hsm.Ref // nil while it is being made: in a key that is Creating, or in the last material of one that is being rotated
	Created time.Time
	Reason  RotationType // why it was made; empty for the first
}

// A RotationType says what made a key rotate [API, RotationsListEntry].
type RotationType string

const (
	RotationAutomatic RotationType = "AUTOMATIC"
	RotationOnDemand  RotationType = "ON_DEMAND"
)

// current returns the material that encrypts. A visible key has one.
func (k *Key) current() *Material {
	if p := k.pending(); p != nil && len(k.Materials) > 1 {
		return &k.Materials[len(k.Materials)-2]
	}
	return &k.Materials[len(k.Materials)-1]
}

// pending returns the material that is being made, or nil.
func (k *Key) pending() *Material {
	if m := &k.Materials[len(k.Materials)-1]; m.Ref == nil {
		return m
	}
	return nil
}

// material returns the material called id, or nil if the key has none or it is still being made.
func (k *Key) material(id hsm.ID) *Material {
	for i := range k.Materials {
		if k.Materials[i].ID == id && k.Materials[i].Ref != nil {
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

// An Account owns keys, aliases and principals.
type Account struct {
	ID      string // 12 digits
	Created time.Time
}

// A Credential is an access key: what a client signs with, and which principal it then is.
type Credential struct {
	ID        string // access key id
	Account   string
	Principal string // ARN of the user, the role or the root that it belongs to
	Active    bool
	Created   time.Time
	LastUsed  time.Time // zero for never; to the minute or so
	Sealed    []byte    // the secret access key, sealed by the HSM; Service.Secret opens it

	// A session of a role is a credential that expires and that is good only together with its session token.
	Session string    // its name; empty for a credential that is no session
	Expires time.Time // zero for never
	Token   []byte    // SHA-256 of the session token; nil for a credential that is no session
}

// A KeyUse is the last successful use of a key [API, KeyLastUsageData].
type KeyUse struct {
	Key       KeyID
	Operation string
	Time      time.Time
	EventID   string // of the audit record
	RequestID string
}

// An Event is an audit record of something that no request did: an act of the server itself or of its administrator. It is stored in the transaction
// that it tells of, so that there is never one without the other, and taken from there into the audit log.
type Event struct {
	Sequence int64 // the store's; ascending in the order of the transactions
	Body     []byte
}

// A SystemKey is a key in the token that serves the server itself and is no KMS key.
type SystemKey struct {
	Name string
	ID   hsm.ID
	Ref  hsm.Ref // nil while it is being made
}

// An AuditAnchor is what the audit log was when it was last signed, kept where whoever can write the log's files cannot change it.
type AuditAnchor struct {
	Log      string // UUID of the chain
	Sequence uint64
	Hash     [32]byte
	File     int // number of the newest file
}

// A Deployment says what a store belongs to. A store has exactly one, written by Init.
type Deployment struct {
	ID          string // UUID
	Created     time.Time
	Partition   string
	Region      string
	TokenSerial string
	UsageSince  time.Time // since when uses of keys are kept; zero in a store from before they were
}
