package audit

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// An Anchor is how far a log has come, noted where those who can write its files cannot.
type Anchor struct {
	Log  string // the UUID of the chain
	Head Head   // a line that is on disk
	File int    // the number of the newest file
}

// anchor has Options.Anchor called with where the log is now. Nobody waits for that: while a call is running, one more is due after it, and what
// was due in between is left out.
func (l *Log) anchor() {
	if l.o.Anchor == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tip.head.Sequence == 0 {
		return
	}
	l.anchorDue = true
	if l.anchoring == nil {
		l.anchoring = make(chan struct{})
		go l.callAnchor()
	}
}

func (l *Log) callAnchor() {
	for {
		l.mu.Lock()
		if !l.anchorDue {
			close(l.anchoring)
			l.anchoring = nil
			l.mu.Unlock()
			return
		}
		l.anchorDue = false
		a := Anchor{Log: string(appendUUID(nil, l.id)), Head: l.tip.head, File: l.tip.file}
		l.mu.Unlock()
		l.o.Anchor(a)
	}
}

// anchored waits until no call of Options.Anchor is running or due.
func (l *Log) anchored(ctx context.Context) error {
	l.mu.Lock()
	done := l.anchoring
	l.mu.Unlock()
	if done == nil {
		return nil
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("audit: closed before the last anchor was stored: %w", ctx.Err())
	}
}

// unlike says why what was found is not the log to go on with, or "" if it is.
func (l *Log) unlike(files []string, end ending) (why string, err error) {
	known := l.o.Known
	if known != nil {
		switch {
		case end.lines == 0:
			return "there is not one line in the directory", nil
		case string(appendUUID(nil, end.log)) != known.Log:
			return "it is another log", nil
		case end.head.Sequence < known.Head.Sequence:
			return "its end is missing", nil
		}
	}
	if end.lines == 0 {
		return "", nil
	}
	// There are checkpoints enough that the end of the newest file mostly has what is wanted.
	var s sight
	for _, n := range []int64{1 << 20, sightLimit} {
		if s, err = look(files, end.log, known, n); err != nil {
			return "", err
		}
		if s.checkpoint != nil && (known == nil || s.known) {
			break
		}
	}
	if s.known && s.hash != known.Head.Hash {
		return fmt.Sprintf("its line %d is not the one that was there", known.Head.Sequence), nil
	}
	fingerprint := sha256.Sum256(l.o.Signer.PublicKey())
	if c := s.checkpoint; c != nil {
		if digest := c.digest(end.log); !ecdsa.VerifyASN1(l.key, digest[:], c.signature) {
			return "its last checkpoint is not signed by the key that signs now", nil
		}
	} else if s.fingerprint != "" && s.fingerprint != hex.EncodeToString(fingerprint[:]) {
		return "it was begun for another key than the one that signs now", nil
	}
	return "", nil
}

// sightLimit is how much of the log's end Open looks at, at most.
const sightLimit = 64 << 20

// A sight is what there is to see at the end of a log.
type sight struct {
	known       bool // hash is that of the line that is known
	hash        [32]byte
	checkpoint  *checkpoint // the last
	fingerprint string      // of the key, as AuditLogCreated has it
}

// look reads the last n bytes of the newest file, and of those before it if the newest has no checkpoint.
func look(files []string, log [16]byte, known *Anchor, n int64) (s sight, err error) {
	for i := len(files) - 1; i >= 0 && n > 0; i-- {
		read, err := tail(files[i], n, func(line []byte) {
			t, ok := parseTrailer(line)
			if !ok || t.log != log {
				return
			}
			if known != nil && t.sequence == known.Head.Sequence {
				s.known, s.hash = true, sha256.Sum256(line)
			} else if known != nil && !s.known && t.sequence == known.Head.Sequence+1 {
				s.known, s.hash = true, t.previous
			}
			if bytes.Contains(line, []byte(`"eventType":"`+checkpointEvent+`"`)) {
				if c, ok := parseCheckpoint(line, t); ok {
					s.checkpoint = c
				}
			}
			if t.sequence == 1 {
				var r struct {
					Details createdDetails `json:"serviceEventDetails"`
				}
				if json.Unmarshal(line, &r) == nil {
					s.fingerprint = r.Details.PublicKeySHA256
				}
			}
		})
		if err != nil || s.checkpoint != nil {
			return s, err
		}
		n -= read
	}
	return s, nil
}

// tail calls f with the lines, without their newlines, that are in the last n bytes of a file, and returns how many bytes these are. Lines that
// are too long are left out, and so is an unfinished last one.
func tail(path string, n int64, f func(line []byte)) (int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("audit: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return 0, fmt.Errorf("audit: %w", err)
	}
	n = min(n, info.Size())
	b := bufio.NewReaderSize(io.NewSectionReader(file, info.Size()-n, n), maxLine+1)
	for skip := n < info.Size(); ; { // the first line may not be whole
		line, err := b.ReadSlice('\n')
		switch {
		case err == io.EOF:
			return n, nil
		case err == bufio.ErrBufferFull:
			skip = true
		case err != nil:
			return n, fmt.Errorf("audit: %w", err)
		case skip:
			skip = false
		default:
			f(line[:len(line)-1])
		}
	}
}

// holds reports whether a line is near the end of a file, although the file does not end with it.
func holds(path string, h Head) (found bool, err error) {
	_, err = tail(path, 3*int64(maxLine+1), func(line []byte) { found = found || sha256.Sum256(line) == h.Hash })
	return found, err
}

// replacedDetails are the serviceEventDetails of AuditLogReplaced. What is not known is empty.
type replacedDetails struct {
	ExpectedLog      string `json:"expectedLog"`
	ExpectedSequence uint64 `json:"expectedSequence"`
	ExpectedHash     string `json:"expectedHash"`
	FoundLog         string `json:"foundLog"`
	FoundSequence    uint64 `json:"foundSequence"`
	Reason           string `json:"reason"`
}

const replacedEvent = "AuditLogReplaced"

// replace begins a new chain after what was found, which is left as it is. Its file has a number that no file of the expected log has, wherever
// that is now.
func (l *Log) replace(files []string, end ending, why string) error {
	d := replacedDetails{Reason: why}
	expected, found := "a log that continues with this key", "no log"
	if k := l.o.Known; k != nil {
		l.number = k.File
		d.ExpectedLog, d.ExpectedSequence, d.ExpectedHash = k.Log, k.Head.Sequence, hex.EncodeToString(k.Head.Hash[:])
		expected = k.Log + " to line " + k.Head.String() + " or further"
	}
	if len(files) > 0 {
		l.number = max(l.number, fileNumber(files[len(files)-1]))
		found = "files that cannot be continued"
	}
	if end.lines > 0 {
		d.FoundLog, d.FoundSequence = string(appendUUID(nil, end.log)), end.head.Sequence
		found = d.FoundLog + " to line " + end.head.String()
	}
	if err := l.next(); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	l.id = newUUID()
	created, err := l.createdLine()
	if err != nil {
		return err
	}
	replaced, err := l.eventLine(replacedEvent, d)
	if err != nil {
		return err
	}
	if err := l.put([]*pending{created, replaced}); err != nil {
		os.Remove(l.path) // or every attempt would leave one behind
		return err
	}
	l.o.Log.Error("audit log in the directory is not the one that was there, and is not continued: a new one was begun. Nothing was deleted. "+
		"Look for the files that are missing, or for who changed them, and keep what is in the directory as evidence",
		"reason", why, "expected", expected, "found", found, "begun", string(appendUUID(nil, l.id)), "file", l.path)
	return nil
}

// A refusal is why a log's end cannot be continued.
type refusal struct{ path, why string }

func (r *refusal) Error() string {
	return fmt.Sprintf("audit: %s: %s. A crash does not do that. See what it is with 'strongroom audit verify', "+
		"keep the directory as evidence by moving it away, and start again: that begins a new chain", r.path, r.why)
}

func refuse(path, why string) error { return &refusal{path, why} }

// refused returns the reason in one line if an error is a refusal.
func refused(err error) (why string, ok bool) {
	var r *refusal
	if !errors.As(err, &r) {
		return "", false
	}
	return filepath.Base(r.path) + ": " + r.why, true
}
