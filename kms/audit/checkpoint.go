package audit

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// A Signer signs checkpoints: ECDSA with P-256 over a SHA-256 digest, ASN.1 DER. It may be slow and may fail; one call at a time is made.
type Signer interface {
	Sign(ctx context.Context, digest [32]byte) ([]byte, error)
	PublicKey() []byte // SubjectPublicKeyInfo, DER
}

// A checkpoint says that the chain has come to a line. What is signed, by ECDSA with P-256 and SHA-256, is
//
//	 0   30   "strongroom audit checkpoint v1"
//	30   16   the chain's UUID
//	46    8   sequence of the line
//	54   32   SHA-256 of the line
//	86    8   time of the signature, in seconds since 1970
//	94    8   how many records (not lines) were appended since the checkpoint before it, or since the log was opened
//	102   1   1 if the log was closed, otherwise 0
//
// with all numbers big endian. The line that it names is the last one as the signature was begun, so that nobody waits for a signature: others
// may stand between it and the checkpoint, but no more than [sealDistance]. The checkpoint's own line is
//
//	{"eventVersion":"1.08","userIdentity":{"type":"AWSService","invokedBy":"AWS Internal"},"eventTime":"<time>",
//	 "eventSource":"kms.amazonaws.com","eventName":"Checkpoint","eventType":"StrongroomCheckpoint",
//	 "checkpoint":{"sequence":<n>,"hash":"<64 digits>","records":<n>[,"closed":true],"signature":"<base64>"}
//
// without the line breaks, and then its trailer. No other way to write it is valid.
type checkpoint struct {
	head      Head
	time      time.Time
	records   uint64
	closed    bool
	signature []byte
}

const checkpointLabel = "strongroom audit checkpoint v1"

// sealDistance is how many lines can follow the one that a checkpoint names before the checkpoint comes. Who verifies has to remember as many
// hashes. It is some seconds' worth of the fastest log.
const sealDistance = 1 << 18

// digest returns the SHA-256 of what is signed.
func (c *checkpoint) digest(log [16]byte) [32]byte {
	b := make([]byte, 0, 103)
	b = append(b, checkpointLabel...)
	b = append(b, log[:]...)
	b = binary.BigEndian.AppendUint64(b, c.head.Sequence)
	b = append(b, c.head.Hash[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(c.time.Unix()))
	b = binary.BigEndian.AppendUint64(b, c.records)
	if c.closed {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	return sha256.Sum256(b)
}

// append writes the line up to its trailer.
func (c *checkpoint) append(b []byte) ([]byte, error) {
	b = append(b, `{"eventVersion":"`+eventVersion+`","userIdentity":{"type":"AWSService","invokedBy":"AWS Internal"},"eventTime":"`...)
	b, err := appendTime(b, c.time)
	if err != nil {
		return b, err
	}
	b = append(b, `","eventSource":"kms.amazonaws.com","eventName":"Checkpoint","eventType":"`+checkpointEvent+`","checkpoint":{"sequence":`...)
	b = strconv.AppendUint(b, c.head.Sequence, 10)
	b = append(b, `,"hash":"`...)
	b = hex.AppendEncode(b, c.head.Hash[:])
	b = append(b, `","records":`...)
	b = strconv.AppendUint(b, c.records, 10)
	if c.closed {
		b = append(b, `,"closed":true`...)
	}
	b = append(b, `,"signature":"`...)
	b = base64.StdEncoding.AppendEncode(b, c.signature)
	return append(b, `"}`...), nil
}

// parseCheckpoint takes what append writes and nothing else, with the trailer t.
func parseCheckpoint(line []byte, t trailer) (*checkpoint, bool) {
	if len(line) > 4096 {
		return nil, false
	}
	var v struct {
		Time       string `json:"eventTime"`
		Checkpoint struct {
			Sequence  uint64 `json:"sequence"`
			Hash      string `json:"hash"`
			Records   uint64 `json:"records"`
			Closed    bool   `json:"closed"`
			Signature []byte `json:"signature"`
		} `json:"checkpoint"`
	}
	if json.Unmarshal(line, &v) != nil {
		return nil, false
	}
	c := &checkpoint{records: v.Checkpoint.Records, closed: v.Checkpoint.Closed, signature: v.Checkpoint.Signature}
	c.head.Sequence = v.Checkpoint.Sequence
	if !parseHex(c.head.Hash[:], []byte(v.Checkpoint.Hash)) {
		return nil, false
	}
	var err error
	if c.time, err = time.Parse(timeFormat, v.Time); err != nil {
		return nil, false
	}
	same, err := c.append(make([]byte, 0, len(line)))
	if err != nil {
		return nil, false
	}
	same = appendTrailer(same, t.log, Head{t.sequence - 1, t.previous})
	return c, bytes.Equal(same, line)
}

// A sealer knows how far the log is signed. One goroutine has it at a time.
type sealer struct {
	records uint64      // the tip's, as of the last checkpoint
	owed    bool        // Open found lines that are perhaps not signed
	last    time.Time   // when the last checkpoint was written
	retry   time.Time   // until when not to try again
	flight  chan sealed // the signature that is being made, or nil
	signed  tip         // what it is of
	began   time.Time
	late    bool // the operator was told that it does not come
	cancel  context.CancelFunc
}

// A sealed is a signed checkpoint, or the reason why there is none.
type sealed struct {
	checkpoint *checkpoint
	err        error
}

const (
	signTimeout = 30 * time.Second
	signPause   = 5 * time.Second // after a failure

	// closeWait is how long Close waits for the disk, for signatures and for the anchor before it leaves the end of the log unsigned, and
	// finishWait how long it then waits for the file to be closed.
	closeWait  = 9 * time.Second
	finishWait = time.Second
)

// run watches over the log until Close: it has checkpoints made, looks whether the file is in its place, and tries to write a log that
// failed, because a service that asks Err first does not try.
func (l *Log) run() {
	defer close(l.ended)
	ctx := l.running
	tick := time.NewTicker(min(l.o.statEvery, l.o.CheckpointEvery))
	defer tick.Stop()
	s := &l.sealer
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.exclusive(ctx, l.tend)
		case <-l.kick:
		case r := <-s.flight:
			l.seal(l.life, r)
		}
		if s.flight != nil {
			if !s.late && time.Since(s.began) > 2*signTimeout {
				s.late = true
				l.o.Log.Error("audit log has no new checkpoint, because the signer does not answer", "since", s.began)
			}
			continue
		}
		t := l.now()
		n := t.records - s.records
		if (n > 0 || s.owed) && time.Now().After(s.retry) &&
			(n >= uint64(l.o.CheckpointRecords) || time.Since(s.last) >= l.o.CheckpointEvery) {
			l.sign(ctx, t, false)
		}
	}
}

// tend is the writer's share of what run does at every tick.
func (l *Log) tend() error {
	well := l.failed == nil
	l.check()
	if l.failed == nil {
		l.tendJournal()
	}
	if l.failed != nil && (well || time.Since(l.tried) >= l.o.retryPause) {
		return l.recover()
	}
	return nil
}

// now returns the log's tip.
func (l *Log) now() tip {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tip
}

// sign begins a signature of t.
func (l *Log) sign(ctx context.Context, t tip, closed bool) {
	s := &l.sealer
	s.signed, s.began, s.late = t, time.Now(), false
	s.flight = make(chan sealed, 1)
	c := &checkpoint{head: t.head, time: time.Unix(time.Now().Unix(), 0), records: t.records - s.records, closed: closed}
	// A signature that was begun outlives run, for Close to wait for, but not Close.
	ctx, s.cancel = context.WithTimeout(context.WithoutCancel(ctx), signTimeout)
	go func(flight chan<- sealed) {
		digest := c.digest(l.id)
		var err error
		c.signature, err = l.o.Signer.Sign(ctx, digest)
		if err == nil && !ecdsa.VerifyASN1(l.key, digest[:], c.signature) {
			// Once written it could not be told from a forgery.
			err = errors.New("the signature is not of the log's public key")
		}
		flight <- sealed{c, err}
	}(s.flight)
}

// seal writes the checkpoint that a signature was made for.
func (l *Log) seal(ctx context.Context, r sealed) error {
	s := &l.sealer
	s.cancel()
	s.flight = nil
	err := r.err
	if err == nil {
		err = l.appendCheckpoint(ctx, r.checkpoint)
	}
	if err != nil {
		s.retry = time.Now().Add(l.o.signPause)
		l.o.Log.Error("audit log has no new checkpoint; its latest records are chained but not signed", "err", err)
		return err
	}
	s.records, s.owed = s.signed.records, false
	s.last = time.Now()
	// Where the operator's log goes elsewhere, this is the head to require of the log later.
	l.o.Log.Info("audit log signed", "head", r.checkpoint.head.String())
	l.anchor()
	return nil
}

func (l *Log) appendCheckpoint(ctx context.Context, c *checkpoint) error {
	body, err := c.append(nil)
	if err != nil {
		return err
	}
	return l.exclusive(ctx, func() error {
		if err := l.ready(); err != nil {
			return err
		}
		if d := l.head.Sequence - c.head.Sequence; d+1 >= sealDistance { // commit may write a line before it
			return fmt.Errorf("audit: the signature took so long that %d lines were written meanwhile", d)
		}
		if err := l.commit([]*pending{{body: body}}); err != nil {
			return err
		}
		return l.settle() // what is signed can be verified without the journal
	})
}

// Close writes a last checkpoint, which covers everything and says that the log was closed, and closes the log. Appends must have ended; one that
// comes later is refused. Then it has Options.Anchor called. It takes ten seconds at most. If there is no signature by then, the log ends without
// it and Close returns an error: the log is whole, but its end is not signed until it is opened again. If it is the disk that does not answer,
// the directory stays locked until it does.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return errClosed
	}
	l.closed = true
	l.mu.Unlock()
	end := time.Now().Add(l.o.closeWait)
	ctx, cancel := context.WithDeadline(l.life, end)
	defer cancel()
	defer l.kill()
	defer context.AfterFunc(ctx, l.kill)() // run may be waiting for the disk, too
	l.stop()
	<-l.ended

	err := l.closeSealed(ctx)
	if err != nil {
		l.anchor() // which otherwise the checkpoint was for
	}
	finish := time.Now().Add(finishWait)
	last, cancel := context.WithDeadline(context.Background(), finish)
	defer cancel()
	ferr := l.exclusive(last, func() error {
		if l.file != nil {
			l.part()
		}
		return errors.Join(l.endJournal(), unlock(l.lock))
	})
	if ferr != nil && errors.Is(ferr, last.Err()) {
		ferr = fmt.Errorf("audit: closed while the disk does not answer: %w", ferr)
	}
	if finish.Before(end) {
		finish = end
	}
	last, cancel = context.WithDeadline(context.Background(), finish)
	defer cancel()
	return errors.Join(err, ferr, l.anchored(last))
}

func (l *Log) closeSealed(ctx context.Context) error {
	s := &l.sealer
	l.exclusive(ctx, func() error { // after all that waits
		l.check()
		if l.failed != nil {
			l.recover()
		}
		return nil
	})
	wait := func() error {
		if s.flight == nil { // none was begun
			return fmt.Errorf("audit: closed without a last signature: %w", ctx.Err())
		}
		select {
		case r := <-s.flight:
			return l.seal(ctx, r)
		case <-ctx.Done():
			s.cancel()
			return fmt.Errorf("audit: closed without a last signature: %w", ctx.Err())
		}
	}
	if s.flight != nil {
		wait() // Whatever came of it, the next covers more.
	}
	if ctx.Err() == nil {
		l.sign(ctx, l.now(), true)
	}
	return wait()
}
