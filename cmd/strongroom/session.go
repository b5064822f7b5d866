package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"strongroom/kms"
)

func sessionCommand() *cli.Command {
	return adminCommand(&cli.Command{
		Name:  "session",
		Usage: "make credentials of a role that expire (on the server's host)",
		Description: `Prints lines for a shell. This opens the token, as serve does. With --json it prints what AWS programs want of a
credential_process, so that a profile in ~/.aws/config can name it, and new credentials are made whenever the old ones expire:

    [profile app]
    credential_process = strongroom session --role app --json --config /etc/strongroom/strongroom.toml

Example:  strongroom session --role app --duration 1h --config /etc/strongroom/strongroom.toml > session.env`,
		Flags: []cli.Flag{
			roleFlag(), accountFlag(),
			&cli.StringFlag{Name: "name", Usage: "the `NAME` of the session, for the audit log (default: who you are on this host)"},
			&cli.DurationFlag{Name: "duration", Usage: "it expires after this `TIME`, 15m to 12h", Value: time.Hour},
		},
		Action: createSession,
	})
}

func createSession(c *cli.Context) error {
	if d := c.Duration("duration"); d < kms.MinSession || d > kms.MaxSession {
		return misuse("--duration %s: must be %s to %s", d, kms.MinSession, kms.MaxSession)
	}
	s, arn, _, err := openOwner(c)
	if err != nil {
		return err
	}
	defer s.close()
	name := c.String("name")
	if name == "" {
		name = sessionName(operator())
	}
	token, err := s.device(c.Context)
	if err != nil {
		return err
	}
	key, err := s.admin.CreateSession(c.Context, token, arn, name, c.Duration("duration"))
	if err != nil {
		return err
	}
	if c.Bool("json") {
		// (AWS SDKs and Tools Reference Guide, "Process credential provider")
		return printJSON(c, struct {
			Version                                   int
			AccessKeyID                               string `json:"AccessKeyId"`
			SecretAccessKey, SessionToken, Expiration string
		}{1, key.ID, key.Secret, key.Token, key.Expires.UTC().Format(time.RFC3339)})
	}
	note(c, "This is a session of %s, called %s, until %s.", arn, name, when(key.Expires))
	return printBytes(c, exports([][2]string{
		{"AWS_ACCESS_KEY_ID", key.ID}, {"AWS_SECRET_ACCESS_KEY", key.Secret}, {"AWS_SESSION_TOKEN", key.Token}, {"AWS_REGION", s.region},
	}))
}

// sessionName returns a name of a session that is as like a person's name as it may be.
func sessionName(person string) string {
	name := strings.Map(func(r rune) rune {
		if r < 0x80 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_+=,.@-", r)) {
			return r
		}
		return '-'
	}, person)
	return fmt.Sprintf("%.64s", name)
}
