// The closed list of outcomes, provoked one by one: status, problem body, request id, and exactly one access line for
// each.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { OUTCOMES, type OutcomeCode } from '../../src/exchange/outcome.js'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, refusingPort, startEcho, startScripted } from '../support/origins.js'
import { type Answer, Connection, call, type RequestParts } from '../support/raw-client.js'
import { signedHeaders, TEST } from '../support/signing.js'
import { eventually } from '../support/waiting.js'

let echo: Origin
let silent: Origin
let gateway: Gateway
/** What the log must say of the refusals, in the end. */
const expected: [Answer, OutcomeCode][] = []
/** Of every answer that was given. */
const rids: string[] = []

beforeAll(async () => {
  echo = await startEcho()
  silent = await startScripted({
    '/silent': (exchange) => exchange.closed(),
    '/fails': (exchange) => exchange.answer(503),
  })
  const refusing = `http://127.0.0.1:${await refusingPort()}`
  gateway = await startGateway({
    config: {
      consumers: { test: { secret: TEST.secret }, other: { secret: 'the-secret-of-other' } },
      services: {
        echo: { endpoints: [echo.url] },
        silent: { endpoints: [silent.url], timeouts: { firstByte: '200ms' } },
        fails: {
          endpoints: [silent.url],
          breaker: { window: '60s', minRequests: 1, failureRatio: 0.5, openFor: '60s', maxOpenFor: '60s' },
        },
        refusing: { endpoints: [refusing] },
        down: {
          endpoints: [refusing],
          health: { path: '/', interval: '1s', timeout: '1s', healthyAfter: 1, unhealthyAfter: 1 },
        },
      },
      routes: [
        { match: { path: '/open' }, service: 'echo', auth: 'none', maxBody: 100 },
        { match: { path: '/signed' }, service: 'echo', auth: 'x-m', maxBody: 100 },
        { match: { path: '/forbidden' }, service: 'echo', auth: 'x-m', allow: ['other'] },
        {
          match: { path: '/limited' },
          service: 'echo',
          auth: 'none',
          limits: [{ by: 'route', rate: '1/h', burst: 1 }],
        },
        { match: { path: '/silent' }, service: 'silent', auth: 'none' },
        { match: { path: '/fails' }, service: 'fails', auth: 'none' },
        { match: { path: '/refusing' }, service: 'refusing', auth: 'none' },
        { match: { path: '/down' }, service: 'down', auth: 'none' },
      ],
    },
  })
  await gateway.log.find((line) => line.msg === 'endpoint is down', 'the endpoint of down')
})

afterAll(async () => {
  await gateway.close()
  await echo.close()
  await silent.close()
})

async function ask(parts: RequestParts): Promise<Answer> {
  const answer = await call(gateway.port, parts)
  rids.push(answer.rid)
  return answer
}

const twice = async (parts: RequestParts): Promise<Answer> => {
  expect((await ask(parts)).status).not.toBe(429)
  return ask(parts)
}

const provoked: [OutcomeCode, string, () => Promise<Answer>][] = [
  [
    'bad_request',
    'a coding that is not chunked',
    () => ask({ target: '/open', headers: { 'Transfer-Encoding': 'gzip' } }),
  ],
  ['unauthorized', 'no credentials', () => ask({ target: '/signed' })],
  [
    'forbidden',
    'not allowed',
    () => ask({ target: '/forbidden', headers: signedHeaders(TEST, { target: '/forbidden' }) }),
  ],
  ['no_route', 'an unknown path', () => ask({ target: '/nowhere' })],
  ['body_too_large', 'a declared length', () => ask({ method: 'POST', target: '/open', body: 'x'.repeat(101) })],
  [
    'body_too_large',
    'chunks that are passed on',
    () => ask({ method: 'POST', target: '/open', chunks: ['x'.repeat(101)] }),
  ],
  [
    'body_too_large',
    'chunks that are gathered',
    () =>
      ask({
        method: 'POST',
        target: '/signed',
        chunks: ['x'.repeat(101)],
        headers: signedHeaders(TEST, { method: 'POST', target: '/signed', body: 'x'.repeat(101) }),
      }),
  ],
  ['rate_limited', 'a second request', () => twice({ target: '/limited' })],
  ['upstream_error', 'a service that refuses', () => ask({ target: '/refusing' })],
  ['breaker_open', 'a service that failed', () => twice({ target: '/fails' })],
  ['no_endpoint', 'a service whose endpoints are all down', () => ask({ target: '/down' })],
  ['upstream_timeout', 'a service that says nothing', () => ask({ target: '/silent' })],
]

describe('every outcome', () => {
  test.each(provoked)('%s: %s', async (code, _what, provoke) => {
    const answer = await provoke()
    const { status, title } = OUTCOMES[code]
    expect(answer.status).toBe(status)
    expect(answer.one('content-type')).toBe('application/problem+json')
    expect(answer.rid).toMatch(/^[0-9a-f]{32}$/)
    expect(answer.json()).toEqual({ type: 'about:blank', title, status, code, rid: answer.rid })
    const hasRetryAfter = status === 429 || status === 503
    expect(answer.one('retry-after')).toEqual(hasRetryAfter ? expect.stringMatching(/^[1-9]\d*$/) : null)
    expected.push([answer, code])
  })

  test('answers a HEAD request with the same head and no body', async () => {
    const answer = await ask({ method: 'HEAD', target: '/nowhere' })
    expect(answer.status).toBe(404)
    expect(answer.one('content-type')).toBe('application/problem+json')
    expect(Number(answer.one('content-length'))).toBeGreaterThan(0)
    expect(answer.body.length).toBe(0)
  })

  test('is logged exactly once, with its code and a reason', async () => {
    await gateway.close()
    const lines = gateway.access.all
    expect(lines.map((line) => line.rid).toSorted()).toEqual(rids.toSorted())
    for (const [answer, code] of expected) {
      const line = lines.find(({ rid }) => rid === answer.rid)
      const said = { status: answer.status, code, method: expect.any(String), path: expect.any(String) }
      expect(line).toMatchObject({ ...said, reason: expect.stringMatching(/./) })
    }
  })
})

describe('a request whose framing is in doubt is answered 400, ends its connection and reaches no service', () => {
  let own: Gateway
  beforeAll(async () => {
    own = await startGateway({
      config: {
        services: { echo: { endpoints: [echo.url] } },
        routes: [{ match: { path: '/' }, service: 'echo', auth: 'none' }],
      },
    })
  })
  afterAll(() => own.close())

  const HOST = 'Host: demo.test\r\n'
  test.each([
    ['two lengths that differ', `POST / HTTP/1.1\r\n${HOST}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello`],
    ['two lengths that are equal', `POST / HTTP/1.1\r\n${HOST}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello`],
    ['a length that is a list', `POST / HTTP/1.1\r\n${HOST}Content-Length: 5, 5\r\n\r\nhello`],
    ['a length with a sign', `POST / HTTP/1.1\r\n${HOST}Content-Length: +5\r\n\r\nhello`],
    ['a negative length', `POST / HTTP/1.1\r\n${HOST}Content-Length: -5\r\n\r\nhello`],
    ['a length in hex', `POST / HTTP/1.1\r\n${HOST}Content-Length: 0x5\r\n\r\nhello`],
    [
      'a length and a coding',
      `POST / HTTP/1.1\r\n${HOST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    ],
    [
      'a coding and a length',
      `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n`,
    ],
    ['identity', `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: identity\r\n\r\n`],
    ['two codings', `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`],
    [
      'chunked twice',
      `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    ],
    ['a blank before the colon', `GET / HTTP/1.1\r\n${HOST}Content-Length : 5\r\n\r\nhello`],
    ['no Host', 'GET / HTTP/1.1\r\nAccept: */*\r\n\r\n'],
    ['two Hosts', `GET / HTTP/1.1\r\n${HOST}Host: other.test\r\n\r\n`],
    ['a Host with userinfo', 'GET / HTTP/1.1\r\nHost: user@demo.test\r\n\r\n'],
    ['a Host with a blank', 'GET / HTTP/1.1\r\nHost: demo test\r\n\r\n'],
    ['a fragment', `GET /#part HTTP/1.1\r\n${HOST}\r\n`],
    ['bytes in the target that are not ASCII', `GET /\xc3\xa4 HTTP/1.1\r\n${HOST}\r\n`],
    ['CONNECT', `CONNECT demo.test:443 HTTP/1.1\r\n${HOST}\r\n`, 505],
    ['no version', 'GET /\r\n\r\n', 505],
    ['nonsense', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n', 505],
  ] as [string, string, number?][])('%s', async (_name, bytes, status = 400) => {
    const before = echo.requests.all.length
    const connection = await Connection.open(own.port)
    await connection.write(bytes)
    const answer = await connection.answer()
    // Without the native gate before it, 505 is what uWS calls a request line it cannot read.
    expect([400, status]).toContain(answer.status)
    await connection.closedByPeer()
    expect(echo.requests.all.length).toBe(before)
  })

  test('a head over the limit is answered 431', async () => {
    const connection = await Connection.open(own.port)
    await connection.write(`GET / HTTP/1.1\r\n${HOST}X-Long: ${'x'.repeat(20_000)}\r\n\r\n`)
    expect((await connection.answer()).status).toBe(431)
    await connection.closedByPeer()
  })

  test('a head within the limit, with more than Node allows by default, is served', async () => {
    const answer = await call(own.port, { headers: { 'X-Long': 'x'.repeat(12_000) } })
    expect(answer.status).toBe(200)
  })
})

test('more requests than an endpoint can have waiting are answered 503 overloaded', async () => {
  const own = await startGateway({
    workers: 1,
    config: {
      services: { silent: { endpoints: [silent.url] } },
      routes: [{ match: { path: '/silent' }, service: 'silent', auth: 'none' }],
    },
    env: { TIDEGATE_UPSTREAM_CONNECTIONS: '1' },
  })
  // One on the connection, 1024 waiting for it.
  const connections = await Promise.all(Array.from({ length: 1025 }, () => Connection.open(own.port)))
  await Promise.all(connections.map((one) => one.send({ target: '/silent' })))
  await eventually('all requests in flight', () => own.metric('tidegate_requests_in_flight{worker="0"}'), 1025)
  const answer = await call(own.port, { target: '/silent' })
  expect(answer.status).toBe(503)
  expect(answer.json()).toMatchObject({ code: 'overloaded' })
  for (const one of connections) one.destroy()
  await own.access.take(1025, (line) => line.code === 'client_closed' && line.status === 499, 'those that left')
  await own.close()
})
