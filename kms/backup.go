package kms

import (
	"context"
	"time"
)

// RecordBackup records that the operator made a backup: a file of that name and SHA-256 (hexadecimal, as sha256sum prints it), which has so many keys.
func (a *Admin) RecordBackup(ctx context.Context, file, sha256 string, keys int64) error {
	account, err := firstAccount(ctx, a.store)
	if err != nil {
		return err
	}
	return a.update(ctx, "CreateBackup", account, parameters{"file": file, "sha256": sha256, "keys": keys}, func(Tx) error { return nil })
}

// firstAccount returns the account in whose name is recorded what concerns the deployment as a whole, as the audit log does.
func firstAccount(ctx context.Context, store Store) (string, error) {
	account := ""
	err := store.View(ctx, func(tx Tx) error {
		first, err := tx.Accounts("", 1)
		if len(first) > 0 {
			account = first[0].ID
		}
		return err
	})
	return account, err
}

// saveWithin is how long after a restore a key is not destroyed: as the shortest waiting period [API, ScheduleKeyDeletion].
const saveWithin = 7 * 24 * time.Hour
