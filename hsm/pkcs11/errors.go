package pkcs11

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// ErrPIN is what a refused PIN is: wrong, locked, expired, or never set. An error that is ErrPIN is also [hsm.ErrUnavailable].
// Whoever sees it must not try again by itself: tokens count wrong PINs, and lock.
var ErrPIN = errors.New("PIN refused")

// ErrPINWrong is a PIN that was tried and refused. An error that is ErrPINWrong is also ErrPIN, which may be without an attempt.
var ErrPINWrong = errors.New("PIN wrong")

// An Error is what a PKCS #11 function answered, sorted. It wraps exactly one of the errors of package hsm.
type Error struct {
	Function string // as the standard calls it, such as "C_Encrypt"
	Code     uint   // CKR_*, or 0 if the function did not fail, but did not do what it must
	Kind     error  // [hsm.ErrUnavailable], [hsm.ErrNoKey] or [hsm.ErrRejected]
	Detail   string // what an operator can do about it. Holds no secrets
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%v: %s", e.Kind, e.Function)
	if e.Code != 0 {
		s += fmt.Sprintf(": %s (0x%X)", codeName(e.Code), e.Code)
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Unwrap returns e.Kind.
func (e *Error) Unwrap() error { return e.Kind }

// Is reports whether target is [ErrPIN] or [ErrPINWrong] and e is that.
func (e *Error) Is(target error) bool {
	return target == ErrPIN && slices.Contains(pinCodes, e.Code) || target == ErrPINWrong && e.Function == "C_Login" && slices.Contains(wrongCodes, e.Code)
}

var wrongCodes = []uint{p11.CKR_PIN_INCORRECT, p11.CKR_PIN_INVALID, p11.CKR_PIN_LEN_RANGE, p11.CKR_PIN_EXPIRED, p11.CKR_PIN_LOCKED}

var pinCodes = []uint{
	p11.CKR_PIN_INCORRECT, p11.CKR_PIN_INVALID, p11.CKR_PIN_LEN_RANGE, p11.CKR_PIN_EXPIRED, p11.CKR_PIN_LOCKED,
	p11.CKR_USER_PIN_NOT_INITIALIZED,
}

// codeName returns the name that the standard has for a CKR_ value.
func codeName(code uint) string {
	// The table of miekg/pkcs11 is only to be had inside of its text, "pkcs11: 0x5: CKR_GENERAL_ERROR".
	text := p11.Error(code).Error()
	if name := text[strings.LastIndex(text, " ")+1:]; strings.HasPrefix(name, "CKR_") && name != "CKR_VENDOR_DEFINED" {
		return name
	}
	switch {
	case code == codeAEADDecryptFailed:
		return "CKR_AEAD_DECRYPT_FAILED"
	case code >= p11.CKR_VENDOR_DEFINED:
		return "an error of this vendor's own"
	}
	return "an error unknown to PKCS #11 v2.40"
}

// codeAEADDecryptFailed is the answer to a bad tag in PKCS #11 v3.0 (section 5.1.6).
const codeAEADDecryptFailed = 0x42

// fault makes an [*Error] of what function answered; nil stays nil. It is the one place where CKR_ values are sorted into the
// errors of package hsm. [hsm.ErrRejected] is not among them, because no value says it reliably: see [Token.judge].
func fault(function string, err error) error {
	if err == nil {
		return nil
	}
	code, ok := codeOf(err)
	if !ok {
		return &Error{Function: function, Kind: hsm.ErrUnavailable, Detail: err.Error()}
	}
	e := &Error{Function: function, Code: code, Kind: hsm.ErrUnavailable}
	for _, r := range remedies {
		if (len(r.codes) == 0 || slices.Contains(r.codes, code)) && (r.function == "" || r.function == function) {
			e.Detail = r.text
			if r.kind != nil {
				e.Kind = r.kind
			}
			break
		}
	}
	return e
}

// codeOf finds the CKR_ value in err. Libraries here wrap in two ways: with Unwrap, and, as crypto11 does through an old
// github.com/pkg/errors, with Cause alone.
func codeOf(err error) (uint, bool) {
	for err != nil {
		if e, ok := errors.AsType[p11.Error](err); ok {
			return uint(e), true
		}
		if e, ok := errors.AsType[*Error](err); ok {
			return e.Code, e.Code != 0
		}
		c, ok := err.(interface{ Cause() error })
		if !ok {
			return 0, false
		}
		err = c.Cause()
	}
	return 0, false
}

// remedies says of families of CKR_ values (PKCS #11 v2.40, section 5.1) which kind of error they are, if it is not
// hsm.ErrUnavailable, and what an operator can do. The first that fits counts.
var remedies = []struct {
	codes    []uint // any, if empty
	function string // any, if empty
	kind     error
	text     string
}{
	{
		// CloudHSM says ARGUMENTS_BAD when its session limit is reached.
		codes:    []uint{p11.CKR_SESSION_COUNT, p11.CKR_ARGUMENTS_BAD},
		function: "C_OpenSession",
		text:     "the token gives no more sessions; configure fewer, or stop other users of the token",
	},
	{
		codes: []uint{p11.CKR_KEY_HANDLE_INVALID, p11.CKR_OBJECT_HANDLE_INVALID},
		kind:  hsm.ErrNoKey,
		text:  "the token has forgotten the handle of the key",
	},
	{
		codes: []uint{p11.CKR_KEY_FUNCTION_NOT_PERMITTED, p11.CKR_KEY_TYPE_INCONSISTENT, p11.CKR_KEY_SIZE_RANGE},
		kind:  hsm.ErrNoKey,
		text:  "the object is not a key for this; something else is in the place of the key",
	},
	{
		codes: []uint{p11.CKR_SESSION_HANDLE_INVALID, p11.CKR_SESSION_CLOSED},
		text:  "the token dropped the session; if this repeats, look for idle time-outs between this host and the HSM",
	},
	{
		codes: []uint{p11.CKR_DEVICE_REMOVED, p11.CKR_TOKEN_NOT_PRESENT, p11.CKR_TOKEN_NOT_RECOGNIZED, p11.CKR_SLOT_ID_INVALID},
		text:  "the token is gone; see that the HSM is switched on and reachable",
	},
	{
		codes: []uint{p11.CKR_CRYPTOKI_NOT_INITIALIZED},
		text:  "the PKCS#11 module has shut itself down, as some do when they lose their HSM",
	},
	{
		codes: []uint{p11.CKR_CRYPTOKI_ALREADY_INITIALIZED},
		text:  "something else in this process uses the PKCS#11 module already",
	},
	{
		codes: []uint{p11.CKR_USER_NOT_LOGGED_IN},
		text:  "the token has ended the login, as it does when it restarts",
	},
	{
		codes: []uint{p11.CKR_USER_ALREADY_LOGGED_IN, p11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN, p11.CKR_USER_TOO_MANY_TYPES},
		text:  "something else in this process has logged in already, so that the PIN was not checked",
	},
	{
		codes: []uint{p11.CKR_DEVICE_ERROR, p11.CKR_GENERAL_ERROR, p11.CKR_FUNCTION_FAILED},
		text:  "the HSM or its client software reports a fault; look into their logs",
	},
	{
		codes: []uint{p11.CKR_DEVICE_MEMORY},
		text:  "the HSM is out of memory or of room for keys",
	},
	{
		codes: []uint{p11.CKR_HOST_MEMORY},
		text:  "this host is out of memory",
	},
	{
		codes:    []uint{p11.CKR_MECHANISM_INVALID, p11.CKR_MECHANISM_PARAM_INVALID, p11.CKR_FUNCTION_NOT_SUPPORTED, p11.CKR_CURVE_NOT_SUPPORTED},
		function: "C_GenerateKeyPair",
		text:     "the token does not make key pairs for ECDSA on P-256 (CKM_EC_KEY_PAIR_GEN), or its policy forbids it",
	},
	{
		codes:    []uint{p11.CKR_MECHANISM_INVALID, p11.CKR_MECHANISM_PARAM_INVALID, p11.CKR_FUNCTION_NOT_SUPPORTED, p11.CKR_CURVE_NOT_SUPPORTED},
		function: "C_SignInit",
		text:     "the token does not do ECDSA of a digest that is given to it (CKM_ECDSA), or its policy forbids it",
	},
	{
		codes: []uint{p11.CKR_MECHANISM_INVALID, p11.CKR_MECHANISM_PARAM_INVALID},
		text:  "the token does not do AES-GCM with an IV of 12 bytes that is given to it, or its policy (FIPS mode) forbids it",
	},
	{
		codes: []uint{p11.CKR_TOKEN_WRITE_PROTECTED, p11.CKR_SESSION_READ_ONLY},
		text:  "the token is write-protected",
	},
	{
		codes: []uint{
			p11.CKR_ATTRIBUTE_TYPE_INVALID, p11.CKR_ATTRIBUTE_VALUE_INVALID, p11.CKR_ATTRIBUTE_READ_ONLY,
			p11.CKR_TEMPLATE_INCONSISTENT, p11.CKR_TEMPLATE_INCOMPLETE,
		},
		text: "the token refuses a key with the attributes that strongroom asks for; see hsm/pkcs11/template.go for the list",
	},
	{
		codes: []uint{p11.CKR_OPERATION_ACTIVE, p11.CKR_OPERATION_NOT_INITIALIZED},
		text:  "the token confuses the state of its sessions",
	},
	{
		codes: []uint{p11.CKR_PIN_INCORRECT, p11.CKR_PIN_INVALID, p11.CKR_PIN_LEN_RANGE},
		text:  "correct the PIN",
	},
	{
		// Where the argument is not wanted, or wanted and not there, the answer is ARGUMENTS_BAD; NSS has values of its own for a database that
		// it cannot open.
		function: "C_Initialize",
		text:     "the PKCS#11 module does not start: see its own configuration, and hsm.init_args, which few modules want and others refuse",
	},
	{
		codes: []uint{p11.CKR_PIN_LOCKED},
		text:  "the security officer of the token has to set a new PIN",
	},
	{
		codes: []uint{p11.CKR_PIN_EXPIRED},
		text:  "change the PIN with the tools of the HSM",
	},
	{
		codes: []uint{p11.CKR_USER_PIN_NOT_INITIALIZED},
		text:  "the security officer of the token has to set a PIN",
	},
}

// has reports whether err is a CKR_ value among codes.
func has(err error, codes ...uint) bool {
	code, ok := codeOf(err)
	return ok && slices.Contains(codes, code)
}

// lost reports whether err says that a session is gone already, so that there is nothing to close. After that the token may have
// been reconnected or replaced, and what handles name has to be proved again.
func lost(err error) bool {
	return has(err, p11.CKR_SESSION_HANDLE_INVALID, p11.CKR_SESSION_CLOSED)
}

// gone reports whether err says that there is nothing left to close, neither a session nor a token to hold it.
func gone(err error) bool {
	return lost(err) || hopeless(err) && !has(err, p11.CKR_USER_NOT_LOGGED_IN)
}

// hopeless reports whether err says that this process will not reach the token again, so that a repetition would only wait.
func hopeless(err error) bool {
	return has(err, p11.CKR_CRYPTOKI_NOT_INITIALIZED, p11.CKR_DEVICE_REMOVED, p11.CKR_TOKEN_NOT_PRESENT, p11.CKR_USER_NOT_LOGGED_IN)
}

// stale reports whether err says that a handle does not name an object (any more).
func stale(err error) bool {
	return has(err, p11.CKR_KEY_HANDLE_INVALID, p11.CKR_OBJECT_HANDLE_INVALID)
}

// doubtful reports whether err may mean that a ciphertext does not belong to its key: C_Decrypt's answers to a bad tag, as
// seen on devices. SoftHSM 2.6 says GENERAL_ERROR, nShield FUNCTION_FAILED, SoftHSM 2.7, NSS and Luna ENCRYPTED_DATA_INVALID; all
// but the last are also what devices say when they are broken.
func doubtful(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Function == "C_Decrypt" && (e.Code >= p11.CKR_VENDOR_DEFINED || slices.Contains([]uint{
		p11.CKR_GENERAL_ERROR, p11.CKR_FUNCTION_FAILED, p11.CKR_ARGUMENTS_BAD,
		p11.CKR_DATA_INVALID, p11.CKR_DATA_LEN_RANGE,
		p11.CKR_ENCRYPTED_DATA_INVALID, p11.CKR_ENCRYPTED_DATA_LEN_RANGE, codeAEADDecryptFailed,
		p11.CKR_SIGNATURE_INVALID, p11.CKR_SIGNATURE_LEN_RANGE,
	}, e.Code))
}

// valueless reports whether err may mean that a key was used that has no value. SoftHSM says MECHANISM_INVALID. Answers that say that the device is
// broken, or that the use of the key is forbidden, are not among them.
func valueless(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && slices.Contains([]string{"C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt"}, e.Function) && slices.Contains([]uint{
		p11.CKR_MECHANISM_INVALID, p11.CKR_MECHANISM_PARAM_INVALID, p11.CKR_KEY_TYPE_INCONSISTENT, p11.CKR_KEY_SIZE_RANGE,
		p11.CKR_GENERAL_ERROR, p11.CKR_FUNCTION_FAILED, p11.CKR_ARGUMENTS_BAD,
	}, e.Code)
}

// unavailable makes err, whatever it is, an hsm.ErrUnavailable, with what was being done.
func unavailable(doing string, err error) error {
	if e, ok := errors.AsType[*Error](err); ok && e.Kind != hsm.ErrUnavailable {
		again := *e
		again.Kind = hsm.ErrUnavailable
		return fmt.Errorf("%s: %w", doing, &again)
	}
	if errors.Is(err, hsm.ErrUnavailable) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%w: %s: %v", hsm.ErrUnavailable, doing, err)
}
