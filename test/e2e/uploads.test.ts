// When an upload gets a connection to its service, how long it may keep that while others wait, and what bodies may
// hold of a worker's memory.
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, refusingPort, startScripted } from '../support/origins.js'
import { Connection, call } from '../support/raw-client.js'
import { requireGate } from '../support/requirements.js'
import { type Caller, signedHeaders, TEST } from '../support/signing.js'
import { eventually } from '../support/waiting.js'
import { chunkOf } from '../support/wire.js'

const OLD: Caller = { source: 'old', secret: 'the-secret-of-old' }
const MIB = 1 << 20
/** A little more than what is read ahead. */
const READ_AHEAD = Buffer.alloc(70_000, 'x')

let origin: Origin
/** Its connections are taken while those of the other are as well. */
let unread: Origin
let gateway: Gateway
/** Has little memory for bodies. */
let small: Gateway

beforeAll(async () => {
  origin = await startScripted({
    '/framing': async (exchange) => {
      const { head } = exchange
      const { bytes } = await exchange.body()
      const framing = { length: head.one('content-length'), coding: head.one('transfer-encoding'), bytes: bytes.length }
      await exchange.answer(200, {}, JSON.stringify(framing))
    },
    // Answers before it has read the body, then piece by piece as that comes.
    '/talk': async (exchange) => {
      await exchange.send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
      await exchange.chunk('welcome')
      const { bytes } = await exchange.body()
      await exchange.chunk(bytes)
      await exchange.send('0\r\n\r\n')
    },
    '/silent': (exchange) => exchange.closed(),
    '/sized': async (exchange) => exchange.answer(200, {}, String((await exchange.body()).bytes.length)),
  })
  unread = await startScripted({
    '/unread/down': async (exchange) => {
      await exchange.send(`HTTP/1.1 200 OK\r\nContent-Length: ${64 * MIB}\r\n\r\n`)
      await exchange.send(Buffer.alloc(64 * MIB))
    },
  })
  const route = (path: string, service: string, more: object = {}) => ({
    match: { path },
    service,
    auth: 'none',
    maxBody: 'unlimited',
    ...more,
  })
  const options = {
    workers: 1,
    env: { TIDEGATE_UPSTREAM_CONNECTIONS: '2' },
    config: {
      consumers: {
        test: { secret: TEST.secret },
        old: { secret: OLD.secret, signs: 'legacy' },
      },
      services: {
        origin: { endpoints: [origin.url] },
        'by-undici': { endpoints: [origin.url], client: 'undici' },
        unread: { endpoints: [unread.url] },
        shut: { endpoints: [origin.url], breaker: {} },
        refusing: { endpoints: [`http://127.0.0.1:${await refusingPort()}`] },
      },
      routes: [
        route('/', 'origin'),
        route('/by-undici/talk', 'by-undici', { rewrite: '/talk' }),
        route('/unread', 'unread'),
        route('/shut', 'shut'),
        route('/refused', 'refusing', { rewrite: '/sized', fallback: { service: 'origin' } }),
        route('/signed', 'origin', { auth: 'x-m', rewrite: '/sized', maxBody: '8MiB' }),
        route('/unsigned', 'origin', { auth: 'x-m', rewrite: '/sized', signBody: false }),
      ],
    },
  }
  gateway = await startGateway(options)
  small = await startGateway({ ...options, env: { ...options.env, TIDEGATE_BODY_MEMORY: '4MiB' } })
})

afterAll(async () => {
  await gateway.close()
  await small.close()
  await origin.close()
  await unread.close()
})

const head = (target: string, length: number | 'chunked', more: Readonly<Record<string, string>> = {}): string => {
  const framing = length === 'chunked' ? 'Transfer-Encoding: chunked' : `Content-Length: ${length}`
  const lines = Object.entries(more).map(([name, value]) => `${name}: ${value}\r\n`)
  return `POST ${target} HTTP/1.1\r\nHost: demo.test\r\n${framing}\r\n${lines.join('')}\r\n`
}

const inFlight = (count: number) =>
  eventually(`${count} requests in flight`, () => gateway.metric('tidegate_requests_in_flight{worker="0"}'), count)

const asked = (target: string) => origin.requests.all.filter(({ url }) => url === target).length

describe('the service is asked', () => {
  test('once all of a short body is here, whose length is then known', async () => {
    const answer = await call(gateway.port, { method: 'POST', target: '/framing', chunks: ['one', 'two'] })
    expect(answer.json()).toEqual({ length: '6', coding: null, bytes: 6 })
  })

  test('once as much is here as is read ahead', async () => {
    const connection = await Connection.open(gateway.port)
    const before = asked('/framing')
    await connection.write(Buffer.concat([Buffer.from(head('/framing', 'chunked')), chunkOf(READ_AHEAD)]))
    await origin.requests.take(before + 1, ({ url }) => url === '/framing', 'the upload')
    await connection.write('0\r\n\r\n')
    expect((await connection.answer()).json()).toEqual({ length: null, coding: 'chunked', bytes: READ_AHEAD.length })
    connection.destroy()
  })

  test.each([
    ['the lean client', '/talk'],
    ['undici', '/by-undici/talk'],
  ])('in the middle of a body whose client waits for the response, by %s', async (_, target) => {
    const connection = await Connection.open(gateway.port)
    await connection.write(Buffer.concat([Buffer.from(head(target, 'chunked')), chunkOf('hello')]))
    expect((await connection.head()).status).toBe(200)
    // Not as a whole chunk: uWS sends the line end behind one together with the next.
    await connection.reader.until('welcome')
    await connection.write(chunkOf(' and bye'))
    await connection.write('0\r\n\r\n')
    await connection.reader.until('hello and bye')
    await connection.reader.until('0\r\n\r\n')
    connection.destroy()
  })

  test('not at all while its breaker is open, and the client is not asked for its body', async (context) => {
    requireGate(context, gateway)
    const hold = { method: 'POST', target: '/breakers?service=shut&hold=open', host: 'localhost' }
    expect((await call(gateway.adminPort, hold)).status).toBe(200)
    const connection = await Connection.open(gateway.port)
    await connection.write(head('/shut', 1000, { Expect: '100-continue' }))
    const answer = await connection.answer()
    expect([answer.status, answer.interim]).toEqual([503, []])
    expect(answer.json()).toMatchObject({ code: 'breaker_open' })
    connection.destroy()
  })

  test('with the whole body, where another one was asked before in vain', async () => {
    for (const body of ['short', Buffer.alloc(MIB)]) {
      const answer = await call(gateway.port, { method: 'POST', target: '/refused', body })
      expect([answer.status, answer.text]).toEqual([200, String(body.length)])
    }
  })
})

describe('where all connections to an endpoint are taken', () => {
  test('an upload whose client leaves while it waits for one costs nobody else anything', async () => {
    const silent = await Promise.all([1, 2].map(() => Connection.open(gateway.port)))
    for (const one of silent) await one.send({ target: '/silent' })
    await origin.requests.take(2, ({ url }) => url === '/silent', 'both')
    const connection = await Connection.open(gateway.port)
    await connection.write(Buffer.concat([Buffer.from(head('/left', 10 * MIB)), READ_AHEAD.subarray(0, 1000)]))
    await inFlight(3)
    // Long enough for it to be forwarded with what there is.
    await pause(300)
    connection.destroy()
    await gateway.access.find(({ path, code }) => path === '/left' && code === 'client_closed', 'the upload')
    for (const one of silent) one.destroy()
    expect((await call(gateway.port, { target: '/' })).status).toBe(200)
    expect(gateway.log.all.filter(({ level }) => level >= 50)).toEqual([])
  })

  test.concurrent('slow uploads leave half of them to others, and give way to faster uploads', async () => {
    const before = asked('/sized')
    const slow = await Promise.all(Array.from({ length: 20 }, () => Connection.open(gateway.port)))
    for (const one of slow) await one.write(head('/sized', 10 * MIB) + 'x'.repeat(1000))
    await origin.requests.take(before + 1, ({ url }) => url === '/sized', 'one of the slow uploads')
    for (let i = 0; i < 50; i++) expect((await call(gateway.port, { target: '/' })).status).toBe(200)
    // Complete when it comes: it needs no place.
    expect((await call(gateway.port, { method: 'POST', target: '/sized', body: 'x'.repeat(1000) })).text).toBe('1000')
    const answer = await call(gateway.port, { method: 'POST', target: '/sized', body: Buffer.alloc(8 * MIB) })
    expect(answer.text).toBe(String(8 * MIB))
    const gaveWay = await gateway.access.find((line) => line.status === 408, 'a slow upload that gave way')
    expect(gaveWay).toMatchObject({ code: 'request_timeout', reason: expect.stringContaining('while others waited') })
    for (const one of slow) one.destroy()
  })

  test.concurrent('responses that nobody reads give way', async () => {
    const readers = await Promise.all([1, 2].map(() => Connection.open(gateway.port)))
    for (const one of readers) {
      one.socket.pause()
      await one.send({ target: '/unread/down' })
    }
    await unread.requests.take(2, ({ url }) => url === '/unread/down', 'both')
    expect((await call(gateway.port, { target: '/unread' })).status).toBe(200)
    const gaveWay = await gateway.access.find((line) => line.path === '/unread/down', 'a response that nobody read')
    expect(gaveWay).toMatchObject({ status: 200, code: 'client_closed' })
    for (const one of readers) one.destroy()
  })
})

describe('memory', () => {
  const held = () => small.metric('tidegate_worker_body_memory_bytes{worker="0"}')

  test('of bodies has a bound for each address: what is over it is answered 503 at once, and others are served', async () => {
    await eventually('no body in memory', held, 0)
    const headers = signedHeaders(TEST, { method: 'POST', target: '/signed', body: 'of another body' })
    const connections = await Promise.all(Array.from({ length: 40 }, () => Connection.open(small.port)))
    const part = Buffer.alloc(300_000)
    const refused: number[] = []
    let waiting = 0
    for (const one of connections) {
      await one.write(Buffer.concat([Buffer.from(head('/signed', 900_000, headers)), part]))
      const answer = await Promise.race([one.answer(), held().then(() => null)])
      if (answer === null) {
        waiting++
        continue
      }
      refused.push(answer.status)
      expect(answer.json()).toMatchObject({ code: 'overloaded' })
      expect(answer.one('retry-after')).toMatch(/^[1-9]/)
    }
    expect(waiting + refused.length).toBe(40)
    expect(new Set(refused)).toEqual(new Set([503]))
    await eventually('some bodies in memory', held, (bytes) => bytes !== undefined && bytes > 0)
    expect(await held()).toBeLessThanOrEqual(MIB)
    // Somebody else.
    const body = 'x'.repeat(200_000)
    const other = await Connection.open(small.port, '127.0.0.1', undefined, '127.0.0.2')
    const good = signedHeaders(TEST, { method: 'POST', target: '/signed', body })
    const answer = await other.exchange({ method: 'POST', target: '/signed', headers: good, body })
    expect([answer.status, answer.text]).toEqual([200, '200000'])
    for (const one of [other, ...connections]) one.destroy()
    await eventually('no body in memory', held, 0)
  })

  test('is not set aside for what a head announces', async () => {
    const headers = signedHeaders(TEST, { method: 'POST', target: '/signed', body: 'of another body' })
    const connections = await Promise.all(Array.from({ length: 10 }, () => Connection.open(small.port)))
    for (const one of connections) await one.write(`${head('/signed', 900_000, headers)}x`)
    await eventually('ten bytes of bodies in memory', held, 10)
    for (const one of connections) one.destroy()
    await eventually('no body in memory', held, 0)
  })

  test('is never enough for a body over an address’s share: 413, whether announced or found', async () => {
    const body = Buffer.alloc(2 * MIB)
    const headers = signedHeaders(TEST, { method: 'POST', target: '/signed', body: 'of another body' })
    const announced = await Connection.open(small.port)
    await announced.write(head('/signed', body.length, headers))
    expect((await announced.answer()).json()).toMatchObject({ code: 'body_too_large' })
    announced.destroy()
    const found = await Connection.open(small.port)
    const sending = found.write(Buffer.concat([Buffer.from(head('/signed', 'chunked', headers)), chunkOf(body)]))
    expect((await found.answer()).json()).toMatchObject({ code: 'body_too_large' })
    found.destroy()
    await sending.catch(() => {})
  })

  test.each([
    ['signBody: false', '/unsigned', TEST],
    ['signs: legacy', '/signed', OLD],
  ])('is not taken where the head tells that a signature is false, %s', async (_, target, caller) => {
    const { 'x-m': mac, ...rest } = signedHeaders(caller, { method: 'POST', target, body: '' })
    const connection = await Connection.open(small.port)
    await connection.write(head(target, 900_000, { ...rest, 'x-m': mac!.replace(/./g, '0') }))
    expect((await connection.answer()).status).toBe(401)
    connection.destroy()
  })
})
