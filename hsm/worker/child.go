package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"strongroom/hsm"
	"strongroom/hsm/pkcs11"
)

// control is the worker's end of the socket for all but calls, the first file descriptor after the standard ones. Those of the lanes follow it.
const control socket = 3

// closeTimeout is how long a worker that is told to end waits for its token to close.
const closeTimeout = 2 * time.Second

// A setting is what a worker is told first: a pkcs11.Config without what is not said in words.
type setting struct {
	Module, Label, Serial string
	InitArgs              string
	Sessions              int
	Lanes                 int
	SessionCopies         bool
	IV                    pkcs11.IVSource
	SyncDir               string
	Uncertain             bool // pkcs11.Config.PINUncertain

	Call, Slow               time.Duration // how long calls may take, once the token is open
	OpeningCall, OpeningSlow time.Duration // and until then
	Beat                     time.Duration // between signs of life
}

func settingOf(c pkcs11.Config) setting {
	return setting{
		Module: c.Module, InitArgs: c.InitArgs, Label: c.Label, Serial: c.Serial, Sessions: c.Sessions, SessionCopies: c.SessionCopies, SyncDir: c.SyncDir,
		IV: c.IV,
	}
}

func (s *setting) config() pkcs11.Config {
	return pkcs11.Config{
		Module: s.Module, InitArgs: s.InitArgs, Label: s.Label, Serial: s.Serial, Sessions: s.Sessions, SessionCopies: s.SessionCopies, SyncDir: s.SyncDir,
		PINUncertain: func() bool { return s.Uncertain },
		IV:           s.IV,
	}
}

// Main is the whole of a worker process: it opens the token that it is told, does what it is asked, and returns the process's exit code when the server is gone or
// wants no more of it. A program that calls [Open] must call Main, before anything else, when it finds itself started with [Config].Args.
func Main() int {
	if err := harden(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	c := &child{pin: make(chan []byte, 1)}
	return c.run()
}

// harden makes a worker die with its server, and keeps its memory to itself. What the server could take away before, it has: see spawn.
func harden() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("asking to die with the server: %w", err)
	}
	// Failures of these two are told by the server of itself.
	unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	return nil
}

// A child is the worker's side of the sockets.
type child struct {
	sending sync.Mutex // held while a frame is written to control
	out     frame      // under sending

	token   atomic.Pointer[pkcs11.Token]
	pin     chan []byte
	probing sync.Mutex // held while it is found out whether the token works
	probed  time.Time  // under probing: when that was asked last,
	broke   bool       // and whether it did not
}

// tell writes a frame to control.
func (c *child) tell(k kind, put func(*frame)) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	c.out.begin(k)
	put(&c.out)
	return control.write(&c.out)
}

func (c *child) run() int {
	in := reader{socket: control}
	unix.CloseOnExec(int(control))
	k, said, err := in.next()
	if err != nil || k != kindOpen {
		fmt.Fprintln(os.Stderr, "this was not started as a worker of strongroom serve:", err)
		return 1
	}
	var s setting
	if err := json.Unmarshal(said.rest, &s); err != nil {
		return 1
	}
	for i := range s.Lanes {
		unix.CloseOnExec(int(control) + 1 + i)
	}
	// Each lane has a thread that waits on it or is in the module, and none of them is to wait for another one's processor.
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.NumCPU() + s.Lanes)
	}
	go c.beat(s.Beat)
	go func() { // what comes now is the PIN, and then the end
		for {
			_, pin, err := in.next()
			if err != nil {
				break
			}
			c.pin <- append([]byte(nil), pin.rest...)
			in.wipe()
		}
		c.close()
		os.Exit(0)
	}()
	config := s.config()
	config.PIN = c.askPIN
	config.TryPIN = func([]byte) (func(error), error) {
		return func(err error) {
			if err == nil {
				c.tell(kindLoggedIn, func(*frame) {})
			}
		}, nil
	}
	config.Patience = pkcs11.Patience{Call: s.OpeningCall, Slow: s.OpeningSlow, Hung: c.hung}
	token, err := pkcs11.Open(context.Background(), config)
	if err != nil {
		c.tell(kindFailed, func(f *frame) { putError(f, err, true) })
		return 1
	}
	c.token.Store(token)
	slowest := token.Slowest()
	// A search takes as long as there are objects, and opening has seen how long that is.
	token.SetPatience(pkcs11.Patience{Call: s.Call, Find: min(s.Slow, max(s.Call, hungFactor*slowest)), Slow: s.Slow})
	info, err := json.Marshal(token.Info())
	if err != nil {
		return 1
	}
	err = c.tell(kindReady, func(f *frame) {
		f.number(uint64(slowest))
		f.number(boolean(quick(token)))
		f.bytes(info)
	})
	if err != nil {
		return 1
	}
	for i := range s.Lanes {
		go c.serve(token, control+1+socket(i))
	}
	select {} // until the server is gone, or wants no more
}

// quick reports whether the token does its work in less time than it takes to hand it on from one process to another.
func quick(token *pkcs11.Token) bool {
	best := time.Hour
	for range 5 {
		begun := time.Now()
		if err := token.Check(context.Background()); err != nil {
			return false
		}
		best = min(best, time.Since(begun))
	}
	return best < quickCheck
}

// quickCheck is how long random bytes, an encryption and a decryption together take a token of software.
const quickCheck = 300 * time.Microsecond

// close closes the token, if there is one and it can be.
func (c *child) close() {
	token := c.token.Load()
	if token == nil {
		return
	}
	closed := make(chan error, 1)
	go func() { closed <- token.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	case <-time.After(closeTimeout):
	}
}

func (c *child) askPIN() ([]byte, error) {
	if err := c.tell(kindAskPIN, func(*frame) {}); err != nil {
		return nil, err
	}
	return <-c.pin, nil
}

// hung tells the server that a call does not return, and ends the process, which is all that helps.
func (c *child) hung(function string, after time.Duration) {
	c.tell(kindHung, func(f *frame) {
		f.string(function)
		f.number(uint64(after))
	})
	os.Exit(1)
}

// beat says every so often that this process lives.
func (c *child) beat(every time.Duration) {
	for {
		time.Sleep(every)
		if err := c.tell(kindBeat, func(*frame) {}); err != nil {
			return
		}
	}
}

// serve does the calls of one lane, one after the other, until the server is gone. What came together is answered together.
func (c *child) serve(token *pkcs11.Token, lane socket) {
	in := reader{socket: lane}
	var out frame
	var seen time.Time
	for {
		k, args, err := in.next()
		if err != nil {
			os.Exit(1) // the server does not wait for a lane that nobody reads
		}
		out.begin(kindDone)
		if err := do(token, k, args, &out); err != nil {
			out.undo()
			out.begin(kindError)
			putError(&out, err, c.broken(token, err))
		}
		if in.buffered() {
			continue
		}
		in.wipe()
		if len(out.body) > frameMax {
			out.wipe()
			out.begin(kindError)
			putError(&out, fmt.Errorf("the answer is longer than %d bytes", frameMax), false)
		}
		if err := lane.write(&out); err != nil {
			os.Exit(1)
		}
		// A goroutine that the scheduler has not seen for 10 ms, whatever it waited for, loses its processor (in the sense of GOMAXPROCS) in each
		// system call from then on, and has to look for another. So it is to be seen, but not each time, which would wake another thread.
		if now := time.Now(); now.Sub(seen) > 4*time.Millisecond {
			seen = now
			runtime.Gosched()
		}
	}
}

// broken finds out whether the token does not work any more, when err may mean that. An answer is good for all that failed before it was asked for.
func (c *child) broken(token *pkcs11.Token, err error) bool {
	if !errors.Is(err, hsm.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	failed := time.Now()
	c.probing.Lock()
	defer c.probing.Unlock()
	if c.probed.After(failed) {
		return c.broke
	}
	c.probed = time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	c.broke = token.Check(ctx) != nil
	return c.broke
}

// probeTimeout bounds the wait for a session; a call that hangs ends the process before.
const probeTimeout = 10 * time.Second

// do calls the device. The fields of a call are: the time it may take in milliseconds, and then the arguments in their order.
func do(token *pkcs11.Token, k kind, in fields, done *frame) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(in.number())*time.Millisecond)
	defer cancel()
	switch k {
	case kindSeal, kindOpenSealed:
		key, text, aad := in.bytes(), in.bytes(), in.bytes()
		if in.err != nil {
			return in.err
		}
		op := token.Seal
		if k == kindOpenSealed {
			op = token.Open
		}
		// The answer is made where it is sent from, and is all that the frame holds.
		done.grow(len(text) + hsm.Overhead)
		out, err := op(ctx, key, done.body, text, aad)
		if err != nil {
			return err
		}
		done.body = out
	case kindRandom:
		n := in.number()
		if in.err != nil || n > frameMax/2 {
			return errMessage
		}
		return token.Random(ctx, done.blank(int(n)))
	case kindGenerate, kindGenerateSigner:
		id, label := in.bytes(), in.string()
		if in.err != nil || len(id) != len(hsm.ID{}) {
			return errMessage
		}
		op := token.Generate
		if k == kindGenerateSigner {
			op = token.GenerateSigner
		}
		ref, err := op(ctx, hsm.ID(id), label)
		if err != nil {
			return err
		}
		done.bytes(ref)
	case kindPublicKey:
		ref := in.bytes()
		if in.err != nil {
			return in.err
		}
		key, err := token.PublicKey(ctx, ref)
		if err != nil {
			return err
		}
		done.bytes(key)
	case kindSign:
		ref, digest := in.bytes(), in.bytes()
		if in.err != nil || len(digest) != 32 {
			return errMessage
		}
		signature, err := token.Sign(ctx, ref, [32]byte(digest))
		if err != nil {
			return err
		}
		done.bytes(signature)
	case kindDestroy, kindForget:
		id := in.bytes()
		if in.err != nil || len(id) != len(hsm.ID{}) {
			return errMessage
		}
		if k == kindForget {
			return token.Forget(ctx, hsm.ID(id))
		}
		return token.Destroy(ctx, hsm.ID(id))
	case kindCheck:
		return token.Check(ctx)
	case kindObjects:
		objects, err := token.Objects(ctx)
		if err != nil {
			return err
		}
		done.number(uint64(len(objects)))
		for _, o := range objects {
			done.bytes(o.ID[:])
			done.string(o.Label)
		}
	default:
		return errMessage
	}
	return nil
}
