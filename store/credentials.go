package store

import (
	"crypto/sha256"
	"fmt"
	"time"

	"strongroom/kms"
)

const credentialFields = `id, account, principal, active, created, last_used, sealed, session, expires, token`

var (
	selectCredential = define("read table credential", `
		SELECT `+credentialFields+` FROM credential WHERE id = $1`)
	selectCredentials = define("list table credential", `
		SELECT `+credentialFields+` FROM credential WHERE principal = $1 AND id > $2 ORDER BY id LIMIT $3`)
	insertCredential = define("insert into table credential", `
		INSERT INTO credential (`+credentialFields+`)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING`)
	updateActive = define("update active in table credential", `
		UPDATE credential SET active = $1 WHERE id = $2`)
	deleteCredential = define("delete from table credential", `
		DELETE FROM credential WHERE id = $1`)
	// Who remembers one of these knows when it expired.
	deleteExpired = defineQuiet("delete expired from table credential", `
		DELETE FROM credential WHERE id IN (SELECT id FROM credential WHERE expires < $1 ORDER BY expires LIMIT $2)`)
)

func credentialColumns(c *kms.Credential) []any {
	return []any{
		&c.ID, &c.Account, &c.Principal, flagColumn{&c.Active}, timeColumn{&c.Created}, timeColumn{&c.LastUsed},
		&c.Sealed, &c.Session, timeColumn{&c.Expires}, &c.Token,
	}
}

func (t *tx) Credential(id string) (*kms.Credential, error) {
	c := new(kms.Credential)
	if err := t.row(selectCredential, id, credentialColumns(c), id); err != nil {
		return nil, err
	}
	return c, nil
}

func (t *tx) Credentials(principal, after string, limit int) ([]kms.Credential, error) {
	return list(t, selectCredentials, principal, limit, credentialColumns, principal, after)
}

func (t *tx) InsertCredential(c *kms.Credential) error {
	if len(c.Sealed) == 0 {
		return fmt.Errorf("store: %s (%s): no secret", insertCredential.does, c.ID)
	}
	if c.Token != nil && len(c.Token) != sha256.Size {
		return fmt.Errorf("store: %s (%s): the hash of the token has %d bytes", insertCredential.does, c.ID, len(c.Token))
	}
	err := t.insert(insertCredential, c.ID,
		c.ID, c.Account, c.Principal, flag(c.Active), c.Created.UnixMilli(), millis(c.LastUsed),
		c.Sealed, c.Session, millis(c.Expires), c.Token)
	return t.noted(err, kms.CredentialChanged(c.ID))
}

func (t *tx) SetCredentialActive(id string, active bool) error {
	return t.noted(t.change(updateActive, id, flag(active), id), kms.CredentialChanged(id))
}

func (t *tx) DeleteCredential(id string) error {
	return t.noted(t.change(deleteCredential, id, id), kms.CredentialChanged(id))
}

func (t *tx) DeleteExpired(before time.Time, limit int) (int, error) {
	n, err := t.exec(deleteExpired, nil, before.UnixMilli(), max(limit, 0)) // to SQLite, a negative limit is none
	return int(n), err
}
