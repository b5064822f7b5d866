package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom/hsm/pkcs11"
)

// A pinRig is a PIN in a file, with its note.
type pinRig struct {
	t *testing.T
	h HSMConfig
}

func newPINRig(t *testing.T) *pinRig {
	dir := t.TempDir()
	r := &pinRig{t, HSMConfig{PINFile: filepath.Join(dir, "pin"), pinNote: filepath.Join(dir, "strongroom.db.pin")}}
	r.pin("1111")
	return r
}

// pin puts another PIN into the file.
func (r *pinRig) pin(pin string) {
	r.t.Helper()
	if err := os.WriteFile(r.h.PINFile, []byte(pin), 0o600); err != nil {
		r.t.Fatal(err)
	}
	os.Chtimes(r.h.PINFile, time.Time{}, time.Now().Add(time.Duration(len(pin))*time.Second+time.Millisecond))
}

// try tries the PIN that is in the file, as a process that has just been started, and returns why it was not tried.
func (r *pinRig) try(answer error) error {
	r.t.Helper()
	pin, err := os.ReadFile(r.h.PINFile)
	if err != nil {
		r.t.Fatal(err)
	}
	answered, err := guardPIN(pkcs11.Config{}, r.h).TryPIN(pin)
	if err == nil {
		answered(answer)
	}
	return err
}

func (r *pinRig) uncertain() bool { return guardPIN(pkcs11.Config{}, r.h).PINUncertain() }

var errWrong = &pkcs11.Error{Function: "C_Login", Code: 0xA0, Kind: errors.New("unavailable")} // CKR_PIN_INCORRECT

func TestPINRefused(t *testing.T) {
	r := newPINRig(t)
	if err := r.try(errWrong); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		err := r.try(nil)
		if !errors.Is(err, pkcs11.ErrPIN) || !errors.Is(err, pkcs11.ErrPINWrong) {
			t.Errorf("a PIN that was refused: %v", err)
		}
	}
	r.pin("22222")
	if err := r.try(errWrong); err != nil {
		t.Errorf("another PIN: %v", err)
	}
	r.pin("1111")
	if err := r.try(nil); !errors.Is(err, pkcs11.ErrPIN) {
		t.Errorf("the first one again: %v", err)
	}
	r.pin("333333")
	if err := r.try(nil); err != nil {
		t.Errorf("the right one: %v", err)
	}
	b, err := os.ReadFile(r.h.pinNote)
	if err != nil || strings.Contains(string(b), `"Refused":`) {
		t.Errorf("after the right one the note is %s, %v", b, err)
	}
	for _, pin := range []string{"1111", "22222", "333333"} {
		if strings.Contains(string(b), pin) {
			t.Errorf("the note holds a PIN: %s", b)
		}
	}
}

// What has no answer may have been counted. A PIN that was right before is tried on all the same: an HSM that is away does not answer either.
func TestPINUnanswered(t *testing.T) {
	away := errors.New("CKR_DEVICE_ERROR")
	r := newPINRig(t)
	for range unansweredTries {
		if err := r.try(away); err != nil {
			t.Fatal(err)
		}
		if !r.uncertain() {
			t.Error("nobody knows whether it was counted")
		}
	}
	if err := r.try(nil); err == nil || !strings.Contains(err.Error(), "without an answer") || errors.Is(err, pkcs11.ErrPIN) {
		t.Errorf("once more: %v", err)
	}
	r.pin("22222")
	if r.uncertain() {
		t.Error("a corrected PIN was not tried yet")
	}
	if err := r.try(nil); err != nil {
		t.Errorf("a corrected PIN: %v", err)
	}
	if r.uncertain() {
		t.Error("it was right")
	}
	for range 3 * unansweredTries {
		if err := r.try(away); err != nil {
			t.Fatalf("one that was right: %v", err)
		}
	}
	if !r.uncertain() {
		t.Error("it may have been changed meanwhile")
	}
	if err := r.try(errWrong); err != nil {
		t.Error(err)
	}
	if err := r.try(nil); !errors.Is(err, pkcs11.ErrPIN) {
		t.Errorf("one that was right and is refused: %v", err)
	}
}

// The note may be written by root in a directory of the server's user, who must not lead it elsewhere.
func TestPINNoteIsAFile(t *testing.T) {
	r := newPINRig(t)
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("whole"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, link := range []func(string, string) error{os.Symlink, os.Link} {
		os.Remove(r.h.pinNote + ".lock")
		if err := link(victim, r.h.pinNote+".lock"); err != nil {
			t.Fatal(err)
		}
		if err := r.try(nil); err == nil {
			t.Error("a lock that is another file was taken")
		}
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "whole" {
		t.Errorf("%q, %v", b, err)
	}
}
