package attesttest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha512"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"time"

	"strongroom/kms/attest"
)

// A Statement is what a document says.
type Statement struct {
	Kind     attest.Kind    // default: [attest.Enclave]
	ModuleID string         // default: one that is made up
	Time     time.Time      // when it is made; required
	PCRs     map[int][]byte // all there are; default: those of [PCRs]

	PublicKey, UserData, Nonce []byte // nil: null

	// Definite gives the payload's map a definite length, as in documents before 2025.
	Definite bool
}

// PCRs returns made-up measurements, in the registers of real documents: 0 to 4 differ and are not zero, and the rest are, up to 15 in those of enclaves
// and up to 23 in those of NitroTPM.
func PCRs(k attest.Kind) map[int][]byte {
	n := 16
	if k == attest.NitroTPM {
		n = 24
	}
	pcrs := make(map[int][]byte, n)
	for i := range n {
		pcrs[i] = make([]byte, sha512.Size384)
		if i <= 4 {
			sum := sha512.Sum384(fmt.Appendf(nil, "attesttest PCR%d", i))
			pcrs[i] = sum[:]
		}
	}
	return pcrs
}

// fill checks a statement and gives it its defaults.
func (s *Statement) fill() error {
	if s.Time.IsZero() {
		return errors.New("the time of a document is required")
	}
	id := "i-0123456789abcdef0-enc0123456789abcdef"
	switch s.Kind {
	case "":
		s.Kind = attest.Enclave
	case attest.Enclave:
	case attest.NitroTPM:
		id = "i-0123456789abcdef0-tpm0000000000000000"
	default:
		return fmt.Errorf("there is no kind %q", s.Kind)
	}
	if s.ModuleID == "" {
		s.ModuleID = id
	}
	if s.PCRs == nil {
		s.PCRs = PCRs(s.Kind)
	}
	return nil
}

// Document returns a document that says so: a COSE_Sign1 without a tag, signed by the last of five certificates, whose times are those that real ones
// have around s.Time.
func (r *Root) Document(s Statement) ([]byte, error) { return r.DocumentOf(Case{}, s) }

// registersName returns the name of the member that holds the PCRs.
func registersName(k attest.Kind) string {
	if k == attest.NitroTPM {
		return "nitrotpm_pcrs"
	}
	return "pcrs"
}

// registers returns the PCRs as members, ascending.
func registers(pcrs map[int][]byte) members {
	var m members
	for _, i := range slices.Sorted(maps.Keys(pcrs)) {
		m = append(m, member{unsigned(uint64(i)), octets(pcrs[i])})
	}
	return m
}

// payload returns the members of a payload, in the order that real ones have.
func payload(s *Statement, bundle [][]byte, certificate []byte) members {
	var entries [][]byte
	for _, der := range bundle {
		entries = append(entries, octets(der))
	}
	var m members
	m.add("module_id", text(s.ModuleID))
	m.add("digest", text("SHA384"))
	m.add("timestamp", unsigned(uint64(s.Time.UnixMilli())))
	m.add(registersName(s.Kind), registers(s.PCRs).encode(false))
	m.add("certificate", octets(certificate))
	m.add("cabundle", array(entries...))
	m.add("public_key", optional(s.PublicKey))
	m.add("user_data", optional(s.UserData))
	m.add("nonce", optional(s.Nonce))
	return m
}

// A message is a COSE_Sign1 (RFC 9052, section 4.2), by its parts.
type message struct {
	protected   []byte // map, in the byte string
	unprotected []byte // encoded
	payload     []byte // what is in the byte string
	signature   []byte // likewise

	signer *ecdsa.PrivateKey
	hash   crypto.Hash
}

// headerES384 is {alg: ES384}.
const headerES384 = "\xa1\x01\x38\x22"

// sign sets the signature, over the Sig_structure of RFC 9052, section 4.4.
func (m *message) sign() {
	h := m.hash.New()
	h.Write(array(text("Signature1"), octets(m.protected), octets(nil), octets(m.payload)))
	r, s := signature(m.signer, h.Sum(nil), m.hash)
	size := (m.signer.Params().BitSize + 7) / 8
	m.signature = append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
}

func (m *message) encode() []byte {
	return array(octets(m.protected), m.unprotected, octets(m.payload), octets(m.signature))
}

// signature returns an ECDSA signature, which without randomness is that of RFC 6979.
func signature(key *ecdsa.PrivateKey, digest []byte, hash crypto.Hash) (r, s *big.Int) {
	der, err := key.Sign(nil, digest, hash)
	if err != nil {
		panic(err) // of a digest of the wrong length
	}
	var rs struct{ R, S *big.Int }
	mustUnmarshal(der, &rs)
	return rs.R, rs.S
}
