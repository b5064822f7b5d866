package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// sealer is a server that seals its answers if it is asked to. What it has sealed says so.
func sealer(t *testing.T) *fakeKMS {
	answer := func(plaintext string) fakeAnswer {
		return func(in map[string]any) any {
			member := `"` + plaintext + `":"` + b64("secret") + `"`
			if in["Recipient"] != nil {
				member = `"CiphertextForRecipient":"` + b64("\x30\x80sealed") + `"`
			}
			return `{"KeyId":"` + fakeKeyARN + `","CiphertextBlob":"` + b64("blob") + `","EncryptionAlgorithm":"SYMMETRIC_DEFAULT",` +
				`"KeyPairSpec":"SM2","PublicKey":"` + b64("public") + `","PrivateKeyCiphertextBlob":"` + b64("blob") + `",` + member + `}`
		}
	}
	return newFakeKMS(t, map[string]fakeAnswer{
		"Decrypt":             answer("Plaintext"),
		"GenerateDataKey":     answer("Plaintext"),
		"GenerateDataKeyPair": answer("PrivateKeyPlaintext"),
	})
}

// inTemp goes to a directory with a document, which the server alone looks into.
func inTemp(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{"doc": "\x84document", "doc.b64": b64("\x84document") + "\n", "blob": "blob"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

const sealedText = "\x30\x80sealed"

func TestRecipientIsSent(t *testing.T) {
	f := sealer(t)
	inTemp(t)
	want := fmt.Sprint(map[string]any{"AttestationDocument": b64("\x84document"), "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256"})
	for operation, args := range map[string]string{
		"Decrypt":             "decrypt --in blob",
		"GenerateDataKey":     "datakey --key app",
		"GenerateDataKeyPair": "keypair --key app --spec SM2",
	} {
		for _, file := range []string{"doc", "doc.b64"} {
			command(t, append(strings.Fields(args), "--recipient", file)...).want(t, exitOK)
			if got := fmt.Sprint(f.last(operation)["Recipient"]); got != want {
				t.Errorf("%s: asked for %s, want %s", operation, got, want)
			}
		}
		command(t, strings.Fields(args)...).want(t, exitOK)
		if got, ok := f.last(operation)["Recipient"]; ok {
			t.Errorf("%s: asked for %v although there is no --recipient", operation, got)
		}
	}
	typed(t, "\x84document", "datakey", "--key", "app", "--recipient", "-").want(t, exitOK)
	if got := fmt.Sprint(f.last("GenerateDataKey")["Recipient"]); got != want {
		t.Errorf("from stdin: asked for %s, want %s", got, want)
	}
}

func TestSealedAnswers(t *testing.T) {
	sealer(t)
	inTemp(t)
	sealed, key := `"CiphertextForRecipient":"`+b64(sealedText)+`"`, `"KeyId":"`+fakeKeyARN+`"`

	command(t, "decrypt", "--in", "blob", "--recipient", "doc").want(t, exitOK).wantOut(t, sealedText)
	command(t, "decrypt", "--in", "blob", "--recipient", "doc", "--json").want(t, exitOK).wantOut(t, `{`+sealed+`,`+key+`,"EncryptionAlgorithm":"SYMMETRIC_DEFAULT"}`+"\n")
	command(t, "decrypt", "--in", "blob", "--recipient", "doc", "--out", "d.cms", "--json").want(t, exitOK).wantOut(t, `{`+key+`,"EncryptionAlgorithm":"SYMMETRIC_DEFAULT","Files":["d.cms"]}`+"\n")
	wantFile(t, "d.cms", sealedText)

	text := "KeyId: " + fakeKeyARN + "\nCiphertextBlob: " + b64("blob") + "\nCiphertextForRecipient: " + b64(sealedText) + "\n"
	command(t, "datakey", "--key", "app", "--recipient", "doc").want(t, exitOK).wantOut(t, text)
	command(t, "datakey", "--key", "app", "--recipient", "doc", "--json").want(t, exitOK).wantOut(t, `{"CiphertextBlob":"`+b64("blob")+`",`+sealed+`,`+key+`}`+"\n")
	command(t, "datakey", "--key", "app", "--recipient", "doc", "--out", "k").want(t, exitOK).wantOut(t, "k.key.cms  data key, sealed to the recipient\nk.key.enc  data key, encrypted\n")
	wantFile(t, "k.key.cms", sealedText)
	wantFile(t, "k.key.enc", "blob")

	pair := []string{"keypair", "--key", "app", "--spec", "SM2", "--recipient", "doc"}
	command(t, pair...).want(t, exitOK).wantOut(t, "KeyId: "+fakeKeyARN+"\nKeyPairSpec: SM2\nPrivateKeyCiphertextBlob: "+b64("blob")+
		"\nCiphertextForRecipient: "+b64(sealedText)+"\n"+asPEM("PUBLIC KEY", "public"))
	command(t, append(pair, "--json")...).want(t, exitOK).wantOut(t, `{"KeyPairSpec":"SM2","PublicKey":"`+b64("public")+`",`+sealed+
		`,"PrivateKeyCiphertextBlob":"`+b64("blob")+`",`+key+`}`+"\n")
	command(t, append(pair, "--out", "p", "--format", "der")...).want(t, exitOK).wantOut(t, ""+
		"p.pub.der  public key\np.key.cms  private key, sealed to the recipient\np.key.enc  private key, encrypted\n")
	wantFile(t, "p.key.cms", sealedText)
	wantFile(t, "p.pub.der", "public")
	command(t, append(pair, "--out", "q", "--json")...).want(t, exitOK).wantOut(t, `{"KeyPairSpec":"SM2","PublicKey":"`+b64("public")+
		`","PrivateKeyCiphertextBlob":"`+b64("blob")+`",`+key+`,"Files":["q.pub.pem","q.key.cms","q.key.enc"]}`+"\n")
	command(t, append(pair, "--out", "p")...).want(t, exitFailed, "it exists already")
}

// A server that has never heard of recipients sends the plaintext. It goes no further.
func TestAnswersThatAreNotSealed(t *testing.T) {
	f := sealer(t)
	inTemp(t)
	for operation, args := range map[string]string{
		"Decrypt":             "decrypt --in blob",
		"GenerateDataKey":     "datakey --key app",
		"GenerateDataKeyPair": "keypair --key app --spec SM2",
	} {
		ignorant := f.answers[operation]
		for name, answer := range map[string]fakeAnswer{
			"in clear": func(map[string]any) any { return ignorant(nil) },
			"both": func(map[string]any) any {
				return strings.Replace(ignorant(nil).(string), "{", `{"CiphertextForRecipient":"`+b64(sealedText)+`",`, 1)
			},
			"neither": always(`{"KeyId":"` + fakeKeyARN + `"}`),
		} {
			f.answer(operation, answer)
			for _, more := range []string{"", " --json", " --out x"} {
				s := command(t, strings.Fields(args+" --recipient doc"+more)...).want(t, exitFailed, "the server has not sealed its answer").wantOut(t, "")
				if strings.Contains(s.stderr, "secret") || strings.Contains(s.stderr, b64("secret")) {
					t.Errorf("%s, %s: %s", operation, name, s.stderr)
				}
			}
		}
	}
	wantFiles(t, "blob", "doc", "doc.b64")

	f.answer("Decrypt", always(`{"KeyId":"`+fakeKeyARN+`","CiphertextForRecipient":"`+b64(sealedText)+`"}`))
	command(t, "decrypt", "--in", "blob").want(t, exitFailed, "the server has sealed its answer, to whom is not known").wantOut(t, "")
}

func TestRecipientMisused(t *testing.T) {
	f := sealer(t)
	inTemp(t)
	if err := os.WriteFile("empty", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"decrypt --recipient nowhere":                                    "read nowhere: no such file",
		"decrypt --recipient -":                                          "--recipient and --in cannot both be stdin",
		"decrypt --recipient=":                                           "--recipient is empty",
		"datakey --key app --recipient empty":                            "--recipient: empty is empty",
		"datakey --key app --recipient=":                                 "--recipient is empty",
		"datakey --key app --recipient doc --no-plaintext":               "--recipient and --no-plaintext cannot both be",
		"keypair --key app --spec SM2 --recipient=":                      "--recipient is empty",
		"keypair --key app --spec SM2 --recipient doc --no-plaintext":    "--recipient and --no-plaintext cannot both be",
		"encrypt --key app --recipient doc":                              "flag provided but not defined",
		"keypair --key app --spec SM2 --recipient doc --format der --in": "flag provided but not defined",
	} {
		command(t, strings.Fields(args)...).want(t, exitMisuse, want).wantOut(t, "")
	}
	runWith(t, strings.NewReader("blob"), newTerminal(""), "decrypt", "--recipient", "doc").want(t, exitMisuse, "the envelope is binary, and stdout is a terminal").wantOut(t, "")
	if len(f.called()) != 0 {
		t.Errorf("the server was asked for %q", f.called())
	}
}

func TestRecipientRefused(t *testing.T) {
	stale := always(fakeRefusal{400, "ValidationException", "The attestation document has exceeded the five-minute age limit."})
	newFakeKMS(t, map[string]fakeAnswer{"Decrypt": stale, "GenerateDataKey": stale, "GenerateDataKeyPair": stale})
	inTemp(t)
	for _, args := range []string{"decrypt --in blob", "datakey --key app --out x", "keypair --key app --spec SM2 --out x"} {
		command(t, strings.Fields(args+" --recipient doc")...).want(t, exitFailed,
			"exceeded the five-minute age limit", "hint: strongroom attest inspect FILE says what is wrong with the document").wantOut(t, "")
	}
	wantFiles(t, "blob", "doc", "doc.b64")
}
