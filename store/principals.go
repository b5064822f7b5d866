package store

import (
	"fmt"
	"time"

	"strongroom/kms"
)

var (
	selectPrincipal = define("read table principal", `
		SELECT id, name, created FROM principal WHERE account = $1 AND kind = $2 AND name = $3 AND deleted IS NULL`)
	selectPrincipals = define("list table principal", `
		SELECT id, name, created FROM principal
		WHERE account = $1 AND kind = $2 AND name > $3 AND deleted IS NULL ORDER BY name LIMIT $4`)
	selectPrincipalTags = define("read table principal_tag", `
		SELECT name, value FROM principal_tag WHERE principal_id = $1`)
	selectPrincipalPolicies = define("read table principal_policy", `
		SELECT name, document FROM principal_policy WHERE principal_id = $1 ORDER BY name`)
)

func (t *tx) Principal(account string, kind kms.PrincipalKind, name string) (*kms.Principal, error) {
	p, err := t.principal(account, kind, name)
	if err != nil {
		return nil, err
	}
	if err := t.attachments(p); err != nil {
		return nil, err
	}
	return p, nil
}

func (t *tx) Principals(account string, kind kms.PrincipalKind, after string, limit int) ([]kms.Principal, error) {
	all, err := list(t, selectPrincipals, account, limit, principalColumns, account, string(kind), after)
	if err != nil {
		return nil, err
	}
	for i := range all {
		all[i].Account, all[i].Kind = account, kind
		if err := t.attachments(&all[i]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func principalColumns(p *kms.Principal) []any { return []any{&p.ID, &p.Name, timeColumn{&p.Created}} }

// principal returns a principal without its tags and policies.
func (t *tx) principal(account string, kind kms.PrincipalKind, name string) (*kms.Principal, error) {
	p := &kms.Principal{Account: account, Kind: kind}
	if err := t.row(selectPrincipal, name, principalColumns(p), account, string(kind), name); err != nil {
		return nil, err
	}
	return p, nil
}

// attachments reads the tags and policies of p.
func (t *tx) attachments(p *kms.Principal) (err error) {
	if p.Tags, err = t.tags(selectPrincipalTags, p.Name, p.ID); err != nil {
		return err
	}
	var policy kms.NamedPolicy
	return t.rows(selectPrincipalPolicies, p.Name, []any{&policy.Name, &policy.Text}, func() {
		p.Policies = append(p.Policies, policy)
	}, p.ID)
}

var (
	insertPrincipal = define("insert into table principal", `
		INSERT INTO principal (id, account, kind, name, created) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`)
	insertPrincipalTag = define("insert into table principal_tag", `
		INSERT INTO principal_tag (principal_id, name, value) VALUES ($1, $2, $3)`)
	putPrincipalPolicy = define("insert into table principal_policy", `
		INSERT INTO principal_policy (principal_id, name, document) VALUES ($1, $2, $3)
		ON CONFLICT (principal_id, name) DO UPDATE SET document = excluded.document`)
	updatePrincipalDeleted = define("update deleted in table principal", `
		UPDATE principal SET deleted = $1 WHERE id = $2`)

	deletePrincipalTags     = define("delete from table principal_tag", `DELETE FROM principal_tag WHERE principal_id = $1`)
	deletePrincipalPolicies = define("delete from table principal_policy", `DELETE FROM principal_policy WHERE principal_id = $1`)
	deletePrincipalPolicy   = define("delete from table principal_policy", `
		DELETE FROM principal_policy WHERE principal_id = $1 AND name = $2`)
)

func (t *tx) InsertPrincipal(p *kms.Principal) error {
	if p.Kind != kms.User && p.Kind != kms.Role {
		return fmt.Errorf("store: %s (%s): unknown kind %q", insertPrincipal.does, p.Name, string(p.Kind))
	}
	// The row of one that was deleted is in the way like any other.
	err := t.insert(insertPrincipal, p.Name, p.ID, p.Account, string(p.Kind), p.Name, p.Created.UnixMilli())
	if err != nil {
		return err
	}
	if err := t.insertPrincipalTags(p.Name, p.ID, p.Tags); err != nil {
		return err
	}
	for _, policy := range p.Policies {
		if _, err := t.exec(putPrincipalPolicy, p.Name, p.ID, policy.Name, policy.Text); err != nil {
			return err
		}
	}
	t.note(kms.PrincipalChanged(p.Account, p.Kind, p.Name))
	return nil
}

func (t *tx) insertPrincipalTags(name, id string, tags map[string]string) error {
	for tag, value := range tags {
		if _, err := t.exec(insertPrincipalTag, name, id, tag, value); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) SetPrincipalTags(account string, kind kms.PrincipalKind, name string, tags map[string]string) error {
	return t.changePrincipal(insertPrincipalTag, account, kind, name, func(id string) error {
		if _, err := t.exec(deletePrincipalTags, name, id); err != nil {
			return err
		}
		return t.insertPrincipalTags(name, id, tags)
	})
}

func (t *tx) PutPrincipalPolicy(account string, kind kms.PrincipalKind, name string, p kms.NamedPolicy) error {
	return t.changePrincipal(putPrincipalPolicy, account, kind, name, func(id string) error {
		_, err := t.exec(putPrincipalPolicy, name, id, p.Name, p.Text)
		return err
	})
}

func (t *tx) DeletePrincipalPolicy(account string, kind kms.PrincipalKind, name, policy string) error {
	return t.changePrincipal(deletePrincipalPolicy, account, kind, name, func(id string) error {
		return t.change(deletePrincipalPolicy, policy, id, policy)
	})
}

func (t *tx) DeletePrincipal(account string, kind kms.PrincipalKind, name string, now time.Time) error {
	return t.changePrincipal(updatePrincipalDeleted, account, kind, name, func(id string) error {
		for _, s := range []statement{deletePrincipalTags, deletePrincipalPolicies} {
			if _, err := t.exec(s, name, id); err != nil {
				return err
			}
		}
		return t.change(updatePrincipalDeleted, name, now.UnixMilli(), id)
	})
}

// changePrincipal calls f with the id of a principal, or returns ErrNotStored. does is what f does.
func (t *tx) changePrincipal(does statement, account string, kind kms.PrincipalKind, name string, f func(id string) error) error {
	if err := t.writable(does); err != nil {
		return err
	}
	p, err := t.principal(account, kind, name)
	if err != nil {
		return err
	}
	return t.noted(f(p.ID), kms.PrincipalChanged(account, kind, name))
}
