package main

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3"
)

// downgrade makes the store at path one of the first schema, with all that it can hold of what is in it.
func downgrade(t *testing.T, path string) {
	t.Helper()
	const first = "../../store/migrations/0001_first.sql"
	schema, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	old := path + ".old"
	db, err := sql.Open("sqlite3", "file:"+old)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // one that ATTACH counts for
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := db.Exec(statement, args...); err != nil {
			t.Fatalf("%v: %s", err, statement)
		}
	}
	exec(`PRAGMA application_id = 0x5374726d`)
	exec(`PRAGMA journal_mode = WAL`)
	exec(`CREATE TABLE migration (number BIGINT NOT NULL PRIMARY KEY, sha256 BYTEA NOT NULL, applied BIGINT NOT NULL)`)
	exec(string(schema))
	hash := sha256.Sum256(schema)
	exec(`INSERT INTO migration (number, sha256, applied) VALUES (1, $1, 0)`, hash[:])
	exec(`ATTACH $1 AS now`, path)
	exec(`INSERT INTO deployment SELECT one, d.id, created, aws_partition, aws_region, token_serial, k.name, k.id, k.ref
		FROM now.deployment d, now.system_key k WHERE k.name = 'access-keys'`)
	for _, table := range []string{
		"account: id, created",
		"credential: id, account, principal, active, created, sealed",
		"kms_key: id, account, state, description, created, deletion_date, policy",
		"material: id, key_id, ordinal, ref, created",
		"alias: account, name, key_id, created, updated",
	} {
		name, columns, _ := strings.Cut(table, ": ")
		exec(`INSERT INTO ` + name + ` (` + columns + `) SELECT ` + columns + ` FROM now.` + name)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(old, path); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
}

// startDev runs dev until the function that it returns is called, and makes its env the test's.
func startDev(t *testing.T, dir string) (stop func() said) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan said, 1)
	go func() {
		var stdout, stderr strings.Builder
		code := run(ctx, []string{"strongroom", "dev", "--dir", dir}, strings.NewReader(""), &stdout, &stderr)
		ended <- said{code, stdout.String(), stderr.String()}
	}()
	t.Cleanup(cancel)
	env := filepath.Join(dir, "env")
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if b, err := os.ReadFile(env); err == nil {
			for line := range strings.Lines(string(b)) {
				name, value, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
				t.Setenv(name, value)
			}
			return func() said { cancel(); return <-ended }
		}
		select {
		case s := <-ended:
			t.Fatalf("dev ended with exit code %d: %s", s.code, s.stderr)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("dev does not answer")
		}
	}
}

func TestOlderStore(t *testing.T) {
	awsEnvironment(t)
	dir := filepath.Join(t.TempDir(), "rig")
	stop := startDev(t, dir)
	command(t, "key", "create", "--alias", "old").want(t, exitOK)
	stop().want(t, exitOK)
	downgrade(t, filepath.Join(dir, "strongroom.db"))
	if err := os.RemoveAll(filepath.Join(dir, "audit")); err != nil {
		t.Fatal(err)
	}

	// A server and its commands say what to do, and change nothing.
	config := filepath.Join(t.TempDir(), "strongroom.toml")
	text := "store = \"sqlite:" + filepath.Join(dir, "strongroom.db") + "\"\n[hsm]\nmodule = \"/dev/null\"\ntoken_label = \"strongroom\"\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "serve", "--config", config).want(t, exitFailed, "has schema 1 and this program needs 4; run strongroom migrate")
	command(t, "user", "list", "--dir", dir).want(t, exitFailed, "run strongroom migrate")

	// dev does it by itself, and everything is there.
	stop = startDev(t, dir)
	if s := command(t, "key", "list").want(t, exitOK); !strings.Contains(s.stdout, "alias/old") {
		t.Errorf("the key is gone: %s", s.stdout)
	}
	command(t, "user", "create", "app", "--dir", dir).want(t, exitOK)
	stop().want(t, exitOK)
	command(t, "audit", "verify", filepath.Join(dir, "audit")).want(t, exitOK)

	// For others there is migrate.
	downgrade(t, filepath.Join(dir, "strongroom.db"))
	command(t, "migrate", "--config", config).want(t, exitOK).wantOut(t, "the store has the schema of this program\n")
	command(t, "migrate", "--dir", dir).want(t, exitOK)
	command(t, "user", "list", "--config", config).want(t, exitOK, "there are no users")
}
