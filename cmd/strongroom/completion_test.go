package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestMainForShells is no test: it is the program, for the shells that the tests of completion start. They cannot be given a fake.
func TestMainForShells(t *testing.T) {
	if os.Getenv("STRONGROOM_TEST_SHELL") == "" {
		t.Skip("for shells only")
	}
	os.Args = append([]string{"strongroom"}, os.Args[slices.Index(os.Args, "--words")+1:]...)
	os.Exit(run(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// shellDir is a directory with a program "strongroom" to put on the PATH of a shell.
func shellDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// With the race detector a program sleeps for a second before it ends.
	script := "#!/bin/sh\nGORACE=atexit_sleep_ms=0 STRONGROOM_TEST_SHELL=1 exec " + shellQuote(self) + ` -test.run '^TestMainForShells$' -- --words "$@"` + "\n"
	if err := os.WriteFile(filepath.Join(dir, "strongroom"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestBashCompletion(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal("bash is needed: apt-get install bash")
	}
	t.Setenv("PATH", shellDir(t)+":"+os.Getenv("PATH"))
	t.Chdir(t.TempDir())

	// What bash does when somebody presses TAB: it sets these variables and calls the function.
	complete := func(words ...string) []string {
		t.Helper()
		script := `source <(strongroom completion bash) || exit 1
			[[ $(complete -p strongroom) == *"-F _strongroom strongroom" ]] || exit 1
			COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
			_strongroom
			printf '%s\n' "${COMPREPLY[@]}"`
		cmd := exec.Command(bash, append([]string{"--norc", "--noprofile", "-c", script, "bash", "strongroom"}, words...)...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(out))
	}
	for _, test := range []struct {
		words []string
		has   string // all of these
		lacks string // none of these
	}{
		{[]string{""}, "key alias keypair datakey encrypt decrypt completion serve", "--help"},
		{[]string{"key"}, "key keypair", "alias encrypt"},
		{[]string{"key", ""}, "create list describe enable disable delete undelete", "keypair"},
		{[]string{"key", "de"}, "delete describe", "list"},
		{[]string{"key", "delete", "--"}, "--days --yes --json --endpoint", "--spec --alias"},
		{[]string{"key", "delete", "KEY", "--d"}, "--days", "--yes"},
		{[]string{"key", "delete", "--yes", "--"}, "--days", "--yes"},
		{[]string{"key", "delete", "--", "--"}, "", "--days --yes"},
		{[]string{"keypair", "--s"}, "--spec", "--key"},
		{[]string{"keypair", "--spec", ""}, "RSA_2048 ECC_NIST_P256 SM2 ECC_NIST_EDWARDS25519", "AES_256 --key"},
		{[]string{"keypair", "--key", "k", "--spec", "ECC_NIST"}, "ECC_NIST_P256 ECC_NIST_P521", "RSA_2048 SM2"},
		{[]string{"keypair", "--spec", "=", "RSA"}, "RSA_2048 RSA_4096", "SM2"},
		{[]string{"keypair", "--spec", "="}, "RSA_2048 SM2", "="},
		{[]string{"keypair", "--spec=RSA"}, "--spec=RSA_2048", "--spec=SM2"},
		{[]string{"keypair", "--format", ""}, "pem der", "RSA_2048"},
		{[]string{"datakey", "--spec", ""}, "AES_256 AES_128", "RSA_2048"},
		{[]string{"key", "policy", ""}, "get put", "create"},
		{[]string{"grant", "create", "--operation", "Dec"}, "Decrypt", "Encrypt"},
		{[]string{"grant", "create", "--operation", "Decrypt", "--operation", ""}, "Encrypt", "--grantee"},
		{[]string{"user", ""}, "create list show tag delete", "key session"},
		{[]string{"access-key", "create", "--"}, "--user --root --config --dir", "--endpoint"},
		{[]string{"audit", "show", "--outcome", ""}, "ok denied failed", "--since"},
		{[]string{"doc"}, "doctor", "decrypt"},
		{[]string{"doctor", "--"}, "--fix --json --config --dir", "--endpoint --user"},
		{[]string{"encrypt", "--in", ""}, "", "--key --in help"}, // files, which bash knows better
		{[]string{"key", "describe", ""}, "", "help h"},
		{[]string{"keypair", "--key", "$(touch ran)", "`touch ran`", "--spec", ""}, "SM2", ""},
	} {
		got := complete(test.words...)
		for _, want := range strings.Fields(test.has) {
			if !slices.Contains(got, want) {
				t.Errorf("%q: %q lacks %s", test.words, got, want)
			}
		}
		for _, no := range strings.Fields(test.lacks) {
			if slices.Contains(got, no) {
				t.Errorf("%q: %q has %s", test.words, got, no)
			}
		}
	}
	if _, err := os.Stat("ran"); err == nil {
		t.Error("what was typed was run")
	}
}

// Shells that are not here cannot be asked, but their scripts must at least call for what the program answers.
func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script := command(t, "completion", shell).want(t, exitOK).stdout
		if !strings.Contains(script, completionFlag) {
			t.Errorf("%s: the script never asks the program", shell)
		}
		path, err := exec.LookPath(shell)
		if err != nil {
			continue
		}
		check := exec.Command(path, "-n")
		check.Stdin = strings.NewReader(script)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", shell, err, out)
		}
	}
	command(t, "completion", "tcsh").want(t, exitMisuse, `there is no command "completion tcsh"`)
}
