package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"
)

// A conn is a client: one connection of HTTP/1.1 that is kept. It does as little as it can, because it takes processors from the server.
type conn struct {
	net.Conn
	r    *bufio.Reader
	body []byte
}

func dial(address string) (*conn, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, r: bufio.NewReaderSize(c, 16<<10)}, nil
}

// dialAll opens connections and has each answer once, so that nothing of that is measured. Any answer will do.
func dialAll(address string, n int) ([]*conn, error) {
	var conns []*conn
	for range n {
		c, err := dial(address)
		if err == nil {
			conns = append(conns, c)
			c.SetDeadline(time.Now().Add(patience))
			_, err = c.do([]byte("GET /healthz HTTP/1.1\r\nHost: " + address + "\r\n\r\n"))
		}
		if err != nil && !errors.As(err, new(statusError)) {
			hangUp(conns)
			return nil, err
		}
	}
	return conns, nil
}

func hangUp(conns []*conn) {
	for _, c := range conns {
		c.Close()
	}
}

// A statusError is an answer other than 200.
type statusError struct{ line, body string }

func (e statusError) Error() string { return "answered " + e.line + ": " + e.body }

var (
	status200     = []byte("HTTP/1.1 200 ")
	contentLength = []byte("Content-Length: ")
)

// do sends a request and returns the body of the answer, which is good until the next call. It understands what net/http sends.
func (c *conn) do(request []byte) ([]byte, error) {
	if _, err := c.Write(request); err != nil {
		return nil, err
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	var status string
	if !bytes.HasPrefix(line, status200) {
		status = string(bytes.TrimSpace(line))
	}
	size := -1
	for {
		if line, err = c.r.ReadSlice('\n'); err != nil {
			return nil, err
		}
		if len(line) <= 2 {
			break
		}
		if bytes.HasPrefix(line, contentLength) {
			size = 0
			for _, digit := range line[len(contentLength) : len(line)-2] {
				size = size*10 + int(digit-'0')
			}
		}
	}
	if size < 1 || size > maxAnswer {
		if status != "" {
			return nil, statusError{line: status}
		}
		return nil, fmt.Errorf("an answer of %d bytes", size)
	}
	c.body = slices.Grow(c.body[:0], size)[:size]
	if _, err := io.ReadFull(c.r, c.body); err != nil {
		return nil, err
	}
	if status != "" {
		return nil, statusError{status, string(c.body)}
	}
	return c.body, nil
}
