package test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// TestAliasLifetime: an alias is made, moved and deleted, and every operation follows it at once.
func TestAliasLifetime(t *testing.T) {
	s, c := shared(t)
	ctx := within(t)
	first, name := newAlias(t, c)
	second := newKey(t, c)
	points := func(want *types.KeyMetadata) {
		t.Helper()
		for _, id := range []string{name, s.arn(name)} {
			out, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: &id, Plaintext: []byte("x")})
			if err != nil {
				t.Fatal(err)
			}
			if *out.KeyId != *want.Arn {
				t.Errorf("%s encrypts with %s, want %s", id, *out.KeyId, *want.Arn)
			}
		}
	}
	points(first)
	_, err := c.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: &name, TargetKeyId: second.KeyId})
	refused(t, "the same name again", err, "AlreadyExistsException", "An alias with the name "+s.arn(name)+" already exists")
	before := entries(t, c, nil)[name]

	if _, err := c.UpdateAlias(ctx, &kms.UpdateAliasInput{AliasName: &name, TargetKeyId: second.Arn}); err != nil {
		t.Fatal(err)
	}
	points(second)
	after := entries(t, c, nil)[name]
	if aws.ToString(before.TargetKeyId) != *first.KeyId || aws.ToString(after.TargetKeyId) != *second.KeyId {
		t.Errorf("ListAliases: target %s, then %s", aws.ToString(before.TargetKeyId), aws.ToString(after.TargetKeyId))
	}
	if !after.CreationDate.Equal(*before.CreationDate) || !after.LastUpdatedDate.After(*before.LastUpdatedDate) {
		t.Errorf("dates before %v %v, after %v %v", before.CreationDate, before.LastUpdatedDate, after.CreationDate, after.LastUpdatedDate)
	}

	if _, err := c.DeleteAlias(ctx, &kms.DeleteAliasInput{AliasName: &name}); err != nil {
		t.Fatal(err)
	}
	gone := "Alias " + s.arn(name) + " is not found."
	_, err = c.Encrypt(ctx, &kms.EncryptInput{KeyId: &name, Plaintext: []byte("x")})
	refused(t, "Encrypt with a deleted alias", err, "NotFoundException", gone)
	_, err = c.DeleteAlias(ctx, &kms.DeleteAliasInput{AliasName: &name})
	refused(t, "DeleteAlias twice", err, "NotFoundException", gone)
	_, err = c.UpdateAlias(ctx, &kms.UpdateAliasInput{AliasName: &name, TargetKeyId: first.KeyId})
	refused(t, "UpdateAlias of none", err, "NotFoundException", gone)
	if _, err := c.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: &name, TargetKeyId: first.KeyId}); err != nil {
		t.Fatal(err)
	}
	points(first)
}

// entries returns what ListAliases shows, by name.
func entries(t *testing.T, c *kms.Client, key *string) map[string]types.AliasListEntry {
	t.Helper()
	all := make(map[string]types.AliasListEntry)
	for p := kms.NewListAliasesPaginator(c, &kms.ListAliasesInput{KeyId: key}); p.HasMorePages(); {
		page, err := p.NextPage(within(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range page.Aliases {
			all[aws.ToString(a.AliasName)] = a
		}
	}
	return all
}

// TestListAliases: all pages show every alias, each once, in order; of one key, those of that key. The server is one of its own, so that it is known
// what there is.
func TestListAliases(t *testing.T) {
	s := start(t, t.TempDir())
	c := s.client()
	want := make(map[string]string)
	var keys []*types.KeyMetadata
	for range 3 {
		keys = append(keys, newKey(t, c))
	}
	for i := range 107 {
		name, key := fmt.Sprintf("alias/n%d", i), keys[i%3]
		if _, err := c.CreateAlias(within(t), &kms.CreateAliasInput{AliasName: &name, TargetKeyId: key.KeyId}); err != nil {
			t.Fatal(err)
		}
		want[name] = *key.KeyId
	}
	for _, limit := range []int32{0, 1, 10, 50, 100, 1000} { // 1000 is allowed, and 100 is what one gets
		input := &kms.ListAliasesInput{}
		size := 50
		if limit != 0 {
			input.Limit, size = &limit, min(int(limit), 100)
		}
		got := make(map[string]string)
		var order []string
		for p := kms.NewListAliasesPaginator(c, input); p.HasMorePages(); {
			page, err := p.NextPage(within(t))
			if err != nil {
				t.Fatal(err)
			}
			if page.Truncated != (page.NextMarker != nil) || len(page.Aliases) > size {
				t.Errorf("limit %d: a page of %d, truncated %v", limit, len(page.Aliases), page.Truncated)
			}
			for _, a := range page.Aliases {
				got[*a.AliasName] = *a.TargetKeyId
				order = append(order, *a.AliasName)
				if *a.AliasArn != s.arn(*a.AliasName) || a.CreationDate == nil || a.LastUpdatedDate == nil {
					t.Errorf("an entry %s %v %v", *a.AliasArn, a.CreationDate, a.LastUpdatedDate)
				}
			}
		}
		if !maps.Equal(got, want) || len(order) != len(want) || !slices.IsSorted(order) {
			t.Errorf("limit %d: %d names in %d entries, want %d once each, in order", limit, len(got), len(order), len(want))
		}
	}
	for i, key := range keys {
		for _, id := range []*string{key.KeyId, key.Arn} {
			got := entries(t, c, id)
			for name, target := range want {
				if _, listed := got[name]; listed != (target == *key.KeyId) {
					t.Errorf("of key %d: %s listed %v", i, name, listed)
				}
			}
		}
	}
	_, err := c.ListAliases(within(t), &kms.ListAliasesInput{KeyId: aws.String("alias/n1")})
	refused(t, "ListAliases by alias", err, "NotFoundException", "Invalid keyId 'alias/n1'")

	// Aliases outlive a restart, and a key that is pending deletion keeps its own.
	if _, err := c.ScheduleKeyDeletion(within(t), &kms.ScheduleKeyDeletionInput{KeyId: keys[0].KeyId}); err != nil {
		t.Fatal(err)
	}
	s.stop(t)
	c = start(t, s.dir).client()
	if got := entries(t, c, nil); len(got) != len(want) {
		t.Errorf("after a restart there are %d aliases, want %d", len(got), len(want))
	}
}

func TestAliasRefusals(t *testing.T) {
	s, c := shared(t)
	ctx := within(t)
	key, alias := newAlias(t, c)
	long := "alias/" + strings.Repeat("x", 251)
	pattern := func(name string) string {
		return "1 validation error detected: Value '" + name + "' at 'aliasName' failed to satisfy constraint: Member must satisfy regular expression pattern: ^[a-zA-Z0-9:/_-]+$"
	}
	for _, test := range []struct{ name, code, message string }{
		{"x", "ValidationException", `Alias must start with the prefix "alias/". Please see https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html`},
		{"Alias/x", "ValidationException", `Alias must start with the prefix "alias/". Please see https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html`},
		{"alias/my:alias", "ValidationException", "alias/my:alias contains invalid characters for an alias"},
		{"alias/my alias", "ValidationException", pattern("alias/my alias")},
		{"alias/é", "ValidationException", pattern("alias/é")},
		{"alias/x\n", "ValidationException", pattern("alias/x\n")},
		{"alias/aws/ebs", "NotAuthorizedException", "UnknownError"}, // no message: the SDK puts this
		{long, "ValidationException", "1 validation error detected: Value '" + long + "' at 'aliasName' failed to satisfy constraint: Member must have length less than or equal to 256"},
	} {
		_, err := c.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: &test.name, TargetKeyId: key.KeyId})
		refused(t, fmt.Sprintf("CreateAlias %.40q", test.name), err, test.code, test.message)
		_, err = c.UpdateAlias(ctx, &kms.UpdateAliasInput{AliasName: &test.name, TargetKeyId: key.KeyId})
		refused(t, fmt.Sprintf("UpdateAlias %.40q", test.name), err, test.code, test.message)
		_, err = c.DeleteAlias(ctx, &kms.DeleteAliasInput{AliasName: &test.name})
		refused(t, fmt.Sprintf("DeleteAlias %.40q", test.name), err, test.code, test.message)
	}
	fresh := "alias/" + random()
	for _, target := range []string{alias, s.arn(alias)} {
		_, err := c.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: &fresh, TargetKeyId: &target})
		refused(t, "an alias of an alias", err, "ValidationException", "Aliases must refer to keys. Not aliases")
		_, err = c.UpdateAlias(ctx, &kms.UpdateAliasInput{AliasName: &alias, TargetKeyId: &target})
		refused(t, "an alias moved to an alias", err, "ValidationException", "Aliases must refer to keys. Not aliases")
	}
	none := "00000000-0000-4000-8000-000000000000"
	_, err := c.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: &fresh, TargetKeyId: &none})
	refused(t, "an alias of no key", err, "NotFoundException", "Key '"+s.arn("key/"+none)+"' does not exist")
	for _, name := range []string{"alias/a/b_c-D/1", "alias/" + strings.Repeat("y", 250)} {
		if _, err := c.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: &name, TargetKeyId: key.KeyId}); err != nil {
			t.Errorf("%.40s: %v", name, err)
		}
		if _, err := c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &name}); err != nil {
			t.Errorf("%.40s: %v", name, err)
		}
	}
	for range 47 { // with the three above, 50: as many as a key can have
		name := "alias/" + random()
		if _, err := c.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: &name, TargetKeyId: key.KeyId}); err != nil {
			t.Fatal(err)
		}
	}
	_, err = c.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: &fresh, TargetKeyId: key.KeyId})
	if _, ok := errors.AsType[*types.LimitExceededException](err); !ok {
		t.Errorf("the 51st alias of a key: %v", err)
	}
}

// TestAliasRace: of many who want one name, one gets it.
func TestAliasRace(t *testing.T) {
	_, c := shared(t)
	key, name := newKey(t, c), "alias/"+random()
	errs := make([]error, 16)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = c.CreateAlias(within(t), &kms.CreateAliasInput{AliasName: &name, TargetKeyId: key.KeyId})
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if refusalOf(err).code != "AlreadyExistsException" {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d of %d made the alias", won, len(errs))
	}
}
