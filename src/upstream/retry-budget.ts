// How many requests to a service may be sent again, in one worker: a share of all of them, so that retries cannot keep
// down a service that is down. Runs per request, for which it costs one increment: the rest is worked out for many
// requests at once. It knows none of them.

/** Tokens that nobody takes lose their worth in about this time: what counts is the traffic of the last seconds. */
const MEMORY_S = 10
/** At least so many come per second, so that a service with little traffic has retries at all … */
const LEAST_PER_S = 1
/** … and begins with as many as that comes to. */
const FIRST_TOKENS = LEAST_PER_S * MEMORY_S
/** A time without requests must not dilute what has come after it: no more than so many are looked at as one. */
const MOST_AT_ONCE = 64

export class RetryBudget {
  /** Retries for each request, as the newest configuration has it. */
  ratio: number
  /** Not in `tokens` yet. */
  private requests = 0
  private tokens = FIRST_TOKENS
  private atUs: number

  constructor(ratio: number, nowUs: number) {
    this.ratio = ratio
    this.atUs = nowUs
  }

  /** A request to the service. Once for each, however often it is sent. */
  deposit(nowUs: number): void {
    if (++this.requests >= MOST_AT_ONCE) this.settle(nowUs)
  }

  /** False: no more for now. */
  take(nowUs: number): boolean {
    this.settle(nowUs)
    if (this.tokens < 1) return false
    this.tokens--
    return true
  }

  /**
   * As if requests had come evenly since the last look: tokens come in with them, and leave in proportion to how many
   * there are. A steady rate leads to the tokens of MEMORY_S, and no rate leads past that.
   */
  private settle(nowUs: number): void {
    const seconds = (nowUs - this.atUs) / 1e6
    if (seconds <= 0) {
      this.tokens += this.requests * this.ratio
    } else {
      const perSecond = Math.max((this.requests * this.ratio) / seconds, LEAST_PER_S)
      const kept = Math.exp(-seconds / MEMORY_S)
      this.tokens = this.tokens * kept + perSecond * MEMORY_S * (1 - kept)
      this.atUs = nowUs
    }
    this.requests = 0
  }
}
