package main

import (
	"time"

	"github.com/urfave/cli/v2"

	"strongroom/kms"
)

func accessKeyCommand() *cli.Command {
	return &cli.Command{
		Name:         "access-key",
		Usage:        "make, list and withdraw access keys (on the server's host)",
		Action:       helpOnly,
		OnUsageError: onUsageError,
		Subcommands: []*cli.Command{
			adminCommand(&cli.Command{
				Name:  "create",
				Usage: "make an access key of a user or of an account's root",
				Description: `Prints lines for a shell, once: the secret is kept only as the token has sealed it. So this opens the token, as serve does.
A principal has two access keys at most, to change one for another.

Example:  strongroom access-key create --user app --config /etc/strongroom/strongroom.toml > app.env`,
				Flags:  []cli.Flag{userFlag(), rootFlag(), accountFlag()},
				Action: createAccessKey,
			}),
			adminCommand(&cli.Command{
				Name:  "list",
				Usage: "list access keys and sessions, with when they were last used",
				Description: `Lists those of everybody, or of one principal. A last use is known to the minute or so.

Example:  strongroom access-key list --user app --config /etc/strongroom/strongroom.toml`,
				Flags: []cli.Flag{userFlag(), roleFlag(), rootFlag(),
					&cli.StringFlag{Name: "account", Usage: "only of this account, 12 `DIGITS`"}},
				Action: listAccessKeys,
			}),
			accessKeyStateCommand("enable", "let a disabled access key be used again", func(s *site, c *cli.Context, id string) error {
				return s.admin.SetAccessKey(c.Context, id, true)
			}),
			accessKeyStateCommand("disable", "keep an access key from being used, until it is enabled", func(s *site, c *cli.Context, id string) error {
				return s.admin.SetAccessKey(c.Context, id, false)
			}),
			accessKeyStateCommand("delete", "withdraw an access key for good, or end a session", func(s *site, c *cli.Context, id string) error {
				return s.admin.DeleteAccessKey(c.Context, id)
			}),
		},
	}
}

// accessKeyStateCommand changes one access key.
func accessKeyStateCommand(name, usage string, change func(s *site, c *cli.Context, id string) error) *cli.Command {
	return adminCommand(&cli.Command{
		Name:        name,
		Usage:       usage,
		ArgsUsage:   "ID",
		Description: `Example:  strongroom access-key ` + name + ` AKIAIOSFODNN7EXAMPLE --config /etc/strongroom/strongroom.toml`,
		Action: func(c *cli.Context) error {
			id, err := argument(c, "ID")
			if err != nil {
				return err
			}
			s, err := openSite(c)
			if err != nil {
				return err
			}
			defer s.close()
			if err := change(s, c, id); err != nil {
				return err
			}
			status := map[string]string{"enable": "Active", "disable": "Inactive"}[name] // as in IAM
			if c.Bool("json") {
				return printJSON(c, struct {
					AccessKeyID string `json:"AccessKeyId"`
					Status      string `json:",omitempty"`
				}{id, status})
			}
			if status == "" {
				status = "Deleted"
			}
			return printTable(c, [][]string{{id, status}})
		},
	})
}

func createAccessKey(c *cli.Context) error {
	s, arn, _, err := openOwner(c)
	if err != nil {
		return err
	}
	defer s.close()
	token, err := s.device(c.Context)
	if err != nil {
		return err
	}
	key, err := s.admin.CreateAccessKey(c.Context, token, arn)
	if err != nil {
		return err
	}
	if err := printAccessKey(c, s, arn, key); err != nil {
		return hint(err, "the access key "+key.ID+" was made, and nobody has its secret:  strongroom access-key delete "+key.ID)
	}
	return nil
}

func printAccessKey(c *cli.Context, s *site, arn kms.PrincipalARN, key *kms.AccessKey) error {
	if c.Bool("json") {
		return printJSON(c, map[string]string{
			"AccessKeyId": key.ID, "SecretAccessKey": key.Secret, "Principal": arn.String(), "Account": arn.Account, "Region": s.region,
		})
	}
	note(c, "This is an access key of %s. Its secret is not shown again.", arn)
	lines := exports([][2]string{
		{"AWS_ACCESS_KEY_ID", key.ID}, {"AWS_SECRET_ACCESS_KEY", key.Secret}, {"AWS_REGION", s.region},
	})
	defer clear(lines)
	return printBytes(c, lines)
}

// credentialJSON is what the AWS IAM API calls AccessKeyMetadata, and more.
type credentialJSON struct {
	AccessKeyID  string `json:"AccessKeyId"`
	Principal    string
	Status       string // "Active", "Inactive" or "Expired"
	CreateDate   time.Time
	LastUsedDate *time.Time `json:",omitempty"`
	SessionName  string     `json:",omitempty"`
	Expiration   *time.Time `json:",omitempty"`
}

func describedCredential(k *kms.Credential) credentialJSON {
	j := credentialJSON{AccessKeyID: k.ID, Principal: k.Principal, Status: "Inactive", CreateDate: k.Created.UTC(), SessionName: k.Session}
	if k.Active {
		j.Status = "Active"
	}
	if !k.LastUsed.IsZero() {
		j.LastUsedDate = utc(&k.LastUsed)
	}
	if !k.Expires.IsZero() {
		j.Expiration = utc(&k.Expires)
		if !time.Now().Before(k.Expires) {
			j.Status = "Expired"
		}
	}
	return j
}

func (j *credentialJSON) kind() string {
	if j.SessionName != "" {
		return "Session"
	}
	return "Access key"
}

func (j *credentialJSON) row() []string {
	status, used := j.Status, "never"
	if j.Expiration != nil && status == "Active" {
		status += " until " + when(*j.Expiration)
	}
	if j.LastUsedDate != nil {
		used = when(*j.LastUsedDate)
	}
	return []string{j.AccessKeyID, status, when(j.CreateDate), used, j.Principal, j.SessionName}
}

func listAccessKeys(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	s, err := openSite(c)
	if err != nil {
		return err
	}
	defer s.close()
	owners, err := s.owners(c)
	if err != nil {
		return err
	}
	all := []credentialJSON{}
	for _, arn := range owners {
		some, err := s.admin.AccessKeys(c.Context, arn)
		if err != nil {
			return err
		}
		for i := range some {
			all = append(all, describedCredential(&some[i]))
		}
	}
	if c.Bool("json") {
		return printJSON(c, struct{ AccessKeys []credentialJSON }{all})
	}
	if len(all) == 0 {
		note(c, "there are no access keys:  strongroom access-key create --user NAME")
		return nil
	}
	rows := [][]string{{"ACCESS KEY", "STATUS", "CREATED", "LAST USED", "PRINCIPAL", "SESSION"}}
	for _, j := range all {
		rows = append(rows, j.row())
	}
	return printTable(c, rows)
}

// owners returns the principal that c names, or everybody who can have credentials if it names none.
func (s *site) owners(c *cli.Context) ([]kms.PrincipalARN, error) {
	if arn, ok, err := s.owner(c); ok || err != nil {
		return []kms.PrincipalARN{arn}, err
	}
	accounts, err := s.accounts(c)
	if err != nil {
		return nil, err
	}
	var all []kms.PrincipalARN
	for _, account := range accounts {
		all = append(all, s.arn(account, "", ""))
		for _, kind := range []kms.PrincipalKind{kms.User, kms.Role} {
			some, err := s.admin.Principals(c.Context, account, kind)
			if err != nil {
				return nil, err
			}
			for _, p := range some {
				all = append(all, s.arn(account, kind, p.Name))
			}
		}
	}
	return all, nil
}
