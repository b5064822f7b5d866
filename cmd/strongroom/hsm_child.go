package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"strongroom/hsm/pkcs11"
)

// A token is measured in a child process, because a vendor's library may crash or hang, and a report that is lost then is of no use. The child is told
// what to do on its stdin and answers on descriptor 3, so that what a library prints does not matter. When its stdin ends it stops, and destroys what
// it has made: so it does not outlive its parent.

// measureOnce runs one child. If it does not come to its end, there is a crash, and no error.
func measureOnce(ctx context.Context, pin *keptPIN, o pkcs11.MeasureOptions, most time.Duration, progress func(step string)) (*pkcs11.Report, *crash, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	answers, theirs, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer answers.Close()
	var said beginning
	cmd := exec.Command(program, "hsm", "check", "--in-child")
	cmd.Args[0] = os.Args[0]
	// The PIN comes through the pipe, and is not to be inherited. What Go says of a crash is a line then.
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, pinVariable+"=") }), "GOTRACEBACK=none")
	cmd.Stderr, cmd.ExtraFiles = &said, []*os.File{theirs}
	cmd.Stdout = cmd.Stderr
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the parent, which tells the child
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	theirs.Close()
	if err != nil {
		return nil, nil, fmt.Errorf("start a process to measure in: %w", err)
	}
	c := &child{cmd: cmd, stdin: stdin, answers: bufio.NewReader(answers)}
	r, crash, err := c.converse(ctx, pin, o, most, progress)
	stdin.Close()
	if crash != nil || err != nil {
		_ = cmd.Process.Kill() // it is stuck, gone, or has said all
	}
	werr := cmd.Wait()
	if crash != nil && crash.how == "" {
		crash.how = "the process of the library ended with no answer"
		if werr != nil {
			crash.how = "the library ended its process: " + werr.Error()
		}
		if line := said.line(); line != "" {
			crash.how += ": " + line
		}
	}
	return r, crash, err
}

type child struct {
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	answers *bufio.Reader
}

// cleaningTime is how long a child has to destroy what it has made when it is told to stop.
const cleaningTime = 90 * time.Second

func (c *child) converse(ctx context.Context, pin *keptPIN, o pkcs11.MeasureOptions, most time.Duration, progress func(string)) (*pkcs11.Report, *crash, error) {
	t := &pin.config
	request, err := json.Marshal(childRequest{t.Module, t.InitArgs, t.Label, t.Serial, t.SyncDir, pin.uncertain(), o})
	if err != nil {
		return nil, nil, err
	}
	if _, err := c.stdin.Write(append(request, '\n')); err != nil {
		return nil, &crash{step: "start"}, nil
	}
	events := make(chan childEvent)
	go func() {
		defer close(events)
		for {
			line, err := c.answers.ReadBytes('\n')
			var e childEvent
			if err != nil || json.Unmarshal(line, &e) != nil {
				return
			}
			events <- e
		}
	}()
	defer func() {
		go func() { // so that the reader ends
			for range events {
			}
		}()
	}()
	now := crash{step: "start"}
	limit := time.NewTimer(stepTime("", o, most))
	defer limit.Stop()
	interrupted := ctx.Done()
	for {
		select {
		case e, ok := <-events:
			switch {
			case !ok && ctx.Err() != nil:
				return nil, nil, errors.New("interrupted; what was made on the token may be left there, and the next check destroys it")
			case !ok:
				return nil, &now, nil
			case e.Done && e.Error != "":
				err := &childError{e.Error, e.NoPIN, e.Wrong}
				pin.answered(err)
				return e.Report, nil, err
			case e.Done:
				return e.Report, nil, nil
			case e.PIN:
				limit.Stop() // a person may be asked
				if err := c.tellPIN(pin); err != nil {
					return nil, nil, err
				}
				limit.Reset(stepTime("", o, most))
			default:
				progress(e.Step)
				now = crash{step: e.Step}
				if e.Step != "token" && e.Step != "login" { // a PIN that may have been the reason is not tried again
					now.before = e.Report
					pin.answered(nil)
				}
				limit.Reset(stepTime(e.Step, o, most))
			}
		case <-limit.C:
			if ctx.Err() != nil {
				return nil, nil, errors.New("interrupted; what was made on the token may be left there, and the next check destroys it")
			}
			now.how = fmt.Sprintf("it did not come to its end within %v", stepTime(now.step, o, most))
			return nil, &now, nil
		case <-interrupted:
			interrupted = nil
			c.stdin.Close()
			limit.Reset(cleaningTime)
		}
	}
}

// tellPIN sends the PIN, and wipes it here.
func (c *child) tellPIN(kept *keptPIN) error {
	pin, err := kept.read()
	if err != nil {
		return fmt.Errorf("read the PIN: %w", err)
	}
	defer clear(pin)
	line := append(hex.AppendEncode(nil, pin), '\n')
	defer clear(line)
	_, err = c.stdin.Write(line)
	return err
}

// beginning keeps the beginning of what is written to it.
type beginning struct{ b bytes.Buffer }

func (b *beginning) Write(p []byte) (int, error) {
	if room := 4096 - b.b.Len(); room > 0 {
		b.b.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

// line returns the first line that says something.
func (b *beginning) line() string {
	for line := range strings.Lines(b.b.String()) {
		if line = strings.TrimSpace(line); line != "" {
			return printable(line)
		}
	}
	return ""
}

// measureInChild is the child.
func measureInChild(ctx context.Context) error {
	hardenProcess(newLogger(io.Discard, "error"))
	answers := os.NewFile(3, "answers")
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return misuse("--in-child is for strongroom itself")
	}
	var request childRequest
	if err := json.Unmarshal(line, &request); err != nil {
		return misuse("--in-child is for strongroom itself")
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	lines := make(chan []byte)
	go func() { // ends with the process
		for {
			line, err := in.ReadBytes('\n')
			if err != nil {
				stop()
				time.Sleep(cleaningTime)
				os.Exit(1) // the library does not return, and must not keep the token's directory locked
			}
			lines <- line
		}
	}()
	say := func(e childEvent) error {
		b, err := json.Marshal(e)
		if err == nil {
			_, err = answers.Write(append(b, '\n'))
		}
		if err != nil {
			stop()
		}
		return err
	}
	config := pkcs11.Config{Module: request.Module, InitArgs: request.InitArgs, Label: request.Label, Serial: request.Serial, SyncDir: request.SyncDir, PINUncertain: func() bool { return request.Uncertain }, PIN: func() ([]byte, error) {
		if err := say(childEvent{PIN: true}); err != nil {
			return nil, err
		}
		select {
		case line := <-lines:
			defer clear(line)
			return hex.AppendDecode(nil, bytes.TrimSuffix(line, []byte("\n")))
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}
	request.Options.Progress = func(r *pkcs11.Report, step string) { _ = say(childEvent{Step: step, Report: r}) }
	r, err := pkcs11.Measure(ctx, config, request.Options)
	e := childEvent{Done: true, Report: r}
	if err != nil {
		e.Error, e.NoPIN, e.Wrong = err.Error(), errors.Is(err, pkcs11.ErrPIN), errors.Is(err, pkcs11.ErrPINWrong)
	}
	if err == context.Canceled { // and nothing else, such as that something is left
		e.Error = "interrupted; what was made on the token is destroyed"
	}
	return say(e)
}
