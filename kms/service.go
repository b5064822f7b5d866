// Package kms is the service: KMS keys and their states, the ciphertext format, who may do what, and one method for each operation of the
// AWS KMS API, all of the shape
//
//	func (s *Service) Name(ctx context.Context, who Caller, req *NameRequest) (*NameResponse, error)
//
// A refusal that a client should see is an [Error]; its [Code] is one of a closed set. Any other error is our own fault.
//
// The request and response types are AWS's model: the json tag of a member is its name on the wire, the aws tag its modelled
// constraints, which the wire has checked before a method is called. References in comments of the form [API] are to the
// AWS KMS API Reference, version 2014-11-01.
//
// Keys never leave the [hsm.Device]. Only an openKey, which only the gate [Service.open] hands out, uses a KMS key there; besides it, keys are made and
// unmade, random bytes are drawn, and the secrets of access keys are opened.
//
// The package knows nothing of files, sockets, SQL or PKCS#11.
package kms

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"

	"strongroom/hsm"
	"strongroom/keyspec"
	"strongroom/kms/attest"
)

// Options are the parts that a [Service] is made of.
type Options struct {
	Device hsm.Device
	Store  Store
	Audit  Recorder     // required
	Log    *slog.Logger // for operators; required

	// Limits are per principal. Nil means DefaultLimits.
	Limits *Limits

	// Attestation decides which attestation documents are believed. Nil means those that lead to the root of AWS.
	Attestation *attest.Verifier

	// SM2Off makes SM2 answer as it does in AWS Regions outside China.
	SM2Off bool

	// Memory is how many bytes may be taken, more or less, for what is remembered of the store between requests. Zero means DefaultMemory.
	Memory int64

	// Pairs gives out the data key pairs. Nil means that each request makes its own.
	Pairs Pairs

	// SealLimit is how many ciphertexts are made under one key material, less than 2^32. Zero means DefaultSealLimit.
	SealLimit int64
}

// Pairs gives out data key pairs, each once, to principals by their ARNs. It is safe for concurrent use.
type Pairs interface {
	// Get returns a pair, which the caller wipes, or an error if ctx ends before there is one.
	Get(ctx context.Context, principal string, s keyspec.Spec) (*keyspec.Pair, error)
}

// A Service answers the operations of the AWS KMS API for one deployment. It is safe for concurrent use.
type Service struct {
	device      hsm.Device
	store       Store
	audit       Recorder
	log         *slog.Logger
	attestation *attest.Verifier
	sm2         bool
	partition   string
	region      string
	sealer      SystemKey
	usedSince   time.Time // since when uses of keys are kept

	// What was read from the store, and until when it may be believed (nanoseconds since start, a moment that Run moves on).
	remembered
	memory       *memory
	reads        atomic.Uint64 // of keys: see Key.read
	start        time.Time
	trustedUntil atomic.Int64

	hearing chan struct{} // has one while somebody hears of changes
	heard   int64         // the generation up to which changes were heard of, or unheard; for who hears

	// primes bounds how many searches for RSA primes run here at once: more than one a core would only make each caller wait longer. It is for
	// services without pairs.
	pairs    Pairs
	primes   chan struct{}
	searches searches

	usage    *usage
	budget   *budget
	limiter  *limiter
	recorded int64 // the last event that went from the store into the audit log
}

// New returns the service of the deployment in o.Store. It returns an error that is ErrNotStored if there is none: [Init] makes one.
func New(ctx context.Context, o Options) (*Service, error) {
	if o.Device == nil || o.Store == nil || o.Log == nil || o.Audit == nil {
		return nil, errors.New("kms: Device, Store, Audit and Log are required")
	}
	if o.SealLimit < 0 || o.SealLimit >= 1<<32 {
		return nil, errors.New("kms: SealLimit is not below 2^32")
	}
	s, err := newService(ctx, o)
	if err != nil {
		return nil, err
	}
	if s.usedSince.IsZero() {
		s.usedSince = time.Now()
		if err := s.store.Update(ctx, func(tx Tx) error { return tx.SetUsageSince(s.usedSince) }); err != nil {
			return nil, fmt.Errorf("begin to keep the last uses of keys: %w", err)
		}
	}
	return s, nil
}

// newService returns a service without asking for what only requests need.
func newService(ctx context.Context, o Options) (*Service, error) {
	if o.Memory == 0 {
		o.Memory = DefaultMemory
	}
	if o.Limits == nil {
		o.Limits = &DefaultLimits
	}
	if o.Attestation == nil {
		var err error
		if o.Attestation, err = attest.New(attest.Options{Anchors: []attest.Anchor{attest.AWSRoot()}}); err != nil {
			return nil, err
		}
	}
	var d *Deployment
	var sealer *SystemKey
	err := o.Store.View(ctx, func(tx Tx) (err error) {
		if d, err = tx.Deployment(); err != nil {
			return err
		}
		sealer, err = tx.SystemKey(sealerName)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the deployment: %w", err)
	}
	s := &Service{
		device:      o.Device,
		store:       o.Store,
		audit:       o.Audit,
		pairs:       o.Pairs,
		log:         o.Log,
		attestation: o.Attestation,
		sm2:         !o.SM2Off,
		partition:   d.Partition,
		region:      d.Region,
		sealer:      *sealer,
		usedSince:   d.UsageSince,
		hearing:     make(chan struct{}, 1),
		heard:       unheard,
		start:       time.Now(),
		primes:      make(chan struct{}, runtime.NumCPU()),
		usage:       newUsage(),
		limiter:     newLimiter(*o.Limits),
	}
	s.remembered, s.memory = newRemembered(o.Memory)
	s.budget = newBudget(o.Store, o.Log, o.SealLimit, s.rotateWorn)
	return s, nil
}

// Region returns the Region that this deployment says it is.
func (s *Service) Region() string { return s.region }

// Partition returns the partition in this deployment's ARNs.
func (s *Service) Partition() string { return s.partition }

// A part is something that a request needs, and how it is asked whether it is there.
type part struct {
	name, missing string
	check         func(context.Context) error
}

// parts are in the order in which Ready asks them.
func (s *Service) parts() []part {
	return []part{
		{"store", "the store does not answer, or is damaged", s.store.Healthy},
		{"audit", "the audit log cannot be written", func(context.Context) error { return s.audit.Err() }},
		{"hsm", "the HSM does not encrypt and decrypt", s.device.Check},
	}
}

// Parts returns what Ready asks, one by one: "store", "audit" and "hsm".
func (s *Service) Parts() map[string]func(context.Context) error {
	all := make(map[string]func(context.Context) error)
	for _, p := range s.parts() {
		all[p.name] = p.check
	}
	return all
}

// Ready returns nil if a request could be answered now: the store answers, the audit log can be written, and the device encrypts and decrypts.
// The error is a [NotReady].
func (s *Service) Ready(ctx context.Context) error {
	for _, p := range s.parts() {
		if err := p.check(ctx); err != nil {
			return &NotReady{p.missing, err}
		}
	}
	return nil
}

// NotReady is why requests cannot be answered now. What is for anybody who asks; Err is for the log.
type NotReady struct {
	What string
	Err  error
}

func (e *NotReady) Error() string { return e.What + ": " + e.Err.Error() }
func (e *NotReady) Unwrap() error { return e.Err }

// What is remembered from the store is believed for trustSpan after the store was last heard, which happens every listenEvery. A change
// that another process made thus binds this one within a second, and a process that does not hear the store any more stops using what it remembers.
const (
	listenEvery = 250 * time.Millisecond
	trustSpan   = time.Second
)

// trusted reports whether what is remembered may be believed.
func (s *Service) trusted() bool {
	return int64(time.Since(s.start)) < s.trustedUntil.Load()
}

// listen asks the store once what changed since it was last asked. If it answers, what is then remembered may be believed for a while.
func (s *Service) listen(ctx context.Context) error {
	asked := time.Since(s.start)
	if err := s.hear(ctx); err != nil {
		return err
	}
	s.trustedUntil.Store(int64(asked + trustSpan))
	return nil
}

// update makes a change in the store. When it returns, no request answers from what was remembered before the change, also if the change failed,
// since a failure may hide a change that was made. What the store or f refused was not made; whoever tries again then forgets first what may be out of date.
func (s *Service) update(ctx context.Context, f func(Tx) error) error {
	err := s.store.Update(ctx, f)
	var refused *Error
	if errors.Is(err, ErrConflict) || isNotStored(err) || errors.As(err, &refused) {
		return err
	}
	if err != nil {
		s.forget()
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hearTimeout)
	defer cancel()
	if err := s.hear(ctx); err != nil { // which forgot everything; the change is made all the same
		s.log.Warn("could not hear from the store what a change has changed", "err", err)
	}
	return nil
}

// deviceError turns an error of the device into the refusal that a client sees.
func deviceError(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, hsm.ErrRejected):
		return &Error{Code: InvalidCiphertext, Err: err}
	default:
		// A device that is away, and one that does not hold the key it should, are the same to a client: try again later. The
		// log tells the operator which it was.
		return &Error{Code: KeyUnavailable, Err: err}
	}
}
