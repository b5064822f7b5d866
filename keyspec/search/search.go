// Package search makes key pairs in processes of their own, so that looking for primes does not slow the server that wants them. It is a [keyspec.Source].
//
// A search keeps a processor busy for up to seconds. A thread that does it inside of the server cannot be put behind the others: what the kernel
// does not run cannot be stopped either, and Go's collector waits for all threads to stop. A process can. These run when a processor has nothing
// else to do (sched(7), SCHED_IDLE), except one, which gets a little in any case, for pairs that are overdue.
//
// The processes are this very program, with no files, nothing of its environment but GODEBUG and no privileges. They hold nothing but the pair that they make, and end with
// the server. One that ends by itself is replaced, and what it was looking for is looked for again. Where no process can be started, pairs that
// somebody waits for are made in this one, and others are not.
package search

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"strongroom/keyspec"
)

// A Config says how many processes there are.
type Config struct {
	// Processes is how many searches there are at a time, see [Processes.Room]. 0 is one for each processor. One more is for what is overdue.
	Processes int

	// Args start a process: a program that calls [Main] when it finds itself started with [Argument]. The name of a class is appended. Default: this program
	// with that argument.
	Args []string

	// Env is the environment of the processes. What they need of GODEBUG is added. Default: none.
	Env []string

	Log *slog.Logger // for operators; required
}

// Argument tells a program that it is to search.
const Argument = "prime-search"

// Processes search for primes. It is safe for concurrent use.
type Processes struct {
	config  Config
	log     *slog.Logger
	spawner *spawner
	seats   map[class]chan *seat // those that are free

	gauge gauge

	running atomic.Int64
	ended   atomic.Int64
	inside  atomic.Int64

	mu   sync.Mutex
	told time.Time // when the log was last told that no process can be started
}

// A class says what part of the machine a process gets.
type class string

const (
	idle   class = "idle"   // what nobody else wants
	steady class = "steady" // a little
)

// A seat is a place for one process, which is started when it is wanted.
type seat struct {
	class   class
	process *process // nil if there is none
}

// New returns processes, none of which is started yet.
func New(c Config) *Processes {
	c.Processes = cmp.Or(c.Processes, runtime.NumCPU())
	if c.Args == nil {
		// Not its name, under which another version may lie by now.
		c.Args = []string{"/proc/self/exe", Argument}
	}
	p := &Processes{config: c, log: c.Log, spawner: newSpawner(), seats: make(map[class]chan *seat)}
	for k, n := range map[class]int{idle: c.Processes, steady: 1} {
		p.seats[k] = make(chan *seat, n)
		for range n {
			p.seats[k] <- &seat{class: k}
		}
	}
	return p
}

// Bounds for one pair: a pair that ends process after process is made here, and so is one that somebody waits for when nothing starts.
const (
	maxDeaths = 5
	tellEvery = time.Minute
)

// Generate implements [keyspec.Source].
func (p *Processes) Generate(ctx context.Context, s keyspec.Spec, u keyspec.Urgency) (*keyspec.Pair, error) {
	seats := p.seats[idle]
	if u == keyspec.Overdue {
		seats = p.seats[steady]
	}
	var at *seat
	select {
	case at = <-seats:
		defer func() { seats <- at }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var err error
	for range maxDeaths {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if at.process == nil {
			if at.process, err = p.start(at.class); err != nil {
				break
			}
			p.running.Add(1)
		}
		var pair *keyspec.Pair
		if pair, err = at.process.generate(ctx, s); err == nil {
			return pair, nil
		}
		why := at.process.end()
		p.running.Add(-1)
		if ctx.Err() != nil {
			at.process = nil
			return nil, ctx.Err()
		}
		err = fmt.Errorf("%w: %s", err, why)
		p.ended.Add(1)
		p.log.Warn("a process that searches for primes has ended; another one goes on", "pid", at.process.pid(), "err", err)
		at.process = nil
	}
	p.tell(err)
	if u == keyspec.Ahead {
		return nil, err
	}
	p.inside.Add(1)
	return s.Generate()
}

// tell tells the log, once in a while, that processes cannot be used.
func (p *Processes) tell(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.told.IsZero() || time.Since(p.told) >= tellEvery {
		p.told = time.Now()
		p.log.Error("processes that search for primes cannot be used: the server makes the key pairs itself when they are wanted, which slows other "+
			"requests, and has none ready", "err", err)
	}
}

// Close ends the processes. Generate must not be called any more, and those calls be over whose contexts have ended.
func (p *Processes) Close() {
	for _, seats := range p.seats {
		for range cap(seats) {
			if at := <-seats; at.process != nil {
				at.process.end()
				p.running.Add(-1)
			}
		}
	}
	p.spawner.close()
}

// Stats are what an operator wants to know of the processes.
type Stats struct {
	Running int   // processes that there are
	Ended   int64 // that have ended by themselves
	Inside  int64 // pairs that the server had to make itself
}

// Stats returns what is known now.
func (p *Processes) Stats() Stats {
	return Stats{Running: int(p.running.Load()), Ended: p.ended.Load(), Inside: p.inside.Load()}
}

var errAnswer = errors.New("the answer of a process cannot be read")
