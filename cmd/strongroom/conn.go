package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"strongroom/keyspec/secret"
)

// Requests and answers hold secrets, and what they are read into and written from is used again for the next ones: by net/http, which has a reader and two
// writers with buffers for each connection, and by crypto/tls. None of them wipes anything, so that the last request and the last answer of each connection
// would stay for as long as nobody asks for more. A conn lies between: it has the buffers that are read into cleared before each read, of which there is one
// while a connection waits for its next request, and it sends answers without the buffers of net/http.
//
// One gap is left. After a request that says Connection: close there is no other read, so that its last 4 KiB stay until another connection has the buffer. It
// may be the plaintext of an Encrypt; no key that was made here is ever in a request.

// A listener accepts connections as [conn].
type listener struct {
	net.Listener
	log      *log.Logger // of handshakes that fail
	answered *atomic.Bool
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	secured, _ := c.(*tls.Conn)
	return &conn{listener: l, Conn: c, tls: secured}, nil
}

// A conn is a connection as net/http sees it.
type conn struct {
	net.Conn
	listener listener
	tls      *tls.Conn            // the same, or nil
	state    *tls.ConnectionState // after the handshake
	out      *[]byte              // while an answer is made: its head, and then its body
}

// Read clears p and reads into it; an [io.Reader] may use all of p as scratch space. While a connection waits for a request, p is the whole of net/http's buffer.
func (c *conn) Read(p []byte) (int, error) {
	clear(p)
	if c.tls != nil && c.state == nil {
		if err := c.shake(); err != nil {
			return 0, io.EOF // the client has been told
		}
	}
	return c.Conn.Read(p)
}

// shake does the handshake, within the time that there is for the first request, and tells the log and the client of a failure as net/http does
// for connections that it knows to be TLS.
func (c *conn) shake() error {
	c.SetWriteDeadline(time.Now().Add(readHeaderTimeout)) // net/http has set the one for reading
	err := c.tls.Handshake()
	if err == nil {
		c.SetWriteDeadline(time.Time{})
		s := c.tls.ConnectionState()
		c.state = &s
		return nil
	}
	reason := err.Error()
	if re, ok := errors.AsType[tls.RecordHeaderError](err); ok && re.Conn != nil && looksLikeHTTP(re.RecordHeader) {
		io.WriteString(re.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
		reason = "client sent an HTTP request to an HTTPS server"
	}
	c.listener.log.Printf("http: TLS handshake error from %v: %v", c.RemoteAddr(), reason)
	return err
}

// looksLikeHTTP reports whether the first bytes of a connection are those of a request.
func looksLikeHTTP(head [5]byte) bool {
	switch string(head[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
		return true
	}
	return false
}

// Write sends p, or keeps it for the body that it is the head of.
func (c *conn) Write(p []byte) (int, error) {
	if c.out == nil {
		return c.Conn.Write(p)
	}
	*c.out = append(*c.out, p...)
	return len(p), nil
}

// CloseWrite lets net/http end a connection without a reset.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// outs are buffers for answers with their heads.
var outs = sync.Pool{New: func() any {
	b := make([]byte, 0, maxOut)
	return &b
}}

// maxOut is more than the largest answer with a secret has, 8 kB, and its head.
const maxOut = 16 << 10

// A body is what [conn.ReadFrom] is given.
type body []byte

func (b *body) Read(p []byte) (int, error) {
	if len(*b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, *b)
	*b = (*b)[n:]
	return n, nil
}

// ReadFrom sends what r has. It is how net/http has a body sent without a buffer, after it has written the head.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	b, ok := r.(*body)
	if !ok || c.out == nil {
		return io.Copy(struct{ io.Writer }{c}, r)
	}
	head := len(*c.out)
	*c.out = append(*c.out, *b...)
	n, err := c.send()
	return int64(max(0, n-head)), err
}

// send sends the answer that was made, and wipes it.
func (c *conn) send() (n int, err error) {
	out := c.out
	c.out = nil
	c.listener.answered.Store(true)
	if c.tls == nil {
		n, err = c.Conn.Write(*out)
	} else {
		// It encrypts in a buffer of its own, which it outgrows now and then, and forgets with what it holds.
		secret.Do(func() { n, err = c.Conn.Write(*out) })
	}
	clear(*out)
	if cap(*out) <= 4*maxOut {
		*out = (*out)[:0]
		outs.Put(out)
	}
	return n, err
}

// An answerWriter writes answers to a conn: head and body at once, if it is given the body in one piece.
type answerWriter struct {
	http.ResponseWriter
	conn *conn
}

func (w answerWriter) Write(b []byte) (int, error) {
	w.conn.out = outs.Get().(*[]byte)
	w.ResponseWriter.(http.Flusher).Flush() // writes the head, which the conn keeps
	rest := body(b)
	n, err := w.ResponseWriter.(io.ReaderFrom).ReadFrom(&rest)
	if w.conn.out != nil { // there is no body in the answer to HEAD
		_, err = w.conn.send()
	}
	return int(n), err
}

type connKey struct{}

// withConn is the ConnContext of an [http.Server] that accepts connections from a [listener].
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// onConn returns what a handler of such a server is to be called with.
func onConn(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, *http.Request) {
	c := r.Context().Value(connKey{}).(*conn)
	r.TLS = c.state // which net/http does not see
	return answerWriter{w, c}, r
}

// A scratchListener accepts connections for TLS, whose buffer for what it reads, and decrypts there, is cleared before each read.
type scratchListener struct{ net.Listener }

func (l scratchListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return scratchConn{c}, nil
}

type scratchConn struct{ net.Conn }

func (c scratchConn) Read(p []byte) (int, error) {
	clear(p)
	return c.Conn.Read(p)
}
