package main

import (
	"fmt"
	"testing"
)

func TestKeyTag(t *testing.T) {
	f := newFakeKMS(t, map[string]fakeAnswer{"DescribeKey": always(fakeMetadata("Enabled", "")), "TagResource": always("")})
	command(t, "key", "tag", "app", "team=a,b", "empty=", "stage=test=1").want(t, exitOK, "key "+fakeKeyID+" is tagged").wantOut(t, "")
	want := "map[KeyId:" + fakeKeyID + " Tags:[map[TagKey:empty TagValue:] map[TagKey:stage TagValue:test=1] map[TagKey:team TagValue:a,b]]]"
	if got := fmt.Sprint(f.last("TagResource")); got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
	command(t, "key", "tag", fakeKeyARN, `{"b":"2","a":"1"}`, "--json").want(t, exitOK).
		wantOut(t, `{"KeyId":"`+fakeKeyARN+`","Tags":[{"TagKey":"a","TagValue":"1"},{"TagKey":"b","TagValue":"2"}]}`+"\n")

	asked := len(f.called())
	command(t, "key", "tag", "app").want(t, exitMisuse, "NAME=VALUE is missing")
	command(t, "key", "tag", "app", "team").want(t, exitMisuse, `"team": is not NAME=VALUE`)
	command(t, "key", "tag", "app", "a=1", "a=2").want(t, exitMisuse, `"a" is given twice`)
	command(t, "key", "tag", "app", "{}").want(t, exitMisuse, "there is no tag in")
	command(t, "key", "tag", "app", "a=1", "").want(t, exitMisuse, "NAME=VALUE is empty")
	if len(f.called()) != asked {
		t.Errorf("asked for %q", f.called()[asked:])
	}
}

func TestKeyUntag(t *testing.T) {
	f := newFakeKMS(t, map[string]fakeAnswer{"DescribeKey": always(fakeMetadata("Enabled", "")), "UntagResource": always("")})
	command(t, "key", "untag", "app", "team", "a,b").want(t, exitOK, "key "+fakeKeyID+" has these tags no longer").wantOut(t, "")
	if got, want := fmt.Sprint(f.last("UntagResource")), "map[KeyId:"+fakeKeyID+" TagKeys:[team a,b]]"; got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
	command(t, "key", "untag", fakeKeyID, "team", "--json").want(t, exitOK).wantOut(t, `{"KeyId":"`+fakeKeyID+`","TagKeys":["team"]}`+"\n")
	command(t, "key", "untag", "app").want(t, exitMisuse, "NAME is missing")
}

func TestKeyTags(t *testing.T) {
	f := newFakeKMS(t, map[string]fakeAnswer{
		"DescribeKey": always(fakeMetadata("Enabled", "")),
		"ListResourceTags": func(in map[string]any) any {
			if in["Marker"] == nil {
				return `{"Tags":[{"TagKey":"stage","TagValue":"\u001b[31m"}],"Truncated":true,"NextMarker":"more"}`
			}
			return `{"Tags":[{"TagKey":"team","TagValue":"payments"}],"Truncated":false}`
		},
	})
	command(t, "key", "tags", "app").want(t, exitOK).wantOut(t, ""+
		"NAME   VALUE\n"+
		"stage  \ufffd[31m\n"+
		"team   payments\n")
	command(t, "key", "tags", fakeKeyID, "--json").want(t, exitOK).
		wantOut(t, `{"Tags":[{"TagKey":"stage","TagValue":"\u001b[31m"},{"TagKey":"team","TagValue":"payments"}]}`+"\n")
	f.answer("ListResourceTags", always(`{"Tags":[],"Truncated":false}`))
	command(t, "key", "tags", "app").want(t, exitOK, "the key has no tags:  strongroom key tag "+fakeKeyID).wantOut(t, "")
	command(t, "key", "tags", "app", "--json").wantOut(t, `{"Tags":[]}`+"\n")
}
