package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"strongroom/softhsm"
	"strongroom/softhsm/fault"
)

// faulty has the servers that are started from now on reach SoftHSM through a module that fails as its script says.
func faulty(t testing.TB) fault.Rig {
	t.Helper()
	real, err := softhsm.Module()
	if err != nil {
		t.Fatal(err)
	}
	rig, err := fault.New(t.TempDir(), real)
	if err != nil {
		t.Fatal(err)
	}
	rig.Install(t.(*testing.T).Setenv)
	return rig
}

func script(t testing.TB, rig fault.Rig, lines ...string) {
	t.Helper()
	if err := rig.Set(lines...); err != nil {
		t.Fatal(err)
	}
}

// workers returns the processes in which a server has its PKCS#11 library.
func (s *server) workers(t testing.TB) []int { return s.children(t, "hsm-worker") }

// children returns the processes of a server that were started with an argument.
func (s *server) children(t testing.TB, argument string) (pids []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		after := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // state, parent, …
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(name), "cmdline"))
		if after[1] == strconv.Itoa(s.cmd.Process.Pid) && slices.Contains(strings.Split(string(line), "\x00"), argument) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// A traffic is clients that use keys of a server and try nothing a second time, so that every error of the server is seen.
type traffic struct {
	ledger
	answered, failed atomic.Int64
	mu               sync.Mutex
	took             []time.Duration
	stop             context.CancelFunc
	clients          sync.WaitGroup
}

// begin starts n clients. Each error is told to failed, which may be nil: then it is one of the test.
func (s *server) begin(t *testing.T, n int, tolerate func(error) bool) *traffic {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	f := &traffic{ledger: ledger{keys: make(map[string]bool), requests: make(map[string]bool)}, stop: stop}
	var keys []string
	for range 3 {
		keys = append(keys, *newKey(t, s.client()).KeyId)
	}
	for i := range n {
		c := s.client(func(o *kms.Options) { o.RetryMaxAttempts = 1 })
		f.clients.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				begun := time.Now()
				err := f.once(ctx, c, keys[(n+i)%len(keys)], n)
				took := time.Since(begun)
				if ctx.Err() != nil {
					return
				}
				f.mu.Lock()
				f.took = append(f.took, took)
				f.mu.Unlock()
				f.answered.Add(1)
				if err != nil && (tolerate == nil || !tolerate(err)) && f.failed.Add(1) < 5 {
					t.Error(err)
				}
			}
		})
	}
	return f
}

// once makes one request of one of the kinds, and keeps what comes of it.
func (f *traffic) once(ctx context.Context, c *kms.Client, key string, n int) error {
	s := sealed{key: key, plaintext: fmt.Appendf(nil, "%d", n), context: map[string]string{"n": fmt.Sprint(n)}}
	switch n % 10 {
	default:
		out, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: &key, Plaintext: s.plaintext, EncryptionContext: s.context})
		if err != nil {
			return fmt.Errorf("Encrypt: %w", err)
		}
		s.blob = out.CiphertextBlob
	case 1:
		out, err := c.GenerateDataKeyPair(ctx, &kms.GenerateDataKeyPairInput{KeyId: &key, KeyPairSpec: types.DataKeyPairSpecEccNistP256, EncryptionContext: s.context})
		if err != nil {
			return fmt.Errorf("GenerateDataKeyPair: %w", err)
		}
		s.blob, s.plaintext = out.PrivateKeyCiphertextBlob, out.PrivateKeyPlaintext
	case 2, 3, 4, 5:
		f.ledger.mu.Lock()
		if len(f.sealed) == 0 {
			f.ledger.mu.Unlock()
			return nil
		}
		s := f.sealed[rand.IntN(len(f.sealed))]
		f.ledger.mu.Unlock()
		got, err := decrypt(ctx, c, s.blob, s.context)
		if err != nil || !bytes.Equal(got, s.plaintext) {
			return fmt.Errorf("Decrypt: got %d bytes and %w", len(got), err)
		}
		return nil
	case 6:
		if _, err := c.GenerateRandom(ctx, &kms.GenerateRandomInput{NumberOfBytes: aws.Int32(32)}); err != nil {
			return fmt.Errorf("GenerateRandom: %w", err)
		}
		return nil
	case 7:
		if n%100 != 7 {
			return nil
		}
		out, err := c.CreateKey(ctx, &kms.CreateKeyInput{})
		if err != nil {
			return fmt.Errorf("CreateKey: %w", err)
		}
		f.ledger.mu.Lock()
		f.keys[*out.KeyMetadata.KeyId] = true
		f.ledger.mu.Unlock()
		return nil
	}
	f.ledger.mu.Lock()
	f.sealed = append(f.sealed, s)
	f.ledger.mu.Unlock()
	return nil
}

// finish stops the clients and sees that all that they were told is true.
func (f *traffic) finish(t *testing.T, s *server) {
	t.Helper()
	f.stop()
	f.clients.Wait()
	slices.Sort(f.took)
	if len(f.took) == 0 {
		t.Fatal("nothing was answered")
	}
	t.Logf("%d requests, %d failed; p50 %v, p99 %v, longest %v", f.answered.Load(), f.failed.Load(),
		f.took[len(f.took)/2].Round(time.Microsecond), f.took[len(f.took)*99/100].Round(time.Microsecond), f.took[len(f.took)-1].Round(time.Millisecond))
	f.check(t, s.client())
	verifyAudit(t, s.dir)
}

// TestHSMRestarts restarts the HSM, for up to two seconds each time, and exchanges the handles of its keys: no client notices.
func TestHSMRestarts(t *testing.T) {
	rig := faulty(t)
	s := start(t, t.TempDir())
	s.troubled = true
	restarts, requests := 3, int64(500)
	if soak(t) > 0 {
		restarts, requests = 10, 10_000
	}
	f := s.begin(t, 8, nil)
	for i := range restarts {
		for f.answered.Load() < requests*int64(i)/int64(restarts) {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(200 * time.Millisecond)
		after := []string{fmt.Sprint("generation ", i+1), "handles swap", "sessions reuse", "slots shift"}
		script(t, rig, append([]string{"away " + []string{"CKR_DEVICE_REMOVED", "CKR_DEVICE_ERROR", "CKR_CRYPTOKI_NOT_INITIALIZED"}[i%3]}, after...)...)
		time.Sleep(time.Duration(rand.IntN(2000)) * time.Millisecond)
		script(t, rig, after...)
	}
	for f.answered.Load() < requests {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(300 * time.Millisecond)
	f.finish(t, s)
}

// TestHSMHangs has one call in a thousand hang, or crash the library: no client notices, but for the time.
func TestHSMHangs(t *testing.T) {
	for _, what := range []string{"hang", "abort"} {
		t.Run(what, func(t *testing.T) {
			rig := faulty(t)
			s := start(t, t.TempDir())
			s.troubled = true
			requests := int64(1000)
			if soak(t) > 0 {
				requests = 10_000
			}
			f := s.begin(t, 8, nil)
			script(t, rig, "on all "+what+" one-in 1000")
			happened := func() bool { return strings.Contains(s.log.String(), "a worker of the HSM has ended") }
			for until := time.Now().Add(patience); f.answered.Load() < requests || !happened() && time.Now().Before(until); {
				time.Sleep(10 * time.Millisecond)
			}
			script(t, rig)
			f.finish(t, s)
			if !happened() {
				t.Error("nothing has happened")
			}
		})
	}
}

// TestHSMOutage takes the HSM away for longer than requests wait for it. From then on each is answered at once, in AWS's words, until the HSM is
// back, which is used within a second.
func TestHSMOutage(t *testing.T) {
	for _, how := range []string{"away CKR_DEVICE_REMOVED", "away hang"} {
		t.Run(how, func(t *testing.T) {
			rig := faulty(t)
			s := start(t, t.TempDir())
			s.troubled = true
			key := *newKey(t, s.client()).KeyId
			c := s.client(func(o *kms.Options) { o.RetryMaxAttempts = 1 })
			encrypt := func() (time.Duration, error) {
				begun := time.Now()
				_, err := c.Encrypt(t.Context(), &kms.EncryptInput{KeyId: &key, Plaintext: []byte("x")})
				return time.Since(begun), err
			}
			if _, err := encrypt(); err != nil {
				t.Fatal(err)
			}
			ready := func() (int, string) {
				res, err := http.Get(s.env["AWS_ENDPOINT_URL_KMS"] + "/readyz")
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				b, _ := io.ReadAll(res.Body)
				return res.StatusCode, string(b)
			}
			script(t, rig, how)
			begun := time.Now()
			if took, err := encrypt(); refusalOf(err).code != "KeyUnavailableException" || took > 15*time.Second {
				t.Errorf("the first answer of the outage: %v, after %v", err, took)
			}
			outage := 5 * time.Second
			if soak(t) > 0 {
				outage = time.Minute
			}
			time.Sleep(200 * time.Millisecond)
			slowest, n := time.Duration(0), 0
			for ; time.Since(begun) < outage || n < 20; n++ {
				took, err := encrypt()
				slowest = max(slowest, took)
				if r := refusalOf(err); r.code != "KeyUnavailableException" || r.status != http.StatusInternalServerError {
					t.Errorf("got %v", err)
				}
				time.Sleep(20 * time.Millisecond)
			}
			if code, text := ready(); code != http.StatusServiceUnavailable || !strings.Contains(text, "HSM") {
				t.Errorf("/readyz answers %d %q", code, text)
			}
			t.Logf("%d answers, the slowest after %v", n, slowest.Round(time.Millisecond))
			if slowest > 200*time.Millisecond { // 100, on a machine that has nothing else to do
				t.Errorf("an answer took %v", slowest)
			}
			script(t, rig, "generation 1")
			begun = time.Now()
			for {
				if _, err := encrypt(); err == nil {
					break
				}
				if time.Since(begun) > patience {
					t.Fatal("it does not come back")
				}
				time.Sleep(5 * time.Millisecond)
			}
			t.Logf("the first good answer came %v after the end of the outage", time.Since(begun).Round(time.Millisecond))
			if took := time.Since(begun); took > 2*time.Second { // one, likewise
				t.Errorf("the first good answer came after %v", took)
			}
			time.Sleep(300 * time.Millisecond) // readiness is asked again
			if code, text := ready(); code != http.StatusOK {
				t.Errorf("/readyz answers %d %q", code, text)
			}
			verifyAudit(t, s.dir)
		})
	}
}

// TestWorkersKilled kills the processes that hold the library, and stops them: no client notices. They die with the server.
func TestWorkersKilled(t *testing.T) {
	s := start(t, t.TempDir())
	s.troubled = true
	f := s.begin(t, 8, nil)
	rounds := 10
	if soak(t) > 0 {
		rounds = int(soak(t) / time.Second)
	}
	for i := range rounds {
		time.Sleep(time.Duration(100+rand.IntN(400)) * time.Millisecond)
		if pids := s.workers(t); len(pids) > 0 {
			signal := syscall.SIGKILL
			if i%5 == 4 {
				signal = syscall.SIGSTOP
			}
			syscall.Kill(pids[rand.IntN(len(pids))], signal)
		}
	}
	f.finish(t, s)
	pids := s.workers(t)
	if len(pids) == 0 {
		t.Error("there are no workers")
	}
	s.kill(t)
	mustEnd(t, pids)
}

// mustEnd fails the test if one of the processes of a server that was killed goes on.
func mustEnd(t *testing.T, pids []int) {
	t.Helper()
	time.Sleep(100 * time.Millisecond)
	for _, pid := range pids {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !bytes.Contains(b, []byte(") Z ")) {
			t.Errorf("process %d has outlived its server", pid)
		}
	}
}
