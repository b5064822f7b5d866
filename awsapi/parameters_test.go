package awsapi

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"strongroom/keyspec"
	"strongroom/kms"
)

// recordOf returns what the record shows of a request.
func recordOf(t testing.TB, plan *node, body string) string {
	t.Helper()
	req := reflect.New(plan.typ).Interface()
	if err := plan.decode([]byte(body), req); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	if d, ok := req.(defaulter); ok {
		d.Defaults()
	}
	return string(plan.appendParameters(nil, req))
}

func TestParameters(t *testing.T) {
	const pair = `"KeyId":"alias/x","KeyPairSpec":"RSA_3072"`
	tests := []struct{ operation, body, want string }{
		{"GenerateDataKeyPair", `{` + pair + `}`, `{"keyId":"alias/x","keyPairSpec":"RSA_3072"}`},
		{"GenerateDataKeyPair", `{` + pair + `,"DryRun":true,"GrantTokens":["secret"],"EncryptionContext":{"b":"\"\\\n\u0001<é","a":"2"},
			"Recipient":{"KeyEncryptionAlgorithm":"RSAES_OAEP_SHA_256","AttestationDocument":"AAAA"}}`,
			`{"encryptionContext":{"a":"2","b":"\"\\\n\u0001<é"},"keyId":"alias/x","keyPairSpec":"RSA_3072","dryRun":true}`},
		{"Decrypt", `{"CiphertextBlob":"AAAA"}`, `{"encryptionAlgorithm":"SYMMETRIC_DEFAULT"}`},
		{"Decrypt", `{"CiphertextBlob":"AAAA","KeyId":"k","EncryptionContext":{},"DryRunModifiers":["IGNORE_CIPHERTEXT"],"DryRun":false}`,
			`{"encryptionContext":{},"keyId":"k","encryptionAlgorithm":"SYMMETRIC_DEFAULT","dryRunModifiers":["IGNORE_CIPHERTEXT"]}`},
		{"Encrypt", `{"KeyId":"k","Plaintext":"c2VjcmV0"}`, `{"keyId":"k","encryptionAlgorithm":"SYMMETRIC_DEFAULT"}`},
		{"ReEncrypt", `{"CiphertextBlob":"AAAA","DestinationKeyId":"d","DestinationEncryptionContext":{"a":"b"},"SourceEncryptionContext":{"c":"d"}}`,
			`{"sourceEncryptionContext":{"c":"d"},"destinationKeyId":"d","destinationEncryptionContext":{"a":"b"},` +
				`"sourceEncryptionAlgorithm":"SYMMETRIC_DEFAULT","destinationEncryptionAlgorithm":"SYMMETRIC_DEFAULT"}`},
		{"CreateKey", `{}`, `{"description":"","keyUsage":"ENCRYPT_DECRYPT","keySpec":"SYMMETRIC_DEFAULT","origin":"AWS_KMS",` +
			`"bypassPolicyLockoutSafetyCheck":false,"multiRegion":false}`},
		{"CreateKey", `{"Policy":"{\n}","MultiRegion":true,"Tags":[{"TagKey":"a","TagValue":""},{"TagKey":"b","TagValue":"c"}]}`,
			`{"policy":"{\n}","description":"","keyUsage":"ENCRYPT_DECRYPT","keySpec":"SYMMETRIC_DEFAULT","origin":"AWS_KMS",` +
				`"bypassPolicyLockoutSafetyCheck":false,"tags":[{"tagKey":"a","tagValue":""},{"tagKey":"b","tagValue":"c"}],"multiRegion":true}`},
		{"CreateGrant", `{"KeyId":"k","GranteePrincipal":"arn:aws:iam::111122223333:role/x","Operations":["Decrypt","Encrypt"],"Name":"n",
			"Constraints":{"EncryptionContextSubset":{"a":"b"}},"GrantTokens":["secret"]}`,
			`{"constraints":{"encryptionContextSubset":{"a":"b"}},"granteePrincipal":"arn:aws:iam::111122223333:role/x","keyId":"k","name":"n",` +
				`"operations":["Decrypt","Encrypt"]}`},
		{"PutKeyPolicy", `{"KeyId":"k","Policy":"{}"}`, `{"keyId":"k","policyName":"default","policy":"{}","bypassPolicyLockoutSafetyCheck":false}`},
		{"RetireGrant", `{"GrantToken":"secret"}`, ``},
		{"ListKeys", `{}`, ``},
		{"ListKeys", `{"Limit":5,"Marker":"m"}`, `{"limit":5,"marker":"m"}`},
		{"GenerateRandom", `{"NumberOfBytes":1}`, `{"numberOfBytes":1}`},
		{"UpdateKeyDescription", `{"KeyId":"k","Description":""}`, `{"keyId":"k","description":""}`},
	}
	for _, tt := range tests {
		got := recordOf(t, operations[tt.operation].plan, tt.body)
		if tt.operation == "CreateGrant" {
			got, tt.want = sortMembers(t, got), sortMembers(t, tt.want)
		}
		if got != tt.want {
			t.Errorf("%s %s:\ngot  %s\nwant %s", tt.operation, tt.body, got, tt.want)
		}
	}
}

// sortMembers is for a request whose members are in no order of ours.
func sortMembers(t *testing.T, object string) string {
	var v any
	if err := json.Unmarshal([]byte(object), &v); err != nil {
		t.Fatal(err)
	}
	b, _ := json.Marshal(v)
	return string(b)
}

// TestParametersOfEveryKind: what a request can have, with all of it there.
func TestParametersOfEveryKind(t *testing.T) {
	got := recordOf(t, everythingPlan, `{`+good+`,"AliasName":"a","DryRun":true,"MultiRegion":false,"NumberOfBytes":7,"Free":-8,"CiphertextBlob":"AAAA","Password":"x",
		"EncryptionContext":{"Z":"1","A":"2"},"GrantTokens":["t"],"DryRunModifiers":[],"Tags":[{"TagKey":"k","TagValue":"v"}],
		"Constraints":{"SourceArn":"s","Deep":{"d":"e"}},"KeyPairSpec":"RSA_2048","OtherSpec":"SM2","Specs":["RSA_2048","SM2"],
		"ValidTo":1571767572.317,"ValidFrom":-1.5,"KeyUsage":"SIGN_VERIFY"}`)
	want := `{"keyId":"k","aliasName":"a","dryRun":true,"multiRegion":false,"numberOfBytes":7,"free":-8,"encryptionContext":{"A":"2","Z":"1"},` +
		`"dryRunModifiers":[],"tags":[{"tagKey":"k","tagValue":"v"}],"constraints":{"sourceArn":"s","deep":{"d":"e"}},"keyPairSpec":"RSA_2048",` +
		`"otherSpec":"SM2","specs":["RSA_2048","SM2"],"validTo":1571767572.317,"validFrom":-1.5,"keyUsage":"SIGN_VERIFY"}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestParametersKeepSecrets fills every request of the table, looking at nothing but the types in package kms, and then looks for what must not be
// in the record and for what must.
func TestParametersKeepSecrets(t *testing.T) {
	const secret, public = "HIDDENHIDDEN", "SHOWN"
	shown := 0
	var fill func(v reflect.Value, hide bool)
	fill = func(v reflect.Value, hide bool) {
		text := public
		if hide {
			text = secret
		}
		switch v.Kind() {
		case reflect.Pointer:
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), hide)
		case reflect.Struct:
			if v.Type() == typeTime {
				return
			}
			for i := range v.NumField() {
				f := v.Type().Field(i)
				name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				fill(v.Field(i), hide || slices.Contains(strings.Split(f.Tag.Get("aws"), ","), "sensitive") ||
					name == "GrantToken" || name == "GrantTokens" || name == "Recipient")
			}
		case reflect.Slice:
			if v.Type() == typeBlob {
				v.SetBytes([]byte(secret))
				return
			}
			v.Set(reflect.MakeSlice(v.Type(), 2, 2))
			fill(v.Index(0), hide)
			fill(v.Index(1), hide)
		case reflect.Map:
			v.Set(reflect.ValueOf(map[string]string{text: text}))
		case reflect.String:
			v.SetString(text)
			if !hide {
				shown++
			}
		case reflect.Bool:
			v.SetBool(true)
		case reflect.Int32:
			v.SetInt(1)
		case reflect.Uint8:
			v.Set(reflect.ValueOf(keyspec.RSA2048))
		default:
			t.Fatalf("no value for a %v", v.Type())
		}
	}
	forms := []string{secret, strings.ToLower(secret), base64.StdEncoding.EncodeToString([]byte(secret)), hex.EncodeToString([]byte(secret)), fmt.Sprint([]byte(secret))}
	for name, o := range operations {
		if o.plan == nil {
			continue
		}
		req := reflect.New(o.plan.typ)
		shown = 0
		fill(req.Elem(), false)
		got := string(o.plan.appendParameters(nil, req.Interface()))
		for _, f := range forms {
			if strings.Contains(got, f) {
				t.Errorf("%s: the record has a secret: %s", name, got)
			}
		}
		if n := strings.Count(got, `"`+public+`"`) - 2*strings.Count(got, `{"`+public+`"`); n != shown {
			t.Errorf("%s: the record has %d of %d strings: %s", name, n, shown, got)
		}
		if got != "" && !jsontext.Value(got).IsValid() {
			t.Errorf("%s: not JSON: %s", name, got)
		}
	}
}

// TestParametersAreBounded: the parameters of a request are hardly longer than the request. The audit log makes at most three times as much of them, which is
// below its bound of 1 MiB.
func TestParametersAreBounded(t *testing.T) {
	for _, unit := range []string{"\u202e", "\x7f", `\u0001`, `\n`, `\"`, `\/`} {
		const frame = `{"KeyId":"k","KeyPairSpec":"RSA_2048","EncryptionContext":{"a":"`
		body := frame + strings.Repeat(unit, (maxBody-len(frame)-3)/len(unit)) + `"}}`
		if got := len(recordOf(t, operations["GenerateDataKeyPair"].plan, body)); got > maxBody+100 {
			t.Errorf("%q: a body of %d bytes became %d", unit, len(body), got)
		}
	}
}

func BenchmarkParameters(b *testing.B) {
	for _, bb := range []struct{ operation, body string }{
		{"GenerateDataKeyPair", `{"KeyId":"arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab","KeyPairSpec":"ECC_NIST_P256"}`},
		{"GenerateDataKey", `{"KeyId":"arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab","KeySpec":"AES_256","EncryptionContext":{"bucket":"photos","object":"2026/01/15/cat.jpg"}}`},
		{"Decrypt", `{"CiphertextBlob":"AAAA","EncryptionContext":{"bucket":"photos","object":"2026/01/15/cat.jpg"}}`},
	} {
		b.Run("operation="+bb.operation, func(b *testing.B) {
			plan := operations[bb.operation].plan
			req := reflect.New(plan.typ).Interface()
			if err := plan.decode([]byte(bb.body), req); err != nil {
				b.Fatal(err)
			}
			var buffer []byte
			b.ReportAllocs()
			for b.Loop() {
				buffer = plan.appendParameters(buffer[:0], req)
				kms.Caller{}.Parameters(buffer)
			}
		})
	}
}
