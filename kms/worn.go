package kms

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"strongroom/hsm"
)

// spend takes one use of the key's current material. Without it nothing may be encrypted.
func (k *openKey) spend(ctx context.Context) error {
	err := k.service.budget.take(ctx, k.ID, k.current().ID)
	if err == errSpent {
		err = k.spendRenewed(ctx)
	}
	if err == errSpent {
		k.service.budget.refused.Add(1)
	}
	return err
}

// spendRenewed takes one use of a key whose material, as far as the request knows, is used up. Somebody may have rotated it a moment ago: it looks at the key as
// it is now.
func (k *openKey) spendRenewed(ctx context.Context) error {
	s, old := k.service, k.current().ID
	now, err := s.readKey(ctx, k.ID, false)
	if isNotStored(err) {
		return errSpent // it is being destroyed
	}
	if err != nil {
		return err
	}
	if now.current().ID == old {
		s.tellSpent(k.ID, old)
		return errSpent
	}
	k.Key = now
	if err := k.permits(onlyEnabled); err != nil {
		return err
	}
	return s.budget.take(ctx, k.ID, now.current().ID)
}

// tellEvery is how often the log is told that a key has reached the limit.
const tellEvery = time.Minute

// tellSpent tells the log that a key's current material has reached the limit.
func (s *Service) tellSpent(key KeyID, material hsm.ID) {
	k := s.budget.block(key, material)
	if k != nil {
		k.mu.Lock()
		now := time.Now()
		again := now.Sub(k.told) < tellEvery
		if !again {
			k.told = now
		}
		k.mu.Unlock()
		if again {
			return
		}
	}
	s.log.Error("a key encrypts no more: its key material was used as often as is safe, and its rotation has not succeeded. It decrypts as ever. "+
		"This log says why it was not rotated: the token may be full, or away. When that is mended, it is rotated by itself within three minutes",
		"key", key, "material", material, "limit", s.budget.limit)
}

// wornTimeout bounds the rotation of a worn key, besides makeTimeout for the device.
const wornTimeout = makeTimeout + 10*time.Second

// rotateWorn rotates a key whose current material is near the limit, also one that is not rotated by itself otherwise. To clients it is an automatic rotation: AWS KMS
// knows two types, and nobody asked for this one, so it does not count as one on demand. It does not move the key's next rotation, no more than one
// on demand does. What it cannot finish is finished by a sweep.
func (s *Service) rotateWorn(ctx context.Context, id KeyID, material hsm.ID) {
	ctx, cancel := context.WithTimeout(ctx, wornTimeout)
	defer cancel()
	var key *Key
	err := s.update(ctx, func(tx Tx) (err error) {
		if key, err = tx.Key(id); err != nil {
			return err
		}
		if key.State != StateEnabled || key.current().ID != material || key.pending() != nil {
			return ErrConflict
		}
		return beginRotation(tx, key, RotationAutomatic, time.Now())
	})
	switch {
	case errors.Is(err, ErrConflict):
		s.keys.forget(id)
		s.readKey(ctx, id, false) // it has begun or happened already, or the key has changed: from now on requests see it as it is
		return
	case isNotStored(err):
		return
	case err == nil:
		s.log.Warn("a key is rotated because it has used up three quarters of the encryptions that are safe under one key material", "key", id)
		err = s.finishRotation(ctx, key)
	}
	if err != nil && ctx.Err() != context.Canceled {
		s.log.Error("could not rotate a key that is near the limit of encryptions under one key material; it is tried again, and it encrypts until the limit",
			"key", id, "err", err)
	}
}

// A SealBudget is how far the key materials that this process has encrypted with lately, and still encrypts with, are used up.
type SealBudget struct {
	Limit     int64 // encryptions under one material
	Materials int   // with which something was encrypted lately
	Refused   int64 // encryptions that were refused because of the limit, since the start
	Most      int64 // reserved encryptions of the material that has most
	Warned    int   // materials that have used half or more of the limit

	// Worn are the most used of these, at most MaxWorn, the most used first.
	Worn []WornMaterial
}

// A WornMaterial is a key whose current material has used half of the limit or more.
type WornMaterial struct {
	Key      KeyID
	Reserved int64 // encryptions: at least as many as there were
}

// MaxWorn is how many materials a SealBudget names.
const MaxWorn = 50

// SealBudget returns how far keys are used up.
func (s *Service) SealBudget() SealBudget {
	b := s.budget
	report := SealBudget{Limit: b.limit, Refused: b.refused.Load()}
	b.mu.RLock()
	defer b.mu.RUnlock()
	report.Materials = len(b.blocks)
	for _, k := range b.blocks {
		k.mu.Lock()
		reserved := k.reserved
		k.mu.Unlock()
		report.Most = max(report.Most, reserved)
		if reserved >= b.warnAt() {
			report.Worn = append(report.Worn, WornMaterial{k.key, reserved})
		}
	}
	report.Warned = len(report.Worn)
	slices.SortFunc(report.Worn, func(a, b WornMaterial) int {
		return cmp.Or(cmp.Compare(b.Reserved, a.Reserved), cmp.Compare(a.Key.String(), b.Key.String()))
	})
	report.Worn = report.Worn[:min(len(report.Worn), MaxWorn)]
	return report
}
