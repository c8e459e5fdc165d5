// What all workers know together about each service's breaker, kept from start to start: the record, and the steps on it that must be
// atomic. When to take them is decided in proxy/breaker.ts. Runs per request.
//
//   section `breakers`   records of 1024 bytes, found by the name's hash (open addressing; records are never moved)
//
//     line 0     0 state        Int64    the whole state, replaced by one compareExchange. Lower half:
//                                          bits 0–2 state, 3–4 hold, 5–9 streak, 10–31 generation
//                                        upper half: deadline in ms, modulo 2^32
//                8 key          Int64    hash of the name; 0: no record; -1: taken out, those put behind it are still found
//               16 sinceUs      Float64  of the last change, to be shown
//               24 reason       Int32    of the last change, to be shown
//     line 1    64 ok, failed, slow  Int32 each, of the states that count; they wrap and are never reset
//               76 bucket       Int32    number of the bucket that is being filled
//               80 bucketMs     Int32    its length; another one begins the window anew
//     lines 2–5 128 ring         16 × (ok, failed, slow, free), the totals as each of the last buckets began
//     line 6–7  384 probes       32 × Int32  bits 0–1 state of the permit (0 free, 1 out, 2 ok, 3 slow), 2–9 worker, 10–31 generation
//     line 8–9  512 probesAt     32 × Int32  when it was handed out, ms modulo 2^32
//     line 10   640 changes      4 × Int32   entries into each state, by state
//               656 refused      Int32, wraps
//               660 ramped       Int32, wraps: the ramp's running sum
//     line 11   704 name         up to 319 bytes of UTF-8, then 0: to be shown
//
// The window needs no locks and loses nothing: totals only grow, a bucket is what they grew by since it began. Who first comes into
// a new bucket notes the totals, then moves `bucket` on; two who do so at once note the same but for calls that ended in between.
import { KeyHash } from './key-hash.js'
import { Owners } from './owners.js'
import type { Segment } from './segment.js'

const RECORD_BYTES = 1024
const RECORD_32 = RECORD_BYTES / 4
const RECORD_64 = RECORD_BYTES / 8

export const STATE = { closed: 0, open: 1, halfOpen: 2, ramp: 3 } as const
export const STATE_NAMES = ['closed', 'open', 'half_open', 'ramp'] as const
export type BreakerState = (typeof STATE_NAMES)[number]
export const HOLD = { none: 0, open: 1, closed: 2 } as const
const REASONS = [
  'created',
  'failures',
  'slow_calls',
  'open_time_over',
  'probe_failed',
  'probes_slow',
  'probes_passed',
  'ramp_over',
  'held',
  'released',
] as const
export type BreakerReason = (typeof REASONS)[number]

export const MAX_PROBES = 32
export const MAX_STREAK = 31
const GENERATIONS = 1 << 22
const BUCKETS = 10
/** A power of two, so that it stays in step when bucket numbers wrap. */
const RING = 16

// Positions in a record, as Int32.
const DEADLINE = 1
const KEY_64 = 1
const SINCE_64 = 2
const REASON = 6
const TOTALS = 16
const BUCKET = 19
const BUCKET_MS = 20
const RING_AT = 32
const PROBES = 96
const PROBES_AT = 128
const CHANGES = 160
const REFUSED = 164
const RAMPED = 165
const NAME_AT = 704
const NAME_BYTES = RECORD_BYTES - NAME_AT

const NO_RECORD = 0n
const TAKEN_OUT = -1n

const PERMIT = { free: 0, out: 1, ok: 2, slow: 3 } as const

export interface BreakerSnapshot {
  readonly name: string
  readonly state: BreakerState
  /** What the admin call holds it in, whatever the state is. */
  readonly held: 'open' | 'closed' | null
  readonly sinceUs: number
  readonly reason: BreakerReason
  readonly generation: number
  /** Openings in a row without a recovery in between: openFor doubles with each. */
  readonly streak: number
  /** Calls that ended within the window. */
  readonly window: { readonly ok: number; readonly failed: number; readonly slow: number }
  /** Entries into each state since the record was made. */
  readonly transitions: Readonly<Record<BreakerState, number>>
  readonly refused: number
}

function capacityFor(services: number): number {
  let capacity = 64
  while (capacity < services * 2) capacity *= 2
  return capacity
}

/** Twice what is there: services come and go by name, and what was taken out keeps its record until the room is needed. */
export function breakerTableBytes(services: number): number {
  return capacityFor(services) * RECORD_BYTES
}

export class BreakerTable {
  readonly capacity: number
  readonly ints: Int32Array
  readonly words: BigInt64Array
  private readonly floats: Float64Array
  private readonly bytes: Uint8Array
  private readonly seed: Int32Array

  constructor(segment: Segment) {
    const { offset, bytes } = segment.section('breakers')
    this.capacity = Math.floor(bytes / RECORD_BYTES)
    this.ints = new Int32Array(segment.buffer, offset, this.capacity * RECORD_32)
    this.words = new BigInt64Array(segment.buffer, offset, this.capacity * RECORD_64)
    this.floats = new Float64Array(segment.buffer, offset, this.capacity * RECORD_64)
    this.bytes = new Uint8Array(segment.buffer, offset, this.capacity * RECORD_BYTES)
    this.seed = segment.seed
  }

  /** The name's record, made where there is none; any process may be first. Throws when all records are taken. */
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
      // Its maker may not have come to the name yet, or never will; both write the same.
      if (seen !== key || this.nameAt(index) === '') this.write(index, name)
      return new BreakerRecord(this, index)
    }
  }

  /** Where the key's record is, or would be put: -1 where there is no room. */
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

  /** All there are, by their names; services no longer configured among them. */
  records(): Map<string, BreakerRecord> {
    const records = new Map<string, BreakerRecord>()
    for (let index = 0; index < this.capacity; index++) {
      const key = Atomics.load(this.words, index * RECORD_64 + KEY_64)
      if (key === NO_RECORD || key === TAKEN_OUT) continue
      records.set(this.nameAt(index), new BreakerRecord(this, index))
    }
    return records
  }

  /** Primary, when a worker is gone and before another gets its index: the permits it died with are free again. */
  releaseWorker(worker: number): void {
    for (const record of this.records().values()) record.releaseWorker(worker)
  }

  /**
   * Primary, at start and on a reload, before workers know the config: a record for each of the names. Where that takes more room than there
   * is, services in neither list are forgotten. False: there is not enough even so, and nothing was changed. No record is ever moved:
   * workers know theirs by its place.
   * @param inUse services that some worker may still have requests for; null: it is not known which
   */
  provide(names: readonly string[], inUse: ReadonlySet<string> | null): boolean {
    const records = this.records()
    const missing = names.filter((name) => !records.has(name))
    const wanted = new Set(names)
    const spare = inUse === null ? [] : [...records].filter(([name]) => !wanted.has(name) && !inUse.has(name))
    const short = records.size + missing.length - this.capacity
    if (short > spare.length) return false
    for (const [, { index }] of spare.slice(0, Math.max(0, short))) this.takeOut(index)
    for (const name of missing) this.record(name)
    return true
  }

  private takeOut(index: number): void {
    const at = index * RECORD_64 + KEY_64
    this.bytes.fill(0, index * RECORD_BYTES, at * 8)
    this.bytes.fill(0, at * 8 + 8, (index + 1) * RECORD_BYTES)
    Atomics.store(this.words, at, TAKEN_OUT)
  }

  /**
   * At start: takes over the records of an earlier run, from the same memory or from another. Returns how many.
   * @param isAlive whether a worker of an earlier run still is: it keeps its permits
   */
  adopt(before: BreakerTable, isAlive: (worker: number) => boolean): number {
    let whole = 0
    for (const [name, { index }] of before.records()) {
      if (before.keyOf(name) !== before.words[index * RECORD_64 + KEY_64]) before.takeOut(index)
      else if (before === this || whole < this.capacity) {
        whole++
        if (before !== this) this.restore(name, before.copyOf(index))
      }
    }
    for (const record of this.records().values()) record.forgetWorkers(isAlive)
    return whole
  }

  /** @param nowUs without it the window is as it was when a call last ended */
  snapshot(index: number, nowUs?: number): BreakerSnapshot {
    const at = index * RECORD_32
    const { ints } = this
    const low = Atomics.load(ints, at)
    const hold = (low >> 3) & 3
    const current = ints[at + BUCKET] as number
    const bucketMs = ints[at + BUCKET_MS] as number
    const bucket = nowUs === undefined || bucketMs === 0 ? current : Math.floor(nowUs / 1000 / bucketMs) | 0
    const over = ((bucket - current) | 0) >= BUCKETS
    const oldest = this.oldest(at, bucket)
    const since = (total: number): number =>
      over ? 0 : (Atomics.load(ints, at + TOTALS + total) - (ints[oldest + total] as number)) | 0
    return {
      name: this.nameAt(index),
      state: STATE_NAMES[low & 7] ?? 'closed',
      held: hold === HOLD.open ? 'open' : hold === HOLD.closed ? 'closed' : null,
      sinceUs: this.floats[index * RECORD_64 + SINCE_64] as number,
      reason: REASONS[ints[at + REASON] as number] ?? 'created',
      generation: low >>> 10,
      streak: (low >> 5) & MAX_STREAK,
      window: { ok: since(0), failed: since(1), slow: since(2) },
      transitions: Object.fromEntries(
        STATE_NAMES.map((name, state) => [name, Atomics.load(ints, at + CHANGES + state) >>> 0]),
      ) as Record<BreakerState, number>,
      refused: Atomics.load(ints, at + REFUSED) >>> 0,
    }
  }

  noteReason(index: number, reason: BreakerReason, nowUs: number): void {
    this.floats[index * RECORD_64 + SINCE_64] = nowUs
    this.ints[index * RECORD_32 + REASON] = REASONS.indexOf(reason)
  }

  noteChange(index: number, state: number, reason: BreakerReason, nowUs: number): void {
    this.noteReason(index, reason, nowUs)
    Atomics.add(this.ints, index * RECORD_32 + CHANGES + state, 1)
  }

  /** The ring's entry for the first bucket of the window that ends with `bucket`. */
  oldest(at: number, bucket = this.ints[at + BUCKET] as number): number {
    return at + RING_AT + ((bucket - BUCKETS + 1) & (RING - 1)) * 4
  }

  private write(index: number, name: string): void {
    const utf8 = Buffer.from(name).subarray(0, NAME_BYTES - 1)
    this.bytes.set(utf8, index * RECORD_BYTES + NAME_AT)
  }

  private nameAt(index: number): string {
    const start = index * RECORD_BYTES + NAME_AT
    const bytes = Buffer.from(this.bytes.subarray(start, start + NAME_BYTES))
    const end = bytes.indexOf(0)
    return bytes.toString('utf8', 0, end < 0 ? NAME_BYTES : end)
  }

  /** Of what is stored of the name, so that a record can be checked against it. Never NO_RECORD or TAKEN_OUT. */
  private keyOf(name: string): bigint {
    const stored = Buffer.from(name)
      .subarray(0, NAME_BYTES - 1)
      .toString()
    const [a, b, c, d] = this.seed as unknown as [number, number, number, number]
    const hash = new KeyHash().seed(a, b, c, d).text(stored).finish()
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

/** One breaker's record, and all that is done to it. */
export class BreakerRecord {
  private readonly ints: Int32Array
  private readonly words: BigInt64Array
  private readonly at: number

  constructor(
    private readonly table: BreakerTable,
    readonly index: number,
  ) {
    this.ints = table.ints
    this.words = table.words
    this.at = index * RECORD_32
  }

  /** The lower half of the state: all but the deadline. */
  state(): number {
    return Atomics.load(this.ints, this.at)
  }

  /** How long until the deadline of the state `low`, in ms; NaN when the state is another by now. */
  untilDeadlineMs(low: number, nowMs: number): number {
    const deadline = Atomics.load(this.ints, this.at + DEADLINE)
    return Atomics.load(this.ints, this.at) === low ? (deadline - nowMs) | 0 : Number.NaN
  }

  /** The whole of the state at once; null keeps the deadline. False: it was another by then. */
  change(low: number, to: number, hold: number, streak: number, deadlineMs: number | null): boolean {
    const seen = Atomics.load(this.words, this.index * RECORD_64)
    if (Number(BigInt.asIntN(32, seen)) !== low) return false
    const generation = ((low >>> 10) + 1) % GENERATIONS
    const next = (generation << 10) | (streak << 5) | (hold << 3) | to
    const deadline = deadlineMs === null ? seen >> 32n : BigInt(deadlineMs | 0)
    const word = BigInt.asIntN(64, (deadline << 32n) | BigInt(next >>> 0))
    return Atomics.compareExchange(this.words, this.index * RECORD_64, seen, word) === seen
  }

  noteChange(state: number, reason: BreakerReason, nowUs: number): void {
    this.table.noteChange(this.index, state, reason, nowUs)
  }

  noteHold(reason: BreakerReason, nowUs: number): void {
    this.table.noteReason(this.index, reason, nowUs)
  }

  noteRefusal(): void {
    Atomics.add(this.ints, this.at + REFUSED, 1)
  }

  // The window.

  /** @param outcome 0 ok, 1 failed, 2 slow */
  count(outcome: number, nowMs: number, bucketMs: number): void {
    this.advance(nowMs, bucketMs)
    Atomics.add(this.ints, this.at + TOTALS + outcome, 1)
  }

  /** Calls of one outcome that ended within the window. */
  counted(outcome: number): number {
    const oldest = this.table.oldest(this.at)
    return ((this.ints[this.at + TOTALS + outcome] as number) - (this.ints[oldest + outcome] as number)) | 0
  }

  advance(nowMs: number, bucketMs: number): void {
    const bucket = Math.floor(nowMs / bucketMs) | 0
    const current = this.ints[this.at + BUCKET] as number
    const ahead = (bucket - current) | 0
    // Behind is who read the clock and was not run for a while: it must not throw away what the others have counted since.
    if (ahead <= 0 && ahead > -RING && this.ints[this.at + BUCKET_MS] === bucketMs) return
    if (ahead < 0 || ahead > RING || this.ints[this.at + BUCKET_MS] !== bucketMs) {
      this.restart(nowMs, bucketMs)
      return
    }
    for (let i = 1; i <= ahead; i++) this.noteTotals(current + i)
    Atomics.compareExchange(this.ints, this.at + BUCKET, current, bucket)
  }

  /** Begins the window anew: what was counted so far is in it no longer. */
  restart(nowMs: number, bucketMs: number): void {
    for (let i = 0; i < RING; i++) this.noteTotals(i)
    this.ints[this.at + BUCKET_MS] = bucketMs
    Atomics.store(this.ints, this.at + BUCKET, Math.floor(nowMs / bucketMs) | 0)
  }

  private noteTotals(bucket: number): void {
    const entry = this.at + RING_AT + (bucket & (RING - 1)) * 4
    for (let total = 0; total < 3; total++) this.ints[entry + total] = Atomics.load(this.ints, this.at + TOTALS + total)
  }

  // Probes: permits of the half-open state.

  /** A permit of the generation for the worker, or −1: all are out or used up. One that is out for longer than the lease is free. */
  takeProbe(generation: number, probes: number, worker: number, nowMs: number, leaseMs: number): number {
    const { ints } = this
    for (let slot = 0; slot < probes; slot++) {
      const word = this.at + PROBES + slot
      const seen = Atomics.load(ints, word)
      const current = seen >>> 10 === generation
      if (current && (seen & 3) >= PERMIT.ok) continue
      if (
        current &&
        (seen & 3) === PERMIT.out &&
        ((nowMs - (ints[this.at + PROBES_AT + slot] as number)) | 0) < leaseMs
      )
        continue
      // Two who race for it write the same time.
      ints[this.at + PROBES_AT + slot] = nowMs | 0
      if (Atomics.compareExchange(ints, word, seen, (generation << 10) | (worker << 2) | PERMIT.out) === seen)
        return slot
      slot--
    }
    return -1
  }

  /** @param to 'free' for one that says nothing. False: the permit was no longer the worker's. */
  endProbe(generation: number, slot: number, worker: number, to: keyof typeof PERMIT): boolean {
    const held = (generation << 10) | (worker << 2) | PERMIT.out
    const word = this.at + PROBES + slot
    return Atomics.compareExchange(this.ints, word, held, (held & ~3) | PERMIT[to]) === held
  }

  /** How many probes came back slow; −1 while one is out or has yet to be sent. */
  slowProbes(generation: number, probes: number): number {
    let slow = 0
    for (let slot = 0; slot < probes; slot++) {
      const word = Atomics.load(this.ints, this.at + PROBES + slot)
      if (word >>> 10 !== generation || (word & 3) < PERMIT.ok) return -1
      if ((word & 3) === PERMIT.slow) slow++
    }
    return slow
  }

  releaseWorker(worker: number): void {
    for (let slot = 0; slot < MAX_PROBES; slot++) {
      const word = this.at + PROBES + slot
      const seen = Atomics.load(this.ints, word)
      if ((seen & 3) === PERMIT.out && ((seen >>> 2) & 255) === worker)
        Atomics.compareExchange(this.ints, word, seen, seen & ~3)
    }
  }

  /** At start: permits of the dead are free. */
  forgetWorkers(isAlive: (worker: number) => boolean): void {
    for (let slot = 0; slot < MAX_PROBES; slot++) {
      const word = this.at + PROBES + slot
      const seen = Atomics.load(this.ints, word)
      if ((seen & 3) !== PERMIT.out || isAlive((seen >>> 2) & 255)) continue
      Atomics.compareExchange(this.ints, word, seen, seen & ~3)
    }
  }

  /** Lets the given share through, spread evenly over the calls of all workers. */
  takeShare(share: number): boolean {
    const step = Math.round(share * 65_536)
    const before = Atomics.add(this.ints, this.at + RAMPED, step)
    return (before + step) >> 16 !== before >> 16
  }

  snapshot(nowUs?: number): BreakerSnapshot {
    return this.table.snapshot(this.index, nowUs)
  }
}

/** At start: what became of an earlier run's breakers, for the log. */
export function adoptBreakers(before: Segment, after: Segment): string {
  const table = new BreakerTable(after)
  if (before !== after) return `${table.adopt(new BreakerTable(before), () => false)} breakers`
  const owners = new Owners(after)
  return `${table.adopt(table, (worker) => owners.isAlive(worker))} breakers`
}
