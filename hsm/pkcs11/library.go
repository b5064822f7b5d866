package pkcs11

import (
	"context"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"strongroom/hsm"

	"github.com/ThalesIgnite/crypto11"
	p11 "github.com/miekg/pkcs11"
)

// A library is a token in a PKCS #11 library of the operating system, reached in three ways that share one C_Initialize and one login,
// as both belong to the process (PKCS #11 v2.40, sections 6.6 and 6.7.4):
//
//   - crypto11 opens and closes the library, makes keys and key pairs, and gives random bytes. It keeps one session open for as long as it lives,
//     which is what keeps the login;
//   - miekg/pkcs11 finds, describes and destroys objects, signs, and opens the sessions of our pools;
//   - our own calls log in, encrypt and decrypt. See [functions] for the reasons.
type library struct {
	functions
	crypto *crypto11.Context
	raw    *p11.Ctx // never initialises or finalises: that is for crypto11
	slot   uint
	path   string
	name   string // of the library itself

	reader    io.Reader
	randomers chan struct{} // one for each call of random, so that crypto11's pool never makes it wait
}

// crypto11 has a session to keep the login, one for generate and generatePair, of which one is called at a time, and these for random.
const (
	randomSessions   = 4
	crypto11Sessions = 1 + 1 + randomSessions
)

// openLibrary loads the module and finds the one token that c names. It does not log in: LoginNotSupported leaves that to
// us, because crypto11 takes CKR_USER_ALREADY_LOGGED_IN for success. The sessions of its pool are logged in all the same as soon as
// one of the process is (PKCS #11 v2.40, section 6.7.4).
func openLibrary(c Config) (*library, error) {
	// First, because crypto11 does not say why a library cannot be loaded.
	f, err := load(c.Module)
	if err != nil {
		return nil, err
	}
	crypto, err := crypto11.Configure(&crypto11.Config{
		Path:              c.Module,
		TokenLabel:        c.Label,
		TokenSerial:       c.Serial,
		MaxSessions:       crypto11Sessions,
		PoolWaitTimeout:   30 * time.Second, // the default is to wait for ever
		GCMIVLength:       hsm.IVSize,       // the default is 16; nothing here uses crypto11's GCM
		LoginNotSupported: true,
	})
	if err != nil {
		return nil, explain(c, err)
	}
	l := &library{functions: f, crypto: crypto, path: c.Module, raw: p11.New(c.Module), randomers: make(chan struct{}, randomSessions)}
	if err := l.choose(c); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
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
	tokens, lerr := Tokens(c.Module)
	if lerr != nil {
		return fmt.Errorf("%w: opening the token %s: %v; listing tokens: %v", hsm.ErrUnavailable, c.token(), err, lerr)
	}
	return fmt.Errorf("%w: no token %s in %s, which has %s", hsm.ErrUnavailable, c.token(), c.Module, names(tokens))
}

// choose finds the token among those of the library, and sees that it is the only one of that name. So it is also the one that
// crypto11 has found.
func (l *library) choose(c Config) error {
	if l.raw == nil {
		return fmt.Errorf("%w: cannot load %s again", hsm.ErrUnavailable, c.Module)
	}
	info, err := l.raw.GetInfo()
	if err != nil {
		return fault("C_GetInfo", err)
	}
	l.name = libraryName(info)
	slots, tokens, err := list(l.raw, l.path)
	if err != nil {
		return err
	}
	n := 0
	for i, t := range tokens {
		if c.matches(t) {
			l.slot = slots[i]
			n++
		}
	}
	switch {
	case n == 0: // it was there a moment ago
		return fmt.Errorf("%w: no token %s in %s, which has %s", hsm.ErrUnavailable, c.token(), c.Module, names(tokens))
	case n > 1:
		return fmt.Errorf("%w: %d tokens %s in %s, which has %s; choose by serial number", hsm.ErrUnavailable, n, c.token(), c.Module, names(tokens))
	}
	l.reader, err = l.crypto.NewRandomReader()
	return err
}

// Tokens lists the initialised tokens of a PKCS #11 module. It cannot be used while a [Token] is open.
func Tokens(module string) ([]Info, error) {
	if _, err := load(module); err != nil {
		return nil, err
	}
	raw := p11.New(module)
	if raw == nil {
		return nil, fmt.Errorf("cannot load the PKCS#11 module %s", module)
	}
	defer raw.Destroy()
	if err := raw.Initialize(); err != nil {
		return nil, fault("C_Initialize", err)
	}
	defer raw.Finalize()
	_, tokens, err := list(raw, module)
	return tokens, err
}

// list returns the initialised tokens, and their slots.
func list(raw *p11.Ctx, path string) ([]uint, []Info, error) {
	info, err := raw.GetInfo()
	if err != nil {
		return nil, nil, fault("C_GetInfo", err)
	}
	all, err := raw.GetSlotList(true)
	if err != nil {
		return nil, nil, fault("C_GetSlotList", err)
	}
	var slots []uint
	var tokens []Info
	for _, slot := range all {
		t, err := raw.GetTokenInfo(slot)
		if has(err, p11.CKR_TOKEN_NOT_PRESENT, p11.CKR_TOKEN_NOT_RECOGNIZED) {
			continue // a reader without a card, or with somebody else's
		}
		if err != nil {
			return nil, nil, fault("C_GetTokenInfo", err)
		}
		if t.Flags&p11.CKF_TOKEN_INITIALIZED != 0 {
			slots = append(slots, slot)
			tokens = append(tokens, describe(path, libraryName(info), t))
		}
	}
	return slots, tokens, nil
}

func describe(path, library string, t p11.TokenInfo) Info {
	version := func(v p11.Version) string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }
	return Info{
		Module:       path,
		Library:      library,
		Label:        t.Label,
		Serial:       t.SerialNumber,
		Manufacturer: t.ManufacturerID,
		Model:        t.Model,
		Hardware:     version(t.HardwareVersion),
		Firmware:     version(t.FirmwareVersion),
	}
}

func libraryName(i p11.Info) string {
	return fmt.Sprintf("%s %d.%d", i.LibraryDescription, i.LibraryVersion.Major, i.LibraryVersion.Minor)
}

func (l *library) info() (Info, uint, error) {
	t, err := l.raw.GetTokenInfo(l.slot)
	if err != nil {
		return Info{}, 0, fault("C_GetTokenInfo", err)
	}
	return describe(l.path, l.name, t), t.Flags, nil
}

// sessionLimit leaves out the sessions that crypto11 takes.
func (l *library) sessionLimit() (uint, error) {
	t, err := l.raw.GetTokenInfo(l.slot)
	if err != nil {
		return 0, fault("C_GetTokenInfo", err)
	}
	limit := uint(0)
	for _, n := range []uint{t.MaxSessionCount, t.MaxRwSessionCount} {
		if n != p11.CK_EFFECTIVELY_INFINITE && n != p11.CK_UNAVAILABLE_INFORMATION && (limit == 0 || n < limit) {
			limit = n
		}
	}
	if limit == 0 {
		return 0, nil
	}
	if limit <= crypto11Sessions+1 {
		return 0, fmt.Errorf("%w: the token %q has %d sessions, too few: strongroom needs %d at least",
			hsm.ErrUnavailable, t.Label, limit, crypto11Sessions+2)
	}
	return limit - crypto11Sessions, nil
}

func (l *library) mechanisms() ([]uint, error) {
	list, err := l.raw.GetMechanismList(l.slot)
	if err != nil {
		return nil, fault("C_GetMechanismList", err)
	}
	types := make([]uint, len(list))
	for i, m := range list {
		types[i] = m.Mechanism
	}
	return types, nil
}

func (l *library) openSession() (p11.SessionHandle, error) {
	// CloudHSM before 5.5 has no read-only sessions.
	s, err := l.raw.OpenSession(l.slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	return s, fault("C_OpenSession", err)
}

func (l *library) closeSession(s p11.SessionHandle) error {
	return fault("C_CloseSession", l.raw.CloseSession(s))
}

func (l *library) sessionState(s p11.SessionHandle) (uint, error) {
	info, err := l.raw.GetSessionInfo(s)
	return info.State, fault("C_GetSessionInfo", err)
}

func (l *library) find(s p11.SessionHandle, template []*p11.Attribute) (all []p11.ObjectHandle, err error) {
	if err := l.raw.FindObjectsInit(s, template); err != nil {
		return nil, fault("C_FindObjectsInit", err)
	}
	defer func() {
		if ferr := l.raw.FindObjectsFinal(s); err == nil {
			err = fault("C_FindObjectsFinal", ferr)
		}
	}()
	for {
		// It is over when nothing more is found, not when less than the maximum is (PKCS #11 v2.40, section 5.7).
		some, _, err := l.raw.FindObjects(s, 256)
		if err != nil {
			return nil, fault("C_FindObjects", err)
		}
		if len(some) == 0 {
			return all, nil
		}
		all = append(all, some...)
	}
}

func (l *library) attributes(s p11.SessionHandle, o p11.ObjectHandle, types ...uint) ([]*p11.Attribute, error) {
	template := make([]*p11.Attribute, len(types))
	for i, t := range types {
		template[i] = p11.NewAttribute(t, nil)
	}
	read, err := l.raw.GetAttributeValue(s, o, template)
	return read, fault("C_GetAttributeValue", err)
}

func (l *library) generate(template []*p11.Attribute) error {
	set := crypto11.NewAttributeSet()
	for _, a := range template {
		set[a.Type] = a
	}
	_, err := l.crypto.GenerateSecretKeyWithAttributes(set, keyLen*8, crypto11.CipherAES)
	return fault("C_GenerateKey", err)
}

// generateOn is miekg's, for keys that belong to the session: those of crypto11 would belong to one that is not ours.
func (l *library) generateOn(s p11.SessionHandle, template []*p11.Attribute) (p11.ObjectHandle, error) {
	o, err := l.raw.GenerateKey(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_GEN, nil)}, template)
	return o, fault("C_GenerateKey", err)
}

// generatePair is crypto11's, as generate is. The crypto.Signer that it returns is not kept: its Sign takes a session of crypto11's own pool,
// where it waits without a context and from which a session that went bad is never discarded; FindKeyPair, which would bring it back later,
// finds nothing, without an error, once the login is lost; and neither proves that the handle still is the key.
//
// crypto11 also reads the public key, and fails with a token that does not wrap CKA_EC_POINT in an OCTET STRING. The pair is there then, and
// the repetition finds it and reads the point by itself.
func (l *library) generatePair(public, private []*p11.Attribute) error {
	set := func(template []*p11.Attribute) crypto11.AttributeSet {
		set := crypto11.NewAttributeSet()
		for _, a := range template {
			set[a.Type] = a
		}
		return set
	}
	_, err := l.crypto.GenerateECDSAKeyPairWithAttributes(set(public), set(private), elliptic.P256())
	return fault("C_GenerateKeyPair", err)
}

func (l *library) create(s p11.SessionHandle, template []*p11.Attribute) (p11.ObjectHandle, error) {
	o, err := l.raw.CreateObject(s, template)
	return o, fault("C_CreateObject", err)
}

// sign is miekg's, on a session of ours. Its faults do not matter here, unlike with [functions]: a digest and a signature are not secret, so
// that copies of them may stay in memory; and what a failed call leaks is 64 bytes, which no client can cause, as there is no wrong digest.
// crypto11 would not do: see generatePair.
func (l *library) sign(s p11.SessionHandle, key p11.ObjectHandle, digest []byte) ([]byte, error) {
	if err := l.raw.SignInit(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_ECDSA, nil)}, key); err != nil {
		return nil, fault("C_SignInit", err)
	}
	signature, err := l.raw.Sign(s, digest)
	return signature, fault("C_Sign", err)
}

func (l *library) duplicate(s p11.SessionHandle, o p11.ObjectHandle) (p11.ObjectHandle, error) {
	c, err := l.raw.CopyObject(s, o, []*p11.Attribute{p11.NewAttribute(p11.CKA_TOKEN, false)})
	return c, fault("C_CopyObject", err)
}

func (l *library) destroy(s p11.SessionHandle, o p11.ObjectHandle) error {
	return fault("C_DestroyObject", l.raw.DestroyObject(s, o))
}

// random fills p with bytes of the token, to each of which it adds (exclusive or) one of this host. The sum is as good as
// the better of the two, and knowing one of them does not help: crypto11 and miekg/pkcs11 leave copies of the token's bytes
// in memory, and p may become a key.
func (l *library) random(ctx context.Context, p []byte) error {
	select {
	case l.randomers <- struct{}{}:
		defer func() { <-l.randomers }()
	case <-ctx.Done():
		return fmt.Errorf("%w: no session became free: %w", hsm.ErrUnavailable, ctx.Err())
	}
	if _, err := io.ReadFull(l.reader, p); err != nil {
		clear(p)
		return fault("C_GenerateRandom", err)
	}
	var host [256]byte
	defer clear(host[:])
	for rest := p; len(rest) > 0; {
		n := min(len(rest), len(host))
		rand.Read(host[:n])
		subtle.XORBytes(rest, rest, host[:n])
		rest = rest[n:]
	}
	return nil
}

func (l *library) figures() (tokenFigures, error) {
	t, err := l.raw.GetTokenInfo(l.slot)
	if err != nil {
		return tokenFigures{}, fault("C_GetTokenInfo", err)
	}
	_, tokens, err := list(l.raw, l.path)
	if err != nil {
		return tokenFigures{}, err
	}
	f := tokenFigures{slot: l.slot, totalMemory: known(t.TotalPrivateMemory), freeMemory: known(t.FreePrivateMemory)}
	for _, n := range []uint{known(t.MaxSessionCount), known(t.MaxRwSessionCount)} {
		if n != 0 && (f.sessions == 0 || n < f.sessions) {
			f.sessions = n
		}
	}
	for _, other := range tokens {
		if other.Label == t.Label {
			f.namesakes++
		}
	}
	return f, nil
}

// known returns n, or 0 if the token says that it does not say. CK_EFFECTIVELY_INFINITE is 0 already.
func known(n uint) uint {
	if n == p11.CK_UNAVAILABLE_INFORMATION {
		return 0
	}
	return n
}

func (l *library) wrap(s p11.SessionHandle, mechanism uint, by, key p11.ObjectHandle) ([]byte, error) {
	wrapped, err := l.raw.WrapKey(s, []*p11.Mechanism{p11.NewMechanism(mechanism, nil)}, by, key)
	return wrapped, fault("C_WrapKey", err)
}

// query is miekg's Encrypt, which asks for the length first. What that leaves behind holds no secret here.
func (l *library) query(s p11.SessionHandle, key p11.ObjectHandle, iv, plaintext, aad []byte) ([]byte, error) {
	params := p11.NewGCMParams(iv, aad, hsm.TagSize*8)
	defer params.Free()
	if err := l.raw.EncryptInit(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_GCM, params)}, key); err != nil {
		return nil, fault("C_EncryptInit", err)
	}
	sealed, err := l.raw.Encrypt(s, plaintext)
	return sealed, fault("C_Encrypt", err)
}

// close closes crypto11, which finalises the library, and logs out with that. crypto11 may wait for ever, so the caller waits for
// as long as it wants.
func (l *library) close() error {
	err := l.crypto.Close()
	l.raw.Destroy()
	if err != nil {
		return errors.Join(errors.New("closing the PKCS#11 library"), fault("C_Finalize", err))
	}
	return nil
}
