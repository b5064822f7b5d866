package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"strongroom/kms/audit"
)

func auditShowCommand() *cli.Command {
	return localCommand(&cli.Command{
		Name:      "show",
		Usage:     "print the records of an audit log, or some of them",
		ArgsUsage: "[FILE|DIR…]",
		Description: `One line a record: when, who, what, about which key or whom, how it ended, and the request's id. With --json, the records as
they are in the log, one a line. Whether the log is as it was written, "strongroom audit verify" says.

Without FILE, --config or --dir says whose log. What an administrator did is in it once a server has run after that.

Example:  strongroom audit show --since 1h --outcome denied --config /etc/strongroom/strongroom.toml
          strongroom audit show --operation Decrypt --key 1234abcd --json /mnt/archive/audit | jq .sourceIPAddress

Exit codes: 0 done, 1 failed, or a line is no record, 2 used wrongly.`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "since", Usage: "from this `TIME` on: 2026-07-01T12:00:00Z, 2026-07-01, or how long ago, as 90m or 7d"},
			&cli.StringFlag{Name: "until", Usage: "before this `TIME`"},
			&cli.StringFlag{Name: "key", Usage: "about this `KEY`: part of the key's ARN, or of the id or alias that was asked for"},
			&cli.StringFlag{Name: "principal", Usage: "`WHO` did it: an ARN, the name of a user, or the id of an access key"},
			&cli.StringFlag{Name: "operation", Usage: "the `NAME` of what was done, as in Decrypt"},
			&cli.StringFlag{Name: "outcome", Usage: "`HOW` it ended: " + strings.Join(outcomes, ", ") + ", where failed has denied in it"},
			&cli.IntFlag{Name: "limit", Usage: "only the last `N`", DefaultText: "all"},
			jsonFlag(),
			cli.HelpFlag,
		}, siteFlags()...),
		Action: showAudit,
	})
}

var outcomes = []string{string(audit.OK), string(audit.Denied), string(audit.Failed)}

func showAudit(c *cli.Context) error {
	f := audit.Filter{Key: c.String("key"), Principal: c.String("principal"), Operation: c.String("operation"), Outcome: audit.Outcome(c.String("outcome"))}
	if f.Outcome != audit.Any && !slices.Contains(outcomes, string(f.Outcome)) {
		return misuse("--outcome %q is none of %s", f.Outcome, strings.Join(outcomes, ", "))
	}
	if c.Int("limit") < 0 {
		return misuse("--limit %d: must be 1 or more", c.Int("limit"))
	}
	for name, moment := range map[string]*time.Time{"since": &f.Since, "until": &f.Until} {
		if text := c.String(name); text != "" {
			var err error
			if *moment, err = parseMoment(text, time.Now()); err != nil {
				return misuse("--%s %w", name, err)
			}
		}
	}
	files, err := namedFiles(c)
	if err != nil {
		return err
	}

	out := &records{c: c, last: c.Int("limit")}
	bad := false
	for e, err := range audit.Find(files, f) {
		if c.Context.Err() != nil {
			return errors.New("interrupted")
		}
		if err != nil {
			if _, ok := errors.AsType[*audit.Finding](err); !ok {
				return err
			}
			note(c, "%s", printable(err.Error()))
			bad = true
			continue
		}
		if err := out.add(e); err != nil {
			return err
		}
	}
	if err := out.flush(); err != nil {
		return err
	}
	if bad {
		return hint(errors.New("some lines are no records"), "strongroom audit verify says more")
	}
	return nil
}

// records prints records as they come, or the last of them at the end.
type records struct {
	c     *cli.Context
	last  int // how many, 0 for all
	began bool
	rows  [][]string // that wait to be printed; for JSON each is one line
}

// together is how many records are aligned together.
const together = 1000

func (r *records) add(e *audit.Entry) error {
	row := []string{string(bytes.Clone(e.Line))}
	if !r.c.Bool("json") {
		row = recordRow(e)
	}
	r.rows = append(r.rows, row)
	if r.last > 0 {
		if len(r.rows) >= r.last+together { // not at each one: to drop the first moves the others
			r.rows = append(r.rows[:0], r.rows[len(r.rows)-r.last:]...)
		}
		return nil
	}
	if len(r.rows) == together {
		return r.flush()
	}
	return nil
}

func (r *records) flush() error {
	if r.last > 0 && len(r.rows) > r.last {
		r.rows = r.rows[len(r.rows)-r.last:]
	}
	rows := r.rows
	r.rows = nil
	if len(rows) == 0 {
		return nil
	}
	if r.c.Bool("json") {
		var b strings.Builder
		for _, row := range rows {
			b.WriteString(row[0] + "\n")
		}
		return printBytes(r.c, []byte(b.String()))
	}
	if !r.began {
		rows = slices.Insert(rows, 0, []string{"TIME", "WHO", "OPERATION", "ABOUT", "OUTCOME", "REQUEST"})
	}
	r.began = true
	return printTable(r.c, rows)
}

// recordRow writes a record for people.
func recordRow(e *audit.Entry) []string {
	who, about := e.Principal, e.KeyID
	if e.KeyARN != "" {
		about = e.KeyARN[strings.LastIndexByte(e.KeyARN, ':')+1:]
		about = strings.TrimPrefix(about, "key/")
	}
	if e.EventType == audit.AdminEvent {
		who, about = "operator "+who, administered(e.Line)
	}
	outcome := string(audit.OK)
	if e.ErrorCode != "" {
		outcome = e.ErrorCode
	}
	row := []string{when(e.Time), who, e.Name, about, outcome, e.RequestID}
	for i := range row {
		if row[i] == "" {
			row[i] = "-"
		}
	}
	return row
}

// administered returns whom an act of the administrator was about.
func administered(line []byte) string {
	var v struct {
		Parameters struct {
			AccountID   string `json:"accountId"`
			UserName    string `json:"userName"`
			RoleName    string `json:"roleName"`
			PolicyName  string `json:"policyName"`
			AccessKeyID string `json:"accessKeyId"`
		} `json:"requestParameters"`
	}
	if json.Unmarshal(line, &v) != nil {
		return "" // it is shown as it is all the same, with --json
	}
	var parts []string
	for _, part := range [][2]string{
		{"account ", v.Parameters.AccountID}, {"user ", v.Parameters.UserName}, {"role ", v.Parameters.RoleName},
		{"policy ", v.Parameters.PolicyName}, {"", v.Parameters.AccessKeyID},
	} {
		if part[1] != "" {
			parts = append(parts, part[0]+part[1])
		}
	}
	return strings.Join(parts, ", ")
}
