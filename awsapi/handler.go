// Package awsapi is the wire: it makes a [kms.Service] speak to every client of AWS KMS, in AWS JSON 1.1 under Signature Version 4. Of AWS STS it
// speaks one operation, by which a client learns who it is.
//
// It knows three things that no other package does: the names and statuses of errors (errors.go), how a signature is checked (sigv4.go), and
// which operations there are (operations.go, sts.go). It promises that no operation is reached by a request that a known access key did not sign,
// nor with members that the model of AWS KMS forbids, and that nothing is sent of what an operation did before it is on record (call.go). It knows
// nothing of keys, stores and devices.
package awsapi

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"strongroom/kms"
)

// Options are what the handler needs besides the service.
type Options struct {
	Log    *slog.Logger     // for operators: what failed and why. Default: slog.Default()
	Region string           // that signatures must be scoped to. Default: the service's
	Now    func() time.Time // the clock that signatures and sessions are measured by. Default: time.Now
	Counts *Counts          // what is counted of requests. Default: nothing
}

const (
	maxBody      = 200_000 // bytes, as AWS KMS
	maxUserAgent = 1024    // bytes that are kept; it goes to the audit record

	targetPrefix = "TrentService."
	jsonType     = "application/x-amz-json-1.1"
)

// handler is the service as HTTP sees it. It is safe for concurrent use.
type handler struct {
	service   *kms.Service
	records   records
	verifier  *verifier
	kms, sts  *protocol
	readiness *readiness
	counts    *Counts // may be nil
	log       *slog.Logger
}

// A protocol is how one of the two services is asked and how it answers.
type protocol struct {
	scope       scope // of signatures
	contentType string
	find        func(r *http.Request, body []byte) (name string, o operation, err error)
	form        func(form) form // what a refusal is called
	appendError func(b []byte, f form, message, request string) []byte
}

// New returns a handler that serves s: the operations of AWS KMS and STS at /, and for load balancers GET /healthz and GET /readyz.
//
// A deadline for requests is the caller's to set, in the server or around the handler.
func New(s *kms.Service, o Options) http.Handler {
	if o.Region == "" {
		o.Region = s.Region()
	}
	return newHandler(parts{s, s, s, s.Ready, operations, stsOperations}, o)
}

// parts are what a handler is made of, apart for tests.
type parts struct {
	service    *kms.Service
	records    records
	keys       Credentials
	ready      func(context.Context) error
	operations map[string]operation
	sts        map[string]operation
}

func newHandler(p parts, o Options) *handler {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &handler{
		service:   p.service,
		records:   p.records,
		verifier:  &verifier{keys: p.keys, now: o.Now, derived: newSigningKeys(10_000)},
		kms:       kmsProtocol(p.operations, o.Region),
		sts:       stsProtocol(p.sts, o.Region),
		readiness: &readiness{check: p.ready, log: o.Log},
		counts:    o.Counts,
		log:       o.Log,
	}
}

// kmsProtocol is AWS JSON 1.1, with the operations given.
func kmsProtocol(operations map[string]operation, region string) *protocol {
	return &protocol{
		scope:       scope{"kms", []string{region}},
		contentType: jsonType,
		find: func(r *http.Request, _ []byte) (string, operation, error) {
			var name string
			if target := r.Header["X-Amz-Target"]; len(target) == 1 {
				name, _ = strings.CutPrefix(target[0], targetPrefix)
				if len(name) == len(target[0]) {
					name = ""
				}
			}
			o, known := operations[name]
			if !known {
				return "", o, &refusal{form: unknownOperation}
			}
			return name, o, nil
		},
		form:        func(f form) form { return f },
		appendError: func(b []byte, f form, message, _ string) []byte { return appendError(b, f, message) },
	}
}

// ServeHTTP answers one request. It is refused in the order that AWS KMS shows for requests which are wrong in two ways: size, content type,
// target, signature, JSON, constraints, and then by the operation.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := exchanges.Get().(*exchange)
	defer x.release()
	x.id, x.began = requestID(), time.Now()
	w.Header()["x-amzn-RequestId"] = []string{x.id} // as AWS spells it

	get := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case get && r.URL.Path == "/healthz":
		answer(w, http.StatusOK, "text/plain", []byte("ok\n"))
		return
	case get && r.URL.Path == "/readyz":
		h.readiness.serve(w, r)
		return
	}

	if err := x.read(r); errors.Is(err, errTooLarge) {
		w.Header().Set("Connection", "close") // rather than read the rest
		answer(w, http.StatusRequestEntityTooLarge, "text/plain", []byte("HTTP content length exceeded 200000 bytes."))
		return
	} else if err != nil {
		h.finish(w, r, x, h.kms, &refusal{form: serializationException, err: fmt.Errorf("read the body: %w", err)})
		return
	}
	if isQuery(r) {
		h.finish(w, r, x, h.sts, h.call(r, x, h.sts))
		return
	}
	// Without the right content type AWS's front end does not see a JSON request, and answers in XML.
	if r.Method != http.MethodPost || r.URL.Path != "/" || !isJSON(r.Header.Get("Content-Type")) {
		answer(w, http.StatusNotFound, "application/xml", []byte("<UnknownOperationException/>\n"))
		return
	}
	h.finish(w, r, x, h.kms, h.call(r, x, h.kms))
}

// isJSON reports whether a content type is that of AWS JSON 1.1, with or without parameters.
func isJSON(contentType string) bool {
	if contentType == jsonType {
		return true
	}
	mediaType, _, err := mime.ParseMediaType(contentType)
	return err == nil && mediaType == jsonType
}

// finish sends what x holds, or says that it failed with err, and tells the log.
func (h *handler) finish(w http.ResponseWriter, r *http.Request, x *exchange, p *protocol, err error) {
	status, level, text, outcome := http.StatusOK, slog.LevelDebug, "request served", OutcomeOK
	if err != nil {
		f, message := translate(err)
		wire := p.form(f)
		status, text, outcome = wire.status, "request refused", f.name
		switch {
		case errors.Is(err, context.Canceled) && r.Context().Err() != nil:
			text, outcome = "client went away", OutcomeGone
		case f.name == forms[kms.Internal].name:
			level, text = slog.LevelError, "request failed"
		case f.status >= 500:
			level, text = slog.LevelWarn, "request failed"
		case f.name == forms[kms.AccessDenied].name:
			level = slog.LevelInfo // err has the reason, of which the client learns nothing
		}
		x.clearOut()
		x.out.Write(p.appendError(x.out.AvailableBuffer(), wire, message, x.id))
	}
	answer(w, status, p.contentType, x.out.Bytes())
	h.counts.add(x.operation, outcome, time.Since(x.began))
	// The context may be at its end, and so it must not decide whether there is a log.
	if ctx := context.WithoutCancel(r.Context()); h.log.Enabled(ctx, level) {
		attrs := []slog.Attr{slog.String("request", x.id), slog.String("operation", x.operation), slog.String("key", x.key),
			slog.String("principal", x.who.Principal)}
		if err != nil {
			attrs = append(attrs, slog.Any("err", err))
		}
		h.log.LogAttrs(ctx, level, text, attrs...)
	}
}

// answer sends a whole answer. Its length is known and the body is written at once, so that net/http sends header and body together: in
// one packet, if they fit.
func answer(w http.ResponseWriter, status int, contentType string, body []byte) {
	w.Header()["Content-Type"] = []string{contentType}
	w.Header()["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	w.Write(body) // a client that does not read is not our concern
}

// An exchange is one request and its answer in memory: both may hold secrets, and are wiped afterwards.
type exchange struct {
	id         string
	began      time.Time
	operation  string     // empty until it is known to be one
	who        kms.Caller // nobody until the signature is verified
	key        string     // that the request names
	in         []byte
	parameters []byte // of the request, for the record; no secrets
	out        bytes.Buffer
}

// The largest answers with secrets are RSA_4096 pairs, below 8 kB. A buffer that never grows leaves no copy behind.
const answerSize = 16 << 10

var exchanges = sync.Pool{New: func() any {
	x := &exchange{in: make([]byte, 0, 4<<10)}
	x.out.Grow(answerSize)
	return x
}}

// release wipes x and puts it back.
func (x *exchange) release() {
	clear(x.in[:cap(x.in)])
	x.clearOut()
	if x.out.Cap() > 4*answerSize || cap(x.parameters) > 4*answerSize {
		return // a long list or policy, once
	}
	x.id, x.operation, x.key, x.who = "", "", "", kms.Caller{}
	x.in, x.parameters = x.in[:0], x.parameters[:0]
	exchanges.Put(x)
}

// clearOut wipes what was encoded. The encoder works in the free part of the buffer, and so all of it is wiped.
func (x *exchange) clearOut() {
	x.out.Reset()
	b := x.out.AvailableBuffer()
	clear(b[:cap(b)])
}

var errTooLarge = errors.New("body too large")

// read reads the body of r. Memory is taken as the body arrives, not as its length is announced.
func (x *exchange) read(r *http.Request) error {
	if r.ContentLength > maxBody {
		return errTooLarge
	}
	for {
		if len(x.in) == cap(x.in) {
			larger := make([]byte, len(x.in), min(2*cap(x.in), maxBody+1))
			copy(larger, x.in)
			clear(x.in)
			x.in = larger
		}
		n, err := r.Body.Read(x.in[len(x.in):cap(x.in)])
		x.in = x.in[:len(x.in)+n]
		switch {
		case len(x.in) > maxBody:
			return errTooLarge
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// requestID returns a random UUID (RFC 9562, section 5.4).
func requestID() string {
	var u [16]byte
	rand.Read(u[:]) // never fails
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	var b [36]byte
	at := 0
	for i, part := range [][]byte{u[:4], u[4:6], u[6:8], u[8:10], u[10:]} {
		if i > 0 {
			b[at] = '-'
			at++
		}
		at += hex.Encode(b[at:], part)
	}
	return string(b[:])
}

// caller returns who c is and where r comes from.
func caller(c *kms.Credential, r *http.Request, request string) kms.Caller {
	who := c.Caller()
	who.Source = source(r.RemoteAddr)
	who.RequestID = request
	who.UserAgent = printable(r.Header.Get("User-Agent"), maxUserAgent)
	if r.TLS != nil {
		who.Secure, who.TLS = true, tlsNames[r.TLS.Version]
	}
	return who
}

// tlsNames are the versions of TLS in the spelling of CloudTrail.
var tlsNames = map[uint16]string{tls.VersionTLS12: "TLSv1.2", tls.VersionTLS13: "TLSv1.3"}

// source returns the address in what net/http calls a remote address, or none for a Unix socket.
func source(remote string) netip.Addr {
	a, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap()
}

// printable returns at most n bytes of s, with a question mark for every byte that is not printable ASCII.
func printable(s string, n int) string {
	s = s[:min(len(s), n)]
	odd := func(r rune) bool { return r < ' ' || r > '~' }
	if strings.IndexFunc(s, odd) < 0 {
		return s
	}
	return strings.Map(func(r rune) rune {
		if odd(r) {
			return '?'
		}
		return r
	}, s)
}
