package attesttest

import (
	"bytes"
	"crypto/aes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// An Envelope is a CMS EnvelopedData (RFC 5652, section 6), taken apart.
type Envelope struct {
	Recipient [sha256.Size]byte   // SHA-256 of the SubjectPublicKeyInfo
	Key       []byte              // of the content, encrypted with RSAES-OAEP
	IV        [aes.BlockSize]byte // of the content
	Content   []byte              // encrypted with AES-256-CBC
	Chunks    []int               // lengths of the strings that the content is in; nil if it is one primitive element
}

// ParseEnvelope takes an envelope apart. It takes the one form that AWS KMS writes: the elements that AWS's decoder for enclaves can only enter if their
// lengths are indefinite have to have such a length, and all others a definite one, in the shortest form. The encrypted content may be constructed or
// primitive, since both were seen.
func ParseEnvelope(b []byte) (*Envelope, error) {
	r := &reader{rest: b}
	e := new(Envelope)
	r.enter("ContentInfo", 0x30, func() {
		r.exactly("id-envelopedData", "06092a864886f70d010703")
		r.enter("content", 0xa0, func() {
			r.enter("EnvelopedData", 0x30, func() {
				r.exactly("version", "020102")
				r.within("RecipientInfos", 0x31, func() {
					r.within("KeyTransRecipientInfo", 0x30, func() {
						r.exactly("version", "020102")
						r.fill("subjectKeyIdentifier", 0x80, e.Recipient[:])
						r.exactly("RSAES-OAEP with SHA-256", "303c06092a864886f70d010107302fa00f300d06096086480165030402010500"+
							"a11c301a06092a864886f70d010108300d06096086480165030402010500")
						e.Key = r.take("encryptedKey", 0x04)
					})
				})
				r.enter("EncryptedContentInfo", 0x30, func() {
					r.exactly("id-data", "06092a864886f70d010701")
					r.within("AES-256-CBC", 0x30, func() {
						r.exactly("aes256-CBC", "060960864801650304012a")
						r.fill("IV", 0x04, e.IV[:])
					})
					if r.err == nil && len(r.rest) > 0 && r.rest[0] == 0x80 {
						e.Content = r.take("encryptedContent", 0x80)
						return
					}
					r.enter("encryptedContent", 0xa0, func() {
						for r.err == nil && !bytes.HasPrefix(r.rest, endOfContents) {
							chunk := r.take("a chunk of the content", 0x04)
							e.Chunks = append(e.Chunks, len(chunk))
							e.Content = append(e.Content, chunk...)
						}
					})
				})
			})
		})
	})
	r.end("the envelope")
	if r.err != nil {
		return nil, r.err
	}
	return e, nil
}

// endOfContents ends an element of indefinite length (X.690, section 8.1.5).
var endOfContents = []byte{0, 0}

// A reader reads BER of a known form. After the first fault it reads nothing more.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) fail(name, format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: %s", name, fmt.Sprintf(format, args...))
		r.rest = nil
	}
}

// end requires that nothing is left.
func (r *reader) end(name string) {
	if len(r.rest) > 0 {
		r.fail(name, "%d bytes follow", len(r.rest))
	}
}

// enter reads an element of indefinite length.
func (r *reader) enter(name string, tag byte, content func()) {
	if r.err != nil {
		return
	}
	if !bytes.HasPrefix(r.rest, []byte{tag, 0x80}) {
		r.fail(name, "it is not element %#02x with indefinite length", tag)
		return
	}
	r.rest = r.rest[2:]
	content()
	if r.err != nil {
		return
	}
	if !bytes.HasPrefix(r.rest, endOfContents) {
		r.fail(name, "it does not end")
		return
	}
	r.rest = r.rest[2:]
}

// within reads an element of definite length.
func (r *reader) within(name string, tag byte, content func()) {
	inside := r.take(name, tag)
	after := r.rest
	r.rest = inside
	content()
	r.end(name)
	if r.err == nil {
		r.rest = after
	}
}

// fill reads an element that is as long as into.
func (r *reader) fill(name string, tag byte, into []byte) {
	value := r.take(name, tag)
	if r.err == nil && len(value) != len(into) {
		r.fail(name, "%d bytes are not %d", len(value), len(into))
	}
	copy(into, value)
}

// exactly reads the given bytes, in hexadecimal.
func (r *reader) exactly(name, want string) {
	raw, err := hex.DecodeString(want)
	if err != nil {
		panic(err)
	}
	if r.err != nil {
		return
	}
	if !bytes.HasPrefix(r.rest, raw) {
		r.fail(name, "it is not %s", want)
		return
	}
	r.rest = r.rest[len(raw):]
}

// take returns the content of an element of definite length.
func (r *reader) take(name string, tag byte) []byte {
	if r.err != nil {
		return nil
	}
	if len(r.rest) < 2 || r.rest[0] != tag {
		r.fail(name, "it is not element %#02x", tag)
		return nil
	}
	n, rest := int(r.rest[1]), r.rest[2:]
	if n >= 0x80 {
		width := n - 0x80
		if width < 1 || width > 2 || len(rest) < width {
			r.fail(name, "its length is not definite and in at most two bytes")
			return nil
		}
		n = 0
		for _, b := range rest[:width] {
			n = n<<8 | int(b)
		}
		rest = rest[width:]
		if n < 0x80 || width == 2 && n < 0x100 {
			r.fail(name, "its length is not in the shortest form")
			return nil
		}
	}
	if n > len(rest) {
		r.fail(name, "%d bytes of %d are missing", n-len(rest), n)
		return nil
	}
	r.rest = rest[n:]
	return rest[:n:n]
}
