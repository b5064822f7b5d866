package store_test

import (
	"os"
	"testing"

	"strongroom/kms"
	"strongroom/store"
)

// A search for damage that goes on while the store is used makes it unhealthy when it finds some, and what is not damaged can be read all the same.
func TestCheckInTheBackground(t *testing.T) {
	path := create(t)
	d := open(t, path)
	insertAccounts(t, d)
	first := newKey(kms.StateEnabled)
	insertKeys(t, d, first)
	want(t, d.Healthy(t.Context()), nil)
	want(t, <-d.Check(t.Context()), nil)
	want(t, d.Healthy(t.Context()), nil)
	if !d.Sound() {
		t.Error("a store that is well is not sound")
	}
	for range 200 {
		insertKeys(t, d, newKey(kms.StateEnabled))
	}
	want(t, d.Close(), nil)

	f, err := os.OpenFile(path, os.O_RDWR, 0)
	want(t, err, nil)
	info, err := f.Stat()
	want(t, err, nil)
	found := false
	for page := int64(4096); page < info.Size() && !found; page += 4096 {
		was := make([]byte, 4096)
		_, err := f.ReadAt(was, page)
		want(t, err, nil)
		_, err = f.WriteAt(make([]byte, 4096), page)
		want(t, err, nil)
		if d, err := store.Open(t.Context(), path); err == nil {
			readable := d.View(t.Context(), func(tx kms.Tx) error { _, err := tx.Key(first.ID); return err }) == nil
			if err := <-d.Check(t.Context()); err != nil && readable {
				found = true
				mention(t, err, path, "damaged", "restore")
				mention(t, d.Healthy(t.Context()), path, "damaged")
				if d.Sound() {
					t.Error("a damaged store is sound")
				}
				want(t, d.View(t.Context(), func(tx kms.Tx) error { _, err := tx.Key(first.ID); return err }), nil)
			} else if err != nil {
				mention(t, d.Healthy(t.Context()), "damaged")
			}
			want(t, d.Close(), nil)
		}
		_, err = f.WriteAt(was, page)
		want(t, err, nil)
	}
	want(t, f.Close(), nil)
	if !found {
		t.Error("no page was damaged without a key's being unreadable")
	}
}

// Whoever closes a store does not wait for the search.
func TestCloseEndsCheck(t *testing.T) {
	d, err := store.Open(t.Context(), create(t))
	want(t, err, nil)
	insertAccounts(t, d)
	update(t, d, func(tx kms.Tx) error {
		for range 20_000 {
			if err := tx.InsertKey(newKey(kms.StateEnabled)); err != nil {
				return err
			}
		}
		return nil
	})
	checked := d.Check(t.Context())
	want(t, d.Close(), nil)
	if err := <-checked; err == nil {
		t.Error("the whole store was looked through before it was closed")
	}
}
