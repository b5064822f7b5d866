package pkcs11

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// labelPrefix begins the label of every object that strongroom made. What does not begin like this is not touched.
const labelPrefix = "strongroom/"

// checkPrefix begins the label of what is made for a test, and is destroyed right after it. Such an object is no key: see [Token.Objects].
const checkPrefix = labelPrefix + "check/"

// keyTemplate is how a wrapping key is made. Everything is spelled out, because defaults differ: a token may add CKA_WRAP and
// CKA_UNWRAP by itself (SoftHSM does), with which keys could be taken out under this one.
func keyTemplate(id hsm.ID, label string) []*p11.Attribute {
	return []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY),
		p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_AES),
		p11.NewAttribute(p11.CKA_VALUE_LEN, keyLen),
		p11.NewAttribute(p11.CKA_ID, id[:]),
		p11.NewAttribute(p11.CKA_LABEL, label),
		p11.NewAttribute(p11.CKA_TOKEN, true),        // kept by the token, not by the session
		p11.NewAttribute(p11.CKA_PRIVATE, true),      // not to be seen without a login
		p11.NewAttribute(p11.CKA_SENSITIVE, true),    // its value cannot be read
		p11.NewAttribute(p11.CKA_EXTRACTABLE, false), // nor be wrapped by another key
		p11.NewAttribute(p11.CKA_ENCRYPT, true),
		p11.NewAttribute(p11.CKA_DECRYPT, true),
		p11.NewAttribute(p11.CKA_WRAP, false),
		p11.NewAttribute(p11.CKA_UNWRAP, false),
		p11.NewAttribute(p11.CKA_DERIVE, false),
		p11.NewAttribute(p11.CKA_SIGN, false),
		p11.NewAttribute(p11.CKA_VERIFY, false),
	}
}

const keyLen = 32

// throwawayTemplate is how an AES key for a test is made: as others are, but, if it can be, as an object of the session, which ends with it.
func throwawayTemplate(id hsm.ID, ofToken bool) []*p11.Attribute {
	template := keyTemplate(id, checkPrefix+id.String())
	for i, a := range template {
		if a.Type == p11.CKA_TOKEN {
			template[i] = p11.NewAttribute(p11.CKA_TOKEN, ofToken)
		}
	}
	return template
}

// curve is the value of CKA_EC_PARAMS for P-256: the object identifier 1.2.840.10045.3.1.7 (PKCS #11 v2.40, Current Mechanisms, section 2.3.3;
// RFC 5480, section 2.1.1.1).
var curve = []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}

// signerTemplate is how the private key of a signer is made. As in [keyTemplate], everything is spelled out.
func signerTemplate(id hsm.ID, label string) []*p11.Attribute {
	return []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY),
		p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_EC),
		p11.NewAttribute(p11.CKA_ID, id[:]),
		p11.NewAttribute(p11.CKA_LABEL, label),
		p11.NewAttribute(p11.CKA_TOKEN, true),        // kept by the token, not by the session
		p11.NewAttribute(p11.CKA_PRIVATE, true),      // not to be seen without a login
		p11.NewAttribute(p11.CKA_SENSITIVE, true),    // its value cannot be read
		p11.NewAttribute(p11.CKA_EXTRACTABLE, false), // nor be wrapped by another key
		p11.NewAttribute(p11.CKA_SIGN, true),
		p11.NewAttribute(p11.CKA_DECRYPT, false),
		p11.NewAttribute(p11.CKA_UNWRAP, false),
		p11.NewAttribute(p11.CKA_DERIVE, false), // ECDH would multiply points of the caller's choice by it
	}
}

// publicTemplate is how the public key of a signer is made, or made again if it is missing. The object is there for others, who look for the
// key with the tools of the HSM. Nothing here trusts it after the Ref was made.
func publicTemplate(id hsm.ID, label string) []*p11.Attribute {
	return []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PUBLIC_KEY),
		p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_EC),
		p11.NewAttribute(p11.CKA_EC_PARAMS, curve),
		p11.NewAttribute(p11.CKA_ID, id[:]),
		p11.NewAttribute(p11.CKA_LABEL, label),
		p11.NewAttribute(p11.CKA_TOKEN, true),
		p11.NewAttribute(p11.CKA_PRIVATE, false),
		p11.NewAttribute(p11.CKA_VERIFY, true),
		p11.NewAttribute(p11.CKA_ENCRYPT, false),
		p11.NewAttribute(p11.CKA_WRAP, false),
	}
}

// niceties are attributes that make a key better where a token knows them. Tokens that do not know them refuse the
// whole template, so each is left away in turn, the rarest first: openCryptoki refuses CKA_ALLOWED_MECHANISMS with
// CKR_ATTRIBUTE_TYPE_INVALID.
//
// A key that is to be copied has to be modifiable for SoftHSM to make an object of the session of it, although nothing else is changed then.
// What matters cannot be modified all the same: CKA_SENSITIVE does not become false, nor CKA_EXTRACTABLE true (PKCS #11 v2.40, section 4.9).
func niceties(mechanism uint, copied bool) []*p11.Attribute {
	nice := []*p11.Attribute{
		p11.NewAttribute(p11.CKA_ALLOWED_MECHANISMS, ulong(mechanism)), // no other can be used with the key
	}
	if !copied {
		nice = append(nice, p11.NewAttribute(p11.CKA_MODIFIABLE, false)) // what is said above stays so
	}
	return nice
}

// nicely calls generate, which makes what is to be called id, with as many niceties as the token takes.
//
// NSS's softokn cannot keep CKA_ALLOWED_MECHANISMS in its database, and says GENERAL_ERROR. That may as well have been a fault in passing, so the
// same is tried again before the key is made with less; and it may have come after something was made, so that it is looked for first.
func (t *Token) nicely(s *session, id hsm.ID, mechanism uint, generate func(extra []*p11.Attribute) error) error {
	extra := niceties(mechanism, t.keeper != nil)
	err := generate(extra)
	for again := true; len(extra) > 0; {
		switch {
		case refusesTemplate(err):
			extra, again = extra[1:], true
		case has(err, p11.CKR_GENERAL_ERROR, p11.CKR_FUNCTION_FAILED):
			if found, ferr := t.module.find(s.handle, anythingCalled(id)); ferr != nil || len(found) > 0 {
				return err
			}
			if again = !again; again {
				extra = extra[1:]
			}
		default:
			return err
		}
		err = generate(extra)
	}
	return err
}

// refusesTemplate reports whether a token that answered C_GenerateKey or C_GenerateKeyPair with err may accept a shorter template.
func refusesTemplate(err error) bool {
	code, _ := codeOf(err)
	return slices.Contains([]uint{
		p11.CKR_ATTRIBUTE_TYPE_INVALID, p11.CKR_ATTRIBUTE_VALUE_INVALID, p11.CKR_ATTRIBUTE_READ_ONLY, p11.CKR_TEMPLATE_INCONSISTENT,
	}, code)
}

// promises is what a key must say of itself before it is used. CKA_ALWAYS_SENSITIVE and CKA_NEVER_EXTRACTABLE are the token's own
// word that it was so since the key was made inside of it (PKCS #11 v2.40, section 4.10).
func promises() []*p11.Attribute {
	return []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY),
		p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_AES),
		p11.NewAttribute(p11.CKA_VALUE_LEN, keyLen),
		p11.NewAttribute(p11.CKA_TOKEN, true),
		p11.NewAttribute(p11.CKA_PRIVATE, true),
		p11.NewAttribute(p11.CKA_SENSITIVE, true),
		p11.NewAttribute(p11.CKA_EXTRACTABLE, false),
		p11.NewAttribute(p11.CKA_ALWAYS_SENSITIVE, true),
		p11.NewAttribute(p11.CKA_NEVER_EXTRACTABLE, true),
		p11.NewAttribute(p11.CKA_WRAP, false),
		p11.NewAttribute(p11.CKA_UNWRAP, false),
		p11.NewAttribute(p11.CKA_DERIVE, false),
	}
}

// signerPromises is what the private key of a signer must say of itself before it is used. Its curve is not among them: the proof shows it.
func signerPromises() []*p11.Attribute {
	return []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY),
		p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_EC),
		p11.NewAttribute(p11.CKA_TOKEN, true),
		p11.NewAttribute(p11.CKA_PRIVATE, true),
		p11.NewAttribute(p11.CKA_SENSITIVE, true),
		p11.NewAttribute(p11.CKA_EXTRACTABLE, false),
		p11.NewAttribute(p11.CKA_ALWAYS_SENSITIVE, true),
		p11.NewAttribute(p11.CKA_NEVER_EXTRACTABLE, true),
		p11.NewAttribute(p11.CKA_SIGN, true),
		p11.NewAttribute(p11.CKA_DECRYPT, false),
		p11.NewAttribute(p11.CKA_UNWRAP, false),
		p11.NewAttribute(p11.CKA_DERIVE, false),
	}
}

// broken returns which of the promises the attributes that were read do not keep, or "".
func broken(promises, read []*p11.Attribute) string {
	var s []string
	for _, want := range promises {
		i := slices.IndexFunc(read, func(a *p11.Attribute) bool { return a.Type == want.Type })
		if i < 0 || !sameValue(read[i].Value, want.Value) {
			s = append(s, attributeName(want.Type))
		}
	}
	return strings.Join(s, ", ")
}

// sameValue compares attributes. CK_BBOOL true is 1, but some modules answer with other values than 0.
func sameValue(got, want []byte) bool {
	if len(want) == 1 && len(got) == 1 {
		return (got[0] != 0) == (want[0] != 0)
	}
	return string(got) == string(want)
}

func attributeName(typ uint) string {
	name, ok := map[uint]string{
		p11.CKA_CLASS:              "CKA_CLASS",
		p11.CKA_KEY_TYPE:           "CKA_KEY_TYPE",
		p11.CKA_VALUE_LEN:          "CKA_VALUE_LEN",
		p11.CKA_TOKEN:              "CKA_TOKEN",
		p11.CKA_PRIVATE:            "CKA_PRIVATE",
		p11.CKA_SENSITIVE:          "CKA_SENSITIVE",
		p11.CKA_EXTRACTABLE:        "CKA_EXTRACTABLE",
		p11.CKA_ALWAYS_SENSITIVE:   "CKA_ALWAYS_SENSITIVE",
		p11.CKA_NEVER_EXTRACTABLE:  "CKA_NEVER_EXTRACTABLE",
		p11.CKA_WRAP:               "CKA_WRAP",
		p11.CKA_UNWRAP:             "CKA_UNWRAP",
		p11.CKA_DERIVE:             "CKA_DERIVE",
		p11.CKA_SIGN:               "CKA_SIGN",
		p11.CKA_DECRYPT:            "CKA_DECRYPT",
		p11.CKA_MODIFIABLE:         "CKA_MODIFIABLE",
		p11.CKA_ALLOWED_MECHANISMS: "CKA_ALLOWED_MECHANISMS",
	}[typ]
	if !ok {
		return fmt.Sprintf("attribute 0x%X", typ)
	}
	return name
}

// anyKey finds all AES keys of the token, ours and others'.
func anyKey() []*p11.Attribute {
	return []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY),
		p11.NewAttribute(p11.CKA_TOKEN, true),
		p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_AES),
	}
}

// keyCalled finds the keys with one CKA_ID.
func keyCalled(id hsm.ID) []*p11.Attribute {
	return []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY),
		p11.NewAttribute(p11.CKA_TOKEN, true),
		p11.NewAttribute(p11.CKA_ID, id[:]),
	}
}

// signerCalled finds the private keys with one CKA_ID.
func signerCalled(id hsm.ID) []*p11.Attribute {
	return []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY),
		p11.NewAttribute(p11.CKA_TOKEN, true),
		p11.NewAttribute(p11.CKA_ID, id[:]),
	}
}

// anythingCalled finds the objects of all classes with one CKA_ID.
func anythingCalled(id hsm.ID) []*p11.Attribute {
	return []*p11.Attribute{
		p11.NewAttribute(p11.CKA_TOKEN, true),
		p11.NewAttribute(p11.CKA_ID, id[:]),
	}
}

// anything finds all objects of the token. One search for everything, because a search takes as long as there are objects, whatever it is for.
func anything() []*p11.Attribute {
	return []*p11.Attribute{p11.NewAttribute(p11.CKA_TOKEN, true)}
}

// copiesOf finds the copies of a key that this process has made.
func copiesOf(id hsm.ID) []*p11.Attribute {
	return []*p11.Attribute{
		p11.NewAttribute(p11.CKA_TOKEN, false),
		p11.NewAttribute(p11.CKA_ID, id[:]),
	}
}

// ulong encodes a CK_ULONG, or an array of one of them, as it lies in memory.
func ulong(x uint) []byte {
	b := binary.NativeEndian.AppendUint64(nil, uint64(x))
	if unsafe.Sizeof(x) == 4 { // a 32-bit unsigned long
		return binary.NativeEndian.AppendUint32(nil, uint32(x))
	}
	return b
}
