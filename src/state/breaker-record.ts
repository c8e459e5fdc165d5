// The record of one service's breaker, which all workers share, and the steps on it that must be atomic.
// upstream/breaker.ts decides when to take them; breaker-table.ts finds the record. Runs per request.
//
//   section `breakers`   records of 1024 bytes
//
//     line 0     0 state        Int64    the whole state, replaced by one compareExchange. Lower half:
//                                          bits 0–2 state, 3–4 hold, 5–9 streak, 10–31 generation
//                                        upper half: deadline in ms, modulo 2^32
//                8 key          Int64    hash of the name; 0: no record; -1: taken out, so that those put behind it are
//                                        still found
//               16 sinceUs      Float64  when the state last changed, for showing only
//               24 reason       Int32    why it last changed, for showing only
//     line 1    64 ok, failed, slow  Int32 each, totals of calls in the states that count; they wrap and are never
//                                    reset
//               76 bucket       Int32    number of the current bucket
//               80 bucketMs     Int32    its length; a new length begins the window anew
//     lines 2–5 128 ring         16 × (ok, failed, slow, free), the totals as each of the last buckets began
//     line 6–7  384 probes       32 × Int32  bits 0–1 state of the permit (0 free, 1 out, 2 ok, 3 slow), 2–9 worker,
//                                            10–31 generation
//     line 8–9  512 probesAt     32 × Int32  when the permit was handed out, ms modulo 2^32
//     line 10   640 changes      4 × Int32   entries into each state, by state
//               656 refused      Int32, wraps
//               660 ramped       Int32, wraps: the ramp's running sum
//     line 11   704 name         up to 319 bytes of UTF-8, then 0
//
// The window needs no locks and loses nothing: totals only grow, and a bucket is what they grew by since it began. The
// first worker in a new bucket notes the totals, then moves `bucket` on; if two do so at once, they note the same but
// for calls that ended in between.

import { LATEST_US } from './clock.js'

export const RECORD_BYTES = 1024
const RECORD_32 = RECORD_BYTES / 4
export const RECORD_64 = RECORD_BYTES / 8

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

export interface BreakerChange {
  readonly from: BreakerState
  readonly to: BreakerState
  readonly reason: BreakerReason
}

export const MAX_PROBES = 32
export const MAX_STREAK = 31
const GENERATIONS = 1 << 22
const BUCKETS = 10
/** A power of two, so that it stays in step when bucket numbers wrap. */
const RING = 16

// Positions in a record, as Int32.
const DEADLINE = 1
export const KEY_64 = 1
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

/**
 * No deadline is further ahead. One that seems to be was damaged, or lies so far back that 32 bits take it for the
 * future.
 */
const MOST_AHEAD_MS = 25 * 3_600_000

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

/** The records of all services, one behind the other. */
export interface BreakerMemory {
  readonly ints: Int32Array
  readonly words: BigInt64Array
  readonly floats: Float64Array
  readonly bytes: Uint8Array
  /** By record and probe: how often this process has taken it, modulo 256. Not shared. */
  readonly leases: Uint8Array
}

/** One breaker's record, and all that is done to it. */
export class BreakerRecord {
  private readonly ints: Int32Array
  private readonly words: BigInt64Array
  private readonly at: number

  constructor(
    private readonly memory: BreakerMemory,
    readonly index: number,
  ) {
    this.ints = memory.ints
    this.words = memory.words
    this.at = index * RECORD_32
  }

  /** '' where its maker has not come to it yet. */
  get name(): string {
    const start = this.index * RECORD_BYTES + NAME_AT
    const bytes = Buffer.from(this.memory.bytes.subarray(start, start + NAME_BYTES))
    const end = bytes.indexOf(0)
    return bytes.toString('utf8', 0, end < 0 ? NAME_BYTES : end)
  }

  writeName(name: string): void {
    this.memory.bytes.set(storedName(name), this.index * RECORD_BYTES + NAME_AT)
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

  /**
   * By an operator: every call refused, every call let through, or the rules' way again. Outlives restarts. Null: it
   * was held so already.
   */
  hold(as: 'open' | 'closed' | null, nowUs: number): BreakerChange | null {
    const hold = as === null ? HOLD.none : HOLD[as]
    for (;;) {
      const low = this.state()
      if (((low >> 3) & 3) === hold) return null
      const state = low & 7
      if (!this.change(low, state, hold, (low >> 5) & MAX_STREAK, null)) continue
      const reason = as === null ? 'released' : 'held'
      this.noteReason(reason, nowUs)
      const name = STATE_NAMES[state]!
      return { from: name, to: as ?? name, reason }
    }
  }

  noteChange(state: number, reason: BreakerReason, nowUs: number): void {
    this.noteReason(reason, nowUs)
    Atomics.add(this.ints, this.at + CHANGES + state, 1)
  }

  noteReason(reason: BreakerReason, nowUs: number): void {
    this.memory.floats[this.index * RECORD_64 + SINCE_64] = nowUs
    this.ints[this.at + REASON] = REASONS.indexOf(reason)
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
    const oldest = this.oldest()
    return ((this.ints[this.at + TOTALS + outcome] as number) - (this.ints[oldest + outcome] as number)) | 0
  }

  /** The ring's entry for the first bucket of the window that ends with `bucket`. */
  private oldest(bucket = this.ints[this.at + BUCKET] as number): number {
    return this.at + RING_AT + ((bucket - BUCKETS + 1) & (RING - 1)) * 4
  }

  advance(nowMs: number, bucketMs: number): void {
    const bucket = Math.floor(nowMs / bucketMs) | 0
    const current = this.ints[this.at + BUCKET] as number
    const ahead = (bucket - current) | 0
    // Behind is who read the clock and was not run for a while: it must not throw away what the others have counted
    // since.
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

  /** At start: whether a run can have left it so. */
  isSound(nowUs: number): boolean {
    const low = this.state()
    const state = low & 7
    const hold = (low >> 3) & 3
    const sinceUs = this.memory.floats[this.index * RECORD_64 + SINCE_64] as number
    if (state > STATE.ramp || hold > HOLD.closed || !(sinceUs >= 0 && sinceUs <= LATEST_US)) return false
    if (state === STATE.closed) return true
    // The deadline's milliseconds wrap after weeks: if the gateway was off for so long, the last change still tells.
    const isNear = (us: number) => this.untilDeadlineMs(low, Math.floor(us / 1000)) <= MOST_AHEAD_MS
    return isNear(nowUs) || isNear(sinceUs)
  }

  // Probes: permits of the half-open state.

  /**
   * A permit of the generation for the worker, or −1: all are out or used up. One that is out for longer than the lease
   * is free.
   */
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
      if (Atomics.compareExchange(ints, word, seen, (generation << 10) | (worker << 2) | PERMIT.out) === seen) {
        this.memory.leases[this.index * MAX_PROBES + slot]!++
        return slot
      }
      slot--
    }
    return -1
  }

  /** Tells what this process has taken last in that place from what it took there before: 0 to 7. */
  lease(slot: number): number {
    return (this.memory.leases[this.index * MAX_PROBES + slot] as number) & 7
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

  /** Permits of the dead are free. */
  releaseProbes(isAlive: (worker: number) => boolean): void {
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

  /** @param nowUs without it the window is as it was when a call last ended */
  snapshot(nowUs?: number): BreakerSnapshot {
    const { ints, at } = this
    const low = Atomics.load(ints, at)
    const hold = (low >> 3) & 3
    const current = ints[at + BUCKET] as number
    const bucketMs = ints[at + BUCKET_MS] as number
    const bucket = nowUs === undefined || bucketMs === 0 ? current : Math.floor(nowUs / 1000 / bucketMs) | 0
    const over = ((bucket - current) | 0) >= BUCKETS
    const oldest = this.oldest(bucket)
    const since = (total: number): number =>
      over ? 0 : (Atomics.load(ints, at + TOTALS + total) - (ints[oldest + total] as number)) | 0
    return {
      name: this.name,
      state: STATE_NAMES[low & 7] ?? 'closed',
      held: hold === HOLD.open ? 'open' : hold === HOLD.closed ? 'closed' : null,
      sinceUs: this.memory.floats[this.index * RECORD_64 + SINCE_64] as number,
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
}

/** As much of a name as a record has room for, in UTF-8. */
export function storedName(name: string): Buffer {
  return Buffer.from(name).subarray(0, NAME_BYTES - 1)
}
