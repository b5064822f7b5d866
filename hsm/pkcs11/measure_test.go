package pkcs11

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"strongroom/hsm"

	p11 "github.com/miekg/pkcs11"
)

var briefly = MeasureOptions{Objects: 8, Sessions: 4, MaxSessions: 16, Seconds: 0.001}

// measured measures a fake.
func measured(ctx context.Context, f *fake, o MeasureOptions) (*Report, error) {
	return measure(ctx, f, Config{Module: "/m", Label: "fake", PIN: func() ([]byte, error) { return []byte("1234"), nil }}, o, func() {})
}

// verdict returns the findings of a name.
func verdict(t *testing.T, r *Report, name string) Finding {
	t.Helper()
	for _, f := range r.Findings {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("nothing was found about %q: %+v", name, r.Findings)
	return Finding{}
}

// well is a fake that offers all that is needed.
func well() *fake {
	f := newFake()
	f.mechanism = append(f.mechanism, p11.CKM_EC_KEY_PAIR_GEN, p11.CKM_ECDSA)
	return f
}

func TestMeasure(t *testing.T) {
	f := well()
	var steps []string
	o := briefly
	o.Progress = func(r *Report, step string) { steps = append(steps, step) }
	r, err := measured(t.Context(), f, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range r.Findings {
		if found.Verdict != OK {
			t.Errorf("%+v", found)
		}
	}
	if !r.Fit.Usable || r.Fit.Lacking != nil || r.Fit.Label != "fake" || r.Fit.Serial != "42" || r.Fit.Module != "/m" || r.Fit.IV != IVHost {
		t.Errorf("what fits: %+v", r.Fit)
	}
	if *r.IV != IVHost || r.MaxAAD != 4096 || r.MaxPlaintext != 64<<10 || r.Slot != 7 || r.BadTag != "C_Decrypt: CKR_GENERAL_ERROR (0x5)" {
		t.Errorf("%+v", r)
	}
	if r.Sessions.Opened != 16 || r.Objects.Made != 8 || len(r.Load) != 6 || r.Load[5].Sessions != 4 || r.Load[5].PerSecond == 0 || r.Load[5].P99US < r.Load[5].P50US {
		t.Errorf("sessions %+v, objects %+v, load %+v", r.Sessions, r.Objects, r.Load)
	}
	if len(steps) != len(measureSteps)+2 || !slices.Equal(steps[2:], r.Done[1:]) {
		t.Errorf("the steps %q, done %q", steps, r.Done)
	}
	nothingLeft(t, f)
	if n := f.count("C_Login"); n != 1 {
		t.Errorf("%d logins", n)
	}
}

func nothingLeft(t *testing.T, f *fake) {
	t.Helper()
	if n := len(f.objects); n != 0 {
		t.Errorf("%d objects are left", n)
	}
	if n := f.sessionCount(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// What a token does otherwise is found, and said to be so.
func TestMeasureOddities(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(*fake)
		about   string
		verdict Verdict
		detail  string
		usable  bool
	}{
		{"no AES-GCM", func(f *fake) {
			f.mechanism = []uint{p11.CKM_AES_KEY_GEN}
			f.fail = always("C_Encrypt", p11.CKR_MECHANISM_INVALID)
		}, "AES-GCM", Missing, "CKR_MECHANISM_INVALID", false},
		{"no AES-GCM, as listed", func(f *fake) { f.mechanism = []uint{p11.CKM_AES_KEY_GEN} }, "list of mechanisms", Missing, "AES-GCM (CKM_AES_GCM), EC key pair", false},
		{"zeroed", func(f *fake) { f.iv = ivZeroed }, "who makes the IV", OK, "fills a buffer of zeros", true},
		{"appended", func(f *fake) { f.iv = ivAppended }, "who makes the IV", OK, "appends", true},
		{"returned", func(f *fake) { f.iv = ivMoved }, "known answers of AES-GCM", OK, "22 agree", true},
		{"no IV to be known", func(f *fake) { f.iv = lying(ivOfCaller) }, "AES-GCM", Failed, "host: C_Decrypt: CKR_GENERAL_ERROR", false},
		{"no import", func(f *fake) { f.noImport = true }, "known answers of AES-GCM", Skipped, "takes no key from outside", true},
		{"attributes refused", func(f *fake) { f.unknown = []uint{p11.CKA_ALLOWED_MECHANISMS} }, "AES key generation", Differs, "without CKA_ALLOWED_MECHANISMS", true},
		{"no keys", func(f *fake) { f.fail = always("C_GenerateKey", p11.CKR_TEMPLATE_INCONSISTENT) }, "AES key generation", Failed, "CKR_TEMPLATE_INCONSISTENT", false},
		{"a promise not kept", func(f *fake) { f.forced[p11.CKA_EXTRACTABLE] = []byte{1} }, "attributes of a key", Differs, "CKA_EXTRACTABLE is 01", false},
		{"values given away", func(f *fake) { f.leaky = true }, "reading a key's value", Failed, "gives away 7 bytes", false},
		{"keys wrapped out", func(f *fake) { f.leaky = true }, "wrapping a key out", Failed, "not extractable", false},
		{"CKA_ID cut", func(f *fake) { f.shortID = true }, "CKA_ID", Differs, "of 16 bytes 2 come back", false},
		{"ECDSA of something else", func(f *fake) { f.forge = true }, "ECDSA on P-256", Failed, "does not verify", false},
		{"no key pairs", func(f *fake) { f.fail = always("C_GenerateKeyPair", p11.CKR_MECHANISM_INVALID) }, "EC key pair generation", Missing, "CKR_MECHANISM_INVALID", false},
		{"no copies", func(f *fake) { f.fail = always("C_CopyObject", p11.CKR_ACTION_PROHIBITED) }, "copies of keys in sessions", OK, "refused", true},
		{"stuck", func(f *fake) { f.stuckOnBad = true }, "the session after that", Differs, "CKR_OPERATION_ACTIVE", true},
		{"another word for a bad tag", func(f *fake) { f.badTag = p11.CKR_DEVICE_ERROR }, "a changed ciphertext", Differs, "CKR_DEVICE_ERROR", false},
		{"no length query", func(f *fake) { f.fail = always("C_Encrypt (query)", p11.CKR_BUFFER_TOO_SMALL) }, "asking C_Encrypt for the length", OK, "refused: ", true},
		{"few sessions", func(f *fake) { f.limit = 14 }, "sessions at a time", OK, "12 could be opened, and no more (C_OpenSession: CKR_SESSION_COUNT (0xB1)); it declares 14", true},
		{"too few sessions", func(f *fake) { f.limit = 5 }, "sessions at a time", Failed, "3 could be opened", false},
		{"little room", func(f *fake) { f.room = 6 }, "room for keys", Differs, "6 were made beside 0 objects that were there, and no more (C_GenerateKey: CKR_DEVICE_MEMORY", true},
		{"no room", func(f *fake) { f.room = 2 }, "room for keys", Failed, "2 were made", false},
		{"no session objects", func(f *fake) { f.noSession = true }, "AES-GCM", OK, "", true},
		{"no random bytes", func(f *fake) { f.fail = always("C_GenerateRandom", p11.CKR_RANDOM_NO_RNG) }, "random bytes", Failed, "CKR_RANDOM_NO_RNG", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := well()
			c.change(f)
			r, err := measured(t.Context(), f, briefly)
			if err != nil {
				t.Fatal(err)
			}
			found := verdict(t, r, c.about)
			if found.Verdict != c.verdict || !strings.Contains(found.Detail, c.detail) {
				t.Errorf("found %+v", found)
			}
			if found.Verdict != OK && found.Verdict != Skipped && found.Remedy == "" {
				t.Errorf("nothing is said to be done about %+v", found)
			}
			if r.Fit.Usable != c.usable || (len(r.Fit.Lacking) == 0) != c.usable {
				t.Errorf("usable %v, lacking %q", r.Fit.Usable, r.Fit.Lacking)
			}
			nothingLeft(t, f)
		})
	}
}

// Whatever fails or whenever it is interrupted: what was made is gone.
func TestMeasureCleansUp(t *testing.T) {
	for _, function := range []string{"C_Encrypt", "C_Decrypt", "C_FindObjects", "C_GetAttributeValue", "C_GenerateKey", "C_Sign", "C_OpenSession", "C_CopyObject", "C_DestroyObject", "C_WrapKey"} {
		for _, code := range []uint{p11.CKR_GENERAL_ERROR, p11.CKR_SESSION_HANDLE_INVALID} {
			f := well()
			if _, err := measured(t.Context(), f, briefly); err != nil {
				t.Fatal(err)
			}
			total := f.count(function)
			if function == "C_Encrypt" { // the rest is load
				total = 60
			}
			for at := 1; at <= total; at += max(1, total/8) {
				f := well()
				var n atomic.Int64
				f.failing(func(name string, _ p11.SessionHandle) uint {
					if name == function && n.Add(1) == int64(at) {
						return code
					}
					return 0
				})
				r, err := measured(t.Context(), f, briefly)
				f.failing(nil)
				if len(f.objects) != 0 && err == nil {
					t.Errorf("%s failed at %d: %d objects are left, and the error is %v; %+v", function, at, len(f.objects), err, r.Findings)
				}
			}
		}
	}
	for at := range 20 {
		f := well()
		ctx, cancel := context.WithCancel(t.Context())
		o := briefly
		n := 0
		o.Progress = func(*Report, string) {
			if n++; n == at {
				cancel()
			}
		}
		var calls atomic.Int64
		f.failing(func(name string, _ p11.SessionHandle) uint {
			if calls.Add(1) == int64(at)*40 {
				cancel()
			}
			return 0
		})
		if _, err := measured(ctx, f, o); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled at %d: %v", at, err)
		}
		cancel()
		nothingLeft(t, f)
	}
}

// What a check that was killed has left goes; everything else stays, also what is labelled much like it.
func TestMeasureLeftovers(t *testing.T) {
	f := well()
	f.open(t, Config{})
	for _, label := range []string{checkPrefix + "0123", checkPrefix + "4567", labelPrefix + "check", labelPrefix + "7/0", "check/1", ""} {
		f.mu.Lock()
		f.add(&fakeObject{attributes: map[uint][]byte{p11.CKA_LABEL: []byte(label), p11.CKA_TOKEN: {1}, p11.CKA_ID: randomBytes(16), p11.CKA_CLASS: ulong(p11.CKO_SECRET_KEY)}})
		f.mu.Unlock()
	}
	token := f.open(t, Config{})
	listed, err := token.Objects(t.Context())
	if err != nil || slices.ContainsFunc(listed, func(o hsm.Object) bool { return strings.HasPrefix(o.Label, checkPrefix) }) {
		t.Errorf("listed among keys: %v (%v)", listed, err)
	}
	r, err := measured(t.Context(), f, briefly)
	if err != nil {
		t.Fatal(err)
	}
	if found := verdict(t, r, "leftovers"); !strings.HasPrefix(found.Detail, "2 objects") {
		t.Errorf("%+v", found)
	}
	if len(f.objects) != 5 {
		t.Errorf("%d objects stay, want the canary and four", len(f.objects))
	}
	if err := token.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestMeasurePIN(t *testing.T) {
	f := well()
	f.pin = "other"
	r, err := measured(t.Context(), f, briefly)
	if !errors.Is(err, ErrPIN) || f.count("C_Login") != 1 || r == nil || r.Fit.Usable {
		t.Errorf("the error %v after %d logins, the report %+v", err, f.count("C_Login"), r)
	}
	f = well()
	f.flags |= p11.CKF_USER_PIN_FINAL_TRY
	r, err = measured(t.Context(), f, briefly)
	if err == nil || f.count("C_Login") != 0 || r.Fit.Usable {
		t.Errorf("the error %v after %d logins", err, f.count("C_Login"))
	}
}

// After a crash the report goes on where it was.
func TestMeasureAfterCrash(t *testing.T) {
	for _, crash := range []struct {
		step   string
		usable bool
	}{{"empty associated data", true}, {"sizes", false}} {
		f := well()
		var kept []byte
		o := briefly
		ctx, cancel := context.WithCancel(t.Context())
		o.Progress = func(r *Report, step string) {
			if step == crash.step {
				kept, _ = json.Marshal(r)
				cancel()
			}
		}
		if _, err := measured(ctx, f, o); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		o = briefly
		o.Before = new(Report)
		if err := json.Unmarshal(kept, o.Before); err != nil {
			t.Fatal(err)
		}
		o.Crashed, o.How = crash.step, "signal: aborted"
		n := len(o.Before.Findings)
		o.Progress = func(_ *Report, step string) {
			if step == crash.step {
				t.Errorf("%s is done again", step)
			}
		}
		r, err := measured(t.Context(), f, o)
		if err != nil {
			t.Fatal(err)
		}
		if found := r.Findings[n]; found.Name != crash.step || found.Detail != "signal: aborted" || found.Needed == crash.usable {
			t.Errorf("%+v", found)
		}
		names := map[string]int{}
		for _, f := range r.Findings {
			names[f.Name]++
		}
		if names["AES-GCM"] != 1 || names["sessions at a time"] != 1 || r.Fit.Usable != crash.usable {
			t.Errorf("usable %v: %+v", r.Fit.Usable, r.Findings)
		}
		nothingLeft(t, f)
	}
}

// A label that other tokens have too does not name a token.
func TestMeasureNamesakes(t *testing.T) {
	f := well()
	f.namesakes = 1
	r, err := measured(t.Context(), f, briefly)
	if err != nil || r.Fit.Label != "" || r.Fit.Serial != "42" {
		t.Errorf("what fits: %+v (%v)", r.Fit, err)
	}
}

func TestFittingSessions(t *testing.T) {
	load := func(perSecond ...float64) (r *Report) {
		r = &Report{Sessions: SessionFigures{Opened: 256}}
		for i, n := range perSecond {
			r.Load = append(r.Load, LoadFigures{Bytes: 32, Sessions: 1 << i, PerSecond: n})
		}
		return r
	}
	limited := load(100, 200, 400, 800, 1600)
	limited.Sessions = SessionFigures{Opened: 14, Refused: "x"}
	for _, c := range []struct {
		r    *Report
		want int
	}{
		{load(), 16}, {load(100, 101, 102, 103), 4}, {load(100, 200, 400, 800, 1600, 1610), 16}, {load(100, 90, 80), 4}, {limited, 8},
	} {
		if got := fittingSessions(c.r); got != c.want {
			t.Errorf("%v: got %d, want %d", fmt.Sprint(c.r.Load), got, c.want)
		}
	}
}
