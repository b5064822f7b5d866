package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A report is all that a run measured, as -format json prints it.
type report struct {
	About map[string]string `json:"about"` // of the machine, and of what was measured with
	Rows  []*row            `json:"rows"`
}

// columns are the heads of the table.
var columns = []string{"measure", "clients", "requests", "figure", "p50 ms", "p99 ms", "next to", "its figure", "ratio", "bar", "met", ""}

// cells returns a row as the table has it.
func (r *row) cells() []string {
	number := func(f float64, unit string) string {
		if f == 0 {
			return ""
		}
		if unit == nanos {
			f, unit = f/1000, "µs"
		}
		return short(f) + " " + unit
	}
	count := func(n int) string {
		if n == 0 {
			return ""
		}
		return strconv.Itoa(n)
	}
	ms := func(f float64) string {
		if f == 0 {
			return ""
		}
		return fmt.Sprintf("%.3f", f)
	}
	ratio := ""
	if r.Ratio != 0 {
		ratio = fmt.Sprintf("%.3f", r.Ratio)
	}
	var bars, met []string
	for _, b := range r.Bars {
		bars = append(bars, b.String())
		met = append(met, map[bool]string{true: "yes", false: "no"}[b.Met])
	}
	return []string{r.Name, count(r.Clients), count(r.Requests), number(r.Value, r.Unit), ms(r.P50), ms(r.P99), r.Against, number(r.Other, r.Unit), ratio,
		strings.Join(bars, ", "), strings.Join(met, ", "), r.Note}
}

// short writes a number with three digits or all before the point.
func short(f float64) string {
	switch {
	case f >= 100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.3g", f)
}

// table prints the rows in columns, for people.
func (r *report) table(w io.Writer) error {
	return r.lines(w, func(cells []string, widths []int) string {
		var b strings.Builder
		for i, c := range cells {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
			if left := i == 0 || i == 6 || i >= 9; left {
				b.WriteString(c + pad)
			} else {
				b.WriteString(pad + c)
			}
			b.WriteString("  ")
		}
		return strings.TrimRight(b.String(), " ")
	})
}

// markdown prints all as BENCHMARKS.md has it.
func (r *report) markdown(w io.Writer) error {
	for _, key := range aboutKeys {
		fmt.Fprintf(w, "- %s: %s\n", key, r.About[key])
	}
	fmt.Fprintln(w)
	head := true
	return r.lines(w, func(cells []string, _ []int) string {
		line := "| " + strings.Join(cells, " | ") + " |"
		if head {
			head = false
			line += "\n|---|--:|--:|--:|--:|--:|---|--:|--:|---|---|---|"
		}
		return line
	})
}

func (r *report) lines(w io.Writer, line func(cells []string, widths []int) string) error {
	all := [][]string{columns}
	for _, row := range r.Rows {
		all = append(all, row.cells())
	}
	widths := make([]int, len(columns))
	for _, cells := range all {
		for i, c := range cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	for _, cells := range all {
		if _, err := fmt.Fprintln(w, line(cells, widths)); err != nil {
			return err
		}
	}
	return nil
}

// golang prints the samples as `go test -bench` does (golang.org/design/14313-benchmark-format), a line a round, so that benchstat compares two runs and
// tells what is noise.
func (r *report) golang(w io.Writer) error {
	for i, key := range aboutKeys {
		mark := ""
		if i >= sameKeys {
			mark = "# " // for people: benchstat compares only what does not differ in what it reads
		}
		fmt.Fprintf(w, "%s%s: %s\n", mark, key, r.About[key])
	}
	for _, row := range r.Rows {
		name := "Benchmark" + benchmarkName(row.Name)
		if row.Clients > 0 {
			name += fmt.Sprintf("/c=%d", row.Clients)
		}
		for _, s := range row.Samples {
			line := fmt.Sprintf("%s-%d\t%d", name, runtime.GOMAXPROCS(0), max(s.Requests, 1))
			unit := func(f float64, unit string) {
				if f != 0 {
					line += fmt.Sprintf("\t%.6g %s", f, unit)
				}
			}
			if row.Unit == perSecond {
				unit(1e9/s.Value, nanos)
			}
			unit(s.Value, row.Unit)
			unit(s.P50, "p50-ms")
			unit(s.P99, "p99-ms")
			unit(s.Ratio, "ratio")
			unit(s.Allocs, "allocs/op")
			if _, err := fmt.Fprintln(w, line); err != nil {
				return err
			}
		}
	}
	return nil
}

// benchmarkName makes a name for the Go format, which takes no spaces, of one that people read.
func benchmarkName(name string) string {
	name = strings.NewReplacer(", ", "/", " ", "_", ":", "").Replace(name)
	return strings.ToUpper(name[:1]) + name[1:]
}

// printers are the forms in which a report is printed, by what -format calls them.
var printers = map[string]func(*report, io.Writer) error{
	"text":     (*report).text,
	"markdown": (*report).markdown,
	"go":       (*report).golang,
	"json": func(r *report, w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(r)
	},
}

func (r *report) text(w io.Writer) error {
	for _, key := range aboutKeys {
		fmt.Fprintf(w, "%-10s %s\n", key, r.About[key])
	}
	fmt.Fprintln(w)
	return r.table(w)
}
