// HTTP/1.0 on the port of HTTP/1.1: the acceptor's relay puts it into HTTP/1.1 for uWebSockets.js and the answer back,
// and every phase is passed as by any other request.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import {
  headerOf,
  type Origin,
  type RawExchange,
  type Seen,
  sha256,
  startEcho,
  startScripted,
} from '../support/origins.js'
import { startHaproxy, startNginx } from '../support/other-proxies.js'
import { type Answer, Connection, call, type RequestParts } from '../support/raw-client.js'
import { requireAcceptor, requireGate, requireTool } from '../support/requirements.js'
import { signedHeaders, TEST } from '../support/signing.js'
import { ConnectionCut } from '../support/wire.js'

const LARGE = Buffer.alloc(6_000_000, 'tidegate ')

let echo: Origin
let scripted: Origin
let gateway: Gateway
const ended = new Map<string, () => void>()
const endOf = (target: string): Promise<void> => new Promise((resolve) => ended.set(target, resolve))
const release = new Map<string, () => void>()
const released = (target: string): Promise<void> => new Promise((resolve) => release.set(target, resolve))

const config = (rest: object = {}) => ({
  consumers: { test: { secret: TEST.secret } },
  services: { echo: { endpoints: [echo.url] }, scripted: { endpoints: [scripted.url] } },
  routes: [
    { match: { path: '/' }, service: 'echo', auth: 'none', maxBody: 'unlimited' },
    { match: { host: 'only.test', path: '/host' }, service: 'echo', auth: 'none', preserveHost: true },
    { match: { path: '/preserved' }, service: 'echo', auth: 'none', preserveHost: true },
    { match: { path: '/signed' }, service: 'echo', auth: 'x-m', maxBody: '1MiB' },
    { match: { path: '/signed/whole' }, service: 'scripted', auth: 'x-m', rewrite: '/scripted/whole' },
    { match: { path: '/scripted' }, service: 'scripted', auth: 'none' },
  ],
  ...rest,
})

beforeAll(async () => {
  echo = await startEcho()
  scripted = await startScripted({
    '/scripted/silent': (exchange) => exchange.closed().then(() => ended.get(exchange.target)?.()),
    '/scripted/chunks': async (exchange) => {
      await exchange.send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
      await exchange.chunk('hello, ')
      await exchange.chunk('world')
      await exchange.send('0\r\n\r\n')
    },
    '/scripted/cut-chunks': (exchange) => cutAfter(exchange, 'Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n'),
    '/scripted/cut-length': (exchange) => cutAfter(exchange, 'Content-Length: 100\r\n\r\nhello'),
    '/scripted/held': async (exchange) => {
      await exchange.send('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst')
      await released(exchange.target)
      await exchange.send('-last')
    },
    '/scripted/large': (exchange) =>
      exchange.send(`HTTP/1.1 200 OK\r\nContent-Length: ${LARGE.length}\r\n\r\n`).then(() => exchange.send(LARGE)),
    '/scripted/whole': (exchange) =>
      exchange.method === 'HEAD'
        ? exchange.answer(200, { 'Content-Length': '5' })
        : exchange.body().then(({ bytes }) => exchange.answer(200, { 'X-Got': sha256(bytes) }, 'whole')),
    '/scripted/no-content': (exchange) => exchange.send('HTTP/1.1 204 No Content\r\n\r\n'),
    '/scripted/100': async (exchange) => {
      await exchange.body()
      await exchange.send('HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n')
      await exchange.answer(200, {}, String(exchange.head.one('expect')))
    },
  })
  gateway = await startGateway({ config: config({ trustedProxies: ['127.0.0.1/32'] }), workers: 2 })
})

async function cutAfter(exchange: RawExchange, rest: string): Promise<void> {
  await exchange.send(`HTTP/1.1 200 OK\r\n${rest}`)
  await released(exchange.target)
  exchange.reset()
}

afterAll(async () => {
  await gateway.close()
  await echo.close()
  await scripted.close()
})

beforeEach((context) => requireAcceptor(context))

/** Without Host and Connection, as HTTP/1.0 is spoken where nobody has heard of either. */
const ancient = (parts: RequestParts): Promise<Answer> => call(gateway.port, { version: '1.0', host: null, ...parts })
const seenBy = (answer: Answer): Seen => answer.json<Seen>()

describe('a request of HTTP/1.0', () => {
  test('is forwarded and logged as any other, and its connection ends with the answer', async () => {
    const connection = await Connection.open(gateway.port)
    const answer = await connection.exchange({ version: '1.0', target: '/some/path?q=1', headers: { 'X-Own': 'kept' } })
    expect(answer.status).toBe(200)
    expect(answer.one('connection')).toBe('close')
    await connection.closedByPeer()
    const seen = seenBy(answer)
    expect(seen).toMatchObject({ method: 'GET', url: '/some/path?q=1' })
    expect(headerOf(seen, 'x-own')).toEqual(['kept'])
    expect(headerOf(seen, 'x-forwarded-for')).toEqual(['127.0.0.1'])
    expect(headerOf(seen, 'x-forwarded-host')).toEqual(['demo.test'])
    expect(await gateway.logged(answer)).toMatchObject({
      client: '127.0.0.1',
      path: '/some/path',
      status: 200,
      attempts: 1,
    })
  })

  test('is said in Via to have come as one (RFC 9110, 7.6.3)', async () => {
    expect(headerOf(seenBy(await ancient({})), 'via')).toEqual(['1.0 tidegate'])
    expect(headerOf(seenBy(await ancient({ headers: { Via: '1.1 front' } })), 'via')).toEqual([
      '1.1 front, 1.0 tidegate',
    ])
    expect(headerOf(seenBy(await call(gateway.port)), 'via')).toEqual(['1.1 tidegate'])
  })

  test('believes a trusted proxy about the client', async () => {
    const answer = await ancient({ headers: { 'X-Forwarded-For': '192.0.2.7' } })
    expect(headerOf(seenBy(answer), 'x-forwarded-for')).toEqual(['192.0.2.7, 127.0.0.1'])
    expect((await gateway.logged(answer)).client).toBe('192.0.2.7')
  })

  test.each([
    ['none', null, '/', 200],
    ['none, where the route wants one', null, '/host', 200],
    ['one', 'only.test', '/host', 200],
    ['one that is none', 'user@only.test', '/', 400],
  ])('needs no Host: %s', async (_name, host, target, status) => {
    const answer = await ancient({ host, target })
    expect(answer.status).toBe(status)
    if (host === null) {
      expect(headerOf(seenBy(answer), 'x-forwarded-host')).toEqual([])
      expect(headerOf(seenBy(answer), 'forwarded')).toEqual(['for=127.0.0.1;proto=http'])
    }
    expect((await gateway.logged(answer)).route).toBe(
      status === 400 ? undefined : host === null ? '/' : 'only.test/host',
    )
  })

  test("names the service's own host where there is none to preserve", async () => {
    const answer = await ancient({ target: '/preserved' })
    expect(headerOf(seenBy(answer), 'host')).toEqual([new URL(echo.url).host])
  })

  test('with two Host fields is refused', async () => {
    const connection = await Connection.open(gateway.port)
    await connection.write('GET / HTTP/1.0\r\nHost: a.test\r\nHost: b.test\r\n\r\n')
    expect((await connection.answer()).status).toBe(400)
    await connection.closedByPeer()
  })

  test('has its signature checked, body and all', async () => {
    const body = 'signed '.repeat(5000)
    const headers = signedHeaders(TEST, { method: 'POST', target: '/signed', body })
    const answer = await ancient({ method: 'POST', target: '/signed', body, headers })
    expect(seenBy(answer)).toMatchObject({ bodyBytes: body.length, bodySha256: sha256(body) })
    const forged = await ancient({ method: 'POST', target: '/signed', body: `${body}!`, headers })
    expect(forged.status).toBe(401)
    expect(forged.json<{ code: string }>().code).toBe('unauthorized')
    expect(await gateway.logged(forged)).toMatchObject({ code: 'unauthorized', consumer: 'test' })
  })

  test('is understood in any split', async () => {
    const request = Buffer.from('POST /split HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello')
    for (let at = 1; at < request.length; at++) {
      const connection = await Connection.open(gateway.port)
      await connection.write(request.subarray(0, at))
      await connection.write(request.subarray(at))
      expect(seenBy(await connection.answer())).toMatchObject({ url: '/split', bodyBytes: 5 })
      await connection.closedByPeer()
    }
    const connection = await Connection.open(gateway.port)
    for (const byte of request) await connection.write(Buffer.of(byte))
    expect(seenBy(await connection.answer())).toMatchObject({ url: '/split', bodySha256: sha256('hello') })
    await connection.closedByPeer()
  })

  test('has a large body passed on whole', async () => {
    const answer = await ancient({ method: 'PUT', body: LARGE })
    expect(seenBy(answer)).toMatchObject({ bodyBytes: LARGE.length, bodySha256: sha256(LARGE) })
    expect((await gateway.logged(answer)).bytesIn).toBe(LARGE.length)
  })

  test.each([
    ['a transfer coding', 'Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n'],
    ['a transfer coding and a length', 'Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello'],
    ['two lengths', 'Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!'],
    ['a length that is none', 'Content-Length: 5x\r\n\r\nhello'],
  ])('with %s is refused, and nothing of it is forwarded', async (_name, rest) => {
    const before = echo.requests.all.length
    const connection = await Connection.open(gateway.port)
    await connection.write(`POST /doubtful HTTP/1.0\r\nConnection: keep-alive\r\n${rest}`)
    const answer = await connection.head()
    expect([answer.status, answer.one('connection')]).toEqual([400, 'close'])
    connection.destroy()
    expect(echo.requests.all.slice(before)).toEqual([])
  })

  test('that expects 100-continue gets the answer alone (RFC 9110, 10.1.1)', async () => {
    const answer = await ancient({
      method: 'POST',
      target: '/scripted/100',
      body: 'hello',
      headers: { Expect: '100-continue' },
    })
    expect(answer.interim).toEqual([])
    expect([answer.status, answer.text]).toEqual([200, 'null'])
  })

  test('… and keeps its connection, though nobody has told it to continue', async () => {
    const connection = await Connection.open(gateway.port)
    const head =
      'POST /scripted/100 HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n'
    for (let round = 0; round < 2; round++) {
      await connection.write(head)
      // Whoever asks later elsewhere is answered meanwhile: the head is through, then.
      expect((await call(gateway.port)).status).toBe(200)
      await connection.write('hello')
      const answer = await connection.answer()
      expect([answer.interim, answer.status, answer.one('connection')]).toEqual([[], 200, 'keep-alive'])
    }
    connection.destroy()
  })
})

describe('the answer to HTTP/1.0', () => {
  test('is never chunked: without a length it lasts to the end of the connection', async () => {
    const connection = await Connection.open(gateway.port)
    await connection.send({ version: '1.0', target: '/scripted/chunks', headers: { Connection: 'keep-alive' } })
    const answer = await connection.answer()
    expect(answer.all('transfer-encoding')).toEqual([])
    expect(answer.all('content-length')).toEqual([])
    expect(answer.one('connection')).toBe('close')
    expect(answer.text).toBe('hello, world')
    connection.destroy()
  })

  test.each(['/scripted/cut-chunks', '/scripted/cut-length'])(
    'that the service cuts is seen to be cut: %s',
    async (target) => {
      const connection = await Connection.open(gateway.port)
      await connection.send({ version: '1.0', target })
      expect((await connection.head()).status).toBe(200)
      expect(String(await connection.reader.exactly(5))).toBe('hello')
      release.get(target)!()
      await expect(connection.reader.rest()).rejects.toThrow(ConnectionCut)
    },
  )

  test('to HEAD says the length and sends nothing', async () => {
    const connection = await Connection.open(gateway.port)
    const answer = await connection.exchange({ version: '1.0', method: 'HEAD', target: '/scripted/whole' })
    expect(answer.one('content-length')).toBe('5')
    await connection.closedByPeer()
  })

  test('waits for a client that reads late', async () => {
    const connection = await Connection.open(gateway.port)
    connection.socket.pause()
    await connection.send({ version: '1.0', target: '/scripted/large' })
    await scripted.requests.find((seen) => seen.url === '/scripted/large', 'the request')
    const answer = await connection.answer()
    expect(sha256(answer.body)).toBe(sha256(LARGE))
    await connection.closedByPeer()
  })

  test('ends the exchange at the service when its client leaves', async () => {
    const target = '/scripted/silent?1.0'
    const gone = endOf(target)
    const connection = await Connection.open(gateway.port)
    await connection.send({ version: '1.0', target })
    await scripted.requests.find((seen) => seen.url === target, target)
    connection.destroy()
    await gone
    const line = await gateway.access.find((one) => one.path === '/scripted/silent', target)
    expect(line).toMatchObject({ status: 499, code: 'client_closed', client: '127.0.0.1' })
  })
})

describe('HTTP/1.0 with keep-alive', () => {
  const kept = { version: '1.0', headers: { Connection: 'keep-alive' } } as const
  const target = '/scripted/whole'

  test('is served request after request on one connection, also pipelined, and counted as one', async () => {
    const connection = await Connection.open(gateway.port)
    for (let i = 0; i < 5; i++) {
      const answer = await connection.exchange({ ...kept, method: 'POST', target, body: `body ${i}` })
      expect(answer.one('connection')).toBe('keep-alive')
      expect(answer.one('x-got')).toBe(sha256(`body ${i}`))
    }
    for (let i = 0; i < 5; i++) await connection.send({ ...kept, method: 'POST', target, body: `pipelined ${i}` })
    for (let i = 0; i < 5; i++) expect((await connection.answer()).one('x-got')).toBe(sha256(`pipelined ${i}`))
    const open = (await gateway.status()).workers.map(({ connections }) => connections)
    expect(Math.max(...open)).toBe(1)
    const last = await connection.exchange({ version: '1.0' })
    expect(last.one('connection')).toBe('close')
    await connection.closedByPeer()
  })

  test.each([
    ['HEAD', 200, target],
    ['GET', 204, '/scripted/no-content'],
    ['GET', 401, '/signed'],
  ] as const)('outlasts %s answered %i', async (method, status, target) => {
    const connection = await Connection.open(gateway.port)
    const answer = await connection.exchange({ ...kept, method, target })
    expect([answer.status, answer.one('connection')]).toEqual([status, 'keep-alive'])
    expect((await connection.exchange({ ...kept, target: '/next' })).status).toBe(200)
    connection.destroy()
  })

  test.each([
    ['a target that is no path', 'GET T / HTTP/1.0\r\n'],
    ['a field without a name', 'GET / HTTP/1.0\r\n: x\r\n'],
  ])('ends with a head that the gate refuses: %s', async (_what, head) => {
    const connection = await Connection.open(gateway.port)
    await connection.write(`${head}Connection: keep-alive\r\n\r\n`)
    const answer = await connection.answer()
    expect([answer.status, answer.one('connection')]).toEqual([400, 'close'])
    await connection.closedByPeer()
  })

  test('may be followed by HTTP/1.1, which keeps the connection', async () => {
    const connection = await Connection.open(gateway.port)
    await connection.exchange({ ...kept, target })
    for (let i = 0; i < 3; i++) {
      const answer = await connection.exchange({ target: `/now/${i}` })
      expect(answer.all('connection')).toEqual([])
      expect(headerOf(seenBy(answer), 'via')).toEqual(['1.1 tidegate'])
      expect((await gateway.logged(answer)).client).toBe('127.0.0.1')
    }
    connection.destroy()
  })

  test('may be followed by HTTP/1.1 in the same packet, behind a body', async () => {
    const connection = await Connection.open(gateway.port)
    const head = `POST ${target} HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\n`
    await connection.write(`${head}bodyGET /now HTTP/1.1\r\nHost: demo.test\r\n\r\n`)
    expect((await connection.answer()).one('x-got')).toBe(sha256('body'))
    expect(headerOf(seenBy(await connection.answer()), 'via')).toEqual(['1.1 tidegate'])
    connection.destroy()
  })

  test('is uWebSockets.js’s to refuse once the connection has spoken HTTP/1.1', async () => {
    const connection = await Connection.open(gateway.port)
    await connection.exchange({})
    await connection.send({ version: '1.0' })
    expect((await connection.head()).status).toBe(505)
    connection.destroy()
  })
})

test('a target in absolute-form names the host, and no other than a Host does', async () => {
  const ask = async (head: string): Promise<Answer> => {
    const connection = await Connection.open(gateway.port)
    await connection.write(`${head}\r\n\r\n`)
    const answer = await connection.answer()
    await connection.closedByPeer()
    return answer
  }
  const without = await ask('GET http://only.test/host HTTP/1.0')
  expect(headerOf(without.json<Seen>(), 'host')).toEqual(['only.test'])
  expect((await ask('GET http://only.test/host HTTP/1.0\r\nHost: only.test')).status).toBe(200)
  expect((await ask('GET http://only.test/host HTTP/1.0\r\nHost: other.test')).status).toBe(400)
})

test('what the gate refuses in HTTP/1.1, it refuses here', async (context) => {
  requireGate(context, gateway)
  const before = echo.requests.all.length
  for (const head of ['GET /a\x01b HTTP/1.0', 'GET / HTTP/1.0\r\n: x', 'GET / HTTP/1.0\r\nHost: a\xff.test']) {
    const connection = await Connection.open(gateway.port)
    await connection.write(Buffer.from(`${head}\r\n\r\n`, 'latin1'))
    expect((await connection.answer()).status).toBe(400)
    await connection.closedByPeer()
  }
  expect(echo.requests.all.length).toBe(before)
})

test('a worker that drains sees an answer to HTTP/1.0 through', async () => {
  const draining = await startGateway({ config: config(), workers: 1 })
  const connection = await Connection.open(draining.port)
  await connection.send({ version: '1.0', target: '/scripted/held', headers: { Connection: 'keep-alive' } })
  await connection.head()
  const stopped = draining.stop()
  await draining.log.find((line) => line.msg === 'draining', 'draining')
  release.get('/scripted/held')!()
  expect(String(await connection.reader.exactly(10))).toBe('first-last')
  await connection.closedByPeer()
  expect(await stopped).toEqual({ code: 0, signal: null })
})

describe('who speaks HTTP/1.0', () => {
  test('ab completes every request', async (context) => {
    requireTool(context, 'ab')
    const headers = Object.entries(signedHeaders(TEST, { target: '/signed/whole' })).flatMap(([name, value]) => [
      '-H',
      `${name}: ${value}`,
    ])
    for (const mode of [[], ['-k']]) {
      const { stdout } = await promisify(execFile)('ab', [
        ...['-q', '-c', '20', '-n', '500', ...mode, ...headers],
        `http://127.0.0.1:${gateway.port}/signed/whole`,
      ])
      expect(stdout).toMatch(/Complete requests: +500\n/)
      expect(stdout).not.toMatch(/Non-2xx/)
      expect(stdout).toMatch(/Failed requests: +0\n/)
      if (mode.length > 0) expect(stdout).toMatch(/Keep-Alive requests: +500\n/)
    }
  })

  test("nginx's proxy_pass with its defaults", async (context) => {
    requireTool(context, 'nginx')
    const nginx = await startNginx('', gateway.port)
    try {
      const answer = await call(nginx.port, { method: 'POST', target: '/through?x=1', body: 'hello' })
      expect(answer.status).toBe(200)
      expect(seenBy(answer)).toMatchObject({ method: 'POST', url: '/through?x=1', bodySha256: sha256('hello') })
      expect(headerOf(seenBy(answer), 'via')).toEqual(['1.0 tidegate'])
      expect((await call(nginx.port, { target: '/scripted/chunks' })).text).toBe('hello, world')
    } finally {
      await nginx.close()
    }
  })

  test("HAProxy's option httpchk", async (context) => {
    requireTool(context, 'haproxy')
    const before = gateway.access.all.length
    const haproxy = await startHaproxy('option httpchk', `127.0.0.1:${gateway.port} check inter 50ms rise 1 fall 1`)
    try {
      const checked = await gateway.access.find((line) => line.method === 'OPTIONS', 'the check')
      expect(gateway.access.all.indexOf(checked)).toBeGreaterThanOrEqual(before)
      expect(checked.status).toBe(200)
      expect((await call(haproxy.port, { target: '/behind' })).status).toBe(200)
      expect(haproxy.output.text).not.toContain('DOWN')
    } finally {
      await haproxy.close()
    }
  })
})

test('a head that is not complete in time is answered 408 and counted; silence is just ended', async () => {
  const impatient = await startGateway({ config: config(), workers: 1, env: { TIDEGATE_HEADER_TIMEOUT_MS: '400' } })
  try {
    for (const version of ['1.0', '1.1']) {
      const connection = await Connection.open(impatient.port)
      await connection.write(`GET / HTTP/${version}\r\nHost: demo.test\r\nX-Slow: `)
      const trickle = setInterval(() => connection.socket.write('x'), 50)
      const answer = await connection.head()
      clearInterval(trickle)
      expect([answer.status, answer.one('connection')]).toEqual([408, 'close'])
      connection.destroy()
    }
    expect(await impatient.metric('tidegate_connections_refused_total{reason="slow_head"}')).toBe(2)
    const kept = await Connection.open(impatient.port)
    const headers = { Connection: 'keep-alive' }
    expect((await kept.exchange({ version: '1.0', target: '/scripted/whole', headers })).one('connection')).toBe(
      'keep-alive',
    )
    await kept.closedByPeer()
    expect(await impatient.metric('tidegate_connections_refused_total{reason="slow_head"}')).toBe(2)
  } finally {
    await impatient.close()
  }
})
