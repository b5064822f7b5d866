package main

import (
	"time"

	"github.com/urfave/cli/v2"

	"strongroom/kms"
)

func accountCommand() *cli.Command {
	return &cli.Command{
		Name:         "account",
		Usage:        "make and list accounts (on the server's host)",
		Action:       helpOnly,
		OnUsageError: onUsageError,
		Subcommands: []*cli.Command{
			adminCommand(&cli.Command{
				Name:      "create",
				Usage:     "make an account, in which nobody can do anything yet",
				ArgsUsage: "ID",
				Description: `Then give it an access key, of its root or of a user in it.

Example:  strongroom account create 444455556666 --config /etc/strongroom/strongroom.toml
          strongroom access-key create --root --account 444455556666`,
				Action: createAccount,
			}),
			adminCommand(&cli.Command{
				Name:        "list",
				Usage:       "list the accounts",
				Description: `Example:  strongroom account list --config /etc/strongroom/strongroom.toml`,
				Action:      listAccounts,
			}),
		},
	}
}

type accountJSON struct {
	AccountID  string     `json:"AccountId"`
	CreateDate *time.Time `json:",omitempty"`
}

func createAccount(c *cli.Context) error {
	id, err := argument(c, "ID")
	if err != nil {
		return err
	}
	if !kms.IsAccount(id) {
		return misuse("%q: an account is 12 digits", id)
	}
	s, err := openSite(c)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.admin.CreateAccount(c.Context, id); err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c, accountJSON{AccountID: id})
	}
	return printTable(c, [][]string{{id}})
}

func listAccounts(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	s, err := openSite(c)
	if err != nil {
		return err
	}
	defer s.close()
	all, err := s.admin.Accounts(c.Context)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		shown := []accountJSON{}
		for _, a := range all {
			shown = append(shown, accountJSON{a.ID, utc(&a.Created)})
		}
		return printJSON(c, struct{ Accounts []accountJSON }{shown})
	}
	rows := [][]string{{"ACCOUNT", "CREATED"}}
	for _, a := range all {
		rows = append(rows, []string{a.ID, when(a.Created)})
	}
	return printTable(c, rows)
}
