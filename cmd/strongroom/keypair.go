package main

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/urfave/cli/v2"

	"strongroom/keyspec"
)

func keypairCommand() *cli.Command {
	return clientCommand(&cli.Command{
		Name:  "keypair",
		Usage: "make a data key pair, its private key in clear and encrypted under a key",
		Description: `SPEC is one of
  ` + strings.Join(keyspec.Spec(0).Values(), "\n  ") + `

With --out app, makes files of mode 0600, or nothing if one of them is there already:
  app.pub.pem  the public key: SubjectPublicKeyInfo, "PUBLIC KEY"
  app.key.pem  the private key: PKCS #8, "PRIVATE KEY"
  app.key.enc  the private key, encrypted; decrypt gives it back in DER
With --format der the first two are app.pub.der and app.key.der. With --no-plaintext the private key in clear is not sent at all.

With --recipient there is an envelope in the place of the private key in clear, app.key.cms, and --format is that of the public
key alone: in an envelope the private key is always DER.

Without --out, prints the encrypted private key as base64 on a line of its own, and then both keys as PEM, so that the
output may go to openssl.

Example:  strongroom keypair --key app --spec ECC_NIST_P256 --context app=web --out app
          strongroom keypair --key app --spec RSA_2048 | openssl pkey -noout -text_pub
          strongroom keypair --key app --spec RSA_2048 --recipient enclave.doc --out app` + recipientHelp + keyHelp,
		Flags: []cli.Flag{
			keyFlag(),
			&cli.StringFlag{Name: "spec", Usage: "kind of pair, `SPEC`"},
			contextFlag(),
			grantTokensFlag(),
			&cli.StringFlag{Name: "out", Usage: "make files that begin with `BASENAME`", TakesFile: true},
			&cli.StringFlag{Name: "format", Usage: "`FORM` of the files: pem or der (default: pem)"},
			&cli.BoolFlag{Name: "no-plaintext", Usage: "only the public key and the encrypted private key", DisableDefaultText: true},
			recipientFlag(),
		},
		Action: makeKeyPair,
	})
}

// pairJSON is the answer of GenerateDataKeyPair, with the files that were made. A private key that went to a file is not in it.
type pairJSON struct {
	KeyPairSpec              types.DataKeyPairSpec
	PublicKey                []byte
	PrivateKeyPlaintext      []byte `json:",omitempty"`
	CiphertextForRecipient   []byte `json:",omitempty"` // the private key
	PrivateKeyCiphertextBlob []byte
	KeyID                    string   `json:"KeyId"`
	KeyMaterialID            string   `json:"KeyMaterialId,omitempty"`
	Files                    []string `json:",omitempty"`
}

func makeKeyPair(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	key, err := needKey(c)
	if err != nil {
		return err
	}
	spec, err := keyspec.Parse(c.String("spec"))
	if err != nil {
		choices := "one of " + strings.Join(keyspec.Spec(0).Values(), " ")
		if c.String("spec") == "" {
			return hint(misuse("--spec is missing"), choices)
		}
		return hint(misuse("--spec: %w", err), choices)
	}
	form := c.String("format")
	switch {
	case form != "" && form != "pem" && form != "der":
		return misuse("--format %s: must be pem or der", form)
	case form != "" && c.String("out") == "":
		return hint(misuse("--format is the form of files, and there is no --out"), "without --out the keys are printed as PEM, with --json as base64 of the DER")
	case form == "":
		form = "pem"
	}
	attested, err := wantsRecipient(c)
	if err != nil {
		return err
	}
	p := pairFiles{base: c.String("out"), form: form, public: c.Bool("no-plaintext"), sealed: attested}
	if p.base != "" {
		if err := checkNew(paths(p.files(&pairJSON{}))...); err != nil {
			return err
		}
	}
	s, err := connect(c)
	if err != nil {
		return err
	}
	to, err := readRecipient(c)
	if err != nil {
		return err
	}
	pair, err := s.keyPair(c, key, types.DataKeyPairSpec(spec.String()), to)
	if err != nil {
		return err
	}
	defer clear(pair.PrivateKeyPlaintext)
	switch {
	case p.base != "":
		return p.write(c, pair)
	case c.Bool("json"):
		return printJSON(c, pair)
	}
	return printPair(c, pair)
}

// keyPair asks for a pair, without its private key in clear if that is not wanted: it is another permission, and what is not sent is not leaked.
func (s *client) keyPair(c *cli.Context, key string, spec types.DataKeyPairSpec, to recipient) (*pairJSON, error) {
	what, context := fmt.Sprintf("make a %s pair under key %s", spec, key), pairsOf(c, "context")
	if c.Bool("no-plaintext") {
		resp, err := call(c.Context, s, what, s.GenerateDataKeyPairWithoutPlaintext, &awskms.GenerateDataKeyPairWithoutPlaintextInput{
			KeyId: &key, KeyPairSpec: spec, EncryptionContext: context, GrantTokens: grantTokens(c),
		})
		if err != nil {
			return nil, err
		}
		return &pairJSON{
			KeyPairSpec: resp.KeyPairSpec, PublicKey: resp.PublicKey, PrivateKeyCiphertextBlob: resp.PrivateKeyCiphertextBlob,
			KeyID: aws.ToString(resp.KeyId), KeyMaterialID: aws.ToString(resp.KeyMaterialId),
		}, nil
	}
	resp, err := call(c.Context, s, what, s.GenerateDataKeyPair, &awskms.GenerateDataKeyPairInput{
		KeyId: &key, KeyPairSpec: spec, EncryptionContext: context, GrantTokens: grantTokens(c), Recipient: to.info,
	})
	if err != nil {
		return nil, to.explain(err)
	}
	if err := to.check(what, resp.CiphertextForRecipient, resp.PrivateKeyPlaintext); err != nil {
		return nil, err
	}
	return &pairJSON{
		KeyPairSpec: resp.KeyPairSpec, PublicKey: resp.PublicKey, PrivateKeyCiphertextBlob: resp.PrivateKeyCiphertextBlob,
		PrivateKeyPlaintext: resp.PrivateKeyPlaintext, CiphertextForRecipient: resp.CiphertextForRecipient,
		KeyID: aws.ToString(resp.KeyId), KeyMaterialID: aws.ToString(resp.KeyMaterialId),
	}, nil
}

// pairFiles says which files a pair becomes.
type pairFiles struct {
	base, form string
	public     bool // no private key in clear
	sealed     bool // an envelope for it
}

// files returns the files for a pair. It is also asked before there is one, for their names.
func (p pairFiles) files(pair *pairJSON) []newFile {
	all := []newFile{{p.base + ".pub." + p.form, p.encode("PUBLIC KEY", pair.PublicKey), "public key"}}
	switch {
	case p.sealed:
		all = append(all, newFile{p.base + ".key.cms", pair.CiphertextForRecipient, "private key, sealed to the recipient"})
	case !p.public:
		all = append(all, newFile{p.base + ".key." + p.form, p.encode("PRIVATE KEY", pair.PrivateKeyPlaintext), "private key, in clear: keep it no longer than it is needed"})
	}
	return append(all, newFile{p.base + ".key.enc", pair.PrivateKeyCiphertextBlob, "private key, encrypted"})
}

// encode returns DER in the form of the files.
func (p pairFiles) encode(label string, der []byte) []byte {
	if p.form == "der" {
		return der
	}
	return pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der})
}

func (p pairFiles) write(c *cli.Context, pair *pairJSON) error {
	files := p.files(pair)
	err := writeNew(files...)
	if !p.public && !p.sealed {
		clear(files[1].content)
	}
	if err != nil {
		return err
	}
	if c.Bool("json") {
		shown := *pair
		shown.PrivateKeyPlaintext, shown.CiphertextForRecipient, shown.Files = nil, nil, paths(files)
		return printJSON(c, shown)
	}
	return printFiles(c, files)
}

// printPair prints what RFC 7468, section 2 calls explanatory text, which readers of PEM skip, and the keys as PEM.
func printPair(c *cli.Context, pair *pairJSON) error {
	text := fmt.Appendf(nil, "KeyId: %s\nKeyPairSpec: %s\nPrivateKeyCiphertextBlob: %s\n",
		printable(pair.KeyID), printable(string(pair.KeyPairSpec)), base64.StdEncoding.EncodeToString(pair.PrivateKeyCiphertextBlob))
	if sealed := pair.CiphertextForRecipient; len(sealed) > 0 {
		text = appendBase64(append(text, "CiphertextForRecipient: "...), sealed)
	}
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pair.PublicKey})...)
	if err := printBytes(c, text); err != nil || len(pair.PrivateKeyPlaintext) == 0 {
		return err
	}
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pair.PrivateKeyPlaintext})
	defer clear(private)
	return printBytes(c, private)
}
