// Whose time it is: a client that sends its body slowly, or does not read its response, costs the service neither its
// deadlines nor its breaker. And the other way round: what the service takes is its own, whatever the client does.
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type AccessLine, type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, startScripted } from '../support/origins.js'
import { Connection, call } from '../support/raw-client.js'

/** What the service may take, and how much longer the client does. */
const SLOW_CALL_MS = 1000
const TOTAL_MS = 1500
const CLIENT_MS = 2500
/** More than the kernel and uWebSockets.js hold of a response that nobody reads. */
const LARGE = Buffer.alloc(32 << 20, 'x')

let origin: Origin
let gateway: Gateway

beforeAll(async () => {
  origin = await startScripted({
    '/up': async (exchange) => exchange.answer(200, {}, String((await exchange.body()).bytes.length)),
    '/down': async (exchange) => {
      await exchange.send(`HTTP/1.1 200 OK\r\nContent-Length: ${LARGE.length}\r\n\r\n`)
      await exchange.send(LARGE)
    },
    '/down-chunked': async (exchange) => {
      await exchange.send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
      for (let at = 0; at < LARGE.length; at += 1 << 20) await exchange.chunk(LARGE.subarray(at, at + (1 << 20)))
      await exchange.send('0\r\n\r\n')
    },
    '/reads-late': async (exchange) => {
      await pause(SLOW_CALL_MS + 200)
      await exchange.answer(200, {}, String((await exchange.body()).bytes.length))
    },
    '/reads-nothing': (exchange) => exchange.closed(),
  })
  const service = {
    endpoints: [origin.url],
    timeouts: { firstByte: `${TOTAL_MS}ms`, idle: `${TOTAL_MS}ms`, total: `${TOTAL_MS}ms` },
    breaker: { window: '60s', minRequests: 1, failureRatio: 0.01, slowCall: `${SLOW_CALL_MS}ms`, slowRatio: 0.01 },
  }
  const paths = ['up', 'down', 'down-chunked', 'reads-late', 'reads-nothing']
  gateway = await startGateway({
    workers: 1,
    config: {
      services: {
        ...Object.fromEntries(paths.map((path) => [path, service])),
        'reads-late': { ...service, timeouts: {} },
      },
      routes: paths.map((path) => ({
        match: { path: `/${path}`, methods: ['GET', 'POST'] },
        service: path,
        auth: 'none',
        maxBody: 'unlimited',
      })),
    },
  })
})

afterAll(async () => {
  await gateway.close()
  await origin.close()
})

const isClosed = async (service: string) =>
  (await gateway.metric(`tidegate_breaker_state{service="${service}",state="closed"}`)) === 1

function expectServiceWasFast(line: AccessLine): void {
  expect(line.code).toBeUndefined()
  expect(line.totalMs).toBeGreaterThan(CLIENT_MS)
  expect(line.upstreamMs).toBeLessThan(SLOW_CALL_MS)
}

// They wait side by side, each for a service of its own.
test.concurrent('an upload that comes slowly', async () => {
  const connection = await Connection.open(gateway.port)
  await connection.write('POST /up HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 8\r\n\r\nhalf')
  // It has begun: from here on it is forwarded as it comes.
  await origin.requests.find(({ url }) => url === '/up', 'the upload')
  await pause(CLIENT_MS)
  await connection.write('half')
  const answer = await connection.answer()
  connection.destroy()
  expect([answer.status, answer.text]).toEqual([200, '8'])
  expectServiceWasFast(await gateway.logged(answer))
  expect(await isClosed('up')).toBe(true)
})

test.concurrent.each(['/down', '/down-chunked'])('%s: a response that its client does not read', async (target) => {
  const connection = await Connection.open(gateway.port)
  connection.socket.pause()
  await connection.send({ target })
  await pause(CLIENT_MS)
  const answer = await connection.answer()
  connection.destroy()
  expect([answer.status, answer.body.length]).toEqual([200, LARGE.length])
  expectServiceWasFast(await gateway.logged(answer))
  expect(await isClosed(target.slice(1))).toBe(true)
})

test('a service that reads late is slow, though its client is held back meanwhile', async () => {
  const answer = await call(gateway.port, { method: 'POST', target: '/reads-late', body: LARGE })
  expect([answer.status, answer.text]).toEqual([200, String(LARGE.length)])
  expect((await gateway.logged(answer)).upstreamMs).toBeGreaterThan(SLOW_CALL_MS)
  expect(await isClosed('reads-late')).toBe(false)
})

test.concurrent('a service that does not read at all has its deadlines', async () => {
  const connection = await Connection.open(gateway.port)
  const sending = connection.send({ method: 'POST', target: '/reads-nothing', body: LARGE }).catch(() => {})
  const answer = await connection.answer()
  connection.destroy()
  await sending
  expect(answer.status).toBe(504)
  expect(answer.json()).toMatchObject({ code: 'upstream_timeout' })
  expect(await isClosed('reads-nothing')).toBe(false)
})
