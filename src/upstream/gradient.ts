// The adaptive limit on requests in flight: pure rules with a clock of the caller's (bulkhead.ts calls it a few times a
// second). A service that has more requests than it can work on queues them, and its latency grows with their number;
// below that, latency does not depend on it. So the limit is where latency is `tolerance` times what it is unloaded:
// every part of the service has work, and the queue within it is short.
//
//   latency above tolerance × base:   the limit falls in proportion, to 0.7 times at most
//   latency below, and limit in use:  it grows by an eighth, and no further than in proportion
//
// `base`, the unloaded latency, has to be measured while a service is loaded. A probe lowers the limit for one window,
// so far that a limit that was right leaves no queue; what the service takes then is the base. Probes come after half
// a second, and up to every ten seconds while they find what was known. A limit that falls five times in a row, and
// finds latency no better, is probed at once: then the service itself has become slower.
//
//   settling ──▶ measuring ──▶ settling ──▶ …     settling: until what began under the former limit has ended
import type { AdaptiveRules } from '../config/bulkhead.js'

/** What it remembers, in memory that all workers share: the positions in the record (state/bulkhead-table.ts). */
const LIMIT = 0
const BASE_US = 1
const DUE_US = 2
const MEASURING = 3
/** The sums when the window began, and its beginning. */
const LATENCY_US = 4
const LATENCIES = 5
const SINCE_US = 6
/** The limit to go back to after the probe under way; 0: none is. */
const SAVED = 7
const PROBE_US = 8
const PROBE_EVERY_US = 9
const STRAIN = 10

const WINDOW_US = 100_000
/** A window with fewer latencies than this is made longer, up to … */
const FEWEST = 20
/** … this, as long as it has any. */
const LONGEST_WINDOW_US = 1e6
const MOST_FALL = 0.7
const GROWTH = 1 / 8
/** A limit of which less than this is in use says nothing, and neither grows nor needs a probe. */
const IN_USE = 0.5
/** Times tolerance it is below 1, so that a base that was measured with a queue shrinks with each probe. */
const PROBE_DEPTH = 0.7
const MOST_STRAIN = 5
const PROBE_AGAIN_US = 500_000
const PROBE_SELDOM_US = 10e6
/** Two measurements of the base this close are the same. */
const SAME = 0.2

export class Gradient {
  private readonly record: Float64Array

  constructor(record: Float64Array) {
    this.record = record
  }

  isDue(nowUs: number): boolean {
    return nowUs >= (this.record[DUE_US] as number)
  }

  /**
   * @param latencyUs sum of all latencies of the service so far, and how many: only their growth matters
   * @param inFlight now
   * @param most the limit stays at or below this
   */
  look(
    nowUs: number,
    latencyUs: number,
    latencies: number,
    inFlight: number,
    { start, least, tolerance }: AdaptiveRules,
    most: number,
  ): void {
    const { record } = this
    if (record[LIMIT] === 0) record[LIMIT] = Math.min(start, most)
    const count = latencies - (record[LATENCIES] as number)
    const elapsedUs = nowUs - (record[SINCE_US] as number)
    // Endpoints that the service has lost take their sums along.
    if (record[MEASURING] === 0 || count < 0) return this.measure(nowUs, latencyUs, latencies)
    if (count < FEWEST && (count === 0 || elapsedUs < LONGEST_WINDOW_US)) {
      record[DUE_US] = nowUs + WINDOW_US / 4
      return
    }
    const sumUs = latencyUs - (record[LATENCY_US] as number)
    const takenUs = Math.max(1, sumUs / count)
    // Little's law gives the mean; responses that are still being sent are only in the number of now.
    const isUsed = Math.max(sumUs / elapsedUs, inFlight) >= IN_USE * (record[LIMIT] as number)
    if (record[SAVED] !== 0) this.endProbe(nowUs, takenUs)
    else this.adapt(nowUs, takenUs, isUsed, tolerance)
    record[LIMIT] = Math.min(most, Math.max(least, record[LIMIT] as number))
    this.settle(nowUs, takenUs)
  }

  private adapt(nowUs: number, takenUs: number, isUsed: boolean, tolerance: number): void {
    const { record } = this
    const limit = record[LIMIT] as number
    if (record[BASE_US] === 0) {
      record[BASE_US] = takenUs
      this.probeAfter(nowUs, PROBE_AGAIN_US)
    }
    if (!isUsed || limit < 2) {
      // As good as a probe: the service is not loaded.
      this.learn(takenUs)
      if (!isUsed) this.probeAfter(nowUs, record[PROBE_EVERY_US] as number)
    } else if (takenUs < (record[BASE_US] as number)) {
      // The service has become much faster: this is loaded as well.
      if (!this.isKnown(takenUs)) this.probeAfter(nowUs, PROBE_AGAIN_US)
      this.learn(takenUs)
    }
    const room = (tolerance * (record[BASE_US] as number)) / takenUs
    if (room < 1) {
      record[LIMIT] = limit * Math.max(MOST_FALL, room)
      record[STRAIN]!++
    } else {
      record[STRAIN] = 0
      if (isUsed) record[LIMIT] = Math.min(limit + Math.max(0.5, limit * GROWTH), limit * room)
    }
    const isStrained = (record[STRAIN] as number) >= MOST_STRAIN
    if (isUsed && (isStrained || nowUs >= (record[PROBE_US] as number))) this.beginProbe(tolerance)
  }

  private beginProbe(tolerance: number): void {
    const { record } = this
    record[SAVED] = record[LIMIT] as number
    record[LIMIT] = ((record[LIMIT] as number) * PROBE_DEPTH) / tolerance
    record[STRAIN] = 0
  }

  private endProbe(nowUs: number, takenUs: number): void {
    const { record } = this
    const isSame = this.isKnown(takenUs)
    this.learn(takenUs)
    record[LIMIT] = record[SAVED] as number
    record[SAVED] = 0
    const everyUs = Math.min(PROBE_SELDOM_US, (record[PROBE_EVERY_US] as number) * 2)
    this.probeAfter(nowUs, isSame ? everyUs : PROBE_AGAIN_US)
  }

  /** Half way where it is nearly what was known: one window is not exact. */
  private learn(takenUs: number): void {
    const { record } = this
    const knownUs = record[BASE_US] as number
    record[BASE_US] = this.isKnown(takenUs) ? (knownUs + takenUs) / 2 : takenUs
  }

  private isKnown(takenUs: number): boolean {
    const knownUs = this.record[BASE_US] as number
    return Math.abs(takenUs - knownUs) <= SAME * knownUs
  }

  private probeAfter(nowUs: number, us: number): void {
    this.record[PROBE_EVERY_US] = us
    this.record[PROBE_US] = nowUs + us
  }

  private measure(nowUs: number, latencyUs: number, latencies: number): void {
    const { record } = this
    record[MEASURING] = 1
    record[LATENCY_US] = latencyUs
    record[LATENCIES] = latencies
    record[SINCE_US] = nowUs
    record[DUE_US] = nowUs + WINDOW_US
  }

  private settle(nowUs: number, takenUs: number): void {
    this.record[MEASURING] = 0
    this.record[DUE_US] = nowUs + Math.min(takenUs, LONGEST_WINDOW_US)
  }
}
