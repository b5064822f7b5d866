package test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// The files wire_*_test.go speak HTTP themselves, to say what no SDK would. Requests are signed by the SDK's signer, because without a signature nothing
// is looked at.

// An answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte

	// Of an error in JSON:
	code    string
	message string
	silent  bool // there was no message at all
}

// request returns an unsigned request for an operation.
func (s *server) request(t testing.TB, operation string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(within(t), http.MethodPost, s.env["AWS_ENDPOINT_URL_KMS"]+"/", body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "TrentService."+operation)
	return r
}

// sign signs r for a body.
func (s *server) sign(t testing.TB, r *http.Request, body []byte) {
	t.Helper()
	if err := v4.NewSigner().SignHTTP(context.Background(), s.credentials(), r, hashOf(body), "kms", s.region(), time.Now()); err != nil {
		t.Fatal(err)
	}
}

// hashOf returns what a signature says of a body.
func hashOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// send sends r and reads the answer. It fails the test for what must not happen whatever is sent: no answer, one that says it is the server's fault, or one
// in another form than clients can read.
func send(t testing.TB, r *http.Request) answer {
	t.Helper()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Errorf("no answer: %v", err)
		return answer{}
	}
	defer response.Body.Close()
	a := answer{status: response.StatusCode, header: response.Header}
	if a.body, err = io.ReadAll(response.Body); err != nil {
		t.Errorf("half an answer: %v", err)
	}
	if a.status >= 500 {
		t.Errorf("status %d: %s", a.status, a.body)
	}
	if !isUUID(a.header.Get("X-Amzn-Requestid")) {
		t.Errorf("status %d with request id %q", a.status, a.header.Get("X-Amzn-Requestid"))
	}
	if a.status == http.StatusBadRequest {
		var e struct {
			Type    string  `json:"__type"`
			Message *string `json:"message"`
		}
		if err := json.Unmarshal(a.body, &e); err != nil || e.Type == "" || a.header.Get("Content-Type") != "application/x-amz-json-1.1" {
			t.Errorf("an error as %s: %s", a.header.Get("Content-Type"), a.body)
		}
		a.code, a.silent = e.Type, e.Message == nil
		if e.Message != nil {
			a.message = *e.Message
		}
	}
	return a
}

// post sends a signed body to an operation.
func (s *server) post(t testing.TB, operation, body string) answer {
	t.Helper()
	r := s.request(t, operation, strings.NewReader(body))
	s.sign(t, r, []byte(body))
	return send(t, r)
}

// expect sends a body and fails the test unless the answer is this error with this message; "" is no message at all.
func (s *server) expect(t testing.TB, operation, body, code, message string) {
	t.Helper()
	a := s.post(t, operation, body)
	if a.status != http.StatusBadRequest || a.code != code || a.message != message || a.silent != (message == "") {
		t.Errorf("%s %.300s\n got %d %s %q\nwant 400 %s %q", operation, body, a.status, a.code, a.message, code, message)
	}
}

// works fails the test unless the server still does all of its work.
func (s *server) works(t testing.TB) {
	t.Helper()
	c := s.client()
	key := newKey(t, c)
	for operation, produce := range producers {
		blob, plaintext, err := produce(within(t), c, *key.KeyId, map[string]string{"still": "there"})
		if err != nil {
			t.Errorf("afterwards %s: %v", operation, err)
			continue
		}
		if got, err := decrypt(within(t), c, blob, map[string]string{"still": "there"}); err != nil || plaintext != nil && !bytes.Equal(got, plaintext) {
			t.Errorf("afterwards Decrypt: %v", err)
		}
	}
	response, err := http.Get(s.env["AWS_ENDPOINT_URL_KMS"] + "/readyz")
	if err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("afterwards readyz: %v, %v", response, err)
	}
	if err == nil {
		response.Body.Close()
	}
	if err := s.checkLog(); err != nil {
		t.Error(err)
	}
}

func bodyOf(s string) io.ReadCloser { return io.NopCloser(strings.NewReader(s)) }

func base64Of(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// text writes s as a JSON string.
func text(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}
