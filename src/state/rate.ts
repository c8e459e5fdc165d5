// What a limit means in numbers: GCRA's interval and burst, in ticks. Pure, computed once per policy. Knows no table.
//
// A tick is 1/5040 µs: 5040 has every factor up to 10, so that the interval between two requests is a whole number of ticks for each
// rate that anybody writes (1000/s, 3/s, 7/m, 1000000/s). For the others (11/s, 999/s) it is rounded up: never more is admitted than
// the rate allows, and less by at most one request in 5040 × the interval in µs, so one in 458 million at 11/s and one in five million
// at 999/s. Ticks since 2025 fit 63 bits until 2082.
import { EARLIEST_US } from './clock.js'

const TICKS_PER_US = 5040n
const TICKS_PER_SECOND = TICKS_PER_US * 1_000_000n
/** A bucket that takes longer to fill is cut down to this: the sum of a time and a span must fit 63 bits. */
const LONGEST_FILL_TICKS = 20n * 365n * 86_400n * TICKS_PER_SECOND

/** A day before the clock can be: no time that it shows is less than what the table takes off it. */
const EPOCH_US = EARLIEST_US - 86_400e6

/** Runs per request. */
export function ticksAt(us: number): bigint {
  return BigInt.asIntN(64, BigInt(Math.floor(us) - EPOCH_US) * TICKS_PER_US)
}

export class Rate {
  /** Between two requests of cost 1 at full rate. */
  readonly intervalTicks: bigint
  /** What a full bucket is worth: after a request of cost c from idle, burst − c are left. */
  readonly burstTicks: bigint
  readonly interval: number
  readonly burst: number

  /** @param quantity per windowSeconds, whole numbers, at most 10^6 per second. @param burst size of the bucket, at least 1 */
  constructor(quantity: number, windowSeconds: number, burst: number) {
    const window = BigInt(windowSeconds) * TICKS_PER_SECOND
    const count = BigInt(quantity)
    this.intervalTicks = (window + count - 1n) / count
    const fill = this.intervalTicks * BigInt(burst)
    const most = LONGEST_FILL_TICKS - (LONGEST_FILL_TICKS % this.intervalTicks)
    this.burstTicks = fill > most ? most : fill
    this.interval = Number(this.intervalTicks)
    this.burst = Number(this.burstTicks)
  }

  costTicks(cost: number): bigint {
    const ticks = this.intervalTicks * BigInt(cost)
    // More than the bucket holds is never admitted, however much more it is.
    return ticks > this.burstTicks ? this.burstTicks + 1n : ticks
  }
}
