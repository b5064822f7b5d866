package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"
)

// expiresSoon is how long before its end a certificate is a finding.
const expiresSoon = 30 * 24 * time.Hour

// examineConfig looks at what the configuration says.
func (d *doctor) examineConfig(ctx context.Context, p *part) func() {
	if d.rig != nil {
		p.ok("a rig of strongroom dev in %s, which has no configuration", d.rig.dir)
		return nil
	}
	for _, fault := range d.faults {
		key, what, _ := strings.Cut(fault, ": ")
		p.fail("config", d.configPath+": "+key, what, "serve does not start", "correct it; README.md, \"Operating it\", has the keys")
	}
	if len(d.faults) == 0 {
		p.ok("%s: every key is known, and every value can be", d.configPath)
	}
	if d.config.TLS.Certificate != "" {
		d.examineCertificate(p)
	}
	d.examineLimits(p)
	return nil
}

func (d *doctor) examineCertificate(p *part) {
	t := d.config.TLS
	const renew = "renew it; a server that runs reads both files again by itself"
	pair, err := tls.LoadX509KeyPair(t.Certificate, t.Key)
	if err != nil {
		p.fail("tls-pair", t.Certificate, fmt.Sprintf("certificate and key cannot be used: %v", withoutPath(err)),
			"serve does not start; one that runs keeps what it had", "put a certificate and the key that belongs to it there")
		return
	}
	leaf, now := pair.Leaf, time.Now()
	switch left := leaf.NotAfter.Sub(now); {
	case left <= 0:
		p.fail("tls-expired", t.Certificate, "the certificate expired on "+when(leaf.NotAfter), "clients refuse the connection", renew)
	case now.Before(leaf.NotBefore):
		p.fail("tls-not-yet", t.Certificate, "the certificate is valid only from "+when(leaf.NotBefore), "clients refuse the connection until then",
			"see that the clock is right, or get another certificate")
	case left < expiresSoon:
		p.warn("tls-expires", t.Certificate, fmt.Sprintf("the certificate expires on %s, in %d days", when(leaf.NotAfter), int(left.Hours()/24)),
			"clients will refuse the connection", renew)
	default:
		p.ok("%s: belongs to its key, and is valid until %s", t.Certificate, when(leaf.NotAfter))
	}
	host, _, err := net.SplitHostPort(d.config.Listen)
	if err != nil || host == "" || net.ParseIP(host) != nil && net.ParseIP(host).IsUnspecified() {
		return // any name may lead here
	}
	if err := leaf.VerifyHostname(host); err != nil {
		p.note("tls-name", t.Certificate, err.Error(), "clients that call the server by that name, which listen has, refuse the connection", "")
	}
}

// examineLimits says what is allowed and hardly meant.
func (d *doctor) examineLimits(p *part) {
	n := len(p.Findings)
	l := d.config.Limits
	for _, limit := range []struct {
		key   string
		value float64
	}{
		{"limits.symmetric", l.Symmetric}, {"limits.pairs_rsa", l.PairsRSA}, {"limits.pairs_other", l.PairsOther},
		{"limits.reads", l.Reads}, {"limits.changes", l.Changes},
	} {
		if limit.value > 0 && limit.value < 1 {
			p.warn("limits", d.configPath+": "+limit.key, fmt.Sprintf("%v a second is one request in %.0f seconds", limit.value, 1/limit.value),
				"clients get ThrottlingException for nearly everything", "requests a second are meant; 0 is no limit")
		}
	}
	if d.audit.CheckpointSeconds > 3600 {
		p.warn("limits", d.configPath+": audit.checkpoint_seconds", fmt.Sprintf("records are signed %v after they are written",
			time.Duration(d.audit.CheckpointSeconds)*time.Second), "until then whoever can write the files could change them", "the default is 60")
	}
	if d.config.HSM.Sessions > 0 && d.config.HSM.Sessions < 2 {
		p.warn("limits", d.configPath+": hsm.sessions", "one session answers one request at a time", "the others wait, and a call that hangs stops all", "the default is 16")
	}
	if d.config.HSM.PINFile == "" {
		p.note("pin-asked", d.configPath, "there is no hsm.pin_file", "whoever starts the server has to give the PIN each time, in "+pinVariable+" or on a terminal", "")
	}
	if len(p.Findings) == n {
		p.ok("limits, sessions and checkpoints are of a usual size")
	}
}

// readConfiguredPIN reads the PIN, before anything is timed: a person may have to type it.
func (d *doctor) readConfiguredPIN(ctx context.Context) {
	if d.rig == nil && len(d.faults) == 0 {
		d.pin, d.pinError = readPIN(ctx, d.config.HSM)
	}
}

// moduleIsSoftHSM reports whether the configured module is SoftHSM, by its file's name.
func (d *doctor) moduleIsSoftHSM() bool {
	return d.rig != nil || strings.Contains(strings.ToLower(d.config.HSM.Module), "softhsm")
}
