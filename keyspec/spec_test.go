package keyspec_test

import (
	"encoding/json"
	"slices"
	"testing"

	"strongroom/keyspec"
)

func TestNames(t *testing.T) {
	// The enum DataKeyPairSpec of AWS's model, in its order.
	names := []string{
		"RSA_2048", "RSA_3072", "RSA_4096",
		"ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521",
		"ECC_SECG_P256K1", "SM2", "ECC_NIST_EDWARDS25519",
	}
	specs := []keyspec.Spec{
		keyspec.RSA2048, keyspec.RSA3072, keyspec.RSA4096,
		keyspec.P256, keyspec.P384, keyspec.P521,
		keyspec.Secp256k1, keyspec.SM2, keyspec.Ed25519,
	}

	if got := keyspec.All(); !slices.Equal(got, specs) {
		t.Errorf("All() = %v, want %v", got, specs)
	}
	for _, s := range append(specs, 0) {
		if got := s.Values(); !slices.Equal(got, names) {
			t.Errorf("%v.Values() = %q, want %q", s, got, names)
		}
	}
	for i, s := range specs {
		if got := s.String(); got != names[i] {
			t.Errorf("String() = %q, want %q", got, names[i])
		}
		if got, err := keyspec.Parse(names[i]); got != s || err != nil {
			t.Errorf("Parse(%q) = %v, %v", names[i], got, err)
		}
		text, err := json.Marshal(s)
		if want := `"` + names[i] + `"`; string(text) != want || err != nil {
			t.Errorf("as JSON: %s, %v; want %s", text, err, want)
		}
		var got keyspec.Spec
		if err := json.Unmarshal(text, &got); got != s || err != nil {
			t.Errorf("from JSON %s: %v, %v", text, got, err)
		}
	}
}

func TestUnknownNames(t *testing.T) {
	for _, name := range []string{
		"", "RSA", "rsa_2048", "RSA_2048 ", "RSA_1024", "ECC_NIST_P224", "SYMMETRIC_DEFAULT", "keyspec.Spec(0)",
	} {
		if s, err := keyspec.Parse(name); err == nil || s != 0 {
			t.Errorf("Parse(%q) = %v, %v", name, s, err)
		}
		s := keyspec.P384
		if err := s.UnmarshalText([]byte(name)); err == nil || s != keyspec.P384 {
			t.Errorf("UnmarshalText(%q) set %v, %v", name, s, err)
		}
	}
	if _, err := keyspec.Parse("RSA_1024"); err.Error() != `"RSA_1024" is not a data key pair spec` {
		t.Errorf("Parse: %v", err)
	}
}

func TestNone(t *testing.T) {
	for _, s := range []keyspec.Spec{0, 10, 255} {
		if got, err := keyspec.Parse(s.String()); err == nil {
			t.Errorf("%v has a name, and it is that of %v", s, got)
		}
		if text, err := s.MarshalText(); err == nil {
			t.Errorf("%v as text: %q", s, text)
		}
		if p, err := s.Generate(); err == nil {
			t.Errorf("%v made %v", s, p)
		}
		if keyspec.Prove(s, nil, nil) == nil {
			t.Errorf("%v was proved", s)
		}
	}
}
