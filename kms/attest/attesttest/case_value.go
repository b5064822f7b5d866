package attesttest

import (
	"bytes"
	"strings"

	"strongroom/kms/attest"
)

// valueCases are documents whose payload is not the map that it has to be, or has a value that it cannot have.
func valueCases() []Case {
	return refused(attest.Malformed, append(payloadCases(), memberCases()...))
}

// payloadCases are those of the map.
func payloadCases() []Case {
	pcr := octets(bytes.Repeat([]byte{1}, 48))
	cases := []Case{
		{Name: "payload-trailing-byte", About: "a byte after the payload's map", encode: suffix("\x00")},
		{Name: "payload-no-break", About: "the break of the payload's map is missing", encode: func(b []byte) []byte { return b[:len(b)-1] }, state: indefinite},
		{Name: "payload-two-breaks", About: "two breaks after the payload's map", encode: suffix(cborBreak), state: indefinite},
		{Name: "payload-half", About: "the second half of the payload is missing", encode: func(b []byte) []byte { return b[:len(b)/2] }},
		{Name: "payload-short-count", About: "the payload's map has more pairs than it says", encode: func(b []byte) []byte {
			return append([]byte{b[0] - 1}, b[1:]...)
		}, state: definite},
		{Name: "payload-long-count", About: "the payload's map has fewer pairs than it says", encode: func(b []byte) []byte {
			return append([]byte{b[0] + 1}, b[1:]...)
		}, state: definite},
		{Name: "payload-odd", About: "a name without a value", encode: func(b []byte) []byte {
			return append(append(b[:len(b)-1:len(b)-1], text("extra")...), cborBreak...)
		}, state: indefinite},
		{Name: "payload-in-array", About: "the payload's map in an array", encode: func(b []byte) []byte { return array(b) }},
		{Name: "payload-in-octets", About: "the payload's map in a byte string", encode: octets},
		{Name: "payload-with-tag", About: "the payload's map with the tag of self-described CBOR", encode: prefix("\xd9\xd9\xf7")},
		{Name: "payload-is-null", About: "the payload is null", encode: instead([]byte(cborNull))},
		{Name: "payload-is-undefined", About: "the payload is undefined", encode: instead([]byte(cborUndefined))},
		{Name: "payload-is-empty-map", About: "the payload is an empty map", encode: instead([]byte("\xa0"))},

		{Name: "twice-module-id", About: "module_id twice", write: add("module_id", text("i-0"))},
		{Name: "twice-same", About: "digest twice, with the same value", write: add("digest", text("SHA384"))},
		{Name: "twice-wide", About: "module_id twice, once not in the shortest form", write: also("\x78\x09module_id", text("i-0"))},
		{Name: "twice-chunks", About: "module_id twice, once in chunks", write: also(string(chunks(majorText, []byte("module_id"), 3)), text("i-0"))},
		{Name: "twice-unknown", About: "a member that is not known, twice", write: func(m *members) {
			m.add("extra", unsigned(1))
			m.add("extra", unsigned(1))
		}},
		{Name: "twice-long", About: "a member that is not known, twice, with a name of 4000 bytes", write: func(m *members) {
			m.add(strings.Repeat("x", 4000), unsigned(1))
			m.add(strings.Repeat("x", 4000), unsigned(1))
		}},
		{Name: "twice-register", About: "PCR0 twice", write: func(m *members) {
			m.set("pcrs", append(registers(PCRs(attest.Enclave)), member{unsigned(0), pcr}).encode(false))
		}, state: asEnclave},
		{Name: "twice-register-wide", About: "PCR0 twice, once not in the shortest form", write: func(m *members) {
			m.set("pcrs", append(registers(PCRs(attest.Enclave)), member{[]byte("\x18\x00"), pcr}).encode(false))
		}, state: asEnclave},
		{Name: "twice-register-widest", About: "PCR0 twice, once in nine bytes", write: func(m *members) {
			m.set("pcrs", append(registers(PCRs(attest.Enclave)), member{appendWideHead(nil, majorUnsigned, 0, 8), pcr}).encode(true))
		}, state: asEnclave},
		{Name: "pcrs-both", About: "pcrs and nitrotpm_pcrs", write: func(m *members) {
			m.add("nitrotpm_pcrs", registers(PCRs(attest.NitroTPM)).encode(false))
		}, state: asEnclave},
		{Name: "pcrs-both-null", About: "pcrs, and nitrotpm_pcrs is null", write: add("nitrotpm_pcrs", []byte(cborNull)), state: asEnclave},

		{Name: "name-other-case", About: "Module_ID for module_id", write: rename("module_id", text("Module_ID"))},
		{Name: "name-other-case-pcrs", About: "PCRs for pcrs", write: rename("pcrs", text("PCRs")), state: asEnclave},
		{Name: "name-chunks", About: "the name module_id is in chunks", write: rename("module_id", chunks(majorText, []byte("module_id"), 3))},
		{Name: "name-chunks-unknown", About: "a name that is not known is in chunks", write: also(string(chunks(majorText, []byte("extra"), 3)), unsigned(1))},
		{Name: "name-octets", About: "the name module_id is a byte string", write: rename("module_id", octets([]byte("module_id")))},
		{Name: "name-octets-also", About: "a byte string as a name", write: also("\x45extra", unsigned(1))},
		{Name: "name-integer", About: "an integer as a name", write: also("\x01", unsigned(1))},
		{Name: "name-negative", About: "a negative integer as a name", write: also("\x20", unsigned(1))},
		{Name: "name-null", About: "null as a name", write: also(cborNull, unsigned(1))},
		{Name: "name-undefined", About: "undefined as a name", write: also(cborUndefined, unsigned(1))},
		{Name: "name-false", About: "false as a name", write: also(cborFalse, unsigned(1))},
		{Name: "name-float", About: "a float as a name", write: also("\xf9\x7e\x00", unsigned(1))},
		{Name: "name-array", About: "an array as a name", write: also("\x81\x01", unsigned(1))},
		{Name: "name-map", About: "a map as a name", write: also("\xa1\x01\x01", unsigned(1))},
		{Name: "name-tagged", About: "a name with a tag", write: also("\xc0\x65extra", unsigned(1))},
		{Name: "name-not-utf-8", About: "a name that is not UTF-8", write: also("\x62\xc3\x28", unsigned(1))},

		{Name: "unknown-chunks", About: "a member that is not known, in chunks", write: add("extra", chunks(majorOctets, make([]byte, 99), 10))},
		{Name: "unknown-float", About: "a member that is not known, a float", write: add("extra", []byte("\xfb\x7f\xf0\x00\x00\x00\x00\x00\x00"))},
		{Name: "unknown-undefined", About: "a member that is not known, undefined", write: add("extra", []byte(cborUndefined))},
		{Name: "unknown-twice-inside", About: "a member that is not known, a map with one name twice", write: add("extra", []byte("\xa2\x61a\x00\x61a\x01"))},
		{Name: "unknown-not-utf-8", About: "a member that is not known, text that is not UTF-8", write: add("extra", []byte("\x62\xc3\x28"))},
		{Name: "unknown-other-case", About: "a member that is known by the same name in lower case", write: add("Module_ID", text("i-0"))},
		{Name: "unknown-text-chunks", About: "a member that is not known, text in chunks", write: add("extra", chunks(majorText, make([]byte, 99), 10))},
		{Name: "unknown-float-inside", About: "a member that is not known, an array with a float of 16 bits", write: add("extra", array([]byte("\xf9\x3c\x00")))},
		{Name: "unknown-simple-16", About: "a member that is not known, the simple value 16", write: add("extra", []byte("\xf0"))},
		{Name: "other-case-pcrs", About: "a member called PCRS beside that in lower case", write: add("PCRS", members{}.encode(false))},
		{Name: "other-case-nitrotpm-pcrs", About: "a member called NITROTPM_PCRS beside that in lower case", write: add("NITROTPM_PCRS", members{}.encode(false))},
		{Name: "other-case-certificate", About: "a member called Certificate beside that in lower case", write: add("Certificate", octets([]byte{1}))},
		{Name: "other-case-cabundle", About: "a member called CABundle beside that in lower case", write: add("CABundle", array())},
		{Name: "other-case-public-key", About: "a member called Public_Key beside that in lower case", write: add("Public_Key", []byte(cborNull))},
		{Name: "other-case-timestamp", About: "a member called TIMESTAMP beside that in lower case", write: add("TIMESTAMP", unsigned(1))},
		{Name: "other-case-nonce", About: "a member called Nonce beside that in lower case", write: add("Nonce", []byte(cborNull))},
		{Name: "unknown-tagged", About: "a member that is not known, with a tag", write: add("extra", []byte("\xc1\x00"))},
		{Name: "unknown-too-deep", About: "a member that is not known, deeper than is read", write: add("extra", array(array(array(array(unsigned(1))))))},
		{Name: "unknown-too-many", About: "a member that is not known, an array of 17", write: add("extra", []byte(arrayOf(17, "\x00")))},
		{Name: "unknown-too-wide", About: "a member that is not known, a map of 33", write: add("extra", []byte(mapOf(33, "\x00")))},
		{Name: "unknown-chunk-of-chunks", About: "a member that is not known, in chunks that are in chunks", write: add("extra", []byte("\x5f\x5f\x41\x00\xff\xff"))},
		{Name: "unknown-mixed-chunks", About: "a member that is not known, a byte string in chunks of text", write: add("extra", []byte("\x5f\x61x\xff"))},
		{Name: "unknown-reserved", About: "a member that is not known, of a kind that does not exist", write: add("extra", []byte("\xfc"))},
		{Name: "unknown-simple", About: "a member that is not known, a simple value in a form that it must not have", write: add("extra", []byte("\xf8\x14"))},
		{Name: "unknown-break", About: "a member that is not known, a break", write: add("extra", []byte(cborBreak)), state: definite},
		{Name: "members-33", About: "33 members", write: func(m *members) {
			for i := range 24 {
				m.add("extra"+string(rune('a'+i)), unsigned(0))
			}
		}},
	}
	// What costs most, first where the map should be and then in a member that is not known.
	for _, c := range []struct{ name, about, item string }{
		{"claims-2^32-pairs", "a map that claims 2^32 pairs", "\xbb\x00\x00\x00\x01\x00\x00\x00\x00\x61a\x00"},
		{"claims-2^64-pairs", "a map that claims 2^64-1 pairs", "\xbb\xff\xff\xff\xff\xff\xff\xff\xff\x61a\x00"},
		{"claims-2^63-elements", "an array that claims 2^63 elements", "\x9b\x80\x00\x00\x00\x00\x00\x00\x00\x00"},
		{"claims-2^64-text", "text that claims 2^64-1 bytes", "\x7b\xff\xff\xff\xff\xff\xff\xff\xffx"},
		{"claims-2^63-octets", "a byte string that claims 2^63 bytes", "\x5b\x80\x00\x00\x00\x00\x00\x00\x00x"},
		{"claims-2^31-octets", "a byte string that claims 2^31-1 bytes", "\x5a\x7f\xff\xff\xffx"},
		{"claims-2^31-chunk", "a chunk that claims 2^31-1 bytes", "\x5f\x5a\x7f\xff\xff\xffx\xff"},
		{"deep-arrays", "arrays in arrays, 10,000 deep", strings.Repeat("\x81", 10000) + "\x80"},
		{"deep-arrays-indefinite", "arrays of indefinite length, 5000 deep", strings.Repeat("\x9f", 5000) + strings.Repeat(cborBreak, 5000)},
		{"deep-maps", "maps in maps, 3000 deep", strings.Repeat("\xa1\x61a", 3000) + "\xa0"},
		{"deep-maps-indefinite", "maps of indefinite length, 2500 deep", strings.Repeat("\xbf\x61a", 2500) + "\xa0" + strings.Repeat(cborBreak, 2500)},
		{"deep-tags", "10,000 tags", strings.Repeat("\xc0", 10000) + "\xa0"},
		{"costly-elements", "10,000 elements", "\x9f" + strings.Repeat("\x60", 10000) + cborBreak},
		{"costly-pairs", "5000 pairs with one name", "\xbf" + strings.Repeat("\x60\x60", 5000) + cborBreak},
	} {
		cases = append(cases,
			Case{Name: "payload-" + c.name, About: c.about + ", as the payload", encode: instead([]byte(c.item))},
			Case{Name: "unknown-" + c.name, About: c.about + ", in a member that is not known", write: add("extra", []byte(c.item))})
	}
	return append(cases,
		// Well-formed all of it, so that it is read to the end before what is missing is missed.
		Case{Name: "payload-costly-chunks", About: "members in 16,000 empty chunks, and no other", encode: instead([]byte("\xa1\x61a\x5f" + strings.Repeat("\x40", 16000) + cborBreak))},
		Case{Name: "payload-costly-text", About: "members in 16,000 empty chunks of text, and no other", encode: instead([]byte("\xa1\x61a\x7f" + strings.Repeat("\x60", 16000) + cborBreak))},
		Case{Name: "payload-costly-maps", About: "members with maps in maps, and no other", encode: instead([]byte(namedMapOf(32, mapOf(32, arrayOf(10, "\x80")))))},
		Case{Name: "payload-costly-one-maps", About: "members with arrays of arrays of maps, and no other", encode: instead([]byte(namedMapOf(32, arrayOf(16, arrayOf(10, "\xa1\x00\x00")))))},
		Case{Name: "payload-costly-arrays", About: "members with arrays in arrays, and no other", encode: instead([]byte(namedMapOf(32, arrayOf(16, arrayOf(16, "\x80")))))},
	)
}

func definite(s *Statement) { s.Definite = true }

func indefinite(s *Statement) { s.Definite = false }

// also adds a member whose name is encoded.
func also(name string, item []byte) func(*members) {
	return func(m *members) { *m = append(*m, member{[]byte(name), item}) }
}

// rename gives a member another name, encoded.
func rename(from string, to []byte) func(*members) {
	return func(m *members) { m.rename(from, to) }
}

// namedMapOf returns a map of up to 255 names, each to the same item.
func namedMapOf(n int, item string) string {
	b := appendHead(nil, majorMap, uint64(n))
	for i := range n {
		b = append(appendText(b, string([]byte{byte('a' + i/16), byte('a' + i%16)})), item...)
	}
	return string(b)
}
