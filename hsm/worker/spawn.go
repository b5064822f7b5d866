package worker

import (
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// A spawner starts workers, on one thread that does nothing else and that lasts as long as they do. The thread lasts, because the kernel tells a
// child of the end of the thread that started it (prctl(2), PR_SET_PDEATHSIG). It does nothing else, because it gives up, for itself and so for
// its children, what a worker does not need: a child begins with what the thread that starts it has.
type spawner struct {
	starts chan *exec.Cmd
	errs   chan error
}

func newSpawner() *spawner {
	s := &spawner{make(chan *exec.Cmd), make(chan error)}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		giveUpPrivileges()
		for cmd := range s.starts {
			s.errs <- cmd.Start()
		}
	}()
	return s
}

// start starts a command. One goroutine at a time calls it.
func (s *spawner) start(cmd *exec.Cmd) error {
	s.starts <- cmd
	return <-s.errs
}

func (s *spawner) close() { close(s.starts) }

// kept are the capabilities that a module may need where strongroom runs as root: to reach the files of a token that belong to somebody else, and to
// lock memory. All others are taken out of the bounding set, so that no worker can ever have them (capabilities(7)).
var kept = map[uintptr]bool{
	unix.CAP_CHOWN: true, unix.CAP_DAC_OVERRIDE: true, unix.CAP_DAC_READ_SEARCH: true, unix.CAP_FOWNER: true, unix.CAP_IPC_LOCK: true,
}

// giveUpPrivileges gives up, for this thread, what a worker does not need. Who is not privileged may not change the bounding set and has nothing in it,
// so that failures do not matter, but for what a service manager may have handed down. No program that a worker starts gets more by being setuid.
func giveUpPrivileges() {
	unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if !kept[c] {
			unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		}
	}
	unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}
