package main

import (
	"maps"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/urfave/cli/v2"
)

func keyTagCommand() *cli.Command {
	return clientCommand(&cli.Command{
		Name:      "tag",
		Usage:     "put tags on a key",
		ArgsUsage: "KEY NAME=VALUE...",
		Description: `A tag of a name that the key has gets the new value; its other tags stay. Policies can ask for tags (aws:ResourceTag/NAME).
Tags are not secret. In place of NAME=VALUE, a JSON object says all of its members.

Example:  strongroom key tag app team=payments stage=test` + keyHelp,
		Action: tagKey,
	})
}

func keyUntagCommand() *cli.Command {
	return clientCommand(&cli.Command{
		Name:      "untag",
		Usage:     "take tags from a key",
		ArgsUsage: "KEY NAME...",
		Description: `A tag that the key does not have is passed over.

Example:  strongroom key untag app stage` + keyHelp,
		Action: untagKey,
	})
}

func keyTagsCommand() *cli.Command {
	return clientCommand(&cli.Command{
		Name:      "tags",
		Usage:     "list the tags of a key",
		ArgsUsage: "KEY",
		Description: `Example:  strongroom key tags app
          strongroom key tags app --json | jq -r .Tags[0].TagValue` + keyHelp,
		Action: listTags,
	})
}

// keyTagJSON is what the AWS KMS API calls Tag.
type keyTagJSON struct{ TagKey, TagValue string }

func tagKey(c *cli.Context) error {
	args, err := argumentsAndMore(c, "KEY", "NAME=VALUE")
	if err != nil {
		return err
	}
	given := pairs{}
	for _, arg := range args[1:] {
		if err := given.Set(arg); err != nil {
			return misuse("%q: %w", arg, err)
		}
	}
	if len(given) == 0 {
		return misuse("there is no tag in %q", args[1:])
	}
	s, err := connect(c)
	if err != nil {
		return err
	}
	key, err := s.keyItself(c.Context, args[0])
	if err != nil {
		return err
	}
	in := &awskms.TagResourceInput{KeyId: &key}
	tags := []keyTagJSON{}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		in.Tags = append(in.Tags, types.Tag{TagKey: aws.String(name), TagValue: aws.String(given[name])})
		tags = append(tags, keyTagJSON{name, given[name]})
	}
	if _, err := call(c.Context, s, "tag key "+key, s.TagResource, in); err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c, struct {
			KeyID string `json:"KeyId"`
			Tags  []keyTagJSON
		}{key, tags})
	}
	note(c, "key %s is tagged:  strongroom key tags %[1]s", key)
	return nil
}

func untagKey(c *cli.Context) error {
	args, err := argumentsAndMore(c, "KEY", "NAME")
	if err != nil {
		return err
	}
	s, err := connect(c)
	if err != nil {
		return err
	}
	key, err := s.keyItself(c.Context, args[0])
	if err != nil {
		return err
	}
	if _, err := call(c.Context, s, "untag key "+key, s.UntagResource, &awskms.UntagResourceInput{KeyId: &key, TagKeys: args[1:]}); err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c, struct {
			KeyID   string `json:"KeyId"`
			TagKeys []string
		}{key, args[1:]})
	}
	note(c, "key %s has these tags no longer:  strongroom key tags %[1]s", key)
	return nil
}

func listTags(c *cli.Context) error {
	s, key, err := connectForKey(c)
	if err != nil {
		return err
	}
	tags := []keyTagJSON{} // never null
	in := &awskms.ListResourceTagsInput{KeyId: &key, Limit: aws.Int32(50)}
	for {
		out, err := call(c.Context, s, "list the tags of key "+key, s.ListResourceTags, in)
		if err != nil {
			return err
		}
		for _, t := range out.Tags {
			tags = append(tags, keyTagJSON{aws.ToString(t.TagKey), aws.ToString(t.TagValue)})
		}
		if !out.Truncated {
			break
		}
		in.Marker = out.NextMarker
	}
	if c.Bool("json") {
		return printJSON(c, struct{ Tags []keyTagJSON }{tags})
	}
	if len(tags) == 0 {
		note(c, "the key has no tags:  strongroom key tag %s NAME=VALUE", key)
		return nil
	}
	rows := [][]string{{"NAME", "VALUE"}}
	for _, t := range tags {
		rows = append(rows, []string{t.TagKey, t.TagValue})
	}
	return printTable(c, rows)
}
