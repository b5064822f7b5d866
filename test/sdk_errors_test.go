package test

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// TestKeyIDRefusals: what a KeyId that leads to no key is answered, by operations that take aliases and by those that do not.
func TestKeyIDRefusals(t *testing.T) {
	s, c := shared(t)
	ctx := within(t)
	key, alias := newAlias(t, c)
	const none, mrk = "1234abcd-12ab-4cd4-a6ef-1234567890ab", "mrk-1234abcd12ab34cd56ef1234567890ab"
	arn := "arn:aws:kms:" + s.region() + ":" + s.account() + ":"
	foreign := "arn:aws:kms:" + s.region() + ":999999999999:"
	denied := func(action string) string {
		return "User: arn:aws:iam::" + s.account() + ":root is not authorized to perform: kms:" + action + " on this resource because the resource does not exist " +
			"in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access"
	}
	type wants struct{ code, message string }
	notFound := func(message string) wants { return wants{"NotFoundException", message} }
	for _, test := range []struct {
		id string
		// What is answered by an operation that takes all four forms, and by one that takes ids and ARNs of keys; DENIED stands for the text above.
		four, two wants
	}{
		{none, notFound("Key '" + arn + "key/" + none + "' does not exist"), notFound("Key '" + arn + "key/" + none + "' does not exist")},
		{arn + "key/" + none, notFound("Key '" + arn + "key/" + none + "' does not exist"), notFound("Key '" + arn + "key/" + none + "' does not exist")},
		{mrk, notFound("Key '" + arn + "key/" + mrk + "' does not exist"), notFound("Key '" + arn + "key/" + mrk + "' does not exist")},
		{"fake-key-id", notFound("Invalid keyId 'fake-key-id'"), notFound("Invalid keyId 'fake-key-id'")},
		{"mrk-fake-key-id", notFound("Invalid keyId 'mrk-fake-key-id'"), notFound("Invalid keyId 'mrk-fake-key-id'")},
		{strings.ReplaceAll(none, "-", ""), notFound("Invalid keyId '" + strings.ReplaceAll(none, "-", "") + "'"), notFound("Invalid keyId '" + strings.ReplaceAll(none, "-", "") + "'")},
		{arn + "key/fake", notFound("Invalid keyId fake"), notFound("Invalid keyId fake")},
		{"arn:aws:kms:eu-west-1:" + s.account() + ":key/" + *key.KeyId, notFound("Invalid arn eu-west-1"), notFound("Invalid arn eu-west-1")},
		{"alias/none-such", notFound("Alias " + arn + "alias/none-such is not found."), notFound("Invalid keyId 'alias/none-such'")},
		{arn + "alias/none-such", notFound("Alias " + arn + "alias/none-such is not found."), notFound("Invalid keyId 'alias/none-such'")},
		{alias, wants{}, notFound("Invalid keyId '" + alias + "'")},
		{"arn:garbage", notFound("Invalid arn"), wants{"InvalidArnException", "Invalid arn"}},
		{"arn:aws:s3:" + s.region() + ":" + s.account() + ":key/" + *key.KeyId, notFound("Invalid arn"), wants{"InvalidArnException", "Invalid arn"}},
		{arn + "grant/" + *key.KeyId, notFound("Invalid arn"), wants{"InvalidArnException", "Invalid arn"}},
		{foreign + "key/" + *key.KeyId, wants{"AccessDeniedException", "DENIED"}, wants{"AccessDeniedException", "DENIED"}},
		{foreign + "key/" + none, wants{"AccessDeniedException", "DENIED"}, wants{"AccessDeniedException", "DENIED"}},
		{foreign + alias, wants{"AccessDeniedException", "DENIED"}, notFound("Invalid keyId '" + alias + "'")},
	} {
		want := func(w wants, action string) (string, string) {
			return w.code, strings.ReplaceAll(w.message, "DENIED", denied(action))
		}
		check := func(action string, w wants, err error) {
			t.Helper()
			if w == (wants{}) {
				if err != nil {
					t.Errorf("%s %s: %v", action, test.id, err)
				}
				return
			}
			code, message := want(w, action)
			refused(t, action+" "+test.id, err, code, message)
		}
		_, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: &test.id, Plaintext: []byte("x")})
		check("Encrypt", test.four, err)
		_, err = c.GenerateDataKeyPair(ctx, &kms.GenerateDataKeyPairInput{KeyId: &test.id, KeyPairSpec: types.DataKeyPairSpecEccNistP256})
		check("GenerateDataKeyPair", test.four, err)
		_, err = c.EnableKey(ctx, &kms.EnableKeyInput{KeyId: &test.id})
		check("EnableKey", test.two, err)
		_, err = c.UpdateKeyDescription(ctx, &kms.UpdateKeyDescriptionInput{KeyId: &test.id, Description: aws.String("x")})
		check("UpdateKeyDescription", test.two, err)

		four := test.four
		if four.message == "Invalid arn" {
			four.code = "InvalidArnException" // of the operations with four forms, only this one has it
		}
		_, err = c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &test.id})
		check("DescribeKey", four, err)
	}
	long := strings.Repeat("k", 2049)
	_, err := c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &long})
	if r := refusalOf(err); r.code != "ValidationException" || !strings.HasSuffix(r.message, "at 'keyId' failed to satisfy constraint: Member must have length less than or equal to 2048") {
		t.Errorf("a KeyId of 2049 characters: %v", err)
	}
}

// TestKeyAnswersAreARNs: whatever a request calls the key, the answer names its ARN.
func TestKeyAnswersAreARNs(t *testing.T) {
	s, c := shared(t)
	ctx := within(t)
	key, alias := newAlias(t, c)
	for _, id := range []string{*key.KeyId, *key.Arn, alias, s.arn(alias)} {
		e, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: &id, Plaintext: []byte("x")})
		if err != nil || aws.ToString(e.KeyId) != *key.Arn || e.EncryptionAlgorithm != "SYMMETRIC_DEFAULT" {
			t.Errorf("Encrypt %s: %v", id, err)
		}
		g, err := c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: &id, KeySpec: types.DataKeySpecAes128})
		if err != nil || aws.ToString(g.KeyId) != *key.Arn {
			t.Errorf("GenerateDataKey %s: %v", id, err)
		}
		p, err := c.GenerateDataKeyPair(ctx, &kms.GenerateDataKeyPairInput{KeyId: &id, KeyPairSpec: types.DataKeyPairSpecEccNistP256})
		if err != nil || aws.ToString(p.KeyId) != *key.Arn {
			t.Errorf("GenerateDataKeyPair %s: %v", id, err)
		}
		r, err := c.ReEncrypt(ctx, &kms.ReEncryptInput{SourceKeyId: &id, DestinationKeyId: &id, CiphertextBlob: e.CiphertextBlob})
		if err != nil || aws.ToString(r.KeyId) != *key.Arn || aws.ToString(r.SourceKeyId) != *key.Arn {
			t.Errorf("ReEncrypt %s: %v", id, err)
		}
	}
}

// TestAlgorithms: an algorithm of keys that this server does not make fits none of its keys.
func TestAlgorithms(t *testing.T) {
	_, c := shared(t)
	ctx := within(t)
	key := newKey(t, c)
	e, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: key.KeyId, Plaintext: []byte("x"), EncryptionAlgorithm: types.EncryptionAlgorithmSpecSymmetricDefault})
	if err != nil {
		t.Fatal(err)
	}
	for _, algorithm := range types.EncryptionAlgorithmSpec("").Values() {
		if algorithm == types.EncryptionAlgorithmSpecSymmetricDefault {
			continue
		}
		text := "Algorithm " + string(algorithm) + " is incompatible with key spec SYMMETRIC_DEFAULT."
		_, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: key.KeyId, Plaintext: []byte("x"), EncryptionAlgorithm: algorithm})
		refused(t, "Encrypt", err, "InvalidKeyUsageException", text)
		_, err = c.Decrypt(ctx, &kms.DecryptInput{KeyId: key.KeyId, CiphertextBlob: e.CiphertextBlob, EncryptionAlgorithm: algorithm})
		refused(t, "Decrypt", err, "InvalidKeyUsageException", text)
		_, err = c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: e.CiphertextBlob, EncryptionAlgorithm: algorithm})
		refused(t, "Decrypt without KeyId", err, "ValidationException", "KeyId must not be null")
	}
}

// built are the operations that this server has. All others of the API are refused as such.
var built = []string{
	"CancelKeyDeletion", "CreateAlias", "CreateGrant", "CreateKey", "Decrypt", "DeleteAlias", "DescribeKey", "DisableKey", "DisableKeyRotation", "EnableKey",
	"EnableKeyRotation", "Encrypt", "GenerateDataKey", "GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext", "GenerateDataKeyWithoutPlaintext",
	"GenerateRandom", "GetKeyLastUsage", "GetKeyPolicy", "GetKeyRotationStatus", "ListAliases", "ListGrants", "ListKeyPolicies", "ListKeyRotations", "ListKeys",
	"ListResourceTags", "ListRetirableGrants", "PutKeyPolicy", "ReEncrypt", "RetireGrant", "RevokeGrant", "RotateKeyOnDemand", "ScheduleKeyDeletion",
	"TagResource", "UntagResource", "UpdateAlias", "UpdateKeyDescription",
}

// TestEveryOperationOfTheSDK: what the SDK can ask for is either done or refused as unsupported, and never unknown.
func TestEveryOperationOfTheSDK(t *testing.T) {
	s, _ := shared(t)
	client := reflect.TypeFor[*kms.Client]()
	n := 0
	for method := range client.Methods() {
		// func (*Client) Name(context.Context, *NameInput, ...func(*Options)) (*NameOutput, error)
		if f := method.Type; f.NumIn() != 4 || f.In(2) != reflect.PointerTo(f.In(2).Elem()) || f.In(2).Elem().Name() != method.Name+"Input" {
			continue
		}
		n++
		a := s.post(t, method.Name, "{}")
		switch {
		case !slices.Contains(built, method.Name):
			if a.code != "UnsupportedOperationException" {
				t.Errorf("%s: %d %s", method.Name, a.status, a.code)
			}
		case a.status != http.StatusOK && a.code != "ValidationException":
			t.Errorf("%s: %d %s", method.Name, a.status, a.code)
		}
	}
	if n < 54 {
		t.Errorf("%d operations found in the SDK", n)
	}
}

func TestUnknownOperations(t *testing.T) {
	s, _ := shared(t)
	for _, target := range []string{
		"TrentService.Nothing", "TrentService.listKeys", "TrentService.LISTKEYS", "TrentService.ListKeys.", "TrentService.", "TrentService.../ListKeys",
		"TrentService.TrentService.ListKeys", "TrentService. ListKeys", "TrentService.\xff", "TrentService." + strings.Repeat("x", 10_000),
		"", "ListKeys", "trentservice.ListKeys", "TrentService", "TrentService/ListKeys", "AWSCognito.ListKeys",
	} {
		r := s.request(t, "", strings.NewReader("{}"))
		r.Header.Set("X-Amz-Target", target)
		s.sign(t, r, []byte("{}"))
		if a := send(t, r); a.code != "UnknownOperationException" || !a.silent {
			t.Errorf("target %.40q: %d %s %q", target, a.status, a.code, a.message)
		}
	}
}

// TestConstraints: the exact words for members that the model forbids; of several, all are told at once.
func TestConstraints(t *testing.T) {
	s, c := shared(t)
	key := *newKey(t, c).KeyId
	one := func(item string) string { return "1 validation error detected: " + item }
	item := func(value, path, rule string) string {
		return fmt.Sprintf("Value %s at '%s' failed to satisfy constraint: %s", value, path, rule)
	}
	const null, short = "Member must not be null", "Member must have length greater than or equal to 1"
	for _, test := range []struct{ operation, body, message string }{
		{"DescribeKey", `{}`, one(item("null", "keyId", null))},
		{"DescribeKey", `{"KeyId":null}`, one(item("null", "keyId", null))},
		{"DescribeKey", `{"KeyId":""}`, one(item("''", "keyId", short))},
		{"Encrypt", `{"KeyId":"` + key + `"}`, "1 validation error detected: Value at 'plaintext' failed to satisfy constraint: Member must not be null"},
		{"GenerateRandom", `{"NumberOfBytes":0}`, one(item("'0'", "numberOfBytes", "Member must have value greater than or equal to 1"))},
		{"GenerateRandom", `{"NumberOfBytes":1025}`, one(item("'1025'", "numberOfBytes", "Member must have value less than or equal to 1024"))},
		{"GenerateRandom", `{"NumberOfBytes":-1}`, one(item("'-1'", "numberOfBytes", "Member must have value greater than or equal to 1"))},
		{"GenerateRandom", `{"NumberOfBytes":99999999999}`, one(item("'99999999999'", "numberOfBytes", "Member must have value less than or equal to 1024"))},
		{"GenerateDataKey", `{"KeyId":"` + key + `","KeySpec":"AES_512"}`, one(item("'AES_512'", "keySpec", "Member must satisfy enum value set: [AES_256, AES_128]"))},
		{"GenerateDataKey", `{"KeyId":"` + key + `","NumberOfBytes":1025}`, one(item("'1025'", "numberOfBytes", "Member must have value less than or equal to 1024"))},
		{"ListKeys", `{"Limit":0}`, one(item("'0'", "limit", "Member must have value greater than or equal to 1"))},
		{"ListKeys", `{"Limit":1001}`, one(item("'1001'", "limit", "Member must have value less than or equal to 1000"))},
		{"ListKeys", `{"Marker":""}`, one(item("''", "marker", short))},
		{"ListAliases", `{"KeyId":""}`, one(item("''", "keyId", short))},
		{"ScheduleKeyDeletion", `{"KeyId":"` + key + `","PendingWindowInDays":6}`, one(item("'6'", "pendingWindowInDays", "Member must have value greater than or equal to 7"))},
		{"ScheduleKeyDeletion", `{"KeyId":"` + key + `","PendingWindowInDays":31}`, one(item("'31'", "pendingWindowInDays", "Member must have value less than or equal to 30"))},
		{"CreateAlias", `{}`, "2 validation errors detected: " + item("null", "aliasName", null) + "; " + item("null", "targetKeyId", null)},
		{"CreateAlias", `{"TargetKeyId":"","AliasName":""}`, "3 validation errors detected: " + item("''", "aliasName", short) + "; " +
			item("''", "aliasName", "Member must satisfy regular expression pattern: ^[a-zA-Z0-9:/_-]+$") + "; " + item("''", "targetKeyId", short)},
		{"CreateKey", `{"Tags":[{"TagKey":"a","TagValue":"b"},{}]}`, "2 validation errors detected: " + item("null", "tags.2.member.tagKey", null) + "; " + item("null", "tags.2.member.tagValue", null)},
		{"Encrypt", `{"KeyId":"` + key + `","Plaintext":"","EncryptionAlgorithm":"ROT13"}`, "2 validation errors detected: Value at 'plaintext' failed to satisfy constraint: " + short + "; " +
			item("'ROT13'", "encryptionAlgorithm", "Member must satisfy enum value set: [SYMMETRIC_DEFAULT, RSAES_OAEP_SHA_1, RSAES_OAEP_SHA_256, SM2PKE]")},
	} {
		s.expect(t, test.operation, test.body, "ValidationException", test.message)
	}
}
