package worker

import (
	"errors"
	"sync/atomic"
	"time"
)

// stats are counted from the start. opened, failed and ends are under the lock of the Device.
type stats struct {
	opened, failed int64
	hung, died     atomic.Int64
	retried        atomic.Int64
	denied         atomic.Int64
}

// ended counts the end of a worker.
func (s *stats) ended(why error) {
	if errors.Is(why, errHung) {
		s.hung.Add(1)
	} else {
		s.died.Add(1)
	}
}

// Stats are what an operator wants to know of the workers.
type Stats struct {
	Ready   int           // workers that have the token open
	Workers int           // that there are to be
	Away    time.Duration // since when none has; 0 if one has
	Refused bool          // the PIN was refused: nothing is tried any more
	Opened  int64         // how many times a worker has opened the token
	Failed  int64         // how many times it could not
	Hung    int64         // workers that were ended because a call did not return
	Ended   int64         // workers that ended otherwise
	Retried int64         // calls that were made again
	Denied  int64         // calls that were answered at once, because the token is away
	Calls   int           // in progress
}

// Stats returns what is known now.
func (d *Device) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Stats{
		Ready: len(d.ready), Workers: d.config.Workers, Refused: d.refused != nil, Opened: d.stats.opened, Failed: d.stats.failed,
		Hung: d.stats.hung.Load(), Ended: d.stats.died.Load(), Retried: d.stats.retried.Load(), Denied: d.stats.denied.Load(),
	}
	if !d.away.IsZero() {
		s.Away = time.Since(d.away)
	}
	for _, p := range d.ready {
		s.Calls += int(p.flying.Load())
	}
	return s
}

// errHung is in the reason of a worker that ended because a call did not return.
var errHung = errors.New("a call into the PKCS#11 library did not return")
