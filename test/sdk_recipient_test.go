package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"strongroom/kms/attest"
	"strongroom/kms/attest/attesttest"
)

// attester returns the root that a rig has for attestation documents.
func (s *server) attester(t testing.TB) *attesttest.Root {
	t.Helper()
	certificate, err := os.ReadFile(filepath.Join(s.dir, "attestation", "root.pem"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(s.dir, "attestation", "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	root, err := attesttest.ParseRoot(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func newRecipient(t testing.TB, bits int) *attesttest.Recipient {
	t.Helper()
	r, err := attesttest.NewRecipient(bits)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// documentOf returns the Recipient of a request whose answer is for r.
func documentOf(t testing.TB, root *attesttest.Root, r *attesttest.Recipient) *types.RecipientInfo {
	t.Helper()
	d, err := root.Document(attesttest.Statement{Time: time.Now(), PublicKey: r.PublicKey()})
	if err != nil {
		t.Fatal(err)
	}
	return &types.RecipientInfo{KeyEncryptionAlgorithm: types.KeyEncryptionMechanismRsaesOaepSha256, AttestationDocument: d}
}

// openssl opens an envelope as AWS's guide for NitroTPM does.
func openssl(t testing.TB, r *attesttest.Recipient, envelope []byte) []byte {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(key, r.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("openssl", "cms", "-decrypt", "-inform", "DER", "-binary", "-inkey", key)
	cmd.Stdin = bytes.NewReader(envelope)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl cms: %v", err)
	}
	return out
}

// TestRecipient: a stock client gets sealed answers, which only the recipient can open: with our own reader, and with OpenSSL.
func TestRecipient(t *testing.T) {
	s, c := shared(t)
	ctx := within(t)
	root := s.attester(t)
	key := newKey(t, c)
	for _, bits := range []int{2048, 3072, 4096} {
		r := newRecipient(t, bits)
		open := func(envelope []byte) []byte {
			t.Helper()
			p, err := r.Open(envelope)
			if err != nil {
				t.Fatal(err)
			}
			if got := openssl(t, r, envelope); !bytes.Equal(got, p) {
				t.Fatalf("openssl reads %d other bytes", len(got))
			}
			return p
		}
		pair, err := c.GenerateDataKeyPair(ctx, &kms.GenerateDataKeyPairInput{
			KeyId: key.KeyId, KeyPairSpec: types.DataKeyPairSpecEccNistP384, EncryptionContext: map[string]string{"a": "b"}, Recipient: documentOf(t, root, r),
		})
		if err != nil {
			t.Fatal(err)
		}
		private := open(pair.CiphertextForRecipient)
		if plain, err := decrypt(ctx, c, pair.PrivateKeyCiphertextBlob, map[string]string{"a": "b"}); err != nil || !bytes.Equal(plain, private) {
			t.Errorf("the sealed private key is not the wrapped one: %v", err)
		}
		if pair.PrivateKeyPlaintext != nil || pair.PublicKey == nil || !isHex64(aws.ToString(pair.KeyMaterialId)) {
			t.Errorf("pair: %d bytes in clear, public key of %d bytes, material %q", len(pair.PrivateKeyPlaintext), len(pair.PublicKey), aws.ToString(pair.KeyMaterialId))
		}
		data, err := c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: key.KeyId, KeySpec: types.DataKeySpecAes256, Recipient: documentOf(t, root, r)})
		if err != nil {
			t.Fatal(err)
		}
		back, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: data.CiphertextBlob, Recipient: documentOf(t, root, r)})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(open(data.CiphertextForRecipient), open(back.CiphertextForRecipient)) || data.Plaintext != nil || back.Plaintext != nil ||
			data.KeyMaterialId != nil || back.KeyMaterialId != nil {
			t.Error("GenerateDataKey and Decrypt do not agree")
		}
		bytesOf, err := c.GenerateRandom(ctx, &kms.GenerateRandomInput{NumberOfBytes: aws.Int32(17), Recipient: documentOf(t, root, r)})
		if err != nil {
			t.Fatal(err)
		}
		if p := open(bytesOf.CiphertextForRecipient); len(p) != 17 || bytesOf.Plaintext != nil {
			t.Errorf("GenerateRandom: %d bytes", len(p))
		}
	}
}

// attestedBodies returns the beginning of a request for each operation that takes a Recipient, without the closing brace.
func attestedBodies(t testing.TB, c *kms.Client) map[string]string {
	t.Helper()
	key := newKey(t, c)
	blob, _, err := producers["Encrypt"](within(t), c, *key.KeyId, nil)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"GenerateDataKeyPair": fmt.Sprintf(`{"KeyId":"%s","KeyPairSpec":"ECC_NIST_P256"`, *key.KeyId),
		"GenerateDataKey":     fmt.Sprintf(`{"KeyId":"%s","KeySpec":"AES_256"`, *key.KeyId),
		"Decrypt":             fmt.Sprintf(`{"CiphertextBlob":"%s"`, base64Of(blob)),
		"GenerateRandom":      `{"NumberOfBytes":32`,
	}
}

// TestRecipientOnTheWire: the plaintext member is left out, not null, since AWS's enclave SDK stops at anything there that is not a string.
func TestRecipientOnTheWire(t *testing.T) {
	s, c := shared(t)
	root, r := s.attester(t), newRecipient(t, 2048)
	want := map[string]string{
		"GenerateDataKeyPair": "CiphertextForRecipient KeyId KeyMaterialId KeyPairSpec PrivateKeyCiphertextBlob PublicKey",
		"GenerateDataKey":     "CiphertextBlob CiphertextForRecipient KeyId",
		"Decrypt":             "CiphertextForRecipient EncryptionAlgorithm KeyId",
		"GenerateRandom":      "CiphertextForRecipient",
	}
	for operation, body := range attestedBodies(t, c) {
		recipient := documentOf(t, root, r)
		a := s.post(t, operation, fmt.Sprintf(`%s,"Recipient":{"KeyEncryptionAlgorithm":"RSAES_OAEP_SHA_256","AttestationDocument":"%s"}}`, body, base64Of(recipient.AttestationDocument)))
		var members map[string]json.RawMessage
		if err := json.Unmarshal(a.body, &members); err != nil || a.status != http.StatusOK {
			t.Fatalf("%s: %d %s %s", operation, a.status, a.code, a.message)
		}
		if got := strings.Join(slices.Sorted(maps.Keys(members)), " "); got != want[operation] {
			t.Errorf("%s answers with %s, want %s", operation, got, want[operation])
		}
	}
}

// TestRecipientMalformed: whatever is in it, what cannot be read as a recipient is not to be taken for none.
func TestRecipientMalformed(t *testing.T) {
	s, c := shared(t)
	for operation, body := range attestedBodies(t, c) {
		for _, given := range []string{
			`{}`, `{"KeyEncryptionAlgorithm":"RSAES_OAEP_SHA_256"}`, `{"AttestationDocument":"YQ=="}`, `{"AttestationDocument":null}`, `{"x":1}`,
			`{"KeyEncryptionAlgorithm":"RSAES_OAEP_SHA_1","AttestationDocument":"YQ=="}`, `{"AttestationDocument":""}`, `{"AttestationDocument":"?"}`,
			`{"KeyEncryptionAlgorithm":"RSAES_OAEP_SHA_256","AttestationDocument":"YQ=="}`,
			`{"KeyEncryptionAlgorithm":"RSAES_OAEP_SHA_256","AttestationDocument":"` + strings.Repeat("hEShATgi", 18000) + `"}`,
			`""`, `[]`, `true`, `1`, `"a document"`, `[{}]`,
		} {
			a := s.post(t, operation, body+`,"Recipient":`+given+`}`)
			if a.status != http.StatusBadRequest || hasPlaintext(a) || strings.HasPrefix(given, "{") && a.code != "ValidationException" && a.code != "SerializationException" {
				t.Errorf("%s with Recipient %.80s: %d %s", operation, given, a.status, a.code)
			}
		}
		if a := s.post(t, operation, body+`,"Recipient":null}`); a.status != http.StatusOK || !hasPlaintext(a) {
			t.Errorf("%s with Recipient null: %d %s %s", operation, a.status, a.code, a.message)
		}
	}
	s.expect(t, "GenerateRandom", `{"NumberOfBytes":32,"Recipient":{"KeyEncryptionAlgorithm":"RSAES_OAEP_SHA_256"}}`, "ValidationException",
		"1 validation error detected: Value null at 'recipient.attestationDocument' failed to satisfy constraint: Member must not be null")
}

// TestHostileDocuments: over the wire, every document that has to be refused is, and those that are only unusual are not.
func TestHostileDocuments(t *testing.T) {
	s, c := shared(t)
	root, r := s.attester(t), newRecipient(t, 2048)
	bodies := attestedBodies(t, c)
	for _, test := range attesttest.Cases() {
		if test.Name == "age-limit" || test.Name == "ahead-over-limit" { // which they are for a millisecond
			continue
		}
		d, err := root.DocumentOf(test, attesttest.Statement{Time: time.Now(), PublicKey: r.PublicKey()})
		if err != nil {
			t.Fatal(err)
		}
		for operation, body := range bodies {
			a := s.post(t, operation, fmt.Sprintf(`%s,"Recipient":{"KeyEncryptionAlgorithm":"RSAES_OAEP_SHA_256","AttestationDocument":"%s"}}`, body, base64Of(d)))
			switch {
			case test.Reason == 0 && a.status != http.StatusOK:
				t.Errorf("%s, %s: %d %s %s", test.Name, operation, a.status, a.code, a.message)
			case len(d) > 130_000 && a.status == http.StatusRequestEntityTooLarge: // a request has 200,000 bytes at most, and base64 is longer
				continue
			case test.Reason != 0 && (a.status != http.StatusBadRequest || a.code != "ValidationException"):
				t.Errorf("%s, %s: %d %s %s", test.Name, operation, a.status, a.code, a.message)
			case hasPlaintext(a):
				t.Errorf("%s, %s: a plaintext is in the answer", test.Name, operation)
			}
			if test.Reason == attest.Stale && !strings.Contains(a.message, "exceeded the five-minute age limit") ||
				test.Reason == attest.Malformed && len(d) > 0 && !strings.Contains(a.message, "cannot parse the attestation document") {
				t.Errorf("%s, %s: %s", test.Name, operation, a.message)
			}
		}
	}
	s.works(t)
}

// hasPlaintext reports whether an answer holds what a sealed one must not.
func hasPlaintext(a answer) bool {
	var members map[string]json.RawMessage
	json.Unmarshal(a.body, &members)
	return members["Plaintext"] != nil || members["PrivateKeyPlaintext"] != nil
}

// TestRecipientPolicy: a key that is pinned to an image opens to it alone, and the record says what asked.
func TestRecipientPolicy(t *testing.T) {
	s, c := shared(t)
	ctx := within(t)
	root, r := s.attester(t), newRecipient(t, 2048)
	key := newKey(t, c)
	statement := func(image byte) *types.RecipientInfo {
		d, err := root.Document(attesttest.Statement{
			Time: time.Now(), PublicKey: r.PublicKey(), ModuleID: "i-0123456789abcdef0-enc0123456789abcdef",
			PCRs: map[int][]byte{0: bytes.Repeat([]byte{image}, 48), 4: bytes.Repeat([]byte{4}, 48)},
		})
		if err != nil {
			t.Fatal(err)
		}
		return &types.RecipientInfo{KeyEncryptionAlgorithm: types.KeyEncryptionMechanismRsaesOaepSha256, AttestationDocument: d}
	}
	_, err := c.PutKeyPolicy(ctx, &kms.PutKeyPolicyInput{KeyId: key.KeyId, Policy: aws.String(`{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + *key.AWSAccountId + `:root"},"Action":"kms:*","Resource":"*"},
		{"Effect":"Deny","Principal":"*","Action":["kms:Decrypt","kms:GenerateDataKey*"],"Resource":"*","Condition":{
			"StringNotEqualsIgnoreCase":{"kms:RecipientAttestation:ImageSha384":"` + strings.Repeat("AB", 48) + `"}}}]}`)})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(r *types.RecipientInfo) error {
		_, err := c.GenerateDataKeyPair(ctx, &kms.GenerateDataKeyPairInput{KeyId: key.KeyId, KeyPairSpec: types.DataKeyPairSpecEccNistP256, Recipient: r})
		return err
	}
	if err := ask(statement(0xab)); err != nil {
		t.Errorf("the pinned image: %v", err)
	}
	const denied = "is not authorized to perform: kms:GenerateDataKeyPair on resource: "
	for name, recipient := range map[string]*types.RecipientInfo{"another image": statement(0xac), "no document": nil} {
		if r := refusalOf(ask(recipient)); r.code != "AccessDeniedException" || !strings.Contains(r.message, denied) || !strings.HasSuffix(r.message, "with an explicit deny in a resource-based policy") {
			t.Errorf("%s: %+v", name, r)
		}
	}
	shown := s.admin(t, "audit", "show", "--key", *key.KeyId, "--json")
	for _, want := range []string{
		`"attestationDocumentModuleId":"i-0123456789abcdef0-enc0123456789abcdef"`, `"attestationDocumentEnclaveImageDigest":"` + base64Of(bytes.Repeat([]byte{0xab}, 48)) + `"`,
		`"attestationDocumentEnclavePCR4":"BAQE`, `"attestationDocumentTrustAnchor":"dev"`,
	} {
		if !strings.Contains(strings.ReplaceAll(shown, `": "`, `":"`), want) {
			t.Errorf("the record has no %s:\n%.3000s", want, shown)
		}
	}
	if strings.Contains(shown, "AttestationDocument\"") || strings.Contains(shown, "hEShATgi") {
		t.Error("the record holds a document")
	}
}
