package search

import (
	"os/exec"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// A spawner starts processes, on one thread that does nothing else and that lasts as long as they do. The thread lasts, because the kernel tells a
// child of the end of the thread that started it (prctl(2), PR_SET_PDEATHSIG). It does nothing else, because it gives up its privileges, and
// so those of its children, which begin with what the thread that starts them has.
type spawner struct {
	mu     sync.Mutex // held while one is started
	starts chan *exec.Cmd
	errs   chan error
}

func newSpawner() *spawner {
	s := &spawner{starts: make(chan *exec.Cmd), errs: make(chan error)}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		// Whoever is not privileged has nothing to give up, so that failures do not matter.
		for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
			unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		}
		unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		for cmd := range s.starts {
			s.errs <- cmd.Start()
		}
	}()
	return s
}

func (s *spawner) start(cmd *exec.Cmd) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starts <- cmd
	return <-s.errs
}

func (s *spawner) close() { close(s.starts) }
