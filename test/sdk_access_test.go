package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// admin runs a command of the administrator on a rig and returns what it prints.
func (s *server) admin(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.Command(program, append(args, kind.site(s.dir)...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("strongroom %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// somebody is a client of the AWS SDK with credentials of its own.
func (s *server) somebody(keys aws.Credentials) *kms.Client {
	return s.client(func(o *kms.Options) {
		o.Credentials = credentials.NewStaticCredentialsProvider(keys.AccessKeyID, keys.SecretAccessKey, keys.SessionToken)
		o.RetryMaxAttempts = 1
	})
}

// newUser makes a user with one identity policy and an access key.
func (s *server) newUser(t testing.TB, account, policy string) (arn string, keys aws.Credentials) {
	t.Helper()
	name := "u" + random()
	s.admin(t, "user", "create", name, "--account", account)
	if policy != "" {
		s.admin(t, "policy", "put", "--user", name, "--account", account, "p", s.file(t, policy))
	}
	var k struct{ AccessKeyId, SecretAccessKey string }
	if err := json.Unmarshal([]byte(s.admin(t, "access-key", "create", "--user", name, "--account", account, "--json")), &k); err != nil {
		t.Fatal(err)
	}
	return "arn:aws:iam::" + account + ":user/" + name, aws.Credentials{AccessKeyID: k.AccessKeyId, SecretAccessKey: k.SecretAccessKey}
}

// file returns the path of a file with this text.
func (s *server) file(t testing.TB, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// soon calls f until it is true, for as long as a change by another process may take to bind a server.
func soon(t testing.TB, what string, f func() bool) {
	t.Helper()
	began := time.Now()
	for !f() {
		if time.Since(began) > patience {
			t.Fatalf("%s: not within %v", what, patience)
		}
		time.Sleep(20 * time.Millisecond)
	}
	// On a busy machine a moment more is no fault; the promise is a second.
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("%s: only after %v", what, took)
	}
}

const allowAll = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"kms:*","Resource":"*"}]}`

const otherAccount = "444455556666"

// otherAccountOf makes a second account in the rig that tests share, once.
func otherAccountOf(t testing.TB, s *server) {
	t.Helper()
	if !strings.Contains(s.admin(t, "account", "list"), otherAccount) {
		s.admin(t, "account", "create", otherAccount)
	}
}

// TestUsersAndPolicies: what the administrator does on the host binds a running server within a second.
func TestUsersAndPolicies(t *testing.T) {
	s, c := shared(t)
	ctx := within(t)
	key := newKey(t, c)
	arn, keys := s.newUser(t, s.account(), "")
	name := arn[strings.LastIndexByte(arn, '/')+1:]
	user := s.somebody(keys)
	encrypt := func() error {
		_, err := user.Encrypt(ctx, &kms.EncryptInput{KeyId: key.KeyId, Plaintext: []byte("x")})
		return err
	}
	refused(t, "a user without policies", encrypt(), "AccessDeniedException",
		"User: "+arn+" is not authorized to perform: kms:Encrypt on resource: "+*key.Arn+" because no identity-based policy allows the kms:Encrypt action")
	s.admin(t, "policy", "put", "--user", name, "all", s.file(t, allowAll))
	soon(t, "a new policy", func() bool { return encrypt() == nil })
	s.admin(t, "policy", "put", "--user", name, "no", s.file(t, strings.Replace(allowAll, "Allow", "Deny", 1)))
	soon(t, "a deny", func() bool { return encrypt() != nil })
	refused(t, "a user with a deny", encrypt(), "AccessDeniedException",
		"User: "+arn+" is not authorized to perform: kms:Encrypt on resource: "+*key.Arn+" with an explicit deny in an identity-based policy")
	s.admin(t, "policy", "delete", "--user", name, "no")
	soon(t, "a policy taken away", func() bool { return encrypt() == nil })

	s.admin(t, "access-key", "disable", keys.AccessKeyID)
	soon(t, "a disabled access key", func() bool { return encrypt() != nil })
	refused(t, "a disabled access key", encrypt(), "UnrecognizedClientException", "The security token included in the request is invalid.")
	s.admin(t, "access-key", "enable", keys.AccessKeyID)
	soon(t, "an enabled access key", func() bool { return encrypt() == nil })
	s.admin(t, "user", "delete", name, "--yes")
	soon(t, "a deleted user", func() bool { return encrypt() != nil })
	refused(t, "a deleted user", encrypt(), "UnrecognizedClientException", "The security token included in the request is invalid.")
}

// TestSession: temporary credentials of a role, which are worth nothing without their token.
func TestSession(t *testing.T) {
	s, c := shared(t)
	ctx := within(t)
	key := newKey(t, c)
	role := "r" + random()
	s.admin(t, "role", "create", role)
	s.admin(t, "policy", "put", "--role", role, "p", s.file(t, allowAll))
	var k struct {
		Version                                                int
		AccessKeyId, SecretAccessKey, SessionToken, Expiration string
	}
	if err := json.Unmarshal([]byte(s.admin(t, "session", "--role", role, "--name", "tester", "--json")), &k); err != nil {
		t.Fatal(err)
	}
	if expires, err := time.Parse(time.RFC3339, k.Expiration); err != nil || k.Version != 1 || time.Until(expires) < 50*time.Minute || time.Until(expires) > time.Hour {
		t.Errorf("the session lasts until %s", k.Expiration)
	}
	whole := aws.Credentials{AccessKeyID: k.AccessKeyId, SecretAccessKey: k.SecretAccessKey, SessionToken: k.SessionToken}
	if _, err := s.somebody(whole).Encrypt(ctx, &kms.EncryptInput{KeyId: key.KeyId, Plaintext: []byte("x")}); err != nil {
		t.Error(err)
	}
	const invalid = "The security token included in the request is invalid."
	for what, token := range map[string]string{"no token": "", "another token": "x" + k.SessionToken} {
		part := whole
		part.SessionToken = token
		_, err := s.somebody(part).ListKeys(ctx, &kms.ListKeysInput{})
		refused(t, what, err, "UnrecognizedClientException", invalid)
	}
	root := s.credentials()
	root.SessionToken = k.SessionToken
	_, err := s.somebody(root).ListKeys(ctx, &kms.ListKeysInput{})
	refused(t, "the token with another key", err, "UnrecognizedClientException", invalid)

	for _, test := range []struct {
		keys aws.Credentials
		arn  string
	}{
		{s.credentials(), "arn:aws:iam::" + s.account() + ":root"},
		{whole, "arn:aws:sts::" + s.account() + ":assumed-role/" + role + "/tester"},
	} {
		client := sts.New(sts.Options{BaseEndpoint: aws.String(s.env["AWS_ENDPOINT_URL_STS"]), Region: s.region(),
			Credentials: credentials.NewStaticCredentialsProvider(test.keys.AccessKeyID, test.keys.SecretAccessKey, test.keys.SessionToken)})
		out, err := client.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
		if err != nil || aws.ToString(out.Arn) != test.arn || aws.ToString(out.Account) != s.account() || aws.ToString(out.UserId) == "" {
			t.Errorf("GetCallerIdentity: %+v, %v", out, err)
		}
	}
	out, err := s.somebody(whole).GenerateRandom(ctx, &kms.GenerateRandomInput{NumberOfBytes: aws.Int32(8)})
	if err != nil {
		t.Fatal(err)
	}
	if u := recorded(t, s.dir, requestOf(out.ResultMetadata)).UserIdentity; u.Type != "AssumedRole" || !strings.HasSuffix(u.ARN, ":assumed-role/"+role+"/tester") {
		t.Errorf("recorded as %+v", u)
	}
}

// TestCrossAccount: a key and its alias are used from another account once both sides allow it, and a stranger learns nothing.
func TestCrossAccount(t *testing.T) {
	s, c := shared(t)
	ctx := within(t)
	otherAccountOf(t, s)
	key, alias := newAlias(t, c)
	partner, keys := s.newUser(t, otherAccount, allowAll)
	friend := s.somebody(keys)
	use := func(id string) error {
		out, err := friend.GenerateDataKeyPair(ctx, &kms.GenerateDataKeyPairInput{KeyId: &id, KeyPairSpec: types.DataKeyPairSpecEccNistP256})
		if err != nil {
			return err
		}
		opened, err := friend.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: out.PrivateKeyCiphertextBlob})
		if err == nil && string(opened.Plaintext) != string(out.PrivateKeyPlaintext) {
			t.Error("another private key came back")
		}
		return err
	}
	denied := "User: " + partner + " is not authorized to perform: kms:GenerateDataKeyPair on this resource because the resource does not exist in this Region, " +
		"no resource-based policies allow access, or a resource-based policy explicitly denies access"
	missing := s.arn("key/00000000-0000-4000-8000-000000000000")
	for _, id := range []string{*key.Arn, s.arn(alias), missing, s.arn("alias/none")} {
		refused(t, id, use(id), "AccessDeniedException", denied)
	}
	policy := fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::%s:root"},"Action":"kms:*","Resource":"*"},
		{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::%s:root"},"Action":["kms:GenerateDataKeyPair","kms:Decrypt","kms:CreateGrant"],"Resource":"*"}]}`, s.account(), otherAccount)
	if _, err := c.PutKeyPolicy(ctx, &kms.PutKeyPolicyInput{KeyId: key.KeyId, Policy: &policy}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{*key.Arn, s.arn(alias)} {
		if err := use(id); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	// A bare id is looked for in the caller's account.
	refused(t, "a bare id", use(*key.KeyId), "NotFoundException", "Key 'arn:aws:kms:"+s.region()+":"+otherAccount+":key/"+*key.KeyId+"' does not exist")
	_, err := friend.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: key.Arn})
	refused(t, "what was not shared", err, "AccessDeniedException", strings.Replace(denied, "GenerateDataKeyPair", "DescribeKey", 1))
}

// TestGrants: a grant lets its grantee in, within its constraint, and no longer than it is there.
func TestGrants(t *testing.T) {
	s, c := shared(t)
	ctx := within(t)
	key := newKey(t, c)
	arn, keys := s.newUser(t, s.account(), "")
	user := s.somebody(keys)
	sealed := func(context map[string]string) []byte {
		out, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: key.KeyId, Plaintext: []byte("x"), EncryptionContext: context})
		if err != nil {
			t.Fatal(err)
		}
		return out.CiphertextBlob
	}
	a, ab, b := map[string]string{"A": "1"}, map[string]string{"a": "1", "b": "2"}, map[string]string{"b": "2"}
	open := func(context map[string]string, tokens ...string) error {
		_, err := user.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed(context), EncryptionContext: context, GrantTokens: tokens})
		return err
	}
	if refusalOf(open(a)).code != "AccessDeniedException" {
		t.Error("a user without grants was let in")
	}
	grant, err := c.CreateGrant(ctx, &kms.CreateGrantInput{KeyId: key.KeyId, GranteePrincipal: &arn, Name: aws.String("n"),
		Operations:  []types.GrantOperation{types.GrantOperationDecrypt, types.GrantOperationRetireGrant},
		Constraints: &types.GrantConstraints{EncryptionContextSubset: map[string]string{"a": "1"}}})
	if err != nil {
		t.Fatal(err)
	}
	if !isHex64(*grant.GrantId) {
		t.Errorf("grant id %q", *grant.GrantId)
	}
	for _, context := range []map[string]string{a, ab} {
		if err := open(context); err != nil {
			t.Errorf("%v: %v", context, err)
		}
		if err := open(context, *grant.GrantToken); err != nil {
			t.Errorf("%v with the token: %v", context, err)
		}
	}
	for _, context := range []map[string]string{nil, b, {"a": "2"}} {
		if refusalOf(open(context, *grant.GrantToken)).code != "AccessDeniedException" {
			t.Errorf("%v was let in", context)
		}
	}
	again, err := c.CreateGrant(ctx, &kms.CreateGrantInput{KeyId: key.KeyId, GranteePrincipal: &arn, Name: aws.String("n"),
		Operations:  []types.GrantOperation{types.GrantOperationRetireGrant, types.GrantOperationDecrypt},
		Constraints: &types.GrantConstraints{EncryptionContextSubset: map[string]string{"a": "1"}}})
	if err != nil || *again.GrantId != *grant.GrantId || *again.GrantToken == *grant.GrantToken {
		t.Errorf("the same grant again: %+v, %v", again, err)
	}
	list, err := c.ListGrants(ctx, &kms.ListGrantsInput{KeyId: key.KeyId})
	if err != nil || len(list.Grants) != 1 || *list.Grants[0].GranteePrincipal != arn || list.Grants[0].Constraints.EncryptionContextSubset["a"] != "1" {
		t.Errorf("listed %+v, %v", list, err)
	}
	if _, err := user.RetireGrant(ctx, &kms.RetireGrantInput{GrantToken: again.GrantToken}); err != nil {
		t.Errorf("RetireGrant by the grantee: %v", err)
	}
	if refusalOf(open(a)).code != "AccessDeniedException" {
		t.Error("a retired grant still lets in")
	}
	_, err = c.RevokeGrant(ctx, &kms.RevokeGrantInput{KeyId: key.KeyId, GrantId: grant.GrantId})
	if refusalOf(err).code != "NotFoundException" {
		t.Errorf("RevokeGrant of a retired grant: %v", err)
	}
}

// TestRotation: rotation makes new material in the token, and what the old one encrypted still opens.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	c := s.client()
	ctx := within(t)
	key := newKey(t, c)
	before, err := c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: key.KeyId, KeySpec: types.DataKeySpecAes256})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.RotateKeyOnDemand(ctx, &kms.RotateKeyOnDemandInput{KeyId: key.KeyId}); err != nil {
		t.Fatal(err)
	}
	after, err := c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: key.KeyId, KeySpec: types.DataKeySpecAes256})
	if err != nil || *after.KeyMaterialId == *before.KeyMaterialId {
		t.Fatalf("the material is still %v, %v", after, err)
	}
	for _, d := range []*kms.GenerateDataKeyOutput{before, after} {
		out, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: d.CiphertextBlob})
		if err != nil || string(out.Plaintext) != string(d.Plaintext) || *out.KeyMaterialId != *d.KeyMaterialId {
			t.Errorf("decrypted %v, %v", out, err)
		}
	}
	if _, err := c.EnableKeyRotation(ctx, &kms.EnableKeyRotationInput{KeyId: key.KeyId, RotationPeriodInDays: aws.Int32(90)}); err != nil {
		t.Fatal(err)
	}
	status, err := c.GetKeyRotationStatus(ctx, &kms.GetKeyRotationStatusInput{KeyId: key.KeyId})
	if err != nil || !status.KeyRotationEnabled || *status.RotationPeriodInDays != 90 || status.OnDemandRotationStartDate != nil {
		t.Errorf("status %+v, %v", status, err)
	}
	list, err := c.ListKeyRotations(ctx, &kms.ListKeyRotationsInput{KeyId: key.KeyId, IncludeKeyMaterial: types.IncludeKeyMaterialAllKeyMaterial})
	if err != nil || len(list.Rotations) != 2 {
		t.Errorf("rotations %+v, %v", list, err)
	}
	usage, err := c.GetKeyLastUsage(ctx, &kms.GetKeyLastUsageInput{KeyId: key.KeyId})
	if err != nil || usage.KeyLastUsage == nil || usage.KeyLastUsage.Operation != types.KeyLastUsageTrackingOperationDecrypt {
		t.Errorf("last use %+v, %v", usage, err)
	}
	// The record of a rotation is the server's own.
	soon(t, "the record of the rotation", func() bool {
		for _, r := range auditRecords(t, dir) {
			if r.EventName == "RotateKey" && r.EventType == "AwsServiceEvent" && r.ServiceEventDetails["keyId"] == *key.KeyId {
				return true
			}
		}
		return false
	})
	s.stop(t)
	labels := objects(t, dir)
	for n := range 2 {
		if label := fmt.Sprintf("strongroom/%s/%d", *key.KeyId, n); labels[label] != 1 {
			t.Errorf("the token holds %d of %s", labels[label], label)
		}
	}
	// Last uses survive.
	again := start(t, dir)
	kept, err := again.client().GetKeyLastUsage(ctx, &kms.GetKeyLastUsageInput{KeyId: key.KeyId})
	if err != nil || kept.KeyLastUsage == nil || !kept.KeyLastUsage.Timestamp.Equal(*usage.KeyLastUsage.Timestamp) {
		t.Errorf("last use after a restart %+v, %v", kept, err)
	}
}

// TestTags: tags are put on keys, read back in order, and open doors.
func TestTags(t *testing.T) {
	s, c := shared(t)
	ctx := within(t)
	key := newKey(t, c)
	_, keys := s.newUser(t, s.account(), `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"kms:Encrypt","Resource":"*","Condition":{"StringEquals":{"aws:ResourceTag/team":"a"}}}]}`)
	user := s.somebody(keys)
	encrypt := func() error {
		_, err := user.Encrypt(ctx, &kms.EncryptInput{KeyId: key.KeyId, Plaintext: []byte("x")})
		return err
	}
	if refusalOf(encrypt()).code != "AccessDeniedException" {
		t.Error("let in without the tag")
	}
	tags := []types.Tag{{TagKey: aws.String("team"), TagValue: aws.String("a")}, {TagKey: aws.String("b"), TagValue: aws.String("")}}
	if _, err := c.TagResource(ctx, &kms.TagResourceInput{KeyId: key.KeyId, Tags: tags}); err != nil {
		t.Fatal(err)
	}
	if err := encrypt(); err != nil {
		t.Error(err)
	}
	list, err := c.ListResourceTags(ctx, &kms.ListResourceTagsInput{KeyId: key.KeyId})
	if err != nil || len(list.Tags) != 2 || *list.Tags[0].TagKey != "b" || *list.Tags[1].TagValue != "a" {
		t.Errorf("listed %+v, %v", list, err)
	}
	if _, err := c.UntagResource(ctx, &kms.UntagResourceInput{KeyId: key.KeyId, TagKeys: []string{"team", "none"}}); err != nil {
		t.Fatal(err)
	}
	if refusalOf(encrypt()).code != "AccessDeniedException" {
		t.Error("let in after the tag was taken away")
	}
	duplicate := []types.Tag{tags[0], tags[0]}
	_, err = c.TagResource(ctx, &kms.TagResourceInput{KeyId: key.KeyId, Tags: duplicate})
	refused(t, "a duplicate", err, "TagException", "Duplicate tag keys")
}
