package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"strongroom/kms"
	"strongroom/store"
)

// These tests are about several processes. The test binary runs itself again as the others; what each of them does is one of the
// children.

const childVariable = "STRONGROOM_STORE_TEST_CHILD"

var children = map[string]func(args []string) error{
	"claim":     childClaim,
	"commit":    childCommit,
	"create":    childCreate,
	"disable":   childDisable,
	"hold":      childHold,
	"increment": childIncrement,
	"limited":   childLimited,
	"replace":   childReplace,
}

func TestMain(m *testing.M) {
	if name := os.Getenv(childVariable); name != "" {
		if err := children[name](os.Args[1:]); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A child is another process of this program.
type child struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func start(t testing.TB, name string, args ...string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), childVariable+"="+name)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return &child{t, cmd, in, bufio.NewScanner(out)}
}

// line returns the child's next line, or nothing at its end.
func (c *child) line() string {
	c.out.Scan()
	return c.out.Text()
}

// kill ends the child at once and returns the lines that it had still written.
func (c *child) kill() (rest []string) {
	c.cmd.Process.Signal(syscall.SIGKILL)
	for c.out.Scan() {
		rest = append(rest, c.out.Text())
	}
	c.cmd.Wait()
	return rest
}

// wait ends the child's input, and returns its other lines when it has ended by itself.
func (c *child) wait() (rest []string) {
	c.t.Helper()
	c.in.Close()
	for c.out.Scan() {
		rest = append(rest, c.out.Text())
	}
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("child: %v, %q", err, rest)
	}
	return rest
}

// childCommit stores keys with aliases and events as fast as it can and prints each when it has been told that it is stored.
func childCommit(args []string) error {
	d, err := store.Open(context.Background(), args[0])
	if err != nil {
		return err
	}
	for {
		k := newKey(kms.StateEnabled)
		k.Tags = map[string]string{"a": "b"}
		err := d.Update(context.Background(), func(tx kms.Tx) error {
			return errors.Join(tx.InsertKey(k), tx.InsertAlias(newAlias("alias/"+k.ID.String(), k.ID)), tx.InsertEvent([]byte(k.ID.String())))
		})
		if err != nil {
			return err
		}
		os.Stdout.WriteString(k.ID.String() + "\n")
	}
}

// What was answered is there after the process was killed at any moment, and what was not is there as a whole or not at all. (That
// it is there after a loss of power as well is what synchronous=FULL is for; TestSettings sees that it is set.)
func TestKill(t *testing.T) {
	path := create(t)
	func() {
		d, err := store.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		insertAccounts(t, d)
	}()
	answered := make(map[string]bool)
	for round := range 6 {
		c := start(t, "commit", path)
		for range 10 + 60*round {
			id := c.line()
			if _, err := kms.ParseKeyID(id); err != nil {
				t.Fatalf("child: %q", id)
			}
			answered[id] = true
		}
		for _, id := range c.kill() {
			answered[id] = true
		}

		d, err := store.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		var there []string
		view(t, d, func(tx kms.Tx) error {
			events, err := tx.Events(1_000_000)
			want(t, err, nil)
			told := names(events, func(e kms.Event) string { return string(e.Body) })
			slices.Sort(told)
			defer func() { same(t, told, there) }()
			ids, err := tx.Keys(account, kms.KeyID{}, 1_000_000)
			for _, id := range ids {
				there = append(there, id.String())
				k, err := tx.Key(id)
				if err != nil || len(k.Tags) != 1 || len(k.Materials) != 1 {
					t.Errorf("half a key: %+v, %v", k, err)
				}
				if n, err := tx.CountAliases(id); n != 1 || err != nil {
					t.Errorf("key %v has %d aliases, %v", id, n, err)
				}
			}
			return err
		})
		for id := range answered {
			if _, found := slices.BinarySearch(there, id); !found {
				t.Errorf("round %d: key %s was answered and is not there", round, id)
			}
		}
		// One more than was answered may have been stored each time.
		if len(there) > len(answered)+round+1 {
			t.Errorf("round %d: %d keys were answered and %d are there", round, len(answered), len(there))
		}
		same(t, d.Rows(t, "PRAGMA integrity_check"), []string{"ok"})
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d answered commits over 6 kills", len(answered))
}

// childDisable waits for a line and then disables the keys whose ids it is given, printing those where it was the one.
func childDisable(args []string) error {
	d, err := store.Open(context.Background(), args[0])
	if err != nil {
		return err
	}
	defer d.Close()
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	for _, id := range args[1:] {
		err := d.Update(context.Background(), func(tx kms.Tx) error {
			return tx.SetState(mustID(id), kms.StateEnabled, kms.StateDisabled, time.Time{})
		})
		if err == nil {
			fmt.Println(id)
		} else if !errors.Is(err, kms.ErrConflict) {
			return err
		}
	}
	return nil
}

func TestOneProcessWins(t *testing.T) {
	path := create(t)
	d := open(t, path)
	insertAccounts(t, d)
	args := []string{path}
	wins := make(map[string]int)
	for range 200 {
		k := newKey(kms.StateEnabled)
		insertKeys(t, d, k)
		args = append(args, k.ID.String())
		wins[k.ID.String()] = 0
	}
	var racing []*child
	for range 3 {
		racing = append(racing, start(t, "disable", args...))
	}
	for _, c := range racing {
		if s := c.line(); s != "ready" {
			t.Fatalf("child: %q", s)
		}
	}
	for _, c := range racing {
		io.WriteString(c.in, "go\n")
	}
	winners := 0
	for _, c := range racing {
		lines := c.wait()
		if len(lines) > 0 {
			winners++
		}
		for _, id := range lines {
			wins[id]++
		}
	}
	for id, n := range wins {
		if n != 1 {
			t.Errorf("key %s was disabled %d times", id, n)
		}
	}
	t.Logf("%d of %d processes won some", winners, len(racing))
}

// childIncrement adds one to the description of a key as often as it is told to.
func childIncrement(args []string) error {
	d, err := store.Open(context.Background(), args[0])
	if err != nil {
		return err
	}
	defer d.Close()
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	for range n {
		if err := d.Update(context.Background(), func(tx kms.Tx) error { return increment(tx, mustID(args[1])) }); err != nil {
			return err
		}
	}
	return nil
}

func TestGenerationAcrossProcesses(t *testing.T) {
	path := create(t)
	d := open(t, path)
	insertAccounts(t, d)
	k := newKey(kms.StateEnabled)
	k.Description = "0"
	insertKeys(t, d, k)
	const each, processes = 50, 3
	before, err := d.Generation(t.Context())
	want(t, err, nil)
	var all []*child
	for range processes {
		all = append(all, start(t, "increment", path, k.ID.String(), strconv.Itoa(each)))
	}
	// Where the generation is the same, so is what was read between.
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() {
		seen := make(map[int64]string)
		for ctx.Err() == nil {
			var is string
			before, err1 := d.Generation(t.Context())
			err2 := d.View(t.Context(), func(tx kms.Tx) error {
				got, err := tx.Key(k.ID)
				is = got.Description
				return err
			})
			after, err3 := d.Generation(t.Context())
			if err := errors.Join(err1, err2, err3); err != nil {
				t.Error(err)
				return
			}
			if before != after {
				continue
			}
			if was, ok := seen[before]; ok && was != is {
				t.Errorf("generation %d has two states", before)
			}
			seen[before] = is
		}
	})
	for _, c := range all {
		c.wait()
	}
	cancel()
	watching.Wait()
	after, err := d.Generation(t.Context())
	want(t, err, nil)
	if after == before {
		t.Error("the generation did not change")
	}
	view(t, d, func(tx kms.Tx) error {
		got, err := tx.Key(k.ID)
		same(t, got.Description, strconv.Itoa(each*processes))
		return err
	})
}

// childHold holds the write lock for ever.
func childHold(args []string) error {
	d, err := store.Open(context.Background(), args[0])
	if err != nil {
		return err
	}
	return d.Update(context.Background(), func(tx kms.Tx) error {
		if err := tx.InsertKey(newKey(kms.StateEnabled)); err != nil {
			return err
		}
		fmt.Println("holding")
		select {}
	})
}

func TestWriterKilled(t *testing.T) {
	path := create(t)
	d := open(t, path)
	insertAccounts(t, d)
	c := start(t, "hold", path)
	if s := c.line(); s != "holding" {
		t.Fatalf("child: %q", s)
	}
	// It waits as long as its context lets it, or until the other is gone.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	want(t, d.Update(ctx, func(kms.Tx) error { return nil }), context.DeadlineExceeded)
	done := make(chan error)
	k := newKey(kms.StateEnabled)
	go func() { done <- d.Update(context.Background(), func(tx kms.Tx) error { return tx.InsertKey(k) }) }()
	time.Sleep(300 * time.Millisecond)
	c.kill()
	want(t, <-done, nil)
	view(t, d, func(tx kms.Tx) error {
		ids, err := tx.Keys(account, kms.KeyID{}, 10)
		same(t, ids, []kms.KeyID{k.ID})
		return err
	})
}

func TestWriterHangs(t *testing.T) {
	store.BePatient(t, 500*time.Millisecond)
	path := create(t)
	d := open(t, path)
	insertAccounts(t, d)
	c := start(t, "hold", path)
	if s := c.line(); s != "holding" {
		t.Fatalf("child: %q", s)
	}
	start := time.Now()
	err := d.Update(t.Context(), func(kms.Tx) error { return nil })
	mention(t, err, "locked", "another process holds the store's lock")
	if took := time.Since(start); took < 500*time.Millisecond || took > 5*time.Second {
		t.Errorf("gave up after %v", took)
	}
}

// childClaim claims a store, starts a process that outlives it, and waits.
func childClaim(args []string) error {
	d, err := store.Open(context.Background(), args[0])
	if err != nil {
		return err
	}
	if err := d.Claim(context.Background()); err != nil {
		return err
	}
	sleep := exec.Command("sleep", "60")
	if err := sleep.Start(); err != nil {
		return err
	}
	fmt.Println(sleep.Process.Pid)
	io.Copy(io.Discard, os.Stdin)
	return d.Close()
}

func TestClaim(t *testing.T) {
	path := create(t)
	claim := func(t *testing.T) *child {
		c := start(t, "claim", path)
		pid, err := strconv.Atoi(c.line())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Kill(pid, syscall.SIGKILL) })
		return c
	}
	c := claim(t)
	d := open(t, path)
	mention(t, d.Claim(t.Context()), path, fmt.Sprintf("process %d", c.cmd.Process.Pid))
	// Everything else works beside the server, under any name of the store.
	insertAccounts(t, d)
	link := filepath.Join(t.TempDir(), "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	l := open(t, link)
	mention(t, l.Claim(t.Context()), fmt.Sprintf("process %d", c.cmd.Process.Pid))

	c.kill() // and what it started lives on
	want(t, d.Claim(t.Context()), nil)
	want(t, d.Claim(t.Context()), nil) // it has it already
	mention(t, l.Claim(t.Context()), fmt.Sprintf("process %d", os.Getpid()))
	if out := start(t, "claim", path).line(); !strings.Contains(out, fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("child: %q", out)
	}
	want(t, d.Close(), nil)
	c = claim(t)
	mention(t, l.Claim(t.Context()), fmt.Sprintf("process %d", c.cmd.Process.Pid))
	c.wait()
	want(t, l.Claim(t.Context()), nil)

	// A link to the store shares what lies beside it.
	if _, err := os.Stat(link + ".lock"); err == nil {
		t.Error("the lock is beside the link")
	}
}

// childCreate makes a store and kills itself after the step that it is told.
func childCreate(args []string) error {
	store.OnStep(func(step string) {
		fmt.Println(step)
		if step == args[1] {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	})
	return store.Create(context.Background(), args[0])
}

// Wherever Create is interrupted, there is no store or a whole one, and Create can be called again.
func TestCreateKilled(t *testing.T) {
	for _, step := range []string{"made", "filled", "linked", "none"} {
		t.Run(step, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			c := start(t, "create", path, step)
			steps := c.finish()
			err := openAndClose(t, path)
			switch step {
			case "linked", "none":
				want(t, err, nil)
				want(t, store.Create(t.Context(), path), os.ErrExist)
			default:
				want(t, err, os.ErrNotExist)
				if err := store.Create(t.Context(), path); err != nil {
					t.Errorf("after %q: %v", steps, err)
				}
				want(t, openAndClose(t, path), nil)
			}
		})
	}
	// At any moment, not only between steps.
	interrupted, made := 0, 0
	dir := t.TempDir()
	for i := range 25 {
		path := filepath.Join(dir, strconv.Itoa(i))
		c := start(t, "create", path, "none")
		time.Sleep(time.Duration(i) * time.Millisecond)
		c.kill()
		err := openAndClose(t, path)
		if errors.Is(err, os.ErrNotExist) {
			interrupted++
			err = store.Create(t.Context(), path)
			want(t, openAndClose(t, path), nil)
			if _, err := os.Stat(path + ".new"); err == nil {
				t.Error("a temporary file was left")
			}
		} else {
			made++
		}
		want(t, err, nil)
	}
	t.Logf("%d interrupted, %d made", interrupted, made)
}

// finish waits for a child that ends as it likes, and returns its lines.
func (c *child) finish() (lines []string) {
	for c.out.Scan() {
		lines = append(lines, c.out.Text())
	}
	c.cmd.Wait()
	return lines
}

func TestCreateRaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	var all []*child
	for range 4 {
		all = append(all, start(t, "create", path, "none"))
	}
	won := 0
	for _, c := range all {
		if lines := c.finish(); slices.Contains(lines, "linked") {
			won++
		}
	}
	same(t, won, 1)
	want(t, openAndClose(t, path), nil)
}

// childLimited is a process whose files cannot grow, so that writes fail where TestFull's do not: in the middle of a commit.
func childLimited(args []string) error {
	signal.Ignore(syscall.SIGXFSZ)
	d, err := store.Open(context.Background(), args[0])
	if err != nil {
		return err
	}
	stored := make(map[kms.KeyID]bool)
	insert := func(k *kms.Key) error {
		return d.Update(context.Background(), func(tx kms.Tx) error {
			return errors.Join(tx.InsertKey(k), tx.InsertAlias(newAlias("alias/"+k.ID.String(), k.ID)))
		})
	}
	limit := func(n uint64) error {
		var l syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
			return err
		}
		l.Cur = min(n, l.Max)
		return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l)
	}
	failed := 0
	for round := range 60 {
		info, err := os.Stat(args[0] + "-wal")
		if err != nil {
			return err
		}
		// The next commit appends several pages to the log. The limit comes after some of them.
		if err := limit(uint64(info.Size()) + uint64(round)*1000); err != nil {
			return err
		}
		k := newKey(kms.StateEnabled)
		if err := insert(k); err == nil {
			stored[k.ID] = true
		} else if failed++; !strings.Contains(err.Error(), "store: ") {
			return err
		}
		if err := limit(1 << 62); err != nil {
			return err
		}
		if round%2 == 0 { // sometimes a commit that works comes next, sometimes one that fails
			k := newKey(kms.StateEnabled)
			if err := insert(k); err != nil {
				return fmt.Errorf("with room again: %w", err)
			}
			stored[k.ID] = true
		}
	}
	fmt.Println(failed)
	for id := range maps.Keys(stored) {
		fmt.Println(id)
	}
	os.Stdout.Close()
	select {} // to be killed, so that the log has to be recovered
}

func TestWriteFails(t *testing.T) {
	path := create(t)
	d := open(t, path)
	insertAccounts(t, d)
	c := start(t, "limited", path)
	failed, err := strconv.Atoi(c.line())
	if err != nil {
		t.Fatal(c.out.Text())
	}
	stored := make(map[string]bool)
	for c.out.Scan() {
		stored[c.out.Text()] = true
	}
	check := func(d *store.DB) {
		t.Helper()
		view(t, d, func(tx kms.Tx) error {
			ids, err := tx.Keys(account, kms.KeyID{}, 1000)
			same(t, len(ids), len(stored))
			for _, id := range ids {
				if !stored[id.String()] {
					t.Errorf("%v is there and its Update failed", id)
				}
				if n, err := tx.CountAliases(id); n != 1 || err != nil {
					t.Errorf("key %v has %d aliases, %v", id, n, err)
				}
			}
			return err
		})
		same(t, d.Rows(t, "PRAGMA integrity_check"), []string{"ok"})
	}
	check(d)
	c.kill()
	check(d)
	want(t, d.Close(), nil)
	check(open(t, path))
	if failed < 5 {
		t.Errorf("only %d writes failed", failed)
	}
	t.Logf("%d writes failed, %d did not", failed, len(stored))
}
