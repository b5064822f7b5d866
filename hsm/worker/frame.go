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
	kindBeat     kind = 100 + iota // it lives
	kindAskPIN                     // the token is found, and wants a login
	kindLoggedIn                   // the PIN was right
	kindReady                      // the token is open
	kindFailed                     // the token could not be opened; nothing follows
	kindHung                       // a call in the module does not return; nothing follows
	kindDone                       // the answer to a call that succeeded
	kindError                      // the answer to a call that failed
)

// A frame is made of fields, after others that are to be sent together with it, in a buffer that is used again and wiped in between: it may hold
// secrets.
type frame struct {
	body []byte
	at   int // where the last frame in body begins
}

// room is what buffers begin with: more than a few plaintexts at once.
const room = 12 << 10

// begin begins a frame of a kind, after those that are there.
func (f *frame) begin(k kind) {
	if f.body == nil {
		f.body = make([]byte, 0, room)
	}
	f.end()
	f.at = len(f.body)
	f.grow(frameHead)
	f.body = append(f.body, 0, 0, 0, 0, byte(k))
}

// end writes the length of the last frame, if there is one.
func (f *frame) end() {
	if f.at >= 0 && len(f.body) > f.at {
		binary.BigEndian.PutUint32(f.body[f.at:], uint32(len(f.body)-f.at-4))
	}
}

// undo takes the last frame back.
func (f *frame) undo() {
	clear(f.body[f.at:])
	f.body = f.body[:f.at]
	f.at = -1 // those before have their lengths
}

// wipe forgets all frames, and a buffer that was made larger for once.
func (f *frame) wipe() {
	clear(f.body)
	f.body, f.at = f.body[:0], 0
	if cap(f.body) > 8*room {
		f.body = nil
	}
}

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

// write sends the frames and wipes them.
func (s socket) write(f *frame) error {
	defer f.wipe()
	f.end()
	if len(f.body) > 4+frameMax {
		return fmt.Errorf("messages of %d bytes are too long", len(f.body))
	}
	for rest := f.body; len(rest) > 0; {
		n, err := unix.Write(int(s), rest) // Go lets no signal come of a broken pipe
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN { // of a lane that is parked, and only if the message is larger than the socket's buffer
			unix.Poll([]unix.PollFd{{Fd: int32(s), Events: unix.POLLOUT}}, -1)
			continue
		}
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// A reader reads frames from a socket. What it has read ahead is in its buffer, and is wiped when the next frame is asked for.
type reader struct {
	socket
	parked     *parked // if reads wait so
	buf        []byte
	begin, end int // of what was read and not given out
	given      int // where what was given out last begins
}

// buffered reports whether a whole frame is there already.
func (r *reader) buffered() bool {
	have := r.buf[r.begin:r.end]
	return len(have) >= 4 && len(have)-4 >= int(binary.BigEndian.Uint32(have))
}

// next waits for a frame, and returns its kind and its fields, which are good until the next call.
func (r *reader) next() (kind, fields, error) {
	r.wipe()
	for !r.buffered() {
		if err := r.fill(); err != nil {
			return 0, fields{}, err
		}
	}
	n := 4 + int(binary.BigEndian.Uint32(r.buf[r.begin:]))
	b := r.buf[r.begin : r.begin+n : r.begin+n]
	r.given, r.begin = r.begin, r.begin+n
	return kind(b[4]), fields{rest: b[frameHead:]}, nil
}

// wipe forgets the frame that was given out last.
func (r *reader) wipe() {
	clear(r.buf[r.given:r.begin])
	r.given = r.begin
	if r.begin == r.end {
		r.begin, r.end, r.given = 0, 0, 0
		if len(r.buf) > 8*room {
			r.buf = nil
		}
	}
}

// forget wipes all that was read, after the last frame.
func (r *reader) forget() { clear(r.buf) }

// fill reads what there is.
func (r *reader) fill() error {
	want := frameHead
	if have := r.buf[r.begin:r.end]; len(have) >= 4 {
		length := binary.BigEndian.Uint32(have)
		if length == 0 || length > frameMax {
			return fmt.Errorf("a message says that it has %d bytes", length)
		}
		want = 4 + int(length)
	}
	if len(r.buf) < room || r.begin+want > len(r.buf) {
		larger := make([]byte, max(room, 2*want))
		n := copy(larger, r.buf[r.begin:r.end])
		clear(r.buf)
		r.buf, r.begin, r.end, r.given = larger, 0, n, 0
	}
	for {
		n, err := r.read(r.buf[r.end:])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return io.EOF
		}
		r.end += n
		return nil
	}
}

func (r *reader) read(b []byte) (int, error) {
	if r.parked != nil {
		return r.parked.read(b)
	}
	return unix.Read(int(r.socket), b)
}

// shutdown ends reads and writes on the socket, of both ends.
func (s socket) shutdown() {
	if s >= 0 {
		unix.Shutdown(int(s), unix.SHUT_RDWR)
	}
}

func (s socket) close() {
	if s >= 0 {
		unix.Close(int(s))
	}
}

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
