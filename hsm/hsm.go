// Package hsm is the contract between Strongroom and a hardware security module.
//
// A [Device] keeps AES-256 keys that never leave it and does three things with them: seal, open, destroy. It also keeps signers, which
// are ECDSA P-256 key pairs whose private keys never leave it, and signs with them. Keys are named twice: by an [ID] that the caller chooses
// before the key exists, so that an interrupted creation can be repeated or undone, and by a [Ref] that the device answers with, which is all
// that the caller needs to keep in order to use the key.
//
// The package knows nothing of what a key is for, who may use it, or how a device is reached. It holds no cgo.
// Implementations are the packages below it; hsm/hsmtest is the suite that each of them must pass.
package hsm

import (
	"context"
	"encoding/hex"
	"errors"
)

// Sizes of AES-256-GCM as every device here is used (NIST SP 800-38D, sections 5.2.1.1 and 8.2.2): a 96-bit IV, a 128-bit
// tag, and what the two add to a plaintext.
const (
	IVSize   = 12
	TagSize  = 16
	Overhead = IVSize + TagSize
)

// MaxPlaintext is the largest plaintext, in bytes, that a Device must accept. Callers send no more.
const MaxPlaintext = 4096

// MaxAAD is the largest associated data, in bytes, that a Device must accept. Some HSMs allow little; SoftHSM 2.6.1 can abort
// on none, so the smallest is one byte.
const MaxAAD = 256

// The three ways in which a device fails, because callers do three different things about them. Every error of a Device
// wraps exactly one of these, or is the context's error, or says that the call itself was wrong.
var (
	// ErrUnavailable means that the device did not do its work now and may later: it is away, busy, or its answer cannot
	// be trusted. Nothing is known about keys or ciphertexts.
	ErrUnavailable = errors.New("hsm unavailable")

	// ErrNoKey means that a working device does not hold the key, or holds another one in its place.
	ErrNoKey = errors.New("hsm holds no such key")

	// ErrRejected means that a working device found a ciphertext, its associated data or its key not to belong together.
	ErrRejected = errors.New("hsm rejected the ciphertext")
)

// ID names a key before it exists. It is random, chosen by the caller, and used once.
type ID [16]byte

// String returns id in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Ref is a device's own name for a key, at most 256 bytes, to be kept by the caller as long as the key. Only the device that
// made it knows what is in it. It carries enough for the device to prove that the key it finds is the key that was meant.
// It is not secret.
type Ref []byte

// An Object is a key that was found on a device.
type Object struct {
	ID    ID
	Label string
}

// A Device seals and opens with AES-256-GCM, and signs with ECDSA, under keys that it does not give away. It is safe for concurrent use.
//
// A Ref is good for the kind of key that it was made for. Given to a method for the other kind it is ErrNoKey, and so is an ID that is
// given to Generate and GenerateSigner both.
//
// A context bounds the wait for the device; a call that the device has begun may still take effect after the context ended.
// Every method may be repeated after an error.
type Device interface {
	// Generate makes the AES-256 key called id and returns its Ref. If a key called id is there already, made by an
	// earlier Generate whose answer was lost, Generate returns a Ref for that one. When Generate returns nil, the key
	// is durable, non-extractable, and has been proved to work. What an interrupted Generate left half made, which never worked for
	// anybody, is made anew by the next one with the same id.
	Generate(ctx context.Context, id ID, label string) (Ref, error)

	// GenerateSigner makes the ECDSA P-256 key pair called id, whose private key never leaves the device, and returns its Ref. As Generate:
	// repeatable with the same id after a lost answer; when it returns nil the key is durable, non-extractable and has been proved to
	// sign. What an interrupted GenerateSigner left half made is completed or made anew by the next one with the same id.
	GenerateSigner(ctx context.Context, id ID, label string) (Ref, error)

	// PublicKey returns the public key of a signer that the device holds as a SubjectPublicKeyInfo (RFC 5280, 4.1.2.7) in DER.
	PublicKey(ctx context.Context, signer Ref) ([]byte, error)

	// Sign signs a SHA-256 digest and returns the signature as an ASN.1 DER Ecdsa-Sig-Value (RFC 3279, 2.2.3). It was verified under the public
	// key of the signer. Two signatures of one digest differ.
	Sign(ctx context.Context, signer Ref, digest [32]byte) ([]byte, error)

	// Destroy destroys the key called id, of either kind, for ever. It is no error if a device that is known to be working holds no such
	// key; a device that merely finds nothing and cannot be trusted answers ErrUnavailable.
	Destroy(ctx context.Context, id ID) error

	// Seal encrypts plaintext (1 to MaxPlaintext bytes) under key with associated data aad (1 to MaxAAD bytes) and
	// appends IV ‖ ciphertext ‖ tag to dst: Overhead bytes more than the plaintext. The IV is fresh and random for each call,
	// whoever made it. Where a device repeats its work after a failure, it may have used the key several times for the one answer that it gives, and
	// bounds how often. dst must not overlap plaintext.
	Seal(ctx context.Context, key Ref, dst, plaintext, aad []byte) ([]byte, error)

	// Open reverses Seal and appends the plaintext to dst. It returns ErrRejected, and nothing of the plaintext, unless
	// sealed and aad are exactly what Seal was given and gave. dst must not overlap sealed. Where the result
	// does not fit into dst, the new array holds the only copy; the caller wipes it.
	Open(ctx context.Context, key Ref, dst, sealed, aad []byte) ([]byte, error)

	// Random fills p with bytes of the device's random number generator.
	Random(ctx context.Context, p []byte) error

	// Check returns nil if the device works now: it encrypts and decrypts with a canary key that serves nothing else.
	Check(ctx context.Context) error

	// Objects lists the keys on the device that were made by this program, in no order: each id once, also that of a key pair, or of what is
	// left of one.
	Objects(ctx context.Context) ([]Object, error)
}
