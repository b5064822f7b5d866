package policy

import (
	"net/netip"
	"strings"
	"time"
)

// A decimal is a number as policies have them: "an integer or decimal value", of any length and compared exactly. There are no exponents.
type decimal struct {
	negative          bool
	integer, fraction string // digits, without zeros in front and at the end respectively
}

func parseDecimal(s string) (d decimal, ok bool) {
	s, d.negative = strings.CutPrefix(s, "-")
	if !d.negative {
		s = strings.TrimPrefix(s, "+")
	}
	integer, fraction, point := strings.Cut(s, ".")
	if !isDigits(integer) || point && !isDigits(fraction) {
		return decimal{}, false
	}
	d.integer = strings.TrimLeft(integer, "0")
	d.fraction = strings.TrimRight(fraction, "0")
	if d.integer == "" && d.fraction == "" {
		d.negative = false
	}
	return d, true
}

// compare returns -1, 0 or 1.
func (d decimal) compare(e decimal) int {
	if d.negative != e.negative {
		if d.negative {
			return -1
		}
		return 1
	}
	if d.negative {
		d, e = e, d
	}
	if len(d.integer) != len(e.integer) {
		if len(d.integer) < len(e.integer) {
			return -1
		}
		return 1
	}
	if c := strings.Compare(d.integer, e.integer); c != 0 {
		return c
	}
	return strings.Compare(d.fraction, e.fraction)
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// parseDate reads a date in one of the forms of the W3C note "Date and Time Formats", or the seconds since 1970:
//
//	2026-05            2026-05-01T10:30Z
//	2026-05-01         2026-05-01T10:30:00.5+02:00
//	1777629600
//
// Four digits alone are refused: the note says that they are a year, and AWS that digits are seconds.
func parseDate(s string) (time.Time, bool) {
	if isDigits(s) {
		if len(s) == 4 || len(s) > 12 {
			return time.Time{}, false
		}
		var n int64
		for i := range len(s) {
			n = 10*n + int64(s[i]-'0')
		}
		return time.Unix(n, 0), true
	}
	// time.Parse would take one digit for the hour, and a comma before the fraction.
	shape := ""
	for _, form := range []struct{ shape, layout string }{
		{"0000-00", "2006-01"},
		{"0000-00-00", time.DateOnly},
		{"0000-00-00T00:00", "2006-01-02T15:04Z07:00"},
		{"0000-00-00T00:00:00", time.RFC3339},
	} {
		if !hasShape(s, form.shape) {
			break
		}
		shape = form.layout
		if len(s) == len(form.shape) {
			break
		}
	}
	if shape == "" || strings.Contains(s, ",") {
		return time.Time{}, false
	}
	t, err := time.Parse(shape, s)
	return t, err == nil
}

// hasShape reports whether s begins with shape, in which 0 is any digit.
func hasShape(s, shape string) bool {
	if len(s) < len(shape) {
		return false
	}
	for i := range len(shape) {
		if shape[i] == '0' {
			if s[i] < '0' || s[i] > '9' {
				return false
			}
		} else if s[i] != shape[i] {
			return false
		}
	}
	return true
}

// parseBool reads true or false, in any case of the letters.
func parseBool(s string) (value, ok bool) {
	switch {
	case strings.EqualFold(s, "true"):
		return true, true
	case strings.EqualFold(s, "false"):
		return false, true
	}
	return false, false
}

// parsePrefix reads an address or a range of addresses in CIDR form, whose host bits mean nothing. An IPv4 address that is written as an IPv6
// one is an IPv4 address.
func parsePrefix(s string) (netip.Prefix, bool) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, false
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, false
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p, true
}

// parseAddr reads the address of a client.
func parseAddr(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	return a.WithZone("").Unmap(), err == nil
}
