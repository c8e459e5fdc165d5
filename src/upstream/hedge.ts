// When a second attempt begins beside one that takes long: for one route that asks for it, in one worker and one
// generation. Runs per request of such routes. It knows no request; handlers/proxy/race.ts makes the attempts.
import type { HedgeRules } from '../config/hedge.js'
import { bucketOf, bucketStartUs, DURATION_BUCKETS, MAX_DURATION_US } from '../state/durations.js'
import { RetryBudget } from './retry-budget.js'

/** The percentile is worked out again after so many responses, and is not known before as many have come. */
const RESPONSES_AT_ONCE = 64
/** Counts are halved at so many, so that the last ones weigh most. */
const MOST_RESPONSES = 2048
/** Timers have whole milliseconds. */
const LEAST_MS = 1

export class Hedge {
  readonly budget: RetryBudget
  /** After so long another endpoint is asked, too. Infinity while that is not known. */
  delayMs: number
  private readonly rules: HedgeRules
  private readonly counts: Float64Array | null
  private total = 0
  private sinceUpdate = 0

  constructor(rules: HedgeRules, nowUs: number) {
    this.rules = rules
    this.budget = new RetryBudget(rules.budget, nowUs)
    this.delayMs = rules.afterMs > 0 ? rules.afterMs : Number.POSITIVE_INFINITY
    this.counts = rules.afterMs > 0 ? null : new Float64Array(DURATION_BUCKETS)
  }

  /** @param us until the head of a response */
  observe(us: number): void {
    const { counts } = this
    if (counts === null) return
    counts[bucketOf(Math.min(Math.max(0, us), MAX_DURATION_US) >>> 0)]!++
    this.total++
    if (++this.sinceUpdate < RESPONSES_AT_ONCE) return
    this.sinceUpdate = 0
    this.delayMs = Math.max(LEAST_MS, this.percentileUs(counts) / 1000)
    if (this.total >= MOST_RESPONSES) this.forgetHalf(counts)
  }

  /** The end of the bucket that it lies in. */
  private percentileUs(counts: Float64Array): number {
    const wanted = this.total * this.rules.percentile
    let sum = 0
    for (let bucket = 0; bucket < DURATION_BUCKETS; bucket++) {
      sum += counts[bucket] as number
      if (sum >= wanted) return bucketStartUs(bucket + 1)
    }
    return MAX_DURATION_US
  }

  private forgetHalf(counts: Float64Array): void {
    this.total /= 2
    for (let bucket = 0; bucket < DURATION_BUCKETS; bucket++) counts[bucket]! /= 2
  }
}
