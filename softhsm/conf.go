package softhsm

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// TokenDir returns the directory where the SoftHSM that this process would load keeps its tokens, as its configuration says.
func TokenDir() (string, error) {
	name := os.Getenv("SOFTHSM2_CONF")
	if name == "" {
		name = "/etc/softhsm/softhsm2.conf"
		if home, err := os.UserHomeDir(); err == nil {
			own := filepath.Join(home, ".config", "softhsm2", "softhsm2.conf")
			if _, err := os.Stat(own); err == nil {
				name = own
			}
		}
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		if key, value, ok := strings.Cut(line, "="); ok && strings.TrimSpace(key) == "directories.tokendir" {
			return strings.TrimSpace(value), nil
		}
	}
	return "", errors.New(name + " names no directory of tokens")
}
