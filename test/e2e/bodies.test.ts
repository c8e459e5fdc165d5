// Bodies both ways: framed as they were or as the next hop needs it, passed on as they come, absent where there must be
// none.
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
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
import { Connection, call, type RequestParts } from '../support/raw-client.js'
import { chunkOf } from '../support/wire.js'

const LARGE = randomBytes(3 << 20)

let echo: Origin
let scripted: Origin
let gateway: Gateway
/** The open event stream, and the last one that was opened. */
let events: Promise<RawExchange>

beforeAll(async () => {
  echo = await startEcho()
  let opened: (exchange: RawExchange) => void
  events = new Promise((resolve) => {
    opened = resolve
  })
  scripted = await startScripted({
    '/length': (exchange) => exchange.answer(200, { 'Content-Length': '1234', ETag: '"1"' }),
    '/chunked-head': (exchange) => exchange.send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'),
    '/204': (exchange) => exchange.send('HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n'),
    '/304': (exchange) => exchange.send('HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n'),
    '/304-length': (exchange) =>
      exchange.send('HTTP/1.1 304 Not Modified\r\nETag: "1"\r\nContent-Length: 1234\r\n\r\n'),
    '/empty': (exchange) => exchange.answer(200),
    '/empty-chunked': (exchange) => exchange.send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'),
    '/chunked': async (exchange) => {
      await exchange.send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
      for (const part of ['one ', 'two ', 'three']) await exchange.chunk(part)
      await exchange.send('0\r\n\r\n')
    },
    '/trailers': async (exchange) => {
      await exchange.send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n')
      await exchange.chunk('body')
      await exchange.send('0\r\nX-Sum: 4\r\n\r\n')
    },
    '/until-close': async (exchange) => {
      await exchange.send('HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n')
      await exchange.send('until the end')
      exchange.end()
    },
    '/interim': (exchange) =>
      exchange.send('HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello'),
    '/large': async (exchange) => {
      await exchange.send(`HTTP/1.1 200 OK\r\nContent-Length: ${LARGE.length}\r\n\r\n`)
      await exchange.send(LARGE)
    },
    '/large-chunked': async (exchange) => {
      await exchange.send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
      for (let at = 0; at < LARGE.length; at += 100_000) await exchange.chunk(LARGE.subarray(at, at + 100_000))
      await exchange.send('0\r\n\r\n')
    },
    '/events': (exchange) => opened(exchange),
    '/framing': async (exchange) => {
      const { head } = exchange
      const { bytes } = await exchange.body()
      const framing = { length: head.one('content-length'), coding: head.one('transfer-encoding'), bytes: bytes.length }
      await exchange.answer(200, {}, JSON.stringify(framing))
    },
  })
  gateway = await startGateway({
    workers: 1,
    config: {
      services: { echo: { endpoints: [echo.url] }, scripted: { endpoints: [scripted.url] } },
      routes: [
        { match: { path: '/echo' }, service: 'echo', auth: 'none', maxBody: 'unlimited' },
        { match: { path: '/' }, service: 'scripted', auth: 'none', maxBody: 'unlimited' },
      ],
    },
  })
})

afterAll(async () => {
  await gateway.close()
  await echo.close()
  await scripted.close()
})

describe('answers without a body', () => {
  test('HEAD has the length that GET would have, and the connection goes on', async () => {
    const connection = await Connection.open(gateway.port)
    for (let i = 0; i < 2; i++) {
      const answer = await connection.exchange({ method: 'HEAD', target: '/length' })
      expect(answer.status).toBe(200)
      expect(answer.one('content-length')).toBe('1234')
      expect(answer.one('etag')).toBe('"1"')
    }
    expect((await connection.exchange({ target: '/empty' })).status).toBe(200)
    connection.destroy()
  })

  test('HEAD of an answer without a length says nothing of one', async () => {
    const answer = await call(gateway.port, { method: 'HEAD', target: '/chunked-head' })
    expect(answer.status).toBe(200)
    expect(answer.all('content-length')).toEqual([])
  })

  test('204', async () => {
    const answer = await call(gateway.port, { target: '/204' })
    expect([answer.status, answer.one('x-a')]).toEqual([204, '1'])
  })

  test.each(['/304', '/304-length'])('%s', async (target) => {
    const answer = await call(gateway.port, { target })
    expect([answer.status, answer.one('etag')]).toEqual([304, '"1"'])
    // RFC 9110, 8.6: the length of what a 200 would bring, or none.
    expect([null, '1234']).toContain(answer.one('content-length'))
    if (target === '/304') expect(answer.one('content-length')).toBeNull()
  })

  test.each(['/empty', '/empty-chunked'])('%s', async (target) => {
    const answer = await call(gateway.port, { target })
    expect([answer.status, answer.body.length]).toEqual([200, 0])
  })
})

describe('answers with a body', () => {
  test.each([
    ['/chunked', 'one two three'],
    ['/trailers', 'body'],
    ['/until-close', 'until the end'],
    ['/interim', 'hello'],
  ])('%s', async (target, body) => {
    const connection = await Connection.open(gateway.port)
    const answer = await connection.exchange({ target })
    expect([answer.status, answer.text]).toEqual([200, body])
    // Whatever ended the service's connection does not end the client's.
    expect((await connection.exchange({ target: '/empty' })).status).toBe(200)
    connection.destroy()
    expect(await gateway.logged(answer)).toMatchObject({ status: 200, bytesOut: body.length })
  })

  test.each(['/large', '/large-chunked'])('%s arrives whole', async (target) => {
    const answer = await call(gateway.port, { target })
    expect(answer.status).toBe(200)
    expect(answer.one('content-length')).toBe(target === '/large' ? String(LARGE.length) : null)
    expect(sha256(answer.body)).toBe(sha256(LARGE))
    expect(await gateway.logged(answer)).toMatchObject({ bytesOut: LARGE.length })
  })

  test('events arrive one by one, each before the next is sent', async () => {
    const connection = await Connection.open(gateway.port)
    await connection.send({ target: '/events', headers: { Accept: 'text/event-stream' } })
    const stream = await events
    await stream.send('HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n')
    for (let i = 1; i <= 5; i++) {
      const event = `id: ${i}\ndata: number ${i}\n\n`
      await stream.chunk(event)
      // uWS before 20.60 sends the head with the first chunk.
      if (i === 1) expect((await connection.head()).one('content-type')).toBe('text/event-stream')
      // Not as a whole chunk: uWS sends the line end behind one together with the next.
      await connection.reader.until(event)
    }
    await stream.send('0\r\n\r\n')
    expect((await connection.reader.until('0\r\n\r\n')).toString()).toBe('\r\n')
    connection.destroy()
  })
})

describe('requests with a body', () => {
  test.each([
    ['a length', { body: 'x'.repeat(1000) }],
    ['a length of nothing', { body: '' }],
    ['chunks', { chunks: ['one', 'two', 'x'.repeat(70_000)] }],
    ['one empty chunk', { chunks: [] }],
    ['megabytes', { body: LARGE }],
    ['megabytes in chunks', { chunks: [LARGE.subarray(0, 1 << 20), LARGE.subarray(1 << 20)] }],
  ] as [string, RequestParts][])('%s arrive whole', async (_name, parts) => {
    const body = Buffer.concat([parts.body ?? '', ...(parts.chunks ?? [])].map((part) => Buffer.from(part as string)))
    const answer = await call(gateway.port, { method: 'POST', target: '/echo', ...parts })
    expect(answer.status).toBe(200)
    expect(answer.json<Seen>()).toMatchObject({ bodyBytes: body.length, bodySha256: sha256(body) })
    expect(await gateway.logged(answer)).toMatchObject({ bytesIn: body.length })
  })

  const framing = async (parts: RequestParts) =>
    (await call(gateway.port, { target: '/framing', ...parts })).json<{
      length: string | null
      coding: string | null
      bytes: number
    }>()

  test('keep their length', async () => {
    expect(await framing({ method: 'POST', body: 'hello' })).toEqual({ length: '5', coding: null, bytes: 5 })
    expect(await framing({ method: 'GET' })).toEqual({ length: null, coding: null, bytes: 0 })
    expect(await framing({ method: 'DELETE', body: 'gone' })).toEqual({ length: '4', coding: null, bytes: 4 })
    // RFC 9110, 8.6: a POST without a body says so.
    expect(await framing({ method: 'POST', body: '' })).toEqual({ length: '0', coding: null, bytes: 0 })
  })

  test('that waits for 100 Continue gets it, once, and the service is not asked to', async () => {
    const connection = await Connection.open(gateway.port)
    const target = '/echo/expects'
    await connection.write(
      `POST ${target} HTTP/1.1\r\nHost: demo.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n`,
    )
    const interim = await connection.reader.until('\r\n\r\n')
    expect(interim.toString()).toBe('HTTP/1.1 100 Continue')
    await connection.write('hello')
    const answer = await connection.answer()
    connection.destroy()
    expect(answer.status).toBe(200)
    expect(answer.interim).toEqual([])
    const seen = answer.json<Seen>()
    expect(seen.bodyBytes).toBe(5)
    expect(headerOf(seen, 'expect')).toEqual([])
  })

  test('are passed on while they come', async () => {
    const connection = await Connection.open(gateway.port)
    const before = scripted.requests.all.length
    await connection.write('POST /framing HTTP/1.1\r\nHost: demo.test\r\nTransfer-Encoding: chunked\r\n\r\n')
    await connection.write(chunkOf('early'))
    await scripted.requests.take(before + 1, () => true, 'the request')
    await connection.write('0\r\n\r\n')
    expect((await connection.answer()).json()).toEqual({ length: null, coding: 'chunked', bytes: 5 })
    connection.destroy()
  })
})
