// How an exchange ends: a phase refuses it, its handler answers, its handler fails and the route's fallback answers,
// its client leaves, or an exception ends it (crash.ts). Each end passes conclude, exactly once. Runs per request.

import { refuse } from '../downstream/answer.js'
import type { BodyMemory } from '../downstream/body-memory.js'
import type { Exchange, ExchangeEnds } from '../exchange/exchange.js'
import type { Rejection } from '../exchange/outcome.js'
import type { Handler } from '../handlers/handler.js'
import type { WorkerCounters } from '../state/counters.js'
import type { AccessLog } from '../telemetry/access-log.js'
import type { Logger } from '../telemetry/log.js'
import { newRid } from '../telemetry/trace.js'
import { createCrash } from './crash.js'

interface ExitParts {
  readonly log: Logger
  readonly bodyMemory: BodyMemory
  readonly counters: WorkerCounters
  readonly accessLog: AccessLog | null
}

export class Exits implements ExchangeEnds {
  /** Exchanges that have begun and are not concluded. */
  inFlight = 0
  /** Called each time when the last exchange in flight has ended. */
  onIdle: (() => void) | null = null
  /** By Route.index; null for a route without a fallback. Set before the first exchange begins. */
  fallbacks: readonly (Handler | null)[] = []
  readonly crash: (exchange: Exchange, error: unknown) => void
  private readonly parts: ExitParts
  private readonly nowUs: () => number
  /** Counts and logs the exchange, once. */
  readonly conclude: (exchange: Exchange) => void

  /** @param giveBack what phases hold until the end (policy/in-flight-limit.ts); null: nothing */
  constructor(parts: ExitParts, nowUs: () => number, giveBack: ((exchange: Exchange) => void) | null) {
    this.parts = parts
    this.nowUs = nowUs
    this.conclude = giveBack === null ? this.end : (exchange) => this.endAfter(giveBack, exchange)
    this.crash = createCrash(parts.log, this.conclude)
  }

  begin(): void {
    this.inFlight++
    this.parts.counters.begin()
  }

  /** A phase refuses the exchange. */
  readonly reject = (exchange: Exchange, rejection: Rejection): void => {
    exchange.upload?.drop()
    refuse(exchange, rejection, retryAfterSeconds(exchange, rejection))
    this.conclude(exchange)
  }

  /** The handler has failed before it sent anything. */
  readonly fail = (exchange: Exchange, rejection: Rejection): void => {
    const fallback = this.fallbackFor(exchange, rejection)
    if (fallback === null) return this.reject(exchange, rejection)
    exchange.fallback = rejection.code
    exchange.reason = rejection.reason
    // The exchange goes on: the fallback may have to wait.
    exchange.endUs = 0
    fallback.handle(exchange)
  }

  clientLeft(exchange: Exchange): void {
    if (exchange.concluded) return
    // Without a gate a client may leave before the phases have its request.
    if (exchange.rid === '') exchange.rid = newRid()
    exchange.code = 'client_closed'
    exchange.reason = 'client left'
    if (exchange.bytesOut === 0) exchange.status = 499
    try {
      exchange.holder?.abandon()
    } catch (error) {
      return this.crash(exchange, error)
    }
    this.conclude(exchange)
  }

  private endAfter(giveBack: (exchange: Exchange) => void, exchange: Exchange): void {
    if (!exchange.concluded) giveBack(exchange)
    this.end(exchange)
  }

  private readonly end = (exchange: Exchange): void => {
    if (exchange.concluded) return
    exchange.concluded = true
    this.inFlight--
    const { bodyMemory, counters, accessLog } = this.parts
    const endUs = exchange.endUs > 0 ? exchange.endUs : this.nowUs()
    try {
      bodyMemory.hold(exchange, 0)
      counters.count(exchange, endUs - exchange.startUs)
      accessLog?.write(exchange, endUs)
    } catch (error) {
      this.crash(exchange, error)
    }
    if (this.inFlight === 0 && this.onIdle !== null) this.onIdle()
  }

  /** A fallback answers once, and only for failures of the upstream or the gateway, not of the client. */
  private fallbackFor(exchange: Exchange, rejection: Rejection): Handler | null {
    const fallback = this.fallbacks[exchange.route!.index] as Handler | null
    if (fallback === null || exchange.fallback !== '' || rejection.status < 502) return null
    // The service that has failed already: a split may have chosen the one that stands in for the others.
    if (exchange.service !== null && exchange.service === exchange.route!.fallback!.service) return null
    // The rest of the body will not be read, so no other handler could get it.
    if (rejection.closesConnection) return null
    if (fallback.needsBody && exchange.upload?.taken) return null
    return exchange.downstream.open ? fallback : null
  }
}

function retryAfterSeconds(exchange: Exchange, rejection: Rejection): number {
  if (rejection.code === 'rate_limited') return exchange.limitRetrySeconds
  if (rejection.status !== 503) return 0
  return rejection.code === 'breaker_open' ? exchange.retryAfterSeconds : 1
}
