package kms

import (
	"context"
	"maps"
	"sync"
	"time"
)

// flushEvery is how often last uses are written to the store. A kill loses what is younger; the audit record has it.
const flushEvery = 10 * time.Second

// usage remembers when access keys and keys were last used, until it is written to the store in one go: a request that uses a key does not write
// to the store. It is safe for concurrent use.
type usage struct {
	mu          sync.Mutex // held for a look into a map
	credentials map[string]time.Time
	keys        map[KeyID]KeyUse
	writing     map[KeyID]KeyUse // taken, and not yet known to be in the store
}

func newUsage() *usage {
	return &usage{credentials: make(map[string]time.Time), keys: make(map[KeyID]KeyUse)}
}

func (u *usage) credential(id string, t time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if t.After(u.credentials[id]) {
		u.credentials[id] = t
	}
}

func (u *usage) key(use KeyUse) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if use.Time.After(u.keys[use.Key].Time) {
		u.keys[use.Key] = use
	}
}

// last returns the last use of a key that is not in the store yet.
func (u *usage) last(key KeyID) (KeyUse, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	use, ok := u.keys[key]
	if !ok {
		use, ok = u.writing[key]
	}
	return use, ok
}

// take returns what is remembered and begins anew. The keys are still answered for until written.
func (u *usage) take() (map[string]time.Time, []KeyUse) {
	u.mu.Lock()
	defer u.mu.Unlock()
	credentials := u.credentials
	uses := make([]KeyUse, 0, len(u.keys))
	for _, use := range u.keys {
		uses = append(uses, use)
	}
	u.writing = u.keys
	u.credentials, u.keys = make(map[string]time.Time), make(map[KeyID]KeyUse)
	return credentials, uses
}

// written says that what was taken is in the store, or was given back.
func (u *usage) written() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.writing = nil
}

// usageBatch is how many last uses of keys, and of access keys, are written in one transaction: others who change something wait no longer for it than some tens
// of milliseconds, however many keys were used.
const usageBatch = 500

// flushUsage writes last uses to the store. What cannot be written is kept for the next time.
func (s *Service) flushUsage(ctx context.Context) {
	credentials, uses := s.usage.take()
	defer s.usage.written()
	var err error
	for err == nil && (len(credentials) > 0 || len(uses) > 0) {
		some := make(map[string]time.Time)
		for id, t := range credentials {
			if len(some) == usageBatch {
				break
			}
			some[id] = t
		}
		n := min(len(uses), usageBatch)
		// Not update: nobody remembers last uses, so nothing need be forgotten.
		if err = s.store.Update(ctx, func(tx Tx) error { return tx.RecordUse(some, uses[:n]) }); err == nil {
			maps.DeleteFunc(credentials, func(id string, _ time.Time) bool { _, written := some[id]; return written })
			uses = uses[n:]
		}
	}
	if err == nil {
		return
	}
	if ctx.Err() == nil {
		s.log.Error("could not store when keys were last used", "err", err)
	}
	for id, t := range credentials {
		s.usage.credential(id, t)
	}
	for _, use := range uses {
		s.usage.key(use)
	}
}
