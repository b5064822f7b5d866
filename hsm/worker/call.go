package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"strongroom/hsm"
)

// Bounds for one call. A call that ends worker after worker may be what ends them.
const (
	maxDeaths = 8 // workers that may end while they do it; most of them because of other calls
	maxFaults = 3 // times that a worker whose token works may fail to do it
)

// do has a call done by a worker, and by another when that fails in a way that may not be the call's. put appends the arguments, and take reads the
// answer, which is wiped afterwards. It returns the worker that answered.
func (d *Device) do(ctx context.Context, k kind, put func(*frame), take func(*fields) error) (*process, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	deaths, faults := 0, 0
	for begun := time.Now(); ; {
		alone := deaths > 0 // after a worker has ended while it did this, it travels with nobody who would suffer for it
		p, err := d.pick(ctx, k, alone)
		if err != nil {
			return nil, err
		}
		broken := false
		err = p.call(ctx, k, alone, put, func(k kind, answer *fields) (err error) {
			if k != kindDone {
				err, broken = takeError(answer)
				return err
			}
			if err = take(answer); err == nil {
				err = answer.err
			}
			return err
		})
		switch {
		case err == nil:
			return p, nil
		case broken:
			p.kill(fmt.Errorf("its token does not work any more: %w", err))
			d.remove(p)
			if time.Since(begun) > d.config.Patience {
				return nil, err
			}
		case err == errDied:
			d.remove(p) // its keeper may not have noticed yet
			err = unavailable("%v", p.why())
			if deaths++; deaths >= maxDeaths {
				return nil, unavailable("%d workers ended one after the other while they did this: %v", deaths, err)
			}
		case err == ctx.Err():
			return nil, fmt.Errorf("%w: no answer from the HSM in time: %w", hsm.ErrUnavailable, err)
		case !errors.Is(err, hsm.ErrUnavailable):
			return nil, err
		default:
			if faults++; faults >= maxFaults {
				return nil, err
			}
		}
		if ctx.Err() != nil {
			return nil, err
		}
		d.stats.retried.Add(1)
	}
}

// pick returns the worker for a call: the one with the least to do, or, for what finds, makes and destroys objects, the first, since a token does
// that for one at a time. For what goes in [line] it is the first, too, as long as that has room, so that more calls travel together; when it hangs, more of them
// wait until it is replaced. A call that is to be alone has the last. pick waits for a worker as long as the token was not away for too long.
func (d *Device) pick(ctx context.Context, k kind, alone bool) (*process, error) {
	for {
		d.mu.Lock()
		if d.closed {
			d.mu.Unlock()
			return nil, errClosed
		}
		if len(d.ready) > 0 {
			best := d.ready[0]
			switch {
			case alone:
				best = d.ready[len(d.ready)-1]
			case k == kindGenerate, k == kindGenerateSigner, k == kindDestroy, k == kindObjects:
			case k.inLine() && best.line != nil && best.flying.Load() < most:
			default:
				for _, p := range d.ready[1:] {
					if p.flying.Load() < best.flying.Load() {
						best = p
					}
				}
			}
			best.flying.Add(1) // before anybody else looks
			d.mu.Unlock()
			return best, nil
		}
		changed, away, why, refused := d.changed, d.away, d.why, d.refused
		d.mu.Unlock()
		if refused != nil {
			return nil, unavailable("the token refused the PIN, and has to be looked at: %v", refused)
		}
		left := d.config.Patience - time.Since(away)
		if left <= 0 {
			d.stats.denied.Add(1)
			return nil, unavailable("the token has been away for %v: %v", time.Since(away).Round(time.Second), why)
		}
		timer := time.NewTimer(left)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("%w: waiting for the token: %w", hsm.ErrUnavailable, ctx.Err())
		}
		timer.Stop()
	}
}

// Generate implements [hsm.Device].
func (d *Device) Generate(ctx context.Context, id hsm.ID, label string) (hsm.Ref, error) {
	return d.make(ctx, kindGenerate, id, label)
}

// GenerateSigner implements [hsm.Device].
func (d *Device) GenerateSigner(ctx context.Context, id hsm.ID, label string) (hsm.Ref, error) {
	return d.make(ctx, kindGenerateSigner, id, label)
}

func (d *Device) make(ctx context.Context, k kind, id hsm.ID, label string) (ref hsm.Ref, err error) {
	_, err = d.do(ctx, k, func(f *frame) {
		f.bytes(id[:])
		f.string(label)
	}, func(f *fields) error {
		ref = append(hsm.Ref(nil), f.bytes()...)
		return nil
	})
	return ref, err
}

// PublicKey implements [hsm.Device].
func (d *Device) PublicKey(ctx context.Context, signer hsm.Ref) (key []byte, err error) {
	_, err = d.do(ctx, kindPublicKey, func(f *frame) { f.bytes(signer) }, func(f *fields) error {
		key = append([]byte(nil), f.bytes()...)
		return nil
	})
	return key, err
}

// Sign implements [hsm.Device].
func (d *Device) Sign(ctx context.Context, signer hsm.Ref, digest [32]byte) (signature []byte, err error) {
	_, err = d.do(ctx, kindSign, func(f *frame) {
		f.bytes(signer)
		f.bytes(digest[:])
	}, func(f *fields) error {
		signature = append([]byte(nil), f.bytes()...)
		return nil
	})
	return signature, err
}

// Destroy implements [hsm.Device]. When it returns nil, no worker uses the key any more, or a copy of it.
func (d *Device) Destroy(ctx context.Context, id hsm.ID) error {
	put := func(f *frame) { f.bytes(id[:]) }
	by, err := d.do(ctx, kindDestroy, put, func(*fields) error { return nil })
	if err != nil {
		return err
	}
	d.mu.Lock()
	others := slices.DeleteFunc(slices.Clone(d.ready), func(p *process) bool { return p == by })
	d.mu.Unlock()
	// The key is destroyed, whatever becomes of who asked for it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.config.SlowTimeout)
	defer cancel()
	var wait sync.WaitGroup
	for _, p := range others {
		wait.Go(func() { d.forget(ctx, p, put) })
	}
	wait.Wait()
	return nil
}

// forget has a worker forget a key. One that does not, where it may hold a copy of the key, has to end.
func (d *Device) forget(ctx context.Context, p *process, put func(*frame)) {
	p.flying.Add(1)
	err := p.call(ctx, kindForget, false, put, func(k kind, answer *fields) (err error) {
		if k != kindDone {
			err, _ = takeError(answer)
		}
		return err
	})
	if err != nil && err != errDied && d.config.Token.SessionCopies {
		p.kill(fmt.Errorf("forgetting a destroyed key: %w", err))
		d.remove(p)
		<-p.dead
	}
}

// Seal implements [hsm.Device].
func (d *Device) Seal(ctx context.Context, key hsm.Ref, dst, plaintext, aad []byte) ([]byte, error) {
	if n := len(plaintext); n == 0 || n > hsm.MaxPlaintext {
		return nil, fmt.Errorf("a plaintext of %d bytes cannot be sealed: 1 to %d can", n, hsm.MaxPlaintext)
	}
	if n := len(aad); n == 0 || n > hsm.MaxAAD {
		return nil, fmt.Errorf("associated data of %d bytes cannot be used: 1 to %d can", n, hsm.MaxAAD)
	}
	return d.crypt(ctx, kindSeal, key, dst, plaintext, aad)
}

// Open implements [hsm.Device].
func (d *Device) Open(ctx context.Context, key hsm.Ref, dst, sealed, aad []byte) ([]byte, error) {
	if n := len(sealed); n <= hsm.Overhead || n > hsm.Overhead+hsm.MaxPlaintext || len(aad) == 0 || len(aad) > hsm.MaxAAD {
		return nil, fmt.Errorf("%w: nothing of this length was ever sealed", hsm.ErrRejected)
	}
	return d.crypt(ctx, kindOpenSealed, key, dst, sealed, aad)
}

func (d *Device) crypt(ctx context.Context, k kind, key hsm.Ref, dst, text, aad []byte) (out []byte, err error) {
	_, err = d.do(ctx, k, func(f *frame) {
		f.bytes(key)
		f.bytes(text)
		f.bytes(aad)
	}, func(f *fields) error {
		out = append(dst, f.rest...)
		return nil
	})
	return out, err
}

// Random implements [hsm.Device].
func (d *Device) Random(ctx context.Context, p []byte) error {
	_, err := d.do(ctx, kindRandom, func(f *frame) { f.number(uint64(len(p))) }, func(f *fields) error {
		if b := f.bytes(); len(b) == len(p) {
			copy(p, b)
			return nil
		}
		return unavailable("the worker's answer cannot be read")
	})
	return err
}

// Check implements [hsm.Device].
func (d *Device) Check(ctx context.Context) error {
	_, err := d.do(ctx, kindCheck, func(*frame) {}, func(*fields) error { return nil })
	return err
}

// Objects implements [hsm.Device].
func (d *Device) Objects(ctx context.Context) (list []hsm.Object, err error) {
	_, err = d.do(ctx, kindObjects, func(*frame) {}, func(f *fields) error {
		n := f.number()
		list = nil
		for range n {
			id, label := f.bytes(), f.string()
			if f.err != nil || len(id) != len(hsm.ID{}) {
				return unavailable("the worker's answer cannot be read")
			}
			list = append(list, hsm.Object{ID: hsm.ID(id), Label: label})
		}
		return nil
	})
	return list, err
}
