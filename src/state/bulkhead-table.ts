// What all workers know of the requests that each service has in flight, by Service.slot: how many, how many wait, and
// the limit that has found itself. A worker writes its own counts; what it held when it died is given back. It begins
// empty with each start of the primary. The rules are in upstream/bulkhead.ts.
//
//   section `bulkheads`
//     head     64 bytes: 0 [Int32] workers   4 [Int32] services
//     record   one for each service, 128 bytes of Float64, of the adaptive limit (upstream/gradient.ts):
//               0 limit, 0 before the first   1 to 10 what the rules remember
//     turn     one for each service, 64 bytes:
//               0 [Int32] how often the adaptive limit was worked out: who counts it up works it out
//     rows     three for each service (shared-count.ts): Int32 in flight, Int32 waiting, and twice as long
//              Float64 × workers: since when the oldest one waits, microseconds on the segment's clock; 0: none waits
//     block    one for each worker slot and service, 64 bytes of Float64; that worker alone writes it:
//               0 refused, queue full or none   1 refused, waited too long   2 had to wait and got a place
import type { BulkheadRules } from '../config/bulkhead.js'
import type { LiveSection, Segment } from './segment.js'
import { rowLength, SharedCount, sumOf } from './shared-count.js'

const LINE_BYTES = 64
const RECORD_64 = 16
const BLOCK_64 = 8

const REFUSED_FULL = 0
const REFUSED_LATE = 1
const WAITED = 2

interface Spec {
  readonly services: number
  readonly workers: number
}

/** Reloads may add services. */
function placesFor(services: number): number {
  return services * 2 + 64
}

/** Where the parts begin, in bytes from the section's start. */
function layoutOf(services: number, workers: number) {
  const row = rowLength(workers) * 4
  const records = LINE_BYTES
  const turns = records + services * RECORD_64 * 8
  const held = turns + services * LINE_BYTES
  const waiting = held + services * row
  const oldest = waiting + services * row
  const blocks = oldest + services * row * 2
  return { records, turns, held, waiting, oldest, blocks, end: blocks + services * workers * LINE_BYTES }
}

/** @param found the adaptive limit, 0 before the first */
export function limitInForce({ adaptive, most }: BulkheadRules, found: number): number {
  return adaptive === null ? most : Math.min(most, Math.floor(found || adaptive.start))
}

/** Over all workers. */
export interface BulkheadStatus {
  readonly limit: number
  readonly inFlight: number
  readonly waiting: number
  readonly refusedFull: number
  readonly refusedLate: number
  readonly waited: number
}

export class BulkheadTable {
  /** How many there is room for. */
  readonly services: number
  readonly workers: number
  private readonly held: Int32Array
  private readonly waiting: Int32Array
  private readonly turns: Int32Array
  private readonly oldest: Float64Array
  private readonly records: Float64Array
  private readonly blocks: Float64Array
  private readonly row: number

  constructor(segment: Segment, spec?: Spec) {
    const { buffer, offset, bytes } = segment.section(bulkheadsSection.name)
    const head = new Int32Array(buffer, offset, 2)
    if (spec !== undefined) head.set([spec.workers, placesFor(spec.services)])
    const [workers, services] = head as unknown as [number, number]
    const at = layoutOf(services, workers)
    if (bytes < at.end) throw new RangeError(`bulkheads section of ${bytes} bytes cannot hold ${services} services`)
    this.services = services
    this.workers = workers
    this.row = rowLength(workers)
    this.records = new Float64Array(buffer, offset + at.records, services * RECORD_64)
    this.turns = new Int32Array(buffer, offset + at.turns, services * (LINE_BYTES / 4))
    this.held = new Int32Array(buffer, offset + at.held, services * this.row)
    this.waiting = new Int32Array(buffer, offset + at.waiting, services * this.row)
    this.oldest = new Float64Array(buffer, offset + at.oldest, services * this.row)
    this.blocks = new Float64Array(buffer, offset + at.blocks, services * workers * BLOCK_64)
  }

  /** Primary: the slot is another service's from now on. No worker uses it. */
  clear(slot: number): void {
    this.records.fill(0, slot * RECORD_64, (slot + 1) * RECORD_64)
    for (const row of [this.held, this.waiting, this.oldest]) row.fill(0, slot * this.row, (slot + 1) * this.row)
    for (let worker = 0; worker < this.workers; worker++) this.block(slot, worker).fill(0)
  }

  /** Primary, when a worker is gone: gives back what it held. */
  release(worker: number): void {
    for (let slot = 0; slot < this.services; slot++) {
      const at = slot * this.row + worker
      Atomics.store(this.held, at, 0)
      Atomics.store(this.waiting, at, 0)
      this.oldest[at] = 0
    }
  }

  /** Of one service, for the worker that has this slot. */
  part(slot: number, worker: number): BulkheadPart {
    const from = slot * this.row
    return new BulkheadPart(
      new SharedCount(this.held.subarray(from, from + this.row), worker),
      new SharedCount(this.waiting.subarray(from, from + this.row), worker),
      this.oldest.subarray(from, from + this.workers),
      this.records.subarray(slot * RECORD_64, (slot + 1) * RECORD_64),
      this.turns.subarray(slot * (LINE_BYTES / 4), slot * (LINE_BYTES / 4) + 1),
      this.block(slot, worker),
      worker,
    )
  }

  read(slot: number, rules: BulkheadRules): BulkheadStatus {
    const sum = (at: number): number => {
      let all = 0
      for (let worker = 0; worker < this.workers; worker++) all += this.block(slot, worker)[at] as number
      return all
    }
    const from = slot * this.row
    return {
      limit: limitInForce(rules, this.records[slot * RECORD_64] as number),
      inFlight: sumOf(this.held.subarray(from, from + this.row)),
      waiting: sumOf(this.waiting.subarray(from, from + this.row)),
      refusedFull: sum(REFUSED_FULL),
      refusedLate: sum(REFUSED_LATE),
      waited: sum(WAITED),
    }
  }

  private block(slot: number, worker: number): Float64Array {
    const at = (slot * this.workers + worker) * BLOCK_64
    return this.blocks.subarray(at, at + BLOCK_64)
  }
}

/** What one worker reads and writes of one service. */
export class BulkheadPart {
  readonly held: SharedCount
  readonly waiting: SharedCount
  /** Of the adaptive limit: its number and what its controller remembers; every worker writes it in its turn. */
  readonly record: Float64Array
  private readonly oldest: Float64Array
  private readonly turn: Int32Array
  private readonly block: Float64Array
  private readonly worker: number

  constructor(
    held: SharedCount,
    waiting: SharedCount,
    oldest: Float64Array,
    record: Float64Array,
    turn: Int32Array,
    block: Float64Array,
    worker: number,
  ) {
    this.held = held
    this.waiting = waiting
    this.oldest = oldest
    this.record = record
    this.turn = turn
    this.block = block
    this.worker = worker
  }

  /** @param sinceUs 0: none waits any more */
  noteOldest(sinceUs: number): void {
    this.oldest[this.worker] = sinceUs
  }

  /** Since when the oldest one of another worker waits; Infinity where none does. */
  get oldestElsewhere(): number {
    const { oldest, worker } = this
    let first = Number.POSITIVE_INFINITY
    for (let i = 0; i < oldest.length; i++) {
      const sinceUs = oldest[i] as number
      if (i !== worker && sinceUs > 0 && sinceUs < first) first = sinceUs
    }
    return first
  }

  noteRefusal(late: boolean): void {
    this.block[late ? REFUSED_LATE : REFUSED_FULL]!++
  }

  noteWait(): void {
    this.block[WAITED]!++
  }

  get turns(): number {
    return Atomics.load(this.turn, 0)
  }

  /** Whether this worker is the one to work out the adaptive limit; `turns` was what it found. */
  takeTurn(turns: number): boolean {
    return Atomics.compareExchange(this.turn, 0, turns, turns + 1) === turns
  }
}

export const bulkheadsSection: LiveSection<Spec> = {
  name: 'bulkheads',
  kept: false,
  bytes: ({ services, workers }) => layoutOf(placesFor(services), workers).end,
  release: (segment, worker) => new BulkheadTable(segment).release(worker),
}
