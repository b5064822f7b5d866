package awsapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"strongroom/kms"
)

// fakeKeys are access keys whose secret is what Sealed says.
type fakeKeys struct {
	keys    map[string]*kms.Credential
	err     error // of Secret
	secrets atomic.Int64
}

func (f *fakeKeys) Credential(_ context.Context, id string) (*kms.Credential, error) {
	if id == "AKIABROKEN" {
		return nil, errors.New("the store is away")
	}
	if c := f.keys[id]; c != nil {
		return c, nil
	}
	return nil, &kms.Error{Code: kms.NotFound}
}

func (f *fakeKeys) Secret(_ context.Context, c *kms.Credential) ([]byte, error) {
	f.secrets.Add(1)
	return bytes.Clone(c.Sealed), f.err
}

const (
	testKey    = "AKIDEXAMPLE"
	testSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY" // AWS's own example
	testRegion = "us-west-2"
)

var testTime = time.Date(2026, 1, 15, 10, 11, 12, 0, time.UTC)

func newFakeKeys() *fakeKeys {
	key := func(id string, active bool) *kms.Credential {
		return &kms.Credential{ID: id, Account: "111122223333", Principal: "arn:aws:iam::111122223333:root", Active: active, Sealed: []byte(testSecret)}
	}
	session := func(id string, active bool, expires time.Time) *kms.Credential {
		c := key(id, active)
		hash := sha256.Sum256([]byte(testToken))
		c.Principal, c.Session, c.Token, c.Created, c.Expires = "arn:aws:iam::111122223333:role/admin", "alice", hash[:], testTime.Add(-time.Hour), expires
		return c
	}
	f := &fakeKeys{keys: make(map[string]*kms.Credential)}
	for _, c := range []*kms.Credential{
		key(testKey, true), key("AKIAOFF", false), key("AKIAOTHER", true),
		session(testSession, true, testTime.Add(time.Millisecond)), session("ASIAOFF", false, testTime.Add(time.Hour)), session("ASIAOVER", true, testTime),
	} {
		f.keys[c.ID] = c
	}
	return f
}

const (
	testSession = "ASIASESSION"
	testToken   = "FwoGZXIvYXdzEXAMPLE//token+="
)

var kmsScope = scope{"kms", []string{testRegion}}

func newVerifier(keys Credentials) *verifier {
	return &verifier{keys: keys, now: func() time.Time { return testTime }, derived: newSigningKeys(10)}
}

const testBody = `{"KeyId":"alias/x"}`

// A request to sign and verify, with what a test may change about it.
type attempt struct {
	id, secret, service, region string
	token                       string // of a session
	at                          time.Time
	body                        string
	prepare                     func(*http.Request) // before it is signed
	tamper                      func(*http.Request) // after
	sent                        string              // instead of body, if not empty
}

// signed returns the request as it arrives at a server, by way of a connection's bytes, signed by AWS's own signer.
func (a attempt) signed(t testing.TB) *http.Request {
	t.Helper()
	r, err := http.NewRequest("POST", "http://kms.example:8443/", strings.NewReader(a.body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", jsonType)
	r.Header.Set("X-Amz-Target", "TrentService.DescribeKey")
	if a.prepare != nil {
		a.prepare(r)
	}
	sum := sha256.Sum256([]byte(a.body))
	err = v4.NewSigner().SignHTTP(context.Background(), aws.Credentials{AccessKeyID: a.id, SecretAccessKey: a.secret, SessionToken: a.token}, r,
		hex.EncodeToString(sum[:]), a.service, a.region, a.at)
	if err != nil {
		t.Fatal(err)
	}
	if a.tamper != nil {
		a.tamper(r)
	}
	return r
}

// arrived returns r as a server reads it from a connection.
func arrived(t testing.TB, r *http.Request) (*http.Request, []byte) {
	t.Helper()
	type seen struct {
		r    *http.Request
		body []byte
	}
	got := make(chan seen, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- seen{r.Clone(context.Background()), body}
	}))
	defer s.Close()
	r.Host = r.URL.Host
	r.URL.Host = s.Listener.Addr().String()
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	x := <-got
	return x.r, x.body
}

func defaultAttempt() attempt {
	return attempt{id: testKey, secret: testSecret, service: "kms", region: testRegion, at: testTime, body: testBody}
}

// authorize changes the Authorization header by hand.
func authorize(f func(string) string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", f(r.Header.Get("Authorization"))) }
}

// replace does so by replacing a part of it.
func replace(old, new string) func(*http.Request) {
	return authorize(func(s string) string {
		if !strings.Contains(s, old) {
			panic(fmt.Sprintf("no %q in %q", old, s))
		}
		return strings.Replace(s, old, new, 1)
	})
}

func TestVerifyAgainstTheSDK(t *testing.T) {
	const (
		mismatch    = "InvalidSignatureException: " + textMismatch
		incomplete  = "IncompleteSignatureException: "
		invalid     = "InvalidSignatureException: "
		unknownText = "UnrecognizedClientException: The security token included in the request is invalid."
		missing     = "MissingAuthenticationTokenException: Missing Authentication Token"
	)
	header := func(name string, values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header[name] = values }
	}
	noEqualSign := func(header string) string {
		sum := sha256.Sum256([]byte(header))
		return "Invalid key=value pair (missing equal-sign) in Authorization header (hashed with SHA-256 and encoded with Base64): '" +
			base64.StdEncoding.EncodeToString(sum[:]) + "'."
	}
	parts := func(f func(credential, signed, signature string) string) func(*http.Request) {
		return authorize(func(s string) string {
			p := strings.Split(strings.TrimPrefix(s, algorithm+" "), ", ")
			return f(p[0], p[1], p[2])
		})
	}
	tests := []struct {
		name   string
		change func(*attempt)
		want   string
	}{
		{"as it is", func(a *attempt) {}, ""},
		{"empty body", func(a *attempt) { a.body = "" }, ""},
		{"large body", func(a *attempt) { a.body = strings.Repeat("x", 190_000) }, ""},
		{"no spaces", func(a *attempt) {
			a.tamper = authorize(func(s string) string { return strings.ReplaceAll(s, ", ", ",") })
		}, ""},
		{"many spaces", func(a *attempt) {
			a.tamper = authorize(func(s string) string { return strings.ReplaceAll(s, ", ", " ,\t  ") })
		}, ""},
		{"another order", func(a *attempt) {
			a.tamper = parts(func(c, h, s string) string { return algorithm + " " + s + "," + h + ", " + c })
		}, ""},
		{"header with many spaces", func(a *attempt) { a.prepare = header("X-Amz-Note", "  a   b  c ") }, ""},
		{"spaces folded on the way", func(a *attempt) {
			a.prepare, a.tamper = header("X-Amz-Note", "a   b"), header("X-Amz-Note", " a b ")
		}, ""},
		{"repeated header", func(a *attempt) { a.prepare = header("X-Amz-Note", "b", "a") }, ""},
		{"repeated header, another order", func(a *attempt) {
			a.prepare, a.tamper = header("X-Amz-Note", "b", "a"), header("X-Amz-Note", "a", "b")
		}, mismatch},
		{"unsigned header that is not AWS's", func(a *attempt) { a.tamper = header("X-Amzn-Trace-Id", "Root=1") }, ""},
		{"another user agent", func(a *attempt) { a.tamper = header("User-Agent", "proxy") }, ""},
		{"query", func(a *attempt) {
			a.prepare = func(r *http.Request) { r.URL.RawQuery = "b=2&a=%20x&a=-&c=" }
		}, ""},
		{"skew -4:59", func(a *attempt) { a.at = testTime.Add(-299 * time.Second) }, ""},
		{"skew +4:59", func(a *attempt) { a.at = testTime.Add(299 * time.Second) }, ""},
		{"content hash", func(a *attempt) {
			sum := sha256.Sum256([]byte(testBody))
			a.prepare = header("X-Amz-Content-Sha256", hex.EncodeToString(sum[:]))
		}, ""},

		{"skew -5:01", func(a *attempt) { a.at = testTime.Add(-301 * time.Second) },
			invalid + "Signature expired: 20260115T100611Z is now earlier than 20260115T100612Z (20260115T101112Z - 5 min.)"},
		{"skew +5:01", func(a *attempt) { a.at = testTime.Add(301 * time.Second) },
			invalid + "Signature not yet current: 20260115T101613Z is still later than 20260115T101612Z (20260115T101112Z + 5 min.)"},
		{"another day", func(a *attempt) { a.at = testTime.Add(-24 * time.Hour) },
			invalid + "Signature expired: 20260114T101112Z is now earlier than 20260115T100612Z (20260115T101112Z - 5 min.)"},
		{"another secret", func(a *attempt) { a.secret += "x" }, mismatch},
		{"unknown key", func(a *attempt) { a.id = "AKIANOBODY" }, unknownText},
		{"inactive key", func(a *attempt) { a.id = "AKIAOFF" }, unknownText},
		{"key of another", func(a *attempt) { a.tamper = replace(testKey, "AKIABROKEN") }, "find access key: the store is away"},
		{"session token", func(a *attempt) { a.prepare = header("X-Amz-Security-Token", "x") }, unknownText},
		{"session token, unsigned", func(a *attempt) { a.tamper = header("X-Amz-Security-Token", "x") },
			invalid + "'x-amz-security-token' must be a 'SignedHeader' in the AWS Authorization."},
		{"session", func(a *attempt) { a.id, a.token = testSession, testToken }, ""},
		{"session without its token", func(a *attempt) { a.id = testSession }, unknownText},
		{"session with an empty token", func(a *attempt) {
			a.id, a.prepare = testSession, header("X-Amz-Security-Token", "")
		}, unknownText},
		{"session with another token", func(a *attempt) { a.id, a.token = testSession, testToken+"x" }, unknownText},
		{"session with two tokens", func(a *attempt) {
			a.id, a.prepare = testSession, header("X-Amz-Security-Token", testToken, testToken)
		}, unknownText},
		{"session with an unsigned token", func(a *attempt) {
			a.id, a.tamper = testSession, header("X-Amz-Security-Token", testToken)
		}, invalid + "'x-amz-security-token' must be a 'SignedHeader' in the AWS Authorization."},
		{"session with a wrong secret", func(a *attempt) { a.id, a.token, a.secret = testSession, testToken, "x" }, mismatch},
		{"session that was switched off", func(a *attempt) { a.id, a.token = "ASIAOFF", testToken }, unknownText},
		{"session that is over", func(a *attempt) { a.id, a.token = "ASIAOVER", testToken },
			"ExpiredTokenException: The security token included in the request is expired"},
		{"session that is over, another token", func(a *attempt) { a.id, a.token = "ASIAOVER", "x" }, unknownText},
		{"session that is over, no token", func(a *attempt) { a.id = "ASIAOVER" }, unknownText},
		{"token of a session with a permanent key", func(a *attempt) { a.token = testToken }, unknownText},

		{"altered body", func(a *attempt) { a.sent = `{"KeyId":"alias/y"}` }, mismatch},
		{"no body", func(a *attempt) { a.tamper = func(r *http.Request) { r.Body, r.ContentLength = nil, 0 } }, mismatch},
		{"altered target", func(a *attempt) { a.tamper = header("X-Amz-Target", "TrentService.Decrypt") }, mismatch},
		{"two targets", func(a *attempt) {
			a.tamper = header("X-Amz-Target", "TrentService.DescribeKey", "TrentService.Decrypt")
		}, mismatch},
		{"altered host", func(a *attempt) { a.tamper = func(r *http.Request) { r.URL.Host = "kms.example" } }, mismatch},
		{"altered method", func(a *attempt) { a.tamper = func(r *http.Request) { r.Method = "PUT" } }, mismatch},
		{"altered path", func(a *attempt) { a.tamper = func(r *http.Request) { r.URL.Path = "/x" } }, mismatch},
		{"altered query", func(a *attempt) { a.tamper = func(r *http.Request) { r.URL.RawQuery = "a=b" } }, mismatch},
		{"bad query", func(a *attempt) { a.tamper = func(r *http.Request) { r.URL.RawQuery = "a=%x" } }, mismatch},
		{"altered date", func(a *attempt) { a.tamper = header("X-Amz-Date", "20260115T101113Z") }, mismatch},
		{"two dates", func(a *attempt) { a.tamper = header("X-Amz-Date", "20260115T101112Z", "20260115T101112Z") }, incomplete + textIncomplete},
		{"date with a fraction", func(a *attempt) { a.tamper = header("X-Amz-Date", "20260115T101112.5Z") },
			incomplete + "Date must be in ISO-8601 'basic format'. Got '20260115T101112.5Z'. See http://en.wikipedia.org/wiki/ISO_8601"},
		{"extended date", func(a *attempt) { a.tamper = header("X-Amz-Date", "2026-01-15") },
			incomplete + "Date must be in ISO-8601 'basic format'. Got '2026-01-15'. See http://en.wikipedia.org/wiki/ISO_8601"},
		{"no date", func(a *attempt) { a.tamper = func(r *http.Request) { r.Header.Del("X-Amz-Date") } },
			incomplete + "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. Authorization=AWS4-HMAC-SHA256"},
		{"unsigned date", func(a *attempt) {
			a.tamper = func(r *http.Request) {
				r.Header.Del("X-Amz-Date")
				r.Header.Set("Date", testTime.Format(http.TimeFormat))
			}
		}, invalid + "'date' must be a 'SignedHeader' in the AWS Authorization."},
		{"unsigned x-amz header", func(a *attempt) { a.tamper = header("X-Amz-Note", "x") },
			invalid + "'x-amz-note' must be a 'SignedHeader' in the AWS Authorization."},
		{"unsigned x-amz header, odd case", func(a *attempt) { a.tamper = header("x-AMZ-note", "x") },
			invalid + "'x-amz-note' must be a 'SignedHeader' in the AWS Authorization."},
		{"unsigned target", func(a *attempt) { a.tamper = replace(";x-amz-target", "") },
			invalid + "'x-amz-target' must be a 'SignedHeader' in the AWS Authorization."},
		{"unsigned host", func(a *attempt) { a.tamper = replace("host;", "") },
			invalid + "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."},
		{"signed header is gone", func(a *attempt) {
			a.prepare, a.tamper = header("X-Amz-Note", "x"), func(r *http.Request) { r.Header.Del("X-Amz-Note") }
		}, mismatch},
		{"signed header never was", func(a *attempt) { a.tamper = replace("x-amz-target", "x-amz-target;zzz") }, mismatch},
		{"content hash of something else", func(a *attempt) { a.prepare = header("X-Amz-Content-Sha256", strings.Repeat("0", 64)) }, mismatch},
		{"unsigned payload", func(a *attempt) { a.prepare = header("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD") }, mismatch},

		{"another region", func(a *attempt) { a.region = "eu-west-1" }, invalid + "Credential should be scoped to a valid region."},
		{"another service", func(a *attempt) { a.service = "s3" }, invalid + "Credential should be scoped to correct service: 'kms'."},
		{"another terminator", func(a *attempt) { a.tamper = replace("aws4_request", "aws5_request") },
			invalid + "Credential should be scoped with a valid terminator: 'aws4_request'."},
		{"scope of another day", func(a *attempt) { a.tamper = replace("20260115", "20260114") },
			invalid + "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '20260114' != '20260115', from '20260115T101112Z'."},
		{"all of it", func(a *attempt) { a.tamper = replace("/20260115/us-west-2/kms/aws4_request", "/a/b/c/d") },
			invalid + "Credential should be scoped to a valid region. Credential should be scoped to correct service: 'kms'. " +
				"Credential should be scoped with a valid terminator: 'aws4_request'. " +
				"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: 'a' != '20260115', from '20260115T101112Z'."},

		{"no header", func(a *attempt) { a.tamper = func(r *http.Request) { r.Header.Del("Authorization") } }, missing},
		{"presigned", func(a *attempt) {
			a.tamper = func(r *http.Request) {
				r.Header.Del("Authorization")
				r.URL.RawQuery = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=x"
			}
		}, missing},
		{"two headers", func(a *attempt) {
			a.tamper = func(r *http.Request) { r.Header.Add("Authorization", r.Header.Get("Authorization")) }
		}, incomplete + textIncomplete},
		{"basic", func(a *attempt) { a.tamper = header("Authorization", "Basic QTpC") }, missing},
		{"no parameters", func(a *attempt) { a.tamper = header("Authorization", algorithm) },
			incomplete + "Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter. " +
				"Authorization header requires 'SignedHeaders' parameter. Authorization=AWS4-HMAC-SHA256"},
		{"no credential", func(a *attempt) {
			a.tamper = parts(func(c, h, s string) string { return algorithm + " " + h + ", " + s })
		}, incomplete + "Authorization header requires 'Credential' parameter. Authorization=AWS4-HMAC-SHA256"},
		{"no signature", func(a *attempt) {
			a.tamper = parts(func(c, h, s string) string { return algorithm + " " + c + ", " + h })
		}, incomplete + "Authorization header requires 'Signature' parameter. Authorization=AWS4-HMAC-SHA256"},
		{"empty signature", func(a *attempt) {
			a.tamper = parts(func(c, h, s string) string { return algorithm + " " + c + ", " + h + ", Signature=" })
		}, incomplete + "Authorization header requires 'Signature' parameter. Authorization=AWS4-HMAC-SHA256"},
		{"no signed headers", func(a *attempt) {
			a.tamper = parts(func(c, h, s string) string { return algorithm + " " + c + ", " + s })
		}, incomplete + "Authorization header requires 'SignedHeaders' parameter. Authorization=AWS4-HMAC-SHA256"},
		{"four elements", func(a *attempt) { a.tamper = replace("/aws4_request", "") },
			incomplete + "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got 'AKIDEXAMPLE/20260115/us-west-2/kms'"},
		{"SigV4A", func(a *attempt) { a.tamper = replace(algorithm, "AWS4-ECDSA-P256-SHA256") },
			incomplete + "Unsupported AWS 'algorithm': 'AWS4-ECDSA-P256-SHA256' (only AWS4-HMAC-SHA256 for now)."},
		{"no equal-sign", func(a *attempt) { a.tamper = header("Authorization", algorithm+" Credential") },
			incomplete + noEqualSign(algorithm+" Credential")},
		{"twice", func(a *attempt) { a.tamper = authorize(func(s string) string { return s + ", Signature=x" }) }, incomplete + textIncomplete},
		{"unknown parameter", func(a *attempt) { a.tamper = authorize(func(s string) string { return s + ", X=y" }) }, incomplete + textIncomplete},
		{"trailing comma", func(a *attempt) {
			a.tamper = func(r *http.Request) { r.Header.Set("Authorization", algorithm+" Credential=a,") }
		}, incomplete + noEqualSign(algorithm+" Credential=a,")},
		{"huge", func(a *attempt) {
			a.tamper = authorize(func(s string) string { return s + strings.Repeat("0", 100_000) })
		}, incomplete + textIncomplete},
		{"upper case headers", func(a *attempt) { a.tamper = replace(";host", ";Host") }, mismatch},
		{"unsorted headers", func(a *attempt) { a.tamper = replace("host;x-amz-date", "x-amz-date;host") }, mismatch},
		{"header twice", func(a *attempt) { a.tamper = replace("host;", "host;host;") }, mismatch},
		{"empty header name", func(a *attempt) { a.tamper = replace("host;", "host;;") }, mismatch},
		{"upper case signature", func(a *attempt) {
			a.tamper = authorize(func(s string) string {
				i := strings.Index(s, "Signature=")
				return s[:i+10] + strings.ToUpper(s[i+10:])
			})
		}, mismatch},
		{"short signature", func(a *attempt) { a.tamper = authorize(func(s string) string { return s[:len(s)-1] }) }, mismatch},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := defaultAttempt()
			tt.change(&a)
			r := a.signed(t)
			if a.sent != "" {
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader(a.sent)), int64(len(a.sent))
			}
			r, body := arrived(t, r)
			c, err := newVerifier(newFakeKeys()).verify(r, body, kmsScope)
			got := ""
			if err != nil {
				got = err.Error()
			} else if c.ID != a.id {
				t.Errorf("verified as %s", c.ID)
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestSignedDateHeader: X-Amz-Date is AWS's, but the Date of HTTP serves as well.
func TestSignedDateHeader(t *testing.T) {
	for _, date := range []string{testTime.Format(http.TimeFormat), testTime.Format(basicTime)} {
		r := httptest.NewRequest("POST", "/", nil)
		r.Header.Set("Date", date)
		a := authorization{testKey, "20260115", testRegion, "kms", terminator, []string{"date", "host"}, ""}
		canonical, err := canonicalRequest(r, a.signed, nil)
		if err != nil {
			t.Fatal(err)
		}
		key := deriveKey([]byte(testSecret), a)
		a.signature = string(sign(key[:], stringToSign(a, testTime, canonical)))
		r.Header.Set("Authorization", a.String())
		if _, err := newVerifier(newFakeKeys()).verify(r, nil, kmsScope); err != nil {
			t.Errorf("%s: %v", date, err)
		}
	}
}

// TestSuite has vectors of AWS's published "Signature Version 4 test suite".
func TestSuite(t *testing.T) {
	const form = "Content-Type:application/x-www-form-urlencoded"
	tests := []struct {
		name, method, path string
		headers            []string
		body, signed, want string
	}{
		{"get-vanilla", "GET", "/", nil, "", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		{"get-vanilla-query-order-key-case", "GET", "/?Param2=value2&Param1=value1", nil, "", "host;x-amz-date", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
		{"get-vanilla-utf8-query", "GET", "/?ሴ=bar", nil, "", "host;x-amz-date", "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"},
		{"get-unreserved", "GET", "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", nil, "", "host;x-amz-date", "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},
		{"get-header-key-duplicate", "GET", "/", []string{"My-Header1:value2", "My-Header1:value2", "My-Header1:value1"}, "", "host;my-header1;x-amz-date", "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"},
		{"get-header-value-order", "GET", "/", []string{"My-Header1:value4", "My-Header1:value1", "My-Header1:value3", "My-Header1:value2"}, "", "host;my-header1;x-amz-date", "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01"},
		{"get-header-value-trim", "GET", "/", []string{"My-Header1: value1", `My-Header2: "a   b   c"`}, "", "host;my-header1;my-header2;x-amz-date", "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
		{"post-vanilla", "POST", "/", nil, "", "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
		{"post-x-www-form-urlencoded", "POST", "/", []string{form}, "Param1=value1", "content-type;host;x-amz-date", "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"},
	}
	at := time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)
	for _, tt := range tests {
		r := httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body))
		r.Host = "example.amazonaws.com"
		r.Header.Set("X-Amz-Date", "20150830T123600Z")
		for _, h := range tt.headers {
			name, value, _ := strings.Cut(h, ":")
			r.Header.Add(name, value)
		}
		r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders="+
			tt.signed+", Signature="+tt.want)
		v := &verifier{keys: newFakeKeys(), now: func() time.Time { return at }, derived: newSigningKeys(1)}
		if _, err := v.verify(r, []byte(tt.body), scope{"service", []string{"us-east-1"}}); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestSigningKeysAreRemembered(t *testing.T) {
	keys := newFakeKeys()
	v := newVerifier(keys)
	verify := func(want bool, change func(*attempt)) {
		t.Helper()
		a := defaultAttempt()
		change(&a)
		r, body := arrived(t, a.signed(t))
		if _, err := v.verify(r, body, kmsScope); (err == nil) != want {
			t.Errorf("got %v, want ok %v", err, want)
		}
	}
	asked := func(want int64) {
		t.Helper()
		if got := keys.secrets.Load(); got != want {
			t.Errorf("%d secrets were opened, want %d", got, want)
		}
	}
	same := func(*attempt) {}
	verify(true, same)
	verify(true, same)
	asked(1)
	verify(false, func(a *attempt) { a.secret = "wrong" })
	asked(1)
	verify(true, func(a *attempt) { a.id = "AKIAOTHER" })
	asked(2)

	// A replaced secret takes effect at once, the old one is dead, and its signing key is wiped.
	before := v.derived.young[signingKeyID{testKey, "20260115", testRegion, "kms"}]
	changed := *keys.keys[testKey]
	changed.Sealed = []byte("another secret")
	keys.keys[testKey] = &changed
	verify(false, same)
	verify(true, func(a *attempt) { a.secret = "another secret" })
	asked(3)
	if before.key != (signingKey{}) {
		t.Error("the signing key of the old secret is still there")
	}

	// An HSM that is away is no reason to remember anything.
	keys.err = &kms.Error{Code: kms.KeyUnavailable}
	changed.Sealed = []byte("third")
	verify(false, func(a *attempt) { a.secret = "third" })
	keys.err = nil
	verify(true, func(a *attempt) { a.secret = "third" })
}

// TestBadTokenIsNoWork: the HSM is not asked for a session that will not do.
func TestBadTokenIsNoWork(t *testing.T) {
	keys := newFakeKeys()
	v := newVerifier(keys)
	for _, a := range []attempt{{id: testSession}, {id: testSession, token: "x"}, {id: "ASIAOVER", token: testToken}, {id: testKey, token: testToken}} {
		b := defaultAttempt()
		b.id, b.token = a.id, a.token
		r, body := arrived(t, b.signed(t))
		if _, err := v.verify(r, body, kmsScope); err == nil {
			t.Errorf("%s with token %q is good", a.id, a.token)
		}
	}
	if n := keys.secrets.Load(); n != 0 {
		t.Errorf("%d secrets were opened", n)
	}
}

// TestRememberedKeyIsOfOneCredential: what the HSM vouched for at the opening of a secret cannot be changed beside it afterwards.
func TestRememberedKeyIsOfOneCredential(t *testing.T) {
	hash := sha256.Sum256([]byte("another token"))
	for name, change := range map[string]func(*kms.Credential){
		"account":   func(c *kms.Credential) { c.Account = "444455556666" },
		"principal": func(c *kms.Credential) { c.Principal = "arn:aws:iam::111122223333:role/other" },
		"session":   func(c *kms.Credential) { c.Session = "bob" },
		"expiry":    func(c *kms.Credential) { c.Expires = testTime.Add(time.Hour) },
		"token":     func(c *kms.Credential) { c.Token = hash[:] },
		"":          func(c *kms.Credential) { c.LastUsed = testTime },
	} {
		keys := newFakeKeys()
		v := newVerifier(keys)
		for range 2 {
			a := defaultAttempt()
			a.id, a.token = testSession, testToken
			if name == "token" && keys.secrets.Load() > 0 {
				a.token = "another token"
			}
			r, body := arrived(t, a.signed(t))
			if _, err := v.verify(r, body, kmsScope); err != nil {
				t.Fatal(name, err)
			}
			changed := *keys.keys[testSession]
			change(&changed)
			keys.keys[testSession] = &changed
		}
		want := int64(2)
		if name == "" {
			want = 1
		}
		if n := keys.secrets.Load(); n != want {
			t.Errorf("another %s: %d secrets were opened, want %d", name, n, want)
		}
	}
}

func TestSigningKeysAreBounded(t *testing.T) {
	s := newSigningKeys(4)
	keys := newFakeKeys()
	c := keys.keys[testKey]
	var first *rememberedKey
	for i := range 100 {
		a := authorization{id: fmt.Sprint("AKIA", i), date: "20260115", region: testRegion, service: "kms", terminator: terminator}
		if _, err := s.key(t.Context(), keys, c, a); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = s.young[signingKeyID{"AKIA0", "20260115", testRegion, "kms"}]
		}
		// One that is in use is kept through all generations.
		a.id = "AKIA0"
		if _, err := s.key(t.Context(), keys, c, a); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.young) + len(s.old); n > 8 {
		t.Errorf("%d keys are remembered", n)
	}
	if got := keys.secrets.Load(); got != 100 {
		t.Errorf("%d secrets were opened, want 100", got)
	}
	if first.key == (signingKey{}) {
		t.Error("a key in use was wiped")
	}
}

func FuzzAuthorization(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=host;x-amz-date, Signature=00")
	f.Add("AWS4-HMAC-SHA256 Signature=00,Credential=a/b/c/d/e,SignedHeaders=host")
	f.Add("AWS4-HMAC-SHA256")
	f.Add("AWS4-HMAC-SHA256 Credential=,")
	f.Fuzz(func(t *testing.T, header string) {
		a, err := parseAuthorization(header, true)
		if err != nil {
			r, ok := err.(*refusal)
			if !ok || len(r.message) > 512 {
				t.Errorf("%q: %v", header, err)
			}
			return
		}
		b, err := parseAuthorization(a.String(), true)
		if err != nil || a.String() != b.String() || !slices.Equal(a.signed, b.signed) || a.signature != b.signature || a.id != b.id {
			t.Errorf("%q: %+v became %+v, %v", header, a, b, err)
		}
	})
}

// BenchmarkVerifySignature is a signature by a key that was derived before.
func BenchmarkVerifySignature(b *testing.B) {
	v := newVerifier(newFakeKeys())
	r, body := arrived(b, defaultAttempt().signed(b))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.verify(r, body, kmsScope); err != nil {
			b.Fatal(err)
		}
	}
}
