package keyspec

import (
	"crypto/rand"
	"crypto/rsa"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"strongroom/keyspec/secret"
)

// rsaExponent is the public exponent of every RSA key here, F4, which is also the one that crypto/rsa uses.
const rsaExponent = 65537

// rsaKeys are RSA keys of two primes.
type rsaKeys struct {
	bits int // of the modulus
}

func (k rsaKeys) generate() (public, private []byte, err error) {
	secret.Do(func() { public, private, err = k.search() })
	return public, private, err
}

func (k rsaKeys) search() (public, private []byte, err error) {
	key, err := rsa.GenerateKey(rand.Reader, k.bits)
	if err != nil {
		return nil, nil, err
	}
	defer wipeRSA(key)
	if public, err = k.encodePublic(&key.PublicKey); err != nil {
		return nil, nil, err
	}
	if private, err = k.encodePrivate(key); err != nil {
		return nil, nil, err
	}
	return public, private, nil
}

// encodePublic returns
//
//	RSAPublicKey ::= SEQUENCE {
//	    modulus           INTEGER,  -- n
//	    publicExponent    INTEGER   -- e
//	}
//
// as in RFC 8017, Appendix A.1.1.
func (k rsaKeys) encodePublic(pub *rsa.PublicKey) ([]byte, error) {
	return der(k.bits/8+32, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1BigInt(pub.N)
			b.AddASN1Int64(int64(pub.E))
		})
	})
}

// encodePrivate returns
//
//	RSAPrivateKey ::= SEQUENCE {
//	    version           Version,  -- 0: two primes
//	    modulus           INTEGER,  -- n
//	    publicExponent    INTEGER,  -- e
//	    privateExponent   INTEGER,  -- d
//	    prime1            INTEGER,  -- p
//	    prime2            INTEGER,  -- q
//	    exponent1         INTEGER,  -- d mod (p-1)
//	    exponent2         INTEGER,  -- d mod (q-1)
//	    coefficient       INTEGER   -- (inverse of q) mod p
//	}
//
// as in RFC 8017, Appendix A.1.2.
func (k rsaKeys) encodePrivate(key *rsa.PrivateKey) ([]byte, error) {
	return der(k.room(), func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1Uint64(0)
			b.AddASN1BigInt(key.N)
			b.AddASN1Int64(int64(key.E))
			for _, x := range secretsOf(key) {
				addSecret(b, x)
			}
		})
	})
}

// room: two numbers are as long as the modulus and five half as long; 80 bytes are more than enough for the headers and the signs
// of all, the version and e.
func (k rsaKeys) room() int { return k.bits/8*2 + k.bits/16*5 + 80 }

// addSecret writes x, which is not negative, as an INTEGER: like AddASN1BigInt, except that its own copy is wiped. The length
// is the shortest that leaves a zero bit in front for the sign, as DER wants it (X.690, Section 8.3.2).
func addSecret(b *cryptobyte.Builder, x *big.Int) {
	buf := make([]byte, x.BitLen()/8+1)
	defer clear(buf)
	x.FillBytes(buf)
	b.AddASN1(asn1.INTEGER, func(b *cryptobyte.Builder) { b.AddBytes(buf) })
}

// secretsOf returns the numbers of key that are secret, in the order of RSAPrivateKey.
func secretsOf(key *rsa.PrivateKey) []*big.Int {
	return []*big.Int{key.D, key.Primes[0], key.Primes[1], key.Precomputed.Dp, key.Precomputed.Dq, key.Precomputed.Qinv}
}

// wipeRSA overwrites the secret numbers of a key of two primes. The key is of no use afterwards. It cannot reach the second
// copy of them all that crypto/rsa keeps in a field that is not exported.
func wipeRSA(key *rsa.PrivateKey) {
	for _, x := range secretsOf(key) {
		clear(x.Bits())
	}
}
