package main

import (
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/urfave/cli/v2"
)

func aliasCommand() *cli.Command {
	return &cli.Command{
		Name:         "alias",
		Usage:        "give keys names",
		Action:       helpOnly,
		OnUsageError: onUsageError,
		Subcommands: []*cli.Command{
			clientCommand(&cli.Command{
				Name:        "create",
				Usage:       "give a key a name",
				ArgsUsage:   "NAME KEY",
				Description: "Example:  strongroom alias create app 1234abcd-12ab-34cd-56ef-1234567890ab" + keyHelp,
				Action:      func(c *cli.Context) error { return setAlias(c, (*client).createAlias) },
			}),
			clientCommand(&cli.Command{
				Name:        "update",
				Usage:       "move a name to another key",
				ArgsUsage:   "NAME KEY",
				Description: "What was encrypted under the old key stays so, and is decrypted as before.\n\nExample:  strongroom alias update app 1234abcd-12ab-34cd-56ef-1234567890ab" + keyHelp,
				Action:      func(c *cli.Context) error { return setAlias(c, (*client).updateAlias) },
			}),
			clientCommand(&cli.Command{
				Name:        "delete",
				Usage:       "take a name away; the key stays",
				ArgsUsage:   "NAME",
				Description: "Example:  strongroom alias delete app",
				Action:      deleteAlias,
			}),
			clientCommand(&cli.Command{
				Name:        "list",
				Usage:       "list the names of all keys, or of one",
				Description: "Example:  strongroom alias list --json | jq -r '.Aliases[].AliasName'" + keyHelp,
				Flags:       []cli.Flag{&cli.StringFlag{Name: "key", Usage: "only the names of `KEY`"}},
				Action:      listAliases,
			}),
		},
	}
}

// setAlias is what creating and moving an alias have in common.
func setAlias(c *cli.Context, set func(s *client, c *cli.Context, alias, key *string) error) error {
	args, err := arguments(c, "NAME", "KEY")
	if err != nil {
		return err
	}
	s, err := connect(c)
	if err != nil {
		return err
	}
	alias := aliasName(args[0])
	key, err := s.keyItself(c.Context, args[1]) // an alias of an alias is none
	if err != nil {
		return err
	}
	if err := set(s, c, &alias, &key); err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c, aliasJSON{AliasName: alias, TargetKeyID: key})
	}
	return printTable(c, [][]string{{alias, key}})
}

func (s *client) createAlias(c *cli.Context, alias, key *string) error {
	_, err := call(c.Context, s, "create "+*alias, s.CreateAlias, &awskms.CreateAliasInput{AliasName: alias, TargetKeyId: key}, once)
	return err
}

func (s *client) updateAlias(c *cli.Context, alias, key *string) error {
	_, err := call(c.Context, s, "update "+*alias, s.UpdateAlias, &awskms.UpdateAliasInput{AliasName: alias, TargetKeyId: key})
	return err
}

func deleteAlias(c *cli.Context) error {
	name, err := argument(c, "NAME")
	if err != nil {
		return err
	}
	s, err := connect(c)
	if err != nil {
		return err
	}
	alias := aliasName(name)
	_, err = call(c.Context, s, "delete "+alias, s.DeleteAlias, &awskms.DeleteAliasInput{AliasName: &alias}, once)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c, aliasJSON{AliasName: alias})
	}
	note(c, "%s is deleted; the key it named stays", alias)
	return nil
}

// aliasJSON is what the AWS API calls AliasListEntry.
type aliasJSON struct {
	AliasName       string
	AliasArn        string     `json:",omitempty"`
	TargetKeyID     string     `json:"TargetKeyId,omitempty"`
	CreationDate    *time.Time `json:",omitempty"`
	LastUpdatedDate *time.Time `json:",omitempty"`
}

func listAliases(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	s, err := connect(c)
	if err != nil {
		return err
	}
	var of *string
	if c.String("key") != "" {
		key, err := s.keyItself(c.Context, c.String("key"))
		if err != nil {
			return err
		}
		of = &key
	}
	entries, err := s.aliases(c, of)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		all := []aliasJSON{} // never null
		for _, a := range entries {
			all = append(all, aliasJSON{
				AliasName:       aws.ToString(a.AliasName),
				AliasArn:        aws.ToString(a.AliasArn),
				TargetKeyID:     aws.ToString(a.TargetKeyId),
				CreationDate:    utc(a.CreationDate),
				LastUpdatedDate: utc(a.LastUpdatedDate),
			})
		}
		return printJSON(c, struct{ Aliases []aliasJSON }{all})
	}
	if len(entries) == 0 {
		note(c, "there are no aliases:  strongroom alias create NAME KEY")
		return nil
	}
	rows := [][]string{{"ALIAS", "KEY", "UPDATED"}}
	for _, a := range entries {
		updated := ""
		if a.LastUpdatedDate != nil {
			updated = when(*a.LastUpdatedDate)
		}
		rows = append(rows, []string{aws.ToString(a.AliasName), aws.ToString(a.TargetKeyId), updated})
	}
	return printTable(c, rows)
}

// aliases returns every alias, or every alias of the key with this id or ARN, in order of their names.
func (s *client) aliases(c *cli.Context, key *string) ([]types.AliasListEntry, error) {
	var all []types.AliasListEntry
	in := &awskms.ListAliasesInput{KeyId: key, Limit: aws.Int32(100)}
	for {
		out, err := call(c.Context, s, "list aliases", s.ListAliases, in)
		if err != nil {
			return nil, err
		}
		all = append(all, out.Aliases...)
		if !out.Truncated {
			break
		}
		in.Marker = out.NextMarker
	}
	slices.SortFunc(all, func(a, b types.AliasListEntry) int {
		return strings.Compare(aws.ToString(a.AliasName), aws.ToString(b.AliasName))
	})
	return all, nil
}

// aliasNames returns the names of aliases, for a person to read.
func aliasNames(aliases []types.AliasListEntry) []string {
	var names []string
	for _, a := range aliases {
		names = append(names, aws.ToString(a.AliasName))
	}
	return names
}
