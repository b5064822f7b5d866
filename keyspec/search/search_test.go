package search

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strongroom/keyspec"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == Argument {
		os.Exit(Main(os.Args[2]))
	}
	os.Exit(m.Run())
}

func newProcesses(t *testing.T, c Config) (*Processes, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	c.Log = slog.New(slog.NewTextHandler(&log, nil))
	p := New(c)
	t.Cleanup(p.Close)
	return p, &log
}

// pids returns the processes that run. It must not be called while one is asked for a pair.
func (p *Processes) pids(k class) (pids []int) {
	seats := p.seats[k]
	for range cap(seats) {
		at := <-seats
		if at.process != nil {
			pids = append(pids, at.process.pid())
		}
		seats <- at
	}
	return pids
}

func TestPairsOfEachSpec(t *testing.T) {
	p, _ := newProcesses(t, Config{Processes: 1})
	for i, s := range keyspec.All() {
		pair, err := p.Generate(t.Context(), s, keyspec.Urgency(i%3))
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		if err := keyspec.Prove(s, pair.Public, pair.Private); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	if s := p.Stats(); s != (Stats{Running: 2}) {
		t.Errorf("%+v", s)
	}
}

// Every thread of a process is behind those of others, also those that it makes while it works; and the process has no privileges.
func TestClasses(t *testing.T) {
	p, _ := newProcesses(t, Config{Processes: 2, Env: []string{"GODEBUG=fips140=on"}})
	for k, u := range map[class]keyspec.Urgency{idle: keyspec.Ahead, steady: keyspec.Overdue} {
		for range 3 {
			if _, err := p.Generate(t.Context(), keyspec.RSA2048, u); err != nil {
				t.Fatal(err)
			}
		}
		pids := p.pids(k)
		if len(pids) == 0 {
			t.Fatalf("no process is %s", k)
		}
		for _, pid := range pids {
			tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
			if err != nil {
				t.Fatal(err)
			}
			for _, task := range tasks {
				var tid int
				fmt.Sscan(task.Name(), &tid)
				attr, err := unix.SchedGetAttr(tid, 0)
				if err != nil {
					t.Fatal(err)
				}
				if k == idle && attr.Policy != unix.SCHED_IDLE || k == steady && (attr.Policy != unix.SCHED_BATCH || attr.Nice != steadyNice) {
					t.Errorf("%s: a thread has policy %d, nice %d", k, attr.Policy, attr.Nice)
				}
			}
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"CapBnd:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"} {
				// Only who is privileged can take from the bounding set.
				if !strings.Contains(string(status), want) && (os.Getuid() == 0 || !strings.HasPrefix(want, "CapBnd")) {
					t.Errorf("%s: its status has not %q", k, want)
				}
			}
			if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); err == nil && string(b) != "GODEBUG=fips140=on,"+cleanly+"\x00" {
				t.Errorf("%s: it has the environment %q", k, b)
			}
		}
	}
}

// Processes that are killed at any moment are replaced, nobody sees an error, and no pair comes twice.
func TestKilled(t *testing.T) {
	p, _ := newProcesses(t, Config{Processes: 3})
	var (
		mu   sync.Mutex
		seen = make(map[string]bool)
		wg   sync.WaitGroup
	)
	ctx, stop := context.WithCancel(t.Context())
	for range 3 {
		wg.Go(func() {
			for ctx.Err() == nil {
				pair, err := p.Generate(t.Context(), keyspec.P384, keyspec.Wanted)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if seen[string(pair.Public)] {
					t.Error("a pair came twice")
				}
				seen[string(pair.Public)] = true
				mu.Unlock()
			}
		})
	}
	for range 20 {
		time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
		select {
		case at := <-p.seats[idle]: // one that is asked for nothing at the moment
			if at.process != nil {
				at.process.cmd.Process.Kill()
			}
			p.seats[idle] <- at
		case <-time.After(time.Second):
		}
		for _, pid := range children(t) {
			if rand.IntN(3) == 0 {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
	stop()
	wg.Wait()
	if p.Stats().Ended == 0 || len(seen) == 0 {
		t.Errorf("%+v, %d pairs", p.Stats(), len(seen))
	}
}

// children returns the processes that this one has started.
func children(t *testing.T) (pids []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		var state string
		var parent, pid int
		fmt.Sscan(string(stat[bytes.LastIndexByte(stat, ')')+1:]), &state, &parent)
		if fmt.Sscan(e.Name(), &pid); parent == os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Where nothing can be started, what somebody waits for is made here.
func TestNoProcesses(t *testing.T) {
	for _, args := range [][]string{{"/nonexistent"}, {"/bin/false"}} {
		p, log := newProcesses(t, Config{Processes: 1, Args: args})
		if _, err := p.Generate(t.Context(), keyspec.RSA2048, keyspec.Ahead); err == nil {
			t.Error("a pair was made ahead, here")
		}
		for _, u := range []keyspec.Urgency{keyspec.Wanted, keyspec.Overdue} {
			pair, err := p.Generate(t.Context(), keyspec.RSA2048, u)
			if err != nil {
				t.Fatal(err)
			}
			if err := keyspec.Prove(keyspec.RSA2048, pair.Public, pair.Private); err != nil {
				t.Error(err)
			}
		}
		if s := p.Stats(); s.Running != 0 || s.Inside != 2 {
			t.Errorf("%+v", s)
		}
		if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
			t.Errorf("the log tells of %d errors:\n%s", n, log)
		}
	}
}

// A search that nobody wants any more is ended, whatever it is about.
func TestCancel(t *testing.T) {
	p, _ := newProcesses(t, Config{Processes: 1})
	if _, err := p.Generate(t.Context(), keyspec.Ed25519, keyspec.Wanted); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	for {
		_, err := p.Generate(ctx, keyspec.RSA4096, keyspec.Ahead)
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if s := p.Stats(); s.Ended != 0 {
		t.Errorf("%+v", s)
	}
}

func TestWithCleanly(t *testing.T) {
	for _, c := range []struct{ env, want []string }{
		{nil, []string{"GODEBUG=" + cleanly}},
		{[]string{"A=b", "GODEBUG="}, []string{"A=b", "GODEBUG=", "GODEBUG=" + cleanly}},
		{[]string{"GODEBUG=fips140=on"}, []string{"GODEBUG=fips140=on", "GODEBUG=fips140=on," + cleanly}},
	} {
		if got := withCleanly(c.env); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.env, got, c.want)
		}
	}
}
