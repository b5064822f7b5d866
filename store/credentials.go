package store

import (
	"fmt"

	"strongroom/kms"
)

var (
	selectCredential = define("read table credential", `
		SELECT account, principal, active, created, sealed FROM credential WHERE id = $1`)
	insertCredential = define("insert into table credential", `
		INSERT INTO credential (id, account, principal, active, created, sealed)
		VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`)
)

func (t *tx) Credential(id string) (*kms.Credential, error) {
	c := &kms.Credential{ID: id}
	err := t.row(selectCredential, id,
		[]any{&c.Account, &c.Principal, flagColumn{&c.Active}, timeColumn{&c.Created}, &c.Sealed}, id)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (t *tx) InsertCredential(c *kms.Credential) error {
	if len(c.Sealed) == 0 {
		return fmt.Errorf("store: %s (%s): no secret", insertCredential.does, c.ID)
	}
	return t.insert(insertCredential, c.ID,
		c.ID, c.Account, c.Principal, flag(c.Active), c.Created.UnixMilli(), c.Sealed)
}
