package keyspec

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// A Pair is a data key pair as its user gets it. Public is a DER SubjectPublicKeyInfo (RFC 5280), Private a DER PKCS #8 key
// of version 0 (RFC 5958) without attributes.
//
// Whichever way it is printed, a Pair prints as its spec and its lengths. Keep it by pointer: package fmt cannot call the
// methods of a Pair that is an unexported field of another struct, and prints what it finds.
//
// A Pair belongs to one goroutine at a time.
type Pair struct {
	Spec    Spec
	Public  []byte
	Private []byte
}

// Generate makes a new pair, unrelated to any other. It takes well under a millisecond for a curve and, for RSA, as
// long as it takes to find two primes, which is luck: some 50 ms on average for RSA_2048, a second or several for RSA_4096. It
// cannot be interrupted. The caller wipes the pair.
//
// Everything secret that is made on the way and that this package can reach is wiped. What it cannot reach are the copies inside the key types of
// crypto/rsa, crypto/ecdh and gmsm, whose fields are not exported, the temporaries of their arithmetic, and whatever is left in registers and on
// stacks, which the runtime also copies when they grow. Those are left to the package secret: the latter are gone when Generate returns, the others when the
// collector has run. In a program that was built without, all stay in memory until the memory is used again.
func (s Spec) Generate() (*Pair, error) {
	r, err := s.row()
	if err != nil {
		return nil, err
	}
	public, private, err := r.keys.generate()
	if err != nil {
		return nil, fmt.Errorf("generate %s: %w", s, err)
	}
	defer clear(private)
	p := &Pair{Spec: s}
	if p.Public, err = r.sealPublic(public); err != nil {
		return nil, fmt.Errorf("encode %s public key: %w", s, err)
	}
	if p.Private, err = r.sealPrivate(private); err != nil {
		return nil, fmt.Errorf("encode %s private key: %w", s, err)
	}
	return p, nil
}

// envelope is more than both envelopes ever add to what they hold: the AlgorithmIdentifier has at most 21 bytes, and four
// headers have at most four bytes each.
const envelope = 64

// sealPublic returns
//
//	SubjectPublicKeyInfo  ::=  SEQUENCE  {
//	     algorithm            AlgorithmIdentifier,
//	     subjectPublicKey     BIT STRING  }
//
// as in RFC 5280, Section 4.1.
func (r *row) sealPublic(public []byte) ([]byte, error) {
	return der(len(public)+envelope, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes(r.algorithm)
			b.AddASN1BitString(public)
		})
	})
}

// sealPrivate returns
//
//	OneAsymmetricKey ::= SEQUENCE {
//	  version                   Version,
//	  privateKeyAlgorithm       PrivateKeyAlgorithmIdentifier,
//	  privateKey                PrivateKey }
//
// as in RFC 5958, Section 2, without its optional fields. Version is 0 (v1), as it must be without the field publicKey; so this
// is also PrivateKeyInfo of RFC 5208, Section 5.
func (r *row) sealPrivate(private []byte) ([]byte, error) {
	return der(len(private)+envelope, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1Uint64(0)
			b.AddBytes(r.algorithm)
			b.AddASN1OctetString(private)
		})
	})
}

// der returns what write writes, in one array of size bytes that never moves. So there is one copy of what is written, and
// the caller has it; if it does not fit, what was written is wiped. (encoding/asn1 and crypto/x509 leave copies behind.)
func der(size int, write func(b *cryptobyte.Builder)) ([]byte, error) {
	buf := make([]byte, 0, size)
	b := cryptobyte.NewFixedBuilder(buf)
	write(b)
	out, err := b.Bytes()
	if err != nil {
		clear(buf[:size])
	}
	return out, err
}

// Wipe overwrites the private key with zeros and forgets it, so that a wiped pair cannot be handed out for a good one. It knows
// of no copies that others made of Private. Wiping twice, or nothing, is no error.
func (p *Pair) Wipe() {
	if p == nil {
		return
	}
	clear(p.Private[:cap(p.Private)])
	p.Private = nil
}

// String returns the spec and the lengths of the two halves, for people.
func (p Pair) String() string {
	return fmt.Sprintf("%v pair (public %d bytes, private %d bytes)", p.Spec, len(p.Public), len(p.Private))
}

// GoString returns the same as String, instead of the Go syntax of all bytes.
func (p Pair) GoString() string { return p.String() }

// Format writes the same as String whatever the verb and its flags are.
func (p Pair) Format(f fmt.State, _ rune) { io.WriteString(f, p.String()) }

// LogValue returns the same as String.
func (p Pair) LogValue() slog.Value { return slog.StringValue(p.String()) }

// MarshalText refuses, and with it encoding/json: a pair inside something that is being encoded got there by mistake.
func (p Pair) MarshalText() ([]byte, error) {
	return nil, errors.New("a key pair is not encoded as a whole")
}
