package pkcs11

/*
#cgo linux LDFLAGS: -ldl
#cgo noescape strongroom_gcm
#cgo nocallback strongroom_gcm
#cgo noescape strongroom_login
#cgo nocallback strongroom_login

#include <stdlib.h>
#include "gcm.h"
*/
import "C"

import (
	"fmt"
	"unsafe"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// functions are the module's own functions, called without a library between: AES-GCM, because a failed Decrypt of
// miekg/pkcs11 leaks its buffer and a successful one frees the plaintext unwiped, and C_Login, because its Login does that to
// the PIN.
//
// Go memory is handed to the module as it is, so that there is no copy to wipe. None of it holds Go pointers, and the
// structures that point to it are on the C stack, so the rules of cgo are kept.
type functions struct {
	list *C.strongroom_functions
}

// load loads the module at path.
func load(path string) (functions, error) {
	cpath := C.CString(path)
	defer C.free(unsafe.Pointer(cpath))
	var why *C.char
	list := C.strongroom_load(cpath, &why)
	if list == nil {
		defer C.free(unsafe.Pointer(why))
		return functions{}, fmt.Errorf("cannot load the PKCS#11 module %s: %s", path, C.GoString(why))
	}
	return functions{list}, nil
}

// login is C_Login as the normal user.
func (f functions) login(s p11.SessionHandle, pin []byte) error {
	return fault("C_Login", result(C.strongroom_login(f.list, C.ulong(s), bytes(pin), C.ulong(len(pin)))))
}

// encrypt seals plaintext under key into out, and returns how much of it was written. The device is given iv, or NULL if iv is nil, and a device that
// makes its own IV may write it there. If it leads the parameters to memory of its own instead, the IV in that memory is copied to iv, and moved
// is true. See [encrypt] for what is to be made of this.
func (f functions) encrypt(s p11.SessionHandle, key p11.ObjectHandle, iv *[hsm.IVSize]byte, out, plaintext, aad []byte) (n int, moved bool, err error) {
	return f.gcm(1, s, key, iv, out, plaintext, aad)
}

// decrypt opens ciphertext (with its tag) into out, which is at least as long, and returns how much of it was written.
func (f functions) decrypt(s p11.SessionHandle, key p11.ObjectHandle, iv *[hsm.IVSize]byte, out, ciphertext, aad []byte) (int, error) {
	n, _, err := f.gcm(0, s, key, iv, out, ciphertext, aad)
	return n, err
}

func (f functions) gcm(encrypt C.int, s p11.SessionHandle, key p11.ObjectHandle, iv *[hsm.IVSize]byte, out, in, aad []byte) (int, bool, error) {
	n := C.ulong(len(out))
	var began, moved C.int
	rv := C.strongroom_gcm(f.list, encrypt, C.ulong(s), C.ulong(key), (*C.uchar)(unsafe.Pointer(iv)),
		bytes(aad), C.ulong(len(aad)), bytes(in), C.ulong(len(in)), bytes(out), &n, &began, &moved)
	if rv != 0 {
		return 0, false, fault(gcmFunctions[encrypt][began], result(rv))
	}
	wrong := func(what string) error {
		return &Error{Function: gcmFunctions[encrypt][began], Kind: hsm.ErrUnavailable, Detail: what}
	}
	if n > C.ulong(len(out)) {
		return 0, false, wrong("the module says that it wrote more than there was room for")
	}
	if moved < 0 {
		return 0, false, wrong("the module put something else than an IV of 12 bytes into the parameters")
	}
	return int(n), moved == 1, nil
}

var gcmFunctions = [2][2]string{{"C_DecryptInit", "C_Decrypt"}, {"C_EncryptInit", "C_Encrypt"}}

// bytes is where b is. The module gets a valid pointer even for no bytes.
func bytes(b []byte) *C.uchar {
	if len(b) == 0 {
		b = none[:]
	}
	return (*C.uchar)(unsafe.SliceData(b))
}

var none [1]byte

// result makes an error of a CK_RV.
func result(rv C.ulong) error {
	if rv == 0 {
		return nil
	}
	return p11.Error(rv)
}
