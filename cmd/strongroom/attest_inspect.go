package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"strongroom/kms"
	"strongroom/kms/attest"
)

func attestInspectCommand() *cli.Command {
	return localCommand(&cli.Command{
		Name:      "inspect",
		Usage:     "say what an attestation document says, whether it is accepted, and if not, why",
		ArgsUsage: "FILE|-",
		Description: `FILE is the document as it is, or as base64 or hex text. It is looked at as the server does, but all that is wrong with it is said,
not only what comes first. With --config or --dir it is what that deployment would say; without them only the root of AWS is
trusted, and with --anchor only the certificate in that file, which may be that of a test rig. No server is asked.

Prints "accepted" or "refused" first, and after the report a condition for policies which only documents of the same code, and
of the same root, meet. With --json there are also statements for a key's policy: an Allow with the condition keeps nobody out
whom another statement lets in, so they are Deny statements. They keep everybody from kms:ReEncryptFrom too, which has no
document to show: what is encrypted again under another key is out of their reach.

Example:  strongroom attest inspect enclave.doc
          strongroom attest inspect --at document enclave.doc
          strongroom attest inspect --config /etc/strongroom/strongroom.toml --json enclave.doc | jq .statements

With --json, stdout is one JSON object, also for what is no document. Members may be added later; none is renamed. In it
"verified" says that form, age, root, chain and signature are right, and "recipient_key_ok" that an answer could be sealed to
the key; each of "reasons" begins with its name in "reason_codes".

Exit codes: 0 accepted, 1 refused, 2 used wrongly, as with a FILE that is not there.`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "at", Usage: "as if it was `TIME`, as in 2026-07-01T12:00:00Z; or document: when it says that it was made (default: now)"},
			&cli.StringFlag{Name: "anchor", Usage: "trust the certificate in `FILE`, PEM, and no other", TakesFile: true},
			&cli.StringFlag{Name: "account", Usage: "as if the account of 12 `DIGITS` had sent it (default: one that all roots are trusted for)"},
			jsonFlag(),
			cli.HelpFlag,
		}, siteFlags()...),
		Action: inspectDocument,
	})
}

func inspectDocument(c *cli.Context) error {
	file, err := argument(c, "FILE")
	if err != nil {
		return err
	}
	account := c.String("account")
	if account != "" && !kms.IsAccount(account) {
		return misuse("--account %s: an account is 12 digits", account)
	}
	trust, err := trustOf(c)
	if err != nil {
		return err
	}
	at := time.Now()
	ownTime := c.String("at") == "document"
	if text := c.String("at"); text != "" && !ownTime {
		if at, err = parseMoment(text, at); err != nil {
			return misuse("--at %w", err)
		}
	}
	raw, form, err := readBinary(c, file)
	if err != nil {
		return err
	}
	if d, err := attest.Parse(raw); err == nil && ownTime {
		at = d.Time
	}
	j, err := inspect(raw, trust, account, at)
	if err != nil {
		return misuse("%w", err)
	}
	j.Encoding = form
	if err := printDocument(c, j); err != nil {
		return err
	}
	if j.Debug {
		note(c, "warning: this enclave runs in debug mode, in which whoever has the instance reads its memory; it vouches for no code")
	}
	if !j.Accepted {
		return errNo
	}
	return nil
}

func printDocument(c *cli.Context, j *documentJSON) error {
	if !c.Bool("json") {
		return printBytes(c, []byte(j.text()))
	}
	text, err := printableJSON(j)
	if err != nil {
		return err
	}
	return printJSON(c, text)
}

// trustOf returns what the flags of c say to go by.
func trustOf(c *cli.Context) (attest.Options, error) {
	config, dir, file := c.String("config"), c.String("dir"), c.String("anchor")
	said := dir != "" || config != "" && config != os.Getenv(configVariable)
	switch {
	case file != "" && said:
		return attest.Options{}, misuse("--anchor is trusted instead of what a deployment trusts: either it, or --config or --dir")
	case file != "":
		der, err := readCertificate(c.Context, file)
		if err != nil {
			return attest.Options{}, misuse("--anchor: %w", err)
		}
		anchor := attest.AWSRoot()
		if !bytes.Equal(der, anchor.DER) {
			anchor = attest.Anchor{Name: anchorName(file), DER: der}
		}
		return attest.Options{Anchors: []attest.Anchor{anchor}, AllowTestRoots: true}, nil
	case dir == "" && config == "":
		return attest.Options{Anchors: []attest.Anchor{attest.AWSRoot()}}, nil
	}
	p, err := findPlace(c)
	if err != nil {
		return attest.Options{}, err
	}
	return p.attestation(c.Context)
}

// anchorName returns a name of an anchor, which is not AWS's, that is as like a file's name as it may be.
func anchorName(path string) string {
	name := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r) {
			return r
		}
		return '-'
	}, name)
	if name == "" || strings.EqualFold(name, attest.AWSName) {
		name = "anchor"
	}
	return fmt.Sprintf("%.64s", name)
}

// inspect returns all that is to say of what may be a document. Without an account, every anchor counts, and it is said for whom.
func inspect(raw []byte, trust attest.Options, account string, at time.Time) (*documentJSON, error) {
	limited := make(map[string][]string)
	if account == "" {
		anchors := make([]attest.Anchor, len(trust.Anchors))
		for i, a := range trust.Anchors {
			limited[a.Name] = a.Accounts
			a.Accounts = nil
			anchors[i] = a
		}
		trust.Anchors = anchors
	}
	v, err := attest.New(trust)
	if err != nil {
		return nil, err
	}
	r := v.Examine(raw, account, at)
	j := describedDocument(r, at)
	j.Size = len(raw)
	if r.Document != nil {
		j.describeTrust(r, v.Examine(raw, account, r.Document.Time))
		j.RootAccounts = limited[j.Root]
	}
	return j, nil
}
