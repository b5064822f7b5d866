package kms_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"strongroom/hsm"
	"strongroom/kms"
	"strongroom/store"
)

// These tests are about several processes that encrypt under one key. The test binary runs itself again as the others.

const sealerVariable = "STRONGROOM_KMS_TEST_SEALER"

// sealer is such a process: it encrypts under the key KEY in the store URL, whose materials may encrypt LIMIT times, until that is refused for a second, and
// writes a line for each ciphertext.
func sealer(args []string) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "sealer:", err)
		return 1
	}
	url, key := args[0], args[1]
	limit, err := strconv.ParseInt(args[2], 10, 64)
	if err != nil {
		return fail(err)
	}
	ctx := context.Background()
	db, err := store.Open(ctx, url)
	if err != nil {
		return fail(err)
	}
	defer db.Close()
	s, err := kms.New(ctx, kms.Options{
		Device: deadEnd{}, Store: db, Audit: new(recorder), Log: slog.New(slog.DiscardHandler), SealLimit: limit,
	})
	if err != nil {
		return fail(err)
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(running) }()

	io.WriteString(os.Stdout, "ready\n")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return fail(err)
	}
	for last := time.Now(); time.Since(last) < time.Second; {
		_, err := s.Encrypt(ctx, root, &kms.EncryptRequest{KeyID: key, Plaintext: []byte("x")})
		switch {
		case err == nil:
			last = time.Now()
			os.Stdout.WriteString("sealed\n")
		case errors.Is(err, kms.KeyUnavailable):
			time.Sleep(10 * time.Millisecond)
		default:
			return fail(err)
		}
	}
	stop()
	<-ended
	return 0
}

// deadEnd is a device that seals, after a fashion, and makes no keys: what is rotated stays pending.
type deadEnd struct{ hsm.Device }

func (deadEnd) Seal(_ context.Context, _ hsm.Ref, dst, plaintext, _ []byte) ([]byte, error) {
	return append(append(dst, make([]byte, hsm.Overhead)...), plaintext...), nil
}
func (deadEnd) Generate(context.Context, hsm.ID, string) (hsm.Ref, error) {
	return nil, hsm.ErrUnavailable
}
func (deadEnd) Destroy(context.Context, hsm.ID) error { return hsm.ErrUnavailable }

// A sealing is a process that runs sealer.
type sealing struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startSealer(t *testing.T, url, key string, limit int64) *sealing {
	t.Helper()
	cmd := exec.Command(os.Args[0], url, key, strconv.FormatInt(limit, 10))
	cmd.Env = append(os.Environ(), sealerVariable+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	p := &sealing{cmd, in, bufio.NewScanner(out)}
	if !p.out.Scan() || p.out.Text() != "ready" {
		t.Fatal("a process does not start")
	}
	return p
}

func (p *sealing) begin() { io.WriteString(p.in, "go\n") }

// count returns how many ciphertexts the process made until it ended.
func (p *sealing) count(t *testing.T) (n int64) {
	for p.out.Scan() {
		n++
	}
	if err := p.cmd.Wait(); err != nil {
		t.Error(err)
	}
	return n
}

// Two processes make as many ciphertexts together as one may.
func TestTwoProcessesShareALimit(t *testing.T) {
	r := newRig(t, nil)
	for _, limit := range []int64{97, 5000} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			key := r.newKey().KeyID
			a, b := startSealer(t, r.url, key, limit), startSealer(t, r.url, key, limit)
			a.begin()
			b.begin()
			counts := make(chan int64)
			go func() { counts <- a.count(t) }()
			go func() { counts <- b.count(t) }()
			x, y := <-counts, <-counts
			if x+y != limit {
				t.Errorf("%d and %d encryptions, want %d together", x, y, limit)
			}
			if got := r.uses(key)[0]; got != limit {
				t.Errorf("the store knows of %d, want %d", got, limit)
			}
			if got := r.materials(key); got != "C P" {
				t.Errorf("materials %s, want one rotation that is pending", got)
			}
			t.Logf("%d and %d", x, y)
		})
	}
}

// What a process had reserved when it was killed is lost, and never used by anybody.
func TestKilledProcessOverCounts(t *testing.T) {
	r := newRig(t, nil)
	key := r.newKey().KeyID
	const limit = 20_000
	total, lost := int64(0), int64(0)
	for round := range 5 {
		before := r.uses(key)[0]
		p := startSealer(t, r.url, key, limit)
		p.begin()
		made := int64(0)
		for range 200 + 500*round {
			if !p.out.Scan() {
				t.Fatal("a process ended by itself")
			}
			made++
		}
		p.cmd.Process.Signal(syscall.SIGKILL)
		for p.out.Scan() {
			made++
		}
		p.cmd.Wait()
		total += made
		reserved := r.uses(key)[0] - before
		if reserved < made {
			t.Errorf("round %d: %d encryptions and only %d reserved", round, made, reserved)
		}
		// What it held: a block of which half or more was used when the next was reserved, and that next.
		if over := reserved - made; over > 4*kms.FirstBlock+4*kms.FirstBlock {
			t.Errorf("round %d: %d encryptions count as %d", round, made, reserved)
		} else {
			lost += over
		}
	}
	p := startSealer(t, r.url, key, limit)
	p.begin()
	total += p.count(t)
	// One more may have been made in each process that was killed, whose line was not written.
	if total+lost < limit-5 || total+lost > limit {
		t.Errorf("%d encryptions and %d lost, want %d together", total, lost, limit)
	}
	if got := r.uses(key)[0]; got != limit {
		t.Errorf("the store knows of %d", got)
	}
	t.Logf("%d encryptions, %d lost with 5 processes", total, lost)
}
