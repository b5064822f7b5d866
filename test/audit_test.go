package test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go/middleware"
)

// A record is what tests look at in a line of the audit log.
type record struct {
	UserIdentity struct {
		Type, ARN, AccountID, AccessKeyID, PrincipalID, UserName string
	}
	EventSource, EventName, AWSRegion, SourceIPAddress, UserAgent string
	EventTime, EventID, RequestID, EventType                      string
	ErrorCode, ErrorMessage                                       string
	RequestParameters, ResponseElements                           map[string]any
	AdditionalEventData, ServiceEventDetails                      map[string]any
	ReadOnly                                                      bool
	Resources                                                     []struct{ ARN, AccountID, Type string }
}

// auditFiles returns the paths of a rig's audit files.
func auditFiles(t testing.TB, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "audit", "*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no audit log in %s: %v", dir, err)
	}
	slices.Sort(files)
	return files
}

// auditLog returns all that a rig's audit log holds. Records that are durable are there as soon as their answers are.
func auditLog(t testing.TB, dir string) []byte {
	t.Helper()
	var all []byte
	for _, name := range auditFiles(t, dir) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}

// auditRecords returns the records in a rig's audit log, but not the checkpoints, in their order.
func auditRecords(t testing.TB, dir string) []record {
	t.Helper()
	var records []record
	for line := range bytes.Lines(auditLog(t, dir)) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // being written
		}
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("a line of the audit log is not a record: %v\n%s", err, line)
		}
		if r.EventType != "StrongroomCheckpoint" {
			records = append(records, r)
		}
	}
	return records
}

// recorded returns the one record of a request.
func recorded(t testing.TB, dir, request string) record {
	t.Helper()
	var found []record
	for _, r := range auditRecords(t, dir) {
		if r.RequestID == request {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d records of request %q", len(found), request)
	}
	return found[0]
}

// verifyAudit fails the test unless the rig's audit log verifies.
func verifyAudit(t testing.TB, dir string) {
	t.Helper()
	if out, err := exec.Command(program, "audit", "verify", filepath.Join(dir, "audit")).CombinedOutput(); err != nil {
		t.Errorf("strongroom audit verify: %v\n%s", err, out)
	}
}

// requestOf returns the id of the request that an answer is to.
func requestOf(m middleware.Metadata) string {
	id, _ := awsmiddleware.GetRequestIDMetadata(m)
	return id
}

// TestAuditRecord: the record of the product's main job, member by member, and of a refusal.
func TestAuditRecord(t *testing.T) {
	s, c := shared(t)
	ctx := within(t)
	key, alias := newAlias(t, c)
	out, err := c.GenerateDataKeyPair(ctx, &kms.GenerateDataKeyPairInput{KeyId: &alias, KeyPairSpec: types.DataKeyPairSpecEccNistP256,
		EncryptionContext: map[string]string{"Project": "Alpha \"1\" ☂"}})
	if err != nil {
		t.Fatal(err)
	}
	r := recorded(t, s.dir, requestOf(out.ResultMetadata))
	if r.EventSource != "kms.amazonaws.com" || r.EventName != "GenerateDataKeyPair" || r.AWSRegion != s.region() || r.SourceIPAddress != "127.0.0.1" ||
		r.EventType != "AwsApiCall" || !r.ReadOnly || r.ErrorCode != "" || r.ResponseElements != nil || !isUUID(r.EventID) || !strings.Contains(r.UserAgent, "aws-sdk-go") {
		t.Errorf("got %+v", r)
	}
	if u := r.UserIdentity; u.Type != "Root" || u.ARN != "arn:aws:iam::"+s.account()+":root" || u.AccountID != s.account() || u.AccessKeyID != s.env["AWS_ACCESS_KEY_ID"] {
		t.Errorf("got %+v", u)
	}
	if len(r.Resources) != 1 || r.Resources[0].ARN != *key.Arn || r.Resources[0].Type != "AWS::KMS::Key" {
		t.Errorf("got %+v", r.Resources)
	}
	p := r.RequestParameters
	if p["keyId"] != alias || p["keyPairSpec"] != "ECC_NIST_P256" || p["encryptionContext"].(map[string]any)["Project"] != "Alpha \"1\" ☂" || len(p) != 3 {
		t.Errorf("got %v", p)
	}

	_, err = c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: out.PrivateKeyCiphertextBlob})
	if refusalOf(err).code != "InvalidCiphertextException" {
		t.Fatal(err)
	}
	records := auditRecords(t, s.dir)
	i := slices.IndexFunc(records, func(r record) bool {
		return r.ErrorCode == "InvalidCiphertextException" && len(r.Resources) == 1 && r.Resources[0].ARN == *key.Arn
	})
	if i < 0 {
		t.Fatal("the refusal is not recorded")
	}
	if got := records[i].RequestParameters; got["encryptionAlgorithm"] != "SYMMETRIC_DEFAULT" || len(got) != 1 {
		t.Errorf("got %v", got)
	}
	verifyAudit(t, s.dir)
}

// TestAuditEverything: each request is recorded once, whatever became of it, and no record holds a secret.
func TestAuditEverything(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	ctx := within(t)
	var answered []string
	c := s.client(func(o *kms.Options) {
		o.RetryMaxAttempts = 1
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("answered", func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (
				out middleware.DeserializeOutput, m middleware.Metadata, err error) {
				out, m, err = next.HandleDeserialize(ctx, in)
				answered = append(answered, requestOf(m))
				return out, m, err
			}), middleware.Before)
		})
	})
	secrets := map[string][]byte{"secret access key": []byte(s.env["AWS_SECRET_ACCESS_KEY"])}
	keep := func(name string, b []byte, err error) {
		if err != nil {
			t.Fatal(err)
		}
		secrets[name] = []byte(base64.StdEncoding.EncodeToString(b))
		secrets[name+", as it is"] = b
	}
	key := newKey(t, c)
	context := map[string]string{"not": "secret"}
	pair, err := c.GenerateDataKeyPair(ctx, &kms.GenerateDataKeyPairInput{KeyId: key.KeyId, KeyPairSpec: types.DataKeyPairSpecEccNistP384, EncryptionContext: context})
	keep("private key", pair.PrivateKeyPlaintext, err)
	keep("sealed private key", pair.PrivateKeyCiphertextBlob, err)
	data, err := c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: key.KeyId, KeySpec: types.DataKeySpecAes256})
	keep("data key", data.Plaintext, err)
	keep("sealed data key", data.CiphertextBlob, err)
	text := []byte("a plaintext that nobody may read")
	sealed, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: key.KeyId, Plaintext: text})
	keep("plaintext", text, err)
	keep("ciphertext", sealed.CiphertextBlob, err)
	opened, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob})
	keep("opened", opened.Plaintext, err)
	again, err := c.ReEncrypt(ctx, &kms.ReEncryptInput{CiphertextBlob: sealed.CiphertextBlob, DestinationKeyId: key.KeyId})
	keep("re-encrypted", again.CiphertextBlob, err)
	bytes32, err := c.GenerateRandom(ctx, &kms.GenerateRandomInput{NumberOfBytes: aws.Int32(32)})
	keep("random", bytes32.Plaintext, err)
	grant, err := c.CreateGrant(ctx, &kms.CreateGrantInput{KeyId: key.KeyId, GranteePrincipal: aws.String("arn:aws:iam::" + s.account() + ":root"),
		Operations: []types.GrantOperation{types.GrantOperationDecrypt}})
	keep("grant token", []byte(aws.ToString(grant.GrantToken)), err)
	secrets["the grant token itself"] = []byte(*grant.GrantToken)
	if _, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob, GrantTokens: []string{*grant.GrantToken}}); err != nil {
		t.Fatal(err)
	}
	// Refusals of every layer behind the signature.
	for _, body := range []string{`{`, `{"KeyId":5}`, `{}`, `{"KeyId":"none","Plaintext":"QQ=="}`, `{"KeyId":"` + *key.KeyId + `","Plaintext":"QQ==","DryRun":true}`} {
		a := s.post(t, "Encrypt", body)
		answered = append(answered, a.header.Get("x-amzn-RequestId"))
	}
	for _, operation := range []string{"Sign", "ImportKeyMaterial"} {
		answered = append(answered, s.post(t, operation, `{}`).header.Get("x-amzn-RequestId"))
	}

	count := make(map[string]int)
	for _, r := range auditRecords(t, dir) {
		count[r.RequestID]++
	}
	if len(answered) < 15 {
		t.Fatalf("only %d requests were answered", len(answered))
	}
	for _, id := range answered {
		if count[id] != 1 || !isUUID(id) {
			t.Errorf("request %q is recorded %d times", id, count[id])
		}
	}
	log := auditLog(t, dir)
	for name, secret := range secrets {
		if len(secret) < 16 {
			t.Fatalf("%s has %d bytes", name, len(secret))
		}
		if bytes.Contains(log, secret) {
			t.Errorf("the audit log has the %s", name)
		}
	}
	s.stop(t)
	verifyAudit(t, dir)
	for name, secret := range secrets {
		if strings.Contains(s.log.String(), string(secret)) {
			t.Errorf("the operator's log has the %s", name)
		}
	}
}
