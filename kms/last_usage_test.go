package kms_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"strongroom/kms"
)

// do is one request as the wire makes it: with a record of how it went, under the id of the request.
func (r *rig) do(operation, requestID string, f func(who kms.Caller) error) {
	r.t.Helper()
	who := root
	who.RequestID = requestID
	who, err := r.Begin(who, operation)
	must(r.t, err)
	code := ""
	if err := f(who); err != nil {
		code = "SomeException"
	}
	must(r.t, r.Record(r.t.Context(), who, code, ""))
}

func (r *rig) lastUsage(key string) *kms.GetKeyLastUsageResponse {
	r.t.Helper()
	resp, err := r.GetKeyLastUsage(r.t.Context(), root, &kms.GetKeyLastUsageRequest{KeyID: key})
	must(r.t, err)
	return resp
}

func TestGetKeyLastUsage(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	key, other := r.newKey(), r.newKey()
	expect := func(key kms.KeyMetadata, operation, requestID string) {
		t.Helper()
		got := r.lastUsage(key.KeyID)
		if got.KeyID != key.Arn || !got.KeyCreationDate.Equal(key.CreationDate.Time) || !got.TrackingStartDate.Equal(key.CreationDate.Time) {
			t.Errorf("got %+v", got)
		}
		u := got.KeyLastUsage
		if u.Operation != operation || u.KmsRequestID != requestID || (len(u.CloudTrailEventID) == 36) != (operation != "") ||
			(u.Timestamp != nil) != (operation != "") || u.Timestamp != nil && time.Since(u.Timestamp.Time).Abs() > time.Minute {
			t.Errorf("last use %+v, want %s in %s", u, operation, requestID)
		}
	}
	expect(key, "", "")
	body, err := json.Marshal(r.lastUsage(key.Arn).KeyLastUsage)
	must(t, err)
	if string(body) != "{}" {
		t.Errorf("never used: %s", body)
	}

	encrypt := func(who kms.Caller, dryRun bool) ([]byte, error) {
		resp, err := r.Encrypt(ctx, who, &kms.EncryptRequest{KeyID: key.KeyID, Plaintext: []byte("x"), DryRun: dryRun})
		if err != nil {
			return nil, err
		}
		return resp.CiphertextBlob, nil
	}
	var blob []byte
	r.do("Encrypt", "r1", func(who kms.Caller) (err error) { blob, err = encrypt(who, false); return err })
	expect(key, "Encrypt", "r1")
	expect(other, "", "")
	r.do("Encrypt", "r2", func(who kms.Caller) error {
		_, err := encrypt(who, true)
		refusal(t, err, kms.DryRunSucceeded, "The request would have succeeded, but the DryRun option is set.")
		return err
	})
	r.do("Decrypt", "r3", func(who kms.Caller) error {
		return second(r.Decrypt(ctx, who, &kms.DecryptRequest{CiphertextBlob: blob, EncryptionContext: map[string]string{"a": "b"}}))
	})
	r.do("DescribeKey", "r4", func(who kms.Caller) error {
		return second(r.DescribeKey(ctx, who, &kms.DescribeKeyRequest{KeyID: key.KeyID}))
	})
	expect(key, "Encrypt", "r1")
	r.do("ReEncrypt", "r5", func(who kms.Caller) error {
		return second(r.ReEncrypt(ctx, who, &kms.ReEncryptRequest{CiphertextBlob: blob, DestinationKeyID: other.KeyID}))
	})
	expect(key, "ReEncrypt", "r5")
	expect(other, "ReEncrypt", "r5")

	// What another process has stored counts if it is later, and only then.
	id, err := kms.ParseKeyID(key.KeyID)
	must(t, err)
	stored := func(at time.Time, requestID string) {
		must(t, r.store.Update(ctx, func(tx kms.Tx) error {
			return tx.RecordUse(nil, []kms.KeyUse{{Key: id, Operation: "GenerateDataKey", Time: at, EventID: "01234567-0123-4567-89ab-0123456789ab", RequestID: requestID}})
		}))
	}
	stored(time.Now().Add(-10*time.Second), "r6")
	expect(key, "ReEncrypt", "r5")
	stored(time.Now().Add(10*time.Second), "r7")
	expect(key, "GenerateDataKey", "r7")

	must(t, second(r.ScheduleKeyDeletion(ctx, root, &kms.ScheduleKeyDeletionRequest{KeyID: key.KeyID})))
	expect(key, "GenerateDataKey", "r7")
	stranger := kms.Caller{Account: "444455556666", Principal: "arn:aws:iam::444455556666:root"}
	if _, err := r.GetKeyLastUsage(ctx, stranger, &kms.GetKeyLastUsageRequest{KeyID: key.Arn}); !errors.Is(err, kms.AccessDenied) {
		t.Errorf("another account: %v", err)
	}
}

// A key that is older than the keeping of uses is tracked since that began.
func TestUsageTrackedSince(t *testing.T) {
	r := newRig(t, nil)
	id, err := kms.ParseKeyID("1234abcd-12ab-34cd-56ef-1234567890ab")
	must(t, err)
	created := time.Now().Add(-1000 * day).UTC().Truncate(time.Millisecond)
	policy := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"kms:*","Resource":"*"}]}`
	material := kms.NewMaterialID()
	ref, err := token.Generate(t.Context(), material, "strongroom/"+id.String()+"/0")
	must(t, err)
	must(t, r.store.Update(t.Context(), func(tx kms.Tx) error {
		return tx.InsertKey(&kms.Key{ID: id, Account: account, State: kms.StateEnabled, Created: created, Policy: policy,
			Materials: []kms.Material{{ID: material, Ref: ref, Created: created}}})
	}))
	got := r.lastUsage(id.String())
	if !got.KeyCreationDate.Equal(created) || time.Since(got.TrackingStartDate.Time) > time.Minute {
		t.Errorf("created %v, tracked since %v", got.KeyCreationDate, got.TrackingStartDate)
	}
}

// The last uses of very many keys are written in parts, and all of them.
func TestManyUses(t *testing.T) {
	r := newRig(t, nil)
	s := newService(t, r.store, token)
	n := 2*kms.UsageBatch + 10
	ids := r.fill(n)
	for _, id := range ids {
		s.Use(id)
	}
	s.FlushUsage(t.Context())
	must(t, r.store.View(t.Context(), func(tx kms.Tx) error {
		for i, id := range ids {
			if _, err := tx.KeyUse(id); err != nil {
				t.Fatalf("key %d of %d: %v", i, n, err)
			}
		}
		return nil
	}))
}
