package main

import (
	"encoding/hex"
	"strings"

	"github.com/urfave/cli/v2"
)

func attestCommand() *cli.Command {
	return &cli.Command{
		Name:  "attest",
		Usage: "look into attestation documents, and make some for tests",
		Description: `An enclave or an instance sends such a document with a request, as its Recipient: a statement, signed by the vendor of the
hardware, of which code runs there and which RSA key that code holds. The answer is sealed to that key.`,
		Action:       helpOnly,
		OnUsageError: onUsageError,
		Subcommands: []*cli.Command{
			attestInspectCommand(),
			attestMakeCommand(),
			attestOpenCommand(),
		},
	}
}

// A binary form is how bytes were written down.
const (
	rawForm    = "raw"
	base64Form = "base64"
	hexForm    = "hex"
)

// maxBinary is how much of a file is read that holds a document or an envelope: more than the hex text of a document of the size that AWS KMS takes.
const maxBinary = 1 << 20

// readBinary returns the bytes that a file, or stdin for "-", holds in any form, and in which. They are what the file says, however long: who wants less
// refuses it.
func readBinary(c *cli.Context, name string) ([]byte, string, error) {
	b, err := readNamed(c, name, maxBinary)
	switch {
	case err != nil:
		return nil, "", misuse("%w", err)
	case len(b) > maxBinary:
		return nil, "", misuse("%s is longer than %d bytes", printable(name), maxBinary)
	}
	b, form := parseBinary(b)
	return b, form, nil
}

// parseBinary returns the bytes that b is text of, in hex or in base64, however it is broken into lines, or else b itself. Documents and envelopes begin
// with bytes that no text has.
func parseBinary(b []byte) ([]byte, string) {
	for _, char := range b {
		if char > '~' {
			return b, rawForm
		}
	}
	joined := strings.Join(strings.Fields(string(b)), "")
	if joined == "" {
		return b, rawForm
	}
	if decoded, err := hex.DecodeString(joined); err == nil {
		return decoded, hexForm
	}
	if decoded, err := parseBase64([]byte(joined)); err == nil {
		return decoded, base64Form
	}
	return b, rawForm
}

// needOutput refuses to go on where binary would go to a terminal. out is what outFile returned.
func needOutput(c *cli.Context, out, what string, hints ...string) error {
	if out == "" && isTerminal(c.App.Writer) {
		return hint(misuse("%s is binary, and stdout is a terminal", what), hints...)
	}
	return nil
}

// textOrFile returns what a flag says: its text, or for @FILE what is in the file.
func textOrFile(c *cli.Context, flag string) ([]byte, error) {
	text := c.String(flag)
	name, isFile := strings.CutPrefix(text, "@")
	switch {
	case text == "":
		return nil, nil
	case !isFile:
		return []byte(text), nil
	}
	b, err := readFile(c.Context, name, maxBinary)
	if err != nil {
		return nil, misuse("--%s: %w", flag, err)
	}
	return b, nil
}

// needKeyFile returns the file that --key names.
func needKeyFile(c *cli.Context) (string, error) {
	if c.String("key") == "" {
		return "", hint(misuse("--key is missing"), c.Command.HelpName+" --help")
	}
	return c.String("key"), nil
}
