// Bench measures how many requests a second `strongroom dev` answers and how long each takes, next to an HTTP server that answers nothing:
// same settings of net/http, same clients, same sizes, same minute. What the second server does not reach either is the cost of HTTP, of
// this machine and of the clients, which share its processors; the ratio is what is left of that when requests are checked, decided on and
// answered from a token.
//
// The two are measured in turns, A B A B, and medians are compared, because other things run on a machine too. Everything stays on loopback
// and in a temporary directory.
//
//	go run ./test/bench
//	go run ./test/bench -ops '^(Encrypt|Decrypt)$' -c 8 -seconds 5 -json
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == emptyServerArg {
		if err := serveNothing(); err != nil {
			fmt.Fprintln(os.Stderr, "bench: the empty server:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 3 && os.Args[1] == bareArg {
		n, err := strconv.Atoi(os.Args[2])
		if err == nil {
			err = makeBare(n)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench: bare key generation:", err)
			os.Exit(1)
		}
		return
	}
	plan, err := parsePlan(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = run(ctx, plan, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A plan is what the command line asks for.
type plan struct {
	seconds float64
	json    bool
	ops     *regexp.Regexp
	clients []int
}

const (
	maxSeconds = 120 // for one cell, in at least two slices: a signature is good for five minutes
	maxClients = 1024
)

func parsePlan(args []string) (*plan, error) {
	p := &plan{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.Float64Var(&p.seconds, "seconds", 1, "how long each server is asked for one cell; slow operations take longer")
	flags.BoolVar(&p.json, "json", false, "print JSON, to compare with another run's")
	ops := flags.String("ops", "", "only operations that match this regular expression, such as '^Encrypt$' or 'RSA_'")
	clients := flags.String("c", "1,8,32", "how many clients at once")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("no argument is taken: %q", flags.Arg(0))
	}
	if !(p.seconds > 0 && p.seconds <= maxSeconds) {
		return nil, fmt.Errorf("-seconds %v: more than 0 and at most %d", p.seconds, maxSeconds)
	}
	for s := range strings.SplitSeq(*clients, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n < 1 || n > maxClients {
			return nil, fmt.Errorf("-c %q: numbers from 1 to %d, with commas between", *clients, maxClients)
		}
		p.clients = append(p.clients, n)
	}
	var err error
	if p.ops, err = regexp.Compile(*ops); err != nil {
		return nil, fmt.Errorf("-ops: %w", err)
	}
	return p, nil
}

// run builds the program, starts both servers and measures cell after cell.
func run(ctx context.Context, p *plan, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "strongroom-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	program := filepath.Join(dir, "strongroom")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "strongroom/cmd/strongroom")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build strongroom: %w", err)
	}
	full, key, err := startDev(ctx, program, filepath.Join(dir, "rig"))
	if err != nil {
		return err
	}
	defer full.stop()
	empty, err := startEmpty()
	if err != nil {
		return err
	}
	defer empty.stop()

	ops, err := prepare(full.address, key, p.ops)
	if err != nil {
		return err
	}
	pairs := p.ops.MatchString(fullRow) || p.ops.MatchString(cpuRow) || p.ops.MatchString(besideRow)
	if len(ops) == 0 && !pairs {
		return fmt.Errorf("no operation matches %q", p.ops)
	}
	r := report{CPUs: runtime.NumCPU(), Go: runtime.Version(), Seconds: p.seconds, RSSBefore: full.rss()}
	if !p.json {
		r.printHead(out)
	}
	for _, o := range ops {
		for _, clients := range p.clients {
			c, err := measure(ctx, o, clients, time.Duration(p.seconds*float64(time.Second)), full.address, empty.address, key)
			if err != nil {
				return fmt.Errorf("%s, %d clients: %w", o.name, clients, err)
			}
			r.Cells = append(r.Cells, c)
			if !p.json {
				c.print(out)
			}
		}
	}
	r.RSSAfter = full.rss()
	if pairs {
		// The other servers have nothing to do meanwhile.
		r.Pairs, err = measurePairs(ctx, program, dir, p.ops, max(3*time.Second, time.Duration(p.seconds*float64(time.Second))))
		if err != nil {
			return err
		}
	}
	if p.json {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	r.printFoot(out)
	return nil
}

// A server is a child process that answers on address, "host:port".
type server struct {
	cmd     *exec.Cmd
	address string
	metrics string // URL, or empty
}

// start starts a program and waits for the one line, or JSON object, that it prints when it answers.
func start(cmd *exec.Cmd, ready func(*bufio.Reader) (address string, err error)) (*server, error) {
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{cmd: cmd}
	if s.address, err = ready(bufio.NewReader(stdout)); err != nil {
		s.stop()
		return nil, fmt.Errorf("start %s: %w", filepath.Base(cmd.Path), err)
	}
	return s, nil
}

// startDev starts the program under test, and returns the access key that it made.
func startDev(ctx context.Context, program, dir string, flags ...string) (*server, accessKey, error) {
	var key accessKey
	metrics := ""
	s, err := start(exec.Command(program, append([]string{"dev", "--dir", dir, "--json"}, flags...)...), func(stdout *bufio.Reader) (string, error) {
		var said struct{ Endpoint, Env, Metrics string }
		if err := json.NewDecoder(stdout).Decode(&said); err != nil {
			return "", fmt.Errorf("it did not say where it answers: %w", err)
		}
		metrics = said.Metrics
		env, err := os.ReadFile(said.Env)
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(env)) {
			switch name, value, _ := strings.Cut(strings.TrimSpace(line), "="); name {
			case "export AWS_ACCESS_KEY_ID":
				key.id = value
			case "export AWS_SECRET_ACCESS_KEY":
				key.secret = value
			case "export AWS_REGION":
				key.region = value
			}
		}
		address, ok := strings.CutPrefix(said.Endpoint, "http://")
		if !ok || key.id == "" || key.secret == "" || key.region == "" {
			return "", errors.New("its endpoint or its access key cannot be used")
		}
		return address, ctx.Err()
	})
	if err != nil {
		return nil, key, err
	}
	s.metrics = metrics
	return s, key, nil
}

func startEmpty() (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return start(exec.Command(self, emptyServerArg), func(stdout *bufio.Reader) (string, error) {
		line, err := stdout.ReadString('\n')
		return strings.TrimSpace(line), err
	})
}

// stop ends the process, the hard way if it does not hear.
func (s *server) stop() {
	s.cmd.Process.Signal(syscall.SIGTERM)
	hard := time.AfterFunc(10*time.Second, func() { s.cmd.Process.Kill() })
	defer hard.Stop()
	s.cmd.Wait()
}

// rss returns how much memory the process has in use, in bytes, 0 where that cannot be told.
func (s *server) rss() int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		var kilobytes int64
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kilobytes); n == 1 {
			return kilobytes << 10
		}
	}
	return 0
}
