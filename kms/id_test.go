package kms

import (
	"errors"
	"strings"
	"testing"
)

func TestKeyIDs(t *testing.T) {
	for range 100 {
		for _, multi := range []bool{false, true} {
			id := newKeyID(multi)
			got, err := ParseKeyID(id.String())
			if err != nil || got != id || got.MultiRegion() != multi {
				t.Fatalf("ParseKeyID(%q) = %v, %v", id, got, err)
			}
		}
	}
	for _, s := range []string{
		"", "mrk-", "1234abcd-12ab-34cd-56ef-1234567890a", "1234ABCD-12ab-34cd-56ef-1234567890ab", "1234abcd12ab34cd56ef1234567890ab",
		"mrk-fake-key-id", "mrk-1234abcd-12ab-34cd-56ef-1234567890ab", "1234abcd-12ab-34cd-56ef-1234567890ab ", "g234abcd-12ab-34cd-56ef-1234567890ab",
		"-1234abcd12ab-34cd-56ef-1234567890ab", "1234abcd-12ab-34cd-56ef-1234567890\u00e9",
	} {
		if id, err := ParseKeyID(s); err == nil {
			t.Errorf("ParseKeyID(%q) = %v", s, id)
		}
	}
}

func FuzzKeyID(f *testing.F) {
	f.Add("1234abcd-12ab-34cd-56ef-1234567890ab")
	f.Add("mrk-1234abcd12ab34cd56ef1234567890ab")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseKeyID(s); err == nil && id.String() != s {
			t.Errorf("ParseKeyID(%q).String() = %q", s, id)
		}
	})
}

func FuzzARN(f *testing.F) {
	f.Add("arn:aws:kms:local-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab")
	f.Add("arn:aws:kms:local-1:111122223333:alias/a:b")
	f.Add("arn:aws:kms:::")
	f.Fuzz(func(t *testing.T, s string) {
		if a, ok := parseARN(s); ok && a.String() != s {
			t.Errorf("parseARN(%q).String() = %q", s, a)
		}
	})
}

func TestMarkers(t *testing.T) {
	m := newMarker("ListKeys", "1234")
	if got, err := parseMarker("ListKeys", m); err != nil || got != "1234" {
		t.Errorf("parseMarker = %q, %v", got, err)
	}
	if got, err := parseMarker("ListKeys", ""); err != nil || got != "" {
		t.Errorf("no marker = %q, %v", got, err)
	}
	for _, bad := range []string{"x", "!", m + "\n", m[:4] + "\n" + m[4:], strings.ToUpper(m), newMarker("ListAliases", "1234"), newMarker("ListKeys", "")} {
		if got, err := parseMarker("ListKeys", bad); !errors.Is(err, InvalidMarker) {
			t.Errorf("parseMarker(%q) = %q, %v", bad, got, err)
		}
	}
}

func FuzzMarker(f *testing.F) {
	f.Add(newMarker("ListKeys", "1234"))
	f.Add("AUxpc3RLZXlzAA")
	f.Fuzz(func(t *testing.T, s string) {
		if position, err := parseMarker("ListKeys", s); err == nil && s != "" && newMarker("ListKeys", position) != s {
			t.Errorf("marker %q is written again as %q", s, newMarker("ListKeys", position))
		}
	})
}
