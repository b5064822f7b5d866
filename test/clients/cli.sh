# What a shell script does with AWS KMS, through the stock AWS CLI, against the server that the environment names. run.sh runs it.
set -u
context='Tenant=42,Purpose=signing'
id_pattern='^[0-9a-f]\{8\}-[0-9a-f]\{4\}-[0-9a-f]\{4\}-[0-9a-f]\{4\}-[0-9a-f]\{12\}$'

# kms OPERATION ARGUMENT… runs the CLI. Older versions do not read AWS_ENDPOINT_URL_KMS themselves.
kms() { "${AWS_CLI:-/usr/bin/aws}" --endpoint-url "$AWS_ENDPOINT_URL_KMS" --output text kms "$@"; }

# check WHAT COMMAND… says whether a command succeeds.
check() {
	what=$1
	shift
	if saw=$("$@" 2>&1); then echo "ok $what"; else echo "FAILED $what: $saw"; fi
}

# is WHAT GOT WANT says whether two texts are the same.
is() { if [ "$2" = "$3" ]; then echo "ok $1"; else echo "FAILED $1: '$2', not '$3'"; fi; }

# refused WHAT OPERATION CODE MESSAGE ARGUMENT… says whether the CLI ends as it does on an error of the service, and prints this one.
refused() {
	what=$1 operation=$2 code=$3 message=$4
	shift 4
	saw=$(kms "$@" 2>&1 >/dev/null)
	status=$?
	is "$what" "$status $(echo "$saw" | sed '/^$/d')" "254 An error occurred ($code) when calling the $operation operation: $message"
}

# decoded FILE turns base64 into FILE.
decoded() { base64 -d >"$WORK/$1"; }

# valid PRIVATE PUBLIC asks OpenSSL to check a private key and to derive its public key.
valid() {
	openssl pkey -inform DER -in "$WORK/$1" -check -noout 2>&1 | grep -q 'Key is valid' &&
		openssl pkey -inform DER -in "$WORK/$1" -pubout -outform DER -out "$WORK/derived" && cmp "$WORK/derived" "$WORK/$2"
}

prefix="arn:aws:kms:$AWS_REGION:$STRONGROOM_ACCOUNT:"
key=$(kms create-key --description 'for the CLI' --tags TagKey=a,TagValue=b --query KeyMetadata.KeyId)
check create-key expr "$key" : "$id_pattern"
check create-alias kms create-alias --alias-name alias/cli --target-key-id "$key"
for name in "$key" "${prefix}key/$key" alias/cli "${prefix}alias/cli"; do
	is "describe-key $name" "$(kms describe-key --key-id "$name" --query 'KeyMetadata.[Arn,KeyState,Description]' | tr '\t' ' ')" "${prefix}key/$key Enabled for the CLI"
done

for spec in RSA_2048 RSA_3072 RSA_4096 ECC_NIST_P256 ECC_NIST_P384 ECC_NIST_P521 ECC_SECG_P256K1 SM2 ECC_NIST_EDWARDS25519; do
	kms generate-data-key-pair --key-id alias/cli --key-pair-spec $spec --encryption-context "$context" \
		--query '[PrivateKeyPlaintext,PrivateKeyCiphertextBlob,PublicKey,KeyId,KeyPairSpec]' | tr '\t' '\n' >"$WORK/pair"
	sed -n 1p "$WORK/pair" | decoded private
	sed -n 2p "$WORK/pair" | decoded blob
	sed -n 3p "$WORK/pair" | decoded public
	is "$spec pair" "$(sed -n '4,5p' "$WORK/pair" | tr '\n' ' ')" "${prefix}key/$key $spec "
	check "$spec in OpenSSL" valid private public
	kms decrypt --ciphertext-blob "fileb://$WORK/blob" --encryption-context "$context" --query Plaintext | decoded opened
	check "$spec decrypted" cmp "$WORK/opened" "$WORK/private"
	refused "$spec with another context" Decrypt InvalidCiphertextException '' decrypt --ciphertext-blob "fileb://$WORK/blob" --encryption-context Tenant=43,Purpose=signing
done
kms generate-data-key-pair-without-plaintext --key-id "$key" --key-pair-spec ECC_NIST_P384 --query '[PrivateKeyCiphertextBlob,PublicKey]' | tr '\t' '\n' >"$WORK/pair"
sed -n 1p "$WORK/pair" | decoded blob
sed -n 2p "$WORK/pair" | decoded public
kms decrypt --ciphertext-blob "fileb://$WORK/blob" --query Plaintext | decoded private
check 'a pair without plaintext' valid private public

printf hello >"$WORK/hello"
kms encrypt --key-id alias/cli --plaintext "fileb://$WORK/hello" --query CiphertextBlob | decoded sealed
is 'encrypt and decrypt' "$(kms decrypt --ciphertext-blob "fileb://$WORK/sealed" --query Plaintext | base64 -d)" hello
other=$(kms create-key --multi-region --query KeyMetadata.KeyId)
check 'create-key of many Regions' expr "$other" : '^mrk-[0-9a-f]\{32\}$'
kms re-encrypt --ciphertext-blob "fileb://$WORK/sealed" --destination-key-id "$other" --destination-encryption-context "$context" --query CiphertextBlob | decoded moved
is re-encrypt "$(kms decrypt --ciphertext-blob "fileb://$WORK/moved" --encryption-context "$context" --query Plaintext | base64 -d)" hello
is generate-data-key "$(kms generate-data-key --key-id "$key" --key-spec AES_256 --query Plaintext | base64 -d | wc -c)" 32
check generate-data-key-without-plaintext kms generate-data-key-without-plaintext --key-id "$key" --number-of-bytes 64
is generate-random "$(kms generate-random --number-of-bytes 1024 --query Plaintext | base64 -d | wc -c)" 1024

refused 'another key' Decrypt IncorrectKeyException 'The key ID in the request does not identify a CMK that can perform this operation.' \
	decrypt --ciphertext-blob "fileb://$WORK/sealed" --key-id "$other"
refused 'an unknown alias' Encrypt NotFoundException "Alias ${prefix}alias/none is not found." encrypt --key-id alias/none --plaintext "fileb://$WORK/hello"
refused 'no key id' DescribeKey NotFoundException "Invalid keyId 'fake'" describe-key --key-id fake
refused 'too many random bytes' GenerateRandom ValidationException \
	"1 validation error detected: Value '1025' at 'numberOfBytes' failed to satisfy constraint: Member must have value less than or equal to 1024" generate-random --number-of-bytes 1025
refused 'the alias again' CreateAlias AlreadyExistsException "An alias with the name ${prefix}alias/cli already exists" create-alias --alias-name alias/cli --target-key-id "$key"
refused 'an operation that is not there' GetPublicKey UnsupportedOperationException 'The operation is not supported.' get-public-key --key-id "$key"

for i in 1 2 3 4 5; do kms create-alias --alias-name "alias/cli-$i" --target-key-id "$other"; done
is 'list-aliases by pages' "$(kms list-aliases --key-id "$other" --page-size 2 --query 'Aliases[].AliasName' | tr '\t\n' '  ' | tr -s ' ')" 'alias/cli-1 alias/cli-2 alias/cli-3 alias/cli-4 alias/cli-5 '
listed=$(kms list-keys --page-size 1 --query 'Keys[].KeyId' | tr '\t' '\n')
is 'list-keys by pages' "$(echo "$listed" | grep -cx -e "$key" -e "$other") $(echo "$listed" | sort | uniq -d | wc -l)" '2 0'
kms update-alias --alias-name alias/cli --target-key-id "$other"
is update-alias "$(kms describe-key --key-id alias/cli --query KeyMetadata.KeyId)" "$other"
check delete-alias kms delete-alias --alias-name alias/cli
check update-key-description kms update-key-description --key-id "$key" --description 'another one'

check disable-key kms disable-key --key-id "$key"
refused 'a disabled key' Decrypt DisabledException "${prefix}key/$key is disabled." decrypt --ciphertext-blob "fileb://$WORK/sealed"
is schedule-key-deletion "$(kms schedule-key-deletion --key-id "$key" --pending-window-in-days 7 --query '[KeyId,KeyState,PendingWindowInDays]' | tr '\t' ' ')" "${prefix}key/$key PendingDeletion 7"
refused 'a key pending deletion' Decrypt KMSInvalidStateException "${prefix}key/$key is pending deletion." decrypt --ciphertext-blob "fileb://$WORK/sealed"
is cancel-key-deletion "$(kms cancel-key-deletion --key-id "$key" --query KeyId)" "${prefix}key/$key"
check enable-key kms enable-key --key-id "$key"
is 'used again' "$(kms decrypt --ciphertext-blob "fileb://$WORK/sealed" --query Plaintext | base64 -d)" hello

root=arn:aws:iam::$STRONGROOM_ACCOUNT:root
is get-caller-identity "$("${AWS_CLI:-/usr/bin/aws}" --endpoint-url "$AWS_ENDPOINT_URL_STS" --output text sts get-caller-identity --query '[Account,Arn,UserId]' | tr '\t' ' ')" \
	"$STRONGROOM_ACCOUNT $root $STRONGROOM_ACCOUNT"
is 'the default key policy' "$(kms get-key-policy --key-id "$key" --policy-name default --query Policy)" "{
  \"Version\" : \"2012-10-17\",
  \"Id\" : \"key-default-1\",
  \"Statement\" : [ {
    \"Sid\" : \"Enable IAM User Permissions\",
    \"Effect\" : \"Allow\",
    \"Principal\" : {
      \"AWS\" : \"$root\"
    },
    \"Action\" : \"kms:*\",
    \"Resource\" : \"*\"
  } ]
}"
is list-key-policies "$(kms list-key-policies --key-id "$key" --query PolicyNames)" default
cat >"$WORK/policy" <<END
{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Principal":{"AWS":"$root"},"Action":"kms:*","Resource":"*"},
 {"Effect":"Deny","Principal":{"AWS":"*"},"Action":"kms:GenerateDataKeyPair*","Resource":"*","Condition":{"StringNotLike":{"kms:DataKeyPairSpec":"ECC_*"}}}]}
END
check put-key-policy kms put-key-policy --key-id "$key" --policy-name default --policy "file://$WORK/policy"
denied="User: $root is not authorized to perform: kms:GenerateDataKeyPair on resource: ${prefix}key/$key with an explicit deny in a resource-based policy"
refused 'a pair that the policy denies' GenerateDataKeyPair AccessDeniedException "$denied" generate-data-key-pair --key-id "$key" --key-pair-spec RSA_2048
check 'a pair that it does not deny' kms generate-data-key-pair --key-id "$key" --key-pair-spec ECC_NIST_P256
refused 'a policy of another name' PutKeyPolicy NotFoundException 'No such policy exists' put-key-policy --key-id "$key" --policy-name other --policy "file://$WORK/policy"
echo '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"kms:Encrypt","Resource":"*"}]}' >"$WORK/policy"
refused 'a policy that locks out' PutKeyPolicy MalformedPolicyDocumentException 'The new key policy will not allow you to update the key policy in the future.' \
	put-key-policy --key-id "$key" --policy-name default --policy "file://$WORK/policy"

admin() { "$STRONGROOM" "$@" --dir "$STRONGROOM_DIR" 2>/dev/null; }
# as FILE COMMAND… runs a command with the credentials in FILE.
as() (
	. "$WORK/$1"
	shift
	"$@"
)
check 'user create' admin user create cli --account "$STRONGROOM_ACCOUNT"
admin access-key create --user cli --account "$STRONGROOM_ACCOUNT" >"$WORK/user.env"
check 'role create' admin role create cli --account "$STRONGROOM_ACCOUNT"
admin session --role cli --account "$STRONGROOM_ACCOUNT" --name shell >"$WORK/role.env"
sleep 1.2
grantee=arn:aws:iam::$STRONGROOM_ACCOUNT:user/cli
is 'get-caller-identity in a session' "$(as role.env "${AWS_CLI:-/usr/bin/aws}" --endpoint-url "$AWS_ENDPOINT_URL_STS" --output text sts get-caller-identity --query Arn)" \
	"arn:aws:sts::$STRONGROOM_ACCOUNT:assumed-role/cli/shell"
as user.env refused 'a user without a grant' Encrypt AccessDeniedException \
	"User: $grantee is not authorized to perform: kms:Encrypt on resource: ${prefix}key/$other because no identity-based policy allows the kms:Encrypt action" \
	encrypt --key-id "$other" --plaintext "fileb://$WORK/hello"
set -- $(kms create-grant --key-id "$other" --grantee-principal "$grantee" --retiring-principal "$root" --operations Encrypt Decrypt --name first \
	--constraints EncryptionContextSubset={Tenant=42} --query '[GrantId,GrantToken]')
grant=$1 token=$2
check create-grant expr "$grant" : '^[0-9a-f]\{64\}$'
is list-grants "$(kms list-grants --key-id "$other" --query 'Grants[].[KeyId,GrantId,Name,GranteePrincipal,IssuingAccount,Constraints.EncryptionContextSubset.Tenant]' | tr '\t' ' ')" \
	"${prefix}key/$other $grant first $grantee $root 42"
is list-retirable-grants "$(kms list-retirable-grants --retiring-principal "$root" --query 'Grants[].GrantId')" "$grant"
as user.env kms encrypt --key-id "$other" --plaintext "fileb://$WORK/hello" --encryption-context "$context" --grant-tokens "$token" --query CiphertextBlob | decoded granted
is 'a user with a grant' "$(as user.env kms decrypt --ciphertext-blob "fileb://$WORK/granted" --encryption-context "$context" --query Plaintext | base64 -d)" hello
as user.env refused 'without the context of the grant' Encrypt AccessDeniedException \
	"User: $grantee is not authorized to perform: kms:Encrypt on resource: ${prefix}key/$other because no identity-based policy allows the kms:Encrypt action" \
	encrypt --key-id "$other" --plaintext "fileb://$WORK/hello" --encryption-context Tenant=43
refused 'only CreateGrant' CreateGrant ValidationException 'Grants must not contain only the CreateGrant operation.' create-grant --key-id "$other" --grantee-principal "$grantee" --operations CreateGrant
check 'retire-grant' kms retire-grant --grant-token "$token"
refused 'revoke-grant of what is retired' RevokeGrant NotFoundException "Grant ID $grant not found" revoke-grant --key-id "$other" --grant-id "$grant"
grant=$(kms create-grant --key-id "$other" --grantee-principal "arn:aws:iam::$STRONGROOM_ACCOUNT:role/cli" --operations DescribeKey --query GrantId)
is 'a session with a grant' "$(as role.env kms describe-key --key-id "$other" --query KeyMetadata.Arn)" "${prefix}key/$other"
check revoke-grant kms revoke-grant --key-id "$other" --grant-id "$grant"
is 'no grants' "$(kms list-grants --key-id "$other" --query 'length(Grants)')" 0

is 'tags of create-key' "$(kms list-resource-tags --key-id "$key" --query 'Tags[].[TagKey,TagValue]' | tr '\t' ' ')" 'a b'
check tag-resource kms tag-resource --key-id "$key" --tags TagKey=a,TagValue=c TagKey=d,TagValue=e TagKey=f,TagValue=g
is 'list-resource-tags by pages' "$(kms list-resource-tags --key-id "$key" --page-size 1 --query 'Tags[].[TagKey,TagValue]' | tr '\t\n' '  ')" 'a c d e f g '
refused 'a tag of AWS' TagResource TagException 'Tags beginning with aws: are reserved' tag-resource --key-id "$key" --tags TagKey=AWS:x,TagValue=y
check untag-resource kms untag-resource --key-id "$key" --tag-keys a d
is 'what is left' "$(kms list-resource-tags --key-id "$key" --query 'Tags[].TagKey')" f

is 'no rotation' "$(kms get-key-rotation-status --key-id "$key" --query KeyRotationEnabled)" False
check enable-key-rotation kms enable-key-rotation --key-id "$key"
is get-key-rotation-status "$(kms get-key-rotation-status --key-id "$key" --query KeyRotationEnabled)" True
check disable-key-rotation kms disable-key-rotation --key-id "$key"
is 'no rotation again' "$(kms get-key-rotation-status --key-id "$key" --query KeyRotationEnabled)" False
if "${AWS_CLI:-/usr/bin/aws}" kms rotate-key-on-demand help >/dev/null 2>&1; then # older versions do not know it
	is rotate-key-on-demand "$(kms rotate-key-on-demand --key-id "$key" --query KeyId)" "${prefix}key/$key"
	is list-key-rotations "$(kms list-key-rotations --key-id "$key" --query 'Rotations[].RotationType')" ON_DEMAND
	is 'used after rotation' "$(kms decrypt --ciphertext-blob "fileb://$WORK/sealed" --query Plaintext | base64 -d)" hello
fi
echo done
