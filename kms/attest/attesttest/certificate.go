package attesttest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// A link is a certificate of a chain that is being made.
type link struct {
	template *x509.Certificate
	key      *ecdsa.PrivateKey
	public   crypto.PublicKey  // in the certificate, if it is not that of key
	signer   *ecdsa.PrivateKey // if it is not the key of the link above
	change   func(*tbs)        // what [x509.CreateCertificate] would not make
	der      []byte
}

// A plan is the certificates of a document, first as they are to be made and then made.
type plan struct {
	random source
	time   time.Time // of the document
	module string    // its id

	links []*link // the root, region, zone and instance, and the signer of the document

	// Once they are made.
	bundle      [][]byte
	certificate []byte
}

// The links of a plan.
const (
	linkRoot = iota
	linkRegion
	linkZone
	linkInstance
	linkSigner
)

// newPlan returns the certificates that a document of the Nitro Security Module has, with the lifetimes of real ones.
func newPlan(r *Root, random source, s *Statement) (*plan, error) {
	root, err := x509.ParseCertificate(r.DER)
	if err != nil {
		return nil, fmt.Errorf("root: %w", err)
	}
	p := &plan{random: random, time: s.Time, module: s.ModuleID, links: []*link{{template: root, key: r.Key, der: r.DER}}}
	const ca = x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	const day = 24 * time.Hour
	p.addCA("region", "test-region-1", 2, ca, 4*day, 20*day+time.Hour)
	p.addCA("zone", "test-zone-1a.test-region-1", 1, ca, day, 5*day+22*time.Hour)
	p.addCA("instance", "i-0123456789abcdef0.test-region-1", 0, x509.KeyUsageCertSign, 4*time.Hour, day)
	for _, l := range p.links[linkRegion : linkZone+1] {
		id := random.bytes(l.template.Subject.CommonName, 20)
		l.template.SubjectKeyId = id
		l.template.CRLDistributionPoints = []string{"http://crl.invalid/" + hex.EncodeToString(id) + ".crl"}
	}
	p.addSigner()
	return p, nil
}

// add adds a certificate that was made the given time before the document, and lives as long as given.
func (p *plan) add(label, name string, before, lives time.Duration) *x509.Certificate {
	since := p.time.Add(-before).UTC().Truncate(time.Second)
	c := &x509.Certificate{
		SerialNumber:          p.random.serial(label),
		Subject:               pkix.Name{Organization: []string{organization}, CommonName: name},
		NotBefore:             since,
		NotAfter:              since.Add(lives),
		BasicConstraintsValid: true,
		SignatureAlgorithm:    x509.ECDSAWithSHA384,
	}
	p.links = append(p.links, &link{template: c, key: p.random.key(label, elliptic.P384())})
	return c
}

// addCA adds the certificate of a CA, with a path length.
func (p *plan) addCA(label, name string, below int, usage x509.KeyUsage, before, lives time.Duration) {
	c := p.add(label, p.random.name(label)+"."+name, before, lives)
	c.IsCA, c.MaxPathLen, c.MaxPathLenZero, c.KeyUsage = true, below, below == 0, usage
}

// addSigner adds the certificate of the key that signs the document. It is made when it is needed, seconds before.
func (p *plan) addSigner() {
	c := p.add("signer", p.module+".test-region-1", time.Second, 3*time.Hour+3*time.Second)
	c.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment
}

// name returns a name as AWS gives to its CAs.
func (s source) name(label string) string { return hex.EncodeToString(s.bytes(label+" name", 8)) }

// issue returns the certificates of a document, made by a plan that f has changed. Those of a seed are the same as those before them if no name and no time
// differs, and they are what costs most in making a document, so they are kept.
func (r *Root) issue(s *Statement, f func(*plan)) (*plan, error) {
	keep := r.seed != nil && f == nil
	if keep {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.last != nil && r.last.module == s.ModuleID && r.last.time.Unix() == s.Time.Unix() {
			p := *r.last
			p.time, p.bundle = s.Time, slices.Clone(p.bundle)
			return &p, nil
		}
	}
	p, err := newPlan(r, newSource(r.seed), s)
	if err != nil {
		return nil, err
	}
	apply(f, p)
	if err := p.issue(); err != nil {
		return nil, err
	}
	if keep {
		kept := *p
		kept.bundle = slices.Clone(p.bundle)
		r.last = &kept
	}
	return p, nil
}

// issue makes the certificates that are not made yet.
func (p *plan) issue() error {
	for i, l := range p.links {
		if l.der == nil {
			if err := l.issue(p.links[i-1]); err != nil {
				return fmt.Errorf("make certificate %d: %w", i, err)
			}
		}
	}
	p.bundle = nil
	last := len(p.links) - 1
	for _, l := range p.links[:last] {
		p.bundle = append(p.bundle, l.der)
	}
	p.certificate = p.links[last].der
	return nil
}

// issue makes the certificate of l, in the name of the link above.
func (l *link) issue(above *link) error {
	if l.public == nil {
		l.public = l.key.Public()
	}
	if l.signer == nil {
		l.signer = above.key
	}
	// Of what is above, no more than this goes into a certificate.
	parent := &x509.Certificate{Subject: above.template.Subject, RawSubject: above.template.RawSubject, SubjectKeyId: above.template.SubjectKeyId}
	der, err := x509.CreateCertificate(nil, l.template, parent, l.public, l.signer)
	if err != nil {
		return err
	}
	if l.change != nil {
		der = change(der, l.signer, l.change)
	}
	l.der = der
	return nil
}

// A tbs is what is signed of a certificate (RFC 5280, section 4.1).
type tbs struct {
	Version    int `asn1:"optional,explicit,default:0,tag:0"`
	Serial     *big.Int
	Algorithm  pkix.AlgorithmIdentifier
	Issuer     asn1.RawValue
	Validity   asn1.RawValue
	Subject    asn1.RawValue
	PublicKey  asn1.RawValue
	Extensions []pkix.Extension `asn1:"omitempty,optional,explicit,tag:3"`
}

// A signed is a certificate.
type signed struct {
	TBS       asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

// change returns a certificate with another content, signed again.
func change(der []byte, signer *ecdsa.PrivateKey, f func(*tbs)) []byte {
	var c signed
	mustUnmarshal(der, &c)
	var t tbs
	mustUnmarshal(c.TBS.FullBytes, &t)
	f(&t)
	c.TBS = asn1.RawValue{FullBytes: mustMarshal(t)}
	digest := sha512.Sum384(c.TBS.FullBytes)
	r, s := signature(signer, digest[:], crypto.SHA384)
	c.Signature.Bytes = mustMarshal(struct{ R, S *big.Int }{r, s})
	c.Signature.BitLength = 8 * len(c.Signature.Bytes)
	return mustMarshal(c)
}

// mustUnmarshal reads DER that this package has made.
func mustUnmarshal(der []byte, into any) {
	if rest, err := asn1.Unmarshal(der, into); err != nil || len(rest) > 0 {
		panic(fmt.Sprintf("attesttest: %d bytes follow, %v", len(rest), err))
	}
}

func mustMarshal(v any) []byte {
	der, err := asn1.Marshal(v)
	if err != nil {
		panic(err)
	}
	return der
}

// unknownExtension is an extension that nobody knows: its name is under that for examples (ITU-T X.660, 2.999).
func unknownExtension(critical bool) pkix.Extension {
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 999, 1}, Critical: critical, Value: []byte{5, 0}}
}

// The names of extensions (RFC 5280, section 4.2.1).
var (
	extSubjectKeyID     = asn1.ObjectIdentifier{2, 5, 29, 14}
	extKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	extSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	extBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
)

// without takes an extension out of a certificate.
func without(id asn1.ObjectIdentifier) func(*tbs) {
	return func(t *tbs) {
		t.Extensions = slices.DeleteFunc(t.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(id) })
	}
}

// with puts an extension into a certificate, in place of the one that it has.
func with(id asn1.ObjectIdentifier, value string) func(*tbs) {
	return func(t *tbs) {
		without(id)(t)
		t.Extensions = append(t.Extensions, pkix.Extension{Id: id, Critical: true, Value: []byte(value)})
	}
}
