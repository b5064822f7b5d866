package audit

import (
	"fmt"
	"os"
	"time"
)

// keep makes lines durable that were written to the file at the log's end, and make the head h: in the journal, or if it has no room, with all that
// is in it, where they are. It reports whether they are in the journal.
func (l *Log) keep(lines []byte, h Head) (kept bool, err error) {
	if l.journal != nil && l.journal.fits(lines) {
		err := l.journal.put(l.place(), lines, h)
		if err == nil {
			if err = l.journal.inPlace(l.disk); err == nil {
				return true, nil
			}
			l.journal.undo(len(lines))
			l.journal.bad = true // nobody would look for it there
		}
		l.o.Log.Warn("audit log's journal cannot be written; records wait for the log's file instead, which takes longer", "err", err)
	}
	return false, l.file.Sync()
}

// prove returns an error if a sync that has just succeeded is not to be believed.
//
// Linux's ext4 answers a sync with success, for a moment, while it gives up a journal that it cannot write or a file system that it finds damaged
// (jbd2_complete_transaction knows nothing any more of the transaction that it is asked about). It has refused changes since before that. So the
// sync is believed only where a change is taken after it, such as one that changes nothing: of the lock's file, which has no blocks. One of a file
// that does costs the next sync some 40 of 140 µs.
func (l *Log) prove() error {
	if err := l.disk.change(l.lock); err != nil {
		return fmt.Errorf("%s: no change is taken after a sync: %w", l.path, err)
	}
	return nil
}

// place returns where the next line comes.
func (l *Log) place() place { return place{l.id, l.number, l.offset, l.head} }

// settle makes the lines durable in the file that only the journal has.
func (l *Log) settle() error {
	if !l.journaled() {
		return nil
	}
	err := l.file.Sync()
	if err == nil {
		err = l.prove()
	}
	if err != nil {
		l.abandon = true
		return l.fail(err)
	}
	l.journal.empty()
	return nil
}

// part closes the file, to which nothing more is written.
func (l *Log) part() {
	if l.journaled() && !l.owing {
		if l.owing = l.abandon || l.file.Sync() != nil; !l.owing {
			l.journal.empty()
		}
	}
	l.file.Close()
	l.file = nil
}

// journaled reports whether there are lines that only the journal has on disk.
func (l *Log) journaled() bool { return l.journal != nil && len(l.journal.lines) > 0 }

// repay writes the lines to the file that no file has any more.
func (l *Log) repay() error {
	if !l.owing {
		return nil
	}
	_, err := l.file.Write(l.journal.lines)
	if err == nil {
		if err = l.file.Sync(); err != nil {
			l.abandon = true
		}
	}
	if err != nil {
		l.file.Truncate(l.offset)
		return l.fail(err)
	}
	l.offset += int64(len(l.journal.lines))
	l.journal.empty()
	l.owing = false
	return nil
}

// tendJournal sees to it that there is a journal in its place that can be written. Without one records are as safe, and take longer.
func (l *Log) tendJournal() {
	if j := l.journal; j != nil {
		why := j.inPlace(l.disk)
		if why == nil && !j.bad || l.settle() != nil {
			return
		}
		l.o.Log.Warn("audit log's journal is made anew", "path", j.path, "err", why)
		j.f.Close()
		if why == nil {
			os.Remove(j.path)
		}
		l.journal = nil
	}
	if time.Now().Before(l.without) {
		return
	}
	j, err := openJournal(l.disk, l.o.Dir)
	if err != nil {
		l.without = time.Now().Add(journalPause)
		l.o.Log.Warn("audit log has no journal; records wait for the log's file instead, which takes longer", "err", err, "remedy", remedy(err))
		return
	}
	l.journal = j
}

// endJournal removes the journal of a log that is closed, unless it has lines that are nowhere else.
func (l *Log) endJournal() error {
	switch {
	case l.journal == nil:
		return nil
	case l.journaled() || l.journal.inPlace(l.disk) != nil:
		return l.journal.f.Close()
	}
	return l.journal.remove()
}
