package kms

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"strongroom/hsm"
)

// A ciphertext, version 1, is
//
//	 0      1   version = 1
//	 1      1   algorithm: 1 = AES-256-GCM, IV 12 bytes, tag 16 bytes
//	 2      1   key id kind: 0 = UUID, 1 = mrk-
//	 3     16   key id
//	19     16   material id
//	35     12   IV
//	47      n   ciphertext, 1 to 4096 bytes
//	47+n   16   tag
//
// A plaintext thus grows by 63 bytes. What a released version wrote opens for ever; golden files prove it.
const (
	ciphertextVersion = 1
	algAES256GCM      = 1
	headerSize        = 35
	ciphertextMin     = headerSize + hsm.Overhead + 1
	ciphertextMax     = headerSize + hsm.Overhead + hsm.MaxPlaintext
)

// A header says which key and which material a ciphertext is sealed under. All of it is authenticated.
type header struct {
	key      KeyID
	material hsm.ID
}

// errCiphertext is the one error for every way in which a ciphertext can be wrong, so that none tells what was right.
var errCiphertext = errorf(InvalidCiphertext, "")

// append writes the header as bytes 0 to 34.
func (h header) append(b []byte) []byte {
	b = append(b, ciphertextVersion, algAES256GCM, byte(h.key.kind))
	b = append(b, h.key.bytes[:]...)
	return append(b, h.material[:]...)
}

// parseCiphertext takes a ciphertext apart: its header, and IV ‖ ciphertext ‖ tag as the device wants them. It accepts exactly what
// append and the device write, as far as that can be told without the key.
func parseCiphertext(blob []byte) (h header, sealed []byte, err error) {
	if len(blob) < ciphertextMin || len(blob) > ciphertextMax {
		return header{}, nil, errCiphertext
	}
	if blob[0] != ciphertextVersion || blob[1] != algAES256GCM || blob[2] > byte(kindMultiRegion) {
		return header{}, nil, errCiphertext
	}
	h.key.kind = keyKind(blob[2])
	copy(h.key.bytes[:], blob[3:19])
	copy(h.material[:], blob[19:35])
	return h, blob[headerSize:], nil
}

// associatedData returns what AES-GCM authenticates with the ciphertext:
//
//	"strongroom ciphertext v1" ‖ bytes 0 to 34 of the ciphertext ‖ SHA-256(context)
//
// where context is the encryption context's pairs in ascending byte order of the name, each name and each value preceded by
// its length in 4 bytes, big endian. The label and the header have fixed lengths and every field of the context carries its own, so no two
// inputs encode alike: {"a": "bc"} is not {"ab": "c"}. No context and an empty one are the same, as in AWS KMS. The result is
// always 91 bytes: never empty, which SoftHSM 2.6.1 can abort on, and small enough for every HSM.
func associatedData(h header, context map[string]string) []byte {
	var few [8]string
	names := few[:0]
	for name := range context {
		names = append(names, name)
	}
	slices.Sort(names)
	var short [512]byte
	text := short[:0]
	for _, name := range names {
		text = appendField(text, name)
		text = appendField(text, context[name])
	}
	sum := sha256.Sum256(text)
	b := make([]byte, 0, len(ciphertextLabel)+headerSize+sha256.Size)
	b = append(b, ciphertextLabel...)
	b = h.append(b)
	return append(b, sum[:]...)
}

const ciphertextLabel = "strongroom ciphertext v1"

// appendField appends the length of a string, which a request of at most 200,000 bytes keeps far below 2^32, and the string.
func appendField(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

// seal encrypts plaintext, of 1 to 4096 bytes, under the key's current material. It is the only place that encrypts under one.
func (k *openKey) seal(ctx context.Context, plaintext []byte, encryptionContext map[string]string) ([]byte, error) {
	if err := k.spend(ctx); err != nil {
		return nil, err
	}
	m := k.current()
	h := header{k.ID, m.ID}
	blob := h.append(make([]byte, 0, headerSize+hsm.Overhead+len(plaintext)))
	blob, err := k.service.device.Seal(ctx, m.Ref, blob, plaintext, associatedData(h, encryptionContext))
	if err != nil {
		return nil, deviceError(err)
	}
	return blob, nil
}

// unseal decrypts what seal returned, given the parts that parseCiphertext took it into. The caller wipes the result.
func (k *openKey) unseal(ctx context.Context, h header, sealed []byte, encryptionContext map[string]string) ([]byte, error) {
	m := k.material(h.material)
	if h.key != k.ID || m == nil {
		return nil, errCiphertext
	}
	plaintext, err := k.service.device.Open(ctx, m.Ref, make([]byte, 0, len(sealed)), sealed, associatedData(h, encryptionContext))
	if err != nil {
		return nil, deviceError(err)
	}
	return plaintext, nil
}

// openCiphertext passes the gate for the key that a ciphertext is sealed under, and for no other. keyID is what the request calls
// that key, or empty to take it from the ciphertext's header.
//
// A header that was tampered with names a key and a material that do not belong together, and is an invalid ciphertext. A whole header of a key
// that is not the request's is IncorrectKey; one of a key that was never here, is gone, or is another account's is refused in words that fit
// all three.
func (s *Service) openCiphertext(ctx context.Context, who Caller, a access, h header) (*openKey, error) {
	key, err := s.openHeader(ctx, who, a, h)
	if err != errNoMaterial {
		return key, err
	}
	// Another node may have rotated the key a moment ago, and what it encrypts since must open here: look at the key as it is now.
	s.keys.forget(h.key)
	if _, err := s.readKey(ctx, h.key, false); err != nil && !isNotStored(err) {
		return nil, err
	}
	if key, err = s.openHeader(ctx, who, a, h); err == errNoMaterial {
		err = errCiphertext
	}
	return key, err
}

// errNoMaterial says that the key of a ciphertext may be used, and that the ciphertext's material is not known to be one of its.
var errNoMaterial = errorf(InvalidCiphertext, "")

// openHeader passes the gate with the key as it is remembered.
func (s *Service) openHeader(ctx context.Context, who Caller, a access, h header) (*openKey, error) {
	// A bare key id is looked for in the caller's account, but here it may also mean the key of another one that the ciphertext names [API, Decrypt: KeyId].
	// Who may not use that one is told what they would be told if it were not there.
	if id, err := ParseKeyID(a.keyID); err == nil && id == h.key {
		if key, err := s.key(ctx, id); err == nil && key.Account != who.Account {
			full := a
			full.keyID = s.keyARN(key.Account, id)
			noted := who.trail.noted()
			if k, err := s.openHeader(ctx, who, full, h); !errors.Is(err, AccessDenied) {
				return k, err
			}
			who.trail.forget(noted) // the record says no more than the answer
		}
	}
	if a.keyID != "" {
		a.check = func(key *Key) error {
			switch {
			case key.material(h.material) != nil && key.ID == h.key:
				return nil
			case key.ID == h.key:
				return errNoMaterial
			case key.material(h.material) != nil:
				return errCiphertext
			}
			return errorf(IncorrectKey, "The key ID in the request does not identify a CMK that can perform this operation.")
		}
		return s.open(ctx, who, a)
	}
	if err := checkGrantTokens(a.grantTokens); err != nil {
		return nil, err
	}
	key, err := s.key(ctx, h.key)
	if isNotStored(err) {
		return nil, s.refuseUnknown(ctx, who, a.action, h)
	}
	if err != nil {
		return nil, err
	}
	a.fromCiphertext = true
	a.check = func(key *Key) error {
		if key.material(h.material) == nil {
			return errNoMaterial
		}
		return nil
	}
	return s.openResolved(ctx, who, a, key)
}

// refuseUnknown refuses a ciphertext whose key id is unknown. If its material is one of the caller's account, the id was tampered with.
func (s *Service) refuseUnknown(ctx context.Context, who Caller, action string, h header) error {
	var owner *Key
	err := s.store.View(ctx, func(tx Tx) error {
		id, err := tx.KeyOfMaterial(h.material)
		if err != nil {
			return err
		}
		owner, err = tx.Key(id)
		return err
	})
	if err != nil && !isNotStored(err) {
		return err
	}
	// An owner of that very id is being destroyed: nothing is wrong with the ciphertext.
	if err == nil && owner.Account == who.Account && owner.ID != h.key {
		return errCiphertext
	}
	return s.denyCiphertext(who, action, fmt.Sprintf("there is no key %s", h.key))
}
