package store_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"strongroom/hsm"
	"strongroom/kms"
)

const (
	account = "111122223333"
	other   = "444455556666"
)

// testStore holds a store to every promise of kms.Store and kms.Tx. open returns two handles to one new and empty store.
func testStore(t *testing.T, open func(t *testing.T) (a, b kms.Store)) {
	for _, test := range []struct {
		name string
		test func(t *testing.T, a, b kms.Store)
	}{
		{"deployment", testDeployment},
		{"usage since", testUsageSince},
		{"system keys", testSystemKeys},
		{"accounts", testAccounts},
		{"principals", testPrincipals},
		{"list of principals", testListPrincipals},
		{"change of a principal", testChangePrincipal},
		{"credentials", testCredentials},
		{"list of credentials", testListCredentials},
		{"expired credentials", testDeleteExpired},
		{"use", testUse},
		{"events", testEvents},
		{"every event is taken once", testEventsTaken},
		{"key", testKey},
		{"key refused", testKeyRefused},
		{"state", testState},
		{"material ref", testMaterialRef},
		{"description", testDescription},
		{"policy and tags", testPolicyAndTags},
		{"rotation", testRotation},
		{"keys to rotate", testKeysToRotate},
		{"new material", testInsertMaterial},
		{"uses of a material", testMaterialUses},
		{"no use of a material is given twice", testMaterialUsesShared},
		{"keys rotating", testKeysRotating},
		{"delete", testDelete},
		{"keys", testKeys},
		{"keys in state", testKeysInState},
		{"aliases", testAliases},
		{"grant", testGrant},
		{"lists of grants", testListGrants},
		{"finding grants", testFindGrants},
		{"all or nothing", testAllOrNothing},
		{"an error of the database cannot be passed over", testSpent},
		{"view only reads", testViewReads},
		{"view is one state", testViewSnapshot},
		{"visible at once", testVisible},
		{"generation", testGeneration},
		{"what raises the generation", testLoud},
		{"what was changed", testChanges},
		{"audit anchor", testAuditAnchor},
		{"what does not raise the generation", testQuiet},
		{"exactly one change of state wins", testOneWins},
		{"no update is lost", testNoLostUpdate},
		{"context", testContext},
		{"transaction after its end", testKeptTx},
		{"results are the caller's", testOwnResults},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, b := open(t)
			test.test(t, a, b)
		})
	}
}

func testDeployment(t *testing.T, a, b kms.Store) {
	view(t, a, func(tx kms.Tx) error {
		_, err := tx.Deployment()
		want(t, err, kms.ErrNotStored)
		return nil
	})
	d := &kms.Deployment{
		ID: "2a0c8f4e-5a7e-4d05-8e4a-0d7f5b1a9c11", Created: exact(), Partition: "aws", Region: "eu-central-1", TokenSerial: "0123abcd",
		UsageSince: exact().Add(time.Minute),
	}
	update(t, a, func(tx kms.Tx) error { return tx.InsertDeployment(d) })
	update(t, a, func(tx kms.Tx) error {
		want(t, tx.InsertDeployment(d), kms.ErrConflict)
		return nil
	})
	view(t, b, func(tx kms.Tx) error {
		got, err := tx.Deployment()
		same(t, got, d)
		return err
	})
}

func testKey(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	plain := newKey(kms.StateCreating)
	plain.Materials[0].Ref = nil

	full := newKey(kms.StatePendingDeletion)
	full.ID = newMRK()
	full.Description = "déjà vu ☂"
	full.Policy = `{"Version":"2012-10-17"}`
	full.DeletionDate = exact().Add(7 * 24 * time.Hour)
	full.Tags = map[string]string{"a": "1", "": "", "ü": "x"}
	for range 12 { // more than nine, so that the order is by number and not by text
		full.Materials = append(full.Materials, newMaterial())
	}
	insertKeys(t, a, plain, full)
	view(t, b, func(tx kms.Tx) error {
		for _, k := range []*kms.Key{plain, full} {
			got, err := tx.Key(k.ID)
			want(t, err, nil)
			same(t, got, k)
			for _, m := range k.Materials {
				id, err := tx.KeyOfMaterial(m.ID)
				want(t, err, nil)
				same(t, id, k.ID)
			}
		}
		_, err := tx.Key(newID())
		want(t, err, kms.ErrNotStored)
		_, err = tx.KeyOfMaterial(newMaterialID())
		want(t, err, kms.ErrNotStored)
		return nil
	})

	// Times are kept to the millisecond, in UTC.
	k := newKey(kms.StateEnabled)
	k.Created = time.Date(2026, 1, 2, 3, 4, 5, 678_999_999, time.FixedZone("", 3600))
	insertKeys(t, a, k)
	view(t, b, func(tx kms.Tx) error {
		got, err := tx.Key(k.ID)
		want(t, err, nil)
		same(t, got.Created, time.Date(2026, 1, 2, 2, 4, 5, 678_000_000, time.UTC))
		return nil
	})
}

func testKeyRefused(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	k := newKey(kms.StateEnabled)
	insertKeys(t, a, k)

	again := newKey(kms.StateDisabled)
	again.ID = k.ID
	update(t, a, func(tx kms.Tx) error {
		want(t, tx.InsertKey(again), kms.ErrConflict)
		got, err := tx.Key(k.ID)
		same(t, got, k)
		return err
	})

	// A material belongs to one key. Not even a caller that passes over the error gets a part of the second key stored.
	thief := newKey(kms.StateEnabled)
	thief.Materials = append(thief.Materials, k.Materials[0])
	err := a.Update(t.Context(), func(tx kms.Tx) error {
		want(t, tx.InsertKey(thief), kms.ErrConflict)
		return nil
	})
	want(t, err, kms.ErrConflict)

	for _, spoil := range []func(*kms.Key){
		func(k *kms.Key) { k.ID = kms.KeyID{} },
		func(k *kms.Key) { k.State = "" },
		func(k *kms.Key) { k.State = "enabled" },
		func(k *kms.Key) { k.Materials = nil },
		func(k *kms.Key) { k.Materials[0].Ref = make(hsm.Ref, 257) },
		func(k *kms.Key) { k.Account = "777788889999" },
	} {
		bad := newKey(kms.StateEnabled)
		spoil(bad)
		if err := a.Update(t.Context(), func(tx kms.Tx) error { return tx.InsertKey(bad) }); err == nil {
			t.Errorf("stored %+v", bad)
		}
	}
	view(t, b, func(tx kms.Tx) error {
		ids, err := tx.Keys(account, kms.KeyID{}, 100)
		same(t, ids, []kms.KeyID{k.ID})
		return err
	})
}

func testState(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	k := newKey(kms.StateEnabled)
	insertKeys(t, a, k)
	date := exact().Add(time.Hour)
	steps := []struct {
		from, to kms.KeyState
		deletion time.Time
		want     error
	}{
		{kms.StateDisabled, kms.StateEnabled, time.Time{}, kms.ErrConflict},
		{kms.StateEnabled, kms.StateDisabled, time.Time{}, nil},
		{kms.StateEnabled, kms.StateDisabled, time.Time{}, kms.ErrConflict},
		{kms.StateDisabled, kms.StatePendingDeletion, date, nil},
		{kms.StateDisabled, kms.StatePendingDeletion, date.Add(time.Hour), kms.ErrConflict},
		{kms.StatePendingDeletion, kms.StateDisabled, time.Time{}, nil},
	}
	state, deletion := kms.StateEnabled, time.Time{}
	for _, s := range steps {
		update(t, a, func(tx kms.Tx) error {
			want(t, tx.SetState(k.ID, s.from, s.to, s.deletion), s.want)
			return nil
		})
		if s.want == nil {
			state, deletion = s.to, s.deletion
		}
		view(t, b, func(tx kms.Tx) error {
			got, err := tx.Key(k.ID)
			want(t, err, nil)
			same(t, got.State, state)
			same(t, got.DeletionDate, deletion)
			return nil
		})
	}
	update(t, a, func(tx kms.Tx) error {
		want(t, tx.SetState(newID(), kms.StateEnabled, kms.StateDisabled, time.Time{}), kms.ErrNotStored)
		if tx.SetState(k.ID, kms.StateDisabled, "Sleeping", time.Time{}) == nil || tx.SetState(k.ID, "", kms.StateEnabled, time.Time{}) == nil {
			t.Error("an unknown state was accepted")
		}
		return nil
	})
}

func testMaterialRef(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	k := newKey(kms.StateCreating)
	k.Materials[0].Ref = nil
	insertKeys(t, a, k)
	id := k.Materials[0].ID
	update(t, a, func(tx kms.Tx) error {
		want(t, tx.SetMaterialRef(newMaterialID(), hsm.Ref("x")), kms.ErrNotStored)
		if tx.SetMaterialRef(id, nil) == nil || tx.SetMaterialRef(id, make(hsm.Ref, 257)) == nil {
			t.Error("a ref of impossible size was accepted")
		}
		return tx.SetMaterialRef(id, hsm.Ref("first"))
	})
	update(t, a, func(tx kms.Tx) error {
		want(t, tx.SetMaterialRef(id, hsm.Ref("second")), kms.ErrConflict)
		return nil
	})
	view(t, b, func(tx kms.Tx) error {
		got, err := tx.Key(k.ID)
		want(t, err, nil)
		same(t, got.Materials[0].Ref, hsm.Ref("first"))
		return nil
	})
}

func testDescription(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	k := newKey(kms.StateEnabled)
	insertKeys(t, a, k)
	update(t, a, func(tx kms.Tx) error {
		want(t, tx.SetDescription(newID(), "x"), kms.ErrNotStored)
		return tx.SetDescription(k.ID, "new")
	})
	view(t, b, func(tx kms.Tx) error {
		got, err := tx.Key(k.ID)
		want(t, err, nil)
		same(t, got.Description, "new")
		return nil
	})
}

func testDelete(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	for _, state := range []kms.KeyState{kms.StateCreating, kms.StateEnabled, kms.StateDisabled, kms.StatePendingDeletion, kms.StateDestroying} {
		k, bystander := newKey(state), newKey(kms.StateEnabled)
		k.Tags = map[string]string{"a": "b"}
		k.Materials = append(k.Materials, newMaterial())
		bystander.Tags = k.Tags
		insertKeys(t, a, k, bystander)
		grant, kept := newGrant(k.ID, alice), newGrant(bystander.ID, alice)
		insertGrants(t, a, grant, newGrant(k.ID, builder), kept)
		update(t, a, func(tx kms.Tx) error {
			return tx.RecordUse(nil, []kms.KeyUse{{Key: k.ID, Operation: "Encrypt", Time: exact()}, {Key: bystander.ID, Operation: "Encrypt", Time: exact()}})
		})
		update(t, a, func(tx kms.Tx) error {
			return errors.Join(tx.InsertAlias(newAlias("alias/"+string(state), k.ID)), tx.InsertAlias(newAlias("alias/by-"+string(state), bystander.ID)))
		})
		goes := state == kms.StateCreating || state == kms.StateDestroying
		update(t, a, func(tx kms.Tx) error {
			err := tx.DeleteKey(k.ID, time.Now())
			if goes {
				want(t, err, nil)
			} else {
				want(t, err, kms.ErrConflict)
			}
			return nil
		})
		view(t, b, func(tx kms.Tx) error {
			_, key := tx.Key(k.ID)
			_, alias := tx.Alias(account, "alias/"+string(state))
			_, material := tx.KeyOfMaterial(k.Materials[1].ID)
			_, granted := tx.Grant(k.ID, grant.ID)
			_, use := tx.KeyUse(k.ID)
			buried, destroyed, err := tx.Tombstone(k.Materials[1].ID)
			if state == kms.StateDestroying {
				want(t, err, nil)
				same(t, buried, k.ID)
				if since := time.Since(destroyed); since < 0 || since > time.Minute {
					t.Errorf("destroyed on %v", destroyed)
				}
			} else {
				want(t, err, kms.ErrNotStored)
			}
			for _, err := range []error{key, alias, material, granted, use} {
				if goes {
					want(t, err, kms.ErrNotStored)
				} else {
					want(t, err, nil)
				}
			}
			got, err := tx.Key(bystander.ID)
			want(t, err, nil)
			same(t, got, bystander)
			n, err := tx.CountAliases(bystander.ID)
			want(t, err, nil)
			same(t, n, 1)
			_, err = tx.Grant(bystander.ID, kept.ID)
			want(t, err, nil)
			_, err = tx.KeyUse(bystander.ID)
			want(t, err, nil)
			return nil
		})
		if state != kms.StateDestroying {
			continue
		}
		// What was destroyed does not come back, neither the key nor a material of it.
		update(t, a, func(tx kms.Tx) error {
			again, other := newKey(kms.StateEnabled), newKey(kms.StateEnabled)
			again.ID = k.ID
			other.Materials = append(other.Materials, k.Materials[1])
			want(t, tx.InsertKey(again), kms.ErrConflict)
			want(t, tx.InsertKey(other), kms.ErrConflict)
			return nil
		})
	}
	update(t, a, func(tx kms.Tx) error {
		want(t, tx.DeleteKey(newID(), time.Now()), kms.ErrNotStored)
		return nil
	})
}

func testKeys(t *testing.T, a, b kms.Store) {
	const n = 20_000
	insertAccounts(t, a)
	var all []string
	update(t, a, func(tx kms.Tx) error {
		states := []kms.KeyState{kms.StateEnabled, kms.StateDisabled, kms.StatePendingDeletion}
		for i := range n {
			k := newKey(states[i%3])
			if i%10 == 0 {
				k.ID = newMRK()
			}
			if err := tx.InsertKey(k); err != nil {
				return err
			}
			all = append(all, k.ID.String())
			// Between them, keys that are not to be listed.
			if i%100 == 0 {
				foreign := newKey(kms.StateEnabled)
				foreign.Account = other
				if err := errors.Join(tx.InsertKey(newKey(kms.StateCreating)), tx.InsertKey(newKey(kms.StateDestroying)), tx.InsertKey(foreign)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	slices.Sort(all)
	for _, size := range []int{1000, 77, n, n + 1} {
		var got []string
		view(t, b, func(tx kms.Tx) error {
			got = nil
			var after kms.KeyID
			for {
				page, err := tx.Keys(account, after, size)
				if err != nil {
					return err
				}
				if len(page) > size {
					t.Fatalf("asked for %d keys and got %d", size, len(page))
				}
				for _, id := range page {
					got = append(got, id.String())
				}
				if len(page) < size {
					return nil
				}
				after = page[len(page)-1]
			}
		})
		if !slices.Equal(got, all) {
			t.Errorf("pages of %d: %d keys, which are not the %d in order", size, len(got), n)
		}
	}
	view(t, b, func(tx kms.Tx) error {
		for _, limit := range []int{0, -1} {
			ids, err := tx.Keys(account, kms.KeyID{}, limit)
			want(t, err, nil)
			same(t, len(ids), 0)
		}
		ids, err := tx.Keys("777788889999", kms.KeyID{}, 10)
		same(t, len(ids), 0)
		return err
	})
}

func testKeysInState(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	now := exact()
	var pending []*kms.Key
	for i := range 5 {
		k := newKey(kms.StatePendingDeletion)
		k.DeletionDate = now.Add(time.Duration(i) * time.Hour)
		if i%2 == 0 {
			k.Account = other
		}
		pending = append(pending, k)
	}
	creating := newKey(kms.StateCreating)
	insertKeys(t, a, append(slices.Clone(pending), creating, newKey(kms.StateEnabled))...)
	list := func(state kms.KeyState, due time.Time, limit int) map[kms.KeyID]bool {
		set := make(map[kms.KeyID]bool)
		view(t, b, func(tx kms.Tx) error {
			ids, err := tx.KeysInState(state, due, limit)
			if len(ids) > limit {
				t.Errorf("asked for %d keys and got %d", limit, len(ids))
			}
			for _, id := range ids {
				set[id] = true
			}
			return err
		})
		return set
	}
	same(t, list(kms.StateCreating, time.Time{}, 10), map[kms.KeyID]bool{creating.ID: true})
	same(t, len(list(kms.StatePendingDeletion, time.Time{}, 10)), 5)
	same(t, len(list(kms.StatePendingDeletion, time.Time{}, 3)), 3)
	same(t, len(list(kms.StatePendingDeletion, time.Time{}, 0)), 0)
	same(t, len(list(kms.StateDestroying, time.Time{}, 10)), 0)
	for i := range pending {
		due := make(map[kms.KeyID]bool)
		for _, k := range pending[:i+1] {
			due[k.ID] = true
		}
		same(t, list(kms.StatePendingDeletion, now.Add(time.Duration(i)*time.Hour), 10), due)
	}
	same(t, len(list(kms.StatePendingDeletion, now.Add(-time.Millisecond), 10)), 0)
	same(t, len(list(kms.StateEnabled, now, 10)), 0) // no deletion date, so not due
	view(t, b, func(tx kms.Tx) error {
		if _, err := tx.KeysInState("Sleeping", time.Time{}, 10); err == nil {
			t.Error("an unknown state was accepted")
		}
		return nil
	})
}

func testAliases(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	k, l := newKey(kms.StateEnabled), newKey(kms.StateEnabled)
	insertKeys(t, a, k, l)
	// In byte order, which is neither that of a dictionary nor without regard to case.
	names := []string{"alias/B", "alias/Z", "alias/_", "alias/a", "alias/a/b", "alias/ab", "alias/z", "alias/é"}
	update(t, a, func(tx kms.Tx) error {
		for i, name := range slices.Backward(names) {
			key := k.ID
			if i%2 == 1 {
				key = l.ID
			}
			if err := tx.InsertAlias(newAlias(name, key)); err != nil {
				return err
			}
		}
		foreign := newAlias("alias/a", k.ID)
		foreign.Account = other
		return tx.InsertAlias(foreign)
	})
	update(t, a, func(tx kms.Tx) error {
		want(t, tx.InsertAlias(newAlias("alias/a", l.ID)), kms.ErrConflict)
		return nil
	})
	want(t, a.Update(t.Context(), func(tx kms.Tx) error { return tx.InsertAlias(newAlias("alias/new", newID())) }), kms.ErrNotStored)

	list := func(key kms.KeyID, after string, limit int) (got []string) {
		view(t, b, func(tx kms.Tx) error {
			got = nil
			all, err := tx.Aliases(account, key, after, limit)
			for _, a := range all {
				got = append(got, a.Name)
			}
			return err
		})
		return got
	}
	same(t, list(kms.KeyID{}, "", 100), names)
	same(t, list(kms.KeyID{}, "", 3), names[:3])
	same(t, list(kms.KeyID{}, names[2], 100), names[3:])
	same(t, list(kms.KeyID{}, "alias/aa", 1), []string{"alias/ab"})
	same(t, list(k.ID, "", 100), []string{names[0], names[2], names[4], names[6]})
	same(t, list(k.ID, names[2], 1), []string{names[4]})
	same(t, len(list(kms.KeyID{}, "", 0)), 0)
	view(t, b, func(tx kms.Tx) error {
		n, err := tx.CountAliases(k.ID)
		want(t, err, nil)
		same(t, n, 5) // of both accounts
		n, err = tx.CountAliases(newID())
		want(t, err, nil)
		same(t, n, 0)
		return nil
	})

	was := newAlias("alias/move", k.ID)
	update(t, a, func(tx kms.Tx) error { return tx.InsertAlias(was) })
	moved := exact().Add(time.Minute)
	update(t, a, func(tx kms.Tx) error {
		want(t, tx.MoveAlias(account, was.Name, l.ID, k.ID, moved), kms.ErrConflict)
		want(t, tx.MoveAlias(account, "alias/none", k.ID, l.ID, moved), kms.ErrNotStored)
		return tx.MoveAlias(account, was.Name, k.ID, l.ID, moved)
	})
	want(t, a.Update(t.Context(), func(tx kms.Tx) error { return tx.MoveAlias(account, was.Name, l.ID, newID(), moved) }), kms.ErrNotStored)
	view(t, b, func(tx kms.Tx) error {
		got, err := tx.Alias(account, was.Name)
		now := *was
		now.Key, now.Updated = l.ID, moved
		same(t, got, &now)
		return err
	})
	update(t, a, func(tx kms.Tx) error {
		want(t, tx.DeleteAlias(account, "alias/none", kms.KeyID{}), kms.ErrNotStored)
		want(t, tx.DeleteAlias(other, was.Name, was.Key), kms.ErrNotStored)
		want(t, tx.DeleteAlias(account, was.Name, was.Key), kms.ErrConflict)
		return tx.DeleteAlias(account, was.Name, l.ID)
	})
	view(t, b, func(tx kms.Tx) error {
		_, err := tx.Alias(account, was.Name)
		want(t, err, kms.ErrNotStored)
		_, err = tx.Alias(other, "alias/a")
		return err
	})
}

func testAllOrNothing(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	write := func(tx kms.Tx) {
		for range 3 {
			want(t, tx.InsertKey(newKey(kms.StateEnabled)), nil)
		}
	}
	mine := errors.New("mine")
	err := a.Update(t.Context(), func(tx kms.Tx) error { write(tx); return mine })
	want(t, err, mine)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		a.Update(t.Context(), func(tx kms.Tx) error { write(tx); panic("mine") })
	}()
	var ended sync.WaitGroup
	ended.Go(func() {
		a.Update(t.Context(), func(tx kms.Tx) error { write(tx); runtime.Goexit(); return nil })
	})
	ended.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	err = a.Update(ctx, func(tx kms.Tx) error { write(tx); cancel(); return nil })
	want(t, err, context.Canceled)
	want(t, a.View(t.Context(), func(tx kms.Tx) error { return mine }), mine)

	view(t, b, func(tx kms.Tx) error {
		ids, err := tx.Keys(account, kms.KeyID{}, 10)
		same(t, len(ids), 0)
		return err
	})
	// A refusal that changed nothing does not keep the rest from being stored.
	k := newKey(kms.StateEnabled)
	update(t, a, func(tx kms.Tx) error {
		want(t, tx.InsertKey(k), nil)
		want(t, tx.InsertKey(k), kms.ErrConflict)
		want(t, tx.SetDescription(newID(), ""), kms.ErrNotStored)
		return nil
	})
	view(t, b, func(tx kms.Tx) error { _, err := tx.Key(k.ID); return err })
}

func testSpent(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	k := newKey(kms.StateEnabled)
	err := a.Update(t.Context(), func(tx kms.Tx) error {
		want(t, tx.InsertKey(k), nil)
		want(t, tx.InsertAlias(newAlias("alias/a", newID())), kms.ErrNotStored)
		if err := tx.SetDescription(k.ID, "x"); err == nil {
			t.Error("the transaction went on")
		}
		if _, err := tx.Key(k.ID); err == nil {
			t.Error("the transaction went on")
		}
		return nil
	})
	want(t, err, kms.ErrNotStored)
	view(t, b, func(tx kms.Tx) error {
		_, err := tx.Key(k.ID)
		want(t, err, kms.ErrNotStored)
		return nil
	})
}

func testViewReads(t *testing.T, a, b kms.Store) {
	things := insertThings(t, a)
	before, err := a.Generation(t.Context())
	want(t, err, nil)
	view(t, a, func(tx kms.Tx) error {
		for name, write := range things.writes {
			if err := write(tx); err == nil || errors.Is(err, kms.ErrConflict) || errors.Is(err, kms.ErrNotStored) {
				t.Errorf("%s in a View: %v", name, err)
			}
		}
		// Also where there would be nothing to do.
		for name, err := range map[string]error{
			"SetPrincipalTags":      tx.SetPrincipalTags(account, kms.User, "none", nil),
			"DeletePrincipalPolicy": tx.DeletePrincipalPolicy(account, kms.User, "none", "p"),
			"RecordUse":             tx.RecordUse(nil, nil),
			"DeleteEvents":          tx.DeleteEvents(0),
			"SetTags":               tx.SetTags(things.key.ID, nil),
			"DeleteTags":            tx.DeleteTags(things.key.ID, nil),
			"InsertMaterial":        tx.InsertMaterial(newID(), &kms.Material{ID: newMaterialID()}),
			"DeleteKey":             tx.DeleteKey(newID(), time.Now()),
		} {
			if err == nil || errors.Is(err, kms.ErrNotStored) {
				t.Errorf("%s in a View: %v", name, err)
			}
		}
		_, err := tx.DeleteExpired(time.Now(), 0)
		if err == nil {
			t.Error("DeleteExpired in a View")
		}
		got, err := tx.Key(things.key.ID)
		same(t, got, things.key)
		return err
	})
	after, err := b.Generation(t.Context())
	want(t, err, nil)
	same(t, after, before)
}

// quiet are the methods that are no change to the generation.
var quiet = []string{"DeleteExpired", "RecordUse", "InsertEvent", "DeleteEvents", "SetAuditAnchor"}

func testLoud(t *testing.T, a, b kms.Store) {
	things := insertThings(t, a)
	for name, write := range things.writes {
		before, err := b.Generation(t.Context())
		want(t, err, nil)
		undo := errors.New("undo")
		want(t, a.Update(t.Context(), func(tx kms.Tx) error { return errors.Join(write(tx), undo) }), undo)
		after, err := b.Generation(t.Context())
		want(t, err, nil)
		same(t, after, before)
		update(t, a, func(tx kms.Tx) error {
			if err := write(tx); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
		after, err = b.Generation(t.Context())
		want(t, err, nil)
		if (after == before) != slices.Contains(quiet, name) {
			t.Errorf("%s: the generation went from %d to %d", name, before, after)
		}
	}
}

// things are one of everything, and for each method that writes something that it can do to them. None undoes what another needs.
type things struct {
	key    *kms.Key
	plain  kms.KeyID // of another one
	goes   kms.KeyID // of one that is deleted
	made   kms.KeyID // of one that is inserted
	writes map[string]func(kms.Tx) error
}

func insertThings(t testing.TB, s kms.Store) things {
	t.Helper()
	insertAccounts(t, s)
	key, plain, goes := newKey(kms.StateEnabled), newKey(kms.StateEnabled), newKey(kms.StateDestroying)
	key.Tags = map[string]string{"a": "b"}
	key.Materials = append(key.Materials, newMaterial())
	key.Materials[1].Ref = nil
	insertKeys(t, s, key, plain, goes)
	grant := newGrant(key.ID, alice)
	insertGrants(t, s, grant)
	move, drop := newAlias("alias/move", key.ID), newAlias("alias/drop", key.ID)
	user, leaver := newPrincipal(kms.User, "alice"), newPrincipal(kms.User, "bob")
	user.Policies = []kms.NamedPolicy{{Name: "p", Text: "{}"}}
	credential, leaves := newSession("ASIA0", time.Now().Add(time.Hour)), newSession("ASIA1", time.Now().Add(time.Hour))
	update(t, s, func(tx kms.Tx) error {
		return errors.Join(
			tx.InsertAlias(move), tx.InsertAlias(drop), tx.InsertPrincipal(user), tx.InsertPrincipal(leaver),
			tx.InsertCredential(credential), tx.InsertCredential(leaves), tx.InsertCredential(newSession("ASIA2", exact().Add(-time.Hour))),
			tx.InsertSystemKey(&kms.SystemKey{Name: "fresh", ID: newMaterialID()}), tx.InsertDeployment(&kms.Deployment{ID: "old"}),
			tx.InsertEvent([]byte("event")))
	})
	made := newKey(kms.StateEnabled)
	return things{key, plain.ID, goes.ID, made.ID, map[string]func(kms.Tx) error{
		"SetUsageSince":   func(tx kms.Tx) error { return tx.SetUsageSince(time.Now()) },
		"InsertSystemKey": func(tx kms.Tx) error { return tx.InsertSystemKey(&kms.SystemKey{Name: "new", ID: newMaterialID()}) },
		"SetAuditAnchor":  func(tx kms.Tx) error { return tx.SetAuditAnchor(&kms.AuditAnchor{Log: "log", Sequence: 1, File: 1}) },
		"SetSystemKeyRef": func(tx kms.Tx) error { return tx.SetSystemKeyRef("fresh", hsm.Ref("x")) },
		"InsertAccount":   func(tx kms.Tx) error { return tx.InsertAccount("777788889999", time.Now()) },
		"InsertPrincipal": func(tx kms.Tx) error { return tx.InsertPrincipal(newPrincipal(kms.Role, "alice")) },
		"SetPrincipalTags": func(tx kms.Tx) error {
			return tx.SetPrincipalTags(account, kms.User, "alice", map[string]string{"a": "b"})
		},
		"PutPrincipalPolicy": func(tx kms.Tx) error {
			return tx.PutPrincipalPolicy(account, kms.User, "alice", kms.NamedPolicy{Name: "q", Text: "{}"})
		},
		"DeletePrincipalPolicy": func(tx kms.Tx) error { return tx.DeletePrincipalPolicy(account, kms.User, "alice", "p") },
		"DeletePrincipal":       func(tx kms.Tx) error { return tx.DeletePrincipal(account, kms.User, "bob", time.Now()) },
		"InsertCredential":      func(tx kms.Tx) error { return tx.InsertCredential(newSession("ASIA3", time.Now())) },
		"SetCredentialActive":   func(tx kms.Tx) error { return tx.SetCredentialActive(credential.ID, false) },
		"DeleteCredential":      func(tx kms.Tx) error { return tx.DeleteCredential(leaves.ID) },
		"DeleteExpired":         func(tx kms.Tx) error { _, err := tx.DeleteExpired(time.Now(), 10); return err },
		"RecordUse": func(tx kms.Tx) error {
			return tx.RecordUse(map[string]time.Time{credential.ID: time.Now()}, []kms.KeyUse{{Key: key.ID, Time: time.Now()}})
		},
		"InsertEvent":    func(tx kms.Tx) error { return tx.InsertEvent([]byte("x")) },
		"DeleteEvents":   func(tx kms.Tx) error { return tx.DeleteEvents(1 << 62) },
		"InsertKey":      func(tx kms.Tx) error { return tx.InsertKey(made) },
		"SetState":       func(tx kms.Tx) error { return tx.SetState(key.ID, kms.StateEnabled, kms.StateDisabled, time.Time{}) },
		"SetMaterialRef": func(tx kms.Tx) error { return tx.SetMaterialRef(key.Materials[1].ID, hsm.Ref("x")) },
		"InsertMaterial": func(tx kms.Tx) error { return tx.InsertMaterial(plain.ID, &kms.Material{ID: newMaterialID()}) },
		"SetRotation":    func(tx kms.Tx) error { return tx.SetRotation(key.ID, kms.Rotation{Days: 365, Next: time.Now()}) },
		"SetDescription": func(tx kms.Tx) error { return tx.SetDescription(key.ID, "x") },
		"SetPolicy":      func(tx kms.Tx) error { return tx.SetPolicy(key.ID, "x") },
		"SetTags":        func(tx kms.Tx) error { return tx.SetTags(key.ID, map[string]string{"c": "d"}) },
		"DeleteTags":     func(tx kms.Tx) error { return tx.DeleteTags(key.ID, []string{"a"}) },
		"DeleteKey":      func(tx kms.Tx) error { return tx.DeleteKey(goes.ID, time.Now()) },
		"InsertAlias":    func(tx kms.Tx) error { return tx.InsertAlias(newAlias("alias/new", key.ID)) },
		"MoveAlias":      func(tx kms.Tx) error { return tx.MoveAlias(account, move.Name, key.ID, plain.ID, time.Now()) },
		"DeleteAlias":    func(tx kms.Tx) error { return tx.DeleteAlias(account, drop.Name, drop.Key) },
		"InsertGrant":    func(tx kms.Tx) error { return tx.InsertGrant(newGrant(key.ID, builder)) },
		"DeleteGrant":    func(tx kms.Tx) error { return tx.DeleteGrant(key.ID, grant.ID) },
	}}
}

func testViewSnapshot(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	k := newKey(kms.StateEnabled)
	k.Tags = map[string]string{"v": "0"}
	insertKeys(t, a, k)
	l := newKey(kms.StateEnabled)
	for _, writer := range []kms.Store{a, b} {
		view(t, a, func(tx kms.Tx) error {
			before, err := tx.Key(k.ID)
			want(t, err, nil)
			done := make(chan error)
			go func() {
				done <- writer.Update(context.Background(), func(tx kms.Tx) error {
					l = newKey(kms.StateEnabled)
					return errors.Join(tx.SetDescription(k.ID, before.Description+"+"), tx.InsertKey(l))
				})
			}()
			want(t, <-done, nil)
			after, err := tx.Key(k.ID)
			same(t, after, before)
			want(t, err, nil)
			_, err = tx.Key(l.ID)
			want(t, err, kms.ErrNotStored)
			return nil
		})
		view(t, a, func(tx kms.Tx) error { _, err := tx.Key(l.ID); return err })
	}

	// Two values that every Update changes together are never seen apart.
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for i, s := range []kms.Store{a, b} {
		running.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				text := fmt.Sprint(i, "-", n)
				err := s.Update(context.Background(), func(tx kms.Tx) error {
					return errors.Join(tx.SetDescription(k.ID, text), tx.SetDescription(l.ID, text))
				})
				want(t, err, nil)
			}
		})
	}
	update(t, a, func(tx kms.Tx) error { return errors.Join(tx.SetDescription(k.ID, ""), tx.SetDescription(l.ID, "")) })
	for range 300 {
		view(t, b, func(tx kms.Tx) error {
			x, err := tx.Key(k.ID)
			want(t, err, nil)
			y, err := tx.Key(l.ID)
			want(t, err, nil)
			same(t, x.Description, y.Description)
			return nil
		})
	}
	cancel()
	running.Wait()
}

func testVisible(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	for i := range 50 {
		writer, reader := a, b
		if i%2 == 1 {
			writer, reader = b, a
		}
		k := newKey(kms.StateEnabled)
		insertKeys(t, writer, k)
		view(t, reader, func(tx kms.Tx) error { _, err := tx.Key(k.ID); return err })
	}
}

func testGeneration(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	k := newKey(kms.StateEnabled)
	insertKeys(t, a, k)
	seen := make(map[int64]bool)
	var last int64
	check := func(what string, changed bool) {
		t.Helper()
		g, err := a.Generation(t.Context())
		want(t, err, nil)
		h, err := b.Generation(t.Context())
		want(t, err, nil)
		same(t, h, g)
		if seen[g] && changed {
			t.Errorf("%s: the generation %d has been there before", what, g)
		}
		if g != last && !changed {
			t.Errorf("%s: the generation went from %d to %d", what, last, g)
		}
		seen[g], last = true, g
	}
	check("at first", true)
	for i, s := range []kms.Store{a, b, a, b} {
		update(t, s, func(tx kms.Tx) error { return tx.SetDescription(k.ID, strconv.Itoa(i)) })
		check("update", true)
	}
	update(t, a, func(tx kms.Tx) error { _, err := tx.Key(k.ID); return err })
	check("an update that read", false)
	update(t, a, func(tx kms.Tx) error {
		want(t, tx.InsertKey(k), kms.ErrConflict)
		want(t, tx.InsertAccount(account, time.Now()), kms.ErrConflict)
		want(t, tx.SetState(k.ID, kms.StateDisabled, kms.StateEnabled, time.Time{}), kms.ErrConflict)
		want(t, tx.DeleteAlias(account, "alias/none", kms.KeyID{}), kms.ErrNotStored)
		return nil
	})
	check("an update that was refused everything", false)
	a.Update(t.Context(), func(tx kms.Tx) error { return errors.Join(tx.SetDescription(k.ID, "x"), errors.New("mine")) })
	check("an update that failed", false)
	view(t, a, func(tx kms.Tx) error { _, err := tx.Key(k.ID); return err })
	check("a view", false)
	update(t, b, func(tx kms.Tx) error { return tx.SetState(k.ID, kms.StateEnabled, kms.StateDisabled, time.Time{}) })
	check("after all that", true)
}

func testOneWins(t *testing.T, a, b kms.Store) {
	const keys, rivals = 20, 8
	insertAccounts(t, a)
	var all []*kms.Key
	for range keys {
		all = append(all, newKey(kms.StateEnabled))
	}
	insertKeys(t, a, all...)
	wins := make([]int, keys)
	var mu sync.Mutex
	var racing sync.WaitGroup
	for i := range rivals {
		s := a
		if i%2 == 1 {
			s = b
		}
		racing.Go(func() {
			for n, k := range all {
				err := s.Update(t.Context(), func(tx kms.Tx) error {
					return tx.SetState(k.ID, kms.StateEnabled, kms.StateDisabled, time.Time{})
				})
				if err == nil {
					mu.Lock()
					wins[n]++
					mu.Unlock()
				} else {
					want(t, err, kms.ErrConflict)
				}
			}
		})
	}
	racing.Wait()
	for _, n := range wins {
		if n != 1 {
			t.Errorf("a change of state was won %d times", n)
		}
	}
}

func testNoLostUpdate(t *testing.T, a, b kms.Store) {
	const writers, each = 6, 40
	insertAccounts(t, a)
	k := newKey(kms.StateEnabled)
	k.Description = "0"
	insertKeys(t, a, k)
	var writing sync.WaitGroup
	for i := range writers {
		s := a
		if i%2 == 1 {
			s = b
		}
		writing.Go(func() {
			for range each {
				want(t, s.Update(t.Context(), func(tx kms.Tx) error { return increment(tx, k.ID) }), nil)
			}
		})
	}
	writing.Wait()
	view(t, a, func(tx kms.Tx) error {
		got, err := tx.Key(k.ID)
		same(t, got.Description, strconv.Itoa(writers*each))
		return err
	})
}

// increment adds one to the number in the description of a key.
func increment(tx kms.Tx, id kms.KeyID) error {
	k, err := tx.Key(id)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(k.Description)
	if err != nil {
		return err
	}
	return tx.SetDescription(id, strconv.Itoa(n+1))
}

func testContext(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	called := func(kms.Tx) error { t.Error("called with a context that had ended"); return nil }
	want(t, a.View(ended, called), context.Canceled)
	want(t, a.Update(ended, called), context.Canceled)
	_, err := a.Generation(ended)
	want(t, err, context.Canceled)

	// While it runs.
	ctx, cancel := context.WithCancel(t.Context())
	want(t, a.View(ctx, func(tx kms.Tx) error {
		cancel()
		_, err := tx.Keys(account, kms.KeyID{}, 1)
		return err
	}), context.Canceled)

	// While another writes: in the same process by the same handle, and as if in another by the other handle.
	for _, holder := range []kms.Store{a, b} {
		holds, release := make(chan bool), make(chan bool)
		var holding sync.WaitGroup
		holding.Go(func() {
			holder.Update(context.Background(), func(tx kms.Tx) error {
				err := tx.InsertKey(newKey(kms.StateEnabled))
				close(holds)
				<-release
				return err
			})
		})
		<-holds
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		start := time.Now()
		want(t, a.Update(ctx, called), context.DeadlineExceeded)
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("heard the end of its context after %v", took)
		}
		cancel()
		// A reader does not wait for the writer.
		view(t, a, func(tx kms.Tx) error { _, err := tx.Keys(account, kms.KeyID{}, 1); return err })
		close(release)
		holding.Wait()
		update(t, a, func(tx kms.Tx) error { return tx.InsertKey(newKey(kms.StateEnabled)) })
	}
}

func testKeptTx(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	var kept kms.Tx
	for _, do := range []func(context.Context, func(kms.Tx) error) error{a.View, a.Update} {
		want(t, do(t.Context(), func(tx kms.Tx) error { kept = tx; return nil }), nil)
		if err := kept.InsertAccount("777788889999", time.Now()); err == nil {
			t.Error("wrote in a transaction that had ended")
		}
		if _, err := kept.Keys(account, kms.KeyID{}, 0); err == nil {
			t.Error("read in a transaction that had ended")
		}
		if _, err := kept.Deployment(); err == nil || errors.Is(err, kms.ErrNotStored) {
			t.Error("read in a transaction that had ended")
		}
	}
}

func testOwnResults(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	k := newKey(kms.StateEnabled)
	k.Tags = map[string]string{"a": "b"}
	insertKeys(t, a, k)
	p := newPrincipal(kms.Role, "builder")
	p.Tags = map[string]string{"a": "b"}
	p.Policies = []kms.NamedPolicy{{Name: "p", Text: "{}"}}
	c := newSession("ASIA", exact())
	g := newGrant(k.ID, alice)
	g.Name, g.Retiring = "name", builder
	g.Constraint.Subset = map[string]string{"a": "b"}
	h := newGrant(k.ID, alice) // the next row, which has none
	h.ID = strings.Repeat("f", 64)
	system := &kms.SystemKey{Name: "x", ID: newMaterialID(), Ref: hsm.Ref("ref")}
	insertGrants(t, a, g, h)
	update(t, a, func(tx kms.Tx) error {
		return errors.Join(tx.InsertPrincipal(p), tx.InsertCredential(c), tx.InsertSystemKey(system), tx.InsertEvent([]byte("event")))
	})
	for range 2 {
		view(t, a, func(tx kms.Tx) error {
			key, err := tx.Key(k.ID)
			want(t, err, nil)
			same(t, key, k)
			key.Tags["a"] = "spoilt"
			clear(key.Materials[0].Ref)

			principals, err := tx.Principals(account, kms.Role, "", 10)
			want(t, err, nil)
			same(t, principals, []kms.Principal{*p})
			principals[0].Tags["a"] = "spoilt"
			principals[0].Policies[0].Text = "spoilt"

			credentials, err := tx.Credentials(builder, "", 10)
			want(t, err, nil)
			same(t, credentials, []kms.Credential{*c})
			clear(credentials[0].Sealed)
			clear(credentials[0].Token)

			for _, list := range []func() ([]kms.Grant, error){
				func() ([]kms.Grant, error) { return tx.Grants(k.ID, "", "", 10) },
				func() ([]kms.Grant, error) { return tx.Grants(k.ID, alice, "", 10) },
			} {
				grants, err := list()
				want(t, err, nil)
				same(t, grants, []kms.Grant{*g, *h})
				grants[0].Constraint.Subset["a"] = "spoilt"
			}
			events, err := tx.Events(10)
			want(t, err, nil)
			same(t, string(events[0].Body), "event")
			clear(events[0].Body)

			key2, err := tx.SystemKey(system.Name)
			want(t, err, nil)
			same(t, key2, system)
			clear(key2.Ref)
			return nil
		})
	}
}

// The rest are helpers.

func view(t testing.TB, s kms.Store, f func(kms.Tx) error) {
	t.Helper()
	if err := s.View(context.Background(), f); err != nil {
		t.Fatalf("View: %v", err)
	}
}

func update(t testing.TB, s kms.Store, f func(kms.Tx) error) {
	t.Helper()
	if err := s.Update(context.Background(), f); err != nil {
		t.Fatalf("Update: %v", err)
	}
}

func want(t testing.TB, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("error is %v, want %v", got, want)
	}
}

func same(t testing.TB, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func insertAccounts(t testing.TB, s kms.Store) {
	t.Helper()
	update(t, s, func(tx kms.Tx) error {
		return errors.Join(tx.InsertAccount(account, time.Now()), tx.InsertAccount(other, time.Now()))
	})
}

func insertKeys(t testing.TB, s kms.Store, keys ...*kms.Key) {
	t.Helper()
	update(t, s, func(tx kms.Tx) error {
		for _, k := range keys {
			if err := tx.InsertKey(k); err != nil {
				return err
			}
		}
		return nil
	})
}

// exact returns a time that a store can keep.
func exact() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

func newKey(state kms.KeyState) *kms.Key {
	return &kms.Key{ID: newID(), Account: account, State: state, Created: exact(), Policy: "{}", Materials: []kms.Material{newMaterial()}}
}

func newMaterial() kms.Material {
	id := newMaterialID()
	return kms.Material{ID: id, Ref: hsm.Ref("ref of " + id.String()), Created: exact()}
}

func newMaterialID() (id hsm.ID) {
	rand.Read(id[:])
	return id
}

func newAlias(name string, key kms.KeyID) *kms.Alias {
	now := exact()
	return &kms.Alias{Account: account, Name: name, Key: key, Created: now, Updated: now}
}

func newID() kms.KeyID {
	b := newMaterialID()
	return mustID(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}

func newMRK() kms.KeyID { return mustID("mrk-" + newMaterialID().String()) }

func mustID(s string) kms.KeyID {
	id, err := kms.ParseKeyID(s)
	if err != nil {
		panic(err)
	}
	return id
}
