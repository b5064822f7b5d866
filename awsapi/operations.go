package awsapi

import (
	"bytes"
	"context"
	"fmt"
	"reflect"

	"github.com/go-json-experiment/json"

	"strongroom/kms"
)

// operations is every request of the KMS API 2014-11-01, under the name that follows "TrentService." in the header X-Amz-Target. What
// is not here is not an operation of AWS KMS at all.
var operations = map[string]operation{
	"CancelKeyDeletion":                   op((*kms.Service).CancelKeyDeletion),
	"ConnectCustomKeyStore":               unsupported,
	"CreateAlias":                         op((*kms.Service).CreateAlias),
	"CreateCustomKeyStore":                unsupported,
	"CreateGrant":                         unsupported,
	"CreateKey":                           op((*kms.Service).CreateKey),
	"Decapsulate":                         unsupported,
	"Decrypt":                             op((*kms.Service).Decrypt),
	"DeleteAlias":                         op((*kms.Service).DeleteAlias),
	"DeleteCustomKeyStore":                unsupported,
	"DeleteImportedKeyMaterial":           unsupported,
	"DeriveSharedSecret":                  unsupported,
	"DescribeCustomKeyStores":             unsupported,
	"DescribeKey":                         op((*kms.Service).DescribeKey),
	"DisableKey":                          op((*kms.Service).DisableKey),
	"DisableKeyRotation":                  unsupported,
	"DisconnectCustomKeyStore":            unsupported,
	"EnableKey":                           op((*kms.Service).EnableKey),
	"EnableKeyRotation":                   unsupported,
	"Encapsulate":                         unsupported,
	"Encrypt":                             op((*kms.Service).Encrypt),
	"GenerateDataKey":                     op((*kms.Service).GenerateDataKey),
	"GenerateDataKeyPair":                 op((*kms.Service).GenerateDataKeyPair),
	"GenerateDataKeyPairWithoutPlaintext": op((*kms.Service).GenerateDataKeyPairWithoutPlaintext),
	"GenerateDataKeyWithoutPlaintext":     op((*kms.Service).GenerateDataKeyWithoutPlaintext),
	"GenerateMac":                         unsupported,
	"GenerateRandom":                      op((*kms.Service).GenerateRandom),
	"GetKeyLastUsage":                     unsupported,
	"GetKeyPolicy":                        unsupported,
	"GetKeyRotationStatus":                unsupported,
	"GetParametersForImport":              unsupported,
	"GetPublicKey":                        unsupported,
	"ImportKeyMaterial":                   unsupported,
	"ListAliases":                         op((*kms.Service).ListAliases),
	"ListGrants":                          unsupported,
	"ListKeyPolicies":                     unsupported,
	"ListKeyRotations":                    unsupported,
	"ListKeys":                            op((*kms.Service).ListKeys),
	"ListResourceTags":                    unsupported,
	"ListRetirableGrants":                 unsupported,
	"PutKeyPolicy":                        unsupported,
	"ReEncrypt":                           op((*kms.Service).ReEncrypt),
	"ReplicateKey":                        unsupported,
	"RetireGrant":                         unsupported,
	"RevokeGrant":                         unsupported,
	"RotateKeyOnDemand":                   unsupported,
	"ScheduleKeyDeletion":                 op((*kms.Service).ScheduleKeyDeletion),
	"Sign":                                unsupported,
	"TagResource":                         unsupported,
	"UntagResource":                       unsupported,
	"UpdateAlias":                         op((*kms.Service).UpdateAlias),
	"UpdateCustomKeyStore":                unsupported,
	"UpdateKeyDescription":                op((*kms.Service).UpdateKeyDescription),
	"UpdatePrimaryRegion":                 unsupported,
	"Verify":                              unsupported,
	"VerifyMac":                           unsupported,
}

// An operation is a method of the service with the wire on both sides of it.
type operation struct {
	plan *node // of the request type; nil if the operation is not supported
	run  func(ctx context.Context, s *kms.Service, who kms.Caller, body []byte, out *bytes.Buffer) (key string, err error)
}

// A wiper holds a secret that it can forget.
type wiper interface{ Wipe() }

// op adapts a method to the wire: decode, check, call, encode. It is the only code that all operations share, and there is no
// other way in. The encoded answer goes to out, nothing for [kms.Empty]; key is the key that the request names, for the log.
//
// Secrets of the request and of the response are wiped before op returns, so a method must not let anything that outlives it use
// them.
func op[Req, Resp any](method func(*kms.Service, context.Context, kms.Caller, *Req) (*Resp, error)) operation {
	plan := compile(reflect.TypeFor[Req]())
	run := func(ctx context.Context, s *kms.Service, who kms.Caller, body []byte, out *bytes.Buffer) (string, error) {
		req := new(Req)
		if w, ok := any(req).(wiper); ok {
			defer w.Wipe()
		}
		if err := plan.decode(body, req); err != nil {
			return "", err
		}
		key := plan.key(req)
		resp, err := method(s, ctx, who, req)
		if w, ok := any(resp).(wiper); ok && resp != nil {
			defer w.Wipe()
		}
		if err != nil {
			return key, err
		}
		if _, void := any(resp).(*kms.Empty); void {
			return key, nil
		}
		// A bytes.Buffer is written to in place; another writer would get a copy, and leave one.
		if err := json.MarshalWrite(out, resp); err != nil {
			return key, fmt.Errorf("encode the answer: %w", err)
		}
		return key, nil
	}
	return operation{plan, run}
}

// unsupported is an operation of AWS KMS that this server does not have. Who calls it proves who they are first, as for any other.
var unsupported = operation{run: func(context.Context, *kms.Service, kms.Caller, []byte, *bytes.Buffer) (string, error) {
	return "", &kms.Error{Code: kms.Unsupported, Detail: "The operation is not supported."}
}}

// key returns the key that a request names, as the caller wrote it.
func (n *node) key(req any) string {
	for _, name := range []string{"KeyId", "DestinationKeyId", "TargetKeyId"} {
		if field := n.byName[name]; field != nil && field.kind == kindString && !field.pointer {
			return reflect.ValueOf(req).Elem().Field(field.index).String()
		}
	}
	return ""
}
