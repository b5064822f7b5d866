package pkcs11

/*
#include <stdlib.h>
*/
import "C"

import (
	"crypto/elliptic"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unsafe"

	"strongroom/hsm"

	"github.com/ThalesIgnite/crypto11"
	p11 "github.com/miekg/pkcs11"
)

// A maker opens a library and closes it, makes keys, and gives random bytes. It keeps one session open as long as it lives, which is what keeps
// the login, and has the others of makerSessions for its work.
//
// [viaCrypto11] is the one for all devices. [viaMiekg] is for those that want an argument in C_Initialize. Read is of random bytes, and is
// called by as many goroutines as randomSessions says; generate and generatePair are called by one at a time. Their errors are not sorted yet.
type maker interface {
	generate(template []*p11.Attribute) error
	generatePair(public, private []*p11.Attribute) error
	io.Reader
	close() error
}

// One session to keep the login, one for generate and generatePair, and these for random.
const (
	randomSessions = 4
	makerSessions  = 1 + 1 + randomSessions
)

// viaCrypto11 makes with crypto11.
type viaCrypto11 struct {
	crypto *crypto11.Context
	io.Reader
}

// openCrypto11 does not log in: LoginNotSupported leaves that to us, because crypto11 takes CKR_USER_ALREADY_LOGGED_IN for success. The
// sessions of its pool are logged in all the same as soon as one of the process is (PKCS #11 v2.40, section 6.7.4).
func openCrypto11(c Config) (maker, error) {
	crypto, err := crypto11.Configure(&crypto11.Config{
		Path:              c.Module,
		TokenLabel:        c.Label,
		TokenSerial:       c.Serial,
		MaxSessions:       makerSessions,
		PoolWaitTimeout:   30 * time.Second, // the default is to wait for ever
		GCMIVLength:       hsm.IVSize,       // the default is 16; nothing here uses crypto11's GCM
		LoginNotSupported: true,
	})
	if err != nil {
		return nil, explain(c, err)
	}
	reader, err := crypto.NewRandomReader()
	if err != nil {
		return nil, errors.Join(err, crypto.Close())
	}
	return viaCrypto11{crypto, reader}, nil
}

// explain says what the error of crypto11.Configure means. When it is that there is no such token, the message lists those that
// there are.
func explain(c Config, err error) error {
	text := err.Error()
	for _, step := range []struct{ text, function string }{
		{"initialize", "C_Initialize"},
		{"list", "C_GetSlotList"},
		{"session", "C_OpenSession"},
	} {
		if strings.Contains(text, "failed to "+step.text) || strings.Contains(text, "long term "+step.text) {
			return fault(step.function, err)
		}
	}
	if _, ok := codeOf(err); ok {
		return fault("C_GetTokenInfo", err)
	}
	tokens, lerr := Tokens(c)
	if lerr != nil {
		return fmt.Errorf("%w: opening the token %s: %v; listing tokens: %v", hsm.ErrUnavailable, c.token(), err, lerr)
	}
	return noToken(c, tokens)
}

func (m viaCrypto11) generate(template []*p11.Attribute) error {
	_, err := m.crypto.GenerateSecretKeyWithAttributes(attributeSet(template), keyLen*8, crypto11.CipherAES)
	return err
}

// generatePair does not keep the crypto.Signer that crypto11 returns: its Sign takes a session of crypto11's own pool, where it waits without a
// context and from which a session that went bad is never discarded; FindKeyPair, which would bring it back later, finds nothing, without an
// error, once the login is lost; and neither proves that the handle still is the key.
//
// crypto11 also reads the public key, and fails with a token that does not wrap CKA_EC_POINT in an OCTET STRING. The pair is there then, and
// the repetition finds it and reads the point by itself.
func (m viaCrypto11) generatePair(public, private []*p11.Attribute) error {
	_, err := m.crypto.GenerateECDSAKeyPairWithAttributes(attributeSet(public), attributeSet(private), elliptic.P256())
	return err
}

func attributeSet(template []*p11.Attribute) crypto11.AttributeSet {
	set := crypto11.NewAttributeSet()
	for _, a := range template {
		set[a.Type] = a
	}
	return set
}

// close finalises the library, and so logs out. crypto11 may wait for ever, so the caller waits for as long as it wants.
func (m viaCrypto11) close() error { return m.crypto.Close() }

// viaMiekg does the same for a library that has to be initialised with an argument ([Config].InitArgs). crypto11.Configure passes none, has no
// way to be told one, and fails with CKR_CRYPTOKI_ALREADY_INITIALIZED when somebody else has initialised the library before it.
type viaMiekg struct {
	raw    *p11.Ctx
	slot   uint
	args   *C.char
	keeper p11.SessionHandle
	idle   chan p11.SessionHandle // 0 is one that is yet to be opened (PKCS #11 v2.40, section 3.3: CK_INVALID_HANDLE)
}

func openMiekg(c Config) (_ maker, err error) {
	raw, args, err := initialize(c)
	if err != nil {
		return nil, err
	}
	m := &viaMiekg{raw: raw, args: args, idle: make(chan p11.SessionHandle, makerSessions-1)}
	for range cap(m.idle) {
		m.idle <- 0
	}
	if m.slot, err = choose(raw, c); err == nil {
		m.keeper, err = m.session()
	}
	if err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// initialize loads the library and calls C_Initialize, with the argument that c has for it. The argument is to be freed after C_Finalize, as
// nothing says that a library takes a copy.
func initialize(c Config) (*p11.Ctx, *C.char, error) {
	// First, because miekg/pkcs11 does not say why a library cannot be loaded.
	if _, err := load(c.Module); err != nil {
		return nil, nil, err
	}
	raw := p11.New(c.Module)
	if raw == nil {
		return nil, nil, fmt.Errorf("%w: cannot load %s again", hsm.ErrUnavailable, c.Module)
	}
	var args *C.char
	var options []p11.InitializeOption
	if c.InitArgs != "" {
		args = C.CString(c.InitArgs)
		options = append(options, p11.InitializeWithReserved(unsafe.Pointer(args)))
	}
	if err := raw.Initialize(options...); err != nil {
		freeArgs(args)
		raw.Destroy()
		return nil, nil, fault("C_Initialize", err)
	}
	return raw, args, nil
}

func freeArgs(args *C.char) { C.free(unsafe.Pointer(args)) }

func (m *viaMiekg) session() (p11.SessionHandle, error) {
	s, err := m.raw.OpenSession(m.slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	return s, fault("C_OpenSession", err)
}

// with lends f a session. There are as many as callers. One on which something failed is not used again.
func (m *viaMiekg) with(f func(p11.SessionHandle) error) (err error) {
	s, open := <-m.idle
	if !open {
		return errClosed
	}
	defer func() { m.idle <- s }()
	if s == 0 {
		if s, err = m.session(); err != nil {
			return err
		}
	}
	if err = f(s); err != nil {
		if !lost(err) {
			_ = m.raw.CloseSession(s)
		}
		s = 0
	}
	return err
}

func (m *viaMiekg) generate(template []*p11.Attribute) error {
	return m.with(func(s p11.SessionHandle) error {
		_, err := m.raw.GenerateKey(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_GEN, nil)}, template)
		return err
	})
}

func (m *viaMiekg) generatePair(public, private []*p11.Attribute) error {
	return m.with(func(s p11.SessionHandle) error {
		_, _, err := m.raw.GenerateKeyPair(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_EC_KEY_PAIR_GEN, nil)}, public, private)
		return err
	})
}

func (m *viaMiekg) Read(p []byte) (n int, err error) {
	err = m.with(func(s p11.SessionHandle) error {
		b, err := m.raw.GenerateRandom(s, len(p))
		n = copy(p, b)
		clear(b)
		return err
	})
	return n, err
}

// close waits for all sessions to be given back, since a call must not be in progress in C_Finalize; for ever, if one hangs.
func (m *viaMiekg) close() error {
	for range cap(m.idle) {
		<-m.idle
	}
	close(m.idle)
	err := m.raw.Finalize()
	m.raw.Destroy()
	freeArgs(m.args)
	return err
}
