// A limit with `quota`: so many in each calendar hour, day, week or month of a time zone. Runs per request; only the
// calendar is asked once a period. Its state is the first word of its slot:
//
//   word   low half    count   Uint32   units in the period
//          high half   period  Int32    when the period ends, plus KEPT_US, rounded up (ticks.ts): no two periods have
//                                       the same
//
// Periods are the wall clock's, which is read once a second; decisions are timed by the segment's clock. If the word is
// of a later period than ours (another worker is ahead, or the wall clock was set back), that period counts, so nothing
// is admitted twice.
import type { Charge, Cost, Meter } from './charge.js'
import type { RateSlots } from './rate-slots.js'
import { highAfter, wordOf } from './ticks.js'

/**
 * How far the segment's clock, by which slots become free, may be ahead of the wall clock; beyond it slots are kept for
 * whole hours longer.
 */
const KEPT_US = 600e6
const LOOK_EVERY_US = 1e6
const HOUR_US = 3600e6
/**
 * Below KEPT_US and far from any multiple of 15 minutes, so that all workers round alike if a clock was wrong by a time
 * zone.
 */
const ROUNDING_US = 480e6

export class Quota implements Meter {
  readonly wide = false
  readonly salt: string
  private endMs = 0
  private high = 0
  private wallMs = 0
  /** By the segment's clock: when to read the wall clock again, and when the period ends. */
  private lookAtUs = 0
  private endUs = 0

  /**
   * @param quantity at most 10^9
   * @param calendar the periods' name: `day Europe/Berlin`
   * @param endMsOf when a period ends, by a moment in it: both in Unix time
   */
  constructor(
    private readonly quantity: number,
    calendar: string,
    private readonly endMsOf: (wallMs: number) => number,
    private readonly wallClockMs: () => number = Date.now,
  ) {
    this.salt = `quota ${calendar}`
  }

  cost(units: number): Cost {
    return { units, ticks: 0n }
  }

  decide(charge: Charge, slots: RateSlots, at: number, nowUs: number): boolean {
    if (nowUs >= this.lookAtUs) this.look(nowUs)
    const { units } = charge.cost
    let period = this.high
    let used = 0
    if (at >= 0) {
      const seen = slots.ints[at * 2 + 1] as number
      if (seen >= period) {
        period = seen
        used = (slots.ints[at * 2] as number) >>> 0
      }
    }
    charge.used = used
    if (used + units > this.quantity) return false
    charge.used += units
    charge.next = wordOf(period, charge.used)
    return true
  }

  prepare(): boolean {
    return true
  }

  begin(charge: Charge, _slots: RateSlots, _at: number, from: number): bigint {
    return from < 0 ? wordOf(this.high, 0) : charge.seen
  }

  tell(charge: Charge, nowUs: number): void {
    charge.left = Math.max(0, this.quantity - charge.used)
    charge.wholeInUs = charge.used === 0 ? 0 : this.endUs - nowUs
    charge.againInUs = this.endUs - nowUs
  }

  private look(nowUs: number): void {
    const wallMs = this.wallClockMs()
    // Earlier than before: somebody has set the clock back.
    if (wallMs >= this.endMs || wallMs < this.wallMs) {
      const endMs = this.endMsOf(wallMs)
      // A period keeps its name, and with it what was counted, when the clock is set back within it.
      if (endMs !== this.endMs) this.high = highAfter(endMs * 1000 + hoursAhead(nowUs, wallMs) * HOUR_US + KEPT_US)
      this.endMs = endMs
    }
    this.wallMs = wallMs
    this.endUs = nowUs + (this.endMs - wallMs) * 1000
    this.lookAtUs = Math.min(nowUs + LOOK_EVERY_US, this.endUs)
  }
}

function hoursAhead(nowUs: number, wallMs: number): number {
  return Math.max(0, Math.ceil((nowUs - wallMs * 1000 - ROUNDING_US) / HOUR_US))
}
