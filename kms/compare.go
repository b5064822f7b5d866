package kms

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"strongroom/hsm"
)

// A Comparison is what a store says that a token holds, and what it holds.
type Comparison struct {
	Keys   int // in states that a client can see
	Proved int // materials and system keys whose objects are there and are the right ones

	Missing []MaterialAt // the store has them, the token has not, or has another object in their place
	Newer   []MaterialAt // the token has them, and they are the next materials of keys that the store has
	Unknown []KeyAt      // the token has materials of these keys, and the store has not the key
	Buried  []BuriedAt   // the token has them, and the store remembers that they were destroyed
	Others  []hsm.Object // of which it cannot be told whose they are

	// Foreign are keys that serve another deployment, or that were left by an init that was interrupted: Unknown may be keys of the former. They are
	// among Others too.
	Foreign []hsm.Object

	Creating []KeyAt // their creation was under way
	Rotating []KeyAt // the creation of their last material was
	Deleting []KeyAt // in their waiting period, by its end
}

// A MaterialAt is a material by its place: the n-th of a key, from 0.
type MaterialAt struct {
	Key   KeyID
	N     int
	ID    hsm.ID
	State KeyState // of the key
	Why   string   // it is missing
}

// A BuriedAt is an object of a key that the store has destroyed.
type BuriedAt struct {
	Key       KeyID
	ID        hsm.ID
	Destroyed time.Time
}

// A KeyAt is a key and those of its materials that the token has.
type KeyAt struct {
	Key       KeyID
	Account   string
	Materials []MaterialAt
	Deletion  time.Time
}

// ErrOtherToken means that a token does not hold the keys without which a deployment is nothing.
var ErrOtherToken = errors.New("the store belongs to another token")

// Compare proves each material and each system key in the store by its check value, and lists what the one has and the other has not. Nothing is changed, and no
// key is used to encrypt. It returns an error that is ErrOtherToken if it is the system keys that are missing.
func Compare(ctx context.Context, device hsm.Inspector, store Store) (*Comparison, error) {
	held, err := device.Survey(ctx)
	if err != nil {
		return nil, err
	}
	c := new(Comparison)
	there := make(map[hsm.ID]hsm.Holding, len(held))
	for _, h := range held {
		if !h.Canary {
			there[h.ID] = h
		}
	}
	signs, err := c.systemKeys(ctx, device, store, there)
	if err != nil {
		return nil, err
	}
	next := make(map[KeyID]int) // how many materials each key has
	err = eachKey(ctx, store, func(k *Key) error {
		next[k.ID] = len(k.Materials)
		return c.key(ctx, device, k, there)
	})
	if err != nil {
		return nil, err
	}
	c.foreign(signs, there)
	if err := c.buried(ctx, store, there); err != nil {
		return nil, err
	}
	c.rest(next, there)
	slices.SortFunc(c.Deleting, func(a, b KeyAt) int { return a.Deletion.Compare(b.Deletion) })
	return c, nil
}

// systemKeys proves the system keys and takes them from there. It reports whether the store has one that signs.
func (c *Comparison) systemKeys(ctx context.Context, device hsm.Inspector, store Store, there map[hsm.ID]hsm.Holding) (signs bool, err error) {
	for _, name := range []string{sealerName, signerName} {
		var k *SystemKey
		err := store.View(ctx, func(tx Tx) (err error) {
			k, err = tx.SystemKey(name)
			return err
		})
		if isNotStored(err) && name == signerName {
			continue // the first server makes it
		}
		if err != nil {
			return false, fmt.Errorf("read the system key %s: %w", name, err)
		}
		signs = signs || name == signerName
		delete(there, k.ID)
		if k.Ref == nil {
			continue
		}
		if err := device.Prove(ctx, k.ID, k.Ref); errors.Is(err, hsm.ErrNoKey) {
			return false, fmt.Errorf("%w: the system key %s: %w", ErrOtherToken, name, err)
		} else if err != nil {
			return false, fmt.Errorf("prove the system key %s: %w", name, err)
		}
		c.Proved++
	}
	return signs, nil
}

// foreign lists the system keys that the store does not name. A copy from before the first server has no key that signs, and the one that is there is then the
// deployment's own: another deployment has a key that seals as well.
func (c *Comparison) foreign(signs bool, there map[hsm.ID]hsm.Holding) {
	for _, h := range there {
		if strings.HasPrefix(h.Label, systemLabel("")) {
			c.Foreign = append(c.Foreign, h.Object)
		}
	}
	if !signs && len(c.Foreign) == 1 && c.Foreign[0].Label == systemLabel(signerName) {
		c.Foreign = nil
	}
	slices.SortFunc(c.Foreign, func(a, b hsm.Object) int { return cmp.Compare(a.Label, b.Label) })
}

// key proves the materials of a key and takes them from there.
func (c *Comparison) key(ctx context.Context, device hsm.Inspector, k *Key, there map[hsm.ID]hsm.Holding) error {
	if k.State.visible() {
		c.Keys++
	}
	if k.State == StatePendingDeletion {
		c.Deleting = append(c.Deleting, KeyAt{Key: k.ID, Account: k.Account, Deletion: k.DeletionDate})
	}
	for n, m := range k.Materials {
		h, held := there[m.ID]
		delete(there, m.ID)
		at := MaterialAt{Key: k.ID, N: n, ID: m.ID, State: k.State}
		switch {
		case k.State == StateDestroying:
			// Its objects may be gone. Nothing saves such a key, and what is left of it the server destroys.
		case m.Ref == nil:
			one := KeyAt{Key: k.ID, Account: k.Account}
			if held && h.Keys > 0 {
				one.Materials = []MaterialAt{at}
			}
			if k.State == StateCreating {
				c.Creating = append(c.Creating, one)
			} else {
				c.Rotating = append(c.Rotating, one)
			}
		case !held:
			at.Why = "the token holds no object with its id"
			c.Missing = append(c.Missing, at)
		default:
			err := device.Prove(ctx, m.ID, m.Ref)
			if errors.Is(err, hsm.ErrNoKey) {
				at.Why = err.Error()
				c.Missing = append(c.Missing, at)
			} else if err != nil {
				return fmt.Errorf("prove material %s of key %s: %w", m.ID, k.ID, err)
			} else {
				c.Proved++
			}
		}
	}
	return nil
}

// buried takes from there what the store remembers as destroyed: the token may have been restored from a copy of its own. What is labelled as another material of
// such a key goes with it.
func (c *Comparison) buried(ctx context.Context, store Store, there map[hsm.ID]hsm.Holding) error {
	for ids := range slices.Chunk(slices.Collect(maps.Keys(there)), listBatch) {
		var some []BuriedAt
		err := store.View(ctx, func(tx Tx) error {
			some = nil
			for _, id := range ids {
				key, destroyed, err := tx.Tombstone(id)
				if isNotStored(err) {
					continue
				}
				if err != nil {
					return err
				}
				some = append(some, BuriedAt{key, id, destroyed})
			}
			return nil
		})
		if err != nil {
			return err
		}
		c.Buried = append(c.Buried, some...)
	}
	when := make(map[KeyID]time.Time)
	for _, b := range c.Buried {
		delete(there, b.ID)
		when[b.Key] = b.Destroyed
	}
	for _, h := range there {
		if key, _, ok := parseMaterialLabel(h.Label); ok && !when[key].IsZero() {
			delete(there, h.ID)
			c.Buried = append(c.Buried, BuriedAt{key, h.ID, when[key]})
		}
	}
	slices.SortFunc(c.Buried, func(a, b BuriedAt) int {
		return cmp.Or(cmp.Compare(a.Key.String(), b.Key.String()), cmp.Compare(a.ID.String(), b.ID.String()))
	})
	return nil
}

// rest sorts the objects that no row names, by their labels.
func (c *Comparison) rest(next map[KeyID]int, there map[hsm.ID]hsm.Holding) {
	unknown := make(map[KeyID]*KeyAt)
	for _, h := range there {
		id, n, ok := parseMaterialLabel(h.Label)
		if !ok || h.Keys != 1 {
			c.Others = append(c.Others, h.Object)
			continue
		}
		at := MaterialAt{Key: id, N: n, ID: h.ID}
		if have, known := next[id]; known {
			if n < have {
				c.Others = append(c.Others, h.Object)
			} else {
				c.Newer = append(c.Newer, at)
			}
			continue
		}
		if unknown[id] == nil {
			unknown[id] = &KeyAt{Key: id}
		}
		unknown[id].Materials = append(unknown[id].Materials, at)
	}
	for _, k := range unknown {
		slices.SortFunc(k.Materials, byPlace)
		c.Unknown = append(c.Unknown, *k)
	}
	slices.SortFunc(c.Unknown, func(a, b KeyAt) int { return cmp.Compare(a.Key.String(), b.Key.String()) })
	slices.SortFunc(c.Newer, byPlace)
	slices.SortFunc(c.Others, func(a, b hsm.Object) int { return cmp.Compare(a.Label, b.Label) })
}

func byPlace(a, b MaterialAt) int {
	return cmp.Or(cmp.Compare(a.Key.String(), b.Key.String()), cmp.Compare(a.N, b.N), cmp.Compare(a.ID.String(), b.ID.String()))
}

// parseMaterialLabel reverses materialLabel.
func parseMaterialLabel(label string) (id KeyID, n int, ok bool) {
	rest, ours := strings.CutPrefix(label, "strongroom/")
	name, ordinal, two := strings.Cut(rest, "/")
	id, err := ParseKeyID(name)
	n, nerr := strconv.Atoi(ordinal)
	return id, n, ours && two && err == nil && nerr == nil && n >= 0 && materialLabel(id, n) == label
}

// eachKey calls f with every key in the store, in whatever state.
func eachKey(ctx context.Context, store Store, f func(*Key) error) error {
	for _, state := range []KeyState{StateCreating, StateDestroying} {
		var ids []KeyID
		err := store.View(ctx, func(tx Tx) (err error) {
			ids, err = tx.KeysInState(state, time.Time{}, 1_000_000)
			return err
		})
		if err == nil {
			err = eachOf(ctx, store, ids, f)
		}
		if err != nil {
			return err
		}
	}
	accounts, err := list(ctx, store, func(tx Tx, after string) ([]Account, error) { return tx.Accounts(after, listBatch) },
		func(a Account) string { return a.ID })
	if err != nil {
		return err
	}
	for _, a := range accounts {
		for after := (KeyID{}); ; {
			var ids []KeyID
			err := store.View(ctx, func(tx Tx) (err error) {
				ids, err = tx.Keys(a.ID, after, listBatch)
				return err
			})
			if err == nil {
				err = eachOf(ctx, store, ids, f)
			}
			if err != nil {
				return err
			}
			if len(ids) < listBatch {
				break
			}
			after = ids[len(ids)-1]
		}
	}
	return nil
}

func eachOf(ctx context.Context, store Store, ids []KeyID, f func(*Key) error) error {
	var keys []*Key
	err := store.View(ctx, func(tx Tx) error {
		keys = nil
		for _, id := range ids {
			k, err := tx.Key(id)
			if isNotStored(err) {
				continue
			}
			if err != nil {
				return err
			}
			keys = append(keys, k)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, k := range keys {
		if err := f(k); err != nil {
			return err
		}
	}
	return nil
}
