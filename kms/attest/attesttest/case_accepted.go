package attesttest

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"math/big"
	"strings"
	"time"

	"strongroom/kms/attest"
)

// acceptedCases are documents that are unlike those of today in ways that do not matter.
func acceptedCases() []Case {
	return []Case{
		{Name: "plain", About: "nothing"},
		{Name: "map-definite", About: "the payload's map has a definite length, as before 2025", state: func(s *Statement) { s.Definite = true }},
		{Name: "map-indefinite", About: "the payload's map has an indefinite length, as today", state: func(s *Statement) { s.Definite = false }},
		{Name: "registers-indefinite", About: "the map of PCRs has an indefinite length", write: func(m *members) {
			m.set("pcrs", registers(PCRs(attest.Enclave)).encode(true))
		}, state: asEnclave},
		{Name: "bundle-indefinite", About: "the array of certificates has an indefinite length", write: func(m *members) {
			bundle := m.get("cabundle")
			m.set("cabundle", append(append([]byte{majorArray<<5 | 31}, bundle[1:]...), cborBreak...))
		}},
		{Name: "tag-18", About: "the COSE_Sign1 has its tag", raw: prefix("\xd2")},
		{Name: "unprotected-indefinite", About: "the unprotected header is an empty map of indefinite length", wrap: func(m *message) {
			m.unprotected = []byte("\xbf\xff")
		}},
		{Name: "heads-wide", About: "the length of a name and of its value are not in the shortest form", write: func(m *members) {
			m.set("digest", append(appendWideHead(nil, majorText, 6, 4), "SHA384"...))
			m.rename("digest", append(appendWideHead(nil, majorText, 6, 8), "digest"...))
		}},

		{Name: "unknown-text", About: "a member that is not known", write: add("extra", text("something"))},
		{Name: "unknown-simple-kinds", About: "members that are not known, of every plain kind", write: add("extra", array(
			[]byte(cborFalse), []byte("\xf5"), []byte(cborNull), appendHead(nil, majorNegative, 99), unsigned(1<<40), octets(make([]byte, 300)),
			members{{text("name"), array(text("value"))}}.encode(true)))},
		{Name: "unknown-nested", About: "a member that is not known, as deep as is read", write: add("extra", array(array(array(unsigned(1)))))},
		{Name: "payload-largest", About: "a payload of 16,384 bytes", write: fillUp, encode: resize(16384)},

		{Name: "optional-absent", About: "neither user_data nor nonce", write: func(m *members) {
			m.remove("user_data")
			m.remove("nonce")
		}},
		{Name: "optional-empty", About: "user_data and nonce of no bytes", state: func(s *Statement) { s.UserData, s.Nonce = []byte{}, []byte{} }},
		{Name: "optional-longest", About: "user_data and nonce of 1024 bytes", state: func(s *Statement) {
			s.UserData, s.Nonce = make([]byte, 1024), make([]byte, 1024)
		}},
		{Name: "module-id-longest", About: "a module id of 256 bytes", write: value("module_id", text(strings.Repeat("x", 256)))},

		{Name: "nitrotpm", About: "the document of a NitroTPM", state: asNitroTPM},
		{Name: "nitrotpm-zero", About: "the document of a NitroTPM whose PCR0, 1 and 2 are zero", state: func(s *Statement) {
			asNitroTPM(s)
			zero(s.PCRs, 0, 1, 2)
		}},
		{Name: "registers-all", About: "PCR0 to PCR31", state: func(s *Statement) {
			asEnclave(s)
			for i := range 32 {
				s.PCRs[i] = bytes.Repeat([]byte{byte(i + 1)}, 48)
			}
		}},
		{Name: "registers-one", About: "PCR0 alone", state: func(s *Statement) {
			asEnclave(s)
			s.PCRs = map[int][]byte{0: s.PCRs[0]}
		}},
		{Name: "register-0-zero", About: "PCR0 is zero and PCR1 is not", state: func(s *Statement) {
			asEnclave(s)
			zero(s.PCRs, 0)
		}},

		{Name: "s-other", About: "n-s for s in the signature", finish: func(m *message) {
			s := new(big.Int).SetBytes(m.signature[48:])
			s.Sub(m.signer.Params().N, s).FillBytes(m.signature[48:])
		}},
		{Name: "no-path-lengths", About: "CAs without a path length", plan: func(p *plan) {
			for _, l := range p.links[linkRegion:linkSigner] {
				noPathLength(l.template)
			}
		}},
		{Name: "no-identifiers", About: "CAs without key identifiers", plan: func(p *plan) {
			for _, l := range p.links[linkRegion:] {
				l.template.SubjectKeyId = nil
				l.change = without(extSubjectKeyID)
			}
		}},
		{Name: "chain-shortest", About: "a signer right under the root", plan: func(p *plan) {
			p.links = p.links[:1]
			p.addSigner()
		}},
		{Name: "chain-longest", About: "eight certificates above the signer", plan: longChain},
		{Name: "extension-not-critical", About: "an extension that is not known, in every certificate", plan: func(p *plan) {
			for _, l := range p.links[linkRegion:] {
				l.template.ExtraExtensions = append(l.template.ExtraExtensions, unknownExtension(false))
			}
		}},
		{Name: "signer-for-tls", About: "an extended key usage in the signer's certificate", plan: template(linkSigner, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		})},
		{Name: "signer-without-constraints", About: "the signer's certificate says nothing about being a CA", plan: template(linkSigner, func(c *x509.Certificate) {
			c.BasicConstraintsValid = false
		})},
		{Name: "constraints-unused", About: "a CA that may vouch for one domain, and a signer without one", plan: template(linkZone, func(c *x509.Certificate) {
			c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"inside.test"}, true
		})},

		{Name: "rsa-2056", About: "a key of 2056 bits", state: rsaKey(2056, 65537)},
		{Name: "rsa-3072", About: "a key of 3072 bits", state: rsaKey(3072, 65537)},
		{Name: "rsa-4096", About: "a key of 4096 bits", state: rsaKey(4096, 65537)},
		{Name: "exponent-largest", About: "a key with the exponent 2^31-1", state: rsaKey(2048, 1<<31-1)},
	}
}

// fixed is where the keys of cases come from that nobody has to hold.
var fixed = source{[]byte("cases")}

// rsaKey gives a statement a key that nobody has the private half of.
func rsaKey(bits, exponent int) func(*Statement) {
	return func(s *Statement) {
		s.PublicKey = marshalPublicKey(&rsa.PublicKey{N: fixed.modulus(fmt.Sprint("rsa ", bits), bits), E: exponent})
	}
}

func asEnclave(s *Statement) { s.Kind, s.PCRs = attest.Enclave, PCRs(attest.Enclave) }

func asNitroTPM(s *Statement) { s.Kind, s.PCRs = attest.NitroTPM, PCRs(attest.NitroTPM) }

func zero(pcrs map[int][]byte, indexes ...int) {
	for _, i := range indexes {
		pcrs[i] = make([]byte, 48)
	}
}

// value gives a member of the payload another value.
func value(name string, item []byte) func(*members) {
	return func(m *members) { m.set(name, item) }
}

// add adds a member to the payload.
func add(name string, item []byte) func(*members) {
	return func(m *members) { m.add(name, item) }
}

// fillUp adds a member that resize can take from.
func fillUp(m *members) {
	m.add("extra", append(appendWideHead(nil, majorOctets, 1<<14, 2), make([]byte, 1<<14)...))
}

// resize makes a payload n bytes long, if it is longer and its last member is that of fillUp.
func resize(n int) func([]byte) []byte {
	return func(b []byte) []byte {
		head := bytes.LastIndex(b, append(text("extra"), 0x59, 0x40, 0x00)) + 6
		end := b[head+3+1<<14:]
		size := n - head - 3 - len(end)
		if size < 0 {
			return b
		}
		item := append(appendWideHead(nil, majorOctets, uint64(size), 2), make([]byte, size)...)
		return append(append(b[:head:head], item...), end...)
	}
}

func prefix(before string) func([]byte) []byte {
	return func(b []byte) []byte { return append([]byte(before), b...) }
}

func suffix(after string) func([]byte) []byte {
	return func(b []byte) []byte { return append(b, after...) }
}

// instead returns something else, whatever it is given.
func instead(of []byte) func([]byte) []byte {
	return func([]byte) []byte { return of }
}

// template changes one certificate.
func template(link int, f func(*x509.Certificate)) func(*plan) {
	return func(p *plan) { f(p.links[link].template) }
}

func noPathLength(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, false }

// longChain makes the longest chain that a document can hold.
func longChain(p *plan) {
	p.links = p.links[:1]
	for i := range 7 {
		p.addCA(fmt.Sprint("ca ", i), "ca", 6-i, x509.KeyUsageCertSign, time.Hour, 24*time.Hour)
	}
	p.addSigner()
}
