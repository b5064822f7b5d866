package main

import (
	"fmt"
	"io"
)

// A report is what -json prints. Sizes are bytes, 0 where they cannot be told.
type report struct {
	CPUs      int     `json:"cpus"`
	Go        string  `json:"go"`
	Seconds   float64 `json:"seconds"`
	RSSBefore int64   `json:"rssBefore"`
	RSSAfter  int64   `json:"rssAfter"`
	Cells     []cell  `json:"cells"`

	Pairs *pairReport `json:"pairs,omitempty"`
}

// A cell is one operation asked for by a number of clients.
type cell struct {
	Operation string `json:"operation"`
	Clients   int    `json:"clients"`
	rate
	Empty rate    `json:"empty"`
	Ratio float64 `json:"ratio"`
}

// A rate is how fast a server was.
type rate struct {
	PerSecond float64 `json:"perSecond"`
	P50       float64 `json:"p50Millis"`
	P99       float64 `json:"p99Millis"`
	Requests  int     `json:"requests"`
}

const row = "%-43s %7s  %8s %9s %9s  %8s %9s %9s  %7s\n"

func (r *report) printHead(w io.Writer) {
	fmt.Fprintf(w, "strongroom dev (SoftHSM, SQLite) and an empty HTTP server, %d processors shared with the clients, %s\n\n", r.CPUs, r.Go)
	fmt.Fprintf(w, row, "", "", "req/s", "p50 ms", "p99 ms", "empty/s", "p50 ms", "p99 ms", "ratio")
}

func (c *cell) print(w io.Writer) {
	ms := func(f float64) string { return fmt.Sprintf("%.3f", f) }
	perSecond := func(f float64) string {
		if f < 100 {
			return fmt.Sprintf("%.1f", f)
		}
		return fmt.Sprintf("%.0f", f)
	}
	ratio := func(f float64) string {
		if f < 0.01 {
			return fmt.Sprintf("%.5f", f)
		}
		return fmt.Sprintf("%.3f", f)
	}
	clients := fmt.Sprintf("%d cl.", c.Clients)
	fmt.Fprintf(w, row, c.Operation, clients, perSecond(c.PerSecond), ms(c.P50), ms(c.P99),
		perSecond(c.Empty.PerSecond), ms(c.Empty.P50), ms(c.Empty.P99), ratio(c.Ratio))
}

func (r *report) printFoot(w io.Writer) {
	const mb = 1 << 20
	fmt.Fprintf(w, "\nResident memory of the server: %.1f MB before, %.1f MB after.\n", float64(r.RSSBefore)/mb, float64(r.RSSAfter)/mb)
	if r.Pairs != nil {
		r.Pairs.print(w)
	}
}
