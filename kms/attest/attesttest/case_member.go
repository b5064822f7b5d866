package attesttest

import (
	"bytes"
	"strings"
)

// memberCases are those of the values of members.
func memberCases() []Case {
	pcr := octets(bytes.Repeat([]byte{1}, 48))
	cases := []Case{
		{Name: "module-id-empty", About: "an empty module id", write: value("module_id", text(""))},
		{Name: "module-id-257", About: "a module id of 257 bytes", write: value("module_id", text(strings.Repeat("x", 257)))},
		{Name: "module-id-octets", About: "a module id that is a byte string", write: value("module_id", octets([]byte("i-0")))},
		{Name: "module-id-chunks", About: "a module id in chunks", write: value("module_id", chunks(majorText, []byte("i-0123456789"), 4))},
		{Name: "module-id-not-utf-8", About: "a module id that is not UTF-8", write: value("module_id", []byte("\x62\xc3\x28"))},
		{Name: "module-id-surrogate", About: "a module id with half a surrogate pair", write: value("module_id", []byte("\x63\xed\xa0\x80"))},
		{Name: "module-id-array", About: "a module id in an array", write: value("module_id", array(text("i-0")))},

		{Name: "digest-sha512", About: "SHA512 as the digest", write: value("digest", text("SHA512"))},
		{Name: "digest-lower-case", About: "sha384 as the digest", write: value("digest", text("sha384"))},
		{Name: "digest-hyphen", About: "SHA-384 as the digest", write: value("digest", text("SHA-384"))},
		{Name: "digest-empty", About: "an empty digest", write: value("digest", text(""))},
		{Name: "digest-octets", About: "a digest that is a byte string", write: value("digest", octets([]byte("SHA384")))},

		{Name: "timestamp-zero", About: "a time of 0", write: value("timestamp", unsigned(0))},
		{Name: "timestamp-negative", About: "a negative time", write: value("timestamp", appendHead(nil, majorNegative, 0))},
		{Name: "timestamp-2^64", About: "a time of 2^64-1", write: value("timestamp", unsigned(1<<64-1))},
		{Name: "timestamp-2^63", About: "a time of 2^63", write: value("timestamp", unsigned(1<<63))},
		{Name: "timestamp-year-10000", About: "the first millisecond of the year 10000", write: value("timestamp", unsigned(253402300800000))},
		{Name: "timestamp-text", About: "a time in words", write: value("timestamp", text("2026-01-01T00:00:00Z"))},
		{Name: "timestamp-tagged", About: "a time with the tag of times", write: value("timestamp", append([]byte("\xc1"), unsigned(1767225600000)...))},
		{Name: "timestamp-float", About: "a time that is a float", write: value("timestamp", []byte("\xfb\x42\x79\xb7\xb4\xd0\xa0\x00\x00"))},
		{Name: "timestamp-bignum", About: "a time that is a bignum", write: value("timestamp", []byte("\xc2\x46\x01\x9b\x76\x9c\x94\x00"))},
		{Name: "timestamp-octets", About: "a time that is a byte string", write: value("timestamp", octets([]byte{1, 0x9b, 0x76, 0x9c, 0x94, 0}))},

		{Name: "pcrs-empty", About: "no PCRs", write: value("pcrs", members{}.encode(false)), state: asEnclave},
		{Name: "pcrs-array", About: "an array of PCRs", write: value("pcrs", array(pcr, pcr, pcr)), state: asEnclave},
		{Name: "pcrs-octets", About: "a byte string of PCRs", write: value("pcrs", pcr), state: asEnclave},
		{Name: "pcrs-33", About: "PCR0 to PCR32", write: func(m *members) {
			var all members
			for i := range uint64(33) {
				all = append(all, member{unsigned(i), pcr})
			}
			m.set("pcrs", all.encode(false))
		}, state: asEnclave},
		{Name: "nitrotpm-24", About: "PCR24 of a NitroTPM, which ends with 23", state: func(s *Statement) {
			asNitroTPM(s)
			s.PCRs[24] = make([]byte, 48)
		}},
		{Name: "nitrotpm-empty", About: "no PCRs of a NitroTPM", write: value("nitrotpm_pcrs", members{}.encode(false)), state: asNitroTPM},
		{Name: "register-32", About: "PCR32", write: register(unsigned(32), pcr), state: asEnclave},
		{Name: "register-2^32", About: "PCR0 plus 2^32", write: register(unsigned(1<<32), pcr), state: asEnclave},
		{Name: "register-2^64", About: "PCR 2^64-1", write: register(unsigned(1<<64-1), pcr), state: asEnclave},
		{Name: "register-negative", About: "PCR-1", write: register(appendHead(nil, majorNegative, 0), pcr), state: asEnclave},
		{Name: "register-text", About: `PCR "0"`, write: register(text("0"), pcr), state: asEnclave},
		{Name: "register-octets", About: "PCR h'00'", write: register(octets([]byte{0}), pcr), state: asEnclave},
		{Name: "register-null", About: "PCR null", write: register([]byte(cborNull), pcr), state: asEnclave},
		{Name: "register-undefined", About: "PCR undefined", write: register([]byte(cborUndefined), pcr), state: asEnclave},
		{Name: "register-false", About: "PCR false", write: register([]byte(cborFalse), pcr), state: asEnclave},
		{Name: "register-float", About: "PCR 0.0", write: register([]byte("\xf9\x00\x00"), pcr), state: asEnclave},
		{Name: "register-tagged", About: "a PCR whose index is a bignum", write: register([]byte("\xc2\x41\x00"), pcr), state: asEnclave},
		{Name: "register-of-32", About: "a PCR of 32 bytes", write: register(unsigned(16), octets(make([]byte, 32))), state: asEnclave},
		{Name: "register-of-64", About: "a PCR of 64 bytes", write: register(unsigned(16), octets(make([]byte, 64))), state: asEnclave},
		{Name: "register-of-0", About: "a PCR of no bytes", write: register(unsigned(16), octets(nil)), state: asEnclave},
		{Name: "register-is-null", About: "a PCR that is null", write: register(unsigned(16), []byte(cborNull)), state: asEnclave},
		{Name: "register-is-text", About: "a PCR that is text", write: register(unsigned(16), text(strings.Repeat("0", 48))), state: asEnclave},
		{Name: "register-is-integers", About: "a PCR that is an array of integers", write: register(unsigned(16), []byte(arrayOf(16, "\x01"))), state: asEnclave},
		{Name: "register-is-chunks", About: "a PCR in chunks", write: register(unsigned(16), chunks(majorOctets, make([]byte, 48), 24)), state: asEnclave},

		{Name: "certificate-empty", About: "the signer's certificate has no bytes", write: value("certificate", octets(nil))},
		{Name: "certificate-1025", About: "the signer's certificate has 1025 bytes", write: value("certificate", octets(make([]byte, 1025)))},
		{Name: "certificate-text", About: "the signer's certificate is text", write: value("certificate", text(strings.Repeat("M", 800)))},
		{Name: "certificate-chunks", About: "the signer's certificate is in chunks", write: func(m *members) {
			m.set("certificate", chunks(majorOctets, m.get("certificate")[3:], 100))
		}},
		{Name: "certificate-array", About: "the signer's certificate is in an array", write: func(m *members) {
			m.set("certificate", array(m.get("certificate")))
		}},
		{Name: "bundle-empty", About: "no certificates above the signer", write: value("cabundle", array())},
		{Name: "bundle-of-9", About: "nine certificates above the signer", write: func(m *members) {
			der := m.get("certificate")
			m.set("cabundle", array(der, der, der, der, der, der, der, der, der))
		}},
		{Name: "bundle-of-octets", About: "a byte string for the bundle", write: value("cabundle", octets(make([]byte, 600)))},
		{Name: "bundle-map", About: "a map for the bundle", write: func(m *members) {
			m.set("cabundle", members{{unsigned(0), m.get("certificate")}}.encode(false))
		}},
		{Name: "bundle-entry-empty", About: "a certificate of no bytes in the bundle", write: bundled(octets(nil))},
		{Name: "bundle-entry-1025", About: "a certificate of 1025 bytes in the bundle", write: bundled(octets(make([]byte, 1025)))},
		{Name: "bundle-entry-null", About: "null in the bundle", write: bundled([]byte(cborNull))},
		{Name: "bundle-entry-text", About: "text in the bundle", write: bundled(text("MIIC"))},
		{Name: "bundle-entry-array", About: "an array in the bundle", write: bundled(array(octets([]byte{0x30})))},
		{Name: "bundle-entry-integers", About: "a certificate in the bundle that is an array of integers", write: bundled(array(unsigned(0x30), unsigned(0)))},
		{Name: "bundle-entry-chunks", About: "a certificate in the bundle in chunks", write: bundled(chunks(majorOctets, make([]byte, 600), 100))},
	}
	for _, name := range []string{"module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"} {
		word := strings.ReplaceAll(name, "_", "-")
		cases = append(cases,
			Case{Name: "missing-" + word, About: name + " is missing", write: func(m *members) { m.remove(name) }, state: asEnclave},
			Case{Name: "null-" + word, About: name + " is null", write: value(name, []byte(cborNull)), state: asEnclave},
			Case{Name: "undefined-" + word, About: name + " is undefined", write: value(name, []byte(cborUndefined)), state: asEnclave})
	}
	for _, name := range []string{"public_key", "user_data", "nonce"} {
		word := strings.ReplaceAll(name, "_", "-")
		cases = append(cases,
			Case{Name: "undefined-" + word, About: name + " is undefined", write: value(name, []byte(cborUndefined))},
			Case{Name: word + "-false", About: name + " is false", write: value(name, []byte(cborFalse))},
			Case{Name: word + "-text", About: name + " is text", write: value(name, text("something"))},
			Case{Name: word + "-integer", About: name + " is an integer", write: value(name, unsigned(1))},
			Case{Name: word + "-integers", About: name + " is an array of integers", write: value(name, array(unsigned(1), unsigned(2)))},
			Case{Name: word + "-tagged", About: name + " has a tag", write: value(name, append([]byte("\xd7"), octets([]byte{1})...))},
			Case{Name: word + "-chunks", About: name + " is in chunks", write: value(name, chunks(majorOctets, make([]byte, 20), 10))},
			Case{Name: word + "-no-chunks", About: name + " is in chunks of which there are none", write: value(name, chunks(majorOctets, nil, 1))},
			Case{Name: word + "-1025", About: name + " has 1025 bytes", write: value(name, octets(make([]byte, 1025)))})
	}
	return cases
}

// register adds a PCR, encoded, to those that a statement has.
func register(index, item []byte) func(*members) {
	return func(m *members) {
		// PCR15 ends a map of 16, whose head is one byte.
		all := m.get("pcrs")
		m.set("pcrs", append(append(appendHead(nil, majorMap, 17), all[1:]...), append(index, item...)...))
	}
}

// bundled makes a bundle of the root and an item.
func bundled(item []byte) func(*members) {
	return func(m *members) {
		root := m.get("cabundle")[1:]
		size := 3 + int(root[1])<<8 + int(root[2]) // a byte string whose length is in two bytes
		m.set("cabundle", array(root[:size:size], item))
	}
}
