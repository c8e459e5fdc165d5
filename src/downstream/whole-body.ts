// A request body that is read whole, because a signature covers it. Runs per such request. The downstream takes each
// chunk back when its listener returns, so a chunk is copied once.
import type { Deadline } from '../exchange/deadlines.js'
import type { BodyListener } from '../exchange/downstream.js'
import type { Exchange, Holder } from '../exchange/exchange.js'
import { Rejection } from '../exchange/outcome.js'
import { type BodyRules, CLIENT_SILENCE_MS, malformed, Pace, tooLarge, uploadTooSlow } from './body.js'
import { memoryFull } from './body-memory.js'
import { GatheredBytes } from './gathered-bytes.js'

const tooLargeToHold = new Rejection(
  'body_too_large',
  'body over what one client may hold of TIDEGATE_BODY_MEMORY',
  true,
)

/** All of it must have arrived this long after the request's head. */
const WHOLE_BODY_US = 60e6

/**
 * Reads the body into exchange.body, then calls done, with a rejection where the body is too long or too slow. Does not
 * call it when the client leaves.
 */
export class WholeBody implements Holder, Deadline, BodyListener {
  deadlineUs: number
  slot = -1
  readonly exchange: Exchange
  private readonly rules: BodyRules
  private readonly pace: Pace
  private readonly done: (exchange: Exchange, rejection: Rejection | null) => void
  private readonly gathered = new GatheredBytes()

  constructor(exchange: Exchange, rules: BodyRules, done: (exchange: Exchange, rejection: Rejection | null) => void) {
    this.exchange = exchange
    this.rules = rules
    this.pace = new Pace(exchange.startUs, rules)
    this.done = done
    this.deadlineUs = exchange.startUs + CLIENT_SILENCE_MS * 1000
    rules.deadlines.add(this)
    exchange.holder = this
    if (exchange.contentLength > rules.memory.mostPerAddress) {
      this.finish(tooLargeToHold)
      return
    }
    exchange.downstream.listen(this)
  }

  abandon(): void {
    this.release()
  }

  expire(): void {
    this.finish(uploadTooSlow)
  }

  onMalformed(): void {
    if (this.slot >= 0) this.finish(malformed)
  }

  onBody(chunk: ArrayBuffer, isLast: boolean): void {
    if (this.slot < 0) return
    const { exchange, gathered } = this
    exchange.bytesIn += chunk.byteLength
    if (exchange.bytesIn > exchange.route!.maxBodyBytes) return this.finish(tooLarge)
    const { memory } = this.rules
    gathered.append(chunk, exchange.contentLength > 0 ? exchange.contentLength : memory.mostPerAddress)
    if (!memory.hold(exchange, gathered.capacity)) {
      return this.finish(gathered.length > memory.mostPerAddress ? tooLargeToHold : memoryFull)
    }
    if (!isLast) {
      this.deadlineUs = Math.min(exchange.startUs + WHOLE_BODY_US, this.rules.nowUs() + CLIENT_SILENCE_MS * 1000)
      if (!this.pace.holds(exchange.downstream, exchange.bytesIn)) this.finish(uploadTooSlow)
      return
    }
    exchange.body = gathered.take()
    this.finish(null)
  }

  private finish(rejection: Rejection | null): void {
    this.release()
    this.done(this.exchange, rejection)
  }

  private release(): void {
    this.rules.deadlines.remove(this)
    this.exchange.holder = null
    this.gathered.clear()
  }
}
