package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"strongroom/awsapi"
	"strongroom/hsm"
	"strongroom/hsm/pkcs11"
	"strongroom/hsm/worker"
	"strongroom/kms"
	"strongroom/kms/attest"
	"strongroom/kms/audit"
	"strongroom/store"
)

// Limits of the HTTP server. A client that is slower than this is not a KMS client.
const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 30 * time.Second
	writeTimeout      = 2 * time.Minute
	idleTimeout       = 3 * time.Minute
	maxHeaderBytes    = 64 << 10
	anchorTimeout     = 5 * time.Second
	requestTimeout    = 60 * time.Second               // what AWS's own clients wait for an answer, at most
	shutdownTimeout   = requestTimeout + 5*time.Second // for requests that are being answered when the server is told to stop
)

// A rig is a running deployment's parts, in the order in which they are opened. Close them with close.
type rig struct {
	log     *slog.Logger
	store   *store.DB
	token   token
	audit   *audit.Log
	service *kms.Service
	pool    *pairPool
	checked atomic.Bool    // the store was looked through
	metrics net.Listener   // where metrics are answered, or nil
	counts  *awsapi.Counts // of requests

	hangups  chan os.Signal // SIGHUP, from before anything is open to after all is closed
	attended bool           // somebody started the server on a terminal
}

// rigOptions say what openRig opens.
type rigOptions struct {
	store  string // URL
	token  worker.Config
	sm2    bool
	audit  AuditConfig
	limits kms.Limits
	pool   PoolConfig
	cache  CacheConfig

	attestation attest.Options
}

// openRig opens an initialised deployment, claims its store, and makes sure that store and token belong together.
func openRig(ctx context.Context, log *slog.Logger, o rigOptions) (*rig, error) {
	r := &rig{log: log, counts: awsapi.NewCounts(), hangups: make(chan os.Signal, 1)}
	r.attended = !signal.Ignored(unix.SIGHUP) && hasTerminal() // nohup ignores it
	signal.Notify(r.hangups, unix.SIGHUP)
	if err := r.open(ctx, o); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *rig) open(ctx context.Context, o rigOptions) (err error) {
	if r.store, err = openStore(ctx, o.store); err != nil {
		return err
	}
	if err := r.store.Claim(ctx); err != nil {
		return fmt.Errorf("claim the store: %w", err)
	}
	undamaged := r.checkStore(ctx)
	// An init that was interrupted leaves an empty store, and perhaps a token that is not prepared: say the former.
	var deployment *kms.Deployment
	account := ""
	var known *kms.AuditAnchor
	err = r.store.View(ctx, func(tx kms.Tx) (err error) {
		if deployment, err = tx.Deployment(); err != nil {
			return err
		}
		first, err := tx.Accounts("", 1)
		if len(first) > 0 {
			account = first[0].ID
		}
		if err != nil {
			return err
		}
		if known, err = tx.AuditAnchor(); errors.Is(err, kms.ErrNotStored) {
			return nil // nothing was signed yet
		}
		return err
	})
	if err != nil {
		return noDeployment(err)
	}
	o.token.Log = r.log
	if r.token, err = openWorkers(ctx, o.token, r.store); err != nil {
		return err
	}
	if err := undamaged(); err != nil { // before anything is written
		return err
	}
	signer, err := kms.NewAuditSigner(ctx, r.token, r.store)
	if err != nil {
		return err
	}
	r.audit, err = audit.Open(audit.Options{
		Known: anchorOf(known), Anchor: func(a audit.Anchor) { r.anchor(ctx, a) },
		Dir: o.audit.Dir, Signer: signer, Log: r.log, Region: deployment.Region, Account: account,
		MaxSize: int64(o.audit.MaxSize) << 20, CheckpointRecords: o.audit.CheckpointRecords,
		CheckpointEvery: time.Duration(o.audit.CheckpointSeconds) * time.Second,
	})
	if err != nil {
		return hint(err, "the directory is audit.dir in the configuration, or else audit beside the store")
	}
	attestation, err := attest.New(o.attestation)
	if err != nil {
		return fmt.Errorf("attestation: %w", err)
	}
	reportAnchors(r.log, o.attestation)
	r.pool = newPairPool(r.log, o.pool)
	r.service, err = kms.New(ctx, kms.Options{
		Device: r.token, Store: r.store, Audit: r.audit, Log: r.log, Limits: &o.limits, Attestation: attestation, SM2Off: !o.sm2, Pairs: r.pool,
		Memory: o.cache.bytes(),
	})
	if err != nil {
		return err
	}
	return r.service.Recover(ctx)
}

// checkPatience is how long the server waits for the store to be looked through before it answers requests: long enough for a quarter of a gigabyte in memory.
const checkPatience = 500 * time.Millisecond

// checkStore begins to look for damage, which is better found now than by the first request that meets it, perhaps long after the last good backup is gone.
// It returns what waits for the outcome, for checkPatience in all. If the store is large, the search goes on while requests are answered. What it then finds is
// in the log, and the server is not ready any more.
func (r *rig) checkStore(ctx context.Context) (outcome func() error) {
	checked, began, patience := r.store.Check(ctx), time.Now(), time.After(checkPatience)
	return func() error {
		select {
		case err := <-checked:
			if err != nil {
				return fmt.Errorf("check the store: %w", err)
			}
			r.checked.Store(true)
			return nil
		case <-patience:
		}
		r.log.Info("the store is large: it is looked through for damage while requests are answered")
		go func() {
			switch err := <-checked; {
			case err == nil:
				r.checked.Store(true)
				r.log.Info("the store was looked through: it is not damaged", "after", time.Since(began).Round(time.Millisecond))
			case ctx.Err() == nil:
				r.log.Error("the store could not be looked through, or is damaged: what is asked of it is answered as far as it can be read", "err", err)
			}
		}()
		return nil
	}
}

// anchorOf returns what the log was when the store last heard of it, nil if it never did.
func anchorOf(a *kms.AuditAnchor) *audit.Anchor {
	if a == nil {
		return nil
	}
	return &audit.Anchor{Log: a.Log, Head: audit.Head{Sequence: a.Sequence, Hash: a.Hash}, File: a.File}
}

// anchor stores what the log is now. If it cannot, the store knows an older state of the log, by which less of it is missed.
func (r *rig) anchor(ctx context.Context, a audit.Anchor) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), anchorTimeout)
	defer cancel()
	err := r.store.Update(ctx, func(tx kms.Tx) error {
		return tx.SetAuditAnchor(&kms.AuditAnchor{Log: a.Log, Sequence: a.Head.Sequence, Hash: a.Head.Hash, File: a.File})
	})
	if err != nil {
		r.log.Error("could not store the head of the audit log", "head", a.Head.String(), "err", err)
	}
}

// openStore opens the store of a deployment without claiming it.
func openStore(ctx context.Context, url string) (*store.DB, error) {
	db, err := store.Open(ctx, url)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hint(fmt.Errorf("open the store: %w", err), "strongroom init --config FILE")
	} else if err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	return db, nil
}

// noDeployment says what to do about a store that has none, where that is the error.
func noDeployment(err error) error {
	if errors.Is(err, kms.ErrNotStored) {
		return hint(fmt.Errorf("the store holds no deployment: %w", err), "strongroom init --config FILE")
	}
	return err
}

// A token is a device that is open.
type token interface {
	hsm.Device
	Info() pkcs11.Info
	Close() error
}

// openToken opens a token in this process. See checkToken.
func openToken(ctx context.Context, log *slog.Logger, c pkcs11.Config, db *store.DB) (token, error) {
	t, err := pkcs11.Open(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("open the token: %w", err)
	}
	return checkToken(ctx, log, t, db)
}

// openWorkers opens a token in processes that can be replaced. See checkToken.
func openWorkers(ctx context.Context, c worker.Config, db *store.DB) (token, error) {
	t, err := worker.Open(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("open the token: %w", err)
	}
	return checkToken(ctx, c.Log, t, db)
}

// checkToken makes sure that the store belongs to a token, before anybody makes anything in it. If it does not, the token is closed.
func checkToken(ctx context.Context, log *slog.Logger, token token, db *store.DB) (token, error) {
	var err error
	if err = kms.CheckToken(ctx, token, db); err == nil {
		return token, nil
	}
	if errors.Is(err, hsm.ErrNoKey) {
		err = hint(fmt.Errorf("the store belongs to another token: %w", err), "check hsm.token_label or hsm.token_serial, and store, in the configuration")
	}
	if err := token.Close(); err != nil {
		log.Error("could not close the token", "err", err)
	}
	return nil, err
}

// close closes what was opened, in the reverse order: the end of the audit log is signed by the token.
func (r *rig) close() {
	if r.metrics != nil {
		r.metrics.Close() // unless serve did
	}
	if r.pool != nil {
		r.pool.close()
	}
	if r.audit != nil {
		if err := r.audit.Close(); err != nil {
			r.log.Error("could not close the audit log", "err", err)
		}
	}
	if r.token != nil {
		if err := r.token.Close(); err != nil {
			r.log.Error("could not close the token", "err", err)
		}
	}
	if r.store != nil {
		if err := r.store.Close(); err != nil {
			r.log.Error("could not close the store", "err", err)
		}
	}
	signal.Stop(r.hangups)
}

// serve answers requests on l until ctx ends, then lets those in flight finish.
func (r *rig) serve(ctx context.Context, l net.Listener) error {
	handler := awsapi.New(r.service, awsapi.Options{Log: r.log, Region: r.service.Region(), Counts: r.counts})
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			ctx, cancel := context.WithTimeout(req.Context(), requestTimeout)
			defer cancel()
			handler.ServeHTTP(onConn(w, req.WithContext(ctx)))
		}),
		ConnContext:       withConn,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(r.log.Handler(), slog.LevelWarn), // what goes wrong on connections
	}

	// Run ends after the last request, which may still want what it keeps fresh.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { r.service.Run(background) })
	var answered atomic.Bool
	wg.Go(func() { erase(background, &answered) })
	if r.metrics != nil {
		wg.Go(func() { serveMetrics(background, r.log, r.metrics, r.samplers()) })
	}
	ctx, hangUp := context.WithCancel(ctx)
	defer hangUp()
	wg.Go(func() { r.rotate(background, hangUp) })
	defer wg.Wait()
	defer stop()

	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener{l, server.ErrorLog, &answered}) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	r.log.Info("stopping: letting requests finish")
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		server.Close()
		return fmt.Errorf("stop: requests were still running after %v: %w", shutdownTimeout, err)
	}
	return nil
}

// rotate begins the next file of the audit log whenever the process gets SIGHUP, until ctx ends. The same signal says that the terminal of a
// person who started the server is gone: then it stops the server, which nobody could find any more.
func (r *rig) rotate(ctx context.Context, stop func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.hangups:
		}
		if r.attended && !hasTerminal() {
			stop()
			return
		}
		if err := r.audit.Rotate(); err != nil {
			r.log.Error("could not begin the next file of the audit log", "err", err)
		} else {
			r.log.Info("the audit log goes on in its next file")
		}
	}
}

// hasTerminal reports whether the process has a controlling terminal.
func hasTerminal() bool {
	f, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	f.Close()
	return true
}

var logLevels = []string{"debug", "info", "warn", "error"}

// newLogger returns the operators' log, at one of logLevels.
func newLogger(w io.Writer, level string) *slog.Logger {
	var l slog.Level
	l.UnmarshalText([]byte(level))
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l}))
}

// processors is how many the program may use, by its control group too. It is asked before anything is set.
var processors = runtime.GOMAXPROCS(0)

// tuneRuntime fits Go's scheduler and collector to a server that spends much of its time inside a PKCS#11 module, unless the environment says
// otherwise.
//
// A call into the module keeps its processor (in the sense of GOMAXPROCS) while it waits for a lock there or for the operating system, until the
// runtime's monitor takes it away after up to 10 ms. With twice as many as there would be, requests go on meanwhile: the 99th percentile of
// Encrypt at 8 clients was halved, from 5.0 to 2.5 ms on two cores.
//
// The heap is a few megabytes of short-lived requests, so that with GOGC=100 it would be collected dozens of times a second.
//
// What is remembered of the store may make the heap large, and then it is not to be five times as large: the limit leaves it twice that and what
// requests may need.
func tuneRuntime(cache CacheConfig) {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(2 * processors)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(2*cache.bytes() + heapBesides)
	}
}

// heapBesides is what the heap may have without being collected more often, besides twice what is remembered of the store.
const heapBesides = 256 << 20

// hardenProcess keeps the memory of a process that handles keys out of core dumps, and out of the reach of other processes of the same user; and what it was
// given open, from the processes that it starts.
func hardenProcess(log *slog.Logger) {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		log.Warn("could not switch core dumps off", "err", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		log.Warn("could not make the process undumpable", "err", err)
	}
	// What whoever started the program had open is not for the processes that it starts. An older kernel cannot do this, and then they have it.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
}
