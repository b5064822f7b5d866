package worker

import (
	"cmp"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A parked is a socket whose reader waits in Go's poller, and not on a thread.
//
// A read that takes a thread is the quickest, if it is short. But it keeps the thread's processor (in the sense of GOMAXPROCS) until the runtime's monitor takes
// it away, after up to 10 ms: where a token takes longer than that over a call, a few calls have all processors, and what could be done meanwhile
// waits. On a token with 5 ms a call, one request in a hundred took two or three times as long for that.
type parked struct {
	file *os.File
	conn syscall.RawConn
}

// park has reads of the lane's socket wait in the poller from now on.
func (l *lane) park() error {
	if err := unix.SetNonblock(int(l.socket), true); err != nil {
		return err
	}
	f := os.NewFile(uintptr(l.socket), "lane")
	conn, err := f.SyscallConn()
	l.parked = &parked{f, conn}
	return cmp.Or(err, f.SetReadDeadline(time.Time{})) // which is an error if the poller did not take it
}

// read reads what there is, or waits for it.
func (p *parked) read(b []byte) (n int, err error) {
	gone := p.conn.Read(func(fd uintptr) bool {
		n, err = unix.Read(int(fd), b)
		return err != unix.EAGAIN
	})
	if gone != nil {
		return 0, gone
	}
	return n, err
}

// close closes the lane's socket.
func (l *lane) close() {
	if l.parked != nil {
		l.parked.file.Close() // which owns it
		return
	}
	l.socket.close()
}
