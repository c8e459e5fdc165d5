// What the configuration says of callers: kinds of credentials that nobody has, names that two could claim, and
// secrets, of which only hashes are kept.
import { createHash, generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { describe, expect, test } from 'vitest'
import { parseScrypt } from '../../../src/config/kept.js'
import { ConfigError, type Environment, loadConfig } from '../../../src/config/load.js'

const load = (yaml: string, env: Environment = {}) => loadConfig({ text: { origin: 'gw.yaml', yaml }, env })

function problemsIn(yaml: string, env: Environment = {}): string[] {
  try {
    load(yaml, env)
  } catch (error) {
    if (error instanceof ConfigError) return error.problems.map((problem) => problem.replace(/^gw\.yaml:/, ''))
    throw error
  }
  return []
}

const HASH = `sha256:${'a'.repeat(64)}`
const SERVICE = 'services: { s: { endpoints: [http://h:1] } }\n'
const route = (keys: string) => `${SERVICE}routes:\n  - { match: {}, service: s, ${keys} }\n`
const OPEN = route('auth: none')
const issuer = (keys: string) => `jwt: { acme: { issuer: i, audience: a, ${keys} } }\n${OPEN}`
const SECRET = 's'.repeat(16)
const issuers = (unlisted: Record<string, string>) =>
  `jwt:\n${Object.entries(unlisted)
    .map(([name, how]) => `  ${name}: { issuer: ${name}, audience: x, secrets: ${'s'.repeat(32)}, unlisted: ${how} }\n`)
    .join('')}${OPEN}`
const pem = (type: 'rsa', bits: number) =>
  generateKeyPairSync(type, { modulusLength: bits }).publicKey.export({ type: 'spki', format: 'pem' }) as string

describe('refused, with the key and what would be right:', () => {
  const cases: [name: string, yaml: string, ...problems: string[]][] = [
    [
      'kinds of credentials that nobody has',
      `consumers: { c: { jwt: {} } }\n${route('auth: [x-m, api-key, basic, jwt]')}`,
      'routes[0].auth: x-m needs someone who may call: no consumer has a secret',
      'routes[0].auth: api-key needs someone who may call: no consumer has apiKeys',
      'routes[0].auth: basic needs someone who may call: no consumer has a password',
      'routes[0].auth: jwt needs someone whose tokens count: jwt is empty',
    ],
    [
      'a kind there is not',
      route('auth: api_key'),
      'routes[0].auth: must be x-m, http-signature, api-key, basic, jwt, client-certificate or none',
    ],
    [
      'none next to another, and one twice',
      `consumers: { c: { secret: ${SECRET} } }\n${route('auth: [x-m, none, x-m]')}`,
      'routes[0].auth: none lets everyone in: it stands alone',
      'routes[0].auth: names one kind twice',
    ],
    [
      'what has no effect',
      `consumers: { c: { apiKeys: ${HASH} } }\n${route('auth: api-key, signBody: false')}`,
      'routes[0].signBody: has no effect without x-m or http-signature in auth',
    ],
    [
      'clear text where a hash belongs',
      `consumers: { c: { apiKeys: [hunter2-hunter2-hunter2], password: hunter2 } }\n${OPEN}`,
      'consumers.c.apiKeys[0]: must be sha256:HEX, env:NAME or file:PATH; tidegate hash makes the first of a key',
      'consumers.c.password: must be $scrypt$…, sha256:HEX, env:NAME or file:PATH; tidegate hash makes the first of a password',
    ],
    [
      'API keys where something else is',
      `apiKeys: { header: Authorization, query: 'a&b' }\n${OPEN}`,
      'apiKeys.header: is a field with a meaning of its own',
      'apiKeys.query: is not a parameter name; write letters, digits and . _ ~ -',
    ],
    [
      'a password for a name with a colon',
      `consumers: { 'a:b': { password: ${HASH} } }\n${OPEN}`,
      'consumers.a:b.password: cannot be used: a user name has no colon (RFC 7617, 2)',
    ],
    [
      'scrypt that takes more memory than a check may',
      `consumers: { c: { password: '$scrypt$ln=20,r=8,p=1$c2FsdHNhbHRzYWx0$${'A'.repeat(43)}' } }\n${OPEN}`,
      'consumers.c.password: is no $scrypt$ln=…,r=…,p=…$SALT$HASH, or one that takes more than 256 MiB',
    ],
    [
      'a group that nobody is in, and a consumer that is called like one',
      `consumers: { c: { secret: ${SECRET}, groups: [partners] }, 'group:x': { secret: ${SECRET} } }\n${route('auth: x-m, allow: [group:partnrs]')}`,
      'consumers.group:x: a name cannot begin with "group:", which means a group',
      'routes[0].allow[0]: nobody is in a group "partnrs"; did you mean "partners"?',
    ],
    [
      'an issuer there is not, and one claim for two',
      `consumers: { a: { jwt: { acme: x } }, b: { jwt: { acme: x, acne: y } } }\n${issuer(`secrets: ${'s'.repeat(32)}`)}`,
      'consumers.b.jwt.acme: is already what "a" is known by',
      'consumers.b.jwt.acne: no issuer is named "acne"; did you mean "acme"?',
    ],
    [
      'a consumer by a name that tokens may claim',
      `consumers: { 'acme:x': { secret: ${SECRET} } }\n${issuer(`unlisted: admit, secrets: ${'s'.repeat(32)}`)}`,
      'consumers.acme:x: is a name that tokens of acme may claim (unlisted: admit)',
    ],
    [
      'a consumer by a name that tokens of the second of two such issuers may claim',
      `consumers: { 'a:b:c': { secret: ${SECRET} } }\n${issuers({ a: 'refuse', 'a:b': 'admit' })}`,
      'consumers.a:b:c: is a name that tokens of a:b may claim (unlisted: admit)',
    ],
    [
      'two issuers whose callers could have one name',
      issuers({ 'a:b:c': 'admit', 'a:b': 'refuse', a: 'admit', 'a-b': 'admit' }),
      'jwt.a:b:c.unlisted: cannot be admit here and for a: tokens of either may name a caller a:b:c:…; rename one',
    ],
    [
      'an issuer whose callers would be called like groups',
      issuers({ group: 'admit', 'group:x': 'refuse', groups: 'admit' }),
      'jwt.group.unlisted: cannot be admit: its callers would be named group:…, which means a group',
    ],
    [
      'tiers of a limit on wrong credentials',
      `consumers: { c: { secret: ${SECRET} } }\n${route('auth: x-m, limits: [{ by: consumer, rate: 1/s, on: failedAuth, tiers: { c: 2/s } }]')}`,
      'routes[0].limits[0].tiers: cannot be used with on: failedAuth: who calls is not known before credentials are checked',
    ],
    [
      'a limit on wrong credentials where there are none',
      route('auth: none, limits: [{ by: consumer, rate: 1/s, on: failedAuth }]'),
      'routes[0].limits[0]: counts failed credentials, and with auth: none there are none',
    ],
    ['an issuer without keys', issuer('leeway: 1s'), 'jwt.acme: needs secrets, publicKeys or jwks'],
    [
      'one with two kinds of keys',
      issuer(`secrets: ${'s'.repeat(32)}, jwks: { url: http://h/jwks }`),
      'jwt.acme.jwks: cannot stand next to secrets',
    ],
    [
      'algorithms that the keys are not for, which is how keys are confused',
      `jwt:\n  a: { issuer: a, audience: x, secrets: ${'s'.repeat(32)}, algorithms: [HS256, RS256] }\n  b: { issuer: b, audience: x, jwks: { url: http://h }, algorithms: [RS256, HS256] }\n  c: { issuer: c, audience: x, jwks: { url: http://h }, algorithms: [none] }\n${OPEN}`,
      'jwt.a.algorithms[1]: RS256 is made with key pairs, not with secrets',
      'jwt.b.algorithms[1]: HS256 is made with secrets',
      'jwt.c.algorithms[0]: must be HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA or Ed25519',
    ],
    [
      'two issuers with one iss',
      `jwt:\n  a: { issuer: i, audience: x, jwks: { url: http://h } }\n  b: { issuer: i, audience: y, jwks: { url: http://h } }\n${OPEN}`,
      'jwt.b.issuer: is already that of "a": one entry can have several audiences',
    ],
    ['no audience', `jwt: { a: { issuer: i, jwks: { url: http://h } } }\n${OPEN}`, 'jwt.a.audience: is missing'],
    [
      'addresses that are none',
      route('auth: none, addresses: { allow: [10.0.0.0/33], deny: [h.example] }'),
      'routes[0].addresses.allow[0]: is not an address or CIDR range',
      'routes[0].addresses.deny[0]: is not an address or CIDR range',
    ],
  ]

  test.each(cases)('%s', (_name, yaml, ...expected) => {
    const problems = problemsIn(yaml)
    expect(problems.map((problem) => problem.replace(/^\d+:\d+: /, ''))).toEqual(expected)
    expect(problems.join()).not.toContain('hunter2')
  })
})

describe('secrets that the environment or a file holds', () => {
  const KEY = 'key-of-c-0123456789'

  test('are kept as hashes alone', () => {
    const dir = mkdtempSync(path.join(os.tmpdir(), 'tidegate-callers-'))
    writeFileSync(path.join(dir, 'password'), 'correct horse\n')
    writeFileSync(
      path.join(dir, 'gw.yaml'),
      `consumers: { c: { apiKeys: [env:KEY, '${HASH}'], password: file:password }, d: { password: env:HASHED } }\n${OPEN}`,
    )
    const { config } = loadConfig({ file: path.join(dir, 'gw.yaml'), env: { KEY, HASHED: HASH } })
    expect(config.consumers.c?.apiKeys).toEqual([`sha256:${createHash('sha256').update(KEY).digest('hex')}`, HASH])
    expect(parseScrypt(config.consumers.c?.password as string)).toMatchObject({ N: 2 ** 14, r: 8, p: 5 })
    expect(config.consumers.d?.password).toBe(HASH)
    expect(JSON.stringify(config)).not.toMatch(/key-of-c|correct horse/)
  })

  test('are refused where they are too short, or the same for two', () => {
    const yaml = `consumers: { a: { apiKeys: env:KEY }, b: { apiKeys: [env:SAME, env:SHORT] } }\njwt: { i: { issuer: i, audience: a, algorithms: [HS256, HS512], secrets: env:SHORT } }\n${OPEN}`
    expect(problemsIn(yaml, { KEY, SAME: KEY, SHORT: 'short' })).toEqual([
      '1:54: consumers.b.apiKeys[0]: is a key that "a" has already',
      '1:64: consumers.b.apiKeys[1]: is too short for an API key: 16 random characters at least',
      '2:65: jwt.i.secrets[0]: is too short for HS256, HS512: 64 bytes at least (RFC 7518, 3.2)',
    ])
  })

  test('have a least length for signatures as well, of the bytes that are the secret', () => {
    const keys = '{ k: { algorithm: hmac-sha256, secret: AAAAAAAAAAAAAAAAAAAA, encoding: base64 } }'
    const yaml = `consumers:\n  a: { secret: [${'s'.repeat(16)}, env:SHORT] }\n  b: { secret: short, httpSignatureKeys: ${keys} }\n${OPEN}`
    const tooShort = 'is too short for a secret: 16 random bytes at least, as openssl rand -hex 16 makes'
    const problems = problemsIn(yaml, { SHORT: '123456789012345' })
    expect(problems.map((problem) => problem.replace(/^\d+:\d+: /, ''))).toEqual([
      `consumers.a.secret[1]: ${tooShort}`,
      `consumers.b.secret[0]: ${tooShort}`,
      `consumers.b.httpSignatureKeys.k.secret: ${tooShort}`,
    ])
    expect(
      problemsIn(yaml.replace('short', 'ü'.repeat(8)).replace(', env:SHORT', '').replaceAll('AAA', 'AAAA')),
    ).toEqual([])
  })
})

describe('public keys of an issuer', () => {
  const keysOf = (text: string) => load(issuer('publicKeys: env:PUB'), { PUB: text }).config.jwt.acme?.keys
  const problemsOf = (text: string) => problemsIn(issuer('publicKeys: env:PUB'), { PUB: text })[0]?.split(': ').at(-1)

  test('may be PEM, a JWK or a JWK set; nothing private is kept', () => {
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const jwk = publicKey.export({ format: 'jwk' })
    expect(keysOf(publicKey.export({ type: 'spki', format: 'pem' }) as string)).toEqual([jwk])
    expect(keysOf(JSON.stringify({ ...jwk, kid: 'k', use: 'sig' }))).toEqual([{ ...jwk, kid: 'k', use: 'sig' }])
    expect(keysOf(JSON.stringify({ keys: [{ ...jwk, kid: 'k' }, jwk] }))).toEqual([{ ...jwk, kid: 'k' }, jwk])
    expect(problemsOf(privateKey.export({ type: 'pkcs8', format: 'pem' }) as string)).toBe(
      'is a private key; the gateway wants the public one alone',
    )
    expect(problemsOf(JSON.stringify(privateKey.export({ format: 'jwk' })))).toBe(
      'holds a private or secret key; the gateway wants public ones alone',
    )
  })

  test('are refused where they are none, or too weak', () => {
    expect(problemsOf('nothing of the kind')).toBe('is no PEM public key, certificate, JWK or JWK set')
    expect(problemsOf('{"keys":[]}')).toBe('holds no key')
    expect(problemsOf(pem('rsa', 1024))).toBe('holds an RSA key of 1024 bits; 2048 is the least (RFC 7518, 3.3)')
  })
})
