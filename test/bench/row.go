package main

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// A row is one line of the table: something that was measured some times over, next to something else where that says more.
type row struct {
	Name     string   `json:"name"`
	Clients  int      `json:"clients,omitempty"`
	Unit     string   `json:"unit"`              // of Value and Other
	Against  string   `json:"against,omitempty"` // what Other was measured of
	Samples  []sample `json:"samples"`           // one a round
	Bars     []bar    `json:"bars,omitempty"`
	Note     string   `json:"note,omitempty"`
	Requests int      `json:"requests"`

	luck bool // makes the samples differ more than noise: means are better than medians

	// The medians of the samples, unless luck is in them; of the latencies, of all requests together.
	Value float64 `json:"value"`
	Other float64 `json:"other,omitempty"`
	Ratio float64 `json:"ratio,omitempty"`
	P50   float64 `json:"p50Millis,omitempty"`
	P99   float64 `json:"p99Millis,omitempty"`
}

// A sample is what one round measured. What it does not measure is 0.
type sample struct {
	Requests int     `json:"requests,omitempty"`
	Value    float64 `json:"value"`
	Other    float64 `json:"other,omitempty"`
	Ratio    float64 `json:"ratio,omitempty"` // of Value to Other in this round, which the same things disturbed
	P50      float64 `json:"p50Millis,omitempty"`
	P99      float64 `json:"p99Millis,omitempty"`
	Allocs   float64 `json:"allocs,omitempty"` // a request
}

// A bar is what a figure of a row is held against.
type bar struct {
	Of      string  `json:"of"` // "ratio", "p50", "p99" or "growth"
	AtLeast bool    `json:"atLeast"`
	Limit   float64 `json:"limit"`
	Met     bool    `json:"met"`
}

func (b bar) String() string {
	sign := "≤"
	if b.AtLeast {
		sign = "≥"
	}
	switch b.Of {
	case "ratio":
		return fmt.Sprintf("%s %.2f", sign, b.Limit)
	case "growth":
		return fmt.Sprintf("growth %s %.0f MB", sign, b.Limit)
	}
	return fmt.Sprintf("%s %s %.0f ms", b.Of, sign, b.Limit)
}

// settle makes the medians of the samples, and holds the bars against them.
func (r *row) settle() {
	of := func(f func(sample) float64) float64 {
		var all []float64
		for _, s := range r.Samples {
			all = append(all, f(s))
		}
		return median(all)
	}
	value, other := func(s sample) float64 { return s.Value }, func(s sample) float64 { return s.Other }
	r.Value, r.Other, r.Ratio = of(value), of(other), of(func(s sample) float64 { return s.Ratio })
	if r.luck {
		r.Value, r.Other = mean(r.Samples, value), mean(r.Samples, other)
		r.Ratio = r.Value / r.Other
		error := r.Ratio * math.Hypot(deviation(r.Samples, value)/r.Value, deviation(r.Samples, other)/r.Other)
		r.Note = fmt.Sprintf("± %.2f", error)
	}
	r.Requests = 0
	for _, s := range r.Samples {
		r.Requests += s.Requests
	}
	r.judge()
}

// judge holds the bars against the figures.
func (r *row) judge() {
	for i := range r.Bars {
		b := &r.Bars[i]
		got := map[string]float64{"ratio": r.Ratio, "p50": r.P50, "p99": r.P99, "growth": r.Value - r.Other}[b.Of]
		b.Met = got <= b.Limit
		if b.AtLeast {
			b.Met = got >= b.Limit
		}
	}
}

func atLeast(ratio float64) []bar { return []bar{{Of: "ratio", AtLeast: true, Limit: ratio}} }
func atMost(ratio float64) []bar  { return []bar{{Of: "ratio", Limit: ratio}} }

// compare makes a row of two things that were asked in turns: the rate of one next to that of the other.
func compare(name string, clients int, as []slice, against string, bs []slice, bars []bar) *row {
	r := &row{Name: name, Clients: clients, Unit: perSecond, Against: against, Bars: bars}
	var all []time.Duration
	for i, a := range as {
		s := sample{Requests: len(a.latencies), Value: a.rate(), P50: a.at(0.50), P99: a.at(0.99)}
		if bs != nil {
			s.Other = bs[i].rate()
			s.Ratio = s.Value / s.Other
		}
		r.Samples = append(r.Samples, s)
		all = append(all, a.latencies...)
	}
	whole := slice{latencies: all}
	r.P50, r.P99 = whole.at(0.50), whole.at(0.99)
	return r
}

const (
	perSecond = "req/s"
	millis    = "ms"
	megabytes = "MB"
	nanos     = "ns/op"
)

// median returns the middle of what there is, or the mean of the two in the middle.
func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	middle := len(all) / 2
	return (all[middle] + all[(len(all)-1)/2]) / 2
}

func mean(all []sample, of func(sample) float64) (m float64) {
	for _, s := range all {
		m += of(s) / float64(len(all))
	}
	return m
}

// deviation returns the standard deviation of the mean.
func deviation(all []sample, of func(sample) float64) float64 {
	m, v := mean(all, of), 0.0
	for _, s := range all {
		v += (of(s) - m) * (of(s) - m)
	}
	n := float64(len(all))
	return math.Sqrt(v / (n - 1) / n)
}

// A slice is what was done without a break.
type slice struct {
	elapsed   time.Duration
	latencies []time.Duration
}

func (s slice) rate() float64 { return float64(len(s.latencies)) / s.elapsed.Seconds() }

// at returns the latency that a share q of the requests did not exceed, in milliseconds.
func (s slice) at(q float64) float64 {
	if len(s.latencies) == 0 {
		return 0
	}
	all := slices.Sorted(slices.Values(s.latencies))
	return all[int(q*float64(len(all)-1)+0.5)].Seconds() * 1000
}
