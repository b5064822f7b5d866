package main

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// pairMaker is a server that makes a pair of texts.
func pairMaker(t *testing.T) *fakeKMS {
	public := `"KeyId":"` + fakeKeyARN + `","KeyMaterialId":"m1","PublicKey":"` + b64("public") + `","PrivateKeyCiphertextBlob":"` + b64("blob") + `"`
	return newFakeKMS(t, map[string]fakeAnswer{
		"GenerateDataKeyPair": func(in map[string]any) any {
			return `{` + public + `,"KeyPairSpec":"` + in["KeyPairSpec"].(string) + `","PrivateKeyPlaintext":"` + b64("private") + `"}`
		},
		"GenerateDataKeyPairWithoutPlaintext": func(in map[string]any) any {
			return `{` + public + `,"KeyPairSpec":"` + in["KeyPairSpec"].(string) + `"}`
		},
	})
}

func asPEM(label, der string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: []byte(der)}))
}

func TestKeypairFiles(t *testing.T) {
	f := pairMaker(t)
	t.Chdir(t.TempDir())
	command(t, "keypair", "--key", "app", "--spec", "RSA_2048", "--out", "p", "--context", "a=b,c").want(t, exitOK).wantOut(t, ""+
		"p.pub.pem  public key\n"+
		"p.key.pem  private key, in clear: keep it no longer than it is needed\n"+
		"p.key.enc  private key, encrypted\n")
	wantFiles(t, "p.pub.pem", "p.key.pem", "p.key.enc")
	wantFile(t, "p.pub.pem", asPEM("PUBLIC KEY", "public"))
	wantFile(t, "p.key.pem", asPEM("PRIVATE KEY", "private"))
	wantFile(t, "p.key.enc", "blob")
	want := "map[EncryptionContext:map[a:b,c] KeyId:alias/app KeyPairSpec:RSA_2048]"
	if got := fmt.Sprint(f.last("GenerateDataKeyPair")); got != want {
		t.Errorf("asked with %s, want %s", got, want)
	}

	t.Chdir(t.TempDir())
	command(t, "keypair", "--key", "app", "--spec", "RSA_2048", "--out", "p", "--format", "der", "--json").want(t, exitOK).wantOut(t,
		`{"KeyPairSpec":"RSA_2048","PublicKey":"`+b64("public")+`","PrivateKeyCiphertextBlob":"`+b64("blob")+`","KeyId":"`+fakeKeyARN+`","KeyMaterialId":"m1",`+
			`"Files":["p.pub.der","p.key.der","p.key.enc"]}`+"\n")
	wantFiles(t, "p.pub.der", "p.key.der", "p.key.enc")
	wantFile(t, "p.key.der", "private")

	t.Chdir(t.TempDir())
	command(t, "keypair", "--key", "app", "--spec", "RSA_2048", "--out", "p", "--no-plaintext").want(t, exitOK)
	wantFiles(t, "p.pub.pem", "p.key.enc")
	if f.last("GenerateDataKeyPairWithoutPlaintext") == nil {
		t.Error("the private key was asked for")
	}
}

func TestKeypairOverwritesNothing(t *testing.T) {
	for _, there := range []string{"p.pub.pem", "p.key.pem", "p.key.enc"} {
		f := pairMaker(t)
		t.Chdir(t.TempDir())
		if err := os.WriteFile(there, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		command(t, "keypair", "--key", "app", "--spec", "SM2", "--out", "p").want(t, exitFailed, "write "+there+": it exists already", "hint: name another --out").wantOut(t, "")
		wantFiles(t, there)
		wantFile(t, there, "old")
		if len(f.called()) != 0 {
			t.Errorf("%s: the server was asked for %q", there, f.called())
		}

		// Somebody else makes the file while the server makes the pair.
		t.Chdir(t.TempDir())
		answer := f.answers["GenerateDataKeyPair"]
		f.answer("GenerateDataKeyPair", func(in map[string]any) any {
			if err := os.WriteFile(there, []byte("other"), 0o600); err != nil {
				t.Error(err)
			}
			return answer(in)
		})
		command(t, "keypair", "--key", "app", "--spec", "SM2", "--out", "p").want(t, exitFailed, "write "+there+": it exists already")
		wantFiles(t, there)
		wantFile(t, there, "other")
	}
}

func TestKeypairRefusedLeavesNothing(t *testing.T) {
	newFakeKMS(t, map[string]fakeAnswer{"GenerateDataKeyPair": always(fakeRefusal{400, "DisabledException", "x is disabled."})})
	t.Chdir(t.TempDir())
	command(t, "keypair", "--key", "app", "--spec", "SM2", "--out", "p").want(t, exitFailed, "make a SM2 pair under key alias/app: x is disabled.")
	wantFiles(t)
}

func TestKeypairPrinted(t *testing.T) {
	pairMaker(t)
	t.Chdir(t.TempDir())
	text := "KeyId: " + fakeKeyARN + "\nKeyPairSpec: ECC_NIST_P256\nPrivateKeyCiphertextBlob: " + b64("blob") + "\n" + asPEM("PUBLIC KEY", "public")
	args := []string{"keypair", "--key", "app", "--spec", "ECC_NIST_P256"}
	command(t, args...).want(t, exitOK).wantOut(t, text+asPEM("PRIVATE KEY", "private"))
	command(t, append(args, "--no-plaintext")...).want(t, exitOK).wantOut(t, text)
	command(t, append(args, "--json")...).want(t, exitOK).wantOut(t,
		`{"KeyPairSpec":"ECC_NIST_P256","PublicKey":"`+b64("public")+`","PrivateKeyPlaintext":"`+b64("private")+`","PrivateKeyCiphertextBlob":"`+b64("blob")+
			`","KeyId":"`+fakeKeyARN+`","KeyMaterialId":"m1"}`+"\n")
	if said := command(t, append(args, "--no-plaintext", "--json")...).want(t, exitOK); strings.Contains(said.stdout, "Plaintext") {
		t.Errorf("printed %s", said.stdout)
	}
	wantFiles(t)
}

func TestKeypairMisused(t *testing.T) {
	f := pairMaker(t)
	for args, want := range map[string]string{
		"--spec RSA_1024":                 `"RSA_1024" is not a data key pair spec`,
		"--spec SM2 --format der":         "--format is the form of files, and there is no --out",
		"--spec SM2 --format p --out x":   "--format p: must be pem or der",
		"--spec SM2 --out x --context a":  "is not NAME=VALUE",
		"--spec SM2 --out x y":            `"y" is one argument too many`,
		"--spec SM2 --context a=b=1 --no": "flag provided but not defined",
	} {
		command(t, append([]string{"keypair", "--key", "app"}, strings.Fields(args)...)...).want(t, exitMisuse, want).wantOut(t, "")
	}
	command(t, "keypair", "--key", "app", "--spec", "SM2", "--out", "none/p").want(t, exitFailed, "directory none: no such file")
	if len(f.called()) != 0 {
		t.Errorf("the server was asked for %q", f.called())
	}
}

func TestDatakey(t *testing.T) {
	blob := `"KeyId":"` + fakeKeyARN + `","KeyMaterialId":"m1","CiphertextBlob":"` + b64("blob") + `"`
	f := newFakeKMS(t, map[string]fakeAnswer{
		"GenerateDataKey":                 always(`{` + blob + `,"Plaintext":"` + b64("secret") + `"}`),
		"GenerateDataKeyWithoutPlaintext": always(`{` + blob + `}`),
	})
	t.Chdir(t.TempDir())
	text := "KeyId: " + fakeKeyARN + "\nCiphertextBlob: " + b64("blob") + "\n"
	command(t, "datakey", "--key", "app").want(t, exitOK).wantOut(t, text+"Plaintext: "+b64("secret")+"\n")
	command(t, "datakey", "--key", "app", "--no-plaintext").want(t, exitOK).wantOut(t, text)
	command(t, "datakey", "--key", "app", "--json").want(t, exitOK).wantOut(t,
		`{"CiphertextBlob":"`+b64("blob")+`","Plaintext":"`+b64("secret")+`","KeyId":"`+fakeKeyARN+`","KeyMaterialId":"m1"}`+"\n")
	command(t, "datakey", "--key", "app", "--out", "d", "--json").want(t, exitOK).wantOut(t,
		`{"CiphertextBlob":"`+b64("blob")+`","KeyId":"`+fakeKeyARN+`","KeyMaterialId":"m1","Files":["d.key","d.key.enc"]}`+"\n")
	wantFiles(t, "d.key", "d.key.enc")
	wantFile(t, "d.key", "secret")
	wantFile(t, "d.key.enc", "blob")
	command(t, "datakey", "--key", "app", "--out", "d").want(t, exitFailed, "write d.key: it exists already")
	command(t, "datakey", "--key", "app", "--out", "e", "--no-plaintext").want(t, exitOK).wantOut(t, "e.key.enc  data key, encrypted\n")
	wantFiles(t, "d.key", "d.key.enc", "e.key.enc")

	for args, want := range map[string]string{
		"":               "map[KeyId:alias/app KeySpec:AES_256]",
		"--spec AES_128": "map[KeyId:alias/app KeySpec:AES_128]",
		"--bytes 64":     "map[KeyId:alias/app NumberOfBytes:64]",
		"--context a=b":  "map[EncryptionContext:map[a:b] KeyId:alias/app KeySpec:AES_256]",
	} {
		command(t, append([]string{"datakey", "--key", "app"}, strings.Fields(args)...)...).want(t, exitOK)
		if got := fmt.Sprint(f.last("GenerateDataKey")); got != want {
			t.Errorf("%s: asked with %s, want %s", args, got, want)
		}
	}
	before := len(f.called())
	for args, want := range map[string]string{
		"--spec AES_512":            "must be AES_256 or AES_128",
		"--spec AES_128 --bytes 16": "--spec and --bytes cannot both be",
		"--bytes 0":                 "--bytes 0: must be 1 to 1024",
		"--bytes 1025":              "--bytes 1025: must be 1 to 1024",
	} {
		command(t, append([]string{"datakey", "--key", "app"}, strings.Fields(args)...)...).want(t, exitMisuse, want)
	}
	if after := f.called(); len(after) != before {
		t.Errorf("the server was asked for %q", slices.Clone(after[before:]))
	}
}
