package audit

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// VerifyOptions say what a log must be, beyond whole.
type VerifyOptions struct {
	// Head is a place in the chain that was noted earlier. The log must have it, with the same hash: that is how one finds that lines
	// were cut off the end.
	Head *Head
}

// A Report is what [Verify] found.
type Report struct {
	Log         string // the UUID of the chain
	Files       int    // that were read, to the first wrong line
	Lines       uint64 // records and checkpoints
	Records     uint64
	Checkpoints uint64

	First, Last Position // the first and the last line that are right

	// Head is where the log ends. To note it elsewhere is what VerifyOptions.Head is for.
	Head Head

	// Sealed is the last line that a checkpoint names, and when. It and all before it are as the server wrote them.
	Sealed Position

	// Unsealed is how many records after that are chained but not signed: who can write the files could have changed them.
	Unsealed uint64

	// UnsealedSince is when the first of them was written, or somewhat later, and zero if there are none.
	UnsealedSince time.Time

	// Closed says that the last line is a checkpoint that says that the log was closed. Then nothing is unsealed.
	Closed bool

	// Finding is the first thing that is wrong, or nil. What is above describes the log up to there.
	Finding *Finding
}

// A Position is a line of the chain and its eventTime, which for a checkpoint is when it was signed. It is zero if there is none.
type Position struct {
	Sequence uint64
	Time     time.Time
}

// Verify reads the files of one log, all of them or those from some line on, and finds the first line that is not as it was written. It needs
// the public key, from a source that the owner of the files does not control. The order of the files is that of their lines, whatever their names.
//
// Where a new chain was begun after the log, Verify ends with a finding: of two chains, each has to be verified with its own files.
//
// What is wrong with the log is in the report. An error is about the means: a key of the wrong kind, a file that cannot be read.
func Verify(publicKey *ecdsa.PublicKey, files []string, o VerifyOptions) (*Report, error) {
	if publicKey == nil {
		return nil, errors.New("audit: there is no public key")
	}
	der, err := publicKeyDER(publicKey)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, errors.New("audit: there are no files to verify")
	}
	files, err = inOrder(files)
	if err != nil {
		return nil, err
	}
	v := &verifier{key: publicKey, fingerprint: sha256.Sum256(der), o: o, r: new(Report), lines: newReader(files)}
	defer v.lines.close()
	if err := v.run(); err != nil {
		return nil, err
	}
	v.r.Files = v.lines.opened
	if f := v.r.Finding; f != nil && f.Kind != OtherLog {
		v.later(f)
	}
	if v.started {
		v.r.Log = string(appendUUID(nil, v.log))
		v.r.Head = v.head
		v.r.Unsealed = v.r.Records - v.sealedRecords
	}
	return v.r, nil
}

// A verifier goes through a log once, with as much memory as a line and the hashes that a checkpoint can name.
type verifier struct {
	key         *ecdsa.PublicKey
	fingerprint [32]byte
	o           VerifyOptions
	r           *Report
	lines       *reader

	started bool
	log     [16]byte
	head    Head
	file    string // where the head's line is
	line    int
	past    past

	sealed        uint64 // the line that the last checkpoint names
	sealedRecords uint64 // how many records there are to that line
}

// run fills the report up to the first finding.
func (v *verifier) run() error {
	for {
		line, err := v.lines.next()
		if err == io.EOF {
			v.end()
			return nil
		}
		if err != nil {
			var f *Finding
			if errors.As(err, &f) {
				v.r.Finding = f
				if f.Kind == Torn && (v.started || v.o.Head != nil) {
					v.end() // what was noted was a whole line
				}
				return nil
			}
			return err
		}
		if f := v.next(line); f != nil {
			if f.File == "" {
				f.File, f.Line = v.lines.file, v.lines.line
			}
			v.r.Finding = f
			return nil
		}
		v.file, v.line = v.lines.file, v.lines.line
	}
}

// next takes one line. What it notes of it, it notes only if the line is right.
func (v *verifier) next(line []byte) *Finding {
	t, ok := parseTrailer(line)
	if !ok {
		return found(Malformed, "it does not end in a place in a chain")
	}
	if !bytes.HasPrefix(line, []byte(`{"eventVersion":"`)) {
		return found(Malformed, "it does not begin as a record")
	}
	m, err := v.lines.members(line)
	if err != nil {
		return found(Malformed, "it is not one JSON object: %v", err)
	}
	at, err := time.Parse(timeFormat, m.time)
	if err != nil {
		return found(Malformed, "it has no eventTime")
	}

	switch {
	case !v.started && t.sequence == 1 && t.previous != [32]byte{}:
		return found(Changed, "the first line of a chain has a previous other than zeros")
	case !v.started:
		before := Head{t.sequence - 1, t.previous}
		if want := v.o.Head; want != nil && want.Sequence == before.Sequence && want.Hash != before.Hash {
			return found(Changed, "it does not follow line %d of the chain as it was noted, with the hash %x", want.Sequence, want.Hash)
		}
		v.past.add(before, 0)
	case t.log != v.log:
		return v.other(t)
	case t.sequence > v.head.Sequence+1:
		return found(Missing, "lines %d to %d of the chain are missing before this one, which is %d",
			v.head.Sequence+1, t.sequence-1, t.sequence)
	case t.sequence <= v.head.Sequence:
		return found(OutOfOrder, "it is line %d of the chain, where %d is due: a line was inserted, repeated or moved",
			t.sequence, v.head.Sequence+1)
	case t.previous != v.head.Hash:
		return v.blame(line, t)
	}
	head := Head{t.sequence, sha256.Sum256(line)}
	if want := v.o.Head; want != nil && want.Sequence == head.Sequence && want.Hash != head.Hash {
		return found(Changed, "it is line %d of the chain and not the one that was noted, which had the hash %x", head.Sequence, want.Hash)
	}

	isCheckpoint := m.eventType == checkpointEvent || m.checkpoint
	records := v.r.Records
	var c *checkpoint
	if isCheckpoint {
		var f *Finding
		if c, f = v.checkpoint(line, t); f != nil {
			return f
		}
	} else {
		records++
	}
	if t.sequence == 1 {
		if f := v.created(line, m); f != nil {
			return f
		}
	}

	v.past.add(head, records)
	if isCheckpoint {
		v.r.Checkpoints++
		if n, ok := v.past.records(c.head.Sequence); ok && c.head.Sequence > v.sealed {
			v.sealed, v.sealedRecords = c.head.Sequence, n
			v.r.Sealed = Position{c.head.Sequence, c.time}
			if v.r.UnsealedSince = c.time; n == records {
				v.r.UnsealedSince = time.Time{}
			}
		}
	} else if v.r.UnsealedSince.IsZero() {
		v.r.UnsealedSince = at
	}
	v.r.Records = records
	v.r.Lines++
	v.r.Last = Position{t.sequence, at}
	if !v.started {
		v.r.First = v.r.Last
	}
	v.r.Closed = isCheckpoint && c.closed && c.head.Sequence == t.sequence-1
	v.started, v.log, v.head = true, t.log, head
	return nil
}

// other is the finding that a line at t is of another chain.
func (v *verifier) other(t trailer) *Finding {
	f := &Finding{OtherLog, v.lines.file, v.lines.line,
		fmt.Sprintf("it is of the chain %s, and the lines before of %s", appendUUID(nil, t.log), appendUUID(nil, v.log))}
	if t.sequence != 1 {
		return f
	}
	f.Detail = fmt.Sprintf("a new log, %s, was begun here, and the lines before are of the log %s; the files of each can be verified without the other's",
		appendUUID(nil, t.log), appendUUID(nil, v.log))
	after, err := v.lines.next()
	if err != nil {
		return f
	}
	if next, ok := parseTrailer(after); !ok || next.log != t.log {
		return f
	}
	if m, err := v.lines.members(after); err == nil && m.eventType == ServiceEvent && m.name == replacedEvent {
		f.Detail += "; the record " + replacedEvent + " in the next line tells why"
	}
	return f
}

// later adds to a finding that a new log was begun after it: the server does that if it finds the same.
func (v *verifier) later(f *Finding) {
	for _, path := range v.lines.files[v.lines.opened:] {
		line, err := firstLine(path)
		if err != nil {
			continue // it is not the finding
		}
		if t, ok := parseTrailer(bytes.TrimSuffix(line, []byte("\n"))); ok && t.sequence == 1 && (!v.started || t.log != v.log) {
			f.Detail += fmt.Sprintf("; a new log, %s, was begun in %s, which can be verified by itself", appendUUID(nil, t.log), path)
			return
		}
	}
}

// blame tells whether a line or the one before was changed, when the line does not name the hash of the one before. If the line is a checkpoint
// that signs the one before, or if the next line does not know this one as it is, then it is this one.
func (v *verifier) blame(line []byte, t trailer) *Finding {
	this := &Finding{Changed, v.lines.file, v.lines.line, "it was changed: it does not name the hash of the line before"}
	if c, ok := parseCheckpoint(line, t); ok && c.head == v.head {
		if digest := c.digest(t.log); ecdsa.VerifyASN1(v.key, digest[:], c.signature) {
			return this
		}
	}
	hash := sha256.Sum256(line)
	if after, err := v.lines.next(); err == nil {
		if next, ok := parseTrailer(after); ok && next.previous != hash && next.sequence == t.sequence+1 {
			return this
		}
	}
	return &Finding{Changed, v.file, v.line, fmt.Sprintf("its hash is not the one that the line after it names (%s:%d)", this.File, this.Line)}
}

// checkpoint checks a checkpoint that stands at t.
func (v *verifier) checkpoint(line []byte, t trailer) (*checkpoint, *Finding) {
	c, ok := parseCheckpoint(line, t)
	if !ok {
		return nil, found(BadCheckpoint, "it is a checkpoint, but not as one is written")
	}
	digest := c.digest(t.log)
	if !ecdsa.VerifyASN1(v.key, digest[:], c.signature) {
		return nil, found(BadSignature, "the signature of the checkpoint is not valid under this public key")
	}
	if c.head.Sequence >= t.sequence {
		return nil, found(BadCheckpoint, "the checkpoint names line %d, which is not before it", c.head.Sequence)
	}
	if t.sequence-c.head.Sequence > sealDistance {
		return nil, found(BadCheckpoint, "the checkpoint names line %d, which is too far before it", c.head.Sequence)
	}
	if hash, ok := v.past.hash(c.head.Sequence); ok && hash != c.head.Hash {
		return nil, found(BadCheckpoint, "the checkpoint signs another line %d than the one that is in the log", c.head.Sequence)
	}
	return c, nil
}

// created checks the first record of a chain.
func (v *verifier) created(line []byte, m members) *Finding {
	var r struct {
		Details createdDetails `json:"serviceEventDetails"`
	}
	if m.eventType != ServiceEvent || m.name != "AuditLogCreated" || json.Unmarshal(line, &r) != nil {
		return found(Malformed, "it is the first line of a chain, but not AuditLogCreated")
	}
	if r.Details.PublicKeySHA256 != hex.EncodeToString(v.fingerprint[:]) {
		return found(OtherKey, "the chain was begun for another public key, with the SHA-256 %q", r.Details.PublicKeySHA256)
	}
	return nil
}

// end checks what can only be known at the end.
func (v *verifier) end() {
	want := v.o.Head
	switch {
	case !v.started && want != nil:
		v.r.Finding = &Finding{Cut, v.lines.file, 0, fmt.Sprintf("there is not one whole line, and line %d of the chain was noted", want.Sequence)}
	case !v.started:
		v.r.Finding = &Finding{Cut, v.lines.file, 0, "there is not one line"}
	case want == nil:
	case want.Sequence > v.head.Sequence:
		v.r.Finding = &Finding{Cut, v.file, v.line,
			fmt.Sprintf("the log ends with line %d of the chain, and line %d was noted: the end was cut off", v.head.Sequence, want.Sequence)}
	case want.Sequence+1 < v.r.First.Sequence:
		v.r.Finding = &Finding{Missing, v.file, v.line,
			fmt.Sprintf("the files begin with line %d of the chain, and line %d was noted", v.r.First.Sequence, want.Sequence)}
	}
}

// A past remembers the lines that a checkpoint can name: their hashes, and how many records there were up to each.
type past struct {
	base  uint64 // sequence of lines[0] as long as nothing was forgotten
	next  uint64
	lines []pastLine // that of sequence n at (n-base) modulo sealDistance+1
}

type pastLine struct {
	hash    [32]byte
	records uint64
}

func (p *past) add(h Head, records uint64) {
	if len(p.lines) == 0 {
		p.base, p.next = h.Sequence, h.Sequence
	}
	line := pastLine{h.Hash, records}
	if len(p.lines) <= sealDistance {
		p.lines = append(p.lines, line)
	} else {
		p.lines[(h.Sequence-p.base)%(sealDistance+1)] = line
	}
	p.next++
}

func (p *past) find(sequence uint64) (pastLine, bool) {
	if sequence < p.base || sequence >= p.next || p.next-sequence > uint64(len(p.lines)) {
		return pastLine{}, false
	}
	return p.lines[(sequence-p.base)%(sealDistance+1)], true
}

func (p *past) hash(sequence uint64) ([32]byte, bool) {
	line, ok := p.find(sequence)
	return line.hash, ok
}

func (p *past) records(sequence uint64) (uint64, bool) {
	line, ok := p.find(sequence)
	return line.records, ok
}
