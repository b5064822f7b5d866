package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"strongroom/hsm"
)

// Bounds for one call. A call that ends worker after worker may be what ends them.
const (
	maxDeaths = 8 // workers that may end while they do it
	maxFaults = 3 // times that a worker whose token works may fail to do it
)

// do has a call done by a worker, and by another when that fails in a way that may not be the call's. put appends the arguments, and take reads the
// answer, which is wiped afterwards.
func (d *Device) do(ctx context.Context, k kind, put func(*frame), take func(*fields) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	deaths, faults := 0, 0
	begun := time.Now()
	for {
		p, err := d.pick(ctx, k)
		if err != nil {
			return err
		}
		broken := false
		err = p.call(ctx, k, put, func(k kind, answer *fields) (err error) {
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
			return nil
		case broken:
			p.kill(fmt.Errorf("its token does not work any more: %w", err))
			<-p.dead
		case err == errDied:
			err = unavailable("%v", p.why())
		case err == ctx.Err():
			return fmt.Errorf("%w: no session with the HSM became free: %w", hsm.ErrUnavailable, err)
		case !errors.Is(err, hsm.ErrUnavailable) || ctx.Err() != nil:
			return err
		default:
			if faults++; faults >= maxFaults {
				return err
			}
			d.stats.retried.Add(1)
			continue
		}
		d.remove(p) // its keeper may not have noticed yet
		if broken && time.Since(begun) > d.config.Patience {
			return err
		}
		if !broken {
			deaths++
		}
		if deaths >= maxDeaths {
			return unavailable("%d workers ended one after the other while they did this: %v", deaths, err)
		}
		d.stats.retried.Add(1)
	}
}

// pick returns the worker for a call: the one with the least to do, or, for what finds, makes and destroys objects, the first, since a token does
// that for one at a time. It waits for one as long as the token was not away for too long.
func (d *Device) pick(ctx context.Context, k kind) (*process, error) {
	for {
		d.mu.Lock()
		if d.closed {
			d.mu.Unlock()
			return nil, errClosed
		}
		if len(d.ready) > 0 {
			best := d.ready[0]
			if k != kindGenerate && k != kindGenerateSigner && k != kindDestroy && k != kindObjects {
				for _, p := range d.ready[1:] {
					if p.flying.Load() < best.flying.Load() {
						best = p
					}
				}
			}
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
	err = d.do(ctx, k, func(f *frame) {
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
	err = d.do(ctx, kindPublicKey, func(f *frame) { f.bytes(signer) }, func(f *fields) error {
		key = append([]byte(nil), f.bytes()...)
		return nil
	})
	return key, err
}

// Sign implements [hsm.Device].
func (d *Device) Sign(ctx context.Context, signer hsm.Ref, digest [32]byte) (signature []byte, err error) {
	err = d.do(ctx, kindSign, func(f *frame) {
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
	if err := d.do(ctx, kindDestroy, put, func(*fields) error { return nil }); err != nil {
		return err
	}
	d.mu.Lock()
	others := append([]*process(nil), d.ready...)
	d.mu.Unlock()
	for _, p := range others {
		err := p.call(ctx, kindForget, put, func(k kind, answer *fields) (err error) {
			if k != kindDone {
				err, _ = takeError(answer)
			}
			return err
		})
		if err != nil && err != errDied { // what does not forget has to go
			p.kill(fmt.Errorf("forgetting a destroyed key: %w", err))
			<-p.dead
			d.remove(p)
		}
	}
	return nil
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
	err = d.do(ctx, k, func(f *frame) {
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
	return d.do(ctx, kindRandom, func(f *frame) { f.number(uint64(len(p))) }, func(f *fields) error {
		if b := f.bytes(); len(b) == len(p) {
			copy(p, b)
			return nil
		}
		return unavailable("the worker's answer cannot be read")
	})
}

// Check implements [hsm.Device].
func (d *Device) Check(ctx context.Context) error {
	return d.do(ctx, kindCheck, func(*frame) {}, func(*fields) error { return nil })
}

// Objects implements [hsm.Device].
func (d *Device) Objects(ctx context.Context) (list []hsm.Object, err error) {
	err = d.do(ctx, kindObjects, func(*frame) {}, func(f *fields) error {
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
