package test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
)

// TestDamagedCiphertexts: a ciphertext with any one bit changed, cut anywhere or lengthened is refused, always in the same words, which are none. So it is
// with KeyId and without, and in ReEncrypt.
func TestDamagedCiphertexts(t *testing.T) {
	t.Parallel()
	_, c := shared(t)
	key := newKey(t, c)
	bound := map[string]string{"a": "b"}
	out, err := c.Encrypt(within(t), &kms.EncryptInput{KeyId: key.KeyId, Plaintext: []byte("a secret of sixteen or more bytes"), EncryptionContext: bound})
	if err != nil {
		t.Fatal(err)
	}
	blob := out.CiphertextBlob
	open := func(blob []byte, keyID *string) error {
		_, err := c.Decrypt(within(t), &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: bound, KeyId: keyID})
		return err
	}
	if err := open(blob, nil); err != nil {
		t.Fatal(err)
	}
	check := func(what string, damaged []byte) {
		t.Helper()
		refused(t, what, open(damaged, nil), "InvalidCiphertextException", "")
		refused(t, what+", with KeyId", open(damaged, key.KeyId), "InvalidCiphertextException", "")
	}
	for i := range blob {
		for bit := range 8 {
			damaged := bytes.Clone(blob)
			damaged[i] ^= 1 << bit
			what := fmt.Sprintf("byte %d, bit %d", i, bit)
			refused(t, what, open(damaged, nil), "InvalidCiphertextException", "")
			if bit == i%8 {
				check(what, damaged)
				_, err := c.ReEncrypt(within(t), &kms.ReEncryptInput{CiphertextBlob: damaged, SourceEncryptionContext: bound, DestinationKeyId: key.KeyId})
				refused(t, what+", ReEncrypt", err, "InvalidCiphertextException", "")
			}
		}
		if i > 0 {
			check(fmt.Sprint("cut to ", i), blob[:i])
			check(fmt.Sprint("without the first ", i), blob[i:])
		}
	}
	for _, more := range [][]byte{{0}, {0xff}, blob[:1], blob[:16], blob, bytes.Repeat([]byte{0}, 4096), bytes.Repeat([]byte{1}, 6144-len(blob))} {
		check(fmt.Sprintf("%d bytes more", len(more)), append(bytes.Clone(blob), more...))
	}
	for _, before := range [][]byte{{0}, {0xff}, blob, bytes.Repeat([]byte{0}, 4096)} {
		check(fmt.Sprintf("%d bytes before", len(before)), append(bytes.Clone(before), blob...))
	}
	for _, garbage := range []string{"\x00", "x", base64.StdEncoding.EncodeToString(blob), strings.Repeat("\x00", 95), strings.Repeat("\xff", 6144)} {
		check(fmt.Sprintf("%.20q", garbage), []byte(garbage))
	}
	_, err = c.Decrypt(within(t), &kms.DecryptInput{KeyId: key.KeyId})
	refused(t, "no ciphertext", err, "ValidationException",
		"1 validation error detected: Value null at 'ciphertextBlob' failed to satisfy constraint: Member must not be null")
	_, err = c.Decrypt(within(t), &kms.DecryptInput{CiphertextBlob: make([]byte, 6145)})
	refused(t, "6145 bytes", err, "ValidationException",
		"1 validation error detected: Value at 'ciphertextBlob' failed to satisfy constraint: Member must have length less than or equal to 6144")
}

// TestIncorrectKey: a KeyId is a promise about the ciphertext, and one that does not hold is refused, by whichever name, whatever state that key
// is in.
func TestIncorrectKey(t *testing.T) {
	s, c := shared(t)
	ctx := within(t)
	key := newKey(t, c)
	other, alias := newAlias(t, c)
	for operation, produce := range producers {
		blob, _, err := produce(ctx, c, *key.KeyId, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{*other.KeyId, *other.Arn, alias, s.arn(alias)} {
			_, err = c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: blob, KeyId: &name})
			refused(t, operation+", then Decrypt with "+name, err, "IncorrectKeyException", textIncorrectKey)
			_, err = c.ReEncrypt(ctx, &kms.ReEncryptInput{CiphertextBlob: blob, SourceKeyId: &name, DestinationKeyId: key.KeyId})
			refused(t, operation+", then ReEncrypt with "+name, err, "IncorrectKeyException", textIncorrectKey)
		}
	}
	blob, _, err := producers["Encrypt"](ctx, c, *key.KeyId, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The wrong source is told before a destination that is wrong too.
	_, err = c.ReEncrypt(ctx, &kms.ReEncryptInput{CiphertextBlob: blob, SourceKeyId: other.KeyId, DestinationKeyId: aws.String("none")})
	refused(t, "source and destination wrong", err, "IncorrectKeyException", textIncorrectKey)
	_, err = c.ReEncrypt(ctx, &kms.ReEncryptInput{CiphertextBlob: blob, DestinationKeyId: aws.String("none")})
	refused(t, "destination wrong", err, "NotFoundException", "Invalid keyId 'none'")
	// And before the state of the key that was named.
	if _, err := c.DisableKey(ctx, &kms.DisableKeyInput{KeyId: other.KeyId}); err != nil {
		t.Fatal(err)
	}
	_, err = c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: blob, KeyId: other.KeyId})
	refused(t, "a disabled key that is another", err, "IncorrectKeyException", textIncorrectKey)
	// A ciphertext that is none is told first of all.
	_, err = c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: []byte("garbage"), KeyId: aws.String("none")})
	refused(t, "garbage and a wrong KeyId", err, "InvalidCiphertextException", "")
	_, err = c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: blob, KeyId: aws.String("none")})
	refused(t, "a KeyId that is none", err, "NotFoundException", "Invalid keyId 'none'")
}

// TestForeignCiphertext: a ciphertext of a key that was never here is refused in words that do not say so.
func TestForeignCiphertext(t *testing.T) {
	s, c := shared(t)
	elsewhere := start(t, t.TempDir()).client()
	blob, _, err := producers["GenerateDataKeyPair"](within(t), elsewhere, *newKey(t, elsewhere).KeyId, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = decrypt(within(t), c, blob, nil)
	refused(t, "Decrypt", err, "AccessDeniedException", textDeniedCiphertext(s, "kms:Decrypt"))
	_, err = c.ReEncrypt(within(t), &kms.ReEncryptInput{CiphertextBlob: blob, DestinationKeyId: newKey(t, c).KeyId})
	refused(t, "ReEncrypt", err, "AccessDeniedException", textDeniedCiphertext(s, "kms:ReEncryptFrom"))
	_, err = c.Decrypt(within(t), &kms.DecryptInput{CiphertextBlob: blob, KeyId: newKey(t, c).KeyId})
	refused(t, "Decrypt with KeyId", err, "IncorrectKeyException", textIncorrectKey)
}

func textDeniedCiphertext(s *server, action string) string {
	return "User: arn:aws:iam::" + s.account() + ":root is not authorized to perform: " + action + " on the resource associated with this ciphertext because " +
		"the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access"
}
