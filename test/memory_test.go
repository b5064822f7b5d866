package test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"strongroom/softhsm"
)

// TestNothingInMemory looks, after ten thousand requests of all kinds that have to do with secrets, for those secrets in the memory of the server and of the
// processes that it started. What was answered is gone, wherever it was on its way: from buffers, stacks and saved registers, and from what libraries leave behind.
//
// It reads the memory of processes that forbid it (prctl(2), PR_SET_DUMPABLE), which root alone can. Anybody else can see only that they do.
func TestNothingInMemory(t *testing.T) {
	for _, test := range []struct {
		name     string
		kind     tokenKind
		flags    []string
		requests int
		inFlight bool
	}{
		{"dev", kind, []string{"--pool", "4"}, 10_000, true},
		{"TLS", overTLS, nil, 3_000, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := test.kind.start(t, t.TempDir(), test.flags...)
			if os.Geteuid() != 0 {
				for _, process := range s.processes(t) {
					if f, err := os.Open(fmt.Sprintf("/proc/%d/mem", process.pid)); err == nil {
						f.Close()
						t.Errorf("the memory of %s can be read by its user", process.name)
					}
				}
				t.Skip("the memory of the server cannot be read but by root, and so nothing was looked for in it")
			}
			if raced() {
				test.requests /= 5
			}
			answered := newSecrets()
			answered.run(t, s, test.requests)
			if test.inFlight {
				answered.inFlight(t, s)
			}

			// What is left to Go's collector is there until the server has it run, which it does every ten seconds.
			ended := time.Now()
			var finds []find
			var size int
			for ; ; time.Sleep(time.Second) {
				late := time.Since(ended) > 15*time.Second
				if finds, size = answered.search.server(t, s); len(finds) == 0 || late {
					break
				}
			}
			report(t, finds)
			t.Logf("%d requests with %d secrets; looked for %d pieces in %d MiB, until nothing was found, for %v", test.requests, len(answered.kinds),
				len(answered.search.pieces), size>>20, time.Since(ended).Round(100*time.Millisecond))
		})
	}
}

// overTLS is `strongroom serve` on a token of SoftHSM, as an operator would have it.
var overTLS = tokenKind{command: serveTLS, env: func(s *server) (map[string]string, error) {
	env, err := servedEnv(s)
	if err == nil {
		env["AWS_ENDPOINT_URL_KMS"] = strings.Replace(env["AWS_ENDPOINT_URL_KMS"], "http:", "https:", 1)
	}
	return env, err
}}

// serveTLS makes a deployment in dir. It has key pairs made ahead of those kinds that the server makes itself otherwise.
func serveTLS(dir string) ([]string, error) {
	token, err := softhsm.New(context.Background(), filepath.Join(dir, "softhsm"))
	if err != nil {
		return nil, err
	}
	certificate := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=test",
		"-addext", "subjectAltName=IP:127.0.0.1", "-keyout", filepath.Join(dir, "tls.key"), "-out", filepath.Join(dir, "tls.crt"))
	if out, err := certificate.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%v: %w\n%s", certificate.Args, err, out)
	}
	return serveConfigured(dir, fmt.Sprintf(`listen = "127.0.0.1:0"
store = "sqlite:%[1]s/strongroom.db"
[tls]
certificate = "%[1]s/tls.crt"
key = "%[1]s/tls.key"
[hsm]
module = %[2]q
token_label = %[3]q
pin_file = "%[1]s/softhsm/pin"
sync_dir = %[4]q
[pool]
rsa_2048 = 4
rsa_3072 = 0
rsa_4096 = 0
`, dir, token.Module, token.Label, token.SyncDir))
}

// trusting has a client trust the certificate of a server, if it has one.
func (s *server) trusting(t testing.TB) func(*kms.Options) {
	t.Helper()
	pem, err := os.ReadFile(filepath.Join(s.dir, "tls.crt"))
	if err != nil {
		return func(*kms.Options) {}
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return func(o *kms.Options) {
		o.HTTPClient = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	}
}

// A process is one of a server's.
type process struct {
	name string
	pid  int
}

// processes returns the server and the processes that it started.
func (s *server) processes(t testing.TB) []process {
	t.Helper()
	all := []process{{"the server", s.cmd.Process.Pid}}
	for _, pid := range s.workers(t) {
		all = append(all, process{"a worker", pid})
	}
	for _, pid := range s.children(t, "prime-search") {
		all = append(all, process{"a search for primes", pid})
	}
	return all
}

// server returns what is found in the processes of a server, and how much memory they have. That each has what must be in it, its command line, is
// looked for as well.
func (s *search) server(t testing.TB, of *server) (finds []find, size int) {
	t.Helper()
	for _, p := range of.processes(t) {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
		if err != nil {
			t.Fatal(err)
		}
		certain := newSearch()
		certain.add(0, "the command line", line)
		if f, _ := certain.process(t, p.name, p.pid); len(f) == 0 {
			t.Fatalf("not even the command line of %s is found in its memory", p.name)
		}
		f, n := s.process(t, p.name, p.pid)
		finds = append(finds, f...)
		size += n
	}
	return finds, size
}

var curveSpecs = []types.DataKeyPairSpec{
	types.DataKeyPairSpecEccNistP256, types.DataKeyPairSpecEccNistP384, types.DataKeyPairSpecEccNistP521, types.DataKeyPairSpecEccSecgP256k1,
	types.DataKeyPairSpecEccNistEdwards25519, types.DataKeyPairSpecSm2,
}

// run sends n requests from four clients.
func (s *secrets) run(t *testing.T, of *server, n int) {
	t.Helper()
	key := newKey(t, of.client(of.trusting(t))).KeyId
	recipient := newRecipient(t, 2048)
	var document *types.RecipientInfo // good for five minutes; a server over TLS has no root that the test could sign with
	if _, err := os.Stat(filepath.Join(of.dir, "attestation")); err == nil {
		document = documentOf(t, of.attester(t), recipient)
	}
	encryptionContext := map[string]string{"tenant": "42"}
	bytesOf := func(i int64) int32 { return []int32{16, 24, 32, 64, 1024}[i%5] }

	// Each makes secrets, and has them opened again or not.
	kinds := []func(ctx context.Context, c *kms.Client, i int64) error{
		func(ctx context.Context, c *kms.Client, i int64) error {
			out, err := c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: key, NumberOfBytes: aws.Int32(bytesOf(i / 8)), EncryptionContext: encryptionContext})
			if err != nil {
				return err
			}
			s.key("a data key", out.Plaintext)
			return s.open(ctx, c, out.CiphertextBlob, out.Plaintext, encryptionContext)
		},
		func(ctx context.Context, c *kms.Client, i int64) error {
			spec := curveSpecs[i/8%int64(len(curveSpecs))]
			out, err := c.GenerateDataKeyPair(ctx, &kms.GenerateDataKeyPairInput{KeyId: key, KeyPairSpec: spec, EncryptionContext: encryptionContext})
			if err != nil {
				return err
			}
			return s.private(string(spec), out.PrivateKeyPlaintext)
		},
		func(ctx context.Context, c *kms.Client, i int64) error {
			spec := curveSpecs[i/8%int64(len(curveSpecs))]
			out, err := c.GenerateDataKeyPairWithoutPlaintext(ctx, &kms.GenerateDataKeyPairWithoutPlaintextInput{KeyId: key, KeyPairSpec: spec})
			if err != nil {
				return err
			}
			back, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: out.PrivateKeyCiphertextBlob})
			if err != nil {
				return err
			}
			return s.private(string(spec), back.Plaintext)
		},
		func(ctx context.Context, c *kms.Client, i int64) error {
			out, err := c.GenerateDataKeyWithoutPlaintext(ctx, &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: key, KeySpec: types.DataKeySpecAes256})
			if err != nil {
				return err
			}
			back, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: out.CiphertextBlob})
			if err != nil {
				return err
			}
			s.key("a data key", back.Plaintext)
			return nil
		},
		func(ctx context.Context, c *kms.Client, i int64) error {
			plaintext := make([]byte, bytesOf(i/8))
			rand.Read(plaintext)
			out, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: key, Plaintext: plaintext, EncryptionContext: encryptionContext})
			if err != nil {
				return err
			}
			s.key("a plaintext", plaintext)
			return s.open(ctx, c, out.CiphertextBlob, plaintext, encryptionContext)
		},
		func(ctx context.Context, c *kms.Client, i int64) error {
			out, err := c.GenerateRandom(ctx, &kms.GenerateRandomInput{NumberOfBytes: aws.Int32(bytesOf(i / 8))})
			if err != nil {
				return err
			}
			s.key("random bytes", out.Plaintext)
			return nil
		},
		func(ctx context.Context, c *kms.Client, i int64) error {
			out, err := c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: key, KeySpec: types.DataKeySpecAes256, Recipient: document})
			if err != nil {
				return err
			}
			plaintext := out.Plaintext
			if document != nil {
				if plaintext, err = recipient.Open(out.CiphertextForRecipient); err != nil {
					return err
				}
			}
			s.key("a data key for a recipient", plaintext)
			_, err = c.ReEncrypt(ctx, &kms.ReEncryptInput{CiphertextBlob: out.CiphertextBlob, DestinationKeyId: key, DestinationEncryptionContext: encryptionContext})
			return err
		},
		func(ctx context.Context, c *kms.Client, i int64) error {
			if i%32 != 7 {
				_, err := c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: key})
				return err
			}
			out, err := c.GenerateDataKeyPair(ctx, &kms.GenerateDataKeyPairInput{KeyId: key, KeyPairSpec: types.DataKeyPairSpecRsa2048})
			if err != nil {
				return err
			}
			return s.private("RSA_2048", out.PrivateKeyPlaintext)
		},
	}
	var sent, turn atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		c := of.client(of.trusting(t), func(o *kms.Options) { o.HTTPClient = counted{o.HTTPClient, &sent} })
		wg.Go(func() {
			for sent.Load() < int64(n) && !t.Failed() {
				i := turn.Add(1)
				if err := kinds[i%int64(len(kinds))](t.Context(), c, i); err != nil {
					t.Errorf("request %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// inFlight sends a request but for its end, and looks for what is to be encrypted: it must be found in the memory of the server. Then the end is sent, and
// it must not be found any more.
func (s *secrets) inFlight(t *testing.T, of *server) {
	t.Helper()
	plaintext := make([]byte, 1024)
	rand.Read(plaintext)
	waiting := newSecrets()
	waiting.key("a plaintext in flight", plaintext)

	body := fmt.Sprintf(`{"KeyId":"%s","Plaintext":"%s"}`, *newKey(t, of.client()).KeyId, base64Of(plaintext))
	head := of.head(t, "Encrypt", body)
	head.Header.Set("Content-Length", fmt.Sprint(len(body)))
	conn, err := net.Dial("tcp", head.URL.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, headText(head)+body[:len(body)-1]); err != nil {
		t.Fatal(err)
	}
	soon(t, "the plaintext of a request that is not complete is in the memory of the server", func() bool {
		finds, _ := waiting.search.process(t, "the server", of.cmd.Process.Pid)
		return len(finds) > 0
	})
	if _, err := io.WriteString(conn, body[len(body)-1:]); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("the request is answered with %v, %v", response, err)
	}
	s.key("a plaintext", plaintext)
}

// open decrypts a ciphertext and compares.
func (s *secrets) open(ctx context.Context, c *kms.Client, blob, plaintext []byte, encryptionContext map[string]string) error {
	got, err := decrypt(ctx, c, blob, encryptionContext)
	if err == nil && !bytes.Equal(got, plaintext) {
		err = fmt.Errorf("decrypted to %d other bytes", len(got))
	}
	return err
}

// counted counts the requests of a client.
type counted struct {
	kms.HTTPClient
	sent *atomic.Int64
}

func (c counted) Do(r *http.Request) (*http.Response, error) {
	c.sent.Add(1)
	return c.HTTPClient.Do(r)
}
