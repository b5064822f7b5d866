package test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// TestSoakMemory: the server's memory does not grow with the number of requests, those that fail included. A PKCS#11 driver that forgot to free what a failed
// decryption allocated would let any client bring the server down.
func TestSoakMemory(t *testing.T) {
	warm, requests := 4_000, 20_000
	if soak(t) > 0 {
		requests = 1_000_000
	}
	// What growth is noise: of Go's heap between two collections, of C's arenas, of SQLite's cache. To lose 4 KiB with each ciphertext that is refused, which is
	// what one driver does, would be 15 MiB in the short form and 730 MiB in the long one.
	bound := int64(8 << 20)
	if raced() {
		bound = 192 << 20 // in each of three processes the race detector remembers what happened to the memory that was ever used
	}
	s := start(t, t.TempDir())
	m := newMix(t, s)
	m.run(t, warm)
	before := s.memory(t)
	began := time.Now()
	m.run(t, requests)
	took := time.Since(began)
	after := s.memory(t)
	t.Logf("%d requests in %v, %.0f a second; memory %d KiB before and %d KiB after", requests, took.Round(time.Millisecond),
		float64(requests)/took.Seconds(), before>>10, after>>10)
	if after-before > bound {
		t.Errorf("memory grew by %d KiB, more than %d KiB", (after-before)>>10, bound>>10)
	}
	s.works(t)
}

// memory returns the bytes of the memory of the server and its workers that are not paged out.
func (s *server) memory(t *testing.T) (sum int64) {
	t.Helper()
	for _, pid := range append(s.workers(t), s.cmd.Process.Pid) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(status), "VmRSS:")
		var kib int64
		if _, err := fmt.Sscan(rest, &kib); err != nil || kib == 0 {
			t.Fatalf("no VmRSS in %s", status)
		}
		sum += kib << 10
	}
	return sum
}

// A mix is requests of all kinds, right ones and wrong ones.
type mix struct {
	s          *server
	key, alias string
	blob, bad  []byte
	context    map[string]string
	large      []byte
}

func newMix(t *testing.T, s *server) *mix {
	c := s.client()
	key, alias := newAlias(t, c)
	m := &mix{s: s, key: *key.KeyId, alias: alias, context: map[string]string{"tenant": "42", "purpose": "soak"}, large: bytes.Repeat([]byte("x"), 4096)}
	out, err := c.Encrypt(within(t), &kms.EncryptInput{KeyId: &m.key, Plaintext: m.large, EncryptionContext: m.context})
	if err != nil {
		t.Fatal(err)
	}
	m.blob, m.bad = out.CiphertextBlob, bytes.Clone(out.CiphertextBlob)
	m.bad[len(m.bad)-1] ^= 1
	return m
}

// kinds are the requests, each with the code that it is refused with, or "". Failing decryptions are many, because they have been the ones that leak.
func (m *mix) kinds() []func(ctx context.Context, c *kms.Client) (string, error) {
	dry := aws.Bool(true)
	return []func(ctx context.Context, c *kms.Client) (string, error){
		func(ctx context.Context, c *kms.Client) (string, error) {
			_, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: &m.key, Plaintext: m.large, EncryptionContext: m.context})
			return "", err
		},
		func(ctx context.Context, c *kms.Client) (string, error) {
			_, err := decrypt(ctx, c, m.blob, m.context)
			return "", err
		},
		func(ctx context.Context, c *kms.Client) (string, error) {
			_, err := decrypt(ctx, c, m.bad, m.context)
			return "InvalidCiphertextException", err
		},
		func(ctx context.Context, c *kms.Client) (string, error) {
			_, err := decrypt(ctx, c, m.blob, nil)
			return "InvalidCiphertextException", err
		},
		func(ctx context.Context, c *kms.Client) (string, error) {
			_, err := decrypt(ctx, c, m.bad[:60], nil)
			return "InvalidCiphertextException", err
		},
		func(ctx context.Context, c *kms.Client) (string, error) {
			_, err := c.ReEncrypt(ctx, &kms.ReEncryptInput{CiphertextBlob: m.blob, SourceEncryptionContext: m.context, DestinationKeyId: &m.alias})
			return "", err
		},
		func(ctx context.Context, c *kms.Client) (string, error) {
			_, err := c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: &m.alias, KeySpec: types.DataKeySpecAes256, EncryptionContext: m.context})
			return "", err
		},
		func(ctx context.Context, c *kms.Client) (string, error) {
			_, err := c.GenerateDataKeyPair(ctx, &kms.GenerateDataKeyPairInput{KeyId: &m.key, KeyPairSpec: types.DataKeyPairSpecEccNistP256, EncryptionContext: m.context})
			return "", err
		},
		func(ctx context.Context, c *kms.Client) (string, error) {
			_, err := c.GenerateDataKeyPairWithoutPlaintext(ctx, &kms.GenerateDataKeyPairWithoutPlaintextInput{KeyId: &m.key, KeyPairSpec: types.DataKeyPairSpecSm2})
			return "", err
		},
		func(ctx context.Context, c *kms.Client) (string, error) {
			_, err := c.GenerateRandom(ctx, &kms.GenerateRandomInput{NumberOfBytes: aws.Int32(1024)})
			return "", err
		},
		func(ctx context.Context, c *kms.Client) (string, error) {
			_, err := c.DescribeKey(ctx, describe(m.alias))
			return "", err
		},
		func(ctx context.Context, c *kms.Client) (string, error) {
			_, err := c.ListAliases(ctx, &kms.ListAliasesInput{})
			return "", err
		},
		func(ctx context.Context, c *kms.Client) (string, error) {
			_, err := c.DescribeKey(ctx, describe("alias/"+random())) // another one each time: a memory of what is not there must not grow
			return "NotFoundException", err
		},
		func(ctx context.Context, c *kms.Client) (string, error) {
			_, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: &m.key, Plaintext: m.large, DryRun: dry})
			return "DryRunOperationException", err
		},
		func(ctx context.Context, c *kms.Client) (string, error) {
			_, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: &m.key, Plaintext: append(m.large, 'x')})
			return "ValidationException", err
		},
		func(ctx context.Context, c *kms.Client) (string, error) { // another access key each time, too
			_, err := c.ListKeys(ctx, &kms.ListKeysInput{}, func(o *kms.Options) {
				o.Credentials = credentials.NewStaticCredentialsProvider("AKIA"+random(), "secret", "")
			})
			return "UnrecognizedClientException", err
		},
	}
}

// run sends n requests from four clients.
func (m *mix) run(t *testing.T, n int) {
	t.Helper()
	kinds := m.kinds()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		c := m.s.client()
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n) && ctx.Err() == nil; i = next.Add(1) {
				want, err := kinds[i%int64(len(kinds))](ctx, c)
				if got := refusalOf(err).code; got != want || err != nil && want == "" {
					t.Errorf("request %d: %v, want %q", i, err, want)
					cancel()
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}
