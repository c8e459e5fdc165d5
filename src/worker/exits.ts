// How an exchange leaves the phases: refused by one of them, failed by its handler and answered by the route's fallback, or answered. Each
// way out passes conclude, exactly once. An exception has its own way out, which ends here, too: crash.ts. Runs per request.

import { refuse } from '../downstream/answer.js'
import type { BodyMemory } from '../downstream/body-memory.js'
import type { Exchange, ExchangeEnds } from '../exchange/exchange.js'
import type { Rejection } from '../exchange/outcome.js'
import type { Handler } from '../handlers/handler.js'
import type { WorkerCounters } from '../state/counters.js'
import type { AccessLog } from '../telemetry/access-log.js'
import type { Logger } from '../telemetry/log.js'
import { createCrash } from './crash.js'

interface ExitParts {
  readonly log: Logger
  readonly bodyMemory: BodyMemory
  readonly counters: WorkerCounters
  readonly accessLog: AccessLog | null
}

export class Exits implements ExchangeEnds {
  /** Begun, and not concluded. */
  inFlight = 0
  /** Told each time that the last exchange in flight has ended. */
  onIdle: (() => void) | null = null
  /** By Route.index; null for a route without one. */
  fallbacks: readonly (Handler | null)[] = []
  readonly crash: (exchange: Exchange, error: unknown) => void
  private readonly parts: ExitParts
  private readonly nowUs: () => number

  constructor(parts: ExitParts, nowUs: () => number) {
    this.parts = parts
    this.nowUs = nowUs
    this.crash = createCrash(parts.log, this.conclude)
  }

  begin(): void {
    this.inFlight++
    this.parts.counters.begin()
  }

  /** A phase does not let it pass. */
  readonly reject = (exchange: Exchange, rejection: Rejection): void => {
    exchange.upload?.drop()
    refuse(exchange, rejection, retryAfterSeconds(exchange, rejection))
    this.conclude(exchange)
  }

  /** Its handler has failed, before anything was sent. */
  readonly fail = (exchange: Exchange, rejection: Rejection): void => {
    const fallback = this.fallbackFor(exchange, rejection)
    if (fallback === null) return this.reject(exchange, rejection)
    exchange.fallback = rejection.code
    exchange.reason = rejection.reason
    // It has not ended yet: the fallback may wait.
    exchange.endUs = 0
    fallback.handle(exchange)
  }

  clientLeft(exchange: Exchange): void {
    if (exchange.concluded) return
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

  readonly conclude = (exchange: Exchange): void => {
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

  /** Once, and only for what the handler is to blame for. */
  private fallbackFor(exchange: Exchange, rejection: Rejection): Handler | null {
    const fallback = this.fallbacks[exchange.route!.index] as Handler | null
    if (fallback === null || exchange.fallback !== '' || rejection.status < 502) return null
    // The rest of the body is not read: no other handler could have it.
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
