package attest_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"strongroom/kms/attest"
	"strongroom/kms/attest/attesttest"
)

// attestation returns the verified document of a recipient.
func attestation(t testing.TB, bits int) *attest.Attestation {
	t.Helper()
	s := statement()
	s.PublicKey = recipients[bits]().PublicKey()
	return accept(t, newVerifier(t), document(t, s), account, present)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// edges are lengths of plaintext around those at which something changes: blocks, chunks, and what operations return at most.
var edges = []int{0, 1, 15, 16, 17, 32, 983, 984, 999, 1000, 1001, 1983, 1984, 2000, 3999, 4000, 4095, 4096}

// What is sealed is opened by its recipient, whatever the length. The content does not depend on the key, and private keys are slow, so not every length is
// opened; see TestEnvelopeLengths for every length.
func TestSeal(t *testing.T) {
	for _, bits := range []int{2048, 3072, 4096} {
		t.Run(fmt.Sprint(bits), func(t *testing.T) {
			a, who := attestation(t, bits), recipients[bits]()
			var lengths []int
			every := stride(t, map[int]int{2048: 3, 3072: 41, 4096: 101}[bits])
			for n := 0; n <= 4096; n += every {
				lengths = append(lengths, n)
			}
			lengths = append(lengths, edges...)
			var next atomic.Int64
			var wg sync.WaitGroup
			for range runtime.GOMAXPROCS(0) {
				wg.Go(func() {
					for i := next.Add(1) - 1; i < int64(len(lengths)); i = next.Add(1) - 1 {
						sealAndOpen(t, a, who, lengths[i])
					}
				})
			}
			wg.Wait()
		})
	}
}

func sealAndOpen(t *testing.T, a *attest.Attestation, who *attesttest.Recipient, n int) {
	plaintext := randomBytes(n)
	kept := bytes.Clone(plaintext)
	envelope, err := a.Seal(plaintext)
	if err != nil {
		t.Errorf("%d bytes: %v", n, err)
		return
	}
	if !bytes.Equal(plaintext, kept) {
		t.Errorf("%d bytes: the plaintext was written to", n)
	}
	if n >= 16 && bytes.Contains(envelope, plaintext) {
		t.Errorf("%d bytes: the plaintext is in the envelope", n)
	}
	if got, err := who.Open(envelope); err != nil || !bytes.Equal(got, kept) {
		t.Errorf("%d bytes: opened as %d, %v", n, len(got), err)
	}
}

// Every envelope has a key and an IV of its own, and names the key of the document.
func TestSealIsFresh(t *testing.T) {
	a := attestation(t, 2048)
	seen := make(map[string]bool)
	for range 50 {
		raw, err := a.Seal(make([]byte, 32))
		if err != nil {
			t.Fatal(err)
		}
		e, err := attesttest.ParseEnvelope(raw)
		if err != nil {
			t.Fatal(err)
		}
		if e.Recipient != sha256.Sum256(a.PublicKey) {
			t.Errorf("it is for %x", e.Recipient)
		}
		key, err := rsa.DecryptOAEP(sha256.New(), nil, recipients[2048]().Key, e.Key, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range [][]byte{key, e.IV[:], e.Content, e.Key} {
			if seen[string(one)] {
				t.Errorf("%x is there twice", one)
			}
			seen[string(one)] = true
		}
	}
}

// Nobody else opens it.
func TestSealIsForOne(t *testing.T) {
	raw := sealed(t, []byte("secret"))
	for _, bits := range []int{3072, 4096} {
		if got, err := recipients[bits]().Open(raw); err == nil {
			t.Errorf("a key of %d bits opened it: %q", bits, got)
		}
	}
}

// A key that was accepted can be sealed to, whatever it is.
func TestSealToAcceptedKeys(t *testing.T) {
	v := newVerifier(t)
	for _, c := range attesttest.Cases() {
		if c.Reason != 0 {
			continue
		}
		if _, err := accept(t, v, documentOf(c), account, present).Seal([]byte("secret")); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
	for _, d := range realDocuments(t) {
		if d.KeyIsRight {
			if _, err := accept(t, onlyAWS(t), d.raw, account, d.made).Seal([]byte("secret")); err != nil {
				t.Errorf("%s: %v", d.File, err)
			}
		}
	}
}

// OpenSSL opens what is sealed, as AWS says that NitroTPM users do.
func TestSealForOpenSSL(t *testing.T) {
	dir := t.TempDir()
	for _, bits := range []int{2048, 3072, 4096} {
		a := attestation(t, bits)
		key := filepath.Join(dir, fmt.Sprint(bits))
		if err := os.WriteFile(key, recipients[bits]().PEM(), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, n := range slices.DeleteFunc(slices.Clone(edges), func(n int) bool { return n == 0 }) {
			plaintext := randomBytes(n)
			envelope, err := a.Seal(plaintext)
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "openssl", "cms", "-decrypt", "-inform", "DER", "-inkey", key)
			cmd.Stdin = bytes.NewReader(envelope)
			var complaint bytes.Buffer
			cmd.Stderr = &complaint
			got, err := cmd.Output()
			if err != nil || !bytes.Equal(got, plaintext) {
				t.Errorf("%d bits, %d bytes: %v, %d bytes, %s", bits, n, err, len(got), complaint.Bytes())
			}
		}
	}
}
