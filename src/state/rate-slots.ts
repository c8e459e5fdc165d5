// Where the rate table keeps what limits have counted, and how a key finds its slot. Runs per request. Reads alone, but
// for empty() and what its callers tell it to write: who may write what, and when, is in rate-table.ts.
//
//   section `rates`
//     owners   256 × 512 bytes, one a worker: its journal (claims.ts), at 256 its counts, Float64 each, at 320 its
//              identity (owners.ts)
//     narrow   rows of 1024 bytes with 15 slots of one 64-byte line each, for buckets and quotas
//     wide     as many rows of 4864 bytes with 15 slots of five lines each, for windows
//
//            ┌──────────── line 0 ────────────┐ ┌───────────────── slots 0 to 14 ─────────────────┐
//     row    │ lock Int64 · tags 16 × Uint16  │ │ word Int64 · key 4 × Int32 · mark Int32 · 4 free │ narrow
//            └────────────────────────────────┘ │ … and the window's ring, 36 × Float64            │ wide
//                                               └──────────────────────────────────────────────────┘
//     row      0 lock   Int64        0, or the claim of the worker that is giving a slot to a key whose first row this
//                                    is
//             32 tags   16 × Uint16  16 bits of the key in each slot, 0 for a slot never used; the last stays 0
//     slot     0 word   Int64        the meter's state (bucket.ts, window.ts, quota.ts); negative: claimed. Its upper
//                                    half is a time in units of 2^32 ticks: once it has passed, the slot is as good as
//                                    empty
//              8 key    4 × Int32    all 128 bits of the key's hash (key-hash.ts)
//             24 mark   Int32        the limit, whatever the key: even; odd in a slot that keys share (share.ts)
//             32 …                   in wide rows: the window's ring (window.ts)
//
// A key has two rows, by the first and the second word of its hash, and is put into the emptier one. Rows that are nine
// tenths full still have room for all but one key in a thousand, and a look-up reads two cache lines, at worst three. A
// slot whose time has passed says the same as no slot at all: so it is free, for its own key as for any other.
import { JOURNAL_BYTES, OWNERS } from './claims.js'
import { mendCounts } from './damage.js'
import type { Segment } from './segment.js'
import { FOR_KEYS, type Share, SLOTS_PER_ROW, type SlotKey } from './share.js'
import { TICKS_PER_SECOND, ticksAt } from './ticks.js'

export const OWNER_BYTES = 512
const ROWS_OFFSET = OWNERS * OWNER_BYTES

// In 64-bit words.
const LINE = 8
const NARROW = LINE
const WIDE = 5 * LINE
const rowWords = (slot: number): number => LINE + SLOTS_PER_ROW * slot
const ROW_BYTES = (rowWords(NARROW) + rowWords(WIDE)) * 8
const TAGS_32 = 8

/** No gateway has written a slot whose time is later than this. */
export const HORIZON_TICKS = 21n * 365n * 86_400n * TICKS_PER_SECOND

/** Positions in a worker's counts. */
export const COUNT = {
  /** Charges decided. */
  decisions: 0,
  /** Slots looked at for them that turned out to be another key's. */
  probes: 1,
  /** Keys that got a slot. */
  inserts: 2,
  /** … of which another key had used it before. */
  evictions: 3,
  /** Keys that got none. */
  full: 4,
  /** Decisions that met a claim that stayed. */
  stuck: 5,
  /** Several charges that were decided anew, because one slot changed meanwhile. */
  retries: 6,
  /** Charges on a slot that several keys share. */
  shared: 7,
} as const
export type RateCounts = Record<keyof typeof COUNT, number>
const COUNTS = Object.keys(COUNT) as (keyof typeof COUNT)[]

/** In a table of this size so many keys fill nine tenths of the slots that are for keys, of either kind. */
export function rateTableBytes(keys: number): number {
  return ROWS_OFFSET + rowsFor(keys) * ROW_BYTES
}

function rowsFor(keys: number): number {
  return Math.max(2, Math.ceil(keys / (FOR_KEYS * 0.9)))
}

/** The slots of one kind. Positions are in 64-bit words from the first row of the section on. */
export class RateSlots {
  readonly rows: number
  readonly words: BigInt64Array
  readonly ints: Int32Array
  readonly floats: Float64Array
  readonly tags: Uint16Array
  /** This worker's own. */
  readonly counts: Float64Array
  /**
   * freeIn sets these beside its result: the slots of the row that are not free, those of this limit among them, and
   * those that are shared.
   */
  live = 0
  liveOfLimit = 0
  liveShared = 0
  /** find sets this: what the slot's word was before it compared the key. */
  seen = 0n
  private readonly first: number
  private readonly slotWords: number
  private readonly rowWords: number

  constructor(
    private readonly segment: Segment,
    owner: number,
    readonly wide: boolean,
  ) {
    if (!(owner >= 0 && owner < OWNERS)) throw new RangeError(`owner ${owner} is not in 0 to ${OWNERS - 1}`)
    const { offset, bytes } = segment.section('rates')
    this.rows = Math.floor((bytes - ROWS_OFFSET) / ROW_BYTES)
    const at = offset + ROWS_OFFSET
    this.words = new BigInt64Array(segment.buffer, at, (this.rows * ROW_BYTES) / 8)
    this.ints = new Int32Array(segment.buffer, at, (this.rows * ROW_BYTES) / 4)
    this.floats = new Float64Array(segment.buffer, at, (this.rows * ROW_BYTES) / 8)
    this.tags = new Uint16Array(segment.buffer, at, (this.rows * ROW_BYTES) / 2)
    this.slotWords = wide ? WIDE : NARROW
    this.rowWords = rowWords(this.slotWords)
    this.first = wide ? this.rows * rowWords(NARROW) : 0
    this.counts = this.countsOf(owner)
  }

  journal(owner: number): { buffer: ArrayBuffer | SharedArrayBuffer; offset: number } {
    return { buffer: this.segment.buffer, offset: this.segment.section('rates').offset + owner * OWNER_BYTES }
  }

  rowOf(word: number): number {
    return Math.floor(((word >>> 0) * this.rows) / 4294967296)
  }

  /** Where the row's lock is, which is its first word. */
  lockOf(row: number): number {
    return this.first + row * this.rowWords
  }

  /** Where a slot of the row is, 0 to 14. */
  slotAt(row: number, slot: number): number {
    return this.first + row * this.rowWords + LINE + slot * this.slotWords
  }

  /** Where the tag of the slot at this position is, in 16-bit words. */
  tagAt(at: number): number {
    const row = Math.floor((at - this.first) / this.rowWords)
    return this.lockOf(row) * 4 + TAGS_32 * 2 + (at - this.slotAt(row, 0)) / this.slotWords
  }

  /** Where the key's slot is, and this.seen; -1 where it has none. */
  find(key: SlotKey): number {
    const at = this.findIn(this.rowOf(key.a), key)
    return at >= 0 ? at : this.findIn(this.rowOf(key.b), key)
  }

  private findIn(row: number, key: SlotKey): number {
    const { ints } = this
    const start = this.first + row * this.rowWords
    const tags = start * 2 + TAGS_32
    const pattern = Math.imul(tagOf(key.c), 0x10001)
    for (let pair = 0; pair < 8; pair++) {
      const differs = (ints[tags + pair] as number) ^ pattern
      // No half is zero: neither tag fits.
      if (((differs - 0x00010001) & ~differs & 0x80008000) === 0) continue
      const at = start + LINE + pair * 2 * this.slotWords
      if ((differs & 0xffff) === 0 && this.holds(at, key)) return at
      if (differs >>> 16 === 0 && this.holds(at + this.slotWords, key)) return at + this.slotWords
    }
    return -1
  }

  private holds(at: number, key: SlotKey): boolean {
    const { ints } = this
    // First the word, then the key: rate-table.ts says why.
    const seen = Atomics.load(this.words, at)
    const bits = at * 2 + 2
    if (ints[bits] !== key.a || ints[bits + 1] !== key.b || ints[bits + 2] !== key.c || ints[bits + 3] !== key.d) {
      this.counts[COUNT.probes]!++
      return false
    }
    this.seen = seen
    return true
  }

  /** A slot whose time has passed, if possible one that was never used; -1 where the row has none. */
  freeIn(row: number, limit: bigint, mark: number): number {
    const { ints } = this
    // The upper halves decide but for slots that fall due within the same 0.85 s.
    const limitHigh = Number(limit >> 32n)
    const firstSlot = this.slotAt(row, 0)
    const firstTag = this.tagAt(firstSlot)
    let found = -1
    let isNew = false
    let live = 0
    let liveOfLimit = 0
    let liveShared = 0
    for (let slot = 0; slot < SLOTS_PER_ROW; slot++) {
      const at = firstSlot + slot * this.slotWords
      const high = ints[at * 2 + 1] as number
      if (high < 0 || high > limitHigh || (high === limitHigh && Atomics.load(this.words, at) > limit)) {
        live++
        const itsMark = ints[at * 2 + 6] as number
        if (itsMark === mark) liveOfLimit++
        liveShared += itsMark & 1
      } else if (!isNew) {
        isNew = this.tags[firstTag + slot] === 0
        if (isNew || found < 0) found = at
      }
    }
    this.live = live
    this.liveOfLimit = liveOfLimit
    this.liveShared = liveShared
    return found
  }

  /** May the limit have one more slot of the row that freeIn has just looked through? */
  hasRoom(share: Share, common: boolean): boolean {
    if (common) return this.live < SLOTS_PER_ROW
    const liveOfKeys = this.live - Math.min(this.liveShared, SLOTS_PER_ROW - FOR_KEYS)
    return liveOfKeys < (this.liveOfLimit < share.own ? FOR_KEYS : FOR_KEYS - share.others)
  }

  writeKey(at: number, key: SlotKey, mark: number): void {
    const { ints } = this
    const bits = at * 2 + 2
    ints[bits] = key.a
    ints[bits + 1] = key.b
    ints[bits + 2] = key.c
    ints[bits + 3] = key.d
    ints[bits + 4] = mark
  }

  keyAt(at: number): SlotKey {
    const [a, b, c, d] = this.ints.subarray(at * 2 + 2, at * 2 + 6) as unknown as [number, number, number, number]
    return { a, b, c, d }
  }

  markAt(at: number): number {
    return this.ints[at * 2 + 6] as number
  }

  /** Copies all but the key, into a slot that no other process uses yet. */
  copyState(at: number, from: RateSlots, fromAt: number): void {
    for (let word = this.slotWords - 1; word > 3; word--)
      Atomics.store(this.words, at + word, Atomics.load(from.words, fromAt + word))
    Atomics.store(this.words, at, Atomics.load(from.words, fromAt))
  }

  /**
   * Empties the slot, whatever it holds. Its new time is above every one it had: no word may come twice in a slot
   * (rate-table.ts).
   */
  empty(at: number): void {
    this.forget(at)
    const now = ticksAt(this.segment.nowUs())
    const word = Atomics.load(this.words, at)
    Atomics.store(this.words, at, (word > now && word < now + HORIZON_TICKS ? word : now) + 1n)
  }

  /** Drops the key of a slot that the caller has claimed. */
  forget(at: number): void {
    Atomics.store(this.tags, this.tagAt(at), 0)
    this.ints.fill(0, at * 2 + 2, at * 2 + 7)
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

  /** Slots whose time has not passed, and all slots. Reads the whole table: not for a request. */
  occupancy(nowUs: number): { live: number; slots: number } {
    const now = ticksAt(nowUs)
    let live = 0
    for (let row = 0; row < this.rows; row++) {
      this.freeIn(row, now, 0)
      live += this.live
    }
    return { live, slots: this.rows * SLOTS_PER_ROW }
  }

  /** At start: damaged counts begin anew. */
  soundCounts(): void {
    for (let owner = 0; owner < OWNERS; owner++) mendCounts(this.countsOf(owner))
  }

  private countsOf(owner: number): Float64Array {
    const { buffer, offset } = this.journal(owner)
    return new Float64Array(buffer, offset + JOURNAL_BYTES, COUNTS.length)
  }
}

/** Never 0. Made of a word of the hash that does not choose a row. */
export function tagOf(word: number): number {
  return word & 0xffff || 1
}
