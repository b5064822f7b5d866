package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	rounds   = 6       // A B A B …; benchstat wants six for an interval of 95 %
	slowMin  = 6       // requests in a slice of a slow operation
	sliceMax = 400_000 // requests in any slice
	patience = 3 * time.Minute
)

// load has clients ask at once, each waiting for its answer before it asks again, for a time: at least as often as least says, whatever the time.
func load(ctx context.Context, clients, least int, length time.Duration, ask func(client int) error) (slice, error) {
	var (
		wg        sync.WaitGroup
		begun     atomic.Int64
		gate      = make(chan struct{})
		start     time.Time
		latencies = make([][]time.Duration, clients)
		errs      = make([]error, clients)
	)
	for i := range clients {
		wg.Go(func() {
			<-gate
			for {
				began := time.Now()
				n := begun.Add(1)
				if n > sliceMax || n > int64(least) && began.Sub(start) >= length || ctx.Err() != nil {
					return
				}
				if errs[i] = ask(i); errs[i] != nil {
					begun.Add(sliceMax) // the others need not go on
					return
				}
				latencies[i] = append(latencies[i], time.Since(began))
			}
		})
	}
	start = time.Now()
	close(gate)
	wg.Wait()
	s := slice{elapsed: time.Since(start)}
	for i, err := range errs {
		if err != nil {
			return s, err
		}
		s.latencies = append(s.latencies, latencies[i]...)
	}
	return s, ctx.Err()
}

// A target is a server and how an operation is asked of it.
type target struct {
	address string
	path    string
	slack   int // by how many bytes an answer may differ from the first one
}

// of is the target of an operation that a strongroom answers. Pairs and their encodings differ in size.
func (s *server) of(o *op) target { return target{s.address, "/", o.size/20 + 16} }

// like is the target of an empty server that answers with as many bytes.
func (s *server) like(o *op, prefix string) target {
	return target{s.address, prefix + "/" + strconv.Itoa(o.size), 0}
}

// ask loads a target over connections that are open. An answer that is not 200, or is of another size than it should be, is an error.
func (t target) ask(ctx context.Context, conns []*conn, key accessKey, o *op, least int, length time.Duration) (slice, error) {
	request := key.request(t.address, t.path, o.target, o.body)
	for _, c := range conns {
		c.SetDeadline(time.Now().Add(length + patience))
	}
	return load(ctx, len(conns), least, length, func(i int) error {
		answer, err := conns[i].do(request)
		if err != nil {
			return err
		}
		if d := len(answer) - o.size; d > t.slack || -d > t.slack || answer[0] != '{' {
			return fmt.Errorf("an answer of %d bytes, where %d were expected", len(answer), o.size)
		}
		return nil
	})
}

// inTurns asks targets for one operation, in turns, for the given time each.
func inTurns(ctx context.Context, o *op, clients int, length time.Duration, key accessKey, targets ...target) (parts [][]slice, err error) {
	conns := make([][]*conn, len(targets))
	defer func() {
		for _, c := range conns {
			hangUp(c)
		}
	}()
	for i, t := range targets {
		if conns[i], err = dialAll(t.address, clients); err != nil {
			return nil, err
		}
	}
	n, least := rounds, clients
	if o.slow {
		n, least = 2, max(clients, slowMin)
	}
	if o.slow && clients > 2*slowMin {
		n = 1 // so many at once are a mean already
	}
	parts = make([][]slice, len(targets))
	for range n {
		for i, t := range targets {
			s, err := t.ask(ctx, conns[i], key, o, least, length/time.Duration(n))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", t.path, err)
			}
			parts[i] = append(parts[i], s)
		}
	}
	return parts, nil
}
