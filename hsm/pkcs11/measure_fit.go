package pkcs11

import "slices"

// A Fit is what fits a token that was measured.
type Fit struct {
	// Usable says that the token does all that strongroom needs. If not, Lacking says what it does not do.
	Usable  bool
	Lacking []string `json:",omitempty"`

	// The rest is for a [Config]. Label is empty if other tokens have the same, so that only Serial will do.
	Module        string
	Label         string `json:",omitempty"`
	Serial        string
	Sessions      int
	IV            IVSource
	SessionCopies bool
}

// fit computes from a report what fits.
func (me *measuring) fit(c Config) {
	r := me.report
	r.Fit = Fit{Module: c.Module, Label: r.Token.Label, Serial: r.Token.Serial, Sessions: fittingSessions(r)}
	if f, err := me.figures(); err != nil || f.namesakes > 1 {
		r.Fit.Label = ""
	}
	if r.IV != nil {
		r.Fit.IV = *r.IV
	}
	// A copy in the module's memory is one more thing to keep right, so it has to be worth it.
	r.Fit.SessionCopies = r.Copies != nil && r.Copies.CopyUS < 0.7*r.Copies.KeyUS
	for _, f := range r.Findings {
		if f.Needed && f.Verdict != OK && f.Verdict != Skipped {
			r.Fit.Lacking = append(r.Fit.Lacking, f.Name)
		}
	}
	r.Fit.Usable = r.IV != nil && len(r.Fit.Lacking) == 0
	for _, step := range measureSteps {
		if !slices.Contains(r.Done, step.name) {
			r.Fit.Usable = false
		}
	}
}

// fittingSessions is the least number of sessions that does as much as any, and no less than four: requests for other keys should not wait for one
// that is slow. It leaves the sessions that other things need.
func fittingSessions(r *Report) int {
	const least = 4
	best := 0.0
	for _, l := range r.Load {
		if l.Bytes == 32 && l.Errors == 0 {
			best = max(best, l.PerSecond)
		}
	}
	n := defaultSessions
	for _, l := range r.Load {
		if l.Bytes == 32 && l.Errors == 0 && l.PerSecond >= 0.95*best {
			n = l.Sessions
			break
		}
	}
	n = max(n, least)
	if r.Sessions.Refused != "" { // the limit is known: two were open for measuring
		n = min(n, r.Sessions.Opened+2-makerSessions-2)
	}
	return max(n, 1)
}
