package awsapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"strongroom/kms"
)

// A testServer is the handler with operations that need no service, under names that SDKs know.
type testServer struct {
	*httptest.Server
	log     safeBuffer
	who     atomic.Pointer[kms.Caller] // of the last request that reached an operation
	writes  atomic.Int64               // on connections
	ready   atomic.Pointer[func(context.Context) error]
	records fakeRecords
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.b.String()
	s.b.Reset()
	return text
}

type (
	noRequest  struct{}
	noResponse struct{}
)

func newTestServer(t testing.TB, useTLS bool) *testServer {
	s := new(testServer)
	fails := func(err error) operation {
		return op(func(*kms.Service, context.Context, kms.Caller, *noRequest) (*noResponse, error) { return nil, err })
	}
	table := map[string]operation{
		"Encrypt": op(func(_ *kms.Service, _ context.Context, who kms.Caller, r *echoRequest) (*echoResponse, error) {
			s.who.Store(&who)
			return &echoResponse{KeyID: r.KeyID, Plaintext: bytes.Clone(r.Plaintext)}, nil
		}),
		"EnableKey": op(func(_ *kms.Service, _ context.Context, who kms.Caller, r *echoRequest) (*kms.Empty, error) {
			return &kms.Empty{}, nil
		}),
		"Wait": op(func(_ *kms.Service, ctx context.Context, _ kms.Caller, r *noRequest) (*noResponse, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}),
		"Panic":       op(func(*kms.Service, context.Context, kms.Caller, *noRequest) (*noResponse, error) { panic("oh no") }),
		"Broken":      fails(errors.New("CKR_GENERAL_ERROR")),
		"Unavailable": fails(&kms.Error{Code: kms.KeyUnavailable, Err: errors.New("CKR_DEVICE_REMOVED")}),
		"Missing":     fails(&kms.Error{Code: kms.NotFound, Detail: "Invalid keyId 'x'"}),
		"Decrypt":     fails(&kms.Error{Code: kms.InvalidCiphertext, Err: errors.New("CKR_ENCRYPTED_DATA_INVALID")}),
		"Denied":      fails(&kms.Error{Code: kms.AccessDenied, Detail: "User: x is not authorized", Err: errors.New("no statement allows it")}),
		"CreateGrant": unsupported,
	}
	h := newHandler(parts{
		records: &s.records,
		keys:    newFakeKeys(),
		ready: func(ctx context.Context) error {
			if f := s.ready.Load(); f != nil {
				return (*f)(ctx)
			}
			return nil
		},
		operations: table,
		sts:        testIdentity,
	}, Options{
		Log:    slog.New(slog.NewTextHandler(&s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Region: testRegion,
		Now:    func() time.Time { return testTime },
	})
	s.Server = httptest.NewUnstartedServer(h)
	s.Listener = countingListener{s.Listener, &s.writes}
	if useTLS {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

type countingListener struct {
	net.Listener
	writes *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return countingConn{c, l.writes}, err
}

type countingConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countingConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// do sends a signed request for operation.
func (s *testServer) do(t testing.TB, operation, body string, change ...func(*attempt)) (*http.Response, string) {
	t.Helper()
	a := defaultAttempt()
	a.body = body
	a.prepare = func(r *http.Request) {
		r.URL.Scheme, r.URL.Host, _ = strings.Cut(s.URL, "://")
		r.Header.Set("X-Amz-Target", targetPrefix+operation)
	}
	for _, f := range change {
		f(&a)
	}
	resp, err := s.Client().Do(a.signed(t))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(got)
}

var uuid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

func TestAnswers(t *testing.T) {
	s := newTestServer(t, false)
	tamper := func(f func(*http.Request)) func(*attempt) { return func(a *attempt) { a.tamper = f } }
	header := func(name, value string) func(*attempt) {
		return tamper(func(r *http.Request) {
			if r.Header.Set(name, value); value == "" {
				r.Header.Del(name)
			}
		})
	}
	const xml = "<UnknownOperationException/>\n"
	long := strings.Repeat("x", maxBody+1)
	tests := []struct {
		name, operation, body string
		change                func(*attempt)
		status                int
		contentType, want     string
	}{
		{"success", "Encrypt", `{"KeyId":"<k>","Plaintext":"AQID"}`, nil, 200, jsonType, `{"KeyId":"<k>","Plaintext":"AQID","Truncated":false}`},
		{"void", "EnableKey", `{"KeyId":"k"}`, nil, 200, jsonType, ``},
		{"charset", "EnableKey", `{"KeyId":"k"}`, func(a *attempt) {
			prepare := a.prepare
			a.prepare = func(r *http.Request) {
				prepare(r)
				r.Header.Set("Content-Type", jsonType+"; charset=utf-8")
			}
		}, 200, jsonType, ``},
		{"refusal", "Missing", `{}`, nil, 400, jsonType, `{"__type":"NotFoundException","message":"Invalid keyId 'x'"}`},
		{"silent refusal", "Decrypt", `{}`, nil, 400, jsonType, `{"__type":"InvalidCiphertextException"}`},
		{"unavailable", "Unavailable", `{}`, nil, 500, jsonType, `{"__type":"KeyUnavailableException"}`},
		{"our fault", "Broken", `{}`, nil, 500, jsonType, `{"__type":"KMSInternalException"}`},
		{"panic", "Panic", `{}`, nil, 500, jsonType, `{"__type":"KMSInternalException"}`},
		{"unsupported", "CreateGrant", `{`, nil, 400, jsonType, `{"__type":"UnsupportedOperationException","message":"The operation is not supported."}`},
		{"unsupported, unsigned", "CreateGrant", `{}`, header("Authorization", ""), 400, jsonType,
			`{"__type":"MissingAuthenticationTokenException","message":"Missing Authentication Token"}`},
		{"unknown", "NoSuchThing", `{}`, nil, 400, jsonType, `{"__type":"UnknownOperationException"}`},
		{"wrong case", "encrypt", `{}`, nil, 400, jsonType, `{"__type":"UnknownOperationException"}`},
		{"no target", "", `{}`, header("X-Amz-Target", ""), 400, jsonType, `{"__type":"UnknownOperationException"}`},
		{"no prefix", "", `{}`, header("X-Amz-Target", "Encrypt"), 400, jsonType, `{"__type":"UnknownOperationException"}`},
		{"prefix twice", "", `{}`, header("X-Amz-Target", "TrentService.TrentService.Encrypt"), 400, jsonType, `{"__type":"UnknownOperationException"}`},
		{"unknown before unsigned", "NoSuchThing", `{}`, header("Authorization", ""), 400, jsonType, `{"__type":"UnknownOperationException"}`},
		{"no content type", "Encrypt", `{}`, header("Content-Type", ""), 404, "application/xml", xml},
		{"json 1.0", "Encrypt", `{}`, header("Content-Type", "application/x-amz-json-1.0"), 404, "application/xml", xml},
		{"content type before target", "NoSuchThing", `{}`, header("Content-Type", "text/plain"), 404, "application/xml", xml},
		{"GET", "Encrypt", ``, tamper(func(r *http.Request) { r.Method = "GET" }), 404, "application/xml", xml},
		{"another path", "Encrypt", `{}`, tamper(func(r *http.Request) { r.URL.Path = "/x" }), 404, "application/xml", xml},
		{"wrong signature before JSON", "Encrypt", `{`, func(a *attempt) { a.secret = "x" }, 400, jsonType,
			`{"__type":"InvalidSignatureException","message":"` + textMismatch + `"}`},
		{"unknown key", "Encrypt", `{}`, func(a *attempt) { a.id = "AKIANOBODY" }, 400, jsonType,
			`{"__type":"UnrecognizedClientException","message":"The security token included in the request is invalid."}`},
		{"not JSON", "Encrypt", `{`, nil, 400, jsonType, `{"__type":"SerializationException"}`},
		{"empty", "Encrypt", ``, nil, 400, jsonType, `{"__type":"SerializationException"}`},
		{"type before constraint", "Encrypt", `{"KeyId":"","Plaintext":1}`, nil, 400, jsonType,
			`{"__type":"SerializationException","message":"NUMBER_VALUE can not be converted to a Blob"}`},
		{"constraint", "Encrypt", `{}`, nil, 400, jsonType,
			`{"__type":"ValidationException","message":"1 validation error detected: Value null at 'keyId' failed to satisfy constraint: Member must not be null"}`},
		{"largest", "Encrypt", `{"KeyId":"k","x":"` + strings.Repeat("x", maxBody-20) + `"}`, nil, 200, jsonType, `{"KeyId":"k","Truncated":false}`},
		{"too large", "Encrypt", long, nil, 413, "text/plain", "HTTP content length exceeded 200000 bytes."},
		{"too large, in chunks", "Encrypt", long, tamper(func(r *http.Request) { r.ContentLength = -1 }), 413, "text/plain", "HTTP content length exceeded 200000 bytes."},
		{"too large before all else", "NoSuchThing", long, header("Content-Type", ""), 413, "text/plain", "HTTP content length exceeded 200000 bytes."},
	}
	seen := make(map[string]bool)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.change == nil {
				tt.change = func(*attempt) {}
			}
			resp, got := s.do(t, tt.operation, tt.body, tt.change)
			if resp.StatusCode != tt.status || got != tt.want || resp.Header.Get("Content-Type") != tt.contentType {
				t.Errorf("got  %d %s %.300s\nwant %d %s %s", resp.StatusCode, resp.Header.Get("Content-Type"), got, tt.status, tt.contentType, tt.want)
			}
			if resp.ContentLength != int64(len(tt.want)) {
				t.Errorf("Content-Length %d, want %d", resp.ContentLength, len(tt.want))
			}
			id := resp.Header.Get("x-amzn-RequestId")
			if !uuid.MatchString(id) || seen[id] {
				t.Errorf("request id %q", id)
			}
			seen[id] = true
		})
	}
}

func TestTooLargeIsNotRead(t *testing.T) {
	s := newTestServer(t, false)
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
	got, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 413 ") || !strings.Contains(string(got), "\r\nConnection: close\r\n") {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestRequestIDAsAWSSpellsIt(t *testing.T) {
	s := newTestServer(t, false)
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if got, err := io.ReadAll(conn); err != nil || !strings.Contains(string(got), "\r\nx-amzn-RequestId: ") {
		t.Errorf("got %s, %v", got, err)
	}
}

// TestOneWrite: header and body of an answer leave together.
func TestOneWrite(t *testing.T) {
	s := newTestServer(t, false)
	s.do(t, "EnableKey", `{"KeyId":"k"}`)
	for _, tt := range []struct{ operation, body string }{
		{"Encrypt", `{"KeyId":"k","Plaintext":"` + strings.Repeat("AAAA", 256) + `"}`},
		{"EnableKey", `{"KeyId":"k"}`},
		{"Missing", `{}`},
	} {
		before := s.writes.Load()
		s.do(t, tt.operation, tt.body)
		if got := s.writes.Load() - before; got != 1 {
			t.Errorf("%s: %d writes, want 1", tt.operation, got)
		}
	}
}

func TestCaller(t *testing.T) {
	for _, useTLS := range []bool{false, true} {
		s := newTestServer(t, useTLS)
		resp, _ := s.do(t, "Encrypt", `{"KeyId":"k"}`, func(a *attempt) {
			a.tamper = func(r *http.Request) { r.Header.Set("User-Agent", "caf\u00e9\t"+strings.Repeat("x", 5000)) }
		})
		who := s.who.Load()
		if who == nil {
			t.Fatal(resp.Status)
		}
		if want := map[bool]string{true: "TLSv1.3"}[useTLS]; who.TLS != want {
			t.Errorf("TLS is %q, want %q", who.TLS, want)
		}
		if who.Account != "111122223333" || who.Principal != "arn:aws:iam::111122223333:root" || who.AccessKey != testKey ||
			who.Source.String() != "127.0.0.1" || who.Secure != useTLS || who.RequestID != resp.Header.Get("x-amzn-RequestId") ||
			!strings.HasPrefix(who.UserAgent, "caf??x") || len(who.UserAgent) > maxUserAgent {
			t.Errorf("got %+v", who)
		}
	}
	if source("@").IsValid() || source("").IsValid() || source("[::ffff:10.0.0.1]:1").String() != "10.0.0.1" {
		t.Error("source")
	}
}

// TestLog: operators learn what failed and why, and nobody learns a secret.
func TestLog(t *testing.T) {
	s := newTestServer(t, false)
	tests := []struct {
		operation, body string
		change          func(*attempt)
		level, want     string
	}{
		{"Encrypt", `{"KeyId":"alias/x","Plaintext":"c2VjcmV0"}`, nil, "DEBUG", `operation=Encrypt key=alias/x`},
		{"Missing", `{}`, nil, "DEBUG", "Invalid keyId 'x'"},
		{"Unavailable", `{}`, nil, "WARN", "CKR_DEVICE_REMOVED"},
		{"Broken", `{}`, nil, "ERROR", "CKR_GENERAL_ERROR"},
		{"Panic", `{}`, nil, "ERROR", "handler_test.go"},
		{"Encrypt", `{"KeyId":"k","Plaintext":"c2VjcmV0"`, nil, "DEBUG", "SerializationException"},
		{"Encrypt", `{"Plaintext":"c2VjcmV0"}`, nil, "DEBUG", "Value null at 'keyId'"},
		{"Encrypt", `{"Plaintext":"c2VjcmV0"}`, func(a *attempt) { a.secret = "x" }, "DEBUG", "InvalidSignatureException"},
		{"NoSuchThing", `{}`, nil, "DEBUG", `operation="" key="" principal=""`},
		{"Missing", `{}`, nil, "DEBUG", `operation=Missing key="" principal=arn:aws:iam::111122223333:root`},
		{"Denied", `{}`, nil, "INFO", `operation=Denied key="" principal=arn:aws:iam::111122223333:root`},
		{"Denied", `{}`, nil, "INFO", "no statement allows it"},
	}
	for _, tt := range tests {
		s.log.take()
		var signature string
		resp, _ := s.do(t, tt.operation, tt.body, func(a *attempt) {
			if tt.change != nil {
				tt.change(a)
			}
			a.tamper = func(r *http.Request) {
				_, signature, _ = strings.Cut(r.Header.Get("Authorization"), "Signature=")
			}
		})
		var got string
		for range 100 { // it is written after the answer
			if got += s.log.take(); got != "" {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if !strings.Contains(got, "level="+tt.level+" ") || !strings.Contains(got, tt.want) ||
			!strings.Contains(got, "request="+resp.Header.Get("x-amzn-RequestId")) || strings.Count(got, "\n") != 1 {
			t.Errorf("%s %s:\ngot %s\nwant %s, %s", tt.operation, tt.body, got, tt.level, tt.want)
		}
		for _, secret := range []string{signature, testSecret, "c2VjcmV0"} {
			if strings.Contains(got, secret) {
				t.Errorf("%s: the log has a secret: %s", tt.operation, got)
			}
		}
	}
}

func TestClientGoesAway(t *testing.T) {
	s := newTestServer(t, false)
	a := defaultAttempt()
	a.body = `{}`
	a.prepare = func(r *http.Request) {
		r.URL.Scheme, r.URL.Host, _ = strings.Cut(s.URL, "://")
		r.Header.Set("X-Amz-Target", "TrentService.Wait")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Client().Do(a.signed(t).WithContext(ctx)); err == nil {
		t.Fatal("an answer")
	}
	var got string
	for range 100 {
		if got += s.log.take(); got != "" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !strings.Contains(got, "level=DEBUG") || !strings.Contains(got, "client went away") {
		t.Errorf("got %s", got)
	}
}

func TestDeadline(t *testing.T) {
	s := newTestServer(t, false)
	inner := s.Config.Handler
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 20*time.Millisecond)
		defer cancel()
		inner.ServeHTTP(w, r.WithContext(ctx))
	})
	resp, got := s.do(t, "Wait", `{}`)
	if want := `{"__type":"DependencyTimeoutException","message":"` + textTimeout + `"}`; resp.StatusCode != 500 || got != want {
		t.Errorf("got %d %s", resp.StatusCode, got)
	}
}

// TestStockSDK: the types that the SDK makes of answers are the proof that the names are right.
func TestStockSDK(t *testing.T) {
	s := newTestServer(t, false)
	s.Config.Handler.(*handler).verifier.now = time.Now
	client := awskms.New(awskms.Options{
		Region:           testRegion,
		Credentials:      credentials.NewStaticCredentialsProvider(testKey, testSecret, ""),
		BaseEndpoint:     &s.URL,
		RetryMaxAttempts: 1,
	})
	if _, err := client.EnableKey(t.Context(), &awskms.EnableKeyInput{KeyId: aws.String("k")}); err != nil {
		t.Error(err)
	}
	out, err := client.Encrypt(t.Context(), &awskms.EncryptInput{KeyId: aws.String("k"), Plaintext: []byte{1, 2, 3}})
	if err != nil || *out.KeyId != "k" {
		t.Errorf("got %+v, %v", out, err)
	}
	_, err = client.Decrypt(t.Context(), &awskms.DecryptInput{CiphertextBlob: []byte{1}})
	if e, ok := errors.AsType[*types.InvalidCiphertextException](err); !ok || e.Message != nil {
		t.Errorf("got %v", err)
	}
	if !regexp.MustCompile(`RequestID: [0-9a-f-]{36},`).MatchString(fmt.Sprint(err)) {
		t.Errorf("no request id in %v", err)
	}
}

// TestBuffersAreWiped: nothing of a request is in the memory that the next one gets.
func TestBuffersAreWiped(t *testing.T) {
	x := exchanges.New().(*exchange)
	r := httptest.NewRequest("POST", "/", strings.NewReader(strings.Repeat("secret", 2000)))
	if err := x.read(r); err != nil {
		t.Fatal(err)
	}
	x.out.WriteString("secret")
	in, out := x.in[:cap(x.in)], x.out.Bytes()
	x.release()
	if bytes.ContainsAny(in, "secret") || bytes.ContainsAny(out, "secret") {
		t.Error("there is something left")
	}
}

func TestRead(t *testing.T) {
	for _, size := range []int{0, 1, 4095, 4096, 4097, 100_000, maxBody} {
		for _, declared := range []bool{true, false} {
			x := exchanges.New().(*exchange)
			r := httptest.NewRequest("POST", "/", strings.NewReader(strings.Repeat("x", size)))
			if !declared {
				r.ContentLength = -1
			}
			if err := x.read(r); err != nil || len(x.in) != size {
				t.Errorf("%d: got %d, %v", size, len(x.in), err)
			}
		}
	}
	x := exchanges.New().(*exchange)
	r := httptest.NewRequest("POST", "/", strings.NewReader(strings.Repeat("x", 1<<20)))
	r.ContentLength = -1
	if err := x.read(r); err != errTooLarge || cap(x.in) > maxBody+1 {
		t.Errorf("got %v, %d bytes", err, cap(x.in))
	}
}

func BenchmarkHandler(b *testing.B) {
	s := newTestServer(b, false)
	h := s.Config.Handler.(*handler)
	h.log, h.records = slog.New(slog.DiscardHandler), noRecords{}
	a := defaultAttempt()
	a.body = `{"KeyId":"arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab","Plaintext":"` + strings.Repeat("AAAA", 11) + `"}`
	a.prepare = func(r *http.Request) { r.Header.Set("X-Amz-Target", "TrentService.Encrypt") }
	r, body := arrived(b, a.signed(b))
	w := &discard{header: make(http.Header)}
	b.ReportAllocs()
	for b.Loop() {
		r.Body = io.NopCloser(bytes.NewReader(body))
		h.ServeHTTP(w, r)
		if w.status != 200 {
			b.Fatal(strconv.Itoa(w.status))
		}
	}
}

type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
