package audit

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// full is a record with all that a record can have.
func full() *Record {
	r := typical()
	r.Identity.Type, r.Identity.UserName, r.Identity.InvokedBy = "AssumedRole", "", "AWS Internal"
	r.Identity.Session = &Session{"Role", "AROAEXAMPLE", "arn:aws:iam::111122223333:role/Admin", "111122223333", "Admin",
		time.Date(2020, 7, 27, 20, 0, 0, 0, time.FixedZone("", 3600))}
	r.ErrorCode, r.ErrorMessage = "AccessDenied", "not \"you\"\n"
	r.ResponseElements = []byte("{ \"a\":\n [1, 2] }")
	r.AdditionalEventData = []byte(`{"keyMaterialId":"1"}`)
	r.Resources = append(r.Resources, Resource{ARN: "arn:aws:kms:eu-central-1:111122223333:alias/x", AccountID: "111122223333", Type: "AWS::KMS::Alias"})
	r.ServiceEventDetails = []byte(`{"keyId":"1"}`)
	return r
}

var testLog, _ = parseUUID([]byte("6ba7b810-9dad-41d1-80b4-00c04fd430c8"))

// golden compares a line with the one in testdata, which is what a released version has written.
func golden(t *testing.T, name string, line []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	want, err := os.ReadFile(path)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, line, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(line, want) {
		t.Errorf("got\n%swant\n%s", line, want)
	}
}

func TestGoldenRecords(t *testing.T) {
	var lines []byte
	h := Head{Sequence: 41, Hash: [32]byte{1, 2, 3}}
	for _, r := range []*Record{typical(), full(), {EventType: AdminEvent, EventID: "-", Time: time.Unix(0, 0)}} {
		body, err := r.append(nil)
		if err != nil {
			t.Fatal(err)
		}
		lines, h = appendLine(lines, body, testLog, h)
	}
	golden(t, "records.jsonl", lines)
}

func TestGoldenCheckpoint(t *testing.T) {
	c := &checkpoint{Head{258, [32]byte{31: 0xFF}}, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), 17, true, []byte("signature")}
	digest := c.digest(testLog)
	body, err := c.append(nil)
	if err != nil {
		t.Fatal(err)
	}
	line, _ := appendLine(nil, body, testLog, Head{259, [32]byte{4}})
	golden(t, "checkpoint.jsonl", line)
	golden(t, "checkpoint.digest", []byte(hex.EncodeToString(digest[:])+"\n"))

	line = bytes.TrimSuffix(line, []byte("\n"))
	trailer, ok := parseTrailer(line)
	if !ok {
		t.Fatal("no trailer")
	}
	again, ok := parseCheckpoint(line, trailer)
	if !ok || again.head != c.head || !again.time.Equal(c.time) || again.records != 17 || !again.closed || string(again.signature) != "signature" {
		t.Errorf("%+v", again)
	}
	// There is no other way to write it.
	for i := range line {
		for _, x := range []byte{1, 0x20, 0x80} {
			line[i] ^= x
			if tr, ok := parseTrailer(line); ok && tr == trailer {
				if other, ok := parseCheckpoint(line, tr); ok && other.digest(testLog) == digest && bytes.Equal(other.signature, c.signature) {
					t.Errorf("byte %d as %q", i, line[i])
				}
			}
			line[i] ^= x
		}
	}
}

func TestTrailer(t *testing.T) {
	for _, n := range []uint64{0, 8, 9, 98, 1 << 40, 1<<64 - 2} {
		h := Head{n, [32]byte{5, 31: 6}}
		line := appendTrailer([]byte(`{"a":1`), testLog, h)
		if len(line) > len(`{"a":1`)+trailerMax {
			t.Errorf("%d bytes", len(line))
		}
		tr, ok := parseTrailer(line)
		if !ok || tr.log != testLog || tr.sequence != n+1 || tr.previous != h.Hash {
			t.Errorf("%d: %+v, %v", n, tr, ok)
		}
		for i := range line {
			parseTrailer(line[i:])
		}
	}
	good := string(appendTrailer(nil, testLog, Head{Sequence: 8}))
	for _, bad := range []string{
		"", "}}", `"}}`, good[1:], good + " ", good + "\r", strings.ToUpper(good),
		strings.Replace(good, `"sequence":9`, `"sequence":09`, 1),
		strings.Replace(good, `"sequence":9`, `"sequence":-9`, 1),
		strings.Replace(good, `"sequence":9`, `"sequence":`, 1),
		strings.Replace(good, `"sequence":9`, `"sequence":0`, 1),
		strings.Replace(good, `"sequence":9`, `"sequence":18446744073709551616`, 1),
		strings.Replace(good, `"sequence":9`, `"sequence":111111111111111111111`, 1),
		strings.Replace(good, `00"}}`, `0g"}}`, 1),
		strings.Replace(good, `00"}}`, `0A"}}`, 1),
		strings.Replace(good, `-41d1`, `-41D1`, 1),
		strings.Replace(good, `-41d1`, `041d1`, 1),
	} {
		if tr, ok := parseTrailer([]byte(bad)); ok {
			t.Errorf("%s: %+v", bad, tr)
		}
	}
}

// nasty are strings that a client could send.
var nasty = []string{
	"", "plain", `"`, `\`, `\"`, "\x00", "\n\r\t\b\f", "\x1b[2J", "\x7f", "\u0085", "\u202e", "\u2028", "é", "日本", "😀", "\U000e0001",
	"\xff", "\xc3", "a\xc3(", "\xed\xa0\x80", "\xf0\x9f\x98", "\ufffd", "\ufeff", `"}}`, `,"strongroom":{"log":"`, "</script>&",
}

func TestStrings(t *testing.T) {
	for _, s := range nasty {
		for _, s := range []string{s, s + "x", "x" + s, s + s} {
			b := appendString(nil, s)
			var got string
			if err := json.Unmarshal(b, &got); err != nil || got != valid(s) {
				t.Errorf("%q is written as %s and read as %q, %v", s, b, got, err)
			}
			if !jsontext.Value(b).IsValid() || bytes.ContainsFunc(b, func(r rune) bool { return r < ' ' || r == 0x7F || r == 0x202E }) {
				t.Errorf("%q is written as %q", s, b)
			}
		}
	}
}

// TestValues: what a record is given as JSON says the same in the log, and moves no cursor there.
func TestValues(t *testing.T) {
	for text, want := range map[string]string{
		`{"a":"日本 é"}`:                       `{"a":"日本 é"}`,
		"{\"a\u202eb\":[\"\u0085\\u2028\"]}": `{"a\u202eb":["\u0085\u2028"]}`,
		"\"é\U000e0001\u00ad\"":              `"é\udb40\udc01\u00ad"`,
		"\"\u009b2J\"":                       `"\u009b2J"`,
	} {
		b, err := appendValue(nil, "v", []byte(text))
		if got := string(b); err != nil || got != `,"v":`+want {
			t.Errorf("%q is written as %s, %v", text, got, err)
		}
		var was, is any
		if json.Unmarshal([]byte(text), &was) != nil || json.Unmarshal([]byte(want), &is) != nil || !reflect.DeepEqual(was, is) {
			t.Errorf("%q means another thing than %s", text, want)
		}
	}
	for _, unit := range []string{"\u0085", "\u202e", "\U000e0001", "\u00ad"} {
		text := `"` + strings.Repeat(unit, 50_000) + `"`
		if b := appendPrintable(nil, []byte(text)); len(b) > 3*len(text) {
			t.Errorf("%q: %d bytes became %d", unit, len(text), len(b))
		}
	}
}

// valid is s with U+FFFD for every byte that is not of UTF-8.
func valid(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		b.WriteRune(r)
		s = s[n:]
	}
	return b.String()
}

// FuzzRecord: whatever strings a record has, it is one line of valid JSON, which says what the record says.
func FuzzRecord(f *testing.F) {
	for _, s := range nasty {
		f.Add(s, "kms.amazonaws.com", "Mozilla", `{"a":1}`, int64(0))
		f.Add("x", s, s, s, int64(1595876277))
	}
	f.Fuzz(func(t *testing.T, a, b, c, params string, at int64) {
		r := &Record{
			Time: time.Unix(at, 0), Source: a, Name: b, Region: c, SourceIP: a + b, UserAgent: b + c, ErrorCode: a, ErrorMessage: c,
			Identity:          Identity{Type: a, PrincipalID: b, ARN: c, UserName: a + c, Session: &Session{IssuerType: a, IssuerARN: b}},
			RequestParameters: []byte(params), RequestID: c, EventID: b, Resources: []Resource{{a, b, c}, {c, b, a}}, EventType: APICall,
			Recipient: a, TLS: b,
		}
		r.Identity.Session.Created = r.Time
		body, err := r.append(nil)
		if err != nil {
			if y := r.Time.UTC().Year(); y >= 1 && y <= 9999 && jsontext.Value(params).IsValid() && len(params) < 1000 && len(body) < maxRecord {
				t.Fatal(err)
			}
			return
		}
		line, head := appendLine(nil, body, testLog, Head{7, [32]byte{8}})
		if bytes.Count(line, []byte("\n")) != 1 || bytes.Contains(line, []byte("\r")) || !utf8.Valid(line) {
			t.Fatalf("not one line: %q", line)
		}
		line = line[:len(line)-1]
		if tr, ok := parseTrailer(line); !ok || tr.sequence != 8 || tr.previous != [32]byte{8} || head.Sequence != 8 {
			t.Fatalf("trailer of %q", line)
		}
		if m, err := newReader(nil).members(line); err != nil || m.name != valid(b) || m.eventType != APICall || m.checkpoint {
			t.Fatalf("%q: %+v, %v", line, m, err)
		}
		var v struct {
			UserIdentity struct{ Type, PrincipalID, Arn, UserName string }
			EventSource  string
			AwsRegion    string
			UserAgent    string
			ErrorMessage string
			Resources    []struct{ ARN, AccountID, Type string }
			TLSDetails   struct{ TLSVersion string }
			Strongroom   struct{ Sequence int }
		}
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatal(err)
		}
		a, b, c = valid(a), valid(b), valid(c)
		if v.UserIdentity.Type != a || v.UserIdentity.PrincipalID != b || v.UserIdentity.Arn != c || v.EventSource != a || v.AwsRegion != c ||
			v.ErrorMessage != c || v.Resources[0].ARN != a || v.Resources[1].ARN != c || v.TLSDetails.TLSVersion != b || v.Strongroom.Sequence != 8 {
			t.Fatalf("%q", line)
		}
	})
}
