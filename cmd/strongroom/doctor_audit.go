package main

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"strongroom/kms/audit"
)

// examineAudit verifies the audit log, and that it is the one that the store knows.
func (d *doctor) examineAudit(ctx context.Context, p *part) func() {
	files, err := audit.Files(d.auditDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.fail("audit-read", d.auditDir, withoutPath(err).Error(), "while the log cannot be written, nothing is answered", "see who may read and write the directory")
		return nil
	}
	const replaced = "the next start of the server begins a new log, with a record of what is missing"
	if len(files) == 0 {
		if d.anchor != nil {
			p.fail("audit-missing", d.auditDir, fmt.Sprintf("there is no file of the audit log, which had come to line %d", d.anchor.Sequence), "who did what is not known any more; "+replaced,
				"find the files, or who took them; they may be brought back while no server runs")
		} else {
			p.ok("there is no audit log yet, and the store knows of none")
		}
		return nil
	}
	key, from := d.key, "the key in the token"
	if key == nil {
		path := filepath.Join(d.auditDir, "public-key.pem")
		if key, err = readFile(ctx, path, maxPEM); err != nil {
			p.skip("the audit log cannot be verified: neither the token nor %s says with which key", path)
			return nil
		}
		from = "the key that lies beside it, which proves nothing against who can write there"
	}
	public, err := audit.ParsePublicKey(key)
	if err != nil {
		p.fail("audit-key", d.auditDir, err.Error(), "nobody can verify the log", "strongroom audit key "+d.flags()+" prints the right key")
		return nil
	}

	// A log that was replaced is followed by the next one, each with files of its own. The head that the store knows is of the last.
	for {
		r, err := d.verify(public, files)
		if err != nil {
			p.fail("audit-read", d.auditDir, err.Error(), "what cannot be read cannot be shown to anybody", "see who may read the files, and whether the disk is well")
			return nil
		}
		f := r.Finding
		n := 0
		if f != nil && f.Kind == audit.OtherLog {
			n = slices.Index(files, f.File)
		}
		switch {
		case n > 0:
			p.warn("audit-replaced", f.File, "a new audit log was begun here", "the log before was not as it should have been: the record AuditLogReplaced in the file's second line says why",
				"find out what happened to the log before, keep its files as evidence, and move them away")
			files = files[n:]
			continue
		case f != nil && f.Kind != audit.Torn:
			p.fail("audit-changed", "", f.Error(), "the log is not as the server wrote it: who did what there is not certain any more",
				"keep the directory as evidence; strongroom audit verify "+d.flags()+" says more")
			return nil
		case d.anchor != nil && r.Log != d.anchor.Log:
			p.fail("audit-missing", d.auditDir, fmt.Sprintf("this is the log %s, and the store knows of %s, to line %d", r.Log, d.anchor.Log, d.anchor.Sequence),
				"who did what is not known any more; "+replaced, "find the files, or who took them; they may be brought back while no server runs")
			return nil
		}
		return d.examineEnd(p, r, from)
	}
}

// verify verifies the first log of some files, and, if it is the one that the store knows, that it has come as far as that.
func (d *doctor) verify(public *ecdsa.PublicKey, files []string) (*audit.Report, error) {
	head := headOf(d.anchor)
	r, err := audit.Verify(public, files, audit.VerifyOptions{Head: head})
	if err == nil && r.Finding != nil && head != nil && r.Log != "" && r.Log != d.anchor.Log {
		r, err = audit.Verify(public, files, audit.VerifyOptions{})
	}
	return r, err
}

// examineEnd looks at the end of a log that is whole.
func (d *doctor) examineEnd(p *part, r *audit.Report, from string) func() {
	p.ok("log %s: %s in %s are as they were written, by %s", r.Log, count(r.Lines, "line"), count(r.Files, "file"), from)
	if d.anchor != nil {
		p.ok("it is the one that the store knows, to line %d and further", d.anchor.Sequence)
	}
	if f := r.Finding; f != nil {
		if d.served {
			p.note("audit-torn", f.File, "the last line is just being written", "", "")
		} else {
			p.note("audit-torn", f.File, "the last line is not finished, which a crash leaves", "the next start cuts it off, and records that", "")
		}
	}
	last := r.Last.Time
	every := time.Duration(d.audit.CheckpointSeconds) * time.Second
	switch {
	case r.Unsealed == 0:
		p.ok("it is signed to its end")
	case !d.served:
		p.note("audit-unsigned", "", fmt.Sprintf("%s at its end without a signature, which a crash leaves", count(r.Unsealed, "record")), "whoever can write the files could have changed these; the next start signs them", "")
	case time.Since(r.UnsealedSince) > 3*every+time.Minute:
		p.warn("audit-unsigned", "", fmt.Sprintf("%s at its end without a signature, the first since %s", count(r.Unsealed, "record"), when(r.UnsealedSince)), "whoever can write the files could change these, and nobody would know",
			"look in the server's log for why the token does not sign")
	default:
		p.ok("it is signed but for the last %s, as usual", count(r.Unsealed, "record"))
	}
	return func() { d.lastRecord = last }
}
