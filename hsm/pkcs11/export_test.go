package pkcs11

import (
	"context"
	"errors"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// Attributes reads attributes of the one AES key called id.
func (t *Token) Attributes(ctx context.Context, id hsm.ID, types ...uint) ([]*p11.Attribute, error) {
	return t.AttributesOf(ctx, p11.CKO_SECRET_KEY, id, types...)
}

// AttributesOf reads attributes of the one object of a class that is called id.
func (t *Token) AttributesOf(ctx context.Context, class uint, id hsm.ID, types ...uint) (read []*p11.Attribute, err error) {
	err = t.alone(ctx, func(s *session) error {
		found, err := t.module.find(s.handle, ofClass(class, id))
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

// Remove destroys the objects of a class that are called id, as somebody else may.
func (t *Token) Remove(ctx context.Context, class uint, id hsm.ID) error {
	return t.alone(ctx, func(s *session) error {
		found, err := t.module.find(s.handle, ofClass(class, id))
		for _, o := range found {
			err = errors.Join(err, t.module.destroy(s.handle, o))
		}
		return err
	})
}

func ofClass(class uint, id hsm.ID) []*p11.Attribute {
	return append(anythingCalled(id), p11.NewAttribute(p11.CKA_CLASS, class))
}

// State says how much there is of the object of a class that is called id.
func (t *Token) State(ctx context.Context, class uint, id hsm.ID) string {
	attribute := uint(p11.CKA_EC_PARAMS)
	switch class {
	case p11.CKO_PUBLIC_KEY:
		attribute = p11.CKA_EC_POINT
	case p11.CKO_SECRET_KEY:
		attribute = p11.CKA_LOCAL // comes with the value, which is not shown
	}
	read, err := t.AttributesOf(ctx, class, id, attribute)
	switch {
	case errors.Is(err, hsm.ErrNoKey):
		return "nothing"
	case err != nil:
		return err.Error()
	case len(read[0].Value) == 0, class == p11.CKO_SECRET_KEY && read[0].Value[0] == 0:
		return "half"
	}
	return "whole"
}
