import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { compile, type Endpoint, endpointOf } from '../../../src/config/compile.js'
import { loadConfig } from '../../../src/config/load.js'
import { BreakerTable } from '../../../src/state/breaker-table.js'
import { BulkheadTable } from '../../../src/state/bulkhead-table.js'
import { EndpointTable, OUT } from '../../../src/state/endpoint-table.js'
import { openSegment } from '../../../src/state/open-segment.js'
import { SECTIONS } from '../../../src/state/sections.js'
import type { AttemptSink } from '../../../src/upstream/attempt.js'
import { NONE } from '../../../src/upstream/cluster/balancer.js'
import type { Cluster } from '../../../src/upstream/cluster/cluster.js'
import type { EndpointState } from '../../../src/upstream/cluster/endpoint-state.js'
import { FieldLines } from '../../../src/upstream/field-lines.js'
import { Upstreams } from '../../../src/upstream/upstreams.js'
import { type Origin, type RawExchange, startScripted } from '../../support/origins.js'

let origins: Origin[]
let table: EndpointTable
let upstreams: Upstreams
/** Requests for /wait, in the order in which they came to any of the origins. */
let waiting: RawExchange[]

beforeEach(async () => {
  waiting = []
  const scripts = { '/wait': (exchange: RawExchange) => void waiting.push(exchange) }
  origins = await Promise.all([startScripted(scripts), startScripted(scripts), startScripted(scripts)])
  const segment = openSegment(
    SECTIONS,
    { workers: 1, rateLimitKeys: 15, services: 4, endpoints: 8, routes: 1 },
    { path: null, isolation: 'thread' },
  )
  table = new EndpointTable(segment, { endpoints: 8, workers: 1 })
  upstreams = new Upstreams({
    owner: 0,
    breakers: new BreakerTable(segment),
    worker: 0,
    endpoints: table,
    bulkheads: new BulkheadTable(segment, { services: 4, workers: 1 }),
    connections: 2,
    zone: '',
    nowUs: () => segment.nowUs(),
    onBreakerChange() {},
    onOutlierChange() {},
  })
})

afterEach(async () => {
  await upstreams.close()
  await Promise.all(origins.map((origin) => origin.close()))
})

function clustersOf(services: object): Cluster[] {
  const yaml = JSON.stringify({
    services,
    routes: [{ match: { path: '/' }, service: Object.keys(services)[0], auth: 'none' }],
  })
  const { config, settings } = loadConfig({ text: { origin: 'gateway.yaml', yaml }, env: { TIDEGATE_STATE: 'none' } })
  return upstreams.clustersOf(compile(config, settings).services)
}

const one = (...endpoints: Origin[]): Cluster => clustersOf({ one: { endpoints: endpoints.map(({ url }) => url) } })[0]!
const endpointsOf = (...list: Origin[]): Endpoint[] => list.map(({ url }, slot) => endpointOf(url, undefined, slot))
const picked = (cluster: Cluster, times: number): (string | undefined)[] =>
  Array.from({ length: times }, () => cluster.pick(0, NONE)?.endpoint.origin)

/** Resolves with what the attempt tells in the end. */
function ask(cluster: Cluster, endpoint: EndpointState, path = '/'): Promise<string> {
  const attempt = cluster.attempt(0)!
  const request = {
    method: 'GET',
    path,
    headers: new FieldLines('host: demo.test\r\n', -1),
    body: null,
    servername: '',
    reset: false,
  } as const
  return new Promise((resolve) => {
    const sink: AttemptSink = {
      onSentAgain() {},
      onHead() {},
      onData() {},
      onEnd() {
        attempt.complete(0, 0)
        resolve('response')
      },
      retryAt: () => null,
      onFailure: ({ rejection }) => resolve(rejection.reason),
      onException: (error) => resolve(String(error)),
    }
    attempt.start(request, endpoint, sink)
  })
}

describe('a set of endpoints that changes', () => {
  it('keeps the state of those that stay, and their connections', async () => {
    const [a, b, c] = origins as [Origin, Origin, Origin]
    const cluster = one(a, b)
    const [stateOfA] = cluster.endpoints
    for (const state of cluster.endpoints) expect(await ask(cluster, state)).toBe('response')
    cluster.setEndpoints(endpointsOf(c, a))
    expect(cluster.endpoints.map(({ endpoint }) => endpoint.origin)).toEqual([c.url, a.url])
    expect(cluster.endpoints[1]).toBe(stateOfA)
    expect(new Set(picked(cluster, 64))).toEqual(new Set([a.url, c.url]))
    for (const state of cluster.endpoints) expect(await ask(cluster, state)).toBe('response')
    expect(origins.map(({ connections }) => connections)).toEqual([1, 1, 1])
  })

  it('may be empty, and filled again', () => {
    const [a, b] = origins as [Origin, Origin]
    const cluster = one(a, b)
    cluster.setEndpoints([])
    expect(cluster.pick(0, NONE)).toBeNull()
    cluster.setEndpoints(endpointsOf(b))
    expect(picked(cluster, 2)).toEqual([b.url, b.url])
  })

  it('lets one that is gone finish: what is sent, what waits for a connection, what waits for a place', async () => {
    const [a, b] = origins as [Origin, Origin]
    const cluster = one(a)
    const gone = cluster.endpoints[0]!
    // Of two connections, uploads may have one.
    expect(gone.takePlace({ readAheadUs: 0, onPlace() {} })).toBe(true)
    const upload = new Promise<string>((resolve) => {
      const onPlace = (): void => void ask(cluster, gone, '/wait').then(resolve)
      expect(gone.takePlace({ readAheadUs: 0, onPlace })).toBe(false)
    })
    const asked = [ask(cluster, gone, '/wait'), ask(cluster, gone, '/wait'), ask(cluster, gone, '/wait')]
    await expect.poll(() => waiting.length).toBe(2)
    cluster.setEndpoints(endpointsOf(b))
    expect([gone.inFlight, picked(cluster, 2)]).toEqual([3, [b.url, b.url]])
    for (let n = 0; n < 3; n++) {
      await expect.poll(() => waiting.length).toBeGreaterThan(n)
      await waiting[n]!.answer(200)
    }
    expect(await Promise.all(asked)).toEqual(['response', 'response', 'response'])
    // The upload still waits, so the client is still there.
    expect(gone.inFlight).toBe(0)
    gone.leavePlace()
    await expect.poll(() => waiting.length).toBe(4)
    const closed = waiting[3]!.closed()
    await waiting[3]!.answer(200)
    expect(await upload).toBe('response')
    await closed
    expect(await ask(cluster, gone)).toBe('UND_ERR_CLOSED')
  })

  it('counts nothing at the slot of one that is gone: that may be the slot of another one by now', async () => {
    const [a, b] = origins as [Origin, Origin]
    const cluster = one(a)
    const asked = ask(cluster, cluster.endpoints[0]!, '/wait')
    await expect.poll(() => waiting.length).toBe(1)
    const { slot } = cluster.endpoints[0]!.endpoint
    expect(table.totals(slot)).toMatchObject({ inFlight: 1, waiting: 1 })
    cluster.setEndpoints([endpointOf(b.url, undefined, slot + 1)])
    table.clear(slot)
    cluster.setEndpoints([endpointOf(b.url, undefined, slot)])
    await waiting[0]!.answer(500)
    expect(await asked).toBe('response')
    expect(table.totals(slot)).toMatchObject({ attempts: 0, failures: 0, inFlight: 0, waiting: 0 })
  })

  it('passes over one that is down by the slot that it has now', () => {
    const [a, b] = origins as [Origin, Origin]
    const cluster = one(a, b)
    table.setHealth(0, 'down')
    expect(picked(cluster, 2)).toEqual([b.url, b.url])
    cluster.setEndpoints(endpointsOf(b, a))
    expect(picked(cluster, 2)).toEqual([a.url, a.url])
  })
})

describe('generations', () => {
  it('share endpoints with the same settings, whatever the service is called, and close what the last one leaves', async () => {
    const [a, b] = origins as [Origin, Origin]
    const [before] = clustersOf({ before: { endpoints: [a.url, b.url] } }) as [Cluster]
    const [other, after] = clustersOf({
      other: { endpoints: [a.url], pipelining: 2 },
      after: { endpoints: [a.url], timeouts: { total: '9s' } },
    }) as [Cluster, Cluster]
    expect(after.endpoints[0]).toBe(before.endpoints[0])
    expect(other.endpoints[0]).not.toBe(before.endpoints[0])
    const [, gone] = before.endpoints as [EndpointState, EndpointState]
    before.close()
    expect(await ask(after, after.endpoints[0]!)).toBe('response')
    expect(await ask(before, gone)).toBe('UND_ERR_CLOSED')
  })

  it('have a state each for services that name the same endpoint', () => {
    const [a] = origins as [Origin]
    const services = { one: { endpoints: [a.url] }, two: { endpoints: [a.url] } }
    const [one, two] = clustersOf(services) as [Cluster, Cluster]
    const [oneLater, twoLater] = clustersOf(services) as [Cluster, Cluster]
    expect(one.endpoints[0]).not.toBe(two.endpoints[0])
    expect([oneLater.endpoints[0], twoLater.endpoints[0]]).toEqual([one.endpoints[0], two.endpoints[0]])
  })

  it('keep what is in flight in the sums, where the service gets another name and other client settings', async () => {
    const [a, b] = origins as [Origin, Origin]
    const [before] = clustersOf({ before: { endpoints: [a.url] } }) as [Cluster]
    const asked = [ask(before, before.endpoints[0]!, '/wait')]
    // The same client, at another place of the table.
    const [, renamed] = clustersOf({ first: { endpoints: [b.url] }, renamed: { endpoints: [a.url] } }) as [
      Cluster,
      Cluster,
    ]
    // Another client, at the same place.
    const [, other] = clustersOf({
      first: { endpoints: [b.url] },
      renamed: { endpoints: [a.url], client: 'undici' },
    }) as [Cluster, Cluster]
    asked.push(ask(renamed, renamed.endpoints[0]!, '/wait'), ask(other, other.endpoints[0]!, '/wait'))
    const inFlight = () => [0, 1].map((slot) => [table.totals(slot).inFlight, table.totals(slot).waiting])
    expect(inFlight()).toEqual([
      [0, 0],
      [3, 3],
    ])
    await expect.poll(() => waiting.length).toBe(3)
    for (const exchange of waiting) await exchange.answer(200)
    expect(await Promise.all(asked)).toEqual(['response', 'response', 'response'])
    expect(inFlight()).toEqual([
      [0, 0],
      [0, 0],
    ])
  })
})

describe('endpoints that are ejected', () => {
  it('get no requests but those that have failed everywhere else', () => {
    const [a, b] = origins as [Origin, Origin]
    const cluster = one(a, b)
    const [ofA, ofB] = cluster.endpoints as [EndpointState, EndpointState]
    table.setOut(0, OUT.ejected, true)
    expect(picked(cluster, 100)).toEqual(Array(100).fill(b.url))
    expect(cluster.pick(0, [ofB])).toBe(ofA)
    expect(cluster.pick(0, [ofA, ofB])).toBe(ofB)
    table.setHealth(0, 'down')
    expect(cluster.pick(0, [ofB])).toBe(ofB)
  })

  it('are all back where a configuration ejects none', () => {
    const [a, b] = origins as [Origin, Origin]
    one(a, b)
    table.setOut(0, OUT.ejected, true)
    table.setOut(1, OUT.probation, true)
    clustersOf({ one: { endpoints: [a.url, b.url], outliers: false } })
    expect([table.out(0), table.out(1)]).toEqual([0, 0])
  })
})

describe('an endpoint to which many requests wait for a connection', () => {
  it('takes 1024 of them, and then 256 of high importance', () => {
    const [state] = one(origins[0]!).endpoints as [EndpointState]
    const seen = (inFlight: number) => {
      state.inFlight = inFlight
      return [state.queued, state.isFull, state.isFullForAll]
    }
    expect(seen(2)).toEqual([0, false, false])
    expect(seen(2 + 1023)).toEqual([1023, false, false])
    expect(seen(2 + 1024)).toEqual([1024, true, false])
    expect(seen(2 + 1024 + 255)).toEqual([1279, true, false])
    expect(seen(2 + 1024 + 256)).toEqual([1280, true, true])
    state.inFlight = 0
  })
})
