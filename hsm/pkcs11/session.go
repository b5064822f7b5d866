package pkcs11

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// A session is one session with the token, open or to be opened when it is next needed, and room for one operation.
type session struct {
	pool   *pool
	handle p11.SessionHandle
	open   bool

	// number counts the sessions that were opened, this one included; seen is how many there were when the session was last lent. See [openings].
	number, seen uint64

	// sound is set by a function that fails after it has proved that the session still works, so that it is kept.
	sound bool

	// renewed says that the session was replaced while it was lent, because the one before was stuck in an operation.
	renewed bool

	// buf is where sealed text is made and opened text arrives, with room for an IV that the device appends. It holds nothing between two uses.
	buf [hsm.IVSize + hsm.MaxPlaintext + hsm.TagSize + appendedRoom]byte
}

// trusts reports whether k may be used on s without another proof. What a handle names can only change with a reconnect, which ends all
// sessions. So a handle that was proved when s was open already names on s what it named then, as long as s works; where s was opened later,
// a reconnect that nobody has noticed yet may have come between.
func (s *session) trusts(k *key) bool { return k.proved && k.seen >= s.number }

// openings knows the sessions of a token, of all its pools.
//
// After a reconnect the token may give the number of a lost session to a new one, so that a session which nobody has found lost yet comes to
// work again, with handles that name other keys. So as soon as one session is found lost, no session that was opened before is used any more;
// and a new one that has the number of one that should be open shows that that one is lost.
type openings struct {
	opened, lost atomic.Uint64 // how many sessions were opened; up to which of them none is used any more

	mu     sync.Mutex // held for a look into the map
	holder map[p11.SessionHandle]*session
}

// begin notes that s was opened with handle h.
func (o *openings) begin(s *session, h p11.SessionHandle) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.holder[h] != nil {
		o.lose()
	}
	o.holder[h] = s
	s.handle, s.open, s.number = h, true, o.opened.Add(1)
}

// end notes that s is not used any more, and reports whether its handle is still its own.
func (o *openings) end(s *session) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	s.open = false
	if o.holder[s.handle] != s {
		return false
	}
	delete(o.holder, s.handle)
	return true
}

// lose gives up all sessions that are open. One that was opened meanwhile is not the worse for it.
func (o *openings) lose() {
	for now := o.opened.Load(); ; {
		before := o.lost.Load()
		if now <= before || o.lost.CompareAndSwap(before, now) {
			return
		}
	}
}

// valid reports whether s is not known to be lost.
func (o *openings) valid(s *session) bool { return s.number > o.lost.Load() }

// A pool lends a fixed number of sessions.
type pool struct {
	module   module
	openings *openings
	idle     chan *session // as many as there are sessions, so that giving one back never waits
	closed   chan struct{}
}

func newPool(m module, o *openings, closed chan struct{}, n int) *pool {
	p := &pool{module: m, openings: o, idle: make(chan *session, n), closed: closed}
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
//
// When the session is found lost while f runs, what f did may have been done with other keys than those it meant, and with fails.
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
	if err == nil && !p.openings.valid(s) {
		err = errLost
	}
	if err != nil && !s.sound {
		if lost(err) && p.openings.valid(s) { // the first to notice
			p.openings.lose()
		}
		p.drop(s, err)
	}
	return err
}

// errLost is what becomes of work that was done while its session was found lost.
var errLost = &Error{
	Function: "C_GetSessionInfo (not called)", Code: p11.CKR_SESSION_HANDLE_INVALID, Kind: hsm.ErrUnavailable,
	Detail: "another session was found lost meanwhile, so that this one is not trusted either",
}

// ready makes s an open session that works, as far as can be known without using it.
func (p *pool) ready(s *session) error {
	if s.open && !p.openings.valid(s) {
		p.drop(s, nil)
	}
	if !s.open {
		h, err := p.module.openSession()
		if err != nil {
			return err
		}
		p.openings.begin(s, h)
	}
	s.seen = p.openings.opened.Load()
	return nil
}

// drop closes s, on which err happened. The answer does not matter: either way it will not be used again.
func (p *pool) drop(s *session, err error) {
	if s.open && p.openings.end(s) && !gone(err) {
		_ = p.module.closeSession(s.handle)
	}
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
