package policy

import (
	"reflect"
	"testing"
)

func TestExplain(t *testing.T) {
	parse := func(kind Kind, text string) *Document {
		d, err := Parse(kind, text)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	p := Policies{
		Key: parse(KeyPolicy, `{"Version":"2012-10-17","Statement":[
			{"Sid":"root","Effect":"Allow","Principal":{"AWS":"111122223333"},"Action":"kms:*","Resource":"*"},
			{"Sid":"bob","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:user/bob"},"Action":"kms:*","Resource":"*"},
			{"Effect":"Allow","Principal":"*","Action":"kms:Encrypt","Resource":"*"},
			{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"arn:aws:kms:*:*:key/other"},
			{"Sid":"context","Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*","Condition":{
				"StringEquals":{"kms:EncryptionContext:Department":["Finance","${aws:username}"],"aws:username":"alice"},
				"ForAnyValue:NumericLessThanIfExists":{"custom:N":[7,"8"]},
				"Bool":{"aws:MultiFactorAuthPresent":true}}},
			{"Sid":"insecure","Effect":"Deny","Principal":"*","Action":"*","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":"false"}}},
			{"Effect":"Allow","Principal":"*"}]}`),
		Identity: []Named{{"use-keys", parse(IdentityPolicy, `{"Statement":{"Effect":"Allow","Action":"kms:Decrypt","Resource":"*"}}`)}},
	}
	q := Question{
		Caller: Caller{ARN: "arn:aws:iam::111122223333:user/alice", Account: ours}, Action: "kms:Decrypt", Resource: keyOne, Owner: ours,
		Context: facts{"kms:encryptioncontext:department": {"HR"}, "aws:username": {"alice"}, "custom:n": {"9", "10"}, "aws:securetransport": {"true"}},
	}
	d, steps := Explain(q, p)
	wantDecision := Decision{Allowed: true, Reason: AllowedByIdentityPolicy, Document: "use-keys", Statement: "#1", KeyDelegates: true, IdentityAllows: true}
	if d != wantDecision {
		t.Errorf("got %+v, want %+v", d, wantDecision)
	}
	want := []Step{
		{Document: "key policy", Statement: "root", Effect: "Allow", Applied: true, AsAccount: true},
		{Document: "key policy", Statement: "bob", Effect: "Allow", Missed: MissedPrincipal},
		{Document: "key policy", Statement: "#3", Effect: "Allow", Missed: MissedAction},
		{Document: "key policy", Statement: "#4", Effect: "Allow", Missed: MissedResource},
		{Document: "key policy", Statement: "context", Effect: "Allow", Missed: MissedCondition, Failed: []FailedTest{
			{Operator: "StringEquals", Key: "kms:EncryptionContext:Department", Wanted: []string{"Finance", "${aws:username}"}, Actual: []string{"HR"}},
			{Operator: "ForAnyValue:NumericLessThanIfExists", Key: "custom:N", Wanted: []string{"7", "8"}, Actual: []string{"9", "10"}},
			{Operator: "Bool", Key: "aws:MultiFactorAuthPresent", Wanted: []string{"true"}},
		}},
		{Document: "key policy", Statement: "insecure", Effect: "Deny", Missed: MissedCondition, Failed: []FailedTest{
			{Operator: "Bool", Key: "aws:SecureTransport", Wanted: []string{"false"}, Actual: []string{"true"}},
		}},
		{Document: "key policy", Statement: "#7", Effect: "Allow", Missed: MissedAction},
		{Document: "use-keys", Statement: "#1", Effect: "Allow", Applied: true},
	}
	for i := range max(len(steps), len(want)) {
		if i >= len(steps) || i >= len(want) || !reflect.DeepEqual(steps[i], want[i]) {
			t.Fatalf("step %d of\n%+v\nwant\n%+v", i, steps, want)
		}
	}
}

// TestAsAccount checks that a statement that names the caller and its account is not said to delegate only.
func TestAsAccount(t *testing.T) {
	key := mustParse(t, KeyPolicy, `{"Statement":{"Effect":"Allow","Principal":{"AWS":["111122223333","arn:aws:iam::111122223333:user/alice"]},"Action":"*","Resource":"*"}}`)
	q := Question{Caller: genCallers[0], Action: "kms:Decrypt", Resource: keyOne, Owner: ours}
	d, steps := Explain(q, Policies{Key: key})
	if !d.Allowed || !d.KeyDelegates || len(steps) != 1 || steps[0].AsAccount {
		t.Errorf("%+v, %+v", d, steps)
	}
}

// TestNoRoot checks that what resembles the ARN of an account's root makes no root user.
func TestNoRoot(t *testing.T) {
	for _, arn := range []string{"arn:aws:iam::444455556666:root", "arn:aws:sts::111122223333:root", "arn:aws:iam::111122223333:user/a:root",
		"arn:aws:iam::111122223333:root/x", "root", ""} {
		q := Question{Caller: Caller{ARN: arn, Account: ours}, Action: "kms:ListKeys", Resource: "*", Owner: ours}
		if d := Decide(q, Policies{}); d.Allowed {
			t.Errorf("%s: %+v", arn, d)
		}
	}
}

func TestNames(t *testing.T) {
	for e, want := range map[Element]string{MissedNothing: "", MissedPrincipal: "principal", MissedAction: "action", MissedResource: "resource", MissedCondition: "condition", 9: "Element(?)"} {
		if got := e.String(); got != want {
			t.Errorf("%d is %q, want %q", e, got, want)
		}
	}
	if got := Reason(99).String(); got != "Reason(?)" {
		t.Errorf("got %q", got)
	}
	if got := faultf("%s: x", "a").Error(); got != "a: x" {
		t.Errorf("got %q", got)
	}
}

// TestWrongKind checks that a document in the place of the other kind allows nothing to whom it does not name.
func TestWrongKind(t *testing.T) {
	identity, err := Parse(IdentityPolicy, `{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`)
	if err != nil {
		t.Fatal(err)
	}
	key, err := Parse(KeyPolicy, `{"Statement":{"Effect":"Allow","Principal":{"AWS":"444455556666"},"Action":"*","Resource":"*"}}`)
	if err != nil {
		t.Fatal(err)
	}
	q := Question{Caller: genCallers[0], Action: "kms:Decrypt", Resource: keyOne, Owner: ours}
	for _, p := range []Policies{{Key: identity}, {Key: identity, Identity: []Named{{"x", identity}}}, {Identity: []Named{{"x", key}}}, {Identity: []Named{{"x", nil}}}, {}} {
		if d := Decide(q, p); d.Allowed {
			t.Errorf("%+v: %+v", p, d)
		}
	}
}
