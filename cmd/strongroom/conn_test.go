package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// A seenListener shows what its connections are read into and what is written to them.
type seenListener struct {
	net.Listener
	mu     sync.Mutex
	stale  int      // reads into buffers that were not empty
	writes []string // as they were sent
	sent   [][]byte // where they were sent from
}

func (l *seenListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return seenConn{c, l}, err
}

type seenConn struct {
	net.Conn
	l *seenListener
}

func (c seenConn) Read(p []byte) (int, error) {
	c.l.mu.Lock()
	if len(bytes.Trim(p, "\x00")) > 0 {
		c.l.stale++
	}
	c.l.mu.Unlock()
	return c.Conn.Read(p)
}

func (c seenConn) Write(p []byte) (int, error) {
	c.l.mu.Lock()
	c.l.writes, c.l.sent = append(c.l.writes, string(p)), append(c.l.sent, p)
	c.l.mu.Unlock()
	return c.Conn.Write(p)
}

// TestConn: what clients see of a server is what they see of net/http, and the buffers that it goes through are empty afterwards.
func TestConn(t *testing.T) {
	long := strings.Repeat("a secret ", 1000)
	handler := func(w http.ResponseWriter, r *http.Request) {
		w, r = onConn(w, r)
		body, _ := io.ReadAll(r.Body)
		answer := fmt.Sprintf("%s %v %s", r.Method, r.TLS != nil, body)
		w.Header().Set("Content-Type", "text/plain")
		if r.URL.Path != "/unknown-length" {
			w.Header().Set("Content-Length", fmt.Sprint(len(answer)))
		}
		if r.URL.Path == "/pieces" {
			io.WriteString(w, answer[:3])
			answer = answer[3:]
		}
		io.WriteString(w, answer)
	}
	for _, secured := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %v", secured), func(t *testing.T) {
			seen := &seenListener{}
			var answered atomic.Bool
			server := httptest.NewUnstartedServer(http.HandlerFunc(handler))
			seen.Listener = server.Listener
			var l net.Listener = seen
			client := &http.Client{Transport: &http.Transport{}}
			url := "http://" + seen.Addr().String()
			if secured {
				certificate := httptest.NewTLSServer(nil)
				defer certificate.Close()
				l = tls.NewListener(scratchListener{seen}, certificate.TLS)
				roots := x509.NewCertPool()
				roots.AddCert(certificate.Certificate())
				client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
				url = "https://" + seen.Addr().String()
			}
			server.Listener, server.Config.ConnContext = listener{l, log.New(t.Output(), "", 0), &answered}, withConn
			server.Start()
			defer server.Close()
			defer client.CloseIdleConnections()

			for _, method := range []string{http.MethodPost, http.MethodHead} {
				for _, path := range []string{"/", "/pieces", "/unknown-length"} {
					for _, body := range []string{"", "a secret", long} {
						for _, last := range []bool{false, true} {
							r, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader(body))
							if err != nil {
								t.Fatal(err)
							}
							r.Close = last
							response, err := client.Do(r)
							if err != nil {
								t.Fatalf("%s %s with %d bytes: %v", method, path, len(body), err)
							}
							got, err := io.ReadAll(response.Body)
							response.Body.Close()
							want := fmt.Sprintf("%s %v %s", method, secured, body)
							if method == http.MethodHead {
								want = ""
							}
							if err != nil || string(got) != want || response.Close != last {
								t.Errorf("%s %s with %d bytes, the last: %v: %d bytes that begin with %.20q, %v", method, path, len(body), last, len(got), got, err)
							}
						}
					}
				}
			}

			seen.mu.Lock()
			defer seen.mu.Unlock()
			if !answered.Load() {
				t.Error("nothing was answered")
			}
			if seen.stale > 0 {
				t.Errorf("%d reads into buffers with something in them", seen.stale)
			}
			if secured {
				return // what is sent is not secret any more
			}
			if n := len(seen.writes); n > 0 && !strings.HasPrefix(seen.writes[0], "HTTP/1.1 200 OK") || !strings.HasSuffix(seen.writes[0], "POST false ") {
				t.Errorf("the first of %d writes is %q, not an answer", n, seen.writes[0])
			}
		})
	}
}

// TestConnWipes: an answer whose length is known leaves in one piece, from memory that is wiped afterwards.
func TestConnWipes(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	go io.Copy(io.Discard, client)
	seen := &seenListener{}
	c := &conn{Conn: seenConn{server, seen}, listener: listener{answered: new(atomic.Bool)}}
	c.out = outs.Get().(*[]byte)
	io.WriteString(c, "head ")
	b := body("a secret")
	if n, err := c.ReadFrom(&b); err != nil || n != int64(len("a secret")) {
		t.Fatal(n, err)
	}
	if len(seen.writes) != 1 || seen.writes[0] != "head a secret" {
		t.Errorf("sent %q", seen.writes)
	}
	if left := bytes.Trim(seen.sent[0], "\x00"); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
}
