package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// How bad a finding is.
const (
	severeError   = "error"   // something is lost or refused, or will be
	severeWarning = "warning" // it may come to that
	severeNote    = "note"    // not wrong
)

// A finding is one thing that doctor has to say.
type finding struct {
	Severity string
	Check    string // what kind of finding it is, for programs
	Where    string `json:",omitempty"`
	What     string
	Why      string `json:",omitempty"` // it matters
	Remedy   string `json:",omitempty"` // a command, or a sentence
	Fixed    bool   `json:",omitempty"`
	NotFixed string `json:",omitempty"` // why --fix could not

	fix func() error // what --fix does; nil if that is for a person to decide
}

// A part is what was looked at in one part of the deployment, and what was found there.
type part struct {
	Name     string
	Checked  []string   // what is as it should be, in words
	Skipped  []string   `json:",omitempty"` // what could not be looked at, and why
	Findings []*finding `json:",omitempty"`
}

func newPart(name string) *part { return &part{Name: name, Checked: []string{}} }

func (p *part) ok(format string, args ...any) {
	p.Checked = append(p.Checked, fmt.Sprintf(format, args...))
}

func (p *part) skip(format string, args ...any) {
	p.Skipped = append(p.Skipped, fmt.Sprintf(format, args...))
}

func (p *part) find(severity, check, where, what, why, remedy string) *finding {
	f := &finding{Severity: severity, Check: check, Where: where, What: what, Why: why, Remedy: remedy}
	p.Findings = append(p.Findings, f)
	return f
}

func (p *part) fail(check, where, what, why, remedy string) *finding {
	return p.find(severeError, check, where, what, why, remedy)
}

func (p *part) warn(check, where, what, why, remedy string) *finding {
	return p.find(severeWarning, check, where, what, why, remedy)
}

func (p *part) note(check, where, what, why, remedy string) *finding {
	return p.find(severeNote, check, where, what, why, remedy)
}

// treat does what can be done without losing anything.
func (p *part) treat(ctx context.Context) {
	for _, f := range p.Findings {
		if f.fix == nil {
			continue
		}
		_, err := bounded(ctx, fixLimit, func(context.Context) (struct{}, error) { return struct{}{}, f.fix() })
		if err != nil {
			f.NotFixed = err.Error()
		} else {
			f.Fixed = true
		}
	}
}

// hintsOf returns what an error says that a person can do about it, each after a semicolon.
func hintsOf(err error) (text string) {
	for ; err != nil; err = errors.Unwrap(err) {
		if h, ok := err.(*hintedError); ok {
			for _, hint := range h.hints {
				text += "; " + hint
			}
		}
	}
	return text
}

// mostAlike is how many findings of one kind people are shown.
const mostAlike = 10

// text writes a part for people.
func (p *part) text() string {
	var b strings.Builder
	line := func(mark, format string, args ...any) {
		fmt.Fprintf(&b, "  %-8s %s\n", mark, printable(fmt.Sprintf(format, args...)))
	}
	b.WriteString(strings.ToUpper(p.Name[:1]) + p.Name[1:] + "\n")
	for _, text := range p.Checked {
		line("ok", "%s", text)
	}
	for _, text := range p.Skipped {
		line("-", "%s", text)
	}
	shown := make(map[string]int)
	for _, f := range p.Findings {
		if shown[f.Check]++; shown[f.Check] > mostAlike {
			continue
		}
		mark, what := f.Severity, f.What
		if f.Fixed {
			mark = "fixed"
		}
		if f.Where != "" {
			what = f.Where + ": " + what
		}
		line(mark, "%s", what)
		if f.Why != "" && !f.Fixed {
			line("", "%s", f.Why)
		}
		switch {
		case f.NotFixed != "":
			line("", "not fixed: %s", f.NotFixed)
			fallthrough
		case f.Remedy != "" && !f.Fixed:
			line("", "-> %s", f.Remedy)
		}
	}
	for _, f := range p.Findings { // in their order
		if more := shown[f.Check] - mostAlike; more > 0 {
			line("", "and %s like the last of %q; --json has all", count(uint64(more), "more finding"), f.Check)
			delete(shown, f.Check)
		}
	}
	return b.String()
}

// A diagnosis is the whole of it, for programs.
type diagnosis struct {
	Healthy  bool // there is neither an error nor a warning that was not fixed
	Errors   int
	Warnings int
	Notes    int
	Fixed    int
	Parts    []*part
}

func (d *doctor) diagnose() diagnosis {
	r := diagnosis{Parts: d.parts}
	for _, p := range d.parts {
		for _, f := range p.Findings {
			switch {
			case f.Fixed:
				r.Fixed++
			case f.Severity == severeError:
				r.Errors++
			case f.Severity == severeWarning:
				r.Warnings++
			default:
				r.Notes++
			}
		}
	}
	r.Healthy = r.Errors+r.Warnings == 0
	return r
}

// finish tells the end of it, and returns the error that says how it ended.
func (d *doctor) finish() error {
	r := d.diagnose()
	if d.c.Bool("json") {
		if err := printJSON(d.c, r); err != nil {
			return err
		}
	} else if err := printBytes(d.c, []byte(r.summary(d.fix))); err != nil {
		return err
	}
	switch {
	case d.refusedPIN != nil:
		return d.refusedPIN
	case !r.Healthy:
		return errNo
	}
	return nil
}

// summary is the last line for people.
func (r diagnosis) summary(fix bool) string {
	text := "\nNothing is wrong"
	if !r.Healthy {
		text = fmt.Sprintf("\n%s, %s", count(uint64(r.Errors), "error"), count(uint64(r.Warnings), "warning"))
	}
	if r.Notes > 0 {
		text += fmt.Sprintf(", %s", count(uint64(r.Notes), "note"))
	}
	switch {
	case r.Fixed > 0:
		text += fmt.Sprintf("; %d fixed", r.Fixed)
	case fix && r.Healthy:
		text += "; there was nothing to fix"
	case fix:
		text += "; nothing of it can be fixed without somebody who decides"
	case r.fixable():
		text += "; --fix puts some of it right"
	}
	return text + "\n"
}

func (r diagnosis) fixable() bool {
	for _, p := range r.Parts {
		for _, f := range p.Findings {
			if f.fix != nil && !f.Fixed {
				return true
			}
		}
	}
	return false
}
