package test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"strongroom/keyspec"
)

// TestSearchesKilled kills the processes that search for primes, and stops them, while clients want pairs: none of them notices, and no pair is handed out
// twice. The processes die with the server.
func TestSearchesKilled(t *testing.T) {
	s := start(t, t.TempDir(), "--pool", "3")
	s.troubled = true // where they are killed all the time, the server helps itself, and says so
	key := newKey(t, s.client()).KeyId
	var (
		mu      sync.Mutex
		seen    = make(map[string]bool)
		clients sync.WaitGroup
	)
	ctx, stop := context.WithCancel(t.Context())
	for range 4 {
		c := s.client(func(o *kms.Options) { o.RetryMaxAttempts = 1 })
		clients.Go(func() {
			for ctx.Err() == nil {
				out, err := c.GenerateDataKeyPair(within(t), &kms.GenerateDataKeyPairInput{KeyId: key, KeyPairSpec: types.DataKeyPairSpecRsa2048})
				if err != nil {
					t.Error(err)
					return
				}
				if err := keyspec.Prove(keyspec.RSA2048, out.PublicKey, out.PrivateKeyPlaintext); err != nil {
					t.Error(err)
				}
				if got, err := decrypt(within(t), c, out.PrivateKeyCiphertextBlob, nil); err != nil || !bytes.Equal(got, out.PrivateKeyPlaintext) {
					t.Errorf("the private key decrypts to %d bytes, %v", len(got), err)
				}
				mu.Lock()
				if seen[string(out.PublicKey)] {
					t.Error("a pair was handed out twice")
				}
				seen[string(out.PublicKey)] = true
				mu.Unlock()
			}
		})
	}
	rounds, killed := 10, 0
	if soak(t) > 0 {
		rounds = int(soak(t) / time.Second)
	}
	for i := range rounds {
		time.Sleep(time.Duration(100+rand.IntN(600)) * time.Millisecond)
		if pids := s.children(t, "prime-search"); len(pids) > 0 {
			signal := syscall.SIGKILL
			if i%5 == 4 {
				signal = syscall.SIGSTOP // what it was looking for is overdue after a while
			}
			syscall.Kill(pids[rand.IntN(len(pids))], signal)
			killed++
		}
	}
	stop()
	clients.Wait()
	if len(seen) < 4 || killed == 0 {
		t.Errorf("%d pairs were made, and %d processes killed", len(seen), killed)
	}
	pids := s.children(t, "prime-search")
	if len(pids) == 0 {
		t.Error("there are no processes that search")
	}
	s.kill(t)
	mustEnd(t, pids)
}
