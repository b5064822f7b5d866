package kms

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"strongroom/hsm"
)

// sweepEvery is how often due deletions are looked for. A deletion is promised by the day, so a minute is early.
const sweepEvery = time.Minute

// recordEvery is how often events are moved from the store into the audit log.
const recordEvery = 250 * time.Millisecond

// Run does what no request asks for, until ctx ends: it listens for changes that other processes make, destroys keys whose
// waiting period is over, rotates keys that are due, gives back encryptions that were reserved and are not
// needed, and keeps the record of all this. It returns nil. Requests are answered without it, only slower, since nothing is then remembered between them.
func (s *Service) Run(ctx context.Context) error {
	listen := time.NewTicker(listenEvery)
	defer listen.Stop()
	s.listen(ctx) // whether the store answers is seen again soon
	deaf := false // what the log was last told

	var others sync.WaitGroup // end with ctx
	defer others.Wait()
	others.Go(func() { every(ctx, sweepEvery, func() { s.sweep(ctx, time.Now()) }) })
	others.Go(func() {
		unrecorded := false // what the log was last told
		every(ctx, recordEvery, func() {
			err := s.recordEvents(ctx)
			if err != nil && !unrecorded && ctx.Err() == nil {
				s.log.Error("events could not be recorded yet; they wait in the store", "err", err)
			}
			unrecorded = err != nil
		})
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		if err := s.recordEvents(last); err != nil {
			s.log.Error("events could not be recorded; they wait in the store", "err", err)
		}
	})
	others.Go(func() {
		every(ctx, flushEvery, func() { s.flushUsage(ctx) })
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		s.flushUsage(last)
	})
	others.Go(func() {
		every(ctx, sweepEvery, func() { s.budget.giveBack(ctx, false) })
		s.budget.stop(ctx)
	})

	for {
		select {
		case <-ctx.Done():
			return nil
		case <-listen.C:
		}
		err := s.listen(ctx)
		if deaf != (err != nil) && ctx.Err() == nil {
			deaf = err != nil
			if deaf {
				s.log.Error("the store does not answer; nothing remembered is used until it does", "err", err)
			} else {
				s.log.Info("the store answers again")
			}
		}
	}
}

// every calls f now and then again after each pause, until ctx ends.
func every(ctx context.Context, pause time.Duration, f func()) {
	t := time.NewTicker(pause)
	defer t.Stop()
	for ctx.Err() == nil {
		f()
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
}

// undoWithin is how old a creation may be to be undone. An older row that still says Creating was not left by a process that ended, but by a
// backup that was taken in the middle of a creation and restored later: its key may have been used since. It is left for a person to judge.
const undoWithin = 24 * time.Hour

// Recover undoes the creations that a process left behind when it ended. It must be called while no other process serves the store, and
// before this one does.
func (s *Service) Recover(ctx context.Context) error {
	var undone, left []KeyID
	err := s.update(ctx, func(tx Tx) error {
		undone, left = nil, nil
		ids, err := tx.KeysInState(StateCreating, time.Time{}, recoverBatch)
		for _, id := range ids {
			if err != nil {
				break
			}
			var key *Key
			if key, err = tx.Key(id); err != nil {
				break
			}
			if time.Since(key.Created) > undoWithin {
				left = append(left, id)
				continue
			}
			undone = append(undone, id)
			err = tx.SetState(id, StateCreating, StateDestroying, time.Time{})
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("find unfinished creations: %w", err)
	}
	for _, id := range undone {
		s.log.Warn("undoing the creation of a key that was interrupted", "key", id)
	}
	for _, id := range left {
		s.log.Error("a key has been in state Creating for more than a day; it is left alone, because a restored backup can look like this. "+
			"If the token holds no object with its id, nothing is lost", "key", id)
	}
	s.sweep(ctx, time.Now())
	return nil
}

const (
	sweepBatch   = 100
	recoverBatch = 10_000 // more than can be in the making at once
)

// sweep destroys what is due at now, and what was being destroyed when something failed. What fails is logged and left for the next sweep.
func (s *Service) sweep(ctx context.Context, now time.Time) {
	if !s.store.Sound() {
		return // what it says to be due may be damage, and a destroyed key does not come back
	}
	s.sweepState(ctx, StatePendingDeletion, now, "begin to destroy", func(id KeyID) error { return s.beginDestruction(ctx, id, now) })
	s.sweepState(ctx, StateDestroying, time.Time{}, "destroy", func(id KeyID) error { return s.finishDestruction(ctx, id) })
	s.sweepRotations(ctx, now)
	s.sweepCredentials(ctx, now)
}

// sweepState calls f, which moves a key on, for the keys in a state, batch by batch until there are no more. One key that cannot be moved on does
// not keep back the others of its batch.
func (s *Service) sweepState(ctx context.Context, state KeyState, due time.Time, what string, f func(KeyID) error) {
	for ctx.Err() == nil {
		var ids []KeyID
		err := s.store.View(ctx, func(tx Tx) (err error) {
			ids, err = tx.KeysInState(state, due, sweepBatch)
			return err
		})
		if err != nil {
			s.log.Error("could not look for keys to "+what, "err", err)
			return
		}
		failed := false
		for _, id := range ids {
			if err := f(id); err != nil {
				s.log.Error("could not "+what+" a key", "key", id, "err", err)
				failed = true
			}
		}
		if failed || len(ids) < sweepBatch {
			return
		}
	}
}

// beginDestruction takes a key out of the reach of CancelKeyDeletion. A key that was saved, or seen to by another node, in the meantime is left alone.
func (s *Service) beginDestruction(ctx context.Context, id KeyID, now time.Time) error {
	err := s.update(ctx, func(tx Tx) error {
		key, err := tx.Key(id)
		if err != nil {
			return err
		}
		if key.State != StatePendingDeletion || key.DeletionDate.After(now) {
			return ErrConflict
		}
		// Nobody can move or delete an alias of a key that is not there any more, so they go first.
		aliases, err := tx.Aliases(key.Account, id, "", maxAliases)
		if err != nil {
			return err
		}
		for _, a := range aliases {
			if err := tx.DeleteAlias(a.Account, a.Name, id); err != nil {
				return err
			}
		}
		if err := insertEvent(tx, s.serviceEvent("DeleteKey", key, nil)); err != nil {
			return err
		}
		return tx.SetState(id, StatePendingDeletion, StateDestroying, key.DeletionDate)
	})
	if errors.Is(err, ErrConflict) || isNotStored(err) {
		return nil
	}
	return err
}

// finishDestruction destroys the materials of a key that is Destroying, all of them, and only then drops its row, so that the store never
// forgets what is still in the device. It may be repeated.
func (s *Service) finishDestruction(ctx context.Context, id KeyID) error {
	var materials []hsm.ID
	err := s.store.View(ctx, func(tx Tx) error {
		key, err := tx.Key(id)
		if err != nil {
			return err
		}
		if key.State != StateDestroying {
			return ErrConflict
		}
		materials = nil
		for _, m := range key.Materials {
			materials = append(materials, m.ID)
		}
		return nil
	})
	if isNotStored(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, m := range materials {
		if err := s.device.Destroy(ctx, m); err != nil {
			return fmt.Errorf("material %s: %w", m, err)
		}
	}
	if err := s.dropGrants(ctx, id); err != nil {
		return err
	}
	err = s.update(ctx, func(tx Tx) error { return tx.DeleteKey(id, time.Now()) })
	if isNotStored(err) {
		return nil // another node was quicker
	}
	if err != nil {
		return err
	}
	s.log.Info("a key was destroyed", "key", id)
	return nil
}

// dropGrants drops the grants on a key in portions: all of fifty thousand at once would keep other writers waiting for seconds.
func (s *Service) dropGrants(ctx context.Context, id KeyID) error {
	for {
		n := 0
		err := s.update(ctx, func(tx Tx) error {
			grants, err := tx.Grants(id, "", "", sweepBatch)
			for _, g := range grants {
				if err == nil {
					err = tx.DeleteGrant(id, g.ID)
				}
			}
			n = len(grants)
			return err
		})
		if err != nil || n < sweepBatch {
			return err
		}
	}
}

// undoTimeout bounds the undoing of a failed creation, for which the request that failed has no time left.
const undoTimeout = 5 * time.Second

// undoCreation takes back a key that could not be made. The row is moved out of Creating first: where the last step of the creation had happened
// after all, that fails, and the key stays. What cannot be undone now is left for Recover and the next sweep.
func (s *Service) undoCreation(ctx context.Context, id KeyID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	err := s.update(ctx, func(tx Tx) error {
		return tx.SetState(id, StateCreating, StateDestroying, time.Time{})
	})
	if err == nil {
		err = s.finishDestruction(ctx, id)
	}
	if err != nil && !errors.Is(err, ErrConflict) && !isNotStored(err) {
		s.log.Error("a key that could not be made could not be undone yet", "key", id, "err", err)
	}
}
