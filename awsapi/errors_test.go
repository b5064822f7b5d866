package awsapi

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"strongroom/kms"
)

// TestEveryCodeHasAForm: the set of codes is closed, and so is the table.
func TestEveryCodeHasAForm(t *testing.T) {
	names := make(map[string]kms.Code)
	for _, c := range kms.Codes() {
		f, ok := forms[c]
		if !ok {
			t.Errorf("%v has no form on the wire", c)
			continue
		}
		if names[f.name] != 0 {
			t.Errorf("%v and %v are both %s", names[f.name], c, f.name)
		}
		names[f.name] = c
		want := 400
		if c == kms.Internal || c == kms.KeyUnavailable {
			want = 500
		}
		if f.status != want {
			t.Errorf("%v: got %d, want %d", c, f.status, want)
		}
	}
	if len(forms) != len(kms.Codes()) {
		t.Errorf("%d forms for %d codes", len(forms), len(kms.Codes()))
	}
}

func TestErrorBody(t *testing.T) {
	secret := errors.New("C_DecryptFinal: CKR_DEVICE_ERROR at slot 7")
	tests := []struct {
		err    error
		status int
		body   string
	}{
		{&kms.Error{Code: kms.NotFound, Detail: "Invalid keyId 'x'", Err: secret}, 400, `{"__type":"NotFoundException","message":"Invalid keyId 'x'"}`},
		{&kms.Error{Code: kms.NotFound, Detail: "<&>\"\\\n\u2028\xff"}, 400, "{\"__type\":\"NotFoundException\",\"message\":\"<&>\\\"\\\\\\n\u2028\ufffd\"}"},
		{&kms.Error{Code: kms.NotFound}, 400, `{"__type":"NotFoundException"}`},
		{fmt.Errorf("wrapped: %w", &kms.Error{Code: kms.AccessDenied, Detail: "no"}), 400, `{"__type":"AccessDeniedException","message":"no"}`},
		// How a ciphertext is wrong is never told, whatever is known.
		{&kms.Error{Code: kms.InvalidCiphertext, Detail: "wrong tag"}, 400, `{"__type":"InvalidCiphertextException"}`},
		{&kms.Error{Code: kms.DryRunSucceeded, Detail: "The request would have succeeded, but the DryRun option is set."}, 400,
			`{"__type":"DryRunOperationException","message":"The request would have succeeded, but the DryRun option is set."}`},
		{&kms.Error{Code: kms.KeyUnavailable, Err: secret}, 500, `{"__type":"KeyUnavailableException"}`},
		{&kms.Error{Code: kms.KeyUnavailable, Err: context.DeadlineExceeded}, 500, `{"__type":"KeyUnavailableException"}`},
		{&kms.Error{Code: kms.Internal, Detail: "try later", Err: secret}, 500, `{"__type":"KMSInternalException","message":"try later"}`},
		{&kms.Error{Code: kms.Internal, Err: context.DeadlineExceeded}, 500, `{"__type":"DependencyTimeoutException","message":"` + textTimeout + `"}`},
		{&kms.Error{Code: 0, Detail: "not for clients"}, 500, `{"__type":"KMSInternalException"}`},
		{&kms.Error{Code: 255, Detail: "not for clients"}, 500, `{"__type":"KMSInternalException"}`},
		{kms.NotFound, 500, `{"__type":"KMSInternalException"}`}, // a bare code says nothing about what was not found
		{secret, 500, `{"__type":"KMSInternalException"}`},
		{fmt.Errorf("store: %w", context.DeadlineExceeded), 500, `{"__type":"DependencyTimeoutException","message":"` + textTimeout + `"}`},
		{context.Canceled, 500, `{"__type":"KMSInternalException"}`},
		{serialization("Expected null"), 400, `{"__type":"SerializationException","message":"Expected null"}`},
		{serialization(""), 400, `{"__type":"SerializationException"}`},
		{&refusal{form: unknownOperation, message: "never"}, 400, `{"__type":"UnknownOperationException"}`},
		{errUnrecognized, 400, `{"__type":"UnrecognizedClientException","message":"The security token included in the request is invalid."}`},
	}
	for _, tt := range tests {
		f, message := translate(tt.err)
		if got := string(appendError(nil, f, message)); got != tt.body || f.status != tt.status {
			t.Errorf("%v:\ngot  %d %s\nwant %d %s", tt.err, f.status, got, tt.status, tt.body)
		}
	}
}
