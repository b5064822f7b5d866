package worker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// A frame is one message on a socket between the server and a worker, in either direction:
//
//	0   4   length of what follows, big endian
//	4   1   kind
//	5   n   fields, as the kind has them
//
// A field is a number (unsigned varint, encoding/binary), or bytes preceded by their length as such a number. Both ends are the same program, so
// there is no version.
const (
	frameHead = 4 + 1
	frameMax  = 64 << 20 // a list of half a million keys; all else is below 10 KiB
)

// A kind says what a frame is.
type kind byte

// Kinds of frames to a worker: how to begin, and then calls of the device.
const (
	kindOpen kind = 1 + iota
	kindPIN
	kindGenerate
	kindGenerateSigner
	kindPublicKey
	kindSign
	kindDestroy
	kindForget
	kindSeal
	kindOpenSealed
	kindRandom
	kindCheck
	kindObjects
)

// Kinds of frames from a worker.
const (
	kindBeat   kind = 100 + iota // it lives
	kindAskPIN                   // the token is found, and wants a login
	kindReady                    // the token is open
	kindFailed                   // the token could not be opened; nothing follows
	kindHung                     // a call in the module does not return; nothing follows
	kindDone                     // the answer to a call that succeeded
	kindError                    // the answer to a call that failed
)

// A frame is made of fields, or taken apart into them, in a buffer that is used again and wiped in between: it may hold a secret.
type frame struct {
	body []byte
}

const frameRoom = 12 << 10 // more than a sealed plaintext and its associated data

// begin begins a frame of a kind.
func (f *frame) begin(k kind) {
	if f.body == nil {
		f.body = make([]byte, 0, frameRoom)
	}
	f.wipe()
	f.body = append(f.body, 0, 0, 0, 0, byte(k))
}

// wipe forgets what the frame holds, and a buffer that was made larger for once.
func (f *frame) wipe() {
	clear(f.body)
	f.body = f.body[:0]
	if cap(f.body) > 2*frameRoom {
		f.body = nil
		f.body = make([]byte, 0, frameRoom)
	}
}

func (f *frame) kind() kind     { return kind(f.body[4]) }
func (f *frame) fields() fields { return fields{rest: f.body[frameHead:]} }

func (f *frame) number(n uint64) {
	f.grow(binary.MaxVarintLen64)
	f.body = binary.AppendUvarint(f.body, n)
}

func (f *frame) bytes(b []byte) {
	f.number(uint64(len(b)))
	f.rest(b)
}

func (f *frame) string(s string) {
	f.number(uint64(len(s)))
	f.grow(len(s))
	f.body = append(f.body, s...)
}

// rest appends a last field without its length.
func (f *frame) rest(b []byte) {
	f.grow(len(b))
	f.body = append(f.body, b...)
}

// blank appends n bytes for the caller to fill in.
func (f *frame) blank(n int) []byte {
	f.number(uint64(n))
	f.grow(n)
	f.body = f.body[:len(f.body)+n]
	return f.body[len(f.body)-n:]
}

// grow makes room for n bytes. What is outgrown is wiped, which append would not do.
func (f *frame) grow(n int) {
	if len(f.body)+n <= cap(f.body) {
		return
	}
	larger := append(make([]byte, 0, 2*cap(f.body)+n), f.body...)
	clear(f.body)
	f.body = larger
}

// A socket is one end of a stream of frames. It is not Go's poller that waits on it, but the thread that reads: on the way of a call through two
// processes the poller and what it wakes cost more than all the rest. So a reader is woken by an answer, by the end of the other process, or by
// shutdown, and by nothing else.
type socket int

// write sends the frame and wipes it.
func (s socket) write(f *frame) error {
	defer f.wipe()
	if len(f.body) > 4+frameMax {
		return fmt.Errorf("a message of %d bytes is too long", len(f.body))
	}
	binary.BigEndian.PutUint32(f.body, uint32(len(f.body)-4))
	for rest := f.body; len(rest) > 0; {
		n, err := unix.Write(int(s), rest) // Go lets no signal come of a broken pipe
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// read waits for a frame. Nothing follows a frame before it was answered, so that one read may ask for more than there is.
func (s socket) read(f *frame) error {
	if f.body == nil {
		f.body = make([]byte, 0, frameRoom)
	}
	f.wipe()
	for want := frameHead; len(f.body) < want; {
		n, err := unix.Read(int(s), f.body[len(f.body):cap(f.body)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return io.EOF
		}
		f.body = f.body[:len(f.body)+n]
		if len(f.body) >= 4 {
			length := binary.BigEndian.Uint32(f.body)
			if length == 0 || length > frameMax {
				return fmt.Errorf("a message says that it has %d bytes", length)
			}
			want = 4 + int(length)
			f.grow(want - len(f.body))
		}
	}
	return nil
}

// shutdown ends reads and writes on the socket, of both ends.
func (s socket) shutdown() { unix.Shutdown(int(s), unix.SHUT_RDWR) }
func (s socket) close()    { unix.Close(int(s)) }

var errMessage = errors.New("a message is not as it must be")

// A fields takes a frame apart. What it returns is part of the frame. After a mistake it returns nothing, and err says so.
type fields struct {
	rest []byte
	err  error
}

func (f *fields) number() uint64 {
	n, size := binary.Uvarint(f.rest)
	if size <= 0 {
		f.rest, f.err = nil, errMessage
		return 0
	}
	f.rest = f.rest[size:]
	return n
}

func (f *fields) bytes() []byte {
	n := f.number()
	if n > uint64(len(f.rest)) {
		f.rest, f.err = nil, errMessage
		return nil
	}
	b := f.rest[:n:n]
	f.rest = f.rest[n:]
	return b
}

func (f *fields) string() string { return string(f.bytes()) }
