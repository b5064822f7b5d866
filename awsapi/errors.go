package awsapi

import (
	"context"
	"errors"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"strongroom/kms"
)

// A form is how a refusal looks on the wire. AWS KMS answers 400 to every mistake of a client, also where another protocol would say 403 or
// 404, and 500 to what is worth another try.
type form struct {
	name   string
	status int
	silent bool // never with a message, whatever is known
}

// forms are the refusals of the service (AWS KMS API Reference, "Common Errors" and the errors of each operation).
var forms = map[kms.Code]form{
	kms.AccessDenied:      {name: "AccessDeniedException", status: http.StatusBadRequest},
	kms.AlreadyExists:     {name: "AlreadyExistsException", status: http.StatusBadRequest},
	kms.Conflict:          {name: "ConflictException", status: http.StatusBadRequest},
	kms.Disabled:          {name: "DisabledException", status: http.StatusBadRequest},
	kms.DryRunSucceeded:   {name: "DryRunOperationException", status: http.StatusBadRequest},
	kms.IncorrectKey:      {name: "IncorrectKeyException", status: http.StatusBadRequest},
	kms.Internal:          {name: "KMSInternalException", status: http.StatusInternalServerError},
	kms.InvalidAliasName:  {name: "InvalidAliasNameException", status: http.StatusBadRequest},
	kms.InvalidArn:        {name: "InvalidArnException", status: http.StatusBadRequest},
	kms.InvalidCiphertext: {name: "InvalidCiphertextException", status: http.StatusBadRequest, silent: true},
	kms.InvalidGrantID:    {name: "InvalidGrantIdException", status: http.StatusBadRequest},
	kms.InvalidGrantToken: {name: "InvalidGrantTokenException", status: http.StatusBadRequest},
	kms.InvalidKeyUsage:   {name: "InvalidKeyUsageException", status: http.StatusBadRequest},
	kms.InvalidMarker:     {name: "InvalidMarkerException", status: http.StatusBadRequest},
	kms.InvalidState:      {name: "KMSInvalidStateException", status: http.StatusBadRequest},
	kms.KeyUnavailable:    {name: "KeyUnavailableException", status: http.StatusInternalServerError},
	kms.LimitExceeded:     {name: "LimitExceededException", status: http.StatusBadRequest},
	kms.MalformedPolicy:   {name: "MalformedPolicyDocumentException", status: http.StatusBadRequest},
	kms.NotAuthorized:     {name: "NotAuthorizedException", status: http.StatusBadRequest},
	kms.NotFound:          {name: "NotFoundException", status: http.StatusBadRequest},
	kms.InvalidTag:        {name: "TagException", status: http.StatusBadRequest},
	kms.Throttled:         {name: "ThrottlingException", status: http.StatusBadRequest},
	kms.Unsupported:       {name: "UnsupportedOperationException", status: http.StatusBadRequest},
	kms.Validation:        {name: "ValidationException", status: http.StatusBadRequest},
}

// The refusals of the front end, before there is an operation that could refuse.
var (
	dependencyTimeout      = form{name: "DependencyTimeoutException", status: http.StatusInternalServerError}
	expiredToken           = form{name: "ExpiredTokenException", status: http.StatusBadRequest}
	incompleteSignature    = form{name: "IncompleteSignatureException", status: http.StatusBadRequest}
	invalidSignature       = form{name: "InvalidSignatureException", status: http.StatusBadRequest}
	missingToken           = form{name: "MissingAuthenticationTokenException", status: http.StatusBadRequest}
	serializationException = form{name: "SerializationException", status: http.StatusBadRequest}
	unknownOperation       = form{name: "UnknownOperationException", status: http.StatusBadRequest, silent: true}
	unrecognizedClient     = form{name: "UnrecognizedClientException", status: http.StatusBadRequest}
)

// frontForms are all of them.
var frontForms = []form{
	dependencyTimeout, expiredToken, incompleteSignature, invalidSignature, missingToken, serializationException, unknownOperation, unrecognizedClient,
}

// textTimeout is what the API Reference says of DependencyTimeoutException.
const textTimeout = "The system timed out while trying to fulfill the request. You can retry the request."

// A refusal is an error of the front end. Like that of a [kms.Error], its message is for the client and err is for the log.
type refusal struct {
	form
	message string
	err     error
}

func (r *refusal) Error() string {
	s := r.name
	if r.message != "" {
		s += ": " + r.message
	}
	if r.err != nil {
		s += ": " + r.err.Error()
	}
	return s
}

func (r *refusal) Unwrap() error { return r.err }

// translate returns what the client is told about err: the form, and the message, which may be empty. What is neither a refusal nor a deadline
// that passed is our own fault, and the client learns no more than that.
func translate(err error) (form, string) {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.form, r.message
	}
	e, ok := errors.AsType[*kms.Error](err)
	if ok && e.Code != kms.Internal {
		if f, known := forms[e.Code]; known {
			if f.silent {
				return f, ""
			}
			return f, e.Detail
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return dependencyTimeout, textTimeout
	}
	if ok && e.Code == kms.Internal {
		return forms[kms.Internal], e.Detail
	}
	return forms[kms.Internal], ""
}

// appendError appends the body of an error: {"__type":"Name","message":"text"}, and without a message no such member at all.
func appendError(b []byte, f form, message string) []byte {
	b = append(b, `{"__type":"`...)
	b = append(b, f.name...)
	b = append(b, '"')
	if message != "" && !f.silent {
		b = append(b, `,"message":`...)
		// Text that is not UTF-8 gets replacement characters, which is all that the error of AppendQuote says.
		b, _ = jsontext.AppendQuote(b, message)
	}
	return append(b, '}')
}
