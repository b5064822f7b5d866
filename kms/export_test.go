package kms

import (
	"context"
	"time"
)

// NewMaterialID is newMaterialID, for tests that do what an interrupted process did.
var NewMaterialID = newMaterialID

// Sweep is one round of what Run does, at a time of the test's choosing.
func (s *Service) Sweep(ctx context.Context, now time.Time) { s.sweep(ctx, now) }
