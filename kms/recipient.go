package kms

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"strongroom/kms/attest"
)

// A Recipient asks for an answer that only an attested environment can read [API, RecipientInfo]. AWS's model requires neither member and says nothing of
// a request with one. Such a request wants a sealed answer and does not say for whom, so it is refused.
type Recipient struct {
	KeyEncryptionAlgorithm string `json:"KeyEncryptionAlgorithm" aws:"required,enum=RSAES_OAEP_SHA_256"`
	AttestationDocument    []byte `json:"AttestationDocument" aws:"required,min=1,max=262144"`
}

// attested returns what the document of a request says, or nil if the request has no Recipient. It comes before policies and before any work: a
// policy can ask what the document says, and it may ask only of one that was verified. The error is for the client to see.
func (s *Service) attested(who Caller, r *Recipient) (*attest.Attestation, error) {
	if r == nil {
		return nil, nil
	}
	if r.KeyEncryptionAlgorithm != "RSAES_OAEP_SHA_256" {
		return nil, errorf(Validation, "KeyEncryptionAlgorithm must be RSAES_OAEP_SHA_256.")
	}
	a, err := s.attestation.Verify(r.AttestationDocument, who.Account, time.Now())
	if err != nil {
		return nil, documentError(err)
	}
	who.trail.add("recipient", recipientRecord(a))
	return a, nil
}

// documentTexts are what a client is told of a document that is refused. What AWS KMS says is known of two: clients look for "cannot parse the attestation
// document", and for "exceeded the five-minute age limit" to get a new document and try again.
var documentTexts = map[attest.Reason]string{
	attest.Malformed:    "KMS cannot parse the attestation document.",
	attest.Stale:        "The attestation document has exceeded the five-minute age limit.",
	attest.Early:        "The timestamp of the attestation document is in the future.",
	attest.Untrusted:    "The attestation document does not lead to a trusted root certificate.",
	attest.BadChain:     "The certificate chain of the attestation document is not valid.",
	attest.BadSignature: "The signature of the attestation document is not valid.",
	attest.Debug:        "The attestation document comes from an enclave in debug mode.",
	attest.BadKey:       "The attestation document does not contain a valid RSA public key.",
}

// documentError turns the refusal of a document into what the client sees.
func documentError(err error) error {
	fault, ok := errors.AsType[*attest.Fault](err)
	if !ok {
		return err
	}
	return &Error{Code: Validation, Detail: documentTexts[fault.Reason], Err: err}
}

// deliver gives a plaintext to those who may read it: as it is to the caller of an ordinary request, and sealed to the recipient of an attested one. Then,
// and if it fails, the plaintext is wiped.
func deliver(a *attest.Attestation, plaintext []byte) (open, sealed []byte, err error) {
	if a == nil {
		return plaintext, nil, nil
	}
	sealed, err = a.Seal(plaintext)
	clear(plaintext)
	return nil, sealed, err
}

// attestedValue returns the value of a condition key kms:RecipientAttestation:name, the name in lower case (AWS KMS Developer Guide, "Condition keys for
// attested platforms"). A document counts only where its root does, for the caller's account and the key's.
func (f *facts) attestedValue(name string) ([]string, bool) {
	a := f.attestation()
	if a == nil {
		return nil, false
	}
	prefix := "pcr"
	switch {
	case a.Kind == attest.NitroTPM:
		prefix = "nitrotpmpcr"
	case name == "imagesha384":
		name = "pcr0"
	}
	digits, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return nil, false
	}
	index, err := strconv.Atoi(digits)
	if err != nil || strconv.Itoa(index) != digits {
		return nil, false
	}
	return one(hex.EncodeToString(a.PCRs[index]))
}

// attestation returns what a verified document says, or nil if there is none that counts.
func (f *facts) attestation() *attest.Attestation {
	a := f.access.attestation
	if a == nil || f.key != nil && !a.Counts(f.key.Account) {
		return nil
	}
	return a
}

// attestationReason says in a denial, by what an account allows, whose document came with the request, and what it has of the registers that policies go by.
func attestationReason(a *attest.Attestation, account string) string {
	switch {
	case a == nil:
		return ""
	case !a.Counts(account):
		return fmt.Sprintf("; the request's document says nothing here, because the root %q is not trusted for account %s", a.Root, account)
	}
	text := fmt.Sprintf("; the document is of %q under the root %q", a.ModuleID, a.Root)
	pinned := []int{0, 3, 8}
	if a.Kind == attest.NitroTPM {
		pinned = []int{4, 7, 12}
	}
	for _, index := range pinned {
		if value := a.PCRs[index]; value != nil {
			text += fmt.Sprintf(", PCR%d %x", index, value)
		}
	}
	return text
}

// recorded are the registers that a record shows, as far as the document has them: those that CloudTrail shows, and PCR12 of a NitroTPM, the kernel's
// command line, by which policies go.
var recorded = map[attest.Kind][]int{
	attest.Enclave:  {1, 2, 3, 4, 8},
	attest.NitroTPM: {4, 7, 8, 9, 12, 16, 23},
}

// recipientRecord returns what the record of a request says of its document: names and base64 are CloudTrail's (AWS KMS Developer Guide, "Monitoring
// attested requests"); the anchor is ours.
func recipientRecord(a *attest.Attestation) map[string]string {
	r := map[string]string{
		"attestationDocumentModuleId":    a.ModuleID,
		"attestationDocumentTrustAnchor": a.Root,
	}
	name := "attestationDocumentNitroTPMPCR%d"
	if a.Kind == attest.Enclave {
		name = "attestationDocumentEnclavePCR%d"
		r["attestationDocumentEnclaveImageDigest"] = base64.StdEncoding.EncodeToString(a.PCRs[0])
	}
	for _, index := range recorded[a.Kind] {
		if value := a.PCRs[index]; value != nil {
			r[fmt.Sprintf(name, index)] = base64.StdEncoding.EncodeToString(value)
		}
	}
	return r
}
