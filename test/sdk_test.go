package test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"regexp"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"
)

// The files sdk_*_test.go use the stock AWS SDK for Go. That it works unchanged is the promise, so that is the test.

var (
	isUUID  = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString
	isHex64 = regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString
)

// newKey makes a key and returns its metadata.
func newKey(t testing.TB, c *kms.Client) *types.KeyMetadata {
	t.Helper()
	out, err := c.CreateKey(within(t), &kms.CreateKeyInput{})
	if err != nil {
		t.Fatalf("CreateKey: %v", err)
	}
	return out.KeyMetadata
}

// newAlias makes a key and an alias for it, and returns the key's metadata and the alias' name.
func newAlias(t testing.TB, c *kms.Client) (*types.KeyMetadata, string) {
	t.Helper()
	key, name := newKey(t, c), "alias/"+random()
	if _, err := c.CreateAlias(within(t), &kms.CreateAliasInput{AliasName: &name, TargetKeyId: key.KeyId}); err != nil {
		t.Fatalf("CreateAlias: %v", err)
	}
	return key, name
}

func describe(id string) *kms.DescribeKeyInput { return &kms.DescribeKeyInput{KeyId: &id} }

// random returns a word that nothing else is called.
func random() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// A refusal is what the SDK shows of an error: the code, the message and the HTTP status.
type refusal struct {
	code    string
	message string
	status  int
}

func refusalOf(err error) refusal {
	var r refusal
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		r.code, r.message = e.ErrorCode(), e.ErrorMessage()
	}
	if e, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		r.status = e.HTTPStatusCode()
	}
	return r
}

// refused fails the test unless err is the refusal with this code and this very message. Every refusal of AWS KMS has status 400.
func refused(t testing.TB, what string, err error, code, message string) {
	t.Helper()
	if want := (refusal{code, message, http.StatusBadRequest}); err == nil {
		t.Errorf("%s succeeded, want %+v", what, want)
	} else if got := refusalOf(err); got != want {
		t.Errorf("%s:\n got %+v\nwant %+v\nfrom %v", what, got, want, err)
	}
}

// The messages that many tests ask for.
const (
	textDryRun       = "The request would have succeeded, but the DryRun option is set."
	textIncorrectKey = "The key ID in the request does not identify a CMK that can perform this operation."
)

func decrypt(ctx context.Context, c *kms.Client, blob []byte, encryptionContext map[string]string) ([]byte, error) {
	out, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: encryptionContext})
	if err != nil {
		return nil, err
	}
	return out.Plaintext, nil
}

// TestSDKFromEnvironment does what a user of `strongroom dev` does: sources DIR/env and runs a program that knows nothing of strongroom.
func TestSDKFromEnvironment(t *testing.T) {
	s, _ := shared(t)
	for name, value := range s.env {
		t.Setenv(name, value)
	}
	for _, name := range []string{"AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	ctx := within(t)
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c := kms.NewFromConfig(cfg)
	key := newKey(t, c)
	sealed, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: key.Arn, Plaintext: []byte("hello")})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decrypt(ctx, c, sealed.CiphertextBlob, nil); err != nil || string(got) != "hello" {
		t.Errorf("decrypted %q, %v", got, err)
	}
}

// TestSDKRequestID: every answer has an id, another one each time, on success and on refusal.
func TestSDKRequestID(t *testing.T) {
	_, c := shared(t)
	seen := make(map[string]bool)
	for range 5 {
		out, err := c.ListKeys(within(t), &kms.ListKeysInput{})
		if err != nil {
			t.Fatal(err)
		}
		id, _ := awsmiddleware.GetRequestIDMetadata(out.ResultMetadata)
		if !isUUID(id) || seen[id] {
			t.Errorf("request id %q, want a new UUID", id)
		}
		seen[id] = true

		_, err = c.DescribeKey(within(t), &kms.DescribeKeyInput{KeyId: aws.String("nothing")})
		e, ok := errors.AsType[*awshttp.ResponseError](err)
		if !ok || !isUUID(e.ServiceRequestID()) || seen[e.ServiceRequestID()] {
			t.Errorf("request id of a refusal: %v", err)
		} else {
			seen[e.ServiceRequestID()] = true
		}
	}
}

// TestSDKTypedErrors: programs catch refusals by the types of the SDK.
func TestSDKTypedErrors(t *testing.T) {
	s, c := shared(t)
	ctx := within(t)
	key, alias := newAlias(t, c)
	other := newKey(t, c)
	sealed, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: key.Arn, Plaintext: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	is := func(name string, ok bool, err error) {
		t.Helper()
		if !ok {
			t.Errorf("not a %s: %v", name, err)
		}
	}
	_, err = c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: aws.String("alias/none")})
	_, ok := errors.AsType[*types.NotFoundException](err)
	is("NotFoundException", ok, err)

	_, err = c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: aws.String("arn:x")})
	_, ok = errors.AsType[*types.InvalidArnException](err)
	is("InvalidArnException", ok, err)

	_, err = c.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: &alias, TargetKeyId: key.KeyId})
	_, ok = errors.AsType[*types.AlreadyExistsException](err)
	is("AlreadyExistsException", ok, err)

	_, err = decrypt(ctx, c, sealed.CiphertextBlob, map[string]string{"a": "b"})
	_, ok = errors.AsType[*types.InvalidCiphertextException](err)
	is("InvalidCiphertextException", ok, err)

	_, err = c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob, KeyId: other.KeyId})
	_, ok = errors.AsType[*types.IncorrectKeyException](err)
	is("IncorrectKeyException", ok, err)

	_, err = c.Encrypt(ctx, &kms.EncryptInput{KeyId: key.KeyId, Plaintext: []byte("x"), DryRun: aws.Bool(true)})
	_, ok = errors.AsType[*types.DryRunOperationException](err)
	is("DryRunOperationException", ok, err)

	_, err = c.Encrypt(ctx, &kms.EncryptInput{KeyId: key.KeyId, Plaintext: []byte("x"), EncryptionAlgorithm: types.EncryptionAlgorithmSpecRsaesOaepSha256})
	_, ok = errors.AsType[*types.InvalidKeyUsageException](err)
	is("InvalidKeyUsageException", ok, err)

	_, err = c.Encrypt(ctx, &kms.EncryptInput{KeyId: key.KeyId, Plaintext: []byte("x"), GrantTokens: []string{"rubbish"}})
	_, ok = errors.AsType[*types.InvalidGrantTokenException](err)
	is("InvalidGrantTokenException", ok, err)

	_, err = c.ListKeys(ctx, &kms.ListKeysInput{Marker: aws.String("rubbish")})
	_, ok = errors.AsType[*types.InvalidMarkerException](err)
	is("InvalidMarkerException", ok, err)

	_, err = c.CancelKeyDeletion(ctx, &kms.CancelKeyDeletionInput{KeyId: key.KeyId})
	_, ok = errors.AsType[*types.KMSInvalidStateException](err)
	is("KMSInvalidStateException", ok, err)

	_, err = c.Sign(ctx, &kms.SignInput{KeyId: key.KeyId, Message: []byte("x"), SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256})
	_, ok = errors.AsType[*types.UnsupportedOperationException](err)
	is("UnsupportedOperationException", ok, err)

	if _, err = c.DisableKey(ctx, &kms.DisableKeyInput{KeyId: key.KeyId}); err != nil {
		t.Fatal(err)
	}
	_, err = decrypt(ctx, c, sealed.CiphertextBlob, nil)
	_, ok = errors.AsType[*types.DisabledException](err)
	is("DisabledException", ok, err)

	// The model has no types for these: the SDK shows them as errors in general.
	_, err = c.Encrypt(ctx, &kms.EncryptInput{KeyId: aws.String(""), Plaintext: []byte("x")})
	if e, ok := errors.AsType[*smithy.GenericAPIError](err); !ok || e.Code != "ValidationException" {
		t.Errorf("not a ValidationException: %v", err)
	}
	foreign := "arn:aws:kms:" + s.region() + ":999999999999:key/" + aws.ToString(key.KeyId)
	_, err = c.Encrypt(ctx, &kms.EncryptInput{KeyId: &foreign, Plaintext: []byte("x")})
	if e, ok := errors.AsType[*smithy.GenericAPIError](err); !ok || e.Code != "AccessDeniedException" {
		t.Errorf("not an AccessDeniedException: %v", err)
	}
}
