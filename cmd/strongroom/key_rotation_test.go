package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// rotatable is a server with a key whose rotation is finished when it has been asked for that often.
func rotatable(t *testing.T, asked int32) *fakeKMS {
	var n atomic.Int32
	return newFakeKMS(t, map[string]fakeAnswer{
		"DescribeKey":       always(fakeMetadata("Enabled", `,"CurrentKeyMaterialId":"m2"`)),
		"RotateKeyOnDemand": always(`{"KeyId":"` + fakeKeyARN + `"}`),
		"GetKeyRotationStatus": func(map[string]any) any {
			if n.Add(1) < asked {
				return `{"KeyId":"` + fakeKeyARN + `","KeyRotationEnabled":false,"OnDemandRotationStartDate":1700000000}`
			}
			return `{"KeyId":"` + fakeKeyARN + `","KeyRotationEnabled":false}`
		},
	})
}

func TestKeyRotate(t *testing.T) {
	f := rotatable(t, 3)
	command(t, "key", "rotate", "app").want(t, exitOK).wantOut(t, fakeKeyID+"  m2\n")
	want := []string{"DescribeKey", "RotateKeyOnDemand", "GetKeyRotationStatus", "GetKeyRotationStatus", "GetKeyRotationStatus", "DescribeKey"}
	if got := f.called(); !slices.Equal(got, want) {
		t.Errorf("asked for %q, want %q", got, want)
	}
	if got := f.last("RotateKeyOnDemand")["KeyId"]; got != fakeKeyID {
		t.Errorf("rotated %v", got)
	}
	command(t, "key", "rotate", fakeKeyID, "--json").want(t, exitOK).wantOut(t, `{"KeyId":"`+fakeKeyARN+`","CurrentKeyMaterialId":"m2"}`+"\n")
	// One who may not describe the key may still rotate it.
	f.answer("DescribeKey", always(fakeRefusal{400, "AccessDeniedException", ""}))
	command(t, "key", "rotate", fakeKeyID).want(t, exitOK).wantOut(t, fakeKeyID+"\n")
}

func TestKeyRotateWithoutWaiting(t *testing.T) {
	f := rotatable(t, 3)
	command(t, "key", "rotate", fakeKeyID, "--no-wait").want(t, exitOK, "the rotation has begun:  strongroom key rotation "+fakeKeyID).wantOut(t, fakeKeyID+"\n")
	command(t, "key", "rotate", fakeKeyID, "--no-wait", "--json").want(t, exitOK).wantOut(t, `{"KeyId":"`+fakeKeyARN+`"}`+"\n")
	if got, want := f.called(), []string{"RotateKeyOnDemand", "RotateKeyOnDemand"}; !slices.Equal(got, want) {
		t.Errorf("asked for %q, want %q", got, want)
	}
}

func TestKeyRotateFails(t *testing.T) {
	f := rotatable(t, 3)
	f.answer("GetKeyRotationStatus", always(fakeRefusal{400, "AccessDeniedException", ""}))
	command(t, "key", "rotate", fakeKeyID).want(t, exitFailed, "wait for the rotation of key "+fakeKeyID+": not permitted", "hint: the rotation has begun").wantOut(t, "")

	// Sent again after a lost answer, it would be a second rotation.
	f = rotatable(t, 3)
	f.answer("RotateKeyOnDemand", always(fakeRefusal{500, "KMSInternalException", ""}))
	command(t, "key", "rotate", fakeKeyID).want(t, exitFailed, "rotate key "+fakeKeyID+": the server failed")
	if got := f.called(); len(got) != 1 {
		t.Errorf("asked for %q", got)
	}

	ctx, cancel := context.WithCancel(context.Background())
	f = rotatable(t, 1000)
	answer := f.answers["GetKeyRotationStatus"]
	f.answer("GetKeyRotationStatus", func(in map[string]any) any {
		if len(f.called()) == 4 {
			cancel()
		}
		return answer(in)
	})
	var stderr bytes.Buffer
	code := run(ctx, []string{"strongroom", "key", "rotate", fakeKeyID}, nil, new(bytes.Buffer), &stderr)
	said{code: code, stderr: stderr.String()}.want(t, exitFailed, "wait for the rotation of key "+fakeKeyID+": interrupted", "hint: the rotation has begun")
}

func TestKeyAutoRotate(t *testing.T) {
	f := newFakeKMS(t, map[string]fakeAnswer{
		"DescribeKey":        always(fakeMetadata("Enabled", "")),
		"EnableKeyRotation":  always(""),
		"DisableKeyRotation": always(""),
	})
	command(t, "key", "auto-rotate", "app").want(t, exitOK).wantOut(t, fakeKeyID+"  rotated every 365 days\n")
	command(t, "key", "auto-rotate", "app", "--days", "90", "--json").want(t, exitOK).
		wantOut(t, `{"KeyId":"`+fakeKeyID+`","KeyRotationEnabled":true,"RotationPeriodInDays":90}`+"\n")
	if got, want := fmt.Sprint(f.last("EnableKeyRotation")), "map[KeyId:"+fakeKeyID+" RotationPeriodInDays:90]"; got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
	command(t, "key", "auto-rotate", "app", "--off").want(t, exitOK).wantOut(t, fakeKeyID+"  not rotated automatically\n")
	command(t, "key", "auto-rotate", "app", "--off", "--json").want(t, exitOK).wantOut(t, `{"KeyId":"`+fakeKeyID+`","KeyRotationEnabled":false}`+"\n")
	if got := f.last("DisableKeyRotation")["KeyId"]; got != fakeKeyID {
		t.Errorf("no longer rotated: %v", got)
	}

	asked := len(f.called())
	for _, days := range []string{"89", "2561", "0", "-1"} {
		command(t, "key", "auto-rotate", "app", "--days", days).want(t, exitMisuse, "--days "+days+": must be 90 to 2560")
	}
	command(t, "key", "auto-rotate", "app", "--days", "90", "--off").want(t, exitMisuse, "--days and --off cannot both be")
	if len(f.called()) != asked {
		t.Errorf("asked for %q", f.called()[asked:])
	}
}

func TestKeyRotation(t *testing.T) {
	f := newFakeKMS(t, map[string]fakeAnswer{
		"DescribeKey": always(fakeMetadata("Enabled", "")),
		"GetKeyRotationStatus": always(`{"KeyId":"` + fakeKeyARN + `","KeyRotationEnabled":true,"RotationPeriodInDays":90,"NextRotationDate":1702592000,
			"OnDemandRotationStartDate":1700000000}`),
		"ListKeyRotations": func(in map[string]any) any {
			if in["Marker"] == nil {
				return `{"Rotations":[{"KeyId":"` + fakeKeyARN + `","KeyMaterialId":"m1","KeyMaterialState":"NON_CURRENT"}],"Truncated":true,"NextMarker":"more"}`
			}
			return `{"Rotations":[{"KeyMaterialId":"m2","KeyMaterialState":"CURRENT","RotationDate":1700000000.5,"RotationType":"AUTOMATIC"},
				{"KeyMaterialId":"m3","KeyMaterialState":"PENDING_ROTATION"}],"Truncated":false}`
		},
	})
	command(t, "key", "rotation", "app").want(t, exitOK).wantOut(t, ""+
		"Key        "+fakeKeyARN+"\n"+
		"Automatic  every 90 days, next 2023-12-14 22:13:20 UTC\n"+
		"On demand  begun 2023-11-14 22:13:20 UTC, not finished yet\n"+
		"\n"+
		"MATERIAL  STATE             ROTATED                  ROTATION\n"+
		"m1        NON_CURRENT\n"+
		"m2        CURRENT           2023-11-14 22:13:20 UTC  AUTOMATIC\n"+
		"m3        PENDING_ROTATION\n")
	if got := f.last("ListKeyRotations")["IncludeKeyMaterial"]; got != "ALL_KEY_MATERIAL" {
		t.Errorf("asked for %v", got)
	}
	command(t, "key", "rotation", "app", "--json").want(t, exitOK).wantOut(t, `{"KeyId":"`+fakeKeyARN+`","KeyRotationEnabled":true,"RotationPeriodInDays":90,`+
		`"NextRotationDate":"2023-12-14T22:13:20Z","OnDemandRotationStartDate":"2023-11-14T22:13:20Z","Rotations":[`+
		`{"KeyId":"`+fakeKeyARN+`","KeyMaterialId":"m1","KeyMaterialState":"NON_CURRENT"},`+
		`{"KeyMaterialId":"m2","KeyMaterialState":"CURRENT","RotationDate":"2023-11-14T22:13:20.5Z","RotationType":"AUTOMATIC"},`+
		`{"KeyMaterialId":"m3","KeyMaterialState":"PENDING_ROTATION"}]}`+"\n")

	f.answer("GetKeyRotationStatus", always(`{"KeyId":"`+fakeKeyARN+`","KeyRotationEnabled":false}`))
	if out := command(t, "key", "rotation", "app").want(t, exitOK).stdout; !strings.Contains(out, "Automatic  no\n\n") {
		t.Errorf("stdout is\n%s", out)
	}
}
