package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// emptyServerArg makes this program the empty server instead. A file for durable writes follows.
const emptyServerArg = "serve-nothing"

// serveNothing answers on a free port of loopback, prints which, and never ends by itself. The settings are those of
// cmd/strongroom/server.go.
func serveNothing(file string) error {
	onDisk, err := openDisk(file, true)
	if err != nil {
		return err
	}
	d := &durable{disk: onDisk, records: make(chan chan error, maxClients)}
	go d.run()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, l.Addr())
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			answerNothing(w, r, d)
		}),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      2 * time.Minute,
		IdleTimeout:       3 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	return server.Serve(l)
}

const (
	maxBody   = 200_000
	maxAnswer = 64 << 10

	// durably begins the path of a request that is answered after a record is on the disk.
	durably = "/durably"
)

var (
	buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

	// answers are bodies that were sent before, by the path that asks for them.
	answers sync.Map
)

// answerNothing reads a request and answers with as many bytes as the path says: "/120" is answered with 120, and so is "/durably/120", later.
func answerNothing(w http.ResponseWriter, r *http.Request, d *durable) {
	in := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(in)
	in.Reset()
	if _, err := in.ReadFrom(http.MaxBytesReader(w, r.Body, maxBody)); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	path, recorded := strings.CutPrefix(strings.TrimSuffix(r.URL.Path, "/"), durably)
	body, ok := answers.Load(path)
	if !ok {
		size, err := strconv.Atoi(strings.TrimPrefix(path, "/"))
		if err != nil || size < emptyAnswerMin || size > maxAnswer {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		body, _ = answers.LoadOrStore(path, emptyAnswer(size))
	}
	if recorded {
		if err := d.write(); err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
	}
	b := body.([]byte)
	w.Header()["Content-Type"] = []string{"application/x-amz-json-1.1"}
	w.Header()["Content-Length"] = []string{strconv.Itoa(len(b))}
	w.WriteHeader(http.StatusOK)
	w.Write(b)
}

const (
	emptyAnswerHead = `{"CiphertextBlob":"`
	emptyAnswerTail = `"}`
	emptyAnswerMin  = len(emptyAnswerHead) + len(emptyAnswerTail)
)

// emptyAnswer returns a body of the size that looks like one of KMS, also to those who decode base64.
func emptyAnswer(size int) []byte {
	b := []byte(emptyAnswerHead)
	n := size - emptyAnswerMin
	b = append(b, bytes.Repeat([]byte("A"), n-n%4)...)
	b = append(b, emptyAnswerTail...)
	return append(b, "   "[:n%4]...)
}

// A durable puts records on the disk, each before its request is answered. Those that come while the disk is busy are written and synced together. It is the
// least that a server does which keeps a record of what it answers.
type durable struct {
	disk    *disk
	records chan chan error
}

var dones = sync.Pool{New: func() any { return make(chan error, 1) }}

func (d *durable) write() error {
	done := dones.Get().(chan error)
	defer dones.Put(done)
	d.records <- done
	return <-done
}

func (d *durable) run() {
	var batch []chan error
	var text []byte
	for first := range d.records {
		batch, text = append(batch[:0], first), append(text[:0], record...)
		for more := true; more; {
			select {
			case next := <-d.records:
				batch, text = append(batch, next), append(text, record...)
			default:
				more = false
			}
		}
		err := d.disk.write(text)
		for _, done := range batch {
			done <- err
		}
	}
}
