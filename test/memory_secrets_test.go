package test

import (
	"bytes"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/base64"
	"math/big"
	"slices"
	"sync"
)

// secrets are what a server was asked to keep or has answered.
type secrets struct {
	mu     sync.Mutex
	kinds  []string // of each secret
	search *search
}

func newSecrets() *secrets { return &secrets{search: newSearch()} }

// key adds a data key, a plaintext, or other random bytes.
func (s *secrets) key(kind string, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := len(s.kinds)
	s.kinds = append(s.kinds, kind)
	s.search.add(id, kind, b)
	s.search.add(id, kind+" in base64", []byte(base64.StdEncoding.EncodeToString(b)))
}

// private adds a private key: each of its numbers, in the order of bytes that encodings have and in that of big integers, and where it lies in the encoding's base64.
func (s *secrets) private(spec string, der []byte) error {
	numbers, err := numbersOf(der)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := len(s.kinds)
	s.kinds = append(s.kinds, spec)
	text := []byte(base64.StdEncoding.EncodeToString(der))
	for _, n := range numbers {
		s.search.add(id, spec+": "+n.name, n.bytes)
		turned := slices.Clone(n.bytes)
		slices.Reverse(turned)
		s.search.add(id, spec+": "+n.name+" as words", turned)
		if at := bytes.Index(der, n.bytes); at >= 0 {
			s.search.add(id, spec+": "+n.name+" in base64", text[(at+2)/3*4:(at+len(n.bytes))/3*4])
		}
	}
	return nil
}

type number struct {
	name  string
	bytes []byte
}

// numbersOf returns what is secret in a private key.
func numbersOf(der []byte) ([]number, error) {
	var outer struct {
		Version   int
		Algorithm asn1.RawValue
		Key       []byte
	}
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return nil, err
	}
	var rsa struct {
		Version               int
		N, E                  *big.Int
		D, P, Q, Dp, Dq, Qinv *big.Int
	}
	if _, err := asn1.Unmarshal(outer.Key, &rsa); err == nil {
		return []number{
			{"d", rsa.D.Bytes()}, {"p", rsa.P.Bytes()}, {"q", rsa.Q.Bytes()}, {"dp", rsa.Dp.Bytes()}, {"dq", rsa.Dq.Bytes()}, {"qinv", rsa.Qinv.Bytes()},
		}, nil
	}
	var ec struct {
		Version int
		D       []byte
		Public  asn1.BitString `asn1:"explicit,tag:1"`
	}
	if _, err := asn1.Unmarshal(outer.Key, &ec); err == nil {
		return []number{{"scalar", ec.D}}, nil
	}
	var seed []byte
	if _, err := asn1.Unmarshal(outer.Key, &seed); err != nil {
		return nil, err
	}
	// RFC 8032, section 5.1.5.
	h := sha512.Sum512(seed)
	h[0] &= 248
	h[31] = h[31]&127 | 64
	return []number{{"seed", seed}, {"scalar", h[:32]}, {"prefix", h[32:]}}, nil
}
