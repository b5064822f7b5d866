package audit

import "time"

// A gathering is what is known of records that are about to come, so that those who come at about the same time share a write to the disk. Without it
// the first would be written alone, and all others would have to wait for that and then for theirs: of eight callers who each wait for an answer
// before they ask again, two share a write.
//
// It is worth waiting for others if somebody is likely to come meanwhile: not where the device needs many milliseconds for each request.
type gathering struct {
	coming  int           // records that were announced and have not come
	since   time.Time     // when the first of the queue came
	takes   time.Duration // from the announcement of a record until it comes; a moving mean
	write   time.Duration // how long a batch is written; a moving mean
	urgent  bool          // there is something in the queue that waits for nobody
	waiting bool          // there is a timer that ends the wait
}

const (
	// gatherWrites is for how many writes' time the first of a batch waits for others at most: what they save is not the disk's time alone, but
	// also what each write costs the machine.
	gatherWrites = 8

	// gatherMost is how long it waits on a slow disk.
	gatherMost = 2 * time.Millisecond

	// gatherFar is how long a record takes to come that takes very long, as one of a search for primes: more would be remembered for too long.
	gatherFar = 8 * gatherMost
)

// Expect announces a record that will be appended soon, with Expected, if nothing goes wrong.
func (l *Log) Expect() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gathering.coming++
}

// came notes that a record came, which had been announced at that time, if at all. One that was given up counts as another that is still to come, so that a
// batch may be written a little early.
func (g *gathering) came(announced, now time.Time) {
	if announced.IsZero() {
		return
	}
	g.coming = max(0, g.coming-1)
	g.takes += (min(now.Sub(announced), gatherFar) - g.takes) / 16
}

// wrote notes how long it took to write a batch.
func (l *Log) wrote(took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gathering.write += (min(took, gatherMost) - l.gathering.write) / 16
}

// patience returns how long the first of a batch waits for those who are coming.
func (g *gathering) patience(most time.Duration) time.Duration {
	p := min(gatherWrites*g.write, most)
	if time.Duration(g.coming)*p < 2*g.takes {
		return 0 // in that time hardly anybody will come
	}
	return p
}

// lead reports whether the caller is to write what is in the queue now. If not, somebody else does: who writes already, who comes last of those who
// are expected, or in the end a timer. l.mu must be held.
func (l *Log) lead(now time.Time) bool {
	g := &l.gathering
	if l.busy || len(l.queue) == 0 {
		return false
	}
	if left := g.patience(l.o.gather) - now.Sub(g.since); g.coming > 0 && !g.urgent && l.failed == nil && left > 0 {
		if !g.waiting {
			g.waiting = true
			time.AfterFunc(left, l.late)
		}
		return false
	}
	l.busy = true
	return true
}

// late ends the wait for records that do not come.
func (l *Log) late() {
	l.mu.Lock()
	g := &l.gathering
	g.waiting = false
	now := time.Now()
	if len(l.queue) > 0 && now.Sub(g.since) >= g.patience(l.o.gather) {
		g.coming = 0
	}
	lead := l.lead(now) // or waits on, if the queue has become another one
	l.mu.Unlock()
	if lead {
		l.write()
	}
}
