package attest_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"strongroom/kms/attest"
)

// A realDocument is what testdata/real/index.json has of one, found out with other programs than this one.
type realDocument struct {
	File      string      `json:"file"`
	Kind      attest.Kind `json:"kind"`
	ModuleID  string      `json:"module_id"`
	Time      int64       `json:"timestamp_ms"`
	PublicKey struct {
		Length *int `json:"len"`
	} `json:"public_key"`
	UserData   *int              `json:"user_data_len"`
	Nonce      *int              `json:"nonce_len"`
	Registers  string            `json:"pcr_indexes"`
	Values     map[string]string `json:"nonzero_pcrs"`
	Bundle     int               `json:"cabundle_entries"`
	Sizes      []int             `json:"cert_der_sizes"`
	KeyIsRight bool              `json:"strongroom_recipient_ok"`

	raw  []byte
	made time.Time
}

func readReal(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "real", name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// realDocuments returns the genuine documents.
func realDocuments(t testing.TB) []*realDocument {
	t.Helper()
	var all []*realDocument
	if err := json.Unmarshal(readReal(t, "index.json"), &all); err != nil {
		t.Fatal(err)
	}
	if len(all) != 5 {
		t.Fatalf("there are %d real documents, want 5", len(all))
	}
	for _, d := range all {
		d.raw = readReal(t, d.File)
		d.made = time.UnixMilli(d.Time).UTC()
	}
	return all
}

// forEachReal runs a test for each genuine document.
func forEachReal(t *testing.T, f func(t *testing.T, d *realDocument)) {
	for _, d := range realDocuments(t) {
		t.Run(d.File, func(t *testing.T) { f(t, d) })
	}
}

// want returns why a document is refused at its own time.
func (d *realDocument) want() attest.Reason {
	if d.KeyIsRight {
		return 0
	}
	return attest.BadKey
}

// onlyAWS is a verifier as it is by default.
func onlyAWS(t testing.TB) *attest.Verifier {
	t.Helper()
	v, err := attest.New(attest.Options{Anchors: []attest.Anchor{attest.AWSRoot()}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestRealContent(t *testing.T) {
	forEachReal(t, func(t *testing.T, want *realDocument) {
		d, err := attest.Parse(want.raw)
		if err != nil {
			t.Fatal(err)
		}
		if d.Kind != want.Kind || d.ModuleID != want.ModuleID || !d.Time.Equal(want.made) {
			t.Errorf("it is of kind %s, module %s and time %v; want %s, %s and %v", d.Kind, d.ModuleID, d.Time, want.Kind, want.ModuleID, want.made)
		}
		for _, c := range []struct {
			name string
			got  []byte
			want *int
		}{
			{"public_key", d.PublicKey, want.PublicKey.Length},
			{"user_data", d.UserData, want.UserData},
			{"nonce", d.Nonce, want.Nonce},
		} {
			if (c.got == nil) != (c.want == nil) || c.want != nil && len(c.got) != *c.want {
				t.Errorf("%s has %d bytes, nil is %v", c.name, len(c.got), c.got == nil)
			}
		}
		var sizes []int
		for _, der := range append(d.CABundle[:len(d.CABundle):len(d.CABundle)], d.Certificate) {
			sizes = append(sizes, len(der))
		}
		if len(d.CABundle) != want.Bundle || fmt.Sprint(sizes) != fmt.Sprint(want.Sizes) {
			t.Errorf("the certificates have %v bytes, want %v", sizes, want.Sizes)
		}
		if d.Debug() {
			t.Error("it is said to come from an enclave in debug mode")
		}
	})
}

func TestRealRegisters(t *testing.T) {
	forEachReal(t, func(t *testing.T, want *realDocument) {
		d, err := attest.Parse(want.raw)
		if err != nil {
			t.Fatal(err)
		}
		indexes := d.Registers()
		if got := fmt.Sprintf("%d..%d", indexes[0], indexes[len(indexes)-1]); got != want.Registers || len(indexes) != indexes[len(indexes)-1]+1 {
			t.Errorf("the registers are %v, want %s", indexes, want.Registers)
		}
		for _, i := range indexes {
			value, ok := want.Values[fmt.Sprint(i)]
			if !ok {
				value = hex.EncodeToString(make([]byte, 48))
			}
			if got := hex.EncodeToString(d.PCRs[i]); got != value {
				t.Errorf("PCR%d is %s, want %s", i, got, value)
			}
		}
	})
}

// Each is what it is for its five minutes, and for the minute before it that clocks may differ by.
func TestRealVerdicts(t *testing.T) {
	v := onlyAWS(t)
	forEachReal(t, func(t *testing.T, d *realDocument) {
		for _, c := range []struct {
			after time.Duration
			want  attest.Reason
		}{
			{0, d.want()},
			{-2 * time.Second, d.want()},
			{-attest.MaxAhead, d.want()},
			{-attest.MaxAhead - time.Nanosecond, attest.Early},
			{-61 * time.Second, attest.Early},
			{attest.MaxAge, d.want()},
			{attest.MaxAge + time.Nanosecond, attest.Stale},
			{attest.MaxAge + time.Millisecond, attest.Stale},
			{3 * 365 * 24 * time.Hour, attest.Stale},
		} {
			at := d.made.Add(c.after)
			a, err := v.Verify(d.raw, account, at)
			if got := reason(err); got != c.want {
				t.Errorf("%v after it was made: %s (%v), want %s", c.after, verdict(got), err, verdict(c.want))
			}
			if err == nil && (a.Root != attest.AWSName || a.ModuleID != d.ModuleID) {
				t.Errorf("%v after it was made: it is of %s and leads to %s", c.after, a.ModuleID, a.Root)
			}
		}
		r := v.Examine(d.raw, account, d.made)
		if !r.Verified() || r.Accepted() != d.KeyIsRight || r.Root() != attest.AWSName {
			t.Errorf("verified %v, accepted %v, root %s: %v", r.Verified(), r.Accepted(), r.Root(), r.Faults)
		}
		since, until := window(t, r.Document)
		if !r.Since.Equal(since) || !r.Until.Equal(until) {
			t.Errorf("its certificates hold from %v to %v, want %v to %v", r.Since, r.Until, since, until)
		}
	})
}

// An operator who looks at an old document learns more than that it is old.
func TestRealExaminedLate(t *testing.T) {
	v := onlyAWS(t)
	forEachReal(t, func(t *testing.T, d *realDocument) {
		r := v.Examine(d.raw, account, d.made.Add(24*time.Hour))
		want := []attest.Reason{attest.Stale, attest.BadChain}
		if !d.KeyIsRight {
			want = append(want, attest.BadKey)
		}
		var got []attest.Reason
		for _, f := range r.Faults {
			got = append(got, f.Reason)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("a day later it is %v, want %v", got, want)
		}
	})
}

// It is the fourth document without three bytes, which is how it was first published.
func TestRealBroken(t *testing.T) {
	whole, broken := readReal(t, "enclave-2026-01-03-indefinite-map.bin"), readReal(t, "payload-3-bytes-missing.bin")
	i := bytes.Index(whole, []byte("public_key")) + len("publ")
	if !bytes.Equal(broken, append(whole[:i:i], whole[i+3:]...)) {
		t.Error("it is not the other one without these bytes")
	}
	for _, d := range realDocuments(t) {
		if _, err := onlyAWS(t).Verify(broken, account, d.made); reason(err) != attest.Malformed {
			t.Errorf("%v, want %s", err, attest.Malformed)
		}
	}
}

// Without the root of AWS they are nobody's.
func TestRealWithoutRoot(t *testing.T) {
	v := newVerifierWith(t, attest.Options{Anchors: []attest.Anchor{root().Anchor("test")}})
	none := newVerifierWith(t, attest.Options{})
	forEachReal(t, func(t *testing.T, d *realDocument) {
		for _, v := range []*attest.Verifier{v, none} {
			if _, err := v.Verify(d.raw, account, d.made); reason(err) != attest.Untrusted {
				t.Errorf("%v, want %s", err, attest.Untrusted)
			}
		}
	})
}
