package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"strongroom/hsm"
	"strongroom/hsm/hsmtest"
	"strongroom/hsm/pkcs11"
	"strongroom/softhsm/fault"

	p11 "github.com/miekg/pkcs11"
)

// settled waits until a script that was written by hand is obeyed.
func settled() { time.Sleep(20 * time.Millisecond) }

// start starts this test binary as another process that does something with the token.
func (c *client) start(t *testing.T, what string, args ...string) *exec.Cmd {
	t.Helper()
	p := exec.CommandContext(t.Context(), os.Args[0], args...)
	p.Env = append(os.Environ(), "STRONGROOM_FAULT_CHILD="+what, "GOTRACEBACK=none")
	p.Stderr = new(strings.Builder)
	p.Stdout = p.Stderr
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

func wait(t *testing.T, p *exec.Cmd) {
	t.Helper()
	if err := p.Wait(); err != nil {
		t.Errorf("another process: %v: %s", err, p.Stderr)
	}
}

// child is such a process.
func child(what string, args []string) error {
	c := &client{Ctx: p11.New(os.Getenv("SOFTHSM2_MODULE"))}
	if c.Ctx == nil {
		return errors.New("the module cannot be loaded")
	}
	switch what {
	case "initialize":
		return c.Initialize()
	case "random", "sessions", "pins":
		if err := c.Initialize(); err != nil {
			return err
		}
		slots, err := c.GetSlotList(true)
		if err != nil {
			return err
		}
		c.slot = slots[0]
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	switch what {
	case "random": // n calls; prints how many failed
		s, err := c.tryOpen()
		if err != nil {
			return err
		}
		failed := 0
		for range n {
			if _, err := c.GenerateRandom(s, 1); errors.Is(err, p11.Error(p11.CKR_DEVICE_ERROR)) {
				failed++
			} else if err != nil {
				return err
			}
		}
		fmt.Print(failed)
	case "sessions": // opens n, and waits to be killed
		for range n {
			if _, err := c.tryOpen(); err != nil {
				return err
			}
		}
		fmt.Println("open")
		select {}
	case "pins": // n wrong ones, when the input ends
		s, err := c.tryOpen()
		if err != nil {
			return err
		}
		fmt.Println("open")
		if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
			return err
		}
		for range n {
			if err := c.Login(s, p11.CKU_USER, "wrong one"); err == nil {
				return errors.New("a wrong PIN was accepted")
			}
		}
	}
	return nil
}

func TestAbort(t *testing.T) {
	c := newClient(t)
	c.set(t, "on C_GenerateRandom abort skip 2 once across processes")
	p := c.start(t, "random", "3")
	err := p.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Success() {
		t.Fatalf("the process ended with %v, want SIGABRT", err)
	}
	if !strings.Contains(fmt.Sprint(p.Stderr), "SIGABRT") { // Go says so, and exits with 2
		t.Errorf("it says %s", p.Stderr)
	}
	for range 2 {
		wait(t, c.start(t, "random", "5"))
	}
	c.set(t, "on C_Initialize abort after")
	if err := c.start(t, "initialize").Wait(); err == nil {
		t.Error("the process lives")
	}
}

// hung starts f, and sees that it does not return.
func hung(t *testing.T, f func()) (returned chan struct{}) {
	t.Helper()
	returned = make(chan struct{})
	go func() {
		f()
		close(returned)
	}()
	select {
	case <-returned:
		t.Fatal("the call returned")
	case <-time.After(100 * time.Millisecond):
	}
	return returned
}

func TestHang(t *testing.T) {
	c := newClient(t)
	s, other := c.login(t), c.open(t)
	c.set(t, "on C_GenerateRandom hang once", "on C_SeedRandom hang once after")
	hung(t, func() { c.GenerateRandom(s, 1) })
	hung(t, func() { c.SeedRandom(s, []byte("seed")) })
	// Nobody waits for it: other calls, a restart, another script.
	_, err := c.GenerateRandom(other, 1)
	wants(t, "another call", err, p11.CKR_OK)
	c.set(t, "generation 1")
	_, err = c.GenerateRandom(other, 1)
	wants(t, "after a restart", err, p11.CKR_SESSION_HANDLE_INVALID)
	c.login(t)

	// The process can be killed, and nothing else ends the call.
	c.set(t, "on C_GenerateRandom hang")
	p := c.start(t, "random", "1")
	time.Sleep(200 * time.Millisecond)
	if err := p.Process.Signal(syscall.Signal(0)); err != nil {
		t.Fatal(err)
	}
	c.set(t)
	time.Sleep(100 * time.Millisecond)
	p.Process.Kill()
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the process ended with %v: %s", err, p.Stderr)
	}
}

func TestAwayHang(t *testing.T) {
	c := newClient(t)
	s := c.login(t)
	c.set(t, "away hang")
	returned := hung(t, func() { c.GenerateRandom(s, 1) })
	c.set(t, "# it is back")
	_, err := c.GenerateRandom(s, 1)
	wants(t, "a call after the outage", err, p11.CKR_OK)
	select {
	case <-returned:
		t.Error("a call of the outage returned")
	case <-time.After(100 * time.Millisecond):
	}
}

func TestAcrossProcesses(t *testing.T) {
	c := newClient(t)
	for _, test := range []struct {
		when   string
		each   int // failures of each process, or -1
		failed int // of all
	}{
		{"every 10", 100, 300},
		{"every 10 across processes", -1, 300},
		{"times 5", 5, 15},
		{"times 5 across processes", -1, 5},
		{"skip 990", 10, 30},
		{"skip 990 across processes", -1, 2010},
	} {
		c.set(t, "count calls", "on C_GenerateRandom return CKR_DEVICE_ERROR "+test.when)
		counts := filepath.Join(filepath.Dir(string(c.script)), "calls")
		before, err := fault.Counts(counts)
		if err != nil {
			t.Fatal(err)
		}
		var processes []*exec.Cmd
		for range 3 {
			processes = append(processes, c.start(t, "random", "1000"))
		}
		all := 0
		for _, p := range processes {
			wait(t, p)
			n, err := strconv.Atoi(fmt.Sprint(p.Stdout))
			if err != nil || test.each >= 0 && n != test.each {
				t.Errorf("%s: %s failed, %v; want %d", test.when, p.Stdout, err, test.each)
			}
			all += n
		}
		if all != test.failed {
			t.Errorf("%s: %d failed in all, want %d", test.when, all, test.failed)
		}
		after, err := fault.Counts(counts)
		if err != nil {
			t.Fatal(err)
		}
		for function, n := range map[string]int{"C_GenerateRandom": 3000, "C_Initialize": 3, "C_OpenSession": 3, "C_Login": 0} {
			if got := after[function] - before[function]; got != n {
				t.Errorf("%s: %d calls of %s, want %d", test.when, got, function, n)
			}
		}
	}
	// No files are left of the versions before.
	left, err := filepath.Glob(string(c.script) + ".shared*")
	if err != nil || len(left) != 1 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestSessionsAcrossProcesses(t *testing.T) {
	c := newClient(t)
	c.set(t, "sessions 5 across processes")
	p := exec.CommandContext(t.Context(), os.Args[0], "3")
	p.Env = append(os.Environ(), "STRONGROOM_FAULT_CHILD=sessions")
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscanln(out, new(string)); err != nil {
		t.Fatal(err)
	}
	c.open(t)
	c.open(t)
	_, err = c.tryOpen()
	wants(t, "a sixth session", err, p11.CKR_SESSION_COUNT)
	p.Process.Kill()
	p.Wait()
	for range 3 {
		c.open(t)
	}
	_, err = c.tryOpen()
	wants(t, "a sixth session", err, p11.CKR_SESSION_COUNT)
	// A restart frees them.
	c.set(t, "sessions 5 across processes", "generation 1")
	for range 5 {
		c.open(t)
	}
}

func TestPINsAcrossProcesses(t *testing.T) {
	c := newClient(t)
	c.set(t, "pin-tries 10")
	// All have the token open before the first PIN: SoftHSM rewrites the token's file at each, and a process that begins at that moment does not
	// recognise it.
	var processes []*exec.Cmd
	var begin []io.Closer
	for range 4 {
		p := exec.CommandContext(t.Context(), os.Args[0], "4")
		p.Env = append(os.Environ(), "STRONGROOM_FAULT_CHILD=pins")
		in, err := p.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := p.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fscanln(out, new(string)); err != nil {
			t.Fatal(err)
		}
		processes, begin = append(processes, p), append(begin, in)
	}
	for _, in := range begin {
		in.Close()
	}
	for _, p := range processes {
		if err := p.Wait(); err != nil {
			t.Errorf("another process: %v", err)
		}
	}
	got, err := fault.Counts(c.script.PINs())
	if err != nil || got["wrong"] != 10 || got["attempts"] != 10 || got["refused"] != 6 {
		t.Errorf("counted %v, %v: want 10 wrong of 10, and 6 refused", got, err)
	}
}

func TestFork(t *testing.T) {
	newClient(t).direct(t, "forked")
}

// TestThreads: restarts, other scripts, and calls of all kinds at the same time. A call may fail in two ways, and none is lost.
func TestThreads(t *testing.T) {
	c := newClient(t)
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Second)
	defer stop()
	var work sync.WaitGroup
	for i := range 4 {
		work.Go(func() {
			iv := []byte("twelve bytes")
			good := 0
			for ctx.Err() == nil {
				s, err := c.tryOpen()
				if err != nil {
					t.Errorf("C_OpenSession: %v", err)
					return
				}
				if err := c.Login(s, p11.CKU_USER, c.pin); err != nil && !errors.Is(err, p11.Error(p11.CKR_USER_ALREADY_LOGGED_IN)) &&
					!errors.Is(err, p11.Error(p11.CKR_SESSION_HANDLE_INVALID)) {
					t.Errorf("C_Login: %v", err)
				}
				k, err := c.tryKey(s, fmt.Sprint("of the session ", i), false)
				for err == nil && ctx.Err() == nil {
					var b []byte
					if b, err = c.gcm(s, k, iv); err == nil {
						_, err = c.opens(s, k, iv, b)
						good++
					}
				}
				if err != nil && !errors.Is(err, p11.Error(p11.CKR_SESSION_HANDLE_INVALID)) && !errors.Is(err, p11.Error(p11.CKR_USER_NOT_LOGGED_IN)) &&
					!errors.Is(err, p11.Error(p11.CKR_OBJECT_HANDLE_INVALID)) {
					t.Errorf("%v", err)
				}
				c.CloseSession(s)
			}
			if good == 0 {
				t.Error("nothing worked")
			}
		})
	}
	modes := []string{"", "handles swap", "handles shift", "sessions reuse"}
	for n := 1; ctx.Err() == nil; n++ {
		c.set(t, fmt.Sprint("generation ", n), modes[n%len(modes)])
		time.Sleep(30 * time.Millisecond)
	}
	work.Wait()
}

// TestDevice: what every device must do, Strongroom's own does by way of the module, with a script that asks for nothing.
func TestDevice(t *testing.T) {
	hsmtest.Test(t, func(t *testing.T) hsm.Device {
		r, config := rig(t)
		if err := r.Set("# nothing"); err != nil {
			t.Fatal(err)
		}
		token, err := pkcs11.Init(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := token.Close(); err != nil {
				t.Error(err)
			}
		})
		return token
	})
}

// BenchmarkForwarding is what a call costs, next to SoftHSM alone: ns for C_GetSessionInfo, and for an encryption (two calls).
func BenchmarkForwarding(b *testing.B) {
	for _, test := range []struct {
		name  string
		alone bool
		lines []string
	}{
		{"alone", true, nil},
		{"no script", false, nil},
		{"rules", false, []string{"on data return CKR_DEVICE_ERROR skip 1000000000", "on C_Encrypt abort one-in 1000000000", "bad-tag CKR_FUNCTION_FAILED"}},
		{"handles swap", false, []string{"handles swap"}},
		{"count", false, []string{"count calls"}},
	} {
		b.Run(test.name, func(b *testing.B) {
			c := newClient(b)
			if test.lines != nil {
				c.set(b, test.lines...)
			}
			led := module
			if test.alone {
				led = real
			}
			var call, encryption float64
			for b.Loop() {
				out, err := exec.Command(direct, "speed", led, c.pin).Output()
				if err != nil {
					b.Fatalf("%v: %s", err, out)
				}
				if _, err := fmt.Sscan(string(out), &call, &encryption); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(call, "ns/call")
			b.ReportMetric(encryption, "ns/encryption")
		})
	}
}
