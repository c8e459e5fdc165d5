// The signatures that were accepted, each once over all workers and from start to start. Runs per request on routes
// with `replay: once`. Knows nothing of signatures (policy/replay.ts does): a key is 128 bits of a hash, and the table
// keeps it until the time it was put in with.
//
//   section `replays`   empty where no route asks for it
//     owners   256 × 512 bytes, one a worker: its journal (claims.ts), at 256 its counts, Float64 each
//     rows     1024 bytes each, 48 slots
//
//            ┌─ line 0 ──┐ ┌─────── lines 1 to 3 ───────┐ ┌─── lines 4 to 15 ────┐
//     row    │ lock Int64│ │ until 48 × Uint32, Unix s  │ │ key 48 × (4 × Int32) │
//            └───────────┘ └────────────────────────────┘ └──────────────────────┘
//              0 lock    Int64        0, or the claim of the worker that is looking through the row
//             64 until   48 × Uint32  Unix seconds from which on the slot's key is of no use; 0: never used
//            256 keys    48 × 4 × Int32: 96 bits that tell the key from others, 32 that say which consumer it belongs
//                        to
//
// A key has one row, and a worker that asks for the key holds the row's lock: if several bring the same key at once,
// one puts it in and the others find it. `until` is written last, so a worker that dies in between leaves the slot as
// free as it was, and release() only has to open the lock. Slots are taken from the first on and never go back to 0:
// behind a slot that was never used, none was.
//
// Rows are a third full with the keys that the table is made for. It has one row a key, not two as in the rate table:
// one lock is then enough. A key that finds no slot is refused, because nobody could tell later whether it was here
// before.
//
// No consumer can fill the table for the others: in each row one has at most twice as many slots as are free. Alone, it
// gets two thirds of them, more than the table is made for; beside one that takes all it can, another one still finds
// room.
//
// Time is the wall clock's, since clients sign by that. If it is set back, a key gets in twice only if it had run out
// and lost its slot.
import { Claims, JOURNAL_BYTES, OWNERS } from './claims.js'
import { damagedRows, mendCounts } from './damage.js'
import type { KeyHash } from './key-hash.js'
import { Owners } from './owners.js'
import type { KeptSection, Segment } from './segment.js'

const OWNER_BYTES = 512
const ROWS_OFFSET = OWNERS * OWNER_BYTES
const ROW_BYTES = 1024
export const SLOTS_PER_ROW = 48
const ROW_32 = ROW_BYTES / 4
const ROW_64 = ROW_BYTES / 8
const UNTIL_32 = 16
const KEYS_32 = 64

const LOCK = 1
const LOCK_ENTRY = 0

/** No gateway writes a later time: a signature is good for a day at most, and may be dated ahead by as much. */
const HORIZON_SECONDS = 50 * 3600

const LOCK_MS = 20

/** `until` of a slot that is free, but was used. */
const NEVER_MORE = 1

/**
 * A worker may lose its core between reading the time and taking the lock. The primary kills a worker that hangs for
 * longer than 2 s.
 */
const GRACE_SECONDS = 5

export const REPLAY = { fresh: 0, repeated: 1, full: 2, stuck: 3, share: 4 } as const
/**
 * By verdict, as in a worker's counts. `stuck`: the row's lock stayed; `share`: the consumer has its share of the row.
 */
export type ReplayCounts = Record<keyof typeof REPLAY, number>
const COUNTS = Object.keys(REPLAY) as (keyof typeof REPLAY)[]

/** None where no route has `replay: once`. */
export function replayTableBytes(keys: number): number {
  return keys === 0 ? 0 : ROWS_OFFSET + Math.ceil(keys / (SLOTS_PER_ROW / 3)) * ROW_BYTES
}

/** `d` says which consumer the key belongs to, `a` to `c` tell it from all others. */
type ReplayKey = Pick<KeyHash, 'a' | 'b' | 'c' | 'd'>

export class ReplayTable {
  readonly rows: number
  private readonly words: BigInt64Array
  private readonly ints: Int32Array
  private readonly counts: Float64Array
  private readonly claims: Claims

  /** @param owner the worker's owner index, which no two living workers share. Any will do for reading. */
  constructor(
    private readonly segment: Segment,
    owner: number,
  ) {
    if (!(owner >= 0 && owner < OWNERS)) throw new RangeError(`owner ${owner} is not in 0 to ${OWNERS - 1}`)
    const { offset, bytes } = segment.section(replaysSection.name)
    this.rows = Math.max(0, Math.floor((bytes - ROWS_OFFSET) / ROW_BYTES))
    this.words = new BigInt64Array(segment.buffer, this.rows === 0 ? 0 : offset + ROWS_OFFSET, this.rows * ROW_64)
    this.ints = new Int32Array(segment.buffer, this.rows === 0 ? 0 : offset + ROWS_OFFSET, this.rows * ROW_32)
    this.counts = this.countsOf(owner)
    this.claims = new Claims(this.words, this.journal(owner), owner)
  }

  /**
   * Whether the key is there. Takes no lock: while another worker puts it in, this may still say no; insert() knows.
   */
  has(key: ReplayKey): boolean {
    if (this.rows === 0) return false
    const row = this.rowOf(key.a)
    const untils = row * ROW_32 + UNTIL_32
    for (let slot = 0; slot < SLOTS_PER_ROW; slot++) {
      if (Atomics.load(this.ints, untils + slot) === 0) return false
      if (!this.holds(row, slot, key)) continue
      this.counts[REPLAY.repeated]!++
      return true
    }
    return false
  }

  /**
   * Puts the key in, to be kept until `untilSeconds`. `fresh` where it was not there; a key that was there stays as it
   * was.
   * @param nowSeconds the wall clock's, whole seconds
   */
  insert(key: ReplayKey, untilSeconds: number, nowSeconds: number): number {
    const verdict = this.rows === 0 ? REPLAY.full : this.decide(key, untilSeconds, nowSeconds)
    this.counts[verdict]!++
    return verdict
  }

  private decide(key: ReplayKey, untilSeconds: number, nowSeconds: number): number {
    const { claims, words } = this
    const row = this.rowOf(key.a)
    const lock = row * ROW_64
    while (!claims.take(LOCK_ENTRY, LOCK, lock, 0n)) {
      const holder = Atomics.load(words, lock)
      if (holder !== 0n && !claims.outwait(lock, holder)) return REPLAY.stuck
    }
    const verdict = this.putIn(row, key, untilSeconds, nowSeconds)
    claims.end(LOCK_ENTRY, lock, 0n)
    return verdict
  }

  /** Under the row's lock. */
  private putIn(row: number, key: ReplayKey, untilSeconds: number, nowSeconds: number): number {
    const ints = this.ints
    const untils = row * ROW_32 + UNTIL_32
    let free = -1
    let taken = 0
    let own = 0
    for (let slot = 0; slot < SLOTS_PER_ROW; slot++) {
      const until = (ints[untils + slot] as number) >>> 0
      if (until === 0) {
        if (free < 0) free = slot
        break
      }
      if (this.holds(row, slot, key)) return REPLAY.repeated
      if (until + GRACE_SECONDS < nowSeconds) {
        if (free < 0) free = slot
        continue
      }
      taken++
      if (ints[keyAt(row, slot) + 3] === key.d) own++
    }
    if (free < 0) return REPLAY.full
    if (own >= 2 * (SLOTS_PER_ROW - taken)) return REPLAY.share
    const at = keyAt(row, free)
    ints[at] = key.a
    ints[at + 1] = key.b
    ints[at + 2] = key.c
    ints[at + 3] = key.d
    Atomics.store(ints, untils + free, untilSeconds | 0)
    return REPLAY.fresh
  }

  private holds(row: number, slot: number, key: ReplayKey): boolean {
    const { ints } = this
    const at = keyAt(row, slot)
    return ints[at] === key.a && ints[at + 1] === key.b && ints[at + 2] === key.c && ints[at + 3] === key.d
  }

  /** Primary, when a worker is gone and before another gets its index: opens the lock that it held. */
  release(owner: number): void {
    new Claims(this.words, this.journal(owner), owner).left((_, word) => Atomics.store(this.words, word, 0n))
  }

  /**
   * Primary, at start: takes over the keys of an earlier run, from the same memory or from another. Returns what the
   * log says of it.
   * @param isAlive whether a worker of that run still lives: it opens its lock itself
   */
  adopt(before: ReplayTable, nowSeconds: number, isAlive: (owner: number) => boolean): string {
    before.openLocks(isAlive)
    for (let owner = 0; owner < OWNERS; owner++) mendCounts(before.countsOf(owner))
    let kept = 0
    let lost = 0
    let damaged = 0
    for (let row = 0; row < before.rows; row++) {
      let used = false
      for (let slot = SLOTS_PER_ROW - 1; slot >= 0; slot--) {
        const untilAt = row * ROW_32 + UNTIL_32 + slot
        const until = (before.ints[untilAt] as number) >>> 0
        const at = keyAt(row, slot)
        const [a, b, c, d] = before.ints.subarray(at, at + 4) as unknown as [number, number, number, number]
        // In front of a slot that was used, every one was.
        const impossible = until === 0 ? used : before.rowOf(a) !== row && until !== NEVER_MORE
        used ||= until !== 0
        if (impossible || until > nowSeconds + HORIZON_SECONDS) {
          before.ints[untilAt] = NEVER_MORE
          damaged++
        } else if (until + GRACE_SECONDS < nowSeconds) continue
        else if (before === this || this.decide({ a, b, c, d }, until, nowSeconds) === REPLAY.fresh) kept++
        else lost++
      }
    }
    return `${kept} signatures${damagedRows(damaged)}${lost > 0 ? ` (${lost} without room dropped)` : ''}`
  }

  /** Added up over all workers, since the table was made. */
  totals(): ReplayCounts {
    const totals = Object.fromEntries(COUNTS.map((name) => [name, 0])) as ReplayCounts
    if (this.rows === 0) return totals
    for (let owner = 0; owner < OWNERS; owner++) {
      const counts = this.countsOf(owner)
      for (const name of COUNTS) totals[name] += counts[REPLAY[name]] as number
    }
    return totals
  }

  /** Keys that are still kept, and all slots. Reads the whole table: not for a request. */
  occupancy(nowSeconds: number): { live: number; slots: number } {
    let live = 0
    for (let row = 0; row < this.rows; row++) {
      const untils = row * ROW_32 + UNTIL_32
      for (let slot = 0; slot < SLOTS_PER_ROW; slot++)
        if ((this.ints[untils + slot] as number) >>> 0 > nowSeconds) live++
    }
    return { live, slots: this.rows * SLOTS_PER_ROW }
  }

  private rowOf(word: number): number {
    return Math.floor(((word >>> 0) * this.rows) / 4294967296)
  }

  private openLocks(isAlive: (owner: number) => boolean): void {
    const open = (row: number, held: bigint): void => void Atomics.compareExchange(this.words, row * ROW_64, held, 0n)
    const waits: [row: number, held: bigint][] = []
    for (let row = 0; row < this.rows; row++) {
      const held = Atomics.load(this.words, row * ROW_64)
      if (held < 0n && isAlive(Number(-1n - held))) waits.push([row, held])
      else if (held !== 0n) open(row, held)
    }
    if (waits.length === 0) return
    // A living worker holds a lock for no longer than an instant: a lock that stays is damage.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LOCK_MS)
    for (const [row, held] of waits) open(row, held)
  }

  private journal(owner: number): { buffer: ArrayBuffer | SharedArrayBuffer; offset: number } {
    const { buffer } = this.segment
    // A table without rows has no owners either, and nobody takes a claim on it: this journal stays empty.
    if (this.rows === 0) return { buffer: new ArrayBuffer(OWNER_BYTES), offset: 0 }
    return { buffer, offset: this.segment.section(replaysSection.name).offset + owner * OWNER_BYTES }
  }

  private countsOf(owner: number): Float64Array {
    const { buffer, offset } = this.journal(owner)
    return new Float64Array(buffer, offset + JOURNAL_BYTES, COUNTS.length)
  }
}

function keyAt(row: number, slot: number): number {
  return row * ROW_32 + KEYS_32 + slot * 4
}

export const replaysSection: KeptSection<{ readonly replayKeys?: number }> = {
  name: 'replays',
  kept: true,
  bytes: ({ replayKeys = 0 }) => replayTableBytes(replayKeys),
  adopt(before, after, wallSeconds) {
    const table = new ReplayTable(after, 0)
    if (table.rows === 0) return ''
    const owners = new Owners(before)
    const from = before === after ? table : new ReplayTable(before, 0)
    return table.adopt(from, wallSeconds, (owner) => owners.isAlive(owner))
  },
  release: (segment, owner) => new ReplayTable(segment, 0).release(owner),
}
