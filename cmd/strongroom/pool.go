package main

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"strongroom/keyspec"
	"strongroom/keyspec/search"
)

// PoolConfig says how many key pairs are made ahead of demand, by spec as AWS names it, in lower case: rsa_2048 = 32. 0 is none. Besides there is processes:
// how many processes search for primes, by default one for each processor.
type PoolConfig map[string]int

const (
	poolProcesses    = "processes"
	maxPool          = 10_000 // pairs of one spec: 30 MB at most
	maxPoolProcesses = 256
)

// defaultPool is what a PoolConfig says that says nothing: what takes much longer to make than all else that a request does. The pairs have about 180 kB, and
// take a processor that does nothing else half a minute.
func defaultPool() PoolConfig {
	return PoolConfig{
		poolProcesses:            runtime.NumCPU(),
		poolKey(keyspec.RSA2048): 32, poolKey(keyspec.RSA3072): 16, poolKey(keyspec.RSA4096): 16,
		poolKey(keyspec.P384): 64, poolKey(keyspec.P521): 64,
	}
}

// devPool keeps n pairs ready of each spec that takes a search.
func devPool(n int) PoolConfig {
	c := PoolConfig{poolProcesses: runtime.NumCPU()}
	for _, s := range keyspec.All() {
		if s.SearchesPrimes() {
			c[poolKey(s)] = n
		}
	}
	return c
}

func poolKey(s keyspec.Spec) string { return strings.ToLower(s.String()) }

func (c PoolConfig) sizes() map[keyspec.Spec]int {
	sizes := make(map[keyspec.Spec]int)
	for _, s := range keyspec.All() {
		sizes[s] = c[poolKey(s)]
	}
	return sizes
}

// check tells fault of what is wrong, by key.
func (c PoolConfig) check(fault func(key, format string, args ...any)) {
	for _, key := range slices.Sorted(maps.Keys(c)) {
		n := c[key]
		switch _, err := keyspec.Parse(strings.ToUpper(key)); {
		case key == poolProcesses:
			if n < 1 || n > maxPoolProcesses {
				fault("pool."+key, "%d is not from 1 to %d", n, maxPoolProcesses)
			}
		case err != nil || key != strings.ToLower(key):
			fault("pool."+key, "no such key")
		case n < 0 || n > maxPool:
			fault("pool."+key, "%d is not from 0 to %d", n, maxPool)
		}
	}
}

// A pairPool is a pool, and what makes its pairs.
type pairPool struct {
	*keyspec.Pool
	processes *search.Processes
	memory    []byte
}

func newPairPool(log *slog.Logger, c PoolConfig) *pairPool {
	p := &pairPool{processes: search.New(search.Config{
		Processes: c[poolProcesses],
		Env:       slices.DeleteFunc(os.Environ(), func(v string) bool { return !strings.HasPrefix(v, "GODEBUG=") }), // FIPS 140 is switched on by it
		Log:       log,
	})}
	p.Pool = keyspec.NewPool(keyspec.PoolOptions{
		Source: p.processes, Sizes: c.sizes(), Searches: c[poolProcesses], Room: p.processes.Room,
		Memory: func(size int) []byte {
			p.memory = lockedMemory(log, size)
			return p.memory
		},
	})
	return p
}

func (p *pairPool) close() {
	p.Pool.Close()
	p.processes.Close()
	if p.memory != nil {
		unix.Munmap(p.memory)
	}
}

// lockedMemory returns memory for secrets: not swapped to disk, not part of a core dump and not seen by child processes, as far as the system allows it.
func lockedMemory(log *slog.Logger, size int) []byte {
	if size == 0 {
		return nil
	}
	memory, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		log.Warn("could not get memory of its own for the pool of key pairs", "bytes", size, "err", err)
		return make([]byte, size)
	}
	if err := unix.Mlock(memory); err != nil {
		log.Warn("could not lock the memory of the pool of key pairs, which may be swapped to disk", "bytes", size, "err", err)
	}
	unix.Madvise(memory, unix.MADV_DONTDUMP)
	unix.Madvise(memory, unix.MADV_DONTFORK)
	return memory
}

// poolSamples tell of the pairs that are ready, and of the processes that make them.
func (r *rig) poolSamples(_ context.Context, p *metricsPage) {
	all := r.pool.Stats()
	each := func(name string, kind metricKind, help string, value func(keyspec.PoolStats) float64) {
		p.family(name, kind, help)
		for _, s := range all {
			p.sample(name, value(s), "spec", s.Spec.String())
		}
	}
	each("strongroom_pool_size", gauge, "Key pairs that are to be ready.", func(s keyspec.PoolStats) float64 { return float64(s.Size) })
	each("strongroom_pool_ready", gauge, "Key pairs that are ready.", func(s keyspec.PoolStats) float64 { return float64(s.Ready) })
	each("strongroom_pool_oldest_seconds", gauge, "Age of the key pair that is handed out next; 0 if none is ready.",
		func(s keyspec.PoolStats) float64 { return s.Oldest.Seconds() })
	each("strongroom_pool_hits_total", counter, "Requests that got a ready key pair.", func(s keyspec.PoolStats) float64 { return float64(s.Hits) })
	each("strongroom_pool_misses_total", counter, "Requests for which no key pair was ready, or none that their principal might have.",
		func(s keyspec.PoolStats) float64 { return float64(s.Misses) })
	each("strongroom_pool_waiting", gauge, "Requests that wait for a key pair.", func(s keyspec.PoolStats) float64 { return float64(s.Waiting) })
	each("strongroom_pool_waited_seconds_total", counter, "Time that requests have waited for key pairs, together.",
		func(s keyspec.PoolStats) float64 { return s.Waited.Seconds() })
	each("strongroom_pool_made_total", counter, "Key pairs made, ahead of demand or on it.", func(s keyspec.PoolStats) float64 { return float64(s.Made) })
	s := r.pool.processes.Stats()
	p.one("strongroom_search_processes", gauge, "Processes that search for primes; each is started when it is wanted first.", float64(s.Running))
	p.one("strongroom_search_process_ends_total", counter, "Processes that have ended by themselves, and were replaced.", float64(s.Ended))
	p.one("strongroom_search_inside_total", counter, "Key pairs that the server had to make itself, because no process could be used.", float64(s.Inside))
}
