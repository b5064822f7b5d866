package awsapi

import (
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"strongroom/kms"
)

// Counts are how many requests a handler answered, with what, and how long that took. Give one to [Options]. It is safe for concurrent use, and counting takes
// no lock: there is a counter for each pair of an operation and an outcome from the beginning.
type Counts struct {
	outcomes   []string // sorted
	outcome    map[string]int
	operations map[string]*operationCounts
}

type operationCounts struct {
	outcomes []atomic.Int64 // as Counts.outcomes
	latency  [len(latencyBounds) + 1]atomic.Int64
	nanos    atomic.Int64
}

// latencyBounds are the upper ends of the classes of a histogram of latencies.
var latencyBounds = [...]time.Duration{
	500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second,
	10 * time.Second, 30 * time.Second,
}

// Outcomes that are not the name of an error.
const (
	OutcomeOK   = "ok"
	OutcomeGone = "client gone" // the client did not wait for the answer
)

// OperationUnknown stands for a request that names no operation.
const OperationUnknown = "unknown"

// NewCounts returns counts that are all zero.
func NewCounts() *Counts {
	c := &Counts{outcome: make(map[string]int), operations: make(map[string]*operationCounts)}
	c.outcomes = append(c.outcomes, OutcomeOK, OutcomeGone)
	for _, f := range forms {
		c.outcomes = append(c.outcomes, f.name)
	}
	for _, f := range frontForms {
		c.outcomes = append(c.outcomes, f.name)
	}
	slices.Sort(c.outcomes)
	for i, name := range c.outcomes {
		c.outcome[name] = i
	}
	for _, names := range []map[string]operation{operations, stsOperations, {OperationUnknown: {}}} {
		for name := range names {
			c.operations[name] = &operationCounts{outcomes: make([]atomic.Int64, len(c.outcomes))}
		}
	}
	return c
}

// add counts a request. What it does not know it counts as what says so; a nil Counts counts nothing.
func (c *Counts) add(operation, outcome string, d time.Duration) {
	if c == nil {
		return
	}
	o, ok := c.operations[operation]
	if !ok {
		o = c.operations[OperationUnknown]
	}
	i, ok := c.outcome[outcome]
	if !ok {
		i = c.outcome[forms[kms.Internal].name]
	}
	o.outcomes[i].Add(1)
	class := 0
	for class < len(latencyBounds) && d > latencyBounds[class] {
		class++
	}
	o.latency[class].Add(1)
	o.nanos.Add(int64(d))
}

// An OperationCount is what was counted of an operation.
type OperationCount struct {
	Operation string
	Outcomes  []OutcomeCount // those that occurred, by name

	// Latency has the number of requests that took no longer than each of LatencyBounds, in the same order, and longer than the one before; and at its end
	// of those that took longer than all. Total is how long all of them took together.
	Latency []int64
	Total   time.Duration
}

// An OutcomeCount says how often a request ended so: OutcomeOK, OutcomeGone, or the name of the error that was answered.
type OutcomeCount struct {
	Outcome string
	N       int64
}

// LatencyBounds returns the upper ends of the classes that latencies are counted in, ascending.
func LatencyBounds() []time.Duration { return slices.Clone(latencyBounds[:]) }

// Operations returns what was counted so far, of each operation that was requested, by name. Requests that are answered meanwhile are in some of the
// numbers and not in others.
func (c *Counts) Operations() []OperationCount {
	var all []OperationCount
	for _, name := range slices.Sorted(maps.Keys(c.operations)) {
		o := c.operations[name]
		count := OperationCount{Operation: name, Total: time.Duration(o.nanos.Load())}
		for i := range o.outcomes {
			if n := o.outcomes[i].Load(); n > 0 {
				count.Outcomes = append(count.Outcomes, OutcomeCount{c.outcomes[i], n})
			}
		}
		if count.Outcomes == nil {
			continue
		}
		for i := range o.latency {
			count.Latency = append(count.Latency, o.latency[i].Load())
		}
		all = append(all, count)
	}
	return all
}
