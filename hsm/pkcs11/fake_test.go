package pkcs11

import (
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"strongroom/hsm"
	"strongroom/hsm/hsmtest"

	p11 "github.com/miekg/pkcs11"
)

// A fake is a token in memory that behaves well, unless it is told not to.
type fake struct {
	mu       sync.Mutex
	objects  map[p11.ObjectHandle]*fakeObject
	sessions map[p11.SessionHandle]*fakeSession
	last     uint // handle given
	loggedIn bool
	calls    map[string]int // of each function

	pin        string
	flags      uint
	mechanism  []uint
	limit      uint
	badTag     uint // what a bad tag is answered with
	noValue    uint // what the use of a key without a value is answered with
	short      int  // how many bytes too few are written
	stuckOnBad bool // after a bad tag, or the use of an object without a key, the operation stays active
	unknown    []uint
	forced     map[uint][]byte // attributes that keys have whatever the template says
	forge      bool            // signatures are of something else
	rawPoint   bool            // CKA_EC_POINT is not wrapped
	reuse      bool            // a session gets the lowest number that is free
	namesakes  int             // tokens that have the same label
	room       int             // for objects, if it is not 0
	noImport   bool            // C_CreateObject refuses secret keys
	leaky      bool            // keys are given away
	shortID    bool            // two bytes of CKA_ID are kept
	iv         fakeIV          // what is done with an IV that is given
	noSession  bool            // there are no keys that belong to a session

	// fail is asked before each call, without the lock; an answer other than 0 is the call's.
	fail func(function string, s p11.SessionHandle) uint
}

type fakeObject struct {
	attributes map[uint][]byte
	aead       cipher.AEAD
	signer     *ecdsa.PrivateKey
	session    p11.SessionHandle // that the object ends with, or 0
}

type fakeSession struct{ active bool }

// A fakeIV is how a fake deals with IVs. It gets what it is given, nil for NULL, and returns the IV that is used, the one that is at the caller's after
// that, whether that is in memory of the device's own, what comes after the tag, and a CKR_ value if it refuses.
type fakeIV func(given *[hsm.IVSize]byte) (used, left [hsm.IVSize]byte, moved bool, appended []byte, code uint)

// Ways in which real devices do it, and some in which they should not.
var (
	ivOfCaller fakeIV = func(given *[hsm.IVSize]byte) (used, left [hsm.IVSize]byte, moved bool, appended []byte, code uint) {
		if given == nil {
			return used, left, false, nil, 0 // as SoftHSM: zero
		}
		return *given, *given, false, nil, 0
	}
	ivZeroed fakeIV = func(given *[hsm.IVSize]byte) (used, left [hsm.IVSize]byte, moved bool, appended []byte, code uint) {
		if given == nil || *given != used {
			return used, left, false, nil, p11.CKR_MECHANISM_PARAM_INVALID
		}
		used = randomIV()
		return used, used, false, nil, 0
	}
	ivAppended fakeIV = func(given *[hsm.IVSize]byte) (used, left [hsm.IVSize]byte, moved bool, appended []byte, code uint) {
		if given != nil {
			return used, left, false, nil, p11.CKR_MECHANISM_PARAM_INVALID
		}
		used = randomIV()
		return used, left, false, used[:], 0
	}
	ivOverwritten fakeIV = func(given *[hsm.IVSize]byte) (used, left [hsm.IVSize]byte, moved bool, appended []byte, code uint) {
		if given == nil || *given == used {
			return used, left, false, nil, p11.CKR_MECHANISM_PARAM_INVALID
		}
		used = randomIV()
		return used, used, false, nil, 0
	}
	ivMoved fakeIV = func(given *[hsm.IVSize]byte) (used, left [hsm.IVSize]byte, moved bool, appended []byte, code uint) {
		used = randomIV()
		return used, used, true, nil, 0
	}
)

func randomIV() (iv [hsm.IVSize]byte) {
	rand.Read(iv[:])
	return iv
}

func newFake() *fake {
	return &fake{
		objects:   map[p11.ObjectHandle]*fakeObject{},
		sessions:  map[p11.SessionHandle]*fakeSession{},
		calls:     map[string]int{},
		pin:       "1234",
		flags:     p11.CKF_TOKEN_INITIALIZED | p11.CKF_USER_PIN_INITIALIZED | p11.CKF_LOGIN_REQUIRED,
		mechanism: []uint{p11.CKM_AES_KEY_GEN, p11.CKM_AES_CBC, p11.CKM_AES_GCM, p11.CKM_ECDSA, p11.CKM_EC_KEY_PAIR_GEN},
		badTag:    p11.CKR_GENERAL_ERROR,
		noValue:   p11.CKR_MECHANISM_INVALID,
		forced:    map[uint][]byte{},
		iv:        ivOfCaller,
	}
}

// open prepares the fake and opens it.
func (f *fake) open(t *testing.T, c Config) *Token {
	t.Helper()
	if c.PIN == nil {
		c.PIN = func() ([]byte, error) { return []byte("1234"), nil }
	}
	token, err := newToken(t.Context(), f, c, true)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// begin counts a call, and answers it if it is to fail. It returns with the lock.
func (f *fake) begin(function string, s p11.SessionHandle) error {
	f.mu.Lock()
	f.calls[function]++
	fail := f.fail
	if fail != nil {
		f.mu.Unlock()
		code := fail(function, s)
		f.mu.Lock()
		if code != 0 {
			return fault(function, p11.Error(code))
		}
	}
	if _, ok := f.sessions[s]; s != 0 && !ok {
		return fault(function, p11.Error(p11.CKR_SESSION_HANDLE_INVALID))
	}
	return nil
}

func (f *fake) count(function string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[function]
}

func (f *fake) failing(fail func(function string, s p11.SessionHandle) uint) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

// always fails all calls of a function with code.
func always(function string, code uint) func(string, p11.SessionHandle) uint {
	return func(f string, _ p11.SessionHandle) uint {
		if f == function {
			return code
		}
		return 0
	}
}

// loseSessions makes all sessions invalid. The login is kept, as crypto11's session would keep it.
func (f *fake) loseSessions() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.sessions {
		f.end(s)
	}
}

// renumber gives every object another handle: its own plus n.
func (f *fake) renumber(n p11.ObjectHandle) {
	f.mu.Lock()
	defer f.mu.Unlock()
	objects := map[p11.ObjectHandle]*fakeObject{}
	for h, o := range f.objects {
		objects[h+n] = o
	}
	f.objects = objects
	f.last += uint(n)
}

// swap exchanges the handles of two keys.
func (f *fake) swap(a, b hsm.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ha, hb := f.handles(a)[0], f.handles(b)[0]
	f.objects[ha], f.objects[hb] = f.objects[hb], f.objects[ha]
}

// handles returns those of the objects called id. The caller has the lock.
func (f *fake) handles(id hsm.ID) (found []p11.ObjectHandle) {
	for h, o := range f.objects {
		if string(o.attributes[p11.CKA_ID]) == string(id[:]) {
			found = append(found, h)
		}
	}
	return found
}

func (f *fake) has(id hsm.ID) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.handles(id))
}

func (f *fake) info() (Info, uint, error) {
	defer f.mu.Unlock()
	err := f.begin("C_GetTokenInfo", 0)
	return Info{Label: "fake", Serial: "42", Manufacturer: "nobody", Model: "none"}, f.flags, err
}

func (f *fake) sessionLimit() (uint, error) { return f.limit, nil }
func (f *fake) mechanisms() ([]uint, error) { return f.mechanism, nil }

func (f *fake) openSession() (p11.SessionHandle, error) {
	defer f.mu.Unlock()
	if err := f.begin("C_OpenSession", 0); err != nil {
		return 0, err
	}
	if f.limit != 0 && uint(len(f.sessions)) >= f.limit {
		return 0, fault("C_OpenSession", p11.Error(p11.CKR_SESSION_COUNT))
	}
	f.last++
	h := p11.SessionHandle(f.last)
	if f.reuse {
		for h = 1; f.sessions[h] != nil; h++ {
		}
	}
	f.sessions[h] = &fakeSession{}
	return h, nil
}

func (f *fake) closeSession(s p11.SessionHandle) error {
	defer f.mu.Unlock()
	err := f.begin("C_CloseSession", s)
	if err == nil {
		f.end(s)
	}
	return err
}

// end ends a session, and what belongs to it. The caller has the lock.
func (f *fake) end(s p11.SessionHandle) {
	delete(f.sessions, s)
	maps.DeleteFunc(f.objects, func(_ p11.ObjectHandle, o *fakeObject) bool { return o.session != 0 && o.session == s })
}

func (f *fake) sessionState(s p11.SessionHandle) (uint, error) {
	defer f.mu.Unlock()
	err := f.begin("C_GetSessionInfo", s)
	if !f.loggedIn {
		return p11.CKS_RW_PUBLIC_SESSION, err
	}
	return p11.CKS_RW_USER_FUNCTIONS, err
}

func (f *fake) login(s p11.SessionHandle, pin []byte) error {
	defer f.mu.Unlock()
	if err := f.begin("C_Login", s); err != nil {
		return err
	}
	if string(pin) != f.pin {
		f.flags |= p11.CKF_USER_PIN_COUNT_LOW
		return fault("C_Login", p11.Error(p11.CKR_PIN_INCORRECT))
	}
	f.loggedIn = true
	return nil
}

func (f *fake) find(s p11.SessionHandle, template []*p11.Attribute) ([]p11.ObjectHandle, error) {
	defer f.mu.Unlock()
	if err := f.begin("C_FindObjects", s); err != nil {
		return nil, err
	}
	var found []p11.ObjectHandle
	for h, o := range f.objects {
		if f.loggedIn && !slices.ContainsFunc(template, func(a *p11.Attribute) bool { return string(o.attributes[a.Type]) != string(a.Value) }) {
			found = append(found, h)
		}
	}
	slices.Sort(found)
	return found, nil
}

func (f *fake) attributes(s p11.SessionHandle, h p11.ObjectHandle, types ...uint) ([]*p11.Attribute, error) {
	defer f.mu.Unlock()
	if err := f.begin("C_GetAttributeValue", s); err != nil {
		return nil, err
	}
	o, ok := f.objects[h]
	if !ok {
		return nil, fault("C_GetAttributeValue", p11.Error(p11.CKR_OBJECT_HANDLE_INVALID))
	}
	var read []*p11.Attribute
	for _, t := range types {
		if t == p11.CKA_VALUE && !f.leaky {
			return nil, fault("C_GetAttributeValue", p11.Error(p11.CKR_ATTRIBUTE_SENSITIVE))
		}
		read = append(read, &p11.Attribute{Type: t, Value: o.attributes[t]})
	}
	return read, nil
}

func (f *fake) generate(template []*p11.Attribute) error {
	defer f.mu.Unlock()
	if err := f.begin("C_GenerateKey", 0); err != nil {
		return err
	}
	_, err := f.makeKey(0, template)
	return err
}

func (f *fake) generateOn(s p11.SessionHandle, template []*p11.Attribute) (p11.ObjectHandle, error) {
	defer f.mu.Unlock()
	if err := f.begin("C_GenerateKey", s); err != nil {
		return 0, err
	}
	return f.makeKey(s, template)
}

// makeKey makes an AES key, of the session s if the template says so. The caller has the lock.
func (f *fake) makeKey(s p11.SessionHandle, template []*p11.Attribute) (p11.ObjectHandle, error) {
	o := &fakeObject{attributes: map[uint][]byte{p11.CKA_LOCAL: {1}, p11.CKA_ALWAYS_SENSITIVE: {1}, p11.CKA_NEVER_EXTRACTABLE: {1}}}
	for _, a := range template {
		if slices.Contains(f.unknown, a.Type) {
			return 0, fault("C_GenerateKey", p11.Error(p11.CKR_ATTRIBUTE_TYPE_INVALID))
		}
		o.attributes[a.Type] = a.Value
	}
	if string(o.attributes[p11.CKA_TOKEN]) == "\x00" {
		if f.noSession {
			return 0, fault("C_GenerateKey", p11.Error(p11.CKR_TEMPLATE_INCONSISTENT))
		}
		o.session = s
	}
	maps.Copy(o.attributes, f.forced)
	if f.room > 0 && len(f.objects) >= f.room {
		return 0, fault("C_GenerateKey", p11.Error(p11.CKR_DEVICE_MEMORY))
	}
	if f.leaky {
		o.attributes[p11.CKA_VALUE] = []byte("the key")
	}
	if f.shortID {
		o.attributes[p11.CKA_ID] = o.attributes[p11.CKA_ID][:2]
	}
	f.add(o)
	return p11.ObjectHandle(f.last), nil
}

func (f *fake) generatePair(public, private []*p11.Attribute) error {
	defer f.mu.Unlock()
	if err := f.begin("C_GenerateKeyPair", 0); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	b, err := key.PublicKey.Bytes()
	if err != nil {
		return err
	}
	if !f.rawPoint {
		b = wrapPoint(point(b))
	}
	pub := &fakeObject{attributes: map[uint][]byte{p11.CKA_EC_POINT: b}}
	priv := &fakeObject{attributes: map[uint][]byte{p11.CKA_EC_PARAMS: curve, p11.CKA_ALWAYS_SENSITIVE: {1}, p11.CKA_NEVER_EXTRACTABLE: {1}}, signer: key}
	for _, c := range []struct {
		o        *fakeObject
		template []*p11.Attribute
	}{{pub, public}, {priv, private}} {
		for _, a := range c.template {
			if slices.Contains(f.unknown, a.Type) {
				return fault("C_GenerateKeyPair", p11.Error(p11.CKR_ATTRIBUTE_TYPE_INVALID))
			}
			c.o.attributes[a.Type] = a.Value
		}
	}
	maps.Copy(priv.attributes, f.forced)
	for _, o := range []*fakeObject{pub, priv} {
		f.last++
		f.objects[p11.ObjectHandle(f.last)] = o
	}
	return nil
}

func (f *fake) create(s p11.SessionHandle, template []*p11.Attribute) (p11.ObjectHandle, error) {
	defer f.mu.Unlock()
	if err := f.begin("C_CreateObject", s); err != nil {
		return 0, err
	}
	o := &fakeObject{attributes: map[uint][]byte{}}
	for _, a := range template {
		o.attributes[a.Type] = a.Value
	}
	if value := o.attributes[p11.CKA_VALUE]; value != nil {
		if f.noImport {
			return 0, fault("C_CreateObject", p11.Error(p11.CKR_TEMPLATE_INCONSISTENT))
		}
		block, err := aes.NewCipher(value)
		if err != nil {
			return 0, err
		}
		o.aead, _ = cipher.NewGCM(block)
		o.session = s
	}
	f.last++
	f.objects[p11.ObjectHandle(f.last)] = o
	return p11.ObjectHandle(f.last), nil
}

func (f *fake) sign(s p11.SessionHandle, h p11.ObjectHandle, digest []byte) ([]byte, error) {
	o, err := f.cipher("C_Sign", s, h)
	if err != nil {
		return nil, err
	}
	if o.signer == nil {
		return nil, fault("C_SignInit", p11.Error(p11.CKR_KEY_TYPE_INCONSISTENT))
	}
	if f.forge {
		digest = make([]byte, len(digest))
	}
	der, err := o.signer.Sign(rand.Reader, digest, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	var sig signature
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		return nil, err
	}
	b := make([]byte, 64)
	sig.R.FillBytes(b[:32])
	sig.S.FillBytes(b[32:])
	return b[:64-f.short], nil
}

// add gives an object a key and a handle. The caller has the lock.
func (f *fake) add(o *fakeObject) {
	var k [keyLen]byte
	rand.Read(k[:])
	block, _ := aes.NewCipher(k[:])
	o.aead, _ = cipher.NewGCM(block)
	f.last++
	f.objects[p11.ObjectHandle(f.last)] = o
}

// plant makes another object with the attributes of the key called id, changed.
func (f *fake) plant(id hsm.ID, change func(attributes map[uint][]byte)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := maps.Clone(f.objects[f.handles(id)[0]].attributes)
	change(a)
	f.add(&fakeObject{attributes: a})
}

func (f *fake) duplicate(s p11.SessionHandle, h p11.ObjectHandle) (p11.ObjectHandle, error) {
	defer f.mu.Unlock()
	if err := f.begin("C_CopyObject", s); err != nil {
		return 0, err
	}
	o, ok := f.objects[h]
	if !ok {
		return 0, fault("C_CopyObject", p11.Error(p11.CKR_OBJECT_HANDLE_INVALID))
	}
	c := &fakeObject{attributes: maps.Clone(o.attributes), aead: o.aead, signer: o.signer, session: s}
	c.attributes[p11.CKA_TOKEN] = []byte{0}
	f.last++
	f.objects[p11.ObjectHandle(f.last)] = c
	return p11.ObjectHandle(f.last), nil
}

func (f *fake) destroy(s p11.SessionHandle, h p11.ObjectHandle) error {
	defer f.mu.Unlock()
	if err := f.begin("C_DestroyObject", s); err != nil {
		return err
	}
	if _, ok := f.objects[h]; !ok {
		return fault("C_DestroyObject", p11.Error(p11.CKR_OBJECT_HANDLE_INVALID))
	}
	delete(f.objects, h)
	return nil
}

func (f *fake) random(_ context.Context, p []byte) error {
	defer f.mu.Unlock()
	if err := f.begin("C_GenerateRandom", 0); err != nil {
		return err
	}
	rand.Read(p)
	return nil
}

func (f *fake) encrypt(s p11.SessionHandle, h p11.ObjectHandle, iv *[hsm.IVSize]byte, out, plaintext, aad []byte) (int, bool, error) {
	o, err := f.cipher("C_Encrypt", s, h)
	if err == nil && o.aead == nil {
		err = f.unusable("C_EncryptInit", s, o)
	}
	if err != nil {
		return 0, false, err
	}
	used, left, moved, appended, code := f.iv(iv)
	if code != 0 {
		return 0, false, fault("C_EncryptInit", p11.Error(code))
	}
	if iv != nil {
		*iv = left
	}
	b := append(o.aead.Seal(nil, used[:], plaintext, aad), appended...)
	if len(b) > len(out) {
		return 0, false, fault("C_Encrypt", p11.Error(p11.CKR_BUFFER_TOO_SMALL))
	}
	return copy(out, b) - f.short, moved, nil
}

func (f *fake) decrypt(s p11.SessionHandle, h p11.ObjectHandle, iv *[hsm.IVSize]byte, out, ciphertext, aad []byte) (int, error) {
	o, err := f.cipher("C_Decrypt", s, h)
	if err == nil && o.aead == nil {
		err = f.unusable("C_DecryptInit", s, o)
	}
	if err != nil {
		return 0, err
	}
	opened, err := o.aead.Open(nil, iv[:], ciphertext, aad)
	if err != nil {
		f.stick(s)
		return 0, fault("C_Decrypt", p11.Error(f.badTag))
	}
	return copy(out, opened) - f.short, nil
}

// unusable answers the use of an object without an AES key.
func (f *fake) unusable(function string, s p11.SessionHandle, o *fakeObject) error {
	if o.signer != nil {
		return fault(function, p11.Error(p11.CKR_KEY_TYPE_INCONSISTENT))
	}
	f.stick(s)
	return fault(function, p11.Error(f.noValue))
}

func (f *fake) stick(s p11.SessionHandle) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if session := f.sessions[s]; session != nil {
		session.active = f.stuckOnBad
	}
}

func (f *fake) cipher(function string, s p11.SessionHandle, h p11.ObjectHandle) (*fakeObject, error) {
	defer f.mu.Unlock()
	err := f.begin(function, s)
	o := f.objects[h]
	switch {
	case err != nil:
	case f.sessions[s].active:
		err = fault(function+"Init", p11.Error(p11.CKR_OPERATION_ACTIVE))
	case o == nil:
		err = fault(function+"Init", p11.Error(p11.CKR_OBJECT_HANDLE_INVALID))
	case !f.loggedIn:
		err = fault(function+"Init", p11.Error(p11.CKR_USER_NOT_LOGGED_IN))
	}
	return o, err
}

func (f *fake) figures() (tokenFigures, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	figures := tokenFigures{slot: 7, sessions: f.limit, namesakes: 1 + f.namesakes}
	if f.room > 0 {
		figures.totalMemory, figures.freeMemory = uint(f.room)*100, uint(f.room-len(f.objects))*100
	}
	return figures, nil
}

func (f *fake) wrap(s p11.SessionHandle, mechanism uint, by, key p11.ObjectHandle) ([]byte, error) {
	defer f.mu.Unlock()
	if err := f.begin("C_WrapKey", s); err != nil {
		return nil, err
	}
	if !f.leaky && !sameValue(f.objects[key].attributes[p11.CKA_EXTRACTABLE], []byte{1}) {
		return nil, fault("C_WrapKey", p11.Error(p11.CKR_KEY_UNEXTRACTABLE))
	}
	return make([]byte, 40), nil
}

func (f *fake) query(s p11.SessionHandle, key p11.ObjectHandle, iv, plaintext, aad []byte) ([]byte, error) {
	defer f.mu.Unlock()
	return nil, f.begin("C_Encrypt (query)", s)
}

func (f *fake) close() error { return nil }

func (f *fake) sessionCount() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.sessions)
}

// The fake is worth testing with.
func TestFake(t *testing.T) {
	for _, copies := range []bool{false, true} {
		t.Run(fmt.Sprint("copies ", copies), func(t *testing.T) {
			hsmtest.Test(t, func(t *testing.T) hsm.Device {
				token := newFake().open(t, Config{SessionCopies: copies})
				t.Cleanup(func() { token.Close() })
				return token
			})
		})
	}
}

func anID() (id hsm.ID) {
	rand.Read(id[:])
	return id
}

const label = labelPrefix + "test/1"

var aad = []byte("aad")

// made makes a key.
func made(t *testing.T, token *Token) (hsm.ID, hsm.Ref) {
	t.Helper()
	id := anID()
	ref, err := token.Generate(t.Context(), id, label)
	if err != nil {
		t.Fatal(err)
	}
	return id, ref
}

// sealed seals something.
func sealed(t *testing.T, token *Token, ref hsm.Ref) []byte {
	t.Helper()
	b, err := token.Seal(t.Context(), ref, nil, []byte("plaintext"), aad)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// opens sees that what [sealed] returned can be opened.
func opens(t *testing.T, token *Token, ref hsm.Ref, b []byte) {
	t.Helper()
	got, err := token.Open(t.Context(), ref, nil, b, aad)
	if err != nil || string(got) != "plaintext" {
		t.Errorf("Open: got %q and the error %v", got, err)
	}
}

func corrupt(b []byte) []byte {
	b = slices.Clone(b)
	b[len(b)-1] ^= 1
	return b
}
