package pkcs11

import (
	"context"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// A module is one token as reached through its library: what a [Token] asks of PKCS #11. [library] is the real one; tests have
// one that misbehaves. Errors are [*Error], from [fault].
//
// Everything but find, attributes, generate, generateOn, generatePair, create, duplicate and destroy may be called at any time, with different sessions. Those
// eight are called by one goroutine at a time: SoftHSM answers wrongly now and then when it has to do two of them at once.
type module interface {
	info() (Info, uint, error)   // the token's description and its flags (CKF_*)
	sessionLimit() (uint, error) // 0 if there is none, or it is not known
	mechanisms() ([]uint, error)

	openSession() (p11.SessionHandle, error) // for reading and writing
	closeSession(p11.SessionHandle) error
	sessionState(p11.SessionHandle) (uint, error)
	login(s p11.SessionHandle, pin []byte) error

	find(s p11.SessionHandle, template []*p11.Attribute) ([]p11.ObjectHandle, error) // all of them
	attributes(s p11.SessionHandle, o p11.ObjectHandle, types ...uint) ([]*p11.Attribute, error)
	generate(template []*p11.Attribute) error
	generateOn(s p11.SessionHandle, template []*p11.Attribute) (p11.ObjectHandle, error)
	generatePair(public, private []*p11.Attribute) error // ECDSA on P-256
	create(s p11.SessionHandle, template []*p11.Attribute) (p11.ObjectHandle, error)
	duplicate(s p11.SessionHandle, o p11.ObjectHandle) (p11.ObjectHandle, error) // to an object of the session
	destroy(s p11.SessionHandle, o p11.ObjectHandle) error
	random(ctx context.Context, p []byte) error

	// encrypt and decrypt are AES-GCM in one part. See [functions]. Keys are used through the function encrypt, which knows how the device wants IVs.
	encrypt(s p11.SessionHandle, key p11.ObjectHandle, iv *[hsm.IVSize]byte, out, plaintext, aad []byte) (n int, moved bool, err error)
	decrypt(s p11.SessionHandle, key p11.ObjectHandle, iv *[hsm.IVSize]byte, out, ciphertext, aad []byte) (int, error)

	// sign is CKM_ECDSA: it signs digest as it is, and returns r ‖ s, each as long as the order of the curve.
	sign(s p11.SessionHandle, key p11.ObjectHandle, digest []byte) ([]byte, error)

	close() error // no call may be in progress, nor begin
}
