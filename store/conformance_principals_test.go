package store_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom/kms"
)

const (
	alice   = "arn:aws:iam::111122223333:user/alice"
	builder = "arn:aws:iam::111122223333:role/builder"
)

func testAccounts(t *testing.T, a, b kms.Store) {
	created := exact()
	ids := []string{"000000000000", account, other, "999999999999"}
	for _, id := range []string{other, ids[3], ids[0], account} {
		update(t, a, func(tx kms.Tx) error { return tx.InsertAccount(id, created) })
	}
	update(t, a, func(tx kms.Tx) error {
		want(t, tx.InsertAccount(account, time.Now()), kms.ErrConflict)
		return nil
	})
	view(t, b, func(tx kms.Tx) error {
		got, err := tx.Account(account)
		same(t, got, &kms.Account{ID: account, Created: created})
		want(t, err, nil)
		_, err = tx.Account("777788889999")
		want(t, err, kms.ErrNotStored)
		return nil
	})
	pages(t, b, ids, func(tx kms.Tx, after string, limit int) ([]string, error) {
		all, err := tx.Accounts(after, limit)
		return names(all, func(a kms.Account) string { return a.ID }), err
	})
}

func testCredentials(t *testing.T, a, b kms.Store) {
	root := &kms.Credential{ID: "AKIAEXAMPLE", Account: account, Principal: "arn:aws:iam::111122223333:root", Active: true, Created: exact(), Sealed: []byte{0, 1, 255}}
	off := &kms.Credential{ID: "AKIAOTHER", Account: account, Principal: alice, Created: exact(), LastUsed: exact().Add(time.Minute), Sealed: []byte{2}}
	session := newSession("ASIAEXAMPLE", exact().Add(time.Hour))
	want(t, a.Update(t.Context(), func(tx kms.Tx) error { return tx.InsertCredential(root) }), kms.ErrNotStored) // nor is its account
	update(t, a, func(tx kms.Tx) error {
		return errors.Join(tx.InsertAccount(account, time.Now()), tx.InsertCredential(root), tx.InsertCredential(off), tx.InsertCredential(session))
	})
	update(t, a, func(tx kms.Tx) error {
		want(t, tx.InsertCredential(root), kms.ErrConflict)
		for _, spoil := range []func(*kms.Credential){
			func(c *kms.Credential) { c.Sealed = nil },
			func(c *kms.Credential) { c.Token = []byte{} },
			func(c *kms.Credential) { c.Token = make([]byte, 31) },
		} {
			bad := newSession("ASIABAD", exact())
			spoil(bad)
			if err := tx.InsertCredential(bad); err == nil || errors.Is(err, kms.ErrConflict) {
				t.Errorf("stored %+v: %v", bad, err)
			}
		}
		return nil
	})
	view(t, b, func(tx kms.Tx) error {
		for _, c := range []*kms.Credential{root, off, session} {
			got, err := tx.Credential(c.ID)
			want(t, err, nil)
			same(t, got, c)
		}
		_, err := tx.Credential("AKIANOBODY")
		want(t, err, kms.ErrNotStored)
		return nil
	})

	update(t, a, func(tx kms.Tx) error {
		want(t, tx.SetCredentialActive("AKIANOBODY", true), kms.ErrNotStored)
		want(t, tx.DeleteCredential("AKIANOBODY"), kms.ErrNotStored)
		return errors.Join(tx.SetCredentialActive(off.ID, true), tx.SetCredentialActive(session.ID, false), tx.DeleteCredential(root.ID))
	})
	view(t, b, func(tx kms.Tx) error {
		on, err := tx.Credential(off.ID)
		want(t, err, nil)
		expect := *off
		expect.Active = true
		same(t, on, &expect)
		ended, err := tx.Credential(session.ID)
		same(t, ended.Active, false)
		want(t, err, nil)
		_, err = tx.Credential(root.ID)
		want(t, err, kms.ErrNotStored)
		return nil
	})
	update(t, a, func(tx kms.Tx) error { return tx.InsertCredential(root) }) // an id is free again, unlike a principal's name
}

func testListCredentials(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	ids := []string{"AKIAB", "AKIAC", "AKIAa", "ASIA0", "ASIA1"}
	update(t, a, func(tx kms.Tx) error {
		for i, id := range slices.Backward(ids) {
			c := newSession(id, exact())
			if i < 3 {
				c = &kms.Credential{ID: id, Account: account, Principal: builder, Active: true, Created: exact(), Sealed: []byte{1}}
			}
			foreign := newSession(id+"x", exact())
			foreign.Principal = alice
			if err := errors.Join(tx.InsertCredential(c), tx.InsertCredential(foreign)); err != nil {
				return err
			}
		}
		return nil
	})
	pages(t, b, ids, func(tx kms.Tx, after string, limit int) ([]string, error) {
		all, err := tx.Credentials(builder, after, limit)
		for _, c := range all {
			got, err := tx.Credential(c.ID)
			want(t, err, nil)
			same(t, got, &c)
		}
		return names(all, func(c kms.Credential) string { return c.ID }), err
	})
	view(t, b, func(tx kms.Tx) error {
		all, err := tx.Credentials("arn:aws:iam::111122223333:role/build", "", 10) // no prefix of another's
		same(t, len(all), 0)
		return err
	})
}

func testDeleteExpired(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	now := exact()
	for i := range 5 {
		update(t, a, func(tx kms.Tx) error {
			return tx.InsertCredential(newSession(fmt.Sprint("ASIA", i), now.Add(time.Duration(i)*time.Minute)))
		})
	}
	update(t, a, func(tx kms.Tx) error {
		return tx.InsertCredential(&kms.Credential{ID: "AKIA", Account: account, Principal: builder, Created: now, Sealed: []byte{1}}) // does not expire
	})
	for _, step := range []struct {
		before time.Time
		limit  int
		want   int
		left   string
	}{
		{now, 10, 0, "AKIA ASIA0 ASIA1 ASIA2 ASIA3 ASIA4"}, // not before now, but now
		{now.Add(time.Hour), 0, 0, "AKIA ASIA0 ASIA1 ASIA2 ASIA3 ASIA4"},
		{now.Add(time.Hour), -1, 0, "AKIA ASIA0 ASIA1 ASIA2 ASIA3 ASIA4"},
		{now.Add(time.Millisecond), 10, 1, "AKIA ASIA1 ASIA2 ASIA3 ASIA4"},
		{now.Add(time.Hour), 2, 2, "AKIA ASIA3 ASIA4"},
		{now.Add(time.Hour), 10, 2, "AKIA"},
		{now.Add(time.Hour), 10, 0, "AKIA"},
	} {
		update(t, a, func(tx kms.Tx) error {
			n, err := tx.DeleteExpired(step.before, step.limit)
			same(t, n, step.want)
			return err
		})
		view(t, b, func(tx kms.Tx) error {
			all, err := tx.Credentials(builder, "", 100)
			same(t, strings.Join(names(all, func(c kms.Credential) string { return c.ID }), " "), step.left)
			return err
		})
	}
}

func testPrincipals(t *testing.T, a, b kms.Store) {
	plain := newPrincipal(kms.User, "alice")
	want(t, a.Update(t.Context(), func(tx kms.Tx) error { return tx.InsertPrincipal(plain) }), kms.ErrNotStored) // nor is its account
	insertAccounts(t, a)
	full := newPrincipal(kms.Role, "alice") // a role may be called as a user is
	full.Tags = map[string]string{"team": "payments", "": "", "ü": "x"}
	full.Policies = []kms.NamedPolicy{{Name: "Z", Text: "{}"}, {Name: "a", Text: `{"Version":"2012-10-17"}`}, {Name: "é", Text: ""}}
	foreign := newPrincipal(kms.User, "alice")
	foreign.Account = other
	update(t, a, func(tx kms.Tx) error {
		shuffled := *full
		shuffled.Policies = []kms.NamedPolicy{full.Policies[2], full.Policies[0], full.Policies[1]}
		return errors.Join(tx.InsertPrincipal(plain), tx.InsertPrincipal(&shuffled), tx.InsertPrincipal(foreign))
	})
	update(t, a, func(tx kms.Tx) error {
		again := newPrincipal(kms.User, "alice")
		again.Tags = map[string]string{"a": "b"}
		want(t, tx.InsertPrincipal(again), kms.ErrConflict)
		again.Name, again.ID = "bob", plain.ID
		want(t, tx.InsertPrincipal(again), kms.ErrConflict)
		again.ID, again.Kind = "AIDANEW", "root"
		if err := tx.InsertPrincipal(again); err == nil || errors.Is(err, kms.ErrConflict) {
			t.Errorf("a principal of unknown kind: %v", err)
		}
		return nil
	})
	view(t, b, func(tx kms.Tx) error {
		for _, p := range []*kms.Principal{plain, full, foreign} {
			got, err := tx.Principal(p.Account, p.Kind, p.Name)
			want(t, err, nil)
			same(t, got, p)
		}
		_, err := tx.Principal(account, kms.User, "bob")
		want(t, err, kms.ErrNotStored)
		_, err = tx.Principal(account, kms.User, "Alice")
		want(t, err, kms.ErrNotStored)
		return nil
	})
}

func testListPrincipals(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	all := []string{"+", "A", "B", "_", "a", "ab", "b"}
	stored := make(map[string]kms.Principal)
	update(t, a, func(tx kms.Tx) error {
		for i, name := range slices.Backward(all) {
			p := newPrincipal(kms.User, name)
			if i%2 == 0 {
				p.Tags = map[string]string{"name": name}
				p.Policies = []kms.NamedPolicy{{Name: "p", Text: name}}
			}
			stored[name] = *p
			foreign := newPrincipal(kms.User, name+"f")
			foreign.Account = other
			if err := errors.Join(tx.InsertPrincipal(p), tx.InsertPrincipal(foreign), tx.InsertPrincipal(newPrincipal(kms.Role, name+"r"))); err != nil {
				return err
			}
		}
		return errors.Join(tx.InsertPrincipal(newPrincipal(kms.User, "aa")), tx.DeletePrincipal(account, kms.User, "aa", time.Now()))
	})
	pages(t, b, all, func(tx kms.Tx, after string, limit int) ([]string, error) {
		page, err := tx.Principals(account, kms.User, after, limit)
		for _, p := range page {
			same(t, p, stored[p.Name])
		}
		return names(page, func(p kms.Principal) string { return p.Name }), err
	})
}

func testChangePrincipal(t *testing.T, a, b kms.Store) {
	insertAccounts(t, a)
	p, bystander := newPrincipal(kms.User, "alice"), newPrincipal(kms.Role, "alice")
	p.Tags = map[string]string{"old": "1"}
	bystander.Tags = p.Tags
	bystander.Policies = []kms.NamedPolicy{{Name: "p", Text: "its own"}}
	update(t, a, func(tx kms.Tx) error { return errors.Join(tx.InsertPrincipal(p), tx.InsertPrincipal(bystander)) })
	check := func() {
		t.Helper()
		view(t, b, func(tx kms.Tx) error {
			for _, p := range []*kms.Principal{p, bystander} {
				got, err := tx.Principal(p.Account, p.Kind, p.Name)
				want(t, err, nil)
				same(t, got, p)
			}
			return nil
		})
	}
	check()
	for _, tags := range []map[string]string{{"old": "2", "new": "1"}, {"other": ""}, nil, {"a": "b"}} {
		update(t, a, func(tx kms.Tx) error { return tx.SetPrincipalTags(account, kms.User, "alice", tags) })
		p.Tags = tags
		check()
	}
	put := func(name, text string) {
		t.Helper()
		update(t, a, func(tx kms.Tx) error {
			return tx.PutPrincipalPolicy(account, kms.User, "alice", kms.NamedPolicy{Name: name, Text: text})
		})
	}
	put("q", "1")
	put("p", "1")
	put("q", "2")
	p.Policies = []kms.NamedPolicy{{Name: "p", Text: "1"}, {Name: "q", Text: "2"}}
	check()
	update(t, a, func(tx kms.Tx) error {
		want(t, tx.DeletePrincipalPolicy(account, kms.User, "alice", "none"), kms.ErrNotStored)
		return tx.DeletePrincipalPolicy(account, kms.User, "alice", "p")
	})
	p.Policies = p.Policies[1:]
	check()

	missing := func(tx kms.Tx, account string, kind kms.PrincipalKind, name string) {
		t.Helper()
		want(t, tx.SetPrincipalTags(account, kind, name, nil), kms.ErrNotStored)
		want(t, tx.SetPrincipalTags(account, kind, name, map[string]string{"a": "b"}), kms.ErrNotStored)
		want(t, tx.PutPrincipalPolicy(account, kind, name, kms.NamedPolicy{Name: "p", Text: "{}"}), kms.ErrNotStored)
		want(t, tx.DeletePrincipalPolicy(account, kind, name, "q"), kms.ErrNotStored)
		want(t, tx.DeletePrincipal(account, kind, name, time.Now()), kms.ErrNotStored)
		_, err := tx.Principal(account, kind, name)
		want(t, err, kms.ErrNotStored)
	}
	update(t, a, func(tx kms.Tx) error {
		missing(tx, account, kms.User, "bob")
		missing(tx, other, kms.User, "alice")
		return nil
	})
	check()

	// One that was deleted is missing like one that never was, but for its name. What belonged to it is left, and is the caller's to drop.
	update(t, a, func(tx kms.Tx) error {
		c := &kms.Credential{ID: "AKIA", Account: account, Principal: alice, Active: true, Created: exact(), Sealed: []byte{1}}
		return errors.Join(tx.InsertCredential(c), tx.DeletePrincipal(account, kms.User, "alice", time.Now()))
	})
	update(t, a, func(tx kms.Tx) error {
		missing(tx, account, kms.User, "alice")
		want(t, tx.InsertPrincipal(newPrincipal(kms.User, "alice")), kms.ErrConflict)
		want(t, tx.InsertPrincipal(p), kms.ErrConflict)
		return nil
	})
	view(t, b, func(tx kms.Tx) error {
		got, err := tx.Principal(account, kms.Role, "alice")
		want(t, err, nil)
		same(t, got, bystander)
		all, err := tx.Principals(account, kms.User, "", 10)
		want(t, err, nil)
		same(t, len(all), 0)
		c, err := tx.Credential("AKIA")
		want(t, err, nil)
		same(t, c.Active, true)
		return nil
	})
}

// The rest are helpers.

// pages checks that a list holds all, in order, whatever the size of its pages.
func pages(t testing.TB, s kms.Store, all []string, list func(tx kms.Tx, after string, limit int) ([]string, error)) {
	t.Helper()
	view(t, s, func(tx kms.Tx) error {
		for _, size := range []int{1, 2, 3, len(all), len(all) + 1, 1000} {
			var got []string
			for after := ""; ; after = got[len(got)-1] {
				page, err := list(tx, after, size)
				if err != nil {
					return err
				}
				if len(page) > size {
					t.Fatalf("asked for %d and got %d", size, len(page))
				}
				got = append(got, page...)
				if len(page) < size {
					break
				}
			}
			same(t, got, all)
		}
		for _, limit := range []int{0, -1} {
			page, err := list(tx, "", limit)
			want(t, err, nil)
			same(t, len(page), 0)
		}
		return nil
	})
}

func names[T any](all []T, name func(T) string) (names []string) {
	for _, v := range all {
		names = append(names, name(v))
	}
	return names
}

func newPrincipal(kind kms.PrincipalKind, name string) *kms.Principal {
	return &kms.Principal{Account: account, Kind: kind, Name: name, ID: "A" + newMaterialID().String(), Created: exact()}
}

// newSession returns a session of the role builder.
func newSession(id string, expires time.Time) *kms.Credential {
	token := sha256.Sum256([]byte(id))
	return &kms.Credential{
		ID: id, Account: account, Principal: builder, Active: true, Created: exact(), Sealed: []byte{3},
		Session: "nightly", Expires: expires, Token: token[:],
	}
}
