// Where the state of limits lies, and how a key finds its own. Reads alone, but for empty(): who may write what, and when, is
// rate-table.ts. Runs per request.
//
//   section `rates`
//     owners   256 × 512   one a worker: its journal (claims.ts), at 256 its counts, Float64 each, at 320 who it is (owners.ts)
//     narrow   rows of 1024 bytes: a line that says what is where, and 15 slots of one line, for buckets and quotas
//     wide     as many rows of 4864 bytes: the same with 15 slots of five lines, for windows
//
//     row      0 lock   Int64        0, or the claim of who gives a slot to a key whose first row this is
//             32 tags   16 × Uint16  of the slots, 0 for one never used; the last stays 0
//     slot     0 word   Int64        the meter's (bucket.ts, window.ts, quota.ts); negative: claimed. Its upper half is a time in units of
//                                    2^32 ticks: once that has passed, the slot is as good as empty
//              8 key    4 × Int32    all 128 bits of the key's hash (key-hash.ts)
//             24 mark   Int32        of the limit, whatever the key: even; odd in a slot that keys share
//             28 free
//             32 …                   in wide ones: the window's ring
//
// A key has two rows, by its hash's first and second word, and is put into the emptier one: rows nine tenths full still have room for all
// but one key in a thousand, and a look-up reads two lines, at worst three. What a slot whose time has passed says is what a key without a
// slot is taken to have: so it is free, for its own key as for any other.
//
// Who may have which of a row's slots: share.ts.
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

/** A slot whose time is later than this was not written by us. */
export const HORIZON_TICKS = 21n * 365n * 86_400n * TICKS_PER_SECOND

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
  /** Charges on a slot that keys without one share. */
  shared: 7,
} as const
export type RateCounts = Record<keyof typeof COUNT, number>
const COUNTS = Object.keys(COUNT) as (keyof typeof COUNT)[]

/** So many keys fill nine tenths of the slots that are for keys, of either kind. */
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
  /** The owner's own. */
  readonly counts: Float64Array
  /** Set by freeIn next to its result: slots of the row that are not free, how many of them keys of this limit have, and how many are shared. */
  live = 0
  liveOfLimit = 0
  liveShared = 0
  /** Set by find: what the first word was before the key was seen in its slot. */
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

  /** Of a row: its first word, which is its lock. */
  lockOf(row: number): number {
    return this.first + row * this.rowWords
  }

  /** The slot, 0 to 14, of a row. */
  slotAt(row: number, slot: number): number {
    return this.first + row * this.rowWords + LINE + slot * this.slotWords
  }

  /** Of the slot at a position, in 16-bit words. */
  tagAt(at: number): number {
    const row = Math.floor((at - this.first) / this.rowWords)
    return this.lockOf(row) * 4 + TAGS_32 * 2 + (at - this.slotAt(row, 0)) / this.slotWords
  }

  /** The key's slot, with this.seen; -1 where it has none. */
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
    // First the word, then the key: see the protocol.
    const seen = Atomics.load(this.words, at)
    const bits = at * 2 + 2
    if (ints[bits] !== key.a || ints[bits + 1] !== key.b || ints[bits + 2] !== key.c || ints[bits + 3] !== key.d) {
      this.counts[COUNT.probes]!++
      return false
    }
    this.seen = seen
    return true
  }

  /** A slot whose time has passed, one never used rather than another; -1 where there is none. */
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

  /** Into a slot that nobody else uses: all but the key. */
  copyState(at: number, from: RateSlots, fromAt: number): void {
    for (let word = this.slotWords - 1; word > 3; word--)
      Atomics.store(this.words, at + word, Atomics.load(from.words, fromAt + word))
    Atomics.store(this.words, at, Atomics.load(from.words, fromAt))
  }

  /** Whatever the slot holds. Its new time is above all that it had, as the protocol wants it. */
  empty(at: number): void {
    this.forget(at)
    const now = ticksAt(this.segment.nowUs())
    const word = Atomics.load(this.words, at)
    Atomics.store(this.words, at, (word > now && word < now + HORIZON_TICKS ? word : now) + 1n)
  }

  /** The slot's key, in one that the caller has claimed. */
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

  /** Slots that say something, and all there are. Reads them all: for whoever asks, not per request. */
  occupancy(nowUs: number): { live: number; slots: number } {
    const now = ticksAt(nowUs)
    let live = 0
    for (let row = 0; row < this.rows; row++) {
      this.freeIn(row, now, 0)
      live += this.live
    }
    return { live, slots: this.rows * SLOTS_PER_ROW }
  }

  /** Counts that nobody can have counted begin anew. */
  soundCounts(): void {
    for (let owner = 0; owner < OWNERS; owner++) mendCounts(this.countsOf(owner))
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
