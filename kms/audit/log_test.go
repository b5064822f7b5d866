package audit

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A testSigner signs in memory.
type testSigner struct {
	key  *ecdsa.PrivateKey
	sign func(context.Context, [32]byte) ([]byte, error) // instead, if set
	n    atomic.Int64
}

func newSigner(tb testing.TB) *testSigner {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return &testSigner{key: key}
}

func (s *testSigner) Sign(ctx context.Context, digest [32]byte) ([]byte, error) {
	s.n.Add(1)
	if s.sign != nil {
		return s.sign(ctx, digest)
	}
	return ecdsa.SignASN1(rand.Reader, s.key, digest[:])
}

func (s *testSigner) PublicKey() []byte {
	der, err := x509.MarshalPKIXPublicKey(&s.key.PublicKey)
	if err != nil {
		panic(err)
	}
	return der
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// typical is a record as most of them are.
func typical() *Record {
	return &Record{
		Time:     time.Date(2020, 7, 27, 18, 57, 57, 0, time.UTC),
		Identity: Identity{Type: "IAMUser", PrincipalID: "AIDACKCEVSQ6C2EXAMPLE", ARN: "arn:aws:iam::111122223333:user/Alice", AccountID: "111122223333", AccessKeyID: "AKIAIOSFODNN7EXAMPLE", UserName: "Alice"},
		Source:   "kms.amazonaws.com", Name: "GenerateDataKeyPair", Region: "eu-central-1", SourceIP: "192.0.2.7",
		UserAgent:         "aws-sdk-go-v2/1.48.0 os/linux lang/go#1.26 md/GOOS#linux md/GOARCH#amd64 api/kms#1.62.5",
		RequestParameters: []byte(`{"keyPairSpec":"RSA_3072","encryptionContext":{"Project":"Alpha"},"keyId":"1234abcd-12ab-34cd-56ef-1234567890ab"}`),
		RequestID:         "52fb127b-0fe5-42bb-8e5e-f560febde6b0", EventID: "9b6bd6d2-529d-4890-a949-593b13800ad7", ReadOnly: true,
		Resources: []Resource{{ARN: "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab", AccountID: "111122223333"}},
		EventType: APICall, Recipient: "111122223333", TLS: "TLSv1.3",
	}
}

// countingDisk counts syncs, and leaves them out if told to.
type countingDisk struct {
	osDisk
	syncs atomic.Int64
	skip  bool
}

func (d *countingDisk) create(path string) (file, error) { return d.wrap(d.osDisk.create(path)) }
func (d *countingDisk) open(path string) (file, error)   { return d.wrap(d.osDisk.open(path)) }
func (d *countingDisk) wrap(f file, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	return &countingFile{f, d}, nil
}

func (d *countingDisk) journal(path string, size int64) (journalFile, error) {
	f, err := d.osDisk.journal(path, size)
	if err != nil {
		return nil, err
	}
	return &countingJournal{f, d}, nil
}

type countingJournal struct {
	journalFile
	d *countingDisk
}

func (f *countingJournal) Sync() error {
	f.d.syncs.Add(1)
	if f.d.skip {
		return nil
	}
	return f.journalFile.Sync()
}

type countingFile struct {
	file
	d *countingDisk
}

func (f *countingFile) Sync() error {
	f.d.syncs.Add(1)
	if f.d.skip {
		return nil
	}
	return f.file.Sync()
}

// open opens a log and closes it at the test's end, if the test has not.
func open(t *testing.T, o Options) *Log {
	t.Helper()
	if o.Log == nil {
		o.Log = quiet
	}
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func appendN(t *testing.T, l *Log, n int) {
	t.Helper()
	for range n {
		if err := l.Append(t.Context(), typical()); err != nil {
			t.Fatal(err)
		}
	}
}

// verify verifies the log in dir, which must be right.
func verify(t *testing.T, dir string, s *testSigner) *Report {
	t.Helper()
	files, err := Files(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Verify(&s.key.PublicKey, files, VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Finding != nil {
		t.Fatal(r.Finding)
	}
	if r.UnsealedSince.IsZero() != (r.Unsealed == 0) || r.UnsealedSince.After(time.Now()) {
		t.Errorf("%d records are unsealed, since %v", r.Unsealed, r.UnsealedSince)
	}
	return r
}

// count returns how many records of a name are in dir.
func count(t *testing.T, dir, name string) int {
	t.Helper()
	files, err := Files(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range Find(files, Filter{Operation: name}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

func TestAppend(t *testing.T) {
	dir, s := filepath.Join(t.TempDir(), "audit"), newSigner(t)
	l := open(t, Options{Dir: dir, Signer: s})
	appendN(t, l, 3)
	if r := verify(t, dir, s); r.Records != 4 || r.Closed || r.Unsealed != 4 {
		t.Errorf("while it is open: %+v", r)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r := verify(t, dir, s)
	if r.Records != 4 || r.Checkpoints != 1 || r.Lines != 5 || !r.Closed || r.Unsealed != 0 || r.Sealed.Sequence != 4 || r.First.Sequence != 1 {
		t.Errorf("closed: %+v", r)
	}
	if err := l.Append(t.Context(), typical()); !errors.Is(err, errClosed) {
		t.Errorf("Append after Close: %v", err)
	}
	if err := l.Err(); !errors.Is(err, errClosed) {
		t.Errorf("Err after Close: %v", err)
	}
	if err := l.Rotate(); !errors.Is(err, errClosed) {
		t.Errorf("Rotate after Close: %v", err)
	}
	if err := l.Close(); !errors.Is(err, errClosed) {
		t.Errorf("a second Close: %v", err)
	}

	// The chain goes on when the log is opened again.
	l = open(t, Options{Dir: dir, Signer: s})
	if again := verify(t, dir, s); again.Lines != r.Lines || !again.Closed {
		t.Errorf("opened again: %+v", again)
	}
	appendN(t, l, 1)
	if again := verify(t, dir, s); again.Lines != r.Lines+1 || again.Closed || again.Log != r.Log || again.Unsealed != 1 {
		t.Errorf("and written to: %+v", again)
	}
	for name, mode := range map[string]os.FileMode{"": 0o700, "audit-00000001.jsonl": 0o600, "lock": 0o600, "public-key.pem": 0o644} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%q: %v, %v", name, info.Mode(), err)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "public-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if key, err := ParsePublicKey(text); err != nil || !key.Equal(&s.key.PublicKey) {
		t.Errorf("public-key.pem: %v", err)
	}
}

// Many records share a sync, none is lost, and each is there when its Append returns.
func TestGroupCommit(t *testing.T) {
	dir, s, d := t.TempDir(), newSigner(t), new(countingDisk)
	l := open(t, Options{Dir: dir, Signer: s, disk: d})
	const appenders, each = 32, 30
	before := d.syncs.Load()
	var wg sync.WaitGroup
	for range appenders {
		wg.Go(func() {
			for range each {
				if err := l.Append(t.Context(), typical()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	syncs := d.syncs.Load() - before
	t.Logf("%d records, %d syncs", appenders*each, syncs)
	if syncs > appenders*each/4 {
		t.Errorf("%d syncs for %d records", syncs, appenders*each)
	}
	if r := verify(t, dir, s); r.Records != appenders*each+1 {
		t.Errorf("%d records", r.Records)
	}
}

func TestBadRecords(t *testing.T) {
	dir, s := t.TempDir(), newSigner(t)
	l := open(t, Options{Dir: dir, Signer: s})
	for name, spoil := range map[string]func(*Record){
		"too large":      func(r *Record) { r.UserAgent = strings.Repeat("x", maxRecord) },
		"not JSON":       func(r *Record) { r.RequestParameters = []byte(`{"a":`) },
		"two values":     func(r *Record) { r.ResponseElements = []byte(`null,"b":null`) },
		"empty":          func(r *Record) { r.ServiceEventDetails = []byte{} },
		"twice one name": func(r *Record) { r.AdditionalEventData = []byte(`{"a":1,"a":2}`) },
		"too deep":       func(r *Record) { r.RequestParameters = []byte(strings.Repeat("[", 9990) + strings.Repeat("]", 9990)) },
		"too deep object": func(r *Record) {
			r.RequestParameters = []byte(strings.Repeat(`{"a":`, 9990) + "1" + strings.Repeat("}", 9990))
		},
		"no type":           func(r *Record) { r.EventType = "" },
		"our type":          func(r *Record) { r.EventType = checkpointEvent },
		"year 10000":        func(r *Record) { r.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"session's year -1": func(r *Record) { r.Identity.Session = &Session{Created: time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC)} },
	} {
		r := typical()
		spoil(r)
		if err := l.Append(t.Context(), r); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	largest := typical()
	largest.UserAgent = strings.Repeat("x", maxRecord-2000)
	if err := l.Append(t.Context(), largest); err != nil {
		t.Error(err)
	}
	if r := verify(t, dir, s); r.Records != 2 {
		t.Errorf("%d records", r.Records)
	}
	l.Close()
	l = open(t, Options{Dir: dir, Signer: s})
	appendN(t, l, 1)
	verify(t, dir, s)
}

// A caller whose context ends does not wait for the disk, unless it is the one who writes. Its record is written nevertheless.
func TestAppendContext(t *testing.T) {
	dir, s, d := t.TempDir(), newSigner(t), newFaultyDisk()
	l := open(t, Options{Dir: dir, Signer: s, disk: d})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Append(ctx, typical()); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended: %v", err)
	}
	hang := make(chan struct{})
	d.set(func(op, path string) error {
		if op == "sync" {
			<-hang
		}
		return nil
	})
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	writes := appendHung(t, l)
	if err := l.Append(ctx, typical()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a disk that hangs: %v", err)
	}
	if err := l.Err(); err != nil {
		t.Error(err)
	}
	d.set(nil)
	close(hang)
	if err := <-writes; err != nil {
		t.Error(err)
	}
	appendN(t, l, 1)
	if r := verify(t, dir, s); r.Records != 4 {
		t.Errorf("%d records", r.Records)
	}
}

// appendHung appends a record to a log whose disk hangs, and returns when there is one who waits for the disk.
func appendHung(t *testing.T, l *Log) <-chan error {
	done := make(chan error, 1)
	go func() { done <- l.Append(context.Background(), typical()) }()
	wait(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.busy && len(l.queue) == 0
	})
	return done
}

func TestTwoOpeners(t *testing.T) {
	dir, s := t.TempDir(), newSigner(t)
	l := open(t, Options{Dir: dir, Signer: s})
	_, err := Open(Options{Dir: dir, Signer: s, Log: quiet})
	if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "lock")) {
		t.Errorf("the second: %v", err)
	}
	l.Close()
	open(t, Options{Dir: dir, Signer: s})
}

func TestAnotherKey(t *testing.T) {
	dir := t.TempDir()
	open(t, Options{Dir: dir, Signer: newSigner(t)}).Close()
	_, err := Open(Options{Dir: dir, Signer: newSigner(t), Log: quiet})
	if err == nil || !strings.Contains(err.Error(), "public-key.pem") {
		t.Errorf("another key: %v", err)
	}
}

// TestRotateEmpty: an empty file is as good as another.
func TestRotateEmpty(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, Signer: newSigner(t), CheckpointEvery: time.Hour}) // no signature that comes in between
	for range 3 {
		if err := l.Rotate(); err != nil {
			t.Error(err)
		}
	}
	if files, _ := Files(dir); len(files) != 2 {
		t.Errorf("%d files", len(files))
	}
}

func TestRotate(t *testing.T) {
	dir, s := t.TempDir(), newSigner(t)
	l := open(t, Options{Dir: dir, Signer: s, MaxSize: 20_000, CheckpointRecords: 10})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if err := l.Append(t.Context(), typical()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 10 {
		if err := l.Rotate(); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Millisecond)
	}
	wg.Wait()
	if err := l.Rotate(); err != nil {
		t.Error(err)
	}
	l.Close()
	r := verify(t, dir, s)
	if r.Records != 401 || r.Files < 20 || r.Checkpoints < 2 || !r.Closed {
		t.Errorf("%+v", r)
	}
	// The order is that of the lines, whatever the names, and any run of files verifies.
	files, _ := Files(dir)
	moved := t.TempDir()
	var some []string
	for i, f := range files[3:12] {
		some = append(some, filepath.Join(moved, string(rune('z'-i))))
		if err := os.Rename(f, some[i]); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := Verify(&s.key.PublicKey, some, VerifyOptions{}); err != nil || r.Finding != nil || r.Files != 9 || r.First.Sequence == 1 {
		t.Errorf("%+v, %v", r, err)
	}
	// And one in the middle is missed.
	if r, err := Verify(&s.key.PublicKey, append(some[:4:4], some[5:]...), VerifyOptions{}); err != nil || r.Finding == nil || r.Finding.Kind != Missing || r.Finding.File != some[5] || r.Finding.Line != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestCheckpoints(t *testing.T) {
	t.Run("by number", func(t *testing.T) {
		dir, s := t.TempDir(), newSigner(t)
		l := open(t, Options{Dir: dir, Signer: s, CheckpointRecords: 10})
		for range 10 {
			appendN(t, l, 10)
			wait(t, func() bool { return verify(t, dir, s).Unsealed < 10 })
		}
		if n := s.n.Load(); n > 12 {
			t.Errorf("%d signatures", n)
		}
	})
	t.Run("by time", func(t *testing.T) {
		dir, s := t.TempDir(), newSigner(t)
		l := open(t, Options{Dir: dir, Signer: s, CheckpointEvery: 10 * time.Millisecond})
		wait(t, func() bool { return verify(t, dir, s).Checkpoints == 1 })
		time.Sleep(50 * time.Millisecond) // and none for a checkpoint
		if r := verify(t, dir, s); r.Checkpoints != 1 || r.Unsealed != 0 {
			t.Errorf("%+v", r)
		}
		appendN(t, l, 1)
		wait(t, func() bool { return verify(t, dir, s).Checkpoints == 2 })
	})
	t.Run("appends do not wait", func(t *testing.T) {
		dir, s := t.TempDir(), newSigner(t)
		hang, busy := make(chan struct{}), atomic.Int64{}
		s.sign = func(ctx context.Context, digest [32]byte) ([]byte, error) {
			if busy.Add(1) > 1 {
				t.Error("two signatures at once")
			}
			defer busy.Add(-1)
			<-hang
			return ecdsa.SignASN1(rand.Reader, s.key, digest[:])
		}
		l := open(t, Options{Dir: dir, Signer: s, CheckpointRecords: 1})
		wait(t, func() bool { return s.n.Load() == 1 })
		appendN(t, l, 100)
		if r := verify(t, dir, s); r.Checkpoints != 0 || r.Unsealed != 101 {
			t.Errorf("%+v", r)
		}
		close(hang)
		wait(t, func() bool { return verify(t, dir, s).Unsealed == 0 })
	})
	t.Run("failures", func(t *testing.T) {
		dir, s := t.TempDir(), newSigner(t)
		other := newSigner(t)
		var last time.Time
		s.sign = func(ctx context.Context, digest [32]byte) ([]byte, error) {
			if n := s.n.Load(); n <= 5 && time.Since(last) < 10*time.Millisecond {
				t.Errorf("signature %d comes %v after the one before failed", n, time.Since(last))
			}
			last = time.Now()
			switch s.n.Load() {
			case 1, 2:
				return nil, errors.New("the token is away")
			case 3, 4:
				return other.Sign(ctx, digest)
			}
			return ecdsa.SignASN1(rand.Reader, s.key, digest[:])
		}
		l := open(t, Options{Dir: dir, Signer: s, CheckpointEvery: time.Millisecond, signPause: 10 * time.Millisecond})
		appendN(t, l, 100)
		wait(t, func() bool { return verify(t, dir, s).Unsealed == 0 })
		if n := s.n.Load(); n < 5 {
			t.Errorf("%d signatures", n)
		}
	})
	t.Run("Close does not wait for ever", func(t *testing.T) {
		dir, s := t.TempDir(), newSigner(t)
		s.sign = func(ctx context.Context, digest [32]byte) ([]byte, error) { select {} }
		l := open(t, Options{Dir: dir, Signer: s, closeWait: 50 * time.Millisecond})
		appendN(t, l, 5)
		if err := l.Close(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: %v", err)
		}
		if r := verify(t, dir, s); r.Records != 6 || r.Closed {
			t.Errorf("%+v", r)
		}
		// What was not signed is, when the log is opened again.
		open(t, Options{Dir: dir, Signer: &testSigner{key: s.key}, CheckpointEvery: time.Millisecond})
		wait(t, func() bool { return verify(t, dir, s).Unsealed == 0 })
	})
}

// wait waits until something is true.
func wait(t *testing.T, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come")
		}
	}
}

// A syncBuffer is a log that a test reads.
type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *syncBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }
