package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"strongroom/hsm"
	"strongroom/hsm/pkcs11"
	"strongroom/kms"
	"strongroom/kms/audit"
	"strongroom/store"
)

func restoreCommand() *cli.Command {
	return localCommand(&cli.Command{
		Name:  "restore",
		Usage: "make the store from a backup, checked against the token (on the server's host)",
		Description: `The server must be stopped. The backup is checked first: its sums, its pages, its deployment, and, with the token, which is opened, every
key in it. With --check that is all, and the server may run.

What was changed after the backup is lost: states of keys, policies, grants, aliases, users, access keys that were disabled. What was
taken away in the store that is there, and comes back, is listed, and --force is needed if there is any, or if that store cannot be
read. Keys and the token are not lost: nothing is made or destroyed there. Two lists say how backup and token differ, and if one is not
empty, --force is needed:
  in the backup, not in the token   keys that were destroyed since, or a token that is not complete: they cannot be used
  in the token, not in the backup   keys that were made since: they stay in the token, unknown to the server, until a later backup is
                                    restored; or --adopt gives them to an account, disabled, under the default policy, unless the token
                                    serves another deployment too, whose keys they may be
Key material of rotations since is put back. A key that waits for its deletion is not destroyed for seven days, because somebody may have
cancelled that since. Keys are taken to have encrypted 1000 times a second since the backup.

A store that is there is replaced only with --replace, and kept beside the new one under a name with the time.

Example:  strongroom restore --config /etc/strongroom/strongroom.toml --from strongroom-20260701T120000Z.tar --replace

Exit codes: 0 done, 1 failed, 2 used wrongly, 3 the token refused the PIN. What fails before the exchange leaves the store as it was;
what fails in it or after it says where each store is.`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "restore the backup in `FILE`", TakesFile: true},
			&cli.BoolFlag{Name: "check", Usage: "only check the backup; change nothing", DisableDefaultText: true},
			&cli.BoolFlag{Name: "replace", Usage: "put it in the place of the store that is there, which is kept under another name", DisableDefaultText: true},
			&cli.BoolFlag{Name: "force", Usage: "also if backup and token differ, or the backup brings back what was taken away since", DisableDefaultText: true},
			&cli.BoolFlag{Name: "other-deployment", Usage: "also if the store that is there is of another deployment", DisableDefaultText: true},
			&cli.StringFlag{Name: "adopt", Usage: "give the keys that only the token has to the account of 12 `DIGITS`, disabled"},
			&cli.BoolFlag{Name: "keep-deletion-dates", Usage: "destroy keys when the backup says, even if that is past", DisableDefaultText: true},
			jsonFlag(),
			cli.HelpFlag,
		}, siteFlags()...),
		Action: restoreBackup,
	})
}

// A restoration is one run of restore.
type restoration struct {
	c     *cli.Context
	place *place
	from  string
	now   time.Time

	manifest *manifest
	sum      string
	recorded string // where the audit log has this backup, empty if it does not
	token    *pkcs11.Token
	found    *kms.Comparison
	done     *kms.Restored

	// The store that is there, if any: what the backup brings back that was taken away in it, and why that is not known, which is not fatal; or
	// its deployment, if that is another.
	reversals []kms.Reversal
	unread    error
	other     string

	kept      string // the name of the store that was replaced
	installed bool   // the copy is the store now
}

func restoreBackup(c *cli.Context) (err error) {
	if err := noArguments(c); err != nil {
		return err
	}
	if c.String("from") == "" {
		return misuse("which backup? --from FILE is required")
	}
	if a := c.String("adopt"); a != "" && !kms.IsAccount(a) {
		return misuse("--adopt %s: an account is 12 digits", a)
	}
	p, err := findPlace(c)
	if err != nil {
		return err
	}
	r := &restoration{c: c, place: p, from: c.String("from"), now: time.Now()}
	if c.Bool("check") {
		err = r.check()
	} else {
		err = r.restore()
	}
	if r.token != nil {
		err = alsoFailed(err, r.token.Close())
	}
	if err == nil {
		err = r.report()
	}
	if err != nil && r.installed {
		return fmt.Errorf("the backup is restored, and the store that was there is %s, but: %w", cmp.Or(r.kept, "none"), err)
	}
	return err
}

// check does all that restore does before it changes anything, in a directory of its own.
func (r *restoration) check() (err error) {
	work, err := os.MkdirTemp("", "strongroom-restore-")
	if err != nil {
		return err
	}
	defer func() { err = alsoFailed(err, os.RemoveAll(work)) }()
	path := filepath.Join(work, copyName)
	db, err := r.open(path, func(from io.Reader) error {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, from)
		return errors.Join(err, f.Close())
	})
	if err != nil {
		return err
	}
	return db.Close()
}

func (r *restoration) restore() (err error) {
	ctx := r.c.Context
	to, err := store.Replace(ctx, r.place.store)
	if err != nil {
		return hint(err, "the server must not run while its store is restored: stop it first")
	}
	defer func() { err = alsoFailed(err, to.Close()) }()
	if there, err := to.Exists(); err != nil {
		return err
	} else if there && !r.c.Bool("replace") {
		return hint(fmt.Errorf("there is a store at %s; nothing was changed", r.place.store), "--replace keeps it under another name and puts the backup in its place")
	}
	db, err := r.open(to.Path(), to.Write)
	if err != nil {
		return err
	}
	err = r.prepare(db)
	if err = alsoFailed(err, db.Close()); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	r.kept, err = to.Install(ctx, time.Now())
	r.installed = err == nil
	return err
}

// open writes the copy in the backup to path, by means of write, opens it, and compares it with the token.
func (r *restoration) open(path string, write func(io.Reader) error) (*store.DB, error) {
	ctx := r.c.Context
	if err := r.read(write); err != nil {
		return nil, fmt.Errorf("the backup %s: %w", r.from, err)
	}
	copied, err := store.Inspect(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("the store in the backup %s: %w", r.from, err)
	}
	if err := r.manifest.agrees(copied); err != nil {
		return nil, fmt.Errorf("the backup %s: %w", r.from, err)
	}
	if r.place.region != r.manifest.Region {
		return nil, hint(fmt.Errorf("the configuration says region %q, and the backup is of a deployment of %q", r.place.region, r.manifest.Region),
			fmt.Sprintf("region = %q", r.manifest.Region))
	}
	r.recorded = r.findRecord()
	db, err := store.OpenCopy(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("the store in the backup %s: %w", r.from, err)
	}
	err = r.compare(db)
	if err == nil {
		err = r.compareStores(ctx, db)
	}
	if err != nil {
		return nil, alsoFailed(err, db.Close())
	}
	return db, nil
}

func (r *restoration) read(write func(io.Reader) error) error {
	f, err := os.Open(r.from)
	if err != nil {
		return withoutPath(err)
	}
	defer f.Close()
	m, sum, err := readBackup(f, func(_ *manifest, copied io.Reader) error { return write(&interruptible{r.c.Context, copied}) })
	r.manifest, r.sum = m, hex.EncodeToString(sum[:])
	return err
}

// An interruptible reader ends with a context.
type interruptible struct {
	ctx  context.Context
	from io.Reader
}

func (r *interruptible) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.from.Read(p)
}

func (r *restoration) tokenConfig(ctx context.Context) (pkcs11.Config, error) {
	config, err := r.place.token(ctx)
	config.SessionCopies = false // what the token keeps is to be proved, and not copies
	return config, err
}

// compare opens the token and compares it with the copy.
func (r *restoration) compare(db *store.DB) error {
	ctx := r.c.Context
	log := newLogger(r.c.App.ErrWriter, "warn")
	hardenProcess(log)
	config, err := r.tokenConfig(ctx)
	if err != nil {
		return err
	}
	if r.token, err = pkcs11.Open(ctx, config); err != nil {
		return fmt.Errorf("open the token: %w", err)
	}
	r.found, err = kms.Compare(ctx, r.token, db)
	if errors.Is(err, kms.ErrOtherToken) {
		return hint(fmt.Errorf("%w; nothing was changed", err), "check hsm.token_label or hsm.token_serial in the configuration",
			"the backup is of a deployment that was made with token "+r.manifest.TokenSerial)
	}
	return err
}

// prepare makes the copy ready to be the store, if the operator wants that as things are.
func (r *restoration) prepare(db *store.DB) error {
	ctx := r.c.Context
	if r.c.String("adopt") != "" && len(r.found.Foreign) > 0 {
		r.explain()
		return hint(fmt.Errorf("%w, so that it cannot be told whose the keys are that only the token has, and none is adopted; nothing was changed", kms.ErrOtherDeployment),
			"without --adopt they stay in the token as they are")
	}
	if r.other != "" && !r.c.Bool("other-deployment") {
		return hint(fmt.Errorf("the store that is there is of deployment %s, and the backup is of %s; nothing was changed", r.other, r.manifest.Deployment),
			"is it the right --from, and the right --config? --other-deployment restores it all the same")
	}
	if !r.c.Bool("force") {
		if err := r.refuse(); err != nil {
			return err
		}
	}
	var err error
	r.done, err = kms.Restore(ctx, kms.RestoreOptions{
		Device: r.token, Store: db, Found: r.found, Operator: operator(), Taken: r.manifest.Taken, Now: r.now,
		AdoptInto: r.c.String("adopt"), KeepDeletions: r.c.Bool("keep-deletion-dates"), SkipFailed: r.c.Bool("force"),
		Source: map[string]any{"file": r.from, "sha256": r.sum, "broughtBack": len(r.reversals)},
	})
	if errors.Is(err, hsm.ErrNoKey) {
		err = hint(fmt.Errorf("%w; nothing was changed", err), "--force leaves that object in the token as it is, without the store")
	}
	return err
}

// compareStores compares the copy with the store that is there, where something may have been taken from somebody since.
func (r *restoration) compareStores(ctx context.Context, db *store.DB) error {
	old, err := store.Open(ctx, r.place.store)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = old.View(ctx, func(tx kms.Tx) error {
			d, err := tx.Deployment()
			if err == nil && d.ID != r.manifest.Deployment {
				r.other = d.ID
			}
			return err
		})
		if err == nil && r.other == "" {
			r.reversals, err = kms.Reversals(ctx, old, db, r.now)
		}
		err = alsoFailed(err, old.Close())
	}
	if err != nil && ctx.Err() == nil {
		r.unread, err = err, nil
	}
	return err
}

// refuse returns an error if there is something that the operator has to know first.
func (r *restoration) refuse() error {
	differ := len(r.found.Missing) > 0 || len(r.found.Unknown) > 0 && r.c.String("adopt") == ""
	if !differ && len(r.reversals) == 0 && r.unread == nil {
		return nil
	}
	r.explain()
	if !differ {
		what := "the backup brings back what was taken away since"
		if r.unread != nil {
			what = "what the backup brings back that was taken away since cannot be told"
		}
		return hint(errors.New(what+"; nothing was changed"), "--force restores it all the same")
	}
	remedy := "--force restores this one all the same"
	if len(r.found.Foreign) == 0 {
		remedy += ", and --adopt ACCOUNT takes the keys that only the token has"
	}
	return hint(errors.New("the backup and the token differ; nothing was changed"), "a later backup, if there is one, has what this one lacks", remedy)
}

// findRecord returns the place in the audit log where this backup is recorded. Files that were closed before it was taken are not read.
func (r *restoration) findRecord() string {
	files, err := audit.Files(r.place.auditDir)
	if err != nil {
		return ""
	}
	var later []string
	for _, f := range files {
		if info, err := os.Stat(f); err == nil && !info.ModTime().Before(r.manifest.Taken) {
			later = append(later, f)
		}
	}
	if len(later) == 0 {
		return ""
	}
	for e, err := range audit.Find(later, audit.Filter{Operation: "CreateBackup"}) {
		if err != nil || e.EventType != audit.AdminEvent {
			continue
		}
		var v struct{ RequestParameters struct{ SHA256 string } }
		if json.Unmarshal(e.Line, &v) == nil && v.RequestParameters.SHA256 == r.sum {
			return "line " + strconv.FormatUint(e.Sequence, 10)
		}
	}
	return ""
}

// alsoFailed returns what failed, and what failed after it. Unlike with errors.Join, an error alone keeps its hints.
func alsoFailed(err, after error) error {
	switch {
	case err == nil:
		return after
	case after == nil:
		return err
	}
	return errors.Join(err, after)
}

// mostListed is how many of a kind are listed for people; --json has them all.
const mostListed = 20

// reversalKinds are the kinds in the order in which people are told of them.
var reversalKinds = []struct {
	kind kms.ReversalKind
	head string
}{
	{kms.AccessKeyBack, "Access keys and sessions disabled or deleted"},
	{kms.PrincipalBack, "Users and roles deleted"},
	{kms.KeyBack, "Keys disabled, or scheduled for deletion,"},
	{kms.GrantBack, "Grants revoked or retired"},
	{kms.KeyPolicyOld, "Key policies changed"},
	{kms.IdentityPolicyOld, "Identity policies changed"},
	{kms.KeyTagsOld, "Tags of keys changed"},
	{kms.PrincipalTagsOld, "Tags of users and roles changed"},
}

// explain tells how the backup, the token and the store that is there differ.
func (r *restoration) explain() {
	list := func(n int, head string, line func(i int) string) {
		if n == 0 {
			return
		}
		note(r.c, head, n)
		for i := range min(n, mostListed) {
			note(r.c, "  %s", line(i))
		}
		if n > mostListed {
			note(r.c, "  … and %d more; --json lists all", n-mostListed)
		}
	}
	for _, kind := range reversalKinds {
		var some []kms.Reversal
		for _, b := range r.reversals {
			if b.Kind == kind.kind {
				some = append(some, b)
			}
		}
		list(len(some), kind.head+" since the backup, and back as before with it: %d", func(i int) string {
			b := some[i]
			about := "account " + b.Account
			if !b.Key.IsZero() {
				about = "key " + b.Key.String()
			}
			if b.Name != "" {
				about += ", " + printable(b.Name)
			}
			return about + ": " + printable(b.Detail)
		})
	}
	if r.unread != nil {
		note(r.c, "The store that is there cannot be read, so that it is not known what the backup brings back that was taken away since: %v", r.unread)
	}
	f := r.found
	list(len(f.Missing), "Key materials in the backup and not in the token: %d. What was encrypted under them does not open.", func(i int) string {
		m := f.Missing[i]
		return fmt.Sprintf("key %s (%s), material %d: %s", m.Key, m.State, m.N, printable(m.Why))
	})
	list(len(f.Foreign), "System keys of another deployment in the token, or of an init that was interrupted: %d. So keys in the token that are not in the backup may be that deployment's, and are not adopted.", func(i int) string {
		return fmt.Sprintf("%s, %s", f.Foreign[i].ID, printable(f.Foreign[i].Label))
	})
	list(len(f.Unknown), "Keys in the token and not in the backup: %d. Unless they are adopted, who asks for them is told that they do not exist.", func(i int) string {
		return fmt.Sprintf("key %s, materials: %d", f.Unknown[i].Key, len(f.Unknown[i].Materials))
	})
	list(len(f.Newer), "Key materials of rotations since, which restore puts back: %d", func(i int) string {
		return fmt.Sprintf("key %s, material %d", f.Newer[i].Key, f.Newer[i].N)
	})
	list(len(f.Buried), "Objects in the token of keys that the backup says were destroyed, which stay there and are not adopted: %d", func(i int) string {
		return fmt.Sprintf("key %s, object %s, destroyed on %s", f.Buried[i].Key, f.Buried[i].ID, when(f.Buried[i].Destroyed))
	})
	list(len(f.Others), "Other objects in the token, which stay there: %d", func(i int) string {
		return fmt.Sprintf("%s, %s", f.Others[i].ID, printable(f.Others[i].Label))
	})
	if r.done != nil {
		list(len(r.done.Failed), "Objects in the token that are not as a key should be, and were left alone: %d. What was encrypted under them does not open.", func(i int) string {
			m := r.done.Failed[i]
			return fmt.Sprintf("key %s, material %d: %s", m.Key, m.N, printable(m.Why))
		})
	}
	list(len(f.Deleting), "Keys that wait for their deletion: %d", func(i int) string {
		return fmt.Sprintf("key %s, by %s", f.Deleting[i].Key, when(f.Deleting[i].Deletion))
	})
}

// report says what was done and what is next.
func (r *restoration) report() error {
	info := r.token.Info()
	if r.c.Bool("json") {
		return r.printJSON()
	}
	r.explain()
	rows := [][]string{{"Backup", r.from}, {"SHA-256", r.sum}}
	rows = append(rows, r.manifest.rows()...)
	recorded := r.recorded
	if recorded == "" {
		recorded = "no record of this backup was found in the audit log: be sure where it comes from"
	}
	rows = append(rows, []string{"Recorded", recorded}, []string{"Token", fmt.Sprintf("%s, serial %s; materials proved: %d", info.Label, info.Serial, r.found.Proved)})
	if r.done == nil {
		return printTable(r.c, append(rows, []string{"Checked", "nothing was changed"}))
	}
	for _, x := range []struct {
		what string
		n    int
	}{
		{"creations under way, completed", len(r.done.Completed)},
		{"creations under way, undone", len(r.done.Dropped)},
		{"key materials of rotations since, put back", len(r.done.Rotated)},
		{"keys adopted, disabled", len(r.done.Adopted)},
		{"deletions postponed to seven days from now", len(r.done.Postponed)},
	} {
		if x.n > 0 {
			rows = append(rows, []string{"Changed", x.what + ": " + strconv.Itoa(x.n)})
		}
	}
	if r.kept != "" {
		rows = append(rows, []string{"Old store", r.kept})
	}
	if err := printTable(r.c, rows); err != nil {
		return err
	}
	note(r.c, "What was changed after the backup is as it was before: look through policies, grants and access keys that were taken from somebody since,")
	note(r.c, "and keys that wait for their deletion, before requests are answered.")
	flags := "--config " + shellQuote(r.c.String("config"))
	if d := r.c.String("dir"); d != "" {
		note(r.c, "Next:  strongroom dev --dir %s", shellQuote(d))
		return nil
	}
	note(r.c, "Next:  strongroom doctor %s", flags)
	note(r.c, "       strongroom serve %s", flags)
	return nil
}

func (r *restoration) printJSON() error {
	type material struct {
		KeyId    string
		Material int
		Id       string
		State    string `json:",omitempty"`
		Why      string `json:",omitempty"`
	}
	type destroyed struct {
		KeyId string
		Id    string
		On    time.Time
	}
	type reversal struct {
		What    string
		Account string
		KeyId   string `json:",omitempty"`
		Name    string `json:",omitempty"`
		Detail  string
	}
	brought := []reversal{}
	for _, b := range r.reversals {
		v := reversal{string(b.Kind), b.Account, "", b.Name, b.Detail}
		if !b.Key.IsZero() {
			v.KeyId = b.Key.String()
		}
		brought = append(brought, v)
	}
	unread := ""
	if r.unread != nil {
		unread = r.unread.Error()
	}
	materials := func(all []kms.MaterialAt) []material {
		list := []material{}
		for _, m := range all {
			list = append(list, material{m.Key.String(), m.N, m.ID.String(), string(m.State), m.Why})
		}
		return list
	}
	ids := func(all []kms.KeyID) []string {
		list := []string{}
		for _, id := range all {
			list = append(list, id.String())
		}
		return list
	}
	keys := func(all []kms.KeyAt) []string {
		list := []string{}
		for _, k := range all {
			list = append(list, k.Key.String())
		}
		return list
	}
	if r.done == nil {
		r.done = new(kms.Restored)
	}
	buried := []destroyed{}
	for _, b := range r.found.Buried {
		buried = append(buried, destroyed{b.Key.String(), b.ID.String(), b.Destroyed})
	}
	foreign := []string{}
	for _, o := range r.found.Foreign {
		foreign = append(foreign, o.ID.String())
	}
	return printJSON(r.c, struct {
		Backup, SHA256          string
		Manifest                *manifest
		Recorded                bool
		Restored                bool
		OldStore                string `json:",omitempty"`
		OtherDeployment         string `json:",omitempty"`
		BroughtBack             []reversal
		NotCompared             string `json:",omitempty"`
		Proved                  int
		Missing, Newer, Failed  []material
		NotInBackup             []string
		Foreign                 []string
		Destroyed               []destroyed
		WaitingForDeletion      []string
		Completed, Undone       []string
		Rotated, Adopted, Saved []string
	}{
		r.from, r.sum, r.manifest, r.recorded != "", !r.c.Bool("check"), r.kept, r.other, brought, unread, r.found.Proved, materials(r.found.Missing), materials(r.found.Newer), materials(r.done.Failed),
		keys(r.found.Unknown), foreign, buried, keys(r.found.Deleting), ids(r.done.Completed), ids(r.done.Dropped), ids(r.done.Rotated), ids(r.done.Adopted), ids(r.done.Postponed),
	})
}
