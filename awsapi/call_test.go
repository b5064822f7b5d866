package awsapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"strongroom/hsm"
	"strongroom/kms"
	"strongroom/kms/audit"
)

// fakeRecords keep what they are told. They are safe for concurrent use.
type fakeRecords struct {
	mu             sync.Mutex
	began, written []fakeRecord
	beginErr       error
	recordErr      error
	recording      func() // called by Record
}

type fakeRecord struct{ operation, principal, code, message string }

func (f *fakeRecords) Begin(who kms.Caller, operation string) (kms.Caller, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.began = append(f.began, fakeRecord{operation: operation, principal: who.Principal})
	return who, f.beginErr
}

func (f *fakeRecords) Record(_ context.Context, who kms.Caller, code, message string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.recording != nil {
		f.recording()
	}
	f.written = append(f.written, fakeRecord{"", who.Principal, code, message})
	return f.recordErr
}

// take returns what was begun and recorded since the last time, one line each.
func (f *fakeRecords) take() (began, written []fakeRecord) {
	f.mu.Lock()
	defer f.mu.Unlock()
	began, written = f.began, f.written
	f.began, f.written = nil, nil
	return began, written
}

// noRecords cost nothing.
type noRecords struct{}

func (noRecords) Begin(who kms.Caller, _ string) (kms.Caller, error)       { return who, nil }
func (noRecords) Record(context.Context, kms.Caller, string, string) error { return nil }

const (
	rootARN    = "arn:aws:iam::111122223333:root"
	sessionARN = "arn:aws:sts::111122223333:assumed-role/admin/alice"
)

func TestEveryRequestIsRecordedOnce(t *testing.T) {
	s := newTestServer(t, false)
	tests := []struct {
		name, operation, body string
		change                func(*attempt)
		want                  *fakeRecord // nil for none
	}{
		{"success", "Encrypt", `{"KeyId":"k"}`, nil, &fakeRecord{"Encrypt", rootARN, "", ""}},
		{"void", "EnableKey", `{"KeyId":"k"}`, nil, &fakeRecord{"EnableKey", rootARN, "", ""}},
		{"session", "EnableKey", `{"KeyId":"k"}`, func(a *attempt) { a.id, a.token = testSession, testToken }, &fakeRecord{"EnableKey", sessionARN, "", ""}},
		{"refusal", "Missing", `{}`, nil, &fakeRecord{"Missing", rootARN, "NotFoundException", "Invalid keyId 'x'"}},
		{"denied", "Denied", `{}`, nil, &fakeRecord{"Denied", rootARN, "AccessDeniedException", "User: x is not authorized"}},
		{"silent refusal", "Decrypt", `{}`, nil, &fakeRecord{"Decrypt", rootARN, "InvalidCiphertextException", ""}},
		{"our fault", "Broken", `{}`, nil, &fakeRecord{"Broken", rootARN, "KMSInternalException", ""}},
		{"panic", "Panic", `{}`, nil, &fakeRecord{"Panic", rootARN, "KMSInternalException", ""}},
		{"unsupported", "CreateGrant", `{}`, nil, &fakeRecord{"CreateGrant", rootARN, "UnsupportedOperationException", "The operation is not supported."}},
		{"not JSON", "Encrypt", `{`, nil, &fakeRecord{"Encrypt", rootARN, "SerializationException", ""}},
		{"wrong type", "Encrypt", `{"KeyId":1}`, nil, &fakeRecord{"Encrypt", rootARN, "SerializationException", "NUMBER_VALUE can not be converted to a String"}},
		{"constraint", "Encrypt", `{}`, nil, &fakeRecord{"Encrypt", rootARN, "ValidationException",
			"1 validation error detected: Value null at 'keyId' failed to satisfy constraint: Member must not be null"}},

		{"wrong signature", "Encrypt", `{"KeyId":"k"}`, func(a *attempt) { a.secret = "x" }, nil},
		{"unsigned", "Encrypt", `{"KeyId":"k"}`, func(a *attempt) {
			a.tamper = func(r *http.Request) { r.Header.Del("Authorization") }
		}, nil},
		{"expired session", "Encrypt", `{"KeyId":"k"}`, func(a *attempt) { a.id, a.token = "ASIAOVER", testToken }, nil},
		{"unknown operation", "NoSuchThing", `{}`, nil, nil},
		{"too large", "Encrypt", strings.Repeat("x", maxBody+1), nil, nil},
		{"another content type", "Encrypt", `{}`, func(a *attempt) {
			a.tamper = func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }
		}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.change == nil {
				tt.change = func(*attempt) {}
			}
			s.do(t, tt.operation, tt.body, tt.change)
			began, written := s.records.take()
			if tt.want == nil {
				if len(began) != 0 || len(written) != 0 {
					t.Errorf("recorded %q %q", began, written)
				}
				return
			}
			if want := []fakeRecord{{operation: tt.want.operation, principal: tt.want.principal}}; !slices.Equal(began, want) {
				t.Errorf("began %q, want %q", began, want)
			}
			tt.want.operation = ""
			if want := []fakeRecord{*tt.want}; !slices.Equal(written, want) {
				t.Errorf("recorded %q, want %q", written, want)
			}
		})
	}
}

// TestBeginRefuses: no work is done then, and that too is recorded.
func TestBeginRefuses(t *testing.T) {
	s := newTestServer(t, false)
	s.records.beginErr = &kms.Error{Code: kms.Throttled, Detail: "slow down"}
	resp, got := s.do(t, "Encrypt", `{"KeyId":"k"}`)
	if resp.StatusCode != 400 || got != `{"__type":"ThrottlingException","message":"slow down"}` {
		t.Errorf("got %d %s", resp.StatusCode, got)
	}
	if _, written := s.records.take(); !slices.Equal(written, []fakeRecord{{"", rootARN, "ThrottlingException", "slow down"}}) {
		t.Errorf("recorded %q", written)
	}
	s.records.beginErr, s.records.recordErr = &kms.Error{Code: kms.Internal}, errors.New("disk full")
	resp, got = s.do(t, "Encrypt", `{"KeyId":"k"}`)
	if resp.StatusCode != 500 || got != `{"__type":"KMSInternalException"}` {
		t.Errorf("got %d %s", resp.StatusCode, got)
	}
	if s.who.Load() != nil {
		t.Error("the operation was run")
	}
}

// A watched is where an answer goes, and knows whether anything did.
type watched struct {
	discard
	sent bool
	body bytes.Buffer
}

func (w *watched) WriteHeader(status int) { w.sent = true; w.discard.WriteHeader(status) }
func (w *watched) Write(b []byte) (int, error) {
	w.sent = true
	return w.body.Write(b)
}

// TestRecordComesFirst: nothing is sent before the record is written, and nothing of the answer if it cannot be.
func TestRecordComesFirst(t *testing.T) {
	s := newTestServer(t, false)
	h := s.Config.Handler.(*handler)
	secret := `{"KeyId":"k","Plaintext":"` + strings.Repeat("c2VjcmV0", 8) + `"}`
	for _, failure := range []any{nil, errors.New("disk full"), context.DeadlineExceeded, &kms.Error{Code: kms.AccessDenied, Detail: "not for clients"}, "a panic"} {
		for _, tt := range []struct{ operation, body string }{
			{"Encrypt", secret}, {"EnableKey", `{"KeyId":"k"}`}, {"Missing", `{}`}, {"Panic", `{}`}, {"Encrypt", `{`}, {"CreateGrant", `{}`},
		} {
			a := defaultAttempt()
			a.body = tt.body
			a.prepare = func(r *http.Request) { r.Header.Set("X-Amz-Target", targetPrefix+tt.operation) }
			r, body := arrived(t, a.signed(t))
			r.Body = io.NopCloser(bytes.NewReader(body))
			w := &watched{discard: discard{header: make(http.Header)}}
			recorded := 0
			s.records.recordErr, _ = failure.(error)
			s.records.recording = func() {
				recorded++
				if w.sent {
					t.Errorf("%s: something was sent before the record was written", tt.operation)
				}
				if failure == "a panic" {
					panic(failure)
				}
			}
			s.log.take()
			h.ServeHTTP(w, r)
			if recorded != 1 {
				t.Errorf("%s: recorded %d times", tt.operation, recorded)
			}
			if failure == nil {
				continue
			}
			if got := w.body.String(); w.status != 500 || got != `{"__type":"KMSInternalException"}` {
				t.Errorf("%s, %v: got %d %s", tt.operation, failure, w.status, got)
			}
			log := s.log.take()
			if reason, ok := failure.(error); ok && !strings.Contains(log, reason.Error()) || !strings.Contains(log, "level=ERROR") {
				t.Errorf("%s, %v: the log says %s", tt.operation, failure, log)
			}
			if tt.operation == "Missing" && !strings.Contains(log, "Invalid keyId") {
				t.Errorf("the log does not say what else failed: %s", log)
			}
		}
	}
}

// TestUnrecordedAnswerIsWiped: what was encoded is gone from memory.
func TestUnrecordedAnswerIsWiped(t *testing.T) {
	s := newTestServer(t, false)
	h := s.Config.Handler.(*handler)
	a := defaultAttempt()
	a.body = `{"KeyId":"k","Plaintext":"` + strings.Repeat("c2VjcmV0", 8) + `"}`
	a.prepare = func(r *http.Request) { r.Header.Set("X-Amz-Target", targetPrefix+"Encrypt") }
	r, body := arrived(t, a.signed(t))
	x := newExchange(string(body))
	encoded := false
	s.records.recording = func() { encoded = strings.Contains(x.out.String(), "c2VjcmV0") }
	s.records.recordErr = errors.New("disk full")
	if err := h.call(r, x, h.kms); err == nil || !encoded {
		t.Errorf("got %v, encoded %v", err, encoded)
	}
	b := x.out.AvailableBuffer()
	if x.out.Len() != 0 || bytes.ContainsFunc(b[:cap(b)], func(r rune) bool { return r != 0 }) {
		t.Error("there is something left")
	}
}

// Parts of a service, of which there is just enough to begin a request.
type (
	noStore  struct{}
	noTx     struct{ kms.Tx }
	noDevice struct{ hsm.Device }
	recorder struct {
		mu   sync.Mutex
		list []audit.Record
	}
)

func (noStore) View(_ context.Context, f func(kms.Tx) error) error   { return f(noTx{}) }
func (noStore) Update(_ context.Context, f func(kms.Tx) error) error { return f(noTx{}) }
func (noStore) Generation(context.Context) (int64, error)            { return 0, nil }
func (noStore) Sound() bool                                          { return true }

func (noStore) Healthy(context.Context) error { return nil }
func (noStore) Changes(context.Context, int64) ([]kms.Change, int64, error) {
	return nil, 0, nil
}
func (noTx) Deployment() (*kms.Deployment, error) {
	return &kms.Deployment{Partition: "aws", Region: testRegion, UsageSince: testTime}, nil
}
func (noTx) SystemKey(string) (*kms.SystemKey, error) { return &kms.SystemKey{}, nil }

func (r *recorder) Append(_ context.Context, record *audit.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := *record
	kept.RequestParameters = bytes.Clone(kept.RequestParameters)
	r.list = append(r.list, kept)
	return nil
}

func (r *recorder) Err() error { return nil }

func (r *recorder) Expect() {}

// TestRecord has the service itself write the record.
func TestRecord(t *testing.T) {
	log := new(recorder)
	service, err := kms.New(t.Context(), kms.Options{Device: noDevice{}, Store: noStore{}, Audit: log, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	h := newHandler(parts{service: service, records: service, keys: newFakeKeys(), operations: operations, sts: stsOperations},
		Options{Log: slog.New(slog.DiscardHandler), Region: testRegion, Now: func() time.Time { return testTime }})
	do := func(operation, body string, change func(*attempt)) (string, audit.Record) {
		t.Helper()
		a := defaultAttempt()
		a.body = body
		a.prepare = func(r *http.Request) {
			r.Header.Set("X-Amz-Target", targetPrefix+operation)
			r.Header.Set("User-Agent", "tester/1.0")
		}
		change(&a)
		r, sent := arrived(t, a.signed(t))
		r.Body = io.NopCloser(bytes.NewReader(sent))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if len(log.list) != 1 {
			t.Fatalf("%s: %d records, answer %s", operation, len(log.list), w.Body)
		}
		record := log.list[0]
		log.list = nil
		if !slices.Contains(slices.Concat(slices.Collect(maps.Values(w.Header()))...), record.RequestID) || record.UserAgent != "tester/1.0" || record.SourceIP != "127.0.0.1" {
			t.Errorf("got %+v", record)
		}
		return w.Body.String(), record
	}
	same := func(*attempt) {}

	body, got := do("Decrypt", `{"CiphertextBlob":"AAAA","EncryptionContext":{"a":"b"},"GrantTokens":["secret"]}`, same)
	if got.Name != "Decrypt" || got.ErrorCode != "InvalidCiphertextException" || got.Identity.Type != "Root" ||
		string(got.RequestParameters) != `{"encryptionContext":{"a":"b"},"encryptionAlgorithm":"SYMMETRIC_DEFAULT"}` {
		t.Errorf("got %+v %s, answer %s", got, got.RequestParameters, body)
	}
	body, got = do("Decrypt", `{"CiphertextBlob":"AAAA","KeyId":1}`, same)
	if got.ErrorCode != "SerializationException" || got.RequestParameters != nil {
		t.Errorf("got %+v %s, answer %s", got, got.RequestParameters, body)
	}
	body, got = do("", identityBody, func(a *attempt) {
		identityAttempt(a)
		prepare := a.prepare
		a.prepare = func(r *http.Request) {
			prepare(r)
			r.Header.Set("User-Agent", "tester/1.0")
		}
	})
	if got.Name != "GetCallerIdentity" || got.Source != "sts.amazonaws.com" || got.ErrorCode != "" || got.RequestParameters != nil ||
		!strings.Contains(body, "<Arn>"+rootARN+"</Arn><UserId>111122223333</UserId><Account>111122223333</Account>") {
		t.Errorf("got %+v %s, answer %s", got, got.RequestParameters, body)
	}
}
