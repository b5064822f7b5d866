package audit

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	eventVersion = "1.08"
	timeFormat   = "2006-01-02T15:04:05Z"

	// maxRecord bounds a record without its trailer. A request has at most 200,000 bytes, of which escaping makes at most six times as
	// many, but it is never all in one record.
	maxRecord = 1 << 20

	// maxLine bounds a line, without its newline.
	maxLine = maxRecord + trailerMax
)

// append writes the record as a line's beginning, to which [appendTrailer] adds its end. The order of members is CloudTrail's and never
// changes, so that golden lines stay golden.
func (r *Record) append(b []byte) ([]byte, error) {
	switch r.EventType {
	case APICall, ServiceEvent, AdminEvent:
	default:
		return b, fmt.Errorf("audit: no record is of event type %q", r.EventType)
	}
	start := len(b)
	var err error
	b = append(b, `{"eventVersion":"`+eventVersion+`","userIdentity":{`...)
	if b, err = r.Identity.append(b); err != nil {
		return b, err
	}
	b = append(b, `},"eventTime":"`...)
	if b, err = appendTime(b, r.Time); err != nil {
		return b, err
	}
	b = append(b, `","eventSource":`...)
	b = appendString(b, r.Source)
	b = appendMember(b, "eventName", r.Name)
	b = appendMember(b, "awsRegion", r.Region)
	b = appendMember(b, "sourceIPAddress", r.SourceIP)
	b = appendMember(b, "userAgent", r.UserAgent)
	b = appendOptional(b, "errorCode", r.ErrorCode)
	b = appendOptional(b, "errorMessage", r.ErrorMessage)
	if b, err = appendValue(b, "requestParameters", orNull(r.RequestParameters)); err != nil {
		return b, err
	}
	if b, err = appendValue(b, "responseElements", orNull(r.ResponseElements)); err != nil {
		return b, err
	}
	if b, err = appendValue(b, "additionalEventData", r.AdditionalEventData); err != nil {
		return b, err
	}
	b = appendOptional(b, "requestID", r.RequestID)
	b = append(b, `,"eventID":`...)
	if r.EventID != "" {
		b = appendString(b, r.EventID)
	} else {
		b = append(b, '"')
		b = appendUUID(b, newUUID())
		b = append(b, '"')
	}
	if r.ReadOnly {
		b = append(b, `,"readOnly":true`...)
	} else {
		b = append(b, `,"readOnly":false`...)
	}
	b = appendResources(b, r.Resources)
	b = appendMember(b, "eventType", r.EventType)
	b = append(b, `,"managementEvent":true`...)
	b = appendMember(b, "recipientAccountId", r.Recipient)
	if b, err = appendValue(b, "serviceEventDetails", r.ServiceEventDetails); err != nil {
		return b, err
	}
	b = append(b, `,"eventCategory":"Management"`...)
	if r.TLS != "" {
		b = append(b, `,"tlsDetails":{"tlsVersion":`...)
		b = appendString(b, r.TLS)
		b = append(b, '}')
	}
	if len(b)-start > maxRecord {
		return b, fmt.Errorf("audit: a record of %d bytes is longer than %d", len(b)-start, maxRecord)
	}
	return b, nil
}

func (i *Identity) append(b []byte) ([]byte, error) {
	b = append(b, `"type":`...)
	b = appendString(b, i.Type)
	b = appendOptional(b, "principalId", i.PrincipalID)
	b = appendOptional(b, "arn", i.ARN)
	b = appendOptional(b, "accountId", i.AccountID)
	b = appendOptional(b, "accessKeyId", i.AccessKeyID)
	b = appendOptional(b, "userName", i.UserName)
	if s := i.Session; s != nil {
		b = append(b, `,"sessionContext":{"sessionIssuer":{"type":`...)
		b = appendString(b, s.IssuerType)
		b = appendMember(b, "principalId", s.IssuerPrincipalID)
		b = appendMember(b, "arn", s.IssuerARN)
		b = appendMember(b, "accountId", s.IssuerAccountID)
		b = appendMember(b, "userName", s.IssuerUserName)
		b = append(b, `},"attributes":{"creationDate":"`...)
		var err error
		if b, err = appendTime(b, s.Created); err != nil {
			return b, err
		}
		b = append(b, `","mfaAuthenticated":"false"}}`...)
	}
	return appendOptional(b, "invokedBy", i.InvokedBy), nil
}

func appendResources(b []byte, resources []Resource) []byte {
	if len(resources) == 0 {
		return b
	}
	b = append(b, `,"resources":`...)
	for i, r := range resources {
		if i == 0 {
			b = append(b, `[{"ARN":`...)
		} else {
			b = append(b, `,{"ARN":`...)
		}
		b = appendString(b, r.ARN)
		b = appendOptional(b, "accountId", r.AccountID)
		if r.Type == "" {
			r.Type = "AWS::KMS::Key"
		}
		b = appendMember(b, "type", r.Type)
		b = append(b, '}')
	}
	return append(b, ']')
}

// appendMember appends a member that is not the first of its object. Names are ours and need no escape.
func appendMember(b []byte, name, value string) []byte {
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":`...)
	return appendString(b, value)
}

func appendOptional(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return appendMember(b, name, value)
}

func orNull(value []byte) []byte {
	if value == nil {
		return []byte("null")
	}
	return value
}

// appendValue appends a member whose value is JSON already, or nothing if the value is nil. The value is checked, since one that is not a
// value of its own could close the object and write members in the place of ours, or end the line.
func appendValue(b []byte, name string, value []byte) ([]byte, error) {
	if value == nil {
		return b, nil
	}
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":`...)
	if string(value) == "null" {
		return append(b, value...), nil
	}
	v := jsontext.Value(value)
	if !v.IsValid() || !shallow(value) {
		return b, fmt.Errorf("audit: %s is not a JSON value", name)
	}
	if bytes.ContainsAny(value, "\n\r") { // between its tokens: in a string they would not be valid
		v = v.Clone()
		if err := v.Compact(); err != nil {
			return b, fmt.Errorf("audit: %s: %w", name, err)
		}
	}
	return appendPrintable(b, v), nil
}

// appendPrintable appends JSON in which what is not ASCII and does not print is escaped: such characters stand in strings only.
// Nothing becomes more than three times as long in bytes by it, which keeps the record of the largest request below maxRecord.
func appendPrintable(b, value []byte) []byte {
	done := 0 // value[:done] is written
	for i := 0; i < len(value); {
		if value[i] < utf8.RuneSelf {
			i++
			continue
		}
		r, n := utf8.DecodeRune(value[i:])
		if !unicode.IsPrint(r) {
			b = append(b, value[done:i]...)
			b = appendRune(b, r)
			done = i + n
		}
		i += n
	}
	return append(b, value[done:]...)
}

// shallow reports whether a value is surely less deep than the 10,000 levels at which a reader gives up on the line.
func shallow(value []byte) bool {
	const enough = 1000
	return len(value) < enough || bytes.Count(value, []byte("["))+bytes.Count(value, []byte("{")) < enough || !deeper(value, enough)
}

// deeper reports whether arrays and objects in a valid value are nested more than limit deep.
func deeper(value []byte, limit int) bool {
	depth, quoted := 0, false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > limit {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

var errYear = errors.New("audit: a record's time is not in the years 1 to 9999")

func appendTime(b []byte, t time.Time) ([]byte, error) {
	t = t.UTC()
	if y := t.Year(); y < 1 || y > 9999 {
		return b, errYear
	}
	return t.AppendFormat(b, timeFormat), nil
}

// plain says which bytes stand for themselves in a string: ASCII that prints, except for the quotation mark and the backslash.
var plain = func() (t [256]bool) {
	for c := ' '; c < 0x7F; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// appendString appends s in quotation marks. What does not print is escaped, whether JSON wants it or not: a user agent must not be able to
// move the cursor of the terminal that shows the log, or to turn the direction of its text around.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	done := 0 // s[:done] is written
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if c >= utf8.RuneSelf && (r != utf8.RuneError || n > 1) && unicode.IsPrint(r) {
			i += n
			continue
		}
		b = append(b, s[done:i]...)
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c == '\t':
			b = append(b, `\t`...)
		case r == utf8.RuneError && n == 1:
			b = append(b, "\uFFFD"...)
		default:
			b = appendRune(b, r)
		}
		i += n
		done = i
	}
	b = append(b, s[done:]...)
	return append(b, '"')
}

// appendRune appends the escape of a character, or the two of one beyond the Basic Multilingual Plane (RFC 8259, section 7).
func appendRune(b []byte, r rune) []byte {
	if r > 0xFFFF {
		r -= 0x10000
		return appendEscape(appendEscape(b, 0xD800+r>>10), 0xDC00+r&0x3FF)
	}
	return appendEscape(b, r)
}

func appendEscape(b []byte, r rune) []byte {
	const digits = "0123456789abcdef"
	return append(b, '\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
}

// newUUID returns a random UUID, RFC 9562, Section 5.4.
func newUUID() (id [16]byte) {
	rand.Read(id[:]) // never fails
	id[6] = id[6]&0x0F | 0x40
	id[8] = id[8]&0x3F | 0x80
	return id
}

func appendUUID(b []byte, id [16]byte) []byte {
	b = hex.AppendEncode(b, id[:4])
	for _, part := range [][]byte{id[4:6], id[6:8], id[8:10], id[10:]} {
		b = append(b, '-')
		b = hex.AppendEncode(b, part)
	}
	return b
}

// parseUUID takes what appendUUID writes and nothing else.
func parseUUID(s []byte) (id [16]byte, ok bool) {
	if len(s) != 36 {
		return id, false
	}
	var digits [32]byte
	n := 0
	for i, c := range s {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return id, false
			}
			continue
		}
		digits[n] = c
		n++
	}
	return id, parseHex(id[:], digits[:])
}

// parseHex decodes lower-case hexadecimal digits that fill dst.
func parseHex(dst, src []byte) bool {
	if len(src) != hex.EncodedLen(len(dst)) || bytes.ContainsAny(src, "ABCDEF") {
		return false
	}
	_, err := hex.Decode(dst, src)
	return err == nil
}
