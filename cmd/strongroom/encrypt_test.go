package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// reverser is a server whose ciphertexts are the plaintexts backwards, between bytes that are no text.
func reverser(t *testing.T) *fakeKMS {
	backwards := func(in any) []byte {
		b, err := base64.StdEncoding.DecodeString(in.(string))
		if err != nil {
			t.Error(err)
		}
		slices.Reverse(b)
		return b
	}
	return newFakeKMS(t, map[string]fakeAnswer{
		"Encrypt": func(in map[string]any) any {
			return map[string]any{"KeyId": fakeKeyARN, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
				"CiphertextBlob": slices.Concat([]byte{0xff}, backwards(in["Plaintext"]), []byte{0xff})}
		},
		"Decrypt": func(in map[string]any) any {
			blob := backwards(in["CiphertextBlob"])
			if len(blob) < 2 || blob[0] != 0xff {
				return fakeRefusal{400, "InvalidCiphertextException", ""}
			}
			return map[string]any{"KeyId": fakeKeyARN, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT", "Plaintext": blob[1 : len(blob)-1]}
		},
	})
}

func TestEncryptAndDecrypt(t *testing.T) {
	f := reverser(t)
	t.Chdir(t.TempDir())
	encrypted := typed(t, "text", "encrypt", "--key", "app", "--context", "a=b,c", "--context", "d=e").want(t, exitOK).wantOut(t, "\xfftxet\xff").stdout
	if got, want := fmt.Sprint(f.last("Encrypt")), "map[EncryptionContext:map[a:b,c d:e] KeyId:alias/app Plaintext:"+b64("text")+"]"; got != want {
		t.Errorf("asked with %s, want %s", got, want)
	}
	typed(t, encrypted, "decrypt").want(t, exitOK).wantOut(t, "text")
	if got, want := fmt.Sprint(f.last("Decrypt")), "map[CiphertextBlob:"+b64(encrypted)+"]"; got != want {
		t.Errorf("asked with %s, want %s", got, want)
	}
	typed(t, encrypted, "decrypt", "--key", fakeKeyID, "--context", "a=b").want(t, exitOK).wantOut(t, "text")
	if got := f.last("Decrypt")["KeyId"]; got != fakeKeyID {
		t.Errorf("asked for key %v", got)
	}

	text := typed(t, "text", "encrypt", "--key", "app", "--base64").want(t, exitOK).wantOut(t, b64(encrypted)+"\n").stdout
	typed(t, text[:3]+"\n  "+text[3:]+"\r\n", "decrypt", "--base64").want(t, exitOK).wantOut(t, "text")
	typed(t, text, "decrypt").want(t, exitFailed, "the ciphertext cannot be opened", "hint: the input looks like base64")
	typed(t, "!", "decrypt", "--base64").want(t, exitFailed, "the input is not base64")

	typed(t, "text", "encrypt", "--key", "app", "--json").want(t, exitOK).
		wantOut(t, `{"CiphertextBlob":"`+b64(encrypted)+`","KeyId":"`+fakeKeyARN+`","EncryptionAlgorithm":"SYMMETRIC_DEFAULT"}`+"\n")
	typed(t, encrypted, "decrypt", "--json").want(t, exitOK).
		wantOut(t, `{"Plaintext":"`+b64("text")+`","KeyId":"`+fakeKeyARN+`","EncryptionAlgorithm":"SYMMETRIC_DEFAULT"}`+"\n")
}

func TestEncryptAndDecryptFiles(t *testing.T) {
	f := reverser(t)
	t.Chdir(t.TempDir())
	if err := os.WriteFile("in", []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "encrypt", "--key", "app", "--in", "in", "--out", "enc").want(t, exitOK).wantOut(t, "")
	command(t, "encrypt", "--key", "app", "--in", "in", "--out", "enc64", "--base64").want(t, exitOK).wantOut(t, "")
	wantFile(t, "enc", "\xfftxet\xff")
	wantFile(t, "enc64", b64("\xfftxet\xff")+"\n")
	command(t, "decrypt", "--in", "enc", "--out", "out").want(t, exitOK).wantOut(t, "")
	command(t, "decrypt", "--in", "enc64", "--out", "out64", "--base64", "--json").want(t, exitOK).
		wantOut(t, `{"KeyId":"`+fakeKeyARN+`","EncryptionAlgorithm":"SYMMETRIC_DEFAULT","Files":["out64"]}`+"\n")
	wantFile(t, "out", "text")
	wantFile(t, "out64", "text")
	command(t, "encrypt", "--key", "app", "--in", "in", "--out", "-").want(t, exitOK).wantOut(t, "\xfftxet\xff")

	before := len(f.called())
	command(t, "encrypt", "--key", "app", "--in", "in", "--out", "out").want(t, exitFailed, "write out: it exists already")
	command(t, "decrypt", "--in", "enc", "--out", "out").want(t, exitFailed, "write out: it exists already")
	command(t, "encrypt", "--key", "app", "--in", "none").want(t, exitFailed, "read none: no such file or directory")
	command(t, "decrypt", "--in", "none").want(t, exitFailed, "read none: no such file or directory")
	if after := f.called(); len(after) != before {
		t.Errorf("the server was asked for %q", after[before:])
	}
	typed(t, "not one", "decrypt", "--out", "new").want(t, exitFailed, "cannot be opened")
	wantFiles(t, "in", "enc", "enc64", "out", "out64")
}

func TestEncryptTooMuch(t *testing.T) {
	f := reverser(t)
	typed(t, strings.Repeat("x", 4096), "encrypt", "--key", "app").want(t, exitOK)
	typed(t, strings.Repeat("x", 6144), "decrypt").want(t, exitFailed, "cannot be opened")
	before := len(f.called())
	typed(t, strings.Repeat("x", 4097), "encrypt", "--key", "app").want(t, exitFailed, "longer than 4096 bytes", "hint: encrypt it with a data key", "strongroom datakey")
	typed(t, strings.Repeat("x", 6145), "decrypt").want(t, exitFailed, "longer than 6144 bytes")
	typed(t, strings.Repeat("x", 13000), "decrypt", "--base64").want(t, exitFailed, "longer than 6144 bytes")
	typed(t, "", "encrypt", "--key", "app").want(t, exitFailed, "the input is empty")
	typed(t, "", "decrypt").want(t, exitFailed, "the input is empty")
	if after := f.called(); len(after) != before {
		t.Errorf("the server was asked for %q", after[before:])
	}
}

func TestBinaryAndTerminals(t *testing.T) {
	f := reverser(t)
	screen := newTerminal("")
	runWith(t, strings.NewReader("text"), screen, "encrypt", "--key", "app").want(t, exitMisuse, "stdout is a terminal", "hint: --out FILE or --base64").wantOut(t, "")
	if len(f.called()) != 0 {
		t.Errorf("the server was asked for %q", f.called())
	}
	runWith(t, strings.NewReader("text"), newTerminal(""), "encrypt", "--key", "app", "--base64").want(t, exitOK).wantOut(t, b64("\xfftxet\xff")+"\n")
	runWith(t, strings.NewReader("\xff\x00\xff"), newTerminal(""), "decrypt").want(t, exitFailed, "the plaintext is binary", "hint: --out FILE").wantOut(t, "")
	runWith(t, strings.NewReader("\xff\x00\xff"), newTerminal(""), "decrypt", "--json").want(t, exitOK)
	runWith(t, strings.NewReader("\xfftxet\xff"), newTerminal(""), "decrypt").want(t, exitOK).wantOut(t, "text")
	runWith(t, newTerminal("text"), screen, "encrypt", "--key", "app", "--base64").want(t, exitOK, "reading from the terminal; Ctrl-D")
}
