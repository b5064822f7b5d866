package pkcs11

import (
	"crypto/ecdh"
	"crypto/elliptic"
	"math/big"
)

// candidates returns the public keys on P-256 under which a signature of digest verifies: Q = r⁻¹(sR − eG), where R is either of the points
// whose x coordinate is r (SEC 1 v2, section 4.1.6). There are two, or none if it is no signature. One signature in 2^32 has an R whose x
// coordinate is r + n, for which there is none here, or the wrong ones: the caller tries what it gets, and another signature another time.
//
// All numbers are public, so it does not matter that math/big takes longer for some than for others. The arithmetic of crypto/elliptic is
// deprecated; crypto/ecdh multiplies, but gives only the x coordinate of what is not a multiple of G.
func candidates(sig signature, digest [32]byte) []point {
	curve := elliptic.P256().Params()
	if sig.R.Sign() <= 0 || sig.R.Cmp(curve.N) >= 0 || sig.S.Sign() <= 0 || sig.S.Cmp(curve.N) >= 0 {
		return nil
	}
	inverse := new(big.Int).ModInverse(sig.R, curve.N)
	e := new(big.Int).SetBytes(digest[:])
	u1 := e.Mul(e.Neg(e), inverse) // −e/r
	u2 := new(big.Int).Mul(sig.S, inverse)
	u1.Mod(u1, curve.N)
	u2.Mod(u2, curve.N)

	// The sign of R changes the sign of u2 R and not its x coordinate.
	ry := ordinate(sig.R)
	if ry == nil {
		return nil
	}
	r := newPoint(sig.R, ry)
	bigR, err := ecdh.P256().NewPublicKey(r[:])
	if err != nil {
		return nil
	}
	k2, err := scalar(u2)
	if err != nil {
		return nil
	}
	shared, err := k2.ECDH(bigR)
	if err != nil {
		return nil
	}
	k1, err := scalar(u1) // fails if e is 0 modulo n
	if err != nil {
		return nil
	}
	b := point(k1.PublicKey().Bytes())
	x1, y1 := new(big.Int).SetBytes(b[1:33]), new(big.Int).SetBytes(b[33:])
	x2 := new(big.Int).SetBytes(shared)
	y2 := ordinate(x2)
	if y2 == nil {
		return nil
	}
	var found []point
	for _, y := range []*big.Int{y2, new(big.Int).Sub(curve.P, y2)} {
		if p := add(x1, y1, x2, y); p.valid() {
			found = append(found, p)
		}
	}
	return found
}

func scalar(k *big.Int) (*ecdh.PrivateKey, error) {
	return ecdh.P256().NewPrivateKey(k.FillBytes(make([]byte, 32)))
}

// ordinate returns a y for which (x, y) is on P-256, or nil: y² = x³ − 3x + b.
func ordinate(x *big.Int) *big.Int {
	curve := elliptic.P256().Params()
	y := new(big.Int).Mul(x, x)
	y.Sub(y, big.NewInt(3))
	y.Mul(y, x)
	y.Add(y, curve.B)
	y.Mod(y, curve.P)
	return y.ModSqrt(y, curve.P)
}

// add returns the sum of two points with different x coordinates. If they are equal, as happens to nobody, it is not on the curve.
func add(x1, y1, x2, y2 *big.Int) point {
	p := elliptic.P256().Params().P
	slope := new(big.Int).Sub(x2, x1)
	if slope.ModInverse(slope.Mod(slope, p), p) == nil {
		return point{}
	}
	slope.Mul(slope, new(big.Int).Sub(y2, y1))
	x := new(big.Int).Mul(slope, slope)
	x.Sub(x, x1)
	x.Sub(x, x2)
	x.Mod(x, p)
	y := new(big.Int).Sub(x1, x)
	y.Mul(y, slope)
	y.Sub(y, y1)
	y.Mod(y, p)
	return newPoint(x, y)
}

func newPoint(x, y *big.Int) (p point) {
	p[0] = 4
	x.FillBytes(p[1:33])
	y.FillBytes(p[33:])
	return p
}
