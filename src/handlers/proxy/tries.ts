// The attempts of one exchange at one service: which one is under way, which one follows it, and which one is made
// beside it (race.ts). retries.ts and the budgets decide whether one may; deadlines and the client are the business of
// forwarding.ts. Runs per request.
import type { RetryEvent, RetryReason } from '../../config/retries.js'
import type { Exchange } from '../../exchange/exchange.js'
import type { Attempt, AttemptSink } from '../../upstream/attempt.js'
import { NONE } from '../../upstream/cluster/balancer.js'
import type { Cluster } from '../../upstream/cluster/cluster.js'
import type { EndpointState } from '../../upstream/cluster/endpoint-state.js'
import type { DeadlineError } from '../../upstream/failure.js'
import type { Hedge } from '../../upstream/hedge.js'
import { type AttemptFacts, backoffMs, mayRace, type SendFacts, whither } from '../../upstream/retries.js'
import type { RetryBudget } from '../../upstream/retry-budget.js'
import type { HandlerContext } from '../handler.js'
import { Race, type RaceOwner } from './race.js'
import { upstreamRequest } from './upstream-request.js'

export class Tries implements RaceOwner {
  /** The one under way, or about to begin. */
  attempt: Attempt
  endpoint: EndpointState
  private readonly context: HandlerContext
  private readonly exchange: Exchange
  private readonly cluster: Cluster
  readonly sink: AttemptSink
  /** For retries.ts. exchange.attempts also counts what the endpoints' clients have sent again. */
  private count: number
  /** The endpoints of the attempts before. */
  private tried = NONE
  /** Follows the attempt under way, once that is over, and has the breaker's permit already. */
  private next: Attempt | null = null
  private race: Race | null = null
  /** No second attempt could be made beside the one under way, for lack of budget. */
  private isRefused = false
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
    const { cluster, exchange, endpoint } = this
    // Only requests that are sent: one that is refused (too late, say) must not pay for the retries of others.
    if (this.tried === NONE) cluster.budget.deposit(exchange.upstreamStartUs)
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
    if (this.race?.isOn) return null
    const where = whither(cluster.service.retries, reason, sent, this.facts(responseStarted))
    if (where === 'nowhere') return null
    const nowUs = context.nowUs()
    const next = this.pick(nowUs)
    if (next === null || (next === this.endpoint && where === 'elsewhere')) return null
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

  private facts(responseStarted: boolean): AttemptFacts {
    const { method, bytesIn, upload } = this.exchange
    const bodyTaken = upload?.taken ?? false
    return { method, responseStarted, bodyTaken, bodyBytes: bytesIn, attempts: this.count }
  }

  /** One that was not tried yet, or else one that is not the last one tried. */
  private pick(nowUs: number): EndpointState | null {
    const { cluster, endpoint, tried } = this
    if (cluster.breaker?.isShut(nowUs)) return null
    const { balanceKey } = this.exchange
    const all = [...tried, endpoint]
    let next = cluster.pick(balanceKey, all)
    if (all.length > 1 && next !== null && all.includes(next)) next = cluster.pick(balanceKey, [endpoint])
    return next === null || next.isFull ? null : next
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
    this.race?.stop()
    this.race = null
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
    this.race?.stop()
  }

  /** The breaker counts a DeadlineError as a failure of the service, and no other reason. */
  abort(reason: Error): void {
    try {
      this.attempt.abort(reason)
    } finally {
      this.next?.abort(reason)
      this.race?.abort()
    }
  }

  // Two at once.

  /** Another attempt begins beside the one under way, if that takes long. */
  hedge(hedge: Hedge): void {
    const { attempt, endpoint } = this
    hedge.budget.deposit(this.exchange.upstreamStartUs)
    if (!attempt.isRunning || attempt.streams) return
    if (!mayRace(this.cluster.service.retries, 'hedge', this.facts(false))) return
    this.race = new Race(this, attempt, endpoint)
    this.race.watch(hedge)
  }

  onLate(hedge: Hedge): void {
    try {
      this.beside('hedge', hedge.budget)
    } catch (error) {
      this.exchange.crash(error)
    }
  }

  /** The endpoint has been taken out while the response is waited for: another one is asked, too. */
  rescue(): void {
    this.beside('out', this.cluster.budget)
  }

  private beside(reason: 'out' | 'hedge', budget: RetryBudget): void {
    const { attempt, cluster, context, endpoint, exchange } = this
    if (this.race?.isOn || !attempt.isRunning || attempt.streams) return
    if (!mayRace(cluster.service.retries, reason, this.facts(false))) return
    const nowUs = context.nowUs()
    const other = this.pick(nowUs)
    if (other === null || other === endpoint) return
    if (!budget.take(nowUs)) return this.noteRefusal(reason === 'hedge' ? 'hedge_refused' : 'refused')
    context.retried(exchange, reason)
    exchange.retried = reason
    this.count++
    exchange.attempts++
    exchange.deadline?.beginAnother(nowUs)
    this.race ??= new Race(this, attempt, endpoint)
    this.race.join(attempt.companion(), other, upstreamRequest(exchange, other.endpoint))
  }

  /** A request that waits at a failing endpoint asks again and again: its first refusal counts. */
  private noteRefusal(event: RetryEvent): void {
    if (this.isRefused) return
    this.isRefused = true
    this.context.retried(this.exchange, event)
  }

  /** The first of two has had its time: the second one goes on alone. False: there is no second one. */
  leaveFirst(error: DeadlineError): boolean {
    if (!this.race?.isOn || !this.cluster.service.retries.reasons.has('timeout')) return false
    this.race.leaveFirst(error)
    return true
  }

  nowUs(): number {
    return this.context.nowUs()
  }

  isBad(status: number): boolean {
    return status >= 400 && this.cluster.service.retries.statuses.has(status)
  }

  onWon(attempt: Attempt, endpoint: EndpointState): void {
    if (endpoint !== this.endpoint) this.tried = [...this.tried, this.endpoint]
    this.race = null
    this.attempt = attempt
    this.endpoint = endpoint
    this.exchange.endpoint = endpoint.endpoint
  }
}
