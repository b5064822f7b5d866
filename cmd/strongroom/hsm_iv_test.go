package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"strongroom/hsm/pkcs11"
)

func TestSetIV(t *testing.T) {
	const line = `iv = "device-zeroed"`
	for _, c := range []struct{ name, before, after string }{
		{"plain", "store = \"sqlite:/x\"\n[hsm]\nmodule = \"/m\"\n", "store = \"sqlite:/x\"\n[hsm]\n" + line + "\nmodule = \"/m\"\n"},
		{"comment, spaces", "# iv = \"host\"\n\n  [ hsm ]  # the HSM\n\tmodule = \"/m\"\n[audit]\n", "# iv = \"host\"\n\n  [ hsm ]  # the HSM\n" + line + "\n\tmodule = \"/m\"\n[audit]\n"},
		{"ends of lines", "[hsm]\r\nmodule = \"/m\"\r\n", "[hsm]\r\n" + line + "\r\nmodule = \"/m\"\r\n"},
		{"no newline at the end", "[hsm]\nmodule = \"/m\"", "[hsm]\n" + line + "\nmodule = \"/m\""},
		{"unknown keys", "[hsm]\nmodule = \"/m\"\nfuture = 1\n", "[hsm]\n" + line + "\nmodule = \"/m\"\nfuture = 1\n"},
		{"inline", "hsm = { module = \"/m\" }\n", ""},
		{"dotted", "hsm.module = \"/m\"\n", ""},
		{"in a string", "listen = '''\n[hsm]\n'''\n[hsm] \nmodule = \"/m\"\n", ""},
		{"there already", "[hsm]\niv = \"host\"\n", ""},
	} {
		path := filepath.Join(t.TempDir(), "c.toml")
		if err := os.WriteFile(path, []byte(c.before), 0o640); err != nil {
			t.Fatal(err)
		}
		if os.Getuid() == 0 {
			if err := os.Chown(path, 12, 34); err != nil {
				t.Fatal(err)
			}
		}
		was, _ := os.Stat(path)
		link := filepath.Join(t.TempDir(), "link.toml")
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
		err := setIV(link, line, pkcs11.IVZeroed)
		want := c.after
		if want == "" {
			want = c.before
		}
		if got, _ := os.ReadFile(path); string(got) != want || (err == nil) != (c.after != "") {
			t.Errorf("%s: got %q and the error %v, want %q", c.name, got, err, want)
		}
		is, err := os.Stat(path)
		if err != nil || is.Mode() != was.Mode() || is.Sys().(*syscall.Stat_t).Uid != was.Sys().(*syscall.Stat_t).Uid || is.Sys().(*syscall.Stat_t).Gid != was.Sys().(*syscall.Stat_t).Gid {
			t.Errorf("%s: owner or mode changed", c.name)
		}
		if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
			t.Errorf("%s: the link is gone", c.name)
		}
		if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
			t.Errorf("%s: something was left behind: %v", c.name, entries)
		}
	}
	// The line that a person is to add is named.
	err := setIV(filepath.Join(t.TempDir(), "none.toml"), line, pkcs11.IVZeroed)
	if err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got the error %v", err)
	}
}
