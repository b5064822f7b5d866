package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A Head is a place in a chain: a line and, by its hash, everything before it.
type Head struct {
	Sequence uint64
	Hash     [32]byte // SHA-256 of the line without its newline
}

// String returns the head as SEQUENCE:HASH.
func (h Head) String() string { return string(h.append(nil)) }

func (h Head) append(b []byte) []byte {
	b = append(strconv.AppendUint(b, h.Sequence, 10), ':')
	return hex.AppendEncode(b, h.Hash[:])
}

// ParseHead reads what [Head.String] writes, and a hash in capitals.
func ParseHead(s string) (h Head, err error) {
	sequence, hash, _ := strings.Cut(s, ":")
	n, err := strconv.ParseUint(sequence, 10, 64)
	b, herr := hex.DecodeString(hash)
	if errors.Join(err, herr) != nil || n == 0 || len(b) != len(h.Hash) {
		return h, fmt.Errorf("%q: is not SEQUENCE:HASH, a number and 64 hexadecimal digits", s)
	}
	h.Sequence = n
	copy(h.Hash[:], b)
	return h, nil
}

// A trailer is the end of a line, its place in the chain:
//
//	,"strongroom":{"log":"<36 characters>","sequence":<1 to 20 digits>,"previous":"<64 digits>"}}
//
// In a valid JSON object, text of this form at the end can be nothing but the last member: its quotation marks cannot be those of a string's
// content, where they would be escaped, and its last two braces close the member and the line.
type trailer struct {
	log      [16]byte
	sequence uint64
	previous [32]byte
}

const (
	trailerLog      = `,"strongroom":{"log":"`
	trailerSequence = `","sequence":`
	trailerPrevious = `,"previous":"`
	trailerEnd      = `"}}`

	trailerMax = len(trailerLog) + 36 + len(trailerSequence) + 20 + len(trailerPrevious) + 64 + len(trailerEnd)
)

// appendTrailer ends a line that follows h.
func appendTrailer(b []byte, log [16]byte, h Head) []byte {
	b = append(b, trailerLog...)
	b = appendUUID(b, log)
	b = append(b, trailerSequence...)
	b = strconv.AppendUint(b, h.Sequence+1, 10)
	b = append(b, trailerPrevious...)
	b = hex.AppendEncode(b, h.Hash[:])
	return append(b, trailerEnd...)
}

// appendLine appends a whole line and returns the head that it makes.
func appendLine(b []byte, body []byte, log [16]byte, h Head) ([]byte, Head) {
	start := len(b)
	b = append(b, body...)
	b = appendTrailer(b, log, h)
	h = Head{h.Sequence + 1, sha256.Sum256(b[start:])}
	return append(b, '\n'), h
}

// parseTrailer takes what appendTrailer writes and nothing else. It does not look at what is before.
func parseTrailer(line []byte) (t trailer, ok bool) {
	line, ok = bytes.CutSuffix(line, []byte(trailerEnd))
	if !ok || len(line) < 64 {
		return t, false
	}
	line, digits := line[:len(line)-64], line[len(line)-64:]
	if !parseHex(t.previous[:], digits) {
		return t, false
	}
	line, ok = bytes.CutSuffix(line, []byte(trailerPrevious))
	if !ok {
		return t, false
	}
	n := len(line)
	for n > 0 && len(line)-n < 20 && '0' <= line[n-1] && line[n-1] <= '9' {
		n--
	}
	line, digits = line[:n], line[n:]
	if len(digits) == 0 || digits[0] == '0' {
		return t, false
	}
	var err error
	if t.sequence, err = strconv.ParseUint(string(digits), 10, 64); err != nil {
		return t, false
	}
	line, ok = bytes.CutSuffix(line, []byte(trailerSequence))
	if !ok || len(line) < 36 {
		return t, false
	}
	line, digits = line[:len(line)-36], line[len(line)-36:]
	if t.log, ok = parseUUID(digits); !ok {
		return t, false
	}
	return t, bytes.HasSuffix(line, []byte(trailerLog))
}
