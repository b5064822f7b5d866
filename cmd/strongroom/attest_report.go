package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"strongroom/kms/attest"
)

// documentJSON is what there is to say of an attestation document, for programs. Its first part is there also for what cannot be parsed.
type documentJSON struct {
	Accepted       bool      `json:"accepted"`
	Verified       bool      `json:"verified"`         // form, age, root, chain and signature are right
	RecipientKeyOK bool      `json:"recipient_key_ok"` // an answer can be sealed to its key
	Reasons        []string  `json:"reasons"`          // why it is refused; each begins with its code
	ReasonCodes    []string  `json:"reason_codes"`
	At             time.Time `json:"at"`       // the moment that all this is about
	Encoding       string    `json:"encoding"` // of the file
	Size           int       `json:"size"`     // of the document, in bytes

	Kind     attest.Kind       `json:"kind,omitempty"`
	ModuleID string            `json:"module_id,omitempty"`
	Time     *time.Time        `json:"time,omitempty"`
	Digest   string            `json:"digest,omitempty"`
	Debug    bool              `json:"debug"`
	PCRs     map[string]string `json:"pcrs,omitempty"` // by index, in hex

	Root         string   `json:"root,omitempty"`          // the anchor that it leads to
	RootAccounts []string `json:"root_accounts,omitempty"` // whom the anchor is trusted for, if not for all and nobody was named

	// When form, age, chain and signature are right, if there is such a time, and when the document is accepted, if ever.
	VerifiedFrom  *time.Time `json:"verified_from,omitempty"`
	VerifiedUntil *time.Time `json:"verified_until,omitempty"`
	AcceptedFrom  *time.Time `json:"accepted_from,omitempty"`
	AcceptedUntil *time.Time `json:"accepted_until,omitempty"`

	Certificates []certificateJSON `json:"certificates,omitempty"` // the root first
	PublicKey    *recipientKeyJSON `json:"public_key,omitempty"`
	UserData     []byte            `json:"user_data,omitempty"`
	Nonce        []byte            `json:"nonce,omitempty"`

	Condition  condition   `json:"condition,omitempty"`
	Statements []statement `json:"statements,omitempty"`

	document *attest.Document
}

type certificateJSON struct {
	Subject   string     `json:"subject,omitempty"`
	Issuer    string     `json:"issuer,omitempty"`
	Serial    string     `json:"serial,omitempty"` // in hex
	NotBefore *time.Time `json:"not_before,omitempty"`
	NotAfter  *time.Time `json:"not_after,omitempty"`
	SHA256    string     `json:"sha256"`
	State     string     `json:"state"` // at the moment: valid, expired, not yet valid, or unreadable
}

type recipientKeyJSON struct {
	Usable    bool   `json:"usable"`
	Problem   string `json:"problem,omitempty"` // why it is not usable
	Algorithm string `json:"algorithm,omitempty"`
	Bits      int    `json:"bits,omitempty"`
	SHA256    string `json:"sha256,omitempty"` // which envelopes name it by
	DER       []byte `json:"der,omitempty"`
}

// describedDocument is the form of a report for programs, but for what describeTrust adds.
func describedDocument(r *attest.Report, at time.Time) *documentJSON {
	j := &documentJSON{
		Accepted: r.Accepted(), Verified: r.Verified(), RecipientKeyOK: r.Key != nil, Reasons: []string{}, ReasonCodes: []string{},
		At: at.UTC(), document: r.Document,
	}
	for _, f := range r.Faults {
		j.Reasons = append(j.Reasons, f.Error())
		j.ReasonCodes = append(j.ReasonCodes, f.Reason.String())
	}
	d := r.Document
	if d == nil {
		return j
	}
	j.Kind, j.ModuleID, j.Time, j.Digest, j.Debug, j.UserData, j.Nonce = d.Kind, d.ModuleID, &d.Time, "SHA384", d.Debug(), d.UserData, d.Nonce
	j.PCRs = make(map[string]string)
	for index, value := range d.PCRs {
		j.PCRs[strconv.Itoa(index)] = hex.EncodeToString(value)
	}
	// The server looks at certificates no earlier than at the time that the document has.
	moment := at
	if d.Time.After(moment) {
		moment = d.Time
	}
	for _, der := range append(slices.Clone(d.CABundle), d.Certificate) {
		j.Certificates = append(j.Certificates, describedCertificate(der, moment))
	}
	j.PublicKey = describedKey(r)
	return j
}

func describedCertificate(der []byte, at time.Time) certificateJSON {
	j := certificateJSON{SHA256: hexHash(der), State: "unreadable"}
	c, err := x509.ParseCertificate(der)
	if err != nil || !hasText(c.NotBefore) || !hasText(c.NotAfter) {
		return j
	}
	j.Subject, j.Issuer, j.Serial = c.Subject.String(), c.Issuer.String(), c.SerialNumber.Text(16)
	j.NotBefore, j.NotAfter = utc(&c.NotBefore), utc(&c.NotAfter)
	switch {
	case at.After(c.NotAfter):
		j.State = "expired"
	case at.Before(c.NotBefore):
		j.State = "not yet valid"
	default:
		j.State = "valid"
	}
	return j
}

// hasText reports whether a time can be written: one of X.509 can be in the year 9999 somewhere and in the next in UTC.
func hasText(t time.Time) bool {
	year := t.UTC().Year()
	return 0 <= year && year <= 9999
}

func describedKey(r *attest.Report) *recipientKeyJSON {
	j := &recipientKeyJSON{Usable: r.Key != nil, DER: r.Document.PublicKey}
	if len(j.DER) > 0 {
		j.SHA256 = hexHash(j.DER)
	}
	if r.Key != nil {
		j.Algorithm, j.Bits = "RSA", r.Key.N.BitLen()
	}
	for _, f := range r.Faults {
		if f.Reason == attest.BadKey {
			j.Problem = f.Err.Error()
		}
	}
	return j
}

func hexHash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// describeTrust says who vouches for the document, when it was or will be right, and what pins it, from its reports for the moment that was asked about and
// for its own time: a chain that has expired is seen to have been good only in the second. Where nobody vouches for it there is nothing to pin: a
// condition made from what anybody can have written would let anybody in.
func (j *documentJSON) describeTrust(now, then *attest.Report) {
	if j.Root = now.Root(); j.Root == "" {
		j.Root = then.Root()
	}
	if j.Root == "" {
		return
	}
	if pins := pinsOf(j.document, j.Root); pins != nil {
		j.Condition, j.Statements = allOf(pins), denials(pins)
	}
	r := then
	from, until, ok := r.Window()
	if !ok {
		r = now
		from, until, ok = r.Window()
	}
	if !ok {
		return
	}
	from, until = from.UTC(), until.UTC()
	j.VerifiedFrom, j.VerifiedUntil = &from, &until
	if !hasFault(r, attest.Debug) && !hasFault(r, attest.BadKey) {
		j.AcceptedFrom, j.AcceptedUntil = &from, &until
	}
}

func hasFault(r *attest.Report, reason attest.Reason) bool {
	return slices.ContainsFunc(r.Faults, func(f *attest.Fault) bool { return f.Reason == reason })
}

// text writes a report for people. Nothing that the document says is in it as it came.
func (j *documentJSON) text() string {
	first := "accepted"
	if !j.Accepted {
		first = "refused"
	}
	var rows [][]string
	add := func(label, text string) { rows = append(rows, []string{label, text}) }
	label := "Because"
	for _, reason := range j.Reasons {
		add(label, reason)
		label = ""
	}
	if j.document == nil {
		add("File", fmt.Sprintf("%d bytes, %s", j.Size, j.Encoding))
		return first + "\n" + table(rows)
	}
	add("Kind", string(j.Kind))
	add("Module", quoted([]byte(j.ModuleID)))
	add("Made", when(*j.Time)+", "+ageText(j.At.Sub(*j.Time)))
	if j.Debug {
		add("Debug mode", "yes: it vouches for no code")
	}
	zero := 0
	for _, index := range j.document.Registers() {
		value := j.document.PCRs[index]
		if isZero(value) {
			zero++
			continue
		}
		add("PCR"+strconv.Itoa(index), hex.EncodeToString(value)+"  "+registerNames[j.Kind][index])
	}
	if zero > 0 {
		add("", fmt.Sprintf("and %d that are zero", zero))
	}
	switch {
	case j.Root == "":
		add("Root", "none that is trusted")
	case len(j.RootAccounts) > 0:
		add("Root", j.Root+", for requests of "+strings.Join(j.RootAccounts, ", "))
	default:
		add("Root", j.Root)
	}
	label = "Certificates"
	for _, c := range j.Certificates {
		add(label, c.text())
		label = ""
	}
	add("Public key", j.PublicKey.text())
	add("User data", opaqueText(j.UserData))
	add("Nonce", opaqueText(j.Nonce))
	window := func(from, until *time.Time) string { return "from " + when(*from) + " to " + when(*until) }
	switch {
	case j.AcceptedFrom != nil:
		add("Accepted", window(j.AcceptedFrom, j.AcceptedUntil))
	case j.VerifiedFrom != nil:
		add("Accepted", "never; verified "+window(j.VerifiedFrom, j.VerifiedUntil))
	default:
		add("Accepted", "never, by what is trusted here")
	}
	return first + "\n" + table(rows) + j.conditionText()
}

// conditionText writes the condition so that it can be copied into a policy.
func (j *documentJSON) conditionText() string {
	switch {
	case j.Root == "":
		return "Take no policy from it: nobody who is trusted here vouches for it.\n"
	case j.Condition == nil:
		return "There is no condition that would pin it, because no image is measured in it.\n"
	}
	b, err := json.MarshalIndent(j.Condition, "", "  ")
	if err != nil {
		panic(err) // there are only strings in it
	}
	return "Condition that pins it (--json has statements that enforce it):\n" + string(b) + "\n"
}

func (c certificateJSON) text() string {
	if c.NotBefore == nil {
		return c.State
	}
	const layout = "2006-01-02 15:04:05"
	return fmt.Sprintf("%s to %s UTC  %-13s  %s", c.NotBefore.Format(layout), c.NotAfter.Format(layout), c.State, quoted([]byte(c.Subject)))
}

func (k *recipientKeyJSON) text() string {
	if !k.Usable {
		return "not usable: " + k.Problem
	}
	return fmt.Sprintf("RSA, %d bits, SHA-256 %s", k.Bits, k.SHA256)
}

// registerNames says what registers measure: of enclaves, AWS Nitro Enclaves User Guide, "Where to get an enclave's measurements"; of a TPM, TCG PC Client
// Platform Firmware Profile, "PCR usage", and from 8 to 15 the Linux TPM PCR Registry of the UAPI Group.
var registerNames = map[attest.Kind]map[int]string{
	attest.Enclave: {
		0: "image", 1: "kernel and boot ramdisk", 2: "application", 3: "IAM role of the instance", 4: "id of the instance", 8: "signing certificate of the image",
	},
	attest.NitroTPM: {
		0: "firmware", 1: "firmware configuration", 2: "option ROMs", 3: "option ROM configuration", 4: "boot loader or kernel image",
		5: "boot configuration and partitions", 6: "platform", 7: "Secure Boot policy", 8: "commands of the boot loader", 9: "files of the boot loader",
		10: "IMA", 11: "unified kernel image", 12: "kernel command line and other overrides", 13: "system extensions", 14: "machine owner keys",
		16: "debugging", 17: "dynamic launch", 18: "dynamic launch", 19: "dynamic launch", 20: "dynamic launch", 21: "dynamic launch", 22: "dynamic launch",
		23: "applications",
	},
}

// ageText writes how old something is at a moment.
func ageText(d time.Duration) string {
	word := "old"
	if d < 0 {
		d, word = -d, "in the future"
	}
	const day = 24 * time.Hour
	switch {
	case d < 0 || d > 100*365*day: // the longest negative one has no positive
		return "more than a century " + word
	case d >= 2*day:
		return count(uint64(d/day), "day") + " " + word
	case d >= time.Second:
		return d.Round(time.Second).String() + " " + word
	}
	return d.Round(time.Millisecond).String() + " " + word
}

// quoted returns text that came from a stranger: as it is if every character is visible, else as a literal of Go. Of long text, the beginning.
func quoted(b []byte) string {
	const most = 120 // characters, or bytes of what is no text
	s, more := string(b), ""
	if utf8.RuneCountInString(s) > most {
		s, more = string([]rune(strings.ToValidUTF8(s, "\ufffd"))[:most]), "…"
	}
	visible := utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
	if visible && !strings.HasPrefix(s, `"`) {
		return s + more
	}
	return strconv.Quote(s) + more
}

// opaqueText describes bytes that mean something only to those who put them there.
func opaqueText(b []byte) string {
	switch {
	case b == nil:
		return "none"
	case len(b) == 0:
		return "empty"
	case isText(b):
		return count(len(b), "byte") + ": " + quoted(b)
	case len(b) <= 48:
		return count(len(b), "byte") + ", in hex: " + hex.EncodeToString(b)
	}
	return count(len(b), "byte") + ", binary"
}

// printableJSON returns v as JSON with every character escaped that a terminal might obey. Such characters can stand in strings only, where \u means
// the same (RFC 8259, section 7).
func printableJSON(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	var safe strings.Builder
	for _, r := range strings.TrimSuffix(b.String(), "\n") {
		if unicode.IsPrint(r) {
			safe.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&safe, `\u%04x`, unit)
		}
	}
	return json.RawMessage(safe.String()), nil
}
