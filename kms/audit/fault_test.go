package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A faultyDisk fails when told to. A write that fails has written half of its bytes.
type faultyDisk struct {
	osDisk
	mu   sync.Mutex
	fail func(op, path string) error
}

func newFaultyDisk() *faultyDisk { return &faultyDisk{} }

func (d *faultyDisk) set(fail func(op, path string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = fail
}

func (d *faultyDisk) do(op, path string) error {
	d.mu.Lock()
	fail := d.fail
	d.mu.Unlock()
	if fail == nil {
		return nil
	}
	if err := fail(op, path); err != nil {
		return &fs.PathError{Op: op, Path: path, Err: err}
	}
	return nil
}

func (d *faultyDisk) create(path string) (file, error) {
	if err := d.do("create", path); err != nil {
		return nil, err
	}
	f, err := d.osDisk.create(path)
	if err != nil {
		return nil, err
	}
	return &faultyFile{f, path, d}, nil
}

func (d *faultyDisk) open(path string) (file, error) {
	f, err := d.osDisk.open(path)
	if err != nil {
		return nil, err
	}
	return &faultyFile{f, path, d}, nil
}

func (d *faultyDisk) change(f *os.File) error {
	if err := d.do("change", f.Name()); err != nil {
		return err
	}
	return d.osDisk.change(f)
}

func (d *faultyDisk) stat(path string) (fs.FileInfo, error) {
	if err := d.do("stat", path); err != nil {
		return nil, err
	}
	return d.osDisk.stat(path)
}

func (d *faultyDisk) journal(path string, size int64) (journalFile, error) {
	if err := d.do("journal", path); err != nil {
		return nil, err
	}
	f, err := d.osDisk.journal(path, size)
	if err != nil {
		return nil, err
	}
	return &faultyJournal{f, path, d}, nil
}

type faultyJournal struct {
	journalFile
	path string
	d    *faultyDisk
}

func (f *faultyJournal) WriteAt(b []byte, at int64) (int, error) {
	if err := f.d.do("write", f.path); err != nil {
		n, _ := f.journalFile.WriteAt(b[:len(b)/2], at)
		return n, err
	}
	return f.journalFile.WriteAt(b, at)
}

func (f *faultyJournal) Sync() error {
	if err := f.d.do("sync", f.path); err != nil {
		return err
	}
	return f.journalFile.Sync()
}

type faultyFile struct {
	file
	path string
	d    *faultyDisk
}

func (f *faultyFile) Write(b []byte) (int, error) {
	if err := f.d.do("write", f.path); err != nil {
		n, _ := f.file.Write(b[:len(b)/2])
		return n, err
	}
	return f.file.Write(b)
}

func (f *faultyFile) Sync() error {
	if err := f.d.do("sync", f.path); err != nil {
		return err
	}
	return f.file.Sync()
}

func (f *faultyFile) Truncate(n int64) error {
	if err := f.d.do("truncate", f.path); err != nil {
		return err
	}
	return f.file.Truncate(n)
}

// failing returns a fault of one operation.
func failing(errno error, ops ...string) func(op, path string) error {
	return func(op, path string) error {
		for _, o := range ops {
			if o == op {
				return errno
			}
		}
		return nil
	}
}

// wantFailure wants an error that names the operation, the file and the reason.
func wantFailure(t *testing.T, err error, op string, errno error) {
	t.Helper()
	if !errors.Is(err, errno) || !strings.Contains(err.Error(), op) || !strings.Contains(err.Error(), ".jsonl") {
		t.Errorf("got %v, want %s: %v", err, op, errno)
	}
}

// Whatever fails of the disk, no record is acknowledged that is not in the log, the log says what is wrong, works again by itself when the disk
// does, and its chain has no gap.
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		op    string
		errno error
		fail  func(op, path string) error
		files int // afterwards
		anew  int // the same, if all lines were in the journal alone: mostly the file is begun anew with them
	}{
		{"write", syscall.ENOSPC, failing(syscall.ENOSPC, "write"), 1, 1},
		{"write", syscall.EIO, failing(syscall.EIO, "write", "truncate"), 1, 1},
		{"write", syscall.EIO, failing(syscall.EIO, "write", "truncate", "sync", "stat", "create"), 1, 1},
		{"sync", syscall.EIO, failing(syscall.EIO, "sync"), 2, 1},
		{"sync", syscall.EIO, failing(syscall.EIO, "sync", "create"), 2, 1},
		// A sync that answers with success on a file system that takes no changes any more.
		{"change", syscall.EROFS, failing(syscall.EROFS, "change", "truncate"), 2, 1},
		{"change", syscall.EROFS, failing(syscall.EROFS, "change"), 2, 2},
	} {
		for _, settled := range []bool{false, true} {
			t.Run(fmt.Sprint(c.op, c.errno, " settled: ", settled), func(t *testing.T) {
				dir, s, d := t.TempDir(), newSigner(t), newFaultyDisk()
				l := open(t, Options{Dir: dir, Signer: s, disk: d, retryPause: 20 * time.Millisecond})
				appendN(t, l, 3)
				files := c.anew
				if settled {
					files = c.files
					if err := l.exclusive(t.Context(), l.settle); err != nil {
						t.Fatal(err)
					}
				}

				d.set(c.fail)
				var wg sync.WaitGroup
				for range 16 {
					wg.Go(func() {
						for range 20 {
							wantFailure(t, l.Append(t.Context(), typical()), "", c.errno)
							time.Sleep(time.Millisecond)
						}
					})
				}
				wg.Wait()
				wantFailure(t, l.Err(), "", c.errno)
				d.set(nil)

				wait(t, func() bool { return l.Err() == nil }) // although nobody appends
				appendN(t, l, 3)
				r := verify(t, dir, s)
				if want := uint64(1 + 3 + 1 + 3); r.Records != want || r.Files != files {
					t.Errorf("%d records, want %d; %d files, want %d", r.Records, want, r.Files, files)
				}
				if n := count(t, dir, "AuditLogResumed"); n != 1 {
					t.Errorf("%d records of the failure", n)
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
				if r := verify(t, dir, s); !r.Closed {
					t.Errorf("%+v", r)
				}
			})
		}
	}
}

// A log that failed is tried again by an Append, but not by every one.
func TestRetryPause(t *testing.T) {
	dir, s, d := t.TempDir(), newSigner(t), newFaultyDisk()
	l := open(t, Options{Dir: dir, Signer: s, disk: d, retryPause: time.Hour})
	writes := 0
	d.set(func(op, path string) error {
		if op == "write" {
			writes++
			return syscall.ENOSPC
		}
		return nil
	})
	for range 100 {
		wantFailure(t, l.Append(t.Context(), typical()), "write", syscall.ENOSPC)
	}
	if writes != 1 {
		t.Errorf("%d writes", writes)
	}
	d.set(nil)
	if err := l.Rotate(); err != nil { // which the administrator asks for, so now
		t.Error(err)
	}
	appendN(t, l, 1)
	verify(t, dir, s)
}

// Faults come and go while many append, in any order. What was acknowledged is there.
func TestFaultsUnderLoad(t *testing.T) {
	dir, s, d := t.TempDir(), newSigner(t), newFaultyDisk()
	l := open(t, Options{Dir: dir, Signer: s, disk: d, retryPause: time.Millisecond, CheckpointRecords: 20, MaxSize: 50_000, signPause: time.Millisecond})
	n, mu := 0, sync.Mutex{}
	d.set(func(op, path string) error {
		mu.Lock()
		defer mu.Unlock()
		n++
		if n%11 == 0 {
			return syscall.EIO
		}
		return nil
	})
	var acknowledged sync.Map
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 100 {
				r := typical()
				r.RequestID = fmt.Sprint(i, "-", j)
				if l.Append(t.Context(), r) == nil {
					acknowledged.Store(r.RequestID, true)
				} else {
					time.Sleep(500 * time.Microsecond)
				}
			}
		})
	}
	wg.Wait()
	d.set(nil)
	wait(t, func() bool { return l.Err() == nil })
	l.Close()
	verify(t, dir, s)
	checkAcknowledged(t, dir, &acknowledged)
}

// checkAcknowledged wants exactly the records that were acknowledged.
func checkAcknowledged(t *testing.T, dir string, acknowledged *sync.Map) {
	t.Helper()
	found := checkThere(t, dir, acknowledged)
	for id := range found {
		if _, ok := acknowledged.Load(id); !ok {
			t.Errorf("%s was refused and is there", id)
		}
	}
	t.Logf("%d records were acknowledged", len(found))
}

// checkThere wants the records that were acknowledged, and none twice. It returns the ids of all that are there.
func checkThere(t *testing.T, dir string, acknowledged *sync.Map) (found map[string]bool) {
	t.Helper()
	files, err := Files(dir)
	if err != nil {
		t.Fatal(err)
	}
	found = map[string]bool{}
	for e, err := range Find(files, Filter{Operation: "GenerateDataKeyPair"}) {
		if err != nil {
			t.Fatal(err)
		}
		if found[e.RequestID] {
			t.Errorf("%s is there twice", e.RequestID)
		}
		found[e.RequestID] = true
	}
	acknowledged.Range(func(id, _ any) bool {
		if !found[id.(string)] {
			t.Errorf("%s was acknowledged and is not there", id)
		}
		return true
	})
	return found
}

func TestFileGone(t *testing.T) {
	for name, c := range map[string]struct {
		do      func(path string) error
		why     string
		verify  Kind // what Verify says of the directory
		sameRun bool
	}{
		"moved":     {func(p string) error { return os.Rename(p, p+".moved") }, "was moved away", 0, true},
		"removed":   {os.Remove, "was moved away", 0, true},
		"replaced":  {func(p string) error { return errors.Join(os.Remove(p), os.WriteFile(p, nil, 0o600)) }, "was moved away", 0, true},
		"truncated": {func(p string) error { return os.Truncate(p, 100) }, "100 bytes", Malformed, false},
		"appended": {func(p string) error {
			f, err := os.OpenFile(p, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteString("{}\n")
			return err
		}, "bytes", Malformed, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir, s := t.TempDir(), newSigner(t)
			log := new(syncBuffer)
			l := open(t, Options{Dir: dir, Signer: s, Log: log.logger(), retryPause: time.Millisecond})
			appendN(t, l, 3)
			path := filepath.Join(dir, "audit-00000001.jsonl")
			if err := c.do(path); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			wait(t, func() bool { return strings.Contains(log.String(), c.why) })
			if d := time.Since(start); d > time.Second {
				t.Errorf("noticed after %v", d)
			}
			wait(t, func() bool { return l.Err() == nil })
			appendN(t, l, 2)
			if _, err := os.Stat(filepath.Join(dir, "audit-00000002.jsonl")); err != nil {
				t.Error(err)
			}
			files, _ := Files(dir)
			if name == "moved" {
				files = append(files, path+".moved")
			}
			r, err := Verify(&s.key.PublicKey, files, VerifyOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if c.verify == 0 && r.Finding != nil || c.verify != 0 && (r.Finding == nil || r.Finding.Kind != c.verify) {
				t.Errorf("%v", r.Finding)
			}
			if want := map[string]uint64{"moved": 1}[name]; want != 0 && r.First.Sequence != want {
				t.Errorf("begins with line %d", r.First.Sequence)
			}
		})
	}
}

// Rotate after the file was moved, as logrotate does it, loses nothing and is no failure for anybody.
func TestRotateMoved(t *testing.T) {
	dir, s := t.TempDir(), newSigner(t)
	l := open(t, Options{Dir: dir, Signer: s})
	appendN(t, l, 3)
	kept := filepath.Join(t.TempDir(), "kept")
	if err := os.Rename(filepath.Join(dir, "audit-00000001.jsonl"), kept); err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 1)
	if err := l.Rotate(); err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 1)
	l.Close()
	r, err := Verify(&s.key.PublicKey, []string{filepath.Join(dir, "audit-00000002.jsonl"), kept}, VerifyOptions{})
	if err != nil || r.Finding != nil || r.First.Sequence != 1 || r.Files != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}

// That the next file cannot be made is no reason to refuse records.
func TestNoNextFile(t *testing.T) {
	dir, s, d := t.TempDir(), newSigner(t), newFaultyDisk()
	l := open(t, Options{Dir: dir, Signer: s, disk: d, MaxSize: 1})
	appendN(t, l, 2)
	d.set(failing(syscall.ENOSPC, "create"))
	appendN(t, l, 2)
	if err := l.Rotate(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Rotate: %v", err)
	}
	d.set(nil)
	if err := l.Rotate(); err != nil {
		t.Error(err)
	}
	appendN(t, l, 2)
	verify(t, dir, s)
}

// Close of a log that cannot be written ends, and the log can be opened again.
func TestCloseFailed(t *testing.T) {
	dir, s, d := t.TempDir(), newSigner(t), newFaultyDisk()
	l := open(t, Options{Dir: dir, Signer: s, disk: d, closeWait: 100 * time.Millisecond})
	appendN(t, l, 2)
	d.set(failing(syscall.EIO, "write", "sync", "truncate"))
	if err := l.Append(context.Background(), typical()); !errors.Is(err, syscall.EIO) {
		t.Errorf("Append: %v", err)
	}
	if err := l.Close(); !errors.Is(err, syscall.EIO) {
		t.Errorf("Close: %v", err)
	}
	l = open(t, Options{Dir: dir, Signer: s})
	appendN(t, l, 1)
	if n := count(t, dir, "AuditLogRecovered"); n != 1 {
		t.Errorf("%d records of a line that was cut off", n)
	}
	verify(t, dir, s)
}

// After a sync that failed, what it was of is taken back before anything else, for the process may end before the log works again.
func TestSyncFailedAndKilled(t *testing.T) {
	dir, s, d := t.TempDir(), newSigner(t), newFaultyDisk()
	l := open(t, Options{Dir: dir, Signer: s, disk: d, retryPause: time.Hour})
	appendN(t, l, 1)
	d.set(failing(syscall.EIO, "sync"))
	wantFailure(t, l.Append(t.Context(), typical()), "sync", syscall.EIO)
	if n := count(t, dir, "GenerateDataKeyPair"); n != 1 {
		t.Errorf("%d records are in the file", n)
	}
	d.set(nil)
}

// No record is acknowledged that is in a file that is not there any more.
func TestFileGoneAtOnce(t *testing.T) {
	for name, move := range map[string]func(from, to string) error{
		"moved":   os.Rename,
		"removed": func(from, _ string) error { return os.Remove(from) },
		"replaced": func(from, to string) error {
			return errors.Join(os.Rename(from, to), os.WriteFile(from, []byte("x\n"), 0o600))
		},
	} {
		for _, during := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " during the sync: ", during), func(t *testing.T) {
				dir, s, d := t.TempDir(), newSigner(t), newFaultyDisk()
				l := open(t, Options{Dir: dir, Signer: s, disk: d})
				appendN(t, l, 1)
				first, kept := filepath.Join(dir, fileName(1)), filepath.Join(t.TempDir(), "kept")
				if during {
					done := false
					d.set(func(op, path string) error {
						if op == "sync" && !done {
							done = true
							return move(first, kept)
						}
						return nil
					})
				} else if err := move(first, kept); err != nil {
					t.Fatal(err)
				}
				appendN(t, l, 1)
				second, err := os.ReadFile(filepath.Join(dir, fileName(2)))
				if err != nil || strings.Count(string(second), "GenerateDataKeyPair") != 1 || strings.Count(string(second), "AuditLogResumed") != 1 {
					t.Errorf("%s, %v", second, err)
				}
				if name == "removed" {
					return
				}
				r, err := Verify(&s.key.PublicKey, []string{kept, filepath.Join(dir, fileName(2))}, VerifyOptions{})
				if err != nil || r.Finding != nil || r.Records != 4 {
					t.Errorf("%+v, %v", r, err)
				}
			})
		}
	}

	t.Run("no place for the next", func(t *testing.T) {
		dir, s, d := t.TempDir(), newSigner(t), newFaultyDisk()
		l := open(t, Options{Dir: dir, Signer: s, disk: d, retryPause: time.Hour})
		d.set(failing(syscall.ENOSPC, "create"))
		if err := os.Remove(filepath.Join(dir, fileName(1))); err != nil {
			t.Fatal(err)
		}
		wantFailure(t, l.Append(t.Context(), typical()), "create", syscall.ENOSPC)
		wantFailure(t, l.Err(), "create", syscall.ENOSPC)
		d.set(nil)
	})

	t.Run("at Close", func(t *testing.T) {
		dir, s := t.TempDir(), newSigner(t)
		l := open(t, Options{Dir: dir, Signer: s})
		appendN(t, l, 1)
		if err := os.Remove(filepath.Join(dir, fileName(1))); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if r := verify(t, dir, s); r.First.Sequence != 3 || !r.Closed || count(t, dir, "AuditLogResumed") != 1 {
			t.Errorf("%+v", r)
		}
	})
}

// A disk that hangs holds up neither Close nor Rotate for longer than they say. When it answers again, the directory is free.
func TestDiskHangs(t *testing.T) {
	for name, c := range map[string]struct {
		every time.Duration // between checkpoints
		pause time.Duration // before Close
	}{
		"no signature":     {time.Hour, 50 * time.Millisecond},
		"at a look":        {time.Hour, 700 * time.Millisecond},
		"at a checkpoint":  {20 * time.Millisecond, 300 * time.Millisecond},
		"before the first": {time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir, s, d := t.TempDir(), newSigner(t), newFaultyDisk()
			l := open(t, Options{Dir: dir, Signer: s, disk: d, CheckpointEvery: c.every, closeWait: 200 * time.Millisecond})
			hang := make(chan struct{})
			d.set(func(op, path string) error {
				if op == "sync" {
					<-hang
				}
				return nil
			})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			if c.every > time.Second { // otherwise the checkpoint is what hangs
				appendHung(t, l)
				if err := l.Append(ctx, typical()); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Append: %v", err)
				}
			}
			time.Sleep(c.pause)
			rotated := make(chan error, 1)
			go func() { rotated <- l.Rotate() }()
			time.Sleep(20 * time.Millisecond)

			start := time.Now()
			if err := l.Close(); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
				t.Errorf("Close: %v", err)
			}
			if took := time.Since(start); took > 10*time.Second { // a tenth of it, on a machine that has nothing else to do
				t.Errorf("Close took %v", took)
			}
			if err := <-rotated; !errors.Is(err, errClosed) {
				t.Errorf("Rotate: %v", err)
			}
			if _, err := Open(Options{Dir: dir, Signer: s, Log: quiet}); err == nil || !strings.Contains(err.Error(), "in use") {
				t.Errorf("Open while it hangs: %v", err)
			}
			d.set(nil)
			close(hang)
			wait(t, func() bool {
				l, err := Open(Options{Dir: dir, Signer: s, Log: quiet})
				if err == nil {
					l.Close()
				}
				return err == nil
			})
			verify(t, dir, s)
		})
	}

	t.Run("Rotate alone", func(t *testing.T) {
		dir, s, d := t.TempDir(), newSigner(t), newFaultyDisk()
		l := open(t, Options{Dir: dir, Signer: s, disk: d, closeWait: time.Millisecond})
		hang := make(chan struct{})
		d.set(func(op, path string) error {
			if op == "create" {
				<-hang
			}
			return nil
		})
		start := time.Now()
		if err := l.Rotate(); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errClosed) {
			t.Errorf("Rotate: %v", err)
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("it took %v", took)
		}
		d.set(nil)
		close(hang)
		appendN(t, l, 1)
		verify(t, dir, s)
	})
}
