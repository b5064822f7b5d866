package store_test

import (
	"strconv"
	"testing"

	"strongroom/kms"
	"strongroom/store"
)

// Of what was changed long ago nothing is kept.
func TestChangesKept(t *testing.T) {
	d := open(t, create(t))
	insertAccounts(t, d)
	k := newKey(kms.StateEnabled)
	insertKeys(t, d, k)
	describe := func(n int) {
		t.Helper()
		update(t, d, func(tx kms.Tx) error { return tx.SetDescription(k.ID, strconv.Itoa(n)) })
	}
	_, since, err := d.Changes(t.Context(), -1)
	want(t, err, nil)
	describe(1)
	got, _, err := d.Changes(t.Context(), since)
	want(t, err, nil)
	sameChanges(t, "one", got, []kms.Change{kms.KeyChanged(k.ID)})

	// As if very many had come after it.
	d.SQL(t, "UPDATE generation SET value = value + "+strconv.Itoa(store.ChangesKept))
	describe(2)
	same(t, d.Rows(t, "SELECT count(*) FROM change"), []string{"1"})
	got, now, err := d.Changes(t.Context(), since)
	want(t, err, nil)
	sameChanges(t, "long ago", got, []kms.Change{{Kind: kms.AnyChange}})
	got, _, err = d.Changes(t.Context(), now-1)
	want(t, err, nil)
	sameChanges(t, "the last", got, []kms.Change{kms.KeyChanged(k.ID)})

	// A change by something that says nothing, as a program of another version.
	d.SQL(t, "UPDATE generation SET value = value + 1")
	describe(3)
	got, _, err = d.Changes(t.Context(), now)
	want(t, err, nil)
	sameChanges(t, "a gap", got, []kms.Change{{Kind: kms.AnyChange}})
}
