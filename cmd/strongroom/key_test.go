package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

const fakeMetadataJSON = `{"KeyMetadata":{"AWSAccountId":"111122223333","KeyId":"` + fakeKeyID + `","Arn":"` + fakeKeyARN + `","CreationDate":"2023-11-14T22:13:20.5Z",` +
	`"Enabled":true,"Description":"of app","KeyUsage":"ENCRYPT_DECRYPT","KeyState":"Enabled","Origin":"AWS_KMS","KeyManager":"CUSTOMER",` +
	`"KeySpec":"SYMMETRIC_DEFAULT","EncryptionAlgorithms":["SYMMETRIC_DEFAULT"],"MultiRegion":false`

func TestKeyCreate(t *testing.T) {
	f := newFakeKMS(t, map[string]fakeAnswer{
		"CreateKey":   always(fakeMetadata("Enabled", "")),
		"DescribeKey": always(fakeRefusal{400, "NotFoundException", "no such alias"}),
		"CreateAlias": always(`{}`),
	})
	command(t, "key", "create").want(t, exitOK).wantOut(t, fakeKeyID+"\n")
	command(t, "key", "create", "--json").want(t, exitOK).wantOut(t, fakeMetadataJSON+"}}\n")
	command(t, "key", "create", "--json", "--alias", "app", "--description", "of app", "--tag", "b=2,3", "--tag", "a=1", "--multi-region").
		want(t, exitOK).wantOut(t, fakeMetadataJSON+`},"AliasName":"alias/app"}`+"\n")

	in := f.last("CreateKey")
	if got, want := fmt.Sprint(in), "map[Description:of app MultiRegion:true Tags:[map[TagKey:a TagValue:1] map[TagKey:b TagValue:2,3]]]"; got != want {
		t.Errorf("CreateKey got %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(f.last("CreateAlias")), "map[AliasName:alias/app TargetKeyId:"+fakeKeyID+"]"; got != want {
		t.Errorf("CreateAlias got %s, want %s", got, want)
	}
}

func TestKeyCreateWithPolicy(t *testing.T) {
	f := newFakeKMS(t, map[string]fakeAnswer{"CreateKey": always(fakeMetadata("Enabled", ""))})
	t.Chdir(t.TempDir())
	if err := writeNew(newFile{path: "good", content: []byte(`{"Version":"2012-10-17"}`)}, newFile{path: "bad", content: []byte(`{`)}); err != nil {
		t.Fatal(err)
	}
	command(t, "key", "create", "--policy-file", "bad").want(t, exitMisuse, "the policy bad is not JSON")
	command(t, "key", "create", "--policy-file", "none").want(t, exitMisuse, "the policy: read none: no such file")
	if len(f.called()) != 0 {
		t.Errorf("asked for %q", f.called())
	}
	command(t, "key", "create", "--policy-file", "good").want(t, exitOK)
	if got := f.last("CreateKey")["Policy"]; got != `{"Version":"2012-10-17"}` {
		t.Errorf("sent the policy %v", got)
	}
}

// A key that could not have its alias is not made; one that was made all the same is not lost sight of.
func TestKeyCreateAliasTaken(t *testing.T) {
	f := newFakeKMS(t, map[string]fakeAnswer{"DescribeKey": always(fakeMetadata("Enabled", ""))})
	command(t, "key", "create", "--alias", "app").want(t, exitFailed, "alias/app is already the name of key "+fakeKeyID).wantOut(t, "")
	if slices.Contains(f.called(), "CreateKey") {
		t.Error("a key was made")
	}

	newFakeKMS(t, map[string]fakeAnswer{
		"DescribeKey": always(fakeRefusal{400, "AccessDeniedException", ""}),
		"CreateKey":   always(fakeMetadata("Enabled", "")),
		"CreateAlias": always(fakeRefusal{400, "AlreadyExistsException", "taken"}),
	})
	command(t, "key", "create", "--alias", "app").want(t, exitFailed, "create alias/app: taken", "hint: the key "+fakeKeyID+" was made")
}

// Sent again after a lost answer, CreateKey would make a second key.
func TestKeyCreateIsSentOnce(t *testing.T) {
	f := newFakeKMS(t, map[string]fakeAnswer{"CreateKey": always(fakeRefusal{500, "KMSInternalException", ""})})
	command(t, "key", "create").want(t, exitFailed, "the server failed (KMSInternalException")
	if got := f.called(); len(got) != 1 {
		t.Errorf("asked for %q", got)
	}
}

func TestKeyList(t *testing.T) {
	id := func(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }
	states := map[string]any{
		id(1): fakeMetadata("Enabled", ""),
		id(2): fakeMetadata("PendingDeletion", `,"DeletionDate":1702592000`),
		id(3): fakeRefusal{400, "AccessDeniedException", ""},
		id(4): fakeRefusal{400, "NotFoundException", "destroyed meanwhile"},
	}
	answers := map[string]fakeAnswer{
		"ListKeys": func(in map[string]any) any {
			if in["Marker"] == nil {
				return `{"Keys":[{"KeyId":"` + id(1) + `","KeyArn":"arn:1"},{"KeyId":"` + id(2) + `","KeyArn":"arn:2"}],"Truncated":true,"NextMarker":"more"}`
			}
			return `{"Keys":[{"KeyId":"` + id(3) + `","KeyArn":"arn:3"},{"KeyId":"` + id(4) + `","KeyArn":"arn:4"}],"Truncated":false}`
		},
		"ListAliases": func(in map[string]any) any {
			if in["Marker"] == nil {
				return `{"Aliases":[{"AliasName":"alias/z","TargetKeyId":"` + id(1) + `"}],"Truncated":true,"NextMarker":"more"}`
			}
			return `{"Aliases":[{"AliasName":"alias/a","TargetKeyId":"` + id(1) + `"}],"Truncated":false}`
		},
		"DescribeKey": func(in map[string]any) any { return states[in["KeyId"].(string)] },
	}
	f := newFakeKMS(t, answers)
	command(t, "key", "list").want(t, exitOK).wantOut(t, ""+
		"KEY                                   STATE                       CREATED     ALIASES          DESCRIPTION\n"+
		id(1)+"  Enabled                     2023-11-14  alias/a alias/z  of app\n"+
		id(2)+"  PendingDeletion 2023-12-14  2023-11-14                   of app\n"+
		id(3)+"  ?\n")
	command(t, "key", "list", "--json").want(t, exitOK).wantOut(t, `{"Keys":[`+
		`{"KeyId":"`+id(1)+`","KeyArn":"arn:1","KeyState":"Enabled","Description":"of app","CreationDate":"2023-11-14T22:13:20.5Z","Aliases":["alias/a","alias/z"]},`+
		`{"KeyId":"`+id(2)+`","KeyArn":"arn:2","KeyState":"PendingDeletion","Description":"of app","CreationDate":"2023-11-14T22:13:20.5Z","DeletionDate":"2023-12-14T22:13:20Z","Aliases":[]},`+
		`{"KeyId":"`+id(3)+`","KeyArn":"arn:3","Aliases":[]}]}`+"\n")

	f.answer("ListAliases", always(fakeRefusal{400, "AccessDeniedException", ""}))
	command(t, "key", "list").want(t, exitOK, "without the aliases, because listing them is not permitted")
	f.answer("DescribeKey", always(fakeRefusal{400, "ValidationException", "broken"}))
	command(t, "key", "list").want(t, exitFailed, "broken").wantOut(t, "")
	f.answer("ListKeys", always(`{"Keys":[]}`))
	command(t, "key", "list", "--json").wantOut(t, `{"Keys":[]}`+"\n")
}

func TestKeyDescribe(t *testing.T) {
	f := newFakeKMS(t, map[string]fakeAnswer{
		"DescribeKey": always(fakeMetadata("PendingDeletion", `,"DeletionDate":1702592000,"CurrentKeyMaterialId":"m1"`)),
		"ListAliases": always(`{"Aliases":[{"AliasName":"alias/app"},{"AliasName":"alias/\u001b[31m"}]}`),
	})
	command(t, "key", "describe", "app").want(t, exitOK).wantOut(t, ""+
		"Key id        "+fakeKeyID+"\n"+
		"ARN           "+fakeKeyARN+"\n"+
		"State         PendingDeletion\n"+
		"Description   of app\n"+
		"Aliases       alias/\ufffd[31m, alias/app\n"+
		"Created       2023-11-14 22:13:20 UTC\n"+
		"Destroyed     2023-12-14 22:13:20 UTC, unless: strongroom key undelete "+fakeKeyID+"\n"+
		"Spec          SYMMETRIC_DEFAULT, ENCRYPT_DECRYPT\n"+
		"Multi-Region  no\n"+
		"Material      m1\n")
	if got := f.last("DescribeKey")["KeyId"]; got != "alias/app" {
		t.Errorf("asked for key %v", got)
	}
}

func TestKeyStates(t *testing.T) {
	for _, test := range []struct{ command, operation, state string }{
		{"enable", "EnableKey", "Enabled"},
		{"disable", "DisableKey", "Disabled"},
		{"undelete", "CancelKeyDeletion", "Disabled"},
	} {
		f := newFakeKMS(t, map[string]fakeAnswer{test.operation: always(`{}`), "DescribeKey": always(fakeMetadata("Enabled", ""))})
		command(t, "key", test.command, fakeKeyID).want(t, exitOK).wantOut(t, fakeKeyID+"  "+test.state+"\n")
		command(t, "key", test.command, fakeKeyARN, "--json").want(t, exitOK).wantOut(t, `{"KeyId":"`+fakeKeyARN+`","KeyState":"`+test.state+`"}`+"\n")
		if got, want := f.called(), []string{test.operation, test.operation}; !slices.Equal(got, want) {
			t.Errorf("%s: asked for %q, want %q", test.command, got, want)
		}
		// The operations take no alias, people do.
		command(t, "key", test.command, "app").want(t, exitOK)
		if got := f.last(test.operation)["KeyId"]; got != fakeKeyID {
			t.Errorf("%s app: asked for key %v", test.command, got)
		}
	}
}

// deletable is a server with a key that can be deleted.
func deletable(t *testing.T) *fakeKMS {
	return newFakeKMS(t, map[string]fakeAnswer{
		"DescribeKey": always(fakeMetadata("Enabled", "")),
		"ListAliases": always(`{"Aliases":[{"AliasName":"alias/app"}]}`),
		"ScheduleKeyDeletion": func(in map[string]any) any {
			return fmt.Sprintf(`{"KeyId":"%s","DeletionDate":1702592000,"KeyState":"PendingDeletion","PendingWindowInDays":%v}`, fakeKeyARN, in["PendingWindowInDays"])
		},
	})
}

func TestKeyDeleteSaysWhatItWillDo(t *testing.T) {
	f := deletable(t)
	command(t, "key", "delete", "app").want(t, exitMisuse, fakeKeyARN, "alias/app", "of app", "in 30 days, about ", "can be read by nobody",
		"strongroom key undelete "+fakeKeyID, "nobody is there to confirm it, so nothing was done", "hint: --yes").wantOut(t, "")
	if slices.Contains(f.called(), "ScheduleKeyDeletion") {
		t.Error("it was done")
	}
	command(t, "key", "delete", "app", "--yes").want(t, exitOK, fakeKeyARN, "can be read by nobody").
		wantOut(t, fakeKeyID+"  PendingDeletion  2023-12-14 22:13:20 UTC\n")
	command(t, "key", "delete", "app", "--yes", "--days", "7", "--json").want(t, exitOK, "in 7 days").
		wantOut(t, `{"KeyId":"`+fakeKeyARN+`","KeyState":"PendingDeletion","DeletionDate":"2023-12-14T22:13:20Z","PendingWindowInDays":7}`+"\n")
	if got := f.last("ScheduleKeyDeletion")["KeyId"]; got != fakeKeyID {
		t.Errorf("deleted key %v", got)
	}
}

func TestKeyDeleteAsks(t *testing.T) {
	for answer, code := range map[string]int{
		fakeKeyID + "\n":   exitOK,
		fakeKeyID + "\r\n": exitOK,
		fakeKeyID:          exitOK,
		"yes\n":            exitFailed,
		"app\n":            exitFailed,
		"\n":               exitFailed,
		"":                 exitFailed,
	} {
		f := deletable(t)
		said := runWith(t, newTerminal(answer), new(bytes.Buffer), "key", "delete", "app")
		said.want(t, code, "Type the key id to do it: ")
		if done := slices.Contains(f.called(), "ScheduleKeyDeletion"); done != (code == exitOK) {
			t.Errorf("%q: done = %v", answer, done)
		}
		if code != exitOK && !strings.Contains(said.stderr, "that was not its id; nothing was done") {
			t.Errorf("%q: %s", answer, said.stderr)
		}
	}
}

func TestKeyDeleteRefuses(t *testing.T) {
	f := deletable(t)
	for _, days := range []string{"6", "31", "-1", "0"} {
		command(t, "key", "delete", "app", "--yes", "--days", days).want(t, exitMisuse, "--days "+days+": must be 7 to 30")
	}
	command(t, "key", "delete", "app", "--yes", "--days", "soon").want(t, exitMisuse)
	if len(f.called()) != 0 {
		t.Errorf("asked for %q", f.called())
	}
	f.answer("DescribeKey", always(fakeMetadata("PendingDeletion", `,"DeletionDate":1702592000`)))
	command(t, "key", "delete", "app", "--yes").want(t, exitFailed, "to be destroyed already, on 2023-12-14 22:13:20 UTC", "hint: strongroom key undelete")
}
