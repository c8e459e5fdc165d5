// How long a client waits, as it says itself: the gateway keeps to that, and tells the service what is left of it.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { headerOf, type Origin, type RawExchange, type Seen, startEcho, startScripted } from '../support/origins.js'
import { type Answer, Connection, call } from '../support/raw-client.js'

/** Above what any test here takes: the gateway must not wait for it. */
const LONG = '60s'

let echo: Origin
let slow: Origin
let gateway: Gateway
/** Forwards to the other one. */
let first: Gateway
/** Resolves when the gateway has let go of the slow service's last request. */
let released: Promise<void>

beforeAll(async () => {
  echo = await startEcho()
  const never = async (exchange: RawExchange): Promise<void> => {
    released = exchange.closed()
    await released
  }
  slow = await startScripted({
    '/slow': never,
    '/queued': never,
    '/begun': async (exchange) => {
      await exchange.send('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegun')
      await never(exchange)
    },
  })
  const timeouts = { firstByte: LONG, idle: LONG }
  gateway = await startGateway({
    workers: 1,
    config: {
      services: {
        echo: { endpoints: [echo.url] },
        brief: { endpoints: [echo.url], timeouts: { total: '2s' } },
        queued: { endpoints: [slow.url], timeouts, maxInFlight: { most: 1, queue: { size: 5, wait: LONG } } },
        slow: { endpoints: [slow.url], timeouts, breaker: { minRequests: 1, failureRatio: 0.01 } },
      },
      routes: [
        { match: { path: '/' }, service: 'echo', auth: 'none' },
        { match: { path: '/brief' }, service: 'brief', auth: 'none' },
        { match: { path: '/slow' }, service: 'slow', auth: 'none' },
        { match: { path: '/queued' }, service: 'queued', auth: 'none' },
        { match: { path: '/begun' }, service: 'slow', auth: 'none' },
      ],
    },
  })
  first = await startGateway({
    workers: 1,
    config: {
      services: { next: { endpoints: [`http://127.0.0.1:${gateway.port}`] } },
      routes: [{ match: { path: '/' }, service: 'next', auth: 'none' }],
    },
  })
})

afterAll(async () => {
  await first.close()
  await gateway.close()
  await echo.close()
  await slow.close()
})

function ask(target: string, headers: Readonly<Record<string, string | readonly string[]>>, of = gateway) {
  return call(of.port, { target, headers })
}

const codeOf = (answer: Answer): unknown => answer.json<{ code?: string }>().code
const seenOf = (answer: Answer): Seen => answer.json()
const lineOf = (answer: Answer) => gateway.access.find(({ rid }) => rid === answer.rid, 'the request')

describe('a service that is too slow', () => {
  test.each([{ 'x-timeout-ms': '50' }, { 'grpc-timeout': '50m' }, { 'x-timeout-ms': '50', 'grpc-timeout': '1H' }])(
    'for %j: 504, and the service is told',
    async (headers) => {
      const answer = await ask('/slow', headers)
      expect([answer.status, codeOf(answer)]).toEqual([504, 'deadline_exceeded'])
      await released
      expect((await lineOf(answer)).reason).toBe("the client's deadline passed")
    },
  )

  test('in the middle of its response: cut', async () => {
    const connection = await Connection.open(gateway.port)
    await connection.send({ target: '/begun', headers: { 'X-Timeout-Ms': '1000' } })
    expect((await connection.head()).status).toBe(200)
    expect((await connection.reader.some())?.toString()).toBe('begun')
    await connection.closedByPeer()
    await released
    const line = await gateway.access.find(({ path }) => path === '/begun', 'the request')
    expect(line.code).toBe('deadline_exceeded')
  })

  test('counts for nothing with its breaker: clients choose their deadlines', async () => {
    await ask('/slow', { 'x-timeout-ms': '20' })
    const { breakers } = await gateway.status<{ breakers: { service: string; state: string }[] }>()
    expect(breakers).toEqual([expect.objectContaining({ service: 'slow', state: 'closed' })])
  })
})

describe('a service', () => {
  test('is told what is left, in the fields that the client has sent', async () => {
    const answer = await ask('/', { 'x-timeout-ms': '5000', 'grpc-timeout': '20S' })
    const seen = seenOf(answer)
    const [ms] = headerOf(seen, 'x-timeout-ms')
    expect(Number(ms)).toBeGreaterThan(0)
    expect(Number(ms)).toBeLessThan(5000)
    expect(headerOf(seen, 'grpc-timeout')).toEqual([`${ms}m`])
  })

  test('is told no more than its own total', async () => {
    const seen = seenOf(await ask('/brief', { 'grpc-timeout': '1H' }))
    const [left] = headerOf(seen, 'grpc-timeout')
    expect(left).toMatch(/^[0-9]+m$/)
    expect(Number.parseInt(left!, 10)).toBeLessThanOrEqual(2000)
    expect(headerOf(seen, 'x-timeout-ms')).toEqual([])
  })

  test('is told the least of several, once', async () => {
    const [left, ...others] = headerOf(seenOf(await ask('/', { 'x-timeout-ms': ['90000', '5000'] })), 'x-timeout-ms')
    expect(Number(left)).toBeLessThan(5000)
    expect(others).toEqual([])
  })

  test('behind two gateways is told less than the second one was', async () => {
    const seen = seenOf(await ask('/', { 'x-timeout-ms': '5000' }, first))
    // Each gateway takes time, and tells whole milliseconds.
    expect(Number(headerOf(seen, 'x-timeout-ms')[0])).toBeLessThan(4999)
  })

  test.each([{ 'x-timeout-ms': 'soon' }, { 'x-timeout-ms': '5s' }, { 'grpc-timeout': '5 minutes' }])(
    'gets %j as it is: the name may mean something else there',
    async (headers) => {
      const answer = await ask('/', headers)
      expect(answer.status).toBe(200)
      const [[name, value]] = Object.entries(headers) as [[string, string]]
      expect(headerOf(seenOf(answer), name)).toEqual([value])
    },
  )
})

test.each([{ 'x-timeout-ms': '0' }, { 'grpc-timeout': '0S' }, { 'grpc-timeout': '900u' }])(
  'what is too late as it comes is not forwarded: %j',
  async (headers) => {
    const before = echo.requests.all.length
    const answer = await ask('/too-late', headers)
    expect([answer.status, codeOf(answer)]).toEqual([504, 'deadline_exceeded'])
    expect(await lineOf(answer)).toMatchObject({
      reason: "the client's deadline passed before forwarding",
      attempts: 0,
    })
    expect((await ask('/in-time', {})).status).toBe(200)
    expect(echo.requests.all.slice(before).map(({ url }) => url)).toEqual(['/in-time'])
  },
)

test('what waits in the queue of its service until it is too late is not forwarded', async () => {
  const first = await Connection.open(gateway.port)
  await first.send({ target: '/queued?first' })
  await slow.requests.find(({ url }) => url === '/queued?first', 'the first request')
  const answer = await ask('/queued?second', { 'x-timeout-ms': '100' })
  expect([answer.status, codeOf(answer)]).toEqual([504, 'deadline_exceeded'])
  expect(await lineOf(answer)).toMatchObject({ attempts: 0 })
  first.destroy()
  await released
  expect(slow.requests.all.map(({ url }) => url)).not.toContain('/queued?second')
})
