package kms_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"strongroom/kms"
)

func TestListGrants(t *testing.T) {
	r := newRig(t, nil)
	r.addForeign()
	ctx := t.Context()
	one := r.add("arn:aws:iam::111122223333:user/one")
	two := r.add("arn:aws:iam::111122223333:user/two")
	key, other := r.newKey(), r.newKey()
	var all []string
	to := map[string][]string{}
	for i := range 7 {
		grantee := []string{one.Principal, two.Principal}[i%2]
		g := r.create(root, &kms.CreateGrantRequest{KeyID: key.KeyID, GranteePrincipal: grantee, Operations: []string{"Encrypt"}})
		all = append(all, g.GrantID)
		to[grantee] = append(to[grantee], g.GrantID)
	}
	elsewhere := r.create(root, &kms.CreateGrantRequest{KeyID: other.KeyID, GranteePrincipal: one.Principal, Operations: []string{"Encrypt"}})
	list := func(req *kms.ListGrantsRequest) (ids []string) {
		t.Helper()
		for {
			resp, err := r.ListGrants(ctx, root, req)
			must(t, err)
			if resp.Truncated != (resp.NextMarker != "") || req.Limit != nil && len(resp.Grants) > int(*req.Limit) {
				t.Errorf("%d grants, truncated %v, marker %q", len(resp.Grants), resp.Truncated, resp.NextMarker)
			}
			for _, g := range resp.Grants {
				ids = append(ids, g.GrantID)
			}
			if req.Marker = resp.NextMarker; req.Marker == "" {
				return ids
			}
		}
	}
	slices.Sort(all)
	for _, limit := range []int32{1, 3, 7, 1000} {
		if got := list(&kms.ListGrantsRequest{KeyID: key.Arn, Limit: &limit}); !slices.Equal(got, all) {
			t.Errorf("limit %d: %v", limit, got)
		}
		for grantee, want := range to {
			slices.Sort(want)
			if got := list(&kms.ListGrantsRequest{KeyID: key.KeyID, GranteePrincipal: grantee, Limit: &limit}); !slices.Equal(got, want) {
				t.Errorf("limit %d, to %s: %v", limit, grantee, got)
			}
		}
	}
	ofOne := to[one.Principal][0]
	for _, test := range []struct {
		req  kms.ListGrantsRequest
		want int
	}{
		{kms.ListGrantsRequest{GrantID: ofOne}, 1},
		{kms.ListGrantsRequest{GrantID: ofOne, GranteePrincipal: one.Principal}, 1},
		{kms.ListGrantsRequest{GrantID: ofOne, GranteePrincipal: two.Principal}, 0},
		{kms.ListGrantsRequest{GrantID: elsewhere.GrantID}, 0},
		{kms.ListGrantsRequest{GrantID: unknownGrant}, 0},
		{kms.ListGrantsRequest{GranteePrincipal: root.Principal}, 0},
		{kms.ListGrantsRequest{GranteePrincipal: "s3.amazonaws.com"}, 0},
	} {
		test.req.KeyID = key.KeyID
		got := list(&test.req)
		if len(got) != test.want || test.want == 1 && got[0] != ofOne {
			t.Errorf("%+v: %v", test.req, got)
		}
	}
	resp, err := r.ListGrants(ctx, root, &kms.ListGrantsRequest{KeyID: other.KeyID})
	must(t, err)
	text, err := json.Marshal(resp)
	must(t, err)
	if s := string(text); strings.Contains(s, "RetiringPrincipal") || strings.Contains(s, "Constraints") || strings.Contains(s, "NextMarker") || !strings.Contains(s, `"Name":""`) ||
		!strings.Contains(s, `"Truncated":false`) || !strings.Contains(s, `"IssuingAccount":"arn:aws:iam::111122223333:root"`) {
		t.Errorf("on the wire %s", s)
	}

	r.everyState(key.KeyID, func(state kms.KeyState) {
		if got := list(&kms.ListGrantsRequest{KeyID: key.KeyID}); len(got) != 7 {
			t.Errorf("%s: %d grants", state, len(got))
		}
	})
	refuse := func(who kms.Caller, req kms.ListGrantsRequest, code kms.Code, detail string) {
		t.Helper()
		refusal(t, second(r.ListGrants(ctx, who, &req)), code, detail)
	}
	refuse(root, kms.ListGrantsRequest{KeyID: key.KeyID, GrantID: "x"}, kms.InvalidGrantID, "Invalid grantId 'x'")
	refuse(root, kms.ListGrantsRequest{KeyID: key.KeyID, Marker: "rubbish"}, kms.InvalidMarker, "Could not deserialize marker 'rubbish'")
	refuse(root, kms.ListGrantsRequest{KeyID: "alias/x"}, kms.NotFound, "Invalid keyId 'alias/x'")
	refuse(one, kms.ListGrantsRequest{KeyID: key.KeyID}, kms.AccessDenied, "User: "+one.Principal+" is not authorized to perform: kms:ListGrants on resource: "+key.Arn+
		" because no identity-based policy allows the kms:ListGrants action")
	refuse(foreignRoot, kms.ListGrantsRequest{KeyID: key.Arn}, kms.AccessDenied, "User: "+foreignRoot.Principal+" is not authorized to perform: kms:ListGrants on this resource because "+
		"the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access")
}

func TestListGrantsDefaultPage(t *testing.T) {
	r := newRig(t, nil)
	key := r.newKey()
	r.insert(key.KeyID, 120, func(_ int, g *kms.Grant) { g.Retiring = root.Principal })
	limit := int32(1000)
	for _, test := range []struct {
		limit *int32
		want  int
	}{{nil, 50}, {&limit, 100}} {
		resp, err := r.ListGrants(t.Context(), root, &kms.ListGrantsRequest{KeyID: key.KeyID, Limit: test.limit})
		must(t, err)
		retirable, err := r.ListRetirableGrants(t.Context(), root, &kms.ListRetirableGrantsRequest{RetiringPrincipal: root.Principal, Limit: test.limit})
		must(t, err)
		if len(resp.Grants) != test.want || !resp.Truncated || len(retirable.Grants) != test.want || !retirable.Truncated {
			t.Errorf("%d grants, %d retirable", len(resp.Grants), len(retirable.Grants))
		}
		// A marker is good in its own list only.
		_, err = r.ListRetirableGrants(t.Context(), root, &kms.ListRetirableGrantsRequest{RetiringPrincipal: root.Principal, Marker: resp.NextMarker})
		refusal(t, err, kms.InvalidMarker, "Could not deserialize marker '"+resp.NextMarker+"'")
	}
}

func TestListRetirableGrants(t *testing.T) {
	r := newRig(t, nil)
	r.addForeign()
	ctx := t.Context()
	lister := r.add("arn:aws:iam::444455556666:user/lister", allow("kms:ListRetirableGrants", "*"))
	user := r.add("arn:aws:iam::444455556666:user/user")
	job := r.add("arn:aws:iam::444455556666:role/job")
	var keys []kms.KeyMetadata
	want := map[string]string{} // id of the grant, ARN of its key
	for i := range 5 {
		key := r.newKey()
		keys = append(keys, key)
		g := r.create(root, &kms.CreateGrantRequest{KeyID: key.KeyID, GranteePrincipal: root.Principal, RetiringPrincipal: user.Principal, Operations: []string{"Encrypt"}, Name: fmt.Sprint("n", i)})
		want[g.GrantID] = key.Arn
		r.create(root, &kms.CreateGrantRequest{KeyID: key.KeyID, GranteePrincipal: user.Principal, RetiringPrincipal: job.Role, Operations: []string{"Encrypt"}})
		r.create(root, &kms.CreateGrantRequest{KeyID: key.KeyID, GranteePrincipal: user.Principal, Operations: []string{"Encrypt", "RetireGrant"}})
	}
	check := func() {
		t.Helper()
		for _, limit := range []int32{1, 2, 5, 1000} {
			got := map[string]string{}
			req := &kms.ListRetirableGrantsRequest{RetiringPrincipal: user.Principal, Limit: &limit}
			for last := ""; ; {
				resp, err := r.ListRetirableGrants(ctx, lister, req)
				must(t, err)
				for _, g := range resp.Grants {
					if g.GrantID <= last || g.RetiringPrincipal != user.Principal || g.IssuingAccount != root.Principal {
						t.Errorf("listed %+v", g)
					}
					last = g.GrantID
					got[g.GrantID] = g.KeyID
				}
				if resp.Truncated != (resp.NextMarker != "") {
					t.Errorf("truncated %v, marker %q", resp.Truncated, resp.NextMarker)
				}
				if req.Marker = resp.NextMarker; req.Marker == "" {
					break
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("limit %d: listed %v, want %v", limit, got, want)
			}
		}
	}
	check()

	// The list is for clearing away, also after those who might have done it.
	arn, err := kms.ParsePrincipalARN(user.Principal)
	must(t, err)
	must(t, r.admin().DeletePrincipal(ctx, arn))
	check()

	// Grants on a key that is gone are gone; on one that is pending deletion they are not.
	days := int32(7)
	due, err := r.ScheduleKeyDeletion(ctx, root, &kms.ScheduleKeyDeletionRequest{KeyID: keys[0].KeyID, PendingWindowInDays: &days})
	must(t, err)
	check()
	r.Sweep(ctx, due.DeletionDate.Time)
	for id, key := range want {
		if key == keys[0].Arn {
			delete(want, id)
		}
	}
	check()

	refuse := func(who kms.Caller, req kms.ListRetirableGrantsRequest, code kms.Code, detail string) {
		t.Helper()
		refusal(t, second(r.ListRetirableGrants(ctx, who, &req)), code, detail)
	}
	for _, principal := range []string{root.Principal, "arn:aws:iam::111122223333:user/nobody", "arn:aws:iam::999999999999:root"} {
		refuse(lister, kms.ListRetirableGrantsRequest{RetiringPrincipal: principal}, kms.AccessDenied, "User: "+lister.Principal+" is not authorized to perform: "+
			"kms:ListRetirableGrants on this resource because the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access")
	}
	for _, principal := range []string{"x", foreign, "arn:aws-cn:iam::444455556666:root"} {
		refuse(lister, kms.ListRetirableGrantsRequest{RetiringPrincipal: principal}, kms.InvalidArn, "ARN does not refer to a valid principal: "+principal)
	}
	refuse(lister, kms.ListRetirableGrantsRequest{RetiringPrincipal: user.Principal, Marker: "rubbish"}, kms.InvalidMarker, "Could not deserialize marker 'rubbish'")
	refuse(job, kms.ListRetirableGrantsRequest{RetiringPrincipal: job.Role}, kms.AccessDenied, "User: "+job.Principal+" is not authorized to perform: "+
		"kms:ListRetirableGrants on resource: * because no identity-based policy allows the kms:ListRetirableGrants action")
	if _, err := r.ListRetirableGrants(ctx, user, &kms.ListRetirableGrantsRequest{RetiringPrincipal: user.Principal}); !errors.Is(err, kms.AccessDenied) {
		t.Errorf("one who was deleted: %v", err)
	}
}
