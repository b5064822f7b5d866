package kms

import (
	"hash/maphash"
	"strings"
	"sync"
	"time"

	"strongroom/keyspec"
)

// A Class is a kind of operation whose requests are counted together, for each principal by itself.
type Class uint8

const (
	Symmetric  Class = iota // all that uses a key, and GenerateRandom
	PairsRSA                // data key pairs that need a search for primes
	PairsOther              // all other data key pairs
	Reads                   // Describe, Get, List
	Changes                 // all that changes something
	classEnd
)

// Limits are how many requests of a class a principal may make, per second, before it is told to slow down. Twice as many may come at once after a quiet
// time. Zero is no limit.
type Limits [classEnd]float64

// DefaultLimits are far above what one server can do, but for RSA pairs: a search for primes takes up to seconds of one core, and one caller must not
// be able to queue up hours of it.
var DefaultLimits = Limits{Symmetric: 100_000, PairsRSA: 500, PairsOther: 20_000, Reads: 20_000, Changes: 5_000}

// classOf returns the class of an operation. Pairs are counted as what they are besides, when their spec is known.
func classOf(operation string) Class {
	switch {
	case strings.HasPrefix(operation, "GenerateDataKey"), operation == "Encrypt", operation == "Decrypt", operation == "ReEncrypt", operation == "GenerateRandom":
		return Symmetric
	case readOnly[operation]:
		return Reads
	}
	return Changes
}

// classOfPair returns the class of pairs of a spec.
func classOfPair(spec keyspec.Spec) Class {
	if spec.SearchesPrimes() {
		return PairsRSA
	}
	return PairsOther
}

// throttle counts a request, and refuses it if there were too many of its class.
func (s *Service) throttle(who Caller, class Class) error {
	if s.limiter.allow(who.owner(), class, time.Since(s.start)) {
		return nil
	}
	return errThrottled
}

var errThrottled = errorf(Throttled, "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.")

// A limiter counts requests by the generic cell rate algorithm: for each principal and class it remembers the one moment at which the request now let through
// would have come if all had come evenly. It is safe for concurrent use.
type limiter struct {
	interval [classEnd]time.Duration // between requests that come evenly; 0 for no limit
	shards   [16]limiterShard
	seed     maphash.Seed
}

type limiterShard struct {
	mu   sync.Mutex // held for a look into a map
	next map[limiterKey]time.Duration
}

type limiterKey struct {
	principal string
	class     Class
}

// limiterKept is how many principals a shard remembers before it forgets those that have been quiet.
const limiterKept = 4096

func newLimiter(l Limits) *limiter {
	m := &limiter{seed: maphash.MakeSeed()}
	for class, rate := range l {
		if rate > 0 {
			m.interval[class] = max(1, time.Duration(float64(time.Second)/rate))
		}
	}
	for i := range m.shards {
		m.shards[i].next = make(map[limiterKey]time.Duration)
	}
	return m
}

// burst is how far ahead of even requests a principal may be.
const burst = 2 * time.Second

// allow counts a request at now, on a clock that never goes back, and reports whether it is within the limit. One that is not does not count.
func (m *limiter) allow(principal string, class Class, now time.Duration) bool {
	interval := m.interval[class]
	if interval == 0 {
		return true
	}
	shard := &m.shards[maphash.String(m.seed, principal)%uint64(len(m.shards))]
	key := limiterKey{principal, class}
	shard.mu.Lock()
	defer shard.mu.Unlock()
	next := max(shard.next[key], now) + interval
	if next-now > max(burst, interval) {
		return false
	}
	if len(shard.next) >= limiterKept {
		for k, t := range shard.next {
			if t <= now {
				delete(shard.next, k)
			}
		}
	}
	shard.next[key] = next
	return true
}
