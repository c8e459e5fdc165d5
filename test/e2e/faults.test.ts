// Services that fail in every way a socket allows: what the client gets, one access line each, and a gateway that goes
// on.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, refusingPort, type Script, startDeaf, startScripted } from '../support/origins.js'
import { type Answer, Connection, call } from '../support/raw-client.js'
import { ConnectionCut } from '../support/wire.js'

const after =
  (text: string, then: 'reset' | 'end'): Script =>
  async (exchange) => {
    if (text !== '') await exchange.send(text)
    exchange[then]()
  }
const stallAfter =
  (text: string): Script =>
  async (exchange) => {
    await exchange.send(text)
    await exchange.closed()
  }
const HALF = `HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n${'x'.repeat(50_000)}`
const HALF_CHUNKED = `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n`

const scripts: Record<string, Script> = {
  '/well': (exchange) => exchange.answer(200, {}, 'well'),
  '/reset/before': after('', 'reset'),
  '/end/before': after('', 'end'),
  '/reset/in-status': after('HTTP/1.1 2', 'reset'),
  '/reset/in-header': after('HTTP/1.1 200 OK\r\nX-Half: ha', 'reset'),
  '/end/in-header': after('HTTP/1.1 200 OK\r\nX-Half: ha', 'end'),
  '/garbage/text': after('this is no HTTP\r\n\r\n', 'end'),
  '/garbage/bytes': after('\x16\x03\x01\x00\xff\x00\x00\r\n\r\n', 'end'),
  '/garbage/status': after('HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n', 'end'),
  '/garbage/header': after('HTTP/1.1 200 OK\r\nNo Colon Here\r\nContent-Length: 0\r\n\r\n', 'end'),
  '/garbage/length': after('HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n', 'end'),
  '/garbage/two-lengths': after('HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab', 'end'),
  '/garbage/two-framings': after(
    'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n',
    'end',
  ),
  '/garbage/long-head': after(`HTTP/1.1 200 OK\r\nX-Long: ${'x'.repeat(100_000)}\r\n\r\n`, 'end'),
  '/cut/reset-in-length': after(HALF, 'reset'),
  '/cut/end-in-length': after(HALF, 'end'),
  '/cut/reset-in-chunks': after(HALF_CHUNKED, 'reset'),
  '/cut/end-in-chunks': after(HALF_CHUNKED, 'end'),
  '/cut/bad-chunk': after(`${HALF_CHUNKED}zz\r\nhello\r\n0\r\n\r\n`, 'end'),
  '/stall/before': (exchange) => exchange.closed(),
  '/stall/in-header': stallAfter('HTTP/1.1 200 OK\r\nX-Half: ha'),
  '/stall/in-length': stallAfter(HALF),
  '/stall/in-chunks': stallAfter(HALF_CHUNKED),
  '/trickle': async (exchange) => {
    await exchange.send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
    const timer = setInterval(() => exchange.chunk('x').catch(() => clearInterval(timer)), 50)
    await exchange.closed()
    clearInterval(timer)
  },
}

let origin: Origin
let deaf: Awaited<ReturnType<typeof startDeaf>>
let gateway: Gateway

beforeAll(async () => {
  origin = await startScripted(scripts)
  deaf = await startDeaf()
  const service = (endpoints: string[], timeouts: object = {}) => ({
    endpoints,
    timeouts: { firstByte: '5s', ...timeouts },
  })
  const route = (path: string, name: string) => ({ match: { path }, service: name, auth: 'none' })
  gateway = await startGateway({
    config: {
      services: {
        faulty: service([origin.url]),
        refusing: service([`http://127.0.0.1:${await refusingPort()}`]),
        'not-there': service(['http://no-such-host.invalid']),
        deaf: service([`http://127.0.0.1:${deaf.port}`], { connect: '200ms' }),
        hasty: service([origin.url], { firstByte: '300ms', idle: '300ms', total: '1s' }),
        'all-in-all': service([origin.url], { firstByte: 'none', idle: 'none', total: '400ms' }),
      },
      routes: [
        route('/', 'faulty'),
        route('/refusing', 'refusing'),
        route('/not-there', 'not-there'),
        route('/deaf', 'deaf'),
        route('/stall', 'hasty'),
        route('/trickle', 'all-in-all'),
      ],
    },
  })
})

afterAll(async () => {
  await gateway.close()
  await origin.close()
  deaf.close()
})

/** The worker that had the fault serves the next request, on the same connection. */
async function faulted(target: string, method = 'GET'): Promise<Answer> {
  const connection = await Connection.open(gateway.port)
  const answer = await connection.exchange({ method, target, ...(method === 'POST' ? { body: 'x' } : {}) })
  expect((await connection.exchange({ target: '/well' })).text).toBe('well')
  connection.destroy()
  return answer
}

describe('before anything was passed on: 502', () => {
  test.each(Object.keys(scripts).filter((target) => /^\/(reset|end|garbage)\//.test(target)))('%s', async (target) => {
    const answer = await faulted(target)
    expect(answer.status).toBe(502)
    expect(answer.json()).toMatchObject({ code: 'upstream_error' })
  })

  test.each(['/refusing', '/not-there'])('%s', async (target) => {
    const answer = await faulted(target)
    expect(answer.status).toBe(502)
    expect(await gateway.logged(answer)).toMatchObject({ code: 'upstream_error', attempts: 1 })
  })

  test('a request that may not be repeated reaches the service once, one that may at most twice', async () => {
    for (const [method, most] of [
      ['POST', 1],
      ['GET', 2],
    ] as const) {
      const target = `/reset/before?${method}`
      const line = await gateway.logged(await faulted(target, method))
      const seen = origin.requests.all.filter(({ url }) => url === target).length
      expect(seen).toBeLessThanOrEqual(most)
      expect(line.attempts).toBe(seen)
    }
  })
})

describe('after the answer has begun: the connection is cut, so that it cannot look complete', () => {
  test.each([
    ['/cut/reset-in-length', 'upstream_error'],
    ['/cut/end-in-length', 'upstream_error'],
    ['/cut/reset-in-chunks', 'upstream_error'],
    ['/cut/end-in-chunks', 'upstream_error'],
    ['/cut/bad-chunk', 'upstream_error'],
    ['/stall/in-length', 'upstream_timeout'],
    ['/stall/in-chunks', 'upstream_timeout'],
    ['/trickle', 'upstream_timeout'],
  ])('%s', async (target, code) => {
    const connection = await Connection.open(gateway.port)
    await connection.send({ target })
    await expect(connection.answer()).rejects.toThrow(ConnectionCut)
    connection.destroy()
    const line = await gateway.access.find((one) => one.path === target, target)
    expect(line).toMatchObject({ status: 200, code, attempts: 1 })
    expect(line.bytesOut).toBeGreaterThan(0)
    expect((await call(gateway.port, { target: '/well' })).text).toBe('well')
  })
})

describe('deadlines: 504', () => {
  test.each([
    ['/stall/before', 'first byte timeout'],
    ['/stall/in-header', 'first byte timeout'],
    ['/deaf', 'connect timeout'],
  ])('%s', async (target, reason) => {
    const answer = await faulted(target)
    expect(answer.status).toBe(504)
    expect(answer.json()).toMatchObject({ code: 'upstream_timeout' })
    expect(await gateway.logged(answer)).toMatchObject({ code: 'upstream_timeout', reason, attempts: 1 })
  })
})

test('each of them was logged once', async () => {
  await gateway.close()
  const times = new Map<string, number>()
  for (const { path } of gateway.access.all) times.set(path, (times.get(path) ?? 0) + 1)
  times.delete('/well')
  for (const [path, count] of times) expect(count, path).toBe(path === '/reset/before' ? 3 : 1)
  for (const line of gateway.access.all.filter(({ status }) => status === 502)) {
    expect(line, line.path).toMatchObject({ code: 'upstream_error', reason: expect.stringMatching(/./) })
  }
})

// undici's parser is mended with the first connection (undici.ts): none of these ever is one.
test('a service that undici speaks to and never reaches', async () => {
  const port = await refusingPort()
  const unreachable = await startGateway({
    config: {
      services: {
        cleartext: { endpoints: [`http://127.0.0.1:${port}`], client: 'undici' },
        tls: { endpoints: [`https://127.0.0.1:${port}`] },
      },
      routes: ['cleartext', 'tls'].map((name) => ({ match: { path: `/${name}` }, service: name, auth: 'none' })),
    },
  })
  for (const target of ['/cleartext', '/tls']) {
    const answer = await call(unreachable.port, { target })
    expect([answer.status, answer.json()]).toEqual([502, expect.objectContaining({ code: 'upstream_error' })])
  }
  await unreachable.close()
})
