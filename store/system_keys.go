package store

import (
	"fmt"

	"strongroom/hsm"
	"strongroom/kms"
)

var (
	selectSystemKey = define("read table system_key", `
		SELECT id, ref FROM system_key WHERE name = $1`)
	insertSystemKey = define("insert into table system_key", `
		INSERT INTO system_key (name, id, ref) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`)
	updateSystemKeyRef = define("update ref in table system_key", `
		UPDATE system_key SET ref = $1 WHERE name = $2 AND ref IS NULL`)
)

func (t *tx) SystemKey(name string) (*kms.SystemKey, error) {
	k := &kms.SystemKey{Name: name}
	if err := t.row(selectSystemKey, name, []any{idColumn{&k.ID}, refColumn{&k.Ref}}, name); err != nil {
		return nil, err
	}
	return k, nil
}

func (t *tx) InsertSystemKey(k *kms.SystemKey) error {
	if err := checkNewRef(k.Ref); err != nil {
		return fmt.Errorf("store: %s (%s): %w", insertSystemKey.does, k.Name, err)
	}
	return t.insert(insertSystemKey, k.Name, k.Name, k.ID[:], newRef(k.Ref))
}

func (t *tx) SetSystemKeyRef(name string, ref hsm.Ref) error {
	if err := checkRef(ref); err != nil {
		return fmt.Errorf("store: %s (%s): %w", updateSystemKeyRef.does, name, err)
	}
	n, err := t.exec(updateSystemKeyRef, name, []byte(ref), name)
	if err != nil || n > 0 {
		return err
	}
	// It is not there, or it is and has a ref.
	if _, err := t.SystemKey(name); err != nil {
		return err
	}
	return conflict(updateSystemKeyRef, name)
}
