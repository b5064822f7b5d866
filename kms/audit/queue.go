package audit

import (
	"context"
	"runtime"
	"sync"
	"time"
)

// A pending is a line that waits to be written, or something else that only the writer may do.
type pending struct {
	body   []byte // the line up to its trailer
	do     func() error
	record bool       // not a checkpoint
	done   chan error // of one element, so that the writer never waits for a reader
}

var pendings = sync.Pool{New: func() any { return &pending{done: make(chan error, 1)} }}

func release(p *pending) {
	if cap(p.body) <= keepBuffer {
		pendings.Put(p)
	}
}

// submit puts p, which was announced at that time if at all, into the queue. If lead is true, the caller is the writer.
func (l *Log) submit(p *pending, announced time.Time) (lead bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.gathering.came(announced, now)
	if p.record && l.closed {
		return false, errClosed
	}
	if p.record && l.failed != nil && time.Since(l.tried) < l.o.retryPause {
		l.refused++
		return false, l.failed
	}
	if len(l.queue) == 0 {
		l.gathering.since = now
	}
	if l.queue = append(l.queue, p); !p.record {
		l.gathering.urgent = true
	}
	return l.lead(now), nil
}

// write writes until there is nothing to write yet.
func (l *Log) write() {
	for {
		// Goroutines that can run may be about to append: with them in the batch, each waits for the disk once and not twice.
		runtime.Gosched()
		if !l.writeQueue() {
			return
		}
	}
}

// writeQueue writes what is in the queue, and reports whether there is more by then. If not, its caller is not the writer any more.
func (l *Log) writeQueue() (more bool) {
	defer func() {
		// A caller may recover from a panic, but a log in the middle of a write cannot: nobody else would ever write.
		if p := recover(); p != nil {
			go panic(p)
			select {}
		}
	}()
	l.mu.Lock()
	l.batch, l.queue = l.queue, l.batch[:0]
	l.gathering.urgent = false
	l.mu.Unlock()

	err := l.writeBatch(l.batch)
	for i, p := range l.batch {
		l.batch[i] = nil
		if p.do != nil {
			p.done <- p.do()
		} else {
			p.done <- err
		}
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = false
	return l.lead(time.Now())
}

// exclusive has the writer do something, and waits for it.
func (l *Log) exclusive(ctx context.Context, f func() error) error {
	p := &pending{do: f, done: make(chan error, 1)}
	if lead, err := l.submit(p, time.Time{}); err != nil {
		return err
	} else if lead {
		go l.write()
	}
	select {
	case err := <-p.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
