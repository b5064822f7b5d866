package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"strongroom/kms"
)

const (
	clockTolerance = time.Minute    // by which times of others may be ahead
	clockJump      = 24 * time.Hour // since anything was last noted; a clock that was set ahead looks like this
	dueSoon        = time.Hour
	fewKeys        = 3
)

// clockState is a variable for the sake of tests.
var clockState = func() (synchronised bool, err error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t) // with modes 0 it only tells
	return err == nil && state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, err
}

// examineClock compares the clock with what the deployment knows to have happened.
func (d *doctor) examineClock(ctx context.Context, p *part) func() {
	now := time.Now()
	const back = "signatures of clients are refused, records get wrong times, and deletion dates move: keys would be destroyed late"
	behind := func(check, what string, at time.Time) bool {
		if at.IsZero() || !at.After(now.Add(clockTolerance)) {
			return false
		}
		p.fail(check, "", fmt.Sprintf("it is %s by the clock, and %s is of %s", when(now), what, when(at)), back, "set the clock; if it is right now, it was wrong then")
		return true
	}
	wrong := behind("clock-build", "this program", builtAt())
	wrong = behind("clock-audit", "the last record of the audit log", d.lastRecord) || wrong
	latest := d.lastRecord
	if d.db != nil {
		newest, err := d.db.Newest(ctx)
		if err != nil {
			p.skip("when the store was last written to: %v", err)
		}
		wrong = behind("clock-store", "the newest time in the store", newest) || wrong
		if newest.After(latest) {
			latest = newest
		}
		if !wrong && d.deployment != nil {
			d.examineDue(ctx, p, now, latest)
		}
	}
	if !wrong {
		p.ok("it is %s, and nothing that happened is of later", when(now))
	}

	switch ok, err := clockState(); {
	case err != nil:
		p.note("clock-unknown", "", fmt.Sprintf("whether the clock is synchronised is not known here: %v", err), "", "")
	case ok:
		p.ok("the clock is synchronised")
	case d.rig != nil || inContainer():
		p.note("clock-free", "", "the kernel does not know the clock to be synchronised", "in a container or a rig that is its host's to see to", "")
	default:
		p.warn("clock-free", "", "nothing synchronises the clock", "it drifts: signatures are refused when it is five minutes wrong", "run an NTP client, such as chrony or systemd-timesyncd")
	}
	return nil
}

// examineDue looks for deletions that a clock which was set ahead brings about: the next start of a server destroys what is due, and nothing brings that back.
func (d *doctor) examineDue(ctx context.Context, p *part, now, latest time.Time) {
	const most = 1000
	var due []kms.KeyID
	err := d.db.View(ctx, func(tx kms.Tx) (err error) {
		due, err = tx.KeysInState(kms.StatePendingDeletion, now.Add(dueSoon), most)
		return err
	})
	if err != nil {
		p.skip("which keys are about to be destroyed: %v", err)
		return
	}
	if len(due) == 0 {
		p.ok("no key is due to be destroyed within the hour")
		return
	}
	text := count(len(due), "key")
	if len(due) == most {
		text = fmt.Sprintf("%d keys or more", most)
	}
	if !d.served && !latest.IsZero() && now.Sub(latest) > clockJump && len(due) > fewKeys {
		p.warn("clock-jump", "", fmt.Sprintf("%s became due since the deployment was last used, on %s, or will within the hour", text, when(latest)),
			"if the clock was set ahead, the next start of the server destroys them before their time, and nothing brings them back",
			"see that the clock is right before the server is started")
		return
	}
	p.note("keys-due", "", text+" will be destroyed within the hour", "their waiting periods end; strongroom key undelete KEY saves one until then", "")
}

// builtAt returns of when the program's source is, zero if it does not say.
func builtAt() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			at, _ := time.Parse(time.RFC3339, s.Value)
			return at
		}
	}
	return time.Time{}
}

// inContainer reports whether the host's clock is somebody else's to set, as far as can be seen.
func inContainer() bool {
	for _, path := range []string{"/.dockerenv", "/run/.containerenv", "/run/systemd/container"} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			return true
		}
	}
	return os.Getenv("container") != "" || os.Getenv("KUBERNETES_SERVICE_HOST") != ""
}
