// The one place where an exception on a request's way ends. Whatever calls into JavaScript on behalf of an exchange
// (uWS, an upstream client, the clock, a promise) catches there and calls exchange.crash(): the client gets a 500 or
// its connection is cut, all that the exchange holds is given back, the log gets the stack, and the other exchanges go
// on. Not for what may be expected to fail: that is returned.

import { cut, refuse } from '../downstream/answer.js'
import type { Exchange } from '../exchange/exchange.js'
import { Rejection } from '../exchange/outcome.js'
import type { Logger } from '../telemetry/log.js'
import { newRid } from '../telemetry/trace.js'

export function createCrash(
  log: Logger,
  conclude: (exchange: Exchange) => void,
): (exchange: Exchange, error: unknown) => void {
  function report({ rid, method, path, route }: Exchange, error: unknown): void {
    try {
      log.error({ err: error, rid, method, path, route: route?.name }, 'exception on the way of a request')
    } catch {
      // The log does not show the exception; the client still gets its response.
    }
  }

  return function crash(exchange: Exchange, error: unknown): void {
    /** What threw once may throw again, and must not prevent the next step. */
    const attempt = (step: () => void): void => {
      try {
        step()
      } catch (another) {
        report(exchange, another)
      }
    }
    if (exchange.rid === '') exchange.rid = newRid()
    report(exchange, error)
    const message = error instanceof Error ? error.message : String(error)
    const rejection = new Rejection('internal_error', `exception: ${message}`, true)
    if (!exchange.concluded) {
      exchange.code = rejection.code
      exchange.reason = rejection.reason
    }
    attempt(() => exchange.holder?.abandon())
    attempt(() => exchange.upload?.drop())
    // A second status line would be taken for a part of the first response.
    if (exchange.downstream.open && !exchange.downstream.begun) attempt(() => refuse(exchange, rejection, 0))
    // Concluded first: cutting calls back at once, as if the client had left.
    attempt(() => conclude(exchange))
    if (exchange.downstream.open) attempt(() => cut(exchange))
  }
}
