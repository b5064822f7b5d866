package worker

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// A pin keeps the PIN for workers that are started later: on a page of memory of its own that is not swapped to disk and not part of a core dump, as far as
// the system allows it.
type pin struct {
	ask func() ([]byte, error)

	mu   sync.Mutex
	page []byte // of the system, not of Go
	n    int    // length of the PIN; 0 if it was not asked for yet
}

func newPIN(ask func() ([]byte, error)) *pin { return &pin{ask: ask} }

// get returns a copy of the PIN, which the caller wipes.
func (p *pin) get() ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n == 0 {
		if err := p.keep(); err != nil {
			return nil, err
		}
	}
	return append([]byte(nil), p.page[:p.n]...), nil
}

func (p *pin) keep() error {
	b, err := p.ask()
	if err != nil {
		return fmt.Errorf("reading the PIN: %w", err)
	}
	defer clear(b)
	page, err := unix.Mmap(-1, 0, max(unix.Getpagesize(), len(b)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("memory for the PIN: %w", err)
	}
	unix.Mlock(page)
	unix.Madvise(page, unix.MADV_DONTDUMP)
	unix.Madvise(page, unix.MADV_DONTFORK)
	p.page, p.n = page, copy(page, b)
	return nil
}

// wipe forgets the PIN.
func (p *pin) wipe() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.page != nil {
		clear(p.page)
		unix.Munmap(p.page)
	}
	p.page, p.n = nil, 0
}
