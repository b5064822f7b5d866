package awsapi

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"strongroom/kms"
)

const (
	stsVersion   = "2011-06-15"
	stsNamespace = "https://sts.amazonaws.com/doc/2011-06-15/"
	stsType      = "text/xml"
	formType     = "application/x-www-form-urlencoded"
)

// stsOperations is what this server answers of the STS API 2011-06-15, under the name that is the parameter Action.
var stsOperations = map[string]operation{
	"GetCallerIdentity": callerIdentity((*kms.Service).GetCallerIdentity),
}

// callerIdentity adapts GetCallerIdentity, which has no parameters.
func callerIdentity(method func(*kms.Service, context.Context, kms.Caller) (*kms.CallerIdentity, error)) operation {
	return operation{run: func(ctx context.Context, s *kms.Service, x *exchange) error {
		id, err := method(s, ctx, x.who)
		if err != nil {
			return err
		}
		b := append(x.out.AvailableBuffer(), `<GetCallerIdentityResponse xmlns="`+stsNamespace+`"><GetCallerIdentityResult>`...)
		b = appendElement(b, "Arn", id.ARN)
		b = appendElement(b, "UserId", id.UserID)
		b = appendElement(b, "Account", id.Account)
		b = append(b, "</GetCallerIdentityResult><ResponseMetadata>"...)
		b = appendElement(b, "RequestId", x.id)
		b = append(b, "</ResponseMetadata></GetCallerIdentityResponse>\n"...)
		x.out.Write(b)
		return nil
	}}
}

// isQuery reports whether r speaks the protocol of STS, AWS Query: parameters as of a form, in the body or, for GET, behind the question mark.
func isQuery(r *http.Request) bool {
	switch {
	case r.URL.Path != "/":
		return false
	case r.Method == http.MethodPost:
		// Asked first of what is not KMS's type, which is the type of nearly all that comes.
		contentType := r.Header.Get("Content-Type")
		if contentType == jsonType {
			return false
		}
		mediaType, _, err := mime.ParseMediaType(contentType)
		return err == nil && mediaType == formType
	case r.Method == http.MethodGet:
		return r.URL.Query().Has("Action")
	}
	return false
}

// stsProtocol is AWS Query, with the operations given. Signatures may be for the Region us-east-1 too: SDKs make them so for the endpoint of STS that
// belongs to no Region.
func stsProtocol(operations map[string]operation, region string) *protocol {
	return &protocol{
		scope:       scope{"sts", slices.Compact([]string{region, "us-east-1"})},
		contentType: stsType,
		find: func(r *http.Request, body []byte) (string, operation, error) {
			query := string(body)
			if r.Method == http.MethodGet {
				query = r.URL.RawQuery
			}
			values, err := url.ParseQuery(query)
			if err != nil {
				return "", operation{}, &refusal{form: malformedQuery, message: "The query string is malformed.", err: err}
			}
			// A parameter that is there twice may be one thing to us and another to whoever looked at the request before.
			action, version := single(values, "Action", ""), single(values, "Version", "NO_VERSION_SPECIFIED")
			o, known := operations[action]
			if !known || version != stsVersion {
				return "", o, &refusal{form: invalidAction,
					message: fmt.Sprintf("Could not find operation %s for version %s", clip(action, 64), clip(version, 64))}
			}
			return action, o, nil
		},
		form:        stsForm,
		appendError: appendSTSError,
	}
}

// single returns the one value of a parameter, or none if there is not one.
func single(values url.Values, name, none string) string {
	if v := values[name]; len(v) == 1 {
		return v[0]
	}
	return none
}

// The refusals that only STS has.
var (
	invalidAction  = form{name: "InvalidAction", status: http.StatusBadRequest}
	malformedQuery = form{name: "MalformedQueryString", status: http.StatusNotFound}
)

// stsForms are the refusals of this server in the words of STS (AWS STS API Reference, "Common Errors").
var stsForms = map[form]form{
	dependencyTimeout:         {name: "ServiceUnavailable", status: http.StatusServiceUnavailable},
	expiredToken:              {name: "ExpiredToken", status: http.StatusForbidden},
	incompleteSignature:       {name: "IncompleteSignature", status: http.StatusBadRequest},
	invalidAction:             invalidAction,
	invalidSignature:          {name: "SignatureDoesNotMatch", status: http.StatusForbidden},
	malformedQuery:            malformedQuery,
	missingToken:              {name: "MissingAuthenticationToken", status: http.StatusForbidden},
	unrecognizedClient:        {name: "InvalidClientTokenId", status: http.StatusForbidden},
	forms[kms.AccessDenied]:   {name: "AccessDenied", status: http.StatusForbidden},
	forms[kms.KeyUnavailable]: {name: "ServiceUnavailable", status: http.StatusServiceUnavailable},
	forms[kms.Throttled]:      {name: "Throttling", status: http.StatusBadRequest},
}

// stsForm returns what STS calls a refusal. What it has no name for is our fault.
func stsForm(f form) form {
	if s, ok := stsForms[f]; ok {
		return s
	}
	return form{name: "InternalFailure", status: http.StatusInternalServerError}
}

// appendSTSError appends the body of an error of STS.
func appendSTSError(b []byte, f form, message, request string) []byte {
	kind := "Sender"
	if f.status >= 500 {
		kind = "Receiver"
	}
	b = append(b, `<ErrorResponse xmlns="`+stsNamespace+`"><Error>`...)
	b = appendElement(b, "Type", kind)
	b = appendElement(b, "Code", f.name)
	b = appendElement(b, "Message", message)
	b = append(b, "</Error>"...)
	b = appendElement(b, "RequestId", request)
	return append(b, "</ErrorResponse>\n"...)
}

// appendElement appends an XML element that holds text.
func appendElement(b []byte, name, text string) []byte {
	b = append(b, "<"+name+">"...)
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune(`<>&'"`, r) }) {
		var escaped bytes.Buffer
		xml.EscapeText(&escaped, []byte(text)) // a bytes.Buffer does not fail
		text = escaped.String()
	}
	b = append(b, text...)
	return append(b, "</"+name+">"...)
}
