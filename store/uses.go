package store

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"strongroom/kms"
)

var (
	selectKeyUse = define("read table key_use", `
		SELECT operation, used, event_id, request_id FROM key_use WHERE key_id = $1`)
	updateLastUsed = defineQuiet("update last_used in table credential", `
		UPDATE credential SET last_used = $1 WHERE id = $2 AND (last_used IS NULL OR last_used < $1)`)
	// A key that is gone is not selected.
	putKeyUse = defineQuiet("insert into table key_use", `
		INSERT INTO key_use (key_id, operation, used, event_id, request_id)
		SELECT id, $1, $2, $3, $4 FROM kms_key WHERE id = $5
		ON CONFLICT (key_id) DO UPDATE SET
			operation = excluded.operation, used = excluded.used, event_id = excluded.event_id, request_id = excluded.request_id
		WHERE key_use.used < excluded.used`)
	deleteKeyUse = define("delete from table key_use", `DELETE FROM key_use WHERE key_id = $1`)
)

func (t *tx) RecordUse(credentials map[string]time.Time, keys []kms.KeyUse) error {
	if err := t.writable(putKeyUse); err != nil {
		return err
	}
	// Every node goes through the rows in the same order, so that no two can each hold one that the other waits for.
	for _, id := range slices.Sorted(maps.Keys(credentials)) {
		if _, err := t.exec(updateLastUsed, id, credentials[id].UnixMilli(), id); err != nil {
			return err
		}
	}
	keys = slices.SortedFunc(slices.Values(keys), func(a, b kms.KeyUse) int { return cmp.Compare(a.Key.String(), b.Key.String()) })
	for _, u := range keys {
		if _, err := t.exec(putKeyUse, u.Key, u.Operation, u.Time.UnixMilli(), u.EventID, u.RequestID, u.Key.String()); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) KeyUse(key kms.KeyID) (*kms.KeyUse, error) {
	u := &kms.KeyUse{Key: key}
	err := t.row(selectKeyUse, key, []any{&u.Operation, timeColumn{&u.Time}, &u.EventID, &u.RequestID}, key.String())
	if err != nil {
		return nil, err
	}
	return u, nil
}
