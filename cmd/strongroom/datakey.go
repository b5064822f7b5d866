package main

import (
	"encoding/base64"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/urfave/cli/v2"
)

const maxDataKey = 1024 // bytes (AWS KMS API Reference, GenerateDataKey, NumberOfBytes)

func datakeyCommand() *cli.Command {
	return clientCommand(&cli.Command{
		Name:  "datakey",
		Usage: "make a data key, in clear and encrypted under a key",
		Description: `Encrypt with the key in clear, forget it, and keep the encrypted one beside the data: decrypt gives it back.

With --out app, makes app.key (the key itself, raw) and app.key.enc (encrypted), mode 0600, or nothing if one is there
already. Without it, prints both as base64. With --no-plaintext the key in clear is not sent at all. With --recipient there is
an envelope in its place, app.key.cms.

Example:  strongroom datakey --key app --context purpose=backup --out backup
          strongroom decrypt --in backup.key.enc --context purpose=backup | cmp - backup.key
          strongroom datakey --key app --recipient enclave.doc --out backup` + recipientHelp + keyHelp,
		Flags: []cli.Flag{
			keyFlag(),
			&cli.StringFlag{Name: "spec", Usage: "`SPEC`: AES_256 or AES_128 (default: AES_256)"},
			&cli.IntFlag{Name: "bytes", Usage: "instead of --spec: `N` bytes, 1 to 1024", DefaultText: "as --spec"},
			contextFlag(),
			grantTokensFlag(),
			&cli.StringFlag{Name: "out", Usage: "make files that begin with `BASENAME`", TakesFile: true},
			&cli.BoolFlag{Name: "no-plaintext", Usage: "only the encrypted key", DisableDefaultText: true},
			recipientFlag(),
		},
		Action: makeDataKey,
	})
}

// dataKeyJSON is the answer of GenerateDataKey, with the files that were made. A plaintext that went to a file is not in it.
type dataKeyJSON struct {
	CiphertextBlob         []byte
	Plaintext              []byte   `json:",omitempty"`
	CiphertextForRecipient []byte   `json:",omitempty"`
	KeyID                  string   `json:"KeyId"`
	KeyMaterialID          string   `json:"KeyMaterialId,omitempty"`
	Files                  []string `json:",omitempty"`
}

func makeDataKey(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	key, err := needKey(c)
	if err != nil {
		return err
	}
	spec, bytes, err := dataKeySize(c)
	if err != nil {
		return err
	}
	attested, err := wantsRecipient(c)
	if err != nil {
		return err
	}
	var files []newFile
	if out := c.String("out"); out != "" {
		switch {
		case attested:
			files = append(files, newFile{path: out + ".key.cms", about: "data key, sealed to the recipient"})
		case !c.Bool("no-plaintext"):
			files = append(files, newFile{path: out + ".key", about: "data key, raw: keep it no longer than it is needed"})
		}
		files = append(files, newFile{path: out + ".key.enc", about: "data key, encrypted"})
		if err := checkNew(paths(files)...); err != nil {
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
	resp, err := s.dataKey(c, key, spec, bytes, to)
	if err != nil {
		return err
	}
	defer clear(resp.Plaintext)
	if files == nil {
		return printDataKey(c, resp)
	}
	files[len(files)-1].content = resp.CiphertextBlob
	switch {
	case attested:
		files[0].content = resp.CiphertextForRecipient
	case len(files) == 2:
		files[0].content = resp.Plaintext
	}
	if err := writeNew(files...); err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c, dataKeyJSON{CiphertextBlob: resp.CiphertextBlob, KeyID: resp.KeyID, KeyMaterialID: resp.KeyMaterialID, Files: paths(files)})
	}
	return printFiles(c, files)
}

// dataKeySize returns what --spec and --bytes say: one of them.
func dataKeySize(c *cli.Context) (types.DataKeySpec, *int32, error) {
	spec, n := types.DataKeySpec(c.String("spec")), c.Int("bytes")
	switch {
	case c.IsSet("bytes") && spec != "":
		return "", nil, misuse("--spec and --bytes cannot both be")
	case c.IsSet("bytes") && (n < 1 || n > maxDataKey):
		return "", nil, misuse("--bytes %d: must be 1 to %d", n, maxDataKey)
	case c.IsSet("bytes"):
		return "", aws.Int32(int32(n)), nil
	case spec == "":
		return types.DataKeySpecAes256, nil, nil
	case spec != types.DataKeySpecAes256 && spec != types.DataKeySpecAes128:
		return "", nil, misuse("--spec %s: must be AES_256 or AES_128", spec)
	}
	return spec, nil, nil
}

// dataKey asks for a data key, without its plaintext if that is not wanted: it is another permission, and what is not sent is not leaked.
func (s *client) dataKey(c *cli.Context, key string, spec types.DataKeySpec, bytes *int32, to recipient) (*dataKeyJSON, error) {
	what, context := "make a data key under key "+key, pairsOf(c, "context")
	if c.Bool("no-plaintext") {
		resp, err := call(c.Context, s, what, s.GenerateDataKeyWithoutPlaintext, &awskms.GenerateDataKeyWithoutPlaintextInput{
			KeyId: &key, KeySpec: spec, NumberOfBytes: bytes, EncryptionContext: context, GrantTokens: grantTokens(c),
		})
		if err != nil {
			return nil, err
		}
		return &dataKeyJSON{CiphertextBlob: resp.CiphertextBlob, KeyID: aws.ToString(resp.KeyId), KeyMaterialID: aws.ToString(resp.KeyMaterialId)}, nil
	}
	resp, err := call(c.Context, s, what, s.GenerateDataKey, &awskms.GenerateDataKeyInput{
		KeyId: &key, KeySpec: spec, NumberOfBytes: bytes, EncryptionContext: context, GrantTokens: grantTokens(c), Recipient: to.info,
	})
	if err != nil {
		return nil, to.explain(err)
	}
	if err := to.check(what, resp.CiphertextForRecipient, resp.Plaintext); err != nil {
		return nil, err
	}
	return &dataKeyJSON{
		CiphertextBlob: resp.CiphertextBlob, Plaintext: resp.Plaintext, CiphertextForRecipient: resp.CiphertextForRecipient,
		KeyID: aws.ToString(resp.KeyId), KeyMaterialID: aws.ToString(resp.KeyMaterialId),
	}, nil
}

func printDataKey(c *cli.Context, resp *dataKeyJSON) error {
	if c.Bool("json") {
		return printJSON(c, resp)
	}
	text := fmt.Appendf(nil, "KeyId: %s\nCiphertextBlob: %s\n", printable(resp.KeyID), base64.StdEncoding.EncodeToString(resp.CiphertextBlob))
	if sealed := resp.CiphertextForRecipient; len(sealed) > 0 {
		text = appendBase64(append(text, "CiphertextForRecipient: "...), sealed)
	}
	if len(resp.Plaintext) > 0 {
		// With room for all of it, so that no shorter copy of the secret is left behind by append.
		secret := make([]byte, 0, base64.StdEncoding.EncodedLen(len(resp.Plaintext))+len("Plaintext: \n"))
		secret = appendBase64(append(secret, "Plaintext: "...), resp.Plaintext)
		defer clear(secret)
		if err := printBytes(c, text); err != nil {
			return err
		}
		return printBytes(c, secret)
	}
	return printBytes(c, text)
}
