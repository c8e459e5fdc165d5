// Callers known by JSON Web Tokens: what an issuer's keys have signed gets through, every way known to get around that
// ends at 401; and keys that come, go, or cannot be had.
import { once } from 'node:events'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { headerOf, type Origin, type Seen, startEcho } from '../support/origins.js'
import { type Answer, call, unauthorized } from '../support/raw-client.js'
import {
  assemble,
  encode,
  hmacToken,
  inSeconds,
  jwkOf,
  KeyServer,
  keyPair,
  madeTokens,
  rawSignature,
  signedToken,
} from '../support/tokens.js'
import { untilTime } from '../support/waiting.js'

const RSA = keyPair('rsa-1')
const EC = keyPair('ec-1', 'ES256')
const PSS = keyPair('pss-1', 'PS256')
const ED = keyPair('ed-1', 'EdDSA')
const PEM = keyPair('of a PEM', 'ES256')
const ANOTHER = keyPair('rsa-1')
const SECRET = 'the-secret-of-an-issuer-that-uses-hmac'
const RSA_PEM = RSA.publicKey.export({ type: 'spki', format: 'pem' }) as string
const EC_PEM = PEM.publicKey.export({ type: 'spki', format: 'pem' }) as string

const ISS = 'https://acme.example/'
const claims = (more: object = {}) => ({ iss: ISS, aud: 'gateway', sub: 'auth0|alice', exp: inSeconds(300), ...more })

let echo: Origin
let gateway: Gateway
let acme: KeyServer

beforeAll(async () => {
  echo = await startEcho()
  acme = new KeyServer()
  acme.keys = [RSA, EC, PSS, ED].map(jwkOf)
  const url = await acme.start()
  const route = (path: string, more: object = {}) => ({ match: { path }, service: 'echo', auth: 'jwt', ...more })
  gateway = await startGateway({
    workers: 1,
    config: {
      consumers: {
        alice: { jwt: { acme: 'auth0|alice' }, groups: ['staff'] },
        bob: { jwt: { acme: 'auth0|bob' } },
        machine: { jwt: { hmac: 'machine' } },
        pem: { jwt: { pem: 'pem' } },
      },
      jwt: {
        acme: {
          issuer: ISS,
          audience: ['gateway', 'gateway-too'],
          algorithms: ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519'],
          jwks: { url, cooldown: '30s' },
          leeway: '5s',
          groupsClaim: 'realm_access.roles',
        },
        hmac: { issuer: 'hmac', audience: 'gateway', secrets: SECRET },
        pem: { issuer: 'pem', audience: 'gateway', algorithms: ['RS256', 'ES256'], publicKeys: [RSA_PEM, EC_PEM] },
        open: {
          issuer: 'open',
          audience: 'gateway',
          secrets: SECRET,
          unlisted: 'admit',
          groups: ['visitors'],
          groupsClaim: 'scope',
        },
      },
      services: { echo: { endpoints: [echo.url] } },
      routes: [
        route('/'),
        route('/kept', { stripCredentials: false }),
        route('/bob', { allow: ['bob'] }),
        route('/staff', { allow: ['group:staff', 'bob'] }),
        route('/auditors', { allow: ['group:auditors'] }),
        route('/visitors', { allow: ['group:visitors'] }),
      ],
    },
    secrets: [SECRET],
  })
})

afterAll(async () => {
  const output = gateway.command.stdout.text + gateway.command.stderr.text
  await gateway.close()
  await echo.close()
  await acme.close()
  expect(madeTokens().filter((token) => output.includes(token))).toEqual([])
})

const ask = (token: string, target = '/', headers: Record<string, string> = {}): Promise<Answer> =>
  call(gateway.port, { target, headers: { Authorization: `Bearer ${token}`, ...headers } })

describe('let through', () => {
  test.each([RSA, EC, PSS, ED])('a token signed with $algorithm by a key that the issuer publishes', async (pair) => {
    const answer = await ask(signedToken(pair, claims()))
    expect(answer.status).toBe(200)
    const seen = answer.json<Seen>()
    expect(headerOf(seen, 'x-consumer-username')).toEqual(['alice'])
    expect(headerOf(seen, 'authorization')).toEqual([])
    expect(await gateway.logged(answer)).toMatchObject({ consumer: 'alice', status: 200 })
  })

  test('one that names the algorithm of its curve (RFC 9864)', async () => {
    expect((await ask(signedToken(ED, claims(), { alg: 'Ed25519' }), '/')).status).toBe(200)
  })

  test('one signed with a secret, one whose key was given as PEM, whatever key it names', async () => {
    const machine = { iss: 'hmac', aud: 'gateway', sub: 'machine', exp: inSeconds(60) }
    expect((await ask(hmacToken(SECRET, machine))).status).toBe(200)
    const pem = { ...machine, iss: 'pem', sub: 'pem' }
    expect((await ask(signedToken(PEM, pem))).status).toBe(200)
    expect((await ask(signedToken(RSA, pem, { kid: undefined }))).status).toBe(200)
  })

  test('one for several audiences, one that expired within the leeway, and one that is a little early', async () => {
    for (const more of [{ aud: ['x', 'gateway-too'] }, { exp: inSeconds(-2) }, { nbf: inSeconds(3) }]) {
      expect((await ask(signedToken(RSA, claims(more)))).status).toBe(200)
    }
  })

  test('one whose header points to keys of its own, by those of the issuer alone', async () => {
    const header = { jwk: jwkOf(ANOTHER), jku: 'http://127.0.0.1:1/', x5u: 'http://127.0.0.1:1/' }
    expect((await ask(signedToken(RSA, claims(), header))).status).toBe(200)
  })

  test('one that the service wants to see, too', async () => {
    const token = signedToken(RSA, claims())
    expect(headerOf((await ask(token, '/kept')).json<Seen>(), 'authorization')).toEqual([`Bearer ${token}`])
  })

  test('groups of the consumer, of the token and of the issuer', async () => {
    const alice = signedToken(RSA, claims())
    const auditor = signedToken(RSA, claims({ realm_access: { roles: ['auditors', 7] } }))
    const bob = signedToken(RSA, claims({ sub: 'auth0|bob' }))
    const statuses = async (token: string) =>
      Promise.all(['/bob', '/staff', '/auditors'].map(async (target) => (await ask(token, target)).status))
    expect(await statuses(alice)).toEqual([403, 200, 403])
    expect(await statuses(auditor)).toEqual([403, 200, 200])
    expect(await statuses(bob)).toEqual([200, 200, 403])
  })

  test('someone no consumer names, where the issuer may, by a name that no consumer has', async () => {
    const open = (sub: string, more: object = {}) =>
      hmacToken(SECRET, { iss: 'open', aud: 'gateway', sub, exp: inSeconds(60), ...more })
    const answer = await ask(open('bob'), '/visitors')
    expect(headerOf(answer.json<Seen>(), 'x-consumer-username')).toEqual(['open:bob'])
    expect((await gateway.logged(answer)).consumer).toBe('open:bob')
    expect((await ask(open('bob'), '/bob')).status).toBe(403)
    expect((await ask(open('x', { scope: 'read auditors' }), '/auditors')).status).toBe(200)
    expect((await ask(open('a\r\nx-admin: 1'))).status).toBe(401)
  })
})

describe('refused with 401, the reason in the log alone:', () => {
  const payload = () => encode(claims())
  const attacks: [name: string, reason: string, token: () => string][] = [
    ['alg none', 'algorithm that is not allowed', () => assemble({ alg: 'none' }, claims(), () => 'x')],
    ['alg none without a signature', 'algorithm that is not allowed', () => `${encode({ alg: 'none' })}.${payload()}.`],
    ['alg None', 'algorithm that is not allowed', () => assemble({ alg: 'None' }, claims(), () => 'x')],
    ['HS256 with the public key, as PEM', 'not allowed', () => hmacToken(RSA_PEM, claims())],
    ['HS256 with the public key, as PEM without its end', 'not allowed', () => hmacToken(RSA_PEM.trim(), claims())],
    [
      'HS256 with the public key, as DER',
      'not allowed',
      () => hmacToken(RSA.publicKey.export({ type: 'spki', format: 'der' }), claims(), { kid: RSA.kid }),
    ],
    [
      'HS256 with the PEM that the configuration holds',
      'not allowed',
      () => hmacToken(RSA_PEM, { ...claims(), iss: 'pem', sub: 'pem' }),
    ],
    [
      'RS256 for an issuer that uses a secret',
      'not allowed',
      () => signedToken(RSA, { ...claims(), iss: 'hmac', sub: 'machine' }),
    ],
    ['HS256 with another secret', 'signature', () => hmacToken(`${SECRET}x`, { ...claims(), iss: 'hmac' })],
    ['HS256 with no secret', 'signature', () => hmacToken('', { ...claims(), iss: 'hmac' })],
    ['a key of the same id that is not the issuer’s', 'signature', () => signedToken(ANOTHER, claims())],
    [
      'a key that the token brings along',
      'signature',
      () => signedToken(ANOTHER, claims(), { jwk: jwkOf(ANOTHER), jku: 'http://127.0.0.1:1/jwks' }),
    ],
    [
      'a key of another type by its id',
      'names no known key',
      () => signedToken(EC, claims(), { kid: RSA.kid, alg: 'ES256' }),
    ],
    [
      'an ECDSA signature of zeros',
      'signature',
      () => assemble({ alg: 'ES256', kid: EC.kid }, claims(), () => Buffer.alloc(64)),
    ],
    ['the same key for another algorithm', 'not allowed', () => signedToken(RSA, claims(), { alg: 'RS512' })],
    [
      'a payload that was changed',
      'signature',
      () => {
        const [head, , signature] = signedToken(RSA, claims()).split('.')
        return `${head}.${encode(claims({ sub: 'auth0|bob' }))}.${signature}`
      },
    ],
    [
      'a header that was changed',
      'signature',
      () => {
        const [, body, signature] = signedToken(RSA, claims()).split('.')
        return `${encode({ alg: 'RS256', kid: RSA.kid, x: 1 })}.${body}.${signature}`
      },
    ],
    ['a signature cut short', 'signature', () => signedToken(RSA, claims()).slice(0, -8)],
    ['another issuer', 'unknown issuer', () => signedToken(RSA, claims({ iss: 'https://evil.example/' }))],
    ['another issuer that is known', 'not allowed', () => signedToken(RSA, claims({ iss: 'open' }))],
    ['no issuer', 'unknown issuer', () => signedToken(RSA, claims({ iss: undefined }))],
    ['a list of issuers', 'unknown issuer', () => signedToken(RSA, claims({ iss: [ISS] }))],
    ['another audience', 'audience', () => signedToken(RSA, claims({ aud: 'another' }))],
    ['no audience', 'a claim it must have', () => signedToken(RSA, claims({ aud: undefined }))],
    ['a time that has passed', 'expired', () => signedToken(RSA, claims({ exp: inSeconds(-6) }))],
    ['no time', 'a claim it must have', () => signedToken(RSA, claims({ exp: undefined }))],
    ['a time that is no number', 'a claim it must have', () => signedToken(RSA, claims({ exp: '9999999999' }))],
    ['a time that is yet to come', 'not valid yet', () => signedToken(RSA, claims({ nbf: inSeconds(30) }))],
    [
      'an extension that it declares critical',
      'malformed',
      () => signedToken(RSA, claims(), { crit: ['x-must'], 'x-must': true }),
    ],
    ['a payload that is not encoded', 'malformed', () => signedToken(RSA, claims(), { crit: ['b64'], b64: false })],
    ['a key id that nobody knows', 'names no known key', () => signedToken(RSA, claims(), { kid: 'nobody' })],
    [
      'a key id that reads like a path',
      'names no known key',
      () => signedToken(RSA, claims(), { kid: '../../dev/null' }),
    ],
    ['a subject that no consumer has', 'unknown consumer', () => signedToken(RSA, claims({ sub: 'auth0|mallory' }))],
    ['a consumer’s own name', 'unknown consumer', () => signedToken(RSA, claims({ sub: 'alice' }))],
    ['no subject', 'names no consumer', () => signedToken(RSA, claims({ sub: undefined }))],
    [
      'a payload that is no JSON',
      'malformed',
      () => {
        const input = `${encode({ alg: 'RS256', kid: RSA.kid })}.${Buffer.from('no').toString('base64url')}`
        return `${input}.${rawSignature(RSA, input).toString('base64url')}`
      },
    ],
    ['two parts', 'malformed', () => 'e30.e30'],
    ['five parts, as an encrypted one has', 'malformed', () => 'e30.e30.e30.e30.e30'],
  ]

  // Each waits for its line in the log.
  test.concurrent.each(attacks)('%s', async (_name, reason, token) => {
    const answer = await ask(token())
    expect(answer.status).toBe(401)
    expect(answer.one('www-authenticate')).toBe('Bearer realm="tidegate"')
    expect(answer.json()).toEqual(unauthorized(answer))
    const line = await gateway.logged(answer)
    expect(line.reason).toContain(reason)
    expect(line.consumer).toBeUndefined()
    expect(echo.requests.all.filter((seen) => headerOf(seen, 'x-rid')[0] === answer.rid)).toEqual([])
  })

  test.concurrent.each([
    ['no Authorization', {}, 'Bearer missing'],
    ['another scheme', { Authorization: 'Digest x' }, 'Bearer missing'],
    ['a scheme alone', { Authorization: 'Bearer' }, 'Bearer missing'],
    ['two tokens', { Authorization: [`Bearer ${'a.b.c'}`, `Bearer ${'a.b.c'}`] }, 'several Authorization fields'],
  ])('%s', async (_name, headers, reason) => {
    const answer = await call(gateway.port, { headers })
    expect(answer.status).toBe(401)
    expect((await gateway.logged(answer)).reason).toContain(reason)
  })

  test.concurrent('a token that was good, once it has expired, though it is remembered', async () => {
    // Good for three seconds more, of which the first may be nearly over: the leeway is five seconds.
    const exp = inSeconds(-2)
    const token = signedToken(RSA, claims({ exp }))
    expect((await ask(token)).status).toBe(200)
    await untilTime((exp + 5) * 1000)
    const answer = await ask(token)
    expect(answer.status).toBe(401)
    expect((await gateway.logged(answer)).reason).toBe('token expired')
  })

  test('the signature of one token under the claims of another that is remembered', async () => {
    const good = signedToken(RSA, claims())
    expect((await ask(good)).status).toBe(200)
    const other = signedToken(RSA, claims({ sub: 'auth0|bob' }))
    const forged = [...other.split('.').slice(0, 2), good.split('.')[2]].join('.')
    expect((await ask(forged)).status).toBe(401)
  })
})

test('a body waits for its token, and none is read where that is no good', async () => {
  const body = 'x'.repeat(100_000)
  const send = (token: string) =>
    call(gateway.port, { method: 'POST', body, headers: { Authorization: `Bearer ${token}` } })
  expect((await send(signedToken(RSA, claims({ jti: 'fresh' })))).json<Seen>().bodyBytes).toBe(100_000)
  expect((await send(signedToken(ANOTHER, claims()))).status).toBe(401)
})

describe('keys that an issuer publishes', () => {
  const started: (() => Promise<void>)[] = []
  afterAll(async () => {
    for (const close of started.reverse()) await close()
  })

  async function start(cooldown: string, maxAge = '10m', fallback?: object) {
    const server = new KeyServer()
    server.keys = [jwkOf(RSA)]
    const url = await server.start()
    const other = await startEcho()
    const own = await startGateway({
      workers: 1,
      config: {
        consumers: { alice: { jwt: { acme: 'auth0|alice' } } },
        jwt: { acme: { issuer: ISS, audience: 'gateway', jwks: { url, cooldown, maxAge } } },
        services: { echo: { endpoints: [echo.url] }, other: { endpoints: [other.url] } },
        routes: [{ match: {}, service: 'echo', auth: 'jwt', ...(fallback === undefined ? {} : { fallback }) }],
      },
    })
    started.push(
      () => server.close(),
      () => other.close(),
      () => own.close(),
    )
    const send = (token: string) => call(own.port, { headers: { Authorization: `Bearer ${token}` } })
    return { server, own, other, send }
  }

  /** What is kept or held back for `ms` is not any more: it began before this was called. */
  const passed = (ms: number): Promise<void> => untilTime(Date.now() + ms)

  const fresh = (pair = RSA) => signedToken(pair, claims({ jti: String(Math.random()) }))

  test('are fetched once, and before the cooldown is over no id makes the gateway ask again', async () => {
    const { server, send } = await start('30s')
    expect((await Promise.all([fresh(), fresh(), fresh()].map(send))).map(({ status }) => status)).toEqual([
      200, 200, 200,
    ])
    expect(server.requests).toBe(1)
    const nobody = keyPair('nobody', 'ES256')
    for (let i = 0; i < 5; i++) expect((await send(fresh(nobody))).status).toBe(401)
    expect(server.requests).toBe(1)
  })

  test('may be rotated: one fetch brings the new one, and the old one is good for tokens alone that are remembered', async () => {
    const { server, send } = await start('100ms')
    const remembered = fresh()
    expect((await send(remembered)).status).toBe(200)
    const next = keyPair('rsa-2')
    server.keys = [jwkOf(next)]
    await passed(100)
    expect((await send(fresh(next))).status).toBe(200)
    expect(server.requests).toBe(2)
    expect((await send(fresh())).status).toBe(401)
    expect((await send(remembered)).status).toBe(200)
  })

  test('that cannot be had are 503, and no reason to let a fallback answer', async () => {
    const { server, own, other, send } = await start('100ms', '10m', { service: 'other' })
    server.fails = true
    const answer = await send(fresh())
    expect(answer.status).toBe(503)
    expect(answer.json<{ code: string }>().code).toBe('keys_unavailable')
    expect(answer.one('retry-after')).toBe('1')
    expect((await own.logged(answer)).reason).toBe('keys of acme cannot be had: answered 500')
    expect(other.requests.all).toEqual([])
    server.fails = false
    await passed(100)
    expect((await send(fresh())).status).toBe(200)
  })

  test('are not asked for with each token while the issuer fails', async () => {
    const { server, send } = await start('30s')
    server.fails = true
    for (let i = 0; i < 5; i++) expect((await send(fresh())).status).toBe(503)
    expect(server.requests).toBe(1)
  })

  test('that have no end are read no further than a key set can be long, and the known ones stay good', async () => {
    const { server, own, send } = await start('100ms', '1s')
    expect((await send(fresh())).status).toBe(200)
    let sent = 0
    const cut: Promise<unknown>[] = []
    server.answers = (response) => {
      const more = (): void => {
        while (!response.destroyed && response.write(Buffer.alloc(65_536, 0x20))) sent += 65_536
      }
      cut.push(once(response, 'close'))
      response.on('drain', more)
      more()
    }
    // The set is too old, and then the issuer's failure is long enough ago.
    for (const ms of [1000, 100]) {
      await passed(ms)
      expect((await send(fresh())).status).toBe(200)
    }
    expect(server.requests).toBe(3)
    await Promise.all(cut)
    // What is on its way when the gateway ends it lies in the sockets.
    expect(sent).toBeLessThan(40_000_000)
    const warning = await own.log.find((line) => line.msg === 'keys of an issuer cannot be fetched', 'the warning')
    expect(warning).toMatchObject({ level: 40, issuer: 'acme', reason: 'answer over 128 KiB' })
    server.answers = null
    await passed(100)
    expect((await send(fresh())).status).toBe(200)
    await own.log.find((line) => line.msg === 'keys of an issuer can be fetched again', 'the end of it')
    expect(own.log.all.filter((line) => line.msg === 'keys of an issuer cannot be fetched')).toHaveLength(1)
  })

  test('that are known outlast an issuer that falls silent', async () => {
    const { server, send } = await start('100ms', '1s')
    expect((await send(fresh())).status).toBe(200)
    server.fails = true
    for (const ms of [1000, 100]) {
      await passed(ms)
      expect((await send(fresh())).status).toBe(200)
    }
    expect(server.requests).toBe(3)
    expect((await send(fresh(ANOTHER))).status).toBe(401)
  })
})
