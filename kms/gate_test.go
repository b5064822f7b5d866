package kms_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"strongroom/keyspec"
	"strongroom/kms"
	"strongroom/kms/audit"
)

const foreign = "444455556666"

var foreignRoot = kms.Caller{Account: foreign, Principal: "arn:aws:iam::444455556666:root"}

// admin returns the administration of the rig's deployment. What it changes, the rig's service knows at once, since nothing is remembered without Run.
func (r *rig) admin() *kms.Admin {
	r.t.Helper()
	a, err := kms.NewAdmin(r.t.Context(), r.store, "tester")
	must(r.t, err)
	return a
}

// addForeign makes a second account.
func (r *rig) addForeign() {
	r.t.Helper()
	must(r.t, r.admin().CreateAccount(r.t.Context(), foreign))
}

// add makes a principal with identity policies and returns a caller that is it; of a role, a session called "s".
func (r *rig) add(arn string, policies ...string) kms.Caller {
	r.t.Helper()
	p, err := kms.ParsePrincipalARN(arn)
	must(r.t, err)
	a := r.admin()
	_, err = a.CreatePrincipal(r.t.Context(), p, nil)
	must(r.t, err)
	for i, text := range policies {
		must(r.t, a.PutPolicy(r.t.Context(), p, kms.NamedPolicy{Name: fmt.Sprint("p", i), Text: text}))
	}
	c := &kms.Credential{Account: p.Account, Principal: arn}
	if p.Kind == kms.Role {
		c.Session = "s"
	}
	return c.Caller()
}

// allow returns an identity policy with one statement.
func allow(action, resource string) string { return statement("Allow", action, resource, "") }

func statement(effect, action, resource, condition string) string {
	if condition != "" {
		condition = `,"Condition":` + condition
	}
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":%q,"Action":%q,"Resource":%q%s}]}`, effect, action, resource, condition)
}

// keyPolicy returns a key policy: the statement of the default policy, and more of them.
func keyPolicy(statements ...string) string {
	all := append([]string{`{"Sid":"root","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"kms:*","Resource":"*"}`}, statements...)
	return `{"Version":"2012-10-17","Statement":[` + strings.Join(all, ",") + `]}`
}

func (r *rig) newKeyWith(policy string) kms.KeyMetadata {
	r.t.Helper()
	resp, err := r.CreateKey(r.t.Context(), root, &kms.CreateKeyRequest{Policy: policy})
	must(r.t, err)
	return resp.KeyMetadata
}

// reason returns what a denial says to the operator.
func reason(t *testing.T, err error) string {
	t.Helper()
	var e *kms.Error
	if !errors.As(err, &e) || e.Code != kms.AccessDenied || e.Err == nil {
		t.Fatalf("got %v, want a denial with a reason", err)
	}
	return e.Err.Error()
}

func TestWhoMayUseAKey(t *testing.T) {
	r := newRig(t, nil)
	r.addForeign()
	alice := r.add("arn:aws:iam::111122223333:user/alice")
	bob := r.add("arn:aws:iam::111122223333:user/bob", allow("kms:*", "*"))
	carol := r.add("arn:aws:iam::111122223333:user/carol", allow("kms:*", "*"), statement("Deny", "kms:Encrypt", "*", ""))
	admin := r.add("arn:aws:iam::111122223333:role/admin", allow("kms:Enc*", "arn:aws:kms:local-1:111122223333:key/*"))
	dave := r.add("arn:aws:iam::444455556666:user/dave", allow("kms:*", "*"))
	erin := r.add("arn:aws:iam::444455556666:user/erin")

	delegated := r.newKey()
	direct := r.newKeyWith(keyPolicy(`{"Sid":"alice","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:user/alice"},"Action":"kms:Encrypt","Resource":"*"}`))
	shared := r.newKeyWith(keyPolicy(`{"Sid":"partner","Effect":"Allow","Principal":{"AWS":"444455556666"},"Action":["kms:Encrypt","kms:DisableKey"],"Resource":"*"}`))
	closed, err := r.CreateKey(t.Context(), root, &kms.CreateKeyRequest{
		Policy:                         `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:user/alice"},"Action":"kms:*","Resource":"*"}]}`,
		BypassPolicyLockoutSafetyCheck: true})
	must(t, err)

	stranger := func(who kms.Caller) string {
		return "User: " + who.Principal + " is not authorized to perform: kms:Encrypt on this resource because the resource does not exist in this Region, " +
			"no resource-based policies allow access, or a resource-based policy explicitly denies access"
	}
	own := func(who kms.Caller, arn, why string) string {
		return "User: " + who.Principal + " is not authorized to perform: kms:Encrypt on resource: " + arn + " " + why
	}
	const noIdentity = "because no identity-based policy allows the kms:Encrypt action"
	const noResource = "because no resource-based policy allows the kms:Encrypt action"
	for _, test := range []struct {
		name string
		who  kms.Caller
		key  string
		want string // what the client is told; empty if it may
	}{
		{"root by delegation to itself", root, delegated.Arn, ""},
		{"user without policies", alice, delegated.Arn, own(alice, delegated.Arn, noIdentity)},
		{"user with an identity policy", bob, delegated.Arn, ""},
		{"deny in an identity policy", carol, delegated.Arn, own(carol, delegated.Arn, "with an explicit deny in an identity-based policy")},
		{"session of a role", admin, delegated.Arn, ""},
		{"named in the key policy", alice, direct.Arn, ""},
		{"key policy without delegation", bob, closed.KeyMetadata.Arn, own(bob, closed.KeyMetadata.Arn, noResource)},
		{"root is not above a key policy", root, closed.KeyMetadata.Arn, own(root, closed.KeyMetadata.Arn, noResource)},
		{"other account, both sides", dave, shared.Arn, ""},
		{"other account's root", foreignRoot, shared.Arn, ""},
		{"other account, own side missing", erin, shared.Arn, stranger(erin)},
		{"other account, key's side missing", dave, delegated.Arn, stranger(dave)},
		{"other account, no such key", dave, arnBase + "key/11111111-1111-4111-8111-111111111111", stranger(dave)},
		{"other account, no such alias", dave, arnBase + "alias/none", stranger(dave)},
		{"own account, no such key, permitted", bob, "11111111-1111-4111-8111-111111111111",
			"NotFound: Key '" + arnBase + "key/11111111-1111-4111-8111-111111111111' does not exist"},
		{"own account, no such key, not permitted", alice, "11111111-1111-4111-8111-111111111111",
			own(alice, arnBase+"key/11111111-1111-4111-8111-111111111111", noIdentity)},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := r.Encrypt(t.Context(), test.who, &kms.EncryptRequest{KeyID: test.key, Plaintext: []byte("x")})
			if test.want == "" {
				must(t, err)
				return
			}
			if text, ok := strings.CutPrefix(test.want, "NotFound: "); ok {
				refusal(t, err, kms.NotFound, text)
				return
			}
			refusal(t, err, kms.AccessDenied, test.want)
			if reason(t, err) == "" {
				t.Error("the operator is told nothing")
			}
		})
	}

	// What may not be done across accounts may not be done, whatever policies say.
	if _, err := r.DisableKey(t.Context(), dave, &kms.DisableKeyRequest{KeyID: shared.Arn}); !errors.Is(err, kms.AccessDenied) {
		t.Errorf("DisableKey from another account: %v", err)
	}
	// A ciphertext names its key for those of other accounts too.
	blob := r.encrypt(shared.KeyID, "secret", nil)
	_, err = r.Decrypt(t.Context(), dave, &kms.DecryptRequest{CiphertextBlob: blob})
	refusal(t, err, kms.AccessDenied, "User: "+dave.Principal+" is not authorized to perform: kms:Decrypt on the resource associated with this ciphertext because the resource "+
		"does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access")
}

func TestConditionsOfARequest(t *testing.T) {
	r := newRig(t, nil)
	key := r.newKeyWith(keyPolicy(
		`{"Sid":"pairs","Effect":"Deny","Principal":"*","Action":"kms:GenerateDataKeyPair*","Resource":"*","Condition":{"StringNotEquals":{"kms:DataKeyPairSpec":["ECC_NIST_P256"]}}}`,
		`{"Sid":"context","Effect":"Deny","Principal":"*","Action":"kms:Encrypt","Resource":"*","Condition":{"Null":{"kms:EncryptionContextKeys":"true"}}}`))
	who := r.add("arn:aws:iam::111122223333:user/app",
		statement("Allow", "kms:*", "*", `{"StringEquals":{"KMS:encryptioncontext:DEPARTMENT":"it"}}`),
		statement("Allow", "kms:Decrypt", "*", `{"StringEquals":{"kms:RequestAlias":"alias/app"}}`))
	_, err := r.CreateAlias(t.Context(), root, &kms.CreateAliasRequest{AliasName: "alias/app", TargetKeyID: key.KeyID})
	must(t, err)

	encrypt := func(context map[string]string) error {
		_, err := r.Encrypt(t.Context(), who, &kms.EncryptRequest{KeyID: key.KeyID, Plaintext: []byte("x"), EncryptionContext: context})
		return err
	}
	must(t, encrypt(map[string]string{"Department": "it"}))
	for _, context := range []map[string]string{nil, {"Department": "IT"}, {"dept": "it"}, {"Department": "it", "department": "hr"}} {
		if err := encrypt(context); !errors.Is(err, kms.AccessDenied) {
			t.Errorf("%v: %v", context, err)
		}
	}
	got := reason(t, encrypt(map[string]string{"Department": "hr"}))
	for _, want := range []string{"KMS:encryptioncontext:DEPARTMENT", `"it"`, `"hr"`, "p0"} {
		if !strings.Contains(got, want) {
			t.Errorf("the reason does not say %s: %s", want, got)
		}
	}

	blob := r.encrypt(key.KeyID, "secret", map[string]string{"a": "b"})
	decrypt := func(id string) error {
		_, err := r.Decrypt(t.Context(), who, &kms.DecryptRequest{KeyID: id, CiphertextBlob: blob, EncryptionContext: map[string]string{"a": "b"}})
		return err
	}
	must(t, decrypt("alias/app"))
	must(t, decrypt(arnBase+"alias/app"))
	if err := decrypt(key.KeyID); !errors.Is(err, kms.AccessDenied) {
		t.Errorf("by key id: %v", err)
	}

	pair := func(spec string) error {
		req := &kms.GenerateDataKeyPairRequest{KeyID: key.KeyID}
		must(t, req.KeyPairSpec.UnmarshalText([]byte(spec)))
		_, err := r.GenerateDataKeyPair(t.Context(), root, req)
		return err
	}
	must(t, pair("ECC_NIST_P256"))
	err = pair("ECC_NIST_P384")
	refusal(t, err, kms.AccessDenied, "User: "+root.Principal+" is not authorized to perform: kms:GenerateDataKeyPair on resource: "+key.Arn+
		" with an explicit deny in a resource-based policy")
}

// TestReEncryptBothKeys: each side needs its own permission, with its own context, and the condition on one key for both is known.
func TestReEncryptBothKeys(t *testing.T) {
	r := newRig(t, nil)
	from, to := r.newKey(), r.newKey()
	blob := r.encrypt(from.KeyID, "secret", map[string]string{"a": "1"})
	reencrypt := func(who kms.Caller, destination string) error {
		_, err := r.ReEncrypt(t.Context(), who, &kms.ReEncryptRequest{CiphertextBlob: blob, SourceEncryptionContext: map[string]string{"a": "1"},
			DestinationKeyID: destination, DestinationEncryptionContext: map[string]string{"b": "2"}})
		return err
	}
	both := r.add("arn:aws:iam::111122223333:user/both",
		statement("Allow", "kms:ReEncryptFrom", from.Arn, `{"StringEquals":{"kms:EncryptionContext:a":"1"}}`),
		statement("Allow", "kms:ReEncryptTo", to.Arn, `{"StringEquals":{"kms:EncryptionContext:b":"2"}}`))
	must(t, reencrypt(both, to.KeyID))
	one := r.add("arn:aws:iam::111122223333:user/one", allow("kms:ReEncryptFrom", from.Arn))
	if err := reencrypt(one, to.KeyID); !errors.Is(err, kms.AccessDenied) {
		t.Errorf("without ReEncryptTo: %v", err)
	}
	same := r.add("arn:aws:iam::111122223333:user/same", statement("Allow", "kms:ReEncrypt*", "*", `{"Bool":{"kms:ReEncryptOnSameKey":"true"}}`))
	must(t, reencrypt(same, from.KeyID))
	if err := reencrypt(same, to.KeyID); !errors.Is(err, kms.AccessDenied) {
		t.Errorf("to another key: %v", err)
	}
}

// TestWithoutAKey: what names no key is decided by identity policies alone.
func TestWithoutAKey(t *testing.T) {
	r := newRig(t, nil)
	nobody := r.add("arn:aws:iam::111122223333:user/nobody")
	maker := r.add("arn:aws:iam::111122223333:user/maker", statement("Allow", "kms:CreateKey", "*", `{"StringEquals":{"kms:KeySpec":"SYMMETRIC_DEFAULT","aws:RequestTag/team":"a"}}`),
		allow("kms:TagResource", "*"), allow("kms:List*", "*"), allow("kms:GenerateRandom", "*"))
	n := int32(8)
	calls := map[string]func(kms.Caller) error{
		"CreateKey": func(who kms.Caller) error {
			_, err := r.CreateKey(t.Context(), who, &kms.CreateKeyRequest{Tags: []kms.Tag{{TagKey: "Team", TagValue: "a"}}})
			return err
		},
		"ListKeys": func(who kms.Caller) error { _, err := r.ListKeys(t.Context(), who, &kms.ListKeysRequest{}); return err },
		"ListAliases": func(who kms.Caller) error {
			_, err := r.ListAliases(t.Context(), who, &kms.ListAliasesRequest{})
			return err
		},
		"GenerateRandom": func(who kms.Caller) error {
			_, err := r.GenerateRandom(t.Context(), who, &kms.GenerateRandomRequest{NumberOfBytes: &n})
			return err
		},
	}
	for name, call := range calls {
		if err := call(maker); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		refusal(t, call(nobody), kms.AccessDenied,
			"User: "+nobody.Principal+" is not authorized to perform: kms:"+name+" on resource: * because no identity-based policy allows the kms:"+name+" action")
	}
	_, err := r.CreateKey(t.Context(), maker, &kms.CreateKeyRequest{})
	if !errors.Is(err, kms.AccessDenied) {
		t.Errorf("CreateKey without the tag: %v", err)
	}
}

func TestPutKeyPolicy(t *testing.T) {
	r := newRig(t, nil)
	key := r.newKey()
	alice := r.add("arn:aws:iam::111122223333:user/alice", allow("kms:*", "*"))
	put := func(who kms.Caller, policy string, bypass bool) error {
		_, err := r.PutKeyPolicy(t.Context(), who, &kms.PutKeyPolicyRequest{KeyID: key.KeyID, Policy: policy, BypassPolicyLockoutSafetyCheck: bypass})
		return err
	}
	only := func(principal string) string {
		return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"` + principal + `"},"Action":"kms:*","Resource":"*"}]}`
	}
	const lockout = "The new key policy will not allow you to update the key policy in the future."
	const principals = "Policy contains a statement with one or more invalid principals."
	refusal(t, put(root, only("arn:aws:iam::111122223333:user/alice"), false), kms.MalformedPolicy, lockout)
	refusal(t, put(root, only("arn:aws:iam::111122223333:user/nobody"), false), kms.MalformedPolicy, principals)
	refusal(t, put(root, only("arn:aws:iam::999999999999:root"), false), kms.MalformedPolicy, principals)
	refusal(t, put(root, only("arn:aws-cn:iam::111122223333:root"), false), kms.MalformedPolicy, principals)
	refusal(t, put(alice, statementOf(`{"Effect":"Deny","Principal":"*","Action":"kms:PutKeyPolicy","Resource":"*"}`), false), kms.MalformedPolicy, lockout)
	if err := put(root, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"kms:*","Resource":"*","Condition":{"StringEqualz":{"kms:ViaService":"x"}}}]}`, false); !errors.Is(err, kms.MalformedPolicy) {
		t.Errorf("an unknown operator: %v", err)
	}
	if err := put(root, only("arn:aws:iam::111122223333:root")+strings.Repeat(" ", 32768), false); !errors.Is(err, kms.LimitExceeded) {
		t.Errorf("a long policy: %v", err)
	}
	_, err := r.PutKeyPolicy(t.Context(), root, &kms.PutKeyPolicyRequest{KeyID: key.KeyID, Policy: only("*"), PolicyName: "other"})
	refusal(t, err, kms.NotFound, "No such policy exists")

	want := only("arn:aws:iam::111122223333:user/alice")
	must(t, put(alice, want, false))
	got, err := r.GetKeyPolicy(t.Context(), alice, &kms.GetKeyPolicyRequest{KeyID: key.KeyID})
	must(t, err)
	if !strings.Contains(got.Policy, "\n      \"AWS\" : \"arn:aws:iam::111122223333:user/alice\"\n") || got.PolicyName != "default" {
		t.Errorf("got %+v", got)
	}
	if _, err := r.GetKeyPolicy(t.Context(), root, &kms.GetKeyPolicyRequest{KeyID: key.KeyID}); !errors.Is(err, kms.AccessDenied) {
		t.Errorf("root reads the policy of a key that is alice's alone: %v", err)
	}
	must(t, put(alice, only("arn:aws:iam::111122223333:root"), true))
	list, err := r.ListKeyPolicies(t.Context(), alice, &kms.ListKeyPoliciesRequest{KeyID: key.KeyID})
	if err != nil || len(list.PolicyNames) != 1 || list.PolicyNames[0] != "default" {
		t.Errorf("got %+v, %v", list, err)
	}
}

func statementOf(s string) string { return `{"Version":"2012-10-17","Statement":[` + s + `]}` }

// TestDeletedPrincipal: who was deleted may do nothing any more, whatever still names them, and nobody gets their name.
func TestDeletedPrincipal(t *testing.T) {
	r := newRig(t, nil)
	alice := r.add("arn:aws:iam::111122223333:user/alice")
	key := r.newKeyWith(keyPolicy(`{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:user/alice"},"Action":"kms:Encrypt","Resource":"*"}`))
	encrypt := func() error {
		_, err := r.Encrypt(t.Context(), alice, &kms.EncryptRequest{KeyID: key.KeyID, Plaintext: []byte("x")})
		return err
	}
	must(t, encrypt())
	arn, err := kms.ParsePrincipalARN(alice.Principal)
	must(t, err)
	must(t, r.admin().DeletePrincipal(t.Context(), arn))
	if err := encrypt(); !errors.Is(err, kms.AccessDenied) {
		t.Errorf("after the deletion: %v", err)
	}
	if _, err := r.admin().CreatePrincipal(t.Context(), arn, nil); !errors.Is(err, kms.ErrConflict) {
		t.Errorf("the name was given again: %v", err)
	}
}

// TestExplainIsTheGate: Explain says what the gate does, for many callers and requests.
func TestExplainIsTheGate(t *testing.T) {
	r := newRig(t, nil)
	r.addForeign()
	callers := []kms.Caller{root, foreignRoot,
		r.add("arn:aws:iam::111122223333:user/a"),
		r.add("arn:aws:iam::111122223333:user/b", allow("kms:*", "*")),
		r.add("arn:aws:iam::111122223333:role/c", statement("Allow", "kms:*", "*", `{"StringEquals":{"kms:EncryptionContext:k":"v"}}`)),
		r.add("arn:aws:iam::444455556666:user/d", allow("kms:*", "*")),
	}
	keys := []kms.KeyMetadata{r.newKey(),
		r.newKeyWith(keyPolicy(`{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::444455556666:root"},"Action":"kms:Encrypt","Resource":"*"}`)),
		r.newKeyWith(keyPolicy(`{"Effect":"Deny","Principal":"*","Action":"kms:Encrypt","Resource":"*","Condition":{"StringNotLike":{"kms:EncryptionContext:k":"v*"}}}`))}
	seen := map[bool]int{}
	for _, who := range callers {
		for _, key := range keys {
			for _, context := range []map[string]string{nil, {"k": "v"}, {"K": "w"}} {
				_, err := r.Encrypt(t.Context(), who, &kms.EncryptRequest{KeyID: key.Arn, Plaintext: []byte("x"), EncryptionContext: context})
				e, xerr := kms.Explain(t.Context(), r.store, &kms.ExplainRequest{Principal: who.Principal, Action: "kms:Encrypt", Key: key.Arn, Context: context})
				must(t, xerr)
				if e.Allowed != (err == nil) {
					t.Errorf("%s, %v: the gate says %v, Explain %+v", who.Principal, context, err, e)
				}
				var refused *kms.Error
				if errors.As(err, &refused) && e.Answer != refused.Detail {
					t.Errorf("the client is told %q, Explain says %q", refused.Detail, e.Answer)
				}
				seen[e.Allowed]++
			}
		}
	}
	if seen[true] == 0 || seen[false] == 0 {
		t.Errorf("the cases show nothing: %v", seen)
	}
}

// TestAdminIsRecorded: what an administrator does is in the audit log of the server that hears of it.
func TestAdminIsRecorded(t *testing.T) {
	r := newRig(t, nil)
	a := r.admin()
	arn, err := kms.ParsePrincipalARN("arn:aws:iam::111122223333:user/alice")
	must(t, err)
	_, err = a.CreatePrincipal(t.Context(), arn, map[string]string{"team": "x"})
	must(t, err)
	must(t, a.PutPolicy(t.Context(), arn, kms.NamedPolicy{Name: "p", Text: allow("kms:*", "*")}))
	key, err := a.CreateAccessKey(t.Context(), token, arn)
	must(t, err)
	must(t, a.SetAccessKey(t.Context(), key.ID, false))
	_, err = a.CreateAccessKey(t.Context(), token, arn)
	must(t, err)
	if _, err := a.CreateAccessKey(t.Context(), token, arn); err == nil {
		t.Error("a third access key was made")
	}
	must(t, r.RecordEvents(t.Context()))
	must(t, r.RecordEvents(t.Context())) // there are none any more

	var names []string
	for _, record := range r.records() {
		names = append(names, record.Name)
		if b, _ := json.Marshal(record); strings.Contains(string(b), key.Secret) {
			t.Errorf("the record has the secret: %s", b)
		}
		if record.Identity.UserName != "tester" || record.EventID == "" {
			t.Errorf("got %+v", record)
		}
	}
	if got := strings.Join(names, " "); got != "CreateUser PutUserPolicy CreateAccessKey UpdateAccessKey CreateAccessKey" {
		t.Errorf("recorded %s", got)
	}
}

func TestThrottling(t *testing.T) {
	r := newRig(t, nil)
	s := newServiceWith(t, r.store, &kms.Limits{kms.Reads: 1})
	for i := range 5 {
		_, err := s.Begin(root, "ListKeys")
		if i < 2 && err != nil || i >= 2 && !errors.Is(err, kms.Throttled) {
			t.Errorf("request %d: %v", i, err)
		}
	}
	if _, err := s.Begin(foreignRoot, "ListKeys"); err != nil {
		t.Errorf("another principal: %v", err)
	}
	if _, err := s.Begin(root, "Encrypt"); err != nil {
		t.Errorf("another class: %v", err)
	}
}

// TestTagsOfANewKey: who may not tag keys may not do it by making them.
func TestTagsOfANewKey(t *testing.T) {
	r := newRig(t, nil)
	create := func(who kms.Caller) error {
		_, err := r.CreateKey(t.Context(), who, &kms.CreateKeyRequest{Tags: []kms.Tag{{TagKey: "team", TagValue: "a"}}})
		return err
	}
	must(t, create(r.add("arn:aws:iam::111122223333:user/may", allow("kms:CreateKey", "*"), allow("kms:TagResource", "arn:aws:kms:*:111122223333:key/*"))))
	err := create(r.add("arn:aws:iam::111122223333:user/maynot", allow("kms:*", "*"), statement("Deny", "kms:TagResource", "arn:aws:kms:*:*:key/*", "")))
	if !errors.Is(err, kms.AccessDenied) {
		t.Errorf("a denied tag on a new key: %v", err)
	}
}

// TestLargeContext: an encryption context may fill a request. It is looked at once, and not once for each of many grants and conditions.
func TestLargeContext(t *testing.T) {
	r := newRig(t, nil)
	var tests []string
	for i := range 300 {
		tests = append(tests, fmt.Sprintf(`"kms:EncryptionContext:%d":"%d"`, i, i))
	}
	key := r.newKeyWith(keyPolicy(`{"Effect":"Deny","Principal":"*","Action":"kms:Decrypt","Resource":"*","Condition":{"StringNotEquals":{` + strings.Join(tests, ",") + `}}}`))
	id, err := kms.ParseKeyID(key.KeyID)
	must(t, err)
	user := r.add("arn:aws:iam::111122223333:user/app")
	context := make(map[string]string)
	for i := range 15_000 {
		context[fmt.Sprint(i)] = fmt.Sprint(i)
	}
	for _, n := range []int{900, 1200} { // few enough to be remembered, and too many
		must(t, r.store.Update(t.Context(), func(tx kms.Tx) error {
			for i := range n {
				g := &kms.Grant{ID: fmt.Sprintf("%032x%032x", n, i), Key: id, Grantee: user.Principal, Issuer: account, Operations: 1 << 1,
					Constraint: kms.GrantConstraint{Subset: map[string]string{"1": "1", "absent": fmt.Sprint(i)}}}
				if i == n-1 {
					g.Constraint.Subset = map[string]string{"14999": "14999"}
				}
				if err := tx.InsertGrant(g); err != nil {
					return err
				}
			}
			return nil
		}))
		_, err = r.Encrypt(t.Context(), user, &kms.EncryptRequest{KeyID: key.KeyID, Plaintext: []byte("x"), EncryptionContext: context})
		must(t, err)
		delete(context, "14999")
		_, err = r.Encrypt(t.Context(), user, &kms.EncryptRequest{KeyID: key.KeyID, Plaintext: []byte("x"), EncryptionContext: context})
		if got := reason(t, err); len(got) > 5000 {
			t.Errorf("%d bytes of reason", len(got))
		}
		context["14999"] = "14999"
	}
	blob := r.encrypt(key.KeyID, "x", context)
	must(t, second(r.Decrypt(t.Context(), root, &kms.DecryptRequest{CiphertextBlob: blob, EncryptionContext: context})))
}

// TestDenialIsBounded: whoever is denied cannot fill the operator's log.
func TestDenialIsBounded(t *testing.T) {
	r := newRig(t, nil)
	var tests []string
	for i := range 900 {
		tests = append(tests, fmt.Sprintf(`"kms:EncryptionContext:%d":"%s"`, i, strings.Repeat("v", 5)))
	}
	key := r.newKeyWith(keyPolicy(`{"Effect":"Allow","Principal":"*","Action":"kms:Encrypt","Resource":"*","Condition":{"StringEquals":{` + strings.Join(tests, ",") + `}}}`))
	who := r.add("arn:aws:iam::111122223333:user/denied")
	context := make(map[string]string)
	for i := range 400 {
		context[fmt.Sprint(i)] = "wrong"
	}
	_, err := r.Encrypt(t.Context(), who, &kms.EncryptRequest{KeyID: key.KeyID, Plaintext: []byte("x"), EncryptionContext: context})
	if got := reason(t, err); len(got) > 5000 || !strings.Contains(got, `kms:EncryptionContext:0`) {
		t.Errorf("%d bytes of reason: %.300s", len(got), got)
	}
}

// TestForgedEvent: nothing in the store can pass for a request that somebody signed, and what cannot be read does not keep back what came after it.
func TestForgedEvent(t *testing.T) {
	r := newRig(t, nil)
	forged, err := json.Marshal(audit.Record{Name: "Decrypt", EventType: audit.APICall, Identity: audit.Identity{Type: "Root"}, RequestID: "x"})
	must(t, err)
	must(t, r.store.Update(t.Context(), func(tx kms.Tx) error { return errors.Join(tx.InsertEvent(forged), tx.InsertEvent([]byte("not JSON"))) }))
	must(t, r.admin().CreateAccount(t.Context(), foreign))
	must(t, r.RecordEvents(t.Context()))
	var names []string
	for _, record := range r.records() {
		names = append(names, record.Name+"/"+record.EventType)
	}
	want := "UnreadableEvent/AwsServiceEvent UnreadableEvent/AwsServiceEvent CreateAccount/StrongroomAdminEvent"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("recorded %s, want %s", got, want)
	}
}

// TestAnnounced: the audit log knows of a request that it will be recorded, also of one that is refused.
func TestAnnounced(t *testing.T) {
	r := newRig(t, nil)
	for n, err := range []error{nil, errors.New("refused")} {
		who, _ := r.Begin(root, "ListKeys")
		if r.audit.announced != n+1 {
			t.Fatalf("%d records are announced, want %d", r.audit.announced, n+1)
		}
		code := ""
		if err != nil {
			code = "ThrottlingException"
		}
		if err := r.Record(t.Context(), who, code, ""); err != nil {
			t.Fatal(err)
		}
		records := r.records()
		if last := records[len(records)-1]; !last.Expected || last.Time.IsZero() {
			t.Error("the record is not one that was announced")
		}
	}
	r.audit.err = errors.New("the disk is full")
	if _, err := r.Begin(root, "ListKeys"); err == nil || r.audit.announced != 2 {
		t.Errorf("%v, and %d records are announced that cannot be written", err, r.audit.announced-2)
	}
}

// TestSearchesAreBounded: one principal cannot fill the queue for primes.
func TestSearchesAreBounded(t *testing.T) {
	r := newRig(t, nil)
	key := r.newKey()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const n = 200
	refused := make(chan error, n)
	for range n {
		go func() {
			_, err := r.GenerateDataKeyPair(ctx, root, &kms.GenerateDataKeyPairRequest{KeyID: key.KeyID, KeyPairSpec: keyspec.RSA4096})
			refused <- err
		}()
	}
	throttled := 0
	for range n - 64 - 2*runtime.NumCPU() {
		err := <-refused
		if errors.Is(err, kms.Throttled) {
			throttled++
		} else if err != nil {
			t.Errorf("got %v", err)
		}
	}
	if throttled == 0 {
		t.Error("nobody was told to slow down")
	}
	cancel()
	for range 64 + 2*runtime.NumCPU() {
		<-refused
	}
}

// TestRevokedWhileGranting: whoever loses the right to make grants does not make another, whatever the server remembers.
func TestRevokedWhileGranting(t *testing.T) {
	r := newRig(t, nil)
	key := r.newKey()
	user := r.add("arn:aws:iam::111122223333:user/leaver", allow("kms:*", "*"))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	defer func() { stop(); <-done }()
	grant := func() error {
		_, err := r.CreateGrant(t.Context(), user, &kms.CreateGrantRequest{KeyID: key.KeyID, GranteePrincipal: root.Principal, Operations: []string{"Decrypt"}})
		return err
	}
	for range 5 { // until the server trusts what it remembers
		must(t, grant())
		time.Sleep(100 * time.Millisecond)
	}
	arn, err := kms.ParsePrincipalARN(user.Principal)
	must(t, err)
	must(t, r.admin().DeletePolicy(t.Context(), arn, "p0"))
	if err := grant(); !errors.Is(err, kms.AccessDenied) {
		t.Errorf("right after the policy was taken away: %v", err)
	}
}
