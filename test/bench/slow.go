package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"strongroom/hsm"
	"strongroom/hsm/pkcs11"
	"strongroom/softhsm"
	"strongroom/softhsm/fault"

	p11 "github.com/miekg/pkcs11"
)

// The slow token is SoftHSM behind a module that makes each call for data, C_EncryptInit as well as C_Encrypt, this much slower. It
// has as many sessions as a server opens by default.
const (
	slowScript   = "on data delay 5"
	slowSessions = 16
	slowLeast    = 750 * time.Millisecond // of a round
)

// slowClients: as many as there are sessions, of which one is idle whenever a client is not in the token; and as many as keep all busy.
var slowClients = []int{16, 32}

// measureSlow compares a server on a slow token with a bare loop on the same one, which makes the same calls on as many sessions at once and does nothing else.
func (b *bench) measureSlow(ctx context.Context) (err error) {
	real, err := softhsm.Module()
	if err != nil {
		return err
	}
	dir := filepath.Join(b.dir, "slow")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	rig, err := fault.New(dir, real)
	if err != nil {
		return err
	}
	if err := rig.Set(slowScript); err != nil {
		return err
	}
	var env []string
	rig.Install(func(key, value string) { env = append(env, key+"="+value) })
	s, key, err := startDev(ctx, b.program, filepath.Join(dir, "rig"), env)
	if err != nil {
		return err
	}
	defer s.stop()
	ops, err := prepare(s.address, key, regexp.MustCompile(`^(Encrypt|Decrypt|GenerateDataKey)$`))
	if err != nil {
		return err
	}
	bare, err := startBare(filepath.Join(dir, "bare"), env)
	if err != nil {
		return err
	}
	defer bare.stop()
	for _, o := range ops {
		for _, clients := range slowClients {
			conns, err := dialAll(s.address, clients)
			if err != nil {
				return err
			}
			defer hangUp(conns)
			length := max(slowLeast, b.length/rounds)
			// Once unmeasured, so that every worker of the server has proved its handle.
			if _, err := s.of(o).ask(ctx, conns, key, o, clients, 0); err != nil {
				return err
			}
			var as, bs []slice
			for range rounds {
				part, err := s.of(o).ask(ctx, conns, key, o, clients, length)
				if err != nil {
					return err
				}
				as = append(as, part)
				if part, err = bare.loop(o.name, length); err != nil {
					return fmt.Errorf("the bare loop: %w", err)
				}
				bs = append(bs, part)
			}
			b.add(compare(o.name+", slow token", clients, as, "bare PKCS#11 loop", bs, atLeast(0.95)))
		}
	}
	return nil
}

// bareTokenArg makes this program a bare loop on the token in a directory, which follows. Each line of its input is the name of an operation and how long it is
// to be done; the answer is a line with what was done, in JSON.
const bareTokenArg = "loop-token"

// A bareLoop is that program.
type bareLoop struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startBare(dir string, env []string) (*bareLoop, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	l := &bareLoop{cmd: exec.Command(self, bareTokenArg, dir)}
	l.cmd.Env = append(os.Environ(), env...)
	l.cmd.Stderr = os.Stderr
	if l.in, err = l.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	l.out = bufio.NewReader(out)
	return l, l.cmd.Start()
}

func (l *bareLoop) stop() {
	l.in.Close()
	l.cmd.Wait()
}

// done is what the loop answers.
type done struct {
	Elapsed time.Duration
	Took    []time.Duration
}

func (l *bareLoop) loop(operation string, length time.Duration) (slice, error) {
	if _, err := fmt.Fprintln(l.in, operation, length.Milliseconds()); err != nil {
		return slice{}, err
	}
	line, err := l.out.ReadBytes('\n')
	if err != nil {
		return slice{}, err
	}
	var d done
	err = json.Unmarshal(line, &d)
	return slice{elapsed: d.Elapsed, latencies: d.Took}, err
}

// openSessions opens sessions for random bytes, in the library that is open in this process already: a token of ours has four for them.
func openSessions(module string) (*p11.Ctx, []p11.SessionHandle, error) {
	raw := p11.New(module)
	if raw == nil {
		return nil, nil, errors.New("cannot load " + module)
	}
	slots, err := raw.GetSlotList(true)
	var sessions []p11.SessionHandle
	for range slowSessions {
		if err != nil {
			break
		}
		var s p11.SessionHandle
		s, err = raw.OpenSession(slots[0], p11.CKF_SERIAL_SESSION)
		sessions = append(sessions, s)
	}
	return raw, sessions, err
}

// loopToken does what it reads on the token in dir, which it makes.
func loopToken(ctx context.Context, dir string, in io.Reader, out io.Writer) (err error) {
	c, err := softhsm.New(ctx, dir)
	if err != nil {
		return err
	}
	c.Sessions = slowSessions
	t, err := pkcs11.Init(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	var id hsm.ID
	rand.Read(id[:])
	ref, err := t.Generate(ctx, id, "strongroom/bench")
	if err != nil {
		return err
	}
	raw, sessions, err := openSessions(c.Module)
	if err != nil {
		return err
	}
	plaintext, aad := bytes.Repeat([]byte{0x42}, 32), bytes.Repeat([]byte{1}, 91) // as kms has it
	sealed, err := t.Seal(ctx, ref, nil, plaintext, aad)
	if err != nil {
		return err
	}
	seal := func(int) error {
		_, err := t.Seal(ctx, ref, make([]byte, 0, 64), plaintext, aad)
		return err
	}
	loops := map[string]func(int) error{
		"Encrypt": seal,
		"Decrypt": func(int) error {
			_, err := t.Open(ctx, ref, make([]byte, 0, 64), sealed, aad)
			return err
		},
		"GenerateDataKey": func(i int) error {
			_, err := raw.GenerateRandom(sessions[i], 32)
			return errors.Join(err, seal(i))
		},
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var name string
		var ms int64
		if _, err := fmt.Sscan(lines.Text(), &name, &ms); err != nil || loops[name] == nil {
			return errors.New(strconv.Quote(lines.Text()) + " cannot be done")
		}
		s, err := load(ctx, slowSessions, slowSessions, time.Duration(ms)*time.Millisecond, loops[name])
		if err != nil {
			return err
		}
		if err := json.NewEncoder(out).Encode(done{s.elapsed, s.latencies}); err != nil {
			return err
		}
	}
	return nil
}
