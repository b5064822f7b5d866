package main

import (
	"context"
	"testing"

	"strongroom/hsm/pkcs11"
)

// A restore proves what the token keeps, and not copies in the memory of this process, whatever the configuration says.
func TestRestoreWithoutCopies(t *testing.T) {
	r := &restoration{place: &place{token: func(context.Context) (pkcs11.Config, error) {
		return pkcs11.Config{Label: "x", SessionCopies: true}, nil
	}}}
	if c, err := r.tokenConfig(t.Context()); err != nil || c.Label != "x" || c.SessionCopies {
		t.Errorf("got %+v, %v", c, err)
	}
}
