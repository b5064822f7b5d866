package kms_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"strongroom/hsm"
	"strongroom/hsm/hsmtest"
	"strongroom/keyspec"
	"strongroom/kms"
)

// A soundLog is a log that a test reads. It is safe for concurrent use.
type soundLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *soundLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// count returns how many lines have all these words.
func (l *soundLog) count(words ...string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
lines:
	for line := range strings.Lines(l.buf.String()) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue lines
			}
		}
		n++
	}
	return n
}

// newBudgeted returns a service on a store whose materials may encrypt so many times.
func newBudgeted(t testing.TB, db kms.Store, device hsm.Device, limit int64) (*kms.Service, *soundLog) {
	t.Helper()
	log := new(soundLog)
	s, err := kms.New(t.Context(), kms.Options{
		Device: device, Store: db, Audit: new(recorder), Log: slog.New(slog.NewTextHandler(log, nil)), SealLimit: limit,
	})
	must(t, err)
	t.Cleanup(func() { s.StopBudget(context.Background()) })
	return s, log
}

// noRotation is the test token, which makes no key while away is true.
func noRotation(away *atomic.Bool) hsm.Device {
	return hsmtest.Faulty(token, func(op string) error {
		if op == "Generate" && away.Load() {
			return hsm.ErrUnavailable
		}
		return nil
	})
}

// sealOnce encrypts something. It reports whether that was refused because of the limit, and fails the test for any other error.
func sealOnce(t testing.TB, s *kms.Service, key string) (blob []byte, refused bool) {
	t.Helper()
	resp, err := s.Encrypt(t.Context(), root, &kms.EncryptRequest{KeyID: key, Plaintext: []byte("x")})
	if err == nil {
		return resp.CiphertextBlob, false
	}
	refusal(t, err, kms.KeyUnavailable, "")
	if !strings.Contains(err.Error(), "SP 800-38D") {
		t.Fatal(err)
	}
	return nil, true
}

// uses returns what the store knows of a key's materials, oldest first.
func (r *rig) uses(key string) (all []int64) {
	r.t.Helper()
	id, err := kms.ParseKeyID(key)
	must(r.t, err)
	must(r.t, r.store.View(r.t.Context(), func(tx kms.Tx) error {
		all = nil
		k, err := tx.Key(id)
		if err != nil {
			return err
		}
		for _, m := range k.Materials {
			n, err := tx.MaterialUses(m.ID)
			if err != nil {
				return err
			}
			all = append(all, n)
		}
		return nil
	}))
	return all
}

// eventually fails the test unless f becomes true soon.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// A material makes as many ciphertexts as the limit says and not one more, whoever asks; it opens them all; and once the device can make another, the
// key encrypts again.
func TestSealLimit(t *testing.T) {
	for _, limit := range []int64{1, 2, 3, 4, 5, 100, 2500} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			r := newRig(t, nil)
			key := r.newKey().KeyID
			var away atomic.Bool
			away.Store(true)
			s, log := newBudgeted(t, r.store, noRotation(&away), limit)

			var mu sync.Mutex
			var blobs [][]byte
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					for {
						blob, refused := sealOnce(t, s, key)
						if refused || t.Failed() {
							return
						}
						mu.Lock()
						blobs = append(blobs, blob)
						mu.Unlock()
					}
				})
			}
			all.Wait()
			if n := int64(len(blobs)); n != limit {
				t.Fatalf("%d encryptions, want %d", n, limit)
			}
			time.Sleep(150 * time.Millisecond) // until the store is asked again
			if _, refused := sealOnce(t, s, key); !refused {
				t.Error("one more after a pause")
			}
			if got := r.uses(key)[0]; got != limit {
				t.Errorf("the store knows of %d, want %d", got, limit)
			}
			if b := s.SealBudget(); b.Limit != limit || b.Materials != 1 || b.Most != limit || b.Warned != 1 || b.Refused < 9 ||
				len(b.Worn) != 1 || b.Worn[0].Key.String() != key || b.Worn[0].Reserved != limit {
				t.Errorf("the report is %+v", b)
			}
			if n := log.count("level=ERROR", "encrypts no more", key); n != 1 {
				t.Errorf("the log was told %d times that the key encrypts no more", n)
			}
			if n := log.count("level=WARN", "used up half", key); limit > 1 && n != 1 {
				t.Errorf("the log was told %d times that half is used", n)
			}
			for _, blob := range blobs[:1+len(blobs)/20] {
				must(t, second(s.Decrypt(t.Context(), root, &kms.DecryptRequest{CiphertextBlob: blob})))
			}

			eventually(t, "the rotation has failed", func() bool { return log.count("could not rotate") == 1 })
			away.Store(false)
			s.Sweep(t.Context(), time.Now().Add(kms.HandOver+time.Minute))
			if _, refused := sealOnce(t, s, key); refused {
				t.Error("refused after the rotation")
			}
			must(t, second(s.Decrypt(t.Context(), root, &kms.DecryptRequest{CiphertextBlob: blobs[0]})))
		})
	}
}

// A person can rotate a key that has reached the limit, when the token has room again.
func TestRotateOnDemandAtTheLimit(t *testing.T) {
	r := newRig(t, nil)
	key := r.newKey().KeyID
	// Nothing rotates by itself: the store refuses to begin.
	s, _ := newBudgeted(t, &brittleStore{r.store, func(step string) error {
		if step == "InsertMaterial" {
			return errors.New("not now")
		}
		return nil
	}}, token, 4)
	for range 4 {
		if _, refused := sealOnce(t, s, key); refused {
			t.Fatal("refused before the limit")
		}
	}
	if _, refused := sealOnce(t, s, key); !refused {
		t.Fatal("not refused at the limit")
	}
	must(t, r.rotateOnDemand(key)) // through another process
	if _, refused := sealOnce(t, s, key); refused {
		t.Error("the rotation of another process is not seen")
	}
}

// Near the limit the key is rotated by itself, once though two processes see that it is time, and like any automatic rotation.
func TestWornKeyIsRotated(t *testing.T) {
	r := newRig(t, nil)
	key := r.newKey().KeyID
	r.enableRotation(key, 365)
	before := r.rotationStatus(key)
	const limit = 400
	a, logA := newBudgeted(t, r.store, token, limit)
	b, logB := newBudgeted(t, r.store, token, limit)

	var blobs [][]byte
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range 8 {
		s := []*kms.Service{a, b}[i%2]
		all.Go(func() {
			for len(r.rotations(key, "")) == 0 {
				if blob, refused := sealOnce(t, s, key); !refused {
					mu.Lock()
					blobs = append(blobs, blob)
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	a.StopBudget(t.Context())
	b.StopBudget(t.Context())

	done := r.rotations(key, "")
	if len(done) != 1 || done[0].RotationType != kms.RotationAutomatic || done[0].RotationDate == nil {
		t.Errorf("rotations: %+v", done)
	}
	if n := logA.count("a key is rotated because", key) + logB.count("a key is rotated because", key); n != 1 {
		t.Errorf("the log was told %d times that the key is rotated", n)
	}
	if n := logA.count("used up half", key) + logB.count("used up half", key); n != 1 {
		t.Errorf("the log was told %d times that half is used", n)
	}
	events := r.events("RotateKey", key)
	if len(events) != 1 || events[0]["rotationType"] != "AUTOMATIC" {
		t.Errorf("events: %v", events)
	}
	after := r.rotationStatus(key)
	if !after.KeyRotationEnabled || !after.NextRotationDate.Equal(before.NextRotationDate.Time) || after.OnDemandRotationStartDate != nil {
		t.Errorf("the schedule was %+v and is %+v", before, after)
	}
	used := r.uses(key)
	if used[0] > limit || int64(len(blobs)) != used[0]+used[1] {
		t.Errorf("%d encryptions, and the store knows of %v", len(blobs), used)
	}
	for _, blob := range blobs[:10] {
		must(t, second(r.Decrypt(t.Context(), root, &kms.DecryptRequest{CiphertextBlob: blob})))
	}
	// It does not count as one on demand: those stay 25.
	for range 2 {
		must(t, r.rotateOnDemand(key))
	}
	if got := r.materials(key); got != "N N N C" {
		t.Errorf("materials %s", got)
	}
}

// A key that is not rotated by itself otherwise is, near the limit, and one that is disabled meanwhile is left alone.
func TestWornKeyWithoutRotation(t *testing.T) {
	r := newRig(t, nil)
	key, disabled := r.newKey().KeyID, r.newKey().KeyID
	s, _ := newBudgeted(t, r.store, token, 10)
	for range 8 {
		sealOnce(t, s, key)
	}
	eventually(t, "it is rotated", func() bool { return r.materials(key) == "N C" })
	if r.rotationStatus(key).KeyRotationEnabled {
		t.Error("its rotation was switched on")
	}

	// The requests that use it up are already past the gate.
	release := make(chan struct{})
	late, log := newBudgeted(t, r.store, hsmtest.Faulty(token, func(op string) error {
		if op == "Random" {
			<-release
		}
		return nil
	}), 4)
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			late.GenerateDataKey(t.Context(), root, &kms.GenerateDataKeyRequest{KeyID: disabled, KeySpec: "AES_256"})
		})
	}
	time.Sleep(50 * time.Millisecond)
	must(t, second(r.DisableKey(t.Context(), root, &kms.DisableKeyRequest{KeyID: disabled})))
	close(release)
	all.Wait()
	late.StopBudget(t.Context())
	if got := r.materials(disabled); got != "C" {
		t.Errorf("materials %s", got)
	}
	if n := log.count("could not rotate"); n != 0 {
		t.Error("that is an error in the log")
	}
}

// Each operation that encrypts takes one, and no other takes any. What a process had reserved it gives back at its end.
func TestWhatIsCounted(t *testing.T) {
	r := newRig(t, nil)
	key, other := r.newKey().KeyID, r.newKey().KeyID
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); r.Run(ctx) }()
	pair, dry := keyspec.P256, true
	blob := r.encrypt(other, "x", nil)
	for _, f := range []func() error{
		func() error {
			return second(r.Encrypt(ctx, root, &kms.EncryptRequest{KeyID: key, Plaintext: []byte("x")}))
		},
		func() error {
			return second(r.GenerateDataKey(ctx, root, &kms.GenerateDataKeyRequest{KeyID: key, KeySpec: "AES_128"}))
		},
		func() error {
			return second(r.GenerateDataKeyWithoutPlaintext(ctx, root, &kms.GenerateDataKeyWithoutPlaintextRequest{KeyID: key, KeySpec: "AES_128"}))
		},
		func() error {
			return second(r.GenerateDataKeyPair(ctx, root, &kms.GenerateDataKeyPairRequest{KeyID: key, KeyPairSpec: pair}))
		},
		func() error {
			return second(r.GenerateDataKeyPairWithoutPlaintext(ctx, root, &kms.GenerateDataKeyPairWithoutPlaintextRequest{KeyID: key, KeyPairSpec: pair}))
		},
		func() error {
			return second(r.ReEncrypt(ctx, root, &kms.ReEncryptRequest{CiphertextBlob: blob, DestinationKeyID: key}))
		},
	} {
		must(t, f())
	}
	for _, f := range []func() error{
		func() error {
			return second(r.Encrypt(ctx, root, &kms.EncryptRequest{KeyID: key, Plaintext: []byte("x"), DryRun: dry}))
		},
		func() error {
			return second(r.GenerateDataKey(ctx, root, &kms.GenerateDataKeyRequest{KeyID: key, KeySpec: "AES_128", DryRun: dry}))
		},
		func() error {
			return second(r.ReEncrypt(ctx, root, &kms.ReEncryptRequest{CiphertextBlob: blob, DestinationKeyID: key, DryRun: dry}))
		},
	} {
		if err := f(); !errors.Is(err, kms.DryRunSucceeded) {
			t.Error(err)
		}
	}
	must(t, second(r.Decrypt(ctx, root, &kms.DecryptRequest{CiphertextBlob: blob})))
	if got := r.uses(key)[0]; got != kms.FirstBlock {
		t.Errorf("%d are reserved, want %d", got, kms.FirstBlock)
	}
	stop()
	<-ended
	if got := r.uses(key)[0]; got != 6 {
		t.Errorf("six encryptions count as %d", got)
	}
	if got := r.uses(other)[0]; got != 1 {
		t.Errorf("one encryption counts as %d", got)
	}
}

// Who was served is counted, also when the call of the device failed.
func TestFailedSealCounts(t *testing.T) {
	r := newRig(t, nil)
	key := r.newKey().KeyID
	s, _ := newBudgeted(t, r.store, hsmtest.Faulty(token, func(op string) error {
		if op == "Seal" {
			return hsm.ErrUnavailable
		}
		return nil
	}), 100)
	for range 3 {
		_, err := s.Encrypt(t.Context(), root, &kms.EncryptRequest{KeyID: key, Plaintext: []byte("x")})
		refusal(t, err, kms.KeyUnavailable, "")
	}
	s.StopBudget(t.Context())
	if got := r.uses(key)[0]; got != 3 {
		t.Errorf("three calls count as %d", got)
	}
}

// Blocks of keys that are not used are given back, and those that are used stay.
func TestIdleBlocks(t *testing.T) {
	r := newRig(t, nil)
	idle, busy := r.newKey().KeyID, r.newKey().KeyID
	s, _ := newBudgeted(t, r.store, token, 0)
	sealOnce(t, s, idle)
	sealOnce(t, s, busy)
	s.GiveBack(t.Context()) // looks for the first time
	sealOnce(t, s, busy)
	if got := s.SealBudget().Materials; got != 2 {
		t.Errorf("%d materials, want 2", got)
	}
	s.GiveBack(t.Context())
	if got := s.SealBudget().Materials; got != 1 {
		t.Errorf("%d materials, want 1", got)
	}
	if got := r.uses(idle)[0]; got != 1 {
		t.Errorf("the idle key counts as used %d times", got)
	}
	if got := r.uses(busy)[0]; got != kms.FirstBlock {
		t.Errorf("the busy key has %d reserved", got)
	}
	sealOnce(t, s, idle)
	if got := r.uses(idle)[0]; got != 1+kms.FirstBlock {
		t.Errorf("the idle key has %d reserved", got)
	}
}

// With more keys in use than there are blocks, the others are counted one by one, to the same limit.
func TestMoreKeysThanBlocks(t *testing.T) {
	r := newRig(t, nil)
	key, other := r.newKey().KeyID, r.newKey().KeyID
	var away atomic.Bool
	away.Store(true)
	s, _ := newBudgeted(t, r.store, noRotation(&away), 20)
	s.SetMaxBlocks(1)
	sealOnce(t, s, key)
	n := 0
	for ; n < 30; n++ {
		if _, refused := sealOnce(t, s, other); refused {
			break
		}
		if got := r.uses(other)[0]; got != int64(n+1) {
			t.Fatalf("%d encryptions are counted as %d", n+1, got)
		}
	}
	if n != 20 {
		t.Errorf("%d encryptions, want 20", n)
	}
	eventually(t, "a rotation begins", func() bool { return r.materials(other) == "C P" })
	if got := r.materials(key); got != "C" {
		t.Errorf("materials of the other key: %s", got)
	}
}

// halfStore is a store that answers questions and makes no changes while it is stuck.
type halfStore struct {
	kms.Store
	stuck atomic.Bool
}

func (h *halfStore) Update(ctx context.Context, f func(kms.Tx) error) error {
	if h.stuck.Load() {
		return errors.New("the disk is full")
	}
	return h.Store.Update(ctx, f)
}

// While the store cannot reserve, what was reserved is used and no more; then encryption is refused until it can.
func TestStoreCannotReserve(t *testing.T) {
	r := newRig(t, nil)
	key := r.newKey().KeyID
	db := &halfStore{Store: r.store}
	s, log := newBudgeted(t, db, token, 0)
	sealOnce(t, s, key)
	db.stuck.Store(true)
	n := 1
	for ; n < 2*kms.FirstBlock; n++ {
		if _, err := s.Encrypt(t.Context(), root, &kms.EncryptRequest{KeyID: key, Plaintext: []byte("x")}); err != nil {
			refusal(t, err, kms.KeyUnavailable, "")
			if !strings.Contains(err.Error(), "the disk is full") {
				t.Error(err)
			}
			break
		}
	}
	if n != kms.FirstBlock {
		t.Errorf("%d encryptions, want %d", n, kms.FirstBlock)
	}
	if n := log.count("could not reserve encryptions", key); n != 1 {
		t.Errorf("the log was told %d times", n)
	}
	if got := s.SealBudget().Refused; got != 0 {
		t.Errorf("%d were refused because of the limit", got)
	}
	db.stuck.Store(false)
	eventually(t, "it encrypts again", func() bool {
		return second(s.Encrypt(t.Context(), root, &kms.EncryptRequest{KeyID: key, Plaintext: []byte("x")})) == nil
	})
}

// A request waits for the store no longer than its context says, and does not take what others wait for with it.
func TestReservationOutlivesItsRequest(t *testing.T) {
	r := newRig(t, nil)
	key := r.newKey().KeyID
	slow := &slowStore{Store: r.store, gate: make(chan struct{})}
	s, _ := newBudgeted(t, slow, token, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := s.Encrypt(ctx, root, &kms.EncryptRequest{KeyID: key, Plaintext: []byte("x")})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	waits := make(chan error, 1)
	go func() {
		waits <- second(s.Encrypt(t.Context(), root, &kms.EncryptRequest{KeyID: key, Plaintext: []byte("x")}))
	}()
	time.Sleep(20 * time.Millisecond)
	close(slow.gate)
	must(t, <-waits)
	if n := slow.updates.Load(); n != 1 {
		t.Errorf("%d reservations, want 1", n)
	}
}

// slowStore makes changes when its gate is open.
type slowStore struct {
	kms.Store
	gate    chan struct{}
	updates atomic.Int64
}

func (s *slowStore) Update(ctx context.Context, f func(kms.Tx) error) error {
	s.updates.Add(1)
	select {
	case <-s.gate:
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.Store.Update(ctx, f)
}

// Blocks grow with the rate: at 20,000 a second the store is written about once a minute, at 2 a second it is not written more often than that, and no request waits.
func TestBlocksGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			rate, most int
		}{{20_000, 40}, {100, 60}, {2, 15}} {
			db := &usesStore{}
			take, waited := kms.NewTestBudget(db, kms.DefaultSealLimit)
			const minutes = 20
			for range minutes * 60 {
				for range test.rate {
					must(t, take())
				}
				time.Sleep(time.Second)
			}
			if db.updates > test.most || db.updates < 2 {
				t.Errorf("at %d a second: %d reservations in %d minutes", test.rate, db.updates, minutes)
			}
			if used := int64(minutes * 60 * test.rate); db.uses < used || db.uses > used+2<<20 {
				t.Errorf("at %d a second: %d used, %d reserved", test.rate, used, db.uses)
			}
			if test.rate < 1000 && waited() > 1 {
				t.Errorf("at %d a second: %d requests waited for the store", test.rate, waited())
			}
			t.Logf("at %d a second: %d reservations in %d minutes", test.rate, db.updates, minutes)
		}
	})
}

// usesStore is a store of one number.
type usesStore struct {
	kms.Store
	kms.Tx
	uses    int64
	updates int
}

func (u *usesStore) Update(_ context.Context, f func(kms.Tx) error) error {
	time.Sleep(time.Millisecond)
	u.updates++
	return f(u)
}
func (u *usesStore) MaterialUses(hsm.ID) (int64, error) { return u.uses, nil }
func (u *usesStore) SetMaterialUses(_ hsm.ID, from, to int64) error {
	u.uses = to
	return nil
}

// BenchmarkTakeUse is what counting costs each encryption.
func BenchmarkTakeUse(b *testing.B) {
	take, _ := kms.NewTestBudget(&usesStore{}, 1<<50)
	bench(b, take)
}
