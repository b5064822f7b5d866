package store

import (
	"fmt"

	"strongroom/kms"
)

const grantFields = `id, key_id, name, grantee, retiring, issuer, operations, context_equals, context_subset, source_arn, created`

var (
	selectGrant = define("read table kms_grant", `
		SELECT `+grantFields+` FROM kms_grant WHERE id = $1 AND key_id = $2`)
	selectGrants = define("list table kms_grant", `
		SELECT `+grantFields+` FROM kms_grant WHERE key_id = $1 AND id > $2 ORDER BY id LIMIT $3`)
	selectGrantsTo = define("list table kms_grant", `
		SELECT `+grantFields+` FROM kms_grant WHERE key_id = $1 AND grantee = $2 AND id > $3 ORDER BY id LIMIT $4`)
	selectRetirableGrants = define("list table kms_grant", `
		SELECT `+grantFields+` FROM kms_grant WHERE retiring = $1 AND id > $2 ORDER BY id LIMIT $3`)
	selectNamedGrants = define("list table kms_grant", `
		SELECT `+grantFields+` FROM kms_grant
		WHERE key_id = $1 AND name = $2 AND grantee = $3 AND found_by = $4 AND operations = $5 ORDER BY id`)
	selectFoundGrants = define("list table kms_grant", `
		SELECT `+grantFields+` FROM kms_grant
		WHERE key_id = $1 AND grantee = $2 AND found_by = $3 AND (operations & $4) <> 0 LIMIT $5`)
	selectGrantsFor = define("list table kms_grant", `
		SELECT `+grantFields+` FROM kms_grant WHERE key_id = $1 AND grantee = $2 AND (operations & $3) <> 0 LIMIT $4`)
	countGrants = define("count table kms_grant", `
		SELECT count(*) FROM kms_grant WHERE key_id = $1`)
	insertGrant = define("insert into table kms_grant", `
		INSERT INTO kms_grant (`+grantFields+`, found_by)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING`)
	deleteGrant = define("delete from table kms_grant", `
		DELETE FROM kms_grant WHERE id = $1 AND key_id = $2`)
	deleteGrants = define("delete from table kms_grant", `DELETE FROM kms_grant WHERE key_id = $1`)
)

func grantColumns(g *kms.Grant) []any {
	c := &g.Constraint
	return []any{
		&g.ID, keyIDColumn{&g.Key}, optionalColumn{&g.Name}, &g.Grantee, optionalColumn{&g.Retiring}, &g.Issuer, operationsColumn{&g.Operations},
		contextColumn{&c.Equals}, contextColumn{&c.Subset}, &c.SourceArn, timeColumn{&g.Created},
	}
}

func (t *tx) Grant(key kms.KeyID, id string) (*kms.Grant, error) {
	g := new(kms.Grant)
	if err := t.row(selectGrant, id, grantColumns(g), id, key.String()); err != nil {
		return nil, err
	}
	return g, nil
}

func (t *tx) Grants(key kms.KeyID, grantee, after string, limit int) ([]kms.Grant, error) {
	if grantee != "" {
		return list(t, selectGrantsTo, key, limit, grantColumns, key.String(), grantee, after)
	}
	return list(t, selectGrants, key, limit, grantColumns, key.String(), after)
}

func (t *tx) RetirableGrants(retiring, after string, limit int) ([]kms.Grant, error) {
	return list(t, selectRetirableGrants, retiring, limit, grantColumns, retiring, after)
}

// NamedGrants lists the grants by id.
func (t *tx) NamedGrants(like *kms.Grant) ([]kms.Grant, error) {
	var all []kms.Grant
	var g kms.Grant
	match := like.Match()
	err := t.rows(selectNamedGrants, like.Key, grantColumns(&g), func() { all = append(all, g) },
		like.Key.String(), like.Name, like.Grantee, match[:], int64(like.Operations))
	if err != nil {
		return nil, err
	}
	return all, nil
}

func (t *tx) FindGrants(key kms.KeyID, grantee string, match kms.GrantMatch, operation kms.GrantOperations, limit int) ([]kms.Grant, error) {
	if match == kms.AnyMatch {
		return list(t, selectGrantsFor, key, limit, grantColumns, key.String(), grantee, int64(operation))
	}
	return list(t, selectFoundGrants, key, limit, grantColumns, key.String(), grantee, match[:], int64(operation))
}

func (t *tx) CountGrants(key kms.KeyID) (int, error) {
	var n int
	err := t.row(countGrants, key, []any{&n}, key.String())
	return n, err
}

func (t *tx) InsertGrant(g *kms.Grant) error {
	equals, err := contextText(g.Constraint.Equals)
	if err != nil {
		return fmt.Errorf("store: %s (%s): %w", insertGrant.does, g.ID, err)
	}
	subset, err := contextText(g.Constraint.Subset)
	if err != nil {
		return fmt.Errorf("store: %s (%s): %w", insertGrant.does, g.ID, err)
	}
	match := g.Match()
	err = t.insert(insertGrant, g.ID,
		g.ID, g.Key.String(), optional(g.Name), g.Grantee, optional(g.Retiring), g.Issuer, int64(g.Operations),
		equals, subset, g.Constraint.SourceArn, g.Created.UnixMilli(), match[:])
	return t.noted(err, kms.KeyChanged(g.Key))
}

func (t *tx) DeleteGrant(key kms.KeyID, id string) error {
	return t.noted(t.change(deleteGrant, id, id, key.String()), kms.KeyChanged(key))
}
