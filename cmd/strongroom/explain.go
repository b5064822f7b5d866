package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"strongroom/kms"
	"strongroom/kms/policy"
)

func explainCommand() *cli.Command {
	cmd := adminCommand(&cli.Command{
		Name:  "explain",
		Usage: "say whether a request would be allowed, and why (on the server's host)",
		Description: `Decides a request that nobody makes as the server would, from the store as it is now, and prints "allowed" or "denied", by
what, and what became of every statement and grant that was looked at. Nothing is done, and the token is not needed.

What to ask about a request that was denied is in its audit record (strongroom audit show --outcome denied --json). Condition
keys that come from the request's own parameters are given with --condition; "kms:" may be left out of it, and of --action.
A role acts only in sessions, so one is supposed for it.

Example:  strongroom explain --principal user/app --action Encrypt --key web --context app=web
          strongroom explain --principal user/app --action GenerateDataKeyPair --key web --condition DataKeyPairSpec=RSA_2048`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "principal", Usage: "`WHO` asks: an ARN, or root, user/NAME, role/NAME or assumed-role/NAME/SESSION of --account"},
			accountFlag(),
			&cli.StringFlag{Name: "action", Usage: "`ACTION` of a policy, as in kms:Decrypt"},
			&cli.StringFlag{Name: "key", Usage: "the `KEY` it is about: a key id, an ARN, or an alias; none for an action that is about no key"},
			contextFlag(),
			&cli.GenericFlag{Name: "condition", Usage: "`KEY=VALUE` of a condition; again for each, also for more values of one", Value: conditions{}},
			&cli.StringFlag{Name: "source-ip", Usage: "`ADDRESS` the request comes from"},
			&cli.BoolFlag{Name: "tls", Usage: "it comes over TLS", DisableDefaultText: true},
			&cli.StringFlag{Name: "at", Usage: "`TIME` it comes at, as in 2026-07-01T12:00:00Z (default: now)"},
		},
		Action: explain,
	})
	// Denied is an answer. What keeps it from answering is told apart as far as it can be: by code 2, or by an empty stdout.
	cmd.Description = strings.Replace(cmd.Description, "Exit codes: 0 done, 1 failed, 2 used wrongly and nothing was done, 3 the token refused the PIN.",
		"Exit codes: 0 allowed, 1 denied (or it failed, and stdout is empty), 2 used wrongly, or about what is not there.", 1)
	return cmd
}

// conditions is the value of --condition: the values of each condition key.
type conditions map[string][]string

func (v conditions) Set(s string) error {
	name, value, ok := strings.Cut(s, "=")
	if !ok || name == "" {
		return errors.New("is not KEY=VALUE")
	}
	switch namespace, _, _ := strings.Cut(strings.ToLower(name), ":"); namespace {
	case "kms", "aws", "strongroom":
	default:
		name = "kms:" + name
	}
	// The reader of policies knows which there are: one that is not known would be denied for no visible reason.
	test, err := json.Marshal(map[string]any{
		"Version": "2012-10-17",
		"Statement": map[string]any{"Effect": "Allow", "Action": "*", "Resource": "*",
			"Condition": map[string]any{"Null": map[string]string{name: "true"}}},
	})
	if err != nil {
		return err
	}
	if _, err := policy.Parse(policy.IdentityPolicy, string(test)); err != nil {
		return fmt.Errorf("%s is not a condition key", name)
	}
	v[name] = append(v[name], value)
	return nil
}

// String is empty: there is no default for the help to show.
func (v conditions) String() string { return "" }

func explain(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	for _, name := range []string{"principal", "action"} {
		if c.String(name) == "" {
			return hint(misuse("--%s is missing", name), c.Command.HelpName+" --help")
		}
	}
	req := &kms.ExplainRequest{Action: c.String("action"), Context: pairsOf(c, "context"), Secure: c.Bool("tls")}
	if !strings.Contains(req.Action, ":") {
		req.Action = "kms:" + req.Action
	}
	if key := c.String("key"); key != "" {
		req.Key = keyName(key)
	}
	if given, ok := c.Generic("condition").(conditions); ok {
		req.Conditions = given
	}
	var err error
	if ip := c.String("source-ip"); ip != "" {
		if req.Source, err = netip.ParseAddr(ip); err != nil {
			return misuse("--source-ip %s: is not an IP address", ip)
		}
	}
	if at := c.String("at"); at != "" {
		if req.Time, err = parseMoment(at, time.Now()); err != nil {
			return misuse("--at %w", err)
		}
	}
	s, err := openSite(c)
	if err != nil {
		return err
	}
	defer s.close()
	arn, err := s.principal(c, c.String("principal"))
	if err != nil {
		return err
	}
	if !arn.IsRoot() {
		if _, err := s.admin.Principal(c.Context, arn); errors.Is(err, kms.ErrNotStored) {
			return misuse("%w", err)
		} else if err != nil {
			return err
		}
	}
	req.Principal = arn.String()

	e, err := kms.Explain(c.Context, s.db, req)
	if refused, ok := errors.AsType[*kms.Error](err); ok && errors.Is(err, kms.AccessDenied) {
		// A key of another account that is not there is denied as one that is.
		e, err = &kms.Explanation{Decision: "there is no such key, which is not told to " + arn.String(), Answer: refused.Detail, Steps: []string{}}, nil
	} else if ok {
		return misuse("%s", printable(refused.Detail))
	}
	if errors.Is(err, kms.ErrNotStored) || errors.Is(err, kms.ErrNoAction) {
		return misuse("%w", err)
	}
	if err != nil {
		return err
	}
	if err := printExplanation(c, e); err != nil {
		return err
	}
	if !e.Allowed {
		return errNo
	}
	return nil
}

func printExplanation(c *cli.Context, e *kms.Explanation) error {
	if c.Bool("json") {
		return printJSON(c, e)
	}
	answer := "denied"
	if e.Allowed {
		answer = "allowed"
	}
	rows := [][]string{{"Because", e.Decision}}
	if e.KeyARN != "" {
		rows = append(rows, []string{"Key", e.KeyARN})
	}
	if e.State != "" && e.State != string(kms.StateEnabled) {
		rows = append(rows, []string{"State", e.State + ", which has a say too: what needs an enabled key is refused whatever is allowed"})
	}
	label := "Statements"
	for _, step := range e.Steps {
		rows = append(rows, []string{label, step})
		label = ""
	}
	if e.Grants != "" {
		rows = append(rows, []string{"Grants", e.Grants})
	}
	if e.Answer != "" {
		rows = append(rows, []string{"Client sees", e.Answer})
	}
	return printBytes(c, []byte(answer+"\n"+table(rows)))
}

// parseMoment reads a time as a person writes it, in UTC unless it says otherwise, or how long ago it was.
func parseMoment(s string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05 UTC", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	ago := s
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n uint16
		if _, err := fmt.Sscanf(days+"\n", "%d\n", &n); err == nil {
			ago = fmt.Sprintf("%dh", int(n)*24)
		}
	}
	if d, err := time.ParseDuration(ago); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("%q: is neither a time, as 2026-07-01T12:00:00Z or 2026-07-01, nor how long ago, as 90m or 7d", s)
}
