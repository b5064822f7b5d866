package kms_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"strongroom/hsm"
	"strongroom/kms"
	"strongroom/store"
)

// copyOf makes a copy of the rig's store and opens it.
func (r *rig) copyOf() (*store.DB, time.Time) {
	r.t.Helper()
	path := filepath.Join(r.t.TempDir(), "copy.db")
	taken := time.Now()
	_, err := r.store.Backup(r.t.Context(), path)
	must(r.t, err)
	db, err := store.OpenCopy(r.t.Context(), path)
	must(r.t, err)
	r.t.Cleanup(func() { db.Close() })
	return db, taken
}

func parseID(t testing.TB, s string) kms.KeyID {
	t.Helper()
	id, err := kms.ParseKeyID(s)
	must(t, err)
	return id
}

func keyOf(t *testing.T, db kms.Store, id string) *kms.Key {
	t.Helper()
	var k *kms.Key
	err := db.View(t.Context(), func(tx kms.Tx) (err error) {
		k, err = tx.Key(parseID(t, id))
		return err
	})
	if err != nil {
		t.Errorf("key %s: %v", id, err)
		return &kms.Key{}
	}
	return k
}

// creating leaves a row as an interrupted creation does, with or without its object.
func (r *rig) creating(object bool) kms.KeyID {
	r.t.Helper()
	id := parseID(r.t, kms.NewUUID())
	m := kms.Material{ID: kms.NewMaterialID(), Created: time.Now()}
	must(r.t, r.store.Update(r.t.Context(), func(tx kms.Tx) error {
		return tx.InsertKey(&kms.Key{ID: id, Account: account, State: kms.StateCreating, Created: time.Now(), Policy: kms.DefaultPolicy("aws", account), Materials: []kms.Material{m}})
	}))
	if object {
		_, err := token.Generate(r.t.Context(), m.ID, "strongroom/"+id.String()+"/0")
		must(r.t, err)
	}
	return id
}

// onlyOurs takes from a comparison what other tests have in the token, with their system keys.
func onlyOurs(found *kms.Comparison, keys ...string) {
	found.Unknown = slices.DeleteFunc(found.Unknown, func(k kms.KeyAt) bool { return !slices.Contains(keys, k.Key.String()) })
	found.Foreign = nil
}

// A token that was restored from an older copy than the store has keys that the store has destroyed. They are not adopted, since they could not be destroyed again.
func TestRestoreLeavesTheDestroyed(t *testing.T) {
	ctx := t.Context()
	r := newRig(t, nil)
	id := r.newKey().KeyID
	must(t, r.rotateOnDemand(id))
	row := keyOf(t, r.store, id)
	must(t, r.store.Update(ctx, func(tx kms.Tx) error {
		if err := tx.SetState(row.ID, kms.StateEnabled, kms.StateDestroying, time.Time{}); err != nil {
			return err
		}
		return tx.DeleteKey(row.ID, time.Now())
	}))
	// Of a rotation that the store forgot.
	_, err := token.Generate(ctx, kms.NewMaterialID(), "strongroom/"+id+"/2")
	must(t, err)
	db, taken := r.copyOf()
	found, err := kms.Compare(ctx, token, db)
	must(t, err)
	onlyOurs(found, id)
	if len(found.Unknown) != 0 || len(found.Buried) != 3 || found.Buried[0].Key != row.ID || time.Since(found.Buried[0].Destroyed) > time.Minute {
		t.Errorf("got %+v", found)
	}
	found.Unknown = []kms.KeyAt{{Key: row.ID, Materials: []kms.MaterialAt{{Key: row.ID, ID: row.Materials[0].ID}}}}
	_, err = kms.Restore(ctx, kms.RestoreOptions{Device: token, Store: db, Found: found, Taken: taken, Now: time.Now(), AdoptInto: account})
	if !errors.Is(err, kms.ErrConflict) {
		t.Errorf("got %v", err)
	}
}

// A copy from before much happened: what the token knows better is taken over, nothing is destroyed, and all of it is recorded.
func TestRestore(t *testing.T) {
	ctx := t.Context()
	r := newRig(t, nil)
	plain, doomed, gone, rotated := r.newKey().KeyID, r.newKey().KeyID, r.newKey().KeyID, r.newKey().KeyID
	before := r.dataKey(plain)
	under := r.dataKey(doomed)
	past := time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)
	must(t, r.store.Update(ctx, func(tx kms.Tx) error {
		return tx.SetState(parseID(t, doomed), kms.StateEnabled, kms.StatePendingDeletion, past)
	}))
	begun, empty := r.creating(true), r.creating(false)
	rotating := r.newKey().KeyID
	pending := kms.Material{ID: kms.NewMaterialID(), Created: time.Now(), Reason: kms.RotationOnDemand}
	must(t, r.store.Update(ctx, func(tx kms.Tx) error { return tx.InsertMaterial(parseID(t, rotating), &pending) }))

	db, taken := r.copyOf()

	// What happens after the copy: the rotation is finished, another one done, a key made, one destroyed.
	_, err := token.Generate(ctx, pending.ID, "strongroom/"+rotating+"/1")
	must(t, err)
	must(t, r.rotateOnDemand(rotated))
	since := r.dataKey(rotated)
	later := r.newKey().KeyID
	must(t, r.rotateOnDemand(later))
	late := r.dataKey(later)
	must(t, token.Destroy(ctx, keyOf(t, r.store, gone).Materials[0].ID))

	found, err := kms.Compare(ctx, token, db)
	must(t, err)
	onlyOurs(found, later)
	if len(found.Missing) != 1 || found.Missing[0].Key.String() != gone || len(found.Newer) != 1 || found.Newer[0].Key.String() != rotated || found.Newer[0].N != 1 ||
		len(found.Unknown) != 1 || len(found.Unknown[0].Materials) != 2 || len(found.Creating) != 2 || len(found.Rotating) != 1 || len(found.Deleting) != 1 ||
		found.Keys != 5 || found.Proved != 4+1 {
		t.Fatalf("got %+v", found)
	}

	now := time.Now()
	done, err := kms.Restore(ctx, kms.RestoreOptions{Device: token, Store: db, Found: found, Operator: "op", Taken: taken, Now: now, AdoptInto: account,
		Source: map[string]any{"file": "x"}})
	must(t, err)
	if len(done.Completed) != 1 || done.Completed[0] != begun || len(done.Dropped) != 1 || done.Dropped[0] != empty || len(done.Rotated) != 2 ||
		len(done.Adopted) != 1 || done.Adopted[0].String() != later || len(done.Postponed) != 1 || done.Postponed[0].String() != doomed {
		t.Errorf("got %+v", done)
	}
	if k := keyOf(t, db, begun.String()); k.State != kms.StateEnabled || k.Materials[0].Ref == nil {
		t.Errorf("got %+v", k)
	}
	if k := keyOf(t, db, doomed); k.State != kms.StatePendingDeletion || k.DeletionDate.Before(now.Add(7*24*time.Hour-time.Second)) {
		t.Errorf("got %+v", k)
	}
	if k := keyOf(t, db, later); k.State != kms.StateDisabled || k.Account != account || len(k.Materials) != 2 || k.Materials[1].Reason != kms.RotationAutomatic {
		t.Errorf("got %+v", k)
	}
	if k := keyOf(t, db, rotating); len(k.Materials) != 2 || k.Materials[1].Ref == nil {
		t.Errorf("got %+v", k)
	}

	if k := keyOf(t, db, rotated); len(k.Materials) != 2 || k.Materials[1].Reason != kms.RotationAutomatic {
		t.Errorf("got %+v", k)
	}

	// A server on it destroys nothing, and opens what was sealed before and after the copy.
	s := &rig{t: t, store: db, audit: new(recorder)}
	s.Service, err = kms.New(ctx, kms.Options{Device: token, Store: db, Audit: s.audit, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	must(t, s.Recover(ctx))
	s.opens(before, since)
	if !inToken(t, doomed) || !inToken(t, later) || !inToken(t, begun.String()) {
		t.Error("a key was destroyed")
	}
	_, err = s.CancelKeyDeletion(ctx, root, &kms.CancelKeyDeletionRequest{KeyID: doomed})
	must(t, err)
	for _, id := range []string{doomed, later} {
		_, err = s.EnableKey(ctx, root, &kms.EnableKeyRequest{KeyID: id})
		must(t, err)
	}
	s.opens(under, late)
	must(t, s.RecordEvents(ctx))
	recorded := make(map[string]int)
	for _, e := range s.records() {
		recorded[e.Name]++
	}
	for name, n := range map[string]int{"RestoreBackup": 1, "PostponeKeyDeletion": 1, "AdoptKey": 1, "CompleteUnfinishedKey": 1, "DropUnfinishedKey": 1, "RestoreKeyMaterial": 2} {
		if recorded[name] != n {
			t.Errorf("%s is recorded %d times; all: %v", name, recorded[name], slices.Sorted(maps.Keys(recorded)))
		}
	}
}

// faulty makes a Refer of some ids fail.
type faulty struct {
	hsm.Inspector
	err   error
	fails map[hsm.ID]bool
}

func (f *faulty) Refer(ctx context.Context, id hsm.ID) (hsm.Ref, error) {
	if f.fails[id] {
		return nil, f.err
	}
	return f.Inspector.Refer(ctx, id)
}

// Objects that are no keys as they should be end a restore, or are listed one by one, and stay as they are also when a server runs.
func TestRestoreSkipsFailed(t *testing.T) {
	ctx := t.Context()
	r := newRig(t, nil)
	rotated := r.newKey().KeyID
	begun, well := r.creating(true), r.creating(true)
	db, taken := r.copyOf()
	second, _ := r.copyOf()
	third, _ := r.copyOf()
	must(t, r.rotateOnDemand(rotated))
	later, fine := r.newKey().KeyID, r.newKey().KeyID
	found, err := kms.Compare(ctx, token, db)
	must(t, err)
	onlyOurs(found, later, fine)
	bad := &faulty{token, hsm.ErrUnavailable, map[hsm.ID]bool{
		keyOf(t, r.store, rotated).Materials[1].ID: true, keyOf(t, r.store, begun.String()).Materials[0].ID: true, keyOf(t, r.store, later).Materials[0].ID: true,
	}}
	o := kms.RestoreOptions{Device: bad, Store: db, Found: found, Taken: taken, Now: time.Now(), AdoptInto: account, SkipFailed: true}
	if _, err := kms.Restore(ctx, o); !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("of a device that does not answer: %v", err)
	}
	bad.err, o.Store, o.SkipFailed = hsm.ErrNoKey, third, false
	if _, err := kms.Restore(ctx, o); !errors.Is(err, hsm.ErrNoKey) {
		t.Errorf("got %v", err)
	}

	o.Store, o.SkipFailed = second, true
	done, err := kms.Restore(ctx, o)
	must(t, err)
	if len(done.Failed) != 3 || done.Failed[0].Why == "" || len(done.Completed) != 1 || done.Completed[0] != well || len(done.Dropped) != 1 || done.Dropped[0] != begun ||
		len(done.Rotated) != 0 || len(done.Adopted) != 1 || done.Adopted[0].String() != fine {
		t.Errorf("got %+v", done)
	}
	s := &rig{t: t, store: second, audit: new(recorder)}
	s.Service, err = kms.New(ctx, kms.Options{Device: token, Store: second, Audit: s.audit, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	must(t, s.Recover(ctx))
	for _, id := range []string{rotated, later, fine, begun.String()} {
		if !inToken(t, id) {
			t.Errorf("key %s was destroyed", id)
		}
	}
}

// uses returns how many encryptions a store says that were reserved under the first material of a key.
func uses(t *testing.T, db kms.Store, id string) (n int64) {
	t.Helper()
	must(t, db.View(t.Context(), func(tx kms.Tx) (err error) {
		k, err := tx.Key(parseID(t, id))
		if err == nil {
			n, err = tx.MaterialUses(k.Materials[0].ID)
		}
		return err
	}))
	return n
}

// A copy does not know what was encrypted since. How much is taken for it grows with its age, rotates a key early rather than late, and takes nothing back.
func TestRestoreRaisesUses(t *testing.T) {
	r := newRig(t, nil)
	fresh, worn, near, spent := r.newKey().KeyID, r.newKey().KeyID, r.newKey().KeyID, r.newKey().KeyID
	set := func(id string, n int64) {
		was := uses(t, r.store, id)
		must(t, r.store.Update(t.Context(), func(tx kms.Tx) error {
			k, err := tx.Key(parseID(t, id))
			if err != nil {
				return err
			}
			return tx.SetMaterialUses(k.Materials[0].ID, was, n)
		}))
	}
	const most, rotated, limit = 5 << 28, 3 << 29, 1 << 31
	set(fresh, 5)
	set(worn, most-10)
	set(near, rotated-10)
	set(spent, limit)
	for _, test := range []struct {
		age  time.Duration
		want int64
	}{
		{0, 1<<24 + 5},
		{time.Hour, 1<<24 + 5}, // 3.6 million are fewer
		{24 * time.Hour, 86_400_000 + 5},
		{365 * 24 * time.Hour, most}, // below rotated, so that not every key is rotated at once
	} {
		db, _ := r.copyOf()
		now := time.Now()
		found, err := kms.Compare(t.Context(), token, db)
		must(t, err)
		_, err = kms.Restore(t.Context(), kms.RestoreOptions{Device: token, Store: db, Found: found, Taken: now.Add(-test.age), Now: now})
		must(t, err)
		if got := uses(t, db, fresh); got != test.want {
			t.Errorf("a copy of %v ago: %d uses, want %d", test.age, got, test.want)
		}
		if got := uses(t, db, worn); got != most {
			t.Errorf("a copy of %v ago: %d uses of a worn material", test.age, got)
		}
		if got := uses(t, db, near); got != rotated-10 {
			t.Errorf("a copy of %v ago: %d uses of a material that is about to be rotated", test.age, got)
		}
		if got := uses(t, db, spent); got != limit {
			t.Errorf("a copy of %v ago: %d uses of a spent material", test.age, got)
		}
	}
}

// Who wants keys destroyed on the day that the copy says gets that.
func TestRestoreKeepsDeletions(t *testing.T) {
	r := newRig(t, nil)
	id := r.newKey().KeyID
	past := time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)
	must(t, r.store.Update(t.Context(), func(tx kms.Tx) error {
		return tx.SetState(parseID(t, id), kms.StateEnabled, kms.StatePendingDeletion, past)
	}))
	db, taken := r.copyOf()
	found, err := kms.Compare(t.Context(), token, db)
	must(t, err)
	onlyOurs(found)
	_, err = kms.Restore(t.Context(), kms.RestoreOptions{Device: token, Store: db, Found: found, Taken: taken, Now: time.Now(), KeepDeletions: true})
	must(t, err)
	if k := keyOf(t, db, id); !k.DeletionDate.Equal(past) {
		t.Errorf("got %+v", k)
	}
	_, err = kms.Restore(t.Context(), kms.RestoreOptions{Device: token, Store: db, Found: found, Taken: taken, Now: time.Now(), AdoptInto: "999999999999"})
	if !errors.Is(err, kms.ErrNotStored) {
		t.Errorf("an account that is not there: %v", err)
	}
}

// Another token is told from one that lacks keys, and one that does not answer from both.
func TestCompareFails(t *testing.T) {
	r := newRig(t, nil)
	r.newKey()
	_, err := kms.Compare(t.Context(), &inspector{Inspector: token, prove: func() error { return hsm.ErrNoKey }}, r.store)
	if !errors.Is(err, kms.ErrOtherToken) {
		t.Errorf("got %v", err)
	}
	n := 0
	_, err = kms.Compare(t.Context(), &inspector{Inspector: token, prove: func() error {
		if n++; n > 1 {
			return hsm.ErrUnavailable
		}
		return nil
	}}, r.store)
	if !errors.Is(err, hsm.ErrUnavailable) || errors.Is(err, kms.ErrOtherToken) {
		t.Errorf("got %v", err)
	}
}

type inspector struct {
	hsm.Inspector
	prove func() error
	held  []hsm.Holding // if not nil
}

func (i *inspector) Survey(ctx context.Context) ([]hsm.Holding, error) {
	if i.held != nil {
		return i.held, nil
	}
	return i.Inspector.Survey(ctx)
}

func (i *inspector) Prove(context.Context, hsm.ID, hsm.Ref) error { return i.prove() }

// On a token that serves another deployment nothing is adopted: it may be that one's. A copy from before there was a key that signs is no other deployment's.
func TestRestoreAdoptsNothingOfOthers(t *testing.T) {
	ctx := t.Context()
	other := newRig(t, nil)
	theirs := other.newKey().KeyID
	r := newRig(t, nil)
	db, taken := r.copyOf()
	found, err := kms.Compare(ctx, token, db)
	must(t, err)
	if !slices.ContainsFunc(found.Unknown, func(k kms.KeyAt) bool { return k.Key.String() == theirs }) || len(found.Foreign) == 0 {
		t.Fatalf("got %+v", found)
	}
	_, err = kms.Restore(ctx, kms.RestoreOptions{Device: token, Store: db, Found: found, Taken: taken, Now: time.Now(), AdoptInto: account})
	if !errors.Is(err, kms.ErrOtherDeployment) {
		t.Errorf("got %v", err)
	}
	only := func(labels ...string) *kms.Comparison {
		t.Helper()
		held, err := token.Survey(ctx)
		must(t, err)
		var mine []hsm.Holding
		must(t, db.View(ctx, func(tx kms.Tx) error {
			k, err := tx.SystemKey("access-keys")
			for _, h := range held {
				if err == nil && h.ID == k.ID {
					mine = append(mine, h)
				}
			}
			return err
		}))
		for _, l := range labels {
			mine = append(mine, hsm.Holding{Object: hsm.Object{ID: kms.NewMaterialID(), Label: l}, Private: 1, Public: 1})
		}
		found, err := kms.Compare(ctx, &inspector{Inspector: token, prove: func() error { return nil }, held: mine}, db)
		must(t, err)
		return found
	}
	const signer, sealer = "strongroom/system/audit", "strongroom/system/access-keys"
	for _, test := range []struct {
		labels []string
		want   int
	}{{nil, 0}, {[]string{signer}, 0}, {[]string{signer, signer}, 2}, {[]string{sealer}, 1}, {[]string{signer, sealer}, 2}} {
		if got := only(test.labels...).Foreign; len(got) != test.want {
			t.Errorf("%q: got %v", test.labels, got)
		}
	}
}
