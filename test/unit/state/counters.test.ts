import { describe, expect, it } from 'vitest'
import type { Route } from '../../../src/config/compile.js'
import { Exchange } from '../../../src/exchange/exchange.js'
import { Fields } from '../../../src/exchange/fields.js'
import { OUTCOME_CODES, OUTCOMES, type OutcomeCode } from '../../../src/exchange/outcome.js'
import { CountersReader, countersBytesPerWorker, WorkerCounters } from '../../../src/state/counters.js'
import { bucketOf, MAX_DURATION_US } from '../../../src/state/durations.js'
import { openSegment } from '../../../src/state/open-segment.js'
import { SECTIONS } from '../../../src/state/sections.js'
import type { Segment } from '../../../src/state/segment.js'
import { WorkerTable } from '../../../src/state/worker-table.js'

const NO_RESPONSE = null as unknown as ConstructorParameters<typeof Exchange>[0]

const WORKERS = 3
const ROUTES = 2

function segmentOf(workers = WORKERS, routes = ROUTES): Segment {
  const spec = {
    workers,
    rateLimitKeys: 64,
    services: 1,
    endpoints: 1,
    routes,
  }
  return openSegment(SECTIONS, spec, { path: null, isolation: 'thread' })
}

function setUp() {
  const segment = segmentOf()
  const table = new WorkerTable(segment, WORKERS)
  table.reset()
  const writers = Array.from({ length: WORKERS }, (_, slot) => new WorkerCounters(segment, table, slot, ROUTES))
  return { segment, table, writers, reader: new CountersReader(segment, WORKERS, ROUTES) }
}

function exchange(route: number | null, status: number, fields: Partial<Exchange> = {}): Exchange {
  const made = new Exchange(NO_RESPONSE, 0, 'GET', '/', '', Fields.of([]))
  return Object.assign(made, { route: route === null ? null : ({ slot: route } as Route), status }, fields)
}

describe('counters', () => {
  it('add up over the workers, route by route', () => {
    const { writers, reader } = setUp()
    writers[0]!.count(exchange(0, 200, { bytesIn: 10, bytesOut: 1000 }), 500)
    writers[2]!.count(exchange(0, 200, { bytesIn: 5, bytesOut: 24 }), 700)
    writers[1]!.count(exchange(1, 404), 20)
    expect(reader.totals(0)).toMatchObject({
      requests: 2,
      statuses: [['200', 2]],
      bytesIn: 15,
      bytesOut: 1024,
      durationUs: 1200,
    })
    expect(reader.totals(1)).toMatchObject({ requests: 1, statuses: [['404', 1]], bytesIn: 0 })
  })

  it('keep requests without a route apart, after the last route', () => {
    const { writers, reader } = setUp()
    writers[0]!.count(exchange(null, 404, { code: 'no_route' }), 5)
    expect(reader.totals(0).requests + reader.totals(1).requests).toBe(0)
    expect(reader.totals(ROUTES).codes).toEqual(new Map([['no_route', 1]]))
  })

  it('have a place for every outcome code and its status', () => {
    const { writers, reader } = setUp()
    for (const code of OUTCOME_CODES)
      writers[1]!.count(exchange(1, OUTCOMES[code].status, { code: code as OutcomeCode }), 1)
    const totals = reader.totals(1)
    expect([...totals.codes.keys()]).toEqual(OUTCOME_CODES)
    expect(totals.statuses.map(([status]) => status)).not.toContain('other')
    expect(new Map(totals.statuses).get('503')).toBe(4)
  })

  it('fall back to the class of a status that has no place of its own', () => {
    const { writers, reader } = setUp()
    for (const status of [218, 299, 418, 599, 103, 399, 0, 99, 600, 1000]) writers[0]!.count(exchange(0, status), 1)
    expect(reader.totals(0).statuses).toEqual([
      ['1xx', 1],
      ['2xx', 2],
      ['3xx', 1],
      ['4xx', 1],
      ['5xx', 1],
      ['other', 4],
    ])
  })

  it('tell attempts from requests that reached an upstream, and count reports of limits', () => {
    const { writers, reader } = setUp()
    writers[0]!.count(exchange(0, 200, { attempts: 1, upstreamUs: 300 }), 400)
    writers[0]!.count(exchange(0, 502, { attempts: 3, upstreamUs: 900, limitReported: true }), 1000)
    writers[0]!.count(exchange(0, 429, { upstreamUs: 77 }), 10)
    expect(reader.totals(0)).toMatchObject({
      requests: 3,
      forwarded: 2,
      attempts: 4,
      upstreamUs: 1200,
      limitReports: 1,
    })
  })

  it('take any duration: none, a fraction, one before the start, one without end', () => {
    const { writers, reader } = setUp()
    for (const us of [0, 0.75, -5, Number.NaN, 1e12, MAX_DURATION_US, 12.5]) writers[0]!.count(exchange(0, 200), us)
    const { durations } = reader.totals(0)
    expect(durations[0]).toBe(4)
    expect(durations[12]).toBe(1)
    expect(durations[bucketOf(MAX_DURATION_US)]).toBe(2)
  })

  it('outlive the worker that counted', () => {
    const { segment, table, writers, reader } = setUp()
    writers[1]!.count(exchange(0, 200), 10)
    table.vacate(1)
    table.started(1, 4711, 0)
    new WorkerCounters(segment, table, 1, ROUTES).count(exchange(0, 200), 10)
    expect(reader.totals(0).requests).toBe(2)
  })

  it('never write outside their own share', () => {
    const { segment, writers } = setUp()
    const share = countersBytesPerWorker(ROUTES)
    const { offset } = segment.section('counters')
    writers[1]!.count(exchange(0, 100, { code: OUTCOME_CODES[0]!, bytesIn: 1, attempts: 1, limitReported: true }), 0)
    writers[1]!.count(exchange(null, 999, { code: OUTCOME_CODES.at(-1)!, bytesIn: 1, attempts: 1 }), MAX_DURATION_US)
    const bytes = new Uint8Array(segment.live, 0, offset + 3 * share)
    const written = (from: number, to: number) => bytes.subarray(from, to).some((byte) => byte !== 0)
    expect(written(offset, offset + share)).toBe(false)
    expect(written(offset + share, offset + 2 * share)).toBe(true)
    expect(written(offset + 2 * share, offset + 3 * share)).toBe(false)
  })

  it('begin at nothing for a route that takes over a place', () => {
    const { writers, reader } = setUp()
    for (const writer of writers) for (const route of [0, 1]) writer.count(exchange(route, 200), 10)
    reader.clear(1)
    expect([reader.totals(0).requests, reader.totals(1).requests]).toEqual([WORKERS, 0])
  })

  it('refuse a section that is too small', () => {
    expect(() => new CountersReader(segmentOf(1, 1), 2, 1)).toThrow(/counters section of \d+ bytes cannot hold \d+/)
    expect(() => new WorkerTable(segmentOf(1, 1), 33)).toThrow(/workers section/)
  })
})

describe('worker table', () => {
  it('begins with no worker accepting', () => {
    const { table } = setUp()
    expect([...table.connections]).toEqual([-1, -1, -1])
    expect(table.readAll().map(({ state, pid, restarts }) => ({ state, pid, restarts }))).toEqual(
      Array(3).fill({ state: 'empty', pid: 0, restarts: 0 }),
    )
  })

  it('follows a worker from its start to its end and counts its replacements', () => {
    const { table, writers } = setUp()
    table.started(1, 100, 5_000_000)
    expect(table.read(1)).toMatchObject({
      state: 'starting',
      pid: 100,
      connections: -1,
      heartbeatUs: 5_000_000,
      restarts: 0,
    })
    table.listening(1)
    writers[1]!.connectionOpened()
    writers[1]!.connectionOpened()
    writers[1]!.connectionClosed()
    writers[1]!.begin()
    writers[1]!.begin()
    writers[1]!.count(exchange(0, 200), 1)
    writers[1]!.beat(6_000_000, 1500, 7, 2 ** 26, 5000)
    expect(table.read(1)).toMatchObject({
      state: 'listening',
      connections: 1,
      inFlight: 1,
      heartbeatUs: 6_000_000,
      startedUs: 5_000_000,
      loopDelayUs: 1500,
      logDropped: 7,
      memoryBytes: 2 ** 26,
      bodyBytes: 5000,
    })
    table.draining(1)
    // The acceptors see nobody to leave a connection to, and the page still how many there are.
    expect(table.connections[1]).toBeLessThan(0)
    expect(table.read(1)).toMatchObject({ state: 'draining', connections: 1 })
    writers[1]!.connectionClosed()
    expect(table.read(1).connections).toBe(0)
    table.vacate(1)
    expect(table.read(1)).toMatchObject({ state: 'empty', pid: 0, connections: -1, inFlight: 0 })
    table.started(1, 101, 9_000_000)
    expect(table.read(1)).toMatchObject({
      state: 'starting',
      pid: 101,
      restarts: 1,
      heartbeatUs: 9_000_000,
      loopDelayUs: 0,
    })
    expect([table.read(0), table.read(2)].map(({ state }) => state)).toEqual(['empty', 'empty'])
  })

  it('keeps the access lines that earlier workers of the slot lost', () => {
    const { segment, table, writers } = setUp()
    writers[0]!.beat(1, 0, 40, 0, 0)
    const next = new WorkerCounters(segment, table, 0, ROUTES)
    next.beat(2, 0, 2, 0, 0)
    next.beat(3, 0, 3, 0, 0)
    expect(table.read(0).logDropped).toBe(43)
  })

  it('does not forget connections accepted before it was told to listen', () => {
    const { table } = setUp()
    table.started(0, 1, 0)
    table.connections[0] = 4
    table.listening(0)
    expect(table.connections[0]).toBe(4)
  })
})
