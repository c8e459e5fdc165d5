// How many requests each key of a limit has in flight, over all workers. Runs per request, on routes with such a limit.
// Each worker writes its own part and reads the others', as in shared-count.ts: no more than the bound are ever
// admitted, and what a dead worker held is given back by emptying its part. It begins empty with each start of the
// primary.
//
//   section `inFlight`
//     head    64 bytes: 0 [Int32] workers
//     part    one for each worker slot, of 512 buckets of 16 entries: the key's hash says the bucket
//     entry   16 bytes of Int32: 0 and 1 the key, 2 how many; 0: the entry is free. An entry never moves, and a key has
//             one in each part at most
import type { KeyHash } from './key-hash.js'
import type { LiveSection, Segment } from './segment.js'

const HEAD_BYTES = 64
const BUCKETS = 512
const ENTRIES = 16
const ENTRY_32 = 4
const BUCKET_32 = ENTRIES * ENTRY_32
const PART_32 = BUCKETS * BUCKET_32
/** Workers that go on disturbing each other: one that has tried so often takes it for full. */
const MOST_TRIES = 64

/** In place of an entry. */
export const REFUSED = -1
/** The bucket has no entry for another key. */
export const NO_ROOM = -2

export class InFlightTable {
  private readonly ints: Int32Array
  private readonly workers: number
  private readonly worker: number

  /** @param worker the slot of the worker that takes and gives */
  constructor(segment: Segment, worker: number, workers?: number) {
    const { buffer, offset } = segment.section(inFlightSection.name)
    const head = new Int32Array(buffer, offset, 1)
    if (workers !== undefined) head[0] = workers
    this.workers = head[0] as number
    this.worker = worker
    this.ints = new Int32Array(buffer, offset + HEAD_BYTES, this.workers * PART_32)
  }

  /** One more for this key, unless it has `most` already: the entry, for give(). */
  take({ a, b, c }: KeyHash, most: number): number {
    const { ints } = this
    const bucket = (c & (BUCKETS - 1)) * BUCKET_32
    if (this.total(a, b, bucket) >= most) return REFUSED
    const entry = this.entryOf(a, b, this.worker * PART_32 + bucket)
    if (entry < 0) return NO_ROOM
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      Atomics.add(ints, entry + 2, 1)
      if (this.total(a, b, bucket) <= most) return entry
      Atomics.sub(ints, entry + 2, 1)
      if (this.total(a, b, bucket) >= most) return REFUSED
    }
    return REFUSED
  }

  give(entry: number): void {
    Atomics.sub(this.ints, entry + 2, 1)
  }

  /** How many the key has now. */
  count({ a, b, c }: KeyHash): number {
    return this.total(a, b, (c & (BUCKETS - 1)) * BUCKET_32)
  }

  /** Primary, when a worker is gone. */
  release(worker: number): void {
    this.ints.fill(0, worker * PART_32, (worker + 1) * PART_32)
  }

  /** This worker's entry for the key, which it may have to write; -1: all are in use. */
  private entryOf(a: number, b: number, bucket: number): number {
    const { ints } = this
    let free = -1
    for (let at = bucket; at < bucket + BUCKET_32; at += ENTRY_32) {
      if (ints[at] === a && ints[at + 1] === b) return at
      if (free < 0 && ints[at + 2] === 0) free = at
    }
    if (free >= 0) {
      Atomics.store(ints, free, a)
      Atomics.store(ints, free + 1, b)
    }
    return free
  }

  private total(a: number, b: number, bucket: number): number {
    const { ints, workers } = this
    let sum = 0
    for (let worker = 0; worker < workers; worker++) {
      const from = worker * PART_32 + bucket
      for (let at = from; at < from + BUCKET_32; at += ENTRY_32) {
        if (Atomics.load(ints, at) !== a || Atomics.load(ints, at + 1) !== b) continue
        sum += Atomics.load(ints, at + 2)
        break
      }
    }
    return sum
  }
}

export const inFlightSection: LiveSection<{ readonly workers: number }> = {
  name: 'inFlight',
  kept: false,
  bytes: ({ workers }) => HEAD_BYTES + workers * PART_32 * 4,
  release: (segment, worker) => new InFlightTable(segment, worker).release(worker),
}
