package store

import "strongroom/kms"

var (
	selectTags = define("read table tag", `
		SELECT name, value FROM tag WHERE key_id = $1`)
	insertTag = define("insert into table tag", `
		INSERT INTO tag (key_id, name, value) VALUES ($1, $2, $3)`)
	putTag = define("insert into table tag", `
		INSERT INTO tag (key_id, name, value) VALUES ($1, $2, $3)
		ON CONFLICT (key_id, name) DO UPDATE SET value = excluded.value`)
	deleteTag  = define("delete from table tag", `DELETE FROM tag WHERE key_id = $1 AND name = $2`)
	deleteTags = define("delete from table tag", `DELETE FROM tag WHERE key_id = $1`)
)

// tags returns the tags that s answers with, or nil.
func (t *tx) tags(s statement, about any, id string) (map[string]string, error) {
	var tags map[string]string
	var name, value string
	err := t.rows(s, about, []any{&name, &value}, func() {
		if tags == nil {
			tags = make(map[string]string)
		}
		tags[name] = value
	}, id)
	if err != nil {
		return nil, err
	}
	return tags, nil
}

func (t *tx) SetTags(id kms.KeyID, tags map[string]string) error {
	if err := t.writable(putTag); err != nil {
		return err
	}
	if _, _, err := t.state(id); err != nil { // there is no such key
		return err
	}
	for name, value := range tags {
		if _, err := t.exec(putTag, id, id.String(), name, value); err != nil {
			return err
		}
	}
	t.note(kms.KeyChanged(id))
	return nil
}

func (t *tx) DeleteTags(id kms.KeyID, names []string) error {
	if err := t.writable(deleteTag); err != nil {
		return err
	}
	if _, _, err := t.state(id); err != nil {
		return err
	}
	for _, name := range names {
		if _, err := t.exec(deleteTag, id, id.String(), name); err != nil {
			return err
		}
	}
	t.note(kms.KeyChanged(id))
	return nil
}
