package attest_test

import (
	"testing"
	"time"

	"strongroom/kms/attest"
	"strongroom/kms/attest/attesttest"
)

func TestMaxAge(t *testing.T) {
	raw := document(t, statement())
	made := present.Truncate(time.Millisecond)
	for _, c := range []struct{ given, want time.Duration }{
		{0, attest.MaxAge}, {attest.MaxAge, attest.MaxAge}, {time.Minute, time.Minute}, {time.Nanosecond, time.Nanosecond},
	} {
		v := newVerifierWith(t, attest.Options{Anchors: []attest.Anchor{root().Anchor("test")}, MaxAge: c.given})
		accept(t, v, raw, account, made.Add(c.want))
		refuse(t, v, raw, account, made.Add(c.want+1), attest.Stale)
	}
	for _, age := range []time.Duration{-1, -attest.MaxAge, attest.MaxAge + 1, time.Hour} {
		if _, err := attest.New(attest.Options{MaxAge: age}); err == nil {
			t.Errorf("an age of %v is accepted", age)
		}
	}
}

func TestMaxAhead(t *testing.T) {
	raw := document(t, statement())
	made := present.Truncate(time.Millisecond)
	for _, c := range []struct{ given, want time.Duration }{
		{0, attest.MaxAhead}, {attest.MaxAhead, attest.MaxAhead}, {5 * time.Minute, 5 * time.Minute}, {time.Second, time.Second}, {-1, 0}, {-time.Hour, 0},
	} {
		v := newVerifierWith(t, attest.Options{Anchors: []attest.Anchor{root().Anchor("test")}, MaxAhead: c.given})
		accept(t, v, raw, account, made.Add(-c.want))
		refuse(t, v, raw, account, made.Add(-c.want-1), attest.Early)
	}
}

// Times that cannot be subtracted are not taken for close ones.
func TestAgeSaturates(t *testing.T) {
	v := newVerifier(t)
	raw := document(t, statement())
	refuse(t, v, raw, account, time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), attest.Stale)
	refuse(t, v, raw, account, time.Time{}, attest.Early)
	refuse(t, v, documentOf(caseNamed(t, "ahead-last")), account, time.Time{}, attest.Early)
	refuse(t, v, documentOf(caseNamed(t, "age-1-ms")), account, time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), attest.Stale)
}

func TestAllowDebug(t *testing.T) {
	v := newVerifierWith(t, attest.Options{Anchors: []attest.Anchor{root().Anchor("test")}, AllowDebug: true})
	for _, c := range attesttest.Cases() {
		if c.Reason != attest.Debug {
			continue
		}
		want := attest.Reason(0)
		if c.Name == "debug-no-key" {
			want = attest.BadKey
		}
		a, err := v.Verify(documentOf(c), account, present)
		if reason(err) != want {
			t.Errorf("%s: %v, want %s", c.Name, err, verdict(want))
		}
		if err == nil && !a.Debug() {
			t.Errorf("%s is not said to be in debug mode", c.Name)
		}
	}
}

// Every reason has a case, and a name of its own.
func TestReasons(t *testing.T) {
	used := make(map[attest.Reason]bool)
	for _, c := range attesttest.Cases() {
		used[c.Reason] = true
	}
	texts := make(map[string]bool)
	for _, r := range attest.Reasons() {
		if !used[r] {
			t.Errorf("there is no case for %q", r)
		}
		if texts[r.String()] {
			t.Errorf("two reasons are called %q", r)
		}
		texts[r.String()] = true
	}
	if len(used) != len(texts)+1 {
		t.Errorf("cases have %d reasons, of %d", len(used)-1, len(texts))
	}
}
