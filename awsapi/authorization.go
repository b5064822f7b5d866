package awsapi

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

// algorithm is the only one there is: the asymmetric variant, SigV4A, exists for multi-Region endpoints.
const algorithm = "AWS4-HMAC-SHA256"

// maxAuthorization is far above what any signer writes: a name of 128 bytes and some thirty signed headers.
const maxAuthorization = 4096

// An authorization is the Authorization header of a signed request (AWS IAM User Guide, "Elements of an AWS API request signature"):
//
//	AWS4-HMAC-SHA256 Credential=<id>/<date>/<region>/<service>/aws4_request, SignedHeaders=<a;b;c>, Signature=<hex>
type authorization struct {
	id         string // of the access key
	date       string // YYYYMMDD
	region     string
	service    string
	terminator string
	signed     []string // names, lower case, ascending, each once
	signature  string
}

// String writes what parseAuthorization reads.
func (a authorization) String() string {
	return fmt.Sprintf("%s Credential=%s/%s, SignedHeaders=%s, Signature=%s",
		algorithm, a.id, a.scope(), strings.Join(a.signed, ";"), a.signature)
}

// scope returns what a signing key is good for.
func (a authorization) scope() string {
	return a.date + "/" + a.region + "/" + a.service + "/" + a.terminator
}

// The texts of refusals are AWS's, less what would repeat the header: it holds a signature, and answers end up in logs.
const (
	textMissingToken = "Missing Authentication Token"
	textIncomplete   = "The request signature does not conform to AWS standards."
	textMismatch     = "The request signature we calculated does not match the signature you provided. " +
		"Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
)

// parseAuthorization reads the header. The parameters may come in any order, with or without white space after the commas between
// them, each exactly once. dated says whether the request has a date, whose absence AWS reports in the same sentence as a missing parameter.
func parseAuthorization(header string, dated bool) (a authorization, err error) {
	if !strings.HasPrefix(header, "AWS4-") {
		return a, &refusal{form: missingToken, message: textMissingToken}
	}
	if len(header) > maxAuthorization {
		return a, &refusal{form: incompleteSignature, message: textIncomplete}
	}
	name, rest, _ := strings.Cut(header, " ")
	if name != algorithm {
		return a, &refusal{form: incompleteSignature,
			message: fmt.Sprintf("Unsupported AWS 'algorithm': '%s' (only %s for now).", clip(name, 64), algorithm)}
	}

	var credential, signedHeaders string
	parameters := []struct {
		name string
		at   *string
	}{{"Credential", &credential}, {"Signature", &a.signature}, {"SignedHeaders", &signedHeaders}}
	if rest = strings.Trim(rest, " \t"); rest != "" {
		for part := range strings.SplitSeq(rest, ",") {
			key, value, ok := strings.Cut(strings.Trim(part, " \t"), "=")
			if !ok {
				sum := sha256.Sum256([]byte(header))
				return a, &refusal{form: incompleteSignature, message: fmt.Sprintf("Invalid key=value pair (missing equal-sign) in "+
					"Authorization header (hashed with SHA-256 and encoded with Base64): '%s'.", base64.StdEncoding.EncodeToString(sum[:]))}
			}
			i := slices.IndexFunc(parameters, func(p struct {
				name string
				at   *string
			}) bool {
				return p.name == key
			})
			if i < 0 || *parameters[i].at != "" || !visible(value) {
				return a, &refusal{form: incompleteSignature, message: textIncomplete}
			}
			*parameters[i].at = value
		}
	}
	var missing strings.Builder
	for _, p := range parameters {
		if *p.at == "" {
			missing.WriteString("Authorization header requires '" + p.name + "' parameter. ")
		}
	}
	if !dated {
		missing.WriteString("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ")
	}
	if missing.Len() > 0 {
		return a, &refusal{form: incompleteSignature, message: missing.String() + "Authorization=" + algorithm}
	}

	if err := a.setCredential(credential); err != nil {
		return a, err
	}
	a.signed = strings.Split(signedHeaders, ";")
	for i, name := range a.signed {
		// Another order is another canonical request than the one that the signer made, by the same document.
		if name == "" || name != strings.ToLower(name) || i > 0 && name <= a.signed[i-1] {
			return a, &refusal{form: invalidSignature, message: textMismatch}
		}
	}
	return a, nil
}

// setCredential reads the parameter Credential: an access key id and the scope.
func (a *authorization) setCredential(credential string) error {
	parts := strings.Split(credential, "/")
	if len(parts) != 5 || slices.Contains(parts, "") {
		return &refusal{form: incompleteSignature, message: fmt.Sprintf("Credential must have exactly 5 slash-delimited elements, "+
			"e.g. keyid/date/region/service/term, got '%s'", clip(credential, 256))}
	}
	a.id, a.date, a.region, a.service, a.terminator = parts[0], parts[1], parts[2], parts[3], parts[4]
	return nil
}

// visible reports whether s is made of printable ASCII without space.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
