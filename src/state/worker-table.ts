// How the workers are: a line each, which the primary and the worker write and the primary reads. Off the request's
// way; what a worker counts per request is in counters.ts.
//
//   section `workers`
//     connections   Int32 × slots, contiguous: open client connections, -1 where there is no worker; less LEAVING where
//                   one accepts no more. The native acceptor reads the whole array to even out the workers; one below 0
//                   gets none. Padded to 64 bytes.
//     line          256 bytes a slot, so that two workers never write to one cache line:
//                    0 pid          Int32    written by the primary
//                    4 state        Int32    0 empty, 1 starting, 2 listening, 3 draining
//                    8 inFlight     Int32    exchanges begun and not finished
//                   12 starts       Int32    how often a worker was started in this slot
//                   16 heartbeatUs  Float64  segment clock
//                   24 startedUs    Float64  segment clock
//                   32 loopDelayUs  Float64  longest event-loop delay between the last two heartbeats
//                   40 logDropped   Float64  access lines lost, by all workers that had the slot
//                   48 memoryBytes  Float64  resident memory, with some of the heartbeats
//                   56 turnedAway   Float64 × 5, connections that the acceptor closed, by reason (native/index.ts)
//                   96 refused      Float64 × 8, request heads that the gate refused, by reason. The gate writes the
//                                   next two as well
//                  160 expired      Float64 × 2, connections closed between requests, by reason
//                  176 stuck        Float64 × 2, connections closed because the gateway had lost sight of them, by
//                                   reason
//                  192 bodyBytes    Float64  memory of request bodies (downstream/body-memory.ts)
//                  200 waitUs    Float64  while it is overloaded, the least that requests have waited for it in the
//                                   last interval; else 0
//                  208 shedShare Float64  share of its requests that it refuses because of that
//                  216 free
import type { LiveSection, Segment } from './segment.js'

const CACHE_LINE_BYTES = 64
const LINE_BYTES = 256
const LINE_INTS = LINE_BYTES / 4
const LINE_FLOATS = LINE_BYTES / 8
const WORKER_STATES = ['empty', 'starting', 'listening', 'draining'] as const
export type WorkerState = (typeof WORKER_STATES)[number]

// Positions in a worker's line, as Int32 and as Float64. What is exported the worker writes itself (counters.ts).
const PID = 0
const STATE = 1
const IN_FLIGHT = 2
const STARTS = 3
export const HEARTBEAT_US = 2
const STARTED_US = 3
export const LOOP_DELAY_US = 4
export const LOG_DROPPED = 5
export const MEMORY_BYTES = 6
const TURNED_AWAY_AT = 7
const REFUSED_AT = 12
const EXPIRED_AT = 20
const STUCK_AT = 22
export const BODY_BYTES = 24
export const WAIT_US = 25
export const SHED_SHARE = 26
/** Taken off the count of a worker that leaves, so that it is far below 0: kLeaving of the addon. */
const LEAVING = 2 ** 30

/** Why the acceptor closed connections, in the order in which it counts them (native/index.ts). */
export const TURNED_AWAY = ['slow_head', 'proxy_header', 'connections', 'address', 'descriptors'] as const

/** Why the gate refused request heads, and why it closed connections between two requests. */
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
/** Why the gate ended connections that the gateway had lost sight of. */
export const STUCK = ['unread', 'unanswered'] as const

function connectionsBytes(workers: number): number {
  return Math.ceil((workers * 4) / CACHE_LINE_BYTES) * CACHE_LINE_BYTES
}

function workersBytes(workers: number): number {
  return connectionsBytes(workers) + workers * LINE_BYTES
}

export const workersSection: LiveSection<{ readonly workers: number }> = {
  name: 'workers',
  kept: false,
  bytes: ({ workers }) => workersBytes(workers),
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
  /** How much of that request bodies hold. */
  readonly bodyBytes: number
  /** What it refuses because it is overloaded, and how long requests wait for it; null while it is not. */
  readonly overload: { readonly refusedShare: number; readonly waitMs: number } | null
  /** Connections closed before they had a request, by reason. */
  readonly turnedAway: Readonly<Record<(typeof TURNED_AWAY)[number], number>>
  /** Request heads refused, by reason. */
  readonly headsRefused: Readonly<Record<(typeof HEADS_REFUSED)[number], number>>
  /** Connections closed because their next request did not come in time, by reason. */
  readonly expired: Readonly<Record<(typeof EXPIRED)[number], number>>
  /** Connections closed because the gateway had lost sight of them, by reason. Each is a fault of the gateway. */
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
    const { buffer, offset, bytes } = segment.section(workersSection.name)
    if (bytes < workersBytes(slots))
      throw new RangeError(`workers section of ${bytes} bytes cannot hold ${slots} workers`)
    const lines = offset + connectionsBytes(slots)
    this.connections = new Int32Array(buffer, offset, slots)
    this.ints = new Int32Array(buffer, lines, (slots * LINE_BYTES) / 4)
    this.floats = new Float64Array(buffer, lines, (slots * LINE_BYTES) / 8)
  }

  /**
   * Primary, once: 0 connections would mean a worker that has none.
   * @param workers slots beyond these are for replacements only
   */
  reset(workers = this.slots): void {
    this.connections.fill(-1)
    for (let slot = workers; slot < this.slots; slot++) Atomics.store(this.ints, slot * LINE_INTS + STARTS, 1)
  }

  /** Primary, right after the fork. The first heartbeat is due from here on: the worker may hang while it starts. */
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
    this.floats[slot * LINE_FLOATS + WAIT_US] = 0
  }

  /** Worker: it accepts from now on. */
  listening(slot: number): void {
    if (Atomics.load(this.connections, slot) < 0) Atomics.store(this.connections, slot, 0)
    Atomics.store(this.ints, slot * LINE_INTS + STATE, WORKER_STATES.indexOf('listening'))
  }

  /** Worker: it finishes what it has. Its connections are still counted and shown; it gets no new ones. */
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
      overload: this.overload(float),
      turnedAway: this.named(TURNED_AWAY, float + TURNED_AWAY_AT),
      headsRefused: this.named(HEADS_REFUSED, float + REFUSED_AT),
      expired: this.named(EXPIRED, float + EXPIRED_AT),
      stuck: this.named(STUCK, float + STUCK_AT),
    }
  }

  private overload(float: number): WorkerStatus['overload'] {
    const waitUs = this.floats[float + WAIT_US] as number
    if (waitUs === 0) return null
    return { refusedShare: this.floats[float + SHED_SHARE] as number, waitMs: Math.round(waitUs / 1000) }
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

  /** For the gate of that worker: what it counts, in the order of HEADS_REFUSED, EXPIRED and STUCK. */
  gate(slot: number): Float64Array {
    const at = slot * LINE_FLOATS
    return this.floats.subarray(at + REFUSED_AT, at + STUCK_AT + STUCK.length)
  }

  /** For the worker that has the slot: its count of exchanges in flight, and the numbers of its line. */
  line(slot: number): { inFlight: Int32Array; floats: Float64Array } {
    const int = slot * LINE_INTS + IN_FLIGHT
    const float = slot * LINE_FLOATS
    return {
      inFlight: this.ints.subarray(int, int + 1),
      floats: this.floats.subarray(float, float + LINE_FLOATS),
    }
  }
}
