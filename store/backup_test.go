package store_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"strongroom/kms"
	"strongroom/store"
)

// newDeployment makes a store that has a deployment.
func newDeployment(t testing.TB) string {
	t.Helper()
	path := create(t)
	d, err := store.Open(t.Context(), path)
	want(t, err, nil)
	insertAccounts(t, d)
	update(t, d, func(tx kms.Tx) error {
		return tx.InsertDeployment(&kms.Deployment{ID: "d", Created: exact(), Partition: "aws", Region: "local-1", TokenSerial: "42"})
	})
	want(t, d.Close(), nil)
	return path
}

// Each backup has all that was answered before it began, whole, whatever another process writes meanwhile.
func TestBackup(t *testing.T) {
	path := newDeployment(t)
	d := open(t, path)
	c := start(t, "commit", path)
	var answered []string
	for round := range 5 {
		for range 150 {
			answered = append(answered, c.line())
		}
		out := filepath.Join(t.TempDir(), "copy.db")
		said, err := d.Backup(t.Context(), out)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(out); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
		for _, suffix := range []string{"-wal", "-shm", "-journal"} {
			if _, err := os.Stat(out + suffix); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v", suffix, err)
			}
		}
		copied, err := store.OpenCopy(t.Context(), out)
		if err != nil {
			t.Fatal(err)
		}
		var there []string
		view(t, copied, func(tx kms.Tx) error {
			there = nil
			ids, err := tx.Keys(account, kms.KeyID{}, 1_000_000)
			for _, id := range ids {
				there = append(there, id.String())
				if k, err := tx.Key(id); err != nil || len(k.Tags) != 1 || len(k.Materials) != 1 {
					t.Errorf("half a key: %+v, %v", k, err)
				}
				if n, err := tx.CountAliases(id); n != 1 || err != nil {
					t.Errorf("key %v has %d aliases, %v", id, n, err)
				}
			}
			return err
		})
		want(t, copied.Close(), nil)
		for _, id := range answered {
			if _, found := slices.BinarySearch(there, id); !found {
				t.Errorf("round %d: key %s was answered before the backup and is not in it", round, id)
			}
		}
		same(t, said.Rows["kms_key"], int64(len(there)))
		same(t, said.Rows["alias"], int64(len(there)))
		same(t, said.Deployment.ID+said.Deployment.TokenSerial, "d42")
		want(t, second(d.Backup(t.Context(), out)), fs.ErrExist)
	}
	c.kill()
	t.Logf("%d keys", len(answered))
}

func second[T any](_ T, err error) error { return err }

// What cannot be made whole leaves nothing.
func TestBackupFails(t *testing.T) {
	d := open(t, newDeployment(t))
	var keys []*kms.Key
	for range 2000 {
		k := newKey(kms.StateEnabled)
		k.Policy = strings.Repeat("x", 2000)
		keys = append(keys, k)
	}
	insertKeys(t, d, keys...)
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Millisecond)
	defer cancel()
	want(t, second(d.Backup(ctx, filepath.Join(dir, "copy.db"))), context.DeadlineExceeded)
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	want(t, second(d.Backup(t.Context(), filepath.Join(dir, "none", "copy.db"))), fs.ErrNotExist)
	empty := open(t, create(t))
	mention(t, second(empty.Backup(t.Context(), filepath.Join(dir, "copy.db"))), "holds no deployment")
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

// A damaged copy is told from a whole one, page by page.
func TestInspect(t *testing.T) {
	path := newDeployment(t)
	d := open(t, path)
	var keys []*kms.Key
	for range 200 {
		keys = append(keys, newKey(kms.StateEnabled))
	}
	insertKeys(t, d, keys...)
	out := filepath.Join(t.TempDir(), "copy.db")
	if _, err := d.Backup(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(out)
	want(t, err, nil)
	const page = 4096
	for n := 0; n < len(whole); n += page {
		bad := slices.Clone(whole)
		rand.Read(bad[n : n+page])
		want(t, os.WriteFile(out, bad, 0o600), nil)
		mention(t, second(store.Inspect(t.Context(), out)), out)
	}
	for _, n := range []int{0, 10, page, len(whole) / 2, len(whole) - page} {
		want(t, os.WriteFile(out, whole[:n], 0o600), nil)
		mention(t, second(store.Inspect(t.Context(), out)), out)
	}
	want(t, os.WriteFile(out, whole, 0o600), nil)
	want(t, second(store.Inspect(t.Context(), out)), nil)
	want(t, os.WriteFile(out+"-wal", []byte("x"), 0o600), nil)
	mention(t, second(store.Inspect(t.Context(), out)), "was not closed")
	mention(t, second(store.Inspect(t.Context(), path+".none")), "no such file")
}

// A copy is brought to this program's schema; one of a newer program is refused.
func TestOpenCopySchema(t *testing.T) {
	path := create(t)
	want(t, second(store.OpenCopy(t.Context(), path+".none")), fs.ErrNotExist)
	newer := fstest.MapFS{"migrations/9999_new.sql": {Data: []byte("CREATE TABLE more (one BIGINT)")}}
	n := 0
	want(t, fs.WalkDir(store.Files(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		n++
		text, err := fs.ReadFile(store.Files(), name)
		newer[name] = &fstest.MapFile{Data: text}
		return err
	}), nil)
	newer[fmt.Sprintf("migrations/%04d_new.sql", n+1)] = newer["migrations/9999_new.sql"]
	delete(newer, "migrations/9999_new.sql")
	t.Run("older", func(t *testing.T) {
		store.UseMigrations(t, newer)
		mention(t, second(store.Open(t.Context(), path)), "strongroom migrate")
		d, err := store.OpenCopy(t.Context(), path)
		want(t, err, nil)
		same(t, d.Rows(t, "SELECT count(*) FROM more"), []string{"0"})
		want(t, d.Close(), nil)
	})
	mention(t, second(store.OpenCopy(t.Context(), path)), "newer strongroom")
}

// replaceWith has the store at path replaced by the copy.
func replaceWith(path, copied string) (kept string, err error) {
	r, err := store.Replace(context.Background(), path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	f, err := os.Open(copied)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := r.Write(f); err != nil {
		return "", err
	}
	return r.Install(context.Background(), time.Now())
}

// marked returns the name that a store was marked with.
func marked(t *testing.T, path string) string {
	t.Helper()
	d, err := store.Open(t.Context(), path)
	if err != nil {
		return "none: " + err.Error()
	}
	defer d.Close()
	return strings.Join(d.Rows(t, "SELECT id FROM deployment"), " ")
}

// mark renames the deployment, and leaves the store closed.
func mark(t *testing.T, path, name string) {
	t.Helper()
	d, err := store.Open(t.Context(), path)
	want(t, err, nil)
	d.SQL(t, "UPDATE deployment SET id = '"+name+"'")
	want(t, d.Close(), nil)
}

// newBackup makes a backup of a store that is marked "new".
func newBackup(t *testing.T) string {
	t.Helper()
	path := newDeployment(t)
	mark(t, path, "new")
	d := open(t, path)
	out := filepath.Join(t.TempDir(), "copy.db")
	want(t, second(d.Backup(t.Context(), out)), nil)
	return out
}

func TestReplace(t *testing.T) {
	copied := newBackup(t)
	path := newDeployment(t)
	mark(t, path, "old")

	// Whoever has it open, or serves it, keeps it.
	d, err := store.Open(t.Context(), path)
	want(t, err, nil)
	mention(t, second(replaceWith(path, copied)), "open in another process")
	want(t, d.Claim(t.Context()), nil)
	mention(t, second(store.Replace(t.Context(), path)), fmt.Sprintf("process %d", os.Getpid()))
	want(t, d.Close(), nil)
	same(t, marked(t, path), "old")

	kept, err := replaceWith(path, copied)
	want(t, err, nil)
	same(t, marked(t, path), "new")
	same(t, marked(t, kept), "old")
	if left, err := filepath.Glob(path + "*"); err != nil || len(left) != 3 { // and the lock
		t.Errorf("%v is there, %v", left, err)
	}

	// Where nothing is, nothing is kept. What belongs to another store is in the way.
	path = filepath.Join(t.TempDir(), "store.db")
	want(t, os.WriteFile(path+"-wal", []byte("x"), 0o600), nil)
	mention(t, second(replaceWith(path, copied)), "-wal is left of another store")
	want(t, os.Remove(path+"-wal"), nil)
	kept, err = replaceWith(path, copied)
	want(t, err, nil)
	same(t, kept+marked(t, path), "new")

	// A copy that is not installed leaves nothing.
	r, err := store.Replace(t.Context(), path)
	want(t, err, nil)
	want(t, r.Write(strings.NewReader("half a copy")), nil)
	want(t, r.Close(), nil)
	same(t, marked(t, path), "new")
	if _, err := os.Stat(r.Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v", r.Path(), err)
	}
}

// A store that is damaged and was not closed is kept with its log, byte by byte: it may be all that there is.
func TestReplaceDamaged(t *testing.T) {
	copied := newBackup(t)
	path := newDeployment(t)
	c := start(t, "commit", path)
	for range 20 {
		c.line()
	}
	c.kill()
	log, err := os.ReadFile(path + "-wal")
	want(t, err, nil)
	damaged := []byte("no longer a store")
	want(t, os.WriteFile(path, damaged, 0o600), nil)
	kept, err := replaceWith(path, copied)
	want(t, err, nil)
	same(t, marked(t, path), "new")
	for name, was := range map[string][]byte{kept: damaged, kept + "-wal": log} {
		if is, err := os.ReadFile(name); err != nil || string(is) != string(was) {
			t.Errorf("%s: %d bytes, %v", name, len(is), err)
		}
	}
}

// childReplace replaces a store and kills itself after the step that it is told.
func childReplace(args []string) error {
	store.OnReplaceStep(func(step string) {
		if step == args[2] {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	})
	_, err := replaceWith(args[0], args[1])
	return err
}

// Wherever a replacement is interrupted, one of the two stores is whole under the name, the other is not lost, and it can be repeated.
func TestReplaceKilled(t *testing.T) {
	copied := newBackup(t)
	check := func(t *testing.T, path string) {
		t.Helper()
		switch got := marked(t, path); got {
		case "new":
			old := 0
			for _, name := range []string{".installing", ".replaced-*"} {
				there, _ := filepath.Glob(path + name)
				for _, name := range there {
					if !strings.HasSuffix(name, "-shm") && !strings.HasSuffix(name, "-wal") && marked(t, name) == "old" {
						old++
					}
				}
			}
			same(t, old, 1)
		case "old":
		default:
			t.Errorf("the store is %s", got)
		}
		mark(t, path, "last")
		kept, err := replaceWith(path, copied)
		want(t, err, nil)
		same(t, marked(t, path), "new")
		same(t, marked(t, kept), "last")
	}
	for _, step := range []string{"settled", "installing", "exchanged", "installed"} {
		t.Run(step, func(t *testing.T) {
			path := newDeployment(t)
			mark(t, path, "old")
			start(t, "replace", path, copied, step).finish()
			check(t, path)
		})
	}
	// At any moment.
	for i := range 20 {
		path := newDeployment(t)
		mark(t, path, "old")
		c := start(t, "replace", path, copied, "none")
		time.Sleep(time.Duration(i) * time.Millisecond)
		c.kill()
		check(t, path)
	}

	// A store that cannot be closed is away for a moment, but not lost, and repeating puts the copy there.
	t.Run("away", func(t *testing.T) {
		path := newDeployment(t)
		c := start(t, "commit", path)
		c.line()
		c.kill()
		log, err := os.ReadFile(path + "-wal")
		want(t, err, nil)
		want(t, os.WriteFile(path, []byte("damaged"), 0o600), nil)
		start(t, "replace", path, copied, "away").finish()
		mention(t, openAndClose(t, path), "there is no store")
		there, _ := filepath.Glob(path + ".replaced-*-wal")
		if len(there) != 1 {
			t.Fatal(there)
		}
		if is, err := os.ReadFile(there[0]); err != nil || string(is) != string(log) {
			t.Errorf("the log has %d bytes and had %d, %v", len(is), len(log), err)
		}
		_, err = replaceWith(path, copied)
		want(t, err, nil)
		same(t, marked(t, path), "new")
	})
}

// A log of changes that was overwritten somewhere gives the store as it was before some change, whole, or an error. SQLite cannot tell it from a log whose end a loss of
// power took; what is missing then, the comparison with the token finds.
func TestDamagedLog(t *testing.T) {
	path := newDeployment(t)
	c := start(t, "commit", path)
	answered := make(map[string]bool)
	for range 30 {
		answered[c.line()] = true
	}
	for _, id := range c.kill() {
		answered[id] = true
	}
	main, err := os.ReadFile(path)
	want(t, err, nil)
	log, err := os.ReadFile(path + "-wal")
	want(t, err, nil)
	fewer := 0
	for i := 0; i < len(log); i += len(log) / 60 {
		bad := slices.Clone(log)
		rand.Read(bad[i:min(i+100, len(bad))])
		want(t, os.WriteFile(path, main, 0o600), nil)
		want(t, os.WriteFile(path+"-wal", bad, 0o600), nil)
		want(t, os.RemoveAll(path+"-shm"), nil)
		d, err := store.Open(t.Context(), path)
		if err != nil {
			mention(t, err, path)
			continue
		}
		want(t, d.QuickCheck(t.Context()), nil)
		same(t, d.Rows(t, "PRAGMA integrity_check"), []string{"ok"})
		view(t, d, func(tx kms.Tx) error {
			ids, err := tx.Keys(account, kms.KeyID{}, 1000)
			if len(ids) < len(answered) {
				fewer++
			}
			for _, id := range ids {
				if _, err := tx.Key(id); err != nil {
					t.Errorf("half a key: %v", err)
				}
				if n, err := tx.CountAliases(id); n != 1 || err != nil {
					t.Errorf("key %v has %d aliases, %v", id, n, err)
				}
			}
			return err
		})
		want(t, d.Close(), nil)
	}
	if fewer < 30 {
		t.Errorf("only %d of 60 damages were noticed", fewer)
	}
}

// QuickCheck finds a damaged page that nothing has read yet.
func TestQuickCheck(t *testing.T) {
	path := newDeployment(t)
	d, err := store.Open(t.Context(), path)
	want(t, err, nil)
	var keys []*kms.Key
	for range 200 {
		keys = append(keys, newKey(kms.StateEnabled))
	}
	insertKeys(t, d, keys...)
	want(t, d.QuickCheck(t.Context()), nil)
	want(t, d.Close(), nil)
	whole, err := os.ReadFile(path)
	want(t, err, nil)
	const page = 4096
	for n := page; n < len(whole); n += page {
		bad := slices.Clone(whole)
		for i := n; i < n+page; i++ {
			bad[i] = 0xa5
		}
		want(t, os.WriteFile(path, bad, 0o600), nil)
		d, err := store.Open(t.Context(), path)
		if err == nil {
			err = d.QuickCheck(t.Context())
			d.Close()
		}
		mention(t, err, path, "strongroom restore")
	}
}

// A commit is not believed where the file system takes no change after it.
func TestUpdateConfirmed(t *testing.T) {
	d, err := store.Open(t.Context(), newDeployment(t))
	want(t, err, nil)
	change := func() error {
		return d.Update(t.Context(), func(tx kms.Tx) error { return tx.InsertEvent([]byte("x")) })
	}
	want(t, change(), nil)
	want(t, d.Claim(t.Context()), nil)
	want(t, change(), nil)
	d.LoseLock()
	mention(t, change(), "it may not be on disk")
	d.Close() // which has no lock to give back
}
