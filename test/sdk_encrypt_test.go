package test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// A producer is an operation that makes ciphertexts. It returns one, and its plaintext if the operation tells.
type producer func(ctx context.Context, c *kms.Client, key string, encryptionContext map[string]string) (blob, plaintext []byte, err error)

// producers are all of them. Each has been wrong on its own in one server or another: a context dropped, or not checked.
var producers = map[string]producer{
	"Encrypt": func(ctx context.Context, c *kms.Client, key string, ec map[string]string) ([]byte, []byte, error) {
		out, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: &key, Plaintext: []byte("hello"), EncryptionContext: ec})
		if err != nil {
			return nil, nil, err
		}
		return out.CiphertextBlob, []byte("hello"), nil
	},
	"ReEncrypt": func(ctx context.Context, c *kms.Client, key string, ec map[string]string) ([]byte, []byte, error) {
		from, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: &key, Plaintext: []byte("hello"), EncryptionContext: map[string]string{"from": "here"}})
		if err != nil {
			return nil, nil, err
		}
		out, err := c.ReEncrypt(ctx, &kms.ReEncryptInput{CiphertextBlob: from.CiphertextBlob, SourceEncryptionContext: map[string]string{"from": "here"},
			DestinationKeyId: &key, DestinationEncryptionContext: ec})
		if err != nil {
			return nil, nil, err
		}
		return out.CiphertextBlob, []byte("hello"), nil
	},
	"GenerateDataKey": func(ctx context.Context, c *kms.Client, key string, ec map[string]string) ([]byte, []byte, error) {
		out, err := c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: &key, KeySpec: types.DataKeySpecAes256, EncryptionContext: ec})
		if err != nil {
			return nil, nil, err
		}
		return out.CiphertextBlob, out.Plaintext, nil
	},
	"GenerateDataKeyWithoutPlaintext": func(ctx context.Context, c *kms.Client, key string, ec map[string]string) ([]byte, []byte, error) {
		out, err := c.GenerateDataKeyWithoutPlaintext(ctx, &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: &key, KeySpec: types.DataKeySpecAes256, EncryptionContext: ec})
		if err != nil {
			return nil, nil, err
		}
		return out.CiphertextBlob, nil, nil
	},
	"GenerateDataKeyPair": func(ctx context.Context, c *kms.Client, key string, ec map[string]string) ([]byte, []byte, error) {
		out, err := c.GenerateDataKeyPair(ctx, &kms.GenerateDataKeyPairInput{KeyId: &key, KeyPairSpec: types.DataKeyPairSpecEccNistP256, EncryptionContext: ec})
		if err != nil {
			return nil, nil, err
		}
		return out.PrivateKeyCiphertextBlob, out.PrivateKeyPlaintext, nil
	},
	"GenerateDataKeyPairWithoutPlaintext": func(ctx context.Context, c *kms.Client, key string, ec map[string]string) ([]byte, []byte, error) {
		out, err := c.GenerateDataKeyPairWithoutPlaintext(ctx, &kms.GenerateDataKeyPairWithoutPlaintextInput{KeyId: &key, KeyPairSpec: types.DataKeyPairSpecEccNistP256, EncryptionContext: ec})
		if err != nil {
			return nil, nil, err
		}
		return out.PrivateKeyCiphertextBlob, nil, nil
	},
}

// contexts are encryption contexts of which no two are the same, though some encodings would make them so: joined without lengths,
// without regard to case, in a normal form of Unicode, trimmed, or cut at a NUL.
var contexts = []map[string]string{
	nil,
	{"": ""},
	{"a": ""},
	{"": "a"},
	{"a": "bc"},
	{"ab": "c"},
	{"abc": ""},
	{"a": "b", "c": ""},
	{"a": "b", "": "c"},
	{"a": "b", "c": "d"},
	{"a": "d", "c": "b"},
	{"c": "b", "a": "d", "e": "f"},
	{"a": "b,c=d"},
	{"a": `b","c":"d`},
	{"A": "bc"},
	{"a": "BC"},
	{"a": "bc "},
	{" a": "bc"},
	{"a": "bc\x00"},
	{"a\x00": "bc"},
	{"a": "\x00bc"},
	{"é": "x"},       // one code point
	{"e\u0301": "x"}, // two, which look the same
	{"部署": "東京"},
	{"部署": "东京"},
	{"🔑": "\u2028\u2029\ufeff"},
	{"🔑": "\u2028\u2029"},
	{"k": "\ufffd"},
	{"k": "\U0010ffff"},
	{"k": `\u0041`},
	{"k": "A"},
	{"k": "null"},
	{"k": strings.Repeat("v", 20_000)},
	{"k": strings.Repeat("v", 19_999)},
}

// TestEncryptionContextIsExact: what was made under one context opens under that one and no other.
func TestEncryptionContextIsExact(t *testing.T) {
	_, c := shared(t)
	key := newKey(t, c)
	for i, made := range contexts {
		out, err := c.Encrypt(within(t), &kms.EncryptInput{KeyId: key.KeyId, Plaintext: []byte("hello"), EncryptionContext: made})
		if err != nil {
			t.Fatal(err)
		}
		for j, tried := range contexts {
			got, err := decrypt(within(t), c, out.CiphertextBlob, tried)
			what := fmt.Sprintf("made with %.40q, opened with %.40q", made, tried)
			if i != j {
				refused(t, what, err, "InvalidCiphertextException", "")
			} else if err != nil || string(got) != "hello" {
				t.Errorf("%s: %q, %v", what, got, err)
			}
		}
	}
	// No context and an empty one are the same.
	blob, _, err := producers["Encrypt"](within(t), c, *key.KeyId, map[string]string{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decrypt(within(t), c, blob, nil); err != nil || string(got) != "hello" {
		t.Errorf("made with {}, opened with none: %q, %v", got, err)
	}
}

// TestProducersAgainstDecrypt: every operation that makes a ciphertext binds it to its context, and Decrypt gives back what it sealed.
func TestProducersAgainstDecrypt(t *testing.T) {
	s, c := shared(t)
	key, alias := newAlias(t, c)
	id := *key.KeyId
	names := []string{id, *key.Arn, alias, s.arn(alias)}
	right := map[string]string{"Tenant": "42", "部署": "東京", "": "empty"}
	wrong := []map[string]string{
		nil,
		{"Tenant": "42", "部署": "東京"},
		{"Tenant": "42", "部署": "東京", "": "empty", "more": ""},
		{"tenant": "42", "部署": "東京", "": "empty"},
		{"Tenant": "43", "部署": "東京", "": "empty"},
		{"Tenant": "東京", "部署": "42", "": "empty"},
	}
	for operation, produce := range producers {
		t.Run(operation, func(t *testing.T) {
			ctx := within(t)
			for _, name := range names {
				blob, want, err := produce(ctx, c, name, right)
				if err != nil {
					t.Fatalf("with KeyId %s: %v", name, err)
				}
				for _, keyID := range []*string{nil, &id, key.Arn, &alias, aws.String(s.arn(alias))} {
					out, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: right, KeyId: keyID})
					if err != nil {
						t.Errorf("made with KeyId %s, opened with %s: %v", name, aws.ToString(keyID), err)
						continue
					}
					if want == nil && len(out.Plaintext) == 0 || want != nil && !bytes.Equal(out.Plaintext, want) {
						t.Errorf("Decrypt did not give back what was sealed")
					}
					if aws.ToString(out.KeyId) != *key.Arn || out.EncryptionAlgorithm != types.EncryptionAlgorithmSpecSymmetricDefault {
						t.Errorf("opened by %s with %s", aws.ToString(out.KeyId), out.EncryptionAlgorithm)
					}
				}
				for _, context := range wrong {
					for _, keyID := range []*string{nil, &id} {
						_, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: context, KeyId: keyID})
						refused(t, fmt.Sprintf("with context %v and KeyId %v", context, keyID != nil), err, "InvalidCiphertextException", "")
					}
				}
			}
			// Made without a context, it does not open with one.
			blob, _, err := produce(ctx, c, id, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = decrypt(ctx, c, blob, right)
			refused(t, "a context where there was none", err, "InvalidCiphertextException", "")
			if _, err = decrypt(ctx, c, blob, nil); err != nil {
				t.Errorf("without a context: %v", err)
			}
		})
	}
}

// TestReEncryptContexts: the source's context is checked like Decrypt's, and the destination's replaces it.
func TestReEncryptContexts(t *testing.T) {
	_, c := shared(t)
	ctx := within(t)
	from, to := newKey(t, c), newKey(t, c)
	old, changed := map[string]string{"v": "1"}, map[string]string{"v": "2"}
	sealed, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: from.KeyId, Plaintext: []byte("hello"), EncryptionContext: old})
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []map[string]string{nil, changed, {"V": "1"}} {
		_, err := c.ReEncrypt(ctx, &kms.ReEncryptInput{CiphertextBlob: sealed.CiphertextBlob, SourceEncryptionContext: wrong, DestinationKeyId: to.KeyId})
		refused(t, fmt.Sprint("source context ", wrong), err, "InvalidCiphertextException", "")
	}
	for _, destination := range []*types.KeyMetadata{to, from} {
		out, err := c.ReEncrypt(ctx, &kms.ReEncryptInput{CiphertextBlob: sealed.CiphertextBlob, SourceKeyId: from.KeyId, SourceEncryptionContext: old,
			DestinationKeyId: destination.KeyId, DestinationEncryptionContext: changed})
		if err != nil {
			t.Fatal(err)
		}
		if *out.SourceKeyId != *from.Arn || *out.KeyId != *destination.Arn || out.SourceEncryptionAlgorithm != "SYMMETRIC_DEFAULT" ||
			out.DestinationEncryptionAlgorithm != "SYMMETRIC_DEFAULT" {
			t.Errorf("ReEncrypt says %s %s %s %s", *out.SourceKeyId, *out.KeyId, out.SourceEncryptionAlgorithm, out.DestinationEncryptionAlgorithm)
		}
		opened, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: out.CiphertextBlob, EncryptionContext: changed})
		if err != nil || string(opened.Plaintext) != "hello" || *opened.KeyId != *destination.Arn {
			t.Errorf("after ReEncrypt: %v", err)
		}
		_, err = decrypt(ctx, c, out.CiphertextBlob, old)
		refused(t, "the old context after ReEncrypt", err, "InvalidCiphertextException", "")
	}
}

// TestPlaintextSizes: 1 to 4096 bytes come back as they were.
func TestPlaintextSizes(t *testing.T) {
	_, c := shared(t)
	key := newKey(t, c)
	seen := make(map[string]bool)
	for _, size := range []int{1, 2, 15, 16, 17, 255, 256, 1024, 4095, 4096} {
		plaintext := bytes.Repeat([]byte{0}, size) // zeros: what a lost plaintext would look like
		plaintext[size-1] = 0xff
		for range 2 { // the same twice is never the same ciphertext
			out, err := c.Encrypt(within(t), &kms.EncryptInput{KeyId: key.KeyId, Plaintext: plaintext})
			if err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			if seen[string(out.CiphertextBlob)] || bytes.Contains(out.CiphertextBlob, plaintext) && size > 2 {
				t.Errorf("%d bytes: the ciphertext is not one", size)
			}
			seen[string(out.CiphertextBlob)] = true
			if got, err := decrypt(within(t), c, out.CiphertextBlob, nil); err != nil || !bytes.Equal(got, plaintext) {
				t.Errorf("%d bytes came back as %d, %v", size, len(got), err)
			}
		}
	}
	_, err := c.Encrypt(within(t), &kms.EncryptInput{KeyId: key.KeyId, Plaintext: []byte{}})
	refused(t, "nothing", err, "ValidationException",
		"1 validation error detected: Value at 'plaintext' failed to satisfy constraint: Member must have length greater than or equal to 1")
	_, err = c.Encrypt(within(t), &kms.EncryptInput{KeyId: key.KeyId, Plaintext: make([]byte, 4097)})
	refused(t, "4097 bytes", err, "ValidationException",
		"1 validation error detected: Value at 'plaintext' failed to satisfy constraint: Member must have length less than or equal to 4096")
}
