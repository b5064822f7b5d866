package pkcs11

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// A Verdict is what came of a question to a token.
type Verdict string

const (
	OK      Verdict = "ok"      // as strongroom needs it, or likes it
	Differs Verdict = "differs" // it works, and in another way than it should
	Missing Verdict = "missing" // the token does not have it
	Failed  Verdict = "failed"  // it should work and does not
	Skipped Verdict = "skipped" // not asked, for the reason in Detail
)

// A Finding is the answer to one question.
type Finding struct {
	Step    string
	Name    string
	Verdict Verdict
	Needed  bool `json:",omitempty"` // anything but OK and Skipped makes the token unusable
	Detail  string
	Remedy  string `json:",omitempty"`
}

// A Report is what was measured of a token.
type Report struct {
	Token    Info
	Slot     uint
	Begun    time.Time
	Findings []Finding

	IV           *IVSource `json:",omitempty"` // nil if no way works, or none was tried
	LeftOut      []string  `json:",omitempty"` // attributes that the token refuses in a template, and that can be done without
	MaxAAD       int       // the longest associated data that was accepted; no longer than what was tried
	MaxPlaintext int
	BadTag       string         // how the token answers a ciphertext that was changed
	Sessions     SessionFigures // how many it has
	Objects      ObjectFigures  // how many keys it holds
	Copies       *CopyFigures   `json:",omitempty"` // nil if the token does not copy keys to sessions
	Load         []LoadFigures

	Fit Fit // the configuration

	// Done are the steps that are over, for a repetition after a crash. See [MeasureOptions].Before.
	Done []string
}

// SessionFigures are about sessions at a time.
type SessionFigures struct {
	Declared uint // by the token; 0 if it says that there is no limit, or does not say
	Opened   int  // beside a few that measuring needs
	Refused  string
}

// ObjectFigures are about keys in the token.
type ObjectFigures struct {
	TotalMemory, FreeMemory uint // bytes, as declared; 0 if the token does not say
	Before                  int  // objects in the token, others' too
	Made                    int
	Refused                 string  `json:",omitempty"` // how the next was refused
	PerKey                  uint    `json:",omitempty"` // bytes of memory that one took, as declared
	CreateMS                float64 // median
	FindMS                  float64 // by id, median
	ListMS                  float64 // of all handles
	DestroyMS               float64 // median
}

// CopyFigures compare a key of the token with a copy of it that belongs to a session.
type CopyFigures struct{ KeyUS, CopyUS float64 } // median of an encryption of 32 bytes, in µs

// LoadFigures are about encryptions at a time.
type LoadFigures struct {
	Bytes, Sessions int
	PerSecond       float64
	P50US, P99US    float64 // µs
	Errors          int     `json:",omitempty"`
	Error           string  `json:",omitempty"` // the first
}

// MeasureOptions say how much is to be measured.
type MeasureOptions struct {
	// Objects is how many keys are made, at most, to see how many the token holds. 0 leaves that out.
	Objects int

	// Sessions is how many encryptions at a time are tried, at most, and MaxSessions how many sessions are opened at all.
	Sessions, MaxSessions int

	// Seconds is how long each count of sessions is measured.
	Seconds float64

	// Before is the report of an earlier measuring of the same token that a crash of the library ended. Its steps are not repeated. Crashed is the step in
	// which that was, and How what is known about it.
	Before       *Report
	Crashed, How string

	// Progress is told of each step before it begins. What it gets is not complete, and is changed later.
	Progress func(r *Report, step string) `json:"-"`
}

// A measurable is a module of which more is asked than a [Token] does.
type measurable interface {
	module
	figures() (tokenFigures, error)
	wrap(s p11.SessionHandle, mechanism uint, by, key p11.ObjectHandle) ([]byte, error)
	query(s p11.SessionHandle, key p11.ObjectHandle, iv, plaintext, aad []byte) ([]byte, error) // AES-GCM with a query for the length first
}

// tokenFigures are what a token says of itself that [Info] has not.
type tokenFigures struct {
	slot                    uint
	sessions                uint // 0 if there is no limit, or it is not known
	totalMemory, freeMemory uint // likewise
	namesakes               int  // tokens of the module with the same label, this one too
}

// A measuring is a measuring in progress. Of the sessions, one owns objects, and one is to be spoilt.
type measuring struct {
	measurable
	options MeasureOptions
	report  *Report
	step    string
	label   string // of all that is made
	open    openings
	closed  chan struct{}
	keeper  *pool
	worker  *pool
}

// The steps in their order. A library that crashes takes the rest of the process with it, so what is known to make one crash comes last.
var measureSteps = []struct {
	name string
	f    func(*measuring, context.Context, *session, *session) error
}{
	{"leftovers", (*measuring).leftovers},
	{"keys", (*measuring).keys},
	{"secrecy", (*measuring).secrecy},
	{"iv", (*measuring).findSource},
	{"gcm", (*measuring).vectors},
	{"sizes", (*measuring).sizes},
	{"bad tag", (*measuring).badTag},
	{"handles", (*measuring).handles},
	{"query", (*measuring).lengthQuery},
	{"signer", (*measuring).signer},
	{"random", (*measuring).randomness},
	{"sessions", (*measuring).countSessions},
	{"objects", (*measuring).countObjects},
	{"copies", (*measuring).copies},
	{"load", (*measuring).load},
	{"empty associated data", (*measuring).emptyAAD},
}

// Measure finds out what a token really does, whether strongroom has ever used it or not, and perhaps while others use it. What it makes there is labelled
// strongroom/check/…, and is destroyed before it returns, also after an error or the end of ctx. What an earlier Measure that was killed has left is
// destroyed first, so that two must not measure one token at the same time.
//
// As with [Open], the PIN is tried once at most. If there is an error, the report has what was found until then.
func Measure(ctx context.Context, c Config, o MeasureOptions) (*Report, error) {
	l, unlock, err := openAlone(ctx, c)
	if err != nil {
		return nil, err
	}
	defer release()
	defer unlock()
	defer l.close()
	return measure(ctx, l, c, o, unlock)
}

// measure calls loggedIn when the login is over.
func measure(ctx context.Context, m measurable, c Config, o MeasureOptions, loggedIn func()) (r *Report, err error) {
	me := &measuring{measurable: m, options: o, report: o.Before, closed: make(chan struct{})}
	me.label = checkPrefix + hsm.ID(randomBytes(16)).String()
	me.open.holder = make(map[p11.SessionHandle]*session)
	me.keeper = newPool(m, &me.open, me.closed, 1)
	me.worker = newPool(m, &me.open, me.closed, 1)
	defer me.keeper.drain(context.WithoutCancel(ctx))
	defer me.worker.drain(context.WithoutCancel(ctx))
	if me.report == nil {
		me.report = &Report{Begun: time.Now().UTC()}
	}
	r = me.report
	defer me.fit(c)

	me.begin("token")
	info, flags, err := m.info()
	if err != nil {
		return r, err
	}
	figures, err := m.figures()
	if err != nil {
		return r, err
	}
	r.Token, r.Slot, r.Sessions.Declared = info, figures.slot, figures.sessions
	r.Objects.TotalMemory, r.Objects.FreeMemory = figures.totalMemory, figures.freeMemory
	if err := mayLogIn(info, flags, c.PINUncertain != nil && c.PINUncertain()); err != nil {
		me.failed("PIN", err, true, "")
		return r, err
	}
	if !slices.Contains(r.Done, "token") {
		me.describe(flags)
		r.Done = append(r.Done, "token")
	}
	me.begin("login")
	t := &Token{module: m, info: info, admin: me.worker}
	if err := t.login(ctx, c); err != nil {
		me.failed("login", err, true, "")
		return r, err
	}
	loggedIn()
	defer func() {
		if cerr := me.cleanUp(context.WithoutCancel(ctx)); cerr != nil {
			err = errors.Join(err, cerr)
		}
	}()
	if o.Crashed != "" && !slices.Contains(r.Done, o.Crashed) {
		me.step = o.Crashed
		me.crashed(o.How)
		r.Done = slices.DeleteFunc(append(r.Done, o.Crashed), func(step string) bool { return step == "leftovers" })
	}
	for _, step := range measureSteps {
		if slices.Contains(r.Done, step.name) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return r, err
		}
		me.begin(step.name)
		err := me.keeper.with(ctx, func(keeper *session) error {
			return me.worker.with(ctx, func(worker *session) error {
				return step.f(me, ctx, keeper, worker)
			})
		})
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		if err != nil {
			me.failed(step.name, err, false, "")
		}
		if hopeless(err) {
			return r, err
		}
		r.Done = append(r.Done, step.name)
	}
	return r, err
}

func (me *measuring) begin(step string) {
	me.step = step
	if me.options.Progress != nil {
		me.options.Progress(me.report, step)
	}
}

func (me *measuring) found(f Finding) {
	f.Step = me.step
	me.report.Findings = append(me.report.Findings, f)
}

func (me *measuring) ok(name, format string, args ...any) {
	me.found(Finding{Name: name, Verdict: OK, Detail: fmt.Sprintf(format, args...)})
}

// failed keeps that something failed: a mechanism that is not there is missing.
func (me *measuring) failed(name string, err error, needed bool, remedy string) {
	f := Finding{Name: name, Verdict: Failed, Needed: needed, Detail: answer(err), Remedy: remedy}
	if has(err, p11.CKR_MECHANISM_INVALID, p11.CKR_FUNCTION_NOT_SUPPORTED) {
		f.Verdict = Missing
	}
	if e, ok := errors.AsType[*Error](err); ok && remedy == "" && e.Code != 0 {
		f.Remedy = e.Detail
	}
	if f.Remedy == "" {
		f.Remedy = "look into the logs of the HSM and its client software"
	}
	me.found(f)
}

// crashed keeps that a step brought the library down. Only what is never asked of it again may do that.
func (me *measuring) crashed(how string) {
	f := Finding{Name: me.step, Verdict: Failed, Needed: true, Detail: how, Remedy: "the vendor's library crashes or hangs in this; ask the vendor for a newer one"}
	if me.step == "empty associated data" {
		f.Verdict, f.Needed, f.Remedy = Differs, false, "nothing to do: strongroom always has associated data"
	}
	me.found(f)
}

// answer returns what a function answered, for a report.
func answer(err error) string {
	if e, ok := errors.AsType[*Error](err); ok && e.Code != 0 {
		return fmt.Sprintf("%s: %s (0x%X)", e.Function, codeName(e.Code), e.Code)
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Function + ": " + e.Detail
	}
	return err.Error()
}

// describe keeps what the token says without being asked to do anything.
func (me *measuring) describe(flags uint) {
	switch {
	case flags&p11.CKF_USER_PIN_COUNT_LOW != 0:
		me.found(Finding{Name: "PIN", Verdict: Differs, Detail: "wrong PINs are being counted", Remedy: "a right one ends that; this check tries its PIN once"})
	default:
		me.ok("PIN", "set, and not locked")
	}
	types, err := me.mechanisms()
	if err != nil {
		me.failed("list of mechanisms", err, false, "")
		return
	}
	var not []string
	for _, n := range neededMechanisms {
		if !slices.Contains(types, n.mechanism) {
			not = append(not, n.name)
		}
	}
	if len(not) == 0 {
		me.ok("list of mechanisms", "%d, with all that are needed", len(types))
	} else {
		me.found(Finding{Name: "list of mechanisms", Verdict: Missing, Needed: true, Detail: "it does not have " + strings.Join(not, ", "),
			Remedy: "without these the token cannot be used; see whether its policy, or another firmware, offers them"})
	}
}

// neededMechanisms are what strongroom asks of a token.
var neededMechanisms = []struct {
	mechanism uint
	name      string
}{
	{p11.CKM_AES_GCM, "AES-GCM (CKM_AES_GCM)"},
	{p11.CKM_AES_KEY_GEN, "AES key generation (CKM_AES_KEY_GEN)"},
	{p11.CKM_EC_KEY_PAIR_GEN, "EC key pair generation (CKM_EC_KEY_PAIR_GEN)"},
	{p11.CKM_ECDSA, "ECDSA (CKM_ECDSA)"},
}

// make makes an AES key for a test, of the token or of the session, and returns which niceties the token refused.
func (me *measuring) make(s *session, id hsm.ID, ofToken, copied bool) (o p11.ObjectHandle, refused []string, err error) {
	template := throwawayTemplate(id, ofToken)
	for i, a := range template {
		if a.Type == p11.CKA_LABEL {
			template[i] = p11.NewAttribute(p11.CKA_LABEL, me.label)
		}
	}
	extra := niceties(p11.CKM_AES_GCM, copied)
	o, err = me.generateOn(s.handle, append(template, extra...))
	for (refusesTemplate(err) || has(err, p11.CKR_GENERAL_ERROR)) && len(extra) > 0 { // GENERAL_ERROR: see [Token.nicely]
		refused = append(refused, attributeName(extra[0].Type))
		extra = extra[1:]
		o, err = me.generateOn(s.handle, append(template, extra...))
	}
	return o, refused, err
}

// key makes an AES key for the rest of a step, of the session if the token has such keys, and returns how to destroy it.
func (me *measuring) key(keeper *session) (p11.ObjectHandle, func(), error) {
	o, _, err := me.make(keeper, hsm.ID(randomBytes(16)), false, false)
	if err != nil && !hopeless(err) {
		o, _, err = me.make(keeper, hsm.ID(randomBytes(16)), true, false)
	}
	if err != nil {
		return 0, nil, err
	}
	return o, func() { me.drop(keeper, o) }, nil
}

// drop destroys an object that was made here a moment ago. Whether that worked is seen by cleanUp.
func (me *measuring) drop(keeper *session, o p11.ObjectHandle) { _ = me.destroy(keeper.handle, o) }

// renew gives s a session that no failed operation has spoilt.
func renew(s *session) error { return s.pool.renew(s) }

// leftovers destroys what earlier measurings have left.
func (me *measuring) leftovers(ctx context.Context, keeper, _ *session) error {
	all, err := me.find(keeper.handle, anything())
	if err != nil {
		return err
	}
	me.report.Objects.Before = len(all)
	n := 0
	for _, o := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		read, err := me.attributes(keeper.handle, o, p11.CKA_LABEL)
		if err != nil || !strings.HasPrefix(string(read[0].Value), checkPrefix) {
			continue // not ours
		}
		if err := me.destroy(keeper.handle, o); err != nil && !stale(err) {
			return err
		}
		n++
	}
	me.report.Objects.Before -= n
	if n > 0 && me.options.Crashed == "" {
		me.ok("leftovers", "%d objects of a check that was killed are destroyed", n)
	}
	return nil
}

// cleanUp sees that nothing that was made here is there any more. It gets a new session, as the old one may be lost.
func (me *measuring) cleanUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	clean := func(s *session) error {
		for range 2 {
			left, err := me.find(s.handle, []*p11.Attribute{p11.NewAttribute(p11.CKA_LABEL, me.label)})
			if err != nil {
				return err
			}
			if len(left) == 0 {
				return nil
			}
			for _, o := range left {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := me.destroy(s.handle, o); err != nil && !stale(err) {
					return err
				}
			}
		}
		return errors.New("the token still finds what it says that it has destroyed")
	}
	err := me.keeper.with(ctx, clean)
	if err != nil {
		err = me.keeper.with(ctx, clean)
	}
	if err != nil {
		return fmt.Errorf("%w: objects labelled %s may be left on the token: %w; the next check destroys them", hsm.ErrUnavailable, me.label, err)
	}
	return nil
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
