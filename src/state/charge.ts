// A charge: what one limit takes for one request, and what came of it. policy/rate-limit.ts, the rate table and the
// meters (bucket.ts, window.ts, quota.ts) pass it to each other. Data only; used per request.
import { KeyHash } from './key-hash.js'
import type { RateSlots } from './rate-slots.js'
import type { Share } from './share.js'

export const VERDICT = {
  admitted: 0,
  refused: 1,
  /** Neither: no slot is free for the key, or a stopped worker holds it. The limit's `onFull` decides. */
  undecided: 2,
} as const

/** What a request costs, worked out once per limit: the number, and the same in ticks for a bucket. */
export interface Cost {
  readonly units: number
  readonly ticks: bigint
}

/**
 * How a limit counts: bucket.ts, window.ts, quota.ts. A slot's first word holds the meter's state. Its upper half is
 * the time from which the slot is as good as empty (rate-slots.ts), and the same word never comes twice in a slot while
 * another worker may still remember it.
 */
export interface Meter {
  /** Which of the two kinds of slots its state takes. */
  readonly wide: boolean
  /** Part of the key: meters of different salts cannot read each other's slots. */
  readonly salt: string
  cost(units: number): Cost
  /**
   * Would the slot at `at`, whose first word is charge.seen, admit the charge? If so, charge.next is its next first
   * word. Writes nothing.
   * @param at -1 for a key without a slot
   */
  decide(charge: Charge, slots: RateSlots, at: number, nowUs: number): boolean
  /**
   * Writes what must be in the slot before charge.next. False: another worker wrote meanwhile, decide anew.
   * @param held what the first word holds meanwhile: charge.seen, or the caller's claim
   */
  prepare(charge: Charge, slots: RateSlots, at: number, held: bigint): boolean
  /**
   * Writes all but the first word of a slot that the caller has claimed for a new key, and returns that word.
   * @param from the slot whose count the key takes over, with charge.seen as its first word; -1: the key begins empty
   */
  begin(charge: Charge, slots: RateSlots, at: number, from: number, nowUs: number): bigint
  /** After a decision: sets charge.left, wholeInUs and againInUs, for the response's header fields. */
  tell(charge: Charge, nowUs: number): void
}

const FREE: Cost = { units: 0, ticks: 0n }

/** Made once per worker and limit, and filled in for each request. */
export class Charge {
  meter: Meter | null = null
  cost: Cost = FREE
  share: Share | null = null
  /** mode: report. It is charged as long as it admits, and never refuses. */
  reports = false
  /** If no slot is free for the key, it shares one; if it cannot share one either, the request is admitted. */
  admitsUndecided = false
  readonly key = new KeyHash()

  // What came of it.
  verdict: number = VERDICT.admitted
  // While deciding: the slot, whether it is the key's own, its first word and its next one.
  at = -1
  owned = false
  seen = 0n
  next = 0n
  // What the meters note of the decision: a bucket's time; a window's or a quota's count, and times.
  tat = 0n
  position = 0
  used = 0
  newestUs = 0
  freedUs = 0

  /** What is left. */
  left = 0
  /** Until the whole limit is there again, and until the same charge is admitted again. */
  wholeInUs = 0
  againInUs = 0

  set(meter: Meter, cost: Cost, share: Share, key: KeyHash): void {
    this.meter = meter
    this.cost = cost
    this.share = share
    this.key.from(key)
    this.verdict = VERDICT.admitted
  }
}
