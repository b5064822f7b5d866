// Package fault builds a PKCS #11 module that passes every call on to another one, and misbehaves as a script says: for tests. The module
// is C, in the directory module; README.md has the language of scripts.
//
// It is for tests of other packages, and no part of the product uses it.
package fault

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

//go:embed module/*.c module/*.h
var source embed.FS

// Build compiles the module, with $CC or else gcc, and returns its path, which is in dir.
func Build(dir string) (module string, err error) {
	module, err = filepath.Abs(filepath.Join(dir, "libstrongroom-fault.so"))
	if err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(dir, "fault-source-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	if err := os.CopyFS(work, source); err != nil {
		return "", err
	}
	files, err := fs.Glob(os.DirFS(work), "module/*.c")
	if err != nil {
		return "", err
	}
	// The name is that of a whole module at any time: processes that have it open keep theirs.
	made := filepath.Join(work, "module.so")
	args := append([]string{"-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-fPIC", "-fvisibility=hidden", "-shared", "-o", made}, files...)
	compiler := os.Getenv("CC")
	if compiler == "" {
		compiler = "gcc"
	}
	words := strings.Fields(compiler) // as make has it: "ccache gcc"
	c := exec.Command(words[0], append(append(words[1:], args...), "-ldl", "-lpthread")...)
	c.Dir = work
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compiling the fault module: %w\n%s", err, out)
	}
	return module, os.Rename(made, module)
}

// A Script is the path of the file that the module obeys.
type Script string

// settle is longer than the module takes to notice a new script.
const settle = 20 * time.Millisecond

// Set replaces the script by these lines, and returns when all processes obey it: every call that begins after is under the new one.
func (s Script) Set(lines ...string) error {
	f, err := os.CreateTemp(filepath.Dir(string(s)), ".script-*")
	if err != nil {
		return err
	}
	_, err = f.WriteString(strings.Join(lines, "\n") + "\n")
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), string(s))
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	time.Sleep(settle)
	return nil
}

// Counts reads a file of counts that the directive `count` named, or the one of PINs: a name and a number a line. A file that is not there
// has no counts.
func Counts(name string) (map[string]int, error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	counts := make(map[string]int)
	for line := range bytes.Lines(b) {
		words := strings.Fields(string(line))
		if len(words) != 2 {
			return nil, fmt.Errorf("%s: %q is not a name and a number", name, line)
		}
		if counts[words[0]], err = strconv.Atoi(words[1]); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return counts, err
}

// A Rig is the module, where it forwards to, and what it obeys.
type Rig struct {
	Module string // as [Build] returned it
	Real   string // the module that calls are passed on to
	Script
}

// New builds the module in dir, for real, with a script in dir that is not there yet: all calls are passed on until [Script.Set] is called.
func New(dir, real string) (Rig, error) {
	module, err := Build(dir)
	if err != nil {
		return Rig{}, err
	}
	return Rig{Module: module, Real: real, Script: Script(filepath.Join(filepath.Dir(module), "script"))}, nil
}

// Install sets the environment so that the package softhsm, and `strongroom dev`, take the fault module for SoftHSM. In tests, setenv is
// t.Setenv.
func (r Rig) Install(setenv func(key, value string)) {
	setenv("STRONGROOM_FAULT_MODULE", r.Real)
	setenv("STRONGROOM_FAULT_SCRIPT", string(r.Script))
	setenv("SOFTHSM2_MODULE", r.Module)
}

// PINs is the file in which `pin-tries` counts, for [Counts]: wrong, attempts and refused.
func (s Script) PINs() string { return string(s) + ".pin" }
