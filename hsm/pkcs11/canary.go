package pkcs11

import (
	"context"
	"errors"
	"fmt"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// The canary is a key that serves nothing but to show that the token works. It is not among Objects, and cannot be sealed with.
//
// Its id is the first 16 bytes of the SHA-256 of its label, so that every process and every node finds the same one.
const canaryLabel = labelPrefix + "canary"

var canaryID = hsm.ID{0xda, 0x03, 0xcb, 0x04, 0xd9, 0x0f, 0xef, 0xf1, 0x04, 0x95, 0x60, 0x1e, 0x35, 0x03, 0x5c, 0xa7}

// openCanary finds the canary, or makes it, and remembers it. From here on [Token.probe] and [Token.believe] work.
func (t *Token) openCanary(ctx context.Context, create bool) error {
	return t.alone(ctx, func(s *session) error {
		found, err := t.module.find(s.handle, keyCalled(canaryID))
		if err != nil {
			return err
		}
		switch {
		case len(found) > 1:
			return fmt.Errorf("%w: the token has %d objects labelled %q; destroy all but one with the tools of the HSM", hsm.ErrUnavailable, len(found), canaryLabel)
		case len(found) == 0 && !create:
			return fmt.Errorf("%w: the token %v has no canary key, so strongroom has never used it; if it is the right one, run: strongroom init", hsm.ErrUnavailable, t.info)
		case len(found) == 0:
			// An empty find is not to be believed without a canary, but the worst that can come of it is a second one, which is
			// refused at the next Open.
			if found, err = t.make(s, canaryID, canaryLabel); err != nil {
				return err
			}
		}
		r, err := t.tryCanary(s, found[0])
		if err != nil && create {
			if found, err = t.remakeCanary(s, found[0], err); err == nil {
				r, err = t.tryCanary(s, found[0])
			}
		}
		if errors.Is(err, hsm.ErrUnavailable) {
			return t.ivRemedy(s, found[0], err)
		}
		if err != nil {
			return err
		}
		t.canary = r
		t.remember(s, r, found[0])
		if create {
			return t.disk.sync()
		}
		return nil
	})
}

// tryCanary sees that an object can be the canary.
func (t *Token) tryCanary(s *session, o p11.ObjectHandle) (ref, error) {
	if err := t.verify(s, o, promises()); err != nil {
		return ref{}, err
	}
	return t.makeRef(s, o, canaryID)
}

// remakeCanary makes a canary in the place of one that does not work, for the reason given. SoftHSM makes a key in two steps, and a process that is killed
// between them leaves an object with everything but its value. On a token that holds no other key nothing can be lost with it; on any other
// it stays.
func (t *Token) remakeCanary(s *session, o p11.ObjectHandle, reason error) ([]p11.ObjectHandle, error) {
	found, err := t.module.find(s.handle, anyKey())
	if err != nil {
		return nil, err
	}
	if len(found) != 1 || found[0] != o {
		return nil, reason
	}
	if err := t.module.destroy(s.handle, o); err != nil {
		return nil, fmt.Errorf("%w; destroying it: %v", reason, err)
	}
	return t.make(s, canaryID, canaryLabel)
}

// probe decrypts with the canary on s, and returns nil if that works: then the device does, and so does the session.
func (t *Token) probe(s *session) error {
	if k := t.keys.get(canaryID); k != nil {
		err := t.prove(s, k.handle, t.canary)
		if err == nil {
			return nil
		}
		if !another(err) {
			return unavailable("decrypting with the canary key", err)
		}
		t.keys.forget(canaryID, k)
	}
	found, err := t.module.find(s.handle, keyCalled(canaryID))
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("%w: the token shows %d canary keys, where one was", hsm.ErrUnavailable, len(found))
	}
	if err := t.prove(s, found[0], t.canary); err != nil {
		return unavailable("decrypting with the canary key", err)
	}
	t.remember(s, t.canary, found[0])
	return nil
}

// able returns nil if the canary does on s all that is asked of a new key. That is more than [Token.probe] sees: a token may have come to
// forbid to encrypt but not to decrypt, and a copy in the memory of this process works while the token's storage is away.
func (t *Token) able(s *session) error {
	if err := t.believe(s); err != nil {
		return err
	}
	found, err := t.module.find(s.handle, keyCalled(canaryID))
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("%w: the token shows %d canary keys, where one was", hsm.ErrUnavailable, len(found))
	}
	if err := t.prove(s, found[0], t.canary); err != nil {
		return unavailable("decrypting with the canary key", err)
	}
	_, err = t.makeRef(s, found[0], canaryID)
	return err
}

// Check implements [hsm.Device].
func (t *Token) Check(ctx context.Context) error {
	const text, aad = "strongroom: this is a drill", "strongroom canary v1"
	// crypto11 has sessions of its own and never replaces a lost one, so they are looked at too.
	if err := t.Random(ctx, make([]byte, 16)); err != nil {
		return err
	}
	r := t.canary
	sealed, err := t.seal(ctx, &r, nil, []byte(text), []byte(aad))
	var opened []byte
	if err == nil {
		opened, err = t.open(ctx, &r, nil, sealed, []byte(aad))
	}
	if ctx.Err() != nil && err != nil {
		return err
	}
	if err != nil {
		return unavailable("encrypting and decrypting with the canary key", err)
	}
	if string(opened) != text {
		return fmt.Errorf("%w: the canary key decrypts to something else than was encrypted", hsm.ErrUnavailable)
	}
	return nil
}
