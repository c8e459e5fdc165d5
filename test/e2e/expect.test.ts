// Clients that wait to hear whether their body is wanted (RFC 9110, 10.1.1): they are told to go on when it is, in
// whatever letters they ask, and get the answer alone when it is not.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createAuthority, writePair } from '../support/certificates.js'
import { type Gateway, startGateway } from '../support/gateway.js'
import { headerOf, type Origin, type Seen, sha256, startEcho } from '../support/origins.js'
import { Connection } from '../support/raw-client.js'
import { requireAcceptor, requireGate } from '../support/requirements.js'
import { signedHeaders, TEST } from '../support/signing.js'

const BODY = 'hello'
/** Of a body that is read whole. */
const HOLDABLE = 262_144
const FORMS = ['100-continue', '100-Continue', '100-CONTINUE', '100-cOntinue']

let echo: Origin
let gateway: Gateway
let encrypted: Gateway
let ca: string

beforeAll(async () => {
  echo = await startEcho()
  const config = {
    services: { echo: { endpoints: [echo.url] }, nobody: { endpoints: ['http://127.0.0.1:1'] } },
    consumers: { test: { secret: TEST.secret } },
    limits: { once: { by: 'header:x-client', rate: '1/h' } },
    routes: [
      { match: { path: '/open' }, service: 'echo', auth: 'none' },
      { match: { path: '/small' }, service: 'echo', auth: 'none', maxBody: 3 },
      { match: { path: '/signed' }, service: 'echo', auth: 'x-m' },
      { match: { path: '/headers-signed' }, service: 'echo', auth: 'x-m', signBody: false },
      { match: { path: '/limited' }, service: 'echo', auth: 'none', limits: ['once'] },
      {
        match: { path: '/stood-in-for' },
        service: 'nobody',
        auth: 'none',
        fallback: { status: 200, body: 'another' },
      },
    ],
  }
  gateway = await startGateway({ workers: 1, config, env: { TIDEGATE_BODY_MEMORY: String(4 * HOLDABLE) } })
  const authority = await createAuthority()
  ca = authority.cert
  const site = writePair(await authority.issue({ cn: 'site', dns: ['site.test'] }))
  encrypted = await startGateway({ workers: 1, config: { ...config, tls: { certificates: [site] } } })
})

afterAll(async () => {
  await gateway.close()
  await encrypted.close()
  await echo.close()
})

const headOf = (target: string, fields: Readonly<Record<string, string>>, version = '1.1') =>
  `POST ${target} HTTP/${version}\r\n${Object.entries({ Host: 'demo.test', ...fields })
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('')}\r\n`

const LENGTH = { 'Content-Length': String(BODY.length) }

describe.each(['cleartext', 'TLS'])('told to continue over %s', (over) => {
  const open = (): Promise<Connection> =>
    over === 'TLS'
      ? Connection.open(encrypted.port, '127.0.0.1', { ca, servername: 'site.test' })
      : Connection.open(gateway.port)

  test.for([
    ['a body that streams', '/open', {}],
    ['a body that is read whole', '/signed', signedHeaders(TEST, { method: 'POST', target: '/signed', body: BODY })],
  ] as const)('%s, once, in letters of any case', async ([, target, signature], context) => {
    requireGate(context, gateway)
    const connection = await open()
    for (const form of FORMS) {
      for (const chunked of [false, true]) {
        const framing: Record<string, string> = chunked ? { 'Transfer-Encoding': 'chunked' } : LENGTH
        await connection.write(headOf(target, { ...signature, Expect: form, ...framing }))
        expect((await connection.reader.until('\r\n\r\n')).toString()).toBe('HTTP/1.1 100 Continue')
        await connection.write(chunked ? `5\r\n${BODY}\r\n0\r\n\r\n` : BODY)
        const answer = await connection.answer()
        expect([answer.status, answer.interim]).toEqual([200, []])
        const seen = answer.json<Seen>()
        expect(seen.bodySha256).toBe(sha256(BODY))
        expect(headerOf(seen, 'expect')).toEqual([])
      }
    }
    connection.destroy()
  })
})

test('also where the head comes byte by byte', async (context) => {
  requireGate(context, gateway)
  for (const form of FORMS) {
    const connection = await Connection.open(gateway.port)
    for (const byte of headOf('/open', { Expect: form, ...LENGTH })) await connection.write(byte)
    expect((await connection.reader.until('\r\n\r\n')).toString()).toBe('HTTP/1.1 100 Continue')
    await connection.write(BODY)
    expect((await connection.answer()).json<Seen>().bodyBytes).toBe(BODY.length)
    connection.destroy()
  }
})

describe('not told to continue', () => {
  test.for([
    ['no route', '/nowhere', {}, 404],
    ['no credentials', '/signed', {}, 401],
    ['a wrong signature of the head', '/headers-signed', { 'x-source': 'test', 'x-time': '1', 'x-m': '0' }, 401],
    ['a body over the limit', '/small', {}, 413],
    ['over a rate limit', '/limited', { 'X-Client': 'a' }, 429],
    ['a fallback that answers by itself', '/stood-in-for', {}, 200],
  ] as const)('%s: the answer alone, and the connection ends', async ([, target, fields, status], context) => {
    requireGate(context, gateway)
    if (target === '/limited') {
      const first = await Connection.open(gateway.port)
      expect((await first.exchange({ method: 'POST', target, headers: fields, body: BODY })).status).toBe(200)
      first.destroy()
    }
    for (const form of FORMS) {
      const connection = await Connection.open(gateway.port)
      await connection.write(headOf(target, { ...fields, Expect: form, ...LENGTH }))
      const answer = await connection.answer()
      // The fallback's service is asked first, and wants the body.
      expect([answer.status, answer.interim]).toEqual([status, status === 200 ? [100] : []])
      if (status !== 200) {
        expect(answer.one('connection')).toBe('close')
        await connection.closedByPeer()
      }
      connection.destroy()
    }
  })

  test('a body that is too large to be held: the answer alone', async (context) => {
    requireGate(context, gateway)
    const signature = signedHeaders(TEST, { method: 'POST', target: '/signed', body: BODY })
    for (const form of FORMS) {
      const connection = await Connection.open(gateway.port)
      await connection.write(headOf('/signed', { ...signature, Expect: form, 'Content-Length': String(HOLDABLE + 1) }))
      const answer = await connection.answer()
      expect([answer.status, answer.interim]).toEqual([413, []])
      await connection.closedByPeer()
    }
  })

  test('a GET that is refused', async (context) => {
    requireGate(context, gateway)
    for (const form of FORMS) {
      const connection = await Connection.open(gateway.port)
      await connection.write(headOf('/signed', { Expect: form, ...LENGTH }).replace('POST', 'GET'))
      const answer = await connection.answer()
      expect([answer.status, answer.interim]).toEqual([401, []])
      await connection.closedByPeer()
    }
  })

  test('without a body', async (context) => {
    requireGate(context, gateway)
    const connection = await Connection.open(gateway.port)
    for (const form of FORMS) {
      await connection.write(headOf('/open', { Expect: form, 'Content-Length': '0' }))
      expect((await connection.answer()).interim).toEqual([])
    }
    connection.destroy()
  })

  test('a field that expects nothing: the connection goes on, also behind a refusal', async () => {
    const connection = await Connection.open(gateway.port)
    for (const [target, status] of [
      ['/nowhere', 404],
      ['/open', 200],
    ] as const) {
      await connection.write(headOf(target, { Expect: '', ...LENGTH }) + BODY)
      const answer = await connection.answer()
      expect([answer.status, answer.interim, answer.one('connection')]).toEqual([status, [], null])
    }
    connection.destroy()
  })

  test('in HTTP/1.0', async (context) => {
    requireAcceptor(context)
    for (const form of FORMS) {
      const connection = await Connection.open(gateway.port)
      await connection.write(headOf('/open', { Expect: form, ...LENGTH }, '1.0') + BODY)
      const answer = await connection.answer()
      expect([answer.status, answer.interim]).toEqual([200, []])
      connection.destroy()
    }
  })
})

// What uWS takes for blanks around a value (bytes over 127), and JavaScript's trim() for one (A0), is none.
test.for([
  ...['x', '100-continue, x', 'X=1;y', '200-ok', '100-continued'],
  ...['\xa0100-continue', '100-continue\xa0', '\x80100-continue', '\xa0100-Continue'],
])('expecting %s is answered 417 alone, with a line in the log', async (form, context) => {
  requireGate(context, gateway)
  const before = echo.requests.all.length
  const connection = await Connection.open(gateway.port)
  await connection.write(Buffer.from(headOf('/open', { Expect: form, ...LENGTH }), 'latin1'))
  const answer = await connection.answer()
  expect([answer.status, answer.interim]).toEqual([417, []])
  expect(answer.json<{ code: string }>().code).toBe('expectation_failed')
  await connection.closedByPeer()
  expect(await gateway.logged(answer)).toMatchObject({ code: 'expectation_failed', reason: 'unknown expectation' })
  expect(echo.requests.all.length).toBe(before)
})
