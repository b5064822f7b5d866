package kms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"strongroom/hsm"
	"strongroom/kms/audit"
)

// RestoreOptions say how a copy of a store is made ready to be the store again.
type RestoreOptions struct {
	Device   hsm.Inspector
	Store    Store // the copy: nobody else works on it
	Found    *Comparison
	Operator string
	Taken    time.Time // when the copy was made
	Now      time.Time

	// AdoptInto is the account that gets the keys which the token has and the copy has not. Empty leaves them in the token. If the token serves another deployment
	// too, they may be that one's, and Restore fails with ErrOtherDeployment.
	AdoptInto string

	// KeepDeletions has keys destroyed when the copy says, even if that is past.
	KeepDeletions bool

	// SkipFailed goes on where an object of the token is not a key as it should be, lists it in Failed, and leaves it as it is. Otherwise Restore fails.
	SkipFailed bool

	// Source says in the audit record what was restored.
	Source map[string]any
}

// Restored is what Restore changed.
type Restored struct {
	Completed, Dropped, Rotated, Adopted, Postponed []KeyID

	Failed []MaterialAt // that the token has, and that were not put back or completed
}

// ErrOtherDeployment means that keys cannot be adopted, because the token holds keys of another deployment.
var ErrOtherDeployment = errors.New("the token serves another deployment too")

// A restorer has what its steps share.
type restorer struct {
	RestoreOptions
	partition, region string
	done              Restored
}

// Restore changes a copy of a store so that the server, which believes its store, does no harm with what is out of date. The token is right about which keys there are,
// and the copy about everything else:
//
//	a key whose creation was under way     is enabled if its object is there, since it may have been answered for and used; otherwise it is dropped
//	a material whose creation was          is completed likewise, and otherwise made by the server later
//	materials of rotations since           are added to their keys, so that what was encrypted under them opens
//	keys of which the copy knows nothing   are left in the token, or else given to AdoptInto, disabled, under the default policy
//	a waiting period that ends soon        ends in seven days at the earliest: the deletion may have been cancelled since
//	uses of materials                      are raised, see raiseUses
//
// The token is only read: nothing is made there, and nothing destroyed.
//
// Each is recorded, with the restore itself, in the copy; the server takes the records into the audit log.
func Restore(ctx context.Context, o RestoreOptions) (*Restored, error) {
	if o.AdoptInto != "" && len(o.Found.Foreign) > 0 {
		return nil, ErrOtherDeployment
	}
	r := &restorer{RestoreOptions: o}
	err := o.Store.View(ctx, func(tx Tx) error {
		d, err := tx.Deployment()
		if err != nil {
			return err
		}
		r.partition, r.region = d.Partition, d.Region
		if o.AdoptInto != "" {
			_, err = tx.Account(o.AdoptInto)
			err = describeMissing(err, "account "+o.AdoptInto)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{r.creations, r.rotations, r.newer, r.adopt, r.deletions, r.raiseUses, r.record} {
		if err := step(ctx); err != nil {
			return nil, fmt.Errorf("make the copy ready: %w", err)
		}
	}
	return &r.done, nil
}

// update makes a change with its record, which is about a key.
func (r *restorer) update(ctx context.Context, name string, key KeyID, account string, more parameters, f func(Tx) error) error {
	p := parameters{"keyId": key.String()}
	for k, v := range more {
		p[k] = v
	}
	e, err := adminRecord(r.Operator, r.region, name, account, p)
	if err != nil {
		return err
	}
	e.Resources = []audit.Resource{{ARN: arn{r.partition, r.region, account, "key/" + key.String()}.String(), AccountID: account, Type: "AWS::KMS::Key"}}
	return r.Store.Update(ctx, func(tx Tx) error {
		if err := f(tx); err != nil {
			return fmt.Errorf("key %s: %w", key, err)
		}
		return insertEvent(tx, e)
	})
}

// complete returns a Ref of the object of a material, which is there, or nil if it failed and is to be skipped.
func (r *restorer) complete(ctx context.Context, m MaterialAt) (hsm.Ref, error) {
	ref, err := r.Device.Refer(ctx, m.ID)
	if err != nil {
		return nil, r.failed(m, err, hsm.ErrNoKey)
	}
	return ref, nil
}

// failed lists a material, if that is wanted and err is of a kind that is about it alone, and otherwise returns err.
func (r *restorer) failed(m MaterialAt, err, kind error) error {
	if !r.SkipFailed || !errors.Is(err, kind) {
		return fmt.Errorf("material %s of key %s: %w", m.ID, m.Key, err)
	}
	m.Why = err.Error()
	r.done.Failed = append(r.done.Failed, m)
	return nil
}

func (r *restorer) creations(ctx context.Context) error {
	for _, k := range r.Found.Creating {
		if len(k.Materials) == 0 {
			err := r.update(ctx, "DropUnfinishedKey", k.Key, k.Account, nil, func(tx Tx) error {
				if err := tx.SetState(k.Key, StateCreating, StateDestroying, time.Time{}); err != nil {
					return err
				}
				return tx.DeleteKey(k.Key, r.Now)
			})
			if err != nil {
				return err
			}
			r.done.Dropped = append(r.done.Dropped, k.Key)
			continue
		}
		ref, err := r.complete(ctx, k.Materials[0])
		if err != nil {
			return err
		}
		if ref == nil {
			// A server would destroy the object with the row. Without a row, and without a tombstone, it stays.
			if err := r.update(ctx, "DropUnfinishedKey", k.Key, k.Account, nil, func(tx Tx) error { return tx.DeleteKey(k.Key, r.Now) }); err != nil {
				return err
			}
			r.done.Dropped = append(r.done.Dropped, k.Key)
			continue
		}
		err = r.update(ctx, "CompleteUnfinishedKey", k.Key, k.Account, nil, func(tx Tx) error {
			return errors.Join(tx.SetMaterialRef(k.Materials[0].ID, ref), tx.SetState(k.Key, StateCreating, StateEnabled, time.Time{}))
		})
		if err != nil {
			return err
		}
		r.done.Completed = append(r.done.Completed, k.Key)
	}
	return nil
}

func (r *restorer) rotations(ctx context.Context) error {
	for _, k := range r.Found.Rotating {
		if len(k.Materials) == 0 {
			continue
		}
		ref, err := r.complete(ctx, k.Materials[0])
		if err != nil {
			return err
		}
		if ref == nil {
			continue
		}
		err = r.update(ctx, "RestoreKeyMaterial", k.Key, k.Account, parameters{"materialId": k.Materials[0].ID.String()}, func(tx Tx) error {
			return tx.SetMaterialRef(k.Materials[0].ID, ref)
		})
		if err != nil {
			return err
		}
		r.done.Rotated = append(r.done.Rotated, k.Key)
	}
	return nil
}

// newer adds the materials that rotations made since, in their order. Where one is missing, those after it are added all the same: each decrypts what was
// encrypted under it, and the last one encrypts. What made each rotate is not known: as automatic ones they take nothing of the few that can be had on demand.
func (r *restorer) newer(ctx context.Context) error {
	for _, m := range r.Found.Newer {
		var key *Key
		err := r.Store.View(ctx, func(tx Tx) (err error) {
			key, err = tx.Key(m.Key)
			return err
		})
		if err != nil {
			return err
		}
		if !key.State.visible() || key.pending() != nil {
			continue // it is being destroyed, or waits for a material that the server makes
		}
		ref, err := r.complete(ctx, m)
		if err != nil {
			return err
		}
		if ref == nil {
			continue
		}
		err = r.update(ctx, "RestoreKeyMaterial", m.Key, key.Account, parameters{"materialId": m.ID.String()}, func(tx Tx) error {
			added := Material{ID: m.ID, Created: r.Now.UTC().Truncate(time.Millisecond), Reason: RotationAutomatic}
			return errors.Join(tx.InsertMaterial(m.Key, &added), tx.SetMaterialRef(m.ID, ref))
		})
		if err != nil {
			return err
		}
		r.done.Rotated = append(r.done.Rotated, m.Key)
	}
	return nil
}

// adopt gives the keys that were made since to an account.
func (r *restorer) adopt(ctx context.Context) error {
	if r.AdoptInto == "" {
		return nil
	}
	for _, k := range r.Found.Unknown {
		now := r.Now.UTC().Truncate(time.Millisecond)
		key := &Key{
			ID: k.Key, Account: r.AdoptInto, State: StateDisabled, Created: now, Policy: defaultPolicy(r.partition, r.AdoptInto),
			Description: "Found in the HSM when a backup was restored that is older than the key",
		}
		for n, m := range k.Materials {
			ref, err := r.complete(ctx, m)
			if err != nil {
				return err
			}
			if ref == nil {
				continue
			}
			material := Material{ID: m.ID, Ref: ref, Created: now}
			if n > 0 {
				material.Reason = RotationAutomatic
			}
			key.Materials = append(key.Materials, material)
		}
		if len(key.Materials) < len(k.Materials) {
			continue // all of a key, or nothing
		}
		if err := r.update(ctx, "AdoptKey", k.Key, r.AdoptInto, nil, func(tx Tx) error { return tx.InsertKey(key) }); err != nil {
			if err := r.failed(k.Materials[0], err, ErrConflict); err != nil {
				return err
			}
			continue
		}
		r.done.Adopted = append(r.done.Adopted, k.Key)
	}
	return nil
}

func (r *restorer) deletions(ctx context.Context) error {
	if r.KeepDeletions {
		return nil
	}
	earliest := r.Now.Add(saveWithin).UTC().Truncate(time.Millisecond)
	for _, k := range r.Found.Deleting {
		if !k.Deletion.Before(earliest) {
			continue
		}
		p := parameters{"deletionDate": earliest.Format(recordDate), "deletionDateInBackup": k.Deletion.Format(recordDate)}
		err := r.update(ctx, "PostponeKeyDeletion", k.Key, k.Account, p, func(tx Tx) error {
			return tx.SetState(k.Key, StatePendingDeletion, StatePendingDeletion, earliest)
		})
		if err != nil {
			return err
		}
		r.done.Postponed = append(r.done.Postponed, k.Key)
	}
	return nil
}

// What raiseUses takes the use of a material to have been since the copy was made: so many times a second, and at least so many. It raises no count above mostUses, five
// eighths of what a material may be used. The server rotates a key by itself at three quarters, so that an old copy does not have it rotate every key at once: each is
// rotated when it has encrypted another eighth.
//
// However wrong that is, it is not too wrong: before the restore no material was used more than 2^31 times, since the server does not let it, and after the restore
// none is used so often again. Both together are no more than the 2^32 of NIST SP 800-38D, section 8.3. That is so for one restore, and not for one after another.
const (
	usesPerSecond = 1000
	usesAtLeast   = 1 << 24
	mostUses      = DefaultSealLimit / 8 * 5
)

// raiseUses raises the counts of uses by what may have been used since the copy was made. A count that is too high has a key rotated early, one that is too low has it
// encrypt more often than it should.
func (r *restorer) raiseUses(ctx context.Context) error {
	add := int64(max(usesAtLeast, r.Now.Sub(r.Taken).Seconds()*usesPerSecond))
	var all []hsm.ID
	err := eachKey(ctx, r.Store, func(k *Key) error {
		for _, m := range k.Materials {
			all = append(all, m.ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for some := range slices.Chunk(all, listBatch) {
		err := r.Store.Update(ctx, func(tx Tx) error {
			for _, id := range some {
				n, err := tx.MaterialUses(id)
				if err == nil {
					err = tx.SetMaterialUses(id, n, max(n, min(n+add, mostUses)))
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// record records the restore itself.
func (r *restorer) record(ctx context.Context) error {
	account, err := firstAccount(ctx, r.Store)
	if err != nil {
		return err
	}
	p := parameters{"taken": r.Taken.UTC().Format(recordDate), "completedKeys": len(r.done.Completed), "droppedKeys": len(r.done.Dropped),
		"restoredMaterials": len(r.done.Rotated), "adoptedKeys": len(r.done.Adopted), "postponedDeletions": len(r.done.Postponed), "failedMaterials": len(r.done.Failed),
		"missingMaterials": len(r.Found.Missing), "keysNotRestored": len(r.Found.Unknown) - len(r.done.Adopted)}
	for k, v := range r.Source {
		p[k] = v
	}
	e, err := adminRecord(r.Operator, r.region, "RestoreBackup", account, p)
	if err != nil {
		return err
	}
	return r.Store.Update(ctx, func(tx Tx) error { return insertEvent(tx, e) })
}
