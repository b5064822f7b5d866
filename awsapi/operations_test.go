package awsapi

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	awskms "github.com/aws/aws-sdk-go-v2/service/kms"
	jsonv2 "github.com/go-json-experiment/json"

	"strongroom/keyspec"
	"strongroom/kms"
)

// TestOperationsAreThoseOfAWS: the SDK has one method for each operation, and one more.
func TestOperationsAreThoseOfAWS(t *testing.T) {
	var want []string
	client := reflect.TypeFor[*awskms.Client]()
	for i := range client.NumMethod() {
		if name := client.Method(i).Name; name != "Options" {
			want = append(want, name)
		}
	}
	got := slices.Sorted(maps.Keys(operations))
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// TestMembersAreThoseOfAWS: the SDK's structs have a field for each member, under its name on the wire.
func TestMembersAreThoseOfAWS(t *testing.T) {
	client := reflect.TypeFor[*awskms.Client]()
	for name, o := range operations {
		if o.plan == nil {
			continue
		}
		method, _ := client.MethodByName(name)
		compareMembers(t, name, o.plan, method.Type.In(2).Elem())
	}
}

func compareMembers(t *testing.T, path string, n *node, want reflect.Type) {
	for _, f := range n.fields {
		field, ok := want.FieldByName(f.wire)
		if !ok {
			t.Errorf("%s: AWS KMS has no member %s", path, f.wire)
			continue
		}
		of := field.Type
		if of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		switch {
		case f.kind == kindStruct:
			compareMembers(t, path+"."+f.wire, f, of)
		case f.kind == kindList && f.item.kind == kindStruct:
			compareMembers(t, path+"."+f.wire, f.item, of.Elem())
		}
		kinds := map[reflect.Kind][]kind{
			reflect.String: {kindString, kindEnum}, reflect.Bool: {kindBool}, reflect.Int32: {kindInt},
			reflect.Slice: {kindBlob, kindList}, reflect.Map: {kindMap}, reflect.Struct: {kindStruct, kindTime},
		}
		if !slices.Contains(kinds[of.Kind()], f.kind) {
			t.Errorf("%s: AWS KMS has another type of %s", path, f.wire)
		}
	}
}

// TestAnswersAreThoseOfAWS does the same for what operations return, and encodes one of each.
func TestAnswersAreThoseOfAWS(t *testing.T) {
	client, service := reflect.TypeFor[*awskms.Client](), reflect.TypeFor[*kms.Service]()
	for name, o := range operations {
		if o.plan == nil {
			continue
		}
		want, _ := client.MethodByName(name)
		got, _ := service.MethodByName(name)
		answer := got.Type.Out(0).Elem()
		compareAnswer(t, name, answer, want.Type.Out(0).Elem())
		v := reflect.New(answer)
		for i := range answer.NumField() {
			// The zero Spec is none, and has no name.
			if spec, ok := v.Elem().Field(i).Addr().Interface().(*keyspec.Spec); ok {
				*spec = keyspec.RSA2048
			}
		}
		if _, err := jsonv2.Marshal(v.Interface()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func compareAnswer(t *testing.T, path string, got, want reflect.Type) {
	for i := range got.NumField() {
		wire, _, _ := strings.Cut(got.Field(i).Tag.Get("json"), ",")
		field, ok := want.FieldByName(wire)
		if !ok {
			t.Errorf("%s: AWS KMS has no member %q", path, wire)
			continue
		}
		g, w := element(got.Field(i).Type), element(field.Type)
		if g.Kind() == reflect.Struct && g != typeTime && w.Kind() == reflect.Struct {
			compareAnswer(t, path+"."+wire, g, w)
		}
	}
}

// element returns what a pointer points to, or a list is of.
func element(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t
}

// TestConstraintsOfOperations: what is in a structure or a list is told with its place.
func TestConstraintsOfOperations(t *testing.T) {
	const failed = "' failed to satisfy constraint: "
	const grants = "[Decrypt, Encrypt, GenerateDataKey, GenerateDataKeyWithoutPlaintext, ReEncryptFrom, ReEncryptTo, Sign, Verify, GetPublicKey, " +
		"CreateGrant, RetireGrant, DescribeKey, GenerateDataKeyPair, GenerateDataKeyPairWithoutPlaintext, GenerateMac, VerifyMac, DeriveSharedSecret]"
	tests := []struct{ operation, body, want string }{
		{"CreateGrant", `{"KeyId":"k","GranteePrincipal":"p","Operations":["Decrypt"],"Constraints":{"SourceArn":"short"}}`,
			"1 validation error detected: Value 'short' at 'constraints.sourceArn" + failed + "Member must have length greater than or equal to 20"},
		{"CreateGrant", `{"KeyId":"k","GranteePrincipal":"p","Operations":["Decrypt"],"Constraints":{"EncryptionContextSubset":{"a":null}}}`,
			"1 validation error detected: Value '{a=null}' at 'constraints.encryptionContextSubset" + failed + "Map value must satisfy constraint: [Member must not be null]"},
		{"CreateGrant", `{"KeyId":"k","GranteePrincipal":"p","Operations":["Decrypt","Fly"]}`,
			"1 validation error detected: Value '[Decrypt, Fly]' at 'operations" + failed + "Member must satisfy constraint: [Member must satisfy enum value set: " + grants + "]"},
		{"CreateGrant", `{"KeyId":"k","GranteePrincipal":"a b"}`,
			"2 validation errors detected: Value 'a b' at 'granteePrincipal" + failed + "Member must satisfy regular expression pattern: ^[\\w+=,.@:/-]+$; " +
				"Value null at 'operations" + failed + "Member must not be null"},
		{"TagResource", `{"KeyId":"k","Tags":[{"TagKey":"a","TagValue":"b"},{"TagKey":"","TagValue":null}]}`,
			"2 validation errors detected: Value '' at 'tags.2.member.tagKey" + failed + "Member must have length greater than or equal to 1; " +
				"Value null at 'tags.2.member.tagValue" + failed + "Member must not be null"},
		{"UntagResource", `{"KeyId":"k","TagKeys":["a",""]}`,
			"1 validation error detected: Value '[a, ]' at 'tagKeys" + failed +
				"Member must satisfy constraint: [Member must have length less than or equal to 128, Member must have length greater than or equal to 1]"},
		{"EnableKeyRotation", `{"KeyId":"k","RotationPeriodInDays":89}`,
			"1 validation error detected: Value '89' at 'rotationPeriodInDays" + failed + "Member must have value greater than or equal to 90"},
		{"ListKeyRotations", `{"KeyId":"k","IncludeKeyMaterial":"x"}`,
			"1 validation error detected: Value 'x' at 'includeKeyMaterial" + failed + "Member must satisfy enum value set: [ALL_KEY_MATERIAL, ROTATIONS_ONLY]"},
		{"PutKeyPolicy", `{"KeyId":"k","PolicyName":"a-b","Policy":"{}"}`,
			"1 validation error detected: Value 'a-b' at 'policyName" + failed + "Member must satisfy regular expression pattern: [\\w]+"},
	}
	for _, tt := range tests {
		err := operations[tt.operation].run(t.Context(), nil, newExchange(tt.body))
		if e, ok := errors.AsType[*kms.Error](err); !ok || e.Code != kms.Validation || e.Detail != tt.want {
			t.Errorf("%s %s:\ngot  %v\nwant %s", tt.operation, tt.body, err, tt.want)
		}
	}
}

// Types of an operation for tests, with secrets both ways.
type echoRequest struct {
	KeyID     string `json:"KeyId" aws:"required,min=1,max=2048"`
	Plaintext []byte `json:"Plaintext" aws:"max=8192,sensitive"`
}

func (r *echoRequest) Wipe() { clear(r.Plaintext) }

type echoResponse struct {
	KeyID     string `json:"KeyId"`
	Plaintext []byte `json:"Plaintext,omitempty"`
	Truncated bool   `json:"Truncated"`
	Marker    string `json:"NextMarker,omitempty"`
}

func (r *echoResponse) Wipe() { clear(r.Plaintext) }

// newExchange returns an exchange with a request.
func newExchange(body string) *exchange {
	x := exchanges.New().(*exchange)
	x.in = append(x.in, body...)
	return x
}

func TestOpWipes(t *testing.T) {
	var req *echoRequest
	var resp *echoResponse
	o := op(func(_ *kms.Service, _ context.Context, _ kms.Caller, r *echoRequest) (*echoResponse, error) {
		req, resp = r, &echoResponse{KeyID: "<k&>", Plaintext: bytes.Clone(r.Plaintext)}
		return resp, nil
	})
	x := newExchange(`{"KeyId":"k","Plaintext":"AQID"}`)
	buffer := x.out.AvailableBuffer()[:1]
	if err := o.run(t.Context(), nil, x); err != nil || x.key != "k" {
		t.Fatal(x.key, err)
	}
	if want := `{"KeyId":"<k&>","Plaintext":"AQID","Truncated":false}`; x.out.String() != want {
		t.Errorf("got %s, want %s", &x.out, want)
	}
	if !bytes.Equal(req.Plaintext, make([]byte, 3)) || !bytes.Equal(resp.Plaintext, make([]byte, 3)) {
		t.Errorf("left %v and %v", req.Plaintext, resp.Plaintext)
	}
	if &x.out.Bytes()[0] != &buffer[0] {
		t.Error("the answer was written elsewhere and copied, which leaves a copy")
	}
}

// TestLargestSecretAnswerFits: the buffer for answers does not grow for the largest answer that holds a secret.
func TestLargestSecretAnswerFits(t *testing.T) {
	o := op(func(_ *kms.Service, _ context.Context, _ kms.Caller, r *echoRequest) (*echoResponse, error) {
		// RSA_4096: private key, private key encrypted, public key.
		return &echoResponse{KeyID: r.KeyID, Plaintext: make([]byte, 2376+2376+63+550)}, nil
	})
	x := newExchange(`{"KeyId":"` + strings.Repeat("k", 2048) + `"}`)
	buffer := x.out.AvailableBuffer()[:1]
	if err := o.run(t.Context(), nil, x); err != nil {
		t.Fatal(err)
	}
	if &x.out.Bytes()[0] != &buffer[0] {
		t.Errorf("an answer of %d bytes was copied", x.out.Len())
	}
}

func TestOpWipesWhatFails(t *testing.T) {
	var req *echoRequest
	resp := &echoResponse{Plaintext: []byte{1}}
	o := op(func(_ *kms.Service, _ context.Context, _ kms.Caller, r *echoRequest) (*echoResponse, error) {
		req = r
		return resp, &kms.Error{Code: kms.AccessDenied}
	})
	x := newExchange(`{"KeyId":"k","Plaintext":"AQID"}`)
	err := o.run(t.Context(), nil, x)
	if !errors.Is(err, kms.AccessDenied) || x.out.Len() > 0 || req.Plaintext[0] != 0 || resp.Plaintext[0] != 0 {
		t.Errorf("got %v, %q, left %v and %v", err, x.out.String(), req.Plaintext, resp.Plaintext)
	}
	o = op(func(_ *kms.Service, _ context.Context, _ kms.Caller, r *echoRequest) (*echoResponse, error) {
		return nil, &kms.Error{Code: kms.AccessDenied}
	})
	if err := o.run(t.Context(), nil, newExchange(`{"KeyId":"k"}`)); !errors.Is(err, kms.AccessDenied) {
		t.Error(err)
	}
}
