package keyspec_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // the digests of P-384 and P-521
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	secpdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"github.com/emmansun/gmsm/sm2"
	"github.com/emmansun/gmsm/smx509"

	"strongroom/keyspec"
)

// A bench is a directory with a pair in it, private.der and public.der, and OpenSSL 3 to work there: the second opinion on every
// spec. It shares no code with the libraries used here, and it is what will read most keys in the end.
type bench struct {
	t   *testing.T
	dir string
}

func newBench(t *testing.T, p *keyspec.Pair) bench {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatalf("this test needs OpenSSL 3 as a witness: apt-get install openssl (%v)", err)
	}
	b := bench{t, t.TempDir()}
	if p != nil {
		b.write("private.der", p.Private)
		b.write("public.der", p.Public)
	}
	return b
}

func (b bench) write(name string, data []byte) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), data, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// openssl runs one command in the directory and returns what it prints.
func (b bench) openssl(args ...string) []byte {
	b.t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = b.dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("%v: %v\n%s%s", cmd.Args, err, out, stderr.Bytes())
	}
	return out
}

// private and public run openssl pkeyutl with one half of the pair.
func (b bench) private(args ...string) []byte {
	b.t.Helper()
	return b.openssl(append([]string{"pkeyutl", "-inkey", "private.der", "-keyform", "DER"}, args...)...)
}

func (b bench) public(args ...string) []byte {
	b.t.Helper()
	return b.openssl(append([]string{"pkeyutl", "-pubin", "-inkey", "public.der", "-keyform", "DER"}, args...)...)
}

func TestOpenSSLReads(t *testing.T) {
	each(t, func(t *testing.T, s keyspec.Spec) {
		p := pair(t, s)
		b := newBench(t, p)
		b.openssl("pkey", "-inform", "DER", "-in", "private.der", "-noout", "-check")
		b.openssl("pkey", "-inform", "DER", "-in", "public.der", "-pubin", "-noout", "-pubcheck")

		got := b.openssl("pkey", "-inform", "DER", "-in", "private.der", "-pubout", "-outform", "DER")
		if !bytes.Equal(got, p.Public) {
			t.Errorf("OpenSSL derives the public key %x, we wrote %x", got, p.Public)
		}
		got = b.openssl("pkey", "-inform", "DER", "-in", "public.der", "-pubin", "-pubout", "-outform", "DER")
		if !bytes.Equal(got, p.Public) {
			t.Errorf("OpenSSL writes the public key as %x, we wrote %x", got, p.Public)
		}
		// Every spec comes back to the byte. It takes the command pkcs8: for DER, pkey of OpenSSL 3.0 writes the older
		// structures of RFC 8017 and RFC 5915 without the envelope, except for Ed25519, which has no older one.
		got = b.openssl("pkcs8", "-topk8", "-nocrypt", "-inform", "DER", "-in", "private.der", "-outform", "DER")
		if !bytes.Equal(got, p.Private) {
			t.Errorf("OpenSSL writes the private key in %d bytes, we in %d, and they differ", len(got), len(p.Private))
		}
	})
}

// genpkey is how OpenSSL is asked for a key of each spec.
var genpkey = map[keyspec.Spec][]string{
	keyspec.RSA2048:   {"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"},
	keyspec.RSA3072:   {"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"},
	keyspec.RSA4096:   {"-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"},
	keyspec.P256:      {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"},
	keyspec.P384:      {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"},
	keyspec.P521:      {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"},
	keyspec.Secp256k1: {"-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"},
	keyspec.SM2:       {"-algorithm", "SM2"},
	keyspec.Ed25519:   {"-algorithm", "ED25519"},
}

func TestOpenSSLKeysAreProved(t *testing.T) {
	each(t, func(t *testing.T, s keyspec.Spec) {
		b := newBench(t, nil)
		b.write("private.pem", b.openssl(append([]string{"genpkey"}, genpkey[s]...)...))
		private := b.openssl("pkcs8", "-topk8", "-nocrypt", "-in", "private.pem", "-outform", "DER")
		public := b.openssl("pkey", "-in", "private.pem", "-pubout", "-outform", "DER")
		if err := keyspec.Prove(s, public, private); err != nil {
			t.Error(err)
		}
	})
}

// A scheme is one way to sign, as Go does it and as the options of openssl pkeyutl have it.
type scheme struct {
	name    string
	options []string
	sign    func(t *testing.T, private, message []byte) []byte
	verify  func(t *testing.T, public, message, signature []byte) bool
}

func schemes(s keyspec.Spec) []scheme {
	switch s {
	case keyspec.RSA2048, keyspec.RSA3072, keyspec.RSA4096:
		return []scheme{pss, pkcs1}
	case keyspec.P256:
		return []scheme{ecdsaWith(crypto.SHA256, "sha256")}
	case keyspec.P384:
		return []scheme{ecdsaWith(crypto.SHA384, "sha384")}
	case keyspec.P521:
		return []scheme{ecdsaWith(crypto.SHA512, "sha512")}
	case keyspec.Secp256k1:
		return []scheme{secp}
	case keyspec.SM2:
		return []scheme{sm2dsa}
	case keyspec.Ed25519:
		return []scheme{eddsa}
	}
	return nil
}

func TestOpenSSLSignatures(t *testing.T) {
	each(t, func(t *testing.T, s keyspec.Spec) {
		p := pair(t, s)
		if len(schemes(s)) == 0 {
			t.Fatal("no scheme")
		}
		for _, c := range schemes(s) {
			t.Run(c.name, func(t *testing.T) {
				b := newBench(t, p)
				message := []byte("signed by one, verified by the other")
				b.write("message", message)
				options := append([]string{"-rawin", "-in", "message"}, c.options...)

				theirs := b.private(append([]string{"-sign"}, options...)...)
				if !c.verify(t, p.Public, message, theirs) {
					t.Error("Go does not verify OpenSSL's signature")
				}
				if c.verify(t, p.Public, message[1:], theirs) {
					t.Error("Go verifies it for another message")
				}
				b.write("signature", c.sign(t, p.Private, message))
				b.public(append([]string{"-verify", "-sigfile", "signature"}, options...)...)
			})
		}
	})
}

func TestOpenSSLEncryption(t *testing.T) {
	oaep := []string{"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256", "-pkeyopt", "rsa_mgf1_md:sha256"}
	each(t, func(t *testing.T, s keyspec.Spec) {
		var options []string
		var seal, open func(b []byte) ([]byte, error)
		p := pair(t, s)
		switch {
		case isRSA(s):
			options = oaep
			public, private := parsePublic[*rsa.PublicKey](t, p.Public), parsePrivate[*rsa.PrivateKey](t, p.Private)
			seal = func(b []byte) ([]byte, error) { return rsa.EncryptOAEP(sha256.New(), rand.Reader, public, b, nil) }
			open = func(b []byte) ([]byte, error) { return rsa.DecryptOAEP(sha256.New(), nil, private, b, nil) }
		case s == keyspec.SM2:
			public, private := parsePublic[*ecdsa.PublicKey](t, p.Public), parsePrivate[*sm2.PrivateKey](t, p.Private)
			seal = func(b []byte) ([]byte, error) { return sm2.EncryptASN1(rand.Reader, public, b) }
			open = func(b []byte) ([]byte, error) { return sm2.Decrypt(private, b) }
		default:
			return // pairs that only sign
		}
		b := newBench(t, p)
		message := []byte("encrypted by one, decrypted by the other")
		b.write("message", message)
		got, err := open(b.public(append([]string{"-encrypt", "-in", "message"}, options...)...))
		if err != nil || !bytes.Equal(got, message) {
			t.Errorf("Go decrypts %q, %v", got, err)
		}
		sealed, err := seal(message)
		if err != nil {
			t.Fatal(err)
		}
		b.write("sealed", sealed)
		if got := b.private(append([]string{"-decrypt", "-in", "sealed"}, options...)...); !bytes.Equal(got, message) {
			t.Errorf("OpenSSL decrypts %q", got)
		}
	})
}

// parsePrivate and parsePublic read with libraries what we wrote. smx509 reads what x509 does and SM2.
func parsePrivate[K any](t *testing.T, der []byte) K {
	t.Helper()
	key, err := smx509.ParsePKCS8PrivateKey(der)
	if err != nil {
		t.Fatal(err)
	}
	return key.(K)
}

func parsePublic[K any](t *testing.T, der []byte) K {
	t.Helper()
	key, err := smx509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	return key.(K)
}

// signed returns a signature that was made without an error.
func signed(t *testing.T) func(signature []byte, err error) []byte {
	return func(signature []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return signature
	}
}

var saltOfHashLength = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}

var pss = scheme{
	"PSS", []string{"-digest", "sha256", "-pkeyopt", "rsa_padding_mode:pss", "-pkeyopt", "rsa_pss_saltlen:digest"},
	func(t *testing.T, private, message []byte) []byte {
		digest := sha256.Sum256(message)
		key := parsePrivate[*rsa.PrivateKey](t, private)
		return signed(t)(rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:], saltOfHashLength))
	},
	func(t *testing.T, public, message, signature []byte) bool {
		digest := sha256.Sum256(message)
		key := parsePublic[*rsa.PublicKey](t, public)
		return rsa.VerifyPSS(key, crypto.SHA256, digest[:], signature, saltOfHashLength) == nil
	},
}

var pkcs1 = scheme{
	"PKCS1v15", []string{"-digest", "sha256", "-pkeyopt", "rsa_padding_mode:pkcs1"},
	func(t *testing.T, private, message []byte) []byte {
		digest := sha256.Sum256(message)
		return signed(t)(rsa.SignPKCS1v15(nil, parsePrivate[*rsa.PrivateKey](t, private), crypto.SHA256, digest[:]))
	},
	func(t *testing.T, public, message, signature []byte) bool {
		digest := sha256.Sum256(message)
		return rsa.VerifyPKCS1v15(parsePublic[*rsa.PublicKey](t, public), crypto.SHA256, digest[:], signature) == nil
	},
}

func ecdsaWith(hash crypto.Hash, name string) scheme {
	sum := func(message []byte) []byte {
		h := hash.New()
		h.Write(message)
		return h.Sum(nil)
	}
	return scheme{
		"ECDSA", []string{"-digest", name},
		func(t *testing.T, private, message []byte) []byte {
			return signed(t)(ecdsa.SignASN1(rand.Reader, parsePrivate[*ecdsa.PrivateKey](t, private), sum(message)))
		},
		func(t *testing.T, public, message, signature []byte) bool {
			return ecdsa.VerifyASN1(parsePublic[*ecdsa.PublicKey](t, public), sum(message), signature)
		},
	}
}

var secp = scheme{
	"ECDSA", []string{"-digest", "sha256"},
	func(t *testing.T, private, message []byte) []byte {
		digest := sha256.Sum256(message)
		return secpdsa.Sign(secp256k1.PrivKeyFromBytes(parseEC(t, private).d), digest[:]).Serialize()
	},
	func(t *testing.T, public, message, signature []byte) bool {
		point, err := secp256k1.ParsePubKey(public[len(public)-65:])
		if err != nil {
			t.Fatal(err)
		}
		sig, err := secpdsa.ParseDERSignature(signature)
		if err != nil {
			t.Fatal(err)
		}
		digest := sha256.Sum256(message)
		return sig.Verify(digest[:], point)
	},
}

var sm2dsa = scheme{
	"SM2", []string{"-digest", "sm3", "-pkeyopt", "distid:1234567812345678"},
	func(t *testing.T, private, message []byte) []byte {
		return signed(t)(parsePrivate[*sm2.PrivateKey](t, private).SignWithSM2(rand.Reader, nil, message))
	},
	func(t *testing.T, public, message, signature []byte) bool {
		return sm2.VerifyASN1WithSM2(parsePublic[*ecdsa.PublicKey](t, public), nil, message, signature)
	},
}

var eddsa = scheme{
	"Ed25519", nil,
	func(t *testing.T, private, message []byte) []byte {
		return ed25519.Sign(parsePrivate[ed25519.PrivateKey](t, private), message)
	},
	func(t *testing.T, public, message, signature []byte) bool {
		return ed25519.Verify(parsePublic[ed25519.PublicKey](t, public), message, signature)
	},
}
