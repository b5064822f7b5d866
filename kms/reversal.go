package kms

import (
	"context"
	"maps"
	"slices"
	"time"
)

// A Reversal is something that was taken from somebody, or that decides who may do what and was changed, and that an older copy of the store has as it was.
type Reversal struct {
	Kind    ReversalKind
	Account string
	Key     KeyID  // zero if it is about no key
	Name    string // of the access key, the principal ("user/alice"), or the grant; otherwise empty
	Detail  string
}

// A ReversalKind says what comes back.
type ReversalKind string

const (
	AccessKeyBack     ReversalKind = "access-key"      // it was disabled or deleted, or the session was
	PrincipalBack     ReversalKind = "principal"       // the user or the role was deleted
	KeyBack           ReversalKind = "key-state"       // it was disabled, or its deletion was scheduled
	GrantBack         ReversalKind = "grant"           // it was revoked or retired
	KeyPolicyOld      ReversalKind = "key-policy"      // it was changed
	KeyTagsOld        ReversalKind = "key-tags"        // they were, and policies may ask for them
	IdentityPolicyOld ReversalKind = "identity-policy" // it was changed, added or removed
	PrincipalTagsOld  ReversalKind = "principal-tags"
)

// Reversals lists what comes back, or is forgotten, when copied replaces current, a later store of the same deployment. Sessions that have ended by now are not among
// it, nor is what belongs to keys that are not in current any more.
func Reversals(ctx context.Context, current, copied Store, now time.Time) ([]Reversal, error) {
	r := &reversals{current: current, copied: copied, now: now}
	var partition string
	err := copied.View(ctx, func(tx Tx) error {
		d, err := tx.Deployment()
		if err == nil {
			partition = d.Partition
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	accounts, err := list(ctx, copied, func(tx Tx, after string) ([]Account, error) { return tx.Accounts(after, listBatch) },
		func(a Account) string { return a.ID })
	if err != nil {
		return nil, err
	}
	for _, a := range accounts {
		if err := r.credentials(ctx, PrincipalARN{Partition: partition, Account: a.ID}); err != nil {
			return nil, err
		}
		for _, kind := range []PrincipalKind{User, Role} {
			all, err := list(ctx, copied, func(tx Tx, after string) ([]Principal, error) {
				return tx.Principals(a.ID, kind, after, listBatch)
			}, func(p Principal) string { return p.Name })
			if err != nil {
				return nil, err
			}
			for _, p := range all {
				err := r.principal(ctx, &p)
				if err == nil {
					err = r.credentials(ctx, PrincipalARN{Partition: partition, Account: a.ID, Kind: kind, Name: p.Name})
				}
				if err != nil {
					return nil, err
				}
			}
		}
	}
	if err := eachKey(ctx, copied, func(k *Key) error { return r.key(ctx, k) }); err != nil {
		return nil, err
	}
	return r.found, nil
}

// reversals is a comparison on its way.
type reversals struct {
	current, copied Store
	now             time.Time
	found           []Reversal
}

func (r *reversals) credentials(ctx context.Context, arn PrincipalARN) error {
	all, err := list(ctx, r.copied, func(tx Tx, after string) ([]Credential, error) {
		return tx.Credentials(arn.String(), after, listBatch)
	}, func(c Credential) string { return c.ID })
	if err != nil {
		return err
	}
	for _, c := range all {
		if !c.Active || !c.Expires.IsZero() && !c.Expires.After(r.now) {
			continue
		}
		var is *Credential
		err := r.current.View(ctx, func(tx Tx) (err error) {
			is, err = tx.Credential(c.ID)
			return err
		})
		b := Reversal{Kind: AccessKeyBack, Account: c.Account, Name: c.ID}
		switch {
		case isNotStored(err):
			b.Detail = "of " + arn.String() + ", deleted since"
		case err != nil:
			return err
		case is.Active:
			continue
		default:
			b.Detail = "of " + arn.String() + ", disabled since"
		}
		r.found = append(r.found, b)
	}
	return nil
}

func (r *reversals) principal(ctx context.Context, p *Principal) error {
	b := Reversal{Account: p.Account, Name: string(p.Kind) + "/" + p.Name}
	add := func(kind ReversalKind, detail string) {
		b.Kind, b.Detail = kind, detail
		r.found = append(r.found, b)
	}
	var is *Principal
	err := r.current.View(ctx, func(tx Tx) (err error) {
		is, err = tx.Principal(p.Account, p.Kind, p.Name)
		return err
	})
	if isNotStored(err) {
		add(PrincipalBack, "deleted since")
		return nil
	}
	if err != nil {
		return err
	}
	was, have := make(map[string]string), make(map[string]string)
	for _, n := range p.Policies {
		was[n.Name] = n.Text
	}
	for _, n := range is.Policies {
		have[n.Name] = n.Text
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if text, ok := have[name]; !ok {
			add(IdentityPolicyOld, "policy "+name+", removed since")
		} else if text != was[name] {
			add(IdentityPolicyOld, "policy "+name+", changed since")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if _, ok := was[name]; !ok {
			add(IdentityPolicyOld, "policy "+name+", added since")
		}
	}
	if !maps.Equal(p.Tags, is.Tags) {
		add(PrincipalTagsOld, "changed since")
	}
	return nil
}

func (r *reversals) key(ctx context.Context, k *Key) error {
	if !k.State.visible() {
		return nil
	}
	var is *Key
	err := r.current.View(ctx, func(tx Tx) (err error) {
		is, err = tx.Key(k.ID)
		return err
	})
	if isNotStored(err) {
		return nil // it was destroyed: Compare misses its objects
	}
	if err != nil {
		return err
	}
	b := Reversal{Account: k.Account, Key: k.ID}
	add := func(kind ReversalKind, detail string) {
		b.Kind, b.Detail = kind, detail
		r.found = append(r.found, b)
	}
	goes := is.State == StatePendingDeletion || is.State == StateDestroying
	if goes && k.State != StatePendingDeletion || is.State == StateDisabled && k.State == StateEnabled {
		add(KeyBack, "now "+string(is.State)+", and "+string(k.State)+" in the backup")
	}
	if is.Policy != k.Policy {
		add(KeyPolicyOld, "changed since")
	}
	if !maps.Equal(is.Tags, k.Tags) {
		add(KeyTagsOld, "changed since")
	}
	grants, err := list(ctx, r.copied, func(tx Tx, after string) ([]Grant, error) { return tx.Grants(k.ID, "", after, listBatch) },
		func(g Grant) string { return g.ID })
	if err != nil || len(grants) == 0 {
		return err
	}
	var gone []Grant
	err = r.current.View(ctx, func(tx Tx) error {
		gone = nil
		for _, g := range grants {
			if _, err := tx.Grant(k.ID, g.ID); isNotStored(err) {
				gone = append(gone, g)
			} else if err != nil {
				return err
			}
		}
		return nil
	})
	for _, g := range gone {
		b.Name = g.ID
		add(GrantBack, "to "+g.Grantee+", revoked or retired since")
	}
	return err
}
