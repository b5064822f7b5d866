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

// alone runs f with the admin session, so that nobody else in this process finds, makes, describes or destroys objects
// meanwhile. If the session turns out to be lost, its own or one that f uses beside it, f is run again on a new one: f must be repeatable.
func (t *Token) alone(ctx context.Context, f func(*session) error) error {
	err := t.admin.with(ctx, f)
	for range 2 {
		if !lost(err) {
			break
		}
		err = t.admin.with(ctx, f)
	}
	return err
}

// Generate implements [hsm.Device]. The label must begin with "strongroom/", which is how our keys are told from others.
//
// What an earlier attempt left half made, see [Token.tidyKeys] and [Token.interrupted], is destroyed first. A key that is whole is never destroyed here, unless it was
// made by the same call. As with [Token.GenerateSigner], two processes must not make the same key at the same time.
func (t *Token) Generate(ctx context.Context, id hsm.ID, label string) (hsm.Ref, error) {
	if err := checkName(id, label); err != nil {
		return nil, err
	}
	var r ref
	err := t.alone(ctx, func(s *session) error {
		there, err := t.called(s, id)
		if err != nil {
			return err
		}
		if len(there.private)+len(there.public) > 0 {
			return fmt.Errorf("%w: the id %v is a signer's", hsm.ErrNoKey, id)
		}
		found, err := t.tidyInterrupted(s, there.secret, id)
		if err != nil {
			return err
		}
		if found, err = t.tidyKeys(s, found, id); err != nil {
			return err
		}
		fresh := len(found) == 0
		switch {
		case len(found) > 1:
			return duplicate(id, len(found))
		case fresh:
			if err := t.believe(s); err != nil {
				return err
			}
			if found, err = t.make(s, id, label); err != nil {
				return err
			}
		}
		if err := t.verify(s, found[0], promises()); err != nil {
			if fresh && !errors.Is(err, hsm.ErrUnavailable) {
				// It was made a moment ago and nothing is sealed with it, so that it can go.
				err = unavailable("making a key", err)
				if derr := t.module.destroy(s.handle, found[0]); derr != nil {
					err = fmt.Errorf("%w; destroying it: %v", err, derr)
				}
			}
			return err
		}
		if r, err = t.makeRef(s, found[0], id); err != nil {
			return err
		}
		if err := t.disk.sync(); err != nil {
			return err
		}
		t.settle(ctx, s, r, found[0])
		return nil
	})
	if err != nil {
		return nil, err
	}
	return r.bytes(), nil
}

// tidyKeys destroys those of the objects found to be called id that never were a key, and returns what stays.
//
// SoftHSM makes a key in two steps. A process that is killed between them leaves an object with everything but its value, which nobody can have
// used, nor have a Ref of. SoftHSM keeps from everybody what the value is, also that there is none; so that is concluded, from all of this: the
// token does not say that it has made a key (CKA_LOCAL), which it says in the second step; the object fails in a way that may be its own fault,
// again and again; and after each time the canary does what the object did not. Whatever fails otherwise stays, as it may be a key that does
// not work now: somebody has forbidden its use, or the token is not well.
//
// If there are several, each is judged by itself, so that one that works stays: nobody can have a Ref of those that never did.
func (t *Token) tidyKeys(s *session, found []p11.ObjectHandle, id hsm.ID) ([]p11.ObjectHandle, error) {
	unused := found
	for range 2 {
		var failed []p11.ObjectHandle
		for _, o := range unused {
			unfinished, err := t.unfinished(s, o, id)
			if err != nil {
				return nil, err
			}
			if unfinished {
				failed = append(failed, o)
			}
		}
		if unused = failed; len(unused) == 0 {
			return found, nil
		}
		if err := t.able(s); err != nil {
			return nil, err
		}
	}
	// The session was replaced meanwhile, so that it has to be seen that the handles still name what they did.
	there, err := t.called(s, id)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(slices.Sorted(slices.Values(there.secret)), slices.Sorted(slices.Values(found))) {
		return nil, fmt.Errorf("%w: the token finds other objects with the id %v than a moment ago", hsm.ErrUnavailable, id)
	}
	if k := t.keys.get(id); k != nil {
		t.keys.forget(id, k)
	}
	for _, o := range unused {
		if err := t.module.destroy(s.handle, o); err != nil && !stale(err) {
			return nil, err
		}
	}
	return slices.DeleteFunc(slices.Clone(found), func(o p11.ObjectHandle) bool { return slices.Contains(unused, o) }), nil
}

// unfinished reports whether an object called id looks, if the token is well, like one that has no value yet. See [Token.tidyKeys]. If so, s is
// another session then, because some modules leave an operation active after it has failed.
func (t *Token) unfinished(s *session, o p11.ObjectHandle, id hsm.ID) (bool, error) {
	read, err := t.module.attributes(s.handle, o, p11.CKA_LOCAL)
	if err != nil || len(read[0].Value) == 0 || sameValue(read[0].Value, []byte{1}) {
		return false, nil // what fails here fails again for who uses the key
	}
	if _, err := t.makeRef(s, o, id); !valueless(err) {
		return false, nil
	}
	return true, s.pool.renew(s)
}

// checkName refuses what a key must not be called.
func checkName(id hsm.ID, label string) error {
	if !strings.HasPrefix(label, labelPrefix) || strings.HasPrefix(label, checkPrefix) || label == canaryLabel {
		return fmt.Errorf("the label %q of a key must begin with %q, and not as those do that have a meaning of their own", label, labelPrefix)
	}
	if id == canaryID || id == (hsm.ID{}) {
		return fmt.Errorf("the id %v of a key is not random", id)
	}
	return nil
}

// make makes a key and returns what is then called id: exactly one object.
func (t *Token) make(s *session, id hsm.ID, label string) ([]p11.ObjectHandle, error) {
	err := t.nicely(s, id, p11.CKM_AES_GCM, func(extra []*p11.Attribute) error {
		return t.module.generate(append(keyTemplate(id, label), extra...))
	})
	if err != nil {
		return nil, err
	}
	// crypto11 does not say which handle the key has. To look shows also whether somebody else made one at the same time: then neither
	// is used, and Destroy removes both.
	found, err := t.module.find(s.handle, keyCalled(id))
	if err != nil {
		return nil, err
	}
	switch len(found) {
	case 1:
		return found, nil
	case 0:
		return nil, fmt.Errorf("%w: the token made the key %v, but does not find it", hsm.ErrUnavailable, id)
	}
	return nil, duplicate(id, len(found))
}

// verify sees that an object has the attributes that its template asked for and that the token promises the rest. If it does not, the
// error is hsm.ErrNoKey: this is not a key of ours.
func (t *Token) verify(s *session, o p11.ObjectHandle, promises []*p11.Attribute) error {
	var types []uint
	for _, a := range promises {
		types = append(types, a.Type)
	}
	read, err := t.module.attributes(s.handle, o, types...)
	if err != nil {
		return unavailable("reading the attributes of a key", err)
	}
	if b := broken(promises, read); b != "" {
		return fmt.Errorf("%w: the token does not keep what a key must be: %s", hsm.ErrNoKey, b)
	}
	return nil
}

// makeRef makes the check value of a key, and sees that it opens again. It is one use of the key with a random IV.
func (t *Token) makeRef(s *session, o p11.ObjectHandle, id hsm.ID) (ref, error) {
	r := ref{id: id}
	n, err := encrypt(t.module, t.iv, s.handle, o, r.check.iv(), s.buf[:], []byte(checkMessage), checkAAD(id))
	if err != nil {
		return ref{}, unavailable("using a key for the first time", err)
	}
	copy(r.check.ciphertext(), s.buf[:n])
	if err := t.prove(s, o, r); err != nil {
		return ref{}, unavailable("using a key for the first time", err)
	}
	return r, nil
}

// prove returns nil if o is the key that r is about. Otherwise [another] says whether it can be that it is not.
func (t *Token) prove(s *session, o p11.ObjectHandle, r ref) error {
	if r.signer() {
		return t.proveSigner(s, o, r)
	}
	defer func() { clear(s.buf[:]) }()
	n, err := t.module.decrypt(s.handle, o, r.check.iv(), s.buf[:len(r.check.ciphertext())], r.check.ciphertext(), checkAAD(r.id))
	if has(err, p11.CKR_OPERATION_ACTIVE) {
		// Some modules leave an operation active after it has failed, against PKCS #11 v2.40, section 5.2.
		if err := s.pool.renew(s); err != nil {
			return err
		}
		n, err = t.module.decrypt(s.handle, o, r.check.iv(), s.buf[:len(r.check.ciphertext())], r.check.ciphertext(), checkAAD(r.id))
	}
	if err != nil {
		return err
	}
	if string(s.buf[:n]) != checkMessage {
		return fmt.Errorf("%w: the check value opens to something else", hsm.ErrNoKey)
	}
	return nil
}

// another reports whether err, of [Token.prove], may mean that another key than the one that was meant was used, or none.
func another(err error) bool { return errors.Is(err, hsm.ErrNoKey) || doubtful(err) }

// remember keeps that o was proved to be the key of r, on s.
func (t *Token) remember(s *session, r ref, o p11.ObjectHandle) *key {
	k := &key{handle: o, proved: true, seen: s.seen, proof: r.proof}
	t.keys.put(r.id, k)
	return k
}

// settle remembers o, which was proved to be the key of r, or else a copy of it that was proved too.
func (t *Token) settle(ctx context.Context, s *session, r ref, o p11.ObjectHandle) *key {
	if t.keeper != nil && t.uncopied < 2 {
		var c p11.ObjectHandle
		err := t.keeper.with(ctx, func(keeper *session) (err error) {
			c, err = t.module.duplicate(keeper.handle, o)
			keeper.sound = !gone(err) // a key that cannot be copied is no reason to lose the copies of others
			return err
		})
		if t.uncopied++; !lost(err) {
			t.uncopied = 0
		}
		if err == nil && t.prove(s, c, r) == nil {
			return t.remember(s, r, c)
		}
	}
	return t.remember(s, r, o)
}

// proved returns the key of r if its handle was ever proved, and otherwise nil. On which sessions that counts, [session.trusts] knows.
func (t *Token) proved(r *ref) *key {
	if k := t.keys.get(r.id); k != nil && k.proved && k.proof == r.proof {
		return k
	}
	return nil
}

// key returns the key of r, proved. In the steady state it takes no lock and asks nobody.
func (t *Token) key(ctx context.Context, r *ref) (*key, error) {
	if k := t.proved(r); k != nil {
		return k, nil
	}
	return t.findKey(ctx, *r)
}

func (t *Token) findKey(ctx context.Context, r ref) (k *key, err error) {
	err = t.alone(ctx, func(s *session) error {
		if k = t.proved(&r); k != nil { // somebody else has, while we waited
			return nil
		}
		k, err = t.resolve(ctx, s, r)
		return err
	})
	return k, err
}

// proveOn returns k if it may be used on s, after another proof if need be. If it is not the key of r any more, the error is [hsm.ErrNoKey],
// which is not to be believed: only what the token finds counts.
func (t *Token) proveOn(s *session, k *key, r *ref) (*key, error) {
	if s.trusts(k) {
		return k, nil
	}
	err := t.prove(s, k.handle, *r)
	if err == nil {
		return t.remember(s, *r, k.handle), nil
	}
	if another(err) || stale(err) {
		return nil, fmt.Errorf("%w: the handle of %v does not name it any more", hsm.ErrNoKey, r.id)
	}
	return nil, err
}

// resolve finds the object of r and proves that it is the right one: first the handle that is remembered, and if that is not
// it, the one that the token finds now.
func (t *Token) resolve(ctx context.Context, s *session, r ref) (*key, error) {
	if k := t.keys.get(r.id); k != nil {
		err := t.prove(s, k.handle, r)
		if err == nil {
			return t.remember(s, r, k.handle), nil
		}
		if !another(err) {
			return nil, err
		}
		if err := t.probe(s); err != nil {
			return nil, err
		}
		t.keys.forget(r.id, k)
	}
	template := keyCalled(r.id)
	if r.signer() {
		template = signerCalled(r.id)
	}
	found, err := t.module.find(s.handle, template)
	if err != nil {
		return nil, err
	}
	switch len(found) {
	case 0:
		if err := t.believe(s); err != nil {
			return nil, err
		}
		s.sound = true
		return nil, fmt.Errorf("%w: %v", hsm.ErrNoKey, r.id)
	case 1:
	default:
		if found = t.proven(s, found, r); len(found) != 1 {
			s.sound = true
			return nil, duplicate(r.id, len(found))
		}
	}
	err = t.prove(s, found[0], r)
	if err == nil {
		return t.settle(ctx, s, r, found[0]), nil
	}
	if !another(err) {
		return nil, err
	}
	if err := t.probe(s); err != nil {
		return nil, err
	}
	s.sound = true
	return nil, fmt.Errorf("%w: another key is in the place of %v: it fails the proof (%v)", hsm.ErrNoKey, r.id, err)
}

// proven returns those of several objects that are the key of r. There can be others with its id: a creation whose answer was lost is repeated, and an
// HSM that is reached over a network may still do the first one then. Its check value says which of them the key is.
func (t *Token) proven(s *session, found []p11.ObjectHandle, r ref) []p11.ObjectHandle {
	return slices.DeleteFunc(slices.Clone(found), func(o p11.ObjectHandle) bool { return t.prove(s, o, r) != nil })
}

// believe returns nil if an empty find is to be believed: the session is logged in and still sees the canary. SoftHSM finds
// nothing, without an error, while its directory is away, and any token does when its login is gone.
func (t *Token) believe(s *session) error {
	state, err := t.module.sessionState(s.handle)
	if err != nil {
		return err
	}
	if state != p11.CKS_RW_USER_FUNCTIONS {
		return &Error{
			Function: "C_FindObjects",
			Kind:     hsm.ErrUnavailable,
			Detail:   "it found nothing, but the session is not logged in any more, as after a restart of the token",
		}
	}
	found, err := t.module.find(s.handle, keyCalled(canaryID))
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return &Error{
			Function: "C_FindObjects",
			Kind:     hsm.ErrUnavailable,
			Detail:   "it found neither the key nor the canary key; the token has lost its storage, or this process has lost the token",
		}
	}
	return nil
}
