package kms

import "sync"

// A cache remembers what was read from the store. It holds at most about limit entries, in two generations: entries move to the young one
// when they are used, and when the young one is full the old one is forgotten. It is safe for concurrent use.
//
// Values are shared by all who get them and must not be changed.
type cache[K comparable, V any] struct {
	limit int

	// mu is held for a look into two maps, never while the store is read.
	mu         sync.RWMutex
	epoch      uint64 // rises with every forget
	young, old map[K]V
}

func newCache[K comparable, V any](limit int) *cache[K, V] {
	return &cache[K, V]{limit: limit, young: make(map[K]V)}
}

// get returns the value of k, from memory if it is there and memory is trusted, or else from load, remembering it. What load read before a
// forget that happened meanwhile is returned but not remembered.
func (c *cache[K, V]) get(k K, trusted bool, load func() (V, error)) (V, error) {
	c.mu.RLock()
	v, young := c.young[k]
	found := young
	if !found {
		v, found = c.old[k]
	}
	epoch := c.epoch
	c.mu.RUnlock()
	if found && trusted {
		if !young {
			c.put(k, v, epoch)
		}
		return v, nil
	}
	v, err := load()
	if err != nil {
		return v, err
	}
	c.put(k, v, epoch)
	return v, nil
}

// put remembers v unless something was forgotten since epoch.
func (c *cache[K, V]) put(k K, v V, epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch != epoch {
		return
	}
	if len(c.young) >= c.limit/2 {
		c.old, c.young = c.young, make(map[K]V)
	}
	c.young[k] = v
}

// forget drops everything. A get that begins after forget returns sees the store as it was no earlier than forget was called.
func (c *cache[K, V]) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	c.old = nil
	clear(c.young)
}
