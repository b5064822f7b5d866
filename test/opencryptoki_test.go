package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strongroom/test/tokens"
)

// TestOpenCryptoki: openCryptoki's soft token has no AES-GCM, and no elliptic curves. It is refused before the PIN is used or anything is made in
// it, with the names of what is missing.
func TestOpenCryptoki(t *testing.T) {
	module, err := tokens.OpenCryptokiModule()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config, pin := filepath.Join(dir, "strongroom.toml"), filepath.Join(dir, "pin")
	text := fmt.Sprintf("store = \"sqlite:%s/strongroom.db\"\n[hsm]\nmodule = %q\ntoken_label = \"strongroom\"\npin_file = %q\n", dir, module, pin)
	for name, content := range map[string]string{config: text, pin: tokens.OpenCryptokiPIN + "\n"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(dir, "opencryptoki")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	// serve looks at its store first. The one that init leaves has no deployment, and serve says so; with another that has one, it gets as far as the token.
	other := filepath.Join(dir, "other")
	if err := makeDeployment(t, other); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(dir, "foreign.toml")
	if err := os.WriteFile(foreign, []byte(strings.Replace(text, dir+"/strongroom.db", other+"/strongroom.db", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	script := `"$1" init --config "$2"; echo "exit $?"; "$1" serve --config "$3"; echo "exit $?"; PATH=$PATH:/usr/sbin pkcsconf -t -c 3
"$1" hsm check --config "$2"; echo "check: exit $?"`
	cmd, err := tokens.OpenCryptoki(t.Context(), root, "sh", "-c", script, "sh", program, config, foreign)
	if errors.Is(err, tokens.ErrNoNamespaces) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	b, err := cmd.CombinedOutput()
	out := string(b)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	refusal := `the token "strongroom" (serial number 123) (IBM Corp. IBM SoftTok) does not offer AES-GCM (CKM_AES_GCM), ` +
		`EC key pair generation (CKM_EC_KEY_PAIR_GEN), ECDSA (CKM_ECDSA), without which it cannot be used. hsm/devices/README.md says which devices can be`
	if n := strings.Count(out, refusal); n != 2 || strings.Count(out, "\nexit 1\n") != 2 {
		t.Errorf("init and serve were to refuse the token, %d did:\n%s", n, out)
	}
	if !strings.Contains(out, "it does not have AES-GCM (CKM_AES_GCM), EC key pair generation (CKM_EC_KEY_PAIR_GEN), ECDSA (CKM_ECDSA)") ||
		!strings.Contains(out, "NOT USABLE") || !strings.Contains(out, "check: exit 1\n") {
		t.Errorf("hsm check was to say what is missing:\n%s", out)
	}
	if strings.Contains(out, "USER_PIN_COUNT_LOW") || !strings.Contains(out, "USER_PIN_INITIALIZED") {
		t.Errorf("the PIN was used:\n%s", out)
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) != 0 {
		t.Errorf("it left %v, %v", entries, err)
	}
}

// makeDeployment makes a rig in dir that does not run.
func makeDeployment(t *testing.T, dir string) error {
	s, err := startIn(dir)
	if err != nil {
		return err
	}
	s.stop(t)
	return nil
}
