package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go"
)

// A failure is what could not be done and why, in words for a person. It keeps the cause, whose own text names every layer it came through.
type failure struct {
	what, why string
	err       error
}

func (f *failure) Error() string { return f.what + ": " + f.why }
func (f *failure) Unwrap() error { return f.err }

// errorCode returns the name that the AWS API has for err, empty if err is not the answer of a server.
func errorCode(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}

// advice is what a person can do about each refusal, by its name in the AWS API. Where a server gives no message, why stands for it.
var advice = map[string]struct {
	why   string
	hints []string
}{
	"AccessDeniedException": {"not permitted", []string{
		"the key's policy, a policy of the one who asks, or a grant must allow it",
		"on the server's host, strongroom explain says what does not"}},
	"AlreadyExistsException": {"it exists already", []string{
		"strongroom alias update NAME KEY moves an alias to another key"}},
	"DependencyTimeoutException": {"the server ran out of time", []string{"try again; if it stays so, the server's log says more under this request id"}},
	"DisabledException":          {"the key is disabled", []string{"strongroom key enable KEY"}},
	"ExpiredTokenException":      {"the session has expired", []string{"get new credentials; those of a user or of root need no AWS_SESSION_TOKEN"}},
	"IncorrectKeyException": {"the ciphertext was made with another key", []string{
		"leave --key out: a ciphertext knows its key"}},
	"IncompleteSignatureException": {"the request was not signed as AWS programs do", []string{"is something between here and the server that changes requests?"}},
	"InvalidAliasNameException":    {"this cannot be the name of an alias", []string{"letters, digits, / _ and - make a name"}},
	"InvalidCiphertextException": {"the ciphertext cannot be opened", []string{
		"--context must be exactly the one it was encrypted with: every name and value, and no more",
		"the ciphertext must be whole and unchanged"}},
	"InvalidArnException":     {"this is not the ARN of a key or an alias of the server", []string{"strongroom key describe KEY shows the ARN"}},
	"InvalidGrantIdException": {"there is no grant of that id on the key", nil},
	"InvalidGrantTokenException": {"the grant token is not one of this server", []string{
		"leave it out: a grant binds every server within a second of being made"}},
	"InvalidMarkerException": {"the list has changed meanwhile", []string{"ask again from the beginning"}},
	"InvalidSignatureException": {"the signature is wrong", []string{
		"AWS_SECRET_ACCESS_KEY must belong to AWS_ACCESS_KEY_ID, and the clocks here and on the server must agree"}},
	"KeyUnavailableException": {"the server cannot use the key's material", []string{
		"its HSM cannot be reached just now; nothing is lost, try again when it is back",
		"the server's log says more under this request id"}},
	"KMSInternalException":     {"the server failed", []string{"the server's log says more under this request id"}},
	"KMSInvalidStateException": {"the key is not in a state for it", []string{"strongroom key describe KEY shows its state"}},
	"LimitExceededException":   {"a limit is reached", nil},
	"MalformedPolicyDocumentException": {"the key policy is not one", []string{
		"strongroom policy check --key-policy FILE says what is wrong with it",
		"users and roles that it names must exist"}},
	"MissingAuthenticationTokenException": {"the request was not signed", []string{"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"}},
	"NotFoundException": {"it does not exist", []string{
		"strongroom key list shows the keys of this account with their aliases"}},
	"NotAuthorizedException": {"not permitted", []string{"on the server's host, strongroom explain says why"}},
	"TagException":           {"these tags cannot be", []string{"a name has 1 to 128 characters, a value up to 256, and a key 50 tags"}},
	"ThrottlingException": {"too many requests of one principal", []string{
		"try again in a second", "limits in the server's configuration say how many a second"}},
	"UnrecognizedClientException": {"the access key is not known, or is disabled", []string{
		"AWS_ACCESS_KEY_ID must be an access key of this server; are endpoint and profile the ones you mean?",
		"AWS_SESSION_TOKEN must be the one that came with it, and unset if none did",
		"on the server's host, strongroom access-key list shows which are active"}},
	"UnsupportedOperationException": {"the server does not do this", nil},
}

// refusal is an error that the server answered with.
func refusal(what string, err error) error {
	e, _ := errors.AsType[smithy.APIError](err)
	known := advice[e.ErrorCode()]
	why, hints := printable(e.ErrorMessage()), known.hints
	if why == "" || why == "UnknownError" { // the SDK's word for no message
		why = known.why
	}
	detail := e.ErrorCode()
	if r, ok := errors.AsType[*awshttp.ResponseError](err); ok && r.RequestID != "" {
		detail += ", request " + printable(r.RequestID)
	}
	if why == "" {
		why = detail
	} else {
		why += " (" + detail + ")"
	}
	switch {
	case e.ErrorCode() == "KMSInvalidStateException" && strings.Contains(e.ErrorMessage(), "pending deletion"):
		hints = []string{"strongroom key undelete KEY keeps the key, while there is time"}
	case strings.Contains(e.ErrorMessage(), "scoped to a valid region"):
		hints = []string{"--region or AWS_REGION must be the region that the server is configured with"}
	case e.ErrorCode() == "InvalidSignatureException":
		hints = append([]string{"it is " + when(time.Now()) + " by the clock of this machine"}, hints...)
	}
	return advise(&failure{what, why, err}, hints)
}

// noAnswer is the error of a call that no server answered, or nothing that could be understood.
func (s *client) noAnswer(what string, err error) error {
	fail := func(why string, hints ...string) error { return advise(&failure{what, why, err}, hints) }

	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return fail(fmt.Sprintf("the host %s is not known", e.Name), "is the endpoint "+s.endpoint+" right?")
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fail("the certificate of "+s.endpoint+" is signed by nobody this machine trusts",
			"AWS_CA_BUNDLE=FILE names certificates to trust, in PEM")
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		return fail(e.Error(), "the endpoint must have a name that is in the server's certificate")
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return fail("the certificate of "+s.endpoint+": "+e.Error(), "it is "+when(time.Now())+" by the clock of this machine")
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fail(e.Err.Error())
	}
	switch {
	case errors.Is(err, http.ErrSchemeMismatch):
		return fail(s.endpoint+" answers without TLS", "write the endpoint with http://, if the way to it is safe")
	case errors.Is(err, syscall.ECONNREFUSED):
		return fail("nobody answers at "+s.endpoint, "is the server running?  strongroom serve --config FILE")
	case errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(s.endpoint, "unix:"):
		return fail("there is no socket "+s.endpoint, "is the server running?  strongroom serve --config FILE")
	case errors.Is(err, fs.ErrPermission) && strings.HasPrefix(s.endpoint, "unix:"):
		return fail("the socket "+s.endpoint+" may not be used by you", "its owner and mode say who may")
	}
	if r, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		why := fmt.Sprintf("%s answered %s, which is not an answer of a KMS", s.endpoint, r.Response.Status)
		return fail(why, "is the endpoint right, with http:// or https:// as the server has it?")
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return fail(e.Error(), "is the server running, and the endpoint "+s.endpoint+" right?")
	}
	return fail(printable(innermost(err).Error()))
}

// innermost returns the first cause of err, which says what happened without the layers it came through.
func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// configError is about the AWS configuration of the person who asks.
func configError(err error) error {
	if e, ok := errors.AsType[config.SharedConfigProfileNotExistError](err); ok {
		return hint(misuse("there is no profile %q in the AWS configuration", e.Profile), "--profile and AWS_PROFILE name one; aws configure --profile NAME makes one")
	}
	return misuse("read the AWS configuration: %s", printable(err.Error()))
}

// credentialsError is about credentials that are not there, or could not be got.
func credentialsError(err error) error {
	hints := []string{
		"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a --profile",
		"strongroom init prints the first access key; strongroom dev writes one to DIR/env"}
	// With nothing configured, the last thing that the SDK tries is the metadata of a machine at EC2.
	if strings.Contains(err.Error(), "EC2 IMDS") {
		return hint(misuse("no credentials are given"), hints...)
	}
	return hint(fmt.Errorf("get credentials: %s", printable(err.Error())), hints...)
}

// advise is hint for what may have none.
func advise(err error, hints []string) error {
	if len(hints) == 0 {
		return err
	}
	return hint(err, hints...)
}
