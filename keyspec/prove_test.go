package keyspec_test

import (
	"bytes"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/emmansun/gmsm/sm2"

	"strongroom/keyspec"
)

func TestProve(t *testing.T) {
	each(t, func(t *testing.T, s keyspec.Spec) {
		p := pair(t, s)
		public, private := slices.Clone(p.Public), slices.Clone(p.Private)
		for range 2 { // what Prove wipes is its own
			if err := keyspec.Prove(s, p.Public, p.Private); err != nil {
				t.Error(err)
			}
		}
		if !bytes.Equal(p.Public, public) || !bytes.Equal(p.Private, private) {
			t.Error("Prove changed the pair")
		}
	})
}

// refused fails the test unless Prove refuses the halves with an error that contains want.
func refused(t *testing.T, what string, s keyspec.Spec, public, private []byte, want string) {
	t.Helper()
	if err := keyspec.Prove(s, public, private); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v, want %q", what, err, want)
	}
}

func TestProveRefusesHalvesOfOthers(t *testing.T) {
	each(t, func(t *testing.T, s keyspec.Spec) {
		p := pair(t, s)
		refused(t, "halves exchanged", s, p.Private, p.Public, "public key: ")
		refused(t, "two private halves", s, p.Private, p.Private, "public key: ")
		refused(t, "two public halves", s, p.Public, p.Public, "private key: ")
		for _, other := range keyspec.All() {
			if other == s {
				continue
			}
			q := pair(t, other)
			refused(t, "both halves of "+other.String(), s, q.Public, q.Private, "public key: ")
			refused(t, "public half of "+other.String(), s, q.Public, p.Private, "public key: ")
			refused(t, "private half of "+other.String(), s, p.Public, q.Private, "private key: ")
		}
		if isRSA(s) && s != keyspec.RSA2048 {
			return // the same code, and slow
		}
		q := mustGenerate(t, s)
		refused(t, "public half of another pair", s, q.Public, p.Private, "belongs to another public key")
		refused(t, "private half of another pair", s, p.Public, q.Private, "belongs to another public key")
	})
}

func TestProveSaysWhatItMet(t *testing.T) {
	p256, rsa2048 := pair(t, keyspec.P256), pair(t, keyspec.RSA2048)
	refused(t, "another curve", keyspec.P384, p256.Public, p256.Private,
		"public key: algorithm is that of ECC_NIST_P256, want ECC_NIST_P384")
	refused(t, "another size", keyspec.RSA3072, rsa2048.Public, rsa2048.Private, "public key: modulus has 2048 bits, want 3072")
	p192 := slices.Clone(p256.Public)
	p192[22] = 1 // the last arc of the curve's OID
	refused(t, "no curve of ours", keyspec.P256, p192, p256.Private, "public key: algorithm is not that of ECC_NIST_P256")
	refused(t, "nothing", keyspec.P256, nil, nil, "public key: not a SubjectPublicKeyInfo in DER")
	refused(t, "half of it", keyspec.P256, p256.Public, nil, "private key: not PKCS #8 in DER")
}

// Every bit of a pair matters. RSA, where each try costs milliseconds, is sampled.
func TestProveRefusesMutations(t *testing.T) {
	each(t, func(t *testing.T, s keyspec.Spec) {
		p := pair(t, s)
		step := 1
		if isRSA(s) {
			step = 29
		}
		try := func(half []byte, prove func([]byte) error) {
			for i := 0; i < len(half); i += step {
				b := slices.Clone(half)
				b[i] ^= 1 << (i % 8)
				if prove(b) == nil {
					t.Errorf("bit %d of byte %d does not matter", i%8, i)
				}
				if prove(half[:i]) == nil {
					t.Errorf("the first %d bytes are enough", i)
				}
			}
			for _, tail := range []string{"\x00", "\x05\x00", "\xa0\x00"} {
				if prove(append(slices.Clone(half), tail...)) == nil {
					t.Errorf("%x may follow", tail)
				}
			}
		}
		try(p.Public, func(b []byte) error { return keyspec.Prove(s, b, p.Private) })
		try(p.Private, func(b []byte) error { return keyspec.Prove(s, p.Public, b) })
	})
}

// What other programs write, and DER or RFC 5958 would allow, but we do not.
func TestProveRefusesOtherForms(t *testing.T) {
	for _, s := range []keyspec.Spec{keyspec.P256, keyspec.P384, keyspec.P521, keyspec.Secp256k1, keyspec.SM2} {
		t.Run(s.String(), func(t *testing.T) {
			p := pair(t, s)
			key := parseEC(t, p.Private)
			inner := func(v any) []byte {
				return marshal(t, struct {
					Version   int
					Algorithm []asn1.ObjectIdentifier
					Key       []byte
				}{0, key.algorithm, marshal(t, v)})
			}
			type full struct {
				Version int
				D       []byte
				Curve   asn1.ObjectIdentifier `asn1:"optional,explicit,tag:0"`
				Point   asn1.BitString        `asn1:"optional,explicit,tag:1"`
			}
			bits := func(b []byte) asn1.BitString { return asn1.BitString{Bytes: b, BitLength: len(b) * 8} }
			good := inner(full{1, key.d, nil, bits(key.point)})
			if !bytes.Equal(good, p.Private) {
				t.Fatal("this test does not know how to write the key as it should be")
			}
			refused(t, "no public key inside", s, p.Public, inner(full{1, key.d, nil, asn1.BitString{}}), "no public key after the scalar")
			refused(t, "curve named twice", s, p.Public, inner(full{1, key.d, key.algorithm[1], bits(key.point)}), "no public key after the scalar")
			refused(t, "version 0 inside", s, p.Public, inner(full{0, key.d, nil, bits(key.point)}), "ECPrivateKey has version 0")
			refused(t, "scalar of another length", s, p.Public, inner(full{1, append([]byte{0}, key.d...), nil, bits(key.point)}), "scalar has")
			refused(t, "scalar zero", s, p.Public, inner(full{1, make([]byte, len(key.d)), nil, bits(key.point)}), "scalar: ")
			refused(t, "another public key inside", s, p.Public, inner(full{1, key.d, nil, bits(p.Private)}), "the public key inside it")
			n := order(s)
			refused(t, "scalar n", s, p.Public, inner(full{1, n.FillBytes(make([]byte, len(key.d))), nil, bits(key.point)}), "scalar: ")
			if s == keyspec.SM2 {
				n.Sub(n, big.NewInt(1))
				refused(t, "scalar n-1", s, p.Public, inner(full{1, n.FillBytes(make([]byte, 32)), nil, bits(key.point)}), "scalar: ")
			} else {
				// A scalar that is equal modulo n is not another private key, if it is short enough to be written at all.
				n.Add(n, new(big.Int).SetBytes(key.d))
				if n.BitLen() <= len(key.d)*8 {
					refused(t, "scalar d+n", s, p.Public, inner(full{1, n.FillBytes(make([]byte, len(key.d))), nil, bits(key.point)}), "scalar: ")
				}
			}

			compressed := slices.Clone(key.point[:1+len(key.d)])
			compressed[0] = 2 + key.point[len(key.point)-1]&1
			hybrid := slices.Clone(key.point)
			hybrid[0] = 6 + key.point[len(key.point)-1]&1
			for _, point := range [][]byte{compressed, hybrid, {0}, {}, make([]byte, len(key.point))} {
				public := marshal(t, struct {
					Algorithm []asn1.ObjectIdentifier
					Key       asn1.BitString
				}{key.algorithm, bits(point)})
				refused(t, "another form of point", s, public, p.Private, "public key: not an uncompressed point")
			}
		})
	}

	p := pair(t, keyspec.Ed25519)
	v2 := append(slices.Clone(p.Private), 0x81, 0x21, 0x00) // RFC 8410, Section 7: publicKey [1] IMPLICIT BIT STRING
	v2 = append(v2, p.Public[12:]...)
	v2[1] += 35
	refused(t, "public key in an Ed25519 private key", keyspec.Ed25519, p.Public, v2, "more bytes follow")
	v2[4] = 1
	refused(t, "version 1", keyspec.Ed25519, p.Public, v2, "version is 1, want 0")
	long := append([]byte{0x30, 0x81, 0x2e}, p.Private[2:]...)
	refused(t, "length in two bytes", keyspec.Ed25519, p.Public, long, "not PKCS #8 in DER")
	short := slices.Clone(p.Public[:43])
	short[1], short[10] = short[1]-1, short[10]-1
	refused(t, "public key of 31 bytes", keyspec.Ed25519, short, p.Private, "public key: has 31 bytes, want 32")
}

func order(s keyspec.Spec) *big.Int {
	switch s {
	case keyspec.P256:
		return new(big.Int).Set(elliptic.P256().Params().N)
	case keyspec.P384:
		return new(big.Int).Set(elliptic.P384().Params().N)
	case keyspec.P521:
		return new(big.Int).Set(elliptic.P521().Params().N)
	case keyspec.Secp256k1:
		return new(big.Int).Set(secp256k1.Params().N)
	default:
		return new(big.Int).Set(sm2.P256().Params().N)
	}
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// rsaNumbers is RSAPrivateKey (RFC 8017, Appendix A.1.2).
type rsaNumbers struct {
	Version                   int
	N, E, D, P, Q, Dp, Dq, Qi *big.Int
}

// rsaHalves writes both halves of an RSA key, whatever its numbers are.
func rsaHalves(t *testing.T, n rsaNumbers) (public, private []byte) {
	t.Helper()
	return rsaEnvelopes(t, marshal(t, struct{ N, E *big.Int }{n.N, n.E}), marshal(t, n))
}

// rsaEnvelopes writes both halves of an RSA key, whatever is inside.
func rsaEnvelopes(t *testing.T, spki, pkcs1 []byte) (public, private []byte) {
	t.Helper()
	type algorithm struct {
		OID    asn1.ObjectIdentifier
		Params asn1.RawValue
	}
	alg := algorithm{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, asn1.NullRawValue}
	public = marshal(t, struct {
		Algorithm algorithm
		Key       asn1.BitString
	}{alg, asn1.BitString{Bytes: spki, BitLength: len(spki) * 8}})
	private = marshal(t, struct {
		Version   int
		Algorithm algorithm
		Key       []byte
	}{0, alg, pkcs1})
	return public, private
}

func rsaNumbersOf(t *testing.T, p *keyspec.Pair) rsaNumbers {
	t.Helper()
	parsed, err := x509.ParsePKCS8PrivateKey(p.Private)
	if err != nil {
		t.Fatal(err)
	}
	k := parsed.(*rsa.PrivateKey)
	return rsaNumbers{0, k.N, big.NewInt(int64(k.E)), k.D, k.Primes[0], k.Primes[1], k.Precomputed.Dp, k.Precomputed.Dq, k.Precomputed.Qinv}
}

func TestProveRefusesBadRSANumbers(t *testing.T) {
	p := pair(t, keyspec.RSA2048)
	good := rsaNumbersOf(t, p)
	if public, private := rsaHalves(t, good); !bytes.Equal(public, p.Public) || !bytes.Equal(private, p.Private) {
		t.Fatal("this test does not know how to write the key as it should be")
	}
	add := func(x *big.Int, n int64) *big.Int { return new(big.Int).Add(x, big.NewInt(n)) }
	huge := new(big.Int).Lsh(big.NewInt(1), 20000)
	for _, c := range []struct {
		what   string
		change func(n *rsaNumbers)
		want   string
	}{
		{"three primes", func(n *rsaNumbers) { n.Version = 1 }, "version 1"},
		{"negative modulus", func(n *rsaNumbers) { n.N = new(big.Int).Neg(n.N) }, "modulus has"},
		{"modulus of 2047 bits", func(n *rsaNumbers) { n.N = new(big.Int).Rsh(n.N, 1) }, "modulus has 2047 bits"},
		{"another modulus", func(n *rsaNumbers) { n.N = add(n.N, 2) }, "not the product"},
		{"exponent 3", func(n *rsaNumbers) { n.E = big.NewInt(3) }, "public exponent is not 65537"},
		{"exponent 0", func(n *rsaNumbers) { n.E = new(big.Int) }, "public exponent is not 65537"},
		{"exponent that does not fit an int", func(n *rsaNumbers) { n.E = huge }, "public exponent is not 65537"},
		{"d+2", func(n *rsaNumbers) { n.D = add(n.D, 2) }, "do not agree"},
		{"d = 0", func(n *rsaNumbers) { n.D = new(big.Int) }, "do not agree"},
		{"negative d", func(n *rsaNumbers) { n.D = big.NewInt(-1) }, "not those of"},
		{"d = 2^20000", func(n *rsaNumbers) { n.D = huge }, "not those of"},
		{"d+n", func(n *rsaNumbers) { n.D = new(big.Int).Add(n.D, n.N) }, ""},
		{"p+2", func(n *rsaNumbers) { n.P = add(n.P, 2) }, "not the product"},
		{"p = 1", func(n *rsaNumbers) { n.P, n.Q = big.NewInt(1), n.N }, "a factor has 1 bits"},
		{"p = 0", func(n *rsaNumbers) { n.P = new(big.Int) }, "a factor has 0 bits"},
		{"p = q", func(n *rsaNumbers) { n.P = n.Q }, "not the product"},
		{"p and q exchanged, but not the rest", func(n *rsaNumbers) { n.P, n.Q = n.Q, n.P }, "do not agree"},
		{"dp+2", func(n *rsaNumbers) { n.Dp = add(n.Dp, 2) }, "do not agree"},
		{"dq+2", func(n *rsaNumbers) { n.Dq = add(n.Dq, 2) }, "do not agree"},
		{"dp = 0", func(n *rsaNumbers) { n.Dp = new(big.Int) }, "do not agree"},
		{"1/q+2", func(n *rsaNumbers) { n.Qi = add(n.Qi, 2) }, "do not agree"},
		{"1/q+p", func(n *rsaNumbers) { n.Qi = new(big.Int).Add(n.Qi, n.P) }, "do not agree"},
	} {
		n := good
		c.change(&n)
		public, private := rsaHalves(t, n)
		refused(t, c.what, keyspec.RSA2048, public, private, c.want)
		if c.want == "version 1" || n.N == good.N && n.E == good.E {
			refused(t, c.what+", with the right public key", keyspec.RSA2048, p.Public, private, c.want)
		}
	}
}

// An even factor can satisfy everything that crypto/rsa asks (in Go 1.26: p*q is a multiple of the modulus; dp, dq, d and 1/q
// agree). Using such a key panics there, because exponentiation wants an odd modulus.
func TestProveRefusesEvenFactor(t *testing.T) {
	one, e := big.NewInt(1), big.NewInt(65537)
	for {
		r, err := rand.Prime(rand.Reader, 1024)
		if err != nil {
			t.Fatal(err)
		}
		q, err := rand.Prime(rand.Reader, 1024)
		if err != nil {
			t.Fatal(err)
		}
		n := rsaNumbers{N: new(big.Int).Mul(r, q), E: e, P: new(big.Int).Lsh(r, 1), Q: q}
		p1, q1 := new(big.Int).Sub(n.P, one), new(big.Int).Sub(q, one)
		n.Dp, n.Dq, n.Qi = new(big.Int).ModInverse(e, p1), new(big.Int).ModInverse(e, q1), new(big.Int).ModInverse(q, n.P)
		lambda := new(big.Int).Div(new(big.Int).Mul(p1, q1), new(big.Int).GCD(nil, nil, p1, q1))
		n.D = new(big.Int).ModInverse(e, lambda)
		if n.Dp == nil || n.Dq == nil || n.Qi == nil || n.D == nil || n.D.Cmp(n.N) >= 0 || n.N.BitLen() != 2048 {
			continue
		}
		public, private := rsaHalves(t, n)
		refused(t, "even factor", keyspec.RSA2048, public, private, "a factor has 1025 bits")
		return
	}
}

// Factors that are not prime agree with everything else, and are found out by signing.
func TestProveRefusesCompositeFactors(t *testing.T) {
	e := big.NewInt(65537)
	for {
		var n rsaNumbers
		var primes [4]*big.Int
		for i := range primes {
			var err error
			if primes[i], err = rand.Prime(rand.Reader, 512); err != nil {
				t.Fatal(err)
			}
		}
		n.E, n.P, n.Q = e, new(big.Int).Mul(primes[0], primes[1]), new(big.Int).Mul(primes[2], primes[3])
		n.N = new(big.Int).Mul(n.P, n.Q)
		p1, q1 := new(big.Int).Sub(n.P, big.NewInt(1)), new(big.Int).Sub(n.Q, big.NewInt(1))
		lambda := new(big.Int).Div(new(big.Int).Mul(p1, q1), new(big.Int).GCD(nil, nil, p1, q1))
		n.D, n.Qi = new(big.Int).ModInverse(e, lambda), new(big.Int).ModInverse(n.Q, n.P)
		if n.D == nil || n.Qi == nil || n.P.BitLen() != 1024 || n.N.BitLen() != 2048 {
			continue
		}
		n.Dp, n.Dq = new(big.Int).Mod(n.D, p1), new(big.Int).Mod(n.D, q1)
		public, private := rsaHalves(t, n)
		refused(t, "composite factors", keyspec.RSA2048, public, private, "sign: ")
		return
	}
}

func TestProveRefusesOtherRSAStructures(t *testing.T) {
	p := pair(t, keyspec.RSA2048)
	n := rsaNumbersOf(t, p)
	spki, pkcs1 := marshal(t, struct{ N, E *big.Int }{n.N, n.E}), marshal(t, n)
	type spkiAndMore struct{ N, E, More *big.Int }
	type pkcs1AndMore struct {
		Version                         int
		N, E, D, P, Q, Dp, Dq, Qi, More *big.Int
	}
	for _, c := range []struct {
		what        string
		spki, pkcs1 []byte
		want        string
	}{
		{"nothing inside", nil, pkcs1, "not an RSAPublicKey"},
		{"nothing inside", spki, nil, "not an RSAPrivateKey"},
		{"no numbers", []byte{0x30, 0}, pkcs1, "no modulus and exponent"},
		{"only a version", spki, []byte{0x30, 3, 2, 1, 0}, "no modulus and exponent"},
		{"a number too many", marshal(t, spkiAndMore{n.N, n.E, n.E}), pkcs1, "more bytes follow"},
		{"a number too many", spki, marshal(t, pkcs1AndMore{0, n.N, n.E, n.D, n.P, n.Q, n.Dp, n.Dq, n.Qi, n.E}), "more bytes follow"},
		{"bytes after the public structure", append(slices.Clone(spki), 0), pkcs1, "more bytes follow"},
		{"bytes after the private structure", spki, append(slices.Clone(pkcs1), 0), "more bytes follow"},
	} {
		public, private := rsaEnvelopes(t, c.spki, c.pkcs1)
		refused(t, c.what, keyspec.RSA2048, public, private, c.want)
	}
}

func FuzzProve(f *testing.F) {
	for _, s := range keyspec.All() {
		if s == keyspec.RSA3072 || s == keyspec.RSA4096 {
			continue // the same code, and slow
		}
		p := pair(f, s)
		f.Add(uint8(s), p.Public, p.Private)
	}
	f.Fuzz(func(t *testing.T, s uint8, public, private []byte) {
		spec := keyspec.Spec(s)
		if keyspec.Prove(spec, public, private) != nil {
			return
		}
		// One private key passes for a public key, except RSA's: see Prove.
		if p, ok := shared[spec]; ok && !isRSA(spec) {
			if seed, err := p(); err == nil && bytes.Equal(seed.Public, public) && !bytes.Equal(seed.Private, private) {
				t.Errorf("two private keys for %x", public)
			}
		}
	})
}
