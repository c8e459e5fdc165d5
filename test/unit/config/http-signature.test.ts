// What the configuration says of RFC 9421 signatures and of replays: keys that fit their algorithm, components that a
// request has, and what a route makes of the gateway's own options.
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { mkdtempSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { describe, expect, test } from 'vitest'
import { compile, type Route } from '../../../src/config/compile.js'
import { componentIdentifier } from '../../../src/config/http-signature.js'
import { ConfigError, type Environment, loadConfig } from '../../../src/config/load.js'
import { KEYS } from '../../support/rfc9421.js'

const load = (config: object, env: Environment = {}) =>
  loadConfig({ text: { origin: 'gw.yaml', yaml: JSON.stringify(config) }, env })

function problemsIn(config: object, env: Environment = {}): string[] {
  try {
    load(config, env)
  } catch (error) {
    if (error instanceof ConfigError) return error.problems.map((problem) => problem.replace(/^gw\.yaml:\d+:\d+: /, ''))
    throw error
  }
  return []
}

const pem = (key: KeyObject): string =>
  String(key.export({ type: key.type === 'private' ? 'pkcs8' : 'spki', format: 'pem' }))
const ed25519 = generateKeyPairSync('ed25519')
const p384 = pem(generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey)
const rsa1024 = pem(generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey)
const pss = (hash: string) =>
  pem(generateKeyPairSync('rsa-pss', { modulusLength: 2048, hashAlgorithm: hash, mgf1HashAlgorithm: hash }).publicKey)

const PUBLIC = pem(ed25519.publicKey)
const GOOD = { algorithm: 'ed25519', publicKey: PUBLIC }

interface Over {
  readonly keys?: object
  readonly consumers?: object
  readonly route?: object
  readonly gateway?: object
}

const configOf = ({ keys = { k: GOOD }, consumers = {}, route = {}, gateway = {} }: Over) => ({
  consumers: { c: { httpSignatureKeys: keys }, ...consumers },
  services: { s: { endpoints: ['http://h'] } },
  routes: [{ match: {}, service: 's', auth: 'http-signature', ...route }],
  ...gateway,
})

const compiled = (over: Over): Route => {
  const { config, settings } = load(configOf(over))
  return compile(config, settings).routes[0] as Route
}

describe('refused, with the key and what would be right:', () => {
  const key = 'consumers.c.httpSignatureKeys.k'
  const cases: [string, Over, ...string[]][] = [
    [
      'a route whose keys nobody has',
      { keys: {} },
      'routes[0].auth: http-signature needs someone who may call: no consumer has httpSignatureKeys',
    ],
    [
      'an algorithm there is not',
      { keys: { k: { ...GOOD, algorithm: 'rsa-v1_5-sha256' } } },
      `${key}.algorithm: must be hmac-sha256, ed25519, ecdsa-p256-sha256 or rsa-pss-sha512`,
    ],
    ['no key', { keys: { k: { algorithm: 'ed25519' } } }, `${key}: needs a publicKey for ed25519`],
    ['no secret', { keys: { k: { algorithm: 'hmac-sha256' } } }, `${key}: needs a secret for hmac-sha256`],
    [
      'a secret for a key pair',
      { keys: { k: { ...GOOD, secret: 'hunter2' } } },
      `${key}.secret: is not for ed25519, which has a publicKey`,
    ],
    [
      'a public key as a secret',
      { keys: { k: { ...GOOD, algorithm: 'hmac-sha256' } } },
      `${key}.publicKey: is not for hmac-sha256, which has a secret`,
    ],
    [
      'a private key',
      { keys: { k: { ...GOOD, publicKey: pem(ed25519.privateKey) } } },
      `${key}.publicKey: is a private key; the gateway wants the public one alone`,
    ],
    [
      'no PEM',
      { keys: { k: { ...GOOD, publicKey: 'hunter2' } } },
      `${key}.publicKey: is no PEM public key or certificate`,
    ],
    [
      'a key for another algorithm',
      { keys: { k: { ...GOOD, algorithm: 'ecdsa-p256-sha256' } } },
      `${key}.publicKey: is no key for ecdsa-p256-sha256: that wants a key on P-256`,
    ],
    [
      'another curve',
      { keys: { k: { algorithm: 'ecdsa-p256-sha256', publicKey: p384 } } },
      `${key}.publicKey: is no key for ecdsa-p256-sha256: that wants a key on P-256`,
    ],
    [
      'a curve for RSA',
      { keys: { k: { algorithm: 'rsa-pss-sha512', publicKey: p384 } } },
      `${key}.publicKey: is no key for rsa-pss-sha512: that wants an RSA key`,
    ],
    [
      'RSA for Ed25519',
      { keys: { k: { algorithm: 'ed25519', publicKey: rsa1024 } } },
      `${key}.publicKey: is no key for ed25519: that wants an Ed25519 key`,
    ],
    [
      'a short RSA key',
      { keys: { k: { algorithm: 'rsa-pss-sha512', publicKey: rsa1024 } } },
      `${key}.publicKey: is no key for rsa-pss-sha512: it has 1024 bits, 2048 is the least`,
    ],
    [
      'an RSA key for another hash',
      { keys: { k: { algorithm: 'rsa-pss-sha512', publicKey: pss('sha256') } } },
      `${key}.publicKey: is no key for rsa-pss-sha512: it is bound to sha256`,
    ],
    [
      'no base64',
      { keys: { k: { algorithm: 'hmac-sha256', secret: 'hunter2!', encoding: 'base64' } } },
      `${key}.secret: is not base64`,
    ],
    [
      'a variable that is not set',
      { keys: { k: { algorithm: 'hmac-sha256', secret: 'env:NONE' } } },
      `${key}.secret: the environment variable NONE is not set`,
    ],
    [
      'a file that is not there',
      { keys: { k: { ...GOOD, publicKey: 'file:none.pem' } } },
      `${key}.publicKey: the file none.pem does not exist`,
    ],
    [
      'a keyid of two',
      { consumers: { d: { httpSignatureKeys: { k: GOOD } } } },
      'consumers.d.httpSignatureKeys.k: is already the keyid of a key of "c"',
    ],
    [
      'a keyid that cannot be sent',
      { keys: { schlüssel: GOOD } },
      'consumers.c.httpSignatureKeys.schlüssel: is not a keyid: printable ASCII, 256 in all',
    ],
    [
      'components that no request has',
      { route: { httpSignature: { components: ['@status', '@path', 'Date'] } } },
      'routes[0].httpSignature.components[0]: is not a component; write @method, a field in lower case, or @query-param;name="NAME"',
      'routes[0].httpSignature.components[2]: is not a component; write @method, a field in lower case, or @query-param;name="NAME"',
    ],
    [
      'no component',
      { route: { httpSignature: { components: [] } } },
      'routes[0].httpSignature.components: must have at least 1 entry',
    ],
    [
      'a label that cannot be',
      { gateway: { httpSignature: { label: 'Sig' } } },
      'httpSignature.label: is not a label (RFC 9651, 3.1.2)',
    ],
    [
      'an age without end',
      { gateway: { httpSignature: { maxAge: '25h' } } },
      'httpSignature.maxAge: must be between 1s and 24h',
    ],
    [
      'rules for what is not there',
      { consumers: { d: { secret: 'long-enough-secret' } }, route: { auth: 'x-m', httpSignature: {} } },
      'routes[0].httpSignature: has no effect without http-signature in auth',
    ],
    [
      'once, without a signature',
      { consumers: { d: { apiKeys: [`sha256:${'a'.repeat(64)}`] } }, route: { auth: 'api-key', replay: 'once' } },
      'routes[0].replay: has no effect without x-m or http-signature in auth',
    ],
    [
      'once, for anyone',
      { route: { auth: 'none', replay: 'once' } },
      'routes[0].replay: has no effect with auth: none, where callers are not identified',
    ],
    [
      'endless bodies that are signed',
      { route: { maxBody: 'unlimited' } },
      'routes[0].maxBody: cannot be unlimited where the signature covers the body, which is held in memory; see signBody',
    ],
  ]

  test.each(cases)('%s', (_name, over, ...expected) => {
    const problems = problemsIn(configOf(over))
    expect(problems).toEqual(expected)
    expect(problems.join()).not.toMatch(/hunter2|BEGIN/)
  })
})

describe('keys', () => {
  test('are read from the environment and from files, and kept in one form', () => {
    const dir = mkdtempSync(path.join(os.tmpdir(), 'tidegate-signature-'))
    writeFileSync(path.join(dir, 'key.pem'), PUBLIC)
    const keys = {
      'from a file': { algorithm: 'ed25519', publicKey: 'file:key.pem' },
      'from the environment': { algorithm: 'hmac-sha256', secret: 'env:MAC', encoding: 'base64' },
      text: { algorithm: 'hmac-sha256', secret: 'grün wie das Gras' },
      'bound to SHA-512': { algorithm: 'rsa-pss-sha512', publicKey: pss('sha512') },
    }
    const file = path.join(dir, 'gw.yaml')
    writeFileSync(file, JSON.stringify(configOf({ keys })))
    const { config, settings } = loadConfig({ file, env: { MAC: KEYS['test-shared-secret'].secret } })
    const [consumer] = compile(config, settings).consumers
    expect(consumer?.httpSignatureKeys).toEqual([
      { id: 'from a file', algorithm: 'ed25519', material: PUBLIC },
      { id: 'from the environment', algorithm: 'hmac-sha256', material: KEYS['test-shared-secret'].secret },
      { id: 'text', algorithm: 'hmac-sha256', material: Buffer.from('grün wie das Gras').toString('base64') },
      {
        id: 'bound to SHA-512',
        algorithm: 'rsa-pss-sha512',
        material: expect.stringMatching(/^-----BEGIN PUBLIC KEY/),
      },
    ])
  })

  test("of the RFC's examples can be used", () => {
    const { secret } = KEYS['test-shared-secret']
    const keys = Object.entries(KEYS).map(([id, key]) => [
      id,
      'secret' in key
        ? { algorithm: key.algorithm, secret, encoding: 'base64' }
        : { algorithm: key.algorithm, publicKey: key.publicKey },
    ])
    expect(problemsIn(configOf({ keys: Object.fromEntries(keys) }))).toEqual([])
  })
})

describe('a route', () => {
  test('has defaults for everything', () => {
    expect(compiled({}).httpSignature).toEqual({
      components: null,
      signBody: true,
      maxAgeSeconds: 300,
      leewaySeconds: 30,
      label: null,
      tag: null,
    })
    expect(compiled({})).toMatchObject({
      replayOnce: false,
      signBody: false,
      challenge: '\r\nwww-authenticate: Signature',
    })
  })

  test("takes what it does not say from the gateway's own", () => {
    const gateway = { httpSignature: { maxAge: '60s', tag: 'app', components: ['@path', 'date'] }, replay: 'once' }
    expect(
      compiled({ gateway, route: { httpSignature: { tag: 'own', leeway: '0s' }, signBody: false } }),
    ).toMatchObject({
      httpSignature: {
        components: ['"@path"', '"date"'],
        signBody: false,
        maxAgeSeconds: 60,
        leewaySeconds: 0,
        tag: 'own',
      },
      replayOnce: true,
    })
    expect(compiled({ gateway, route: { replay: 'allow' } }).replayOnce).toBe(false)
    const open = { auth: 'none' }
    expect(compiled({ gateway, route: open })).toMatchObject({ replayOnce: false, httpSignature: null })
  })
})

test.each([
  ['@method', '"@method"'],
  ['@query-param;name="a b"', '"@query-param";name="a b"'],
  ['content-digest', '"content-digest"'],
  ['content-digest;  key="sha-256"', '"content-digest";key="sha-256"'],
  ['x-a;bs', '"x-a";bs'],
  ['priority;sf', '"priority";sf'],
  ['@status', null],
  ['@signature-params', null],
  ['@method;req', null],
  ['@query-param', null],
  ['@query-param;name=a', null],
  ['date;tr', null],
  ['date;req', null],
  ['date;sf=1', null],
  ['date;sf;bs', null],
  ['Date', null],
  ['a b', null],
  ['"date"', null],
  ['date;', null],
  ['@', null],
  ['', null],
])('the component %s is %s', (text, identifier) => {
  expect(componentIdentifier(text)).toBe(identifier)
})
