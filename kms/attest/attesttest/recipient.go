package attesttest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// A Recipient is the holder of the key that a document names.
type Recipient struct {
	Key *rsa.PrivateKey
}

// NewRecipient makes a key of so many bits.
func NewRecipient(bits int) (*Recipient, error) {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, err
	}
	return &Recipient{key}, nil
}

// ParseRecipient reads a private key in PEM: PKCS #8, as [Recipient.PEM] returns it, or PKCS #1.
func ParseRecipient(text []byte) (*Recipient, error) {
	block, _ := pem.Decode(text)
	switch {
	case block == nil:
		return nil, errors.New("it is not PEM")
	case block.Type == "RSA PRIVATE KEY" && block.Headers["DEK-Info"] == "":
		key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		return &Recipient{key}, nil
	case block.Type != pemKey:
		return nil, errors.New("it is not an unencrypted PRIVATE KEY (PKCS #8) or RSA PRIVATE KEY (PKCS #1)")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("it is not an RSA key")
	}
	return &Recipient{key}, nil
}

// PEM returns the private key as PKCS #8.
func (r *Recipient) PEM() []byte { return encodePEM(pemKey, marshalKey(r.Key)) }

// PublicKey returns the key as a document names it: an X.509 SubjectPublicKeyInfo in DER.
func (r *Recipient) PublicKey() []byte { return marshalPublicKey(&r.Key.PublicKey) }

// marshalPublicKey returns a public key as a SubjectPublicKeyInfo. There is a form for every key of this package.
func marshalPublicKey(key any) []byte {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(err)
	}
	return der
}

// Open returns what is in an envelope for the recipient. It reads no other form than that which AWS KMS writes, and AWS's own decoder for enclaves needs:
// see [ParseEnvelope].
func (r *Recipient) Open(envelope []byte) ([]byte, error) {
	e, err := ParseEnvelope(envelope)
	if err != nil {
		return nil, err
	}
	if e.Recipient != sha256.Sum256(r.PublicKey()) {
		return nil, errors.New("it is for another recipient")
	}
	key, err := rsa.DecryptOAEP(sha256.New(), nil, r.Key, e.Key, nil)
	if err != nil {
		return nil, fmt.Errorf("decrypt the content key: %w", err)
	}
	defer clear(key)
	if len(key) != 32 {
		return nil, fmt.Errorf("the content key has %d bytes and not 32", len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	content := append([]byte(nil), e.Content...)
	if len(content) == 0 || len(content)%aes.BlockSize != 0 {
		return nil, fmt.Errorf("%d bytes of content are not whole blocks", len(content))
	}
	cipher.NewCBCDecrypter(block, e.IV[:]).CryptBlocks(content, content)
	return unpad(content)
}

// unpad takes off the padding of CMS (RFC 5652, section 6.3).
func unpad(content []byte) ([]byte, error) {
	n := int(content[len(content)-1])
	if n < 1 || n > aes.BlockSize {
		return nil, errors.New("the padding is not right")
	}
	for _, b := range content[len(content)-n:] {
		if int(b) != n {
			return nil, errors.New("the padding is not right")
		}
	}
	return content[:len(content)-n], nil
}
