package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

var _ hsm.Inspector = (*Token)(nil)

// Survey implements [hsm.Inspector]. The handles that it finds are remembered for Prove, to be proved there: a search for each key would take as long
// as there are objects.
func (t *Token) Survey(ctx context.Context) ([]hsm.Holding, error) {
	var list []hsm.Holding
	err := t.alone(ctx, func(s *session) error {
		list = nil
		found, err := t.module.find(s.handle, anything())
		if err != nil {
			return err
		}
		labels := make(map[hsm.ID]string)
		handles := make(map[hsm.ID]objects)
		for _, o := range found {
			if err := ctx.Err(); err != nil {
				s.sound = true
				return err
			}
			read, err := t.module.attributes(s.handle, o, p11.CKA_CLASS, p11.CKA_ID, p11.CKA_LABEL)
			if stale(err) || has(err, p11.CKR_ATTRIBUTE_TYPE_INVALID, p11.CKR_ATTRIBUTE_SENSITIVE) {
				continue // destroyed since by another process, or not ours
			}
			if err != nil {
				return err
			}
			class, id, label := read[0].Value, read[1].Value, string(read[2].Value)
			if len(id) != len(hsm.ID{}) || !strings.HasPrefix(label, labelPrefix) {
				continue
			}
			there := handles[hsm.ID(id)]
			there.sort(o, class)
			if len(there.all()) > 0 {
				handles[hsm.ID(id)], labels[hsm.ID(id)] = there, label
			}
		}
		if len(handles[canaryID].secret) == 0 {
			if err := t.believe(s); err != nil {
				return err
			}
		}
		for id, there := range handles {
			list = append(list, hsm.Holding{
				Object: hsm.Object{ID: id, Label: labels[id]},
				Keys:   len(there.secret), Private: len(there.private), Public: len(there.public),
				Canary: id == canaryID,
			})
			if h := append(slices.Clone(there.secret), there.private...); len(h) == 1 && t.keys.get(id) == nil && !strings.HasPrefix(labels[id], checkPrefix) {
				t.keys.put(id, &key{handle: h[0]}) // to be proved when it is used
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// Prove implements [hsm.Inspector]. What is found is proved anew each time, whatever was proved before.
func (t *Token) Prove(ctx context.Context, id hsm.ID, b hsm.Ref) error {
	r, err := parseEither(b)
	if err != nil {
		return err
	}
	if r.id != id {
		return fmt.Errorf("%w: the reference is to the key %v, and not to %v", hsm.ErrNoKey, r.id, id)
	}
	return t.alone(ctx, func(s *session) error {
		// The handle that is remembered may be stale, so a failure is looked at again.
		if k := t.keys.get(r.id); k != nil && t.keeper == nil { // a copy is not what the token keeps
			if t.prove(s, k.handle, r) == nil {
				return nil
			}
			t.keys.forget(r.id, k)
			if err := s.pool.renew(s); err != nil {
				return err
			}
		}
		o, err := t.only(s, r)
		if err != nil {
			return err
		}
		err = t.prove(s, o, r)
		if err == nil || !another(err) {
			return err
		}
		if err := t.probe(s); err != nil {
			return err
		}
		s.sound = true
		return fmt.Errorf("%w: another key is in the place of %v: it fails the proof (%v)", hsm.ErrNoKey, r.id, err)
	})
}

// Promises implements [hsm.Inspector].
func (t *Token) Promises(ctx context.Context, b hsm.Ref) (lacks string, err error) {
	r, err := parseEither(b)
	if err != nil {
		return "", err
	}
	want := promises()
	if r.signer() {
		want = signerPromises()
	}
	types := make([]uint, len(want))
	for i, a := range want {
		types[i] = a.Type
	}
	err = t.alone(ctx, func(s *session) error {
		lacks = ""
		var read []*p11.Attribute
		err := errNothing
		if k := t.keys.get(r.id); k != nil && t.keeper == nil {
			read, err = t.module.attributes(s.handle, k.handle, types...)
		}
		if err != nil {
			o, ferr := t.only(s, r)
			if ferr != nil {
				return ferr
			}
			read, err = t.module.attributes(s.handle, o, types...)
		}
		if err != nil {
			return unavailable("reading the attributes of a key", err)
		}
		lacks = broken(want, read)
		return nil
	})
	return lacks, err
}

// Refer implements [hsm.Inspector].
func (t *Token) Refer(ctx context.Context, id hsm.ID) (hsm.Ref, error) {
	if id == canaryID {
		return nil, fmt.Errorf("%w: the canary key serves nothing else", hsm.ErrNoKey)
	}
	var r ref
	err := t.alone(ctx, func(s *session) error {
		there, err := t.called(s, id)
		switch {
		case err != nil:
			return err
		case len(there.private)+len(there.public) > 0:
			s.sound = true
			return fmt.Errorf("%w: the id %v is a signer's", hsm.ErrNoKey, id)
		case len(there.secret) == 0:
			if err := t.believe(s); err != nil {
				return err
			}
			s.sound = true
			return fmt.Errorf("%w: %v", hsm.ErrNoKey, id)
		case len(there.secret) > 1:
			s.sound = true
			return duplicate(id, len(there.secret))
		}
		if err := t.verify(s, there.secret[0], promises()); err != nil {
			return err
		}
		if r, err = t.makeRef(s, there.secret[0], id); err == nil {
			return t.disk.sync() // who made it may have been killed before
		}
		if lost(err) {
			return err
		}
		// If it is not the device's fault, it is the object's. Some modules leave an operation active after it has failed, so that is seen on another session.
		if err := s.pool.renew(s); err != nil {
			return err
		}
		if aerr := t.able(s); aerr != nil {
			return aerr
		}
		return fmt.Errorf("%w: the object %v does not work as a key, while the canary key does (%v)", hsm.ErrNoKey, id, err)
	})
	if err != nil {
		return nil, err
	}
	return r.bytes(), nil
}

var errNothing = errors.New("nothing was read yet")

// only finds the one object of r.
func (t *Token) only(s *session, r ref) (p11.ObjectHandle, error) {
	template := keyCalled(r.id)
	if r.signer() {
		template = signerCalled(r.id)
	}
	found, err := t.module.find(s.handle, template)
	if err != nil {
		return 0, err
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		if err := t.believe(s); err != nil {
			return 0, err
		}
		s.sound = true
		return 0, fmt.Errorf("%w: %v", hsm.ErrNoKey, r.id)
	}
	s.sound = true
	return 0, duplicate(r.id, len(found))
}

func parseEither(b hsm.Ref) (ref, error) {
	if r, err := parseSigner(b); err == nil {
		return r, nil
	}
	return parseRef(b)
}

// A PINState is what a token says of the patience that it has left with wrong PINs.
type PINState struct {
	CountLow bool // wrong PINs are being counted
	FinalTry bool // one more locks
	Locked   bool
	Change   bool // it wants the PIN changed
}

// PINState returns what the token said right before this process logged in: a token forgets wrong PINs when it is given the right one.
func (t *Token) PINState() PINState {
	return PINState{
		CountLow: t.flags&p11.CKF_USER_PIN_COUNT_LOW != 0,
		FinalTry: t.flags&p11.CKF_USER_PIN_FINAL_TRY != 0,
		Locked:   t.flags&p11.CKF_USER_PIN_LOCKED != 0,
		Change:   t.flags&p11.CKF_USER_PIN_TO_BE_CHANGED != 0,
	}
}

// Sessions returns how many operations with keys may be in the module at a time: fewer than were configured if the token has fewer.
func (t *Token) Sessions() int { return cap(t.data.idle) }
