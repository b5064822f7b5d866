package kms_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"strongroom/hsm"
	"strongroom/hsm/hsmtest"
	"strongroom/keyspec"
	"strongroom/kms"
)

// Every operation that makes a ciphertext, against Decrypt: under its own encryption context it gives the plaintext back, under any
// other it does not.
func TestProducersAgainstDecrypt(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	key, second := r.newKey(), r.newKey()
	context := map[string]string{"tenant": "alice", "": "empty name", "ключ": "значение"}

	size := int32(24)
	type product struct{ plaintext, blob []byte }
	products := map[string]product{}
	enc, err := r.Encrypt(ctx, root, &kms.EncryptRequest{KeyID: key.KeyID, Plaintext: []byte("x"), EncryptionContext: context})
	must(t, err)
	products["Encrypt"] = product{[]byte("x"), enc.CiphertextBlob}
	dk, err := r.GenerateDataKey(ctx, root, &kms.GenerateDataKeyRequest{KeyID: key.Arn, KeySpec: "AES_128", EncryptionContext: context})
	must(t, err)
	if len(dk.Plaintext) != 16 || dk.KeyID != key.Arn || len(dk.KeyMaterialID) != 64 {
		t.Errorf("data key: %d bytes, key %s, material %s", len(dk.Plaintext), dk.KeyID, dk.KeyMaterialID)
	}
	products["GenerateDataKey"] = product{dk.Plaintext, dk.CiphertextBlob}
	dkw, err := r.GenerateDataKeyWithoutPlaintext(ctx, root, &kms.GenerateDataKeyWithoutPlaintextRequest{KeyID: key.KeyID, NumberOfBytes: &size, EncryptionContext: context})
	must(t, err)
	products["GenerateDataKeyWithoutPlaintext"] = product{nil, dkw.CiphertextBlob}
	pair, err := r.GenerateDataKeyPair(ctx, root, &kms.GenerateDataKeyPairRequest{KeyID: key.KeyID, KeyPairSpec: keyspec.P256, EncryptionContext: context})
	must(t, err)
	products["GenerateDataKeyPair"] = product{pair.PrivateKeyPlaintext, pair.PrivateKeyCiphertextBlob}
	must(t, keyspec.Prove(keyspec.P256, pair.PublicKey, pair.PrivateKeyPlaintext))
	pairw, err := r.GenerateDataKeyPairWithoutPlaintext(ctx, root, &kms.GenerateDataKeyPairWithoutPlaintextRequest{KeyID: key.KeyID, KeyPairSpec: keyspec.Ed25519, EncryptionContext: context})
	must(t, err)
	products["GenerateDataKeyPairWithoutPlaintext"] = product{nil, pairw.PrivateKeyCiphertextBlob}
	re, err := r.ReEncrypt(ctx, root, &kms.ReEncryptRequest{CiphertextBlob: r.encrypt(second.KeyID, "y", nil), DestinationKeyID: key.KeyID, DestinationEncryptionContext: context})
	must(t, err)
	if re.KeyID != key.Arn || re.SourceKeyID != second.Arn || re.SourceKeyMaterialID == re.DestinationKeyMaterialID {
		t.Errorf("ReEncrypt from %s (%s) to %s (%s)", re.SourceKeyID, re.SourceKeyMaterialID, re.KeyID, re.DestinationKeyMaterialID)
	}
	products["ReEncrypt"] = product{[]byte("y"), re.CiphertextBlob}

	for name, p := range products {
		for _, keyID := range []string{"", key.KeyID, key.Arn} {
			got, err := r.Decrypt(ctx, root, &kms.DecryptRequest{CiphertextBlob: p.blob, EncryptionContext: context, KeyID: keyID})
			if err != nil || p.plaintext != nil && !bytes.Equal(got.Plaintext, p.plaintext) || got.KeyID != key.Arn || got.KeyMaterialID != dk.KeyMaterialID {
				t.Errorf("%s: Decrypt with KeyId %q: %v, %v", name, keyID, got, err)
			}
		}
		for _, wrong := range []map[string]string{
			nil,
			{"tenant": "alice"},
			{"tenant": "alice", "": "empty name", "ключ": "значение", "more": ""},
			{"Tenant": "alice", "": "empty name", "ключ": "значение"},
			{"tenant": "Alice", "": "empty name", "ключ": "значение"},
		} {
			_, err := r.Decrypt(ctx, root, &kms.DecryptRequest{CiphertextBlob: p.blob, EncryptionContext: wrong})
			if err == nil {
				t.Errorf("%s: opens under %q", name, wrong)
				continue
			}
			refusal(t, err, kms.InvalidCiphertext, "")
		}
		_, err := r.Decrypt(ctx, root, &kms.DecryptRequest{CiphertextBlob: p.blob, EncryptionContext: context, KeyID: second.KeyID})
		refusal(t, err, kms.IncorrectKey, "The key ID in the request does not identify a CMK that can perform this operation.")
	}
}

func TestTamperedCiphertexts(t *testing.T) {
	r := newRig(t, nil)
	key, second := r.newKey(), r.newKey()
	blob := r.encrypt(key.KeyID, "secret", nil)
	other := r.encrypt(second.KeyID, "secret", nil)
	decrypt := func(b []byte, keyID string) error {
		_, err := r.Decrypt(t.Context(), root, &kms.DecryptRequest{CiphertextBlob: b, KeyID: keyID})
		return err
	}
	for _, keyID := range []string{"", key.KeyID} {
		must(t, decrypt(blob, keyID))
		for i := range blob {
			b := bytes.Clone(blob)
			b[i] ^= 0x80
			if err := decrypt(b, keyID); err == nil {
				t.Errorf("byte %d flipped: opens", i)
			} else {
				refusal(t, err, kms.InvalidCiphertext, "")
			}
		}
	}
	// The header of one key before the body of another, and half of each header.
	refusal(t, decrypt(append(bytes.Clone(other[:35]), blob[35:]...), ""), kms.InvalidCiphertext, "")
	refusal(t, decrypt(append(bytes.Clone(other[:19]), blob[19:]...), ""), kms.InvalidCiphertext, "")
	refusal(t, decrypt(append(bytes.Clone(other[:19]), blob[19:]...), key.KeyID), kms.InvalidCiphertext, "")
	// A whole header of a key that was never here.
	foreign := bytes.Clone(blob)
	for i := 3; i < 35; i++ {
		foreign[i] ^= 0xff
	}
	refusal(t, decrypt(foreign, ""), kms.AccessDenied, "User: "+root.Principal+" is not authorized to perform: kms:Decrypt on the resource associated with this ciphertext "+
		"because the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access")
}

func TestRefusedRequests(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	key := r.newKey()
	blob := r.encrypt(key.KeyID, "secret", nil)
	stranger := kms.Caller{Account: "444455556666", Principal: "arn:aws:iam::444455556666:root"}
	unknown := "1234abcd-12ab-34cd-56ef-1234567890ab"
	recipient := &kms.Recipient{KeyEncryptionAlgorithm: "RSAES_OAEP_SHA_256", AttestationDocument: []byte("x")}
	denied := func(who kms.Caller, action string) string {
		return "User: " + who.Principal + " is not authorized to perform: " + action + " on this resource because the resource does not exist in this Region, " +
			"no resource-based policies allow access, or a resource-based policy explicitly denies access"
	}
	encrypt := func(who kms.Caller, keyID string) error {
		_, err := r.Encrypt(ctx, who, &kms.EncryptRequest{KeyID: keyID, Plaintext: []byte("x")})
		return err
	}
	describe := func(who kms.Caller, keyID string) error {
		_, err := r.DescribeKey(ctx, who, &kms.DescribeKeyRequest{KeyID: keyID})
		return err
	}
	enable := func(keyID string) error {
		_, err := r.EnableKey(ctx, root, &kms.EnableKeyRequest{KeyID: keyID})
		return err
	}

	cases := []struct {
		name   string
		err    error
		code   kms.Code
		detail string
	}{
		{"no such key", encrypt(root, unknown), kms.NotFound, "Key '" + arnBase + "key/" + unknown + "' does not exist"},
		{"no such key, ARN", encrypt(root, arnBase+"key/"+unknown), kms.NotFound, "Key '" + arnBase + "key/" + unknown + "' does not exist"},
		{"no such mrk", encrypt(root, "mrk-1234abcd12ab34cd56ef1234567890ab"), kms.NotFound, "Key '" + arnBase + "key/mrk-1234abcd12ab34cd56ef1234567890ab' does not exist"},
		{"not an id", encrypt(root, "fake-key-id"), kms.NotFound, "Invalid keyId 'fake-key-id'"},
		{"not an id, mrk", encrypt(root, "mrk-fake-key-id"), kms.NotFound, "Invalid keyId 'mrk-fake-key-id'"},
		{"not an id, ARN", encrypt(root, arnBase+"key/fake"), kms.NotFound, "Invalid keyId fake"},
		{"another Region", encrypt(root, strings.Replace(key.Arn, "local-1", "eu-west-1", 1)), kms.NotFound, "Invalid arn eu-west-1"},
		{"not an ARN", encrypt(root, "arn:aws:kms:x"), kms.NotFound, "Invalid arn"},
		{"not an ARN, DescribeKey", describe(root, "arn:aws:kms:x"), kms.InvalidArn, "Invalid arn"},
		{"no such alias", encrypt(root, "alias/none"), kms.NotFound, "Alias " + arnBase + "alias/none is not found."},
		{"alias where none is taken", enable("alias/none"), kms.NotFound, "Invalid keyId 'alias/none'"},
		{"foreign key", encrypt(stranger, key.Arn), kms.AccessDenied, denied(stranger, "kms:Encrypt")},
		{"foreign key that is not there", encrypt(stranger, arnBase+"key/"+unknown), kms.AccessDenied, denied(stranger, "kms:Encrypt")},
		{"foreign key, with a grant token", second(r.Encrypt(ctx, stranger, &kms.EncryptRequest{KeyID: key.Arn, Plaintext: []byte("x"), GrantTokens: []string{"x"}})),
			kms.InvalidGrantToken, ""},
		{"foreign key that is not there, with a grant token", second(r.Encrypt(ctx, stranger, &kms.EncryptRequest{KeyID: arnBase + "key/" + unknown, Plaintext: []byte("x"),
			GrantTokens: []string{"x"}})), kms.InvalidGrantToken, ""},
		{"foreign alias that is not there", encrypt(stranger, arnBase+"alias/none"), kms.AccessDenied, denied(stranger, "kms:Encrypt")},
		{"foreign key by its bare id", encrypt(stranger, key.KeyID), kms.NotFound, "Key 'arn:aws:kms:local-1:444455556666:key/" + key.KeyID + "' does not exist"},
		{"foreign ciphertext", second(r.Decrypt(ctx, stranger, &kms.DecryptRequest{CiphertextBlob: blob})), kms.AccessDenied,
			strings.Replace(denied(stranger, "kms:Decrypt"), "this resource", "the resource associated with this ciphertext", 1)},
		{"not a root", encrypt(kms.Caller{Account: account, Principal: "arn:aws:iam::111122223333:user/eve"}, key.KeyID), kms.AccessDenied,
			"User: arn:aws:iam::111122223333:user/eve is not authorized to perform this operation"},
		{"grant token", second(r.Encrypt(ctx, root, &kms.EncryptRequest{KeyID: key.KeyID, Plaintext: []byte("x"), GrantTokens: []string{"x"}})), kms.InvalidGrantToken, ""},
		{"algorithm", second(r.Encrypt(ctx, root, &kms.EncryptRequest{KeyID: key.KeyID, Plaintext: []byte("x"), EncryptionAlgorithm: "RSAES_OAEP_SHA_256"})),
			kms.InvalidKeyUsage, "Algorithm RSAES_OAEP_SHA_256 is incompatible with key spec SYMMETRIC_DEFAULT."},
		{"no size", second(r.GenerateDataKey(ctx, root, &kms.GenerateDataKeyRequest{KeyID: key.KeyID})), kms.Validation, "Please specify either number of bytes or key spec."},
		{"no size, no key", second(r.GenerateDataKey(ctx, root, &kms.GenerateDataKeyRequest{KeyID: unknown})), kms.NotFound, "Key '" + arnBase + "key/" + unknown + "' does not exist"},
		{"no random size", second(r.GenerateRandom(ctx, root, &kms.GenerateRandomRequest{})), kms.Validation, "NumberOfBytes is required."},
		{"no ciphertext", second(r.Decrypt(ctx, root, &kms.DecryptRequest{})), kms.Validation,
			"1 validation error detected: Value null at 'ciphertextBlob' failed to satisfy constraint: Member must not be null"},
		{"asymmetric Decrypt without a key", second(r.Decrypt(ctx, root, &kms.DecryptRequest{CiphertextBlob: blob, EncryptionAlgorithm: "RSAES_OAEP_SHA_1"})),
			kms.Validation, "KeyId must not be null"},
		{"modifier without DryRun", second(r.Decrypt(ctx, root, &kms.DecryptRequest{KeyID: key.KeyID, DryRunModifiers: []string{"IGNORE_CIPHERTEXT"}})),
			kms.Validation, "DryRunModifiers can only be specified when DryRun is true."},
		{"garbage though the key is unknown", second(r.Decrypt(ctx, root, &kms.DecryptRequest{CiphertextBlob: []byte("garbage"), KeyID: unknown})), kms.InvalidCiphertext, ""},
		{"recipient, Decrypt", second(r.Decrypt(ctx, root, &kms.DecryptRequest{CiphertextBlob: blob, Recipient: recipient})), kms.Validation, "KMS cannot parse the attestation document."},
		{"recipient, data key", second(r.GenerateDataKey(ctx, root, &kms.GenerateDataKeyRequest{KeyID: key.KeyID, KeySpec: "AES_256", Recipient: recipient})), kms.Validation, "KMS cannot parse the attestation document."},
		{"recipient, pair", second(r.GenerateDataKeyPair(ctx, root, &kms.GenerateDataKeyPairRequest{KeyID: key.KeyID, KeyPairSpec: keyspec.P256, Recipient: recipient})), kms.Validation, "KMS cannot parse the attestation document."},
		{"recipient, random", second(r.GenerateRandom(ctx, root, &kms.GenerateRandomRequest{NumberOfBytes: new(int32), Recipient: recipient})), kms.Validation, "KMS cannot parse the attestation document."},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { refusal(t, c.err, c.code, c.detail) })
	}
}

// second returns the error of an operation.
func second[T any](_ *T, err error) error { return err }

// A dry run goes through every check, ends in its own exception, and leaves the device alone.
func TestDryRun(t *testing.T) {
	quiet := true
	touched := 0
	r := newRig(t, hsmtest.Faulty(token, func(op string) error {
		if quiet && op != "Generate" {
			touched++
		}
		return nil
	}))
	ctx := t.Context()
	key := r.newKey()
	quiet = false
	blob := r.encrypt(key.KeyID, "secret", nil)
	quiet = true
	touched = 0
	dryRuns := map[string]func(keyID string) error{
		"Encrypt": func(k string) error {
			return second(r.Encrypt(ctx, root, &kms.EncryptRequest{KeyID: k, Plaintext: []byte("x"), DryRun: true}))
		},
		"Decrypt": func(k string) error {
			return second(r.Decrypt(ctx, root, &kms.DecryptRequest{KeyID: k, CiphertextBlob: blob, DryRun: true}))
		},
		"Decrypt, ignoring the ciphertext": func(k string) error {
			return second(r.Decrypt(ctx, root, &kms.DecryptRequest{KeyID: k, DryRun: true, DryRunModifiers: []string{"IGNORE_CIPHERTEXT"}}))
		},
		"ReEncrypt": func(k string) error {
			return second(r.ReEncrypt(ctx, root, &kms.ReEncryptRequest{CiphertextBlob: blob, DestinationKeyID: k, DryRun: true}))
		},
		"ReEncrypt, ignoring the ciphertext": func(k string) error {
			return second(r.ReEncrypt(ctx, root, &kms.ReEncryptRequest{SourceKeyID: k, DestinationKeyID: k, DryRun: true, DryRunModifiers: []string{"IGNORE_CIPHERTEXT"}}))
		},
		"GenerateDataKey": func(k string) error {
			return second(r.GenerateDataKey(ctx, root, &kms.GenerateDataKeyRequest{KeyID: k, KeySpec: "AES_256", DryRun: true}))
		},
		"GenerateDataKeyWithoutPlaintext": func(k string) error {
			return second(r.GenerateDataKeyWithoutPlaintext(ctx, root, &kms.GenerateDataKeyWithoutPlaintextRequest{KeyID: k, KeySpec: "AES_256", DryRun: true}))
		},
		"GenerateDataKeyPair": func(k string) error {
			return second(r.GenerateDataKeyPair(ctx, root, &kms.GenerateDataKeyPairRequest{KeyID: k, KeyPairSpec: keyspec.P256, DryRun: true}))
		},
		"GenerateDataKeyPairWithoutPlaintext": func(k string) error {
			return second(r.GenerateDataKeyPairWithoutPlaintext(ctx, root, &kms.GenerateDataKeyPairWithoutPlaintextRequest{KeyID: k, KeyPairSpec: keyspec.P256, DryRun: true}))
		},
	}
	for name, f := range dryRuns {
		t.Run(name, func(t *testing.T) {
			refusal(t, f(key.KeyID), kms.DryRunSucceeded, "The request would have succeeded, but the DryRun option is set.")
			if err := f("alias/none"); err == nil {
				t.Error("a dry run with a missing key succeeded")
			} else {
				refusal(t, err, kms.NotFound, "Alias "+arnBase+"alias/none is not found.")
			}
		})
	}
	_, err := r.DisableKey(ctx, root, &kms.DisableKeyRequest{KeyID: key.KeyID})
	must(t, err)
	for _, f := range dryRuns {
		refusal(t, f(key.KeyID), kms.Disabled, key.Arn+" is disabled.")
	}
	if touched != 0 {
		t.Errorf("the device was used %d times", touched)
	}
}

func TestSM2CanBeOff(t *testing.T) {
	r := newRig(t, nil)
	key := r.newKey()
	off, err := kms.New(t.Context(), kms.Options{Device: token, Store: r.store, Audit: r.audit, Log: discard, SM2Off: true})
	must(t, err)
	req := &kms.GenerateDataKeyPairRequest{KeyID: key.KeyID, KeyPairSpec: keyspec.SM2}
	_, err = off.GenerateDataKeyPair(t.Context(), root, req)
	refusal(t, err, kms.Unsupported, "KeySpec SM2 is not supported in this Region")
	_, err = r.GenerateDataKeyPair(t.Context(), root, req)
	must(t, err)
}

func TestDeviceFaults(t *testing.T) {
	var fault error
	r := newRig(t, hsmtest.Faulty(token, func(string) error { return fault }))
	key := r.newKey()
	blob := r.encrypt(key.KeyID, "secret", nil)
	decrypt := func() error {
		return second(r.Decrypt(t.Context(), root, &kms.DecryptRequest{CiphertextBlob: blob}))
	}
	fault = fmt.Errorf("C_Decrypt: %w", hsm.ErrUnavailable)
	refusal(t, decrypt(), kms.KeyUnavailable, "")
	if r.Ready(t.Context()) == nil {
		t.Error("ready though the device is away")
	}
	fault = fmt.Errorf("C_Decrypt: %w", hsm.ErrNoKey)
	refusal(t, decrypt(), kms.KeyUnavailable, "")
	fault = fmt.Errorf("C_Decrypt: %w", hsm.ErrRejected)
	refusal(t, decrypt(), kms.InvalidCiphertext, "")
	fault = nil
	must(t, decrypt())
	must(t, r.Ready(t.Context()))
}
