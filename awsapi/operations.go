package awsapi

import (
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
	"CreateGrant":                         op((*kms.Service).CreateGrant),
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
	"DisableKeyRotation":                  op((*kms.Service).DisableKeyRotation),
	"DisconnectCustomKeyStore":            unsupported,
	"EnableKey":                           op((*kms.Service).EnableKey),
	"EnableKeyRotation":                   op((*kms.Service).EnableKeyRotation),
	"Encapsulate":                         unsupported,
	"Encrypt":                             op((*kms.Service).Encrypt),
	"GenerateDataKey":                     op((*kms.Service).GenerateDataKey),
	"GenerateDataKeyPair":                 op((*kms.Service).GenerateDataKeyPair),
	"GenerateDataKeyPairWithoutPlaintext": op((*kms.Service).GenerateDataKeyPairWithoutPlaintext),
	"GenerateDataKeyWithoutPlaintext":     op((*kms.Service).GenerateDataKeyWithoutPlaintext),
	"GenerateMac":                         unsupported,
	"GenerateRandom":                      op((*kms.Service).GenerateRandom),
	"GetKeyLastUsage":                     op((*kms.Service).GetKeyLastUsage),
	"GetKeyPolicy":                        op((*kms.Service).GetKeyPolicy),
	"GetKeyRotationStatus":                op((*kms.Service).GetKeyRotationStatus),
	"GetParametersForImport":              unsupported,
	"GetPublicKey":                        unsupported,
	"ImportKeyMaterial":                   unsupported,
	"ListAliases":                         op((*kms.Service).ListAliases),
	"ListGrants":                          op((*kms.Service).ListGrants),
	"ListKeyPolicies":                     op((*kms.Service).ListKeyPolicies),
	"ListKeyRotations":                    op((*kms.Service).ListKeyRotations),
	"ListKeys":                            op((*kms.Service).ListKeys),
	"ListResourceTags":                    op((*kms.Service).ListResourceTags),
	"ListRetirableGrants":                 op((*kms.Service).ListRetirableGrants),
	"PutKeyPolicy":                        op((*kms.Service).PutKeyPolicy),
	"ReEncrypt":                           op((*kms.Service).ReEncrypt),
	"ReplicateKey":                        unsupported,
	"RetireGrant":                         op((*kms.Service).RetireGrant),
	"RevokeGrant":                         op((*kms.Service).RevokeGrant),
	"RotateKeyOnDemand":                   op((*kms.Service).RotateKeyOnDemand),
	"ScheduleKeyDeletion":                 op((*kms.Service).ScheduleKeyDeletion),
	"Sign":                                unsupported,
	"TagResource":                         op((*kms.Service).TagResource),
	"UntagResource":                       op((*kms.Service).UntagResource),
	"UpdateAlias":                         op((*kms.Service).UpdateAlias),
	"UpdateCustomKeyStore":                unsupported,
	"UpdateKeyDescription":                op((*kms.Service).UpdateKeyDescription),
	"UpdatePrimaryRegion":                 unsupported,
	"Verify":                              unsupported,
	"VerifyMac":                           unsupported,
}

// An operation is a method of the service with the wire on both sides of it. It takes what x.in holds for x.who, and leaves the answer in x.out.
type operation struct {
	plan *node // of the request type; nil if the operation is not supported
	run  func(ctx context.Context, s *kms.Service, x *exchange) error
}

// A wiper holds a secret that it can forget.
type wiper interface{ Wipe() }

// A defaulter says what it means where the request said nothing.
type defaulter interface{ Defaults() }

// op adapts a method to the wire: decode, check, note for the record, call, encode. It is the only code that all operations share, and there is no
// other way in. Of [kms.Empty] nothing is encoded.
//
// Secrets of the request and of the response are wiped before op returns, so a method must not let anything that outlives it use
// them.
func op[Req, Resp any](method func(*kms.Service, context.Context, kms.Caller, *Req) (*Resp, error)) operation {
	plan := compile(reflect.TypeFor[Req]())
	run := func(ctx context.Context, s *kms.Service, x *exchange) error {
		req := new(Req)
		if w, ok := any(req).(wiper); ok {
			defer w.Wipe()
		}
		if err := plan.decode(x.in, req); err != nil {
			return err
		}
		x.key = plan.key(req)
		if d, ok := any(req).(defaulter); ok {
			d.Defaults()
		}
		if x.parameters = plan.appendParameters(x.parameters[:0], req); len(x.parameters) > 0 {
			x.who.Parameters(x.parameters)
		}
		resp, err := method(s, ctx, x.who, req)
		if w, ok := any(resp).(wiper); ok && resp != nil {
			defer w.Wipe()
		}
		if err != nil {
			return err
		}
		if _, void := any(resp).(*kms.Empty); void {
			return nil
		}
		// A bytes.Buffer is written to in place; another writer would get a copy, and leave one.
		if err := json.MarshalWrite(&x.out, resp); err != nil {
			return fmt.Errorf("encode the answer: %w", err)
		}
		return nil
	}
	return operation{plan, run}
}

// unsupported is an operation of AWS KMS that this server does not have. Who calls it proves who they are first, as for any other.
var unsupported = operation{run: func(context.Context, *kms.Service, *exchange) error {
	return &kms.Error{Code: kms.Unsupported, Detail: "The operation is not supported."}
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
