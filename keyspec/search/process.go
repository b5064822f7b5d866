package search

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"strongroom/keyspec"
)

// A process is asked for one pair after the other, over a socket of packets. It is asked by the name of a spec, and answers with one packet:
//
//	0   1   1 for a pair, 0 for an error
//	1   2   length of the public key, big endian; 0 for an error
//	3       the public key, and then the private key; or the error's text
type process struct {
	cmd    *exec.Cmd
	socket *os.File
	said   said
	end    func() string // ends it, waits for that, and returns how it ended and what it said
}

const (
	answerHead = 1 + 2
	answerMax  = 8 << 10
)

func (p *Processes) start(k class) (*process, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("making a socket: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "socket")
	defer theirs.Close()
	unix.SetNonblock(fds[0], true) // so that Go's poller waits for it, and not a thread
	c := &process{socket: os.NewFile(uintptr(fds[0]), "socket")}
	c.cmd = &exec.Cmd{
		Path:       p.config.Args[0],
		Args:       append(p.config.Args[:len(p.config.Args):len(p.config.Args)], string(k)),
		Env:        withCleanly(p.config.Env),
		Stdout:     &c.said,
		Stderr:     &c.said,
		ExtraFiles: []*os.File{theirs},
		SysProcAttr: &syscall.SysProcAttr{
			Pdeathsig: syscall.SIGKILL,
			Setpgid:   true, // Ctrl-C on the terminal is for the server, which still wants its pairs
		},
	}
	if err := p.spawner.start(c.cmd); err != nil {
		c.socket.Close()
		return nil, fmt.Errorf("starting a process: %w", err)
	}
	c.end = sync.OnceValue(func() string {
		c.cmd.Process.Kill()
		c.socket.Close()
		c.cmd.Wait()
		return strings.TrimSpace(c.cmd.ProcessState.String() + " " + c.said.String())
	})
	return c, nil
}

func (c *process) pid() int { return c.cmd.Process.Pid }

// generate asks for a pair. After an error the process is of no use.
func (c *process) generate(ctx context.Context, s keyspec.Spec) (*keyspec.Pair, error) {
	defer context.AfterFunc(ctx, func() { c.cmd.Process.Kill() })()
	if _, err := c.socket.Write([]byte(s.String())); err != nil {
		return nil, err
	}
	answer := make([]byte, answerMax)
	defer clear(answer)
	n, err := c.socket.Read(answer)
	if err != nil {
		return nil, err
	}
	if n < answerHead {
		return nil, errAnswer
	}
	rest, public := answer[answerHead:n], int(binary.BigEndian.Uint16(answer[1:]))
	if answer[0] == 0 {
		return nil, fmt.Errorf("it says: %s", rest)
	}
	if public == 0 || public >= len(rest) {
		return nil, errAnswer
	}
	return &keyspec.Pair{Spec: s, Public: bytes.Clone(rest[:public]), Private: bytes.Clone(rest[public:])}, nil
}

// A said keeps the beginning of what a process prints: Go's messages, when it crashes.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

const saidMax = 4 << 10

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.b.Write(b[:min(len(b), saidMax-s.b.Len())])
	return len(b), nil
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
