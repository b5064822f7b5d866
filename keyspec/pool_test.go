package keyspec_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"strongroom/keyspec"
)

// A mint makes pairs that are no keys, but numbers that count up, so that each is known again.
type mint struct {
	takes  time.Duration // for a pair
	fail   atomic.Bool
	starve atomic.Bool // what is not Overdue goes on for ever

	made, busy, most atomic.Int64
	by               [3]atomic.Int64 // pairs of each urgency
}

var errMint = errors.New("no more numbers")

func (m *mint) Generate(ctx context.Context, s keyspec.Spec, u keyspec.Urgency) (*keyspec.Pair, error) {
	n := m.busy.Add(1)
	defer m.busy.Add(-1)
	m.most.Store(max(m.most.Load(), n))
	if m.fail.Load() {
		return nil, errMint
	}
	if m.starve.Load() && u != keyspec.Overdue {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	select {
	case <-time.After(m.takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	m.by[u].Add(1)
	return &keyspec.Pair{Spec: s, Private: binary.BigEndian.AppendUint64(nil, uint64(m.made.Add(1)))}, nil
}

func number(p *keyspec.Pair) int { return int(binary.BigEndian.Uint64(p.Private)) }

// A poolRig is a pool of numbers. Its clock is that of synctest.
type poolRig struct {
	*keyspec.Pool
	*mint
	t *testing.T
}

func withPool(t *testing.T, takes time.Duration, sizes map[keyspec.Spec]int, searches int, f func(r poolRig)) {
	synctest.Test(t, func(t *testing.T) {
		m := &mint{takes: takes}
		r := poolRig{keyspec.NewPool(keyspec.PoolOptions{Source: m, Sizes: sizes, Searches: searches}), m, t}
		defer r.Close()
		f(r)
	})
}

// get gets a pair, and returns it and how long that took.
func (r poolRig) get(principal string, s keyspec.Spec) (*keyspec.Pair, time.Duration) {
	r.t.Helper()
	began := time.Now()
	p, err := r.Get(r.t.Context(), principal, s)
	if err != nil {
		r.t.Errorf("%s: %v", principal, err)
		return &keyspec.Pair{Private: make([]byte, 8)}, 0
	}
	return p, time.Since(began)
}

func (r poolRig) stats(s keyspec.Spec) keyspec.PoolStats {
	for _, st := range r.Stats() {
		if st.Spec == s {
			return st
		}
	}
	return keyspec.PoolStats{}
}

func TestPoolFills(t *testing.T) {
	withPool(t, time.Second, map[keyspec.Spec]int{keyspec.RSA2048: 8, keyspec.RSA4096: 4, keyspec.P521: 4}, 2, func(r poolRig) {
		time.Sleep(8*time.Second + 1)
		synctest.Wait()
		for _, s := range []keyspec.Spec{keyspec.RSA2048, keyspec.RSA4096, keyspec.P521} {
			if st := r.stats(s); st.Ready != st.Size || st.Oldest == 0 || st.Made != int64(st.Size) {
				t.Errorf("after sixteen pairs were made, two a second: %+v", st)
			}
		}
		time.Sleep(time.Hour)
		if r.made.Load() != 16 || r.by[keyspec.Ahead].Load() != 16 {
			t.Errorf("%d were made", r.made.Load())
		}
		a, took := r.get("a", keyspec.RSA2048)
		b, _ := r.get("a", keyspec.RSA2048)
		if took != 0 || number(a) >= number(b) {
			t.Errorf("got pair %d after %v, and then pair %d", number(a), took, number(b))
		}
		time.Sleep(time.Second + 1)
		synctest.Wait()
		if st := r.stats(keyspec.RSA2048); st.Ready != 8 || st.Hits != 2 || st.Misses != 0 {
			t.Errorf("a second later: %+v", st)
		}
		if r.most.Load() != 2 {
			t.Errorf("%d were made at once", r.most.Load())
		}
	})
}

// What is not kept is made by the caller, unless that is a search.
func TestPoolOfNothing(t *testing.T) {
	withPool(t, time.Second, nil, 1, func(r poolRig) {
		if p, took := r.get("a", keyspec.Ed25519); took != 0 || len(p.Private) != 48 {
			t.Errorf("got %v after %v", p, took)
		}
		if _, took := r.get("a", keyspec.RSA3072); took != time.Second || r.by[keyspec.Wanted].Load() != 1 {
			t.Errorf("a search took %v", took)
		}
		if st := r.stats(keyspec.RSA3072); st.Misses != 1 || st.Waited != time.Second {
			t.Errorf("%+v", st)
		}
	})
}

// One who asks with 32 clients and never stops does not keep another who asks now and then from getting a ready pair.
func TestPoolShare(t *testing.T) {
	withPool(t, time.Second, map[keyspec.Spec]int{keyspec.RSA2048: 4, keyspec.RSA4096: 4}, 2, func(r poolRig) {
		time.Sleep(time.Minute)
		stop := make(chan struct{})
		var clients sync.WaitGroup
		var greedy atomic.Int64
		for range 32 {
			clients.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						r.get("greedy", keyspec.RSA4096)
						greedy.Add(1)
					}
				}
			})
		}
		const asked = 50
		for range asked {
			time.Sleep(2 * time.Minute)
			for _, s := range []keyspec.Spec{keyspec.RSA2048, keyspec.RSA4096} {
				if _, took := r.get("modest", s); took != 0 {
					t.Errorf("%s took %v", s, took)
				}
			}
		}
		close(stop)
		clients.Wait()
		// Two a second, but for what the other has got.
		if n := greedy.Load(); n < asked*2*60*2-2*asked-10 {
			t.Errorf("who asks all the time got %d", n)
		}
		// Nothing is made twice or thrown away.
		time.Sleep(time.Minute)
		if got := greedy.Load() + 2*asked + 8; got != r.made.Load() {
			t.Errorf("%d were made, %d are accounted for", r.made.Load(), got)
		}
	})
}

// Principals that wait have their turns, however many clients each of them has.
func TestPoolTurns(t *testing.T) {
	withPool(t, time.Second, nil, 2, func(r poolRig) {
		var clients sync.WaitGroup
		defer clients.Wait()
		for range 32 {
			clients.Go(func() { r.get("many", keyspec.RSA4096) })
		}
		time.Sleep(time.Second / 2)
		for i := range 3 {
			clients.Go(func() {
				if _, took := r.get(fmt.Sprint("one ", i), keyspec.RSA4096); took > 3*time.Second {
					t.Errorf("it took %v", took)
				}
			})
		}
	})
}

// Nobody waits for what is made ahead: a search is begun beside it.
func TestPoolWantedBesideAhead(t *testing.T) {
	withPool(t, 10*time.Second, map[keyspec.Spec]int{keyspec.RSA2048: 100}, 2, func(r poolRig) {
		time.Sleep(10*time.Second + 1)
		if _, took := r.get("a", keyspec.RSA4096); took > 10*time.Second+100*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		if r.by[keyspec.Overdue].Load() != 1 {
			t.Error("no search was overdue")
		}
	})
}

// While there is less room, fewer are made at once.
func TestPoolRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &mint{takes: time.Second}
		var room atomic.Int64
		room.Store(1)
		p := keyspec.NewPool(keyspec.PoolOptions{
			Source: m, Sizes: map[keyspec.Spec]int{keyspec.RSA2048: 100}, Searches: 4, Room: func() int { return int(room.Load()) },
		})
		defer p.Close()
		time.Sleep(10*time.Second + time.Second/2)
		if n, most := m.made.Load(), m.most.Load(); n != 10 || most != 1 {
			t.Errorf("with room for one, %d were made, %d at once", n, most)
		}
		room.Store(4)
		time.Sleep(10 * time.Second)
		if n := m.made.Load(); n < 45 || n > 50 || m.most.Load() != 4 {
			t.Errorf("with room for four, %d were made after that, %d at once", n-10, m.most.Load())
		}
		room.Store(0)
		time.Sleep(10 * time.Second)
		if n := m.made.Load(); n < 50 {
			t.Errorf("without room nothing is made: %d", n)
		}
	})
}

func TestPoolStarved(t *testing.T) {
	withPool(t, time.Second, nil, 2, func(r poolRig) {
		r.starve.Store(true)
		var clients sync.WaitGroup
		defer clients.Wait()
		for range 4 {
			clients.Go(func() {
				if _, took := r.get("a", keyspec.RSA4096); took > 9*time.Second {
					t.Errorf("it took %v", took)
				}
			})
		}
	})
}

// A caller who goes away leaves a pair for the next.
func TestPoolCallerGone(t *testing.T) {
	withPool(t, time.Second, map[keyspec.Spec]int{keyspec.RSA2048: 4}, 1, func(r poolRig) {
		time.Sleep(time.Minute)
		for range 3 {
			r.get("a", keyspec.RSA2048)
		}
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Second/2)
		defer cancel()
		if _, err := r.Get(ctx, "a", keyspec.RSA2048); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		time.Sleep(time.Minute)
		if st := r.stats(keyspec.RSA2048); st.Ready != 4 || st.Waiting != 0 || r.made.Load() != 7 {
			t.Errorf("%+v, %d made", st, r.made.Load())
		}
	})
}

func TestPoolSourceFails(t *testing.T) {
	withPool(t, time.Second, map[keyspec.Spec]int{keyspec.RSA2048: 4}, 1, func(r poolRig) {
		time.Sleep(time.Minute)
		r.fail.Store(true)
		for range 3 {
			r.get("a", keyspec.RSA2048)
		}
		if _, err := r.Get(r.t.Context(), "a", keyspec.RSA2048); !errors.Is(err, errMint) {
			t.Errorf("got %v", err)
		}
		time.Sleep(time.Hour)
		r.fail.Store(false)
		time.Sleep(time.Minute + 4*time.Second)
		if st := r.stats(keyspec.RSA2048); st.Ready != 4 {
			t.Errorf("a minute after the source works again: %+v", st)
		}
	})
}

func TestPoolClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &mint{takes: time.Minute / 4}
		m.made.Store(1 << 62)
		var memory []byte
		p := keyspec.NewPool(keyspec.PoolOptions{
			Source: m, Sizes: map[keyspec.Spec]int{keyspec.RSA2048: 4}, Searches: 1,
			Memory: func(size int) []byte { memory = make([]byte, size); return memory },
		})
		if want := keyspec.PoolSize(map[keyspec.Spec]int{keyspec.RSA2048: 4}); len(memory) != want {
			t.Errorf("%d bytes were asked for, of %d", len(memory), want)
		}
		time.Sleep(time.Minute + 1)
		synctest.Wait()
		if allZero(memory) {
			t.Error("nothing is in the memory for private keys")
		}
		r := poolRig{p, m, t}
		var kept []*keyspec.Pair
		for range 3 {
			pair, _ := r.get("a", keyspec.RSA2048)
			kept = append(kept, pair)
		}
		failed := make(chan error)
		go func() {
			_, err := p.Get(t.Context(), "a", keyspec.RSA2048)
			failed <- err
		}()
		time.Sleep(time.Second)
		p.Close()
		if err := <-failed; err == nil {
			t.Error("who waited got a pair")
		}
		if _, err := p.Get(t.Context(), "a", keyspec.RSA2048); err == nil {
			t.Error("a closed pool gives pairs")
		}
		if !allZero(memory) {
			t.Error("private keys are left in memory")
		}
		for i, pair := range kept {
			if number(pair) != 1<<62+1+i {
				t.Errorf("pair %d has changed", i)
			}
		}
		p.Close()
	})
}

// Each pair is handed out once.
func TestPoolOnce(t *testing.T) {
	m := &mint{}
	p := keyspec.NewPool(keyspec.PoolOptions{Source: m, Sizes: map[keyspec.Spec]int{keyspec.RSA2048: 16}, Searches: 4})
	defer p.Close()
	var mu sync.Mutex
	seen := make(map[int]bool)
	var clients sync.WaitGroup
	for i := range 16 {
		clients.Go(func() {
			for n := range 500 {
				ctx, cancel := t.Context(), func() {}
				if n%3 == 0 {
					ctx, cancel = context.WithTimeout(ctx, time.Duration(n)*time.Microsecond)
				}
				pair, err := p.Get(ctx, fmt.Sprint(i%3), keyspec.RSA2048)
				cancel()
				if err != nil {
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
					continue
				}
				mu.Lock()
				if seen[number(pair)] {
					t.Errorf("pair %d was handed out twice", number(pair))
				}
				seen[number(pair)] = true
				mu.Unlock()
				pair.Wipe()
			}
		})
	}
	clients.Wait()
}
