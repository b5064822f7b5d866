package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A powerDisk remembers what of its files was made durable, so that a test can cut the power.
type powerDisk struct {
	osDisk
	mu    sync.Mutex
	files map[string]*powered
}

// A powered is a file as every process sees it, and as it is on disk for certain.
type powered struct{ current, durable []byte }

func newPowerDisk() *powerDisk { return &powerDisk{files: map[string]*powered{}} }

func (d *powerDisk) with(path string, f func(*powered)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.files[path]
	if p == nil {
		p = new(powered)
		if b, err := os.ReadFile(path); err == nil {
			p.current, p.durable = b, bytes.Clone(b)
		}
		d.files[path] = p
	}
	f(p)
}

func (d *powerDisk) wrap(path string, f file, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	d.with(path, func(*powered) {})
	return &powerFile{f, path, d}, nil
}

func (d *powerDisk) create(path string) (file, error) {
	f, err := d.osDisk.create(path)
	return d.wrap(path, f, err)
}

func (d *powerDisk) open(path string) (file, error) {
	f, err := d.osDisk.open(path)
	return d.wrap(path, f, err)
}

func (d *powerDisk) journal(path string, size int64) (journalFile, error) {
	f, err := d.osDisk.journal(path, size)
	if err != nil {
		return nil, err
	}
	d.with(path, func(p *powered) {
		p.current, _ = os.ReadFile(path)
		p.durable = bytes.Clone(p.current)
	})
	return &powerJournal{f, path, d}, nil
}

type powerFile struct {
	file
	path string
	d    *powerDisk
}

func (f *powerFile) Write(b []byte) (int, error) {
	n, err := f.file.Write(b)
	f.d.with(f.path, func(p *powered) { p.current = append(p.current, b[:n]...) })
	return n, err
}

func (f *powerFile) Truncate(n int64) error {
	err := f.file.Truncate(n)
	f.d.with(f.path, func(p *powered) { p.current = p.current[:n] })
	return err
}

func (f *powerFile) Sync() error {
	err := f.file.Sync()
	f.d.with(f.path, func(p *powered) { p.durable = append(p.durable[:0], p.current...) })
	return err
}

type powerJournal struct {
	journalFile
	path string
	d    *powerDisk
}

func (f *powerJournal) WriteAt(b []byte, at int64) (int, error) {
	n, err := f.journalFile.WriteAt(b, at)
	f.d.with(f.path, func(p *powered) { copy(p.current[at:], b[:n]) })
	return n, err
}

func (f *powerJournal) Sync() error {
	err := f.journalFile.Sync()
	f.d.with(f.path, func(p *powered) { copy(p.durable, p.current) })
	return err
}

// cut returns what is on the disk after the power was cut: of what was not made durable, the kernel has written any pages, in any order.
func (d *powerDisk) cut() map[string][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	left := map[string][]byte{}
	const page = 4096
	for path, p := range d.files {
		size := len(p.durable)
		if n := len(p.current); n != size {
			size = min(size, n) + rand.N(max(size, n)-min(size, n)+1)
		}
		b := make([]byte, size)
		copy(b, p.durable)
		for at := 0; at < size; at += page {
			if end := min(at+page, size, len(p.current)); at < end && rand.N(2) == 0 {
				copy(b[at:end], p.current[at:end])
			}
		}
		left[path] = b
	}
	return left
}

// A machine that stops, again and again, loses nothing that was acknowledged, and what its disk has then is a log that goes on.
func TestPowerCut(t *testing.T) {
	rounds := 100
	if testing.Short() {
		rounds = 20
	}
	dir, s := t.TempDir(), newSigner(t)
	var acknowledged sync.Map
	var known *Anchor
	n, replayed := 0, 0
	for round := range rounds {
		d, shelf := newPowerDisk(), new(shelf)
		log := new(syncBuffer)
		l, err := Open(Options{Dir: dir, Signer: s, Log: log.logger(), disk: d, Known: known, Anchor: shelf.put,
			CheckpointRecords: 1 + rand.N(60), CheckpointEvery: time.Hour, MaxSize: 60_000})
		if err != nil {
			t.Fatal(round, err)
		}
		if strings.Contains(log.String(), "put back from the journal") {
			replayed++
		}
		var left map[string][]byte
		var sure []string // what was acknowledged before the power was cut
		var mu sync.Mutex
		var wg sync.WaitGroup
		stop := 3 + rand.N(60)
		for i := range 3 {
			wg.Go(func() {
				for j := range stop {
					r := typical()
					r.RequestID = fmt.Sprint(round, "-", i, "-", j)
					r.UserAgent += strings.Repeat("x", rand.N(3000))
					if err := l.Append(t.Context(), r); err != nil {
						t.Error(err)
					}
					mu.Lock()
					sure = append(sure, r.RequestID)
					mu.Unlock()
					if rand.N(40) == 0 {
						l.Rotate()
					}
				}
			})
		}
		if rand.N(2) == 0 {
			wg.Wait()
		} else {
			time.Sleep(rand.N(4 * time.Millisecond))
		}
		mu.Lock()
		before := len(sure)
		anchored := shelf.get()
		left = d.cut()
		for _, id := range sure[:before] {
			acknowledged.Store(id, true)
		}
		mu.Unlock()
		n += before
		if anchored != nil {
			known = anchored
		}
		wg.Wait()
		l.Close()
		for path, b := range left {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		files, _ := Files(dir)
		for _, path := range files { // that were begun after the cut
			if _, there := left[path]; !there && d.files[path] != nil {
				os.Remove(path)
			}
		}
	}
	l := open(t, Options{Dir: dir, Signer: s, Known: known})
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	verify(t, dir, s)
	if c := count(t, dir, replacedEvent); c != 0 {
		t.Errorf("%d logs were replaced", c)
	}
	checkThere(t, dir, &acknowledged)
	t.Logf("%d acknowledged, %d times lines were put back, %d records of a cut", n, replayed, count(t, dir, "AuditLogRecovered"))
	if replayed < rounds/10 {
		t.Errorf("the journal was needed %d times in %d rounds", replayed, rounds)
	}
}

// stopped makes a log of some records that only the journal has, and stops without a word. It returns the directory, its file, and what that and
// the journal have.
func stopped(t *testing.T, s *testSigner, settled, after int) (dir, path string, text, journal []byte) {
	dir = t.TempDir()
	l := open(t, Options{Dir: dir, Signer: s})
	appendN(t, l, settled)
	if err := l.exclusive(t.Context(), l.settle); err != nil {
		t.Fatal(err)
	}
	appendN(t, l, after)
	path = filepath.Join(dir, fileName(1))
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if journal, err = os.ReadFile(filepath.Join(dir, journalName)); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, journalName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the journal of a log that is closed: %v", err)
	}
	if err := errors.Join(os.WriteFile(path, text, 0o600), os.WriteFile(filepath.Join(dir, journalName), journal, 0o600)); err != nil {
		t.Fatal(err)
	}
	return dir, path, text, journal
}

func TestReplay(t *testing.T) {
	s := newSigner(t)
	const settled, after = 4, 5
	lines := func(text []byte, n int) int { // the length of the first n
		at := 0
		for range n {
			at += bytes.IndexByte(text[at:], '\n') + 1
		}
		return at
	}
	for name, c := range map[string]struct {
		spoil     func(text []byte) []byte
		records   uint64 // that are there after
		recovered int    // records of something that was cut
		kept      bool   // the journal, as evidence
		refused   bool
	}{
		"all there":     {func(b []byte) []byte { return b }, 10, 0, false, false},
		"a line more":   {func(b []byte) []byte { return append(b, "{"...) }, 10, 1, false, false},
		"nothing there": {func(b []byte) []byte { return b[:lines(b, 1+settled)] }, 10, 0, false, false},
		"two lines":     {func(b []byte) []byte { return b[:lines(b, 1+settled+2)] }, 10, 0, false, false},
		"half a line":   {func(b []byte) []byte { return b[:lines(b, 1+settled)+300] }, 10, 0, false, false},
		"a hole": {func(b []byte) []byte {
			clear(b[lines(b, 1+settled)+100 : lines(b, 1+settled+2)+100])
			return b
		}, 10, 1, false, false},
		"zeros": {func(b []byte) []byte {
			return append(b[:lines(b, 1+settled+1)], make([]byte, 2000)...)
		}, 10, 1, false, false},
		"other lines": {func(b []byte) []byte {
			return bytes.Replace(b, []byte("52fb127b-0fe5-42bb-8e5e-f560febde6b0"), []byte("00000000-0fe5-42bb-8e5e-f560febde6b0"), -1)
		}, 0, 0, true, true},
		"another line of the journal's": {func(b []byte) []byte {
			at := lines(b, 1+settled)
			return append(b[:at], bytes.Replace(b[at:lines(b, 1+settled+1)], []byte("Alice"), []byte("alice"), 1)...)
		}, 6, 0, true, false},
		"shorter": {func(b []byte) []byte { return b[:lines(b, 2)] }, 2, 0, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir, path, text, _ := stopped(t, s, settled, after)
			if err := os.WriteFile(path, c.spoil(bytes.Clone(text)), 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := Open(Options{Dir: dir, Signer: s, Log: quiet})
			kept, _ := filepath.Glob(filepath.Join(dir, journalName+".*"))
			if (len(kept) == 1) != c.kept {
				t.Errorf("kept %v", kept)
			}
			if c.refused {
				if err == nil {
					t.Error("no error")
					l.Close()
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			r, recovered := verify(t, dir, s), count(t, dir, "AuditLogRecovered")
			if r.Records-uint64(recovered) != c.records || recovered != c.recovered {
				t.Errorf("%d records, %d of them of what was cut", r.Records, recovered)
			}
		})
	}

	t.Run("no file", func(t *testing.T) {
		dir, path, _, _ := stopped(t, s, settled, after)
		if err := os.Rename(path, filepath.Join(t.TempDir(), "kept")); err != nil {
			t.Fatal(err)
		}
		open(t, Options{Dir: dir, Signer: s}).Close()
		if kept, _ := filepath.Glob(filepath.Join(dir, journalName+".*")); len(kept) != 1 {
			t.Errorf("kept %v", kept)
		}
	})
	// As a crash leaves it while the lines are put into the next file, because the first had failed.
	for _, part := range []int{0, 1, 500, 3000, 1 << 20} {
		t.Run(fmt.Sprint("in the next file, bytes: ", part), func(t *testing.T) {
			dir, path, text, _ := stopped(t, s, settled, after)
			at := lines(text, 1+settled)
			rest := text[at:]
			if err := errors.Join(os.WriteFile(path, text[:at], 0o600),
				os.WriteFile(filepath.Join(dir, fileName(2)), rest[:min(part, len(rest))], 0o600)); err != nil {
				t.Fatal(err)
			}
			open(t, Options{Dir: dir, Signer: s}).Close()
			if r := verify(t, dir, s); r.Records != 10 {
				t.Errorf("%+v", r)
			}
		})
	}

	// As a crash leaves it between the first line of the next file and the journal of that.
	t.Run("a later file", func(t *testing.T) {
		dir, _, _, journal := stopped(t, s, settled, after)
		l := open(t, Options{Dir: dir, Signer: s})
		if err := l.Rotate(); err != nil {
			t.Fatal(err)
		}
		appendN(t, l, 1)
		l.Close()
		if err := os.WriteFile(filepath.Join(dir, journalName), journal, 0o600); err != nil {
			t.Fatal(err)
		}
		open(t, Options{Dir: dir, Signer: s}).Close()
		if r := verify(t, dir, s); r.Records != 11 || r.Files != 2 {
			t.Errorf("%+v", r)
		}
		if kept, _ := filepath.Glob(filepath.Join(dir, journalName+".*")); kept != nil {
			t.Errorf("kept %v", kept)
		}
	})
}

// Whatever is wrong with the journal's first line, there is no journal.
func TestJournalSpoiled(t *testing.T) {
	s := newSigner(t)
	dir, path, text, journal := stopped(t, s, 2, 2)
	name := filepath.Join(dir, journalName)
	p, lines, err := readJournal(name)
	if err != nil || len(lines) == 0 || p.number != 1 || int(p.offset)+len(lines) != len(text) {
		t.Fatalf("%+v, %d bytes, %v", p, len(lines), err)
	}
	if got, ok := parsePlace(bytes.TrimSuffix(p.append(nil), []byte("\n"))); !ok || got != p {
		t.Errorf("%+v", got)
	}
	for at := range bytes.IndexByte(journal, '\n') {
		b := bytes.Clone(journal)
		b[at] ^= 1
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, lines, err := readJournal(name); err != nil || lines != nil {
			t.Fatalf("byte %d: %d bytes, %v", at, len(lines), err)
		}
	}
	for what, spoil := range map[string]func() error{
		"empty":     func() error { return os.WriteFile(name, nil, 0o600) },
		"zeros":     func() error { return os.WriteFile(name, make([]byte, journalSize), 0o600) },
		"directory": func() error { return errors.Join(os.Remove(name), os.Mkdir(name, 0o700)) },
		"link":      func() error { return errors.Join(os.Remove(name), os.Symlink(path, name)) },
		"too long": func() error {
			return errors.Join(os.Remove(name), os.WriteFile(name, make([]byte, 3*journalSize), 0o600))
		},
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		_, lines, err := readJournal(name)
		if wrong := what == "directory" || what == "link" || what == "too long"; lines != nil || (err != nil) != wrong {
			t.Errorf("%s: %d bytes, %v", what, len(lines), err)
		}
	}
}

// A journal that fails, or that is taken away, keeps nothing from being recorded, and is made anew.
func TestJournalFails(t *testing.T) {
	for name, c := range map[string]struct {
		fail func(op, path string) error
		do   func(path string) error
	}{
		"write":   {func(op, path string) error { return journalFault("write", op, path) }, nil},
		"sync":    {func(op, path string) error { return journalFault("sync", op, path) }, nil},
		"removed": {nil, os.Remove},
		"emptied": {nil, func(path string) error { return os.Truncate(path, 0) }},
		"moved":   {nil, func(path string) error { return os.Rename(path, path+".moved") }},
		"replaced": {nil, func(path string) error {
			return errors.Join(os.Rename(path, path+".moved"), os.WriteFile(path, []byte("x"), 0o600))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, s, d := t.TempDir(), newSigner(t), newFaultyDisk()
			log := new(syncBuffer)
			l := open(t, Options{Dir: dir, Signer: s, Log: log.logger(), disk: d})
			appendN(t, l, 2)
			d.set(c.fail)
			if c.do != nil {
				if err := c.do(filepath.Join(dir, journalName)); err != nil {
					t.Fatal(err)
				}
			}
			appendN(t, l, 2)
			d.set(nil)
			wait(t, func() bool { return strings.Contains(log.String(), "made anew") })
			appendN(t, l, 2)
			if _, lines, err := readJournal(filepath.Join(dir, journalName)); err != nil || bytes.Count(lines, []byte("\n")) != 2 {
				t.Errorf("the new journal has %q, %v", lines, err)
			}
			if err := l.Err(); err != nil {
				t.Error(err)
			}
			l.Close()
			if r := verify(t, dir, s); r.Records != 1+6 || r.Files != 1 {
				t.Errorf("%+v", r)
			}
		})
	}
	t.Run("none at all", func(t *testing.T) {
		dir, s, d := t.TempDir(), newSigner(t), newFaultyDisk()
		log := new(syncBuffer)
		d.set(failing(syscall.ENOSPC, "journal"))
		l := open(t, Options{Dir: dir, Signer: s, Log: log.logger(), disk: d})
		appendN(t, l, 3)
		l.Close()
		if r := verify(t, dir, s); r.Records != 1+3 || strings.Count(log.String(), "has no journal") != 1 {
			t.Errorf("%+v, %s", r, log)
		}
	})
}

func journalFault(want, op, path string) error {
	if op == want && filepath.Base(path) == journalName {
		return syscall.EIO
	}
	return nil
}

// More lines than the journal has room for go past it.
func TestJournalFull(t *testing.T) {
	dir, s := t.TempDir(), newSigner(t)
	l := open(t, Options{Dir: dir, Signer: s, CheckpointEvery: time.Hour})
	large := typical()
	large.UserAgent = strings.Repeat("x", maxRecord-2000)
	for range 7 {
		if err := l.Append(t.Context(), large); err != nil {
			t.Fatal(err)
		}
		appendN(t, l, 1)
		path := filepath.Join(dir, journalName)
		if info, err := os.Stat(path); err != nil || info.Size() != journalSize {
			t.Fatalf("the journal has %d bytes, %v", info.Size(), err)
		}
	}
	l.Close()
	if r := verify(t, dir, s); r.Records != 1+14 {
		t.Errorf("%+v", r)
	}
}

// What the journal says of itself is never believed further than its lines are a chain.
func FuzzJournal(f *testing.F) {
	p := place{newUUID(), 1, 10, Head{4, [32]byte{1}}}
	b := p.append(nil)
	body, _ := typical().append(nil)
	b, h := appendLine(b, body, p.log, p.head)
	b = append(h.append(b), '\n')
	b, h = appendLine(b, body, p.log, h)
	b = append(h.append(b), '\n')
	f.Add(b)
	f.Add([]byte(journalLabel))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(dir, journalName)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		p, lines, err := readJournal(path)
		if err != nil {
			t.Fatal(err)
		}
		if n, _ := chained(lines, p.log, p.head); n != len(lines) {
			t.Errorf("%q", lines)
		}
	})
}
