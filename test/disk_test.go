package test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	strongroom "strongroom/kms"
	"strongroom/store"
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
	return newDiskRigOn(t, func(dir string) { mount(t, "none", dir, "tmpfs", "size=32m,mode=700") })
}

// newDiskRigOn makes a rig after mounting a file system for each part.
func newDiskRigOn(t *testing.T, mount func(dir string)) *diskRig {
	t.Helper()
	r := &diskRig{t: t, dir: filepath.Join(t.TempDir(), "rig"), ledger: ledger{keys: make(map[string]bool), requests: make(map[string]bool)}}
	r.audit, r.token = filepath.Join(r.dir, "audit"), filepath.Join(r.dir, "softhsm")
	for _, dir := range []string{r.dir, r.audit, r.token} {
		mount(dir)
	}
	r.start()
	out, err := r.client().CreateKey(within(t), &kms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	r.key = *out.KeyMetadata.KeyId
	r.keys[r.key] = true
	if err := diskRequests["Encrypt"](within(t), r, r.client()); err != nil {
		t.Fatal(err)
	}
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
	"Decrypt": func(ctx context.Context, r *diskRig, c *kms.Client) error {
		r.mu.Lock()
		s := r.sealed[0]
		r.mu.Unlock()
		out, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: s.blob})
		if err == nil {
			if string(out.Plaintext) != string(s.plaintext) {
				return fmt.Errorf("decrypted to %q", out.Plaintext)
			}
			r.told(requestOf(out.ResultMetadata), "", nil)
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
	for name := range diskRequests {
		got[name] = make(map[string]int)
	}
	for name, f := range diskRequests {
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
// well when there is room again. Encryption needs the store only when what was reserved of a key's encryptions is used up, decryption never.
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
			{"store", func(r *diskRig) []string { return []string{r.dir} }, "200 ready", []string{"CreateKey", "CreateGrant"}, []string{"Decrypt"}},
			{"token", func(r *diskRig) []string { return []string{r.token} }, "200 ready", []string{"CreateKey"}, []string{"Encrypt", "Decrypt", "GenerateDataKeyPair", "CreateGrant"}},
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
				expect(t, got, test.refused, test.never)
				if ready := r.ready(); ready != test.ready {
					t.Errorf("ready says %q", ready)
				}
				for _, dir := range test.full(r) {
					empty(t, dir)
				}
				r.recovers()
				r.holds()
				if t.Failed() {
					r.logEnd()
				}
			})
		}
	})
}

// expect checks what became of requests: an error is one after which a client tries again, those in refused were refused sometimes, those in never were not.
func expect(t *testing.T, got map[string]map[string]int, refused, never []string) {
	t.Helper()
	for name, codes := range got {
		for code := range codes {
			if code != "answered" && !slices.Contains(retryable, code) {
				t.Errorf("%s: %s", name, code)
			}
		}
		if slices.Contains(refused, name) && len(codes) == 1 && codes["answered"] > 0 {
			t.Errorf("%s was never refused", name)
		}
		if slices.Contains(never, name) && len(codes) != 1 {
			t.Errorf("%s was refused: %v", name, codes)
		}
	}
}

// logEnd shows the end of the server's log.
func (r *diskRig) logEnd() {
	lines := strings.Split(r.s.log.String(), "\n")
	r.t.Logf("the end of the log:\n%s", strings.Join(lines[max(0, len(lines)-20):], "\n"))
}

// TestDiskFullAtStart: a server that starts while the audit log's disk is full refuses requests, and needs no other start when there is room. On a full disk of
// a token in files it may not start, since a file of the token is kept and rewritten at each login; then the message says so, and nothing is lost.
func TestDiskFullAtStart(t *testing.T) {
	withMounts(t, false, func(t *testing.T) {
		t.Run("audit", func(t *testing.T) {
			r := newDiskRig(t)
			r.ask(100 * time.Millisecond)
			r.s.stop(t)
			fill(t, r.audit)
			r.start()
			got := r.ask(500 * time.Millisecond)
			t.Logf("while it is full: %v", got)
			expect(t, got, []string{"Encrypt", "CreateKey"}, nil)
			empty(t, r.audit)
			r.recovers()
			r.holds()
		})
		t.Run("token", func(t *testing.T) {
			r := newDiskRig(t)
			r.ask(100 * time.Millisecond)
			r.s.stop(t)
			fill(t, r.token)
			for range 3 {
				s, err := startIn(r.dir)
				if err == nil { // what it wrote found room
					s.troubled = true
					err = s.end()
				} else if strings.Contains(err.Error(), "no space left on device") {
					err = nil
				}
				if err != nil {
					t.Error(err)
				}
			}
			empty(t, r.token)
			r.start()
			r.recovers()
			r.holds()
		})
	})
}

// TestDiskFails: a disk turns read-only under the server, as the kernel does to one that it finds damaged, or is gone. What needs it is refused, what was
// answered is true when it is back.
func TestDiskFails(t *testing.T) {
	withMounts(t, true, func(t *testing.T) {
		all := []string{"Encrypt", "GenerateDataKeyPair", "CreateKey", "CreateGrant"}
		for _, test := range []struct {
			part    string
			how     string
			fail    func(*disk)
			ready   string
			refused []string // at least sometimes
			never   []string // refused
		}{
			{"audit", "read-only", (*disk).turnReadOnly, "503 unavailable: the audit log cannot be written", all, nil},
			{"audit", "gone", (*disk).pullOut, "503 unavailable: the audit log cannot be written", all, nil},
			{"store", "read-only", (*disk).turnReadOnly, "200 ready", []string{"CreateKey", "CreateGrant"}, []string{"Decrypt"}},
			{"store", "gone", (*disk).pullOut, "", []string{"CreateKey", "CreateGrant"}, nil},
			{"token", "read-only", (*disk).turnReadOnly, "", []string{"CreateKey"}, nil},
			{"token", "gone", (*disk).pullOut, "", []string{"CreateKey"}, nil},
		} {
			t.Run(test.part+" "+test.how, func(t *testing.T) {
				images := t.TempDir()
				disks := make(map[string]*disk)
				r := newDiskRigOn(t, func(dir string) { disks[dir] = newDisk(t, dir, filepath.Join(images, filepath.Base(dir))) })
				r.ask(200 * time.Millisecond)
				d := disks[map[string]string{"audit": r.audit, "store": r.dir, "token": r.token}[test.part]]
				var failed sync.WaitGroup
				failed.Go(func() {
					time.Sleep(100 * time.Millisecond)
					test.fail(d)
				})
				got := r.ask(time.Second)
				failed.Wait()
				t.Logf("while it fails: %v", got)
				expect(t, got, test.refused, test.never)
				ready := r.ready()
				if test.ready != "" && ready != test.ready {
					t.Errorf("ready says %q", ready)
				}
				t.Logf("ready says %q", ready)
				r.s.kill(t)
				for _, dir := range []string{r.audit, r.token, r.dir} {
					disks[dir].unmount()
				}
				for _, dir := range []string{r.dir, r.audit, r.token} {
					disks[dir].mount()
				}
				r.start()
				r.recovers()
				r.holds()
				if t.Failed() {
					r.logEnd()
				}
			})
		}
	})
}

// TestStoreLocked: another program holds the store's write lock. Who reads and who uses keys is answered all the same; who changes something waits, and is
// refused with an error that is worth another try if it takes too long. Nothing is left when the lock is gone.
func TestStoreLocked(t *testing.T) {
	r := &diskRig{t: t, dir: t.TempDir(), ledger: ledger{keys: make(map[string]bool), requests: make(map[string]bool)}}
	r.start()
	r.key = *newKey(t, r.s.client()).KeyId
	if err := diskRequests["Encrypt"](within(t), r, r.client()); err != nil {
		t.Fatal(err)
	}
	unseen := newKey(t, r.s.client()).KeyId // of which nothing is remembered
	r.keys[r.key], r.keys[*unseen] = true, true
	r.ask(100 * time.Millisecond) // and some encryptions are reserved, which needs the lock
	hold := func() (release func()) {
		db, err := store.Open(t.Context(), filepath.Join(r.dir, "strongroom.db"))
		if err != nil {
			t.Fatal(err)
		}
		held, free, done := make(chan bool), make(chan bool), make(chan error)
		go func() {
			done <- db.Update(context.Background(), func(tx strongroom.Tx) error { close(held); <-free; return errors.New("no change") })
		}()
		<-held
		return func() {
			close(free)
			<-done
			db.Close()
		}
	}

	release := hold()
	waiting := make(chan error)
	go func() { waiting <- diskRequests["CreateKey"](within(t), r, r.client()) }()
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		for _, name := range []string{"Encrypt", "Decrypt", "GenerateDataKeyPair"} {
			began := time.Now()
			if err := diskRequests[name](within(t), r, r.client()); err != nil {
				t.Fatalf("%s while another holds the lock: %v", name, err)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("%s took %v", name, took)
			}
		}
	}
	if _, err := r.client().DescribeKey(within(t), describe(*unseen)); err != nil {
		t.Error(err)
	}
	if got := r.ready(); got != "200 ready" {
		t.Errorf("ready says %q", got)
	}
	select {
	case err := <-waiting:
		t.Errorf("a change did not wait: %v", err)
	default:
	}
	release()
	if err := <-waiting; err != nil {
		t.Errorf("a change that waited: %v", err)
	}

	release = hold()
	began := time.Now()
	err := diskRequests["CreateKey"](within(t), r, r.client())
	if took := time.Since(began); !slices.Contains(retryable, refusalOf(err).code) || took < 5*time.Second || took > 30*time.Second {
		t.Errorf("a change that waited too long: %v after %v", err, took)
	}
	// The log is told when the client has been.
	told := func() bool {
		return strings.Contains(r.s.log.String(), "another process holds the store's lock for long")
	}
	for deadline := time.Now().Add(patience); !told() && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if !told() {
		t.Error("the log does not say why")
		r.logEnd()
	}
	release()
	r.recovers()
	r.holds()
}

// TestStoreDamaged: pages of the store are overwritten. A server that runs answers what it can answer truly, and refuses the rest; one that starts says which file
// it is and what to do about it. With a backup, all is as it was.
func TestStoreDamaged(t *testing.T) {
	r := &diskRig{t: t, dir: t.TempDir(), ledger: ledger{keys: make(map[string]bool), requests: make(map[string]bool)}}
	r.start()
	c := r.client()
	r.key = *newKey(t, c).KeyId
	r.keys[r.key] = true
	if err := diskRequests["Encrypt"](within(t), r, c); err != nil {
		t.Fatal(err)
	}
	for range 60 { // more than one page of keys
		if err := diskRequests["CreateKey"](within(t), r, c); err != nil {
			t.Fatal(err)
		}
	}
	r.ask(100 * time.Millisecond)
	saved := filepath.Join(t.TempDir(), "backup.tar")
	backup(t, r.dir, saved)
	file := filepath.Join(r.dir, "strongroom.db")
	r.s.stop(t)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	write := func(b []byte) {
		t.Helper()
		f, err := os.OpenFile(file, os.O_WRONLY, 0) // the file that the server has open, not another of its name
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
	}
	damage := func(first int) {
		t.Helper()
		bad := slices.Clone(whole)
		for i := first * page; i < len(bad); i++ {
			bad[i] = byte(i*7) ^ 0xa5
		}
		write(bad)
	}

	r.start()
	damage(1)
	for id := range r.keys { // the answer is the truth or an error
		out, err := r.client().DescribeKey(within(t), describe(id))
		if err != nil && !slices.Contains(retryable, refusalOf(err).code) || err == nil && *out.KeyMetadata.KeyId != id {
			t.Errorf("key %s: %v", id, err)
		}
	}
	got := r.ask(500 * time.Millisecond)
	t.Logf("while it is damaged: %v", got)
	expect(t, got, []string{"CreateKey"}, nil)
	if log := r.s.log.String(); !strings.Contains(log, "the store is damaged; stop strongroom") {
		t.Errorf("the log does not say what to do:\n%s", log)
	}
	r.s.kill(t)

	for _, first := range []int{0, 1, len(whole) / page / 2} {
		os.Remove(file + "-wal")
		os.Remove(file + "-shm")
		damage(first)
		out, err := exec.Command(program, "dev", "--dir", r.dir).CombinedOutput()
		if err == nil || !strings.Contains(string(out), file) || !strings.Contains(string(out), "strongroom restore") {
			t.Errorf("pages from %d on are damaged: %v\n%s", first, err, out)
		}
	}
	// What the token knows of the time after the backup is adopted. The damaged store cannot say what was taken away since.
	restore(t, r.dir, saved, "--adopt", "111122223333", "--force")
	r.start()
	r.recovers()
	r.s.stop(t)
	r.checkAudit(t, r.dir)
}
