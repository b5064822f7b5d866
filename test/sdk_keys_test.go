package test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// TestCreateKey: what CreateKey says of a key is what DescribeKey says of it, by whichever name.
func TestCreateKey(t *testing.T) {
	s, c := shared(t)
	for _, test := range []struct {
		name  string
		input kms.CreateKeyInput
	}{
		{"nothing given", kms.CreateKeyInput{}},
		{"a description", kms.CreateKeyInput{Description: aws.String("for the payroll; schön — 日本 🔑 \"quoted\" \\ \n two lines")}},
		{"a long description", kms.CreateKeyInput{Description: aws.String(strings.Repeat("x", 8192))}},
		{"tags", kms.CreateKeyInput{Tags: []types.Tag{
			{TagKey: aws.String("Team"), TagValue: aws.String("a")}, {TagKey: aws.String("team"), TagValue: aws.String("")}}}},
		{"a policy", kms.CreateKeyInput{Policy: aws.String(policyOf(s)), BypassPolicyLockoutSafetyCheck: true}},
		{"the defaults said", kms.CreateKeyInput{KeySpec: types.KeySpecSymmetricDefault, KeyUsage: types.KeyUsageTypeEncryptDecrypt,
			Origin: types.OriginTypeAwsKms, MultiRegion: aws.Bool(false)}},
		//lint:ignore SA1019 what is deprecated is still used
		{"the old name of the spec", kms.CreateKeyInput{CustomerMasterKeySpec: types.CustomerMasterKeySpecSymmetricDefault}},
		{"multi-Region", kms.CreateKeyInput{MultiRegion: aws.Bool(true)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := time.Now().Add(-time.Second)
			out, err := c.CreateKey(within(t), &test.input)
			if err != nil {
				t.Fatal(err)
			}
			m := out.KeyMetadata
			id := aws.ToString(m.KeyId)
			switch multi := aws.ToBool(test.input.MultiRegion); {
			case aws.ToBool(m.MultiRegion) != multi:
				t.Errorf("MultiRegion %v", aws.ToBool(m.MultiRegion))
			case !multi && (!isUUID(id) || m.MultiRegionConfiguration != nil):
				t.Errorf("key id %s, configuration %v", id, m.MultiRegionConfiguration)
			case multi && (len(id) != 36 || !strings.HasPrefix(id, "mrk-")):
				t.Errorf("multi-Region key id %s", id)
			case multi:
				mr := m.MultiRegionConfiguration
				if mr == nil || mr.MultiRegionKeyType != types.MultiRegionKeyTypePrimary || len(mr.ReplicaKeys) != 0 ||
					aws.ToString(mr.PrimaryKey.Arn) != s.arn("key/"+id) || aws.ToString(mr.PrimaryKey.Region) != s.region() {
					t.Errorf("multi-Region configuration %+v", mr)
				}
			}
			if got, want := aws.ToString(m.Arn), s.arn("key/"+id); got != want {
				t.Errorf("ARN %s, want %s", got, want)
			}
			if got := aws.ToString(m.AWSAccountId); got != s.account() {
				t.Errorf("account %s", got)
			}
			if got := aws.ToString(m.Description); got != aws.ToString(test.input.Description) {
				t.Errorf("description %q", got)
			}
			if m.CreationDate == nil || m.CreationDate.Before(before) || m.CreationDate.After(time.Now()) {
				t.Errorf("created %v", m.CreationDate)
			}
			if !m.Enabled || m.KeyState != types.KeyStateEnabled || m.KeyManager != types.KeyManagerTypeCustomer || m.Origin != types.OriginTypeAwsKms ||
				m.KeySpec != types.KeySpecSymmetricDefault ||
				m.KeyUsage != types.KeyUsageTypeEncryptDecrypt || m.DeletionDate != nil ||
				!slices.Equal(m.EncryptionAlgorithms, []types.EncryptionAlgorithmSpec{types.EncryptionAlgorithmSpecSymmetricDefault}) ||
				m.SigningAlgorithms != nil || m.MacAlgorithms != nil || m.KeyAgreementAlgorithms != nil {
				t.Errorf("metadata %+v", show(m))
			}
			//lint:ignore SA1019 what is deprecated is still shown
			if old := m.CustomerMasterKeySpec; string(old) != string(m.KeySpec) {
				t.Errorf("CustomerMasterKeySpec %s, KeySpec %s", old, m.KeySpec)
			}
			if !isHex64(aws.ToString(m.CurrentKeyMaterialId)) {
				t.Errorf("CurrentKeyMaterialId %q", aws.ToString(m.CurrentKeyMaterialId))
			}

			alias := "alias/" + random()
			if _, err := c.CreateAlias(within(t), &kms.CreateAliasInput{AliasName: &alias, TargetKeyId: m.Arn}); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{id, s.arn("key/" + id), alias, s.arn(alias)} {
				got, err := c.DescribeKey(within(t), &kms.DescribeKeyInput{KeyId: &name})
				if err != nil {
					t.Errorf("DescribeKey %s: %v", name, err)
				} else if show(got.KeyMetadata) != show(m) {
					t.Errorf("DescribeKey %s:\n got %s\nwant %s", name, show(got.KeyMetadata), show(m))
				}
			}
		})
	}
}

// show writes metadata, pointers followed, for a comparison and for a message.
func show(m *types.KeyMetadata) string {
	b, _ := json.Marshal(m)
	return string(b)
}

func policyOf(s *server) string {
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::%s:root"},"Action":"kms:*","Resource":"*"}]}`, s.account())
}

func TestCreateKeyRefusals(t *testing.T) {
	_, c := shared(t)
	tag := func(key, value string) types.Tag { return types.Tag{TagKey: &key, TagValue: &value} }
	var tags51 []types.Tag
	for i := range 51 {
		tags51 = append(tags51, tag(fmt.Sprint("tag", i), ""))
	}
	for _, test := range []struct {
		name          string
		input         kms.CreateKeyInput
		code, message string
	}{
		{"no usage", kms.CreateKeyInput{KeySpec: types.KeySpecRsa2048}, "ValidationException",
			"You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys."},
		{"no usage, MAC", kms.CreateKeyInput{KeySpec: types.KeySpecHmac256}, "ValidationException",
			"You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys."},
		{"clash", kms.CreateKeyInput{KeySpec: types.KeySpecRsa2048, KeyUsage: types.KeyUsageTypeKeyAgreement}, "ValidationException",
			"KeyUsage KEY_AGREEMENT is not compatible with KeySpec RSA_2048"},
		{"clash, symmetric", kms.CreateKeyInput{KeyUsage: types.KeyUsageTypeSignVerify}, "ValidationException",
			"KeyUsage SIGN_VERIFY is not compatible with KeySpec SYMMETRIC_DEFAULT"},
		{"two tags of one name", kms.CreateKeyInput{Tags: []types.Tag{tag("a", "1"), tag("a", "2")}}, "TagException", "Duplicate tag keys"},
		{"51 tags", kms.CreateKeyInput{Tags: tags51}, "TagException", "Too many tags"},
		{"a reserved tag", kms.CreateKeyInput{Tags: []types.Tag{tag("AWS:x", "")}}, "TagException", "Tags beginning with aws: are reserved"},
		{"an empty tag name", kms.CreateKeyInput{Tags: []types.Tag{tag("a", ""), tag("", "")}}, "ValidationException",
			"1 validation error detected: Value '' at 'tags.2.member.tagKey' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		{"a long tag value", kms.CreateKeyInput{Tags: []types.Tag{tag("a", strings.Repeat("v", 257))}}, "ValidationException",
			"1 validation error detected: Value '" + strings.Repeat("v", 257) +
				"' at 'tags.1.member.tagValue' failed to satisfy constraint: Member must have length less than or equal to 256"},
		{"a policy that is none", kms.CreateKeyInput{Policy: aws.String("{")}, "MalformedPolicyDocumentException", "This policy contains invalid Json"},
	} {
		_, err := c.CreateKey(within(t), &test.input)
		refused(t, test.name, err, test.code, test.message)
	}
	for name, input := range map[string]kms.CreateKeyInput{
		"asymmetric":       {KeySpec: types.KeySpecRsa2048, KeyUsage: types.KeyUsageTypeSignVerify},
		"MAC":              {KeySpec: types.KeySpecHmac256, KeyUsage: types.KeyUsageTypeGenerateVerifyMac},
		"imported":         {Origin: types.OriginTypeExternal},
		"a CloudHSM":       {Origin: types.OriginTypeAwsCloudhsm, CustomKeyStoreId: aws.String("cks-1")},
		"an external HSM":  {Origin: types.OriginTypeExternalKeyStore, XksKeyId: aws.String("x")},
		"the SM2 key spec": {KeySpec: types.KeySpecSm2, KeyUsage: types.KeyUsageTypeSignVerify},
	} {
		if _, err := c.CreateKey(within(t), &input); refusalOf(err).code != "UnsupportedOperationException" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestListKeys: all pages together show every key, each once, whatever the size of a page. The server is one of its own, so that it is known what
// there is.
func TestListKeys(t *testing.T) {
	s := start(t, t.TempDir())
	c := s.client()
	want := make(map[string]string)
	for i := range 113 {
		out, err := c.CreateKey(within(t), &kms.CreateKeyInput{MultiRegion: aws.Bool(i%5 == 0)})
		if err != nil {
			t.Fatal(err)
		}
		want[*out.KeyMetadata.KeyId] = *out.KeyMetadata.Arn
	}
	// A key in any state is a key.
	ids := slices.Collect(maps.Keys(want))
	if _, err := c.DisableKey(within(t), &kms.DisableKeyInput{KeyId: &ids[0]}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ScheduleKeyDeletion(within(t), &kms.ScheduleKeyDeletionInput{KeyId: &ids[1]}); err != nil {
		t.Fatal(err)
	}

	for _, limit := range []int32{0, 1, 7, 100, 112, 113, 114, 1000} {
		input := &kms.ListKeysInput{}
		size := 100
		if limit != 0 {
			input.Limit = &limit
			size = int(limit)
		}
		got := make(map[string]string)
		pages := 0
		for p := kms.NewListKeysPaginator(c, input); p.HasMorePages(); pages++ {
			page, err := p.NextPage(within(t))
			if err != nil {
				t.Fatal(err)
			}
			if page.Truncated != (page.NextMarker != nil) || page.Truncated && len(page.Keys) != size {
				t.Errorf("limit %d: a page of %d keys, truncated %v, marker %v", limit, len(page.Keys), page.Truncated, page.NextMarker != nil)
			}
			for _, k := range page.Keys {
				if _, twice := got[*k.KeyId]; twice {
					t.Errorf("limit %d: %s twice", limit, *k.KeyId)
				}
				got[*k.KeyId] = *k.KeyArn
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("limit %d: %d keys listed, want %d", limit, len(got), len(want))
		}
		if n := (len(want) + size - 1) / size; pages != n {
			t.Errorf("limit %d: %d pages, want %d", limit, pages, n)
		}
	}

	for _, marker := range []string{"x", "AAAA", strings.Repeat("z", 1024), "' OR 1=1 --", "ÿ"} {
		_, err := c.ListKeys(within(t), &kms.ListKeysInput{Marker: &marker})
		if refusalOf(err).code != "InvalidMarkerException" {
			t.Errorf("marker %q: %v", marker, err)
		}
	}
	// A marker of one list is none of another.
	page, err := c.ListKeys(within(t), &kms.ListKeysInput{Limit: aws.Int32(1)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.ListAliases(within(t), &kms.ListAliasesInput{Marker: page.NextMarker})
	if refusalOf(err).code != "InvalidMarkerException" {
		t.Errorf("a marker of ListKeys in ListAliases: %v", err)
	}
}

func TestUpdateKeyDescription(t *testing.T) {
	_, c := shared(t)
	key := newKey(t, c)
	for _, text := range []string{"first", "", "ö\u0000\u2028", strings.Repeat("日", 8192)} {
		if _, err := c.UpdateKeyDescription(within(t), &kms.UpdateKeyDescriptionInput{KeyId: key.KeyId, Description: &text}); err != nil {
			t.Fatalf("%.20q: %v", text, err)
		}
		out, err := c.DescribeKey(within(t), &kms.DescribeKeyInput{KeyId: key.KeyId})
		if err != nil || aws.ToString(out.KeyMetadata.Description) != text {
			t.Errorf("%.20q became %.20q, %v", text, aws.ToString(out.KeyMetadata.Description), err)
		}
	}
	long := strings.Repeat("x", 8193)
	_, err := c.UpdateKeyDescription(within(t), &kms.UpdateKeyDescriptionInput{KeyId: key.KeyId, Description: &long})
	if r := refusalOf(err); r.code != "ValidationException" || !strings.HasSuffix(r.message, "at 'description' failed to satisfy constraint: Member must have length less than or equal to 8192") {
		t.Errorf("a description of 8193 characters: %v", err)
	}
}

// TestKeyMaterialID: every operation that names the material of a key names the same one, and a restart does not change it.
func TestKeyMaterialID(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	c := s.client()
	key, other := newKey(t, c), newKey(t, c)
	want := aws.ToString(key.CurrentKeyMaterialId)
	if want == aws.ToString(other.CurrentKeyMaterialId) {
		t.Errorf("two keys have the material %s", want)
	}
	ids := func(c *kms.Client) map[string]*string {
		ctx := within(t)
		got := make(map[string]*string)
		described, err := c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: key.KeyId})
		if err != nil {
			t.Fatal(err)
		}
		got["DescribeKey"] = described.KeyMetadata.CurrentKeyMaterialId
		dk, err := c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: key.KeyId, KeySpec: types.DataKeySpecAes256})
		if err != nil {
			t.Fatal(err)
		}
		got["GenerateDataKey"] = dk.KeyMaterialId
		dkw, err := c.GenerateDataKeyWithoutPlaintext(ctx, &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: key.KeyId, KeySpec: types.DataKeySpecAes256})
		if err != nil {
			t.Fatal(err)
		}
		got["GenerateDataKeyWithoutPlaintext"] = dkw.KeyMaterialId
		p, err := c.GenerateDataKeyPair(ctx, &kms.GenerateDataKeyPairInput{KeyId: key.KeyId, KeyPairSpec: types.DataKeyPairSpecEccNistP256})
		if err != nil {
			t.Fatal(err)
		}
		got["GenerateDataKeyPair"] = p.KeyMaterialId
		pw, err := c.GenerateDataKeyPairWithoutPlaintext(ctx, &kms.GenerateDataKeyPairWithoutPlaintextInput{KeyId: key.KeyId, KeyPairSpec: types.DataKeyPairSpecEccNistP256})
		if err != nil {
			t.Fatal(err)
		}
		got["GenerateDataKeyPairWithoutPlaintext"] = pw.KeyMaterialId
		d, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: dk.CiphertextBlob})
		if err != nil {
			t.Fatal(err)
		}
		got["Decrypt"] = d.KeyMaterialId
		to, err := c.ReEncrypt(ctx, &kms.ReEncryptInput{CiphertextBlob: dk.CiphertextBlob, DestinationKeyId: other.KeyId})
		if err != nil {
			t.Fatal(err)
		}
		got["ReEncrypt, source"] = to.SourceKeyMaterialId
		from, err := c.ReEncrypt(ctx, &kms.ReEncryptInput{CiphertextBlob: to.CiphertextBlob, DestinationKeyId: key.KeyId})
		if err != nil {
			t.Fatal(err)
		}
		got["ReEncrypt, destination"] = from.DestinationKeyMaterialId
		if aws.ToString(from.SourceKeyMaterialId) != aws.ToString(other.CurrentKeyMaterialId) {
			t.Errorf("ReEncrypt: source material %s", aws.ToString(from.SourceKeyMaterialId))
		}
		return got
	}
	for operation, got := range ids(c) {
		if aws.ToString(got) != want || !isHex64(want) {
			t.Errorf("%s: %q, want %q", operation, aws.ToString(got), want)
		}
	}
	s.stop(t)
	for operation, got := range ids(start(t, dir).client()) {
		if aws.ToString(got) != want {
			t.Errorf("%s after a restart: %q, want %q", operation, aws.ToString(got), want)
		}
	}
}
