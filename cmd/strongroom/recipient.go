package main

import (
	"errors"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/urfave/cli/v2"
)

// recipientHelp is for the commands that have --recipient.
const recipientHelp = `

With --recipient FILE, what would come in clear is sealed to the key in the attestation document in FILE, and nobody here can
read it: an envelope, CMS (RFC 5652), which OpenSSL and the SDKs of AWS open where that key is, and strongroom attest open.
FILE is the document as it is, or as base64 or hex text; - reads stdin. A document is taken for five minutes after it was made.`

func recipientFlag() cli.Flag {
	return &cli.StringFlag{Name: "recipient", Usage: "seal the answer to the key in the attestation document in `FILE`, - for stdin", TakesFile: true}
}

// A recipient is whom an answer is to be sealed to. The zero value is nobody: the answer comes in clear.
type recipient struct {
	info *types.RecipientInfo
}

// wantsRecipient reports whether --recipient names somebody, and refuses what contradicts it.
func wantsRecipient(c *cli.Context) (bool, error) {
	file := c.String("recipient")
	switch {
	case file == "" && c.IsSet("recipient"):
		// As from a variable of a shell that is not set: that must not mean an answer in clear.
		return false, misuse("--recipient is empty")
	case file != "" && c.Bool("no-plaintext"):
		return false, misuse("--recipient and --no-plaintext cannot both be: without a plaintext there is nothing to seal")
	case file == "-" && c.String("in") == "-":
		return false, misuse("--recipient and --in cannot both be stdin")
	}
	return file != "", nil
}

// readRecipient returns the recipient that --recipient names.
func readRecipient(c *cli.Context) (recipient, error) {
	file := c.String("recipient")
	if file == "" {
		return recipient{}, nil
	}
	document, _, err := readBinary(c, file)
	if err != nil {
		return recipient{}, err
	}
	if len(document) == 0 {
		return recipient{}, misuse("--recipient: %s is empty", printable(file))
	}
	return recipient{&types.RecipientInfo{
		AttestationDocument: document, KeyEncryptionAlgorithm: types.KeyEncryptionMechanismRsaesOaepSha256,
	}}, nil
}

// check makes sure that an answer came as it was asked for: sealed, or in clear. A server that knows nothing of recipients would send the plaintext itself.
func (r recipient) check(what string, sealed, plaintext []byte) error {
	wanted, got := r.info != nil, len(sealed) > 0
	if wanted == got && !(got && len(plaintext) > 0) {
		return nil
	}
	clear(plaintext)
	if !wanted {
		return &failure{what, "the server has sealed its answer, to whom is not known", errNotAsAsked}
	}
	return hint(&failure{what, "the server has not sealed its answer", errNotAsAsked},
		"it does not know --recipient; what it sent in clear is thrown away")
}

var errNotAsAsked = errors.New("the answer is not as it was asked for")

// explain adds to the refusal of a request what can be done if it is about the document.
func (r recipient) explain(err error) error {
	if r.info != nil && errorCode(err) == "ValidationException" && strings.Contains(err.Error(), "attestation document") {
		return hint(err, "strongroom attest inspect FILE says what is wrong with the document; --config says what the server trusts")
	}
	return err
}
