package pkcs11

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"fmt"
	"slices"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// findSource finds out who makes IVs.
func (me *measuring) findSource(_ context.Context, keeper, worker *session) error {
	key, drop, err := me.key(keeper)
	if err != nil {
		return err
	}
	defer drop()
	source, err := detectIV(me.measurable, worker, key)
	if err != nil {
		me.failed("AES-GCM", err, true, "AES-256-GCM with an IV of 12 bytes and a tag of 16 is what everything is encrypted with; see whether the token's policy, or another firmware, offers it")
		return nil
	}
	me.report.IV = &source
	me.ok("AES-GCM", "what is encrypted opens again, with the IV that was used and with no other")
	me.ok("who makes the IV", "%s", map[IVSource]string{
		IVHost: "this host: the token uses the IV that it is given", IVZeroed: "the token, which fills a buffer of zeros",
		IVAppended: "the token, which appends it to the tag", IVReturned: "the token, which gives it back in the parameters",
	}[source])
	return nil
}

// noGCM keeps that a step is not for this token.
func (me *measuring) noGCM(name string) bool {
	if me.report.IV != nil {
		return false
	}
	me.found(Finding{Name: name, Verdict: Skipped, Detail: "the token does not encrypt with AES-GCM"})
	return true
}

// vector is test case 16 of McGrew and Viega, The Galois/Counter Mode of Operation (2005), appendix B, which NIST has taken over: AES-256, an IV of 12 bytes,
// associated data.
var vector = struct{ key, iv, aad, plaintext, sealed string }{
	key:       "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
	iv:        "cafebabefacedbaddecaf888",
	aad:       "feedfacedeadbeeffeedfacedeadbeefabaddad2",
	plaintext: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
	sealed: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662" +
		"76fc6ece0f4e1768cddf8853bb2d551b",
}

// vectors compares with what is known of AES-GCM, if the token takes a key from outside. No key of strongroom's ever comes from there.
func (me *measuring) vectors(_ context.Context, keeper, worker *session) error {
	const name = "known answers of AES-GCM"
	if me.noGCM(name) {
		return nil
	}
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			panic(err) // a constant
		}
		return b
	}
	value := unhex(vector.key)
	key, err := me.create(keeper.handle, importTemplate(me.label, value))
	if err != nil {
		me.found(Finding{Name: name, Verdict: Skipped, Detail: "the token takes no key from outside (" + answer(err) + "), which is no fault: what it does was seen by encrypting and decrypting"})
		return nil
	}
	defer me.drop(keeper, key)
	block, err := aes.NewCipher(value)
	if err != nil {
		return err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return err
	}
	type one struct {
		iv                     [hsm.IVSize]byte
		aad, plaintext, sealed []byte
	}
	cases := []one{{[hsm.IVSize]byte(unhex(vector.iv)), unhex(vector.aad), unhex(vector.plaintext), unhex(vector.sealed)}}
	for _, n := range []int{1, 15, 16, 17, 32, 1024, hsm.MaxPlaintext} {
		for _, a := range []int{1, 91, hsm.MaxAAD} {
			c := one{iv: [hsm.IVSize]byte(randomBytes(hsm.IVSize)), aad: randomBytes(a), plaintext: randomBytes(n)}
			c.sealed = gcm.Seal(nil, c.iv[:], c.plaintext, c.aad)
			cases = append(cases, c)
		}
	}
	wrong := func(function, what string) error {
		return &Error{Function: function, Kind: hsm.ErrUnavailable, Detail: what}
	}
	for _, c := range cases {
		out := make([]byte, len(c.sealed)+appendedRoom)
		n, err := me.decrypt(worker.handle, key, &c.iv, out[:len(c.sealed)], c.sealed, c.aad)
		if err == nil && string(out[:n]) != string(c.plaintext) {
			err = wrong("C_Decrypt", "it opens a known ciphertext to something else")
		}
		if err == nil && *me.report.IV == IVHost {
			iv := c.iv
			if n, _, err = me.encrypt(worker.handle, key, &iv, out[:len(c.sealed)], c.plaintext, c.aad); err == nil && string(out[:n]) != string(c.sealed) {
				err = wrong("C_Encrypt", "its answer is not the known one")
			}
		} else if err == nil {
			// The IV is the token's, so that the answer is not known before, but can be opened here.
			var iv [hsm.IVSize]byte
			if n, err = encrypt(me.measurable, *me.report.IV, worker.handle, key, &iv, out, c.plaintext, c.aad); err == nil {
				if opened, oerr := gcm.Open(nil, iv[:], out[:n], c.aad); oerr != nil || string(opened) != string(c.plaintext) {
					err = wrong("C_Encrypt", "its answer does not open outside of the token")
				}
			}
		}
		if err != nil {
			me.failed(fmt.Sprintf("%s (%d bytes, %d associated)", name, len(c.plaintext), len(c.aad)), err, true, "the token's AES-GCM is not that of NIST SP 800-38D")
			return renew(worker)
		}
	}
	me.ok(name, "%d agree, among them test case 16 of McGrew and Viega", len(cases))
	return nil
}

// importTemplate is how a key whose value everybody knows is brought into a session.
func importTemplate(label string, value []byte) []*p11.Attribute {
	return []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY),
		p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_AES),
		p11.NewAttribute(p11.CKA_VALUE, value),
		p11.NewAttribute(p11.CKA_LABEL, label),
		p11.NewAttribute(p11.CKA_TOKEN, false),
		p11.NewAttribute(p11.CKA_PRIVATE, true),
		p11.NewAttribute(p11.CKA_SENSITIVE, true),
		p11.NewAttribute(p11.CKA_EXTRACTABLE, false),
		p11.NewAttribute(p11.CKA_ENCRYPT, true),
		p11.NewAttribute(p11.CKA_DECRYPT, true),
	}
}

// roundTrip encrypts and decrypts n random bytes with a bytes of associated data.
func (me *measuring) roundTrip(worker *session, key p11.ObjectHandle, n, a int) error {
	plaintext, aad := randomBytes(n), randomBytes(a)
	out, opened := make([]byte, n+hsm.TagSize+appendedRoom), make([]byte, n+hsm.TagSize)
	var iv [hsm.IVSize]byte
	length, err := encrypt(me.measurable, *me.report.IV, worker.handle, key, &iv, out, plaintext, aad)
	if err != nil {
		return err
	}
	m, err := me.decrypt(worker.handle, key, &iv, opened, out[:length], aad)
	if err == nil && string(opened[:m]) != string(plaintext) {
		err = &Error{Function: "C_Decrypt", Kind: hsm.ErrUnavailable, Detail: "it opens what was encrypted to something else"}
	}
	return err
}

// sizes finds out how long things may be.
func (me *measuring) sizes(ctx context.Context, keeper, worker *session) error {
	if me.noGCM("lengths") {
		return nil
	}
	key, drop, err := me.key(keeper)
	if err != nil {
		return err
	}
	defer drop()
	for _, q := range []struct {
		name    string
		lengths []int
		needed  int
		longest *int
		try     func(n int) error
	}{
		{"associated data", []int{1, 91, hsm.MaxAAD, 1024, 4096}, hsm.MaxAAD, &me.report.MaxAAD, func(n int) error { return me.roundTrip(worker, key, 32, n) }},
		{"plaintext", []int{1, 32, 138, 2400, hsm.MaxPlaintext, 8 << 10, 16 << 10, 32 << 10, 64 << 10}, hsm.MaxPlaintext, &me.report.MaxPlaintext,
			func(n int) error { return me.roundTrip(worker, key, n, 91) }},
	} {
		*q.longest = 0
		refused := ""
		var at int
		for _, n := range q.lengths {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := q.try(n); err != nil {
				refused, at = answer(err), n
				if err := renew(worker); err != nil {
					return err
				}
				break
			}
			*q.longest = n
		}
		switch {
		case *q.longest < q.needed:
			me.found(Finding{Name: q.name, Verdict: Failed, Needed: true, Detail: fmt.Sprintf("%d bytes are refused: %s", at, refused), Remedy: fmt.Sprintf("strongroom needs %d bytes", q.needed)})
		case refused != "":
			me.ok(q.name, "1 to %d bytes, and not %d (%s); %d are needed", *q.longest, at, refused, q.needed)
		default:
			me.ok(q.name, "1 to %d bytes at least; %d are needed", *q.longest, q.needed)
		}
	}
	return nil
}

// badTag finds out how the token answers what was changed.
func (me *measuring) badTag(_ context.Context, keeper, worker *session) error {
	const name, after = "a changed ciphertext", "the session after that"
	if me.noGCM(name) {
		return nil
	}
	key, drop, err := me.key(keeper)
	if err != nil {
		return err
	}
	defer drop()
	text, aad := []byte("strongroom: what of a bad tag?"), []byte("strongroom check v1")
	out, opened := make([]byte, len(text)+hsm.TagSize+appendedRoom), make([]byte, len(text)+hsm.TagSize)
	var iv [hsm.IVSize]byte
	n, err := encrypt(me.measurable, *me.report.IV, worker.handle, key, &iv, out, text, aad)
	if err != nil {
		return err
	}
	good := out[:n]
	flip := func(b []byte, i int) []byte {
		b = slices.Clone(b)
		b[i] ^= 1
		return b
	}
	var bad error
	var session Finding
	for _, c := range []struct {
		what        string
		sealed, aad []byte
	}{
		{"tag", flip(good, n-1), aad}, {"ciphertext", flip(good, 0), aad}, {"associated data", good, flip(aad, 0)},
	} {
		_, err := me.decrypt(worker.handle, key, &iv, opened, c.sealed, c.aad)
		if err == nil {
			me.found(Finding{Name: name, Verdict: Failed, Needed: true, Detail: "the token opens what does not belong together: the " + c.what + " was changed",
				Remedy: "do not use this token for anything"})
			return nil
		}
		if !doubtful(err) {
			me.found(Finding{Name: name, Verdict: Differs, Needed: true, Detail: "answered with " + answer(err),
				Remedy: "strongroom would take this for a fault of the token; please report it, with this check's --json"})
			return renew(worker)
		}
		if bad == nil {
			bad = err
			// The same session again, with what is right.
			m, err := me.decrypt(worker.handle, key, &iv, opened, good, aad)
			if err == nil && string(opened[:m]) == string(text) {
				session = Finding{Name: after, Verdict: OK, Detail: "goes on working"}
			} else if has(err, p11.CKR_OPERATION_ACTIVE) {
				session = Finding{Name: after, Verdict: Differs, Detail: "is stuck in the failed operation: " + answer(err), Remedy: "nothing to do: strongroom replaces such a session"}
			} else if err != nil {
				session = Finding{Name: after, Verdict: Differs, Detail: "fails: " + answer(err), Remedy: "nothing to do: strongroom replaces such a session"}
			} else {
				session = Finding{Name: after, Verdict: Failed, Needed: true, Detail: "opens a good ciphertext to something else", Remedy: "do not use this token for anything"}
			}
		}
		if err := renew(worker); err != nil {
			return err
		}
	}
	me.report.BadTag = answer(bad)
	me.ok(name, "answered with %s", answer(bad))
	me.found(session)
	return nil
}

// handles finds out what becomes of handles that name nothing.
func (me *measuring) handles(_ context.Context, keeper, worker *session) error {
	const name = "the handle of a destroyed key"
	if me.noGCM(name) {
		return nil
	}
	key, _, err := me.make(keeper, hsm.ID(randomBytes(16)), true, false)
	if err != nil {
		return err
	}
	use := func(o p11.ObjectHandle) error {
		var iv [hsm.IVSize]byte
		_, err := encrypt(me.measurable, *me.report.IV, worker.handle, o, &iv, worker.buf[:], []byte("x"), []byte("x"))
		return err
	}
	defer func() { clear(worker.buf[:]) }()
	if err := use(key); err != nil {
		me.drop(keeper, key)
		return err
	}
	if err := me.destroy(keeper.handle, key); err != nil {
		me.failed("destroying a key", err, true, "")
		return nil
	}
	for _, q := range []struct {
		name   string
		handle p11.ObjectHandle
	}{{name, key}, {"a handle that never was", key + 1<<20}} {
		switch err := use(q.handle); {
		case err == nil:
			me.found(Finding{Name: q.name, Verdict: Failed, Needed: true, Detail: "it still encrypts", Remedy: "a key that was destroyed must be gone"})
		case stale(err):
			me.ok(q.name, "answered with %s", answer(err))
		default:
			me.found(Finding{Name: q.name, Verdict: Differs, Detail: "answered with " + answer(err) + ", which may mean anything",
				Remedy: "nothing to do: strongroom proves a handle before its first use, and asks the canary key in doubt"})
		}
		if err := renew(worker); err != nil {
			return err
		}
	}
	return nil
}

// lengthQuery finds out whether C_Encrypt may be asked for the length of its answer first, which strongroom does not do.
func (me *measuring) lengthQuery(_ context.Context, keeper, worker *session) error {
	const name = "asking C_Encrypt for the length"
	if me.noGCM(name) {
		return nil
	}
	if *me.report.IV != IVHost {
		me.found(Finding{Name: name, Verdict: Skipped, Detail: "the token makes IVs; it does without the question, as strongroom does"})
		return nil
	}
	key, drop, err := me.key(keeper)
	if err != nil {
		return err
	}
	defer drop()
	if _, err := me.query(worker.handle, key, randomBytes(hsm.IVSize), []byte("x"), []byte("x")); err != nil {
		me.ok(name, "refused: %s; it does without, as strongroom does", answer(err))
		return renew(worker)
	}
	me.ok(name, "possible, and not needed")
	return nil
}

// emptyAAD encrypts without associated data, in which SoftHSM 2.6.1 can abort (softhsm/SoftHSMv2#664).
func (me *measuring) emptyAAD(_ context.Context, keeper, worker *session) error {
	const name = "no associated data at all"
	if me.noGCM(name) {
		return nil
	}
	key, drop, err := me.key(keeper)
	if err != nil {
		return err
	}
	defer drop()
	if err := me.roundTrip(worker, key, 32, 0); err != nil {
		me.found(Finding{Name: name, Verdict: Differs, Detail: answer(err), Remedy: "nothing to do: strongroom always has associated data"})
		return renew(worker)
	}
	me.ok(name, "works; strongroom always has some")
	return nil
}
