package kms

import (
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

func newTestCaches(limit int64) (m *memory, small, large *cache[int, int]) {
	m = &memory{limit: limit}
	return m, newCache(m, func(int, int) int { return 0 }), newCache(m, func(_, v int) int { return v })
}

func remembers(c *cache[int, int], k int) bool {
	_, err := c.get(k, true, func() (int, error) { return 0, errors.New("not there") })
	return err == nil
}

func put(c *cache[int, int], k, v int) {
	c.get(k, false, func() (int, error) { return v, nil })
}

// Caches that share a memory never take more than it has, whatever is put into which; and what is used stays.
func TestCacheBound(t *testing.T) {
	const limit = 100_000
	m, small, large := newTestCaches(limit)
	most := int64(0)
	put(small, -1, 0)
	for i := range 100_000 {
		if i%3 == 0 {
			put(large, rand.IntN(1000), rand.IntN(limit/largest))
		} else {
			put(small, rand.IntN(100_000), 0)
		}
		if rand.IntN(10) == 0 {
			large.forget(rand.IntN(1000))
		}
		if i%10_007 == 0 {
			small.forgetAll()
			put(small, -1, 0)
		}
		if !remembers(small, -1) {
			t.Fatalf("after %d entries one that is used all the time is forgotten", i)
		}
		s, l := small.stats(), large.stats()
		if most = max(most, s.Bytes+l.Bytes); s.Bytes < 0 || l.Bytes < 0 || most > limit {
			t.Fatalf("after %d entries %d and %d bytes are taken", i, s.Bytes, l.Bytes)
		}
	}
	if most < limit*3/4 {
		t.Errorf("at most %d bytes of %d were taken", most, limit)
	}
	// What the counters say is what is there.
	for _, c := range []*cache[int, int]{small, large} {
		sum := int64(0)
		for _, generation := range []map[int]int{c.young, c.old} {
			for k, v := range generation {
				sum += c.size(k, v)
			}
		}
		if sum != c.youngCost+c.oldCost {
			t.Errorf("%d bytes are remembered, %d counted", sum, c.youngCost+c.oldCost)
		}
	}
	if sum := small.youngCost + large.youngCost; sum != m.young.Load() {
		t.Errorf("%d bytes are young, %d counted", sum, m.young.Load())
	}
	put(large, 5000, limit/largest) // and entryCost
	if remembers(large, 5000) {
		t.Error("an entry that takes very much is remembered")
	}
}

// One thing is forgotten and no other.
func TestCacheForgetsOne(t *testing.T) {
	_, small, _ := newTestCaches(1 << 20)
	for turn := range 2 {
		for k := range 10 {
			put(small, k, k)
		}
		if turn == 1 {
			small.turn() // they are in the old generation
		}
		small.forget(3)
		for k := range 10 {
			if remembers(small, k) != (k != 3) {
				t.Errorf("%d: remembered is %v", k, k == 3)
			}
		}
	}
	// A value that was being read when something was forgotten is not remembered: it may be from before.
	small.get(20, true, func() (int, error) { small.forget(20); return 1, nil })
	if remembers(small, 20) {
		t.Error("what was read before a forget is remembered after it")
	}
}

// Whoever asks after a change was forgotten sees it, whoever else reads and forgets meanwhile.
func TestCacheRace(t *testing.T) {
	m := &memory{limit: 20_000} // so that generations change all the time
	c := newCache(m, func(int, int64) int { return 50 })
	const keys = 300
	var source [keys]atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	running := func() bool {
		select {
		case <-stop:
			return false
		default:
			return true
		}
	}
	get := func(k int) int64 {
		v, _ := c.get(k, true, func() (int64, error) { return source[k].Load(), nil })
		return v
	}
	for range 4 {
		wg.Go(func() {
			for running() {
				get(rand.IntN(keys))
			}
		})
	}
	var writers sync.WaitGroup
	for w := range 3 {
		writers.Go(func() {
			for range 20_000 {
				k := rand.IntN(keys/3)*3 + w // of this writer alone
				v := source[k].Add(1)
				c.forget(k)
				if got := get(k); got != v {
					t.Errorf("%d is %d, and %d is remembered", k, v, got)
					return
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	wg.Wait()
}

func BenchmarkCacheLook(b *testing.B) {
	m := &memory{limit: DefaultMemory}
	c := newCache(m, func(string, int) int { return 1000 })
	var keys []string
	for i := range 10_000 {
		keys = append(keys, strconv.Itoa(i))
		c.get(keys[i], false, func() (int, error) { return i, nil })
	}
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for i := 0; p.Next(); i++ {
			if _, ok := c.look(keys[i%len(keys)]); !ok {
				b.Error("forgotten")
				return
			}
		}
	})
}
