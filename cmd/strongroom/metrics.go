package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"strongroom/awsapi"
	"strongroom/hsm/worker"
	"strongroom/kms"
)

// The metrics are one page of samples in Prometheus's text format 0.0.4, gathered when somebody asks: nothing is kept but what the parts of the server count
// anyway. Names and labels on it stay: dashboards and alerts are made of them.

// A sampler writes what it knows onto a page.
type sampler func(ctx context.Context, p *metricsPage)

// samplers are what the page of r is made of, in its order.
func (r *rig) samplers() []sampler {
	return []sampler{
		processSamples(time.Now()),
		readySamples(r.service.Parts()),
		r.storeSamples,
		r.deviceSamples,
		r.poolSamples,
		requestSamples(r.counts),
		budgetSamples(r.service.SealBudget),
		cacheSamples(r.service.Caches, r.service.CacheLimit()),
		r.auditSamples,
	}
}

// A metricsPage is a page in the making. Samples of one family follow the family.
type metricsPage struct{ bytes.Buffer }

// A metricKind is what a family says of how its values move.
type metricKind string

const (
	gauge     metricKind = "gauge"
	counter   metricKind = "counter"
	histogram metricKind = "histogram"
)

// family begins a family of samples. The help is one line.
func (p *metricsPage) family(name string, kind metricKind, help string) {
	fmt.Fprintf(p, "# HELP %s %s\n# TYPE %s %s\n", name, strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(help), name, kind)
}

// sample writes a sample with labels, given as names and values in turn.
func (p *metricsPage) sample(name string, value float64, labels ...string) {
	p.WriteString(name)
	if len(labels) > 0 {
		p.WriteByte('{')
		for i := 0; i < len(labels); i += 2 {
			if i > 0 {
				p.WriteByte(',')
			}
			p.WriteString(labels[i])
			p.WriteString(`="`)
			labelEscaper.WriteString(p, labels[i+1])
			p.WriteByte('"')
		}
		p.WriteByte('}')
	}
	p.WriteByte(' ')
	p.Write(strconv.AppendFloat(p.AvailableBuffer(), value, 'g', -1, 64))
	p.WriteByte('\n')
}

var labelEscaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// one writes a family of one sample.
func (p *metricsPage) one(name string, kind metricKind, help string, value float64) {
	p.family(name, kind, help)
	p.sample(name, value)
}

// truth is 1 for what holds.
func truth(holds bool) float64 {
	if holds {
		return 1
	}
	return 0
}

// processSamples tell of the process that began at a time.
func processSamples(began time.Time) sampler {
	return func(_ context.Context, p *metricsPage) {
		p.family("strongroom_build_info", gauge, "1, with the version that answers.")
		p.sample("strongroom_build_info", 1, "version", version(), "go", runtime.Version())
		p.one("process_start_time_seconds", gauge, "When the process started, in Unix time.", float64(began.UnixMilli())/1000)
		if n, ok := residentBytes(); ok {
			p.one("process_resident_memory_bytes", gauge, "Memory of the process in RAM.", n)
		}
		if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
			p.one("process_open_fds", gauge, "Open files and sockets.", float64(len(fds)-1)) // without the one it was read with
		}
		p.one("go_goroutines", gauge, "Goroutines.", float64(runtime.NumGoroutine()))
	}
}

// residentBytes reads how much of the process is in memory (proc(5), statm). It is not there where /proc is not.
func residentBytes() (float64, bool) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, false
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0, false
	}
	pages, err := strconv.ParseFloat(fields[1], 64)
	return pages * float64(os.Getpagesize()), err == nil
}

const (
	partsTimeout = 2 * time.Second
	partsFresh   = time.Second
)

// A probe asks whether a part of the server is there. Anybody who reaches the page may have it asked, so an answer is good for a while, and a part that hangs
// is not asked a second time before it has answered. It is safe for concurrent use.
type probe struct {
	ask func(context.Context) error

	mu     sync.Mutex // held for a look at what follows
	asking chan struct{}
	answer error
	known  time.Time // when answer was given; zero if never
}

// start asks, unless the last answer is still good, and returns what is closed when there is one, or nil.
func (b *probe) start() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.asking == nil && (b.known.IsZero() || time.Since(b.known) >= partsFresh) {
		done := make(chan struct{})
		b.asking = done
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), partsTimeout)
			defer cancel()
			err := b.ask(ctx)
			b.mu.Lock()
			defer b.mu.Unlock()
			b.answer, b.known, b.asking = err, time.Now(), nil
			close(done)
		}()
	}
	return b.asking
}

// well reports whether the last answer was good, or, if done is not nil, waits for that which closes it until ctx ends.
func (b *probe) well(ctx context.Context, done <-chan struct{}) bool {
	if done != nil {
		select {
		case <-done:
		case <-ctx.Done():
			select {
			case <-done: // before another part took all the time
			default:
				return false
			}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.answer == nil
}

// readySamples tell which parts are there, by asking all of them at once.
func readySamples(parts map[string]func(context.Context) error) sampler {
	names := slices.Sorted(maps.Keys(parts))
	probes := make(map[string]*probe)
	for name, ask := range parts {
		probes[name] = &probe{ask: ask}
	}
	return func(ctx context.Context, p *metricsPage) {
		ctx, cancel := context.WithTimeout(ctx, partsTimeout)
		defer cancel()
		asked := make(map[string]<-chan struct{})
		for name, b := range probes {
			asked[name] = b.start()
		}
		p.family("strongroom_ready", gauge, "1 if the part answers, 0 if not: the store, the audit log, the HSM.")
		for _, name := range names {
			p.sample("strongroom_ready", truth(probes[name].well(ctx, asked[name])), "part", name)
		}
	}
}

// requestSamples tell how many requests were answered.
func requestSamples(counts *awsapi.Counts) sampler {
	bounds := awsapi.LatencyBounds()
	return func(_ context.Context, p *metricsPage) {
		all := counts.Operations()
		p.family("strongroom_requests_total", counter, "Requests answered, by operation and outcome: ok, the name of the error, or client gone.")
		throttled := int64(0)
		for _, o := range all {
			for _, outcome := range o.Outcomes {
				p.sample("strongroom_requests_total", float64(outcome.N), "operation", o.Operation, "outcome", outcome.Outcome)
				if outcome.Outcome == "ThrottlingException" {
					throttled += outcome.N
				}
			}
		}
		p.one("strongroom_requests_throttled_total", counter, "Requests refused because their principal made too many.", float64(throttled))
		const name = "strongroom_request_duration_seconds"
		p.family(name, histogram, "Time from the beginning of a request to its answer.")
		for _, o := range all {
			n := int64(0)
			for i, bound := range bounds {
				n += o.Latency[i]
				p.sample(name+"_bucket", float64(n), "operation", o.Operation, "le", strconv.FormatFloat(bound.Seconds(), 'g', -1, 64))
			}
			n += o.Latency[len(bounds)]
			p.sample(name+"_bucket", float64(n), "operation", o.Operation, "le", "+Inf")
			p.sample(name+"_sum", o.Total.Seconds(), "operation", o.Operation)
			p.sample(name+"_count", float64(n), "operation", o.Operation)
		}
	}
}

// budgetSamples tell how far key materials are used up.
func budgetSamples(budget func() kms.SealBudget) sampler {
	return func(_ context.Context, p *metricsPage) {
		b := budget()
		share := func(reserved int64) float64 { return float64(reserved) / float64(b.Limit) }
		p.one("strongroom_nonce_budget_limit", gauge, "Encryptions that one key material may make.", float64(b.Limit))
		p.one("strongroom_nonce_budget_materials", gauge, "Key materials that this process has encrypted with lately.", float64(b.Materials))
		p.one("strongroom_nonce_budget_used_ratio", gauge, "Share of the limit that is reserved, of the key material with the largest; rotated at 0.75, refused at 1.",
			share(b.Most))
		p.one("strongroom_nonce_budget_warned_materials", gauge, "Key materials of which half of the limit or more is reserved.", float64(b.Warned))
		p.one("strongroom_nonce_budget_refused_total", counter, "Encryptions refused because a key material has reached the limit.", float64(b.Refused))
		p.family("strongroom_nonce_budget_key_used_ratio", gauge, "Share of the limit that is reserved, of keys with half or more: the "+
			strconv.Itoa(kms.MaxWorn)+" with the largest.")
		for _, m := range b.Worn {
			p.sample("strongroom_nonce_budget_key_used_ratio", share(m.Reserved), "key", m.Key.String())
		}
	}
}

// storeSamples tell of the search for damage at the start. What it finds makes the part not ready.
func (r *rig) storeSamples(_ context.Context, p *metricsPage) {
	p.one("strongroom_store_checked", gauge, "1 once the store was looked through after the start and found undamaged.", truth(r.checked.Load()))
}

// cacheSamples tell what is remembered of the store.
func cacheSamples(caches func() map[string]kms.CacheStats, limit int64) sampler {
	return func(_ context.Context, p *metricsPage) {
		all := caches()
		names := slices.Sorted(maps.Keys(all))
		each := func(name string, kind metricKind, help string, value func(kms.CacheStats) int64) {
			p.family(name, kind, help)
			for _, of := range names {
				p.sample(name, float64(value(all[of])), "of", of)
			}
		}
		p.one("strongroom_cache_limit_bytes", gauge, "Memory that all that is remembered of the store may take.", float64(limit))
		each("strongroom_cache_bytes", gauge, "Memory that is taken, more or less.", func(s kms.CacheStats) int64 { return s.Bytes })
		each("strongroom_cache_entries", gauge, "What is remembered of the store.", func(s kms.CacheStats) int64 { return s.Entries })
		each("strongroom_cache_hits_total", counter, "Times that it was there.", func(s kms.CacheStats) int64 { return s.Hits })
		each("strongroom_cache_misses_total", counter, "Times that the store was asked.", func(s kms.CacheStats) int64 { return s.Misses })
	}
}

// deviceSamples tell of the processes that have the token open.
func (r *rig) deviceSamples(_ context.Context, p *metricsPage) {
	device, ok := r.token.(interface{ Stats() worker.Stats })
	if !ok {
		return
	}
	s := device.Stats()
	p.one("strongroom_hsm_workers", gauge, "Workers that there are to be.", float64(s.Workers))
	p.one("strongroom_hsm_workers_ready", gauge, "Workers that have the token open.", float64(s.Ready))
	p.one("strongroom_hsm_away_seconds", gauge, "Time since no worker has the token open; 0 if one has.", s.Away.Seconds())
	p.one("strongroom_hsm_pin_refused", gauge, "1 if the token refused the PIN, and is not tried again.", truth(s.Refused))
	p.one("strongroom_hsm_calls", gauge, "Calls of the token in progress.", float64(s.Calls))
	p.one("strongroom_hsm_opened_total", counter, "Times that a worker opened the token.", float64(s.Opened))
	p.one("strongroom_hsm_open_failures_total", counter, "Times that a worker could not open the token.", float64(s.Failed))
	p.family("strongroom_hsm_worker_ends_total", counter, "Workers that ended, because a call hung or otherwise.")
	p.sample("strongroom_hsm_worker_ends_total", float64(s.Hung), "reason", "hung")
	p.sample("strongroom_hsm_worker_ends_total", float64(s.Ended), "reason", "other")
	p.one("strongroom_hsm_retries_total", counter, "Calls that were made again, by another worker.", float64(s.Retried))
	p.one("strongroom_hsm_denied_total", counter, "Calls that were refused at once, because the token is away.", float64(s.Denied))
}

// auditSamples tell what the audit log has done.
func (r *rig) auditSamples(_ context.Context, p *metricsPage) {
	s := r.audit.Stats()
	p.one("strongroom_audit_records_total", counter, "Records written to the audit log.", float64(s.Records))
	p.one("strongroom_audit_syncs_total", counter, "Times that the audit log was made durable, for one record or many.", float64(s.Syncs))
	p.one("strongroom_audit_file_number", gauge, "The number of the file that the audit log is in.", float64(s.File))
}

// serveMetrics answers GET /metrics on l until ctx ends.
func serveMetrics(ctx context.Context, log *slog.Logger, l net.Listener, samplers []sampler) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, req *http.Request) {
		var p metricsPage
		for _, s := range samplers {
			s(req.Context(), &p)
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		w.Header().Set("Content-Length", strconv.Itoa(p.Len()))
		w.Write(p.Bytes()) // a client that does not read is not our concern
	})
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Serve(l); err != http.ErrServerClosed {
			log.Error("metrics are not answered any more", "err", err)
		}
	}()
	select {
	case <-ctx.Done():
	case <-ended:
	}
	server.Close()
	<-ended
}

// listenMetrics opens the address where metrics are answered; none for an empty one.
func (r *rig) listenMetrics(ctx context.Context, address string) error {
	if address == "" {
		return nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	r.metrics = l
	return nil
}

// checkMetrics returns what is wrong with an address for metrics.
func checkMetrics(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf(`%q is not "host:port"`, address)
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return fmt.Errorf("%q: no such port", address)
	}
	return nil
}
