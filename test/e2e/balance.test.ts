// Balancing as clients see it, over two workers that say nothing to each other. What the balancers do is in
// test/unit/upstream and test/contract/balancers.test.ts.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { basic, keptAsScrypt } from '../support/credentials.js'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, startEcho } from '../support/origins.js'
import { Connection, call, type RequestParts } from '../support/raw-client.js'

const CONNECTIONS = 6

let origins: Origin[]
let config: object
let gateway: Gateway
/** Open all the time, so that each of the two workers has half of them. */
let connections: Connection[]

beforeAll(async () => {
  origins = await Promise.all(['a', 'b', 'c', 'd'].map((name) => startEcho({ headers: { 'x-origin': name } })))
  const urls = origins.map(({ url }) => url)
  const service = (balance: unknown, endpoints: unknown[] = urls) => ({ endpoints, balance, outliers: false })
  const services = {
    header: service({ hash: 'header:X-Tenant' }),
    cookie: service({ hash: 'cookie:session' }),
    path: service({ hash: 'path' }),
    consumer: service({ hash: 'consumer' }),
    address: service({ hash: 'address' }),
    two: service('p2c', urls.slice(0, 2)),
    near: service('p2c', [
      { url: urls[0], zone: 'eu-1a' },
      { url: urls[1], zone: 'eu-1b' },
      { url: urls[2], zone: 'eu-1b' },
    ]),
    weighted: service('round-robin', [{ url: urls[0], weight: 3 }, urls[1]]),
  }
  config = {
    trustedProxies: ['127.0.0.1'],
    consumers: {
      shop: { password: keptAsScrypt('the-password-of-shop') },
      bank: { password: keptAsScrypt('the-password-of-bank') },
    },
    services,
    routes: Object.keys(services).map((name) => ({
      match: { path: `/${name}` },
      service: name,
      auth: name === 'consumer' ? 'basic' : 'none',
    })),
  }
  gateway = await startGateway({ workers: 2, env: { TIDEGATE_ZONE: 'eu-1b' }, config })
  connections = await Promise.all(Array.from({ length: CONNECTIONS }, () => Connection.open(gateway.port)))
  await answeredBy({ target: '/two' })
  for (const worker of [0, 1])
    expect(await gateway.metric(`tidegate_connections{worker="${worker}"}`)).toBeGreaterThan(0)
})

afterAll(async () => {
  for (const connection of connections) connection.destroy()
  await gateway.close()
  await Promise.all(origins.map((origin) => origin.close()))
})

/** Who answers on each connection, one after the other. */
async function answeredBy(parts: RequestParts): Promise<string[]> {
  const names: string[] = []
  for (const connection of connections) {
    const answer = await connection.exchange(parts)
    expect(answer.status).toBe(200)
    names.push(answer.one('x-origin')!)
  }
  return names
}

const SAME: readonly (readonly [string, (key: number) => RequestParts])[] = [
  ['header', (key) => ({ target: '/header', headers: { 'X-Tenant': `tenant-${key}` } })],
  ['cookie', (key) => ({ target: `/cookie?${key}`, headers: { cookie: `theme=dark; session=s${key}; a=b` } })],
  ['path', (key) => ({ target: `/path/${key}?${Math.random()}` })],
  ['address', (key) => ({ target: '/address', headers: { 'x-forwarded-for': `192.0.2.${key + 1}` } })],
]

describe('a hash', () => {
  test.each(SAME)('by %s: the same endpoint on every worker, and not one for all', async (_, partsOf) => {
    const names = new Set<string>()
    for (let key = 0; key < 8; key++) {
      const [first, ...others] = await answeredBy(partsOf(key))
      expect(others).toEqual(Array(CONNECTIONS - 1).fill(first))
      names.add(first!)
    }
    expect(names.size).toBeGreaterThan(1)
  })

  test('by consumer', async () => {
    for (const name of ['shop', 'bank']) {
      const parts = { target: '/consumer', headers: { authorization: basic(name, `the-password-of-${name}`) } }
      const [first, ...others] = await answeredBy(parts)
      expect(others).toEqual(Array(CONNECTIONS - 1).fill(first))
    }
  })

  test('another start of the gateway chooses the same', async () => {
    const another = await startGateway({ workers: 1, config })
    for (const [, partsOf] of SAME) {
      for (let key = 0; key < 4; key++) {
        const there = await call(another.port, partsOf(key))
        expect(there.one('x-origin')).toBe((await connections[0]!.exchange(partsOf(key))).one('x-origin'))
      }
    }
    await another.close()
  })

  test('requests without the key go to all', async () => {
    const names = [...(await answeredBy({ target: '/header' })), ...(await answeredBy({ target: '/header' }))]
    expect(new Set(names).size).toBeGreaterThan(1)
  })
})

test('p2c: requests one after the other reach both of two endpoints', async () => {
  const counts = { a: 0, b: 0 }
  for (let i = 0; i < 7; i++) for (const name of await answeredBy({ target: '/two' })) counts[name as 'a' | 'b']++
  // Less than one in a billion that chance does this.
  expect(Math.min(counts.a, counts.b)).toBeGreaterThan(1)
})

test('the own zone gets all requests', async () => {
  const names = [...(await answeredBy({ target: '/near' })), ...(await answeredBy({ target: '/near' }))]
  expect(new Set(names)).toEqual(new Set(['b', 'c']))
})

test('weights: three of four requests of each worker', async () => {
  const [connection] = connections
  const names: string[] = []
  for (let i = 0; i < 12; i++) names.push((await connection!.exchange({ target: '/weighted' })).one('x-origin')!)
  expect(names.filter((name) => name === 'a')).toHaveLength(9)
})
