package attesttest

import (
	"crypto"
	_ "crypto/sha512" // for crypto.SHA384
	"slices"

	"strongroom/kms/attest"
)

// A Case is a document that is unlike the plain one, or, as the zero value, the plain one.
//
// Each step of making a document has a function that changes its outcome, in this order. What comes later does not undo it, so a document whose payload
// is changed is signed as it then is.
type Case struct {
	Name   string        // stable: words in lower case and hyphens
	About  string        // what is unlike, in a few words
	Reason attest.Reason // why it is refused; 0: it is accepted

	state  func(*Statement)
	plan   func(*plan)    // before the certificates are made
	bundle func(*plan)    // afterwards
	write  func(*members) // the payload's
	encode func([]byte) []byte
	wrap   func(*message) // before it is signed
	finish func(*message) // afterwards
	raw    func([]byte) []byte
}

// Cases returns every case there is.
func Cases() []Case {
	return slices.Concat(acceptedCases(), formCases(), valueCases(), timeCases(), chainCases(), signatureCases(), keyCases())
}

// DocumentOf returns the document of a case that otherwise says what s says. With the zero Case, it is the one of [Root.Document]. The case is what it
// says it is if s.Time is the present and s.PublicKey is a key that can be sealed to.
func (r *Root) DocumentOf(c Case, s Statement) ([]byte, error) {
	if err := s.fill(); err != nil {
		return nil, err
	}
	apply(c.state, &s)
	p, err := r.issue(&s, c.plan)
	if err != nil {
		return nil, err
	}
	apply(c.bundle, p)
	content := payload(&s, p.bundle, p.certificate)
	apply(c.write, &content)
	m := &message{
		protected:   []byte(headerES384),
		unprotected: appendHead(nil, majorMap, 0),
		payload:     content.encode(!s.Definite),
		signer:      p.links[len(p.links)-1].key,
		hash:        crypto.SHA384,
	}
	if c.encode != nil {
		m.payload = c.encode(m.payload)
	}
	apply(c.wrap, m)
	m.sign()
	apply(c.finish, m)
	raw := m.encode()
	if c.raw != nil {
		raw = c.raw(raw)
	}
	return raw, nil
}

// apply changes what is given, if there is anything to change.
func apply[T any](f func(*T), v *T) {
	if f != nil {
		f(v)
	}
}
