package attest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
)

// The envelope is a CMS EnvelopedData (RFC 5652, section 6) with one recipient, named by the SHA-256 of its SubjectPublicKeyInfo, an AES-256 key under
// RSAES-OAEP (RFC 4055, section 4.1; SHA-256, MGF1 with SHA-256, no label), and the content under AES-256-CBC (RFC 3565).
//
// It is BER with indefinite lengths, written as AWS KMS writes it, and must not be tidied into DER. AWS's own decoder, which is in every enclave built on
// aws-nitro-enclaves-sdk-c, enters ContentInfo, its [0], EnvelopedData and EncryptedContentInfo only where their lengths are indefinite, and the set of
// recipients and the content's algorithm only where theirs are definite; it refuses an envelope in DER. OpenSSL and others take either, so a test with
// them alone would not notice.
//
//	30 80                               ContentInfo
//	   06 ..                               envelopedData
//	   a0 80                               [0] EXPLICIT
//	      30 80                               EnvelopedData
//	         02 01 02                            version 2
//	         31 82 .. ..                         SET OF RecipientInfo
//	            30 82 .. ..                         KeyTransRecipientInfo
//	               02 01 02                            version 2
//	               80 20 ..                            [0] subjectKeyIdentifier
//	               30 3c ..                            id-RSAES-OAEP and its parameters
//	               04 82 .. .. ..                      AES key, encrypted
//	         30 80                               EncryptedContentInfo
//	            06 ..                               data
//	            30 1d .. 04 10 ..                   aes256-CBC and its IV
//	            a0 80                               [0] IMPLICIT, constructed
//	               04 .. ..                            content, encrypted, 1000 bytes each
//	            00 00
//	         00 00
//	      00 00
//	   00 00
//	00 00
const (
	envelopeHead  = "\x30\x80" + oidEnvelopedData + "\xa0\x80" + "\x30\x80" + version2
	contentHead   = "\x30\x80" + oidData + "\x30\x1d" + oidAES256CBC + "\x04\x10"
	contentBegins = "\xa0\x80"
	contentEnds   = "\x00\x00"
	envelopeEnds  = "\x00\x00" + "\x00\x00" + "\x00\x00" + "\x00\x00"

	version2 = "\x02\x01\x02"

	// RSAES-OAEP-params with hashAlgorithm and maskGenAlgorithm given, since their defaults are SHA-1, and pSourceAlgorithm left out.
	oaepAlgorithm = "\x30\x3c" + oidRSAESOAEP + "\x30\x2f" + "\xa0\x0f" + sha256Algorithm + "\xa1\x1c" + "\x30\x1a" + oidMGF1 + sha256Algorithm

	sha256Algorithm = "\x30\x0d" + oidSHA256 + "\x05\x00"

	oidData          = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01" // 1.2.840.113549.1.7.1
	oidEnvelopedData = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03" // 1.2.840.113549.1.7.3
	oidRSAESOAEP     = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x07" // 1.2.840.113549.1.1.7
	oidMGF1          = "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08" // 1.2.840.113549.1.1.8
	oidSHA256        = "\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01" // 2.16.840.1.101.3.4.2.1
	oidAES256CBC     = "\x06\x09\x60\x86\x48\x01\x65\x03\x04\x01\x2a" // 2.16.840.1.101.3.4.1.42
)

// chunkSize is how many bytes of the content have a string of their own, as BouncyCastle writes them.
const chunkSize = 1000

// seal returns the plaintext in an envelope for the key with the given identifier. The content key and IV are fresh; our copies of the
// plaintext and of the content key are gone when it returns. An envelope has no integrity of its own: TLS and the request's answer give it.
func seal(key *rsa.PublicKey, id [sha256.Size]byte, plaintext []byte) ([]byte, error) {
	var secret [32]byte
	var iv [aes.BlockSize]byte
	defer clear(secret[:])
	rand.Read(secret[:])
	rand.Read(iv[:])
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, key, secret[:], nil)
	if err != nil {
		return nil, fmt.Errorf("encrypt to the recipient's key: %w", err)
	}
	block, err := aes.NewCipher(secret[:])
	if err != nil {
		return nil, fmt.Errorf("encrypt for the recipient: %w", err)
	}
	content := pad(plaintext)
	cipher.NewCBCEncrypter(block, iv[:]).CryptBlocks(content, content)
	return assemble(id, wrapped, iv, content), nil
}

// pad returns a copy of p with the padding of CMS (RFC 5652, section 6.3): 1 to 16 bytes, each of which is their number.
func pad(p []byte) []byte {
	n := aes.BlockSize - len(p)%aes.BlockSize
	padded := make([]byte, len(p)+n)
	copy(padded, p)
	for i := len(p); i < len(padded); i++ {
		padded[i] = byte(n)
	}
	return padded
}

// assemble returns the envelope of an encrypted key and an encrypted content.
func assemble(id [sha256.Size]byte, wrapped []byte, iv [aes.BlockSize]byte, content []byte) []byte {
	b := make([]byte, 0, 512+len(wrapped)+len(content)+4*(len(content)/chunkSize))
	b = append(b, envelopeHead...)

	recipient := make([]byte, 0, 128+len(wrapped))
	recipient = append(recipient, version2...)
	recipient = appendElement(recipient, 0x80, id[:])
	recipient = append(recipient, oaepAlgorithm...)
	recipient = appendElement(recipient, 0x04, wrapped)
	b = appendElement(b, 0x31, appendElement(nil, 0x30, recipient))

	b = append(b, contentHead...)
	b = append(b, iv[:]...)
	b = append(b, contentBegins...)
	for len(content) > 0 {
		n := min(chunkSize, len(content))
		b = appendElement(b, 0x04, content[:n])
		content = content[n:]
	}
	b = append(b, contentEnds...)
	return append(b, envelopeEnds...)
}

// appendElement appends an element of definite length, in the shortest form (X.690, section 8.1.3). The value is shorter than 65,536 bytes.
func appendElement(b []byte, tag byte, value []byte) []byte {
	b = append(b, tag)
	switch n := len(value); {
	case n < 0x80:
		b = append(b, byte(n))
	case n < 0x100:
		b = append(b, 0x81, byte(n))
	default:
		b = append(b, 0x82, byte(n>>8), byte(n))
	}
	return append(b, value...)
}
