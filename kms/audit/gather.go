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
	waiting bool          // there is a timer that ends the wait
}

const (
	// gatherWrites is for how many writes' time the first of a batch waits for others at most: what they save is not the disk's time alone, but
	// also what each write costs the machine.
	gatherWrites = 8

	// gatherMost is how long it waits on a slow disk.
	gatherMost = 2 * time.Millisecond
)

// Expect announces a record that will be appended soon, with [Record].Expected, if nothing goes wrong.
func (l *Log) Expect() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gathering.coming++
}

// came notes that a record came, which had been announced at that time.
func (g *gathering) came(expected, now time.Time) {
	if expected.IsZero() {
		return
	}
	g.coming = max(0, g.coming-1) // who was late is not among them any more
	g.takes += (min(now.Sub(expected), time.Second) - g.takes) / 16
}

// wrote notes how long a batch took.
func (g *gathering) wrote(took time.Duration) { g.write += (took - g.write) / 16 }

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
	if left := g.patience(l.o.gather) - now.Sub(g.since); g.coming > 0 && l.failed == nil && left > 0 {
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
