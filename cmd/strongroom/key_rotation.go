package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/urfave/cli/v2"
)

// (AWS KMS API Reference, EnableKeyRotation, RotationPeriodInDays)
const minRotationDays, maxRotationDays, usualRotationDays = 90, 2560, 365

func keyRotateCommand() *cli.Command {
	return clientCommand(&cli.Command{
		Name:      "rotate",
		Usage:     "give a key new material, now and once",
		ArgsUsage: "KEY",
		Description: `What is encrypted from then on is encrypted under the new material. All that was encrypted before is decrypted as before, by
the same key id and aliases: older materials stay with the key, and nothing has to be encrypted again. Data keys that are
in use are not replaced. Its automatic rotations come when they would have come.

Waits until the new material is in use, and prints its id.

Example:  strongroom key rotate app` + keyHelp,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "no-wait", Usage: "only begin it; key rotation shows whether it is done", DisableDefaultText: true},
		},
		Action: rotateKey,
	})
}

func keyAutoRotateCommand() *cli.Command {
	return clientCommand(&cli.Command{
		Name:      "auto-rotate",
		Usage:     "have a key rotated every so many days, or no longer",
		ArgsUsage: "KEY",
		Description: `The first period begins now, also if the key is rotated automatically already.

Example:  strongroom key auto-rotate app --days 180
          strongroom key auto-rotate app --off` + keyHelp,
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "days", Usage: "every `N` days, 90 to 2560", Value: usualRotationDays},
			&cli.BoolFlag{Name: "off", Usage: "no longer", DisableDefaultText: true},
		},
		Action: autoRotateKey,
	})
}

func keyRotationCommand() *cli.Command {
	return clientCommand(&cli.Command{
		Name:      "rotation",
		Usage:     "show when a key is rotated, and its materials so far",
		ArgsUsage: "KEY",
		Description: `Example:  strongroom key rotation app
          strongroom key rotation app --json | jq -r .NextRotationDate` + keyHelp,
		Action: showRotation,
	})
}

// rotationJSON is the answer of GetKeyRotationStatus, with all materials of the key as ListKeyRotations tells of them.
type rotationJSON struct {
	KeyID                     string `json:"KeyId"`
	KeyRotationEnabled        bool
	RotationPeriodInDays      int32      `json:",omitempty"`
	NextRotationDate          *time.Time `json:",omitempty"`
	OnDemandRotationStartDate *time.Time `json:",omitempty"`
	Rotations                 []materialJSON
}

// materialJSON is what the AWS KMS API calls RotationsListEntry.
type materialJSON struct {
	KeyID                  string                    `json:"KeyId,omitempty"`
	KeyMaterialID          string                    `json:"KeyMaterialId"`
	KeyMaterialDescription string                    `json:",omitempty"`
	KeyMaterialState       types.KeyMaterialState    `json:",omitempty"`
	ImportState            types.ImportState         `json:",omitempty"`
	ExpirationModel        types.ExpirationModelType `json:",omitempty"`
	ValidTo                *time.Time                `json:",omitempty"`
	RotationDate           *time.Time                `json:",omitempty"`
	RotationType           types.RotationType        `json:",omitempty"`
}

// rotatedJSON is what is known of a key that was rotated. The material is known only if the rotation was waited for, and the key may be described.
type rotatedJSON struct {
	KeyID                string `json:"KeyId"`
	CurrentKeyMaterialID string `json:"CurrentKeyMaterialId,omitempty"`
}

func rotateKey(c *cli.Context) error {
	s, key, err := connectForKey(c)
	if err != nil {
		return err
	}
	out, err := call(c.Context, s, "rotate key "+key, s.RotateKeyOnDemand, &awskms.RotateKeyOnDemandInput{KeyId: &key}, once)
	if err != nil {
		return err
	}
	rotated := rotatedJSON{KeyID: aws.ToString(out.KeyId)}
	if c.Bool("no-wait") {
		note(c, "the rotation has begun:  strongroom key rotation %s", key)
	} else {
		if err := s.awaitRotation(c, key); err != nil {
			return hint(err, "the rotation has begun, and goes on by itself:  strongroom key rotation "+key)
		}
		// The material is a courtesy: not everybody who may rotate a key may describe it.
		described, err := call(c.Context, s, "describe key "+key, s.DescribeKey, &awskms.DescribeKeyInput{KeyId: &key})
		if err == nil {
			rotated.CurrentKeyMaterialID = aws.ToString(described.KeyMetadata.CurrentKeyMaterialId)
		}
	}
	if c.Bool("json") {
		return printJSON(c, rotated)
	}
	return printTable(c, [][]string{{key, rotated.CurrentKeyMaterialID}})
}

// Limits of the wait for a rotation. A server that is well has finished it before it answers. One whose device is away tries again every few minutes.
const (
	firstRotationWait = 100 * time.Millisecond // then twice as long each time
	longRotationWait  = 2 * time.Second
	maxRotationWait   = 5 * time.Minute
)

// awaitRotation returns when a rotation on demand that has begun is finished.
func (s *client) awaitRotation(c *cli.Context, key string) error {
	what := "wait for the rotation of key " + key
	ctx, cancel := context.WithTimeout(c.Context, maxRotationWait)
	defer cancel()
	for wait := firstRotationWait; ; wait = min(2*wait, longRotationWait) {
		status, err := call(c.Context, s, what, s.GetKeyRotationStatus, &awskms.GetKeyRotationStatusInput{KeyId: &key})
		if err != nil {
			return err
		}
		if status.OnDemandRotationStartDate == nil {
			return nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			if c.Context.Err() != nil {
				return fmt.Errorf("%s: interrupted", what)
			}
			return fmt.Errorf("%s: not finished within %s", what, maxRotationWait)
		}
	}
}

func autoRotateKey(c *cli.Context) error {
	days := c.Int("days")
	switch {
	case c.Bool("off") && c.IsSet("days"):
		return misuse("--days and --off cannot both be")
	case days < minRotationDays || days > maxRotationDays:
		return misuse("--days %d: must be %d to %d", days, minRotationDays, maxRotationDays)
	}
	s, key, err := connectForKey(c)
	if err != nil {
		return err
	}
	what := "change the automatic rotation of key " + key
	if c.Bool("off") {
		_, err = call(c.Context, s, what, s.DisableKeyRotation, &awskms.DisableKeyRotationInput{KeyId: &key})
	} else {
		_, err = call(c.Context, s, what, s.EnableKeyRotation, &awskms.EnableKeyRotationInput{KeyId: &key, RotationPeriodInDays: aws.Int32(int32(days))})
	}
	if err != nil {
		return err
	}
	if c.Bool("json") {
		j := struct {
			KeyID                string `json:"KeyId"`
			KeyRotationEnabled   bool
			RotationPeriodInDays int `json:",omitempty"`
		}{key, !c.Bool("off"), days}
		if c.Bool("off") {
			j.RotationPeriodInDays = 0
		}
		return printJSON(c, j)
	}
	if c.Bool("off") {
		return printTable(c, [][]string{{key, "not rotated automatically"}})
	}
	return printTable(c, [][]string{{key, fmt.Sprintf("rotated every %d days", days)}})
}

func showRotation(c *cli.Context) error {
	s, key, err := connectForKey(c)
	if err != nil {
		return err
	}
	status, err := call(c.Context, s, "show the rotation of key "+key, s.GetKeyRotationStatus, &awskms.GetKeyRotationStatusInput{KeyId: &key})
	if err != nil {
		return err
	}
	materials, err := s.materials(c, key)
	if err != nil {
		return err
	}
	r := rotationJSON{
		KeyID:                     aws.ToString(status.KeyId),
		KeyRotationEnabled:        status.KeyRotationEnabled,
		RotationPeriodInDays:      aws.ToInt32(status.RotationPeriodInDays),
		NextRotationDate:          utc(status.NextRotationDate),
		OnDemandRotationStartDate: utc(status.OnDemandRotationStartDate),
		Rotations:                 materials,
	}
	if c.Bool("json") {
		return printJSON(c, r)
	}
	automatic := "no"
	if r.KeyRotationEnabled {
		automatic = "every " + strconv.Itoa(int(r.RotationPeriodInDays)) + " days"
		if r.NextRotationDate != nil {
			automatic += ", next " + when(*r.NextRotationDate)
		}
	}
	rows := [][]string{{"Key", r.KeyID}, {"Automatic", automatic}}
	if r.OnDemandRotationStartDate != nil {
		rows = append(rows, []string{"On demand", "begun " + when(*r.OnDemandRotationStartDate) + ", not finished yet"})
	}
	text := table(rows) + "\n"
	rows = [][]string{{"MATERIAL", "STATE", "ROTATED", "ROTATION"}}
	for _, m := range r.Rotations {
		rows = append(rows, m.row())
	}
	return printBytes(c, []byte(text+table(rows)))
}

func (m *materialJSON) row() []string {
	rotated := ""
	if m.RotationDate != nil {
		rotated = when(*m.RotationDate)
	}
	return []string{m.KeyMaterialID, string(m.KeyMaterialState), rotated, string(m.RotationType)}
}

// materials returns every material of a key, oldest first.
func (s *client) materials(c *cli.Context, key string) ([]materialJSON, error) {
	all := []materialJSON{} // in JSON never null
	in := &awskms.ListKeyRotationsInput{KeyId: &key, IncludeKeyMaterial: types.IncludeKeyMaterialAllKeyMaterial, Limit: aws.Int32(1000)}
	for {
		out, err := call(c.Context, s, "list the materials of key "+key, s.ListKeyRotations, in)
		if err != nil {
			return nil, err
		}
		for _, r := range out.Rotations {
			all = append(all, materialJSON{
				KeyID:                  aws.ToString(r.KeyId),
				KeyMaterialID:          aws.ToString(r.KeyMaterialId),
				KeyMaterialDescription: aws.ToString(r.KeyMaterialDescription),
				KeyMaterialState:       r.KeyMaterialState,
				ImportState:            r.ImportState,
				ExpirationModel:        r.ExpirationModel,
				ValidTo:                utc(r.ValidTo),
				RotationDate:           utc(r.RotationDate),
				RotationType:           r.RotationType,
			})
		}
		if !out.Truncated {
			return all, nil
		}
		in.Marker = out.NextMarker
	}
}
