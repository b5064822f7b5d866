package tokens

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed opencryptoki.sh
var opencryptoki string

// OpenCryptokiPIN is the PIN of the token that commands of [OpenCryptoki] find, which is labelled "strongroom".
const OpenCryptokiPIN = "12345678"

// ErrNoNamespaces means that this system does not let this user make name spaces.
var ErrNoNamespaces = errors.New("unshare is refused: to give openCryptoki files of its own takes root with CAP_SYS_ADMIN, or name spaces of users " +
	"(sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone)")

// OpenCryptokiModule returns the path of openCryptoki's library.
func OpenCryptokiModule() (string, error) {
	for _, place := range []string{
		"/usr/lib/*-linux-*/opencryptoki/libopencryptoki.so.0", // Debian, Ubuntu
		"/usr/lib64/opencryptoki/libopencryptoki.so.0",         // Fedora, RHEL
	} {
		if found, _ := filepath.Glob(place); len(found) > 0 {
			return found[0], nil
		}
	}
	return "", errors.New("libopencryptoki.so.0 was not found: apt-get install opencryptoki")
}

// OpenCryptoki returns a command that runs another where openCryptoki has a soft token, of which nothing is left when it ends; dir is an empty
// directory. The error is [ErrNoNamespaces] if that cannot be.
func OpenCryptoki(ctx context.Context, dir string, command ...string) (*exec.Cmd, error) {
	// The process identifiers are for the daemon: it ends with the first process of its name space.
	unshare := []string{"--mount", "--ipc", "--pid", "--fork", "--mount-proc", "--kill-child"}
	if os.Getuid() != 0 {
		unshare = append(unshare, "--user", "--map-root-user")
	}
	if out, err := exec.CommandContext(ctx, "unshare", append(unshare, "true")...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %v: %s", ErrNoNamespaces, err, out)
	}
	args := append(unshare, "sh", "-c", opencryptoki, "opencryptoki.sh", dir)
	return exec.CommandContext(ctx, "unshare", append(args, command...)...), nil
}
