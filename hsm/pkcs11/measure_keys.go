package pkcs11

import (
	"context"
	"crypto/ecdsa"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
	"time"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// keys makes a key of the token as strongroom does, and finds it again.
func (me *measuring) keys(_ context.Context, keeper, _ *session) error {
	id := hsm.ID(randomBytes(16))
	begun := time.Now()
	o, refused, err := me.make(keeper, id, true, false)
	took := time.Since(begun)
	if err != nil {
		me.failed("AES key generation", err, true, "")
		return nil
	}
	defer me.drop(keeper, o)
	me.report.LeftOut = refused
	if len(refused) == 0 {
		me.ok("AES key generation", "with the whole template, in %v", took.Round(10*time.Microsecond))
	} else {
		me.found(Finding{Name: "AES key generation", Verdict: Differs, Detail: "without " + strings.Join(refused, ", ") + ", which the token refuses",
			Remedy: "nothing to do: these are left out; they would only forbid what strongroom does not do"})
	}
	me.promised("attributes of a key", keeper, o, promises())

	read, err := me.attributes(keeper.handle, o, p11.CKA_ID)
	switch {
	case err != nil:
		me.failed("CKA_ID", err, true, "")
	case string(read[0].Value) != string(id[:]):
		me.found(Finding{Name: "CKA_ID", Verdict: Differs, Needed: true, Detail: fmt.Sprintf("of 16 bytes %d come back", len(read[0].Value)),
			Remedy: "strongroom finds its keys by 16 bytes; YubiHSM, for one, keeps two"})
	default:
		me.ok("CKA_ID", "all 16 bytes come back")
	}
	begun = time.Now()
	found, err := me.find(keeper.handle, keyCalled(id))
	took = time.Since(begun)
	switch {
	case err != nil:
		me.failed("find by CKA_ID", err, true, "")
	case !slices.Equal(found, []p11.ObjectHandle{o}):
		me.found(Finding{Name: "find by CKA_ID", Verdict: Failed, Needed: true, Detail: fmt.Sprintf("%d objects are found, and not the one that was made", len(found)),
			Remedy: "the token does not find its keys"})
	default:
		me.ok("find by CKA_ID", "in %v", took.Round(10*time.Microsecond))
	}
	twin, _, err := me.make(keeper, id, true, false)
	if err != nil {
		me.ok("two keys of one CKA_ID", "refused: %s", answer(err))
		return nil
	}
	me.drop(keeper, twin)
	me.ok("two keys of one CKA_ID", "possible, as with most tokens; strongroom uses neither then")
	return nil
}

// promised reads attributes back, one by one, as some tokens refuse all for one that they do not know.
func (me *measuring) promised(name string, s *session, o p11.ObjectHandle, promises []*p11.Attribute) {
	var not []string
	for _, p := range promises {
		read, err := me.attributes(s.handle, o, p.Type)
		if err != nil {
			not = append(not, fmt.Sprintf("%s cannot be read (%s)", attributeName(p.Type), answer(err)))
		} else if broken([]*p11.Attribute{p}, read) != "" {
			not = append(not, fmt.Sprintf("%s is %x", attributeName(p.Type), read[0].Value))
		}
	}
	if len(not) == 0 {
		me.ok(name, "%d read back, all as asked for", len(promises))
		return
	}
	me.found(Finding{Name: name, Verdict: Differs, Needed: true, Detail: strings.Join(not, "; "),
		Remedy: "a key must say that it was always sensitive, never extractable, and is for encryption alone"})
}

// secrecy tries to get a key out.
func (me *measuring) secrecy(_ context.Context, keeper, _ *session) error {
	o, _, err := me.make(keeper, hsm.ID(randomBytes(16)), true, false)
	if err != nil {
		return err
	}
	defer me.drop(keeper, o)
	read, err := me.attributes(keeper.handle, o, p11.CKA_VALUE)
	switch {
	case err != nil:
		me.ok("reading a key's value", "refused: %s", answer(err))
	case len(read) == 0 || len(read[0].Value) == 0:
		me.ok("reading a key's value", "nothing comes back")
	default:
		clear(read[0].Value)
		me.found(Finding{Name: "reading a key's value", Verdict: Failed, Needed: true, Detail: fmt.Sprintf("the token gives away %d bytes of a sensitive key", len(read[0].Value)),
			Remedy: "do not use this token for anything"})
	}
	return me.wrapping(keeper, o)
}

// wrapping tries to take a key out under another one.
func (me *measuring) wrapping(keeper *session, o p11.ObjectHandle) error {
	const name = "wrapping a key out"
	template := throwawayTemplate(hsm.ID(randomBytes(16)), false)
	for i, a := range template {
		switch a.Type {
		case p11.CKA_WRAP:
			template[i] = p11.NewAttribute(p11.CKA_WRAP, true)
		case p11.CKA_LABEL:
			template[i] = p11.NewAttribute(p11.CKA_LABEL, me.label)
		}
	}
	by, err := me.generateOn(keeper.handle, template)
	if err != nil {
		me.found(Finding{Name: name, Verdict: Skipped, Detail: "no key to wrap with could be made: " + answer(err)})
		return nil
	}
	defer me.drop(keeper, by)
	var answers []string
	for _, m := range []struct {
		mechanism uint
		name      string
	}{{p11.CKM_AES_KEY_WRAP, "CKM_AES_KEY_WRAP"}, {p11.CKM_AES_KEY_WRAP_PAD, "CKM_AES_KEY_WRAP_PAD"}} {
		wrapped, err := me.wrap(keeper.handle, m.mechanism, by, o)
		switch {
		case err == nil:
			clear(wrapped)
			me.found(Finding{Name: name, Verdict: Failed, Needed: true, Detail: "the token gives away a key that is not extractable, with " + m.name,
				Remedy: "do not use this token for anything"})
			return nil
		case has(err, p11.CKR_KEY_UNEXTRACTABLE, p11.CKR_KEY_NOT_WRAPPABLE, p11.CKR_ACTION_PROHIBITED):
			me.ok(name, "refused: %s", answer(err))
			return nil
		}
		answers = append(answers, m.name+" "+answer(err))
	}
	me.found(Finding{Name: name, Verdict: OK, Detail: "refused, though not because the key is not extractable: " + strings.Join(answers, ", ")})
	return nil
}

// signer makes a key pair as strongroom does for its audit log, and signs.
func (me *measuring) signer(_ context.Context, keeper, worker *session) error {
	const making, signing = "EC key pair generation", "ECDSA on P-256"
	id := hsm.ID(randomBytes(16))
	extra := niceties(p11.CKM_ECDSA, false)
	err := me.generatePair(publicTemplate(id, me.label), append(signerTemplate(id, me.label), extra...))
	for (refusesTemplate(err) || has(err, p11.CKR_GENERAL_ERROR)) && len(extra) > 0 { // GENERAL_ERROR: see [Token.nicely]
		extra = extra[1:]
		err = me.generatePair(publicTemplate(id, me.label), append(signerTemplate(id, me.label), extra...))
	}
	// crypto11 fails after the pair was made, if it does not understand the public key.
	found, ferr := me.find(keeper.handle, anythingCalled(id))
	if ferr != nil {
		return ferr
	}
	var there objects
	for _, o := range found {
		defer me.drop(keeper, o)
		read, err := me.attributes(keeper.handle, o, p11.CKA_CLASS)
		if err != nil {
			return err
		}
		there.sort(o, read[0].Value)
	}
	if len(there.private) != 1 || len(there.public) != 1 {
		if err == nil {
			err = &Error{Function: "C_GenerateKeyPair", Kind: hsm.ErrUnavailable, Detail: fmt.Sprintf("%d private and %d public keys are found then", len(there.private), len(there.public))}
		}
		me.failed(making, err, true, "the audit log is signed with ECDSA on P-256, so that it takes CKM_EC_KEY_PAIR_GEN and CKM_ECDSA")
		return nil
	}
	me.ok(making, "P-256")
	me.promised("attributes of a signer", keeper, there.private[0], signerPromises())

	t := &Token{module: me.measurable}
	p, err := t.readPoint(keeper, there.public[0])
	if err != nil {
		me.failed(signing, err, true, "")
		return nil
	}
	digest := challenge(id)
	begun := time.Now()
	sig, err := t.signature(worker, there.private[0], digest)
	took := time.Since(begun)
	if err != nil {
		me.failed(signing, err, true, "")
		return renew(worker)
	}
	public, err := p.key()
	if err != nil {
		return err
	}
	der, err := asn1.Marshal(sig)
	if err != nil {
		return err
	}
	if !ecdsa.VerifyASN1(public, digest[:], der) {
		me.found(Finding{Name: signing, Verdict: Failed, Needed: true, Detail: "a signature does not verify under the public key", Remedy: "the token does not sign what it is given with CKM_ECDSA"})
		return nil
	}
	me.ok(signing, "a signature verifies; it took %v", took.Round(10*time.Microsecond))
	return nil
}

// randomness asks for random bytes.
func (me *measuring) randomness(ctx context.Context, _, _ *session) error {
	var a, b [64]byte
	begun := time.Now()
	err := me.random(ctx, a[:])
	took := time.Since(begun)
	if err == nil {
		err = me.random(ctx, b[:])
	}
	switch {
	case err != nil:
		me.failed("random bytes", err, true, "")
	case a == b || a == [64]byte{}:
		me.found(Finding{Name: "random bytes", Verdict: Failed, Needed: true, Detail: "they are not random", Remedy: "do not use this token for anything"})
	default:
		me.ok("random bytes", "64 in %v", took.Round(time.Microsecond))
	}
	return nil
}
