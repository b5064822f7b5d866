package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"strongroom/hsm/pkcs11"
)

func hsmCheckCommand() *cli.Command {
	return localCommand(&cli.Command{
		Name:  "check",
		Usage: "measure a token, and print the configuration that fits",
		Description: `Believes nothing that can be tried: makes keys and signatures, tries to get a key out, encrypts and decrypts, compares AES-GCM with
known answers, finds out who makes the IV, what a changed ciphertext is answered with, how many sessions and keys the token has
room for, and how fast it is. The token must have been initialised with its own tools; whether strongroom has used it does not
matter.

What it makes is labelled strongroom/check/…, is none of the keys of a deployment, and is destroyed at the end, also after an
error or Ctrl-C. What a check that was killed has left goes first, so that two must not check one token at the same time. A
server that uses the token goes on, but it feels the load: --seconds and --sessions make that less.

The vendor's library runs in a process of its own, so that one that crashes or hangs costs no more than the step in which it does.
The PIN is tried once, and not at all if the token says that it is locked or that one more wrong one locks it.

Example:  strongroom hsm check --module /usr/lib/softhsm/libsofthsm2.so --token-label vault
          strongroom hsm check --config /etc/strongroom/strongroom.toml --objects 1000

With --json, stdout is one JSON object. Members may be added later; none is renamed.

Exit codes: 0 the token can be used, 1 it cannot (or the check failed, and stdout is empty), 2 used wrongly, 3 the token refused
the PIN.`,
		Flags: append([]cli.Flag{
			&cli.IntFlag{Name: "objects", Usage: "make `N` keys, at most, to see whether the token has room; 0 makes none", Value: 64},
			&cli.Float64Flag{Name: "seconds", Usage: "measure the speed for `S` seconds with each number of sessions", Value: 1},
			&cli.IntFlag{Name: "sessions", Usage: "encrypt with `N` sessions at a time, at most", Value: 32},
			&cli.IntFlag{Name: "max-sessions", Usage: "open `N` sessions, at most, to see how many the token has", Value: 256},
			&cli.DurationFlag{Name: "step-timeout", Usage: "a step that takes longer than `TIME`, beside what it has to, counts as hung", Value: 2 * time.Minute},
			&cli.BoolFlag{Name: "in-child", Hidden: true},
			jsonFlag(),
			cli.HelpFlag,
		}, tokenFlags()...),
		Action: func(c *cli.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			if c.Bool("in-child") {
				return measureInChild(c.Context)
			}
			return checkHSM(c)
		},
	})
}

func checkHSM(c *cli.Context) error {
	o := pkcs11.MeasureOptions{Objects: c.Int("objects"), Sessions: c.Int("sessions"), MaxSessions: c.Int("max-sessions"), Seconds: c.Float64("seconds")}
	switch {
	case o.Objects < 0 || o.Objects > 1_000_000:
		return misuse("--objects %d is not from 0 to 1000000", o.Objects)
	case o.Sessions < 1 || o.Sessions > 1024:
		return misuse("--sessions %d is not from 1 to 1024", o.Sessions)
	case o.MaxSessions < o.Sessions || o.MaxSessions > 100_000:
		return misuse("--max-sessions %d is not from --sessions, %d, to 100000", o.MaxSessions, o.Sessions)
	case c.Duration("step-timeout") < time.Second:
		return misuse("--step-timeout %v is less than a second", c.Duration("step-timeout"))
	case !(o.Seconds >= 0.001 && o.Seconds <= 600):
		return misuse("--seconds %v is not from 0.001 to 600", o.Seconds)
	}
	choice, err := chooseToken(c)
	if err != nil {
		return err
	}
	if !choice.named {
		return hint(misuse("which token? --token-label LABEL or --token-serial NUMBER is required"), "strongroom hsm list --module FILE lists tokens")
	}
	log := newLogger(c.App.ErrWriter, "warn")
	hardenProcess(log)
	if choice.store != "" {
		note(c, "a server that uses this token will feel the load while this runs")
	}
	r, err := measureToken(c, choice.config, o)
	if err != nil {
		return err
	}
	block := configBlock(r, choice.config)
	if c.Bool("json") {
		err = printJSON(c, struct {
			*pkcs11.Report
			Configuration string
		}{r, block})
	} else {
		err = printBytes(c, []byte(checkText(r, block)))
	}
	if err == nil && !r.Fit.Usable {
		err = errNo
	}
	return err
}

// measureToken measures a token in child processes, one after the other as they crash.
func measureToken(c *cli.Context, config pkcs11.Config, o pkcs11.MeasureOptions) (*pkcs11.Report, error) {
	progress := func(string) {}
	if isTerminal(c.App.ErrWriter) {
		progress = func(step string) { note(c, "%s…", step) }
	}
	pin := &keptPIN{config: config}
	defer pin.forget()
	for {
		r, crash, err := measureOnce(c.Context, pin, o, c.Duration("step-timeout"), progress)
		if crash == nil {
			return r, err
		}
		if crash.before == nil || crash.step == o.Crashed {
			return nil, fmt.Errorf("measuring the token: in the step %q, %s", crash.step, crash.how)
		}
		note(c, "the vendor's library failed in the step %q: %s; going on after that", crash.step, crash.how)
		o.Before, o.Crashed, o.How = crash.before, crash.step, crash.how
	}
}

// A crash is the end of a child that gave no answer.
type crash struct {
	step, how string
	before    *pkcs11.Report // what it had found before the step; nil if it cannot be gone on
}

// stepTime is how long a step may take before the library counts as hung.
func stepTime(step string, o pkcs11.MeasureOptions, most time.Duration) time.Duration {
	switch step {
	case "load":
		return most + time.Duration(2*11*o.Seconds*float64(time.Second))
	case "objects":
		return most + time.Duration(o.Objects)*2*time.Second
	case "leftovers":
		return 5 * most // however many there are
	}
	return most
}

// childRequest is what a child is told, as a line of JSON. The PIN is another line, in hexadecimal, when it asks.
type childRequest struct {
	Module, InitArgs, Label, Serial, SyncDir string
	Uncertain                                bool // pkcs11.Config.PINUncertain
	Options                                  pkcs11.MeasureOptions
}

// childEvent is what a child says, each as a line of JSON.
type childEvent struct {
	Step   string         `json:",omitempty"` // that begins; Report is what was found before
	PIN    bool           `json:",omitempty"` // it wants the PIN
	Done   bool           `json:",omitempty"` // it is over
	Report *pkcs11.Report `json:",omitempty"`
	Error  string         `json:",omitempty"`
	NoPIN  bool           `json:",omitempty"` // Error is that the PIN was refused,
	Wrong  bool           `json:",omitempty"` // because it is not the right one
}

// A childError is an error of a child.
type childError struct {
	text         string
	noPIN, wrong bool
}

func (e *childError) Error() string { return e.text }

// Is reports whether target is pkcs11.ErrPIN or pkcs11.ErrPINWrong and the child's error was.
func (e *childError) Is(target error) bool {
	return e.noPIN && target == pkcs11.ErrPIN || e.wrong && target == pkcs11.ErrPINWrong
}
