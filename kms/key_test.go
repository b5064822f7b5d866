package kms_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"strongroom/hsm"
	"strongroom/hsm/hsmtest"
	"strongroom/kms"
)

func TestStates(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	key := r.newKey()
	blob := r.encrypt(key.KeyID, "secret", nil)

	use := map[string]func() error{
		"Encrypt": func() error {
			_, err := r.Encrypt(ctx, root, &kms.EncryptRequest{KeyID: key.KeyID, Plaintext: []byte("x")})
			return err
		},
		"Decrypt": func() error {
			_, err := r.Decrypt(ctx, root, &kms.DecryptRequest{CiphertextBlob: blob})
			return err
		},
		"GenerateDataKey": func() error {
			_, err := r.GenerateDataKey(ctx, root, &kms.GenerateDataKeyRequest{KeyID: key.KeyID, KeySpec: "AES_256"})
			return err
		},
		"ReEncrypt": func() error {
			_, err := r.ReEncrypt(ctx, root, &kms.ReEncryptRequest{CiphertextBlob: blob, DestinationKeyID: key.KeyID})
			return err
		},
	}
	change := map[string]func() error{
		"EnableKey": func() error {
			_, err := r.EnableKey(ctx, root, &kms.EnableKeyRequest{KeyID: key.KeyID})
			return err
		},
		"DisableKey": func() error {
			_, err := r.DisableKey(ctx, root, &kms.DisableKeyRequest{KeyID: key.Arn})
			return err
		},
		"ScheduleKeyDeletion": func() error {
			_, err := r.ScheduleKeyDeletion(ctx, root, &kms.ScheduleKeyDeletionRequest{KeyID: key.KeyID})
			return err
		},
		"CancelKeyDeletion": func() error {
			_, err := r.CancelKeyDeletion(ctx, root, &kms.CancelKeyDeletionRequest{KeyID: key.KeyID})
			return err
		},
		"UpdateKeyDescription": func() error {
			_, err := r.UpdateKeyDescription(ctx, root, &kms.UpdateKeyDescriptionRequest{KeyID: key.KeyID, Description: "d"})
			return err
		},
		"CreateAlias": func() error {
			_, err := r.CreateAlias(ctx, root, &kms.CreateAliasRequest{AliasName: "alias/" + time.Now().Format("150405.000000000")[7:], TargetKeyID: key.KeyID})
			return err
		},
	}
	state := func(want kms.KeyState) {
		t.Helper()
		resp, err := r.DescribeKey(ctx, root, &kms.DescribeKeyRequest{KeyID: key.KeyID})
		must(t, err)
		m := resp.KeyMetadata
		if m.KeyState != want || m.Enabled != (want == kms.StateEnabled) || (m.DeletionDate != nil) != (want == kms.StatePendingDeletion) {
			t.Errorf("state %s, enabled %v, deletion %v; want %s", m.KeyState, m.Enabled, m.DeletionDate, want)
		}
	}
	ok := func(name string) { t.Helper(); must(t, change[name]()) }

	state(kms.StateEnabled)
	ok("EnableKey")
	for name, f := range use {
		if err := f(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	refusal(t, change["CancelKeyDeletion"](), kms.InvalidState, key.Arn+" is not pending deletion.")

	ok("DisableKey")
	ok("DisableKey")
	state(kms.StateDisabled)
	for _, f := range use {
		refusal(t, f(), kms.Disabled, key.Arn+" is disabled.")
	}
	ok("UpdateKeyDescription")
	ok("CreateAlias")
	refusal(t, change["CancelKeyDeletion"](), kms.InvalidState, key.Arn+" is not pending deletion.")

	ok("ScheduleKeyDeletion")
	state(kms.StatePendingDeletion)
	for _, f := range use {
		refusal(t, f(), kms.InvalidState, key.Arn+" is pending deletion.")
	}
	for name, f := range change {
		if name != "CancelKeyDeletion" {
			refusal(t, f(), kms.InvalidState, key.Arn+" is pending deletion.")
		}
	}

	ok("CancelKeyDeletion")
	state(kms.StateDisabled)
	ok("EnableKey")
	state(kms.StateEnabled)
	if _, err := r.Decrypt(ctx, root, &kms.DecryptRequest{CiphertextBlob: blob}); err != nil {
		t.Errorf("a saved key does not decrypt: %v", err)
	}
}

func TestDueDeletionDestroysTheMaterial(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	key, other := r.newKey(), r.newKey()
	blob := r.encrypt(key.KeyID, "secret", nil)
	_, err := r.CreateAlias(ctx, root, &kms.CreateAliasRequest{AliasName: "alias/doomed", TargetKeyID: key.KeyID})
	must(t, err)
	days := int32(7)
	resp, err := r.ScheduleKeyDeletion(ctx, root, &kms.ScheduleKeyDeletionRequest{KeyID: key.KeyID, PendingWindowInDays: &days})
	must(t, err)
	if got := time.Until(resp.DeletionDate.Time).Round(time.Minute); got != 7*24*time.Hour {
		t.Errorf("deletion in %v", got)
	}

	r.Sweep(ctx, resp.DeletionDate.Add(-time.Millisecond))
	if !inToken(t, key.KeyID) {
		t.Fatal("the material was destroyed before its time")
	}
	newService(t, unsoundStore{r.store}, token).Sweep(ctx, resp.DeletionDate.Time)
	if !inToken(t, key.KeyID) {
		t.Fatal("the material was destroyed because of what a store says that may be damaged")
	}
	r.Sweep(ctx, resp.DeletionDate.Time)
	r.Sweep(ctx, resp.DeletionDate.Time)
	if inToken(t, key.KeyID) {
		t.Error("the material is still in the token")
	}
	if !inToken(t, other.KeyID) {
		t.Error("the material of another key is gone")
	}
	_, err = r.DescribeKey(ctx, root, &kms.DescribeKeyRequest{KeyID: key.KeyID})
	refusal(t, err, kms.NotFound, "Key '"+key.Arn+"' does not exist")
	_, err = r.DescribeKey(ctx, root, &kms.DescribeKeyRequest{KeyID: "alias/doomed"})
	refusal(t, err, kms.NotFound, "Alias "+arnBase+"alias/doomed is not found.")
	_, err = r.Decrypt(ctx, root, &kms.DecryptRequest{CiphertextBlob: blob})
	if !errors.Is(err, kms.AccessDenied) {
		t.Errorf("Decrypt with a key that is gone: %v", err)
	}
}

// inToken reports whether the token holds a material of the key.
func inToken(t *testing.T, keyID string) bool {
	t.Helper()
	objects, err := token.Objects(t.Context())
	must(t, err)
	for _, o := range objects {
		if strings.Contains(o.Label, keyID) {
			return true
		}
	}
	return false
}

func TestFailedCreationLeavesNothing(t *testing.T) {
	for _, failing := range []string{"Generate", "Destroy"} {
		t.Run(failing, func(t *testing.T) {
			broken := true
			r := newRig(t, hsmtest.Faulty(token, func(op string) error {
				if broken && (op == "Generate" || op == failing) {
					return fmt.Errorf("pulled the plug: %w", hsm.ErrUnavailable)
				}
				return nil
			}))
			_, err := r.CreateKey(t.Context(), root, &kms.CreateKeyRequest{})
			refusal(t, err, kms.KeyUnavailable, "")
			broken = false
			must(t, r.Recover(t.Context()))
			keys, err := r.ListKeys(t.Context(), root, &kms.ListKeysRequest{})
			must(t, err)
			if len(keys.Keys) != 0 {
				t.Errorf("%d keys are listed", len(keys.Keys))
			}
			must(t, r.store.View(t.Context(), func(tx kms.Tx) error {
				for _, state := range []kms.KeyState{kms.StateCreating, kms.StateDestroying, kms.StateEnabled} {
					ids, err := tx.KeysInState(state, time.Time{}, 10)
					if err != nil || len(ids) != 0 {
						t.Errorf("%d keys are %s, %v", len(ids), state, err)
					}
				}
				return nil
			}))
		})
	}
}

func TestInterruptedCreationIsUndone(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	// What a process leaves that dies between the token and the store.
	id, err := kms.ParseKeyID("1234abcd-12ab-34cd-56ef-1234567890ab")
	must(t, err)
	material := kms.NewMaterialID()
	must(t, r.store.Update(ctx, func(tx kms.Tx) error {
		return tx.InsertKey(&kms.Key{ID: id, Account: account, State: kms.StateCreating, Created: time.Now(), Policy: "{}",
			Materials: []kms.Material{{ID: material, Created: time.Now()}}})
	}))
	_, err = token.Generate(ctx, material, "strongroom/"+id.String()+"/0")
	must(t, err)
	_, err = r.DescribeKey(ctx, root, &kms.DescribeKeyRequest{KeyID: id.String()})
	refusal(t, err, kms.NotFound, "Key '"+arnBase+"key/"+id.String()+"' does not exist")

	must(t, r.Recover(ctx))
	if inToken(t, id.String()) {
		t.Error("the material is still in the token")
	}
	must(t, r.store.View(ctx, func(tx kms.Tx) error {
		if _, err := tx.Key(id); !errors.Is(err, kms.ErrNotStored) {
			t.Errorf("the row is still there: %v", err)
		}
		return nil
	}))
}

// A creation that is older than any process that could have been interrupted comes from a backup: the key may be in use.
func TestOldCreationIsLeftAlone(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	id, err := kms.ParseKeyID("4321abcd-12ab-44cd-96ef-1234567890ab")
	must(t, err)
	material := kms.NewMaterialID()
	must(t, r.store.Update(ctx, func(tx kms.Tx) error {
		return tx.InsertKey(&kms.Key{ID: id, Account: account, State: kms.StateCreating, Created: time.Now().AddDate(0, 0, -2), Policy: "{}",
			Materials: []kms.Material{{ID: material, Created: time.Now()}}})
	}))
	_, err = token.Generate(ctx, material, "strongroom/"+id.String()+"/0")
	must(t, err)
	must(t, r.Recover(ctx))
	if !inToken(t, id.String()) {
		t.Error("the material was destroyed")
	}
}

func TestAliasesGoBeforeTheirKey(t *testing.T) {
	broken := true
	r := newRig(t, hsmtest.Faulty(token, func(op string) error {
		if broken && op == "Destroy" {
			return hsm.ErrUnavailable
		}
		return nil
	}))
	ctx := t.Context()
	key := r.newKey()
	blob := r.encrypt(key.KeyID, "secret", nil)
	alias := &kms.CreateAliasRequest{AliasName: "alias/app", TargetKeyID: key.KeyID}
	must(t, second(r.CreateAlias(ctx, root, alias)))
	must(t, second(r.ScheduleKeyDeletion(ctx, root, &kms.ScheduleKeyDeletionRequest{KeyID: key.KeyID})))
	r.Sweep(ctx, time.Now().AddDate(0, 0, 31))
	if !inToken(t, key.KeyID) {
		t.Fatal("the material is gone though the device does not destroy")
	}
	alias.TargetKeyID = r.newKey().KeyID
	must(t, second(r.CreateAlias(ctx, root, alias)))
	if err := second(r.Decrypt(ctx, root, &kms.DecryptRequest{CiphertextBlob: blob})); !errors.Is(err, kms.AccessDenied) {
		t.Errorf("Decrypt under a key that is being destroyed: %v", err)
	}
	broken = false
	r.Sweep(ctx, time.Now())
	if inToken(t, key.KeyID) {
		t.Error("the material is still there")
	}
}

func TestConcurrentStateChanges(t *testing.T) {
	r := newRig(t, nil)
	key := r.newKey()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 10 {
				var err error
				switch i % 4 {
				case 0:
					_, err = r.EnableKey(t.Context(), root, &kms.EnableKeyRequest{KeyID: key.KeyID})
				case 1:
					_, err = r.DisableKey(t.Context(), root, &kms.DisableKeyRequest{KeyID: key.KeyID})
				case 2:
					_, err = r.ScheduleKeyDeletion(t.Context(), root, &kms.ScheduleKeyDeletionRequest{KeyID: key.KeyID})
				case 3:
					_, err = r.CancelKeyDeletion(t.Context(), root, &kms.CancelKeyDeletionRequest{KeyID: key.KeyID})
				}
				if err != nil && !errors.Is(err, kms.InvalidState) {
					t.Errorf("%v", err)
				}
			}
		})
	}
	wg.Wait()
}

// What one process changes binds another within a second, and a process that cannot hear the store does not answer from memory.
func TestOtherProcessesAreHeard(t *testing.T) {
	r := newRig(t, nil)
	key := r.newKey()
	deaf := &deafStore{Store: r.store}
	other := newService(t, deaf, token)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { other.Run(ctx) })
	defer wg.Wait()
	defer stop()

	encrypt := func() error {
		_, err := other.Encrypt(t.Context(), root, &kms.EncryptRequest{KeyID: key.KeyID, Plaintext: []byte("x")})
		return err
	}
	must(t, encrypt())
	_, err := r.DisableKey(t.Context(), root, &kms.DisableKeyRequest{KeyID: key.KeyID})
	must(t, err)
	deadline := time.Now().Add(5 * time.Second) // a second, and what a busy machine adds
	for err = encrypt(); err == nil && time.Now().Before(deadline); err = encrypt() {
	}
	refusal(t, err, kms.Disabled, key.Arn+" is disabled.")

	_, err = r.EnableKey(t.Context(), root, &kms.EnableKeyRequest{KeyID: key.KeyID})
	must(t, err)
	for err = encrypt(); err != nil && time.Now().Before(deadline); err = encrypt() {
	}
	must(t, err)
	deaf.set(true)
	deadline = time.Now().Add(10 * time.Second)
	for err = encrypt(); err == nil && time.Now().Before(deadline); err = encrypt() {
	}
	if err == nil {
		t.Error("a process that does not hear the store still answers from memory")
	}
}

// An unsoundStore is being looked through for damage.
type unsoundStore struct{ kms.Store }

func (unsoundStore) Sound() bool { return false }

// A deafStore does not answer while it is deaf.
type deafStore struct {
	kms.Store
	mu   sync.Mutex
	deaf bool
}

func (d *deafStore) set(deaf bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.deaf = deaf
}

func (d *deafStore) err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deaf {
		return errors.New("no route to the store")
	}
	return nil
}

func (d *deafStore) View(ctx context.Context, f func(kms.Tx) error) error {
	if err := d.err(); err != nil {
		return err
	}
	return d.Store.View(ctx, f)
}

func (d *deafStore) Changes(ctx context.Context, since int64) ([]kms.Change, int64, error) {
	if err := d.err(); err != nil {
		return nil, 0, err
	}
	return d.Store.Changes(ctx, since)
}

func (d *deafStore) Healthy(ctx context.Context) error {
	if err := d.err(); err != nil {
		return err
	}
	return d.Store.Healthy(ctx)
}
