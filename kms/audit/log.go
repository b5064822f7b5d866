package audit

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"
)

// A Log is a log that is open for writing. All methods may be called at once by many goroutines.
//
// Records that arrive while the disk is busy, or while others are about to come (see [gathering]), wait in a queue, and the next write takes all of
// them: many records, one write(2), one fdatasync(2), of the [journal]. There is one writer at a time, and no goroutine that waits to be it: who finds
// the log idle, or comes last of those who are awaited, writes its own record with what is there, and leaves those that came meanwhile to a goroutine,
// which ends when there is nothing to write yet. The chain needs an order, and the order is that of the queue.
//
// So a lone record needs no goroutine to be woken on the way there and on the way back, which takes a fifth as long as the disk. If the disk hangs,
// the one who writes cannot leave before it answers, and that is one; all others leave when their contexts end.
type Log struct {
	o    Options
	disk disk
	id   [16]byte
	key  *ecdsa.PublicKey
	lock *os.File

	// What mu guards is held for moments, never over a write or a sync.
	mu      sync.Mutex
	queue   []*pending
	busy    bool  // there is a writer
	closed  bool  // Append is refused
	failed  error // why the log cannot be written
	refused int   // records that were not written since it failed
	tried   time.Time
	tip     tip

	gathering gathering

	anchoring chan struct{} // closed when the call of Options.Anchor that is running has ended; nil if there is none
	anchorDue bool          // one more call is wanted

	// The writer alone touches what follows: who set busy, or Open and Close when nobody else is there.
	file    file
	info    fs.FileInfo // of file, to tell whether it is still the one at its path
	path    string
	number  int       // in path
	offset  int64     // where the durable lines of file end: after the line of head
	head    Head      // the last line that is durable
	journal *journal  // has the last lines that are durable and not so in file; nil if there is none, and all are
	owing   bool      // the lines in the journal are in no file any more: the next begins with them
	without time.Time // until when not to try again to make a journal
	abandon bool      // file failed in a way after which it is not written to again
	kicked  uint64    // tip.records as of the last kick
	reason  error     // why the log failed first
	since   time.Time // and when
	stay    time.Time // until when not to try again to begin the next file
	buf     []byte
	batch   []*pending

	begun bool // Open has begun a chain

	running context.Context // until Close is called
	stop    context.CancelFunc
	life    context.Context // until Close does not wait any longer
	kill    context.CancelFunc

	ended  chan struct{} // closed by run when it has ended
	kick   chan struct{} // tells run that there are enough records for a checkpoint
	sealer sealer        // run's; Close's when run has ended
}

// A tip is what the maker of checkpoints has to know of the writer's progress.
type tip struct {
	head    Head
	records uint64 // appended since Open; checkpoints do not count
	file    int    // the number of the file
	syncs   uint64 // writes that were made durable since Open
}

// errClosed is the error of a log that was closed.
var errClosed = errors.New("audit: the log is closed")

const (
	// retryPause is how long a log that failed is left alone before it is tried again: long enough that a full disk is not made
	// busy as well, short enough that nobody has to restart a server.
	retryPause = time.Second

	// statEvery is how often the writer looks whether its file is still in its place while nothing is written.
	statEvery = 500 * time.Millisecond

	// keepBuffer is the largest buffer that is kept for the next record or batch.
	keepBuffer = 1 << 20
)

// Append writes a record. When it returns nil, the record is on disk.
//
// If ctx ends first, Append does not wait for the disk any longer, unless it is the one who writes, and the record may be written all the same.
// After a failure of the disk all calls fail, with an error that names it, until the log can be written again, which it finds out by itself; their
// records are not in the log, unless the process dies before the log has been able to take back what it wrote last.
func (l *Log) Append(ctx context.Context, r *Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p := pendings.Get().(*pending)
	var err error
	if p.body, err = r.append(p.body[:0]); err != nil {
		pendings.Put(p)
		return err
	}
	p.record = true
	var announced time.Time
	if r.Expected {
		announced = r.Time
	}
	lead, err := l.submit(p, announced)
	if err != nil {
		release(p)
		return err
	}
	if lead {
		if l.writeQueue() {
			go l.write()
		}
		err := <-p.done // which is there
		release(p)
		return err
	}
	select {
	case err := <-p.done:
		release(p)
		return err
	case <-ctx.Done():
		return fmt.Errorf("audit: not waiting any longer for the disk, which may still write the record: %w", ctx.Err()) // and p is still the writer's
	}
}

// writeBatch appends the lines of a batch to the chain: all, or none.
func (l *Log) writeBatch(batch []*pending) error {
	lines, records := 0, 0
	for _, p := range batch {
		if p.do == nil {
			lines++
		}
		if p.record {
			records++
		}
	}
	if lines == 0 {
		return nil
	}
	err := l.ready()
	if err == nil {
		begun := time.Now()
		if err = l.commit(batch); err == nil {
			l.wrote(time.Since(begun))
		}
	}
	if err != nil {
		l.mu.Lock()
		l.refused += records
		l.mu.Unlock()
	}
	return err
}

// ready makes the log ready for a batch, if it is not.
func (l *Log) ready() error {
	well := l.failed == nil
	l.check()
	if l.failed != nil {
		if !well && time.Since(l.tried) < l.o.retryPause {
			return l.failed
		}
		return l.recover()
	}
	if l.offset >= l.o.MaxSize && time.Now().After(l.stay) {
		if err := l.settle(); err != nil {
			return err
		}
		if err := l.next(); err != nil {
			// That a file grows too long is no reason to refuse requests.
			l.o.Log.Error("audit log goes on in a file that is full, because the next cannot be made", "file", l.path, "err", err)
			l.stay = time.Now().Add(time.Minute)
		}
	}
	return nil
}

// commit puts lines into the file, or if that goes away meanwhile, into the next.
func (l *Log) commit(batch []*pending) error {
	err := l.put(batch)
	if errors.Is(err, errMoved) {
		if err = l.recover(); err == nil {
			err = l.put(batch)
		}
	}
	return err
}

// put writes lines, one after the other in the chain, and makes them durable. It changes the log's head only if it succeeds. If it fails, the
// file has an end that nobody knows, which [Log.recover] has to cut off.
func (l *Log) put(batch []*pending) error {
	buf, head, records := l.buf[:0], l.head, uint64(0)
	for _, p := range batch {
		if p.do != nil {
			continue
		}
		buf, head = appendLine(buf, p.body, l.id, head)
		if p.record {
			records++
		}
	}
	if cap(buf) <= keepBuffer {
		l.buf = buf
	}
	if _, err := l.file.Write(buf); err != nil {
		// Not necessary, since recover does it again and looks at the result. But if this is where the process ends, then the lines that
		// got through whole would stay, as records of requests that were refused.
		l.file.Truncate(l.offset)
		return l.fail(err)
	}
	kept, err := l.keep(buf, head)
	if err != nil {
		// What the kernel could not write it may now hold to be clean, so that a second fdatasync would succeed and mean nothing. What
		// was durable before is so still; nothing more goes into this file.
		l.abandon = true
		l.file.Truncate(l.offset) // as above
		return l.fail(err)
	}
	refuse := func(err error) error {
		if kept {
			l.journal.undo(len(buf))
		}
		l.file.Truncate(l.offset)
		return l.fail(err)
	}
	if err := l.prove(); err != nil {
		l.abandon = true
		return refuse(err)
	}
	if _, err := l.stat(); err != nil {
		// The lines are on disk, but not where anybody looks for them: whoever has the file now must not find them there.
		return refuse(err)
	}
	if !kept && l.journal != nil {
		l.journal.empty()
	}
	l.offset += int64(len(buf))
	l.head = head

	l.mu.Lock()
	l.tip.head = head
	l.tip.records += records
	l.tip.syncs++
	l.mu.Unlock()
	if l.tip.records-l.kicked >= uint64(l.o.CheckpointRecords) {
		l.kicked = l.tip.records
		select {
		case l.kick <- struct{}{}:
		default:
		}
	}
	return nil
}

// fail notes that the log cannot be written, and returns the error for those who wanted to.
func (l *Log) fail(err error) error {
	err = fmt.Errorf("audit: the log cannot be written: %w", err)
	l.mu.Lock()
	first := l.failed == nil
	l.failed, l.tried = err, time.Now()
	l.mu.Unlock()
	if first {
		l.reason, l.since = err, time.Now()
		l.o.Log.Error("audit log cannot be written; requests are refused until it can", "file", l.path, "err", err, "remedy", remedy(err))
	}
	return err
}

// remedy says what an operator can do about a disk that fails. Nothing has to be started again.
func remedy(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "free some space on its file system, as by moving older files of the log to where they are kept"
	case errors.Is(err, syscall.EROFS):
		return "its file system is read-only; the system's log says since when and why"
	case errors.Is(err, syscall.EIO):
		return "the disk failed; look in the system's log"
	case errors.Is(err, fs.ErrPermission):
		return "see that the directory and its files can be written by the user that strongroom runs as"
	}
	return "see that the file is in its place, and that the directory can be written"
}

// Err returns nil if the log can be written, as far as is known, and otherwise why it cannot.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errClosed
	}
	return l.failed
}

// Stats are numbers of a log since it was opened.
type Stats struct {
	Records uint64 // that were written; checkpoints do not count
	Syncs   uint64 // of the disk for them, and for checkpoints
	Refused int    // records that could not be written, since the log failed; 0 if it is well
	File    int    // the number of the file that is being written
}

// Stats returns what the log has done.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Stats{Records: l.tip.records, Syncs: l.tip.syncs, Refused: l.refused, File: l.tip.file}
}

// Rotate closes the file that is being written and begins the next, so that the one before can be moved to where it is kept. If the file was
// moved already, the log goes on in the next without being told, and this is how it does so at once. If the disk does not answer within ten
// seconds, Rotate returns an error, and the next file is begun when it does.
func (l *Log) Rotate() error {
	ctx, cancel := context.WithTimeout(l.running, l.o.closeWait+finishWait)
	defer cancel()
	err := l.exclusive(ctx, func() error {
		if l.closedNow() {
			return errClosed
		}
		l.check()
		if l.failed != nil {
			return l.recover()
		}
		if l.offset == 0 {
			return nil
		}
		if err := l.settle(); err != nil {
			return err
		}
		return l.next()
	})
	switch {
	case err == nil || ctx.Err() == nil || !errors.Is(err, ctx.Err()):
		return err
	case l.running.Err() != nil:
		return errClosed
	}
	return fmt.Errorf("audit: not waiting any longer for the disk to begin the next file: %w", err)
}

func (l *Log) closedNow() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}
