package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"strongroom/kms"
	"strongroom/kms/policy"
)

func policyCommand() *cli.Command {
	owner := func(more ...cli.Flag) []cli.Flag {
		return append([]cli.Flag{userFlag(), roleFlag(), accountFlag()}, more...)
	}
	return &cli.Command{
		Name:         "policy",
		Usage:        "say what users and roles may do (on the server's host)",
		Action:       helpOnly,
		OnUsageError: onUsageError,
		Subcommands: []*cli.Command{
			adminCommand(&cli.Command{
				Name:      "put",
				Usage:     "attach an identity policy to a user or a role, or replace the one of that name",
				ArgsUsage: "POLICYNAME FILE|-",
				Description: `FILE is a policy as in AWS IAM: statements with Effect, Action, Resource and perhaps Condition. It counts for a key only as
far as the key's policy leaves it to the account, as the policy does that a key is made with.

Example:  strongroom policy put --user app encrypt policy.json --config /etc/strongroom/strongroom.toml`,
				Flags:  owner(),
				Action: putPolicy,
			}),
			adminCommand(&cli.Command{
				Name:        "list",
				Usage:       "list the identity policies of a user or a role",
				Description: `Example:  strongroom policy list --user app --config /etc/strongroom/strongroom.toml`,
				Flags:       owner(),
				Action:      listPolicies,
			}),
			adminCommand(&cli.Command{
				Name:        "show",
				Usage:       "print an identity policy",
				ArgsUsage:   "POLICYNAME",
				Description: `Example:  strongroom policy show --user app encrypt --config /etc/strongroom/strongroom.toml`,
				Flags:       owner(),
				Action:      showPolicy,
			}),
			adminCommand(&cli.Command{
				Name:        "delete",
				Usage:       "take an identity policy from a user or a role",
				ArgsUsage:   "POLICYNAME",
				Description: `Example:  strongroom policy delete --user app encrypt --config /etc/strongroom/strongroom.toml`,
				Flags:       owner(),
				Action:      deletePolicy,
			}),
			adminCommand(&cli.Command{
				Name:      "reset-key",
				Usage:     "put the default policy on a key that nobody can manage any more",
				ArgsUsage: "KEYID",
				Description: `The default policy leaves the key to its account. What the key's policy was is in the audit log, if it was set through the
server. For all else there is strongroom key policy put.

Example:  strongroom policy reset-key 1b5c0e5e-7a53-4bd8-9a2b-5d8c5a0f2f0e --config /etc/strongroom/strongroom.toml`,
				Action: resetKeyPolicy,
			}),
			policyCheckCommand(),
		},
	}
}

func policyCheckCommand() *cli.Command {
	return localCommand(&cli.Command{
		Name:      "check",
		Usage:     "say what is wrong with a policy, if anything is",
		ArgsUsage: "FILE|-",
		Description: `Reads it exactly as the server does when it is attached. Warns of conditions on attestation documents that cannot be meant. Needs no
deployment, and says nothing about what it would allow: for that, strongroom explain.

Example:  strongroom policy check policy.json

Exit codes: 0 nothing is wrong, 1 something is, 2 used wrongly.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "key-policy", Usage: "it is to be the policy of a key, not of a user or a role", DisableDefaultText: true},
			jsonFlag(),
			cli.HelpFlag,
		},
		Action: checkPolicy,
	})
}

// readPolicy returns the text of FILE, or of stdin for "-".
func readPolicy(c *cli.Context, file string) (string, error) {
	b, err := readNamed(c, file, policy.MaxSize)
	if err != nil {
		return "", misuse("the policy: %w", err)
	}
	return string(b), nil
}

func checkPolicy(c *cli.Context) error {
	file, err := argument(c, "FILE")
	if err != nil {
		return err
	}
	text, err := readPolicy(c, file)
	if err != nil {
		return err
	}
	kind, word := policy.IdentityPolicy, "an identity policy"
	if c.Bool("key-policy") {
		kind, word = policy.KeyPolicy, "a key policy"
	}
	document, fault := policy.Parse(kind, text)
	if c.Bool("json") {
		j := struct {
			Valid    bool
			Fault    string   `json:",omitempty"`
			Warnings []string `json:",omitempty"`
		}{Valid: fault == nil}
		if fault != nil {
			j.Fault = fault.Error()
		} else {
			j.Warnings = document.Warnings()
		}
		if err := printJSON(c, j); err != nil {
			return err
		}
		if fault != nil {
			return errNo
		}
		return nil
	}
	if fault != nil {
		return fmt.Errorf("%s is not %s: %s", file, word, printable(fault.Error()))
	}
	warnOf(c, document)
	note(c, "%s is %s without a fault", file, word)
	return nil
}

// warnPolicy tells the author of a policy what in it cannot be meant.
func warnPolicy(c *cli.Context, kind policy.Kind, text string) {
	if d, err := policy.Parse(kind, text); err == nil { // what else is wrong is not for a warning
		warnOf(c, d)
	}
}

func warnOf(c *cli.Context, d *policy.Document) {
	for _, w := range d.Warnings() {
		note(c, "warning: %s", printable(w))
	}
}

// openOwner opens the deployment of a command on a user or role, and returns what else names say that it was given.
func openOwner(c *cli.Context, names ...string) (*site, kms.PrincipalARN, []string, error) {
	args, err := arguments(c, names...)
	if err != nil {
		return nil, kms.PrincipalARN{}, nil, err
	}
	s, err := openSite(c)
	if err != nil {
		return nil, kms.PrincipalARN{}, nil, err
	}
	arn, err := s.needOwner(c)
	if err != nil {
		s.close()
		return nil, arn, nil, err
	}
	return s, arn, args, nil
}

type policyJSON struct {
	Arn            string // of the user or the role
	PolicyName     string
	PolicyDocument string `json:",omitempty"`
}

func putPolicy(c *cli.Context) error {
	s, arn, args, err := openOwner(c, "POLICYNAME", "FILE")
	if err != nil {
		return err
	}
	defer s.close()
	text, err := readPolicy(c, args[1])
	if err != nil {
		return err
	}
	if err := s.admin.PutPolicy(c.Context, arn, kms.NamedPolicy{Name: args[0], Text: text}); err != nil {
		return err
	}
	warnPolicy(c, policy.IdentityPolicy, text)
	return printPolicy(c, arn, args[0])
}

func printPolicy(c *cli.Context, arn kms.PrincipalARN, name string) error {
	if c.Bool("json") {
		return printJSON(c, policyJSON{Arn: arn.String(), PolicyName: name})
	}
	return printTable(c, [][]string{{name, arn.String()}})
}

func listPolicies(c *cli.Context) error {
	s, arn, _, err := openOwner(c)
	if err != nil {
		return err
	}
	defer s.close()
	p, err := s.admin.Principal(c.Context, arn)
	if err != nil {
		return err
	}
	j := describedPrincipal(p, arn)
	if c.Bool("json") {
		return printJSON(c, struct{ PolicyNames []string }{j.Policies})
	}
	if len(j.Policies) == 0 {
		note(c, "%s has no policy:  strongroom policy put --%s %s POLICYNAME FILE", arn, arn.Kind, arn.Name)
		return nil
	}
	var rows [][]string
	for _, name := range j.Policies {
		rows = append(rows, []string{name})
	}
	return printTable(c, rows)
}

func showPolicy(c *cli.Context) error {
	s, arn, args, err := openOwner(c, "POLICYNAME")
	if err != nil {
		return err
	}
	defer s.close()
	p, err := s.admin.Principal(c.Context, arn)
	if err != nil {
		return err
	}
	for _, have := range p.Policies {
		if have.Name != args[0] {
			continue
		}
		if c.Bool("json") {
			return printJSON(c, policyJSON{arn.String(), have.Name, have.Text})
		}
		return printBytes(c, []byte(strings.TrimRight(have.Text, "\n")+"\n"))
	}
	return hint(fmt.Errorf("%s has no policy %s", arn, args[0]), fmt.Sprintf("strongroom policy list --%s %s", arn.Kind, arn.Name))
}

func deletePolicy(c *cli.Context) error {
	s, arn, args, err := openOwner(c, "POLICYNAME")
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.admin.DeletePolicy(c.Context, arn, args[0]); err != nil {
		return err
	}
	return printPolicy(c, arn, args[0])
}

func resetKeyPolicy(c *cli.Context) error {
	text, err := argument(c, "KEYID")
	if err != nil {
		return err
	}
	id, err := kms.ParseKeyID(text)
	if err != nil {
		return misuse("%q is not a key id", text)
	}
	s, err := openSite(c)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.admin.ResetKeyPolicy(c.Context, id); err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c, struct {
			KeyID string `json:"KeyId"`
		}{id.String()})
	}
	note(c, "the key is its account's again:  strongroom key policy get %s", id)
	return nil
}
