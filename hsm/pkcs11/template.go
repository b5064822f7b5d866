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

// niceties are attributes that make a key better where a token knows them. Tokens that do not know them refuse the
// whole template, so each is left away in turn, the rarest first: openCryptoki refuses CKA_ALLOWED_MECHANISMS with
// CKR_ATTRIBUTE_TYPE_INVALID.
//
// A key that is to be copied has to be modifiable for SoftHSM to make an object of the session of it, although nothing else is changed then.
// What matters cannot be modified all the same: CKA_SENSITIVE does not become false, nor CKA_EXTRACTABLE true (PKCS #11 v2.40, section 4.9).
func niceties(copied bool) []*p11.Attribute {
	nice := []*p11.Attribute{
		p11.NewAttribute(p11.CKA_ALLOWED_MECHANISMS, ulong(p11.CKM_AES_GCM)), // no other mode can be used with the key
	}
	if !copied {
		nice = append(nice, p11.NewAttribute(p11.CKA_MODIFIABLE, false)) // what is said above stays so
	}
	return nice
}

// refusesTemplate reports whether a token that answered C_GenerateKey with err may accept a shorter template.
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

// broken returns which of the promises the attributes that were read do not keep, or "".
func broken(read []*p11.Attribute) string {
	var s []string
	for _, want := range promises() {
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
		p11.CKA_CLASS:             "CKA_CLASS",
		p11.CKA_KEY_TYPE:          "CKA_KEY_TYPE",
		p11.CKA_VALUE_LEN:         "CKA_VALUE_LEN",
		p11.CKA_TOKEN:             "CKA_TOKEN",
		p11.CKA_PRIVATE:           "CKA_PRIVATE",
		p11.CKA_SENSITIVE:         "CKA_SENSITIVE",
		p11.CKA_EXTRACTABLE:       "CKA_EXTRACTABLE",
		p11.CKA_ALWAYS_SENSITIVE:  "CKA_ALWAYS_SENSITIVE",
		p11.CKA_NEVER_EXTRACTABLE: "CKA_NEVER_EXTRACTABLE",
		p11.CKA_WRAP:              "CKA_WRAP",
		p11.CKA_UNWRAP:            "CKA_UNWRAP",
		p11.CKA_DERIVE:            "CKA_DERIVE",
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

// copiesOf finds the copies of a key that this process has made.
func copiesOf(id hsm.ID) []*p11.Attribute {
	return []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY),
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
