// What all processes know of each endpoint, by Endpoint.slot: whether it may get requests, and what its requests came
// to. The primary writes what its health checks found and what an operator asked for; workers write the rest. It begins
// empty with each start of the primary.
//
//   section `endpoints`
//     head     64 bytes of Int32: 0 endpoints  1 worker slots  2 since when a worker judges; 0: none does  3 when the
//              last judgement was (upstream/cluster/outliers.ts; both in milliseconds, their lower 32 bits)
//     record   one for each slot and one for `nowhere`, 256 bytes; every process writes it:
//                0 [Int32] why it gets no requests, a bit each: 1 down, 2 drained, 4 ejected; 8: on probation, it gets
//                          few. 0: it gets requests
//                4 [Int32] health: 0 unknown, 1 up, 2 down
//                8 [Float64] since when it gets requests again, microseconds on the segment's clock; 0: since ever
//               16 what ejections are decided by (endpoint-record.ts)
//     block    one for each worker slot and record, 64 bytes of Float64; that worker alone writes it:
//                0 attempts that have ended   1 failures
//                2 latency, sum in microseconds   3 latencies in that sum, one for each response to a request that was
//                                                 there as a whole
//                4 in flight   5 those of them that wait for the head of their response
//                6 slow responses   7 what half of the responses take longer than lately, in microseconds
import { EndpointRecord, FIELD } from './endpoint-record.js'
import type { LiveSection, Segment } from './segment.js'

const STATES = ['unknown', 'up', 'down'] as const
export type HealthState = (typeof STATES)[number]

/** Bits of an endpoint's first word. */
export const OUT = { down: 1, drained: 2, ejected: 4, probation: 8 } as const

const HEAD_BYTES = 64
const ENDPOINTS_AT = 0
const WORKERS_AT = 1
const JUDGE_AT = 2
const JUDGED_AT = 3
/** A worker that judges for longer has died, or hangs. */
const LONGEST_JUDGEMENT_MS = 1000

const RECORD_BYTES = 256
const RECORD_32 = RECORD_BYTES / 4
const RECORD_64 = RECORD_BYTES / 8
const BLOCK_64 = 8

const OUT_AT = 0
const HEALTH_AT = 1
/** Of the record as Float64. */
const RETURNED_US_AT = 1

const ATTEMPTS = 0
const FAILURES = 1
const LATENCY_US = 2
const LATENCIES = 3
const IN_FLIGHT = 4
const WAITING = 5
const SLOW = 6
const MEDIAN_US = 7

/** How far a latency moves the median, up or down. An average would follow a few that are very long. */
const MEDIAN_STEP = 1.06

/** Sums over all workers. */
export interface EndpointTotals {
  readonly attempts: number
  readonly failures: number
  readonly latencyUs: number
  readonly latencies: number
  readonly inFlight: number
  /** Those of them that wait for the head of their response. Uploads do not count: they may wait for their client. */
  readonly waiting: number
  readonly slow: number
}

interface Spec {
  readonly endpoints: number
  readonly workers: number
}

export function endpointBytes({ endpoints, workers }: Spec): number {
  return HEAD_BYTES + (endpoints + 1) * (RECORD_BYTES + workers * BLOCK_64 * 8)
}

export const endpointsSection: LiveSection<Spec> = {
  name: 'endpoints',
  kept: false,
  bytes: endpointBytes,
  release(segment, worker) {
    const { buffer, offset } = segment.section(endpointsSection.name)
    const [endpoints, workers] = new Int32Array(buffer, offset, 2) as unknown as [number, number]
    new EndpointTable(segment, { endpoints, workers }).enter(worker)
  },
}

export class EndpointTable {
  readonly endpoints: number
  private readonly workers: number
  private readonly segment: Segment
  private readonly head: Int32Array
  private readonly ints: Int32Array
  private readonly floats: Float64Array
  private readonly blocks: Float64Array

  /** @param endpoints how many slots @param workers how many worker slots */
  constructor(segment: Segment, { endpoints, workers }: Spec) {
    const { buffer, offset, bytes } = segment.section(endpointsSection.name)
    const needed = endpointBytes({ endpoints, workers })
    if (bytes < needed)
      throw new RangeError(`endpoints section of ${bytes} bytes cannot hold ${endpoints} endpoints (${needed} bytes)`)
    this.endpoints = endpoints
    this.workers = workers
    this.segment = segment
    this.head = new Int32Array(buffer, offset, HEAD_BYTES / 4)
    // Every process writes the same; release() reads it.
    this.head[ENDPOINTS_AT] = endpoints
    this.head[WORKERS_AT] = workers
    const records = offset + HEAD_BYTES
    const slots = endpoints + 1
    this.ints = new Int32Array(buffer, records, slots * RECORD_32)
    this.floats = new Float64Array(buffer, records, slots * RECORD_64)
    this.blocks = new Float64Array(buffer, records + slots * RECORD_BYTES, slots * workers * BLOCK_64)
  }

  /** OUT bits, 0 where it gets requests. A plain read: an aligned Int32 does not tear, and a moment ago will do. */
  out(slot: number): number {
    return this.ints[slot * RECORD_32 + OUT_AT] as number
  }

  setOut(slot: number, bit: number, on: boolean): void {
    const at = slot * RECORD_32 + OUT_AT
    if (on) Atomics.or(this.ints, at, bit)
    else if (Atomics.and(this.ints, at, ~bit) === bit) this.setReturned(slot)
  }

  /** Since when it gets requests again, on the segment's clock; 0 where it has never been out. For a slow start. */
  returnedUs(slot: number): number {
    return this.floats[slot * RECORD_64 + RETURNED_US_AT] as number
  }

  setReturned(slot: number): void {
    this.floats[slot * RECORD_64 + RETURNED_US_AT] = this.segment.nowUs()
  }

  health(slot: number): HealthState {
    return STATES[Atomics.load(this.ints, slot * RECORD_32 + HEALTH_AT)] ?? 'unknown'
  }

  /** Primary. */
  setHealth(slot: number, state: HealthState): void {
    Atomics.store(this.ints, slot * RECORD_32 + HEALTH_AT, STATES.indexOf(state))
    this.setOut(slot, OUT.down, state === 'down')
  }

  /** Primary: the slot is another endpoint's from now on. No worker uses it. */
  clear(slot: number): void {
    this.ints.fill(0, slot * RECORD_32, (slot + 1) * RECORD_32)
    for (let worker = 0; worker < this.workers; worker++) {
      const at = this.blockAt(worker, slot)
      this.blocks.fill(0, at, at + BLOCK_64)
    }
  }

  // Ejections: the rules are in upstream/cluster/outliers.ts.

  record(slot: number): EndpointRecord {
    return new EndpointRecord(
      this.ints.subarray(slot * RECORD_32, (slot + 1) * RECORD_32),
      this.floats.subarray(slot * RECORD_64, (slot + 1) * RECORD_64),
    )
  }

  /**
   * One worker judges at a time: others leave it to that one. False: this one does not.
   * @param restMs another judgement is at least so long ago, or this is none of those that come at intervals: 0
   */
  beginJudgement(nowUs: number, restMs: number): boolean {
    const now = Math.floor(nowUs / 1000) | 0
    const since = Atomics.load(this.head, JUDGE_AT)
    if (since !== 0 && ((now - since) | 0) < LONGEST_JUDGEMENT_MS) return false
    if (Atomics.compareExchange(this.head, JUDGE_AT, since, now | 1) !== since) return false
    if (restMs === 0) return true
    const ago = (now - Atomics.load(this.head, JUDGED_AT)) | 0
    if (ago >= 0 && ago < restMs) {
      this.endJudgement()
      return false
    }
    Atomics.store(this.head, JUDGED_AT, now)
    return true
  }

  endJudgement(): void {
    Atomics.store(this.head, JUDGE_AT, 0)
  }

  /** From where on a response of the endpoint counts as slow. */
  slowUs(slot: number): number {
    return this.floats[slot * RECORD_64 + FIELD.slowUs] || Number.POSITIVE_INFINITY
  }

  /** Attempts that have not failed. */
  succeeded(slot: number): number {
    let sum = 0
    for (let worker = 0; worker < this.workers; worker++) {
      const at = this.blockAt(worker, slot)
      sum += (this.blocks[at + ATTEMPTS] as number) - (this.blocks[at + FAILURES] as number)
    }
    return sum
  }

  inFlight(slot: number): number {
    let sum = 0
    for (let worker = 0; worker < this.workers; worker++)
      sum += this.blocks[this.blockAt(worker, slot) + IN_FLIGHT] as number
    return sum
  }

  // Counts of one worker.

  /** A worker begins in this slot, or has left it: nothing of it is in flight. */
  enter(worker: number): void {
    for (let slot = 0; slot < this.endpoints; slot++) {
      const at = this.blockAt(worker, slot)
      this.blocks[at + IN_FLIGHT] = 0
      this.blocks[at + WAITING] = 0
    }
  }

  /** @param waits the whole request is there: the endpoint alone decides when its response comes */
  begin(worker: number, slot: number, waits: boolean): void {
    const at = this.blockAt(worker, slot)
    this.blocks[at + IN_FLIGHT]!++
    if (waits) this.blocks[at + WAITING]!++
  }

  /** The head of a response has come that was waited for. */
  answered(worker: number, slot: number, latencyUs: number, isSlow: boolean): void {
    const at = this.blockAt(worker, slot)
    const median = this.blocks[at + MEDIAN_US] as number
    this.blocks[at + WAITING]!--
    this.blocks[at + LATENCY_US]! += latencyUs
    this.blocks[at + LATENCIES]!++
    this.blocks[at + MEDIAN_US] =
      median === 0 ? latencyUs : latencyUs > median ? median * MEDIAN_STEP : median / MEDIAN_STEP
    if (isSlow) this.blocks[at + SLOW]!++
  }

  /** @param waits it has begun so, and no head has come @param isSlow … for too long already */
  end(worker: number, slot: number, failed: boolean, waits: boolean, isSlow: boolean): void {
    const at = this.blockAt(worker, slot)
    this.blocks[at + IN_FLIGHT]!--
    this.blocks[at + ATTEMPTS]!++
    if (failed) this.blocks[at + FAILURES]!++
    if (waits) this.blocks[at + WAITING]!--
    if (isSlow) this.blocks[at + SLOW]!++
  }

  /** For endpoints that no service has any more, of requests that still end: nobody reads what is counted there. */
  get nowhere(): number {
    return this.endpoints
  }

  /** The endpoint has another slot from now on: what this worker has in flight goes with it. */
  move(worker: number, from: number, to: number, inFlight: number, waiting: number): void {
    const before = this.blockAt(worker, from)
    const after = this.blockAt(worker, to)
    this.blocks[before + IN_FLIGHT]! -= inFlight
    this.blocks[after + IN_FLIGHT]! += inFlight
    this.blocks[before + WAITING]! -= waiting
    this.blocks[after + WAITING]! += waiting
  }

  /** What half of its responses take longer than lately, until the head; 0 where none has come. */
  medianUs(slot: number): number {
    const known: number[] = []
    for (let worker = 0; worker < this.workers; worker++) {
      const us = this.blocks[this.blockAt(worker, slot) + MEDIAN_US] as number
      if (us > 0) known.push(us)
    }
    // The median of the workers': one with few requests may be far off.
    known.sort((a, b) => a - b)
    return known[(known.length - 1) >> 1] ?? 0
  }

  // What this worker has counted, for balancers.

  latencySumUs(worker: number, slot: number): number {
    return this.blocks[this.blockAt(worker, slot) + LATENCY_US] as number
  }

  latencies(worker: number, slot: number): number {
    return this.blocks[this.blockAt(worker, slot) + LATENCIES] as number
  }

  failures(worker: number, slot: number): number {
    return this.blocks[this.blockAt(worker, slot) + FAILURES] as number
  }

  totals(slot: number): EndpointTotals {
    const sum = [0, 0, 0, 0, 0, 0, 0] as [number, number, number, number, number, number, number]
    for (let worker = 0; worker < this.workers; worker++) {
      const at = this.blockAt(worker, slot)
      for (let i = 0; i < sum.length; i++) sum[i]! += this.blocks[at + i] as number
    }
    const [attempts, failures, latencyUs, latencies, inFlight, waiting, slow] = sum
    return { attempts, failures, latencyUs, latencies, inFlight, waiting, slow }
  }

  private blockAt(worker: number, slot: number): number {
    return (worker * (this.endpoints + 1) + slot) * BLOCK_64
  }
}
