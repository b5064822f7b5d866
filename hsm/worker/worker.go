// Package worker keeps the contract of package hsm with the PKCS #11 library in child processes that can be killed: what goes wrong inside of a
// vendor's library, or on its way to the HSM, ends a worker and not the server. A worker that hangs, crashes or loses its token is replaced, and what it was
// doing is done by another, while the request's deadline lasts: every operation of a device may be repeated.
//
// It trusts its workers, which are this very program, as far as it trusts the library in them: see package pkcs11, whose Token each of them has.
// It does not trust them to answer, nor to live.
//
//	hsm.Device method            [Device].do picks a worker, and another one when it fails
//	   socket pair               frames, see frame.go
//	      [Main] in the worker   calls its Token
//
// While no worker has the token, calls wait for as long as a restart of an HSM may take, [Config].Patience; after that they are answered at once
// with hsm.ErrUnavailable, until a worker has the token again.
package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"strongroom/hsm"
	"strongroom/hsm/pkcs11"
)

// A Config says which token the workers open, and how they are kept.
type Config struct {
	// Token names the token. Its Sessions are shared out among the workers. Its PIN is asked for once, when the first worker has found the
	// token, and kept in locked memory for those that follow. Its Patience is not used.
	Token pkcs11.Config

	// Workers is how many there are. 0 is one for each processor, and two at least: a library may use one processor a process, and while a worker is
	// replaced another goes on.
	Workers int

	// CallTimeout is how long a call into the library may take on the path of a request before it counts as hung, and SlowTimeout how long any other
	// (initialising, logging in, finding, making and destroying keys). Defaults: 2 and 10 seconds.
	CallTimeout, SlowTimeout time.Duration

	// Patience is how long calls wait for a token that is away, from the moment when it was lost. 5 seconds if 0.
	Patience time.Duration

	// Retry is how long after a failed attempt to open the token the next one begins. 250 milliseconds if 0.
	Retry time.Duration

	// Args start a worker: a program that calls [Main]. Default: this program, with the one argument [Argument].
	Args []string

	// Env is the environment of the workers. Default: this process's. It must not hold the PIN.
	Env []string

	Log *slog.Logger // for operators; required
}

// Argument tells a program that it is a worker.
const Argument = "hsm-worker"

// withDefaults returns c with what it leaves open.
func (c Config) withDefaults() Config {
	c.Workers = cmp.Or(c.Workers, max(2, runtime.NumCPU()))
	c.CallTimeout = cmp.Or(c.CallTimeout, 2*time.Second)
	c.SlowTimeout = max(cmp.Or(c.SlowTimeout, 10*time.Second), c.CallTimeout)
	c.Patience = cmp.Or(c.Patience, 5*time.Second)
	c.Retry = cmp.Or(c.Retry, 250*time.Millisecond)
	c.Token.Sessions = cmp.Or(c.Token.Sessions, 16)
	if c.Args == nil {
		// Not its name, under which another version may lie by now.
		c.Args = []string{"/proc/self/exe", Argument}
	}
	if c.Env == nil {
		c.Env = os.Environ()
	}
	return c
}

// A Device is a token that workers have open. It is safe for concurrent use, Close included.
type Device struct {
	config  Config
	log     *slog.Logger
	spawner *spawner
	pin     *pin

	// opening is held while a worker opens the token, so that one PIN is tried at a time.
	opening sync.Mutex
	login   login // under opening

	mu      sync.Mutex // held for a look
	ready   []*process // that have the token open
	changed chan struct{}
	info    pkcs11.Info
	away    time.Time // since when there is none ready; zero if there is
	why     error     // for the last one that was lost, or was not to be had
	refused error     // the PIN was: there will be no worker any more
	closed  bool

	stats  stats
	stop   context.CancelFunc // ends the keepers
	keeper sync.WaitGroup
}

var _ hsm.Device = (*Device)(nil)

// Open starts the workers and returns when the first of them has the token open, which must have been used by pkcs11.Init before.
//
// If that one fails, Open does, and tries nothing again: as with pkcs11.Open, an error that is pkcs11.ErrPIN means that Open must not be called
// again before somebody has looked.
func Open(ctx context.Context, c Config) (*Device, error) {
	c = c.withDefaults()
	if c.Token.PIN == nil {
		return nil, errors.New("no PIN is given for the token")
	}
	d := &Device{
		config:  c,
		log:     c.Log,
		spawner: newSpawner(),
		changed: make(chan struct{}),
		away:    time.Now(),
	}
	d.pin = newPIN(c.Token.PIN)
	keeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	d.stop = stop
	first, err := d.open(ctx)
	if err != nil {
		d.Close()
		return nil, err
	}
	d.keeper.Go(func() { d.keep(keeping, first) })
	for range c.Workers - 1 {
		d.keeper.Go(func() { d.keep(keeping, nil) })
	}
	return d, nil
}

// Info returns what the token said of itself when it was opened last.
func (d *Device) Info() pkcs11.Info {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.info
}

// drainTimeout is how long Close waits for calls in progress, and closeTimeout more for the workers.
const drainTimeout = 5 * time.Second

// Close waits for calls in progress and ends the workers. What is called later fails.
func (d *Device) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	workers := slices.Clone(d.ready)
	d.announce()
	d.mu.Unlock()

	late := time.After(drainTimeout)
	for slices.ContainsFunc(workers, func(p *process) bool { return p.flying.Load() > 0 }) {
		select {
		case <-late:
			workers = nil
		case <-time.After(5 * time.Millisecond):
		}
	}
	d.stop()
	var wg sync.WaitGroup
	for _, p := range workers {
		wg.Go(func() { p.dismiss() })
	}
	wg.Wait()
	d.keeper.Wait()
	d.spawner.close()
	d.pin.wipe()
	return nil
}

// dismiss lets the process close its token and end.
func (p *process) dismiss() {
	p.end(errors.New("the server has closed"))
	p.hangUp()
	select {
	case <-p.dead:
	case <-time.After(closeTimeout + time.Second):
		p.cmd.Process.Kill()
		<-p.dead
	}
}

// announce wakes those who wait for a worker. The caller holds the lock.
func (d *Device) announce() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// unavailable makes an error that is hsm.ErrUnavailable.
func unavailable(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	return fmt.Errorf("%w: %s", hsm.ErrUnavailable, strings.TrimPrefix(text, hsm.ErrUnavailable.Error()+": "))
}

var errClosed = unavailable("the token was closed")
