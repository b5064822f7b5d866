package worker

import (
	"context"
	"runtime"
	"slices"
	"sync"
)

// A line is a lane for calls that a token does sooner than they can be handed on from one process to another: SoftHSM needs ten microseconds for
// one, and to wake a thread of another process costs as much. So calls that come while others are on their way wait in line, and travel
// together: one message there, one back.
//
// Who comes first takes its own call there and those of who came meanwhile, and then leaves that to one of those who wait.
type line struct {
	lane *lane // of who drives

	mu      sync.Mutex // held for a look
	waiting []*traveller
	driven  bool
	closed  bool
}

// A traveller is a call in line.
type traveller struct {
	ctx  context.Context
	kind kind
	put  func(*frame)
	take func(kind, *fields) error

	err  error
	turn chan bool // true: it is done; false: it is to drive
}

// inLine reports whether calls of the kind go in line, if there is one.
func (k kind) inLine() bool { return k == kindSeal || k == kindOpenSealed || k == kindRandom }

// most is how many calls travel together: with more, the first to be done waits too long for the last. As many are sent to one worker before another gets any.
const most = 16

var travellers = sync.Pool{New: func() any { return &traveller{turn: make(chan bool, 1)} }}

// call makes a call. See [process.call].
func (l *line) call(ctx context.Context, p *process, k kind, put func(*frame), take func(kind, *fields) error) error {
	t := travellers.Get().(*traveller)
	t.ctx, t.kind, t.put, t.take, t.err = ctx, k, put, take, nil
	defer func() {
		t.ctx, t.put, t.take = nil, nil, nil
		travellers.Put(t)
	}()
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return errDied
	}
	l.waiting = append(l.waiting, t)
	drive := !l.driven
	l.driven = true
	l.mu.Unlock()
	if !drive && <-t.turn {
		return t.err
	}
	l.drive(p, t)
	return t.err
}

// drive takes those who wait there and back, t among them, who is the first.
func (l *line) drive(p *process, t *traveller) {
	if p.flying.Load() > 1 {
		runtime.Gosched() // others that can run may be about to come
	}
	l.mu.Lock()
	n := min(len(l.waiting), most)
	batch := slices.Clone(l.waiting[:n])
	l.waiting = slices.Delete(l.waiting, 0, n)
	l.mu.Unlock()

	batch = slices.DeleteFunc(batch, func(other *traveller) bool {
		late := other.ctx.Err()
		if late == nil || other == t {
			return false
		}
		other.err = late
		other.turn <- true
		return true
	})
	for _, t := range batch {
		l.lane.out.begin(t.kind)
		l.lane.out.number(milliseconds(t.ctx))
		t.put(&l.lane.out)
	}
	err := l.lane.write(&l.lane.out)
	for i, t := range batch {
		var k kind
		var answer fields
		if err == nil {
			k, answer, err = l.lane.next()
		}
		if err != nil {
			t.err = p.lost(t.ctx)
		} else {
			t.err = t.take(k, &answer)
		}
		if i > 0 {
			t.turn <- true
		}
	}
	l.lane.wipe()
	if err != nil {
		l.lane.forget()
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) > 0 {
		l.waiting[0].turn <- false
		return
	}
	l.driven = false
	if l.closed {
		l.lane.close()
	}
}

// finish lets nobody begin any more. The socket is closed when nobody uses it.
func (l *line) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if !l.driven {
		l.lane.close()
	}
}
