package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"strongroom/hsm"
	"strongroom/hsm/pkcs11"
	"strongroom/softhsm"
)

// patient makes a rig that has been served, with three keys, one of them rotated, and no server.
func patient(t *testing.T) string {
	t.Helper()
	wasSynchronised := clockState
	t.Cleanup(func() { clockState = wasSynchronised })
	clockState = func() (bool, error) { return true, nil }
	awsEnvironment(t)
	dir := filepath.Join(t.TempDir(), "rig")
	stop := startDev(t, dir)
	for _, alias := range []string{"one", "two", "three"} {
		command(t, "key", "create", "--alias", alias).want(t, exitOK)
	}
	command(t, "key", "rotate", "one").want(t, exitOK)
	stop().want(t, exitOK)
	return dir
}

// copied returns a copy of a rig.
func copied(t *testing.T, rig string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "rig")
	if out, err := exec.Command("cp", "-a", rig, dir).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	return dir
}

// examined is what doctor says of a deployment.
type examined struct {
	said
	diagnosis
}

func examination(t *testing.T, args ...string) examined {
	t.Helper()
	s := command(t, append([]string{"doctor", "--json"}, args...)...)
	e := examined{said: s}
	if err := json.Unmarshal([]byte(s.stdout), &e.diagnosis); err != nil {
		t.Fatalf("%v; exit code %d, stdout:\n%s\nstderr:\n%s", err, s.code, s.stdout, s.stderr)
	}
	return e
}

// all returns the findings of a severity, or all for "".
func (e examined) all(severity string) (found []*finding) {
	for _, p := range e.Parts {
		for _, f := range p.Findings {
			if severity == "" || f.Severity == severity {
				found = append(found, f)
			}
		}
	}
	return found
}

func (e examined) String() string {
	text := ""
	for _, f := range e.all("") {
		text += fmt.Sprintf("%s %s: %s: %s\n", f.Severity, f.Check, f.Where, f.What)
	}
	return text
}

// healthy fails the test if anything was found but notes of these kinds.
func (e examined) healthy(t *testing.T, notes ...string) {
	t.Helper()
	if e.code != exitOK || !e.Healthy || e.Errors+e.Warnings != 0 {
		t.Errorf("exit code %d, healthy %v:\n%v", e.code, e.Healthy, e)
	}
	for _, f := range e.all("") {
		if !slices.Contains(notes, f.Check) {
			t.Errorf("%v", e)
		}
	}
	if len(e.Parts) != 8 {
		t.Errorf("%d parts", len(e.Parts))
	}
}

// finds fails the test unless exactly this kind of thing was found, with a remedy that has this in it.
func (e examined) finds(t *testing.T, severity, check, remedy string) {
	t.Helper()
	n := 0
	for _, f := range e.all("") {
		switch {
		case f.Check == check && f.Severity == severity && strings.Contains(f.Remedy, remedy) && f.What != "" && f.Why != "":
			n++
		case f.Severity != severeNote:
			t.Errorf("%+v", *f)
		}
	}
	if n == 0 || e.code != exitFailed || e.Healthy {
		t.Errorf("exit code %d; of %s %s with the remedy %q found %d:\n%v", e.code, severity, check, remedy, n, e)
	}
}

// statements runs SQL in the store of a rig, whatever that does to it.
func statements(t *testing.T, dir string, list ...string) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, "strongroom.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, s := range list {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%v: %s", err, s)
		}
	}
}

// inToken runs f with the token of a rig.
func inToken(t *testing.T, dir string, f func(*pkcs11.Token) error) {
	t.Helper()
	config, err := softhsm.New(t.Context(), filepath.Join(dir, "softhsm"))
	if err != nil {
		t.Fatal(err)
	}
	token, err := pkcs11.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f(token), token.Close()); err != nil {
		t.Fatal(err)
	}
}

// alter changes a file.
func alter(t *testing.T, path string, f func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, f(b), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestDoctorHealthy(t *testing.T) {
	dir := patient(t)
	examination(t, "--dir", dir).healthy(t)
	text := command(t, "doctor", "--dir", dir, "--fix").want(t, exitOK).stdout
	for _, want := range []string{
		"Configuration\n  ok ", "Files\n  ok ", "Store\n  ok ", "Server\n  -  ", "Token\n  ok ", "Keys\n  ok ", "Audit log\n  ok ", "Clock\n  ok ",
		"3 keys with 4 key materials, and the system's own: 6 of 6 proved by their check values; 6 objects in the token",
		"\nNothing is wrong; there was nothing to fix\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}

func TestDoctorMisused(t *testing.T) {
	dir := t.TempDir()
	command(t, "doctor").want(t, exitMisuse, "which deployment?")
	command(t, "doctor", "--dir", dir).want(t, exitMisuse, "there is no rig in")
	command(t, "doctor", "--config", filepath.Join(dir, "none")).want(t, exitMisuse, "no such file")
	command(t, "doctor", "--dir", dir, "more").want(t, exitMisuse)
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("it has made %v", left)
	}
}

// Each deployment that is broken in one way, and what doctor says of it.
func TestDoctorFinds(t *testing.T) {
	rig := patient(t)
	key := func(alias string) string { return "(SELECT key_id FROM alias WHERE name = 'alias/" + alias + "')" }
	for _, test := range []struct {
		name                    string
		wrong                   func(t *testing.T, dir string)
		severity, check, remedy string
	}{
		{"a newest object is gone", func(t *testing.T, dir string) {
			inToken(t, dir, func(token *pkcs11.Token) error { return token.Destroy(t.Context(), materialOf(t, dir, "one", 1)) })
		}, severeError, "no-object", "restore the token from its own backup"},
		{"an old object is gone", func(t *testing.T, dir string) {
			inToken(t, dir, func(token *pkcs11.Token) error { return token.Destroy(t.Context(), materialOf(t, dir, "one", 0)) })
		}, severeError, "no-object", "schedule the key's deletion"},
		{"two Refs are swapped", func(t *testing.T, dir string) {
			statements(t, dir, "CREATE TEMP TABLE two AS SELECT key_id, ref FROM material WHERE key_id IN ("+key("two")+", "+key("three")+")",
				"UPDATE material SET ref = (SELECT ref FROM two WHERE two.key_id <> material.key_id) WHERE key_id IN (SELECT key_id FROM two)")
		}, severeError, "wrong-object", "see who changed the token, or the store"},
		{"another key is in the place of one", func(t *testing.T, dir string) {
			id := materialOf(t, dir, "two", 0)
			inToken(t, dir, func(token *pkcs11.Token) error {
				_, err := token.Generate(t.Context(), hsm.ID{1}, "strongroom/x/0")
				return errors.Join(err, token.Destroy(t.Context(), hsm.ID{1}), token.Destroy(t.Context(), id), again(t.Context(), token, id))
			})
		}, severeError, "wrong-object", "see who changed"},
		{"an object of nobody's", func(t *testing.T, dir string) {
			inToken(t, dir, func(token *pkcs11.Token) error {
				_, err := token.Generate(t.Context(), hsm.ID{1}, "strongroom/1b5c0e5e-7a53-4bd8-9a2b-5d8c5a0f2f0e/0")
				return err
			})
		}, severeWarning, "unknown-object", "find the store that it is of"},
		{"a store that forgot a rotation", func(t *testing.T, dir string) {
			statements(t, dir, "DELETE FROM material WHERE ordinal = 1")
		}, severeWarning, "forgotten-object", "restore a newer backup of the store"},
		{"a token with a key that was destroyed", func(t *testing.T, dir string) {
			statements(t, dir, "INSERT INTO tombstone SELECT id, account, 1700000000000 FROM kms_key WHERE id = "+key("two"),
				"INSERT INTO tombstone_material SELECT id, key_id FROM material WHERE key_id = "+key("two"),
				"DELETE FROM material WHERE key_id = "+key("two"),
				"CREATE TEMP TABLE gone AS SELECT key_id FROM alias WHERE name = 'alias/two'",
				"DELETE FROM key_use WHERE key_id IN gone", "DELETE FROM alias WHERE key_id IN gone", "DELETE FROM kms_key WHERE id IN gone")
		}, severeWarning, "destroyed-object", "with the tools of the HSM"},
		{"a key in Creating since long", func(t *testing.T, dir string) {
			statements(t, dir, "UPDATE kms_key SET state = 'Creating', created = created - 90000000 WHERE id = "+key("two"),
				"DELETE FROM alias WHERE name = 'alias/two'")
		}, severeWarning, "abandoned-creation", "restore a newer backup of the store"},
		{"a key without material", func(t *testing.T, dir string) {
			statements(t, dir, "UPDATE material SET ref = NULL WHERE ordinal = 0 AND key_id = "+key("two"))
		}, severeError, "no-material", restore},
		{"a row that cannot be", func(t *testing.T, dir string) {
			statements(t, dir, "UPDATE kms_key SET created = 'yesterday' WHERE id = "+key("two"))
		}, severeError, "unreadable-row", restore},
		{"a policy that is none", func(t *testing.T, dir string) {
			statements(t, dir, "UPDATE kms_key SET policy = '{' WHERE id = "+key("two"))
		}, severeError, "unreadable-policy", "strongroom policy reset-key "},
		{"aliases to a key that nobody sees", func(t *testing.T, dir string) {
			statements(t, dir, "UPDATE kms_key SET state = 'Destroying' WHERE id = "+key("two"))
		}, severeWarning, "stray-aliases", "when the key does"},
		{"an index of the store is damaged", func(t *testing.T, dir string) {
			var page int64
			db, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, "strongroom.db"))
			if err == nil {
				err = db.QueryRow("SELECT rootpage FROM sqlite_schema WHERE name = 'alias_of_key'").Scan(&page)
				db.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			alter(t, filepath.Join(dir, "strongroom.db"), func(b []byte) []byte {
				copy(b[(page-1)*4096+100:], bytes.Repeat([]byte{0xA5}, 3900))
				return b
			})
		}, severeError, "store-damaged", restore},
		{"a row that names nothing", func(t *testing.T, dir string) {
			statements(t, dir, "INSERT INTO tag VALUES ('nothing', 'a', 'b')")
		}, severeError, "store-damaged", restore},
		{"a byte of the audit log is another", func(t *testing.T, dir string) {
			alter(t, filepath.Join(dir, "audit", "audit-00000001.jsonl"), func(b []byte) []byte {
				return bytes.Replace(b, []byte(`"eventName":"CreateKey"`), []byte(`"eventName":"CreateKez"`), 1)
			})
		}, severeError, "audit-changed", "strongroom audit verify --dir "},
		{"the end of the audit log is cut off", func(t *testing.T, dir string) {
			alter(t, filepath.Join(dir, "audit", "audit-00000001.jsonl"), func(b []byte) []byte {
				lines := bytes.SplitAfter(b, []byte("\n"))
				return bytes.Join(lines[:len(lines)-3], nil)
			})
		}, severeError, "audit-changed", "keep the directory as evidence"},
		{"the audit log is gone", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "audit", "audit-00000001.jsonl")); err != nil {
				t.Fatal(err)
			}
		}, severeError, "audit-missing", "find the files"},
		{"the deployment was made on another token", func(t *testing.T, dir string) {
			statements(t, dir, "UPDATE deployment SET token_serial = '0123456789abcdef'")
		}, severeWarning, "token-serial", "no other copy is in use"},
		{"a store from the future", func(t *testing.T, dir string) {
			statements(t, dir, fmt.Sprintf("UPDATE kms_key SET created = %d WHERE id = %s", time.Now().Add(time.Hour).UnixMilli(), key("two")))
		}, severeError, "clock-store", "set the clock"},
		{"an older store", func(t *testing.T, dir string) { downgrade(t, filepath.Join(dir, "strongroom.db")) },
			severeError, "schema-old", "strongroom migrate --dir "},
		{"no store", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "strongroom.db")); err != nil {
				t.Fatal(err)
			}
		}, severeError, "no-store", "restore a backup"},
		{"no token", func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, "softhsm", "tokens")); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if _, err := os.Stat(filepath.Join(dir, "softhsm", "tokens")); err == nil {
					t.Error("it has made another token")
				}
			})
		}, severeError, "token-open", "bring the token's directory back"},
		{"others can read the token", func(t *testing.T, dir string) {
			if err := os.Chmod(filepath.Join(dir, "softhsm", "tokens"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, severeError, "file-mode", "chmod 700 "},
		{"others can write the audit log", func(t *testing.T, dir string) {
			if err := os.Chmod(filepath.Join(dir, "audit", "audit-00000001.jsonl"), 0o620); err != nil {
				t.Fatal(err)
			}
		}, severeError, "file-mode", "chmod 600 "},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := copied(t, rig)
			test.wrong(t, dir)
			examination(t, "--dir", dir).finds(t, test.severity, test.check, test.remedy)
		})
	}
}

// again makes a key with the id of one that was there.
func again(ctx context.Context, token *pkcs11.Token, id hsm.ID) error {
	_, err := token.Generate(ctx, id, "strongroom/again/0")
	return err
}

// materialOf returns the id of a material of the key with an alias.
func materialOf(t *testing.T, dir, alias string, ordinal int) (id hsm.ID) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, "strongroom.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var b []byte
	err = db.QueryRow("SELECT m.id FROM material m JOIN alias a ON a.key_id = m.key_id WHERE a.name = $1 AND m.ordinal = $2", "alias/"+alias, ordinal).Scan(&b)
	if err != nil || len(b) != len(id) {
		t.Fatalf("%x, %v", b, err)
	}
	return hsm.ID(b)
}

// What a crash leaves, and the next start puts right, is no finding.
func TestDoctorAfterCrash(t *testing.T) {
	dir := patient(t)
	statements(t, dir,
		"UPDATE kms_key SET state = 'Creating' WHERE id = (SELECT key_id FROM alias WHERE name = 'alias/two')", "DELETE FROM alias WHERE name = 'alias/two'",
		"UPDATE material SET ref = NULL WHERE ordinal = 1",
		"INSERT INTO event VALUES (1000, '{}')")
	alter(t, filepath.Join(dir, "audit", "audit-00000001.jsonl"), func(b []byte) []byte { return append(b, `{"eventVersion":"1.0`...) })
	id := materialOf(t, dir, "three", 0)
	inToken(t, dir, func(token *pkcs11.Token) error { return token.Destroy(t.Context(), id) })
	statements(t, dir, "UPDATE kms_key SET state = 'Destroying' WHERE id = (SELECT key_id FROM alias WHERE name = 'alias/three')",
		"DELETE FROM alias WHERE name = 'alias/three'")
	e := examination(t, "--dir", dir)
	e.healthy(t, "unfinished-creation", "unfinished-rotation", "unfinished-destruction", "events-wait", "audit-torn")
	if len(e.all(severeNote)) != 5 {
		t.Errorf("%v", e)
	}

	// And the next start does.
	stop := startDev(t, dir)
	stop()
	examination(t, "--dir", dir).healthy(t, "unfinished-rotation") // which is left to whoever began it, for two minutes
}

// Another token than the store's is one finding, and not one for each key.
func TestDoctorOtherToken(t *testing.T) {
	dir, other := patient(t), filepath.Join(t.TempDir(), "rig")
	awsEnvironment(t)
	stop := startDev(t, other)
	stop().want(t, exitOK)
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, "softhsm")), os.Rename(filepath.Join(other, "softhsm"), filepath.Join(dir, "softhsm"))); err != nil {
		t.Fatal(err)
	}
	e := examination(t, "--dir", dir)
	e.finds(t, severeError, "other-token", "the deployment was made with serial number")
	if len(e.all("")) != 1 {
		t.Errorf("%v", e)
	}
}

func TestDoctorWrongPIN(t *testing.T) {
	dir := patient(t)
	alter(t, filepath.Join(dir, "softhsm", "pin"), func([]byte) []byte { return []byte("wrong-31337\n") })
	if err := os.Chmod(filepath.Join(dir, "credentials.json"), 0o644); err != nil {
		t.Fatal(err)
	}
	e := examination(t, "--dir", dir)
	e.want(t, exitPIN, "refused the PIN")
	if found := e.all(severeError); len(found) != 2 || found[0].Check != "file-mode" || found[1].Check != "pin-refused" {
		t.Errorf("%v", e)
	}
	if strings.Contains(e.stdout+e.stderr, "31337") {
		t.Error("the PIN is told")
	}
}

// A token that hangs is told of, and the other parts are looked at.
func TestDoctorHangingToken(t *testing.T) {
	dir := patient(t)
	was := openLimit
	t.Cleanup(func() { openLimit = was })
	openLimit = 200 * time.Millisecond
	pin := filepath.Join(dir, "softhsm", "pin")
	if err := errors.Join(os.Remove(pin), syscall.Mkfifo(pin, 0o600)); err != nil {
		t.Fatal(err)
	}
	e := examination(t, "--dir", dir)
	e.finds(t, severeError, "token-hangs", "vendor's client")
	if len(e.Parts) != 8 || len(e.Parts[6].Checked) == 0 {
		t.Errorf("%v", e)
	}
	// Let the one that hangs end, so that other tests can have a token.
	w, err := os.OpenFile(pin, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := pkcs11.Tokens(pkcs11.Config{Module: "/nowhere"}); time.Now().After(deadline) {
			t.Fatal(err)
		}
		token, err := pkcs11.Open(t.Context(), pkcs11.Config{Module: "/nowhere", Label: "none", PIN: func() ([]byte, error) { return nil, nil }})
		if err == nil {
			token.Close()
			t.Fatal("a token of nowhere opened")
		}
		if !strings.Contains(err.Error(), "is open in this process already") {
			return
		}
	}
}

// --fix takes rights away and removes what was left behind, and does nothing else.
func TestDoctorFix(t *testing.T) {
	dir := patient(t)
	credentials, left := filepath.Join(dir, "credentials.json"), filepath.Join(dir, "env.tmp123")
	id := materialOf(t, dir, "one", 0)
	inToken(t, dir, func(token *pkcs11.Token) error {
		_, err := token.Generate(t.Context(), hsm.ID{1}, "strongroom/1b5c0e5e-7a53-4bd8-9a2b-5d8c5a0f2f0e/0")
		return errors.Join(err, token.Destroy(t.Context(), id))
	})
	if err := errors.Join(os.Chmod(credentials, 0o646), os.WriteFile(left, nil, 0o600), os.WriteFile(left+"new", nil, 0o600),
		os.Chtimes(left, time.Time{}, time.Now().Add(-time.Hour))); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(dir, "strongroom.db"))
	if err != nil {
		t.Fatal(err)
	}
	if e := examination(t, "--dir", dir); e.Errors != 2 || e.Warnings != 1 || e.Notes != 1 || e.Fixed != 0 {
		t.Errorf("%v", e)
	}
	e := examination(t, "--dir", dir, "--fix")
	if e.code != exitFailed || e.Errors != 1 || e.Warnings != 1 || e.Notes != 0 || e.Fixed != 2 {
		t.Errorf("%v", e)
	}
	if info, err := os.Stat(credentials); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("what was left behind is still there")
	}
	if _, err := os.Stat(left + "new"); err != nil {
		t.Error("what may just be being written is gone")
	}
	after, err := os.ReadFile(filepath.Join(dir, "strongroom.db"))
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the store was changed: %v", err)
	}
	e = examination(t, "--dir", dir, "--fix")
	if e.code != exitFailed || e.Errors != 1 || e.Warnings != 1 || e.Fixed != 0 {
		t.Errorf("what only a person can decide: %v", e)
	}
	if text := command(t, "doctor", "--dir", dir, "--fix").stdout; !strings.Contains(text, "nothing of it can be fixed without somebody who decides") {
		t.Errorf("%s", text)
	}
}

// What --fix does never gives anybody a right.
func TestDoctorNeverLoosens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for mode := range os.FileMode(0o1000) {
		for _, forbid := range []os.FileMode{othersAnything, othersWrite, 0o027, 0o007} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			p := newPart("files")
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			new(doctor).examineMode(p, ward{path: path, forbid: forbid, ours: true}, info)
			p.treat(t.Context())
			after, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := after.Mode().Perm(); got != mode&^forbid {
				t.Fatalf("mode %04o became %04o, where %04o was not to be", mode, got, forbid)
			}
		}
	}
}

// A token of which one call hangs is not asked again.
func TestDoctorWatches(t *testing.T) {
	was := callLimit
	t.Cleanup(func() { callLimit = was })
	callLimit = 10 * time.Millisecond
	d := &stuck{ends: make(chan struct{})}
	defer close(d.ends)
	w := &watched{token: d}
	for range 3 {
		if err := w.Prove(t.Context(), hsm.ID{}, nil); !errors.Is(err, hsm.ErrUnavailable) || !strings.Contains(err.Error(), "does not end") {
			t.Errorf("got %v", err)
		}
	}
	_, err1 := w.Survey(t.Context())
	_, err2 := w.Promises(t.Context(), nil)
	if err1 == nil || err2 == nil || d.calls.Load() != 1 {
		t.Errorf("%v, %v; %d calls", err1, err2, d.calls.Load())
	}
}

type stuck struct {
	hsm.Inspector
	ends  chan struct{}
	calls atomic.Int32
}

func (s *stuck) Prove(context.Context, hsm.ID, hsm.Ref) error {
	s.calls.Add(1)
	<-s.ends
	return nil
}

// A log that the server has replaced is told of until its files are moved away; one that was archived in order is not.
func TestDoctorReplacedLog(t *testing.T) {
	dir := patient(t)
	first := filepath.Join(dir, "audit", "audit-00000001.jsonl")
	whole, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	alter(t, first, func(b []byte) []byte {
		lines := bytes.SplitAfter(b, []byte("\n"))
		return bytes.Join(lines[:len(lines)-3], nil)
	})
	stop := startDev(t, dir)
	stop() // its log says what it has found
	e := examination(t, "--dir", dir)
	e.finds(t, severeWarning, "audit-replaced", "move them away")
	if len(e.all(severeWarning)) != 1 || len(e.Parts[6].Checked) < 3 {
		t.Errorf("%v", e)
	}

	// The one before was also changed: both are told.
	alter(t, first, func([]byte) []byte { return bytes.Replace(whole, []byte(`"CreateKey"`), []byte(`"CreateKez"`), 1) })
	e = examination(t, "--dir", dir)
	if found := e.all(""); len(found) != 1 || found[0].Check != "audit-changed" {
		t.Errorf("%v", e)
	}
	if err := os.Rename(first, filepath.Join(t.TempDir(), "archived")); err != nil {
		t.Fatal(err)
	}
	examination(t, "--dir", dir).healthy(t)
}

// What belongs to another user than the store does cannot be written by the server.
func TestDoctorOwner(t *testing.T) {
	dir := patient(t)
	if os.Geteuid() != 0 {
		t.Log("only root can give files away: the owner of the store is looked at, and no other")
		examination(t, "--dir", dir).healthy(t)
		return
	}
	const nobody = 65534
	if err := os.Chown(filepath.Join(dir, "strongroom.db"), nobody, nobody); err != nil {
		t.Fatal(err)
	}
	e := examination(t, "--dir", dir)
	e.finds(t, severeError, "file-owner", "chown nobody ")
}

// What restore leaves beside the store is told of, and left there also by --fix.
func TestDoctorReplaced(t *testing.T) {
	dir := patient(t)
	var left []string
	for _, suffix := range []string{".restore", ".installing", ".replaced-20260701T120000Z", ".replaced-20260701T120000Z-wal"} {
		path := filepath.Join(dir, "strongroom.db"+suffix)
		left = append(left, path)
		if err := errors.Join(os.WriteFile(path, []byte("x"), 0o600), os.Chtimes(path, time.Time{}, time.Now().Add(-time.Hour))); err != nil {
			t.Fatal(err)
		}
	}
	e := examination(t, "--dir", dir, "--fix")
	var told []string
	for _, f := range e.all("") {
		if f.Check != "replaced-store" || f.Severity != severeNote {
			t.Errorf("found %+v", f)
		}
		told = append(told, f.Where)
	}
	if !slices.Equal(told, left[:3]) || e.Fixed != 0 {
		t.Errorf("told of %v; %d fixed", told, e.Fixed)
	}
	for _, path := range left {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}
