package softhsm_test

import (
	"os"
	"path/filepath"
	"testing"

	"strongroom/softhsm"
)

func TestTokenDir(t *testing.T) {
	c := prepare(t, t.TempDir())
	if got, err := softhsm.TokenDir(); err != nil || got != c.SyncDir {
		t.Errorf("got %s and the error %v, want %s", got, err, c.SyncDir)
	}
	conf := filepath.Join(t.TempDir(), "softhsm2.conf")
	t.Setenv("SOFTHSM2_CONF", conf)
	if got, err := softhsm.TokenDir(); err == nil {
		t.Errorf("got %s without a configuration", got)
	}
	for text, want := range map[string]string{
		"# directories.tokendir = /no\n directories.tokendir=/tokens # here\n": "/tokens",
		"log.level = ERROR\n": "",
	} {
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := softhsm.TokenDir(); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q and the error %v, want %q", text, got, err, want)
		}
	}
}
