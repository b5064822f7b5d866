package attesttest

import (
	"bytes"
	"math/big"
	"strings"

	"strongroom/kms/attest"
)

// formCases are documents that are no COSE_Sign1, or another one than that of real documents.
func formCases() []Case {
	cases := []Case{
		{Name: "alg-es256", About: "the protected header says ES256", wrap: protected("\xa1\x01\x26")},
		{Name: "alg-es512", About: "the protected header says ES512", wrap: protected("\xa1\x01\x38\x23")},
		{Name: "alg-wide", About: "the protected header's ES384 is not in the shortest form", wrap: protected("\xa1\x01\x39\x00\x22")},
		{Name: "alg-text", About: "the protected header says ES384 in words", wrap: protected("\xa1\x01\x65ES384")},
		{Name: "alg-unprotected", About: "the algorithm is in the unprotected header", wrap: func(m *message) {
			m.protected, m.unprotected = nil, []byte(headerES384)
		}},
		{Name: "header-empty", About: "the protected header has no bytes", wrap: protected("")},
		{Name: "header-empty-map", About: "the protected header is an empty map", wrap: protected("\xa0")},
		{Name: "header-indefinite", About: "the protected header has an indefinite length", wrap: protected("\xbf\x01\x38\x22\xff")},
		{Name: "header-crit", About: "the protected header calls a parameter critical", wrap: protected("\xa3\x01\x38\x22\x02\x81\x18\x63\x18\x63\xf6")},
		{Name: "header-key-id", About: "the protected header names a key", wrap: protected("\xa2\x01\x38\x22\x04\x41\x31")},
		{Name: "header-twice", About: "the protected header has the algorithm twice", wrap: protected("\xa2\x01\x38\x22\x01\x38\x22")},
		{Name: "unprotected-key-id", About: "the unprotected header names a key", wrap: unprotected("\xa1\x04\x41\x31")},
		{Name: "unprotected-alg", About: "the unprotected header has the algorithm too", wrap: unprotected(headerES384)},
		{Name: "unprotected-null", About: "the unprotected header is null", wrap: unprotected(cborNull)},
		{Name: "unprotected-array", About: "the unprotected header is an empty array", wrap: unprotected("\x80")},
		{Name: "unprotected-empty", About: "the unprotected header is an empty byte string", wrap: unprotected("\x40")},

		{Name: "tag-18-twice", About: "tag 18 twice", raw: prefix("\xd2\xd2")},
		{Name: "tag-18-wide", About: "tag 18, not in the shortest form", raw: prefix("\xd8\x12")},
		{Name: "tag-98", About: "the tag of COSE_Sign", raw: prefix("\xd8\x62")},
		{Name: "tag-17", About: "the tag of COSE_Mac0", raw: prefix("\xd1")},
		{Name: "tag-cwt", About: "the tag of a CBOR Web Token around it", raw: prefix("\xd8\x3d\xd2")},
		{Name: "tag-self-described", About: "the tag of self-described CBOR", raw: prefix("\xd9\xd9\xf7")},
		{Name: "tag-alone", About: "tag 18 and nothing", raw: instead([]byte("\xd2"))},

		{Name: "empty", About: "no bytes", raw: instead(nil)},
		{Name: "trailing-byte", About: "a byte after the end", raw: suffix("\x00")},
		{Name: "trailing-break", About: "a break after the end", raw: suffix(cborBreak)},
		{Name: "twice", About: "the document twice", raw: func(b []byte) []byte { return append(b, b...) }},
		{Name: "cut", About: "the last byte is missing", raw: func(b []byte) []byte { return b[:len(b)-1] }},
		{Name: "half", About: "the second half is missing", raw: func(b []byte) []byte { return b[:len(b)/2] }},
		{Name: "base64", About: "its base64", raw: func(b []byte) []byte { return []byte("hEShATgi" + strings.Repeat("oFkR", len(b)/3)) }},
		{Name: "too-long", About: "32 KiB and a byte", raw: func(b []byte) []byte { return append(b, make([]byte, max(0, attest.MaxSize+1-len(b)))...) }},
		{Name: "api-longest", About: "262,144 bytes, the most that the API takes", raw: func(b []byte) []byte {
			return append(b, make([]byte, max(0, 262144-len(b)))...)
		}},

		{Name: "array-of-three", About: "an array without a signature", raw: elements(func(e [][]byte) []byte { return array(e[:3]...) })},
		{Name: "array-of-five", About: "an array with something more", raw: elements(func(e [][]byte) []byte { return array(append(e, octets(nil))...) })},
		{Name: "array-indefinite", About: "an array of indefinite length", raw: elements(func(e [][]byte) []byte {
			return append(append([]byte{majorArray<<5 | 31}, bytes.Join(e, nil)...), cborBreak...)
		})},
		{Name: "array-wide", About: "an array whose length is not in the shortest form", raw: elements(func(e [][]byte) []byte {
			return append(appendWideHead(nil, majorArray, 4, 1), bytes.Join(e, nil)...)
		})},
		{Name: "array-in-array", About: "the array in another", raw: func(b []byte) []byte { return array(b) }},
		{Name: "array-in-octets", About: "the array in a byte string", raw: octets},
		{Name: "map", About: "a map in place of the array", raw: elements(func(e [][]byte) []byte {
			return members{{unsigned(0), e[0]}, {unsigned(1), e[1]}, {unsigned(2), e[2]}, {unsigned(3), e[3]}}.encode(false)
		})},
		{Name: "payload-bare", About: "only the payload", raw: elements(func(e [][]byte) []byte { return e[2][3:] })},

		{Name: "protected-map", About: "the protected header is not in a byte string", raw: element(0, []byte(headerES384))},
		{Name: "protected-null", About: "the protected header is null", raw: element(0, []byte(cborNull))},
		{Name: "protected-chunks", About: "the protected header is in chunks", raw: element(0, chunks(majorOctets, []byte(headerES384), 2))},
		{Name: "payload-null", About: "the payload is null, as if it came apart from its signature", raw: element(2, []byte(cborNull))},
		{Name: "payload-empty", About: "the payload has no bytes", raw: element(2, octets(nil))},
		{Name: "payload-map", About: "the payload is not in a byte string", raw: elements(func(e [][]byte) []byte {
			return array(e[0], e[1], e[2][3:], e[3])
		})},
		{Name: "payload-text", About: "the payload is a text string", raw: elements(func(e [][]byte) []byte {
			return array(e[0], e[1], text(strings.Repeat("x", 4000)), e[3])
		})},
		{Name: "payload-chunks", About: "the payload is in chunks", raw: elements(func(e [][]byte) []byte {
			return array(e[0], e[1], chunks(majorOctets, e[2][3:], 1000), e[3])
		})},
		{Name: "payload-tagged", About: "the payload is tagged as CBOR", raw: elements(func(e [][]byte) []byte {
			return array(e[0], e[1], append([]byte("\xd8\x18"), e[2]...), e[3])
		})},
		{Name: "payload-integers", About: "the payload is an array of integers", raw: elements(func(e [][]byte) []byte {
			return array(e[0], e[1], array(unsigned(0xa1), unsigned(0x60), unsigned(0x60)), e[3])
		})},
		{Name: "payload-too-long", About: "a payload of 16,385 bytes", write: fillUp, encode: resize(16385)},
		{Name: "signature-null", About: "the signature is null", raw: element(3, []byte(cborNull))},
		{Name: "signature-chunks", About: "the signature is in chunks", raw: elements(func(e [][]byte) []byte {
			return array(e[0], e[1], e[2], chunks(majorOctets, e[3][2:], 48))
		})},
		{Name: "signature-empty", About: "the signature has no bytes", raw: element(3, octets(nil))},
		{Name: "signature-64-zeros", About: "the signature is 64 zeros, as QEMU's Nitro Security Module writes it", raw: element(3, octets(make([]byte, 64)))},
		{Name: "signature-95", About: "a byte of the signature is missing", finish: func(m *message) { m.signature = m.signature[:95] }},
		{Name: "signature-97", About: "a byte follows the signature", finish: func(m *message) { m.signature = append(m.signature, 0) }},
		{Name: "signature-der", About: "the signature is in DER", finish: func(m *message) {
			r, s := new(big.Int).SetBytes(m.signature[:48]), new(big.Int).SetBytes(m.signature[48:])
			m.signature = mustMarshal(struct{ R, S *big.Int }{r, s})
		}},
		{Name: "signature-text", About: "the signature is a text string", raw: element(3, text(strings.Repeat("x", 96)))},

		{Name: "claims-2^64-octets", About: "the protected header claims 2^64-1 bytes", raw: instead([]byte("\x84\x5b\xff\xff\xff\xff\xff\xff\xff\xff\xa1"))},
		{Name: "claims-2^63-octets", About: "the payload claims 2^63 bytes", raw: claims("\x5b\x80\x00\x00\x00\x00\x00\x00\x00")},
		{Name: "claims-2^31-octets", About: "the payload claims 2^31-1 bytes", raw: claims("\x5a\x7f\xff\xff\xff")},
		{Name: "claims-2^64-elements", About: "an array that claims 2^64-1 elements", raw: instead([]byte("\x9b\xff\xff\xff\xff\xff\xff\xff\xff\x00"))},
		{Name: "claims-2^63-elements", About: "the unprotected header is an array that claims 2^63 elements", raw: header("\x9b\x80\x00\x00\x00\x00\x00\x00\x00")},
		{Name: "claims-2^32-pairs", About: "the unprotected header claims 2^32 pairs", raw: header("\xbb\x00\x00\x00\x01\x00\x00\x00\x00")},
		{Name: "claims-2^63-pairs", About: "the unprotected header claims 2^63 pairs", raw: header("\xbb\x80\x00\x00\x00\x00\x00\x00\x00")},
		{Name: "reserved-head", About: "an argument that is reserved", raw: header("\xbc")},

		{Name: "deep-arrays", About: "arrays in arrays, 10,000 deep", raw: header(strings.Repeat("\x81", 10000) + "\x80")},
		{Name: "deep-arrays-indefinite", About: "arrays of indefinite length, 10,000 deep", raw: header(strings.Repeat("\x9f", 10000) + strings.Repeat(cborBreak, 10000))},
		{Name: "deep-maps", About: "maps in maps, 10,000 deep", raw: header(strings.Repeat("\xa1\x00", 10000) + "\xa0")},
		{Name: "deep-maps-indefinite", About: "maps of indefinite length, 10,000 deep", raw: header(strings.Repeat("\xbf\x00", 10000))},
		{Name: "deep-tags", About: "10,000 tags", raw: header(strings.Repeat("\xc0", 10000) + "\xa0")},
		{Name: "deep-tags-18", About: "10,000 times tag 18", raw: prefix(strings.Repeat("\xd2", 10000))},

		{Name: "costly-chunks", About: "32 KiB of empty chunks", raw: header("\x5f" + strings.Repeat("\x40", 32<<10-200) + cborBreak)},
		{Name: "costly-elements", About: "32 KiB of elements", raw: header("\x9f" + strings.Repeat("\x00", 32<<10-200) + cborBreak)},
		{Name: "costly-maps", About: "30 KiB of maps in maps, as wide and deep as are read", raw: header(mapOf(32, mapOf(32, mapOf(14, "\x00"))))},
		{Name: "costly-arrays", About: "20 KiB of arrays in arrays, as wide and deep as are read", raw: header(arrayOf(16, arrayOf(16, "\x90"+strings.Repeat("\x1a\x00\x00\x00\x00", 16))))},
	}
	return refused(attest.Malformed, cases)
}

// refused gives cases the reason that they have in common.
func refused(reason attest.Reason, cases []Case) []Case {
	for i := range cases {
		cases[i].Reason = reason
	}
	return cases
}

func protected(header string) func(*message) {
	return func(m *message) { m.protected = []byte(header) }
}

func unprotected(header string) func(*message) {
	return func(m *message) { m.unprotected = []byte(header) }
}

// elements makes something else of the four elements of a document, encoded.
func elements(f func([][]byte) []byte) func([]byte) []byte {
	return func(b []byte) []byte {
		const payload = 1 + 5 + 1 // where it begins
		end := len(b) - 98
		return f([][]byte{b[1:6], b[6:7], b[payload:end], b[end:]})
	}
}

// element puts something in the place of one of the four.
func element(i int, item []byte) func([]byte) []byte {
	return elements(func(e [][]byte) []byte {
		e[i] = item
		return array(e...)
	})
}

// claims ends a document with the head of its payload.
func claims(head string) func([]byte) []byte {
	return instead([]byte("\x84\x44" + headerES384 + "\xa0" + head + "\xa0"))
}

// header returns a document with another unprotected header, and next to nothing in it.
func header(item string) func([]byte) []byte {
	return instead([]byte("\x84\x44" + headerES384 + item + "\x41\xa0" + "\x58\x60" + strings.Repeat("\x01", 96)))
}

// mapOf returns a map of up to 255 integers, each to the same item.
func mapOf(n int, item string) string {
	b := appendHead(nil, majorMap, uint64(n))
	for i := range n {
		b = append(appendHead(b, majorUnsigned, uint64(i)), item...)
	}
	return string(b)
}

// arrayOf returns an array of the same item.
func arrayOf(n int, item string) string {
	return string(appendHead(nil, majorArray, uint64(n))) + strings.Repeat(item, n)
}
