package softhsm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// places is where distributions put the library.
var places = []string{
	"/usr/lib/softhsm/libsofthsm2.so",           // Debian, Ubuntu, Arch
	"/usr/lib/*-linux-*/softhsm/libsofthsm2.so", // Debian, Ubuntu, of each architecture
	"/usr/lib64/softhsm/libsofthsm2.so",         // Fedora up to 40, openSUSE
	"/usr/lib64/pkcs11/libsofthsm2.so",          // Fedora, RHEL
	"/usr/lib/pkcs11/libsofthsm2.so",
	"/usr/local/lib/softhsm/libsofthsm2.so", // from source
	"/opt/local/lib/softhsm/libsofthsm2.so", // MacPorts
}

// Module returns the path of SoftHSM's PKCS #11 library: $SOFTHSM2_MODULE if it is set, or else the first of the usual places
// that has it.
func Module() (string, error) {
	if name := os.Getenv("SOFTHSM2_MODULE"); name != "" {
		if _, err := os.Stat(name); err != nil {
			return "", fmt.Errorf("SOFTHSM2_MODULE: %w", err)
		}
		return name, nil
	}
	for _, place := range places {
		if found, _ := filepath.Glob(place); len(found) > 0 {
			return found[0], nil
		}
	}
	return "", errors.New("libsofthsm2.so was not found. Install SoftHSM2 (Debian and Ubuntu: apt-get install softhsm2; " +
		"Fedora: dnf install softhsm), or name the file in SOFTHSM2_MODULE")
}
