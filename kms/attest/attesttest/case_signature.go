package attesttest

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"math/big"

	"strongroom/kms/attest"
)

// signatureCases are documents whose chain is right, and which its end did not sign.
func signatureCases() []Case {
	n := elliptic.P384().Params().N.Bytes()
	return refused(attest.BadSignature, []Case{
		{Name: "signature-zero", About: "96 zeros for the signature", finish: setSignature(0, make([]byte, 96))},
		{Name: "signature-ff", About: "96 bytes 0xff for the signature", finish: setSignature(0, bytes.Repeat([]byte{0xff}, 96))},
		{Name: "signature-r-zero", About: "r = 0", finish: setSignature(0, make([]byte, 48))},
		{Name: "signature-s-zero", About: "s = 0", finish: setSignature(48, make([]byte, 48))},
		{Name: "signature-r-n", About: "r = n", finish: setSignature(0, n)},
		{Name: "signature-s-n", About: "s = n", finish: setSignature(48, n)},
		{Name: "signature-one", About: "r = s = 1", finish: func(m *message) {
			m.signature = append(append(make([]byte, 47), 1), append(make([]byte, 47), 1)...)
		}},
		{Name: "signature-swapped", About: "s and r", finish: func(m *message) {
			m.signature = append(m.signature[48:96:96], m.signature[:48]...)
		}},
		{Name: "signature-little-endian", About: "r and s in the other byte order", finish: func(m *message) {
			for i := range 24 {
				m.signature[i], m.signature[47-i] = m.signature[47-i], m.signature[i]
				m.signature[48+i], m.signature[95-i] = m.signature[95-i], m.signature[48+i]
			}
		}},
		{Name: "signature-bit", About: "one bit of the signature is another", finish: func(m *message) { m.signature = flip(m.signature, 50) }},
		{Name: "signature-of-payload", About: "a signature of the payload alone", finish: signatureOf(func(m *message) []byte { return m.payload })},
		{Name: "signature-of-document", About: "a signature of the document without it", finish: signatureOf(func(m *message) []byte {
			return array(octets(m.protected), m.unprotected, octets(m.payload))
		})},
		{Name: "signature-of-many", About: "a signature as a COSE_Sign has it", finish: signatureOf(func(m *message) []byte {
			return array(text("Signature"), octets(m.protected), octets(m.protected), octets(nil), octets(m.payload))
		})},
		{Name: "signature-counter", About: "a countersignature", finish: signatureOf(func(m *message) []byte {
			return array(text("CounterSignature"), octets(m.protected), octets(nil), octets(nil), octets(m.payload))
		})},
		{Name: "signature-external", About: "a signature that takes in something that is not in the document", finish: signatureOf(func(m *message) []byte {
			return array(text("Signature1"), octets(m.protected), octets([]byte("something")), octets(m.payload))
		})},
		{Name: "signature-no-header", About: "a signature without the protected header", finish: signatureOf(func(m *message) []byte {
			return array(text("Signature1"), octets(nil), octets(nil), octets(m.payload))
		})},
		{Name: "signature-sha256", About: "a signature with SHA-256", wrap: func(m *message) { m.hash = crypto.SHA256 }},
		{Name: "signature-sha512", About: "a signature with SHA-512", wrap: func(m *message) { m.hash = crypto.SHA512 }},
		{Name: "signed-by-instance", About: "the instance has signed it", plan: signWith(linkInstance)},
		{Name: "signed-by-root", About: "the root has signed it", plan: signWith(linkRoot)},
		{Name: "signed-by-nobody", About: "a key that is in no certificate has signed it", plan: func(p *plan) {
			signer := p.links[linkSigner]
			signer.public, signer.key = signer.key.Public(), p.random.key("nobody", elliptic.P384())
		}},
		{Name: "altered-register", About: "PCR0 was altered", state: asEnclave, finish: func(m *message) {
			m.payload = flip(m.payload, bytes.Index(m.payload, text("pcrs"))+20)
		}},
		{Name: "altered-time", About: "the time was altered by a millisecond", finish: func(m *message) {
			i := bytes.Index(m.payload, text("timestamp")) + 10 + 8
			m.payload = flip(m.payload, i)
		}},
		{Name: "altered-key", About: "the key was altered", finish: func(m *message) {
			i := bytes.Index(m.payload, text("public_key"))
			m.payload = flip(m.payload, min(i+60, len(m.payload)-1))
		}},
		{Name: "altered-added", About: "a member was added", finish: func(m *message) {
			m.payload = append(m.payload[:len(m.payload)-1:len(m.payload)-1], append(append(text("extra"), 0), cborBreak...)...)
		}, state: indefinite},
		{Name: "altered-encoding", About: "the map was given a definite length", finish: func(m *message) {
			m.payload = append([]byte{majorMap<<5 | 9}, m.payload[1:len(m.payload)-1]...)
		}, state: indefinite},
	})
}

// setSignature overwrites part of a signature.
func setSignature(at int, with []byte) func(*message) {
	return func(m *message) { copy(m.signature[at:], with) }
}

// signatureOf signs something else than what has to be signed.
func signatureOf(f func(*message) []byte) func(*message) {
	return func(m *message) {
		h := m.hash.New()
		h.Write(f(m))
		r, s := signature(m.signer, h.Sum(nil), m.hash)
		m.signature = append(fixedWidth(r), fixedWidth(s)...)
	}
}

func fixedWidth(x *big.Int) []byte { return x.FillBytes(make([]byte, 48)) }

// signWith has the document signed with the key of another certificate than the signer's.
func signWith(link int) func(*plan) {
	return func(p *plan) {
		signer := p.links[linkSigner]
		signer.public, signer.key = signer.key.Public(), p.links[link].key
	}
}
