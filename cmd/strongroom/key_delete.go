package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/urfave/cli/v2"
)

const minDeletionDays, maxDeletionDays = 7, 30 // (AWS KMS API Reference, ScheduleKeyDeletion, PendingWindowInDays)

func keyDeleteCommand() *cli.Command {
	return clientCommand(&cli.Command{
		Name:      "delete",
		Usage:     "have a key destroyed after a time, and all that it encrypted lost",
		ArgsUsage: "KEY",
		Description: `The key cannot be used from now on, and is destroyed at the end of the time. Until then "strongroom key undelete" keeps it.
Says what it is going to do, and then wants the key id to be typed on the terminal, or --yes.

Example:  strongroom key delete 1234abcd-12ab-34cd-56ef-1234567890ab --days 30
          strongroom key delete old-app --yes` + keyHelp,
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "days", Usage: "destroy it after `N` days, 7 to 30", Value: maxDeletionDays},
			&cli.BoolFlag{Name: "yes", Usage: "do not ask", DisableDefaultText: true},
		},
		Action: deleteKey,
	})
}

func deleteKey(c *cli.Context) error {
	key, err := argument(c, "KEY")
	if err != nil {
		return err
	}
	days := c.Int("days")
	if days < minDeletionDays || days > maxDeletionDays {
		return misuse("--days %d: must be %d to %d", days, minDeletionDays, maxDeletionDays)
	}
	s, err := connect(c)
	if err != nil {
		return err
	}
	key = keyName(key)
	known, err := call(c.Context, s, "delete key "+key, s.DescribeKey, &awskms.DescribeKeyInput{KeyId: &key})
	if err != nil {
		return err
	}
	m := metadataOf(known.KeyMetadata)
	if m.KeyState == string(types.KeyStatePendingDeletion) {
		return hint(fmt.Errorf("delete key %s: it is to be destroyed already, on %s", m.KeyID, when(aws.ToTime(m.DeletionDate))),
			"strongroom key undelete "+m.KeyID+" keeps it; then its time can be chosen again")
	}
	s.announceDeletion(c, m, days)
	if err := confirmDeletion(c, m.KeyID); err != nil {
		return err
	}
	out, err := call(c.Context, s, "delete key "+m.KeyID, s.ScheduleKeyDeletion,
		&awskms.ScheduleKeyDeletionInput{KeyId: &m.KeyID, PendingWindowInDays: aws.Int32(int32(days))}, once)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c, struct {
			keyStateJSON
			DeletionDate        *time.Time
			PendingWindowInDays int32
		}{keyStateJSON{aws.ToString(out.KeyId), out.KeyState}, utc(out.DeletionDate), aws.ToInt32(out.PendingWindowInDays)})
	}
	return printTable(c, [][]string{{m.KeyID, string(out.KeyState), when(aws.ToTime(out.DeletionDate))}})
}

// announceDeletion says what is about to be done, while it can still be left.
func (s *client) announceDeletion(c *cli.Context, m keyMetadata, days int) {
	rows := [][]string{{"  key", m.Arn}}
	if aliases, err := s.aliases(c, &m.KeyID); err == nil && len(aliases) > 0 {
		rows = append(rows, []string{"  known as", strings.Join(aliasNames(aliases), ", ")})
	}
	if m.Description != "" {
		rows = append(rows, []string{"  described", m.Description})
	}
	rows = append(rows,
		[]string{"  created", when(m.CreationDate)},
		[]string{"  unusable", "at once"},
		[]string{"  destroyed", fmt.Sprintf("in %d days, about %s", days, when(time.Now().AddDate(0, 0, days)))})
	note(c, "This is going to be deleted:\n%s"+
		"Then all that it ever encrypted - data keys, private keys of data key pairs, and what those protect - can be read by nobody.\n"+
		"No backup of the server's store brings it back. Until then:  strongroom key undelete %s", table(rows), m.KeyID)
}

// confirmDeletion returns nil if the person really wants it.
func confirmDeletion(c *cli.Context, id string) error {
	return confirm(c, "key", "id", id)
}

// confirm returns nil if the person really wants to delete the thing of this kind whose id, or whatever the word for it is, is name.
func confirm(c *cli.Context, kind, word, name string) error {
	what := "delete " + kind + " " + name
	if c.Bool("yes") {
		return nil
	}
	if !isTerminal(c.App.Reader) {
		return hint(misuse("%s: nobody is there to confirm it, so nothing was done", what), "--yes does it without asking")
	}
	fmt.Fprintf(c.App.ErrWriter, "Type the %s %s to do it: ", kind, word)
	typed, err := readLine(c)
	if err != nil {
		fmt.Fprintln(c.App.ErrWriter)
		return fmt.Errorf("%s: %w; nothing was done", what, err)
	}
	if strings.TrimSpace(typed) != name {
		return fmt.Errorf("%s: that was not its %s; nothing was done", what, word)
	}
	return nil
}
