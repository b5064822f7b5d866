package main

import (
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/urfave/cli/v2"
)

func keyUsageCommand() *cli.Command {
	return clientCommand(&cli.Command{
		Name:      "usage",
		Usage:     "show when a key was last used",
		ArgsUsage: "KEY",
		Description: `Used is a key that something was encrypted, decrypted or made under. Failures do not count. What was encrypted under a key that
is not used any more may still be wanted some day.

Example:  strongroom key usage app
          strongroom key usage app --json | jq -r .KeyLastUsage.Timestamp` + keyHelp,
		Action: showUsage,
	})
}

// usageJSON is the answer of GetKeyLastUsage.
type usageJSON struct {
	KeyID             string `json:"KeyId"`
	KeyLastUsage      lastUseJSON
	TrackingStartDate *time.Time `json:",omitempty"`
	KeyCreationDate   *time.Time `json:",omitempty"`
}

// lastUseJSON is what the AWS KMS API calls KeyLastUsageData. It is empty if the key was not used.
type lastUseJSON struct {
	Operation         types.KeyLastUsageTrackingOperation `json:",omitempty"`
	Timestamp         *time.Time                          `json:",omitempty"`
	CloudTrailEventID string                              `json:"CloudTrailEventId,omitempty"`
	KmsRequestID      string                              `json:"KmsRequestId,omitempty"`
}

func showUsage(c *cli.Context) error {
	s, key, err := connectForKey(c)
	if err != nil {
		return err
	}
	out, err := call(c.Context, s, "show the last use of key "+key, s.GetKeyLastUsage, &awskms.GetKeyLastUsageInput{KeyId: &key})
	if err != nil {
		return err
	}
	u := usageJSON{KeyID: aws.ToString(out.KeyId), TrackingStartDate: utc(out.TrackingStartDate), KeyCreationDate: utc(out.KeyCreationDate)}
	if use := out.KeyLastUsage; use != nil {
		u.KeyLastUsage = lastUseJSON{use.Operation, utc(use.Timestamp), aws.ToString(use.CloudTrailEventId), aws.ToString(use.KmsRequestId)}
	}
	if c.Bool("json") {
		return printJSON(c, u)
	}
	return printTable(c, u.rows())
}

func (u *usageJSON) rows() [][]string {
	rows := [][]string{{"Key", u.KeyID}}
	switch use := u.KeyLastUsage; {
	case use.Timestamp != nil:
		rows = append(rows, []string{"Last used", when(*use.Timestamp) + ", " + string(use.Operation)})
		if use.KmsRequestID != "" {
			rows = append(rows, []string{"Request", use.KmsRequestID})
		}
		if use.CloudTrailEventID != "" {
			rows = append(rows, []string{"Audit event", use.CloudTrailEventID})
		}
	case u.TrackingStartDate != nil && u.KeyCreationDate != nil && u.TrackingStartDate.After(*u.KeyCreationDate):
		// Uses were not kept from the beginning.
		rows = append(rows, []string{"Last used", "not since " + when(*u.TrackingStartDate) + "; before that is not known"})
	default:
		rows = append(rows, []string{"Last used", "never"})
	}
	if u.KeyCreationDate != nil {
		rows = append(rows, []string{"Created", when(*u.KeyCreationDate)})
	}
	return rows
}
