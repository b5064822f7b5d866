package main

import (
	"crypto/ecdsa"
	"fmt"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"strongroom/kms/audit"
)

func auditVerifyCommand() *cli.Command {
	return localCommand(&cli.Command{
		Name:      "verify",
		Usage:     "prove that an audit log is as the server wrote it, or find the first line that is not",
		ArgsUsage: "[FILE|DIR…]",
		Description: `Needs the files of the log, all or those from some line on, and the key that "strongroom audit key" printed; no server, no
token, no store. For a DIR it takes all of the log's files there. On the server's host --config or --dir say which log is meant.

Prints what is wrong first, as FILE:LINE, and then the report. What is not yet covered by a signature could have been changed
by whoever can write the files; and who can do that can cut lines off the end. To find that, note the head that is printed,
and require it later with --head.

Example:  strongroom audit verify --public-key audit-key.pem /var/lib/strongroom/audit

Exit codes: 0 nothing is wrong, 1 something is (or it failed, and stdout is empty), 2 used wrongly. An unfinished last line is
not wrong: the server may just be writing it. But it is not the line that --head requires.`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "public-key", Usage: "`FILE` with the key, in PEM or DER (default: public-key.pem beside the log)", TakesFile: true},
			&cli.StringFlag{Name: "head", Usage: "the log must have the line of `SEQUENCE:HASH`, as verify printed it earlier"},
			jsonFlag(),
			cli.HelpFlag,
		}, siteFlags()...),
		Action: verifyAudit,
	})
}

func verifyAudit(c *cli.Context) error {
	if !c.Args().Present() && c.String("dir") == "" && c.String("config") == "" {
		return hint(misuse("FILE is missing"), c.Command.HelpName+" --help")
	}
	var o audit.VerifyOptions
	if text := c.String("head"); text != "" {
		head, err := audit.ParseHead(text)
		if err != nil {
			return misuse("--head %w", err)
		}
		o.Head = &head
	}
	files, err := namedFiles(c)
	if err != nil {
		return err
	}
	key, err := auditKey(c, files)
	if err != nil {
		return err
	}
	r, err := audit.Verify(key, files, o)
	if err != nil {
		return err
	}
	j := describedReport(r)
	if c.Bool("json") {
		err = printJSON(c, j)
	} else {
		err = printBytes(c, []byte(j.text()))
	}
	if err == nil && !j.Good {
		err = errNo
	}
	return err
}

// auditKey returns the key that a log is to be verified with.
func auditKey(c *cli.Context, files []string) (*ecdsa.PublicKey, error) {
	path := c.String("public-key")
	if path == "" {
		path = filepath.Join(filepath.Dir(files[0]), "public-key.pem")
		note(c, "with the key that lies beside the log, %s, which proves nothing against who can write there; --public-key names another", printable(path))
	}
	b, err := readFile(c.Context, path, maxPEM)
	if err != nil {
		return nil, hint(misuse("the public key: %w", err), "strongroom audit key --config FILE prints it, on the server's host")
	}
	key, err := audit.ParsePublicKey(b)
	if err != nil {
		return nil, misuse("%s: %w", path, err)
	}
	return key, nil
}

// reportJSON is the form of a report for programs.
type reportJSON struct {
	Good        bool
	Finding     *findingJSON `json:",omitempty"` // the first thing that is wrong
	Torn        *findingJSON `json:",omitempty"` // an unfinished last line, which is not wrong
	Log         string
	Files       int
	Lines       uint64
	Records     uint64
	Checkpoints uint64
	First, Last *positionJSON `json:",omitempty"`
	Signed      *positionJSON `json:",omitempty"` // the last line that a checkpoint names, and when
	Unsigned    uint64        // records after it
	Closed      bool
	Head        string `json:",omitempty"`
}

type findingJSON struct {
	Kind   string
	File   string
	Line   int `json:",omitempty"`
	Detail string
	text   string
}

type positionJSON struct {
	Sequence uint64
	Time     time.Time
}

func describedReport(r *audit.Report) *reportJSON {
	position := func(p audit.Position) *positionJSON {
		if p.Sequence == 0 {
			return nil
		}
		return &positionJSON{p.Sequence, p.Time.UTC()}
	}
	j := &reportJSON{
		Good: true, Log: r.Log, Files: r.Files, Lines: r.Lines, Records: r.Records, Checkpoints: r.Checkpoints,
		First: position(r.First), Last: position(r.Last), Signed: position(r.Sealed), Unsigned: r.Unsealed, Closed: r.Closed,
	}
	if r.Head.Sequence > 0 {
		j.Head = r.Head.String()
	}
	if f := r.Finding; f != nil {
		found := &findingJSON{f.Kind.String(), f.File, f.Line, f.Detail, f.Error()}
		if f.Kind == audit.Torn {
			j.Torn = found
		} else {
			j.Finding, j.Good = found, false
		}
	}
	return j
}

// text writes a report for people.
func (j *reportJSON) text() string {
	first, until := "good", ""
	if !j.Good {
		first, until = "WRONG: "+printable(j.Finding.text), "before that, "
	}
	if j.Lines == 0 {
		log := "not known: there is no line before that"
		if j.Good {
			log = "not known: there is no whole line yet"
		}
		rows := [][]string{{"Log", log}}
		if j.Torn != nil {
			rows = append(rows, []string{"Last write", j.Torn.text})
		}
		return first + "\n" + table(rows)
	}
	records := fmt.Sprintf("%s%d", until, j.Records)
	if j.First != nil {
		records += fmt.Sprintf(", from %s to %s", when(j.First.Time), when(j.Last.Time))
	}
	signed := "nothing yet: " + count(j.Unsigned, "record") + " could have been changed"
	if j.Signed != nil {
		signed = fmt.Sprintf("to line %d, on %s, by %s", j.Signed.Sequence, when(j.Signed.Time), count(j.Checkpoints, "checkpoint"))
		if j.Unsigned > 0 {
			signed += "; not yet the last " + count(j.Unsigned, "record")
		}
	}
	closed := "no: it is open, or its server was killed"
	if j.Closed {
		closed = "yes, signed to the last line"
	}
	if !j.Good {
		closed = "not known"
	} else if j.Torn != nil {
		closed = "no: something was begun after the last line"
	}
	rows := [][]string{
		{"Log", fmt.Sprintf("%s, %s", j.Log, count(j.Files, "file"))},
		{"Records", records},
		{"Signed", signed},
		{"Closed", closed},
	}
	if j.Torn != nil {
		rows = append(rows, []string{"Last write", j.Torn.text})
	}
	if j.Head != "" {
		rows = append(rows, []string{"Head", j.Head})
	}
	return first + "\n" + table(rows)
}

// count writes how many things there are.
func count[N int | uint64](n N, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprint(n, " ", thing)
}
