package test

import (
	"context"
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// dryRuns are the operations that can be tried without being done.
var dryRuns = map[string]func(ctx context.Context, c *kms.Client, key string, blob []byte, dry *bool) error{
	"Encrypt": func(ctx context.Context, c *kms.Client, key string, _ []byte, dry *bool) error {
		_, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: &key, Plaintext: []byte("x"), DryRun: dry})
		return err
	},
	"Decrypt": func(ctx context.Context, c *kms.Client, key string, blob []byte, dry *bool) error {
		_, err := c.Decrypt(ctx, &kms.DecryptInput{KeyId: &key, CiphertextBlob: blob, DryRun: dry})
		return err
	},
	"ReEncrypt": func(ctx context.Context, c *kms.Client, key string, blob []byte, dry *bool) error {
		_, err := c.ReEncrypt(ctx, &kms.ReEncryptInput{CiphertextBlob: blob, DestinationKeyId: &key, DryRun: dry})
		return err
	},
	"GenerateDataKey": func(ctx context.Context, c *kms.Client, key string, _ []byte, dry *bool) error {
		_, err := c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: &key, KeySpec: types.DataKeySpecAes256, DryRun: dry})
		return err
	},
	"GenerateDataKeyWithoutPlaintext": func(ctx context.Context, c *kms.Client, key string, _ []byte, dry *bool) error {
		_, err := c.GenerateDataKeyWithoutPlaintext(ctx, &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: &key, KeySpec: types.DataKeySpecAes256, DryRun: dry})
		return err
	},
	"GenerateDataKeyPair": func(ctx context.Context, c *kms.Client, key string, _ []byte, dry *bool) error {
		_, err := c.GenerateDataKeyPair(ctx, &kms.GenerateDataKeyPairInput{KeyId: &key, KeyPairSpec: types.DataKeyPairSpecEccNistP256, DryRun: dry})
		return err
	},
	"GenerateDataKeyPairWithoutPlaintext": func(ctx context.Context, c *kms.Client, key string, _ []byte, dry *bool) error {
		_, err := c.GenerateDataKeyPairWithoutPlaintext(ctx, &kms.GenerateDataKeyPairWithoutPlaintextInput{KeyId: &key, KeyPairSpec: types.DataKeyPairSpecEccNistP256, DryRun: dry})
		return err
	},
}

// TestDryRun: a dry run of what would succeed is refused with DryRunOperationException, and of what would not with the same words as
// without it.
func TestDryRun(t *testing.T) {
	s, c := shared(t)
	for operation, call := range dryRuns {
		t.Run(operation, func(t *testing.T) {
			ctx := within(t)
			key := newKey(t, c)
			blob, _, err := producers["Encrypt"](ctx, c, *key.KeyId, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{*key.KeyId, *key.Arn} {
				refused(t, "a dry run", call(ctx, c, name, blob, aws.Bool(true)), "DryRunOperationException", textDryRun)
			}
			for _, dry := range []*bool{nil, aws.Bool(false)} {
				if err := call(ctx, c, *key.KeyId, blob, dry); err != nil {
					t.Errorf("not dry: %v", err)
				}
			}
			missing := "00000000-0000-4000-8000-000000000000"
			absent := fmt.Sprintf("Key '%s' does not exist", s.arn("key/"+missing))
			refused(t, "an unknown key", call(ctx, c, missing, blob, aws.Bool(true)), "NotFoundException", absent)
			if operation == "Decrypt" || operation == "ReEncrypt" {
				refused(t, "garbage", call(ctx, c, *key.KeyId, []byte("garbage"), aws.Bool(true)), "InvalidCiphertextException", "")
			}
			if _, err := c.DisableKey(ctx, &kms.DisableKeyInput{KeyId: key.KeyId}); err != nil {
				t.Fatal(err)
			}
			refused(t, "a disabled key", call(ctx, c, *key.KeyId, blob, aws.Bool(true)), "DisabledException", *key.Arn+" "+isDisabled)
			if _, err := c.ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: key.KeyId}); err != nil {
				t.Fatal(err)
			}
			refused(t, "a key pending deletion", call(ctx, c, *key.KeyId, blob, aws.Bool(true)), "KMSInvalidStateException", *key.Arn+" "+isPending)
		})
	}
}

// TestIgnoreCiphertext: a dry run of Decrypt and ReEncrypt may do without the ciphertext, and must then name the key.
func TestIgnoreCiphertext(t *testing.T) {
	_, c := shared(t)
	ctx := within(t)
	key := newKey(t, c)
	ignore := []types.DryRunModifierType{types.DryRunModifierTypeIgnoreCiphertext}
	_, err := c.Decrypt(ctx, &kms.DecryptInput{KeyId: key.KeyId, DryRun: aws.Bool(true), DryRunModifiers: ignore})
	refused(t, "Decrypt", err, "DryRunOperationException", textDryRun)
	_, err = c.Decrypt(ctx, &kms.DecryptInput{DryRun: aws.Bool(true), DryRunModifiers: ignore})
	if refusalOf(err).code != "ValidationException" {
		t.Errorf("Decrypt with neither key nor ciphertext: %v", err)
	}
	_, err = c.Decrypt(ctx, &kms.DecryptInput{KeyId: key.KeyId, DryRunModifiers: ignore})
	if refusalOf(err).code != "ValidationException" {
		t.Errorf("Decrypt with a modifier and no dry run: %v", err)
	}
	_, err = c.Decrypt(ctx, &kms.DecryptInput{KeyId: aws.String("none"), DryRun: aws.Bool(true), DryRunModifiers: ignore})
	refused(t, "Decrypt with an unknown key", err, "NotFoundException", "Invalid keyId 'none'")
	reEncrypt := &kms.ReEncryptInput{SourceKeyId: key.KeyId, DestinationKeyId: key.KeyId, DryRun: aws.Bool(true), DryRunModifiers: ignore, CiphertextBlob: []byte("ignored")}
	_, err = c.ReEncrypt(ctx, reEncrypt)
	refused(t, "ReEncrypt", err, "DryRunOperationException", textDryRun)
	reEncrypt.DestinationKeyId = aws.String("none")
	_, err = c.ReEncrypt(ctx, reEncrypt)
	refused(t, "ReEncrypt to an unknown key", err, "NotFoundException", "Invalid keyId 'none'")
}
