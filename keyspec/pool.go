package keyspec

import (
	"context"
	"errors"
	"sync"
	"time"
)

// A Pool has pairs ready before anybody asks for them, in memory only. Pairs have nothing to do with who gets them, so nothing is lost by
// making them early. Each is handed out once, the oldest first, and then forgotten.
//
// A principal is whoever asks; the pool only tells one from another. Of each spec's pairs the last quarter is kept for principals who have got
// none of the spec for a minute, so that one who asks all the time does not empty the pool for those who ask now and then. A spec
// that searches for primes and has nothing ready has its callers wait in a queue, in which each principal has its turn in rotation, and so has
// what is kept while it is not all there. Who waits has a search of its own begun at its turn, and gets the first pair that
// is found for anybody at that turn. Pairs of other specs are made by the caller itself, at once.
//
// A Pool is safe for concurrent use.
type Pool struct {
	source Source
	room   func() int
	ctx    context.Context // of searches
	stop   context.CancelFunc
	runs   sync.WaitGroup

	mu      sync.Mutex // held for a look
	work    *sync.Cond // something has changed that runners wait for
	shelves []*shelf   // by Spec; nil for none
	lines   []*line    // who waits, by principal, in the order of their turns
	crowded bool       // a search looks again for room soon
	closed  bool
	turned  time.Time     // when takers of all shelves last became those of the minute before
	resume  time.Time     // before that nothing is made ahead, because that failed
	pause   time.Duration // how long it was the last time
}

// A Source makes pairs for a [Pool]. It is safe for concurrent use.
type Source interface {
	// Generate makes a pair, unrelated to any other, or returns an error when ctx ends. The caller wipes it.
	Generate(ctx context.Context, s Spec, u Urgency) (*Pair, error)
}

// An Urgency says who waits for a pair.
type Urgency uint8

const (
	// Ahead is for nobody yet, and must not slow anything that is for somebody.
	Ahead Urgency = iota

	// Wanted is for somebody who waits, and must not slow other work either: there may be none to do.
	Wanted

	// Overdue is for somebody who waits while what is Wanted does not get on, because other work leaves nothing for it. One is asked for at a
	// time; it is to get on slowly.
	Overdue
)

// PoolOptions say what a [Pool] has ready.
type PoolOptions struct {
	// Source makes the pairs of the pool, and all others that need a search for primes.
	Source Source

	// Sizes is how many pairs of each spec there are to be. Of others there are none.
	Sizes map[Spec]int

	// Searches is how many pairs are made at once, at least one. One more may be that is Overdue.
	Searches int

	// Room returns how many pairs may be made at once now, so that one that is not begun for want of room is begun soon after there is some. It must return
	// at once. Default: Searches.
	Room func() int

	// Memory returns zeroed memory for the private keys that are ready, as much as [PoolSize] says, which the pool wipes and does not give back. Default: memory of Go.
	Memory func(size int) []byte
}

// Bounds of patience.
const (
	// quiet is how long a principal gets no pair before it may have one of those that are kept. It is counted in minutes by the clock of the pool,
	// so that it may be up to twice as long.
	quiet = time.Minute

	// unheard is how long a caller waits without any search for callers having begun, and starved how long a search has been going on that was to
	// take a second or two, before a search is Overdue.
	unheard = 100 * time.Millisecond
	starved = 5 * time.Second

	// crowded is how long a search that there was no room for waits before it looks again.
	crowded = 250 * time.Millisecond

	// Nothing is made ahead for a while after that failed, longer each time.
	pauseMin, pauseMax = time.Second, time.Minute
)

// A shelf has the ready pairs of one spec.
type shelf struct {
	spec  Spec
	size  int
	kept  int      // how many of size are for who has got none lately
	ready []boxed  // the oldest first
	free  [][]byte // memory for private keys

	searches []*search // in progress
	waiting  int       // callers

	takers, before map[string]bool // principals that got a pair, in this minute and the one before
	stats          PoolStats
}

// A boxed is a pair that is ready.
type boxed struct {
	public  []byte
	private []byte // in memory of the pool
	made    time.Time
}

// A line has the callers of one principal that wait. The line of the pool has none: it stands for what is kept of all shelves.
type line struct {
	principal string
	waiters   []*waiter
	kept      bool
}

// A search is one pair in the making.
type search struct {
	shelf   *shelf
	urgency Urgency
	began   time.Time
}

// A waiter is one caller that waits.
type waiter struct {
	spec  Spec
	since time.Time
	got   chan given // one value
}

type given struct {
	pair *Pair
	err  error
}

var errPoolClosed = errors.New("the pool of key pairs is closed")

// PoolSize returns how much memory for private keys a pool of such sizes asks for, in bytes.
func PoolSize(sizes map[Spec]int) int {
	total := 0
	for s, n := range sizes {
		total += n * s.room()
	}
	return total
}

// NewPool returns a pool that begins to fill. It has to be closed.
func NewPool(o PoolOptions) *Pool {
	o.Searches = max(1, o.Searches)
	if o.Room == nil {
		o.Room = func() int { return o.Searches }
	}
	p := &Pool{source: o.Source, room: o.Room, shelves: make([]*shelf, len(table)), lines: []*line{{kept: true}}, turned: time.Now()}
	p.work = sync.NewCond(&p.mu)
	p.ctx, p.stop = context.WithCancel(context.Background())
	if o.Memory == nil {
		o.Memory = func(size int) []byte { return make([]byte, size) }
	}
	memory := o.Memory(PoolSize(o.Sizes))
	for _, s := range All() {
		n := o.Sizes[s]
		if n == 0 && !s.SearchesPrimes() {
			continue
		}
		sh := &shelf{spec: s, size: n, kept: (n + 3) / 4, takers: make(map[string]bool), stats: PoolStats{Spec: s, Size: n}}
		for range n {
			sh.free = append(sh.free, memory[:s.room():s.room()])
			memory = memory[s.room():]
		}
		p.shelves[s] = sh
	}
	for range o.Searches {
		p.runs.Go(func() { p.run(p.next) })
	}
	p.runs.Go(func() { p.run(p.overdue) })
	return p
}

// Get returns a pair, which the caller wipes. It is an error if ctx ends before there is one.
func (p *Pool) Get(ctx context.Context, principal string, s Spec) (*Pair, error) {
	if _, err := s.row(); err != nil {
		return nil, err
	}
	p.mu.Lock()
	sh := p.shelves[s]
	if p.closed || sh == nil {
		closed := p.closed
		p.mu.Unlock()
		if closed {
			return nil, errPoolClosed
		}
		return s.Generate()
	}
	p.turn()
	if len(sh.ready) > sh.kept || len(sh.ready) > 0 && !sh.takers[principal] && !sh.before[principal] {
		pair := sh.take(principal)
		sh.stats.Hits++
		p.work.Broadcast()
		p.mu.Unlock()
		return pair, nil
	}
	sh.stats.Misses++
	if !s.SearchesPrimes() {
		sh.takers[principal] = true
		p.mu.Unlock()
		return s.Generate()
	}
	w := &waiter{spec: s, since: time.Now(), got: make(chan given, 1)}
	p.join(principal, w)
	p.mu.Unlock()

	hurry := time.AfterFunc(unheard, p.wake)
	defer hurry.Stop()
	select {
	case g := <-w.got:
		return g.pair, g.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.leave(principal, w) {
		if g := <-w.got; g.err == nil { // at the same moment
			p.hand(g.pair)
		}
	}
	return nil, ctx.Err()
}

// Close ends the searches, wipes what is ready, and has callers that wait get an error.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	for _, l := range p.lines {
		for _, w := range l.waiters {
			p.shelves[w.spec].waiting--
			w.got <- given{err: errPoolClosed}
		}
	}
	p.lines = nil
	for _, sh := range p.shelves {
		if sh == nil {
			continue
		}
		for _, b := range sh.ready {
			clear(b.private[:cap(b.private)])
		}
		sh.ready = nil
	}
	p.work.Broadcast()
	p.mu.Unlock()
	p.stop()
	p.runs.Wait()
}

// run makes pairs as next says, until it says no.
func (p *Pool) run(next func() (*search, bool)) {
	for {
		job, ok := next()
		if !ok {
			return
		}
		hurry := time.AfterFunc(starved, p.wake)
		pair, err := p.source.Generate(p.ctx, job.shelf.spec, job.urgency)
		hurry.Stop()
		p.ended(job, pair, err)
	}
}

func (p *Pool) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.work.Broadcast()
}
