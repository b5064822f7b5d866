package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// next begins the next file and closes the one before, which needs no farewell: all of it is durable. If it fails, nothing has changed.
func (l *Log) next() error {
	// A name is taken if an attempt before this failed between the file and its directory and could not take it back.
	number := l.number
	for {
		number++
		if number > maxNumber {
			return fmt.Errorf("%s: there is no number after %d", l.o.Dir, maxNumber)
		}
		path := filepath.Join(l.o.Dir, fileName(number))
		f, err := l.disk.create(path)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			f.Close()
			return err
		}
		if l.file != nil {
			l.file.Close() // all that matters of it is on disk
		}
		l.file, l.info, l.path, l.number, l.offset, l.abandon = f, info, path, number, 0, false
		l.mu.Lock()
		l.tip.file = number
		l.mu.Unlock()
		l.anchor()
		return nil
	}
}

// errMoved is why a log fails whose file is not what it left there.
var errMoved = errors.New("the file was moved away")

// stat returns what is at the file's path, which is the file, or errMoved. A file that was removed is not there either, whatever took its name:
// as long as the log has it open, no other has its inode.
func (l *Log) stat() (fs.FileInfo, error) {
	info, err := l.disk.stat(l.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(info, l.info) {
		return nil, &fs.PathError{Op: "stat", Path: l.path, Err: errMoved}
	}
	return info, err
}

// check looks whether the file is still in its place and as long as it was. Neither keeps a write from succeeding, but the records would be
// where nobody looks for them, or follow something that is not of the chain.
func (l *Log) check() {
	if l.failed != nil {
		return
	}
	info, err := l.stat()
	switch {
	case errors.Is(err, errMoved):
	case err == nil && info.Size() != l.offset:
		// Whatever it is, it is evidence: it stays, and the chain goes on in the next file.
		err = &fs.PathError{Op: "stat", Path: l.path, Err: fmt.Errorf("the file has %d bytes where %d were written", info.Size(), l.offset)}
	case err == nil:
		return
	default:
		// The file may be as it was. A write could even succeed; but if nobody can say so, it is not a record.
		l.fail(err)
		return
	}
	l.part()
	l.fail(err)
}

// recover makes a log that failed writable again, if that is possible by now. Lines of which it is not known whether they are on disk were
// never acknowledged: they are cut off, so that the chain goes on from the last one that is. It goes on
//
//	in the same file    after a write that failed, of which the kernel told the truth
//	in the next file    after a sync that failed, or if the file is not in its place
//
// with a record that says how long nothing was recorded. Only when that record is on disk, the log counts as writable. If the cut is not
// possible, as on a file system that has turned read-only, nothing can go on, because lines that were refused could be taken for others later.
func (l *Log) recover() error {
	l.mu.Lock()
	refused := l.refused
	l.tried = time.Now()
	l.mu.Unlock()

	if l.file != nil {
		info, err := l.file.Stat()
		if err != nil {
			return l.fail(err)
		}
		if info.Size() < l.offset { // to truncate would be to lengthen it
			l.part()
		}
	}
	if l.file != nil {
		if l.abandon && l.journaled() && !l.owing {
			// Of these lines it is not known any more whether they get to the disk from here.
			l.offset, l.owing = l.journal.begin.offset, true
		}
		if err := l.file.Truncate(l.offset); err != nil {
			return l.fail(err)
		}
		if err := l.file.Sync(); err != nil {
			l.abandon = true
			return l.fail(err)
		}
		if l.journal != nil && !l.owing {
			l.journal.empty()
		}
		info, err := l.stat()
		switch {
		case errors.Is(err, errMoved):
			l.part()
		case err != nil:
			return l.fail(err)
		case info.Size() != l.offset:
			return l.fail(&fs.PathError{Op: "truncate", Path: l.path, Err: errors.New("the file has another size")})
		}
	}
	// A file of no lines is as good as the next: otherwise every attempt would leave one behind.
	if l.file == nil || l.abandon && l.offset > 0 {
		if err := l.next(); err != nil {
			return l.fail(err)
		}
	}
	if err := l.repay(); err != nil {
		return err
	}
	err := l.event("AuditLogResumed", struct {
		Reason  string `json:"reason"`
		Since   string `json:"since"`
		Refused int    `json:"refusedRecords"`
	}{l.reason.Error(), l.since.UTC().Format(timeFormat), refused})
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.failed, l.refused = nil, 0
	l.mu.Unlock()
	l.abandon = false
	l.o.Log.Info("audit log can be written again", "file", l.path, "refused", refused)
	return nil
}

// event writes a record of the log about itself. Only the writer may call it.
func (l *Log) event(name string, details any) error {
	line, err := l.eventLine(name, details)
	if err != nil {
		return err
	}
	return l.put([]*pending{line})
}

// eventLine returns a record of the log about itself.
func (l *Log) eventLine(name string, details any) (*pending, error) {
	text, err := json.Marshal(details)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	r := Record{
		Time:                time.Now(),
		Identity:            Identity{Type: "AWSService", AccountID: l.o.Account, InvokedBy: "AWS Internal"},
		Source:              "kms.amazonaws.com",
		Name:                name,
		Region:              l.o.Region,
		SourceIP:            "AWS Internal",
		UserAgent:           "AWS Internal",
		EventType:           ServiceEvent,
		Recipient:           l.o.Account,
		ServiceEventDetails: text,
	}
	body, err := r.append(nil)
	if err != nil {
		return nil, err
	}
	return &pending{body: body, record: true}, nil
}
