// What the readers of request bodies share: how long a body may be, and how slowly it may come. The readers are
// whole-body.ts and upload.ts. Runs per request with a body.
import type { Deadlines } from '../exchange/deadlines.js'
import type { Downstream } from '../exchange/downstream.js'
import type { Exchange } from '../exchange/exchange.js'
import { Rejection } from '../exchange/outcome.js'
import type { BodyMemory } from './body-memory.js'

export const tooLarge = new Rejection('body_too_large', 'body over the limit', true)
export const uploadTooSlow = new Rejection('request_timeout', 'body not received in time', true)
export const malformed = new Rejection('bad_request', 'bad chunk', true)

/** A declared length over the limit is refused before a byte of it is read. */
export function checkLength(exchange: Exchange): Rejection | null {
  return exchange.contentLength > exchange.route!.maxBodyBytes ? tooLarge : null
}

/**
 * A client that sends nothing of its body for this long is refused. uWS cuts a connection 8 to 12 s after it last set
 * its clock (its timeout of 10 s, in ticks of 4): the client must be told why before that.
 */
export const CLIENT_SILENCE_MS = 7_000

/** What every reader of bodies needs. */
export interface BodyRules {
  readonly deadlines: Deadlines
  readonly nowUs: () => number
  /**
   * On average since the head, not counting the first seconds and the time the client was held back; 0 for no limit.
   */
  readonly minBytesPerSecond: number
  readonly memory: BodyMemory
}

const PACE_US = 1e6
const GRACE_US = 5e6

/**
 * Whether a body comes fast enough. Renews the downstream's own timeout once a second, so that a silent client is
 * noticed here first.
 */
export class Pace {
  private readonly rules: BodyRules
  private readonly startUs: number
  private setUs: number
  private heldSinceUs = 0
  private heldUs = 0

  constructor(startUs: number, rules: BodyRules) {
    this.rules = rules
    this.startUs = startUs
    this.setUs = startUs
  }

  /** Call it with each chunk, while the client is not held back. False: `bytes` so far are too few. */
  holds(downstream: Downstream, bytes: number): boolean {
    const nowUs = this.rules.nowUs()
    if (nowUs - this.setUs < PACE_US) return true
    this.setUs = nowUs
    downstream.renewTimeout()
    return bytes >= ((nowUs - this.startUs - this.heldUs - GRACE_US) / 1e6) * this.rules.minBytesPerSecond
  }

  pause(): void {
    this.heldSinceUs = this.rules.nowUs()
  }

  resume(): void {
    this.setUs = this.rules.nowUs()
    this.heldUs += this.setUs - this.heldSinceUs
  }
}
