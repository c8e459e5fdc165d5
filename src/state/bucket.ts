// A limit with `burst`: a token bucket, as GCRA's interval and burst in whole ticks. Runs per request. Its state is the
// first word of its slot:
//
//   word   tat   Int64   when the bucket will be full again, in ticks; a time that has passed means a full bucket
//
// The cost of a request is put on top of tat, or of now where tat has passed. The request is admitted if the result is
// no further than the burst from now; the result is then the new tat. An interval that is no whole number of ticks
// (11/s, 999/s) is rounded up: the limit never admits more than the rate, and less by at most one request in 5040 × the
// interval in µs, so one in 458 million at 11/s and one in five million at 999/s.
import type { Charge, Cost, Meter } from './charge.js'
import type { RateSlots } from './rate-slots.js'
import { TICKS_PER_SECOND, TICKS_PER_US, ticksAt } from './ticks.js'

/** Buckets that take longer to fill are made smaller: the sum of a time and a span must fit 63 bits. */
const LONGEST_FILL_TICKS = 20n * 365n * 86_400n * TICKS_PER_SECOND

export class Bucket implements Meter {
  readonly wide = false
  readonly salt = 'bucket'
  /** Between two requests of cost 1 at full rate. */
  private readonly intervalTicks: bigint
  /** What a full bucket is worth: after a request of cost c from idle, burst − c are left. */
  private readonly burstTicks: bigint

  /**
   * @param quantity per windowSeconds, whole numbers, at most 10^6 per second. @param burst size of the bucket, at
   * least 1
   */
  constructor(quantity: number, windowSeconds: number, burst: number) {
    const window = BigInt(windowSeconds) * TICKS_PER_SECOND
    const count = BigInt(quantity)
    this.intervalTicks = (window + count - 1n) / count
    const fill = this.intervalTicks * BigInt(burst)
    const most = LONGEST_FILL_TICKS - (LONGEST_FILL_TICKS % this.intervalTicks)
    this.burstTicks = fill > most ? most : fill
  }

  cost(units: number): Cost {
    const ticks = this.intervalTicks * BigInt(units)
    // Any cost above the burst is refused alike.
    return { units, ticks: ticks > this.burstTicks ? this.burstTicks + 1n : ticks }
  }

  decide(charge: Charge, _slots: RateSlots, at: number, nowUs: number): boolean {
    const now = ticksAt(nowUs)
    const tat = at < 0 ? now : later(charge.seen, now)
    const next = BigInt.asIntN(64, tat + charge.cost.ticks)
    const admits = BigInt.asIntN(64, next - now) <= this.burstTicks
    charge.next = next
    charge.tat = admits ? next : tat
    return admits
  }

  prepare(): boolean {
    return true
  }

  begin(charge: Charge, _slots: RateSlots, _at: number, from: number, nowUs: number): bigint {
    const now = ticksAt(nowUs)
    return from < 0 ? now : later(charge.seen, now)
  }

  tell(charge: Charge, nowUs: number): void {
    const now = ticksAt(nowUs)
    const fill = later(charge.tat, now) - now
    charge.left = Number((this.burstTicks - fill) / this.intervalTicks)
    charge.wholeInUs = Number(fill) / Number(TICKS_PER_US)
    const missing = fill + charge.cost.ticks - this.burstTicks
    // A cost above the burst is never admitted: the client may try again with less once the bucket is full.
    charge.againInUs = Math.min(Number(missing), Number(fill)) / Number(TICKS_PER_US)
  }
}

/** Math.max takes no bigints. */
function later(a: bigint, b: bigint): bigint {
  if (a > b) return a
  return b
}
