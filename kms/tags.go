package kms

import (
	"context"
	"maps"
	"slices"
	"strings"
)

// A Tag is a name and a value that a client puts on a key [API, Tag].
type Tag struct {
	TagKey   string `json:"TagKey" aws:"required,min=1,max=128"`
	TagValue string `json:"TagValue" aws:"required,min=0,max=256"`
}

const maxTags = 50 // on one key (AWS KMS Developer Guide, "Resource quotas")

// tagMap returns tags by name, if they are what AWS allows on a key.
func tagMap(tags []Tag) (map[string]string, error) {
	m := make(map[string]string, len(tags))
	for _, t := range tags {
		if len(t.TagKey) >= 4 && strings.EqualFold(t.TagKey[:4], "aws:") {
			return nil, errorf(InvalidTag, "Tags beginning with aws: are reserved")
		}
		if _, ok := m[t.TagKey]; ok {
			return nil, errorf(InvalidTag, "Duplicate tag keys")
		}
		m[t.TagKey] = t.TagValue
	}
	if len(m) > maxTags {
		return nil, errorf(InvalidTag, "Too many tags")
	}
	return m, nil
}

// tagConditions returns what conditions can ask of the tags that a request puts on a key.
func tagConditions(tags map[string]string) []condition {
	var conditions []condition
	names := slices.Sorted(maps.Keys(tags))
	for _, name := range names {
		key := "aws:requesttag/" + strings.ToLower(name)
		i := slices.IndexFunc(conditions, func(c condition) bool { return c.key == key })
		if i < 0 {
			i = len(conditions)
			conditions = append(conditions, condition{key: key})
		}
		conditions[i].values = append(conditions[i].values, tags[name])
	}
	if names != nil {
		conditions = append(conditions, condition{"aws:tagkeys", names})
	}
	return conditions
}

// TagResourceRequest is the input of TagResource.
type TagResourceRequest struct {
	KeyID string `json:"KeyId" aws:"required,min=1,max=2048"`
	Tags  []Tag  `json:"Tags" aws:"required"`
}

// TagResource adds tags to a key. A tag of a name that the key has replaces the value.
func (s *Service) TagResource(ctx context.Context, who Caller, req *TagResourceRequest) (*Empty, error) {
	tags, fault := tagMap(req.Tags)
	a := manage("kms:TagResource", req.KeyID, notPending)
	a.conditions = tagConditions(tags)
	a.check = func(*Key) error { return fault } // the key and the right to it come first
	_, err := s.change(ctx, who, a, func(tx Tx, now *Key) error {
		merged := maps.Clone(tags)
		maps.Copy(merged, now.Tags)
		if len(merged) > maxTags {
			return errorf(InvalidTag, "Too many tags")
		}
		return tx.SetTags(now.ID, tags)
	})
	return &Empty{}, err
}

// UntagResourceRequest is the input of UntagResource.
type UntagResourceRequest struct {
	KeyID   string   `json:"KeyId" aws:"required,min=1,max=2048"`
	TagKeys []string `json:"TagKeys" aws:"required,item.min=1,item.max=128"`
}

// UntagResource takes tags from a key. Those that it does not have are passed over.
func (s *Service) UntagResource(ctx context.Context, who Caller, req *UntagResourceRequest) (*Empty, error) {
	a := manage("kms:UntagResource", req.KeyID, notPending)
	if len(req.TagKeys) > 0 {
		a.conditions = []condition{{"aws:tagkeys", req.TagKeys}}
	}
	_, err := s.change(ctx, who, a, func(tx Tx, now *Key) error {
		return tx.DeleteTags(now.ID, slices.DeleteFunc(slices.Sorted(maps.Keys(now.Tags)), func(name string) bool { return !slices.Contains(req.TagKeys, name) }))
	})
	return &Empty{}, err
}

// ListResourceTagsRequest is the input of ListResourceTags.
type ListResourceTagsRequest struct {
	KeyID  string `json:"KeyId" aws:"required,min=1,max=2048"`
	Limit  *int32 `json:"Limit" aws:"min=1,max=1000"`
	Marker string `json:"Marker" aws:"min=1,max=1024,pattern=marker"`
}

// ListResourceTagsResponse is the output of ListResourceTags.
type ListResourceTagsResponse struct {
	Tags       []Tag  `json:"Tags"`
	NextMarker string `json:"NextMarker,omitempty"`
	Truncated  bool   `json:"Truncated"`
}

// ListResourceTags lists the tags of a key, in the order of their names.
func (s *Service) ListResourceTags(ctx context.Context, who Caller, req *ListResourceTagsRequest) (*ListResourceTagsResponse, error) {
	after, err := parseMarker("ListResourceTags", req.Marker)
	if err != nil {
		return nil, err
	}
	key, err := s.open(ctx, who, manage("kms:ListResourceTags", req.KeyID, anyState))
	if err != nil {
		return nil, err
	}
	limit := pageSize(req.Limit, 50, 50)
	resp := &ListResourceTagsResponse{Tags: []Tag{}}
	for _, name := range slices.Sorted(maps.Keys(key.Tags)) {
		if name <= after {
			continue
		}
		if len(resp.Tags) == limit {
			resp.Truncated = true
			resp.NextMarker = newMarker("ListResourceTags", resp.Tags[limit-1].TagKey)
			break
		}
		resp.Tags = append(resp.Tags, Tag{TagKey: name, TagValue: key.Tags[name]})
	}
	return resp, nil
}
