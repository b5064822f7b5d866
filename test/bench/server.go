package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

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

// startDev starts the program under test with what env adds to the environment, and returns the access key that it made.
func startDev(ctx context.Context, program, dir string, env []string, flags ...string) (*server, accessKey, error) {
	var key accessKey
	metrics := ""
	cmd := exec.Command(program, append([]string{"dev", "--dir", dir, "--json"}, flags...)...)
	cmd.Env = append(os.Environ(), env...)
	s, err := start(cmd, func(stdout *bufio.Reader) (string, error) {
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

// startEmpty starts the empty server, whose durable writes go to a file in dir.
func startEmpty(dir string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return start(exec.Command(self, emptyServerArg, filepath.Join(dir, "records")), func(stdout *bufio.Reader) (string, error) {
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

// family calls f with each process of the server, itself included, and its fields of proc(5), from "state" on.
func (s *server) family(f func(pid string, stat []string) error) error {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return err
	}
	server := strconv.Itoa(s.cmd.Process.Pid)
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		stat := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if pid := filepath.Base(filepath.Dir(name)); pid == server || stat[1] == server {
			if err := f(pid, stat); err != nil {
				return err
			}
		}
	}
	return nil
}

// rss returns how much memory the server and its processes have in use, in megabytes. What they share counts in each.
func (s *server) rss() (sum float64, err error) {
	err = s.family(func(_ string, stat []string) error {
		pages, err := strconv.Atoi(stat[21])
		sum += float64(pages*os.Getpagesize()) / 1e6
		return err
	})
	return sum, err
}

// cpu returns the seconds of a processor that the server and its processes have taken.
func (s *server) cpu() (sum float64, err error) {
	const tick = 100 // a second, on every Linux there is: sysconf(_SC_CLK_TCK)
	err = s.family(func(_ string, stat []string) error {
		for _, field := range stat[11:15] { // utime stime cutime cstime
			n, err := strconv.ParseFloat(field, 64)
			if err != nil {
				return err
			}
			sum += n / tick
		}
		return nil
	})
	return sum, err
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
