package policy

import (
	"strconv"
	"strings"
	"unicode"
)

// The condition keys that a policy may name in the namespaces that are known completely: there, another name is a mistake, and a condition that
// can never hold is worse than an error. In "<...>" stands what the author fills in.
//
// Those of kms are in the AWS KMS Developer Guide, "AWS KMS condition keys"; those of aws in the IAM User Guide, "AWS global condition context
// keys", as of 2026. Not every one has a value here.
var keyTable = []string{
	"kms:BypassPolicyLockoutSafetyCheck",
	"kms:CallerAccount",
	"kms:CustomerMasterKeySpec",
	"kms:CustomerMasterKeyUsage",
	"kms:DataKeyPairSpec",
	"kms:EncryptionAlgorithm",
	"kms:EncryptionContext:<name>",
	"kms:EncryptionContextKeys",
	"kms:ExpirationModel",
	"kms:GrantConstraintType",
	"kms:GrantIsForAWSResource",
	"kms:GrantOperations",
	"kms:GranteePrincipal",
	"kms:KeyAgreementAlgorithm",
	"kms:KeyOrigin",
	"kms:KeySpec",
	"kms:KeyUsage",
	"kms:MacAlgorithm",
	"kms:MessageType",
	"kms:MultiRegion",
	"kms:MultiRegionKeyType",
	"kms:PrimaryRegion",
	"kms:ReEncryptOnSameKey",
	"kms:RecipientAttestation:ImageSha384",
	"kms:RecipientAttestation:NitroTPMPCR<0-23>",
	"kms:RecipientAttestation:PCR<0-31>",
	"kms:ReplicaRegion",
	"kms:RequestAlias",
	"kms:ResourceAliases",
	"kms:RetiringPrincipal",
	"kms:RotationPeriodInDays",
	"kms:ScheduleKeyDeletionPendingWindowInDays",
	"kms:SigningAlgorithm",
	"kms:ValidTo",
	"kms:ViaService",
	"kms:WrappingAlgorithm",
	"kms:WrappingKeySpec",

	"strongroom:RecipientAttestation:Root",

	"aws:AssumedRoot",
	"aws:CalledVia",
	"aws:CalledViaAWSMCP",
	"aws:CalledViaFirst",
	"aws:CalledViaLast",
	"aws:ChatbotSourceArn",
	"aws:CurrentTime",
	"aws:Ec2InstanceSourcePrivateIPv4",
	"aws:Ec2InstanceSourceVpc",
	"aws:EpochTime",
	"aws:FederatedProvider",
	"aws:IsMcpServiceAction",
	"aws:MultiFactorAuthAge",
	"aws:MultiFactorAuthPresent",
	"aws:PrincipalAccount",
	"aws:PrincipalArn",
	"aws:PrincipalIsAWSService",
	"aws:PrincipalOrgID",
	"aws:PrincipalOrgPaths",
	"aws:PrincipalServiceName",
	"aws:PrincipalServiceNamesList",
	"aws:PrincipalTag/<key>",
	"aws:PrincipalType",
	"aws:RequestTag/<key>",
	"aws:RequestedRegion",
	"aws:ResourceAccount",
	"aws:ResourceOrgID",
	"aws:ResourceOrgPaths",
	"aws:ResourceTag/<key>",
	"aws:SecureTransport",
	"aws:SignInSessionArn",
	"aws:SourceAccount",
	"aws:SourceArn",
	"aws:SourceIdentity",
	"aws:SourceIp",
	"aws:SourceOrgID",
	"aws:SourceOrgPaths",
	"aws:SourceVpc",
	"aws:SourceVpcArn",
	"aws:SourceVpce",
	"aws:TagKeys",
	"aws:TokenIssueTime",
	"aws:UserAgent",
	"aws:ViaAWSMCPService",
	"aws:ViaAWSService",
	"aws:VpcSourceIp",
	"aws:VpceAccount",
	"aws:VpceOrgID",
	"aws:VpceOrgPaths",
	"aws:referer",
	"aws:userid",
	"aws:username",
}

// The table, in lower case: whole names, and those that end in "<...>" up to it.
var keyNames, keyPrefixes = indexKeys()

func indexKeys() (names map[string]bool, prefixes []string) {
	names = make(map[string]bool)
	for _, k := range keyTable {
		if prefix, _, ok := strings.Cut(strings.ToLower(k), "<"); ok {
			prefixes = append(prefixes, prefix)
		} else {
			names[prefix] = true
		}
	}
	return names, prefixes
}

// knownKey returns a condition key in lower case, or says why it cannot be one. A wildcard in a key has no meaning in AWS, so whoever
// writes one means something that will not happen.
func knownKey(place, key string) (string, error) {
	namespace, name, _ := strings.Cut(key, ":")
	switch {
	case namespace == "" || name == "":
		return "", faultf("%s: a condition key is written <namespace>:<name>, not %q", place, key)
	case strings.ContainsAny(key, "*?"):
		return "", faultf("%s: a condition key has no wildcards: %q", place, key)
	case strings.TrimSpace(key) != key || strings.ContainsFunc(key, func(r rune) bool { return !unicode.IsPrint(r) }):
		return "", faultf("%s: the condition key %q has a character that no key can have", place, key)
	}
	lower := strings.ToLower(key)
	switch namespace, _, _ = strings.Cut(lower, ":"); namespace {
	case "kms", "strongroom", "aws":
		if !isKnown(lower) {
			return "", faultf("%s: unknown condition key %q", place, key)
		}
	}
	return lower, nil
}

func isKnown(lower string) bool {
	if keyNames[lower] {
		return true
	}
	for _, prefix := range keyPrefixes {
		rest, ok := strings.CutPrefix(lower, prefix)
		switch {
		case !ok || rest == "":
		case !strings.HasSuffix(prefix, "pcr"):
			return true
		default:
			// A platform configuration register is written without leading zeros.
			last := 31
			if strings.HasSuffix(prefix, "tpmpcr") {
				last = 23
			}
			n, err := strconv.Atoi(rest)
			return err == nil && 0 <= n && n <= last && strconv.Itoa(n) == rest
		}
	}
	return false
}

// isContextOrTag reports whether key, in lower case, is single-valued and named after something that a request may leave out: the keys that
// AWS KMS does not let ForAllValues be used with.
func isContextOrTag(key string) bool {
	return strings.HasPrefix(key, "kms:encryptioncontext:") || strings.HasPrefix(key, "aws:requesttag/")
}
