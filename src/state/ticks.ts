// The unit of time of the rate table. Pure; runs per request.
//
// A tick is 1/5040 µs. 5040 has every factor up to 10, so for the usual rates (1000/s, 3/s, 7/m, 1000000/s) the
// interval between two requests is a whole number of ticks. Ticks since 2025 fit 63 bits until 2082.
import { EARLIEST_US } from './clock.js'

export const TICKS_PER_US = 5040n
export const TICKS_PER_SECOND = TICKS_PER_US * 1_000_000n

/** A day before the earliest time of the clock, so that ticks stay positive when a span is taken off. */
const EPOCH_US = EARLIEST_US - 86_400e6

export function ticksAt(us: number): bigint {
  return BigInt.asIntN(64, BigInt(Math.floor(us) - EPOCH_US) * TICKS_PER_US)
}

const HIGH_PER_US = Number(TICKS_PER_US) / 2 ** 32

/** The upper half of a time in ticks that is later than `us`, by less than 1.8 s. */
export function highAfter(us: number): number {
  return Math.floor((us - EPOCH_US) * HIGH_PER_US) + 1
}

const pair = new BigInt64Array(1)
const halves = new Int32Array(pair.buffer)

/** One 64-bit word of two halves. */
export function wordOf(high: number, low: number): bigint {
  halves[0] = low
  halves[1] = high
  return pair[0] as bigint
}

/** The same 64 bits as a double. */
const double = new Float64Array(pair.buffer)

export function bitsOf(value: number): bigint {
  double[0] = value
  return pair[0] as bigint
}

export function doubleOf(bits: bigint): number {
  pair[0] = bits
  return double[0] as number
}
