package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// pairRows is what is measured of RSA key pairs: by -ops, like operations.
const (
	fullRow   = "RSA pairs from a full pool"
	cpuRow    = "CPU of RSA pairs"
	besideRow = "Decrypt beside searches"
)

// A pairReport is what is measured of RSA key pairs.
type pairReport struct {
	Full   []pooled `json:"full,omitempty"`
	Fill   float64  `json:"fillSeconds,omitempty"` // of the pool, from the start of the server
	CPU    *cost    `json:"cpu,omitempty"`
	Alone  *rate    `json:"decryptAlone,omitempty"`
	Beside *rate    `json:"decryptBeside,omitempty"`
	Ratio  float64  `json:"decryptRatio,omitempty"` // of the p99
	Made   float64  `json:"madeBeside,omitempty"`   // RSA_4096 pairs a second meanwhile
}

// A pooled is how fast ready pairs of a spec are.
type pooled struct {
	Spec string `json:"spec"`
	rate
	Misses int `json:"misses"`
}

// A cost is what a pair takes of processors.
type cost struct {
	Spec   string  `json:"spec"`
	Served float64 `json:"servedMillis"`
	Bare   float64 `json:"bareMillis"` // of crypto/rsa alone
	Ratio  float64 `json:"ratio"`
	Pairs  int     `json:"pairs"`
}

const (
	poolSize   = 16 // of each spec; three quarters are for one principal
	fullRounds = 3
	fillWithin = 10 * time.Minute

	costSpec    = "RSA_2048"
	costBits    = 2048
	costPairs   = 40 // in a round: how long a search takes is luck
	costRounds  = 4
	costClients = 4

	besideClients  = 8
	besideSearches = 32
	besideRounds   = 3
)

// measurePairs measures what matches.
func measurePairs(ctx context.Context, program, dir string, match *regexp.Regexp, length time.Duration) (*pairReport, error) {
	r := &pairReport{}
	if match.MatchString(fullRow) {
		if err := r.measureFull(ctx, program, filepath.Join(dir, "pool")); err != nil {
			return nil, fmt.Errorf("%s: %w", fullRow, err)
		}
	}
	if !match.MatchString(cpuRow) && !match.MatchString(besideRow) {
		return r, nil
	}
	s, key, err := startDev(ctx, program, filepath.Join(dir, "empty"))
	if err != nil {
		return nil, err
	}
	defer s.stop()
	ops, err := prepare(s.address, key, regexp.MustCompile(`^(Decrypt|GenerateDataKeyPair RSA_(2048|4096))$`))
	if err != nil {
		return nil, err
	}
	decrypt, rsa2048, rsa4096 := ops[0], ops[1], ops[2]
	if match.MatchString(cpuRow) {
		if err := r.measureCPU(ctx, s, key, rsa2048); err != nil {
			return nil, fmt.Errorf("%s: %w", cpuRow, err)
		}
	}
	if match.MatchString(besideRow) {
		if err := r.measureBeside(ctx, s, key, decrypt, rsa4096, length); err != nil {
			return nil, fmt.Errorf("%s: %w", besideRow, err)
		}
	}
	return r, nil
}

// measureFull asks for one pair after another, fewer than there are ready, each time that all are.
func (r *pairReport) measureFull(ctx context.Context, program, dir string) error {
	began := time.Now()
	s, key, err := startDev(ctx, program, dir, "--pool", strconv.Itoa(poolSize), "--metrics", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer s.stop()
	fill := func() error {
		for deadline := time.Now().Add(fillWithin); ; time.Sleep(200 * time.Millisecond) {
			ready, err := s.samples("strongroom_pool_ready")
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(ready, func(n float64) bool { return n < poolSize }) {
				return nil
			}
			if time.Now().After(deadline) || ctx.Err() != nil {
				return fmt.Errorf("the pool has %v", ready)
			}
		}
	}
	if err := fill(); err != nil {
		return err
	}
	r.Fill = time.Since(began).Seconds()
	ops, err := prepare(s.address, key, regexp.MustCompile(`^GenerateDataKeyPair RSA`))
	if err != nil {
		return err
	}
	conns, err := dialAll(s.address, 1)
	if err != nil {
		return err
	}
	defer hangUp(conns)
	parts := make([][]slice, len(ops))
	before, err := s.samples("strongroom_pool_misses_total")
	if err != nil {
		return err
	}
	for range fullRounds {
		if err := fill(); err != nil {
			return err
		}
		for i, o := range ops {
			part, err := load(ctx, conns, key.request(s.address, "/", o.target, o.body), o.size, o.size/20+16, poolSize/2, 0)
			if err != nil {
				return err
			}
			parts[i] = append(parts[i], part)
		}
	}
	after, err := s.samples("strongroom_pool_misses_total")
	if err != nil {
		return err
	}
	for i, o := range ops {
		r.Full = append(r.Full, pooled{strings.TrimPrefix(o.name, "GenerateDataKeyPair "), summarize(parts[i]), int(after[i] - before[i])})
	}
	return nil
}

// measureCPU compares what the server and its processes take for a pair with what crypto/rsa takes alone, in turns.
func (r *pairReport) measureCPU(ctx context.Context, s *server, key accessKey, o *op) error {
	conns, err := dialAll(s.address, costClients)
	if err != nil {
		return err
	}
	defer hangUp(conns)
	c := &cost{Spec: costSpec}
	bare := 0
	for range costRounds {
		before, err := s.cpu()
		if err != nil {
			return err
		}
		part, err := load(ctx, conns, key.request(s.address, "/", o.target, o.body), o.size, o.size/20+16, costPairs, 0)
		if err != nil {
			return err
		}
		after, err := s.cpu()
		if err != nil {
			return err
		}
		c.Served += after - before
		c.Pairs += len(part.latencies)
		took, err := bareCPU(ctx, costPairs)
		if err != nil {
			return err
		}
		c.Bare += took
		bare += costPairs
	}
	c.Served *= 1000 / float64(c.Pairs)
	c.Bare *= 1000 / float64(bare)
	c.Ratio = c.Served / c.Bare
	r.CPU = c
	return nil
}

// bareArg makes this program one that makes as many RSA keys as it is told.
const bareArg = "make-rsa"

func makeBare(n int) error {
	for range n {
		if _, err := rsa.GenerateKey(rand.Reader, costBits); err != nil {
			return err
		}
	}
	return nil
}

// bareCPU returns the seconds of a processor that n keys take, in a process of their own.
func bareCPU(ctx context.Context, n int) (float64, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, self, bareArg, strconv.Itoa(n))
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return 0, err
	}
	return (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), nil
}

// measureBeside compares Decrypt alone with Decrypt while many clients want RSA_4096 pairs, in turns.
func (r *pairReport) measureBeside(ctx context.Context, s *server, key accessKey, decrypt, pair *op, length time.Duration) error {
	conns, err := dialAll(s.address, besideClients)
	if err != nil {
		return err
	}
	defer hangUp(conns)
	var alone, beside []slice
	made := 0
	for range besideRounds {
		part, err := load(ctx, conns, key.request(s.address, "/", decrypt.target, decrypt.body), decrypt.size, decrypt.size/20+16, besideClients, length)
		if err != nil {
			return err
		}
		alone = append(alone, part)
		searching, stop := context.WithCancel(ctx)
		others, err := dialAll(s.address, besideSearches)
		if err != nil {
			stop()
			return err
		}
		var wg sync.WaitGroup
		for _, c := range others {
			c.SetDeadline(time.Time{})
			c.latencies = nil
			wg.Go(func() {
				for request := key.request(s.address, "/", pair.target, pair.body); searching.Err() == nil; {
					began := time.Now()
					if _, err := c.do(request); err != nil {
						return // it was hung up
					}
					c.latencies = append(c.latencies, time.Since(began))
				}
			})
		}
		time.Sleep(time.Second) // until all of them wait
		part, err = load(ctx, conns, key.request(s.address, "/", decrypt.target, decrypt.body), decrypt.size, decrypt.size/20+16, besideClients, length)
		stop()
		hangUp(others)
		wg.Wait()
		if err != nil {
			return err
		}
		for _, c := range others {
			made += len(c.latencies)
		}
		beside = append(beside, part)
		time.Sleep(2 * time.Second) // until what was begun has ended
	}
	a, b := summarize(alone), summarize(beside)
	r.Alone, r.Beside, r.Ratio = &a, &b, b.P99/a.P99
	r.Made = float64(made) / (besideRounds * (length + time.Second).Seconds())
	return nil
}

// cpu returns the seconds of a processor that the server and its processes have taken.
func (s *server) cpu() (float64, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	const tick = 100 // a second, on every Linux there is: sysconf(_SC_CLK_TCK)
	sum := 0.0
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		// proc(5): state ppid … utime stime cutime cstime
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		pid := filepath.Base(filepath.Dir(name))
		if server := strconv.Itoa(s.cmd.Process.Pid); pid != server && f[1] != server {
			continue
		}
		for _, field := range f[11:15] {
			n, err := strconv.ParseFloat(field, 64)
			if err != nil {
				return 0, err
			}
			sum += n / tick
		}
	}
	return sum, nil
}

// samples returns the values of a family of metrics with labels, in their order.
func (s *server) samples(family string) (values []float64, err error) {
	resp, err := http.Get(s.metrics)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(page)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "} "); ok && strings.HasPrefix(name, family+"{") {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return nil, err
			}
			values = append(values, v)
		}
	}
	if len(values) == 0 {
		return nil, fmt.Errorf("the server has no metrics %s", family)
	}
	return values, nil
}

func (r *pairReport) print(w io.Writer) {
	const row = "%-43s %7s  %8s %9s %9s  %s\n"
	f := func(v float64) string { return fmt.Sprintf("%.3f", v) }
	fmt.Fprintf(w, "\n"+row, "RSA key pairs", "", "requests", "p50 ms", "p99 ms", "")
	for _, p := range r.Full {
		fmt.Fprintf(w, row, "from a full pool, "+p.Spec, "1 cl.", strconv.Itoa(p.Requests), f(p.P50), f(p.P99), fmt.Sprintf("%d found nothing ready", p.Misses))
	}
	if r.Beside != nil {
		fmt.Fprintf(w, row, "Decrypt", fmt.Sprint(besideClients, " cl."), strconv.Itoa(r.Alone.Requests), f(r.Alone.P50), f(r.Alone.P99), "")
		fmt.Fprintf(w, row, fmt.Sprintf("Decrypt, and RSA_4096 for %d clients", besideSearches), fmt.Sprint(besideClients, " cl."),
			strconv.Itoa(r.Beside.Requests), f(r.Beside.P50), f(r.Beside.P99), fmt.Sprintf("p99 %.2f times as long; %.2f pairs/s", r.Ratio, r.Made))
	}
	if r.Fill > 0 {
		fmt.Fprintf(w, "A pool of %d pairs of each size was full %.1f s after the server was started.\n", poolSize, r.Fill)
	}
	if r.CPU != nil {
		fmt.Fprintf(w, "With no pool, %d pairs of %s took %.1f ms of a processor each, in all processes of the server; crypto/rsa alone took %.1f ms: %.3f times as much.\n",
			r.CPU.Pairs, r.CPU.Spec, r.CPU.Served, r.CPU.Bare, r.CPU.Ratio)
	}
}
