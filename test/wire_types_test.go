package test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// members are the members of every request that this server reads, each with its type in the model of AWS KMS.
var members = map[string]map[string]string{
	"CancelKeyDeletion": {"KeyId": "string"},
	"CreateAlias":       {"AliasName": "string", "TargetKeyId": "string"},
	"CreateKey": {"Policy": "string", "Description": "string", "KeyUsage": "string", "CustomerMasterKeySpec": "string", "KeySpec": "string", "Origin": "string",
		"CustomKeyStoreId": "string", "BypassPolicyLockoutSafetyCheck": "boolean", "Tags": "structures", "MultiRegion": "boolean", "XksKeyId": "string"},
	"Decrypt": {"CiphertextBlob": "blob", "EncryptionContext": "map", "GrantTokens": "strings", "KeyId": "string", "EncryptionAlgorithm": "string",
		"Recipient": "structure", "DryRun": "boolean", "DryRunModifiers": "strings"},
	"CreateGrant": {"KeyId": "string", "GranteePrincipal": "string", "RetiringPrincipal": "string", "Operations": "strings", "Constraints": "object",
		"GrantTokens": "strings", "Name": "string", "DryRun": "boolean"},
	"DeleteAlias":          {"AliasName": "string"},
	"DescribeKey":          {"KeyId": "string", "GrantTokens": "strings"},
	"DisableKey":           {"KeyId": "string"},
	"DisableKeyRotation":   {"KeyId": "string"},
	"EnableKey":            {"KeyId": "string"},
	"EnableKeyRotation":    {"KeyId": "string", "RotationPeriodInDays": "integer"},
	"GetKeyLastUsage":      {"KeyId": "string"},
	"GetKeyPolicy":         {"KeyId": "string", "PolicyName": "string"},
	"GetKeyRotationStatus": {"KeyId": "string"},
	"ListGrants":           {"Limit": "integer", "Marker": "string", "KeyId": "string", "GrantId": "string", "GranteePrincipal": "string"},
	"ListKeyPolicies":      {"KeyId": "string", "Limit": "integer", "Marker": "string"},
	"ListKeyRotations":     {"KeyId": "string", "IncludeKeyMaterial": "string", "Limit": "integer", "Marker": "string"},
	"ListResourceTags":     {"KeyId": "string", "Limit": "integer", "Marker": "string"},
	"ListRetirableGrants":  {"Limit": "integer", "Marker": "string", "RetiringPrincipal": "string"},
	"PutKeyPolicy":         {"KeyId": "string", "PolicyName": "string", "Policy": "string", "BypassPolicyLockoutSafetyCheck": "boolean"},
	"RetireGrant":          {"GrantToken": "string", "KeyId": "string", "GrantId": "string", "DryRun": "boolean"},
	"RevokeGrant":          {"KeyId": "string", "GrantId": "string", "DryRun": "boolean"},
	"RotateKeyOnDemand":    {"KeyId": "string"},
	"TagResource":          {"KeyId": "string", "Tags": "structures"},
	"UntagResource":        {"KeyId": "string", "TagKeys": "strings"},
	"Encrypt": {"KeyId": "string", "Plaintext": "blob", "EncryptionContext": "map", "GrantTokens": "strings", "EncryptionAlgorithm": "string",
		"DryRun": "boolean"},
	"GenerateDataKey": {"KeyId": "string", "EncryptionContext": "map", "NumberOfBytes": "integer", "KeySpec": "string", "GrantTokens": "strings",
		"Recipient": "structure", "DryRun": "boolean"},
	"GenerateDataKeyPair": {"EncryptionContext": "map", "KeyId": "string", "KeyPairSpec": "string", "GrantTokens": "strings", "Recipient": "structure",
		"DryRun": "boolean"},
	"GenerateDataKeyPairWithoutPlaintext": {"EncryptionContext": "map", "KeyId": "string", "KeyPairSpec": "string", "GrantTokens": "strings", "DryRun": "boolean"},
	"GenerateDataKeyWithoutPlaintext": {"KeyId": "string", "EncryptionContext": "map", "KeySpec": "string", "NumberOfBytes": "integer", "GrantTokens": "strings",
		"DryRun": "boolean"},
	"GenerateRandom": {"NumberOfBytes": "integer", "CustomKeyStoreId": "string", "Recipient": "structure"},
	"ListAliases":    {"KeyId": "string", "Limit": "integer", "Marker": "string"},
	"ListKeys":       {"Limit": "integer", "Marker": "string"},
	"ReEncrypt": {"CiphertextBlob": "blob", "SourceEncryptionContext": "map", "SourceKeyId": "string", "DestinationKeyId": "string",
		"DestinationEncryptionContext": "map", "SourceEncryptionAlgorithm": "string", "DestinationEncryptionAlgorithm": "string", "GrantTokens": "strings",
		"DryRun": "boolean", "DryRunModifiers": "strings"},
	"ScheduleKeyDeletion":  {"KeyId": "string", "PendingWindowInDays": "integer"},
	"UpdateAlias":          {"AliasName": "string", "TargetKeyId": "string"},
	"UpdateKeyDescription": {"KeyId": "string", "Description": "string"},
}

const (
	textList   = "Start of list found where not expected"
	textObject = "Start of structure or map found where not expected."
	textNumber = "NUMBER_VALUE can not be converted to a String"
	textTrue   = "TRUE_VALUE can not be converted to a String"
	anything   = "*" // some text or none: AWS's is not known
)

// wrong are, for each type, values of other types and what is answered to each.
var wrong = map[string]map[string]string{
	"string": {"1": textNumber, "1.5e3": textNumber, "true": textTrue, "false": anything, "[]": textList, `["x"]`: textList, "{}": textObject, `{"x":"y"}`: textObject},
	"integer": {`"1"`: "STRING_VALUE can not be converted to an Integer", "true": "TRUE_VALUE can not be converted to an Integer", "false": anything,
		"[1]": textList, "{}": textObject, `""`: "STRING_VALUE can not be converted to an Integer"},
	"boolean":   {`"x"`: anything, "1": anything, "0": anything, "[true]": textList, "{}": textObject},
	"blob":      {"1": anything, "true": anything, "[1,2,3]": anything, "{}": anything, `"?"`: anything, `"YQ"`: anything, `"YQ=="=`: anything, `"YQ==YQ=="`: anything, `"Y Q="`: anything, `"YQ=\n="`: anything, `"_-8="`: anything, `"\u0000"`: anything},
	"map":       {`"x"`: anything, "1": anything, "true": anything, "[]": anything, `{"a":1}`: textNumber, `{"a":true}`: textTrue, `{"a":[]}`: textList, `{"a":{}}`: textObject, `{"a":"b","c":{"d":"e"}}`: textObject},
	"strings":   {`"x"`: "Expected list or null", "1": anything, "true": anything, "{}": anything, "[1]": textNumber, "[true]": textTrue, "[[]]": textList, "[{}]": textObject, `["x",1]`: textNumber},
	"structure": {`"x"`: "Expected null", "1": anything, "true": anything, "[]": anything, `{"KeyEncryptionAlgorithm":1}`: textNumber, `{"AttestationDocument":1}`: anything, `{"AttestationDocument":"?"}`: anything},
	"object": {`"x"`: "Expected null", "1": anything, "true": anything, "[]": anything, `{"EncryptionContextEquals":"x"}`: anything, `{"EncryptionContextSubset":{"a":1}}`: textNumber,
		`{"SourceArn":1}`: textNumber},
	"structures": {`"x"`: "Expected list or null", "1": anything, "true": anything, "{}": anything, `["x"]`: "Expected null", "[1]": anything, "[[]]": anything, `[{"TagKey":1}]`: textNumber, `[{"TagKey":"a","TagValue":{}}]`: textObject},
}

// TestWrongTypes: every member of every operation, given everything that it cannot be, is refused as what it is: another type. That other members are missing
// does not matter, since types come first.
func TestWrongTypes(t *testing.T) {
	s := start(t, t.TempDir())
	if len(members) != len(built) {
		t.Errorf("%d operations have their members listed, want %d", len(members), len(built))
	}
	n := 0
	for operation, all := range members {
		for member, kind := range all {
			for value, message := range wrong[kind] {
				n++
				body := fmt.Sprintf(`{"%s":%s}`, member, value)
				a := s.post(t, operation, body)
				if a.code != "SerializationException" || message != anything && a.message != message {
					t.Errorf("%s %s: %d %s %q, want SerializationException %q", operation, body, a.status, a.code, a.message, message)
				}
			}
		}
	}
	t.Logf("%d requests", n)
	s.works(t)
}

// TestNullMembers: null is the same as nothing, for every member of every operation.
func TestNullMembers(t *testing.T) {
	s, _ := shared(t)
	for operation, all := range members {
		nothing := s.post(t, operation, "{}")
		var body []string
		for member := range all {
			body = append(body, fmt.Sprintf(`"%s":null`, member))
		}
		a := s.post(t, operation, "{"+strings.Join(body, ",")+"}")
		if a.status != nothing.status || a.code != nothing.code || a.message != nothing.message {
			t.Errorf("%s: %d %s %q, and with nothing %d %s %q", operation, a.status, a.code, a.message, nothing.status, nothing.code, nothing.message)
		}
	}
	// But not in a map: to drop the pair would be to bind to another context than was written.
	key := *newKey(t, s.client()).KeyId
	if a := s.post(t, "Encrypt", `{"KeyId":"`+key+`","Plaintext":"YQ==","EncryptionContext":{"a":null}}`); a.code != "ValidationException" {
		t.Errorf("null in a context: %d %s", a.status, a.code)
	}
}

// TestExtremeValues: values of the right type that are as far out as can be. Each has its answer in the range of a client's mistakes, or works.
func TestExtremeValues(t *testing.T) {
	s := start(t, t.TempDir())
	key := *newKey(t, s.client()).KeyId
	values := map[string][]string{
		"string": {`""`, `" "`, `"\u0000"`, `"a\u0000b"`, `"\ud83d\ude00"`, `"\ufeff"`, `"` + strings.Repeat("x", 150_000) + `"`, `"` + strings.Repeat(`\u0000`, 20_000) + `"`,
			`"../../../../etc/passwd"`, `"' OR '1'='1"`, `"'; DROP TABLE keys; --"`, `"%s%s%s%n"`, `"${jndi:ldap://x}"`, `"\r\nX-Evil: 1"`, `"<script>"`, `"NULL"`, `"-1"`, `"nan"`},
		"integer": {"0", "-0", "-1", "1", "1.5", "1e2", "1e-400", "1e400", "-1e400", "2147483647", "2147483648", "-2147483648", "-2147483649", "9223372036854775808", "18446744073709551616",
			strings.Repeat("9", 100_000), "0." + strings.Repeat("0", 100_000) + "1", "1E" + strings.Repeat("9", 1000)},
		"boolean": {"true", "false"},
		"blob":    {`""`, `"AA=="`, `"` + strings.Repeat("A", 190_000) + `"`},
		"map": {`{}`, `{"":""}`, `{"\u0000":"\u0000"}`, `{"` + strings.Repeat("k", 90_000) + `":"` + strings.Repeat("v", 90_000) + `"}`, `{"a":null}`,
			`{"__proto__":"x","constructor":"y"}`},
		"strings":    {`[]`, `[""]`, `[null]`, `["` + strings.Repeat("x", 100_000) + `"]`, `[` + strings.Repeat(`"x",`, 40_000) + `"x"]`, `[` + strings.Repeat(`null,`, 30_000) + `null]`},
		"structure":  {`{}`, `{"x":{"y":{}}}`, `{"AttestationDocument":"` + strings.Repeat("A", 180_000) + `"}`},
		"structures": {`[]`, `[{}]`, `[null]`, `[` + strings.Repeat(`{},`, 50_000) + `{}]`, `[` + strings.Repeat(`{"TagKey":"a","TagValue":"b"},`, 5_000) + `{"TagKey":"a","TagValue":"b"}]`},
	}
	good := map[string]string{"KeyId": text(key), "TargetKeyId": text(key), "DestinationKeyId": text(key), "Plaintext": `"YQ=="`, "KeyPairSpec": `"ECC_NIST_P256"`, "KeySpec": `"AES_256"`,
		"AliasName": `"alias/extreme"`, "Description": `"x"`, "CiphertextBlob": `"YQ=="`}
	for operation, all := range members {
		for member, kind := range all {
			for _, value := range values[kind] {
				body := fmt.Sprintf(`{"%s":%s`, member, value)
				for other := range all {
					// The other members are right, so that it is this one that decides.
					if other != member && good[other] != "" && !(operation == "CreateKey" && other == "KeySpec") {
						body += fmt.Sprintf(`,"%s":%s`, other, good[other])
					}
				}
				a := s.post(t, operation, body+"}")
				if a.status != http.StatusOK && a.status != http.StatusBadRequest {
					t.Errorf("%s %.100s: %d", operation, body, a.status)
				}
				if len(a.body) > 100_000 {
					t.Errorf("%s %.100s: an answer of %d bytes", operation, body, len(a.body))
				}
			}
		}
	}
	s.works(t)
}
