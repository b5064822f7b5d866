package attest_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"strongroom/kms/attest"
	"strongroom/kms/attest/attesttest"
)

func readEnvelope(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "envelopes", name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// AWS's own envelopes, taken apart and put together again, are the same.
func TestRealEnvelopes(t *testing.T) {
	for _, c := range []struct {
		name    string
		content int
		chunks  []int
	}{
		{"kms-1.ber", 16, []int{16}},
		{"kms-3.ber", 16, nil},
		{"kms-4.ber", 4112, []int{1000, 1000, 1000, 1000, 112}},
	} {
		raw := readEnvelope(t, c.name)
		e, err := attesttest.ParseEnvelope(raw)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if len(e.Key) != 256 || len(e.Content) != c.content || !slices.Equal(e.Chunks, c.chunks) {
			t.Errorf("%s: a key of %d bytes, %d bytes of content in chunks of %v", c.name, len(e.Key), len(e.Content), e.Chunks)
		}
		if e.Chunks == nil {
			// KMS writes this too, and it is all that differs: the content is one element and not a string in a constructed one.
			primitive := append([]byte{0x80, 0x10}, e.Content...)
			constructed := slices.Concat([]byte{0xa0, 0x80}, []byte{0x04, 0x10}, e.Content, []byte{0, 0})
			if bytes.Count(raw, primitive) != 1 {
				t.Errorf("%s: the content is not one primitive element", c.name)
			}
			raw = bytes.Replace(raw, primitive, constructed, 1)
		}
		if got := attest.Assemble(e.Recipient, e.Key, e.IV, e.Content); !bytes.Equal(got, raw) {
			t.Errorf("%s: put together it is\n%x\nand was\n%x", c.name, got, raw)
		}
	}
}

// An outline is the elements of BER, a line each, indented by their depth: the tag and whether the length is definite.
func outline(t *testing.T, b []byte) string {
	t.Helper()
	var lines []string
	var read func(b []byte, depth int, indefinite bool) []byte
	read = func(b []byte, depth int, indefinite bool) []byte {
		for len(b) > 0 {
			if indefinite && b[0] == 0 && b[1] == 0 {
				return b[2:]
			}
			tag, length, rest := b[0], int(b[1]), b[2:]
			line := fmt.Sprintf("%s%02x", strings.Repeat(" ", depth), tag)
			constructed := tag&0x20 != 0
			if length == 0x80 {
				lines = append(lines, line+" indefinite")
				b = read(rest, depth+1, true)
				continue
			}
			if length > 0x80 {
				n := length - 0x80
				length = 0
				for _, d := range rest[:n] {
					length = length<<8 | int(d)
				}
				rest = rest[n:]
			}
			lines = append(lines, fmt.Sprintf("%s %d", line, length))
			if constructed {
				read(rest[:length], depth+1, false)
			}
			b = rest[length:]
		}
		return nil
	}
	if rest := read(b, 0, false); len(rest) > 0 {
		t.Fatalf("%d bytes follow", len(rest))
	}
	return strings.Join(lines, "\n")
}

// sealed returns an envelope for a key of 2048 bits.
func sealed(t testing.TB, plaintext []byte) []byte {
	t.Helper()
	e, err := attestation(t, 2048).Seal(plaintext)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// This is the form that AWS's decoder for enclaves reads, and no other is. What is indefinite here it can only enter so, and what is definite it takes
// as a whole. OpenSSL would not notice if it were tidied into DER.
func TestEnvelopeForm(t *testing.T) {
	const want = `30 indefinite
 06 9
 a0 indefinite
  30 indefinite
   02 1
   31 363
    30 359
     02 1
     80 32
     30 60
      06 9
      30 47
       a0 15
        30 13
         06 9
         05 0
       a1 28
        30 26
         06 9
         30 13
          06 9
          05 0
     04 256
   30 indefinite
    06 9
    30 29
     06 9
     04 16
    a0 indefinite
     04 1000
     04 8`
	raw := sealed(t, make([]byte, 1000))
	if got := outline(t, raw); got != want {
		t.Errorf("the elements are\n%s\nwant\n%s", got, want)
	}
	const head = "308006092a864886f70d010703a080308002010231"
	if got := hex.EncodeToString(raw); !strings.HasPrefix(got, head) || !strings.HasSuffix(got, strings.Repeat("0000", 5)) {
		t.Errorf("it begins %s and ends %s", got[:len(head)], got[len(got)-20:])
	}
	for _, name := range []string{"kms-1.ber", "kms-4.ber"} {
		aws := readEnvelope(t, name)
		plaintext := make([]byte, map[string]int{"kms-1.ber": 0, "kms-4.ber": 4096}[name])
		if got, want := outline(t, sealed(t, plaintext)), outline(t, aws); got != want {
			t.Errorf("the elements are\n%s\nand in %s\n%s", got, name, want)
		}
	}
}

// Every length of plaintext has its envelope: a key, whole blocks with at least a byte of padding, and chunks of 1000.
func TestEnvelopeLengths(t *testing.T) {
	a := attestation(t, 2048)
	plaintext := make([]byte, 4096)
	for n := 0; n <= len(plaintext); n += stride(t, 1) {
		raw, err := a.Seal(plaintext[:n])
		if err != nil {
			t.Fatal(err)
		}
		e, err := attesttest.ParseEnvelope(raw)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		content := (n/16 + 1) * 16
		chunks := slices.Repeat([]int{1000}, content/1000)
		if content%1000 > 0 {
			chunks = append(chunks, content%1000)
		}
		if len(e.Key) != 256 || len(e.Content) != content || !slices.Equal(e.Chunks, chunks) {
			t.Fatalf("%d bytes: a key of %d, a content of %d in %v", n, len(e.Key), len(e.Content), e.Chunks)
		}
	}
}

func TestEnvelopeSize(t *testing.T) {
	for plaintext, want := range map[int]int{0: 461, 1: 461, 15: 461, 16: 477, 31: 477, 32: 493, 47: 493, 48: 509, 4095: 4557, 4096: 4573, 4111: 4573} {
		if got := len(sealed(t, make([]byte, plaintext))); got != want {
			t.Errorf("an envelope of %d bytes has %d, want %d", plaintext, got, want)
		}
	}
}

// The bytes at which a chunk of 1000 begins or ends, and lengths take another byte.
func TestEnvelopeChunks(t *testing.T) {
	for plaintext, want := range map[int]string{
		0:    "[16]",
		111:  "[112]",
		112:  "[128]",
		255:  "[256]",
		983:  "[992]",
		984:  "[992]",
		992:  "[1000 8]",
		1983: "[1000 984]",
		1984: "[1000 1000]",
		2000: "[1000 1000 16]",
		3999: "[1000 1000 1000 1000]",
		4000: "[1000 1000 1000 1000 16]",
	} {
		e, err := attesttest.ParseEnvelope(sealed(t, make([]byte, plaintext)))
		if err != nil {
			t.Errorf("%d bytes: %v", plaintext, err)
		} else if got := fmt.Sprint(e.Chunks); got != want {
			t.Errorf("%d bytes are in chunks of %s, want %s", plaintext, got, want)
		}
	}
}
