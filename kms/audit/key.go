package audit

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// ParsePublicKey takes the key that verifies a log, as [Log.PublicKeyPEM] writes it, or as a SubjectPublicKeyInfo in DER.
func ParsePublicKey(b []byte) (*ecdsa.PublicKey, error) {
	if block, rest := pem.Decode(b); block != nil {
		if block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
			return nil, errors.New("audit: the public key is not one PEM block of type PUBLIC KEY")
		}
		b = block.Bytes
	}
	v, err := x509.ParsePKIXPublicKey(b)
	if err != nil {
		return nil, fmt.Errorf("audit: the public key: %w", err)
	}
	key, ok := v.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("audit: the public key is not an ECDSA key on P-256")
	}
	return key, nil
}

func publicKeyDER(key *ecdsa.PublicKey) ([]byte, error) {
	if key.Curve != elliptic.P256() {
		return nil, errors.New("audit: the public key is not an ECDSA key on P-256")
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("audit: the public key: %w", err)
	}
	return der, nil
}
