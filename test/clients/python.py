"""What a Python program does with AWS KMS, through the stock boto3, against the server that the environment names."""

import os
import re
import subprocess
import tempfile

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

SPECS = [
    "RSA_2048", "RSA_3072", "RSA_4096", "ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521", "ECC_SECG_P256K1", "SM2",
    "ECC_NIST_EDWARDS25519",
]

kms = boto3.client(
    "kms",
    endpoint_url=os.environ["AWS_ENDPOINT_URL_KMS"],  # older versions do not read it themselves
    config=Config(retries={"max_attempts": 0}),
)


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
stranger = boto3.client("kms", endpoint_url=os.environ["AWS_ENDPOINT_URL_KMS"], aws_access_key_id="AKIAIOSFODNN7EXAMPLE", aws_secret_access_key="x")
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
print("done")
