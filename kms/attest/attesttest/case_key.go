package attesttest

import (
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"

	"strongroom/kms/attest"
)

// keyCases are genuine documents of enclaves in debug mode, and with keys that nothing can be sealed to.
func keyCases() []Case {
	modulus := fixed.modulus("rsa 2048", 2048)
	good := marshalPublicKey(&rsa.PublicKey{N: modulus, E: 65537})
	even := new(big.Int).SetBit(modulus, 0, 0)
	ec := fixed.key("p256", elliptic.P256())
	return append(refused(attest.Debug, []Case{
		{Name: "debug", About: "PCR0, 1 and 2 are zero, as in debug mode", state: debug},
		{Name: "debug-pcr3", About: "PCR0, 1 and 2 are zero, and PCR3, 4 and 8 are not", state: func(s *Statement) {
			debug(s)
			s.PCRs[8] = s.PCRs[3]
		}},
		{Name: "debug-absent", About: "PCR0, 1 and 2 are not there", state: func(s *Statement) {
			asEnclave(s)
			s.PCRs = map[int][]byte{4: s.PCRs[4]}
		}},
		{Name: "debug-no-key", About: "PCR0, 1 and 2 are zero, and there is no key", state: func(s *Statement) {
			debug(s)
			s.PublicKey = nil
		}},
	}), refused(attest.BadKey, []Case{
		{Name: "key-null", About: "the key is null", state: func(s *Statement) { s.PublicKey = nil }},
		{Name: "key-absent", About: "the key is not there", write: func(m *members) { m.remove("public_key") }},
		{Name: "key-empty", About: "the key has no bytes", state: key([]byte{})},
		{Name: "key-opaque", About: "the key is 1024 bytes of something", state: key(fixed.bytes("opaque", 1024))},
		{Name: "key-p256", About: "the key is of P-256", state: key(marshalPublicKey(ec.Public()))},
		{Name: "key-p384", About: "the key is of P-384", state: key(marshalPublicKey(fixed.key("p384", elliptic.P384()).Public()))},
		{Name: "key-ed25519", About: "the key is of Ed25519", state: key(marshalPublicKey(ed25519.NewKeyFromSeed(fixed.bytes("ed25519", 32)).Public()))},
		{Name: "key-point", About: "the key is the 65 bytes of a point of P-256", state: func(s *Statement) {
			raw, err := ec.PublicKey.Bytes()
			if err != nil {
				panic(err)
			}
			s.PublicKey = raw
		}},
		{Name: "key-pkcs1", About: "the key is PKCS #1", state: key(x509.MarshalPKCS1PublicKey(&rsa.PublicKey{N: modulus, E: 65537}))},
		{Name: "key-pem", About: "the key is PEM", state: key(encodePEM("PUBLIC KEY", good))},
		{Name: "key-trailing-byte", About: "a byte follows the key", state: key(append(good[:len(good):len(good)], 0))},
		{Name: "key-cut", About: "the last byte of the key is missing", state: key(good[:len(good)-1])},
		{Name: "key-long-length", About: "a length in the key is not in the shortest form", state: key(append([]byte{0x30, 0x83, 0}, good[2:]...))},
		{Name: "key-indefinite", About: "a length in the key is indefinite", state: key(append(append([]byte{0x30, 0x80}, good[4:]...), 0, 0))},
		{Name: "key-more-numbers", About: "a third number follows modulus and exponent", state: key(rsaPublicKey(0, []*big.Int{modulus, big.NewInt(65537), big.NewInt(1)}, nil))},
		{Name: "key-bytes-after-numbers", About: "two bytes follow the numbers within the key's bit string", state: key(rsaPublicKey(0, []*big.Int{modulus, big.NewInt(65537)}, []byte{5, 0}))},
		{Name: "key-unused-bit", About: "the key's bit string has a bit that does not count", state: key(rsaPublicKey(1, []*big.Int{modulus, big.NewInt(65537)}, nil))},
		{Name: "key-more-elements", About: "a NULL follows the bit string", state: key(wider(good, 5, 0))},
		{Name: "key-pss", About: "the key is for RSASSA-PSS alone", state: key(withOID(good, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}))},
		{Name: "key-oaep", About: "the key is for RSAES-OAEP alone", state: key(withOID(good, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}))},
		{Name: "rsa-1024", About: "a key of 1024 bits", state: rsaKey(1024, 65537)},
		{Name: "rsa-2040", About: "a key of 2040 bits", state: rsaKey(2040, 65537)},
		{Name: "rsa-2047", About: "a key of 2047 bits", state: rsaKey(2047, 65537)},
		{Name: "rsa-2052", About: "a key of 2052 bits, which are no whole bytes", state: rsaKey(2052, 65537)},
		{Name: "rsa-4104", About: "a key of 4104 bits", state: rsaKey(4104, 65537)},
		{Name: "rsa-7680", About: "a key of 7680 bits", state: rsaKey(7680, 65537)},
		{Name: "modulus-even", About: "an even modulus", state: rsaNumbers(even, 65537)},
		{Name: "modulus-negative", About: "a negative modulus", state: rsaNumbers(new(big.Int).Neg(modulus), 65537)},
		{Name: "modulus-zero", About: "a modulus of 0", state: rsaNumbers(new(big.Int), 65537)},
		{Name: "exponent-1", About: "an exponent of 1", state: rsaKey(2048, 1)},
		{Name: "exponent-3", About: "an exponent of 3", state: rsaKey(2048, 3)},
		{Name: "exponent-65535", About: "an exponent of 65,535", state: rsaKey(2048, 65535)},
		{Name: "exponent-even", About: "an even exponent", state: rsaKey(2048, 65538)},
		{Name: "exponent-negative", About: "a negative exponent", state: rsaKey(2048, -65537)},
		{Name: "exponent-2^31", About: "an exponent of 2^31+1, which is more than can be computed with", state: rsaKey(2048, 1<<31+1)},
		{Name: "exponent-2^62", About: "an exponent of 2^62+1", state: rsaKey(2048, 1<<62+1)},
	})...)
}

func debug(s *Statement) {
	asEnclave(s)
	zero(s.PCRs, 0, 1, 2)
}

func key(der []byte) func(*Statement) {
	return func(s *Statement) { s.PublicKey = der }
}

func rsaNumbers(n *big.Int, e int) func(*Statement) {
	return key(marshalPublicKey(&rsa.PublicKey{N: n, E: e}))
}

// rsaPublicKey returns a SubjectPublicKeyInfo whose bit string holds numbers and what follows them, moved so that its last bits do not count.
func rsaPublicKey(unused int, numbers []*big.Int, after []byte) []byte {
	content := append(mustMarshal(numbers), after...)
	if unused > 0 {
		content = new(big.Int).Lsh(new(big.Int).SetBytes(content), uint(unused)).Bytes()
	}
	return mustMarshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}{
		pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, Parameters: asn1.NullRawValue},
		asn1.BitString{Bytes: content, BitLength: 8*len(content) - unused},
	})
}

// wider returns a sequence, of 256 to 65,535 bytes, with more bytes at its end.
func wider(der []byte, more ...byte) []byte {
	n := len(der) - 4 + len(more)
	return append(append([]byte{der[0], der[1], byte(n >> 8), byte(n)}, der[4:]...), more...)
}

// withOID returns a SubjectPublicKeyInfo for another algorithm.
func withOID(der []byte, id asn1.ObjectIdentifier) []byte {
	var info struct {
		Algorithm struct {
			ID         asn1.ObjectIdentifier
			Parameters asn1.RawValue
		}
		Key asn1.BitString
	}
	mustUnmarshal(der, &info)
	info.Algorithm.ID = id
	return mustMarshal(info)
}
