package pkcs11_test

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"strongroom/hsm/pkcs11"
)

// What is measured of a real token is what is known of it. The step in which SoftHSM may abort is left out here: the command has a process for it.
func TestMeasureSoftHSM(t *testing.T) {
	dir := t.TempDir()
	c := newToken(t, dir)
	token := open(t, c)
	id := anID()
	ref, err := token.Generate(t.Context(), id, label)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := token.Seal(t.Context(), ref, nil, []byte("plaintext"), aad)
	if err != nil {
		t.Fatal(err)
	}
	token.Close()

	r, err := pkcs11.Measure(t.Context(), c, pkcs11.MeasureOptions{
		Objects: 8, Sessions: 4, MaxSessions: 40, Seconds: 0.05, Before: &pkcs11.Report{Done: []string{"empty associated data"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	b, _ := json.MarshalIndent(r, "", " ")
	t.Logf("%s", b)
	for _, f := range r.Findings {
		if f.Verdict != pkcs11.OK {
			t.Errorf("%+v", f)
		}
	}
	if !r.Fit.Usable || r.Fit.IV != pkcs11.IVHost || !r.Fit.SessionCopies || r.Fit.Label != "strongroom" || r.Fit.Serial != r.Token.Serial || r.Fit.Module != c.Module {
		t.Errorf("what fits: %+v", r.Fit)
	}
	if r.MaxAAD != 4096 || r.MaxPlaintext != 64<<10 || r.Sessions.Opened != 40 || r.Objects.Made != 8 || r.Objects.Before != 2 || len(r.Load) != 6 {
		t.Errorf("%+v", r)
	}

	token = open(t, c)
	if objects, err := token.Objects(t.Context()); err != nil || len(objects) != 1 || objects[0].ID != id {
		t.Errorf("on the token are now: %v (%v)", objects, err)
	}
	if got, err := token.Open(t.Context(), ref, nil, sealed, aad); err != nil || string(got) != "plaintext" {
		t.Errorf("Open: %q, %v", got, err)
	}
	if _, err := pkcs11.Measure(t.Context(), c, pkcs11.MeasureOptions{}); err == nil {
		t.Error("two tokens are open in one process")
	}
	token.Close()

	c.PIN = func() ([]byte, error) { return []byte("wrong-31337"), nil }
	if r, err = pkcs11.Measure(t.Context(), c, pkcs11.MeasureOptions{}); !errors.Is(err, pkcs11.ErrPIN) || r.Fit.Usable {
		t.Errorf("a wrong PIN: %v", err)
	}
	if !slices.ContainsFunc(r.Findings, func(f pkcs11.Finding) bool { return f.Name == "login" && f.Verdict == pkcs11.Failed }) {
		t.Errorf("%+v", r.Findings)
	}
}
