package kms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"strongroom/kms/audit"
	"strongroom/kms/policy"
)

// An Admin makes and changes accounts, principals and access keys for the operator of a deployment, who works on its host and has no other way to prove who
// they are than being there. Each change is stored with its audit record, which a running server takes into the log. A change binds running servers within a
// second.
//
// Errors are for the operator: plain words, with ErrNotStored and ErrConflict in them where those are the cause.
type Admin struct {
	store     Store
	operator  string
	partition string
	region    string
	sealer    SystemKey
}

// NewAdmin returns the administration of the deployment in store. operator is the operator's name on the host, for the audit record.
func NewAdmin(ctx context.Context, store Store, operator string) (*Admin, error) {
	s, err := newService(ctx, Options{Store: store})
	if err != nil {
		return nil, err
	}
	return &Admin{store: store, operator: operator, partition: s.partition, region: s.region, sealer: s.sealer}, nil
}

// Partition returns the partition in the deployment's ARNs.
func (a *Admin) Partition() string { return a.partition }

// Limits of what a principal can have, as in IAM.
const (
	maxAccessKeys        = 2
	maxPrincipalPolicies = 20
)

// update makes a change together with its record.
func (a *Admin) update(ctx context.Context, name, account string, parameters any, f func(Tx) error) error {
	r, err := adminRecord(a.operator, a.region, name, account, parameters)
	if err != nil {
		return err
	}
	return a.store.Update(ctx, func(tx Tx) error {
		if err := f(tx); err != nil {
			return err
		}
		return insertEvent(tx, r)
	})
}

// adminRecord returns the record of an act of the operator.
func adminRecord(operator, region, name, account string, parameters any) (*audit.Record, error) {
	body, err := json.Marshal(parameters)
	if err != nil {
		return nil, err
	}
	return &audit.Record{
		Identity:          audit.Identity{Type: "Operator", AccountID: account, UserName: operator},
		Source:            "strongroom",
		Name:              name,
		Region:            region,
		SourceIP:          "local",
		UserAgent:         "strongroom",
		RequestParameters: body,
		EventType:         audit.AdminEvent,
		Recipient:         account,
	}, nil
}

// ResetKeyPolicy puts the default policy on a key, whatever its policy says: for keys that nobody can manage any more.
func (a *Admin) ResetKeyPolicy(ctx context.Context, id KeyID) error {
	var key *Key
	err := a.store.View(ctx, func(tx Tx) (err error) {
		key, err = tx.Key(id)
		return err
	})
	if err == nil && !key.State.visible() {
		err = ErrNotStored
	}
	if err == nil {
		err = a.resetKeyPolicy(ctx, key)
	}
	return describeMissing(err, "key "+id.String())
}

func (a *Admin) resetKeyPolicy(ctx context.Context, key *Key) error {
	text := defaultPolicy(a.partition, key.Account)
	r, err := adminRecord(a.operator, a.region, "PutKeyPolicy", key.Account, parameters{"keyId": key.ID.String(), "policyName": onlyPolicy, "policy": text})
	if err != nil {
		return err
	}
	keyARN := arn{a.partition, a.region, key.Account, "key/" + key.ID.String()}.String()
	r.Resources = []audit.Resource{{ARN: keyARN, AccountID: key.Account}}
	return a.store.Update(ctx, func(tx Tx) error {
		if err := tx.SetPolicy(key.ID, text); err != nil {
			return err
		}
		return insertEvent(tx, r)
	})
}

// CreateAccount makes an account. Nobody can use it until its root, or a user in it, has an access key.
func (a *Admin) CreateAccount(ctx context.Context, id string) error {
	if !IsAccount(id) {
		return fmt.Errorf("account %q is not 12 digits", id)
	}
	err := a.update(ctx, "CreateAccount", id, map[string]string{"accountId": id}, func(tx Tx) error {
		return tx.InsertAccount(id, time.Now())
	})
	if errors.Is(err, ErrConflict) {
		return fmt.Errorf("account %s exists: %w", id, ErrConflict)
	}
	return err
}

// Accounts lists all accounts.
func (a *Admin) Accounts(ctx context.Context) ([]Account, error) {
	return list(ctx, a.store, func(tx Tx, after string) ([]Account, error) { return tx.Accounts(after, listBatch) },
		func(x Account) string { return x.ID })
}

// Principals lists the users or the roles of an account.
func (a *Admin) Principals(ctx context.Context, account string, kind PrincipalKind) ([]Principal, error) {
	err := a.store.View(ctx, func(tx Tx) error {
		_, err := tx.Account(account)
		return err
	})
	if err != nil {
		return nil, describeMissing(err, "account "+account)
	}
	return list(ctx, a.store, func(tx Tx, after string) ([]Principal, error) { return tx.Principals(account, kind, after, listBatch) },
		func(x Principal) string { return x.Name })
}

const listBatch = 500

// list reads a whole list, batch by batch.
func list[T any](ctx context.Context, store Store, next func(tx Tx, after string) ([]T, error), position func(T) string) ([]T, error) {
	var all []T
	for after := ""; ; {
		var some []T
		err := store.View(ctx, func(tx Tx) (err error) {
			some, err = next(tx, after)
			return err
		})
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
		if len(some) < listBatch {
			return all, nil
		}
		after = position(some[len(some)-1])
	}
}

// Principal returns a user or a role.
func (a *Admin) Principal(ctx context.Context, arn PrincipalARN) (*Principal, error) {
	var p *Principal
	err := a.store.View(ctx, func(tx Tx) (err error) {
		p, err = tx.Principal(arn.Account, arn.Kind, arn.Name)
		return err
	})
	return p, describeMissing(err, arn.String())
}

// describeMissing says what is not there, where that is the error.
func describeMissing(err error, what string) error {
	if isNotStored(err) {
		return fmt.Errorf("there is no %s: %w", what, ErrNotStored)
	}
	return err
}

// A parameter is a member of a record's requestParameters.
type parameters map[string]any

func named(arn PrincipalARN, more parameters) parameters {
	p := parameters{string(arn.Kind) + "Name": arn.Name}
	if arn.IsRoot() {
		p = parameters{"accountId": arn.Account}
	}
	for name, value := range more {
		p[name] = value
	}
	return p
}

// CreatePrincipal makes a user or a role, without any right.
func (a *Admin) CreatePrincipal(ctx context.Context, arn PrincipalARN, tags map[string]string) (*Principal, error) {
	if arn.IsRoot() || !principalName.MatchString(arn.Name) {
		return nil, fmt.Errorf("%q cannot be a name: it must have 1 to 64 characters of letters, digits and _+=,.@-", arn.Name)
	}
	if err := checkPrincipalTags(tags); err != nil {
		return nil, err
	}
	prefix := map[PrincipalKind]string{User: "AIDA", Role: "AROA"}[arn.Kind]
	p := &Principal{Account: arn.Account, Kind: arn.Kind, Name: arn.Name, ID: newIAMID(prefix), Created: time.Now().UTC().Truncate(time.Millisecond), Tags: tags}
	err := a.update(ctx, "Create"+arn.Kind.Title(), arn.Account, named(arn, parameters{"tags": tags}), func(tx Tx) error {
		return tx.InsertPrincipal(p)
	})
	switch {
	case errors.Is(err, ErrConflict):
		return nil, fmt.Errorf("%s is or was the name of a %s; names are not given twice, because policies and grants may still mean the first: %w", arn.Name, arn.Kind, ErrConflict)
	case err != nil:
		return nil, describeMissing(err, "account "+arn.Account)
	}
	return p, nil
}

// checkPrincipalTags refuses tags that policies could not ask for.
func checkPrincipalTags(tags map[string]string) error {
	if len(tags) > maxTags {
		return fmt.Errorf("%d tags are more than %d", len(tags), maxTags)
	}
	for name, value := range tags {
		if name == "" || len(name) > 128 || len(value) > 256 {
			return fmt.Errorf("tag %q: a name has 1 to 128 bytes, a value up to 256", name)
		}
	}
	return nil
}

// SetTags replaces the tags of a user or a role.
func (a *Admin) SetTags(ctx context.Context, arn PrincipalARN, tags map[string]string) error {
	if err := checkPrincipalTags(tags); err != nil {
		return err
	}
	err := a.update(ctx, "Tag"+arn.Kind.Title(), arn.Account, named(arn, parameters{"tags": tags}), func(tx Tx) error {
		return tx.SetPrincipalTags(arn.Account, arn.Kind, arn.Name, tags)
	})
	return describeMissing(err, arn.String())
}

// DeletePrincipal drops a user or a role with its policies, access keys and sessions.
func (a *Admin) DeletePrincipal(ctx context.Context, arn PrincipalARN) error {
	err := a.update(ctx, "Delete"+arn.Kind.Title(), arn.Account, named(arn, nil), func(tx Tx) error {
		for {
			some, err := tx.Credentials(arn.String(), "", listBatch)
			if err != nil {
				return err
			}
			for _, c := range some {
				if err := tx.DeleteCredential(c.ID); err != nil {
					return err
				}
			}
			if len(some) < listBatch {
				return tx.DeletePrincipal(arn.Account, arn.Kind, arn.Name, time.Now())
			}
		}
	})
	return describeMissing(err, arn.String())
}

// PutPolicy attaches an identity policy to a user or a role, or replaces the one of that name.
func (a *Admin) PutPolicy(ctx context.Context, arn PrincipalARN, p NamedPolicy) error {
	if !principalName.MatchString(p.Name) {
		return fmt.Errorf("%q cannot be the name of a policy: it must have 1 to 64 characters of letters, digits and _+=,.@-", p.Name)
	}
	if _, err := policy.Parse(policy.IdentityPolicy, p.Text); err != nil {
		return fmt.Errorf("policy %s: %w", p.Name, err)
	}
	more := parameters{"policyName": p.Name, "policyDocument": p.Text}
	err := a.update(ctx, "Put"+arn.Kind.Title()+"Policy", arn.Account, named(arn, more), func(tx Tx) error {
		now, err := tx.Principal(arn.Account, arn.Kind, arn.Name)
		if err != nil {
			return err
		}
		n := 0
		for _, other := range now.Policies {
			if other.Name != p.Name {
				n++
			}
		}
		if n >= maxPrincipalPolicies {
			return fmt.Errorf("%s has %d policies already, and may have no more", arn, n)
		}
		return tx.PutPrincipalPolicy(arn.Account, arn.Kind, arn.Name, p)
	})
	return describeMissing(err, arn.String())
}

// DeletePolicy takes an identity policy from a user or a role.
func (a *Admin) DeletePolicy(ctx context.Context, arn PrincipalARN, name string) error {
	err := a.update(ctx, "Delete"+arn.Kind.Title()+"Policy", arn.Account, named(arn, parameters{"policyName": name}), func(tx Tx) error {
		return tx.DeletePrincipalPolicy(arn.Account, arn.Kind, arn.Name, name)
	})
	return describeMissing(err, fmt.Sprintf("policy %s of %s", name, arn))
}
