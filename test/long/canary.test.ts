// A canary of 5 % over 100,000 requests through a real gateway, and consumers that stay on one side meanwhile.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, sha256, startEcho } from '../support/origins.js'
import { Connection, call, type RequestParts } from '../support/raw-client.js'

const COUNT = 100_000
const CONNECTIONS = 16
/** Requests on a connection before their responses are read. */
const BATCH = 50
const CONSUMERS = Array.from({ length: 200 }, (_, i) => `consumer-${i}`)
const keyOf = (consumer: string): string => `the-api-key-of-${consumer}`

let orders: Origin
let next: Origin
let gateway: Gateway

beforeAll(async () => {
  orders = await startEcho()
  next = await startEcho()
  const split = { orders: 95, next: 5 }
  gateway = await startGateway({
    config: {
      consumers: Object.fromEntries(CONSUMERS.map((name) => [name, { apiKeys: [`sha256:${sha256(keyOf(name))}`] }])),
      services: { orders: { endpoints: [orders.url] }, next: { endpoints: [next.url] } },
      routes: [
        { name: 'canary', match: { path: '/canary' }, auth: 'none', accessLog: false, split },
        {
          name: 'sticky',
          match: { path: '/sticky' },
          auth: 'api-key',
          split: { orders: 1, next: 1 },
          sticky: 'consumer',
        },
      ],
    },
  })
})

afterAll(async () => {
  await gateway.close()
  await Promise.all([orders.close(), next.close()])
})

/** Each connection has a batch of requests on it at a time, and goes on with another one where the gateway ends it. */
async function load(count: number, batch: number, parts: (i: number) => RequestParts): Promise<void> {
  let left = count
  await Promise.all(
    Array.from({ length: CONNECTIONS }, async () => {
      let connection = await Connection.open(gateway.port)
      while (left > 0) {
        const taken = Math.min(batch, left)
        left -= taken
        for (let i = 0; i < taken; i++) await connection.send(parts(left + i))
        let ends = false
        for (let i = 0; i < taken; i++) {
          const answer = await connection.answer()
          expect(answer.status).toBe(200)
          ends = answer.one('connection') === 'close'
        }
        if (!ends) continue
        connection.destroy()
        connection = await Connection.open(gateway.port)
      }
      connection.destroy()
    }),
  )
}

test('of 100,000 requests 4.8 to 5.2 % go to the canary', { timeout: 170_000 }, async () => {
  await load(COUNT, BATCH, () => ({ target: '/canary' }))
  const picked = (service: string) =>
    gateway.metric(`tidegate_split_requests_total{route="canary",service="${service}"}`)
  const canary = next.requests.all.length
  expect(canary / COUNT).toBeGreaterThanOrEqual(0.048)
  expect(canary / COUNT).toBeLessThanOrEqual(0.052)
  expect(orders.requests.all.length + canary).toBe(COUNT)
  expect([await picked('orders'), await picked('next')]).toEqual([COUNT - canary, canary])
})

test('a sticky consumer never changes sides, while workers are replaced', async () => {
  const sides = new Map<string, string>()
  let seen = 0
  const round = async () => {
    await load(5 * CONSUMERS.length, 1, (i) => ({
      target: '/sticky',
      headers: { 'x-api-key': keyOf(CONSUMERS[i % CONSUMERS.length]!) },
    }))
    seen += 5 * CONSUMERS.length
    const lines = await gateway.access.take(seen, ({ route }) => route === 'sticky', 'sticky requests')
    for (const { consumer, service } of lines) {
      expect(sides.get(consumer!) ?? service).toBe(service)
      sides.set(consumer!, service!)
    }
  }
  await round()
  // Threads cannot be restarted.
  if (gateway.isolation === 'process') {
    await call(gateway.adminPort, { method: 'POST', target: '/restart', host: 'localhost' })
    const isRestarted = () => gateway.log.all.some(({ msg }) => msg === 'all workers were restarted')
    while (!isRestarted()) await round()
  }
  await round()
  expect(sides.size).toBe(CONSUMERS.length)
  expect(new Set(sides.values()).size).toBe(2)
})
