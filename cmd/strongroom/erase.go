package main

import (
	"context"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"strongroom/keyspec/secret"
)

// eraseEvery is how long what [secret.Do] leaves to the collector stays in memory, but for the time that it takes to collect: a few milliseconds of a processor,
// and more where many keys are remembered.
const eraseEvery = 10 * time.Second

// erase runs the collector, if anything was answered since the last time, until ctx ends. It runs by itself when memory is wanted; a server that has little to do
// might not want any for minutes.
func erase(ctx context.Context, answered *atomic.Bool) {
	if !secret.Erases {
		return
	}
	t := time.NewTicker(eraseEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if answered.Swap(false) {
			runtime.GC()
		}
	}
}

// main begins on the thread that the process began with. Another one that begins a program anew takes the place of that, which others can see as
// the end of the process.
func init() { runtime.LockOSThread() }

// undisturbed begins the program anew, in the same process, with asyncpreemptoff=1 added to GODEBUG, unless that says something of it already. main calls it
// before anything is done.
//
// To have a thread do something else, such as help the collector, Go sends it a signal. The kernel then writes the registers of the thread into memory, and so
// does Go; and in the registers by which memory is copied and encrypted, parts of the last secret may still be. They would stay where they
// were written for as long as the thread gets no other signal. Nothing here computes for so long without a call that it would have to be interrupted. Processes
// that this one starts have the same environment.
func undisturbed() {
	const setting = "asyncpreemptoff="
	before := os.Getenv("GODEBUG")
	if strings.Contains(before, setting) {
		return
	}
	program, err := os.Executable()
	if err == nil {
		os.Setenv("GODEBUG", strings.TrimPrefix(before+","+setting+"1", ","))
		err = syscall.Exec(program, os.Args, os.Environ())
	}
	newLogger(os.Stderr, "warn").Warn("could not begin anew with GODEBUG="+setting+"1: parts of secrets may stay in memory for longer than they are needed", "err", err)
}
