// Package pkcs11 keeps the contract of package hsm with any token behind a PKCS #11 module: keys are AES-256 objects of the
// token that were made there and do not leave it, and AES-GCM is the token's. So are the private keys of signers, and ECDSA.
//
// It trusts the module to compute correctly, to keep keys secret, and to answer C_GetAttributeValue truthfully. It does not trust
// it to name the same key by the same handle for ever, to tell a bad ciphertext from a broken device, to find what is there, or
// to survive an error; see [Token.resolve], [Token.judge], [Token.believe] and [pool.with].
//
// A PKCS #11 library is initialised once for a whole process, and so is its login. Hence a process has one open Token at most. A
// library that has lost its device cannot be initialised again safely while calls may hang in it, so that is not tried: the
// Token answers hsm.ErrUnavailable until the process is replaced, which is for package worker. Sessions that are lost one by one are replaced here.
package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// A Token is an open token, logged in. It is safe for concurrent use, Close included.
type Token struct {
	module module
	info   Info
	flags  uint // of the token, CKF_*, right before the login
	disk   disk
	iv     IVSource // constant after opening

	// openings knows which sessions are open. Handles are proved again before they are used on sessions that were opened after they were
	// proved: after a reconnect a handle may name another key.
	openings openings

	// data has the sessions for Seal, Open and Sign. admin has one, so that whoever uses it is alone in finding, making, describing
	// and destroying objects. Nobody waits for one while holding the other.
	data, admin *pool

	// keeper has the session that copies of keys belong to, which end with it; nil without [Config].SessionCopies. It is used under admin, as is
	// uncopied: how many times in a row the session was found lost in copying. Twice, and copying is what loses it, so that there is no more of it.
	keeper   *pool
	uncopied int

	keys   keyring
	canary ref // of the canary key; constant after opening

	dog *watchdog // nil without [Config].Patience

	closing sync.Once
	closed  chan struct{}
	cerr    error  // of the first Close
	release func() // lets the process open another token
}

var _ hsm.Device = (*Token)(nil)

// Open opens an initialised token, logs in, and sees that it works. It makes nothing in the token, and refuses one for which [Init]
// was not called.
//
// The PIN is tried once at most, and not at all if the token says that one more wrong PIN would lock it. If the token
// refuses it, the error is [ErrPIN], and Open must not be called again before somebody has looked.
func Open(ctx context.Context, c Config) (*Token, error) { return open(ctx, c, false) }

// Init is [Open] for a token that was never used: it makes the canary key there, if it is not there yet. It may be repeated.
func Init(ctx context.Context, c Config) (*Token, error) { return open(ctx, c, true) }

// process is what this process has open, or is opening.
var process struct {
	sync.Mutex
	module string
}

// claim gives the process to module, or returns the one that has it.
func claim(module string) (other string, ok bool) {
	process.Lock()
	defer process.Unlock()
	if process.module != "" {
		return process.module, false
	}
	process.module = module
	return "", true
}

func release() {
	process.Lock()
	defer process.Unlock()
	process.module = ""
}

func open(ctx context.Context, c Config, create bool) (*Token, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if other, ok := claim(c.Module); !ok {
		return nil, fmt.Errorf("a token of %s is open in this process already, and a process has one at most", other)
	}
	// A login rewrites a file of SoftHSM's token that others read when they open it, who may then find the token broken, or its
	// PIN not set.
	waiting, cancel := context.WithTimeout(ctx, lockTimeout)
	unlock, err := disk{dir: c.SyncDir}.lock(waiting)
	cancel()
	if err != nil {
		release()
		return nil, err
	}
	defer unlock()
	dog := watch(c.Patience)
	fail := func(err error) (*Token, error) {
		dog.end()
		release()
		return nil, err
	}
	out := dog.in("restoring the token's file", slow)
	err = restoreTokens(c.SyncDir)
	out()
	if err != nil {
		return fail(fmt.Errorf("%w: %v", hsm.ErrUnavailable, err))
	}
	out = dog.in("C_Initialize", slow)
	l, err := openLibrary(c)
	out()
	if err != nil {
		return fail(err)
	}
	m := module(l)
	if dog != nil {
		m = watched{l, dog}
	}
	t, err := newToken(ctx, m, c, create)
	if err == nil {
		out := dog.in("keeping a copy of the token's file", slow)
		err = keepTokens(c.SyncDir)
		out()
	}
	if err != nil {
		out := dog.in("C_Finalize", slow)
		l.close()
		out()
		return fail(fmt.Errorf("opening the token %s: %w", c.token(), err))
	}
	t.dog, t.disk.dog = dog, dog
	t.release = release
	return t, nil
}

// Slowest returns how long the slowest call into the module took so far, of a token that was opened with [Config].Patience.
func (t *Token) Slowest() time.Duration { return t.dog.longest() }

// SetPatience changes how long calls may take, of a token that was opened with [Config].Patience. Hung stays.
func (t *Token) SetPatience(p Patience) { t.dog.set(p) }

// newToken logs in to the token of m and sees that it can be used.
func newToken(ctx context.Context, m module, c Config, create bool) (*Token, error) {
	info, flags, err := m.info()
	if err != nil {
		return nil, err
	}
	if err := mayLogIn(info, flags, c.PINUncertain != nil && c.PINUncertain()); err != nil {
		return nil, err
	}
	if err := hasMechanisms(m, info); err != nil {
		return nil, err
	}
	n, err := sessions(m, c)
	if err != nil {
		return nil, err
	}
	t := &Token{
		module:  m,
		info:    info,
		flags:   flags,
		disk:    disk{dir: c.SyncDir},
		iv:      c.IV,
		closed:  make(chan struct{}),
		release: func() {},
	}
	t.openings.holder = make(map[p11.SessionHandle]*session)
	t.admin = newPool(m, &t.openings, t.closed, 1)
	t.data = newPool(m, &t.openings, t.closed, n)
	if c.SessionCopies {
		t.keeper = newPool(m, &t.openings, t.closed, 1)
	}
	if err := t.login(ctx, c); err != nil {
		return nil, err
	}
	if err := t.data.fill(); err != nil {
		return nil, err
	}
	if create && c.FoundIV != nil {
		if err := t.findIV(ctx, c.FoundIV); err != nil {
			return nil, err
		}
	}
	if err := t.openCanary(ctx, create); err != nil {
		return nil, err
	}
	// One look at everything now, rather than a search for each key later: a search takes as long as there are objects.
	if _, err := t.Objects(ctx); err != nil {
		return nil, err
	}
	if err := t.Check(ctx); err != nil {
		return nil, err
	}
	return t, nil
}

// mayLogIn refuses tokens on which trying a PIN is useless, or would be the last mistake.
func mayLogIn(i Info, flags uint, uncertain bool) error {
	refused := func(code uint, why string) error {
		return &Error{Function: "C_Login (not called)", Code: code, Kind: hsm.ErrUnavailable, Detail: fmt.Sprintf("the token %v %s", i, why)}
	}
	switch {
	case flags&p11.CKF_USER_PIN_INITIALIZED == 0:
		return refused(p11.CKR_USER_PIN_NOT_INITIALIZED, "has no user PIN yet; its security officer has to set one")
	case flags&p11.CKF_USER_PIN_LOCKED != 0:
		return refused(p11.CKR_PIN_LOCKED, "has locked its user PIN; its security officer has to set a new one")
	case flags&p11.CKF_USER_PIN_FINAL_TRY != 0:
		return refused(p11.CKR_PIN_INCORRECT, "would lock its user PIN after one more wrong one, so strongroom does not try; "+
			"log in once with the tools of the HSM and the right PIN")
	case uncertain && flags&p11.CKF_USER_PIN_COUNT_LOW != 0:
		return refused(p11.CKR_PIN_INCORRECT, "counts a wrong PIN since the last right one, and the last attempt with this one had no answer, so "+
			"strongroom does not try again; log in once with the tools of the HSM and the right PIN")
	}
	return nil
}

// hasMechanisms refuses a token that does not list what is done with it. The PIN was not used then.
func hasMechanisms(m module, i Info) error {
	types, err := m.mechanisms()
	if err != nil {
		return err
	}
	var missing []string
	for _, need := range neededMechanisms {
		// What C_GetMechanismInfo says of it is not asked: SoftHSM 2.6.1 leaves bits of its flags uninitialised. The canary shows
		// whether AES-GCM works, and the first signer whether ECDSA does.
		if !slices.Contains(types, need.mechanism) {
			missing = append(missing, need.name)
		}
	}
	if missing != nil {
		return fmt.Errorf("%w: the token %v (%s %s) does not offer %s, without which it cannot be used. hsm/devices/README.md says which devices can be; "+
			"with some it is a setting of theirs", hsm.ErrUnavailable, i, i.Manufacturer, i.Model, strings.Join(missing, ", "))
	}
	return nil
}

// sessions returns how many sessions for data there are to be: as many as c wants, or as the token has beside those for other things.
func sessions(m module, c Config) (int, error) {
	want, others := c.Sessions, 1
	if want == 0 {
		want = defaultSessions
	}
	if c.SessionCopies {
		others++
	}
	limit, err := m.sessionLimit()
	if err != nil {
		return 0, err
	}
	if limit != 0 {
		want = min(want, int(limit)-others)
	}
	if want < 1 {
		return 0, fmt.Errorf("%w: the token has too few sessions: strongroom needs %d at least", hsm.ErrUnavailable, makerSessions+others+1)
	}
	return want, nil
}

// login logs in, on the admin session. The login holds for all sessions of this process, open or to be opened, until the last is closed
// (PKCS #11 v2.40, section 6.7.4); crypto11 keeps one open.
func (t *Token) login(ctx context.Context, c Config) error {
	return t.admin.with(ctx, func(s *session) error {
		pin, err := c.PIN()
		if err != nil {
			return fmt.Errorf("reading the PIN: %w", err)
		}
		defer clear(pin)
		answered := func(error) {}
		if c.TryPIN != nil {
			if answered, err = c.TryPIN(pin); err != nil {
				return err
			}
		}
		err = t.module.login(s.handle, pin)
		answered(err)
		if err != nil {
			return t.explainLogin(err)
		}
		state, err := t.module.sessionState(s.handle)
		if err == nil && state != p11.CKS_RW_USER_FUNCTIONS {
			err = &Error{Function: "C_Login", Kind: hsm.ErrUnavailable, Detail: fmt.Sprintf("it succeeded, but the session is in state %d", state)}
		}
		return err
	})
}

// explainLogin adds to a refused PIN what matters then: which token, that it will not be tried again, and what the token says
// about its patience.
func (t *Token) explainLogin(err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok || !errors.Is(err, ErrPIN) {
		return err
	}
	again := *e
	again.Detail = fmt.Sprintf("the token %v refused the PIN, which will not be tried again: %s", t.info, e.Detail)
	if _, flags, err := t.module.info(); err == nil {
		for _, f := range []struct {
			flag uint
			text string
		}{
			{p11.CKF_USER_PIN_LOCKED, "the PIN is locked now"},
			{p11.CKF_USER_PIN_FINAL_TRY, "one more wrong PIN locks it"},
			{p11.CKF_USER_PIN_COUNT_LOW, "wrong PINs are being counted"},
		} {
			if flags&f.flag != 0 {
				again.Detail += "; " + f.text
				break
			}
		}
	}
	return &again
}

// IV returns who makes the IVs, which Init may have found out.
func (t *Token) IV() IVSource { return t.iv }

// Info returns what the token said of itself when it was opened.
func (t *Token) Info() Info { return t.info }

// lockTimeout is how long Open waits for another process that is opening the token.
const lockTimeout = 30 * time.Second

// closeTimeout is how long Close waits, first for calls to end, and then for the library to close.
const closeTimeout = 5 * time.Second

// Close waits for calls in progress, logs out and closes the module. What is called later fails.
//
// If a call does not end within five seconds, the module stays open, because to finalise it would crash the process, and
// Close returns an error. No other token can be opened in this process then.
func (t *Token) Close() error {
	t.closing.Do(func() { t.cerr = t.close() })
	return t.cerr
}

func (t *Token) close() error {
	close(t.closed)
	defer t.dog.end()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if !t.data.drain(ctx) || !t.admin.drain(ctx) || t.keeper != nil && !t.keeper.drain(ctx) {
		return fmt.Errorf("%w: closing the token: a call in the PKCS#11 module does not end", hsm.ErrUnavailable)
	}
	ctx, cancel = context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- t.module.close() }() // ends when the module lets it
	select {
	case err := <-done:
		t.release()
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: closing the token: the PKCS#11 module does not close", hsm.ErrUnavailable)
	}
}
