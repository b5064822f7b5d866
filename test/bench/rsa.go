package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"os"
	"os/exec"
	"strconv"
)

// bareArg makes this program one that makes RSA keys: of how many bits, and how many, follows.
const bareArg = "make-rsa"

func makeBare(bits, n int) error {
	for range n {
		if _, err := rsa.GenerateKey(rand.Reader, bits); err != nil {
			return err
		}
	}
	return nil
}

// bareRSA returns the milliseconds of a processor that a key takes in crypto/rsa, of n in a process of their own.
func bareRSA(ctx context.Context, bits, n int) (float64, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	ms, err := cpuOf(exec.CommandContext(ctx, self, bareArg, strconv.Itoa(bits), strconv.Itoa(n)))
	return ms / float64(n), err
}

// cpuOf runs a command and returns the milliseconds of a processor that it took.
func cpuOf(cmd *exec.Cmd) (float64, error) {
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w", cmd.Args[0], err)
	}
	return (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds() * 1000, nil
}

// measureRSA compares what a key takes of one processor in crypto/rsa and in OpenSSL, in turns. What another implementation must be for it to be worth a look is 1.3
// times faster.
func (b *bench) measureRSA(ctx context.Context) error {
	for _, size := range []struct{ bits, keys int }{{2048, 30}, {3072, 12}, {4096, 6}} {
		r := &row{Name: fmt.Sprintf("crypto/rsa, CPU of a key, RSA_%d", size.bits), Unit: millis, Against: "openssl genrsa", Bars: atMost(1.3), luck: true}
		for range b.choose(2, 6) {
			ours, err := bareRSA(ctx, size.bits, size.keys)
			if err != nil {
				return err
			}
			theirs := 0.0
			for range size.keys {
				// A process a key, less what a process takes that makes none.
				key, err := cpuOf(exec.CommandContext(ctx, "openssl", "genrsa", "-out", os.DevNull, strconv.Itoa(size.bits)))
				if err != nil {
					return err
				}
				none, err := cpuOf(exec.CommandContext(ctx, "openssl", "rand", "-out", os.DevNull, "16"))
				if err != nil {
					return err
				}
				theirs += (key - none) / float64(size.keys)
			}
			r.Samples = append(r.Samples, sample{Requests: size.keys, Value: ours, Other: theirs, Ratio: ours / theirs})
		}
		b.add(r)
	}
	return nil
}
