package pkcs11

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// objects are those of the token that have one id: of a key, one that is secret; of a signer, one that is private and one that is public.
type objects struct{ secret, private, public []p11.ObjectHandle }

// all returns the objects in the order in which they are to be destroyed: what can be used first.
func (o objects) all() []p11.ObjectHandle { return slices.Concat(o.secret, o.private, o.public) }

// sort adds a handle to those of its class. Other classes do not count, such as a certificate that somebody made for a key.
func (o *objects) sort(handle p11.ObjectHandle, class []byte) {
	for _, c := range []struct {
		class uint
		list  *[]p11.ObjectHandle
	}{{p11.CKO_SECRET_KEY, &o.secret}, {p11.CKO_PRIVATE_KEY, &o.private}, {p11.CKO_PUBLIC_KEY, &o.public}} {
		if sameValue(class, ulong(c.class)) {
			*c.list = append(*c.list, handle)
		}
	}
}

// called finds the objects called id, and sees that they are labelled as those are that strongroom made.
func (t *Token) called(s *session, id hsm.ID) (objects, error) {
	found, err := t.module.find(s.handle, anythingCalled(id))
	if err != nil {
		return objects{}, err
	}
	var there objects
	for _, o := range found {
		read, err := t.module.attributes(s.handle, o, p11.CKA_CLASS, p11.CKA_LABEL)
		if err != nil {
			return objects{}, unavailable("reading the label of a key", err)
		}
		n := len(there.all())
		there.sort(o, read[0].Value)
		if label := string(read[1].Value); len(there.all()) > n && !strings.HasPrefix(label, labelPrefix) {
			return objects{}, fmt.Errorf("%w: there is an object with its id, but labelled %q, which strongroom has not made", hsm.ErrNoKey, label)
		}
	}
	return there, nil
}

func duplicate(id hsm.ID, n int) error {
	return fmt.Errorf("%w: the token has %d objects with the id %v, and none of them is used", hsm.ErrNoKey, n, id)
}

// Destroy implements [hsm.Device]. If several keys of ours have the id, which can be if Generate was called twice at the same time,
// all are destroyed. Of a signer the private key goes first: if Destroy is interrupted, what is left does nothing.
func (t *Token) Destroy(ctx context.Context, id hsm.ID) error {
	if id == canaryID {
		return fmt.Errorf("the canary key is not to be destroyed")
	}
	return t.alone(ctx, func(s *session) error {
		there, err := t.called(s, id)
		if err != nil {
			return err
		}
		found := there.all()
		if k := t.keys.get(id); k != nil {
			t.keys.forget(id, k)
		}
		if t.keeper != nil { // copies would outlive the key
			copies, err := t.module.find(s.handle, copiesOf(id))
			if err != nil {
				return err
			}
			found = append(copies, found...)
		}
		for _, o := range found {
			if err := t.module.destroy(s.handle, o); err != nil && !stale(err) {
				return err
			}
		}
		if len(found) > 0 {
			if there, err = t.called(s, id); err != nil {
				return err
			}
			if len(there.all()) > 0 {
				return fmt.Errorf("%w: the token destroyed the key %v, but still finds it", hsm.ErrUnavailable, id)
			}
		}
		if err := t.believe(s); err != nil {
			return err
		}
		return t.disk.sync()
	})
}

// Forget makes this process forget a key that another one has destroyed, with its copies, which would outlive it.
func (t *Token) Forget(ctx context.Context, id hsm.ID) error {
	return t.alone(ctx, func(s *session) error {
		if k := t.keys.get(id); k != nil {
			t.keys.forget(id, k)
		}
		if t.keeper == nil {
			return nil
		}
		copies, err := t.module.find(s.handle, copiesOf(id))
		if err != nil {
			return err
		}
		for _, o := range copies {
			if err := t.module.destroy(s.handle, o); err != nil && !stale(err) {
				return err
			}
		}
		return nil
	})
}

// Objects implements [hsm.Device]. The canary is not among them, nor is what was made for a test.
func (t *Token) Objects(ctx context.Context) ([]hsm.Object, error) {
	all, err := t.Survey(ctx)
	if err != nil {
		return nil, err
	}
	var list []hsm.Object
	for _, h := range all {
		if !h.Canary && !strings.HasPrefix(h.Label, checkPrefix) {
			list = append(list, h.Object)
		}
	}
	return list, nil
}
