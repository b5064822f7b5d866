package pkcs11

import (
	"context"
	"errors"
	"fmt"

	"strongroom/hsm"
)

// Seal implements [hsm.Device]. [Config].IV says whose the IV is.
func (t *Token) Seal(ctx context.Context, key hsm.Ref, dst, plaintext, aad []byte) ([]byte, error) {
	if n := len(plaintext); n == 0 || n > hsm.MaxPlaintext {
		return nil, fmt.Errorf("a plaintext of %d bytes cannot be sealed: 1 to %d can", n, hsm.MaxPlaintext)
	}
	if n := len(aad); n == 0 || n > hsm.MaxAAD {
		return nil, fmt.Errorf("associated data of %d bytes cannot be used: 1 to %d can", n, hsm.MaxAAD)
	}
	r, err := t.parse(key)
	if err != nil {
		return nil, err
	}
	return t.seal(ctx, &r, dst, plaintext, aad)
}

// Open implements [hsm.Device].
func (t *Token) Open(ctx context.Context, key hsm.Ref, dst, sealed, aad []byte) ([]byte, error) {
	if n := len(sealed); n <= hsm.Overhead || n > hsm.Overhead+hsm.MaxPlaintext || len(aad) == 0 || len(aad) > hsm.MaxAAD {
		return nil, fmt.Errorf("%w: nothing of this length was ever sealed", hsm.ErrRejected)
	}
	r, err := t.parse(key)
	if err != nil {
		return nil, err
	}
	return t.open(ctx, &r, dst, sealed, aad)
}

// Random implements [hsm.Device].
func (t *Token) Random(ctx context.Context, p []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-t.closed:
		return errClosed
	default:
	}
	if len(p) == 0 {
		return nil
	}
	return t.module.random(ctx, p)
}

func (t *Token) parse(key hsm.Ref) (ref, error) {
	r, err := parseRef(key)
	if err == nil && r.id == canaryID {
		err = fmt.Errorf("%w: the canary key serves nothing else", hsm.ErrNoKey)
	}
	return r, err
}

func (t *Token) seal(ctx context.Context, r *ref, dst, plaintext, aad []byte) ([]byte, error) {
	var answer []byte
	err := t.use(ctx, r, func(s *session, k *key) error {
		// The IV is where the answer has it, before the ciphertext.
		n, err := encrypt(t.module, t.iv, s.handle, k.handle, (*[hsm.IVSize]byte)(s.buf[:]), s.buf[hsm.IVSize:], plaintext, aad)
		if err != nil {
			return err
		}
		answer = append(dst, s.buf[:hsm.IVSize+n]...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

func (t *Token) open(ctx context.Context, r *ref, dst, sealed, aad []byte) ([]byte, error) {
	iv, ciphertext := (*[hsm.IVSize]byte)(sealed), sealed[hsm.IVSize:]
	var answer []byte
	err := t.use(ctx, r, func(s *session, k *key) error {
		// SoftHSM wants room for the tag too.
		out := s.buf[:len(ciphertext)]
		defer clear(out)
		n, err := t.module.decrypt(s.handle, k.handle, iv, out, ciphertext, aad)
		if doubtful(err) {
			if err = t.judge(s, k, r, err); err != nil {
				return err
			}
			n, err = t.module.decrypt(s.handle, k.handle, iv, out, ciphertext, aad)
			if doubtful(err) {
				return reject(s, err)
			}
		}
		if err != nil {
			return err
		}
		if n != len(ciphertext)-hsm.TagSize {
			return wrongLength("C_Decrypt", n)
		}
		answer = append(dst, out[:n]...)
		return nil
	})
	if err != nil {
		// What was opened on a session that was then found lost.
		clear(answer[min(len(dst), len(answer)):])
		return nil, err
	}
	return answer, nil
}

// judge decides what err, a doubtful failure to decrypt under k on s, was about. A device gives the same answers whether the
// ciphertext does not belong to the key, the handle has come to name another key, the session is spoilt, or the device is broken. So
// the check value of the same key is opened on the same session, which can only work if the last three are not so.
//
// If it works, judge returns nil, and the ciphertext deserves to be tried once more, so that a passing fault of the device is not
// taken for a bad ciphertext: when it fails again, it is. If it does not work, the session is thrown away and the handle doubted, and
// [Token.use] begins again, with the canary on another session if need be.
func (t *Token) judge(s *session, k *key, r *ref, err error) error {
	if t.prove(s, k.handle, *r) != nil {
		t.keys.doubt(r.id, k)
		return err
	}
	return nil
}

// reject says that the ciphertext was the reason for err. The session is kept if it was shown to survive that.
func reject(s *session, err error) error {
	s.sound = !s.renewed
	e, _ := errors.AsType[*Error](err)
	return &Error{Function: e.Function, Code: e.Code, Kind: hsm.ErrRejected, Detail: "the key opens its check value, but not this"}
}

// use runs f with the key of r and a session, and runs it again if that may help: f must be repeatable. It helps when the session was lost, when
// the handle has become invalid, or when the device failed in passing, and each is taken to help once; a session may be lost twice, as another's
// loss ends it too.
func (t *Token) use(ctx context.Context, r *ref, f func(*session, *key) error) error {
	losses, faults, doubts := 2, 1, 1
	spend := func(n *int) bool {
		*n--
		return *n >= 0
	}
	for {
		k, err := t.key(ctx, r)
		if err == nil {
			err = t.data.with(ctx, func(s *session) error {
				proved, err := t.proveOn(s, k, r)
				if err != nil {
					return err
				}
				return f(s, proved)
			})
			if errors.Is(err, hsm.ErrNoKey) {
				// Not to be believed: the handle is, or has become, wrong. What the token finds now counts.
				t.keys.forget(r.id, k)
				if !spend(&doubts) {
					return unavailable("using a key that was found and proved a moment ago", err)
				}
				continue
			}
		}
		switch {
		case err == nil:
			return nil
		case !repeatable(ctx, err):
			return err
		case lost(err) && spend(&losses):
		case !lost(err) && spend(&faults):
		default:
			return err
		}
	}
}

// repeatable reports whether err may be gone with a new session.
func repeatable(ctx context.Context, err error) bool {
	return errors.Is(err, hsm.ErrUnavailable) && ctx.Err() == nil && err != errClosed && !hopeless(err)
}

func wrongLength(function string, n int) error {
	return &Error{Function: function, Kind: hsm.ErrUnavailable, Detail: fmt.Sprintf("it wrote %d bytes, which cannot be right", n)}
}
