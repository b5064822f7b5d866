package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"strongroom/hsm"
	"strongroom/hsm/pkcs11"
)

// beat is how often a worker says that it lives.
func (c *Config) beat() time.Duration { return max(c.CallTimeout/4, 10*time.Millisecond) }

// shortLife is how long a worker has to live for its successor to be started at once. The others are started brief later, so that a library that
// crashes with every call does not keep the machine busy.
const (
	shortLife = time.Second
	brief     = 100 * time.Millisecond

	// stuckFor is how long a worker that was killed may take to end before another is started in its place.
	stuckFor = 5 * time.Second
)

// keep keeps one worker: when it ends, another is started. p is open already, or nil.
func (d *Device) keep(ctx context.Context, p *process) {
	for {
		if p == nil {
			var err error
			if p, err = d.open(ctx); err != nil {
				if d.given(err) || ctx.Err() != nil {
					return
				}
				if d.crowded(err) {
					d.waitWhileServed(ctx, crowdedFor)
				}
				continue
			}
		}
		born := time.Now()
		select {
		case <-p.dead:
		case <-p.killed:
			d.remove(p)
			select {
			case <-p.dead:
			case <-time.After(stuckFor): // in the kernel, where nothing can be done about it
			}
		case <-ctx.Done():
			p.dismiss()
		}
		d.remove(p)
		if ctx.Err() != nil {
			return
		}
		d.stats.ended(p.why())
		d.log.Warn("a worker of the HSM has ended; it is replaced", "pid", p.cmd.Process.Pid, "after", time.Since(born).Round(time.Millisecond), "err", p.why())
		p = nil
		if time.Since(born) < shortLife && !wait(ctx, brief) {
			return
		}
	}
}

// crowdedFor is how long a worker that found no session with a token which others have open waits before it tries again.
const crowdedFor = time.Minute

// crowded reports whether err says that the token has no sessions for another worker beside those that have it open.
func (d *Device) crowded(err error) bool {
	// CloudHSM says CKR_ARGUMENTS_BAD.
	e, ok := errors.AsType[*pkcs11.Error](err)
	if !ok || e.Function != "C_OpenSession" || e.Code != ckrSessionCount && e.Code != ckrArgumentsBad {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.ready) > 0 {
		d.log.Warn("the token gives no sessions to another worker; the others go on without it. Set hsm.workers or hsm.sessions lower",
			"workers", len(d.ready), "err", err)
		return true
	}
	return false
}

// Two values of PKCS #11 v2.40, section 5.1.6.
const (
	ckrArgumentsBad = 0x07
	ckrSessionCount = 0xB1
)

// waitWhileServed waits, but not longer than others have the token open.
func (d *Device) waitWhileServed(ctx context.Context, long time.Duration) {
	for until := time.Now().Add(long); time.Now().Before(until) && wait(ctx, long/60); {
		d.mu.Lock()
		served := len(d.ready) > 0
		d.mu.Unlock()
		if !served {
			return
		}
	}
}

// given reports whether there is no use in trying again.
func (d *Device) given(err error) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed || d.refused != nil || err == errClosed
}

// wait waits, and reports whether ctx has not ended.
func wait(ctx context.Context, long time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(long):
		return ctx.Err() == nil
	}
}

// open starts a worker and waits until it has the token open. Attempts are made one at a time, and after a failed one not before
// [Config].Retry is over.
func (d *Device) open(ctx context.Context) (*process, error) {
	d.opening.Lock()
	defer d.opening.Unlock()
	if !wait(ctx, time.Until(d.login.next)) {
		return nil, errClosed
	}
	d.mu.Lock()
	refused, closed := d.refused, d.closed
	d.mu.Unlock()
	if closed {
		return nil, errClosed
	}
	if refused != nil {
		return nil, refused
	}
	began := time.Now()
	p, o := d.attempt(ctx)
	err := d.login.ended(p, o.err)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		if d.why != nil && !d.away.IsZero() {
			d.log.Info("the token is open again", "token", o.info.String(), "away", time.Since(d.away).Round(time.Millisecond))
		}
		d.login.failing = time.Time{}
		d.login.slowest = max(o.slowest, d.login.slowest*3/4)
		d.info, d.away, d.why = o.info, time.Time{}, nil
		d.ready = append(d.ready, p)
		d.stats.opened++
		d.announce()
		return p, nil
	}
	d.login.next = began.Add(d.login.rest(d.config.Retry))
	if d.login.failing.IsZero() {
		d.login.failing = began
	}
	d.stats.failed++
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	refusal := errors.Is(err, pkcs11.ErrPINWrong)
	if refusal {
		d.refused, d.why = err, err
		d.pin.wipe()
		d.announce()
	}
	switch {
	case !d.login.accepted: // Open returns it
	case refusal:
		d.log.Error("the token refused the PIN; strongroom does not try it again by itself, and answers nothing that needs the HSM once its "+
			"workers have ended. Correct the PIN and start strongroom again", "err", err)
	case d.why == nil || d.why.Error() != err.Error() && time.Since(d.login.told) > tellEvery:
		d.login.told = time.Now()
		d.log.Error("the token cannot be opened; it is tried again until it can", "every", d.config.Retry, "err", err)
		d.why = err
	default:
		d.why = err
	}
	return nil, err
}

// tellEvery is how often the log is told why the token cannot be opened, where the reason is another one each time.
const tellEvery = 10 * time.Second

// attempt starts one worker and waits for what comes of it.
func (d *Device) attempt(ctx context.Context) (*process, opened) {
	s := settingOf(d.config.Token)
	s.Sessions = (s.Sessions + d.config.Workers - 1) / d.config.Workers
	s.Call, s.Slow, s.Beat = d.config.CallTimeout, d.config.SlowTimeout, d.config.beat()
	s.OpeningCall, s.OpeningSlow = d.openingLimits()
	s.Uncertain = d.login.unanswered > 0 || d.config.Token.PINUncertain != nil && d.config.Token.PINUncertain()
	p, err := d.start(s, func() ([]byte, func(error), error) {
		pin, err := d.pin.get()
		if err != nil {
			return nil, nil, err
		}
		answered := func(error) {}
		if try := d.config.Token.TryPIN; try != nil {
			if answered, err = try(pin); err != nil {
				clear(pin)
				return nil, nil, err
			}
		}
		return pin, answered, nil
	})
	if err != nil {
		return nil, opened{err: unavailable("%v", err)}
	}
	select {
	case o := <-p.opened:
		if o.err != nil {
			p.kill(o.err)
			<-p.dead
		}
		return p, o
	case <-ctx.Done():
		p.kill(ctx.Err())
		<-p.dead
		return p, opened{err: ctx.Err()}
	}
}

// Once the token was open, opening it again takes about as long. So a call that takes ten times as long as the slowest did counts as hung, which finds out
// sooner that the HSM is back when a call was begun while it was away. After a while without success the limits are the configured ones again, in case the HSM
// has become slow.
const (
	hungFactor   = 10
	hungLeast    = 400 * time.Millisecond
	hungTrustFor = 2 * time.Minute
)

func (d *Device) openingLimits() (call, slow time.Duration) {
	call, slow = d.config.CallTimeout, d.config.SlowTimeout
	if d.login.slowest == 0 || !d.login.failing.IsZero() && time.Since(d.login.failing) > hungTrustFor {
		return call, slow
	}
	limit := max(hungLeast, hungFactor*d.login.slowest)
	return min(call, limit), min(slow, limit)
}

// A login is what is known of attempts to open the token. It is used by who holds opening.
type login struct {
	next       time.Time     // when the next attempt may begin
	told       time.Time     // when the log was last told that an attempt failed
	slowest    time.Duration // of the calls that it took to open the token
	failing    time.Time     // since when all attempts have failed; zero if the last one did not
	accepted   bool          // the PIN was right, at least once
	unanswered int           // how many times in a row nobody knows whether it was: it may have been wrong, and counted
}

// ended keeps what the end of an attempt says about the PIN, and returns the attempt's error.
func (l *login) ended(p *process, err error) error {
	if p == nil {
		return err
	}
	answered := p.granted.Swap(nil)
	switch {
	case answered == nil:
	case err == nil || p.loggedIn.Load():
		l.accepted, l.unanswered = true, 0
		(*answered)(nil)
	case errors.Is(err, pkcs11.ErrPINWrong):
		l.unanswered = 0
		(*answered)(err)
	default:
		l.unanswered++
		(*answered)(err)
		if !l.accepted {
			// It is not known to be right. To try it again could be the second mistake.
			return fmt.Errorf("%w: nobody knows whether the PIN is right, which is not tried again by itself since it was never right before: %v",
				hsm.ErrUnavailable, err)
		}
	}
	return err
}

// rest is how long after an attempt the next one begins: longer each time that nobody knows whether the PIN was counted as wrong, since the token
// may not tell.
func (l *login) rest(retry time.Duration) time.Duration {
	return min(retry<<min(l.unanswered, 10), max(retry, 30*time.Second))
}

// remove takes a worker away from those that are ready.
func (d *Device) remove(p *process) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.Index(d.ready, p)
	if i < 0 {
		return
	}
	d.ready = slices.Delete(d.ready, i, i+1)
	if len(d.ready) == 0 {
		d.away = time.Now()
		d.why = p.why()
		d.announce()
	}
}
