package store_test

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"strongroom/kms"
	"strongroom/store"
)

func TestVerify(t *testing.T) {
	path := create(t)
	d := open(t, path)
	insertThings(t, d)
	problems, err := d.Verify(t.Context())
	if err != nil || len(problems) != 0 {
		t.Errorf("a whole store: %v, %v", problems, err)
	}

	// A row that names one that is not there.
	d.SQL(t, "PRAGMA foreign_keys = OFF", "INSERT INTO tag (key_id, name, value) VALUES ('1234', 'a', 'b')", "PRAGMA foreign_keys = ON")
	problems, err = d.Verify(t.Context())
	if err != nil || len(problems) != 1 || problems[0].Table != "tag" || !strings.Contains(problems[0].String(), "table kms_key that is not there") {
		t.Errorf("a reference to nothing: %v, %v", problems, err)
	}
	d.SQL(t, "DELETE FROM tag WHERE key_id = '1234'")

	// An index that lacks an entry of its table.
	d.SQL(t, "PRAGMA writable_schema = ON", "UPDATE sqlite_schema SET sql = 'CREATE INDEX alias_of_key ON alias (account, name, key_id)' WHERE name = 'alias_of_key'",
		"PRAGMA writable_schema = OFF")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, path)
	problems, err = d.Verify(t.Context())
	if err != nil || len(problems) == 0 || !strings.Contains(problems[0].String(), "alias_of_key") {
		t.Errorf("an index that is not that of its table: %v, %v", problems, err)
	}
}

// Each page of a store is damaged in turn. Where Verify can be asked, it finds that, and never calls it a failure of its own.
func TestVerifyDamagedPages(t *testing.T) {
	path := create(t)
	d := open(t, path)
	insertThings(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	asked := 0
	for n := 1; n < len(whole)/page; n++ {
		damaged := bytes.Clone(whole)
		for i := range 512 { // the header of the page, and where its cells are
			damaged[n*page+i] ^= 0xA5
		}
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := store.Open(t.Context(), path)
		if err != nil {
			continue // found already
		}
		asked++
		problems, err := d.Verify(t.Context())
		if err != nil || len(problems) == 0 {
			t.Errorf("page %d of %d: %v, %v", n, len(whole)/page, problems, err)
		}
		d.Close()
	}
	if asked < 10 {
		t.Errorf("of %d damaged stores only %d opened", len(whole)/page, asked)
	}
}

func TestNewest(t *testing.T) {
	d := open(t, create(t))
	insertAccounts(t, d)
	before, err := d.Newest(t.Context())
	if err != nil || time.Since(before) > time.Minute || time.Since(before) < 0 {
		t.Errorf("of a new store: %v, %v", before, err)
	}
	k := newKey(kms.StatePendingDeletion)
	k.Created = time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
	k.DeletionDate = k.Created.Add(time.Hour) // what is due is not what has been
	k.Rotation = kms.Rotation{Days: 90, Next: k.DeletionDate}
	insertKeys(t, d, k)
	got, err := d.Newest(t.Context())
	if err != nil || !got.Equal(k.Created) {
		t.Errorf("got %v, %v, want %v", got, err, k.Created)
	}
}

func TestSchemaOf(t *testing.T) {
	path := create(t)
	have, known, err := store.Schema(t.Context(), path)
	if err != nil || have != known || known < 2 {
		t.Errorf("got %d of %d, %v", have, known, err)
	}
	d := open(t, path)
	d.SQL(t, "DELETE FROM migration WHERE number > 1")
	if have, again, err := store.Schema(t.Context(), path); err != nil || have != 1 || again != known {
		t.Errorf("an older store: %d of %d, %v", have, again, err)
	}
	if _, err := store.Open(t.Context(), path); err == nil {
		t.Error("an older store opens")
	}
	d.SQL(t, "INSERT INTO migration (number, sha256, applied) SELECT n, x'00', 0 FROM (SELECT 2 AS n UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9)")
	if have, _, err := store.Schema(t.Context(), path); err == nil || have <= known {
		t.Errorf("a newer store: %d, %v", have, err)
	}
}

func TestServer(t *testing.T) {
	path := create(t)
	served := func(url string, want int) {
		t.Helper()
		pid, ok, err := store.Server(url)
		if err != nil || ok != (want != 0) || pid != want {
			t.Errorf("got process %d, %v, %v, want %d", pid, ok, err, want)
		}
	}
	served(path, 0)
	d := open(t, path)
	if err := d.Claim(t.Context()); err != nil {
		t.Fatal(err)
	}
	served("sqlite:"+path, os.Getpid())
	link := path + ".link"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	served(link, os.Getpid())

	// One whose number means nothing here.
	if err := os.WriteFile(path+".lock", []byte("2147483647\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if pid, ok, err := store.Server(path); pid != 0 || !ok || err != nil {
		t.Errorf("got process %d, %v, %v", pid, ok, err)
	}
	// To look takes nothing: what was served can be again, at once.
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	served(path, 0)
	again := open(t, path)
	if err := again.Claim(t.Context()); err != nil {
		t.Error(err)
	}
}
