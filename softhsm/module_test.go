package softhsm

import (
	"strings"
	"testing"
)

func TestModuleMissing(t *testing.T) {
	t.Setenv("SOFTHSM2_MODULE", "")
	old := places
	defer func() { places = old }()
	places = []string{"/nowhere/*/lib.so"}
	_, err := Module()
	for _, text := range []string{"apt-get install softhsm2", "dnf install softhsm", "SOFTHSM2_MODULE"} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("error %v does not say %q", err, text)
		}
	}
}
