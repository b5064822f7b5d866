package store

import (
	"errors"
	"fmt"
	"time"

	"strongroom/hsm"
	"strongroom/kms"
)

var (
	selectMaterials = define("read table material", `
		SELECT id, ref, created, reason FROM material WHERE key_id = $1 ORDER BY ordinal`)
	selectLastMaterial = define("read table material", `
		SELECT ordinal, ref FROM material WHERE key_id = $1 ORDER BY ordinal DESC LIMIT 1`)
	selectKeyOfMaterial = define("read table material", `
		SELECT key_id FROM material WHERE id = $1`)
	insertMaterial = define("insert into table material", `
		INSERT INTO material (id, key_id, ordinal, ref, created, reason) VALUES ($1, $2, $3, $4, $5, $6)`)
	insertNextMaterial = define("insert into table material", `
		INSERT INTO material (id, key_id, ordinal, created, reason) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`)
	updateRef = define("update ref in table material", `
		UPDATE material SET ref = $1 WHERE id = $2 AND ref IS NULL`)
	selectUses = define("read table material", `
		SELECT uses FROM material WHERE id = $1`)
	updateUses = defineQuiet("update uses in table material", `
		UPDATE material SET uses = $1 WHERE id = $2 AND uses = $3`)
	deleteMaterials = define("delete from table material", `DELETE FROM material WHERE key_id = $1`)
)

// materials returns the materials of a key, of which there is at least one.
func (t *tx) materials(key kms.KeyID) ([]kms.Material, error) {
	var all []kms.Material
	var m kms.Material
	dest := []any{idColumn{&m.ID}, refColumn{&m.Ref}, timeColumn{&m.Created}, reasonColumn{&m.Reason}}
	if err := t.rows(selectMaterials, key, dest, func() { all = append(all, m) }, key.String()); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, t.fail(selectMaterials, key, errors.New("damaged: a key without material"))
	}
	return all, nil
}

func (t *tx) KeyOfMaterial(id hsm.ID) (kms.KeyID, error) {
	var key kms.KeyID
	err := t.row(selectKeyOfMaterial, id, []any{keyIDColumn{&key}}, id[:])
	return key, err
}

func (t *tx) InsertMaterial(key kms.KeyID, m *kms.Material) error {
	if err := t.writable(insertNextMaterial); err != nil {
		return err
	}
	if err := checkReason(m.Reason); err != nil {
		return fmt.Errorf("store: %s (%v): %w", insertNextMaterial.does, m.ID, err)
	}
	if m.Ref != nil {
		return fmt.Errorf("store: %s (%v): it has a ref already", insertNextMaterial.does, m.ID)
	}
	var last int
	var ref hsm.Ref
	if err := t.row(selectLastMaterial, key, []any{&last, refColumn{&ref}}, key.String()); err != nil {
		return err
	}
	if ref == nil {
		return conflict(insertNextMaterial, key)
	}
	return t.noted(t.insert(insertNextMaterial, m.ID, m.ID[:], key.String(), last+1, m.Created.UnixMilli(), string(m.Reason)), kms.KeyChanged(key))
}

func (t *tx) SetMaterialRef(id hsm.ID, ref hsm.Ref) error {
	if err := checkRef(ref); err != nil {
		return fmt.Errorf("store: %s (%v): %w", updateRef.does, id, err)
	}
	n, err := t.exec(updateRef, id, []byte(ref), id[:])
	if err != nil {
		return err
	}
	key, err := t.KeyOfMaterial(id)
	if err == nil && n == 0 { // it has one
		return conflict(updateRef, id)
	}
	return t.noted(err, kms.KeyChanged(key))
}

func (t *tx) MaterialUses(id hsm.ID) (int64, error) {
	var n int64
	err := t.row(selectUses, id, []any{&n}, id[:])
	return n, err
}

func (t *tx) SetMaterialUses(id hsm.ID, from, to int64) error {
	n, err := t.exec(updateUses, id, to, id[:], from)
	if err != nil || n > 0 {
		return err
	}
	// It is not there, or it is and has another number.
	if _, err := t.KeyOfMaterial(id); err != nil {
		return err
	}
	return conflict(updateUses, id)
}

var (
	selectKeysToRotate = define("list table kms_key", `
		SELECT id FROM kms_key WHERE state = $1 AND next_rotation <= $2 ORDER BY next_rotation, id LIMIT $3`)
	// It begins at the few materials without ref, not at the keys.
	selectKeysRotating = define("list table material", `
		SELECT m.key_id FROM material m JOIN kms_key k ON k.id = m.key_id
		WHERE m.ref IS NULL AND m.key_id > $1 AND k.state NOT IN `+invisible+`
			AND NOT EXISTS (SELECT 1 FROM material later WHERE later.key_id = m.key_id AND later.ordinal > m.ordinal)
		ORDER BY m.key_id LIMIT $2`)
	updateRotation = define("update rotation in table kms_key", `
		UPDATE kms_key SET rotation_days = $1, next_rotation = $2 WHERE id = $3`)
)

func (t *tx) KeysToRotate(due time.Time, limit int) ([]kms.KeyID, error) {
	return t.keyIDs(selectKeysToRotate, nil, limit, string(kms.StateEnabled), due.UnixMilli())
}

func (t *tx) KeysRotating(after kms.KeyID, limit int) ([]kms.KeyID, error) {
	return t.keyIDs(selectKeysRotating, nil, limit, position(after))
}

func (t *tx) SetRotation(id kms.KeyID, r kms.Rotation) error {
	return t.noted(t.change(updateRotation, id, r.Days, millis(r.Next), id.String()), kms.KeyChanged(id))
}
