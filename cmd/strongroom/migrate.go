package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"strongroom/store"
)

func migrateCommand() *cli.Command {
	return &cli.Command{
		Name:         "migrate",
		OnUsageError: onUsageError,
		Usage:        "bring the store to the schema of this program",
		Description: `Needed after an upgrade when serve says so. The server must be stopped; run strongroom backup before the upgrade, because an older
program does not open the new schema. May be interrupted and repeated; does nothing where nothing is to be done. A rig of strongroom
dev needs it only if a command asks for it before dev has started again.

Example:  strongroom migrate --config /etc/strongroom/strongroom.toml`,
		Flags: siteFlags(),
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			p, err := findPlace(c)
			if err != nil {
				return err
			}
			if err := store.Migrate(c.Context, p.store); err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.App.Writer, "the store has the schema of this program")
			return err
		},
	}
}
