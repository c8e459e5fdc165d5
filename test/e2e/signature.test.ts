// Who is calling: signed requests get through, everything else ends at 401 with its reason in the log alone. The same
// suite runs with signatures checked on the event loop, bodies from 16 bytes on in the digest pool, and every check
// there.
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type AccessLine, type Gateway, startGateway } from '../support/gateway.js'
import { headerOf, type Origin, type Seen, sha256, startEcho, startScripted } from '../support/origins.js'
import { type Answer, Connection, call, type RequestParts, unauthorized } from '../support/raw-client.js'
import { type Caller, signedHeaders, TEST, withWrongDigit } from '../support/signing.js'
import { chunkOf } from '../support/wire.js'

const OTHER: Caller = { source: 'other', secret: 'the-secret-of-other' }

const config = (echo: string, streaming: string) => ({
  consumers: {
    test: { secret: TEST.secret },
    other: { secret: OTHER.secret },
    rotating: { secret: ['the-old-secret-of-test', 'the-new-secret-of-test'] },
    'by-sha1': { secret: 'the-secret-of-sha1', algorithm: 'sha1' },
    'by-md5': { secret: 'the-secret-of-md5', algorithm: 'md5' },
    'by-legacy': { secret: 'the-secret-of-legacy', algorithm: 'md5', signs: 'legacy' },
  },
  services: { echo: { endpoints: [echo] }, streaming: { endpoints: [streaming] } },
  routes: [
    { match: { path: '/' }, service: 'echo', auth: 'x-m' },
    { match: { path: '/only-test' }, service: 'echo', auth: 'x-m', allow: ['test'] },
    { match: { path: '/narrow' }, service: 'echo', auth: 'x-m', maxSkew: '10s' },
    { match: { path: '/streamed' }, service: 'streaming', auth: 'x-m', signBody: false, maxBody: 'unlimited' },
  ],
})

const now = () => Math.floor(Date.now() / 1000)

describe.each([
  ['on the event loop', '1048576'],
  ['in the pool from 16 bytes on', '16'],
  ['all in the pool', '0'],
])('signatures checked %s', (_, offloadBytes) => {
  let echo: Origin
  let streaming: Origin
  let gateway: Gateway

  beforeAll(async () => {
    echo = await startEcho()
    streaming = await startScripted({
      '/streamed': async (exchange) => {
        const { bytes } = await exchange.body()
        await exchange.answer(200, {}, sha256(bytes))
      },
    })
    gateway = await startGateway({
      config: config(echo.url, streaming.url),
      env: { TIDEGATE_HMAC_OFFLOAD_BYTES: offloadBytes },
    })
  })

  afterAll(async () => {
    await gateway.close()
    await echo.close()
    await streaming.close()
  })

  const signed = (caller: Caller, parts: RequestParts & { time?: number } = {}): RequestParts => {
    const { time, ...request } = parts
    const whole =
      parts.chunks === undefined ? parts.body : Buffer.concat(parts.chunks.map((chunk) => Buffer.from(chunk as string)))
    return {
      ...request,
      headers: {
        ...signedHeaders(caller, {
          ...(parts.method === undefined ? {} : { method: parts.method }),
          ...(parts.target === undefined ? {} : { target: parts.target }),
          ...(whole === undefined ? {} : { body: whole }),
          ...(time === undefined ? {} : { time }),
        }),
        ...parts.headers,
      },
    }
  }

  describe('let through', () => {
    test('a signed request, with the body of the service and a request id of 32 hex digits', async () => {
      const answer = await call(gateway.port, signed(TEST))
      expect(answer.status).toBe(200)
      expect(answer.rid).toMatch(/^[0-9a-f]{32}$/)
      const seen = answer.json<Seen>()
      expect(seen).toMatchObject({ method: 'GET', url: '/', bodyBytes: 0 })
      expect(headerOf(seen, 'x-rid')).toEqual([answer.rid])
      expect(await gateway.logged(answer)).toMatchObject({ consumer: 'test', status: 200, attempts: 1 })
    })

    test.each([
      ['a query', { target: '/path?b=2&a=%20x' }],
      ['an empty query', { target: '/path?' }],
      ['escapes', { target: '/a%20b/c~' }],
      ['a short body', { method: 'POST', body: 'hello' }],
      ['a body of no bytes', { method: 'POST', body: '' }],
      ['bytes that are no text', { method: 'PUT', body: randomBytes(300) }],
      ['a body over the threshold of the pool', { method: 'POST', body: randomBytes(150_000) }],
      ['a body in chunks', { method: 'POST', chunks: ['hel', 'lo ', randomBytes(40_000)] }],
      ['a method of its own', { method: 'PURGE' }],
    ] as [string, RequestParts][])('one with %s, unchanged', async (_name, parts) => {
      const answer = await call(gateway.port, signed(TEST, parts))
      expect(answer.status).toBe(200)
      const body = Buffer.concat([parts.body ?? '', ...(parts.chunks ?? [])].map((part) => Buffer.from(part as string)))
      expect(answer.json<Seen>()).toMatchObject({
        method: parts.method ?? 'GET',
        url: parts.target ?? '/',
        bodyBytes: body.length,
        bodySha256: sha256(body),
      })
    })

    test('one whose path was signed as it was sent; the service gets what it means', async () => {
      const answer = await call(gateway.port, signed(TEST, { target: '/x/../a//%62%7e?c=%64' }))
      expect(answer.status).toBe(200)
      expect(answer.json<Seen>().url).toBe('/a/b~?c=%64')
      expect((await gateway.logged(answer)).path).toBe('/x/../a//%62%7e')
    })

    test.each([
      ['300 s ahead', () => now() + 300],
      ['299 s behind', () => now() - 299],
    ])('one whose x-time is %s', async (_name, time) => {
      expect((await call(gateway.port, signed(TEST, { time: time() }))).status).toBe(200)
    })

    test.each(['the-old-secret-of-test', 'the-new-secret-of-test'])(
      'either secret while one is being rotated out',
      async (secret) => {
        expect((await call(gateway.port, signed({ source: 'rotating', secret }))).status).toBe(200)
      },
    )

    test.each([
      { source: 'by-sha1', secret: 'the-secret-of-sha1', algorithm: 'sha1' },
      { source: 'by-md5', secret: 'the-secret-of-md5', algorithm: 'md5' },
    ] as Caller[])('a consumer whose config says $algorithm', async (caller) => {
      const answer = await call(gateway.port, signed(caller, { method: 'POST', body: 'a body of some bytes' }))
      expect(answer.status).toBe(200)
    })

    test('a legacy signature, which covers source and time alone', async () => {
      const caller: Caller = { source: 'by-legacy', secret: 'the-secret-of-legacy', algorithm: 'md5', legacy: true }
      const headers = signedHeaders(caller)
      for (const target of ['/', '/another?path']) {
        expect((await call(gateway.port, { method: 'POST', target, headers, body: 'anything' })).status).toBe(200)
      }
    })

    test('a consumer that the route lets in', async () => {
      expect((await call(gateway.port, signed(TEST, { target: '/only-test' }))).status).toBe(200)
    })

    test('a body that the signature does not cover, while it is still being sent', async () => {
      const connection = await Connection.open(gateway.port)
      const headers = signedHeaders(TEST, { method: 'POST', target: '/streamed?a', withoutBody: true })
      const before = streaming.requests.all.length
      await connection.write(
        `POST /streamed?a HTTP/1.1\r\nHost: demo.test\r\nTransfer-Encoding: chunked\r\n${Object.entries(headers)
          .map(([name, value]) => `${name}: ${value}\r\n`)
          .join('')}\r\n`,
      )
      await connection.write(chunkOf('first half, '))
      // The service has the head although the body is not complete.
      await streaming.requests.take(before + 1, () => true, 'the streamed request')
      await connection.write(chunkOf('second half'))
      await connection.write('0\r\n\r\n')
      const answer = await connection.answer()
      connection.destroy()
      expect(answer.status).toBe(200)
      expect(answer.text).toBe(sha256('first half, second half'))
    })
  })

  describe('refused', () => {
    /** What the log must say of them, in the end: lines are written in batches. */
    const expected: [Answer, Partial<AccessLine>][] = []
    const refused = async (parts: RequestParts, reason: string): Promise<void> => {
      const before = echo.requests.all.length
      const answer = await call(gateway.port, parts)
      expect(answer.status).toBe(401)
      expect(answer.one('www-authenticate')).not.toBeNull()
      expect(answer.one('content-type')).toBe('application/problem+json')
      // What exactly was wrong is not for the caller.
      expect(answer.json()).toEqual(unauthorized(answer))
      expected.push([answer, { status: 401, code: 'unauthorized', reason, attempts: 0 }])
      expect(echo.requests.all.length).toBe(before)
    }
    const without = (name: string): RequestParts => {
      const headers: Record<string, string> = signedHeaders(TEST)
      delete headers[name]
      return { headers }
    }
    const more = (name: string, value: string): RequestParts => {
      const headers: Record<string, string> = signedHeaders(TEST)
      return { headers: { ...headers, [name]: [headers[name] as string, value] } }
    }

    test.each([
      ['without x-m', 'x-m missing', () => without('x-m')],
      ['without x-source', 'x-source missing', () => without('x-source')],
      ['without x-time', 'x-time missing or not Unix seconds', () => without('x-time')],
      ['with a second x-source', 'several x-source, x-time or x-m fields', () => more('x-source', OTHER.source)],
      ['with the same x-source twice', 'several x-source, x-time or x-m fields', () => more('x-source', TEST.source)],
      ['with a second x-time', 'several x-source, x-time or x-m fields', () => more('x-time', '1')],
      ['with a second, empty x-m', 'several x-source, x-time or x-m fields', () => more('x-m', '')],
      ['of nobody we know', 'x-source unknown', () => signed({ source: 'nobody', secret: TEST.secret })],
      ['signed by somebody else', 'x-m does not match', () => signed({ ...OTHER, source: 'test' })],
      ['301 s old', 'x-time outside the allowed skew', () => signed(TEST, { time: now() - 301 })],
      // A second may begin on the way, and then 301 are 300.
      ['from the future', 'x-time outside the allowed skew', () => signed(TEST, { time: now() + 330 })],
      [
        'beyond a narrower skew of the route',
        'x-time outside the allowed skew',
        () => signed(TEST, { target: '/narrow', time: now() - 11 }),
      ],
      [
        'whose x-time is no number',
        'x-time missing or not Unix seconds',
        () => ({ headers: { ...signedHeaders(TEST), 'x-time': 'yesterday' } }),
      ],
    ] as [string, string, () => RequestParts][])('one %s', (_name, reason, parts) => refused(parts(), reason))

    const altered = (change: RequestParts, original: RequestParts = {}): RequestParts => ({
      ...signed(TEST, original),
      ...change,
    })
    test.each([
      [
        'with one digit changed',
        () => {
          const headers = signedHeaders(TEST)
          return { headers: { ...headers, 'x-m': withWrongDigit(headers['x-m']) } }
        },
      ],
      [
        'in upper case',
        () => {
          const headers = signedHeaders(TEST)
          return { headers: { ...headers, 'x-m': headers['x-m'].toUpperCase() } }
        },
      ],
      ['cut short', () => ({ headers: { ...signedHeaders(TEST), 'x-m': signedHeaders(TEST)['x-m'].slice(0, 32) } })],
      ['for another path', () => altered({ target: '/other' })],
      ['for another query', () => altered({ target: '/?a=1' }, { target: '/?a=2' })],
      ['for a path without the empty query', () => altered({ target: '/?' })],
      ['for another method', () => altered({ method: 'DELETE' })],
      ['for another body', () => altered({ body: 'hellp' }, { method: 'POST', body: 'hello' })],
      ['for no body', () => altered({ method: 'POST', body: 'hello' }, { method: 'POST' })],
      ['for a body that was cut off', () => altered({ body: 'hell' }, { method: 'POST', body: 'hello' })],
      ['by an algorithm that the consumer does not use', () => signed({ ...TEST, algorithm: 'sha1' })],
      ['by a secret that was rotated out', () => signed({ source: 'rotating', secret: 'the-oldest-secret' })],
      ['for source and time alone, by a consumer that is not legacy', () => signed({ ...TEST, legacy: true })],
      [
        'over its body, where the route does not cover it',
        () => signed(TEST, { method: 'POST', target: '/streamed', body: 'hello' }),
      ],
    ] as [string, () => RequestParts][])('one signed %s', (_name, parts) => refused(parts(), 'x-m does not match'))

    test('one of a consumer that the route does not let in, with 403', async () => {
      const before = echo.requests.all.length
      const answer = await call(gateway.port, signed(OTHER, { target: '/only-test' }))
      expect(answer.status).toBe(403)
      expect(answer.json()).toMatchObject({ code: 'forbidden', title: 'Forbidden' })
      expect(await gateway.logged(answer)).toMatchObject({ code: 'forbidden', consumer: 'other', attempts: 0 })
      expect(echo.requests.all.length).toBe(before)
    })

    test('each of them is logged with its reason', async () => {
      expect(expected.length).toBeGreaterThan(20)
      for (const [answer, line] of expected) expect(await gateway.logged(answer)).toMatchObject(line)
    })

    test('and the connection goes on after a body that nobody read', async () => {
      const connection = await Connection.open(gateway.port)
      const bad = await connection.exchange({ method: 'POST', body: randomBytes(100_000) })
      expect(bad.status).toBe(401)
      const good = await connection.exchange(signed(TEST, { method: 'POST', body: 'hello' }))
      expect(good.status).toBe(200)
      connection.destroy()
    })
  })
})

describe('more signatures than the pool can queue', () => {
  test('are answered 503 overloaded and never reach the service, while the rest is served', async () => {
    const echo = await startEcho()
    const gateway = await startGateway({
      config: config(echo.url, echo.url),
      workers: 1,
      env: { TIDEGATE_HMAC_OFFLOAD_BYTES: '0' },
    })
    const connections = await Promise.all(Array.from({ length: 200 }, () => Connection.open(gateway.port)))
    const answers = await Promise.all(connections.map((one) => one.exchange({ headers: signedHeaders(TEST) })))
    for (const one of connections) one.destroy()
    const served = answers.filter((answer) => answer.status === 200)
    const refused = answers.filter((answer) => answer.status === 503)
    expect(served.length + refused.length).toBe(200)
    expect(served.length).toBeGreaterThanOrEqual(64)
    expect(refused.length).toBeGreaterThan(0)
    expect(refused[0]!.json()).toMatchObject({ code: 'overloaded' })
    expect(refused[0]!.one('retry-after')).toMatch(/^[1-9]\d*$/)
    expect(echo.requests.all.length).toBe(served.length)
    await gateway.close()
    await echo.close()
  })
})
