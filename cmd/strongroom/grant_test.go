package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const (
	fakeGrantID = "0c237476b39f8bc44e45212e08498fbe3151305030726c0590dd8d3e9f3d6a60"
	fakeGrantee = "arn:aws:iam::111122223333:role/job"
)

var dryRunRefusal = fakeRefusal{400, "DryRunOperationException", "The request would have succeeded, but the DryRun option is set."}

func TestGrantCreate(t *testing.T) {
	f := newFakeKMS(t, map[string]fakeAnswer{
		"DescribeKey": always(fakeMetadata("Enabled", "")),
		"CreateGrant": always(`{"GrantId":"` + fakeGrantID + `","GrantToken":"token"}`),
	})
	command(t, "grant", "create", "app", "--grantee", fakeGrantee, "--operation", "Decrypt").want(t, exitOK).wantOut(t, ""+
		"Grant id  "+fakeGrantID+"\n"+
		"Token     token\n")
	want := "map[GranteePrincipal:" + fakeGrantee + " KeyId:" + fakeKeyID + " Operations:[Decrypt]]"
	if got := fmt.Sprint(f.last("CreateGrant")); got != want {
		t.Errorf("sent %s, want %s", got, want)
	}

	command(t, "grant", "create", fakeKeyARN, "--json", "--grantee", fakeGrantee, "--operation", "Encrypt", "--operation", "Decrypt", "--name", "n",
		"--retiring", fakeGrantee, "--context-equals", "a=1,2", "--context-equals", "b=3", "--context-subset", `{"c":"4"}`,
		"--grant-token", "one", "--grant-token", "two,three").want(t, exitOK).wantOut(t, `{"GrantId":"`+fakeGrantID+`","GrantToken":"token"}`+"\n")
	want = "map[Constraints:map[EncryptionContextEquals:map[a:1,2 b:3] EncryptionContextSubset:map[c:4]] GrantTokens:[one two,three] " +
		"GranteePrincipal:" + fakeGrantee + " KeyId:" + fakeKeyARN + " Name:n Operations:[Encrypt Decrypt] RetiringPrincipal:" + fakeGrantee + "]"
	if got := fmt.Sprint(f.last("CreateGrant")); got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
}

func TestGrantCreateUsedWrongly(t *testing.T) {
	f := newFakeKMS(t, nil)
	for args, want := range map[string]string{
		"app --operation Decrypt":                                     "--grantee is missing",
		"app --grantee " + fakeGrantee:                                "--operation is missing",
		"app --grantee " + fakeGrantee + " --operation decrypt":       "--operation decrypt: is not what a grant can be for",
		"--grantee " + fakeGrantee + " --operation Decrypt":           "KEY is missing",
		"app --grantee g --operation Decrypt --context-subset a":      "is not NAME=VALUE",
		"app --grantee g --operation Decrypt --grant-token= --name n": "is empty",
	} {
		command(t, append([]string{"grant", "create"}, strings.Fields(args)...)...).want(t, exitMisuse, want)
	}
	if len(f.called()) != 0 {
		t.Errorf("asked for %q", f.called())
	}
}

// Sent again after a lost answer, CreateGrant would make a second grant, unless the grant has a name.
func TestGrantCreateIsSentOnce(t *testing.T) {
	answers := map[string]fakeAnswer{"CreateGrant": always(fakeRefusal{500, "KMSInternalException", ""})}
	f := newFakeKMS(t, answers)
	create := []string{"grant", "create", fakeKeyID, "--grantee", fakeGrantee, "--operation", "Decrypt"}
	command(t, create...).want(t, exitFailed, "create a grant on key "+fakeKeyID+": the server failed")
	if got := f.called(); len(got) != 1 {
		t.Errorf("asked for %q", got)
	}
	f = newFakeKMS(t, answers)
	command(t, append(create, "--name", "n")...).want(t, exitFailed)
	if got := f.called(); len(got) == 1 {
		t.Error("a grant with a name was not asked for again")
	}
}

func TestGrantDryRun(t *testing.T) {
	f := newFakeKMS(t, map[string]fakeAnswer{
		"CreateGrant": always(dryRunRefusal), "RevokeGrant": always(dryRunRefusal), "RetireGrant": always(dryRunRefusal),
	})
	for operation, args := range map[string][]string{
		"CreateGrant": {"grant", "create", fakeKeyID, "--grantee", fakeGrantee, "--operation", "Decrypt", "--dry-run"},
		"RevokeGrant": {"grant", "revoke", fakeKeyID, fakeGrantID, "--dry-run"},
		"RetireGrant": {"grant", "retire", "--token", "t", "--dry-run"},
	} {
		command(t, args...).want(t, exitOK, "it would be permitted; nothing was done").wantOut(t, "")
		command(t, append(args, "--json")...).want(t, exitOK).wantOut(t, `{"DryRun":true}`+"\n")
		if f.last(operation)["DryRun"] != true {
			t.Errorf("sent %v", f.last(operation))
		}
		f.answer(operation, always(fakeRefusal{400, "AccessDeniedException", ""}))
		command(t, args...).want(t, exitFailed, "not permitted").wantOut(t, "")
	}
}

func TestGrantList(t *testing.T) {
	f := newFakeKMS(t, map[string]fakeAnswer{
		"DescribeKey": always(fakeMetadata("Enabled", "")),
		"ListGrants": func(in map[string]any) any {
			if in["Marker"] == nil {
				return `{"Grants":[{"KeyId":"` + fakeKeyARN + `","GrantId":"g1","Name":"","CreationDate":1700000000,"GranteePrincipal":"` + fakeGrantee + `",
					"IssuingAccount":"arn:aws:iam::111122223333:root","Operations":["Encrypt","Decrypt"]}],"Truncated":true,"NextMarker":"more"}`
			}
			return `{"Grants":[{"KeyId":"` + fakeKeyARN + `","GrantId":"g2","Name":"n","CreationDate":1700000000.5,"GranteePrincipal":"` + fakeGrantee + `",
				"RetiringPrincipal":"arn:r","IssuingAccount":"arn:aws:iam::111122223333:root","Operations":["Decrypt"],
				"Constraints":{"EncryptionContextEquals":{"b":"2","a":"1"},"EncryptionContextSubset":{"c":"3"},"SourceArn":"arn:s"}}],"Truncated":false}`
		},
	})
	command(t, "grant", "list", "app").want(t, exitOK).wantOut(t, ""+
		"Grant id    g1\n"+
		"Key         "+fakeKeyARN+"\n"+
		"Grantee     "+fakeGrantee+"\n"+
		"Operations  Encrypt, Decrypt\n"+
		"Created     2023-11-14 22:13:20 UTC\n"+
		"\n"+
		"Grant id     g2\n"+
		"Key          "+fakeKeyARN+"\n"+
		"Name         n\n"+
		"Grantee      "+fakeGrantee+"\n"+
		"Operations   Decrypt\n"+
		"Context is   a=1, b=2\n"+
		"Context has  c=3\n"+
		"Source       arn:s\n"+
		"Retired by   arn:r\n"+
		"Created      2023-11-14 22:13:20 UTC\n")
	command(t, "grant", "list", "app", "--grantee", fakeGrantee, "--json").want(t, exitOK).wantOut(t, `{"Grants":[`+
		`{"KeyId":"`+fakeKeyARN+`","GrantId":"g1","CreationDate":"2023-11-14T22:13:20Z","GranteePrincipal":"`+fakeGrantee+`",`+
		`"IssuingAccount":"arn:aws:iam::111122223333:root","Operations":["Encrypt","Decrypt"]},`+
		`{"KeyId":"`+fakeKeyARN+`","GrantId":"g2","Name":"n","CreationDate":"2023-11-14T22:13:20.5Z","GranteePrincipal":"`+fakeGrantee+`",`+
		`"RetiringPrincipal":"arn:r","IssuingAccount":"arn:aws:iam::111122223333:root","Operations":["Decrypt"],`+
		`"Constraints":{"EncryptionContextSubset":{"c":"3"},"EncryptionContextEquals":{"a":"1","b":"2"},"SourceArn":"arn:s"}}]}`+"\n")
	if in := f.last("ListGrants"); in["KeyId"] != fakeKeyID || in["GranteePrincipal"] != fakeGrantee {
		t.Errorf("sent %v", in)
	}
	f.answer("ListGrants", always(`{"Grants":[],"Truncated":false}`))
	command(t, "grant", "list", "app").want(t, exitOK, "there are no such grants").wantOut(t, "")
	command(t, "grant", "list", "app", "--json").wantOut(t, `{"Grants":[]}`+"\n")
}

func TestGrantRetirable(t *testing.T) {
	f := newFakeKMS(t, map[string]fakeAnswer{
		"ListRetirableGrants": func(in map[string]any) any {
			return fmt.Sprintf(`{"Grants":[{"KeyId":"k","GrantId":"after %v"}],"Truncated":%v,"NextMarker":"more"}`, in["Marker"], in["Marker"] == nil)
		},
	})
	command(t, "grant", "retirable", fakeGrantee).want(t, exitOK).wantOut(t, "Grant id  after <nil>\nKey       k\n\nGrant id  after more\nKey       k\n")
	if got := f.last("ListRetirableGrants")["RetiringPrincipal"]; got != fakeGrantee {
		t.Errorf("asked for %v", got)
	}
}

func TestGrantRevokeAndRetire(t *testing.T) {
	f := newFakeKMS(t, map[string]fakeAnswer{
		"DescribeKey": always(fakeMetadata("Enabled", "")), "RevokeGrant": always(""), "RetireGrant": always(""),
	})
	ended := `{"KeyId":"` + fakeKeyID + `","GrantId":"` + fakeGrantID + `"}` + "\n"
	command(t, "grant", "revoke", "app", fakeGrantID).want(t, exitOK, "the grant is revoked").wantOut(t, "")
	command(t, "grant", "revoke", "app", fakeGrantID, "--json").want(t, exitOK).wantOut(t, ended)
	command(t, "grant", "retire", "app", fakeGrantID).want(t, exitOK, "the grant is retired").wantOut(t, "")
	command(t, "grant", "retire", "app", fakeGrantID, "--json").want(t, exitOK).wantOut(t, ended)
	for _, operation := range []string{"RevokeGrant", "RetireGrant"} {
		if got, want := fmt.Sprint(f.last(operation)), "map[GrantId:"+fakeGrantID+" KeyId:"+fakeKeyID+"]"; got != want {
			t.Errorf("%s: sent %s, want %s", operation, got, want)
		}
	}
	command(t, "grant", "retire", "--token", "-token", "--json").want(t, exitOK).wantOut(t, `{"GrantToken":"-token"}`+"\n")
	if got, want := fmt.Sprint(f.last("RetireGrant")), "map[GrantToken:-token]"; got != want {
		t.Errorf("sent %s, want %s", got, want)
	}

	asked := len(f.called())
	command(t, "grant", "retire", "app", "--token", "t").want(t, exitMisuse, `"app" is one argument too many`, "hint: a token names the key and the grant")
	command(t, "grant", "retire", "app").want(t, exitMisuse, "GRANTID is missing")
	command(t, "grant", "revoke", "app").want(t, exitMisuse, "GRANTID is missing")
	if got := f.called()[asked:]; len(got) != 0 {
		t.Errorf("asked for %q", got)
	}
}

// Every command that a grant may permit can name it.
func TestGrantTokens(t *testing.T) {
	f := newFakeKMS(t, nil) // which refuses everything
	for operation, args := range map[string][]string{
		"Encrypt":                             {"encrypt", "--key", "k"},
		"Decrypt":                             {"decrypt"},
		"GenerateDataKey":                     {"datakey", "--key", "k"},
		"GenerateDataKeyWithoutPlaintext":     {"datakey", "--key", "k", "--no-plaintext"},
		"GenerateDataKeyPair":                 {"keypair", "--key", "k", "--spec", "SM2"},
		"GenerateDataKeyPairWithoutPlaintext": {"keypair", "--key", "k", "--spec", "SM2", "--no-plaintext"},
	} {
		typed(t, "input", append(args, "--grant-token", "a", "--grant-token", "b,c")...).want(t, exitFailed)
		if got, want := fmt.Sprint(f.last(operation)["GrantTokens"]), "[a b,c]"; got != want {
			t.Errorf("%s: sent the tokens %s, want %s", operation, got, want)
		}
		if typed(t, "input", args...).want(t, exitFailed); f.last(operation)["GrantTokens"] != nil {
			t.Errorf("%s: sent tokens that were not given", operation)
		}
	}
	if slices.Contains(f.called(), "DescribeKey") {
		t.Error("asked for more than that")
	}
}
