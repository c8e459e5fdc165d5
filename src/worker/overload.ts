// Whether this worker is overloaded, and which share of its requests it refuses because of that. Pure: shedder.ts
// tells it the time and how long requests wait, phases.ts asks it. admits() runs per request, but only while some are
// refused.
//
// As in CoDel (RFC 8289) the least of an interval counts: a pause, to collect garbage say, makes requests wait once,
// and a standing queue makes all of them wait. While the least is above the target the level rises with each interval,
// and else it falls.
//
//   level    0 ────────────────── 1 ────────────────── 2
//   refused  none   a share of all   all of low and normal, and
//                   but high: low    a share of high
//                   comes first
import { IMPORTANCES, type SheddingRules } from '../config/shedding.js'

const NORMAL = IMPORTANCES.indexOf('normal')
const HIGH = IMPORTANCES.indexOf('high')
/** By how much the level rises in an interval at most: where requests wait for one and a half times the target. */
const STEP = 0.1
/** By how much it falls at most: refused clients come back. */
const STEP_DOWN = 0.05
const MOST = 1.9
/** Looks in an interval, or it goes on: a process that was stopped for seconds has had one long wait. */
const LEAST_LOOKS = 3
/** Requests in an interval, or requests are not what the worker is busy with. */
const LEAST_REQUESTS = 20
/** Intervals at level 0 before it is over: not each of a row of waves is told of. */
const CALM_INTERVALS = 10

export class Overload {
  /** Some requests may be refused: ask admits(). Read for every request. */
  isActive = false
  /** Which share of the requests of the last interval was refused. */
  share = 0
  /** The least that requests have waited in the last interval. */
  waitUs = 0
  /** By importance, since it has been active. */
  readonly refused: number[] = IMPORTANCES.map(() => 0)
  /** Told when isActive has changed. */
  onChange: (() => void) | null = null
  private rules: SheddingRules | null = null
  private level = 0
  private calm = 0
  // By importance. Of those in the interval, the share that is refused, and what is over from the last one that was.
  private readonly seen: number[] = IMPORTANCES.map(() => 0)
  private readonly shares: number[] = IMPORTANCES.map(() => 0)
  private readonly carried: number[] = IMPORTANCES.map(() => 0)
  private refusedBefore = 0
  // The interval.
  private sinceUs = 0
  private looks = 0
  private leastUs = Number.POSITIVE_INFINITY
  private requestsBefore = 0

  /** From now on these are the rules; null: nothing is refused. */
  use(rules: SheddingRules | null): void {
    this.rules = rules
    if (rules === null && this.isActive) this.end()
  }

  /** One look. @param waitUs what requests wait now @param requests so far, with those in flight */
  look(nowUs: number, waitUs: number, requests: number): void {
    const { rules } = this
    if (rules === null) return
    this.looks++
    this.leastUs = Math.min(this.leastUs, waitUs)
    // So the first interval begins with the first long wait.
    if (!this.isActive && waitUs <= rules.targetUs) return this.begin(nowUs, requests)
    if (this.looks < LEAST_LOOKS || nowUs - this.sinceUs < rules.intervalUs) return
    const busy = requests - this.requestsBefore >= LEAST_REQUESTS
    const excess = busy ? this.leastUs / rules.targetUs - 1 : -1
    this.waitUs = this.leastUs
    this.begin(nowUs, requests)
    if (this.isActive) this.adjust(excess)
    else if (excess > 0) this.start()
  }

  /** @param importance position in IMPORTANCES */
  admits(importance: number): boolean {
    this.seen[importance]!++
    const carried = this.carried[importance]! + this.shares[importance]!
    if (carried < 1) {
      this.carried[importance] = carried
      return true
    }
    this.carried[importance] = carried - 1
    this.refused[importance]!++
    return false
  }

  private begin(nowUs: number, requests: number): void {
    this.sinceUs = nowUs
    this.looks = 0
    this.leastUs = Number.POSITIVE_INFINITY
    this.requestsBefore = requests
  }

  /** The first interval only counts, so that the share is taken of the right ones. */
  private start(): void {
    this.isActive = true
    this.calm = 0
    this.refused.fill(0)
    this.refusedBefore = 0
    this.onChange?.()
  }

  private adjust(excess: number): void {
    const step = Math.max(-STEP_DOWN, Math.min(STEP, 2 * STEP * excess))
    this.level = Math.min(MOST, Math.max(0, this.level + step))
    const refused = sum(this.refused)
    const total = sum(this.seen)
    this.share = total > 0 ? (refused - this.refusedBefore) / total : 0
    this.refusedBefore = refused
    this.divide()
    this.calm = excess <= 0 && this.level === 0 ? this.calm + 1 : 0
    if (this.calm >= CALM_INTERVALS) this.end()
  }

  /** The level, as shares of what the interval has seen of each importance. */
  private divide(): void {
    const { seen, shares, level } = this
    let left = Math.min(1, level) * (sum(seen) - seen[HIGH]!)
    for (let importance = 0; importance <= NORMAL; importance++) {
      const of = seen[importance]!
      // None of the least important ones came: if some come now, they go first.
      shares[importance] = of > 0 ? Math.min(1, left / of) : left > 0 ? 1 : 0
      left = Math.max(0, left - of)
    }
    shares[HIGH] = Math.max(0, level - 1)
    seen.fill(0)
  }

  private end(): void {
    this.isActive = false
    this.share = 0
    this.level = 0
    this.shares.fill(0)
    this.carried.fill(0)
    this.seen.fill(0)
    this.onChange?.()
  }
}

function sum(numbers: readonly number[]): number {
  let total = 0
  for (const number of numbers) total += number
  return total
}
