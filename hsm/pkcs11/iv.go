package pkcs11

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// An IVSource says who makes the IV of an encryption with AES-GCM, and how this host comes to know it. Devices that follow FIPS 140 often insist on
// making it themselves (NIST SP 800-38D, section 9.1), and PKCS #11 v2.40 has no way to give it back, so that each vendor has found one. What is
// sealed begins with the IV that was really used, whoever made it; to decrypt, the device is always given it.
type IVSource uint8

const (
	// IVHost: the device uses the IV that this host gives it, 96 random bits.
	IVHost IVSource = iota

	// IVZeroed: the device fills a buffer of 12 zero bytes (AWS CloudHSM, nShield).
	IVZeroed

	// IVAppended: the device is given no buffer, and appends the IV to the tag (Luna in FIPS mode, whose IV has 12 bytes from firmware 7.9.3 on).
	IVAppended

	// IVReturned: the device is given an IV, makes another, and gives that back through the parameters: in the same place, or in memory of its own that
	// they then lead to.
	IVReturned
)

var ivSources = [...]string{IVHost: "host", IVZeroed: "device-zeroed", IVAppended: "device-appended", IVReturned: "device-returned"}

func (i IVSource) String() string {
	if int(i) >= len(ivSources) {
		return fmt.Sprintf("IVSource(%d)", uint8(i))
	}
	return ivSources[i]
}

// MarshalText returns the name of i.
func (i IVSource) MarshalText() ([]byte, error) {
	if int(i) >= len(ivSources) {
		return nil, fmt.Errorf("there is no %v", i)
	}
	return []byte(i.String()), nil
}

// UnmarshalText sets i to the one called text.
func (i *IVSource) UnmarshalText(text []byte) error {
	for n, name := range ivSources {
		if string(text) == name {
			*i = IVSource(n)
			return nil
		}
	}
	return fmt.Errorf("%q is none of %s", text, strings.Join(ivSources[:], ", "))
}

// appendedRoom is how much longer than ciphertext and tag the output may be. A Luna before firmware 7.9.3 appends 16 bytes: it gets room for them, so that
// it can be said what is wrong with it.
const appendedRoom = 16

// encrypt seals plaintext under key in the way of source, with the IV that was used at iv, and ciphertext and tag at the beginning of out, which has
// hsm.TagSize + appendedRoom bytes more than plaintext. It returns how long ciphertext and tag are, which is never anything but hsm.TagSize more
// than plaintext. If there is doubt about which IV was used, it fails, and nothing may be kept of what it wrote.
func encrypt(m module, source IVSource, s p11.SessionHandle, key p11.ObjectHandle, iv *[hsm.IVSize]byte, out, plaintext, aad []byte) (int, error) {
	sealed := len(plaintext) + hsm.TagSize
	if source == IVHost || source == IVReturned {
		rand.Read(iv[:])
	} else {
		*iv = [hsm.IVSize]byte{}
	}
	given, to, want := *iv, iv, sealed
	out = out[:sealed]
	if source == IVAppended {
		out = out[:sealed+appendedRoom]
		to, want = nil, sealed+hsm.IVSize
	}
	n, moved, err := m.encrypt(s, key, to, out, plaintext, aad)
	switch {
	case err != nil:
		return 0, err
	case n == want && source == IVAppended:
		copy(iv[:], out[sealed:n])
	case source == IVAppended && n == sealed+16:
		return 0, ivFault("it appends an IV of 16 bytes, where only one of 12 can be used; a Luna needs firmware 7.9.3 or later")
	case n != want:
		return 0, wrongLength("C_Encrypt", n)
	}
	switch {
	case moved && source != IVReturned:
		return 0, ivFault("it put an IV of its own into the parameters")
	case source == IVHost && *iv != given:
		return 0, ivFault("it changed the IV that it was given")
	case source == IVReturned && *iv == given:
		return 0, ivFault("it left the IV that it was given, where one of its own was expected")
	case *iv == [hsm.IVSize]byte{}:
		return 0, ivFault("it gave no IV, or zero: nothing is sealed with that")
	}
	return sealed, nil
}

// ivFault is the error of a device that did not deal with an IV as it was expected to.
func ivFault(what string) error {
	return &Error{Function: "C_Encrypt", Kind: hsm.ErrUnavailable, Detail: what}
}

// detectIV finds out by test who makes IVs: with key on s, which afterwards is another session, because a failed operation may have spoilt it. Every
// way is believed only if what was encrypted so opens with the IV that is said to have been used, and with no other, twice. So a device that takes an IV
// and uses another is not taken for one that uses it. The error says what each way came to.
func detectIV(m module, s *session, key p11.ObjectHandle) (IVSource, error) {
	var all []string
	var missing *Error
	for source := range IVSource(len(ivSources)) {
		err := tryIV(m, source, s, key)
		if err == nil {
			return source, nil
		}
		all = append(all, fmt.Sprintf("%v: %s", source, answer(err)))
		if e, ok := errors.AsType[*Error](err); ok && has(err, p11.CKR_MECHANISM_INVALID, p11.CKR_FUNCTION_NOT_SUPPORTED) && source == IVHost {
			missing = e
		} else if missing != nil && !has(err, missing.Code) {
			missing = nil
		}
		if hopeless(err) {
			break
		}
		if err := s.pool.renew(s); err != nil {
			return 0, err
		}
	}
	if missing != nil {
		return 0, &Error{Function: missing.Function, Code: missing.Code, Kind: hsm.ErrUnavailable, Detail: "the token has no AES-GCM (CKM_AES_GCM), or its policy forbids it"}
	}
	return 0, fmt.Errorf("%w: the token does not encrypt with AES-GCM in any way that is known here: %s", hsm.ErrUnavailable, strings.Join(all, "; "))
}

// findIV finds out who makes IVs, with a key that is destroyed again, and tells found. The key is an object of the session unless the token has no such keys.
func (t *Token) findIV(ctx context.Context, found func(IVSource) error) error {
	// The key belongs to one session, of those for data, and is tried on another, which is renewed meanwhile.
	err := t.data.with(ctx, func(s *session) error {
		var id hsm.ID
		rand.Read(id[:])
		o, err := t.module.generateOn(s.handle, throwawayTemplate(id, false))
		if err != nil && !hopeless(err) {
			o, err = t.module.generateOn(s.handle, throwawayTemplate(id, true))
		}
		if err != nil {
			return unavailable("making a key to try", err)
		}
		err = t.admin.with(ctx, func(other *session) (err error) {
			t.iv, err = detectIV(t.module, other, o)
			return err
		})
		if derr := t.module.destroy(s.handle, o); err == nil && derr != nil {
			err = fmt.Errorf("destroying the key that was tried: %w", derr)
		}
		return err
	})
	if err != nil {
		return err
	}
	return found(t.iv)
}

// tryIV returns nil if source is how the device makes IVs, as far as a test can show.
func tryIV(m module, source IVSource, s *session, key p11.ObjectHandle) error {
	const text, aad = "strongroom: who makes the IV?", "strongroom iv test v1"
	defer func() { clear(s.buf[:]) }()
	var last [hsm.IVSize]byte
	for range 2 {
		var iv [hsm.IVSize]byte
		n, err := encrypt(m, source, s.handle, key, &iv, s.buf[:], []byte(text), []byte(aad))
		if err != nil {
			return err
		}
		if iv == last {
			return ivFault("it used the same IV twice")
		}
		last = iv
		sealed := append([]byte(nil), s.buf[:n]...)
		n, err = m.decrypt(s.handle, key, &iv, s.buf[:len(sealed)], sealed, []byte(aad))
		if err != nil {
			return unavailable("opening what was encrypted with the IV that should have been used", err)
		}
		if string(s.buf[:n]) != text {
			return ivFault("what was encrypted opens to something else")
		}
		other := iv
		other[0] ^= 1
		if _, err := m.decrypt(s.handle, key, &other, s.buf[:len(sealed)], sealed, []byte(aad)); err == nil {
			return &Error{Function: "C_Decrypt", Kind: hsm.ErrUnavailable, Detail: "what was encrypted opens with another IV too"}
		}
		// That was to fail, and some modules leave the operation active then.
		if err := s.pool.renew(s); err != nil {
			return err
		}
	}
	return nil
}

// ivRemedy adds to err, of the first use of the canary on s, what to do if who makes the IV was the reason: it tries the other ways, with the same key, and
// changes nothing.
func (t *Token) ivRemedy(s *session, canary p11.ObjectHandle, err error) error {
	if hopeless(err) || s.pool.renew(s) != nil {
		return err
	}
	right, derr := detectIV(t.module, s, canary)
	if derr != nil || right == t.iv {
		return err
	}
	return fmt.Errorf("%w; the IV was to be made as in iv = %q, but the token works with %q: set iv = %q under [hsm] in the configuration, and see what strongroom hsm check says",
		err, t.iv, right, right)
}
