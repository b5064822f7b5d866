package main

import (
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/urfave/cli/v2"
)

const maxPlaintext = 4096 // bytes (AWS KMS API Reference, Encrypt, Plaintext)

func encryptCommand() *cli.Command {
	return clientCommand(&cli.Command{
		Name:  "encrypt",
		Usage: "encrypt up to 4096 bytes under a key",
		Description: `Reads stdin and writes stdout, or files. The ciphertext is binary, unless --base64 writes it as text.

Example:  strongroom encrypt --key app --context purpose=backup --in secret.txt --out secret.enc
          printf hunter2 | strongroom encrypt --key app --base64` + keyHelp,
		Flags: []cli.Flag{
			keyFlag(), contextFlag(), grantTokensFlag(), inFlag(), outFlag(),
			&cli.BoolFlag{Name: "base64", Usage: "write the ciphertext as base64", DisableDefaultText: true},
		},
		Action: encrypt,
	})
}

func encrypt(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	key, err := needKey(c)
	if err != nil {
		return err
	}
	out := outFile(c)
	if out == "" && !c.Bool("base64") && !c.Bool("json") && isTerminal(c.App.Writer) {
		return hint(misuse("the ciphertext is binary, and stdout is a terminal"), "--out FILE or --base64")
	}
	if out != "" {
		if err := checkNew(out); err != nil {
			return err
		}
	}
	s, err := connect(c)
	if err != nil {
		return err
	}
	plaintext, err := readInput(c, maxPlaintext)
	if err != nil {
		return err
	}
	defer clear(plaintext)
	switch {
	case len(plaintext) == 0:
		return errors.New("encrypt: there is nothing to encrypt, the input is empty")
	case len(plaintext) > maxPlaintext:
		return hint(fmt.Errorf("encrypt: the input is longer than %d bytes", maxPlaintext),
			"encrypt it with a data key, and keep that encrypted beside it:  strongroom datakey --key KEY --out FILE")
	}
	resp, err := call(c.Context, s, "encrypt under key "+key, s.Encrypt, &awskms.EncryptInput{
		KeyId: &key, Plaintext: plaintext, EncryptionContext: pairsOf(c, "context"), GrantTokens: grantTokens(c),
	})
	if err != nil {
		return err
	}
	blob := resp.CiphertextBlob
	if c.Bool("base64") {
		blob = appendBase64(nil, blob)
	}
	if out != "" {
		if err := writeNew(newFile{path: out, content: blob}); err != nil {
			return err
		}
	}
	if c.Bool("json") {
		j := cryptJSON{CiphertextBlob: resp.CiphertextBlob, KeyID: aws.ToString(resp.KeyId), EncryptionAlgorithm: string(resp.EncryptionAlgorithm)}
		if out != "" {
			j.Files = []string{out}
		}
		return printJSON(c, j)
	}
	if out != "" {
		return nil
	}
	return printBytes(c, blob)
}

// cryptJSON is the answer of Encrypt or Decrypt, with the files that were made. A plaintext that went to a file is not in it.
type cryptJSON struct {
	CiphertextBlob         []byte   `json:",omitempty"`
	Plaintext              []byte   `json:",omitempty"`
	CiphertextForRecipient []byte   `json:",omitempty"`
	KeyID                  string   `json:"KeyId"`
	EncryptionAlgorithm    string   `json:",omitempty"`
	KeyMaterialID          string   `json:"KeyMaterialId,omitempty"`
	Files                  []string `json:",omitempty"`
}
