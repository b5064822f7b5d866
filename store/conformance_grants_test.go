package store_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"strongroom/kms"
)

func testGrant(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	k, l := newKey(kms.StateEnabled), newKey(kms.StateEnabled)
	insertKeys(t, a, k, l)
	full := newGrant(k.ID, alice)
	full.Name, full.Retiring, full.Issuer = "name", builder, other
	full.Operations = 1<<32 - 1
	full.Constraint.SourceArn = "arn:aws:s3:::bucket"
	grants := []*kms.Grant{newGrant(k.ID, alice), full}
	// None is not the same as an empty one.
	for _, context := range []map[string]string{{}, {"a": "b"}, {"": "", "ü <&>\u2028": "\x00\"\\", "a": "b"}} {
		g, h := newGrant(k.ID, alice), newGrant(k.ID, alice)
		g.Constraint.Equals, h.Constraint.Subset = context, context
		grants = append(grants, g, h)
	}
	update(t, a, func(tx kms.Tx) error {
		for _, g := range grants {
			if err := tx.InsertGrant(g); err != nil {
				return err
			}
		}
		return nil
	})
	check := func(err error) {
		t.Helper()
		want(t, err, nil)
		view(t, b, func(tx kms.Tx) error {
			for _, g := range grants {
				got, err := tx.Grant(k.ID, g.ID)
				want(t, err, nil)
				same(t, got, g)
				_, err = tx.Grant(l.ID, g.ID)
				want(t, err, kms.ErrNotStored)
			}
			n, err := tx.CountGrants(k.ID)
			want(t, err, nil)
			same(t, n, len(grants))
			_, err = tx.Grant(k.ID, newGrant(k.ID, alice).ID)
			want(t, err, kms.ErrNotStored)
			return nil
		})
	}
	check(nil)

	// What is refused.
	check(a.Update(t.Context(), func(tx kms.Tx) error {
		again := newGrant(l.ID, builder)
		again.ID = full.ID
		want(t, tx.InsertGrant(again), kms.ErrConflict)
		for _, context := range []map[string]string{{"a": "\xff"}, {"\xff": "a"}} {
			bad := newGrant(k.ID, alice)
			bad.Constraint.Equals = context
			if tx.InsertGrant(bad) == nil {
				t.Error("stored a context that is not UTF-8")
			}
			bad.Constraint.Equals, bad.Constraint.Subset = nil, context
			if tx.InsertGrant(bad) == nil {
				t.Error("stored a context that is not UTF-8")
			}
		}
		want(t, tx.DeleteGrant(l.ID, full.ID), kms.ErrNotStored)
		want(t, tx.DeleteGrant(k.ID, newGrant(k.ID, alice).ID), kms.ErrNotStored)
		return nil
	}))
	want(t, a.Update(t.Context(), func(tx kms.Tx) error { return tx.InsertGrant(newGrant(newID(), alice)) }), kms.ErrNotStored)

	update(t, a, func(tx kms.Tx) error { return tx.DeleteGrant(k.ID, full.ID) })
	view(t, b, func(tx kms.Tx) error {
		_, err := tx.Grant(k.ID, full.ID)
		want(t, err, kms.ErrNotStored)
		return nil
	})
	grants = slices.Delete(grants, 1, 2)
	check(nil)
	view(t, b, func(tx kms.Tx) error {
		n, err := tx.CountGrants(newID())
		same(t, n, 0)
		return err
	})
}

func testListGrants(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	k, l := newKey(kms.StateEnabled), newKey(kms.StateEnabled)
	insertKeys(t, a, k, l)
	stored := make(map[string]kms.Grant)
	var ids []string
	lists := make(map[string][]string) // by what each is of
	update(t, a, func(tx kms.Tx) error {
		clear(stored)
		clear(lists)
		ids = nil
		for i := range 60 {
			g := newGrant(k.ID, alice)
			if i%2 == 1 {
				g.Key = l.ID
			}
			if i%3 == 1 {
				g.Grantee = builder
			}
			if i%4 >= 2 {
				g.Retiring = alice
			}
			if i%5 == 1 {
				g.Name = "name"
			}
			if i == 7 {
				g.ID = strings.ToUpper(g.ID) // before all in lower case
			}
			if err := tx.InsertGrant(g); err != nil {
				return err
			}
			stored[g.ID] = *g
			ids = append(ids, g.ID)
		}
		slices.Sort(ids)
		for _, id := range ids {
			g := stored[id]
			for _, of := range []string{g.Key.String(), g.Key.String() + g.Grantee, g.Retiring, g.Key.String() + g.Name} {
				lists[of] = append(lists[of], id)
			}
		}
		return nil
	})
	ofGrants := func(all []kms.Grant, err error) ([]string, error) {
		for _, g := range all {
			same(t, g, stored[g.ID])
		}
		return names(all, func(g kms.Grant) string { return g.ID }), err
	}
	for _, key := range []kms.KeyID{k.ID, l.ID} {
		var all []string
		for _, id := range ids {
			if stored[id].Key == key {
				all = append(all, id)
			}
		}
		pages(t, b, all, func(tx kms.Tx, after string, limit int) ([]string, error) {
			return ofGrants(tx.Grants(key, "", after, limit))
		})
		for _, grantee := range []string{alice, builder} {
			pages(t, b, lists[key.String()+grantee], func(tx kms.Tx, after string, limit int) ([]string, error) {
				return ofGrants(tx.Grants(key, grantee, after, limit))
			})
		}
		view(t, b, func(tx kms.Tx) error {
			for _, id := range lists[key.String()+"name"] {
				like := stored[id]
				var alike []string
				for _, other := range lists[key.String()+"name"] {
					o := stored[other]
					if o.Grantee == like.Grantee && o.Operations == like.Operations && o.Match() == like.Match() {
						alike = append(alike, other)
					}
				}
				slices.Sort(alike)
				got, err := ofGrants(tx.NamedGrants(&like))
				want(t, err, nil)
				same(t, got, alike)
				for _, name := range []string{"", "Name"} { // no name is none
					like.Name = name
					got, err = ofGrants(tx.NamedGrants(&like))
					want(t, err, nil)
					same(t, len(got), 0)
				}
			}
			return nil
		})
	}
	pages(t, b, lists[alice], func(tx kms.Tx, after string, limit int) ([]string, error) {
		return ofGrants(tx.RetirableGrants(alice, after, limit))
	})
	view(t, b, func(tx kms.Tx) error {
		for _, retiring := range []string{"", builder} {
			got, err := tx.RetirableGrants(retiring, "", 10)
			want(t, err, nil)
			same(t, len(got), 0)
		}
		return nil
	})
}

func testFindGrants(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	k, l := newKey(kms.StateEnabled), newKey(kms.StateEnabled)
	insertKeys(t, a, k, l)
	contexts := []kms.GrantConstraint{
		{},
		{SourceArn: "arn:aws:s3:::bucket"}, // found as if there were no constraint
		{Equals: map[string]string{}},
		{Subset: map[string]string{}}, // likewise
		{Equals: map[string]string{"a": "b"}},
		{Subset: map[string]string{"a": "b"}},
		{Subset: map[string]string{"a": "b", "c": ""}},
		{Subset: map[string]string{"A": "b"}},
	}
	var all []kms.Grant
	update(t, a, func(tx kms.Tx) error {
		all = nil
		for _, key := range []kms.KeyID{k.ID, l.ID} {
			for _, grantee := range []string{alice, builder} {
				for _, c := range contexts {
					for _, operations := range []kms.GrantOperations{1, 2, 3, 1 << 31} {
						g := newGrant(key, grantee)
						g.Constraint, g.Operations = c, operations
						if err := tx.InsertGrant(g); err != nil {
							return err
						}
						all = append(all, *g)
					}
				}
			}
		}
		return nil
	})
	byID := func(a, b kms.Grant) int { return strings.Compare(a.ID, b.ID) }
	for _, key := range []kms.KeyID{k.ID, l.ID, newID()} {
		for _, grantee := range []string{alice, builder, ""} {
			for _, c := range contexts {
				match := (&kms.Grant{Constraint: c}).Match()
				for _, operation := range []kms.GrantOperations{0, 1, 2, 3, 4, 1 << 31} {
					var expected []kms.Grant
					for _, g := range all {
						if g.Key == key && g.Grantee == grantee && g.Match() == match && g.Operations&operation != 0 {
							expected = append(expected, g)
						}
					}
					slices.SortFunc(expected, byID)
					view(t, b, func(tx kms.Tx) error {
						got, err := tx.FindGrants(key, grantee, match, operation, 1000)
						slices.SortFunc(got, byID)
						same(t, got, expected)
						want(t, err, nil)
						for _, limit := range []int{-1, 0, 1, 2} {
							got, err := tx.FindGrants(key, grantee, match, operation, limit)
							same(t, len(got), min(len(expected), max(limit, 0)))
							want(t, err, nil)
						}
						return nil
					})
				}
			}
		}
	}
}

func newGrant(key kms.KeyID, grantee string) *kms.Grant {
	return &kms.Grant{
		ID: fmt.Sprint(newMaterialID(), newMaterialID()), Key: key, Grantee: grantee, Issuer: account, Operations: 1, Created: exact(),
	}
}

func insertGrants(t testing.TB, s kms.Store, grants ...*kms.Grant) {
	t.Helper()
	update(t, s, func(tx kms.Tx) error {
		var err error
		for _, g := range grants {
			err = errors.Join(err, tx.InsertGrant(g))
		}
		return err
	})
}
