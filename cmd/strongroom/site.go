package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"strongroom/hsm/pkcs11"
	"strongroom/kms"
	"strongroom/kms/attest"
	"strongroom/softhsm"
	"strongroom/store"
)

// adminHelp ends the help of every administrator's command.
const adminHelp = `

This is for the operator, on the server's host: it works on the deployment's store itself, whether the server runs or not,
and a running server heeds it within a second. --config or --dir says which deployment. What is changed is recorded in the
audit log, as soon as a server runs.

With --json, stdout is one JSON object. Members may be added later; none is renamed. Errors and notes go to stderr. Flags may
stand anywhere.

Exit codes: 0 done, 1 failed, 2 used wrongly and nothing was done, 3 the token refused the PIN.`

// adminCommand completes a command of the administrator, as clientCommand does one that talks to a server.
func adminCommand(cmd *cli.Command) *cli.Command {
	cmd.Description += adminHelp
	cmd.Flags = append(cmd.Flags, jsonFlag(), cli.HelpFlag)
	cmd.Flags = append(cmd.Flags, siteFlags()...)
	return localCommand(cmd)
}

// localCommand completes a command that talks to no server.
func localCommand(cmd *cli.Command) *cli.Command {
	cmd.HideHelpCommand = true
	cmd.OnUsageError = onUsageError
	cmd.BashComplete = completeCommand(cmd)
	return cmd
}

// siteFlags are the flags that say which deployment is meant.
func siteFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "the configuration `FILE` of the deployment", EnvVars: []string{configVariable}, TakesFile: true, Category: "Deployment"},
		&cli.StringFlag{Name: "dir", Usage: "the `DIR` of a rig that strongroom dev made", TakesFile: true, Category: "Deployment"},
	}
}

const configVariable = "STRONGROOM_CONFIG"

// A place is where the parts of a deployment are. Nothing of it is open.
type place struct {
	store    string // URL
	auditDir string
	region   string
	token    func(context.Context) (pkcs11.Config, error)

	attestation func(context.Context) (attest.Options, error)
}

// namedPlace returns the configuration or the rig's directory, one of them, that the flags of c name.
func namedPlace(c *cli.Context) (config, dir string, err error) {
	config, dir = c.String("config"), c.String("dir")
	switch {
	case config == "" && dir == "":
		return "", "", hint(misuse("which deployment? --config FILE or --dir DIR is required"),
			"--config names the file that serve is given, and so does "+configVariable, "--dir is for a rig of strongroom dev")
	case config != "" && dir != "" && config != os.Getenv(configVariable): // what is said now counts more than what was set once
		return "", "", misuse("--config and --dir name two deployments")
	case dir != "":
		return "", dir, nil
	}
	return config, "", nil
}

// findPlace returns the place that the flags of c name.
func findPlace(c *cli.Context) (*place, error) {
	config, dir, err := namedPlace(c)
	if err != nil {
		return nil, err
	}
	if dir != "" {
		return findRig(dir)
	}
	loaded, err := loadConfig(c.Context, config)
	if err != nil {
		return nil, err
	}
	return &place{
		store: loaded.Store, auditDir: loaded.Audit.Dir, region: loaded.Region,
		token:       func(ctx context.Context) (pkcs11.Config, error) { return tokenConfig(ctx, loaded.HSM), nil },
		attestation: loaded.Attestation.options,
	}, nil
}

// findRig returns the place of a rig of dev. It makes nothing.
func findRig(dir string) (*place, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	d := &devRig{dir: dir}
	for _, path := range []string{d.storeFile(), d.tokenDir()} {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, hint(misuse("there is no rig in %s", dir), "strongroom dev --dir "+shellQuote(dir)+" makes one")
		} else if err != nil {
			return nil, err
		}
	}
	return &place{
		store: d.storeURL(), auditDir: d.auditDir(), region: devRegion,
		token:       func(ctx context.Context) (pkcs11.Config, error) { return softhsm.New(ctx, d.tokenDir()) },
		attestation: d.attestation,
	}, nil
}

// A site is a deployment that an administrator works on, perhaps beside its server. Close it with close.
type site struct {
	*place
	log   *slog.Logger
	db    *store.DB
	admin *kms.Admin
	held  token // nil until device is asked for
}

// openSite opens the deployment that c names: its store, and not its token.
func openSite(c *cli.Context) (*site, error) {
	p, err := findPlace(c)
	if err != nil {
		return nil, err
	}
	s := &site{place: p, log: newLogger(c.App.ErrWriter, "warn")}
	if s.db, err = openStore(c.Context, p.store); err != nil {
		return nil, err
	}
	if s.admin, err = kms.NewAdmin(c.Context, s.db, operator()); err != nil {
		s.close()
		return nil, noDeployment(err)
	}
	return s, nil
}

// device opens the token, as serve does, for what only it can do.
func (s *site) device(ctx context.Context) (token, error) {
	hardenProcess(s.log)
	config, err := s.token(ctx)
	if err != nil {
		return nil, err
	}
	s.held, err = openToken(ctx, s.log, config, s.db)
	return s.held, err
}

func (s *site) close() {
	if s.held != nil {
		if err := s.held.Close(); err != nil {
			s.log.Error("could not close the token", "err", err)
		}
	}
	if err := s.db.Close(); err != nil {
		s.log.Error("could not close the store", "err", err)
	}
}

// operator returns the name of the person at this host, for the audit record.
func operator() string {
	name := "uid " + strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if by := os.Getenv("SUDO_USER"); by != "" {
		name += " (sudo by " + by + ")"
	}
	return name
}

func accountFlag() cli.Flag {
	return &cli.StringFlag{Name: "account", Usage: "the account, 12 `DIGITS` (default: the only one there is)"}
}

// account returns the account that c means.
func (s *site) account(c *cli.Context) (string, error) {
	if id := c.String("account"); id != "" {
		if !kms.IsAccount(id) {
			return "", misuse("--account %s: an account is 12 digits", id)
		}
		return id, nil
	}
	all, err := s.admin.Accounts(c.Context)
	if err != nil {
		return "", err
	}
	if len(all) != 1 {
		return "", hint(misuse("which account? --account is required, because there are %d", len(all)), "strongroom account list")
	}
	return all[0].ID, nil
}

// accounts returns the account that c names, or all if it names none.
func (s *site) accounts(c *cli.Context) ([]string, error) {
	if c.String("account") != "" {
		id, err := s.account(c)
		return []string{id}, err
	}
	all, err := s.admin.Accounts(c.Context)
	var ids []string
	for _, a := range all {
		ids = append(ids, a.ID)
	}
	return ids, err
}

// principal returns the principal that name means: an ARN, or what stands at the end of one, as in user/alice.
func (s *site) principal(c *cli.Context, name string) (kms.PrincipalARN, error) {
	var none kms.PrincipalARN
	if !strings.HasPrefix(name, "arn:") {
		account, err := s.account(c)
		if err != nil {
			return none, err
		}
		service := "iam"
		if strings.HasPrefix(name, "assumed-role/") {
			service = "sts"
		}
		arn, err := kms.ParsePrincipalARN("arn:" + s.admin.Partition() + ":" + service + "::" + account + ":" + name)
		if err != nil {
			return none, misuse("%q is neither an ARN nor root, user/NAME, role/NAME or assumed-role/NAME/SESSION", name)
		}
		return arn, nil
	}
	arn, err := kms.ParsePrincipalARN(name)
	switch {
	case err != nil:
		return none, &misuseError{err}
	case arn.Partition != s.admin.Partition():
		return none, misuse("%s: this deployment's partition is %q", name, s.admin.Partition())
	case c.String("account") != "" && c.String("account") != arn.Account:
		return none, misuse("%s is not in account %s", name, c.String("account"))
	}
	return arn, nil
}

// named returns the user or the role that is called name, or whose ARN it is.
func (s *site) named(c *cli.Context, kind kms.PrincipalKind, name string) (kms.PrincipalARN, error) {
	if strings.HasPrefix(name, "arn:") {
		arn, err := s.principal(c, name)
		if err == nil && (arn.Kind != kind || arn.Session != "") {
			err = misuse("%s is not a %s", name, kind)
		}
		return arn, err
	}
	account, err := s.account(c)
	if err != nil {
		return kms.PrincipalARN{}, err
	}
	arn, err := kms.ParsePrincipalARN(s.arn(account, kind, name).String())
	if err != nil {
		return arn, misuse("%q cannot be the name of a %s: it must have 1 to 64 characters of letters, digits and _+=,.@-", name, kind)
	}
	return arn, nil
}

// arn returns the ARN of a principal of the deployment.
func (s *site) arn(account string, kind kms.PrincipalKind, name string) kms.PrincipalARN {
	return kms.PrincipalARN{Partition: s.admin.Partition(), Account: account, Kind: kind, Name: name}
}

func userFlag() cli.Flag {
	return &cli.StringFlag{Name: "user", Usage: "the user called `NAME`, or of that ARN"}
}
func roleFlag() cli.Flag {
	return &cli.StringFlag{Name: "role", Usage: "the role called `NAME`, or of that ARN"}
}
func rootFlag() cli.Flag {
	return &cli.BoolFlag{Name: "root", Usage: "the account's root", DisableDefaultText: true}
}

// owner returns the principal that --user, --role or --root names, ok only if one of them does.
func (s *site) owner(c *cli.Context) (arn kms.PrincipalARN, ok bool, err error) {
	given := 0
	for _, flag := range []string{"user", "role", "root"} {
		if c.IsSet(flag) && c.Value(flag) != false {
			given++
		}
	}
	switch {
	case given > 1:
		return arn, false, misuse("more than one principal is named")
	case c.String("user") != "":
		arn, err = s.named(c, kms.User, c.String("user"))
	case c.String("role") != "":
		arn, err = s.named(c, kms.Role, c.String("role"))
	case c.Bool("root"):
		arn, err = s.principal(c, "root")
	default:
		return arn, false, nil
	}
	return arn, err == nil, err
}

// needOwner is owner for commands that cannot do without.
func (s *site) needOwner(c *cli.Context) (kms.PrincipalARN, error) {
	arn, ok, err := s.owner(c)
	if err == nil && !ok {
		var names []string
		for _, f := range c.Command.Flags {
			if name := f.Names()[0]; slices.Contains([]string{"user", "role", "root"}, name) {
				names = append(names, "--"+name)
			}
		}
		err = hint(misuse("whose? %s is missing", strings.Join(names, " or ")), c.Command.HelpName+" --help")
	}
	return arn, err
}

// exports writes what a shell is to read, one "export NAME=value" a line. No value needs quotes.
func exports(variables [][2]string) []byte {
	var b strings.Builder
	for _, v := range variables {
		fmt.Fprintf(&b, "export %s=%s\n", v[0], v[1])
	}
	return []byte(b.String())
}
