package store_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"strongroom/hsm"
	"strongroom/kms"
	"strongroom/store"
)

func TestSQLite(t *testing.T) {
	testStore(t, func(t *testing.T) (a, b kms.Store) {
		path := create(t)
		return open(t, path), open(t, path)
	})
}

func TestURL(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	// Names that mean something in a URL are only names here.
	for i, name := range []string{"plain.db", "a b.db", "100%.db", "q?mode=ro", "#1", "ü"} {
		for j, url := range []string{"sqlite:" + name, "sqlite:" + filepath.Join(dir, name), filepath.Join(dir, name), "./" + name, "sqlite://" + filepath.Join(dir, name)} {
			file := fmt.Sprintf("%s%d%d", name, i, j)
			if err := store.Create(t.Context(), url+fmt.Sprintf("%d%d", i, j)); err != nil {
				t.Errorf("Create %s: %v", url, err)
				continue
			}
			if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
				t.Error(err)
			}
			d, err := store.Open(t.Context(), url+fmt.Sprintf("%d%d", i, j))
			if err != nil {
				t.Errorf("Open %s: %v", url, err)
				continue
			}
			d.Close()
		}
	}
	for _, url := range []string{"", "sqlite:", "postgres://localhost/strongroom", "mysql:x", "sqlite://host/path", "SQLITE:x", "sqlite:a\x00b", "."} {
		_, err := store.Open(t.Context(), url)
		if err == nil {
			t.Errorf("Open %q worked", url)
		}
		if err := store.Create(t.Context(), url); err == nil {
			t.Errorf("Create %q worked", url)
		}
	}
	_, err := store.Open(t.Context(), "postgres://localhost/strongroom")
	mention(t, err, `unknown kind of store "postgres"`, "sqlite:/path")
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := create(t)
	foreign := create(t)
	d := open(t, foreign)
	d.SQL(t, "PRAGMA application_id = 7", "PRAGMA wal_checkpoint(TRUNCATE)")
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, path string
		says       []string
		is         error
	}{
		{"missing", filepath.Join(dir, "missing.db"), []string{"missing.db", "strongroom init"}, fs.ErrNotExist},
		{"missing directory", filepath.Join(dir, "none", "missing.db"), []string{"strongroom init"}, fs.ErrNotExist},
		{"directory", dir, []string{"not a file"}, nil},
		{"empty", write("empty", nil), []string{"not a strongroom store", "strongroom init"}, nil},
		{"text", write("text", []byte(strings.Repeat("not a database\n", 1000))), []string{"no strongroom store", "strongroom init"}, nil},
		{"other database", foreign, []string{"not a strongroom store", "strongroom init"}, nil},
		{"cut off", write("cut", whole[:len(whole)/2]), []string{"damaged"}, nil},
		{"header alone", write("header", whole[:100]), nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			before, _ := os.ReadFile(test.path)
			for what, err := range map[string]error{
				"Open":    openAndClose(t, test.path),
				"Migrate": store.Migrate(t.Context(), test.path),
			} {
				if what == "Migrate" && test.name == "cut off" {
					continue // the schema's first page says that there is nothing to do
				}
				if err == nil {
					t.Fatalf("%s worked", what)
				}
				mention(t, err, test.says...)
				if test.is != nil {
					want(t, err, test.is)
				}
			}
			after, _ := os.ReadFile(test.path)
			if string(before) != string(after) {
				t.Error("the file was changed")
			}
		})
	}
	if _, err := os.Stat(filepath.Join(dir, "missing.db")); err == nil {
		t.Error("Open made a file")
	}
}

func TestCreateRefuses(t *testing.T) {
	path := create(t)
	d := open(t, path)
	insertAccounts(t, d)
	want(t, store.Create(t.Context(), path), fs.ErrExist)
	update(t, d, func(tx kms.Tx) error {
		want(t, tx.InsertAccount(account, time.Now()), kms.ErrConflict) // it is still there
		return nil
	})

	// A name that leads nowhere is taken as well.
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("nowhere", link); err != nil {
		t.Fatal(err)
	}
	want(t, store.Create(t.Context(), link), fs.ErrExist)

	// SQLite would play a log that was left behind into the new store.
	for _, suffix := range []string{"-wal", "-shm", "-journal"} {
		fresh := filepath.Join(t.TempDir(), "fresh")
		if err := os.WriteFile(fresh+suffix, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		err := store.Create(t.Context(), fresh)
		if errors.Is(err, fs.ErrExist) {
			t.Errorf("%v: taken for a store that is there", err)
		}
		mention(t, err, "move it away")
	}
	// What somebody else put there in the meantime is left as it is.
	late := filepath.Join(t.TempDir(), "late")
	store.OnStep(func(step string) {
		if step == "filled" {
			os.WriteFile(late, []byte("mine"), 0o600)
		}
	})
	defer store.OnStep(func(string) {})
	want(t, store.Create(t.Context(), late), fs.ErrExist)
	if b, err := os.ReadFile(late); string(b) != "mine" {
		t.Errorf("the file of another is now %q, %v", b, err)
	}
	if err := store.Create(t.Context(), filepath.Join(t.TempDir(), "none", "store.db")); err == nil {
		t.Error("Create made a directory")
	}
}

func TestFiles(t *testing.T) {
	path := create(t)
	d := open(t, path)
	insertAccounts(t, d)
	view(t, d, func(kms.Tx) error { return nil })
	if err := d.Claim(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		info, err := os.Stat(path + suffix)
		if err != nil {
			t.Error(err)
		} else if info.Mode() != 0o600 {
			t.Errorf("store.db%s has mode %v", suffix, info.Mode())
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 4 {
		t.Errorf("files %v, %v", entries, err)
	}
}

func TestSettings(t *testing.T) {
	d := open(t, create(t))
	for pragma, want := range map[string]string{
		"journal_mode":         "wal",
		"synchronous":          "2", // FULL
		"foreign_keys":         "1",
		"trusted_schema":       "0",
		"cell_size_check":      "1",
		"fullfsync":            "1",
		"checkpoint_fullfsync": "1",
		"busy_timeout":         fmt.Sprint(store.BusyTimeout.Milliseconds()),
		"wal_autocheckpoint":   "1000",
		"journal_size_limit":   "67108864",
		"application_id":       fmt.Sprint(0x5374726d),
		"query_only":           "0",
		"integrity_check":      "ok",
	} {
		same(t, d.Rows(t, "PRAGMA "+pragma), []string{want})
		if pragma == "query_only" {
			want = "1"
		}
		same(t, d.ReaderRows(t, "PRAGMA "+pragma), []string{want})
	}
}

func TestMigrate(t *testing.T) {
	path := create(t)
	d := open(t, path)
	insertAccounts(t, d)
	own := len(ownMigrations(t, 1<<10))
	numbers := func(n int) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprint(i+1))
		}
		return all
	}
	same(t, d.Rows(t, "SELECT number FROM migration"), numbers(own))
	want(t, store.Migrate(t.Context(), path), nil) // nothing to do

	files := ownMigrations(t, own)
	third, fourth := fmt.Sprintf("migrations/%04d_three.sql", own+1), fmt.Sprintf("migrations/%04d_four.sql", own+2)
	schema := func(n int) string { return fmt.Sprintf("schema %d", n) }
	needs := fmt.Sprintf("needs %d", own+2)
	files[third] = &fstest.MapFile{
		Data: []byte("CREATE TABLE three (a BIGINT); CREATE TABLE three_more (b BIGINT); INSERT INTO three VALUES (3);"),
	}
	files[fourth] = &fstest.MapFile{Data: []byte("ALTER TABLE three ADD COLUMN c BIGINT; INSERT INTO nowhere VALUES (1);")}
	store.UseMigrations(t, files)
	mention(t, openAndClose(t, path), schema(own), needs, "strongroom migrate")

	// A step that fails leaves the steps before it done, and nothing of itself.
	if err := store.Migrate(t.Context(), path); err == nil {
		t.Fatal("a migration with an error worked")
	} else {
		mention(t, err, filepath.Base(fourth))
	}
	same(t, d.Rows(t, "SELECT * FROM three"), []string{"3"})
	mention(t, openAndClose(t, path), schema(own+1), needs, "strongroom migrate")

	files[fourth].Data = []byte("ALTER TABLE three ADD COLUMN c BIGINT;")
	store.UseMigrations(t, files)
	want(t, store.Migrate(t.Context(), path), nil)
	want(t, openAndClose(t, path), nil)
	same(t, d.Rows(t, "SELECT * FROM three"), []string{"3 <nil>"})
	same(t, d.Rows(t, "SELECT number FROM migration"), numbers(own+2))

	// Not while a server runs.
	want(t, d.Claim(t.Context()), nil)
	mention(t, store.Migrate(t.Context(), path), "in use", fmt.Sprint(os.Getpid()))

	// An older program meets a newer store, and a program of other descent meets it.
	delete(files, fourth)
	store.UseMigrations(t, files)
	mention(t, openAndClose(t, path), "newer strongroom")
	mention(t, store.Migrate(t.Context(), path), "") // any error
	files[third].Data = []byte("CREATE TABLE other (a BIGINT);")
	store.UseMigrations(t, files)
	mention(t, openAndClose(t, path), filepath.Base(third))
}

// ownMigrations returns the first n of the program's migrations, or all if there are fewer.
func ownMigrations(t testing.TB, n int) fstest.MapFS {
	t.Helper()
	names, err := fs.Glob(store.Files(), "migrations/*.sql") // sorted
	if err != nil {
		t.Fatal(err)
	}
	files := make(fstest.MapFS)
	for _, name := range names[:min(n, len(names))] {
		text, err := fs.ReadFile(store.Files(), name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: text}
	}
	return files
}

// A store of the first schema keeps everything that it has.
func TestMigrateFirst(t *testing.T) {
	store.UseMigrations(t, ownMigrations(t, 1))
	path := create(t)
	d := open(t, path)
	k, fresh, gone := newKey(kms.StatePendingDeletion), newKey(kms.StateCreating), newMaterial()
	k.Description, k.Policy = "déjà vu", `{"Version":"2012-10-17"}`
	k.DeletionDate = exact().Add(time.Hour)
	k.Tags = map[string]string{"a": "b"}
	k.Materials = append(k.Materials, newMaterial())
	fresh.Materials[0].Ref = nil
	sealer := kms.SystemKey{Name: "access-keys", ID: newMaterialID(), Ref: hsm.Ref("\x00ref")}
	deployment := kms.Deployment{
		ID: "2a0c8f4e-5a7e-4d05-8e4a-0d7f5b1a9c11", Created: exact(), Partition: "aws", Region: "eu-central-1", TokenSerial: "0123abcd",
	}
	credential := kms.Credential{
		ID: "AKIAEXAMPLE", Account: account, Principal: "arn:aws:iam::111122223333:root", Active: true, Created: exact(), Sealed: []byte{0, 1, 255},
	}
	alias := newAlias("alias/a", k.ID)
	statements := []string{
		"UPDATE generation SET value = 77",
		fmt.Sprintf("INSERT INTO account VALUES ('%s', 1)", account),
		fmt.Sprintf("INSERT INTO deployment VALUES (1, '%s', %d, 'aws', 'eu-central-1', '0123abcd', '%s', x'%v', x'%x')",
			deployment.ID, deployment.Created.UnixMilli(), sealer.Name, sealer.ID, []byte(sealer.Ref)),
		fmt.Sprintf("INSERT INTO credential VALUES ('%s', '%s', '%s', 1, %d, x'0001ff')",
			credential.ID, account, credential.Principal, credential.Created.UnixMilli()),
		fmt.Sprintf("INSERT INTO tombstone VALUES ('%v', '%s', 5)", newID(), account),
		fmt.Sprintf("INSERT INTO tombstone_material SELECT x'%v', key_id FROM tombstone", gone.ID),
	}
	for _, k := range []*kms.Key{k, fresh} {
		date := "NULL"
		if !k.DeletionDate.IsZero() {
			date = fmt.Sprint(k.DeletionDate.UnixMilli())
		}
		statements = append(statements, fmt.Sprintf("INSERT INTO kms_key VALUES ('%v', '%s', '%s', '%s', %d, %s, '%s')",
			k.ID, k.Account, k.State, k.Description, k.Created.UnixMilli(), date, k.Policy))
		for i, m := range k.Materials {
			ref := "NULL"
			if m.Ref != nil {
				ref = fmt.Sprintf("x'%x'", []byte(m.Ref))
			}
			statements = append(statements, fmt.Sprintf("INSERT INTO material VALUES (x'%v', '%v', %d, %s, %d)", m.ID, k.ID, i, ref, m.Created.UnixMilli()))
		}
	}
	statements = append(statements,
		fmt.Sprintf("INSERT INTO tag VALUES ('%v', 'a', 'b')", k.ID),
		fmt.Sprintf("INSERT INTO alias VALUES ('%s', '%s', '%v', %d, %d)", account, alias.Name, k.ID, alias.Created.UnixMilli(), alias.Updated.UnixMilli()))
	d.SQL(t, statements...)

	store.UseMigrations(t, store.Files())
	mention(t, openAndClose(t, path), "schema 1", fmt.Sprintf("needs %d", len(ownMigrations(t, 1<<10))), "strongroom migrate")
	want(t, store.Migrate(t.Context(), path), nil)
	d = open(t, path)
	view(t, d, func(tx kms.Tx) error {
		gotDeployment, err := tx.Deployment()
		want(t, err, nil)
		same(t, gotDeployment, &deployment)
		gotSealer, err := tx.SystemKey(sealer.Name)
		want(t, err, nil)
		same(t, gotSealer, &sealer)
		gotCredential, err := tx.Credential(credential.ID)
		want(t, err, nil)
		same(t, gotCredential, &credential)
		for _, k := range []*kms.Key{k, fresh} {
			got, err := tx.Key(k.ID)
			want(t, err, nil)
			same(t, got, k)
		}
		gotAlias, err := tx.Alias(account, alias.Name)
		want(t, err, nil)
		same(t, gotAlias, alias)
		return nil
	})
	same(t, d.Rows(t, "SELECT lower(hex(m.id)), account, destroyed FROM tombstone_material m JOIN tombstone USING (key_id)"),
		[]string{fmt.Sprint(gone.ID, " ", account, " 5")})
	same(t, d.Rows(t, "SELECT value FROM generation"), []string{fmt.Sprint(76 + len(ownMigrations(t, 1<<10)))}) // each migration is a change too
	// Encryptions before they were counted are assumed to have been a quarter of what is allowed.
	for _, m := range k.Materials {
		view(t, d, func(tx kms.Tx) error {
			n, err := tx.MaterialUses(m.ID)
			same(t, n, int64(kms.DefaultSealLimit/4))
			return err
		})
	}
	same(t, d.Rows(t, "PRAGMA integrity_check"), []string{"ok"})
	same(t, len(d.Rows(t, "PRAGMA foreign_key_check")), 0)

	// A store before its init can be migrated as well.
	store.UseMigrations(t, ownMigrations(t, 1))
	path = create(t)
	store.UseMigrations(t, store.Files())
	want(t, store.Migrate(t.Context(), path), nil)
	d = open(t, path)
	view(t, d, func(tx kms.Tx) error {
		_, err := tx.SystemKey(sealer.Name)
		want(t, err, kms.ErrNotStored)
		_, err = tx.Deployment()
		want(t, err, kms.ErrNotStored)
		return nil
	})
}

func TestTombstone(t *testing.T) {
	d := open(t, create(t))
	insertAccounts(t, d)
	destroyed, undone := newKey(kms.StateDestroying), newKey(kms.StateCreating)
	destroyed.Materials = append(destroyed.Materials, newMaterial())
	destroyed.Tags = map[string]string{"a": "b"}
	insertKeys(t, d, destroyed, undone)
	now := exact()
	update(t, d, func(tx kms.Tx) error {
		return errors.Join(tx.DeleteKey(destroyed.ID, now), tx.DeleteKey(undone.ID, now))
	})
	same(t, d.Rows(t, "SELECT * FROM tombstone"), []string{fmt.Sprint(destroyed.ID, " ", account, " ", now.UnixMilli())})
	same(t, d.Rows(t, "SELECT lower(hex(m.id)), key_id FROM tombstone_material m ORDER BY m.rowid"), []string{
		fmt.Sprint(destroyed.Materials[0].ID, " ", destroyed.ID),
		fmt.Sprint(destroyed.Materials[1].ID, " ", destroyed.ID),
	})
	for _, table := range []string{"kms_key", "tag", "material", "alias", "kms_grant", "key_use"} {
		same(t, d.Rows(t, "SELECT count(*) FROM "+table), []string{"0"})
	}
}

// Of a principal that was deleted, what keeps its name and its id taken is left.
func TestDeletedPrincipal(t *testing.T) {
	d := open(t, create(t))
	insertAccounts(t, d)
	p := newPrincipal(kms.User, "alice")
	p.Tags = map[string]string{"a": "b"}
	p.Policies = []kms.NamedPolicy{{Name: "p", Text: "{}"}}
	now := exact().Add(time.Minute)
	update(t, d, func(tx kms.Tx) error { return tx.InsertPrincipal(p) })
	update(t, d, func(tx kms.Tx) error { return tx.DeletePrincipal(account, kms.User, "alice", now) })
	same(t, d.Rows(t, "SELECT * FROM principal"), []string{fmt.Sprint(p.ID, " ", account, " user alice ", p.Created.UnixMilli(), " ", now.UnixMilli())})
	for _, table := range []string{"principal_tag", "principal_policy"} {
		same(t, d.Rows(t, "SELECT count(*) FROM "+table), []string{"0"})
	}
}

// Values that this program would never store are errors that say where they are, and not panics.
func TestDamagedValues(t *testing.T) {
	d := open(t, create(t))
	insertAccounts(t, d)
	k := newKey(kms.StateEnabled)
	alias := newAlias("alias/a", k.ID)
	grant := newGrant(k.ID, alice)
	id := k.Materials[0].ID
	reset := func() {
		d.SQL(t, "PRAGMA ignore_check_constraints = ON", "PRAGMA foreign_keys = OFF",
			"DELETE FROM alias", "DELETE FROM tag", "DELETE FROM material", "DELETE FROM kms_key", "DELETE FROM credential", "DELETE FROM deployment",
			"DELETE FROM kms_grant", "DELETE FROM system_key", "DELETE FROM event")
		insertKeys(t, d, k)
		update(t, d, func(tx kms.Tx) error {
			return errors.Join(
				tx.InsertAlias(alias),
				tx.InsertCredential(&kms.Credential{ID: "AKIA", Account: account, Sealed: []byte{1}}),
				tx.InsertDeployment(&kms.Deployment{}),
				tx.InsertSystemKey(&kms.SystemKey{Name: "audit", ID: newMaterialID(), Ref: hsm.Ref("x")}),
				tx.InsertGrant(grant))
		})
	}
	key := func(tx kms.Tx) error { _, err := tx.Key(k.ID); return err }
	keys := func(tx kms.Tx) error { _, err := tx.Keys(account, kms.KeyID{}, 9); return err }
	deployment := func(tx kms.Tx) error { _, err := tx.Deployment(); return err }
	credential := func(tx kms.Tx) error { _, err := tx.Credential("AKIA"); return err }
	systemKey := func(tx kms.Tx) error { _, err := tx.SystemKey("audit"); return err }
	readGrant := func(tx kms.Tx) error { _, err := tx.Grant(k.ID, grant.ID); return err }
	text := k.ID.String()
	for _, test := range []struct {
		damage string
		read   func(kms.Tx) error
		says   []string
	}{
		{"UPDATE kms_key SET state = 'Sleeping'", key, []string{"table kms_key", text, `unknown key state "Sleeping"`}},
		{"UPDATE kms_key SET state = x'00'", key, []string{"table kms_key", text}},
		{"UPDATE kms_key SET created = 'yesterday'", key, []string{"table kms_key", text}},
		{"UPDATE kms_key SET deletion_date = 1.5", key, []string{"table kms_key", text}},
		{"DELETE FROM material", key, []string{"table material", text, "without material"}},
		{"UPDATE material SET id = x'0102'", key, []string{"table material", text, "2 bytes"}},
		{"UPDATE material SET id = 'sixteen letters.'", key, []string{"table material", text}},
		{"UPDATE material SET ref = x''", key, []string{"table material", text, "0 bytes"}},
		{"UPDATE material SET ref = zeroblob(257)", key, []string{"table material", text, "257 bytes"}},
		{"UPDATE material SET ref = 7", key, []string{"table material", text}},
		{"UPDATE material SET key_id = 'nonsense'", func(tx kms.Tx) error { _, err := tx.KeyOfMaterial(id); return err }, []string{"table material", id.String()}},
		{"UPDATE kms_key SET id = upper(id) || 'X'", keys, []string{"table kms_key", account}},
		{"UPDATE kms_key SET id = x'0102'", func(tx kms.Tx) error { _, err := tx.KeysInState(kms.StateEnabled, time.Time{}, 9); return err }, []string{"table kms_key", "Enabled"}},
		{"UPDATE alias SET key_id = ''", func(tx kms.Tx) error { _, err := tx.Alias(account, "alias/a"); return err }, []string{"table alias", "alias/a"}},
		{"UPDATE alias SET updated = 'now'", func(tx kms.Tx) error { _, err := tx.Aliases(account, kms.KeyID{}, "", 9); return err }, []string{"table alias", account}},
		{"UPDATE credential SET active = 2", credential, []string{"table credential", "AKIA"}},
		{"UPDATE material SET reason = 'BOREDOM'", key, []string{"table material", text, `unknown reason "BOREDOM"`}},
		{"UPDATE material SET reason = x'00'", key, []string{"table material", text}},
		{"UPDATE kms_key SET rotation_days = 'often'", key, []string{"table kms_key", text}},
		{"UPDATE deployment SET usage_since = 'now'", deployment, []string{"table deployment"}},
		{"UPDATE system_key SET id = x'01'", systemKey, []string{"table system_key", "audit", "1 bytes"}},
		{"UPDATE system_key SET ref = x''", systemKey, []string{"table system_key", "audit", "0 bytes"}},
		{"UPDATE kms_grant SET context_equals = 'null'", readGrant, []string{"table kms_grant", grant.ID, "JSON"}},
		{"UPDATE kms_grant SET context_subset = '{'", readGrant, []string{"table kms_grant", grant.ID, "JSON"}},
		{"UPDATE kms_grant SET context_subset = x'7b7d'", readGrant, []string{"table kms_grant", grant.ID}},
		{"UPDATE kms_grant SET operations = -1", readGrant, []string{"table kms_grant", grant.ID}},
		{"UPDATE kms_grant SET name = x'00'", readGrant, []string{"table kms_grant", grant.ID}},
		{"UPDATE kms_grant SET created = 'now'", func(tx kms.Tx) error { _, err := tx.Grants(k.ID, "", "", 9); return err }, []string{"table kms_grant", text}},
		{"UPDATE generation SET one = 2", func(kms.Tx) error { _, err := d.Generation(t.Context()); return err }, []string{"table generation"}},
	} {
		reset()
		d.SQL(t, test.damage)
		err := d.View(t.Context(), test.read)
		if err == nil {
			t.Errorf("%s: no error", test.damage)
			continue
		}
		if errors.Is(err, kms.ErrNotStored) {
			t.Errorf("%s: %v", test.damage, err)
		}
		mention(t, err, test.says...)
		if strings.HasPrefix(test.damage, "UPDATE generation") {
			// Nothing can be stored without it.
			err := d.Update(t.Context(), func(tx kms.Tx) error { return tx.SetDescription(k.ID, "x") })
			mention(t, err, "generation", "restore a backup")
			d.SQL(t, "UPDATE generation SET one = 1")
		}
	}
	// An event without a number would be lost.
	d.SQL(t, "DELETE FROM event_sequence")
	err := d.Update(t.Context(), func(tx kms.Tx) error { tx.InsertEvent([]byte("x")); return nil })
	mention(t, err, "table event_sequence", "restore a backup")
}

func TestDamagedFile(t *testing.T) {
	path := create(t)
	d, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	insertAccounts(t, d)
	var keys []*kms.Key
	for range 200 {
		keys = append(keys, newKey(kms.StateEnabled))
	}
	insertKeys(t, d, keys...)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	noticed := 0
	for n := page; n < len(whole); n += page {
		bad := append([]byte(nil), whole...)
		for i := n; i < n+page; i++ {
			bad[i] = 0xa5
		}
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := store.Open(t.Context(), path)
		if err == nil {
			err = d.View(t.Context(), func(tx kms.Tx) error {
				for _, k := range keys {
					got, err := tx.Key(k.ID)
					if err != nil {
						return err
					}
					same(t, got, k)
				}
				return nil
			})
			d.Close()
		}
		// A page that is not read does no harm, and one that is does not go unnoticed.
		if err != nil {
			mention(t, err, "damaged", "restore a backup")
			noticed++
		}
	}
	if noticed < 10 {
		t.Errorf("noticed only %d damaged pages of %d", noticed, len(whole)/page-1)
	}
}

// When there is no space an Update fails as a whole, the store stays readable, and all is well when there is space again.
func TestFull(t *testing.T) {
	path := create(t)
	d := open(t, path)
	insertAccounts(t, d)
	first := newKey(kms.StateEnabled)
	insertKeys(t, d, first)
	d.SQL(t, "PRAGMA max_page_count = 100")
	stored := map[kms.KeyID]bool{first.ID: true}
	var full error
	for range 1000 {
		k := newKey(kms.StateEnabled)
		k.Policy = strings.Repeat("x", 3000)
		k.Tags = map[string]string{"a": strings.Repeat("x", 3000)}
		// Even a caller that passes over the error gets nothing stored.
		err := d.Update(t.Context(), func(tx kms.Tx) error {
			if err := tx.InsertKey(k); err != nil {
				full = err
			}
			tx.InsertAlias(newAlias("alias/"+k.ID.String(), k.ID))
			tx.SetDescription(first.ID, k.ID.String())
			return nil
		})
		if err != nil {
			mention(t, err, "no space is left")
			break
		}
		stored[k.ID] = true
	}
	if full == nil {
		t.Fatal("the store did not fill up")
	}
	check := func() {
		t.Helper()
		view(t, d, func(tx kms.Tx) error {
			ids, err := tx.Keys(account, kms.KeyID{}, 10_000)
			same(t, len(ids), len(stored))
			for _, id := range ids {
				if !stored[id] {
					t.Errorf("%v was not stored and is there", id)
				}
				if _, err := tx.Key(id); err != nil {
					t.Error(err)
				}
			}
			return err
		})
		same(t, d.Rows(t, "PRAGMA integrity_check"), []string{"ok"})
		same(t, len(d.Rows(t, "PRAGMA foreign_key_check")), 0)
	}
	check()
	// A change that needs no space works meanwhile.
	update(t, d, func(tx kms.Tx) error {
		return tx.SetState(first.ID, kms.StateEnabled, kms.StateDisabled, time.Time{})
	})
	check()
	d.SQL(t, "PRAGMA max_page_count = 100000")
	for range 50 {
		k := newKey(kms.StateEnabled)
		k.Policy = strings.Repeat("x", 3000)
		insertKeys(t, d, k)
		stored[k.ID] = true
	}
	check()
}

// Every look at a table of unbounded size goes by an index, and no list is sorted after it was read.
func TestPlans(t *testing.T) {
	d := open(t, create(t))
	insertAccounts(t, d)
	small := regexp.MustCompile(`\b(generation|deployment|migration)\b`)
	parameter := regexp.MustCompile(`\$\d+`)
	n := 0
	for sql, does := range store.Statements() {
		if strings.Contains(sql, "VALUES") || small.MatchString(does) {
			continue
		}
		n++
		args := make([]any, len(distinct(parameter.FindAllString(sql, -1))))
		for i := range args {
			args[i] = 1
		}
		for _, step := range d.Rows(t, "EXPLAIN QUERY PLAN "+sql, args...) {
			switch {
			case strings.Contains(step, "SEARCH") && strings.Contains(step, "INDEX"):
			case strings.Contains(step, "SUBQUERY"): // its steps are among the others
			case strings.Contains(step, "SCAN event USING INDEX") && strings.Contains(sql, "LIMIT"): // the first of all, in order
			default:
				t.Errorf("%s:\n%s\nis done by: %s", does, strings.TrimSpace(sql), step)
			}
		}
	}
	if n < 20 {
		t.Errorf("looked at %d statements only", n)
	}
	if all := len(store.Statements()); all+10 > store.StatementCache { // with those that begin and end a transaction
		t.Errorf("of %d statements each connection keeps %d", all, store.StatementCache)
	}
	// The order of parameters is what both databases take them by.
	for sql, does := range store.Statements() {
		for i, p := range distinct(parameter.FindAllString(sql, -1)) {
			if p != fmt.Sprintf("$%d", i+1) {
				t.Errorf("%s: %s is parameter %d", does, p, i+1)
			}
		}
	}
}

func distinct(all []string) (first []string) {
	seen := make(map[string]bool)
	for _, s := range all {
		if !seen[s] {
			seen[s] = true
			first = append(first, s)
		}
	}
	return first
}

// create makes a store and returns its path.
func create(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store.db")
	if err := store.Create(t.Context(), "sqlite:"+path); err != nil {
		t.Fatal(err)
	}
	return path
}

// open opens the store at path until the test ends.
func open(t testing.TB, path string) *store.DB {
	t.Helper()
	d, err := store.Open(t.Context(), "sqlite:"+path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func openAndClose(t testing.TB, path string) error {
	d, err := store.Open(t.Context(), path)
	if err != nil {
		return err
	}
	return d.Close()
}

// mention checks that err says all that it should.
func mention(t testing.TB, err error, says ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error; want one that says %q", says)
		return
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("the error %q does not say %q", err, s)
		}
	}
}
