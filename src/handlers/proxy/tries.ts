// The attempts of one exchange at one service: which one is under way, and which one follows it. retries.ts and the
// budget decide whether one may; deadlines and the client are the business of forwarding.ts. Runs per request.
import type { RetryReason } from '../../config/retries.js'
import type { Exchange } from '../../exchange/exchange.js'
import type { Attempt, AttemptSink } from '../../upstream/attempt.js'
import { NONE } from '../../upstream/cluster/balancer.js'
import type { Cluster } from '../../upstream/cluster/cluster.js'
import type { EndpointState } from '../../upstream/cluster/endpoint-state.js'
import { backoffMs, type SendFacts, whither } from '../../upstream/retries.js'
import type { HandlerContext } from '../handler.js'
import { upstreamRequest } from './upstream-request.js'

export class Tries {
  /** The one under way, or about to begin. */
  attempt: Attempt
  endpoint: EndpointState
  private readonly context: HandlerContext
  private readonly exchange: Exchange
  private readonly cluster: Cluster
  private readonly sink: AttemptSink
  /** For retries.ts. exchange.attempts also counts what the endpoints' clients have sent again. */
  private count: number
  /** The endpoints of the attempts before. */
  private tried = NONE
  /** Follows the attempt under way, once that is over, and has the breaker's permit already. */
  private next: Attempt | null = null
  /** The attempt begins after it. */
  private backoff: NodeJS.Timeout | null = null

  /** @param attempt the first one, at `endpoint` */
  constructor(
    context: HandlerContext,
    exchange: Exchange,
    cluster: Cluster,
    endpoint: EndpointState,
    attempt: Attempt,
    sink: AttemptSink,
  ) {
    this.context = context
    this.exchange = exchange
    this.cluster = cluster
    this.endpoint = endpoint
    this.attempt = attempt
    this.sink = sink
    // Not 0 where this is the service of a fallback.
    this.count = exchange.attempts
  }

  /** The attempt begins. */
  send(): void {
    const { exchange, endpoint } = this
    this.count++
    exchange.attempts++
    this.attempt.start(upstreamRequest(exchange, endpoint.endpoint), endpoint, this.sink)
  }

  /**
   * Where another attempt goes, in place of the one under way: from here on it is paid for, and follow() begins it.
   * Null: none may follow.
   * @param responseStarted some of the response was given to the client, or is going to be
   */
  nextEndpoint(reason: RetryReason | null, sent: SendFacts | null, responseStarted: boolean): EndpointState | null {
    const { exchange, cluster, context } = this
    const { method, bytesIn, upload } = exchange
    const bodyTaken = upload?.taken ?? false
    const facts = { method, responseStarted, bodyTaken, bodyBytes: bytesIn, attempts: this.count }
    const where = whither(cluster.service.retries, reason, sent, facts)
    if (where === 'nowhere') return null
    const nowUs = context.nowUs()
    if (cluster.breaker?.isShut(nowUs)) return null
    const next = this.pick()
    if (next === null || next.isFull || (next === this.endpoint && where === 'elsewhere')) return null
    // An endpoint that could not be reached has had no work of it.
    if (sent?.written !== false && !cluster.budget.take(nowUs)) {
      context.retried(exchange, 'refused')
      return null
    }
    context.retried(exchange, reason!)
    exchange.retried = reason!
    this.next = this.attempt.successor()
    return next
  }

  /** One that was not tried yet, or else one that is not the last one tried. */
  private pick(): EndpointState | null {
    const { cluster, endpoint, tried } = this
    const next = cluster.pick(0, [...tried, endpoint])
    return next !== null && tried.includes(next) ? cluster.pick(0, [endpoint]) : next
  }

  /**
   * The attempt that nextEndpoint has allowed takes the place of the one that is over.
   * @param begin called when it is time to send it, maybe at once
   */
  follow(next: EndpointState, begin: () => void): void {
    const { exchange, endpoint } = this
    const waitMs = backoffMs(this.cluster.service.retries, this.count, next === endpoint)
    this.tried = [...this.tried, endpoint]
    this.endpoint = next
    exchange.endpoint = next.endpoint
    this.attempt = this.next!
    this.next = null
    if (waitMs < 1) return begin()
    this.backoff = setTimeout(() => {
      this.backoff = null
      try {
        begin()
      } catch (error) {
        exchange.crash(error)
      }
    }, waitMs)
  }

  /** No attempt is to be made any more. */
  stop(): void {
    if (this.backoff !== null) clearTimeout(this.backoff)
    this.backoff = null
  }

  /** The breaker counts a DeadlineError as a failure of the service, and no other reason. */
  abort(reason: Error): void {
    try {
      this.attempt.abort(reason)
    } finally {
      this.next?.abort(reason)
    }
  }
}
