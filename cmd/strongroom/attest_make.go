package main

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"strongroom/kms/attest"
	"strongroom/kms/attest/attesttest"
)

func attestMakeCommand() *cli.Command {
	return localCommand(&cli.Command{
		Name:  "make",
		Usage: "make an attestation document for tests, which only a rig of strongroom dev believes",
		Description: `For tests alone. The document is signed with the root in DIR/attestation. The one that "strongroom dev" makes there only that
rig trusts: it says of itself that it is of a test rig, and serve refuses it. What the document says is what you say.

KEYFILE is the private RSA key of the recipient, in PEM: PKCS #8 or PKCS #1. It is made if it is not there;
"strongroom attest open" opens with it what was sealed to the document. Registers that are not given have made-up values, the
same each time.

With --case it is one of the documents that servers have to refuse, or to take though they look odd; --list-cases says which
there are and what is right.

Example:  strongroom attest make --dev ./rig --key app.key --out app.doc
          strongroom datakey --key app --recipient app.doc --out backup
          strongroom attest open --key app.key backup.key.cms --out backup.key

With --json, stdout is one JSON object whose binary values are base64.

Exit codes: 0 done, 1 failed, 2 used wrongly and nothing was done.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dev", Usage: "the `DIR` of the rig", TakesFile: true},
			&cli.StringFlag{Name: "key", Usage: "the recipient's key, in `KEYFILE`", TakesFile: true},
			&cli.IntFlag{Name: "bits", Usage: "`N` bits of a key that is made: 2048, 3072 or 4096", Value: 2048},
			&cli.BoolFlag{Name: "no-key", Usage: "a document without a key, to which nothing can be sealed", DisableDefaultText: true},
			&cli.StringFlag{Name: "kind", Usage: "`KIND` of the document: enclave or nitrotpm", Value: string(attest.Enclave)},
			&cli.GenericFlag{Name: "pcr", Usage: "`N=HEX`: a register, 96 hex digits; again for each", Value: registers{}},
			&cli.BoolFlag{Name: "debug", Usage: "of an enclave in debug mode: PCR0, 1 and 2 are zero", DisableDefaultText: true},
			&cli.StringFlag{Name: "module-id", Usage: "the `NAME` of the instance and the enclave (default: one that is made up)"},
			&cli.StringFlag{Name: "at", Usage: "`TIME` that it says it was made, as in 2026-07-01T12:00:00Z or, for so long ago, 4m (default: now)"},
			&cli.StringFlag{Name: "user-data", Usage: "`TEXT` for the document, or @FILE"},
			&cli.StringFlag{Name: "nonce", Usage: "`TEXT` for the document, or @FILE"},
			&cli.StringFlag{Name: "case", Usage: "make the odd document called `NAME`"},
			&cli.BoolFlag{Name: "list-cases", Usage: "print the names of --case, and what to expect", DisableDefaultText: true},
			outFlag(),
			&cli.BoolFlag{Name: "base64", Usage: "write it as base64", DisableDefaultText: true},
			jsonFlag(),
			cli.HelpFlag,
		},
		Action: makeDocument,
	})
}

// registers is the value of --pcr: what registers have.
type registers map[int][]byte

func (v registers) Set(s string) error {
	number, text, _ := strings.Cut(s, "=")
	index, err := strconv.Atoi(number)
	if err != nil || strconv.Itoa(index) != number || index < 0 || index > 31 {
		return errors.New("is not N=HEX, with N from 0 to 31")
	}
	value, err := hex.DecodeString(text)
	if err != nil || len(value) != sha512.Size384 {
		return fmt.Errorf("PCR%d must have %d hex digits", index, 2*sha512.Size384)
	}
	if v[index] != nil {
		return fmt.Errorf("PCR%d is given twice", index)
	}
	v[index] = value
	return nil
}

// String is empty: there is no default for the help to show.
func (v registers) String() string { return "" }

func makeDocument(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	if c.Bool("list-cases") {
		return listCases(c)
	}
	s, err := statementOf(c)
	if err != nil {
		return err
	}
	odd, err := caseOf(c)
	if err != nil {
		return err
	}
	out := outFile(c)
	if !c.Bool("base64") && !c.Bool("json") {
		if err := needOutput(c, out, "the document", "--out FILE or --base64"); err != nil {
			return err
		}
	}
	if out != "" {
		if err := checkNew(out); err != nil {
			return err
		}
	}
	root, err := devRoot(c)
	if err != nil {
		return err
	}
	if c.Bool("no-key") && c.String("key") != "" {
		return misuse("--key and --no-key cannot both be")
	}
	if !c.Bool("no-key") {
		recipient, err := recipientKey(c)
		if err != nil {
			return err
		}
		s.PublicKey = recipient.PublicKey()
	}
	if c.String("at") == "" {
		s.Time = time.Now() // the search for the key's primes may have taken seconds
	}
	document, err := root.DocumentOf(odd, s)
	if err != nil {
		return fmt.Errorf("make the document: %w", err)
	}
	text := document
	if c.Bool("base64") {
		text = appendBase64(nil, document)
	}
	if out != "" {
		if err := writeNew(newFile{path: out, content: text}); err != nil || !c.Bool("json") {
			return err
		}
		return printJSON(c, madeJSON{Files: []string{out}})
	}
	if c.Bool("json") {
		return printJSON(c, madeJSON{Document: document})
	}
	return printBytes(c, text)
}

// madeJSON is a document that was made, or the file that it went to.
type madeJSON struct {
	Document []byte   `json:",omitempty"`
	Files    []string `json:",omitempty"`
}

// statementOf returns what the flags say that the document says, but for its key.
func statementOf(c *cli.Context) (attesttest.Statement, error) {
	s := attesttest.Statement{Kind: attest.Kind(c.String("kind")), ModuleID: c.String("module-id"), Time: time.Now()}
	if !slices.Contains(attest.Kinds, s.Kind) {
		return s, misuse("--kind %s: must be enclave or nitrotpm", s.Kind)
	}
	given, _ := c.Generic("pcr").(registers)
	var err error
	if s.PCRs, err = registersOf(s.Kind, given, c.Bool("debug")); err != nil {
		return s, err
	}
	if at := c.String("at"); at != "" {
		if s.Time, err = parseMoment(at, s.Time); err != nil {
			return s, misuse("--at %w", err)
		}
	}
	if s.UserData, err = textOrFile(c, "user-data"); err != nil {
		return s, err
	}
	s.Nonce, err = textOrFile(c, "nonce")
	return s, err
}

// registersOf returns the registers of a document, with those that were given in the place of made-up ones.
func registersOf(kind attest.Kind, given registers, debug bool) (map[int][]byte, error) {
	all := attesttest.PCRs(kind)
	if debug {
		if kind != attest.Enclave {
			return nil, misuse("--debug: only enclaves have a debug mode")
		}
		for index := range 3 {
			clear(all[index])
		}
	}
	for index, value := range given {
		switch {
		case kind == attest.NitroTPM && all[index] == nil:
			return nil, misuse("--pcr: a NitroTPM has no PCR%d", index)
		case debug && index < 3 && !isZero(value):
			return nil, misuse("--pcr: PCR%d is zero in debug mode", index)
		}
		all[index] = value
	}
	return all, nil
}

// devRoot returns the root of the rig that --dev names.
func devRoot(c *cli.Context) (*attesttest.Root, error) {
	if c.String("dev") == "" {
		return nil, hint(misuse("whose root? --dev DIR is required"), "strongroom dev --dir DIR makes a rig with a root of its own; no other can be used")
	}
	dir, err := filepath.Abs(c.String("dev"))
	if err != nil {
		return nil, err
	}
	root, err := (&devRig{dir: dir}).attestationRoot(c.Context)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hint(misuse("there is no root for attestation documents in %s", printable(dir)), "strongroom dev --dir "+shellQuote(dir)+" makes one when it starts")
	}
	return root, err
}

// recipientKey returns the key in the file that --key names, which it makes if it is not there.
func recipientKey(c *cli.Context) (*attesttest.Recipient, error) {
	path, err := needKeyFile(c)
	if err != nil {
		return nil, err
	}
	bits := c.Int("bits")
	if !slices.Contains([]int{2048, 3072, 4096}, bits) {
		return nil, misuse("--bits %d: must be 2048, 3072 or 4096", bits)
	}
	text, err := readFile(c.Context, path, maxPEM)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := attesttest.NewRecipient(bits)
		if err != nil {
			return nil, err
		}
		text := key.PEM()
		defer clear(text)
		if err := writeNew(newFile{path: path, content: text}); err != nil {
			return nil, err
		}
		note(c, "made the recipient's key, %s", printable(path))
		return key, nil
	}
	if err != nil {
		return nil, misuse("the key: %w", err)
	}
	defer clear(text)
	key, err := attesttest.ParseRecipient(text)
	if err != nil {
		return nil, misuse("the key %s: %w", printable(path), err)
	}
	if has := key.Key.N.BitLen(); c.IsSet("bits") && has != bits {
		return nil, misuse("--bits %d: the key in %s has %d", bits, printable(path), has)
	}
	return key, nil
}

// caseOf returns the case that --case names, or the plain one.
func caseOf(c *cli.Context) (attesttest.Case, error) {
	name := c.String("case")
	if name == "" {
		return attesttest.Case{}, nil
	}
	for _, odd := range attesttest.Cases() {
		if odd.Name == name {
			return odd, nil
		}
	}
	return attesttest.Case{}, hint(misuse("--case: there is none called %q", name), "strongroom attest make --list-cases")
}

// caseJSON is a case, for programs.
type caseJSON struct {
	Name     string
	Expected string // "accepted", or the reason why it has to be refused
	About    string
}

func listCases(c *cli.Context) error {
	all := []caseJSON{}
	for _, odd := range attesttest.Cases() {
		expected := "accepted"
		if odd.Reason != 0 {
			expected = odd.Reason.String()
		}
		all = append(all, caseJSON{odd.Name, expected, odd.About})
	}
	if c.Bool("json") {
		return printJSON(c, struct{ Cases []caseJSON }{all})
	}
	rows := [][]string{{"CASE", "EXPECTED", "ABOUT"}}
	for _, odd := range all {
		rows = append(rows, []string{odd.Name, odd.Expected, odd.About})
	}
	return printTable(c, rows)
}

// caseNames are the values of --case.
func caseNames() []string {
	var names []string
	for _, odd := range attesttest.Cases() {
		names = append(names, odd.Name)
	}
	return names
}

// isZero reports whether every byte is zero.
func isZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }
