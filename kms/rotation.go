package kms

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A rotation has three steps, in the order of a creation, so that at every moment what is in the device is known to the store:
//
//	begin    the row of the new material, without Ref, is added to the key: the rotation is pending
//	         the device makes the object
//	finish   the row gets its Ref: from now on the new material encrypts
//
// Until the last one the key encrypts under the material that it had. A rotation that is interrupted is never undone, since the object may be there
// by then; it stays pending until a sweep finishes it, in whatever state the key is meanwhile. Destruction destroys a pending material like any other.

const (
	// makeTimeout bounds how long a rotation waits for the device.
	makeTimeout = 15 * time.Second

	// handOver is how long a pending rotation is left to whoever began it. Two processes that make the object of one material at the same time make
	// two, of which a device uses neither (hsm.ErrNoKey); so it is well above makeTimeout, with some room for clocks that differ.
	handOver = 2 * time.Minute

	// destroyedSoon is how long before its destruction a key gets no new material: an object that is made late must not outlive its key.
	destroyedSoon = time.Hour
)

// beginRotation adds a pending material to a key that was read in the same transaction. It is ErrConflict if the key has one already.
func beginRotation(tx Tx, key *Key, reason RotationType, now time.Time) error {
	m := Material{ID: newMaterialID(), Created: now.UTC().Truncate(time.Millisecond), Reason: reason}
	if err := tx.InsertMaterial(key.ID, &m); err != nil {
		return err
	}
	key.Materials = append(key.Materials, m)
	return nil
}

// finishRotation makes the pending material of a key in the device and lets it encrypt. It may be repeated, but not by two at the same time.
func (s *Service) finishRotation(ctx context.Context, key *Key) error {
	m, old := key.pending(), key.current()
	making, cancel := context.WithTimeout(ctx, makeTimeout)
	defer cancel()
	ref, err := s.device.Generate(making, m.ID, materialLabel(key.ID, len(key.Materials)-1))
	if err != nil {
		return fmt.Errorf("material %s: %w", m.ID, err)
	}
	err = s.update(ctx, func(tx Tx) error {
		if err := tx.SetMaterialRef(m.ID, ref); err != nil {
			return err
		}
		// What AWS KMS records of a rotation (AWS KMS Developer Guide, "RotateKey").
		return insertEvent(tx, s.serviceEvent("RotateKey", key, map[string]any{
			"rotationType":          m.Reason,
			"keyOrigin":             "AWS_KMS",
			"previousKeyMaterialId": key.materialID(old),
			"currentKeyMaterialId":  key.materialID(m),
		}))
	})
	if errors.Is(err, ErrConflict) {
		return nil // it has happened already: only the answer was lost
	}
	if err != nil {
		return fmt.Errorf("material %s: %w", m.ID, err)
	}
	s.budget.drop(ctx, old.ID)
	s.log.Info("a key was rotated", "key", key.ID, "rotation", m.Reason)
	return nil
}

// sweepRotations finishes the rotations that something interrupted, and rotates the keys that are due at now. What fails is logged and left for the
// next sweep.
func (s *Service) sweepRotations(ctx context.Context, now time.Time) {
	var after KeyID
	for ctx.Err() == nil {
		var ids []KeyID
		err := s.store.View(ctx, func(tx Tx) (err error) {
			ids, err = tx.KeysRotating(after, sweepBatch)
			return err
		})
		if err != nil {
			s.log.Error("could not look for rotations to finish", "err", err)
			break
		}
		for _, id := range ids {
			if err := s.resumeRotation(ctx, id, now); err != nil {
				s.log.Error("could not finish the rotation of a key; it still encrypts under its last key material", "key", id, "err", err)
			}
			after = id
		}
		if len(ids) < sweepBatch {
			break
		}
	}

	left := make(map[KeyID]bool) // these may stay due, and are listed before others: look past them
	for ctx.Err() == nil {
		var ids []KeyID
		limit := sweepBatch + len(left)
		err := s.store.View(ctx, func(tx Tx) (err error) {
			ids, err = tx.KeysToRotate(now, limit)
			return err
		})
		if err != nil {
			s.log.Error("could not look for keys to rotate", "err", err)
			return
		}
		for _, id := range ids {
			if left[id] {
				continue
			}
			err := s.rotateDue(ctx, id, now)
			if err == nil {
				continue
			}
			left[id] = true
			if !errors.Is(err, ErrConflict) && !isNotStored(err) {
				s.log.Error("could not rotate a key that is due", "key", id, "err", err)
			}
		}
		if len(ids) < limit {
			return
		}
	}
}

// resumeRotation finishes the pending rotation of a key if whoever began it has had the time to.
func (s *Service) resumeRotation(ctx context.Context, id KeyID, now time.Time) error {
	var key *Key
	err := s.store.View(ctx, func(tx Tx) (err error) {
		key, err = tx.Key(id)
		return err
	})
	if isNotStored(err) {
		return nil
	}
	if err != nil {
		return err
	}
	m := key.pending()
	switch {
	case m == nil || !key.State.visible():
		return nil // not pending any more, or being destroyed
	case m.Created.Add(handOver).After(now) && !m.Created.After(now.Add(handOver)): // one from further on was begun before a clock was set back
		return nil
	case key.State == StatePendingDeletion && key.DeletionDate.Before(now.Add(destroyedSoon)):
		return nil
	}
	return s.finishRotation(ctx, key)
}

// rotateDue rotates a key whose next rotation is due at now. It is ErrConflict if another node has rotated it, or it is not to be rotated any more, or a
// rotation on demand is pending: then it remains due.
func (s *Service) rotateDue(ctx context.Context, id KeyID, now time.Time) error {
	var key *Key
	err := s.update(ctx, func(tx Tx) (err error) {
		if key, err = tx.Key(id); err != nil {
			return err
		}
		if key.State != StateEnabled || key.Rotation.Days == 0 || key.Rotation.Next.After(now) {
			return ErrConflict
		}
		if err := beginRotation(tx, key, RotationAutomatic, now); err != nil {
			return err
		}
		// Counted from now: a key that was due many times over is rotated once.
		return tx.SetRotation(id, rotationEvery(key.Rotation.Days, now))
	})
	if err != nil {
		return err
	}
	return s.finishRotation(ctx, key)
}

// rotationEvery returns a Rotation that is due for the first time when the period is over.
func rotationEvery(days int, now time.Time) Rotation {
	return Rotation{Days: days, Next: now.UTC().Truncate(time.Millisecond).AddDate(0, 0, days)}
}
