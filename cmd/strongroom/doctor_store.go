package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"strongroom/kms"
	"strongroom/store"
)

const restore = "stop the server, keep a copy of what is there, and restore a backup"

// examineStore opens the store and has it read itself.
func (d *doctor) examineStore(ctx context.Context, p *part) func() {
	served, pid, err := d.whoServes()
	if err != nil {
		p.warn("claim", d.storePath, fmt.Sprintf("who serves the store cannot be found out: %v", err), "a second server would not be noticed", "run this as root, or as the user that the server runs as")
	}
	db, err := store.Open(ctx, d.store)
	if err != nil {
		d.explainStore(ctx, p, err)
		return func() { d.served, d.server = served, pid }
	}
	publish := func() { d.db, d.served, d.server = db, served, pid }

	problems, err := db.Verify(ctx)
	switch {
	case ctx.Err() != nil && d.c.Context.Err() == nil:
		p.skip("whether the file is whole: it is too large to be read in %v", storeLimit)
	case err != nil:
		p.fail("store-verify", d.storePath, fmt.Sprintf("cannot be read through: %v", err), "what cannot be read is refused", restore)
	}
	for _, problem := range problems {
		p.fail("store-damaged", d.storePath, problem.String(), "what is damaged is lost: keys of which the rows cannot be read cannot be used", restore)
	}
	if err == nil && len(problems) == 0 {
		p.ok("%s: has the schema of this program; pages, indexes and references are whole", d.storePath)
	}

	var deployment *kms.Deployment
	var anchor *kms.AuditAnchor
	err = db.View(ctx, func(tx kms.Tx) (err error) {
		if deployment, err = tx.Deployment(); err != nil {
			return err
		}
		if anchor, err = tx.AuditAnchor(); errors.Is(err, kms.ErrNotStored) {
			return nil
		}
		return err
	})
	switch {
	case errors.Is(err, kms.ErrNotStored):
		p.fail("no-deployment", d.storePath, "the store holds no deployment", "a first start or an init that was interrupted leaves that; nothing is lost", d.makes())
		return publish
	case err != nil:
		p.fail("store-read", d.storePath, err.Error(), "serve does not start", restore)
		return publish
	}
	d.compareDeployment(p, deployment)
	if served {
		d.examineEvents(ctx, p, db)
	} else {
		d.countEvents(ctx, p, db)
	}
	return func() { publish(); d.deployment, d.anchor = deployment, anchor }
}

// makes is the command that makes what is missing of a deployment.
func (d *doctor) makes() string {
	if d.rig != nil {
		return "strongroom dev " + d.flags()
	}
	return "strongroom init " + d.flags()
}

// explainStore says what it means that the store does not open.
func (d *doctor) explainStore(ctx context.Context, p *part, err error) {
	have, known, schemaErr := store.Schema(ctx, d.store)
	const why = "serve does not start"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.fail("no-store", d.storePath, "there is no store", why+"; without the store no key of the token can be used",
			"if there never was one: "+d.makes()+". If it was lost: restore a backup")
	case schemaErr == nil && have < known:
		p.fail("schema-old", d.storePath, fmt.Sprintf("has schema %d, and this program needs %d", have, known), why, "strongroom migrate "+d.flags())
	case schemaErr != nil && have > known:
		p.fail("schema-new", d.storePath, fmt.Sprintf("has schema %d, and this program knows %d", have, known), why, "use the newer strongroom that made it")
	default:
		p.fail("store-open", d.storePath, err.Error(), why, "what the message says; if the file is damaged: "+restore)
	}
}

// compareDeployment sees that the configuration is of this deployment.
func (d *doctor) compareDeployment(p *part, deployment *kms.Deployment) {
	if d.config == nil {
		p.ok("deployment %s, made on %s", deployment.ID, when(deployment.Created))
		return
	}
	n := len(p.Findings)
	for _, fixed := range []struct{ key, says, is string }{
		{"region", d.config.Region, deployment.Region}, {"partition", d.config.Partition, deployment.Partition},
	} {
		if fixed.says != fixed.is {
			p.fail("deployment", d.configPath+": "+fixed.key, fmt.Sprintf("says %q, and the deployment was made with %q", fixed.says, fixed.is),
				"serve does not start", fmt.Sprintf("%s = %q", fixed.key, fixed.is))
		}
	}
	if len(p.Findings) == n {
		p.ok("deployment %s, made on %s: the configuration has its region and partition", deployment.ID, when(deployment.Created))
	}
}

const eventsRead = 1000

func readEvents(ctx context.Context, db *store.DB) (events []kms.Event, err error) {
	err = db.View(ctx, func(tx kms.Tx) (err error) {
		events, err = tx.Events(eventsRead)
		return err
	})
	return events, err
}

// countEvents tells of events that wait for a server.
func (d *doctor) countEvents(ctx context.Context, p *part, db *store.DB) {
	events, err := readEvents(ctx, db)
	if err != nil {
		p.fail("store-read", d.storePath, err.Error(), "", restore)
	} else if n := len(events); n > 0 {
		text := count(n, "event")
		if n == eventsRead {
			text = fmt.Sprintf("%d events or more", n)
		}
		p.note("events-wait", d.storePath, text+" of the server or its administrator wait to be recorded", "the next start records them", "")
	}
}

// examineEvents sees that a server takes events into the audit log, which it does several times a second.
func (d *doctor) examineEvents(ctx context.Context, p *part, db *store.DB) {
	var oldest int64 // that waits now
	for range 6 {
		events, err := readEvents(ctx, db)
		if err != nil {
			p.fail("store-read", d.storePath, err.Error(), "", restore)
			return
		}
		if len(events) == 0 || oldest != 0 && events[0].Sequence != oldest {
			p.ok("the server takes events into the audit log")
			return
		}
		oldest = events[0].Sequence
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
	p.fail("events-stuck", d.storePath, "events wait to be recorded, and the server does not take them",
		"what the server and its administrator did is not in the audit log",
		"look in the server's log for why the audit log cannot be written; if it says nothing, start the server again")
}
