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
	// committed in between. It is cheap enough to ask several times a second.
	Generation(ctx context.Context) (int64, error)
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

	// InsertAccount returns ErrConflict if the account is there.
	InsertAccount(id string, created time.Time) error
	Credential(id string) (*Credential, error)
	// InsertCredential returns ErrConflict if the id is taken.
	InsertCredential(c *Credential) error

	// Key returns the key with its tags and materials, in any state.
	Key(id KeyID) (*Key, error)
	// KeyOfMaterial returns the key that the material belongs to.
	KeyOfMaterial(id hsm.ID) (KeyID, error)
	// Keys lists the keys of an account in states that a client can see, by the text of their ids after the one given.
	Keys(account string, after KeyID, limit int) ([]KeyID, error)
	// KeysInState lists keys of all accounts in the state, the earliest deletion date first. With a due time that is not zero, only those
	// whose deletion date is not after it.
	KeysInState(state KeyState, due time.Time, limit int) ([]KeyID, error)
	// InsertKey stores k with its tags and materials. It returns ErrConflict if the id is taken.
	InsertKey(k *Key) error
	// SetState moves the key from one state to another and sets its deletion date (zero for none). It returns ErrConflict if the key is not in
	// state from, and ErrNotStored if there is no such key.
	SetState(id KeyID, from, to KeyState, deletion time.Time) error
	// SetMaterialRef stores the Ref of a material that was inserted without one. It returns ErrConflict if it has one.
	SetMaterialRef(id hsm.ID, ref hsm.Ref) error
	SetDescription(id KeyID, description string) error
	// DeleteKey drops a key that is Creating or Destroying, with its tags, materials and aliases; it returns ErrConflict in any other state.
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
	DeleteAlias(account, name string) error
}
