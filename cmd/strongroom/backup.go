package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

func backupCommand() *cli.Command {
	return adminCommand(&cli.Command{
		Name:  "backup",
		Usage: "make a copy of the store, while the server runs or not (on the server's host)",
		Description: `One file, mode 0600: a tar archive of the store as it was at one moment, a manifest that says what it is of, and the SHA-256 of both.
It appears under its name when it is whole, on disk, read back and recorded in the audit log; nothing is overwritten. The server goes
on answering. The token is not opened, so no PIN is needed.

The file holds no key, and no secret in clear. It does hold who may do what: guard it like the store.

A backup of the deployment is this file, the token (by the HSM's own means), the files of the audit log, and the configuration; not the
PIN, which belongs elsewhere. A key that is made after the backup is in the token alone: back up after keys are made.

Example:  strongroom backup --config /etc/strongroom/strongroom.toml --out /var/backups
          strongroom restore --check --config /etc/strongroom/strongroom.toml --from /var/backups/strongroom-20260701T120000Z.tar`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "out", Usage: "make `FILE`, which may not exist yet; in a directory, a file named by the time", TakesFile: true},
		},
		Action: makeBackup,
	})
}

func makeBackup(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	if c.String("out") == "" {
		return misuse("to which file? --out FILE is required")
	}
	taken := time.Now()
	out, err := filepath.Abs(c.String("out"))
	if err != nil {
		return err
	}
	if info, err := os.Stat(out); err == nil && info.IsDir() {
		out = filepath.Join(out, "strongroom-"+taken.UTC().Format("20060102T150405Z")+".tar")
	}
	if err := checkNew(out); err != nil {
		return err
	}
	s, err := openSite(c)
	if err != nil {
		return err
	}
	defer s.close()
	m, sum, err := s.backup(c.Context, out, taken)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c, struct {
			Backup, SHA256 string
			Manifest       *manifest
		}{out, sum, m})
	}
	rows := [][]string{{"Backup", out}, {"SHA-256", sum}}
	if err := printTable(c, append(rows, m.rows()...)); err != nil {
		return err
	}
	note(c, "Not in it: the token, the files of the audit log, the configuration. Without the token it is of no use.")
	return nil
}

// rows are the manifest for people.
func (m *manifest) rows() [][]string {
	rows := [][]string{
		{"Taken", when(m.Taken)},
		{"Deployment", m.Deployment + ", made with token " + m.TokenSerial},
		{"Holds", fmt.Sprintf("keys %d, aliases %d, grants %d, users and roles %d, access keys and sessions %d",
			m.Rows["kms_key"], m.Rows["alias"], m.Rows["kms_grant"], m.Rows["principal"], m.Rows["credential"])},
	}
	if m.AuditLog != nil {
		rows = append(rows, []string{"Audit log", m.AuditLog.Head})
	}
	return rows
}

// backup makes the file out. Nothing appears under that name before the audit record of it is stored.
func (s *site) backup(ctx context.Context, out string, taken time.Time) (m *manifest, sum string, err error) {
	// On the same file system, and for nobody else to see.
	work, err := os.MkdirTemp(filepath.Dir(out), ".strongroom-backup-")
	if err != nil {
		return nil, "", err
	}
	defer func() { err = alsoFailed(err, os.RemoveAll(work)) }()
	copied, temp := filepath.Join(work, copyName), filepath.Join(work, "backup")
	c, err := s.db.Backup(ctx, copied)
	if err != nil {
		return nil, "", err
	}
	m = describe(c, taken)
	whole, err := writeBackupFile(temp, m, copied)
	if err != nil {
		return nil, "", fmt.Errorf("write %s: %w", out, err)
	}
	if err := os.Remove(copied); err != nil {
		return nil, "", err
	}
	if err := checkBackupFile(temp, whole); err != nil {
		return nil, "", fmt.Errorf("read %s back: %w", out, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	sum = hex.EncodeToString(whole[:])
	if err := s.admin.RecordBackup(ctx, out, sum, c.Rows["kms_key"]); err != nil {
		return nil, "", fmt.Errorf("record the backup: %w", err)
	}
	if err := renameNew(temp, out); err != nil {
		return nil, "", err
	}
	return m, sum, syncDir(filepath.Dir(out))
}

// writeBackupFile makes the file at path, and returns when it is on disk.
func writeBackupFile(path string, m *manifest, copied string) (sum [sha256.Size]byte, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return sum, withoutPath(err)
	}
	sum, err = writeBackup(f, m, copied)
	if err == nil {
		err = f.Sync()
	}
	return sum, withoutPath(errors.Join(err, f.Close()))
}

// checkBackupFile reads the file at path and returns an error if it is not what was written.
func checkBackupFile(path string, sum [sha256.Size]byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, got, err := readBackup(f, func(*manifest, io.Reader) error { return nil })
	if err == nil && got != sum {
		err = errors.New("it is not what was written")
	}
	return err
}

// renameNew renames a file to a name that is free.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // as on some network file systems
		if _, err := os.Lstat(to); err == nil {
			return existsError(to)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		err = os.Rename(from, to)
	}
	if errors.Is(err, fs.ErrExist) {
		return existsError(to)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", to, withoutPath(err))
	}
	return nil
}

// syncDir waits until the names in a directory are on disk.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
