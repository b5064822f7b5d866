package pkcs11_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"strongroom/hsm"
	"strongroom/hsm/hsmtest"
	"strongroom/hsm/pkcs11"
	"strongroom/softhsm"
	"strongroom/softhsm/fault"
)

// faulty makes the package softhsm take the fault module for SoftHSM, which forwards to it.
func faulty(t *testing.T) fault.Rig {
	t.Helper()
	module, err := softhsm.Module()
	if err != nil {
		t.Fatal(err)
	}
	built, err := faultModule()
	if err != nil {
		t.Fatal(err)
	}
	rig := fault.Rig{Module: built, Real: module, Script: fault.Script(filepath.Join(t.TempDir(), "script"))}
	rig.Install(t.Setenv)
	return rig
}

// faultModule builds the fault module, once for all tests. TestMain removes faultDir.
var (
	faultDir    string
	faultModule = sync.OnceValues(func() (string, error) {
		var err error
		if faultDir, err = os.MkdirTemp("", "strongroom-fault-"); err != nil {
			return "", err
		}
		return fault.Build(faultDir)
	})
)

// ivModes are the ways in which the fault module makes IVs, and how they are found to be. One that returns an IV in the place of any other does so
// in the place of zeros too.
var ivModes = []struct {
	directive string
	source    pkcs11.IVSource
	found     pkcs11.IVSource
}{
	{"iv zeroed", pkcs11.IVZeroed, pkcs11.IVZeroed},
	{"iv zeroed by C_Encrypt", pkcs11.IVZeroed, pkcs11.IVZeroed},
	{"iv appended", pkcs11.IVAppended, pkcs11.IVAppended},
	{"iv returned", pkcs11.IVReturned, pkcs11.IVZeroed},
}

// SoftHSM behind a module that makes IVs as other devices do keeps the contract.
func TestDeviceIVs(t *testing.T) {
	for _, mode := range ivModes {
		if mode.directive == "iv zeroed" {
			continue // that the IV may come late is the harder way
		}
		t.Run(mode.directive, func(t *testing.T) {
			rig := faulty(t)
			if err := rig.Set(mode.directive); err != nil {
				t.Fatal(err)
			}
			hsmtest.Test(t, func(t *testing.T) hsm.Device {
				c, err := softhsm.New(t.Context(), t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				c.IV = mode.source
				token, err := pkcs11.Init(t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := token.Close(); err != nil {
						t.Error(err)
					}
				})
				return token
			})
		})
	}
}

// Init finds out who makes IVs, before it makes anything; Open refuses what does not fit, and says what would.
func TestDeviceIVsFound(t *testing.T) {
	for _, mode := range ivModes {
		t.Run(mode.directive, func(t *testing.T) {
			rig := faulty(t)
			if err := rig.Set(mode.directive); err != nil {
				t.Fatal(err)
			}
			c, err := softhsm.New(t.Context(), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			var found []pkcs11.IVSource
			c.FoundIV = func(i pkcs11.IVSource) error {
				found = append(found, i)
				return nil
			}
			token, err := pkcs11.Init(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
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
			if !slices.Equal(found, []pkcs11.IVSource{mode.found}) {
				t.Errorf("found %v, want %v", found, mode.found)
			}
			c.FoundIV = nil
			for _, i := range []pkcs11.IVSource{pkcs11.IVHost, pkcs11.IVZeroed, pkcs11.IVAppended, pkcs11.IVReturned} {
				c.IV = i
				token, err := pkcs11.Open(t.Context(), c)
				if i == mode.source || i == mode.found {
					if err != nil {
						t.Errorf("as %v: %v", i, err)
					} else {
						if got, err := token.Open(t.Context(), ref, nil, sealed, aad); err != nil || string(got) != "plaintext" {
							t.Errorf("as %v: %q, %v", i, got, err)
						}
						token.Close()
					}
				} else if err == nil || !strings.Contains(err.Error(), `set iv = "`+mode.found.String()+`" under [hsm]`) || !strings.Contains(err.Error(), "C_Encrypt") {
					t.Errorf("as %v: %v", i, err)
					if err == nil {
						token.Close()
					}
				}
			}

			// What was sealed does not depend on who made the IV.
			if err := rig.Set(); err != nil {
				t.Fatal(err)
			}
			c.IV = pkcs11.IVHost
			token = open(t, c)
			if got, err := token.Open(t.Context(), ref, nil, sealed, aad); err != nil || string(got) != "plaintext" {
				t.Errorf("with SoftHSM alone: %q, %v", got, err)
			}
		})
	}
}

// Limits and oddities of the fault module are measured.
func TestMeasureFaulty(t *testing.T) {
	for _, c := range []struct {
		script []string
		about  string
		found  pkcs11.Verdict
		detail string
		usable bool
	}{
		{[]string{"iv zeroed"}, "who makes the IV", pkcs11.OK, "the token, which fills a buffer of zeros", true},
		{[]string{"iv appended"}, "known answers of AES-GCM", pkcs11.OK, "22 agree", true},
		{[]string{"aad 256"}, "associated data", pkcs11.OK, "1 to 256 bytes, and not 1024", true},
		{[]string{"aad 91"}, "associated data", pkcs11.Failed, "256 bytes are refused: C_EncryptInit: CKR_MECHANISM_PARAM_INVALID", false},
		{[]string{"data 5000"}, "plaintext", pkcs11.OK, "1 to 4096 bytes, and not 8192", true},
		{[]string{"sessions 16", "ulMaxSessionCount 16"}, "sessions at a time", pkcs11.OK, "and no more (C_OpenSession: CKR_SESSION_COUNT (0xB1)); it declares 16", true},
		{[]string{"objects 5"}, "room for keys", pkcs11.Differs, "and no more (C_GenerateKey: CKR_DEVICE_MEMORY (0x31))", true},
		{[]string{"mechanisms without CKM_AES_GCM"}, "AES-GCM", pkcs11.Missing, "CKR_MECHANISM_INVALID", false},
		{[]string{"mechanisms without CKM_ECDSA CKM_EC_KEY_PAIR_GEN"}, "EC key pair generation", pkcs11.Missing, "CKR_MECHANISM_INVALID", false},
		{[]string{"bad-tag CKR_ENCRYPTED_DATA_INVALID"}, "a changed ciphertext", pkcs11.OK, "C_Decrypt: CKR_ENCRYPTED_DATA_INVALID (0x40)", true},
		{[]string{"on C_CreateObject return CKR_ACTION_PROHIBITED"}, "known answers of AES-GCM", pkcs11.Skipped, "takes no key from outside", true},
	} {
		t.Run(c.script[0], func(t *testing.T) {
			rig := faulty(t)
			config, err := softhsm.New(t.Context(), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if err := rig.Set(c.script...); err != nil {
				t.Fatal(err)
			}
			r, err := pkcs11.Measure(t.Context(), config, pkcs11.MeasureOptions{
				Objects: 8, Sessions: 2, MaxSessions: 20, Seconds: 0.01, Before: &pkcs11.Report{Done: []string{"empty associated data"}},
			})
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(r.Findings, func(f pkcs11.Finding) bool { return f.Name == c.about })
			if i < 0 || r.Findings[i].Verdict != c.found || !strings.Contains(r.Findings[i].Detail, c.detail) || r.Fit.Usable != c.usable {
				t.Errorf("usable %v (lacking %q): %+v", r.Fit.Usable, r.Fit.Lacking, r.Findings)
			}
			if err := rig.Set(); err != nil {
				t.Fatal(err)
			}
			left, err := pkcs11.TakeInventory(t.Context(), config)
			if err != nil || len(left.Objects) != 0 {
				t.Errorf("left are %v (%v)", left, err)
			}
		})
	}
}
