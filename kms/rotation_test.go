package kms_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"strongroom/hsm"
	"strongroom/hsm/hsmtest"
	"strongroom/kms"
	"strongroom/kms/audit"
)

const day = 24 * time.Hour

// enableRotation has a key rotated every so many days.
func (r *rig) enableRotation(key string, days int32) {
	r.t.Helper()
	must(r.t, second(r.EnableKeyRotation(r.t.Context(), root, &kms.EnableKeyRotationRequest{KeyID: key, RotationPeriodInDays: &days})))
}

func (r *rig) rotateOnDemand(key string) error {
	return second(r.RotateKeyOnDemand(r.t.Context(), root, &kms.RotateKeyOnDemandRequest{KeyID: key}))
}

func (r *rig) rotationStatus(key string) *kms.GetKeyRotationStatusResponse {
	r.t.Helper()
	resp, err := r.GetKeyRotationStatus(r.t.Context(), root, &kms.GetKeyRotationStatusRequest{KeyID: key})
	must(r.t, err)
	return resp
}

// rotations lists the rotations of a key, or all its materials.
func (r *rig) rotations(key, include string) []kms.RotationsListEntry {
	r.t.Helper()
	resp, err := r.ListKeyRotations(r.t.Context(), root, &kms.ListKeyRotationsRequest{KeyID: key, IncludeKeyMaterial: include})
	must(r.t, err)
	return resp.Rotations
}

// materials returns the states of a key's materials, oldest first: "N C" for a key that was rotated once.
func (r *rig) materials(key string) string {
	r.t.Helper()
	var states []string
	for _, e := range r.rotations(key, "ALL_KEY_MATERIAL") {
		states = append(states, e.KeyMaterialState[:1])
	}
	return strings.Join(states, " ")
}

// dataKey makes a data key and returns it with its ciphertext and the material that this is under.
func (r *rig) dataKey(key string) *kms.GenerateDataKeyResponse {
	r.t.Helper()
	resp, err := r.GenerateDataKey(r.t.Context(), root, &kms.GenerateDataKeyRequest{KeyID: key, KeySpec: "AES_256"})
	must(r.t, err)
	return resp
}

// opens fails the test unless the data keys can be decrypted, each with the material that made it.
func (r *rig) opens(all ...*kms.GenerateDataKeyResponse) {
	r.t.Helper()
	for _, k := range all {
		resp, err := r.Decrypt(r.t.Context(), root, &kms.DecryptRequest{CiphertextBlob: k.CiphertextBlob})
		if err != nil || !bytes.Equal(resp.Plaintext, k.Plaintext) || resp.KeyMaterialID != k.KeyMaterialID {
			r.t.Errorf("a ciphertext under material %.8s: %v", k.KeyMaterialID, err)
		}
	}
}

// objects returns the labels of a key's objects in the token, after the name of the key.
func objects(t *testing.T, key string) map[string]bool {
	t.Helper()
	all, err := token.Objects(t.Context())
	must(t, err)
	labels := make(map[string]bool)
	for _, o := range all {
		if rest, ok := strings.CutPrefix(o.Label, "strongroom/"+key+"/"); ok {
			labels[rest] = true
		}
	}
	return labels
}

// events returns the events of a name about a key that wait in the store, as what they say of themselves.
func (r *rig) events(name, key string) []map[string]any {
	r.t.Helper()
	var found []map[string]any
	must(r.t, r.store.View(r.t.Context(), func(tx kms.Tx) error {
		all, err := tx.Events(10_000)
		found = nil
		for _, e := range all {
			var record audit.Record
			if err := json.Unmarshal(e.Body, &record); err != nil {
				return err
			}
			if record.Name != name {
				continue
			}
			var details map[string]any
			if err := json.Unmarshal(record.ServiceEventDetails, &details); err != nil {
				return err
			}
			if details["keyId"] == key {
				found = append(found, details)
			}
		}
		return err
	}))
	return found
}

func TestRotationMakesNewMaterial(t *testing.T) {
	r := newRig(t, nil)
	key := r.newKey()
	r.enableRotation(key.KeyID, 90)
	made := []*kms.GenerateDataKeyResponse{r.dataKey(key.KeyID)}
	for i := range 4 {
		if i%2 == 0 {
			must(t, r.rotateOnDemand(key.KeyID))
		} else {
			r.Sweep(t.Context(), time.Now().Add(time.Duration(i)*91*day))
		}
		made = append(made, r.dataKey(key.KeyID))
		r.opens(made...)
		described, err := r.DescribeKey(t.Context(), root, &kms.DescribeKeyRequest{KeyID: key.KeyID})
		must(t, err)
		if got := described.KeyMetadata.CurrentKeyMaterialID; got != made[i+1].KeyMaterialID {
			t.Errorf("rotation %d: the current material is %.8s, encrypted was under %.8s", i, got, made[i+1].KeyMaterialID)
		}
		if got := len(objects(t, key.KeyID)); got != i+2 {
			t.Errorf("rotation %d: %d objects in the token", i, got)
		}
	}
	materials := make(map[string]bool)
	for _, k := range made {
		materials[k.KeyMaterialID] = true
	}
	if len(materials) != 5 {
		t.Errorf("five ciphertexts are under %d materials", len(materials))
	}

	all := r.rotations(key.KeyID, "ALL_KEY_MATERIAL")
	events := r.events("RotateKey", key.KeyID)
	if len(all) != 5 || len(events) != 4 {
		t.Fatalf("%d materials, %d events", len(all), len(events))
	}
	for i, e := range all {
		want := kms.RotationsListEntry{KeyID: key.Arn, KeyMaterialID: made[i].KeyMaterialID, KeyMaterialState: "NON_CURRENT"}
		if i == 4 {
			want.KeyMaterialState = "CURRENT"
		}
		if i > 0 {
			want.RotationType = []kms.RotationType{kms.RotationAutomatic, kms.RotationOnDemand}[i%2]
			if e.RotationDate == nil || time.Until(e.RotationDate.Time) < -time.Minute {
				t.Errorf("rotation %d was on %v", i, e.RotationDate)
			}
			event := events[i-1]
			if event["rotationType"] != string(want.RotationType) || event["keyOrigin"] != "AWS_KMS" ||
				event["previousKeyMaterialId"] != made[i-1].KeyMaterialID || event["currentKeyMaterialId"] != made[i].KeyMaterialID {
				t.Errorf("event %d: %v", i, event)
			}
		} else if e.RotationDate != nil {
			t.Error("the first material has a rotation date")
		}
		e.RotationDate = nil
		if e != want {
			t.Errorf("material %d: %+v, want %+v", i, e, want)
		}
	}
}

// A brittleStore fails at steps of a rotation: before "InsertMaterial" and "SetMaterialRef", and "after InsertMaterial" and "after SetMaterialRef", when
// the transaction is committed and its answer lost. It also asks fail when keys that are due were "listed".
type brittleStore struct {
	kms.Store
	fail func(step string) error
}

func (b *brittleStore) Update(ctx context.Context, f func(kms.Tx) error) error {
	var last string
	err := b.Store.Update(ctx, func(tx kms.Tx) error {
		last = ""
		return f(&brittleTx{tx, b.fail, &last})
	})
	if err == nil && last != "" {
		err = b.fail("after " + last)
	}
	return err
}

func (b *brittleStore) View(ctx context.Context, f func(kms.Tx) error) error {
	listed := false
	err := b.Store.View(ctx, func(tx kms.Tx) error { return f(&listedTx{tx, &listed}) })
	if err == nil && listed {
		err = b.fail("listed")
	}
	return err
}

type listedTx struct {
	kms.Tx
	listed *bool
}

func (l *listedTx) KeysToRotate(due time.Time, limit int) ([]kms.KeyID, error) {
	*l.listed = true
	return l.Tx.KeysToRotate(due, limit)
}

type brittleTx struct {
	kms.Tx
	fail func(step string) error
	last *string
}

func (b *brittleTx) InsertMaterial(key kms.KeyID, m *kms.Material) error {
	*b.last = "InsertMaterial"
	if err := b.fail(*b.last); err != nil {
		return err
	}
	return b.Tx.InsertMaterial(key, m)
}

func (b *brittleTx) SetMaterialRef(id hsm.ID, ref hsm.Ref) error {
	*b.last = "SetMaterialRef"
	if err := b.fail(*b.last); err != nil {
		return err
	}
	return b.Tx.SetMaterialRef(id, ref)
}

// newBrittleRig returns a rig whose store and device ask fail before each step.
func newBrittleRig(t *testing.T, fail func(step string) error) *rig {
	r := newRig(t, nil)
	r.Service = newService(t, &brittleStore{r.store, fail}, hsmtest.Faulty(token, fail))
	return r
}

// Wherever a rotation is interrupted, the key works, and the next sweep leaves it rotated exactly once.
func TestInterruptedRotation(t *testing.T) {
	steps := []string{"InsertMaterial", "after InsertMaterial", "Generate", "SetMaterialRef", "after SetMaterialRef"}
	for _, step := range steps {
		for _, kind := range []kms.RotationType{kms.RotationOnDemand, kms.RotationAutomatic} {
			t.Run(step+" "+string(kind), func(t *testing.T) {
				broken := ""
				r := newBrittleRig(t, func(step string) error {
					if step == broken {
						return fmt.Errorf("pulled the plug at %s: %w", step, hsm.ErrUnavailable)
					}
					return nil
				})
				ctx := t.Context()
				key := r.newKey()
				before := r.dataKey(key.KeyID)
				now := time.Now()
				broken = step
				if kind == kms.RotationOnDemand {
					err := r.rotateOnDemand(key.KeyID)
					if begun := !strings.HasSuffix(step, "InsertMaterial"); begun != (err == nil) {
						t.Errorf("RotateKeyOnDemand: %v", err)
					}
				} else {
					r.enableRotation(key.KeyID, 90)
					now = now.Add(91 * day)
					r.Sweep(ctx, now)
				}
				done := step == "after SetMaterialRef"
				during := r.dataKey(key.KeyID)
				r.opens(before, during)
				if (during.KeyMaterialID != before.KeyMaterialID) != done {
					t.Errorf("rotated: %v, want %v", !done, done)
				}
				onDemand := kind == kms.RotationOnDemand && step != "InsertMaterial" && !done
				if got := r.rotationStatus(key.KeyID).OnDemandRotationStartDate; (got != nil) != onDemand {
					t.Errorf("OnDemandRotationStartDate is %v", got)
				}
				for range 2 { // it stays so as long as nothing gets better
					r.Sweep(ctx, now.Add(kms.HandOver+time.Minute))
					r.opens(before, during, r.dataKey(key.KeyID))
				}

				broken = ""
				rotations := 1
				if kind == kms.RotationOnDemand && step == "InsertMaterial" {
					rotations = 0 // it has not begun, and the client was told so
				}
				for range 2 {
					r.Sweep(ctx, now.Add(kms.HandOver+time.Minute))
				}
				after := r.dataKey(key.KeyID)
				r.opens(before, during, after)
				if got := len(objects(t, key.KeyID)); got != rotations+1 {
					t.Errorf("%d objects in the token", got)
				}
				if got, want := r.materials(key.KeyID), []string{"C", "N C"}[rotations]; got != want {
					t.Errorf("materials %s, want %s", got, want)
				}
				if (after.KeyMaterialID != before.KeyMaterialID) != (rotations == 1) {
					t.Error("the new material is not in use, or there is one unasked")
				}
				if got := len(r.events("RotateKey", key.KeyID)); got != rotations {
					t.Errorf("%d events", got)
				}
				if r.rotationStatus(key.KeyID).OnDemandRotationStartDate != nil {
					t.Error("a rotation is still in progress")
				}
				if rotations == 1 {
					if e := r.rotations(key.KeyID, "")[0]; e.RotationType != kind {
						t.Errorf("the rotation was %s", e.RotationType)
					}
				}
			})
		}
	}
}

// A pending rotation is left to whoever began it, for a while: two must not make the same object at the same time.
func TestYoungRotationIsLeftAlone(t *testing.T) {
	away := false
	r := newBrittleRig(t, func(step string) error {
		if away && step == "Generate" {
			return hsm.ErrUnavailable
		}
		return nil
	})
	key := r.newKey()
	away = true
	begun := time.Now()
	must(t, r.rotateOnDemand(key.KeyID))
	away = false
	r.Sweep(t.Context(), begun.Add(kms.HandOver-time.Second))
	if got := r.materials(key.KeyID); got != "C P" {
		t.Errorf("materials %s", got)
	}
	r.Sweep(t.Context(), time.Now().Add(kms.HandOver))
	if got := r.materials(key.KeyID); got != "N C" {
		t.Errorf("materials %s", got)
	}
}

func TestPendingRotationInOtherStates(t *testing.T) {
	for _, state := range []kms.KeyState{kms.StateDisabled, kms.StatePendingDeletion} {
		t.Run(string(state), func(t *testing.T) {
			away := false
			r := newBrittleRig(t, func(step string) error {
				if away && step == "Generate" {
					return hsm.ErrUnavailable
				}
				return nil
			})
			ctx := t.Context()
			key := r.newKey()
			before := r.dataKey(key.KeyID)
			away = true
			must(t, r.rotateOnDemand(key.KeyID))
			away = false
			if state == kms.StateDisabled {
				must(t, second(r.DisableKey(ctx, root, &kms.DisableKeyRequest{KeyID: key.KeyID})))
			} else {
				must(t, second(r.ScheduleKeyDeletion(ctx, root, &kms.ScheduleKeyDeletionRequest{KeyID: key.KeyID})))
			}
			// Not so late that the object could outlive the key.
			r.Sweep(ctx, time.Now().Add(30*day-time.Minute))
			if got, want := r.materials(key.KeyID), map[kms.KeyState]string{kms.StateDisabled: "N C", kms.StatePendingDeletion: "C P"}[state]; got != want {
				t.Errorf("just before a destruction: materials %s, want %s", got, want)
			}
			r.Sweep(ctx, time.Now().Add(day))
			if got := r.materials(key.KeyID); got != "N C" {
				t.Errorf("materials %s", got)
			}
			if state == kms.StatePendingDeletion {
				must(t, second(r.CancelKeyDeletion(ctx, root, &kms.CancelKeyDeletionRequest{KeyID: key.KeyID})))
			}
			must(t, second(r.EnableKey(ctx, root, &kms.EnableKeyRequest{KeyID: key.KeyID})))
			r.opens(before, r.dataKey(key.KeyID))
		})
	}
}

func TestOneKeyDoesNotHoldUpOthers(t *testing.T) {
	var mu sync.Mutex
	n := 0
	r := newBrittleRig(t, func(step string) error {
		mu.Lock()
		defer mu.Unlock()
		if step == "InsertMaterial" {
			if n++; n == 1 {
				return errors.New("not this one")
			}
		}
		return nil
	})
	var keys []string
	for range 3 {
		keys = append(keys, r.newKey().KeyID)
		r.enableRotation(keys[len(keys)-1], 90)
	}
	rotated := func() (n int) {
		for _, key := range keys {
			n += len(r.rotations(key, ""))
		}
		return n
	}
	due := time.Now().Add(91 * day)
	r.Sweep(t.Context(), due)
	if got := rotated(); got != 2 {
		t.Errorf("%d of 3 keys were rotated beside one that cannot be", got)
	}
	r.Sweep(t.Context(), due)
	if got := rotated(); got != 3 {
		t.Errorf("%d of 3 keys are rotated", got)
	}
}

// Keys that are due and cannot be rotated yet, more of them than one list holds, do not hide those that are due after them.
func TestStuckKeysDoNotHideOthers(t *testing.T) {
	r := newRig(t, nil)
	key := r.newKey()
	r.enableRotation(key.KeyID, 90)
	sweep := time.Now().Add(91 * day)
	must(t, r.store.Update(t.Context(), func(tx kms.Tx) error {
		for i := range 230 {
			id, err := kms.ParseKeyID(fmt.Sprintf("%08x-12ab-44cd-96ef-1234567890ab", i))
			must(t, err)
			err = tx.InsertKey(&kms.Key{ID: id, Account: account, State: kms.StateEnabled, Created: sweep.Add(-200 * day), Policy: "{}",
				Rotation: kms.Rotation{Days: 90, Next: sweep.Add(-20 * day)}, Materials: []kms.Material{
					{ID: kms.NewMaterialID(), Ref: hsm.Ref("there"), Created: sweep.Add(-200 * day)},
					{ID: kms.NewMaterialID(), Created: sweep, Reason: kms.RotationOnDemand}, // somebody is at it
				}})
			if err != nil {
				return err
			}
		}
		return nil
	}))
	r.Sweep(t.Context(), sweep)
	if got := r.materials(key.KeyID); got != "N C" {
		t.Errorf("materials %s", got)
	}
}

func TestTwoNodesRotateOnce(t *testing.T) {
	r := newRig(t, nil)
	var keys []string
	for range 8 {
		keys = append(keys, r.newKey().KeyID)
		r.enableRotation(keys[len(keys)-1], 90)
	}
	due := time.Now().Add(90*day + time.Minute)
	var wg sync.WaitGroup
	for range 4 {
		node := newService(t, r.store, token)
		wg.Go(func() { node.Sweep(t.Context(), due) })
	}
	wg.Wait()
	for _, key := range keys {
		if got := r.materials(key); got != "N C" || len(objects(t, key)) != 2 || len(r.events("RotateKey", key)) != 1 {
			t.Errorf("materials %s, objects %v, events %v", got, objects(t, key), r.events("RotateKey", key))
		}
		if got, want := r.rotationStatus(key).NextRotationDate.Time, due.AddDate(0, 0, 90); got.Sub(want).Abs() > time.Millisecond {
			t.Errorf("next on %v, want %v", got, want)
		}
	}
}

// What happens between the look for keys that are due and their rotation counts.
func TestDueIsSeenAgain(t *testing.T) {
	listed := func() {}
	r := newBrittleRig(t, func(step string) error {
		if step == "listed" {
			listed()
		}
		return nil
	})
	ctx := t.Context()
	due := time.Now().Add(90*day + time.Minute)
	node := newService(t, r.store, token)
	for what, c := range map[string]struct {
		happens func(key string)
		want    string
	}{
		"another node rotates it": {func(string) { node.Sweep(ctx, due) }, "N C"},
		"it is disabled": {func(key string) {
			must(t, second(node.DisableKey(ctx, root, &kms.DisableKeyRequest{KeyID: key})))
		}, "C"},
		"its rotation is disabled": {func(key string) {
			must(t, second(node.DisableKeyRotation(ctx, root, &kms.DisableKeyRotationRequest{KeyID: key})))
		}, "C"},
		"its period begins anew": {func(key string) {
			must(t, second(node.EnableKeyRotation(ctx, root, &kms.EnableKeyRotationRequest{KeyID: key})))
		}, "C"},
	} {
		key := r.newKey()
		r.enableRotation(key.KeyID, 90)
		listed = func() {
			listed = func() {}
			c.happens(key.KeyID)
		}
		r.Sweep(ctx, due)
		if got := r.materials(key.KeyID); got != c.want {
			t.Errorf("%s: materials %s, want %s", what, got, c.want)
		}
	}
}

func TestOverdueRotatesOnce(t *testing.T) {
	r := newRig(t, nil)
	key := r.newKey()
	r.enableRotation(key.KeyID, 90)
	r.Sweep(t.Context(), time.Now().Add(89*day))
	if got := r.materials(key.KeyID); got != "C" {
		t.Errorf("before it was due: materials %s", got)
	}
	late := time.Now().Add(10 * 90 * day)
	for range 3 {
		r.Sweep(t.Context(), late)
	}
	if got := r.materials(key.KeyID); got != "N C" {
		t.Errorf("materials %s", got)
	}
	r.Sweep(t.Context(), late.Add(89*day))
	if got := r.materials(key.KeyID); got != "N C" {
		t.Errorf("before it was due again: materials %s", got)
	}
	r.Sweep(t.Context(), late.Add(90*day))
	if got := r.materials(key.KeyID); got != "N N C" {
		t.Errorf("materials %s", got)
	}
}

func TestOnlyEnabledKeysRotate(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	key := r.newKey()
	r.enableRotation(key.KeyID, 90)
	due := time.Now().Add(91 * day)
	unrotated := func(want bool) {
		t.Helper()
		r.Sweep(ctx, due)
		if got := r.materials(key.KeyID); got != "C" {
			t.Errorf("materials %s", got)
		}
		if got := r.rotationStatus(key.KeyID); got.KeyRotationEnabled != want || (got.NextRotationDate != nil) != want || (got.RotationPeriodInDays == 90) != want {
			t.Errorf("status %+v", got)
		}
	}
	must(t, second(r.DisableKey(ctx, root, &kms.DisableKeyRequest{KeyID: key.KeyID})))
	unrotated(true)
	must(t, second(r.ScheduleKeyDeletion(ctx, root, &kms.ScheduleKeyDeletionRequest{KeyID: key.KeyID})))
	due = time.Now().Add(29 * day)
	unrotated(false)
	due = time.Now().Add(91 * day)
	must(t, second(r.CancelKeyDeletion(ctx, root, &kms.CancelKeyDeletionRequest{KeyID: key.KeyID})))
	unrotated(true)
	must(t, second(r.EnableKey(ctx, root, &kms.EnableKeyRequest{KeyID: key.KeyID})))
	r.Sweep(ctx, due)
	if got := r.materials(key.KeyID); got != "N C" {
		t.Errorf("after the key was enabled: materials %s", got)
	}
	must(t, second(r.DisableKeyRotation(ctx, root, &kms.DisableKeyRotationRequest{KeyID: key.KeyID})))
	r.Sweep(ctx, due.Add(1000*day))
	if got := r.materials(key.KeyID); got != "N C" {
		t.Errorf("after rotation was disabled: materials %s", got)
	}
}

func TestOnDemandLimit(t *testing.T) {
	r := newRig(t, nil)
	key := r.newKey()
	made := []*kms.GenerateDataKeyResponse{r.dataKey(key.KeyID)}
	for range 25 {
		must(t, r.rotateOnDemand(key.KeyID))
		made = append(made, r.dataKey(key.KeyID))
	}
	full := "The on-demand rotations limit has been reached for the given keyId. No more on-demand rotations can be performed for this key: " + key.Arn
	refusal(t, r.rotateOnDemand(key.KeyID), kms.LimitExceeded, full)
	r.enableRotation(key.KeyID, 90)
	r.Sweep(t.Context(), time.Now().Add(90*day+time.Minute))
	refusal(t, r.rotateOnDemand(key.KeyID), kms.LimitExceeded, full)
	made = append(made, r.dataKey(key.KeyID))
	r.opens(made...)
	if got := r.rotations(key.KeyID, ""); len(got) != 26 || got[25].RotationType != kms.RotationAutomatic || got[25].KeyMaterialID != made[26].KeyMaterialID {
		t.Errorf("%d rotations", len(got))
	}
}

func TestOnDemandConflicts(t *testing.T) {
	away := false
	r := newBrittleRig(t, func(step string) error {
		if away && step == "Generate" {
			return hsm.ErrUnavailable
		}
		return nil
	})
	ctx := t.Context()
	key := r.newKey()
	automatic := "An automatic rotation of this key is currently in progress or scheduled to begin within the next 20 minutes."

	// Scheduled to begin.
	id, err := kms.ParseKeyID(key.KeyID)
	must(t, err)
	next := func(in time.Duration) {
		must(t, r.store.Update(ctx, func(tx kms.Tx) error { return tx.SetRotation(id, kms.Rotation{Days: 90, Next: time.Now().Add(in)}) }))
	}
	for _, in := range []time.Duration{-day, 0, 19 * time.Minute} {
		next(in)
		refusal(t, r.rotateOnDemand(key.KeyID), kms.Conflict, automatic)
	}
	next(21 * time.Minute)
	status := r.rotationStatus(key.KeyID)
	must(t, r.rotateOnDemand(key.KeyID))
	if got := r.rotationStatus(key.KeyID); !got.NextRotationDate.Equal(status.NextRotationDate.Time) {
		t.Error("a rotation on demand has moved the next automatic one")
	}

	// In progress.
	away = true
	now := time.Now()
	r.Sweep(ctx, now.Add(time.Hour))
	refusal(t, r.rotateOnDemand(key.KeyID), kms.Conflict, automatic)
	if r.rotationStatus(key.KeyID).OnDemandRotationStartDate != nil {
		t.Error("an automatic rotation is shown as one on demand")
	}
	away = false
	r.Sweep(ctx, now.Add(2*time.Hour))
	away = true
	must(t, r.rotateOnDemand(key.KeyID))
	refusal(t, r.rotateOnDemand(key.KeyID), kms.Conflict, "An on-demand rotation of this key is currently in progress.")
	if got := r.rotationStatus(key.KeyID).OnDemandRotationStartDate; got == nil || time.Since(got.Time).Abs() > time.Minute {
		t.Errorf("OnDemandRotationStartDate is %v", got)
	}
	if got := r.rotations(key.KeyID, "ROTATIONS_ONLY"); len(got) != 2 {
		t.Errorf("%d rotations are listed as finished", len(got))
	}
	last := r.rotations(key.KeyID, "ALL_KEY_MATERIAL")[3]
	if last.KeyMaterialState != "PENDING_ROTATION" || last.RotationDate != nil || last.RotationType != "" || len(last.KeyMaterialID) != 64 {
		t.Errorf("the pending material is %+v", last)
	}

	// An automatic rotation waits for it, and is not lost.
	r.Sweep(ctx, now.Add(100*day))
	away = false
	r.Sweep(ctx, now.Add(100*day))
	r.Sweep(ctx, now.Add(100*day))
	if got := r.materials(key.KeyID); got != "N N N N C" {
		t.Errorf("materials %s", got)
	}
	if got := r.rotations(key.KeyID, ""); got[2].RotationType != kms.RotationOnDemand || got[3].RotationType != kms.RotationAutomatic {
		t.Errorf("rotations %+v", got)
	}
}

// At the same time only one rotation on demand begins, and the limit holds.
func TestConcurrentOnDemand(t *testing.T) {
	r := newRig(t, nil)
	key := r.newKey()
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for range 8 {
		wg.Go(func() {
			for range 4 {
				err := r.rotateOnDemand(key.KeyID)
				mu.Lock()
				if err == nil {
					done++
				} else if !errors.Is(err, kms.Conflict) && !errors.Is(err, kms.LimitExceeded) {
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if got := len(r.rotations(key.KeyID, "")); got != done || done == 0 || done > 25 || len(objects(t, key.KeyID)) != done+1 {
		t.Errorf("%d rotations, %d answers, %d objects", got, done, len(objects(t, key.KeyID)))
	}
	r.opens(r.dataKey(key.KeyID))
}

func TestDestructionDestroysEveryMaterial(t *testing.T) {
	broken := false
	r := newBrittleRig(t, func(step string) error {
		if broken && step == "SetMaterialRef" {
			return errors.New("pulled the plug")
		}
		return nil
	})
	ctx := t.Context()
	key, other := r.newKey(), r.newKey()
	must(t, r.rotateOnDemand(key.KeyID))
	must(t, r.rotateOnDemand(other.KeyID))
	must(t, r.rotateOnDemand(key.KeyID))
	broken = true
	must(t, r.rotateOnDemand(key.KeyID))
	if got := objects(t, key.KeyID); r.materials(key.KeyID) != "N N C P" || len(got) != 4 {
		t.Fatalf("materials %s, objects %v", r.materials(key.KeyID), got)
	}
	must(t, second(r.ScheduleKeyDeletion(ctx, root, &kms.ScheduleKeyDeletionRequest{KeyID: key.KeyID})))
	r.Sweep(ctx, time.Now().Add(31*day))
	if got := objects(t, key.KeyID); len(got) != 0 {
		t.Errorf("left in the token: %v", got)
	}
	if got := objects(t, other.KeyID); len(got) != 2 {
		t.Errorf("another key has the objects %v", got)
	}
	broken = false
	r.Sweep(ctx, time.Now().Add(32*day))
	if got := objects(t, key.KeyID); len(got) != 0 {
		t.Errorf("made again: %v", got)
	}
}

func TestKeyRotationOperations(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	key := r.newKey()
	status := func(days int) {
		t.Helper()
		got := r.rotationStatus(key.Arn)
		if got.KeyID != key.Arn || got.KeyRotationEnabled != (days > 0) || got.RotationPeriodInDays != days || (got.NextRotationDate != nil) != (days > 0) {
			t.Errorf("status %+v, want %d days", got, days)
		}
		if days > 0 {
			if in := time.Until(got.NextRotationDate.Time) - time.Duration(days)*day; in.Abs() > time.Minute {
				t.Errorf("%d days: next in %v more", days, in)
			}
		}
	}
	status(0)
	body, err := json.Marshal(r.rotationStatus(key.KeyID))
	must(t, err)
	if got, want := string(body), `{"KeyRotationEnabled":false,"KeyId":"`+key.Arn+`"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	must(t, second(r.EnableKeyRotation(ctx, root, &kms.EnableKeyRotationRequest{KeyID: key.KeyID})))
	status(365)
	r.enableRotation(key.KeyID, 2560)
	status(2560)
	r.enableRotation(key.Arn, 90)
	status(90)
	for range 2 {
		must(t, second(r.DisableKeyRotation(ctx, root, &kms.DisableKeyRotationRequest{KeyID: key.KeyID})))
		status(0)
	}

	operations := map[string]func() error{
		"EnableKeyRotation": func() error {
			return second(r.EnableKeyRotation(ctx, root, &kms.EnableKeyRotationRequest{KeyID: key.KeyID}))
		},
		"DisableKeyRotation": func() error {
			return second(r.DisableKeyRotation(ctx, root, &kms.DisableKeyRotationRequest{KeyID: key.KeyID}))
		},
		"RotateKeyOnDemand": func() error { return r.rotateOnDemand(key.KeyID) },
	}
	must(t, second(r.DisableKey(ctx, root, &kms.DisableKeyRequest{KeyID: key.KeyID})))
	for _, f := range operations {
		refusal(t, f(), kms.Disabled, key.Arn+" is disabled.")
	}
	status(0)
	must(t, second(r.ScheduleKeyDeletion(ctx, root, &kms.ScheduleKeyDeletionRequest{KeyID: key.KeyID})))
	for _, f := range operations {
		refusal(t, f(), kms.InvalidState, key.Arn+" is pending deletion.")
	}
	status(0)
	if got := r.materials(key.KeyID); got != "C" {
		t.Errorf("materials %s", got)
	}
	refusal(t, r.rotateOnDemand("alias/one"), kms.NotFound, "Invalid keyId 'alias/one'")
}

func TestRotationPeriodCondition(t *testing.T) {
	r := newRig(t, nil)
	policy := `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"kms:*","Resource":"*"},
		{"Effect":"Deny","Principal":"*","Action":"kms:EnableKeyRotation","Resource":"*","Condition":{"NumericGreaterThan":{"kms:RotationPeriodInDays":"180"}}}]}`
	resp, err := r.CreateKey(t.Context(), root, &kms.CreateKeyRequest{Policy: policy})
	must(t, err)
	key := resp.KeyMetadata.KeyID
	for days, allowed := range map[int32]bool{0: false, 90: true, 180: true, 181: false} {
		req := &kms.EnableKeyRotationRequest{KeyID: key}
		if days > 0 {
			req.RotationPeriodInDays = &days
		}
		if err := second(r.EnableKeyRotation(t.Context(), root, req)); (err == nil) != allowed || err != nil && !errors.Is(err, kms.AccessDenied) {
			t.Errorf("%d days: %v", days, err)
		}
	}
}

func TestListKeyRotationsPages(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	key, other := r.newKey(), r.newKey()
	empty, err := r.ListKeyRotations(ctx, root, &kms.ListKeyRotationsRequest{KeyID: key.KeyID})
	must(t, err)
	if body, _ := json.Marshal(empty); string(body) != `{"Rotations":[],"Truncated":false}` {
		t.Errorf("no rotations: %s", body)
	}
	for range 4 {
		must(t, r.rotateOnDemand(key.KeyID))
	}
	for include, n := range map[string]int{"": 4, "ROTATIONS_ONLY": 4, "ALL_KEY_MATERIAL": 5} {
		want := r.rotations(key.KeyID, include)
		if len(want) != n {
			t.Errorf("%q: %d entries", include, len(want))
		}
		for _, limit := range []int32{1, 2, 4, 5, 1000} {
			var got []kms.RotationsListEntry
			req := &kms.ListKeyRotationsRequest{KeyID: key.Arn, IncludeKeyMaterial: include, Limit: &limit}
			for {
				resp, err := r.ListKeyRotations(ctx, root, req)
				must(t, err)
				if len(resp.Rotations) > int(limit) || resp.Truncated != (resp.NextMarker != "") {
					t.Errorf("limit %d: %d entries, truncated %v, marker %q", limit, len(resp.Rotations), resp.Truncated, resp.NextMarker)
				}
				got = append(got, resp.Rotations...)
				if !resp.Truncated {
					break
				}
				refusal(t, second(r.ListKeyRotations(ctx, root, &kms.ListKeyRotationsRequest{KeyID: other.KeyID, Marker: resp.NextMarker})),
					kms.InvalidMarker, "Could not deserialize marker '"+resp.NextMarker+"'")
				req.Marker = resp.NextMarker
			}
			if len(got) != len(want) {
				t.Fatalf("%q, limit %d: %d entries, want %d", include, limit, len(got), len(want))
			}
			for i := range got {
				if got[i].KeyMaterialID != want[i].KeyMaterialID {
					t.Errorf("%q, limit %d: entry %d differs", include, limit, i)
				}
			}
		}
	}
	refusal(t, second(r.ListKeyRotations(ctx, root, &kms.ListKeyRotationsRequest{KeyID: key.KeyID, Marker: "rubbish"})),
		kms.InvalidMarker, "Could not deserialize marker 'rubbish'")
}

// What one node encrypts under new material opens on another one at once, also before that has heard of the rotation.
func TestRotationByAnotherNode(t *testing.T) {
	r := newRig(t, nil)
	key := r.newKey()
	other := newService(t, r.store, token)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { other.Run(ctx) })
	defer wg.Wait()
	defer stop()
	for i := range 4 {
		time.Sleep(300 * time.Millisecond) // until it hears the store, and remembers what it reads
		blob := r.encrypt(key.KeyID, "x", nil)
		must(t, second(other.Decrypt(ctx, root, &kms.DecryptRequest{CiphertextBlob: blob})))
		must(t, r.rotateOnDemand(key.KeyID))
		blob = r.encrypt(key.KeyID, "x", nil)
		must(t, second(other.Decrypt(ctx, root, &kms.DecryptRequest{CiphertextBlob: blob, KeyID: []string{key.KeyID, ""}[i%2]})))
	}
}
