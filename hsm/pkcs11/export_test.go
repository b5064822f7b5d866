package pkcs11

import (
	"context"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// Attributes reads attributes of the one key called id.
func (t *Token) Attributes(ctx context.Context, id hsm.ID, types ...uint) (read []*p11.Attribute, err error) {
	err = t.alone(ctx, func(s *session) error {
		found, err := t.module.find(s.handle, keyCalled(id))
		if err != nil {
			return err
		}
		if len(found) != 1 {
			return duplicate(id, len(found))
		}
		read, err = t.module.attributes(s.handle, found[0], types...)
		return err
	})
	return read, err
}
