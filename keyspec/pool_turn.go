package keyspec

import (
	"slices"
	"time"
)

// next waits for the next search for one of those that make what is Wanted and, while all that is in the making, what is to be there Ahead.
func (p *Pool) next() (*search, bool) {
	return p.wait(func() (*shelf, Urgency) {
		sh, u := p.wanting(), Wanted
		if sh == nil {
			sh, u = p.lacking(), Ahead
		}
		if sh != nil && p.running() >= max(1, p.room()) {
			if !p.crowded {
				p.crowded = true
				time.AfterFunc(crowded, func() {
					p.mu.Lock()
					defer p.mu.Unlock()
					p.crowded = false
					p.work.Broadcast()
				})
			}
			return nil, u
		}
		return sh, u
	})
}

// overdue waits for the next search that is Overdue.
func (p *Pool) overdue() (*search, bool) {
	return p.wait(func() (*shelf, Urgency) { return p.late(), Overdue })
}

// wait waits until choose has a shelf to search for, or the pool is closed.
func (p *Pool) wait(choose func() (*shelf, Urgency)) (*search, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.closed {
		if sh, u := choose(); sh != nil {
			job := &search{sh, u, time.Now()}
			sh.searches = append(sh.searches, job)
			return job, true
		}
		p.work.Wait()
	}
	return nil, false
}

// The caller of what follows holds the lock.

// running returns how many searches are in progress but for those that are Overdue.
func (p *Pool) running() int {
	n := 0
	for _, sh := range p.shelves {
		if sh != nil {
			n += len(sh.searches) - sh.count(Overdue)
		}
	}
	return n
}

// wanting returns the shelf of the first in turn for which there is no search in progress, or nil.
func (p *Pool) wanting() *shelf {
	if len(p.lines) <= 1 {
		return nil // nobody waits
	}
	var covered [len(table)]int // searches for callers
	for _, sh := range p.shelves {
		if sh != nil {
			covered[sh.spec] = len(sh.searches) - sh.count(Ahead)
		}
	}
	cover := func(s Spec) bool {
		covered[s]--
		return covered[s] >= 0
	}
	for round, more := 0, true; more; round++ {
		more = false
		for _, l := range p.lines {
			if l.kept && round == 0 && !time.Now().Before(p.resume) {
				for _, sh := range p.shelves {
					if sh != nil && len(sh.ready)+sh.count(Ahead) < sh.kept && !cover(sh.spec) {
						return sh
					}
				}
			}
			if round < len(l.waiters) {
				more = true
				if s := l.waiters[round].spec; !cover(s) {
					return p.shelves[s]
				}
			}
		}
	}
	return nil
}

// lacking returns the shelf that is the emptiest, as a share of its size, or nil if all are full, or will be when what is in progress has ended.
func (p *Pool) lacking() *shelf {
	if time.Now().Before(p.resume) {
		return nil
	}
	var most *shelf
	will := func(sh *shelf) int { return len(sh.ready) + max(sh.count(Ahead), len(sh.searches)-sh.waiting) }
	for _, sh := range p.shelves {
		if sh != nil && will(sh) < sh.size && (most == nil || will(sh)*most.size < will(most)*sh.size) {
			most = sh
		}
	}
	return most
}

// late returns the shelf whose callers have waited for too long, or nil.
func (p *Pool) late() *shelf {
	begun := false
	for _, sh := range p.shelves {
		if sh == nil || sh.waiting == 0 {
			continue
		}
		for _, job := range sh.searches {
			if job.urgency != Ahead {
				begun = true
				if time.Since(job.began) >= starved {
					return sh
				}
			}
		}
	}
	if begun {
		return nil
	}
	for _, l := range p.lines {
		if len(l.waiters) > 0 && time.Since(l.waiters[0].since) >= unheard {
			return p.shelves[l.waiters[0].spec]
		}
	}
	return nil
}

// ended keeps what came of a search.
func (p *Pool) ended(job *search, pair *Pair, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	sh := job.shelf
	sh.searches = slices.DeleteFunc(sh.searches, func(j *search) bool { return j == job })
	switch {
	case err == nil:
		sh.stats.Made++
		p.pause = 0
		p.hand(pair)
	default:
		p.pause = min(max(pauseMin, 2*p.pause), pauseMax)
		p.resume = time.Now().Add(p.pause)
		time.AfterFunc(p.pause, p.wake)
		if job.urgency != Ahead {
			p.give(sh, given{err: err})
		}
	}
	p.work.Broadcast()
}

// hand gives a pair to who is next in turn for one, or keeps it; or wipes it, if there is no room.
func (p *Pool) hand(pair *Pair) {
	sh := p.shelves[pair.Spec]
	if p.closed || !p.give(sh, given{pair: pair}) && !sh.put(pair) {
		pair.Wipe()
	}
}

// give gives a pair, or an error in place of one, to who is next in turn, unless that is the shelf.
func (p *Pool) give(sh *shelf, g given) bool {
	if sh.waiting == 0 {
		return false
	}
	for i, l := range p.lines {
		if l.kept && g.err == nil && len(sh.ready) < sh.kept {
			p.lines = append(slices.Delete(p.lines, i, i+1), l)
			return false
		}
		j := slices.IndexFunc(l.waiters, func(w *waiter) bool { return w.spec == sh.spec })
		if j < 0 {
			continue
		}
		w := l.waiters[j]
		l.waiters = slices.Delete(l.waiters, j, j+1)
		p.lines = slices.Delete(p.lines, i, i+1)
		if len(l.waiters) > 0 {
			p.lines = append(p.lines, l)
		}
		sh.waiting--
		sh.stats.Waited += time.Since(w.since)
		if g.err == nil {
			sh.takers[l.principal] = true
		}
		w.got <- g
		return true
	}
	return false
}

// join puts a caller at the end of the line of its principal.
func (p *Pool) join(principal string, w *waiter) {
	i := slices.IndexFunc(p.lines, func(l *line) bool { return !l.kept && l.principal == principal })
	switch {
	case i >= 0:
	case len(p.lines) == 1: // the first who waits does not wait for what is kept
		i = 0
		p.lines = []*line{{principal: principal}, p.lines[0]}
	default:
		i = len(p.lines)
		p.lines = append(p.lines, &line{principal: principal})
	}
	p.lines[i].waiters = append(p.lines[i].waiters, w)
	p.shelves[w.spec].waiting++
	p.work.Broadcast()
}

// leave takes a caller out of its line, and reports whether it was still there.
func (p *Pool) leave(principal string, w *waiter) bool {
	for i, l := range p.lines {
		j := slices.Index(l.waiters, w)
		if j < 0 {
			continue
		}
		l.waiters = slices.Delete(l.waiters, j, j+1)
		if len(l.waiters) == 0 {
			p.lines = slices.Delete(p.lines, i, i+1)
		}
		p.shelves[w.spec].waiting--
		return true
	}
	return false
}

// turn begins another minute, if one is over.
func (p *Pool) turn() {
	minutes := time.Since(p.turned) / quiet
	if minutes == 0 {
		return
	}
	p.turned = p.turned.Add(minutes * quiet)
	for _, sh := range p.shelves {
		if sh == nil {
			continue
		}
		sh.before = sh.takers
		if minutes > 1 {
			sh.before = nil
		}
		sh.takers = make(map[string]bool)
	}
}

// put keeps a pair in memory of the pool, and wipes it. It reports whether there was room.
func (sh *shelf) put(pair *Pair) bool {
	last := len(sh.free) - 1
	if last < 0 || len(pair.Private) > cap(sh.free[last]) {
		return false
	}
	b := boxed{public: pair.Public, private: sh.free[last][:len(pair.Private)], made: time.Now()}
	copy(b.private, pair.Private)
	pair.Wipe()
	sh.free = sh.free[:last]
	sh.ready = append(sh.ready, b)
	return true
}

// take takes the oldest pair.
func (sh *shelf) take(principal string) *Pair {
	b := sh.ready[0]
	sh.ready = slices.Delete(sh.ready, 0, 1)
	pair := &Pair{Spec: sh.spec, Public: b.public, Private: append([]byte(nil), b.private...)}
	clear(b.private)
	sh.free = append(sh.free, b.private[:cap(b.private)])
	sh.takers[principal] = true
	return pair
}

// count returns how many searches of an urgency are in progress.
func (sh *shelf) count(u Urgency) int {
	n := 0
	for _, job := range sh.searches {
		if job.urgency == u {
			n++
		}
	}
	return n
}

// room returns how much memory a private key of s needs, at most.
func (s Spec) room() int {
	r, err := s.row()
	if err != nil {
		return 0
	}
	return r.keys.room() + envelope
}

// PoolStats are what an operator wants to know of the pairs of one spec. All but Ready, Waiting and Oldest count from the start.
type PoolStats struct {
	Spec    Spec
	Size    int           // how many pairs there are to be
	Ready   int           // how many there are
	Oldest  time.Duration // age of the oldest, 0 if there is none
	Hits    int64         // callers that got a ready pair
	Misses  int64         // callers for whom there was none
	Waiting int           // those that wait
	Waited  time.Duration // how long those waited, together, that do not wait any more
	Made    int64         // pairs made by the source
}

// Stats returns what is known now, for each spec that there are to be pairs of or that searches for primes, in the order of [All].
func (p *Pool) Stats() []PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []PoolStats
	for _, sh := range p.shelves {
		if sh == nil {
			continue
		}
		s := sh.stats
		s.Ready, s.Waiting = len(sh.ready), sh.waiting
		if len(sh.ready) > 0 {
			s.Oldest = time.Since(sh.ready[0].made)
		}
		all = append(all, s)
	}
	return all
}
