package test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	_ "github.com/mattn/go-sqlite3"
)

// checkDoctor fails the test if `strongroom doctor` finds anything wrong with a rig, whose server may run or not. What it notes of a crash is not wrong.
func checkDoctor(t testing.TB, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append([]string{"doctor", "--json"}, kind.site(dir)...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var d struct {
		Healthy bool
		Parts   []struct {
			Name     string
			Checked  []string
			Findings []struct{ Severity, Check, Where, What string }
		}
	}
	if jerr := json.Unmarshal(out, &d); jerr != nil {
		t.Fatalf("strongroom doctor: %v, %v:\n%s%s", err, jerr, out, stderr.String())
	}
	looked := make(map[string]int)
	for _, p := range d.Parts {
		looked[p.Name] = len(p.Checked)
		for _, f := range p.Findings {
			if f.Severity != "note" {
				t.Errorf("strongroom doctor: %s: %s: %s: %s: %s", p.Name, f.Severity, f.Check, f.Where, f.What)
			}
		}
	}
	for _, part := range []string{"files", "store", "token", "keys", "audit log", "clock"} {
		if looked[part] == 0 {
			t.Errorf("strongroom doctor has not looked at the part %q:\n%s", part, out)
		}
	}
	if err != nil || !d.Healthy {
		t.Errorf("strongroom doctor: %v; healthy: %v\n%s", err, d.Healthy, stderr.String())
	}
}

// TestKillDoctor examines a rig while clients make, rotate, use and delete keys and its workers are killed, right after the server itself was killed in the
// middle of that, and after it was started again. There is never anything to find, and every ciphertext that was answered opens.
func TestKillDoctor(t *testing.T) {
	dir := t.TempDir()
	l := &ledger{keys: make(map[string]bool), requests: make(map[string]bool)}
	rounds, pairs, killed := 0, 0, 0
	for began := time.Now(); rounds < 2 || time.Since(began) < soak(t); rounds++ {
		s := start(t, dir)
		checkDoctor(t, dir) // beside a server that just undoes what was interrupted
		var clients sync.WaitGroup
		const n = 3
		for i := range n {
			c := s.client(func(o *kms.Options) { o.RetryMaxAttempts = 1 })
			clients.Go(func() {
				made, err := l.work(within(t), c, uint64(rounds*n+i))
				if err != nil {
					t.Errorf("round %d: refused: %v", rounds, err)
				}
				l.mu.Lock()
				pairs += made
				l.mu.Unlock()
			})
		}
		for range 3 {
			time.Sleep(200*time.Millisecond + rand.N(400*time.Millisecond)) // the moment is the point
			killed += killWorker(t, s)
			checkDoctor(t, dir)
		}
		time.Sleep(rand.N(100 * time.Millisecond))
		s.kill(t)
		clients.Wait()
		checkDoctor(t, dir)
		l.checkTorn(t, dir)

		due(t, dir) // of the keys that were scheduled, so that the next start destroys them
		s = start(t, dir)
		checkDoctor(t, dir)
		for i, sealed := range l.sealed {
			if got, err := decrypt(within(t), s.client(), sealed.blob, sealed.context); err != nil || string(got) != string(sealed.plaintext) {
				t.Errorf("ciphertext %d, of key %s: %d bytes, %v", i, sealed.key, len(got), err)
			}
		}
		s.stop(t)
		checkDoctor(t, dir)
		if t.Failed() {
			t.Fatalf("in round %d; the server's log:\n%s", rounds, s.log.String())
		}
	}
	t.Logf("%d rounds, %d workers killed, %d keys, %d ciphertexts, %d of them pairs", rounds, killed, len(l.keys), len(l.sealed), pairs)
	if len(l.keys) < 3*rounds || len(l.sealed) < 3*rounds || pairs == 0 || killed < rounds {
		t.Errorf("the clients did too little to show anything")
	}
}

// killWorker ends one of the server's workers with SIGKILL, and returns how many that were.
func killWorker(t testing.TB, s *server) int {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var workers []int
	for _, name := range threads {
		text, _ := os.ReadFile(name) // of a thread that has ended since: nothing
		for _, word := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil {
				workers = append(workers, pid)
			}
		}
	}
	if len(workers) == 0 {
		return 0 // they are just being replaced
	}
	if err := syscall.Kill(workers[rand.IntN(len(workers))], syscall.SIGKILL); err != nil {
		return 0
	}
	return 1
}

// work makes keys, rotates them, has data keys and pairs encrypted under them, and schedules the deletion of some, until the server goes away. It returns how many
// pairs it got, and an error if the server refused something while it was there. Ciphertexts under keys that are to be deleted are not kept.
func (l *ledger) work(ctx context.Context, c *kms.Client, seed uint64) (pairs int, err error) {
	random := rand.New(rand.NewPCG(seed, seed))
	var mine []string
	for n := 0; ; n++ {
		if len(mine) == 0 || n%5 == 0 {
			out, err := c.CreateKey(ctx, &kms.CreateKeyInput{})
			if err != nil {
				return pairs, broken(err)
			}
			if n%2 == 1 {
				_, err := c.ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: out.KeyMetadata.KeyId, PendingWindowInDays: aws.Int32(7)})
				if err != nil {
					return pairs, broken(err)
				}
				continue
			}
			mine = append(mine, *out.KeyMetadata.KeyId)
			l.mu.Lock()
			l.keys[*out.KeyMetadata.KeyId] = true
			l.mu.Unlock()
		}
		key := mine[random.IntN(len(mine))]
		if n%7 == 3 {
			if _, err := c.RotateKeyOnDemand(ctx, &kms.RotateKeyOnDemandInput{KeyId: &key}); err != nil {
				return pairs, broken(err)
			}
		}
		s := sealed{key: key, context: map[string]string{"n": fmt.Sprint(n)}}
		if n%3 == 0 {
			out, err := c.GenerateDataKeyPair(ctx, &kms.GenerateDataKeyPairInput{KeyId: &key, KeyPairSpec: types.DataKeyPairSpecEccNistP256, EncryptionContext: s.context})
			if err != nil {
				return pairs, broken(err)
			}
			s.blob, s.plaintext = out.PrivateKeyCiphertextBlob, out.PrivateKeyPlaintext
			pairs++
		} else {
			out, err := c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: &key, KeySpec: types.DataKeySpecAes256, EncryptionContext: s.context})
			if err != nil {
				return pairs, broken(err)
			}
			s.blob, s.plaintext = out.CiphertextBlob, out.Plaintext
		}
		l.mu.Lock()
		l.sealed = append(l.sealed, s)
		l.mu.Unlock()
	}
}

// due ends the waiting periods of a rig's keys, which no client can. No server may run.
func due(t testing.TB, dir string) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, "strongroom.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("UPDATE kms_key SET deletion_date = $1 WHERE state = 'PendingDeletion'", time.Now().UnixMilli()); err != nil {
		t.Fatal(err)
	}
}
