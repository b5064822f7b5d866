package store

import (
	"errors"
	"fmt"
	"time"

	"strongroom/kms"
)

// invisible are the states, in SQL, of keys that no client sees, and that DeleteKey may drop.
const invisible = `('` + string(kms.StateCreating) + `', '` + string(kms.StateDestroying) + `')`

var (
	selectKey = define("read table kms_key", `
		SELECT account, state, description, created, deletion_date, policy, rotation_days, next_rotation FROM kms_key WHERE id = $1`)
	selectKeys = define("list table kms_key", `
		SELECT id FROM kms_key
		WHERE account = $1 AND id > $2 AND state NOT IN `+invisible+` ORDER BY id LIMIT $3`)
	selectKeysInState = define("list table kms_key", `
		SELECT id FROM kms_key WHERE state = $1 ORDER BY deletion_date, id LIMIT $2`)
	selectKeysDue = define("list table kms_key", `
		SELECT id FROM kms_key WHERE state = $1 AND deletion_date <= $2 ORDER BY deletion_date, id LIMIT $3`)
)

func (t *tx) Key(id kms.KeyID) (*kms.Key, error) {
	k := &kms.Key{ID: id}
	err := t.row(selectKey, id, []any{
		&k.Account, stateColumn{&k.State}, &k.Description, timeColumn{&k.Created}, timeColumn{&k.DeletionDate}, &k.Policy,
		&k.Rotation.Days, timeColumn{&k.Rotation.Next},
	}, id.String())
	if err != nil {
		return nil, err
	}
	if k.Tags, err = t.tags(selectTags, id, id.String()); err != nil {
		return nil, err
	}
	if k.Materials, err = t.materials(id); err != nil {
		return nil, err
	}
	return k, nil
}

func (t *tx) Keys(account string, after kms.KeyID, limit int) ([]kms.KeyID, error) {
	return t.keyIDs(selectKeys, account, limit, account, position(after))
}

// position returns the text that a list of keys is continued after.
func position(after kms.KeyID) string {
	if after.IsZero() {
		return "" // before every id
	}
	return after.String()
}

// KeysInState lists the keys whose deletion date is first, first; keys without one, by id.
func (t *tx) KeysInState(state kms.KeyState, due time.Time, limit int) ([]kms.KeyID, error) {
	if err := checkState(state); err != nil {
		return nil, fmt.Errorf("store: %s: %w", selectKeysInState.does, err)
	}
	if due.IsZero() {
		return t.keyIDs(selectKeysInState, state, limit, string(state))
	}
	return t.keyIDs(selectKeysDue, state, limit, string(state), due.UnixMilli())
}

// keyIDs returns the ids that s answers with. The limit is its last parameter.
func (t *tx) keyIDs(s statement, about any, limit int, args ...any) ([]kms.KeyID, error) {
	return list(t, s, about, limit, func(id *kms.KeyID) []any { return []any{keyIDColumn{id}} }, args...)
}

var (
	insertKey = define("insert into table kms_key", `
		INSERT INTO kms_key (id, account, state, description, created, deletion_date, policy, rotation_days, next_rotation)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING`)
)

func (t *tx) InsertKey(k *kms.Key) error {
	if err := checkKey(k); err != nil {
		return fmt.Errorf("store: %s (%v): %w", insertKey.does, k.ID, err)
	}
	text := k.ID.String()
	if err := t.unburied(k); err != nil {
		return err
	}
	err := t.insert(insertKey, k.ID,
		text, k.Account, string(k.State), k.Description, k.Created.UnixMilli(), millis(k.DeletionDate), k.Policy,
		k.Rotation.Days, millis(k.Rotation.Next))
	if err != nil {
		return err
	}
	// An id of a material that is taken is a conflict, and spends the transaction: the key has been inserted by now.
	for name, value := range k.Tags {
		if _, err := t.exec(insertTag, k.ID, text, name, value); err != nil {
			return err
		}
	}
	for n, m := range k.Materials {
		_, err := t.exec(insertMaterial, m.ID, m.ID[:], text, n, newRef(m.Ref), m.Created.UnixMilli(), string(m.Reason))
		if err != nil {
			return err
		}
	}
	t.note(kms.KeyChanged(k.ID))
	return nil
}

var selectBuried = define("read table tombstone", `
	SELECT key_id FROM tombstone WHERE key_id = $1`)

// unburied returns kms.ErrConflict if the key, or a material of it, is one that was destroyed: it could not be destroyed again.
func (t *tx) unburied(k *kms.Key) error {
	var key kms.KeyID
	err := t.row(selectBuried, k.ID, []any{keyIDColumn{&key}}, k.ID.String())
	for i := 0; errors.Is(err, kms.ErrNotStored) && i < len(k.Materials); i++ {
		_, _, err = t.Tombstone(k.Materials[i].ID)
	}
	switch {
	case err == nil:
		return conflict(insertKey, k.ID)
	case errors.Is(err, kms.ErrNotStored):
		return nil
	}
	return err
}

// checkKey returns an error if k is a key that could not be read again.
func checkKey(k *kms.Key) error {
	if k.ID.IsZero() {
		return fmt.Errorf("a key without id")
	}
	if err := checkState(k.State); err != nil {
		return err
	}
	if len(k.Materials) == 0 {
		return fmt.Errorf("a key without material")
	}
	for _, m := range k.Materials {
		if err := checkNewRef(m.Ref); err != nil {
			return err
		}
		if err := checkReason(m.Reason); err != nil {
			return err
		}
	}
	return nil
}

var (
	updateState = define("update state in table kms_key", `
		UPDATE kms_key SET state = $1, deletion_date = $2 WHERE id = $3 AND state = $4`)
	updateDescription = define("update description in table kms_key", `
		UPDATE kms_key SET description = $1 WHERE id = $2`)
	updatePolicy = define("update policy in table kms_key", `
		UPDATE kms_key SET policy = $1 WHERE id = $2`)
	selectState = define("read state in table kms_key", `
		SELECT account, state FROM kms_key WHERE id = $1`)
)

func (t *tx) SetState(id kms.KeyID, from, to kms.KeyState, deletion time.Time) error {
	for _, s := range []kms.KeyState{from, to} {
		if err := checkState(s); err != nil {
			return fmt.Errorf("store: %s (%v): %w", updateState.does, id, err)
		}
	}
	n, err := t.exec(updateState, id, string(to), millis(deletion), id.String(), string(from))
	if err != nil || n > 0 {
		return t.noted(err, kms.KeyChanged(id))
	}
	// It is not there, or it is and in another state.
	if _, _, err := t.state(id); err != nil {
		return err
	}
	return conflict(updateState, id)
}

// state returns the account and the state of a key.
func (t *tx) state(id kms.KeyID) (account string, state kms.KeyState, err error) {
	err = t.row(selectState, id, []any{&account, stateColumn{&state}}, id.String())
	return account, state, err
}

func (t *tx) SetDescription(id kms.KeyID, description string) error {
	return t.noted(t.change(updateDescription, id, description, id.String()), kms.KeyChanged(id))
}

func (t *tx) SetPolicy(id kms.KeyID, policy string) error {
	return t.noted(t.change(updatePolicy, id, policy, id.String()), kms.KeyChanged(id))
}

var (
	insertTombstone = define("insert into table tombstone", `
		INSERT INTO tombstone (key_id, account, destroyed) VALUES ($1, $2, $3)`)
	insertTombstoneMaterials = define("insert into table tombstone_material", `
		INSERT INTO tombstone_material (id, key_id) SELECT id, key_id FROM material WHERE key_id = $1`)

	deleteKey = define("delete from table kms_key", `DELETE FROM kms_key WHERE id = $1`)
)

func (t *tx) DeleteKey(id kms.KeyID, now time.Time) error {
	if err := t.writable(deleteKey); err != nil {
		return err
	}
	account, state, err := t.state(id)
	if err != nil {
		return err
	}
	// Nobody changes the state between this look and the end of the transaction: in SQLite because it holds the write lock.
	if state != kms.StateCreating && state != kms.StateDestroying {
		return conflict(deleteKey, id)
	}
	text := id.String()
	if state == kms.StateDestroying {
		if _, err := t.exec(insertTombstone, id, text, account, now.UnixMilli()); err != nil {
			return err
		}
		if _, err := t.exec(insertTombstoneMaterials, id, text); err != nil {
			return err
		}
	}
	aliases, err := t.exec(deleteAliases, id, text)
	if err != nil {
		return err
	}
	for _, s := range []statement{deleteGrants, deleteTags, deleteKeyUse, deleteMaterials, deleteKey} {
		if _, err := t.exec(s, id, text); err != nil {
			return err
		}
	}
	t.note(kms.KeyChanged(id))
	if aliases > 0 { // of which nobody knows any more what they were called
		t.note(kms.Change{Kind: kms.AnyChange})
	}
	return nil
}
