package kms_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"strongroom/kms"
)

func (r *rig) tag(key string, tags ...kms.Tag) error {
	return second(r.TagResource(r.t.Context(), root, &kms.TagResourceRequest{KeyID: key, Tags: tags}))
}

func (r *rig) untag(key string, names ...string) error {
	return second(r.UntagResource(r.t.Context(), root, &kms.UntagResourceRequest{KeyID: key, TagKeys: names}))
}

// tags returns the tags of a key as they are listed: "a=1 b=2".
func (r *rig) tags(key string) string {
	r.t.Helper()
	resp, err := r.ListResourceTags(r.t.Context(), root, &kms.ListResourceTagsRequest{KeyID: key})
	must(r.t, err)
	var all []string
	for _, t := range resp.Tags {
		all = append(all, t.TagKey+"="+t.TagValue)
	}
	return strings.Join(all, " ")
}

// numbered returns tags n00, n01, …
func numbered(from, to int) []kms.Tag {
	var tags []kms.Tag
	for i := from; i < to; i++ {
		tags = append(tags, kms.Tag{TagKey: fmt.Sprintf("n%02d", i), TagValue: fmt.Sprint(i)})
	}
	return tags
}

func TestTags(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	key := r.newKey()
	expect := func(want string) {
		t.Helper()
		if got := r.tags(key.Arn); got != want {
			t.Errorf("tags %q, want %q", got, want)
		}
	}
	body, err := r.ListResourceTags(ctx, root, &kms.ListResourceTagsRequest{KeyID: key.KeyID})
	must(t, err)
	if got, _ := json.Marshal(body); string(got) != `{"Tags":[],"Truncated":false}` {
		t.Errorf("no tags: %s", got)
	}
	must(t, r.tag(key.KeyID, kms.Tag{TagKey: "b", TagValue: "1"}, kms.Tag{TagKey: "é"}, kms.Tag{TagKey: "a", TagValue: "2"}, kms.Tag{TagKey: "B", TagValue: "3"}))
	expect("B=3 a=2 b=1 é=")
	must(t, r.tag(key.Arn, kms.Tag{TagKey: "b", TagValue: "4"}))
	expect("B=3 a=2 b=4 é=")
	must(t, r.untag(key.KeyID, "b", "é", "never there"))
	expect("B=3 a=2")
	must(t, r.untag(key.KeyID))
	must(t, r.tag(key.KeyID))
	expect("B=3 a=2")

	refusal(t, r.tag(key.KeyID, kms.Tag{TagKey: "x"}, kms.Tag{TagKey: "x"}), kms.InvalidTag, "Duplicate tag keys")
	refusal(t, r.tag(key.KeyID, kms.Tag{TagKey: "Aws:x"}), kms.InvalidTag, "Tags beginning with aws: are reserved")
	refusal(t, r.tag(key.KeyID, numbered(0, 51)...), kms.InvalidTag, "Too many tags")
	refusal(t, r.tag(key.KeyID, numbered(0, 49)...), kms.InvalidTag, "Too many tags") // with the two that are there
	expect("B=3 a=2")
	must(t, r.tag(key.KeyID, numbered(0, 48)...))
	must(t, r.tag(key.KeyID, numbered(0, 48)...)) // no more of them
	refusal(t, r.tag(key.KeyID, kms.Tag{TagKey: "one more"}), kms.InvalidTag, "Too many tags")
	must(t, r.untag(key.KeyID, "n00"))
	must(t, r.tag(key.KeyID, kms.Tag{TagKey: "one more"}))

	must(t, second(r.DisableKey(ctx, root, &kms.DisableKeyRequest{KeyID: key.KeyID})))
	must(t, r.untag(key.KeyID, "n01"))
	must(t, r.tag(key.KeyID, kms.Tag{TagKey: "disabled"}))
	must(t, second(r.ScheduleKeyDeletion(ctx, root, &kms.ScheduleKeyDeletionRequest{KeyID: key.KeyID})))
	refusal(t, r.tag(key.KeyID, kms.Tag{TagKey: "x"}), kms.InvalidState, key.Arn+" is pending deletion.")
	refusal(t, r.untag(key.KeyID, "a"), kms.InvalidState, key.Arn+" is pending deletion.")
	if got := strings.Count(r.tags(key.KeyID), "="); got != 50 {
		t.Errorf("%d tags", got)
	}
	refusal(t, r.tag("alias/x", kms.Tag{TagKey: "x"}), kms.NotFound, "Invalid keyId 'alias/x'")
}

func TestListResourceTagsPages(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	key := r.newKey()
	must(t, r.tag(key.KeyID, numbered(0, 50)...))
	for _, limit := range []int32{1, 7, 25, 50, 1000} {
		var got []kms.Tag
		req := &kms.ListResourceTagsRequest{KeyID: key.KeyID, Limit: &limit}
		for {
			resp, err := r.ListResourceTags(ctx, root, req)
			must(t, err)
			if len(resp.Tags) > int(min(limit, 50)) || resp.Truncated != (resp.NextMarker != "") {
				t.Errorf("limit %d: %d tags, truncated %v, marker %q", limit, len(resp.Tags), resp.Truncated, resp.NextMarker)
			}
			got = append(got, resp.Tags...)
			if !resp.Truncated {
				break
			}
			req.Marker = resp.NextMarker
		}
		if !slices.Equal(got, numbered(0, 50)) {
			t.Errorf("limit %d: %v", limit, got)
		}
	}
	refusal(t, second(r.ListResourceTags(ctx, root, &kms.ListResourceTagsRequest{KeyID: key.KeyID, Marker: "rubbish"})),
		kms.InvalidMarker, "Could not deserialize marker 'rubbish'")
}

// The limit holds also for requests that come at once.
func TestConcurrentTags(t *testing.T) {
	r := newRig(t, nil)
	key := r.newKey()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 4 {
				first := (g*4 + i) * 3
				var tags []kms.Tag
				for n := range 3 {
					tags = append(tags, kms.Tag{TagKey: fmt.Sprint(first + n)})
				}
				if err := r.tag(key.KeyID, tags...); err != nil && !errors.Is(err, kms.InvalidTag) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := strings.Count(r.tags(key.KeyID), "="); got != 48 {
		t.Errorf("%d tags", got)
	}
}

func TestTagConditions(t *testing.T) {
	r := newRig(t, nil)
	policy := `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"kms:*","Resource":"*"},
		{"Effect":"Deny","Principal":"*","Action":"kms:TagResource","Resource":"*","Condition":{"StringNotEquals":{"aws:RequestTag/Team":"payments"},"Null":{"aws:RequestTag/Team":"false"}}},
		{"Effect":"Deny","Principal":"*","Action":["kms:TagResource","kms:UntagResource"],"Resource":"*","Condition":{"ForAnyValue:StringEquals":{"aws:TagKeys":"locked"}}},
		{"Effect":"Deny","Principal":"*","Action":"kms:Encrypt","Resource":"*","Condition":{"StringEquals":{"aws:ResourceTag/team":"payments"}}}]}`
	resp, err := r.CreateKey(t.Context(), root, &kms.CreateKeyRequest{Policy: policy, Tags: []kms.Tag{{TagKey: "locked"}}})
	must(t, err)
	key := resp.KeyMetadata.KeyID
	r.encrypt(key, "x", nil)
	for _, c := range []struct {
		what    string
		err     error
		allowed bool
	}{
		{"another value", r.tag(key, kms.Tag{TagKey: "team", TagValue: "sales"}), false},
		{"a name in the list", r.tag(key, kms.Tag{TagKey: "other"}, kms.Tag{TagKey: "locked", TagValue: "x"}), false},
		{"another name", r.tag(key, kms.Tag{TagKey: "other"}), true},
		{"the value", r.tag(key, kms.Tag{TagKey: "TEAM", TagValue: "payments"}), true},
		{"untag a name in the list", r.untag(key, "other", "locked"), false},
		{"untag another name", r.untag(key, "other"), true},
	} {
		if (c.err == nil) != c.allowed || c.err != nil && !errors.Is(c.err, kms.AccessDenied) {
			t.Errorf("%s: %v", c.what, c.err)
		}
	}
	if got, want := r.tags(key), "TEAM=payments locked="; got != want {
		t.Errorf("tags %q, want %q", got, want)
	}
	// A tag binds at once.
	_, err = r.Encrypt(t.Context(), root, &kms.EncryptRequest{KeyID: key, Plaintext: []byte("x")})
	if !errors.Is(err, kms.AccessDenied) {
		t.Errorf("Encrypt with a key whose tag is denied: %v", err)
	}
}
