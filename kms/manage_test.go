package kms_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"strongroom/kms"
	"strongroom/store"
)

var discard = slog.New(slog.DiscardHandler)

func TestCreateKey(t *testing.T) {
	r := newRig(t, nil)
	resp, err := r.CreateKey(t.Context(), root, &kms.CreateKeyRequest{
		Description: "d", Tags: []kms.Tag{{TagKey: "team", TagValue: "payments"}}, MultiRegion: true, Policy: keyPolicy(),
	})
	must(t, err)
	m := resp.KeyMetadata
	if !strings.HasPrefix(m.KeyID, "mrk-") || m.Arn != arnBase+"key/"+m.KeyID || m.AWSAccountID != account || !m.MultiRegion || !m.Enabled ||
		m.KeyState != kms.StateEnabled || m.Description != "d" || m.KeyManager != "CUSTOMER" || m.Origin != "AWS_KMS" || m.KeyUsage != "ENCRYPT_DECRYPT" ||
		m.KeySpec != "SYMMETRIC_DEFAULT" || m.CustomerMasterKeySpec != m.KeySpec || len(m.EncryptionAlgorithms) != 1 || len(m.CurrentKeyMaterialID) != 64 ||
		m.MultiRegionConfiguration.MultiRegionKeyType != "PRIMARY" || m.MultiRegionConfiguration.PrimaryKey.Arn != m.Arn || m.DeletionDate != nil {
		t.Errorf("metadata %+v", m)
	}
	again, err := r.DescribeKey(t.Context(), root, &kms.DescribeKeyRequest{KeyID: m.KeyID})
	must(t, err)
	if fmt.Sprint(again.KeyMetadata) != fmt.Sprint(m) && again.KeyMetadata.Arn != m.Arn {
		t.Errorf("DescribeKey says %+v, CreateKey said %+v", again.KeyMetadata, m)
	}

	var fifty []kms.Tag
	for i := range 51 {
		fifty = append(fifty, kms.Tag{TagKey: fmt.Sprint(i)})
	}
	for _, c := range []struct {
		req    kms.CreateKeyRequest
		code   kms.Code
		detail string
	}{
		{kms.CreateKeyRequest{KeySpec: "HMAC_256"}, kms.Validation, "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys."},
		{kms.CreateKeyRequest{KeySpec: "RSA_2048", KeyUsage: "KEY_AGREEMENT"}, kms.Validation, "KeyUsage KEY_AGREEMENT is not compatible with KeySpec RSA_2048"},
		{kms.CreateKeyRequest{CustomerMasterKeySpec: "RSA_2048", KeyUsage: "SIGN_VERIFY"}, kms.Unsupported, "KeySpec RSA_2048 is not supported in this Region"},
		{kms.CreateKeyRequest{KeySpec: "SM2", KeyUsage: "SIGN_VERIFY"}, kms.Unsupported, "KeySpec SM2 is not supported in this Region"},
		{kms.CreateKeyRequest{Origin: "EXTERNAL"}, kms.Unsupported, "Origin EXTERNAL is not supported in this Region"},
		{kms.CreateKeyRequest{CustomKeyStoreID: "cks-1"}, kms.Unsupported, "Custom key stores are not supported."},
		{kms.CreateKeyRequest{Policy: "{not json"}, kms.MalformedPolicy, "This policy contains invalid Json"},
		{kms.CreateKeyRequest{Policy: "[]"}, kms.MalformedPolicy, "The policy: must be an object"},
		{kms.CreateKeyRequest{Policy: "null"}, kms.MalformedPolicy, "The policy: must be an object"},
		{kms.CreateKeyRequest{Policy: `{"a":"` + strings.Repeat("x", 32768) + `"}`}, kms.LimitExceeded, "The key policy is larger than 32768 bytes."},
		{kms.CreateKeyRequest{Tags: []kms.Tag{{TagKey: "a"}, {TagKey: "a"}}}, kms.InvalidTag, "Duplicate tag keys"},
		{kms.CreateKeyRequest{Tags: []kms.Tag{{TagKey: "AWS:x"}}}, kms.InvalidTag, "Tags beginning with aws: are reserved"},
		{kms.CreateKeyRequest{Tags: fifty}, kms.InvalidTag, "Too many tags"},
	} {
		_, err := r.CreateKey(t.Context(), root, &c.req)
		refusal(t, err, c.code, c.detail)
	}
	keys, err := r.ListKeys(t.Context(), root, &kms.ListKeysRequest{})
	must(t, err)
	if len(keys.Keys) != 1 {
		t.Errorf("refused creations left %d keys", len(keys.Keys)-1)
	}
}

func TestListKeysPages(t *testing.T) {
	r := newRig(t, nil)
	want := map[string]bool{}
	for range 7 {
		want[r.newKey().KeyID] = true
	}
	for _, limit := range []int32{1, 3, 7, 1000} {
		got := map[string]bool{}
		req := &kms.ListKeysRequest{Limit: &limit}
		for {
			resp, err := r.ListKeys(t.Context(), root, req)
			must(t, err)
			for _, k := range resp.Keys {
				if got[k.KeyID] || !want[k.KeyID] || k.KeyArn != arnBase+"key/"+k.KeyID {
					t.Errorf("limit %d: unexpected entry %v", limit, k)
				}
				got[k.KeyID] = true
			}
			if resp.Truncated != (resp.NextMarker != "") || len(resp.Keys) > int(limit) {
				t.Errorf("limit %d: %d keys, truncated %v, marker %q", limit, len(resp.Keys), resp.Truncated, resp.NextMarker)
			}
			if !resp.Truncated {
				break
			}
			req.Marker = resp.NextMarker
		}
		if len(got) != len(want) {
			t.Errorf("limit %d: %d keys", limit, len(got))
		}
	}
	_, err := r.ListKeys(t.Context(), root, &kms.ListKeysRequest{Marker: "rubbish"})
	if !errors.Is(err, kms.InvalidMarker) {
		t.Errorf("rubbish marker: %v", err)
	}
	resp, err := r.ListKeys(t.Context(), kms.Caller{Account: "444455556666", Principal: "arn:aws:iam::444455556666:root"}, &kms.ListKeysRequest{})
	if err != nil || len(resp.Keys) != 0 {
		t.Errorf("another account sees %d keys, %v", len(resp.Keys), err)
	}
}

func TestAliases(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	a, b := r.newKey(), r.newKey()
	create := func(name, key string) error {
		return second(r.CreateAlias(ctx, root, &kms.CreateAliasRequest{AliasName: name, TargetKeyID: key}))
	}
	must(t, create("alias/one", a.KeyID))
	must(t, create("alias/two", b.Arn))
	refusal(t, create("alias/one", b.KeyID), kms.AlreadyExists, "An alias with the name "+arnBase+"alias/one already exists")
	refusal(t, create("one", a.KeyID), kms.Validation, `Alias must start with the prefix "alias/". Please see https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html`)
	refusal(t, create("alias/", a.KeyID), kms.InvalidAliasName, "")
	refusal(t, create("alias/aws/s3", a.KeyID), kms.NotAuthorized, "")
	refusal(t, create("alias/my:alias", a.KeyID), kms.Validation, "alias/my:alias contains invalid characters for an alias")
	refusal(t, create("alias/x", "alias/one"), kms.Validation, "Aliases must refer to keys. Not aliases")
	refusal(t, create("alias/x", arnBase+"alias/one"), kms.Validation, "Aliases must refer to keys. Not aliases")

	blob := r.encrypt("alias/one", "secret", nil)
	if err := second(r.Decrypt(ctx, root, &kms.DecryptRequest{CiphertextBlob: blob, KeyID: arnBase + "alias/one"})); err != nil {
		t.Errorf("alias ARN: %v", err)
	}
	_, err := r.UpdateAlias(ctx, root, &kms.UpdateAliasRequest{AliasName: "alias/one", TargetKeyID: b.KeyID})
	must(t, err)
	refusal(t, second(r.Decrypt(ctx, root, &kms.DecryptRequest{CiphertextBlob: blob, KeyID: "alias/one"})), kms.IncorrectKey,
		"The key ID in the request does not identify a CMK that can perform this operation.")

	list, err := r.ListAliases(ctx, root, &kms.ListAliasesRequest{KeyID: b.KeyID})
	must(t, err)
	if len(list.Aliases) != 2 || list.Aliases[0].AliasName != "alias/one" || list.Aliases[0].TargetKeyID != b.KeyID || list.Aliases[1].AliasArn != arnBase+"alias/two" ||
		list.Aliases[0].LastUpdatedDate.Before(list.Aliases[0].CreationDate.Time) {
		t.Errorf("aliases of b: %+v", list.Aliases)
	}
	one := int32(1)
	first, err := r.ListAliases(ctx, root, &kms.ListAliasesRequest{Limit: &one})
	must(t, err)
	rest, err := r.ListAliases(ctx, root, &kms.ListAliasesRequest{Limit: &one, Marker: first.NextMarker})
	must(t, err)
	if !first.Truncated || rest.Truncated || rest.NextMarker != "" || rest.Aliases[0].AliasName != "alias/two" {
		t.Errorf("pages %+v, %+v", first, rest)
	}

	// From a key that is pending deletion to one that is not, but not the other way round.
	_, err = r.ScheduleKeyDeletion(ctx, root, &kms.ScheduleKeyDeletionRequest{KeyID: b.KeyID})
	must(t, err)
	_, err = r.UpdateAlias(ctx, root, &kms.UpdateAliasRequest{AliasName: "alias/one", TargetKeyID: a.KeyID})
	must(t, err)
	_, err = r.UpdateAlias(ctx, root, &kms.UpdateAliasRequest{AliasName: "alias/one", TargetKeyID: b.KeyID})
	refusal(t, err, kms.InvalidState, b.Arn+" is pending deletion.")
	_, err = r.DeleteAlias(ctx, root, &kms.DeleteAliasRequest{AliasName: "alias/two"})
	must(t, err)
	_, err = r.DeleteAlias(ctx, root, &kms.DeleteAliasRequest{AliasName: "alias/two"})
	refusal(t, err, kms.NotFound, "Alias "+arnBase+"alias/two is not found.")
	_, err = r.UpdateAlias(ctx, root, &kms.UpdateAliasRequest{AliasName: "alias/two", TargetKeyID: a.KeyID})
	refusal(t, err, kms.NotFound, "Alias "+arnBase+"alias/two is not found.")

	for i := range 49 {
		must(t, create(fmt.Sprintf("alias/n%d", i), a.KeyID))
	}
	if err := create("alias/too-many", a.KeyID); !errors.Is(err, kms.LimitExceeded) {
		t.Errorf("the 51st alias of a key: %v", err)
	}
}

func TestInit(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	key := kms.NewAccessKey()
	options := kms.InitOptions{Device: token, Store: r.store, Partition: "aws", Region: region, Account: account, Key: key}
	if err := kms.Init(ctx, options); !errors.Is(err, kms.ErrConflict) {
		t.Errorf("a second Init: %v", err)
	}
	_, err := r.Credential(ctx, key.ID)
	refusal(t, err, kms.NotFound, "")

	url := "sqlite:" + filepath.Join(t.TempDir(), "other.db")
	if _, err := store.Open(ctx, url); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of a store that is not there: %v", err)
	}
	must(t, store.Create(ctx, url))
	db, err := store.Open(ctx, url)
	must(t, err)
	defer db.Close()
	if _, err := kms.New(ctx, kms.Options{Device: token, Store: db, Audit: new(recorder), Log: discard}); !errors.Is(err, kms.ErrNotStored) {
		t.Errorf("New on an empty store: %v", err)
	}
	options.Store = db
	options.Account = "12"
	if err := kms.Init(ctx, options); err == nil {
		t.Error("Init with a short account number")
	}
	options.Account = account
	must(t, kms.Init(ctx, options))
	s := newService(t, db, token)
	must(t, kms.CheckToken(ctx, token, db))
	c, err := s.Credential(ctx, key.ID)
	must(t, err)
	secret, err := s.Secret(ctx, c)
	if err != nil || string(secret) != key.Secret {
		t.Errorf("the secret comes back as %d bytes, %v", len(secret), err)
	}
	if bytes.Contains(c.Sealed, []byte(key.Secret)) {
		t.Error("the secret is stored in clear")
	}
	moved := *c
	moved.Principal = "arn:aws:iam::111122223333:user/eve"
	if _, err := s.Secret(ctx, &moved); err == nil {
		t.Error("a secret opens for another principal")
	}
	if s := fmt.Sprintf("%v %+v %#v %s", key, key, key, key); strings.Contains(s, key.Secret) {
		t.Error("an access key prints its secret")
	}
}
