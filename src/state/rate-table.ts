// The buckets of all limits, by key: exact over all workers and kept from start to start. Runs per request; knows nothing of routes
// or HTTP (policy/rate-limit.ts does). Where the buckets lie: rate-slots.ts. How one worker holds several at once: claims.ts.
//
// A bucket is one number, GCRA's tat: when it will be full again. A request is admitted if its cost, put on top of tat (of now, where tat has
// passed), ends no further than the burst from now; that end is the new tat. So a decision is one compareExchange and takes no lock, and a
// bucket whose tat has passed is as good as none: its slot is free for another key.
//
// The rule that makes this safe: in a slot tat only ever grows, also from key to key, and while a slot's key changes a claim (a negative
// number) stands in its place. So who loads tat, then finds its key in the slot, then replaces that very tat knows that the key was there
// all along. (A claim that ends with the tat it began with left the key alone.)
//   decide   tat and key as above. Refused: tat is read again, for the same reason. Nothing is written.
//   insert   claims the first row's lock, which whoever inserts the same key needs as well; looks again; claims a free slot's tat,
//            writes key and tag, publishes tat with the first charge in it. Whoever charges the slot's former key has the claim to
//            fail on. A worker that dies in between is undone by release(): slot emptied, lock opened.
//   several  all policies are looked at first: where one refuses nothing was written. Then all tats but the last are claimed in
//            order of place, the last is replaced, the others are published. If any changed meanwhile, all go back to what they were and
//            the request is decided anew. So at no time does anybody see one charged and not the others, and a refusal charges none. (A
//            worker that dies in this instant leaves the last one charged, for a request that died with it.)
// Nobody waits for a claim while it holds one, so no two wait for each other.
import { type Charge, VERDICT } from './charge.js'
import { Claims, ENTRIES } from './claims.js'
import { type Rate, ticksAt } from './rate.js'
import { COUNT, LINE_64, type RateCounts, RateSlots, ROW_64, SLOTS_PER_ROW, tagIndex, tagOf } from './rate-slots.js'
import type { Segment } from './segment.js'

/** Beyond this many live slots the first row is compared with the second. */
const CROWDED = 9
/** What an evicted bucket has been full for: a request's time is read once per loop turn and may be that old when it is decided. */
const GRACE_TICKS = ticksAt(100_000) - ticksAt(0)
// Kinds of claims, for release().
const LOCK = 1
const TAKEOVER = 2
const HOLD = 3
// Journal entries; what is below is for holds.
const LOCK_ENTRY = ENTRIES - 1
const TAKEOVER_ENTRY = ENTRIES - 2
/** Policies that one request can have. */
export const MAX_CHARGES = TAKEOVER_ENTRY + 1

const INSERTED = 0
const FOUND = 1
const NONE_FREE = 2
const HELD = 3
/** Of the three steps for several charges: go on, or start over. Below every position, and not the -1 of admitted. */
const AGAIN = -2

export class RateTable {
  readonly slots: RateSlots
  private readonly words: BigInt64Array
  private readonly counts: Float64Array
  private readonly claims: Claims
  private readonly order = new Int32Array(MAX_CHARGES)
  private nowTicks = 0n

  /** @param owner the worker's index: no two that live at once may have the same. One that only reads may have any. */
  constructor(
    private readonly segment: Segment,
    readonly owner: number,
  ) {
    this.slots = new RateSlots(segment, owner)
    this.words = this.slots.words
    this.counts = this.slots.counts
    this.claims = new Claims(this.words, this.slots.journal(owner), owner)
  }

  /** One bucket. The verdict is in the charge as well. */
  admit(charge: Charge, nowUs: number): number {
    this.nowTicks = ticksAt(nowUs)
    this.counts[COUNT.decisions]!++
    const now = this.nowTicks
    const { costTicks } = charge
    const { burstTicks } = charge.rate as Rate
    for (;;) {
      const line = this.slots.find(charge)
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
        this.counts[COUNT.stuck]!++
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
    this.counts[COUNT.decisions]! += count
    for (;;) {
      const refusing = this.look(charges, count)
      if (refusing !== AGAIN) return refusing
      const unplaced = this.place(charges, count)
      if (unplaced >= 0) return unplaced
      if (unplaced !== AGAIN && this.take(charges, count)) return -1
      this.counts[COUNT.retries]!++
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
      const line = this.slots.find(charge)
      let seen = now
      if (line >= 0) {
        seen = charge.seen
        if (seen < 0n) {
          if (this.claims.outwait(line * LINE_64, seen)) i--
          else {
            this.counts[COUNT.stuck]!++
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
        for (let i = 0; i < held; i++) {
          const { line, tat } = charges[order[i] as number] as Charge
          claims.end(i, line * LINE_64, tat)
        }
        return true
      }
    }
    while (held-- > 0) {
      const { line, seen } = charges[order[held] as number] as Charge
      claims.end(held, line * LINE_64, seen)
    }
    return false
  }

  /** True where the request must be refused for it. */
  private leaveUndecided(charge: Charge): boolean {
    charge.decided(VERDICT.undecided, this.nowTicks)
    return !charge.admitsUndecided && !charge.reports
  }

  /** Gives the key a slot that holds `tat`; charge.line and charge.seen say where and what. */
  private insert(charge: Charge, tat: bigint): number {
    const { claims, words, slots } = this
    const { ints } = slots
    const home = slots.rowOf(charge.a)
    const other = slots.rowOf(charge.b)
    const lock = home * ROW_64
    while (!claims.take(LOCK_ENTRY, LOCK, lock, 0n)) {
      const holder = Atomics.load(words, lock)
      if (holder === 0n || claims.outwait(lock, holder)) continue
      this.counts[COUNT.stuck]!++
      return HELD
    }
    let outcome = NONE_FREE
    const limit = this.nowTicks - GRACE_TICKS
    for (;;) {
      if (this.slots.find(charge) >= 0) {
        outcome = FOUND
        break
      }
      let line = slots.freeIn(home, limit)
      if (slots.live > CROWDED && other !== home) {
        const live = slots.live
        const elsewhere = slots.freeIn(other, limit)
        if (elsewhere >= 0 && (line < 0 || slots.live < live)) line = elsewhere
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
      this.counts[COUNT.inserts]!++
      if (Atomics.exchange(slots.tags, tagIndex(line), tagOf(charge.c)) !== 0) this.counts[COUNT.evictions]!++
      claims.end(TAKEOVER_ENTRY, word, tat)
      charge.line = line
      charge.seen = tat
      outcome = INSERTED
      break
    }
    claims.end(LOCK_ENTRY, lock, 0n)
    if (outcome === NONE_FREE) this.counts[COUNT.full]!++
    return outcome
  }

  /** At start, before there are workers: a bucket of an earlier run. False: there is no room for it. */
  restore(charge: Charge, tat: bigint): boolean {
    this.nowTicks = ticksAt(this.segment.nowUs())
    return this.insert(charge, tat) === INSERTED
  }

  /** Primary, when a worker is gone and before another gets its index: ends the claims it died with. */
  release(owner: number): void {
    new Claims(this.words, this.slots.journal(owner), owner).left((kind, word, saved) => {
      if (kind === TAKEOVER) this.slots.empty(word / LINE_64)
      else Atomics.store(this.words, word, kind === HOLD ? saved : 0n)
    })
  }

  /** Added up over all workers, since the table was made. */
  totals(): RateCounts {
    return this.slots.totals()
  }

  /** Buckets that are not full, and slots there are. Reads the whole table: for whoever asks, not per request. */
  occupancy(): { live: number; slots: number } {
    const { slots } = this
    const now = ticksAt(this.segment.nowUs())
    let live = 0
    for (let row = 0; row < slots.rows; row++) {
      slots.freeIn(row, now)
      live += slots.live
    }
    return { live, slots: slots.rows * SLOTS_PER_ROW }
  }
}

/** Math.max takes no bigints. */
function later(a: bigint, b: bigint): bigint {
  if (a > b) return a
  return b
}
