package store

import (
	"errors"
	"fmt"

	"strongroom/kms"
)

var (
	bumpSequence = defineQuiet("update table event_sequence", `
		UPDATE event_sequence SET last_sequence = last_sequence + 1 WHERE one = 1`)
	insertEvent = defineQuiet("insert into table event", `
		INSERT INTO event (sequence, body) SELECT last_sequence, $1 FROM event_sequence WHERE one = 1`)
	selectEvents = define("list table event", `
		SELECT sequence, body FROM event ORDER BY sequence LIMIT $1`)
	deleteEvents = defineQuiet("delete from table event", `
		DELETE FROM event WHERE sequence <= $1`)
)

func (t *tx) InsertEvent(body []byte) error {
	if len(body) == 0 {
		return fmt.Errorf("store: %s: an event without body", insertEvent.does)
	}
	if n, err := t.exec(bumpSequence, nil); err != nil {
		return err
	} else if n != 1 {
		return t.fail(bumpSequence, nil, errors.New("it has lost its row; restore a backup"))
	}
	_, err := t.exec(insertEvent, nil, body)
	return err
}

func (t *tx) Events(limit int) ([]kms.Event, error) {
	return list(t, selectEvents, nil, limit, func(e *kms.Event) []any { return []any{&e.Sequence, &e.Body} })
}

func (t *tx) DeleteEvents(upTo int64) error {
	_, err := t.exec(deleteEvents, upTo, upTo)
	return err
}
