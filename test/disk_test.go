package test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// A diskRig is a rig whose store, audit log and token are on file systems of their own, and what clients were told by its server.
type diskRig struct {
	ledger
	t                 *testing.T
	dir, audit, token string
	s                 *server
	key               string // one that is there from the beginning
}

func newDiskRig(t *testing.T) *diskRig {
	t.Helper()
	r := &diskRig{t: t, dir: filepath.Join(t.TempDir(), "rig"), ledger: ledger{keys: make(map[string]bool), requests: make(map[string]bool)}}
	r.audit, r.token = filepath.Join(r.dir, "audit"), filepath.Join(r.dir, "softhsm")
	mount(t, "none", r.dir, "tmpfs", "size=8m,mode=700")
	mount(t, "none", r.audit, "tmpfs", "size=8m,mode=700")
	mount(t, "none", r.token, "tmpfs", "size=8m,mode=700")
	r.start()
	out, err := r.client().CreateKey(within(t), &kms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	r.key = *out.KeyMetadata.KeyId
	r.keys[r.key] = true
	return r
}

func (r *diskRig) start() {
	r.t.Helper()
	r.s = start(r.t, r.dir)
	r.s.troubled = true
}

// client makes no second attempts: they would hide what an answer was.
func (r *diskRig) client() *kms.Client {
	return r.s.client(func(o *kms.Options) { o.RetryMaxAttempts = 1 })
}

// requests are what is asked of a server with a failing disk. What is answered goes into the ledger.
var diskRequests = map[string]func(ctx context.Context, r *diskRig, c *kms.Client) error{
	"Encrypt": func(ctx context.Context, r *diskRig, c *kms.Client) error {
		s := sealed{key: r.key, plaintext: []byte("x")}
		out, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: &r.key, Plaintext: s.plaintext})
		if err == nil {
			s.blob = out.CiphertextBlob
			r.told(requestOf(out.ResultMetadata), "", &s)
		}
		return err
	},
	"GenerateDataKeyPair": func(ctx context.Context, r *diskRig, c *kms.Client) error {
		out, err := c.GenerateDataKeyPair(ctx, &kms.GenerateDataKeyPairInput{KeyId: &r.key, KeyPairSpec: types.DataKeyPairSpecEccNistP256})
		if err == nil {
			r.told(requestOf(out.ResultMetadata), "", &sealed{key: r.key, blob: out.PrivateKeyCiphertextBlob, plaintext: out.PrivateKeyPlaintext})
		}
		return err
	},
	"CreateKey": func(ctx context.Context, r *diskRig, c *kms.Client) error {
		out, err := c.CreateKey(ctx, &kms.CreateKeyInput{})
		if err == nil {
			r.told(requestOf(out.ResultMetadata), *out.KeyMetadata.KeyId, nil)
		}
		return err
	},
	"CreateGrant": func(ctx context.Context, r *diskRig, c *kms.Client) error {
		out, err := c.CreateGrant(ctx, &kms.CreateGrantInput{KeyId: &r.key, GranteePrincipal: aws.String("arn:aws:iam::" + r.s.account() + ":root"),
			Operations: []types.GrantOperation{types.GrantOperationDecrypt}, Constraints: &types.GrantConstraints{EncryptionContextSubset: map[string]string{"n": fmt.Sprint(time.Now().UnixNano())}}})
		if err == nil {
			r.told(requestOf(out.ResultMetadata), "", nil)
		}
		return err
	},
}

func (r *diskRig) told(request, key string, s *sealed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests[request] = true
	if key != "" {
		r.keys[key] = true
	}
	if s != nil {
		r.sealed = append(r.sealed, *s)
	}
}

// ask asks everything, again and again for a while, and returns what became of each kind of request, by how often.
func (r *diskRig) ask(d time.Duration) map[string]map[string]int {
	r.t.Helper()
	got := make(map[string]map[string]int)
	var mu sync.Mutex
	var wg sync.WaitGroup
	end := time.Now().Add(d)
	for name, f := range diskRequests {
		got[name] = make(map[string]int)
		wg.Go(func() {
			c := r.client()
			for time.Now().Before(end) {
				err := f(within(r.t), r, c)
				code := "answered"
				if err != nil {
					code = refusalOf(err).code
					if code == "" {
						code = err.Error()
					}
				}
				mu.Lock()
				got[name][code]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return got
}

// ready returns what a load balancer is told.
func (r *diskRig) ready() string {
	r.t.Helper()
	resp, err := http.Get(r.s.env["AWS_ENDPOINT_URL_KMS"] + "/readyz")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return fmt.Sprint(resp.StatusCode, " ", strings.TrimSpace(string(text)))
}

// recovers waits until each kind of request is answered again, without a restart.
func (r *diskRig) recovers() {
	r.t.Helper()
	for name, f := range diskRequests {
		err := f(within(r.t), r, r.client())
		for deadline := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			err = f(within(r.t), r, r.client())
		}
		if err != nil {
			r.t.Errorf("%s is not answered again: %v", name, err)
		}
	}
	if got := r.ready(); got != "200 ready" {
		r.t.Errorf("ready says %q", got)
	}
}

// holds checks that all that was told is true and recorded, that nothing is half made, and that no panic was logged, after a restart too.
func (r *diskRig) holds() {
	r.t.Helper()
	r.check(r.t, r.s.client())
	r.checkAudit(r.t, r.dir)
	r.s.stop(r.t)
	r.start()
	keys := r.check(r.t, r.s.client())
	r.s.stop(r.t)
	r.checkAudit(r.t, r.dir)
	checkObjects(r.t, r.dir, keys)
}

// retryable are the answers after which a client of AWS tries again by itself.
var retryable = []string{"KMSInternalException", "KeyUnavailableException", "DependencyTimeoutException"}

// TestDiskFull: where the disk of one part is full, what needs that part is refused with an error that is worth another try, the rest is answered, and all is
// well when there is room again.
func TestDiskFull(t *testing.T) {
	withMounts(t, false, func(t *testing.T) {
		for _, test := range []struct {
			name    string
			full    func(r *diskRig) []string
			ready   string
			refused []string // at least sometimes
			never   []string // refused
		}{
			{"audit", func(r *diskRig) []string { return []string{r.audit} }, "503 unavailable: the audit log cannot be written",
				[]string{"Encrypt", "GenerateDataKeyPair", "CreateKey", "CreateGrant"}, nil},
			{"store", func(r *diskRig) []string { return []string{r.dir} }, "200 ready", []string{"CreateKey", "CreateGrant"}, []string{"Encrypt", "GenerateDataKeyPair"}},
			{"token", func(r *diskRig) []string { return []string{r.token} }, "200 ready", []string{"CreateKey"}, []string{"Encrypt", "GenerateDataKeyPair", "CreateGrant"}},
			{"all", func(r *diskRig) []string { return []string{r.audit, r.dir, r.token} }, "503 unavailable: the audit log cannot be written",
				[]string{"Encrypt", "GenerateDataKeyPair", "CreateKey", "CreateGrant"}, nil},
		} {
			t.Run(test.name, func(t *testing.T) {
				r := newDiskRig(t)
				r.ask(200 * time.Millisecond)
				// It fills up while requests are answered.
				var filled sync.WaitGroup
				filled.Go(func() {
					time.Sleep(100 * time.Millisecond)
					for _, dir := range test.full(r) {
						fill(t, dir)
					}
				})
				got := r.ask(2 * time.Second)
				filled.Wait()
				t.Logf("while it is full: %v", got)
				for name, codes := range got {
					for code := range codes {
						if code != "answered" && !slices.Contains(retryable, code) {
							t.Errorf("%s: %s", name, code)
						}
					}
					if slices.Contains(test.refused, name) && len(codes) < 2 {
						t.Errorf("%s was never refused", name)
					}
					if slices.Contains(test.never, name) && len(codes) != 1 {
						t.Errorf("%s was refused: %v", name, codes)
					}
				}
				if ready := r.ready(); ready != test.ready {
					t.Errorf("ready says %q", ready)
				}
				for _, dir := range test.full(r) {
					empty(t, dir)
				}
				r.recovers()
				r.holds()
				if t.Failed() {
					t.Logf("the log:\n%s", r.s.log.String())
				}
			})
		}
	})
}
