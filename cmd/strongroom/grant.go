package main

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/urfave/cli/v2"
)

// grantOperations are what a grant on a key for encryption can be for (AWS KMS Developer Guide, "Grant operations").
var grantOperations = []string{
	"Decrypt", "Encrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext",
	"ReEncryptFrom", "ReEncryptTo", "CreateGrant", "DescribeKey", "RetireGrant",
}

func grantCommand() *cli.Command {
	return &cli.Command{
		Name:         "grant",
		Usage:        "let somebody use a key until it is taken back, without a change of policies",
		Action:       helpOnly,
		OnUsageError: onUsageError,
		Subcommands: []*cli.Command{
			grantCreateCommand(),
			grantListCommand(),
			grantRetirableCommand(),
			grantRevokeCommand(),
			grantRetireCommand(),
		},
	}
}

func grantCreateCommand() *cli.Command {
	return clientCommand(&cli.Command{
		Name:      "create",
		Usage:     "let a principal use a key",
		ArgsUsage: "KEY",
		Description: `Prints the id of the grant, by which it is taken back, and a token, by which the one who retires it may name it. The token gives no
right by itself. A grant lasts until it is revoked or retired, or the key is destroyed.

With a --name, the same command again makes no second grant, but another token of the first.

OPERATION is one of
  ` + strings.Join(grantOperations, "\n  ") + `

Example:  strongroom grant create app --grantee arn:aws:iam::111122223333:role/job --operation Decrypt --operation DescribeKey
          strongroom grant create app --grantee arn:aws:iam::111122223333:user/eve --operation Encrypt --context-subset tenant=eve` + keyHelp,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "grantee", Usage: "`ARN` of who may use the key"},
			&cli.GenericFlag{Name: "operation", Usage: "`OPERATION` that they may ask for; again for each", Value: new(words)},
			&cli.StringFlag{Name: "retiring", Usage: "`ARN` of who may retire the grant (default: only its account)"},
			&cli.StringFlag{Name: "name", Usage: "`NAME` of the grant, so that it is made only once"},
			&cli.GenericFlag{Name: "context-equals", Usage: "`NAME=VALUE`: only with exactly this encryption context; again for each pair", Value: pairs{}},
			&cli.GenericFlag{Name: "context-subset", Usage: "`NAME=VALUE`: only with this in the encryption context; again for each pair", Value: pairs{}},
			grantTokensFlag(),
			dryRunFlag(),
		},
		Action: createGrant,
	})
}

func grantListCommand() *cli.Command {
	return clientCommand(&cli.Command{
		Name:      "list",
		Usage:     "list the grants on a key",
		ArgsUsage: "KEY",
		Description: `Example:  strongroom grant list app
          strongroom grant list app --grantee arn:aws:iam::111122223333:role/job --json | jq -r .Grants[].GrantId` + keyHelp,
		Flags:  []cli.Flag{&cli.StringFlag{Name: "grantee", Usage: "only those to this `ARN`"}},
		Action: listGrants,
	})
}

func grantRetirableCommand() *cli.Command {
	return clientCommand(&cli.Command{
		Name:      "retirable",
		Usage:     "list the grants, on whatever keys, that name somebody as the one who may retire them",
		ArgsUsage: "ARN",
		Description: `ARN is that of a principal of your account, also of one that is gone.

Example:  strongroom grant retirable arn:aws:iam::111122223333:role/job`,
		Action: listRetirable,
	})
}

func grantRevokeCommand() *cli.Command {
	return clientCommand(&cli.Command{
		Name:      "revoke",
		Usage:     "take a grant back, as one whom policies let",
		ArgsUsage: "KEY GRANTID",
		Description: `From the next request on, the grant permits nothing.

Example:  strongroom grant revoke app 0c237476b39f8bc44e45212e08498fbe3151305030726c0590dd8d3e9f3d6a60` + keyHelp,
		Flags:  []cli.Flag{dryRunFlag()},
		Action: revokeGrant,
	})
}

func grantRetireCommand() *cli.Command {
	return clientCommand(&cli.Command{
		Name:      "retire",
		Usage:     "end a grant that has done its work, as one whom the grant lets",
		ArgsUsage: "KEY GRANTID | --token TOKEN",
		Description: `Those are the principal that the grant names for it, its grantee if RetireGrant is among its operations, and its account.

Example:  strongroom grant retire --token AQpAM2RhZTk1MGMyNTk2ZmZmMzEy
          strongroom grant retire app 0c237476b39f8bc44e45212e08498fbe3151305030726c0590dd8d3e9f3d6a60` + keyHelp,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "token", Usage: "`TOKEN` of the grant, instead of KEY and GRANTID"},
			dryRunFlag(),
		},
		Action: retireGrant,
	})
}

func dryRunFlag() cli.Flag {
	return &cli.BoolFlag{Name: "dry-run", Usage: "do nothing, but say whether it would be permitted", DisableDefaultText: true}
}

// isDryRun reports whether err says that a dry run would have succeeded, which is how a server answers it.
func isDryRun(err error) bool { return errorCode(err) == "DryRunOperationException" }

// printDryRun says that nothing was done, and that it could be.
func printDryRun(c *cli.Context) error {
	if c.Bool("json") {
		return printJSON(c, struct{ DryRun bool }{true})
	}
	note(c, "it would be permitted; nothing was done")
	return nil
}

func createGrant(c *cli.Context) error {
	key, err := argument(c, "KEY")
	if err != nil {
		return err
	}
	in, err := newGrant(c)
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
	in.KeyId = &key
	var options []func(*awskms.Options)
	if in.Name == nil {
		options = append(options, once)
	}
	out, err := call(c.Context, s, "create a grant on key "+key, s.CreateGrant, in, options...)
	switch {
	case isDryRun(err):
		return printDryRun(c)
	case err != nil:
		return err
	}
	id, token := aws.ToString(out.GrantId), aws.ToString(out.GrantToken)
	if c.Bool("json") {
		return printJSON(c, struct {
			GrantID    string `json:"GrantId"`
			GrantToken string
		}{id, token})
	}
	return printTable(c, [][]string{{"Grant id", id}, {"Token", token}})
}

// newGrant returns what the flags say, without the key.
func newGrant(c *cli.Context) (*awskms.CreateGrantInput, error) {
	in := &awskms.CreateGrantInput{GranteePrincipal: aws.String(c.String("grantee")), GrantTokens: grantTokens(c)}
	if *in.GranteePrincipal == "" {
		return nil, hint(misuse("--grantee is missing"), c.Command.HelpName+" --help")
	}
	for _, name := range wordsOf(c, "operation") {
		operation := types.GrantOperation(name)
		if !slices.Contains(operation.Values(), operation) {
			return nil, hint(misuse("--operation %s: is not what a grant can be for", name), "one of "+strings.Join(grantOperations, " "))
		}
		in.Operations = append(in.Operations, operation)
	}
	if in.Operations == nil {
		return nil, hint(misuse("--operation is missing"), "one of "+strings.Join(grantOperations, " "))
	}
	if arn := c.String("retiring"); arn != "" {
		in.RetiringPrincipal = &arn
	}
	if name := c.String("name"); name != "" {
		in.Name = &name
	}
	equals, subset := pairsOf(c, "context-equals"), pairsOf(c, "context-subset")
	if equals != nil || subset != nil {
		in.Constraints = &types.GrantConstraints{EncryptionContextEquals: equals, EncryptionContextSubset: subset}
	}
	if c.Bool("dry-run") {
		in.DryRun = aws.Bool(true)
	}
	return in, nil
}

// grantJSON is what the AWS KMS API calls GrantListEntry.
type grantJSON struct {
	KeyID                    string `json:"KeyId"`
	GrantID                  string `json:"GrantId"`
	Name                     string `json:",omitempty"`
	CreationDate             *time.Time
	GranteePrincipal         string `json:",omitempty"`
	GranteeServicePrincipal  string `json:",omitempty"`
	RetiringPrincipal        string `json:",omitempty"`
	RetiringServicePrincipal string `json:",omitempty"`
	IssuingAccount           string
	Operations               []string
	Constraints              *constraintsJSON `json:",omitempty"`
}

// constraintsJSON is what the AWS KMS API calls GrantConstraints.
type constraintsJSON struct {
	EncryptionContextSubset map[string]string `json:",omitempty"`
	EncryptionContextEquals map[string]string `json:",omitempty"`
	SourceArn               string            `json:",omitempty"`
}

func listGrants(c *cli.Context) error {
	s, key, err := connectForKey(c)
	if err != nil {
		return err
	}
	in := &awskms.ListGrantsInput{KeyId: &key, Limit: aws.Int32(100)}
	if arn := c.String("grantee"); arn != "" {
		in.GranteePrincipal = &arn
	}
	var all []types.GrantListEntry
	for {
		out, err := call(c.Context, s, "list the grants on key "+key, s.ListGrants, in)
		if err != nil {
			return err
		}
		all = append(all, out.Grants...)
		if !out.Truncated {
			return printGrants(c, all)
		}
		in.Marker = out.NextMarker
	}
}

func listRetirable(c *cli.Context) error {
	arn, err := argument(c, "ARN")
	if err != nil {
		return err
	}
	s, err := connect(c)
	if err != nil {
		return err
	}
	in := &awskms.ListRetirableGrantsInput{RetiringPrincipal: &arn, Limit: aws.Int32(100)}
	var all []types.GrantListEntry
	for {
		out, err := call(c.Context, s, "list the grants that "+arn+" may retire", s.ListRetirableGrants, in)
		if err != nil {
			return err
		}
		all = append(all, out.Grants...)
		if !out.Truncated {
			return printGrants(c, all)
		}
		in.Marker = out.NextMarker
	}
}

func printGrants(c *cli.Context, entries []types.GrantListEntry) error {
	grants := []grantJSON{} // never null
	for i := range entries {
		grants = append(grants, describedGrant(&entries[i]))
	}
	if c.Bool("json") {
		return printJSON(c, struct{ Grants []grantJSON }{grants})
	}
	if len(grants) == 0 {
		note(c, "there are no such grants")
		return nil
	}
	var blocks []string
	for i := range grants {
		blocks = append(blocks, table(grants[i].rows()))
	}
	return printBytes(c, []byte(strings.Join(blocks, "\n")))
}

func describedGrant(g *types.GrantListEntry) grantJSON {
	j := grantJSON{
		KeyID:                    aws.ToString(g.KeyId),
		GrantID:                  aws.ToString(g.GrantId),
		Name:                     aws.ToString(g.Name),
		CreationDate:             utc(g.CreationDate),
		GranteePrincipal:         aws.ToString(g.GranteePrincipal),
		GranteeServicePrincipal:  aws.ToString(g.GranteeServicePrincipal),
		RetiringPrincipal:        aws.ToString(g.RetiringPrincipal),
		RetiringServicePrincipal: aws.ToString(g.RetiringServicePrincipal),
		IssuingAccount:           aws.ToString(g.IssuingAccount),
		Operations:               []string{},
	}
	for _, operation := range g.Operations {
		j.Operations = append(j.Operations, string(operation))
	}
	if k := g.Constraints; k != nil {
		j.Constraints = &constraintsJSON{k.EncryptionContextSubset, k.EncryptionContextEquals, aws.ToString(k.SourceArn)}
	}
	return j
}

// rows describes a grant for people. In columns it would be wider than any terminal.
func (j *grantJSON) rows() [][]string {
	rows := [][]string{
		{"Grant id", j.GrantID},
		{"Key", j.KeyID},
		{"Name", j.Name},
		{"Grantee", j.GranteePrincipal + j.GranteeServicePrincipal},
		{"Operations", strings.Join(j.Operations, ", ")},
	}
	if k := j.Constraints; k != nil {
		for _, limit := range []struct {
			title string
			pairs map[string]string
		}{{"Context is", k.EncryptionContextEquals}, {"Context has", k.EncryptionContextSubset}} {
			var all []string
			for _, name := range slices.Sorted(maps.Keys(limit.pairs)) {
				all = append(all, name+"="+limit.pairs[name])
			}
			if all != nil {
				rows = append(rows, []string{limit.title, strings.Join(all, ", ")})
			}
		}
		rows = append(rows, []string{"Source", k.SourceArn})
	}
	rows = append(rows, []string{"Retired by", j.RetiringPrincipal + j.RetiringServicePrincipal})
	if j.CreationDate != nil {
		rows = append(rows, []string{"Created", when(*j.CreationDate)})
	}
	return slices.DeleteFunc(rows, func(row []string) bool { return row[1] == "" })
}

// endedJSON names a grant that was revoked or retired.
type endedJSON struct {
	KeyID      string `json:"KeyId,omitempty"`
	GrantID    string `json:"GrantId,omitempty"`
	GrantToken string `json:",omitempty"`
}

func revokeGrant(c *cli.Context) error {
	args, err := arguments(c, "KEY", "GRANTID")
	if err != nil {
		return err
	}
	s, err := connect(c)
	if err != nil {
		return err
	}
	key, err := s.keyItself(c.Context, args[0])
	if err != nil {
		return err
	}
	in := &awskms.RevokeGrantInput{KeyId: &key, GrantId: &args[1]}
	if c.Bool("dry-run") {
		in.DryRun = aws.Bool(true)
	}
	_, err = call(c.Context, s, "revoke grant "+args[1], s.RevokeGrant, in, once)
	return printEnded(c, endedJSON{KeyID: key, GrantID: args[1]}, "revoked", err)
}

func retireGrant(c *cli.Context) error {
	if c.String("token") != "" {
		return retireByToken(c, c.String("token"))
	}
	args, err := arguments(c, "KEY", "GRANTID")
	if err != nil {
		return err
	}
	s, err := connect(c)
	if err != nil {
		return err
	}
	key, err := s.keyItself(c.Context, args[0])
	if err != nil {
		return err
	}
	return s.retire(c, "retire grant "+args[1], endedJSON{KeyID: key, GrantID: args[1]})
}

func retireByToken(c *cli.Context, token string) error {
	if _, err := arguments(c); err != nil {
		return hint(err, "a token names the key and the grant")
	}
	s, err := connect(c)
	if err != nil {
		return err
	}
	return s.retire(c, "retire the grant of this token", endedJSON{GrantToken: token})
}

// retire ends the grant that is named either way.
func (s *client) retire(c *cli.Context, what string, name endedJSON) error {
	in := new(awskms.RetireGrantInput)
	if name.GrantToken != "" {
		in.GrantToken = &name.GrantToken
	} else {
		in.KeyId, in.GrantId = &name.KeyID, &name.GrantID
	}
	if c.Bool("dry-run") {
		in.DryRun = aws.Bool(true)
	}
	_, err := call(c.Context, s, what, s.RetireGrant, in, once)
	return printEnded(c, name, "retired", err)
}

// printEnded tells how the end of a grant went.
func printEnded(c *cli.Context, name endedJSON, how string, err error) error {
	switch {
	case isDryRun(err):
		return printDryRun(c)
	case err != nil:
		return err
	case c.Bool("json"):
		return printJSON(c, name)
	}
	note(c, "the grant is %s", how)
	return nil
}
