package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"strongroom/kms/policy"
)

func TestKeyPolicyGet(t *testing.T) {
	f := newFakeKMS(t, map[string]fakeAnswer{
		"DescribeKey":  always(fakeMetadata("Enabled", "")),
		"GetKeyPolicy": always(`{"Policy":"{\r\n\t\"a\": \"\u009b31m<\"\n}","PolicyName":"default"}`),
	})
	command(t, "key", "policy", "get", "app").want(t, exitOK).wantOut(t, "{\r\n\t\"a\": \"\u009b31m<\"\n}")
	if got, want := fmt.Sprint(f.last("GetKeyPolicy")), "map[KeyId:"+fakeKeyID+"]"; got != want {
		t.Errorf("asked with %s, want %s", got, want)
	}
	command(t, "key", "policy", "get", fakeKeyARN, "--json").want(t, exitOK).
		wantOut(t, `{"Policy":"{\r\n\t\"a\": \"`+"\u009b"+`31m<\"\n}","PolicyName":"default"}`+"\n")
	if got := f.last("GetKeyPolicy")["KeyId"]; got != fakeKeyARN {
		t.Errorf("asked for the policy of %v", got)
	}
	// At a terminal it ends its last line, and cannot steer it.
	runWith(t, strings.NewReader(""), newTerminal(""), "key", "policy", "get", "app").want(t, exitOK).wantOut(t, "{\n    \"a\": \"\ufffd31m<\"\n}\n")
}

func TestKeyPolicyPut(t *testing.T) {
	f := newFakeKMS(t, map[string]fakeAnswer{"DescribeKey": always(fakeMetadata("Enabled", "")), "PutKeyPolicy": always("")})
	t.Chdir(t.TempDir())
	text := "{\"Statement\": [\n]}\n"
	if err := writeNew(newFile{path: "good", content: []byte(text)}, newFile{path: "bad", content: []byte(`{`)},
		newFile{path: "big", content: []byte("{" + strings.Repeat(" ", policy.MaxSize) + "}")}); err != nil {
		t.Fatal(err)
	}
	command(t, "key", "policy", "put", "app", "bad").want(t, exitMisuse, "the policy bad is not JSON")
	command(t, "key", "policy", "put", "app", "big").want(t, exitMisuse, "the policy big is longer than 32768 bytes")
	command(t, "key", "policy", "put", "app", "none").want(t, exitMisuse, "the policy: read none: no such file")
	typed(t, "", "key", "policy", "put", "app", "-").want(t, exitMisuse, "the policy - is not JSON")
	command(t, "key", "policy", "put", "app").want(t, exitMisuse, "FILE is missing")
	if len(f.called()) != 0 {
		t.Errorf("asked for %q", f.called())
	}

	command(t, "key", "policy", "put", "app", "good").want(t, exitOK, "the policy of key "+fakeKeyID+" is replaced").wantOut(t, "")
	in := f.last("PutKeyPolicy")
	if in["KeyId"] != fakeKeyID || in["Policy"] != text || in["BypassPolicyLockoutSafetyCheck"] == true {
		t.Errorf("sent %v", in)
	}
	typed(t, text, "key", "policy", "put", fakeKeyID, "-", "--bypass-lockout-check", "--json").want(t, exitOK).
		wantOut(t, `{"KeyId":"`+fakeKeyID+`","PolicyName":"default"}`+"\n")
	in = f.last("PutKeyPolicy")
	if in["Policy"] != text || in["BypassPolicyLockoutSafetyCheck"] != true {
		t.Errorf("sent %v", in)
	}
	runWith(t, newTerminal(text), new(bytes.Buffer), "key", "policy", "put", fakeKeyID, "-").want(t, exitOK, "reading from the terminal")
}

func TestKeyPolicyPutRefused(t *testing.T) {
	f := newFakeKMS(t, map[string]fakeAnswer{
		"PutKeyPolicy": always(fakeRefusal{400, "MalformedPolicyDocumentException", "The new key policy will not allow you to update the key policy in the future."}),
	})
	typed(t, "{}", "key", "policy", "put", fakeKeyID, "-").want(t, exitFailed, "put the policy of key "+fakeKeyID+": The new key policy will not allow", "hint: --bypass-lockout-check")
	// Put again after a lost answer, the new policy itself might refuse it.
	f.answer("PutKeyPolicy", always(fakeRefusal{500, "KMSInternalException", ""}))
	typed(t, "{}", "key", "policy", "put", fakeKeyID, "-").want(t, exitFailed, "the server failed")
	if got, want := f.called(), []string{"PutKeyPolicy", "PutKeyPolicy"}; !slices.Equal(got, want) {
		t.Errorf("asked for %q, want %q", got, want)
	}
	command(t, "key", "policy", "drop", "app").want(t, exitMisuse, `policy drop"`)
}
