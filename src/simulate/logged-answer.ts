// What the log says of the service that a request was for. A simulation assumes that each service would have answered
// the same again, whatever the configuration. Pure.
import { OUTCOMES, type OutcomeCode } from '../exchange/outcome.js'
import type { Entry } from './entry.js'

export interface LoggedAnswer {
  /**
   * `answered`: the service had the request. `failed`: an attempt failed, and the service is to blame. `ended`: the
   * request ended for another reason, which says nothing of the service. `unknown`: the service never had the request.
   */
  readonly kind: 'answered' | 'failed' | 'ended' | 'unknown'
  readonly status: number
  readonly code: OutcomeCode | ''
}

const NOT_ASKED: LoggedAnswer = { kind: 'unknown', status: 0, code: '' }

/** The service's own endpoints, bulkhead or connections had no room for it: that is after the limits were asked. */
export function foundNoRoom({ code, reason, attempts }: Entry): boolean {
  if (attempts > 0) return false
  return code === 'no_endpoint' || (code === 'overloaded' && /^bulkhead |^too many (?:requests|uploads) /.test(reason))
}

/** Of the route's service. */
export function answerOf(entry: Entry): LoggedAnswer {
  const { status, code, fallback, attempts } = entry
  if (fallback !== '') return failure(fallback)
  if (code === '') return attempts > 0 ? { kind: 'answered', status, code } : NOT_ASKED
  if (attempts > 0 || foundNoRoom(entry)) return failure(code, status)
  return NOT_ASKED
}

/** Of the service that stood in. */
export function answerOfFallback({ status, code, fallback, handler }: Entry): LoggedAnswer {
  if (fallback === '' || handler === 'static') return NOT_ASKED
  return code === '' ? { kind: 'answered', status, code } : failure(code, status)
}

function failure(code: OutcomeCode, status: number = OUTCOMES[code].status): LoggedAnswer {
  // A service whose breaker was open, or that the request never got to, was not asked.
  if (code === 'breaker_open' || code === 'rate_limited') return NOT_ASKED
  return { kind: code === 'upstream_error' || code === 'upstream_timeout' ? 'failed' : 'ended', status, code }
}
