package kms_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"strongroom/kms"
)

const dryRunSucceeded = "The request would have succeeded, but the DryRun option is set."

// create makes a grant as who and returns what it got.
func (r *rig) create(who kms.Caller, req *kms.CreateGrantRequest) *kms.CreateGrantResponse {
	r.t.Helper()
	resp, err := r.CreateGrant(r.t.Context(), who, req)
	must(r.t, err)
	return resp
}

// grants returns all grants on a key, as the root sees them.
func (r *rig) grants(key string) []kms.GrantListEntry {
	r.t.Helper()
	limit := int32(100)
	resp, err := r.ListGrants(r.t.Context(), root, &kms.ListGrantsRequest{KeyID: key, Limit: &limit})
	must(r.t, err)
	return resp.Grants
}

func (r *rig) encryptAs(who kms.Caller, key string, context map[string]string, tokens ...string) error {
	_, err := r.Encrypt(r.t.Context(), who, &kms.EncryptRequest{KeyID: key, Plaintext: []byte("x"), EncryptionContext: context, GrantTokens: tokens})
	return err
}

func TestCreateGrant(t *testing.T) {
	r := newRig(t, nil)
	ctx := t.Context()
	app := r.add("arn:aws:iam::111122223333:user/app")
	other := r.add("arn:aws:iam::111122223333:user/other")
	key, another := r.newKey(), r.newKey()

	before := time.Now().Add(-time.Millisecond)
	who, err := r.Begin(root, "CreateGrant")
	must(t, err)
	context := map[string]string{"Tenant": "alice"}
	resp, err := r.CreateGrant(ctx, who, &kms.CreateGrantRequest{
		KeyID: key.Arn, GranteePrincipal: app.Principal, RetiringPrincipal: other.Principal, Operations: []string{"Encrypt", "DescribeKey", "Decrypt", "Encrypt"},
		Constraints: &kms.GrantConstraints{EncryptionContextSubset: context}, Name: "first",
	})
	must(t, err)
	must(t, r.Record(ctx, who, "", ""))
	if len(resp.GrantID) != 64 || len(resp.GrantToken) != 88 {
		t.Errorf("got %+v", resp)
	}
	record := r.records()[len(r.records())-1]
	if want := `{"grantId":"` + resp.GrantID + `","keyId":"` + key.Arn + `"}`; string(record.ResponseElements) != want || record.Resources[0].ARN != key.Arn || record.ReadOnly {
		t.Errorf("recorded %+v", record)
	}
	if strings.Contains(string(record.ResponseElements)+string(record.AdditionalEventData), resp.GrantToken) {
		t.Error("the token is in the record")
	}

	entries := r.grants(key.KeyID)
	if len(entries) != 1 {
		t.Fatalf("%d grants", len(entries))
	}
	g := entries[0]
	if g.KeyID != key.Arn || g.GrantID != resp.GrantID || g.Name != "first" || g.GranteePrincipal != app.Principal || g.RetiringPrincipal != other.Principal ||
		g.IssuingAccount != root.Principal || g.CreationDate.Before(before) || g.CreationDate.After(time.Now()) ||
		!slices.Equal(g.Operations, []string{"Decrypt", "Encrypt", "DescribeKey"}) || !maps.Equal(g.Constraints.EncryptionContextSubset, context) ||
		g.Constraints.EncryptionContextEquals != nil {
		t.Errorf("listed %+v", g)
	}
	text, err := json.Marshal(g)
	must(t, err)
	if !strings.Contains(string(text), `"Constraints":{"EncryptionContextSubset":{"Tenant":"alice"}}`) {
		t.Errorf("on the wire %s", text)
	}

	// The grant allows what it says, to whom it says, on its key.
	must(t, r.encryptAs(app, key.KeyID, map[string]string{"tenant": "alice", "more": "x"}))
	must(t, r.encryptAs(app, key.KeyID, map[string]string{"TENANT": "alice"}, resp.GrantToken))
	if _, err := r.DescribeKey(ctx, app, &kms.DescribeKeyRequest{KeyID: key.KeyID}); err != nil {
		t.Errorf("DescribeKey, to which the constraint does not apply: %v", err)
	}
	_, generate := r.GenerateDataKey(ctx, app, &kms.GenerateDataKeyRequest{KeyID: key.KeyID, KeySpec: "AES_256", EncryptionContext: context})
	for name, err := range map[string]error{
		"no context":         r.encryptAs(app, key.KeyID, nil, resp.GrantToken),
		"another context":    r.encryptAs(app, key.KeyID, map[string]string{"tenant": "Alice"}),
		"another principal":  r.encryptAs(other, key.KeyID, context, resp.GrantToken),
		"another key":        r.encryptAs(app, another.KeyID, context, resp.GrantToken),
		"another operation":  generate,
		"a grant is no role": second(r.DisableKey(ctx, app, &kms.DisableKeyRequest{KeyID: key.KeyID})),
	} {
		if !errors.Is(err, kms.AccessDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Grants to an account, a role, a session of a role, and across accounts.
func TestCreateGrantGrantees(t *testing.T) {
	r := newRig(t, nil)
	r.addForeign()
	user := r.add("arn:aws:iam::444455556666:user/user")
	allowed := r.add("arn:aws:iam::444455556666:user/allowed", allow("kms:Encrypt", "*"))
	session := r.add("arn:aws:iam::444455556666:role/job")
	barred := r.add("arn:aws:iam::444455556666:role/barred", statement("Deny", "kms:Encrypt", "*", ""))
	everybody := []kms.Caller{foreignRoot, user, allowed, session, barred}
	for _, test := range []struct {
		grantee string
		may     []kms.Caller
	}{
		{foreignRoot.Principal, []kms.Caller{foreignRoot, allowed}},
		{user.Principal, []kms.Caller{user}},
		{session.Role, []kms.Caller{session}},
		{session.Principal, []kms.Caller{session}},
		{strings.TrimSuffix(session.Principal, "s") + "another", nil},
		{barred.Role, nil},
	} {
		key := r.newKey()
		r.create(root, &kms.CreateGrantRequest{KeyID: key.KeyID, GranteePrincipal: test.grantee, Operations: []string{"Encrypt"}})
		for _, who := range everybody {
			err := r.encryptAs(who, key.Arn, nil)
			if may := slices.ContainsFunc(test.may, func(c kms.Caller) bool { return c.Principal == who.Principal }); may != (err == nil) || err != nil && !errors.Is(err, kms.AccessDenied) {
				t.Errorf("grant to %s, used by %s: %v", test.grantee, who.Principal, err)
			}
		}
	}
}

func TestCreateGrantRefusals(t *testing.T) {
	r := newRig(t, nil)
	app := r.add("arn:aws:iam::111122223333:user/app")
	role := r.add("arn:aws:iam::111122223333:role/job")
	key := r.newKey()
	_, err := r.CreateAlias(t.Context(), root, &kms.CreateAliasRequest{AliasName: "alias/app", TargetKeyID: key.KeyID})
	must(t, err)
	gone := r.add("arn:aws:iam::111122223333:user/gone")
	arn, err := kms.ParsePrincipalARN(gone.Principal)
	must(t, err)
	must(t, r.admin().DeletePrincipal(t.Context(), arn))

	many := map[string]string{}
	for i := range 9 {
		many[fmt.Sprint(i)] = ""
	}
	long := strings.Repeat("ж", 385)
	const noPrincipal = "ARN does not refer to a valid principal: "
	const both = "Grant constraints must not contain both EncryptionContextEquals and EncryptionContextSubset."
	const tooLong = "Encryption context keys and values in grant constraints must not be longer than 384 characters."
	type m = map[string]string
	type constraints = kms.GrantConstraints
	for _, test := range []struct {
		name   string
		change func(*kms.CreateGrantRequest)
		code   kms.Code
		detail string // success if the code is 0
	}{
		{"as it is", func(q *kms.CreateGrantRequest) {}, 0, ""},
		{"session of a role", func(q *kms.CreateGrantRequest) { q.GranteePrincipal = role.Principal }, 0, ""},
		{"the account", func(q *kms.CreateGrantRequest) { q.RetiringPrincipal = root.Principal }, 0, ""},
		{"no operations", func(q *kms.CreateGrantRequest) { q.Operations = nil }, kms.Validation, "Grants must contain at least one operation."},
		{"only CreateGrant", func(q *kms.CreateGrantRequest) { q.Operations = []string{"CreateGrant", "CreateGrant"} }, kms.Validation,
			"Grants must not contain only the CreateGrant operation."},
		{"of another key usage", func(q *kms.CreateGrantRequest) { q.Operations = []string{"Encrypt", "GenerateMac", "Verify"} }, kms.Validation,
			key.Arn + " key usage is ENCRYPT_DECRYPT which is not valid for Verify."},
		{"of an asymmetric key", func(q *kms.CreateGrantRequest) { q.Operations = []string{"GetPublicKey"} }, kms.Validation,
			key.Arn + " key usage is ENCRYPT_DECRYPT which is not valid for GetPublicKey."},
		{"no grantee of that name", func(q *kms.CreateGrantRequest) { q.GranteePrincipal += "x" }, kms.InvalidArn, noPrincipal},
		{"no retiring principal of that name", func(q *kms.CreateGrantRequest) { q.RetiringPrincipal = "arn:aws:iam::111122223333:role/none" }, kms.InvalidArn, noPrincipal},
		{"a grantee that was deleted", func(q *kms.CreateGrantRequest) { q.GranteePrincipal = gone.Principal }, kms.InvalidArn, noPrincipal},
		{"a session of no role", func(q *kms.CreateGrantRequest) { q.GranteePrincipal = "arn:aws:sts::111122223333:assumed-role/none/s" }, kms.InvalidArn, noPrincipal},
		{"no such account", func(q *kms.CreateGrantRequest) { q.GranteePrincipal = "arn:aws:iam::999999999999:root" }, kms.InvalidArn, noPrincipal},
		{"another partition", func(q *kms.CreateGrantRequest) { q.GranteePrincipal = "arn:aws-cn:iam::111122223333:user/app" }, kms.InvalidArn, noPrincipal},
		{"an account's number", func(q *kms.CreateGrantRequest) { q.GranteePrincipal = account }, kms.InvalidArn, noPrincipal},
		{"a federated user", func(q *kms.CreateGrantRequest) { q.GranteePrincipal = "arn:aws:sts::111122223333:federated-user/app" }, kms.InvalidArn, noPrincipal},
		{"a service", func(q *kms.CreateGrantRequest) { q.GranteePrincipal = "s3.amazonaws.com" }, kms.InvalidArn, noPrincipal},
		{"no constraint", func(q *kms.CreateGrantRequest) { q.Constraints = &constraints{} }, 0, ""},
		{"equals", func(q *kms.CreateGrantRequest) { q.Constraints = &constraints{EncryptionContextEquals: m{}} }, 0, ""},
		{"source ARN", func(q *kms.CreateGrantRequest) { q.Constraints = &constraints{SourceArn: "arn:aws:s3:::bucket-1"} }, 0, ""},
		{"both", func(q *kms.CreateGrantRequest) {
			q.Constraints = &constraints{EncryptionContextEquals: m{"a": "1"}, EncryptionContextSubset: m{"a": "1"}}
		}, kms.Validation, both},
		{"both, one of them empty", func(q *kms.CreateGrantRequest) {
			q.Constraints = &constraints{EncryptionContextEquals: m{}, EncryptionContextSubset: m{"a": "1"}}
		}, kms.Validation, both},
		{"9 pairs", func(q *kms.CreateGrantRequest) { q.Constraints = &constraints{EncryptionContextSubset: many} }, kms.Validation,
			"Grant constraints must not contain more than 8 encryption context pairs."},
		{"a long name", func(q *kms.CreateGrantRequest) { q.Constraints = &constraints{EncryptionContextEquals: m{long: ""}} }, kms.Validation, tooLong},
		{"a long value", func(q *kms.CreateGrantRequest) { q.Constraints = &constraints{EncryptionContextSubset: m{"": long}} }, kms.Validation, tooLong},
		{"as long as may be", func(q *kms.CreateGrantRequest) {
			q.Constraints = &constraints{EncryptionContextSubset: m{long[2:]: long[2:]}}
		}, 0, ""},
		{"a constraint on nothing", func(q *kms.CreateGrantRequest) {
			q.Operations, q.Constraints = []string{"DescribeKey", "RetireGrant", "CreateGrant"}, &constraints{EncryptionContextSubset: m{"a": "1"}}
		}, kms.Validation, "Grants with encryption context constraints must contain an operation that supports an encryption context."},
		{"a token of nobody", func(q *kms.CreateGrantRequest) { q.GrantTokens = []string{"rubbish"} }, kms.InvalidGrantToken, ""},
		{"an alias", func(q *kms.CreateGrantRequest) { q.KeyID = "alias/app" }, kms.NotFound, "Invalid keyId 'alias/app'"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, dry := range []bool{true, false} {
				req := &kms.CreateGrantRequest{KeyID: key.KeyID, GranteePrincipal: app.Principal, Operations: []string{"Encrypt", "Decrypt"}, DryRun: dry}
				test.change(req)
				had := len(r.grants(key.KeyID))
				_, err := r.CreateGrant(t.Context(), root, req)
				has := len(r.grants(key.KeyID))
				switch {
				case test.detail == noPrincipal:
					bad := req.GranteePrincipal
					if bad == app.Principal {
						bad = req.RetiringPrincipal
					}
					refusal(t, err, test.code, noPrincipal+bad)
				case test.code != 0:
					refusal(t, err, test.code, test.detail)
				case dry:
					refusal(t, err, kms.DryRunSucceeded, dryRunSucceeded)
				default:
					must(t, err)
					had++
				}
				if has != had {
					t.Errorf("dry run %v: %d grants, want %d", dry, has, had)
				}
			}
		})
	}

	// Who may not make grants does not learn who exists.
	for _, grantee := range []string{app.Principal, app.Principal + "x"} {
		_, err := r.CreateGrant(t.Context(), app, &kms.CreateGrantRequest{KeyID: key.KeyID, GranteePrincipal: grantee, Operations: []string{"Encrypt"}})
		refusal(t, err, kms.AccessDenied, "User: "+app.Principal+" is not authorized to perform: kms:CreateGrant on resource: "+key.Arn+
			" because no identity-based policy allows the kms:CreateGrant action")
	}
	must(t, second(r.DisableKey(t.Context(), root, &kms.DisableKeyRequest{KeyID: key.KeyID})))
	req := &kms.CreateGrantRequest{KeyID: key.KeyID, GranteePrincipal: app.Principal, Operations: []string{"Encrypt"}}
	_, err = r.CreateGrant(t.Context(), root, req)
	refusal(t, err, kms.Disabled, key.Arn+" is disabled.")
	must(t, second(r.ScheduleKeyDeletion(t.Context(), root, &kms.ScheduleKeyDeletionRequest{KeyID: key.KeyID})))
	_, err = r.CreateGrant(t.Context(), root, req)
	refusal(t, err, kms.InvalidState, key.Arn+" is pending deletion.")
}

// The conditions that a policy can make on CreateGrant.
func TestCreateGrantConditions(t *testing.T) {
	r := newRig(t, nil)
	app := r.add("arn:aws:iam::111122223333:user/app")
	other := r.add("arn:aws:iam::111122223333:user/other")
	key := r.newKey()
	type m = map[string]string
	equals, subset := &kms.GrantConstraints{EncryptionContextEquals: m{"Tenant": "a"}}, &kms.GrantConstraints{EncryptionContextSubset: m{"Tenant": "a"}}
	empty, source := &kms.GrantConstraints{EncryptionContextSubset: m{}}, &kms.GrantConstraints{SourceArn: "arn:aws:s3:::bucket-1"}
	base := kms.CreateGrantRequest{KeyID: key.KeyID, GranteePrincipal: app.Principal, Operations: []string{"Encrypt", "Decrypt"}}
	with := func(change func(*kms.CreateGrantRequest)) *kms.CreateGrantRequest {
		q := base
		change(&q)
		return &q
	}
	constrained := func(c *kms.GrantConstraints) *kms.CreateGrantRequest {
		return with(func(q *kms.CreateGrantRequest) { q.Constraints = c })
	}
	for i, test := range []struct {
		condition       string
		allowed, denied []*kms.CreateGrantRequest
	}{
		{`{"StringEquals":{"kms:GrantConstraintType":"EncryptionContextEquals"}}`, []*kms.CreateGrantRequest{constrained(equals)},
			[]*kms.CreateGrantRequest{&base, constrained(subset), constrained(empty), constrained(source)}},
		{`{"StringEquals":{"kms:GrantConstraintType":"EncryptionContextSubset"}}`, []*kms.CreateGrantRequest{constrained(subset)},
			[]*kms.CreateGrantRequest{&base, constrained(equals), constrained(empty), constrained(source)}},
		{`{"ForAllValues:StringEquals":{"kms:GrantOperations":["Encrypt","Decrypt"]}}`, []*kms.CreateGrantRequest{&base},
			[]*kms.CreateGrantRequest{with(func(q *kms.CreateGrantRequest) { q.Operations = []string{"Encrypt", "CreateGrant"} })}},
		{`{"StringEquals":{"kms:GranteePrincipal":"` + app.Principal + `"}}`, []*kms.CreateGrantRequest{&base},
			[]*kms.CreateGrantRequest{with(func(q *kms.CreateGrantRequest) { q.GranteePrincipal = other.Principal })}},
		{`{"StringEquals":{"kms:RetiringPrincipal":"` + other.Principal + `"}}`,
			[]*kms.CreateGrantRequest{with(func(q *kms.CreateGrantRequest) { q.RetiringPrincipal = other.Principal })}, []*kms.CreateGrantRequest{&base}},
		{`{"Bool":{"kms:GrantIsForAWSResource":"false"}}`, []*kms.CreateGrantRequest{&base}, nil},
		{`{"Bool":{"kms:GrantIsForAWSResource":"true"}}`, nil, []*kms.CreateGrantRequest{&base}},
		{`{"StringEquals":{"kms:EncryptionContext:tenant":"a"}}`, []*kms.CreateGrantRequest{constrained(equals), constrained(subset)}, []*kms.CreateGrantRequest{&base}},
		{`{"ForAnyValue:StringEquals":{"kms:EncryptionContextKeys":"Tenant"}}`, []*kms.CreateGrantRequest{constrained(equals), constrained(subset)},
			[]*kms.CreateGrantRequest{&base, constrained(empty)}},
	} {
		who := r.add(fmt.Sprintf("arn:aws:iam::111122223333:user/maker%d", i), statement("Allow", "kms:CreateGrant", "*", test.condition))
		for _, req := range test.allowed {
			if _, err := r.CreateGrant(t.Context(), who, req); err != nil {
				t.Errorf("%s, %+v: %v", test.condition, req, err)
			}
		}
		for _, req := range test.denied {
			if _, err := r.CreateGrant(t.Context(), who, req); !errors.Is(err, kms.AccessDenied) {
				t.Errorf("%s, %+v: %v", test.condition, req, err)
			}
		}
	}
	for _, value := range []string{"true", "false"} {
		who := r.add("arn:aws:iam::111122223333:user/"+value, statement("Allow", "kms:*", "*", `{"Bool":{"kms:GrantIsForAWSResource":"`+value+`"}}`))
		_, list := r.ListGrants(t.Context(), who, &kms.ListGrantsRequest{KeyID: key.KeyID})
		_, revoke := r.RevokeGrant(t.Context(), who, &kms.RevokeGrantRequest{KeyID: key.KeyID, GrantID: r.grants(key.KeyID)[0].GrantID})
		if may := value == "false"; may != (list == nil) || may != (revoke == nil) {
			t.Errorf("GrantIsForAWSResource %s: ListGrants %v, RevokeGrant %v", value, list, revoke)
		}
	}
}

// Who makes a grant by means of a grant passes on no more than it has. Who does by a policy is not bound by what it has.
func TestCreateGrantPassedOn(t *testing.T) {
	r := newRig(t, nil)
	parent := r.add("arn:aws:iam::111122223333:user/parent")
	child := r.add("arn:aws:iam::111122223333:user/child")
	maker := r.add("arn:aws:iam::111122223333:user/maker", allow("kms:CreateGrant", "*"))
	key := r.newKey()
	type m = map[string]string
	ask := func(who kms.Caller, c *kms.GrantConstraints, operations ...string) error {
		_, err := r.CreateGrant(t.Context(), who, &kms.CreateGrantRequest{KeyID: key.KeyID, GranteePrincipal: child.Principal, Operations: operations, Constraints: c})
		return err
	}
	subset := func(c m) *kms.GrantConstraints { return &kms.GrantConstraints{EncryptionContextSubset: c} }
	equals := func(c m) *kms.GrantConstraints { return &kms.GrantConstraints{EncryptionContextEquals: c} }
	a := m{"a": "1"}
	if err := ask(parent, subset(a), "Encrypt"); !errors.Is(err, kms.AccessDenied) {
		t.Errorf("without a grant: %v", err)
	}
	given := r.create(root, &kms.CreateGrantRequest{KeyID: key.KeyID, GranteePrincipal: parent.Principal, Operations: []string{"Encrypt", "CreateGrant", "RetireGrant"}, Constraints: subset(a)})
	for _, test := range []struct {
		name       string
		constraint *kms.GrantConstraints
		operations []string
		allowed    bool
	}{
		{"the same", subset(a), []string{"Encrypt", "CreateGrant", "RetireGrant"}, true},
		{"less", subset(m{"A": "1", "b": "2"}), []string{"Encrypt"}, true},
		{"exactly", equals(m{"a": "1", "b": "2"}), []string{"Encrypt"}, true},
		{"no constraint", nil, []string{"Encrypt"}, false},
		{"empty constraint", subset(m{}), []string{"Encrypt"}, false},
		{"another constraint", subset(m{"b": "2"}), []string{"Encrypt"}, false},
		{"another value", equals(m{"a": "2"}), []string{"Encrypt"}, false},
		{"another operation", subset(a), []string{"Encrypt", "Decrypt"}, false},
	} {
		if err := ask(parent, test.constraint, test.operations...); test.allowed != (err == nil) || err != nil && !errors.Is(err, kms.AccessDenied) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	got := reason(t, ask(parent, nil, "Encrypt"))
	if !strings.Contains(got, "does not cover the grant that was to be made") {
		t.Errorf("the operator is told %s", got)
	}
	// What child got is passed on in turn, and no more widely: "the same" above was with CreateGrant.
	if err := second(r.CreateGrant(t.Context(), child, &kms.CreateGrantRequest{KeyID: key.KeyID, GranteePrincipal: maker.Principal, Operations: []string{"Encrypt"}, Constraints: equals(a)})); err != nil {
		t.Errorf("a grandchild: %v", err)
	}
	if err := ask(child, nil, "Encrypt"); !errors.Is(err, kms.AccessDenied) {
		t.Errorf("a wider grandchild: %v", err)
	}
	must(t, second(r.RevokeGrant(t.Context(), root, &kms.RevokeGrantRequest{KeyID: key.KeyID, GrantID: given.GrantID})))
	if err := ask(parent, subset(a), "Encrypt"); !errors.Is(err, kms.AccessDenied) {
		t.Errorf("after the parent was revoked: %v", err)
	}
	must(t, r.encryptAs(child, key.KeyID, a)) // as in AWS, children outlive their parent

	must(t, ask(maker, nil, "Encrypt", "Decrypt", "CreateGrant"))
	if err := r.encryptAs(maker, key.KeyID, nil); !errors.Is(err, kms.AccessDenied) {
		t.Errorf("who may grant may not use: %v", err)
	}

	// A grant that must not be passed on.
	r.create(root, &kms.CreateGrantRequest{KeyID: key.KeyID, GranteePrincipal: parent.Principal, Operations: []string{"Encrypt"}})
	if err := ask(parent, nil, "Encrypt"); !errors.Is(err, kms.AccessDenied) {
		t.Errorf("without CreateGrant: %v", err)
	}
}

func TestCreateGrantByName(t *testing.T) {
	r := newRig(t, nil)
	r.addForeign()
	app := r.add("arn:aws:iam::111122223333:user/app")
	partner := `{"Effect":"Allow","Principal":{"AWS":"444455556666"},"Action":"kms:CreateGrant","Resource":"*"}`
	key, another := r.newKeyWith(keyPolicy(partner)), r.newKey()
	type m = map[string]string
	req := func(change func(*kms.CreateGrantRequest)) *kms.CreateGrantRequest {
		q := &kms.CreateGrantRequest{KeyID: key.Arn, GranteePrincipal: app.Principal, Operations: []string{"Encrypt", "Decrypt"}, Name: "n"}
		change(q)
		return q
	}
	same := func(q *kms.CreateGrantRequest) {}
	first := r.create(root, req(same))
	again := r.create(root, req(func(q *kms.CreateGrantRequest) {
		q.KeyID, q.Operations = key.KeyID, []string{"Decrypt", "Encrypt", "Decrypt"}
	}))
	if again.GrantID != first.GrantID || again.GrantToken == first.GrantToken {
		t.Errorf("%+v, then %+v", first, again)
	}
	seen := map[string]bool{first.GrantID: true}
	for name, change := range map[string]func(*kms.CreateGrantRequest){
		"no name":      func(q *kms.CreateGrantRequest) { q.Name = "" },
		"no name, too": func(q *kms.CreateGrantRequest) { q.Name = "" },
		"name":         func(q *kms.CreateGrantRequest) { q.Name = "N" },
		"key":          func(q *kms.CreateGrantRequest) { q.KeyID = another.KeyID },
		"grantee":      func(q *kms.CreateGrantRequest) { q.GranteePrincipal = root.Principal },
		"retiring":     func(q *kms.CreateGrantRequest) { q.RetiringPrincipal = root.Principal },
		"operations":   func(q *kms.CreateGrantRequest) { q.Operations = []string{"Encrypt"} },
		"equals": func(q *kms.CreateGrantRequest) {
			q.Constraints = &kms.GrantConstraints{EncryptionContextEquals: m{"a": "1"}}
		},
		"equals, case": func(q *kms.CreateGrantRequest) {
			q.Constraints = &kms.GrantConstraints{EncryptionContextEquals: m{"A": "1"}}
		},
		"nothing": func(q *kms.CreateGrantRequest) { q.Constraints = &kms.GrantConstraints{EncryptionContextEquals: m{}} },
		"subset": func(q *kms.CreateGrantRequest) {
			q.Constraints = &kms.GrantConstraints{EncryptionContextSubset: m{"a": "1"}}
		},
		"subset, value": func(q *kms.CreateGrantRequest) {
			q.Constraints = &kms.GrantConstraints{EncryptionContextSubset: m{"a": "2"}}
		},
		"source": func(q *kms.CreateGrantRequest) {
			q.Constraints = &kms.GrantConstraints{SourceArn: "arn:aws:s3:::bucket-1"}
		},
	} {
		g := r.create(root, req(change))
		if seen[g.GrantID] {
			t.Errorf("a grant that differs in %s is the same", name)
		}
		seen[g.GrantID] = true
		if again := r.create(root, req(change)); req(change).Name != "" && again.GrantID != g.GrantID {
			t.Errorf("%s: made twice", name)
		} else {
			seen[again.GrantID] = true
		}
	}
	if g := r.create(foreignRoot, req(same)); seen[g.GrantID] {
		t.Error("a grant of another account is the same")
	}

	// Two at once make one.
	third := r.newKey()
	var wg sync.WaitGroup
	ids := make([]string, 16)
	for i := range ids {
		wg.Go(func() {
			resp, err := r.CreateGrant(t.Context(), root, req(func(q *kms.CreateGrantRequest) { q.KeyID = third.KeyID }))
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = resp.GrantID
		})
	}
	wg.Wait()
	if slices.Sort(ids); len(slices.Compact(ids)) != 1 || len(r.grants(third.KeyID)) != 1 {
		t.Errorf("%d grants, listed %d", len(slices.Compact(ids)), len(r.grants(third.KeyID)))
	}
}

// insert puts grants into the store as they are.
func (r *rig) insert(key string, n int, change func(i int, g *kms.Grant)) {
	r.t.Helper()
	id, err := kms.ParseKeyID(key)
	must(r.t, err)
	must(r.t, r.store.Update(r.t.Context(), func(tx kms.Tx) error {
		for i := range n {
			g := &kms.Grant{ID: fmt.Sprintf("%064x", i), Key: id, Grantee: root.Principal, Issuer: account, Operations: 1, Created: time.Now()}
			change(i, g)
			if err := tx.InsertGrant(g); err != nil {
				return err
			}
		}
		return nil
	}))
}

func TestGrantLimit(t *testing.T) {
	if testing.Short() {
		t.Skip("stores 50,000 grants")
	}
	r := newRig(t, nil)
	app := r.add("arn:aws:iam::111122223333:user/app")
	key := r.newKey()
	r.insert(key.KeyID, 49_999, func(int, *kms.Grant) {})
	req := &kms.CreateGrantRequest{KeyID: key.KeyID, GranteePrincipal: app.Principal, Operations: []string{"Encrypt"}, Name: "n"}
	last := r.create(root, req)
	if again := r.create(root, req); again.GrantID != last.GrantID {
		t.Error("a grant that is there was made again")
	}
	req.Name = ""
	for _, req.DryRun = range []bool{true, false} {
		_, err := r.CreateGrant(t.Context(), root, req)
		refusal(t, err, kms.LimitExceeded, "The key "+key.Arn+" already has 50000 grants.")
	}
	must(t, r.encryptAs(app, key.KeyID, nil))
}

// More grants to one principal than are remembered: those that can be for the context are found, even where very many have the same pair in common.
func TestVeryManyGrants(t *testing.T) {
	r := newRig(t, nil)
	app := r.add("arn:aws:iam::111122223333:user/app")
	key, common := r.newKey(), r.newKey()
	tenant := func(i int) map[string]string { return map[string]string{"tenant": fmt.Sprint("t", i)} }
	r.insert(key.KeyID, 1500, func(i int, g *kms.Grant) { g.Grantee, g.Operations, g.Constraint.Equals = app.Principal, 2, tenant(i) })
	r.insert(common.KeyID, 1500, func(i int, g *kms.Grant) {
		g.ID = fmt.Sprintf("%064x", 1<<20+i)
		g.Grantee, g.Operations, g.Constraint.Subset = app.Principal, 2, tenant(i)
		g.Constraint.Subset["service"] = "what all of them have in common"
	})
	for _, i := range []int{0, 999, 1499} {
		must(t, r.encryptAs(app, key.KeyID, tenant(i)))
		context := tenant(i)
		context["service"] = "what all of them have in common"
		must(t, r.encryptAs(app, common.KeyID, context))
	}
	for _, k := range []string{key.KeyID, common.KeyID} {
		if err := r.encryptAs(app, k, tenant(1500)); !errors.Is(err, kms.AccessDenied) {
			t.Errorf("%v", err)
		}
	}
	// To pass one on, all are looked through.
	pass := func(constraint map[string]string) error {
		_, err := r.CreateGrant(t.Context(), app, &kms.CreateGrantRequest{KeyID: key.KeyID, GranteePrincipal: root.Principal, Operations: []string{"Encrypt"},
			Constraints: &kms.GrantConstraints{EncryptionContextEquals: constraint}})
		return err
	}
	if err := pass(tenant(0)); !errors.Is(err, kms.AccessDenied) {
		t.Error(err)
	}
	r.create(root, &kms.CreateGrantRequest{KeyID: key.KeyID, GranteePrincipal: app.Principal, Operations: []string{"Encrypt", "CreateGrant"}})
	must(t, pass(tenant(7)))
}
