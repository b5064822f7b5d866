package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"strongroom/hsm"
	"strongroom/hsm/pkcs11"
	"strongroom/hsm/worker"
	"strongroom/softhsm"
	"strongroom/softhsm/fault"
)

// newFaulty makes a token behind the module that fails as its script says.
func newFaulty(t testing.TB) (worker.Config, fault.Rig) {
	t.Helper()
	real, err := softhsm.Module()
	if err != nil {
		t.Fatal(err)
	}
	rig, err := fault.New(t.TempDir(), real)
	if err != nil {
		t.Fatal(err)
	}
	rig.Install(func(key, value string) {
		if t, ok := t.(interface{ Setenv(key, value string) }); ok {
			t.Setenv(key, value)
		}
	})
	return worker.Config{Token: newToken(t)}, rig
}

func set(t testing.TB, rig fault.Rig, lines ...string) {
	t.Helper()
	if err := rig.Set(lines...); err != nil {
		t.Fatal(err)
	}
}

// workers returns the processes that this one has started as workers.
func workers(t testing.TB) (pids []int) {
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
		// pid (name) state ppid …
		after := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if after[1] != strconv.Itoa(os.Getpid()) {
			continue
		}
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(name), "cmdline"))
		if strings.Contains(string(line), worker.Argument) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// A load is callers that use two keys of a device, and look whether each ciphertext was made with the right one.
type load struct {
	calls, errs atomic.Int64
	slowest     atomic.Int64
	stop        context.CancelFunc
	wait        sync.WaitGroup
}

func begin(t testing.TB, d hsm.Device, clients int) *load {
	t.Helper()
	_, one := made(t, d)
	_, two := made(t, d)
	ctx, stop := context.WithCancel(context.Background())
	l := &load{stop: stop}
	for i := range clients {
		l.wait.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				ref, other := one, two
				if (n+i)%2 == 0 {
					ref, other = two, one
				}
				begun := time.Now()
				err := l.once(d, ref, other, n%50 == 0)
				took := int64(time.Since(begun))
				for before := l.slowest.Load(); took > before && !l.slowest.CompareAndSwap(before, took); before = l.slowest.Load() {
				}
				l.calls.Add(1)
				if err != nil && l.errs.Add(1) < 5 {
					t.Error(err)
				}
			}
		})
	}
	return l
}

func (l *load) once(d hsm.Device, ref, other hsm.Ref, look bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	sealed, err := d.Seal(ctx, ref, nil, []byte("plaintext"), aad)
	if err != nil {
		return fmt.Errorf("Seal: %w", err)
	}
	got, err := d.Open(ctx, ref, nil, sealed, aad)
	if err != nil || string(got) != "plaintext" {
		return fmt.Errorf("Open: got %q and %w", got, err)
	}
	if look {
		if _, err := d.Open(ctx, other, nil, sealed, aad); !errors.Is(err, hsm.ErrRejected) {
			return fmt.Errorf("Open with the other key: %w", err)
		}
		id := anID()
		if _, err := d.Generate(ctx, id, label); err != nil {
			return fmt.Errorf("Generate: %w", err)
		}
		if err := d.Destroy(ctx, id); err != nil {
			return fmt.Errorf("Destroy: %w", err)
		}
	}
	return nil
}

// end stops the callers and says what they have done.
func (l *load) end(t testing.TB) {
	t.Helper()
	l.stop()
	l.wait.Wait()
	t.Logf("%d round trips, %d failed, the slowest took %v", l.calls.Load(), l.errs.Load(), time.Duration(l.slowest.Load()).Round(time.Millisecond))
	if l.calls.Load() == 0 {
		t.Error("nothing was done")
	}
}

// An HSM that restarts is not noticed, and what its handles name afterwards does not matter.
func TestRestarts(t *testing.T) {
	c, rig := newFaulty(t)
	d, _ := open(t, c)
	l := begin(t, d, 8)
	for i := range 4 {
		time.Sleep(300 * time.Millisecond)
		generation := fmt.Sprint("generation ", i+1)
		set(t, rig, "away CKR_DEVICE_REMOVED", generation, "handles swap", "sessions reuse", "slots shift")
		time.Sleep(rand.N(2 * time.Second))
		set(t, rig, generation, "handles swap", "sessions reuse", "slots shift")
	}
	time.Sleep(500 * time.Millisecond)
	l.end(t)
}

// A restart that the library hides, but for lost sessions.
func TestSessionsLost(t *testing.T) {
	c, rig := newFaulty(t)
	d, _ := open(t, c)
	l := begin(t, d, 8)
	for i := range 6 {
		time.Sleep(500 * time.Millisecond)
		set(t, rig, fmt.Sprint("generation ", i+1), []string{"handles swap", "handles shift"}[i%2], "sessions reuse")
	}
	time.Sleep(200 * time.Millisecond)
	l.end(t)
}

// A library that hangs or crashes now and then is not noticed either.
func TestHangsAndCrashes(t *testing.T) {
	for _, what := range []string{"hang", "abort"} {
		t.Run(what, func(t *testing.T) {
			c, rig := newFaulty(t)
			c.CallTimeout, c.SlowTimeout = 500*time.Millisecond, time.Second
			d, _ := open(t, c)
			l := begin(t, d, 8)
			set(t, rig, "on all "+what+" one-in 1000")
			time.Sleep(6 * time.Second)
			set(t, rig)
			time.Sleep(time.Second)
			l.end(t)
			if s := d.Stats(); s.Hung+s.Ended == 0 {
				t.Error("nothing has happened")
			} else {
				t.Logf("%+v", s)
			}
		})
	}
}

// While the HSM is away for long, callers are told at once; when it is back, it is used at once.
func TestOutage(t *testing.T) {
	for _, how := range []string{"away CKR_DEVICE_REMOVED", "away CKR_DEVICE_ERROR from C_Initialize", "away hang"} {
		t.Run(how, func(t *testing.T) {
			c, rig := newFaulty(t)
			c.CallTimeout = time.Second
			c.Patience = 500 * time.Millisecond
			d, _ := open(t, c)
			_, ref := made(t, d)
			set(t, rig, how)
			begun := time.Now()
			if err := roundTrip(t.Context(), d, ref); !errors.Is(err, hsm.ErrUnavailable) {
				t.Fatal(err)
			}
			if took := time.Since(begun); took > 4*time.Second {
				t.Errorf("the first call that failed took %v", took)
			}
			time.Sleep(time.Second)
			for until := time.Now().Add(3 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
				begun := time.Now()
				err := roundTrip(t.Context(), d, ref)
				if took := time.Since(begun); took > 100*time.Millisecond {
					t.Errorf("an answer took %v", took)
				}
				if !errors.Is(err, hsm.ErrUnavailable) {
					t.Fatal(err)
				}
			}
			set(t, rig, "generation 1", "handles swap")
			begun = time.Now()
			for roundTrip(t.Context(), d, ref) != nil {
				if time.Since(begun) > 20*time.Second {
					t.Fatal("it does not come back")
				}
				time.Sleep(5 * time.Millisecond)
			}
			t.Logf("the first good answer came after %v", time.Since(begun).Round(time.Millisecond))
			if took := time.Since(begun); took > 2*time.Second { // a second, on a machine that has nothing else to do
				t.Errorf("the first good answer came after %v", took)
			}
		})
	}
}

// Workers that are killed, or stopped, are replaced.
func TestKilled(t *testing.T) {
	c, _ := newFaulty(t)
	c.CallTimeout = time.Second
	d, _ := open(t, c)
	l := begin(t, d, 8)
	for i := range 12 {
		time.Sleep(200 * time.Millisecond)
		pids := workers(t)
		if len(pids) == 0 {
			continue
		}
		signal := syscall.SIGKILL
		if i%4 == 3 {
			signal = syscall.SIGSTOP
		}
		syscall.Kill(pids[rand.N(len(pids))], signal)
	}
	l.end(t)
	waitReady(t, d, max(2, len(workers(t))))
}

// A PIN that is wrong is tried once.
func TestWrongPIN(t *testing.T) {
	attempts := func(rig fault.Rig) int {
		counts, err := fault.Counts(rig.PINs())
		if err != nil {
			t.Fatal(err)
		}
		return counts["attempts"]
	}
	t.Run("at the start", func(t *testing.T) {
		c, rig := newFaulty(t)
		set(t, rig, "pin-tries 3")
		c.Token.PIN = func() ([]byte, error) { return []byte("wrong"), nil }
		c.Log = newLog()
		_, err := worker.Open(t.Context(), c)
		if !errors.Is(err, pkcs11.ErrPIN) || !errors.Is(err, hsm.ErrUnavailable) {
			t.Errorf("got the error %v", err)
		}
		for _, text := range []string{softhsm.Label, "wrong PINs are being counted", "CKR_PIN_INCORRECT"} {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("the error %v does not say %q", err, text)
			}
		}
		if n := attempts(rig); n != 1 {
			t.Errorf("%d attempts", n)
		}
	})
	t.Run("later", func(t *testing.T) {
		c, rig := newFaulty(t)
		set(t, rig, "pin-tries 3")
		d, log := open(t, c)
		_, ref := made(t, d)
		waitReady(t, d, 2)
		right := attempts(rig)
		set(t, rig, "pin-tries 3", "on C_Login return CKR_PIN_INCORRECT", "count "+filepath.Join(filepath.Dir(string(rig.Script)), "counts"))
		for _, pid := range workers(t) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		if err := roundTrip(t.Context(), d, ref); !errors.Is(err, hsm.ErrUnavailable) || !strings.Contains(err.Error(), "refused the PIN") {
			t.Errorf("got the error %v", err)
		}
		time.Sleep(2 * time.Second)
		counts, err := fault.Counts(filepath.Join(filepath.Dir(string(rig.Script)), "counts"))
		if err != nil || counts["C_Login"] != 1 {
			t.Errorf("%d attempts, %v", counts["C_Login"], err)
		}
		if !d.Stats().Refused || !strings.Contains(log.String(), "does not try it again") {
			t.Errorf("%+v\n%s", d.Stats(), log)
		}
		_ = right
	})
	t.Run("perhaps", func(t *testing.T) {
		// A library that crashes while a PIN is tried that was never right is not given it again.
		c, rig := newFaulty(t)
		counts := filepath.Join(filepath.Dir(string(rig.Script)), "counts")
		set(t, rig, "on C_Login abort after", "count "+counts)
		c.Log = newLog()
		if d, err := worker.Open(t.Context(), c); err == nil {
			d.Close()
			t.Error("it opened")
		} else if !errors.Is(err, hsm.ErrUnavailable) || !strings.Contains(err.Error(), "never right before") {
			t.Errorf("got the error %v", err)
		}
		if n, err := fault.Counts(counts); err != nil || n["C_Login"] != 1 {
			t.Errorf("%d attempts, %v", n["C_Login"], err)
		}
	})
}

// Who guards the PIN is told of the end of each attempt, also where the worker has ended before it got the PIN: it may hold a lock until then.
func TestPINNotGiven(t *testing.T) {
	c, _ := newFaulty(t)
	var tried, told atomic.Int64
	c.Token.TryPIN = func([]byte) (func(error), error) {
		if tried.Add(1) == 2 { // the first attempt is that of Open
			for _, pid := range workers(t) {
				syscall.Kill(pid, syscall.SIGKILL)
			}
			time.Sleep(500 * time.Millisecond) // until its end was noticed
		}
		return func(error) { told.Add(1) }, nil
	}
	d, _ := open(t, c)
	waitReady(t, d, 2)
	for until := time.Now().Add(10 * time.Second); told.Load() < tried.Load() && time.Now().Before(until); {
		time.Sleep(10 * time.Millisecond)
	}
	if tried.Load() < 3 || told.Load() != tried.Load() {
		t.Errorf("%d attempts, and the end of %d was told", tried.Load(), told.Load())
	}
}

// A destroyed key is not used by any worker, nor is a copy of it.
func TestDestroyedEverywhere(t *testing.T) {
	c := worker.Config{Token: newToken(t), Workers: 3}
	d, _ := open(t, c)
	waitReady(t, d, 3)
	for range 20 {
		id, ref := made(t, d)
		var wg sync.WaitGroup
		for range 12 { // so that all use it
			wg.Go(func() {
				if err := roundTrip(t.Context(), d, ref); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if err := d.Destroy(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		for range 12 {
			wg.Go(func() {
				if _, err := d.Seal(t.Context(), ref, nil, []byte("plaintext"), aad); !errors.Is(err, hsm.ErrNoKey) {
					t.Errorf("after its destruction: %v", err)
				}
			})
		}
		wg.Wait()
	}
}

// A hundred outages leave nothing behind.
func TestNothingLeft(t *testing.T) {
	c, rig := newFaulty(t)
	c.Retry = 50 * time.Millisecond
	d, _ := open(t, c)
	_, ref := made(t, d)
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	rounds := 10
	if os.Getenv("STRONGROOM_SOAK") != "" {
		rounds = 100
	}
	var before int
	for i := range rounds {
		set(t, rig, "away CKR_DEVICE_ERROR")
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		roundTrip(ctx, d, ref)
		cancel()
		set(t, rig, fmt.Sprint("generation ", i+1))
		if err := roundTrip(t.Context(), d, ref); err != nil {
			t.Error(err)
		}
		waitReady(t, d, 2)
		if i == 2 {
			time.Sleep(200 * time.Millisecond)
			before = count()
		}
	}
	time.Sleep(200 * time.Millisecond)
	if after := count(); after > before+5 {
		t.Errorf("%d descriptors are open, %d were", after, before)
	}
	if n := len(workers(t)); n != 2 {
		t.Errorf("%d workers", n)
	}
}

// A token that has sessions for one worker is served by one.
func TestFewSessions(t *testing.T) {
	c, rig := newFaulty(t)
	set(t, rig, "sessions 20 across processes") // of a worker: 6 of crypto11, one to find, one for copies, 8 for data
	d, log := open(t, c)
	l := begin(t, d, 4)
	time.Sleep(2 * time.Second)
	l.end(t)
	if s := d.Stats(); s.Ready != 1 {
		t.Errorf("%+v", s)
	}
	if n := strings.Count(log.String(), "gives no sessions to another worker"); n != 1 {
		t.Errorf("told %d times:\n%s", n, log)
	}
}
