package test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// TestHostileKeyIDs: a KeyId that is nothing, but much like something, is refused by every operation that takes one, and never believed.
func TestHostileKeyIDs(t *testing.T) {
	s := start(t, t.TempDir())
	c := s.client()
	key, alias := newAlias(t, c)
	id := *key.KeyId
	hostile := []string{
		strings.ToUpper(id), id + " ", " " + id, id + "\n", id + "\x00", "\x00" + id, id[:35], id + "0", id[1:], strings.ReplaceAll(id, "-", ""), "{" + id + "}", "urn:uuid:" + id,
		strings.ReplaceAll(id, "-", "–"), "mrk-" + id, "mrk-" + strings.ReplaceAll(id, "-", ""), "key/" + id, "/key/" + id, "../" + id, "%2e%2e/" + id, id + "/../" + id, id + "#", id + "?x=1",
		"arn:aws:kms:" + s.region() + ":" + s.account() + ":" + id, "arn:aws:kms:" + s.region() + ":" + s.account() + ":key:" + id, "arn:aws:kms:" + s.region() + "::key/" + id,
		"arn:aws:kms::" + s.account() + ":key/" + id, "arn:aws-cn:kms:" + s.region() + ":" + s.account() + ":key/" + id, "ARN:aws:kms:" + s.region() + ":" + s.account() + ":key/" + id,
		"arn:aws:KMS:" + s.region() + ":" + s.account() + ":key/" + id, *key.Arn + ":", *key.Arn + "/", *key.Arn + "\x00", " " + *key.Arn, *key.Arn + *key.Arn, (*key.Arn)[:40] + "\t" + (*key.Arn)[40:],
		"arn", "arn:", "arn::::::", strings.Repeat(":", 2048), strings.Repeat("arn:", 512), strings.Repeat("/", 2048), "alias/", "alias//", "alias/aws/", alias + "\x00", alias + "/", strings.ToUpper(alias),
		"alias/" + strings.Repeat("x", 2000), "alias/' OR 1=1 --", "alias/%", "alias/_", "alias/../" + id, "alias/\u202e", "ALIAS/x", *key.Arn + "," + id, "*", "%", "_", "''", "' OR ''='",
		"null", "undefined", "NaN", "0", "-1", "[]", "{}", "true", "\u0000", "\ufeff" + id, "é", strings.Repeat("日", 2048), "\U0010ffff", "id\u2028", "$(id)", "`id`", "%00", "\\u0000", "\\",
	}
	random := rand.New(rand.NewPCG(1, 2))
	for _, seed := range []string{id, *key.Arn, alias, s.arn(alias)} {
		for range 60 {
			b := []byte(seed)
			for range 1 + random.IntN(4) {
				switch i := random.IntN(len(b)); random.IntN(4) {
				case 0:
					b[i] = byte(random.IntN(128))
				case 1:
					b = append(b[:i], b[i+1:]...)
				case 2:
					b = append(b[:i], append([]byte{byte(random.IntN(128))}, b[i:]...)...)
				case 3:
					j := random.IntN(len(b))
					b[i], b[j] = b[j], b[i]
				}
			}
			hostile = append(hostile, string(b))
		}
	}
	t.Logf("%d names", len(hostile))
	right := map[string]bool{id: true, *key.Arn: true, alias: true, s.arn(alias): true}
	takes := map[string]string{ // operations, with what else they need
		"DescribeKey": "", "Encrypt": `,"Plaintext":"YQ=="`, "GenerateDataKey": `,"KeySpec":"AES_256"`, "GenerateDataKeyPair": `,"KeyPairSpec":"ECC_NIST_P256"`, "EnableKey": "",
		"CancelKeyDeletion": "", "ListAliases": "", "UpdateKeyDescription": `,"Description":""`, "ScheduleKeyDeletion": "", "DisableKey": "",
	}
	for _, name := range hostile {
		if right[name] { // two letters that are the same were swapped
			continue
		}
		for operation, more := range takes {
			a := s.post(t, operation, `{"KeyId":`+text(name)+more+`}`)
			switch a.code {
			case "NotFoundException", "InvalidArnException", "ValidationException", "AccessDeniedException":
			default:
				t.Errorf("%s %.100q: %d %s %.300q", operation, name, a.status, a.code, a.message)
			}
		}
	}
	if m, err := c.DescribeKey(within(t), describe(id)); err != nil || !m.KeyMetadata.Enabled || show(m.KeyMetadata) != show(key) {
		t.Errorf("afterwards the key is %+v, %v", m, err)
	}
	s.works(t)
}

// TestUnsigned: no operation, known or not, does anything for a request that is not signed by an access key of the server, now and for it.
func TestUnsigned(t *testing.T) {
	s, c := shared(t)
	key := *newKey(t, c).KeyId
	body := []byte(`{"KeyId":"` + key + `"}`)
	const mismatch = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
	signed := func(change func(r *http.Request)) *http.Request {
		r := s.request(t, "DescribeKey", strings.NewReader(string(body)))
		s.sign(t, r, body)
		change(r)
		return r
	}
	by := func(id, secret, region, service string, at time.Time) *http.Request {
		return signed(func(r *http.Request) {
			r.Header.Del("Authorization")
			r.Header.Del("X-Amz-Date")
			credentials := s.credentials()
			credentials.AccessKeyID, credentials.SecretAccessKey = id, secret
			if err := v4.NewSigner().SignHTTP(within(t), credentials, r, hashOf(body), service, region, at); err != nil {
				t.Fatal(err)
			}
		})
	}
	id, secret := s.credentials().AccessKeyID, s.credentials().SecretAccessKey
	authorization := signed(func(*http.Request) {}).Header.Get("Authorization")
	set := func(name, value string) *http.Request {
		return signed(func(r *http.Request) { r.Header.Set(name, value) })
	}
	for _, test := range []struct {
		name    string
		r       *http.Request
		code    string
		message string // "*" if it is not the same each time
	}{
		{"nothing", signed(func(r *http.Request) { r.Header.Del("Authorization") }), "MissingAuthenticationTokenException", "Missing Authentication Token"},
		{"basic", set("Authorization", "Basic eDp5"), "MissingAuthenticationTokenException", "Missing Authentication Token"},
		{"no parameters", set("Authorization", "AWS4-HMAC-SHA256"), "IncompleteSignatureException", "*"},
		{"another algorithm", set("Authorization", strings.Replace(authorization, "SHA256", "SHA1", 1)), "IncompleteSignatureException", "*"},
		{"a credential of three parts", set("Authorization", strings.Replace(authorization, "/kms/aws4_request", "", 1)), "IncompleteSignatureException", "*"},
		{"a long one", set("Authorization", authorization+strings.Repeat("x", 20_000)), "IncompleteSignatureException", "*"},
		{"twice", signed(func(r *http.Request) { r.Header.Add("Authorization", authorization) }), "*", "*"},
		{"an unknown access key", by("AKIAIOSFODNN7EXAMPLE", secret, s.region(), "kms", time.Now()), "UnrecognizedClientException", "The security token included in the request is invalid."},
		{"another secret", by(id, secret+"x", s.region(), "kms", time.Now()), "InvalidSignatureException", mismatch},
		{"another Region", by(id, secret, "eu-west-1", "kms", time.Now()), "InvalidSignatureException", "*"},
		{"another service", by(id, secret, s.region(), "s3", time.Now()), "InvalidSignatureException", "*"},
		{"an hour ago", by(id, secret, s.region(), "kms", time.Now().Add(-time.Hour)), "InvalidSignatureException", "*"},
		{"in an hour", by(id, secret, s.region(), "kms", time.Now().Add(time.Hour)), "InvalidSignatureException", "*"},
		{"another body", signed(func(r *http.Request) { r.Body = bodyOf(`{"KeyId":"x"}`); r.ContentLength = 13 }), "InvalidSignatureException", mismatch},
		{"another target", set("X-Amz-Target", "TrentService.DisableKey"), "InvalidSignatureException", mismatch},
		{"another date", set("X-Amz-Date", time.Now().UTC().Add(time.Minute).Format("20060102T150405Z")), "InvalidSignatureException", mismatch},
		{"a date that is none", set("X-Amz-Date", "yesterday"), "*", "*"},
		{"a signature of zeros", set("Authorization", authorization[:len(authorization)-64]+strings.Repeat("0", 64)), "InvalidSignatureException", mismatch},
		{"half a signature", set("Authorization", authorization[:len(authorization)-32]), "InvalidSignatureException", mismatch},
		{"a bit of the signature", set("Authorization", authorization[:len(authorization)-1]+flip(authorization[len(authorization)-1])), "InvalidSignatureException", mismatch},
	} {
		a := send(t, test.r)
		if a.status != http.StatusBadRequest || test.code != "*" && a.code != test.code || test.message != "*" && a.message != test.message {
			t.Errorf("%s: %d %s %q, want 400 %s %q", test.name, a.status, a.code, a.message, test.code, test.message)
		}
		if strings.Contains(string(a.body), secret) {
			t.Errorf("%s: the answer shows the secret", test.name)
		}
	}
	// Operations that are not supported, and those that need no key, are no exception.
	for _, operation := range []string{"ListKeys", "CreateKey", "GenerateRandom", "Sign"} {
		r := s.request(t, operation, strings.NewReader(`{"NumberOfBytes":32}`))
		if a := send(t, r); a.code != "MissingAuthenticationTokenException" {
			t.Errorf("%s: %d %s", operation, a.status, a.code)
		}
	}
}

// flip returns another hexadecimal digit.
func flip(digit byte) string {
	if digit == '0' {
		return "1"
	}
	return "0"
}

// TestHostileHeaders: heads that no HTTP client writes. Some are the business of package net/http, which may say that it does not do such things (501,
// 505); none is a failure, and none gets anything.
func TestHostileHeaders(t *testing.T) {
	s := start(t, t.TempDir())
	const body = `{"NumberOfBytes":32}`
	good := s.head(t, "GenerateRandom", body)
	good.Header.Set("Content-Length", fmt.Sprint(len(body)))
	if status, got := s.raw(t, headText(good)+body); status != http.StatusOK {
		t.Fatalf("a good request: %d %s", status, got)
	}
	with := func(name, value string) string {
		head := headText(good)
		return head[:len(head)-2] + name + ": " + value + "\r\n\r\n" + body
	}
	without := func(name string) string {
		h := good.Clone(within(t))
		h.Header.Del(name)
		return headText(h) + body
	}
	replaced := func(name, value string) string {
		h := good.Clone(within(t))
		h.Header.Set(name, value)
		return headText(h) + body
	}
	line := func(text string) string { return strings.Replace(headText(good), "POST / HTTP/1.1", text, 1) + body }
	refusedHeads := map[string]string{
		"garbage":                 "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", // what a TLS client says first
		"no head at all":          "\r\n\r\n\r\n",
		"HTTP/2":                  "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"HTTP/9.9":                line("POST / HTTP/9.9"),
		"another method":          line("PUT / HTTP/1.1"),
		"GET":                     line("GET / HTTP/1.1"),
		"a method that is none":   line("FROB / HTTP/1.1"),
		"CONNECT":                 line("CONNECT / HTTP/1.1"),
		"another path":            line("POST /x HTTP/1.1"),
		"a path up":               line("POST /../ HTTP/1.1"),
		"a query":                 line("POST /?a=b&a=%00&%zz HTTP/1.1"),
		"a path that is none":     line("POST %zz HTTP/1.1"),
		"a NUL in a header":       with("X-Evil", "a\x00b"),
		"a NUL in the target":     replaced("X-Amz-Target", "TrentService.GenerateRandom\x00"),
		"DEL in the target":       with("X-Amz-Target", "TrentService.ListKeys\x7f"),
		"a header with no name":   with("", "x"),
		"a name with a space":     with("X Evil", "x"),
		"two targets":             with("X-Amz-Target", "TrentService.ListKeys"),
		"two types":               replaced("Content-Type", "text/plain"),
		"no type":                 without("Content-Type"),
		"the type of JSON 1.0":    replaced("Content-Type", "application/x-amz-json-1.0"),
		"no target":               without("X-Amz-Target"),
		"no date":                 without("X-Amz-Date"),
		"no length":               without("Content-Length"),
		"a negative length":       replaced("Content-Length", "-1"),
		"a length that is none":   replaced("Content-Length", "x"),
		"a length beyond 64 bits": replaced("Content-Length", "99999999999999999999999"),
		"two lengths":             with("Content-Length", "1"),
		"length and chunks":       with("Transfer-Encoding", "chunked") + "\r\n",
		"an unknown encoding":     with("Transfer-Encoding", "gzip"),
		"two hosts":               with("Host", "evil.example"),
		"one header of 100 kB":    with("X-Large", strings.Repeat("x", 100_000)),
		"a million header bytes":  with("X-Large", strings.Repeat("x", 1_000_000)),
		"20,000 headers":          with("X-Many", "x\r\n"+strings.Repeat("X-Many: x\r\n", 20_000)+"X-Last: x"),
		"a chunk that is none":    replaced("Transfer-Encoding", "chunked") + "\r\nzz\r\n",
		"a wrong payload hash":    with("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD"),
	}
	for name, text := range refusedHeads {
		status, got := s.raw(t, text)
		if status < 400 || status == http.StatusInternalServerError || strings.Contains(got, `"Plaintext"`) {
			t.Errorf("%s: %d %.200q", name, status, got)
		}
	}
	// What is odd and not signed is passed over.
	for name, text := range map[string]string{
		"bytes that are no text": with("User-Agent", "\xff\xfe{}'\"<script>"),
		"a long name":            with("User-Agent", strings.Repeat("Mozilla ", 5000)),
		"forwarded":              with("X-Forwarded-For", "127.0.0.1, ::1, evil"),
		"a folded line":          with("X-Evil", "a\r\n b"),
		"a hundred headers":      with("X-Many", "x\r\n"+strings.Repeat("X-Many: x\r\n", 100)+"X-Last: x"),
		"encodings":              with("Accept-Encoding", "gzip, br"),
	} {
		if status, got := s.raw(t, text); status != http.StatusOK {
			t.Errorf("%s: %d %.200q", name, status, got)
		}
	}
	// A client that goes away in the middle, again and again.
	for i := range 200 {
		text := headText(good) + body
		s.hangUp(t, text[:len(text)*i/200])
	}
	s.works(t)
}
