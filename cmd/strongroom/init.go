package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"strongroom/hsm/pkcs11"
	"strongroom/kms"
	"strongroom/store"
)

// defaultAccount is the account of `dev`, and of `init` when it is told no other. AWS's documentation uses it in examples.
const defaultAccount = "111122223333"

func configFlag() cli.Flag {
	return &cli.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "the configuration `FILE`", EnvVars: []string{"STRONGROOM_CONFIG"}}
}

func initCommand() *cli.Command {
	return &cli.Command{
		Name:         "init",
		OnUsageError: onUsageError,
		Usage:        "make a deployment: its store, its keys in the token, its first access key",
		Description: `Makes what serve needs and never makes by itself. The token must have been initialised with its own
tools, and have a user PIN. Nothing that exists is changed: a store that has a deployment is refused. An init that was
interrupted may be repeated.

Who makes the IVs of encryptions, this host or the token, is found out by a test. If it is the token, and the configuration has no
hsm.iv, that is added to FILE, which stays as it is otherwise.

The secret of the first access key is printed once and kept nowhere in clear.

Example:  strongroom init --config /etc/strongroom/strongroom.toml`,
		Flags: []cli.Flag{
			configFlag(),
			&cli.StringFlag{Name: "account", Usage: "the first account, 12 `DIGITS`", Value: defaultAccount},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			if !kms.IsAccount(c.String("account")) {
				return misuse("--account %s: an account is 12 digits", c.String("account"))
			}
			config, err := loadConfig(c.Context, c.String("config"))
			if err != nil {
				return err
			}
			hardenProcess(newLogger(c.App.ErrWriter, config.LogLevel))
			key := kms.NewAccessKey()
			token := tokenConfig(c.Context, config.HSM)
			if config.HSM.IV == "" {
				token.FoundIV = func(found pkcs11.IVSource) error { return keepIV(c, c.String("config"), found) }
			}
			err = initialize(c.Context, deployment{
				store: config.Store, token: token,
				partition: config.Partition, region: config.Region, account: c.String("account"), key: key,
			})
			if errors.Is(err, kms.ErrConflict) {
				return hint(errors.New("this deployment was made before; nothing was changed"), "strongroom serve --config "+c.String("config"))
			}
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return json.NewEncoder(c.App.Writer).Encode(map[string]string{
					"AccessKeyId": key.ID, "SecretAccessKey": key.Secret, "Account": c.String("account"), "Region": config.Region,
				})
			}
			_, err = fmt.Fprintf(c.App.Writer, `The deployment is ready. This is the access key of account %s's root. Its secret is not shown again.

export AWS_ACCESS_KEY_ID=%s
export AWS_SECRET_ACCESS_KEY=%s
export AWS_REGION=%s

Next:  strongroom serve --config %s
`, c.String("account"), key.ID, key.Secret, config.Region, c.String("config"))
			return err
		},
	}
}

// A deployment is what initialize makes.
type deployment struct {
	store                      string // URL
	token                      pkcs11.Config
	partition, region, account string
	key                        kms.AccessKey // of the account's root
}

// initialize makes what is missing of a deployment. Its error is kms.ErrConflict if nothing is.
func initialize(ctx context.Context, d deployment) error {
	if err := store.Create(ctx, d.store); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the store: %w", err)
	}
	db, err := store.Open(ctx, d.store)
	if err != nil {
		return fmt.Errorf("open the store: %w", err)
	}
	defer db.Close()
	if err := db.Claim(ctx); err != nil {
		return fmt.Errorf("claim the store: %w", err)
	}
	// Before the token is asked for anything: what was made before is not touched.
	err = db.View(ctx, func(tx kms.Tx) error {
		_, err := tx.Deployment()
		return err
	})
	if err == nil {
		return fmt.Errorf("%s: %w", d.store, kms.ErrConflict)
	}
	if !errors.Is(err, kms.ErrNotStored) {
		return err
	}
	token, err := pkcs11.Init(ctx, d.token)
	if err != nil {
		return fmt.Errorf("prepare the token: %w", err)
	}
	defer token.Close()
	err = kms.Init(ctx, kms.InitOptions{
		Operator:    operator(),
		Device:      token,
		TokenSerial: token.Info().Serial,
		Store:       db,
		Partition:   d.partition,
		Region:      d.region,
		Account:     d.account,
		Key:         d.key,
	})
	if err != nil {
		return err
	}
	// The deployment is made: who has to do without this key now gets it from the first start, as older deployments do.
	_, err = kms.NewAuditSigner(ctx, token, db)
	return err
}

// tokenConfig says how the configured token is opened. The PIN is read only when the token was found.
func tokenConfig(ctx context.Context, h HSMConfig) pkcs11.Config {
	var iv pkcs11.IVSource
	if h.IV != "" {
		_ = iv.UnmarshalText([]byte(h.IV)) // checked when it was read
	}
	c := pkcs11.Config{
		IV:            iv,
		Module:        h.Module,
		InitArgs:      h.InitArgs,
		Label:         h.TokenLabel,
		Serial:        h.TokenSerial,
		PIN:           func() ([]byte, error) { return readPIN(ctx, h) },
		Sessions:      h.Sessions,
		SessionCopies: h.SessionCopies,
		SyncDir:       h.SyncDir,
	}
	if h.pinNote != "" {
		c = guardPIN(c, h)
	}
	return c
}

const pinVariable = "STRONGROOM_PIN"

// readPIN returns the user PIN: from the configured file, from the environment, or from a person at the terminal. It is never an argument, which
// everybody on the machine could read. The caller wipes it.
func readPIN(ctx context.Context, h HSMConfig) ([]byte, error) {
	return readPINNamed(ctx, h, "hsm.pin_file")
}

// readPINNamed is readPIN where the file is named by something else.
func readPINNamed(ctx context.Context, h HSMConfig, file string) ([]byte, error) {
	if h.PINFile != "" {
		info, err := os.Stat(h.PINFile)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			return nil, hint(fmt.Errorf("%s: %s: mode %04o lets others read the secret", file, h.PINFile, info.Mode().Perm()), "chmod 600 "+h.PINFile)
		}
		return pkcs11.PINFile(h.PINFile)()
	}
	if pin := os.Getenv(pinVariable); pin != "" {
		os.Unsetenv(pinVariable) // so that no child process inherits it
		return []byte(pin), nil
	}
	fd := int(os.Stdin.Fd())
	state, err := term.GetState(fd)
	if err != nil { // not a terminal
		return nil, hint(errors.New("no PIN: there is no "+file+", no "+pinVariable+" and no terminal to ask on"), "set "+strings.Replace(file, "hsm.pin_file", "hsm.pin_file in the configuration", 1))
	}
	defer term.Restore(fd, state) // an interrupted prompt leaves the echo off
	fmt.Fprintf(os.Stderr, "PIN of token %s%s: ", h.TokenLabel, h.TokenSerial)
	pin, err := interruptibly(ctx, func() ([]byte, error) { return term.ReadPassword(fd) })
	fmt.Fprintln(os.Stderr)
	if err != nil {
		return nil, fmt.Errorf("read the PIN: %w", err)
	}
	if len(pin) == 0 {
		return nil, errors.New("the PIN is empty; it was not tried")
	}
	return pin, nil
}
