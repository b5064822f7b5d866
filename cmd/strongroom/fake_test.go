package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A fakeKMS answers each operation with what a test wants, and remembers what it was asked.
type fakeKMS struct {
	*httptest.Server
	t       *testing.T
	answers map[string]fakeAnswer

	mu    sync.Mutex
	calls []fakeCall
}

type fakeAnswer func(in map[string]any) any // a fakeRefusal, or the body as a value or as JSON text

type fakeCall struct {
	operation string
	in        map[string]any
}

type fakeRefusal struct {
	status        int
	code, message string
}

const (
	fakeKeyID   = "1234abcd-12ab-34cd-56ef-1234567890ab"
	fakeKeyARN  = "arn:aws:kms:local-1:111122223333:key/" + fakeKeyID
	fakeRequest = "11111111-2222-3333-4444-555555555555"
)

// newFakeKMS starts a fake and makes it the server of every command that the test runs.
func newFakeKMS(t *testing.T, answers map[string]fakeAnswer) *fakeKMS {
	t.Helper()
	f := &fakeKMS{t: t, answers: answers}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	awsEnvironment(t)
	t.Setenv("AWS_ENDPOINT_URL_KMS", f.URL)
	return f
}

func (f *fakeKMS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	operation := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "TrentService.")
	in := make(map[string]any)
	if err := json.NewDecoder(r.Body).Decode(&in); errors.Is(err, io.ErrUnexpectedEOF) {
		return // a command that gives up what it does at the same time has gone away
	} else if err != nil {
		f.t.Errorf("%s: %v", operation, err)
	}
	f.mu.Lock()
	f.calls = append(f.calls, fakeCall{operation, in})
	answer := f.answers[operation]
	f.mu.Unlock()
	var out any = fakeRefusal{400, "UnsupportedOperationException", "not faked"}
	if answer != nil {
		out = answer(in)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("x-amzn-RequestId", fakeRequest)
	switch out := out.(type) {
	case fakeRefusal:
		w.WriteHeader(out.status)
		body := map[string]string{"__type": out.code}
		if out.message != "" {
			body["message"] = out.message
		}
		json.NewEncoder(w).Encode(body)
	case string:
		io.WriteString(w, out)
	default:
		json.NewEncoder(w).Encode(out)
	}
}

// answer changes how an operation is answered.
func (f *fakeKMS) answer(operation string, how fakeAnswer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[operation] = how
}

// called returns the names of the operations that were asked for, in order.
func (f *fakeKMS) called() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for _, c := range f.calls {
		names = append(names, c.operation)
	}
	return names
}

// last returns the input of the last call of an operation, nil if there was none.
func (f *fakeKMS) last(operation string) map[string]any {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range slices.Backward(f.calls) {
		if c.operation == operation {
			return c.in
		}
	}
	return nil
}

func always(v any) fakeAnswer { return func(map[string]any) any { return v } }

// metadata is the JSON of a key as DescribeKey and CreateKey answer it.
func fakeMetadata(state, more string) string {
	return `{"KeyMetadata":{"AWSAccountId":"111122223333","KeyId":"` + fakeKeyID + `","Arn":"` + fakeKeyARN + `",
		"CreationDate":1700000000.5,"Enabled":` + map[bool]string{true: "true", false: "false"}[state == "Enabled"] + `,
		"Description":"of app","KeyUsage":"ENCRYPT_DECRYPT","KeyState":"` + state + `","Origin":"AWS_KMS","KeyManager":"CUSTOMER",
		"KeySpec":"SYMMETRIC_DEFAULT","EncryptionAlgorithms":["SYMMETRIC_DEFAULT"],"MultiRegion":false` + more + `}}`
}

// awsEnvironment gives the test credentials and hides what the machine has configured.
func awsEnvironment(t *testing.T) {
	t.Helper()
	home := t.TempDir()
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") || strings.HasSuffix(strings.ToLower(name), "_proxy") {
			t.Setenv(name, "") // so that it is restored
			os.Unsetenv(name)
		}
	}
	t.Setenv("HOME", home)
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(home, "config"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(home, "credentials"))
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAFAKE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
}

// A said is what the program said and how it ended.
type said struct {
	code           int
	stdout, stderr string
}

// typed runs the program as run does, with stdin as a string.
func typed(t *testing.T, stdin string, args ...string) said {
	t.Helper()
	return runWith(t, strings.NewReader(stdin), new(bytes.Buffer), args...)
}

// command runs the program without input.
func command(t *testing.T, args ...string) said {
	t.Helper()
	return typed(t, "", args...)
}

type stringWriter interface {
	io.Writer
	String() string
}

func runWith(t *testing.T, stdin io.Reader, stdout stringWriter, args ...string) said {
	t.Helper()
	var stderr bytes.Buffer
	code := run(context.Background(), append([]string{"strongroom"}, args...), stdin, stdout, &stderr)
	return said{code, stdout.String(), stderr.String()}
}

// want fails the test unless the program ended with code and each text is somewhere in what it said on stderr.
func (s said) want(t *testing.T, code int, stderr ...string) said {
	t.Helper()
	if s.code != code {
		t.Errorf("exit code %d, want %d; stderr:\n%s", s.code, code, s.stderr)
	}
	for _, text := range stderr {
		if !strings.Contains(s.stderr, text) {
			t.Errorf("stderr lacks %q:\n%s", text, s.stderr)
		}
	}
	return s
}

// wantOut fails the test unless stdout is exactly that.
func (s said) wantOut(t *testing.T, stdout string) said {
	t.Helper()
	if s.stdout != stdout {
		t.Errorf("stdout is\n%s\nwant\n%s", s.stdout, stdout)
	}
	return s
}

// A terminal is a reader or writer that a person is at.
type terminal struct{ io.ReadWriter }

func (terminal) IsTerminal() bool { return true }

func (t terminal) String() string { return t.ReadWriter.(*bytes.Buffer).String() }

func newTerminal(text string) terminal { return terminal{bytes.NewBufferString(text)} }
