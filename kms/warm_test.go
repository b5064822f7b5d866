package kms_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"strongroom/kms"
)

// A countedStore counts how often requests read it, and fails to say what was changed if it is told to.
type countedStore struct {
	kms.Store
	views atomic.Int64
	deaf  atomic.Bool
}

func (s *countedStore) View(ctx context.Context, f func(kms.Tx) error) error {
	s.views.Add(1)
	return s.Store.View(ctx, func(tx kms.Tx) error { return f(countedTx{tx, s}) })
}

// A countedTx does not count what is asked in the background.
type countedTx struct {
	kms.Tx
	store *countedStore
}

func (tx countedTx) Events(limit int) ([]kms.Event, error) {
	tx.store.views.Add(-1)
	return tx.Tx.Events(limit)
}

func (tx countedTx) KeysInState(state kms.KeyState, due time.Time, limit int) ([]kms.KeyID, error) {
	tx.store.views.Add(-1)
	return tx.Tx.KeysInState(state, due, limit)
}

func (tx countedTx) KeysRotating(after kms.KeyID, limit int) ([]kms.KeyID, error) {
	tx.store.views.Add(-1)
	return tx.Tx.KeysRotating(after, limit)
}

func (tx countedTx) KeysToRotate(due time.Time, limit int) ([]kms.KeyID, error) {
	tx.store.views.Add(-1)
	return tx.Tx.KeysToRotate(due, limit)
}

func (s *countedStore) Changes(ctx context.Context, since int64) ([]kms.Change, int64, error) {
	if s.deaf.Load() {
		return nil, 0, errors.New("no route to the store")
	}
	return s.Store.Changes(ctx, since)
}

// running returns a service of its own on the rig's store, which trusts its memory, and the store as it sees it.
func (r *rig) running() (*kms.Service, *countedStore) {
	r.t.Helper()
	counted := &countedStore{Store: r.store}
	s := newService(r.t, counted, token)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	r.t.Cleanup(func() { stop(); <-done })
	for deadline := time.Now().Add(10 * time.Second); !s.Trusted(); {
		if time.Now().After(deadline) {
			r.t.Fatal("the store is not heard")
		}
		time.Sleep(time.Millisecond)
	}
	return s, counted
}

// viewsOf returns how often the store is read by what f asks.
func (s *countedStore) viewsOf(f func()) int64 {
	before := s.views.Load()
	f()
	return s.views.Load() - before
}

// A change makes nothing cold but what was changed, in the process that makes it and in any other.
func TestChangesKeepTheRestWarm(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	s, store := r.running()
	elsewhere, far := r.running()
	admin := r.admin()
	app := r.add("arn:aws:iam::111122223333:user/app")
	r.add("arn:aws:iam::111122223333:user/other")

	changed, warm := r.newKey(), r.newKey()
	blob := r.encrypt(warm.KeyID, "secret", nil)
	r.create(root, &kms.CreateGrantRequest{KeyID: warm.KeyID, GranteePrincipal: app.Principal, Operations: []string{"Decrypt"}})
	must(t, second(r.CreateAlias(ctx, root, &kms.CreateAliasRequest{AliasName: "alias/warm", TargetKeyID: warm.KeyID})))
	must(t, second(r.CreateAlias(ctx, root, &kms.CreateAliasRequest{AliasName: "alias/changed", TargetKeyID: changed.KeyID})))
	use := func(s *kms.Service) {
		t.Helper()
		for _, who := range []kms.Caller{root, app} {
			must(t, second(s.Decrypt(ctx, who, &kms.DecryptRequest{CiphertextBlob: blob})))
		}
		must(t, second(s.Encrypt(ctx, root, &kms.EncryptRequest{KeyID: "alias/warm", Plaintext: []byte("x")})))
	}

	grant := ""
	for _, c := range []struct {
		name string
		do   func() error
	}{
		{"CreateKey", func() error { return second(s.CreateKey(ctx, root, &kms.CreateKeyRequest{})) }},
		{"CreateGrant", func() error {
			g, err := s.CreateGrant(ctx, root, &kms.CreateGrantRequest{KeyID: changed.KeyID, GranteePrincipal: app.Principal, Operations: []string{"Encrypt"}})
			if err == nil {
				grant = g.GrantID
			}
			return err
		}},
		{"RevokeGrant", func() error {
			return second(s.RevokeGrant(ctx, root, &kms.RevokeGrantRequest{KeyID: changed.KeyID, GrantID: grant}))
		}},
		{"PutKeyPolicy", func() error {
			return second(s.PutKeyPolicy(ctx, root, &kms.PutKeyPolicyRequest{KeyID: changed.KeyID, Policy: kms.DefaultPolicy("aws", account)}))
		}},
		{"TagResource", func() error {
			return second(s.TagResource(ctx, root, &kms.TagResourceRequest{KeyID: changed.KeyID, Tags: []kms.Tag{{TagKey: "a", TagValue: "b"}}}))
		}},
		{"CreateAlias", func() error {
			return second(s.CreateAlias(ctx, root, &kms.CreateAliasRequest{AliasName: "alias/new", TargetKeyID: changed.KeyID}))
		}},
		{"DeleteAlias", func() error { return second(s.DeleteAlias(ctx, root, &kms.DeleteAliasRequest{AliasName: "alias/new"})) }},
		{"DisableKey", func() error { return second(s.DisableKey(ctx, root, &kms.DisableKeyRequest{KeyID: changed.KeyID})) }},
		{"the operator's command", func() error {
			return admin.SetTags(ctx, kms.PrincipalARN{Partition: "aws", Account: account, Kind: kms.User, Name: "other"}, map[string]string{"a": "b"})
		}},
	} {
		for _, s := range []*kms.Service{s, elsewhere} {
			must(t, s.Hear(ctx)) // of what another did before
			use(s)
		}
		must(t, c.do())
		for who, s := range map[*countedStore]*kms.Service{store: s, far: elsewhere} {
			must(t, s.Hear(ctx)) // Run does so too, four times a second
			if n := who.viewsOf(func() { use(s) }); n != 0 {
				t.Errorf("after %s the store is read %d times for what was not changed", c.name, n)
			}
		}
	}
	// The identity that was changed was not one of those in use; this one is.
	use(s)
	must(t, admin.SetTags(ctx, kms.PrincipalARN{Partition: "aws", Account: account, Kind: kms.User, Name: "app"}, map[string]string{"a": "b"}))
	must(t, s.Hear(ctx))
	if store.viewsOf(func() { use(s) }) == 0 {
		t.Error("a principal was changed, and is not read again")
	}
}

// Every kind of change binds the process that makes it at once, and another as soon as it hears.
func TestChangesBind(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	here, _ := r.running()
	elsewhere, _ := r.running()
	app := r.add("arn:aws:iam::111122223333:user/app", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"kms:Encrypt","Resource":"*"}]}`)
	arn := kms.PrincipalARN{Partition: "aws", Account: account, Kind: kms.User, Name: "app"}
	key, to := r.newKey(), r.newKey()
	encrypt := func(s *kms.Service, who kms.Caller, id string) error {
		return second(s.Encrypt(ctx, who, &kms.EncryptRequest{KeyID: id, Plaintext: []byte("x")}))
	}
	both := func(what string, good func(*kms.Service) bool) {
		t.Helper()
		must(t, elsewhere.Hear(ctx))
		for name, s := range map[string]*kms.Service{"here": here, "elsewhere": elsewhere} {
			if !good(s) {
				t.Errorf("%s: not so %s", what, name)
			}
		}
	}
	allowed := func(who kms.Caller, id string, is bool) func(*kms.Service) bool {
		return func(s *kms.Service) bool {
			err := encrypt(s, who, id)
			if err != nil && !errors.As(err, new(*kms.Error)) {
				t.Error(err)
			}
			return (err == nil) == is
		}
	}
	both("an identity policy", allowed(app, key.KeyID, true))
	must(t, second(here.DisableKey(ctx, root, &kms.DisableKeyRequest{KeyID: key.KeyID})))
	both("DisableKey", allowed(app, key.KeyID, false))
	must(t, second(here.EnableKey(ctx, root, &kms.EnableKeyRequest{KeyID: key.KeyID})))
	both("EnableKey", allowed(app, key.KeyID, true))
	deny := strings.Replace(kms.DefaultPolicy("aws", account), `"Statement" : [`,
		`"Statement" : [ {"Effect": "Deny", "Principal": {"AWS": "`+app.Principal+`"}, "Action": "kms:Encrypt", "Resource": "*"},`, 1)
	must(t, second(here.PutKeyPolicy(ctx, root, &kms.PutKeyPolicyRequest{KeyID: key.KeyID, Policy: deny})))
	both("PutKeyPolicy", allowed(app, key.KeyID, false))
	must(t, second(here.PutKeyPolicy(ctx, root, &kms.PutKeyPolicyRequest{KeyID: key.KeyID, Policy: kms.DefaultPolicy("aws", account)})))
	both("PutKeyPolicy again", allowed(app, key.KeyID, true))

	must(t, second(here.CreateAlias(ctx, root, &kms.CreateAliasRequest{AliasName: "alias/a", TargetKeyID: key.KeyID})))
	points := func(at string) func(*kms.Service) bool {
		return func(s *kms.Service) bool {
			resp, err := s.Encrypt(ctx, root, &kms.EncryptRequest{KeyID: "alias/a", Plaintext: []byte("x")})
			return err == nil && resp.KeyID == at || err != nil && at == ""
		}
	}
	both("CreateAlias", points(key.Arn))
	must(t, second(here.UpdateAlias(ctx, root, &kms.UpdateAliasRequest{AliasName: "alias/a", TargetKeyID: to.KeyID})))
	both("UpdateAlias", points(to.Arn))
	must(t, second(here.DeleteAlias(ctx, root, &kms.DeleteAliasRequest{AliasName: "alias/a"})))
	both("DeleteAlias", points(""))

	// By the operator, whose command is another process: this one has to hear too.
	must(t, r.admin().DeletePolicy(ctx, arn, "p0"))
	must(t, here.Hear(ctx))
	both("without the policy", allowed(app, key.KeyID, false))
	for i := range 70 { // so many that they are not remembered together
		g := r.create(root, &kms.CreateGrantRequest{KeyID: key.KeyID, GranteePrincipal: app.Principal, Operations: []string{"Encrypt"},
			Constraints: &kms.GrantConstraints{EncryptionContextSubset: map[string]string{"n": fmt.Sprint(i)}}})
		if i > 0 {
			continue
		}
		must(t, here.Hear(ctx))
		with := func(is bool) func(*kms.Service) bool {
			return func(s *kms.Service) bool {
				return (second(s.Encrypt(ctx, app, &kms.EncryptRequest{KeyID: key.KeyID, Plaintext: []byte("x"), EncryptionContext: map[string]string{"n": "0"}})) == nil) == is
			}
		}
		both("CreateGrant", with(true))
		must(t, second(here.RevokeGrant(ctx, root, &kms.RevokeGrantRequest{KeyID: key.KeyID, GrantID: g.GrantID})))
		both("RevokeGrant", with(false))
	}
	must(t, here.Hear(ctx))
	many := func(is bool) func(*kms.Service) bool {
		return func(s *kms.Service) bool {
			return (second(s.Encrypt(ctx, app, &kms.EncryptRequest{KeyID: key.KeyID, Plaintext: []byte("x"), EncryptionContext: map[string]string{"n": "69"}})) == nil) == is
		}
	}
	both("one of many grants", many(true))
	for _, g := range r.grants(key.KeyID) {
		if g.Constraints != nil && g.Constraints.EncryptionContextSubset["n"] == "69" {
			must(t, second(here.RevokeGrant(ctx, root, &kms.RevokeGrantRequest{KeyID: key.KeyID, GrantID: g.GrantID})))
		}
	}
	both("one of many grants, revoked", many(false))
}

// A process that changed something, and cannot hear what, forgets everything.
func TestUnheardChangeBinds(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	s, store := r.running()
	key := r.newKey()
	encrypt := func() error {
		return second(s.Encrypt(ctx, root, &kms.EncryptRequest{KeyID: key.KeyID, Plaintext: []byte("x")}))
	}
	must(t, encrypt())
	store.deaf.Store(true)
	must(t, second(s.DisableKey(ctx, root, &kms.DisableKeyRequest{KeyID: key.KeyID})))
	refusal(t, encrypt(), kms.Disabled, key.Arn+" is disabled.")
}

// Policies that are the same are kept once, however many keys have them.
func TestPoliciesAreKeptOnce(t *testing.T) {
	r := newRig(t, nil)
	ids := r.fill(500)
	s, _ := r.running()
	for _, id := range ids {
		must(t, second(s.DescribeKey(t.Context(), root, &kms.DescribeKeyRequest{KeyID: id.String()})))
	}
	all := s.Caches()
	if all["policies"].Entries != 1 || all["keys"].Entries < 500 {
		t.Errorf("%d policies and %d keys are remembered", all["policies"].Entries, all["keys"].Entries)
	}
	// What is reckoned for a key is about what it takes: the text of the policy and no more than as much again.
	if each := all["keys"].Bytes / all["keys"].Entries; each < 500 || each > 1500 {
		t.Errorf("a key is reckoned with %d bytes", each)
	}
}
