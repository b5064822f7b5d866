package pkcs11

import (
	"context"
	"sync"
	"time"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// Patience says how long calls into a module may take before they count as hung. A hung call cannot be ended and never comes back on some
// modules, so all that helps is to end the process: that is for Hung to do.
type Patience struct {
	Call time.Duration // of a function on the path of most requests: encryption, signatures, random bytes, opening a session
	Find time.Duration // of a search for objects, which some requests have to wait for; as Slow if 0
	Slow time.Duration // of the others: initialising, logging in, making and destroying

	// Hung is called, once, when a call takes longer, with the name of the function as the standard has it.
	Hung func(function string, after time.Duration)
}

// A watchdog knows which calls are in the module. It counts in ticks of its own, not by the clock alone, so that a machine that stands still for a
// while, or is far too busy, is not taken for a module that hangs.
type watchdog struct {
	mu      sync.Mutex // held for a look into the map
	calls   map[uint64]*call
	last    uint64
	slowest time.Duration // of the calls that have ended
	limits  Patience
	ended   chan struct{}
}

type call struct {
	function string
	pace     pace
	begun    time.Time
	ticks    int
}

// A pace says which limit of a [Patience] is a call's.
type pace byte

const (
	quick pace = iota
	find
	slow
)

// limit returns how long a call of a pace may take.
func (p *Patience) limit(of pace) time.Duration {
	switch {
	case of == quick:
		return p.Call
	case of == find && p.Find != 0:
		return p.Find
	}
	return p.Slow
}

// ticksPerLimit is how often a watchdog looks within the time that a call may take.
const ticksPerLimit = 8

// watch starts a watchdog, which watches until end, or returns nil if there is nobody to tell.
func watch(p Patience) *watchdog {
	if p.Hung == nil {
		return nil
	}
	w := &watchdog{calls: make(map[uint64]*call), limits: p, ended: make(chan struct{})}
	go w.run()
	return w
}

func (w *watchdog) end() {
	if w != nil {
		close(w.ended)
	}
}

// set changes the limits from now on.
func (w *watchdog) set(p Patience) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.Hung = w.limits.Hung
	w.limits = p
}

// longest returns how long the slowest call has taken so far.
func (w *watchdog) longest() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.slowest
}

func (w *watchdog) run() {
	for {
		w.mu.Lock()
		tick := min(w.limits.Call, w.limits.Slow) / ticksPerLimit
		w.mu.Unlock()
		select {
		case <-w.ended:
			return
		case <-time.After(tick):
		}
		if c, after := w.look(tick); c != nil {
			w.mu.Lock()
			hung := w.limits.Hung
			w.mu.Unlock()
			hung(c.function, after)
			return
		}
	}
}

// look returns a call that has been in the module for too long.
func (w *watchdog) look(tick time.Duration) (*call, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.calls {
		limit := w.limits.limit(c.pace)
		c.ticks++
		if after := time.Since(c.begun); after > limit && time.Duration(c.ticks)*tick >= limit {
			return c, after
		}
	}
	return nil, 0
}

// in notes that a call goes into the module; the function that it returns notes that it came out.
func (w *watchdog) in(function string, at pace) (out func()) {
	if w == nil {
		return func() {}
	}
	c := &call{function: function, pace: at, begun: time.Now()}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last++
	id := w.last
	w.calls[id] = c
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.slowest = max(w.slowest, time.Since(c.begun))
		delete(w.calls, id)
	}
}

// watched is a module whose calls are watched.
type watched struct {
	module
	dog *watchdog
}

func (w watched) info() (Info, uint, error) {
	defer w.dog.in("C_GetTokenInfo", quick)()
	return w.module.info()
}

func (w watched) sessionLimit() (uint, error) {
	defer w.dog.in("C_GetTokenInfo", quick)()
	return w.module.sessionLimit()
}

func (w watched) mechanisms() ([]uint, error) {
	defer w.dog.in("C_GetMechanismList", quick)()
	return w.module.mechanisms()
}

func (w watched) openSession() (p11.SessionHandle, error) {
	defer w.dog.in("C_OpenSession", quick)()
	return w.module.openSession()
}

func (w watched) closeSession(s p11.SessionHandle) error {
	defer w.dog.in("C_CloseSession", quick)()
	return w.module.closeSession(s)
}

func (w watched) sessionState(s p11.SessionHandle) (uint, error) {
	defer w.dog.in("C_GetSessionInfo", quick)()
	return w.module.sessionState(s)
}

func (w watched) login(s p11.SessionHandle, pin []byte) error {
	defer w.dog.in("C_Login", slow)()
	return w.module.login(s, pin)
}

func (w watched) find(s p11.SessionHandle, template []*p11.Attribute) ([]p11.ObjectHandle, error) {
	defer w.dog.in("C_FindObjects", find)()
	return w.module.find(s, template)
}

func (w watched) attributes(s p11.SessionHandle, o p11.ObjectHandle, types ...uint) ([]*p11.Attribute, error) {
	defer w.dog.in("C_GetAttributeValue", quick)()
	return w.module.attributes(s, o, types...)
}

func (w watched) generate(template []*p11.Attribute) error {
	defer w.dog.in("C_GenerateKey", slow)()
	return w.module.generate(template)
}

func (w watched) generateOn(s p11.SessionHandle, template []*p11.Attribute) (p11.ObjectHandle, error) {
	defer w.dog.in("C_GenerateKey", slow)()
	return w.module.generateOn(s, template)
}

func (w watched) generatePair(public, private []*p11.Attribute) error {
	defer w.dog.in("C_GenerateKeyPair", slow)()
	return w.module.generatePair(public, private)
}

func (w watched) create(s p11.SessionHandle, template []*p11.Attribute) (p11.ObjectHandle, error) {
	defer w.dog.in("C_CreateObject", slow)()
	return w.module.create(s, template)
}

func (w watched) duplicate(s p11.SessionHandle, o p11.ObjectHandle) (p11.ObjectHandle, error) {
	defer w.dog.in("C_CopyObject", slow)()
	return w.module.duplicate(s, o)
}

func (w watched) destroy(s p11.SessionHandle, o p11.ObjectHandle) error {
	defer w.dog.in("C_DestroyObject", slow)()
	return w.module.destroy(s, o)
}

func (w watched) random(ctx context.Context, p []byte) error {
	defer w.dog.in("C_GenerateRandom", quick)()
	return w.module.random(ctx, p)
}

func (w watched) encrypt(s p11.SessionHandle, key p11.ObjectHandle, iv *[hsm.IVSize]byte, out, plaintext, aad []byte) (int, bool, error) {
	defer w.dog.in("C_Encrypt", quick)()
	return w.module.encrypt(s, key, iv, out, plaintext, aad)
}

func (w watched) decrypt(s p11.SessionHandle, key p11.ObjectHandle, iv *[hsm.IVSize]byte, out, ciphertext, aad []byte) (int, error) {
	defer w.dog.in("C_Decrypt", quick)()
	return w.module.decrypt(s, key, iv, out, ciphertext, aad)
}

func (w watched) sign(s p11.SessionHandle, key p11.ObjectHandle, digest []byte) ([]byte, error) {
	defer w.dog.in("C_Sign", quick)()
	return w.module.sign(s, key, digest)
}
