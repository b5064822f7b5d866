package attesttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"math/big"
)

// A source gives out everything random, each thing under a label: a seed and a label give the same thing each time. The generators of the standard
// library cannot do that, since Go 1.26 takes no randomness from a caller for keys.
type source struct{ seed []byte }

// newSource returns the source of a seed, or one of its own if there is none.
func newSource(seed []byte) source {
	if seed == nil {
		seed = make([]byte, 32)
		rand.Read(seed)
	}
	return source{seed}
}

func (s source) bytes(label string, n int) []byte {
	b, err := hkdf.Key(sha256.New, s.seed, nil, "strongroom attesttest "+label, n)
	if err != nil {
		panic(err) // of more than 255 hashes
	}
	return b
}

// serial returns a positive number of 16 bytes.
func (s source) serial(label string) *big.Int {
	b := s.bytes(label+" serial", 16)
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b)
}

// key returns a key of a curve: the first scalar that is in range.
func (s source) key(label string, curve elliptic.Curve) *ecdsa.PrivateKey {
	bits := curve.Params().BitSize
	for i := 0; ; i++ {
		scalar := s.bytes(fmt.Sprintf("%s key %d", label, i), (bits+7)/8)
		if bits%8 != 0 {
			scalar[0] &= 1<<(bits%8) - 1
		}
		if key, err := ecdsa.ParseRawPrivateKey(curve, scalar); err == nil {
			return key
		}
	}
}

// modulus returns an odd number of exactly so many bits. As the modulus of an RSA key it looks like any other; nobody has the private key.
func (s source) modulus(label string, bits int) *big.Int {
	n := new(big.Int).SetBytes(s.bytes(label+" modulus", (bits+7)/8))
	n.Mod(n, new(big.Int).Lsh(big.NewInt(1), uint(bits)))
	n.SetBit(n, bits-1, 1)
	return n.SetBit(n, 0, 1)
}
