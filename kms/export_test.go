package kms

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"strongroom/hsm"
)

// NewMaterialID is newMaterialID, for tests that do what an interrupted process did.
var NewMaterialID = newMaterialID

// Sweep is one round of what Run does, at a time of the test's choosing.
func (s *Service) Sweep(ctx context.Context, now time.Time) { s.sweep(ctx, now) }

// RecordEvents is one round of what Run does.
func (s *Service) RecordEvents(ctx context.Context) error { return s.recordEvents(ctx) }

// HandOver is how long a pending rotation is left to whoever began it.
const HandOver = handOver

// GiveBack is one round of what Run does with encryptions that were reserved.
func (s *Service) GiveBack(ctx context.Context) { s.budget.giveBack(ctx, false) }

// StopBudget is what Run does with them at its end.
func (s *Service) StopBudget(ctx context.Context) { s.budget.stop(ctx) }

// SetMaxBlocks sets for how many materials encryptions are reserved at a time.
func (s *Service) SetMaxBlocks(n int) { s.budget.most = n }

// FirstBlock is how many encryptions are reserved at first.
const FirstBlock = firstBlock

// NewTestBudget returns what takes one use of a material from a budget, and what says how often that had to wait for the store.
func NewTestBudget(store Store, limit int64) (take func() error, waited func() int64) {
	b := newBudget(store, slog.New(slog.DiscardHandler), limit, func(context.Context, KeyID, hsm.ID) {})
	var n atomic.Int64
	key, material, ctx := newKeyID(false), newMaterialID(), context.Background()
	return func() error {
		if k := b.block(key, material); k.left.Load() == 0 {
			n.Add(1)
		}
		return b.take(ctx, key, material)
	}, n.Load
}

// NewUUID returns the id of a new key.
var NewUUID = newUUID

// DefaultPolicy is the policy of a key that was made without one.
var DefaultPolicy = defaultPolicy

// Open is the gate, for one use of a key.
func (s *Service) Open(ctx context.Context, who Caller, key string, encryptionContext map[string]string) error {
	_, err := s.open(ctx, who, use("kms:Decrypt", key, encryptionContext, nil, false))
	return err
}

// Trusted reports whether what is remembered may be believed.
func (s *Service) Trusted() bool { return s.trusted() }

// Hear is one round of what Run does four times a second.
func (s *Service) Hear(ctx context.Context) error { return s.hear(ctx) }

// UsageBatch is how many last uses are written in one transaction.
const UsageBatch = usageBatch

// Use remembers that a key was used now.
func (s *Service) Use(id KeyID) { s.usage.key(KeyUse{Key: id, Operation: "Decrypt", Time: time.Now()}) }

// FlushUsage is one round of what Run does.
func (s *Service) FlushUsage(ctx context.Context) { s.flushUsage(ctx) }
