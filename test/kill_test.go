package test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// A ledger is what clients were told: keys that were made and ciphertexts that were given out. All of it must be true for ever.
type ledger struct {
	mu       sync.Mutex
	keys     map[string]bool
	sealed   []sealed
	requests map[string]bool // that were answered
}

type sealed struct {
	key       string
	blob      []byte
	plaintext []byte
	context   map[string]string
}

// keep writes down what c is told, until the server goes away. It returns an error if the server refused something while it was there.
func (l *ledger) keep(ctx context.Context, c *kms.Client, seed uint64) error {
	random := rand.New(rand.NewPCG(seed, seed))
	var mine []string
	for n := 0; ; n++ {
		if len(mine) == 0 || n%4 == 0 {
			out, err := c.CreateKey(ctx, &kms.CreateKeyInput{MultiRegion: aws.Bool(random.IntN(4) == 0)})
			if err != nil {
				return broken(err)
			}
			mine = append(mine, *out.KeyMetadata.KeyId)
			l.mu.Lock()
			l.keys[*out.KeyMetadata.KeyId] = true
			l.requests[requestOf(out.ResultMetadata)] = true
			l.mu.Unlock()
		}
		s := sealed{key: mine[random.IntN(len(mine))], plaintext: fmt.Appendf(nil, "%d of client %d", n, seed), context: map[string]string{"n": fmt.Sprint(n)}}
		out, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: &s.key, Plaintext: s.plaintext, EncryptionContext: s.context})
		if err != nil {
			return broken(err)
		}
		s.blob = out.CiphertextBlob
		l.mu.Lock()
		l.sealed = append(l.sealed, s)
		l.requests[requestOf(out.ResultMetadata)] = true
		l.mu.Unlock()
	}
}

// broken returns nil for an error of the connection, which is what a killed server leaves, and err for an answer.
func broken(err error) error {
	if refusalOf(err).code != "" {
		return err
	}
	return nil
}

// check asks whether everything in the ledger is still true, and whether every key that is listed is whole: those that were answered for, and those whose answer
// was lost. It returns the ids of all keys. Of very many ciphertexts it looks at the newest and at some of the others.
func (l *ledger) check(t *testing.T, c *kms.Client) []string {
	t.Helper()
	var listed []string
	there := make(map[string]bool)
	for p := kms.NewListKeysPaginator(c, &kms.ListKeysInput{Limit: aws.Int32(1000)}); p.HasMorePages(); {
		page, err := p.NextPage(within(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range page.Keys {
			listed = append(listed, *k.KeyId)
			there[*k.KeyId] = true
		}
	}
	for id := range l.keys {
		if !there[id] {
			t.Errorf("key %s was answered for and is gone", id)
		}
	}
	looked := listed
	if len(looked) > 500 {
		rand.Shuffle(len(looked), func(i, j int) { looked[i], looked[j] = looked[j], looked[i] })
		looked = looked[:500]
	}
	for _, id := range looked {
		m, err := c.DescribeKey(within(t), describe(id))
		if err != nil || m.KeyMetadata.KeyState != types.KeyStateEnabled {
			t.Errorf("key %s: %v, %v", id, m, err)
			continue
		}
		blob, _, err := producers["Encrypt"](within(t), c, id, nil)
		if err == nil {
			_, err = decrypt(within(t), c, blob, nil)
		}
		if err != nil {
			t.Errorf("key %s is listed and of no use: %v", id, err)
		}
	}
	for i, s := range l.sealed {
		if len(l.sealed)-i > 2000 && rand.IntN(len(l.sealed)) > 500 {
			continue
		}
		got, err := decrypt(within(t), c, s.blob, s.context)
		if err != nil || !bytes.Equal(got, s.plaintext) {
			t.Errorf("ciphertext %d, of key %s: %q, %v", i, s.key, got, err)
		}
	}
	return listed
}

// checkTorn fails the test unless the audit log of a server that was killed verifies, but for a last line that was being written.
func (l *ledger) checkTorn(t *testing.T, dir string) {
	t.Helper()
	out, err := exec.Command(program, "audit", "verify", filepath.Join(dir, "audit")).CombinedOutput()
	if err != nil && !strings.Contains(string(out), "torn") {
		t.Errorf("strongroom audit verify: %v\n%s", err, out)
	}
}

// checkAudit fails the test unless the audit log in dir verifies, and has a record of every request that was answered.
func (l *ledger) checkAudit(t *testing.T, dir string) {
	t.Helper()
	verifyAudit(t, dir)
	recorded := make(map[string]bool)
	for _, r := range auditRecords(t, dir) {
		recorded[r.RequestID] = true
	}
	missing := 0
	for id := range l.requests {
		if !recorded[id] {
			missing++
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d requests that were answered are not in the audit log", missing, len(l.requests))
	}
}

// checkObjects fails the test unless the token holds one object for each key, one for the server itself, and no other.
func checkObjects(t *testing.T, dir string, keys []string) {
	t.Helper()
	want := map[string]bool{"strongroom/system/access-keys": true, "strongroom/system/audit": true}
	for _, id := range keys {
		want["strongroom/"+id+"/0"] = true
	}
	got := objects(t, dir)
	for label, n := range got {
		if !want[label] || n != 1 {
			t.Errorf("the token holds %d of %s, listed %v", n, label, want[label])
		}
	}
	for label := range want {
		if got[label] == 0 {
			t.Errorf("the token does not hold %s", label)
		}
	}
}

// TestKill kills the server with SIGKILL while clients make and use keys, again and again. Whatever was answered stays true, and nothing is half made: in
// the store, where every key listed can be used, and in the token, which holds those keys and no others.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	l := &ledger{keys: make(map[string]bool), requests: make(map[string]bool)}
	began := time.Now()
	rounds := 0
	for ; rounds < 5 || time.Since(began) < soak(t); rounds++ {
		s := start(t, dir)
		clients := make(chan error)
		const n = 4
		for i := range n {
			// No second attempts: they would hide what an answer was.
			c := s.client(func(o *kms.Options) { o.RetryMaxAttempts = 1 })
			go func() { clients <- l.keep(within(t), c, uint64(rounds*n+i)) }()
		}
		// The moment is the point: there is nothing to wait for.
		time.Sleep(time.Duration(20+rand.IntN(600)) * time.Millisecond)
		s.kill(t)
		for range n {
			if err := <-clients; err != nil {
				t.Errorf("round %d: refused: %v", rounds, err)
			}
		}

		l.checkTorn(t, dir)
		s = start(t, dir)
		keys := l.check(t, s.client())
		l.checkAudit(t, dir)
		s.stop(t)
		checkObjects(t, dir, keys)
		checkDoctor(t, dir)
		if t.Failed() {
			t.Fatalf("in round %d; the server's log:\n%s", rounds, s.log.String())
		}
	}
	t.Logf("%d rounds, %d keys, %d ciphertexts", rounds, len(l.keys), len(l.sealed))
	if len(l.keys) < rounds || len(l.sealed) < rounds {
		t.Errorf("the clients did too little to show anything: %d keys, %d ciphertexts in %d rounds", len(l.keys), len(l.sealed), rounds)
	}
}

// TestKillFirstStart kills the first start of a rig, and the starts that follow, 20 times in one directory. Then a start like any other works, with the
// credentials that it names. So it is in three directories.
func TestKillFirstStart(t *testing.T) {
	// How long a first start takes says when it can be killed.
	began := time.Now()
	start(t, t.TempDir()).stop(t)
	whole := time.Since(began)

	began = time.Now()
	for rounds := 0; rounds < 3 || time.Since(began) < soak(t)/10; rounds++ {
		dir := t.TempDir()
		for range 20 {
			s, err := launch(dir)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(rand.N(whole * 6 / 5)) // the moment is the point
			s.kill(t)
		}
		s := start(t, dir)
		s.works(t)
		c := s.client()
		key := newKey(t, c)
		blob, _, err := producers["Encrypt"](within(t), c, *key.KeyId, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.stop(t)
		first := s.env["AWS_ACCESS_KEY_ID"]
		s = start(t, dir)
		if got := s.env["AWS_ACCESS_KEY_ID"]; got != first {
			t.Errorf("the access key was %s and is %s after a restart", first, got)
		}
		if _, err := decrypt(within(t), s.client(), blob, nil); err != nil {
			t.Errorf("after a restart: %v", err)
		}
		s.stop(t)
	}
}

// TestStopAndStart: a server that was told to stop leaves nothing behind but its rig, and the next one goes on from there.
func TestStopAndStart(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	c := s.client()
	key, alias := newAlias(t, c)
	blob, _, err := producers["GenerateDataKeyPair"](within(t), c, alias, map[string]string{"a": "b"})
	if err != nil {
		t.Fatal(err)
	}
	args, err := kind.command(dir)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program, args...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), kind.inUse) {
		t.Errorf("a second server in the same directory: %v\n%s", err, out)
	}
	s.stop(t)
	if _, err := os.Stat(filepath.Join(dir, "env")); err == nil {
		t.Error("DIR/env is still there")
	}
	again := start(t, dir)
	m, err := again.client().DescribeKey(within(t), describe(alias))
	if err != nil || show(m.KeyMetadata) != show(key) {
		t.Errorf("after a restart: %v, %v", m, err)
	}
	if _, err := decrypt(within(t), again.client(), blob, map[string]string{"a": "b"}); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}
