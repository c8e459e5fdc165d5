// The client's connection: kept, closed when asked, and given up by whoever leaves, which must reach the service as
// well.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, type RawExchange, startEcho, startScripted } from '../support/origins.js'
import { Connection } from '../support/raw-client.js'
import { signedHeaders, TEST } from '../support/signing.js'
import { eventually } from '../support/waiting.js'

let echo: Origin
let scripted: Origin
let gateway: Gateway
/** Targets of requests whose connection the gateway has ended, or that were cut. */
const ended = new Map<string, () => void>()
const cuts: string[] = []

const endOf = (target: string): Promise<void> => new Promise((resolve) => ended.set(target, resolve))
const noteEnd = (exchange: RawExchange): void => ended.get(exchange.target)?.()

beforeAll(async () => {
  echo = await startEcho()
  scripted = await startScripted({
    '/silent': (exchange) => exchange.closed().then(() => noteEnd(exchange)),
    '/endless': async (exchange) => {
      await exchange.send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
      try {
        for (;;) await exchange.chunk('x'.repeat(10_000))
      } catch {
        noteEnd(exchange)
      }
    },
    '/upload': async (exchange) => {
      try {
        await exchange.body()
        await exchange.answer(200)
      } catch (error) {
        cuts.push(exchange.target)
        noteEnd(exchange)
        throw error
      }
    },
    '/whole': (exchange) => exchange.answer(200, {}, 'of known length'),
    '/early': async (exchange) => {
      await exchange.send('HTTP/1.1 413 Too Much\r\nContent-Length: 4\r\nConnection: close\r\n\r\nstop')
      exchange.end()
    },
  })
  gateway = await startGateway({
    workers: 1,
    config: {
      consumers: { test: { secret: TEST.secret } },
      services: { echo: { endpoints: [echo.url] }, scripted: { endpoints: [scripted.url] } },
      routes: [
        { match: { path: '/echo' }, service: 'echo', auth: 'none' },
        { match: { path: '/signed' }, service: 'echo', auth: 'x-m', maxBody: '1MiB' },
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

test('many requests on one connection are served on one connection of the service', async () => {
  const connection = await Connection.open(gateway.port)
  const before = echo.connections
  for (let i = 0; i < 20; i++) {
    const answer = await connection.exchange({ method: 'POST', target: '/echo', body: `number ${i}` })
    expect(answer.status).toBe(200)
    expect(answer.all('connection')).toEqual([])
  }
  connection.destroy()
  expect(echo.connections - before).toBeLessThanOrEqual(1)
})

describe('a client that asks for Connection: close', () => {
  test.each([
    ['an answer', '/echo', 'close', 200],
    ['an answer, in other words', '/whole', 'X-Other, Close', 200],
    ['a refusal', '/signed', 'close', 401],
    // uWebSockets.js goes by the length of the field.
    ['an answer, though it asked for something else', '/whole', 'x-own', 200],
  ])('is told that %s is the last', async (_name, target, connectionField, status) => {
    const connection = await Connection.open(gateway.port)
    const answer = await connection.exchange({ target, headers: { Connection: connectionField } })
    expect(answer.status).toBe(status)
    expect(answer.one('connection')).toBe('close')
    await connection.closedByPeer()
  })

  test('also after an answer that streams', async () => {
    const connection = await Connection.open(gateway.port)
    const answer = await connection.exchange({ method: 'HEAD', target: '/echo', headers: { Connection: 'close' } })
    expect(answer.one('connection')).toBe('close')
    await connection.closedByPeer()
  })
})

describe('a client that leaves', () => {
  const leaves = [
    ['with a FIN', (connection: Connection) => connection.destroy()],
    ['with a RST', (connection: Connection) => void connection.socket.resetAndDestroy()],
  ] as const

  describe.each(leaves)('%s', (how, leave) => {
    const mark = how.slice(-3)

    test('before the first byte ends the request at the service, and is logged as 499', async () => {
      const target = `/silent?${mark}`
      const gone = endOf(target)
      const connection = await Connection.open(gateway.port)
      await connection.send({ target })
      await scripted.requests.find((seen) => seen.url === target, target)
      leave(connection)
      await gone
      const line = await gateway.access.find((one) => one.path === '/silent' && one.status === 499, target)
      expect(line).toMatchObject({ code: 'client_closed', attempts: 1 })
    })

    test('in the middle of the answer ends it at the service', async () => {
      const target = `/endless?${mark}`
      const gone = endOf(target)
      const connection = await Connection.open(gateway.port)
      await connection.send({ target })
      await connection.head()
      await connection.chunk()
      leave(connection)
      await gone
      const line = await gateway.access.find((one) => one.path === '/endless' && one.code === 'client_closed', target)
      expect(line.bytesOut).toBeGreaterThan(0)
      expect(line.status).toBe(200)
    })

    test.each([
      ['length', 'Content-Length: 1000'],
      ['chunks', 'Transfer-Encoding: chunked'],
    ])(
      'in the middle of a body framed by %s leaves the service with one that is not complete',
      async (framing, field) => {
        const target = `/upload?${mark}-${framing}`
        const gone = endOf(target)
        const connection = await Connection.open(gateway.port)
        await connection.write(`POST ${target} HTTP/1.1\r\nHost: demo.test\r\n${field}\r\n\r\n5\r\nhello\r\n`)
        await scripted.requests.find((seen) => seen.url === target, target)
        leave(connection)
        await gone
        expect(cuts).toContain(target)
      },
    )
  })

  test('while a signed body is still being read never reaches the service', async () => {
    const target = '/signed/half'
    const connection = await Connection.open(gateway.port)
    const headers = signedHeaders(TEST, { method: 'POST', target, body: 'x'.repeat(1000) })
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
    await connection.write(
      `POST ${target} HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 1000\r\n${lines.join('')}\r\nxxx`,
    )
    await eventually('a request in flight', () => gateway.metric('tidegate_requests_in_flight{worker="0"}'), 1)
    connection.destroy()
    const line = await gateway.access.find((one) => one.path === target, target)
    expect(line).toMatchObject({ status: 499, code: 'client_closed', attempts: 0, bytesIn: 3 })
    expect(echo.requests.all.some((seen) => seen.url === target)).toBe(false)
  })
})

test('an answer that comes before the whole request does reaches the client', async () => {
  const connection = await Connection.open(gateway.port)
  await connection.write('POST /early HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 10000000\r\n\r\n')
  await connection.write('x'.repeat(1000))
  const answer = await connection.answer()
  connection.destroy()
  expect([answer.status, answer.text]).toEqual([413, 'stop'])
  const line = await gateway.logged(answer)
  expect(line.status).toBe(413)
  expect(line.code).toBeUndefined()
})
