package attest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// MaxSize is the size in bytes of the largest document that is read. The Nitro Security Module's buffer for one is half as large, and AWS KMS
// would take 262,144 bytes.
const MaxSize = 32 << 10

// A Kind says what made a document.
type Kind string

const (
	Enclave  Kind = "enclave"  // the Nitro Security Module of an enclave
	NitroTPM Kind = "nitrotpm" // the NitroTPM of an instance
)

// Kinds are all kinds of documents.
var Kinds = []Kind{Enclave, NitroTPM}

// registers returns how many platform configuration registers (PCRs) a document of the kind can have.
func (k Kind) registers() int {
	if k == NitroTPM {
		return 24
	}
	return 32
}

// A Document is what an attestation document says. That it was parsed does not mean that anybody vouches for it.
type Document struct {
	Kind     Kind
	ModuleID string         // names the instance and its enclave; at most 256 bytes
	Time     time.Time      // when it was made, in milliseconds
	PCRs     map[int][]byte // measurements, by register: 48 bytes each

	Certificate []byte   // whose key signs the document: X.509 in DER, at most 1024 bytes
	CABundle    [][]byte // the certificates above it, the root first: 1 to 8

	// What the caller had put into the document, at most 1024 bytes each. Nil if it is absent.
	PublicKey []byte
	UserData  []byte
	Nonce     []byte

	payload, signature []byte
}

// A register as long as this is a SHA-384 digest, which is what every document says that it uses.
const registerSize = 48

// The lengths that documents may have, in bytes or entries. AWS's own are wider in part; the largest that were ever seen are not.
const (
	maxModuleID    = 256
	maxPayload     = 16384
	signatureSize  = 96
	maxCertificate = 1024
	maxBundle      = 8
	maxOpaque      = 1024
)

// Parse takes a document apart. Nothing of it has been verified. The error is a [Fault] for the reason Malformed.
//
// The layout is that of AWS, "Validating an attestation document" (aws-nitro-enclaves-nsm-api, docs/attestation_process.md): a COSE_Sign1
// (RFC 9052, section 4.2), with the tag or without, whose payload is a map with text keys. Both layers are read strictly, so that there are
// no two readings of one document: see strict.
func Parse(raw []byte) (*Document, error) {
	d, err := parse(raw)
	if err != nil {
		return nil, &Fault{Malformed, err}
	}
	return d, nil
}

func parse(raw []byte) (*Document, error) {
	if len(raw) > MaxSize {
		return nil, fmt.Errorf("%d bytes are more than %d", len(raw), MaxSize)
	}
	m, err := parseSign1(raw)
	if err != nil {
		return nil, fmt.Errorf("COSE_Sign1: %w", err)
	}
	d := &Document{payload: m.Payload, signature: m.Signature}
	if err := d.parsePayload(); err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	return d, nil
}

// The names of the members that are read.
var memberNames = []text{
	"module_id", "digest", "timestamp", "pcrs", "nitrotpm_pcrs", "certificate", "cabundle", "public_key", "user_data", "nonce",
}

// parsePayload fills d from its payload. A member that is not known is skipped: only who signed the document can have put it there, and AWS has
// added some before. It must be of the same plain CBOR as the rest, and not called like one that is known but for letter case, which other readers
// might take for it.
func (d *Document) parsePayload() error {
	var m map[text]item
	if err := unmarshalMap(d.payload, &m); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(m)) { // in an order, so that a document has one fault
		if slices.Contains(memberNames, name) {
			continue
		}
		if slices.ContainsFunc(memberNames, func(known text) bool { return strings.EqualFold(string(known), string(name)) }) {
			return errors.New("the name of a member differs in letter case from one that is known")
		}
		var skipped any
		if err := strict.Unmarshal(m[name], &skipped); err != nil {
			return errors.New("a member that is not known holds a name twice, one that is no name, or text that is not UTF-8")
		}
	}
	p := payload{m}
	var digest text
	var made unsigned
	for _, err := range []error{
		p.take("module_id", (*text)(&d.ModuleID)),
		p.take("digest", &digest),
		p.take("timestamp", &made),
		p.take("certificate", (*octets)(&d.Certificate)),
		p.takeBundle(&d.CABundle),
		p.takeOptional("public_key", &d.PublicKey),
		p.takeOptional("user_data", &d.UserData),
		p.takeOptional("nonce", &d.Nonce),
	} {
		if err != nil {
			return err
		}
	}
	switch {
	case d.ModuleID == "" || len(d.ModuleID) > maxModuleID:
		return fmt.Errorf("module_id: %d bytes are not from 1 to %d", len(d.ModuleID), maxModuleID)
	case digest != "SHA384":
		return errors.New("digest: is not SHA384")
	case made == 0 || made > lastMoment:
		return errors.New("timestamp: is not in milliseconds, up to the year 9999")
	}
	d.Time = time.UnixMilli(int64(made)).UTC()
	if err := certificateSize("certificate", d.Certificate); err != nil {
		return err
	}
	return d.takeRegisters(p)
}

// lastMoment is the last millisecond of the year 9999, beyond which times have no text.
const lastMoment = 253402300799999

// takeRegisters fills d.PCRs from the map of either kind.
func (d *Document) takeRegisters(p payload) error {
	name := "pcrs"
	d.Kind = Enclave
	if _, ok := p.items["nitrotpm_pcrs"]; ok {
		if _, ok := p.items[text(name)]; ok {
			return errors.New("pcrs and nitrotpm_pcrs are both there")
		}
		d.Kind, name = NitroTPM, "nitrotpm_pcrs"
	}
	var m map[unsigned]octets
	if err := p.take(text(name), &m); err != nil {
		return err
	}
	if len(m) == 0 {
		return fmt.Errorf("%s: is empty", name)
	}
	d.PCRs = make(map[int][]byte, len(m))
	for index, value := range m {
		if index >= unsigned(d.Kind.registers()) {
			return fmt.Errorf("%s: there is no register %d", name, index)
		}
		if len(value) != registerSize {
			return fmt.Errorf("%s: register %d has %d bytes and not %d", name, index, len(value), registerSize)
		}
		d.PCRs[int(index)] = value
	}
	return nil
}

// Registers returns the indexes in d.PCRs, ascending.
func (d *Document) Registers() []int { return slices.Sorted(maps.Keys(d.PCRs)) }

// Debug reports whether the document is of an enclave that runs in debug mode, in which PCR0, 1 and 2 are zero: they say nothing of the code that
// runs. One that has none of them says as little.
func (d *Document) Debug() bool {
	if d.Kind != Enclave {
		return false
	}
	for index := range 3 {
		for _, b := range d.PCRs[index] {
			if b != 0 {
				return false
			}
		}
	}
	return true
}

// A payload is the members of a payload by name, not yet decoded.
type payload struct {
	items map[text]item
}

// take decodes a member that must be there.
func (p payload) take(name text, into any) error {
	raw, ok := p.items[name]
	if !ok {
		return fmt.Errorf("%s: is missing", name)
	}
	if err := strict.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// takeOptional decodes a byte string that may be null, which is how the Nitro Security Module writes that there is none, or missing.
func (p payload) takeOptional(name text, into *[]byte) error {
	if raw, ok := p.items[name]; !ok || string(raw) == cborNull {
		return nil
	}
	if err := p.take(name, (*octets)(into)); err != nil {
		return err
	}
	if len(*into) > maxOpaque {
		return fmt.Errorf("%s: %d bytes are more than %d", name, len(*into), maxOpaque)
	}
	return nil
}

func (p payload) takeBundle(into *[][]byte) error {
	var bundle []octets
	if err := p.take("cabundle", &bundle); err != nil {
		return err
	}
	if len(bundle) == 0 || len(bundle) > maxBundle {
		return fmt.Errorf("cabundle: %d certificates are not from 1 to %d", len(bundle), maxBundle)
	}
	for i, der := range bundle {
		if err := certificateSize(fmt.Sprintf("cabundle: certificate %d", i), der); err != nil {
			return err
		}
		*into = append(*into, der)
	}
	return nil
}

func certificateSize(name string, der []byte) error {
	if len(der) == 0 || len(der) > maxCertificate {
		return fmt.Errorf("%s: %d bytes are not from 1 to %d", name, len(der), maxCertificate)
	}
	return nil
}
