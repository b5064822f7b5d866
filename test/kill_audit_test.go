package test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
)

// TestKillAudit kills the server with SIGKILL under as many requests as clients can make, again and again, in one directory. Each time the audit log verifies as the
// kill left it and as the next start goes on with it, and has a record of every request that was answered.
func TestKillAudit(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	key := newKey(t, s.client())
	s.stop(t)
	l := &ledger{requests: make(map[string]bool)}
	began := time.Now()
	rounds := 0
	for ; rounds < 8 || time.Since(began) < soak(t); rounds++ {
		s := start(t, dir)
		ctx, stop := context.WithCancel(within(t))
		var clients sync.WaitGroup
		for range 16 {
			c := s.client(func(o *kms.Options) { o.RetryMaxAttempts = 1 })
			clients.Go(func() {
				for ctx.Err() == nil {
					out, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: key.KeyId, Plaintext: []byte("x")})
					if err != nil {
						if err := broken(err); err != nil {
							t.Errorf("round %d: refused: %v", rounds, err)
						}
						return
					}
					l.mu.Lock()
					l.requests[requestOf(out.ResultMetadata)] = true
					l.mu.Unlock()
				}
			})
		}
		time.Sleep(time.Duration(50+rand.IntN(250)) * time.Millisecond) // the moment is the point
		s.kill(t)
		stop()
		clients.Wait()
		l.checkTorn(t, dir)
		if rounds%8 == 7 {
			l.checkAudit(t, dir)
		}
		if t.Failed() {
			t.Fatalf("in round %d; the server's log:\n%s", rounds, s.log.String())
		}
	}
	s = start(t, dir)
	s.stop(t)
	l.checkAudit(t, dir)
	t.Logf("%d rounds, %d requests answered", rounds, len(l.requests))
	if len(l.requests) < 10*rounds {
		t.Errorf("the clients did too little to show anything: %d requests in %d rounds", len(l.requests), rounds)
	}
}
