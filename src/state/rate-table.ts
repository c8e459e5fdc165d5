// The buckets of all limits, by key: exact over all workers and kept from start to start. Runs per request; knows nothing of routes
// or HTTP (policy/rate-limit.ts does). A decision on one bucket takes no lock: it is one compareExchange.
//
//   section `rates`
//     head     4096 bytes      0 rows  Int32
//     owners   256 × 512       one a worker: its journal (claims.ts), then at 256 its COUNTS, Float64 each
//     rows     1024 bytes each: a line that says what is where, and 15 slots of a line each
//
//     row        0 lock   Int64      0, or the claim of who inserts a key whose first row this is
//               32 tags   16 × Uint16  of the slots, 0 for one never used; the last stays 0
//     slot       0 tat    Int64      GCRA's theoretical arrival time in ticks (rate.ts); negative: claimed
//                8 key    4 × Int32  all 128 bits of the key's hash (key-hash.ts)
//               24 free
//
// A key has two rows, by its hash's first and second word, and lies in the emptier one: a table nine tenths full still has room
// for nearly every key, and a look-up reads two lines, at worst three or four. A slot whose time has passed is a full bucket, which
// is what a key without a slot has: so it is free, for its own key as for any other.
//
// The protocol. Once published, a slot's tat only ever grows; nobody writes the same value twice. So a reader who loads tat, then finds its
// key in the slot, then replaces that tat by compareExchange knows that the key was there all along.
//   decide   tat and key as above. Refused: tat is read again, for the same reason. Nothing is written.
//   insert   claims the first row's lock, which whoever inserts the same key needs as well; looks again; claims a free slot's tat,
//            writes key and tag, publishes tat with the first charge in it. Whoever charges the slot's former key has the claim to
//            fail on. A worker that dies in between is undone by release(): slot emptied, lock opened.
//   several  all policies are looked at first: where one refuses nothing was written. Then all tats but the last are claimed in
//            order of place, the last is replaced, the others are published. If any changed meanwhile, all go back to what they were and
//            the request is decided anew. So at no time does anybody see one charged and not the others, and a refusal charges none.
import { Claims, ENTRIES, JOURNAL_BYTES, OWNERS } from './claims.js'
import type { KeyHash } from './key-hash.js'
import { type Rate, ticksAt } from './rate.js'
import type { Segment } from './segment.js'

const HEAD_BYTES = 4096
const OWNER_BYTES = 512
const ROWS_OFFSET = HEAD_BYTES + OWNERS * OWNER_BYTES
const ROW_BYTES = 1024
const SLOTS_PER_ROW = 15

// A row in 64-bit, 32-bit and 16-bit words. Line 0 is its head, so slot n is line n + 1.
const ROW_64 = ROW_BYTES / 8
const ROW_32 = ROW_BYTES / 4
const LINE_64 = 8
const TAGS_32 = 8

/** Beyond this many live slots the first row is compared with the second. */
const CROWDED = 9
/** What an evicted bucket has been full for: a request's time is read once per loop turn and may be that old when it is decided. */
const GRACE_TICKS = ticksAt(100_000) - ticksAt(0)
/** A bucket due later than this was not written by us. */
const HORIZON_TICKS = 21n * 365n * 86_400n * (ticksAt(1_000_000) - ticksAt(0))

// Kinds of claims, for release().
const LOCK = 1
const TAKEOVER = 2
const HOLD = 3
// Journal entries; what is below is for holds.
const LOCK_ENTRY = ENTRIES - 1
const TAKEOVER_ENTRY = ENTRIES - 2
/** Policies that one request can have. */
export const MAX_CHARGES = TAKEOVER_ENTRY + 1

const COUNTS = ['decisions', 'probes', 'inserts', 'evictions', 'full', 'stuck', 'retries'] as const
const DECISIONS = 0
const PROBES = 1
const INSERTS = 2
const EVICTIONS = 3
const NO_ROOM = 4
const STUCK = 5
const RETRIES = 6
/**
 * decisions: charges decided. probes: slots looked at in vain for them. inserts: keys that got a slot, evictions: of another key. full: keys that got none.
 * stuck: decisions that met a claim whose holder did not end it. retries: of several charges, because one changed meanwhile.
 */
export type RateCounts = Record<(typeof COUNTS)[number], number>

export const VERDICT = {
  admitted: 0,
  refused: 1,
  /** Neither: no slot is free in the key's rows, or a stopped worker holds it. The policy decides. */
  undecided: 2,
} as const

/** One bucket that a request wants to take from. Made once per worker and filled in for each request. */
export class Charge {
  rate: Rate | null = null
  costTicks = 0n
  /** mode: report. Takes part as long as it admits, and never refuses. */
  reports = false
  /** What an undecided one means. */
  admitsUndecided = false
  a = 0
  b = 0
  c = 0
  d = 0

  // What came of it.
  verdict: number = VERDICT.admitted
  /** The bucket's time after the decision, or as it is when refused; a full bucket's is at most now. */
  tat = 0n
  // While deciding: where the bucket lies and what it held.
  line = -1
  seen = 0n

  set(rate: Rate, costTicks: bigint, hash: KeyHash): void {
    this.rate = rate
    this.costTicks = costTicks
    this.a = hash.a
    this.b = hash.b
    this.c = hash.c
    this.d = hash.d
    this.verdict = VERDICT.admitted
  }

  decided(verdict: number, tat: bigint): number {
    this.verdict = verdict
    this.tat = tat
    return verdict
  }
}

export function rateTableBytes(keys: number): number {
  return ROWS_OFFSET + rowsFor(keys) * ROW_BYTES
}

/** Nine tenths of the slots: above that a few keys in a thousand find both their rows full. */
function rowsFor(keys: number): number {
  return Math.max(2, Math.ceil(keys / (SLOTS_PER_ROW * 0.9)))
}

const INSERTED = 0
const FOUND = 1
const NONE_FREE = 2
const HELD = 3
/** Of the three steps for several charges: go on, or start over. Below every position, and not the -1 of admitted. */
const AGAIN = -2

export class RateTable {
  readonly rows: number
  private readonly words: BigInt64Array
  private readonly ints: Int32Array
  private readonly shorts: Uint16Array
  private readonly counts: Float64Array
  private readonly claims: Claims
  private readonly order = new Int32Array(MAX_CHARGES)
  private nowTicks = 0n
  /** Set by freeIn next to its result. */
  private live = 0

  /** @param owner the worker's index: no two that live at once may have the same */
  constructor(
    private readonly segment: Segment,
    readonly owner: number,
  ) {
    if (!(owner >= 0 && owner < OWNERS)) throw new RangeError(`owner ${owner} is not in 0 to ${OWNERS - 1}`)
    const { offset, bytes } = segment.section('rates')
    this.rows = Math.floor((bytes - ROWS_OFFSET) / ROW_BYTES)
    this.words = new BigInt64Array(segment.buffer, offset + ROWS_OFFSET, this.rows * ROW_64)
    this.ints = new Int32Array(segment.buffer, offset + ROWS_OFFSET, this.rows * ROW_32)
    this.shorts = new Uint16Array(segment.buffer, offset + ROWS_OFFSET, this.rows * ROW_32 * 2)
    const own = offset + HEAD_BYTES + owner * OWNER_BYTES
    this.counts = new Float64Array(segment.buffer, own + JOURNAL_BYTES, COUNTS.length)
    this.claims = new Claims(this.words, { buffer: segment.buffer, offset: own }, owner)
  }

  /** One bucket. The verdict is in the charge as well. */
  admit(charge: Charge, nowUs: number): number {
    this.nowTicks = ticksAt(nowUs)
    this.counts[DECISIONS]!++
    const now = this.nowTicks
    const { costTicks } = charge
    const { burstTicks } = charge.rate as Rate
    for (;;) {
      const line = this.find(charge)
      if (line < 0) {
        if (costTicks > burstTicks) return charge.decided(VERDICT.refused, now)
        if (costTicks === 0n) return charge.decided(VERDICT.admitted, now)
        const tat = BigInt.asIntN(64, now + costTicks)
        const outcome = this.insert(charge, tat)
        if (outcome === FOUND) continue
        return outcome === INSERTED ? charge.decided(VERDICT.admitted, tat) : charge.decided(VERDICT.undecided, now)
      }
      const seen = charge.seen
      if (seen < 0n) {
        if (this.claims.outwait(line * LINE_64, seen)) continue
        this.counts[STUCK]!++
        return charge.decided(VERDICT.undecided, now)
      }
      const next = BigInt.asIntN(64, later(seen, now) + costTicks)
      if (BigInt.asIntN(64, next - now) > burstTicks) {
        if (Atomics.load(this.words, line * LINE_64) !== seen) continue
        return charge.decided(VERDICT.refused, seen)
      }
      if (costTicks !== 0n && Atomics.compareExchange(this.words, line * LINE_64, seen, next) !== seen) continue
      return charge.decided(VERDICT.admitted, next)
    }
  }

  /**
   * The first `count` charges, all or none of them; their buckets must differ. Returns the position of the one that refused, or -1: of
   * several that refuse it is the one that will for longest. A charge that only reports has its verdict and changes nothing.
   */
  admitAll(charges: readonly Charge[], count: number, nowUs: number): number {
    this.nowTicks = ticksAt(nowUs)
    this.counts[DECISIONS]! += count
    for (;;) {
      const refusing = this.look(charges, count)
      if (refusing !== AGAIN) return refusing
      const unplaced = this.place(charges, count)
      if (unplaced >= 0) return unplaced
      if (unplaced !== AGAIN && this.take(charges, count)) return -1
      this.counts[RETRIES]!++
    }
  }

  /** Decides each charge without writing. AGAIN: nothing speaks against taking them. */
  private look(charges: readonly Charge[], count: number): number {
    const now = this.nowTicks
    let refusing = AGAIN
    let longest = 0n
    for (let i = 0; i < count; i++) {
      const charge = charges[i] as Charge
      if (charge.verdict === VERDICT.undecided) continue
      const line = this.find(charge)
      let seen = now
      if (line >= 0) {
        seen = charge.seen
        if (seen < 0n) {
          if (this.claims.outwait(line * LINE_64, seen)) i--
          else {
            this.counts[STUCK]!++
            if (this.leaveUndecided(charge)) return i
          }
          continue
        }
      }
      charge.line = line
      charge.seen = seen
      const { burstTicks } = charge.rate as Rate
      const next = BigInt.asIntN(64, later(seen, now) + charge.costTicks)
      const excess = BigInt.asIntN(64, next - now - burstTicks)
      if (excess > 0n) {
        if (line >= 0 && Atomics.load(this.words, line * LINE_64) !== seen) {
          i--
          continue
        }
        charge.decided(VERDICT.refused, seen)
        if (!charge.reports && excess > longest) {
          longest = excess
          refusing = i
        }
      } else {
        charge.decided(VERDICT.admitted, next)
      }
    }
    return refusing
  }

  /** Gives each admitted charge a bucket, full still. Position of one that must be refused for want of room, AGAIN or -1. */
  private place(charges: readonly Charge[], count: number): number {
    for (let i = 0; i < count; i++) {
      const charge = charges[i] as Charge
      if (charge.verdict !== VERDICT.admitted || charge.line >= 0 || charge.costTicks === 0n) continue
      const outcome = this.insert(charge, this.nowTicks)
      if (outcome === FOUND) return AGAIN
      if (outcome !== INSERTED && this.leaveUndecided(charge)) return i
    }
    return -1
  }

  /** Charges all that were admitted, at once to anybody who looks. False: one changed meanwhile, and none was charged. */
  private take(charges: readonly Charge[], count: number): boolean {
    const { order, claims } = this
    let taking = 0
    for (let i = 0; i < count; i++) {
      const charge = charges[i] as Charge
      if (charge.verdict !== VERDICT.admitted || charge.costTicks === 0n) continue
      let at = taking++
      for (; at > 0 && (charges[order[at - 1] as number] as Charge).line > charge.line; at--)
        order[at] = order[at - 1] as number
      order[at] = i
    }
    if (taking === 0) return true
    let held = 0
    for (; held < taking - 1; held++) {
      const { line, seen } = charges[order[held] as number] as Charge
      if (!claims.take(held, HOLD, line * LINE_64, seen)) break
    }
    if (held === taking - 1) {
      const last = charges[order[held] as number] as Charge
      if (Atomics.compareExchange(this.words, last.line * LINE_64, last.seen, last.tat) === last.seen) {
        for (let i = 0; i < held; i++) claims.end(i, (charges[order[i] as number] as Charge).tat)
        return true
      }
    }
    while (held > 0) claims.undo(--held)
    return false
  }

  /** True where the request must be refused for it. */
  private leaveUndecided(charge: Charge): boolean {
    charge.decided(VERDICT.undecided, this.nowTicks)
    return !charge.admitsUndecided && !charge.reports
  }

  private rowOf(word: number): number {
    return Math.floor(((word >>> 0) * this.rows) / 4294967296)
  }

  /** The key's line, with what its tat was before the key was seen there in charge.seen; -1 where it has none. */
  private find(charge: Charge): number {
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
      this.counts[PROBES]!++
      return false
    }
    charge.seen = seen
    return true
  }

  /** Gives the key a slot that holds `tat`; charge.line and charge.seen say where and what. */
  private insert(charge: Charge, tat: bigint): number {
    const { claims, words, ints } = this
    const home = this.rowOf(charge.a)
    const other = this.rowOf(charge.b)
    const lock = home * ROW_64
    while (!claims.take(LOCK_ENTRY, LOCK, lock, 0n)) {
      const holder = Atomics.load(words, lock)
      if (holder === 0n || claims.outwait(lock, holder)) continue
      this.counts[STUCK]!++
      return HELD
    }
    let outcome = NONE_FREE
    const limit = this.nowTicks - GRACE_TICKS
    for (;;) {
      if (this.find(charge) >= 0) {
        outcome = FOUND
        break
      }
      let line = this.freeIn(home, limit)
      if (this.live > CROWDED && other !== home) {
        const live = this.live
        const elsewhere = this.freeIn(other, limit)
        if (elsewhere >= 0 && (line < 0 || this.live < live)) line = elsewhere
      }
      if (line < 0) break
      const word = line * LINE_64
      const former = Atomics.load(words, word)
      if (former < 0n || former > limit || !claims.take(TAKEOVER_ENTRY, TAKEOVER, word, former)) continue
      const key = line * 16 + 2
      ints[key] = charge.a
      ints[key + 1] = charge.b
      ints[key + 2] = charge.c
      ints[key + 3] = charge.d
      this.counts[INSERTS]!++
      if (Atomics.exchange(this.shorts, tagIndex(line), tagOf(charge.c)) !== 0) this.counts[EVICTIONS]!++
      claims.end(TAKEOVER_ENTRY, tat)
      charge.line = line
      charge.seen = tat
      outcome = INSERTED
      break
    }
    claims.end(LOCK_ENTRY, 0n)
    if (outcome === NONE_FREE) this.counts[NO_ROOM]!++
    return outcome
  }

  /** A line whose time has passed, one never used rather than another; this.live is then how many slots of the row are not free. */
  private freeIn(row: number, limit: bigint): number {
    const ints = this.ints
    // The upper halves decide but for slots that fall due within the same 0.85 s.
    const limitHigh = Number(limit >> 32n)
    let found = -1
    let live = 0
    for (let line = row * 16 + 1; line < row * 16 + 16; line++) {
      const high = ints[line * 16 + 1] as number
      if (high < 0 || high > limitHigh || (high === limitHigh && Atomics.load(this.words, line * LINE_64) > limit))
        live++
      else if (found < 0 || (this.shorts[tagIndex(line)] === 0 && this.shorts[tagIndex(found)] !== 0)) found = line
    }
    this.live = live
    return found
  }

  /** Primary, when a worker is gone and before another gets its index: ends the claims it died with. */
  release(owner: number): void {
    const { offset } = this.segment.section('rates')
    const journal = { buffer: this.segment.buffer, offset: offset + HEAD_BYTES + owner * OWNER_BYTES }
    new Claims(this.words, journal, owner).left((kind, word, saved) => {
      if (kind === TAKEOVER) this.empty(word / LINE_64)
      else Atomics.store(this.words, word, kind === HOLD ? saved : 0n)
    })
  }

  /** Whatever the slot holds. Its new time is above all that it had, as the protocol wants it. */
  private empty(line: number): void {
    Atomics.store(this.shorts, tagIndex(line), 0)
    this.ints.fill(0, line * 16 + 2, line * 16 + 6)
    const now = ticksAt(this.segment.nowUs())
    const tat = Atomics.load(this.words, line * LINE_64)
    Atomics.store(this.words, line * LINE_64, (tat > now && tat < now + HORIZON_TICKS ? tat : now) + 1n)
  }

  /**
   * Primary, before there are workers: takes over what an earlier run left, from the same memory or from another. Claims of the dead
   * are ended, slots that no run of this table can have written are emptied.
   */
  adopt(before: RateTable): { kept: number; damaged: number; lost: number } {
    const now = ticksAt(this.segment.nowUs())
    const result = { kept: 0, damaged: 0, lost: 0 }
    for (let owner = 0; owner < OWNERS; owner++) before.release(owner)
    const charge = new Charge()
    for (let row = 0; row < before.rows; row++) {
      Atomics.store(before.words, row * ROW_64, 0n)
      before.shorts[tagIndex(row * 16 + 16 - 1) + 1] = 0
      for (let line = row * 16 + 1; line < row * 16 + 16; line++) {
        const tat = Atomics.load(before.words, line * LINE_64)
        const tag = before.shorts[tagIndex(line)] as number
        if (tag === 0 && tat >= 0n && tat <= now + 1n) continue
        charge.a = before.ints[line * 16 + 2] as number
        charge.b = before.ints[line * 16 + 3] as number
        charge.c = before.ints[line * 16 + 4] as number
        charge.d = before.ints[line * 16 + 5] as number
        const fits = before.rowOf(charge.a) === row || before.rowOf(charge.b) === row
        if (!fits || tag !== tagOf(charge.c) || tat < 0n || tat > now + HORIZON_TICKS) {
          before.empty(line)
          result.damaged++
        } else if (tat > now) {
          if (before !== this) this.nowTicks = now
          if (before === this || this.insert(charge, tat) === INSERTED) result.kept++
          else result.lost++
        }
      }
    }
    return result
  }

  /** Added up over all workers, since the table was made. Primary. */
  totals(): RateCounts {
    const { offset } = this.segment.section('rates')
    const totals = Object.fromEntries(COUNTS.map((name) => [name, 0])) as RateCounts
    for (let owner = 0; owner < OWNERS; owner++) {
      const at = offset + HEAD_BYTES + owner * OWNER_BYTES + JOURNAL_BYTES
      const counts = new Float64Array(this.segment.buffer, at, COUNTS.length)
      COUNTS.forEach((name, index) => {
        totals[name] += counts[index] as number
      })
    }
    return totals
  }

  /** Buckets that are not full, and slots there are. Reads the whole table: for whoever asks, not for each scrape of a large one. */
  occupancy(): { live: number; slots: number } {
    const now = ticksAt(this.segment.nowUs())
    let live = 0
    for (let row = 0; row < this.rows; row++) {
      this.freeIn(row, now)
      live += this.live
    }
    return { live, slots: this.rows * SLOTS_PER_ROW }
  }
}

/** Math.max takes no bigints. */
function later(a: bigint, b: bigint): bigint {
  if (a > b) return a
  return b
}

function tagOf(word: number): number {
  return word & 0xffff || 1
}

/** Of a line's tag, in 16-bit words: the 16 tags lie 32 bytes into the row. */
function tagIndex(line: number): number {
  return (line >> 4) * (ROW_BYTES / 2) + 16 + (line & 15) - 1
}

/** At start: what became of an earlier run's buckets, for the log. */
export function adoptRates(before: Segment, after: Segment): string {
  const table = new RateTable(after, 0)
  const { kept, damaged, lost } = table.adopt(before === after ? table : new RateTable(before, 0))
  return `${kept} buckets${damaged > 0 ? ` (${damaged} damaged ones dropped)` : ''}${lost > 0 ? ` (${lost} without room dropped)` : ''}`
}
