package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"strongroom/hsm/pkcs11"
)

func hsmCommand() *cli.Command {
	return &cli.Command{
		Name:         "hsm",
		Usage:        "choose an HSM, and see what it does (on the server's host)",
		Action:       helpOnly,
		OnUsageError: onUsageError,
		Subcommands:  []*cli.Command{hsmCheckCommand(), hsmListCommand()},
	}
}

// tokenFlags are the flags that say which token is meant, with a deployment or without.
func tokenFlags() []cli.Flag {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "module", Usage: "the PKCS#11 library, a `FILE`", TakesFile: true, Category: "Token"},
		&cli.StringFlag{Name: "init-args", Usage: "`TEXT` for the library's C_Initialize, which NSS wants", Category: "Token"},
		&cli.StringFlag{Name: "token-label", Usage: "the token labelled `LABEL`", Category: "Token"},
		&cli.StringFlag{Name: "token-serial", Usage: "the token with the serial number `NUMBER`", Category: "Token"},
		&cli.StringFlag{Name: "pin-file", Usage: "`FILE` with the user PIN, mode 0600 (default: " + pinVariable + ", or the terminal is asked)", TakesFile: true, Category: "Token"},
	}
	return append(flags, siteFlags()...)
}

// A tokenChoice is the token that a command line means.
type tokenChoice struct {
	config pkcs11.Config
	named  bool   // a token is, and not only a module
	store  string // URL of the deployment's store, empty without a deployment
}

// chooseToken returns the token that the flags of c name: by themselves, or as that of a deployment.
func chooseToken(c *cli.Context) (*tokenChoice, error) {
	module, label, serial := c.String("module"), c.String("token-label"), c.String("token-serial")
	deployment := c.String("dir") != "" || c.String("config") != "" && (module == "" || c.String("config") != os.Getenv(configVariable))
	switch {
	case module == "" && (label != "" || serial != "" || c.String("pin-file") != "" || c.String("init-args") != ""):
		return nil, misuse("--init-args, --token-label, --token-serial and --pin-file go with --module")
	case module == "" && !deployment:
		return nil, hint(misuse("which token? --module FILE, --config FILE or --dir DIR is required"), "--module with --token-label LABEL for a token that no deployment uses yet")
	case module != "" && deployment:
		return nil, misuse("--module, --config and --dir name several tokens")
	case label != "" && serial != "":
		return nil, misuse("--token-label and --token-serial are two ways to name one token")
	case module == "":
		p, err := findPlace(c)
		if err != nil {
			return nil, err
		}
		config, err := p.token(c.Context)
		return &tokenChoice{config: config, named: true, store: p.store}, err
	}
	if strings.Contains(module, "/") {
		absolute, err := filepath.Abs(module)
		if err != nil {
			return nil, err
		}
		module = absolute
	}
	h := HSMConfig{Module: module, InitArgs: c.String("init-args"), TokenLabel: label, TokenSerial: serial, PINFile: c.String("pin-file")}
	config := tokenConfig(c.Context, h)
	config.PIN = func() ([]byte, error) { return readPINNamed(c.Context, h, "--pin-file") }
	return &tokenChoice{config: config, named: label != "" || serial != ""}, nil
}

// A keptPIN is the PIN of a token that is opened by child processes: it is read once, and what the token answers first is told to whoever guards it.
type keptPIN struct {
	config pkcs11.Config
	pin    []byte
	tell   func(error) // what the token answered; nil when that is told
}

// read returns the PIN. The caller wipes what it gets.
func (k *keptPIN) read() ([]byte, error) {
	if k.pin == nil {
		pin, err := k.config.PIN()
		if err != nil {
			return nil, err
		}
		if try := k.config.TryPIN; try != nil {
			if k.tell, err = try(pin); err != nil {
				clear(pin)
				return nil, err
			}
		}
		k.pin = pin
	}
	return append([]byte(nil), k.pin...), nil
}

// answered tells what the token answered to the PIN, if it was asked for.
func (k *keptPIN) answered(err error) {
	if k.tell != nil {
		k.tell(err)
	}
	k.tell = nil
}

// uncertain reports whether nobody knows yet whether the PIN is right, and it may have been tried.
func (k *keptPIN) uncertain() bool {
	return k.tell != nil || k.pin == nil && k.config.PINUncertain != nil && k.config.PINUncertain()
}

// forget wipes the PIN. What is not known by now of what the token answered is not known.
func (k *keptPIN) forget() {
	k.answered(errNoAnswer)
	clear(k.pin)
}

var errNoAnswer = errors.New("nobody knows what the token answered to the PIN")
