package pkcs11

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// countSessions opens sessions until the token has no more, or there are enough, and closes them.
func (me *measuring) countSessions(ctx context.Context, _, _ *session) error {
	const name = "sessions at a time"
	var open []p11.SessionHandle
	defer func() {
		for _, s := range open {
			_ = me.closeSession(s)
		}
	}()
	r := &me.report.Sessions
	*r = SessionFigures{Declared: r.Declared}
	for len(open) < me.options.MaxSessions {
		if err := ctx.Err(); err != nil {
			return err
		}
		s, err := me.openSession()
		if err != nil {
			r.Refused = answer(err)
			break
		}
		open = append(open, s)
	}
	r.Opened = len(open)
	declared := "it declares no limit"
	if r.Declared != 0 {
		declared = fmt.Sprintf("it declares %d", r.Declared)
	}
	const least = makerSessions // others need as many
	switch {
	case r.Opened < least:
		me.found(Finding{Name: name, Verdict: Failed, Needed: true, Detail: fmt.Sprintf("%d could be opened (%s); %s", r.Opened, r.Refused, declared),
			Remedy: "end other users of the token, or raise its limit"})
	case r.Refused != "":
		me.ok(name, "%d could be opened, and no more (%s); %s", r.Opened, r.Refused, declared)
	default:
		me.ok(name, "%d could be opened, and no more were tried; %s", r.Opened, declared)
	}
	return nil
}

// countObjects makes keys until the token has no room, or there are enough, finds and destroys them.
func (me *measuring) countObjects(ctx context.Context, keeper, _ *session) error {
	const name = "room for keys"
	if me.options.Objects == 0 {
		me.found(Finding{Name: name, Verdict: Skipped, Detail: "as --objects 0 says"})
		return nil
	}
	r := &me.report.Objects
	var made []p11.ObjectHandle
	defer func() {
		for _, o := range made {
			me.drop(keeper, o)
		}
	}()
	var creates, finds, destroys []time.Duration
	before, _ := me.figures()
	var failure error
	ids := make([]hsm.ID, 0, me.options.Objects)
	for len(made) < me.options.Objects {
		if err := ctx.Err(); err != nil {
			return err
		}
		id := hsm.ID(randomBytes(16))
		begun := time.Now()
		o, _, err := me.make(keeper, id, true, false)
		if err != nil {
			failure = err
			break
		}
		creates = append(creates, time.Since(begun))
		made, ids = append(made, o), append(ids, id)
	}
	after, _ := me.figures()
	r.Made, r.Refused, r.PerKey = len(made), "", 0
	if failure != nil {
		r.Refused = answer(failure)
	}
	if n := uint(len(made)); n > 0 && before.freeMemory > after.freeMemory && after.freeMemory > 0 {
		r.PerKey = (before.freeMemory - after.freeMemory) / n
	}
	for i := 0; i < len(ids) && i < 16; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		begun := time.Now()
		found, err := me.find(keeper.handle, keyCalled(ids[i]))
		if err != nil {
			return err
		}
		finds = append(finds, time.Since(begun))
		if !slices.Equal(found, made[i:i+1]) {
			me.found(Finding{Name: name, Verdict: Failed, Needed: true, Detail: fmt.Sprintf("of %d keys, one is not found by its CKA_ID", len(made)), Remedy: "the token does not find its keys"})
			return nil
		}
	}
	begun := time.Now()
	if _, err := me.find(keeper.handle, anything()); err != nil {
		return err
	}
	r.ListMS = ms(time.Since(begun))
	for len(made) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		begun := time.Now()
		if err := me.destroy(keeper.handle, made[0]); err != nil {
			return err
		}
		destroys = append(destroys, time.Since(begun))
		made = made[1:]
	}
	r.CreateMS, r.FindMS, r.DestroyMS = ms(percentile(creates, 50)), ms(percentile(finds, 50)), ms(percentile(destroys, 50))
	text := fmt.Sprintf("%d were made beside %d objects that were there", r.Made, r.Before)
	if r.Refused != "" {
		text += ", and no more (" + r.Refused + ")"
	} else {
		text += ", and no more were tried"
	}
	text += fmt.Sprintf("; to make one takes %.1f ms, to find it %.2f ms, to list all %.1f ms, to destroy one %.1f ms", r.CreateMS, r.FindMS, r.ListMS, r.DestroyMS)
	if r.PerKey > 0 {
		text += fmt.Sprintf("; one takes %d bytes, so that there is room for %d more", r.PerKey, r.FreeMemory/r.PerKey)
	} else if r.FreeMemory > 0 {
		text += fmt.Sprintf("; it declares %d bytes free", r.FreeMemory)
	}
	f := Finding{Name: name, Verdict: OK, Detail: text}
	if r.Refused != "" {
		f.Verdict, f.Remedy = Differs, "each key of users, each rotation of one, and two for the deployment take one object"
		if r.Made < 3 {
			f.Verdict, f.Needed = Failed, true
		}
	}
	me.found(f)
	return nil
}

// copies finds out whether copies of keys that belong to a session are faster than the keys.
func (me *measuring) copies(ctx context.Context, keeper, worker *session) error {
	const name = "copies of keys in sessions"
	me.report.Copies = nil
	if me.noGCM(name) {
		return nil
	}
	o, _, err := me.make(keeper, hsm.ID(randomBytes(16)), true, true)
	if err != nil {
		return err
	}
	defer me.drop(keeper, o)
	c, err := me.duplicate(keeper.handle, o)
	if err != nil {
		me.ok(name, "refused: %s; they are an option for tokens of files alone", answer(err))
		return nil
	}
	defer me.drop(keeper, c)
	median := func(o p11.ObjectHandle) (time.Duration, error) {
		const most = 300
		var took []time.Duration
		for end := time.Now().Add(time.Second); len(took) < most && (len(took) < 20 || time.Now().Before(end)); {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			begun := time.Now()
			if err := me.sealOnce(worker, o, 32); err != nil {
				return 0, err
			}
			took = append(took, time.Since(begun))
		}
		return percentile(took, 50), nil
	}
	key, err := median(o)
	if err != nil {
		return err
	}
	copied, err := median(c)
	if err != nil {
		me.found(Finding{Name: name, Verdict: Differs, Detail: "a copy does not encrypt: " + answer(err), Remedy: "leave session_copies out"})
		return renew(worker)
	}
	me.report.Copies = &CopyFigures{KeyUS: us(key), CopyUS: us(copied)}
	me.ok(name, "an encryption takes %.0f µs with the key, %.0f µs with a copy", us(key), us(copied))
	return nil
}

// sealOnce encrypts n bytes, where nobody else uses the session.
func (me *measuring) sealOnce(s *session, key p11.ObjectHandle, n int) error {
	iv := (*[hsm.IVSize]byte)(s.buf[:])
	_, err := encrypt(me.measurable, *me.report.IV, s.handle, key, iv, s.buf[hsm.IVSize:], loadText[:n], loadText[:64])
	return err
}

var loadText [hsm.MaxPlaintext]byte

// load measures encryptions per second with a key of the token as strongroom has it.
func (me *measuring) load(ctx context.Context, keeper, _ *session) error {
	const name = "encryptions"
	if me.noGCM(name) {
		return nil
	}
	me.report.Load = nil
	o, _, err := me.make(keeper, hsm.ID(randomBytes(16)), true, false)
	if err != nil {
		return err
	}
	defer me.drop(keeper, o)
	most := min(me.options.Sessions, me.report.Sessions.Opened)
	for _, size := range []int{32, 2400} {
		for n := 1; n <= most; n *= 2 {
			l, err := me.loadWith(ctx, o, size, n)
			if err != nil {
				return err
			}
			me.report.Load = append(me.report.Load, l)
			if l.Errors > 0 {
				me.found(Finding{Name: fmt.Sprintf("%s of %d bytes, %d at a time", name, size, n), Verdict: Failed, Detail: fmt.Sprintf("%d failed, the first with %s", l.Errors, l.Error),
					Remedy: "the token or its library does not stand so many at a time"})
				break
			}
		}
	}
	return nil
}

// loadWith measures n encryptions at a time.
func (me *measuring) loadWith(ctx context.Context, key p11.ObjectHandle, size, n int) (LoadFigures, error) {
	l := LoadFigures{Bytes: size, Sessions: n}
	sessions := newPool(me.measurable, &me.open, me.closed, n)
	defer sessions.drain(context.WithoutCancel(ctx))
	if err := sessions.fill(); err != nil {
		return l, err
	}
	var mu sync.Mutex
	var all []time.Duration
	var wg sync.WaitGroup
	begun := time.Now()
	end := begun.Add(time.Duration(me.options.Seconds * float64(time.Second)))
	for range n {
		wg.Go(func() {
			var took []time.Duration
			err := sessions.with(ctx, func(s *session) error {
				for now := time.Now(); now.Before(end) && ctx.Err() == nil; {
					if err := me.sealOnce(s, key, size); err != nil {
						return err
					}
					then := now
					now = time.Now()
					took = append(took, now.Sub(then))
				}
				return nil
			})
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			if err != nil {
				if l.Errors++; l.Error == "" {
					l.Error = answer(err)
				}
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return l, err
	}
	l.PerSecond = float64(len(all)) / time.Since(begun).Seconds()
	l.P50US, l.P99US = us(percentile(all, 50)), us(percentile(all, 99))
	return l, nil
}

// percentile returns the p-th percentile; 0 of nothing.
func percentile(all []time.Duration, p int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[(len(all)-1)*p/100]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
