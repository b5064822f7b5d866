package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/urfave/cli/v2"
)

func keyCommand() *cli.Command {
	return &cli.Command{
		Name:         "key",
		Usage:        "make, list and change KMS keys",
		Action:       helpOnly,
		OnUsageError: onUsageError,
		Subcommands: []*cli.Command{
			keyCreateCommand(),
			keyListCommand(),
			keyDescribeCommand(),
			keyStateCommand("enable", "let a disabled key be used again", (*client).enable),
			keyStateCommand("disable", "keep a key from being used, until it is enabled", (*client).disable),
			keyDeleteCommand(),
			keyStateCommand("undelete", "keep a key that was to be deleted; it is disabled then", (*client).undelete),
			keyPolicyCommand(),
			keyTagCommand(),
			keyUntagCommand(),
			keyTagsCommand(),
			keyRotateCommand(),
			keyAutoRotateCommand(),
			keyRotationCommand(),
			keyUsageCommand(),
		},
	}
}

func keyCreateCommand() *cli.Command {
	return clientCommand(&cli.Command{
		Name:  "create",
		Usage: "make a key, whose material never leaves the HSM",
		Description: `Prints the id of the new key.

Example:  KEY=$(strongroom key create --alias app --description "wraps the data keys of app" --tag team=payments)`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "description", Usage: "`TEXT` about the key, not secret"},
			&cli.GenericFlag{Name: "tag", Usage: "`NAME=VALUE` to put on the key; again for each", Value: pairs{}},
			&cli.StringFlag{Name: "policy-file", Usage: "`FILE` with the key policy (default: the account decides)", TakesFile: true},
			&cli.BoolFlag{Name: "multi-region", Usage: "give it the id of a multi-Region key", DisableDefaultText: true},
			&cli.StringFlag{Name: "alias", Usage: "also make an alias, `NAME`, for it"},
		},
		Action: createKey,
	})
}

func createKey(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	in := &awskms.CreateKeyInput{MultiRegion: aws.Bool(c.Bool("multi-region"))}
	if d := c.String("description"); d != "" {
		in.Description = &d
	}
	tags := pairsOf(c, "tag")
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		in.Tags = append(in.Tags, types.Tag{TagKey: aws.String(name), TagValue: aws.String(tags[name])})
	}
	if path := c.String("policy-file"); path != "" {
		text, err := readKeyPolicy(c, path)
		if err != nil {
			return err
		}
		in.Policy = &text
	}
	s, err := connect(c)
	if err != nil {
		return err
	}
	alias := ""
	if c.String("alias") != "" {
		alias = aliasName(c.String("alias"))
		if err := s.checkAliasFree(c, alias); err != nil {
			return err
		}
	}
	out, err := call(c.Context, s, "create a key", s.CreateKey, in, once)
	if err != nil {
		return err
	}
	id := aws.ToString(out.KeyMetadata.KeyId)
	if alias != "" {
		_, err = call(c.Context, s, "create "+alias, s.CreateAlias, &awskms.CreateAliasInput{AliasName: &alias, TargetKeyId: &id}, once)
		if err != nil {
			return hint(err, "the key "+id+" was made, and has no alias yet:  strongroom alias create NAME "+id)
		}
	}
	if c.Bool("json") {
		return printJSON(c, keyJSON{KeyMetadata: metadataOf(out.KeyMetadata), AliasName: alias})
	}
	return printTable(c, [][]string{{id}})
}

// checkAliasFree refuses an alias that is in use, before a key is made that could not have it.
func (s *client) checkAliasFree(c *cli.Context, alias string) error {
	out, err := call(c.Context, s, "find "+alias, s.DescribeKey, &awskms.DescribeKeyInput{KeyId: &alias})
	switch {
	case err == nil:
		return hint(fmt.Errorf("create a key: %s is already the name of key %s", alias, aws.ToString(out.KeyMetadata.KeyId)),
			"leave --alias out, and then:  strongroom alias update NAME KEY")
	case errorCode(err) == "NotFoundException", errorCode(err) == "AccessDeniedException":
		return nil // one who may not look may still be one who may create
	}
	return err
}

func keyDescribeCommand() *cli.Command {
	return clientCommand(&cli.Command{
		Name:      "describe",
		Usage:     "show all that is known of a key",
		ArgsUsage: "KEY",
		Description: `Example:  strongroom key describe app
          strongroom key describe app --json | jq -r .KeyMetadata.KeyState` + keyHelp,
		Action: describeKey,
	})
}

func describeKey(c *cli.Context) error {
	key, err := argument(c, "KEY")
	if err != nil {
		return err
	}
	s, err := connect(c)
	if err != nil {
		return err
	}
	key = keyName(key)
	out, err := call(c.Context, s, "describe key "+key, s.DescribeKey, &awskms.DescribeKeyInput{KeyId: &key})
	if err != nil {
		return err
	}
	m := metadataOf(out.KeyMetadata)
	if c.Bool("json") {
		return printJSON(c, keyJSON{KeyMetadata: m})
	}
	rows := [][]string{
		{"Key id", m.KeyID},
		{"ARN", m.Arn},
		{"State", m.KeyState},
		{"Description", m.Description},
	}
	// The aliases are a courtesy: not everybody who may see a key may list them.
	if aliases, err := s.aliases(c, &m.KeyID); err == nil {
		rows = append(rows, []string{"Aliases", strings.Join(aliasNames(aliases), ", ")})
	}
	rows = append(rows, []string{"Created", when(m.CreationDate)})
	if m.DeletionDate != nil {
		rows = append(rows, []string{"Destroyed", when(*m.DeletionDate) + ", unless: strongroom key undelete " + m.KeyID})
	}
	rows = append(rows,
		[]string{"Spec", m.KeySpec + ", " + m.KeyUsage},
		[]string{"Multi-Region", map[bool]string{true: "yes", false: "no"}[m.MultiRegion]},
		[]string{"Material", m.CurrentKeyMaterialID})
	return printTable(c, rows)
}

// keyJSON is the form of a key for programs.
type keyJSON struct {
	KeyMetadata keyMetadata
	AliasName   string `json:",omitempty"`
}

// keyMetadata is what the AWS API calls so, with times in words. The SDK's own type would write times in a zone and empty members as null.
type keyMetadata struct {
	AWSAccountID         string `json:"AWSAccountId"`
	KeyID                string `json:"KeyId"`
	Arn                  string
	CreationDate         time.Time
	Enabled              bool
	Description          string
	KeyUsage             string
	KeyState             string
	DeletionDate         *time.Time `json:",omitempty"`
	Origin               string
	KeyManager           string
	KeySpec              string
	EncryptionAlgorithms []types.EncryptionAlgorithmSpec
	MultiRegion          bool
	CurrentKeyMaterialID string `json:"CurrentKeyMaterialId,omitempty"`
}

func metadataOf(m *types.KeyMetadata) keyMetadata {
	return keyMetadata{
		AWSAccountID:         aws.ToString(m.AWSAccountId),
		KeyID:                aws.ToString(m.KeyId),
		Arn:                  aws.ToString(m.Arn),
		CreationDate:         aws.ToTime(m.CreationDate).UTC(),
		Enabled:              m.Enabled,
		Description:          aws.ToString(m.Description),
		KeyUsage:             string(m.KeyUsage),
		KeyState:             string(m.KeyState),
		DeletionDate:         utc(m.DeletionDate),
		Origin:               string(m.Origin),
		KeyManager:           string(m.KeyManager),
		KeySpec:              string(m.KeySpec),
		EncryptionAlgorithms: append([]types.EncryptionAlgorithmSpec{}, m.EncryptionAlgorithms...),
		MultiRegion:          aws.ToBool(m.MultiRegion),
		CurrentKeyMaterialID: aws.ToString(m.CurrentKeyMaterialId),
	}
}

// keyStateCommand is a command that moves a key to another state, which it returns the name of.
func keyStateCommand(name, usage string, change func(*client, *cli.Context, *string) (types.KeyState, error)) *cli.Command {
	return clientCommand(&cli.Command{
		Name:        name,
		Usage:       usage,
		ArgsUsage:   "KEY",
		Description: "Example:  strongroom key " + name + " app" + keyHelp,
		Action: func(c *cli.Context) error {
			key, err := argument(c, "KEY")
			if err != nil {
				return err
			}
			s, err := connect(c)
			if err != nil {
				return err
			}
			if key, err = s.keyItself(c.Context, key); err != nil {
				return err
			}
			state, err := change(s, c, &key)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(c, keyStateJSON{key, state})
			}
			return printTable(c, [][]string{{key, string(state)}})
		},
	})
}

// keyStateJSON is what is known of a key whose state was changed.
type keyStateJSON struct {
	KeyID    string `json:"KeyId"`
	KeyState types.KeyState
}

func (s *client) enable(c *cli.Context, key *string) (types.KeyState, error) {
	_, err := call(c.Context, s, "enable key "+*key, s.EnableKey, &awskms.EnableKeyInput{KeyId: key})
	return types.KeyStateEnabled, err
}

func (s *client) disable(c *cli.Context, key *string) (types.KeyState, error) {
	_, err := call(c.Context, s, "disable key "+*key, s.DisableKey, &awskms.DisableKeyInput{KeyId: key})
	return types.KeyStateDisabled, err
}

// undelete leaves the key disabled, as AWS does.
func (s *client) undelete(c *cli.Context, key *string) (types.KeyState, error) {
	_, err := call(c.Context, s, "undelete key "+*key, s.CancelKeyDeletion, &awskms.CancelKeyDeletionInput{KeyId: key})
	if err == nil {
		note(c, "the key is kept, and disabled:  strongroom key enable %s", *key)
	}
	return types.KeyStateDisabled, err
}
