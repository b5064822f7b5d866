package main

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"strongroom/store"
)

// A backup is a tar archive of three files in this order, which tar and sha256sum take apart and check too:
//
//	manifest.json   what the backup is of: see manifest
//	strongroom.db   the copy of the store
//	SHA256SUMS      of both, as sha256sum prints it
//
// It holds no key, and no secret in clear: what is secret in a store was sealed by the HSM.
const (
	backupFormat = "strongroom backup v1"
	manifestName = "manifest.json"
	copyName     = "strongroom.db"
	sumsName     = "SHA256SUMS"
	maxManifest  = 1 << 20
)

// A manifest says what a backup is of, so that it can be told without a program that opens it, and be compared with what is in it.
type manifest struct {
	Format      string           `json:"format"`
	Taken       time.Time        `json:"taken"` // a moment before the copy was begun
	Program     string           `json:"program"`
	Deployment  string           `json:"deployment"`
	Partition   string           `json:"partition"`
	Region      string           `json:"region"`
	TokenSerial string           `json:"tokenSerial"` // of the token that the deployment was made with
	Schema      int              `json:"schema"`
	Rows        map[string]int64 `json:"rows"`               // by table
	AuditLog    *auditHead       `json:"auditLog,omitempty"` // as it was last signed; none before the first signature
}

type auditHead struct {
	Log  string `json:"log"`
	Head string `json:"head"`
	File int    `json:"file"`
}

// describe returns the manifest of a copy.
func describe(c *store.Copy, taken time.Time) *manifest {
	m := &manifest{
		Format: backupFormat, Taken: taken.UTC().Truncate(time.Millisecond), Program: version(),
		Deployment: c.Deployment.ID, Partition: c.Deployment.Partition, Region: c.Deployment.Region, TokenSerial: c.Deployment.TokenSerial,
		Schema: c.Schema, Rows: c.Rows,
	}
	if a := anchorOf(c.Anchor); a != nil {
		m.AuditLog = &auditHead{a.Log, a.Head.String(), a.File}
	}
	return m
}

// agrees returns an error unless the manifest is that of the copy.
func (m *manifest) agrees(c *store.Copy) error {
	same := describe(c, m.Taken)
	same.Program = m.Program
	want, err := json.Marshal(m)
	if err != nil {
		return err
	}
	got, err := json.Marshal(same)
	if err != nil {
		return err
	}
	if string(got) != string(want) {
		return fmt.Errorf("the manifest says %s, and the store in the backup is %s", want, got)
	}
	return nil
}

// writeBackup writes a backup of the copy at path to w, and returns the SHA-256 of all of it.
func writeBackup(w io.Writer, m *manifest, path string) (sum [sha256.Size]byte, err error) {
	whole := sha256.New()
	t := tar.NewWriter(io.MultiWriter(w, whole))
	head := func(name string, size int64) error {
		return t.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: m.Taken.Truncate(time.Second), Format: tar.FormatUSTAR})
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return sum, err
	}
	text = append(text, '\n')
	if err := head(manifestName, int64(len(text))); err != nil {
		return sum, err
	}
	if _, err := t.Write(text); err != nil {
		return sum, err
	}
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return sum, err
	}
	// The size in the header of USTAR has 33 bits.
	h := &tar.Header{Name: copyName, Mode: 0o600, Size: info.Size(), ModTime: m.Taken.Truncate(time.Second)}
	if err := t.WriteHeader(h); err != nil {
		return sum, err
	}
	of := sha256.New()
	if _, err := io.Copy(io.MultiWriter(t, of), f); err != nil {
		return sum, err
	}
	sums := backupSums(sha256.Sum256(text), [sha256.Size]byte(of.Sum(nil)))
	if err := head(sumsName, int64(len(sums))); err != nil {
		return sum, err
	}
	if _, err := io.WriteString(t, sums); err != nil {
		return sum, err
	}
	if err := t.Close(); err != nil {
		return sum, err
	}
	return [sha256.Size]byte(whole.Sum(nil)), nil
}

func backupSums(manifest, copied [sha256.Size]byte) string {
	return hex.EncodeToString(manifest[:]) + "  " + manifestName + "\n" + hex.EncodeToString(copied[:]) + "  " + copyName + "\n"
}

// readBackup reads a backup, gives the copy to keep as it comes, and returns the manifest and the SHA-256 of the whole. Only when readBackup returns without an
// error, what keep was given is what was written.
func readBackup(from io.Reader, keep func(*manifest, io.Reader) error) (*manifest, [sha256.Size]byte, error) {
	whole := sha256.New()
	m, err := readParts(io.TeeReader(from, whole), keep)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		err = errors.New("it is cut short")
	case errors.Is(err, tar.ErrHeader):
		err = errors.New("it is no backup, or it is damaged")
	}
	return m, [sha256.Size]byte(whole.Sum(nil)), err
}

func readParts(from io.Reader, keep func(*manifest, io.Reader) error) (*manifest, error) {
	t := tar.NewReader(from)
	next := func(name string, most int64) error {
		h, err := t.Next()
		if err != nil {
			return err
		}
		if h.Name != name || h.Typeflag != tar.TypeReg || h.Size > most {
			return fmt.Errorf("it is no backup, or it is damaged: %q in place of %s", h.Name, name)
		}
		return nil
	}
	if err := next(manifestName, maxManifest); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(t)
	if err != nil {
		return nil, err
	}
	// Nothing is asked of the manifest that would be a harm if it was not as it was written; the sums come last.
	m := new(manifest)
	if err := json.Unmarshal(text, m); err != nil || !strings.HasPrefix(m.Format, "strongroom backup ") {
		return nil, errors.New("it is no backup, or its manifest is damaged")
	}
	if m.Format != backupFormat {
		return nil, fmt.Errorf("its format is %q, and this program knows %q", m.Format, backupFormat)
	}
	if err := next(copyName, 1<<62); err != nil {
		return nil, err
	}
	of := sha256.New()
	copied := io.TeeReader(t, of)
	if err := keep(m, copied); err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, copied); err != nil {
		return nil, err
	}
	if err := next(sumsName, 1024); err != nil {
		return nil, err
	}
	sums, err := io.ReadAll(t)
	if err != nil {
		return nil, err
	}
	if string(sums) != backupSums(sha256.Sum256(text), [sha256.Size]byte(of.Sum(nil))) {
		return nil, errors.New("it is damaged: its SHA-256 sums are not those of what it holds")
	}
	if _, err := io.Copy(io.Discard, from); err != nil { // for the sum of the whole
		return nil, err
	}
	return m, nil
}
