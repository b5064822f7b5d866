package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"strongroom/kms/attest/attesttest"
)

func attestOpenCommand() *cli.Command {
	return localCommand(&cli.Command{
		Name:      "open",
		Usage:     "open an answer that was sealed to the key of an attestation document",
		ArgsUsage: "[ENVELOPE|-]",
		Description: `ENVELOPE is a CiphertextForRecipient, as it is, or as base64 or hex text; without it, stdin is read. KEYFILE holds the private
RSA key of the recipient, in PEM, such as "strongroom attest make" makes. No server is asked.

Anybody can seal anything to a public key: that it can be opened does not prove who sent it.

Example:  strongroom attest open --key app.key backup.key.cms --out backup.key
          strongroom decrypt --in secret.enc --recipient app.doc | strongroom attest open --key app.key

With --json, stdout is one JSON object whose binary values are base64.

Exit codes: 0 done, 1 failed, 2 used wrongly and nothing was done.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "key", Usage: "the recipient's key, in `KEYFILE`", TakesFile: true},
			outFlag(),
			jsonFlag(),
			cli.HelpFlag,
		},
		Action: openEnvelope,
	})
}

// openedJSON is what was in an envelope, or the file that it went to.
type openedJSON struct {
	Plaintext []byte   `json:",omitempty"`
	Files     []string `json:",omitempty"`
}

func openEnvelope(c *cli.Context) error {
	name := "-"
	if c.NArg() > 0 {
		var err error
		if name, err = argument(c, "ENVELOPE"); err != nil {
			return err
		}
	}
	path, err := needKeyFile(c)
	if err != nil {
		return err
	}
	out := outFile(c)
	if out != "" {
		if err := checkNew(out); err != nil {
			return err
		}
	}
	text, err := readFile(c.Context, path, maxPEM)
	if err != nil {
		return misuse("the key: %w", err)
	}
	defer clear(text)
	key, err := attesttest.ParseRecipient(text)
	if err != nil {
		return misuse("the key %s: %w", printable(path), err)
	}
	envelope, _, err := readBinary(c, name)
	if err != nil {
		return err
	}
	plaintext, err := key.Open(envelope)
	if err != nil {
		return hint(fmt.Errorf("open the envelope: %w", err), "it must be sealed to the key in "+printable(path)+", and whole")
	}
	defer clear(plaintext)
	if out != "" {
		if err := writeNew(newFile{path: out, content: plaintext}); err != nil || !c.Bool("json") {
			return err
		}
		return printJSON(c, openedJSON{Files: []string{out}})
	}
	if c.Bool("json") {
		return printJSON(c, openedJSON{Plaintext: plaintext})
	}
	return printPlaintext(c, "open the envelope", plaintext)
}
