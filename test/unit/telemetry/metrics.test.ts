import { describe, expect, it } from 'vitest'
import type { Route, Service } from '../../../src/config/compile.js'
import { MemoryDownstream } from '../../../src/downstream/memory.js'
import { Exchange } from '../../../src/exchange/exchange.js'
import { Fields } from '../../../src/exchange/fields.js'
import { STATE_NAMES } from '../../../src/state/breaker-record.js'
import { BulkheadTable } from '../../../src/state/bulkhead-table.js'
import { CountersReader, WorkerCounters } from '../../../src/state/counters.js'
import { FIELD } from '../../../src/state/endpoint-record.js'
import { EndpointTable, OUT } from '../../../src/state/endpoint-table.js'
import { openSegment } from '../../../src/state/open-segment.js'
import { SECTIONS } from '../../../src/state/sections.js'
import { WorkerTable } from '../../../src/state/worker-table.js'
import { type MetricsSource, renderMetrics } from '../../../src/telemetry/metrics.js'

interface Family {
  type: string
  help: string
  samples: { name: string; labels: Record<string, string>; value: number }[]
}

const SUFFIXES: Record<string, readonly string[]> = {
  counter: [''],
  gauge: [''],
  histogram: ['_bucket', '_sum', '_count'],
  summary: ['', '_sum', '_count'],
}

/** A strict reader of exposition format 0.0.4: anything it does not know is an error. */
function parse(text: string): Map<string, Family> {
  expect(text.endsWith('\n')).toBe(true)
  const families = new Map<string, Family>()
  const series = new Set<string>()
  let help: [string, string] | null = null
  let current = ''
  for (const line of text.slice(0, -1).split('\n')) {
    const comment = /^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)$/.exec(line)
    if (comment !== null) {
      const [, kind, name, rest] = comment as unknown as [string, string, string, string]
      if (families.has(name)) throw new Error(`family ${name} comes twice`)
      if (kind === 'HELP') {
        help = [name, rest]
        continue
      }
      if (help?.[0] !== name) throw new Error(`TYPE without HELP: ${line}`)
      if (SUFFIXES[rest] === undefined) throw new Error(`unknown type: ${line}`)
      if (rest === 'counter' && !name.endsWith('_total')) throw new Error(`counter without _total: ${line}`)
      families.set(name, { type: rest, help: help[1], samples: [] })
      current = name
      continue
    }
    const sample = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (-?[0-9.]+(?:e[+-]?[0-9]+)?)$/.exec(line)
    if (sample === null) throw new Error(`not a sample: ${line}`)
    const [, name, inner = '', number] = sample as unknown as [string, string, string | undefined, string]
    const family = families.get(current)
    if (family === undefined || !SUFFIXES[family.type]!.some((suffix) => name === current + suffix)) {
      throw new Error(`sample outside its family: ${line}`)
    }
    if (series.has(`${name}{${inner}}`)) throw new Error(`series comes twice: ${line}`)
    series.add(`${name}{${inner}}`)
    family.samples.push({ name, labels: labelsOf(inner), value: Number(number) })
  }
  return families
}

function labelsOf(text: string): Record<string, string> {
  const labels: Record<string, string> = {}
  const pair = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,(?=.)|$)/y
  while (pair.lastIndex < text.length) {
    const match = pair.exec(text)
    if (match === null) throw new Error(`bad labels: ${text}`)
    labels[match[1]!] = match[2]!.replace(/\\(.)/g, (_, c: string) => (c === 'n' ? '\n' : c))
  }
  return labels
}

const AWKWARD = 'quote " slash \\ line\nend, } é'

const TOTALS = {
  picked: 0,
  answered: 0,
  failed: 0,
  inFlight: 0,
  dropped: { body: 0, in_flight: 0, unavailable: 0 },
}

function setUp() {
  const spec = {
    workers: 2,
    rateLimitKeys: 64,
    services: 1,
    endpoints: 3,
    routes: 2,
  }
  const segment = openSegment(SECTIONS, spec, { path: null, isolation: 'thread' })
  const service = {
    name: 'demo',
    slot: 0,
    bulkhead: { most: 5, queueSize: 0, waitMs: 0, adaptive: null },
    endpoints: [0, 1, 2].map((index) => ({ origin: `http://127.0.0.1:900${index % 2}`, slot: index })),
  } as unknown as Service
  const routes = [
    { name: 'hello', slot: 0, service, limits: [{}], inFlightLimits: [], guessLimits: [] },
    { name: AWKWARD, slot: 1, service, limits: [], inFlightLimits: [], guessLimits: [] },
  ] as unknown as Route[]
  const table = new WorkerTable(segment, 2)
  table.reset()
  table.started(0, 100, 1_000_000)
  table.listening(0)
  const counters = [0, 1].map((slot) => new WorkerCounters(segment, table, slot, 2))
  const endpoints = new EndpointTable(segment, { endpoints: 3, workers: 2 })
  const bulkheads = new BulkheadTable(segment, spec)
  const count = (slot: number, route: Route | null, status: number, us: number, fields: Partial<Exchange> = {}) => {
    counters[slot]!.begin()
    counters[slot]!.count(
      Object.assign(new Exchange(new MemoryDownstream(), 0, 'GET', '/', '', Fields.of([])), { route, status }, fields),
      us,
    )
  }
  const read = (more: Partial<MetricsSource> = {}) =>
    parse(
      renderMetrics({
        routes,
        services: [service],
        reloads: { ok: 0, failed: 0 },
        reloadedOk: true,
        counters: new CountersReader(segment, 2, 2),
        workers: table.readAll(),
        endpoints,
        bulkheads,
        branches: [
          { kind: 'split', route: 'hello', service: 'next', share: 0.05, slot: 0, totals: { ...TOTALS, picked: 7 } },
          {
            kind: 'mirror',
            route: 'hello',
            service: 'shadow',
            share: 0.1,
            slot: 1,
            totals: {
              ...TOTALS,
              answered: 5,
              failed: 2,
              inFlight: 3,
              dropped: { body: 1, in_flight: 4, unavailable: 6 },
            },
          },
        ],
        breakers: [
          {
            service: 'demo',
            state: 'open',
            held: null,
            transitions: { closed: 0, open: 1, half_open: 0, ramp: 0 },
            refused: 7,
          },
        ],
        rateTable: {
          slots: 1024,
          live: 9,
          windowSlots: 512,
          liveWindows: 8,
          probes: 12,
          evictions: 3,
          full: 1,
          shared: 2,
        },
        replayTable: { slots: 96, live: 7, repeated: 2, full: 1, stuck: 3, share: 1 },
        certificates: [],
        nowUs: 3_500_000,
        build: { version: '0.1.0', isolation: 'process' },
        ...more,
      }),
    )
  return { routes, table, counters, endpoints, count, read }
}

function value(families: Map<string, Family>, name: string, labels: Record<string, string>): number | undefined {
  const family = families.get(name.replace(/_(bucket|sum|count)$/, '')) ?? families.get(name)
  const wanted = JSON.stringify(Object.entries(labels).sort())
  return family?.samples.find(
    (sample) => sample.name === name && JSON.stringify(Object.entries(sample.labels).sort()) === wanted,
  )?.value
}

describe('metrics', () => {
  it('show what splits gave to each service, and what came of the copies of mirrors', () => {
    const families = setUp().read()
    const split = { route: 'hello', service: 'next' }
    const mirror = { route: 'hello', service: 'shadow' }
    expect(value(families, 'tidegate_split_requests_total', split)).toBe(7)
    expect(value(families, 'tidegate_split_share', split)).toBe(0.05)
    expect(value(families, 'tidegate_mirrored_requests_total', { ...mirror, result: 'answered' })).toBe(5)
    expect(value(families, 'tidegate_mirrored_requests_total', { ...mirror, result: 'failed' })).toBe(2)
    expect(value(families, 'tidegate_mirror_in_flight', mirror)).toBe(3)
    const dropped = (reason: string) => value(families, 'tidegate_mirror_drops_total', { ...mirror, reason })
    expect(['body', 'in_flight', 'unavailable'].map(dropped)).toEqual([1, 4, 6])
  })

  it('are valid before the first request, with every family announced', () => {
    const families = setUp().read()
    expect([...families.keys()]).toEqual(
      expect.arrayContaining(['tidegate_requests_total', 'tidegate_request_duration_seconds']),
    )
    expect(value(families, 'tidegate_build_info', { version: '0.1.0', isolation: 'process' })).toBe(1)
    expect(value(families, 'tidegate_rate_limit_refusals_total', { route: 'hello' })).toBe(0)
  })

  it('sum requests and rejections over the workers, whatever the route is called', () => {
    const { routes, count, read } = setUp()
    count(0, routes[0]!, 200, 500, { attempts: 1, upstreamUs: 250_000, bytesOut: 20 })
    count(1, routes[0]!, 200, 500, { attempts: 2, upstreamUs: 250_000, bytesOut: 22 })
    count(1, routes[0]!, 429, 50, { code: 'rate_limited' })
    count(0, routes[1]!, 403, 50, { code: 'forbidden' })
    count(1, null, 404, 50, { code: 'no_route' })
    const families = read()
    expect(value(families, 'tidegate_requests_total', { route: 'hello', status: '200' })).toBe(2)
    expect(value(families, 'tidegate_requests_total', { route: AWKWARD, status: '403' })).toBe(1)
    expect(value(families, 'tidegate_rejections_total', { route: '', code: 'no_route' })).toBe(1)
    expect(value(families, 'tidegate_rate_limit_refusals_total', { route: 'hello' })).toBe(1)
    expect(value(families, 'tidegate_rate_limit_refusals_total', { route: AWKWARD })).toBeUndefined()
    expect(value(families, 'tidegate_response_bytes_total', { route: 'hello' })).toBe(42)
    expect(value(families, 'tidegate_upstream_attempts_total', { route: 'hello' })).toBe(3)
    expect(value(families, 'tidegate_upstream_retries_total', { route: 'hello' })).toBe(1)
    expect(value(families, 'tidegate_upstream_duration_seconds_sum', { route: 'hello' })).toBe(0.5)
    expect(value(families, 'tidegate_upstream_duration_seconds_count', { route: 'hello' })).toBe(2)
  })

  it('give a histogram whose buckets only rise and whose last is its count, and the quantiles beside it', () => {
    const { routes, count, read } = setUp()
    for (let i = 1; i <= 1000; i++) count(i % 2, routes[0]!, 200, i * 100)
    count(0, routes[0]!, 200, 120e6)
    const families = read()
    const buckets = families
      .get('tidegate_request_duration_seconds')!
      .samples.filter((sample) => sample.name.endsWith('_bucket'))
      .map((sample) => [sample.labels.le, sample.value] as const)
    const counts = buckets.map(([, count]) => count)
    expect(counts).toEqual([...counts].sort((a, b) => a - b))
    expect(buckets.at(-1)).toEqual(['+Inf', 1001])
    const at = new Map(buckets)
    expect(at.get('60')).toBe(1000)
    expect(at.get('0.1')).toBeGreaterThanOrEqual(960)
    expect(Math.abs(at.get('0.01')! - 100)).toBeLessThanOrEqual(6)
    expect(value(families, 'tidegate_request_duration_seconds_count', { route: 'hello' })).toBe(1001)
    expect(value(families, 'tidegate_request_duration_seconds_sum', { route: 'hello' })).toBeCloseTo(170.05, 6)
    const median = value(families, 'tidegate_request_duration_quantile_seconds', { route: 'hello', percentile: '50' })!
    expect(Math.abs(median / 0.05 - 1)).toBeLessThan(0.04)
  })

  it('show which endpoints are up, once each even if one is listed twice', () => {
    const { endpoints, read } = setUp()
    endpoints.setHealth(1, 'down')
    const families = read()
    expect(families.get('tidegate_endpoint_up')!.samples).toHaveLength(2)
    expect(value(families, 'tidegate_endpoint_up', { service: 'demo', endpoint: 'http://127.0.0.1:9000' })).toBe(1)
    expect(value(families, 'tidegate_endpoint_up', { service: 'demo', endpoint: 'http://127.0.0.1:9001' })).toBe(0)
  })

  it('show what each endpoint did over all workers, and why it is out', () => {
    const { endpoints, read } = setUp()
    for (const worker of [0, 1]) {
      endpoints.begin(worker, 1, true)
      endpoints.begin(worker, 1, true)
      endpoints.answered(worker, 1, 250_000, false)
      endpoints.end(worker, 1, worker === 1, false, false)
    }
    endpoints.record(1).set(FIELD.ejectedUntilUs, 4_000_000)
    endpoints.record(1).noteEjection('slow')
    endpoints.setOut(1, OUT.ejected, true)
    const labels = { service: 'demo', endpoint: 'http://127.0.0.1:9001' }
    const of = (name: string, reason?: string, nowUs = 3_500_000) =>
      value(read({ nowUs }), `tidegate_endpoint_${name}`, { ...labels, ...(reason !== undefined && { reason }) })
    expect(of('attempts_total')).toBe(2)
    expect(of('failures_total')).toBe(1)
    expect([of('latency_seconds_sum'), of('latency_seconds_count')]).toEqual([0.5, 2])
    expect(of('requests_in_flight')).toBe(2)
    expect([of('ejections_total', 'slow'), of('ejections_total', 'failures')]).toEqual([1, 0])
    expect([of('out', 'ejected'), of('out', 'down'), of('up')]).toEqual([1, 0, 1])
    expect(of('out', 'ejected', 4_000_001)).toBe(0)
  })

  it('show breakers in one state each, and the rate-limit table where there is one', () => {
    const { read } = setUp()
    const families = read()
    const states = families.get('tidegate_breaker_state')!.samples
    expect(states.map((sample) => sample.labels.state)).toEqual(STATE_NAMES)
    expect(states.filter((sample) => sample.value !== 0)).toMatchObject([{ labels: { state: 'open' }, value: 1 }])
    expect(value(families, 'tidegate_breaker_transitions_total', { service: 'demo', to: 'open' })).toBe(1)
    expect(value(families, 'tidegate_breaker_refusals_total', { service: 'demo' })).toBe(7)
    expect(value(families, 'tidegate_rate_table_full_total', {})).toBe(1)
    expect(value(families, 'tidegate_rate_table_slots', { holds: 'windows' })).toBe(512)
    expect(value(families, 'tidegate_rate_table_live', { holds: 'buckets' })).toBe(9)
    expect([...read({ rateTable: null }).keys()].filter((name) => name.includes('rate_table'))).toEqual([])
  })

  it('show a breaker in the state that an operator holds it in', () => {
    const { read } = setUp()
    const transitions = { closed: 0, open: 1, half_open: 0, ramp: 0 }
    const families = read({ breakers: [{ service: 'demo', state: 'closed', held: 'open', transitions, refused: 0 }] })
    const of = (name: string, state: string) => value(families, name, { service: 'demo', state })
    expect([of('tidegate_breaker_state', 'open'), of('tidegate_breaker_state', 'closed')]).toEqual([1, 0])
    expect([of('tidegate_breaker_held', 'open'), of('tidegate_breaker_held', 'closed')]).toEqual([1, 0])
  })

  it('show the table of signatures where a route wants it', () => {
    const { read } = setUp()
    const families = read()
    expect(value(families, 'tidegate_replays_total', {})).toBe(2)
    expect(value(families, 'tidegate_replay_table_slots', {})).toBe(96)
    expect(value(families, 'tidegate_replay_table_live', {})).toBe(7)
    expect(value(families, 'tidegate_replay_table_full_total', {})).toBe(5)
    const none = read({ replayTable: { slots: 0, live: 0, repeated: 0, full: 0, stuck: 0, share: 0 } })
    expect([...none.keys()].filter((name) => name.includes('replay'))).toEqual([])
  })

  it('show the workers there are, and what they did also when they are gone', () => {
    const { table, counters, read } = setUp()
    counters[0]!.connectionOpened()
    counters[0]!.begin()
    counters[0]!.beat(3_000_000, 2500, 9, 2 ** 26, 5000)
    const alive = read()
    expect(value(alive, 'tidegate_workers', { state: 'listening' })).toBe(1)
    expect(value(alive, 'tidegate_connections', { worker: '0' })).toBe(1)
    expect(value(alive, 'tidegate_requests_in_flight', { worker: '0' })).toBe(1)
    expect(value(alive, 'tidegate_worker_heartbeat_age_seconds', { worker: '0' })).toBe(0.5)
    expect(value(alive, 'tidegate_worker_event_loop_delay_max_seconds', { worker: '0' })).toBe(0.0025)
    expect(value(alive, 'tidegate_worker_body_memory_bytes', { worker: '0' })).toBe(5000)
    expect(value(alive, 'tidegate_connections', { worker: '1' })).toBeUndefined()
    table.vacate(0)
    table.started(0, 101, 3_100_000)
    table.vacate(0)
    const gone = read()
    expect(value(gone, 'tidegate_workers', { state: 'listening' })).toBe(0)
    expect(value(gone, 'tidegate_connections', { worker: '0' })).toBeUndefined()
    expect(value(gone, 'tidegate_worker_restarts_total', { worker: '0' })).toBe(1)
    expect(value(gone, 'tidegate_access_log_dropped_total', { worker: '0' })).toBe(9)
  })
})
