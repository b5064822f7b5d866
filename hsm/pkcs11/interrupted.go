package pkcs11

import (
	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// interrupted reports whether an object called id is a key, or a private key, whose making was not finished. NSS's softokn makes one in several
// steps, and notes CKA_ALWAYS_SENSITIVE and CKA_NEVER_EXTRACTABLE in the last two. What a process leaves that is killed before has a value and
// works, but nobody can have a Ref of it: none is made before the token has promised both, see [Token.verify], and what a token has promised it
// never takes back (PKCS #11 v2.40, section 4.9). So nothing is lost with it.
//
// It is concluded from all of this: the key is sensitive and not extractable, as our templates want; the token denies that it always was, and
// does not say that it has made the key (CKA_LOCAL; NSS never says so); it does not deny it of the canary, which is made in the same way, so that
// this is no token to which keys were carried over from another; and no Ref of the key was ever used here. Whatever else there may be stays.
func (t *Token) interrupted(s *session, o p11.ObjectHandle, id hsm.ID) (bool, error) {
	if k := t.keys.get(id); k != nil && k.proved {
		return false, nil
	}
	read, err := t.module.attributes(s.handle, o, p11.CKA_LOCAL, p11.CKA_SENSITIVE, p11.CKA_EXTRACTABLE, p11.CKA_ALWAYS_SENSITIVE, p11.CKA_NEVER_EXTRACTABLE)
	if err != nil {
		return false, nil // what fails here fails again for who uses the key
	}
	var is [5]bool
	for i, a := range read {
		if len(a.Value) != 1 {
			return false, nil
		}
		is[i] = a.Value[0] != 0
	}
	local, sensitive, extractable, always, never := is[0], is[1], is[2], is[3], is[4]
	if local || !sensitive || extractable || always && never {
		return false, nil
	}
	found, err := t.module.find(s.handle, keyCalled(canaryID))
	if err != nil || len(found) != 1 {
		return false, err
	}
	return t.verify(s, found[0], promises()) == nil, nil
}

// tidyInterrupted destroys those of the objects found whose making was interrupted, and returns what stays.
func (t *Token) tidyInterrupted(s *session, found []p11.ObjectHandle, id hsm.ID) ([]p11.ObjectHandle, error) {
	var stay []p11.ObjectHandle
	for _, o := range found {
		interrupted, err := t.interrupted(s, o, id)
		switch {
		case err != nil:
			return nil, err
		case !interrupted:
			stay = append(stay, o)
			continue
		}
		if k := t.keys.get(id); k != nil {
			t.keys.forget(id, k)
		}
		if err := t.module.destroy(s.handle, o); err != nil && !stale(err) {
			return nil, err
		}
	}
	return stay, nil
}
