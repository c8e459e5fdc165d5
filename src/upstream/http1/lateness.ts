// When is a response late? Where requests share connections, one that takes long holds up those behind it. Its
// connection then takes no more, and what waits on it goes elsewhere; pool.ts does that, this file only measures. No
// clock of its own: told the time.
//
// A response is late when it has been next in line for several times as long as responses have been taking lately.
// "Lately" is a running median that moves by a sixteenth of itself towards each sample: no history, and an outlier
// weighs no more than any other.

const TIMES_MEDIAN = 4
/** Below this a collection of garbage would look like a slow response. */
const FLOOR_MS = 20

export class Lateness {
  private medianMs = 0
  /** Responses so far. Where it moves while one is late, the upstream as a whole is not. */
  answers = 0

  observe(tookMs: number): void {
    this.answers++
    if (this.medianMs === 0) this.medianMs = tookMs
    else if (tookMs > this.medianMs) this.medianMs += this.medianMs / 16
    else this.medianMs -= this.medianMs / 16
  }

  get limitMs(): number {
    return Math.max(FLOOR_MS, TIMES_MEDIAN * this.medianMs)
  }
}
