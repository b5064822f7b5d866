package pkcs11

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// A signer is two objects of the token, a private key and a public one, with one CKA_ID and one label.

// GenerateSigner implements [hsm.Device]. The label must begin with "strongroom/".
//
// A pair is not made in one step everywhere, and SoftHSM's files are not on the disk before they are synced. So there may be, of an
// earlier attempt:
//
//   - no private key, or one without a curve, as SoftHSM leaves it when the process is killed, or without the token's promises, as NSS does, see
//     [Token.interrupted]: nothing was ever signed with it, so what there is is destroyed, and another pair is made;
//   - a private key without its public one, or with half of it, which then is destroyed: the private key may have signed, so it stays, and
//     the public key is computed from two of its signatures.
//
// A private key that is whole is never destroyed here, unless it was made by the same call. Two processes must not make the same signer
// at the same time, as one takes for left over what the other is making; then there may be two, neither is used, and Destroy removes both.
func (t *Token) GenerateSigner(ctx context.Context, id hsm.ID, label string) (hsm.Ref, error) {
	if err := checkName(id, label); err != nil {
		return nil, err
	}
	var r ref
	err := t.alone(ctx, func(s *session) error {
		there, err := t.called(s, id)
		if err != nil {
			return err
		}
		if len(there.secret) > 0 {
			return fmt.Errorf("%w: the id %v is an AES key's", hsm.ErrNoKey, id)
		}
		if there.private, err = t.tidyInterrupted(s, there.private, id); err != nil {
			return err
		}
		if there, err = t.tidy(s, there); err != nil {
			return err
		}
		fresh := len(there.private) == 0
		if fresh {
			if there, err = t.makePair(s, id, label); err != nil {
				return err
			}
		}
		if n := max(len(there.private), len(there.public)); n > 1 {
			return duplicate(id, n)
		}
		r, err = t.signerRef(s, there, id, label)
		if fresh && err != nil && !errors.Is(err, hsm.ErrUnavailable) {
			// It was made a moment ago and nothing is signed with it, so that it can go.
			err = unavailable("making a key pair", err)
			for _, o := range there.all() {
				if derr := t.module.destroy(s.handle, o); derr != nil {
					return fmt.Errorf("%w; destroying it: %v", err, derr)
				}
			}
		}
		if err != nil {
			return err
		}
		if err := t.disk.sync(); err != nil {
			return err
		}
		t.settle(ctx, s, r, there.private[0])
		return nil
	})
	if err != nil {
		return nil, err
	}
	return r.bytes(), nil
}

// tidy destroys what of a signer can never have been used: objects that are half made, and, if no private key is left then, public ones. It
// returns what stays.
func (t *Token) tidy(s *session, there objects) (objects, error) {
	var stay objects
	var unused []p11.ObjectHandle
	for _, o := range there.private {
		if t.empty(s, o, p11.CKA_EC_PARAMS) {
			unused = append(unused, o)
		} else {
			stay.private = append(stay.private, o)
		}
	}
	for _, o := range there.public {
		if t.empty(s, o, p11.CKA_EC_POINT) || len(stay.private) == 0 {
			unused = append(unused, o)
		} else {
			stay.public = append(stay.public, o)
		}
	}
	if len(stay.private) > 0 && len(unused) == 0 {
		return stay, nil
	}
	// What is missing decides, so it has to be known that the token shows what it has: public objects are seen without a login, private ones
	// are not.
	if err := t.believe(s); err != nil {
		return objects{}, err
	}
	for _, o := range unused {
		if err := t.module.destroy(s.handle, o); err != nil && !stale(err) {
			return objects{}, err
		}
	}
	return stay, nil
}

// empty reports whether the token says that an attribute of an object, which every whole one has, is empty.
func (t *Token) empty(s *session, o p11.ObjectHandle, attribute uint) bool {
	read, err := t.module.attributes(s.handle, o, attribute)
	return err == nil && len(read[0].Value) == 0
}

// makePair makes a key pair and returns what is then called id.
func (t *Token) makePair(s *session, id hsm.ID, label string) (objects, error) {
	err := t.nicely(s, id, p11.CKM_ECDSA, func(extra []*p11.Attribute) error {
		return t.module.generatePair(publicTemplate(id, label), append(signerTemplate(id, label), extra...))
	})
	if err != nil {
		return objects{}, err
	}
	// To look shows also whether somebody else made one at the same time. See [Token.make].
	there, err := t.called(s, id)
	if err == nil && (len(there.private) == 0 || len(there.public) == 0) {
		err = fmt.Errorf("%w: the token made the key pair %v, but does not find both of it", hsm.ErrUnavailable, id)
	}
	return there, err
}

// signerRef sees that a private key is as it must be and signs as its public key says, and makes a public key if there is none.
func (t *Token) signerRef(s *session, there objects, id hsm.ID, label string) (ref, error) {
	private := there.private[0]
	if err := t.verify(s, private, signerPromises()); err != nil {
		return ref{}, err
	}
	r := ref{id: id}
	var err error
	if len(there.public) > 0 {
		r.point, err = t.readPoint(s, there.public[0])
	} else {
		r.point, err = t.recoverPoint(s, private, id)
	}
	if err != nil {
		return ref{}, err
	}
	if err := t.prove(s, private, r); err != nil {
		if another(err) {
			if perr := t.probe(s); perr != nil {
				return ref{}, perr
			}
		}
		return ref{}, fmt.Errorf("using a signer for the first time: %w", err)
	}
	if len(there.public) > 0 {
		return r, nil
	}
	template := append(publicTemplate(id, label), p11.NewAttribute(p11.CKA_EC_POINT, wrapPoint(r.point)))
	if _, err := t.module.create(s.handle, template); err != nil {
		return ref{}, unavailable("making the public key of a signer again", err)
	}
	return r, nil
}

// readPoint reads a public key. It is wrapped in an OCTET STRING (PKCS #11 v2.40, Current Mechanisms, section 2.3.3), but some tokens give the
// point as it is. The proof shows whether it was read correctly.
func (t *Token) readPoint(s *session, o p11.ObjectHandle) (point, error) {
	read, err := t.module.attributes(s.handle, o, p11.CKA_EC_POINT)
	if err != nil {
		return point{}, unavailable("reading the public key of a signer", err)
	}
	b := read[0].Value
	if len(b) != pointSize {
		var inner []byte
		if rest, err := asn1.Unmarshal(b, &inner); err == nil && len(rest) == 0 {
			b = inner
		}
	}
	if len(b) == pointSize {
		if p := point(b); p.valid() {
			return p, nil
		}
	}
	return point{}, fmt.Errorf("%w: the public key of a signer is no point on P-256", hsm.ErrNoKey)
}

func wrapPoint(p point) []byte { return append([]byte{asn1.TagOctetString, pointSize}, p[:]...) }

// PublicKey implements [hsm.Device]. The key is the one in the Ref, which the device is asked to prove that it holds the private key of, as
// before any other use, and therefore once: nothing that the token says of itself is trusted.
func (t *Token) PublicKey(ctx context.Context, signer hsm.Ref) ([]byte, error) {
	r, err := parseSigner(signer)
	if err != nil {
		return nil, err
	}
	if err := t.use(ctx, &r, func(*session, *key) error { return nil }); err != nil {
		return nil, err
	}
	public, err := r.point.key()
	if err != nil {
		return nil, err
	}
	return x509.MarshalPKIXPublicKey(public)
}

// Sign implements [hsm.Device].
func (t *Token) Sign(ctx context.Context, signer hsm.Ref, digest [32]byte) ([]byte, error) {
	r, err := parseSigner(signer)
	if err != nil {
		return nil, err
	}
	var answer []byte
	err = t.use(ctx, &r, func(s *session, k *key) error {
		answer, err = t.sign(s, k.handle, r, digest)
		return err
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// sign signs with o, and sees that the key of r did it: if not, the error is hsm.ErrNoKey, and [Token.use] finds out what o is now.
func (t *Token) sign(s *session, o p11.ObjectHandle, r ref, digest [32]byte) ([]byte, error) {
	rs, err := t.signature(s, o, digest)
	if err != nil {
		return nil, err
	}
	public, err := r.point.key()
	if err != nil {
		return nil, err
	}
	der, err := asn1.Marshal(rs)
	if err != nil {
		return nil, err
	}
	if !ecdsa.VerifyASN1(public, digest[:], der) {
		return nil, fmt.Errorf("%w: the signature is not that of %v", hsm.ErrNoKey, r.id)
	}
	return der, nil
}

// A signature is an Ecdsa-Sig-Value (RFC 3279, section 2.2.3).
type signature struct{ R, S *big.Int }

// signature signs with o, whatever key that is. CKM_ECDSA gives r ‖ s (PKCS #11 v2.40, Current Mechanisms, section 2.3.1).
func (t *Token) signature(s *session, o p11.ObjectHandle, digest [32]byte) (signature, error) {
	b, err := t.module.sign(s.handle, o, digest[:])
	if err != nil {
		return signature{}, err
	}
	if len(b) != 2*32 {
		return signature{}, wrongLength("C_Sign", len(b))
	}
	return signature{new(big.Int).SetBytes(b[:32]), new(big.Int).SetBytes(b[32:])}, nil
}

// proveSigner is [Token.prove] for signers.
func (t *Token) proveSigner(s *session, o p11.ObjectHandle, r ref) error {
	_, err := t.sign(s, o, r, challenge(r.id))
	return err
}

// challenge is a digest for a proof. It is that of a text that begins with what it is for, so that the signature is worth nothing elsewhere,
// and ends in random bytes of this host, so that a signature of another time proves nothing.
func challenge(id hsm.ID) [32]byte {
	text := append([]byte("strongroom signer proof v1"), id[:]...) // of fixed lengths
	text = append(text, make([]byte, 16)...)
	rand.Read(text[len(text)-16:])
	return sha256.Sum256(text)
}

// recoverPoint computes the public key of a private one from what it signs. Two keys fit a signature, one fits two.
func (t *Token) recoverPoint(s *session, private p11.ObjectHandle, id hsm.ID) (point, error) {
	digest := challenge(id)
	first, err := t.signature(s, private, digest)
	if err != nil {
		return point{}, unavailable("computing the public key of a signer", err)
	}
	for _, p := range candidates(first, digest) {
		err := t.proveSigner(s, private, ref{id: id, proof: proof{point: p}})
		if err == nil {
			return p, nil
		}
		if !errors.Is(err, hsm.ErrNoKey) {
			return point{}, unavailable("computing the public key of a signer", err)
		}
	}
	return point{}, &Error{Function: "C_Sign", Kind: hsm.ErrUnavailable, Detail: "no key on P-256 fits the signatures of a signer without a public key"}
}
