package store

import "context"

// Healthy implements [kms.Store].
func (d *DB) Healthy(ctx context.Context) error {
	if damage := d.damage.Load(); damage != nil {
		return *damage
	}
	_, err := d.Generation(ctx)
	return err
}

// Sound implements [kms.Store].
func (d *DB) Sound() bool { return d.unsound.Load() == 0 }

// Check looks for damage as QuickCheck does, in the background, until ctx ends or d is closed. It returns where the outcome will be: once, nil if there is none.
// Damage makes d unhealthy, and is all that it does: what is not damaged can be read.
func (d *DB) Check(ctx context.Context) <-chan error {
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	d.unsound.Add(1)
	d.mu.Lock()
	d.checks = append(d.checks, cancel)
	d.mu.Unlock()
	d.checking.Go(func() {
		defer cancel()
		err := d.QuickCheck(ctx)
		if err == nil {
			d.unsound.Add(-1)
		}
		if damaged(err) {
			d.damage.Store(&err)
		} else if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		done <- err
	})
	return done
}

// endChecks ends the checks that are running.
func (d *DB) endChecks() {
	d.mu.Lock()
	for _, cancel := range d.checks {
		cancel()
	}
	d.mu.Unlock()
	d.checking.Wait()
}
