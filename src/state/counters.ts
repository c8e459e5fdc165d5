// What the workers count: requests, statuses, bytes and durations, by route. A worker counts per request, in blocks
// that only it writes; the primary adds them up when somebody asks. The blocks outlive the worker, and begin at zero
// with each start of the primary.
//
//   section `counters`
//     block         one for each worker slot and route, by Route.slot; the last of each worker is for requests without
//                   a route. Float64 each:
//                    0 bytesIn  1 bytesOut  2 durationUs  3 upstreamUs
//                    4 forwarded  5 attempts  6 limitReports  7 free
//                    8 … by what is counted of retries, in the order of RETRY_EVENTS
//                      … by outcome code, in the order of OUTCOME_CODES
//                      … by the code for which a fallback responded, in the same order
//                      … by status, in the order of STATUS_LABELS
//                      … durations, by bucket (durations.ts)
//                      … requests refused because of overload
//                   Each group begins on a cache line. A block has one writer, so a plain add is exact, to 2^53.
import { RETRY_EVENTS, type RetryEvent } from '../config/retries.js'
import type { Exchange } from '../exchange/exchange.js'
import { OUTCOME_CODES, type OutcomeCode } from '../exchange/outcome.js'
import { bucketOf, DURATION_BUCKETS, MAX_DURATION_US } from './durations.js'
import type { LiveSection, Segment } from './segment.js'
import {
  BODY_BYTES,
  HEARTBEAT_US,
  LOG_DROPPED,
  LOOP_DELAY_US,
  MEMORY_BYTES,
  SHED_SHARE,
  WAIT_US,
  type WorkerTable,
} from './worker-table.js'

const BYTES_IN = 0
const BYTES_OUT = 1
const DURATION_US = 2
const UPSTREAM_US = 3
const FORWARDED = 4
const ATTEMPTS = 5
const LIMIT_REPORTS = 6

/** Statuses that have a count of their own; the others are counted by class. */
const STATUSES = [
  101, 200, 201, 202, 203, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 406, 408, 409, 410, 411,
  412, 413, 414, 415, 416, 417, 422, 429, 431, 499, 500, 501, 502, 503, 504,
]
const CLASSES = ['1xx', '2xx', '3xx', '4xx', '5xx']
const STATUS_LABELS = [...STATUSES.map(String), ...CLASSES, 'other']
const OTHER_STATUS = STATUS_LABELS.length - 1
const STATUS_POSITION = Uint8Array.from({ length: 600 }, (_, status) => {
  const known = STATUSES.indexOf(status)
  if (known >= 0) return known
  return status < 100 ? OTHER_STATUS : STATUSES.length + Math.trunc(status / 100) - 1
})
const CODE_POSITION: ReadonlyMap<string, number> = new Map(OUTCOME_CODES.map((code, i) => [code, i]))

function upTo(multiple: number, n: number): number {
  return Math.ceil(n / multiple) * multiple
}

const RETRIES_AT = 8
const CODES_AT = RETRIES_AT + upTo(8, RETRY_EVENTS.length)
const FALLBACKS_AT = CODES_AT + upTo(8, OUTCOME_CODES.length)
const STATUSES_AT = FALLBACKS_AT + upTo(8, OUTCOME_CODES.length)
const DURATIONS_AT = STATUSES_AT + upTo(8, STATUS_LABELS.length)
const SHED = DURATIONS_AT + DURATION_BUCKETS
const BLOCK = SHED + 8

/** Size of one worker's share of the section. */
export function countersBytesPerWorker(routes: number): number {
  return (routes + 1) * BLOCK * 8
}

export const countersSection: LiveSection<{ readonly workers: number; readonly routes: number }> = {
  name: 'counters',
  kept: false,
  bytes: ({ workers, routes }) => workers * countersBytesPerWorker(routes),
}

/** The worker's end, on the request's way: over its own blocks, and its line of the worker table. */
export class WorkerCounters {
  private readonly blocks: Float64Array
  private readonly inFlight: Int32Array
  private readonly floats: Float64Array
  private readonly connections: Int32Array
  /** What the gate counts, in the order of HEADS_REFUSED, EXPIRED and STUCK. */
  readonly gate: Float64Array
  /** Exchanges that have ended since the worker began. */
  finished = 0
  /** Those of them that had an attempt. */
  forwarded = 0
  private readonly noRoute: number
  private readonly droppedBefore: number

  constructor(
    segment: Segment,
    table: WorkerTable,
    private readonly slot: number,
    routes: number,
  ) {
    const bytes = countersBytesPerWorker(routes)
    const { buffer, offset } = segment.section(countersSection.name)
    this.blocks = new Float64Array(buffer, offset + slot * bytes, bytes / 8)
    const line = table.line(slot)
    this.inFlight = line.inFlight
    this.floats = line.floats
    this.gate = table.gate(slot)
    this.connections = table.connections
    this.noRoute = routes * BLOCK
    this.droppedBefore = this.floats[LOG_DROPPED] as number
  }

  connectionOpened(): void {
    this.connections[this.slot]!++
  }

  connectionClosed(): void {
    this.connections[this.slot]!--
  }

  /** An exchange began; `count` ends it. */
  begin(): void {
    this.inFlight[0]!++
  }

  /** Another attempt of the exchange, or one that there was no budget for. */
  retried({ route }: Exchange, event: RetryEvent): void {
    const at = route === null ? this.noRoute : route.slot * BLOCK
    this.blocks[at + RETRIES_AT + RETRY_EVENTS.indexOf(event)]!++
  }

  /** Once per exchange, when it has ended. */
  count(exchange: Exchange, durationUs: number): void {
    this.inFlight[0]!--
    this.finished++
    const blocks = this.blocks
    const route = exchange.route
    const at = route === null ? this.noRoute : route.slot * BLOCK
    const us = durationUs > 0 ? (durationUs < MAX_DURATION_US ? durationUs >>> 0 : MAX_DURATION_US) : 0
    blocks[at + BYTES_IN]! += exchange.bytesIn
    blocks[at + BYTES_OUT]! += exchange.bytesOut
    blocks[at + DURATION_US]! += us
    if (exchange.attempts > 0) {
      blocks[at + UPSTREAM_US]! += exchange.upstreamUs
      blocks[at + FORWARDED]!++
      this.forwarded++
      blocks[at + ATTEMPTS]! += exchange.attempts
    }
    if (exchange.limitReported) blocks[at + LIMIT_REPORTS]!++
    if (exchange.fallback !== '') blocks[at + FALLBACKS_AT + (CODE_POSITION.get(exchange.fallback) as number)]!++
    if (exchange.code !== '') blocks[at + CODES_AT + (CODE_POSITION.get(exchange.code) as number)]!++
    blocks[at + STATUSES_AT + (STATUS_POSITION[exchange.status] ?? OTHER_STATUS)]!++
    blocks[at + DURATIONS_AT + bucketOf(us)]!++
  }

  /** That have begun since the worker has. */
  get requests(): number {
    return this.finished + this.inFlight[0]!
  }

  /** The exchange is refused because the worker is overloaded. It has a route. */
  shed({ route }: Exchange): void {
    this.blocks[route!.slot * BLOCK + SHED]!++
  }

  /** The worker is overloaded. @param share of its requests that are refused @param waitUs what requests wait for it */
  overloaded(share: number, waitUs: number): void {
    this.floats[SHED_SHARE] = share
    this.floats[WAIT_US] = Math.max(1, waitUs)
  }

  notOverloaded(): void {
    this.floats[WAIT_US] = 0
  }

  /**
   * The worker's heartbeat, from a timer.
   * @param loopDelayUs longest event-loop delay since the last one
   * @param logDropped access lines this worker has lost so far
   * @param memoryBytes resident memory
   * @param bodyBytes how much of that request bodies hold
   */
  beat(nowUs: number, loopDelayUs: number, logDropped: number, memoryBytes: number, bodyBytes: number): void {
    this.floats[LOOP_DELAY_US] = loopDelayUs
    this.floats[MEMORY_BYTES] = memoryBytes
    this.floats[BODY_BYTES] = bodyBytes
    this.floats[LOG_DROPPED] = this.droppedBefore + logDropped
    this.floats[HEARTBEAT_US] = nowUs
  }
}

/** One route's numbers, summed over the workers. */
export interface RouteTotals {
  readonly requests: number
  /** By status, or by class (`4xx`) for those without a count of their own; only those that occurred. */
  readonly statuses: readonly (readonly [status: string, count: number])[]
  readonly codes: ReadonlyMap<OutcomeCode, number>
  readonly bytesIn: number
  readonly bytesOut: number
  readonly durationUs: number
  readonly upstreamUs: number
  /** Exchanges that had an attempt, and their attempts. */
  readonly forwarded: number
  readonly attempts: number
  readonly limitReports: number
  /** Exchanges that a fallback responded to, by what went wrong before. */
  readonly fallbacks: ReadonlyMap<OutcomeCode, number>
  readonly retries: ReadonlyMap<RetryEvent, number>
  /** Refused because of overload. */
  readonly shed: number
  /** Exchanges by duration, in the buckets of durations.ts. */
  readonly durations: Float64Array
}

/** The primary's end. A sum is no snapshot: workers count on meanwhile. */
export class CountersReader {
  private readonly blocks: Float64Array
  private readonly perWorker: number

  constructor(
    segment: Segment,
    private readonly workers: number,
    /** `totals(routes)` are those of requests without a route. */
    readonly routes: number,
  ) {
    const { buffer, offset, bytes } = segment.section(countersSection.name)
    const needed = workers * countersBytesPerWorker(routes)
    if (bytes < needed) throw new RangeError(`counters section of ${bytes} bytes cannot hold ${needed}`)
    this.blocks = new Float64Array(buffer, offset, needed / 8)
    this.perWorker = countersBytesPerWorker(routes) / 8
  }

  /** A new route takes over the slot of a former one, and begins at zero. Only while no worker counts there. */
  clear(route: number): void {
    for (let worker = 0; worker < this.workers; worker++) {
      const at = worker * this.perWorker + route * BLOCK
      this.blocks.fill(0, at, at + BLOCK)
    }
  }

  totals(route: number): RouteTotals {
    const sum = new Float64Array(BLOCK)
    for (let worker = 0; worker < this.workers; worker++) {
      const at = worker * this.perWorker + route * BLOCK
      for (let i = 0; i < BLOCK; i++) sum[i]! += this.blocks[at + i] as number
    }
    const value = (i: number) => sum[i] as number
    const byCode = (from: number) =>
      new Map(OUTCOME_CODES.map((code, i) => [code, value(from + i)] as const).filter(([, count]) => count > 0))
    const durations = sum.subarray(DURATIONS_AT, DURATIONS_AT + DURATION_BUCKETS)
    return {
      requests: durations.reduce((total, count) => total + count, 0),
      statuses: STATUS_LABELS.map((label, i) => [label, value(STATUSES_AT + i)] as const).filter(
        ([, count]) => count > 0,
      ),
      codes: byCode(CODES_AT),
      fallbacks: byCode(FALLBACKS_AT),
      bytesIn: value(BYTES_IN),
      bytesOut: value(BYTES_OUT),
      durationUs: value(DURATION_US),
      upstreamUs: value(UPSTREAM_US),
      forwarded: value(FORWARDED),
      attempts: value(ATTEMPTS),
      limitReports: value(LIMIT_REPORTS),
      retries: new Map(RETRY_EVENTS.map((event, i) => [event, value(RETRIES_AT + i)] as const)),
      shed: value(SHED),
      durations,
    }
  }
}
