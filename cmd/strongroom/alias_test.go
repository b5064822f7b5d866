package main

import (
	"fmt"
	"testing"
)

func TestAliasCreateAndUpdate(t *testing.T) {
	for verb, operation := range map[string]string{"create": "CreateAlias", "update": "UpdateAlias"} {
		f := newFakeKMS(t, map[string]fakeAnswer{operation: always(`{}`), "DescribeKey": always(fakeMetadata("Enabled", ""))})
		command(t, "alias", verb, "app", fakeKeyID).want(t, exitOK).wantOut(t, "alias/app  "+fakeKeyID+"\n")
		command(t, "alias", verb, "alias/app", "old", "--json").want(t, exitOK).
			wantOut(t, `{"AliasName":"alias/app","TargetKeyId":"`+fakeKeyID+`"}`+"\n")
		if got, want := fmt.Sprint(f.last(operation)), "map[AliasName:alias/app TargetKeyId:"+fakeKeyID+"]"; got != want {
			t.Errorf("%s got %s, want %s", operation, got, want)
		}
		if got := f.last("DescribeKey")["KeyId"]; got != "alias/old" {
			t.Errorf("looked for key %v", got)
		}
	}
}

func TestAliasDelete(t *testing.T) {
	f := newFakeKMS(t, map[string]fakeAnswer{"DeleteAlias": always(`{}`)})
	command(t, "alias", "delete", "app").want(t, exitOK, "alias/app is deleted").wantOut(t, "")
	command(t, "alias", "delete", "app", "--json").want(t, exitOK).wantOut(t, `{"AliasName":"alias/app"}`+"\n")
	if got := f.last("DeleteAlias")["AliasName"]; got != "alias/app" {
		t.Errorf("deleted %v", got)
	}
}

func TestAliasList(t *testing.T) {
	f := newFakeKMS(t, map[string]fakeAnswer{
		"DescribeKey": always(fakeMetadata("Enabled", "")),
		"ListAliases": always(`{"Aliases":[
			{"AliasName":"alias/b","AliasArn":"arn:b","TargetKeyId":"` + fakeKeyID + `","CreationDate":1700000000,"LastUpdatedDate":1702592000},
			{"AliasName":"alias/a","AliasArn":"arn:a"}]}`),
	})
	command(t, "alias", "list").want(t, exitOK).wantOut(t, ""+
		"ALIAS    KEY                                   UPDATED\n"+
		"alias/a\n"+
		"alias/b  "+fakeKeyID+"  2023-12-14 22:13:20 UTC\n")
	command(t, "alias", "list", "--json", "--key", "app").want(t, exitOK).wantOut(t, `{"Aliases":[{"AliasName":"alias/a","AliasArn":"arn:a"},`+
		`{"AliasName":"alias/b","AliasArn":"arn:b","TargetKeyId":"`+fakeKeyID+`","CreationDate":"2023-11-14T22:13:20Z","LastUpdatedDate":"2023-12-14T22:13:20Z"}]}`+"\n")
	if got := f.last("ListAliases")["KeyId"]; got != fakeKeyID {
		t.Errorf("asked for the aliases of %v", got)
	}
}
