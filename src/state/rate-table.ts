// What all limits have counted, by key: exact over all workers and kept from start to start. Runs per request; knows
// nothing of routes or HTTP (policy/rate-limit.ts does). What a slot says and when it admits: bucket.ts, window.ts,
// quota.ts. Where slots lie: rate-slots.ts. How a worker holds several at once: claims.ts.
//
// A decision reads a slot's first word, works out the next one, and replaces it by one compareExchange: it takes no
// lock. A slot whose time has passed says the same as no slot, and is free for another key.
//
// One rule makes this safe: no word comes twice in a slot, whatever its key, and while the key changes, a claim (a
// negative number) stands in place of the word. So a worker that loads the word, then finds its key in the slot, and
// then replaces that very word knows that the key was there all along and nothing was counted in between. (A claim that
// ends with the word it began with has changed nothing.)
//   decide   word and key as above. To refuse, it reads the word again, for the same reason, and writes nothing.
//   insert   claims the lock of the key's first row, which any worker that inserts the same key needs as well; looks
//            again; claims the word of a free slot; writes key, tag and what belongs to the meter; publishes a word
//            that has counted nothing. A worker that charges the slot's former key fails on the claim. If the inserting
//            worker dies in between, release() empties the slot and opens the lock.
//   several  looks at all limits first: if one refuses, nothing was written. Then it claims all words but the last, in
//            order of place, replaces the last, and publishes the others. If any word changed meanwhile, it puts all
//            back and decides anew. So no worker ever sees one charged and not the others, and a refusal charges none.
//            (A worker that dies in this instant leaves the last one charged, for a request that died with it.)
// No worker waits for a claim while it holds one, so no two wait for each other.
//
// If no slot is free for a key, the key is counted in one that it shares with others of its limit: one of Share.common,
// by its hash. Shared slots have keys like any other, and room is kept for them (share.ts). Such a slot has counted at
// least what was admitted of any of its keys, so none of them gets more than its limit. When a slot becomes free for
// one of them, the key begins there with the count of the shared one. One worker may charge the shared slot while
// another moves the key: the first charges and then looks for the key, the other writes the key and then copies the
// count. So one of them sees what the other did: either the copy has the charge, or the first worker charges the key's
// own slot as well.
import { type Charge, VERDICT } from './charge.js'
import { Claims, ENTRIES } from './claims.js'
import { KeyHash } from './key-hash.js'
import { COUNT, type RateCounts, RateSlots, tagOf } from './rate-slots.js'
import type { Segment } from './segment.js'
import { type Share, type SlotKey, sharedMark } from './share.js'
import { ticksAt } from './ticks.js'

/** Beyond this many live slots the first row is compared with the second. */
const CROWDED = 7
/**
 * How long ago a slot's time must have passed before another key gets it: a request may be decided so long after its
 * own time.
 */
const GRACE_TICKS = ticksAt(100_000) - ticksAt(0)
// Kinds of claims, for release().
const LOCK = 1
const TAKEOVER = 2
const HOLD = 3
// Journal entries; those below are for holds.
const LOCK_ENTRY = ENTRIES - 1
const TAKEOVER_ENTRY = ENTRIES - 2
/** Most limits that one request can have. */
export const MAX_CHARGES = TAKEOVER_ENTRY + 1

// What came of looking for a slot, or making one.
const DONE = 0
const NONE_FREE = 1
const STUCK = 2
/** Start over. Below every position of a charge, and not the -1 that means admitted. */
const AGAIN = -2

export class RateTable {
  readonly narrow: RateSlots
  readonly wide: RateSlots
  private readonly words: BigInt64Array
  private readonly counts: Float64Array
  private readonly claims: Claims
  private readonly order = new Int32Array(MAX_CHARGES)
  private readonly common = new KeyHash()

  /** @param owner the worker's owner index, which no two living workers share. Any will do for reading. */
  constructor(
    private readonly segment: Segment,
    readonly owner: number,
  ) {
    this.narrow = new RateSlots(segment, owner, false)
    this.wide = new RateSlots(segment, owner, true)
    this.words = this.narrow.words
    this.counts = this.narrow.counts
    this.claims = new Claims(this.words, this.narrow.journal(owner), owner)
  }

  /** One limit. The verdict is in the charge as well. */
  admit(charge: Charge, nowUs: number): number {
    this.counts[COUNT.decisions]!++
    return this.decide(charge, nowUs)
  }

  private decide(charge: Charge, nowUs: number): number {
    for (;;) {
      const verdict = this.lookAt(charge, nowUs)
      if (verdict !== VERDICT.admitted || charge.cost.units === 0) return verdict
      if (!charge.owned) {
        const placed = this.place(charge, nowUs)
        if (placed === AGAIN) continue
        if (placed !== DONE) return this.leave(charge)
      }
      if (this.charged(charge) && (charge.owned || !this.hasOwn(charge))) return verdict
    }
  }

  /** What admit would say of the charge now. Changes nothing. */
  peek(charge: Charge, nowUs: number): number {
    return this.lookAt(charge, nowUs)
  }

  /**
   * Takes the first `count` charges, all or none of them; their keys must differ. Returns the position of the charge
   * that refused, or -1. If several refuse, it is the one that will for longest. A charge that only reports gets its
   * verdict and refuses nothing.
   */
  admitAll(charges: readonly Charge[], count: number, nowUs: number): number {
    this.counts[COUNT.decisions]! += count
    for (;;) {
      const refusing = this.peekAll(charges, count, nowUs)
      if (refusing >= 0) return refusing
      const unplaced = this.placeAll(charges, count, nowUs)
      if (unplaced >= 0) return unplaced
      if (unplaced !== AGAIN && this.take(charges, count)) return this.chargeMoved(charges, count, nowUs)
      this.counts[COUNT.retries]!++
    }
  }

  /** What admitAll would say of the charges now. Changes nothing. */
  peekAll(charges: readonly Charge[], count: number, nowUs: number): number {
    let refusing = -1
    let longestUs = 0
    for (let i = 0; i < count; i++) {
      const charge = charges[i] as Charge
      // An earlier round has left it so.
      if (charge.verdict === VERDICT.undecided) continue
      const verdict = this.lookAt(charge, nowUs)
      if (charge.reports || verdict === VERDICT.admitted) continue
      if (verdict === VERDICT.undecided) {
        if (!charge.admitsUndecided) return i
        continue
      }
      charge.meter!.tell(charge, nowUs)
      if (refusing >= 0 && charge.againInUs <= longestUs) continue
      longestUs = charge.againInUs
      refusing = i
    }
    return refusing
  }

  /** The kind of slots that the charge's meter uses. */
  slotsOf(charge: Charge): RateSlots {
    return charge.meter!.wide ? this.wide : this.narrow
  }

  /** Decides without writing. */
  private lookAt(charge: Charge, nowUs: number): number {
    const slots = this.slotsOf(charge)
    for (;;) {
      let at = slots.find(charge.key)
      charge.owned = at >= 0
      if (at < 0) at = this.findCommon(charge, slots)
      charge.at = at
      charge.seen = slots.seen
      if (at >= 0 && slots.seen < 0n) {
        if (this.claims.outwait(at, slots.seen)) continue
        this.counts[COUNT.stuck]!++
        return this.leave(charge)
      }
      charge.verdict = charge.meter!.decide(charge, slots, at, nowUs) ? VERDICT.admitted : VERDICT.refused
      if (charge.verdict === VERDICT.refused && at >= 0 && Atomics.load(this.words, at) !== charge.seen) continue
      return charge.verdict
    }
  }

  /** The slot that the key would share with others; -1 where it may not, or none exists. */
  private findCommon(charge: Charge, slots: RateSlots): number {
    if (!charge.admitsUndecided) return -1
    return slots.find(this.commonKey(charge))
  }

  private commonKey({ share, key }: Charge): SlotKey {
    const { common, commonKeys } = share as Share
    return this.common
      .from(commonKeys)
      .word(key.d & (common - 1))
      .finish()
  }

  /** Counts an admitted charge. False: the slot has changed, and nothing was counted. */
  private charged(charge: Charge): boolean {
    const { at, seen } = charge
    if (!charge.meter!.prepare(charge, this.slotsOf(charge), at, seen)) return false
    if (Atomics.compareExchange(this.words, at, seen, charge.next) !== seen) return false
    if (!charge.owned) this.counts[COUNT.shared]!++
    return true
  }

  /**
   * Finds a slot for a charge that was admitted without one. DONE: charge.at is the slot it shares. AGAIN: it has its
   * own now.
   */
  private place(charge: Charge, nowUs: number): number {
    const slots = this.slotsOf(charge)
    const own = this.insert(charge, charge.key, slots, nowUs, false)
    if (own !== NONE_FREE) return own
    this.counts[COUNT.full]!++
    if (charge.at >= 0) return DONE
    return charge.admitsUndecided ? this.insert(charge, this.commonKey(charge), slots, nowUs, true) : NONE_FREE
  }

  /** The position of a charge that must be refused for want of room, AGAIN or -1. */
  private placeAll(charges: readonly Charge[], count: number, nowUs: number): number {
    let outcome = -1
    for (let i = 0; i < count; i++) {
      const charge = charges[i] as Charge
      if (charge.verdict !== VERDICT.admitted || charge.owned || charge.cost.units === 0) continue
      const placed = this.place(charge, nowUs)
      if (placed === DONE) continue
      if (placed === AGAIN) outcome = AGAIN
      else {
        this.leave(charge)
        if (!charge.admitsUndecided && !charge.reports) return i
      }
    }
    return outcome
  }

  /**
   * Charges all that were admitted, so that no worker sees only some charged. False: a slot changed meanwhile, and none
   * was charged.
   */
  private take(charges: readonly Charge[], count: number): boolean {
    const { order, claims } = this
    let taking = 0
    for (let i = 0; i < count; i++) {
      const charge = charges[i] as Charge
      if (charge.verdict !== VERDICT.admitted || charge.cost.units === 0) continue
      let place = taking++
      for (; place > 0 && (charges[order[place - 1] as number] as Charge).at > charge.at; place--)
        order[place] = order[place - 1] as number
      order[place] = i
    }
    if (taking === 0) return true
    let held = 0
    for (; held < taking - 1; held++) {
      const charge = charges[order[held] as number] as Charge
      if (!claims.take(held, HOLD, charge.at, charge.seen)) break
      if (!charge.meter!.prepare(charge, this.slotsOf(charge), charge.at, claims.claim)) {
        claims.end(held, charge.at, charge.seen)
        break
      }
    }
    if (held === taking - 1 && this.charged(charges[order[held] as number] as Charge)) {
      for (let i = 0; i < held; i++) {
        const { at, next, owned } = charges[order[i] as number] as Charge
        claims.end(i, at, next)
        if (!owned) this.counts[COUNT.shared]!++
      }
      return true
    }
    while (held-- > 0) {
      const { at, seen } = charges[order[held] as number] as Charge
      claims.end(held, at, seen)
    }
    return false
  }

  /**
   * Charges the own slots of keys that moved there while their shared slot was charged. Returns as admitAll does; if
   * one refuses, the others stay charged.
   */
  private chargeMoved(charges: readonly Charge[], count: number, nowUs: number): number {
    for (let i = 0; i < count; i++) {
      const charge = charges[i] as Charge
      if (charge.verdict !== VERDICT.admitted || charge.owned || charge.cost.units === 0 || !this.hasOwn(charge))
        continue
      const verdict = this.decide(charge, nowUs)
      if (verdict === VERDICT.admitted || charge.reports) continue
      if (verdict === VERDICT.refused || !charge.admitsUndecided) return i
    }
    return -1
  }

  /** After a charge on a shared slot. */
  private hasOwn(charge: Charge): boolean {
    // Tags are plain reads: this makes the charge visible before them.
    Atomics.load(this.words, charge.at)
    return this.slotsOf(charge).find(charge.key) >= 0
  }

  private leave(charge: Charge): number {
    charge.verdict = VERDICT.undecided
    return VERDICT.undecided
  }

  /**
   * Gives the key a slot, which begins empty or with the shared slot's count. AGAIN: it has one, or lost a race for it.
   */
  private insert(charge: Charge, key: SlotKey, slots: RateSlots, nowUs: number, common: boolean): number {
    const { claims, words } = this
    const share = charge.share as Share
    const home = slots.rowOf(key.a)
    const other = slots.rowOf(key.b)
    const lock = slots.lockOf(home)
    while (!claims.take(LOCK_ENTRY, LOCK, lock, 0n)) {
      const holder = Atomics.load(words, lock)
      if (holder === 0n || claims.outwait(lock, holder)) continue
      this.counts[COUNT.stuck]!++
      return STUCK
    }
    let outcome = AGAIN
    const limit = ticksAt(nowUs) - GRACE_TICKS
    while (slots.find(key) < 0) {
      const at = this.freeSlot(slots, home, other, limit, share, common)
      if (at < 0) {
        outcome = NONE_FREE
        break
      }
      const former = Atomics.load(words, at)
      if (former < 0n || former > limit || !claims.take(TAKEOVER_ENTRY, TAKEOVER, at, former)) continue
      this.fill(slots, at, key, common ? sharedMark(share.mark) : share.mark)
      // As in hasOwn: this makes the key visible before we look for the shared slot.
      Atomics.load(words, at)
      const shared = common ? -1 : this.findCommon(charge, slots)
      const seen = shared >= 0 ? slots.seen : 0n
      // If its time has passed, it says nothing.
      const from = seen > limit ? shared : -1
      charge.seen = seen
      const word = charge.meter!.begin(charge, slots, at, from, nowUs)
      // If it was claimed or charged meanwhile, the copy may be of no single moment.
      const isTorn = shared >= 0 && (seen < 0n || Atomics.load(words, shared) !== seen)
      if (isTorn) slots.forget(at)
      claims.end(TAKEOVER_ENTRY, at, isTorn ? ticksAt(nowUs) : word)
      break
    }
    claims.end(LOCK_ENTRY, lock, 0n)
    return outcome
  }

  /** A free slot in one of the two rows; -1 where neither has one for this limit. */
  private freeSlot(
    slots: RateSlots,
    home: number,
    other: number,
    limit: bigint,
    share: Share,
    common: boolean,
  ): number {
    let found = slots.freeIn(home, limit, share.mark)
    if (!slots.hasRoom(share, common)) found = -1
    const { live, liveShared } = slots
    if ((found >= 0 && (common ? liveShared === 0 : live <= CROWDED)) || other === home) return found
    const elsewhere = slots.freeIn(other, limit, share.mark)
    if (elsewhere < 0 || !slots.hasRoom(share, common)) return found
    return found < 0 || (common ? slots.liveShared < liveShared : slots.live < live) ? elsewhere : found
  }

  private fill(slots: RateSlots, at: number, key: SlotKey, mark: number): void {
    slots.writeKey(at, key, mark)
    this.counts[COUNT.inserts]!++
    if (Atomics.exchange(slots.tags, slots.tagAt(at), tagOf(key.c)) !== 0) this.counts[COUNT.evictions]!++
  }

  /**
   * At start, before workers: takes over a slot of an earlier run, from a table of any size. False: no slot is free for
   * it.
   */
  restore(from: RateSlots, fromAt: number): boolean {
    const slots = from.wide ? this.wide : this.narrow
    const key = from.keyAt(fromAt)
    const limit = ticksAt(this.segment.nowUs())
    for (const row of [slots.rowOf(key.a), slots.rowOf(key.b)]) {
      const at = slots.freeIn(row, limit, 0)
      if (at < 0) continue
      slots.copyState(at, from, fromAt)
      this.fill(slots, at, key, from.markAt(fromAt))
      return true
    }
    return false
  }

  /** Primary, when a worker is gone and before another gets its index: ends the claims that it held. */
  release(owner: number): void {
    new Claims(this.words, this.narrow.journal(owner), owner).left((kind, at, saved) => {
      if (kind === TAKEOVER) (at < this.wide.lockOf(0) ? this.narrow : this.wide).empty(at)
      else Atomics.store(this.words, at, kind === HOLD ? saved : 0n)
    })
  }

  /** Added up over all workers, since the table was made. */
  totals(): RateCounts {
    return this.narrow.totals()
  }

  /** Slots whose time has not passed, and all slots, of either kind. Reads the whole table: not for a request. */
  occupancy(): { live: number; slots: number; liveWindows: number; windowSlots: number } {
    const nowUs = this.segment.nowUs()
    const { live: liveWindows, slots: windowSlots } = this.wide.occupancy(nowUs)
    return { ...this.narrow.occupancy(nowUs), liveWindows, windowSlots }
  }
}
