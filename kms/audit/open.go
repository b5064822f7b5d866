package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Options say where a log is and how it is kept.
type Options struct {
	// Dir is the directory of the log's files and of nothing else. Open makes it, with mode 0700, if there is none in its parent.
	Dir string

	// Signer signs the checkpoints. One chain is signed by one key.
	Signer Signer

	// Log is for operators.
	Log *slog.Logger

	// Region and Account are written in the records that the log makes about itself.
	Region, Account string

	// A checkpoint is made after CheckpointRecords records, by default 1000, and CheckpointEvery after the last one, by default a minute,
	// if there are records that it does not cover.
	CheckpointRecords int
	CheckpointEvery   time.Duration

	// MaxSize is how many bytes a file has before the next is begun, by default 64 MiB. A file is longer by what was written at once.
	MaxSize int64

	// Known is what Anchor was called with last, in this process or one before, or nil if it never was. If the files in Dir are not that log
	// and at least that far, Open does not continue them, but begins a new chain.
	Known *Anchor

	// Anchor is called when the log has come further: after a checkpoint, when a chain or a file was begun, and by Close, which waits for it.
	// It may be slow, and is called by one goroutine at a time. What it cannot store is its own to tell; a later call makes up for it.
	Anchor func(Anchor)

	// For tests.
	disk                                                disk
	retryPause, signPause, closeWait, gather, statEvery time.Duration
}

const (
	maxNumber     = 99_999_999
	publicKeyFile = "public-key.pem"
)

func fileName(number int) string { return fmt.Sprintf("audit-%08d.jsonl", number) }

// fileNumber returns the number in a file's name, or 0 if it is not a name of ours.
func fileNumber(path string) int {
	name := filepath.Base(path)
	digits, _ := strings.CutPrefix(name, "audit-")
	digits, _ = strings.CutSuffix(digits, ".jsonl")
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || n > maxNumber || name != fileName(n) {
		return 0
	}
	return n
}

// Files returns the paths of the files of the log in dir, in the order of their numbers.
func Files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	var files []string
	for _, e := range entries {
		if fileNumber(e.Name()) > 0 {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return files, nil
}

// Open opens a log to append to it, and begins one if there is none in the directory. Lines that are on disk in the journal alone, because the
// machine stopped, are put into the file that they are of. What a crash left of a line is cut off, which the next record says. If the log's end is wrong in any other way, whatever did that, records may be lost, and to write on would be to bury the place.
// What Open does then depends on Options.Known:
//
//	nil      it returns an error. Nobody could tell a new chain from the log having been begun only now.
//	not nil  it leaves the files as they are and begins a new chain in the next one, with a record AuditLogReplaced. So it does if the
//	         end is well but not that of the log that is known, and if there are no files at all.
//
// Something else's line after the last of the log's own is such an end, too, although a log that is running goes on after it, in the next file:
// from that file's first record on Open can tell, and before it cannot.
//
// A log that was signed by another key than the Signer's is refused if public-key.pem says so. If that file is gone and the log itself says
// so, a new chain is begun, with and without Known.
func Open(o Options) (*Log, error) {
	if o.Dir == "" || o.Signer == nil || o.Log == nil {
		return nil, errors.New("audit: Dir, Signer and Log are required")
	}
	o.setDefaults()
	key, err := ParsePublicKey(o.Signer.PublicKey())
	if err != nil {
		return nil, err
	}
	if err := makeDir(o.Dir); err != nil {
		return nil, err
	}
	held, err := lockDir(o.Dir)
	if err != nil {
		return nil, err
	}
	l := &Log{
		o: o, disk: o.disk, key: key, lock: held,
		ended: make(chan struct{}), kick: make(chan struct{}, 1),
	}
	l.running, l.stop = context.WithCancel(context.Background())
	l.life, l.kill = context.WithCancel(context.Background())
	l.sealer.last = time.Now()
	if err := l.open(); err != nil {
		l.stop()
		l.kill()
		if l.file != nil {
			l.file.Close()
		}
		if l.journal != nil {
			l.journal.f.Close() // and it stays, for the next Open
		}
		unlock(held)
		return nil, err
	}
	if l.begun {
		l.anchor()
	}
	go l.run()
	return l, nil
}

func (o *Options) setDefaults() {
	set(&o.CheckpointRecords, 1000)
	set(&o.CheckpointEvery, time.Minute)
	set(&o.MaxSize, 64<<20)
	set(&o.retryPause, retryPause)
	set(&o.gather, gatherMost)
	set(&o.statEvery, statEvery)
	set(&o.signPause, signPause)
	set(&o.closeWait, closeWait)
	if o.disk == nil {
		o.disk = osDisk{}
	}
}

func set[T int | int64 | time.Duration](v *T, byDefault T) {
	if *v <= 0 {
		*v = byDefault
	}
}

// open finds the end of the chain and makes it ready to be appended to.
func (l *Log) open() error {
	if err := l.writePublicKey(); err != nil {
		return err
	}
	files, err := Files(l.o.Dir)
	if err != nil {
		return err
	}
	healed, err := l.replay(files)
	if err != nil {
		return fmt.Errorf("audit: put back the lines that are in the journal alone: %w", err)
	}
	end, err := readLog(files)
	why, odd := refused(err)
	switch {
	case odd && l.o.Known != nil:
		end = ending{}
	case err != nil:
		return err
	default:
		if why, err = l.unlike(files, end); err != nil {
			return err
		}
	}
	l.tendJournal()
	if why != "" {
		l.begun = true
		return l.replace(files, end, why)
	}
	if len(files) == 0 {
		if err := l.next(); err != nil {
			return fmt.Errorf("audit: %w", err)
		}
	} else if err := l.reopen(files[len(files)-1], end); err != nil {
		return err
	}
	if end.lines == 0 {
		l.id = newUUID()
	} else {
		l.id, l.head = end.log, end.head
		l.tip.head = end.head
		l.sealer.owed = !end.sealed
	}

	if end.torn > 0 {
		if err := l.cut(end.torn); err != nil {
			return err
		}
	} else if end.lines == 0 {
		return l.created()
	}
	if healed != nil {
		return l.event("AuditLogRecovered", healed)
	}
	return nil
}

// readLog reads the end of the log that is in files.
func readLog(files []string) (end ending, err error) {
	// From the newest file back to the first that has a line: the newest has none if a crash came before its first.
	last := len(files) - 1
	for i := last; i >= 0; i-- {
		e, err := readEnd(files[i])
		if err != nil {
			return e, err
		}
		if i == last {
			end = e
		} else if e.torn > 0 {
			return e, refuse(files[i], "its last line is not finished, and it is not the newest file")
		}
		if e.lines == 0 {
			continue
		}
		if i < last {
			end.head, end.log, end.sealed, end.lines = e.head, e.log, e.sealed, e.lines
		} else if e.lines == 1 && i > 0 {
			if err := follows(files[i], e, files[i-1]); err != nil {
				return e, err
			}
		}
		break
	}
	return end, nil
}

// follows returns an error if the only line of a file does not continue the file before. The line before it is there, unless that file has been
// moved to where old ones are kept. Something else may be after it: that is when a log that is running goes on in the next file.
func follows(path string, e ending, pathBefore string) error {
	before, err := readEnd(pathBefore)
	if _, odd := refused(err); err != nil && !odd {
		return err
	} else if !odd && (before.lines == 0 || before.torn > 0 || before.head == e.before) {
		return nil
	}
	if there, err2 := holds(pathBefore, e.before); there || err2 != nil {
		return err2
	}
	if err == nil {
		err = refuse(path, "its first line does not continue "+pathBefore)
	}
	return err
}

// created writes the first record of a chain.
func (l *Log) created() error {
	line, err := l.createdLine()
	if err != nil {
		return err
	}
	if err := l.put([]*pending{line}); err != nil {
		return err
	}
	l.begun = true
	l.o.Log.Info("audit log begun", "log", string(appendUUID(nil, l.id)), "file", l.path)
	return nil
}

func (l *Log) createdLine() (*pending, error) {
	fingerprint := sha256.Sum256(l.o.Signer.PublicKey())
	return l.eventLine("AuditLogCreated", createdDetails{hex.EncodeToString(fingerprint[:])})
}

// createdDetails are the serviceEventDetails of AuditLogCreated.
type createdDetails struct {
	PublicKeySHA256 string `json:"publicKeySha256"` // of the SubjectPublicKeyInfo
}

// reopen opens the newest file.
func (l *Log) reopen(path string, end ending) error {
	f, err := l.disk.open(path)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	l.file, l.path, l.number, l.offset = f, path, fileNumber(path), end.offset
	l.tip.file = l.number
	// Lines that a process wrote and did not live to sync are lines of the chain now. They have to be on disk before any that follows them.
	if err := f.Sync(); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if l.info, err = f.Stat(); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if size := end.offset + end.torn; l.info.Size() != size {
		return fmt.Errorf("audit: %s: something else writes to it: it has %d bytes and had %d", path, l.info.Size(), size)
	}
	return nil
}

// cut cuts off the n bytes that a crash left of lines which nobody was told are written, and records it. If the process ends in between, the cut
// is not recorded, and nothing is missing that was ever promised.
func (l *Log) cut(n int64) error {
	hash := sha256.New()
	if _, err := io.Copy(hash, io.NewSectionReader(l.file, l.offset, n)); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	// More than the end of one line may be evidence: a zero in the middle of a log is not always left by a crash.
	if text := make([]byte, min(n, sightLimit)); n > 0 {
		if _, err := l.file.ReadAt(text, l.offset); err == nil && bytes.IndexByte(text, '\n') >= 0 {
			kept := fmt.Sprintf("%s.cut-%d", l.path, l.offset)
			if err := os.WriteFile(kept, text, 0o600); err != nil {
				return fmt.Errorf("audit: keep what is cut off: %w", err)
			}
			l.o.Log.Warn("audit log has lines after a place that was not written; they are cut off and kept", "file", l.path, "kept", kept)
		}
	}
	if err := l.file.Truncate(l.offset); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if l.head.Sequence == 0 {
		if err := l.created(); err != nil {
			return err
		}
	}
	l.o.Log.Warn("audit log ended in an unfinished line, which was cut off", "file", l.path, "bytes", n)
	return l.event("AuditLogRecovered", &cutDetails{filepath.Base(l.path), n, hex.EncodeToString(hash.Sum(nil))})
}

// cutDetails are the serviceEventDetails of AuditLogRecovered: what was cut off.
type cutDetails struct {
	File   string `json:"file"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// PublicKeyPEM returns the key that verifies the log. The same text is in the file public-key.pem in the log's directory; an auditor takes it from
// somewhere else.
func (l *Log) PublicKeyPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: l.o.Signer.PublicKey()})
}

// writePublicKey writes public-key.pem if it is not there. It refuses another key, since a chain that is signed by two verifies with neither.
func (l *Log) writePublicKey() error {
	path := filepath.Join(l.o.Dir, publicKeyFile)
	text := l.PublicKeyPEM()
	old, err := os.ReadFile(path)
	if err == nil {
		if block, _ := pem.Decode(old); block != nil && !bytes.Equal(block.Bytes, l.o.Signer.PublicKey()) {
			return fmt.Errorf("audit: %s is not the key that signs now. One chain is signed by one key: "+
				"move the directory away to begin a new chain, or remove the file if it does not belong here", path)
		}
		if bytes.Equal(old, text) {
			return nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("audit: %w", err)
	}
	temp := path + ".new"
	if err := os.WriteFile(temp, text, 0o644); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}
