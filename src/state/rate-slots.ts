// Where the buckets lie, and how a key finds its own. Reads alone, but for empty(): who may write what, and when, is rate-table.ts.
// Runs per request.
//
//   section `rates`
//     owners   256 × 512   one a worker: its journal (claims.ts), at 256 its counts, Float64 each, at 320 who it is (owners.ts)
//     rows     1024 bytes each: a line that says what is where, and 15 slots of a line each
//
//     row      0 lock   Int64        0, or the claim of who gives a slot to a key whose first row this is
//             32 tags   16 × Uint16  of the slots, 0 for one never used; the last stays 0
//     slot     0 tat    Int64        GCRA's theoretical arrival time in ticks (rate.ts); negative: claimed
//              8 key    4 × Int32    all 128 bits of the key's hash (key-hash.ts)
//             24 free
//
// A key has two rows, by its hash's first and second word, and is put into the emptier one: a table nine tenths full still has room for
// all but one key in a thousand, and a look-up reads two lines, at worst three. A slot whose time has passed is a full bucket, which is
// what a key without a slot has too: so it is free, for its own key as for any other.
import type { Charge } from './charge.js'
import { JOURNAL_BYTES, OWNERS } from './claims.js'
import { ticksAt } from './rate.js'
import type { Segment } from './segment.js'

export const OWNER_BYTES = 512
const ROWS_OFFSET = OWNERS * OWNER_BYTES
const ROW_BYTES = 1024
export const SLOTS_PER_ROW = 15

// In 64-bit and 32-bit words. Line 0 of a row is its head, so slot n is line n + 1; lines are counted through the table.
const ROW_32 = ROW_BYTES / 4
export const ROW_64 = ROW_BYTES / 8
export const LINE_64 = 8
const TAGS_32 = 8

/** A bucket due later than this was not written by us. */
export const HORIZON_TICKS = 21n * 365n * 86_400n * (ticksAt(1_000_000) - ticksAt(0))

/** Positions in an owner's counts. */
export const COUNT = {
  /** Charges decided. */
  decisions: 0,
  /** Slots looked at for them that another key had. */
  probes: 1,
  /** Keys that got a slot. */
  inserts: 2,
  /** … of which another key had it before. */
  evictions: 3,
  /** Keys that got none. */
  full: 4,
  /** Decisions that met a claim whose holder did not end it. */
  stuck: 5,
  /** Of several charges at once, because one changed meanwhile. */
  retries: 6,
} as const
export type RateCounts = Record<keyof typeof COUNT, number>
const COUNTS = Object.keys(COUNT) as (keyof typeof COUNT)[]

/** Nine tenths of the slots are for the keys it is made for. */
export function rateTableBytes(keys: number): number {
  return ROWS_OFFSET + Math.max(2, Math.ceil(keys / (SLOTS_PER_ROW * 0.9))) * ROW_BYTES
}

export class RateSlots {
  readonly rows: number
  readonly words: BigInt64Array
  readonly ints: Int32Array
  readonly tags: Uint16Array
  /** The owner's own. */
  readonly counts: Float64Array
  /** Set by freeIn next to its result. */
  live = 0

  constructor(
    private readonly segment: Segment,
    owner: number,
  ) {
    if (!(owner >= 0 && owner < OWNERS)) throw new RangeError(`owner ${owner} is not in 0 to ${OWNERS - 1}`)
    const { offset, bytes } = segment.section('rates')
    this.rows = Math.floor((bytes - ROWS_OFFSET) / ROW_BYTES)
    this.words = new BigInt64Array(segment.buffer, offset + ROWS_OFFSET, this.rows * ROW_64)
    this.ints = new Int32Array(segment.buffer, offset + ROWS_OFFSET, this.rows * ROW_32)
    this.tags = new Uint16Array(segment.buffer, offset + ROWS_OFFSET, this.rows * ROW_32 * 2)
    this.counts = this.countsOf(owner)
  }

  journal(owner: number): { buffer: ArrayBuffer | SharedArrayBuffer; offset: number } {
    return { buffer: this.segment.buffer, offset: this.segment.section('rates').offset + owner * OWNER_BYTES }
  }

  rowOf(word: number): number {
    return Math.floor(((word >>> 0) * this.rows) / 4294967296)
  }

  /** The key's line, with what its tat was before the key was seen there in charge.seen; -1 where it has none. */
  find(charge: Charge): number {
    const line = this.findIn(this.rowOf(charge.a), charge)
    return line >= 0 ? line : this.findIn(this.rowOf(charge.b), charge)
  }

  private findIn(row: number, charge: Charge): number {
    const ints = this.ints
    const tags = row * ROW_32 + TAGS_32
    const pattern = Math.imul(tagOf(charge.c), 0x10001)
    for (let pair = 0; pair < 8; pair++) {
      const differs = (ints[tags + pair] as number) ^ pattern
      // No half is zero: neither tag fits.
      if (((differs - 0x00010001) & ~differs & 0x80008000) === 0) continue
      const line = row * 16 + 1 + pair * 2
      if ((differs & 0xffff) === 0 && this.holds(line, charge)) return line
      if (differs >>> 16 === 0 && this.holds(line + 1, charge)) return line + 1
    }
    return -1
  }

  private holds(line: number, charge: Charge): boolean {
    const ints = this.ints
    // First the time, then the key: see the protocol.
    const seen = Atomics.load(this.words, line * LINE_64)
    const key = line * 16 + 2
    if (
      ints[key] !== charge.a ||
      ints[key + 1] !== charge.b ||
      ints[key + 2] !== charge.c ||
      ints[key + 3] !== charge.d
    ) {
      this.counts[COUNT.probes]!++
      return false
    }
    charge.seen = seen
    return true
  }

  /** A line whose time has passed, one never used rather than another; this.live is then how many slots of the row are not free. */
  freeIn(row: number, limit: bigint): number {
    const ints = this.ints
    // The upper halves decide but for slots that fall due within the same 0.85 s.
    const limitHigh = Number(limit >> 32n)
    let found = -1
    let live = 0
    for (let line = row * 16 + 1; line < row * 16 + 16; line++) {
      const high = ints[line * 16 + 1] as number
      if (high < 0 || high > limitHigh || (high === limitHigh && Atomics.load(this.words, line * LINE_64) > limit))
        live++
      else if (found < 0 || (this.tags[tagIndex(line)] === 0 && this.tags[tagIndex(found)] !== 0)) found = line
    }
    this.live = live
    return found
  }

  /** Whatever the slot holds. Its new time is above all that it had, as the protocol wants it. */
  empty(line: number): void {
    Atomics.store(this.tags, tagIndex(line), 0)
    this.ints.fill(0, line * 16 + 2, line * 16 + 6)
    const now = ticksAt(this.segment.nowUs())
    const tat = Atomics.load(this.words, line * LINE_64)
    Atomics.store(this.words, line * LINE_64, (tat > now && tat < now + HORIZON_TICKS ? tat : now) + 1n)
  }

  /** Added up over all owners, since the table was made. */
  totals(): RateCounts {
    const totals = Object.fromEntries(COUNTS.map((name) => [name, 0])) as RateCounts
    for (let owner = 0; owner < OWNERS; owner++) {
      const counts = this.countsOf(owner)
      for (const name of COUNTS) totals[name] += counts[COUNT[name]] as number
    }
    return totals
  }

  private countsOf(owner: number): Float64Array {
    const { buffer, offset } = this.journal(owner)
    return new Float64Array(buffer, offset + JOURNAL_BYTES, COUNTS.length)
  }
}

/** Never 0. From a word of the hash that does not choose a row. */
export function tagOf(word: number): number {
  return word & 0xffff || 1
}

/** Of a line's tag, in 16-bit words: they lie 32 bytes into the row, and line 1 has the first. */
export function tagIndex(line: number): number {
  return (line >> 4) * (ROW_BYTES / 2) + 16 + (line & 15) - 1
}
