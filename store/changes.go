package store

import (
	"context"

	"strongroom/kms"
)

const (
	changesKept  = 10_000 // generations of which it is known what they changed
	changesNoted = 100    // changes of one transaction that are noted; one that makes more may have changed anything
	changesRead  = 20_000 // at once
)

var (
	insertChange = defineQuiet("insert into table change", `
		INSERT INTO change (generation, kind, name) SELECT value, $1, $2 FROM generation WHERE one = 1`)
	deleteChanges = defineQuiet("delete from table change", `
		DELETE FROM change WHERE generation <= (SELECT value - $1 FROM generation WHERE one = 1)`)
	selectChanges = define("list table change", `
		SELECT generation, kind, name FROM change WHERE generation > $1 ORDER BY generation LIMIT $2`)
)

// note says what the statements did that ran since the last note.
func (t *tx) note(changes ...kms.Change) {
	t.unnoted = false
	for _, c := range changes {
		if t.notes == nil {
			t.notes = make(map[kms.Change]bool)
		}
		if len(t.notes) <= changesNoted {
			t.notes[c] = true
		}
	}
}

// noted notes c if err is nil, and returns err.
func (t *tx) noted(err error, c ...kms.Change) error {
	if err == nil {
		t.note(c...)
	}
	return err
}

// publish counts the transaction as a change, and says what it changed where that is known.
func (t *tx) publish() error {
	known := !t.unnoted && len(t.notes) <= changesNoted
	if n, err := t.exec(bumpGeneration, nil); err != nil {
		return err
	} else if n != 1 {
		return errNoGeneration
	}
	if !known {
		return nil
	}
	for c := range t.notes {
		if _, err := t.exec(insertChange, nil, string(c.Kind), c.Name); err != nil {
			return err
		}
	}
	_, err := t.exec(deleteChanges, nil, changesKept)
	return err
}

// Changes implements [kms.Store].
func (d *DB) Changes(ctx context.Context, since int64) ([]kms.Change, int64, error) {
	now, err := d.Generation(ctx)
	if err != nil || now == since {
		return nil, now, err
	}
	var changes []kms.Change
	err = transact(ctx, d.readers, beginView, func(t *tx) error {
		if err := t.row(selectGeneration, nil, []any{&now}); err != nil {
			return err
		}
		changes = []kms.Change{{Kind: kms.AnyChange}}
		if since < 0 || since > now || now-since > changesKept {
			return nil
		}
		var some []kms.Change
		var c kms.Change
		var generation int64
		last, known := since, int64(0) // generations of which there is a row
		err := t.rows(selectChanges, nil, []any{&generation, &c.Kind, &c.Name}, func() {
			if generation != last {
				last = generation
				known++
			}
			some = append(some, c)
		}, since, changesRead)
		if err == nil && known == now-since && len(some) < changesRead {
			changes = some
		}
		return err
	})
	return changes, now, err
}
