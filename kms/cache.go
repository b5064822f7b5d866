package kms

import (
	"sync"
	"sync/atomic"
)

// A cache remembers what was read from the store, in two generations: entries move to the young one when they are used, and when the young ones of all
// caches of a memory have taken up half of it, the old ones are forgotten. It is safe for concurrent use.
//
// Values are shared by all who get them and must not be changed.
type cache[K comparable, V any] struct {
	memory *memory
	cost   func(K, V) int // bytes, more or less, that an entry takes, besides entryCost; always the same for the same entry

	hits, misses atomic.Int64

	// mu is held for a look into two maps, never while the store is read.
	mu         sync.RWMutex
	epoch      uint64 // rises with every forget
	young, old map[K]V
	youngCost  int64
	oldCost    int64
}

// A memory bounds what some caches hold together.
type memory struct {
	limit  int64        // bytes
	young  atomic.Int64 // of the young generations
	mu     sync.Mutex   // held while the generations change
	caches []interface {
		turn()
		stats() CacheStats
	}
}

// entryCost is what an entry takes in the maps of a cache.
const entryCost = 100

// largest is the share of a memory that one entry may take. A larger one is read each time.
const largest = 8

// newCache returns a cache that shares m with others. No two goroutines may make caches of one memory at a time.
func newCache[K comparable, V any](m *memory, cost func(K, V) int) *cache[K, V] {
	c := &cache[K, V]{memory: m, cost: cost, young: make(map[K]V)}
	m.caches = append(m.caches, c)
	return c
}

// get returns the value of k, from memory if it is there and memory is trusted, or else from load, remembering it.
func (c *cache[K, V]) get(k K, trusted bool, load func() (V, error)) (V, error) {
	if trusted {
		if v, ok := c.look(k); ok {
			return v, nil
		}
	}
	return c.read(k, load)
}

// look returns the value of k if it is in memory.
func (c *cache[K, V]) look(k K) (v V, ok bool) {
	c.mu.RLock()
	v, young := c.young[k]
	if ok = young; !ok {
		v, ok = c.old[k]
	}
	epoch := c.epoch
	c.mu.RUnlock()
	if !ok {
		return v, false
	}
	c.hits.Add(1)
	if !young {
		c.put(k, v, epoch)
	}
	return v, true
}

// read returns the value of k from load, and remembers it. What load read before a forget that happened meanwhile, of whatever, is returned but not remembered.
func (c *cache[K, V]) read(k K, load func() (V, error)) (V, error) {
	c.misses.Add(1)
	c.mu.RLock()
	epoch := c.epoch
	c.mu.RUnlock()
	v, err := load()
	if err != nil {
		return v, err
	}
	c.put(k, v, epoch)
	return v, nil
}

func (c *cache[K, V]) size(k K, v V) int64 { return int64(c.cost(k, v)) + entryCost }

// put remembers v unless something was forgotten since epoch.
func (c *cache[K, V]) put(k K, v V, epoch uint64) {
	size := c.size(k, v)
	if size > c.memory.limit/largest {
		return
	}
	c.memory.makeRoom(size)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch != epoch {
		return
	}
	c.drop(k)
	c.young[k] = v
	c.youngCost += size
	c.memory.young.Add(size)
}

// drop forgets one entry. The caller holds the lock.
func (c *cache[K, V]) drop(k K) {
	if v, ok := c.young[k]; ok {
		size := c.size(k, v)
		delete(c.young, k)
		c.youngCost -= size
		c.memory.young.Add(-size)
	}
	if v, ok := c.old[k]; ok {
		delete(c.old, k)
		c.oldCost -= c.size(k, v)
	}
}

// forget drops what is remembered of k. A get of it that begins after forget returns sees the store as it was no earlier than forget was called.
func (c *cache[K, V]) forget(k K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	c.drop(k)
}

// forgetAll does so for all keys.
func (c *cache[K, V]) forgetAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	c.memory.young.Add(-c.youngCost)
	c.young, c.old = make(map[K]V), nil
	c.youngCost, c.oldCost = 0, 0
}

// turn forgets the old generation and lets the young one be old.
func (c *cache[K, V]) turn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.memory.young.Add(-c.youngCost)
	c.young, c.old = make(map[K]V), c.young
	c.youngCost, c.oldCost = 0, c.youngCost
}

// makeRoom lets the generations change if the young ones have no room for another size.
func (m *memory) makeRoom(size int64) {
	full := func() bool { return m.young.Load()+size > m.limit/2 }
	if !full() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !full() {
		return
	}
	for _, c := range m.caches {
		c.turn()
	}
}

// CacheStats say what is remembered of the store, and how often that was of use since the start.
type CacheStats struct {
	Entries int64
	Bytes   int64 // more or less
	Hits    int64
	Misses  int64 // the store was asked
}

func (c *cache[K, V]) stats() CacheStats {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return CacheStats{Entries: int64(len(c.young) + len(c.old)), Bytes: c.youngCost + c.oldCost, Hits: c.hits.Load(), Misses: c.misses.Load()}
}
