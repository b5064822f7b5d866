package awsapi

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"strongroom/kms"
)

// Credentials are the access keys that requests are signed with. [kms.Service] keeps them.
type Credentials interface {
	// Credential returns the access key called id, or an error that is kms.NotFound. It costs a look into memory.
	Credential(ctx context.Context, id string) (*kms.Credential, error)

	// Secret opens the credential's secret inside the HSM. The caller wipes it.
	Secret(ctx context.Context, c *kms.Credential) ([]byte, error)
}

const (
	terminator = "aws4_request"
	basicTime  = "20060102T150405Z" // "basic format" of ISO 8601
	maxSkew    = 5 * time.Minute    // either way, as AWS's JSON services allow
)

// A verifier checks Signature Version 4 in its header form (AWS IAM User Guide, "Create a signed AWS API request"). It is strict where a signer
// has no choice: everything that decides what a request means must be under the signature. It is safe for concurrent use.
type verifier struct {
	keys    Credentials
	now     func() time.Time
	derived *signingKeys
}

// A scope is what a signature must be made for: a service, in one of some Regions.
type scope struct {
	service string
	regions []string
}

// verify returns the access key that signed r, whose body is body, for the scope s. The order of the checks is AWS's, as far as it shows from
// outside: form, date, headers, scope, key, session token, signature.
func (v *verifier) verify(r *http.Request, body []byte, s scope) (*kms.Credential, error) {
	headers := r.Header["Authorization"]
	if len(headers) == 0 {
		return nil, &refusal{form: missingToken, message: textMissingToken}
	}
	date, dateHeader := r.Header["X-Amz-Date"], "x-amz-date"
	if len(date) == 0 {
		date, dateHeader = r.Header["Date"], "date"
	}
	if len(headers) > 1 || len(date) > 1 {
		return nil, &refusal{form: incompleteSignature, message: textIncomplete}
	}
	a, err := parseAuthorization(headers[0], len(date) == 1)
	if err != nil {
		return nil, err
	}
	signedAt, err := v.checkDate(date[0])
	if err != nil {
		return nil, err
	}
	if err := checkSigned(r, a.signed, dateHeader); err != nil {
		return nil, err
	}
	if err := s.check(a, signedAt); err != nil {
		return nil, err
	}
	c, err := v.keys.Credential(r.Context(), a.id)
	if errors.Is(err, kms.NotFound) || err == nil && !c.Active {
		return nil, errUnrecognized
	}
	if err != nil {
		return nil, fmt.Errorf("find access key: %w", err)
	}
	// Before the signature, whose key may cost a call to the HSM.
	if err := v.checkToken(c, r.Header["X-Amz-Security-Token"]); err != nil {
		return nil, err
	}
	key, err := v.derived.key(r.Context(), v.keys, c, a)
	if err != nil {
		return nil, err
	}
	canonical, err := canonicalRequest(r, a.signed, body)
	if err != nil {
		return nil, err
	}
	// Until they differ, the time of a plain comparison tells how much of a forgery was right.
	if !hmac.Equal(sign(key[:], stringToSign(a, signedAt, canonical)), []byte(a.signature)) {
		return nil, &refusal{form: invalidSignature, message: textMismatch}
	}
	return c, nil
}

// errUnrecognized is one error for a key that does not exist, one that was switched off, one that is not ours, and a session's without its token.
var errUnrecognized = &refusal{form: unrecognizedClient, message: "The security token included in the request is invalid."}

// errExpired is told only to who has the token.
var errExpired = &refusal{form: expiredToken, message: "The security token included in the request is expired"}

// checkToken reports whether tokens, the session tokens of a request, are what must come with the access key c: for a session its one token while it
// lasts, and otherwise none. That they are under the signature is checkSigned's to see.
func (v *verifier) checkToken(c *kms.Credential, tokens []string) error {
	if c.Session == "" {
		if len(tokens) > 0 {
			return errUnrecognized // somebody else's
		}
		return nil
	}
	if len(tokens) != 1 || !c.TokenMatches(tokens[0]) {
		return errUnrecognized
	}
	if !v.now().Before(c.Expires) {
		return errExpired
	}
	return nil
}

// checkDate reads the date of a request and compares it with the clock.
func (v *verifier) checkDate(s string) (time.Time, error) {
	// time.Parse takes fractions of a second that the layout does not have, hence the length.
	t, err := time.Parse(basicTime, s)
	if err != nil || len(s) != len(basicTime) {
		if t, err = http.ParseTime(s); err != nil {
			return t, &refusal{form: incompleteSignature, message: fmt.Sprintf("Date must be in ISO-8601 'basic format'. Got '%s'. "+
				"See http://en.wikipedia.org/wiki/ISO_8601", clip(s, 64))}
		}
		t = t.UTC()
	}
	now := v.now().UTC()
	show := func(t time.Time) string { return t.Format(basicTime) }
	if earliest := now.Add(-maxSkew); t.Before(earliest) {
		return t, &refusal{form: invalidSignature, message: fmt.Sprintf("Signature expired: %s is now earlier than %s (%s - 5 min.)",
			show(t), show(earliest), show(now))}
	}
	if latest := now.Add(maxSkew); t.After(latest) {
		return t, &refusal{form: invalidSignature, message: fmt.Sprintf("Signature not yet current: %s is still later than %s (%s + 5 min.)",
			show(t), show(latest), show(now))}
	}
	return t, nil
}

// checkSigned reports whether the signature covers what must not change on the way: the host, the date and every X-Amz header, among
// them the name of the operation.
func checkSigned(r *http.Request, signed []string, dateHeader string) error {
	unsigned := ""
	need := func(name string) {
		if _, ok := slices.BinarySearch(signed, name); !ok && (unsigned == "" || name < unsigned) {
			unsigned = name
		}
	}
	need(dateHeader)
	for name := range r.Header {
		if len(name) >= 6 && strings.EqualFold(name[:6], "x-amz-") {
			need(strings.ToLower(name))
		}
	}
	if unsigned != "" {
		return &refusal{form: invalidSignature,
			message: fmt.Sprintf("'%s' must be a 'SignedHeader' in the AWS Authorization.", clip(unsigned, 64))}
	}
	if _, ok := slices.BinarySearch(signed, "host"); !ok {
		return &refusal{form: invalidSignature, message: "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."}
	}
	return nil
}

// check reports whether the signing key of a is good for s on the day of signedAt. AWS tells all faults of a scope at once.
func (s scope) check(a authorization, signedAt time.Time) error {
	var faults []string
	if !slices.Contains(s.regions, a.region) {
		faults = append(faults, "Credential should be scoped to a valid region.")
	}
	if a.service != s.service {
		faults = append(faults, fmt.Sprintf("Credential should be scoped to correct service: '%s'.", s.service))
	}
	if a.terminator != terminator {
		faults = append(faults, fmt.Sprintf("Credential should be scoped with a valid terminator: '%s'.", terminator))
	}
	if day := signedAt.Format("20060102"); a.date != day {
		faults = append(faults, fmt.Sprintf("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "+
			"'%s' != '%s', from '%s'.", clip(a.date, 64), day, signedAt.Format(basicTime)))
	}
	if faults != nil {
		return &refusal{form: invalidSignature, message: strings.Join(faults, " ")}
	}
	return nil
}

// canonicalRequest returns the request in the one spelling that client and server both sign ("Create a signed AWS API request", step 1):
//
//	method \n path \n query \n (name ':' value \n)* \n signed names \n SHA-256 of the body in hexadecimal
//
// The hash is always that of the body which arrived. UNSIGNED-PAYLOAD is for S3, where a body may be too large to hash.
func canonicalRequest(r *http.Request, signed []string, body []byte) ([]byte, error) {
	b := make([]byte, 0, 1024)
	b = append(b, r.Method...)
	b = append(b, '\n')
	b = appendEscaped(b, r.URL.EscapedPath(), true)
	b = append(b, '\n')
	b, ok := appendQuery(b, r.URL.RawQuery)
	if !ok {
		return nil, &refusal{form: invalidSignature, message: textMismatch}
	}
	b = append(b, '\n')
	for _, name := range signed {
		values := headerValues(r, name)
		if values == nil {
			return nil, &refusal{form: invalidSignature, message: textMismatch}
		}
		b = append(b, name...)
		for i, value := range values {
			b = append(b, ":,"[min(i, 1)])
			b = appendFolded(b, value)
		}
		b = append(b, '\n')
	}
	b = append(b, '\n')
	for i, name := range signed {
		if i > 0 {
			b = append(b, ';')
		}
		b = append(b, name...)
	}
	b = append(b, '\n')
	sum := sha256.Sum256(body)
	start := len(b)
	b = hex.AppendEncode(b, sum[:])
	for _, claimed := range r.Header["X-Amz-Content-Sha256"] {
		if claimed != string(b[start:]) {
			return nil, &refusal{form: invalidSignature, message: textMismatch}
		}
	}
	return b, nil
}

// headerValues returns the values of a header in the order they came, or nil if there is none. Package net/http keeps some headers elsewhere
// than in the map.
func headerValues(r *http.Request, name string) []string {
	if name == "host" {
		return []string{r.Host}
	}
	if values := r.Header[http.CanonicalHeaderKey(name)]; len(values) > 0 {
		return values
	}
	if name == "transfer-encoding" && len(r.TransferEncoding) > 0 {
		return r.TransferEncoding
	}
	return nil
}

// appendFolded appends a header's value without white space at its ends and with one space for each run of them.
func appendFolded(b []byte, s string) []byte {
	s = strings.Trim(s, " \t")
	for i := range len(s) {
		if s[i] != ' ' || s[i-1] != ' ' {
			b = append(b, s[i])
		}
	}
	return b
}

// appendQuery appends a query with its parameters in ascending order of name, then value, in one spelling. It reports false
// if the query is not one.
func appendQuery(b []byte, query string) ([]byte, bool) {
	if query == "" {
		return b, true
	}
	var pairs []string
	for part := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		name, err := url.QueryUnescape(name)
		if err != nil {
			return b, false
		}
		if value, err = url.QueryUnescape(value); err != nil {
			return b, false
		}
		pair := append(appendEscaped(nil, name, false), '=')
		pairs = append(pairs, string(appendEscaped(pair, value, false)))
	}
	// "=" is above the digits and "-", which names may have, so that whole pairs sort otherwise than names do.
	slices.SortFunc(pairs, func(x, y string) int {
		xn, xv, _ := strings.Cut(x, "=")
		yn, yv, _ := strings.Cut(y, "=")
		if c := strings.Compare(xn, yn); c != 0 {
			return c
		}
		return strings.Compare(xv, yv)
	})
	return append(b, strings.Join(pairs, "&")...), true
}

// appendEscaped appends s with every byte escaped but the unreserved characters of RFC 3986, section 2.3, and "/" in a path.
func appendEscaped(b []byte, s string, path bool) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~", c) >= 0, path && c == '/':
			b = append(b, c)
		default:
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return b
}

// stringToSign returns what the signature is over (step 3).
func stringToSign(a authorization, signedAt time.Time, canonical []byte) []byte {
	sum := sha256.Sum256(canonical)
	b := make([]byte, 0, 192)
	b = append(b, algorithm...)
	b = append(b, '\n')
	b = signedAt.AppendFormat(b, basicTime)
	b = append(b, '\n')
	b = append(b, a.scope()...)
	b = append(b, '\n')
	return hex.AppendEncode(b, sum[:])
}

// sign returns the signature in hexadecimal (step 4).
func sign(key, text []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(text)
	return hex.AppendEncode(nil, h.Sum(nil))
}
