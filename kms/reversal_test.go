package kms_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"strongroom/kms"
)

// What was taken from somebody since a copy was made is told, each by its kind; what was given is not, nor what is as it was.
func TestReversals(t *testing.T) {
	ctx := t.Context()
	r := newRig(t, nil)
	disabled, doomed, policed, tagged, granted, enabled := r.newKey().KeyID, r.newKey().KeyID, r.newKey().KeyID, r.newKey().KeyID, r.newKey().KeyID, r.newKey().KeyID
	arn := func(kind kms.PrincipalKind, name string) string {
		return kms.PrincipalARN{Partition: "aws", Account: account, Kind: kind, Name: name}.String()
	}
	now := time.Now()
	credential := func(id, name string) *kms.Credential {
		return &kms.Credential{ID: id, Account: account, Principal: arn(kms.User, name), Active: true, Created: now, Sealed: []byte{1}}
	}
	grant := func(id byte) *kms.Grant {
		return &kms.Grant{ID: string(slices.Repeat([]byte{id}, 64)), Key: parseID(t, granted), Grantee: arn(kms.User, "alice"), Issuer: account, Operations: 1, Created: now}
	}
	change := func(f func(tx kms.Tx) error) {
		t.Helper()
		must(t, r.store.Update(ctx, f))
	}
	all := func(errs ...error) error {
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		return nil
	}
	ended, session := credential("ASIAENDED00000000000", "alice"), credential("ASIASESSION000000000", "alice")
	for _, c := range []*kms.Credential{ended, session} {
		c.Session, c.Token, c.Expires = "s", make([]byte, 32), now.Add(time.Hour)
		c.Principal = arn(kms.Role, "worker")
	}
	ended.Expires = now.Add(-time.Minute)
	change(func(tx kms.Tx) error {
		return all(
			tx.InsertPrincipal(&kms.Principal{Account: account, Kind: kms.User, Name: "alice", ID: "AIDA1", Created: now, Tags: map[string]string{"a": "b"},
				Policies: []kms.NamedPolicy{{Name: "changed", Text: "{}"}, {Name: "removed", Text: "{}"}, {Name: "same", Text: "{}"}}}),
			tx.InsertPrincipal(&kms.Principal{Account: account, Kind: kms.User, Name: "bob", ID: "AIDA2", Created: now}),
			tx.InsertPrincipal(&kms.Principal{Account: account, Kind: kms.Role, Name: "worker", ID: "AROA1", Created: now}),
			tx.InsertCredential(credential("AKIADISABLED00000000", "alice")), tx.InsertCredential(credential("AKIADELETED000000000", "alice")),
			tx.InsertCredential(credential("AKIASAME000000000000", "alice")), tx.InsertCredential(ended), tx.InsertCredential(session),
			tx.InsertGrant(grant('a')), tx.InsertGrant(grant('b')),
			tx.SetState(parseID(t, enabled), kms.StateEnabled, kms.StateDisabled, time.Time{}),
		)
	})
	db, _ := r.copyOf()
	if got, err := kms.Reversals(ctx, r.store, db, now); err != nil || len(got) != 0 {
		t.Errorf("of a copy as it is: %+v, %v", got, err)
	}
	later := r.newKey().KeyID
	change(func(tx kms.Tx) error {
		return all(
			tx.SetCredentialActive("AKIADISABLED00000000", false), tx.DeleteCredential("AKIADELETED000000000"), tx.DeleteCredential(ended.ID), tx.DeleteCredential(session.ID),
			tx.DeletePrincipal(account, kms.User, "bob", now),
			tx.PutPrincipalPolicy(account, kms.User, "alice", kms.NamedPolicy{Name: "changed", Text: "{ }"}),
			tx.PutPrincipalPolicy(account, kms.User, "alice", kms.NamedPolicy{Name: "added", Text: "{}"}),
			tx.DeletePrincipalPolicy(account, kms.User, "alice", "removed"),
			tx.SetPrincipalTags(account, kms.User, "alice", map[string]string{"a": "c"}),
			tx.SetState(parseID(t, disabled), kms.StateEnabled, kms.StateDisabled, time.Time{}),
			tx.SetState(parseID(t, doomed), kms.StateEnabled, kms.StatePendingDeletion, now.Add(time.Hour)),
			tx.SetState(parseID(t, enabled), kms.StateDisabled, kms.StateEnabled, time.Time{}),
			tx.SetPolicy(parseID(t, policed), "{}"), tx.SetTags(parseID(t, tagged), map[string]string{"quarantined": "yes"}),
			tx.DeleteGrant(parseID(t, granted), grant('a').ID), tx.InsertGrant(grant('c')),
			tx.SetPolicy(parseID(t, later), "{}"),
		)
	})
	found, err := kms.Reversals(ctx, r.store, db, now)
	must(t, err)
	got := make(map[string]bool)
	for _, b := range found {
		about := b.Name
		if !b.Key.IsZero() {
			about = b.Key.String() + b.Name
		}
		if b.Account != account {
			t.Errorf("got %+v", b)
		}
		got[string(b.Kind)+" "+about+" "+b.Detail] = true
	}
	want := map[string]bool{}
	of := " of " + arn(kms.User, "alice")
	for _, s := range []string{
		"access-key AKIADISABLED00000000" + of + ", disabled since",
		"access-key AKIADELETED000000000" + of + ", deleted since",
		"access-key ASIASESSION000000000 of " + arn(kms.Role, "worker") + ", deleted since",
		"principal user/bob deleted since",
		"identity-policy user/alice policy changed, changed since",
		"identity-policy user/alice policy added, added since",
		"identity-policy user/alice policy removed, removed since",
		"principal-tags user/alice changed since",
		"key-state " + disabled + " now Disabled, and Enabled in the backup",
		"key-state " + doomed + " now PendingDeletion, and Enabled in the backup",
		"key-policy " + policed + " changed since",
		"key-tags " + tagged + " changed since",
		"grant " + granted + grant('a').ID + " to " + arn(kms.User, "alice") + ", revoked or retired since",
	} {
		want[s] = true
	}
	if !maps.Equal(got, want) {
		t.Errorf("got\n%v\nwant\n%v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
}
