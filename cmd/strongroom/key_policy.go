package main

import (
	"encoding/json"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/urfave/cli/v2"

	"strongroom/kms/policy"
)

const onlyPolicy = "default" // the name of the one policy that a key has (AWS KMS API Reference, PutKeyPolicy, PolicyName)

func keyPolicyCommand() *cli.Command {
	return &cli.Command{
		Name:         "policy",
		Usage:        "show and replace the policy of a key, which says who may use it",
		Action:       helpOnly,
		OnUsageError: onUsageError,
		Subcommands: []*cli.Command{
			clientCommand(&cli.Command{
				Name:      "get",
				Usage:     "print the policy of a key, as it was written",
				ArgsUsage: "KEY",
				Description: `Example:  strongroom key policy get app >policy.json
          strongroom key policy get app | jq .Statement` + keyHelp,
				Action: getKeyPolicy,
			}),
			clientCommand(&cli.Command{
				Name:      "put",
				Usage:     "replace the policy of a key",
				ArgsUsage: "KEY FILE|-",
				Description: `The whole policy is replaced, from the next request on. A policy after which you could not replace it again is refused,
unless --bypass-lockout-check says that somebody else is meant to; if nobody can, the key's policy stays as it is for ever.
"strongroom policy check --key-policy FILE" says what is wrong with a file, and needs no server.

Example:  strongroom key policy put app policy.json` + keyHelp,
				Flags: []cli.Flag{
					&cli.BoolFlag{Name: "bypass-lockout-check", Usage: "also if you may not replace it again then", DisableDefaultText: true},
				},
				Action: putKeyPolicy,
			}),
		},
	}
}

// keyPolicyJSON is the answer of GetKeyPolicy, or the name of a policy that was put.
type keyPolicyJSON struct {
	KeyID      string `json:"KeyId,omitempty"`
	Policy     string `json:",omitempty"`
	PolicyName string
}

func getKeyPolicy(c *cli.Context) error {
	s, key, err := connectForKey(c)
	if err != nil {
		return err
	}
	out, err := call(c.Context, s, "get the policy of key "+key, s.GetKeyPolicy, &awskms.GetKeyPolicyInput{KeyId: &key})
	if err != nil {
		return err
	}
	text := aws.ToString(out.Policy)
	switch {
	case c.Bool("json"):
		return printJSON(c, keyPolicyJSON{Policy: text, PolicyName: aws.ToString(out.PolicyName)})
	case isTerminal(c.App.Writer):
		var shown strings.Builder
		for line := range strings.Lines(text) {
			shown.WriteString(printableLine(line) + "\n")
		}
		return printBytes(c, []byte(shown.String()))
	}
	return printBytes(c, []byte(text))
}

// printableLine is printable for a line whose indentation is kept and whose end is not.
func printableLine(line string) string {
	return printable(strings.ReplaceAll(strings.TrimRight(line, "\r\n"), "\t", "    "))
}

func putKeyPolicy(c *cli.Context) error {
	args, err := arguments(c, "KEY", "FILE")
	if err != nil {
		return err
	}
	s, err := connect(c)
	if err != nil {
		return err
	}
	text, err := readKeyPolicy(c, args[1])
	if err != nil {
		return err
	}
	key, err := s.keyItself(c.Context, args[0])
	if err != nil {
		return err
	}
	// Once: the second time, the new policy might forbid it.
	_, err = call(c.Context, s, "put the policy of key "+key, s.PutKeyPolicy, &awskms.PutKeyPolicyInput{
		KeyId: &key, Policy: &text, BypassPolicyLockoutSafetyCheck: c.Bool("bypass-lockout-check"),
	}, once)
	switch {
	case errorCode(err) == "MalformedPolicyDocumentException" && strings.Contains(err.Error(), "will not allow you to update the key policy"):
		return hint(err, "a statement with the account's root as Principal and Action kms:* leaves the key to the account",
			"--bypass-lockout-check puts it all the same, if somebody else is to have the key")
	case err != nil:
		return err
	}
	warnPolicy(c, policy.KeyPolicy, text)
	if c.Bool("json") {
		return printJSON(c, keyPolicyJSON{KeyID: key, PolicyName: onlyPolicy})
	}
	note(c, "the policy of key %s is replaced", key)
	return nil
}

// readKeyPolicy returns the text of FILE if it can be a policy at all.
func readKeyPolicy(c *cli.Context, file string) (string, error) {
	text, err := readPolicy(c, file)
	switch {
	case err != nil:
		return "", err
	case len(text) > policy.MaxSize:
		return "", misuse("the policy %s is longer than %d bytes", file, policy.MaxSize)
	case !json.Valid([]byte(text)):
		return "", misuse("the policy %s is not JSON", file)
	}
	return text, nil
}

// connectForKey returns the server and the one argument of a command on a key, by a name that operations without aliases take.
func connectForKey(c *cli.Context) (*client, string, error) {
	key, err := argument(c, "KEY")
	if err != nil {
		return nil, "", err
	}
	s, err := connect(c)
	if err != nil {
		return nil, "", err
	}
	key, err = s.keyItself(c.Context, key)
	if err != nil {
		return nil, "", err
	}
	return s, key, nil
}
