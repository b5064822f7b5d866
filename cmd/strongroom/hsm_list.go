package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"strongroom/hsm"
	"strongroom/hsm/pkcs11"
	"strongroom/kms"
)

func hsmListCommand() *cli.Command {
	return localCommand(&cli.Command{
		Name:  "list",
		Usage: "list the tokens of a module, and strongroom's objects on one",
		Description: `Tokens are listed without a login. Where one of them is named, by --token-label, --token-serial or a deployment, its objects that
strongroom has made are listed too, for which the PIN is tried once; --no-login leaves that out. With a deployment it is said to
which key an object belongs; strongroom doctor compares more closely.

Nothing is made or changed.

Example:  strongroom hsm list --module /usr/lib/softhsm/libsofthsm2.so
          strongroom hsm list --config /etc/strongroom/strongroom.toml

With --json, stdout is one JSON object. Members may be added later; none is renamed.

Exit codes: 0 done, 1 failed, 2 used wrongly, 3 the token refused the PIN.`,
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "no-login", Usage: "list tokens alone", DisableDefaultText: true},
			jsonFlag(),
			cli.HelpFlag,
		}, tokenFlags()...),
		Action: listHSM,
	})
}

// objectJSON is an object of a token, with what it is for.
type objectJSON struct {
	pkcs11.Object
	Kind  string // "key", "system", "canary", "check", or "other" for what no strongroom has made like this
	KeyID string `json:",omitempty"` // of Kind "key": as the label says
	Known *bool  `json:",omitempty"` // whether the store has the object as this key's; only with a deployment
}

func listHSM(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	choice, err := chooseToken(c)
	if err != nil {
		return err
	}
	hardenProcess(newLogger(c.App.ErrWriter, "warn"))
	config := choice.config
	if c.Bool("no-login") {
		config.Label, config.Serial = "", ""
	}
	i, err := pkcs11.TakeInventory(c.Context, config)
	if i == nil {
		return err
	}
	objects := describedObjects(i.Objects)
	if err == nil && choice.store != "" && len(objects) > 0 {
		if serr := knownObjects(c.Context, choice.store, objects); serr != nil {
			note(c, "the store does not say which keys these are: %s", printable(serr.Error()))
		}
	}
	loggedIn := err == nil && config.Label+config.Serial != ""
	if c.Bool("json") {
		if err == nil {
			err = printJSON(c, struct {
				Tokens  []pkcs11.TokenState
				Objects []objectJSON `json:",omitempty"`
			}{i.Tokens, objects})
		}
		return err
	}
	if perr := printBytes(c, []byte(inventoryText(i.Tokens, objects, loggedIn))); perr != nil {
		return perr
	}
	return err
}

// describedObjects says of each object what its label means. See kms, which labels them strongroom/KEY/N and strongroom/system/NAME.
func describedObjects(all []pkcs11.Object) []objectJSON {
	described := make([]objectJSON, 0, len(all))
	for _, o := range all {
		d := objectJSON{Object: o, Kind: o.Use}
		if o.Use == "key" {
			parts := strings.Split(o.Label, "/")
			d.Kind = "other"
			if len(parts) == 3 && parts[1] == "system" {
				d.Kind = "system"
			} else if len(parts) == 3 {
				if id, err := kms.ParseKeyID(parts[1]); err == nil {
					d.Kind, d.KeyID = "key", id.String()
				}
			}
		}
		described = append(described, d)
	}
	return described
}

// knownObjects looks objects of keys up in the store.
func knownObjects(ctx context.Context, url string, objects []objectJSON) error {
	db, err := openStore(ctx, url)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(ctx, func(tx kms.Tx) error {
		for i := range objects {
			o := &objects[i]
			if o.Kind != "key" {
				continue
			}
			known := false
			if id, err := hex.DecodeString(o.ID); err == nil && len(id) == len(hsm.ID{}) {
				key, err := tx.KeyOfMaterial(hsm.ID(id))
				if err != nil && !errors.Is(err, kms.ErrNotStored) {
					return err
				}
				known = err == nil && key.String() == o.KeyID
			}
			o.Known = &known
		}
		return nil
	})
}

func inventoryText(tokens []pkcs11.TokenState, objects []objectJSON, loggedIn bool) string {
	if len(tokens) == 0 {
		return "The module shows no initialised token.\n"
	}
	rows := [][]string{{"LABEL", "SERIAL NUMBER", "SLOT", "MODEL", "PIN", "SESSIONS", "LACKS"}}
	for _, t := range tokens {
		sessions := fmt.Sprint(t.Sessions)
		if t.MaxSessions > 0 {
			sessions += fmt.Sprint(" of ", t.MaxSessions)
		}
		lacks := "nothing"
		if len(t.Lacks) > 0 {
			lacks = strings.Join(t.Lacks, ", ")
		}
		rows = append(rows, []string{t.Label, t.Serial, fmt.Sprint(t.Slot), t.Manufacturer + " " + t.Model, t.PIN, sessions, lacks})
	}
	text := table(rows)
	if !loggedIn {
		return text
	}
	if len(objects) == 0 {
		return text + "\nstrongroom has made nothing on the token.\n"
	}
	rows = [][]string{{"LABEL", "CKA_ID", "OBJECTS", "WHAT IT IS"}}
	for n := 0; n < len(objects); {
		o := objects[n]
		var classes []string
		for ; n < len(objects) && objects[n].Label == o.Label && objects[n].ID == o.ID; n++ {
			classes = append(classes, strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(objects[n].Class, "CKO_"), "_", " ")))
		}
		rows = append(rows, []string{o.Label, o.ID, joinCounted(classes), o.meaning()})
	}
	return text + "\n" + table(rows) + "\n" + count(len(objects), "object") + "\n"
}

// joinCounted lists words, each once, with how often it is there if that is not once.
func joinCounted(words []string) string {
	var text []string
	for _, w := range slices.Compact(slices.Sorted(slices.Values(words))) {
		n := 0
		for _, other := range words {
			if other == w {
				n++
			}
		}
		if n > 1 {
			w = fmt.Sprint(n, " × ", w)
		}
		text = append(text, w)
	}
	return strings.Join(text, ", ")
}

func (o *objectJSON) meaning() string {
	switch o.Kind {
	case "canary":
		return "the canary, by which the token is seen to work"
	case "check":
		return "left by a check that was killed; the next one destroys it"
	case "system":
		return "a key of the deployment's own"
	case "key":
		switch {
		case o.Known == nil:
			return "key " + o.KeyID
		case *o.Known:
			return "key " + o.KeyID + ", in the store"
		}
		return "key " + o.KeyID + ", NOT IN THE STORE"
	}
	return "not known"
}
