package pkcs11_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"os"
	"strings"
	"testing"
)

// No plaintext stays in the memory of the process, in Go's part or the module's, after its owner has wiped it. Nor do random
// bytes, which become keys.
func TestMemory(t *testing.T) {
	token := open(t, newToken(t, t.TempDir()))
	ref, err := token.Generate(t.Context(), anID(), label)
	if err != nil {
		t.Fatal(err)
	}
	// What is searched for is kept under a mask, or it would find itself.
	const n, mask = 48, 0xA5
	masked := make([]byte, n)
	secret := make([]byte, n, n+n)
	unmask := func() []byte {
		for i := range secret {
			secret[i] = masked[i] ^ mask
		}
		return secret
	}

	rand.Read(masked)
	if copies(t, unmask(), masked, mask) == 0 {
		t.Fatal("the search does not find what is there")
	}
	clear(secret)

	for range 20 {
		sealed, err := token.Seal(t.Context(), ref, nil, unmask(), aad)
		if err != nil {
			t.Fatal(err)
		}
		clear(secret)
		if _, err := token.Open(t.Context(), ref, secret[:0], sealed, aad); err != nil {
			t.Fatal(err)
		}
		if _, err := token.Open(t.Context(), ref, nil, sealed, []byte("else")); err == nil {
			t.Fatal("opened with other associated data")
		}
		clear(secret)
	}
	if found := copies(t, secret, masked, mask); found != 0 {
		t.Errorf("%d copies of a plaintext are left", found)
	}

	for range 20 {
		if err := token.Random(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
		for i := range secret {
			masked[i] = secret[i] ^ mask
		}
		clear(secret)
	}
	if found := copies(t, secret, masked, mask); found != 0 {
		t.Errorf("%d copies of random bytes are left", found)
	}
}

// copies counts, in the writable memory of this process, where the first 16 bytes of what masked hides lie. live is where it may be
// right now, for the compiler.
func copies(t *testing.T, live, masked []byte, mask byte) (found int) {
	t.Helper()
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	defer maps.Close()
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()

	// The window is masked after reading, so that it never holds what is searched for.
	window := make([]byte, 1<<20)
	masks := bytes.Repeat([]byte{mask}, len(window))
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to int64
		var mode string
		fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode)
		// The race detector maps terabytes, and puts no data of ours there.
		if !strings.HasPrefix(mode, "rw") || to-from > 1<<30 {
			continue
		}
		for at := from; at < to; at += int64(len(window)) - 16 {
			part := window[:min(int64(len(window)), to-at)]
			n, _ := mem.ReadAt(part, at)
			subtle.XORBytes(part[:n], part[:n], masks)
			for rest := part[:n]; ; {
				i := bytes.Index(rest, masked[:16])
				if i < 0 {
					break
				}
				found++
				rest = rest[i+1:]
			}
			clear(part)
		}
	}
	_ = live[0]
	return found
}
