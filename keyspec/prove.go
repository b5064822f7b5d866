package keyspec

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	secpdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"github.com/emmansun/gmsm/sm2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Prove returns nil if public and private are the two halves of one pair of the given spec, and the pair works. An error says
// which of these did not hold, and nothing of the keys.
//
// Both halves must be encoded as [Spec.Generate] encodes them, to the byte: DER has one encoding for each value, and what is
// optional in the structures is here either always there or never. So no second private key passes for a given public key,
// except RSA's, whose two primes may change places and whose private exponent is determined only modulo lcm(p-1, q-1).
//
// Working means that what the private half signs, the public half verifies: RSASSA-PSS with SHA-256, ECDSA with SHA-256,
// SHA-384 or SHA-512 as AWS has it for the curve, Ed25519, SM2 with the default user ID. RSA (OAEP with SHA-256) and SM2
// (ciphertext in ASN.1) also decrypt with the private half what the public one encrypted.
//
// Prove is made for bytes that nobody vouches for: it does not panic, and its work is bounded by the spec. Whether RSA's
// factors are prime is not asked; with others, signing fails. What it copies of the private key it wipes as far as
// [Spec.Generate] does.
func Prove(spec Spec, public, private []byte) error {
	r, err := spec.row()
	if err != nil {
		return err
	}
	pub, err := r.openPublic(public)
	if err != nil {
		return fmt.Errorf("public key: %w", err)
	}
	priv, err := r.openPrivate(private)
	if err != nil {
		return fmt.Errorf("private key: %w", err)
	}
	return r.keys.prove(pub, priv)
}

// openPublic is the inverse of sealPublic.
func (r *row) openPublic(der []byte) ([]byte, error) {
	in, info, alg := cryptobyte.String(der), cryptobyte.String(nil), cryptobyte.String(nil)
	if !in.ReadASN1(&info, asn1.SEQUENCE) || !info.ReadASN1Element(&alg, asn1.SEQUENCE) {
		return nil, errors.New("not a SubjectPublicKeyInfo in DER")
	}
	if err := r.checkAlgorithm(alg); err != nil {
		return nil, err
	}
	var public []byte
	if !info.ReadASN1BitStringAsBytes(&public) {
		return nil, errors.New("not a SubjectPublicKeyInfo in DER")
	}
	if !info.Empty() || !in.Empty() {
		return nil, errTrailing
	}
	return public, nil
}

// openPrivate is the inverse of sealPrivate. The result shares memory with der.
func (r *row) openPrivate(der []byte) ([]byte, error) {
	in, info, alg := cryptobyte.String(der), cryptobyte.String(nil), cryptobyte.String(nil)
	var version uint64
	if !in.ReadASN1(&info, asn1.SEQUENCE) || !info.ReadASN1Integer(&version) {
		return nil, errors.New("not PKCS #8 in DER")
	}
	if version != 0 {
		return nil, fmt.Errorf("version is %d, want 0", version)
	}
	if !info.ReadASN1Element(&alg, asn1.SEQUENCE) {
		return nil, errors.New("not PKCS #8 in DER")
	}
	if err := r.checkAlgorithm(alg); err != nil {
		return nil, err
	}
	var private cryptobyte.String
	if !info.ReadASN1(&private, asn1.OCTET_STRING) {
		return nil, errors.New("not PKCS #8 in DER")
	}
	if !info.Empty() || !in.Empty() {
		return nil, errTrailing
	}
	return private, nil
}

var errTrailing = errors.New("more bytes follow the key")

// checkAlgorithm returns nil if alg is r's AlgorithmIdentifier, and otherwise says whose it is.
func (r *row) checkAlgorithm(alg []byte) error {
	if bytes.Equal(alg, r.algorithm) {
		return nil
	}
	for _, s := range All() {
		if bytes.Equal(alg, table[s].algorithm) {
			return fmt.Errorf("algorithm is that of %v, want %s", s, r.name)
		}
	}
	return fmt.Errorf("algorithm is not that of %s", r.name)
}

// What halves that are well formed can still fail in.
var (
	errOther     = errors.New("the private key belongs to another public key")
	errSignature = errors.New("the public key does not verify what the private key signed")
	errCipher    = errors.New("the private key does not decrypt what the public key encrypted")
)

// newMessage returns something to sign and to encrypt that no key has met before.
func newMessage() []byte {
	m := make([]byte, 32)
	rand.Read(m)
	return m
}

func (k rsaKeys) prove(public, private []byte) error {
	pub, err := k.parsePublic(public)
	if err != nil {
		return fmt.Errorf("public key: %w", err)
	}
	key, err := k.parsePrivate(private)
	if err != nil {
		return fmt.Errorf("private key: %w", err)
	}
	defer wipeRSA(key)
	if !key.PublicKey.Equal(pub) {
		return errOther
	}

	m := newMessage()
	digest := sha256.Sum256(m)
	pss := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
	sig, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:], pss)
	if err != nil {
		return fmt.Errorf("private key: sign: %w", err)
	}
	if rsa.VerifyPSS(pub, crypto.SHA256, digest[:], sig, pss) != nil {
		return errSignature
	}
	sealed, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, pub, m, nil)
	if err != nil {
		return fmt.Errorf("public key: encrypt: %w", err)
	}
	opened, err := rsa.DecryptOAEP(sha256.New(), nil, key, sealed, nil)
	if err != nil || !bytes.Equal(opened, m) {
		return errCipher
	}
	return nil
}

// parsePublic is the inverse of encodePublic.
func (k rsaKeys) parsePublic(der []byte) (*rsa.PublicKey, error) {
	in, seq := cryptobyte.String(der), cryptobyte.String(nil)
	if !in.ReadASN1(&seq, asn1.SEQUENCE) {
		return nil, errors.New("not an RSAPublicKey in DER")
	}
	pub, err := k.readPublic(&seq)
	if err != nil {
		return nil, err
	}
	if !seq.Empty() || !in.Empty() {
		return nil, errTrailing
	}
	return pub, nil
}

// readPublic reads n and e, which stand next to each other in both halves.
func (k rsaKeys) readPublic(seq *cryptobyte.String) (*rsa.PublicKey, error) {
	var n, e big.Int
	if !seq.ReadASN1Integer(&n) || !seq.ReadASN1Integer(&e) {
		return nil, errors.New("no modulus and exponent in DER")
	}
	if n.Sign() <= 0 || n.BitLen() != k.bits {
		return nil, fmt.Errorf("modulus has %d bits, want %d", n.BitLen(), k.bits)
	}
	if e.Cmp(big.NewInt(rsaExponent)) != 0 {
		return nil, fmt.Errorf("public exponent is not %d", rsaExponent)
	}
	return &rsa.PublicKey{N: &n, E: rsaExponent}, nil
}

// parsePrivate is the inverse of encodePrivate. It checks that all numbers of the key agree; the caller wipes them.
func (k rsaKeys) parsePrivate(der []byte) (*rsa.PrivateKey, error) {
	in, seq := cryptobyte.String(der), cryptobyte.String(nil)
	var version uint64
	if !in.ReadASN1(&seq, asn1.SEQUENCE) || !seq.ReadASN1Integer(&version) {
		return nil, errors.New("not an RSAPrivateKey in DER")
	}
	if version != 0 {
		return nil, fmt.Errorf("RSAPrivateKey has version %d, want 0", version)
	}
	pub, err := k.readPublic(&seq)
	if err != nil {
		return nil, err
	}

	// The numbers are read as slices of der, which makes no copy. None is longer than the modulus, which bounds the work.
	var secret [6][]byte
	for i := range secret {
		if !seq.ReadASN1Integer(&secret[i]) || len(secret[i]) > k.bits/8 {
			return nil, errors.New("secret numbers are not those of an RSAPrivateKey in DER")
		}
	}
	if !seq.Empty() || !in.Empty() {
		return nil, errTrailing
	}
	key := &rsa.PrivateKey{PublicKey: *pub, D: new(big.Int).SetBytes(secret[0])}
	key.Primes = []*big.Int{new(big.Int).SetBytes(secret[1]), new(big.Int).SetBytes(secret[2])}
	key.Precomputed.Dp = new(big.Int).SetBytes(secret[3])
	key.Precomputed.Dq = new(big.Int).SetBytes(secret[4])
	key.Precomputed.Qinv = new(big.Int).SetBytes(secret[5])
	if err := k.check(key); err != nil {
		wipeRSA(key)
		return nil, err
	}
	return key, nil
}

// check returns nil if the numbers of key agree with each other.
//
// crypto/rsa checks most of it, but only that p*q is a multiple of n. Even with n odd that leaves room for an even p, and then
// for a panic when the key is used. So the product is compared here, and with it the sizes that FIPS 186-5, Appendix A.1.1
// requires of p and q.
func (k rsaKeys) check(key *rsa.PrivateKey) error {
	for _, prime := range key.Primes {
		if prime.BitLen() != k.bits/2 {
			return fmt.Errorf("a factor has %d bits, want %d", prime.BitLen(), k.bits/2)
		}
	}
	if new(big.Int).Mul(key.Primes[0], key.Primes[1]).Cmp(key.N) != 0 {
		return errors.New("the modulus is not the product of the factors")
	}
	key.Precompute() // so that Validate has something to keep: without it, each use would check again
	if err := key.Validate(); err != nil {
		return fmt.Errorf("numbers do not agree: %w", err)
	}
	return nil
}

func (k ecKeys) prove(public, private []byte) error {
	if len(public) != 1+2*k.size || public[0] != 4 {
		return errors.New("public key: not an uncompressed point of this curve")
	}
	d, inner, err := k.parsePrivate(private)
	if err != nil {
		return fmt.Errorf("private key: %w", err)
	}
	point, err := k.curve.point(d)
	if err != nil {
		return fmt.Errorf("private key: scalar: %w", err)
	}
	if !bytes.Equal(inner, point) {
		return errors.New("private key: the public key inside it belongs to another private key")
	}
	if !bytes.Equal(public, point) {
		return errOther
	}
	return k.curve.prove(d, public)
}

// parsePrivate is the inverse of encodePrivate. The results share memory with der.
func (k ecKeys) parsePrivate(der []byte) (d, point []byte, err error) {
	in, seq := cryptobyte.String(der), cryptobyte.String(nil)
	var version uint64
	if !in.ReadASN1(&seq, asn1.SEQUENCE) || !seq.ReadASN1Integer(&version) {
		return nil, nil, errors.New("not an ECPrivateKey in DER")
	}
	if version != 1 {
		return nil, nil, fmt.Errorf("ECPrivateKey has version %d, want 1", version)
	}
	var scalar, outer cryptobyte.String
	if !seq.ReadASN1(&scalar, asn1.OCTET_STRING) {
		return nil, nil, errors.New("not an ECPrivateKey in DER")
	}
	if len(scalar) != k.size {
		return nil, nil, fmt.Errorf("scalar has %d bytes, want %d", len(scalar), k.size)
	}
	if !seq.ReadASN1(&outer, publicKeyTag) || !outer.ReadASN1BitStringAsBytes(&point) {
		return nil, nil, errors.New("no public key after the scalar")
	}
	if !outer.Empty() || !seq.Empty() || !in.Empty() {
		return nil, nil, errTrailing
	}
	return scalar, point, nil
}

func (c nist) prove(d, point []byte) error {
	key, err := ecdsa.ParseRawPrivateKey(c.ecdsa, d)
	if err != nil {
		return fmt.Errorf("private key: %w", err)
	}
	defer wipeECDSA(key)
	pub, err := ecdsa.ParseUncompressedPublicKey(c.ecdsa, point)
	if err != nil {
		return fmt.Errorf("public key: %w", err)
	}
	h := c.hash.New()
	h.Write(newMessage())
	digest := h.Sum(nil)
	sig, err := ecdsa.SignASN1(rand.Reader, key, digest)
	if err != nil {
		return fmt.Errorf("private key: sign: %w", err)
	}
	if !ecdsa.VerifyASN1(pub, digest, sig) {
		return errSignature
	}
	return nil
}

// wipeECDSA overwrites the scalar of a key. The key is of no use afterwards.
func wipeECDSA(key *ecdsa.PrivateKey) {
	//lint:ignore SA1019 the scalar may no longer be changed because the key would break; here it must
	clear(key.D.Bits())
}

func (c secg) prove(d, point []byte) error {
	key, err := c.scalar(d)
	if err != nil {
		return fmt.Errorf("private key: %w", err)
	}
	defer key.Zero()
	pub, err := secp256k1.ParsePubKey(point)
	if err != nil {
		return errors.New("public key: not a point of this curve")
	}
	digest := sha256.Sum256(newMessage())
	if !secpdsa.Sign(key, digest[:]).Verify(digest[:], pub) {
		return errSignature
	}
	return nil
}

func (shangmi) prove(d, point []byte) error {
	key, err := sm2.NewPrivateKey(d)
	if err != nil {
		return fmt.Errorf("private key: %w", err)
	}
	defer wipeECDSA(&key.PrivateKey)
	pub, err := sm2.NewPublicKey(point)
	if err != nil {
		return fmt.Errorf("public key: %w", err)
	}
	m := newMessage()
	sig, err := key.SignWithSM2(rand.Reader, nil, m) // nil is the default user ID, 1234567812345678
	if err != nil {
		return fmt.Errorf("private key: sign: %w", err)
	}
	if !sm2.VerifyASN1WithSM2(pub, nil, m, sig) {
		return errSignature
	}
	sealed, err := sm2.EncryptASN1(rand.Reader, pub, m)
	if err != nil {
		return fmt.Errorf("public key: encrypt: %w", err)
	}
	opened, err := sm2.Decrypt(key, sealed)
	if err != nil || !bytes.Equal(opened, m) {
		return errCipher
	}
	return nil
}

func (ed25519Keys) prove(public, private []byte) error {
	if len(public) != ed25519.PublicKeySize {
		return fmt.Errorf("public key: has %d bytes, want %d", len(public), ed25519.PublicKeySize)
	}
	in, seed := cryptobyte.String(private), cryptobyte.String(nil)
	if !in.ReadASN1(&seed, asn1.OCTET_STRING) || !in.Empty() || len(seed) != ed25519.SeedSize {
		return errors.New("private key: not a CurvePrivateKey of Ed25519 in DER")
	}
	key := ed25519.NewKeyFromSeed(seed)
	defer clear(key)
	if !bytes.Equal(key.Public().(ed25519.PublicKey), public) {
		return errOther
	}
	m := newMessage()
	if !ed25519.Verify(public, m, ed25519.Sign(key, m)) {
		return errSignature
	}
	return nil
}
