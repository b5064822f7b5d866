package main

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/urfave/cli/v2"

	"strongroom/kms"
	"strongroom/kms/audit"
)

func auditCommand() *cli.Command {
	return &cli.Command{
		Name:         "audit",
		Usage:        "verify and read the record of who did what",
		Action:       helpOnly,
		OnUsageError: onUsageError,
		Subcommands: []*cli.Command{
			auditVerifyCommand(),
			auditShowCommand(),
			adminCommand(&cli.Command{
				Name:  "key",
				Usage: "print the key that verifies the audit log (on the server's host)",
				Description: `In PEM, read from the token, so this opens it, as serve does. An auditor gets it once, in a way that the operator of the log
cannot change later.

Example:  strongroom audit key --config /etc/strongroom/strongroom.toml > audit-key.pem`,
				Action: printAuditKey,
			}),
		},
	}
}

func printAuditKey(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	s, err := openSite(c)
	if err != nil {
		return err
	}
	defer s.close()
	token, err := s.device(c.Context)
	if err != nil {
		return err
	}
	signer, err := kms.FindAuditSigner(c.Context, token, s.db)
	if errors.Is(err, kms.ErrNotStored) {
		return hint(errors.New("this deployment has no key that signs its audit log yet"), "the first start of the server makes it")
	}
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: signer.PublicKey()})
	if c.Bool("json") {
		return printJSON(c, struct{ PublicKey string }{string(text)})
	}
	return printBytes(c, text)
}

// namedFiles returns the files of the log that the arguments name, or else of the deployment's log.
func namedFiles(c *cli.Context) ([]string, error) {
	names := c.Args().Slice()
	if len(names) == 0 {
		p, err := findPlace(c)
		if err != nil {
			return nil, err
		}
		names = []string{p.auditDir}
	} else if c.String("dir") != "" {
		return nil, misuse("either FILE or --dir")
	}
	return auditFiles(names)
}

// auditFiles returns the files of a log that are named, those of a directory for its name.
func auditFiles(names []string) ([]string, error) {
	var all []string
	for _, name := range names {
		info, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, misuse("%s: %w", name, withoutPath(err))
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", name, withoutPath(err))
		}
		if !info.IsDir() {
			all = append(all, name)
			continue
		}
		files, err := audit.Files(name)
		if err != nil {
			return nil, err
		}
		if len(files) == 0 {
			return nil, misuse("%s: there is no audit log in this directory", name)
		}
		all = append(all, files...)
	}
	return all, nil
}
