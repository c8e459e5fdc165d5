// A mirror whose own side goes wrong: the exchange is handled all the same, and the mirror gives back all it holds.
import type { Dispatcher } from 'undici'
import { beforeEach, describe, expect, it } from 'vitest'
import type { Branch, MirrorRules, Route, RouteTable, Service } from '../../../src/config/compile.js'
import { MemoryDownstream } from '../../../src/downstream/memory.js'
import { ClientDeadline } from '../../../src/exchange/client-deadline.js'
import type { Deadline, Deadlines } from '../../../src/exchange/deadlines.js'
import { Exchange } from '../../../src/exchange/exchange.js'
import { Fields } from '../../../src/exchange/fields.js'
import type { HandlerContext } from '../../../src/handlers/handler.js'
import { MirroredHandler } from '../../../src/handlers/mirror/mirrored-handler.js'
import type { Proxies } from '../../../src/handlers/proxy/proxy.js'
import { BranchCounts } from '../../../src/state/branch-counts.js'
import { EndpointTable } from '../../../src/state/endpoint-table.js'
import { openSegment } from '../../../src/state/open-segment.js'
import { SECTIONS } from '../../../src/state/sections.js'
import type { Logger } from '../../../src/telemetry/log.js'
import { Attempt } from '../../../src/upstream/attempt.js'
import type { Bulkhead } from '../../../src/upstream/bulkhead.js'
import type { Cluster } from '../../../src/upstream/cluster/cluster.js'
import { EndpointState } from '../../../src/upstream/cluster/endpoint-state.js'
import { DeadlineError } from '../../../src/upstream/failure.js'

const SPEC = { workers: 1, rateLimitKeys: 15, services: 1, endpoints: 1, routes: 1, branches: 1 }
const service = {
  name: 'shadow',
  balance: { kind: 'p2c' },
  firstByteTimeoutMs: 100,
  idleTimeoutMs: 200,
  totalTimeoutMs: 250,
  pipelining: 1,
}

/** In the order in which they came to pass. */
let told: string[]
let nowUs: number
let counts: BranchCounts
let endpoint: EndpointState
/** The copies' deadlines. */
let deadlines: Set<Deadline>
/** What the endpoint's client was given, and what it does with it. */
let response: Dispatcher.DispatchHandler
let dispatch: () => void
/** The fields of the last copy. */
let sent: string
let bulkhead: Bulkhead
/** Places that are taken. */
let places: number
let pick: () => EndpointState | null
let aborted: Error | null
let abortThrows: boolean
let handler: MirroredHandler

const controller = {
  abort: (reason: Error) => {
    aborted = reason
    if (abortThrows) throw new Error('poison')
    response.onResponseError!(controller, reason)
  },
} as unknown as Dispatcher.DispatchController

beforeEach(() => {
  told = []
  places = 0
  bulkhead = {
    take: () => places < 1 && ++places > 0,
    leave: () => void places--,
  } as unknown as Bulkhead
  nowUs = 1e9
  service.totalTimeoutMs = 250
  deadlines = new Set()
  aborted = null
  abortThrows = false
  dispatch = () => response.onRequestStart!(controller, {})
  pick = () => endpoint
  const segment = openSegment(SECTIONS, SPEC, { path: null, isolation: 'thread' })
  counts = new BranchCounts(segment, SPEC)
  const client = {
    dispatch(request: { headers: { text: string } }, given: Dispatcher.DispatchHandler) {
      told.push('copied')
      sent = request.headers.text
      response = given
      dispatch()
      return true
    },
  } as unknown as Dispatcher
  const configured = { origin: 'http://a', authority: 'a', serverName: 'a', index: 0, slot: 0 }
  endpoint = new EndpointState(client, service as unknown as Service, configured as never, {
    connections: 4,
    endpoints: new EndpointTable(segment, SPEC),
    worker: 0,
    nowUs: () => nowUs,
  })
  const cluster = {
    pick: () => pick(),
    attempt: () => new Attempt(null, -1, () => nowUs),
  } as unknown as Cluster
  const context = {
    nowUs: () => nowUs,
    deadlines: {
      add: (deadline: Deadline) => void deadlines.add(deadline),
      remove: (deadline: Deadline) => void deadlines.delete(deadline),
    } as unknown as Deadlines,
  } as unknown as HandlerContext
  const branches: Branch[] = [{ kind: 'mirror', route: 'r', service: 'shadow', share: 1, slot: 0 }]
  handler = new MirroredHandler(
    { needsBody: true, handle: () => void told.push('handled') },
    { service: service as unknown as Service, share: 1, maxBodyBytes: 10 } satisfies MirrorRules,
    { name: 'r' } as Route,
    { branches } as unknown as RouteTable,
    { clusterOf: () => cluster, bulkheadOf: () => bulkhead } as unknown as Proxies,
    context,
    {
      branches: counts.ofWorker(0),
      log: { error: ({ err }: { err: Error }) => void told.push(`logged ${err.message}`) } as unknown as Logger,
    },
  )
})

function handle(body: Buffer | null = null, timeoutMs = -1): void {
  const fields = Fields.of(timeoutMs < 0 ? [] : ['x-timeout-ms', `${timeoutMs}`])
  const exchange = new Exchange(new MemoryDownstream(), nowUs, 'POST', '/', undefined, fields)
  exchange.route = { auth: [], strippedFields: [], stripPrefix: null, rewrite: null } as unknown as Route
  exchange.body = body
  exchange.deadline = ClientDeadline.earlier(null, nowUs, timeoutMs * 1000)
  handler.handle(exchange)
}

/** Nothing is held of the copy. */
function expectOver(of: { answered?: number; failed?: number }): void {
  const { answered, failed, inFlight } = counts.totals(0)
  expect({ answered, failed, inFlight }).toEqual({ answered: 0, failed: 0, inFlight: 0, ...of })
  expect(endpoint.inFlight).toBe(0)
  expect(deadlines.size).toBe(0)
  expect(places).toBe(0)
}

describe('a mirror', () => {
  it('lets the exchange go first, and waits for nothing', () => {
    handle(Buffer.from('0123456789'))
    expect(told).toEqual(['handled', 'copied'])
    expect(counts.totals(0).inFlight).toBe(1)
    response.onResponseStart!(controller, 204, {}, '')
    response.onResponseEnd!(controller, {})
    expectOver({ answered: 1 })
  })

  it('whose client throws hurts nobody', () => {
    dispatch = () => {
      throw new Error('poison')
    }
    handle()
    expect(told).toEqual(['handled', 'copied', 'logged poison'])
    expectOver({ failed: 1 })
  })

  it('whose balancer throws hurts nobody', () => {
    pick = () => {
      throw new Error('poison')
    }
    handle()
    expect(told).toEqual(['handled', 'logged poison'])
    expectOver({})
  })

  it('without an endpoint, or with too large a body, sends nothing and says why', () => {
    pick = () => null
    handle()
    handle(Buffer.from('0123456789a'))
    expect(told).toEqual(['handled', 'handled'])
    expect(counts.totals(0).dropped).toEqual({ body: 1, in_flight: 0, unavailable: 1 })
  })

  it('gets no copy of what is too late, and is told what is left of the time', () => {
    handle(null, 0)
    expect(told).toEqual(['handled'])
    expect(counts.totals(0).inFlight).toBe(0)
    handle(null, 200)
    expect(told).toEqual(['handled', 'handled', 'copied'])
    expect(sent).toContain('x-timeout-ms: 200\r\n')
  })

  it('gives its service the time to the first byte, between bytes, and in all', () => {
    handle()
    const [deadline] = [...deadlines] as [Deadline]
    expect(deadline.exchange).toBeNull()
    expect(deadline.deadlineUs).toBe(nowUs + 100_000)
    const startUs = nowUs
    nowUs += 10_000
    response.onResponseStart!(controller, 200, {}, 'OK')
    expect(deadline.deadlineUs).toBe(nowUs + 200_000)
    nowUs += 100_000
    response.onResponseData!(controller, Buffer.from('x'))
    expect(deadline.deadlineUs).toBe(startUs + 250_000)
    deadline.expire()
    expect(aborted).toBeInstanceOf(DeadlineError)
    expectOver({ failed: 1 })
    // What still comes of it changes nothing.
    response.onResponseData!(controller, Buffer.from('x'))
    response.onResponseEnd!(controller, {})
    expectOver({ failed: 1 })
  })

  it('ends a response that streams on for a minute, and blames nobody', () => {
    service.totalTimeoutMs = Number.POSITIVE_INFINITY
    handle()
    const [deadline] = [...deadlines] as [Deadline]
    response.onResponseStart!(controller, 200, {}, 'OK')
    for (const untilUs = nowUs + 60e6; nowUs < untilUs; nowUs += 100_000) {
      expect(deadline.deadlineUs).toBeGreaterThan(nowUs)
      response.onResponseData!(controller, Buffer.from('x'))
    }
    expect(deadline.deadlineUs).toBe(nowUs)
    deadline.expire()
    expect(aborted).not.toBeInstanceOf(DeadlineError)
    expectOver({ answered: 1 })
  })

  it('whose deadline throws gives back all the same, and no exchange hears of it', () => {
    handle()
    abortThrows = true
    const [deadline] = [...deadlines] as [Deadline]
    expect(() => deadline.expire()).not.toThrow()
    expect(told).toEqual(['handled', 'copied', 'logged poison'])
    expectOver({ failed: 1 })
  })

  it('takes a place where its service has a bound, and does not wait for one', () => {
    handle()
    expect(places).toBe(1)
    handle()
    expect(counts.totals(0).dropped.unavailable).toBe(1)
    response.onResponseStart!(controller, 200, {}, '')
    response.onResponseEnd!(controller, {})
    expectOver({ answered: 1 })
    pick = () => null
    handle()
    expect(places).toBe(0)
  })

  it('counts a response of 500 or above as failed', () => {
    handle()
    response.onResponseStart!(controller, 500, {}, '')
    response.onResponseEnd!(controller, {})
    expectOver({ failed: 1 })
  })
})
