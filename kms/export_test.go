package kms

import (
	"context"
	"time"
)

// NewMaterialID is newMaterialID, for tests that do what an interrupted process did.
var NewMaterialID = newMaterialID

// Sweep is one round of what Run does, at a time of the test's choosing.
func (s *Service) Sweep(ctx context.Context, now time.Time) { s.sweep(ctx, now) }

// RecordEvents is one round of what Run does.
func (s *Service) RecordEvents(ctx context.Context) error { return s.recordEvents(ctx) }

// HandOver is how long a pending rotation is left to whoever began it.
const HandOver = handOver
