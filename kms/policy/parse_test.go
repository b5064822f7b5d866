package policy

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

const statementHead = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",`

// keyWith returns a key policy of one statement, which has the members given beside its effect.
func keyWith(members string) string { return statementHead + members + `}]}` }

// whenever returns a key policy of one statement with a condition.
func whenever(condition string) string {
	return keyWith(`"Principal":"*","Action":"*","Resource":"*","Condition":` + condition)
}

func identityWith(members string) string { return statementHead + members + `}]}` }

func TestMalformedKeyPolicy(t *testing.T) {
	const (
		rest    = `"Principal":"*","Action":"*","Resource":"*"`
		invalid = "Policy contains a statement with one or more invalid principals."
		json    = "This policy contains invalid Json"
	)
	who := func(principal string) string {
		return keyWith(`"Action":"*","Resource":"*","Principal":` + principal)
	}
	aws := func(principal string) string { return who(`{"AWS":"` + principal + `"}`) }
	tests := []struct{ text, want string }{
		// The JSON.
		{``, json},
		{`{`, json},
		{`nonsense`, json},
		{`{"Statement":}`, json},
		{keyWith(rest) + `x`, json},
		{keyWith(rest) + `{}`, json},
		{keyWith(rest + `,`), json},
		{strings.Replace(keyWith(rest), `"Allow"`, `"All`+"\xff"+`w"`, 1), json},
		{strings.Replace(keyWith(rest), `"Allow"`, `"\ud800"`, 1), json},
		{"\ufeff" + keyWith(rest), json},
		{`[]`, "The policy: must be an object"},
		{`null`, "The policy: must be an object"},
		{`"x"`, "The policy: must be an object"},
		{strings.Repeat(`[`, 20000), "The policy: must be an object"},
		{whenever(strings.Repeat(`{"a":`, 5000)), "Statement[0].Condition.a.a: a value must be a string, a number or a boolean"},
		{`{"Version":"2012-10-17","Version":"2012-10-17"}`, `The policy: duplicate member "Version"`},
		{keyWith(rest + `,"Effect":"Deny"`), `Statement[0]: duplicate member "Effect"`},
		{keyWith(rest + `,"Sid":"a","Si\u0064":"b"`), `Statement[0]: duplicate member "Sid"`},
		{whenever(`{"Bool":{"aws:SecureTransport":true},"Bool":{}}`), `Statement[0].Condition: duplicate member "Bool"`},
		{whenever(`{"Bool":{"aws:SecureTransport":true,"aws:SecureTransport":false}}`), `Statement[0].Condition.Bool: duplicate member "aws:SecureTransport"`},
		{keyWith(rest) + strings.Repeat(" ", MaxSize), "The policy is longer than 32768 bytes"},

		// The document.
		{`{}`, "Statement: at least one is required"},
		{`{"Version":"2012-10-17"}`, "Statement: at least one is required"},
		{`{"Statement":[]}`, "Statement: the list is empty"},
		{`{"Statement":null}`, "Statement[0]: must be an object"},
		{`{"Statement":["x"]}`, "Statement[0]: must be an object"},
		{`{"Statement":[[]]}`, "Statement: a list in a list"},
		{`{"Version":"2012-10-18"}`, `Version: must be 2012-10-17 or 2008-10-17, not "2012-10-18"`},
		{`{"Version":20121017}`, "Version: must be a string"},
		{`{"Id":1}`, "Id: must be a string"},
		{`{"version":"2012-10-17"}`, `unknown member "version"`},
		{`{"Statements":[]}`, `unknown member "Statements"`},

		// The statement.
		{keyWith(rest + `,"Conditions":{}`), `Statement[0]: unknown member "Conditions"`},
		{keyWith(rest + `,"sid":""`), `Statement[0]: unknown member "sid"`},
		{`{"Statement":{` + rest + `}}`, "Statement[0].Effect: is required"},
		{`{"Statement":{"Effect":"allow",` + rest + `}}`, `Statement[0].Effect: must be Allow or Deny, not "allow"`},
		{`{"Statement":[{"Effect":"Allow",` + rest + `},{"Effect":"ALLOW",` + rest + `}]}`, `Statement[1].Effect: must be Allow or Deny, not "ALLOW"`},
		{`{"Statement":{"Effect":["Allow"],` + rest + `}}`, "Statement[0].Effect: must be a string"},
		{keyWith(rest + `,"Sid":1`), "Statement[0].Sid: must be a string"},
		{keyWith(rest + `,"NotAction":"*"`), "Statement[0]: has both Action and NotAction"},
		{keyWith(rest + `,"NotResource":"*"`), "Statement[0]: has both Resource and NotResource"},
		{keyWith(rest + `,"Condition":null`), "Statement[0].Condition: must be an object"},
		{keyWith(rest + `,"Condition":[]`), "Statement[0].Condition: must be an object"},

		// Principals.
		{keyWith(`"Action":"*","Resource":"*"`), invalid},
		{keyWith(rest + `,"NotPrincipal":"*"`), invalid},
		{who(`"arn:aws:iam::111122223333:root"`), invalid},
		{who(`"111122223333"`), invalid},
		{who(`{}`), invalid},
		{who(`{"AWS":[]}`), "Statement[0].Principal.AWS: the list is empty"},
		{who(`null`), "Statement[0].Principal: must be an object"},
		{who(`["*"]`), "Statement[0].Principal: must be an object"},
		{who(`{"aws":"*"}`), `Statement[0].Principal: unknown member "aws"`},
		{who(`{"AWS":1}`), "Statement[0].Principal.AWS: must be a string"},
		{who(`{"AWS":["*",["*"]]}`), "Statement[0].Principal.AWS: a list in a list"},
		{aws(``), invalid},
		{aws(`alice`), invalid},
		{aws(`11112222333`), invalid},
		{aws(`1111222233334`), invalid},
		{aws(`AIDACKCEVSQ6C2EXAMPLE`), invalid},
		{aws(`arn:aws:iam::111122223333`), invalid},
		{aws(`arn:aws:iam::111122223333:`), invalid},
		{aws(`arn:aws:iam::111122223333:*`), invalid},
		{aws(`arn:aws:iam::*:root`), invalid},
		{aws(`arn:aws:iam:::root`), invalid},
		{aws(`arn:aws:iam:eu-central-1:111122223333:root`), invalid},
		{aws(`arn:*:iam::111122223333:root`), invalid},
		{aws(`arn::iam::111122223333:root`), invalid},
		{aws(`ARN:aws:iam::111122223333:root`), invalid},
		{aws(`arn:aws:iam::111122223333:Root`), invalid},
		{aws(`arn:aws:iam::111122223333:root/x`), invalid},
		{aws(`arn:aws:iam::111122223333:user`), invalid},
		{aws(`arn:aws:iam::111122223333:user/`), invalid},
		{aws(`arn:aws:iam::111122223333:user/*`), invalid},
		{aws(`arn:aws:iam::111122223333:user/al?ce`), invalid},
		{aws(`arn:aws:iam::111122223333:user/te*m/alice`), invalid},
		{aws(`arn:aws:iam::111122223333:user/a b`), invalid},
		{aws(`arn:aws:iam::111122223333:group/admins`), invalid},
		{aws(`arn:aws:iam::111122223333:role/`), invalid},
		{aws(`arn:aws:iam::111122223333:assumed-role/admin/s`), invalid},
		{aws(`arn:aws:sts::111122223333:assumed-role/admin`), invalid},
		{aws(`arn:aws:sts::111122223333:assumed-role/admin/*`), invalid},
		{aws(`arn:aws:sts::111122223333:assumed-role/path/admin/s`), invalid},
		{aws(`arn:aws:sts::111122223333:federated-user/a/b`), invalid},
		{aws(`arn:aws:sts::111122223333:root`), invalid},
		{aws(`arn:aws:s3:::bucket`), invalid},
		{aws(`${aws:PrincipalArn}`), invalid},
		{keyWith(`"Action":"*","Resource":"*","NotPrincipal":{"AWS":"arn:aws:iam::111122223333:group/admins"}`), invalid},
		{keyWith(`"Action":"*","Resource":"*","NotPrincipal":{"AWS":"arn:aws:iam::111122223333:user/alice"}`), "Statement[0]: NotPrincipal is for Deny, and cannot be used with Allow"},

		// Actions and resources.
		{keyWith(`"Principal":"*","Resource":"*","Action":[]`), "Statement[0].Action: the list is empty"},
		{keyWith(`"Principal":"*","Resource":"*","Action":1`), "Statement[0].Action: must be a string"},
		{keyWith(`"Principal":"*","Resource":"*","Action":null`), "Statement[0].Action: must be a string"},
		{keyWith(`"Principal":"*","Resource":"*","Action":"Decrypt"`), `Statement[0].Action: an action is written <service>:<name>, or *, not "Decrypt"`},
		{keyWith(`"Principal":"*","Resource":"*","Action":"kms:"`), `Statement[0].Action: an action is written <service>:<name>, or *, not "kms:"`},
		{keyWith(`"Principal":"*","Resource":"*","NotAction":["kms:Encrypt",":x"]`), `Statement[0].NotAction: an action is written <service>:<name>, or *, not ":x"`},
		{keyWith(`"Principal":"*","Resource":"*","Action":"kms: Decrypt"`), `Statement[0].Action: "kms: Decrypt" has a character that no action has`},
		{keyWith(`"Principal":"*","Action":"*","Resource":[]`), "Statement[0].Resource: the list is empty"},
		{keyWith(`"Principal":"*","Action":"*","Resource":{}`), "Statement[0].Resource: must be a string"},
		{keyWith(`"Principal":"*","Action":"*","Resource":"key/x"`), `Statement[0].Resource: must be * or an ARN of six parts, with policy variables in the last alone, not "key/x"`},
		{keyWith(`"Principal":"*","Action":"*","Resource":""`), `Statement[0].Resource: must be * or an ARN of six parts, with policy variables in the last alone, not ""`},
		{keyWith(`"Principal":"*","Action":"*","Resource":"arn:aws:kms"`), `Statement[0].Resource: must be * or an ARN of six parts, with policy variables in the last alone, not "arn:aws:kms"`},
		{keyWith(`"Principal":"*","Action":"*","Resource":"arn:aws:k*s:key/x"`), `Statement[0].Resource: must be * or an ARN of six parts, with policy variables in the last alone, not "arn:aws:k*s:key/x"`},
		{keyWith(`"Principal":"*","Action":"*","Resource":"*:key/x"`), `Statement[0].Resource: must be * or an ARN of six parts, with policy variables in the last alone, not "*:key/x"`},
		{keyWith(`"Principal":"*","Action":"*","Resource":"arn:aws:kms:*:${aws:PrincipalAccount}:key/x"`), `Statement[0].Resource: must be * or an ARN of six parts, with policy variables in the last alone, not "arn:aws:kms:*:${aws:PrincipalAccount}:key/x"`},
		{keyWith(`"Principal":"*","Action":"*","NotResource":"arn:aws:kms:${aws:RequestedRegion}:*:key/*"`), `Statement[0].NotResource: must be * or an ARN of six parts, with policy variables in the last alone, not "arn:aws:kms:${aws:RequestedRegion}:*:key/*"`},
		{keyWith(`"Principal":"*","Action":"*","Resource":"arn:aws:kms:*:*:key/${aws:usernam}"`), `Statement[0].Resource: unknown condition key "aws:usernam"`},
		{keyWith(`"Principal":"*","Action":"*","Resource":"arn:aws:kms:*:*:key/${aws:username"`), `Statement[0].Resource: a policy variable without its }: "${aws:username"`},

		// Conditions.
		{whenever(`{"StringEqualz":{"aws:username":"a"}}`), "Statement[0].Condition: unknown operator StringEqualz"},
		{whenever(`{"stringEquals":{"aws:username":"a"}}`), "Statement[0].Condition: unknown operator stringEquals"},
		{whenever(`{"":{"aws:username":"a"}}`), "Statement[0].Condition: unknown operator "},
		{whenever(`{"IfExists":{"aws:username":"a"}}`), "Statement[0].Condition: unknown operator IfExists"},
		{whenever(`{"NullIfExists":{"aws:username":"true"}}`), "Statement[0].Condition: unknown operator NullIfExists"},
		{whenever(`{"ForAnyValue:Null":{"aws:username":"true"}}`), "Statement[0].Condition: unknown operator ForAnyValue:Null"},
		{whenever(`{"StringEqualsIfExistsIfExists":{"aws:username":"a"}}`), "Statement[0].Condition: unknown operator StringEqualsIfExistsIfExists"},
		{whenever(`{"ForAnyValue:ForAllValues:StringEquals":{"aws:username":"a"}}`), "Statement[0].Condition: unknown operator ForAnyValue:ForAllValues:StringEquals"},
		{whenever(`{"ForSomeValues:StringEquals":{"aws:username":"a"}}`), "Statement[0].Condition: unknown operator ForSomeValues:StringEquals"},
		{whenever(`{"BinaryNotEquals":{"custom:x":"YQ=="}}`), "Statement[0].Condition: unknown operator BinaryNotEquals"},
		{whenever(`{"StringEquals":[]}`), "Statement[0].Condition.StringEquals: must be an object"},
		{whenever(`{"StringEquals":{"aws:username":[]}}`), "Statement[0].Condition.StringEquals.aws:username: the list is empty"},
		{whenever(`{"StringEquals":{"aws:username":null}}`), "Statement[0].Condition.StringEquals.aws:username: a value must be a string, a number or a boolean"},
		{whenever(`{"StringEquals":{"aws:username":{"a":"b"}}}`), "Statement[0].Condition.StringEquals.aws:username: a value must be a string, a number or a boolean"},
		{whenever(`{"StringEquals":{"aws:username":["a",["b"]]}}`), "Statement[0].Condition.StringEquals.aws:username: a list in a list"},
		{whenever(`{"NumericEquals":{"kms:RotationPeriodInDays":"ninety"}}`), `Statement[0].Condition.NumericEquals.kms:RotationPeriodInDays: must be a number such as 90 or 0.5, not "ninety"`},
		{whenever(`{"NumericEquals":{"kms:RotationPeriodInDays":["90","1e2"]}}`), `Statement[0].Condition.NumericEquals.kms:RotationPeriodInDays: must be a number such as 90 or 0.5, not "1e2"`},
		{whenever(`{"NumericEquals":{"kms:RotationPeriodInDays":".5"}}`), `Statement[0].Condition.NumericEquals.kms:RotationPeriodInDays: must be a number such as 90 or 0.5, not ".5"`},
		{whenever(`{"NumericEquals":{"kms:RotationPeriodInDays":true}}`), `Statement[0].Condition.NumericEquals.kms:RotationPeriodInDays: must be a number such as 90 or 0.5, not "true"`},
		{whenever(`{"NumericEquals":{"kms:RotationPeriodInDays":"${aws:EpochTime}"}}`), `Statement[0].Condition.NumericEquals.kms:RotationPeriodInDays: must be a number such as 90 or 0.5, not "${aws:EpochTime}"`},
		{whenever(`{"Bool":{"aws:SecureTransport":"yes"}}`), `Statement[0].Condition.Bool.aws:SecureTransport: must be true or false, not "yes"`},
		{whenever(`{"Null":{"aws:username":"null"}}`), `Statement[0].Condition.Null.aws:username: must be true or false, not "null"`},
		{whenever(`{"IpAddress":{"aws:SourceIp":"203.0.113.0/33"}}`), `Statement[0].Condition.IpAddress.aws:SourceIp: not an IP address or a CIDR range: "203.0.113.0/33"`},
		{whenever(`{"IpAddress":{"aws:SourceIp":"203.0.113"}}`), `Statement[0].Condition.IpAddress.aws:SourceIp: not an IP address or a CIDR range: "203.0.113"`},
		{whenever(`{"IpAddress":{"aws:SourceIp":"203.0.113.*"}}`), `Statement[0].Condition.IpAddress.aws:SourceIp: not an IP address or a CIDR range: "203.0.113.*"`},
		{whenever(`{"NotIpAddress":{"aws:SourceIp":"fe80::1%eth0"}}`), `Statement[0].Condition.NotIpAddress.aws:SourceIp: not an IP address or a CIDR range: "fe80::1%eth0"`},
		{whenever(`{"ArnEquals":{"aws:PrincipalArn":"alice"}}`), `Statement[0].Condition.ArnEquals.aws:PrincipalArn: not an ARN of six parts: "alice"`},
		{whenever(`{"ArnLike":{"aws:PrincipalArn":"**"}}`), `Statement[0].Condition.ArnLike.aws:PrincipalArn: not an ARN of six parts: "**"`},
		{whenever(`{"BinaryEquals":{"custom:x":"YQ"}}`), `Statement[0].Condition.BinaryEquals.custom:x: not base64: "YQ"`},
		{whenever(`{"BinaryEquals":{"custom:x":"YQ==\n"}}`), `Statement[0].Condition.BinaryEquals.custom:x: not base64: "YQ==\n"`},
		{whenever(`{"StringLike":{"aws:username":"${}"}}`), `Statement[0].Condition.StringLike.aws:username: a condition key is written <namespace>:<name>, not ""`},
		{whenever(`{"StringLike":{"aws:username":"${**}"}}`), `Statement[0].Condition.StringLike.aws:username: a condition key is written <namespace>:<name>, not "**"`},
		{whenever(`{"StringLike":{"aws:username":"${aws:userid, 'a}"}}`), `Statement[0].Condition.StringLike.aws:username: the default of a policy variable is written ${key, 'default'}: "${aws:userid, 'a}"`},
		{whenever(`{"StringLike":{"aws:username":"${aws:userid, a}"}}`), `Statement[0].Condition.StringLike.aws:username: the default of a policy variable is written ${key, 'default'}: "${aws:userid, a}"`},
		{whenever(`{"StringLike":{"aws:username":"${aws:userid, 'a''b'}"}}`), `Statement[0].Condition.StringLike.aws:username: the default of a policy variable is written ${key, 'default'}: "${aws:userid, 'a''b'}"`},

		// Faults that quote what disturbs.
		{whenever(`{"a\n\u001b[2Jb":{"aws:username":"a"}}`), "Statement[0].Condition: unknown operator a\ufffd\ufffd[2Jb"},
		{whenever(`{"` + strings.Repeat("é", 1000) + `":{"aws:username":"a"}}`), "Statement[0].Condition: unknown operator " + strings.Repeat("é", 235) + "..."},

		// Condition keys.
		{whenever(`{"StringEquals":{"username":"a"}}`), `Statement[0].Condition.StringEquals: a condition key is written <namespace>:<name>, not "username"`},
		{whenever(`{"StringEquals":{"aws:":"a"}}`), `Statement[0].Condition.StringEquals: a condition key is written <namespace>:<name>, not "aws:"`},
		{whenever(`{"StringEquals":{":username":"a"}}`), `Statement[0].Condition.StringEquals: a condition key is written <namespace>:<name>, not ":username"`},
		{whenever(`{"StringEquals":{"aws:user\u0000name":"a"}}`), `Statement[0].Condition.StringEquals: the condition key "aws:user\x00name" has a character that no key can have`},
		{whenever(`{"StringEquals":{" aws:username":"a"}}`), `Statement[0].Condition.StringEquals: the condition key " aws:username" has a character that no key can have`},
		{whenever(`{"StringEquals":{"aws:RequestTag/*":"a"}}`), `Statement[0].Condition.StringEquals: a condition key has no wildcards: "aws:RequestTag/*"`},
		{whenever(`{"StringEquals":{"kms:EncryptionContext":"a"}}`), `Statement[0].Condition.StringEquals: unknown condition key "kms:EncryptionContext"`},
		{whenever(`{"StringEquals":{"kms:EncryptionContext:":"a"}}`), `Statement[0].Condition.StringEquals: unknown condition key "kms:EncryptionContext:"`},
		{whenever(`{"StringEquals":{"kms:ViaServices":"a"}}`), `Statement[0].Condition.StringEquals: unknown condition key "kms:ViaServices"`},
		{whenever(`{"StringEquals":{"kms:RecipientAttestation:PCR32":"a"}}`), `Statement[0].Condition.StringEquals: unknown condition key "kms:RecipientAttestation:PCR32"`},
		{whenever(`{"StringEquals":{"kms:RecipientAttestation:PCR01":"a"}}`), `Statement[0].Condition.StringEquals: unknown condition key "kms:RecipientAttestation:PCR01"`},
		{whenever(`{"StringEquals":{"kms:RecipientAttestation:PCR":"a"}}`), `Statement[0].Condition.StringEquals: unknown condition key "kms:RecipientAttestation:PCR"`},
		{whenever(`{"StringEquals":{"kms:RecipientAttestation:NitroTPMPCR-1":"a"}}`), `Statement[0].Condition.StringEquals: unknown condition key "kms:RecipientAttestation:NitroTPMPCR-1"`},
		{whenever(`{"StringEquals":{"kms:RecipientAttestation:NitroTPMPCR24":"a"}}`), `Statement[0].Condition.StringEquals: unknown condition key "kms:RecipientAttestation:NitroTPMPCR24"`},
		{whenever(`{"StringEquals":{"strongroom:RecipientAttestation:PCR0":"a"}}`), `Statement[0].Condition.StringEquals: unknown condition key "strongroom:RecipientAttestation:PCR0"`},
		{whenever(`{"StringEquals":{"aws:ResourceTag":"a"}}`), `Statement[0].Condition.StringEquals: unknown condition key "aws:ResourceTag"`},
		{whenever(`{"StringEquals":{"AWS:SourceIpAddress":"a"}}`), `Statement[0].Condition.StringEquals: unknown condition key "AWS:SourceIpAddress"`},

		// What AWS KMS refuses since it means less than it seems to.
		{whenever(`{"ForAllValues:StringEquals":{"kms:EncryptionContext:Department":"a"}}`), textForAllValues},
		{whenever(`{"ForAnyValue:StringEquals":{"kms:ResourceAliases":"alias/a"}}`), `Statement[0].Condition.ForAnyValue:StringEquals: kms:ResourceAliases is a condition key for identity policies alone`},
		{whenever(`{"StringLike":{"kms:EncryptionContext:a":[` + strings.Repeat(`"*a?b*",`, 100) + `"*?*"]}}`), `Statement[0]: more than 100 patterns of the document have a ? between two *`},
		{whenever(`{"ForAllValues:StringLikeIfExists":{"KMS:encryptioncontext:x":"a"}}`), textForAllValues},
		{whenever(`{"ForAllValues:StringEquals":{"aws:RequestTag/team":"a"}}`), textForAllValues},
	}
	for _, tt := range tests {
		_, err := Parse(KeyPolicy, tt.text)
		var fault *Error
		if !errors.As(err, &fault) || fault.Text != tt.want {
			t.Errorf("%.300s\n got %v\nwant %s", tt.text, err, tt.want)
		}
	}
	t.Logf("%d documents", len(tests))
}

func TestMalformedIdentityPolicy(t *testing.T) {
	const rest = `"Action":"*","Resource":"*"`
	tests := []struct{ text, want string }{
		{identityWith(rest + `,"Principal":"*"`), "Statement[0]: an identity policy has no Principal: its statements are about whom it is attached to"},
		{identityWith(rest + `,"NotPrincipal":{"AWS":"111122223333"}`), "Statement[0]: an identity policy has no Principal: its statements are about whom it is attached to"},
		{identityWith(`"Resource":"*"`), "Statement[0]: Action or NotAction is required"},
		{identityWith(`"Action":"*"`), "Statement[0]: Resource or NotResource is required"},
		{identityWith(rest + `,"Sid":"a b"`), `Statement[0].Sid: must be letters and digits, not "a b"`},
		{`{"Statement":[{"Sid":"a","Effect":"Allow",` + rest + `},{"Sid":"a","Effect":"Deny",` + rest + `}]}`, `Statement[1].Sid: another statement has the Sid "a"`},
	}
	for _, tt := range tests {
		_, err := Parse(IdentityPolicy, tt.text)
		var fault *Error
		if !errors.As(err, &fault) || fault.Text != tt.want {
			t.Errorf("%s\n got %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

// TestAccepted has documents that look odd and are right.
func TestAccepted(t *testing.T) {
	const rest = `"Principal":"*","Action":"*","Resource":"*"`
	tests := []struct {
		kind Kind
		text string
	}{
		{KeyPolicy, `{"Statement":{"Effect":"Deny",` + rest + `}}`},
		{KeyPolicy, `{"Id":"","Version":"2008-10-17","Statement":[{"Effect":"Deny",` + rest + `}]}`},
		{KeyPolicy, ` { "Statement" : [ { "Resource" : [ "*" ] , "Action" : [ "kms:*" ] , "Principal" : { "AWS" : [ "*" ] } , "Effect" : "Allow" } ] } ` + "\r\n\t"},
		{KeyPolicy, keyWith(`"Principal":"*"`)},
		{KeyPolicy, keyWith(`"Principal":{"AWS":"arn:aws:iam::111122223333:user/a/b:c/d_+=,.@-"},"Action":"*"`)},
		{KeyPolicy, keyWith(`"Principal":{"Service":["a","b"],"CanonicalUser":"c","Federated":"d"},"Resource":"*"`)},
		{KeyPolicy, `{"Statement":[{"Sid":"a b","Effect":"Deny",` + rest + `},{"Sid":"a b","Effect":"Deny",` + rest + `}]}`},
		{KeyPolicy, whenever(`{"StringEquals":{"saml:aud":"x","accounts.google.com:sub":"y","oidc.eks.eu-central-1.amazonaws.com/id/EX:aud":"z"}}`)},
		{KeyPolicy, whenever(`{"StringEquals":{"kms:EncryptionContext:aws:s3:arn":"x","kms:EncryptionContext:a b/é":"y"}}`)},
		{KeyPolicy, whenever(`{"StringEquals":{"kms:RecipientAttestation:PCR0":"x","kms:RecipientAttestation:NitroTPMPCR23":"y"}}`)},
		{KeyPolicy, whenever(`{"StringEquals":{"strongroom:RecipientAttestation:Root":"x"}}`)},
		{KeyPolicy, whenever(`{"ForAllValues:StringEquals":{"aws:TagKeys":"x","kms:EncryptionContextKeys":"y","aws:ResourceTag/a":"z"}}`)},
		{KeyPolicy, `{"Statement":{"Effect":"Deny",` + rest + `,"Condition":{"ForAllValues:StringEquals":{"kms:EncryptionContext:a":"b"}}}}`},
		{KeyPolicy, `{"Statement":{"Effect":"Allow",` + rest + `,"Condition":{"StringEquals":{"aws:username":"${"}}}}`},
		{IdentityPolicy, identityWith(`"Action":"*","Resource":"*","Condition":{"ForAllValues:StringEquals":{"aws:RequestTag/a":"b"}}`)},
		{IdentityPolicy, `{"Statement":[{"Sid":"","Effect":"Allow","Action":"*","Resource":"*"},{"Sid":"","Effect":"Deny","Action":"s3:*","Resource":"*"}]}`},
		{IdentityPolicy, identityWith(`"NotAction":"iam:*","NotResource":"arn:aws:s3:::bucket/${aws:username}/*"`)},
	}
	for _, tt := range tests {
		if _, err := Parse(tt.kind, tt.text); err != nil {
			t.Errorf("%s: %v", tt.text, err)
		}
	}
	full := keyWith(rest)
	if _, err := Parse(KeyPolicy, full+strings.Repeat(" ", MaxSize-len(full))); err != nil {
		t.Errorf("a policy of %d bytes: %v", MaxSize, err)
	}
}

func TestKnownKeys(t *testing.T) {
	for _, k := range keyTable {
		name := strings.NewReplacer("<0-31>", "7", "<0-23>", "7", "<name>", "a", "<key>", "a").Replace(k)
		for _, key := range []string{name, strings.ToUpper(name)} {
			if got, err := knownKey("", key); err != nil || got != strings.ToLower(name) {
				t.Errorf("%s: %q, %v", key, got, err)
			}
		}
		if _, err := knownKey("", name[:len(name)-1]+"~"); err == nil && !strings.Contains(k, "<name>") && !strings.Contains(k, "<key>") {
			t.Errorf("%s with another last letter is known, too", k)
		}
	}
	if !slices.IsSortedFunc(keyTable[:37], strings.Compare) {
		t.Error("the keys of kms are not sorted")
	}
}

func TestPrincipals(t *testing.T) {
	d, err := Parse(KeyPolicy, `{"Statement":[
		{"Effect":"Allow","Principal":{"AWS":["111122223333","*","arn:aws:iam::111122223333:user/alice"]}},
		{"Effect":"Deny","NotPrincipal":{"AWS":["arn:aws:iam::111122223333:user/alice","arn:aws:iam::444455556666:root"],"Service":"s3.amazonaws.com"}},
		{"Effect":"Allow","Principal":"*"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"111122223333", "arn:aws:iam::111122223333:user/alice", "arn:aws:iam::444455556666:root"}
	if got := d.Principals(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	d.Principals()[0] = "x"
	if got := d.Principals(); !slices.Equal(got, want) {
		t.Errorf("the list is not a copy: %q", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range loadCases(f) {
		if c.Key != nil {
			f.Add(string(c.Key))
		}
		for _, text := range c.Identity {
			f.Add(string(text))
		}
	}
	for _, condition := range []string{`{"StringLike":{"aws:username":["${aws:userid, 'a'}","${*}*"]}}`, `{"DateLessThan":{"kms:ValidTo":["2026-05","1777629600"]}}`,
		`{"IpAddress":{"aws:SourceIp":"::ffff:10.0.0.0/104"},"NumericEquals":{"custom:n":[-1,"0.50"]},"BinaryEquals":{"custom:b":"AP8="}}`} {
		f.Add(whenever(condition))
	}
	questions := []Question{
		{Caller: genCallers[0], Action: "kms:Decrypt", Resource: keyOne, Owner: ours, Context: facts{"aws:username": {"alice"}, "aws:sourceip": {"10.0.0.1"}}},
		{Caller: genCallers[4], Action: "kms:Encrypt", Resource: "*", Owner: theirs},
		{},
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, kind := range []Kind{KeyPolicy, IdentityPolicy} {
			d, err := Parse(kind, text)
			if err != nil {
				var fault *Error
				if !errors.As(err, &fault) || fault.Text == "" {
					t.Fatalf("%#v", err)
				}
				continue
			}
			if _, err := Parse(kind, text); err != nil {
				t.Fatalf("parsed once, and then: %v", err)
			}
			for _, p := range d.Principals() {
				if p == "*" || p == "" {
					t.Fatalf("principal %q", p)
				}
			}
			for _, q := range questions {
				for _, p := range []Policies{{Key: d}, {Identity: []Named{{"x", d}}}, {Key: d, Identity: []Named{{"x", d}}}} {
					got := Decide(q, p)
					explained, steps := Explain(q, p)
					if got != explained {
						t.Fatalf("Decide %+v, Explain %+v", got, explained)
					}
					checkSteps(t, p, got, steps)
				}
			}
		}
	})
}
