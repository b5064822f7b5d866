package main

import (
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/urfave/cli/v2"
)

const (
	maxCiphertext = 6144              // bytes (AWS KMS API Reference, Decrypt, CiphertextBlob)
	maxBase64     = 2 * maxCiphertext // enough for base64 in lines of any reasonable length
)

func decryptCommand() *cli.Command {
	return clientCommand(&cli.Command{
		Name:  "decrypt",
		Usage: "decrypt what encrypt, datakey or keypair encrypted",
		Description: `Reads stdin and writes stdout, or files. A ciphertext knows its key: --key only makes sure that it is this one. The
encryption context must be exactly that of the encryption.

The private key of a data key pair comes back in DER; openssl reads it with -inform DER.

Example:  strongroom decrypt --context purpose=backup --in secret.enc --out secret.txt
          strongroom decrypt --in app.key.enc --context app=web | openssl pkey -inform DER -out app.key.pem
          strongroom decrypt --in secret.enc --recipient enclave.doc --out secret.cms` + recipientHelp + keyHelp,
		Flags: []cli.Flag{
			keyFlag(), contextFlag(), grantTokensFlag(), inFlag(), outFlag(), recipientFlag(),
			&cli.BoolFlag{Name: "base64", Usage: "the ciphertext is base64", DisableDefaultText: true},
		},
		Action: decrypt,
	})
}

func decrypt(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	out := outFile(c)
	attested, err := wantsRecipient(c)
	if err != nil {
		return err
	}
	if attested && !c.Bool("json") {
		if err := needOutput(c, out, "the envelope", "--out FILE, or --json for base64"); err != nil {
			return err
		}
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
	to, err := readRecipient(c)
	if err != nil {
		return err
	}
	blob, err := readCiphertext(c)
	if err != nil {
		return err
	}
	in := &awskms.DecryptInput{CiphertextBlob: blob, EncryptionContext: pairsOf(c, "context"), GrantTokens: grantTokens(c), Recipient: to.info}
	if c.String("key") != "" {
		in.KeyId = aws.String(keyName(c.String("key")))
	}
	resp, err := call(c.Context, s, "decrypt", s.Decrypt, in)
	if err != nil {
		if _, no := parseBase64(blob); no == nil && errorCode(err) == "InvalidCiphertextException" {
			return hint(err, "the input looks like base64; --base64 reads it so")
		}
		return to.explain(err)
	}
	defer clear(resp.Plaintext)
	if err := to.check("decrypt", resp.CiphertextForRecipient, resp.Plaintext); err != nil {
		return err
	}
	return writePlaintext(c, resp, out)
}

// readCiphertext returns the bytes to decrypt, if they can be a ciphertext at all.
func readCiphertext(c *cli.Context) ([]byte, error) {
	limit := maxCiphertext
	if c.Bool("base64") {
		limit = maxBase64
	}
	blob, err := readInput(c, limit)
	if err != nil {
		return nil, err
	}
	if len(blob) <= limit && c.Bool("base64") {
		if blob, err = parseBase64(blob); err != nil {
			return nil, hint(errors.New("decrypt: the input is not base64"), "without --base64 the input is read as it is")
		}
	}
	switch {
	case len(blob) == 0:
		return nil, errors.New("decrypt: there is nothing to decrypt, the input is empty")
	case len(blob) > maxCiphertext:
		return nil, hint(fmt.Errorf("decrypt: the input is longer than %d bytes, which no ciphertext of a KMS is", maxCiphertext),
			"data that was encrypted with a data key needs that key: decrypt the key, then the data with it")
	}
	return blob, nil
}

func writePlaintext(c *cli.Context, resp *awskms.DecryptOutput, out string) error {
	j := cryptJSON{
		KeyID:               aws.ToString(resp.KeyId),
		EncryptionAlgorithm: string(resp.EncryptionAlgorithm),
		KeyMaterialID:       aws.ToString(resp.KeyMaterialId),
	}
	sealed, content := resp.CiphertextForRecipient, resp.Plaintext
	if len(sealed) > 0 {
		content = sealed // and there is no plaintext
	}
	if out != "" {
		if err := writeNew(newFile{path: out, content: content}); err != nil {
			return err
		}
		j.Files = []string{out}
	} else {
		j.Plaintext, j.CiphertextForRecipient = resp.Plaintext, sealed
	}
	switch {
	case c.Bool("json"):
		return printJSON(c, j)
	case out != "":
		return nil
	case len(sealed) > 0:
		return printBytes(c, sealed)
	}
	return printPlaintext(c, "decrypt", resp.Plaintext)
}

// printPlaintext prints what was encrypted, as it is, but no binary to a terminal. what says what was done.
func printPlaintext(c *cli.Context, what string, plaintext []byte) error {
	if isTerminal(c.App.Writer) {
		if !isText(plaintext) {
			return hint(fmt.Errorf("%s: the plaintext is binary, and stdout is a terminal", what), "--out FILE, or --json for base64")
		}
		if n := len(plaintext); n > 0 && plaintext[n-1] != '\n' {
			defer fmt.Fprintln(c.App.ErrWriter) // so that the prompt is on its own line, and the data unchanged
		}
	}
	return printBytes(c, plaintext)
}
