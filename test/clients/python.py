"""What a Python program does with AWS KMS, through the stock boto3, against the server that the environment names."""

import datetime
import json
import os
import re
import subprocess
import tempfile
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

SPECS = [
    "RSA_2048", "RSA_3072", "RSA_4096", "ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521", "ECC_SECG_P256K1", "SM2",
    "ECC_NIST_EDWARDS25519",
]

session = boto3.session.Session()


def teach(session):
    """An older boto3 learns the members and operations that the API has got since."""
    model = session._session.get_component("data_loader").load_service_model("kms", "service-2", api_version=None)
    shapes, operations = model["shapes"], model["operations"]

    def shape(name, kind, members):
        shapes.setdefault(name, {"type": kind, "members": {k: {"shape": v} for k, v in members.items()}})

    shapes.setdefault("NullableBooleanType", {"type": "boolean"})
    shapes.setdefault("RotationPeriodInDaysType", {"type": "integer"})
    for name in ("CreateGrant", "RetireGrant", "RevokeGrant", "Decrypt", "Encrypt", "ReEncrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext",
                 "GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext"):
        shapes[name + "Request"]["members"].setdefault("DryRun", {"shape": "NullableBooleanType"})
    shapes["EnableKeyRotationRequest"]["members"].setdefault("RotationPeriodInDays", {"shape": "RotationPeriodInDaysType"})
    for member, kind in {"KeyId": "KeyIdType", "RotationPeriodInDays": "RotationPeriodInDaysType", "NextRotationDate": "DateType", "OnDemandRotationStartDate": "DateType"}.items():
        shapes["GetKeyRotationStatusResponse"]["members"].setdefault(member, {"shape": kind})
    shapes["GetKeyPolicyResponse"]["members"].setdefault("PolicyName", {"shape": "PolicyNameType"})
    for name in ("GetKeyPolicy", "PutKeyPolicy"):
        request = shapes[name + "Request"]
        request["required"] = [r for r in request["required"] if r != "PolicyName"]
    text = "KeyIdType"  # any string shape
    shape("RotateKeyOnDemandRequest", "structure", {"KeyId": text})
    shape("RotateKeyOnDemandResponse", "structure", {"KeyId": text})
    shape("ListKeyRotationsRequest", "structure", {"KeyId": text, "IncludeKeyMaterial": text, "Limit": "LimitType", "Marker": text})
    shape("RotationsListEntry", "structure", {"KeyId": text, "KeyMaterialId": text, "KeyMaterialState": text, "RotationDate": "DateType", "RotationType": text})
    shapes.setdefault("RotationsList", {"type": "list", "member": {"shape": "RotationsListEntry"}})
    shape("ListKeyRotationsResponse", "structure", {"Rotations": "RotationsList", "NextMarker": text, "Truncated": "BooleanType"})
    shape("KeyLastUsageData", "structure", {"Operation": text, "Timestamp": "DateType", "CloudTrailEventId": text, "KmsRequestId": text})
    shape("GetKeyLastUsageRequest", "structure", {"KeyId": text})
    shape("GetKeyLastUsageResponse", "structure", {"KeyId": text, "KeyLastUsage": "KeyLastUsageData", "TrackingStartDate": "DateType", "KeyCreationDate": "DateType"})
    for name in ("RotateKeyOnDemand", "ListKeyRotations", "GetKeyLastUsage"):
        operations.setdefault(name, {"name": name, "http": {"method": "POST", "requestUri": "/"}, "input": {"shape": name + "Request"}, "output": {"shape": name + "Response"}})


def connect(credentials=None, service="kms"):
    """A client: of the server's administrator, or of an access key or a session as the administrator's commands print them with --json."""
    given = credentials or {}
    return session.client(
        service,
        endpoint_url=os.environ["AWS_ENDPOINT_URL_" + service.upper()],  # older versions do not read it themselves
        config=Config(retries={"max_attempts": 0}, parameter_validation=service != "kms"),
        aws_access_key_id=given.get("AccessKeyId"),
        aws_secret_access_key=given.get("SecretAccessKey"),
        aws_session_token=given.get("SessionToken"),
    )


teach(session)
kms = connect()


def check(what, right, saw=""):
    print("ok " + what if right else f"FAILED {what}: {saw!r}", flush=True)


def refused(what, code, message, call, status=400, **arguments):
    """The call fails with the code and the message, and boto3 knows the exception by its name if the API has it."""
    try:
        kind = getattr(kms.exceptions, code)
    except AttributeError:
        kind = ClientError
    try:
        saw = call(**arguments)
    except ClientError as e:
        error = e.response["Error"]
        saw = (error["Code"], error.get("Message", ""), e.response["ResponseMetadata"]["HTTPStatusCode"])
        check(what, saw == (code, message, status) and type(e) is kind, saw)
    else:
        check(what, False, saw)


def outcome(call, **arguments):
    """What the call answers, or its error with Code and Message."""
    try:
        return call(**arguments)
    except ClientError as e:
        return e.response["Error"]


def openssl(private, public):
    """OpenSSL finds the private key valid and derives the public one from it."""
    with tempfile.NamedTemporaryFile() as f:
        f.write(private)
        f.flush()
        key = ["openssl", "pkey", "-inform", "DER", "-in", f.name]
        valid = subprocess.run(key + ["-check", "-noout"], capture_output=True, text=True)
        derived = subprocess.run(key + ["-pubout", "-outform", "DER"], capture_output=True)
    return "Key is valid" in valid.stdout + valid.stderr and derived.stdout == public


key = kms.create_key(Description="for Python", Tags=[{"TagKey": "a", "TagValue": "b"}])["KeyMetadata"]
key_id, arn = key["KeyId"], key["Arn"]
account, region = os.environ["STRONGROOM_ACCOUNT"], os.environ["AWS_REGION"]
prefix = f"arn:aws:kms:{region}:{account}:"
check("create_key", arn == f"{prefix}key/{key_id}" and key["KeyState"] == "Enabled" and key["Enabled"] is True, key)
check("the date is a date", key["CreationDate"].year > 2000, key["CreationDate"])
check("create_alias", kms.create_alias(AliasName="alias/python", TargetKeyId=key_id)["ResponseMetadata"]["HTTPStatusCode"] == 200)
described = [kms.describe_key(KeyId=i)["KeyMetadata"] for i in (key_id, arn, "alias/python", prefix + "alias/python")]
check("describe_key in four forms", all(d == key for d in described), described)
request_id = kms.list_keys()["ResponseMetadata"]["RequestId"]
check("request id", re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", request_id), request_id)

context = {"Tenant": "42", "部署": "東京"}
for spec in SPECS:
    pair = kms.generate_data_key_pair(KeyId="alias/python", KeyPairSpec=spec, EncryptionContext=context)
    check(f"{spec} pair", pair["KeyId"] == arn and pair["KeyPairSpec"] == spec, pair["KeyId"])
    check(f"{spec} in OpenSSL", openssl(pair["PrivateKeyPlaintext"], pair["PublicKey"]))
    blob = pair["PrivateKeyCiphertextBlob"]
    opened = kms.decrypt(CiphertextBlob=blob, EncryptionContext=context)
    check(f"{spec} decrypted", opened["Plaintext"] == pair["PrivateKeyPlaintext"] and opened["KeyId"] == arn)
    refused(f"{spec} with another context", "InvalidCiphertextException", "", kms.decrypt, CiphertextBlob=blob, EncryptionContext={"tenant": "42"})
    refused(f"{spec} with no context", "InvalidCiphertextException", "", kms.decrypt, CiphertextBlob=blob)
    later = kms.generate_data_key_pair_without_plaintext(KeyId=arn, KeyPairSpec=spec, EncryptionContext=context)
    private = kms.decrypt(CiphertextBlob=later["PrivateKeyCiphertextBlob"], EncryptionContext=context)["Plaintext"]
    check(f"{spec} without plaintext", "PrivateKeyPlaintext" not in later and openssl(private, later["PublicKey"]))

data = kms.generate_data_key(KeyId=key_id, KeySpec="AES_256", EncryptionContext=context)
check("generate_data_key", len(data["Plaintext"]) == 32 and kms.decrypt(CiphertextBlob=data["CiphertextBlob"], EncryptionContext=context)["Plaintext"] == data["Plaintext"])
hidden = kms.generate_data_key_without_plaintext(KeyId=key_id, NumberOfBytes=64)
check("generate_data_key_without_plaintext", len(kms.decrypt(CiphertextBlob=hidden["CiphertextBlob"])["Plaintext"]) == 64)
sealed = kms.encrypt(KeyId=key_id, Plaintext=b"hello")["CiphertextBlob"]
check("encrypt and decrypt", kms.decrypt(CiphertextBlob=sealed, KeyId="alias/python")["Plaintext"] == b"hello")
other = kms.create_key(MultiRegion=True)["KeyMetadata"]
check("create_key of many Regions", other["MultiRegion"] is True and other["KeyId"].startswith("mrk-"), other)
moved = kms.re_encrypt(CiphertextBlob=sealed, DestinationKeyId=other["KeyId"], DestinationEncryptionContext=context)
check("re_encrypt", (moved["SourceKeyId"], moved["KeyId"]) == (arn, other["Arn"]))
check("after re_encrypt", kms.decrypt(CiphertextBlob=moved["CiphertextBlob"], EncryptionContext=context)["Plaintext"] == b"hello")
check("generate_random", len(kms.generate_random(NumberOfBytes=1024)["Plaintext"]) == 1024)

incorrect = "The key ID in the request does not identify a CMK that can perform this operation."
refused("another key", "IncorrectKeyException", incorrect, kms.decrypt, CiphertextBlob=sealed, KeyId=other["KeyId"])
refused("a damaged ciphertext", "InvalidCiphertextException", "", kms.decrypt, CiphertextBlob=sealed[:-1] + bytes([sealed[-1] ^ 1]))
refused("an unknown alias", "NotFoundException", f"Alias {prefix}alias/none is not found.", kms.encrypt, KeyId="alias/none", Plaintext=b"x")
refused("no key id", "NotFoundException", "Invalid keyId 'fake'", kms.describe_key, KeyId="fake")
refused("an unknown pair spec", "ValidationException",
        "1 validation error detected: Value 'RSA_20' at 'keyPairSpec' failed to satisfy constraint: Member must satisfy enum value set: [" + ", ".join(SPECS) + "]",
        kms.generate_data_key_pair, KeyId=key_id, KeyPairSpec="RSA_20")
refused("too much plaintext", "ValidationException",
        "1 validation error detected: Value at 'plaintext' failed to satisfy constraint: Member must have length less than or equal to 4096",
        kms.encrypt, KeyId=key_id, Plaintext=bytes(4097))
refused("random without a number", "ValidationException", "NumberOfBytes is required.", kms.generate_random)
refused("the alias again", "AlreadyExistsException", f"An alias with the name {prefix}alias/python already exists", kms.create_alias, AliasName="alias/python", TargetKeyId=key_id)
refused("sign", "UnsupportedOperationException", "The operation is not supported.", kms.sign, KeyId=key_id, Message=b"x", SigningAlgorithm="ECDSA_SHA_256")
refused("an asymmetric key", "UnsupportedOperationException", "KeySpec RSA_2048 is not supported in this Region", kms.create_key, KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")
refused("a large request", "413", "HTTP content length exceeded 200000 bytes.", kms.encrypt, status=413, KeyId=key_id, Plaintext=b"x", EncryptionContext={"a": "x" * 200_000})
stranger = connect({"AccessKeyId": "AKIAIOSFODNN7EXAMPLE", "SecretAccessKey": "x"})
refused("an unknown access key", "UnrecognizedClientException", "The security token included in the request is invalid.", stranger.list_keys)

for i in range(5):
    kms.create_alias(AliasName=f"alias/python-{i}", TargetKeyId=other["KeyId"])
names = [a["AliasName"] for p in kms.get_paginator("list_aliases").paginate(KeyId=other["KeyId"], PaginationConfig={"PageSize": 2}) for a in p["Aliases"]]
check("list_aliases by pages", names == [f"alias/python-{i}" for i in range(5)], names)
ids = [k["KeyId"] for p in kms.get_paginator("list_keys").paginate(PaginationConfig={"PageSize": 1}) for k in p["Keys"]]
check("list_keys by pages", len(ids) == len(set(ids)) and {key_id, other["KeyId"]} <= set(ids), ids)
kms.update_alias(AliasName="alias/python", TargetKeyId=other["KeyId"])
check("update_alias", kms.describe_key(KeyId="alias/python")["KeyMetadata"]["Arn"] == other["Arn"])
kms.delete_alias(AliasName="alias/python")
refused("a deleted alias", "NotFoundException", f"Alias {prefix}alias/python is not found.", kms.describe_key, KeyId="alias/python")
kms.update_key_description(KeyId=arn, Description="日本")
check("update_key_description", kms.describe_key(KeyId=arn)["KeyMetadata"]["Description"] == "日本")

kms.disable_key(KeyId=arn)
refused("a disabled key", "DisabledException", f"{arn} is disabled.", kms.decrypt, CiphertextBlob=sealed)
kms.enable_key(KeyId=arn)
refused("a key to be saved that is not to be deleted", "KMSInvalidStateException", f"{arn} is not pending deletion.", kms.cancel_key_deletion, KeyId=arn)
scheduled = kms.schedule_key_deletion(KeyId=arn, PendingWindowInDays=7)
check("schedule_key_deletion", scheduled["KeyId"] == arn and (scheduled["DeletionDate"] - key["CreationDate"]).days in (7, 6), scheduled)
refused("a key pending deletion", "KMSInvalidStateException", f"{arn} is pending deletion.", kms.decrypt, CiphertextBlob=sealed)
check("cancel_key_deletion", kms.cancel_key_deletion(KeyId=arn)["KeyId"] == arn)
check("disabled afterwards", kms.describe_key(KeyId=arn)["KeyMetadata"]["KeyState"] == "Disabled")
kms.enable_key(KeyId=arn)
check("used again", kms.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"hello")

# Key policies.
bare_key = "1234abcd-12ab-34cd-56ef-1234567890ab"
no_such_key = f"Key '{prefix}key/{bare_key}' does not exist"
root = f"arn:aws:iam::{account}:root"
default_policy = """{
  "Version" : "2012-10-17",
  "Id" : "key-default-1",
  "Statement" : [ {
    "Sid" : "Enable IAM User Permissions",
    "Effect" : "Allow",
    "Principal" : {
      "AWS" : "%s"
    },
    "Action" : "kms:*",
    "Resource" : "*"
  } ]
}""" % root
got = kms.get_key_policy(KeyId=key_id, PolicyName="default")
check("the default key policy", (got["Policy"], got["PolicyName"]) == (default_policy, "default"), got)
check("get_key_policy without a name", kms.get_key_policy(KeyId=arn)["Policy"] == default_policy)
listed = kms.list_key_policies(KeyId=key_id)
check("list_key_policies", (listed["PolicyNames"], listed["Truncated"]) == (["default"], False) and "NextMarker" not in listed, listed)


def statement(principal, action="kms:*", effect="Allow", **more):
    return {"Effect": effect, "Principal": principal, "Action": action, "Resource": "*", **more}


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Id": "test", "Statement": list(statements)})


delegate = statement({"AWS": root}, Sid="the account")
policy_one = document(delegate, statement({"AWS": root}, "kms:ListAliases", Sid="This is some additional stuff to look special"))
policy_two = document(delegate, statement({"AWS": root}, "kms:ListGrants"))
policy_key = kms.create_key(Policy=policy_one)["KeyMetadata"]
policy_id = policy_key["KeyId"]
check("create_key with a policy", json.loads(kms.get_key_policy(KeyId=policy_id, PolicyName="default")["Policy"]) == json.loads(policy_one))
kms.put_key_policy(KeyId=policy_id, PolicyName="default", Policy=policy_two)
got = kms.get_key_policy(KeyId=policy_id, PolicyName="default")["Policy"]
check("put_key_policy", json.dumps(json.loads(got)) == policy_two, got)
check("the policy comes back as AWS prints it", got.startswith('{\n  "Version" : "2012-10-17",\n  "Id" : "test",\n  "Statement" : [ {\n    "'), got)
kms.put_key_policy(KeyId=policy_id, Policy=document(delegate, statement("*", "kms:Sign")))
got = json.loads(kms.get_key_policy(KeyId=policy_id)["Policy"])
check('a bare "*" comes back as {"AWS":"*"}', got["Statement"][1]["Principal"] == {"AWS": "*"}, got["Statement"][1]["Principal"])
kms.put_key_policy(KeyId=policy_id, Policy=policy_one)
for what, call, more in (("get_key_policy", kms.get_key_policy, {}), ("put_key_policy", kms.put_key_policy, {"Policy": policy_one})):
    refused(f"{what} of another name", "NotFoundException", "No such policy exists", call, KeyId=policy_id, PolicyName="other", **more)
    refused(f"{what} of no key", "NotFoundException", no_such_key, call, KeyId=bare_key, PolicyName="default", **more)
    refused(f"{what} by an alias", "NotFoundException", "Invalid keyId 'alias/x'", call, KeyId="alias/x", PolicyName="default", **more)
refused("list_key_policies of no key", "NotFoundException", no_such_key, kms.list_key_policies, KeyId=bare_key)

lockout = "The new key policy will not allow you to update the key policy in the future."
principals = "Policy contains a statement with one or more invalid principals."
permissive = (
    "OverlyPermissiveCondition: Using the ForAllValues set operator with a single-valued condition key matches requests without the specified "
    "[encryption context or tag] or with an unspecified [encryption context or tag]. To fix, remove ForAllValues."
)
for what, message, policy in (
    ("nobody who may change it", lockout, document(statement({"AWS": root}, "kms:Describe*"))),
    ("a Deny of the change", lockout, document(delegate, statement("*", "kms:PutKeyPolicy", "Deny"))),
    ("only a service", lockout, document(statement({"Service": "s3.amazonaws.com"}))),
    ("a condition that never holds", lockout, document(statement({"AWS": root}, Condition={"StringEquals": {"kms:ViaService": "s3.us-east-1.amazonaws.com"}}))),
    ("no principal", principals, document(delegate, {"Effect": "Allow", "Action": "kms:*", "Resource": "*"})),
    ("a user who is not there", principals, document(delegate, statement({"AWS": f"arn:aws:iam::{account}:user/nobody"}))),
    ("a role who is not there", principals, document(delegate, statement({"AWS": f"arn:aws:iam::{account}:role/nobody"}, "kms:Decrypt", "Deny"))),
    ("a group", principals, document(delegate, statement({"AWS": f"arn:aws:iam::{account}:group/all"}))),
    ("an account that is not there", principals, document(delegate, statement({"AWS": "arn:aws:iam::999988887777:root"}))),
    ("a user by a pattern", principals, document(delegate, statement({"AWS": f"arn:aws:iam::{account}:user/*"}))),
    ("ForAllValues of a pair", permissive, document(delegate, statement({"AWS": root}, "kms:Encrypt", Condition={"ForAllValues:StringEquals": {"kms:EncryptionContext:a": "x"}}))),
):
    refused(f"a policy with {what}", "MalformedPolicyDocumentException", message, kms.put_key_policy, KeyId=policy_id, PolicyName="default", Policy=policy)
    refused(f"a key with {what}", "MalformedPolicyDocumentException", message, kms.create_key, Policy=policy)
for what, policy in (
    ("no JSON", "my policy"), ("an empty object", "{}"), ("a list", "[]"), ("no statement", document()), ("an unknown effect", document(delegate, statement("*", "kms:Sign", "Maybe"))),
    ("an unknown version", '{"Version":"2013-10-17","Statement":[]}'), ("an unknown operator", document(delegate, statement("*", "kms:Sign", Condition={"StringsEqual": {"aws:username": "x"}}))),
    ("text after it", policy_one + " x"),
):
    saw = outcome(kms.put_key_policy, KeyId=policy_id, PolicyName="default", Policy=policy)
    check(f"a document that is {what}", saw.get("Code") == "MalformedPolicyDocumentException", saw)
refused("a policy that is too long", "LimitExceededException", "The key policy is larger than 32768 bytes.", kms.put_key_policy, KeyId=policy_id, Policy=document(delegate) + " " * 32768)
check("nothing of that was put", json.loads(kms.get_key_policy(KeyId=policy_id)["Policy"]) == json.loads(policy_one))
kms.put_key_policy(KeyId=policy_id, Policy=document(statement({"AWS": account}), statement("*", ["kms:unknown", "kms:describestuff"], "Deny")))
check("a Deny of unknown actions denies nothing", kms.describe_key(KeyId=policy_id)["KeyMetadata"]["Arn"] == policy_key["Arn"])
for actions in (["kms:DescribeKey"], ["kms:Describe*"], ["kms:unknown", "KMS:desCribeKey"], "kms:D?scribeKey"):
    kms.put_key_policy(KeyId=policy_id, Policy=document(delegate, statement("*", actions, "Deny")))
    refused(f"a Deny of {actions}", "AccessDeniedException",
            f"User: {root} is not authorized to perform: kms:DescribeKey on resource: {policy_key['Arn']} with an explicit deny in a resource-based policy",
            kms.describe_key, KeyId=policy_id)
kms.put_key_policy(KeyId=policy_id, Policy=document(statement({"AWS": root}, "kms:Describe*")), BypassPolicyLockoutSafetyCheck=True)
refused("a policy after its lockout", "AccessDeniedException",
        f"User: {root} is not authorized to perform: kms:PutKeyPolicy on resource: {policy_key['Arn']} because no resource-based policy allows the kms:PutKeyPolicy action",
        kms.put_key_policy, KeyId=policy_id, Policy=default_policy)

# Other accounts, users, roles: made as an administrator makes them, on the server's host.
program, rig = os.environ["STRONGROOM"], os.environ["STRONGROOM_DIR"]


def admin(*arguments, text=None):
    return subprocess.run([program, *arguments, "--dir", rig], input=text, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def user(name, where=account, *policies):
    made = json.loads(admin("user", "create", name, "--account", where, "--json"))["User"]
    for n, policy in enumerate(policies):
        admin("policy", "put", "--user", name, "--account", where, f"p{n}", "-", text=json.dumps(policy))
    access = json.loads(admin("access-key", "create", "--user", name, "--account", where, "--json"))
    return made, access


def iam(action, resource="*", effect="Allow", **more):
    return {"Version": "2012-10-17", "Statement": [{"Effect": effect, "Action": action, "Resource": resource, **more}]}


foreign_account = "444455556666"
admin("account", "create", foreign_account)
alice, alice_access = user("alice")
bob, bob_access = user("bob", account, iam("kms:*"))
carol, carol_access = user("carol", foreign_account, iam("kms:*"))
dave, dave_access = user("dave", foreign_account)
role = json.loads(admin("role", "create", "app", "--account", account, "--tag", "team=blue", "--json"))["Role"]
role_access = json.loads(admin("session", "--role", "app", "--account", account, "--name", "test", "--json"))
time.sleep(1.2)  # a running server heeds it within a second
as_alice, as_bob, as_carol, as_dave, as_role = map(connect, (alice_access, bob_access, carol_access, dave_access, role_access))

for who, access, saw_arn, saw_id, saw_account in (
    ("root", None, root, account, account), ("a user", alice_access, alice["Arn"], alice["UserId"], account), ("a foreign user", carol_access, carol["Arn"], carol["UserId"], foreign_account),
    ("a session", role_access, f"arn:aws:sts::{account}:assumed-role/app/test", role["RoleId"] + ":test", account),
):
    saw = connect(access, "sts").get_caller_identity()
    check(f"get_caller_identity of {who}", (saw["Arn"], saw["UserId"], saw["Account"]) == (saw_arn, saw_id, saw_account), saw)
wrong = {**role_access, "SessionToken": role_access["SessionToken"][:-8] + "AAAAAAA="}
refused("a session with another token", "UnrecognizedClientException", "The security token included in the request is invalid.", connect(wrong).list_keys)
refused("a session without its token", "UnrecognizedClientException", "The security token included in the request is invalid.", connect({**role_access, "SessionToken": None}).list_keys)
refused("get_caller_identity of nobody", "InvalidClientTokenId", "The security token included in the request is invalid.",
        connect({**alice_access, "AccessKeyId": "AKIAIOSFODNN7EXAMPLE"}, "sts").get_caller_identity, status=403)


def denied(what, who, call, action, resource, why, **arguments):
    """why: identity, resource, deny (of a key policy), identity deny, foreign or blob"""
    foreign = "because the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access"
    end = {
        "identity": f"resource: {resource} because no identity-based policy allows the {action} action",
        "resource": f"resource: {resource} because no resource-based policy allows the {action} action",
        "deny": f"resource: {resource} with an explicit deny in a resource-based policy",
        "identity deny": f"resource: {resource} with an explicit deny in an identity-based policy",
        "foreign": f"this resource {foreign}",
        "blob": f"the resource associated with this ciphertext {foreign}",
    }[why]
    refused(what, "AccessDeniedException", f"User: {who} is not authorized to perform: {action} on {end}", call, **arguments)


shared = kms.create_key(Policy=document(delegate, statement({"AWS": f"arn:aws:iam::{foreign_account}:root"}, ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"])))["KeyMetadata"]
shared_id, shared_arn = shared["KeyId"], shared["Arn"]
own = kms.create_key()["KeyMetadata"]
kms.create_alias(AliasName="alias/shared", TargetKeyId=shared_id)
denied("a user without a policy", alice["Arn"], as_alice.encrypt, "kms:Encrypt", own["Arn"], "identity", KeyId=own["KeyId"], Plaintext=b"x")
denied("list_keys of a user without a policy", alice["Arn"], as_alice.list_keys, "kms:ListKeys", "*", "identity")
denied("create_key of a user without a policy", alice["Arn"], as_alice.create_key, "kms:CreateKey", "*", "identity")
denied("generate_random of a user without a policy", alice["Arn"], as_alice.generate_random, "kms:GenerateRandom", "*", "identity", NumberOfBytes=1)
denied("a session without a policy", f"arn:aws:sts::{account}:assumed-role/app/test", as_role.describe_key, "kms:DescribeKey", own["Arn"], "identity", KeyId=own["KeyId"])
check("a user with a policy", as_bob.encrypt(KeyId=own["KeyId"], Plaintext=b"x")["KeyId"] == own["Arn"])
denied("a foreign user, a key that is not shared", carol["Arn"], as_carol.encrypt, "kms:Encrypt", None, "foreign", KeyId=own["Arn"], Plaintext=b"x")
denied("a foreign user, a key that is not there", carol["Arn"], as_carol.encrypt, "kms:Encrypt", None, "foreign", KeyId=f"{prefix}key/{bare_key}", Plaintext=b"x")
refused("a foreign user, a bare key id", "NotFoundException", f"Key 'arn:aws:kms:{region}:{foreign_account}:key/{shared_id}' does not exist", as_carol.encrypt, KeyId=shared_id, Plaintext=b"x")
refused("a foreign user, a bare alias", "NotFoundException", f"Alias arn:aws:kms:{region}:{foreign_account}:alias/shared is not found.", as_carol.encrypt, KeyId="alias/shared", Plaintext=b"x")
for name in (shared_arn, prefix + "alias/shared"):
    sealed = as_carol.encrypt(KeyId=name, Plaintext=b"across", EncryptionContext={"a": "b"})
    check(f"a foreign user, {name}", sealed["KeyId"] == shared_arn, sealed)
    check("decrypted by the owner", kms.decrypt(CiphertextBlob=sealed["CiphertextBlob"], EncryptionContext={"a": "b"})["Plaintext"] == b"across")
    check("decrypted by the foreign user", as_carol.decrypt(CiphertextBlob=sealed["CiphertextBlob"], EncryptionContext={"a": "b"}, KeyId=name)["Plaintext"] == b"across")
    pair = as_carol.generate_data_key_pair(KeyId=name, KeyPairSpec="ECC_NIST_P256")
    check("a pair of the foreign user", pair["KeyId"] == shared_arn and openssl(pair["PrivateKeyPlaintext"], pair["PublicKey"]))
    check("described by the foreign user", as_carol.describe_key(KeyId=name)["KeyMetadata"]["AWSAccountId"] == account)
saw = outcome(as_carol.decrypt, CiphertextBlob=sealed["CiphertextBlob"], EncryptionContext={"a": "b"}, KeyId=shared_id)
check("a foreign user's decrypt by the bare key id", saw.get("Plaintext") == b"across", saw)
saw = outcome(as_carol.re_encrypt, CiphertextBlob=sealed["CiphertextBlob"], SourceEncryptionContext={"a": "b"}, SourceKeyId=shared_id, DestinationKeyId=shared_arn)
check("a foreign user's re_encrypt by the bare key id", saw.get("SourceKeyId") == shared_arn, saw)
check("a foreign user without a policy", outcome(as_dave.encrypt, KeyId=shared_arn, Plaintext=b"x").get("Code") == "AccessDeniedException")
# What AWS says where the key policy would allow it: quoted by elasticscale.com/cross-account-aws-kms-keys and IAM Identity Center's guide.
for what, who, call in (("a foreign user", dave, as_dave.decrypt), ("a user", alice, as_alice.decrypt)):
    refused(f"{what} without a policy, a ciphertext", "AccessDeniedException",
            f"User: {who['Arn']} is not authorized to perform: kms:Decrypt on the resource associated with this ciphertext because no identity-based policy allows the kms:Decrypt action",
            call, CiphertextBlob=sealed["CiphertextBlob"], EncryptionContext={"a": "b"})
for what, call, more in (
    ("DisableKey", as_carol.disable_key, {}), ("GetKeyPolicy", as_carol.get_key_policy, {}), ("ScheduleKeyDeletion", as_carol.schedule_key_deletion, {}),
    ("TagResource", as_carol.tag_resource, {"Tags": []}), ("ListResourceTags", as_carol.list_resource_tags, {}), ("EnableKeyRotation", as_carol.enable_key_rotation, {}),
):
    saw = outcome(call, KeyId=shared_arn, **more).get("Code")
    check(f"{what} across accounts", saw == "AccessDeniedException", saw)
sealed = kms.encrypt(KeyId=own["KeyId"], Plaintext=b"x")["CiphertextBlob"]
denied("a foreign user, a ciphertext of a key that is not shared", carol["Arn"], as_carol.decrypt, "kms:Decrypt", None, "blob", CiphertextBlob=sealed)

# Grants.
grant_key, other_key = (kms.create_key()["KeyMetadata"] for _ in range(2))
grant_id, grant_arn = grant_key["KeyId"], grant_key["Arn"]
check("no grants", kms.list_grants(KeyId=grant_id)["Grants"] == [])
first = kms.create_grant(KeyId=grant_id, GranteePrincipal=alice["Arn"], Operations=["Decrypt", "Encrypt"], RetiringPrincipal=bob["Arn"])
check("create_grant", re.fullmatch("[0-9a-f]{64}", first["GrantId"]) and 1 <= len(first["GrantToken"]) <= 8192, first)
saw = kms.list_grants(KeyId=grant_id)
entry = saw["Grants"][0]
created = entry.pop("CreationDate")
check("list_grants", saw["Truncated"] is False and len(saw["Grants"]) == 1 and abs((datetime.datetime.now(datetime.timezone.utc) - created).total_seconds()) < 60 and entry == {
    "KeyId": grant_arn, "GrantId": first["GrantId"], "Name": "", "GranteePrincipal": alice["Arn"], "RetiringPrincipal": bob["Arn"], "IssuingAccount": root,
    "Operations": ["Decrypt", "Encrypt"]}, entry)
named = [kms.create_grant(KeyId=k["KeyId"], GranteePrincipal=alice["Arn"], Operations=["Decrypt", "DescribeKey"], Name="TestGrantName") for k in (grant_key, grant_key, other_key)]
check("the same name again", named[0]["GrantId"] == named[1]["GrantId"] and named[0]["GrantToken"] != named[1]["GrantToken"])
check("the same name on two keys", named[2]["GrantId"] != named[0]["GrantId"] and len(kms.list_grants(KeyId=other_key["KeyId"])["Grants"]) == 1)
renamed = kms.create_grant(KeyId=grant_id, GranteePrincipal=alice["Arn"], Operations=["Decrypt"], Name="TestGrantName")
check("the same name, other operations", renamed["GrantId"] != named[0]["GrantId"])
for _ in range(3):
    kms.create_grant(KeyId=grant_id, GranteePrincipal=carol["Arn"], Operations=["GenerateDataKey"])
everything = kms.list_grants(KeyId=grant_id)["Grants"]
check("without a name, every call makes one", len(everything) == len({g["GrantId"] for g in everything}) == 6, everything)
check("list_grants of one", [g["GrantId"] for g in kms.list_grants(KeyId=grant_id, GrantId=first["GrantId"])["Grants"]] == [first["GrantId"]])
check("list_grants of one of another key", kms.list_grants(KeyId=other_key["KeyId"], GrantId=first["GrantId"])["Grants"] == [])
check("list_grants of a grantee", len(kms.list_grants(KeyId=grant_id, GranteePrincipal=carol["Arn"])["Grants"]) == 3)
check("list_grants of another grantee", kms.list_grants(KeyId=grant_id, GranteePrincipal=bob["Arn"])["Grants"] == [])
pages = list(kms.get_paginator("list_grants").paginate(KeyId=grant_id, PaginationConfig={"PageSize": 4}))
check("list_grants by pages", [g["GrantId"] for p in pages for g in p["Grants"]] == [g["GrantId"] for g in everything] and pages[0]["Truncated"] is True and len(pages[0]["Grants"]) == 4, pages)
retirable = [g["GrantId"] for p in kms.get_paginator("list_retirable_grants").paginate(RetiringPrincipal=bob["Arn"]) for g in p["Grants"]]
check("list_retirable_grants", retirable == [first["GrantId"]], retirable)
check("list_retirable_grants of nobody's", kms.list_retirable_grants(RetiringPrincipal=alice["Arn"])["Grants"] == [])
for what, code, message, arguments in (
    ("only CreateGrant", "ValidationException", "Grants must not contain only the CreateGrant operation.", {"Operations": ["CreateGrant"]}),
    ("a bare word for a key", "NotFoundException", "Invalid keyId 'invalid'", {"KeyId": "invalid"}),
    ("an alias for a key", "NotFoundException", "Invalid keyId 'alias/shared'", {"KeyId": "alias/shared"}),
    ("no such key", "NotFoundException", no_such_key, {"KeyId": bare_key}),
    ("a name with a blank", "ValidationException",
     "1 validation error detected: Value 'a b' at 'name' failed to satisfy constraint: Member must satisfy regular expression pattern: ^[a-zA-Z0-9:/_-]+$", {"Name": "a b"}),
    ("a grantee with a blank", "ValidationException",
     "1 validation error detected: Value 'sth else' at 'granteePrincipal' failed to satisfy constraint: Member must satisfy regular expression pattern: ^[\\w+=,.@:/-]+$", {"GranteePrincipal": "sth else"}),
    ("no grantee", "ValidationException", "1 validation error detected: Value null at 'granteePrincipal' failed to satisfy constraint: Member must not be null", {"GranteePrincipal": None}),
    ("a token that is none", "InvalidGrantTokenException", "", {"GrantTokens": ["none"]}),
):
    arguments = {"KeyId": grant_id, "GranteePrincipal": alice["Arn"], "Operations": ["Decrypt"], **arguments}
    refused(f"create_grant with {what}", code, message, kms.create_grant, **{k: v for k, v in arguments.items() if v is not None})
for what, arguments in (("Sign", {"Operations": ["Sign"]}), ("GenerateMac", {"Operations": ["Decrypt", "GenerateMac"]}), ("an unknown operation", {"Operations": ["DECRYPT"]}),
                        ("both constraints", {"Constraints": {"EncryptionContextSubset": {"a": "b"}, "EncryptionContextEquals": {"a": "b"}}})):
    saw = outcome(kms.create_grant, **{"KeyId": grant_id, "GranteePrincipal": alice["Arn"], "Operations": ["Decrypt"], **arguments}).get("Code")
    check(f"create_grant with {what}", saw == "ValidationException", saw)
for grantee in (f"arn:aws:iam::{account}:user/nobody", "nonsense", "s3.amazonaws.com", f"arn:aws:iam::{account}:group/all"):
    for member in ("GranteePrincipal", "RetiringPrincipal"):
        saw = outcome(kms.create_grant, **{"KeyId": grant_id, "GranteePrincipal": alice["Arn"], "Operations": ["Decrypt"], member: grantee}).get("Code")
        check(f"{grantee} as {member}", saw == "InvalidArnException", saw)
refused("list_grants with a bad marker", "InvalidMarkerException", "Could not deserialize marker 'x'", kms.list_grants, KeyId=grant_id, Marker="x")
refused("list_grants with no limit", "ValidationException",
        "1 validation error detected: Value '0' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1", kms.list_grants, KeyId=grant_id, Limit=0)

dry = "The request would have succeeded, but the DryRun option is set."
refused("create_grant, dry", "DryRunOperationException", dry, kms.create_grant, KeyId=grant_id, GranteePrincipal=alice["Arn"], Operations=["Decrypt"], DryRun=True)
refused("create_grant, dry and wrong", "ValidationException", "Grants must not contain only the CreateGrant operation.", kms.create_grant,
        KeyId=grant_id, GranteePrincipal=alice["Arn"], Operations=["CreateGrant"], DryRun=True)
refused("revoke_grant, dry", "DryRunOperationException", dry, kms.revoke_grant, KeyId=grant_id, GrantId=first["GrantId"], DryRun=True)
refused("retire_grant, dry", "DryRunOperationException", dry, as_bob.retire_grant, GrantToken=first["GrantToken"], DryRun=True)
check("nothing of that was done", len(kms.list_grants(KeyId=grant_id)["Grants"]) == 6)
gone = "a" * 64
refused("revoke_grant of no grant", "NotFoundException", f"Grant ID {gone} not found", kms.revoke_grant, KeyId=grant_id, GrantId=gone)
refused("revoke_grant by another key", "NotFoundException", f"Grant ID {first['GrantId']} not found", kms.revoke_grant, KeyId=other_key["KeyId"], GrantId=first["GrantId"])
refused("retire_grant of no token", "InvalidGrantTokenException", "", kms.retire_grant, GrantToken="none")
refused("retire_grant of no grant", "NotFoundException", f"Grant ID {gone} not found", kms.retire_grant, KeyId=grant_arn, GrantId=gone)
for arguments in ({}, {"KeyId": grant_arn}, {"GrantId": first["GrantId"]}):
    saw = outcome(kms.retire_grant, **arguments).get("Code")
    check(f"retire_grant with {sorted(arguments)}", saw == "ValidationException", saw)

sealed = as_alice.encrypt(KeyId=grant_id, Plaintext=b"granted")["CiphertextBlob"]
check("a grant lets its grantee", as_alice.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"granted")
check("a grant with its token", as_alice.decrypt(CiphertextBlob=sealed, GrantTokens=[first["GrantToken"]])["Plaintext"] == b"granted")
check("a grant of DescribeKey", as_alice.describe_key(KeyId=grant_id)["KeyMetadata"]["Arn"] == grant_arn)
denied("what is not granted", alice["Arn"], as_alice.generate_data_key, "kms:GenerateDataKey", grant_arn, "identity", KeyId=grant_id, KeySpec="AES_256")
refused("a grant and a token that is none", "InvalidGrantTokenException", "", as_alice.encrypt, KeyId=grant_id, Plaintext=b"x", GrantTokens=["none"])
refused("a data key, dry", "DryRunOperationException", dry, as_carol.generate_data_key, KeyId=grant_arn, KeySpec="AES_256", DryRun=True)
check("a grant across accounts", len(as_carol.generate_data_key(KeyId=grant_arn, KeySpec="AES_256")["Plaintext"]) == 32)
denied("a grant across accounts, of something else", carol["Arn"], as_carol.encrypt, "kms:Encrypt", None, "foreign", KeyId=grant_arn, Plaintext=b"x")
denied("what is not granted, dry", alice["Arn"], as_alice.generate_data_key_pair, "kms:GenerateDataKeyPair", grant_arn, "identity", KeyId=grant_id, KeyPairSpec="RSA_2048", DryRun=True)
kms.create_grant(KeyId=grant_id, GranteePrincipal=role["Arn"], Operations=["GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext", "GenerateDataKeyWithoutPlaintext", "Decrypt"])
pair = as_role.generate_data_key_pair(KeyId=grant_id, KeyPairSpec="ECC_NIST_P384")
check("a pair by a grant to a role", pair["KeyId"] == grant_arn and as_role.decrypt(CiphertextBlob=pair["PrivateKeyCiphertextBlob"])["Plaintext"] == pair["PrivateKeyPlaintext"])
for name, more in (("generate_data_key_pair", {"KeyPairSpec": "RSA_4096"}), ("generate_data_key_pair_without_plaintext", {"KeyPairSpec": "SM2"}), ("generate_data_key_without_plaintext", {"NumberOfBytes": 8})):
    refused(f"{name} by a grant, dry", "DryRunOperationException", dry, getattr(as_role, name), KeyId=grant_id, DryRun=True, **more)
refused("a dry pair of an unknown spec", "ValidationException",
        "1 validation error detected: Value 'RSA_20' at 'keyPairSpec' failed to satisfy constraint: Member must satisfy enum value set: [" + ", ".join(SPECS) + "]",
        as_role.generate_data_key_pair, KeyId=grant_id, KeyPairSpec="RSA_20", DryRun=True)

for kind, allowed, not_allowed in (
    ("EncryptionContextSubset", [{"Dept": "IT", "Purpose": "x"}, {"Dept": "IT", "Purpose": "x", "more": "y"}], [{}, {"Dept": "IT"}, {"Dept": "HR", "Purpose": "x"}, {"Dept": "it", "Purpose": "x"}]),
    ("EncryptionContextEquals", [{"Dept": "IT", "Purpose": "x"}, {"Purpose": "x", "Dept": "IT"}], [{}, {"Dept": "IT"}, {"Dept": "IT", "Purpose": "x", "more": "y"}, {"Dept": "IT", "Purpose": "X"}]),
):
    limited = kms.create_key()["KeyMetadata"]
    kms.create_grant(KeyId=limited["KeyId"], GranteePrincipal=alice["Arn"], Operations=["Encrypt", "DescribeKey"], Constraints={kind: {"Dept": "IT", "Purpose": "x"}})
    check(f"{kind} listed", kms.list_grants(KeyId=limited["KeyId"])["Grants"][0]["Constraints"] == {kind: {"Dept": "IT", "Purpose": "x"}})
    for context in allowed:
        check(f"{kind} with {context}", as_alice.encrypt(KeyId=limited["KeyId"], Plaintext=b"x", EncryptionContext=context)["KeyId"] == limited["Arn"])
    for context in not_allowed:
        denied(f"{kind} with {context}", alice["Arn"], as_alice.encrypt, "kms:Encrypt", limited["Arn"], "identity", KeyId=limited["KeyId"], Plaintext=b"x", EncryptionContext=context)
    check(f"{kind} does not limit DescribeKey", as_alice.describe_key(KeyId=limited["KeyId"])["KeyMetadata"]["Arn"] == limited["Arn"])

# A grantee who may make grants makes no wider ones.
kms.create_grant(KeyId=other_key["KeyId"], GranteePrincipal=alice["Arn"], Operations=["CreateGrant", "Encrypt", "Decrypt"], Constraints={"EncryptionContextSubset": {"a": "b"}})
child = {"KeyId": other_key["KeyId"], "GranteePrincipal": dave["Arn"]}
for what, operations, constraints, right in (
    ("the same", ["Encrypt"], {"EncryptionContextSubset": {"a": "b"}}, True), ("one more pair", ["Encrypt"], {"EncryptionContextSubset": {"a": "b", "c": "d"}}, True),
    ("Equals for Subset", ["Encrypt", "Decrypt"], {"EncryptionContextEquals": {"a": "b"}}, True), ("no constraint", ["Encrypt"], None, False),
    ("another pair", ["Encrypt"], {"EncryptionContextSubset": {"c": "d"}}, False), ("another operation", ["GenerateDataKey"], {"EncryptionContextSubset": {"a": "b"}}, False),
):
    saw = outcome(as_alice.create_grant, Operations=operations, **child, **({"Constraints": constraints} if constraints else {}))
    check(f"a grant of a grantee, {what}", "GrantId" in saw if right else saw.get("Code") == "AccessDeniedException", saw)

saw = outcome(as_alice.retire_grant, GrantToken=first["GrantToken"]).get("Code")
check("retire_grant by the grantee without RetireGrant", saw == "AccessDeniedException", saw)
as_bob.retire_grant(GrantToken=first["GrantToken"])
check("retire_grant by its retiring principal", len(kms.list_grants(KeyId=grant_id)["Grants"]) == 6)
refused("retired again", "NotFoundException", f"Grant ID {first['GrantId']} not found", as_bob.retire_grant, GrantToken=first["GrantToken"])
kms.retire_grant(KeyId=grant_arn, GrantId=renamed["GrantId"])
check("retire_grant by the account, by id", len(kms.list_grants(KeyId=grant_id)["Grants"]) == 5)
own_grant = kms.create_grant(KeyId=grant_id, GranteePrincipal=alice["Arn"], Operations=["Decrypt", "RetireGrant"])
as_alice.retire_grant(KeyId=grant_arn, GrantId=own_grant["GrantId"])
check("retire_grant by a grantee who may", len(kms.list_grants(KeyId=grant_id)["Grants"]) == 5)
kms.revoke_grant(KeyId=grant_id, GrantId=named[0]["GrantId"])
check("revoke_grant", len(kms.list_grants(KeyId=grant_id)["Grants"]) == 4)
refused("revoked again", "NotFoundException", f"Grant ID {named[0]['GrantId']} not found", kms.revoke_grant, KeyId=grant_id, GrantId=named[0]["GrantId"])
denied("after the last grant", alice["Arn"], as_alice.decrypt, "kms:Decrypt", grant_arn, "identity", CiphertextBlob=sealed, KeyId=grant_id)
kms.disable_key(KeyId=grant_id)
refused("create_grant on a disabled key", "DisabledException", f"{grant_arn} is disabled.", kms.create_grant, KeyId=grant_id, GranteePrincipal=alice["Arn"], Operations=["Decrypt"])

# Tags.
def tags(**pairs):
    return [{"TagKey": k, "TagValue": v} for k, v in pairs.items()]


tagged = kms.create_key(Tags=tags(tag1="value1", tag2="value2", tag3=""))["KeyMetadata"]
tag_id = tagged["KeyId"]
listed = kms.list_resource_tags(KeyId=tag_id)
check("create_key with tags", sorted(listed["Tags"], key=str) == tags(tag1="value1", tag2="value2", tag3="") and listed["Truncated"] is False, listed)
kms.tag_resource(KeyId=tag_id, Tags=tags(tag4="value4", tag2="updated_value2", Tag2="another"))
saw = {t["TagKey"]: t["TagValue"] for t in kms.list_resource_tags(KeyId=tagged["Arn"])["Tags"]}
check("tag_resource", saw == {"tag1": "value1", "tag2": "updated_value2", "tag3": "", "tag4": "value4", "Tag2": "another"}, saw)
pages = list(kms.get_paginator("list_resource_tags").paginate(KeyId=tag_id, PaginationConfig={"PageSize": 2}))
check("list_resource_tags by pages", [len(p["Tags"]) for p in pages] == [2, 2, 1] and len({t["TagKey"] for p in pages for t in p["Tags"]}) == 5, pages)
kms.untag_resource(KeyId=tag_id, TagKeys=["tag2", "tag2", "nothing"])
check("untag_resource", {t["TagKey"] for t in kms.list_resource_tags(KeyId=tag_id)["Tags"]} == {"tag1", "tag3", "tag4", "Tag2"})
kms.untag_resource(KeyId=tag_id, TagKeys=["tag1", "tag3", "tag4", "Tag2"])
check("all untagged", kms.list_resource_tags(KeyId=tag_id)["Tags"] == [])
many = [{"TagKey": f"key{i}", "TagValue": f"value{i}"} for i in range(51)]
length = "1 validation error detected: Value '{}' at 'tags.1.member.{}' failed to satisfy constraint: Member must have length less than or equal to {}"
for what, code, message, bad in (
    ("a key twice", "TagException", "Duplicate tag keys", [{"TagKey": "tag1", "TagValue": "value1"}, {"TagKey": "tag1", "TagValue": "another-value1"}]),
    ("51 tags", "TagException", "Too many tags", many),
    ("aws:", "TagException", "Tags beginning with aws: are reserved", [{"TagKey": "aws:key1", "TagValue": "value1"}]),
    ("AWS:", "TagException", "Tags beginning with aws: are reserved", [{"TagKey": "AWS:key1", "TagValue": "value1"}]),
    ("Aws:", "TagException", "Tags beginning with aws: are reserved", [{"TagKey": "good", "TagValue": "x"}, {"TagKey": "Aws:key1", "TagValue": "value1"}]),
    ("a long key", "ValidationException", length.format("a" * 129, "tagKey", 128), [{"TagKey": "a" * 129, "TagValue": "value1"}]),
    ("a long value", "ValidationException", length.format("v" * 257, "tagValue", 256), [{"TagKey": "tag1", "TagValue": "v" * 257}]),
):
    refused(f"tag_resource with {what}", code, message, kms.tag_resource, KeyId=tag_id, Tags=bad)
    refused(f"create_key with {what}", code, message, kms.create_key, Tags=bad)
kms.tag_resource(KeyId=tag_id, Tags=many[:50])
check("50 tags", len(kms.list_resource_tags(KeyId=tag_id)["Tags"]) == 50)
refused("one more", "TagException", "Too many tags", kms.tag_resource, KeyId=tag_id, Tags=many[50:])
kms.tag_resource(KeyId=tag_id, Tags=[{"TagKey": "key0", "TagValue": "changed"}])
check("one of 50 changed", {"TagKey": "key0", "TagValue": "changed"} in kms.list_resource_tags(KeyId=tag_id)["Tags"])
for what, call, more in (("tag_resource", kms.tag_resource, {"Tags": tags(a="b")}), ("untag_resource", kms.untag_resource, {"TagKeys": ["a"]}), ("list_resource_tags", kms.list_resource_tags, {})):
    refused(f"{what} of no key", "NotFoundException", no_such_key, call, KeyId=bare_key, **more)
    refused(f"{what} of a bare word", "NotFoundException", "Invalid keyId 'unknown'", call, KeyId="unknown", **more)
    refused(f"{what} of an alias", "NotFoundException", "Invalid keyId 'alias/shared'", call, KeyId="alias/shared", **more)
kms.schedule_key_deletion(KeyId=tag_id)
refused("tag_resource on a key pending deletion", "KMSInvalidStateException", f"{tagged['Arn']} is pending deletion.", kms.tag_resource, KeyId=tag_id, Tags=tags(a="b"))
refused("untag_resource on a key pending deletion", "KMSInvalidStateException", f"{tagged['Arn']} is pending deletion.", kms.untag_resource, KeyId=tag_id, TagKeys=["a"])
check("list_resource_tags of a key pending deletion", len(kms.list_resource_tags(KeyId=tag_id)["Tags"]) == 50)

# Rotation.
turning = kms.create_key()["KeyMetadata"]
turn_id, turn_arn = turning["KeyId"], turning["Arn"]


def status(of=turn_id):
    saw = kms.get_key_rotation_status(KeyId=of)
    saw.pop("ResponseMetadata")
    return saw


check("no rotation at first", status() == {"KeyRotationEnabled": False, "KeyId": turn_arn}, status())
for asked, days in ((None, 365), (90, 90), (180, 180), (2560, 2560), (None, 365)):
    kms.enable_key_rotation(KeyId=turn_id, **({"RotationPeriodInDays": asked} if asked else {}))
    saw = status()
    next_date = saw.pop("NextRotationDate")
    wait = (next_date - datetime.datetime.now(datetime.timezone.utc)).total_seconds() / 86400
    check(f"enable_key_rotation for {asked}", saw == {"KeyRotationEnabled": True, "KeyId": turn_arn, "RotationPeriodInDays": days} and days - 0.1 < wait <= days, (saw, next_date))
for days, rule in ((89, "greater than or equal to 90"), (0, "greater than or equal to 90"), (-1, "greater than or equal to 90"), (2561, "less than or equal to 2560")):
    refused(f"a rotation period of {days}", "ValidationException",
            f"1 validation error detected: Value '{days}' at 'rotationPeriodInDays' failed to satisfy constraint: Member must have value {rule}",
            kms.enable_key_rotation, KeyId=turn_id, RotationPeriodInDays=days)
before_blob = kms.encrypt(KeyId=turn_id, Plaintext=b"before")["CiphertextBlob"]
before, material = status(), kms.describe_key(KeyId=turn_id)["KeyMetadata"].get("CurrentKeyMaterialId")
listed = kms.list_key_rotations(KeyId=turn_id)
check("no rotations", (listed["Rotations"], listed["Truncated"]) == ([], False) and "NextMarker" not in listed, listed)
for _ in range(3):
    check("rotate_key_on_demand", kms.rotate_key_on_demand(KeyId=turn_id)["KeyId"] == turn_arn)
    for _ in range(100):
        if "OnDemandRotationStartDate" not in status():
            break
        time.sleep(0.1)
check("the schedule stays", status() == before, (status(), before))
check("decrypted after rotation", kms.decrypt(CiphertextBlob=before_blob, KeyId=turn_id)["Plaintext"] == b"before")
refused("bad data after rotation", "InvalidCiphertextException", "", kms.decrypt, CiphertextBlob=before_blob + b"bad_data", KeyId=turn_id)
rotations = kms.list_key_rotations(KeyId=turn_id)["Rotations"]
check("list_key_rotations", len(rotations) == 3 and all(
    set(r) == {"KeyId", "KeyMaterialId", "KeyMaterialState", "RotationDate", "RotationType"} and r["RotationType"] == "ON_DEMAND" and r["KeyId"] == turn_arn for r in rotations), rotations)
check("the newest is the current one", sorted(r["KeyMaterialState"] for r in rotations) == ["CURRENT", "NON_CURRENT", "NON_CURRENT"]
      and max(rotations, key=lambda r: r["RotationDate"])["KeyMaterialState"] == "CURRENT", rotations)
all_of_it = kms.list_key_rotations(KeyId=turn_id, IncludeKeyMaterial="ALL_KEY_MATERIAL")["Rotations"]
check("list_key_rotations with the first", len(all_of_it) == 4 and [set(r) for r in all_of_it if "RotationDate" not in r] == [{"KeyId", "KeyMaterialId", "KeyMaterialState"}], all_of_it)
check("list_key_rotations, rotations only", len(kms.list_key_rotations(KeyId=turn_id, IncludeKeyMaterial="ROTATIONS_ONLY")["Rotations"]) == 3)
page = kms.list_key_rotations(KeyId=turn_id, Limit=1)
rest = kms.list_key_rotations(KeyId=turn_id, Limit=2, Marker=page["NextMarker"])
check("list_key_rotations by pages", page["Rotations"] + rest["Rotations"] == rotations and page["Truncated"] is True and rest["Truncated"] is False and "NextMarker" not in rest, (page, rest))
refused("a bad marker", "InvalidMarkerException", "Could not deserialize marker 'x'", kms.list_key_rotations, KeyId=turn_id, Marker="x")
for _ in range(22):
    kms.rotate_key_on_demand(KeyId=turn_id)
refused("the 26th rotation", "LimitExceededException",
        f"The on-demand rotations limit has been reached for the given keyId. No more on-demand rotations can be performed for this key: {turn_arn}", kms.rotate_key_on_demand, KeyId=turn_id)
check("decrypted after 25", kms.decrypt(CiphertextBlob=before_blob)["Plaintext"] == b"before")
kms.disable_key_rotation(KeyId=turn_id)
check("disable_key_rotation", status() == {"KeyRotationEnabled": False, "KeyId": turn_arn}, status())
kms.enable_key_rotation(KeyId=turn_id, RotationPeriodInDays=100)
kms.disable_key(KeyId=turn_id)
check("the status of a disabled key", (status()["KeyRotationEnabled"], status()["RotationPeriodInDays"]) == (True, 100), status())
for call in (kms.enable_key_rotation, kms.disable_key_rotation, kms.rotate_key_on_demand):
    refused(f"{call.__name__} of a disabled key", "DisabledException", f"{turn_arn} is disabled.", call, KeyId=turn_id)
kms.schedule_key_deletion(KeyId=turn_id)
check("the status of a key pending deletion", status() == {"KeyRotationEnabled": False, "KeyId": turn_arn}, status())
for call in (kms.enable_key_rotation, kms.disable_key_rotation, kms.rotate_key_on_demand, kms.schedule_key_deletion):
    refused(f"{call.__name__} of a key pending deletion", "KMSInvalidStateException", f"{turn_arn} is pending deletion.", call, KeyId=turn_id)
kms.cancel_key_deletion(KeyId=turn_id)
check("the status comes back", (status()["KeyRotationEnabled"], status()["RotationPeriodInDays"]) == (True, 100), status())
for call in (kms.enable_key_rotation, kms.disable_key_rotation, kms.get_key_rotation_status, kms.rotate_key_on_demand, kms.list_key_rotations, kms.get_key_last_usage):
    refused(f"{call.__name__} of no key", "NotFoundException", no_such_key, call, KeyId=bare_key)
    refused(f"{call.__name__} of a bare word", "NotFoundException", "Invalid keyId 'some-id'", call, KeyId="some-id")
    refused(f"{call.__name__} of an alias", "NotFoundException", "Invalid keyId 'alias/shared'", call, KeyId="alias/shared")

# The last use.
used = kms.create_key()["KeyMetadata"]
saw = kms.get_key_last_usage(KeyId=used["KeyId"])
check("never used", not saw["KeyLastUsage"] and saw["KeyId"] in (used["Arn"], used["KeyId"]) and saw["KeyCreationDate"] <= saw["TrackingStartDate"], saw)
check("made when it says", abs((saw["KeyCreationDate"] - used["CreationDate"]).total_seconds()) < 1, (saw, used))
kms.describe_key(KeyId=used["KeyId"])
refused("a dry use", "DryRunOperationException", dry, kms.encrypt, KeyId=used["KeyId"], Plaintext=b"x", DryRun=True)
refused("a use that fails", "InvalidCiphertextException", "", kms.decrypt, KeyId=used["KeyId"], CiphertextBlob=b"x" * 100)
check("that was no use", not kms.get_key_last_usage(KeyId=used["KeyId"])["KeyLastUsage"])
for operation, call, more in (("Encrypt", kms.encrypt, {"Plaintext": b"x"}), ("GenerateDataKey", kms.generate_data_key, {"KeySpec": "AES_256"}),
                              ("GenerateDataKeyPairWithoutPlaintext", kms.generate_data_key_pair_without_plaintext, {"KeyPairSpec": "ECC_NIST_P256"})):
    request_id = call(KeyId=used["KeyId"], **more)["ResponseMetadata"]["RequestId"]
    saw = kms.get_key_last_usage(KeyId=used["KeyId"])["KeyLastUsage"]
    check(f"the last use, {operation}", (saw["Operation"], saw["KmsRequestId"]) == (operation, request_id) and re.fullmatch("[0-9a-f-]{36}", saw["CloudTrailEventId"]), saw)

# What an administrator withdraws is refused from the next second on.
admin("access-key", "disable", alice_access["AccessKeyId"])
admin("policy", "put", "--user", "bob", "--account", account, "no", "-", text=json.dumps(iam("kms:Encrypt", effect="Deny")))
admin("access-key", "delete", role_access["AccessKeyId"])
time.sleep(1.2)
invalid = "The security token included in the request is invalid."
refused("a disabled access key", "UnrecognizedClientException", invalid, as_alice.list_keys)
refused("an ended session", "UnrecognizedClientException", invalid, as_role.list_keys)
denied("a Deny of an identity policy", bob["Arn"], as_bob.encrypt, "kms:Encrypt", own["Arn"], "identity deny", KeyId=own["KeyId"], Plaintext=b"x")
admin("access-key", "enable", alice_access["AccessKeyId"])
time.sleep(1.2)
denied("an enabled access key", alice["Arn"], as_alice.list_keys, "kms:ListKeys", "*", "identity")
print("done")
