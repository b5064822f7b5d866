package awsapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"strongroom/kms"
)

const (
	readyTimeout = 2 * time.Second
	readyFresh   = 200 * time.Millisecond
)

// readiness asks whether the service could answer a request. Anybody may ask, so the question is passed on once for all who
// ask at the same time, and its answer is good for a while: nobody can keep the HSM busy with it. It is safe for concurrent use.
type readiness struct {
	check func(context.Context) error
	log   *slog.Logger

	mu      sync.Mutex
	asking  chan struct{} // closed when the question in flight is answered; nil if there is none
	answer  error
	known   time.Time // when answer was given; zero if never
	unready bool      // what the log was last told
}

var errReadyTimeout = errors.New("no answer in time")

// get returns nil if the service is ready. It waits readyTimeout at most, also for a check that does not heed its context.
func (r *readiness) get(ctx context.Context) error {
	r.mu.Lock()
	if r.asking == nil && !r.known.IsZero() && time.Since(r.known) < readyFresh {
		defer r.mu.Unlock()
		return r.answer
	}
	if r.asking == nil {
		r.asking = make(chan struct{})
		// A goroutine of its own, since the one who asked first may not wait for the answer that others wait for too.
		go r.ask(r.asking)
	}
	asking := r.asking
	r.mu.Unlock()

	timeout := time.NewTimer(readyTimeout)
	defer timeout.Stop()
	select {
	case <-asking:
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.answer
	case <-timeout.C:
		return errReadyTimeout
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ask gets the answer and wakes those who wait. There is never more than one of it.
func (r *readiness) ask(done chan struct{}) {
	err := r.askOnce()
	r.mu.Lock()
	r.answer, r.known, r.asking = err, time.Now(), nil
	changed := r.unready != (err != nil)
	r.unready = err != nil
	r.mu.Unlock()
	close(done)
	if changed && err != nil {
		r.log.Warn("not ready", "err", err)
	} else if changed {
		r.log.Info("ready again")
	}
}

func (r *readiness) askOnce() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return r.check(ctx)
}

// serve answers 200 if the service is ready, and otherwise 503 with one word, and which part is missing: the log knows more.
func (r *readiness) serve(w http.ResponseWriter, req *http.Request) {
	switch err := r.get(req.Context()); {
	case err == nil:
		answer(w, http.StatusOK, "text/plain", []byte("ready\n"))
	case errors.Is(err, errReadyTimeout) || errors.Is(err, context.DeadlineExceeded):
		answer(w, http.StatusServiceUnavailable, "text/plain", []byte("timeout\n"))
	default:
		text := "unavailable"
		if e, ok := errors.AsType[*kms.NotReady](err); ok {
			text += ": " + e.What
		}
		answer(w, http.StatusServiceUnavailable, "text/plain", []byte(text+"\n"))
	}
}
