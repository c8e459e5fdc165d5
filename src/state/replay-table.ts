// Signatures that have been accepted, each once over all workers and from start to start. Runs per request on routes with `replay: once`;
// knows nothing of signatures (policy/replay.ts does): a key is 128 bits of a hash, and is kept until the time it is put in with.
//
//   section `replays`   empty where no route asks for it
//     owners   256 × 512   one a worker: its journal (claims.ts), then at 256 its counts, Float64 each
//     rows     1024 bytes each, 48 slots
//
//     row      0 lock    Int64        0, or the claim of who looks through the row
//              8 free
//             64 until   48 × Uint32  Unix seconds from which the slot's key is of no use to anybody; 0: never used
//            256 keys    48 × 4 × Int32: 96 bits that tell the key from others, 32 that say whose it is
//
// A key has one row, and whoever asks for it holds that row's lock: of any number who bring the same key at once, one puts it in and the
// others find it. `until` is written last, so a worker that dies in between leaves a slot as free as it was, and release() has nothing to
// do but open the lock. Slots are taken from the first on and never go back to 0: behind one that was never used there is none that was.
//
// One row, not two as in the rate table: then one lock is enough. Rows are a third full with the keys they are made for. A key without a
// slot is not let in: whether it was here before, nobody could tell later.
//
// Nobody fills the table for the others: of each row an owner of keys has at most twice as many slots as are free. Alone it gets two thirds
// of them, more than the keys that the table is made for; beside one that takes all it can, another one still finds room.
//
// Time is the wall clock's, as that is what callers sign. Set back, it lets nothing in twice but what had run out and lost its slot.
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

/** A slot due later than this was not written by us: a signature is good for a day at most, and may be dated ahead by as much. */
const HORIZON_SECONDS = 50 * 3600

const LOCK_MS = 20

/** Of a slot whose key is of no use: used, and free. */
const NEVER_MORE = 1

/** A worker reads the time, may not run for a while, and only then takes the lock; one that hangs for longer than 2 s is killed. */
const GRACE_SECONDS = 5

export const REPLAY = { fresh: 0, repeated: 1, full: 2, stuck: 3, share: 4 } as const
/** Positions in a worker's counts are those of REPLAY. `stuck` met a lock whose holder did not open it; `share` has its share of the row. */
export type ReplayCounts = Record<keyof typeof REPLAY, number>
const COUNTS = Object.keys(REPLAY) as (keyof typeof REPLAY)[]

/** None where no route has `replay: once`. */
export function replayTableBytes(keys: number): number {
  return keys === 0 ? 0 : ROWS_OFFSET + Math.ceil(keys / (SLOTS_PER_ROW / 3)) * ROW_BYTES
}

/** `d` says whose key it is, `a` to `c` tell it from all others. */
type ReplayKey = Pick<KeyHash, 'a' | 'b' | 'c' | 'd'>

export class ReplayTable {
  readonly rows: number
  private readonly words: BigInt64Array
  private readonly ints: Int32Array
  private readonly counts: Float64Array
  private readonly claims: Claims

  /** @param owner the worker's index: no two that live at once may have the same. One that only reads may have any. */
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

  /** Whether the key is there. Takes no lock: while others put in the same one, the answer may be no; insert() knows. */
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
   * Puts the key in, to be kept until `untilSeconds`: fresh, where it was not there. What was there is not changed.
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

  /** Primary, when a worker is gone and before another gets its index: opens the lock it died with. */
  release(owner: number): void {
    new Claims(this.words, this.journal(owner), owner).left((_, word) => Atomics.store(this.words, word, 0n))
  }

  /**
   * At start: takes over the keys of an earlier run, from the same memory or from another. For the log.
   * @param isAlive workers that outlived their primary, or one we take over from: their locks are theirs to open
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
        // Before one that was used there is none that never was.
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

  /** Keys that are still kept, and slots there are. Reads the whole table: for whoever asks, not per request. */
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
    // Whoever lives holds a lock for no longer than an instant; what stays is damage.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LOCK_MS)
    for (const [row, held] of waits) open(row, held)
  }

  private journal(owner: number): { buffer: ArrayBuffer | SharedArrayBuffer; offset: number } {
    const { buffer } = this.segment
    // A table without rows has no owners either; what nobody takes a claim on needs no journal in the segment.
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
