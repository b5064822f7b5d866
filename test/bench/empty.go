package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

// emptyServerArg is the one argument that makes this program the empty server instead.
const emptyServerArg = "serve-nothing"

// serveNothing answers on a free port of loopback, prints which, and never ends by itself. The settings are those of
// cmd/strongroom/server.go.
func serveNothing() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, l.Addr())
	server := &http.Server{
		Handler:           http.HandlerFunc(answerNothing),
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
)

var (
	buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

	// answers are bodies that were sent before, by the path that asks for them.
	answers sync.Map
)

// answerNothing reads a request and answers with as many bytes as the path says: "/120" is answered with 120.
func answerNothing(w http.ResponseWriter, r *http.Request) {
	in := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(in)
	in.Reset()
	if _, err := in.ReadFrom(http.MaxBytesReader(w, r.Body, maxBody)); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	body, ok := answers.Load(r.URL.Path)
	if !ok {
		size, err := strconv.Atoi(r.URL.Path[1:])
		if err != nil || size < emptyAnswerMin || size > maxAnswer {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		body, _ = answers.LoadOrStore(r.URL.Path, emptyAnswer(size))
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

// emptyAnswer returns a body of the size that looks like one of KMS.
func emptyAnswer(size int) []byte {
	b := []byte(emptyAnswerHead)
	b = append(b, bytes.Repeat([]byte("A"), size-emptyAnswerMin)...)
	return append(b, emptyAnswerTail...)
}
