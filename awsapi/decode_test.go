package awsapi

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"strongroom/keyspec"
	"strongroom/kms"
)

// everything has one member of each kind that a request can have.
type everything struct {
	KeyID   string            `json:"KeyId" aws:"required,min=1,max=10"`
	Alias   string            `json:"AliasName" aws:"min=1,max=20,pattern=alias"`
	Flag    bool              `json:"DryRun"`
	Maybe   *bool             `json:"MultiRegion"`
	Number  *int32            `json:"NumberOfBytes" aws:"min=1,max=1024"`
	Free    *int32            `json:"Free"`
	Blob    []byte            `json:"CiphertextBlob" aws:"min=1,max=8"`
	Secret  []byte            `json:"Plaintext" aws:"required,min=1,max=4,sensitive"`
	Hidden  string            `json:"Password" aws:"max=3,sensitive"`
	Context map[string]string `json:"EncryptionContext"`
	Limited map[string]string `json:"Limited" aws:"max=1,item.min=1,item.max=3"`
	Tokens  []string          `json:"GrantTokens" aws:"max=2,item.min=1,item.max=5"`
	Mods    []string          `json:"DryRunModifiers" aws:"item.enum=A|B"`
	Words   []string          `json:"Words" aws:"item.pattern=alias"`
	Tags    []tag             `json:"Tags" aws:"max=3"`
	Inner   *inner            `json:"Constraints"`
	Spec    keyspec.Spec      `json:"KeyPairSpec"`
	SpecP   *keyspec.Spec     `json:"OtherSpec"`
	Specs   []keyspec.Spec    `json:"Specs"`
	Until   kms.Time          `json:"ValidTo"`
	UntilP  *kms.Time         `json:"ValidFrom"`
	Usage   string            `json:"KeyUsage" aws:"enum=SIGN_VERIFY|ENCRYPT_DECRYPT"`
}

type tag struct {
	Key   string `json:"TagKey" aws:"required,min=1,max=5"`
	Value string `json:"TagValue" aws:"required,max=5"`
}

type inner struct {
	Arn  string            `json:"SourceArn" aws:"required,max=3"`
	Deep map[string]string `json:"Deep"`
}

var everythingPlan = compile(reflect.TypeFor[everything]())

// good is the least that everything takes.
const good = `"KeyId":"k","Plaintext":"AAAA"`

func TestDecode(t *testing.T) {
	var got everything
	body := `{"KeyId":"\u00e9\/","AliasName":"alias/a","DryRun":true,"MultiRegion":false,"NumberOfBytes":1.5,"Free":-1e3,
		"CiphertextBlob":"AA\/+","Plaintext":"AQID","Password":"x","EncryptionContext":{"a":"b","":"\"c"},
		"GrantTokens":["x","y"],"DryRunModifiers":["B"],"Tags":[{"TagKey":"k","TagValue":""},{"TagValue":"v","TagKey":"l"}],
		"Constraints":{"SourceArn":"s","Deep":{"d":"e"}},"KeyPairSpec":"RSA_2048","OtherSpec":"SM2","Specs":["RSA_2048","SM2"],
		"ValidTo":1571767572.317,"ValidFrom":-1.5,"KeyUsage":"SIGN_VERIFY","Nobody":{"knows":[1,{"this":null}]}}`
	if err := everythingPlan.decode([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	no, number, free := false, int32(1), int32(-1000)
	sm2 := keyspec.SM2
	want := everything{
		KeyID: "é/", Alias: "alias/a", Flag: true, Maybe: &no, Number: &number, Free: &free,
		Blob: []byte{0, 15, 254}, Secret: []byte{1, 2, 3}, Hidden: "x", Context: map[string]string{"a": "b", "": `"c`},
		Tokens: []string{"x", "y"}, Mods: []string{"B"}, Tags: []tag{{"k", ""}, {"l", "v"}},
		Inner: &inner{"s", map[string]string{"d": "e"}}, Spec: keyspec.RSA2048, SpecP: &sm2, Specs: []keyspec.Spec{keyspec.RSA2048, sm2},
		Until: kms.Time{Time: time.UnixMilli(1571767572317).UTC()}, UntilP: &kms.Time{Time: time.UnixMilli(-1500).UTC()},
		Usage: "SIGN_VERIFY",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestNullIsAbsent(t *testing.T) {
	var got everything
	body := `{` + good
	for _, f := range everythingPlan.fields {
		if f.wire != "KeyId" && f.wire != "Plaintext" {
			body += `,"` + f.wire + `":null`
		}
	}
	if err := everythingPlan.decode([]byte(body+`}`), &got); err != nil {
		t.Fatal(err)
	}
	if want := (everything{KeyID: "k", Secret: []byte{0, 0, 0}}); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestEmptyCollectionsAreNotNil(t *testing.T) {
	var got everything
	if err := everythingPlan.decode([]byte(`{`+good+`,"EncryptionContext":{},"GrantTokens":[],"Tags":[],"Constraints":{"SourceArn":""}}`), &got); err != nil {
		t.Fatal(err)
	}
	if got.Context == nil || got.Tokens == nil || got.Tags == nil || got.Inner == nil {
		t.Errorf("got %+v", got)
	}
}

// TestSerialization has a row for each kind of value in the place of each other.
func TestSerialization(t *testing.T) {
	const list, structure = "Start of list found where not expected", "Start of structure or map found where not expected."
	tests := []struct{ body, want string }{
		{``, ""},
		{` `, ""},
		{`null`, ""},
		{`"x"`, ""},
		{`1`, ""},
		{`{`, ""},
		{`{,}`, ""},
		{`{"KeyId":"k",}`, ""},
		{`{"KeyId":"k"} x`, ""},
		{`{"KeyId":"k"}{}`, ""},
		{`{"KeyId":nul}`, ""},
		{`{"KeyId":}`, ""},
		{`{"KeyId" "k"}`, ""},
		{`{KeyId:"k"}`, ""},
		{`{1:"k"}`, ""},
		{"{\"KeyId\":\"\xff\"}", ""},
		{"{\"Nobody\":\"\xff\"}", ""},
		{`{"KeyId":"\ud800"}`, ""},
		{`{"KeyId":"\x"}`, ""},
		{"{\"KeyId\":\"\n\"}", ""},
		{`{"KeyId":"a","KeyId":"b"}`, ""},
		{`{"KeyId":"a","Key\u0049d":"b"}`, ""},
		{`{"Nobody":1,"Nobody":1}`, ""},
		{`{"Nobody":{"a":1,"a":1}}`, ""},
		{`{"EncryptionContext":{"a":"b","a":"c"}}`, ""},
		{`{"Nobody":` + strings.Repeat(`[`, 100_000), ""},
		{`{"Nobody":` + strings.Repeat(`{"a":`, 70) + `1` + strings.Repeat(`}`, 71), ""},
		{`{"EncryptionContext":{"a":"b"`, ""},
		{`{"GrantTokens":["a"`, ""},
		{`{"GrantTokens":["a"}`, ""},
		{`{"GrantTokens":[x]}`, ""},
		{`{"EncryptionContext":{"a":x}}`, ""},
		{`{"Constraints":{]}`, ""},
		{`[]`, list},
		{`[{}]`, list},

		{`{"KeyId":1}`, "NUMBER_VALUE can not be converted to a String"},
		{`{"KeyId":true}`, "TRUE_VALUE can not be converted to a String"},
		{`{"KeyId":false}`, "FALSE_VALUE can not be converted to a String"},
		{`{"KeyId":[]}`, list},
		{`{"KeyId":{}}`, structure},
		{`{"KeyPairSpec":1}`, "NUMBER_VALUE can not be converted to a String"},
		{`{"NumberOfBytes":"1"}`, "STRING_VALUE can not be converted to an Integer"},
		{`{"NumberOfBytes":true}`, "TRUE_VALUE can not be converted to an Integer"},
		{`{"NumberOfBytes":[1]}`, list},
		{`{"NumberOfBytes":{}}`, structure},
		{`{"DryRun":"true"}`, "STRING_VALUE can not be converted to an Boolean"},
		{`{"DryRun":1}`, "NUMBER_VALUE can not be converted to a Boolean"},
		{`{"MultiRegion":[]}`, list},
		{`{"CiphertextBlob":1}`, "NUMBER_VALUE can not be converted to a Blob"},
		{`{"CiphertextBlob":{}}`, structure},
		{`{"CiphertextBlob":"A"}`, ""},
		{`{"CiphertextBlob":"AAA"}`, ""},
		{`{"CiphertextBlob":"AA=="}`, "ok"},
		{`{"CiphertextBlob":"AB=="}`, ""},
		{`{"CiphertextBlob":"AA==="}`, ""},
		{`{"CiphertextBlob":"AAAA\n"}`, ""},
		{`{"CiphertextBlob":"AA\r\nAA"}`, ""},
		{`{"CiphertextBlob":"A-_A"}`, ""},
		{`{"ValidTo":"2020-01-01T00:00:00Z"}`, "STRING_VALUE can not be converted to milliseconds since epoch"},
		{`{"ValidTo":1e999}`, ""},
		{`{"ValidTo":1e15}`, ""},
		{`{"ValidTo":{}}`, structure},
		{`{"GrantTokens":"x"}`, "Expected list or null"},
		{`{"GrantTokens":1}`, "Expected list or null"},
		{`{"GrantTokens":{}}`, structure},
		{`{"GrantTokens":["a",1]}`, "NUMBER_VALUE can not be converted to a String"},
		{`{"GrantTokens":["a",[]]}`, list},
		{`{"GrantTokens":["a",{}]}`, structure},
		{`{"Tags":["x"]}`, "Expected null"},
		{`{"Tags":[[]]}`, list},
		{`{"Tags":[{"TagKey":1}]}`, "NUMBER_VALUE can not be converted to a String"},
		{`{"Constraints":"x"}`, "Expected null"},
		{`{"Constraints":[]}`, list},
		{`{"Constraints":{"SourceArn":{}}}`, structure},
		{`{"EncryptionContext":"x"}`, "Expected null"},
		{`{"EncryptionContext":[]}`, list},
		{`{"EncryptionContext":{"a":1}}`, "NUMBER_VALUE can not be converted to a String"},
		{`{"EncryptionContext":{"a":{}}}`, structure},

		// The first type error wins, and a type error beats a constraint.
		{`{"DryRun":1,"KeyId":1}`, "NUMBER_VALUE can not be converted to a Boolean"},
		{`{"KeyId":"","NumberOfBytes":0,"DryRun":1}`, "NUMBER_VALUE can not be converted to a Boolean"},

		// Names are exact.
		{`{"keyId":1,"KEYID":[],"":{}}`, "ok"},
	}
	for _, tt := range tests {
		var req everything
		err := everythingPlan.decode([]byte(tt.body), &req)
		r, isRefusal := errors.AsType[*refusal](err)
		if tt.want == "ok" {
			if isRefusal {
				t.Errorf("%.60s: %v", tt.body, err)
			}
			continue
		}
		if !isRefusal || r.name != "SerializationException" || r.message != tt.want {
			t.Errorf("%.60s:\ngot  %v\nwant %q", tt.body, err, tt.want)
		}
	}
}

func TestConstraints(t *testing.T) {
	const failed = "' failed to satisfy constraint: "
	long := strings.Repeat("x", 190_000)
	tests := []struct{ members, want string }{
		{``, "1 validation error detected: Value null at 'keyId" + failed + "Member must not be null"},
		{`"KeyId":null`, "1 validation error detected: Value null at 'keyId" + failed + "Member must not be null"},
		{`"KeyId":""`, "1 validation error detected: Value '' at 'keyId" + failed + "Member must have length greater than or equal to 1"},
		{`"KeyId":"éééééééééé"`, ""},
		{`"KeyId":"ééééééééééé"`, "1 validation error detected: Value 'ééééééééééé' at 'keyId" + failed + "Member must have length less than or equal to 10"},
		{`"KeyId":"k","AliasName":"a b"`, "1 validation error detected: Value 'a b' at 'aliasName" + failed + "Member must satisfy regular expression pattern: ^[a-zA-Z0-9:/_-]+$"},
		{`"KeyId":"k","AliasName":"a\n"`, "1 validation error detected: Value 'a\n' at 'aliasName" + failed + "Member must satisfy regular expression pattern: ^[a-zA-Z0-9:/_-]+$"},
		{`"KeyId":"k","AliasName":""`, "2 validation errors detected: Value '' at 'aliasName" + failed + "Member must have length greater than or equal to 1; " +
			"Value '' at 'aliasName" + failed + "Member must satisfy regular expression pattern: ^[a-zA-Z0-9:/_-]+$"},
		{`"KeyId":"k","NumberOfBytes":0`, "1 validation error detected: Value '0' at 'numberOfBytes" + failed + "Member must have value greater than or equal to 1"},
		{`"KeyId":"k","NumberOfBytes":1024.9`, ""},
		{`"KeyId":"k","NumberOfBytes":1025`, "1 validation error detected: Value '1025' at 'numberOfBytes" + failed + "Member must have value less than or equal to 1024"},
		{`"KeyId":"k","NumberOfBytes":2147483648`, "1 validation error detected: Value '2147483648' at 'numberOfBytes" + failed + "Member must have value less than or equal to 1024"},
		{`"KeyId":"k","NumberOfBytes":-99999999999`, "1 validation error detected: Value '-99999999999' at 'numberOfBytes" + failed + "Member must have value greater than or equal to 1"},
		{`"KeyId":"k","NumberOfBytes":1e400`, "1 validation error detected: Value '1e400' at 'numberOfBytes" + failed + "Member must have value less than or equal to 1024"},
		{`"KeyId":"k","Free":1e10`, "1 validation error detected: Value '1e10' at 'free" + failed + "Member must have value less than or equal to 2147483647"},
		{`"KeyId":"k","CiphertextBlob":""`, "1 validation error detected: Value at 'ciphertextBlob" + failed + "Member must have length greater than or equal to 1"},
		{`"KeyId":"k","CiphertextBlob":"AAAAAAAAAAAA"`, "1 validation error detected: Value at 'ciphertextBlob" + failed + "Member must have length less than or equal to 8"},
		{`"KeyId":"k","Password":"four"`, "1 validation error detected: Value at 'password" + failed + "Member must have length less than or equal to 3"},
		{`"KeyId":"k","KeyUsage":"X"`, "1 validation error detected: Value 'X' at 'keyUsage" + failed + "Member must satisfy enum value set: [SIGN_VERIFY, ENCRYPT_DECRYPT]"},
		{`"KeyId":"k","KeyPairSpec":"RSA_20"`, "1 validation error detected: Value 'RSA_20' at 'keyPairSpec" + failed +
			"Member must satisfy enum value set: [" + strings.Join(keyspec.Spec(0).Values(), ", ") + "]"},
		{`"KeyId":"k","Specs":["RSA_2048","x"]`, "1 validation error detected: Value '[RSA_2048, x]' at 'specs" + failed +
			"Member must satisfy constraint: [Member must satisfy enum value set: [" + strings.Join(keyspec.Spec(0).Values(), ", ") + "]]"},
		{`"KeyId":"k","GrantTokens":["a","b","c"]`, "1 validation error detected: Value '[a, b, c]' at 'grantTokens" + failed + "Member must have length less than or equal to 2"},
		{`"KeyId":"k","GrantTokens":["a",""]`, "1 validation error detected: Value '[a, ]' at 'grantTokens" + failed +
			"Member must satisfy constraint: [Member must have length less than or equal to 5, Member must have length greater than or equal to 1]"},
		{`"KeyId":"k","GrantTokens":["a",null]`, "1 validation error detected: Value '[a, null]' at 'grantTokens" + failed +
			"Member must satisfy constraint: [Member must have length less than or equal to 5, Member must have length greater than or equal to 1, Member must not be null]"},
		{`"KeyId":"k","DryRunModifiers":["C"]`, "1 validation error detected: Value '[C]' at 'dryRunModifiers" + failed +
			"Member must satisfy constraint: [Member must satisfy enum value set: [A, B]]"},
		{`"KeyId":"k","Words":["ab","G!"]`, "1 validation error detected: Value '[ab, G!]' at 'words" + failed +
			"Member must satisfy constraint: [Member must satisfy regular expression pattern: ^[a-zA-Z0-9:/_-]+$]"},
		{`"KeyId":"k","Tags":[{"TagKey":"","TagValue":""},{"TagKey":"toolong","TagValue":"toolong"}]`,
			"3 validation errors detected: Value '' at 'tags.1.member.tagKey" + failed + "Member must have length greater than or equal to 1; " +
				"Value 'toolong' at 'tags.2.member.tagKey" + failed + "Member must have length less than or equal to 5; " +
				"Value 'toolong' at 'tags.2.member.tagValue" + failed + "Member must have length less than or equal to 5"},
		{`"KeyId":"k","Tags":[{},null]`,
			"3 validation errors detected: Value null at 'tags.1.member.tagKey" + failed + "Member must not be null; " +
				"Value null at 'tags.1.member.tagValue" + failed + "Member must not be null; " +
				"Value null at 'tags.2.member" + failed + "Member must not be null"},
		{`"KeyId":"k","Tags":[{"TagKey":"a","TagValue":""},{"TagKey":"a","TagValue":""},{"TagKey":"a","TagValue":""},{"TagKey":"a","TagValue":""}]`,
			"1 validation error detected: Value at 'tags" + failed + "Member must have length less than or equal to 3"},
		{`"KeyId":"k","Constraints":{}`, "1 validation error detected: Value null at 'constraints.sourceArn" + failed + "Member must not be null"},
		{`"KeyId":"k","Constraints":{"SourceArn":"long"}`, "1 validation error detected: Value 'long' at 'constraints.sourceArn" + failed + "Member must have length less than or equal to 3"},
		{`"KeyId":"k","EncryptionContext":{"b":null,"a":"c"}`, "1 validation error detected: Value '{a=c, b=null}' at 'encryptionContext" + failed +
			"Map value must satisfy constraint: [Member must not be null]"},
		{`"KeyId":"k","Limited":{"a":"","b":"c"}`, "2 validation errors detected: Value '{a=, b=c}' at 'limited" + failed +
			"Map value must satisfy constraint: [Member must have length less than or equal to 3, Member must have length greater than or equal to 1]; " +
			"Value '{a=, b=c}' at 'limited" + failed + "Member must have length less than or equal to 1"},

		// In the order of the request type, whatever the order in the request.
		{`"KeyUsage":"X","Tags":[{"TagValue":"toolong"}],"NumberOfBytes":0`,
			"5 validation errors detected: Value null at 'keyId" + failed + "Member must not be null; " +
				"Value '0' at 'numberOfBytes" + failed + "Member must have value greater than or equal to 1; " +
				"Value null at 'tags.1.member.tagKey" + failed + "Member must not be null; " +
				"Value 'toolong' at 'tags.1.member.tagValue" + failed + "Member must have length less than or equal to 5; " +
				"Value 'X' at 'keyUsage" + failed + "Member must satisfy enum value set: [SIGN_VERIFY, ENCRYPT_DECRYPT]"},

		// What is repeated is bounded.
		{`"KeyId":"` + long + `"`, "1 validation error detected: Value '" + long[:maxEcho] + "...' at 'keyId" + failed + "Member must have length less than or equal to 10"},
		{`"KeyId":"k","Free":1` + strings.Repeat("0", 100_000), "1 validation error detected: Value '1" + strings.Repeat("0", maxEcho-1) + "...' at 'free" + failed + "Member must have value less than or equal to 2147483647"},
	}
	for _, tt := range tests {
		var req everything
		body := `{"Plaintext":"AAAA"`
		if tt.members != "" {
			body += "," + tt.members
		}
		err := everythingPlan.decode([]byte(body+"}"), &req)
		got := ""
		if e, ok := errors.AsType[*kms.Error](err); ok && e.Code == kms.Validation {
			got = e.Detail
		} else if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%.80s:\ngot  %.2000s\nwant %.2000s", tt.members, got, tt.want)
		}
	}
}

func TestSensitiveNullIsNotEvenNull(t *testing.T) {
	err := everythingPlan.decode([]byte(`{"KeyId":"k"}`), new(everything))
	want := "invalid request: 1 validation error detected: Value at 'plaintext' failed to satisfy constraint: Member must not be null"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestManyFaults: the number is told in full, the faults as far as they fit.
func TestManyFaults(t *testing.T) {
	body := `{` + good + `,"Tags":[` + strings.Repeat(`{},`, 40_000) + `{}],"GrantTokens":["` + strings.Repeat(`x","`, 20_000) + `x"],
		"EncryptionContext":{` + strings.Repeat(`"`+strings.Repeat("n", 500)+`%d":null,`, 20) + `"z":null}}`
	for i := range 20 {
		body = strings.Replace(body, "%d", fmt.Sprint(i), 1)
	}
	err := everythingPlan.decode([]byte(body), new(everything))
	e, ok := errors.AsType[*kms.Error](err)
	if !ok || !strings.HasPrefix(e.Detail, "80005 validation errors detected: ") || len(e.Detail) > maxMessage+64 || !strings.HasSuffix(e.Detail, "...") {
		t.Errorf("got %d bytes: %.200s", len(e.Detail), e.Detail)
	}
}

func TestBodyIsNotKept(t *testing.T) {
	body := []byte(`{"KeyId":"keep","Plaintext":"AAAA","EncryptionContext":{"keep":"keep"},"GrantTokens":["keep"]}`)
	var req everything
	if err := everythingPlan.decode(body, &req); err != nil {
		t.Fatal(err)
	}
	clear(body)
	if req.KeyID != "keep" || req.Context["keep"] != "keep" || req.Tokens[0] != "keep" {
		t.Errorf("got %+v", req)
	}
}

func TestScratchIsWiped(t *testing.T) {
	d := &decoder{scratch: append([]byte(nil), "AQID"...)}
	scratch := d.scratch
	d.json = decoders.Get().(*decoder).json
	d.release()
	if !bytes.Equal(scratch, make([]byte, 4)) {
		t.Errorf("got %q", scratch)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{` + good + `}`))
	f.Add([]byte(`{` + good + `,"EncryptionContext":{"a":"b"},"GrantTokens":["x"],"Tags":[{"TagKey":"a","TagValue":"b"}]}`))
	f.Add([]byte(`{"NumberOfBytes":1e400,"KeyPairSpec":"SM2","ValidTo":1.5,"Constraints":{"SourceArn":null},"X":[{}]}`))
	f.Add([]byte(`{"KeyId":"\u0000","Plaintext":"\/\/\/\/","Nobody":[[[[]]]]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var req everything
		switch err := everythingPlan.decode(body, &req).(type) {
		case nil:
			if req.KeyID == "" || len(req.Secret) == 0 {
				t.Errorf("%q: a required member is missing and nobody said so", body)
			}
			if record := everythingPlan.appendParameters(nil, &req); !jsontext.Value(record).IsValid() {
				t.Errorf("%q: the record is no JSON: %s", body, record)
			}
		case *refusal:
			if err.name != "SerializationException" {
				t.Errorf("%q: %v", body, err)
			}
		case *kms.Error:
			if err.Code != kms.Validation || len(err.Detail) > maxMessage+64 {
				t.Errorf("%q: %v", body, err)
			}
		default:
			t.Errorf("%q: %T", body, err)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	for _, bb := range []struct {
		name string
		plan *node
		req  func() any
		body string
	}{
		{"GenerateDataKey", compile(reflect.TypeFor[kms.GenerateDataKeyRequest]()), func() any { return new(kms.GenerateDataKeyRequest) },
			`{"KeyId":"arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab","KeySpec":"AES_256","EncryptionContext":{"bucket":"photos","object":"2026/01/15/cat.jpg"}}`},
		{"Encrypt4096", compile(reflect.TypeFor[kms.EncryptRequest]()), func() any { return new(kms.EncryptRequest) },
			`{"KeyId":"1234abcd-12ab-34cd-56ef-1234567890ab","Plaintext":"` + base64.StdEncoding.EncodeToString(make([]byte, 4096)) + `"}`},
	} {
		b.Run("operation="+bb.name, func(b *testing.B) {
			body := []byte(bb.body)
			b.ReportAllocs()
			for b.Loop() {
				if err := bb.plan.decode(body, bb.req()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
