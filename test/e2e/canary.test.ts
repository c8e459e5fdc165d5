// Splits and mirrors before real services: who gets which request, over workers and reloads, and that a client hears
// nothing of what a mirror's service does.
import { readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Service } from '../../src/config/route-table.js'
import { Split } from '../../src/config/split.js'
import { type AccessLine, type Gateway, startGateway } from '../support/gateway.js'
import { headerOf, type Origin, refusingPort, type Seen, sha256, startEcho, startScripted } from '../support/origins.js'
import { Connection, call } from '../support/raw-client.js'
import { signedHeaders, TEST } from '../support/signing.js'
import { deferred, eventually } from '../support/waiting.js'

const CONSUMERS = Array.from({ length: 12 }, (_, i) => `consumer-${i}`)
const keyOf = (consumer: string): string => `the-api-key-of-${consumer}`
const LARGE = 'x'.repeat(10_000_000)
const UPLOAD = LARGE.slice(0, 300_000)

let orders: Origin
let next: Origin
let shadow: Origin
let gateway: Gateway
/** Until then the mirror's service answers nothing on /held. */
const released = deferred()
/** The same on /bounded. */
const answered = deferred()

beforeAll(async () => {
  orders = await startEcho()
  next = await startEcho()
  shadow = await startScripted({
    '/held': async (exchange) => {
      await released.promise
      exchange.reset()
    },
    '/bounded': async (exchange) => {
      await answered.promise
      await exchange.answer(200)
    },
    '/hangs': () => new Promise(() => {}),
    '/resets': (exchange) => exchange.reset(),
    '/large': (exchange) => exchange.answer(200, {}, LARGE),
    '/failing': (exchange) => exchange.answer(500, {}, 'no'),
    '/copied': async (exchange) => exchange.answer(200, {}, sha256((await exchange.body()).bytes)),
    '/signed': async (exchange) => exchange.answer(200, {}, sha256((await exchange.body()).bytes)),
  })
  const gone = `http://127.0.0.1:${await refusingPort()}`
  const halves = { orders: 50, next: 50 }
  const mirrored = (name: string, mirror: unknown = 'shadow', more: object = {}) => ({
    name,
    match: { path: `/${name}` },
    service: 'orders',
    auth: 'none',
    mirror,
    ...more,
  })
  const split = (name: string, more: object) => ({ name, match: { path: `/${name}` }, auth: 'none', ...more })
  gateway = await startGateway({
    config: {
      consumers: {
        ...Object.fromEntries(CONSUMERS.map((name) => [name, { apiKeys: [`sha256:${sha256(keyOf(name))}`] }])),
        [TEST.source]: { secret: TEST.secret },
      },
      services: {
        orders: { endpoints: [orders.url] },
        next: { endpoints: [next.url] },
        gone: { endpoints: [gone] },
        shadow: { endpoints: [shadow.url] },
        impatient: { endpoints: [shadow.url], timeouts: { firstByte: '200ms' } },
        bounded: { endpoints: [shadow.url], maxInFlight: { most: 1, queue: { size: 10, wait: '20s' } } },
        broken: { endpoints: [gone], breaker: { minRequests: 1, openFor: '60s' } },
      },
      routes: [
        split('canary', { split: { orders: 95, next: 5 } }),
        split('by-consumer', { split: halves, sticky: 'consumer', auth: 'api-key' }),
        split('by-header', { split: halves, sticky: 'header:X-Tenant' }),
        split('without-key', { split: halves, sticky: 'header:X-Tenant' }),
        split('by-cookie', { split: halves, sticky: 'cookie:sid' }),
        split('stands-in', { split: { orders: 0, gone: 1 }, fallback: { service: 'orders' } }),
        split('once', { split: { orders: 0, gone: 1 }, fallback: { service: 'gone' } }),
        mirrored('copied'),
        mirrored('signed', { service: 'shadow', maxBody: '1KiB' }, { auth: ['x-m', 'api-key'] }),
        mirrored('small', 'shadow', { maxBody: '1KiB' }),
        mirrored('held'),
        mirrored('bounded', 'bounded'),
        mirrored('hangs', 'impatient'),
        mirrored('resets'),
        mirrored('large'),
        mirrored('failing'),
        mirrored('down', 'gone'),
        mirrored('refused', 'broken'),
        mirrored('some', { service: 'shadow', share: 0.25 }),
      ],
    },
  })
})

afterAll(async () => {
  await gateway.close()
  await Promise.all([orders.close(), next.close(), shadow.close()])
})

/** Over several connections, so that each worker has some. */
async function ask(count: number, target: string): Promise<void> {
  const connections = await Promise.all(Array.from({ length: 8 }, () => Connection.open(gateway.port)))
  let left = count
  await Promise.all(
    connections.map(async (connection) => {
      while (left-- > 0) expect((await connection.exchange({ target })).status).toBe(200)
      connection.destroy()
    }),
  )
}

const picked = (route: string, service: string) =>
  gateway.metric(`tidegate_split_requests_total{route="${route}",service="${service}"}`)

describe('a split', () => {
  test('gives a canary its share, counted and logged by service', async () => {
    const before = next.requests.all.length
    await ask(400, '/canary')
    const lines = await gateway.access.take(400, ({ route }) => route === 'canary', 'the canary')
    const canary = lines.filter(({ service }) => service === 'next').length
    // Each worker is within two of its own share.
    expect(canary).toBeGreaterThanOrEqual(16)
    expect(canary).toBeLessThanOrEqual(24)
    expect(next.requests.all.length - before).toBe(canary)
    expect([await picked('canary', 'orders'), await picked('canary', 'next')]).toEqual([400 - canary, canary])
    const { splits } = await gateway.status<{ splits: object[] }>()
    expect(splits).toContainEqual({ route: 'canary', service: 'next', share: 0.05, requests: canary })
  })

  /** Where each key's requests went, each on a connection of its own. */
  async function servicesOf(
    target: string,
    keys: readonly string[],
    headersFor: (key: string) => Record<string, string>,
  ): Promise<(string | undefined)[]> {
    const lines = await Promise.all(
      keys.map(async (key) => {
        const answer = await call(gateway.port, { target, headers: headersFor(key) })
        expect(answer.status).toBe(200)
        return gateway.logged(answer) as Promise<AccessLine>
      }),
    )
    return lines.map(({ service }) => service)
  }

  test.each([
    ['by-consumer', (key: string) => ({ 'x-api-key': keyOf(key) })],
    ['by-header', (key: string) => ({ 'x-tenant': key })],
    ['by-cookie', (key: string) => ({ cookie: `a=b; sid=${key}; c=d` })],
  ])(
    '%s: each key has one side, in all workers, which follows from names and weights alone',
    async (route, headers) => {
      const sides = ['orders', 'next'].map((name) => ({ service: { name } as Service, weight: 50 }))
      const pure = new Split(route, sides)
      const expected = CONSUMERS.map((key) => sides[pure.of(key)]!.service.name)
      expect(new Set(expected).size).toBe(2)
      for (let round = 0; round < 4; round++) {
        expect(await servicesOf(`/${route}`, CONSUMERS, headers)).toEqual(expected)
      }
      const response = await call(gateway.port, { target: `/${route}`, headers: headers(CONSUMERS[0]!) })
      expect(response.all('set-cookie')).toEqual([])
    },
  )

  test('requests without the key are divided', async () => {
    await ask(40, '/without-key')
    const lines = await gateway.access.take(40, ({ route }) => route === 'without-key', 'requests without the header')
    const sides = lines.map(({ service }) => service)
    expect(sides.filter((service) => service === 'next').length).toBeGreaterThan(10)
    expect(sides.filter((service) => service === 'orders').length).toBeGreaterThan(10)
  })

  test('a reload that raises a weight moves callers to that service alone, and turns no counts round', async () => {
    const headers = (key: string) => ({ 'x-tenant': key })
    const before = await servicesOf('/by-header', CONSUMERS, headers)
    const counted = [await picked('by-header', 'orders'), await picked('by-header', 'next')] as [number, number]
    const config = JSON.parse(readFileSync(gateway.configFile, 'utf8'))
    config.routes.find(({ name }: { name: string }) => name === 'by-header').split = { next: 200, orders: 50 }
    writeFileSync(gateway.configFile, JSON.stringify(config))
    const reload = await call(gateway.adminPort, { method: 'POST', target: '/reload', host: 'localhost' })
    expect(reload.status).toBe(200)
    const after = await servicesOf('/by-header', CONSUMERS, headers)
    expect(after.filter((service, at) => service !== before[at] && service !== 'next')).toEqual([])
    expect(after).not.toEqual(before)
    const moved = after.filter((service) => service === 'next').length
    expect(await picked('by-header', 'next')).toBe(counted[1] + moved)
    expect(await picked('by-header', 'orders')).toBe(counted[0] + CONSUMERS.length - moved)
    expect(await gateway.metric('tidegate_split_share{route="by-header",service="next"}')).toBe(0.8)
  })

  test('a canary that fails is stood in for, and nobody asks a service again that has just failed', async () => {
    const answer = await call(gateway.port, { target: '/stands-in' })
    expect([answer.status, answer.one('x-tidegate-fallback')]).toEqual([200, 'upstream_error'])
    expect(await gateway.logged(answer)).toMatchObject({ service: 'orders', attempts: 2 })
    const refused = await call(gateway.port, { target: '/once' })
    expect(refused.status).toBe(502)
    expect(await gateway.logged(refused)).toMatchObject({ service: 'gone', attempts: 1, code: 'upstream_error' })
  })
})

describe('a mirror', () => {
  const series = (name: string, route: string, service: string, label: string) =>
    gateway.metric(`tidegate_${name}{route="${route}",service="${service}",${label}}`)
  const results = async (route: string, service = 'shadow') => ({
    answered: await series('mirrored_requests_total', route, service, 'result="answered"'),
    failed: await series('mirrored_requests_total', route, service, 'result="failed"'),
    inFlight: await gateway.metric(`tidegate_mirror_in_flight{route="${route}",service="${service}"}`),
  })
  const dropped = (route: string, reason: string, service = 'shadow') =>
    series('mirror_drops_total', route, service, `reason="${reason}"`)
  const copyOf = (rid: string): Promise<Seen> =>
    shadow.requests.find((seen) => headerOf(seen, 'x-rid')[0] === rid, `the copy of ${rid}`)

  test('sends what the service gets, and marks it; no client can', async () => {
    const answer = await call(gateway.port, {
      method: 'PUT',
      target: '/copied?q=1',
      body: 'hello',
      headers: { 'x-tidegate-mirror': '7', 'x-own': 'mine' },
    })
    const seen = answer.json<Seen>()
    expect(headerOf(seen, 'x-tidegate-mirror')).toEqual([])
    const copy = await copyOf(answer.rid)
    expect([copy.method, copy.url]).toEqual(['PUT', '/copied?q=1'])
    expect(headerOf(copy, 'x-tidegate-mirror')).toEqual(['1'])
    for (const name of ['x-own', 'content-length', 'x-forwarded-for', 'x-rid']) {
      expect(headerOf(copy, name)).toEqual(headerOf(seen, name))
    }
    // A span of its own in the same trace.
    const [trace, copied] = [seen, copy].map((one) => headerOf(one, 'traceparent')[0]!.split('-'))
    expect(copied![1]).toBe(trace![1])
    await eventually('the copy to be answered', () => results('copied'), { answered: 1, failed: 0, inFlight: 0 })
    // The copy has ended: what it logs would be there before the lines of the request itself and of a later one.
    await gateway.logged(answer)
    await gateway.logged(await call(gateway.port, { target: '/canary' }))
    expect(gateway.access.all.filter(({ rid }) => rid === answer.rid)).toHaveLength(1)
  })

  test('copies bodies that are whole in memory, chunked ones too, and counts the others', async () => {
    const small = await call(gateway.port, { method: 'POST', target: '/copied', chunks: ['one, ', 'two'] })
    expect(small.json<Seen>().bodySha256).toBe(sha256('one, two'))
    expect(headerOf(await copyOf(small.rid), 'content-length')).toEqual(['8'])
    const large = await call(gateway.port, { method: 'POST', target: '/copied', body: UPLOAD })
    expect(large.json<Seen>().bodySha256).toBe(sha256(UPLOAD))
    expect(await dropped('copied', 'body')).toBe(1)
    await eventually('the copy to be answered', () => results('copied'), { answered: 2, failed: 0, inFlight: 0 })
  })

  test('of a signed body, up to maxBody, and without the credentials', async () => {
    for (const body of ['signed', 'x'.repeat(1025)]) {
      const request = { method: 'POST', target: '/signed', body }
      const answer = await call(gateway.port, { ...request, headers: signedHeaders(TEST, request) })
      expect(answer.status).toBe(200)
      if (body !== 'signed') continue
      const copy = await copyOf(answer.rid)
      expect(headerOf(copy, 'x-m')).toEqual([])
      expect(headerOf(copy, 'x-consumer-username')).toEqual([TEST.source])
    }
    expect(await dropped('signed', 'body')).toBe(1)
    await eventually('the copy to be answered', () => results('signed'), { answered: 1, failed: 0, inFlight: 0 })
    // Nothing is copied of what the gateway refuses.
    expect((await call(gateway.port, { target: '/signed' })).status).toBe(401)
    expect(await results('signed')).toEqual({ answered: 1, failed: 0, inFlight: 0 })
  })

  test('of an upload that is refused, or whose client leaves, sends nothing', async () => {
    const refused = await call(gateway.port, { method: 'POST', target: '/small', chunks: ['x'.repeat(2000)] })
    expect(refused.status).toBe(413)
    const connection = await Connection.open(gateway.port)
    await connection.write('POST /small HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 1000\r\n\r\nhalf')
    // It has begun to stream, and the copy that cannot be whole is counted.
    await eventually('the stream', () => dropped('small', 'body'), 1)
    connection.destroy()
    await gateway.access.find(({ route, status }) => route === 'small' && status === 499, 'the client that left')
    expect(await results('small')).toEqual({ answered: 0, failed: 0, inFlight: 0 })
  })

  test('of a share of the requests', async () => {
    await ask(200, '/some')
    const { answered } = await eventually(
      'all copies',
      () => results('some'),
      ({ answered, inFlight }) => inFlight === 0 && answered! > 0,
    )
    expect(answered).toBeGreaterThanOrEqual(46)
    expect(answered).toBeLessThanOrEqual(54)
  })

  test.each([
    ['resets', 'shadow', { answered: 0, failed: 20 }],
    ['large', 'shadow', { answered: 20, failed: 0 }],
    ['failing', 'shadow', { answered: 0, failed: 20 }],
    ['hangs', 'impatient', { answered: 0, failed: 20 }],
    ['down', 'gone', { answered: 0, failed: 20 }],
  ])(
    'whose service %s: every client gets its response, and nothing is left in flight',
    async (route, service, came) => {
      await ask(20, `/${route}`)
      await eventually(`all copies of ${route}`, () => results(route, service), { ...came, inFlight: 0 })
      const lines = await gateway.access.take(20, (line) => line.route === route, route)
      for (const line of lines) expect(line).toMatchObject({ status: 200, service: 'orders', attempts: 1 })
    },
  )

  test('whose breaker is open sends nothing more', async () => {
    await ask(1, '/refused')
    await eventually('the copy', () => results('refused', 'broken'), { answered: 0, failed: 1, inFlight: 0 })
    await ask(9, '/refused')
    await eventually('the others', () => dropped('refused', 'unavailable', 'broken'), 9)
  })

  test('sends as many as its service may have in flight over all workers, and gives the places back', async () => {
    await ask(8, '/bounded')
    expect(await results('bounded', 'bounded')).toEqual({ answered: 0, failed: 0, inFlight: 1 })
    expect(await dropped('bounded', 'unavailable', 'bounded')).toBe(7)
    answered.resolve()
    await eventually('the copy', () => results('bounded', 'bounded'), { answered: 1, failed: 0, inFlight: 0 })
    await ask(1, '/bounded')
    await eventually('another copy', () => results('bounded', 'bounded'), { answered: 2, failed: 0, inFlight: 0 })
  })

  test('holds 100 copies per worker at most, drops the others, and no client waits', async () => {
    await ask(260, '/held')
    const { inFlight } = await results('held')
    expect(inFlight).toBeGreaterThan(0)
    expect(inFlight).toBeLessThanOrEqual(200)
    expect(await dropped('held', 'in_flight')).toBe(260 - inFlight!)
    released.resolve()
    await eventually('all copies', () => results('held'), { answered: 0, failed: inFlight, inFlight: 0 })
  })
})
