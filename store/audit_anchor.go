package store

import (
	"fmt"

	"strongroom/kms"
)

var (
	selectAuditAnchor = define("read table audit_anchor", `
		SELECT log, sequence, hash, file FROM audit_anchor WHERE one = 1`)
	upsertAuditAnchor = defineQuiet("update table audit_anchor", `
		INSERT INTO audit_anchor (one, log, sequence, hash, file) VALUES (1, $1, $2, $3, $4)
		ON CONFLICT (one) DO UPDATE SET log = excluded.log, sequence = excluded.sequence, hash = excluded.hash, file = excluded.file`)
)

func (t *tx) AuditAnchor() (*kms.AuditAnchor, error) {
	a := new(kms.AuditAnchor)
	var sequence, file int64
	var hash []byte
	if err := t.row(selectAuditAnchor, nil, []any{&a.Log, &sequence, &hash, &file}); err != nil {
		return nil, err
	}
	if sequence < 1 || file < 1 || len(hash) != len(a.Hash) {
		return nil, t.fail(selectAuditAnchor, nil, fmt.Errorf("damaged: sequence %d, file %d, a hash of %d bytes", sequence, file, len(hash)))
	}
	a.Sequence, a.File = uint64(sequence), int(file)
	copy(a.Hash[:], hash)
	return a, nil
}

func (t *tx) SetAuditAnchor(a *kms.AuditAnchor) error {
	_, err := t.exec(upsertAuditAnchor, nil, a.Log, int64(a.Sequence), a.Hash[:], a.File)
	return err
}
