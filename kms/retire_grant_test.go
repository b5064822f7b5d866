package kms_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"strongroom/kms"
)

const unknownGrant = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// everyState calls f with the key in each state that it can be in, and leaves it enabled.
func (r *rig) everyState(key string, f func(state kms.KeyState)) {
	r.t.Helper()
	ctx := r.t.Context()
	f(kms.StateEnabled)
	must(r.t, second(r.DisableKey(ctx, root, &kms.DisableKeyRequest{KeyID: key})))
	f(kms.StateDisabled)
	must(r.t, second(r.ScheduleKeyDeletion(ctx, root, &kms.ScheduleKeyDeletionRequest{KeyID: key})))
	f(kms.StatePendingDeletion)
	must(r.t, second(r.CancelKeyDeletion(ctx, root, &kms.CancelKeyDeletionRequest{KeyID: key})))
	must(r.t, second(r.EnableKey(ctx, root, &kms.EnableKeyRequest{KeyID: key})))
}

func TestRevokeGrant(t *testing.T) {
	r := newRig(t, nil)
	r.addForeign()
	app := r.add("arn:aws:iam::111122223333:user/app")
	partner := `{"Effect":"Allow","Principal":{"AWS":"444455556666"},"Action":["kms:RevokeGrant","kms:ListGrants"],"Resource":"*"}`
	key, other := r.newKeyWith(keyPolicy(partner)), r.newKey()
	revoke := func(who kms.Caller, key, id string, dry bool) error {
		return second(r.RevokeGrant(t.Context(), who, &kms.RevokeGrantRequest{KeyID: key, GrantID: id, DryRun: dry}))
	}
	ids := map[kms.KeyState]string{}
	for _, state := range []kms.KeyState{kms.StateEnabled, kms.StateDisabled, kms.StatePendingDeletion} {
		ids[state] = r.create(root, &kms.CreateGrantRequest{KeyID: key.KeyID, GranteePrincipal: app.Principal, Operations: []string{"Encrypt", "RetireGrant"}}).GrantID
	}
	must(t, r.encryptAs(app, key.KeyID, nil))
	r.everyState(key.KeyID, func(state kms.KeyState) {
		id := ids[state]
		missing := "Grant ID " + id + " not found"
		refusal(t, revoke(root, other.KeyID, id, false), kms.NotFound, missing)
		refusal(t, revoke(root, other.KeyID, id, true), kms.NotFound, missing)
		refusal(t, revoke(app, key.KeyID, id, false), kms.AccessDenied, "User: "+app.Principal+" is not authorized to perform: kms:RevokeGrant on resource: "+key.Arn+
			" because no identity-based policy allows the kms:RevokeGrant action")
		refusal(t, revoke(root, key.KeyID, id, true), kms.DryRunSucceeded, dryRunSucceeded)
		must(t, revoke(root, key.Arn, id, false))
		refusal(t, revoke(root, key.KeyID, id, false), kms.NotFound, missing)
		refusal(t, revoke(root, key.KeyID, id, true), kms.NotFound, missing)
	})
	if err := r.encryptAs(app, key.KeyID, nil); !errors.Is(err, kms.AccessDenied) {
		t.Errorf("a revoked grant: %v", err)
	}
	for _, id := range []string{"x", unknownGrant[1:], strings.ToUpper(unknownGrant)} {
		refusal(t, revoke(root, key.KeyID, id, false), kms.InvalidGrantID, "Invalid grantId '"+id+"'")
	}

	// From another account, to which the key policy gives it.
	id := r.create(root, &kms.CreateGrantRequest{KeyID: key.KeyID, GranteePrincipal: app.Principal, Operations: []string{"Encrypt"}}).GrantID
	if list, err := r.ListGrants(t.Context(), foreignRoot, &kms.ListGrantsRequest{KeyID: key.Arn}); err != nil || len(list.Grants) != 1 {
		t.Errorf("listed %+v, %v", list, err)
	}
	must(t, revoke(foreignRoot, key.Arn, id, false))
	refusal(t, revoke(foreignRoot, key.Arn, id, false), kms.NotFound, "Grant ID "+id+" not found")
	for _, arn := range []string{other.Arn, arnBase + "key/11111111-1111-4111-8111-111111111111"} {
		refusal(t, revoke(foreignRoot, arn, id, false), kms.AccessDenied, "User: "+foreignRoot.Principal+" is not authorized to perform: kms:RevokeGrant on this resource because "+
			"the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access")
	}
}

// Who may retire a grant.
func TestRetireGrantWho(t *testing.T) {
	r := newRig(t, nil)
	r.addForeign()
	const home, away = "arn:aws:iam::111122223333:", "arn:aws:iam::444455556666:"
	retire := allow("kms:RetireGrant", "arn:aws:kms:local-1:111122223333:key/*")
	callers := map[string]kms.Caller{
		"root":         root,
		"user":         r.add(home + "user/user"),
		"allowed":      r.add(home+"user/allowed", retire),
		"elsewhere":    r.add(home+"user/elsewhere", allow("kms:RetireGrant", "arn:aws:kms:local-1:111122223333:key/11111111-1111-4111-8111-111111111111")),
		"barred":       r.add(home+"user/barred", retire, statement("Deny", "kms:RetireGrant", "*", "")),
		"job":          r.add(home + "role/job"),
		"away root":    foreignRoot,
		"away user":    r.add(away + "user/user"),
		"away allowed": r.add(away+"user/allowed", retire),
		"away barred":  r.add(away+"user/barred", retire, statement("Deny", "kms:Retire*", "*", "")),
		"away job":     r.add(away + "role/job"),
	}
	// The key policy gives RetireGrant to everybody, and takes it from everybody on another key: both without effect.
	partner := `{"Effect":"Allow","Principal":{"AWS":"444455556666"},"Action":"kms:CreateGrant","Resource":"*"}`
	keys := []kms.KeyMetadata{
		r.newKeyWith(keyPolicy(partner, `{"Effect":"Allow","Principal":"*","Action":"kms:RetireGrant","Resource":"*"}`)),
		r.newKeyWith(keyPolicy(partner, `{"Effect":"Deny","Principal":"*","Action":"kms:RetireGrant","Resource":"*"}`)),
	}
	for _, test := range []struct {
		name       string
		issuer     kms.Caller
		grantee    string
		retiring   string
		operations string // besides Encrypt
		constraint *kms.GrantConstraints
		may        []string
	}{
		{"its own account", root, callers["user"].Principal, "", "", nil, []string{"root", "allowed"}},
		{"another account made it", foreignRoot, callers["user"].Principal, "", "", nil, []string{"away root", "away allowed"}},
		{"a user is to retire it", root, root.Principal, callers["away user"].Principal, "", nil, []string{"root", "allowed", "away user"}},
		{"a role is", root, root.Principal, callers["away job"].Role, "", nil, []string{"root", "allowed", "away job"}},
		{"a session is", root, root.Principal, callers["job"].Principal, "", nil, []string{"root", "allowed", "job"}},
		{"another session is", root, root.Principal, callers["job"].Principal + "2", "", nil, []string{"root", "allowed"}},
		{"an account is", root, root.Principal, foreignRoot.Principal, "", nil, []string{"root", "allowed", "away root", "away allowed"}},
		{"one who is barred is", root, root.Principal, callers["barred"].Principal, "", nil, []string{"root", "allowed"}},
		{"one who is barred there is", foreignRoot, root.Principal, callers["away barred"].Principal, "", nil, []string{"away root", "away allowed"}},
		{"the grantee is not", foreignRoot, callers["user"].Principal, "", "Decrypt", nil, []string{"away root", "away allowed"}},
		{"the grantee may", foreignRoot, callers["user"].Principal, "", "RetireGrant", nil, []string{"away root", "away allowed", "user"}},
		{"the grantee may, an account", foreignRoot, root.Principal, "", "RetireGrant", nil, []string{"away root", "away allowed", "root", "allowed"}},
		{"the grantee may, whatever the context", foreignRoot, callers["job"].Role, "", "RetireGrant",
			&kms.GrantConstraints{EncryptionContextEquals: map[string]string{"a": "1"}}, []string{"away root", "away allowed", "job"}},
		{"a grant that allows nothing", foreignRoot, callers["job"].Role, "", "RetireGrant",
			&kms.GrantConstraints{SourceArn: "arn:aws:s3:::bucket-1"}, []string{"away root", "away allowed"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, key := range keys {
				for name, who := range callers {
					req := &kms.CreateGrantRequest{KeyID: key.Arn, GranteePrincipal: test.grantee, RetiringPrincipal: test.retiring, Operations: []string{"Encrypt"}, Constraints: test.constraint}
					if test.operations != "" {
						req.Operations = append(req.Operations, test.operations)
					}
					g := r.create(test.issuer, req)
					dry := second(r.RetireGrant(t.Context(), who, &kms.RetireGrantRequest{KeyID: key.Arn, GrantID: g.GrantID, DryRun: true}))
					if !r.has(key.KeyID, g.GrantID) {
						t.Errorf("%s retired it in a dry run", name)
					}
					byToken := second(r.RetireGrant(t.Context(), who, &kms.RetireGrantRequest{GrantToken: g.GrantToken, DryRun: true}))
					if fmt.Sprint(dry) != fmt.Sprint(byToken) {
						t.Errorf("%s: by id %v, by token %v", name, dry, byToken)
					}
					err := second(r.RetireGrant(t.Context(), who, &kms.RetireGrantRequest{GrantToken: g.GrantToken}))
					if !slices.Contains(test.may, name) {
						if !errors.Is(err, kms.AccessDenied) || dry.Error() != err.Error() {
							t.Errorf("%s: %v, in a dry run %v", name, err, dry)
						}
						if reason(t, err) == "" {
							t.Errorf("%s: the operator is told nothing", name)
						}
						if !r.has(key.KeyID, g.GrantID) {
							t.Errorf("%s retired it", name)
						}
						continue
					}
					if err != nil {
						t.Errorf("%s: %v", name, err)
					}
					refusal(t, dry, kms.DryRunSucceeded, dryRunSucceeded)
					if r.has(key.KeyID, g.GrantID) {
						t.Errorf("%s retired it, and it is there", name)
					}
				}
			}
		})
	}
}

// has reports whether the store has the grant.
func (r *rig) has(key, id string) bool {
	r.t.Helper()
	list, err := r.ListGrants(r.t.Context(), root, &kms.ListGrantsRequest{KeyID: key, GrantID: id})
	must(r.t, err)
	return len(list.Grants) == 1
}

func TestRetireGrant(t *testing.T) {
	r := newRig(t, nil)
	r.addForeign()
	ctx := t.Context()
	app := r.add("arn:aws:iam::111122223333:user/app")
	owner := r.add("arn:aws:iam::111122223333:user/owner", allow("kms:RetireGrant", "*"))
	barred := r.add("arn:aws:iam::111122223333:user/barred", statement("Deny", "*", "*", ""))
	careful := r.add("arn:aws:iam::111122223333:user/careful", allow("kms:*", "*"),
		statement("Deny", "kms:RetireGrant", "*", `{"StringEquals":{"aws:ResourceTag/keep":"yes"}}`))
	partner := `{"Effect":"Allow","Principal":{"AWS":"444455556666"},"Action":"kms:CreateGrant","Resource":"*"}`
	key, other := r.newKeyWith(keyPolicy(partner)), r.newKey()
	create := func(who kms.Caller) *kms.CreateGrantResponse {
		return r.create(who, &kms.CreateGrantRequest{KeyID: key.Arn, GranteePrincipal: app.Principal, Operations: []string{"Encrypt"}})
	}
	retire := func(who kms.Caller, req kms.RetireGrantRequest) error { return second(r.RetireGrant(ctx, who, &req)) }

	// All tokens of a grant name it.
	named := &kms.CreateGrantRequest{KeyID: other.KeyID, GranteePrincipal: app.Principal, Operations: []string{"Encrypt"}, Name: "n"}
	first, again := r.create(root, named), r.create(root, named)
	must(t, retire(root, kms.RetireGrantRequest{GrantToken: again.GrantToken}))
	refusal(t, retire(root, kms.RetireGrantRequest{GrantToken: first.GrantToken}), kms.NotFound, "Grant ID "+first.GrantID+" not found")

	// In any state of the key, which is named in both forms.
	grants := map[kms.KeyState][]*kms.CreateGrantResponse{}
	for _, state := range []kms.KeyState{kms.StateEnabled, kms.StateDisabled, kms.StatePendingDeletion} {
		grants[state] = []*kms.CreateGrantResponse{create(root), create(root), create(root)}
	}
	r.everyState(key.KeyID, func(state kms.KeyState) {
		g := grants[state]
		for _, req := range []kms.RetireGrantRequest{{GrantToken: g[0].GrantToken}, {KeyID: key.Arn, GrantID: g[1].GrantID}, {KeyID: key.KeyID, GrantID: g[2].GrantID}} {
			if err := retire(root, req); err != nil {
				t.Errorf("%s, %+v: %v", state, req, err)
			}
		}
	})
	if n := len(r.grants(key.KeyID)); n != 0 {
		t.Errorf("%d grants are left", n)
	}

	g := create(root)
	const either = "Please specify either a grant token or both a key ID and a grant ID."
	for _, req := range []kms.RetireGrantRequest{
		{}, {KeyID: key.Arn}, {GrantID: g.GrantID}, {GrantToken: g.GrantToken, KeyID: key.Arn}, {GrantToken: g.GrantToken, GrantID: g.GrantID},
		{GrantToken: g.GrantToken, KeyID: key.Arn, GrantID: g.GrantID}, {DryRun: true},
	} {
		refusal(t, retire(root, req), kms.Validation, either)
	}
	refusal(t, retire(root, kms.RetireGrantRequest{GrantToken: "rubbish"}), kms.InvalidGrantToken, "")
	refusal(t, retire(root, kms.RetireGrantRequest{KeyID: key.Arn, GrantID: "x"}), kms.InvalidGrantID, "Invalid grantId 'x'")
	refusal(t, retire(root, kms.RetireGrantRequest{KeyID: "alias/x", GrantID: g.GrantID}), kms.NotFound, "Invalid keyId 'alias/x'")
	refusal(t, retire(root, kms.RetireGrantRequest{KeyID: other.KeyID, GrantID: g.GrantID}), kms.NotFound, "Grant ID "+g.GrantID+" not found")
	refusal(t, retire(root, kms.RetireGrantRequest{KeyID: other.KeyID, GrantID: g.GrantID, DryRun: true}), kms.NotFound, "Grant ID "+g.GrantID+" not found")

	// In the account of the key: who may not, and why.
	own := func(who kms.Caller, why string) string {
		return "User: " + who.Principal + " is not authorized to perform: kms:RetireGrant on resource: " + key.Arn + " " + why
	}
	req := kms.RetireGrantRequest{KeyID: key.Arn, GrantID: g.GrantID}
	refusal(t, retire(app, req), kms.AccessDenied, own(app, "because no identity-based policy allows the kms:RetireGrant action"))
	refusal(t, retire(barred, req), kms.AccessDenied, own(barred, "with an explicit deny in an identity-based policy"))
	refusal(t, retire(barred, kms.RetireGrantRequest{KeyID: key.Arn, GrantID: unknownGrant}), kms.AccessDenied, own(barred, "with an explicit deny in an identity-based policy"))
	theirs := create(foreignRoot)
	refusal(t, retire(owner, kms.RetireGrantRequest{GrantToken: theirs.GrantToken}), kms.AccessDenied, own(owner, "because no resource-based policy allows the kms:RetireGrant action"))
	if got := reason(t, retire(owner, kms.RetireGrantRequest{GrantToken: theirs.GrantToken})); !strings.Contains(got, "account "+foreign) {
		t.Errorf("the operator is told %s", got)
	}

	// Conditions know the key.
	must(t, second(r.TagResource(ctx, root, &kms.TagResourceRequest{KeyID: key.KeyID, Tags: []kms.Tag{{TagKey: "keep", TagValue: "yes"}}})))
	refusal(t, retire(careful, req), kms.AccessDenied, own(careful, "with an explicit deny in an identity-based policy"))
	must(t, second(r.UntagResource(ctx, root, &kms.UntagResourceRequest{KeyID: key.KeyID, TagKeys: []string{"keep"}})))
	must(t, retire(careful, req))

	// To those of other accounts, a grant that they may not retire is like none, and a key like none.
	stranger := "User: " + foreignRoot.Principal + " is not authorized to perform: kms:RetireGrant on this resource because the resource does not exist in this Region, " +
		"no resource-based policies allow access, or a resource-based policy explicitly denies access"
	g = create(root)
	gone := create(root)
	must(t, retire(root, kms.RetireGrantRequest{GrantToken: gone.GrantToken}))
	for _, req := range []kms.RetireGrantRequest{
		{GrantToken: g.GrantToken}, {GrantToken: gone.GrantToken}, {KeyID: key.Arn, GrantID: g.GrantID}, {KeyID: key.Arn, GrantID: gone.GrantID}, {KeyID: key.Arn, GrantID: unknownGrant},
		{KeyID: arnBase + "key/11111111-1111-4111-8111-111111111111", GrantID: g.GrantID},
	} {
		refusal(t, retire(foreignRoot, req), kms.AccessDenied, stranger)
	}

	// Whose a key was that is gone is not known any more.
	days := int32(7)
	due, err := r.ScheduleKeyDeletion(ctx, root, &kms.ScheduleKeyDeletionRequest{KeyID: key.KeyID, PendingWindowInDays: &days})
	must(t, err)
	r.Sweep(ctx, due.DeletionDate.Time)
	refusal(t, retire(foreignRoot, kms.RetireGrantRequest{GrantToken: g.GrantToken}), kms.AccessDenied, stranger)
	refusal(t, retire(root, kms.RetireGrantRequest{GrantToken: g.GrantToken}), kms.AccessDenied, strings.Replace(stranger, foreign, account, 1))
	refusal(t, retire(root, kms.RetireGrantRequest{KeyID: key.Arn, GrantID: g.GrantID}), kms.NotFound, "Key '"+key.Arn+"' does not exist")
}

func TestRetireGrantIsRecorded(t *testing.T) {
	r := newRig(t, nil)
	r.addForeign()
	key := r.newKey()
	g := r.create(root, &kms.CreateGrantRequest{KeyID: key.KeyID, GranteePrincipal: root.Principal, Operations: []string{"Encrypt"}})
	for _, who := range []kms.Caller{foreignRoot, root} {
		who, err := r.Begin(who, "RetireGrant")
		must(t, err)
		who.Parameters([]byte(`{"keyId":"x"}`))
		_, err = r.RetireGrant(t.Context(), who, &kms.RetireGrantRequest{GrantToken: g.GrantToken})
		if (err == nil) != (who.Account == account) {
			t.Errorf("%s: %v", who.Principal, err)
		}
		must(t, r.Record(t.Context(), who, "", ""))
		record := r.records()[len(r.records())-1]
		if record.RequestParameters != nil || record.ResponseElements != nil || string(record.AdditionalEventData) != `{"grantId":"`+g.GrantID+`"}` ||
			len(record.Resources) != 1 || record.Resources[0].ARN != key.Arn || record.Resources[0].AccountID != account {
			t.Errorf("recorded %+v", record)
		}
	}
}
