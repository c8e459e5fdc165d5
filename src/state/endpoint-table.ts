// What all processes know of each endpoint, by Endpoint.slot: whether it may get requests, and what its requests came
// to. The primary writes what its health checks found and what an operator asked for; workers write the rest. It begins
// empty with each start of the primary.
//
//   section `endpoints`
//     record   one for each slot, 64 bytes; every process writes it:
//               0 [Int32] why it gets no requests, a bit each: 1 down, 2 drained, 4 ejected. 0: it gets requests
//               4 [Int32] health: 0 unknown, 1 up, 2 down
//               8 [Int32] failures in a row
//              12 [Int32] why it was ejected last (EJECTION_REASONS)
//              16 [Int32] ejections in a row    20 [Int32] ejections in all
//              24 [Float64] ejected until, microseconds on the segment's clock
//     block    one for each worker slot and endpoint, 64 bytes of Float64; that worker alone writes it:
//               0 attempts  1 failures  2 latency, sum in microseconds  3 latencies in that sum  4 in flight
import type { LiveSection, Segment } from './segment.js'

const STATES = ['unknown', 'up', 'down'] as const
export type HealthState = (typeof STATES)[number]

/** Bits of an endpoint's first word. */
export const OUT = { down: 1, drained: 2, ejected: 4 } as const

const RECORD_BYTES = 64
const RECORD_32 = RECORD_BYTES / 4
const BLOCK_64 = 8

const OUT_AT = 0
const HEALTH_AT = 1

const ATTEMPTS = 0
const FAILURES = 1
const LATENCY_US = 2
const LATENCIES = 3
const IN_FLIGHT = 4

/** Sums over all workers. */
export interface EndpointTotals {
  readonly attempts: number
  readonly failures: number
  readonly latencyUs: number
  readonly latencies: number
  readonly inFlight: number
}

interface Spec {
  readonly endpoints: number
  readonly workers: number
}

export function endpointBytes({ endpoints, workers }: Spec): number {
  return Math.max(1, endpoints) * (RECORD_BYTES + workers * BLOCK_64 * 8)
}

export const endpointsSection: LiveSection<Spec> = {
  name: 'endpoints',
  kept: false,
  bytes: endpointBytes,
}

export class EndpointTable {
  readonly endpoints: number
  private readonly workers: number
  private readonly ints: Int32Array
  private readonly blocks: Float64Array

  /** @param endpoints how many slots @param workers how many worker slots */
  constructor(segment: Segment, { endpoints, workers }: Spec) {
    const { buffer, offset, bytes } = segment.section(endpointsSection.name)
    const needed = endpointBytes({ endpoints, workers })
    if (bytes < needed)
      throw new RangeError(`endpoints section of ${bytes} bytes cannot hold ${endpoints} endpoints (${needed} bytes)`)
    this.endpoints = endpoints
    this.workers = workers
    this.ints = new Int32Array(buffer, offset, endpoints * RECORD_32)
    this.blocks = new Float64Array(buffer, offset + endpoints * RECORD_BYTES, endpoints * workers * BLOCK_64)
  }

  /** OUT bits, 0 where it gets requests. A plain read: an aligned Int32 does not tear, and a moment ago will do. */
  out(slot: number): number {
    return this.ints[slot * RECORD_32 + OUT_AT] as number
  }

  setOut(slot: number, bit: number, on: boolean): void {
    if (on) Atomics.or(this.ints, slot * RECORD_32 + OUT_AT, bit)
    else Atomics.and(this.ints, slot * RECORD_32 + OUT_AT, ~bit)
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

  // Counts of one worker.

  /** A worker begins in this slot: nothing of its predecessor is in flight. */
  enter(worker: number): void {
    for (let slot = 0; slot < this.endpoints; slot++) this.blocks[this.blockAt(worker, slot) + IN_FLIGHT] = 0
  }

  begin(worker: number, slot: number): void {
    this.blocks[this.blockAt(worker, slot) + IN_FLIGHT]!++
  }

  /** @param latencyUs until the head of the response; negative where it says nothing of the endpoint */
  end(worker: number, slot: number, failed: boolean, latencyUs: number): void {
    const at = this.blockAt(worker, slot)
    this.blocks[at + IN_FLIGHT]!--
    this.blocks[at + ATTEMPTS]!++
    if (failed) this.blocks[at + FAILURES]!++
    if (latencyUs < 0) return
    this.blocks[at + LATENCY_US]! += latencyUs
    this.blocks[at + LATENCIES]!++
  }

  totals(slot: number): EndpointTotals {
    const sum = [0, 0, 0, 0, 0] as [number, number, number, number, number]
    for (let worker = 0; worker < this.workers; worker++) {
      const at = this.blockAt(worker, slot)
      for (let i = 0; i < sum.length; i++) sum[i]! += this.blocks[at + i] as number
    }
    const [attempts, failures, latencyUs, latencies, inFlight] = sum
    return { attempts, failures, latencyUs, latencies, inFlight }
  }

  private blockAt(worker: number, slot: number): number {
    return (worker * this.endpoints + slot) * BLOCK_64
  }
}
