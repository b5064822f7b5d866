package store_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom/kms"
)

// Each method that writes says what it changed, exactly, to every process.
func testChanges(t *testing.T, a, b kms.Store) {
	things := insertThings(t, a)
	key, plain, goes := kms.KeyChanged(things.key.ID), kms.KeyChanged(things.plain), kms.KeyChanged(things.goes)
	alice, bob := kms.PrincipalChanged(account, kms.User, "alice"), kms.PrincipalChanged(account, kms.User, "bob")
	unknown := []kms.Change{{Kind: kms.AnyChange}} // what nobody remembers, or what is seldom done
	wants := map[string][]kms.Change{
		"SetUsageSince": unknown, "InsertSystemKey": unknown, "SetSystemKeyRef": unknown, "InsertAccount": unknown,
		"InsertPrincipal": {kms.PrincipalChanged(account, kms.Role, "alice")}, "SetPrincipalTags": {alice}, "PutPrincipalPolicy": {alice},
		"DeletePrincipalPolicy": {alice}, "DeletePrincipal": {bob},
		"InsertCredential": {kms.CredentialChanged("ASIA3")}, "SetCredentialActive": {kms.CredentialChanged("ASIA0")},
		"DeleteCredential": {kms.CredentialChanged("ASIA1")},
		"InsertKey":        {kms.KeyChanged(things.made)}, "DeleteKey": {goes},
		"SetState": {key}, "SetMaterialRef": {key}, "InsertMaterial": {plain}, "SetRotation": {key}, "SetDescription": {key}, "SetPolicy": {key},
		"SetTags": {key}, "DeleteTags": {key}, "InsertGrant": {key}, "DeleteGrant": {key},
		"InsertAlias": {kms.AliasChanged(account, "alias/new"), key}, "DeleteAlias": {kms.AliasChanged(account, "alias/drop"), key},
		"MoveAlias": {kms.AliasChanged(account, "alias/move"), key, plain},
	}
	_, since, err := b.Changes(t.Context(), -1)
	want(t, err, nil)
	first := since
	for name, write := range things.writes {
		update(t, a, func(tx kms.Tx) error { return write(tx) })
		got, now, err := b.Changes(t.Context(), since)
		want(t, err, nil)
		if _, ok := wants[name]; ok == slices.Contains(quiet, name) {
			t.Errorf("%s: what it changes is said, or is not, against what is said of the generation", name)
		}
		sameChanges(t, name, got, wants[name])
		if (now == since) != slices.Contains(quiet, name) {
			t.Errorf("%s: generation %d after %d", name, now, since)
		}
		since = now
	}
	// Of all of these, some were not known.
	got, now, err := b.Changes(t.Context(), first)
	want(t, err, nil)
	same(t, now, since)
	sameChanges(t, "all", got, unknown)

	// What several transactions changed is told together; what was undone is not.
	ids := []kms.KeyID{things.key.ID, things.plain, things.made}
	for _, id := range ids {
		update(t, a, func(tx kms.Tx) error { return errors.Join(tx.SetDescription(id, "x"), tx.SetPolicy(id, "y")) })
		undo := errors.New("undo")
		want(t, a.Update(t.Context(), func(tx kms.Tx) error { return errors.Join(tx.SetDescription(ids[0], "z"), undo) }), undo)
	}
	got, now, err = b.Changes(t.Context(), since)
	want(t, err, nil)
	same(t, now, since+3)
	sameChanges(t, "three", got, []kms.Change{key, plain, kms.KeyChanged(things.made)})

	// What is not known of one is not known of all.
	update(t, a, func(tx kms.Tx) error {
		return errors.Join(tx.InsertAccount("888877776666", time.Now()), tx.InsertAccount("888877776667", time.Now()))
	})
	update(t, a, func(tx kms.Tx) error { return tx.SetDescription(ids[0], "w") })
	got, _, err = b.Changes(t.Context(), now)
	want(t, err, nil)
	sameChanges(t, "an unknown one among others", got, unknown)

	// One that changes very many things may have changed anything.
	_, now, err = b.Changes(t.Context(), -1)
	want(t, err, nil)
	update(t, a, func(tx kms.Tx) error {
		for range 500 {
			if err := tx.InsertKey(newKey(kms.StateEnabled)); err != nil {
				return err
			}
		}
		return nil
	})
	got, last, err := b.Changes(t.Context(), now)
	want(t, err, nil)
	sameChanges(t, "very many", got, unknown)

	for _, since := range []int64{-1, 0, last + 1, 1 << 62} { // no generations of which it is known
		got, now, err := b.Changes(t.Context(), since)
		want(t, err, nil)
		same(t, now, last)
		sameChanges(t, fmt.Sprint("since ", since), got, unknown)
	}
	got, now, err = b.Changes(t.Context(), last)
	want(t, err, nil)
	same(t, now, last)
	sameChanges(t, "none", got, nil)

	// A key that is dropped with aliases takes away names that are not known any more.
	update(t, a, func(tx kms.Tx) error {
		k := newKey(kms.StateDestroying)
		return errors.Join(tx.InsertKey(k), tx.InsertAlias(newAlias("alias/left", k.ID)), tx.DeleteKey(k.ID, time.Now()), tx.SetDescription(ids[0], "v"))
	})
	got, _, err = b.Changes(t.Context(), last)
	want(t, err, nil)
	if !slices.Contains(got, unknown[0]) {
		t.Errorf("a key was dropped with its alias: %v", got)
	}
}

func sameChanges(t *testing.T, what string, got, want []kms.Change) {
	t.Helper()
	order := func(a, b kms.Change) int { return strings.Compare(string(a.Kind)+a.Name, string(b.Kind)+b.Name) }
	got, want = slices.SortedFunc(slices.Values(got), order), slices.SortedFunc(slices.Values(want), order)
	if !slices.Equal(got, want) {
		t.Errorf("%s: changed %v, want %v", what, got, want)
	}
}
