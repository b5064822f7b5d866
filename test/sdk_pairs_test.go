package test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// pairSpecs are the nine data key pair specs, with what OpenSSL calls each key and how large its two halves are in DER (the private RSA keys vary by
// a few bytes).
var pairSpecs = []struct {
	spec        types.DataKeyPairSpec
	says        string
	public      int
	privateFrom int
	privateTo   int
}{
	{types.DataKeyPairSpecRsa2048, "2048 bit", 294, 1212, 1222},
	{types.DataKeyPairSpecRsa3072, "3072 bit", 422, 1788, 1798},
	{types.DataKeyPairSpecRsa4096, "4096 bit", 550, 2368, 2380},
	{types.DataKeyPairSpecEccNistP256, "prime256v1", 91, 138, 138},
	{types.DataKeyPairSpecEccNistP384, "secp384r1", 120, 185, 185},
	{types.DataKeyPairSpecEccNistP521, "secp521r1", 158, 241, 241},
	{types.DataKeyPairSpecEccSecgP256k1, "secp256k1", 88, 135, 135},
	{types.DataKeyPairSpecSm2, "SM2", 91, 138, 138},
	{types.DataKeyPairSpecEccNistEdwards25519, "ED25519", 44, 48, 48},
}

// TestPairSpecsOfTheSDK: what the SDK knows and the table does not is refused as a value that is none of the nine.
func TestPairSpecsOfTheSDK(t *testing.T) {
	_, c := shared(t)
	key := newKey(t, c)
	known := make(map[types.DataKeyPairSpec]bool)
	for _, p := range pairSpecs {
		known[p.spec] = true
	}
	for _, spec := range append(types.DataKeyPairSpec("").Values(), "RSA_20", "rsa_2048") {
		if known[spec] {
			delete(known, spec)
			continue
		}
		_, err := c.GenerateDataKeyPair(within(t), &kms.GenerateDataKeyPairInput{KeyId: key.KeyId, KeyPairSpec: spec})
		before, set, _ := strings.Cut(refusalOf(err).message, ": [")
		want := "1 validation error detected: Value '" + string(spec) + "' at 'keyPairSpec' failed to satisfy constraint: Member must satisfy enum value set"
		names := strings.Split(strings.TrimSuffix(set, "]"), ", ")
		if refusalOf(err).code != "ValidationException" || before != want || len(names) != len(pairSpecs) {
			t.Errorf("%q: %v", spec, err)
		}
		for _, p := range pairSpecs { // the order is not promised
			if !slices.Contains(names, string(p.spec)) {
				t.Errorf("%q: %s is not among the right ones: %s", spec, p.spec, set)
			}
		}
	}
	if len(known) > 0 {
		t.Errorf("the SDK does not know %v", known)
	}
}

// TestGenerateDataKeyPair: of each spec, both operations make a pair that OpenSSL reads, finds sound, and agrees belongs together; and
// Decrypt gives back the very private key.
func TestGenerateDataKeyPair(t *testing.T) {
	_, c := shared(t)
	key, alias := newAlias(t, c)
	bound := map[string]string{"purpose": "signing", "部署": "x"}
	for _, p := range pairSpecs {
		t.Run(string(p.spec), func(t *testing.T) {
			t.Parallel()
			pair, err := c.GenerateDataKeyPair(within(t), &kms.GenerateDataKeyPairInput{KeyId: &alias, KeyPairSpec: p.spec, EncryptionContext: bound})
			if err != nil {
				t.Fatal(err)
			}
			if aws.ToString(pair.KeyId) != *key.Arn || pair.KeyPairSpec != p.spec || !isHex64(aws.ToString(pair.KeyMaterialId)) || pair.CiphertextForRecipient != nil {
				t.Errorf("the answer says %s, %s, %s", aws.ToString(pair.KeyId), pair.KeyPairSpec, aws.ToString(pair.KeyMaterialId))
			}
			if n := len(pair.PublicKey); n != p.public {
				t.Errorf("public key of %d bytes, want %d", n, p.public)
			}
			if n := len(pair.PrivateKeyPlaintext); n < p.privateFrom || n > p.privateTo {
				t.Errorf("private key of %d bytes, want %d to %d", n, p.privateFrom, p.privateTo)
			}
			if bytes.Contains(pair.PrivateKeyCiphertextBlob, pair.PrivateKeyPlaintext[16:48]) {
				t.Error("the ciphertext shows the private key")
			}
			opened, err := decrypt(within(t), c, pair.PrivateKeyCiphertextBlob, bound)
			if err != nil || !bytes.Equal(opened, pair.PrivateKeyPlaintext) {
				t.Errorf("Decrypt gives %d bytes that are not the private key, %v", len(opened), err)
			}
			_, err = decrypt(within(t), c, pair.PrivateKeyCiphertextBlob, map[string]string{"purpose": "signing"})
			refused(t, "half of the context", err, "InvalidCiphertextException", "")
			checkPair(t, pair.PrivateKeyPlaintext, pair.PublicKey, p.says)

			later, err := c.GenerateDataKeyPairWithoutPlaintext(within(t), &kms.GenerateDataKeyPairWithoutPlaintextInput{
				KeyId: key.KeyId, KeyPairSpec: p.spec, EncryptionContext: bound})
			if err != nil {
				t.Fatal(err)
			}
			if aws.ToString(later.KeyId) != *key.Arn || later.KeyPairSpec != p.spec || aws.ToString(later.KeyMaterialId) != aws.ToString(pair.KeyMaterialId) {
				t.Errorf("the answer says %s, %s, %s", aws.ToString(later.KeyId), later.KeyPairSpec, aws.ToString(later.KeyMaterialId))
			}
			if bytes.Equal(later.PublicKey, pair.PublicKey) {
				t.Error("the same pair twice")
			}
			if opened, err = decrypt(within(t), c, later.PrivateKeyCiphertextBlob, bound); err != nil {
				t.Fatal(err)
			}
			checkPair(t, opened, later.PublicKey, p.says)
		})
	}
}

// checkPair has OpenSSL read and check a private key in PKCS #8, and derive its public key.
func checkPair(t *testing.T, private, public []byte, says string) {
	t.Helper()
	dir := t.TempDir()
	file, derived := filepath.Join(dir, "private.der"), filepath.Join(dir, "public.der")
	if err := os.WriteFile(file, private, 0o600); err != nil {
		t.Fatal(err)
	}
	openssl := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("openssl", args...).CombinedOutput()
		if err != nil {
			t.Errorf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	text := openssl("pkey", "-inform", "DER", "-in", file, "-check", "-noout", "-text")
	if !strings.Contains(text, "Key is valid") || !strings.Contains(text, says) {
		t.Errorf("openssl pkey -check does not say that the key is valid and %q:\n%s", says, text)
	}
	openssl("pkey", "-inform", "DER", "-in", file, "-pubout", "-outform", "DER", "-out", derived)
	if got, err := os.ReadFile(derived); err != nil || !bytes.Equal(got, public) {
		t.Errorf("the public key that OpenSSL derives is not the one of the answer: %x, %v, want %x", got, err, public)
	}
	openssl("pkey", "-inform", "DER", "-pubin", "-in", derived, "-pubcheck", "-noout")
}

// TestGenerateDataKeySizes: AES-128 and AES-256 keys, or 1 to 1024 bytes, and exactly one of the two ways to say so.
func TestGenerateDataKeySizes(t *testing.T) {
	_, c := shared(t)
	ctx := within(t)
	key := newKey(t, c)
	seen := make(map[string]bool)
	for _, test := range []struct {
		spec   types.DataKeySpec
		number *int32
		size   int
	}{
		{types.DataKeySpecAes256, nil, 32},
		{types.DataKeySpecAes128, nil, 16},
		{"", aws.Int32(1), 1},
		{"", aws.Int32(64), 64},
		{"", aws.Int32(1024), 1024},
	} {
		out, err := c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: key.KeyId, KeySpec: test.spec, NumberOfBytes: test.number})
		if err != nil {
			t.Fatal(err)
		}
		got, err := decrypt(ctx, c, out.CiphertextBlob, nil)
		if len(out.Plaintext) != test.size || !bytes.Equal(got, out.Plaintext) || *out.KeyId != *key.Arn || seen[string(out.Plaintext)] && test.size > 1 {
			t.Errorf("%+v: %d bytes, decrypted %d, %v", test, len(out.Plaintext), len(got), err)
		}
		seen[string(out.Plaintext)] = true

		without, err := c.GenerateDataKeyWithoutPlaintext(ctx, &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: key.KeyId, KeySpec: test.spec, NumberOfBytes: test.number})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decrypt(ctx, c, without.CiphertextBlob, nil); len(got) != test.size || *without.KeyId != *key.Arn {
			t.Errorf("%+v without plaintext: %d bytes, %v", test, len(got), err)
		}
	}
	const either = "Please specify either number of bytes or key spec."
	_, err := c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: key.KeyId})
	refused(t, "neither", err, "ValidationException", either)
	_, err = c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: key.KeyId, KeySpec: types.DataKeySpecAes256, NumberOfBytes: aws.Int32(32)})
	refused(t, "both", err, "ValidationException", either)
	_, err = c.GenerateDataKeyWithoutPlaintext(ctx, &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: key.KeyId})
	refused(t, "neither, without plaintext", err, "ValidationException", either)
	_, err = c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: aws.String("none")})
	refused(t, "neither, of an unknown key", err, "NotFoundException", "Invalid keyId 'none'")
}

func TestGenerateRandom(t *testing.T) {
	_, c := shared(t)
	ctx := within(t)
	seen := make(map[string]bool)
	for _, n := range []int32{1, 16, 17, 32, 1023, 1024, 1024} {
		out, err := c.GenerateRandom(ctx, &kms.GenerateRandomInput{NumberOfBytes: &n})
		if err != nil || len(out.Plaintext) != int(n) {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if seen[string(out.Plaintext)] || n > 16 && bytes.Count(out.Plaintext, []byte{0}) > int(n)/4 {
			t.Errorf("not random: %x", out.Plaintext)
		}
		seen[string(out.Plaintext)] = true
	}
	_, err := c.GenerateRandom(ctx, &kms.GenerateRandomInput{})
	refused(t, "no number", err, "ValidationException", "NumberOfBytes is required.")
	_, err = c.GenerateRandom(ctx, &kms.GenerateRandomInput{NumberOfBytes: aws.Int32(32), CustomKeyStoreId: aws.String("cks-1")})
	if refusalOf(err).code != "UnsupportedOperationException" {
		t.Errorf("of a custom key store: %v", err)
	}
}
