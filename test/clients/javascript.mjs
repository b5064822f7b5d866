// What a JavaScript program does with AWS KMS, through the stock SDK, against the server that the environment names.

import { execFileSync } from 'node:child_process'
import { createPrivateKey, createPublicKey } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as sdk from '@aws-sdk/client-kms'

const kms = new sdk.KMSClient({ maxAttempts: 1 }) // the endpoint comes from AWS_ENDPOINT_URL_KMS
const run = (operation, input = {}) => kms.send(new sdk[`${operation}Command`](input))

function check(what, right, saw = '') {
  console.log(right ? `ok ${what}` : `FAILED ${what}: ${JSON.stringify(saw)}`)
}

// The operation fails with the error of this name and this message, and the SDK knows it by its class if the API has one.
async function refused(what, name, message, operation, input, status = 400) {
  try {
    check(what, false, await run(operation, input))
  } catch (e) {
    const saw = [e.name, e.message, e.$metadata?.httpStatusCode]
    check(what, saw.join('|') === [name, message, status].join('|') && e instanceof (sdk[name] ?? sdk.KMSServiceException), saw)
  }
}

const text = (bytes) => Buffer.from(bytes).toString()
const same = (a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)) === 0

// OpenSSL finds the private key valid and derives the public one from it.
function openssl(privateKey, publicKey) {
  const file = join(process.env.WORK, 'javascript.der')
  writeFileSync(file, privateKey, { mode: 0o600 })
  const key = ['pkey', '-inform', 'DER', '-in', file]
  const valid = execFileSync('openssl', [...key, '-check', '-noout'], { encoding: 'utf8' })
  return valid.includes('Key is valid') && same(execFileSync('openssl', [...key, '-pubout', '-outform', 'DER']), publicKey)
}

// Node's own crypto reads it, too.
function node(privateKey, publicKey) {
  const key = createPrivateKey({ key: Buffer.from(privateKey), format: 'der', type: 'pkcs8' })
  return same(createPublicKey(key).export({ format: 'der', type: 'spki' }), publicKey)
}

const { KeyMetadata: key } = await run('CreateKey', { Description: 'for JavaScript', Tags: [{ TagKey: 'a', TagValue: 'b' }] })
const prefix = `arn:aws:kms:${process.env.AWS_REGION}:${process.env.STRONGROOM_ACCOUNT}:`
check('CreateKey', key.Arn === `${prefix}key/${key.KeyId}` && key.KeyState === 'Enabled' && key.CreationDate instanceof Date, key)
await run('CreateAlias', { AliasName: 'alias/javascript', TargetKeyId: key.KeyId })
for (const id of [key.KeyId, key.Arn, 'alias/javascript', `${prefix}alias/javascript`]) {
  const { KeyMetadata: described } = await run('DescribeKey', { KeyId: id })
  check(`DescribeKey ${id}`, JSON.stringify(described) === JSON.stringify(key), described)
}

const context = { Tenant: '42', 部署: '東京' }
for (const spec of Object.values(sdk.DataKeyPairSpec)) {
  if (spec.startsWith('ML_KEM')) continue // of a later API than this server's
  const pair = await run('GenerateDataKeyPair', { KeyId: 'alias/javascript', KeyPairSpec: spec, EncryptionContext: context })
  check(`${spec} pair`, pair.KeyId === key.Arn && pair.KeyPairSpec === spec && /^[0-9a-f]{64}$/.test(pair.KeyMaterialId), pair.KeyId)
  check(`${spec} in OpenSSL`, openssl(pair.PrivateKeyPlaintext, pair.PublicKey))
  check(`${spec} in Node`, node(pair.PrivateKeyPlaintext, pair.PublicKey))
  const blob = pair.PrivateKeyCiphertextBlob
  const opened = await run('Decrypt', { CiphertextBlob: blob, EncryptionContext: context })
  check(`${spec} decrypted`, same(opened.Plaintext, pair.PrivateKeyPlaintext) && opened.KeyId === key.Arn)
  await refused(`${spec} with another context`, 'InvalidCiphertextException', 'UnknownError', 'Decrypt', { CiphertextBlob: blob, EncryptionContext: { tenant: '42' } })
  const later = await run('GenerateDataKeyPairWithoutPlaintext', { KeyId: key.KeyId, KeyPairSpec: spec, EncryptionContext: context })
  const { Plaintext: hidden } = await run('Decrypt', { CiphertextBlob: later.PrivateKeyCiphertextBlob, EncryptionContext: context })
  check(`${spec} without plaintext`, later.PrivateKeyPlaintext === undefined && openssl(hidden, later.PublicKey))
}

const { CiphertextBlob: sealed } = await run('Encrypt', { KeyId: key.KeyId, Plaintext: Buffer.from('hello') })
check('Encrypt and Decrypt', text((await run('Decrypt', { CiphertextBlob: sealed, KeyId: 'alias/javascript' })).Plaintext) === 'hello')
const { KeyMetadata: other } = await run('CreateKey', { MultiRegion: true })
check('CreateKey of many Regions', other.MultiRegion && other.KeyId.startsWith('mrk-'), other)
const moved = await run('ReEncrypt', { CiphertextBlob: sealed, DestinationKeyId: other.KeyId, DestinationEncryptionContext: context })
check('ReEncrypt', moved.KeyId === other.Arn && moved.SourceKeyId === key.Arn, moved)
check('after ReEncrypt', text((await run('Decrypt', { CiphertextBlob: moved.CiphertextBlob, EncryptionContext: context })).Plaintext) === 'hello')
const data = await run('GenerateDataKey', { KeyId: key.KeyId, KeySpec: 'AES_128', EncryptionContext: context })
check('GenerateDataKey', data.Plaintext.length === 16 && same((await run('Decrypt', { CiphertextBlob: data.CiphertextBlob, EncryptionContext: context })).Plaintext, data.Plaintext))
const without = await run('GenerateDataKeyWithoutPlaintext', { KeyId: key.KeyId, NumberOfBytes: 1024 })
check('GenerateDataKeyWithoutPlaintext', (await run('Decrypt', { CiphertextBlob: without.CiphertextBlob })).Plaintext.length === 1024)
check('GenerateRandom', (await run('GenerateRandom', { NumberOfBytes: 1024 })).Plaintext.length === 1024)

const damaged = Uint8Array.from(sealed)
damaged[damaged.length - 1] ^= 1
await refused('a damaged ciphertext', 'InvalidCiphertextException', 'UnknownError', 'Decrypt', { CiphertextBlob: damaged })
await refused('another key', 'IncorrectKeyException', 'The key ID in the request does not identify a CMK that can perform this operation.', 'Decrypt', { CiphertextBlob: sealed, KeyId: other.KeyId })
await refused('an unknown alias', 'NotFoundException', `Alias ${prefix}alias/none is not found.`, 'Encrypt', { KeyId: 'alias/none', Plaintext: Buffer.from('x') })
await refused('no key id', 'NotFoundException', "Invalid keyId 'fake'", 'DescribeKey', { KeyId: 'fake' })
await refused('a malformed ARN', 'InvalidArnException', 'Invalid arn', 'DescribeKey', { KeyId: 'arn:x' })
await refused('an unknown data key spec', 'ValidationException',
  "1 validation error detected: Value 'AES_512' at 'keySpec' failed to satisfy constraint: Member must satisfy enum value set: [AES_256, AES_128]", 'GenerateDataKey', { KeyId: key.KeyId, KeySpec: 'AES_512' })
await refused('the alias again', 'AlreadyExistsException', `An alias with the name ${prefix}alias/javascript already exists`, 'CreateAlias', { AliasName: 'alias/javascript', TargetKeyId: key.KeyId })
await refused('a dry run', 'DryRunOperationException', 'The request would have succeeded, but the DryRun option is set.', 'GenerateDataKeyPair', { KeyId: key.KeyId, KeyPairSpec: 'RSA_2048', DryRun: true })
await refused('a recipient without a document', 'ValidationException', 'KMS cannot parse the attestation document.', 'GenerateRandom',
  { NumberOfBytes: 32, Recipient: { KeyEncryptionAlgorithm: 'RSAES_OAEP_SHA_256', AttestationDocument: Buffer.from('x') } })
await refused('an operation that is not there', 'UnsupportedOperationException', 'The operation is not supported.', 'GetPublicKey', { KeyId: key.KeyId })

// Answers that only the recipient can read. The documents are signed by the rig's own root; OpenSSL opens the envelopes.
const recipientKey = join(process.env.WORK, 'recipient.pem')
const attested = (input, ...flags) => ({
  ...input,
  Recipient: {
    KeyEncryptionAlgorithm: 'RSAES_OAEP_SHA_256',
    AttestationDocument: execFileSync(process.env.STRONGROOM, ['attest', 'make', '--dev', process.env.STRONGROOM_DIR, '--key', recipientKey, ...flags]),
  },
})
const opened = (envelope) => execFileSync('openssl', ['cms', '-decrypt', '-inform', 'DER', '-binary', '-inkey', recipientKey], { input: envelope })
const none = (answer) => !('Plaintext' in answer) && !('PrivateKeyPlaintext' in answer)
const forEnclave = await run('Decrypt', attested({ CiphertextBlob: sealed }))
check('Decrypt for a recipient', text(opened(forEnclave.CiphertextForRecipient)) === 'hello' && none(forEnclave) && !('KeyMaterialId' in forEnclave), Object.keys(forEnclave))
const pairForTPM = await run('GenerateDataKeyPair', attested({ KeyId: key.KeyId, KeyPairSpec: 'RSA_2048' }, '--kind', 'nitrotpm'))
check('GenerateDataKeyPair for a recipient', openssl(opened(pairForTPM.CiphertextForRecipient), pairForTPM.PublicKey) && none(pairForTPM), Object.keys(pairForTPM))
const dataForEnclave = await run('GenerateDataKey', attested({ KeyId: key.KeyId, NumberOfBytes: 1024 }))
check('GenerateDataKey for a recipient', same(opened(dataForEnclave.CiphertextForRecipient), (await run('Decrypt', { CiphertextBlob: dataForEnclave.CiphertextBlob })).Plaintext) && none(dataForEnclave))
const randomForEnclave = await run('GenerateRandom', attested({ NumberOfBytes: 33 }))
check('GenerateRandom for a recipient', opened(randomForEnclave.CiphertextForRecipient).length === 33 && none(randomForEnclave))
await refused('an old document', 'ValidationException', 'The attestation document has exceeded the five-minute age limit.', 'GenerateRandom', attested({ NumberOfBytes: 32 }, '--at', '301s'))
await refused('a debug enclave', 'ValidationException', 'The attestation document comes from an enclave in debug mode.', 'GenerateRandom', attested({ NumberOfBytes: 32 }, '--debug'))

for (let i = 0; i < 5; i++) await run('CreateAlias', { AliasName: `alias/javascript-${i}`, TargetKeyId: other.KeyId })
const names = []
for await (const page of sdk.paginateListAliases({ client: kms, pageSize: 2 }, { KeyId: other.KeyId })) names.push(...page.Aliases.map((a) => a.AliasName))
check('ListAliases by pages', names.join() === [0, 1, 2, 3, 4].map((i) => `alias/javascript-${i}`).join(), names)
const ids = []
for await (const page of sdk.paginateListKeys({ client: kms, pageSize: 1 }, {})) ids.push(...page.Keys.map((k) => k.KeyId))
check('ListKeys by pages', new Set(ids).size === ids.length && ids.includes(key.KeyId) && ids.includes(other.KeyId), ids)
await run('UpdateAlias', { AliasName: 'alias/javascript', TargetKeyId: other.KeyId })
check('UpdateAlias', (await run('DescribeKey', { KeyId: 'alias/javascript' })).KeyMetadata.KeyId === other.KeyId)
await run('DeleteAlias', { AliasName: 'alias/javascript' })
await refused('a deleted alias', 'NotFoundException', `Alias ${prefix}alias/javascript is not found.`, 'DescribeKey', { KeyId: 'alias/javascript' })
await run('UpdateKeyDescription', { KeyId: key.KeyId, Description: '日本' })
check('UpdateKeyDescription', (await run('DescribeKey', { KeyId: key.KeyId })).KeyMetadata.Description === '日本')

await run('DisableKey', { KeyId: key.KeyId })
await refused('a disabled key', 'DisabledException', `${key.Arn} is disabled.`, 'Decrypt', { CiphertextBlob: sealed })
const scheduled = await run('ScheduleKeyDeletion', { KeyId: key.KeyId, PendingWindowInDays: 7 })
check('ScheduleKeyDeletion', scheduled.KeyId === key.Arn && scheduled.KeyState === 'PendingDeletion' && Math.round((scheduled.DeletionDate - Date.now()) / 86_400_000) === 7, scheduled)
await refused('a key pending deletion', 'KMSInvalidStateException', `${key.Arn} is pending deletion.`, 'Decrypt', { CiphertextBlob: sealed })
check('CancelKeyDeletion', (await run('CancelKeyDeletion', { KeyId: key.KeyId })).KeyId === key.Arn)
await run('EnableKey', { KeyId: key.KeyId })
check('used again', text((await run('Decrypt', { CiphertextBlob: sealed })).Plaintext) === 'hello')
console.log('done')
