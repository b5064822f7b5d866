package test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// A search looks for pieces of secrets in the memory of a process, at every address. A piece is pieceSize bytes: all of an AES-128 key, half of an AES-256 key
// or of a scalar, and of what is longer any stretch of three pieces or more holds one that is looked for.
type search struct {
	pieces map[uint64][]piece // by their first 8 bytes
	filter []uint64           // a bit for each hash of such 8 bytes: most of memory is passed over by a look at it
}

const (
	pieceSize  = 16
	pieceEvery = 8
	filterBits = 22
)

type piece struct {
	bytes  [pieceSize]byte
	secret int
	form   string
}

func newSearch() *search {
	return &search{pieces: make(map[uint64][]piece), filter: make([]uint64, 1<<filterBits/64)}
}

func filterBit(first uint64) uint64 { return first * 0x9e3779b97f4a7c15 >> (64 - filterBits) }

// add has all pieces of b looked for, which is a form of a secret, and at least pieceSize bytes long.
func (s *search) add(secret int, form string, b []byte) {
	for at := 0; ; at += pieceEvery {
		at = min(at, len(b)-pieceSize)
		p := piece{bytes: [pieceSize]byte(b[at:]), secret: secret, form: form}
		first := binary.LittleEndian.Uint64(p.bytes[:])
		s.pieces[first] = append(s.pieces[first], p)
		bit := filterBit(first)
		s.filter[bit/64] |= 1 << (bit % 64)
		if at == len(b)-pieceSize {
			return
		}
	}
}

// A find is a piece of a secret in the memory of a process.
type find struct {
	piece
	process string
	mapping mapping
	address uint64
	around  []byte // what is in memory before it and after it, for whoever looks for its origin
}

// in returns what is found in memory that begins at an address.
func (s *search) in(memory []byte, address uint64) (finds []find) {
	for at := s.next(memory, 0); at >= 0; at = s.next(memory, at+1) {
		for _, p := range s.pieces[binary.LittleEndian.Uint64(memory[at:])] {
			if bytes.Equal(p.bytes[:], memory[at:at+pieceSize]) {
				around := bytes.Clone(memory[max(0, at-64):min(len(memory), at+pieceSize+64)])
				finds = append(finds, find{piece: p, address: address + uint64(at), around: around})
			}
		}
	}
	return finds
}

// next returns where in memory, at the earliest at a place, there may be a piece, or -1. The race detector, which would take most of a minute for a gigabyte,
// need not look at it.
//
//go:norace
func (s *search) next(memory []byte, at int) int {
	for ; at <= len(memory)-pieceSize; at++ {
		bit := filterBit(binary.LittleEndian.Uint64(memory[at:]))
		if s.filter[bit/64]&(1<<(bit%64)) != 0 {
			return at
		}
	}
	return -1
}

// process returns what is found in all memory of a process that it can write to, and how much that is.
func (s *search) process(t testing.TB, name string, pid int) (finds []find, size int) {
	t.Helper()
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	var buf []byte
	for _, m := range mappingsOf(t, pid) {
		if !strings.HasPrefix(m.rights, "rw") || raced() && m.to-m.from > 4<<30 { // the race detector has terabytes, with nothing of the program in them
			continue
		}
		// In parts, since Go reserves much more than it uses; one that was never used reads as zeros, or cannot be read.
		const part = 4 << 20
		for from := m.from; from < m.to; from += part {
			buf = slices.Grow(buf[:0], part+pieceSize)[:min(part+pieceSize-1, m.to-from)] // a piece may lie across the border
			n, err := memory.ReadAt(buf, int64(from))
			if err != nil && !errors.Is(err, syscall.EIO) && n == 0 {
				t.Fatalf("%s: reading %s: %v", name, m.name, err)
			}
			size += min(n, part)
			for _, f := range s.in(buf[:n], from) {
				f.process, f.mapping = name, m
				finds = append(finds, f)
			}
		}
	}
	return finds, size
}

// A mapping is one line of /proc/PID/maps (proc_pid_maps(5)).
type mapping struct {
	from, to uint64
	rights   string
	name     string
}

func mappingsOf(t testing.TB, pid int) (all []mapping) {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var m mapping
		var offset, device, inode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s %s %s %s", &m.from, &m.to, &m.rights, &offset, &device, &inode); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		if len(lines.Text()) > 73 {
			m.name = strings.TrimSpace(lines.Text()[73:])
		}
		all = append(all, m)
	}
	if len(all) == 0 {
		t.Fatalf("process %d has no memory", pid)
	}
	return all
}

// report tells of finds: how many of each form there are, where, and of the first what is around it.
func report(t testing.TB, finds []find) {
	t.Helper()
	type group struct{ process, mapping, form string }
	groups := make(map[group][]find)
	for _, f := range finds {
		g := group{f.process, f.mapping.name, f.form}
		groups[g] = append(groups[g], f)
	}
	for g, finds := range groups {
		secrets := make(map[int]bool)
		for _, f := range finds {
			secrets[f.secret] = true
		}
		first := finds[0]
		t.Errorf("%s: %d pieces of %d secrets as %s in %q; one of secret %d at %#x, among\n%q", g.process, len(finds), len(secrets), g.form,
			g.mapping, first.secret, first.address, first.around)
	}
}
