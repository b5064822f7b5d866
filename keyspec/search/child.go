package search

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"strongroom/keyspec"
	"strongroom/keyspec/secret"
)

// socket is the process's end, the first file descriptor after the standard ones.
const socket = 3

// cleanly is the GODEBUG of a process that does nothing but what is to leave nothing behind, and collects its garbage after it. Go then overwrites all that
// it frees, leaves no stack behind for a smaller one, and interrupts no thread by a signal, for which the kernel writes its registers into memory.
// It follows what GODEBUG says besides, such as that FIPS 140 is wanted.
const cleanly = "clobberfree=1,gcshrinkstackoff=1,asyncpreemptoff=1"

// withCleanly returns an environment with that GODEBUG.
func withCleanly(env []string) []string {
	value := cleanly
	for _, v := range env {
		if before, ok := strings.CutPrefix(v, "GODEBUG="); ok && before != "" {
			value = before + "," + cleanly
		}
	}
	return append(slices.Clone(env), "GODEBUG="+value) // the last counts
}

// Main is the whole of a process that searches: it makes the pairs that it is asked for, and returns the process's exit code when the server is gone or
// wants no more. A program that makes [Processes] must call Main, before anything else, when its first argument is [Argument]; name is
// its second.
func Main(name string) int {
	if err := stepBack(class(name)); err != nil {
		fmt.Fprintln(os.Stderr, "taking what others leave:", err) // and go on: pairs are wanted
	}
	if err := harden(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if strings.HasSuffix(os.Getenv("GODEBUG"), cleanly) {
		secret.Overwritten()
	}
	// One thread that searches, and a heap of a few megabytes, which need not be collected all the time.
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(400)
	unix.CloseOnExec(socket)
	asked := make([]byte, 64)
	for {
		n, err := unix.Read(socket, asked)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return 0 // the server is gone
		}
		secret.Do(func() {
			answer := answerTo(string(asked[:n]))
			_, err = unix.Write(socket, answer)
			clear(answer)
		})
		if err != nil {
			return 0
		}
		runtime.GC() // which overwrites what the search has left, in a hundredth of the time that it took: see cleanly
	}
}

// answerTo makes a pair of the spec of a name, and the packet that has it.
func answerTo(name string) []byte {
	var pair *keyspec.Pair
	s, err := keyspec.Parse(name)
	if err == nil {
		pair, err = s.Generate()
	}
	if err != nil {
		return append([]byte{0, 0, 0}, err.Error()...)
	}
	defer pair.Wipe()
	answer := make([]byte, answerHead, answerHead+len(pair.Public)+len(pair.Private))
	answer[0] = 1
	binary.BigEndian.PutUint16(answer[1:], uint16(len(pair.Public)))
	return append(append(answer, pair.Public...), pair.Private...)
}

// harden makes the process die with the server, and keeps its memory to itself.
func harden() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("asking to die with the server: %w", err)
	}
	// Failures of these are told by the server of itself.
	unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	// Go reserves much more than it uses, so that a limit on what may be locked would be one on what it may reserve.
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err == nil && limit.Cur == unix.RLIM_INFINITY {
		unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
	}
	return nil
}

// steadyNice is about a tenth of what an ordinary process has, where both want a processor. idleNice has the time of a search counted as that of a nice
// process, by which [Processes.Room] and others tell it from other work.
const (
	steadyNice = 10
	idleNice   = 19
)

// slice is the longest that there is. It is not for itself that a search wants it, but for others: since Linux 6.12, what wakes up and wants a shorter one
// need not wait for the end of that which runs. SCHED_IDLE makes a thread give way to those of its own control group (or session, sched(7), "The autogroup
// feature") only; the group gives way to others, as to the kernel's threads that a sync to disk waits for, by the slices of its threads.
const slice = 100 * time.Millisecond

// stepBack puts all threads of the process behind those of others. Entering either class needs no privilege; leaving it does. The slice stays when the policy
// becomes SCHED_IDLE, with which it cannot be set.
func stepBack(k class) error {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_BATCH, Nice: steadyNice, Runtime: uint64(slice)}
	if k == idle {
		attr.Nice = idleNice
	}
	// A thread begins with the class of the one that makes it, so that when all have been seen, there will be no other.
	seen := make(map[int]bool)
	for again := true; again; {
		again = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil || seen[tid] {
				continue
			}
			seen[tid], again = true, true
			err = unix.SchedSetAttr(tid, &attr, 0)
			if k == idle && err == nil {
				err = unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
			}
			if err != nil && err != unix.ESRCH {
				// A filter of system calls may allow this one only.
				if unix.Setpriority(unix.PRIO_PROCESS, tid, 19) != nil {
					return err
				}
			}
		}
	}
	return nil
}
