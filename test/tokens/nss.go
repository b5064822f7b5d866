// Package tokens makes tokens for tests, of other software than SoftHSM.
package tokens

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"strongroom/hsm/pkcs11"
)

// places is where distributions put NSS's softokn.
var places = []string{
	"/usr/lib/*-linux-*/libsoftokn3.so",     // Debian 12, Ubuntu
	"/usr/lib/*-linux-*/nss/libsoftokn3.so", // Debian up to 11
	"/usr/lib64/libsoftokn3.so",             // Fedora, RHEL
	"/usr/lib/libsoftokn3.so",               // Arch
}

// nssModule returns the path of softokn: $NSS_SOFTOKN_MODULE if it is set, or else the first of the usual places that has it.
func nssModule() (string, error) {
	if name := os.Getenv("NSS_SOFTOKN_MODULE"); name != "" {
		_, err := os.Stat(name)
		return name, err
	}
	for _, place := range places {
		if found, _ := filepath.Glob(place); len(found) > 0 {
			return found[0], nil
		}
	}
	return "", errors.New("libsoftokn3.so was not found: apt-get install libnss3, or name the file in NSS_SOFTOKN_MODULE")
}

// NSS makes a token of NSS's softokn in dir, or finds the one that it made there, and returns how to open it. A token is a database of NSS's,
// and its PIN the password of that. NSS derives a key from the password for each object that it reads or writes; here with few iterations, for as long
// as this process and its children live, because tests have no time for more.
func NSS(ctx context.Context, dir string) (pkcs11.Config, error) {
	var none pkcs11.Config
	module, err := nssModule()
	if err != nil {
		return none, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return none, err
	}
	if strings.ContainsAny(dir, `'\`) {
		return none, fmt.Errorf("the directory %s would have to be quoted for NSS", dir)
	}
	if err := os.Setenv("NSS_MAX_MP_PBE_ITERATION_COUNT", "100"); err != nil {
		return none, err
	}
	password := filepath.Join(dir, "password")
	if _, err := os.Stat(password); err != nil {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return none, err
		}
		if err := os.WriteFile(password, []byte("of no use to anybody\n"), 0o600); err != nil {
			return none, err
		}
		out, err := exec.CommandContext(ctx, "certutil", "-N", "-d", "sql:"+dir, "-f", password).CombinedOutput()
		if errors.Is(err, exec.ErrNotFound) {
			return none, errors.New("certutil was not found: apt-get install libnss3-tools")
		}
		if err != nil {
			return none, fmt.Errorf("certutil -N: %w: %s", err, out)
		}
	}
	return pkcs11.Config{
		Module:   module,
		InitArgs: fmt.Sprintf("configdir='sql:%s' certPrefix='' keyPrefix='' secmod='secmod.db' flags=", dir),
		Label:    "NSS Certificate DB",
		PIN:      pkcs11.PINFile(password),
	}, nil
}
