package pkcs11

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"strongroom/hsm"
	"strongroom/hsm/hsmtest"
)

func TestIVSourceText(t *testing.T) {
	for i := range IVSource(len(ivSources)) {
		text, err := i.MarshalText()
		if err != nil || string(text) != i.String() {
			t.Errorf("%v: %s, %v", i, text, err)
		}
		var got IVSource
		if err := got.UnmarshalText(text); err != nil || got != i {
			t.Errorf("%s: got %v and the error %v", text, got, err)
		}
	}
	var i IVSource
	for _, text := range []string{"", "Host", "device", "device-zeroed "} {
		if err := i.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), "is none of host, device-zeroed, device-appended, device-returned") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := IVSource(9).MarshalText(); err == nil {
		t.Error("there is a ninth way")
	}
}

// Each way of real devices keeps the contract, if the configuration knows of it.
func TestIVSources(t *testing.T) {
	for _, c := range []struct {
		name   string
		device fakeIV
		source IVSource
	}{
		{"zeroed", ivZeroed, IVZeroed},
		{"appended", ivAppended, IVAppended},
		{"overwritten", ivOverwritten, IVReturned},
		{"moved", ivMoved, IVReturned},
	} {
		t.Run(c.name, func(t *testing.T) {
			hsmtest.Test(t, func(t *testing.T) hsm.Device {
				f := newFake()
				f.iv = c.device
				token := f.open(t, Config{IV: c.source})
				t.Cleanup(func() { token.Close() })
				return token
			})
		})
	}
}

// constant is a device that makes one IV for ever.
func constant(source fakeIV) fakeIV {
	once := randomIV()
	return func(given *[hsm.IVSize]byte) (used, left [hsm.IVSize]byte, moved bool, appended []byte, code uint) {
		if _, _, _, _, code := source(given); code != 0 {
			return used, left, false, nil, code
		}
		return once, once, false, nil, 0
	}
}

// lying is a device that uses another IV than the one that is at the caller's afterwards.
func lying(source fakeIV) fakeIV {
	return func(given *[hsm.IVSize]byte) (used, left [hsm.IVSize]byte, moved bool, appended []byte, code uint) {
		_, left, moved, appended, code = source(given)
		return randomIV(), left, moved, slices.Clone(appended), code
	}
}

func TestDetectIV(t *testing.T) {
	for _, c := range []struct {
		name   string
		device fakeIV
		want   IVSource
		fails  []string
	}{
		{name: "the caller's", device: ivOfCaller, want: IVHost},
		{name: "zeroed", device: ivZeroed, want: IVZeroed},
		{name: "appended", device: ivAppended, want: IVAppended},
		{name: "moved", device: ivMoved, want: IVReturned},
		{name: "overwritten", device: ivOverwritten, want: IVReturned},
		{name: "ignored", device: lying(ivOfCaller), fails: []string{
			"host: C_Decrypt: CKR_GENERAL_ERROR",
			"device-zeroed: C_Encrypt: it gave no IV, or zero", "device-appended: C_Encrypt: it wrote 45 bytes",
			"device-returned: C_Encrypt: it left the IV that it was given"}},
		{name: "a lie about the buffer", device: lying(ivZeroed), fails: []string{"device-zeroed: C_Decrypt: CKR_GENERAL_ERROR"}},
		{name: "a lie after the tag", device: lying(ivAppended), fails: []string{"device-appended: C_Decrypt: CKR_GENERAL_ERROR"}},
		{name: "a lie in the parameters", device: lying(ivMoved), fails: []string{"device-returned: C_Decrypt: CKR_GENERAL_ERROR"}},
		{name: "always the same", device: constant(ivZeroed), fails: []string{"device-zeroed: C_Encrypt: it used the same IV twice"}},
		{name: "16 bytes appended", device: func(given *[hsm.IVSize]byte) (used, left [hsm.IVSize]byte, moved bool, appended []byte, code uint) {
			used, left, moved, appended, code = ivAppended(given)
			return used, left, moved, append(slices.Clone(appended), 0, 0, 0, 0), code
		}, fails: []string{"device-appended: C_Encrypt: it appends an IV of 16 bytes", "firmware 7.9.3"}},
	} {
		for _, stuck := range []bool{false, true} {
			for _, noSession := range []bool{false, true} {
				f := newFake()
				f.iv, f.stuckOnBad, f.noSession = c.device, stuck, noSession
				var found []IVSource
				config := Config{PIN: func() ([]byte, error) { return []byte("1234"), nil }, FoundIV: func(i IVSource) error {
					found = append(found, i)
					if n := len(f.objects); n != 0 {
						t.Errorf("%s: %d objects are there already, or still", c.name, n)
					}
					return nil
				}}
				token, err := newToken(t.Context(), f, config, true)
				if c.fails != nil {
					if !errors.Is(err, hsm.ErrUnavailable) || found != nil || len(f.objects) != 0 {
						t.Errorf("%s: the error %v, found %v, %d objects stay", c.name, err, found, len(f.objects))
					}
					for _, text := range c.fails {
						if err == nil || !strings.Contains(err.Error(), text) {
							t.Errorf("%s: error %v does not say %q", c.name, err, text)
						}
					}
					continue
				}
				if err != nil {
					t.Errorf("%s: %v", c.name, err)
					continue
				}
				if token.IV() != c.want || !slices.Equal(found, []IVSource{c.want}) {
					t.Errorf("%s: found %v, and told %v, want %v", c.name, token.IV(), found, c.want)
				}
				if n := len(f.objects); n != 1 {
					t.Errorf("%s: %d objects, where the canary is one", c.name, n)
				}
				// The same token opens with what was found, and with nothing else.
				for i := range IVSource(len(ivSources)) {
					again := config
					again.IV = i
					_, err := newToken(t.Context(), f, again, false)
					if (err == nil) != (i == c.want) {
						t.Errorf("%s: opened as %v: %v", c.name, i, err)
					}
					if err != nil && !strings.Contains(err.Error(), `set iv = "`+c.want.String()+`" under [hsm]`) {
						t.Errorf("%s: the error %q has no remedy", c.name, err)
					}
				}
				if n := len(f.objects); n != 1 {
					t.Errorf("%s: %d objects, where the canary is one", c.name, n)
				}
			}
		}
	}
}

// An error of FoundIV ends Init before anything is made.
func TestFoundIVRefused(t *testing.T) {
	f := newFake()
	f.iv = ivZeroed
	refused := errors.New("the disk is full")
	_, err := newToken(t.Context(), f, Config{
		PIN: func() ([]byte, error) { return []byte("1234"), nil }, FoundIV: func(IVSource) error { return refused },
	}, true)
	if !errors.Is(err, refused) || len(f.objects) != 0 {
		t.Errorf("the error %v, and %d objects", err, len(f.objects))
	}
}

// A device that comes to deal with IVs in another way while it is in use fails, and nothing is sealed.
func TestIVChanges(t *testing.T) {
	for _, c := range []struct {
		name   string
		source IVSource
		before fakeIV
		after  fakeIV
		text   string
	}{
		{"overwritten", IVHost, ivOfCaller, ivOverwritten, "it changed the IV that it was given"},
		{"moved", IVHost, ivOfCaller, ivMoved, "it put an IV of its own into the parameters"},
		{"refused", IVHost, ivOfCaller, ivZeroed, "C_EncryptInit: CKR_MECHANISM_PARAM_INVALID"},
		{"left zero", IVZeroed, ivZeroed, ivOfCaller, "it gave no IV, or zero"},
		{"moved from the buffer", IVZeroed, ivZeroed, ivMoved, "it put an IV of its own into the parameters"},
		{"nothing appended", IVAppended, ivAppended, ivOfCaller, "it wrote 25 bytes"},
		{"zero appended", IVAppended, ivAppended, func(*[hsm.IVSize]byte) (used, left [hsm.IVSize]byte, moved bool, appended []byte, code uint) {
			return used, left, false, used[:], 0
		}, "it gave no IV, or zero"},
		{"nothing returned", IVReturned, ivMoved, ivOfCaller, "it left the IV that it was given"},
		{"zero returned", IVReturned, ivMoved, func(*[hsm.IVSize]byte) (used, left [hsm.IVSize]byte, moved bool, appended []byte, code uint) {
			return used, left, true, nil, 0
		}, "it gave no IV, or zero"},
	} {
		f := newFake()
		f.iv = c.before
		token := f.open(t, Config{IV: c.source})
		_, ref := made(t, token)
		b := sealed(t, token, ref)
		f.iv = c.after
		dst := make([]byte, 3, 100)
		got, err := token.Seal(t.Context(), ref, dst, []byte("plaintext"), aad)
		want(t, err, hsm.ErrUnavailable, c.text)
		if got != nil || !slices.Equal(dst[:cap(dst)], make([]byte, 100)) {
			t.Errorf("%s: something was sealed: %x %x", c.name, got, dst[:cap(dst)])
		}
		if _, err := token.Generate(t.Context(), anID(), label); err == nil {
			t.Errorf("%s: a key was made", c.name)
		}
		if err := token.Check(t.Context()); !errors.Is(err, hsm.ErrUnavailable) {
			t.Errorf("%s: Check: %v", c.name, err)
		}
		opens(t, token, ref, b)
		f.iv = c.before
		opens(t, token, ref, sealed(t, token, ref))
	}
}

// The IV of the sealed text is the one that was used, in the check value too.
func TestIVIsTheOneUsed(t *testing.T) {
	for source, device := range map[IVSource]fakeIV{IVHost: ivOfCaller, IVZeroed: ivZeroed, IVAppended: ivAppended, IVReturned: ivOverwritten} {
		f := newFake()
		var last [hsm.IVSize]byte
		f.iv = func(given *[hsm.IVSize]byte) (used, left [hsm.IVSize]byte, moved bool, appended []byte, code uint) {
			used, left, moved, appended, code = device(given)
			last = used
			return used, left, moved, appended, code
		}
		token := f.open(t, Config{IV: source})
		_, ref := made(t, token)
		r, err := parseRef(ref)
		if err != nil || *r.check.iv() != last {
			t.Errorf("%v: the check value has the IV %x, used was %x (%v)", source, *r.check.iv(), last, err)
		}
		if b := sealed(t, token, ref); [hsm.IVSize]byte(b) != last || len(b) != len("plaintext")+hsm.Overhead {
			t.Errorf("%v: the sealed text is %x, the IV used %x", source, b, last)
		}
	}
}
