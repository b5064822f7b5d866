package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"strongroom/hsm/pkcs11"
	"strongroom/kms"
	"strongroom/kms/audit"
	"strongroom/softhsm"
	"strongroom/store"
)

func doctorCommand() *cli.Command {
	return localCommand(&cli.Command{
		Name:  "doctor",
		Usage: "examine a deployment: what is wrong with it, why it matters, and what helps",
		Description: `Looks at the configuration, the files, the store, the server, the token, at whether store and token agree about every key, at the
audit log and at the clock. The server may run or not. The token is opened, so this wants the PIN, and tries it once. Clients' keys
are used for nothing but to open their check values. One part that fails does not keep the others from being looked at.

An "error" is something that is lost or refused, or will be; a "warning" may come to that; a "note" is not wrong. What a crash
leaves, and the next start puts right, is a note. What is seen while a server runs counts only if it is still so some seconds later.

--fix does what loses nothing: it takes rights on files from others, and removes sockets and temporary files that were left
behind. It never destroys an object in the token, and never changes a row of the store.

Example:  strongroom doctor --config /etc/strongroom/strongroom.toml
          strongroom doctor --dir ./rig --json

With --json, stdout is one JSON object. Members may be added later; none is renamed. --config or --dir says which deployment.

Exit codes: 0 nothing is wrong, 1 something is, 2 used wrongly and nothing was looked at, 3 the token refused the PIN.`,
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "fix", Usage: "put right what can be put right without losing anything", DisableDefaultText: true},
			jsonFlag(),
			cli.HelpFlag,
		}, siteFlags()...),
		Action: examine,
	})
}

// How long doctor waits. A step that takes longer hangs, and the others go on without it. Variables are so for the sake of tests.
var (
	openLimit   = time.Minute      // opening a token with many objects
	callLimit   = 30 * time.Second // one call of the token
	surveyLimit = 5 * time.Minute  // one look at all its objects
)

const (
	filesLimit  = 30 * time.Second
	serverLimit = 20 * time.Second
	storeLimit  = 10 * time.Minute // reading every page
	keysLimit   = 2 * time.Hour    // all proofs together
	auditLimit  = 2 * time.Hour    // reading the whole log
	fixLimit    = 30 * time.Second
)

// pauses are those between the looks at a deployment whose server runs, and at one that nobody seems to serve.
var (
	servedPauses = []time.Duration{time.Second, 3 * time.Second, 5 * time.Second}
	quietPauses  = []time.Duration{500 * time.Millisecond}
)

func examine(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	d, err := findPatient(c)
	if err != nil {
		return err
	}
	hardenProcess(newLogger(c.App.ErrWriter, "error"))
	defer d.close()

	d.part("configuration", filesLimit, d.examineConfig)
	d.part("files", filesLimit, d.examineFiles)
	d.part("store", storeLimit, d.examineStore)
	d.part("server", serverLimit, d.examineServer)
	d.readConfiguredPIN(c.Context)
	d.part("token", openLimit+4*callLimit, d.examineToken)
	d.part("keys", keysLimit, d.examineKeys)
	d.part("audit log", auditLimit, d.examineAudit)
	d.part("clock", filesLimit, d.examineClock)
	if c.Context.Err() != nil {
		return errors.New("interrupted")
	}
	return d.finish()
}

// A doctor examines one deployment. Its fields are set by the parts that find them out, and read by those after them.
type doctor struct {
	c     *cli.Context
	parts []*part
	fix   bool

	configPath string  // or
	rig        *devRig // one of them
	config     *Config // nil for a rig
	faults     []string

	store, storePath, auditDir, tokenDir string
	audit                                AuditConfig

	pin        []byte // read before anything is timed: a person may have to type it
	pinError   error
	refusedPIN error

	db         *store.DB
	deployment *kms.Deployment
	anchor     *kms.AuditAnchor
	served     bool // by a process that has claimed the store
	server     int  // which, 0 if not known

	token *pkcs11.Token // nil if it could not be opened
	ours  bool          // it is the deployment's
	key   []byte        // that verifies the audit log, as the token's; nil if not known

	lastRecord time.Time // of the audit log
}

// findPatient returns the doctor for the deployment that the flags name. Unlike findPlace it takes one that is not whole.
func findPatient(c *cli.Context) (*doctor, error) {
	config, dir, err := namedPlace(c)
	if err != nil {
		return nil, err
	}
	d := &doctor{c: c, fix: c.Bool("fix")}
	if dir != "" {
		if dir, err = filepath.Abs(dir); err != nil {
			return nil, err
		}
		r := &devRig{dir: dir}
		_, err1 := os.Lstat(r.storeFile())
		_, err2 := os.Lstat(r.tokenDir())
		if errors.Is(err1, fs.ErrNotExist) && errors.Is(err2, fs.ErrNotExist) {
			return nil, hint(misuse("there is no rig in %s", dir), "strongroom dev --dir "+shellQuote(dir)+" makes one")
		}
		d.rig, d.store, d.auditDir, d.tokenDir, d.audit = r, r.storeURL(), r.auditDir(), filepath.Join(r.tokenDir(), "tokens"), defaultAudit
	} else {
		if d.config, d.faults, err = readConfig(c.Context, config); err != nil {
			return nil, err
		}
		d.configPath, d.store, d.auditDir, d.tokenDir, d.audit = config, d.config.Store, d.config.Audit.Dir, d.config.HSM.SyncDir, d.config.Audit
	}
	d.storePath = strings.TrimPrefix(d.store, "sqlite:")
	if real, err := filepath.EvalSymlinks(d.storePath); err == nil {
		d.storePath = real // SQLite's other files are beside this one
	}
	return d, nil
}

// flags are those of other commands that name the same deployment, for remedies.
func (d *doctor) flags() string {
	if d.rig != nil {
		return "--dir " + shellQuote(d.rig.dir)
	}
	return "--config " + shellQuote(d.configPath)
}

// tokenConfig says how the token is opened. For a rig it may put back the token's own file, as each command that opens the rig's token does.
func (d *doctor) tokenConfig(ctx context.Context) (pkcs11.Config, error) {
	if d.config != nil {
		c := tokenConfig(ctx, d.config.HSM)
		c.PIN = func() ([]byte, error) { return slices.Clone(d.pin), nil } // which was asked for before, and is wiped
		return c, nil
	}
	if _, err := os.Stat(d.tokenDir); err != nil {
		return pkcs11.Config{}, err // where there is none, softhsm.New would make one
	}
	return softhsm.New(ctx, d.rig.tokenDir())
}

func (d *doctor) close() {
	clear(d.pin)
	if d.token != nil {
		d.token.Close() // one that hangs has been told of
	}
	if d.db != nil {
		d.db.Close()
	}
}

// errHangs is that something did not end in the time it was given.
var errHangs = errors.New("it hangs")

// bounded returns what f returns, or errHangs if f does not heed the end of its time. Then f goes on by itself until the program ends, and nobody may use
// what it uses.
func bounded[T any](ctx context.Context, limit time.Duration, f func(context.Context) (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	within, cancel := context.WithTimeout(ctx, limit)
	done := make(chan result, 1)
	go func() {
		defer cancel()
		v, err := f(within)
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-within.Done():
	}
	// Who heeds the context gets the time to say so.
	select {
	case r := <-done:
		return r.v, r.err
	case <-time.After(2 * time.Second):
	}
	var none T
	if ctx.Err() != nil {
		return none, ctx.Err()
	}
	return none, fmt.Errorf("%w: no answer for %v", errHangs, limit)
}

// part has one part examined by f, and its findings told. f returns a function that sets what it has found out for later parts; if f hangs, that is never called.
func (d *doctor) part(name string, limit time.Duration, f func(context.Context, *part) (publish func())) {
	ctx := d.c.Context
	if ctx.Err() != nil {
		return
	}
	type result struct {
		*part
		publish func()
	}
	r, err := bounded(ctx, limit, func(ctx context.Context) (result, error) {
		p := newPart(name)
		publish := f(ctx, p)
		return result{p, publish}, nil
	})
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		r.part = newPart(name)
		r.fail("hangs", "", fmt.Sprintf("looking at this part did not end within %v", limit), "whoever needs the same hangs too",
			"look for a file system or a device that does not answer")
	}
	if r.publish != nil {
		r.publish()
	}
	if d.fix {
		r.part.treat(ctx)
	}
	d.parts = append(d.parts, r.part)
	if !d.c.Bool("json") {
		printBytes(d.c, []byte(r.part.text()))
	}
}

// headOf is what a store knows of the log, as audit.Verify wants it.
func headOf(a *kms.AuditAnchor) *audit.Head {
	if a == nil {
		return nil
	}
	return &audit.Head{Sequence: a.Sequence, Hash: a.Hash}
}
