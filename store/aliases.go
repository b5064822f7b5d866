package store

import (
	"time"

	"strongroom/kms"
)

var (
	selectAlias = define("read table alias", `
		SELECT key_id, created, updated FROM alias WHERE account = $1 AND name = $2`)
	selectAliases = define("list table alias", `
		SELECT name, key_id, created, updated FROM alias
		WHERE account = $1 AND name > $2 ORDER BY name LIMIT $3`)
	selectAliasesOfKey = define("list table alias", `
		SELECT name, key_id, created, updated FROM alias
		WHERE account = $1 AND key_id = $2 AND name > $3 ORDER BY name LIMIT $4`)
	countAliases = define("count table alias", `
		SELECT count(*) FROM alias WHERE key_id = $1`)
	insertAlias = define("insert into table alias", `
		INSERT INTO alias (account, name, key_id, created, updated)
		VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`)
	updateAlias = define("update table alias", `
		UPDATE alias SET key_id = $1, updated = $2 WHERE account = $3 AND name = $4 AND key_id = $5`)
	deleteAlias = define("delete from table alias", `
		DELETE FROM alias WHERE account = $1 AND name = $2 AND key_id = $3`)
	deleteAliases = define("delete from table alias", `DELETE FROM alias WHERE key_id = $1`)
)

func (t *tx) Alias(account, name string) (*kms.Alias, error) {
	a := &kms.Alias{Account: account, Name: name}
	err := t.row(selectAlias, name,
		[]any{keyIDColumn{&a.Key}, timeColumn{&a.Created}, timeColumn{&a.Updated}}, account, name)
	if err != nil {
		return nil, err
	}
	return a, nil
}

func (t *tx) Aliases(account string, key kms.KeyID, after string, limit int) ([]kms.Alias, error) {
	columns := func(a *kms.Alias) []any {
		a.Account = account
		return []any{&a.Name, keyIDColumn{&a.Key}, timeColumn{&a.Created}, timeColumn{&a.Updated}}
	}
	if !key.IsZero() {
		return list(t, selectAliasesOfKey, key, limit, columns, account, key.String(), after)
	}
	return list(t, selectAliases, account, limit, columns, account, after)
}

func (t *tx) CountAliases(key kms.KeyID) (int, error) {
	var n int
	err := t.row(countAliases, key, []any{&n}, key.String())
	return n, err
}

func (t *tx) InsertAlias(a *kms.Alias) error {
	err := t.insert(insertAlias, a.Name, a.Account, a.Name, a.Key.String(), a.Created.UnixMilli(), a.Updated.UnixMilli())
	return t.noted(err, kms.AliasChanged(a.Account, a.Name), kms.KeyChanged(a.Key))
}

func (t *tx) MoveAlias(account, name string, from, to kms.KeyID, now time.Time) error {
	n, err := t.exec(updateAlias, name, to.String(), now.UnixMilli(), account, name, from.String())
	if err != nil || n > 0 {
		return t.noted(err, kms.AliasChanged(account, name), kms.KeyChanged(from), kms.KeyChanged(to))
	}
	// It is not there, or it is and points elsewhere.
	if _, err := t.Alias(account, name); err != nil {
		return err
	}
	return conflict(updateAlias, name)
}

func (t *tx) DeleteAlias(account, name string, from kms.KeyID) error {
	n, err := t.exec(deleteAlias, name, account, name, from.String())
	if err != nil || n > 0 {
		return t.noted(err, kms.AliasChanged(account, name), kms.KeyChanged(from))
	}
	if _, err := t.Alias(account, name); err != nil {
		return err
	}
	return conflict(deleteAlias, name)
}
