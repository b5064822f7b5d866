package pkcs11

import (
	"context"
	"fmt"
	"sync/atomic"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// A session is one session with the token, open or to be opened when it is next needed, and room for one operation.
type session struct {
	pool   *pool
	handle p11.SessionHandle
	open   bool

	// epoch is the one in which the session was last known to work. See [Token].epoch.
	epoch uint64

	// sound is set by a function that fails after it has proved that the session still works, so that it is kept.
	sound bool

	// renewed says that the session was replaced while it was lent, because the one before was stuck in an operation.
	renewed bool

	// buf is where sealed text is made and opened text arrives. It holds nothing between two uses.
	buf [hsm.IVSize + hsm.MaxPlaintext + hsm.TagSize]byte
}

// A pool lends a fixed number of sessions.
type pool struct {
	module module
	epoch  *atomic.Uint64
	idle   chan *session // as many as there are sessions, so that giving one back never waits
	closed chan struct{}
}

func newPool(m module, epoch *atomic.Uint64, closed chan struct{}, n int) *pool {
	p := &pool{module: m, epoch: epoch, idle: make(chan *session, n), closed: closed}
	for range n {
		p.idle <- &session{pool: p}
	}
	return p
}

// with runs f with a session that nobody else is using, and is the only way to one. A session remembers the operation in
// progress on it, so two operations must never share one (PKCS #11 v2.40, section 6.7).
//
// The context bounds the wait for a session. A call already inside the module cannot be interrupted and runs to its end.
//
// When f fails, the session is thrown away, because nobody knows what is still in progress on it, unless f has found it to
// be sound. Its place stays: the next user opens a new one there. So no number of failures makes the pool smaller.
func (p *pool) with(ctx context.Context, f func(s *session) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var s *session
	select {
	case s = <-p.idle:
	case <-p.closed:
		return errClosed
	case <-ctx.Done():
		return fmt.Errorf("%w: no session became free: %w", hsm.ErrUnavailable, ctx.Err())
	}
	defer func() { p.idle <- s }()
	select {
	case <-p.closed:
		return errClosed
	default:
	}

	if err := p.ready(s); err != nil {
		return err
	}
	s.sound, s.renewed = false, false
	err := f(s)
	if err != nil && !s.sound {
		if lost(err) {
			// Only the first to notice begins a new epoch; the others have sessions of the same old one.
			p.epoch.CompareAndSwap(s.epoch, s.epoch+1)
		}
		p.drop(s, err)
	}
	return err
}

// ready makes s an open session that works, as far as can be known without using it.
func (p *pool) ready(s *session) error {
	now := p.epoch.Load()
	if s.open && s.epoch != now {
		// Another session was lost. This one need not be: it is asked, rather than closed, because the token may have given
		// the number of a lost session to a new one.
		if _, err := p.module.sessionState(s.handle); err != nil {
			p.drop(s, err)
		}
	}
	if !s.open {
		h, err := p.module.openSession()
		if err != nil {
			return err
		}
		s.handle, s.open = h, true
	}
	s.epoch = now
	return nil
}

// drop closes s, on which err happened. The answer does not matter: either way it will not be used again.
func (p *pool) drop(s *session, err error) {
	if s.open && !gone(err) {
		_ = p.module.closeSession(s.handle)
	}
	s.open = false
}

// fill opens all sessions, so that a token that does not have so many says so at the start rather than under load.
func (p *pool) fill() error {
	for range cap(p.idle) {
		s := <-p.idle
		err := p.ready(s)
		p.idle <- s
		if err != nil {
			return err
		}
	}
	return nil
}

// renew puts a new session in the place of s, which is lent.
func (p *pool) renew(s *session) error {
	p.drop(s, nil)
	s.renewed = true
	return p.ready(s)
}

// drain takes the sessions away, one by one as they come back, and closes them. It reports whether it got them all before
// ctx ended.
func (p *pool) drain(ctx context.Context) bool {
	for range cap(p.idle) {
		select {
		case s := <-p.idle:
			p.drop(s, nil)
		case <-ctx.Done():
			return false
		}
	}
	return true
}

var errClosed = fmt.Errorf("%w: the token was closed", hsm.ErrUnavailable)
