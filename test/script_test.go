package test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"strongroom/softhsm"
)

// TestScript runs the stories in testdata/script: what an operator or a user does, and what strongroom does then. See
// https://pkg.go.dev/github.com/rogpeppe/go-internal/testscript for the language; the commands below are added to it.
func TestScript(t *testing.T) {
	if _, err := exec.LookPath("softhsm2-util"); err != nil {
		t.Fatal("the stories need softhsm2-util, which is not installed: apt-get install softhsm2")
	}
	module, err := softhsm.Module()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Deadline:            time.Now().Add(10 * time.Minute), // for a program that should have ended and did not
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(program)+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("MODULE", module)
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("GORACE", gorace)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    exits,
			"expand":   expand,
			"faulty":   faultyModule,
			"field":    field,
			"freeport": freePort,
			"get":      get,
			"mode":     mode,
			"sigterm":  sigterm,
			"source":   source,
			"token":    token,
			"waitfile": waitFile,
		},
	})
}

// usage ends a story that uses a command wrongly.
func usage(ts *testscript.TestScript, neg bool, right bool, form string) {
	if neg || !right {
		ts.Fatalf("usage: %s", form)
	}
}

// exits CODE PROGRAM ARG… is exec for a program that must end with the code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) >= 2, "exits CODE PROGRAM ARG…")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// expand FILE… puts the values of environment variables into files.
func expand(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) > 0, "expand FILE…")
	for _, name := range args {
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
	}
}

// field NAME PATH [FILE] sets an environment variable to a member of the JSON object in FILE, or else in the last stdout. The path
// is as in "Keys.0.KeyState"; "Keys.len" is how many there are. What is not a string is set as JSON.
func field(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2 || len(args) == 3, "field NAME PATH [FILE]")
	file := slices.Concat(args, []string{"stdout"})[2]
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(file)), &v))
	for step := range strings.SplitSeq(args[1], ".") {
		ok := false
		switch in := v.(type) {
		case map[string]any:
			v, ok = in[step]
		case []any:
			if i, err := strconv.Atoi(step); err == nil && i < len(in) {
				v, ok = in[i], true
			} else if step == "len" {
				v, ok = len(in), true
			}
		}
		if !ok {
			ts.Fatalf("there is no %s in %s: %q", args[1], file, step)
		}
	}
	text, ok := v.(string)
	if !ok {
		b, err := json.Marshal(v)
		ts.Check(err)
		text = string(b)
	}
	ts.Setenv(args[0], text)
}

// freeport NAME sets an environment variable to a port that nobody listens on.
func freePort(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "freeport NAME")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	defer l.Close()
	ts.Setenv(args[0], strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
}

// get [-unix SOCKET] [-ca FILE] STATUS URL gets a page, waiting for somebody to listen, and fails if its status is another one. The page
// is the stdout.
func get(ts *testscript.TestScript, neg bool, args []string) {
	transport := &http.Transport{DisableKeepAlives: true}
	for len(args) > 2 {
		switch args[0] {
		case "-unix":
			socket := ts.MkAbs(args[1])
			transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", socket)
			}
		case "-ca":
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM([]byte(ts.ReadFile(args[1])))
			transport.TLSClientConfig = &tls.Config{RootCAs: roots}
		}
		args = args[2:]
	}
	usage(ts, neg, len(args) == 2, "get [-unix SOCKET] [-ca FILE] STATUS URL")
	client := &http.Client{Transport: transport, Timeout: patience}
	resp, err := client.Get(args[1])
	for deadline := time.Now().Add(patience); nobodyListens(err) && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
		resp, err = client.Get(args[1])
	}
	ts.Check(err)
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	ts.Check(err)
	ts.Stdout().Write(page)
	if strconv.Itoa(resp.StatusCode) != args[0] {
		ts.Fatalf("status %s, want %s", resp.Status, args[0])
	}
}

func nobodyListens(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)
}

// mode MODE FILE… fails if a file's permissions are other ones.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) >= 2, "mode MODE FILE…")
	for _, name := range args[1:] {
		info, err := os.Stat(ts.MkAbs(name))
		ts.Check(err)
		if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
			ts.Fatalf("%s: mode %s, want %s", name, got, args[0])
		}
	}
}

// sigterm ARG sends SIGTERM to the one program in the background that has this argument.
func sigterm(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "sigterm ARG")
	sent := 0
	for _, cmd := range ts.BackgroundCmds() {
		if slices.Contains(cmd.Args, args[0]) {
			ts.Check(cmd.Process.Signal(syscall.SIGTERM))
			sent++
		}
	}
	if sent != 1 {
		ts.Fatalf("%d programs in the background have the argument %q", sent, args[0])
	}
}

// source FILE sets the environment variables that a shell would set from the file.
func source(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "source FILE")
	env, err := readEnv(ts.MkAbs(args[0]))
	ts.Check(err)
	for name, value := range env {
		ts.Setenv(name, value)
	}
}

// token LABEL PIN makes a token with SoftHSM's own program, beside those that the story has made before.
func token(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "token LABEL PIN")
	ts.Setenv("SOFTHSM2_CONF", ts.MkAbs("softhsm2.conf"))
	ts.Check(os.MkdirAll(ts.MkAbs("tokens"), 0o700))
	ts.Check(os.WriteFile(ts.MkAbs("softhsm2.conf"), []byte("directories.tokendir = "+ts.MkAbs("tokens")+"\nlog.level = ERROR\n"), 0o600))
	ts.Check(ts.Exec("softhsm2-util", "--init-token", "--free", "--label", args[0], "--so-pin", "officer", "--pin", args[1]))
}

// waitfile FILE waits until the file is there.
func waitFile(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "waitfile FILE")
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
	}
	ts.Fatalf("%s did not appear within %v", args[0], patience)
}
