package kms_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"strongroom/keyspec"
	"strongroom/kms"
	"strongroom/kms/attest"
	"strongroom/kms/attest/attesttest"
)

// recipients are an attester and a recipient for all tests, since primes are dear.
var recipients = sync.OnceValues(func() (*attesttest.Root, *attesttest.Recipient) {
	attester, err := attesttest.NewRoot(attesttest.RootOptions{Name: "lab"})
	if err != nil {
		panic(err)
	}
	recipient, err := attesttest.NewRecipient(2048)
	if err != nil {
		panic(err)
	}
	return attester, recipient
})

// An attestedRig is a rig whose service trusts an attester.
type attestedRig struct {
	*rig
	attester  *attesttest.Root
	recipient *attesttest.Recipient
}

// newAttestedRig returns one that trusts the attester as "lab" for the given accounts.
func newAttestedRig(t testing.TB, accounts ...string) *attestedRig {
	t.Helper()
	r := &attestedRig{rig: newRig(t, nil)}
	r.attester, r.recipient = recipients()
	anchor := r.attester.Anchor("lab")
	anchor.Accounts = accounts
	verifier, err := attest.New(attest.Options{Anchors: []attest.Anchor{attest.AWSRoot(), anchor}, AllowTestRoots: true})
	must(t, err)
	r.Service, err = kms.New(t.Context(), kms.Options{
		Device: token, Store: r.store, Audit: r.audit, Log: slog.New(slog.DiscardHandler), Attestation: verifier,
	})
	must(t, err)
	return r
}

// document returns a Recipient whose document is made now and says what s says.
func (r *attestedRig) document(s attesttest.Statement) *kms.Recipient {
	r.t.Helper()
	if s.Time.IsZero() {
		s.Time = time.Now()
	}
	s.PublicKey = r.recipient.PublicKey()
	d, err := r.attester.Document(s)
	must(r.t, err)
	return &kms.Recipient{KeyEncryptionAlgorithm: "RSAES_OAEP_SHA_256", AttestationDocument: d}
}

func (r *attestedRig) openEnvelope(envelope []byte) []byte {
	r.t.Helper()
	p, err := r.recipient.Open(envelope)
	must(r.t, err)
	return p
}

// pcrs returns registers, each filled with one byte.
func pcrs(values map[int]byte) map[int][]byte {
	m := make(map[int][]byte)
	for index, b := range values {
		m[index] = bytes.Repeat([]byte{b}, 48)
	}
	return m
}

func TestSealedAnswers(t *testing.T) {
	r := newAttestedRig(t)
	ctx := t.Context()
	key := r.newKey()
	context := map[string]string{"tenant": "alice"}
	decrypt := func(blob []byte) []byte {
		t.Helper()
		resp, err := r.Decrypt(ctx, root, &kms.DecryptRequest{CiphertextBlob: blob, EncryptionContext: context})
		must(t, err)
		return resp.Plaintext
	}

	dk, err := r.GenerateDataKey(ctx, root, &kms.GenerateDataKeyRequest{
		KeyID: key.KeyID, KeySpec: "AES_256", EncryptionContext: context, Recipient: r.document(attesttest.Statement{}),
	})
	must(t, err)
	if p := r.openEnvelope(dk.CiphertextForRecipient); len(p) != 32 || !bytes.Equal(p, decrypt(dk.CiphertextBlob)) {
		t.Error("data key: the envelope does not hold what the ciphertext does")
	}
	if dk.Plaintext != nil || dk.KeyMaterialID != "" || dk.KeyID != key.Arn {
		t.Errorf("data key: plaintext of %d bytes, material %q, key %s", len(dk.Plaintext), dk.KeyMaterialID, dk.KeyID)
	}

	for _, spec := range []keyspec.Spec{keyspec.P256, keyspec.Ed25519, keyspec.SM2, keyspec.RSA2048} {
		pair, err := r.GenerateDataKeyPair(ctx, root, &kms.GenerateDataKeyPairRequest{
			KeyID: key.KeyID, KeyPairSpec: spec, EncryptionContext: context, Recipient: r.document(attesttest.Statement{Kind: attest.NitroTPM}),
		})
		must(t, err)
		private := r.openEnvelope(pair.CiphertextForRecipient)
		if !bytes.Equal(private, decrypt(pair.PrivateKeyCiphertextBlob)) {
			t.Errorf("%s: the envelope does not hold what the ciphertext does", spec)
		}
		must(t, keyspec.Prove(spec, pair.PublicKey, private))
		if pair.PrivateKeyPlaintext != nil || len(pair.KeyMaterialID) != 64 {
			t.Errorf("%s: plaintext of %d bytes, material %q", spec, len(pair.PrivateKeyPlaintext), pair.KeyMaterialID)
		}
	}

	for _, size := range []int{1, 1000, 4096} {
		plaintext := strings.Repeat("p", size)
		dec, err := r.Decrypt(ctx, root, &kms.DecryptRequest{
			CiphertextBlob: r.encrypt(key.KeyID, plaintext, context), EncryptionContext: context, Recipient: r.document(attesttest.Statement{Definite: true}),
		})
		must(t, err)
		if string(r.openEnvelope(dec.CiphertextForRecipient)) != plaintext || dec.Plaintext != nil || dec.KeyMaterialID != "" ||
			dec.KeyID != key.Arn || dec.EncryptionAlgorithm != "SYMMETRIC_DEFAULT" {
			t.Errorf("Decrypt of %d bytes: %+v", size, dec)
		}
	}

	size := int32(1024)
	random, err := r.GenerateRandom(ctx, root, &kms.GenerateRandomRequest{NumberOfBytes: &size, Recipient: r.document(attesttest.Statement{})})
	must(t, err)
	if p := r.openEnvelope(random.CiphertextForRecipient); len(p) != int(size) || random.Plaintext != nil {
		t.Errorf("random: %d bytes sealed, %d in clear", len(p), len(random.Plaintext))
	}
}

// Each operation with a Recipient, which has to be refused for it.
func (r *attestedRig) attestedRequests(who kms.Caller, key string, blob []byte, recipient *kms.Recipient) map[string]error {
	ctx := r.t.Context()
	size := int32(16)
	return map[string]error{
		"Decrypt":             second(r.Decrypt(ctx, who, &kms.DecryptRequest{CiphertextBlob: blob, Recipient: recipient})),
		"GenerateDataKey":     second(r.GenerateDataKey(ctx, who, &kms.GenerateDataKeyRequest{KeyID: key, KeySpec: "AES_256", Recipient: recipient})),
		"GenerateDataKeyPair": second(r.GenerateDataKeyPair(ctx, who, &kms.GenerateDataKeyPairRequest{KeyID: key, KeyPairSpec: keyspec.P256, Recipient: recipient})),
		"GenerateRandom":      second(r.GenerateRandom(ctx, who, &kms.GenerateRandomRequest{NumberOfBytes: &size, Recipient: recipient})),
	}
}

// TestRefusedDocuments: every fault of a document is told before anything else is looked at, in the words that clients know.
func TestRefusedDocuments(t *testing.T) {
	r := newAttestedRig(t)
	nobody := r.add("arn:aws:iam::111122223333:user/nobody")
	texts := map[attest.Reason]string{
		attest.Malformed:    "KMS cannot parse the attestation document.",
		attest.Stale:        "The attestation document has exceeded the five-minute age limit.",
		attest.Early:        "The timestamp of the attestation document is in the future.",
		attest.Untrusted:    "The attestation document does not lead to a trusted root certificate.",
		attest.BadChain:     "The certificate chain of the attestation document is not valid.",
		attest.BadSignature: "The signature of the attestation document is not valid.",
		attest.Debug:        "The attestation document comes from an enclave in debug mode.",
		attest.BadKey:       "The attestation document does not contain a valid RSA public key.",
	}
	tried := make(map[attest.Reason]bool)
	for _, c := range attesttest.Cases() {
		if c.Reason == 0 || c.Name == "ahead-over-limit" { // which it is for a millisecond
			continue
		}
		tried[c.Reason] = true
		d, err := r.attester.DocumentOf(c, attesttest.Statement{Time: time.Now(), PublicKey: r.recipient.PublicKey()})
		must(t, err)
		recipient := &kms.Recipient{KeyEncryptionAlgorithm: "RSAES_OAEP_SHA_256", AttestationDocument: d}
		for operation, err := range r.attestedRequests(nobody, "no-key", nil, recipient) {
			if err == nil {
				t.Errorf("%s, %s: is answered", c.Name, operation)
				continue
			}
			var e *kms.Error
			if !errors.As(err, &e) || e.Code != kms.Validation || e.Detail != texts[c.Reason] {
				t.Errorf("%s, %s: got %v, want %q", c.Name, operation, err, texts[c.Reason])
			}
		}
	}
	for _, reason := range attest.Reasons() {
		if !tried[reason] {
			t.Errorf("no case is refused because it is %v", reason)
		}
	}

	good := r.document(attesttest.Statement{})
	for _, incomplete := range []*kms.Recipient{
		{}, {KeyEncryptionAlgorithm: good.KeyEncryptionAlgorithm}, {AttestationDocument: good.AttestationDocument},
		{KeyEncryptionAlgorithm: "RSAES_OAEP_SHA_1", AttestationDocument: good.AttestationDocument},
	} {
		for operation, err := range r.attestedRequests(root, r.newKey().KeyID, nil, incomplete) {
			var e *kms.Error
			if e, _ = err.(*kms.Error); e == nil || e.Code != kms.Validation {
				t.Errorf("%s with %q and a document of %d bytes: %v", operation, incomplete.KeyEncryptionAlgorithm, len(incomplete.AttestationDocument), err)
			}
		}
	}
}

// TestRecipientConditions: policies go by what a verified document says, and by nothing where there is none.
func TestRecipientConditions(t *testing.T) {
	r := newAttestedRig(t)
	ctx := t.Context()
	value := func(b byte) string { return strings.Repeat(hex.EncodeToString([]byte{b}), 48) }
	enclave := attesttest.Statement{PCRs: pcrs(map[int]byte{0: 0xaa, 1: 0xbb, 3: 0x33, 8: 0x88, 31: 0x1f})}
	tpm := attesttest.Statement{Kind: attest.NitroTPM, PCRs: pcrs(map[int]byte{0: 0xaa, 4: 0x44, 7: 0x77})}
	other := attesttest.Statement{PCRs: pcrs(map[int]byte{0: 0xac, 1: 0xbb})}
	deny := func(operator, key, value string) string {
		return fmt.Sprintf(`{"Effect":"Deny","Principal":"*","Action":["kms:Decrypt","kms:GenerateDataKey*"],"Resource":"*","Condition":{%q:{%q:%q}}}`, operator, key, value)
	}
	const prefix = "kms:RecipientAttestation:"
	for _, test := range []struct {
		name            string
		statement       string
		enclave, tpm    bool // whether such a document is let in
		other, ordinary bool // another enclave, and a request without a Recipient
	}{
		{"image", deny("StringNotEquals", prefix+"ImageSha384", value(0xaa)), true, false, false, false},
		{"image in capitals", deny("StringNotEquals", prefix+"ImageSha384", strings.ToUpper(value(0xaa))), false, false, false, false},
		{"image in capitals, ignoring case", deny("StringNotEqualsIgnoreCase", prefix+"ImageSha384", strings.ToUpper(value(0xaa))), true, false, false, false},
		{"key in another case", deny("StringNotEquals", "KMS:recipientattestation:IMAGEsha384", value(0xaa)), true, false, false, false},
		{"PCR0", deny("StringNotEquals", prefix+"PCR0", value(0xaa)), true, false, false, false},
		{"PCR1", deny("StringNotEquals", prefix+"PCR1", value(0xbb)), true, false, true, false},
		{"PCR31", deny("StringNotEquals", prefix+"PCR31", value(0x1f)), true, false, false, false},
		{"PCR2, which none has", deny("StringNotEquals", prefix+"PCR2", value(0)), false, false, false, false},
		{"NitroTPMPCR4", deny("StringNotEquals", prefix+"NitroTPMPCR4", value(0x44)), false, true, false, false},
		{"NitroTPMPCR0 is not PCR0", deny("StringNotEquals", prefix+"NitroTPMPCR0", value(0xaa)), false, true, false, false},
		{"root", deny("StringNotEquals", "strongroom:RecipientAttestation:Root", "lab"), true, true, true, false},
		{"another root", deny("StringNotEquals", "strongroom:RecipientAttestation:Root", "aws"), false, false, false, false},
		{"absence", deny("Null", prefix+"ImageSha384", "true"), true, false, true, false},
		{"presence", deny("Null", prefix+"ImageSha384", "false"), false, true, false, true},
		{"a prefix of the value", deny("StringNotLike", prefix+"PCR0", value(0xaa)[:94]+"*"), true, false, false, false},
		{"a digest that is too short", deny("StringNotEquals", prefix+"PCR0", value(0xaa)[:64]), false, false, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			key := r.newKeyWith(keyPolicy(test.statement))
			try := func(name string, recipient *kms.Recipient, allowed bool) {
				t.Helper()
				_, err := r.GenerateDataKey(ctx, root, &kms.GenerateDataKeyRequest{KeyID: key.KeyID, KeySpec: "AES_256", Recipient: recipient})
				if allowed {
					must(t, err)
				} else {
					if said := strings.Contains(reason(t, err), `; the document is of "i-`); said != (recipient != nil) {
						t.Errorf("%s: the operator reads %s", name, reason(t, err))
					}
					refusal(t, err, kms.AccessDenied, "User: "+root.Principal+" is not authorized to perform: kms:GenerateDataKey on resource: "+key.Arn+
						" with an explicit deny in a resource-based policy")
				}
			}
			try("enclave", r.document(enclave), test.enclave)
			try("tpm", r.document(tpm), test.tpm)
			try("other", r.document(other), test.other)
			try("none", nil, test.ordinary)
		})
	}

	// Random bytes belong to no key, so identity policies alone can ask.
	pinned := r.add("arn:aws:iam::111122223333:user/pinned", statement("Allow", "kms:GenerateRandom", "*", `{"StringEquals":{"kms:RecipientAttestation:PCR0":"`+value(0xaa)+`"}}`))
	size := int32(8)
	for _, test := range []struct {
		recipient *kms.Recipient
		allowed   bool
	}{{r.document(enclave), true}, {r.document(other), false}, {nil, false}} {
		_, err := r.GenerateRandom(ctx, pinned, &kms.GenerateRandomRequest{NumberOfBytes: &size, Recipient: test.recipient})
		if (err == nil) != test.allowed {
			t.Errorf("GenerateRandom: %v", err)
		}
	}
}

// TestAnchorOfAnotherAccount: what one account's root attests says nothing to the keys of another.
func TestAnchorOfAnotherAccount(t *testing.T) {
	r := newAttestedRig(t, foreign)
	ctx := t.Context()
	r.addForeign()
	pcr0 := strings.Repeat("aa", 48)
	theirs := r.newKeyWith(keyPolicy(
		`{"Effect":"Allow","Principal":{"AWS":"444455556666"},"Action":"kms:GenerateDataKey","Resource":"*","Condition":{"StringEquals":{"kms:RecipientAttestation:PCR0":"` + pcr0 + `"}}}`))
	own, err := r.CreateKey(ctx, foreignRoot, &kms.CreateKeyRequest{Policy: strings.ReplaceAll(keyPolicy(
		`{"Effect":"Deny","Principal":"*","Action":"kms:GenerateDataKey","Resource":"*","Condition":{"StringNotEquals":{"kms:RecipientAttestation:PCR0":"`+pcr0+`"}}}`),
		account, foreign)})
	must(t, err)
	request := func(who kms.Caller, key string) error {
		_, err := r.GenerateDataKey(ctx, who, &kms.GenerateDataKeyRequest{
			KeyID: key, KeySpec: "AES_256", Recipient: r.document(attesttest.Statement{PCRs: pcrs(map[int]byte{0: 0xaa})}),
		})
		return err
	}
	must(t, request(foreignRoot, own.KeyMetadata.Arn))
	if err := request(foreignRoot, theirs.Arn); err == nil {
		t.Error("the root of one account opens a key of another")
	} else if why := reason(t, err); !strings.HasSuffix(why, `; the request's document says nothing here, because the root "lab" is not trusted for account `+account) {
		t.Errorf("the operator reads %s", why)
	}
	refusal(t, request(root, theirs.Arn), kms.Validation, "The attestation document does not lead to a trusted root certificate.")
}

// TestAttestedDryRun: the document is looked at, and nothing is made.
func TestAttestedDryRun(t *testing.T) {
	r := newAttestedRig(t)
	key := r.newKey()
	for _, test := range []struct {
		age  time.Duration
		code kms.Code
		text string
	}{
		{0, kms.DryRunSucceeded, "The request would have succeeded, but the DryRun option is set."},
		{6 * time.Minute, kms.Validation, "The attestation document has exceeded the five-minute age limit."},
	} {
		_, err := r.GenerateDataKeyPair(t.Context(), root, &kms.GenerateDataKeyPairRequest{
			KeyID: key.KeyID, KeyPairSpec: keyspec.RSA4096, DryRun: true, Recipient: r.document(attesttest.Statement{Time: time.Now().Add(-test.age)}),
		})
		refusal(t, err, test.code, test.text)
	}
}

// TestRecipientIsRecorded: what the document said is in the record, whether the request was answered or denied; a document that is refused says nothing.
func TestRecipientIsRecorded(t *testing.T) {
	r := newAttestedRig(t)
	key := r.newKey()
	nobody := r.add("arn:aws:iam::111122223333:user/nobody")
	b64 := func(b byte) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, 48)) }
	enclave := attesttest.Statement{ModuleID: "i-1-enc2", PCRs: pcrs(map[int]byte{0: 10, 1: 11, 2: 12, 3: 13, 4: 14, 5: 15, 8: 18})}
	tpm := attesttest.Statement{Kind: attest.NitroTPM, ModuleID: "i-1-tpm0", PCRs: pcrs(map[int]byte{0: 10, 4: 14, 7: 17, 12: 22, 23: 33})}
	record := func(who kms.Caller, s attesttest.Statement) (string, map[string]string) {
		t.Helper()
		who, err := r.Begin(who, "GenerateDataKey")
		must(t, err)
		resp, err := r.GenerateDataKey(t.Context(), who, &kms.GenerateDataKeyRequest{KeyID: key.KeyID, KeySpec: "AES_256", Recipient: r.document(s)})
		code := ""
		if err != nil {
			code = "refused"
		} else {
			defer resp.Wipe()
		}
		must(t, r.Record(t.Context(), who, code, ""))
		records := r.records()
		var additional struct{ Recipient map[string]string }
		if data := records[len(records)-1].AdditionalEventData; data != nil {
			must(t, json.Unmarshal(data, &additional))
		}
		return code, additional.Recipient
	}
	wantEnclave := map[string]string{
		"attestationDocumentModuleId": "i-1-enc2", "attestationDocumentTrustAnchor": "lab", "attestationDocumentEnclaveImageDigest": b64(10),
		"attestationDocumentEnclavePCR1": b64(11), "attestationDocumentEnclavePCR2": b64(12), "attestationDocumentEnclavePCR3": b64(13),
		"attestationDocumentEnclavePCR4": b64(14), "attestationDocumentEnclavePCR8": b64(18),
	}
	wantTPM := map[string]string{
		"attestationDocumentModuleId": "i-1-tpm0", "attestationDocumentTrustAnchor": "lab", "attestationDocumentNitroTPMPCR4": b64(14),
		"attestationDocumentNitroTPMPCR7": b64(17), "attestationDocumentNitroTPMPCR12": b64(22), "attestationDocumentNitroTPMPCR23": b64(33),
	}
	stale := enclave
	stale.Time = time.Now().Add(-time.Hour)
	for _, test := range []struct {
		name string
		who  kms.Caller
		s    attesttest.Statement
		code string
		want map[string]string
	}{
		{"enclave", root, enclave, "", wantEnclave},
		{"NitroTPM", root, tpm, "", wantTPM},
		{"denied", nobody, enclave, "refused", wantEnclave},
		{"refused", root, stale, "refused", nil},
	} {
		code, got := record(test.who, test.s)
		if code != test.code || fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%s: %q, %v\nwant %v", test.name, code, got, test.want)
		}
	}
}
