package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"strongroom/kms"
)

// principalCommand is `user` or `role`: the two differ in what they are for, and not in how they are kept.
func principalCommand(kind kms.PrincipalKind) *cli.Command {
	name := string(kind)
	fill := func(text string) string { return strings.ReplaceAll(text, "KIND", name) }
	action := func(f func(*cli.Context, kms.PrincipalKind) error) cli.ActionFunc {
		return func(c *cli.Context) error { return f(c, kind) }
	}
	usage, next := "make, list and change users, who have access keys (on the server's host)",
		"strongroom access-key create --user app makes an access key"
	if kind == kms.Role {
		usage, next = "make, list and change roles, which have sessions (on the server's host)",
			"strongroom session --role app makes a session, with credentials that expire"
	}
	return &cli.Command{
		Name:         name,
		Usage:        usage,
		Action:       helpOnly,
		OnUsageError: onUsageError,
		Subcommands: []*cli.Command{
			adminCommand(&cli.Command{
				Name:      "create",
				Usage:     fill("make a KIND without any right"),
				ArgsUsage: "NAME",
				Description: fill(`Prints its ARN. What it may do is said by policies, of its own (strongroom policy put) or of keys, and by grants;
`) + next + fill(`. A name is given once: also after the KIND is deleted.

Example:  strongroom KIND create app --tag team=payments --config /etc/strongroom/strongroom.toml`),
				Flags:  []cli.Flag{accountFlag(), principalTagFlag()},
				Action: action(createPrincipal),
			}),
			adminCommand(&cli.Command{
				Name:        "list",
				Usage:       fill("list the KINDs, with their policies and tags"),
				Description: fill(`Example:  strongroom KIND list --config /etc/strongroom/strongroom.toml`),
				Flags:       []cli.Flag{&cli.StringFlag{Name: "account", Usage: "only of this account, 12 `DIGITS`"}},
				Action:      action(listPrincipals),
			}),
			adminCommand(&cli.Command{
				Name:      "show",
				Usage:     fill("show all that is known of a KIND"),
				ArgsUsage: "NAME",
				Description: fill(`NAME may be the ARN.

Example:  strongroom KIND show app --config /etc/strongroom/strongroom.toml`),
				Flags:  []cli.Flag{accountFlag()},
				Action: action(showPrincipal),
			}),
			adminCommand(&cli.Command{
				Name:      "tag",
				Usage:     fill("give a KIND exactly these tags, in place of those it has"),
				ArgsUsage: "NAME",
				Description: fill(`Policies can ask for tags (aws:PrincipalTag/NAME). NAME may be the ARN.

Example:  strongroom KIND tag app --tag team=payments --tag stage=test --config /etc/strongroom/strongroom.toml`),
				Flags: []cli.Flag{
					accountFlag(), principalTagFlag(),
					&cli.BoolFlag{Name: "no-tags", Usage: "take all tags away", DisableDefaultText: true},
				},
				Action: action(tagPrincipal),
			}),
			adminCommand(&cli.Command{
				Name:      "delete",
				Usage:     fill("delete a KIND, with its policies and all credentials"),
				ArgsUsage: "NAME",
				Description: fill(`Says what it is going to do, and then wants the name to be typed on the terminal, or --yes. The name is not given again,
because policies and grants that name it stay. NAME may be the ARN.

Example:  strongroom KIND delete app --yes --config /etc/strongroom/strongroom.toml`),
				Flags: []cli.Flag{
					accountFlag(),
					&cli.BoolFlag{Name: "yes", Usage: "do not ask", DisableDefaultText: true},
				},
				Action: action(deletePrincipal),
			}),
		},
	}
}

func principalTagFlag() cli.Flag {
	return &cli.GenericFlag{Name: "tag", Usage: "`NAME=VALUE` to put on it; again for each", Value: pairs{}}
}

// principalJSON is what the AWS IAM API calls User or Role, and the names of its policies.
type principalJSON struct {
	UserName   string `json:",omitempty"`
	UserID     string `json:"UserId,omitempty"`
	RoleName   string `json:",omitempty"`
	RoleID     string `json:"RoleId,omitempty"`
	Arn        string
	CreateDate time.Time
	Tags       []tagJSON
	Policies   []string `json:"PolicyNames"`

	Keys []credentialJSON `json:"AccessKeys,omitempty"`
}

type tagJSON struct{ Key, Value string }

// describedPrincipal is the form of a principal for programs.
func describedPrincipal(p *kms.Principal, arn kms.PrincipalARN) principalJSON {
	j := principalJSON{Arn: arn.String(), CreateDate: p.Created.UTC(), Tags: []tagJSON{}, Policies: []string{}}
	if p.Kind == kms.Role {
		j.RoleName, j.RoleID = p.Name, p.ID
	} else {
		j.UserName, j.UserID = p.Name, p.ID
	}
	for _, name := range slices.Sorted(maps.Keys(p.Tags)) {
		j.Tags = append(j.Tags, tagJSON{name, p.Tags[name]})
	}
	for _, policy := range p.Policies {
		j.Policies = append(j.Policies, policy.Name)
	}
	return j
}

// tagText writes tags for people.
func (j *principalJSON) tagText() string {
	var all []string
	for _, t := range j.Tags {
		all = append(all, t.Key+"="+t.Value)
	}
	return strings.Join(all, ", ")
}

// printPrincipal prints what was made or changed.
func printPrincipal(c *cli.Context, kind kms.PrincipalKind, j principalJSON) error {
	if c.Bool("json") {
		return printJSON(c, map[string]principalJSON{kind.Title(): j})
	}
	return printTable(c, [][]string{{j.Arn}})
}

// openPrincipal opens the deployment of a command on one user or role.
func openPrincipal(c *cli.Context, kind kms.PrincipalKind) (*site, kms.PrincipalARN, error) {
	name, err := argument(c, "NAME")
	if err != nil {
		return nil, kms.PrincipalARN{}, err
	}
	s, err := openSite(c)
	if err != nil {
		return nil, kms.PrincipalARN{}, err
	}
	arn, err := s.named(c, kind, name)
	if err != nil {
		s.close()
		return nil, arn, err
	}
	return s, arn, nil
}

func createPrincipal(c *cli.Context, kind kms.PrincipalKind) error {
	s, arn, err := openPrincipal(c, kind)
	if err != nil {
		return err
	}
	defer s.close()
	p, err := s.admin.CreatePrincipal(c.Context, arn, pairsOf(c, "tag"))
	if err != nil {
		return err
	}
	return printPrincipal(c, kind, describedPrincipal(p, arn))
}

func listPrincipals(c *cli.Context, kind kms.PrincipalKind) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	s, err := openSite(c)
	if err != nil {
		return err
	}
	defer s.close()
	accounts, err := s.accounts(c)
	if err != nil {
		return err
	}
	all := []principalJSON{}
	for _, account := range accounts {
		some, err := s.admin.Principals(c.Context, account, kind)
		if err != nil {
			return err
		}
		for i := range some {
			all = append(all, describedPrincipal(&some[i], s.arn(account, kind, some[i].Name)))
		}
	}
	if c.Bool("json") {
		return printJSON(c, map[string][]principalJSON{kind.Title() + "s": all})
	}
	if len(all) == 0 {
		note(c, "there are no %ss:  strongroom %s create NAME", kind, kind)
		return nil
	}
	rows := [][]string{{strings.ToUpper(string(kind)), "CREATED", "POLICIES", "TAGS"}}
	for _, j := range all {
		rows = append(rows, []string{j.Arn, j.CreateDate.Format("2006-01-02"), strings.Join(j.Policies, ", "), j.tagText()})
	}
	return printTable(c, rows)
}

func showPrincipal(c *cli.Context, kind kms.PrincipalKind) error {
	s, arn, err := openPrincipal(c, kind)
	if err != nil {
		return err
	}
	defer s.close()
	p, err := s.admin.Principal(c.Context, arn)
	if err != nil {
		return err
	}
	keys, err := s.admin.AccessKeys(c.Context, arn)
	if err != nil {
		return err
	}
	j := describedPrincipal(p, arn)
	for i := range keys {
		j.Keys = append(j.Keys, describedCredential(&keys[i]))
	}
	if c.Bool("json") {
		return printJSON(c, map[string]principalJSON{kind.Title(): j})
	}
	rows := [][]string{
		{"ARN", j.Arn},
		{"Id", p.ID},
		{"Created", when(p.Created)},
		{"Tags", j.tagText()},
		{"Policies", strings.Join(j.Policies, ", ")},
	}
	for _, k := range j.Keys {
		rows = append(rows, []string{k.kind(), strings.Join(k.row()[:2], ", ")})
	}
	return printTable(c, rows)
}

func tagPrincipal(c *cli.Context, kind kms.PrincipalKind) error {
	tags := pairsOf(c, "tag")
	if (len(tags) > 0) == c.Bool("no-tags") {
		return hint(misuse("either --tag, with all that it shall have, or --no-tags"), c.Command.HelpName+" --help")
	}
	s, arn, err := openPrincipal(c, kind)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.admin.SetTags(c.Context, arn, tags); err != nil {
		return err
	}
	p, err := s.admin.Principal(c.Context, arn)
	if err != nil {
		return err
	}
	return printPrincipal(c, kind, describedPrincipal(p, arn))
}

func deletePrincipal(c *cli.Context, kind kms.PrincipalKind) error {
	s, arn, err := openPrincipal(c, kind)
	if err != nil {
		return err
	}
	defer s.close()
	p, err := s.admin.Principal(c.Context, arn)
	if err != nil {
		return err
	}
	keys, err := s.admin.AccessKeys(c.Context, arn)
	if err != nil {
		return err
	}
	j := describedPrincipal(p, arn)
	note(c, "This is going to be deleted, with all its access keys and sessions:\n%s", table([][]string{
		{"  " + string(kind), j.Arn},
		{"  created", when(p.Created)},
		{"  policies", strings.Join(j.Policies, ", ")},
		{"  credentials", fmt.Sprint(len(keys))},
	})+"Whoever uses them is refused within a second. The name is not given again.")
	if err := confirm(c, string(kind), "name", arn.Name); err != nil {
		return err
	}
	if err := s.admin.DeletePrincipal(c.Context, arn); err != nil {
		return err
	}
	return printPrincipal(c, kind, j)
}
