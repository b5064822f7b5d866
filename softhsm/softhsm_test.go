package softhsm_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"strongroom/hsm"
	"strongroom/hsm/pkcs11"
	"strongroom/softhsm"
)

var aad = []byte("aad")

func prepare(t *testing.T, dir string) pkcs11.Config {
	t.Helper()
	c, err := softhsm.New(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// use opens the token of dir, which must have the key of the ref if there is one, and closes it again.
func use(t *testing.T, dir string, ref hsm.Ref, sealed []byte) (hsm.Ref, []byte) {
	t.Helper()
	c := prepare(t, dir)
	token, err := pkcs11.Init(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	if ref == nil {
		if ref, err = token.Generate(t.Context(), hsm.ID{1}, "strongroom/test/1"); err != nil {
			t.Fatal(err)
		}
		if sealed, err = token.Seal(t.Context(), ref, nil, []byte("plaintext"), aad); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := token.Open(t.Context(), ref, nil, sealed, aad); err != nil || string(got) != "plaintext" {
		t.Errorf("Open: %q, %v", got, err)
	}
	return ref, sealed
}

func TestStarts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a place", "of its own")
	ref, sealed := use(t, dir, nil, nil)
	use(t, dir, ref, sealed)

	// A new name for the directory is found at the next start, though the old one is in the configuration.
	moved := filepath.Join(t.TempDir(), "moved")
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	use(t, moved, ref, sealed)

	// So is a relative one, from wherever the program is started.
	t.Chdir(filepath.Dir(moved))
	use(t, "moved", ref, sealed)

	entries, err := os.ReadDir(moved)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != "pin softhsm2.conf tokens" {
		t.Errorf("the directory holds %s", got)
	}
}

func TestPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "token")
	use(t, dir, nil, nil)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = fs.ModeDir | 0o700
		}
		if info.Mode() != want {
			t.Errorf("%s has the mode %v, want %v", name, info.Mode(), want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	pin, err := os.ReadFile(filepath.Join(dir, "pin"))
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^[0-9a-f]{32}\n$`).Match(pin) {
		t.Errorf("the PIN is %q", pin)
	}
}

// A first start may end after any of its steps. The next makes a whole token of what is there.
func TestInterruptedFirstStart(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "whole")
	prepare(t, whole)
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(whole, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	pin, conf := read("pin"), read("softhsm2.conf")

	for name, leave := range map[string]func(dir string) error{
		"empty directory":  func(dir string) error { return nil },
		"half a PIN file":  func(dir string) error { return os.WriteFile(filepath.Join(dir, ".pin.123"), pin[:7], 0o600) },
		"PIN":              func(dir string) error { return os.WriteFile(filepath.Join(dir, "pin"), pin, 0o600) },
		"empty tokens.new": func(dir string) error { return os.Mkdir(filepath.Join(dir, "tokens.new"), 0o700) },
		"configuration":    func(dir string) error { return os.WriteFile(filepath.Join(dir, "softhsm2.conf"), conf, 0o600) },
		"token without a PIN": func(dir string) error {
			return os.CopyFS(filepath.Join(dir, "tokens.new"), os.DirFS(filepath.Join(whole, "tokens")))
		},
		"token with files broken": func(dir string) error {
			return broken(filepath.Join(dir, "tokens.new"), filepath.Join(whole, "tokens"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := leave(dir); err != nil {
				t.Fatal(err)
			}
			ref, sealed := use(t, dir, nil, nil)
			use(t, dir, ref, sealed)
			if _, err := os.Stat(filepath.Join(dir, "tokens.new")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("tokens.new is left: %v", err)
			}
		})
	}
}

// broken copies a token and cuts its files in half.
func broken(to, from string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	return filepath.WalkDir(to, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return os.Truncate(name, info.Size()/2)
	})
}

// A finished token is not replaced, whatever else is missing.
func TestFinishedIsNotTouched(t *testing.T) {
	dir := t.TempDir()
	ref, sealed := use(t, dir, nil, nil)
	if err := os.Remove(filepath.Join(dir, "softhsm2.conf")); err != nil {
		t.Fatal(err)
	}
	use(t, dir, ref, sealed)

	pin := filepath.Join(dir, "pin")
	if err := os.Rename(pin, pin+".away"); err != nil {
		t.Fatal(err)
	}
	c := prepare(t, dir)
	if _, err := pkcs11.Open(t.Context(), c); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without its PIN file: got the error %v", err)
	}
	if err := os.Rename(pin+".away", pin); err != nil {
		t.Fatal(err)
	}
	use(t, dir, ref, sealed)
}

// TestMain is also the other process of TestKilled.
func TestMain(m *testing.M) {
	if dir := os.Getenv("STRONGROOM_TEST_DIR"); dir != "" {
		if _, err := softhsm.New(context.Background(), dir); err != nil {
			println(err.Error())
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// start runs New in another process.
func start(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "STRONGROOM_TEST_DIR="+dir)
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestKilled(t *testing.T) {
	begun := time.Now()
	start(t, t.TempDir()).Wait()
	whole := time.Since(begun)

	dir := filepath.Join(t.TempDir(), "token")
	const n = 12
	for i := range n {
		c := start(t, dir)
		time.Sleep(whole * time.Duration(i) / n)
		c.Process.Kill()
		c.Wait()
		if _, err := os.Stat(filepath.Join(dir, "tokens")); err == nil {
			use(t, dir, nil, nil) // it is whole if it is there
			os.RemoveAll(dir)
		}
	}
	use(t, dir, nil, nil)
}

func TestAtTheSameTime(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "token")
	var all []*exec.Cmd
	for range 5 {
		all = append(all, start(t, dir))
	}
	for _, c := range all {
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
	}
	use(t, dir, nil, nil)
	tokens, err := filepath.Glob(filepath.Join(dir, "tokens", "*", "token.object"))
	if err != nil || len(tokens) != 1 {
		t.Errorf("%d tokens were made, want 1: %v", len(tokens), err)
	}
}

func TestDirectoryNames(t *testing.T) {
	for _, name := range []string{"a#b", "a=b", "a\nb", "a ", strings.Repeat("a", 100) + strings.Repeat("/a", 500)} {
		if _, err := softhsm.New(t.Context(), filepath.Join(t.TempDir(), name)); err == nil || !strings.Contains(err.Error(), "SoftHSM cannot use") {
			t.Errorf("%q: got the error %v", name, err)
		}
	}
	use(t, filepath.Join(t.TempDir(), "ünïcode  \"$HOME\"\\"), nil, nil)
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, nil, 0o600)
	if _, err := softhsm.New(t.Context(), file); err == nil {
		t.Error("a file was taken for a directory")
	}
}

// With a token open, SoftHSM cannot be initialised for another.
func TestWhileOpen(t *testing.T) {
	c := prepare(t, t.TempDir())
	token, err := pkcs11.Init(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	if _, err := softhsm.New(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "CKR_CRYPTOKI_ALREADY_INITIALIZED") {
		t.Errorf("got the error %v", err)
	}
	if err := token.Check(t.Context()); err != nil {
		t.Errorf("the open token suffered: %v", err)
	}
}

func TestModule(t *testing.T) {
	name, err := softhsm.Module()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_MODULE", name)
	if got, err := softhsm.Module(); err != nil || got != name {
		t.Errorf("got %q, %v", got, err)
	}
	t.Setenv("SOFTHSM2_MODULE", "/nowhere/lib.so")
	if _, err := softhsm.Module(); err == nil || !strings.Contains(err.Error(), "SOFTHSM2_MODULE") {
		t.Errorf("got the error %v", err)
	}
}

// SoftHSM cuts the token's own object off before it writes it anew at a login. A process that is killed in between must not cost the keys.
func TestTokenObjectCutOff(t *testing.T) {
	dir := t.TempDir()
	ref, sealed := use(t, dir, nil, nil)
	files, err := filepath.Glob(filepath.Join(dir, "tokens", "*", "token.object"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%d token objects, %v", len(files), err)
	}
	for _, size := range []int64{0, 100} {
		if err := os.Truncate(files[0], size); err != nil {
			t.Fatal(err)
		}
		use(t, dir, ref, sealed)
	}
}
