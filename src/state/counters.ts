// What the workers did and how they are: the one place where numbers are kept. Counting runs per request; adding up over the workers
// runs in the primary when somebody asks. All of it lies in the segment, so what a worker counted outlives it, and is zeroed with each
// start of the primary.
//
//   section `workers`
//     connections   Int32 × slots, contiguous: open client connections, -1 where there is no worker; less LEAVING where one accepts no
//                   more. The native acceptor reads the whole array to even out the workers: who is below 0 gets none. Padded to 64 bytes.
//     line          256 bytes a slot, so that two workers never write to one cache line:
//                    0 pid          Int32    written by the primary
//                    4 state        Int32    0 empty, 1 starting, 2 listening, 3 draining
//                    8 inFlight     Int32    exchanges begun and not finished
//                   12 starts       Int32    how often a worker was started in this slot
//                   16 heartbeatUs  Float64  segment clock
//                   24 startedUs    Float64  segment clock
//                   32 loopDelayUs  Float64  longest event-loop delay between the last two heartbeats
//                   40 logDropped   Float64  access lines lost, over all workers that had the slot
//                   48 memoryBytes  Float64  resident, as the worker said with its last heartbeats
//                   56 turnedAway   Float64 × 5, connections closed at the door, by reason (native/index.ts). Written by the acceptor
//                   96 refused      Float64 × 8, heads refused before they were requests, by reason. Written by the gate, as is the next
//                  160 expired      Float64 × 2, connections closed between requests, by reason
//                  176 stuck        Float64 × 2, connections closed because nothing would have happened on them, by reason
//                  192 bodyBytes    Float64  what request bodies hold, as body-memory.ts counts it
//                  200 free
//
//   section `counters`
//     block         one a slot and route, slot-major, by Route.slot; the last of each stands for `no route`. Float64 each:
//                    0 bytesIn  1 bytesOut  2 durationUs  3 upstreamUs  4 forwarded  5 attempts  6 limitReports  7 fallbacks
//                    8 … by outcome code, in the order of OUTCOME_CODES
//                      … by status, in the order of STATUS_LABELS
//                      … durations, by bucket (durations.ts)
//                   Each kind begins on a cache line. One writer a block, so a plain add is exact, to 2^53.
import type { Exchange } from '../exchange/exchange.js'
import { OUTCOME_CODES, type OutcomeCode } from '../exchange/outcome.js'
import { bucketOf, DURATION_BUCKETS, MAX_DURATION_US } from './durations.js'
import type { Segment } from './segment.js'

const CACHE_LINE_BYTES = 64
const LINE_BYTES = 256
const LINE_INTS = LINE_BYTES / 4
const LINE_FLOATS = LINE_BYTES / 8
const WORKER_STATES = ['empty', 'starting', 'listening', 'draining'] as const
export type WorkerState = (typeof WORKER_STATES)[number]

// Positions in a worker's line, as Int32 and as Float64.
const PID = 0
const STATE = 1
const IN_FLIGHT = 2
const STARTS = 3
const HEARTBEAT_US = 2
const STARTED_US = 3
const LOOP_DELAY_US = 4
const LOG_DROPPED = 5
const MEMORY_BYTES = 6
const TURNED_AWAY_AT = 7
const REFUSED_AT = 12
const EXPIRED_AT = 20
const STUCK_AT = 22
const BODY_BYTES = 24
/** Far below 0, whatever connections it still has: kLeaving of the addon. */
const LEAVING = 2 ** 30

/** Why the acceptor closed connections, in the order in which it counts them (native/index.ts). */
export const TURNED_AWAY = ['slow_head', 'proxy_header', 'connections', 'address', 'descriptors'] as const

/** Why the gate refused heads, and closed connections between two requests, in the same way. */
export const HEADS_REFUSED = [
  'request_line',
  'line_end',
  'field_name',
  'field_value',
  'host',
  'body_length',
  'size',
  'parser',
] as const
export const EXPIRED = ['idle', 'slow_head'] as const
/** Why it ended connections that the gateway had lost sight of. */
export const STUCK = ['unread', 'unanswered'] as const

function upTo(multiple: number, n: number): number {
  return Math.ceil(n / multiple) * multiple
}

function connectionsBytes(workers: number): number {
  return upTo(CACHE_LINE_BYTES, workers * 4)
}

export function workersBytes(workers: number): number {
  return connectionsBytes(workers) + workers * LINE_BYTES
}

export interface WorkerStatus {
  readonly slot: number
  readonly pid: number
  readonly state: WorkerState
  /** -1: it does not accept. */
  readonly connections: number
  readonly inFlight: number
  readonly restarts: number
  readonly heartbeatUs: number
  readonly startedUs: number
  readonly loopDelayUs: number
  readonly logDropped: number
  readonly memoryBytes: number
  /** What request bodies hold of that. */
  readonly bodyBytes: number
  /** Connections closed before they had a request, by reason. */
  readonly turnedAway: Readonly<Record<(typeof TURNED_AWAY)[number], number>>
  /** Heads refused before they were requests, by reason. */
  readonly headsRefused: Readonly<Record<(typeof HEADS_REFUSED)[number], number>>
  /** Connections closed because their next request did not come in time, by reason. */
  readonly expired: Readonly<Record<(typeof EXPIRED)[number], number>>
  /** Connections closed because nothing would have happened on them any more, by reason. Any is a fault of the gateway. */
  readonly stuck: Readonly<Record<(typeof STUCK)[number], number>>
}

export class WorkerTable {
  /** All slots' connection counts, for the acceptor. */
  readonly connections: Int32Array
  private readonly ints: Int32Array
  private readonly floats: Float64Array

  constructor(
    segment: Segment,
    readonly slots: number,
  ) {
    const { buffer, offset, bytes } = segment.section('workers')
    if (bytes < workersBytes(slots))
      throw new RangeError(`workers section of ${bytes} bytes cannot hold ${slots} workers`)
    const lines = offset + connectionsBytes(slots)
    this.connections = new Int32Array(buffer, offset, slots)
    this.ints = new Int32Array(buffer, lines, (slots * LINE_BYTES) / 4)
    this.floats = new Float64Array(buffer, lines, (slots * LINE_BYTES) / 8)
  }

  /**
   * Primary, once: zeroed connections would read as workers with none.
   * @param workers slots beyond these have replacements alone
   */
  reset(workers = this.slots): void {
    this.connections.fill(-1)
    for (let slot = workers; slot < this.slots; slot++) Atomics.store(this.ints, slot * LINE_INTS + STARTS, 1)
  }

  /** Primary, right after the fork. The first beat is due from here on, so that one that hangs while starting is noticed. */
  started(slot: number, pid: number, nowUs: number): void {
    const int = slot * LINE_INTS
    const float = slot * LINE_FLOATS
    this.vacate(slot)
    this.floats[float + HEARTBEAT_US] = nowUs
    this.floats[float + STARTED_US] = nowUs
    this.floats[float + LOOP_DELAY_US] = 0
    this.floats[float + MEMORY_BYTES] = 0
    this.floats[float + BODY_BYTES] = 0
    Atomics.store(this.ints, int + PID, pid)
    Atomics.add(this.ints, int + STARTS, 1)
    Atomics.store(this.ints, int + STATE, WORKER_STATES.indexOf('starting'))
  }

  /** Primary, when a worker is gone: what it had open went with it. */
  vacate(slot: number): void {
    const int = slot * LINE_INTS
    Atomics.store(this.ints, int + STATE, WORKER_STATES.indexOf('empty'))
    Atomics.store(this.connections, slot, -1)
    Atomics.store(this.ints, int + PID, 0)
    Atomics.store(this.ints, int + IN_FLIGHT, 0)
  }

  /** Worker: it accepts from now on. */
  listening(slot: number): void {
    if (Atomics.load(this.connections, slot) < 0) Atomics.store(this.connections, slot, 0)
    Atomics.store(this.ints, slot * LINE_INTS + STATE, WORKER_STATES.indexOf('listening'))
  }

  /** Worker: it finishes what it has. Its connections still count, so they are still shown; no new ones come. */
  draining(slot: number): void {
    Atomics.sub(this.connections, slot, LEAVING)
    Atomics.store(this.ints, slot * LINE_INTS + STATE, WORKER_STATES.indexOf('draining'))
  }

  state(slot: number): WorkerState {
    return WORKER_STATES[Atomics.load(this.ints, slot * LINE_INTS + STATE)] ?? 'empty'
  }

  heartbeatUs(slot: number): number {
    return this.floats[slot * LINE_FLOATS + HEARTBEAT_US] as number
  }

  memoryBytes(slot: number): number {
    return this.floats[slot * LINE_FLOATS + MEMORY_BYTES] as number
  }

  read(slot: number): WorkerStatus {
    const int = slot * LINE_INTS
    const float = slot * LINE_FLOATS
    const connections = Atomics.load(this.connections, slot)
    return {
      slot,
      pid: Atomics.load(this.ints, int + PID),
      state: this.state(slot),
      connections: connections < -1 ? connections + LEAVING : connections,
      inFlight: Atomics.load(this.ints, int + IN_FLIGHT),
      restarts: Math.max(0, Atomics.load(this.ints, int + STARTS) - 1),
      heartbeatUs: this.floats[float + HEARTBEAT_US] as number,
      startedUs: this.floats[float + STARTED_US] as number,
      loopDelayUs: this.floats[float + LOOP_DELAY_US] as number,
      logDropped: this.floats[float + LOG_DROPPED] as number,
      memoryBytes: this.memoryBytes(slot),
      bodyBytes: this.floats[float + BODY_BYTES] as number,
      turnedAway: this.named(TURNED_AWAY, float + TURNED_AWAY_AT),
      headsRefused: this.named(HEADS_REFUSED, float + REFUSED_AT),
      expired: this.named(EXPIRED, float + EXPIRED_AT),
      stuck: this.named(STUCK, float + STUCK_AT),
    }
  }

  private named<Name extends string>(names: readonly Name[], at: number): Record<Name, number> {
    return Object.fromEntries(names.map((name, i) => [name, this.floats[at + i]])) as Record<Name, number>
  }

  readAll(): WorkerStatus[] {
    return Array.from({ length: this.slots }, (_, slot) => this.read(slot))
  }

  /** For the acceptor of that worker: what it counts, in the order of TURNED_AWAY. */
  turnedAway(slot: number): Float64Array {
    const at = slot * LINE_FLOATS + TURNED_AWAY_AT
    return this.floats.subarray(at, at + TURNED_AWAY.length)
  }

  /** The views of one slot, for the worker that has it. */
  line(slot: number): { ints: Int32Array; floats: Float64Array } {
    const int = slot * LINE_INTS
    const float = slot * LINE_FLOATS
    return {
      ints: this.ints.subarray(int, int + LINE_INTS),
      floats: this.floats.subarray(float, float + LINE_FLOATS),
    }
  }
}

const BYTES_IN = 0
const BYTES_OUT = 1
const DURATION_US = 2
const UPSTREAM_US = 3
const FORWARDED = 4
const ATTEMPTS = 5
const LIMIT_REPORTS = 6
const FALLBACKS = 7

/** Statuses counted each by itself; any other falls to its class. */
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

const CODES_AT = 8
const STATUSES_AT = CODES_AT + upTo(8, OUTCOME_CODES.length)
const DURATIONS_AT = STATUSES_AT + upTo(8, STATUS_LABELS.length)
const BLOCK = DURATIONS_AT + DURATION_BUCKETS

/** Size of one worker's share of the section `counters`. */
export function countersBytesPerWorker(routes: number): number {
  return (routes + 1) * BLOCK * 8
}

/** The hot path's end: one per worker, over its own blocks and line. */
export class WorkerCounters {
  private readonly blocks: Float64Array
  private readonly ints: Int32Array
  private readonly floats: Float64Array
  private readonly connections: Int32Array
  /** What the gate counts, in the order of HEADS_REFUSED, EXPIRED and STUCK. */
  readonly gate: Float64Array
  private readonly noRoute: number
  private readonly droppedBefore: number

  constructor(
    segment: Segment,
    table: WorkerTable,
    private readonly slot: number,
    routes: number,
  ) {
    const bytes = countersBytesPerWorker(routes)
    const { buffer, offset } = segment.section('counters')
    this.blocks = new Float64Array(buffer, offset + slot * bytes, bytes / 8)
    const line = table.line(slot)
    this.ints = line.ints
    this.floats = line.floats
    this.gate = line.floats.subarray(REFUSED_AT, STUCK_AT + STUCK.length)
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
    this.ints[IN_FLIGHT]!++
  }

  /** Once per exchange, when all about it is known. */
  count(exchange: Exchange, durationUs: number): void {
    this.ints[IN_FLIGHT]!--
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
      blocks[at + ATTEMPTS]! += exchange.attempts
    }
    if (exchange.limitReported) blocks[at + LIMIT_REPORTS]!++
    if (exchange.fallback !== '') blocks[at + FALLBACKS]!++
    if (exchange.code !== '') blocks[at + CODES_AT + (CODE_POSITION.get(exchange.code) as number)]!++
    blocks[at + STATUSES_AT + (STATUS_POSITION[exchange.status] ?? OTHER_STATUS)]!++
    blocks[at + DURATIONS_AT + bucketOf(us)]!++
  }

  /**
   * The worker's sign of life, from a timer.
   * @param loopDelayUs longest event-loop delay since the last one
   * @param logDropped access lines this worker has lost so far
   * @param memoryBytes what is resident of it
   * @param bodyBytes what request bodies hold of that
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
  /** Status, or `4xx` and the like for those not counted by themselves; only those that occurred. */
  readonly statuses: readonly (readonly [status: string, count: number])[]
  readonly codes: ReadonlyMap<OutcomeCode, number>
  readonly bytesIn: number
  readonly bytesOut: number
  readonly durationUs: number
  readonly upstreamUs: number
  /** Exchanges that reached an upstream, and the attempts they took. */
  readonly forwarded: number
  readonly attempts: number
  readonly limitReports: number
  readonly fallbacks: number
  /** Exchanges per bucket of durations.ts. */
  readonly durations: Float64Array
}

/** The primary's end. A sum is not a snapshot: workers count on while it is taken. */
export class CountersReader {
  private readonly blocks: Float64Array
  private readonly perWorker: number

  constructor(
    segment: Segment,
    private readonly workers: number,
    /** `totals(routes)` are those of requests that matched none. */
    readonly routes: number,
  ) {
    const { buffer, offset, bytes } = segment.section('counters')
    const needed = workers * countersBytesPerWorker(routes)
    if (bytes < needed) throw new RangeError(`counters section of ${bytes} bytes cannot hold ${needed}`)
    this.blocks = new Float64Array(buffer, offset, needed / 8)
    this.perWorker = countersBytesPerWorker(routes) / 8
  }

  /** A route takes over a slot: what one of another name has counted there is not its own. Only while no worker counts there. */
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
    const durations = sum.subarray(DURATIONS_AT, DURATIONS_AT + DURATION_BUCKETS)
    return {
      requests: durations.reduce((total, count) => total + count, 0),
      statuses: STATUS_LABELS.map((label, i) => [label, value(STATUSES_AT + i)] as const).filter(
        ([, count]) => count > 0,
      ),
      codes: new Map(
        OUTCOME_CODES.map((code, i) => [code, value(CODES_AT + i)] as const).filter(([, count]) => count > 0),
      ),
      bytesIn: value(BYTES_IN),
      bytesOut: value(BYTES_OUT),
      durationUs: value(DURATION_US),
      upstreamUs: value(UPSTREAM_US),
      forwarded: value(FORWARDED),
      attempts: value(ATTEMPTS),
      limitReports: value(LIMIT_REPORTS),
      fallbacks: value(FALLBACKS),
      durations,
    }
  }
}
