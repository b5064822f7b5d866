// Package test looks at the whole program from outside: it builds it, starts `strongroom dev`, and speaks to it as clients do.
package test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"strongroom/softhsm"
)

// program is the path of the program under test. TestMain builds it.
var program string

func TestMain(m *testing.M) {
	if dir := os.Getenv(listObjectsOf); dir != "" {
		os.Exit(listObjects(dir))
	}
	os.Exit(run(m))
}

// run builds the program, runs the tests, and stops the server that they shared.
func run(m *testing.M) int {
	flag.Parse()
	dir, err := os.MkdirTemp("", "strongroom-test-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	if err := findTools(); err != nil {
		return fail(err)
	}
	os.Setenv("GORACE", gorace)
	if program = os.Getenv(programOfParent); program == "" {
		program = filepath.Join(dir, "strongroom")
		if err := build(program); err != nil {
			return fail(err)
		}
	}
	common.dir = filepath.Join(dir, "common")
	code := m.Run()
	if common.server != nil {
		if err := common.server.end(); err != nil {
			code = fail(fmt.Errorf("the server that tests share: %w", err))
		}
	}
	return code
}

func build(program string) error {
	args := []string{"build", "-o", program}
	if raced() {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "strongroom/cmd/strongroom")...)
	cmd.Env = append(os.Environ(), "GOEXPERIMENT="+cmp.Or(os.Getenv("GOEXPERIMENT"), experiment))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return nil
}

// experiment is what the Makefile builds the program with.
const experiment = "runtimesecret"

// gorace keeps the race detector, where it is on, from making every end of the program take a second.
const gorace = "atexit_sleep_ms=0"

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "FAIL:", err)
	return 1
}

// findTools returns an error that says how to install what is missing. To go without would be to pass without having looked.
func findTools() error {
	var missing []string
	if _, err := softhsm.Module(); err != nil {
		missing = append(missing, "softhsm2")
	}
	for tool, of := range map[string]string{"openssl": "openssl", "certutil": "libnss3-tools", "pkcsslotd": "opencryptoki"} {
		if _, err := exec.LookPath(tool); err != nil {
			if _, err := os.Stat("/usr/sbin/" + tool); err != nil {
				missing = append(missing, of)
			}
		}
	}
	if missing != nil {
		return fmt.Errorf("the tests need what is not installed: apt-get install %s", strings.Join(missing, " "))
	}
	return nil
}

// raced reports whether the race detector watches the tests. Then it watches the program too.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// A server is a child process that runs `strongroom dev` on a directory, or `strongroom serve`: see [kind].
type server struct {
	dir string
	env map[string]string // what DIR/env sets, or would
	cmd *exec.Cmd
	log buffer

	troubled bool // its HSM or a disk fails, so that the log tells of errors

	end func() error // stops it and returns what was wrong with its end or its log
}

// A buffer is a bytes.Buffer for two goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// patience bounds every wait for the server. It is reached only when something is wrong.
const patience = time.Minute

// launch starts the server and does not wait for anything.
func launch(dir string, flags ...string) (*server, error) { return kind.launch(dir, flags...) }

func (kind tokenKind) launch(dir string, flags ...string) (*server, error) {
	args, err := kind.command(dir)
	if err != nil {
		return nil, err
	}
	s := &server{dir: dir, cmd: exec.Command(program, append(args, flags...)...)}
	s.cmd.Stderr = &s.log
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.end = sync.OnceValue(func() error {
		s.cmd.Process.Signal(syscall.SIGTERM)
		late := time.AfterFunc(patience, func() { s.cmd.Process.Kill() })
		defer late.Stop()
		if err := s.cmd.Wait(); err != nil {
			return fmt.Errorf("after SIGTERM: %w; its log:\n%s", err, s.log.String())
		}
		return s.checkLog()
	})
	return s, nil
}

// start returns a server on dir that answers. It is stopped at the end of the test, and the test fails if it does not end as it should.
func start(t testing.TB, dir string, flags ...string) *server {
	t.Helper()
	return kind.start(t, dir, flags...)
}

func (kind tokenKind) start(t testing.TB, dir string, flags ...string) *server {
	t.Helper()
	s, err := kind.startIn(dir, flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.end(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func startIn(dir string, flags ...string) (*server, error) { return kind.startIn(dir, flags...) }

func (kind tokenKind) startIn(dir string, flags ...string) (*server, error) {
	// Of an earlier server that was killed. This one removes it too, but perhaps later than we look.
	if err := os.Remove(filepath.Join(dir, "env")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	s, err := kind.launch(dir, flags...)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if s.env, err = kind.env(s); err == nil {
			return s, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || time.Now().After(deadline) || s.exited() {
			s.cmd.Process.Kill()
			s.cmd.Wait()
			return nil, fmt.Errorf("%v does not answer: %w; its log:\n%s", s.cmd.Args, err, s.log.String())
		}
	}
}

// exited reports whether the process has ended by itself. It is waited for elsewhere.
func (s *server) exited() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	return err != nil || bytes.Contains(stat, []byte(") Z "))
}

// readEnv reads the file that clients of a shell would source.
func readEnv(name string) (map[string]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	env := make(map[string]string)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, value, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "export "), "=")
		if !ok {
			return nil, fmt.Errorf("%s: %q sets nothing", f.Name(), lines.Text())
		}
		env[name] = value
	}
	return env, nil
}

// stop ends the server with SIGTERM, as an operator would.
func (s *server) stop(t testing.TB) {
	t.Helper()
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

// kill ends the server with SIGKILL.
func (s *server) kill(t testing.TB) {
	t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	s.cmd.Wait() // the error is the signal
	s.end = func() error { return nil }
	if err := s.checkLog(); err != nil {
		t.Error(err)
	}
}

// checkLog returns an error if the log tells of something that must never happen, whatever clients do. A server in `dev` logs
// errors and warnings only, one in `serve` what it does too.
func (s *server) checkLog() error {
	text := s.log.String()
	// A worker whose library aborts prints its stack, in which there may be a file called panic.go: hence the colon.
	for _, sign := range []string{"panic:", "DATA RACE", "fatal error", "level=ERROR"} {
		if s.troubled && sign == "level=ERROR" {
			continue
		}
		if strings.Contains(text, sign) {
			return fmt.Errorf("the server's log says %q:\n%s", sign, text)
		}
	}
	return nil
}

func (s *server) account() string { return s.env["STRONGROOM_ACCOUNT"] }
func (s *server) region() string  { return s.env["AWS_REGION"] }

// arn returns the ARN of a resource of the server's account: "key/<id>" or "alias/<name>".
func (s *server) arn(resource string) string {
	return "arn:aws:kms:" + s.region() + ":" + s.account() + ":" + resource
}

func (s *server) credentials() aws.Credentials {
	return aws.Credentials{AccessKeyID: s.env["AWS_ACCESS_KEY_ID"], SecretAccessKey: s.env["AWS_SECRET_ACCESS_KEY"]}
}

// client returns the AWS SDK's client for the server.
func (s *server) client(options ...func(*kms.Options)) *kms.Client {
	c := s.credentials()
	return kms.New(kms.Options{
		BaseEndpoint: aws.String(s.env["AWS_ENDPOINT_URL_KMS"]),
		Region:       s.region(),
		Credentials:  credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey, ""),
	}, options...)
}

// common is the server for all tests that only add to what is there.
var common struct {
	once   sync.Once
	dir    string
	server *server
	err    error
}

// shared returns that server, and a client of it.
func shared(t testing.TB) (*server, *kms.Client) {
	t.Helper()
	common.once.Do(func() { common.server, common.err = startIn(common.dir) })
	if common.err != nil {
		t.Fatal(common.err)
	}
	return common.server, common.server.client()
}

// soak returns how long the tests of endurance are to take, or 0 for the short form of each.
func soak(t testing.TB) time.Duration {
	t.Helper()
	text := os.Getenv("STRONGROOM_SOAK")
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("STRONGROOM_SOAK: %v", err)
	}
	return d
}

// within returns a context that ends before the patience of whoever runs the tests.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}
