// Rate limits as callers see them: exact over all workers, with the headers that say when to come back. The rules of
// the bucket itself are in test/unit/state and test/contract.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, startEcho } from '../support/origins.js'
import { type Answer, Connection, call, type RequestParts } from '../support/raw-client.js'
import { type Caller, signedHeaders } from '../support/signing.js'
import { untilTime } from '../support/waiting.js'

const A: Caller = { source: 'a', secret: 'the-secret-of-the-a' }
const B: Caller = { source: 'b', secret: 'the-secret-of-the-b' }

/** After which /refills admits one more. */
const REFILL_MS = 500

let echo: Origin
let gateway: Gateway

beforeAll(async () => {
  echo = await startEcho()
  const open = (path: string, rest: object) => ({ match: { path }, service: 'echo', auth: 'none', ...rest })
  // One an hour: what is used up stays used up for the length of any test.
  const hourly = { rate: '1/h', burst: 5 }
  gateway = await startGateway({
    config: {
      trustedProxies: ['127.0.0.1'],
      consumers: { a: { secret: A.secret }, b: { secret: B.secret } },
      services: { echo: { endpoints: [echo.url] } },
      limits: { shared: { by: 'route', ...hourly }, everyone: { by: 'address', ...hourly } },
      routes: [
        { match: { path: '/consumer' }, service: 'echo', auth: 'x-m', limits: [{ by: 'consumer', ...hourly }] },
        open('/address', { limits: [{ by: 'address', ...hourly }] }),
        open('/header', { limits: [{ by: 'header:X-Tenant', ...hourly }] }),
        open('/report', { limits: [{ by: 'route', ...hourly, mode: 'report' }] }),
        open('/told', { limits: [{ by: 'route', ...hourly, headers: true }] }),
        open('/cost', { limits: [{ by: 'route', ...hourly, cost: { POST: 4 } }] }),
        open('/both', {
          limits: [
            { by: 'route', rate: '1/h', burst: 2, name: 'narrow' },
            { by: 'route', ...hourly, name: 'wide' },
          ],
        }),
        open('/one', { limits: ['everyone'] }),
        open('/two', { limits: ['everyone'] }),
        open('/window', { limits: [{ by: 'header:x-run', rate: '20/s', headers: true }] }),
        open('/refills', { limits: [{ by: 'route', rate: '2/s', burst: 1 }] }),
      ],
    },
  })
})

afterAll(async () => {
  await gateway.close()
  await echo.close()
})

/** On connections of their own, so that both workers are asked. */
async function statuses(count: number, parts: () => RequestParts): Promise<number[]> {
  const answers = await Promise.all(Array.from({ length: count }, () => call(gateway.port, parts())))
  return answers.map((answer) => answer.status)
}

const admitted = (all: readonly number[]): number => all.filter((status) => status === 200).length

test('as many pass as the bucket holds, over both workers, and each consumer has a bucket of its own', async () => {
  const target = '/consumer'
  // Connections that stay open, so that the acceptor has spread them when the first request is sent.
  const connections = await Promise.all(Array.from({ length: 12 }, () => Connection.open(gateway.port)))
  const answers: Answer[] = []
  await Promise.all(
    connections.map(async (one, i) => {
      answers.push(await one.exchange({ target, headers: signedHeaders(i % 2 === 0 ? A : B, { target }) }))
    }),
  )
  const { workers } = await gateway.status()
  // Threads get theirs as the kernel's hash falls.
  if (gateway.isolation === 'process') expect(workers.map((worker) => worker.connections > 0)).toEqual([true, true])
  for (const one of connections) one.destroy()
  expect(answers.filter((answer) => answer.status === 200).length).toBe(10)
  expect(answers.filter((answer) => answer.status === 429).length).toBe(2)
  expect(admitted(await statuses(6, () => ({ target, headers: signedHeaders(A, { target }) })))).toBe(0)
})

describe('a refusal', () => {
  test('says when to come back, and what the limit is', async () => {
    await statuses(5, () => ({ target: '/address' }))
    const before = echo.requests.all.length
    const answer = await call(gateway.port, { target: '/address' })
    expect(answer.status).toBe(429)
    expect(answer.json()).toMatchObject({ code: 'rate_limited' })
    const retryAfter = Number(answer.one('retry-after'))
    expect(retryAfter).toBeGreaterThan(3500)
    expect(retryAfter).toBeLessThanOrEqual(3600)
    expect(answer.one('ratelimit-policy')).toMatch(/^"[^"]+";q=\d+;w=\d+/)
    expect(answer.one('ratelimit')).toMatch(/^"[^"]+";r=0;t=\d+$/)
    expect(await gateway.logged(answer)).toMatchObject({ status: 429, code: 'rate_limited', attempts: 0 })
    expect(echo.requests.all.length).toBe(before)
  })

  test('charges nothing, also not the other limits of the route', async () => {
    expect(admitted(await statuses(8, () => ({ target: '/both' })))).toBe(2)
    const answer = await call(gateway.port, { target: '/both' })
    expect(answer.one('ratelimit')).toMatch(/^"narrow";r=0/)
  })
})

test('keys by address take the one that a trusted proxy vouches for', async () => {
  const from = (address: string) => () => ({ target: '/one', headers: { 'X-Forwarded-For': address } })
  expect(admitted(await statuses(7, from('192.0.2.1')))).toBe(5)
  expect(admitted(await statuses(2, from('192.0.2.2')))).toBe(2)
})

test('a named limit has one bucket for all routes that use it', async () => {
  const from = (target: string) => () => ({ target, headers: { 'X-Forwarded-For': '192.0.2.77' } })
  expect(admitted(await statuses(4, from('/one')))).toBe(4)
  expect(admitted(await statuses(4, from('/two')))).toBe(1)
})

test('keys by header', async () => {
  const of = (tenant: string) => () => ({ target: '/header', headers: { 'x-tenant': tenant } })
  expect(admitted(await statuses(7, of('red')))).toBe(5)
  expect(admitted(await statuses(7, of('blue')))).toBe(5)
})

test('a limit in report mode lets all through and marks the log', async () => {
  const answers = await Promise.all(Array.from({ length: 7 }, () => call(gateway.port, { target: '/report' })))
  expect(answers.map((answer) => answer.status)).toEqual(Array(7).fill(200))
  const lines = await Promise.all(answers.map((answer) => gateway.logged(answer)))
  expect(lines.filter((line) => line.limitReported === true).length).toBe(2)
})

test('a route that asks for it says on every answer what is left', async () => {
  const left: (string | null)[] = []
  for (let i = 0; i < 5; i++) {
    const answer = await call(gateway.port, { target: '/told' })
    expect(answer.one('ratelimit-policy')).not.toBeNull()
    left.push(/r=(\d+)/.exec(answer.one('ratelimit') ?? '')?.[1] ?? null)
  }
  expect(left).toEqual(['4', '3', '2', '1', '0'])
})

test('a request may cost more than one', async () => {
  const post = await call(gateway.port, { target: '/cost', method: 'POST', body: 'x' })
  expect(post.status).toBe(200)
  expect(admitted(await statuses(3, () => ({ target: '/cost' })))).toBe(1)
})

test('what was used up comes back with time', async () => {
  const connections = await Promise.all([1, 2].map(() => Connection.open(gateway.port)))
  for (let i = 0; i < 2; i++) {
    const answers = await Promise.all(connections.map((one) => one.exchange({ target: '/refills' })))
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 429])
    await untilTime(Date.now() + REFILL_MS)
  }
  for (const one of connections) one.destroy()
})

test('metrics count the refusals of each route', async () => {
  const { status, text } = await gateway.admin('/metrics')
  expect(status).toBe(200)
  expect(text).toMatch(/^tidegate_rate_limit_refusals_total\{route="\/header"\} 4$/m)
  expect(text).toMatch(/^tidegate_rate_limit_reports_total\{route="\/report"\} 2$/m)
})

describe('a rate without a burst', () => {
  const CLIENTS = 8
  const SECONDS = 3.5

  test('is never exceeded in any second, over both workers', async () => {
    const times: number[] = []
    const untilMs = performance.now() + SECONDS * 1000
    await Promise.all(
      Array.from({ length: CLIENTS }, async () => {
        const connection = await Connection.open(gateway.port)
        while (performance.now() < untilMs) {
          const answer = await connection.exchange({ target: '/window', headers: { 'x-run': 'any' } })
          if (answer.status === 200) {
            const { time, totalMs } = (await gateway.logged(answer)) as { time: number; totalMs: number }
            times.push(time - totalMs)
          } else expect(Number(answer.one('retry-after'))).toBe(1)
          expect(answer.one('ratelimit-policy')).toMatch(/;q=20;w=1$/)
        }
        connection.destroy()
      }),
    )
    times.sort((a, b) => a - b)
    // When each began, to the millisecond.
    for (let i = 20; i < times.length; i++)
      expect((times[i] as number) - (times[i - 20] as number)).toBeGreaterThan(998)
    expect(times.length).toBeGreaterThan(40)
    expect(times.length).toBeLessThanOrEqual(20 * Math.ceil(SECONDS))
  })
})

describe('a table full of keys that clients chose', () => {
  const KEYS = 4000
  const limits = { login: { by: 'address', rate: '5/h' }, tenant: { by: 'header:x-tenant', rate: '5/h' } }
  let crowded: Gateway

  beforeAll(async () => {
    const service = { service: 'echo', auth: 'none' }
    crowded = await startGateway({
      env: { TIDEGATE_RATE_LIMIT_KEYS: '1024' },
      config: {
        trustedProxies: ['127.0.0.1'],
        services: { echo: { endpoints: [echo.url] } },
        limits,
        routes: [
          { match: { path: '/login' }, ...service, limits: ['login'] },
          { match: { path: '/tenant' }, ...service, limits: ['tenant'] },
        ],
      },
    })
    await each(KEYS, (i) => ({ target: '/tenant', headers: { 'x-tenant': `tenant ${i}` } }))
  })
  afterAll(() => crowded.close())

  /** Over a few connections, one after the other on each. */
  async function each(count: number, parts: (i: number) => RequestParts): Promise<number[]> {
    const statuses: number[] = []
    let next = 0
    await Promise.all(
      Array.from({ length: 8 }, async () => {
        const connection = await Connection.open(crowded.port)
        while (next < count) statuses.push((await connection.exchange(parts(next++))).status)
        connection.destroy()
      }),
    )
    return statuses
  }

  const login = (address: string) => () => ({ target: '/login', headers: { 'X-Forwarded-For': address } })

  test('limits new keys of another limit as if it were empty', async () => {
    const { text } = await crowded.admin('/metrics')
    expect(Number(/^tidegate_rate_table_full_total (\d+)$/m.exec(text)?.[1])).toBeGreaterThan(0)
    for (let i = 1; i <= 20; i++) expect(admitted(await each(12, login(`192.0.2.${i}`)))).toBe(5)
  })

  test('and lets no new key of its own limit get more than that', async () => {
    for (let i = 0; i < 20; i++) {
      const parts = () => ({ target: '/tenant', headers: { 'x-tenant': `new ${i}` } })
      expect(admitted(await each(50, parts))).toBeLessThanOrEqual(5)
    }
  })
})
