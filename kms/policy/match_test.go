package policy

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func mustTokenize(t testing.TB, s string) []token {
	t.Helper()
	ts, err := dialect{wildcards: true}.tokenize("", s)
	if err != nil {
		t.Fatal(err)
	}
	return ts
}

// TestGlob compares the matcher with a table of all prefixes, on all that can be written with few characters.
func TestGlob(t *testing.T) {
	s := dice{rand.New(rand.NewPCG(4, 0))}
	word := func(letters []string) string {
		var b strings.Builder
		for range s.n(9) {
			b.WriteString(pick(s, letters))
		}
		return b.String()
	}
	matched := 0
	for range 100000 {
		pattern, value := word([]string{"a", "b", "é", "*", "*", "?"}), word([]string{"a", "b", "é"})
		g := newGlob(mustTokenize(t, pattern), false)
		got, want := g.match(value), modelGlob(modelMark(pattern, nil, true), value)
		if got != want {
			t.Fatalf("%q matches %q: %v, want %v", pattern, value, got, want)
		}
		g = newGlob(mustTokenize(t, strings.ToUpper(pattern)), true)
		if strings.Contains(pattern, "é") {
			continue // which has no other case among A to Z
		}
		if got := g.match(strings.ToUpper(value)); got != modelGlob(modelMark(pattern, nil, true), strings.ReplaceAll(value, "é", "É")) {
			t.Fatalf("%q matches %q without case: %v", pattern, value, got)
		}
		if want {
			matched++
		}
	}
	if matched < 1000 {
		t.Errorf("only %d of the pairs matched", matched)
	}
}

// TestSearch finds long chunks, which the words of TestGlob are too short for.
func TestSearch(t *testing.T) {
	s := dice{rand.New(rand.NewPCG(5, 0))}
	found := 0
	for range 2000 {
		var pattern, value strings.Builder
		pattern.WriteString("*?")
		value.WriteString(strings.Repeat("ab", s.n(40)))
		length := 1 + s.n(200)
		for i := range length {
			c := string("ab"[i%2])
			if s.n(100) == 0 {
				c = pick(s, []string{"é", "c", "a"})
			}
			value.WriteString(c)
			switch {
			case s.n(4) == 0:
				c = "?"
			case s.n(200) == 0:
				c = "d"
			}
			pattern.WriteString(c)
		}
		pattern.WriteString("*")
		g := newGlob(mustTokenize(t, pattern.String()), false)
		got, want := g.match(value.String()), modelGlob(modelMark(pattern.String(), nil, true), value.String())
		if got != want {
			t.Fatalf("%q matches %q: %v, want %v", pattern.String(), value.String(), got, want)
		}
		if got {
			found++
		}
	}
	if found < 500 || found > 1900 {
		t.Errorf("found %d of 2000", found)
	}
	g := newGlob(mustTokenize(t, "*?\x80*"), false)
	if g.match("a\x81") || !g.match("a\x80") {
		t.Error("bytes that are not UTF-8 are taken for each other")
	}
}

func TestGlobFold(t *testing.T) {
	tests := []struct {
		pattern, value string
		want           bool
	}{
		{"KMS:*", "kms:Decrypt", true},
		{"kms:*", "\u212ams:Decrypt", false}, // the Kelvin sign, which strings.EqualFold takes for a k
		{"kms:*KEY*", "kms:GenerateDataKeyPair", true},
		{"kms:*key", "kms:GenerateDataKeyPair", false},
		{"kms:*key", "kms:DescribeKey", true},
		{"kms:{", "kms:[", false}, // which differ as letters of two cases do
	}
	for _, tt := range tests {
		g := newGlob(mustTokenize(t, tt.pattern), true)
		if got := g.match(tt.value); got != tt.want {
			t.Errorf("%q matches %q: %v, want %v", tt.pattern, tt.value, got, tt.want)
		}
	}
}

// hardest are patterns that take a matcher which tries alternatives a long time, with values they almost match.
var hardest = []struct{ name, pattern, value string }{
	{"stars", strings.Repeat("*a", 4000) + "b", strings.Repeat("a", 8192)},
	{"literal", "*" + strings.Repeat("a", 4000) + "b*", strings.Repeat("a", 8192)},
	{"questions", "*" + strings.Repeat("a?", 2000) + "b*", strings.Repeat("a", 8192)},
	{"question marks alone", "*" + strings.Repeat("?", 8100) + "b*", strings.Repeat("a", 8192)},
}

func TestGlobIsQuick(t *testing.T) {
	for _, tt := range hardest {
		start := time.Now()
		g := newGlob(mustTokenize(t, tt.pattern), false)
		if g.match(tt.value) {
			t.Errorf("%s: matches", tt.name)
		}
		if d := time.Since(start); d > 500*time.Millisecond {
			t.Errorf("%s: took %v", tt.name, d)
		}
	}
}

func TestDecimal(t *testing.T) {
	order := []string{"-100", "-99.5", "-10", "-9", "-0.5", "0", "0.05", "0.5", "0.51", "1", "9", "9.99", "10", "99999999999999999999", "100000000000000000000"}
	for i, a := range order {
		for j, b := range order {
			x, ok1 := parseDecimal(a)
			y, ok2 := parseDecimal(b)
			want := max(-1, min(1, i-j))
			if got := x.compare(y); !ok1 || !ok2 || got != want {
				t.Errorf("%s and %s: %d, want %d", a, b, got, want)
			}
		}
	}
	for _, same := range [][2]string{{"0", "-0"}, {"1", "01"}, {"1", "1.0"}, {"1", "+1"}, {"-1.50", "-01.5"}, {"0", "-0.00"}} {
		x, _ := parseDecimal(same[0])
		y, _ := parseDecimal(same[1])
		if x.compare(y) != 0 {
			t.Errorf("%s is not %s", same[0], same[1])
		}
	}
	for _, s := range []string{"", "-", "+", ".", "1.", ".1", "1e3", "0x10", "1_000", " 1", "1 ", "--1", "+-1", "NaN", "Inf", "١", "1,5"} {
		if _, ok := parseDecimal(s); ok {
			t.Errorf("%q is a number", s)
		}
	}
}

func TestDate(t *testing.T) {
	noon := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		text string
		want time.Time
	}{
		{"2026-05", time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)},
		{"2026-05-01", time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)},
		{"2026-05-01T12:00Z", noon},
		{"2026-05-01T12:00:00Z", noon},
		{"2026-05-01T12:00:00.250Z", noon.Add(250 * time.Millisecond)},
		{"2026-05-01T14:00:00+02:00", noon},
		{"2026-05-01T10:30-01:30", noon},
		{"1777636800", noon},
		{"0", time.Unix(0, 0)},
	}
	for _, tt := range tests {
		if got, ok := parseDate(tt.text); !ok || !got.Equal(tt.want) {
			t.Errorf("%s: %v, %v; want %v", tt.text, got, ok, tt.want)
		}
	}
	for _, s := range []string{"", "2026", "26-05-01", "2026-5-1", "2026-13-01", "2026-02-30", "2026-05-01T12", "2026-05-01T12:00", "2026-05-01T12:00:00", "2026-05-01 12:00:00Z",
		"2026-05-01t12:00:00z", "2026-05-01T24:00:00Z", "2026-05-01T12:00:00,5Z", "2026-05-01T12:00:00.Z", "2026-05-01T12:00:00+0200", "2026-05-01T12:00:00Zx",
		"2026-05-01x", "-1", "+1", "1e9", "1777636800.5", "1234567890123"} {
		if got, ok := parseDate(s); ok {
			t.Errorf("%q is the date %v", s, got)
		}
	}
}

func TestAddresses(t *testing.T) {
	tests := []struct {
		prefix, addr string
		want         bool
	}{
		{"203.0.113.0/24", "203.0.113.255", true},
		{"203.0.113.0/24", "::ffff:203.0.113.255", true},
		{"::ffff:203.0.113.0/120", "203.0.113.255", true},
		{"::ffff:203.0.113.0/120", "203.0.114.0", false},
		{"::ffff:203.0.113.7", "203.0.113.7", true},
		{"203.0.113.7/24", "203.0.113.1", true}, // host bits mean nothing
		{"203.0.113.7", "203.0.113.1", false},
		{"0.0.0.0/0", "203.0.113.7", true},
		{"0.0.0.0/0", "2001:db8::1", false},
		{"::/0", "2001:db8::1", true},
		{"::/0", "::ffff:203.0.113.7", false},
		{"2001:DB8::/32", "2001:db8:1::", true},
		{"fe80::/10", "fe80::1%eth0", true},
		{"203.0.113.0/24", "203.0.113.7/32", false},
		{"203.0.113.0/24", "203.0.113.07", false},
		{"203.0.113.0/24", "203.0.113.7:443", false},
	}
	for _, tt := range tests {
		p, ok := parsePrefix(tt.prefix)
		if !ok {
			t.Errorf("%s is no prefix", tt.prefix)
			continue
		}
		if got := (addresses{p}).match(tt.addr, nil); got != tt.want {
			t.Errorf("%s in %s: %v, want %v", tt.addr, tt.prefix, got, tt.want)
		}
	}
}
