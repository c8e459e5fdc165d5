// What one limit takes for one request, and what came of it: what policy/rate-limit.ts, the rate table and the meters say to each other.
// Data only. Used per request.
import { KeyHash } from './key-hash.js'
import type { RateSlots } from './rate-slots.js'
import type { Share } from './share.js'

export const VERDICT = {
  admitted: 0,
  refused: 1,
  /** Neither: no slot is free in the key's rows, or a stopped worker holds it. The policy decides. */
  undecided: 2,
} as const

/** What a request takes, worked out once per policy: the number, and the same in ticks for a bucket. */
export interface Cost {
  readonly units: number
  readonly ticks: bigint
}

/**
 * How a limit counts: bucket.ts, window.ts, quota.ts. A slot's first word is the meter's state, or names it; its upper half is the time from
 * which the slot is as good as empty (rate-slots.ts), and the same word never comes twice in a slot while somebody may still remember it.
 */
export interface Meter {
  /** Which of the two kinds of slots its state takes. */
  readonly wide: boolean
  /** Part of the key: what meters of different salts have counted is of no use to each other. */
  readonly salt: string
  cost(units: number): Cost
  /**
   * Would the slot at `at`, whose first word is charge.seen, admit the charge? If so charge.next is its next first word. Reads alone.
   * @param at -1: a key without a slot
   */
  decide(charge: Charge, slots: RateSlots, at: number, nowUs: number): boolean
  /**
   * Writes what must be in the slot before charge.next is. False: another worker wrote meanwhile, decide anew.
   * @param held what the first word is meanwhile: charge.seen, or the caller's claim
   */
  prepare(charge: Charge, slots: RateSlots, at: number, held: bigint): boolean
  /**
   * In a slot that the caller has claimed for a new key: writes all but the first word, and returns that.
   * @param from a slot whose count the key takes over, with charge.seen as its first word; -1: it begins empty
   */
  begin(charge: Charge, slots: RateSlots, at: number, from: number, nowUs: number): bigint
  /** After a decision: what the answer's headers say, in charge.left, wholeInUs and againInUs. */
  tell(charge: Charge, nowUs: number): void
}

const FREE: Cost = { units: 0, ticks: 0n }

/** Made once per worker and policy, and filled in for each request. */
export class Charge {
  meter: Meter | null = null
  cost: Cost = FREE
  share: Share | null = null
  /** mode: report. Takes part as long as it admits, and never refuses. */
  reports = false
  /** Where there is no slot for the key it shares one, and if even that cannot be had it is admitted. */
  admitsUndecided = false
  readonly key = new KeyHash()

  // What came of it.
  verdict: number = VERDICT.admitted
  // While deciding: the slot, whether it is the key's own, its first word and its next one.
  at = -1
  owned = false
  seen = 0n
  next = 0n
  // What the meters remember of the decision: a bucket's time; a window's or a quota's count, and times.
  tat = 0n
  position = 0
  used = 0
  newestUs = 0
  freedUs = 0

  /** What is left. */
  left = 0
  /** Until all is there again, and until one more of this is admitted. */
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
