package keyspec_test

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"sync"
	"testing"

	"github.com/emmansun/gmsm/smx509"

	"strongroom/keyspec"
)

// A pair of each spec is made once, because RSA takes its time. Tests do not change it.
var shared = func() map[keyspec.Spec]func() (*keyspec.Pair, error) {
	m := make(map[keyspec.Spec]func() (*keyspec.Pair, error))
	for _, s := range keyspec.All() {
		m[s] = sync.OnceValues(s.Generate)
	}
	return m
}()

func pair(t testing.TB, s keyspec.Spec) *keyspec.Pair {
	t.Helper()
	p, err := shared[s]()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// each runs f once for each spec, as a subtest.
func each(t *testing.T, f func(t *testing.T, s keyspec.Spec)) {
	for _, s := range keyspec.All() {
		t.Run(s.String(), func(t *testing.T) { f(t, s) })
	}
}

func isRSA(s keyspec.Spec) bool { return s <= keyspec.RSA4096 }

func TestSizes(t *testing.T) {
	// The numbers of an RSA private key may be a byte or two shorter than they could be; everything else is fixed.
	want := map[keyspec.Spec]struct{ public, min, max int }{
		keyspec.RSA2048:   {294, 1214, 1219},
		keyspec.RSA3072:   {422, 1789, 1795},
		keyspec.RSA4096:   {550, 2371, 2376},
		keyspec.P256:      {91, 138, 138},
		keyspec.P384:      {120, 185, 185},
		keyspec.P521:      {158, 241, 241},
		keyspec.Secp256k1: {88, 135, 135},
		keyspec.SM2:       {91, 138, 138},
		keyspec.Ed25519:   {44, 48, 48},
	}
	each(t, func(t *testing.T, s keyspec.Spec) {
		p := pair(t, s)
		if p.Spec != s {
			t.Errorf("spec is %v", p.Spec)
		}
		if got := len(p.Public); got != want[s].public {
			t.Errorf("public key has %d bytes, want %d", got, want[s].public)
		}
		if got := len(p.Private); got < want[s].min || got > want[s].max {
			t.Errorf("private key has %d bytes, want %d to %d", got, want[s].min, want[s].max)
		}
	})
}

// The libraries that know a spec write what we write. None knows secp256k1, which has a test of its own, and OpenSSL.
func TestEncodingIsThatOfLibraries(t *testing.T) {
	each(t, func(t *testing.T, s keyspec.Spec) {
		p := pair(t, s)
		parsePrivate, marshalPrivate := x509.ParsePKCS8PrivateKey, x509.MarshalPKCS8PrivateKey
		parsePublic, marshalPublic := x509.ParsePKIXPublicKey, x509.MarshalPKIXPublicKey
		switch s {
		case keyspec.SM2:
			parsePrivate, marshalPrivate = smx509.ParsePKCS8PrivateKey, smx509.MarshalPKCS8PrivateKey
			parsePublic, marshalPublic = smx509.ParsePKIXPublicKey, smx509.MarshalPKIXPublicKey
		case keyspec.Secp256k1:
			if _, err := parsePublic(p.Public); err == nil {
				t.Fatal("crypto/x509 has learnt secp256k1: include it here")
			}
			return
		}
		private, err := parsePrivate(p.Private)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := marshalPrivate(private); err != nil || !bytes.Equal(again, p.Private) {
			t.Errorf("private key is encoded differently: %v", err)
		}
		public, err := parsePublic(p.Public)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := marshalPublic(public); err != nil || !bytes.Equal(again, p.Public) {
			t.Errorf("public key is encoded differently: %v", err)
		}
		if key, ok := public.(*rsa.PublicKey); ok && key.E != 65537 {
			t.Errorf("public exponent is %d", key.E)
		}
	})
}

// Other curves have x509 as a witness; this one has encoding/asn1.
func TestSecp256k1Structure(t *testing.T) {
	p := pair(t, keyspec.Secp256k1)
	alg := []asn1.ObjectIdentifier{{1, 2, 840, 10045, 2, 1}, {1, 3, 132, 0, 10}}

	key := parseEC(t, p.Private)
	var public struct {
		Algorithm []asn1.ObjectIdentifier
		Key       asn1.BitString
	}
	if rest, err := asn1.Unmarshal(p.Public, &public); err != nil || len(rest) > 0 {
		t.Fatalf("public key: %v, %d bytes left", err, len(rest))
	}
	for i := range alg {
		if !key.algorithm[i].Equal(alg[i]) || !public.Algorithm[i].Equal(alg[i]) {
			t.Errorf("algorithms are %v and %v, want %v", key.algorithm, public.Algorithm, alg)
		}
	}
	if len(key.d) != 32 || len(key.point) != 65 || key.point[0] != 4 || !bytes.Equal(key.point, public.Key.Bytes) {
		t.Errorf("scalar %d bytes, point %x, public key %x", len(key.d), key.point, public.Key.Bytes)
	}
}

type ecPrivate struct {
	algorithm []asn1.ObjectIdentifier
	d, point  []byte
}

// parseEC reads an elliptic curve's private key with encoding/asn1, which has nothing in common with what is tested.
func parseEC(t *testing.T, der []byte) ecPrivate {
	t.Helper()
	var outer struct {
		Version   int
		Algorithm []asn1.ObjectIdentifier
		Key       []byte
	}
	if rest, err := asn1.Unmarshal(der, &outer); err != nil || len(rest) > 0 || outer.Version != 0 {
		t.Fatalf("PKCS #8: version %d, %v, %d bytes left", outer.Version, err, len(rest))
	}
	var inner struct {
		Version int
		D       []byte
		Point   asn1.BitString `asn1:"explicit,tag:1"`
	}
	if rest, err := asn1.Unmarshal(outer.Key, &inner); err != nil || len(rest) > 0 || inner.Version != 1 {
		t.Fatalf("ECPrivateKey: version %d, %v, %d bytes left", inner.Version, err, len(rest))
	}
	return ecPrivate{outer.Algorithm, inner.D, inner.Point.Bytes}
}

func TestPairsDiffer(t *testing.T) {
	each(t, func(t *testing.T, s keyspec.Spec) {
		if isRSA(s) && s != keyspec.RSA2048 {
			return // the same code, and slow
		}
		a, b := pair(t, s), mustGenerate(t, s)
		defer b.Wipe()
		if bytes.Equal(a.Public, b.Public) || bytes.Equal(a.Private, b.Private) {
			t.Error("two pairs share a half")
		}
	})
}

func mustGenerate(t testing.TB, s keyspec.Spec) *keyspec.Pair {
	t.Helper()
	p, err := s.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestWipe(t *testing.T) {
	p := mustGenerate(t, keyspec.Ed25519)
	private := p.Private[:cap(p.Private)]
	if allZero(private) || !allZero(private[len(p.Private):]) {
		t.Error("the array of the private key holds something else than the private key")
	}
	p.Wipe()
	if !allZero(private) {
		t.Errorf("left after Wipe: %x", private)
	}
	if p.Private != nil || len(p.Public) != 44 {
		t.Errorf("after Wipe: private key is %x, public key %x", p.Private, p.Public)
	}
	p.Wipe()
	(*keyspec.Pair)(nil).Wipe()
}

func allZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

func TestPrintsAsLengths(t *testing.T) {
	p := mustGenerate(t, keyspec.P256)
	const want = "ECC_NIST_P256 pair (public 91 bytes, private 138 bytes)"

	for _, v := range []any{p, *p} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "% X", "%d"} {
			if got := fmt.Sprintf(verb, v); got != want {
				t.Errorf("%s: %s", verb, got)
			}
		}
		if got := v.(fmt.Stringer).String(); got != want {
			t.Errorf("String: %s", got)
		}
		if got := v.(fmt.GoStringer).GoString(); got != want {
			t.Errorf("GoString: %s", got)
		}
		if text, err := json.Marshal(v); err == nil {
			t.Errorf("JSON: %s", text)
		}
	}

	// Alone, nested, and nested where LogValue does not reach.
	type holder struct{ Pair *keyspec.Pair }
	var out bytes.Buffer
	for _, h := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
		log := slog.New(h)
		log.Info("pair", "pointer", p, "value", *p, "holder", holder{p}, "slice", []keyspec.Pair{*p})
		log.WithGroup("g").With("pair", p).Error("pair")
	}
	fmt.Fprintf(&out, "%v %+v %#v %x", holder{p}, []any{p, *p}, map[string]keyspec.Pair{"p": *p}, []keyspec.Pair{*p})
	if got := strings.Count(out.String(), want); got < 10 {
		t.Errorf("the pair was printed %d times:\n%s", got, out.String())
	}
	noneOf(t, out.String(), p)
}

// noneOf fails if text holds any of the nine bytes in a row of a half of p that it tries, as hex, decimals, Base64, a number or as
// they are.
func noneOf(t *testing.T, text string, p *keyspec.Pair) {
	t.Helper()
	lower := strings.ToLower(text)
	for _, half := range [][]byte{p.Public, p.Private} {
		for i := 0; i+9 <= len(half); i += 3 {
			b := half[i : i+9]
			decimals := strings.Trim(fmt.Sprint(b), "[]")
			if strings.Contains(lower, hex.EncodeToString(b)) || strings.Contains(text, base64.StdEncoding.EncodeToString(b)) ||
				strings.Contains(text, decimals) || strings.Contains(text, strings.ReplaceAll(decimals, " ", ",")) ||
				strings.Contains(text, string(b)) || strings.Contains(text, new(big.Int).SetBytes(b).String()) {
				t.Fatalf("printed bytes %d to %d:\n%s", i, i+8, text)
			}
		}
	}
}

func BenchmarkGenerate(b *testing.B) {
	for _, s := range keyspec.All() {
		b.Run("spec="+s.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				mustGenerate(b, s).Wipe()
			}
		})
	}
}
