package kms

import (
	"context"
	"errors"
	"time"

	"strongroom/hsm"
)

// The errors of a [Store] that its callers tell apart. Any other error means that the store did not do its work.
var (
	// ErrNotStored means that what was asked for is not in the store.
	ErrNotStored = errors.New("not in the store")

	// ErrConflict means that what was to be inserted is there already, or that what was to be changed is not in the
	// state that the change names. Nothing was changed.
	ErrConflict = errors.New("conflicts with what is in the store")
)

func isNotStored(err error) bool { return errors.Is(err, ErrNotStored) }

// A Store keeps what has to survive: keys' metadata, aliases, credentials. It is safe for concurrent use, also by several
// processes.
//
// Within View and Update, f sees one consistent state. f must use no Tx but its own, must not keep it, and must not call the device or
// wait for anything else: an Update may hold others back while it runs. If f returns an error the transaction is undone and View or Update
// returns that error, unwrapped or wrapped. f may be called again after a conflict between transactions, so it must have no other effects
// than on its Tx and on variables that it sets anew each time.
type Store interface {
	// View calls f with a transaction that can only read.
	View(ctx context.Context, f func(Tx) error) error

	// Update calls f with a transaction that can read and write. When Update returns nil, all that f wrote is durable
	// (it survives a power loss) and visible to every later transaction; otherwise none of it is. An Update whose
	// answer was lost with the connection may have happened: that is an error, and the caller looks again.
	Update(ctx context.Context, f func(Tx) error) error

	// Generation returns a number that differs from every earlier one if any Update that changed something, by any process, was
	// committed in between. What says so is no change in this sense: nobody remembers it. It is cheap enough to ask several times a second.
	Generation(ctx context.Context) (int64, error)

	// Changes returns what every Update that was committed since a generation changed, and the generation now. Where that is not known, as it is
	// not of long ago or of a number that is no generation, AnyChange is among the changes.
	Changes(ctx context.Context, since int64) ([]Change, int64, error)

	// Healthy returns an error if the store does not answer, or is known to be damaged.
	Healthy(ctx context.Context) error

	// Sound reports whether the store is not known to be damaged, nor is being looked through for damage. As long as it is not sound, nothing is
	// destroyed because of what it says.
	Sound() bool
}

// A Tx is one transaction on a [Store]: the questions that the service asks. Methods that write fail in a View.
// What is returned is the caller's own. Times are kept to the millisecond, in UTC. Lists are in ascending order of
// what is named as their position, compared byte by byte, and hold at most limit entries, none for a limit below 1, that come after the position given.
// To insert or change something that belongs to an account or a key that is not there is ErrNotStored.
type Tx interface {
	// Deployment returns ErrNotStored from a store that Init has not written to.
	Deployment() (*Deployment, error)
	// InsertDeployment returns ErrConflict if there is one.
	InsertDeployment(d *Deployment) error

	// SetUsageSince sets the deployment's UsageSince if it has none.
	SetUsageSince(t time.Time) error
	SystemKey(name string) (*SystemKey, error)
	// InsertSystemKey stores a key, with or without its Ref. It returns ErrConflict if there is one of that name.
	InsertSystemKey(k *SystemKey) error
	// SetSystemKeyRef stores the Ref of a key that was inserted without one. It returns ErrConflict if it has one.
	SetSystemKeyRef(name string, ref hsm.Ref) error

	AuditAnchor() (*AuditAnchor, error)
	// SetAuditAnchor stores an anchor in place of the one before. It is no change to Generation.
	SetAuditAnchor(a *AuditAnchor) error

	// InsertAccount returns ErrConflict if the account is there.
	InsertAccount(id string, created time.Time) error
	Account(id string) (*Account, error)
	Accounts(after string, limit int) ([]Account, error)

	// Principal returns a user or a role with its tags and policies.
	Principal(account string, kind PrincipalKind, name string) (*Principal, error)
	// Principals lists the users or the roles of an account by name, with their tags and policies.
	Principals(account string, kind PrincipalKind, after string, limit int) ([]Principal, error)
	// InsertPrincipal stores p with its tags and policies. It returns ErrConflict if the account has, or ever had, one of that kind and name:
	// policies and grants may still name the one that was there, and must not come to mean another.
	InsertPrincipal(p *Principal) error
	// SetPrincipalTags replaces all tags.
	SetPrincipalTags(account string, kind PrincipalKind, name string, tags map[string]string) error
	// PutPrincipalPolicy adds a policy or replaces the one of that name.
	PutPrincipalPolicy(account string, kind PrincipalKind, name string, p NamedPolicy) error
	DeletePrincipalPolicy(account string, kind PrincipalKind, name, policy string) error
	// DeletePrincipal drops a user or a role with its tags and policies. Its name stays taken. Credentials are not dropped.
	DeletePrincipal(account string, kind PrincipalKind, name string, now time.Time) error

	Credential(id string) (*Credential, error)
	// Credentials lists the access keys of a principal (an ARN), sessions too, by id.
	Credentials(principal, after string, limit int) ([]Credential, error)
	// InsertCredential returns ErrConflict if the id is taken.
	InsertCredential(c *Credential) error
	SetCredentialActive(id string, active bool) error
	DeleteCredential(id string) error
	// DeleteExpired drops credentials that expired before a time, at most limit of them, and returns how many. It is no change to Generation.
	DeleteExpired(before time.Time, limit int) (int, error)

	// RecordUse keeps when credentials and keys were last used, where that is later than what is kept. What is not there any more is passed over.
	// It is no change to Generation.
	RecordUse(credentials map[string]time.Time, keys []KeyUse) error
	// KeyUse returns the last use of a key, ErrNotStored if there is none.
	KeyUse(key KeyID) (*KeyUse, error)

	// InsertEvent stores the body of an event. It is no change to Generation.
	InsertEvent(body []byte) error
	// Events returns the oldest events.
	Events(limit int) ([]Event, error)
	// DeleteEvents drops the events up to one, itself included. It is no change to Generation.
	DeleteEvents(upTo int64) error

	// Key returns the key with its tags and materials, in any state.
	Key(id KeyID) (*Key, error)
	// KeyOfMaterial returns the key that the material belongs to.
	KeyOfMaterial(id hsm.ID) (KeyID, error)
	// Tombstone returns the key that a material belonged to, and when it was destroyed.
	Tombstone(material hsm.ID) (KeyID, time.Time, error)
	// Keys lists the keys of an account in states that a client can see, by the text of their ids after the one given.
	Keys(account string, after KeyID, limit int) ([]KeyID, error)
	// KeysInState lists keys of all accounts in the state, the earliest deletion date first. With a due time that is not zero, only those
	// whose deletion date is not after it.
	KeysInState(state KeyState, due time.Time, limit int) ([]KeyID, error)
	// InsertKey stores k with its tags and materials. It returns ErrConflict if the id is taken, or if there is a tombstone of the key or of a material.
	InsertKey(k *Key) error
	// SetState moves the key from one state to another and sets its deletion date (zero for none). It returns ErrConflict if the key is not in
	// state from, and ErrNotStored if there is no such key.
	SetState(id KeyID, from, to KeyState, deletion time.Time) error
	// SetMaterialRef stores the Ref of a material that was inserted without one. It returns ErrConflict if it has one.
	SetMaterialRef(id hsm.ID, ref hsm.Ref) error
	// MaterialUses returns how many encryptions under a material were reserved: at least as many as there were. A new material has none.
	MaterialUses(id hsm.ID) (int64, error)
	// SetMaterialUses sets that number. It returns ErrConflict if it is not from. It is no change to Generation.
	SetMaterialUses(id hsm.ID, from, to int64) error
	// InsertMaterial adds a material without Ref to a key, after all others. It returns ErrConflict if the last one has no Ref yet.
	InsertMaterial(key KeyID, m *Material) error
	// KeysToRotate lists enabled keys of all accounts whose next rotation is not after due, the earliest first.
	KeysToRotate(due time.Time, limit int) ([]KeyID, error)
	// KeysRotating lists the keys of all accounts, in states that a client can see, whose last material has no Ref, by id.
	KeysRotating(after KeyID, limit int) ([]KeyID, error)
	SetRotation(id KeyID, r Rotation) error
	SetDescription(id KeyID, description string) error
	SetPolicy(id KeyID, policy string) error
	// SetTags adds tags to a key, or replaces their values.
	SetTags(id KeyID, tags map[string]string) error
	// DeleteTags takes tags from a key. It is no error if it has none of them.
	DeleteTags(id KeyID, names []string) error
	// DeleteKey drops a key that is Creating or Destroying, with its tags, materials, aliases, grants and last use; it returns ErrConflict in any other state.
	// For a key that was Destroying it keeps a tombstone: id, account, material ids and the time.
	DeleteKey(id KeyID, now time.Time) error

	Alias(account, name string) (*Alias, error)
	// Aliases lists the aliases of an account by name; with a key that is not zero, only those of the key.
	Aliases(account string, key KeyID, after string, limit int) ([]Alias, error)
	// CountAliases returns how many aliases the key has.
	CountAliases(key KeyID) (int, error)
	// InsertAlias returns ErrConflict if the account has an alias of that name.
	InsertAlias(a *Alias) error
	// MoveAlias points an alias at another key. It returns ErrConflict if the alias does not point at from.
	MoveAlias(account, name string, from, to KeyID, now time.Time) error
	// DeleteAlias drops an alias. It returns ErrConflict if the alias does not point at from.
	DeleteAlias(account, name string, from KeyID) error

	// InsertGrant returns ErrConflict if the id is taken.
	InsertGrant(g *Grant) error
	Grant(key KeyID, id string) (*Grant, error)
	// Grants lists the grants of a key by id; with a grantee that is not empty, only those to that principal.
	Grants(key KeyID, grantee, after string, limit int) ([]Grant, error)
	// RetirableGrants lists the grants on any key that name a retiring principal, by id.
	RetirableGrants(retiring, after string, limit int) ([]Grant, error)
	// NamedGrants returns the grants that have g's key, name, grantee, match and operations.
	NamedGrants(g *Grant) ([]Grant, error)
	// FindGrants returns grants of a key to a grantee that are found by match, or any with AnyMatch, and are for an operation, in no order.
	FindGrants(key KeyID, grantee string, match GrantMatch, operation GrantOperations, limit int) ([]Grant, error)
	CountGrants(key KeyID) (int, error)
	DeleteGrant(key KeyID, id string) error
}
