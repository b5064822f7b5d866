package store

import (
	"time"

	"strongroom/kms"
)

var (
	selectAccount = define("read table account", `
		SELECT id, created FROM account WHERE id = $1`)
	selectAccounts = define("list table account", `
		SELECT id, created FROM account WHERE id > $1 ORDER BY id LIMIT $2`)
	insertAccount = define("insert into table account", `
		INSERT INTO account (id, created) VALUES ($1, $2) ON CONFLICT DO NOTHING`)
)

func accountColumns(a *kms.Account) []any { return []any{&a.ID, timeColumn{&a.Created}} }

func (t *tx) Account(id string) (*kms.Account, error) {
	a := new(kms.Account)
	if err := t.row(selectAccount, id, accountColumns(a), id); err != nil {
		return nil, err
	}
	return a, nil
}

func (t *tx) Accounts(after string, limit int) ([]kms.Account, error) {
	return list(t, selectAccounts, nil, limit, accountColumns, after)
}

func (t *tx) InsertAccount(id string, created time.Time) error {
	return t.insert(insertAccount, id, id, created.UnixMilli())
}
