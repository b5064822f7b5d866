package store

import (
	"fmt"
	"time"

	"strongroom/hsm"
	"strongroom/kms"
)

// invisible are the states, in SQL, of keys that no client sees, and that DeleteKey may drop.
const invisible = `('` + string(kms.StateCreating) + `', '` + string(kms.StateDestroying) + `')`

var (
	selectKey = define("read table kms_key", `
		SELECT account, state, description, created, deletion_date, policy FROM kms_key WHERE id = $1`)
	selectTags = define("read table tag", `
		SELECT name, value FROM tag WHERE key_id = $1`)
	selectMaterials = define("read table material", `
		SELECT id, ref, created FROM material WHERE key_id = $1 ORDER BY ordinal`)
	selectKeyOfMaterial = define("read table material", `
		SELECT key_id FROM material WHERE id = $1`)
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
	text := id.String()
	err := t.row(selectKey, id, []any{
		&k.Account, stateColumn{&k.State}, &k.Description, timeColumn{&k.Created}, timeColumn{&k.DeletionDate}, &k.Policy,
	}, text)
	if err != nil {
		return nil, err
	}

	var name, value string
	err = t.rows(selectTags, id, []any{&name, &value}, func() {
		if k.Tags == nil {
			k.Tags = make(map[string]string)
		}
		k.Tags[name] = value
	}, text)
	if err != nil {
		return nil, err
	}

	var m kms.Material
	err = t.rows(selectMaterials, id, []any{idColumn{&m.ID}, refColumn{&m.Ref}, timeColumn{&m.Created}}, func() {
		k.Materials = append(k.Materials, m)
	}, text)
	if err != nil {
		return nil, err
	}
	if len(k.Materials) == 0 {
		return nil, t.fail(selectMaterials, id, fmt.Errorf("damaged: a key without material"))
	}
	return k, nil
}

func (t *tx) KeyOfMaterial(id hsm.ID) (kms.KeyID, error) {
	var key kms.KeyID
	err := t.row(selectKeyOfMaterial, id, []any{keyIDColumn{&key}}, id[:])
	return key, err
}

func (t *tx) Keys(account string, after kms.KeyID, limit int) ([]kms.KeyID, error) {
	position := "" // before every id
	if !after.IsZero() {
		position = after.String()
	}
	return t.keyIDs(selectKeys, account, limit, account, position)
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
	if limit <= 0 { // to SQLite, a negative limit is none
		return nil, t.usable()
	}
	var ids []kms.KeyID
	var id kms.KeyID
	err := t.rows(s, about, []any{keyIDColumn{&id}}, func() { ids = append(ids, id) }, append(args, limit)...)
	if err != nil {
		return nil, err
	}
	return ids, nil
}

var (
	insertKey = define("insert into table kms_key", `
		INSERT INTO kms_key (id, account, state, description, created, deletion_date, policy)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`)
	insertTag = define("insert into table tag", `
		INSERT INTO tag (key_id, name, value) VALUES ($1, $2, $3)`)
	insertMaterial = define("insert into table material", `
		INSERT INTO material (id, key_id, ordinal, ref, created) VALUES ($1, $2, $3, $4, $5)`)
)

func (t *tx) InsertKey(k *kms.Key) error {
	if err := checkKey(k); err != nil {
		return fmt.Errorf("store: %s (%v): %w", insertKey.does, k.ID, err)
	}
	text := k.ID.String()
	err := t.insert(insertKey, k.ID,
		text, k.Account, string(k.State), k.Description, k.Created.UnixMilli(), millis(k.DeletionDate), k.Policy)
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
		// A nil slice is NULL, an empty one would not be.
		ref := []byte(m.Ref)
		if len(ref) == 0 {
			ref = nil
		}
		if _, err := t.exec(insertMaterial, m.ID, m.ID[:], text, n, ref, m.Created.UnixMilli()); err != nil {
			return err
		}
	}
	return nil
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
		if len(m.Ref) > maxRef {
			return checkRef(m.Ref)
		}
	}
	return nil
}

var (
	updateState = define("update state in table kms_key", `
		UPDATE kms_key SET state = $1, deletion_date = $2 WHERE id = $3 AND state = $4`)
	updateDescription = define("update description in table kms_key", `
		UPDATE kms_key SET description = $1 WHERE id = $2`)
	updateRef = define("update ref in table material", `
		UPDATE material SET ref = $1 WHERE id = $2 AND ref IS NULL`)
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
		return err
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

func (t *tx) SetMaterialRef(id hsm.ID, ref hsm.Ref) error {
	if err := checkRef(ref); err != nil {
		return fmt.Errorf("store: %s (%v): %w", updateRef.does, id, err)
	}
	n, err := t.exec(updateRef, id, []byte(ref), id[:])
	if err != nil || n > 0 {
		return err
	}
	// It is not there, or it is and has a ref.
	if _, err := t.KeyOfMaterial(id); err != nil {
		return err
	}
	return conflict(updateRef, id)
}

func (t *tx) SetDescription(id kms.KeyID, description string) error {
	n, err := t.exec(updateDescription, id, description, id.String())
	if err == nil && n == 0 {
		err = notStored(updateDescription, id)
	}
	return err
}

var (
	insertTombstone = define("insert into table tombstone", `
		INSERT INTO tombstone (key_id, account, destroyed) VALUES ($1, $2, $3)`)
	insertTombstoneMaterials = define("insert into table tombstone_material", `
		INSERT INTO tombstone_material (id, key_id) SELECT id, key_id FROM material WHERE key_id = $1`)

	deleteAliases   = define("delete from table alias", `DELETE FROM alias WHERE key_id = $1`)
	deleteTags      = define("delete from table tag", `DELETE FROM tag WHERE key_id = $1`)
	deleteMaterials = define("delete from table material", `DELETE FROM material WHERE key_id = $1`)
	deleteKey       = define("delete from table kms_key", `DELETE FROM kms_key WHERE id = $1`)
)

func (t *tx) DeleteKey(id kms.KeyID, now time.Time) error {
	// So that in a View the answer is that it only reads, whatever the state of the key.
	if !t.writes {
		return fmt.Errorf("%w: %s", errReadOnly, deleteKey.does)
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
	for _, s := range []statement{deleteAliases, deleteTags, deleteMaterials, deleteKey} {
		if _, err := t.exec(s, id, text); err != nil {
			return err
		}
	}
	return nil
}
