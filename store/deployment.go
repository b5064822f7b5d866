package store

import (
	"fmt"
	"time"

	"strongroom/kms"
)

var (
	selectDeployment = define("read table deployment", `
		SELECT id, created, aws_partition, aws_region, token_serial, sealer_name, sealer_id, sealer_ref
		FROM deployment WHERE one = 1`)
	insertDeployment = define("insert into table deployment", `
		INSERT INTO deployment (one, id, created, aws_partition, aws_region, token_serial, sealer_name, sealer_id, sealer_ref)
		VALUES (1, $1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING`)
	insertAccount = define("insert into table account", `
		INSERT INTO account (id, created) VALUES ($1, $2) ON CONFLICT DO NOTHING`)
)

func (t *tx) Deployment() (*kms.Deployment, error) {
	d := new(kms.Deployment)
	err := t.row(selectDeployment, nil, []any{
		&d.ID, timeColumn{&d.Created}, &d.Partition, &d.Region, &d.TokenSerial,
		&d.SecretSealer.Name, idColumn{&d.SecretSealer.ID}, refColumn{&d.SecretSealer.Ref},
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

func (t *tx) InsertDeployment(d *kms.Deployment) error {
	sealer := &d.SecretSealer
	if err := checkRef(sealer.Ref); err != nil {
		return fmt.Errorf("store: %s (%s): %w", insertDeployment.does, sealer.Name, err)
	}
	return t.insert(insertDeployment, nil,
		d.ID, d.Created.UnixMilli(), d.Partition, d.Region, d.TokenSerial, sealer.Name, sealer.ID[:], []byte(sealer.Ref))
}

func (t *tx) InsertAccount(id string, created time.Time) error {
	return t.insert(insertAccount, id, id, created.UnixMilli())
}
