package pkcs11

import (
	"maps"
	"sync"
	"sync/atomic"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// A key is an object of the token, or this process's copy of it, and what is known about it. It is never changed, only replaced.
type key struct {
	handle p11.ObjectHandle

	// proved says that the handle was shown to be the key of proof, after seen sessions had been opened. See [session.trusts].
	proved bool
	seen   uint64
	proof  proof
}

// A keyring remembers the handles of keys. It is safe for concurrent use; reading takes no lock and allocates nothing. So
// that adding a key does not mean copying all, there are 256 maps, chosen by the first byte of the (random) id.
type keyring struct {
	mu   sync.Mutex // of whoever replaces a map
	maps [256]atomic.Pointer[map[hsm.ID]*key]
}

// get returns the key called id, or nil.
func (r *keyring) get(id hsm.ID) *key {
	m := r.maps[id[0]].Load()
	if m == nil {
		return nil
	}
	return (*m)[id]
}

// put remembers k as the key called id.
func (r *keyring) put(id hsm.ID, k *key) {
	r.change(id, func(m map[hsm.ID]*key) { m[id] = k })
}

// forget forgets the key called id, if it is still k.
func (r *keyring) forget(id hsm.ID, k *key) {
	r.change(id, func(m map[hsm.ID]*key) {
		if m[id] == k {
			delete(m, id)
		}
	})
}

// doubt keeps the handle of the key called id, if it is still k, but not that it was proved.
func (r *keyring) doubt(id hsm.ID, k *key) {
	r.change(id, func(m map[hsm.ID]*key) {
		if m[id] == k {
			m[id] = &key{handle: k.handle}
		}
	})
}

func (r *keyring) change(id hsm.ID, f func(map[hsm.ID]*key)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &r.maps[id[0]]
	m := map[hsm.ID]*key{}
	if old := p.Load(); old != nil {
		m = maps.Clone(*old)
	}
	f(m)
	p.Store(&m)
}
