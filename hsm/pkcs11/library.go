package pkcs11

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

// A library is a token in a PKCS #11 library of the operating system, reached in three ways that share one C_Initialize and one login,
// as both belong to the process (PKCS #11 v2.40, sections 6.6 and 6.7.4):
//
//   - crypto11 opens and closes the library, makes keys and key pairs, and gives random bytes: see [maker];
//   - miekg/pkcs11 finds, describes and destroys objects, signs, and opens the sessions of our pools;
//   - our own calls log in, encrypt and decrypt. See [functions] for the reasons.
type library struct {
	functions
	maker maker
	raw   *p11.Ctx // never initialises or finalises: that is for the maker
	slot  uint
	path  string
	name  string // of the library itself

	randomers chan struct{} // one for each call of random, so that the maker never makes it wait
}

// openLibrary loads the module and finds the one token that c names. It does not log in.
func openLibrary(c Config) (*library, error) {
	// First, because crypto11 does not say why a library cannot be loaded.
	f, err := load(c.Module)
	if err != nil {
		return nil, err
	}
	openMaker := openCrypto11
	if c.InitArgs != "" {
		openMaker = openMiekg
	}
	m, err := openMaker(c)
	if err != nil {
		return nil, err
	}
	l := &library{functions: f, maker: m, path: c.Module, raw: p11.New(c.Module), randomers: make(chan struct{}, randomSessions)}
	if err := l.choose(c); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// choose finds the token among those of the library. It is also the one that the maker has found, as there is only one of that name.
func (l *library) choose(c Config) error {
	if l.raw == nil {
		return fmt.Errorf("%w: cannot load %s again", hsm.ErrUnavailable, c.Module)
	}
	info, err := l.raw.GetInfo()
	if err != nil {
		return fault("C_GetInfo", err)
	}
	l.name = libraryName(info)
	l.slot, err = choose(l.raw, c)
	return err
}

// choose returns the slot of the token that c names, and sees that it is the only one of that name.
func choose(raw *p11.Ctx, c Config) (slot uint, err error) {
	slots, tokens, err := list(raw, c.Module)
	if err != nil {
		return 0, err
	}
	n := 0
	for i, t := range tokens {
		if c.matches(t) {
			slot = slots[i]
			n++
		}
	}
	switch {
	case n == 0:
		return 0, noToken(c, tokens)
	case n > 1:
		return 0, fmt.Errorf("%w: %d tokens %s in %s, which has %s; choose by serial number", hsm.ErrUnavailable, n, c.token(), c.Module, names(tokens))
	}
	return slot, nil
}

func noToken(c Config, tokens []Info) error {
	return fmt.Errorf("%w: no token %s in %s, which has %s", hsm.ErrUnavailable, c.token(), c.Module, names(tokens))
}

// Tokens lists the initialised tokens of a PKCS #11 module; of c, Module and InitArgs count. It cannot be used while a [Token] is open.
func Tokens(c Config) ([]Info, error) {
	raw, args, err := initialize(c)
	if err != nil {
		return nil, err
	}
	defer func() {
		raw.Finalize()
		raw.Destroy()
		freeArgs(args)
	}()
	_, tokens, err := list(raw, c.Module)
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

// sessionLimit leaves out the sessions that the maker takes.
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
	if limit <= makerSessions+1 {
		return 0, fmt.Errorf("%w: the token %q has %d sessions, too few: strongroom needs %d at least",
			hsm.ErrUnavailable, t.Label, limit, makerSessions+2)
	}
	return limit - makerSessions, nil
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
	return fault("C_GenerateKey", l.maker.generate(template))
}

// generateOn is miekg's, for keys that belong to the session: those of crypto11 would belong to one that is not ours.
func (l *library) generateOn(s p11.SessionHandle, template []*p11.Attribute) (p11.ObjectHandle, error) {
	o, err := l.raw.GenerateKey(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_GEN, nil)}, template)
	return o, fault("C_GenerateKey", err)
}

func (l *library) generatePair(public, private []*p11.Attribute) error {
	return fault("C_GenerateKeyPair", l.maker.generatePair(public, private))
}

func (l *library) create(s p11.SessionHandle, template []*p11.Attribute) (p11.ObjectHandle, error) {
	o, err := l.raw.CreateObject(s, template)
	return o, fault("C_CreateObject", err)
}

// sign is miekg's, on a session of ours. Its faults do not matter here, unlike with [functions]: a digest and a signature are not secret, so
// that copies of them may stay in memory; and what a failed call leaks is 64 bytes, which no client can cause, as there is no wrong digest.
// crypto11 would not do: see [viaCrypto11.generatePair].
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
	if _, err := io.ReadFull(l.maker, p); err != nil {
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

// close finalises the library, and logs out with that. It may take for ever: see [viaCrypto11.close].
func (l *library) close() error {
	err := l.maker.close()
	l.raw.Destroy()
	if err != nil {
		return errors.Join(errors.New("closing the PKCS#11 library"), fault("C_Finalize", err))
	}
	return nil
}
