package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"syscall"

	"github.com/BurntSushi/toml"
	"github.com/urfave/cli/v2"

	"strongroom/hsm/pkcs11"
)

// keepIV writes into the configuration file who makes IVs, unless that is the default, and says so.
func keepIV(c *cli.Context, path string, found pkcs11.IVSource) error {
	if found == pkcs11.IVHost {
		return nil
	}
	line := fmt.Sprintf("iv = %q", found)
	if err := setIV(path, line, found); err != nil {
		return hint(fmt.Errorf("the token makes IVs itself, which the configuration has to say, and it could not be added there: %w", err),
			"add under [hsm] in "+path+":  "+line, "then repeat strongroom init, which has made no key yet")
	}
	note(c, "the token makes IVs itself (%v): added %s under [hsm] in %s", found, line, printable(path))
	return nil
}

// The head of the table, as people write it. An inline table or dotted keys are left to them.
var hsmHead = regexp.MustCompile(`(?m)^[ \t]*\[[ \t]*hsm[ \t]*\][ \t]*(#[^\r\n]*)?(\r?\n)`)

// setIV adds a line under [hsm] of a configuration file that does not say it yet. Everything else in it stays as it is, byte for byte, and so do its owner
// and its mode. The file is there with the line or without, also after a power loss.
func setIV(path, line string, found pkcs11.IVSource) error {
	path, err := filepath.EvalSymlinks(path) // the link stays
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	at := hsmHead.FindSubmatchIndex(old)
	if at == nil {
		return fmt.Errorf("%s has no line [hsm]", path)
	}
	changed := append(bytes.Clone(old[:at[1]]), line...)
	changed = append(changed, old[at[4]:at[5]]...)
	changed = append(changed, old[at[1]:]...)

	// What looks like the head of the table may stand in a string.
	var before, after Config
	if _, err := toml.Decode(string(old), &before); err != nil {
		return err
	}
	_, err = toml.Decode(string(changed), &after)
	before.HSM.IV = found.String()
	if err != nil || !reflect.DeepEqual(before, after) {
		return fmt.Errorf("%s is written in a way that is not understood here", path)
	}
	return replaceFile(path, changed, info)
}

// replaceFile puts a file in the place of the one at path, with its owner and mode.
func replaceFile(path string, content []byte, like os.FileInfo) error {
	owner, ok := like.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("the owner of the file is not known")
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err == nil {
		err = f.Chown(int(owner.Uid), int(owner.Gid))
	}
	if err == nil {
		err = f.Chmod(like.Mode())
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
