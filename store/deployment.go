package store

import (
	"time"

	"strongroom/kms"
)

var (
	selectDeployment = define("read table deployment", `
		SELECT id, created, aws_partition, aws_region, token_serial, usage_since FROM deployment WHERE one = 1`)
	insertDeployment = define("insert into table deployment", `
		INSERT INTO deployment (one, id, created, aws_partition, aws_region, token_serial, usage_since)
		VALUES (1, $1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`)
	updateUsageSince = define("update usage_since in table deployment", `
		UPDATE deployment SET usage_since = $1 WHERE one = 1 AND usage_since IS NULL`)
)

func (t *tx) Deployment() (*kms.Deployment, error) {
	d := new(kms.Deployment)
	err := t.row(selectDeployment, nil, []any{
		&d.ID, timeColumn{&d.Created}, &d.Partition, &d.Region, &d.TokenSerial, timeColumn{&d.UsageSince},
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

func (t *tx) InsertDeployment(d *kms.Deployment) error {
	return t.insert(insertDeployment, nil,
		d.ID, d.Created.UnixMilli(), d.Partition, d.Region, d.TokenSerial, millis(d.UsageSince))
}

func (t *tx) SetUsageSince(since time.Time) error {
	n, err := t.exec(updateUsageSince, nil, millis(since))
	if err != nil || n > 0 {
		return err
	}
	_, err = t.Deployment() // which has one, or is not there
	return err
}
