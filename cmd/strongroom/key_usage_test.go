package main

import "testing"

func TestKeyUsage(t *testing.T) {
	f := newFakeKMS(t, map[string]fakeAnswer{
		"DescribeKey": always(fakeMetadata("Enabled", "")),
		"GetKeyLastUsage": always(`{"KeyId":"` + fakeKeyARN + `","KeyCreationDate":1700000000,"TrackingStartDate":1700000000,
			"KeyLastUsage":{"Operation":"Decrypt","Timestamp":1702592000.5,"CloudTrailEventId":"event","KmsRequestId":"request"}}`),
	})
	command(t, "key", "usage", "app").want(t, exitOK).wantOut(t, ""+
		"Key          "+fakeKeyARN+"\n"+
		"Last used    2023-12-14 22:13:20 UTC, Decrypt\n"+
		"Request      request\n"+
		"Audit event  event\n"+
		"Created      2023-11-14 22:13:20 UTC\n")
	if got := f.last("GetKeyLastUsage")["KeyId"]; got != fakeKeyID {
		t.Errorf("asked for %v", got)
	}
	command(t, "key", "usage", fakeKeyID, "--json").want(t, exitOK).wantOut(t, `{"KeyId":"`+fakeKeyARN+`",`+
		`"KeyLastUsage":{"Operation":"Decrypt","Timestamp":"2023-12-14T22:13:20.5Z","CloudTrailEventId":"event","KmsRequestId":"request"},`+
		`"TrackingStartDate":"2023-11-14T22:13:20Z","KeyCreationDate":"2023-11-14T22:13:20Z"}`+"\n")
}

func TestKeyNotUsed(t *testing.T) {
	f := newFakeKMS(t, map[string]fakeAnswer{
		"GetKeyLastUsage": always(`{"KeyId":"` + fakeKeyARN + `","KeyCreationDate":1700000000,"TrackingStartDate":1700000000,"KeyLastUsage":{}}`),
	})
	command(t, "key", "usage", fakeKeyID).want(t, exitOK).wantOut(t, ""+
		"Key        "+fakeKeyARN+"\n"+
		"Last used  never\n"+
		"Created    2023-11-14 22:13:20 UTC\n")
	command(t, "key", "usage", fakeKeyID, "--json").want(t, exitOK).wantOut(t, `{"KeyId":"`+fakeKeyARN+`","KeyLastUsage":{},`+
		`"TrackingStartDate":"2023-11-14T22:13:20Z","KeyCreationDate":"2023-11-14T22:13:20Z"}`+"\n")

	f.answer("GetKeyLastUsage", always(`{"KeyId":"`+fakeKeyARN+`","KeyCreationDate":1700000000,"TrackingStartDate":1702592000}`))
	command(t, "key", "usage", fakeKeyID).want(t, exitOK).wantOut(t, ""+
		"Key        "+fakeKeyARN+"\n"+
		"Last used  not since 2023-12-14 22:13:20 UTC; before that is not known\n"+
		"Created    2023-11-14 22:13:20 UTC\n")
}
