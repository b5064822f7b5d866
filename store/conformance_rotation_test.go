package store_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"strongroom/hsm"
	"strongroom/kms"
)

func testRotation(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	k := newKey(kms.StateEnabled)
	k.Rotation = kms.Rotation{Days: 365, Next: exact().Add(365 * 24 * time.Hour)}
	k.Materials = append(k.Materials, newMaterial(), newMaterial())
	k.Materials[1].Reason, k.Materials[2].Reason = kms.RotationAutomatic, kms.RotationOnDemand
	insertKeys(t, a, k)
	check := func() {
		t.Helper()
		view(t, b, func(tx kms.Tx) error {
			got, err := tx.Key(k.ID)
			want(t, err, nil)
			same(t, got, k)
			return nil
		})
	}
	check()
	for _, r := range []kms.Rotation{{Days: 90, Next: exact()}, {}, {Days: 2560}} {
		update(t, a, func(tx kms.Tx) error { return tx.SetRotation(k.ID, r) })
		k.Rotation = r
		check()
	}
	update(t, a, func(tx kms.Tx) error {
		want(t, tx.SetRotation(newID(), kms.Rotation{}), kms.ErrNotStored)
		bad := newKey(kms.StateEnabled)
		bad.Materials[0].Reason = "BOREDOM"
		if tx.InsertKey(bad) == nil {
			t.Error("stored a material with an unknown reason")
		}
		return nil
	})
}

func testKeysToRotate(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	now := exact()
	var due []kms.KeyID
	for i := range 6 {
		k := newKey(kms.StateEnabled)
		k.Rotation = kms.Rotation{Days: 365, Next: now.Add(time.Duration(i) * time.Hour)}
		if i%2 == 0 {
			k.Account = other
		}
		due = append(due, k.ID)
		insertKeys(t, a, k)
	}
	for _, state := range []kms.KeyState{kms.StateCreating, kms.StateDisabled, kms.StatePendingDeletion, kms.StateDestroying} {
		k := newKey(state)
		k.Rotation = kms.Rotation{Days: 365, Next: now}
		insertKeys(t, a, k)
	}
	insertKeys(t, a, newKey(kms.StateEnabled)) // never
	list := func(due time.Time, limit int) (ids []kms.KeyID) {
		view(t, b, func(tx kms.Tx) (err error) {
			ids, err = tx.KeysToRotate(due, limit)
			return err
		})
		return ids
	}
	for i := range due {
		same(t, list(now.Add(time.Duration(i)*time.Hour), 10), due[:i+1])
	}
	same(t, list(now.Add(24*time.Hour), 10), due)
	same(t, list(now.Add(24*time.Hour), 2), due[:2])
	same(t, len(list(now.Add(24*time.Hour), 0)), 0)
	same(t, len(list(now.Add(24*time.Hour), -1)), 0)
	same(t, len(list(now.Add(-time.Millisecond), 10)), 0)
	update(t, a, func(tx kms.Tx) error {
		return errors.Join(
			tx.SetRotation(due[0], kms.Rotation{}),
			tx.SetRotation(due[1], kms.Rotation{Days: 365, Next: now.Add(100 * time.Hour)}),
			tx.SetState(due[2], kms.StateEnabled, kms.StateDisabled, time.Time{}))
	})
	same(t, list(now.Add(200*time.Hour), 10), []kms.KeyID{due[3], due[4], due[5], due[1]})
}

func testInsertMaterial(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	k, l := newKey(kms.StateEnabled), newKey(kms.StateEnabled)
	insertKeys(t, a, k, l)
	check := func() {
		t.Helper()
		view(t, b, func(tx kms.Tx) error {
			for _, k := range []*kms.Key{k, l} {
				got, err := tx.Key(k.ID)
				want(t, err, nil)
				same(t, got, k)
			}
			return nil
		})
	}
	for i := range 12 { // more than nine, so that the order is by number and not by text
		m := kms.Material{ID: newMaterialID(), Created: exact().Add(-time.Duration(i) * time.Hour), Reason: kms.RotationOnDemand}
		update(t, a, func(tx kms.Tx) error { return tx.InsertMaterial(k.ID, &m) })
		k.Materials = append(k.Materials, m)
		check()
		update(t, a, func(tx kms.Tx) error {
			want(t, tx.InsertMaterial(k.ID, &kms.Material{ID: newMaterialID(), Created: exact()}), kms.ErrConflict)
			return nil
		})
		check()
		update(t, a, func(tx kms.Tx) error { return tx.SetMaterialRef(m.ID, hsm.Ref("ref")) })
		k.Materials[len(k.Materials)-1].Ref = hsm.Ref("ref")
		check()
	}
	update(t, a, func(tx kms.Tx) error {
		next := func() *kms.Material { return &kms.Material{ID: newMaterialID(), Created: exact()} }
		want(t, tx.InsertMaterial(newID(), next()), kms.ErrNotStored)
		taken := next()
		taken.ID = l.Materials[0].ID
		want(t, tx.InsertMaterial(k.ID, taken), kms.ErrConflict)
		unknown, made := next(), next()
		unknown.Reason, made.Ref = "BOREDOM", hsm.Ref("x")
		for _, bad := range []*kms.Material{unknown, made} {
			if err := tx.InsertMaterial(k.ID, bad); err == nil || errors.Is(err, kms.ErrConflict) {
				t.Errorf("inserted %+v: %v", bad, err)
			}
		}
		return nil
	})
	check()
}

func testKeysRotating(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	var rotating []string
	var one kms.Material
	for i, state := range []kms.KeyState{
		kms.StateEnabled, kms.StateDisabled, kms.StatePendingDeletion, kms.StateEnabled, kms.StateEnabled, kms.StateCreating, kms.StateDestroying,
	} {
		k, still := newKey(state), newKey(state)
		if i%2 == 0 {
			k.Account = other
			k.ID = newMRK()
		}
		insertKeys(t, a, k, still)
		one = kms.Material{ID: newMaterialID(), Created: exact(), Reason: kms.RotationAutomatic}
		update(t, a, func(tx kms.Tx) error { return tx.InsertMaterial(k.ID, &one) })
		if state != kms.StateCreating && state != kms.StateDestroying {
			rotating = append(rotating, k.ID.String())
		}
	}
	fresh, odd := newKey(kms.StateCreating), newKey(kms.StateEnabled)
	fresh.Materials[0].Ref = nil
	odd.Materials = append(odd.Materials, newMaterial()) // not the last one, which cannot be, is not what is asked for
	odd.Materials[0].Ref = nil
	insertKeys(t, a, fresh, odd)

	slices.Sort(rotating)
	check := func() {
		t.Helper()
		pages(t, b, rotating, func(tx kms.Tx, after string, limit int) ([]string, error) {
			var position kms.KeyID
			if after != "" {
				position = mustID(after)
			}
			ids, err := tx.KeysRotating(position, limit)
			return names(ids, kms.KeyID.String), err
		})
	}
	check()
	var done kms.KeyID
	update(t, a, func(tx kms.Tx) error {
		done = mustID(rotating[0])
		k, err := tx.Key(done)
		return errors.Join(err, tx.SetMaterialRef(k.Materials[1].ID, hsm.Ref("x")))
	})
	rotating = rotating[1:]
	check()
}

func testPolicyAndTags(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	k, bystander := newKey(kms.StateEnabled), newKey(kms.StateEnabled)
	bystander.Tags = map[string]string{"a": "its own"}
	insertKeys(t, a, k, bystander)
	check := func() {
		t.Helper()
		view(t, b, func(tx kms.Tx) error {
			for _, k := range []*kms.Key{k, bystander} {
				got, err := tx.Key(k.ID)
				want(t, err, nil)
				same(t, got, k)
			}
			return nil
		})
	}
	k.Policy = `{"Version":"2012-10-17","Id":"ü"}`
	update(t, a, func(tx kms.Tx) error {
		want(t, tx.SetPolicy(newID(), "{}"), kms.ErrNotStored)
		return tx.SetPolicy(k.ID, k.Policy)
	})
	check()

	update(t, a, func(tx kms.Tx) error { return tx.SetTags(k.ID, map[string]string{"a": "1", "B": "2", "": ""}) })
	k.Tags = map[string]string{"a": "1", "B": "2", "": ""}
	check()
	update(t, a, func(tx kms.Tx) error { return tx.SetTags(k.ID, map[string]string{"a": "3", "A": "4"}) })
	k.Tags["a"], k.Tags["A"] = "3", "4"
	check()
	update(t, a, func(tx kms.Tx) error { return tx.DeleteTags(k.ID, []string{"a", "none", "", "a"}) })
	delete(k.Tags, "a")
	delete(k.Tags, "")
	check()
	update(t, a, func(tx kms.Tx) error {
		return errors.Join(tx.SetTags(k.ID, nil), tx.DeleteTags(k.ID, nil), tx.DeleteTags(k.ID, []string{"A", "B"}))
	})
	k.Tags = nil
	check()
	update(t, a, func(tx kms.Tx) error {
		for _, tags := range []map[string]string{nil, {"a": "b"}} {
			want(t, tx.SetTags(newID(), tags), kms.ErrNotStored)
		}
		for _, names := range [][]string{nil, {"a"}} {
			want(t, tx.DeleteTags(newID(), names), kms.ErrNotStored)
		}
		return nil
	})
}

func testMaterialUses(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	k := newKey(kms.StateEnabled)
	insertKeys(t, a, k)
	second := newMaterial()
	second.Ref = nil
	update(t, a, func(tx kms.Tx) error { return tx.InsertMaterial(k.ID, &second) })
	uses := func(id hsm.ID) (n int64) {
		t.Helper()
		view(t, b, func(tx kms.Tx) (err error) {
			n, err = tx.MaterialUses(id)
			return err
		})
		return n
	}
	first := k.Materials[0].ID
	same(t, uses(first), int64(0))
	same(t, uses(second.ID), int64(0))
	const many = 1 << 33
	for _, step := range [][2]int64{{0, 1}, {1, 1024}, {1024, many}, {many, many - 5}, {many - 5, many - 5}} {
		update(t, a, func(tx kms.Tx) error { return tx.SetMaterialUses(first, step[0], step[1]) })
		same(t, uses(first), step[1])
	}
	same(t, uses(second.ID), int64(0))
	update(t, a, func(tx kms.Tx) error {
		for _, from := range []int64{0, many, many - 4} {
			want(t, tx.SetMaterialUses(first, from, 7), kms.ErrConflict)
		}
		want(t, tx.SetMaterialUses(newMaterialID(), 0, 1), kms.ErrNotStored)
		_, err := tx.MaterialUses(newMaterialID())
		want(t, err, kms.ErrNotStored)
		return nil
	})
	same(t, uses(first), int64(many-5))
	if err := a.Update(t.Context(), func(tx kms.Tx) error { return tx.SetMaterialUses(first, many-5, -1) }); err == nil {
		t.Error("a number of uses below none was stored")
	}
	same(t, uses(first), int64(many-5))
}

// Whoever adds to what it read in the same transaction adds to what is there.
func testMaterialUsesShared(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	k := newKey(kms.StateEnabled)
	insertKeys(t, a, k)
	id := k.Materials[0].ID
	const each = 50
	var all sync.WaitGroup
	for _, s := range []kms.Store{a, b, a, b} {
		all.Go(func() {
			for range each {
				err := s.Update(t.Context(), func(tx kms.Tx) error {
					n, err := tx.MaterialUses(id)
					if err != nil {
						return err
					}
					return tx.SetMaterialUses(id, n, n+3)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	view(t, a, func(tx kms.Tx) error {
		n, err := tx.MaterialUses(id)
		same(t, n, int64(4*each*3))
		return err
	})
}
