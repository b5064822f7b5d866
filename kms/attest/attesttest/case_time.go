package attesttest

import (
	"time"

	"strongroom/kms/attest"
)

// timeCases are documents that are not of the present, and some that just are. Their certificates are as old as they are.
func timeCases() []Case {
	return []Case{
		{Name: "age-4-minutes", About: "four minutes old", state: notAfter(-4 * time.Minute)},
		{Name: "age-limit", About: "five minutes old and no more", state: notBefore(-attest.MaxAge)},
		{Name: "age-over-limit", About: "five minutes and a millisecond old", state: notAfter(-attest.MaxAge - time.Millisecond), Reason: attest.Stale},
		{Name: "age-hour", About: "an hour old", state: notAfter(-time.Hour), Reason: attest.Stale},
		{Name: "age-seconds", About: "its time is in seconds", Reason: attest.Stale, plan: func(p *plan) {
			for _, l := range p.links[linkRegion:] {
				l.template.NotBefore = time.Unix(0, 0)
			}
		}, state: func(s *Statement) { s.Time = time.UnixMilli(s.Time.Unix()) }},
		{Name: "age-1-ms", About: "made in the first millisecond of 1970", state: func(s *Statement) { s.Time = time.UnixMilli(1) }, Reason: attest.Stale},
		{Name: "ahead-limit", About: "a minute in the future", state: notAfter(attest.MaxAhead)},
		{Name: "ahead-over-limit", About: "a minute and a millisecond in the future", state: notBefore(attest.MaxAhead + time.Millisecond), Reason: attest.Early},
		{Name: "ahead-2-minutes", About: "two minutes in the future", state: notBefore(2 * time.Minute), Reason: attest.Early},
		{Name: "ahead-last", About: "made in the last millisecond of the year 9999", Reason: attest.Early, write: value("timestamp", unsigned(253402300799999))},
	}
}

// notBefore and notAfter move the time of a document, which is in whole milliseconds, to the first and to the last one that is so far from the present.
func notBefore(after time.Duration) func(*Statement) {
	return func(s *Statement) { s.Time = s.Time.Add(after + time.Millisecond - 1).Truncate(time.Millisecond) }
}

func notAfter(after time.Duration) func(*Statement) {
	return func(s *Statement) { s.Time = s.Time.Add(after).Truncate(time.Millisecond) }
}
