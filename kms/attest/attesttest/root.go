// Package attesttest is the other side of package attest: an attester under a root of its own, documents that no honest attester would make, and the
// holder of the key to whom answers are sealed.
//
// It shares no code with what verifies and seals. Documents are made byte by byte, so that those which are wrong are as easy to make as the one that
// is right.
//
// What its roots vouch for is whatever they were asked to. Package attest takes them for what they are and refuses them, unless it is told otherwise.
package attesttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"sync"
	"time"

	"strongroom/kms/attest"
)

// A Root is the root of an attester. It is safe for concurrent use.
type Root struct {
	Key *ecdsa.PrivateKey // of P-384
	DER []byte            // the certificate

	seed []byte

	mu   sync.Mutex // of what follows
	last *plan      // that was carried out, and as it was made; with a seed
}

// RootOptions say what root [NewRoot] makes.
type RootOptions struct {
	// Name is the common name. Default: "strongroom test root".
	Name string

	// Seed is what everything random comes from: the keys and serial numbers of the root and of what is under it. With a seed and Since, root and
	// documents come out the same each time, and the keys are no secret. Nil means random.
	Seed []byte

	// Since is when the root's validity of 30 years begins. Zero means an hour ago.
	Since time.Time

	// Unmarked leaves [attest.TestRootUnit] out of the subject, as in the root of an operator's own attester.
	Unmarked bool
}

// organization is in the subject of every certificate.
const organization = "Strongroom"

// NewRoot makes a root.
func NewRoot(o RootOptions) (*Root, error) {
	if o.Name == "" {
		o.Name = "strongroom test root"
	}
	if o.Since.IsZero() {
		o.Since = time.Now().Add(-time.Hour)
	}
	random := newSource(o.Seed)
	subject := pkix.Name{Organization: []string{organization}, CommonName: o.Name}
	if !o.Unmarked {
		subject.OrganizationalUnit = []string{attest.TestRootUnit}
	}
	key := random.key("root", elliptic.P384())
	template := &x509.Certificate{
		SerialNumber:          random.serial("root"),
		Subject:               subject,
		NotBefore:             o.Since,
		NotAfter:              o.Since.AddDate(30, 0, 0),
		BasicConstraintsValid: true,
		IsCA:                  true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		SubjectKeyId:          random.bytes("root identifier", 20),
		SignatureAlgorithm:    x509.ECDSAWithSHA384,
	}
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make a root: %w", err)
	}
	return &Root{Key: key, DER: der, seed: o.Seed}, nil
}

// The types of the PEM blocks of a root.
const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY" // PKCS #8
)

// ParseRoot reads what [Root.PEM] returned, and checks that the certificate is that of the key. The seed is not in there: what the root makes is random.
func ParseRoot(certificate, key []byte) (*Root, error) {
	der, err := parsePEM(pemCertificate, certificate)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	raw, err := parsePEM(pemKey, key)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(raw)
	if err != nil {
		return nil, err
	}
	private, ok := parsed.(*ecdsa.PrivateKey)
	switch {
	case !ok || private.Curve != elliptic.P384():
		return nil, errors.New("key: it is not of P-384")
	case !private.PublicKey.Equal(c.PublicKey):
		return nil, errors.New("the certificate is not that of the key")
	}
	return &Root{Key: private, DER: der}, nil
}

// PEM returns the certificate and the key, the latter as PKCS #8.
func (r *Root) PEM() (certificate, key []byte) {
	return encodePEM(pemCertificate, r.DER), encodePEM(pemKey, marshalKey(r.Key))
}

// Anchor returns the root as one to trust, with all documents and for all accounts.
func (r *Root) Anchor(name string) attest.Anchor { return attest.Anchor{Name: name, DER: r.DER} }

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// parsePEM returns the content of the first block, which has to be of the kind.
func parsePEM(kind string, b []byte) ([]byte, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("it is not PEM of a %s", kind)
	}
	return block.Bytes, nil
}

// marshalKey returns a private key as PKCS #8. There is a form for every key of this package.
func marshalKey(key any) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return der
}
