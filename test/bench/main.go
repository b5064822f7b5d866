// Bench measures what Strongroom costs, in one table: how fast `strongroom dev` answers, next to an HTTP server that answers nothing with the same settings of
// net/http, asked by the same clients for as many bytes; RSA pairs, ready and not; what they do to other work; a slow token, next to a bare loop over PKCS#11; the
// audit log on a disk, next to one in memory; memory; and the Go benchmarks of the parts of a request. What a figure is held against stands beside it.
//
// Figures come in ratios, because other things run on a machine too: two things are measured in turns, A B A B, and each round has its own ratio. Clients share
// the processors with the servers. Everything stays on loopback and in a temporary directory, and for one measure in /dev/shm.
//
//	go run ./test/bench                                  # eight minutes
//	go run ./test/bench -all -seconds 3 -go new.txt      # half an hour: what make bench does
//	go run ./test/bench -only operations -ops '^(Encrypt|Decrypt)$' -c 8 -seconds 5 -format json
//	go run golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da old.txt new.txt
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if ok, err := other(os.Args[1:]); ok {
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", os.Args[1], err)
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

// other does what this program does when it has started itself.
func other(args []string) (ok bool, err error) {
	switch {
	case len(args) == 2 && args[0] == emptyServerArg:
		return true, serveNothing(args[1])
	case len(args) == 2 && args[0] == bareTokenArg:
		return true, loopToken(context.Background(), args[1], os.Stdin, os.Stdout)
	case len(args) == 3 && args[0] == bareArg:
		bits, err := strconv.Atoi(args[1])
		n, err2 := strconv.Atoi(args[2])
		if err = errors.Join(err, err2); err == nil {
			err = makeBare(bits, n)
		}
		return true, err
	}
	return false, nil
}

// A plan is what the command line asks for.
type plan struct {
	seconds float64
	all     bool
	format  string
	goFile  string   // or empty
	only    []string // sections; all if empty
	ops     *regexp.Regexp
	clients []int

	scale   string // directory
	filling filling
}

const (
	maxSeconds = 120 // for one cell, in at least two slices: a signature is good for eight minutes
	maxClients = 1024
)

func parsePlan(args []string) (*plan, error) {
	p := &plan{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.Float64Var(&p.seconds, "seconds", 1, "how long each server is asked for one row; slow operations take longer")
	flags.BoolVar(&p.all, "all", false, "also what takes long: searches for primes, a million requests, more samples of what is luck")
	flags.StringVar(&p.format, "format", "text", "print the table as text, markdown, json, or go, which is for benchstat")
	flags.StringVar(&p.goFile, "go", "", "write it for benchstat to this file as well")
	only := flags.String("only", "", "only these `sections`, with commas between: "+strings.Join(sectionNames(), ", "))
	ops := flags.String("ops", "", "in the first of them, only operations that match this regular expression, such as '^Encrypt$' or 'RSA_'")
	clients := flags.String("c", "1,8,32", "how many clients at once, next to the empty server")
	flags.StringVar(&p.scale, "scale", "", "measure a server with a large store, and nothing else; the store stays in this `directory`, for the next time")
	flags.IntVar(&p.filling.Keys, "scale-keys", 1_000_000, "keys in the large store")
	flags.IntVar(&p.filling.Grants, "scale-grants", 10_000_000, "grants in the large store")
	flags.IntVar(&p.filling.Made, "scale-objects", 1_000, "objects in the token, which the keys share")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("no argument is taken: %q", flags.Arg(0))
	}
	if !(p.seconds > 0 && p.seconds <= maxSeconds) {
		return nil, fmt.Errorf("-seconds %v: more than 0 and at most %d", p.seconds, maxSeconds)
	}
	if printers[p.format] == nil {
		return nil, fmt.Errorf("-format %q is none of %s", p.format, strings.Join(slices.Sorted(maps.Keys(printers)), ", "))
	}
	for s := range strings.SplitSeq(*clients, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n < 1 || n > maxClients {
			return nil, fmt.Errorf("-c %q: numbers from 1 to %d, with commas between", *clients, maxClients)
		}
		p.clients = append(p.clients, n)
	}
	if *only != "" {
		p.only = strings.Split(*only, ",")
	}
	for _, name := range p.only {
		if !slices.Contains(sectionNames(), name) {
			return nil, fmt.Errorf("-only %s: there are %s", name, strings.Join(sectionNames(), ", "))
		}
	}
	if *ops == "" && !p.all {
		*ops = "crypt$|Key$|ECC|SM2" // RSA pairs without a pool have a row of their own
	}
	var err error
	if p.ops, err = regexp.Compile(*ops); err != nil {
		return nil, fmt.Errorf("-ops: %w", err)
	}
	return p, nil
}

// A bench is a run.
type bench struct {
	*plan
	report
	dir     string // for everything that is made
	program string // under test
	empty   *server
	length  time.Duration // for each of the two of a row
}

// choose returns how much of something there is to be.
func (b *bench) choose(short, long int) int {
	if b.all {
		return long
	}
	return short
}

// add settles a row and keeps it, and tells who waits.
func (b *bench) add(r *row) {
	r.settle()
	b.Rows = append(b.Rows, r)
	fmt.Fprintln(os.Stderr, strings.Join(slices.DeleteFunc(r.cells(), func(c string) bool { return c == "" }), "  "))
}

// sections are what is measured, in the order of the table.
var sections = []struct {
	name    string
	measure func(*bench, context.Context) error
}{
	{"operations", (*bench).measureOps},
	{"stock", (*bench).measureStock},
	{"audit", (*bench).measureAudit},
	{"pool", (*bench).measureFull},
	{"cpu", (*bench).measureCPU},
	{"beside", (*bench).measureBeside},
	{"slow", (*bench).measureSlow},
	{"memory", (*bench).measureMemory},
	{"rsa", (*bench).measureRSA},
	{"parts", (*bench).measureParts},
}

func sectionNames() (names []string) {
	for _, s := range sections {
		names = append(names, s.name)
	}
	return names
}

// run builds the program, starts the empty server and measures section after section.
func run(ctx context.Context, p *plan, out io.Writer) (err error) {
	b := &bench{plan: p, length: time.Duration(p.seconds * float64(time.Second))}
	if b.dir, err = os.MkdirTemp("", "strongroom-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	b.program = filepath.Join(b.dir, "strongroom")
	build := exec.CommandContext(ctx, "go", "build", "-o", b.program, "strongroom/cmd/strongroom")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build strongroom: %w", err)
	}
	if p.scale != "" {
		return measureScale(ctx, b.program, p, out)
	}
	if b.empty, err = startEmpty(b.dir); err != nil {
		return err
	}
	defer b.empty.stop()
	b.About = about(ctx)
	if err := b.measureDisk(); err != nil {
		return err
	}
	for _, s := range sections {
		if len(p.only) > 0 && !slices.Contains(p.only, s.name) {
			continue
		}
		if err := s.measure(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if p.goFile != "" {
		f, err := os.Create(p.goFile)
		if err != nil {
			return err
		}
		if err := errors.Join(b.golang(f), f.Close()); err != nil {
			return err
		}
	}
	return printers[p.format](&b.report, out)
}
