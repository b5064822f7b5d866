package attest

import (
	"bytes"
	"container/list"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A chain is what remains of a bundle and a signer's certificate once they were verified.
type chain struct {
	signer       *ecdsa.PublicKey
	since, until time.Time // when all certificates hold
}

// A chainHash identifies the certificates of a document, the root among them: SHA-256.
type chainHash [sha256.Size]byte

// hashChain hashes the certificates, each preceded by its length so that no two chains have one encoding.
func hashChain(d *Document) chainHash {
	h := sha256.New()
	for _, der := range append(d.CABundle[:len(d.CABundle):len(d.CABundle)], d.Certificate) {
		var size [4]byte
		binary.BigEndian.PutUint32(size[:], uint32(len(der)))
		h.Write(size[:])
		h.Write(der)
	}
	return chainHash(h.Sum(nil))
}

// chains remembers the chains that were verified last, because an enclave sends the same one for hours and four of the five signatures to verify
// are in it. What failed is not remembered. It is safe for concurrent use.
type chains struct {
	limit int

	mu     sync.Mutex // held for a look into a map and a list
	known  map[chainHash]*list.Element
	recent *list.List // of knownChain, the last used first
}

type knownChain struct {
	hash chainHash
	*chain
}

func newChains(limit int) *chains {
	return &chains{limit: limit, known: make(map[chainHash]*list.Element), recent: list.New()}
}

// verify returns the chain of d, which begins with the anchor's certificate, if it holds at the given time.
func (s *chains) verify(a *anchor, d *Document, at time.Time) (*chain, error) {
	hash := hashChain(d)
	if c := s.find(hash, at); c != nil {
		return c, nil
	}
	c, err := verifyCertificates(a, d, at)
	if err != nil {
		return nil, err
	}
	s.remember(hash, c)
	return c, nil
}

func (s *chains) find(hash chainHash, at time.Time) *chain {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.known[hash]
	if e == nil {
		return nil
	}
	c := e.Value.(knownChain).chain
	if at.Before(c.since) || at.After(c.until) {
		s.drop(e)
		return nil
	}
	s.recent.MoveToFront(e)
	return c
}

func (s *chains) remember(hash chainHash, c *chain) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known[hash] != nil {
		return // by another request meanwhile
	}
	s.known[hash] = s.recent.PushFront(knownChain{hash, c})
	if s.recent.Len() > s.limit {
		s.drop(s.recent.Back())
	}
}

func (s *chains) drop(e *list.Element) {
	delete(s.known, s.recent.Remove(e).(knownChain).hash)
}

// verifyCertificates verifies that each certificate in d vouches for the next, from the anchor's to the one that signs d, and that all of them hold
// at the given time (RFC 5280, section 6). Revocation is not asked for, as AWS advises: the certificates live for hours.
//
// crypto/x509 finds a path among any certificates that it is given. Here there is one path, the bundle in its order, so the names have to show it
// before the first signature is verified; who sends certificates cannot choose how many verifications they cost.
func verifyCertificates(a *anchor, d *Document, at time.Time) (*chain, error) {
	certs := []*x509.Certificate{a.certificate}
	intermediates := x509.NewCertPool()
	for i, der := range d.CABundle[1:] {
		c, err := x509.ParseCertificate(der)
		if err == nil {
			err = checkCA(c)
		}
		if err != nil {
			return nil, fmt.Errorf("certificate %d of the bundle: %w", i+1, err)
		}
		certs = append(certs, c)
		intermediates.AddCert(c)
	}
	leaf, err := x509.ParseCertificate(d.Certificate)
	if err == nil {
		err = checkSigner(leaf)
	}
	if err != nil {
		return nil, fmt.Errorf("the signer's certificate: %w", err)
	}
	certs = append(certs, leaf)
	if err := checkOrder(certs); err != nil {
		return nil, err
	}
	// crypto/x509 begins at the signer. What does not lead to the anchor is refused for the price of one signature here.
	if err := certs[1].CheckSignatureFrom(a.certificate); err != nil {
		return nil, fmt.Errorf("certificate 1 is not signed by the anchor: %w", err)
	}
	paths, err := leaf.Verify(x509.VerifyOptions{
		Roots:         a.pool,
		Intermediates: intermediates,
		CurrentTime:   at,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, err
	}
	if len(paths) != 1 || !isReverse(paths[0], certs) {
		return nil, errors.New("the path to the root is not the bundle in its order")
	}
	c := &chain{signer: leaf.PublicKey.(*ecdsa.PublicKey), since: leaf.NotBefore, until: leaf.NotAfter}
	for _, cert := range certs {
		if cert.NotBefore.After(c.since) {
			c.since = cert.NotBefore
		}
		if cert.NotAfter.Before(c.until) {
			c.until = cert.NotAfter
		}
	}
	return c, nil
}

// checkOrder refuses certificates that do not each name the one before as issuer, and those in which a name comes back: any certificate would then
// be tried with all of them.
func checkOrder(certs []*x509.Certificate) error {
	seen := make(map[string]bool, len(certs))
	for i, c := range certs {
		if seen[string(c.RawSubject)] {
			return errors.New("two certificates have one subject")
		}
		seen[string(c.RawSubject)] = true
		if i > 0 && !bytes.Equal(c.RawIssuer, certs[i-1].RawSubject) {
			return fmt.Errorf("certificate %d is not issued by the one before it", i)
		}
	}
	return nil
}

// isReverse reports whether a path, from the signer up, is the chain from the root down.
func isReverse(path, certs []*x509.Certificate) bool {
	if len(path) != len(certs) {
		return false
	}
	for i, c := range path {
		if !c.Equal(certs[len(certs)-1-i]) {
			return false
		}
	}
	return true
}

// checkAlgorithms refuses a certificate that is not of P-384 and signed with SHA-384, which all of them are.
func checkAlgorithms(c *x509.Certificate) error {
	key, ok := c.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P384() || c.SignatureAlgorithm != x509.ECDSAWithSHA384 {
		return errors.New("it is not ECDSA with P-384 and SHA-384")
	}
	return nil
}

// checkCA refuses a certificate that may not sign others. Without a key usage, crypto/x509 would let it.
func checkCA(c *x509.Certificate) error {
	if !c.BasicConstraintsValid || !c.IsCA || c.KeyUsage&x509.KeyUsageCertSign == 0 {
		return errors.New("it may not sign certificates")
	}
	return checkAlgorithms(c)
}

// checkSigner refuses a certificate that may not sign documents: a CA's, or one without digitalSignature.
func checkSigner(c *x509.Certificate) error {
	switch {
	case c.IsCA || c.BasicConstraintsValid && (c.MaxPathLen > 0 || c.MaxPathLenZero):
		return errors.New("it is that of a CA")
	case c.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return errors.New("it may not sign documents")
	}
	return checkAlgorithms(c)
}
