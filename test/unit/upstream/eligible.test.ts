// Which endpoints are chosen from, over all balancers: never one that is out, all but the drained ones in a panic, those
// of the own zone, and fewer requests for one that has just come back.
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { compile, type Endpoint, endpointOf } from '../../../src/config/compile.js'
import { loadConfig } from '../../../src/config/load.js'
import { BreakerTable } from '../../../src/state/breaker-table.js'
import { EndpointTable, OUT } from '../../../src/state/endpoint-table.js'
import { openSegment } from '../../../src/state/open-segment.js'
import { SECTIONS } from '../../../src/state/sections.js'
import { NONE } from '../../../src/upstream/cluster/balancer.js'
import type { Cluster } from '../../../src/upstream/cluster/cluster.js'
import { Upstreams } from '../../../src/upstream/upstreams.js'

const BALANCERS = ['p2c', 'round-robin', 'ewma', { hash: 'path' }] as const

let table: EndpointTable
let upstreams: Upstreams
/** Added to the segment's clock. */
let aheadUs: number

function setUp(zone = ''): void {
  aheadUs = 0
  const segment = openSegment(
    SECTIONS,
    { workers: 1, rateLimitKeys: 64, services: 4, endpoints: 16, routes: 1, branches: 1 } as never,
    { path: null, isolation: 'thread' },
  )
  table = new EndpointTable(segment, { endpoints: 16, workers: 1 })
  upstreams = new Upstreams({
    owner: 0,
    breakers: new BreakerTable(segment),
    worker: 0,
    endpoints: table,
    connections: 2,
    zone,
    nowUs: () => segment.nowUs() + aheadUs,
    onBreakerChange() {},
  } as never)
}

beforeEach(() => setUp())
afterEach(() => upstreams.close())

type Entry = string | { readonly url: string; readonly weight?: number; readonly zone?: string }

function clusterOf(endpoints: readonly Entry[], more: object = {}): Cluster {
  const yaml = JSON.stringify({
    services: { s: { endpoints, ...more } },
    routes: [{ match: { path: '/' }, service: 's', auth: 'none' }],
  })
  const { config, settings } = loadConfig({ text: { origin: 'gateway.yaml', yaml }, env: { TIDEGATE_STATE: 'none' } })
  return upstreams.clustersOf(compile(config, settings).services)[0]!
}

const urls = (count: number): string[] => Array.from({ length: count }, (_, at) => `http://h${at}`)
const zoned = (...zones: string[]): Entry[] =>
  zones.map((zone, at) => (zone === '' ? `http://h${at}` : { url: `http://h${at}`, zone }))

/** How often each slot gets one of so many requests; each has a key of its own. */
function counted(cluster: Cluster, picks: number): number[] {
  const counts: number[] = Array(16).fill(0)
  for (let i = 1; i <= picks; i++) {
    const state = cluster.pick(Math.imul(i, 0x9e3779b1), NONE)
    if (state !== null) counts[state.endpoint.slot]!++
  }
  return counts.slice(0, Math.max(cluster.endpoints.length, 1 + counts.findLastIndex((count) => count > 0)))
}

const reached = (cluster: Cluster, picks = 400): number[] =>
  counted(cluster, picks).flatMap((count, slot) => (count > 0 ? [slot] : []))

describe.each(BALANCERS)('balanced by %j', (balance) => {
  test('one that is out gets nothing from the next request on, and something from the first one after its return', () => {
    const cluster = clusterOf(urls(4), { balance, slowStart: '0s' })
    expect(reached(cluster)).toEqual([0, 1, 2, 3])
    for (const bit of [OUT.down, OUT.drained, OUT.ejected]) {
      table.setOut(2, bit, true)
      expect(reached(cluster)).toEqual([0, 1, 3])
      table.setOut(2, bit, false)
      expect(reached(cluster)).toEqual([0, 1, 2, 3])
    }
  })

  test('all drained, or all down: none', () => {
    const cluster = clusterOf(urls(3), { balance })
    for (const slot of [0, 1, 2]) table.setOut(slot, OUT.drained, true)
    expect(reached(cluster)).toEqual([])
    for (const slot of [0, 1]) {
      table.setOut(slot, OUT.down, true)
      table.setOut(slot, OUT.drained, false)
    }
    expect(reached(cluster)).toEqual([])
    table.setOut(1, OUT.down, false)
    expect(reached(cluster).includes(1)).toBe(true)
  })

  test('half of them out: the others; more than half: panic, all but the drained ones', () => {
    const cluster = clusterOf(urls(5), { balance, slowStart: '0s' })
    table.setOut(4, OUT.drained, true)
    table.setOut(0, OUT.ejected, true)
    table.setOut(1, OUT.down, true)
    expect(reached(cluster)).toEqual([2, 3])
    table.setOut(2, OUT.ejected, true)
    expect(reached(cluster)).toEqual([0, 1, 2, 3])
    // Nobody panics over an operator's wish.
    table.setOut(2, OUT.drained, true)
    expect(reached(cluster)).toEqual([0, 1, 3])
    table.setOut(0, OUT.ejected, false)
    table.setOut(1, OUT.down, false)
    expect(reached(cluster)).toEqual([0, 1, 3])
  })

  test('one of two is down and the other ejected: both, since the ejected one may respond', () => {
    const cluster = clusterOf(urls(2), { balance })
    table.setOut(0, OUT.down, true)
    table.setOut(1, OUT.ejected, true)
    expect(reached(cluster)).toEqual([0, 1])
  })

  test('3,000 random changes: never one that is out beyond a panic, and none only where there is none', () => {
    const cluster = clusterOf(urls(5), { balance, slowStart: '0s' })
    let seed = 99
    const below = (limit: number): number => {
      seed = (Math.imul(seed, 1664525) + 1013904223) | 0
      return ((seed >>> 8) * limit) >>> 24
    }
    for (let i = 0; i < 3000; i++) {
      const bit = [OUT.down, OUT.drained, OUT.ejected][below(3)]!
      table.setOut(below(5), bit, below(3) === 0)
      const outs = [0, 1, 2, 3, 4].map((slot) => table.out(slot))
      const undrained = outs.filter((out) => (out & OUT.drained) === 0)
      const isAllDown = undrained.every((out) => (out & OUT.down) !== 0)
      const panics = undrained.filter((out) => out !== 0).length > undrained.length / 2 && !isAllDown
      const state = cluster.pick(i + 1, NONE)
      const may = [0, 1, 2, 3, 4].filter((slot) => (panics ? (outs[slot]! & OUT.drained) === 0 : outs[slot] === 0))
      if (may.length === 0) expect(state).toBeNull()
      // While a panic comes or goes, a request may still be chosen for as before: each is given to one that is in.
      else if (!panics) expect(may).toContain(state?.endpoint.slot)
      else expect(outs[state!.endpoint.slot]! & OUT.drained).toBe(0)
    }
  })

  test('the own zone, until less than 70 % of it is in', async () => {
    await upstreams.close()
    setUp('here')
    const cluster = clusterOf(zoned('here', 'there', 'here', 'here', '', 'here'), { balance, slowStart: '0s' })
    expect(reached(cluster)).toEqual([0, 2, 3, 5])
    table.setOut(1, OUT.down, true)
    expect(reached(cluster)).toEqual([0, 2, 3, 5])
    table.setOut(1, OUT.down, false)
    table.setOut(3, OUT.ejected, true)
    expect(reached(cluster)).toEqual([0, 2, 5])
    table.setOut(0, OUT.ejected, true)
    expect(reached(cluster)).toEqual([1, 2, 4, 5])
    table.setOut(0, OUT.ejected, false)
    expect(reached(cluster)).toEqual([0, 2, 5])
  })

  test('a request that has failed at all of the own zone goes to another one', async () => {
    await upstreams.close()
    setUp('here')
    const cluster = clusterOf(zoned('here', 'there', 'here'), { balance })
    const [a, , b] = cluster.endpoints
    for (let i = 1; i < 50; i++) {
      expect(cluster.pick(i, [a!])).toBe(b)
      expect(cluster.pick(i, [a!, b!])!.endpoint.slot).toBe(1)
    }
  })
})

describe.each(['p2c', 'round-robin', 'ewma'] as const)('slow start with %s', (balance) => {
  // In minutes, so that the time that the test itself takes does not matter.
  const MINUTE_US = 60e6

  test('the share of one that comes back grows from a tenth, and nobody looks at it any more in the end', () => {
    const cluster = clusterOf(urls(2), { balance, slowStart: '10m' })
    const share = (): number => counted(cluster, 4000)[0]! / 4000
    expect(share()).toBeCloseTo(0.5, 1)
    table.setOut(0, OUT.ejected, true)
    expect(share()).toBe(0)
    table.setOut(0, OUT.ejected, false)
    // A tenth of the other's.
    expect(share()).toBeGreaterThan(0.06)
    expect(share()).toBeLessThan(0.13)
    aheadUs += 5 * MINUTE_US
    expect(share()).toBeGreaterThan(0.28)
    expect(share()).toBeLessThan(0.39)
    aheadUs += 6 * MINUTE_US
    expect(share()).toBeGreaterThan(0.45)
    expect(share()).toBeLessThan(0.55)
  })

  test('one request at a time over a long while: the others get no more than their share', () => {
    const cluster = clusterOf(urls(3), { balance, slowStart: '10m' })
    table.setOut(0, OUT.ejected, true)
    expect(reached(cluster)).not.toContain(0)
    table.setOut(0, OUT.ejected, false)
    const counts = [0, 0, 0]
    for (let i = 0; i < 600; i++) {
      counts[cluster.pick(0, NONE)!.endpoint.slot]!++
      aheadUs += 1e6
    }
    expect(counts[0]).toBeGreaterThan(60)
    expect(counts[0]).toBeLessThan(200)
    expect(Math.abs(counts[1]! - counts[2]!)).toBeLessThan(150)
  })

  test('0s: its whole share at once', () => {
    const cluster = clusterOf(urls(2), { balance, slowStart: '0s' })
    table.setOut(0, OUT.ejected, true)
    expect(reached(cluster)).not.toContain(0)
    table.setOut(0, OUT.ejected, false)
    expect(counted(cluster, 4000)[0]! / 4000).toBeCloseTo(0.5, 1)
  })

  test('all come back at once: they share as ever', () => {
    const cluster = clusterOf([{ url: 'http://h0', weight: 2 }, 'http://h1'], { balance, slowStart: '10m' })
    for (const slot of [0, 1]) table.setOut(slot, OUT.down, true)
    expect(cluster.pick(0, NONE)).toBeNull()
    for (const slot of [0, 1]) table.setOut(slot, OUT.down, false)
    expect(counted(cluster, 4000)[0]! / 4000).toBeCloseTo(2 / 3, 1)
  })
})

test('a slow start moves no keys of a hash', () => {
  const cluster = clusterOf(urls(4), { balance: { hash: 'path' }, slowStart: '10m' })
  const places = (): (number | undefined)[] =>
    Array.from({ length: 500 }, (_, i) => cluster.pick(Math.imul(i + 1, 0x9e3779b1), NONE)?.endpoint.slot)
  const before = places()
  table.setOut(1, OUT.ejected, true)
  expect(places()).not.toEqual(before)
  table.setOut(1, OUT.ejected, false)
  expect(places()).toEqual(before)
})

test('a weight that changes counts from the next request on', () => {
  const cluster = clusterOf(urls(2))
  const endpoints: Endpoint[] = [9, 1].map((weight, slot) =>
    endpointOf({ url: `http://h${slot}`, weight, zone: '' }, undefined, slot),
  )
  cluster.setEndpoints(endpoints)
  expect(counted(cluster, 4000)[0]! / 4000).toBeCloseTo(0.9, 1)
})
