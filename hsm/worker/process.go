package worker

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"strongroom/hsm/pkcs11"
)

// A process is one worker, from its start until it has ended and nothing of it is left.
//
// Calls go over lanes, sockets on which one call at a time is made and answered; all else goes over control.
type process struct {
	cmd     *exec.Cmd
	control socket
	lanes   chan *lane // that are free
	all     []*lane
	line    *line         // for data and random bytes, instead of lanes, if the token is quick; set before it is ready
	common  chan struct{} // one for each lane that calls other than for data may take

	mu     sync.Mutex // held for a look, and for a message to control
	reason error      // why it ended, once it has; or why it is to
	gone   bool       // control is closed

	flying atomic.Int64 // calls that it has not answered, and those that it was picked for
	heard  atomic.Int64 // frames that came from it on control

	granted  atomic.Pointer[func(error)] // it was given the PIN: to be told what came of that, once
	loggedIn atomic.Bool                 // the PIN was right

	opened   chan opened   // one value, when the token is open, or is not
	received chan struct{} // closed when all that it said on control has been heard
	dead     chan struct{} // closed when the process has been waited for
	killing  sync.Once
	killed   chan struct{} // closed when it was told to end at once
}

// A lane is one call at a time.
type lane struct {
	reader
	out    frame
	broken bool
}

// commonLanes are for what finds, makes and destroys keys, checks, signs and gives random bytes, beside those that there are for each session.
const commonLanes = 4

// opened is how a worker has begun.
type opened struct {
	info    pkcs11.Info
	slowest time.Duration // of the calls into the module that opening took
	err     error
}

// errDied is in every error of a call whose worker ended before it answered.
var errDied = errors.New("the worker ended")

// start starts a worker and tells it what to open. pin is called when it wants the PIN, and its result is wiped.
func (d *Device) start(s setting, pin func() ([]byte, func(error), error)) (*process, error) {
	s.Lanes = s.Sessions + commonLanes
	p := &process{
		control: -1,
		lanes:   make(chan *lane, s.Lanes),
		common:  make(chan struct{}, commonLanes),

		opened:   make(chan opened, 1),
		received: make(chan struct{}),
		dead:     make(chan struct{}),
		killed:   make(chan struct{}),
	}
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	pair := func(typ int) (socket, error) {
		fds, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return -1, fmt.Errorf("making a socket: %w", err)
		}
		theirs = append(theirs, os.NewFile(uintptr(fds[1]), "socket"))
		return socket(fds[0]), nil
	}
	said, saying, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer saying.Close()
	// On control a message may follow another, so that they are kept apart.
	p.control, err = pair(unix.SOCK_SEQPACKET)
	for range s.Lanes {
		if err != nil {
			break
		}
		l := &lane{}
		if l.socket, err = pair(unix.SOCK_STREAM); err == nil {
			p.all = append(p.all, l)
			p.lanes <- l
		}
	}
	if err == nil {
		p.cmd = &exec.Cmd{
			Path:       d.config.Args[0],
			Args:       d.config.Args,
			Env:        d.config.Env,
			Stdout:     saying, // some modules talk
			Stderr:     saying,
			ExtraFiles: theirs,
			SysProcAttr: &syscall.SysProcAttr{
				Pdeathsig: syscall.SIGKILL,
				Setpgid:   true, // Ctrl-C on the terminal is for the server, which tells its workers
			},
		}
		if err = d.spawner.start(p.cmd); err != nil {
			err = fmt.Errorf("starting a worker: %w", err)
		}
	}
	if err != nil {
		said.Close()
		p.control.close()
		for _, l := range p.all {
			l.close()
		}
		return nil, err
	}
	go d.listen(p, said)
	go p.receive(pin)
	go p.watch(s.Beat)
	go p.wait()
	b, err := json.Marshal(s)
	if err == nil {
		err = p.tell(kindOpen, b)
	}
	if err != nil {
		p.kill(fmt.Errorf("telling a worker what to open: %w", err))
	}
	return p, nil
}

// tell writes a message to control. There are two: what to open, and the PIN.
func (p *process) tell(k kind, b []byte) error {
	var f frame
	defer f.wipe()
	f.begin(k)
	f.rest(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return errDied
	}
	return p.control.write(&f)
}

// hangUp tells the process that there is nothing more to come.
func (p *process) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.gone {
		unix.Shutdown(int(p.control), unix.SHUT_WR)
	}
}

// listen logs what the process prints: a module's messages, or Go's when it crashes.
func (d *Device) listen(p *process, said *os.File) {
	go func() { // whatever the process has started may hold the other end
		<-p.dead
		time.Sleep(time.Second)
		said.Close()
	}()
	lines := bufio.NewScanner(io.LimitReader(said, 1<<20))
	for n := 0; lines.Scan(); n++ {
		if n < 100 { // a crash of Go prints more than anybody reads
			d.log.Warn("a worker of the HSM says", "pid", p.cmd.Process.Pid, "text", lines.Text())
		}
	}
	io.Copy(io.Discard, said)
}

// kill ends the process for a reason, the first of which counts.
func (p *process) kill(reason error) {
	p.end(reason)
	p.cmd.Process.Kill()
	p.killing.Do(func() { close(p.killed) })
}

// end keeps the reason for which the process ends, or is to.
func (p *process) end(reason error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reason == nil {
		p.reason = reason
	}
}

func (p *process) why() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reason
}

// wait waits for the end of the process, and then for nothing more of it: what it was doing is not done any more.
func (p *process) wait() {
	p.cmd.Wait()
	// Whatever it has started may have its ends of the sockets, so that nobody waits for those to close.
	p.control.shutdown()
	<-p.received
	p.mu.Lock()
	p.gone = true
	p.control.close()
	p.mu.Unlock()
	p.end(fmt.Errorf("worker %d ended by itself: %s", p.cmd.Process.Pid, p.cmd.ProcessState))
	close(p.dead)
	select {
	case p.opened <- opened{err: unavailable("%v", p.why())}:
	default:
	}
	for _, l := range p.all {
		l.shutdown()
	}
	free := len(p.all)
	if p.line != nil {
		p.line.finish()
		free--
	}
	for range free { // they come back one by one
		(<-p.lanes).close()
	}
}

// receive reads what the process says on control, until it ends.
func (p *process) receive(pin func() ([]byte, func(error), error)) {
	defer close(p.received)
	in := reader{socket: p.control}
	for {
		k, body, err := in.next()
		if err != nil {
			p.cmd.Process.Kill() // it has ended, or is of no use without its socket
			return
		}
		p.heard.Add(1)
		switch k {
		case kindAskPIN:
			go p.answerPIN(pin) // somebody may have to type it
		case kindReady:
			var o opened
			o.slowest = time.Duration(body.number())
			if body.number() == 1 {
				p.line = &line{lane: <-p.lanes}
			} else {
				var err error
				for _, l := range p.all {
					err = cmp.Or(err, l.park())
				}
				if err != nil {
					p.kill(fmt.Errorf("waiting for a worker in the poller: %w", err))
					return
				}
			}
			if err := json.Unmarshal(body.bytes(), &o.info); err != nil || body.err != nil {
				p.kill(errMessage)
				return
			}
			p.opened <- o
		case kindLoggedIn:
			p.loggedIn.Store(true)
		case kindFailed:
			err, _ := takeError(&body)
			p.end(err)
			p.opened <- opened{err: err}
		case kindHung:
			function := body.string()
			p.end(fmt.Errorf("%w: %s, after %v", errHung, function, time.Duration(body.number()).Round(time.Millisecond)))
		}
	}
}

// answerPIN gives the process the PIN, if it may have it. answered is told what came of that.
func (p *process) answerPIN(grant func() (pin []byte, answered func(error), err error)) {
	pin, answered, err := grant()
	if err != nil {
		select {
		case p.opened <- opened{err: err}:
		default:
		}
		p.kill(err)
		return
	}
	p.granted.Store(&answered)
	p.tell(kindPIN, pin)
	clear(pin)
	select {
	case <-p.dead:
		// Whoever has seen to its end may have done so before there was anybody to tell.
		if answered := p.granted.Swap(nil); answered != nil {
			(*answered)(errDied)
		}
	default:
	}
}

// beats is how many signs of life may be missing before a process is taken to be stopped.
const beats = 4

// watch kills the process when it says nothing any more. It counts by its own ticks, so that a machine that stands still is not taken for a
// worker that does.
func (p *process) watch(beat time.Duration) {
	t := time.NewTicker(beat)
	defer t.Stop()
	heard, silent := int64(0), 0
	for {
		select {
		case <-p.dead:
			return
		case <-t.C:
		}
		silent++
		if now := p.heard.Load(); now != heard {
			heard, silent = now, 0
		}
		if silent > beats {
			p.kill(fmt.Errorf("worker %d gave no sign of life for %v", p.cmd.Process.Pid, time.Duration(silent)*beat))
			return
		}
	}
}

// call makes a call and waits for its answer, alone or, where that is quicker, together with others: put appends the arguments, and take reads the
// answer. The error is errDied when the process ended before it answered, or the context's when no lane became free.
//
// A call that was begun is waited for, whatever becomes of the context: it ends, or its worker does. The worker is told how long it may wait for a
// session. Whoever makes one has counted it in flying, so that the next to pick a worker sees it.
func (p *process) call(ctx context.Context, k kind, alone bool, put func(*frame), take func(k kind, answer *fields) error) error {
	defer p.flying.Add(-1)
	if p.line != nil && !alone && k.inLine() {
		return p.line.call(ctx, p, k, put, take)
	}
	if k != kindSeal && k != kindOpenSealed {
		select {
		case p.common <- struct{}{}:
			defer func() { <-p.common }()
		case <-p.dead:
			return errDied
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var l *lane
	select {
	case l = <-p.lanes:
	case <-p.dead:
		return errDied
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() {
		if l.wipe(); l.broken {
			l.forget()
		}
		p.lanes <- l
	}()
	l.out.begin(k)
	l.out.number(milliseconds(ctx))
	put(&l.out)
	err := l.write(&l.out)
	var answer fields
	if err == nil {
		k, answer, err = l.next()
	}
	if err != nil {
		l.broken = true
		return p.lost(ctx)
	}
	return take(k, &answer)
}

// lost waits for the end of a process whose socket has ended: before that, it may still be doing what it was told.
func (p *process) lost(ctx context.Context) error {
	p.cmd.Process.Kill()
	select {
	case <-p.dead:
		return errDied
	case <-ctx.Done(): // it is stuck in the kernel
		return ctx.Err()
	}
}

// milliseconds returns how long a call may take, as a worker is told it.
func milliseconds(ctx context.Context) uint64 {
	deadline, ok := ctx.Deadline()
	if !ok {
		return uint64(time.Hour / time.Millisecond)
	}
	return uint64(max(1, time.Until(deadline)/time.Millisecond))
}
