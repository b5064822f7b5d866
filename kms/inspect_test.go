package kms_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"strongroom/hsm"
	"strongroom/kms"
)

// inspect returns what an inspection finds that is of this rig: the token is shared with other rigs, whose objects this store does not know.
func (r *rig) inspect(device hsm.Inspector, pauses ...time.Duration) (*kms.Inspection, []kms.Irregularity) {
	r.t.Helper()
	in, err := kms.Inspect(r.t.Context(), kms.InspectOptions{Store: r.store, Device: device, Pauses: pauses})
	must(r.t, err)
	var own []kms.Irregularity
	for _, i := range in.Found {
		if i.Kind != kms.UnknownObject && i.Kind != kms.ForeignSystem {
			own = append(own, i)
		}
	}
	return in, own
}

// key returns the row of a key.
func (r *rig) row(id string) *kms.Key {
	r.t.Helper()
	parsed, err := kms.ParseKeyID(id)
	must(r.t, err)
	var key *kms.Key
	must(r.t, r.store.View(r.t.Context(), func(tx kms.Tx) (err error) {
		key, err = tx.Key(parsed)
		return err
	}))
	return key
}

func TestInspectFindsNothing(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	r.newKey()
	rotated, disabled, pending := r.newKey().KeyID, r.newKey().KeyID, r.newKey().KeyID
	_, err := r.RotateKeyOnDemand(ctx, root, &kms.RotateKeyOnDemandRequest{KeyID: rotated})
	must(t, err)
	_, err = r.DisableKey(ctx, root, &kms.DisableKeyRequest{KeyID: disabled})
	must(t, err)
	_, err = r.ScheduleKeyDeletion(ctx, root, &kms.ScheduleKeyDeletionRequest{KeyID: pending})
	must(t, err)
	in, found := r.inspect(token)
	if len(found) != 0 {
		t.Errorf("found %+v", found)
	}
	// With the two keys of the system, of which a service without an audit log has one.
	if in.Keys != 4 || in.Materials != 5 || in.Due != 6 || in.Proved != in.Due {
		t.Errorf("looked at %d keys with %d materials, proved %d of %d", in.Keys, in.Materials, in.Proved, in.Due)
	}
	// Without the device it says nothing of it.
	in, found = r.inspect(nil)
	if len(found) != 0 || in.Keys != 4 || in.Proved != 0 || in.Due != 0 {
		t.Errorf("without the device: %+v", in)
	}
}

// Everything that can be wrong with a key, each by itself, is found, and nothing else is.
func TestInspect(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	r.newKey() // a bystander
	update := func(t *testing.T, f func(tx kms.Tx) error) {
		t.Helper()
		must(t, r.store.Update(ctx, f))
	}
	made := func(t *testing.T, id hsm.ID, label string) {
		t.Helper()
		_, err := token.Generate(ctx, id, label)
		must(t, err)
		t.Cleanup(func() { must(t, token.Destroy(context.Background(), id)) })
	}
	aKey := func(state kms.KeyState, created time.Time) *kms.Key {
		return &kms.Key{
			ID: freshKeyID(t), Account: account, State: state, Created: created, Policy: r.row(r.newKey().KeyID).Policy,
			Materials: []kms.Material{{ID: kms.NewMaterialID(), Created: created}},
		}
	}
	for _, test := range []struct {
		kind  kms.IrregularityKind
		wrong func(t *testing.T) kms.KeyID
	}{
		{kms.NoObject, func(t *testing.T) kms.KeyID {
			k := r.row(r.newKey().KeyID)
			must(t, token.Destroy(ctx, k.Materials[0].ID))
			return k.ID
		}},
		{kms.WrongObject, func(t *testing.T) kms.KeyID {
			k := r.row(r.newKey().KeyID)
			must(t, token.Destroy(ctx, k.Materials[0].ID))
			made(t, k.Materials[0].ID, "strongroom/another/0")
			return k.ID
		}},
		{kms.WrongObject, func(t *testing.T) kms.KeyID { // a reference to the material of another key
			k, other := aKey(kms.StateEnabled, time.Now()), r.row(r.newKey().KeyID)
			made(t, k.Materials[0].ID, "strongroom/"+k.ID.String()+"/0")
			k.Materials[0].Ref = other.Materials[0].Ref
			update(t, func(tx kms.Tx) error { return tx.InsertKey(k) })
			return k.ID
		}},
		{kms.WrongObject, func(t *testing.T) kms.KeyID { // a signer in the place of a key
			k := r.row(r.newKey().KeyID)
			id := k.Materials[0].ID
			must(t, token.Destroy(ctx, id))
			_, err := token.GenerateSigner(ctx, id, "strongroom/"+k.ID.String()+"/0")
			must(t, err)
			return k.ID
		}},
		{kms.ForgottenObject, func(t *testing.T) kms.KeyID {
			k := r.row(r.newKey().KeyID)
			made(t, kms.NewMaterialID(), "strongroom/"+k.ID.String()+"/1")
			return k.ID
		}},
		{kms.DestroyedObject, func(t *testing.T) kms.KeyID {
			k := r.row(r.newKey().KeyID)
			update(t, func(tx kms.Tx) error { return tx.SetState(k.ID, kms.StateEnabled, kms.StateDestroying, time.Time{}) })
			r.Sweep(ctx, time.Now())
			made(t, k.Materials[0].ID, "strongroom/"+k.ID.String()+"/0")
			return k.ID
		}},
		{kms.UnreadablePolicy, func(t *testing.T) kms.KeyID {
			k := r.row(r.newKey().KeyID)
			update(t, func(tx kms.Tx) error { return tx.SetPolicy(k.ID, "{}") })
			return k.ID
		}},
		{kms.UnreadablePolicy, func(t *testing.T) kms.KeyID {
			update(t, func(tx kms.Tx) error {
				return tx.InsertPrincipal(&kms.Principal{
					Account: account, Kind: kms.User, Name: "alice", ID: "AIDA1", Created: time.Now(), Policies: []kms.NamedPolicy{{Name: "p", Text: "{"}},
				})
			})
			return kms.KeyID{}
		}},
		{kms.UnfinishedCreation, func(t *testing.T) kms.KeyID {
			k := aKey(kms.StateCreating, time.Now())
			update(t, func(tx kms.Tx) error { return tx.InsertKey(k) })
			made(t, k.Materials[0].ID, "strongroom/"+k.ID.String()+"/0")
			return k.ID
		}},
		{kms.AbandonedCreation, func(t *testing.T) kms.KeyID {
			k := aKey(kms.StateCreating, time.Now().Add(-25*time.Hour))
			update(t, func(tx kms.Tx) error { return tx.InsertKey(k) })
			return k.ID
		}},
		{kms.StrayAliases, func(t *testing.T) kms.KeyID {
			k := aKey(kms.StateEnabled, time.Now())
			k.Materials[0].Ref = r.row(r.newKey().KeyID).Materials[0].Ref
			update(t, func(tx kms.Tx) error {
				return errors.Join(tx.InsertKey(k),
					tx.InsertAlias(&kms.Alias{Account: account, Name: "alias/stray", Key: k.ID, Created: time.Now(), Updated: time.Now()}),
					tx.SetState(k.ID, kms.StateEnabled, kms.StateCreating, time.Time{}))
			})
			return k.ID
		}},
		{kms.UnfinishedDestruction, func(t *testing.T) kms.KeyID {
			k := r.row(r.newKey().KeyID)
			update(t, func(tx kms.Tx) error { return tx.SetState(k.ID, kms.StateEnabled, kms.StateDestroying, time.Now()) })
			must(t, token.Destroy(ctx, k.Materials[0].ID)) // what is half done is one finding, not two
			return k.ID
		}},
		{kms.OverdueDeletion, func(t *testing.T) kms.KeyID {
			k := r.row(r.newKey().KeyID)
			update(t, func(tx kms.Tx) error {
				return tx.SetState(k.ID, kms.StateEnabled, kms.StatePendingDeletion, time.Now().Add(-time.Minute))
			})
			return k.ID
		}},
		{kms.UnfinishedRotation, func(t *testing.T) kms.KeyID {
			k := r.row(r.newKey().KeyID)
			m := kms.Material{ID: kms.NewMaterialID(), Created: time.Now(), Reason: kms.RotationOnDemand}
			update(t, func(tx kms.Tx) error { return tx.InsertMaterial(k.ID, &m) })
			made(t, m.ID, "strongroom/"+k.ID.String()+"/1") // known to the store, if not yet its Ref
			return k.ID
		}},
		{kms.SpentMaterial, func(t *testing.T) kms.KeyID {
			k := r.row(r.newKey().KeyID)
			update(t, func(tx kms.Tx) error { return tx.SetMaterialUses(k.Materials[0].ID, 0, kms.DefaultSealLimit) })
			return k.ID
		}},
		{kms.WornOut, func(t *testing.T) kms.KeyID {
			k := r.row(r.newKey().KeyID)
			update(t, func(tx kms.Tx) error {
				return tx.SetMaterialUses(k.Materials[0].ID, 0, kms.DefaultSealLimit-kms.DefaultSealLimit/4)
			})
			return k.ID
		}},
		{kms.NoMaterial, func(t *testing.T) kms.KeyID {
			k := aKey(kms.StateEnabled, time.Now())
			update(t, func(tx kms.Tx) error { return tx.InsertKey(k) })
			return k.ID
		}},
		{kms.LostMaterial, func(t *testing.T) kms.KeyID {
			k := aKey(kms.StateDisabled, time.Now())
			good := r.row(r.newKey().KeyID)
			id, middle := k.Materials[0].ID, kms.Material{ID: kms.NewMaterialID(), Created: time.Now(), Reason: kms.RotationOnDemand}
			ref, err := token.Generate(ctx, id, "strongroom/"+k.ID.String()+"/0")
			must(t, err)
			last := middle
			last.ID = kms.NewMaterialID()
			last.Ref, err = token.Generate(ctx, last.ID, "strongroom/"+k.ID.String()+"/2")
			must(t, err)
			k.Materials[0].Ref, k.Policy = ref, good.Policy
			k.Materials = append(k.Materials, middle, last)
			update(t, func(tx kms.Tx) error { return tx.InsertKey(k) })
			return k.ID
		}},
	} {
		t.Run(string(test.kind), func(t *testing.T) {
			_, before := r.inspect(token)
			about := test.wrong(t)
			_, found := r.inspect(token, time.Millisecond) // it is there at a second look
			found = slices.DeleteFunc(found, func(i kms.Irregularity) bool {
				return slices.ContainsFunc(before, func(b kms.Irregularity) bool {
					return b.Kind == i.Kind && b.Key == i.Key && b.Material == i.Material && b.Name == i.Name
				})
			})
			kinds := make(map[kms.IrregularityKind]bool)
			for _, i := range found {
				kinds[i.Kind] = true
				if i.Key != about && i.Kind == test.kind {
					t.Errorf("it is said of key %v, want %v", i.Key, about)
				}
			}
			delete(kinds, kms.UnfinishedCreation) // beside the one of interest
			if test.kind == kms.UnfinishedCreation {
				kinds[test.kind] = len(found) == 1
			}
			if len(kinds) != 1 || !kinds[test.kind] {
				t.Errorf("found %+v", found)
			}
		})
	}
}

func freshKeyID(t *testing.T) kms.KeyID {
	t.Helper()
	id, err := kms.ParseKeyID("mrk-" + kms.NewMaterialID().String())
	must(t, err)
	return id
}

// A device that fails says so, and nothing about keys.
func TestInspectDeviceFails(t *testing.T) {
	r := newRig(t, nil)
	r.newKey()
	d := &blindDevice{Inspector: token}
	_, err := kms.Inspect(t.Context(), kms.InspectOptions{Store: r.store, Device: d})
	if !errors.Is(err, hsm.ErrUnavailable) || d.surveys < 2 {
		t.Errorf("after %d surveys: %v", d.surveys, err)
	}
	d.fails = 1 // in passing
	d.surveys = 0
	if _, found := r.inspect(d); len(found) != 0 {
		t.Errorf("found %+v", found)
	}
}

// What a measurement of the token left behind serves nothing, and is not taken for a key that the store forgot.
func TestInspectLeftover(t *testing.T) {
	r := newRig(t, nil)
	id := kms.NewMaterialID()
	_, found := r.inspect(&fullerDevice{token, hsm.Holding{Object: hsm.Object{ID: id, Label: "strongroom/check/1"}, Keys: 1}})
	if len(found) != 1 || found[0].Kind != kms.LeftoverObject || found[0].Material != id {
		t.Errorf("found %+v", found)
	}
}

// A fullerDevice has one thing more than there is.
type fullerDevice struct {
	hsm.Inspector
	more hsm.Holding
}

func (d *fullerDevice) Survey(ctx context.Context) ([]hsm.Holding, error) {
	all, err := d.Inspector.Survey(ctx)
	return append(all, d.more), err
}

type blindDevice struct {
	hsm.Inspector
	surveys, fails int // 0 for always
}

func (d *blindDevice) Survey(ctx context.Context) ([]hsm.Holding, error) {
	if d.surveys++; d.fails == 0 || d.surveys <= d.fails {
		return nil, fmt.Errorf("%w: away", hsm.ErrUnavailable)
	}
	return d.Inspector.Survey(ctx)
}

// While keys are made, rotated and destroyed, an inspection finds nothing that stays but what is on its way.
func TestInspectUnderLoad(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	var clients sync.WaitGroup
	for n := range 2 {
		clients.Go(func() {
			for range 12 {
				made, err := r.CreateKey(ctx, root, &kms.CreateKeyRequest{})
				if err != nil {
					t.Error(err)
					return
				}
				id := made.KeyMetadata.KeyID
				if _, err := r.RotateKeyOnDemand(ctx, root, &kms.RotateKeyOnDemandRequest{KeyID: id}); err != nil {
					t.Error(err)
				}
				parsed, _ := kms.ParseKeyID(id)
				err = r.store.Update(ctx, func(tx kms.Tx) error {
					return tx.SetState(parsed, kms.StateEnabled, kms.StatePendingDeletion, time.Now())
				})
				if err != nil {
					t.Error(err)
				}
				if n == 0 {
					r.Sweep(ctx, time.Now())
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { clients.Wait(); close(done) }()
	onItsWay := []kms.IrregularityKind{
		kms.UnknownObject, kms.ForeignSystem, // of other rigs
		kms.UnfinishedCreation, kms.UnfinishedRotation, kms.UnfinishedDestruction, kms.OverdueDeletion,
	}
	looks := 0
	for running := true; running; looks++ {
		select {
		case <-done:
			running = false
		default:
		}
		in, err := kms.Inspect(ctx, kms.InspectOptions{Store: r.store, Device: token, Pauses: []time.Duration{200 * time.Millisecond, 400 * time.Millisecond}})
		must(t, err)
		for _, i := range in.Found {
			if !slices.Contains(onItsWay, i.Kind) {
				t.Errorf("look %d: %+v", looks, i)
			}
		}
	}
	if looks < 2 {
		t.Errorf("%d looks are too few to show anything", looks)
	}
}
