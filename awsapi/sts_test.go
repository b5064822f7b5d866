package awsapi

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"strongroom/kms"
)

// testIdentity tells callers what the request itself says about them.
var testIdentity = map[string]operation{
	"GetCallerIdentity": callerIdentity(func(_ *kms.Service, _ context.Context, who kms.Caller) (*kms.CallerIdentity, error) {
		switch who.UserAgent {
		case "broken":
			return nil, errors.New("CKR_GENERAL_ERROR")
		case "denied":
			return nil, &kms.Error{Code: kms.AccessDenied, Detail: "gone"}
		case "panic":
			panic("oh no")
		}
		return &kms.CallerIdentity{Account: who.Account, ARN: who.Principal, UserID: "<id>"}, nil
	}),
}

const identityBody = "Action=GetCallerIdentity&Version=2011-06-15"

// identityAttempt makes a request for GetCallerIdentity of a.
func identityAttempt(a *attempt) {
	a.service, a.body = "sts", identityBody
	a.prepare = func(r *http.Request) {
		r.Header.Del("X-Amz-Target")
		r.Header.Set("Content-Type", formType+"; charset=utf-8")
	}
}

func (s *testServer) identity(t *testing.T, change func(*attempt)) (*http.Response, string) {
	t.Helper()
	return s.do(t, "", "", func(a *attempt) {
		identityAttempt(a)
		prepare := a.prepare
		a.prepare = func(r *http.Request) {
			r.URL.Scheme, r.URL.Host, _ = strings.Cut(s.URL, "://")
			prepare(r)
		}
		change(a)
	})
}

func TestCallerIdentity(t *testing.T) {
	s := newTestServer(t, false)
	agent := func(name string) func(*attempt) {
		return func(a *attempt) { a.tamper = func(r *http.Request) { r.Header.Set("User-Agent", name) } }
	}
	get := func(query string) func(*attempt) {
		return func(a *attempt) {
			prepare := a.prepare
			a.body = ""
			a.prepare = func(r *http.Request) {
				prepare(r)
				r.Header.Del("Content-Type")
				r.Method, r.URL.RawQuery = "GET", query
			}
		}
	}
	tests := []struct {
		name          string
		change        func(*attempt)
		status        int
		code, message string
	}{
		{"ours", func(*attempt) {}, 200, "", ""},
		{"us-east-1", func(a *attempt) { a.region = "us-east-1" }, 200, "", ""},
		{"GET", get(identityBody), 200, "", ""},
		{"session", func(a *attempt) { a.id, a.token = testSession, testToken }, 200, "", ""},
		{"other parameters", func(a *attempt) { a.body += "&Nobody=knows" }, 200, "", ""},

		{"another Region", func(a *attempt) { a.region = "eu-west-1" }, 403, "SignatureDoesNotMatch", "Credential should be scoped to a valid region."},
		{"scope of KMS", func(a *attempt) { a.service = "kms" }, 403, "SignatureDoesNotMatch", "Credential should be scoped to correct service: 'sts'."},
		{"wrong secret", func(a *attempt) { a.secret = "x" }, 403, "SignatureDoesNotMatch", textMismatch},
		{"altered body", func(a *attempt) {
			a.tamper = func(r *http.Request) {
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader(identityBody+"&")), int64(len(identityBody)+1)
			}
		}, 403, "SignatureDoesNotMatch", textMismatch},
		{"unknown key", func(a *attempt) { a.id = "AKIANOBODY" }, 403, "InvalidClientTokenId", "The security token included in the request is invalid."},
		{"session without token", func(a *attempt) { a.id = testSession }, 403, "InvalidClientTokenId", "The security token included in the request is invalid."},
		{"expired", func(a *attempt) { a.id, a.token = "ASIAOVER", testToken }, 403, "ExpiredToken", "The security token included in the request is expired"},
		{"unsigned", func(a *attempt) { a.tamper = func(r *http.Request) { r.Header.Del("Authorization") } }, 403, "MissingAuthenticationToken", textMissingToken},
		{"half a signature", func(a *attempt) {
			a.tamper = func(r *http.Request) { r.Header.Add("Authorization", "x") }
		}, 400, "IncompleteSignature", textIncomplete},
		{"another action", func(a *attempt) { a.body = "Action=GetSessionToken&Version=2011-06-15" }, 400, "InvalidAction",
			"Could not find operation GetSessionToken for version 2011-06-15"},
		{"another version", func(a *attempt) { a.body = "Action=GetCallerIdentity&Version=<&>" }, 400, "InvalidAction", "Could not find operation GetCallerIdentity for version <"},
		{"no version", func(a *attempt) { a.body = "Action=GetCallerIdentity" }, 400, "InvalidAction", "Could not find operation GetCallerIdentity for version NO_VERSION_SPECIFIED"},
		{"action twice", func(a *attempt) { a.body = identityBody + "&Action=GetCallerIdentity" }, 400, "InvalidAction", "Could not find operation  for version 2011-06-15"},
		{"no form", func(a *attempt) { a.body = "Action=%x" }, 404, "MalformedQueryString", "The query string is malformed."},
		{"gone", agent("denied"), 403, "AccessDenied", "gone"},
		{"our fault", agent("broken"), 500, "InternalFailure", ""},
		{"panic", agent("panic"), 500, "InternalFailure", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, body := s.identity(t, tt.change)
			var got struct {
				XMLName   xml.Name
				Type      string                                `xml:"Error>Type"`
				Code      string                                `xml:"Error>Code"`
				Message   string                                `xml:"Error>Message"`
				RequestID string                                `xml:"RequestId"`
				Identity  struct{ Arn, UserId, Account string } `xml:"GetCallerIdentityResult"`
				Meta      string                                `xml:"ResponseMetadata>RequestId"`
			}
			if err := xml.Unmarshal([]byte(body), &got); err != nil {
				t.Fatalf("%v: %s", err, body)
			}
			id := resp.Header.Get("x-amzn-RequestId")
			if resp.StatusCode != tt.status || resp.Header.Get("Content-Type") != "text/xml" || got.XMLName.Space != stsNamespace || got.RequestID+got.Meta != id {
				t.Errorf("got %d %s %s", resp.StatusCode, resp.Header, body)
			}
			if tt.code == "" {
				want := rootARN
				if tt.name == "session" {
					want = sessionARN
				}
				if got.XMLName.Local != "GetCallerIdentityResponse" || got.Identity.Arn != want || got.Identity.UserId != "<id>" || got.Identity.Account != "111122223333" {
					t.Errorf("got %s", body)
				}
				return
			}
			kind := "Sender"
			if tt.status == 500 {
				kind = "Receiver"
			}
			if got.XMLName.Local != "ErrorResponse" || got.Type != kind || got.Code != tt.code || got.Message != tt.message {
				t.Errorf("got %s, want %s: %s", body, tt.code, tt.message)
			}
		})
	}
}

// TestScopesAreApart: a signature for one service is none for the other, also by a key that is remembered.
func TestScopesAreApart(t *testing.T) {
	s := newTestServer(t, false)
	s.do(t, "EnableKey", `{"KeyId":"k"}`)
	s.identity(t, func(*attempt) {})
	resp, got := s.do(t, "EnableKey", `{"KeyId":"k"}`, func(a *attempt) { a.service = "sts" })
	if resp.StatusCode != 400 || !strings.Contains(got, "Credential should be scoped to correct service: 'kms'.") {
		t.Errorf("got %d %s", resp.StatusCode, got)
	}
	if resp, got := s.do(t, "EnableKey", `{"KeyId":"k"}`, func(a *attempt) { a.region = "us-east-1" }); resp.StatusCode != 400 {
		t.Errorf("got %d %s", resp.StatusCode, got)
	}
	if resp, got := s.do(t, "EnableKey", `{"KeyId":"k"}`, func(a *attempt) { a.tamper = replace("/kms/", "/sts/") }); resp.StatusCode != 400 {
		t.Errorf("got %d %s", resp.StatusCode, got)
	}
}

func TestCallerIdentityIsRecorded(t *testing.T) {
	s := newTestServer(t, false)
	tests := []struct {
		begin, record error
		want          fakeRecord
		status        int
		contains      string
	}{
		{nil, nil, fakeRecord{"", rootARN, "", ""}, 200, "<Arn>"},
		{&kms.Error{Code: kms.Throttled, Detail: "slow down"}, nil, fakeRecord{"", rootARN, "Throttling", "slow down"}, 400, "<Code>Throttling</Code>"},
		{nil, errors.New("disk full"), fakeRecord{"", rootARN, "", ""}, 500, "<Code>InternalFailure</Code><Message></Message>"},
	}
	for _, tt := range tests {
		s.records.beginErr, s.records.recordErr = tt.begin, tt.record
		resp, got := s.identity(t, func(*attempt) {})
		began, written := s.records.take()
		if len(began) != 1 || began[0].operation != "GetCallerIdentity" || len(written) != 1 || written[0] != tt.want {
			t.Errorf("began %q, recorded %q", began, written)
		}
		if resp.StatusCode != tt.status || !strings.Contains(got, tt.contains) || tt.status != 200 && strings.Contains(got, "<Arn>") {
			t.Errorf("got %d %s", resp.StatusCode, got)
		}
	}
	s.identity(t, func(a *attempt) { a.secret = "x" })
	if began, written := s.records.take(); len(began)+len(written) != 0 {
		t.Errorf("began %q, recorded %q", began, written)
	}
}

func TestStockSTS(t *testing.T) {
	s := newTestServer(t, false)
	s.Config.Handler.(*handler).verifier.now = time.Now
	for _, tt := range []struct{ region, secret, want string }{
		{testRegion, testSecret, ""},
		{"us-east-1", testSecret, ""},
		{testRegion, "x", "SignatureDoesNotMatch"},
	} {
		client := sts.New(sts.Options{
			Region:           tt.region,
			Credentials:      credentials.NewStaticCredentialsProvider(testKey, tt.secret, ""),
			BaseEndpoint:     &s.URL,
			RetryMaxAttempts: 1,
		})
		out, err := client.GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
		if tt.want != "" {
			if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != tt.want || e.ErrorMessage() != textMismatch {
				t.Errorf("got %v", err)
			}
			continue
		}
		if err != nil || *out.Arn != rootARN || *out.UserId != "<id>" || *out.Account != "111122223333" {
			t.Errorf("got %+v, %v", out, err)
		}
	}
}
