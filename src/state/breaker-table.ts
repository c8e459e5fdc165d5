// The breakers of all services, kept from start to start: finds each service's record by its name, makes records and
// drops them, and takes over those of an earlier run. What lies in a record is in breaker-record.ts. Off the request's
// way: each service's breaker keeps its record.
//
//   section `breakers`   records of 1024 bytes, found by the hash of the name (open addressing; records never move)
import {
  type BreakerMemory,
  BreakerRecord,
  KEY_64,
  MAX_PROBES,
  RECORD_64,
  RECORD_BYTES,
  storedName,
} from './breaker-record.js'
import { damagedRows } from './damage.js'
import { KeyHash } from './key-hash.js'
import { Owners } from './owners.js'
import type { KeptSection, Segment } from './segment.js'

/** In place of a record's key. */
const NO_RECORD = 0n
const TAKEN_OUT = -1n

function capacityFor(services: number): number {
  let capacity = 64
  while (capacity < services * 2) capacity *= 2
  return capacity
}

/** Twice as many as services: they come and go by name, and a record is only taken out when its room is needed. */
function breakerTableBytes(services: number): number {
  return capacityFor(services) * RECORD_BYTES
}

export class BreakerTable implements BreakerMemory {
  readonly capacity: number
  readonly ints: Int32Array
  readonly words: BigInt64Array
  readonly floats: Float64Array
  readonly bytes: Uint8Array
  readonly leases: Uint8Array
  private readonly seed: Int32Array
  /** Where the records lie that this object was asked for: damage may take them from the memory (segment.ts). */
  private readonly places = new Map<string, number>()

  constructor(segment: Segment) {
    const { offset, bytes } = segment.section(breakersSection.name)
    this.capacity = Math.floor(bytes / RECORD_BYTES)
    this.ints = new Int32Array(segment.buffer, offset, this.capacity * RECORD_64 * 2)
    this.words = new BigInt64Array(segment.buffer, offset, this.capacity * RECORD_64)
    this.floats = new Float64Array(segment.buffer, offset, this.capacity * RECORD_64)
    this.bytes = new Uint8Array(segment.buffer, offset, this.capacity * RECORD_BYTES)
    this.leases = new Uint8Array(this.capacity * MAX_PROBES)
    this.seed = segment.seed
  }

  /** The record of this name, made where none exists; any process may be first. Throws when all records are taken. */
  record(name: string): BreakerRecord {
    const key = this.keyOf(name)
    for (;;) {
      const index = this.placeOf(key)
      if (index < 0) throw new RangeError(`no room for the breaker of ${name}: all ${this.capacity} records are taken`)
      const at = index * RECORD_64 + KEY_64
      const seen = Atomics.load(this.words, at)
      if (seen !== key) {
        if (seen !== NO_RECORD && seen !== TAKEN_OUT) continue
        if (Atomics.compareExchange(this.words, at, seen, key) !== seen) continue
      }
      const record = new BreakerRecord(this, index)
      // Its maker may not have written the name yet, or may have died before; both write the same.
      if (seen !== key || record.name === '') record.writeName(name)
      this.places.set(name, index)
      return record
    }
  }

  /** Where the key's record is, or would be put; -1 where the table is full. */
  private placeOf(key: bigint): number {
    let free = -1
    for (let probe = 0; probe < this.capacity; probe++) {
      const index = (Number(BigInt.asUintN(32, key)) + probe) % this.capacity
      const found = Atomics.load(this.words, index * RECORD_64 + KEY_64)
      if (found === key) return index
      if (found !== NO_RECORD && found !== TAKEN_OUT) continue
      if (free < 0) free = index
      if (found === NO_RECORD) break
    }
    return free
  }

  /** All records by name, also those of services that are no longer configured. */
  records(): Map<string, BreakerRecord> {
    const records = new Map<string, BreakerRecord>()
    for (let index = 0; index < this.capacity; index++) {
      const key = Atomics.load(this.words, index * RECORD_64 + KEY_64)
      if (key === NO_RECORD || key === TAKEN_OUT) continue
      const record = new BreakerRecord(this, index)
      records.set(record.name, record)
    }
    return records
  }

  /** Primary, when a worker is gone and before another gets its index: frees the permits that it held. */
  releaseWorker(worker: number): void {
    for (const record of this.records().values()) record.releaseProbes((one) => one !== worker)
  }

  /**
   * Primary, at start and on a reload, before workers know the configuration: makes a record for each of the names. If
   * the room is too small, it drops services in neither list. False: even that is not enough, and nothing has changed.
   * A record never moves, since workers know theirs by its place.
   * @param inUse services for which a worker may still have requests; null: any may
   */
  provide(names: readonly string[], inUse: ReadonlySet<string> | null): boolean {
    const records = this.records()
    const missing = names.filter((name) => !records.has(name))
    const wanted = new Set(names)
    const spare = inUse === null ? [] : [...records].filter(([name]) => !wanted.has(name) && !inUse.has(name))
    const short = records.size + missing.length - this.capacity
    if (short > spare.length) return false
    for (const [name, { index }] of spare.slice(0, Math.max(0, short))) {
      this.takeOut(index)
      this.places.delete(name)
    }
    for (const name of names) this.record(name)
    return true
  }

  /**
   * Primary, where the memory was damaged: workers know their records by place, so each gets its name again where it
   * was.
   */
  mend(): void {
    for (const [name, index] of this.places) {
      if (Atomics.compareExchange(this.words, index * RECORD_64 + KEY_64, NO_RECORD, this.keyOf(name)) !== NO_RECORD)
        continue
      new BreakerRecord(this, index).writeName(name)
    }
  }

  private takeOut(index: number): void {
    const at = index * RECORD_64 + KEY_64
    this.bytes.fill(0, index * RECORD_BYTES, at * 8)
    this.bytes.fill(0, at * 8 + 8, (index + 1) * RECORD_BYTES)
    Atomics.store(this.words, at, TAKEN_OUT)
  }

  /**
   * At start: takes over the records of an earlier run, from the same memory or from another. Returns what the log says
   * of it.
   * @param isAlive whether a worker of that run still lives: it keeps its permits
   */
  adopt(before: BreakerTable, isAlive: (worker: number) => boolean, nowUs: number): string {
    let whole = 0
    let damaged = 0
    for (let index = 0; index < before.capacity; index++) {
      const key = Atomics.load(before.words, index * RECORD_64 + KEY_64)
      const isFree = key === NO_RECORD || key === TAKEN_OUT
      if (isFree && before.isEmpty(index)) continue
      const record = new BreakerRecord(before, index)
      const { name } = record
      if (isFree || before.keyOf(name) !== key || !record.isSound(nowUs) || !before.leadTo(index, key)) {
        before.takeOut(index)
        damaged++
      } else if (before === this || whole < this.capacity) {
        whole++
        if (before !== this) this.restore(name, before.copyOf(index))
      }
    }
    for (const record of this.records().values()) record.releaseProbes(isAlive)
    return `${whole} breakers${damagedRows(damaged)}`
  }

  /** Free records must be empty. */
  private isEmpty(index: number): boolean {
    const words = this.words.subarray(index * RECORD_64, (index + 1) * RECORD_64)
    return words.every((word, at) => at === KEY_64 || word === 0n)
  }

  /**
   * Damage may leave a gap in front of a record, which then is not found: this closes the gap. False: another record is
   * found instead.
   */
  private leadTo(index: number, key: bigint): boolean {
    if (this.placeOf(key) === index) return true
    const home = Number(BigInt.asUintN(32, key)) % this.capacity
    for (let place = home; place !== index; place = (place + 1) % this.capacity)
      Atomics.compareExchange(this.words, place * RECORD_64 + KEY_64, NO_RECORD, TAKEN_OUT)
    return this.placeOf(key) === index
  }

  /** The hash of the name as it is stored, so that a record can be checked against it. Never NO_RECORD or TAKEN_OUT. */
  private keyOf(name: string): bigint {
    const [a, b, c, d] = this.seed as unknown as [number, number, number, number]
    const hash = new KeyHash().seed(a, b, c, d).text(storedName(name).toString()).finish()
    const key = BigInt.asIntN(64, (BigInt(hash.a) << 32n) | BigInt(hash.b >>> 0))
    return key === NO_RECORD || key === TAKEN_OUT ? 1n : key
  }

  private copyOf(index: number): Uint8Array {
    return this.bytes.slice(index * RECORD_BYTES, (index + 1) * RECORD_BYTES)
  }

  private restore(name: string, bytes: Uint8Array): void {
    const { index } = this.record(name)
    const key = this.words[index * RECORD_64 + KEY_64] as bigint
    this.bytes.set(bytes, index * RECORD_BYTES)
    this.words[index * RECORD_64 + KEY_64] = key
  }
}

export const breakersSection: KeptSection<{ readonly services: number }> = {
  name: 'breakers',
  kept: true,
  bytes: ({ services }) => breakerTableBytes(services),
  adopt(before, after) {
    const table = new BreakerTable(after)
    // A worker of the earlier run ends its permits in the memory that it has mapped; nobody would end the copies.
    if (before !== after) return table.adopt(new BreakerTable(before), () => false, after.nowUs())
    const owners = new Owners(after)
    return table.adopt(table, (worker) => owners.isAlive(worker), after.nowUs())
  },
  release: (segment, owner) => new BreakerTable(segment).releaseWorker(owner),
}
