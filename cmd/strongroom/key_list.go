package main

import (
	"context"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"
)

func keyListCommand() *cli.Command {
	return clientCommand(&cli.Command{
		Name:  "list",
		Usage: "list the keys of the account, with their states and aliases",
		Description: `Asks for every key and alias there is, however many. A key that may be listed and not described has the state "?";
in JSON it has no KeyState.

Example:  strongroom key list
          strongroom key list --json | jq -r '.Keys[] | select(.KeyState == "PendingDeletion") | .KeyId'`,
		Action: listKeys,
	})
}

// A listedKey is what is known of a key from its place in the list, its metadata and the list of aliases.
type listedKey struct {
	KeyID        string `json:"KeyId"`
	KeyArn       string
	KeyState     types.KeyState `json:",omitempty"`
	Description  string         `json:",omitempty"`
	CreationDate *time.Time     `json:",omitempty"`
	DeletionDate *time.Time     `json:",omitempty"`
	Aliases      []string

	gone bool // it was destroyed after it was listed
}

func listKeys(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	s, err := connect(c)
	if err != nil {
		return err
	}
	keys, err := s.keys(c)
	if err != nil {
		return err
	}
	if err := s.describeAll(c, keys); err != nil {
		return err
	}
	aliases, err := s.aliases(c, nil)
	if errorCode(err) == "AccessDeniedException" {
		note(c, "without the aliases, because listing them is not permitted")
	} else if err != nil {
		return err
	}
	named := make(map[string][]string) // by key id
	for _, a := range aliases {
		id := aws.ToString(a.TargetKeyId)
		named[id] = append(named[id], aws.ToString(a.AliasName))
	}
	shown := []*listedKey{} // in JSON never null
	for _, k := range keys {
		if !k.gone {
			k.Aliases = append([]string{}, named[k.KeyID]...)
			shown = append(shown, k)
		}
	}
	if c.Bool("json") {
		return printJSON(c, struct{ Keys []*listedKey }{shown})
	}
	if len(shown) == 0 {
		note(c, "there are no keys yet:  strongroom key create --alias NAME")
		return nil
	}
	rows := [][]string{{"KEY", "STATE", "CREATED", "ALIASES", "DESCRIPTION"}}
	for _, k := range shown {
		rows = append(rows, k.row())
	}
	return printTable(c, rows)
}

func (k *listedKey) row() []string {
	state, created := "?", ""
	if k.KeyState != "" {
		state = string(k.KeyState)
	}
	if k.DeletionDate != nil {
		state += " " + k.DeletionDate.Format("2006-01-02")
	}
	if k.CreationDate != nil {
		created = k.CreationDate.Format("2006-01-02")
	}
	return []string{k.KeyID, state, created, strings.Join(k.Aliases, " "), k.Description}
}

// keys returns every key, as it is listed.
func (s *client) keys(c *cli.Context) ([]*listedKey, error) {
	var all []*listedKey
	in := &awskms.ListKeysInput{Limit: aws.Int32(1000)}
	for {
		out, err := call(c.Context, s, "list keys", s.ListKeys, in)
		if err != nil {
			return nil, err
		}
		for _, k := range out.Keys {
			all = append(all, &listedKey{KeyID: aws.ToString(k.KeyId), KeyArn: aws.ToString(k.KeyArn)})
		}
		if !out.Truncated {
			return all, nil
		}
		in.Marker = out.NextMarker
	}
}

// describeAll asks for what the list does not say, a few keys at a time.
func (s *client) describeAll(c *cli.Context, keys []*listedKey) error {
	g, ctx := errgroup.WithContext(c.Context)
	g.SetLimit(8)
	for _, k := range keys {
		g.Go(func() error { return s.describe(ctx, k) })
	}
	return g.Wait()
}

func (s *client) describe(ctx context.Context, k *listedKey) error {
	out, err := call(ctx, s, "describe key "+k.KeyID, s.DescribeKey, &awskms.DescribeKeyInput{KeyId: &k.KeyID})
	switch errorCode(err) {
	case "NotFoundException":
		k.gone = true
		return nil
	case "AccessDeniedException":
		return nil
	}
	if err != nil {
		return err
	}
	k.KeyState = out.KeyMetadata.KeyState
	k.Description = aws.ToString(out.KeyMetadata.Description)
	k.CreationDate = utc(out.KeyMetadata.CreationDate)
	k.DeletionDate = utc(out.KeyMetadata.DeletionDate)
	return nil
}
