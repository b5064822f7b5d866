package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var noKeys = map[string]fakeAnswer{
	"ListKeys":    always(`{"Keys":[],"Truncated":false}`),
	"ListAliases": always(`{"Aliases":[],"Truncated":false}`),
}

func TestRefusesToTalkToAWS(t *testing.T) {
	awsEnvironment(t)
	t.Setenv("AWS_REGION", "us-east-1")
	command(t, "key", "list").want(t, exitMisuse, "no server is named, and AWS itself is not meant", "hint: export AWS_ENDPOINT_URL_KMS=", "--endpoint")

	t.Setenv("AWS_ENDPOINT_URL_KMS", "https://kms.example.com")
	t.Setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
	command(t, "key", "list").want(t, exitMisuse, "no server is named")
}

func TestFindsTheServer(t *testing.T) {
	for name, set := range map[string]func(t *testing.T, url string) []string{
		"flag": func(t *testing.T, url string) []string { return []string{"--endpoint", url} },
		"flag before variable": func(t *testing.T, url string) []string {
			t.Setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:1")
			return []string{"--endpoint", url}
		},
		"variable of the service": func(t *testing.T, url string) []string { t.Setenv("AWS_ENDPOINT_URL_KMS", url); return nil },
		"variable of all":         func(t *testing.T, url string) []string { t.Setenv("AWS_ENDPOINT_URL", url); return nil },
		"profile": func(t *testing.T, url string) []string {
			text := "[profile mine]\nregion = eu-test-1\nservices = here\n[services here]\nkms =\n  endpoint_url = " + url + "\n"
			if err := os.WriteFile(os.Getenv("AWS_CONFIG_FILE"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			text = "[mine]\naws_access_key_id = AKIAFAKE\naws_secret_access_key = secret\n"
			if err := os.WriteFile(os.Getenv("AWS_SHARED_CREDENTIALS_FILE"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			return []string{"--profile", "mine"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeKMS(t, noKeys)
			os.Unsetenv("AWS_ENDPOINT_URL_KMS")
			command(t, append([]string{"key", "list"}, set(t, f.URL)...)...).want(t, exitOK, "there are no keys yet")
		})
	}
}

func TestRegion(t *testing.T) {
	scope := ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, scope, _ = strings.Cut(r.Header.Get("Authorization"), "Credential=AKIAFAKE/")
		w.Write([]byte(`{"Aliases":[]}`))
	}))
	t.Cleanup(s.Close)
	awsEnvironment(t)
	for _, test := range []struct{ variable, flag, want string }{
		{"", "", "local-1"},
		{"eu-test-1", "", "eu-test-1"},
		{"eu-test-1", "eu-test-2", "eu-test-2"},
	} {
		if test.variable != "" {
			t.Setenv("AWS_REGION", test.variable)
		}
		command(t, "alias", "list", "--endpoint", s.URL, "--region", test.flag).want(t, exitOK)
		if !strings.Contains(scope, "/"+test.want+"/kms/") {
			t.Errorf("signed for %s, want %s", scope, test.want)
		}
	}
}

func TestSocket(t *testing.T) {
	f := newFakeKMS(t, noKeys)
	dir, err := os.MkdirTemp("", "sock") // shorter than what t.TempDir returns, which may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: f}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })

	f.Close()
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	command(t, "key", "list", "--endpoint", "unix:"+path).want(t, exitOK)
	command(t, "key", "list", "--endpoint", "unix://"+path).want(t, exitOK)
	t.Setenv("AWS_ENDPOINT_URL_KMS", "unix:"+path)
	command(t, "key", "list").want(t, exitOK)
	command(t, "key", "list", "--endpoint", "unix:"+path+"2").want(t, exitFailed, "there is no socket", "hint: is the server running?")
	command(t, "key", "list", "--endpoint", "unix:").want(t, exitMisuse, "a path must follow")
}

func TestTLS(t *testing.T) {
	f := newFakeKMS(t, noKeys)
	s := httptest.NewUnstartedServer(f)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	command(t, "key", "list", "--endpoint", s.URL).want(t, exitFailed, "signed by nobody this machine trusts", "hint: AWS_CA_BUNDLE=FILE")
	command(t, "key", "list", "--endpoint", strings.Replace(f.URL, "http:", "https:", 1)).want(t, exitFailed, "answers without TLS")
	command(t, "key", "list", "--endpoint", strings.Replace(s.URL, "https:", "http:", 1)).want(t, exitFailed, "400 Bad Request, which is not an answer of a KMS")

	bundle := filepath.Join(t.TempDir(), "ca.pem")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(bundle, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CA_BUNDLE", bundle)
	command(t, "key", "list", "--endpoint", s.URL).want(t, exitOK)
	command(t, "key", "list", "--endpoint", strings.Replace(s.URL, "127.0.0.1", "localhost", 1)).
		want(t, exitFailed, "not localhost", "hint: the endpoint must have a name that is in the server's certificate")
}

func TestRefusalsInWords(t *testing.T) {
	for _, test := range []struct {
		refusal fakeRefusal
		want    string
		hint    string
	}{
		{fakeRefusal{400, "NotFoundException", "Key 'x' does not exist"}, "Key 'x' does not exist (NotFoundException, request " + fakeRequest + ")", "strongroom key list"},
		{fakeRefusal{400, "DisabledException", "x is disabled."}, "x is disabled.", "strongroom key enable"},
		{fakeRefusal{400, "KMSInvalidStateException", "x is pending deletion."}, "x is pending deletion.", "strongroom key undelete"},
		{fakeRefusal{400, "KMSInvalidStateException", "x is Creating."}, "x is Creating.", "strongroom key describe"},
		{fakeRefusal{400, "InvalidCiphertextException", ""}, "the ciphertext cannot be opened (InvalidCiphertextException, request", "--context must be exactly"},
		{fakeRefusal{400, "IncorrectKeyException", ""}, "made with another key", "leave --key out"},
		{fakeRefusal{400, "UnrecognizedClientException", "The security token included in the request is invalid."}, "is invalid.", "AWS_ACCESS_KEY_ID"},
		{fakeRefusal{400, "InvalidSignatureException", "Signature expired"}, "Signature expired", "the clocks here and on the server must agree"},
		{fakeRefusal{400, "InvalidSignatureException", "Credential should be scoped to a valid region."}, "valid region", "--region or AWS_REGION"},
		{fakeRefusal{400, "AccessDeniedException", ""}, "not permitted (AccessDeniedException", "must allow it"},
		{fakeRefusal{400, "NewException", "some\nthing \x1b[31mred"}, "some thing \ufffd[31mred (NewException, request", ""},
		{fakeRefusal{400, "NewException", ""}, "decrypt: NewException, request " + fakeRequest, ""},
	} {
		newFakeKMS(t, map[string]fakeAnswer{"Decrypt": always(test.refusal)})
		got := typed(t, "some bytes", "decrypt").want(t, exitFailed, "strongroom: decrypt: ", test.want, test.hint)
		if test.hint != "" && !strings.Contains(got.stderr, "\nhint: ") {
			t.Errorf("%s: no hint:\n%s", test.refusal.code, got.stderr)
		}
		if strings.Contains(got.stderr, "operation error") || strings.Contains(got.stderr, "https response error") {
			t.Errorf("%s: the SDK's own text:\n%s", test.refusal.code, got.stderr)
		}
	}
}

func TestDeviceAway(t *testing.T) {
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	newFakeKMS(t, map[string]fakeAnswer{"Decrypt": always(fakeRefusal{500, "KeyUnavailableException", ""})})
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	typed(t, "some bytes", "decrypt").want(t, exitFailed, "the server cannot use the key's material (KeyUnavailableException, request "+fakeRequest+")", "hint: its HSM cannot be reached")
}

func TestNobodyAnswers(t *testing.T) {
	awsEnvironment(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	l.Close()
	began := time.Now()
	command(t, "key", "list", "--endpoint", url).want(t, exitFailed, "strongroom: list keys: nobody answers at "+url, "hint: is the server running?")
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %s to say so", took)
	}
}

func TestNoAnswerInTime(t *testing.T) {
	awsEnvironment(t)
	reached := make(chan bool, 10)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // only then does the server notice that the client is gone
		reached <- true
		select {
		case <-r.Context().Done():
		case <-time.After(10 * time.Second):
		}
	}))
	t.Cleanup(s.Close)
	command(t, "key", "list", "--endpoint", s.URL, "--timeout", "100ms").want(t, exitFailed, "no answer from "+s.URL+" within 100ms", "hint: --timeout")
	<-reached

	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-reached; cancel() }()
	var stderr bytes.Buffer
	run(ctx, []string{"strongroom", "key", "list", "--endpoint", s.URL}, nil, new(bytes.Buffer), &stderr)
	if want := "strongroom: list keys: interrupted\n"; stderr.String() != want {
		t.Errorf("got %q, want %q", &stderr, want)
	}
}

func TestConfiguredWrongly(t *testing.T) {
	newFakeKMS(t, noKeys)
	command(t, "key", "list", "--endpoint", "kms.example.com").want(t, exitMisuse, `endpoint "kms.example.com": is neither`)
	command(t, "key", "list", "--timeout", "0s").want(t, exitMisuse, "--timeout 0s")
	command(t, "key", "list", "--profile", "nope").want(t, exitMisuse, `there is no profile "nope"`)
	os.Unsetenv("AWS_ACCESS_KEY_ID")
	os.Unsetenv("AWS_SECRET_ACCESS_KEY")
	command(t, "key", "list").want(t, exitMisuse, "no credentials are given", "hint: set AWS_ACCESS_KEY_ID")
}

func TestKeyName(t *testing.T) {
	for in, want := range map[string]string{
		fakeKeyID:                              fakeKeyID,
		fakeKeyARN:                             fakeKeyARN,
		"mrk-1234abcd12ab34cd56ef1234567890ab": "mrk-1234abcd12ab34cd56ef1234567890ab",
		"app":                                  "alias/app",
		"alias/app":                            "alias/app",
		"team/app":                             "alias/team/app",
	} {
		if got := keyName(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}
