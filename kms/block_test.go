package kms

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"strongroom/hsm"
)

// oneUse is a store of one number. It is safe for concurrent use.
type oneUse struct {
	Store
	Tx
	mu   sync.Mutex
	uses int64
}

func (u *oneUse) Update(_ context.Context, f func(Tx) error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return f(u)
}
func (u *oneUse) MaterialUses(hsm.ID) (int64, error)                { return u.uses, nil }
func (u *oneUse) SetMaterialUses(_ hsm.ID, _ int64, to int64) error { u.uses = to; return nil }

// A block that was given back gives nothing any more to who still holds it, and takes nothing: what is reserved for it late is given back too.
func TestClosedBlock(t *testing.T) {
	for name, closes := range map[string]func(*budget, hsm.ID){
		"given back": func(b *budget, _ hsm.ID) { b.giveBack(t.Context(), true) },
		"dropped":    func(b *budget, m hsm.ID) { b.drop(t.Context(), m) },
	} {
		t.Run(name, func(t *testing.T) {
			db := new(oneUse)
			b := newBudget(db, slog.New(slog.DiscardHandler), 1<<20, func(context.Context, KeyID, hsm.ID) {})
			key, m := newKeyID(false), newMaterialID()
			if err := b.take(t.Context(), key, m); err != nil {
				t.Fatal(err)
			}
			k := b.block(key, m)
			closes(b, m)
			if db.uses != 1 {
				t.Errorf("%d uses are reserved after one", db.uses)
			}
			if _, ok := k.take(); ok {
				t.Error("it still gives")
			}
			if k.add(1) {
				t.Error("it still takes")
			}
			if b.fill(k) != nil {
				t.Error("it is filled again")
			}
			k.mu.Lock()
			k.filling = make(chan struct{}) // a reservation that was under way
			k.mu.Unlock()
			b.reserve(t.Context(), k)
			if db.uses != 1 {
				t.Errorf("%d uses are reserved after a late reservation", db.uses)
			}
			if err := b.wait(t.Context(), k); err != nil {
				t.Error(err)
			}
			if err := b.take(t.Context(), key, m); err != nil || b.block(key, m) == k {
				t.Error("there is no other block in its place", err)
			}
		})
	}
}

// Uses are neither lost nor given twice, whatever is closed while they are taken.
func TestTakeWhileGivenBack(t *testing.T) {
	db := new(oneUse)
	const limit, takers = 40_000, 4
	b := newBudget(db, slog.New(slog.DiscardHandler), limit, func(context.Context, KeyID, hsm.ID) {})
	key, m := newKeyID(false), newMaterialID()
	var all sync.WaitGroup
	for range takers {
		all.Go(func() {
			for range limit / takers / 2 {
				if err := b.take(t.Context(), key, m); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	for {
		b.stop(t.Context())
		select {
		case <-done:
			b.stop(t.Context())
			if db.uses != limit/2 {
				t.Errorf("%d uses count as %d", limit/2, db.uses)
			}
			return
		default:
		}
	}
}
