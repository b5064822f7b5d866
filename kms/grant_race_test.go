package kms_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"strongroom/kms"
)

// A lateStore is a store in which something else happens just before the next change.
type lateStore struct {
	kms.Store
	before func()
}

func (s *lateStore) Update(ctx context.Context, f func(kms.Tx) error) error {
	if before := s.before; before != nil {
		s.before = nil
		before()
	}
	return s.Store.Update(ctx, f)
}

// What happens between the decision and the change is not overlooked.
func TestGrantsMeanwhile(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	late := &lateStore{Store: r.store}
	s := newService(t, late, token)
	app := r.add("arn:aws:iam::111122223333:user/app")
	denied := func(err error) {
		t.Helper()
		if !errors.Is(err, kms.AccessDenied) {
			t.Error(err)
		}
	}

	key := r.newKey()
	create := func(who kms.Caller, operations ...string) (*kms.CreateGrantResponse, error) {
		return s.CreateGrant(ctx, who, &kms.CreateGrantRequest{KeyID: key.KeyID, GranteePrincipal: app.Principal, Operations: operations})
	}
	parent, err := create(root, "Encrypt", "CreateGrant")
	must(t, err)
	revoke := func(id string) func() {
		return func() {
			must(t, second(r.RevokeGrant(ctx, root, &kms.RevokeGrantRequest{KeyID: key.KeyID, GrantID: id})))
		}
	}
	late.before = revoke(parent.GrantID)
	denied(second(create(app, "Encrypt")))
	if n := len(r.grants(key.KeyID)); n != 0 {
		t.Errorf("a grant that was revoked left %d", n)
	}

	// Where there is another one, it serves.
	parent, err = create(root, "Encrypt", "CreateGrant")
	must(t, err)
	must(t, second(create(root, "Encrypt", "CreateGrant")))
	late.before = revoke(parent.GrantID)
	must(t, second(create(app, "Encrypt")))

	maker := r.add("arn:aws:iam::111122223333:user/maker")
	put := func(policy string) {
		must(t, second(r.PutKeyPolicy(ctx, root, &kms.PutKeyPolicyRequest{KeyID: key.KeyID, Policy: policy})))
	}
	put(keyPolicy(`{"Effect":"Allow","Principal":{"AWS":"` + maker.Principal + `"},"Action":"kms:CreateGrant","Resource":"*"}`))
	must(t, second(create(maker, "Encrypt")))
	late.before = func() { put(keyPolicy()) }
	denied(second(create(maker, "Encrypt")))

	// Where a policy allows it now, the grant that did is not missed.
	parent, err = create(root, "Decrypt", "CreateGrant")
	must(t, err)
	late.before = func() {
		revoke(parent.GrantID)()
		put(keyPolicy(`{"Effect":"Allow","Principal":{"AWS":"` + app.Principal + `"},"Action":"kms:CreateGrant","Resource":"*"}`))
	}
	must(t, second(create(app, "Decrypt")))

	late.before = func() { must(t, second(r.DisableKey(ctx, root, &kms.DisableKeyRequest{KeyID: key.KeyID}))) }
	refusal(t, second(create(root, "Encrypt")), kms.Disabled, key.Arn+" is disabled.")
	must(t, second(r.EnableKey(ctx, root, &kms.EnableKeyRequest{KeyID: key.KeyID})))

	g, err := create(root, "Encrypt")
	must(t, err)
	late.before = revoke(g.GrantID)
	refusal(t, second(s.RevokeGrant(ctx, root, &kms.RevokeGrantRequest{KeyID: key.KeyID, GrantID: g.GrantID})), kms.NotFound, "Grant ID "+g.GrantID+" not found")
	g, err = create(root, "Encrypt")
	must(t, err)
	late.before = revoke(g.GrantID)
	refusal(t, second(s.RetireGrant(ctx, root, &kms.RetireGrantRequest{GrantToken: g.GrantToken})), kms.NotFound, "Grant ID "+g.GrantID+" not found")

	late.before = func() {
		days := int32(7)
		due, err := r.ScheduleKeyDeletion(ctx, root, &kms.ScheduleKeyDeletionRequest{KeyID: key.KeyID, PendingWindowInDays: &days})
		must(t, err)
		r.Sweep(ctx, due.DeletionDate.Time)
	}
	refusal(t, second(create(root, "Encrypt")), kms.NotFound, "Key '"+key.Arn+"' does not exist")
}

// What is remembered of grants does not outlive a change, and a token makes a grant known that another process made just now.
func TestGrantsRemembered(t *testing.T) {
	r := newRig(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	defer func() { cancel(); <-done }()
	time.Sleep(50 * time.Millisecond) // so that memory is trusted

	elsewhere := newService(t, r.store, token)
	app := r.add("arn:aws:iam::111122223333:user/app")
	key := r.newKey()
	req := &kms.CreateGrantRequest{KeyID: key.KeyID, GranteePrincipal: app.Principal, Operations: []string{"Encrypt"}}
	use := func(tokens ...string) error { return r.encryptAs(app, key.KeyID, nil, tokens...) }
	for range 5 {
		if err := use(); !errors.Is(err, kms.AccessDenied) {
			t.Fatalf("without a grant: %v", err)
		}
		g, err := elsewhere.CreateGrant(ctx, root, req)
		must(t, err)
		must(t, use(g.GrantToken))
		must(t, second(r.RetireGrant(ctx, root, &kms.RetireGrantRequest{GrantToken: g.GrantToken})))
		if err := use(g.GrantToken); !errors.Is(err, kms.AccessDenied) {
			t.Fatalf("with a grant that was retired: %v", err)
		}
		g = r.create(root, req)
		must(t, use())
		must(t, second(r.RevokeGrant(ctx, root, &kms.RevokeGrantRequest{KeyID: key.KeyID, GrantID: g.GrantID})))
	}
}
